//! The openings before the gate while somebody is expected: opened through a helper of their own, whom no reload of
//! a server keeps waiting; renewed until they are shut; and what fails to shut is tried again, and told.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::admin::OpeningsState;
use crate::config::Config;
use crate::deploy::{DeployError, Helper, openings};
use crate::net::drain::Stop;

/// Renewed so often within a lease.
const RENEWALS: u32 = 3;
/// Longest pause between tries to shut.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Who is told that an opening cannot be shut, in a sentence, and that it is shut after all.
pub(super) type Alarm = Rc<dyn Fn(Option<&str>)>;

pub(super) struct Openings {
    helper: Helper,
    config: RefCell<Arc<Config>>,
    state: RefCell<OpeningsState>,
    /// Somebody is expected: what is open stays open.
    is_wanted: Cell<bool>,
    alarm: RefCell<Option<Alarm>>,
}

impl Openings {
    pub(super) fn new(config: Arc<Config>, helper: Helper) -> Rc<Self> {
        Rc::new(Self {
            helper,
            config: RefCell::new(config),
            state: RefCell::default(),
            is_wanted: Cell::default(),
            alarm: RefCell::default(),
        })
    }

    /// Has these be told from now on, of what is amiss already too.
    pub(super) fn tell(&self, alarm: Alarm) {
        if let OpeningsState::Stuck(reason) = &*self.state.borrow() {
            alarm(Some(reason));
        }
        *self.alarm.borrow_mut() = Some(alarm);
    }

    /// Whether there is anything to open.
    pub(super) fn are_configured(&self) -> bool {
        !self.config.borrow().gate.openings.is_empty()
    }

    pub(super) fn state(&self) -> Option<OpeningsState> {
        let state = self.state.borrow().clone();
        (self.are_configured() || state != OpeningsState::Shut).then_some(state)
    }

    pub(super) fn reconfigure(&self, config: Arc<Config>) {
        *self.config.borrow_mut() = config;
    }

    /// Starts the helper if there is something to open, or to shut.
    pub(super) async fn start_helper(&self) -> Result<(), DeployError> {
        let config = self.config.borrow().clone();
        if self.are_configured() || openings::is_on_record(&config.state_dir) {
            self.helper.start(&config).await?;
        }
        Ok(())
    }

    /// Shuts what is on record as open from before. To be called inside a `LocalSet`.
    pub(super) async fn settle(self: &Rc<Self>) {
        if openings::is_on_record(&self.config.borrow().state_dir) {
            tracing::warn!("an opening was left open when wicketgate ended last; it is shut now");
            self.shut().await;
        }
    }

    /// Opens all of them.
    ///
    /// # Errors
    /// A sentence: one could not be opened, and none is open.
    pub(super) async fn open(self: &Rc<Self>) -> Result<(), String> {
        if !self.are_configured() {
            return Ok(());
        }
        self.is_wanted.set(true);
        match self.renew().await {
            Ok(()) => {
                tracing::info!("what stands before the gate is open for an order");
                self.set(OpeningsState::Open);
                Ok(())
            }
            Err(e) => {
                let told = e.to_string();
                self.is_wanted.set(false);
                if self.is_failed(&told) {
                    self.shut().await;
                }
                Err(told)
            }
        }
    }

    /// After a failure to open: whether something may be open all the same.
    fn is_failed(&self, told: &str) -> bool {
        let is_stuck = openings::is_on_record(&self.config.borrow().state_dir);
        self.set(if is_stuck { OpeningsState::Stuck(told.to_owned()) } else { OpeningsState::Shut });
        is_stuck
    }

    async fn renew(&self) -> Result<(), DeployError> {
        let config = self.config.borrow().clone();
        self.helper.open_doors(&config).await
    }

    /// Renews the leases until the stop, then shuts all of them. To be called inside a `LocalSet`.
    pub(super) async fn keep(self: Rc<Self>, stop: Stop) {
        let renewing = async {
            loop {
                let lease = openings::lease(&self.config.borrow().gate.openings);
                sleep(lease.unwrap_or(LONGEST_PAUSE) / RENEWALS).await;
                if !self.are_configured() {
                    continue;
                }
                match self.renew().await {
                    Ok(()) => self.set(OpeningsState::Open),
                    Err(e) => {
                        tracing::error!("what stands before the gate could not be kept open: {e}");
                        self.is_failed(&e.to_string());
                    }
                }
            }
        };
        tokio::select! {
            () = stop.requested() => {}
            () = renewing => {}
        }
        self.shut().await;
    }

    /// Shuts all of them; what fails goes on being tried, in the background, until they are wanted open.
    async fn shut(self: &Rc<Self>) {
        self.is_wanted.set(false);
        if self.try_to_shut().await || self.is_wanted.get() {
            return;
        }
        let openings = self.clone();
        tokio::task::spawn_local(async move {
            let mut pause = Duration::from_secs(1);
            loop {
                sleep(pause).await;
                if openings.is_wanted.get() || openings.try_to_shut().await {
                    return;
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        });
    }

    /// Whether it came to that.
    async fn try_to_shut(&self) -> bool {
        let config = self.config.borrow().clone();
        match self.helper.shut_doors(&config).await {
            Ok(()) => {
                if *self.state.borrow() == OpeningsState::Open {
                    tracing::info!("what stands before the gate is shut");
                }
                self.set(OpeningsState::Shut);
                true
            }
            Err(e) => {
                let reason = e.to_string();
                tracing::error!("AN OPENING IS NOT SHUT: {reason}; it is tried again");
                self.set(OpeningsState::Stuck(reason));
                false
            }
        }
    }

    fn set(&self, state: OpeningsState) {
        let before = self.state.replace(state.clone());
        let Some(alarm) = self.alarm.borrow().clone() else { return };
        match (before, state) {
            (OpeningsState::Stuck(_), OpeningsState::Shut) => alarm(None),
            (OpeningsState::Stuck(_), _) => {}
            (_, OpeningsState::Stuck(reason)) => alarm(Some(&reason)),
            _ => {}
        }
    }

    /// Waits a while for what fails to shut, and ends the helper, which tries once more.
    ///
    /// # Errors
    /// A sentence: it is open still.
    pub(super) async fn finish(&self, limit: Duration) -> Result<(), String> {
        let deadline = Instant::now() + limit;
        while matches!(*self.state.borrow(), OpeningsState::Stuck(_)) && Instant::now() < deadline {
            sleep(Duration::from_millis(200)).await;
        }
        self.helper.stop().await;
        match &*self.state.borrow() {
            OpeningsState::Stuck(reason) => Err(format!(
                "AN OPENING IS NOT SHUT: {reason}; `wicketgate openings close` tries again, and so does whoever comes next"
            )),
            _ => Ok(()),
        }
    }
}
