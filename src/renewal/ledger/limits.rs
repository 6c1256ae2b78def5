//! What a CA allows, and the arithmetic of its buckets, so that one moment is all that is kept of each.

use std::time::Duration;

use crate::config::{Issuer, Rate, RateLimits};
use crate::store::BucketKind;

/// Milliseconds.
pub(super) const SECOND: i64 = 1000;
pub(super) const MINUTE: i64 = 60 * SECOND;
pub(super) const HOUR: i64 = 60 * MINUTE;
pub(super) const DAY: i64 = 24 * HOUR;

/// Longest time that any bucket takes to fill: that of the failures in a row.
pub(super) const LONGEST_REFILL: i64 = 1152 * DAY;

/// The limits of one CA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    failures: Option<Limit>,
    unattended: Option<Limit>,
    failures_in_a_row: Option<Limit>,
    set: Option<Limit>,
    domain: Option<Limit>,
    orders: Option<Limit>,
    accounts: Option<Limit>,
    reserve: i64,
    /// Renewals are counted less than first orders: see [`Limits::spare_renewals`].
    spares_renewals: bool,
}

impl Limits {
    /// What is known of the CA. What is configured counts in its place, except at Let's Encrypt's staging
    /// and the embedded CA, which are there to be tried against. It is the number that is configured: what
    /// Let's Encrypt leaves out of its counts is left out of another number too.
    pub fn of(issuer: &Issuer, configured: &RateLimits) -> Self {
        let per_3_hours = Limit::new(300, 36 * SECOND);
        let hourly = Limit::new(5, 12 * MINUTE);
        let unlimited = Self {
            failures: None,
            unattended: None,
            failures_in_a_row: None,
            set: None,
            domain: None,
            orders: None,
            accounts: None,
            reserve: 0,
            spares_renewals: false,
        };
        let known = match issuer {
            Issuer::Embedded => return unlimited,
            Issuer::LetsEncryptStaging => Self {
                failures: Some(Limit::new(200, 18 * SECOND)),
                set: Some(Limit::new(30_000, 20_160)),
                domain: Some(Limit::new(30_000, 20_160)),
                orders: Some(Limit::new(1500, 7200)),
                accounts: Some(Limit::new(50, 216 * SECOND)),
                spares_renewals: true,
                ..unlimited
            },
            Issuer::LetsEncrypt => Self {
                failures: Some(hourly),
                failures_in_a_row: Some(Limit::new(1152, DAY)),
                set: Some(Limit::new(5, 34 * HOUR)),
                domain: Some(Limit::new(50, 202 * MINUTE)),
                orders: Some(per_3_hours),
                accounts: Some(Limit::new(10, 18 * MINUTE)),
                spares_renewals: true,
                ..unlimited
            },
            Issuer::ZeroSsl | Issuer::Google | Issuer::Directory(_) => {
                Self { failures: Some(hourly), orders: Some(per_3_hours), ..unlimited }
            }
        };
        match issuer {
            Issuer::LetsEncryptStaging => known,
            _ => known.overridden(configured),
        }
        .with_reserve()
    }

    fn overridden(self, configured: &RateLimits) -> Self {
        let chosen = |known: Option<Limit>, rate: Option<Rate>| rate.map_or(known, Limit::from_rate);
        Self {
            failures: chosen(self.failures, configured.failed_authorizations),
            set: chosen(self.set, configured.certificates_per_set),
            domain: chosen(self.domain, configured.certificates_per_domain),
            orders: chosen(self.orders, configured.orders),
            accounts: chosen(self.accounts, configured.accounts),
            ..self
        }
    }

    /// Two fifths of the failures are kept for the operator, at least one where there are two.
    ///
    /// What is left, `burst - reserve`, is a bucket of its own that gets one back every
    /// `period / reserve`: in any stretch as long as the period, `burst - reserve` can be taken at once
    /// and less than `reserve` more as they come back. So unattended attempts stay below the burst in
    /// every such stretch, wherever it starts: with 5 an hour, 3 and then 1 every half hour, 4 at most.
    /// Forced attempts are counted in the CA's own bucket alone, of which the reserve must be left before
    /// an unattended attempt is made.
    fn with_reserve(self) -> Self {
        let Some(failures) = self.failures.filter(|failures| failures.burst > 1) else { return self };
        let reserve = (failures.burst * 2 / 5).max(1);
        let every = failures.span() / reserve + 1;
        Self { unattended: Some(Limit::new(failures.burst - reserve, every)), reserve, ..self }
    }

    pub(super) fn of_kind(&self, kind: BucketKind) -> Option<Limit> {
        match kind {
            BucketKind::Failures => self.failures,
            BucketKind::Unattended => self.unattended,
            BucketKind::FailuresInARow => self.failures_in_a_row,
            BucketKind::Set => self.set,
            BucketKind::RegisteredDomain => self.domain,
            BucketKind::Orders => self.orders,
            BucketKind::Accounts => self.accounts,
        }
    }

    /// Failures that are the operator's.
    pub(super) fn reserve(&self) -> i64 {
        self.reserve
    }

    /// Whether the CA leaves renewals out of what it counts: those of the same names out of the orders and
    /// the certificates of a domain, and those that it has suggested itself out of those of a set as well.
    /// That is Let's Encrypt's rule. Of no other CA it is known, so everything counts there.
    pub(super) fn spare_renewals(&self) -> bool {
        self.spares_renewals
    }

    /// Whether the CA counts nothing.
    pub(super) fn are_none(&self) -> bool {
        [self.failures, self.failures_in_a_row, self.set, self.domain, self.orders, self.accounts]
            .iter()
            .all(Option::is_none)
    }
}

/// A bucket of `burst` tokens, one of which comes back every so many milliseconds.
///
/// All that is kept of it is the moment at which it is full again (the generic cell rate algorithm, as
/// the CA itself does it). A moment further ahead than an empty bucket needs was written by a clock that
/// was wrong, and reads as an empty one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limit {
    pub(super) burst: i64,
    pub(super) every: i64,
}

impl Limit {
    const fn new(burst: i64, every: i64) -> Self {
        Self { burst, every }
    }

    fn from_rate(rate: Rate) -> Option<Self> {
        let Rate::Limited { count, per } = rate else { return None };
        let burst = i64::from(count.max(1));
        let per = milliseconds(per).min(LONGEST_REFILL);
        Some(Self::new(burst, ((per + burst - 1) / burst).max(1)))
    }

    /// How long an empty bucket takes to fill.
    pub(super) fn span(self) -> i64 {
        self.burst * self.every
    }

    /// How long the bucket still takes to fill: what has been taken, as time.
    pub(super) fn debt(self, full_at: i64, now: i64) -> i64 {
        (full_at - now).clamp(0, self.span())
    }

    /// The moment of being full after one more was taken at the moment `at`, which is not after `now`.
    pub(super) fn take(self, full_at: i64, at: i64, now: i64) -> i64 {
        (full_at.max(at) + self.every).min(now + self.span())
    }

    /// Tokens that can be taken.
    pub(super) fn available(self, debt: i64) -> i64 {
        ((self.span() - debt) / self.every).max(0)
    }

    /// How long until so many can be taken.
    pub(super) fn wait_for(self, tokens: i64, debt: i64) -> i64 {
        (debt - (self.span() - tokens * self.every)).max(0)
    }
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(issuer: &Issuer) -> Limits {
        Limits::of(issuer, &RateLimits::default())
    }

    fn directory() -> Issuer {
        Issuer::Directory("https://ca.example/d".parse().unwrap())
    }

    #[test]
    fn lets_encrypt_as_its_page_says() {
        let limits = of(&Issuer::LetsEncrypt);
        for (kind, burst, every) in [
            (BucketKind::Failures, 5, 12 * MINUTE),
            (BucketKind::Unattended, 3, 30 * MINUTE + 1),
            (BucketKind::FailuresInARow, 1152, 24 * HOUR),
            (BucketKind::Set, 5, 34 * HOUR),
            (BucketKind::RegisteredDomain, 50, 202 * MINUTE),
            (BucketKind::Orders, 300, 36 * SECOND),
            (BucketKind::Accounts, 10, 18 * MINUTE),
        ] {
            assert_eq!(limits.of_kind(kind), Some(Limit { burst, every }), "{kind:?}");
        }
        assert_eq!(limits.reserve(), 2);
        assert!(of(&Issuer::Embedded).are_none());
        let staging = of(&Issuer::LetsEncryptStaging).of_kind(BucketKind::Failures).unwrap();
        assert_eq!((staging.burst, staging.span()), (200, HOUR));
    }

    #[test]
    fn others_are_taken_for_strict_about_failures() {
        for issuer in [Issuer::ZeroSsl, Issuer::Google, directory()] {
            let limits = of(&issuer);
            let failures = limits.of_kind(BucketKind::Failures).unwrap();
            assert_eq!((failures.burst, failures.span(), limits.reserve()), (5, HOUR, 2), "{issuer:?}");
            assert_eq!(limits.of_kind(BucketKind::Orders).unwrap().span(), 3 * HOUR);
            for kind in [BucketKind::Set, BucketKind::RegisteredDomain, BucketKind::FailuresInARow] {
                assert_eq!(limits.of_kind(kind), None, "{issuer:?} {kind:?}");
            }
        }
    }

    #[test]
    fn what_is_configured_counts() {
        let configured = RateLimits {
            failed_authorizations: Some(Rate::Limited { count: 1, per: Duration::from_secs(60) }),
            certificates_per_set: Some(Rate::Limited { count: 3, per: Duration::from_millis(10) }),
            orders: Some(Rate::Unlimited),
            certificates_per_domain: Some(Rate::Limited { count: u32::MAX, per: Duration::MAX }),
            accounts: Some(Rate::Limited { count: 0, per: Duration::ZERO }),
        };
        let limits = Limits::of(&directory(), &configured);
        assert_eq!(limits.of_kind(BucketKind::Failures), Some(Limit::new(1, MINUTE)));
        assert_eq!((limits.reserve(), limits.of_kind(BucketKind::Unattended)), (0, None));
        assert_eq!(limits.of_kind(BucketKind::Set), Some(Limit::new(3, 4)));
        assert_eq!(limits.of_kind(BucketKind::Orders), None);
        assert_eq!(limits.of_kind(BucketKind::Accounts), Some(Limit::new(1, 1)));
        assert!(limits.of_kind(BucketKind::RegisteredDomain).unwrap().span() <= LONGEST_REFILL + (1 << 32));
        for issuer in [Issuer::Embedded, Issuer::LetsEncryptStaging] {
            assert_eq!(Limits::of(&issuer, &configured), of(&issuer));
        }
    }

    proptest! {
        /// Whatever the limit, those who come as early as they may stay below the burst in every period.
        #[test]
        fn unattended_attempts_stay_below_the_burst(count in 2u32..60, seconds in 60u64..90_000) {
            let rate = Rate::Limited { count, per: Duration::from_secs(seconds) };
            let configured = RateLimits { failed_authorizations: Some(rate), ..RateLimits::default() };
            let limits = Limits::of(&directory(), &configured);
            let unattended = limits.of_kind(BucketKind::Unattended).unwrap();
            let period = limits.of_kind(BucketKind::Failures).unwrap().span();
            prop_assert!(limits.reserve() >= 1 && unattended.burst >= 1);
            prop_assert_eq!(limits.reserve() + unattended.burst, i64::from(count));
            let (mut now, mut full_at, mut taken) = (0, 0, Vec::new());
            for _ in 0..3 * count {
                now += unattended.wait_for(1, unattended.debt(full_at, now));
                full_at = unattended.take(full_at, now, now);
                taken.push(now);
                let recent = taken.iter().filter(|at| **at >= now - period).count();
                prop_assert!(recent < count as usize, "{recent} of {count}");
            }
        }

        #[test]
        fn a_bucket_counts_as_tokens_do(steps in proptest::collection::vec((0i64..30 * MINUTE, any::<bool>()), 1..60)) {
            let limit = Limit::new(5, 12 * MINUTE);
            let (mut now, mut full_at, mut level) = (0, 0, limit.span());
            for (pause, takes) in steps {
                now += pause;
                level = (level + pause).min(limit.span());
                prop_assert_eq!(limit.available(limit.debt(full_at, now)), level / limit.every);
                if takes && level >= limit.every {
                    level -= limit.every;
                    full_at = limit.take(full_at, now, now);
                }
            }
        }
    }
}
