//! How often a CA may be asked (pure), so that it never locks us out.
//!
//! A [`Ledger`] mirrors what the CA counts: buckets from which an attempt takes and which fill up again
//! with time. Of the failed authorizations it keeps a reserve for the operator (`renew --force`), so that
//! whoever has mended the cause need not wait for what the attempts before it have used up.
//!
//! The order of things is the promise: [`Ledger::begin`] charges the worst that can come of an attempt,
//! the ledger is saved, then the CA is asked, and [`Ledger::settle`] gives back what did not happen. A
//! crash in the middle therefore counts as the worst, and restarts forget nothing. What did happen is
//! booked when the attempt ends, which is later than the CA has booked it: this side never believes a
//! bucket to be fuller than the CA does.
//!
//! No clock can fool it for long. A moment that lies further ahead than it can was written by a clock
//! that was wrong: the bucket then counts as used up from now on, and fills as usual.

mod charge;
mod file;
mod limits;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

pub use charge::{Ask, Charge, Happened};
pub use limits::Limits;

use crate::hostname::Identifier;
use crate::store::{BucketKey, BucketKind, LedgerFile};
use charge::{Claim, Pending};
use limits::{HOUR, Limit, MINUTE};

/// Longest wait that a Retry-After can ask for: 30 days.
pub const LONGEST_WAIT: Duration = super::schedule::LONGEST_WAIT;

/// Nothing is under way for longer: an attempt that has not ended by then will not be settled.
const LONGEST_ATTEMPT: i64 = HOUR;

/// A clock may be set back so far in the middle of an attempt.
const CLOCK_CORRECTION: i64 = 5 * MINUTE;

/// How long the limits count as used up when it is not known what was used: the failures of an hour.
const UNKNOWN_FOR: i64 = HOUR;

/// Buckets that attempts may fill the ledger with: the file has room for what ends late.
const MOST_BUCKETS: usize = LedgerFile::MAX_BUCKETS / 10 * 9;

/// Things that one attempt may be charged with.
const MOST_CHARGED: u64 = LedgerFile::MAX_CHARGED as u64;

/// What has been asked of each CA.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ledger {
    /// When each bucket is full again; one that is full is left out.
    buckets: BTreeMap<BucketKey, i64>,
    /// Attempts under way, by the number of their charge.
    pending: BTreeMap<u64, Pending>,
    waits: BTreeMap<(String, About), Stretch>,
    unknown: Option<Stretch>,
    next_charge: u64,
    needs_saving: bool,
}

/// What a CA wants to be left alone with, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum About {
    Everything,
    Identifier(Identifier),
    Information,
}

/// A stretch of time, in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Stretch {
    from: i64,
    until: i64,
}

/// About what a CA wants to be left alone.
#[derive(Debug, Clone, Copy)]
pub enum Scope<'a> {
    /// Everything.
    Issuer,
    /// Orders with one of these.
    Identifiers(&'a [Identifier]),
    /// Questions about when to renew (RFC 9773). What they meet stands in the way of no order.
    Information,
}

/// Why the CA is not asked now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{says}")]
pub struct Refusal {
    /// When it may be asked, as far as is known now.
    pub until: SystemTime,
    /// What stands in the way; where several things do, the one that takes longest.
    pub obstacle: Obstacle,
    /// The same in plain words, with what can be done.
    pub says: String,
}

/// What can stand in the way of asking a CA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// A bucket is used up, or only the operator's reserve is left in it.
    Bucket(BucketKind),
    /// The CA's own word.
    RetryAfter,
    /// What was used is not known, because the file was damaged.
    Unknown,
    /// The ledger is full.
    NoRoom,
}

/// What is left of the failed authorizations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// That attempts may use which nobody asked for; `u32::MAX` where the CA does not count.
    pub automatic: u32,
    /// That `renew --force` may use besides.
    pub in_reserve: u32,
    /// When there is one more for the attempts that nobody asks for, where some are used.
    pub next_free: Option<SystemTime>,
    /// The same in a few words: `3 left this hour`.
    pub says: String,
}

impl Ledger {
    /// Of one who has never asked a CA.
    pub fn new() -> Self {
        Self::default()
    }

    /// What takes the place of a damaged file: nothing is asked for an hour, with `--force` neither, for
    /// it is not known what is left of the reserve.
    pub fn pessimistic(now: SystemTime) -> Self {
        let from = milliseconds(now);
        let unknown = Some(Stretch { from, until: from + UNKNOWN_FOR });
        Self { unknown, needs_saving: true, ..Self::default() }
    }

    /// Whether the CA may be asked now. What a wrong clock has left behind is put right by the way, so
    /// look at [`Ledger::needs_saving`] after a refusal too.
    ///
    /// # Errors
    /// It may not; when it may, and why.
    pub fn allows(&mut self, ask: &Ask<'_>, limits: &Limits, now: SystemTime) -> Result<(), Refusal> {
        let claims = charge::claims(ask, limits);
        self.check(ask, &claims, limits, now)
    }

    /// Charges the worst that can come of an attempt, where the CA may be asked at all. The ledger is to
    /// be saved before the CA is asked.
    ///
    /// # Errors
    /// As [`Ledger::allows`]; nothing was charged.
    pub fn begin(&mut self, ask: &Ask<'_>, limits: &Limits, now: SystemTime) -> Result<Charge, Refusal> {
        let claims = charge::claims(ask, limits);
        self.check(ask, &claims, limits, now)?;
        let id = self.next_charge;
        self.next_charge += 1;
        let times = |claim: &Claim| usize::try_from(claim.charges).unwrap_or(usize::MAX);
        let charged =
            claims.iter().flat_map(|claim| std::iter::repeat_n(claim.key.clone(), times(claim))).collect();
        let pending = Pending { begun_at: milliseconds(now), cut_off_at: None, charged };
        let keys = claims.into_iter().filter(|claim| claim.charges > 0).map(|claim| claim.key).collect();
        self.pending.insert(id, pending);
        self.needs_saving = true;
        Ok(Charge { id, keys, limits: *limits })
    }

    /// Books what came of an attempt and gives the rest back. A success ends the failures in a row of its
    /// identifiers.
    pub fn settle(&mut self, charge: Charge, happened: &Happened, now: SystemTime) {
        self.settle_all(charge, std::slice::from_ref(happened), now);
    }

    /// The same for an attempt that made several orders: what came of each.
    pub fn settle_all(&mut self, charge: Charge, happened: &[Happened], now: SystemTime) {
        let now = milliseconds(now);
        self.pending.remove(&charge.id);
        let is_obtained = happened.iter().any(|order| order.asked && order.obtained);
        for key in &charge.keys {
            let times = happened.iter().filter(|order| order.includes(key, &charge.limits)).count();
            for _ in 0..times {
                self.take(key, &charge.limits, now, now);
            }
            if times == 0 && is_obtained && charge::is_of_failures(key) {
                self.buckets.remove(&BucketKey { bucket: BucketKind::FailuresInARow, ..key.clone() });
            }
        }
        self.needs_saving = true;
    }

    /// Writes down a Retry-After; of several the longest counts. More than [`LONGEST_WAIT`] ahead is read
    /// as that.
    pub fn blocked(&mut self, issuer: &str, scope: Scope<'_>, until: SystemTime, now: SystemTime) {
        let from = milliseconds(now);
        let until = milliseconds(until).min(from + longest_wait());
        if until <= from {
            return;
        }
        let about: Vec<_> = match scope {
            Scope::Issuer => vec![About::Everything],
            Scope::Identifiers(identifiers) => identifiers.iter().cloned().map(About::Identifier).collect(),
            Scope::Information => vec![About::Information],
        };
        self.prune(now);
        for about in about {
            // Without room for its names, the CA's word is taken to be about everything.
            let has_room = self.waits.len() < LedgerFile::MAX_WAITS - 1;
            let about = if has_room { about } else { About::Everything };
            let wait = self.waits.entry((issuer.to_owned(), about)).or_insert(Stretch { from, until });
            wait.put_right(from);
            if until > wait.until {
                *wait = Stretch { from, until };
            }
        }
        self.needs_saving = true;
    }

    /// Until when the CA is not to be asked when to renew; `None` where it may be.
    pub fn information_waits(&self, issuer: &str, now: SystemTime) -> Option<SystemTime> {
        let now = milliseconds(now);
        let concerns = |about: &About| matches!(about, About::Everything | About::Information);
        let waits = self.waits.iter().filter(|((i, about), _)| i == issuer && concerns(about));
        let until = waits.map(|(_, wait)| wait.seen_at(now)).max();
        until.filter(|until| *until > now).map(moment)
    }

    /// What is left of the failed authorizations of the one among the identifiers that has the fewest.
    pub fn failures_left(
        &self,
        issuer: &str,
        account: &str,
        identifiers: &[Identifier],
        limits: &Limits,
        now: SystemTime,
    ) -> Left {
        let ask = Ask { issuer, account, ..Ask::for_identifiers(identifiers) };
        let now = milliseconds(now);
        let mut worst: Option<words::Failures> = None;
        for identifier in identifiers {
            let Some(found) = self.failures_of(&ask, identifier, limits, now) else { continue };
            if worst.as_ref().is_none_or(|w| (found.automatic, -found.next) < (w.automatic, -w.next)) {
                worst = Some(found);
            }
        }
        let waits = self.waits_for(&ask).chain(self.unknown_for(limits)).map(|s| s.seen_at(now)).max();
        words::left(worst, waits.filter(|until| *until > now), now)
    }

    /// Whether it has changed since [`Ledger::saved`].
    pub fn needs_saving(&self) -> bool {
        self.needs_saving
    }

    /// It is on the disk as it is now.
    pub fn saved(&mut self) {
        self.needs_saving = false;
    }

    /// Forgets what has no bearing any more: full buckets and waits that are over.
    pub fn prune(&mut self, now: SystemTime) {
        let now = milliseconds(now);
        // What was cut off is still to be added, as of then.
        let cut_off_at = self.pending.values().filter_map(|pending| pending.cut_off_at).min();
        let bears_on = cut_off_at.map_or(now, |at| at.min(now));
        self.buckets.retain(|_, full_at| *full_at > bears_on);
        self.waits.retain(|_, wait| wait.until > now);
        self.unknown = self.unknown.filter(|unknown| unknown.until > now);
    }

    fn check(
        &mut self,
        ask: &Ask<'_>,
        claims: &[Claim],
        limits: &Limits,
        now: SystemTime,
    ) -> Result<(), Refusal> {
        self.prune(now);
        let now = milliseconds(now);
        self.put_right(ask, claims, limits, now);
        let mut obstacles: Vec<(i64, words::Seen<'_>)> = Vec::new();
        for claim in claims.iter().filter(|claim| claim.needs > 0) {
            let debt = self.debt(&claim.key, claim.limit, now);
            if claim.limit.available(debt) < claim.needs {
                let until = now + claim.limit.wait_for(claim.needs, debt).max(1);
                obstacles.push((until, words::Seen::Bucket { claim, debt }));
            }
        }
        let waits = self.waits_for(ask).map(|s| s.until).max();
        obstacles.extend(waits.filter(|until| *until > now).map(|until| (until, words::Seen::RetryAfter)));
        obstacles.extend(self.unknown_for(limits).map(|s| (s.until, words::Seen::Unknown)));
        obstacles.extend(self.no_room_for(claims, now).map(|until| (until, words::Seen::NoRoom)));
        match obstacles.into_iter().max_by_key(|(until, _)| *until) {
            Some((until, seen)) => Err(words::refusal(&seen, ask, limits, until, now)),
            None => Ok(()),
        }
    }

    /// Puts right what wrong clocks and crashes have left behind of what an attempt would draw on.
    fn put_right(&mut self, ask: &Ask<'_>, claims: &[Claim], limits: &Limits, now: i64) {
        let of_issuer = |p: &Pending| p.charged.first().is_none_or(|key| key.issuer == ask.issuer);
        let over: Vec<u64> =
            self.pending.iter().filter(|(_, p)| of_issuer(p) && p.is_over(now)).map(|(id, _)| *id).collect();
        for pending in over.iter().filter_map(|id| self.pending.remove(id)).collect::<Vec<_>>() {
            let at = pending.cut_off_at.unwrap_or(now).min(now);
            for key in &pending.charged {
                self.take(key, limits, at, now);
            }
        }
        self.needs_saving |= !over.is_empty();
        for claim in claims {
            if let Some(full_at) = self.buckets.get_mut(&claim.key)
                && *full_at > now + claim.limit.span()
            {
                *full_at = now + claim.limit.span();
                self.needs_saving = true;
            }
        }
        for wait in self.waits.values_mut().chain(&mut self.unknown) {
            self.needs_saving |= wait.put_right(now);
        }
    }

    /// One token from each bucket that this is counted in.
    fn take(&mut self, key: &BucketKey, limits: &Limits, at: i64, now: i64) {
        for &kind in charge::counted_in(key.bucket) {
            if let Some(limit) = limits.of_kind(kind) {
                let full_at = self.buckets.entry(BucketKey { bucket: kind, ..key.clone() }).or_insert(at);
                *full_at = limit.take(*full_at, at, now);
            }
        }
    }

    /// What has been taken from a bucket, what is under way included, as the time it takes to come back.
    fn debt(&self, key: &BucketKey, limit: Limit, now: i64) -> i64 {
        let mut full_at = self.buckets.get(key).copied().unwrap_or(i64::MIN / 2);
        let mut under_way = 0;
        for pending in self.pending.values() {
            for _ in 0..pending.charges(key) {
                match pending.cut_off_at {
                    Some(at) => full_at = limit.take(full_at, at.min(now), now),
                    None => under_way += limit.every,
                }
            }
        }
        limit.debt(full_at, now) + under_way
    }

    fn failures_of(
        &self,
        ask: &Ask<'_>,
        identifier: &Identifier,
        limits: &Limits,
        now: i64,
    ) -> Option<words::Failures> {
        let key = |kind| charge::failures_key(ask, identifier, kind);
        let whole = limits.of_kind(BucketKind::Failures)?;
        let whole_debt = self.debt(&key(BucketKind::Failures), whole, now);
        let available = whole.available(whole_debt);
        let mut automatic = (available - limits.reserve()).max(0);
        let mut next = whole.wait_for(limits.reserve() + automatic + 1, whole_debt);
        let mut most = whole.burst;
        if let Some(share) = limits.of_kind(BucketKind::Unattended) {
            let debt = self.debt(&key(BucketKind::Unattended), share, now);
            automatic = automatic.min(share.available(debt));
            most = share.burst;
            next = whole
                .wait_for(limits.reserve() + automatic + 1, whole_debt)
                .max(share.wait_for(automatic + 1, debt));
        }
        let mut in_reserve = (available - automatic).clamp(0, limits.reserve());
        if let Some(in_a_row) = limits.of_kind(BucketKind::FailuresInARow) {
            let debt = self.debt(&key(BucketKind::FailuresInARow), in_a_row, now);
            if in_a_row.available(debt) == 0 {
                (automatic, in_reserve, next) = (0, 0, in_a_row.wait_for(1, debt));
            }
        }
        let next = if automatic < most { next } else { 0 };
        Some(words::Failures { automatic, in_reserve, next, period: whole.span() })
    }

    fn waits_for<'a>(&'a self, ask: &Ask<'a>) -> impl Iterator<Item = Stretch> {
        let (issuer, identifiers) = (ask.issuer, ask.identifiers);
        let concerns = |about: &About| match about {
            About::Everything => true,
            About::Identifier(identifier) => identifiers.contains(identifier),
            About::Information => false,
        };
        self.waits.iter().filter(move |((i, about), _)| i == issuer && concerns(about)).map(|(_, wait)| *wait)
    }

    /// A CA that counts nothing cannot be asked too often.
    fn unknown_for(&self, limits: &Limits) -> Option<Stretch> {
        self.unknown.filter(|_| !limits.are_none())
    }

    /// When there is room for what an attempt is charged with, where there is none.
    fn no_room_for(&self, claims: &[Claim], now: i64) -> Option<i64> {
        let new = claims.iter().filter(|c| c.charges > 0 && !self.buckets.contains_key(&c.key)).count();
        let charged: usize = self.pending.values().map(|p| p.charged.len()).sum();
        // A failure may be counted in two buckets by one charge.
        let buckets = self.buckets.len() + 2 * (new + charged);
        let fits = (new == 0 || buckets <= MOST_BUCKETS)
            && claims.iter().map(|c| u64::from(c.charges.max(1))).sum::<u64>() <= MOST_CHARGED
            && self.pending.len() < LedgerFile::MAX_PENDING;
        let first_free = self.buckets.values().min().copied().unwrap_or(now);
        (!fits).then_some(first_free.clamp(now + MINUTE, now + HOUR))
    }
}

impl Stretch {
    /// Its end, seen at a moment that cannot be before its start.
    fn seen_at(self, now: i64) -> i64 {
        let mut seen = self;
        seen.put_right(now);
        seen.until
    }

    /// A stretch that starts in the future was written by a clock that was wrong: it starts now, and is as
    /// long as it was. Whether it had to be changed.
    fn put_right(&mut self, now: i64) -> bool {
        let is_wrong = self.from > now + CLOCK_CORRECTION;
        if is_wrong {
            *self = Self { from: now, until: now + (self.until - self.from) };
        }
        is_wrong
    }
}

fn longest_wait() -> i64 {
    i64::try_from(LONGEST_WAIT.as_millis()).unwrap_or(i64::MAX)
}

/// Milliseconds since 1970, within the years that a file can have.
fn milliseconds(moment: SystemTime) -> i64 {
    let count = |d: Duration| i64::try_from(d.as_millis()).unwrap_or(i64::MAX);
    let exact = match moment.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => count(since),
        Err(before) => -count(before.duration()),
    };
    exact.clamp(file::FIRST, file::LAST)
}

fn moment(milliseconds: i64) -> SystemTime {
    let distance = Duration::from_millis(milliseconds.unsigned_abs());
    if milliseconds < 0 { SystemTime::UNIX_EPOCH - distance } else { SystemTime::UNIX_EPOCH + distance }
}

/// The names among these, each once, in order.
fn distinct(identifiers: &[Identifier]) -> BTreeSet<&Identifier> {
    identifiers.iter().collect()
}

#[cfg(test)]
mod histories;
#[cfg(test)]
mod pairs;
#[cfg(test)]
mod simulations;
#[cfg(test)]
mod tests;
