//! Which names are ordered when some of them fail (pure): one dead name does not sink the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use super::schedule;
use crate::config::Partial;
use crate::hostname::Identifier;
use crate::store::Failing;

/// Orders that a name must have failed in a row before an emergency leaves it out: the first failure may
/// have been chance.
const KEEPS_FAILING: u32 = 2;

/// The part of the lifetime below which an emergency leaves names out.
const EMERGENCY: u32 = 10;

/// The names of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// Ordered; never empty where anything is wanted.
    pub with: Vec<Identifier>,
    /// Wanted, and left out.
    pub without: Vec<Identifier>,
}

/// The moment from which less than a tenth of the lifetime is left.
pub fn emergency_at((not_before, not_after): (SystemTime, SystemTime)) -> SystemTime {
    not_after - not_after.duration_since(not_before).unwrap_or_default() / EMERGENCY
}

/// Chooses among the `wanted` names. `condemned` are those that a preflight found certain to fail;
/// `retried` those that were left out before and are tried again now. Without a present certificate
/// nothing is an emergency: nobody loses what he never had, and a mistyped name must be seen.
pub fn choose(
    wanted: &[Identifier],
    failing: &BTreeMap<Identifier, Failing>,
    condemned: &BTreeSet<Identifier>,
    retried: &BTreeSet<Identifier>,
    partial: Partial,
    is_emergency: bool,
) -> Chosen {
    let is_left_out = |name: &Identifier| {
        let kept = failing.get(name);
        let failures = kept.map_or(0, |f| f.attempts.failures);
        let (is_dropped, is_condemned) = (kept.is_some_and(|f| f.dropped), condemned.contains(name));
        match partial {
            Partial::Never => false,
            _ if is_condemned && (is_dropped || partial == Partial::Always) => true,
            _ if retried.contains(name) => false,
            _ if is_dropped => true,
            Partial::Always => failures > 0,
            // A preflight may be wrong, so it stands for one failure and not for all of them.
            Partial::Emergency => is_emergency && failures + u32::from(is_condemned) >= KEEPS_FAILING,
        }
    };
    let (without, with): (Vec<_>, Vec<_>) = wanted.iter().cloned().partition(is_left_out);
    if with.is_empty() { Chosen { with: without, without: with } } else { Chosen { with, without } }
}

/// One more failure of a name; it is tried on by itself at its own pace where it was left out.
pub fn failed(kept: &mut Failing, error: &str, now: SystemTime, jitter: f64) {
    kept.attempts.failures = kept.attempts.failures.saturating_add(1);
    kept.attempts.last_error = Some(error.to_owned());
    kept.attempts.retry_at =
        Some(super::lineages::stamp(now + schedule::retry_after(kept.attempts.failures, jitter)));
}

/// The names that were left out and are to be tried again at `now`.
pub fn to_retry(
    wanted: &[Identifier],
    failing: &BTreeMap<Identifier, Failing>,
    now: SystemTime,
) -> BTreeSet<Identifier> {
    let is_due = |name: &&Identifier| {
        failing.get(*name).is_some_and(|f| f.dropped && f.attempts.retry_at.is_none_or(|at| is_due(at, now)))
    };
    wanted.iter().filter(is_due).cloned().collect()
}

/// The next moment at which a name that was left out is tried again.
pub fn next_retry(
    wanted: &[Identifier],
    failing: &BTreeMap<Identifier, Failing>,
    now: SystemTime,
) -> Option<SystemTime> {
    let moment = |name: &Identifier| {
        let kept = failing.get(name).filter(|f| f.dropped)?;
        let at = kept.attempts.retry_at?;
        Some(if is_due(at, now) { now } else { at.into() })
    };
    wanted.iter().filter_map(moment).min()
}

/// A moment further ahead than any pause was written by a clock that was wrong.
fn is_due(at: jiff::Timestamp, now: SystemTime) -> bool {
    let at = SystemTime::from(at);
    at <= now || at > now + schedule::LONGEST_WAIT
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::Attempts;

    fn name(text: &str) -> Identifier {
        text.parse().unwrap()
    }

    fn at(minutes: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + minutes * 60)
    }

    fn failing(rows: &[(&str, u32, bool)]) -> BTreeMap<Identifier, Failing> {
        let kept =
            |failures, dropped| Failing { dropped, attempts: Attempts { failures, ..Attempts::default() } };
        rows.iter().map(|(n, failures, dropped)| (name(n), kept(*failures, *dropped))).collect()
    }

    #[test]
    fn who_is_left_out() {
        use Partial::{Always, Emergency, Never};
        let dead = failing(&[("b.net", 1, false)]);
        let deader = failing(&[("b.net", 2, false)]);
        let dropped = failing(&[("b.net", 3, true)]);
        let all_dead = failing(&[("a.net", 5, false), ("b.net", 5, false)]);
        let none = failing(&[]);
        for (kept, condemned, retried, partial, emergency, without) in [
            (&none, &[][..], &[][..], Always, true, &[][..]),
            (&dead, &[], &[], Never, true, &[]),
            (&dead, &[], &[], Always, false, &["b.net"]),
            (&dead, &[], &[], Emergency, true, &[]),
            (&deader, &[], &[], Emergency, false, &[]),
            (&deader, &[], &[], Emergency, true, &["b.net"]),
            (&dropped, &[], &[], Emergency, false, &["b.net"]),
            (&dropped, &[], &["b.net"], Emergency, false, &[]),
            (&dropped, &["b.net"], &["b.net"], Emergency, false, &["b.net"]),
            (&dropped, &["b.net"], &["b.net"], Emergency, true, &["b.net"]),
            (&dropped, &[], &[], Never, false, &[]),
            (&none, &["b.net"], &[], Emergency, false, &[]),
            (&none, &["b.net"], &[], Emergency, true, &[]),
            (&dead, &["b.net"], &[], Emergency, true, &["b.net"]),
            (&none, &["b.net"], &[], Always, false, &["b.net"]),
            (&none, &["b.net"], &[], Never, true, &[]),
            (&all_dead, &[], &[], Always, true, &[]),
        ] {
            let wanted = [name("a.net"), name("b.net")];
            let set = |names: &[&str]| names.iter().map(|n| name(n)).collect::<BTreeSet<_>>();
            let chosen = choose(&wanted, kept, &set(condemned), &set(retried), partial, emergency);
            let wanted_without: Vec<_> = without.iter().map(|n| name(n)).collect();
            assert_eq!(chosen.without, wanted_without, "{kept:?} {condemned:?} {partial:?} {emergency}");
            assert_eq!(chosen.with.len() + chosen.without.len(), 2);
        }
    }

    #[test]
    fn a_name_that_was_left_out_is_tried_on_at_its_own_pace() {
        let wanted = [name("a.net"), name("b.net")];
        let mut kept = failing(&[("b.net", 0, true)]);
        let mut pauses = Vec::new();
        for _ in 0..5 {
            assert_eq!(to_retry(&wanted, &kept, at(10_000)), BTreeSet::from([name("b.net")]));
            let now = at(10_000);
            failed(kept.get_mut(&name("b.net")).unwrap(), "no", now, 0.0);
            let next = next_retry(&wanted, &kept, now).unwrap();
            assert!(to_retry(&wanted, &kept, now).is_empty());
            pauses.push(next.duration_since(now).unwrap().as_secs() / 60);
            kept.get_mut(&name("b.net")).unwrap().attempts.retry_at = None;
        }
        assert_eq!(pauses, [1, 10, 100, 1440, 1440]);
        // A clock far ahead wrote it: not to be waited for.
        let far = at(60 * 24 * 365);
        kept.get_mut(&name("b.net")).unwrap().attempts.retry_at = Some(far.try_into().unwrap());
        assert_eq!(to_retry(&wanted, &kept, at(0)).len(), 1);
        assert_eq!(next_retry(&wanted, &kept, at(0)), Some(at(0)));
    }

    #[test]
    fn an_emergency_is_the_last_tenth() {
        assert_eq!(emergency_at((at(0), at(100))), at(90));
        assert_eq!(emergency_at((at(5), at(0))), at(0));
    }
}
