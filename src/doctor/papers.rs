//! What a PEM file holds: certificates and what they say, a key and what it fits. Of a key only its public
//! half is kept. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use zeroize::Zeroizing;

use super::reading::Absence;
use crate::hostname::{Hostname, Identifier};

/// A file that a server is told to read a certificate or a key from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaperFile {
    /// Its path, and each one that links on the way made of it.
    pub hops: Vec<String>,
    /// What is in it.
    pub content: Result<Papers, Absence>,
    /// Everybody on this machine can read it.
    pub is_exposed: bool,
    /// Its type in SELinux's terms, where that is enforcing.
    pub label: Option<String>,
}

/// What is in a PEM file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Papers {
    /// Certificates in their order, as far as they can be read.
    pub certificates: Vec<Paper>,
    /// A key.
    pub key: Key,
    /// What cannot be read.
    pub damage: Option<String>,
    /// What is wrong with the order of the certificates.
    pub gap: Option<String>,
}

/// A private key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Key {
    /// There is none.
    #[default]
    None,
    /// It is protected by a password.
    Locked,
    /// It cannot be used; why.
    Damaged(String),
    /// Its public half (SubjectPublicKeyInfo).
    Public(Vec<u8>),
}

/// A certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paper {
    /// The whole, to compare by.
    pub der: Vec<u8>,
    /// Its SubjectPublicKeyInfo.
    pub public_key: Vec<u8>,
    /// Exact names and addresses.
    pub identifiers: Vec<Identifier>,
    /// The parents of wildcards.
    pub wildcards: Vec<Hostname>,
    /// Start of validity.
    pub not_before: SystemTime,
    /// End of validity.
    pub not_after: SystemTime,
    /// It signed itself.
    pub is_self_signed: bool,
    /// Who signed it.
    pub issuer: String,
}

impl Paper {
    /// Whether it is for that host.
    pub fn covers(&self, name: &Hostname) -> bool {
        self.identifiers.contains(&Identifier::Dns(name.clone()))
            || name
                .as_str()
                .split_once('.')
                .is_some_and(|(_, parent)| self.wildcards.iter().any(|w| w.as_str() == parent))
    }

    /// Its names, for a sentence.
    pub fn names(&self) -> String {
        let exact = self.identifiers.iter().map(ToString::to_string);
        let all: Vec<_> = exact.chain(self.wildcards.iter().map(|w| format!("*.{w}"))).collect();
        match all.len() {
            0 => "no name at all".to_owned(),
            1..=6 => all.join(", "),
            more => format!("{} and {} more", all[..5].join(", "), more - 5),
        }
    }
}

/// Reads a PEM file's bytes.
pub fn read(bytes: &[u8]) -> Papers {
    let mut papers = Papers::default();
    let mut ders = Vec::new();
    for item in CertificateDer::pem_slice_iter(bytes) {
        match item {
            Ok(der) => ders.push(der),
            Err(e) => papers.damage = papers.damage.take().or(Some(e.to_string())),
        }
    }
    let text = Zeroizing::new(String::from_utf8_lossy(bytes).into_owned());
    let marks = ["-----BEGIN ENCRYPTED PRIVATE KEY-----", "Proc-Type: 4,ENCRYPTED"];
    papers.key = if marks.iter().any(|mark| text.contains(mark)) { Key::Locked } else { key(bytes) };
    let parsed: Vec<_> = ders
        .iter()
        .enumerate()
        .filter_map(|(i, der)| match X509Certificate::from_der(der) {
            Ok((_, parsed)) => Some(parsed),
            Err(e) => {
                papers.damage.get_or_insert_with(|| format!("certificate {}: {e}", i + 1));
                None
            }
        })
        .collect();
    papers.gap = gap(&parsed);
    papers.certificates = parsed.iter().map(paper).collect();
    papers
}

fn key(bytes: &[u8]) -> Key {
    match PrivateKeyDer::from_pem_slice(bytes) {
        Ok(key) => match rustls::crypto::aws_lc_rs::sign::any_supported_type(&key) {
            Ok(signing) => match signing.public_key() {
                Some(public) => Key::Public(public.as_ref().to_vec()),
                None => Key::Damaged("its public half cannot be told".to_owned()),
            },
            Err(e) => Key::Damaged(e.to_string()),
        },
        Err(rustls::pki_types::pem::Error::NoItemsFound) => Key::None,
        Err(e) => {
            let has_one = bytes.windows(16).any(|window| window == b"PRIVATE KEY-----");
            if has_one { Key::Damaged(e.to_string()) } else { Key::None }
        }
    }
}

/// The first link of the chain that does not hold.
fn gap(chain: &[X509Certificate<'_>]) -> Option<String> {
    let leaf = chain.first()?;
    if chain.len() > 1 && leaf.is_ca() {
        return Some(format!("the first certificate is a CA's own (`{}`)", leaf.subject()));
    }
    chain.windows(2).enumerate().find_map(|(i, pair)| {
        let [child, parent] = pair else { return None };
        let (n, issuer) = (i + 1, child.issuer());
        if issuer.as_raw() != parent.subject().as_raw() {
            return Some(format!(
                "certificate {n} was issued by `{issuer}`, and the next one is `{}`",
                parent.subject()
            ));
        }
        let is_signed = child.verify_signature(Some(parent.public_key())).is_ok();
        (!is_signed).then(|| format!("`{issuer}` did not sign certificate {n}, though it carries its name"))
    })
}

fn paper(parsed: &X509Certificate<'_>) -> Paper {
    let (mut identifiers, mut wildcards) = (BTreeSet::new(), BTreeSet::new());
    let names = parsed.subject_alternative_name().ok().flatten();
    for name in names.iter().flat_map(|extension| &extension.value.general_names) {
        match name {
            GeneralName::DNSName(text) => match text.strip_prefix("*.") {
                Some(parent) => wildcards.extend(Hostname::parse_any(parent)),
                None => identifiers.extend(Hostname::parse_any(text).map(Identifier::Dns)),
            },
            GeneralName::IPAddress(bytes) => {
                let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                let v6 = <[u8; 16]>::try_from(*bytes).map(IpAddr::from);
                identifiers.extend(v4.or(v6).map(Identifier::Ip));
            }
            _ => {}
        }
    }
    Paper {
        der: parsed.as_raw().to_vec(),
        public_key: parsed.public_key().raw.to_vec(),
        identifiers: identifiers.into_iter().collect(),
        wildcards: wildcards.into_iter().collect(),
        not_before: moment(parsed.validity().not_before.timestamp()),
        not_after: moment(parsed.validity().not_after.timestamp()),
        is_self_signed: parsed.issuer().as_raw() == parsed.subject().as_raw(),
        issuer: parsed.issuer().to_string(),
    }
}

fn moment(seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let found = if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    };
    found.unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    #[test]
    fn a_file_tells_what_it_holds() {
        let key = KeyPair::generate().unwrap();
        let names = ["a.example", "*.w.example", "192.0.2.1"].map(str::to_owned);
        let made = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        let papers = read(format!("text\n{}{}", key.serialize_pem(), made.pem()).as_bytes());
        let [paper] = papers.certificates.as_slice() else { panic!("{papers:?}") };
        assert_eq!(papers.key, Key::Public(paper.public_key.clone()));
        assert_eq!(paper.names(), "a.example, 192.0.2.1, *.w.example");
        let covers = |name: &str| paper.covers(&Hostname::parse_any(name).unwrap());
        assert_eq!([covers("a.example"), covers("x.w.example"), covers("w.example")], [true, true, false]);
        assert!(paper.is_self_signed && papers.damage.is_none() && papers.gap.is_none());
        let other = KeyPair::generate().unwrap();
        assert_ne!(read(other.serialize_pem().as_bytes()).key, papers.key);
    }

    #[test]
    fn what_cannot_be_used_is_told() {
        assert_eq!(read(b""), Papers::default());
        let pem = |kind: &str| format!("-----BEGIN {kind}-----\nAA==\n-----END {kind}-----\n");
        assert_eq!(read(pem("ENCRYPTED PRIVATE KEY").as_bytes()).key, Key::Locked);
        let key = read(pem("PRIVATE KEY").as_bytes()).key;
        assert!(matches!(key, Key::Damaged(_)), "{key:?}");
        for text in [pem("CERTIFICATE").as_str(), "-----BEGIN CERTIFICATE-----\nAAAA"] {
            assert!(read(text.as_bytes()).damage.is_some(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_are_too_much(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
            kind in "(CERTIFICATE|PRIVATE KEY|EC PRIVATE KEY)",
        ) {
            read(&bytes);
            read(pem::encode(&pem::Pem::new(kind, bytes)).as_bytes());
        }
    }
}
