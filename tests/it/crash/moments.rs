//! Killed at any moment: the whole program at once, its main process or its helper.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use wicketgate::clock;

use super::{Ground, wait_until_alone};
use crate::bed::wicketgate::command;
use crate::bed::{is_thorough, needs};

/// Numbers without an order to be seen, the same for the same seed.
pub(super) struct Dice(u64);

impl Dice {
    /// Of a seed that is told, so that what happened can happen again.
    pub(super) fn new() -> Self {
        let now = clock::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let given = std::env::var("WICKETGATE_TESTS_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or(now.as_nanos() as u64 | 1);
        eprintln!("WICKETGATE_TESTS_SEED={seed}");
        Self(seed)
    }

    /// From 0 to 1.
    pub(super) fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[derive(Debug, Clone, Copy)]
enum Whom {
    Everybody,
    Main,
    Helper,
}

#[test]
fn killed_at_any_moment_there_is_a_whole_pair_and_the_next_start_goes_on() {
    needs!("pebble", "curl", "openssl");
    let ground = Ground::new();
    let began = clock::monotonic();
    ground.renew(&["--force"]).expect_code(0);
    let usual = clock::monotonic() - began;
    let mut dice = Dice::new();
    let moments = if is_thorough() { 1000 } else { 20 };
    let (mut ended, mut renewed) = (0, 0);
    for number in 0..moments {
        ground.restore();
        let whom = [Whom::Everybody, Whom::Main, Whom::Helper][number % 3];
        let moment = usual.mul_f64(1.1 * dice.next());
        let after = format!("{whom:?} killed after {moment:?}");
        let before = ground.assert_whole("restored");
        if kill_after(&ground, whom, moment) {
            ended += 1;
        }
        if ground.assert_whole(&after) > before {
            renewed += 1;
        }
        match whom {
            // What was not deployed waits for its next try, and a person need not.
            Whom::Helper => ground.assert_renews(&after),
            Whom::Everybody | Whom::Main => {
                ground.assert_goes_on(&after);
                ground.assert_renews(&after);
            }
        }
    }
    eprintln!(
        "{moments} random moments within {usual:?}: in {renewed} the new version was live, in {ended} all was over"
    );
}

/// Whether it had ended before.
fn kill_after(ground: &Ground, whom: Whom, moment: Duration) -> bool {
    let began = clock::monotonic();
    let mut renew = command(&ground.config);
    renew.args(["renew", "--force"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut main = renew.process_group(0).spawn().unwrap();
    until_moment(began, moment);
    let has_ended = main.try_wait().unwrap().is_some();
    let helpers = children(main.id());
    let kill = |pid: u32| {
        let pid = Pid::from_raw(pid.cast_signed()).unwrap();
        // It may have ended in this very moment.
        let _ = kill_process(pid, Signal::KILL);
    };
    if !has_ended {
        if !matches!(whom, Whom::Main) {
            helpers.iter().copied().for_each(kill);
        }
        if !matches!(whom, Whom::Helper) {
            kill(main.id());
        }
    }
    main.wait().unwrap();
    let _ = kill_process_group(Pid::from_child(&main), Signal::KILL);
    wait_until_alone(&ground.bed, &ground.config);
    has_ended
}

/// This is the one thing that a clock has to say.
fn until_moment(began: std::time::Instant, moment: Duration) {
    let end = began + moment;
    while let Some(left) = end.checked_duration_since(clock::monotonic()).filter(|left| !left.is_zero()) {
        std::thread::park_timeout(left);
    }
}

fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let texts = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    texts.flat_map(|text| text.split(' ').filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}
