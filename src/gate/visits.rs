//! Who came for a challenge, so that status and errors can say "the CA's validators reached us four
//! times" or "nobody came": the best evidence there is when a validation fails.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

pub use crate::challenge::Outcome;
use crate::hostname::Identifier;

/// How many visits are remembered, of those answered, of those that came late and of those refused each:
/// scanners, who come all year, push out each other and no validator.
const REMEMBERED: usize = 64;

/// How many visits of a kind are remembered and logged aloud in a second; the others are counted.
const PER_SECOND: u32 = 16;

/// One request for a challenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visit {
    /// When it was answered.
    pub at: SystemTime,
    /// The client, behind proxies that are trusted.
    pub client: IpAddr,
    /// The host that was asked for; an HTTP/1.0 client may not say.
    pub host: Option<Identifier>,
    /// What became of it.
    pub outcome: Outcome,
}

/// The last visits, and how many there were in all. Bounded in memory and in work whoever comes.
#[derive(Debug, Default)]
pub struct Visits(Mutex<Kinds>);

#[derive(Debug, Default)]
struct Kinds {
    answered: Record,
    late: Record,
    refused: Record,
}

#[derive(Debug, Default)]
struct Record {
    total: u64,
    recent: VecDeque<Visit>,
    second: Duration,
    in_second: u32,
}

impl Visits {
    /// Remembers a visit; false where there were so many within the second that it was only counted,
    /// and should not be logged either.
    pub fn record(&self, visit: Visit) -> bool {
        let mut kinds = self.lock();
        match visit.outcome {
            Outcome::Answered => kinds.answered.add(visit),
            Outcome::Late => kinds.late.add(visit),
            _ => kinds.refused.add(visit),
        }
    }

    /// How many challenges were answered since the start.
    pub fn answered(&self) -> u64 {
        self.lock().answered.total
    }

    /// How many came for a challenge within the hour after it was withdrawn, since the start.
    pub fn late(&self) -> u64 {
        self.lock().late.total
    }

    /// How many requests for challenges that never were ours were refused since the start.
    pub fn refused(&self) -> u64 {
        self.lock().refused.total
    }

    /// The remembered visits for a host since a moment, answered or not, oldest first.
    pub fn since(&self, host: &Identifier, from: SystemTime) -> Vec<Visit> {
        self.remembered(|visit| visit.at >= from && visit.host.as_ref() == Some(host))
    }

    /// All remembered visits, oldest first.
    pub fn recent(&self) -> Vec<Visit> {
        self.remembered(|_| true)
    }

    fn remembered(&self, wanted: impl Fn(&Visit) -> bool) -> Vec<Visit> {
        let kinds = self.lock();
        let all = kinds.answered.recent.iter().chain(&kinds.late.recent).chain(&kinds.refused.recent);
        let mut visits: Vec<Visit> = all.filter(|visit| wanted(visit)).cloned().collect();
        visits.sort_by_key(|visit| visit.at);
        visits
    }

    /// Every state in between is a valid one, so a panic elsewhere spoils nothing.
    fn lock(&self) -> MutexGuard<'_, Kinds> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    fn add(&mut self, visit: Visit) -> bool {
        self.total += 1;
        let since_epoch = visit.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let second = Duration::from_secs(since_epoch.as_secs());
        if second != self.second {
            (self.second, self.in_second) = (second, 0);
        }
        if self.in_second == PER_SECOND {
            return false;
        }
        self.in_second += 1;
        if self.recent.len() == REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back(visit);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
    }

    fn visit(millis: u64, host: &str, outcome: Outcome) -> Visit {
        Visit {
            at: at(millis),
            client: "192.0.2.1".parse().unwrap(),
            host: Some(host.parse().unwrap()),
            outcome,
        }
    }

    #[test]
    fn scanners_do_not_push_out_validators() {
        let visits = Visits::default();
        assert!(visits.record(visit(0, "a.net", Outcome::Answered)));
        for second in 1..1000 {
            assert!(visits.record(visit(second * 1000, "a.net", Outcome::UnknownToken)));
        }
        assert_eq!((visits.answered(), visits.refused()), (1, 999));
        let recent = visits.recent();
        assert_eq!(recent.len(), 1 + REMEMBERED);
        assert_eq!(recent[0].outcome, Outcome::Answered);
        assert_eq!(recent.last().unwrap().at, at(999_000));
    }

    #[test]
    fn who_comes_late_is_no_scanner() {
        let visits = Visits::default();
        assert!(visits.record(visit(0, "a.net", Outcome::Late)));
        assert_eq!((visits.answered(), visits.late(), visits.refused()), (0, 1, 0));
        assert_eq!(visits.recent(), [visit(0, "a.net", Outcome::Late)]);
    }

    #[test]
    fn a_flood_is_only_counted() {
        let visits = Visits::default();
        let remembered =
            (0..1000).filter(|millis| visits.record(visit(*millis, "a.net", Outcome::Answered))).count();
        assert_eq!(remembered, PER_SECOND as usize);
        assert_eq!(visits.answered(), 1000);
        assert!(visits.record(visit(500, "a.net", Outcome::NotAToken)), "the other kind has its own count");
        assert!(visits.record(visit(1000, "a.net", Outcome::Answered)), "a new second");
    }

    #[test]
    fn visits_of_one_host_in_order() {
        let visits = Visits::default();
        visits.record(visit(3, "a.net", Outcome::Answered));
        visits.record(visit(2, "a.net", Outcome::WrongHost));
        visits.record(visit(1, "a.net", Outcome::Answered));
        visits.record(visit(4, "b.net", Outcome::Answered));
        let found = visits.since(&"a.net".parse().unwrap(), at(2));
        assert_eq!(found, [visit(2, "a.net", Outcome::WrongHost), visit(3, "a.net", Outcome::Answered)]);
    }
}
