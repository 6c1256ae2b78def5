//! The helper's own side: it answers requests, by number and name, and does nothing else.
//!
//! As the main process's child it serves its standard input, which is a socket, until that closes for
//! whatever reason, and then ends. As a unit of its own it listens, on a socket from systemd or one that it
//! makes, for root, its own user and the one whom the state directory belongs to.

use std::collections::BTreeMap;
use std::fs;
use std::future::Future;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::command::{self, NOTIFY_LIMIT, Surroundings};
use super::haproxy::{Replacement, RuntimeApi};
use super::processes::Machine;
use super::running::Running;
use super::services::{self, Facts, Instance, Reload};
use super::wire::{self, Action, Answer, Request};
use super::{copy, openings, trust};
use crate::certificate::Bundle;
use crate::clock;
use crate::config::{CertificateRequest, Config, ConfigError, DeployTarget, Service};
use crate::folder::Folder;

/// Connections at a time, to a helper of its own unit.
const CONNECTIONS: usize = 16;

/// When shutting is tried again that failed.
const SHUT_AGAIN: Duration = Duration::from_secs(5);

/// How long systemd may take to tell of a unit: well within what the main process grants.
const ASKING: Duration = Duration::from_secs(5);

/// Why a helper of its own unit does not listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Nobody said where.
    #[error(
        "there is no socket to listen on: write `socket` under [helper], as in `socket = \"/run/wicketgate-helper/socket\"`"
    )]
    NoSocket,
    /// systemd has passed a socket where it is not looked for.
    #[error("systemd passed a socket, but not as standard input: write `StandardInput=socket` into the unit")]
    Misplaced,
    /// Somebody else is there.
    #[error("another helper listens on {}: stop it, or name another socket under [helper]", .0.display())]
    Taken(PathBuf),
    /// The system refused.
    #[error("cannot listen on {}: {source}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Serves the main process, on standard input, until it is gone. `load` reads the configuration afresh.
///
/// # Errors
/// Standard input is not a socket, or breaks.
pub async fn serve(load: impl Fn() -> Result<Config, ConfigError>) -> io::Result<()> {
    // Who stops the service signals every process of it; a reload under way is finished first, and the
    // closed socket ends this one.
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move { while terminate.recv().await.is_some() {} });

    let socket = StdUnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    socket.set_nonblocking(true)?;
    converse(UnixStream::from_std(socket)?, &load, &Hands::default(), std::future::pending()).await
}

/// Serves whoever may connect, until SIGTERM or SIGINT; what is under way is finished then. To be called
/// in a [`tokio::task::LocalSet`].
///
/// # Errors
/// [`ListenError`], before anybody was served.
pub async fn listen(
    config: &Config,
    load: impl Fn() -> Result<Config, ConfigError> + 'static,
) -> Result<(), ListenError> {
    let (listener, own) = listener(config)?;
    let shown = own.as_deref().map_or_else(|| "a socket from systemd".into(), |p| p.display().to_string());
    let failed = |source| ListenError::Io { path: own.clone().unwrap_or_default(), source };
    let listener = UnixListener::from_std(listener).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let (stop, stopped) = watch::channel(());
    let (load, hands) = (Rc::new(load), Rc::new(Hands::default()));
    let places = std::sync::Arc::new(Semaphore::new(CONNECTIONS));
    let mut conversations = JoinSet::new();
    tracing::info!("listening on {shown}");
    if let Err(error) = sd_notify::notify(&[NotifyState::Ready]) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted.map(|(stream, _)| stream),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            Some(_) = conversations.join_next() => continue,
        };
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                // Descriptors that have run out come back with time.
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let place = places.clone().try_acquire_owned();
        let refusal = refused(&stream, &config.state_dir).or_else(|| {
            let full = || format!("{CONNECTIONS} connections are open already; close one");
            place.is_err().then(full)
        });
        if let Some(reason) = refusal {
            tracing::warn!("a connection is refused: {reason}");
            conversations.spawn_local(refuse(stream, reason));
            continue;
        }
        let (load, hands, mut stopped) = (load.clone(), hands.clone(), stopped.clone());
        conversations.spawn_local(async move {
            let _place = place;
            let stop = async move {
                // The sender is gone only when all is over.
                let _ = stopped.changed().await;
            };
            if let Err(error) = converse(stream, &*load, &hands, stop).await {
                tracing::warn!("a connection is closed: {error}");
            }
        });
    }
    tracing::info!("stopping");
    stop.send_replace(());
    while conversations.join_next().await.is_some() {}
    if let Some(path) = own {
        // systemd removes its folder anyway.
        let _ = fs::remove_file(path);
    }
    Ok(())
}

/// The socket that systemd passes as standard input, or the configured one and its path.
fn listener(config: &Config) -> Result<(StdUnixListener, Option<PathBuf>), ListenError> {
    let stdin = io::stdin();
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| ListenError::Io { path, source }
    };
    if rustix::net::sockopt::socket_acceptconn(stdin.as_fd()).unwrap_or(false) {
        let inherited = stdin.as_fd().try_clone_to_owned().map(StdUnixListener::from);
        let listener = inherited.map_err(failed(Path::new("standard input")))?;
        listener.set_nonblocking(true).map_err(failed(Path::new("standard input")))?;
        return Ok((listener, None));
    }
    if std::env::var_os("LISTEN_FDS").is_some() {
        return Err(ListenError::Misplaced);
    }
    let path = &config.helper.as_ref().ok_or(ListenError::NoSocket)?.socket;
    let is_socket = fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    if is_socket {
        match StdUnixStream::connect(path) {
            Ok(_) => return Err(ListenError::Taken(path.clone())),
            // Its owner is gone.
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path).map_err(failed(path))?;
            }
            Err(source) => return Err(failed(path)(source)),
        }
    }
    let listener = StdUnixListener::bind(path).map_err(failed(path))?;
    listener.set_nonblocking(true).map_err(failed(path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed(path))?;
    // To the one who will connect; whoever he is, he is looked at when he does.
    if let (true, Ok(state)) = (rustix::process::geteuid().is_root(), fs::metadata(&config.state_dir)) {
        std::os::unix::fs::chown(path, Some(state.uid()), None).map_err(failed(path))?;
    }
    Ok((listener, Some(path.clone())))
}

/// Why the other side is not served.
fn refused(stream: &UnixStream, state_dir: &Path) -> Option<String> {
    let peer = match stream.peer_cred() {
        Ok(peer) => peer.uid(),
        Err(e) => return Some(format!("the other side cannot be known: {e}")),
    };
    let owner = fs::metadata(state_dir).ok().map(|state| state.uid());
    let may = peer == 0 || peer == rustix::process::geteuid().as_raw() || Some(peer) == owner;
    (!may).then(|| {
        format!(
            "{} may not ask the helper for anything; only root and the owner of {} may",
            trust::user(peer),
            state_dir.display()
        )
    })
}

async fn refuse(mut stream: UnixStream, reason: String) {
    // Whether it is heard is not our concern.
    let _ = wire::send(&mut stream, &Answer::Failed(reason)).await;
    let _ = stream.shutdown().await;
}

/// Answers one connection's requests until it closes, or until `stop`.
async fn converse(
    stream: UnixStream,
    load: &impl Fn() -> Result<Config, ConfigError>,
    hands: &Hands,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let number = hands.conversations.fetch_add(1, Ordering::Relaxed);
    let mut doors = Doors { open: None, owner: format!("{}-{number}", std::process::id()) };
    let ended = converse_about(stream, load, hands, stop, &mut doors).await;
    if let Some(open) = doors.open {
        openings::close_at_last(&open.config.state_dir, &doors.owner).await;
    }
    ended
}

/// What one connection has had opened.
#[derive(Debug)]
struct Doors {
    open: Option<OpenDoors>,
    /// By which this connection's openings are told from those of another.
    owner: String,
}

#[derive(Debug)]
struct OpenDoors {
    /// By which they were opened; that on disk may be another one by now.
    config: Rc<Config>,
    /// When they are shut unless the lease is renewed.
    until: Instant,
    /// They could not be shut: of some it is not known any more whether they are open.
    is_stuck: bool,
}

impl Doors {
    /// Waits until the lease has ended, for ever where nothing is open.
    async fn ended(&self) {
        match &self.open {
            Some(open) => tokio::time::sleep_until(open.until).await,
            None => std::future::pending().await,
        }
    }

    /// Shuts what was open: the one who should have renewed the lease hangs.
    async fn end(&mut self) {
        let Some(open) = self.open.take() else { return };
        if !openings::is_of(&open.config.state_dir, &self.owner) {
            return;
        }
        tracing::warn!("nobody has renewed the lease of what is open: it is shut");
        if let Err(told) = self.shut(open.config).await {
            tracing::error!("AN OPENING COULD NOT BE SHUT: {told}");
        }
    }

    /// Opens, or renews, what this configuration names.
    async fn open(&mut self, config: Rc<Config>) -> Answer {
        let Some(lease) = openings::lease(&config.gate.openings) else { return Answer::Nothing };
        let is_renewed = self.open.as_ref().is_some_and(|open| !open.is_stuck);
        let opened = openings::open(&config, is_renewed, &self.owner).await;
        let is_open = opened.is_ok() || openings::is_on_record(&config.state_dir);
        let is_stuck = opened.is_err();
        self.open = is_open.then(|| OpenDoors { config, until: Instant::now() + lease, is_stuck });
        opened.map_or_else(Answer::Failed, |()| Answer::Done)
    }

    /// Shuts everything; what fails is tried again after a while.
    async fn shut(&mut self, config: Rc<Config>) -> Result<(), String> {
        let shut = openings::close(&config.state_dir).await;
        let until = Instant::now() + SHUT_AGAIN;
        self.open = shut.is_err().then(|| OpenDoors { config, until, is_stuck: true });
        shut.map_err(|told| told.join("; "))
    }
}

async fn converse_about(
    stream: UnixStream,
    load: &impl Fn() -> Result<Config, ConfigError>,
    hands: &Hands,
    stop: impl Future<Output = ()>,
    doors: &mut Doors,
) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let mut config = load().map(Rc::new);
    tokio::pin!(stop);
    loop {
        let has_begun = tokio::select! {
            begun = wire::has_begun(&mut read) => begun?,
            () = &mut stop => return Ok(()),
            () = doors.ended() => {
                doors.end().await;
                continue;
            }
        };
        let request = if has_begun { wire::receive::<Request>(&mut read).await? } else { None };
        let Some(request) = request else { return Ok(()) };
        let of_the_open = doors.open.as_ref().map(|open| open.config.clone());
        let is_asked_by = |config: &Rc<Config>| config.digest == request.digest;
        if !of_the_open.as_ref().is_some_and(is_asked_by) && !config.as_ref().is_ok_and(is_asked_by) {
            config = load().map(Rc::new);
        }
        let known = match (&of_the_open, &config) {
            (Some(config), _) if config.digest == request.digest => Ok(config),
            (_, Ok(config)) if config.digest == request.digest => Ok(config),
            (_, Ok(_)) => Err(
                "the configuration on disk is not the one in use: run `wicketgate reload`, and it is tried again; a helper of a unit of its own must have been given the same flags and WICKETGATE_ variables"
                    .to_owned(),
            ),
            (_, Err(e)) => Err(format!("the helper cannot take the configuration: {e}")),
        };
        let answer = match (&request.action, known) {
            // That goes by the record alone, whatever the configuration has become since.
            (Action::ShutDoors, known) => {
                let on_disk = || known.ok().or(config.as_ref().ok()).filter(|config| settled(config).is_ok());
                match of_the_open.as_ref().or_else(on_disk) {
                    Some(config) => {
                        doors.shut(config.clone()).await.map_or_else(Answer::Failed, |()| Answer::Done)
                    }
                    None => Answer::Failed(
                        "without a configuration that is root's alone it is not known where the record is"
                            .to_owned(),
                    ),
                }
            }
            (_, Err(reason)) => Answer::Failed(reason),
            (action, Ok(config)) => match (settled(config), action) {
                (Err(reason), _) => Answer::Failed(format!(
                    "root does nothing by a configuration that others could change: {reason}"
                )),
                (Ok(()), Action::OpenDoors) => doors.open(config.clone()).await,
                (Ok(()), action) => hands.perform(config, action).await,
            },
        };
        wire::send(&mut write, &answer).await?;
    }
}

/// Whether nobody but root can change what root is told to do.
fn settled(config: &Config) -> Result<(), String> {
    let us = rustix::process::geteuid();
    let mut files = config.files.iter().filter(|_| us.is_root());
    files.try_for_each(|file| trust::settled(file, us.as_raw()).map(drop))
}

/// Does what is asked for.
#[derive(Debug, Default)]
struct Hands {
    machine: Machine,
    /// How servers ran when they were last seen, by the name of their table: so they are started again.
    remembered: Mutex<BTreeMap<String, Instance>>,
    /// How many connections there were.
    conversations: AtomicU64,
}

impl Hands {
    async fn perform(&self, config: &Config, action: &Action) -> Answer {
        match self.attend(config, action).await {
            Ok(answer) => answer,
            Err(sentence) => Answer::Failed(sentence),
        }
    }

    async fn attend(&self, config: &Config, action: &Action) -> Result<Answer, String> {
        match action {
            Action::Check { service } => {
                let (name, target) = find(config, *service)?;
                self.check(config, name, target).await
            }
            Action::Reload { service, certificates } => {
                let (name, target) = find(config, *service)?;
                let certificates = known(config, name, certificates)?;
                self.reload(config, name, target, &certificates).await
            }
            Action::Running { service } => {
                let (name, target) = find(config, *service)?;
                let Some(service) = target.service else { return Ok(Answer::Nothing) };
                Ok(match self.facts(name, service).await?.is_running() {
                    Some(true) => Answer::Done,
                    Some(false) => Answer::Stopped,
                    None => Answer::Nothing,
                })
            }
            Action::Start { service } => {
                let (name, target) = find(config, *service)?;
                self.start(config, name, target).await
            }
            Action::Copy { service, certificate, version, goes_on } => {
                let (name, target) = find(config, *service)?;
                known(config, name, std::slice::from_ref(certificate))?;
                let Some(copies) = &target.copies else { return Ok(Answer::Nothing) };
                let stored = copy::stored(&config.state_dir, certificate, *version)?;
                is_for(config, certificate, &stored)?;
                copy::copy(copies, certificate, &stored, *goes_on).map(|()| Answer::Done)
            }
            Action::PutBack { service, certificate, version } => {
                let (name, target) = find(config, *service)?;
                known(config, name, std::slice::from_ref(certificate))?;
                let Some(copies) = &target.copies else { return Ok(Answer::Nothing) };
                let stored = copy::stored(&config.state_dir, certificate, *version)?;
                let was_kept = copy::put_back(copies, certificate, &stored)?;
                Ok(if was_kept { Answer::Done } else { Answer::Nothing })
            }
            Action::OpenDoors | Action::ShutDoors => Err("doors belong to a connection".to_owned()),
            Action::Notify { document } => {
                let command =
                    config.notify.command.as_ref().ok_or("the helper knows no command to notify with")?;
                let document = document.to_string();
                command::run(command, &Surroundings::Notice(&document), NOTIFY_LIMIT).await?;
                Ok(Answer::Done)
            }
        }
    }

    async fn check(&self, config: &Config, name: &str, target: &DeployTarget) -> Result<Answer, String> {
        let preset = match (&target.check, target.service) {
            (Some(command), _) => command.clone(),
            (None, None) => return Ok(Answer::Nothing),
            (None, Some(service)) => {
                let facts = self.facts(name, service).await?;
                match services::check(service, &facts, self.remembered(name).as_ref()) {
                    Ok(command) => command,
                    // Who has a reload of his own may mean a server that is not seen from here.
                    Err(_) if target.reload.is_some() => return Ok(Answer::Nothing),
                    Err(reason) => return Err(format!("its configuration cannot be tested: {reason}")),
                }
            }
        };
        let tested = run(config, name, target, &preset).await;
        tested.map_err(|reason| format!("its configuration does not pass its own test: {reason}"))
    }

    async fn reload(
        &self,
        config: &Config,
        name: &str,
        target: &DeployTarget,
        certificates: &[&CertificateRequest],
    ) -> Result<Answer, String> {
        if let Some(command) = &target.reload {
            let each: Vec<_> = certificates.chunks(1).collect();
            for together in if target.each { each } else { vec![certificates] } {
                run_for(config, name, target, command, together).await?;
            }
            return Ok(Answer::Done);
        }
        let Some(service) = target.service else { return Ok(Answer::Nothing) };
        if let Some(socket) = &target.runtime_socket {
            return replace(config, target, socket, certificates).await.map(|()| Answer::Done);
        }
        match services::reload(service, &self.facts(name, service).await?)? {
            Reload::Command(command) => run_for(config, name, target, &command, certificates).await,
            Reload::Signal(instance, signal) => self.machine.send(&instance, signal).map(|()| Answer::Done),
        }
    }

    async fn start(&self, config: &Config, name: &str, target: &DeployTarget) -> Result<Answer, String> {
        let command = match (&target.start, target.service) {
            (Some(command), _) => command.clone(),
            (None, None) => return Ok(Answer::Nothing),
            (None, Some(service)) => {
                let facts = self.facts(name, service).await?;
                services::start(service, &facts, self.remembered(name).as_ref())?
            }
        };
        run(config, name, target, &command).await
    }

    /// What is to be known of a server; how it runs is remembered.
    async fn facts(&self, name: &str, service: Service) -> Result<Facts, String> {
        let facts = self.machine.facts(service, ASKING).await?;
        if let [instance] = facts.running.as_slice() {
            let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
            remembered.insert(name.to_owned(), instance.clone());
        }
        Ok(facts)
    }

    fn remembered(&self, name: &str) -> Option<Instance> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }
}

fn find(config: &Config, service: usize) -> Result<(&str, &DeployTarget), String> {
    let found = config.deploy.iter().nth(service);
    let (name, target) = found.ok_or("the helper knows no such service")?;
    Ok((name, target))
}

/// The certificates of those names, if that service is one of theirs.
fn known<'a>(
    config: &'a Config,
    service: &str,
    names: &[String],
) -> Result<Vec<&'a CertificateRequest>, String> {
    let one = |name: &String| {
        let found = config.certificates.iter().find(|c| c.name == *name);
        found
            .filter(|c| c.deploy.iter().any(|named| named == service))
            .ok_or_else(|| format!("the helper knows no certificate `{name}` that is deployed to {service}"))
    };
    names.iter().map(one).collect()
}

/// Whether what is stored is what the configuration asks for: whoever writes to the state directory shall not
/// have something else served.
fn is_for(config: &Config, name: &str, bundle: &Bundle) -> Result<(), String> {
    let request = config.certificates.iter().find(|certificate| certificate.name == name);
    if !request.is_some_and(|r| r.identifiers.iter().any(|identifier| bundle.covers(identifier))) {
        return Err(format!("what is stored for {name} is not passed on: it is for none of its names"));
    }
    if bundle.not_after() <= clock::now() {
        return Err(format!("what is stored for {name} is not passed on: it has ended"));
    }
    Ok(())
}

/// Runs a command that is not about a certificate.
async fn run(
    config: &Config,
    name: &str,
    target: &DeployTarget,
    command: &[String],
) -> Result<Answer, String> {
    let surroundings = Surroundings::Server { environment: &target.environment };
    let running = Running { state_dir: &config.state_dir, service: name };
    command::run_alone(running, command, &surroundings, target.timeout).await.map(|()| Answer::Done)
}

/// Runs a command that is told of certificates, as certbot tells its hooks.
async fn run_for(
    config: &Config,
    name: &str,
    target: &DeployTarget,
    command: &[String],
    certificates: &[&CertificateRequest],
) -> Result<Answer, String> {
    let lineage = certificates.first().map(|c| config.state_dir.join("live").join(&c.name));
    let Some(lineage) = lineage else { return run(config, name, target, command).await };
    let domains: Vec<_> = certificates.iter().flat_map(|c| &c.identifiers).map(ToString::to_string).collect();
    let surroundings = Surroundings::Certificate {
        environment: &target.environment,
        lineage: &lineage,
        domains: &domains.join(" "),
    };
    let running = Running { state_dir: &config.state_dir, service: name };
    command::run_alone(running, command, &surroundings, target.timeout).await.map(|()| Answer::Done)
}

/// Has a running HAProxy take the live versions.
async fn replace(
    config: &Config,
    target: &DeployTarget,
    socket: &Path,
    certificates: &[&CertificateRequest],
) -> Result<(), String> {
    let mut replacements = Vec::new();
    for certificate in certificates {
        let name = &certificate.name;
        let stored = copy::stored(&config.state_dir, name, live_version(&config.state_dir, name)?)?;
        let copied = target.copies.as_ref().and_then(|copies| copies.combined.as_ref());
        let live = config.state_dir.join("live").join(name);
        for certificate in stored.certificates() {
            let mut files = Vec::new();
            if let Some(path) = copied {
                files.push(copy::resolved(path, name, certificate)?);
            }
            if let Some(algorithm) = certificate.algorithm().filter(|_| stored.second().is_some()) {
                files.push(live.join(format!("combined.pem.{}", algorithm.name())));
                files.push(live.join(algorithm.name()).join("combined.pem"));
            }
            if std::ptr::eq(certificate, stored.first()) {
                files.push(live.join("combined.pem"));
            }
            replacements.push(Replacement { files, pem: copy::combined(certificate) });
        }
    }
    let api =
        RuntimeApi { socket, trusted: trusted_listeners(target), limit: ASKING.max(target.timeout / 4) };
    match tokio::time::timeout(target.timeout, api.replace(&replacements)).await {
        Ok(result) => result,
        Err(_) => Err(format!(
            "HAProxy did not take everything at {} within {} s",
            socket.display(),
            target.timeout.as_secs()
        )),
    }
}

/// Whom a private key may be given that HAProxy is to serve: besides root us, its user where it has one of
/// its own, and whoever its copies belong to.
fn trusted_listeners(target: &DeployTarget) -> Vec<u32> {
    let owner = target.copies.as_ref().and_then(|copies| copies.owner.as_deref()).unwrap_or_default();
    let (owner, _) = owner.split_once(':').unwrap_or((owner, ""));
    let uid = |name: &str| nix::unistd::User::from_name(name).ok().flatten().map(|user| user.uid.as_raw());
    let us = rustix::process::geteuid().as_raw();
    std::iter::once(us).chain(["haproxy", owner].into_iter().filter_map(uid)).collect()
}

/// The number of the live version.
fn live_version(state: &Path, name: &str) -> Result<u32, String> {
    let absent = || format!("{name} has no live version in {}", state.display());
    let live = Folder::open(state).and_then(|root| root.existing("live")).map_err(|e| e.to_string())?;
    let target = live.map(|live| live.read_link(name)).transpose().map_err(|e| e.to_string())?.flatten();
    let number = target.as_deref().and_then(|target| {
        let version = target.strip_prefix(&format!("../lineages/{name}/versions/"))?;
        version.parse().ok()
    });
    number.ok_or_else(absent)
}
