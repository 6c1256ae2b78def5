//! What crosses between the main process and the helper: one JSON object a line, at most 1 MiB.

use std::io::{Error, ErrorKind};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest line, bytes.
const LIMIT: u64 = 1 << 20;

/// How long a line may take once it has begun.
const PATIENCE: Duration = Duration::from_secs(10);

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
    /// Find out whether the server runs: done, or stopped; nothing where that cannot be told.
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
        /// A deploy before this one has not come to its end: what it kept of what was there still counts.
        goes_on: bool,
    },
    /// Put back what was there before the last copy.
    PutBack {
        /// Its place.
        service: usize,
        /// Name of a configured certificate.
        certificate: String,
        /// Which of its stored versions was copied.
        version: u32,
    },
    /// Open every `[[gate.opening]]`, or renew its lease; they are shut when it ends, and when the connection does.
    OpenDoors,
    /// Shut everything that is on record as open.
    ShutDoors,
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
    /// The server does not run.
    Stopped,
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
        return Err(Error::new(ErrorKind::InvalidInput, reason));
    }
    to.write_all(&line).await
}

/// Waits until a message begins; `false` when the other side is gone. What has come stays in the buffer.
pub(super) async fn has_begun(from: &mut (impl AsyncBufRead + Unpin)) -> std::io::Result<bool> {
    Ok(!from.fill_buf().await?.is_empty())
}

/// The next message, for which there is time until it begins; `None` when the other side is gone.
pub(super) async fn receive<T: for<'de> Deserialize<'de>>(
    from: &mut (impl AsyncBufRead + Unpin),
) -> std::io::Result<Option<T>> {
    if from.fill_buf().await?.is_empty() {
        return Ok(None);
    }
    let mut line = Vec::new();
    let mut bounded = from.take(LIMIT);
    let reading = bounded.read_until(b'\n', &mut line);
    match tokio::time::timeout(PATIENCE, reading).await {
        Ok(read) => read?,
        Err(_) => return Err(Error::new(ErrorKind::TimedOut, "a message was begun and not ended")),
    };
    Ok(Some(serde_json::from_slice(&line)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn received(bytes: &[u8]) -> std::io::Result<Option<Request>> {
        receive(&mut &*bytes).await
    }

    #[tokio::test]
    async fn only_what_is_known_is_received() {
        assert!(matches!(received(b"").await, Ok(None)));
        let whole = br#"{"digest":"x","action":{"reload":{"service":0,"certificates":["a"]}}}"#;
        assert!(matches!(received(whole).await, Ok(Some(Request { action: Action::Reload { .. }, .. }))));
        for bad in [
            "\n",
            "{}",
            r#"{"digest":"x","action":{"run":{"command":["id"]}}}"#,
            r#"{"digest":"x","action":{"check":{"service":-1}}}"#,
            r#"{"digest":"x","action":{"check":{"service":0,"command":["id"]}}}"#,
            r#"{"digest":"x","action":{"copy":{"service":0,"certificate":"a","version":4294967296}}}"#,
            r#"{"digest":"x","action":{"check":{"service":0}},"more":1}"#,
            "\u{0}\u{1}",
        ] {
            assert!(received(bad.as_bytes()).await.is_err(), "{bad}");
        }
        let deep =
            format!(r#"{{"digest":"x","action":{{"notify":{{"document":{}}}}}}}"#, "[".repeat(100_000));
        assert!(received(deep.as_bytes()).await.is_err());
        let long = vec![b' '; 2 * LIMIT as usize];
        assert!(received(&long).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_message_is_not_waited_for() {
        let (mut ours, theirs) = tokio::io::duplex(64);
        ours.write_all(b"{\"dig").await.unwrap();
        let mut theirs = tokio::io::BufReader::new(theirs);
        let told = receive::<Request>(&mut theirs).await.unwrap_err();
        assert_eq!(told.kind(), ErrorKind::TimedOut);
    }
}
