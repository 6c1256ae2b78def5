//! A disk that fails at each single step of a renewal, once or from then on.

use std::fs;

use super::steps::{LANES, steps_of_a_renewal};
use super::{Ground, NAME};
use crate::bed::namespace::Mounts;
use crate::bed::pebble::{Mood, Pebble};
use crate::bed::process::run;
use crate::bed::strace::{Accident, Then};
use crate::bed::wicketgate::{PROGRAM, Setup, clean, walk};
use crate::bed::{Bed, is_thorough, needs};

/// What the system says, and what a person is told to do about it.
const ERRORS: [(&str, &str, &str); 4] = [
    ("ENOSPC", "No space left on device", "free some space on that file system"),
    ("EIO", "Input/output error", ""),
    ("EDQUOT", "Disk quota exceeded", "free some space on that file system"),
    ("EROFS", "Read-only file system", "mount it writable"),
];

#[test]
fn a_disk_that_fails_at_any_step_leaves_a_whole_pair_and_says_so() {
    needs!("pebble", "curl", "openssl", "strace");
    let told = std::sync::Mutex::new((0, 0));
    std::thread::scope(|scope| {
        for lane in 0..LANES {
            let told = &told;
            scope.spawn(move || {
                let ground = Ground::new();
                let mut steps = steps_of_a_renewal(&ground);
                // Modes and owners fail where the file does that they are for.
                steps.retain(|step| is_thorough() || !step.call.starts_with("fch"));
                for (number, step) in steps.iter().enumerate() {
                    for (kind, error) in ERRORS.iter().enumerate() {
                        for onward in [false, true] {
                            // By turns; thoroughly, all of them.
                            let is_its_turn = number % 8 == 2 * kind + usize::from(onward);
                            if number % LANES != lane || !(is_its_turn || is_thorough()) {
                                continue;
                            }
                            let then = if onward { Then::KeepsFailing } else { Then::Fails };
                            let accident =
                                Accident { call: step.call.clone(), nth: step.nth, then: then(error.0) };
                            let has_failed = fail(&ground, &accident, *error);
                            let mut told = told.lock().unwrap();
                            told.0 += 1;
                            told.1 += usize::from(has_failed);
                        }
                    }
                }
            });
        }
    });
    let (faults, failed) = told.into_inner().unwrap();
    eprintln!("{faults} faults, of which {failed} failed the renewal; the others were told");
    assert!(failed > 0);
}

/// Whether the renewal failed.
#[track_caller]
fn fail(ground: &Ground, accident: &Accident, (_, reason, remedy): (&str, &str, &str)) -> bool {
    ground.restore();
    let traced = ground.renew_watched(Some(accident));
    let text = traced.ran.text();
    let after = format!("{:?}, met at {:?}", accident.then, traced.met);
    assert!(!traced.met.is_empty(), "{after}");
    ground.assert_whole(&after);
    assert_nothing_is_empty(ground, &after);
    assert!(matches!(traced.ran.code, Some(0 | 1)), "{after}: {:?} {text}", traced.ran.code);
    // Where it happened, what it was, and what to do. Removing is tried twice.
    let told = text.lines().find(|line| line.contains(reason));
    let is_made_good = accident.call == "unlinkat" && traced.met.len() == 1 && traced.ran.code == Some(0);
    match told {
        Some(told) => {
            let is_clear = told.contains(ground.setup.state.to_str().unwrap()) && told.contains(remedy);
            assert!(is_clear, "{after}: {told}");
        }
        None => assert!(is_made_good, "{after}: not told: {text}"),
    }
    ground.assert_renews(&after);
    traced.ran.code == Some(1)
}

/// Only what is still a draft may be half.
#[track_caller]
fn assert_nothing_is_empty(ground: &Ground, after: &str) {
    for path in walk(&ground.setup.state) {
        let is_draft = path.components().any(|c| c.as_os_str().to_string_lossy().ends_with(".draft"));
        let is_empty = fs::symlink_metadata(&path).is_ok_and(|m| m.is_file() && m.len() == 0);
        // Nobody reads in the lock who does not fail to take it.
        assert!(!is_empty || is_draft || path.ends_with("lock"), "{after}: {} is empty", path.display());
    }
}

#[test]
fn a_full_disk_leaves_the_server_what_it_has() {
    needs!("root", "mounts", "nsenter", "pebble", "curl", "openssl");
    let bed = Bed::new();
    let (_pebble, setup): (Pebble, Setup) = Setup::with_pebble(&bed, Mood::Kind, &[NAME]);
    let setup = Ground::with_server(&bed, setup.without_front());
    let (config, state, live) = (setup.write(&bed), setup.state.display(), setup.live(NAME));
    fs::create_dir(&setup.state).unwrap();
    let inside = Mounts::start();
    let sh = |script: &str| run(inside.command("sh").args(["-c", script]));
    sh(&format!("mount -t tmpfs -o mode=0700,size=256k tmpfs {state}")).expect_code(0);
    let renew = |more: &[&str]| {
        let mut command = inside.command(PROGRAM);
        clean(&mut command);
        run(command.arg("--config").arg(&config).arg("renew").args(more))
    };
    let read = |file: &str| sh(&format!("cat {}/{file}", live.display())).expect_code(0).stdout;
    let taken = || fs::read_to_string(bed.path("taken")).unwrap();
    renew(&[]).expect_code(0);
    let mut failed = 0;
    // In pages, from nothing to more than enough: the disk is full at another file each time.
    for left in 0..10 {
        let (chain, key) = (read("fullchain.pem"), read("privkey.pem"));
        sh(&format!("dd if=/dev/zero of={state}/filler bs=4k; truncate -s -{}k {state}/filler", 4 * left));
        let full = renew(&["--force"]);
        let combined = read("combined.pem");
        if full.code == Some(1) {
            failed += 1;
            assert!(full.text().contains("free some space on that file system"), "{}", full.text());
            let is_old = combined == chain.clone() + &key;
            assert!(is_old || combined == read("fullchain.pem") + &read("privkey.pem"), "{left} pages left");
            assert!([chain, read("fullchain.pem")].contains(&taken()), "{left} pages left");
        }
        let empty = sh(&format!("find {state} -type f -size 0 -not -path '*.draft*'"));
        assert_eq!(empty.stdout, "", "{left} pages left");
        sh(&format!("rm {state}/filler")).expect_code(0);
        renew(&["--force"]).expect_code(0);
        assert_eq!(taken(), read("fullchain.pem"), "{left} pages left");
        let drafts = sh(&format!("find {state} -mindepth 1 -name '.*'")).stdout;
        assert_eq!(drafts, "", "{left} pages left");
    }
    eprintln!("the disk was full in {failed} of 10 renewals");
    assert!(failed > 2 && failed < 10, "{failed}");
}
