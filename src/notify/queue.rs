//! Which notice goes out on which way, and when: pure, with the time passed in.
//!
//! A notice is admitted once for its cause within the quiet period, goes out on every configured way, and
//! is tried again on each way by itself, at growing intervals, until it has arrived or is too old to be
//! worth telling. Number and age of everything kept are bounded. A clock that was set back neither mutes
//! nor holds up anything for longer than the time in question.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::store::outbox::{Channel, Kind, Letter, Notice, Outbox, Told, Tries};

/// Most notices on their way; the oldest goes when one more comes.
pub const MAX_LETTERS: usize = 100;
/// How long a notice is tried.
pub const MAX_AGE: Duration = Duration::from_secs(3 * 86_400);
/// Most causes remembered; the oldest is forgotten when one more comes.
pub const MAX_TOLD: usize = 2000;

/// Waiting times after failed tries: a network that hiccups is asked again at once, a server that is
/// being repaired a few times an hour, and one that is gone a few times a day. The last one repeats.
const INTERVALS: [Duration; 6] = [
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_secs(2 * 60),
    Duration::from_secs(10 * 60),
    Duration::from_secs(60 * 60),
    Duration::from_secs(4 * 60 * 60),
];

/// What became of a notice.
#[derive(Debug, Clone, PartialEq)]
pub enum Admission {
    /// It goes out; older ones that had to give way are told.
    Posted {
        /// What will not be tried any more.
        given_up: Vec<Letter>,
    },
    /// The same cause was told within the quiet period.
    Quiet,
    /// There is no way to go out on.
    NoWay,
}

/// Takes a notice for all of `ways`, unless its cause was told within `quiet`. `id` tells it from others.
pub fn admit(
    outbox: &mut Outbox,
    notice: &Notice,
    ways: &[Channel],
    quiet: Duration,
    now: Timestamp,
    id: u64,
) -> Admission {
    if ways.is_empty() {
        return Admission::NoWay;
    }
    outbox.told.retain(|told| is_within(told.at, now, quiet));
    let is_same = |told: &Told| {
        told.kind == notice.kind && told.certificate == notice.certificate && told.cause == notice.cause
    };
    if outbox.told.iter().any(is_same) {
        return Admission::Quiet;
    }
    outbox.told.push(Told {
        kind: notice.kind,
        certificate: notice.certificate.clone(),
        cause: notice.cause.clone(),
        at: now,
    });
    let surplus = outbox.told.len().saturating_sub(MAX_TOLD);
    outbox.told.drain(..surplus);
    let ways = ways.iter().map(|way| (*way, Tries::default())).collect();
    outbox.letters.push(Letter { id, posted_at: now, notice: notice.clone(), ways });
    let surplus = outbox.letters.len().saturating_sub(MAX_LETTERS);
    Admission::Posted { given_up: outbox.letters.drain(..surplus).collect() }
}

/// Ends the quiet of what is mended: the next failure is told at once. Without a cause every one of that
/// kind and certificate. Tells whether anything was quiet.
pub fn mend(outbox: &mut Outbox, kind: Kind, certificate: Option<&str>, cause: Option<&str>) -> bool {
    let before = outbox.told.len();
    outbox.told.retain(|told| {
        told.kind != kind
            || told.certificate.as_deref() != certificate
            || cause.is_some_and(|cause| told.cause != cause)
    });
    outbox.told.len() < before
}

/// Removes what is too old to be told and what waits for ways that are configured no more; what is given
/// up because of its age is returned.
pub fn tidy(outbox: &mut Outbox, ways: &[Channel], now: Timestamp) -> Vec<Letter> {
    for letter in &mut outbox.letters {
        letter.ways.retain(|way, _| ways.contains(way));
    }
    outbox.letters.retain(|letter| !letter.ways.is_empty());
    let is_old = |letter: &mut Letter| !is_within(letter.posted_at, now, MAX_AGE);
    outbox.letters.extract_if(.., is_old).collect()
}

/// What is to be done next on one way.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// Deliver this one.
    Deliver(Box<Letter>),
    /// Wait until that moment, or until there is something new.
    Wait(Timestamp),
    /// Wait until there is something new.
    Idle,
}

/// The letter to deliver now on a way: one that waits for its first try before those that failed, the
/// oldest of them first, so that one that never arrives does not hold up the others.
pub fn next(outbox: &Outbox, way: Channel, now: Timestamp) -> Next {
    let waiting = outbox.letters.iter().filter_map(|letter| Some((letter, letter.ways.get(&way)?)));
    let first = waiting.min_by_key(|(_, tries)| tries.retry_at.map(|at| bounded(at, now)));
    match first {
        None => Next::Idle,
        Some((letter, tries)) => match tries.retry_at.map(|at| bounded(at, now)) {
            Some(at) if at > now => Next::Wait(at),
            _ => Next::Deliver(Box::new(letter.clone())),
        },
    }
}

/// A letter has arrived on a way.
pub fn arrived(outbox: &mut Outbox, id: u64, way: Channel) {
    for letter in outbox.letters.iter_mut().filter(|letter| letter.id == id) {
        letter.ways.remove(&way);
    }
    outbox.letters.retain(|letter| !letter.ways.is_empty());
}

/// A try has failed; when the next one will be, if there is a next one. `jitter` is between 0 and 1.
pub fn failed(
    outbox: &mut Outbox,
    id: u64,
    way: Channel,
    error: &str,
    now: Timestamp,
    jitter: f64,
) -> Option<Timestamp> {
    let letter = outbox.letters.iter_mut().find(|letter| letter.id == id)?;
    let tries = letter.ways.get_mut(&way)?;
    tries.failures = tries.failures.saturating_add(1);
    let retry_at = later(now, interval(tries.failures, jitter));
    tries.retry_at = Some(retry_at);
    tries.last_error = Some(error.to_owned());
    Some(retry_at)
}

/// How long to wait after that many failures in a row; up to a quarter more by `jitter` from 0 to 1, so
/// that many that failed together do not come back together.
pub fn interval(failures: u32, jitter: f64) -> Duration {
    let place = (failures.max(1) as usize - 1).min(INTERVALS.len() - 1);
    INTERVALS[place].mul_f64(1.0 + jitter.clamp(0.0, 1.0) / 4.0)
}

/// Whether less than `span` lies between two moments, whichever is the earlier one.
fn is_within(a: Timestamp, b: Timestamp, span: Duration) -> bool {
    a.duration_since(b).unsigned_abs() < span
}

/// A moment that no clock set back can have put further away than the longest interval.
fn bounded(at: Timestamp, now: Timestamp) -> Timestamp {
    at.min(later(now, interval(u32::MAX, 1.0)))
}

fn later(now: Timestamp, by: Duration) -> Timestamp {
    let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
    now.checked_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
