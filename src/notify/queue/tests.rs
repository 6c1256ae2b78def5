use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const DAY: Duration = Duration::from_secs(86_400);

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn notice(kind: Kind, certificate: &str, cause: &str) -> Notice {
    Notice {
        at: at(0),
        host: "gate".to_owned(),
        kind,
        certificate: Some(certificate.to_owned()),
        identifiers: Vec::new(),
        cause: cause.to_owned(),
        summary: "s".to_owned(),
        text: "t".to_owned(),
        details: serde_json::Map::new(),
    }
}

fn post(outbox: &mut Outbox, id: u64, cause: &str, now: Timestamp) -> Admission {
    admit(outbox, &notice(Kind::AttemptFailed, "a", cause), &[Channel::Mail, Channel::Webhook], DAY, now, id)
}

fn is_posted(admission: &Admission) -> bool {
    matches!(admission, Admission::Posted { .. })
}

fn to_deliver(outbox: &Outbox, way: Channel, now: Timestamp) -> Option<u64> {
    match next(outbox, way, now) {
        Next::Deliver(letter) => Some(letter.id),
        _ => None,
    }
}

#[test]
fn a_cause_is_told_once_in_the_quiet_period() {
    let mut outbox = Outbox::default();
    assert!(is_posted(&post(&mut outbox, 1, "order", at(0))));
    assert_eq!(post(&mut outbox, 2, "order", at(60)), Admission::Quiet);
    assert!(is_posted(&post(&mut outbox, 3, "another", at(60))), "another cause");
    let other = notice(Kind::AttemptFailed, "b", "order");
    assert!(is_posted(&admit(&mut outbox, &other, &[Channel::Mail], DAY, at(60), 4)), "another certificate");
    let other = notice(Kind::DeployFailed, "a", "order");
    assert!(is_posted(&admit(&mut outbox, &other, &[Channel::Mail], DAY, at(60), 5)), "another kind");
    assert_eq!(post(&mut outbox, 6, "order", at(86_399)), Admission::Quiet);
    assert!(is_posted(&post(&mut outbox, 7, "order", at(86_400))), "a day is over");
    // The words of it do not matter, and neither does a clock that was set back by an hour.
    let mut reworded = notice(Kind::AttemptFailed, "a", "order");
    reworded.summary = "in other words".to_owned();
    assert_eq!(admit(&mut outbox, &reworded, &[Channel::Mail], DAY, at(82_800), 8), Admission::Quiet);
    assert!(
        is_posted(&post(&mut outbox, 9, "order", at(-1000))),
        "the clock was set back by more than a day"
    );
}

#[test]
fn what_is_mended_is_told_at_once_when_it_fails_again() {
    let mut outbox = Outbox::default();
    post(&mut outbox, 1, "order", at(0));
    post(&mut outbox, 2, "disk", at(0));
    assert!(!mend(&mut outbox, Kind::AttemptFailed, Some("b"), None));
    assert!(!mend(&mut outbox, Kind::Expiring, Some("a"), None));
    assert!(mend(&mut outbox, Kind::AttemptFailed, Some("a"), Some("disk")));
    assert_eq!(post(&mut outbox, 3, "order", at(1)), Admission::Quiet);
    assert!(is_posted(&post(&mut outbox, 4, "disk", at(1))));
    assert!(mend(&mut outbox, Kind::AttemptFailed, Some("a"), None));
    assert!(is_posted(&post(&mut outbox, 5, "order", at(2))));
}

#[test]
fn without_a_way_nothing_is_kept() {
    let mut outbox = Outbox::default();
    let admission = admit(&mut outbox, &notice(Kind::Expired, "a", ""), &[], DAY, at(0), 1);
    assert_eq!((admission, outbox), (Admission::NoWay, Outbox::default()));
}

#[test]
fn each_way_is_tried_by_itself() {
    let mut outbox = Outbox::default();
    post(&mut outbox, 1, "one", at(0));
    post(&mut outbox, 2, "two", at(1));
    assert_eq!(to_deliver(&outbox, Channel::Mail, at(2)), Some(1));
    let retry_at = failed(&mut outbox, 1, Channel::Mail, "down", at(2), 0.0).unwrap();
    assert_eq!(retry_at, at(7));
    assert_eq!(to_deliver(&outbox, Channel::Mail, at(2)), Some(2), "the next one is not held up");
    assert_eq!(to_deliver(&outbox, Channel::Webhook, at(2)), Some(1), "the other way knows nothing of it");
    arrived(&mut outbox, 2, Channel::Mail);
    assert_eq!(next(&outbox, Channel::Mail, at(2)), Next::Wait(at(7)));
    assert_eq!(to_deliver(&outbox, Channel::Mail, at(7)), Some(1));
    arrived(&mut outbox, 1, Channel::Mail);
    assert_eq!(next(&outbox, Channel::Mail, at(7)), Next::Idle);
    arrived(&mut outbox, 1, Channel::Webhook);
    arrived(&mut outbox, 2, Channel::Webhook);
    assert!(outbox.letters.is_empty() && outbox.told.len() == 2);
    assert_eq!(next(&outbox, Channel::Command, at(7)), Next::Idle);
    assert_eq!(failed(&mut outbox, 1, Channel::Mail, "late", at(8), 0.0), None);
}

#[test]
fn a_clock_set_back_holds_nothing_up() {
    let mut outbox = Outbox::default();
    post(&mut outbox, 1, "one", at(0));
    failed(&mut outbox, 1, Channel::Mail, "down", at(1_000_000), 0.0);
    let Next::Wait(until) = next(&outbox, Channel::Mail, at(0)) else { panic!("not held") };
    assert!(until <= at(5 * 3600), "{until}");
}

#[test]
fn old_letters_and_ways_that_are_gone() {
    let mut outbox = Outbox::default();
    post(&mut outbox, 1, "old", at(0));
    post(&mut outbox, 2, "new", at(200_000));
    assert_eq!(tidy(&mut outbox, &[Channel::Mail], at(259_199)), []);
    assert!(outbox.letters.iter().all(|l| l.ways.keys().eq([&Channel::Mail])));
    let given_up = tidy(&mut outbox, &[Channel::Mail], at(259_200));
    assert_eq!(given_up.iter().map(|l| l.id).collect::<Vec<_>>(), [1]);
    // Nobody gives up what nobody wants to hear any more.
    assert_eq!(tidy(&mut outbox, &[], at(259_200)), []);
    assert!(outbox.letters.is_empty());
}

#[test]
fn the_oldest_gives_way() {
    let mut outbox = Outbox::default();
    for id in 0..MAX_LETTERS as u64 {
        let admission = post(&mut outbox, id, &format!("cause {id}"), at(0));
        assert_eq!(admission, Admission::Posted { given_up: Vec::new() });
    }
    let Admission::Posted { given_up } = post(&mut outbox, 1000, "one more", at(0)) else { panic!("quiet") };
    assert_eq!(given_up.iter().map(|l| l.id).collect::<Vec<_>>(), [0]);
    assert_eq!(outbox.letters.len(), MAX_LETTERS);
}

#[test]
fn intervals() {
    for (failures, seconds) in
        [(0, 5), (1, 5), (2, 30), (3, 120), (4, 600), (5, 3600), (6, 14_400), (u32::MAX, 14_400)]
    {
        assert_eq!(interval(failures, 0.0).as_secs(), seconds, "{failures}");
    }
    // A notice that never arrives is tried a few dozen times before it is given up.
    let (mut spent, mut tries) = (Duration::ZERO, 0);
    while spent < MAX_AGE {
        tries += 1;
        spent += interval(tries, 0.5);
    }
    assert!((15..40).contains(&tries), "{tries}");
}

proptest! {
    #[test]
    fn intervals_grow_within_bounds(failures in 0u32..100, jitter in -1.0f64..2.0) {
        let now = interval(failures, jitter);
        prop_assert!(now >= Duration::from_secs(5) && now <= Duration::from_secs(18_000));
        prop_assert!(interval(failures + 1, 0.0) >= interval(failures, 0.0));
        prop_assert!(now >= interval(failures, 0.0));
    }

    /// Whatever happens in whatever order, with time going on: no cause is admitted twice within the
    /// quiet period unless it was mended, everything is bounded, and what was admitted is delivered on
    /// every way exactly once or given up.
    #[test]
    fn nothing_is_told_twice_or_lost(steps in prop::collection::vec((0u8..5, 0u8..4, 0u32..40_000), 1..200)) {
        let quiet = Duration::from_secs(50_000);
        let ways = [Channel::Mail, Channel::Command];
        let mut outbox = Outbox::default();
        let mut now = at(0);
        let mut admitted_at: BTreeMap<String, Timestamp> = BTreeMap::new();
        let mut open: BTreeMap<(u64, Channel), ()> = BTreeMap::new();
        for (id, (step, cause, pause)) in (0u64..).zip(steps) {
            now = later(now, Duration::from_secs(pause.into()));
            let cause = cause.to_string();
            match step {
                0 | 1 => match admit(&mut outbox, &notice(Kind::AttemptFailed, "a", &cause), &ways, quiet, now, id) {
                    Admission::Posted { given_up } => {
                        if let Some(before) = admitted_at.insert(cause, now) {
                            prop_assert!(!is_within(before, now, quiet));
                        }
                        for way in ways {
                            open.insert((id, way), ());
                        }
                        open.retain(|(id, _), ()| given_up.iter().all(|l| l.id != *id));
                    }
                    Admission::Quiet => prop_assert!(is_within(admitted_at[&cause], now, quiet)),
                    Admission::NoWay => prop_assert!(false),
                },
                2 => {
                    mend(&mut outbox, Kind::AttemptFailed, Some("a"), Some(&cause));
                    admitted_at.remove(&cause);
                }
                3 => if let Some(id) = to_deliver(&outbox, Channel::Mail, now) {
                    arrived(&mut outbox, id, Channel::Mail);
                    prop_assert!(open.remove(&(id, Channel::Mail)).is_some(), "delivered twice");
                },
                _ => {
                    for given_up in tidy(&mut outbox, &ways, now) {
                        open.retain(|(id, _), ()| given_up.id != *id);
                    }
                    if let Some(id) = to_deliver(&outbox, Channel::Command, now) {
                        prop_assert!(failed(&mut outbox, id, Channel::Command, "x", now, 0.5).unwrap() > now);
                    }
                }
            }
            prop_assert!(outbox.letters.len() <= MAX_LETTERS && outbox.told.len() <= MAX_TOLD);
        }
        let kept: usize = outbox.letters.iter().map(|l| l.ways.len()).sum();
        prop_assert_eq!(kept, open.len());
    }
}
