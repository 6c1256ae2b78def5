//! Certificates that somebody else obtains and keeps in files: what is in these, and what is to be said of them.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::certificate::Certificate;
use crate::config::ForeignCertificate;
use crate::folder::read_file;

/// The largest file that is read, bytes.
const LIMIT: u64 = 1 << 20;

/// The state of a certificate from files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct FilesStatus {
    /// Its name.
    pub name: String,
    /// The file with certificate and chain.
    pub fullchain: PathBuf,
    /// The file with the private key.
    pub key: PathBuf,
    /// The front serves what the following keys tell of; else they tell of what is in the files.
    pub served: bool,
    /// The names in it, wildcards too.
    pub identifiers: Vec<String>,
    /// Serial number, hex.
    pub serial: Option<String>,
    /// Who signed it.
    pub signed_by: Option<String>,
    /// Start of validity.
    pub not_before: Option<Timestamp>,
    /// End of validity.
    pub not_after: Option<Timestamp>,
    /// Days until its end, negative after that.
    pub days_left: Option<f64>,
    /// The part of its lifetime that is left, 1 to 0.
    pub fraction_left: Option<f64>,
    /// Why what is in the files now cannot be served.
    pub trouble: Option<String>,
}

impl FilesStatus {
    /// Of one that nothing is known of yet.
    pub fn unknown(certificate: &ForeignCertificate) -> Self {
        Self {
            name: certificate.name.clone(),
            fullchain: certificate.fullchain.clone(),
            key: certificate.key.clone(),
            served: false,
            identifiers: Vec::new(),
            serial: None,
            signed_by: None,
            not_before: None,
            not_after: None,
            days_left: None,
            fraction_left: None,
            trouble: None,
        }
    }

    /// With what is to be said of a certificate that was read.
    #[must_use]
    pub fn with(self, read: &Certificate) -> Self {
        let stamp = |at| Timestamp::try_from(at).unwrap_or(Timestamp::MAX);
        let exact = read.identifiers().iter().map(ToString::to_string);
        Self {
            identifiers: exact.chain(read.wildcards().iter().map(|parent| format!("*.{parent}"))).collect(),
            serial: Some(read.serial().to_owned()),
            signed_by: Some(read.issuer().to_owned()),
            not_before: Some(stamp(read.not_before())),
            not_after: Some(stamp(read.not_after())),
            ..self
        }
    }

    /// With the time that is left then.
    #[must_use]
    pub fn at(self, now: SystemTime) -> Self {
        let now = Timestamp::try_from(now).unwrap_or(Timestamp::MAX);
        let rounded = |value: f64, parts: f64| (value * parts).round() / parts;
        let left = self.not_after.map(|end| end.duration_since(now).as_secs_f64());
        let lifetime =
            self.not_before.zip(self.not_after).map(|(from, to)| to.duration_since(from).as_secs_f64());
        Self {
            days_left: left.map(|left| rounded(left / 86_400.0, 100.0)),
            fraction_left: left
                .zip(lifetime)
                .map(|(left, lifetime)| rounded((left / lifetime.max(1.0)).clamp(0.0, 1.0), 1000.0)),
            ..self
        }
    }

    /// What is in the files, where nobody serves it.
    pub fn on_disk(certificate: &ForeignCertificate, now: SystemTime) -> Self {
        let status = Self::unknown(certificate);
        match read(&certificate.fullchain, &certificate.key) {
            Ok(certificate) => status.with(&certificate).at(now),
            Err(trouble) => Self { trouble: Some(trouble), ..status },
        }
    }
}

/// The certificate in a pair of PEM files.
///
/// # Errors
/// A sentence: what cannot be read, or what does not fit together.
pub fn read(fullchain: &Path, key: &Path) -> Result<Certificate, String> {
    let text = |path: &Path| {
        let bytes = read_file(path, LIMIT).map_err(|e| match e.kind() {
            io::ErrorKind::PermissionDenied => format!(
                "{} may not be read by this process: give its user or its group the right to (and to pass the folders above it)",
                path.display()
            ),
            _ => format!("{}: {e}", path.display()),
        })?;
        String::from_utf8(bytes).map_err(|_| format!("{} is no PEM file", path.display()))
    };
    Certificate::stored(&text(fullchain)?, &text(key)?).map_err(|e| e.to_string())
}
