//! `renew`: what is due, once.

use clap::Args;

use super::following::{exit_code, follow};
use super::{Arguments, Failure, log, others};
use crate::admin::RenewRequest;
use crate::admin::client::Client;
use crate::daemon;

#[derive(Args, Debug)]
pub(super) struct RenewArguments {
    /// Certificates by name; all if none is given
    names: Vec<String>,
    /// Order even what is not due, try again what was put off after failures, and use what is kept of the
    /// CA's limits in reserve
    #[arg(long)]
    force: bool,
    /// Ask the CA even where the preflight finds what would fail; at once together with --force
    #[arg(long)]
    skip_preflight: bool,
    /// Print each event as a line of JSON: an object with `certificate` and `what`, which has one key; the
    /// README has them all
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, renew: &RenewArguments) -> Result<u8, Failure> {
    let configured = arguments.configured()?;
    log::start(arguments, "warn")?;
    let digest = configured.digest();
    let request = RenewRequest {
        names: renew.names.clone(),
        force: renew.force,
        skip_preflight: renew.skip_preflight,
        digest,
    };
    let conclusion = follow(renew.json, async |told| match Client::connect(configured.socket()).await? {
        Some(daemon) => Ok(daemon.renew(&request, &*told).await?),
        None => Ok(daemon::renew_once(configured.config()?, &request, told, others()).await?),
    })?;
    Ok(exit_code(conclusion))
}
