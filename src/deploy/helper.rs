//! The helper's own side: it answers requests on its standard input, which is a socket, until that
//! closes for whatever reason, and then ends.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdUnixStream;

use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio::signal::unix::{SignalKind, signal};

use super::command::{self, NOTIFY_LIMIT, Surroundings};
use super::wire::{self, Action, Answer, Request};
use crate::config::{Config, ConfigError};

/// Serves requests until the main process is gone. `load` reads the configuration afresh.
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
    let (read, mut write) = UnixStream::from_std(socket)?.into_split();
    let mut read = BufReader::new(read);
    let mut config = load().ok();
    while let Some(request) = wire::receive::<Request>(&mut read).await? {
        if config.as_ref().is_none_or(|c| c.digest != request.digest) {
            config = load().ok();
        }
        let answer = match &config {
            Some(config) if config.digest == request.digest => perform(config, &request.action).await,
            _ => Answer::Failed(
                "the configuration on disk is not the one in use: run `wicketgate reload`, and it is tried again"
                    .to_owned(),
            ),
        };
        wire::send(&mut write, &answer).await?;
    }
    Ok(())
}

async fn perform(config: &Config, action: &Action) -> Answer {
    match action {
        Action::Reload { service, certificate } => reload(config, *service, certificate).await,
        Action::Notify { document } => notify(config, document).await,
    }
}

async fn notify(config: &Config, document: &serde_json::Value) -> Answer {
    let Some(command) = &config.notify.command else {
        return Answer::Failed("the helper knows no command to notify with".to_owned());
    };
    match command::run(command, &Surroundings::Notice(&document.to_string()), NOTIFY_LIMIT).await {
        Ok(()) => Answer::Done,
        Err(e) => Answer::Failed(e),
    }
}

async fn reload(config: &Config, service: usize, certificate: &str) -> Answer {
    let service = config.deploy.iter().nth(service);
    let certificate = config.certificates.iter().find(|c| c.name == certificate);
    let (Some((name, target)), Some(certificate)) = (service, certificate) else {
        return Answer::Failed("the helper knows no such service or certificate".to_owned());
    };
    if !certificate.deploy.contains(name) {
        return Answer::Failed(format!("`{}` is not deployed to {name}", certificate.name));
    }
    let lineage = config.state_dir.join("live").join(&certificate.name);
    let domains: Vec<_> = certificate.identifiers.iter().map(ToString::to_string).collect();
    let domains = domains.join(" ");
    let surroundings = Surroundings::Certificate { lineage: &lineage, domains: &domains };
    match command::run(&target.reload, &surroundings, target.timeout).await {
        Ok(()) => Answer::Done,
        Err(e) => Answer::Failed(e),
    }
}
