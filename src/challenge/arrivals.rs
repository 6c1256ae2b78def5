//! Who came for a challenge and what he got: the evidence that tells "nobody came" from "somebody came
//! and the CA still refuses". Bounded, whoever comes.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::{Purpose, Token};
use crate::hostname::Identifier;

/// How many arrivals of one challenge are kept; the others are counted. The first ones are the CA's: the
/// token is known to nobody else before.
pub(super) const KEPT: usize = 32;

/// How long a withdrawn token stays known.
const REMEMBERED_FOR: Duration = Duration::from_secs(3600);

/// How many withdrawn tokens stay known.
const REMEMBERED: usize = 1024;

/// One request for a challenge of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// When it was answered.
    pub at: SystemTime,
    /// The client, behind proxies that are trusted.
    pub client: IpAddr,
    /// The host that was asked for; an HTTP/1.0 client may not say.
    pub host: Option<Identifier>,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a request for a challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The key authorization was sent.
    Answered,
    /// The last part of the path cannot be a token.
    NotAToken,
    /// No challenge with that token is pending.
    UnknownToken,
    /// The challenge is pending, for other hosts.
    WrongHost,
    /// The client names no host, and tokens are bound to hosts.
    NoHost,
    /// The challenge was withdrawn within the last hour. The answer is that to an unknown token.
    Late,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Answered => "answered",
            Self::NotAToken => "not a token",
            Self::UnknownToken => "no such challenge is pending",
            Self::WrongHost => "that challenge is pending for other hosts",
            Self::NoHost => "the client named no host",
            Self::Late => "that challenge has been withdrawn",
        })
    }
}

/// The arrivals of one challenge: the first few, and how many there were.
#[derive(Debug, Default)]
pub(super) struct Log(Mutex<Arrived>);

#[derive(Debug, Default)]
struct Arrived {
    total: u64,
    kept: Vec<Arrival>,
}

impl Log {
    pub(super) fn add(&self, arrival: Arrival) {
        let mut arrived = lock(&self.0);
        arrived.total += 1;
        if arrived.kept.len() < KEPT {
            arrived.kept.push(arrival);
        }
    }

    pub(super) fn kept(&self) -> Vec<Arrival> {
        lock(&self.0).kept.clone()
    }

    pub(super) fn total(&self) -> u64 {
        lock(&self.0).total
    }
}

/// Tokens that were withdrawn a short while ago: who comes for one is late, and no scanner.
#[derive(Debug, Default)]
pub(super) struct Withdrawn(Mutex<Gone>);

#[derive(Debug, Default)]
struct Gone {
    by_token: HashMap<Token, Trace>,
    /// Oldest first. A token that was put again since has no trace, or a newer one.
    by_age: VecDeque<(SystemTime, Token)>,
}

#[derive(Debug)]
struct Trace {
    since: SystemTime,
    purpose: Purpose,
    log: Arc<Log>,
}

impl Withdrawn {
    /// Remembers a token whose challenge is withdrawn at `now`.
    pub(super) fn add(&self, token: Token, purpose: Purpose, now: SystemTime) {
        let mut gone = lock(&self.0);
        gone.by_token.insert(token.clone(), Trace { since: now, purpose, log: Arc::default() });
        gone.by_age.push_back((now, token));
        gone.forget(now);
    }

    /// Forgets a token whose challenge is pending again.
    pub(super) fn remove(&self, token: &Token) {
        lock(&self.0).by_token.remove(token);
    }

    /// The purpose that the token had, where it is still known at the moment of the arrival.
    pub(super) fn arrived(&self, token: &str, arrival: Arrival) -> Option<Purpose> {
        let gone = lock(&self.0);
        let trace = gone.by_token.get(token).filter(|trace| is_fresh(trace.since, arrival.at))?;
        trace.log.add(Arrival { outcome: Outcome::Late, ..arrival });
        Some(trace.purpose)
    }

    /// Who came late for `host`, oldest first.
    pub(super) fn late(&self, host: &Identifier, now: SystemTime) -> Vec<Arrival> {
        let gone = lock(&self.0);
        let fresh = gone.by_token.values().filter(|trace| is_fresh(trace.since, now));
        let orders = fresh.filter(|trace| trace.purpose == Purpose::Order);
        let mut late: Vec<Arrival> = orders
            .flat_map(|trace| trace.log.kept())
            .filter(|arrival| arrival.host.as_ref() == Some(host))
            .collect();
        late.sort_by_key(|arrival| arrival.at);
        late.truncate(KEPT);
        late
    }
}

/// A clock that was set back leaves it fresh: an hour is a bound, not a promise.
fn is_fresh(since: SystemTime, now: SystemTime) -> bool {
    now.duration_since(since).unwrap_or_default() < REMEMBERED_FOR
}

impl Gone {
    fn forget(&mut self, now: SystemTime) {
        while let Some((since, _)) = self.by_age.front()
            && (self.by_age.len() > REMEMBERED || !is_fresh(*since, now))
        {
            let Some((since, token)) = self.by_age.pop_front() else { return };
            if self.by_token.get(&token).is_some_and(|trace| trace.since == since) {
                self.by_token.remove(&token);
            }
        }
    }
}

/// Every state in between is a valid one, so a panic elsewhere spoils nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
    }

    fn arrival(seconds: u64) -> Arrival {
        Arrival {
            at: at(seconds),
            client: "192.0.2.1".parse().unwrap(),
            host: Some("a.net".parse().unwrap()),
            outcome: Outcome::UnknownToken,
        }
    }

    fn token(number: usize) -> Token {
        format!("token{number}").parse().unwrap()
    }

    #[test]
    fn the_first_arrivals_are_kept_and_all_are_counted() {
        let log = Log::default();
        (0..1000).for_each(|second| log.add(arrival(second)));
        assert_eq!(log.total(), 1000);
        assert_eq!(log.kept(), (0..KEPT as u64).map(arrival).collect::<Vec<_>>());
    }

    #[test]
    fn a_withdrawn_token_is_known_for_an_hour() {
        let withdrawn = Withdrawn::default();
        withdrawn.add(token(1), Purpose::Order, at(0));
        for (seconds, known) in [(0, true), (3599, true), (3600, false), (90_000, false)] {
            let seen = withdrawn.arrived("token1", arrival(seconds));
            assert_eq!(seen.is_some(), known, "after {seconds} s");
        }
        assert_eq!(withdrawn.arrived("token2", arrival(1)), None);
        let host = "a.net".parse().unwrap();
        assert_eq!(withdrawn.late(&host, at(3599)).len(), 2);
        assert!(withdrawn.late(&host, at(3599)).iter().all(|a| a.outcome == Outcome::Late));
        assert_eq!(withdrawn.late(&host, at(3600)), []);
        assert_eq!(withdrawn.late(&"b.net".parse().unwrap(), at(1)), []);
    }

    #[test]
    fn a_clock_that_is_set_back_forgets_nothing() {
        let withdrawn = Withdrawn::default();
        withdrawn.add(token(1), Purpose::Order, at(5000));
        assert!(withdrawn.arrived("token1", arrival(0)).is_some());
    }

    #[test]
    fn a_token_put_again_is_not_withdrawn_and_its_old_trace_takes_no_new_one_along() {
        let withdrawn = Withdrawn::default();
        withdrawn.add(token(1), Purpose::Order, at(0));
        withdrawn.remove(&token(1));
        assert_eq!(withdrawn.arrived("token1", arrival(1)), None);
        withdrawn.add(token(1), Purpose::Order, at(3000));
        withdrawn.add(token(2), Purpose::Order, at(3700));
        assert!(withdrawn.arrived("token1", arrival(3700)).is_some());
    }

    #[test]
    fn late_for_a_canary_is_nobodys_evidence() {
        let withdrawn = Withdrawn::default();
        withdrawn.add(token(1), Purpose::Canary, at(0));
        assert_eq!(withdrawn.arrived("token1", arrival(1)), Some(Purpose::Canary));
        assert_eq!(withdrawn.late(&"a.net".parse().unwrap(), at(1)), []);
    }

    proptest! {
        #[test]
        fn withdrawn_tokens_are_bounded(
            tokens in prop::collection::vec((0..1500_usize, any::<bool>()), 0..3000),
        ) {
            let withdrawn = Withdrawn::default();
            for (number, again) in tokens {
                withdrawn.add(token(number), Purpose::Order, at(number as u64 % 7));
                if again {
                    withdrawn.remove(&token(number));
                }
                let gone = lock(&withdrawn.0);
                prop_assert!(gone.by_age.len() <= REMEMBERED && gone.by_token.len() <= REMEMBERED);
            }
        }

        #[test]
        fn the_newest_are_the_ones_that_stay(count in 1..3000_usize) {
            let withdrawn = Withdrawn::default();
            (0..count).for_each(|number| withdrawn.add(token(number), Purpose::Order, at(0)));
            let oldest_known = count.saturating_sub(REMEMBERED);
            prop_assert!(withdrawn.arrived(token(oldest_known).as_str(), arrival(1)).is_some());
            if oldest_known > 0 {
                prop_assert!(withdrawn.arrived(token(oldest_known - 1).as_str(), arrival(1)).is_none());
            }
        }
    }
}
