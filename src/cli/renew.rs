//! `renew`: what is due, once.

use std::rc::Rc;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;

use super::{Arguments, FAILED, Failure, LATER, helper_arguments, log, output, runtime};
use crate::admin::client::Client;
use crate::admin::{Conclusion, RenewRequest};
use crate::daemon;
use crate::renewal::Event;

#[derive(Args, Debug)]
pub(super) struct RenewArguments {
    /// Certificates by name; all if none is given
    names: Vec<String>,
    /// Order even what is not due, and try again what was put off after failures
    #[arg(long)]
    force: bool,
    /// Print each event as a line of JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, renew: &RenewArguments) -> Result<u8, Failure> {
    let config = arguments.load_aloud()?;
    log::start(arguments, "warn")?;
    let digest = Some(config.digest.clone());
    let request = RenewRequest { names: renew.names.clone(), force: renew.force, digest };
    let told: Rc<dyn Fn(&Event)> = if renew.json { Rc::new(print_json) } else { Rc::new(print) };
    let runtime = runtime()?;
    let local = LocalSet::new();
    let conclusion = local.block_on(&runtime, async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let work = async {
            match Client::connect(&config.admin.socket).await? {
                Some(daemon) => Ok::<_, Failure>(daemon.renew(&request, &*told).await?),
                None => Ok(daemon::renew_once(config, &request, told.clone(), helper_arguments()).await?),
            }
        };
        tokio::select! {
            concluded = work => concluded,
            // What is under way is dropped: challenges are withdrawn, the port is shut.
            _ = terminate.recv() => Err(Failure::new(FAILED, "stopped before it was done")),
            _ = interrupt.recv() => Err(Failure::new(FAILED, "stopped before it was done")),
        }
    });
    drop(local);
    runtime.shutdown_background();
    let conclusion = conclusion?;
    Ok(match conclusion {
        Conclusion::Well => 0,
        Conclusion::Later => LATER,
        Conclusion::Failed => FAILED,
    })
}

fn print(event: &Event) {
    let mark = match (output::is_watched(), event.what.is_failure()) {
        (true, true) => "\x1b[31m✗\x1b[0m ",
        (true, false) => "\x1b[32m✓\x1b[0m ",
        (false, _) => "",
    };
    output::line(&format!("{mark}{}: {}", event.certificate, event.what));
}

fn print_json(event: &Event) {
    let text = serde_json::to_string(event).expect("plain values always have a JSON form");
    output::line(&text);
}
