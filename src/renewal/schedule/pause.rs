//! Pauses after failures, and the jitter that keeps many installations from coming together (pure).

use std::time::Duration;

use super::{DAY, unit};

/// Pauses after the first, second, third and every further failure in a row, as the CAs advise.
const RETRY: [Duration; 4] =
    [Duration::from_secs(60), Duration::from_secs(600), Duration::from_secs(6000), DAY];

/// Pauses between tries to have a server take a certificate: its own trouble, so they stay short.
const DEPLOY_RETRY: [Duration; 4] =
    [Duration::from_secs(30), Duration::from_secs(120), Duration::from_secs(600), Duration::from_secs(3600)];

/// Longest pause that a CA's Retry-After can ask for. A moment further ahead was written by a clock that
/// was wrong.
pub const LONGEST_WAIT: Duration = Duration::from_secs(30 * 86_400);

/// Longest pause between tries to have a server take a certificate, and something for the jitter.
pub const LONGEST_DEPLOY_WAIT: Duration = Duration::from_secs(2 * 3600);

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
    table[place].mul_f64(1.0 + unit(jitter) / 10.0)
}

/// A number from 0 to below 1 that looks random and is the same whenever it is asked for: a lineage's
/// jitter and its place in every window, from its name and something of this installation's own (the
/// account's URL, say), so that two nodes with the same names do not order together.
pub fn jitter_of(seed: &str) -> f64 {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, seed.as_bytes());
    let number = hash.as_ref().iter().take(4).fold(0u32, |number, byte| number << 8 | u32::from(*byte));
    f64::from(number) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pauses_grow_to_a_day() {
        let minutes: Vec<_> = (0..7).map(|n| retry_after(n, 0.0).as_secs() / 60).collect();
        assert_eq!(minutes, [1, 1, 10, 100, 1440, 1440, 1440]);
        assert_eq!(retry_after(1, 1.0), Duration::from_secs(66));
    }

    #[test]
    fn jitter_is_level_and_stays() {
        let mut tenths = [0u32; 10];
        for i in 0..10_000 {
            tenths[(jitter_of(&format!("host{i}.example.net")) * 10.0) as usize] += 1;
        }
        assert!(tenths.iter().all(|count| (900..1100).contains(count)), "{tenths:?}");
        // Kept moments depend on it: another version of the program must not choose others.
        assert_eq!(jitter_of("example.net").to_string(), "0.24088619998656213");
    }

    proptest! {
        #[test]
        fn a_pause_keeps_its_bounds(failures in 0u32.., jitter in 0.0f64..=1.0) {
            let pause = retry_after(failures, jitter);
            prop_assert!(pause >= RETRY[0] && pause <= RETRY[3].mul_f64(1.1));
        }
    }
}
