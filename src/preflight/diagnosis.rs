//! What evidence means: for a name and each of its addresses what was seen, what the CA would make of it,
//! and what to do. Pure.
//!
//! [`Certainty::Certain`] stops an order, so it is said only where nothing else explains what was seen. A
//! preflight looks from inside: a timeout may be a router that does not turn packets round, an address of
//! this machine's own is reached past its packet filter, a resolver may be told other things than the
//! world is.

mod across;
mod address;
mod answer;
mod cause;
mod name;
mod server;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::caa;
use super::evidence::Dns;
use super::sighting::Sighting;
use crate::hostname::Identifier;

pub use cause::Cause;

/// Something that was found out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Finding {
    /// About what.
    pub identifier: Identifier,
    /// About which of its addresses; `None` where it is about the name.
    pub address: Option<IpAddr>,
    /// About which issuer alone, by its name in the configuration; `None` where it is about every one.
    #[serde(default)]
    pub issuer: Option<String>,
    /// What it is.
    pub cause: Cause,
    /// What the CA would make of it.
    pub certainty: Certainty,
    /// What was seen, and where.
    pub seen: String,
    /// What that means.
    pub means: String,
    /// What to do; empty where there is nothing to do.
    pub remedy: String,
}

/// What the CA would make of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Certainty {
    /// As it should be.
    Fine,
    /// Inconclusive from here, or the CA has a way round it.
    Warning,
    /// The CA would fail.
    Certain,
}

/// From where a CA comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// It is one of the world's, out there: it reaches no private address.
    World,
    /// It may be one of this network: it reaches private addresses, and loopback not.
    Network,
    /// It is on this machine.
    Machine,
}

/// What is known besides the evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surroundings {
    /// Where the gate listens, or is to listen.
    pub gate: Vec<SocketAddr>,
    /// The gate cannot listen there: another program does.
    pub taken: bool,
    /// From where the CA comes.
    pub reach: Reach,
    /// The CA is the embedded one: it comes to the gate itself.
    pub direct: bool,
}

/// What was gathered about one identifier.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The identifier.
    pub identifier: &'a Identifier,
    /// What name servers say; `None` for an address, and where the CA asks none.
    pub dns: Option<&'a Dns>,
    /// What CAA records are asked, for each issuer in its turn.
    pub issuers: &'a [Asker<'a>],
    /// Every address that was asked.
    pub sightings: &'a [Sighting],
    /// Addresses that were left out because there are too many.
    pub left_out: usize,
    /// The canary's key authorization.
    pub expected: &'a [u8],
}

/// An issuer, as CAA records see it.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    /// Its name in the configuration.
    pub name: &'a str,
    /// What it asks them.
    pub caa: caa::Question<'a>,
}

/// The findings about one identifier: about the name first, then about each address, then about all of them
/// together.
pub fn diagnose(subject: &Subject<'_>, surroundings: &Surroundings) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(dns) = subject.dns {
        findings.extend(name::of_dns(subject.identifier, dns, subject.issuers));
    }
    for sighting in subject.sightings {
        let ip = sighting.address.ip();
        let is_private = !surroundings.direct && surroundings.reach.misses(ip);
        if is_private {
            findings.push(name::private(subject.identifier, ip));
        }
        let judged = address::judge(sighting, subject.expected, surroundings);
        // A CA out there never comes to an address like this: what answers there says little.
        let certainty = if is_private { judged.certainty.min(Certainty::Warning) } else { judged.certainty };
        findings.push(Finding {
            identifier: subject.identifier.clone(),
            address: Some(ip),
            issuer: None,
            cause: judged.cause,
            certainty,
            seen: judged.seen,
            means: judged.means,
            remedy: judged.remedy,
        });
    }
    across::settle(&mut findings, subject.identifier);
    if subject.left_out > 0 {
        findings.push(across::left_out(subject));
    }
    findings
}

impl Reach {
    /// Whether the CA cannot come to such an address.
    fn misses(self, address: IpAddr) -> bool {
        match self {
            Self::World => address::is_private(address),
            Self::Network => address::is_local(address),
            Self::Machine => false,
        }
    }
}

impl Surroundings {
    /// Whether the gate listens on port 80 of an address, as far as the machine's own are meant.
    fn covers(&self, address: IpAddr) -> bool {
        self.gate.iter().any(|listen| {
            let ip = listen.ip();
            let takes = match ip {
                IpAddr::V6(any) if any.is_unspecified() => true,
                IpAddr::V4(any) if any.is_unspecified() => address.is_ipv4(),
                one => one == address,
            };
            listen.port() == 80 && takes
        })
    }

    /// Where the gate is, for instructions: `127.0.0.1:8402`, or `[::1]:8402`.
    fn forward_to(&self) -> String {
        let Some(listen) = self.gate.first() else { return "the gate".to_owned() };
        match listen.ip() {
            ip if ip.is_unspecified() && listen.port() == 80 => "THIS-MACHINE:80".to_owned(),
            ip if ip.is_unspecified() => format!("127.0.0.1:{}", listen.port()),
            _ => listen.to_string(),
        }
    }

    fn listens_on(&self) -> String {
        self.gate.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
}
