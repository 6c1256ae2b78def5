//! `renew`, `deploy` and `rehearse` without a daemon, with port 80 open only while an order is pending.

use std::ffi::OsString;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::notices::Notices;
use super::openings::Openings;
use super::room::{Room, Source};
use super::{DaemonError, on_demand, opener};
use crate::admin::{Conclusion, DeployRequest, RehearseRequest, RenewRequest};
use crate::challenge::ChallengeTable;
use crate::config::{Config, GateOpen};
use crate::gate::{GateLimits, GateState, Policy};
use crate::renewal::{Door, Event, Keeper, Outcome, RehearsalRefused, Served, UnknownNames};
use crate::store::{Store, StoreLock};

/// Why nothing was attended to.
#[derive(Debug, thiserror::Error)]
pub enum OnceError {
    /// The state directory, above all: another process works on it.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// A name that there is not.
    #[error(transparent)]
    Names(#[from] UnknownNames),
    /// No rehearsal.
    #[error(transparent)]
    Rehearsal(#[from] RehearsalRefused),
}

/// Attends to certificates once. To be called inside a `LocalSet`.
///
/// # Errors
/// Nothing could be begun; what fails afterwards is told and concluded.
pub async fn renew_once(
    config: Config,
    request: &RenewRequest,
    told: Rc<dyn Fn(&Event)>,
    others: Others,
) -> Result<Conclusion, OnceError> {
    attend_once(config, told, others, async |keeper, told| {
        keeper.attend(&request.names, request.asked(), told).await
    })
    .await
}

/// Has servers take what is stored once more. To be called inside a `LocalSet`.
///
/// # Errors
/// Nothing could be begun; what fails afterwards is told and concluded.
pub async fn deploy_once(
    config: Config,
    request: &DeployRequest,
    told: Rc<dyn Fn(&Event)>,
    others: Others,
) -> Result<Conclusion, OnceError> {
    attend_once(config, told, others, async |keeper, told| keeper.deploy_again(&request.names, told).await)
        .await
}

/// Has a keeper do something of which people are told by `[notify]` as well.
async fn attend_once(
    config: Config,
    told: Rc<dyn Fn(&Event)>,
    others: Others,
    work: impl AsyncFnOnce(&Rc<Keeper>, Rc<dyn Fn(&Event)>) -> Result<Vec<Outcome>, UnknownNames>,
) -> Result<Conclusion, OnceError> {
    let once = Once::begin(config, others).await?;
    let notices = once.notices.clone();
    let told: Rc<dyn Fn(&Event)> = Rc::new({
        let notices = notices.clone();
        move |event| {
            told(event);
            notices.tell(event);
        }
    });
    once.openings.tell(notices.opening_alarm());
    let outcomes = work(&once.keeper, told).await;
    let is_shut = once.end().await;
    notices.conclude().await;
    Ok(if is_shut { Conclusion::of(&outcomes?) } else { Conclusion::Failed })
}

/// Rehearses once. To be called inside a `LocalSet`.
///
/// # Errors
/// Nothing could be begun; what fails afterwards is told and concluded.
pub async fn rehearse_once(
    config: Config,
    request: &RehearseRequest,
    told: Rc<dyn Fn(&Event)>,
    others: Others,
) -> Result<Conclusion, OnceError> {
    let once = Once::begin(config, others).await?;
    let outcomes = once.keeper.rehearse(&request.names, request.staging, told).await;
    let is_shut = once.end().await;
    Ok(if is_shut { Conclusion::of(&outcomes?) } else { Conclusion::Failed })
}

/// How long the end of it all may be put off by an opening that cannot be shut.
const SHUTTING: Duration = Duration::from_secs(60);

/// The other processes of this binary, each by its arguments.
#[derive(Debug, Clone)]
pub struct Others {
    /// Runs commands and writes files.
    pub helper: Vec<OsString>,
    /// Starts helpers for one that gave up its rights.
    pub starter: Vec<OsString>,
}

/// A keeper with a gate of its own, which is opened on demand.
struct Once {
    keeper: Rc<Keeper>,
    notices: Rc<Notices>,
    openings: Rc<Openings>,
    _lock: StoreLock,
}

impl Once {
    /// Whether everything that was opened is shut.
    async fn end(&self) -> bool {
        self.keeper.close().await;
        let shut = self.openings.finish(SHUTTING).await;
        if let Err(sentence) = &shut {
            tracing::error!("{sentence}");
        }
        shut.is_ok()
    }

    async fn begin(mut config: Config, others: Others) -> Result<Self, OnceError> {
        // Whatever a daemon would do.
        config.gate.open = GateOpen::DuringOrders;
        let config = Arc::new(config);
        let source = Source::new(&config, others.helper, &others.starter).map_err(DaemonError::Io)?;
        let mut room = Room::prepare(&config)?;
        let store = Store::open(&config.state_dir).map_err(DaemonError::Store)?;
        let lock = store.lock().map_err(DaemonError::Store)?;
        if let Some(sentence) = lock.unwritable() {
            tracing::error!("{sentence}");
        }
        let (notices, unread) = Notices::open(config.clone(), source.helper()).map_err(DaemonError::Store)?;
        for sentence in unread {
            tracing::warn!("{sentence}");
        }
        let helper = source.helper();
        if !config.deploy.is_empty() {
            helper.start(&config).await.map_err(DaemonError::Deploy)?;
        }
        notices.start_helper().await.map_err(DaemonError::Deploy)?;
        let openings = Openings::new(config.clone(), source.helper());
        openings.start_helper().await.map_err(DaemonError::Deploy)?;
        openings.settle().await;
        room.enter(&config)?;

        let table = ChallengeTable::new();
        let gate = GateState::new(table.clone(), Policy::from(&config.gate));
        let served = Served { resolver: None, identifiers: gate.served.clone() };
        let limits = GateLimits::from(&config.gate);
        let listen = on_demand(config.clone(), gate, limits, source.starter());
        // Who runs this waits for its end.
        let door = Door::momentary(opener(Some(listen), &openings), Duration::ZERO);
        let (keeper, sentences) = Keeper::new(config, store, table, served, door, helper);
        for sentence in sentences {
            tracing::warn!("{sentence}");
        }
        keeper.settle_embedded(room.embedded.clone());
        Ok(Self { keeper, notices, openings, _lock: lock })
    }
}
