//! `openings`: what was opened before the gate, shown and shut without a daemon, for a person, and for the service
//! manager once everything else was killed.

use std::path::Path;

use clap::Subcommand;

use super::{Arguments, FAILED, Failure, log, output, runtime};
use crate::admin::OpeningsState;
use crate::admin::client::Client;
use crate::deploy::openings;

#[derive(Subcommand, Debug)]
pub(super) enum OpeningsCommand {
    /// Say what was opened for an order and is not known to be shut
    List,
    /// Shut it, as the user who opened it (root, as a rule); what a running daemon holds open for an order is left to it
    Close {
        /// Shut that, too
        #[arg(long)]
        force: bool,
    },
}

pub(super) fn run(arguments: &Arguments, command: &OpeningsCommand) -> Result<u8, Failure> {
    // What is open has to be shut, whatever has become of the configuration.
    let (state_dir, socket) = match arguments.load() {
        Ok(config) => (config.state_dir, config.admin.socket),
        Err(e) => {
            if !e.is_absent() {
                output::complain(&format!(
                    "the configuration is wrong, and only its state-dir is heeded: {e}"
                ));
            }
            (arguments.state_dir(), arguments.usual_socket())
        }
    };
    log::start(arguments, "warn")?;
    let open = openings::list(&state_dir).map_err(|e| Failure::new(FAILED, e))?;
    match command {
        OpeningsCommand::List if open.is_empty() => output::line("nothing is open"),
        OpeningsCommand::List => open.iter().for_each(|opening| output::line(&format!("open: {opening}"))),
        OpeningsCommand::Close { force } => {
            let runtime = runtime()?;
            if !open.is_empty()
                && !force
                && let Some(pid) = runtime.block_on(holder(&socket))
            {
                output::line(&format!(
                    "the running daemon (pid {pid}) holds them open for an order, and shuts them when that ends: nothing is done; --force shuts them now"
                ));
                return Ok(0);
            }
            let shut = runtime.block_on(openings::close(&state_dir));
            shut.map_err(|told| Failure::new(FAILED, told.join("\n")))?;
            open.iter().for_each(|opening| output::line(&format!("shut: {opening}")));
        }
    }
    Ok(0)
}

/// The daemon that holds them open, and sees to them.
async fn holder(socket: &Path) -> Option<u32> {
    let report = Client::connect(socket).await.ok()??.status().await.ok()?;
    let is_open = report.gate?.openings == Some(OpeningsState::Open);
    report.pid.filter(|_| is_open)
}
