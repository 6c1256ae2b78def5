//! What is stored about the configured certificates, and what follows from it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use jiff::Timestamp;

use super::report::{CertificateStatus, DeployStatus};
use super::schedule::{self, Decision, Known};
use crate::certificate::Certificate;
use crate::config::{CertificateRequest, Config, Issuer};
use crate::hostname::Identifier;
use crate::store::{LineageState, Store, Version};

/// The configured certificates by name.
#[derive(Debug, Default)]
pub struct Lineages(BTreeMap<String, Lineage>);

/// One certificate: what is wished, kept and live.
#[derive(Debug)]
pub(super) struct Lineage {
    pub(super) request: CertificateRequest,
    pub(super) issuer: Issuer,
    pub(super) state: LineageState,
    pub(super) live: Option<(Version, Certificate)>,
}

impl Lineages {
    /// Reads what is stored about each configured certificate. What cannot be read is told, one sentence
    /// each, and treated as missing; where the lock is held (`mend`), an older version that is whole takes
    /// the place of a damaged one.
    pub fn load(config: &Config, store: Option<&Store>, mend: bool) -> (Self, Vec<String>) {
        let mut told = Vec::new();
        let lineages = config.certificates.iter().map(|request| {
            let name = request.name.as_str();
            let (mut state, mut live) = (LineageState::default(), None);
            if let Some(store) = store {
                state = store.lineage_state(name).unwrap_or_else(|e| {
                    told.push(e.to_string());
                    LineageState::default()
                });
                live = store.current(name).unwrap_or_else(|e| {
                    told.push(e.to_string());
                    let mended = mend && matches!(store.fall_back(name), Ok(Some(_)));
                    if mended { store.current(name).unwrap_or_default() } else { None }
                });
            }
            let issuer = config.acme.issuer.clone();
            (name.to_owned(), Lineage { request: request.clone(), issuer, state, live })
        });
        let lineages = Self(lineages.collect());
        (lineages, told)
    }

    /// The names.
    pub fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    /// The live certificates.
    pub fn live(&self) -> impl Iterator<Item = (&str, &Certificate)> {
        self.0.iter().filter_map(|(name, l)| Some((name.as_str(), &l.live.as_ref()?.1)))
    }

    /// Every identifier that a live certificate covers for good: those of the embedded CA count only where
    /// it is the configured issuer.
    pub fn served(&self) -> BTreeSet<Identifier> {
        let for_good = self.0.values().filter(|l| !l.is_untrusted() || l.issuer == Issuer::Embedded);
        for_good.flat_map(|l| l.live.iter().flat_map(|(_, c)| c.identifiers().iter().cloned())).collect()
    }

    /// The next moment at which something is to be done; `None` without certificates.
    pub fn next_moment(&self, now: SystemTime) -> Option<SystemTime> {
        self.0.values().map(|l| l.next_moment(now)).min()
    }

    /// The state of every certificate.
    pub fn status(&self, store: Option<&Store>, config: &Config, now: SystemTime) -> Vec<CertificateStatus> {
        let path = |name: &str| match store {
            Some(store) => store.live_path(name),
            None => config.state_dir.join("live").join(name),
        };
        self.0.iter().map(|(name, l)| l.status(name, path(name).display().to_string(), now)).collect()
    }

    /// Attempts that were put off may be made at once.
    pub(super) fn forget_pauses(&mut self) {
        for lineage in self.0.values_mut() {
            lineage.state.attempts.retry_at = None;
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&Lineage> {
        self.0.get(name)
    }

    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut Lineage> {
        self.0.get_mut(name)
    }
}

impl Lineage {
    /// What to do about the certificate itself.
    pub(super) fn decide(&self, now: SystemTime) -> Decision {
        let unfit = self.unfit();
        let attempts = &self.state.attempts;
        let known = Known {
            validity: self.live.as_ref().map(|(_, c)| (c.not_before(), c.not_after())),
            obtained_at: self.state.obtained_at.map(SystemTime::from),
            unfit: unfit.as_deref(),
            retry_at: attempts
                .retry_at
                .filter(|_| self.state.attempted_for == self.request.identifiers)
                .map(SystemTime::from),
            failures: attempts.failures,
            jitter: self.jitter(),
            ..Known::default()
        };
        schedule::decide(&known, now)
    }

    /// What keeps its moments apart from those of others.
    pub(super) fn jitter(&self) -> f64 {
        schedule::jitter_of(&self.request.name)
    }

    /// Why the live certificate does not serve the present wish.
    fn unfit(&self) -> Option<String> {
        let (_, certificate) = self.live.as_ref()?;
        let wanted = &self.request.identifiers;
        let set = |list: &[Identifier]| list.iter().cloned().collect::<BTreeSet<_>>();
        let ordered = &self.state.ordered_for;
        if (!ordered.is_empty() && set(ordered) != set(wanted))
            || !wanted.iter().all(|i| certificate.covers(i))
        {
            return Some("its names in the configuration have changed".to_owned());
        }
        let issuer = self.issuer.name();
        if let Some(other) = self.state.issuer.as_ref().filter(|kept| **kept != issuer) {
            return Some(format!("it is from {other}, and {issuer} is configured"));
        }
        if self.state.key_type.is_some_and(|kept| kept != self.request.key_type) {
            return Some("another key type is configured".to_owned());
        }
        None
    }

    /// Whether the live version is the embedded CA's.
    fn is_untrusted(&self) -> bool {
        let issuer = self.state.issuer.clone().unwrap_or_else(|| self.issuer.name());
        issuer == Issuer::Embedded.name()
    }

    /// Servers that have yet to take the live version and may be tried at `now`.
    pub(super) fn due_deploys(&self, now: SystemTime) -> Vec<String> {
        self.pending_deploys().filter(|(_, at)| at.is_none_or(|at| at <= now)).map(|(name, _)| name).collect()
    }

    pub(super) fn pending_deploys(&self) -> impl Iterator<Item = (String, Option<SystemTime>)> {
        // What the embedded CA signed is never handed on, whatever is configured by now.
        let live = self.live.as_ref().filter(|_| !self.is_untrusted()).map(|(version, _)| *version);
        self.request.deploy.iter().filter_map(move |service| {
            let version = live?;
            let kept = self.state.deployed.get(service);
            if kept.is_some_and(|d| d.version == Some(version)) {
                return None;
            }
            let retry_at = kept.and_then(|d| d.attempts.retry_at).map(SystemTime::from);
            Some((service.clone(), retry_at))
        })
    }

    fn next_moment(&self, now: SystemTime) -> SystemTime {
        let order = match self.decide(now) {
            Decision::Order(_) => now,
            Decision::Wait { at, .. } | Decision::Held { at, .. } => at,
        };
        self.pending_deploys().map(|(_, at)| at.unwrap_or(now)).fold(order, SystemTime::min)
    }

    fn status(&self, name: &str, path: String, now: SystemTime) -> CertificateStatus {
        let (next, reason) = match self.decide(now) {
            Decision::Order(reason) => (now, reason.to_string()),
            Decision::Wait { at, why } | Decision::Held { at, why } => (at, why.to_string()),
        };
        let live = self.live.as_ref();
        let certificate = live.map(|(_, c)| c);
        let version = live.map(|(v, _)| *v);
        let deploys = self.request.deploy.iter().map(|service| {
            let kept = self.state.deployed.get(service).cloned().unwrap_or_default();
            let pending = version.is_some() && kept.version != version;
            DeployStatus {
                service: service.clone(),
                version: kept.version,
                pending,
                retry_at: kept.attempts.retry_at,
                last_error: kept.attempts.last_error,
            }
        });
        CertificateStatus {
            name: name.to_owned(),
            identifiers: self.request.identifiers.clone(),
            issuer: self.issuer.name(),
            untrusted: self.is_untrusted(),
            path,
            version,
            serial: certificate.map(|c| c.serial().to_owned()),
            signed_by: certificate.map(|c| c.issuer().to_owned()),
            not_before: certificate.map(|c| stamp(c.not_before())),
            not_after: certificate.map(|c| stamp(c.not_after())),
            next: stamp(next),
            reason,
            failures: self.state.attempts.failures,
            last_error: self.state.attempts.last_error.clone(),
            deploys: deploys.collect(),
        }
    }
}

/// A moment for a file or a person; one beyond the year 9999 is cut off there.
pub(super) fn stamp(moment: SystemTime) -> Timestamp {
    Timestamp::try_from(moment).unwrap_or(Timestamp::MAX)
}
