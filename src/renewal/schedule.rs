//! When a certificate is due (pure): early enough that a failure can be mended, never twice for one cause,
//! and not at the moment when everybody else's is.
//!
//! # The moment
//! - With renewal information (ARI, RFC 9773): the moment chosen in the CA's window ([`Window`]). One in
//!   the past means now.
//! - Without: when 1/3 of the lifetime is left, 1/2 of one below 10 days, and up to 1/20 of the lifetime
//!   before that, by the certificate's jitter.
//! - In any case, whatever the window says and however long the CA has not been reached: when half of that
//!   is left (the backstop).
//!
//! # Against storms
//! - A certificate is used for at least a quarter of what was left when it came, so that neither a CA that
//!   dates them back nor a clock that is off causes one order after the other.
//! - A window may cut that short, as the CA asks for a revoked certificate to be replaced, but not again
//!   and again: [`patience`] grants one early replacement, and then one order in a quarter of the lifetime.
//! - A certificate that has ended, or not begun, at the moment it comes shows that this clock and the CA's
//!   disagree. Its dates are then read as if it had begun when it came: a clock that is years off still
//!   measures how long something has been used.
//! - A moment of the past that lies in the future was written by a clock that was wrong, and is not
//!   believed.
//!
//! # How level the orders get
//! The jitter is the same for all certificates of a lineage, so their periods differ, and what began
//! together drifts apart in proportion to the generations. `tests/it/schedule.rs` has the figures.

use std::time::{Duration, SystemTime};

mod pause;
mod reason;
mod window;

pub use pause::{LONGEST_DEPLOY_WAIT, LONGEST_WAIT, deploy_retry_after, jitter_of, retry_after};
pub use reason::{Reason, Why};
pub use window::{Window, ask_again, choose, is_time_to_ask, keep_or_choose};

const DAY: Duration = Duration::from_secs(86_400);

/// What a jitter of 1 moves a moment ahead, as a part of the lifetime: enough for a herd to lose itself
/// within a year, and short of what it costs in orders (one in fourteen).
const JITTER: u32 = 20;

/// Least time between a certificate and its replacement, whatever their dates are.
const SHORTEST_USE: Duration = Duration::from_secs(10);

/// What is known about a lineage when it is decided.
#[derive(Debug, Clone, Copy, Default)]
pub struct Known<'a> {
    /// Start and end of the live certificate's validity.
    pub validity: Option<(SystemTime, SystemTime)>,
    /// When it was obtained.
    pub obtained_at: Option<SystemTime>,
    /// What [`patience`] said then. Without it no window cuts a certificate's use short.
    pub patience: Option<SystemTime>,
    /// Why the live certificate does not serve the present wish (another name, key type or issuer).
    pub unfit: Option<&'a str>,
    /// The CA's window for the live certificate, however old the answer is. One for the certificate
    /// before it must be forgotten.
    pub window: Option<Window>,
    /// The CA's `explanationURL` for it.
    pub explanation: Option<&'a str>,
    /// From 0 to 1 and the same at each decision: see [`jitter_of`].
    pub jitter: f64,
    /// Failures in a row.
    pub failures: u32,
    /// The earliest moment for the next attempt after them.
    pub retry_at: Option<SystemTime>,
}

/// What to do about a lineage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Order now, for this reason.
    Order(Reason),
    /// Nothing to do before this moment.
    Wait {
        /// The moment.
        at: SystemTime,
        /// What makes it this one.
        why: Why,
    },
    /// It is due, but not before this moment.
    Held {
        /// The moment.
        at: SystemTime,
        /// What makes it this one.
        why: Why,
    },
}

/// Decides about one lineage at the moment `now`.
pub fn decide(known: &Known<'_>, now: SystemTime) -> Decision {
    let reason = match (known.validity, known.unfit) {
        (None, _) => Reason::NoCertificate,
        (Some(_), Some(unfit)) => Reason::Unfit(unfit.to_owned()),
        (Some(validity), None) => {
            let reading = Reading::new(validity, known.obtained_at, now);
            let (at, why) = due(known, &reading);
            if now < at {
                return Decision::Wait { at, why };
            }
            match (reading.not_after.duration_since(now), why) {
                (Err(_), _) => Reason::Ended,
                (Ok(left), _) if left.is_zero() => Reason::Ended,
                (Ok(left), Why::Backstop) => Reason::Backstop { left },
                (Ok(_), _) if known.window.is_some() => {
                    Reason::Window { explanation: known.explanation.map(str::to_owned) }
                }
                (Ok(left), _) => Reason::Fraction { left },
            }
        }
    };
    match known.retry_at {
        Some(at) if now < at && at <= later(now, LONGEST_WAIT) => {
            Decision::Held { at, why: Why::Backoff { failures: known.failures } }
        }
        _ => Decision::Order(reason),
    }
}

/// The moment a certificate is due where the CA suggests none: see the module's description.
pub fn renew_at(not_before: SystemTime, not_after: SystemTime, jitter: f64) -> SystemTime {
    let lifetime = span(not_before, not_after);
    ahead(not_after, left_when_due(lifetime), lifetime, jitter).max(not_before)
}

/// What is to be kept as [`Known::patience`] of a certificate that has just come, from what was kept of
/// the one before it: the end of its quarter, later by the quarter that an early replacement has cut short.
pub fn patience(
    before: Option<SystemTime>,
    obtained_at: SystemTime,
    not_before: SystemTime,
    not_after: SystemTime,
) -> SystemTime {
    let quarter = Reading::new((not_before, not_after), Some(obtained_at), obtained_at).quarter(obtained_at);
    let used = later(obtained_at, quarter);
    // Not more than one quarter is owed: not by many orders by hand, and not by a clock that was ahead.
    let owed = before.unwrap_or(obtained_at).clamp(obtained_at, used);
    later(owed, quarter)
}

/// The moment it is due, and what makes it this one.
fn due(known: &Known<'_>, reading: &Reading) -> (SystemTime, Why) {
    let Reading { not_before, not_after, .. } = *reading;
    let lifetime = span(not_before, not_after);
    let used = reading.came.map_or(SystemTime::UNIX_EPOCH, |came| later(came, reading.quarter(came)));
    let Some(window) = known.window else {
        let fraction = renew_at(not_before, not_after, known.jitter);
        return if fraction < used { (used, Why::InUseYet) } else { (fraction, Why::Fraction) };
    };
    // One that was about due when it came tells of a clock that is ahead, not of a CA in need.
    let young = |came: &SystemTime| *came < renew_at(not_before, not_after, 1.0);
    let replaceable = match (reading.came.filter(young), known.patience) {
        (Some(came), Some(patience)) => earlier(patience, reading.quarter(came)).clamp(came, used.max(came)),
        _ => used,
    };
    let chosen = reading.place(window.chosen);
    let backstop = ahead(not_after, left_when_due(lifetime) / 2, lifetime, known.jitter).max(used);
    match chosen.max(replaceable) {
        at if backstop < at => (backstop, Why::Backstop),
        at if chosen < replaceable => (at, Why::InUseYet),
        at => (at, Why::RenewalWindow),
    }
}

fn left_when_due(lifetime: Duration) -> Duration {
    if lifetime < 10 * DAY { lifetime / 2 } else { lifetime / 3 }
}

/// `left` before the end, or as much earlier as the jitter says.
fn ahead(not_after: SystemTime, left: Duration, lifetime: Duration, jitter: f64) -> SystemTime {
    earlier(not_after, left + (lifetime / JITTER).mul_f64(unit(jitter)))
}

/// A certificate's dates by this clock.
struct Reading {
    not_before: SystemTime,
    not_after: SystemTime,
    /// When it was obtained, where that can be believed.
    came: Option<SystemTime>,
    /// Where the clocks disagree: its start by the CA's clock.
    start_there: Option<SystemTime>,
}

impl Reading {
    fn new(
        (not_before, not_after): (SystemTime, SystemTime),
        obtained_at: Option<SystemTime>,
        now: SystemTime,
    ) -> Self {
        let came = obtained_at.filter(|at| *at <= now);
        let lifetime = span(not_before, not_after);
        match came {
            Some(at) if at >= not_after || (at < not_before && now < not_before) => {
                Self { not_before: at, not_after: later(at, lifetime), came, start_there: Some(not_before) }
            }
            _ => Self { not_before, not_after, came, start_there: None },
        }
    }

    /// A moment that the CA named.
    fn place(&self, moment: SystemTime) -> SystemTime {
        let Some(start) = self.start_there else { return moment };
        match moment.duration_since(start) {
            Ok(after) => later(self.not_before, after),
            Err(before) => earlier(self.not_before, before.duration()),
        }
    }

    /// How long it is used at least. Where little was left when it came, a quarter of that would make
    /// a storm: then a sixteenth of the lifetime, or a day.
    fn quarter(&self, came: SystemTime) -> Duration {
        let lifetime = span(self.not_before, self.not_after);
        let left = span(came, self.not_after).min(lifetime);
        (left / 4).max((lifetime / 16).clamp(SHORTEST_USE, DAY))
    }
}

/// From one moment to a later one; nothing where it is not later.
fn span(from: SystemTime, to: SystemTime) -> Duration {
    to.duration_since(from).unwrap_or_default()
}

/// A moment as far ahead as dates go is as good as one beyond.
fn later(moment: SystemTime, by: Duration) -> SystemTime {
    moment.checked_add(by).unwrap_or(moment)
}

fn earlier(moment: SystemTime, by: Duration) -> SystemTime {
    moment.checked_sub(by).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// A random number or a jitter, made to keep its bounds.
fn unit(number: f64) -> f64 {
    if number.is_nan() { 0.0 } else { number.clamp(0.0, 1.0) }
}

#[cfg(test)]
mod clocks;
#[cfg(test)]
mod tests;
