use proptest::prelude::*;

use super::*;

fn at(days: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + DAY * 20_000 + DAY * u32::try_from(days).unwrap()
}

fn days(count: u32) -> Duration {
    DAY * count
}

fn wait(day: u64, why: Why) -> Decision {
    Decision::Wait { at: at(day), why }
}

fn held(day: u64, failures: u32) -> Decision {
    Decision::Held { at: at(day), why: Why::Backoff { failures } }
}

#[test]
fn a_third_or_a_half_is_left() {
    for (lifetime, due) in [(90, 60), (45, 30), (398, 265), (6, 3), (9, 4), (10, 6)] {
        let due_at = renew_at(at(0), at(lifetime), 0.0);
        assert_eq!(due_at.duration_since(at(0)).unwrap().as_secs() / 86_400, due, "{lifetime} days");
    }
    let start = at(0);
    assert_eq!(renew_at(start, start + Duration::from_secs(300), 0.0), start + Duration::from_secs(150));
    assert_eq!(renew_at(start, start + Duration::from_secs(300), 1.0), start + Duration::from_secs(135));
    assert_eq!(renew_at(at(0), at(100), 1.0), at(0) + days(100) - days(100) / 3 - days(5));
    assert_eq!(renew_at(at(9), at(3), 1.0), at(9));
}

#[test]
fn decisions_without_a_window() {
    let validity = Some((at(0), at(90)));
    let known =
        |validity, unfit, retry_at| Known { validity, unfit, retry_at, failures: 2, ..Known::default() };
    let fraction = |left| Decision::Order(Reason::Fraction { left: days(left) });
    for (known, now, wanted) in [
        (known(None, None, None), at(1), Decision::Order(Reason::NoCertificate)),
        (known(None, None, Some(at(2))), at(1), held(2, 2)),
        // Nobody pauses for years: a wrong clock wrote this.
        (known(None, None, Some(at(5000))), at(1), Decision::Order(Reason::NoCertificate)),
        (known(validity, None, None), at(59), wait(60, Why::Fraction)),
        (known(validity, None, Some(at(70))), at(59), wait(60, Why::Fraction)),
        (known(validity, None, None), at(60), fraction(30)),
        (known(validity, None, Some(at(61))), at(60), held(61, 2)),
        (known(validity, None, None), at(90), Decision::Order(Reason::Ended)),
        (known(validity, None, None), at(91), Decision::Order(Reason::Ended)),
        (
            known(validity, Some("other names"), None),
            at(1),
            Decision::Order(Reason::Unfit("other names".into())),
        ),
    ] {
        assert_eq!(decide(&known, now), wanted, "{known:?} at {now:?}");
    }
}

#[test]
fn decisions_with_a_window() {
    let window = |start, end| choose(at(start), at(end), 0.5);
    let known = Known { validity: Some((at(0), at(90))), obtained_at: Some(at(0)), ..Known::default() };
    let ordered = Decision::Order(Reason::Window { explanation: None });
    for (window, now, wanted) in [
        (window(60, 62), at(60), wait(61, Why::RenewalWindow)),
        (window(60, 62), at(61), ordered.clone()),
        // Earlier or later than without a window: the CA knows why.
        (window(29, 31), at(5), wait(30, Why::RenewalWindow)),
        (window(69, 71), at(65), wait(70, Why::RenewalWindow)),
        // Too late: a sixth of the lifetime is left.
        (window(80, 84), at(65), wait(75, Why::Backstop)),
        (window(8000, 8400), at(76), Decision::Order(Reason::Backstop { left: days(14) })),
        // The window was missed: asleep, or the CA has been out of reach for days.
        (window(60, 62), at(80), ordered.clone()),
        (window(60, 62), at(95), Decision::Order(Reason::Ended)),
        // Nothing is known of early replacements: none yet.
        (window(1, 3), at(10), Decision::Wait { at: at(22) + DAY / 2, why: Why::InUseYet }),
    ] {
        let known = Known { window, ..known };
        assert_eq!(decide(&known, now), wanted, "{window:?} at {now:?}");
    }
    let known = Known { window: window(1, 3), explanation: Some("https://ca.example/why"), ..known };
    let told = Reason::Window { explanation: Some("https://ca.example/why".to_owned()) };
    assert_eq!(decide(&known, at(30)), Decision::Order(told));
}

#[test]
fn one_replacement_at_once_and_then_patience() {
    let past =
        |now: SystemTime| choose(now - Duration::from_secs(3600), now - Duration::from_secs(1800), 0.5);
    let first = Known {
        validity: Some((at(0), at(80))),
        obtained_at: Some(at(0)),
        patience: Some(patience(Some(at(0) - days(10)), at(0), at(0), at(80))),
        ..Known::default()
    };
    assert_eq!(first.patience, Some(at(20)));
    // Revoked on its third day.
    let revoked = Known { window: past(at(3)), ..first };
    assert_eq!(decide(&revoked, at(3)), Decision::Order(Reason::Window { explanation: None }));

    let second = Known {
        validity: Some((at(3), at(83))),
        obtained_at: Some(at(3)),
        patience: Some(patience(first.patience, at(3), at(3), at(83))),
        window: past(at(4)),
        ..Known::default()
    };
    assert_eq!(second.patience, Some(at(40)));
    assert_eq!(decide(&second, at(4)), wait(20, Why::InUseYet));

    // A third one pays for itself only: by hand, say, five in a row.
    let mut owed = second.patience;
    for _ in 0..5 {
        owed = Some(patience(owed, at(4), at(4), at(84)));
    }
    assert_eq!(owed, Some(at(44)));
    // One by a clock that was ten years ahead, too.
    assert_eq!(patience(Some(at(4000)), at(4), at(4), at(84)), at(44));
}

#[test]
fn a_certificate_that_comes_old_is_used_for_a_while() {
    let known = Known { validity: Some((at(0), at(90))), obtained_at: Some(at(82)), ..Known::default() };
    assert_eq!(decide(&known, at(82)), wait(84, Why::InUseYet));
    assert_eq!(decide(&known, at(84)), Decision::Order(Reason::Fraction { left: days(6) }));
    // With nearly nothing left, a quarter of that would be a storm.
    let known = Known { obtained_at: Some(at(89)), ..known };
    assert_eq!(decide(&known, at(89)), wait(90, Why::InUseYet));
}

#[test]
fn a_clock_that_is_off_measures_the_time_in_use() {
    let validity = Some((at(0), at(90)));
    // Ten years ahead, and so for good.
    let ahead = Known { validity, obtained_at: Some(at(3650)), ..Known::default() };
    assert_eq!(decide(&ahead, at(3650)), wait(3710, Why::Fraction));
    assert_eq!(decide(&ahead, at(3710)), Decision::Order(Reason::Fraction { left: days(30) }));
    assert_eq!(decide(&ahead, at(3740)), Decision::Order(Reason::Ended));
    let window = choose(at(50), at(52), 0.5);
    assert_eq!(decide(&Known { window, patience: None, ..ahead }, at(3650)), wait(3701, Why::RenewalWindow));
    // Set right: the certificate came in the future, which says nothing.
    assert_eq!(decide(&ahead, at(1)), wait(60, Why::Fraction));

    // Behind: it has not begun, and will be renewed in time nevertheless.
    let behind = Known { validity: Some((at(3650), at(3740))), obtained_at: Some(at(0)), ..Known::default() };
    assert_eq!(decide(&behind, at(0)), wait(60, Why::Fraction));
    assert_eq!(decide(&behind, at(61)), Decision::Order(Reason::Fraction { left: days(29) }));
    assert_eq!(decide(&behind, at(3651)), wait(3710, Why::Fraction));
}

fn moment() -> impl Strategy<Value = SystemTime> {
    (0u64..8_000_000_000).prop_map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// From five minutes to 398 days, short ones as often as long ones.
fn lifetime() -> impl Strategy<Value = Duration> {
    (300f64.ln()..34_387_200f64.ln()).prop_map(|log| Duration::from_secs_f64(log.exp()))
}

fn window(near: SystemTime, lifetime: Duration) -> impl Strategy<Value = Option<Window>> {
    let within = (0.0f64..2.0, 0.001f64..1.0, 0.0f64..=1.0).prop_map(move |(start, length, random)| {
        let start = near - lifetime / 2 + lifetime.mul_f64(start);
        choose(start, start + lifetime.mul_f64(length), random)
    });
    let anywhere =
        (moment(), moment(), 0.0f64..=1.0).prop_map(|(start, end, random)| choose(start, end, random));
    prop_oneof![1 => Just(None), 2 => within, 1 => anywhere]
}

proptest! {
    #[test]
    fn due_lies_within_the_lifetime(from in moment(), lifetime in 0u64..40_000_000, jitter in 0.0f64..=1.0) {
        let to = from + Duration::from_secs(lifetime);
        let due = renew_at(from, to, jitter);
        prop_assert!(from <= due && due <= to);
    }

    /// Whatever the CA suggests: not before a quarter is used, not after the backstop, and the decision
    /// at the moment that was named is to order.
    #[test]
    fn every_window_keeps_the_bounds(
        (from, lifetime, window) in (moment(), lifetime())
            .prop_flat_map(|(from, lifetime)| (Just(from), Just(lifetime), window(from, lifetime))),
        jitter in 0.0f64..=1.0,
    ) {
        let from = from + Duration::from_secs(40_000_000);
        let known = Known {
            validity: Some((from, from + lifetime)),
            obtained_at: Some(from),
            window,
            jitter,
            ..Known::default()
        };
        let Decision::Wait { at, .. } = decide(&known, from) else {
            return Err(TestCaseError::fail("ordered at once"));
        };
        prop_assert!(at >= from + lifetime / 4, "used for a quarter");
        let left = (from + lifetime).duration_since(at).unwrap();
        prop_assert!(left >= lifetime / 6 - Duration::from_secs(1), "time is left to mend a failure");
        prop_assert!(matches!(decide(&known, at), Decision::Order(_)));
    }

    /// No state and no clock makes it panic, and what it waits for comes.
    #[test]
    fn any_state_is_decided(
        (from, lifetime) in (moment(), lifetime()),
        window in (moment(), lifetime()).prop_flat_map(|(near, lifetime)| window(near + DAY * 398, lifetime)),
        obtained_at in prop::option::of(moment()),
        patience in prop::option::of(moment()),
        retry_at in prop::option::of(moment()),
        now in moment(),
        jitter in prop_oneof![0.0f64..=1.0, Just(f64::NAN), Just(-1.0), Just(f64::INFINITY)],
    ) {
        let validity = Some((from, from + lifetime));
        let known = Known { validity, obtained_at, patience, window, retry_at, jitter, ..Known::default() };
        match decide(&known, now) {
            Decision::Order(_) => {}
            Decision::Held { at, .. } => prop_assert!(now < at && at <= now + LONGEST_WAIT),
            Decision::Wait { at, .. } => {
                prop_assert!(now < at);
                let later = decide(&Known { retry_at: None, ..known }, at);
                // A start that this clock has reached may make dates believable that were not.
                prop_assert!(matches!(later, Decision::Order(_)) || (now < from && from <= at), "{later:?}");
            }
        }
    }
}
