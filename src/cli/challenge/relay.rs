//! `challenge relay`: a client that serves its tokens itself, or writes them into a web root, runs behind the
//! gate; each token that somebody comes for is asked of it.

use std::ffi::OsString;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::rc::Rc;
use std::time::Duration;
use std::{fmt, io};

use bytes::Bytes;
use clap::Args;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::LocalSet;

use super::super::{FAILED, Failure, output};
use crate::admin::client::{Answers, Client, Questions};
use crate::admin::{RelayAnswer, RelayQuestion, RelayRequest};
use crate::folder::read_file;
use crate::hostname::Identifier;

/// Where challenges are, beneath a host and beneath a web root (RFC 8555 section 8.3).
const CHALLENGES: &str = ".well-known/acme-challenge";

/// Longest answer of a client, bytes; a key authorization takes some 90.
const ANSWER_LIMIT: usize = 1024;

/// How many tokens the client is asked for at once.
const AT_ONCE: usize = 64;

/// For an answer of the client. The gate waits somewhat longer.
const PATIENCE: Duration = Duration::from_secs(4);

#[derive(Args, Debug)]
pub(in crate::cli) struct RelayArguments {
    #[command(flatten)]
    place: Place,
    /// Answer for this host only; may be repeated. Without it: for whatever host the command obtains
    #[arg(long = "host", value_name = "HOST")]
    hosts: Vec<Identifier>,
    /// The client, with its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct Place {
    /// Port of this machine's loopback where the client answers itself ("standalone")
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Folder that the client writes its challenges into
    #[arg(long, value_name = "FOLDER")]
    webroot: Option<PathBuf>,
}

impl Place {
    fn source(&self) -> Source {
        match (self.port, &self.webroot) {
            (Some(port), _) => Source::Port(port),
            (None, Some(folder)) => Source::Webroot(folder.clone()),
            (None, None) => unreachable!("clap asks for one of them"),
        }
    }
}

/// Runs the command with the gate open and asking; its exit code.
pub(super) async fn run(daemon: Client, socket: &Path, arguments: &RelayArguments) -> Result<u8, Failure> {
    let RelayArguments { place, hosts, command } = arguments;
    let Some((program, rest)) = command.split_first() else {
        return Err(Failure::new(FAILED, "there is no command"));
    };
    let source = place.source();
    if let Source::Webroot(folder) = &source
        && !folder.is_dir()
    {
        return Err(Failure::new(FAILED, format!("--webroot {}: there is no such folder", folder.display())));
    }
    let questions = daemon.relay(&RelayRequest { hosts: hosts.clone() }).await?;
    let mut child = Command::new(program).args(rest).kill_on_drop(true).spawn().map_err(|e| {
        // As a shell says it.
        let code = if e.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
        Failure::new(code, format!("{} cannot be run: {e}", program.to_string_lossy()))
    })?;
    let ended = LocalSet::new()
        .run_until(async {
            let answering =
                tokio::task::spawn_local(answer_all(Rc::new(source), questions, Answers::new(socket)));
            let ended = wait(&mut child).await;
            answering.abort();
            ended
        })
        .await?;
    Ok(code_of(ended))
}

/// The command's end. Signals that would end this process are passed on; an interrupt of the terminal reaches
/// the command by itself.
async fn wait(child: &mut Child) -> io::Result<ExitStatus> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        let passed_on = tokio::select! {
            ended = child.wait() => return ended,
            _ = terminate.recv() => Signal::TERM,
            _ = hang_up.recv() => Signal::HUP,
            _ = interrupt.recv() => continue,
        };
        if let Some(pid) = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())) {
            // One that has just ended needs no signal.
            let _ = kill_process(pid, passed_on);
        }
    }
}

/// As a shell says it.
fn code_of(ended: ExitStatus) -> u8 {
    let code = ended.code().or_else(|| ended.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(FAILED)
}

/// Asks the client for each token, some at once, and passes on what it says.
async fn answer_all(source: Rc<Source>, mut questions: Questions, mut answers: Answers) {
    let turns = Rc::new(Semaphore::new(AT_ONCE));
    let (said, mut to_say) = mpsc::unbounded_channel();
    let saying = tokio::task::spawn_local(async move {
        while let Some(answer) = to_say.recv().await {
            if let Err(e) = answers.say(&answer).await {
                output::complain(&e.to_string());
            }
        }
    });
    let ended = loop {
        match questions.next().await {
            Ok(Some(question)) => {
                let (source, turns, said) = (source.clone(), turns.clone(), said.clone());
                tokio::task::spawn_local(async move {
                    let _turn = turns.acquire().await;
                    let key_authorization = source.asked(&question).await;
                    // Who should say it is gone when the command has ended.
                    let _ = said.send(RelayAnswer { number: question.number, key_authorization });
                });
            }
            Ok(None) => break "the daemon has ended: challenges are answered no more".to_owned(),
            Err(e) => break format!("challenges are answered no more: {e}"),
        }
    };
    output::complain(&ended);
    saying.abort();
}

/// Where the client has its tokens.
enum Source {
    Port(u16),
    Webroot(PathBuf),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => write!(f, "port {port} of loopback"),
            Self::Webroot(folder) => write!(f, "{}", folder.display()),
        }
    }
}

impl Source {
    /// What the client says within a while; what goes wrong is told, and is no answer.
    async fn asked(&self, question: &RelayQuestion) -> Option<String> {
        let known = tokio::time::timeout(PATIENCE, self.key_authorization(question)).await;
        known.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).unwrap_or_else(|e| {
            output::complain(&format!("{self} cannot be asked for token {}: {e}", question.token));
            None
        })
    }

    /// The answer to a token; `None` where there is none, which is no error: scanners come, too.
    async fn key_authorization(&self, question: &RelayQuestion) -> io::Result<Option<String>> {
        let answer = match self {
            Self::Port(port) => fetch(*port, question).await?,
            Self::Webroot(folder) => {
                match read_file(&folder.join(CHALLENGES).join(&question.token), ANSWER_LIMIT as u64) {
                    Ok(bytes) => Some(bytes),
                    Err(e) if e.kind() == io::ErrorKind::NotFound => None,
                    Err(e) => return Err(e),
                }
            }
        };
        Ok(answer.and_then(|answer| key_authorization(&question.token, &answer)))
    }
}

/// What a client's answer says about that token. Some give every token the same answer, and some end it with a
/// line feed.
fn key_authorization(token: &str, answer: &[u8]) -> Option<String> {
    let text = str::from_utf8(answer).ok()?.trim_ascii_end();
    let is_its = text.strip_prefix(token).is_some_and(|rest| rest.starts_with('.'));
    is_its.then(|| text.to_owned())
}

async fn fetch(port: u16, question: &RelayQuestion) -> io::Result<Option<Vec<u8>>> {
    let addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), (Ipv6Addr::LOCALHOST, port).into()];
    let stream = match TcpStream::connect(&addresses[..]).await {
        Ok(stream) => stream,
        // The client listens only while it waits for the CA.
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => return Ok(None),
        Err(e) => return Err(e),
    };
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let request = Request::builder()
        .uri(format!("/{CHALLENGES}/{}", question.token))
        .header(header::HOST, question.host.authority().as_ref())
        .body(Empty::<Bytes>::new())
        .map_err(io::Error::other)?;
    let answer = async move {
        let response = sender.send_request(request).await.map_err(io::Error::other)?;
        if response.status() != StatusCode::OK {
            return Ok(None);
        }
        let body =
            Limited::new(response.into_body(), ANSWER_LIMIT).collect().await.map_err(io::Error::other)?;
        Ok(Some(body.to_bytes().to_vec()))
    };
    // What broke it is told by the answer.
    let (answer, _ended) = tokio::join!(answer, connection);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_for_its_own_token() {
        for (token, answer, expected) in [
            ("aaa", "aaa.thumb", Some("aaa.thumb")),
            ("aaa", "aaa.thumb\r\n", Some("aaa.thumb")),
            ("aaa", "aaab.thumb", None),
            ("aaa", "bbb.thumb", None),
            ("aaa", "aaa", None),
            ("aaa", "", None),
            ("aaa", "<html>404</html>", None),
        ] {
            assert_eq!(key_authorization(token, answer.as_bytes()).as_deref(), expected, "{answer:?}");
        }
        assert_eq!(key_authorization("aaa", b"aaa.\xff"), None);
    }

    #[test]
    fn a_command_that_was_killed_ends_as_in_a_shell() {
        for (raw, expected) in [(0, 0), (3 << 8, 3), (15, 143), (9, 137)] {
            assert_eq!(code_of(ExitStatus::from_raw(raw)), expected);
        }
    }
}
