//! Doors in front of the gate, a packet filter's as a rule, opened for an order and shut again, whatever happens:
//! what is opened is written down first, and whoever comes next shuts what is written down.
//!
//! They open together or not at all. What fails to shut stays on the record and is shut by the next try.

mod nftables;
mod record;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::command::{self, Surroundings};
use crate::config::{Closing, Config, Opening, OpeningRecord as Record, OpeningWay};

/// The time that nft(8) may take.
const NFT_LIMIT: Duration = Duration::from_secs(10);

/// How often shutting is tried once the one who had it opened is gone.
const LAST_TRIES: u32 = 5;

/// How long all openings stay open once nobody renews them; `None` where there are none.
pub fn lease(openings: &[Opening]) -> Option<Duration> {
    openings.iter().map(|opening| opening.lease).min()
}

/// The longest that opening all of them, or shutting them, may take.
pub(super) fn limit(openings: &[Opening]) -> Duration {
    openings.iter().map(|opening| limit_of(&opening.closing())).sum::<Duration>() * 2
}

/// Whether something is on record as open.
pub fn is_on_record(state_dir: &Path) -> bool {
    record::exists(state_dir)
}

/// Opens every configured door, or renews it, and shuts those on record that the configuration does not have any
/// more. If one cannot be opened, all are shut.
///
/// # Errors
/// A sentence: which one could not be opened, and why.
pub(super) async fn open(config: &Config, is_renewed: bool, owner: &str) -> Result<(), String> {
    let state = config.state_dir.as_path();
    let Record { owner: other, open: before } = record::read(state)?;
    let wanted: Vec<_> = config.gate.openings.iter().map(Opening::closing).collect();
    let left: Vec<_> = before.iter().filter(|closing| !wanted.contains(closing)).cloned().collect();
    let all: Vec<_> = wanted.iter().chain(&left).cloned().collect();
    if all != before || other != owner {
        record::write(state, owner, &all)
            .map_err(|e| format!("nothing is opened, since it could not be written down: {e}"))?;
    }
    if !left.is_empty() {
        shut(state, &left).await.map_err(|told| told.join("; "))?;
    }
    for (place, (opening, closing)) in config.gate.openings.iter().zip(&wanted).enumerate() {
        if let Err(told) = open_one(opening, is_renewed && before.contains(closing)).await {
            // One that failed may have been opened by half; those behind it may be open from before.
            let touched = if before.is_empty() { &wanted[..=place] } else { &wanted[..] };
            record::write(state, owner, touched)?;
            let rest = match shut(state, touched).await {
                Ok(()) => "nothing is open".to_owned(),
                Err(told) => format!("AND NOT ALL COULD BE SHUT AGAIN: {}", told.join("; ")),
            };
            return Err(format!("{told}; {rest}"));
        }
    }
    Ok(())
}

/// The time that one may take to open, or to shut.
fn limit_of(closing: &Closing) -> Duration {
    match closing {
        Closing::Nftables { .. } => NFT_LIMIT,
        Closing::Command { timeout, .. } => Duration::from_secs(*timeout),
    }
}

async fn open_one(opening: &Opening, is_open: bool) -> Result<(), String> {
    match &opening.way {
        OpeningWay::Nftables { set, ports } => {
            let command = nftables::open(set, ports, opening.lease);
            run(&command, &BTreeMap::new(), NFT_LIMIT).await.map_err(|told| nftables::remedy(set, &told))
        }
        OpeningWay::Commands { .. } if is_open => Ok(()),
        OpeningWay::Commands { open, environment, timeout, .. } => run(open, environment, *timeout).await,
    }
}

/// Shuts everything that is on record.
///
/// # Errors
/// What could not be shut, and why, a sentence each; it stays on record.
pub async fn close(state_dir: &Path) -> Result<(), Vec<String>> {
    let open = record::read(state_dir).map_err(|told| vec![told])?.open;
    if open.is_empty() { Ok(()) } else { shut(state_dir, &open).await }
}

/// What is on record as open, in words.
///
/// # Errors
/// A sentence: the record cannot be used.
pub fn list(state_dir: &Path) -> Result<Vec<String>, String> {
    Ok(record::read(state_dir)?.open.iter().map(ToString::to_string).collect())
}

/// Whether what is on record was opened by that owner, and by nobody since. A record that cannot be used is for whoever
/// tries to shut by it to tell of.
pub(super) fn is_of(state_dir: &Path, owner: &str) -> bool {
    record::read(state_dir).map_or(true, |record| record.owner == owner)
}

/// Shuts everything, trying again for a while, for one that has nobody to tell but the log. What somebody else has
/// opened meanwhile is his to shut.
pub(super) async fn close_at_last(state_dir: &Path, owner: &str) {
    for attempt in 1..=LAST_TRIES {
        if !is_of(state_dir, owner) {
            return;
        }
        let Err(told) = close(state_dir).await else { return };
        for sentence in told {
            tracing::error!(
                "AN OPENING COULD NOT BE SHUT: {sentence}; `wicketgate openings close` tries again"
            );
        }
        if attempt < LAST_TRIES {
            tokio::time::sleep(Duration::from_secs(1 << attempt)).await;
        }
    }
}

async fn shut(state_dir: &Path, closings: &[Closing]) -> Result<(), Vec<String>> {
    let mut told = Vec::new();
    for closing in closings {
        match close_one(closing).await {
            Ok(()) => {
                let written = record::read(state_dir).and_then(|Record { owner, open }| {
                    let rest: Vec<_> = open.into_iter().filter(|other| other != closing).collect();
                    record::write(state_dir, &owner, &rest)
                });
                told.extend(written.err());
            }
            Err(reason) => told.push(format!("{closing} is still open: {reason}")),
        }
    }
    if told.is_empty() { Ok(()) } else { Err(told) }
}

async fn close_one(closing: &Closing) -> Result<(), String> {
    match closing {
        Closing::Nftables { set, ports } => {
            match run(&nftables::close(set, ports), &BTreeMap::new(), limit_of(closing)).await {
                Err(told) if nftables::is_gone(&told) => Ok(()),
                ran => ran.map_err(|told| nftables::remedy(set, &told)),
            }
        }
        Closing::Command { close, environment, .. } => run(close, environment, limit_of(closing)).await,
    }
}

async fn run(
    command: &[String],
    environment: &BTreeMap<String, String>,
    limit: Duration,
) -> Result<(), String> {
    command::run(command, &Surroundings::Server { environment }, limit).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_another_has_opened_since_is_left_to_him() {
        let state = tempfile::tempdir().unwrap();
        let closing = Closing::Command {
            close: vec!["/bin/true".to_owned()],
            environment: BTreeMap::new(),
            timeout: 5,
        };
        record::write(state.path(), "new", std::slice::from_ref(&closing)).unwrap();
        assert!(is_of(state.path(), "new") && !is_of(state.path(), "old"));
        close_at_last(state.path(), "old").await;
        assert!(is_on_record(state.path()));
        close_at_last(state.path(), "new").await;
        assert!(!is_on_record(state.path()));
        // What cannot be used is not passed over in silence.
        std::fs::write(state.path().join("openings.json"), "{").unwrap();
        assert!(is_of(state.path(), "old"));
    }
}
