//! `run`: the daemon; and its helper, that it starts or that is a unit of its own.

use std::ffi::OsString;
use std::rc::Rc;

use clap::Parser;

use super::{
    Arguments, FAILED, Failure, HELPER, USAGE, arguments_of, helper_arguments, log, runtime,
    starter_arguments,
};
use crate::daemon;
use crate::deploy::helper;
use crate::deploy::starter::serve_starts;
use crate::net::inherited::Inherited;

pub(super) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let config = arguments.load()?;
    log::start(arguments, "info")?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let inherited = Inherited::take().map_err(|e| Failure::new(FAILED, e))?;
    let again = Arguments::parse();
    daemon::run(config, inherited, Rc::new(move || again.load()), helper_arguments(), &starter_arguments())?;
    Ok(0)
}

/// The process that starts helpers, with its master's arguments.
pub(super) fn starter(arguments: impl Iterator<Item = OsString>) -> Result<u8, Failure> {
    serve_starts(&arguments_of(HELPER, arguments))?;
    Ok(0)
}

/// The helper, started with its master's arguments.
pub(super) fn helper(arguments: impl Iterator<Item = OsString>) -> Result<u8, Failure> {
    let given = std::iter::once(OsString::from("wicketgate")).chain(arguments);
    let masters = Arguments::try_parse_from(given).map_err(|e| Failure::new(USAGE, e))?;
    // What it does once its master is gone is told nowhere else.
    log::start(&masters, "warn")?;
    runtime()?.block_on(helper::serve(|| masters.load()))?;
    Ok(0)
}

/// The helper as a unit of its own.
pub(super) fn helper_unit(arguments: &Arguments) -> Result<u8, Failure> {
    let config = arguments.load()?;
    log::start(arguments, "info")?;
    let again = Arguments::parse();
    let listening = helper::listen(&config, move || again.load());
    tokio::task::LocalSet::new().block_on(&runtime()?, listening)?;
    Ok(0)
}
