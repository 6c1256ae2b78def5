//! Long work in the foreground: its steps as they happen, an end by signal, an exit code.

use std::future::Future;
use std::rc::Rc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;

use super::{FAILED, Failure, LATER, output, runtime};
use crate::admin::Conclusion;
use crate::renewal::{Event, What};

/// What is told of events.
pub(super) type Told = Rc<dyn Fn(&Event)>;

/// Runs `work` to its end, printing events as lines for a person or, with `json`, as JSON.
pub(super) fn follow<F>(json: bool, work: impl FnOnce(Told) -> F) -> Result<Conclusion, Failure>
where
    F: Future<Output = Result<Conclusion, Failure>>,
{
    let told: Told = if json { Rc::new(print_json) } else { Rc::new(print) };
    let runtime = runtime()?;
    let local = LocalSet::new();
    let conclusion = local.block_on(&runtime, async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            concluded = work(told) => concluded,
            // What is under way is dropped: challenges are withdrawn, the port is shut.
            _ = terminate.recv() => Err(Failure::new(FAILED, "stopped before it was done")),
            _ = interrupt.recv() => Err(Failure::new(FAILED, "stopped before it was done")),
        }
    });
    drop(local);
    runtime.shutdown_background();
    conclusion
}

/// The exit code of a conclusion.
pub(super) fn exit_code(conclusion: Conclusion) -> u8 {
    match conclusion {
        Conclusion::Well => 0,
        Conclusion::Later => LATER,
        Conclusion::Failed => FAILED,
    }
}

fn print(event: &Event) {
    // What waits has not gone well either.
    let is_bad = event.what.is_failure() || matches!(event.what, What::DeployHeld { .. });
    let mark = match (output::is_watched(), is_bad) {
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
