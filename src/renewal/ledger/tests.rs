//! One rule after the other.

use super::*;
use crate::config::{Issuer, Rate, RateLimits};
use crate::store::Store;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

/// 2026-11-23T13:00:00Z
fn start() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_438_800)
}

fn names(list: &[&str]) -> Vec<Identifier> {
    list.iter().map(|name| name.parse().unwrap()).collect()
}

fn lets_encrypt() -> Limits {
    Limits::of(&Issuer::LetsEncrypt, &RateLimits::default())
}

fn ask(identifiers: &[Identifier]) -> Ask<'_> {
    Ask { issuer: "letsencrypt", account: "a", ..Ask::for_identifiers(identifiers) }
}

fn failed(identifiers: &[Identifier]) -> Happened {
    Happened { asked: true, ordered: true, failed: identifiers.to_vec(), ..Happened::default() }
}

fn obtained() -> Happened {
    Happened { asked: true, ordered: true, obtained: true, ..Happened::default() }
}

/// One attempt that ends at once.
fn attempt(ledger: &mut Ledger, ask: &Ask<'_>, happened: &Happened, now: SystemTime) -> Result<(), Refusal> {
    let charge = ledger.begin(ask, &lets_encrypt(), now)?;
    ledger.settle(charge, happened, now);
    Ok(())
}

fn reloaded(ledger: &Ledger, now: SystemTime) -> Ledger {
    Ledger::restored(ledger.file(now), now)
}

#[test]
fn two_of_five_failures_are_the_operators() {
    let (mut ledger, www) = (Ledger::new(), names(&["www.null-i.net"]));
    let (unforced, forced) = (ask(&www), Ask { force: true, ..ask(&www) });
    for _ in 0..3 {
        attempt(&mut ledger, &unforced, &failed(&www), start()).unwrap();
    }
    let refusal = attempt(&mut ledger, &unforced, &failed(&www), start()).unwrap_err();
    // The bucket has one more than the reserve after 12 minutes, the share of the unattended after 30.
    assert_eq!(refusal.obstacle, Obstacle::Bucket(BucketKind::Unattended));
    assert!(refusal.until >= start() + 30 * MINUTE && refusal.until < start() + 31 * MINUTE);
    assert_eq!(
        refusal.to_string(),
        "validations of www.null-i.net may fail 3 times and then once in 30 minutes while nobody looks, and that is used up: next free at 13:31 UTC; `renew --force` need not wait"
    );
    for _ in 0..2 {
        attempt(&mut ledger, &forced, &failed(&www), start()).unwrap();
    }
    let refusal = attempt(&mut ledger, &forced, &failed(&www), start()).unwrap_err();
    assert_eq!(
        (refusal.until, refusal.obstacle),
        (start() + 12 * MINUTE, Obstacle::Bucket(BucketKind::Failures))
    );
    assert_eq!(
        refusal.says,
        "all 5 failed validations of www.null-i.net this hour are used up: letsencrypt takes the next one at 13:12 UTC, with `--force` too"
    );
    // Other names, accounts and CAs have buckets of their own.
    let other = names(&["a.example"]);
    attempt(&mut ledger, &ask(&other), &failed(&other), start()).unwrap();
    attempt(&mut ledger, &Ask { account: "b", ..ask(&www) }, &failed(&www), start()).unwrap();
    attempt(&mut ledger, &Ask { issuer: "other", ..ask(&www) }, &failed(&www), start()).unwrap();
    // One of several names is enough to refuse.
    let both = names(&["a.example", "www.null-i.net"]);
    assert!(ledger.allows(&ask(&both), &lets_encrypt(), start()).is_err());
}

#[test]
fn the_reserve_is_named_where_it_is_what_is_left() {
    let (mut ledger, www) = (Ledger::new(), names(&["www.null-i.net"]));
    let forced = Ask { force: true, ..ask(&www) };
    for _ in 0..4 {
        attempt(&mut ledger, &forced, &failed(&www), start()).unwrap();
    }
    let refusal = ledger.allows(&ask(&www), &lets_encrypt(), start()).unwrap_err();
    assert_eq!(refusal.obstacle, Obstacle::Bucket(BucketKind::Failures));
    assert_eq!(
        refusal.says,
        "4 of 5 failed validations of www.null-i.net this hour are used and 1 is kept in reserve for you: next free at 13:24 UTC; `renew --force` may use the reserve"
    );
    let limits = Limits::of(
        &Issuer::LetsEncrypt,
        &RateLimits {
            failed_authorizations: Some(Rate::Limited { count: 2, per: Duration::from_secs(3600) }),
            ..RateLimits::default()
        },
    );
    let mut ledger = Ledger::new();
    let charge = ledger.begin(&forced, &limits, start()).unwrap();
    ledger.settle(charge, &failed(&www), start());
    let refusal = ledger.allows(&ask(&www), &limits, start()).unwrap_err();
    assert_eq!(refusal.until, start() + 30 * MINUTE);
    ledger.allows(&forced, &limits, start()).unwrap();
}

#[test]
fn what_did_not_happen_is_given_back() {
    let www = names(&["www.null-i.net", "null-i.net"]);
    let ask = Ask { needs_account: true, ..ask(&www) };
    let limits = lets_encrypt();
    let mut ledger = Ledger::new();
    for _ in 0..100 {
        attempt(&mut ledger, &ask, &Happened::default(), start()).unwrap();
    }
    assert!(ledger.file(start()).buckets.is_empty());
    // Until it is settled, the worst is assumed.
    let charge = ledger.begin(&ask, &limits, start()).unwrap();
    let left = |ledger: &Ledger| ledger.failures_left("letsencrypt", "a", &www, &limits, start()).automatic;
    assert_eq!(left(&ledger), 2);
    ledger.settle(charge, &failed(&www[..1]), start());
    let file = ledger.file(start());
    let kinds: Vec<_> = file.buckets.iter().map(|row| (row.key.bucket, row.key.of.as_str())).collect();
    let one = "www.null-i.net";
    assert_eq!(
        kinds,
        [
            (BucketKind::Failures, one),
            (BucketKind::Unattended, one),
            (BucketKind::FailuresInARow, one),
            (BucketKind::Orders, ""),
        ]
    );
    // What is not said to have reached the CA did not.
    let unasked = Happened { asked: false, account_made: true, exempt: false, ..obtained() };
    attempt(&mut ledger, &ask, &unasked, start()).unwrap();
    assert_eq!(ledger.file(start()), file);
}

#[test]
fn five_certificates_of_a_set_and_fifty_below_a_domain() {
    let (mut ledger, www) = (Ledger::new(), names(&["www.null-i.net", "null-i.net"]));
    let reversed = names(&["null-i.net", "www.null-i.net", "null-i.net"]);
    for n in 0..5 {
        let order = if n % 2 == 0 { &www } else { &reversed };
        attempt(&mut ledger, &ask(order), &obtained(), start()).unwrap();
    }
    let refusal =
        ledger.allows(&Ask { is_renewal: true, ..ask(&www) }, &lets_encrypt(), start()).unwrap_err();
    assert_eq!(refusal.obstacle, Obstacle::Bucket(BucketKind::Set));
    assert_eq!(
        refusal.says,
        "letsencrypt signs 5 certificates for exactly the same 2 names in 7 days, and they are used up: the next one at 2026-11-24 23:00 UTC"
    );
    let suggested = Ask { by_renewal_information: true, is_renewal: true, ..ask(&www) };
    ledger.allows(&suggested, &lets_encrypt(), start()).unwrap();

    for n in 5..50 {
        let one = names(&[&format!("h{n}.null-i.net")]);
        attempt(&mut ledger, &ask(&one), &obtained(), start()).unwrap();
    }
    let one = names(&["h50.null-i.net"]);
    let refusal = ledger.allows(&ask(&one), &lets_encrypt(), start()).unwrap_err();
    assert_eq!(refusal.obstacle, Obstacle::Bucket(BucketKind::RegisteredDomain));
    assert!(refusal.says.contains("50 certificates below null-i.net in 7 days"), "{refusal}");
    assert_eq!(refusal.until, start() + 202 * MINUTE);
    ledger.allows(&Ask { is_renewal: true, ..ask(&one) }, &lets_encrypt(), start()).unwrap();
    ledger.allows(&Ask { by_renewal_information: true, ..ask(&one) }, &lets_encrypt(), start()).unwrap();
    ledger.allows(&ask(&names(&["null-i.org"])), &lets_encrypt(), start()).unwrap();
}

/// Only Let's Encrypt is known to leave renewals out of its counts.
#[test]
fn renewals_count_at_other_cas() {
    let www = names(&["www.null-i.net"]);
    let rate = |count| Some(Rate::Limited { count, per: Duration::from_secs(7 * 86_400) });
    let configured = |orders, domain, set| RateLimits {
        orders,
        certificates_per_domain: domain,
        certificates_per_set: set,
        ..RateLimits::default()
    };
    let directory = Issuer::Directory("https://ca.example/d".parse().unwrap());
    for (configured, kind) in [
        (configured(rate(2), None, None), BucketKind::Orders),
        (configured(None, rate(2), None), BucketKind::RegisteredDomain),
        (configured(None, None, rate(2)), BucketKind::Set),
    ] {
        let suggested = Ask { is_renewal: true, by_renewal_information: true, ..ask(&www) };
        let renewal = Ask { by_renewal_information: false, force: true, ..suggested };
        let happened = Happened { exempt: true, ..obtained() };
        let limits = Limits::of(&directory, &configured);
        let mut ledger = Ledger::new();
        for _ in 0..2 {
            let charge = ledger.begin(&renewal, &limits, start()).unwrap();
            ledger.settle(charge, &happened, start());
        }
        for one_more in [&renewal, &suggested] {
            let refusal = ledger.allows(one_more, &limits, start()).unwrap_err();
            assert_eq!(refusal.obstacle, Obstacle::Bucket(kind));
        }
        // There it is another number, and the same rule.
        for issuer in [Issuer::LetsEncrypt, Issuer::LetsEncryptStaging] {
            let limits = Limits::of(&issuer, &configured);
            let mut ledger = Ledger::new();
            for _ in 0..4 {
                let charge = ledger.begin(&suggested, &limits, start()).unwrap();
                ledger.settle(charge, &happened, start());
            }
        }
        let limits = Limits::of(&Issuer::LetsEncrypt, &configured);
        let mut ledger = Ledger::new();
        for _ in 0..2 {
            let charge = ledger.begin(&renewal, &limits, start()).unwrap();
            ledger.settle(charge, &obtained(), start());
        }
        assert_eq!(ledger.allows(&renewal, &limits, start()).is_ok(), kind != BucketKind::Set);
        let other = names(&["other.null-i.net"]);
        ledger.allows(&ask(&other), &limits, start()).expect("renewals have left everything to first orders");
    }
}

#[test]
fn a_replacement_that_the_ca_did_not_take_is_counted() {
    let (www, limits) = (names(&["www.null-i.net"]), lets_encrypt());
    let suggested = Ask { by_renewal_information: true, is_renewal: true, ..ask(&www) };
    for (exempt, counted) in [(true, 0), (false, 1)] {
        let mut ledger = Ledger::new();
        let charge = ledger.begin(&suggested, &limits, start()).unwrap();
        ledger.settle(charge, &Happened { exempt, ..obtained() }, start());
        assert_eq!(ledger.file(start()).buckets.len(), counted);
    }
}

#[test]
fn orders_and_accounts_run_out() {
    let mut ledger = Ledger::new();
    let only_ordered = Happened { asked: true, ordered: true, account_made: true, ..Happened::default() };
    for n in 0..300 {
        let one = names(&[&format!("www.h{n}.example")]);
        attempt(&mut ledger, &ask(&one), &only_ordered, start()).unwrap();
    }
    let one = names(&["www.null-i.net"]);
    let refusal = ledger.allows(&ask(&one), &lets_encrypt(), start()).unwrap_err();
    assert_eq!(
        (refusal.obstacle, refusal.until),
        (Obstacle::Bucket(BucketKind::Orders), start() + Duration::from_secs(36))
    );
    assert!(refusal.says.contains("takes 300 new orders of an account in 3 hours"), "{refusal}");
    let needs = Ask { needs_account: true, ..ask(&one) };
    for _ in 0..10 {
        let other = Ask { account: "b", ..needs };
        attempt(&mut ledger, &other, &only_ordered, start()).unwrap();
    }
    let refusal = ledger.allows(&Ask { account: "c", ..needs }, &lets_encrypt(), start()).unwrap_err();
    assert_eq!(refusal.obstacle, Obstacle::Bucket(BucketKind::Accounts));
}

#[test]
fn failures_in_a_row_end_with_a_success() {
    let (mut ledger, www) = (Ledger::new(), names(&["www.null-i.net"]));
    let forced = Ask { force: true, ..ask(&www) };
    let mut now = start();
    // Every hour, which the hourly bucket allows.
    let in_a_row = loop {
        match attempt(&mut ledger, &forced, &failed(&www), now) {
            Ok(()) => now += 60 * MINUTE,
            Err(refusal) => break refusal,
        }
        assert!(now < start() + 60 * DAY);
    };
    assert_eq!(in_a_row.obstacle, Obstacle::Bucket(BucketKind::FailuresInARow));
    assert!(
        in_a_row.says.starts_with("1152 validations of www.null-i.net have failed in a row"),
        "{in_a_row}"
    );
    let left = ledger.failures_left("letsencrypt", "a", &www, &lets_encrypt(), now);
    assert_eq!((left.automatic, left.in_reserve), (0, 0));
    attempt(&mut ledger, &forced, &obtained(), in_a_row.until).unwrap();
    for _ in 0..5 {
        attempt(&mut ledger, &forced, &failed(&www), in_a_row.until).unwrap();
    }
}

#[test]
fn the_cas_word_counts_whatever_is_said() {
    let (www, other) = (names(&["www.null-i.net"]), names(&["a.example"]));
    let limits = lets_encrypt();
    let mut ledger = Ledger::new();
    ledger.blocked("letsencrypt", Scope::Identifiers(&www), start() + 90 * MINUTE, start());
    ledger.blocked("letsencrypt", Scope::Identifiers(&www), start() + MINUTE, start());
    let forced = Ask { force: true, by_renewal_information: true, ..ask(&www) };
    for mut ledger in [ledger.clone(), reloaded(&ledger, start() + MINUTE)] {
        let refusal = ledger.allows(&forced, &limits, start() + MINUTE).unwrap_err();
        assert_eq!((refusal.until, refusal.obstacle), (start() + 90 * MINUTE, Obstacle::RetryAfter));
        assert_eq!(
            refusal.says,
            "letsencrypt has asked to be left alone until 14:30 UTC, and `--force` does not change that"
        );
        ledger.allows(&ask(&other), &limits, start()).unwrap();
        let left = ledger.failures_left("letsencrypt", "a", &www, &limits, start());
        assert_eq!((left.automatic, left.says.as_str()), (0, "none before 14:30 UTC"));
    }
    ledger.blocked("letsencrypt", Scope::Issuer, start() + 4000 * DAY, start());
    assert_eq!(ledger.allows(&ask(&other), &limits, start()).unwrap_err().until, start() + 30 * DAY);
    ledger.allows(&ask(&other), &limits, start() + 30 * DAY).unwrap();
    ledger.allows(&Ask { issuer: "google", ..ask(&other) }, &limits, start()).unwrap();
    // A moment that has passed says nothing.
    let mut ledger = Ledger::new();
    ledger.blocked("letsencrypt", Scope::Issuer, start(), start());
    assert!(!ledger.needs_saving());
}

#[test]
fn a_pause_of_the_renewal_information_holds_up_no_order() {
    let (mut ledger, www) = (Ledger::new(), names(&["www.null-i.net"]));
    ledger.blocked("letsencrypt", Scope::Information, start() + 90 * MINUTE, start());
    let mut ledger = reloaded(&ledger, start());
    ledger.allows(&ask(&www), &lets_encrypt(), start()).unwrap();
    assert_eq!(ledger.information_waits("letsencrypt", start()), Some(start() + 90 * MINUTE));
    assert_eq!(ledger.information_waits("letsencrypt", start() + 90 * MINUTE), None);
    assert_eq!(ledger.information_waits("google", start()), None);
    // A clock that was ahead when it was written does not stretch it.
    assert_eq!(ledger.information_waits("letsencrypt", start() - DAY), Some(start() - DAY + 90 * MINUTE));
    // What is said of everything is said of this too; what is said of names is not.
    ledger.blocked("google", Scope::Identifiers(&www), start() + MINUTE, start());
    assert_eq!(ledger.information_waits("google", start()), None);
    ledger.blocked("google", Scope::Issuer, start() + MINUTE, start());
    assert_eq!(ledger.information_waits("google", start()), Some(start() + MINUTE));
}

#[test]
fn many_waits_become_one() {
    let many: Vec<Identifier> = (0..5000).map(|n| format!("h{n}.example").parse().unwrap()).collect();
    let mut ledger = Ledger::new();
    ledger.blocked("letsencrypt", Scope::Identifiers(&many), start() + DAY, start());
    assert!(ledger.file(start()).waits.len() <= LedgerFile::MAX_WAITS);
    assert!(ledger.allows(&ask(&many[4999..]), &lets_encrypt(), start()).is_err());
}

#[test]
fn what_is_left_is_told() {
    let (www, limits) = (names(&["www.null-i.net", "null-i.net"]), lets_encrypt());
    let mut ledger = Ledger::new();
    let left =
        |ledger: &Ledger, limits: &Limits, now| ledger.failures_left("letsencrypt", "a", &www, limits, now);
    let full = Left { automatic: 3, in_reserve: 2, next_free: None, says: "3 left this hour".to_owned() };
    assert_eq!(left(&ledger, &limits, start()), full);
    for (automatic, in_reserve, says) in [
        (2, 2, "2 left this hour, next free 13:12 UTC"),
        (1, 2, "1 left this hour, next free 13:12 UTC"),
        (0, 2, "0 left this hour and 2 in reserve for `renew --force`, next free 13:12 UTC"),
        (0, 1, "0 left this hour and 1 in reserve for `renew --force`, next free 13:24 UTC"),
        (0, 0, "0 left this hour, next free 13:36 UTC"),
    ] {
        attempt(&mut ledger, &Ask { force: true, ..ask(&www) }, &failed(&www[..1]), start()).unwrap();
        let told = left(&ledger, &limits, start());
        assert_eq!((told.automatic, told.in_reserve, told.says.as_str()), (automatic, in_reserve, says));
        let next_free = told.next_free.unwrap();
        assert_eq!(left(&ledger, &limits, next_free).automatic, automatic + 1);
        assert_eq!(left(&ledger, &limits, next_free - Duration::from_millis(1)).automatic, automatic);
    }
    assert_eq!(left(&ledger, &limits, start() + DAY), full);
    let unlimited = Limits::of(&Issuer::Embedded, &RateLimits::default());
    assert_eq!(left(&ledger, &unlimited, start()).says, "no limit");
    let staging = Limits::of(&Issuer::LetsEncryptStaging, &RateLimits::default());
    assert_eq!(left(&Ledger::new(), &staging, start()).automatic, 120);
}

#[test]
fn registered_domains() {
    for (identifier, domain) in [
        ("www.null-i.net", "null-i.net"),
        ("null-i.net", "null-i.net"),
        ("a.b.example.co.uk", "example.co.uk"),
        ("co.uk", "co.uk"),
        ("me.github.io", "me.github.io"),
        ("www.xn--85x722f.com.cn", "xn--85x722f.com.cn"),
        ("a.b.unheard-of", "b.unheard-of"),
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
    ] {
        assert_eq!(charge::registered_domain(&identifier.parse().unwrap()), domain);
    }
}

#[test]
fn a_crash_counts_as_the_worst() {
    let (www, limits) = (names(&["www.null-i.net"]), lets_encrypt());
    let mut ledger = Ledger::new();
    let mut now = start();
    for used in 1..=3 {
        let _lost = ledger.begin(&ask(&www), &limits, now).unwrap();
        now += MINUTE;
        ledger = reloaded(&ledger, now);
        assert!(ledger.needs_saving(), "when it was cut off is to be kept");
        let left = ledger.failures_left("letsencrypt", "a", &www, &limits, now);
        assert_eq!(left.automatic, 3 - used);
    }
    assert!(ledger.begin(&ask(&www), &limits, now).is_err());
    // Another restart does not put it off again.
    let refused = ledger.begin(&ask(&www), &limits, now).unwrap_err().until;
    let later = reloaded(&reloaded(&ledger, now + MINUTE), now + 10 * MINUTE);
    assert_eq!(later.clone().begin(&ask(&www), &limits, now + 10 * MINUTE).unwrap_err().until, refused);
}

/// A bucket that would have been full by now is not, where a crash came before it was.
#[test]
fn what_was_cut_off_is_added_to_what_was_there_then() {
    let (www, limits) = (names(&["www.null-i.net"]), lets_encrypt());
    let mut ledger = Ledger::new();
    attempt(&mut ledger, &ask(&www), &failed(&www), start()).unwrap();
    let _lost = ledger.begin(&ask(&www), &limits, start() + MINUTE).unwrap();
    ledger = reloaded(&ledger, start() + 2 * MINUTE);
    let later = start() + 31 * MINUTE;
    for mut ledger in [ledger.clone(), reloaded(&ledger, later)] {
        ledger.allows(&ask(&www), &limits, later).unwrap();
        let full_at = ledger.buckets.iter().find(|(key, _)| key.bucket == BucketKind::Unattended).unwrap().1;
        assert_eq!(*full_at, milliseconds(start() + 60 * MINUTE) + 2);
    }
}

#[test]
fn an_attempt_that_nobody_settles_is_over_after_an_hour() {
    let (www, limits) = (names(&["www.null-i.net"]), lets_encrypt());
    let mut ledger = Ledger::new();
    let lost: Vec<_> = (0..3).map(|_| ledger.begin(&ask(&www), &limits, start()).unwrap()).collect();
    let hour = start() + 60 * MINUTE;
    assert!(ledger.allows(&ask(&www), &limits, hour - MINUTE).is_err());
    assert!(ledger.allows(&ask(&www), &limits, hour).is_err());
    ledger.allows(&ask(&www), &limits, hour + 31 * MINUTE).unwrap();
    // One that ends later still is counted once more rather than not at all.
    for charge in lost {
        ledger.settle(charge, &failed(&www), hour + 32 * MINUTE);
    }
    assert!(ledger.allows(&ask(&www), &limits, hour + 32 * MINUTE).is_err());
}

#[test]
fn a_damaged_file_stops_everything_for_an_hour() {
    let (www, limits) = (names(&["www.null-i.net"]), lets_encrypt());
    let mut ledger = Ledger::pessimistic(start());
    assert!(ledger.needs_saving());
    let forced = Ask { force: true, by_renewal_information: true, ..ask(&www) };
    for mut ledger in [ledger.clone(), reloaded(&ledger, start() + 59 * MINUTE)] {
        let refusal = ledger.allows(&forced, &limits, start() + 59 * MINUTE).unwrap_err();
        assert_eq!((refusal.until, refusal.obstacle), (start() + 60 * MINUTE, Obstacle::Unknown));
        assert!(refusal.says.contains("ledger.json") && refusal.says.contains("14:00 UTC"), "{refusal}");
        assert_eq!(ledger.failures_left("letsencrypt", "a", &www, &limits, start()).automatic, 0);
        ledger.allows(&forced, &limits, start() + 60 * MINUTE).unwrap();
    }
    let unlimited = Limits::of(&Issuer::Embedded, &RateLimits::default());
    ledger.allows(&forced, &unlimited, start()).unwrap();
}

#[test]
fn the_ledger_does_not_grow_without_end() {
    let (mut ledger, limits) = (Ledger::new(), Limits::of(&Issuer::Google, &RateLimits::default()));
    let lost: Vec<Charge> = (0..200)
        .map_while(|n| {
            let one = names(&[&format!("www.h{n}.example")]);
            ledger.begin(&ask(&one), &limits, start()).ok()
        })
        .collect();
    assert_eq!(lost.len(), LedgerFile::MAX_PENDING);
    let refusal = ledger.allows(&ask(&names(&["a.example"])), &limits, start()).unwrap_err();
    assert_eq!(refusal.obstacle, Obstacle::NoRoom);
    drop(lost);
    let unlimited =
        Limits::of(&Issuer::Google, &RateLimits { orders: Some(Rate::Unlimited), ..RateLimits::default() });
    let mut ledger = Ledger::new();
    let many: Vec<Identifier> = (0..14_000).map(|n| format!("h{n}.example").parse().unwrap()).collect();
    let refused = many.chunks(100).find_map(|chunk| match ledger.begin(&ask(chunk), &unlimited, start()) {
        Ok(charge) => {
            ledger.settle(charge, &failed(chunk), start());
            None
        }
        Err(refusal) => Some(refusal.obstacle),
    });
    assert_eq!(refused, Some(Obstacle::NoRoom));
    assert!(ledger.file(start()).buckets.len() <= LedgerFile::MAX_BUCKETS);
    assert!(ledger.file(start() + DAY).buckets.is_empty(), "full buckets are dropped");
    ledger.allows(&ask(&many[..1]), &unlimited, start() + DAY).unwrap();
}

/// A ledger with a bit of everything in it.
fn lively() -> Ledger {
    let www = names(&["www.null-i.net", "192.0.2.7"]);
    let mut ledger = Ledger::new();
    attempt(&mut ledger, &ask(&www), &failed(&www), start()).unwrap();
    attempt(&mut ledger, &Ask { needs_account: true, ..ask(&www) }, &obtained(), start()).unwrap();
    let _lost = ledger.begin(&ask(&www), &lets_encrypt(), start()).unwrap();
    ledger.blocked("letsencrypt", Scope::Identifiers(&www), start() + 90 * MINUTE, start());
    ledger.blocked("google", Scope::Issuer, start() + 2 * DAY, start());
    ledger
}

#[test]
fn bad_files_never_free_anything() {
    let holder = tempfile::tempdir().unwrap();
    let path = holder.path().join("state");
    let store = Store::open(&path).unwrap();
    assert!(store.ledger().unwrap().is_none());
    let written = lively().file(start());
    store.save_ledger(&written).unwrap();
    assert_eq!(store.ledger().unwrap().unwrap(), written);
    let whole = std::fs::read(path.join("ledger.json")).unwrap();
    let damaged = |content: &[u8]| {
        std::fs::write(path.join("ledger.json"), content).unwrap();
        matches!(store.ledger(), Err(crate::store::StoreError::Damaged { .. }))
    };
    for length in 0..whole.len() {
        assert!(damaged(&whole[..length]), "cut off after {length} bytes");
    }
    let text = String::from_utf8(whole.clone()).unwrap();
    for (from, to) in [
        ("\"version\":1", "\"version\":2"),
        ("\"version\":1", "\"version\":-1"),
        ("\"version\":1", "\"version\":1,\"more\":1"),
        ("2026-", "12026-"),
        ("2026-", "99999999999999-"),
        ("\"failures\"", "\"successes\""),
        ("T1", "T9"),
        ("192.0.2.7", "192.0.2.777"),
    ] {
        assert!(text.contains(from) && damaged(text.replace(from, to).as_bytes()), "{from} → {to}");
    }
    for large in [
        text.replace(
            "\"waits\":[",
            &format!(
                "\"waits\":[{}",
                r#"{"issuer":"x","span":{"from":"2026-11-23T13:00:00Z","until":"2026-11-24T13:00:00Z"}},"#
                    .repeat(1000)
            ),
        ),
        text.replace("\"issuer\":\"google\"", &format!("\"issuer\":\"{}\"", "g".repeat(5000))),
        text.replace("{\"version\"", &format!("{}{{\"version\"", " ".repeat(17 << 20))),
    ] {
        assert!(damaged(large.as_bytes()));
    }
    let mut random = histories::Random(7);
    for _ in 0..2000 {
        let mut content = whole.clone();
        let place = random.below(content.len());
        content[place] = content[place].wrapping_add(1 + u8::try_from(random.below(255)).unwrap());
        if !damaged(&content) {
            // What still reads as a ledger is another one, with bounds all the same.
            let mut ledger = Ledger::restored(store.ledger().unwrap().unwrap(), start());
            let www = names(&["www.null-i.net"]);
            let refused = ledger.allows(&ask(&www), &lets_encrypt(), start()).err();
            assert!(refused.is_none_or(|r| r.until <= start() + LONGEST_WAIT));
        }
        let noise: Vec<u8> =
            (0..random.below(300)).map(|_| u8::try_from(random.below(256)).unwrap()).collect();
        assert!(damaged(&noise));
    }
    assert!(damaged(&[b'['; 100_000]));
}

#[test]
fn moments_out_of_all_proportion_are_bounded() {
    let (www, limits) = (names(&["www.null-i.net"]), lets_encrypt());
    let mut file = lively().file(start());
    for stamp in [jiff::Timestamp::MAX, jiff::Timestamp::MIN] {
        file.buckets.iter_mut().for_each(|row| row.full_at = stamp);
        for row in &mut file.pending {
            (row.begun_at, row.cut_off_at) = (stamp, Some(stamp));
        }
        for row in &mut file.waits {
            (row.span.from, row.span.until) = (stamp, jiff::Timestamp::MAX);
        }
        for now in [start(), SystemTime::UNIX_EPOCH, moment(file::LAST), moment(file::FIRST)] {
            let mut ledger = Ledger::restored(file.clone(), now);
            let _ = ledger.failures_left("letsencrypt", "a", &www, &limits, now);
            let refused = ledger.begin(&ask(&www), &limits, now).err();
            assert!(refused.is_none_or(|refusal| refusal.until <= now + LONGEST_WAIT), "{stamp} {now:?}");
            let _ = Ledger::restored(ledger.file(now), now);
        }
    }
}

#[test]
fn a_clock_that_jumps_frees_a_bucket_at_most_and_blocks_for_its_refill_at_most() {
    let (www, limits) = (names(&["www.null-i.net"]), lets_encrypt());
    let year = 365 * DAY;
    for jump in [DAY, 10 * year] {
        for forward in [true, false] {
            let mut ledger = Ledger::new();
            for _ in 0..3 {
                attempt(&mut ledger, &ask(&www), &failed(&www), start()).unwrap();
            }
            let _lost = ledger.begin(&Ask { force: true, ..ask(&www) }, &limits, start()).unwrap();
            ledger.blocked("letsencrypt", Scope::Issuer, start() + 10 * MINUTE, start());
            let mut now = if forward { start() + jump } else { start() - jump };
            ledger = reloaded(&ledger, now);
            let mut attempts = 0;
            while attempt(&mut ledger, &ask(&www), &failed(&www), now).is_ok() {
                attempts += 1;
            }
            assert!(attempts <= if forward { 3 } else { 0 }, "{attempts} after a jump of {jump:?}");
            // Every refusal saves what it has put right, as a program that runs once does.
            let jumped_at = now;
            while let Err(refusal) = ledger.allows(&ask(&www), &limits, now) {
                assert!(now < jumped_at + 2 * DAY, "still {refusal}");
                now = refusal.until;
                ledger = reloaded(&ledger, now);
            }
            assert!(now <= jumped_at + DAY, "one of the failures in a row comes back after a day at most");
            // Back again.
            ledger = reloaded(&ledger, start());
            let _ = attempt(&mut ledger, &ask(&www), &failed(&www), start());
            // Longest of all takes a certificate of the set, which the crash may have brought.
            let refused = ledger.allows(&ask(&www), &limits, start() + 2 * DAY);
            assert!(refused.is_ok(), "{refused:?}");
        }
    }
}

#[test]
fn a_correction_in_the_middle_of_an_attempt_changes_nothing() {
    let (www, limits) = (names(&["www.null-i.net"]), lets_encrypt());
    let mut ledger = Ledger::new();
    let charge = ledger.begin(&ask(&www), &limits, start()).unwrap();
    let corrected = start() - Duration::from_secs(4);
    ledger.allows(&ask(&www), &limits, corrected).unwrap();
    ledger.settle(charge, &Happened::default(), corrected);
    assert!(ledger.file(corrected).buckets.is_empty());
}
