//! Long stretches with a CA that always fails, under everything that can start an attempt.

use super::*;
use crate::config::{Issuer, Rate, RateLimits};
use crate::renewal::schedule;
use crate::store::Store;

/// A name at a CA that fails every validation, and all that outlives a restart.
struct Life {
    store: Store,
    _holder: tempfile::TempDir,
    name: Vec<Identifier>,
    limits: Limits,
    ledger: Ledger,
    /// Failures in a row, and when the schedule allows the next attempt.
    attempts: u32,
    retry_at: SystemTime,
    failures: Vec<SystemTime>,
}

fn start() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_438_800)
}

const HOURLY: Duration = Duration::from_secs(3600);

impl Life {
    fn new() -> Self {
        let holder = tempfile::tempdir().unwrap();
        Self {
            store: Store::open(&holder.path().join("state")).unwrap(),
            _holder: holder,
            name: vec!["www.null-i.net".parse().unwrap()],
            limits: Limits::of(&Issuer::LetsEncrypt, &RateLimits::default()),
            ledger: Ledger::new(),
            attempts: 0,
            retry_at: start(),
            failures: Vec::new(),
        }
    }

    /// One attempt, if the ledger allows it. A crash leaves it without an end.
    fn attempt(&mut self, force: bool, crashes: bool, now: SystemTime) -> Result<(), Refusal> {
        let ask = Ask { issuer: "letsencrypt", account: "a", force, ..Ask::for_identifiers(&self.name) };
        let charge = self.ledger.begin(&ask, &self.limits, now)?;
        self.failures.push(now);
        self.attempts += 1;
        self.retry_at = now + schedule::retry_after(self.attempts, 0.0);
        if !crashes {
            let failed = self.name.clone();
            let happened = Happened { asked: true, ordered: true, failed, ..Happened::default() };
            self.ledger.settle(charge, &happened, now);
        }
        Ok(())
    }

    /// Through the file's text, as a restart goes.
    fn restart(&mut self, now: SystemTime) {
        let text = serde_json::to_string(&self.ledger.file(now)).unwrap();
        self.ledger = Ledger::restored(serde_json::from_str(&text).unwrap(), now);
    }

    /// The same, through the disk.
    fn restart_from_disk(&mut self, now: SystemTime) {
        self.store.save_ledger(&self.ledger.file(now)).unwrap();
        self.ledger = Ledger::restored(self.store.ledger().unwrap().unwrap(), now);
    }

    /// The most failures in any hour, both ends included.
    fn most_in_an_hour(&self) -> usize {
        let within =
            |end: &SystemTime| self.failures.iter().filter(|at| *at <= end && **at + HOURLY >= *end).count();
        self.failures.iter().map(within).max().unwrap_or(0)
    }
}

#[test]
fn a_thousand_hours_of_failures_stay_on_the_schedule() {
    let mut life = Life::new();
    for minute in 0..60_000u32 {
        let now = start() + Duration::from_secs(60) * minute;
        if minute % 60 == 0 {
            life.restart_from_disk(now);
        }
        if now >= life.retry_at {
            // Whatever the ledger refused here would be off the schedule.
            life.attempt(false, false, now).unwrap();
        }
    }
    assert!(life.most_in_an_hour() < 5, "{} in an hour", life.most_in_an_hour());
    let minutes: Vec<u64> =
        life.failures.iter().map(|at| at.duration_since(start()).unwrap().as_secs() / 60).collect();
    let scheduled: Vec<u64> =
        [0, 1, 11].into_iter().chain((0..).map(|day| 111 + day * 1440)).take(minutes.len()).collect();
    assert_eq!(minutes, scheduled);
    assert_eq!(minutes.len(), 45);
}

#[test]
fn attempts_at_every_minute_with_restarts_never_make_five_in_an_hour() {
    let mut life = Life::new();
    // A crash may have brought a certificate each time: that limit would end this too early.
    let unlimited = RateLimits { certificates_per_set: Some(Rate::Unlimited), ..RateLimits::default() };
    life.limits = Limits::of(&Issuer::LetsEncrypt, &unlimited);
    for minute in 0..60_000u32 {
        let now = start() + Duration::from_secs(60) * minute;
        if minute % 60 == 0 {
            life.restart(now);
        }
        let _ = life.attempt(false, minute % 7 == 0, now);
    }
    assert!(life.failures.len() > 1000, "{} attempts", life.failures.len());
    assert!(life.most_in_an_hour() < 5, "{} in an hour", life.most_in_an_hour());
}

#[test]
fn renew_in_a_loop_runs_into_the_ledger() {
    for (force, most) in [(false, 4), (true, 5 + 5)] {
        for crashes in [false, true] {
            let mut life = Life::new();
            for second in 0..3600 {
                let now = start() + Duration::from_secs(second);
                // Each is a process of its own.
                life.restart(now);
                let _ = life.attempt(force, crashes, now);
            }
            // The CA's own bucket gives one back every 12 minutes.
            assert!((3..=most).contains(&life.failures.len()), "{force} {crashes}: {:?}", life.failures);
            let moments: Vec<i64> = life.failures.iter().map(|at| milliseconds(*at)).collect();
            assert!(histories::lowest_level(&moments, 5, 12 * MINUTE) >= 0, "{force} {crashes}: {moments:?}");
        }
    }
}
