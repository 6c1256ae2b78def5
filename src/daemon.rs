//! The composition root: load, listen, install, be ready, drain.
//!
//! The control thread keeps certificates and the admin socket; the gate has a thread and a budget of its
//! own, so that a flood elsewhere cannot starve a challenge; each front thread has its own listeners.

mod announce;
mod check;
mod foreign;
mod notices;
mod once;
mod openings;
mod room;
mod tickets;
mod watched;

use std::ffi::OsString;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Mutex, mpsc};
use tokio::task::LocalSet;

use crate::admin::{self, Actions, AdminError, AdminSocket};
use crate::challenge::ChallengeTable;
use crate::clock;
use crate::config::{Config, ConfigError, Front, GateOpen};
use crate::deploy::DeployError;
use crate::deploy::starter::Starter;
use crate::front::{self, AccessLog, AccessLogError, CertificateResolver, FrontState};
use crate::gate::{self, GateLimits, GateState, Policy};
use crate::net::drain::{Stop, StopTrigger};
use crate::net::inherited::{Inherited, InheritedError};
use crate::net::listen::{ListenError, ListenOptions, bind};
use crate::renewal::{Door, DoorError, Keeper, Opened, Served};
use crate::sandbox::{SandboxError, UserError};
use crate::store::{Store, StoreError};
use crate::tickets::{TicketKeyError, TicketKeys};

use announce::Announcer;
pub use check::{CheckError, check_once};
use foreign::ForeignCertificates;
use notices::Notices;
pub use once::{OnceError, Others, deploy_once, rehearse_once, renew_once};
use openings::Openings;
use room::{Room, Source};
use tickets::TicketFile;

/// Why the daemon did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The state directory.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nobody to become.
    #[error(transparent)]
    User(UserError),
    /// The state directory is another's.
    #[error(
        "{} belongs to uid {owner}, and `user` is {user}: run `chown -R {user}: {}`, or name its owner", state.display(), state.display()
    )]
    NotHis {
        /// The folder.
        state: PathBuf,
        /// The configured user.
        user: String,
        /// Whose it is.
        owner: u32,
    },
    /// The sandbox.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// A file that resolves names was replaced, and a new process has to read it.
    #[error("{0} was replaced, and cannot be read from within the sandbox: a new start reads it")]
    Replaced(&'static str),
    /// A listener.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The admin socket.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The helper.
    #[error(transparent)]
    Deploy(#[from] DeployError),
    /// TLS.
    #[error("the TLS front cannot be started: {0}")]
    Tls(#[from] rustls::Error),
    /// The file of `front.ticket-key-file`.
    #[error("front.ticket-key-file: {}: {source}", file.display())]
    TicketKeys {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        source: TicketKeyError,
    },
    /// The access log.
    #[error(transparent)]
    AccessLog(#[from] AccessLogError),
    /// A socket from the service manager.
    #[error(transparent)]
    Inherited(#[from] InheritedError),
    /// A socket that somebody else holds listens all the time.
    #[error(
        "`gate.open = \"during-orders\"` does not go together with a socket for the gate that the service manager passes: whoever holds the socket decides when it listens; write \"always\", or take the port out of the .socket unit"
    )]
    AlwaysOpen,
    /// The system.
    #[error("cannot start: {0}")]
    Io(#[from] io::Error),
    /// A part of the daemon ended while it was needed.
    #[error(
        "the {0} thread has ended before its time; this is a bug, please report it with the lines before this one"
    )]
    Broken(String),
}

/// How long port 80 stays open after the last order: a CA looks from several places, and the last one may come
/// when the others have decided already.
const LINGER: Duration = Duration::from_secs(5);

/// How long the access log's last lines are waited for.
const LAST_LINES: Duration = Duration::from_secs(2);

/// How often it is looked whether what the sandbox was made for is still there.
const LOOK: Duration = Duration::from_secs(60);

/// Reads the configuration afresh.
pub type Loader = Rc<dyn Fn() -> Result<Config, ConfigError>>;

/// Runs the daemon until SIGTERM or SIGINT.
///
/// # Errors
/// [`DaemonError`], before anything was served.
pub fn run(
    config: Config,
    inherited: Inherited,
    load: Loader,
    helper_arguments: Vec<OsString>,
    starter_arguments: &[OsString],
) -> Result<(), DaemonError> {
    let source = Source::new(&config, helper_arguments, starter_arguments)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = LocalSet::new().block_on(&runtime, control(Arc::new(config), inherited, load, source));
    // Nothing is left that is worth waiting for, a key being made for a given-up order, say.
    runtime.shutdown_background();
    ended
}

/// Everything that serves and that a reload changes.
struct Daemon {
    keeper: Rc<Keeper>,
    load: Loader,
    gate: GateState,
    front: Option<Arc<FrontState>>,
    foreign: Option<Rc<ForeignCertificates>>,
    ticket_file: Option<Rc<TicketFile>>,
    announcer: Rc<Announcer>,
    notices: Rc<Notices>,
    openings: Rc<Openings>,
    room: Room,
    /// One reload at a time.
    reloading: Mutex<()>,
}

async fn control(
    config: Arc<Config>,
    mut inherited: Inherited,
    load: Loader,
    source: Source,
) -> Result<(), DaemonError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;

    let ticket_keys = ticket_keys(&config)?;
    let mut room = Room::prepare(&config)?;
    let store = Store::open(&config.state_dir)?;
    let lock = store.lock()?;
    if let Some(sentence) = lock.unwritable() {
        tracing::error!("{sentence}");
    }
    let (notices, unread) = Notices::open(config.clone(), source.helper())?;
    for sentence in unread {
        tracing::warn!("{sentence}");
    }
    let helper = source.helper();
    if !config.deploy.is_empty() {
        helper.start(&config).await?;
    }
    notices.start_helper().await?;
    let openings = Openings::new(config.clone(), source.helper());
    openings.start_helper().await?;
    // First of all: whatever ended the last one may have left it open.
    openings.settle().await;
    // After the helper, whose commands shall find the limit that they are used to.
    raise_descriptor_limit();
    let gate_listeners = match config.gate.open {
        GateOpen::Always => Some(bind_gate(&config, &mut inherited)?),
        GateOpen::DuringOrders if config.gate.listen.iter().any(|address| inherited.has(*address)) => {
            return Err(DaemonError::AlwaysOpen);
        }
        GateOpen::DuringOrders => None,
    };
    let front_listeners = match &config.front {
        Some(front) => bind_front(front, &mut inherited)?,
        None => Vec::new(),
    };
    let admin = match inherited.unix(&config.admin.socket) {
        Some(listener) => AdminSocket::inherited(listener)?,
        None => AdminSocket::bind(&config.admin.socket)?,
    };
    let page = config.admin.listen.map(|address| bind_page(address, &mut inherited)).transpose()?;
    inherited.finish()?;
    room.hand_over(&config.admin.socket);
    // Nothing has been read from the network, and there is no other thread yet.
    let sandbox = room.enter(&config)?;

    let (trigger, stop) = StopTrigger::new();
    let (ended, mut broken) = mpsc::unbounded_channel();
    let table = ChallengeTable::new();
    let gate = GateState::new(table.clone(), Policy::from(&config.gate));
    let limits = GateLimits::from(&config.gate);
    let mut threads = Vec::new();
    let door = match gate_listeners {
        Some(listeners) => {
            let (gate, stop, grace) = (gate.clone(), stop.clone(), config.grace);
            let serve = move || gate::serve_all(listeners, gate, limits, stop, grace);
            threads.push(serving_thread("gate", Some(&ended), serve)?);
            if openings.are_configured() {
                Door::momentary(opener(None, &openings), LINGER)
            } else {
                Door::Open
            }
        }
        None => {
            let gate = on_demand(config.clone(), gate.clone(), limits, source.starter());
            Door::momentary(opener(Some(gate), &openings), LINGER)
        }
    };
    openings.tell(notices.opening_alarm());

    let resolver = config.front.as_ref().map(|_| CertificateResolver::new()).transpose()?;
    let served = Served { resolver: resolver.clone(), identifiers: gate.served.clone() };
    let (keeper, told) = Keeper::new(config.clone(), store, table.clone(), served, door, helper);
    for sentence in told {
        tracing::warn!("{sentence}");
    }
    keeper.settle_embedded(room.embedded.clone());
    let foreign = resolver
        .as_ref()
        .map(|resolver| ForeignCertificates::new(&config, resolver.clone(), gate.served.clone()));
    let ticket_file =
        resolver.as_ref().map(|resolver| TicketFile::new(&config, resolver.clone(), ticket_keys));
    if let Some(foreign) = foreign.clone() {
        notices.watch_files(Rc::new(move || foreign.status()));
    }
    let front = match (&config.front, resolver) {
        (Some(front), Some(resolver)) => {
            // As whom the daemon is from now on, for it will be opened again.
            let access_log = front.access_log.as_ref().map(AccessLog::open).transpose()?;
            Some(Arc::new(FrontState::new(resolver, front, table.clone()).with_access_log(access_log)))
        }
        _ => None,
    };
    if let (Some(state), Some(settings)) = (&front, &config.front) {
        threads.extend(start_front(settings, front_listeners, state, &stop, config.grace, &ended)?);
    }

    let announcer = Rc::new(Announcer::new(&config));
    let (seen_gate, seen_front) = (gate.clone(), front.clone());
    let daemon = Rc::new(Daemon {
        keeper: keeper.clone(),
        load,
        gate,
        front: front.clone(),
        foreign: foreign.clone(),
        ticket_file: ticket_file.clone(),
        announcer: announcer.clone(),
        notices: notices.clone(),
        openings: openings.clone(),
        room,
        reloading: Mutex::default(),
    });
    let actions_table = table.clone();
    let log: Rc<dyn Fn(&crate::renewal::Event)> = Rc::new({
        let notices = notices.clone();
        move |event| {
            announcer.announce(event);
            notices.tell(event);
        }
    });
    let actions = Actions {
        keeper: keeper.clone(),
        table,
        reload: Box::new({
            let daemon = daemon.clone();
            move || {
                let daemon = daemon.clone();
                Box::pin(async move { daemon.reload().await })
            }
        }),
        check: Box::new({
            let (daemon, table) = (daemon.clone(), actions_table);
            move |names| {
                let (config, table) = (daemon.keeper.config(), table.clone());
                let daemon = daemon.clone();
                Box::pin(async move {
                    let (_door, problem) = match daemon.keeper.door().open().await {
                        Ok(door) => (door, None),
                        Err(error) => (None, Some(error.to_string())),
                    };
                    check::with_gate(&config, &names, &table, problem).await.map_err(|e| admin::Refusal {
                        error: e.to_string(),
                        unknown: matches!(e, CheckError::Unknown { .. }),
                    })
                })
            }
        }),
        gate: seen_gate,
        front: seen_front,
        sandbox,
        openings: Box::new({
            let openings = openings.clone();
            move || openings.state()
        }),
        from_files: Box::new({
            let foreign = foreign.clone();
            move || foreign.as_ref().map(|foreign| foreign.status()).unwrap_or_default()
        }),
        log: log.clone(),
        since: Timestamp::try_from(clock::now()).unwrap_or(Timestamp::MAX),
    };
    let admin = tokio::task::spawn_local(admin::serve(admin, page, actions, stop.clone()));
    announce::ready(&config, &keeper);
    notify(&[NotifyState::Ready]);

    let mut keeping = tokio::task::spawn_local({
        let keeper = keeper.clone();
        async move { keeper.keep(log).await }
    });
    let mut telling = tokio::task::spawn_local({
        let notices = notices.clone();
        async move { notices.serve().await }
    });
    if let Some(foreign) = foreign {
        tokio::task::spawn_local(async move { foreign.watch().await });
    }
    if let Some(file) = ticket_file {
        tokio::task::spawn_local(async move { file.watch().await });
    }
    let mut fate = Ok(());
    let mut looking = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            // Renewals that stop without a word would be found out when certificates have ended.
            _ = &mut keeping => {
                fate = Err(DaemonError::Broken("control".to_owned()));
                break;
            }
            // And nobody would hear of it.
            _ = &mut telling => {
                fate = Err(DaemonError::Broken("control".to_owned()));
                break;
            }
            Some(name) = broken.recv() => {
                fate = Err(DaemonError::Broken(name));
                break;
            }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = looking.tick() => {
                let Some(path) = daemon.room.replaced() else { continue };
                if std::env::var_os("NOTIFY_SOCKET").is_some() {
                    fate = Err(DaemonError::Replaced(path));
                    break;
                }
                tracing::error!("{path} was replaced, and cannot be read from within the sandbox: restart wicketgate, or names may not be resolved");
            }
            // In a task of its own: it waits for a pass under way, and a stop shall not.
            _ = hang_up.recv() => {
                let daemon = daemon.clone();
                tokio::task::spawn_local(async move {
                    if let Err(error) = daemon.reload().await {
                        tracing::error!("the configuration is not taken, the old one stays: {error}");
                    }
                });
            }
        }
    }

    notify(&[NotifyState::Stopping]);
    tracing::info!("stopping; connections have {} s to finish", config.grace.as_secs());
    // Challenges are withdrawn and ports are shut as their owners go.
    keeping.abort();
    telling.abort();
    trigger.stop();
    let joined = tokio::task::spawn_blocking(move || {
        threads.into_iter().for_each(join);
        if let Some(log) = front.as_ref().and_then(|front| front.access_log()) {
            log.finish(LAST_LINES);
        }
    });
    let drained = async {
        let helpers = async {
            keeper.close().await;
            if let Err(sentence) = openings.finish(Duration::ZERO).await {
                tracing::error!("{sentence}");
            }
            notices.close().await;
        };
        let closed = tokio::time::timeout(config.grace, helpers);
        // A panic in a serving thread was told when it happened; an admin connection under way ends with
        // the process, and its socket is removed here.
        let (_, _, closed) = tokio::join!(joined, admin, closed);
        if closed.is_err() {
            tracing::warn!("a reload command of another server still runs; it is left to end by itself");
        }
    };
    tokio::select! {
        () = drained => {}
        _ = interrupt.recv() => tracing::warn!("interrupted again: not waiting any longer"),
    }
    tracing::info!("stopped");
    fate
}

impl Daemon {
    /// Takes a new configuration, or none of it; the warnings, or why not.
    async fn reload(&self) -> Result<Vec<String>, String> {
        let _one = self.reloading.lock().await;
        let beginning = [NotifyState::Reloading].into_iter().chain(NotifyState::monotonic_usec_now().ok());
        notify(&beginning.collect::<Vec<_>>());
        let taken = self.take_configuration().await;
        notify(&[NotifyState::Ready]);
        taken
    }

    async fn take_configuration(&self) -> Result<Vec<String>, String> {
        let config = (self.load)().map_err(|e| e.to_string())?;
        let before = self.keeper.config();
        let fixed = needs_restart(&before, &config);
        if !fixed.is_empty() {
            let verb = if fixed.len() == 1 { "needs" } else { "need" };
            return Err(format!("a change of {} {verb} a restart; nothing has changed", fixed.join(", ")));
        }
        let lacks = self.room.lacks(&config);
        if !lacks.is_empty() {
            return Err(format!(
                "the sandbox only narrows, and {} needs a restart; nothing has changed",
                lacks.join(", ")
            ));
        }
        let mut told = config.warnings.clone();
        self.gate.policy.store(Arc::new(Policy::from(&config.gate)));
        if let (Some(state), Some(front)) = (&self.front, &config.front) {
            state.reload(front);
        }
        let config = Arc::new(config);
        self.announcer.reconfigure(&config);
        told.extend(self.keeper.reconfigure(config).await);
        if let Some(foreign) = &self.foreign {
            foreign.reconfigure(&self.keeper.config());
        }
        if let Some(file) = &self.ticket_file {
            file.reconfigure(&self.keeper.config());
        }
        self.openings.reconfigure(self.keeper.config());
        for started in [
            self.keeper.start_helper().await,
            self.notices.reconfigure(self.keeper.config()).await,
            self.openings.start_helper().await,
        ] {
            told.extend(started.err().map(|e| e.to_string()));
        }
        for sentence in &told {
            tracing::warn!("{sentence}");
        }
        tracing::info!("the configuration is taken");
        Ok(told)
    }
}

/// The keys that other nodes seal session tickets with, as whoever starts this process may read them.
fn ticket_keys(config: &Config) -> Result<Option<TicketKeys>, DaemonError> {
    let Some(file) = config.front.as_ref().and_then(|front| front.ticket_key_file.as_ref()) else {
        return Ok(None);
    };
    let keys = TicketKeys::read(file);
    keys.map(Some).map_err(|source| DaemonError::TicketKeys { file: file.clone(), source })
}

/// Keys whose change a running daemon cannot follow, by name.
fn needs_restart(before: &Config, after: &Config) -> Vec<&'static str> {
    let mut keys = Vec::new();
    let mut check = |key, same: bool| {
        if !same {
            keys.push(key);
        }
    };
    check("state-dir", before.state_dir == after.state_dir);
    check("user", before.user == after.user);
    check("sandbox", before.sandbox == after.sandbox);
    check("grace", before.grace == after.grace);
    check("gate.listen", before.gate.listen == after.gate.listen);
    check("gate.open", before.gate.open == after.gate.open);
    check("[[gate.opening]]", before.gate.openings.is_empty() == after.gate.openings.is_empty());
    check("gate.max-connections", before.gate.max_connections == after.gate.max_connections);
    check(
        "gate.max-connections-per-network",
        before.gate.max_connections_per_network == after.gate.max_connections_per_network,
    );
    check("admin.socket", before.admin.socket == after.admin.socket);
    check("admin.listen", before.admin.listen == after.admin.listen);
    match (&before.front, &after.front) {
        (Some(before), Some(after)) => {
            check("front.listen", before.listen == after.listen);
            check("front.access-log", before.access_log == after.access_log);
            check("front.threads", before.threads == after.threads);
            check("front.max-connections", before.max_connections == after.max_connections);
            check(
                "front.max-connections-per-network",
                before.max_connections_per_network == after.max_connections_per_network,
            );
            check("front.max-handshakes", before.max_handshakes == after.max_handshakes);
        }
        (None, None) => {}
        _ => check("[front]", false),
    }
    keys
}

/// A shell's usual limit of 1,024 descriptors would let a flood on one port starve the other.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, raised)
    {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
}

/// The gate's listeners.
fn bind_gate(config: &Config, inherited: &mut Inherited) -> Result<Vec<TcpListener>, ListenError> {
    let mut one = |address: &SocketAddr| match inherited.tcp(*address) {
        Some(listener) => Ok(listener),
        None => bind(*address, &ListenOptions::default()),
    };
    config.gate.listen.iter().map(&mut one).collect()
}

/// Makes the gate listen and serve, until a stop.
type OnDemand = Box<dyn Fn(Stop) -> Result<tokio::task::JoinHandle<()>, ListenError>>;

/// Opens what stands before the gate, and the gate itself where it does not listen all the time.
fn opener(gate: Option<OnDemand>, openings: &Rc<Openings>) -> impl Fn(Stop) -> Opened + use<> {
    let openings = openings.clone();
    move |stop| {
        let serving = gate.as_ref().map(|gate| gate(stop.clone())).transpose();
        let openings = openings.clone();
        Box::pin(async move {
            let serving = serving?;
            if !openings.are_configured() {
                return Ok(tokio::task::spawn_local(ended(serving)));
            }
            openings.open().await.map_err(DoorError::Opening)?;
            Ok(tokio::task::spawn_local(async move {
                tokio::join!(ended(serving), openings.keep(stop));
            }))
        })
    }
}

async fn ended(serving: Option<tokio::task::JoinHandle<()>>) {
    if let Some(serving) = serving {
        // A panic of the gate was told when it happened.
        let _ = serving.await;
    }
}

/// Opens the gate on demand, on a thread of its own as ever.
fn on_demand(
    config: Arc<Config>,
    gate: GateState,
    limits: GateLimits,
    starter: Option<Arc<Starter>>,
) -> OnDemand {
    Box::new(move |stop| {
        let listeners = bind_gate(&config, &mut Inherited::default()).map_err(|e| match (e, &starter) {
            // What cannot be seen from within the sandbox.
            (ListenError::InUse { address, holder: None }, Some(starter)) => {
                ListenError::InUse { address, holder: starter.holder(address.port()) }
            }
            (e, _) => e,
        })?;
        let (gate, grace) = (gate.clone(), config.grace);
        let serve = move || gate::serve_all(listeners, gate, limits, stop, grace);
        let thread = serving_thread("gate", None, serve)
            .map_err(|cause| ListenError::Other { address: config.gate.listen[0], cause })?;
        let joined = tokio::task::spawn_blocking(move || join(thread));
        Ok(tokio::task::spawn_local(async move {
            // A panic of the gate was told when it happened.
            let _ = joined.await;
        }))
    })
}

/// The listener for metrics, health and the status page.
fn bind_page(address: SocketAddr, inherited: &mut Inherited) -> Result<TcpListener, ListenError> {
    inherited.tcp(address).map_or_else(|| bind(address, &ListenOptions::default()), Ok)
}

/// One set of listeners a thread, sharing the ports; one that the service manager holds is the same for all.
fn bind_front(front: &Front, inherited: &mut Inherited) -> Result<Vec<Vec<TcpListener>>, ListenError> {
    let options = ListenOptions { reuse_port: front.threads > 1 };
    let mut threads: Vec<Vec<TcpListener>> = (0..front.threads).map(|_| Vec::new()).collect();
    for address in &front.listen {
        let passed = inherited.tcp(*address);
        for listeners in &mut threads {
            listeners.push(match &passed {
                Some(listener) => {
                    listener.try_clone().map_err(|cause| ListenError::Other { address: *address, cause })?
                }
                None => bind(*address, &options)?,
            });
        }
    }
    Ok(threads)
}

fn start_front(
    settings: &Front,
    listeners: Vec<Vec<TcpListener>>,
    state: &Arc<FrontState>,
    stop: &Stop,
    grace: Duration,
    ended: &mpsc::UnboundedSender<String>,
) -> io::Result<Vec<JoinHandle<()>>> {
    let caps = front::caps(settings);
    let start = |(n, listeners): (usize, Vec<TcpListener>)| {
        let (state, stop) = (state.clone(), stop.clone());
        serving_thread(&format!("front-{n}"), Some(ended), move || {
            front::serve(listeners, state, caps, stop, grace)
        })
    };
    listeners.into_iter().enumerate().map(start).collect()
}

/// A thread with a runtime of its own for what `serve` makes. Where it is needed all the time, its name is sent
/// when it has ended, however that came about.
fn serving_thread<F>(
    name: &str,
    ended: Option<&mpsc::UnboundedSender<String>>,
    serve: impl FnOnce() -> F + Send + 'static,
) -> io::Result<JoinHandle<()>>
where
    F: Future<Output = io::Result<()>>,
{
    struct Farewell(String, mpsc::UnboundedSender<String>);
    impl Drop for Farewell {
        fn drop(&mut self) {
            // While stopping, nobody listens any more.
            let _ = self.1.send(std::mem::take(&mut self.0));
        }
    }
    let label = name.to_owned();
    let farewell = ended.map(|ended| Farewell(name.to_owned(), ended.clone()));
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        let _farewell = farewell;
        let served = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .and_then(|runtime| LocalSet::new().block_on(&runtime, serve()));
        if let Err(error) = served {
            tracing::error!(%error, "the {label} thread cannot serve");
        }
    })
}

fn join(thread: JoinHandle<()>) {
    let name = thread.thread().name().unwrap_or("a").to_owned();
    if thread.join().is_err() {
        tracing::error!("the {name} thread panicked; this is a bug, please report it");
    }
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
