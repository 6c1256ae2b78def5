//! When a certificate is due (pure).

use std::time::{Duration, SystemTime};

use crate::words::rough;

const DAY: Duration = Duration::from_secs(86_400);

/// Pauses after the first, second, third and every further failure in a row, as the CAs advise.
const RETRY: [Duration; 4] =
    [Duration::from_secs(60), Duration::from_secs(600), Duration::from_secs(6000), DAY];

/// Pauses between tries to have a server take a certificate: its own trouble, so they stay short.
const DEPLOY_RETRY: [Duration; 4] =
    [Duration::from_secs(30), Duration::from_secs(120), Duration::from_secs(600), Duration::from_secs(3600)];

/// Longest pause that a CA's Retry-After can ask for. A moment further ahead was written by a clock that
/// was wrong.
pub const LONGEST_WAIT: Duration = Duration::from_secs(30 * 86_400);

/// What is known about a lineage when it is decided.
#[derive(Debug, Clone, Copy, Default)]
pub struct Known<'a> {
    /// Start and end of the live certificate's validity.
    pub validity: Option<(SystemTime, SystemTime)>,
    /// When it was obtained.
    pub obtained_at: Option<SystemTime>,
    /// Why the live certificate does not serve the present wish (another name, key type or issuer).
    pub unfit: Option<&'a str>,
    /// The earliest moment for the next attempt after failures.
    pub retry_at: Option<SystemTime>,
}

/// What to do about a lineage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Order now, for this reason.
    Order(String),
    /// Nothing to do before this moment.
    Wait(SystemTime),
    /// It is due, but after failures not before this moment.
    Held(SystemTime),
}

/// The moment a certificate is due: when 1/3 of its lifetime is left, 1/2 of one below 10 days.
pub fn renew_at(not_before: SystemTime, not_after: SystemTime) -> SystemTime {
    let lifetime = not_after.duration_since(not_before).unwrap_or_default();
    let left = if lifetime < 10 * DAY { lifetime / 2 } else { lifetime / 3 };
    not_after - left
}

/// A certificate is used for at least a quarter of what was left when it came, so that a CA which dates
/// them back, or a clock that is off, cannot cause one order after the other.
fn earliest(obtained_at: Option<SystemTime>, not_after: SystemTime) -> SystemTime {
    let Some(obtained_at) = obtained_at else { return SystemTime::UNIX_EPOCH };
    obtained_at + not_after.duration_since(obtained_at).unwrap_or_default() / 4
}

/// Decides about one lineage at the moment `now`.
pub fn decide(known: &Known<'_>, now: SystemTime) -> Decision {
    let reason = match (known.validity, known.unfit) {
        (None, _) => "there is no certificate yet".to_owned(),
        (Some(_), Some(unfit)) => unfit.to_owned(),
        (Some((not_before, not_after)), None) => {
            let due = renew_at(not_before, not_after).max(earliest(known.obtained_at, not_after));
            if now < due {
                return Decision::Wait(due);
            }
            match not_after.duration_since(now) {
                Ok(left) => format!("it ends in {}", rough(left)),
                Err(_) => "it has ended".to_owned(),
            }
        }
    };
    match known.retry_at {
        Some(retry_at) if now < retry_at && retry_at <= now + LONGEST_WAIT => Decision::Held(retry_at),
        _ => Decision::Order(reason),
    }
}

/// The pause after so many failures in a row (1 is the first). `jitter` from 0 to 1 lengthens it by up to
/// a tenth, so that many installations do not come back together.
pub fn retry_after(failures: u32, jitter: f64) -> Duration {
    stretched(&RETRY, failures, jitter)
}

/// The pause before a server is asked again to take a certificate.
pub fn deploy_retry_after(failures: u32, jitter: f64) -> Duration {
    stretched(&DEPLOY_RETRY, failures, jitter)
}

fn stretched(table: &[Duration], failures: u32, jitter: f64) -> Duration {
    let place = (failures.max(1) as usize - 1).min(table.len() - 1);
    table[place].mul_f64(1.0 + jitter.clamp(0.0, 1.0) / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(days: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + DAY * 20_000 + DAY * u32::try_from(days).unwrap()
    }

    #[test]
    fn a_third_or_a_half_is_left() {
        for (lifetime, due) in [(90, 60), (45, 30), (398, 265), (6, 3), (9, 4), (10, 6)] {
            let due_at = renew_at(at(0), at(lifetime));
            assert_eq!(due_at.duration_since(at(0)).unwrap().as_secs() / 86_400, due, "{lifetime} days");
        }
        let start = at(0);
        assert_eq!(renew_at(start, start + Duration::from_secs(180)), start + Duration::from_secs(90));
    }

    #[test]
    fn decisions() {
        let validity = Some((at(0), at(90)));
        let known = |validity, unfit, retry_at| Known { validity, unfit, retry_at, obtained_at: None };
        for (known, now, wanted) in [
            (known(None, None, None), at(1), Decision::Order("there is no certificate yet".into())),
            (known(None, None, Some(at(2))), at(1), Decision::Held(at(2))),
            (known(None, None, Some(at(5000))), at(1), Decision::Order("there is no certificate yet".into())),
            (known(validity, None, None), at(59), Decision::Wait(at(60))),
            (known(validity, None, Some(at(70))), at(59), Decision::Wait(at(60))),
            (known(validity, None, None), at(60), Decision::Order("it ends in 30 days".into())),
            (known(validity, None, Some(at(61))), at(60), Decision::Held(at(61))),
            (known(validity, None, None), at(91), Decision::Order("it has ended".into())),
            (known(validity, Some("other names"), None), at(1), Decision::Order("other names".into())),
        ] {
            assert_eq!(decide(&known, now), wanted, "{known:?} at {now:?}");
        }
    }

    #[test]
    fn a_certificate_that_comes_old_is_used_for_a_while() {
        let known = Known { validity: Some((at(0), at(90))), obtained_at: Some(at(82)), ..Known::default() };
        assert_eq!(decide(&known, at(82)), Decision::Wait(at(84)));
        assert_eq!(decide(&known, at(84)), Decision::Order("it ends in 6 days".into()));
        // Obtained by a clock far ahead: nothing is put off for ever.
        let known = Known { obtained_at: Some(at(9000)), ..known };
        assert_eq!(decide(&known, at(9000)), Decision::Order("it has ended".into()));
    }

    #[test]
    fn pauses_grow_to_a_day() {
        let minutes: Vec<_> = (0..7).map(|n| retry_after(n, 0.0).as_secs() / 60).collect();
        assert_eq!(minutes, [1, 1, 10, 100, 1440, 1440, 1440]);
        assert_eq!(retry_after(1, 1.0), Duration::from_secs(66));
    }

    proptest! {
        #[test]
        fn due_lies_within_the_lifetime(start in 0u64..4_000_000_000, lifetime in 0u64..40_000_000) {
            let from = SystemTime::UNIX_EPOCH + Duration::from_secs(start);
            let to = from + Duration::from_secs(lifetime);
            let due = renew_at(from, to);
            prop_assert!(from <= due && due <= to);
        }

        #[test]
        fn a_pause_keeps_its_bounds(failures in 0u32.., jitter in 0.0f64..=1.0) {
            let pause = retry_after(failures, jitter);
            prop_assert!(pause >= RETRY[0] && pause <= RETRY[3].mul_f64(1.1));
        }
    }
}
