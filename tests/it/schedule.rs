//! How level the orders of a large fleet are: what a CA sees of a hundred thousand certificates.

pub(crate) mod fleet;

use fleet::{Fleet, Start, Year};

const COUNT: u32 = 100_000;

/// Orders in a mean hour, when each certificate is renewed every 30 days less the mean jitter.
const MEAN: f64 = COUNT as f64 / (24.0 * 29.0);

/// The fullest hour of each month in a year.
fn fullest_hours(start: Start, ari: bool) -> Vec<f64> {
    let Year { per_hour, decisions } = Fleet::new(COUNT, start, ari).year();
    let fullest: Vec<u32> =
        per_hour.chunks(30 * 24).map(|month| month.iter().copied().max().unwrap_or(0)).collect();
    let total: u32 = per_hour.iter().sum();
    eprintln!(
        "{COUNT} certificates of 45 days, {start:?}, {} ARI: {total} orders and {decisions} decisions in a year, {} bytes a certificate; orders in the fullest hour of each month: {fullest:?}, in the mean hour: {MEAN:.0}",
        if ari { "with" } else { "without" },
        Fleet::BYTES_PER_CERTIFICATE,
    );
    let each = f64::from(total) / f64::from(COUNT);
    assert!((11.5..13.5).contains(&each), "{each} orders for a certificate");
    const { assert!(Fleet::BYTES_PER_CERTIFICATE <= 160) };
    fullest.into_iter().map(f64::from).collect()
}

#[test]
fn what_was_obtained_evenly_stays_level() {
    for ari in [false, true] {
        let fullest = fullest_hours(Start::Evenly, ari);
        assert!(fullest.iter().all(|most| *most <= MEAN * 1.6), "{fullest:?}");
    }
}

/// At the first renewal the jitter spreads them over 54 hours, at each further one over 54 more, until
/// they fill the month.
#[test]
fn what_came_in_one_hour_drifts_apart_by_its_jitter() {
    let fullest = fullest_hours(Start::SameHour, false);
    for (month, most) in [(0, 14.0), (2, 5.0), (5, 2.8), (11, 1.5)] {
        assert!(fullest[month] <= MEAN * most, "{month}: {fullest:?}");
    }
}

/// The CA's windows are 21.6 hours wide, and the moment in them is the CA's to spread: no fuller than its
/// width has it, and as each keeps its place in every window, they drift apart all the same.
#[test]
fn what_came_in_one_hour_drifts_apart_within_the_windows() {
    let fullest = fullest_hours(Start::SameHour, true);
    let width = f64::from(COUNT) / 21.6;
    for (month, most) in [(0, 1.1), (1, 1.1), (3, 0.5), (6, 0.25), (11, 0.125)] {
        assert!(fullest[month] <= width * most, "{month}: {fullest:?}");
    }
}
