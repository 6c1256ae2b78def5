//! How near its end a certificate is, and when that is worth telling: pure, and without any knowledge of
//! renewals, whose bugs it is there to find.

use std::time::{Duration, SystemTime};

/// How near its end a certificate is; later ones are worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Less than the configured part of its lifetime is left.
    Below,
    /// Less than a tenth.
    BelowTenth,
    /// Less than a fiftieth.
    BelowFiftieth,
    /// Nothing.
    Expired,
}

impl Stage {
    /// All, the worst last.
    pub const ALL: [Self; 4] = [Self::Below, Self::BelowTenth, Self::BelowFiftieth, Self::Expired];

    /// [`Notice::cause`](crate::notify::Notice::cause): each stage is told by itself.
    pub fn cause(self) -> &'static str {
        match self {
            Self::Below => "little of the lifetime is left",
            Self::BelowTenth => "less than 1/10 of the lifetime is left",
            Self::BelowFiftieth => "less than 1/50 of the lifetime is left",
            Self::Expired => "the certificate has expired",
        }
    }
}

/// The worst stage that a certificate has reached, if any; `expiring_below` is between 0 and 1. The tenth
/// and the fiftieth count only where they come later than that.
pub fn stage(
    not_before: SystemTime,
    not_after: SystemTime,
    expiring_below: f64,
    now: SystemTime,
) -> Option<Stage> {
    let Ok(left) = not_after.duration_since(now) else { return Some(Stage::Expired) };
    if left.is_zero() {
        return Some(Stage::Expired);
    }
    let lifetime = not_after.duration_since(not_before).ok()?;
    let part = left.as_secs_f64() / lifetime.as_secs_f64();
    if part >= expiring_below {
        None
    } else if part < 1.0 / 50.0 {
        Some(Stage::BelowFiftieth)
    } else if part < 1.0 / 10.0 {
        Some(Stage::BelowTenth)
    } else {
        Some(Stage::Below)
    }
}

/// How long until the next look, so that even the last stage of the shortest lifetime is seen in time.
pub fn pause(shortest_lifetime: Option<Duration>) -> Duration {
    const SHORTEST: Duration = Duration::from_secs(30);
    const LONGEST: Duration = Duration::from_secs(3600);
    shortest_lifetime.map_or(LONGEST, |lifetime| (lifetime / 200).clamp(SHORTEST, LONGEST))
}

/// Whether what is served is an older certificate than the stored one. A hundredth of the lifetime is
/// forgiven: two certificates of one lineage that differ in their key type were not signed in the same
/// second.
pub fn is_older(
    served_not_after: SystemTime,
    stored_not_before: SystemTime,
    stored_not_after: SystemTime,
) -> bool {
    let lifetime = stored_not_after.duration_since(stored_not_before).unwrap_or_default();
    stored_not_after.duration_since(served_not_after).is_ok_and(|by| by > lifetime / 100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
    }

    #[test]
    fn stages_of_a_lifetime() {
        for (now, below, expected) in [
            (0, 0.25, None),
            (750, 0.25, None),
            (751, 0.25, Some(Stage::Below)),
            (900, 0.25, Some(Stage::Below)),
            (901, 0.25, Some(Stage::BelowTenth)),
            (981, 0.25, Some(Stage::BelowFiftieth)),
            (999, 0.25, Some(Stage::BelowFiftieth)),
            (1000, 0.25, Some(Stage::Expired)),
            (9999, 0.25, Some(Stage::Expired)),
            // Who wants to hear of it late does not hear of it early.
            (940, 0.05, None),
            (951, 0.05, Some(Stage::BelowTenth)),
            (985, 0.01, None),
            (1000, 0.01, Some(Stage::Expired)),
        ] {
            assert_eq!(stage(at(0), at(1000), below, at(now)), expected, "{now} {below}");
        }
        // Not valid yet, and dates that make no sense.
        assert_eq!(stage(at(100), at(1000), 0.25, at(0)), None);
        assert_eq!(stage(at(1000), at(500), 0.25, at(0)), None);
        assert_eq!(stage(at(1000), at(500), 0.25, at(500)), Some(Stage::Expired));
    }

    #[test]
    fn older_by_more_than_chance() {
        assert!(is_older(at(500), at(500), at(1500)));
        assert!(!is_older(at(1495), at(500), at(1500)));
        assert!(!is_older(at(2000), at(500), at(1500)));
    }

    proptest! {
        #[test]
        fn it_only_gets_worse(lifetime in 1u64..100_000_000, a in 0u64..120_000_000, b in 0u64..120_000_000, below in 0.001f64..0.999) {
            let (sooner, later) = (a.min(b), a.max(b));
            let stage = |now| stage(at(0), at(lifetime), below, at(now));
            prop_assert!(stage(sooner) <= stage(later));
        }

        /// Every stage lasts for at least one look, unless the lifetime is shorter than any CA's.
        #[test]
        fn no_stage_is_slept_through(lifetime in 6_000u64..100_000_000) {
            let fiftieth = Duration::from_secs(lifetime) / 50;
            prop_assert!(pause(Some(Duration::from_secs(lifetime))) <= fiftieth);
        }
    }
}
