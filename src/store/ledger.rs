//! The file `ledger.json`: what has been asked of each CA, so that a restart forgets none of it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Store, StoreError, damaged_if_unreadable};
use crate::hostname::Identifier;

const FILE: &str = "ledger.json";

/// Largest ledger read back, bytes.
const MAX_LEDGER: u64 = 16 << 20;

/// Longest name of an issuer or an account: a directory's URL at most.
const MAX_NAME: usize = 2048;

/// Longest name of what is counted: a host name or a digest.
const MAX_COUNTED: usize = 253;

/// What follows from a damaged ledger.
const REMEDY: &str = "it is set aside and a new one is begun, which takes the CA's limits as used up for an \
                      hour; if this happens again, look at the disk";

/// The ledger as it is written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LedgerFile {
    /// The version of this shape: [`LedgerFile::VERSION`].
    pub version: u32,
    /// Buckets that are not full.
    pub buckets: Vec<BucketRow>,
    /// Attempts that were begun and have not ended.
    pub pending: Vec<PendingRow>,
    /// What the CA said with Retry-After.
    pub waits: Vec<WaitRow>,
    /// When the limits are unknown because an earlier file was damaged.
    pub unknown: Option<Span>,
}

/// What a bucket counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BucketKind {
    /// Failed authorizations of an identifier.
    Failures,
    /// Those of attempts that nobody asked for.
    Unattended,
    /// Failed authorizations of an identifier since the last success.
    FailuresInARow,
    /// Certificates for the same set of identifiers.
    Set,
    /// Certificates below a registered domain.
    RegisteredDomain,
    /// New orders.
    Orders,
    /// New accounts.
    Accounts,
}

/// Whose bucket it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct BucketKey {
    /// The issuer's name.
    pub issuer: String,
    /// The account's name; empty for what the CA counts across accounts.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub account: String,
    /// What is counted.
    pub bucket: BucketKind,
    /// For what: an identifier, a registered domain, or the SHA-256 of a set; empty where there is one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub of: String,
}

/// A bucket that is not full.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct BucketRow {
    /// Whose it is.
    pub key: BucketKey,
    /// When it is full again.
    pub full_at: Timestamp,
}

/// An attempt that was begun.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PendingRow {
    /// When.
    pub begun_at: Timestamp,
    /// When it was found to have been cut off by a crash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut_off_at: Option<Timestamp>,
    /// What it may use up, at worst.
    pub charged: Vec<BucketKey>,
}

/// A CA's wish to be left alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct WaitRow {
    /// The issuer's name.
    pub issuer: String,
    /// About this identifier; about everything where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identifier: Option<Identifier>,
    /// Only about renewal information (RFC 9773), not about orders.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub only_information: bool,
    /// From when until when.
    pub span: Span,
}

/// A stretch of time. Its start shows how long it was meant to be, should the clock have been wrong.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Span {
    /// Its start.
    pub from: Timestamp,
    /// Its end.
    pub until: Timestamp,
}

impl Default for LedgerFile {
    fn default() -> Self {
        Self {
            version: Self::VERSION,
            buckets: Vec::new(),
            pending: Vec::new(),
            waits: Vec::new(),
            unknown: None,
        }
    }
}

impl LedgerFile {
    /// The version of the shape that this program reads and writes.
    pub const VERSION: u32 = 1;
    /// Most buckets that are kept.
    pub const MAX_BUCKETS: usize = 30_000;
    /// Most attempts under way.
    pub const MAX_PENDING: usize = 64;
    /// Most things that one attempt is charged with.
    pub const MAX_CHARGED: usize = 1000;
    /// Most waits that are kept.
    pub const MAX_WAITS: usize = 1000;

    fn read(text: &str) -> Result<Self, String> {
        let file: Self = serde_json::from_str(text).map_err(|e| e.to_string())?;
        if file.version != Self::VERSION {
            return Err(format!("it has version {}, and only {} is known here", file.version, Self::VERSION));
        }
        let charged = file.pending.iter().map(|row| row.charged.len()).max().unwrap_or(0);
        for (what, count, most) in [
            ("buckets", file.buckets.len(), Self::MAX_BUCKETS),
            ("pending attempts", file.pending.len(), Self::MAX_PENDING),
            ("charges of one attempt", charged, Self::MAX_CHARGED),
            ("waits", file.waits.len(), Self::MAX_WAITS),
        ] {
            if count > most {
                return Err(format!("it lists {count} {what}, and at most {most} are ever written"));
            }
        }
        let keys =
            file.buckets.iter().map(|row| &row.key).chain(file.pending.iter().flat_map(|row| &row.charged));
        let too_long = |key: &BucketKey| {
            key.issuer.len() > MAX_NAME || key.account.len() > MAX_NAME || key.of.len() > MAX_COUNTED
        };
        if keys.into_iter().any(too_long) || file.waits.iter().any(|row| row.issuer.len() > MAX_NAME) {
            return Err("a name in it is longer than any that is ever written".to_owned());
        }
        Ok(file)
    }
}

impl Store {
    /// The ledger that is kept; `None` before the first attempt.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] where it is not whole: [`Store::set_aside_ledger`] makes room for a new one.
    /// Otherwise it cannot be read, and nothing should be asked of a CA.
    pub fn ledger(&self) -> Result<Option<LedgerFile>, StoreError> {
        let path = self.path.join(FILE);
        let text = self.root.read(FILE, MAX_LEDGER).map_err(|e| damaged_if_unreadable(e, REMEDY))?;
        let read = text.as_deref().map(LedgerFile::read).transpose();
        read.map_err(|reason| StoreError::Damaged { path, reason, remedy: REMEDY })
    }

    /// Keeps the ledger; it is on the disk when this returns.
    ///
    /// # Errors
    /// It could not be written; the one before it still stands.
    pub fn save_ledger(&self, ledger: &LedgerFile) -> Result<(), StoreError> {
        let text = serde_json::to_string(ledger).expect("plain values always have a JSON form");
        Ok(self.root.replace(FILE, text.as_bytes())?)
    }
}
