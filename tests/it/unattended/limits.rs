//! A CA that really keeps its limits: they are never met, whatever is tried how often.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use wicketgate::rehearsal::{AnswerFault, AnswerScope, Faults, RateLimits, RetryAfter};

use super::NAME;
use super::bench::{Bench, failing, says};
use crate::bed::process::Process;
use crate::bed::wicketgate::command;
use crate::bed::{PATIENCE, needs, until};

const DEAD: &str = "dead.example.test";

fn dead() -> Faults {
    Faults { limits: Some(RateLimits::LETS_ENCRYPT), ..failing(DEAD) }
}

fn orders_are(answer: AnswerFault) -> Faults {
    Faults { answer, answer_scope: AnswerScope::Path("/new-order"), ..Faults::default() }
}

#[test]
fn thirty_tries_by_hand_do_not_meet_a_limit() {
    let bench = Bench::new(&[NAME, DEAD]);
    bench.ca.set(dead());
    let codes = |arguments: &[&str]| -> Vec<_> {
        (0..15).map(|_| bench.command(arguments).code.unwrap_or_default()).collect()
    };
    let unforced = codes(&["renew"]);
    assert_eq!((unforced[0], bench.failed(DEAD)), (1, 1), "{unforced:?}");
    assert!(unforced[1..].iter().all(|code| *code == 75), "{unforced:?}");

    let mut daemon = bench.setup.start(&bench.bed);
    daemon.process.wait_for_line("ready");
    let forced = codes(&["renew", "--force"]);
    daemon.stop();
    assert_eq!(bench.failed(DEAD), 5, "{forced:?}");
    let (tried, refused) = forced.split_at(4);
    assert!(tried.iter().all(|code| *code == 1) && refused.iter().all(|code| *code == 75), "{forced:?}");
    let ran = bench.command(&["renew", "--force"]).expect_code(75);
    says(
        &ran,
        &["all 5 failed validations of dead.example.test this hour are used up", "UTC, with `--force` too"],
    );
    assert_eq!(bench.ca.seen().limits_met, 0);
}

#[test]
fn certificates_with_one_dead_name_share_what_may_fail() {
    needs!("faketime");
    let names: Vec<String> = (0..6).map(|n| format!("n{n}.example.test")).collect();
    let all: Vec<&str> = names.iter().map(String::as_str).chain([DEAD]).collect();
    let mut bench = Bench::without_certificates(&all);
    for name in &names {
        bench.add(&[name, DEAD], "");
    }
    bench.ca.set(dead());
    let ran = bench.command(&["renew"]).expect_code(1);
    assert_eq!(bench.failed(DEAD), 3, "{}", ran.text());
    says(&ran, &["not asked of the CA before", "`renew --force`"]);
    for _ in 0..5 {
        bench.command(&["renew"]).expect_code(75);
    }
    // Ten minutes on the pauses are over, and what may fail unattended is not back yet.
    let ran = bench.later("+12m", &["renew"]).expect_code(75);
    says(&ran, &["validations of dead.example.test may fail 3 times", "next free at"]);
    assert_eq!((bench.failed(DEAD), bench.ca.seen().limits_met), (3, 0));
    bench.command(&["renew", "--force"]).expect_code(1);
    assert_eq!((bench.failed(DEAD), bench.ca.seen().limits_met), (5, 0));
}

#[test]
fn attempts_that_were_killed_count() {
    needs!("faketime");
    let bench = Bench::new(&[NAME]);
    bench.ca.set(orders_are(AnswerFault::Hang));
    let under_way = || {
        let text = fs::read_to_string(bench.setup.state.join("ledger.json")).ok()?;
        let ledger: Value = serde_json::from_str(&text).ok()?;
        let pending = ledger["pending"].as_array()?;
        pending.iter().any(|attempt| attempt["cut-off-at"].is_null()).then_some(())
    };
    for _ in 0..5 {
        let mut renew = command(&bench.setup.write(&bench.bed));
        let mut process = Process::start("wicketgate renew", renew.args(["renew", "--force"]));
        until("the attempt is under way", under_way);
        process.signal(Signal::KILL);
        process.wait(PATIENCE);
        // Whoever looks at it next knows that it was cut off.
        bench.command(&["renew"]).expect_code(75);
    }
    bench.ca.set(Faults::default());
    let ran = bench.command(&["renew", "--force"]).expect_code(75);
    says(&ran, &["all 5 failed validations of www.example.test this hour are used up"]);
    assert_eq!(bench.ca.seen().orders, 0);
    bench.later("+13m", &["renew", "--force"]).expect_code(0);
}

#[test]
fn a_ca_that_wants_patience_gets_it() {
    needs!("faketime");
    let hours = Duration::from_secs(2 * 3600);
    for answer in [
        AnswerFault::Status(429, RetryAfter::Seconds(hours)),
        AnswerFault::Status(429, RetryAfter::Date(hours)),
        AnswerFault::Status(503, RetryAfter::Seconds(hours)),
        AnswerFault::Status(503, RetryAfter::Date(hours)),
    ] {
        let bench = Bench::new(&[NAME]);
        bench.ca.set(orders_are(answer));
        bench.command(&["renew"]).expect_code(75);
        bench.ca.set(Faults::default());
        for ahead in ["+0m", "+10m", "+115m"] {
            let ran = bench.later(ahead, &["renew", "--force"]).expect_code(75);
            says(&ran, &["has asked to be left alone until", "`--force` does not change that"]);
        }
        assert_eq!(bench.ca.seen().orders, 0, "{answer:?}");
        bench.later("+121m", &["renew"]).expect_code(0);
        assert_eq!(bench.ca.seen().orders, 1, "{answer:?}");
    }
}

/// Only Let's Encrypt is known to leave renewals out of what it counts.
#[test]
fn configured_limits_hold_for_renewals_too() {
    for (limits, told) in [
        ("orders = \"2 in 1h\"", "takes 2 new orders of an account this hour"),
        ("certificates-per-domain = \"2 in 7d\"", "signs 2 certificates below example.test in 7 days"),
        ("certificates-per-set = \"2 in 7d\"", "signs 2 certificates for exactly the same name in 7 days"),
    ] {
        let mut bench = Bench::new(&[NAME]);
        bench.setup = bench.setup.tables(&format!("[acme.limits]\n{limits}"));
        bench.command(&["renew", "--force"]).expect_code(0);
        bench.command(&["renew", "--force"]).expect_code(0);
        says(&bench.command(&["renew", "--force"]).expect_code(75), &[told]);
        assert_eq!(bench.ca.seen().orders, 2, "{limits}");
    }
}
