//! The only loop that attends to certificates: it sees what is due, and has it done, one pass at a time.
//!
//! What it does about one certificate stands in `attempt` (obtain), `deploys` (have servers take it) and
//! `information` (ask when the CA wants it renewed).

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Mutex, Notify, Semaphore};
use tokio::task::JoinSet;

use super::deploys::Wanted;
use super::door::Door;
use super::issuer::Desk;
use super::kept;
use super::ledger::Ledger;
use super::lineages::{Lineages, stamp};
use super::rehearse;
use super::report::{CertificateStatus, Event, What};
use super::schedule::{Decision, Reason};
use crate::certificate::Bundle;
use crate::challenge::ChallengeTable;
use crate::clock;
use crate::config::{Config, Issuer};
use crate::deploy::Helper;
use crate::front::resolver::CertificateResolver;
use crate::hostname::Identifier;
use crate::store::{Store, StoreError};

/// Where live certificates become visible to the other threads.
#[derive(Debug, Clone, Default)]
pub struct Served {
    /// The front's resolver, where there is a front.
    pub resolver: Option<CertificateResolver>,
    /// What is covered, for the gate's permanent redirects.
    pub identifiers: Arc<ArcSwap<BTreeSet<Identifier>>>,
}

impl Served {
    /// Tells the gate what is served: what is obtained here, and what the front has from elsewhere.
    pub(super) fn publish(&self, lineages: &Lineages) {
        let mut identifiers = lineages.served();
        if let Some(resolver) = &self.resolver {
            identifiers.extend(resolver.served().iter().cloned());
        }
        self.identifiers.store(Arc::new(identifiers));
    }
}

/// How a pass ended for one certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing was due, or all that was due was done.
    Well,
    /// It was due, but after failures or at the CA's word not before a later moment.
    Later,
    /// It could not be obtained, or not with all its names, or a server did not take it.
    Failed,
}

impl Outcome {
    fn worse(self, other: Self) -> Self {
        match (self, other) {
            (Self::Failed, _) | (_, Self::Failed) => Self::Failed,
            (Self::Later, _) | (_, Self::Later) => Self::Later,
            (Self::Well, Self::Well) => Self::Well,
        }
    }
}

/// How a person wants it done.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked {
    /// Order what is not due as well, try what was put off, and use the reserve of the CA's limits.
    pub force: bool,
    /// Ask the CA whatever the preflight would find.
    pub skip_preflight: bool,
}

/// Names that no certificate of the configuration has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no certificate is named {}; the configuration names {}", .unknown.join(", "), .known.join(", "))]
pub struct UnknownNames {
    /// What was asked for.
    pub unknown: Vec<String>,
    /// What there is.
    pub known: Vec<String>,
}

/// Longest time between two looks at the clock, which may jump.
const LOOK: Duration = Duration::from_secs(30);

/// Keeps the configured certificates; lives on one thread.
pub struct Keeper {
    pub(super) config: RefCell<Arc<Config>>,
    pub(super) store: Store,
    pub(super) lineages: RefCell<Lineages>,
    pub(super) ledger: RefCell<Ledger>,
    pub(super) table: ChallengeTable,
    pub(super) served: Served,
    pub(super) door: Door,
    pub(super) desk: Desk,
    pub(super) helper: Helper,
    /// One pass at a time.
    pub(super) pass: Mutex<()>,
    changed: Notify,
}

impl Keeper {
    /// Reads what is stored and makes it visible in `served`. What could not be read is told.
    pub fn new(
        config: Arc<Config>,
        store: Store,
        table: ChallengeTable,
        served: Served,
        door: Door,
        helper: Helper,
    ) -> (Rc<Self>, Vec<String>) {
        let (lineages, mut told) = Lineages::load(&config, Some(&store), true);
        let (ledger, sentence) = kept::ledger(Some(&store), clock::now(), true);
        told.extend(sentence);
        told.extend(rehearse::sweep(&store).err().map(|e| e.to_string()));
        if config.acme.issuer != Issuer::Embedded {
            told.extend(store.permanence().ok().and_then(|p| p.warning(store.path())));
        }
        told.extend(store.sharing_warning().ok().flatten());
        let keeper = Self {
            config: RefCell::new(config),
            store,
            lineages: RefCell::new(lineages),
            ledger: RefCell::new(ledger),
            table,
            served,
            door,
            desk: Desk::default(),
            helper,
            pass: Mutex::default(),
            changed: Notify::new(),
        };
        told.extend(keeper.release_held_back());
        keeper.install_all();
        (Rc::new(keeper), told)
    }

    /// The state of every certificate.
    pub fn status(&self) -> Vec<CertificateStatus> {
        let (config, now) = (self.config(), clock::now());
        self.lineages.borrow().status(Some(&self.store), &config, &self.ledger.borrow(), now)
    }

    /// The present configuration.
    pub fn config(&self) -> Arc<Config> {
        self.config.borrow().clone()
    }

    /// Takes a new configuration once the present pass has ended.
    pub async fn reconfigure(&self, config: Arc<Config>) -> Vec<String> {
        let _pass = self.pass.lock().await;
        let before = self.config();
        let same_issuer = before.acme == config.acme;
        let names =
            |c: &Config| c.certificates.iter().flat_map(|r| r.identifiers.clone()).collect::<Vec<_>>();
        // Another CA's session ends in any case: files that [acme] names may have changed.
        let keeps_embedded = config.acme.issuer == Issuer::Embedded
            && same_issuer
            && before.gate == config.gate
            && names(&before) == names(&config);
        if !keeps_embedded {
            self.desk.close().await;
        }
        let (mut lineages, mut told) = Lineages::load(&config, Some(&self.store), true);
        if !same_issuer {
            // What failed before may have been mended by this.
            lineages.forget_pauses();
        }
        for gone in self.lineages.borrow().names() {
            if lineages.get(&gone).is_none()
                && let Some(resolver) = &self.served.resolver
            {
                resolver.remove(&gone);
            }
        }
        *self.lineages.borrow_mut() = lineages;
        *self.config.borrow_mut() = config;
        told.extend(self.release_held_back());
        self.install_all();
        self.changed.notify_one();
        told
    }

    /// Attends to whatever is due, for ever.
    pub async fn keep(self: &Rc<Self>, told: Rc<dyn Fn(&Event)>) {
        loop {
            let next = self.lineages.borrow().next_moment(clock::now());
            let pause = match next.map(|at| at.duration_since(clock::now())) {
                Some(Err(_) | Ok(Duration::ZERO)) if self.attend_due(told.clone()).await => continue,
                Some(Ok(left)) if !left.is_zero() => left.min(LOOK),
                _ => LOOK,
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.changed.notified() => {}
            }
        }
    }

    /// Whether anything was due.
    async fn attend_due(self: &Rc<Self>, told: Rc<dyn Fn(&Event)>) -> bool {
        let now = clock::now();
        let due: Vec<_> = {
            let lineages = self.lineages.borrow();
            let is_due = |name: &String| lineages.get(name).is_some_and(|l| l.next_moment(now) <= now);
            lineages.names().into_iter().filter(is_due).collect()
        };
        let any = !due.is_empty();
        self.pass(due, None, told).await;
        any
    }

    /// Attends to the named certificates once, or to all, as a person wants it.
    ///
    /// # Errors
    /// A name that the configuration does not have; nothing was done.
    pub async fn attend(
        self: &Rc<Self>,
        names: &[String],
        asked: Asked,
        told: Rc<dyn Fn(&Event)>,
    ) -> Result<Vec<Outcome>, UnknownNames> {
        Ok(self.pass(self.chosen(names)?, Some(asked), told).await)
    }

    /// The named certificates, or all.
    pub(super) fn chosen(&self, names: &[String]) -> Result<Vec<String>, UnknownNames> {
        let known = self.lineages.borrow().names();
        let unknown: Vec<_> = names.iter().filter(|n| !known.contains(n)).cloned().collect();
        if !unknown.is_empty() {
            return Err(UnknownNames { unknown, known });
        }
        let named = |name: &String| names.is_empty() || names.contains(name);
        Ok(known.into_iter().filter(named).collect())
    }

    /// One pass over some certificates, a bounded number at a time.
    async fn pass(
        self: &Rc<Self>,
        names: Vec<String>,
        asked: Option<Asked>,
        told: Rc<dyn Fn(&Event)>,
    ) -> Vec<Outcome> {
        let _pass = self.pass.lock().await;
        let wanted = if asked.is_some_and(|a| a.force) { Wanted::Pending } else { Wanted::Due };
        let all = names.clone();
        let places = Rc::new(Semaphore::new(self.config().acme.concurrency));
        let mut tasks = JoinSet::new();
        for name in names {
            let (keeper, told, places) = (self.clone(), told.clone(), places.clone());
            tasks.spawn_local(async move {
                let _place = places.acquire().await;
                let outcome = keeper.attend_one(&name, asked, &*told).await;
                (name, outcome)
            });
        }
        let mut ordered: BTreeMap<_, _> = all.iter().map(|name| (name.clone(), Outcome::Failed)).collect();
        while let Some(ended) = tasks.join_next().await {
            match ended {
                Ok((name, outcome)) => _ = ordered.insert(name, outcome),
                Err(e) => tracing::error!("a renewal broke off; this is a bug, please report it: {e}"),
            }
        }
        self.door.shut().await;
        // All at once, so that several certificates for one server cause one reload.
        let deployed = self.deploy(&all, wanted, &*told).await;
        all.iter().map(|name| ordered[name].worse(deployed[name])).collect()
    }

    /// Has the servers of the named certificates, or of all, take what they have taken already as well.
    ///
    /// # Errors
    /// A name that the configuration does not have; nothing was done.
    pub async fn deploy_again(
        self: &Rc<Self>,
        names: &[String],
        told: Rc<dyn Fn(&Event)>,
    ) -> Result<Vec<Outcome>, UnknownNames> {
        let names = self.chosen(names)?;
        let _pass = self.pass.lock().await;
        let deployed = self.deploy(&names, Wanted::Again, &*told).await;
        Ok(deployed.into_values().collect())
    }

    async fn attend_one(&self, name: &str, asked: Option<Asked>, told: &dyn Fn(&Event)) -> Outcome {
        let tell = |what: What| told(&Event { certificate: name.to_owned(), what });
        let force = asked.is_some_and(|a| a.force);
        self.ask_renewal_information(name, &tell).await;
        let now = clock::now();
        if asked.is_some() {
            // Whoever asks wants it looked at again, and a look costs nothing at the CA.
            self.lineages.borrow_mut().look_again(name, now);
        }
        let (decision, retried) = match self.lineages.borrow().get(name) {
            Some(lineage) => (lineage.decide(now), lineage.names_to_retry(now)),
            None => return Outcome::Well,
        };
        let ordered = match decision {
            Decision::Order(reason) => self.renew(name, reason, asked, &tell).await,
            _ if force => self.renew(name, Reason::ByHand, asked, &tell).await,
            _ if !retried.is_empty() => self.renew(name, Reason::NamesRetried, asked, &tell).await,
            Decision::Wait { at, .. } => {
                tell(What::NotDue { renews_at: stamp(at) });
                Outcome::Well
            }
            Decision::Held { at, .. } => {
                self.tell_held(name, at, &tell);
                Outcome::Later
            }
        };
        if ordered == Outcome::Well { self.tell_missing(name, &tell) } else { ordered }
    }

    fn tell_held(&self, name: &str, at: std::time::SystemTime, tell: &impl Fn(What)) {
        let lineages = self.lineages.borrow();
        let Some(lineage) = lineages.get(name) else { return };
        tell(match (&lineage.limited, &lineage.state.postponed) {
            (Some((until, reason)), _) if *until >= at => {
                What::Limited { retry_at: stamp(at), reason: reason.clone() }
            }
            (_, Some(postponed)) => What::Postponed {
                reason: postponed.reason.clone(),
                retry_at: stamp(at),
                order_at: postponed.order_at,
                still_served: lineage.live.is_some(),
            },
            _ => {
                let attempts = lineage.state.attempts.clone();
                let last_error = attempts.last_error.unwrap_or_default();
                What::Held { retry_at: stamp(at), failures: attempts.failures, last_error }
            }
        });
    }

    /// Says it each time that a certificate lacks names, and lets the pass fail for it.
    fn tell_missing(&self, name: &str, tell: &impl Fn(What)) -> Outcome {
        let missing = self.lineages.borrow().get(name).and_then(|lineage| lineage.missing());
        match missing {
            Some(what) => {
                tell(what);
                Outcome::Failed
            }
            None => Outcome::Well,
        }
    }

    pub(super) fn is_live(&self, name: &str) -> bool {
        self.lineages.borrow().get(name).is_some_and(|l| l.live.is_some())
    }

    fn install_all(&self) {
        let lineages = self.lineages.borrow();
        for (name, bundle) in lineages.live() {
            self.install(name, bundle);
        }
        self.served.publish(&lineages);
    }

    pub(super) fn install(&self, name: &str, bundle: &Bundle) {
        if let Some(resolver) = &self.served.resolver
            && let Err(e) = resolver.install(name, bundle)
        {
            tracing::error!(certificate = name, "the front cannot serve it: {e}");
        }
    }

    pub(super) fn save_state(&self, name: &str) -> Result<(), StoreError> {
        match self.lineages.borrow().get(name) {
            Some(lineage) => self.store.save_lineage_state(name, &lineage.state),
            None => Ok(()),
        }
    }

    /// Ends the helper once it is idle.
    pub async fn close(&self) {
        tokio::join!(self.helper.stop(), self.door.close());
    }

    /// Has the embedded CA listen there, whenever it is started.
    pub fn settle_embedded(&self, bound: Arc<socket2::Socket>) {
        self.desk.settle_embedded(bound);
    }

    /// The way in for the CA's validators, for whoever else expects somebody.
    pub fn door(&self) -> &Door {
        &self.door
    }

    /// Starts the helper where the configuration has a use for it.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn start_helper(&self) -> Result<(), crate::deploy::DeployError> {
        let config = self.config();
        if config.deploy.is_empty() { Ok(()) } else { self.helper.start(&config).await }
    }
}

/// A random number from 0 to 1.
pub(super) fn rand_unit() -> f64 {
    let mut bytes = [0; 4];
    // Without a source of randomness, no jitter is better than no renewal.
    let _ = rustls::crypto::aws_lc_rs::default_provider().secure_random.fill(&mut bytes);
    f64::from(u32::from_be_bytes(bytes)) / f64::from(u32::MAX)
}
