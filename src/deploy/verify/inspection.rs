//! One endpoint and one name, looked at: what is shown, whoever put it there.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::chain::{self, Chain};
use super::fault::HANGUPS;
use super::handshake::{Failed, Hello, Shown, shake};
use super::{CONNECTION, CONNECTIONS, Client, Expected, Fault, Leaf, NotServed, Phase, Roots, Version};
use super::{stranger, wanted};
use crate::clock;
use crate::config::Endpoint;
use crate::hostname::Identifier;

/// Names that are looked at at once.
const AT_ONCE: usize = 16;
/// Those of them at one host, which is not to be flooded.
const AT_HOST: usize = 4;

/// Who may look when: a few names at once, and fewer at one host. Clones share the turns.
#[derive(Debug, Clone)]
pub struct Turns {
    all: Arc<Semaphore>,
    hosts: Arc<Mutex<BTreeMap<String, Arc<Semaphore>>>>,
}

impl Default for Turns {
    fn default() -> Self {
        Self { all: Arc::new(Semaphore::new(AT_ONCE)), hosts: Arc::default() }
    }
}

impl Turns {
    /// Waits for a turn at that host, which ends when what is returned is dropped.
    async fn take(&self, host: &str) -> [OwnedSemaphorePermit; 2] {
        let here = {
            let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
            hosts.entry(host.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(AT_HOST))).clone()
        };
        // In this order: who waits for a slow host keeps nobody from another.
        let here = here.acquire_owned().await.expect("nobody closes the semaphore");
        [here, self.all.clone().acquire_owned().await.expect("nobody closes the semaphore")]
    }
}

/// What an endpoint shows for a name.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// Where.
    pub endpoint: Endpoint,
    /// The name that was asked for.
    pub identifier: Identifier,
    /// The versions of TLS that it speaks, the newest first.
    pub versions: Vec<Version>,
    /// What was shown, each certificate once.
    pub sightings: Vec<Sighting>,
    /// Why it is not what it should be: no handshake, not the expected certificate, an incomplete chain.
    pub faults: Vec<NotServed>,
}

/// A certificate that was shown.
#[derive(Debug, Clone, PartialEq)]
pub struct Sighting {
    /// Where it came from.
    pub address: SocketAddr,
    /// The leaf.
    pub leaf: Leaf,
    /// Its chain.
    pub chain: Chain,
    /// Whether it is for the name that was asked for.
    pub covers: bool,
    /// Whether it is what was expected; `None` where nothing was.
    pub is_expected: Option<bool>,
}

/// Looks at `endpoint` as a client for `identifier` would. Where it is known what should be shown there, as
/// many connections are made as a deploy wants, since a server with several workers may mix; else one in each
/// version of TLS.
pub async fn inspect(
    endpoint: &Endpoint,
    identifier: &Identifier,
    expected: &[Expected],
    roots: &Roots,
    within: Duration,
) -> Inspection {
    let end = Instant::now() + within;
    let mut seen = Inspection {
        endpoint: endpoint.clone(),
        identifier: identifier.clone(),
        versions: Vec::new(),
        sightings: Vec::new(),
        faults: Vec::new(),
    };
    let mut looks: Vec<_> = wanted(expected).into_iter().map(|(one, client)| (Some(one), client)).collect();
    if looks.is_empty() {
        looks.push((None, Client::Any));
    }
    for (expected, client) in looks {
        seen.look(expected.as_ref(), client, roots, end).await;
    }
    seen.versions.sort_unstable_by(|one, other| other.cmp(one));
    seen.versions.dedup();
    seen
}

/// As [`inspect`], for each of `identifiers`, some at once; `within` is for each, once it has its turn. Where one
/// meets nobody to shake hands with, the others would not either: what has not begun by then is left out, and
/// none begins before the first has ended.
pub async fn inspect_all(
    endpoint: &Endpoint,
    identifiers: &[Identifier],
    expected: &[Expected],
    roots: &Roots,
    within: Duration,
    turns: &Turns,
) -> Vec<Inspection> {
    let Some((first, others)) = identifiers.split_first() else { return Vec::new() };
    let is_lost = |seen: &Inspection| seen.faults.iter().any(|fault| fault.fault.is_of_every_name());
    let turn = turns.take(&endpoint.host).await;
    let mut all = vec![inspect(endpoint, first, expected, roots, within).await];
    drop(turn);
    if is_lost(&all[0]) {
        return all;
    }
    let shared = Arc::new((endpoint.clone(), expected.to_vec(), roots.clone(), AtomicBool::new(false)));
    let mut running = JoinSet::new();
    for (place, identifier) in others.iter().cloned().enumerate() {
        let (shared, turns) = (shared.clone(), turns.clone());
        running.spawn(async move {
            let (endpoint, expected, roots, lost) = &*shared;
            let _turn = turns.take(&endpoint.host).await;
            if lost.load(Ordering::Relaxed) {
                return None;
            }
            let seen = inspect(endpoint, &identifier, expected, roots, within).await;
            lost.fetch_or(is_lost(&seen), Ordering::Relaxed);
            Some((place, seen))
        });
    }
    let mut rest: Vec<_> = running.join_all().await.into_iter().flatten().collect();
    rest.sort_by_key(|(place, _)| *place);
    all.extend(rest.into_iter().map(|(_, inspection)| inspection));
    all
}

impl Inspection {
    async fn look(&mut self, expected: Option<&Expected>, client: Client, roots: &Roots, end: Instant) {
        let count = if expected.is_some() { CONNECTIONS } else { Version::ALL.len() };
        let mut speaks = Version::ALL.to_vec();
        let (mut wrong, mut has_been_right) = (None, false);
        let (mut turn, mut hangups) = (0, 0);
        while turn < count {
            let version = speaks[turn % speaks.len()];
            let left = end.saturating_duration_since(Instant::now());
            let hello = Hello { identifier: self.identifier.clone(), version, client };
            let fault = if left.is_zero() {
                Some((None, Fault::TimedOut(Phase::Handshake)))
            } else {
                match shake(&self.endpoint, &hello, left.min(CONNECTION)).await {
                    Ok(shown) => {
                        self.versions.push(version);
                        let is_expected = expected.map(|one| one.is_shown_in(&shown.chain));
                        match (expected, is_expected) {
                            (Some(expected), Some(false)) => {
                                let fault = stranger(&shown.chain, expected, &self.identifier);
                                wrong.get_or_insert((Some(shown.address), version, fault));
                            }
                            _ => has_been_right = true,
                        }
                        self.note(&shown, expected, is_expected, (version, client), roots)
                    }
                    Err(failed) if failed.fault.is_decline(hangups + 1) && speaks.len() > 1 => {
                        speaks.retain(|spoken| *spoken != version);
                        None
                    }
                    // It may be a worker that ends.
                    Err(Failed { fault: Fault::Closed(Phase::Handshake), .. }) if hangups < HANGUPS => {
                        hangups += 1;
                        continue;
                    }
                    Err(failed) => Some((failed.address, failed.fault)),
                }
            };
            if let Some((address, fault)) = fault {
                self.blame(address, version, client, fault);
                break;
            }
            (turn, hangups) = (turn + 1, 0);
        }
        if let Some((address, version, fault)) = wrong {
            let fault = match fault {
                Fault::Old(leaf) | Fault::Other { leaf, .. } if has_been_right => Fault::Mixed { leaf },
                fault => fault,
            };
            self.blame(address, version, client, fault);
        }
    }

    /// Keeps what was shown; what is wrong with it as such.
    fn note(
        &mut self,
        shown: &Shown,
        expected: Option<&Expected>,
        is_expected: Option<bool>,
        (version, client): (Version, Client),
        roots: &Roots,
    ) -> Option<(Option<SocketAddr>, Fault)> {
        let leaf = match Leaf::read(&shown.chain[0]) {
            Ok(leaf) => leaf,
            Err(why) => return Some((Some(shown.address), Fault::Unreadable(why))),
        };
        let delivered = expected.filter(|_| is_expected == Some(true)).map_or(&[][..], Expected::chain);
        let chain = chain::judge(&shown.chain, delivered, &roots.anchors, clock::now());
        let sighting = Sighting {
            address: shown.address,
            covers: leaf.covers(&self.identifier),
            leaf,
            chain,
            is_expected,
        };
        if self.sightings.contains(&sighting) {
            return None;
        }
        // One that should not be there is a fault by itself.
        if !sighting.chain.is_complete() && is_expected != Some(false) {
            let fault = Fault::Incomplete(sighting.chain.verdict.clone());
            self.blame(Some(shown.address), version, client, fault);
        }
        self.sightings.push(sighting);
        None
    }

    fn blame(&mut self, address: Option<SocketAddr>, version: Version, client: Client, fault: Fault) {
        self.faults.push(NotServed {
            endpoint: self.endpoint.clone(),
            address,
            identifier: self.identifier.clone(),
            version,
            client,
            fault: Box::new(fault),
            others: 0,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn turns_are_few_and_fewer_at_one_host() {
        let (turns, began) = (Turns::default(), Instant::now());
        let under_way: Arc<Mutex<Vec<usize>>> = Arc::default();
        let mut running = JoinSet::new();
        // The first host is slow, and has the most to be looked at.
        for (host, count, seconds) in
            [(0, 20, 100), (1, 10, 1), (2, 10, 1), (3, 10, 1), (4, 10, 1), (5, 10, 1)]
        {
            for _ in 0..count {
                let (turns, under_way) = (turns.clone(), under_way.clone());
                running.spawn(async move {
                    let _turn = turns.take(&format!("h{host}")).await;
                    {
                        let mut under_way = under_way.lock().unwrap();
                        under_way.push(host);
                        assert!(under_way.len() <= AT_ONCE, "{under_way:?}");
                        assert!(under_way.iter().filter(|one| **one == host).count() <= AT_HOST);
                    }
                    tokio::time::sleep(Duration::from_secs(seconds)).await;
                    let mut under_way = under_way.lock().unwrap();
                    let place = under_way.iter().position(|one| *one == host).unwrap();
                    under_way.swap_remove(place);
                    (host, began.elapsed())
                });
            }
        }
        let mut ended = running.join_all().await;
        ended.sort();
        let last = |host| ended.iter().rfind(|(one, _)| *one == host).unwrap().1.as_secs();
        assert_eq!(last(0), 500);
        // The others share what it leaves.
        assert!((1..=5).all(|host| last(host) <= 6), "{ended:?}");
    }
}
