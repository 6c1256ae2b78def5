//! HAProxy's runtime API: a certificate is replaced in the running process, without a reload.
//!
//! One command a connection, as `socat` would do it; what HAProxy answers is words, and they are read
//! here. A file is replaced in a transaction that every way out but success aborts.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use zeroize::Zeroizing;

use super::trust;
use crate::words::printable;

/// Longest answer read, bytes: some ten thousand names of files.
const LIMIT: u64 = 1 << 20;

/// What is told of an answer, characters.
const SHOWN: usize = 300;

/// Names of files told when ours is not among them.
const NAMED: usize = 10;

/// The socket, and how long one answer may take.
#[derive(Debug)]
pub(super) struct RuntimeApi<'a> {
    /// Its path.
    pub(super) socket: &'a Path,
    /// Users who may be given private keys, besides root.
    pub(super) trusted: Vec<u32>,
    /// For each command.
    pub(super) limit: Duration,
}

/// A certificate for HAProxy.
pub(super) struct Replacement {
    /// The paths that HAProxy may know its file by.
    pub(super) files: Vec<PathBuf>,
    /// Chain and key.
    pub(super) pem: Zeroizing<String>,
}

impl RuntimeApi<'_> {
    /// Replaces certificates, each in the file that HAProxy knows.
    ///
    /// # Errors
    /// A sentence: HAProxy is not there, does not know the file, or does not want what is in it.
    pub(super) async fn replace(&self, replacements: &[Replacement]) -> Result<(), String> {
        let answer = self.ask("show ssl cert\n").await?;
        let known = known_files(&answer).ok_or_else(|| self.unexpected("show ssl cert", &answer))?;
        // All of them are found before the first is replaced.
        let mut found = Vec::new();
        for replacement in replacements {
            let before = found.len();
            let files = known.iter().filter(|known| is_one_of(known, &replacement.files));
            found.extend(files.map(|file| (file, &replacement.pem)));
            if found.len() == before {
                return Err(unknown(&replacement.files, &known));
            }
        }
        for (file, pem) in found {
            if let Err(reason) = self.replace_one(file, pem).await {
                // It may not have come to a transaction.
                let _ = self.ask(&format!("abort ssl cert {}\n", quoted(file))).await;
                return Err(reason);
            }
        }
        Ok(())
    }

    async fn replace_one(&self, file: &str, pem: &str) -> Result<(), String> {
        let head = format!("set ssl cert {} <<\n", quoted(file));
        // Of its final size: moved, it would leave the key behind.
        let mut payload = Zeroizing::new(String::with_capacity(head.len() + pem.len() + 2));
        payload.push_str(&head);
        // An empty line would end it.
        for line in pem.lines().filter(|line| !line.trim().is_empty()) {
            payload.push_str(line);
            payload.push('\n');
        }
        payload.push('\n');
        let answer = self.ask(&payload).await?;
        if !answer.contains("Transaction created") && !answer.contains("Transaction updated") {
            return Err(self.unexpected("set ssl cert", &answer));
        }
        let answer = self.ask(&format!("commit ssl cert {}\n", quoted(file))).await?;
        if answer.contains("Success!") { Ok(()) } else { Err(self.unexpected("commit ssl cert", &answer)) }
    }

    /// One command and its whole answer.
    async fn ask(&self, command: &str) -> Result<String, String> {
        let shown = self.socket.display();
        let conversation = async {
            let mut stream = UnixStream::connect(self.socket).await?;
            let peer = stream.peer_cred()?.uid();
            if peer != 0 && !self.trusted.contains(&peer) {
                let reason = format!("{} listens there, who is given no private keys", trust::user(peer));
                return Err(std::io::Error::other(reason));
            }
            let mut answer = Vec::new();
            // One that closes while it is told has not enough room, and has perhaps said something before.
            if stream.write_all(command.as_bytes()).await.is_ok() {
                let _ = stream.take(LIMIT).read_to_end(&mut answer).await;
            }
            Ok(answer)
        };
        match tokio::time::timeout(self.limit, conversation).await {
            Ok(Ok(answer)) => Ok(String::from_utf8_lossy(&answer).into_owned()),
            Ok(Err(e)) => Err(format!(
                "HAProxy cannot be reached at {shown}: {e}: does it run, with `stats socket {shown} level admin` in its section `global`"
            )),
            Err(_) => Err(format!("HAProxy did not answer at {shown} within {} s", self.limit.as_secs())),
        }
    }

    fn unexpected(&self, command: &str, answer: &str) -> String {
        let shown = self.socket.display();
        // Who may not ask for a list is told that there is no memory (HAProxy 2.6).
        let is_forbidden = answer.contains("Permission denied") || answer.contains("Can't allocate memory");
        if is_forbidden {
            return format!(
                "HAProxy does not allow `{command}` at {shown}: write `level admin` behind `stats socket {shown}` in its section `global`"
            );
        }
        if answer.contains("Unknown command") {
            return format!(
                "HAProxy does not know `{command}`: it can replace certificates since version 2.2; remove `runtime-socket`, and it is reloaded"
            );
        }
        match printable(answer, SHOWN) {
            said if said.is_empty() => format!(
                "HAProxy gave no answer to `{command}` at {shown}: is the chain longer than its `tune.bufsize`"
            ),
            said => format!("HAProxy did not take it: `{command}` was answered with: {said}"),
        }
    }
}

/// The files in an answer to `show ssl cert`.
fn known_files(answer: &str) -> Option<Vec<String>> {
    let (_, files) = answer.split_once("# filename\n")?;
    Some(files.lines().map(str::trim_end).filter(|l| !l.is_empty()).map(str::to_owned).collect())
}

/// Whether a name that HAProxy knows is that of one of our files: the same path, the same file by another
/// path, or a path below a folder that HAProxy was told of (`crt-base`, or where it was started).
fn is_one_of(known: &str, ours: &[PathBuf]) -> bool {
    let known = Path::new(known);
    if ours.iter().any(|file| file == known) {
        return true;
    }
    if known.is_relative() {
        return ours.iter().any(|file| file.ends_with(known) && known.components().count() > 1)
            || ours.iter().any(|file| file.file_name() == known.file_name() && !is_stores_name(known));
    }
    let real = std::fs::canonicalize(known).ok();
    real.is_some() && ours.iter().any(|file| std::fs::canonicalize(file).ok() == real)
}

/// `combined.pem` alone is every certificate's name.
fn is_stores_name(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "combined.pem")
}

fn unknown(ours: &[PathBuf], known: &[String]) -> String {
    let ours: Vec<_> = ours.iter().map(|file| file.display().to_string()).collect();
    let mut told = format!("HAProxy has not read {}: ", ours.join(" nor "));
    if known.is_empty() {
        told.push_str("it knows no certificate at all");
    } else {
        let first: Vec<_> = known.iter().take(NAMED).map(|file| printable(file, SHOWN)).collect();
        // Writing to a String cannot fail.
        let _ = write!(told, "it knows {}", first.join(", "));
        if known.len() > NAMED {
            let _ = write!(told, " and {} more", known.len() - NAMED);
        }
    }
    told.push_str("; name that file behind `crt` in its configuration and reload it once");
    told
}

/// A file's name as an argument of a command.
fn quoted(file: &str) -> String {
    file.replace('\\', "\\\\").replace(' ', "\\ ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let transaction = "# transaction\n*/a.pem\n# filename\n/a.pem\n/b c.pem\n\n\n";
        assert_eq!(known_files(transaction), Some(vec!["/a.pem".to_owned(), "/b c.pem".to_owned()]));
        assert_eq!(known_files("# filename\n\n"), Some(vec![]));
        assert_eq!(known_files("Can't allocate memory!\n\n"), None);
        let api = RuntimeApi { socket: Path::new("/s"), trusted: vec![], limit: Duration::ZERO };
        for (answer, told) in [
            ("Permission denied\n", "HAProxy does not allow `set ssl cert` at /s: write `level admin`"),
            ("Unknown command: 'set'\n", "HAProxy does not know `set ssl cert`"),
            ("", "HAProxy gave no answer to `set ssl cert` at /s"),
            ("Can't load the payload\nCan't update x!\n", "Can't load the payload; Can't update x!"),
        ] {
            assert!(api.unexpected("set ssl cert", answer).contains(told), "{answer}");
        }
    }

    #[test]
    fn a_file_is_known_by_several_names() {
        let ours = ["/state/live/a.example/combined.pem", "/etc/haproxy/tls/a.pem"].map(PathBuf::from);
        for known in [
            "/state/live/a.example/combined.pem",
            "/etc/haproxy/tls/a.pem",
            "live/a.example/combined.pem",
            "a.example/combined.pem",
            "a.pem",
            "tls/a.pem",
        ] {
            assert!(is_one_of(known, &ours), "{known}");
        }
        for known in ["combined.pem", "/a.pem", "b.example/combined.pem", "xa.pem", "/tls/a.pem", ""] {
            assert!(!is_one_of(known, &ours), "{known}");
        }
        assert_eq!(quoted("/a b\\c"), "/a\\ b\\\\c");
    }

    #[test]
    fn what_is_not_known_names_what_is() {
        let ours = [PathBuf::from("/a.pem")];
        assert!(unknown(&ours, &[]).contains("/a.pem: it knows no certificate at all; name that file"));
        let many: Vec<_> = (0..12).map(|n| format!("/{n}.pem")).collect();
        assert!(unknown(&ours, &many).contains("/8.pem, /9.pem and 2 more;"));
    }
}
