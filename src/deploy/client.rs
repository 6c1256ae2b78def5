//! The main process's side of the helper.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Mutex;

use super::command::NOTIFY_LIMIT;
use super::openings;
use super::starter::Starter;
use super::wire::{self, Action, Answer, Request};
use crate::config::Config;

/// Time for the helper beyond the command's own limit.
const SLACK: Duration = Duration::from_secs(10);
/// Time for what an earlier configuration had opened.
const LONGEST_SHUTTING: Duration = Duration::from_secs(600);

/// Why something could not be done for a server.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// The helper could not be started or is gone.
    #[error("the helper process cannot be used: {0}; a new one is started for the next try")]
    Helper(#[from] io::Error),
    /// Nobody listens where the helper has a unit of its own.
    #[error(
        "the helper cannot be reached at {}: {source}: is `wicketgate helper` running there (wicketgate-helper.service), and may this user connect", socket.display()
    )]
    Unreachable {
        /// Its socket.
        socket: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The command failed, in its own words.
    #[error("{0}")]
    Command(String),
    /// The service is not in the configuration.
    #[error("there is no [deploy.{0}]")]
    Unknown(String),
}

/// The helper: a process of our own, or one that a unit of its own runs. It does what the configuration names,
/// one thing at a time.
#[derive(Debug)]
pub struct Helper {
    origin: Origin,
    running: Mutex<Option<Running>>,
}

/// Where a process comes from.
#[derive(Debug)]
enum Origin {
    /// It is this binary with these arguments.
    Arguments(Vec<OsString>),
    /// Another process, with more rights, starts it.
    Starter(Arc<Starter>),
}

#[derive(Debug)]
struct Running {
    /// Our own process, or the socket of another unit's.
    whose: Whose,
    read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
}

#[derive(Debug)]
enum Whose {
    Ours(Child),
    /// Started by another process, which waits for its end.
    Started,
    Theirs(PathBuf),
}

impl Helper {
    /// A helper that is this binary with `arguments`, unless the configuration names the socket of another.
    pub fn new(arguments: Vec<OsString>) -> Self {
        Self { origin: Origin::Arguments(arguments), running: Mutex::new(None) }
    }

    /// A helper that another process starts, unless the configuration names the socket of another.
    pub fn started_by(starter: Arc<Starter>) -> Self {
        Self { origin: Origin::Starter(starter), running: Mutex::new(None) }
    }

    /// Starts it ahead of the first use, while this process still has all its rights, unless it is another
    /// unit's. To be called inside a runtime.
    ///
    /// # Errors
    /// The process cannot be started.
    pub async fn start(&self, config: &Config) -> Result<(), DeployError> {
        let mut running = self.running.lock().await;
        if running.is_none() && config.helper.is_none() {
            *running = Some(self.spawn()?);
        }
        Ok(())
    }

    /// The helper that this configuration wants.
    async fn reach(&self, config: &Config) -> Result<Running, DeployError> {
        let Some(helper) = &config.helper else { return Ok(self.spawn()?) };
        let socket = helper.socket.clone();
        match UnixStream::connect(&socket).await {
            Ok(stream) => {
                let (read, write) = stream.into_split();
                Ok(Running { whose: Whose::Theirs(socket), read: BufReader::new(read), write })
            }
            Err(source) => Err(DeployError::Unreachable { socket, source }),
        }
    }

    fn spawn(&self) -> io::Result<Running> {
        let (ours, whose) = match &self.origin {
            Origin::Starter(starter) => (starter.helper()?, Whose::Started),
            Origin::Arguments(arguments) => {
                let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
                let child = Command::new("/proc/self/exe")
                    .args(arguments)
                    .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
                    .stdout(Stdio::null())
                    .process_group(0)
                    .spawn()?;
                (ours, Whose::Ours(child))
            }
        };
        ours.set_nonblocking(true)?;
        let (read, write) = UnixStream::from_std(ours)?.into_split();
        Ok(Running { whose, read: BufReader::new(read), write })
    }

    /// Has the server's configuration tested; `false` where there is no test.
    ///
    /// # Errors
    /// [`DeployError`]: the sentence is meant for the administrator.
    pub async fn check(&self, config: &Config, service: &str) -> Result<bool, DeployError> {
        self.serve(config, service, 1, |service| Action::Check { service }).await
    }

    /// Makes a server read its files again, of which those of some certificates are new.
    ///
    /// # Errors
    /// [`DeployError`]: the sentence is meant for the administrator.
    pub async fn reload(
        &self,
        config: &Config,
        service: &str,
        certificates: &[String],
    ) -> Result<(), DeployError> {
        let certificates = certificates.to_vec();
        let count = certificates.len();
        self.serve(config, service, count, |service| Action::Reload { service, certificates }).await.map(drop)
    }

    /// Whether the server runs; `None` where that cannot be told.
    ///
    /// # Errors
    /// [`DeployError`]: it could not be looked for.
    pub async fn is_running(&self, config: &Config, service: &str) -> Result<Option<bool>, DeployError> {
        match self.answer(config, service, 1, |service| Action::Running { service }).await? {
            Answer::Done => Ok(Some(true)),
            Answer::Stopped => Ok(Some(false)),
            Answer::Nothing => Ok(None),
            Answer::Failed(reason) => Err(DeployError::Command(reason)),
        }
    }

    /// Starts the server; `false` where there is no way to.
    ///
    /// # Errors
    /// [`DeployError`]: the sentence is meant for the administrator.
    pub async fn start_server(&self, config: &Config, service: &str) -> Result<bool, DeployError> {
        self.serve(config, service, 1, |service| Action::Start { service }).await
    }

    /// Writes the files of a stored version to where `copy` wants them. What is there is kept beside it, unless
    /// this goes on with a deploy (`goes_on`) that has kept it already.
    ///
    /// # Errors
    /// [`DeployError`]: the sentence is meant for the administrator.
    pub async fn copy(
        &self,
        config: &Config,
        service: &str,
        certificate: &str,
        version: u32,
        goes_on: bool,
    ) -> Result<(), DeployError> {
        let certificate = certificate.to_owned();
        let action = |service| Action::Copy { service, certificate, version, goes_on };
        self.serve(config, service, 1, action).await.map(drop)
    }

    /// Puts back what was there before the last copy; `false` where nothing was, or nothing had changed.
    ///
    /// # Errors
    /// [`DeployError`]: the sentence is meant for the administrator.
    pub async fn put_back(
        &self,
        config: &Config,
        service: &str,
        certificate: &str,
        version: u32,
    ) -> Result<bool, DeployError> {
        let certificate = certificate.to_owned();
        self.serve(config, service, 1, |service| Action::PutBack { service, certificate, version }).await
    }

    /// Has something done for a service that may take `times` the time of a command; `false`: there was
    /// nothing to do.
    async fn serve(
        &self,
        config: &Config,
        service: &str,
        times: usize,
        action: impl FnOnce(usize) -> Action,
    ) -> Result<bool, DeployError> {
        done(self.answer(config, service, times, action).await?)
    }

    async fn answer(
        &self,
        config: &Config,
        service: &str,
        times: usize,
        action: impl FnOnce(usize) -> Action,
    ) -> Result<Answer, DeployError> {
        let found = config.deploy.iter().enumerate().find(|(_, (name, _))| *name == service);
        let (place, (_, target)) = found.ok_or_else(|| DeployError::Unknown(service.to_owned()))?;
        let times = if target.each { u32::try_from(times).unwrap_or(u32::MAX).max(1) } else { 1 };
        // One that an earlier helper has left running may take its time first.
        let limit = target.timeout.saturating_mul(times.saturating_add(1)).saturating_add(SLACK);
        self.perform(config, action(place), limit).await
    }

    /// Runs the command of `[notify]` with a document on its standard input.
    ///
    /// # Errors
    /// [`DeployError`]: the sentence is meant for the administrator.
    pub async fn notify(&self, config: &Config, document: &serde_json::Value) -> Result<(), DeployError> {
        let action = Action::Notify { document: document.clone() };
        done(self.perform(config, action, NOTIFY_LIMIT + SLACK).await?).map(drop)
    }

    /// Opens every `[[gate.opening]]`, all or none, or renews their leases.
    ///
    /// # Errors
    /// [`DeployError`]: the sentence is meant for the administrator.
    pub async fn open_doors(&self, config: &Config) -> Result<(), DeployError> {
        let limit = openings::limit(&config.gate.openings) + SLACK;
        done(self.perform(config, Action::OpenDoors, limit).await?).map(drop)
    }

    /// Shuts everything that is on record as open.
    ///
    /// # Errors
    /// [`DeployError`]: the sentence is meant for the administrator; what could not be shut stays on record.
    pub async fn shut_doors(&self, config: &Config) -> Result<(), DeployError> {
        // Those on record may be others than the configured ones.
        let limit = openings::limit(&config.gate.openings).max(LONGEST_SHUTTING) + SLACK;
        done(self.perform(config, Action::ShutDoors, limit).await?).map(drop)
    }

    async fn perform(&self, config: &Config, action: Action, limit: Duration) -> Result<Answer, DeployError> {
        let request = Request { digest: config.digest.clone(), action };
        let mut slot = self.running.lock().await;
        // One that was there before may have died since, or the configuration wants another: a new one is
        // asked then.
        if let Some(running) = slot.take() {
            if !running.is_wanted(config) {
                running.end().await;
            } else if let Some(answer) = ask(running, &request, limit, &mut slot).await? {
                return Ok(answer);
            }
        }
        let answer = ask(self.reach(config).await?, &request, limit, &mut slot).await?;
        answer.ok_or_else(|| io::Error::other("it ended by itself").into())
    }

    /// Closes the helper's socket and waits until it has ended.
    pub async fn stop(&self) {
        if let Some(running) = self.running.lock().await.take() {
            running.end().await;
        }
    }
}

impl Running {
    fn is_wanted(&self, config: &Config) -> bool {
        match (&self.whose, &config.helper) {
            (Whose::Ours(_) | Whose::Started, None) => true,
            (Whose::Theirs(socket), Some(helper)) => *socket == helper.socket,
            _ => false,
        }
    }

    async fn end(self) {
        let Self { whose, mut read, write } = self;
        match whose {
            Whose::Ours(mut child) => {
                drop((read, write));
                // It ends by itself once its socket is closed; its status says nothing.
                let _ = tokio::task::spawn_blocking(move || child.wait()).await;
            }
            Whose::Started => {
                // As dropping it does, but its end can be seen then.
                drop(write);
                while matches!(read.fill_buf().await, Ok(rest) if !rest.is_empty()) {
                    let length = read.buffer().len();
                    read.consume(length);
                }
            }
            Whose::Theirs(_) => {}
        }
    }
}

/// Whether there was something to do.
fn done(answer: Answer) -> Result<bool, DeployError> {
    match answer {
        Answer::Done => Ok(true),
        Answer::Nothing | Answer::Stopped => Ok(false),
        Answer::Failed(reason) => Err(DeployError::Command(reason)),
    }
}

/// Asks a helper once, and puts it back into `slot` if it can be used again. `None`: it is dead.
async fn ask(
    mut running: Running,
    request: &Request,
    limit: Duration,
    slot: &mut Option<Running>,
) -> Result<Option<Answer>, DeployError> {
    let conversation = async {
        // One that refuses us says why and closes, perhaps before it is asked.
        let sent = wire::send(&mut running.write, request).await;
        match wire::receive(&mut running.read).await {
            Ok(Some(answer)) => Ok(Some(answer)),
            other => sent.and(other),
        }
    };
    match tokio::time::timeout(limit, conversation).await {
        Ok(Ok(Some(answer))) => {
            *slot = Some(running);
            Ok(Some(answer))
        }
        Ok(Ok(None) | Err(_)) => {
            running.end().await;
            Ok(None)
        }
        Err(_) => {
            // Whatever holds it up, the next one is a new one; ours cannot refuse to end.
            match &mut running.whose {
                Whose::Ours(child) => {
                    let _ = child.kill();
                    running.end().await;
                }
                // Not waited for: it ends when its commands do.
                Whose::Started | Whose::Theirs(_) => drop(running),
            }
            let reason = format!("it did not answer within {} s and was left", limit.as_secs());
            Err(io::Error::new(io::ErrorKind::TimedOut, reason).into())
        }
    }
}
