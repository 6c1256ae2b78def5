//! A configured command, run as certbot runs its hooks: arguments as they stand, no shell, a clean
//! environment, a time limit for the whole process group, output captured and capped.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStdin, Command};

use crate::words::printable;

/// Where bare program names are looked up.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Output kept of each stream, bytes.
const KEPT: usize = 4096;
/// Output told, characters.
const SHOWN: usize = 1000;
/// How long the command of `[notify]` may run.
pub(super) const NOTIFY_LIMIT: Duration = Duration::from_secs(60);
/// How long output is awaited once the command itself has ended.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A command's surroundings, besides the clean environment.
pub(super) enum Surroundings<'a> {
    /// For a certificate, as certbot tells its hooks of it.
    Certificate {
        /// RENEWED_LINEAGE: the folder with the certificate's files.
        lineage: &'a Path,
        /// RENEWED_DOMAINS: its names, separated by spaces.
        domains: &'a str,
    },
    /// A document on standard input. The arguments may hold a secret and are not told.
    Notice(&'a str),
}

/// Runs a command to its end.
///
/// # Errors
/// A sentence: it cannot be started, ended with another status than 0, or took too long.
pub(super) async fn run(
    arguments: &[String],
    surroundings: &Surroundings<'_>,
    limit: Duration,
) -> Result<(), String> {
    let [program, rest @ ..] = arguments else { return Err("the command is empty".to_owned()) };
    let shown = match surroundings {
        Surroundings::Certificate { .. } => arguments.join(" "),
        Surroundings::Notice(_) => program.clone(),
    };
    let mut command = std::process::Command::new(program);
    command
        .args(rest)
        .env_clear()
        .env("PATH", PATH)
        .env("LC_ALL", "C")
        .env("HOME", "/")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    match surroundings {
        Surroundings::Certificate { lineage, domains } => {
            command.env("RENEWED_LINEAGE", lineage).env("RENEWED_DOMAINS", domains);
        }
        Surroundings::Notice(_) => {
            command.stdin(Stdio::piped());
        }
    }
    let mut child = Command::from(command)
        .spawn()
        .map_err(|e| format!("cannot run `{shown}`: {e}: is {program} installed"))?;
    let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let ended = tokio::time::timeout(limit, async {
        let given = feed(stdin, surroundings);
        let reading = async { tokio::join!(given, keep(stdout, &mut out), keep(stderr, &mut err)) };
        tokio::pin!(reading);
        tokio::select! {
            status = child.wait() => {
                // A server that it started may hold the streams open for ever.
                let _ = tokio::time::timeout(LAST_WORDS, &mut reading).await;
                status
            }
            _ = &mut reading => child.wait().await,
        }
    });
    let status = match ended.await {
        Ok(Ok(status)) => status,
        Ok(Err(e)) => return Err(format!("lost track of `{shown}`: {e}")),
        Err(_) => {
            if let Some(group) = group {
                // The group may have ended in this very moment, which is just as well.
                let _ = rustix::process::kill_process_group(group, Signal::KILL);
            }
            return Err(format!("`{shown}` did not end within {} s and was stopped", limit.as_secs()));
        }
    };
    if status.success() {
        return Ok(());
    }
    let said = [err, out]
        .map(|t| printable(&String::from_utf8_lossy(&t), SHOWN))
        .into_iter()
        .find(|t| !t.is_empty());
    Err(format!("`{shown}` failed ({status}), saying: {}", said.as_deref().unwrap_or("nothing")))
}

/// Gives a command what it is to read. One that does not care to read it all may have ended before.
async fn feed(stdin: Option<ChildStdin>, surroundings: &Surroundings<'_>) {
    if let (Some(mut stdin), Surroundings::Notice(document)) = (stdin, surroundings) {
        let _ = stdin.write_all(document.as_bytes()).await;
    }
}

/// Reads to the end, keeping the last bytes.
async fn keep(stream: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut stream) = stream else { return };
    let mut piece = [0; 4096];
    while let Ok(n @ 1..) = stream.read(&mut piece).await {
        kept.extend_from_slice(&piece[..n]);
        let surplus = kept.len().saturating_sub(KEPT);
        kept.drain(..surplus);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sh(script: &str, limit: Duration) -> Result<(), String> {
        let arguments = ["sh", "-c", script].map(str::to_owned);
        let surroundings = Surroundings::Certificate {
            lineage: Path::new("/state/live/a.example"),
            domains: "a.example b.example",
        };
        run(&arguments, &surroundings, limit).await
    }

    async fn notified(script: &str, document: &str) -> Result<(), String> {
        let arguments = ["sh", "-c", script, "s3cret"].map(str::to_owned);
        run(&arguments, &Surroundings::Notice(document), LONG).await
    }

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn success_failure_and_its_words() {
        assert_eq!(sh("exit 0", LONG).await, Ok(()));
        let told = sh("echo out; echo went wrong >&2; exit 3", LONG).await.unwrap_err();
        assert!(told.ends_with("failed (exit status: 3), saying: went wrong"), "{told}");
        let told = run(&["/no/such".to_owned()], &Surroundings::Notice(""), LONG).await.unwrap_err();
        assert!(told.contains("is /no/such installed"), "{told}");
    }

    #[tokio::test]
    async fn the_environment_is_certbots_and_nothing_else() {
        let script = r#"test "$RENEWED_LINEAGE" = /state/live/a.example && test "$RENEWED_DOMAINS" = "a.example b.example" && test "$(env | cut -d= -f1 | sort | grep -v -e ^_ -e PWD -e SHLVL | tr '\n' ' ')" = "HOME LC_ALL PATH RENEWED_DOMAINS RENEWED_LINEAGE " || { env >&2; exit 1; }"#;
        assert_eq!(sh(script, LONG).await, Ok(()));
    }

    #[tokio::test]
    async fn a_command_that_hangs_is_stopped_with_its_children() {
        let holder = tempfile::tempdir().unwrap();
        let pid_file = holder.path().join("pid");
        let script = format!("sleep 600 & echo $! > {}; wait", pid_file.display());
        let told = sh(&script, Duration::from_millis(300)).await.unwrap_err();
        assert!(told.contains("did not end within"), "{told}");
        let pid: i32 = std::fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
        let deadline = tokio::time::Instant::now() + LONG;
        let stat = format!("/proc/{pid}/stat");
        while std::fs::read_to_string(&stat).is_ok_and(|s| !s.contains(") Z ")) {
            assert!(tokio::time::Instant::now() < deadline, "the child of the command still runs");
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_notice_comes_on_standard_input_in_a_clean_environment() {
        let document = "x".repeat(300_000);
        assert_eq!(notified("test $(wc -c) = 300000", &document).await, Ok(()));
        // Nobody has to read it.
        assert_eq!(notified("exit 0", &document).await, Ok(()));
        let names = r#"test "$(env | cut -d= -f1 | sort | grep -v -e ^_ -e PWD -e SHLVL | tr '\n' ' ')" = "HOME LC_ALL PATH ""#;
        assert_eq!(notified(names, "").await, Ok(()));
        let told = notified("echo no >&2; exit 1", "").await.unwrap_err();
        assert_eq!(told, "`sh` failed (exit status: 1), saying: no");
    }

    #[tokio::test]
    async fn endless_output_is_read_and_capped() {
        let told =
            sh("yes | head -c 3000000; echo the end >&2; yes x | head -c 100000 >&2; exit 1", LONG).await;
        assert!(told.unwrap_err().len() < 2 * KEPT);
    }
}
