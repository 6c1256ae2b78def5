//! `deploy`: what is stored, once more to the servers that take it.

use clap::Args;

use super::following::{exit_code, follow};
use super::{Arguments, Failure, log, others};
use crate::admin::DeployRequest;
use crate::admin::client::Client;
use crate::daemon;

#[derive(Args, Debug)]
pub(super) struct DeployArguments {
    /// Certificates by name; all if none is given
    names: Vec<String>,
    /// Print each event as a line of JSON, as `renew --json` does
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, deploy: &DeployArguments) -> Result<u8, Failure> {
    let configured = arguments.configured()?;
    log::start(arguments, "warn")?;
    let request = DeployRequest { names: deploy.names.clone(), digest: configured.digest() };
    let conclusion = follow(deploy.json, async |told| match Client::connect(configured.socket()).await? {
        Some(daemon) => Ok(daemon.deploy(&request, &*told).await?),
        None => Ok(daemon::deploy_once(configured.config()?, &request, told, others()).await?),
    })?;
    Ok(exit_code(conclusion))
}
