//! Reading what is kept of past attempts. A damaged file is set aside under another name, told, and read
//! as if the worst had happened: what is not known is not free.

use std::time::{Duration, SystemTime};

use super::ledger::Ledger;
use super::lineages::stamp;
use crate::config::CertificateRequest;
use crate::store::{LineageState, Store, StoreError};

/// For how long nothing is ordered after the memory of past attempts was lost.
const UNKNOWN_FOR: Duration = Duration::from_secs(3600);

/// The ledger, and what is to be told of it. Only where the lock is held (`mend`) is a damaged one moved.
pub fn ledger(store: Option<&Store>, now: SystemTime, mend: bool) -> (Ledger, Option<String>) {
    match store.map(Store::ledger) {
        None | Some(Ok(None)) => (Ledger::new(), None),
        Some(Ok(Some(file))) => (Ledger::restored(file, now), None),
        Some(Err(e)) => {
            let aside = if mend { store.and_then(|s| moved(s.set_aside_ledger())) } else { None };
            let sentence = format!(
                "{e}{}; nothing is asked of a CA for an hour, as if its limits were used up",
                aside.unwrap_or_default()
            );
            (Ledger::pessimistic(now), Some(sentence))
        }
    }
}

/// What is kept about a lineage, and what is to be told of it.
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
    let sentence = format!(
        "{error}{}; nothing is ordered for it within an hour, as if an attempt had just failed",
        aside.unwrap_or_default()
    );
    (state, Some(sentence))
}

fn moved(aside: Result<Option<std::path::PathBuf>, StoreError>) -> Option<String> {
    Some(match aside {
        Ok(path) => format!("; it is kept as {}", path?.display()),
        Err(e) => format!("; it stays where it is: {e}"),
    })
}
