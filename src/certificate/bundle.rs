//! What is served for one lineage: a certificate, or a pair of an RSA and an ECDSA one for the same names.

use std::time::SystemTime;

use super::{Algorithm, Certificate};
use crate::hostname::{Hostname, Identifier};

/// One certificate, or two of different algorithms that are renewed, stored and served together. The first
/// is the one that is wanted most.
#[derive(Debug, Clone)]
pub struct Bundle {
    first: Certificate,
    second: Option<Second>,
}

#[derive(Debug, Clone)]
struct Second {
    certificate: Certificate,
    /// What both of them name: a CA may have added a name to one of them.
    identifiers: Vec<Identifier>,
    wildcards: Vec<Hostname>,
}

/// Why two certificates are no pair.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// Nothing would tell them apart.
    #[error("a pair needs one RSA and one ECDSA key, and both of these are {0}")]
    SameAlgorithm(String),
    /// They would serve different hosts.
    #[error(
        "the two certificates of a pair have no name in common: one is for {first}, the other for {second}"
    )]
    Strangers {
        /// What the first names.
        first: String,
        /// What the second names.
        second: String,
    },
}

impl From<Certificate> for Bundle {
    fn from(only: Certificate) -> Self {
        Self { first: only, second: None }
    }
}

impl Bundle {
    /// A pair, `first` the one that is wanted most.
    ///
    /// # Errors
    /// They are of one algorithm, or of one that no pair is made of; or they name different hosts.
    pub fn pair(first: Certificate, second: Certificate) -> Result<Self, BundleError> {
        match (first.algorithm(), second.algorithm()) {
            (Some(one), Some(other)) if one != other => {}
            (Some(one), _) => return Err(BundleError::SameAlgorithm(one.to_string())),
            _ => return Err(BundleError::SameAlgorithm("of another kind".to_owned())),
        }
        let identifiers: Vec<_> = first.identifiers().iter().filter(|i| second.covers(i)).cloned().collect();
        let wildcards: Vec<_> =
            first.wildcards().iter().filter(|w| second.wildcards().contains(w)).cloned().collect();
        if identifiers.is_empty() && wildcards.is_empty() {
            return Err(BundleError::Strangers { first: first.names(), second: second.names() });
        }
        Ok(Self { first, second: Some(Second { certificate: second, identifiers, wildcards }) })
    }

    /// One certificate, or the two of a pair in their order.
    ///
    /// # Errors
    /// As [`Bundle::pair`].
    pub fn new(first: Certificate, second: Option<Certificate>) -> Result<Self, BundleError> {
        match second {
            Some(second) => Self::pair(first, second),
            None => Ok(first.into()),
        }
    }

    /// The one that is wanted most, or the only one.
    pub fn first(&self) -> &Certificate {
        &self.first
    }

    /// The other one of a pair.
    pub fn second(&self) -> Option<&Certificate> {
        self.second.as_ref().map(|second| &second.certificate)
    }

    /// One or two, in their order.
    pub fn certificates(&self) -> impl Iterator<Item = &Certificate> {
        std::iter::once(&self.first).chain(self.second())
    }

    /// The one whose key is of that algorithm.
    pub fn of(&self, algorithm: Algorithm) -> Option<&Certificate> {
        self.certificates().find(|certificate| certificate.algorithm() == Some(algorithm))
    }

    /// The exact names and addresses that each of them has, sorted.
    pub fn identifiers(&self) -> &[Identifier] {
        self.second.as_ref().map_or(self.first.identifiers(), |second| &second.identifiers)
    }

    /// The parents of wildcard names that each of them has.
    pub fn wildcards(&self) -> &[Hostname] {
        self.second.as_ref().map_or(self.first.wildcards(), |second| &second.wildcards)
    }

    /// Whether each of them names this identifier.
    pub fn covers(&self, identifier: &Identifier) -> bool {
        self.certificates().all(|certificate| certificate.covers(identifier))
    }

    /// When the last of them has begun to be valid.
    pub fn not_before(&self) -> SystemTime {
        self.certificates().map(Certificate::not_before).fold(self.first.not_before(), SystemTime::max)
    }

    /// When the first of them ends: from then on some client is refused.
    pub fn not_after(&self) -> SystemTime {
        self.certificates().map(Certificate::not_after).fold(self.first.not_after(), SystemTime::min)
    }

    /// The first one's serial number, hex: another version has another.
    pub fn serial(&self) -> &str {
        self.first.serial()
    }

    /// The serial number of each, hex.
    pub fn serials(&self) -> Vec<String> {
        self.certificates().map(|certificate| certificate.serial().to_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, RsaKeySize, date_time_ymd};

    use super::*;

    fn certificate(algorithm: Algorithm, names: &[&str], from: i32, to: i32) -> Certificate {
        let key = match algorithm {
            Algorithm::Ecdsa => KeyPair::generate().unwrap(),
            Algorithm::Rsa => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap(),
        };
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(to, 1, 1);
        let leaf = params.self_signed(&key).unwrap();
        Certificate::stored(&leaf.pem(), &key.serialize_pem()).unwrap()
    }

    #[test]
    fn a_pair_is_as_good_as_the_weaker_of_the_two() {
        let rsa = certificate(Algorithm::Rsa, &["a.test", "b.test", "*.w.test"], 2024, 2040);
        let ecdsa = certificate(Algorithm::Ecdsa, &["b.test", "*.w.test", "x.w.test"], 2025, 2041);
        for (first, second) in [(&rsa, &ecdsa), (&ecdsa, &rsa)] {
            let pair = Bundle::pair(first.clone(), second.clone()).unwrap();
            assert_eq!(pair.serials(), [first.serial(), second.serial()]);
            assert_eq!(pair.serial(), first.serial());
            assert_eq!((pair.not_before(), pair.not_after()), (ecdsa.not_before(), rsa.not_after()));
            assert!(pair.identifiers().contains(&"b.test".parse().unwrap()));
            assert!(!pair.covers(&"a.test".parse().unwrap()), "only one of them has it");
            assert!(pair.covers(&"y.w.test".parse().unwrap()));
            assert_eq!(pair.of(Algorithm::Rsa).unwrap().serial(), rsa.serial());
            assert_eq!(pair.of(Algorithm::Ecdsa).unwrap().serial(), ecdsa.serial());
        }
        let alone = Bundle::from(rsa.clone());
        assert!(alone.second().is_none() && alone.of(Algorithm::Ecdsa).is_none());
        assert_eq!((alone.identifiers(), alone.not_after()), (rsa.identifiers(), rsa.not_after()));
    }

    #[test]
    fn what_is_no_pair_is_refused() {
        let one = certificate(Algorithm::Ecdsa, &["a.test"], 2024, 2040);
        let other = certificate(Algorithm::Rsa, &["c.test"], 2024, 2040);
        let twice = Bundle::pair(one.clone(), one.clone()).unwrap_err().to_string();
        assert!(twice.contains("both of these are ECDSA"), "{twice}");
        let strangers = Bundle::new(one, Some(other)).unwrap_err().to_string();
        assert!(strangers.contains("one is for a.test, the other for c.test"), "{strangers}");
    }
}
