//! The only loop that orders certificates: decide, order, prove, store, install, deploy, in this order.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::{Mutex, Notify, Semaphore};
use tokio::task::JoinSet;

use super::door::Door;
use super::issuer::{Desk, IssuerError};
use super::lineages::{Lineage, Lineages, stamp};
use super::report::{CertificateStatus, Event, What};
use super::schedule::{self, Decision, Reason};
use crate::acme::{AcmeError, OrderRequest, Step, Verdict};
use crate::certificate::Certificate;
use crate::challenge::ChallengeTable;
use crate::clock;
use crate::config::{Config, Issuer};
use crate::deploy::Helper;
use crate::front::resolver::CertificateResolver;
use crate::hostname::Identifier;
use crate::net::listen::ListenError;
use crate::store::{Attempts, Deployed, Store, StoreError};

/// Where live certificates become visible to the other threads.
#[derive(Debug, Clone, Default)]
pub struct Served {
    /// The front's resolver, where there is a front.
    pub resolver: Option<CertificateResolver>,
    /// What is covered, for the gate's permanent redirects.
    pub identifiers: Arc<ArcSwap<BTreeSet<Identifier>>>,
}

/// How a pass ended for one certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing was due, or all that was due was done.
    Well,
    /// It was due, but after failures or at the CA's word not before a later moment.
    Later,
    /// It could not be obtained, or a server did not take it.
    Failed,
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

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
enum AttemptError {
    #[error(transparent)]
    Issuer(#[from] IssuerError),
    #[error(transparent)]
    Acme(#[from] AcmeError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("port 80 cannot be opened for the CA: {0}")]
    Door(#[from] ListenError),
}

impl AttemptError {
    fn verdict(&self) -> Verdict {
        match self {
            Self::Acme(e) | Self::Issuer(IssuerError::Acme(e)) => e.verdict(),
            _ => Verdict::Transient,
        }
    }
}

/// What the last error of an attempt says that has not ended.
const INTERRUPTED: &str = "wicketgate was stopped in the middle of the attempt";

/// Longest time between two looks at the clock, which may jump.
const LOOK: Duration = Duration::from_secs(30);

/// Keeps the configured certificates; lives on one thread.
pub struct Keeper {
    config: RefCell<Arc<Config>>,
    store: Store,
    lineages: RefCell<Lineages>,
    table: ChallengeTable,
    served: Served,
    door: Door,
    desk: Desk,
    helper: Helper,
    /// One pass at a time.
    pass: Mutex<()>,
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
        let (lineages, told) = Lineages::load(&config, Some(&store), true);
        let keeper = Self {
            config: RefCell::new(config),
            store,
            lineages: RefCell::new(lineages),
            table,
            served,
            door,
            desk: Desk::default(),
            helper,
            pass: Mutex::default(),
            changed: Notify::new(),
        };
        keeper.install_all();
        (Rc::new(keeper), told)
    }

    /// The state of every certificate.
    pub fn status(&self) -> Vec<CertificateStatus> {
        self.lineages.borrow().status(Some(&self.store), &self.config.borrow(), clock::now())
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
        let (mut lineages, told) = Lineages::load(&config, Some(&self.store), true);
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
            let is_due = |name: &String| {
                lineages.get(name).is_some_and(|l| {
                    matches!(l.decide(now), Decision::Order(_)) || !l.due_deploys(now).is_empty()
                })
            };
            lineages.names().into_iter().filter(is_due).collect()
        };
        let any = !due.is_empty();
        self.pass(due, false, told).await;
        any
    }

    /// Attends to the named certificates once, or to all; `force` orders even what is not due and deploys
    /// what was put off.
    ///
    /// # Errors
    /// A name that the configuration does not have; nothing was done.
    pub async fn attend(
        self: &Rc<Self>,
        names: &[String],
        force: bool,
        told: Rc<dyn Fn(&Event)>,
    ) -> Result<Vec<Outcome>, UnknownNames> {
        let known = self.lineages.borrow().names();
        let unknown: Vec<_> = names.iter().filter(|n| !known.contains(n)).cloned().collect();
        if !unknown.is_empty() {
            return Err(UnknownNames { unknown, known });
        }
        let chosen = if names.is_empty() { known } else { names.to_vec() };
        Ok(self.pass(chosen, force, told).await)
    }

    /// One pass over some certificates, a bounded number at a time.
    async fn pass(
        self: &Rc<Self>,
        names: Vec<String>,
        force: bool,
        told: Rc<dyn Fn(&Event)>,
    ) -> Vec<Outcome> {
        let _pass = self.pass.lock().await;
        let places = Rc::new(Semaphore::new(self.config().acme.concurrency));
        let mut tasks = JoinSet::new();
        for name in names {
            let (keeper, told, places) = (self.clone(), told.clone(), places.clone());
            tasks.spawn_local(async move {
                let _place = places.acquire().await;
                keeper.attend_one(&name, force, &*told).await
            });
        }
        let mut outcomes = Vec::new();
        while let Some(ended) = tasks.join_next().await {
            outcomes.push(ended.unwrap_or_else(|e| {
                tracing::error!("a renewal broke off; this is a bug, please report it: {e}");
                Outcome::Failed
            }));
        }
        self.door.shut().await;
        outcomes
    }

    async fn attend_one(&self, name: &str, force: bool, told: &dyn Fn(&Event)) -> Outcome {
        let tell = |what: What| told(&Event { certificate: name.to_owned(), what });
        let decision = match self.lineages.borrow().get(name) {
            Some(lineage) => lineage.decide(clock::now()),
            None => return Outcome::Well,
        };
        let ordered = match decision {
            Decision::Order(reason) => self.renew(name, reason, &tell).await,
            _ if force => self.renew(name, Reason::ByHand, &tell).await,
            Decision::Wait { at, .. } => {
                tell(What::NotDue { renews_at: stamp(at) });
                Outcome::Well
            }
            Decision::Held { at, .. } => {
                let attempts = self.attempts(name);
                let last_error = attempts.last_error.unwrap_or_default();
                tell(What::Held { retry_at: stamp(at), failures: attempts.failures, last_error });
                Outcome::Later
            }
        };
        match self.deploy(name, force, &tell).await {
            Outcome::Well => ordered,
            failed => failed,
        }
    }

    /// One attempt: written down as a failure before the CA is asked, so that a crash in the middle of it
    /// cannot become a storm, and struck out when it succeeds.
    async fn renew(&self, name: &str, reason: Reason, tell: &impl Fn(What)) -> Outcome {
        tell(What::Due(reason.to_string()));
        let begun = match self.begin_attempt(name) {
            Ok(retry_at) => retry_at,
            Err(e) => {
                // Nothing can be kept, so nothing is asked of the CA; only this process remembers.
                let retry_at = clock::now() + schedule::retry_after(1, 0.0);
                self.with_attempts(name, |attempts| attempts.retry_at = Some(stamp(retry_at)));
                let still_served = self.is_live(name);
                tell(What::Failed { error: e.to_string(), retry_at: stamp(retry_at), still_served });
                return Outcome::Failed;
            }
        };
        let outcome = match self.attempt(name, tell).await {
            Ok(()) => Outcome::Well,
            Err(e) => {
                let verdict = e.verdict();
                let retry_at = match verdict {
                    Verdict::RateLimited(Some(until)) => {
                        begun.retry_at.max(until.min(clock::now() + schedule::LONGEST_WAIT))
                    }
                    _ => begun.retry_at,
                };
                let error = e.to_string();
                self.with_attempts(name, |attempts| {
                    attempts.retry_at = Some(stamp(retry_at));
                    attempts.last_error = Some(error.clone());
                });
                tell(What::Failed { error, retry_at: stamp(retry_at), still_served: self.is_live(name) });
                if matches!(verdict, Verdict::RateLimited(_)) { Outcome::Later } else { Outcome::Failed }
            }
        };
        begun.end();
        if let Err(e) = self.save_state(name) {
            tell(What::Warning(e.to_string()));
        }
        outcome
    }

    /// Counts an attempt as failed until it has ended.
    fn begin_attempt<'a>(&'a self, name: &'a str) -> Result<Begun<'a>, StoreError> {
        let jitter = f64::from(rand_unit());
        let (mut before, mut retry_at) = (Attempts::default(), clock::now());
        if let Some(lineage) = self.lineages.borrow_mut().get_mut(name) {
            let state = &mut lineage.state;
            before = state.attempts.clone();
            if state.attempted_for != lineage.request.identifiers {
                state.attempts = Attempts::default();
                state.attempted_for.clone_from(&lineage.request.identifiers);
            }
            state.attempts.failures += 1;
            retry_at += schedule::retry_after(state.attempts.failures, jitter);
            state.attempts.retry_at = Some(stamp(retry_at));
            state.attempts.last_error = Some(INTERRUPTED.to_owned());
        }
        self.save_state(name).map(|()| Begun { keeper: self, name, before: Some(before), retry_at })
    }

    async fn attempt(&self, name: &str, tell: &impl Fn(What)) -> Result<(), AttemptError> {
        let config = self.config();
        let Some(request) = config.certificates.iter().find(|c| c.name == name) else { return Ok(()) };
        let order = OrderRequest {
            identifiers: request.identifiers.clone(),
            key_type: request.key_type,
            profile: request.profile.clone(),
        };
        let steps = |step: Step| {
            tell(match step {
                Step::ProfileNotOffered { .. } => What::Warning(step.to_string()),
                _ => What::Step(step.to_string()),
            });
        };
        let mut session = self.desk.session(&config, &self.store).await?;
        let door = self.door.open().await?;
        let certificate = match session.obtain(&order, &self.table, &steps).await {
            Err(e) if e.verdict() == Verdict::AccountGone => {
                session = self.desk.replace_account(&config, &self.store).await?;
                session.obtain(&order, &self.table, &steps).await?
            }
            obtained => obtained?,
        };
        drop(door);
        let version = self.store.save(name, &certificate)?;
        let jitter = self.lineages.borrow().get(name).map_or(0.0, Lineage::jitter);
        let renews_at = stamp(schedule::renew_at(certificate.not_before(), certificate.not_after(), jitter));
        let obtained = What::Obtained {
            version,
            serial: certificate.serial().to_owned(),
            identifiers: certificate.identifiers().to_vec(),
            not_after: stamp(certificate.not_after()),
            renews_at,
        };
        if let Some(lineage) = self.lineages.borrow_mut().get_mut(name) {
            self.install(name, &certificate);
            lineage.live = Some((version, certificate));
            lineage.state.issuer = Some(config.acme.issuer.name());
            lineage.state.key_type = Some(request.key_type);
            lineage.state.ordered_for.clone_from(&request.identifiers);
            lineage.state.obtained_at = Some(stamp(clock::now()));
            lineage.state.attempts = Attempts::default();
        }
        self.served.identifiers.store(Arc::new(self.lineages.borrow().served()));
        tell(obtained);
        Ok(())
    }

    /// Has every server take the live version that has not; `force` disregards put-off tries.
    async fn deploy(&self, name: &str, force: bool, tell: &impl Fn(What)) -> Outcome {
        let config = self.config();
        let pending: Vec<_> = match self.lineages.borrow().get(name) {
            Some(lineage) => lineage.pending_deploys().collect(),
            None => return Outcome::Well,
        };
        let mut outcome = Outcome::Well;
        for (service, retry_at) in pending {
            if let Some(retry_at) = retry_at.filter(|at| !force && *at > clock::now()) {
                let last_error = self.last_deploy_error(name, &service);
                tell(What::DeployHeld { service, retry_at: stamp(retry_at), last_error });
                outcome = Outcome::Failed;
                continue;
            }
            let result = self.helper.reload(&config, &service, name).await;
            let failed = self.record_deploy(name, &service, result.as_ref().err().map(ToString::to_string));
            match failed {
                None => tell(What::Deployed { service }),
                Some((error, retry_at)) => {
                    outcome = Outcome::Failed;
                    tell(What::DeployFailed { service, error, retry_at: stamp(retry_at) });
                }
            }
            if let Err(e) = self.save_state(name) {
                tell(What::Warning(e.to_string()));
            }
        }
        outcome
    }

    fn record_deploy(
        &self,
        name: &str,
        service: &str,
        error: Option<String>,
    ) -> Option<(String, SystemTime)> {
        let mut lineages = self.lineages.borrow_mut();
        let lineage = lineages.get_mut(name)?;
        let version = lineage.live.as_ref().map(|(version, _)| *version);
        let kept = lineage.state.deployed.entry(service.to_owned()).or_default();
        let Some(error) = error else {
            *kept = Deployed { version, attempts: Attempts::default() };
            return None;
        };
        kept.attempts.failures += 1;
        let pause = schedule::deploy_retry_after(kept.attempts.failures, f64::from(rand_unit()));
        let retry_at = clock::now() + pause;
        kept.attempts.retry_at = Some(stamp(retry_at));
        kept.attempts.last_error = Some(error.clone());
        Some((error, retry_at))
    }

    fn last_deploy_error(&self, name: &str, service: &str) -> String {
        let lineages = self.lineages.borrow();
        let kept = lineages.get(name).and_then(|l| l.state.deployed.get(service));
        kept.and_then(|d| d.attempts.last_error.clone()).unwrap_or_default()
    }

    fn is_live(&self, name: &str) -> bool {
        self.lineages.borrow().get(name).is_some_and(|l| l.live.is_some())
    }

    fn install_all(&self) {
        let lineages = self.lineages.borrow();
        for (name, certificate) in lineages.live() {
            self.install(name, certificate);
        }
        self.served.identifiers.store(Arc::new(lineages.served()));
    }

    fn install(&self, name: &str, certificate: &Certificate) {
        if let Some(resolver) = &self.served.resolver
            && let Err(e) = resolver.install(name, certificate)
        {
            tracing::error!(certificate = name, "the front cannot serve it: {e}");
        }
    }

    fn attempts(&self, name: &str) -> Attempts {
        self.lineages.borrow().get(name).map(|l| l.state.attempts.clone()).unwrap_or_default()
    }

    fn with_attempts(&self, name: &str, change: impl FnOnce(&mut Attempts)) {
        if let Some(lineage) = self.lineages.borrow_mut().get_mut(name) {
            change(&mut lineage.state.attempts);
        }
    }

    fn save_state(&self, name: &str) -> Result<(), StoreError> {
        match self.lineages.borrow().get(name) {
            Some(lineage) => self.store.save_lineage_state(name, &lineage.state),
            None => Ok(()),
        }
    }

    /// Ends the helper once it is idle.
    pub async fn close(&self) {
        self.helper.stop().await;
    }

    /// Starts the helper where the configuration has a use for it.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn start_helper(&self) -> Result<(), crate::deploy::DeployError> {
        if self.config().deploy.is_empty() { Ok(()) } else { self.helper.start().await }
    }
}

/// An attempt under way. One that is given up because the program is told to stop does not count.
struct Begun<'a> {
    keeper: &'a Keeper,
    name: &'a str,
    before: Option<Attempts>,
    retry_at: SystemTime,
}

impl Begun<'_> {
    /// The attempt has ended by itself, well or not.
    fn end(mut self) {
        self.before = None;
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        let Some(before) = self.before.take().filter(|_| !std::thread::panicking()) else { return };
        self.keeper.with_attempts(self.name, |attempts| *attempts = before);
        if let Err(error) = self.keeper.save_state(self.name) {
            tracing::warn!("{error}");
        }
    }
}

/// A random number from 0 to 1.
fn rand_unit() -> f32 {
    let mut byte = [0; 2];
    // Without a source of randomness, no jitter is better than no renewal.
    let _ = rustls::crypto::aws_lc_rs::default_provider().secure_random.fill(&mut byte);
    f32::from(u16::from_be_bytes(byte)) / f32::from(u16::MAX)
}
