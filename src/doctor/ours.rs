//! What wicketgate's own configuration has to do with other servers. Pure.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use crate::config::{CertificateRequest, Config, Copies};
use crate::hostname::{Hostname, Identifier};

/// Our part of the matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ours {
    /// Whether the rest is known.
    pub configuration: Configuration,
    /// The state directory.
    pub state_dir: String,
    /// Where the gate listens.
    pub gate: Vec<SocketAddr>,
    /// Our own TLS front serves the certificates.
    pub has_front: bool,
    /// The certificates.
    pub certificates: Vec<OurCertificate>,
}

/// Where other servers reach the gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// `HOST:PORT`
    pub address: String,
    /// The gate has yet to be told to listen there.
    pub is_to_come: bool,
}

/// Whether there is a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Configuration {
    /// It is good.
    Good,
    /// There is none, neither file nor flags.
    Missing,
    /// It is wrong: all that is wrong with it.
    Wrong(Vec<String>),
}

/// A certificate of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OurCertificate {
    /// Its name.
    pub name: String,
    /// What it covers.
    pub identifiers: Vec<Identifier>,
    /// Where its present files are.
    pub live: String,
    /// Files that a deploy keeps fresh elsewhere.
    pub copies: Vec<String>,
}

impl OurCertificate {
    /// Whether it is for that host.
    pub fn covers(&self, name: &Hostname) -> bool {
        self.identifiers.iter().any(|identifier| matches!(identifier, Identifier::Dns(own) if own == name))
    }
}

impl From<&Config> for Ours {
    fn from(config: &Config) -> Self {
        let certificates = config.certificates.iter().map(|request| OurCertificate {
            name: request.name.clone(),
            identifiers: request.identifiers.clone(),
            live: config.state_dir.join("live").join(&request.name).to_string_lossy().into_owned(),
            copies: copies(config, request),
        });
        Self {
            configuration: Configuration::Good,
            state_dir: config.state_dir.to_string_lossy().into_owned(),
            gate: config.gate.listen.clone(),
            has_front: config.front.is_some(),
            certificates: certificates.collect(),
        }
    }
}

/// Where the deploys of a certificate put its files.
fn copies(config: &Config, request: &CertificateRequest) -> Vec<String> {
    let targets = request.deploy.iter().filter_map(|service| config.deploy.get(service)?.copies.as_ref());
    let path = |path: &Path, algorithm| Copies::path_for(path, &request.name, algorithm);
    let paths = targets.flat_map(Copies::files).flat_map(|(_, wanted)| {
        request.key_types.iter().filter_map(move |key| path(wanted, Some(key.algorithm())))
    });
    paths.map(|path| path.to_string_lossy().into_owned()).collect()
}

impl Ours {
    /// Where nothing is known.
    pub fn unknown(configuration: Configuration) -> Self {
        Self {
            configuration,
            state_dir: "/var/lib/wicketgate".to_owned(),
            gate: Vec::new(),
            has_front: false,
            certificates: Vec::new(),
        }
    }

    /// Whether nothing of it is known.
    pub fn is_unknown(&self) -> bool {
        self.configuration != Configuration::Good
    }

    /// Whether the gate is to hold port 80 itself.
    pub fn wants_port_80(&self) -> bool {
        self.is_unknown() || self.gate.iter().any(|address| address.port() == 80)
    }

    /// Whether the gate is to listen where somebody else does, on port 80 of an address (`None`: of all).
    pub fn collides(&self, address: Option<IpAddr>) -> bool {
        let mut ours = self.gate.iter().filter(|own| own.port() == 80).map(SocketAddr::ip);
        self.is_unknown() || ours.any(|own| own.is_unspecified() || address.is_none_or(|other| other == own))
    }

    /// Where other servers reach the gate; and whether it has yet to be told to listen there, on the first
    /// usual port that is not taken.
    pub fn gate_for_others(&self, is_taken: impl Fn(u16) -> bool) -> Gateway {
        match self.gate.iter().find(|address| address.port() != 80) {
            Some(own) if own.ip().is_unspecified() => {
                Gateway { address: format!("127.0.0.1:{}", own.port()), is_to_come: false }
            }
            Some(own) => Gateway { address: own.to_string(), is_to_come: false },
            None => {
                let free = (8080..8180).find(|port| !is_taken(*port)).unwrap_or(8402);
                Gateway { address: format!("127.0.0.1:{free}"), is_to_come: true }
            }
        }
    }

    /// Whether what is there is the gate; where the gate is not known, anything on this machine may be.
    pub fn is_gate(&self, host: &str, port: u16) -> bool {
        let host = host.trim_matches(['[', ']']);
        let ip = host.parse::<IpAddr>().ok();
        let is_local = host == "localhost" || ip.is_some_and(|ip| ip.is_loopback() || ip.is_unspecified());
        if self.is_unknown() {
            return is_local;
        }
        self.gate.iter().any(|own| {
            // What a name leads to is not looked up.
            let fits = own.ip().is_unspecified() || is_local || ip.is_none_or(|ip| ip == own.ip());
            own.port() == port && fits
        })
    }

    /// The certificate whose live files a path is among.
    pub fn owner_of(&self, path: &str) -> Option<&OurCertificate> {
        self.certificates.iter().find(|certificate| {
            let below = [
                format!("{}/", certificate.live),
                format!("{}/lineages/{}/", self.state_dir, certificate.name),
            ];
            below.iter().any(|folder| path.starts_with(folder.as_str()))
                || certificate.copies.iter().any(|copy| copy == path)
        })
    }
}
