//! `run`: the daemon; and the helper that it starts.

use std::ffi::OsString;
use std::rc::Rc;

use clap::Parser;

use super::{Arguments, Failure, helper_arguments, log, runtime};
use crate::daemon;
use crate::deploy::helper;

pub(super) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let config = arguments.load()?;
    log::start(arguments, "info")?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let again = Arguments::parse();
    daemon::run(config, Rc::new(move || again.load()), helper_arguments())?;
    Ok(0)
}

pub(super) fn helper(arguments: &[OsString]) -> Result<u8, Failure> {
    let given = std::iter::once(OsString::from("wicketgate")).chain(arguments.iter().cloned());
    let masters = Arguments::try_parse_from(given).map_err(|e| Failure::new(2, e))?;
    runtime()?.block_on(helper::serve(|| masters.load()))?;
    Ok(0)
}
