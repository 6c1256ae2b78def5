//! Certificates with every link that a public CA has: root → outer → inner → leaf.

use std::path::PathBuf;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use wicketgate::certificate::Certificate;
use wicketgate::clock;

use super::Bed;

const DAY: Duration = Duration::from_secs(86_400);

/// A CA of the test's own.
pub(crate) struct Ladder {
    root: CertifiedIssuer<'static, KeyPair>,
    outer: CertifiedIssuer<'static, KeyPair>,
    inner: CertifiedIssuer<'static, KeyPair>,
}

/// A leaf with its key.
pub(crate) struct Issued {
    leaf: String,
    key: String,
    chain: String,
}

impl Ladder {
    pub(crate) fn new() -> Self {
        let params = |name: &str| {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, name);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            params
        };
        let key = || KeyPair::generate().unwrap();
        let root = CertifiedIssuer::self_signed(params("Ladder Root"), key()).unwrap();
        let outer = CertifiedIssuer::signed_by(params("Ladder Outer"), key(), &root).unwrap();
        let inner = CertifiedIssuer::signed_by(params("Ladder Inner"), key(), &outer).unwrap();
        Self { root, outer, inner }
    }

    /// A leaf with that many days behind and before it.
    pub(crate) fn issue(&self, names: &[&str], behind: u32, before: u32) -> Issued {
        self.issue_for(KeyPair::generate().unwrap(), names, behind, before)
    }

    /// As [`Self::issue`], for an RSA key.
    pub(crate) fn issue_rsa(&self, names: &[&str], behind: u32, before: u32) -> Issued {
        let key = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        self.issue_for(key, names, behind, before)
    }

    fn issue_for(&self, key: KeyPair, names: &[&str], behind: u32, before: u32) -> Issued {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = (clock::now() - DAY * behind).into();
        params.not_after = (clock::now() + DAY * before).into();
        let leaf = params.signed_by(&key, &self.inner).unwrap().pem();
        Issued {
            chain: format!("{leaf}{}{}", self.inner.pem(), self.outer.pem()),
            leaf,
            key: key.serialize_pem(),
        }
    }

    /// Writes the root and tells its path.
    pub(crate) fn root(&self, bed: &Bed) -> PathBuf {
        bed.write("ladder-root.pem", self.root.pem())
    }

    /// What lies above the leaf, in this order: `inner`, `outer`, `root`.
    pub(crate) fn links(&self, names: &[&str]) -> String {
        let pem = |name: &&str| match *name {
            "inner" => self.inner.pem(),
            "outer" => self.outer.pem(),
            "root" => self.root.pem(),
            other => panic!("there is no {other}"),
        };
        names.iter().map(pem).collect()
    }
}

impl Issued {
    /// As it is stored.
    pub(crate) fn certificate(&self) -> Certificate {
        Certificate::stored(&self.chain, &self.key).unwrap()
    }

    /// Leaf and issuers as PEM.
    pub(crate) fn chain(&self) -> &str {
        &self.chain
    }

    /// The leaf alone as PEM.
    pub(crate) fn leaf(&self) -> &str {
        &self.leaf
    }

    /// The key as PEM.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }
}
