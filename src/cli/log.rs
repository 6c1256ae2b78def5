//! Log lines: for a person or for a program.

use std::fmt;
use std::io::IsTerminal;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

use super::{Arguments, Failure, USAGE};
use crate::clock;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// One readable line an event.
    Text,
    /// One JSON object an event.
    Json,
}

/// Starts logging to standard error, at the level of the arguments or the usual one.
pub(super) fn start(arguments: &Arguments, usual: &str) -> Result<(), Failure> {
    let level = arguments.log_level.as_deref().unwrap_or(usual);
    let filter = EnvFilter::try_new(level).map_err(|e| {
        Failure::new(USAGE, format!("--log-level {level}: {e}; use error, warn, info, debug or trace"))
    })?;
    let ansi = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(ansi)
        // Where a line cannot be written, that must not end the work it tells of.
        .log_internal_errors(false);
    match arguments.log_format {
        Format::Json => lines.json().flatten_event(true).with_timer(Utc).init(),
        // The journal keeps the time itself.
        Format::Text if std::env::var_os("JOURNAL_STREAM").is_some() => {
            lines.with_target(false).without_time().init();
        }
        Format::Text => lines.with_target(false).with_timer(Utc).init(),
    }
    Ok(())
}

/// UTC to the second, as in RFC 3339.
struct Utc;

impl FormatTime for Utc {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        match jiff::Timestamp::try_from(clock::now()) {
            Ok(now) => write!(w, "{}", now.strftime("%Y-%m-%dT%H:%M:%SZ")),
            Err(_) => w.write_str("-"),
        }
    }
}
