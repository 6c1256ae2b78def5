//! The proof of a deploy: for each name new connections, until five in a row show the new leaf with its whole
//! chain, or the time is up.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::chain::{self, Anchor};
use super::handshake::{Hello, Shown, shake};
use super::{
    CONNECTION, CONNECTIONS, Client, Expected, Fault, NotServed, Phase, Roots, Version, stranger, wanted,
};
use crate::certificate::Certificate;
use crate::clock;
use crate::config::Endpoint;
use crate::hostname::Identifier;

/// How long the right certificate may come with an incomplete chain.
const OLD_WORKERS: Duration = Duration::from_secs(3);

/// Connections at once: a hundred names are quick, and a server is not flooded.
const AT_ONCE: usize = 8;
/// Pauses after what was not right, growing to the last one.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
];

/// An endpoint shows what it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// What clients put up with, one sentence each.
    pub warnings: Vec<String>,
    /// The versions of TLS that the server speaks, the newest first.
    pub versions: Vec<Version>,
}

/// Waits until new connections to `endpoint` show `certificates` for each of `identifiers`.
///
/// With several certificates each is expected by clients that can use its keys only; a name is asked for where
/// the certificate covers it.
///
/// # Errors
/// Not `within` that time; what was seen last.
pub async fn shows(
    endpoint: &Endpoint,
    certificates: &[Certificate],
    identifiers: &[Identifier],
    roots: &Roots,
    within: Duration,
) -> Result<Served, NotServed> {
    let expected: Vec<Expected> = certificates.iter().map(Expected::from).collect();
    let place = Arc::new(Place {
        endpoint: endpoint.clone(),
        anchors: roots.anchors.clone(),
        end: Instant::from_std(clock::monotonic() + within),
        permits: Semaphore::new(AT_ONCE),
    });
    let mut jobs: Vec<Job> = Vec::new();
    for (expected, client) in wanted(&expected) {
        for identifier in identifiers.iter().filter(|identifier| expected.leaf.covers(identifier)) {
            jobs.push(Job { identifier: identifier.clone(), expected: expected.clone(), client });
        }
    }

    let mut warnings = BTreeSet::new();
    if jobs.is_empty() {
        warnings.insert(format!("nothing was looked at {endpoint}: the certificate has no name to ask for"));
    }
    // Which versions the server speaks with such a client is found out once, with the first name.
    let mut learned: Vec<(Client, Vec<Version>)> = Vec::new();
    let mut rest = Vec::new();
    for job in jobs {
        if learned.iter().any(|(client, _)| *client == job.client) {
            rest.push(job);
            continue;
        }
        let client = job.client;
        let proof = job.run(place.clone(), Version::ALL.to_vec()).await?;
        warnings.extend(proof.warnings);
        learned.push((client, proof.versions));
    }
    let mut running = JoinSet::new();
    for job in rest {
        let speaks = learned.iter().find(|(client, _)| *client == job.client);
        let speaks = speaks.map_or_else(|| Version::ALL.to_vec(), |(_, versions)| versions.clone());
        running.spawn(job.run(place.clone(), speaks));
    }
    let mut failures = Vec::new();
    while let Some(joined) = running.join_next().await {
        match joined {
            Ok(Ok(proof)) => warnings.extend(proof.warnings),
            Ok(Err(failure)) => failures.push(failure),
            // It was never cancelled, so it has panicked, and so does this.
            Err(e) => std::panic::resume_unwind(e.into_panic()),
        }
    }
    let others = failures.len().saturating_sub(1);
    if let Some(first) = failures.into_iter().next() {
        return Err(NotServed { others, ..first });
    }
    let versions: BTreeSet<Version> = learned.into_iter().flat_map(|(_, versions)| versions).collect();
    Ok(Served { warnings: warnings.into_iter().collect(), versions: versions.into_iter().rev().collect() })
}

struct Place {
    endpoint: Endpoint,
    anchors: Vec<Anchor>,
    end: Instant,
    permits: Semaphore,
}

#[derive(Clone)]
struct Job {
    identifier: Identifier,
    expected: Expected,
    client: Client,
}

struct Proof {
    warnings: Vec<String>,
    versions: Vec<Version>,
}

/// What was seen that was not right.
struct Wrong {
    address: Option<SocketAddr>,
    version: Version,
    fault: Fault,
}

impl Job {
    /// Connects until enough in a row are right; `speaks` is what the server may speak.
    async fn run(self, place: Arc<Place>, speaks: Vec<Version>) -> Result<Proof, NotServed> {
        let mut versions = speaks.clone();
        let (mut row, mut turn, mut failures) = (0, 0, 0);
        let mut has_been_right = false;
        let mut wrong: Option<Wrong> = None;
        let mut broken_since: Option<Instant> = None;
        let mut warnings = BTreeSet::new();
        // Connections in a row, of each version, that came to nothing.
        let mut refused: BTreeMap<Version, usize> = BTreeMap::new();
        loop {
            let version = versions[turn % versions.len()];
            turn += 1;
            let Some(looked) = self.look(&place, version).await else {
                let wrong =
                    wrong.unwrap_or(Wrong { address: None, version, fault: Fault::TimedOut(Phase::Connect) });
                return Err(self.failure(&place, wrong, has_been_right));
            };
            let refused_before = refused.entry(version).or_insert(0);
            *refused_before = if looked.is_err() { *refused_before + 1 } else { 0 };
            match looked {
                Ok(shown) if self.expected.is_shown_in(&shown.chain) => {
                    has_been_right = true;
                    let chain =
                        chain::judge(&shown.chain, self.expected.chain(), &place.anchors, clock::now());
                    if chain.is_complete() {
                        row += 1;
                        warnings.extend(chain.warnings);
                        if row < CONNECTIONS {
                            continue;
                        }
                        return Ok(Proof { warnings: warnings.into_iter().collect(), versions });
                    }
                    let fault = Fault::Incomplete(chain.verdict);
                    let broken = Wrong { address: Some(shown.address), version, fault };
                    // An old worker may still go by the old configuration; after that, waiting mends nothing.
                    let since = *broken_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= OLD_WORKERS {
                        return Err(self.failure(&place, broken, false));
                    }
                    wrong = Some(broken);
                }
                Ok(shown) => {
                    let fault = stranger(&shown.chain, &self.expected, &self.identifier);
                    wrong = Some(Wrong { address: Some(shown.address), version, fault });
                }
                Err(failed) if failed.fault.is_decline(refused[&version]) && versions.len() > 1 => {
                    versions.retain(|spoken| *spoken != version);
                    wrong.get_or_insert(Wrong { address: failed.address, version, fault: failed.fault });
                    continue;
                }
                Err(failed) => {
                    // One that declines everything may yet learn.
                    versions.clone_from(&speaks);
                    // What the end of the wait has cut off says less than what was seen before.
                    let is_cut_off = matches!(failed.fault, Fault::TimedOut(_) | Fault::Slow { .. })
                        && Instant::now() >= place.end;
                    if !is_cut_off || wrong.is_none() {
                        wrong = Some(Wrong { address: failed.address, version, fault: failed.fault });
                    }
                }
            }
            row = 0;
            warnings.clear();
            let pause = PAUSES[failures.min(PAUSES.len() - 1)];
            failures += 1;
            tokio::time::sleep_until((Instant::now() + pause).min(place.end)).await;
        }
    }

    /// One connection; `None` where there is no time for it.
    async fn look(&self, place: &Place, version: Version) -> Option<Result<Shown, super::handshake::Failed>> {
        let permit = tokio::time::timeout_at(place.end, place.permits.acquire()).await.ok()?;
        let _permit = permit.expect("nobody closes the semaphore");
        let left = place.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        let hello = Hello { identifier: self.identifier.clone(), version, client: self.client };
        Some(shake(&place.endpoint, &hello, left.min(CONNECTION)).await)
    }

    fn failure(&self, place: &Place, wrong: Wrong, has_been_right: bool) -> NotServed {
        let fault = match wrong.fault {
            Fault::Old(leaf) | Fault::Other { leaf, .. } if has_been_right => Fault::Mixed { leaf },
            fault => fault,
        };
        NotServed {
            endpoint: place.endpoint.clone(),
            address: wrong.address,
            identifier: self.identifier.clone(),
            version: wrong.version,
            client: self.client,
            fault: Box::new(fault),
            others: 0,
        }
    }
}
