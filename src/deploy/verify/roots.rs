//! The roots that a chain may lead to: Mozilla's, and those of a private CA.

use std::io;
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::chain::Anchor;
use crate::folder::read_file;

/// Largest file, bytes; the public roots together are a quarter of it.
const MAX_FILE: u64 = 1 << 20;

/// Roots to trust.
#[derive(Clone)]
pub struct Roots {
    pub(super) anchors: Vec<Anchor>,
}

/// Why a file of roots cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// It cannot be read.
    #[error("cannot read the roots in {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// There is nothing in it.
    #[error("{} holds no PEM certificate, so no chain can lead to it: write the CA's root into it", .0.display())]
    Empty(PathBuf),
    /// One of them is damaged.
    #[error("{}: certificate {number} cannot be read: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Which, from 1.
        number: usize,
        /// Why not.
        reason: String,
    },
}

impl Roots {
    /// The public roots alone.
    pub fn public() -> Self {
        let anchors = webpki_roots::TLS_SERVER_ROOTS
            .iter()
            .map(|root| Anchor {
                subject: sequence(&root.subject),
                key: sequence(&root.subject_public_key_info),
            })
            .collect();
        Self { anchors }
    }

    /// The public roots, and those in a PEM file (`acme.roots`) where there is one.
    ///
    /// # Errors
    /// The file cannot be read, or holds no certificate.
    pub fn load(file: Option<&Path>) -> Result<Self, RootsError> {
        let mut roots = Self::public();
        if let Some(path) = file {
            roots.add_file(path)?;
        }
        Ok(roots)
    }

    /// Adds those in a PEM file.
    ///
    /// # Errors
    /// The file cannot be read, or holds no certificate.
    pub fn add_file(&mut self, path: &Path) -> Result<(), RootsError> {
        let text =
            read_file(path, MAX_FILE).map_err(|source| RootsError::File { path: path.to_owned(), source })?;
        let before = self.anchors.len();
        for (i, der) in CertificateDer::pem_slice_iter(&text).enumerate() {
            let damaged = |reason| RootsError::Damaged { path: path.to_owned(), number: i + 1, reason };
            let der = der.map_err(|e| damaged(e.to_string()))?;
            self.add(&der).map_err(damaged)?;
        }
        if self.anchors.len() == before { Err(RootsError::Empty(path.to_owned())) } else { Ok(()) }
    }

    /// Adds those in a PEM text; what cannot be read in it is passed over.
    pub fn add_pem(&mut self, text: &str) {
        for der in CertificateDer::pem_slice_iter(text.as_bytes()).flatten() {
            // One that cannot be read can be nobody's root.
            let _ = self.add(&der);
        }
    }

    fn add(&mut self, der: &[u8]) -> Result<(), String> {
        let (_, root) = X509Certificate::from_der(der).map_err(|e| e.to_string())?;
        self.anchors
            .push(Anchor { subject: root.subject().as_raw().to_vec(), key: root.public_key().raw.to_vec() });
        Ok(())
    }
}

/// The list of public roots holds the contents of these DER values, without tag and length.
fn sequence(content: &[u8]) -> Vec<u8> {
    let mut der = vec![0x30];
    match u8::try_from(content.len()) {
        Ok(length @ ..0x80) => der.push(length),
        _ => {
            let length = content.len().to_be_bytes();
            let significant: Vec<u8> = length.into_iter().skip_while(|byte| *byte == 0).collect();
            der.push(0x80 | u8::try_from(significant.len()).expect("a usize has 8 bytes at most"));
            der.extend_from_slice(&significant);
        }
    }
    der.extend_from_slice(content);
    der
}

#[cfg(test)]
mod tests {
    use super::*;
    use x509_parser::prelude::{SubjectPublicKeyInfo, X509Name};

    #[test]
    fn every_public_root_can_be_read() {
        let roots = Roots::public();
        assert!(roots.anchors.len() > 50);
        for anchor in &roots.anchors {
            X509Name::from_der(&anchor.subject).unwrap();
            SubjectPublicKeyInfo::from_der(&anchor.key).unwrap();
        }
    }

    #[test]
    fn files_that_cannot_be_used_are_explained() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("roots.pem");
        let load = || Roots::load(Some(&path)).map(|r| r.anchors.len()).map_err(|e| e.to_string());
        assert!(load().unwrap_err().starts_with("cannot read the roots in "));
        std::fs::write(&path, "nothing").unwrap();
        assert!(load().unwrap_err().contains("holds no PEM certificate"));
        std::fs::write(&path, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        assert!(load().unwrap_err().contains("certificate 1 cannot be read"));
        let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        std::fs::write(&path, made.cert.pem()).unwrap();
        assert_eq!(load().unwrap(), Roots::public().anchors.len() + 1);
    }
}
