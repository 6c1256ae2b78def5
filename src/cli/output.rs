//! What a command prints. A reader that has gone away is no error.

use std::io::{IsTerminal, Write};

/// Prints to standard output as it stands.
pub(super) fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    // A closed pipe means that nobody reads on.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Prints a line to standard output.
pub(super) fn line(text: &str) {
    say(&format!("{text}\n"));
}

/// Prints a value as indented JSON.
pub(super) fn json(value: &impl serde::Serialize) {
    let text = serde_json::to_string_pretty(value).expect("plain values always have a JSON form");
    line(&text);
}

/// Prints a message to standard error.
pub(super) fn complain(message: &str) {
    let mut err = std::io::stderr().lock();
    // There is no better place to complain that complaining failed.
    let _ = writeln!(err, "wicketgate: {message}");
}

/// Whether a person watches standard output.
pub(super) fn is_watched() -> bool {
    std::io::stdout().is_terminal()
}
