//! Putting accounts and lineages into the state directory. What is there already stays, unless it is
//! older; `store` is `None` where nothing is there yet and nothing shall be written.

use std::fmt;

use jiff::Timestamp;

use super::plan::{AccountPlan, LineagePlan};
use crate::acme;
use crate::config::Issuer;
use crate::store::{Attempts, LedgerFile, LineageState, Store, StoreError, Version};

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// Stored, or to be stored where nothing is written.
    Imported,
    /// The same is here.
    Same,
    /// Another account is kept.
    OtherAccount(String),
    /// A newer certificate is live.
    Newer(Version),
    /// There are no files.
    NoFiles,
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Imported => f.write_str("imported"),
            Self::Same => f.write_str("here already"),
            Self::OtherAccount(url) => write!(f, "left, since another account is kept: {url}"),
            Self::Newer(version) => write!(f, "left, since version {version} here is newer"),
            Self::NoFiles => f.write_str("without files"),
        }
    }
}

/// Keeps an account, unless there is one.
///
/// # Errors
/// The state directory.
pub fn keep_account(store: Option<&Store>, account: &AccountPlan, write: bool) -> Result<Kept, StoreError> {
    let Some(store) = store else { return Ok(Kept::Imported) };
    let issuer = account.issuer.name();
    if let Some(kept) = store.account(&issuer)? {
        let kept = zeroize::Zeroizing::new(kept);
        return Ok(match acme::account_uri(&kept) {
            Some(url) if url == account.url => Kept::Same,
            url => Kept::OtherAccount(url.unwrap_or_else(|| "one that cannot be read".to_owned())),
        });
    }
    if write {
        // An account without a ledger has lost it, and nothing is asked for an hour; this one never had any.
        if store.ledger()?.is_none() && !store.has_accounts()? {
            store.save_ledger(&LedgerFile::default())?;
        }
        store.save_account(&issuer, &account.credentials)?;
    }
    Ok(Kept::Imported)
}

/// Stores a lineage's files as its next version, unless what is live is as new.
///
/// # Errors
/// The state directory.
pub fn keep_lineage(store: Option<&Store>, lineage: &LineagePlan, write: bool) -> Result<Kept, StoreError> {
    let Some(certificate) = &lineage.certificate else { return Ok(Kept::NoFiles) };
    let Some(store) = store else { return Ok(Kept::Imported) };
    let name = lineage.name.as_str();
    let before = store.lineage_state(name)?;
    // What is damaged is no reason to go without.
    if let Some((version, live)) = store.current(name).ok().flatten() {
        if live.first().chain().first() == certificate.chain().first() {
            if write && before.issuer.is_none() {
                store.save_lineage_state(name, &state(before, lineage))?;
            }
            return Ok(Kept::Same);
        }
        let is_rehearsed = before.issuer.as_ref() == Some(&Issuer::Embedded.name());
        if !is_rehearsed && live.not_before() >= certificate.not_before() {
            return Ok(Kept::Newer(version));
        }
    }
    if write {
        store.save(name, &certificate.clone().into())?;
        store.save_lineage_state(name, &state(before, lineage))?;
    }
    Ok(Kept::Imported)
}

/// What is to be known of the files, so that nothing is ordered before it is due.
fn state(before: LineageState, lineage: &LineagePlan) -> LineageState {
    let covered = lineage.certificate.as_ref().map(|c| c.identifiers().to_vec()).unwrap_or_default();
    let obtained_at = lineage.certificate.as_ref().and_then(|c| Timestamp::try_from(c.not_before()).ok());
    let validated = if lineage.was_proven_by_http { covered.clone() } else { Vec::new() };
    LineageState {
        issuer: lineage.knows_issuer().then(|| lineage.issuer.name()),
        key_types: lineage.stored_key_type.into_iter().collect(),
        ordered_for: covered,
        obtained_at,
        patience: None,
        attempts: Attempts::default(),
        attempted_for: Vec::new(),
        validated,
        staging_first: false,
        failing: Default::default(),
        renewal_information: Vec::new(),
        postponed: None,
        ..before
    }
}
