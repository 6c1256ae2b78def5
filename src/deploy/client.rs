//! The main process's side of the helper.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Mutex;

use super::wire::{self, Answer, Request};
use crate::config::Config;

/// Why a server did not take a certificate.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// The helper could not be started or is gone.
    #[error("the helper process cannot be used ({0}): restart wicketgate")]
    Helper(#[from] io::Error),
    /// The command failed, in its own words.
    #[error("{0}")]
    Command(String),
    /// The service is not in the configuration.
    #[error("there is no [deploy.{0}]")]
    Unknown(String),
}

/// The helper process. It runs the commands that the configuration names, one at a time.
#[derive(Debug)]
pub struct Helper {
    arguments: Vec<OsString>,
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
}

impl Helper {
    /// A helper that is this binary with `arguments`.
    pub fn new(arguments: Vec<OsString>) -> Self {
        Self { arguments, running: Mutex::new(None) }
    }

    /// Starts it ahead of the first use, while this process still has all its rights. To be called
    /// inside a runtime.
    ///
    /// # Errors
    /// The process cannot be started.
    pub async fn start(&self) -> Result<(), DeployError> {
        let mut running = self.running.lock().await;
        if running.is_none() {
            *running = Some(self.spawn()?);
        }
        Ok(())
    }

    fn spawn(&self) -> io::Result<Running> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let child = Command::new("/proc/self/exe")
            .args(&self.arguments)
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()?;
        let (read, write) = UnixStream::from_std(ours)?.into_split();
        Ok(Running { child, read: BufReader::new(read), write })
    }

    /// Has a service take a certificate.
    ///
    /// # Errors
    /// [`DeployError`]: the sentence is meant for the administrator.
    pub async fn reload(&self, config: &Config, service: &str, certificate: &str) -> Result<(), DeployError> {
        let place = config
            .deploy
            .keys()
            .position(|name| name == service)
            .ok_or_else(|| DeployError::Unknown(service.to_owned()))?;
        let request =
            Request { digest: config.digest.clone(), service: place, certificate: certificate.to_owned() };
        let mut slot = self.running.lock().await;
        // Taken out while it works: one that broke off in the middle is not used again.
        let mut running = match slot.take() {
            Some(running) => running,
            None => self.spawn()?,
        };
        wire::send(&mut running.write, &request).await?;
        let answer = wire::receive(&mut running.read).await?;
        let answer = answer.ok_or_else(|| io::Error::other("it ended by itself"))?;
        *slot = Some(running);
        match answer {
            Answer::Done => Ok(()),
            Answer::Failed(reason) => Err(DeployError::Command(reason)),
        }
    }

    /// Closes the helper's socket and waits until it has ended.
    pub async fn stop(&self) {
        if let Some(Running { mut child, read, write }) = self.running.lock().await.take() {
            drop((read, write));
            // It ends by itself once its socket is closed; its status says nothing.
            let _ = tokio::task::spawn_blocking(move || child.wait()).await;
        }
    }
}
