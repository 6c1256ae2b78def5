//! Pairs of certificates for the same names: both are allowed or neither, and the CA's limits hold.

use proptest::prelude::*;

use super::histories::lowest_level;
use super::limits::{DAY, SECOND};
use super::*;
use crate::config::{Issuer, RateLimits};

fn start() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_438_800)
}

fn names() -> Vec<Identifier> {
    vec!["null-i.net".parse().unwrap(), "www.null-i.net".parse().unwrap()]
}

fn lets_encrypt() -> Limits {
    Limits::of(&Issuer::LetsEncrypt, &RateLimits::default())
}

fn pair(names: &[Identifier]) -> Ask<'_> {
    Ask { issuer: "letsencrypt", account: "a", certificates: 2, ..Ask::for_identifiers(names) }
}

fn obtained() -> Happened {
    Happened { asked: true, ordered: true, obtained: true, ..Happened::default() }
}

fn failed() -> Happened {
    Happened { obtained: false, ..obtained() }
}

#[test]
fn a_pair_is_allowed_as_a_whole_or_not_at_all() {
    let (names, limits) = (names(), lets_encrypt());
    let single = Ask { certificates: 1, ..pair(&names) };
    let mut ledger = Ledger::new();
    for _ in 0..2 {
        let charge = ledger.begin(&pair(&names), &limits, start()).unwrap();
        ledger.settle_all(charge, &[obtained(), obtained()], start());
    }
    let refusal = ledger.allows(&pair(&names), &limits, start()).unwrap_err();
    assert_eq!(refusal.obstacle, Obstacle::Bucket(BucketKind::Set));
    assert!(
        refusal.says.contains("1 of them is left, and a pair takes 2: there is room for both at"),
        "{refusal}"
    );
    // One of five comes back every 34 hours.
    assert_eq!(refusal.until, start() + Duration::from_secs(34 * 3600));
    ledger.allows(&pair(&names), &limits, refusal.until).unwrap();
    ledger.allows(&single, &limits, start()).expect("the half that is missing has room");
    let charge = ledger.begin(&single, &limits, start()).unwrap();
    ledger.settle(charge, &obtained(), start());
    let refusal = ledger.allows(&pair(&names), &limits, start()).unwrap_err();
    assert!(refusal.says.contains("they are used up"), "{refusal}");
}

#[test]
fn both_are_charged_before_the_ca_is_asked_and_what_did_not_happen_is_given_back() {
    let (names, limits) = (names(), lets_encrypt());
    let mut ledger = Ledger::new();
    let full = ledger.file(start());
    let charge = ledger.begin(&pair(&names), &limits, start()).unwrap();
    let row = &ledger.file(start()).pending[0];
    let charged = |kind| row.charged.iter().filter(|key| key.bucket == kind).count();
    for kind in [BucketKind::Set, BucketKind::Orders, BucketKind::RegisteredDomain] {
        assert_eq!(charged(kind), 2, "{kind:?}");
    }
    assert_eq!(charged(BucketKind::Failures), names.len(), "an attempt ends with the first failure");
    // While it is under way, another one finds what it leaves.
    let other = ledger.begin(&pair(&names), &limits, start()).unwrap();
    assert!(ledger.begin(&pair(&names), &limits, start()).is_err());
    ledger.settle_all(other, &[], start());
    ledger.settle_all(charge, &[Happened::default()], start());
    assert_eq!(ledger.file(start()), full);

    // The second fails: one certificate, two orders, no failed name.
    let charge = ledger.begin(&pair(&names), &limits, start()).unwrap();
    ledger.settle_all(charge, &[obtained(), failed()], start());
    let level = |kind| {
        let row = ledger.file(start()).buckets.into_iter().find(|row| row.key.bucket == kind);
        let limit = limits.of_kind(kind).unwrap();
        limit.available(row.map_or(0, |row| limit.debt(row.full_at.as_millisecond(), milliseconds(start()))))
    };
    assert_eq!((level(BucketKind::Set), level(BucketKind::RegisteredDomain)), (4, 49));
    assert_eq!((level(BucketKind::Orders), level(BucketKind::Failures)), (298, 5));
}

#[test]
fn of_a_pair_what_the_ca_does_not_exempt_counts() {
    let (names, limits) = (names(), lets_encrypt());
    let mut ledger = Ledger::new();
    let suggested = Ask { is_renewal: true, by_renewal_information: true, ..pair(&names) };
    let exempt = || Happened { exempt: true, ..obtained() };
    for _ in 0..20 {
        let charge = ledger.begin(&suggested, &limits, start()).unwrap();
        ledger.settle_all(charge, &[exempt(), exempt()], start());
    }
    for _ in 0..4 {
        let charge = ledger.begin(&suggested, &limits, start()).unwrap();
        ledger.settle_all(charge, &[exempt(), obtained()], start());
    }
    let renewal = Ask { by_renewal_information: false, ..suggested };
    assert!(ledger.allows(&renewal, &limits, start()).is_err(), "four of five were not exempt");
    ledger.allows(&suggested, &limits, start()).unwrap();
}

#[test]
fn a_crash_in_the_middle_of_a_pair_counts_as_both() {
    let (names, limits) = (names(), lets_encrypt());
    let mut ledger = Ledger::new();
    for _ in 0..2 {
        let _lost = ledger.begin(&pair(&names), &limits, start()).unwrap();
        let text = serde_json::to_string(&ledger.file(start())).unwrap();
        ledger = Ledger::restored(serde_json::from_str(&text).unwrap(), start());
    }
    let refusal = ledger.allows(&pair(&names), &limits, start()).unwrap_err();
    assert_eq!(refusal.until, start() + Duration::from_secs(34 * 3600));
}

/// A CA that signs the first of a pair and never the second, tried at every minute of a month as hard as the
/// ledger allows. With the half kept for the next attempt, as the keeper does, it costs one certificate; and
/// without (a disk that forgets), the CA's limit is still never met.
#[test]
fn a_second_half_that_always_fails_does_not_burn_the_week() {
    for keeps_the_half in [true, false] {
        let (names, limits) = (names(), lets_encrypt());
        let (mut ledger, mut signed, mut orders, mut has_half) =
            (Ledger::new(), Vec::new(), Vec::new(), false);
        for minute in 0..30 * 24 * 60u64 {
            let now = start() + Duration::from_secs(60 * minute);
            let certificates = if has_half { 1 } else { 2 };
            let Ok(charge) = ledger.begin(&Ask { certificates, ..pair(&names) }, &limits, now) else {
                continue;
            };
            let mut happened = Vec::new();
            orders.push(milliseconds(now));
            if !has_half {
                happened.push(obtained());
                signed.push(milliseconds(now));
                orders.push(milliseconds(now));
                has_half = keeps_the_half;
            }
            happened.push(failed());
            ledger.settle_all(charge, &happened, now);
        }
        assert!(lowest_level(&signed, 5, 34 * HOUR) >= 0, "{signed:?}");
        assert!(lowest_level(&orders, 300, 36 * SECOND) >= 0);
        if keeps_the_half {
            assert_eq!(signed.len(), 1);
            let end = start() + Duration::from_secs(30 * 86_400);
            ledger.allows(&Ask { certificates: 1, ..pair(&names) }, &limits, end).unwrap();
        } else {
            // Four at once, and then one for each that comes back.
            assert!((20..=26).contains(&signed.len()), "{}", signed.len());
        }
    }
}

/// What one attempt does, and how long after the one before.
#[derive(Debug, Clone)]
struct Try {
    after: i64,
    certificates: u32,
    force: bool,
    /// How many orders end well before one does not, or the process dies.
    progress: usize,
    crashes: bool,
}

fn tries() -> impl Strategy<Value = Vec<Try>> {
    let pause = prop_oneof![1..MINUTE, 1..HOUR, 1..2 * DAY];
    let one = (pause, 1..=2u32, any::<bool>(), 0..=2usize, prop::bool::weighted(0.2)).prop_map(
        |(after, certificates, force, progress, crashes)| Try {
            after,
            certificates,
            force,
            progress,
            crashes,
        },
    );
    prop::collection::vec(one, 1..40)
}

proptest! {
    /// Whatever mixture of pairs and single ones is tried, with crashes and restarts: what the CA has counted
    /// was never over its limits.
    #[test]
    fn pairs_are_never_over_a_limit(tries in tries()) {
        let (names, limits) = (names(), lets_encrypt());
        let mut ledger = Ledger::new();
        let mut now = milliseconds(start());
        let (mut signed, mut ordered) = (Vec::new(), Vec::new());
        for attempt in tries {
            now += attempt.after;
            let ask = Ask { certificates: attempt.certificates, force: attempt.force, ..pair(&names) };
            let Ok(charge) = ledger.begin(&ask, &limits, moment(now)) else { continue };
            let certificates = usize::try_from(attempt.certificates).unwrap();
            let mut happened = Vec::new();
            for position in 0..certificates {
                ordered.push(now);
                if position >= attempt.progress {
                    happened.push(failed());
                    break;
                }
                signed.push(now);
                happened.push(obtained());
                now += 1000;
            }
            if attempt.crashes {
                ledger = Ledger::restored(ledger.file(moment(now)), moment(now));
            } else {
                ledger.settle_all(charge, &happened, moment(now));
            }
        }
        prop_assert!(lowest_level(&signed, 5, 34 * HOUR) >= 0, "{signed:?}");
        prop_assert!(lowest_level(&signed, 50, 202 * MINUTE) >= 0);
        prop_assert!(lowest_level(&ordered, 300, 36 * SECOND) >= 0);
    }
}
