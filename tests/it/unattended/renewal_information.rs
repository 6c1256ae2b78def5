//! When the CA wants a certificate renewed: heeded at once, once, and kept; nonsense costs nothing.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use wicketgate::clock;
use wicketgate::rehearsal::{
    AnswerFault, AnswerScope, Faults, ProblemType, RenewalFaults, RetryAfter, WindowFault,
};

use super::NAME;
use super::bench::{Bench, says};
use crate::bed::client::served_leaf;
use crate::bed::{needs, until};

const DAY: Duration = Duration::from_secs(86_400);
const WHY: &str = "https://ca.example.test/incident";

fn renewal(renewal: RenewalFaults) -> Faults {
    Faults { renewal, ..Faults::default() }
}

fn next(status: &serde_json::Value) -> SystemTime {
    status["next"].as_str().unwrap().parse::<Timestamp>().unwrap().into()
}

#[test]
fn a_window_in_the_past_renews_at_once_and_once() {
    needs!("openssl", "faketime");
    let bench = Bench::new(&[NAME]).with_front();
    let past = RenewalFaults {
        window: WindowFault::Past,
        explanation_url: Some(WHY.into()),
        ..RenewalFaults::default()
    };
    bench.ca.set(renewal(past));
    let mut daemon = bench.setup.start(&bench.bed);
    let status = until("the second is asked about too", || {
        let status = bench.status();
        (bench.ca.seen().renewal_info_asks >= 2
            && !status["explanation-url"].is_null()
            && status["version"] == 2)
            .then_some(status)
    });
    assert_eq!(status["reason"], "it was replaced a short time ago");
    assert!(next(&status) > clock::now() + 6 * DAY, "{status}");
    let seen = bench.ca.seen();
    assert_eq!((seen.certificates, seen.orders_with_replaces), (2, 1), "{seen:?}");

    daemon.stop();
    let (mut daemon, _) = bench.setup.start_until_served(&bench.bed, NAME);
    assert_eq!(next(&bench.status()), next(&status));
    daemon.stop();
    bench.later("+13h", &["renew"]).expect_code(0);
    let seen = bench.ca.seen();
    assert_eq!((seen.certificates, seen.renewal_info_asks), (2, 3), "{seen:?}");
}

#[test]
fn a_moment_in_the_window_is_kept() {
    needs!("openssl", "faketime");
    let bench = Bench::new(&[NAME]).with_front();
    let (start, end) = (clock::now() + 10 * DAY, clock::now() + 12 * DAY);
    let window = WindowFault::Fixed { start, end };
    bench.ca.set(renewal(RenewalFaults {
        window,
        explanation_url: Some(WHY.into()),
        ..RenewalFaults::default()
    }));
    let mut daemon = bench.setup.start(&bench.bed);
    let before = until("the CA was asked", || {
        let status = bench.status();
        (status["reason"] == "ARI window").then_some(status)
    });
    let second = Duration::from_secs(1);
    assert!((start - second..=end + second).contains(&next(&before)), "{before}");
    assert_eq!(before["explanation-url"], WHY);
    let shown = bench.command(&["status"]).expect_code(0);
    assert!(shown.stdout.contains(WHY), "{}", shown.stdout);

    daemon.stop();
    let (mut daemon, _) = bench.setup.start_until_served(&bench.bed, NAME);
    let after = bench.status();
    assert_eq!((&after["next"], &after["reason"]), (&before["next"], &before["reason"]));
    daemon.stop();
    // What a CA said before holds while it is away, and when it says the same again.
    let away = AnswerFault::Status(500, RetryAfter::Missing);
    bench.ca.set(renewal(RenewalFaults { answer: away, ..RenewalFaults::default() }));
    bench.later("+13h", &["renew"]).expect_code(0);
    bench.ca.set(renewal(RenewalFaults { window, ..RenewalFaults::default() }));
    bench.later("+26h", &["renew"]).expect_code(0);
    assert_eq!(bench.ca.seen().renewal_info_asks, 3);
    assert_eq!(bench.status()["next"], before["next"]);
    assert_eq!(bench.ca.seen().certificates, 1);
}

#[test]
fn an_answer_that_makes_no_sense_costs_nothing() {
    needs!("openssl");
    let answer = |answer| RenewalFaults { answer, ..RenewalFaults::default() };
    const FRACTION: &str = "fraction of its lifetime";
    for (fault, reason) in [
        (answer(AnswerFault::BrokenJson), FRACTION),
        (answer(AnswerFault::Html), FRACTION),
        (answer(AnswerFault::Status(500, RetryAfter::Missing)), FRACTION),
        (RenewalFaults { window: WindowFault::Reversed, ..RenewalFaults::default() }, FRACTION),
        // The window is whole, and when to ask again can be done without.
        (RenewalFaults { retry_after: Some(RetryAfter::Missing), ..RenewalFaults::default() }, "ARI window"),
    ] {
        let bench = Bench::new(&[NAME]).with_front();
        bench.ca.set(renewal(fault.clone()));
        let (_daemon, leaf) = bench.setup.start_until_served(&bench.bed, NAME);
        until("the CA was asked", || (bench.ca.seen().renewal_info_asks > 0).then_some(()));
        // Asked through the daemon after the answer has been dealt with, or while it is.
        let ran = bench.command(&["renew"]).expect_code(0);
        assert!(ran.stdout.contains("nothing to do"), "{fault:?}: {}", ran.stdout);
        let status = bench.status();
        assert_eq!(status["reason"], reason, "{fault:?}");
        assert!(next(&status) > clock::now() + 15 * DAY, "{fault:?}: {status}");
        assert_eq!(served_leaf(bench.setup.front, NAME), Some(leaf), "{fault:?}");
        let seen = bench.ca.seen();
        assert_eq!((seen.certificates, seen.renewal_info_asks), (1, 1), "{fault:?}");
    }
}

#[test]
fn a_replacement_that_is_refused_is_ordered_plainly() {
    for kind in [ProblemType::AlreadyReplaced, ProblemType::Malformed] {
        let bench = Bench::new(&[NAME]);
        bench.command(&["renew"]).expect_code(0);
        bench.ca.set(Faults { replaces_refused: Some(kind), ..Faults::default() });
        bench.command(&["renew", "--force"]).expect_code(0);
        let seen = bench.ca.seen();
        assert_eq!((seen.certificates, seen.orders, seen.orders_with_replaces), (2, 2, 0), "{kind:?}");
    }
}

/// What a CA says with 503 is heeded for each of its certificates, and over restarts.
#[test]
fn a_pause_that_the_ca_asks_for_is_kept() {
    needs!("faketime");
    let mut bench = Bench::without_certificates(&[NAME, "other.example.test"]);
    bench.setup = bench.setup.acme("concurrency = 1");
    bench.add(&[NAME], "");
    bench.add(&["other.example.test"], "");
    bench.command(&["renew"]).expect_code(0);
    for status in [503, 429] {
        let answer = AnswerFault::Status(status, RetryAfter::Seconds(DAY / 12));
        bench.ca.set(renewal(RenewalFaults { answer, ..RenewalFaults::default() }));
        let (before, ahead) = (
            bench.ca.seen().renewal_info_asks,
            if status == 503 { ["+0s", "+1h"] } else { ["+13h", "+14h"] },
        );
        for ahead in ahead {
            bench.later(ahead, &["renew"]).expect_code(0);
            assert_eq!(bench.ca.seen().renewal_info_asks, before + 1, "{status} {ahead}");
        }
    }
    bench.ca.set(Faults::default());
    bench.later("+16h", &["renew"]).expect_code(0);
    assert_eq!(bench.ca.seen().renewal_info_asks, 4);
    // It was about renewal information alone.
    let answer = AnswerFault::Status(503, RetryAfter::Seconds(DAY));
    bench.ca.set(renewal(RenewalFaults { answer, ..RenewalFaults::default() }));
    bench.later("+30h", &["renew", "--force"]).expect_code(0);
    assert_eq!(bench.ca.seen().certificates, 4);
}

#[test]
fn a_ca_that_wants_to_be_left_alone_is_not_asked_when_to_renew() {
    needs!("faketime");
    let bench = Bench::new(&[NAME]);
    bench.command(&["renew"]).expect_code(0);
    bench.ca.set(Faults {
        answer: AnswerFault::Status(503, RetryAfter::Seconds(DAY)),
        answer_scope: AnswerScope::Path("/new-order"),
        ..Faults::default()
    });
    bench.command(&["renew", "--force"]).expect_code(75);
    let asked = bench.ca.seen().renewal_info_asks;
    bench.later("+13h", &["renew"]);
    assert_eq!(bench.ca.seen().renewal_info_asks, asked);
    bench.later("+26h", &["renew"]);
    assert_eq!(bench.ca.seen().renewal_info_asks, asked + 1);
}

#[test]
fn a_window_beyond_the_end_is_told_with_what_happens() {
    needs!("faketime");
    let bench = Bench::new(&[NAME]);
    bench.command(&["renew"]).expect_code(0);
    bench.command(&["renew"]).expect_code(0);
    let start = "2099-01-01T00:00:00Z".parse::<Timestamp>().unwrap().into();
    let window = WindowFault::Fixed { start, end: start + DAY };
    bench.ca.set(renewal(RenewalFaults { window, ..RenewalFaults::default() }));
    let told = bench.later("+13h", &["renew"]).expect_code(0);
    let next = next(&bench.status());
    let next = Timestamp::try_from(next).unwrap().strftime("%Y-%m-%d %H:%M:%S UTC");
    says(
        &told,
        &[
            "suggests to renew at 2099-01-01",
            &format!("but that happens at {next}: backstop, the ARI window is too late"),
        ],
    );
}
