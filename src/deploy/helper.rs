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
use crate::config::{CertificateRequest, Config, ConfigError, DeployTarget};

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
    if let Action::Notify { document } = action {
        return notify(config, document).await;
    }
    match attend(config, action).await {
        Ok(true) => Answer::Done,
        Ok(false) => Answer::Nothing,
        Err(sentence) => Answer::Failed(sentence),
    }
}

/// Does something for a service; `false` where there is nothing to do.
async fn attend(config: &Config, action: &Action) -> Result<bool, String> {
    match action {
        Action::Check { service } => {
            let (_, target) = find(config, *service)?;
            run(config, target, target.check.as_deref(), &[]).await
        }
        Action::Reload { service, certificates } => {
            let (name, target) = find(config, *service)?;
            let certificates = known(config, name, certificates)?;
            if !target.each {
                return run(config, target, target.reload.as_deref(), &certificates).await;
            }
            for certificate in certificates {
                run(config, target, target.reload.as_deref(), &[certificate]).await?;
            }
            Ok(true)
        }
        Action::Start { service } => {
            let (_, target) = find(config, *service)?;
            run(config, target, target.start.as_deref(), &[]).await
        }
        Action::Running { .. } | Action::Copy { .. } | Action::Notify { .. } => Ok(false),
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

async fn run(
    config: &Config,
    target: &DeployTarget,
    command: Option<&[String]>,
    certificates: &[&CertificateRequest],
) -> Result<bool, String> {
    let Some(command) = command else { return Ok(false) };
    let lineage = certificates.first().map(|c| config.state_dir.join("live").join(&c.name));
    let domains: Vec<_> = certificates.iter().flat_map(|c| &c.identifiers).map(ToString::to_string).collect();
    let surroundings = Surroundings::Certificate {
        lineage: lineage.as_deref().unwrap_or(&config.state_dir),
        domains: &domains.join(" "),
    };
    command::run(command, &surroundings, target.timeout).await.map(|()| true)
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
