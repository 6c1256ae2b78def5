//! A rehearsal: the whole path to a certificate with a CA that does not matter, nothing left behind.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::asking::{Aim, Kind, Refusal};
use super::keeper::{Asked, Keeper, Outcome, UnknownNames};
use super::lineages::stamp;
use super::names::Chosen;
use super::report::{Event, What};
use crate::config::{CertificateRequest, ChallengeKind, Issuer};
use crate::store::{Store, StoreError};

/// Why no rehearsal was begun.
#[derive(Debug, thiserror::Error)]
pub enum RehearsalRefused {
    /// A name that there is not.
    #[error(transparent)]
    Names(#[from] UnknownNames),
    /// There is no certificate.
    #[error(
        "the configuration names no certificate, so there is nothing to rehearse: add a [[certificate]] with its hostnames"
    )]
    Nothing,
    /// There is no staging directory.
    #[error(
        "{issuer} has no staging directory that is known: leave out --staging to rehearse with the embedded CA, or name one in `acme.staging` where the issuer is configured by its URL"
    )]
    NoStaging {
        /// The issuer's name in the configuration.
        issuer: String,
    },
    /// The folder for what a rehearsal stores.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Keeper {
    /// Takes the named certificates, or all, the whole way with the embedded CA or, on demand, with the
    /// issuer's staging directory: preflight, order, proof, storage, and the reload of servers that have a
    /// certificate already. Nothing that is served changes.
    ///
    /// # Errors
    /// Nothing was begun.
    pub async fn rehearse(
        self: &Rc<Self>,
        names: &[String],
        staging: bool,
        told: Rc<dyn Fn(&Event)>,
    ) -> Result<Vec<Outcome>, RehearsalRefused> {
        let chosen = self.chosen(names)?;
        if chosen.is_empty() {
            return Err(RehearsalRefused::Nothing);
        }
        let _pass = self.pass.lock().await;
        let config = self.config();
        let issuer = if staging {
            let of = &config.acme.issuer;
            let own = matches!(of, Issuer::LetsEncryptStaging).then(|| of.clone());
            config
                .acme
                .staging_of(of)
                .or(own)
                .ok_or_else(|| RehearsalRefused::NoStaging { issuer: of.name() })?
        } else {
            Issuer::Embedded
        };
        let is_own = issuer == config.acme.issuer;
        let aside = Aside::new(&self.store)?;
        let mut outcomes = Vec::new();
        for request in config.certificates.iter().filter(|c| chosen.contains(&c.name)) {
            let tell = |what: What| told(&Event { certificate: request.name.clone(), what });
            outcomes.push(match self.rehearse_one(request, &issuer, &aside, &tell).await {
                Ok(passed) => {
                    tell(What::Rehearsed { passed });
                    Outcome::Well
                }
                Err(Refusal { kind: Kind::Limited(until), text, .. }) => {
                    tell(What::Limited { retry_at: stamp(until), reason: text });
                    Outcome::Later
                }
                Err(refusal) => {
                    tell(What::RehearsalFailed { error: refusal.text });
                    Outcome::Failed
                }
            });
        }
        self.door.shut().await;
        if !is_own {
            self.desk.dismiss(&issuer).await;
        }
        Ok(outcomes)
    }

    async fn rehearse_one(
        &self,
        request: &CertificateRequest,
        issuer: &Issuer,
        aside: &Aside,
        tell: &impl Fn(What),
    ) -> Result<String, Refusal> {
        let name = request.name.as_str();
        let config = self.config();
        tell(What::Step(format!("rehearsing with {}", issuer.name())));
        let local = |e: StoreError| Refusal::local(e.to_string());
        self.store.has_place_for(name).map_err(local)?;
        if request.challenge == ChallengeKind::TlsAlpn01 && *issuer == Issuer::Embedded {
            let text = "the CA in this program asks port 80 alone, and this certificate goes by tls-alpn-01: `rehearse --staging` has a CA ask the front";
            return Err(Refusal::local(text.to_owned()));
        }
        let (door, outlook) = self.expect_ca(request, tell).await?;
        if !outlook.condemned.is_empty() {
            let text = format!("{} would refuse: {}", config.acme.issuer.name(), outlook.text);
            return Err(Refusal::local(text));
        }
        for passed_over in config.acme.issuers() {
            let Some(why) = outlook.forbids(&passed_over.name(), &request.identifiers) else { break };
            let name = passed_over.name();
            tell(What::Warning(format!(
                "an order would not be placed at {name}, which would have to refuse: {why}"
            )));
        }
        let everything = Chosen { with: request.identifiers.clone(), without: Vec::new() };
        let obtained = self
            .ask_for(issuer, name, request, &everything, Aim::Try, &outlook, Asked::default(), tell)
            .await?;
        drop(door);
        aside.store.save(name, &obtained).map_err(local)?;
        let stored = aside.store.current(name).map_err(local)?;
        if stored.is_none_or(|(_, stored)| stored.serials() != obtained.serials()) {
            return Err(Refusal::local("what was stored is not what is read back".to_owned()));
        }
        tell(What::Step("the certificate is whole, and was stored and read back".to_owned()));
        let mut passed = "obtained and stored".to_owned();
        if !config.gate.openings.is_empty() {
            passed.push_str("; what stands before the gate opened");
            if *issuer == Issuer::Embedded {
                tell(What::Warning(
                    "what stands before the gate opened and shuts again, but this CA came from this very machine, which a packet filter as a rule lets through: `rehearse --staging` has one come from outside".to_owned(),
                ));
            }
        }
        for service in &request.deploy {
            if !self.is_live(name) {
                passed.push_str(&format!("; {service} is not reloaded, it has no certificate to take yet"));
                continue;
            }
            let is_tested = self
                .helper
                .check(&config, service)
                .await
                .map_err(|e| Refusal::local(format!("{service} would not take it: {e}")))?;
            if is_tested {
                tell(What::Step(format!("{service}: its configuration passes its own test")));
            }
            self.helper
                .reload(&config, service, &[name.to_owned()])
                .await
                .map_err(|e| Refusal::local(format!("{service} did not reload: {e}")))?;
            tell(What::Step(format!("{service}: reloaded what it has")));
            passed.push_str(&format!("; {service} reloads"));
        }
        Ok(passed)
    }
}

/// Where a rehearsal stores: a folder in the state directory, so that its rights and its disk are tried
/// too. Gone when it is dropped; one that a crash has left is swept away at the next start.
struct Aside {
    store: Store,
    within: PathBuf,
}

impl Aside {
    fn new(state: &Store) -> Result<Self, StoreError> {
        sweep(state)?;
        let within = folder(state);
        Ok(Self { store: Store::open(&within)?, within })
    }
}

fn folder(state: &Store) -> PathBuf {
    state.path().join("rehearsal")
}

/// Removes what a rehearsal has left behind that was killed. The state directory's lock is held.
///
/// # Errors
/// It is there and cannot be removed.
pub(super) fn sweep(state: &Store) -> Result<(), StoreError> {
    remove(&folder(state))
}

fn remove(folder: &Path) -> Result<(), StoreError> {
    match std::fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(StoreError::Io { action: "remove", path: folder.to_owned(), source: e })
        }
        _ => Ok(()),
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.within) {
            tracing::warn!("what a rehearsal stored stays: {error}");
        }
    }
}
