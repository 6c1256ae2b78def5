//! What crosses between the main process and the helper: one JSON object a line, at most 1 MiB.

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest line, bytes.
const LIMIT: u64 = 1 << 20;

/// Asks the helper for one of the few things that it does.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Request {
    /// The configuration's digest: both sides must hold the same one.
    pub(super) digest: String,
    /// What to do.
    pub(super) action: Action,
}

/// The few things. A service is named by its place among the configured ones, in the order of their names.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Action {
    /// Test the server's configuration.
    Check {
        /// Its place.
        service: usize,
    },
    /// Make the server read its files again.
    Reload {
        /// Its place.
        service: usize,
        /// Names of configured certificates that are new for it.
        certificates: Vec<String>,
    },
    /// Find out whether the server runs: done, or failed with a sentence.
    Running {
        /// Its place.
        service: usize,
    },
    /// Start the server.
    Start {
        /// Its place.
        service: usize,
    },
    /// Write the files that `copy` names.
    Copy {
        /// Its place.
        service: usize,
        /// Name of a configured certificate.
        certificate: String,
        /// Which of its stored versions.
        version: u32,
    },
    /// Run the command of `[notify]`.
    Notify {
        /// What goes to its standard input.
        document: serde_json::Value,
    },
}

/// How it went.
#[derive(Debug, Serialize, Deserialize, Clone, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Answer {
    /// It was done.
    Done,
    /// There is no way to do it for this service, and none is needed.
    Nothing,
    /// It failed, or was not tried; a sentence.
    Failed(String),
}

pub(super) async fn send(
    to: &mut (impl AsyncWrite + Unpin),
    message: &impl Serialize,
) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(message).expect("plain values always have a JSON form");
    line.push(b'\n');
    if line.len() as u64 > LIMIT {
        let reason = format!("the message has {} bytes, and {LIMIT} may cross", line.len());
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, reason));
    }
    to.write_all(&line).await
}

/// The next message; `None` when the other side is gone.
pub(super) async fn receive<T: for<'de> Deserialize<'de>>(
    from: &mut (impl AsyncBufRead + Unpin),
) -> std::io::Result<Option<T>> {
    let mut line = Vec::new();
    let read = from.take(LIMIT).read_until(b'\n', &mut line).await?;
    if read == 0 {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(&line)?))
}
