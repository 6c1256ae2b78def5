//! The ledger, to and from the shape of its file.

use std::time::SystemTime;

use jiff::Timestamp;

use super::charge::Pending;
use super::limits::{DAY, LONGEST_REFILL};
use super::{About, Ledger, Stretch, longest_wait, milliseconds};
use crate::store::{BucketRow, LedgerFile, PendingRow, Span, WaitRow};

/// The moments that are told apart, in milliseconds since 1970: years away from those that a file cannot
/// have, so that nothing added to them goes past these.
pub(super) const FIRST: i64 = -100_000 * DAY;
pub(super) const LAST: i64 = 2_000_000 * DAY;

impl Ledger {
    /// What was kept. Attempts that had not ended were cut off by a crash, and count as the worst from
    /// `now` on.
    pub fn restored(file: LedgerFile, now: SystemTime) -> Self {
        let now = milliseconds(now);
        let mut ledger = Self::default();
        for BucketRow { key, full_at } in file.buckets {
            let full_at = inside(full_at).min(now + LONGEST_REFILL);
            let kept = ledger.buckets.entry(key).or_insert(full_at);
            *kept = full_at.max(*kept);
        }
        for (id, row) in (0..).zip(file.pending) {
            ledger.needs_saving |= row.cut_off_at.is_none();
            let cut_off_at = Some(row.cut_off_at.map_or(now, |at| inside(at).min(now)));
            let pending = Pending { begun_at: inside(row.begun_at), cut_off_at, charged: row.charged };
            ledger.pending.insert(id, pending);
            ledger.next_charge = id + 1;
        }
        for row in file.waits {
            let wait = stretch(row.span, longest_wait());
            let about = match row.identifier {
                _ if row.only_information => About::Information,
                Some(identifier) => About::Identifier(identifier),
                None => About::Everything,
            };
            let kept = ledger.waits.entry((row.issuer, about)).or_insert(wait);
            if wait.until > kept.until {
                *kept = wait;
            }
        }
        ledger.unknown = file.unknown.map(|span| stretch(span, super::UNKNOWN_FOR));
        ledger
    }

    /// What is to be kept. Once it is on the disk, say so with [`Ledger::saved`].
    pub fn file(&self, now: SystemTime) -> LedgerFile {
        let mut kept = self.clone();
        kept.prune(now);
        let buckets = kept.buckets.into_iter();
        let pending = kept.pending.into_values().map(|pending| PendingRow {
            begun_at: stamp(pending.begun_at),
            cut_off_at: pending.cut_off_at.map(stamp),
            charged: pending.charged,
        });
        let waits = kept.waits.into_iter();
        LedgerFile {
            version: LedgerFile::VERSION,
            buckets: buckets.map(|(key, full_at)| BucketRow { key, full_at: stamp(full_at) }).collect(),
            pending: pending.collect(),
            waits: waits
                .map(|((issuer, about), wait)| {
                    let only_information = about == About::Information;
                    let identifier = match about {
                        About::Identifier(identifier) => Some(identifier),
                        About::Everything | About::Information => None,
                    };
                    WaitRow { issuer, identifier, only_information, span: span(wait) }
                })
                .collect(),
            unknown: kept.unknown.map(span),
        }
    }
}

fn inside(stamp: Timestamp) -> i64 {
    stamp.as_millisecond().clamp(FIRST, LAST)
}

/// A file's stretch, at most so long.
fn stretch(span: Span, longest: i64) -> Stretch {
    let from = inside(span.from);
    Stretch { from, until: inside(span.until).clamp(from, from + longest) }
}

fn span(stretch: Stretch) -> Span {
    Span { from: stamp(stretch.from), until: stamp(stretch.until) }
}

pub(super) fn stamp(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(milliseconds).unwrap_or(Timestamp::MAX)
}
