//! Reading what is kept of past attempts. A damaged file is set aside under another name, told, and read
//! as if the worst had happened: what is not known is not free.

use std::time::{Duration, SystemTime};

use super::ledger::Ledger;
use super::lineages::stamp;
use crate::config::CertificateRequest;
use crate::store::{LineageState, Store, StoreError};

/// For how long nothing is ordered after the memory of past attempts was lost.
const UNKNOWN_FOR: Duration = Duration::from_secs(3600);

/// The ledger, and what is to be told of it. Only where the lock is held (`mend`) is a damaged one moved,
/// and what takes its place written down: who is asked next may be another process.
pub fn ledger(store: Option<&Store>, now: SystemTime, mend: bool) -> (Ledger, Option<String>) {
    let Some(store) = store else { return (Ledger::new(), None) };
    let (mut ledger, damage) = match store.ledger() {
        Ok(None) => match store.has_accounts() {
            Ok(false) => return (Ledger::new(), None),
            // It is written before a CA is asked for anything, an account included.
            Ok(true) => (Ledger::pessimistic(now), Some(lost(store))),
            Err(e) => (Ledger::pessimistic(now), Some(e.to_string())),
        },
        Ok(Some(file)) => (Ledger::restored(file, now), None),
        Err(e) => (Ledger::pessimistic(now), Some(e.to_string())),
    };
    let aside = damage.as_ref().filter(|_| mend).and_then(|_| moved(store.set_aside_ledger()));
    let mut kept = None;
    // One that could not be moved is not written over.
    if mend && ledger.needs_saving() && store.ledger().is_ok() {
        match store.save_ledger(&ledger.file(now)) {
            Ok(()) => ledger.saved(),
            Err(e) => kept = Some(e.to_string()),
        }
    }
    let sentence = damage.map(|e| {
        let aside = aside.unwrap_or_default();
        format!("{e}{aside}; nothing is asked of a CA for an hour, as if its limits were used up")
    });
    (ledger, joined(sentence, kept))
}

fn lost(store: &Store) -> String {
    format!(
        "{} is missing, although there are accounts at CAs: what was asked of them is not known",
        store.path().join("ledger.json").display()
    )
}

/// What is kept about a lineage, and what is to be told of it; `mend` as with [`ledger`].
pub(super) fn lineage_state(
    store: &Store,
    request: &CertificateRequest,
    now: SystemTime,
    mend: bool,
) -> (LineageState, Option<String>) {
    let error = match store.lineage_state(&request.name) {
        Ok(state) => return (state, None),
        Err(e) => e,
    };
    let aside = if mend { moved(store.set_aside_lineage_state(&request.name)) } else { None };
    let mut state = LineageState::default();
    state.attempted_for.clone_from(&request.identifiers);
    state.attempts.failures = 1;
    state.attempts.retry_at = Some(stamp(now + UNKNOWN_FOR));
    state.attempts.last_error = Some(error.to_string());
    let mut kept = None;
    if mend && store.lineage_state(&request.name).is_ok() {
        kept = store.save_lineage_state(&request.name, &state).err().map(|e| e.to_string());
    }
    let sentence = format!(
        "{error}{}; nothing is ordered for it within an hour, as if an attempt had just failed",
        aside.unwrap_or_default()
    );
    (state, joined(Some(sentence), kept))
}

fn joined(sentence: Option<String>, more: Option<String>) -> Option<String> {
    match (sentence, more) {
        (Some(sentence), Some(more)) => Some(format!("{sentence}; {more}")),
        (sentence, more) => sentence.or(more),
    }
}

fn moved(aside: Result<Option<std::path::PathBuf>, StoreError>) -> Option<String> {
    Some(match aside {
        Ok(path) => format!("; it is kept as {}", path?.display()),
        Err(e) => format!("; it stays where it is: {e}"),
    })
}
