//! Killed before each single step of a renewal.

use std::collections::BTreeSet;
use std::sync::Mutex;

use super::{Ground, KEPT, NAME};
use crate::bed::strace::{Accident, Step, Then};
use crate::bed::{is_thorough, needs};

/// Renewals that run beside each other, each on a ground of its own.
pub(super) const LANES: usize = 2;

/// What a renewal does to the disk, in its order; the last part of each is found in strace's words.
const NAMED: [(&str, &str, &str); 13] = [
    ("the lock", "write", "/lock>"),
    ("the attempt, in state.json", "renameat", "\"state.json\""),
    ("the order, in ledger.json", "renameat", "\"ledger.json\""),
    ("the draft folder", "mkdirat", ".0006.draft"),
    ("a file is made", "openat", "\"privkey.pem\""),
    ("a file is written", "write", "/combined.pem>"),
    ("a file is synced", "fsync", "/fullchain.pem>"),
    ("the draft becomes a version", "renameat", "\"0006\""),
    ("a link is made", "symlinkat", "versions/0006"),
    ("the link goes live", "renameat", "\"www.example.test\""),
    ("the oldest version is none any more", "renameat", "\".0001.draft\""),
    ("it goes", "unlinkat", "\".0001.draft\""),
    ("what the server took, in state.json", "renameat", "\"state.json\""),
];

#[test]
fn killed_at_every_step_there_is_a_whole_pair_and_the_next_start_goes_on() {
    needs!("pebble", "curl", "openssl", "strace");
    let killed_after: Mutex<BTreeSet<usize>> = Mutex::default();
    let lost: Mutex<usize> = Mutex::default();
    let total = Mutex::new(0);
    std::thread::scope(|scope| {
        for lane in 0..LANES {
            let (killed_after, lost, total) = (&killed_after, &lost, &total);
            scope.spawn(move || {
                let ground = Ground::new();
                let steps = steps_of_a_renewal(&ground);
                *total.lock().unwrap() = steps.len();
                for (done, step) in steps.iter().enumerate().skip(lane).step_by(LANES) {
                    let (reached, is_lost) = kill_before(&ground, step, &steps[..done]);
                    killed_after.lock().unwrap().extend(reached);
                    *lost.lock().unwrap() += usize::from(is_lost);
                }
            });
        }
    });
    let (killed_after, total, lost) =
        (killed_after.into_inner().unwrap(), total.into_inner().unwrap(), lost.into_inner().unwrap());
    eprintln!(
        "killed before each of {total} steps; in {lost} cases a certificate was lost that the CA had signed"
    );
    let missed: Vec<_> = (0..total).filter(|step| !killed_after.contains(step)).collect();
    assert!(missed.is_empty(), "steps that nothing was killed before: {missed:?}");
}

/// What a renewal does when nothing happens to it.
#[track_caller]
pub(super) fn steps_of_a_renewal(ground: &Ground) -> Vec<Step> {
    ground.restore();
    let traced = ground.renew_watched(None);
    traced.ran.expect_code(0);
    let mut from = 0;
    for (name, call, part) in NAMED {
        let is_it = |step: &Step| step.call == call && step.text.contains(part);
        let found = traced.steps[from..].iter().position(is_it);
        from += found.unwrap_or_else(|| panic!("{name}: not among {:#?}", &traced.steps[from..])) + 1;
    }
    traced.steps
}

/// After how many steps it was killed, if it was at one of these; and whether a certificate was lost.
#[track_caller]
fn kill_before(ground: &Ground, step: &Step, before: &[Step]) -> (Option<usize>, bool) {
    ground.restore();
    let accident = Accident { call: step.call.clone(), nth: step.nth, then: Then::Killed };
    let traced = ground.renew_watched(Some(&accident));
    let after = format!("killed at {}", traced.met.join(" and "));
    assert_ne!(traced.ran.code, Some(0), "{after}: {}", traced.ran.text());
    let calls = |steps: &[Step]| steps.iter().map(|step| step.call.clone()).collect::<Vec<_>>();
    let is_there = calls(&traced.steps) == calls(before);
    let live = ground.assert_whole(&after);
    let is_lost = live == KEPT && traced.ran.stdout.contains(&format!("{NAME}: the CA signs"));
    ground.assert_goes_on(&after);
    if is_thorough() || before.len() % 4 < LANES {
        ground.assert_renews(&after);
    }
    (is_there.then_some(before.len()), is_lost)
}
