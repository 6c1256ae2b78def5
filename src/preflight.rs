//! What the CA would find, looked at before it is asked.
//!
//! For each hostname every address on its own: a real request for a canary that only this gate knows, as
//! the CA would send it. [`evidence`] and [`sighting`] are what was seen, [`diagnosis`] what it means,
//! pure. All of it is seen from inside: this machine's own addresses are reached over loopback, past its
//! packet filter, and a router may not turn packets round.

pub mod caa;
pub mod diagnosis;
pub mod dns;
pub mod evidence;
mod issuers;
mod probe;
pub mod sighting;
mod summary;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use aws_lc_rs::rand;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::Uri;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::challenge::{ChallengeTable, Pending, Purpose, Token};
use crate::config::{Acme, Config, Gate, Issuer};
use crate::hostname::Identifier;
use caa::Verdict;
use diagnosis::{Asker, Reach, Subject, Surroundings, diagnose};
use dns::{Resolver, ResolverError};
use evidence::CaaRecord;
use probe::Question;
use sighting::Sighting;

pub use diagnosis::{Cause, Certainty, Finding};
pub use issuers::{Standing, against, lost, standing};
pub use summary::{Summary, sentences, summary};

/// Names and addresses that are looked at at once.
const AT_ONCE: usize = 32;

/// Addresses of one family of one name that are looked at.
const ADDRESSES: usize = 8;

/// What is to be said beside every result.
pub const VANTAGE: &str = "this was looked at from inside: an address of this machine's own is reached over loopback, past its packet filter, and what a router does with packets from outside is not seen";

/// Why a preflight cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum PreflightError {
    /// There is no name server to ask.
    #[error("no preflight can be made: {0}")]
    Resolver(#[from] ResolverError),
}

/// What is known of a CA.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CaFacts {
    /// The issuer's name in the configuration.
    pub issuer: String,
    /// Its names in CAA records (`caaIdentities` of its directory).
    pub identities: Vec<String>,
    /// The account's URL, where there is an account.
    pub account_uri: Option<String>,
    /// Where it comes to, whatever the DNS says: the embedded CA comes to the gate itself.
    pub direct_to: Option<SocketAddr>,
}

/// Looks at names as a CA does.
#[derive(Debug)]
pub struct Preflight {
    resolver: Arc<Resolver>,
    gate: Vec<SocketAddr>,
    reach: Reach,
    taken: bool,
}

impl Preflight {
    /// By the configuration: its resolvers, its issuer, and its gate, which listens while
    /// [`look`](Self::look) is under way.
    ///
    /// # Errors
    /// There is no name server to ask.
    pub fn new(config: &Config) -> Result<Self, PreflightError> {
        Ok(Self {
            resolver: Arc::new(Resolver::new(&config.acme.resolvers)?),
            gate: config.gate.listen.clone(),
            reach: reach(&config.acme.issuer),
            taken: false,
        })
    }

    /// For a gate that cannot listen because another program holds its port.
    #[must_use]
    pub fn with_port_taken(self) -> Self {
        Self { taken: true, ..self }
    }

    /// Looks at identifiers, with a canary in the table that is gone when this ends. The findings stand in
    /// the order of the identifiers; each has at least one. CAA records are judged for each of the CAs, all
    /// else by the way of the first.
    pub async fn look(
        &self,
        identifiers: &[Identifier],
        table: &ChallengeTable,
        cas: &[CaFacts],
    ) -> Vec<Finding> {
        let mut random = [0; Canary::RANDOM];
        rand::fill(&mut random).expect("the system gives random numbers");
        let canary = Canary::new(&random);
        let _present = table.put(canary.token.clone(), canary.pending(identifiers));
        let inspection = Arc::new(Inspection {
            resolver: self.resolver.clone(),
            path: format!("/.well-known/acme-challenge/{}", canary.token.as_str()),
            expected: canary.key_authorization,
            cas: cas.to_vec(),
            surroundings: Surroundings {
                gate: self.gate.clone(),
                taken: self.taken,
                reach: self.reach,
                direct: cas.first().is_some_and(|ca| ca.direct_to.is_some()),
            },
            turns: Semaphore::new(AT_ONCE),
        });
        let mut under_way = JoinSet::new();
        for (position, identifier) in identifiers.iter().cloned().enumerate() {
            let inspection = inspection.clone();
            under_way.spawn(async move { (position, inspection.inspect(identifier).await) });
        }
        let mut found = under_way.join_all().await;
        found.sort_by_key(|(position, _)| *position);
        found.into_iter().flat_map(|(_, findings)| findings).collect()
    }
}

/// Whether a preflight makes sense before an order at an issuer. A CA on this very machine does not come by
/// port 80 where the gate is not there, so what answers there says nothing about it.
pub fn applies(config: &Acme, issuer: &Issuer, gate: &Gate) -> bool {
    config
        .preflight
        .unwrap_or_else(|| !is_here(issuer) || gate.listen.iter().any(|address| address.port() == 80))
}

fn is_here(issuer: &Issuer) -> bool {
    let Issuer::Directory(url) = issuer else { return false };
    let host = Uri::host(url).unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn reach(issuer: &Issuer) -> Reach {
    match issuer {
        Issuer::LetsEncrypt | Issuer::LetsEncryptStaging | Issuer::ZeroSsl | Issuer::Google => Reach::World,
        Issuer::Directory(_) if !is_here(issuer) => Reach::Network,
        Issuer::Directory(_) | Issuer::Embedded => Reach::Machine,
    }
}

/// A challenge that no CA has set: whoever answers it right is this gate.
struct Canary {
    token: Token,
    key_authorization: Bytes,
}

impl Canary {
    /// Half for the token, half for what stands in the thumbprint's place.
    const RANDOM: usize = 64;

    fn new(random: &[u8; Self::RANDOM]) -> Self {
        let (token, thumbprint) = random.split_at(Self::RANDOM / 2);
        let token = BASE64_URL_SAFE_NO_PAD.encode(token);
        let thumbprint = BASE64_URL_SAFE_NO_PAD.encode(thumbprint);
        Self {
            key_authorization: Bytes::from(format!("{token}.{thumbprint}")),
            token: token.parse().expect("base64url is a token's alphabet"),
        }
    }

    fn pending(&self, identifiers: &[Identifier]) -> Pending {
        let hosts: BTreeSet<_> = identifiers.iter().cloned().collect();
        Pending {
            key_authorization: self.key_authorization.clone(),
            hosts: Arc::new(hosts),
            purpose: Purpose::Canary,
        }
    }
}

/// One look at some identifiers, shared by the tasks that look.
struct Inspection {
    resolver: Arc<Resolver>,
    path: String,
    expected: Bytes,
    cas: Vec<CaFacts>,
    surroundings: Surroundings,
    turns: Semaphore,
}

impl Inspection {
    async fn inspect(self: Arc<Self>, identifier: Identifier) -> Vec<Finding> {
        let direct_to = self.cas.first().and_then(|ca| ca.direct_to);
        let askers: Vec<Asker<'_>> = self.cas.iter().map(asker).collect();
        let forbids = |records: &[CaaRecord]| {
            askers.iter().any(|a| matches!(caa::decide(records, &a.caa), Verdict::Forbidden { .. }))
        };
        let dns = match (&identifier, direct_to) {
            (Identifier::Dns(name), None) => {
                let _turn = self.turns.acquire().await;
                Some(self.resolver.look(name, &forbids).await)
            }
            _ => None,
        };
        let (addresses, left_out) = match (&dns, direct_to, &identifier) {
            (_, Some(gate), _) => (vec![gate], 0),
            (Some(dns), None, _) => {
                let (v6, v4) = probe::addresses(dns);
                choose(v6.collect(), v4.collect())
            }
            (None, None, Identifier::Ip(address)) => (vec![SocketAddr::new(*address, 80)], 0),
            (None, None, Identifier::Dns(_)) => (Vec::new(), 0),
        };
        let sightings = self.clone().probe_all(&identifier, addresses).await;
        let subject = Subject {
            identifier: &identifier,
            dns: dns.as_ref(),
            issuers: &askers,
            sightings: &sightings,
            left_out,
            expected: &self.expected,
        };
        diagnose(&subject, &self.surroundings)
    }

    async fn probe_all(
        self: Arc<Self>,
        identifier: &Identifier,
        addresses: Vec<SocketAddr>,
    ) -> Vec<Sighting> {
        let question = Question {
            identifier: identifier.clone(),
            path: self.path.clone(),
            follows: !self.surroundings.direct,
        };
        let mut under_way = JoinSet::new();
        for (position, address) in addresses.into_iter().enumerate() {
            let (inspection, question) = (self.clone(), question.clone());
            under_way.spawn(async move {
                let _turn = inspection.turns.acquire().await;
                (position, probe::probe(&question, address, &inspection.resolver).await)
            });
        }
        let mut seen = under_way.join_all().await;
        seen.sort_by_key(|(position, _)| *position);
        seen.into_iter().map(|(_, sighting)| sighting).collect()
    }
}

fn asker(ca: &CaFacts) -> Asker<'_> {
    let caa = caa::Question {
        identities: &ca.identities,
        account_uri: ca.account_uri.as_deref(),
        method: "http-01",
        wildcard: false,
    };
    Asker { name: &ca.issuer, caa }
}

/// The addresses that are asked, each once, IPv6 first, and how many are left out.
fn choose(v6: Vec<IpAddr>, v4: Vec<IpAddr>) -> (Vec<SocketAddr>, usize) {
    let mut chosen = Vec::new();
    let mut left_out = 0;
    for family in [v6, v4] {
        let distinct: BTreeSet<_> = family.into_iter().collect();
        left_out += distinct.len().saturating_sub(ADDRESSES);
        chosen.extend(distinct.into_iter().take(ADDRESSES).map(|ip| SocketAddr::new(ip, 80)));
    }
    (chosen, left_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canaries_look_like_key_authorizations() {
        let random: [u8; Canary::RANDOM] = std::array::from_fn(|n| n as u8);
        let canary = Canary::new(&random);
        let text = std::str::from_utf8(&canary.key_authorization).unwrap();
        let (token, thumbprint) = text.split_once('.').unwrap();
        assert_eq!(token, canary.token.as_str());
        assert_eq!((token.len(), thumbprint.len()), (43, 43));
        assert_ne!(token, thumbprint);
    }

    #[test]
    fn many_addresses_are_cut_and_counted() {
        let v4 = |n: u8| IpAddr::from([192, 0, 2, n]);
        let (chosen, left_out) = choose(vec!["2001:db8::1".parse().unwrap()], (0..12).map(v4).collect());
        assert_eq!((chosen.len(), left_out), (1 + ADDRESSES, 12 - ADDRESSES));
        assert!(chosen[0].is_ipv6());
        let (chosen, left_out) = choose(Vec::new(), vec![v4(1), v4(1)]);
        assert_eq!((chosen.len(), left_out), (1, 0));
    }

    fn gate(listen: &[&str]) -> Gate {
        Gate {
            listen: listen.iter().map(|text| text.parse().unwrap()).collect(),
            open: crate::config::GateOpen::Always,
            openings: Vec::new(),
            redirect: crate::config::Redirect {
                status: http::StatusCode::PERMANENT_REDIRECT,
                port: 443,
                hosts: crate::config::RedirectHosts::Any,
            },
            match_host: true,
            trusted_proxies: Vec::new(),
            max_connections: 1,
            max_connections_per_network: 1,
        }
    }

    fn acme(preflight: Option<bool>) -> Acme {
        Acme {
            issuer: Issuer::LetsEncrypt,
            contact: Vec::new(),
            terms_agreed: true,
            roots: None,
            fallback_issuers: Vec::new(),
            staging: None,
            eab: Vec::new(),
            concurrency: 1,
            preflight,
            resolvers: Vec::new(),
            limits: crate::config::RateLimits::default(),
        }
    }

    #[test]
    fn a_ca_on_this_machine_is_looked_at_by_port_80_only_where_the_gate_is_there() {
        let directory = |url: &'static str| Issuer::Directory(Uri::from_static(url));
        let (at_80, elsewhere) = (gate(&["[::]:80"]), gate(&["127.0.0.1:5002"]));
        for (issuer, gate, expected) in [
            (Issuer::LetsEncrypt, &elsewhere, true),
            (Issuer::Embedded, &elsewhere, true),
            (directory("https://ca.example.net/dir"), &elsewhere, true),
            (directory("https://localhost:14000/dir"), &elsewhere, false),
            (directory("https://127.0.0.1:14000/dir"), &elsewhere, false),
            (directory("https://[::1]:14000/dir"), &elsewhere, false),
            (directory("https://localhost:14000/dir"), &at_80, true),
        ] {
            assert_eq!(applies(&acme(None), &issuer, gate), expected, "{issuer:?} {:?}", gate.listen);
            assert!(applies(&acme(Some(true)), &issuer, gate));
            assert!(!applies(&acme(Some(false)), &issuer, gate));
        }
    }
}
