//! A certificate that may be served: it exists only if chain, key and names agree.
//!
//! What a CA sends is believed only after [`Certificate::new`] has proven it; what was proven once and
//! read back from disk passes [`Certificate::stored`], which leaves the dates out: an old certificate
//! that is still served is better than none.

mod bundle;

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::SignatureAlgorithm;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use zeroize::Zeroizing;

pub use bundle::{Bundle, BundleError};

use crate::hostname::{Hostname, Identifier};
use crate::words::rough;

/// What a private key signs with, as far as two certificates of one lineage differ in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Algorithm {
    /// ECDSA
    Ecdsa,
    /// RSA
    Rsa,
}

impl Algorithm {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Ecdsa, Self::Rsa];

    /// Its name in paths and files: `ecdsa` or `rsa`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ecdsa => "ecdsa",
            Self::Rsa => "rsa",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ecdsa => "ECDSA",
            Self::Rsa => "RSA",
        })
    }
}

/// A chain (leaf first, each certificate signed by the next), its private key, and what they say.
#[derive(Clone)]
pub struct Certificate {
    certified: Arc<CertifiedKey>,
    key: Arc<PrivateKeyDer<'static>>,
    key_pem: Zeroizing<String>,
    identifiers: Vec<Identifier>,
    wildcards: Vec<Hostname>,
    not_before: SystemTime,
    not_after: SystemTime,
    serial: String,
    issuer: String,
}

/// Why a chain and a key are not served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// No PEM certificate was found, or one cannot be read.
    #[error("the chain cannot be read: {0}")]
    Chain(String),
    /// No private key was found, or it cannot be used.
    #[error("the private key cannot be read: {0}")]
    Key(String),
    /// The key belongs to another certificate.
    #[error(
        "the private key does not belong to the certificate (serial {serial}): they were made for different keys"
    )]
    KeyMismatch {
        /// The leaf's serial number, hex.
        serial: String,
    },
    /// The first certificate signs others.
    #[error(
        "the first certificate of the chain (`{0}`) is a CA's own: the server's certificate must come first"
    )]
    LeafIsCa(String),
    /// The leaf may not be used by a server.
    #[error("the certificate may not be used for servers: its extended key usage lacks serverAuth")]
    NotForServers,
    /// The chain is there, in another order.
    #[error(
        "the chain is in the wrong order: certificate {position} was issued by `{issuer}`, which stands at position {found} in place of {wanted}"
    )]
    Order {
        /// One-based place of the certificate whose issuer is misplaced.
        position: usize,
        /// Its issuer's name.
        issuer: String,
        /// Where the issuer stands.
        found: usize,
        /// Where it should stand.
        wanted: usize,
    },
    /// A link is missing.
    #[error(
        "the chain is broken: certificate {position} was issued by `{issuer}`, but the next one is `{next}`"
    )]
    Broken {
        /// One-based place of the certificate whose issuer is missing.
        position: usize,
        /// Its issuer's name.
        issuer: String,
        /// The subject found in its place.
        next: String,
    },
    /// Names agree, the signature does not.
    #[error(
        "the chain is broken: `{issuer}` did not sign certificate {position}, though it carries its name"
    )]
    Signature {
        /// One-based place of the certificate with the wrong signature.
        position: usize,
        /// The supposed issuer's name.
        issuer: String,
    },
    /// A wanted identifier is missing.
    #[error("the certificate does not cover {missing}: it is for {present}")]
    NotCovered {
        /// What was wanted and is missing.
        missing: String,
        /// What the certificate names.
        present: String,
    },
    /// Not valid any more.
    #[error("the certificate expired {ago} ago: is this machine's clock right?", ago = rough(*.0))]
    Expired(Duration),
    /// Not valid yet.
    #[error("the certificate is not valid for another {ahead}: is this machine's clock right?", ahead = rough(*.0))]
    NotYetValid(Duration),
}

/// How far a CA's clock may be ahead of ours.
const SKEW: Duration = Duration::from_secs(300);

impl Certificate {
    /// Proves a chain that a CA sent for `wanted`, at the moment `now`.
    ///
    /// # Errors
    /// Everything that [`CertificateError`] lists; a start up to five minutes ahead is forgiven.
    pub fn new(
        chain_pem: &str,
        key_pem: &str,
        wanted: &[Identifier],
        now: SystemTime,
    ) -> Result<Self, CertificateError> {
        let certificate = Self::stored(chain_pem, key_pem)?;
        let missing: Vec<_> =
            wanted.iter().filter(|i| !certificate.covers(i)).map(ToString::to_string).collect();
        if !missing.is_empty() {
            return Err(CertificateError::NotCovered {
                missing: missing.join(", "),
                present: certificate.names(),
            });
        }
        if let Ok(ago) = now.duration_since(certificate.not_after) {
            return Err(CertificateError::Expired(ago));
        }
        match certificate.not_before.duration_since(now) {
            Ok(ahead) if ahead > SKEW => Err(CertificateError::NotYetValid(ahead)),
            _ => Ok(certificate),
        }
    }

    /// Proves all but names and dates, for a chain and a key that were proven before they were stored.
    ///
    /// # Errors
    /// Everything that [`CertificateError`] lists, but for names and dates.
    pub fn stored(chain_pem: &str, key_pem: &str) -> Result<Self, CertificateError> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain_pem.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|e| match e {
                PemError::MissingSectionEnd { .. } => {
                    CertificateError::Chain("it breaks off in the middle of a certificate".to_owned())
                }
                e => CertificateError::Chain(e.to_string()),
            })?;
        if chain.is_empty() {
            return Err(CertificateError::Chain("there is no PEM certificate in it".to_owned()));
        }
        let parsed: Vec<_> = chain
            .iter()
            .enumerate()
            .map(|(i, der)| match X509Certificate::from_der(der) {
                Ok(([], parsed)) => Ok(parsed),
                Ok(_) => Err(CertificateError::Chain(format!("certificate {} has trailing bytes", i + 1))),
                Err(e) => Err(CertificateError::Chain(format!("certificate {}: {e}", i + 1))),
            })
            .collect::<Result<_, _>>()?;
        check_leaf(&parsed[0])?;
        check_links(&parsed)?;
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
            .map_err(|e| CertificateError::Key(e.to_string()))?;
        let signing = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key)
            .map_err(|e| CertificateError::Key(e.to_string()))?;

        let leaf = &parsed[0];
        let (identifiers, wildcards) = names_of(leaf)?;
        let (not_before, not_after) =
            (time_of(leaf.validity().not_before), time_of(leaf.validity().not_after));
        let serial = leaf.raw_serial().iter().map(|b| format!("{b:02x}")).collect::<String>();
        let issuer = leaf.issuer().to_string();
        drop(parsed);
        let certified = CertifiedKey::new(chain, signing);
        if certified.keys_match().is_err() {
            return Err(CertificateError::KeyMismatch { serial });
        }
        Ok(Self {
            certified: Arc::new(certified),
            key: Arc::new(key),
            key_pem: Zeroizing::new(key_pem.to_owned()),
            identifiers,
            wildcards,
            not_before,
            not_after,
            serial,
            issuer,
        })
    }

    /// The exact identifiers and the parents of the wildcards that the first certificate of a chain names,
    /// with nothing proven.
    ///
    /// # Errors
    /// There is no certificate in it that can be read.
    pub fn names_in(chain_pem: &str) -> Result<(Vec<Identifier>, Vec<Hostname>), CertificateError> {
        let der = CertificateDer::from_pem_slice(chain_pem.as_bytes())
            .map_err(|e| CertificateError::Chain(e.to_string()))?;
        let (_, leaf) =
            X509Certificate::from_der(&der).map_err(|e| CertificateError::Chain(e.to_string()))?;
        names_of(&leaf)
    }

    /// Chain and signing key as the TLS library wants them.
    pub fn certified(&self) -> Arc<CertifiedKey> {
        self.certified.clone()
    }

    /// What its key signs with; `None` for a kind that wicketgate does not make itself.
    pub fn algorithm(&self) -> Option<Algorithm> {
        match self.certified.key.algorithm() {
            SignatureAlgorithm::ECDSA => Some(Algorithm::Ecdsa),
            SignatureAlgorithm::RSA => Some(Algorithm::Rsa),
            _ => None,
        }
    }

    /// The chain, leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    /// The private key.
    pub fn key(&self) -> &PrivateKeyDer<'static> {
        &self.key
    }

    /// The private key as PEM.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// The leaf alone as PEM.
    pub fn leaf_pem(&self) -> String {
        pem_of(&self.chain()[..1])
    }

    /// Everything but the leaf as PEM, perhaps empty.
    pub fn issuers_pem(&self) -> String {
        pem_of(&self.chain()[1..])
    }

    /// Leaf and issuers as PEM.
    pub fn fullchain_pem(&self) -> String {
        pem_of(self.chain())
    }

    /// The exact names and addresses in the leaf's subjectAltName, sorted.
    pub fn identifiers(&self) -> &[Identifier] {
        &self.identifiers
    }

    /// The parents of wildcard names in the leaf: `example.net` for `*.example.net`.
    pub fn wildcards(&self) -> &[Hostname] {
        &self.wildcards
    }

    /// Whether the leaf names this identifier, by itself or by a wildcard of one label.
    pub fn covers(&self, identifier: &Identifier) -> bool {
        self.identifiers.binary_search(identifier).is_ok()
            || match identifier {
                Identifier::Dns(name) => name
                    .as_str()
                    .split_once('.')
                    .is_some_and(|(_, parent)| self.wildcards.iter().any(|w| w.as_str() == parent)),
                Identifier::Ip(_) => false,
            }
    }

    /// Start of validity.
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// End of validity.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// The leaf's serial number, hex.
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// The distinguished name of the one who signed the leaf.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Whether one of these certificates signed the chain's last one.
    pub fn is_signed_by_one_of(&self, roots: &[CertificateDer<'_>]) -> bool {
        let Some(Ok((_, last))) = self.chain().last().map(|der| X509Certificate::from_der(der)) else {
            return false;
        };
        roots.iter().filter_map(|der| X509Certificate::from_der(der).ok()).any(|(_, root)| {
            root.subject().as_raw() == last.issuer().as_raw()
                && last.verify_signature(Some(root.public_key())).is_ok()
        })
    }

    fn names(&self) -> String {
        let exact = self.identifiers.iter().map(ToString::to_string);
        let names: Vec<_> = exact.chain(self.wildcards.iter().map(|w| format!("*.{w}"))).collect();
        if names.is_empty() { "no name at all".to_owned() } else { names.join(", ") }
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("identifiers", &self.identifiers)
            .field("serial", &self.serial)
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}

fn check_leaf(leaf: &X509Certificate<'_>) -> Result<(), CertificateError> {
    if leaf.is_ca() {
        return Err(CertificateError::LeafIsCa(leaf.subject().to_string()));
    }
    let usage =
        leaf.extended_key_usage().map_err(|e| CertificateError::Chain(format!("certificate 1: {e}")))?;
    match usage {
        Some(usage) if !usage.value.server_auth && !usage.value.any => Err(CertificateError::NotForServers),
        _ => Ok(()),
    }
}

fn check_links(chain: &[X509Certificate<'_>]) -> Result<(), CertificateError> {
    for (i, pair) in chain.windows(2).enumerate() {
        let [child, parent] = pair else { continue };
        let (position, issuer) = (i + 1, child.issuer().to_string());
        if child.issuer().as_raw() != parent.subject().as_raw() {
            let elsewhere = chain
                .iter()
                .enumerate()
                .find(|(j, c)| *j != i && c.subject().as_raw() == child.issuer().as_raw());
            return Err(match elsewhere {
                Some((j, _)) => {
                    CertificateError::Order { position, issuer, found: j + 1, wanted: position + 1 }
                }
                None => CertificateError::Broken { position, issuer, next: parent.subject().to_string() },
            });
        }
        if !parent.is_ca() || child.verify_signature(Some(parent.public_key())).is_err() {
            return Err(CertificateError::Signature { position, issuer });
        }
    }
    Ok(())
}

fn names_of(leaf: &X509Certificate<'_>) -> Result<(Vec<Identifier>, Vec<Hostname>), CertificateError> {
    let extension = leaf
        .subject_alternative_name()
        .map_err(|e| CertificateError::Chain(format!("certificate 1: subjectAltName: {e}")))?;
    let (mut exact, mut wildcards) = (BTreeSet::new(), BTreeSet::new());
    for name in extension.iter().flat_map(|e| &e.value.general_names) {
        match name {
            GeneralName::DNSName(text) => match text.strip_prefix("*.") {
                Some(parent) => wildcards.extend(Hostname::parse_any(parent)),
                None => exact.extend(Hostname::parse_any(text).map(Identifier::Dns)),
            },
            GeneralName::IPAddress(bytes) => {
                let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                let v6 = <[u8; 16]>::try_from(*bytes).map(IpAddr::from);
                exact.extend(v4.or(v6).map(Identifier::Ip));
            }
            _ => {}
        }
    }
    Ok((exact.into_iter().collect(), wildcards.into_iter().collect()))
}

fn time_of(time: x509_parser::time::ASN1Time) -> SystemTime {
    let seconds = time.timestamp();
    let distance = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { SystemTime::UNIX_EPOCH - distance } else { SystemTime::UNIX_EPOCH + distance }
}

fn pem_of(chain: &[CertificateDer<'_>]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    chain.iter().map(|der| pem::encode_config(&pem::Pem::new("CERTIFICATE", der.to_vec()), config)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    };

    /// A root → intermediate → leaf made for the test, as PEM texts.
    struct Made {
        root: String,
        intermediate: String,
        leaf: String,
        key: String,
    }

    const DAY: Duration = Duration::from_secs(86_400);

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + DAY * 20_000
    }

    fn authority(
        name: &str,
        key: &KeyPair,
        by: Option<&Issuer<'_, &KeyPair>>,
    ) -> (CertificateParams, String) {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = match by {
            Some(issuer) => params.signed_by(key, issuer).unwrap().pem(),
            None => params.self_signed(key).unwrap().pem(),
        };
        (params, pem)
    }

    fn made(names: &[&str], from: SystemTime, to: SystemTime) -> Made {
        let (root_key, middle_key, key) =
            (KeyPair::generate().unwrap(), KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let (root_params, root) = authority("root", &root_key, None);
        let root_issuer = Issuer::new(root_params, &root_key);
        let (middle_params, intermediate) = authority("intermediate", &middle_key, Some(&root_issuer));
        let middle_issuer = Issuer::new(middle_params, &middle_key);
        let mut params =
            CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        params.not_before = from.into();
        params.not_after = to.into();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let leaf = params.signed_by(&key, &middle_issuer).unwrap().pem();
        Made { root, intermediate, leaf, key: key.serialize_pem() }
    }

    fn usual() -> Made {
        made(&["a.example", "b.example", "192.0.2.1", "*.w.example"], now() - DAY, now() + DAY * 89)
    }

    fn ids(names: &[&str]) -> Vec<Identifier> {
        names.iter().map(|n| n.parse().unwrap()).collect()
    }

    #[test]
    fn a_complete_pair_is_accepted_and_told() {
        let m = usual();
        let chain = format!("{}{}", m.leaf, m.intermediate);
        let c = Certificate::new(&chain, &m.key, &ids(&["B.example", "192.0.2.1", "x.w.example"]), now())
            .unwrap();
        assert_eq!(c.identifiers(), ids(&["a.example", "b.example", "192.0.2.1"]));
        assert_eq!(c.not_after(), now() + DAY * 89);
        assert_eq!(c.issuer(), "CN=intermediate");
        assert_eq!(c.chain().len(), 2);
        assert_eq!(Certificate::stored(&c.fullchain_pem(), c.key_pem()).unwrap().serial(), c.serial());
        assert_eq!(format!("{}{}", c.leaf_pem(), c.issuers_pem()), c.fullchain_pem());
        assert!(!c.covers(&"y.x.w.example".parse().unwrap()));
        assert!(!format!("{c:?}").contains("PRIVATE"));
    }

    #[test]
    fn what_does_not_fit_is_refused_with_its_reason() {
        let (m, other) = (usual(), usual());
        let wanted = ids(&["a.example"]);
        let good = format!("{}{}", m.leaf, m.intermediate);
        let check = |chain: &str, key: &str, wanted: &[Identifier], at| {
            Certificate::new(chain, key, wanted, at).map(drop).unwrap_err().to_string()
        };
        let cases = [
            (check("", &m.key, &wanted, now()), "there is no PEM certificate in it"),
            (check("<html>", &m.key, &wanted, now()), "there is no PEM certificate in it"),
            (check(&good, "", &wanted, now()), "the private key cannot be read"),
            (check(&good, &other.key, &wanted, now()), "does not belong to the certificate"),
            (
                check(&format!("{}{}", m.intermediate, m.leaf), &m.key, &wanted, now()),
                "`CN=intermediate`) is a CA's own",
            ),
            (
                check(&format!("{}{}{}", m.leaf, m.root, m.intermediate), &m.key, &wanted, now()),
                "wrong order: certificate 1 was issued by `CN=intermediate`, which stands at position 3 in place of 2",
            ),
            (
                check(&format!("{}{}", m.leaf, m.root), &m.key, &wanted, now()),
                "but the next one is `CN=root`",
            ),
            (
                check(&format!("{}{}", m.leaf, other.intermediate), &m.key, &wanted, now()),
                "did not sign certificate 1",
            ),
            (
                check(&good, &m.key, &ids(&["a.example", "c.example"]), now()),
                "does not cover c.example: it is for",
            ),
            (check(&good, &m.key, &wanted, now() + DAY * 90), "expired 24 hours ago"),
            (check(&good, &m.key, &wanted, now() - DAY * 3), "not valid for another 2 days"),
        ];
        for (message, part) in cases {
            assert!(message.contains(part), "{message:?} should say {part:?}");
        }
    }

    #[test]
    fn a_clock_a_little_behind_is_forgiven() {
        let m = made(&["a.example"], now(), now() + DAY);
        let chain = format!("{}{}", m.leaf, m.intermediate);
        assert!(Certificate::new(&chain, &m.key, &ids(&["a.example"]), now() - SKEW).is_ok());
    }
}
