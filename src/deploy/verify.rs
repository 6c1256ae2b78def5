//! Whether a server shows what it was given: handshakes with it, as its clients make them.
//!
//! Only what new connections see counts. A server with several workers may mix for a while, so that five in a
//! row have to show the new leaf, in TLS 1.3 and 1.2 as far as the server speaks them, for every name; and
//! clients must be able to follow its chain ([`chain`]).

pub mod chain;
mod fault;
mod handshake;
mod inspection;
mod leaf;
mod roots;
mod showing;
mod starttls;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;

use crate::certificate::Certificate;
use crate::config::{Endpoint, Protocol};
use crate::hostname::Identifier;

pub use fault::{Fault, NotServed, Phase};
pub use inspection::{Inspection, Sighting, Turns, inspect, inspect_all};
pub use leaf::Leaf;
pub use roots::{Roots, RootsError};
pub use showing::{Served, shows};

/// New connections in a row that have to show the new leaf.
pub const CONNECTIONS: usize = 5;
/// Longest time for one connection, from its start to the end of the handshake.
const CONNECTION: Duration = Duration::from_secs(10);

/// Where a listener of this machine shows its certificates.
pub fn endpoint_of(listen: SocketAddr) -> Endpoint {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        // It takes IPv4 as well, and does so where there is no IPv6.
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        ip => ip,
    };
    Endpoint { proxy: false, protocol: Protocol::Tls, host: ip.to_string(), port: listen.port() }
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 1.2
    Tls12,
    /// 1.3
    Tls13,
}

impl Version {
    /// Those that are in use, the newest first.
    pub const ALL: [Self; 2] = [Self::Tls13, Self::Tls12];

    /// `1.3`
    pub fn number(self) -> &'static str {
        match self {
            Self::Tls12 => "1.2",
            Self::Tls13 => "1.3",
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TLS {}", self.number())
    }
}

/// Which keys a client can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// All that are in use.
    Any,
    /// RSA alone.
    Rsa,
    /// ECDSA alone.
    Ecdsa,
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "all",
            Self::Rsa => "RSA",
            Self::Ecdsa => "ECDSA",
        })
    }
}

/// What should be shown: a chain as the CA delivered it, leaf first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    chain: Vec<CertificateDer<'static>>,
    leaf: Leaf,
    client: Client,
}

impl Expected {
    /// Reads a chain; the key is not needed.
    ///
    /// # Errors
    /// It is empty, or its leaf cannot be read; in words.
    pub fn new(chain: Vec<CertificateDer<'static>>) -> Result<Self, String> {
        let first = chain.first().ok_or("there is no certificate in it")?;
        let leaf = Leaf::read(first)?;
        let (_, parsed) = X509Certificate::from_der(first).map_err(|e| e.to_string())?;
        let client = match parsed.public_key().parsed() {
            Ok(PublicKey::RSA(_)) => Client::Rsa,
            _ => Client::Ecdsa,
        };
        Ok(Self { leaf, client, chain })
    }

    /// The leaf, read.
    pub fn leaf(&self) -> &Leaf {
        &self.leaf
    }

    /// The leaf first.
    fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// Whether it is this one that was shown.
    fn is_shown_in(&self, shown: &[CertificateDer<'_>]) -> bool {
        shown.first().is_some_and(|leaf| leaf.as_ref() == self.chain[0].as_ref())
    }
}

impl From<&Certificate> for Expected {
    fn from(certificate: &Certificate) -> Self {
        Self::new(certificate.chain().to_vec()).expect("the leaf of a Certificate was read when it was made")
    }
}

/// What is expected by whom: one certificate by every client, each of several by those that can use its keys
/// only.
fn wanted(expected: &[Expected]) -> Vec<(Expected, Client)> {
    let is_alone = expected.len() == 1;
    let client = |one: &Expected| if is_alone { Client::Any } else { one.client };
    expected.iter().map(|one| (one.clone(), client(one))).collect()
}

/// What a shown chain is in place of the expected one: an older one of the same names, or another.
fn stranger(shown: &[CertificateDer<'_>], expected: &Expected, identifier: &Identifier) -> Fault {
    let leaf = match shown.first().map(|der| Leaf::read(der)) {
        Some(Ok(leaf)) => leaf,
        Some(Err(why)) => return Fault::Unreadable(why),
        None => return Fault::Unreadable("none was sent".to_owned()),
    };
    let covers = leaf.covers(identifier);
    let is_older = leaf.not_before <= expected.leaf.not_before && leaf.not_after <= expected.leaf.not_after;
    let has_its_names = leaf.names.iter().all(|name| expected.leaf.names.contains(name))
        || expected.leaf.names.iter().all(|name| leaf.names.contains(name));
    if covers && is_older && has_its_names && leaf.issuer != leaf.subject {
        Fault::Old(leaf)
    } else {
        Fault::Other { leaf, covers }
    }
}
