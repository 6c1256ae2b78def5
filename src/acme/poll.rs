//! How long to wait before the CA is asked again (pure).

use std::time::{Duration, SystemTime};

/// First pause: an order is usually ready within tens of milliseconds.
const FIRST: Duration = Duration::from_millis(20);
/// Longest pause of our own choosing.
const LONGEST: Duration = Duration::from_secs(5);
/// Longest pause that a CA's Retry-After can make us take while an order is open.
const LONGEST_ASKED: Duration = Duration::from_secs(120);

/// The pause before poll number `attempt` (0 first): what the CA asked for, else 20 ms growing by a quarter
/// each time up to 5 s.
pub(super) fn pause(attempt: u32, asked: Option<SystemTime>, now: SystemTime) -> Duration {
    match asked.map(|until| until.duration_since(now).unwrap_or_default()) {
        Some(asked) => asked.clamp(FIRST, LONGEST_ASKED),
        None => FIRST.mul_f64(1.25_f64.powi(attempt.min(30).cast_signed())).min(LONGEST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_from_20_ms_to_5_s() {
        let now = SystemTime::UNIX_EPOCH;
        let pauses: Vec<_> = (0..40).map(|n| pause(n, None, now)).collect();
        assert_eq!(pauses[0], FIRST);
        assert!(pauses.windows(2).all(|p| p[0] <= p[1]));
        assert_eq!(pauses[39], LONGEST);
        assert!(pauses[..8].iter().sum::<Duration>() < Duration::from_secs(1));
    }

    #[test]
    fn the_cas_wish_comes_first_within_bounds() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        for (ahead, wanted) in [(3, Duration::from_secs(3)), (86_400, LONGEST_ASKED), (0, FIRST)] {
            assert_eq!(pause(9, Some(now + Duration::from_secs(ahead)), now), wanted);
        }
        assert_eq!(pause(9, Some(now - Duration::from_secs(5)), now), FIRST);
    }
}
