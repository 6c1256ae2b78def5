//! Certificates of somebody else, read from files and read again when these change. Whoever writes them does it in some
//! order, and may be interrupted: what does not fit together is told and waited out, and the last good pair stays.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use jiff::Timestamp;

use super::watched::{INTERVAL, Mark, Trouble, mark};
use crate::clock;
use crate::config::{Config, ForeignCertificate};
use crate::foreign::{FilesStatus, read};
use crate::front::CertificateResolver;
use crate::hostname::Identifier;
use crate::notify::expiry::{Stage, stage};
use crate::words::rough;

/// The usual reason for a chain of one.
const CERT_PEM: &str = "clients that have not met that issuer before turn away; is it `cert.pem` in the place of `fullchain.pem`?";

/// All that are configured.
pub(super) struct ForeignCertificates {
    resolver: CertificateResolver,
    /// What the gate redirects for good.
    identifiers: Arc<ArcSwap<BTreeSet<Identifier>>>,
    watched: RefCell<Vec<Watched>>,
    /// The part of a lifetime below which its end is near.
    expiring_below: Cell<f64>,
}

struct Watched {
    certificate: ForeignCertificate,
    marks: Option<[Mark; 2]>,
    /// What is served.
    served: Option<FilesStatus>,
    /// How near its end was when that was logged last.
    stage: Option<Stage>,
    trouble: Trouble,
}

impl ForeignCertificates {
    pub(super) fn new(
        config: &Config,
        resolver: CertificateResolver,
        identifiers: Arc<ArcSwap<BTreeSet<Identifier>>>,
    ) -> Rc<Self> {
        let watched = RefCell::default();
        let all = Rc::new(Self { resolver, identifiers, watched, expiring_below: Cell::default() });
        all.reconfigure(config);
        all
    }

    /// Follows a changed configuration; reads what is new in it.
    pub(super) fn reconfigure(&self, config: &Config) {
        self.expiring_below.set(config.notify.expiring_below);
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
                let certificate = certificate.clone();
                let trouble = Trouble::default();
                watched.push(Watched { certificate, marks: None, served: None, stage: None, trouble });
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

    /// What is served of each, and why what is in its files is not.
    pub(super) fn status(&self) -> Vec<FilesStatus> {
        let now = clock::now();
        self.watched.borrow().iter().map(|watched| watched.status().at(now)).collect()
    }

    fn look(&self) {
        self.resolver.together(|| {
            for watched in self.watched.borrow_mut().iter_mut() {
                watched.look(&self.resolver);
                watched.look_at_end(self.expiring_below.get(), clock::now());
            }
        });
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
                self.stage = None;
                let status = FilesStatus::unknown(&self.certificate).with(&certificate);
                self.served = Some(FilesStatus { served: true, ..status });
                let not_after = Timestamp::try_from(certificate.not_after()).unwrap_or(Timestamp::MAX);
                let serial = certificate.serial();
                tracing::info!(certificate = %name, serial, %not_after, "serves the certificate of {}", fullchain.display());
            }
            Err(e) => self.is_wrong(e),
        }
    }

    /// Tells when the end of what is served is near, and when it is nearer still: whoever renews it may have failed.
    fn look_at_end(&mut self, expiring_below: f64, now: SystemTime) {
        let Some(FilesStatus { not_before: Some(from), not_after: Some(to), .. }) = self.served else {
            return;
        };
        let stage = stage(from.into(), to.into(), expiring_below, now);
        if stage <= self.stage {
            return;
        }
        self.stage = stage;
        let ForeignCertificate { name, fullchain, .. } = &self.certificate;
        let (not_after, fullchain) = (to, fullchain.display());
        match SystemTime::from(to).duration_since(now) {
            Ok(left) if stage != Some(Stage::Expired) => {
                tracing::warn!(certificate = %name, %not_after, "the certificate of {fullchain} expires in {}: whoever renews it has not yet", rough(left));
            }
            _ => {
                tracing::error!(certificate = %name, %not_after, "the certificate of {fullchain} has ENDED: whoever renews it has not");
            }
        }
    }

    fn status(&self) -> FilesStatus {
        let status = self.served.clone().unwrap_or_else(|| FilesStatus::unknown(&self.certificate));
        FilesStatus { trouble: self.trouble.told().map(str::to_owned), ..status }
    }

    fn is_wrong(&mut self, trouble: String) {
        let ForeignCertificate { name, fullchain, key } = &self.certificate;
        if self.trouble.is_due(&trouble, self.marks.is_some()) {
            let stays = if self.marks.is_some() { "; what was served before is served on" } else { "" };
            tracing::error!(certificate = %name, "{} and {} cannot be served: {trouble}{stays}", fullchain.display(), key.display());
        }
    }
}
