//! `openings`: what was opened before the gate, shown and shut without a daemon, for a person, and for the service
//! manager once everything else was killed.

use clap::Subcommand;

use super::{Arguments, FAILED, Failure, log, output, runtime};
use crate::deploy::openings;

#[derive(Subcommand, Debug)]
pub(super) enum OpeningsCommand {
    /// Say what was opened for an order and is not known to be shut
    List,
    /// Shut it, as the user who opened it (root, as a rule)
    Close,
}

pub(super) fn run(arguments: &Arguments, command: &OpeningsCommand) -> Result<u8, Failure> {
    let config = arguments.load()?;
    log::start(arguments, "warn")?;
    let open = openings::list(&config.state_dir).map_err(|e| Failure::new(FAILED, e))?;
    match command {
        OpeningsCommand::List if open.is_empty() => output::line("nothing is open"),
        OpeningsCommand::List => open.iter().for_each(|opening| output::line(&format!("open: {opening}"))),
        OpeningsCommand::Close => {
            let shut = runtime()?.block_on(openings::close(&config.state_dir));
            shut.map_err(|told| Failure::new(FAILED, told.join("\n")))?;
            open.iter().for_each(|opening| output::line(&format!("shut: {opening}")));
        }
    }
    Ok(0)
}
