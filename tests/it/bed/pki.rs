//! Certificates for the peers themselves, and readers of those that come from them.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// A CA of the test's own, with one leaf for a server's API on loopback.
pub(crate) struct Pki {
    pub(crate) root: PathBuf,
    pub(crate) chain: PathBuf,
    pub(crate) key: PathBuf,
}

impl Pki {
    /// Writes `NAME-root.pem`, `NAME-chain.pem` and `NAME-key.pem` for a server with these names.
    pub(crate) fn new(dir: &Path, name: &str, subjects: &[&str]) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, format!("{name} test root"));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let root = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let subjects: Vec<String> = subjects.iter().map(|&subject| subject.to_owned()).collect();
        let leaf = CertificateParams::new(subjects).unwrap().signed_by(&key, &root).unwrap();
        let write = |suffix: &str, text: String| {
            let path = dir.join(format!("{name}-{suffix}.pem"));
            fs::write(&path, text).unwrap();
            path
        };
        Self {
            root: write("root", root.pem()),
            chain: write("chain", leaf.pem() + &root.pem()),
            key: write("key", key.serialize_pem()),
        }
    }
}

/// A certificate as a test looks at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Lower-case hex, colons between the bytes.
    pub(crate) serial: String,
    pub(crate) subject: String,
    pub(crate) issuer: String,
    /// DNS names and IP addresses, sorted.
    pub(crate) names: Vec<String>,
    /// Unix time.
    pub(crate) not_before: i64,
    /// Unix time.
    pub(crate) not_after: i64,
    /// `ecdsa` with its curve's object identifier, or `rsa` with its bits.
    pub(crate) key: String,
}

/// Every certificate in a PEM text, in order.
#[track_caller]
pub(crate) fn read_chain(pem: &str) -> Vec<Seen> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .map(|der| read(&der.expect("PEM of a certificate")))
        .collect()
}

/// Every certificate in a PEM file, in order.
#[track_caller]
pub(crate) fn read_chain_file(path: &Path) -> Vec<Seen> {
    read_chain(&fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

fn read(der: &[u8]) -> Seen {
    let (_, certificate) = X509Certificate::from_der(der).expect("a certificate");
    let mut names: Vec<String> = certificate
        .subject_alternative_name()
        .expect("a readable subjectAltName")
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .map(|name| match name {
            GeneralName::DNSName(name) => (*name).to_owned(),
            GeneralName::IPAddress(bytes) => match <[u8; 4]>::try_from(*bytes) {
                Ok(v4) => std::net::Ipv4Addr::from(v4).to_string(),
                Err(_) => std::net::Ipv6Addr::from(<[u8; 16]>::try_from(*bytes).unwrap()).to_string(),
            },
            other => panic!("an unexpected name: {other:?}"),
        })
        .collect();
    names.sort();
    let key = certificate.public_key();
    let key = match key.parsed().expect("a readable key") {
        x509_parser::public_key::PublicKey::RSA(rsa) => format!("rsa {}", rsa.key_size()),
        x509_parser::public_key::PublicKey::EC(point) => format!("ecdsa {}", point.key_size()),
        other => format!("{other:?}"),
    };
    Seen {
        serial: certificate.raw_serial_as_string(),
        subject: certificate.subject().to_string(),
        issuer: certificate.issuer().to_string(),
        names,
        not_before: certificate.validity().not_before.timestamp(),
        not_after: certificate.validity().not_after.timestamp(),
        key,
    }
}

#[test]
fn what_is_written_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::new(dir.path(), "api", &["localhost", "127.0.0.1", "::1"]);
    let chain = read_chain_file(&pki.chain);
    assert_eq!(chain.len(), 2);
    assert_eq!(chain[0].names, ["127.0.0.1", "::1", "localhost"]);
    assert_eq!(chain[0].issuer, chain[1].subject);
    assert_eq!(chain[0].key, "ecdsa 256");
}
