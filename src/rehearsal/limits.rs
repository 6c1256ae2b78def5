//! The limits of a public CA, really kept: so that a test can prove that a client never meets them.
//!
//! Each is a bucket that fills again drop by drop, held as one moment: the one at which it will be full
//! again. Pure: the time is an argument.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, SystemTime};

use crate::hostname::Identifier;

/// How many buckets are kept; the ones nearest to full go first.
const MOST: usize = 50_000;

/// One limit: so many at once, and one more each `refill`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// How many at once.
    pub burst: u32,
    /// How long until one more.
    pub refill: Duration,
}

/// The limits of a CA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimits {
    /// Failed authorizations for each identifier and account; looked at by new orders.
    pub failed_authorizations: RateLimit,
    /// Certificates for each exact set of identifiers, whoever orders them.
    pub exact_set: RateLimit,
    /// Certificates for each registered domain, unless the same set has had one before.
    pub registered_domain: RateLimit,
    /// New orders of each account, unless the same set has had a certificate before.
    pub new_orders: RateLimit,
    /// New accounts; all clients of the embedded CA are one machine.
    pub new_accounts: RateLimit,
}

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

impl RateLimits {
    /// Let's Encrypt's in 2026. What renews with `replaces` is exempt from all but the last.
    pub const LETS_ENCRYPT: Self = Self {
        failed_authorizations: RateLimit { burst: 5, refill: MINUTE.saturating_mul(12) },
        exact_set: RateLimit { burst: 5, refill: HOUR.saturating_mul(34) },
        registered_domain: RateLimit { burst: 50, refill: MINUTE.saturating_mul(202) },
        new_orders: RateLimit { burst: 300, refill: Duration::from_secs(36) },
        new_accounts: RateLimit { burst: 10, refill: MINUTE.saturating_mul(18) },
    };

    fn of(&self, subject: &Subject) -> RateLimit {
        match subject {
            Subject::Failures(..) => self.failed_authorizations,
            Subject::Set(_) => self.exact_set,
            Subject::Domain(_) => self.registered_domain,
            Subject::Orders(_) => self.new_orders,
            Subject::Accounts => self.new_accounts,
        }
    }
}

/// Whose bucket.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Subject {
    Failures(u64, Identifier),
    Set(BTreeSet<Identifier>),
    Domain(String),
    Orders(u64),
    Accounts,
}

impl Subject {
    /// The registered domains of those identifiers; addresses have none.
    pub(super) fn domains(identifiers: &[Identifier]) -> BTreeSet<String> {
        let names = identifiers.iter().filter_map(|identifier| match identifier {
            Identifier::Dns(name) => Some(name.as_str()),
            Identifier::Ip(_) => None,
        });
        names.map(|name| psl::domain_str(name).unwrap_or(name).to_owned()).collect()
    }

    /// In Let's Encrypt's words.
    fn words(&self, burst: u32) -> String {
        match self {
            Self::Failures(_, identifier) => {
                format!("too many failed authorizations ({burst}) for \"{identifier}\"")
            }
            Self::Set(_) => {
                format!("too many certificates ({burst}) already issued for this exact set of identifiers")
            }
            Self::Domain(domain) => {
                format!("too many certificates ({burst}) already issued for \"{domain}\"")
            }
            Self::Orders(_) => format!("too many new orders ({burst}) from this account"),
            Self::Accounts => format!("too many registrations ({burst}) from this IP address"),
        }
    }
}

/// A limit that was met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Limited {
    /// In Let's Encrypt's words, without the moment.
    pub(super) detail: String,
    /// How long until it would pass.
    pub(super) wait: Duration,
}

/// All buckets that are not full.
#[derive(Debug, Default)]
pub(super) struct Buckets(HashMap<Subject, SystemTime>);

impl Buckets {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether there is a drop left for each; nothing is taken.
    pub(super) fn check(
        &self,
        limits: &RateLimits,
        subjects: &[Subject],
        now: SystemTime,
    ) -> Result<(), Limited> {
        let waits = subjects.iter().filter_map(|subject| {
            let limit = limits.of(subject);
            let wait = self.wait(limit, subject, now)?;
            Some(Limited { detail: subject.words(limit.burst), wait })
        });
        waits.max_by_key(|limited| limited.wait).map_or(Ok(()), Err)
    }

    /// Takes a drop from each that has one.
    pub(super) fn spend(&mut self, limits: &RateLimits, subjects: Vec<Subject>, now: SystemTime) {
        for subject in subjects {
            let limit = limits.of(&subject);
            if self.wait(limit, &subject, now).is_some() {
                continue;
            }
            self.make_room(now);
            let full_again = self.0.entry(subject).or_insert(now);
            *full_again = (*full_again).max(now) + limit.refill;
        }
    }

    /// How long until there is a drop, if there is none. A bucket of none never has one.
    fn wait(&self, limit: RateLimit, subject: &Subject, now: SystemTime) -> Option<Duration> {
        if limit.burst == 0 {
            return Some(limit.refill);
        }
        let full_again = (*self.0.get(subject)?).max(now);
        let missing = full_again.duration_since(now).unwrap_or_default();
        let room = limit.refill.saturating_mul(limit.burst - 1);
        missing.checked_sub(room).filter(|wait| !wait.is_zero())
    }

    fn make_room(&mut self, now: SystemTime) {
        if self.0.len() < MOST {
            return;
        }
        self.0.retain(|_, full_again| *full_again > now);
        while self.0.len() >= MOST
            && let Some(subject) =
                self.0.iter().min_by_key(|(_, at)| **at).map(|(subject, _)| subject.clone())
        {
            self.0.remove(&subject);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;
    const LIMITS: RateLimits = RateLimits::LETS_ENCRYPT;

    fn failures(account: u64) -> Subject {
        Subject::Failures(account, "a.example".parse().unwrap())
    }

    #[test]
    fn five_failures_are_too_many_until_one_is_forgotten() {
        let mut buckets = Buckets::default();
        for spent in 0..5 {
            assert_eq!(buckets.check(&LIMITS, &[failures(1)], NOW), Ok(()), "{spent}");
            buckets.spend(&LIMITS, vec![failures(1)], NOW);
        }
        let limited = buckets.check(&LIMITS, &[failures(1)], NOW + MINUTE).unwrap_err();
        assert_eq!(limited.wait, 11 * MINUTE);
        assert_eq!(limited.detail, "too many failed authorizations (5) for \"a.example\"");
        assert_eq!(buckets.check(&LIMITS, &[failures(2)], NOW), Ok(()));
        assert_eq!(buckets.check(&LIMITS, &[failures(1)], NOW + 12 * MINUTE), Ok(()));
        buckets.spend(&LIMITS, vec![failures(1)], NOW + 12 * MINUTE);
        assert!(buckets.check(&LIMITS, &[failures(1)], NOW + 12 * MINUTE).is_err());
    }

    #[test]
    fn the_longest_wait_is_told() {
        let mut buckets = Buckets::default();
        let limits = RateLimits { new_orders: RateLimit { burst: 1, refill: HOUR }, ..LIMITS };
        let subjects = vec![Subject::Orders(1), Subject::Accounts];
        let limits = RateLimits { new_accounts: RateLimit { burst: 1, refill: MINUTE }, ..limits };
        buckets.spend(&limits, subjects.clone(), NOW);
        let limited = buckets.check(&limits, &subjects, NOW).unwrap_err();
        assert_eq!((limited.wait, limited.detail.contains("new orders")), (HOUR, true));
        let none = RateLimits { new_orders: RateLimit { burst: 0, refill: HOUR }, ..LIMITS };
        assert!(Buckets::default().check(&none, &[Subject::Orders(7)], NOW).is_err());
    }

    #[test]
    fn a_registered_domain_is_counted_once() {
        let names = ["a.b.example.co.uk", "example.co.uk", "x.example.com", "192.0.2.1"];
        let names: Vec<_> = names.iter().map(|name| name.parse().unwrap()).collect();
        let domains = Subject::domains(&names);
        assert_eq!(domains.into_iter().collect::<Vec<_>>(), ["example.co.uk", "example.com"]);
    }

    #[test]
    fn no_more_buckets_than_there_is_room_for() {
        let mut buckets = Buckets::default();
        let spend = |buckets: &mut Buckets, account, now| {
            buckets.spend(&LIMITS, vec![Subject::Orders(account)], now);
        };
        spend(&mut buckets, 0, NOW + HOUR);
        for account in 1..=MOST as u64 {
            spend(&mut buckets, account, NOW);
        }
        assert_eq!(buckets.0.len(), MOST);
        assert!(buckets.0.contains_key(&Subject::Orders(0)));
        // All but the first are full again by then.
        spend(&mut buckets, u64::MAX, NOW + HOUR);
        assert_eq!(buckets.0.len(), 2);
    }

    proptest! {
        #[test]
        fn never_more_than_the_burst_and_what_came_back(
            burst in 1u32..6,
            refill in 1u64..100,
            steps in prop::collection::vec(0u64..50, 1..100),
        ) {
            let limit = RateLimit { burst, refill: Duration::from_secs(refill) };
            let limits = RateLimits { new_orders: limit, ..LIMITS };
            let subject = [Subject::Orders(1)];
            let (mut buckets, mut now, mut spent) = (Buckets::default(), NOW, 0);
            for step in steps {
                now += Duration::from_secs(step);
                match buckets.check(&limits, &subject, now) {
                    Ok(()) => {
                        buckets.spend(&limits, subject.to_vec(), now);
                        spent += 1;
                    }
                    Err(limited) => {
                        prop_assert!(buckets.check(&limits, &subject, now + limited.wait).is_ok());
                        let early = now + limited.wait - Duration::from_nanos(1);
                        prop_assert!(buckets.check(&limits, &subject, early).is_err());
                    }
                }
                let seconds = now.duration_since(NOW).unwrap().as_secs();
                prop_assert!(spent <= u64::from(burst) + seconds / refill);
            }
        }
    }
}
