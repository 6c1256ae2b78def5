//! How long a preflight that finds what would fail may put an order off (pure): a split-horizon DNS or an
//! odd network must not let a site expire.

use std::time::{Duration, SystemTime};

use super::schedule;

/// Longest time an order is put off.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// No order is put off once less than this part of the present certificate's lifetime is left.
const LEFT: u32 = 6;

/// What becomes of an order that the preflight says would fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is put off.
    Postpone {
        /// The next look.
        look_at: SystemTime,
        /// The CA is asked then, whatever the preflight says.
        order_at: SystemTime,
    },
    /// It has been put off for long enough.
    Order,
}

/// The moment from which no order for the renewal of a certificate is put off.
pub fn last_moment((not_before, not_after): (SystemTime, SystemTime)) -> SystemTime {
    not_after - not_after.duration_since(not_before).unwrap_or_default() / LEFT
}

/// Decides at `now`. `since` is when the order was first put off, if it was; `looks` how often since;
/// `validity` the present certificate's.
pub fn decide(
    since: Option<SystemTime>,
    looks: u32,
    validity: Option<(SystemTime, SystemTime)>,
    now: SystemTime,
    jitter: f64,
) -> Verdict {
    // A first time that lies ahead was written by a clock that was wrong.
    let since = since.filter(|since| *since <= now).unwrap_or(now);
    let mut order_at = since + LONGEST;
    if let Some(validity) = validity {
        order_at = order_at.min(last_moment(validity));
    }
    if now >= order_at {
        return Verdict::Order;
    }
    let look_at = (now + schedule::retry_after(looks + 1, jitter)).min(order_at);
    Verdict::Postpone { look_at, order_at }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(hours: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + hours * 3600)
    }

    #[test]
    fn a_day_at_most_and_never_into_the_last_sixth() {
        let minutes = |n: u64| Duration::from_secs(n * 60);
        let postponed = |look_at, order_at| Verdict::Postpone { look_at, order_at };
        let quarter = Some((at(0), at(2400)));
        for (since, looks, validity, now, wanted) in [
            (None, 0, None, at(0), postponed(at(0) + minutes(1), at(24))),
            (Some(at(0)), 1, None, at(1), postponed(at(1) + minutes(10), at(24))),
            (Some(at(0)), 5, None, at(1), postponed(at(24), at(24))),
            (Some(at(0)), 5, None, at(24), Verdict::Order),
            (Some(at(99)), 5, None, at(1), postponed(at(25), at(25))),
            (None, 0, quarter, at(1990), postponed(at(1990) + minutes(1), at(2000))),
            (None, 0, quarter, at(2000), Verdict::Order),
            (None, 0, quarter, at(3000), Verdict::Order),
        ] {
            assert_eq!(decide(since, looks, validity, now, 0.0), wanted, "{since:?} {looks} {now:?}");
        }
    }

    proptest! {
        #[test]
        fn looks_lie_ahead_and_end(since in 0u64..5000, looks in 0u32..50, now in 0u64..5000) {
            match decide(Some(at(since)), looks, Some((at(0), at(4000))), at(now), 0.5) {
                Verdict::Postpone { look_at, order_at } => {
                    prop_assert!(at(now) < look_at && look_at <= order_at);
                    prop_assert!(order_at <= at(now) + LONGEST);
                }
                Verdict::Order => prop_assert!(now >= since + 24 || at(now) >= last_moment((at(0), at(4000)))),
            }
        }
    }
}
