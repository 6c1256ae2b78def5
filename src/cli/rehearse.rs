//! `rehearse`: the whole path to a certificate, with a CA that does not matter.

use clap::Args;

use super::following::{exit_code, follow};
use super::{Arguments, Failure, log, others, output};
use crate::admin::client::Client;
use crate::admin::{Conclusion, RehearseRequest};
use crate::daemon;

#[derive(Args, Debug)]
pub(super) struct RehearseArguments {
    /// Certificates by name; all if none is given
    names: Vec<String>,
    /// With the issuer's staging directory, which comes from outside as the issuer would, in place of the
    /// CA in this program
    #[arg(long)]
    staging: bool,
    /// Print each event as a line of JSON, as `renew --json` does
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, rehearse: &RehearseArguments) -> Result<u8, Failure> {
    let configured = arguments.configured()?;
    log::start(arguments, "warn")?;
    let digest = configured.digest();
    let request = RehearseRequest { names: rehearse.names.clone(), staging: rehearse.staging, digest };
    let conclusion =
        follow(rehearse.json, async |told| match Client::connect(configured.socket()).await? {
            Some(daemon) => Ok(daemon.rehearse(&request, &*told).await?),
            None => Ok(daemon::rehearse_once(configured.config()?, &request, told, others()).await?),
        })?;
    if !rehearse.json {
        output::line(match conclusion {
            Conclusion::Well => "verdict: a renewal would work; nothing was changed",
            Conclusion::Later => {
                "verdict: none yet, the CA's limits allow no rehearsal now; nothing was changed"
            }
            Conclusion::Failed => "verdict: a renewal would FAIL as things are; nothing was changed",
        });
    }
    Ok(exit_code(conclusion))
}
