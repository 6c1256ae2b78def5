//! Refusals and what is left, in plain words.

use std::time::Duration;

use super::charge::{Ask, Claim};
use super::limits::{HOUR, Limits, MINUTE};
use super::{Left, Obstacle, Refusal, file, moment};
use crate::store::BucketKind;
use crate::words::rough;

/// What stands in the way of asking a CA.
pub(super) enum Seen<'a> {
    Bucket { claim: &'a Claim, debt: i64 },
    RetryAfter,
    Unknown,
    NoRoom,
}

/// What is left of an identifier's failed authorizations.
pub(super) struct Failures {
    pub(super) automatic: i64,
    pub(super) in_reserve: i64,
    /// How long until there is one more; 0 where none is used.
    pub(super) next: i64,
    /// How long the bucket takes to fill.
    pub(super) period: i64,
}

pub(super) fn refusal(seen: &Seen<'_>, ask: &Ask<'_>, limits: &Limits, until: i64, now: i64) -> Refusal {
    let at = clock_time(until, now);
    let issuer = ask.issuer;
    let (obstacle, says) = match seen {
        Seen::Bucket { claim, debt } => {
            (Obstacle::Bucket(claim.key.bucket), used_up(claim, *debt, limits, ask, &at))
        }
        Seen::RetryAfter => (
            Obstacle::RetryAfter,
            format!("{issuer} has asked to be left alone until {at}, and `--force` does not change that"),
        ),
        Seen::Unknown => (
            Obstacle::Unknown,
            format!(
                "the record of what was asked of the CA (ledger.json) was damaged or lost, so its limits are taken as used up until {at}, the reserve for `--force` included"
            ),
        ),
        Seen::NoRoom => (
            Obstacle::NoRoom,
            format!(
                "the ledger has no room for another attempt: some is free again at {at}; fewer names or more time between orders help"
            ),
        ),
    };
    Refusal { until: moment(until), obstacle, says }
}

fn used_up(claim: &Claim, debt: i64, limits: &Limits, ask: &Ask<'_>, at: &str) -> String {
    let (burst, of, issuer) = (claim.limit.burst, &claim.key.of, ask.issuer);
    let (left, next) = match (claim.limit.available(debt), ask.certificates) {
        // A pair is ordered as a whole.
        (left @ 1.., 2..) => (
            format!("{left} of them is left, and a pair takes {}", ask.certificates),
            "there is room for both at",
        ),
        _ => ("they are used up".to_owned(), "the next one at"),
    };
    let period = within(claim.limit.span());
    match claim.key.bucket {
        BucketKind::Failures if ask.force || limits.reserve() == 0 => {
            format!(
                "{} of {of} {period} are used up: {issuer} takes the next one at {at}, with `--force` too",
                all_failures(burst)
            )
        }
        BucketKind::Failures => {
            let available = claim.limit.available(debt);
            let used = burst - available;
            let kept = match available {
                0 => "the reserve too".to_owned(),
                1 => "1 is kept in reserve for you".to_owned(),
                n => format!("{n} are kept in reserve for you"),
            };
            let force = if available == 0 { "" } else { "; `renew --force` may use the reserve" };
            format!(
                "{used} of {burst} failed validations of {of} {period} are used and {kept}: next free at {at}{force}"
            )
        }
        BucketKind::Unattended => {
            let pause = rough(duration(claim.limit.every));
            format!(
                "validations of {of} may fail {burst} times and then once in {pause} while nobody looks, and that is used up: next free at {at}; `renew --force` need not wait"
            )
        }
        BucketKind::FailuresInARow => format!(
            "{burst} validations of {of} have failed in a row, and {issuer} pauses such a name: mend the cause (`wicketgate check` looks for it), and lift the pause where the CA's last answer says; next try at {at}"
        ),
        BucketKind::Set => format!(
            "{issuer} signs {burst} certificates for exactly the same {} {period}, and {left}: {next} {at}",
            names(ask.identifiers.len())
        ),
        BucketKind::RegisteredDomain => {
            format!("{issuer} signs {burst} certificates below {of} {period}, and {left}: {next} {at}")
        }
        BucketKind::Orders => {
            format!("{issuer} takes {burst} new orders of an account {period}, and {left}: {next} {at}")
        }
        BucketKind::Accounts => {
            format!(
                "{issuer} makes {burst} accounts for one address {period}, and they are used up: the next one at {at}"
            )
        }
    }
}

/// What is left, in a few words; `waits_until` is the CA's own word, or ours.
pub(super) fn left(worst: Option<Failures>, waits_until: Option<i64>, now: i64) -> Left {
    let Some(worst) = worst else {
        let says = match waits_until {
            Some(until) => format!("none before {}, as the CA has asked", clock_time(until, now)),
            None => "no limit".to_owned(),
        };
        let automatic = if waits_until.is_some() { 0 } else { u32::MAX };
        return Left { automatic, in_reserve: 0, next_free: waits_until.map(moment), says };
    };
    if let Some(until) = waits_until {
        let until = until.max(if worst.automatic == 0 { now + worst.next } else { now });
        let says = format!("none before {}", clock_time(until, now));
        return Left { automatic: 0, in_reserve: 0, next_free: Some(moment(until)), says };
    }
    let next = (worst.next > 0).then_some(now + worst.next);
    let mut says = format!("{} left {}", worst.automatic, within(worst.period));
    if worst.automatic == 0 && worst.in_reserve > 0 {
        says.push_str(&format!(" and {} in reserve for `renew --force`", worst.in_reserve));
    }
    if let Some(next) = next {
        says.push_str(&format!(", next free {}", clock_time(next, now)));
    }
    let count = |n: i64| u32::try_from(n).unwrap_or(0);
    Left {
        automatic: count(worst.automatic),
        in_reserve: count(worst.in_reserve),
        next_free: next.map(moment),
        says,
    }
}

fn all_failures(burst: i64) -> String {
    if burst == 1 {
        "the only failed validation".to_owned()
    } else {
        format!("all {burst} failed validations")
    }
}

fn names(count: usize) -> String {
    if count == 1 { "name".to_owned() } else { format!("{count} names") }
}

fn within(period: i64) -> String {
    if period == HOUR { "this hour".to_owned() } else { format!("in {}", rough(duration(period))) }
}

fn duration(milliseconds: i64) -> Duration {
    Duration::from_millis(milliseconds.max(0).unsigned_abs())
}

/// The full minute from which on it holds, with its day unless that is today.
fn clock_time(at: i64, now: i64) -> String {
    let minute = (at + MINUTE - 1).div_euclid(MINUTE) * MINUTE;
    let (at, now) = (file::stamp(minute), file::stamp(now));
    let is_today = at.strftime("%F").to_string() == now.strftime("%F").to_string();
    at.strftime(if is_today { "%H:%M UTC" } else { "%F %H:%M UTC" }).to_string()
}
