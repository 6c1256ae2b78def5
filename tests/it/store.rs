//! A state directory that is full, foreign, open to others, or damaged.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::process::Command;

use crate::bed::namespace::Namespace;
use crate::bed::pebble::{Mood, Pebble};
use crate::bed::process::{Process, Ran, run};
use crate::bed::wicketgate::{PROGRAM, Setup, clean};
use crate::bed::{Bed, needs, set_mode};

const NAME: &str = "www.example.test";

fn with_pebble(bed: &Bed) -> (Pebble, Setup) {
    let (pebble, setup) = Setup::with_pebble(bed, Mood::Kind, &[NAME]);
    (pebble, setup.without_front())
}

#[test]
fn a_full_disk_keeps_what_was_there() {
    needs!("namespaces", "nsenter", "ip");
    let bed = Bed::new();
    let setup = Setup::embedded(&bed).certificate(&[NAME]).with("profile = \"shortlived\"");
    fs::create_dir(&setup.state).unwrap();
    let inside = Namespace::with_small_disk(&bed, &setup.state, 256);
    let state = setup.state.display().to_string();
    inside.sh(&format!("chmod 700 {state}")).expect_code(0);
    let renew = |more: &[&str]| {
        let mut command = inside.command(PROGRAM);
        clean(&mut command);
        run(command.arg("--config").arg(setup.write(&bed)).arg("renew").args(more))
    };
    renew(&[]).expect_code(0);
    let stored = format!("cat {state}/live/{NAME}/fullchain.pem {state}/live/{NAME}/privkey.pem");
    let before = inside.sh(&stored).expect_code(0).stdout;

    // A few kilobytes are left, enough for the state and for some of the files: any of them may be cut off.
    inside.sh(&format!("dd if=/dev/zero of={state}/filler bs=4k; truncate -s -12k {state}/filler"));
    let full = renew(&["--force"]).expect_code(1);
    assert!(full.text().contains("free some space on that file system"), "{}", full.text());
    assert_eq!(inside.sh(&stored).expect_code(0).stdout, before);
    inside.sh(&format!("dd if=/dev/zero of={state}/filler2 bs=1k"));
    let quite_full = renew(&["--force"]).expect_code(1);
    assert!(quite_full.text().contains("free some space on that file system"), "{}", quite_full.text());
    assert_eq!(inside.sh(&stored).expect_code(0).stdout, before);

    inside.sh(&format!("rm {state}/filler {state}/filler2")).expect_code(0);
    renew(&["--force"]).expect_code(0);
    assert_ne!(inside.sh(&stored).expect_code(0).stdout, before);
    let drafts = inside.sh(&format!("find {state} -name '.*' -not -path {state}")).stdout;
    assert_eq!(drafts, "", "drafts were left behind");
}

#[test]
fn a_foreign_state_directory_is_left_alone() {
    needs!("root", "setpriv");
    let bed = Bed::new();
    let setup = Setup::embedded(&bed).certificate(&[NAME]);
    fs::create_dir(&setup.state).unwrap();
    chown(&setup.state, Some(1), Some(1)).unwrap();
    set_mode(&setup.state, 0o700);
    let mut foreign = Command::new("setpriv");
    clean(&mut foreign);
    let ran = run(foreign
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups", PROGRAM, "--config"])
        .arg(setup.write(&bed))
        .arg("renew"));
    assert_ne!(ran.code, Some(0));
    assert!(ran.text().contains(setup.state.to_str().unwrap()), "{}", ran.text());
    assert_eq!(fs::read_dir(&setup.state).unwrap().count(), 0);
}

/// A server that is no root reads the files by its group, whoever writes them.
#[test]
fn the_group_of_the_state_directory_reads_what_is_stored() {
    needs!("root", "setpriv");
    for (umask, mode, warned) in [("027", 0o2750, ""), ("077", 0o2750, "UMask=0027"), ("027", 0o750, "g+s")] {
        let bed = Bed::new();
        set_mode(bed.dir(), 0o755);
        let setup = Setup::embedded(&bed).certificate(&[NAME]);
        let config = setup.write(&bed);
        fs::create_dir(&setup.state).unwrap();
        chown(&setup.state, Some(65534), Some(1)).unwrap();
        set_mode(&setup.state, mode);
        let renew = |uid: &str| {
            let mut command = Command::new("sh");
            clean(&mut command);
            let script =
                format!("umask {umask}; exec setpriv --reuid {uid} --regid {uid} --clear-groups \"$@\"");
            command.args(["-c", &script, "-", PROGRAM, "--config"]).arg(&config).args(["renew", "--force"]);
            run(&mut command).expect_code(0)
        };
        let ran = renew("65534");
        let key = setup.live(NAME).join("privkey.pem");
        assert_eq!(ran.text().contains("but not what this process will write there"), !warned.is_empty());
        assert!(ran.text().contains(warned), "{}", ran.text());
        let can_read = || {
            let read = Command::new("setpriv")
                .args(["--reuid", "65533", "--regid", "1", "--clear-groups", "cat"])
                .arg(&key)
                .output();
            read.unwrap().status.success()
        };
        assert_eq!(can_read(), warned.is_empty(), "umask {umask}, mode {mode:o}");
        if !warned.is_empty() {
            continue;
        }
        renew("0");
        assert!(can_read(), "what root has stored");
        let stored = fs::metadata(&key).unwrap();
        assert_eq!((stored.uid(), stored.gid(), stored.mode() & 0o7777), (65534, 1, 0o640));
    }
}

#[test]
fn a_state_directory_open_to_others_is_refused() {
    let bed = Bed::new();
    let setup = Setup::embedded(&bed).certificate(&[NAME]);
    fs::create_dir(&setup.state).unwrap();
    set_mode(&setup.state, 0o755);
    let ran = setup.renew(&bed).expect_code(1);
    assert!(ran.text().contains("chmod 0700"), "{}", ran.text());
    assert_eq!(fs::read_dir(&setup.state).unwrap().count(), 0);
}

#[test]
fn a_damaged_certificate_is_said_and_replaced() {
    needs!("pebble", "curl");
    let bed = Bed::new();
    let (pebble, setup) = with_pebble(&bed);
    setup.renew(&bed).expect_code(0);
    fs::write(setup.live(NAME).join("privkey.pem"), "nothing\n").unwrap();
    let ran = setup.renew(&bed).expect_code(0);
    assert!(ran.text().contains("is damaged"), "{}", ran.text());
    assert_eq!(pebble.orders(), 2);
    assert!(fs::read_to_string(setup.live(NAME).join("privkey.pem")).unwrap().contains("PRIVATE KEY"));
}

#[test]
fn a_damaged_account_is_said_with_its_remedy() {
    needs!("pebble", "curl");
    let bed = Bed::new();
    let (_pebble, setup) = with_pebble(&bed);
    setup.renew(&bed).expect_code(0);
    fs::write(setup.account(), "{").unwrap();
    let ran = setup.command(&bed, &["renew", "--force"]).expect_code(1);
    assert!(ran.text().contains("account.json is damaged"), "{}", ran.text());
}

/// The state directory on a disk of its own, with a certificate in it.
fn on_a_disk(bed: &Bed) -> (Setup, Namespace) {
    let setup = Setup::embedded(bed).certificate(&[NAME]);
    fs::create_dir(&setup.state).unwrap();
    let inside = Namespace::with_small_disk(bed, &setup.state, 512);
    inside.sh(&format!("chmod 700 {}", setup.state.display())).expect_code(0);
    within(bed, &setup, &inside, &["renew"]).expect_code(0);
    (setup, inside)
}

fn within(bed: &Bed, setup: &Setup, inside: &Namespace, arguments: &[&str]) -> Ran {
    let mut command = inside.command(PROGRAM);
    clean(&mut command);
    run(command.arg("--config").arg(setup.write(bed)).args(arguments))
}

fn start_within(bed: &Bed, setup: &Setup, inside: &Namespace) -> Process {
    let mut command = inside.command(PROGRAM);
    clean(&mut command);
    Process::start("wicketgate run", command.arg("--config").arg(setup.write(bed)).arg("run"))
}

/// What is served is served, and nothing is ordered that could not be kept.
#[test]
fn a_state_directory_that_cannot_be_written_is_served_from() {
    needs!("namespaces", "nsenter", "ip", "curl");
    let bed = Bed::new();
    for spoil in
        ["mount -o remount,ro S", "rm S/lock; mount -o remount,ro S", "rm S/lock; cat /dev/zero >S/filler"]
    {
        let bed_of_its_own = Bed::new();
        let (setup, inside) = on_a_disk(&bed_of_its_own);
        let state = setup.state.display().to_string();
        inside.sh(&spoil.replace('S', &state));
        let daemon = start_within(&bed_of_its_own, &setup, &inside);
        daemon.wait_for_line("NOTHING CAN BE RENEWED OR KEPT");
        daemon.wait_for_line("ready");
        let url = format!("https://{NAME}:{}/", setup.front);
        let resolve = format!("{NAME}:{}:127.0.0.1", setup.front);
        let got = inside.sh(&format!("curl -sk --resolve {resolve} {url} -o /dev/null -w '%{{http_code}}'"));
        assert_eq!(got.stdout, "200", "{spoil}: {}", got.text());
        let ran = within(&bed_of_its_own, &setup, &inside, &["renew", "--force"]).expect_code(1);
        let cause = if spoil.contains("filler") { "free some space" } else { "mount it writable" };
        assert!(ran.text().contains(cause), "{spoil}: {}", ran.text());
        // The true cause, and not that somebody has stopped it.
        let status = within(&bed_of_its_own, &setup, &inside, &["status"]).expect_code(0);
        assert!(status.text().contains(cause), "{spoil}: {}", status.text());
        assert!(!status.text().contains("in the middle of the attempt"), "{spoil}: {}", status.text());
        // Whoever could write again by now still finds it locked.
        inside.sh(&format!("mount -o remount,rw {state}; rm -f {state}/filler"));
        let mut other = inside.command(PROGRAM);
        clean(&mut other);
        let socket = bed.path("another.sock");
        other.arg("--config").arg(setup.write(&bed_of_its_own)).args(["renew", "--admin-socket"]).arg(socket);
        run(&mut other).expect_code(75);
        // And without a restart it goes on.
        within(&bed_of_its_own, &setup, &inside, &["renew", "--force"]).expect_code(0);
    }
}
