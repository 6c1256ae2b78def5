//! `check`: the preflight alone, by the daemon's own gate or by one that is open for the moment.

use tokio::task::JoinHandle;

use super::bind_gate;
use crate::admin::{CheckReport, CheckRequest};
use crate::challenge::ChallengeTable;
use crate::config::{ChallengeKind, Config};
use crate::gate::{self, GateLimits, GateState, Policy};
use crate::hostname::Identifier;
use crate::net::drain::StopTrigger;
use crate::net::inherited::Inherited;
use crate::preflight::{Preflight, PreflightError, VANTAGE};
use crate::renewal::ca_facts;
use crate::store::Store;

/// Identifiers that one check looks at.
const MOST: usize = 1000;

/// Why nothing was looked at.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// There is nobody to ask.
    #[error(transparent)]
    Preflight(#[from] PreflightError),
    /// Neither a certificate nor a name that one could be for.
    #[error(
        "`{name}` is neither a certificate of the configuration (it names {known}) nor a hostname or an address"
    )]
    Unknown {
        /// What was asked for.
        name: String,
        /// The certificates.
        known: String,
    },
    /// Nothing is configured.
    #[error(
        "the configuration names no certificate: name the hostnames to look at, as in `wicketgate check www.example.net`"
    )]
    Nothing,
    /// More than fit.
    #[error("{0} names are too many for one check, which looks at {MOST}: name some of them")]
    TooMany(usize),
}

/// Looks at names without a daemon: the gate is open for the moment, or where its port is taken, the look
/// says by whom. To be called inside a `LocalSet`.
///
/// # Errors
/// [`CheckError`]: nothing was looked at.
pub async fn check_once(config: Config, request: &CheckRequest) -> Result<CheckReport, CheckError> {
    let table = ChallengeTable::new();
    let (trigger, stop) = StopTrigger::new();
    let gate = GateState::new(table.clone(), Policy::from(&config.gate));
    let (serving, problem) = match bind_gate(&config, &mut Inherited::default()) {
        Ok(listeners) => {
            let limits = GateLimits::from(&config.gate);
            let serving = gate::serve_all(listeners, gate, limits, stop, config.grace);
            let serving: JoinHandle<()> = tokio::task::spawn_local(async move {
                if let Err(error) = serving.await {
                    tracing::error!(%error, "the gate cannot serve");
                }
            });
            (Some(serving), None)
        }
        Err(error) => (None, Some(error.to_string())),
    };
    let report = with_gate(&config, &request.names, &table, problem).await;
    trigger.stop();
    if let Some(serving) = serving {
        // A gate that panicked is shut as well.
        let _ = serving.await;
    }
    report
}

/// Looks at names while a gate answers from `table`; `problem` says why it does not.
pub(super) async fn with_gate(
    config: &Config,
    names: &[String],
    table: &ChallengeTable,
    problem: Option<String>,
) -> Result<CheckReport, CheckError> {
    let mut identifiers = identifiers(config, names)?;
    // A CA does not come to port 80 for these.
    let by_handshake: Vec<_> = config
        .certificates
        .iter()
        .filter(|certificate| certificate.challenge == ChallengeKind::TlsAlpn01)
        .flat_map(|certificate| &certificate.identifiers)
        .filter(|identifier| identifiers.contains(identifier))
        .cloned()
        .collect();
    identifiers.retain(|identifier| !by_handshake.contains(identifier));
    let mut preflight = Preflight::new(config)?;
    if problem.is_some() {
        preflight = preflight.with_port_taken();
    }
    let store = Store::open_existing(&config.state_dir).ok();
    let (cas, mut warnings) = ca_facts(config, store.as_ref()).await;
    warnings.extend(by_handshake.iter().map(|identifier| {
        format!("{identifier} goes by tls-alpn-01, in a handshake with the front: what a CA would find there is not looked at")
    }));
    Ok(CheckReport {
        issuer: config.acme.issuer.name(),
        issuers: cas.iter().map(|ca| ca.issuer.clone()).collect(),
        vantage: VANTAGE.to_owned(),
        gate_problem: problem,
        warnings,
        findings: preflight.look(&identifiers, table, &cas).await,
    })
}

/// What names stand for: a certificate's identifiers, or themselves; each once.
fn identifiers(config: &Config, names: &[String]) -> Result<Vec<Identifier>, CheckError> {
    let mut chosen = Vec::new();
    if names.is_empty() {
        chosen.extend(config.certificates.iter().flat_map(|c| c.identifiers.clone()));
    }
    for name in names {
        let named = config.certificates.iter().find(|c| c.name == *name);
        match (named, name.parse::<Identifier>()) {
            (Some(certificate), _) => chosen.extend(certificate.identifiers.clone()),
            (None, Ok(identifier)) => chosen.push(identifier),
            (None, Err(_)) => {
                let known: Vec<_> = config.certificates.iter().map(|c| c.name.as_str()).collect();
                return Err(CheckError::Unknown { name: name.clone(), known: known.join(", ") });
            }
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    chosen.retain(|identifier| seen.insert(identifier.clone()));
    match chosen.len() {
        0 => Err(CheckError::Nothing),
        1..=MOST => Ok(chosen),
        count => Err(CheckError::TooMany(count)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(Some(&path), Vec::new(), &crate::config::Flags::default()).unwrap()
    }

    #[test]
    fn names_are_certificates_hostnames_or_addresses() {
        let config = config(
            "[acme]\nissuer = \"embedded\"\n[[certificate]]\nname = \"web\"\nhostnames = [\"a.example\", \"b.example\"]\n[[certificate]]\nhostnames = [\"c.example\"]\n",
        );
        let chosen = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|n| (*n).to_owned()).collect();
            identifiers(&config, &names)
                .map(|ids| ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
                .map_err(|e| e.to_string())
        };
        assert_eq!(chosen(&[]).unwrap(), "a.example b.example c.example");
        assert_eq!(chosen(&["web", "b.example"]).unwrap(), "a.example b.example");
        assert_eq!(chosen(&["new.example", "192.0.2.1"]).unwrap(), "new.example 192.0.2.1");
        let error = chosen(&["wbe"]).unwrap_err();
        assert!(error.contains("`wbe`") && error.contains("web, c.example"), "{error}");
    }
}
