//! Certificates of somebody else, read from files and read again when these change. Whoever writes them does it in some
//! order, and may be interrupted: what does not fit together is told and waited out, and the last good pair stays.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwap;
use jiff::Timestamp;

use super::watched::{INTERVAL, Mark, Trouble, mark};
use crate::certificate::Certificate;
use crate::clock;
use crate::config::{Config, ForeignCertificate};
use crate::folder::read_file;
use crate::front::CertificateResolver;
use crate::hostname::Identifier;

/// The largest file that is read, bytes.
const LIMIT: u64 = 1 << 20;

/// The usual reason for a chain of one.
const CERT_PEM: &str = "clients that have not met that issuer before turn away; is it `cert.pem` in the place of `fullchain.pem`?";

/// All that are configured.
pub(super) struct ForeignCertificates {
    resolver: CertificateResolver,
    /// What the gate redirects for good.
    identifiers: Arc<ArcSwap<BTreeSet<Identifier>>>,
    watched: RefCell<Vec<Watched>>,
}

struct Watched {
    certificate: ForeignCertificate,
    marks: Option<[Mark; 2]>,
    trouble: Trouble,
}

impl ForeignCertificates {
    pub(super) fn new(
        config: &Config,
        resolver: CertificateResolver,
        identifiers: Arc<ArcSwap<BTreeSet<Identifier>>>,
    ) -> Rc<Self> {
        let all = Rc::new(Self { resolver, identifiers, watched: RefCell::default() });
        all.reconfigure(config);
        all
    }

    /// Follows a changed configuration; reads what is new in it.
    pub(super) fn reconfigure(&self, config: &Config) {
        let mut watched = self.watched.borrow_mut();
        watched.retain(|watched| {
            let stays = config.foreign_certificates.contains(&watched.certificate);
            if !stays {
                self.resolver.remove(&watched.certificate.name);
            }
            stays
        });
        for certificate in &config.foreign_certificates {
            if !watched.iter().any(|watched| watched.certificate == *certificate) {
                watched.push(Watched {
                    certificate: certificate.clone(),
                    marks: None,
                    trouble: Trouble::default(),
                });
            }
        }
        drop(watched);
        self.look();
    }

    /// Looks at them again and again.
    pub(super) async fn watch(&self) {
        loop {
            tokio::time::sleep(INTERVAL).await;
            self.look();
        }
    }

    fn look(&self) {
        for watched in self.watched.borrow_mut().iter_mut() {
            watched.look(&self.resolver);
        }
        let served = self.resolver.served();
        if !self.identifiers.load().is_superset(&served) {
            let mut identifiers = BTreeSet::clone(&self.identifiers.load());
            identifiers.extend(served.iter().cloned());
            self.identifiers.store(identifiers.into());
        }
    }
}

impl Watched {
    fn look(&mut self, resolver: &CertificateResolver) {
        let ForeignCertificate { name, fullchain, key } = &self.certificate;
        let marks = mark(fullchain).and_then(|first| Ok([first, mark(key)?]));
        match marks {
            // Unchanged, and served.
            Ok(marks) if self.marks == Some(marks) && !self.trouble.is_there() => return,
            _ => {}
        }
        match read(fullchain, key) {
            Ok(certificate) => {
                let is_alone =
                    certificate.chain().len() == 1 && !certificate.is_signed_by_one_of(certificate.chain());
                if is_alone && self.marks.is_some() {
                    let issuer = certificate.issuer();
                    return self.is_wrong(format!(
                        "the certificate comes alone, without the chain of `{issuer}`: {CERT_PEM}"
                    ));
                }
                if let Err(e) = resolver.install(name, &certificate.clone().into()) {
                    return self.is_wrong(e.to_string());
                }
                if is_alone {
                    tracing::error!(certificate = %name, "{} has the certificate alone, without the chain of `{}`, and is served for want of another: {CERT_PEM}", fullchain.display(), certificate.issuer());
                }
                self.trouble.is_over();
                self.marks = marks.ok();
                let not_after = Timestamp::try_from(certificate.not_after()).unwrap_or(Timestamp::MAX);
                if certificate.not_after() <= clock::now() {
                    tracing::error!(certificate = %name, %not_after, "serves the certificate of {}, which has ENDED: whoever renews it has not", fullchain.display());
                } else {
                    let serial = certificate.serial();
                    tracing::info!(certificate = %name, serial, %not_after, "serves the certificate of {}", fullchain.display());
                }
            }
            Err(e) => self.is_wrong(e),
        }
    }

    fn is_wrong(&mut self, trouble: String) {
        let ForeignCertificate { name, fullchain, key } = &self.certificate;
        if self.trouble.is_due(&trouble, self.marks.is_some()) {
            let stays = if self.marks.is_some() { "; what was served before is served on" } else { "" };
            tracing::error!(certificate = %name, "{} and {} cannot be served: {trouble}{stays}", fullchain.display(), key.display());
        }
    }
}

fn read(fullchain: &Path, key: &Path) -> Result<Certificate, String> {
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
