//! A configured command, run as certbot runs its hooks: arguments as they stand, no shell, a clean
//! environment, a time limit for the whole process group, output captured and capped.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStdin, Command};

use super::running::Running;
use super::scripts::{self, Code, FIRST_LINE};
use super::trust;
use crate::words::printable;
use crate::words::quote::{self, hidden};

/// Where bare program names are looked up.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Output kept of each stream, bytes.
const KEPT: usize = 16 * 1024;
/// Output told, characters.
const SHOWN: usize = 1000;
/// How long the command of `[notify]` may run.
pub(super) const NOTIFY_LIMIT: Duration = Duration::from_secs(60);
/// How long output is awaited once the command itself has ended.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A command's surroundings, besides the clean environment.
#[derive(Debug)]
pub(super) enum Surroundings<'a> {
    /// For a server alone.
    Server {
        /// What `environment` adds.
        environment: &'a BTreeMap<String, String>,
    },
    /// For a certificate, as certbot tells its hooks of it.
    Certificate {
        /// What `environment` adds.
        environment: &'a BTreeMap<String, String>,
        /// RENEWED_LINEAGE: the folder with the certificate's files.
        lineage: &'a Path,
        /// RENEWED_DOMAINS: its names, separated by spaces.
        domains: &'a str,
    },
    /// A document on standard input. The arguments may hold a secret and are not told.
    Notice(&'a str),
}

impl Surroundings<'_> {
    /// What the configuration adds to the environment.
    fn added(&self) -> impl Iterator<Item = (&str, &str)> {
        let added = match self {
            Self::Server { environment } | Self::Certificate { environment, .. } => Some(*environment),
            Self::Notice(_) => None,
        };
        added.into_iter().flatten().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Everything that the command finds in its environment.
    fn variables(&self) -> BTreeMap<String, String> {
        let mut variables = BTreeMap::from([
            ("PATH".to_owned(), PATH.to_owned()),
            ("LC_ALL".to_owned(), "C".to_owned()),
            ("HOME".to_owned(), home()),
        ]);
        if let Self::Server { environment } | Self::Certificate { environment, .. } = self {
            variables.extend((*environment).clone());
        }
        if let Self::Certificate { lineage, domains, .. } = self {
            variables.insert("RENEWED_LINEAGE".to_owned(), lineage.display().to_string());
            variables.insert("RENEWED_DOMAINS".to_owned(), (*domains).to_owned());
        }
        variables
    }
}

/// The home of the user that this process runs as, which is certbot's for its hooks.
fn home() -> String {
    let us = nix::unistd::User::from_uid(nix::unistd::geteuid());
    let home = us.ok().flatten().and_then(|user| user.dir.to_str().map(str::to_owned));
    home.filter(|home| home.starts_with('/')).unwrap_or_else(|| "/".to_owned())
}

/// The path of a bare name's program, if it is installed.
pub(super) fn installed(name: &str) -> Option<PathBuf> {
    let candidates = PATH.split(':').map(|folder| Path::new(folder).join(name));
    candidates.into_iter().find(|path| is_executable(path))
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// The program to run for a configured word, if nobody else could have put something else in its place.
fn program(word: &str) -> Result<PathBuf, String> {
    let path = if word.contains('/') {
        PathBuf::from(word)
    } else {
        installed(word).ok_or_else(|| {
            format!("there is no program `{word}` in {PATH}: install it, or write its absolute path")
        })?
    };
    if !path.exists() {
        return Err(format!("there is nothing at that path: is {} installed", path.display()));
    }
    trust::settled(&path, rustix::process::geteuid().as_raw())?;
    // Not where its links lead: some programs go by the name they are called.
    Ok(path)
}

/// First lines that lead from script to script are followed so far, as the kernel does.
const INTERPRETERS_DEEP: usize = 5;

/// Whether nobody else could change anything that the command runs besides its program: scripts among its
/// arguments, and the interpreters that the first lines of all of them name.
fn nobody_else_writes(program: &Path, arguments: &[String], depth: usize) -> Result<(), String> {
    let us = rustix::process::geteuid().as_raw();
    interpreted(program, depth)?;
    for code in scripts::code(arguments) {
        let path = match code {
            Code::Program(name) => installed(name),
            // Commands are started in the root folder.
            Code::Script(word) => Some(Path::new("/").join(word)).filter(|path| path.is_file()),
            Code::IfExecutable(word) => Some(Path::new("/").join(word)).filter(|path| is_executable(path)),
        };
        if let Some(path) = path {
            trust::settled(&path, us)?;
            interpreted(&path, depth)?;
        }
    }
    Ok(())
}

/// Whether nobody else could change the interpreter of a script.
fn interpreted(script: &Path, depth: usize) -> Result<(), String> {
    let mut beginning = Vec::new();
    // What cannot be read is not run as a script either.
    let read = File::open(script).and_then(|file| file.take(FIRST_LINE).read_to_end(&mut beginning));
    let Some(words) = read.ok().and_then(|_| scripts::first_line(&beginning)) else { return Ok(()) };
    if depth == INTERPRETERS_DEEP {
        return Err(format!("the first lines of {} lead from script to script", script.display()));
    }
    // Where it is missing, the system says so when the command is run.
    let interpreter = Path::new("/").join(&words[0]);
    if !interpreter.exists() {
        return Ok(());
    }
    let of = |reason| format!("the interpreter in the first line of {}: {reason}", script.display());
    trust::settled(&interpreter, rustix::process::geteuid().as_raw()).map_err(of)?;
    nobody_else_writes(&interpreter, &words, depth + 1).map_err(of)
}

/// Runs a command for a server, once what an earlier helper has left running for it has ended.
///
/// # Errors
/// As [`run`].
pub(super) async fn run_alone(
    running: Running<'_>,
    arguments: &[String],
    surroundings: &Surroundings<'_>,
    limit: Duration,
) -> Result<(), String> {
    running.wait(limit).await?;
    let ran = run_noted(arguments, surroundings, limit, |pid| running.begun(pid)).await;
    running.ended();
    ran.map(drop)
}

/// Runs a command to its end, and tells the last of what it wrote to its standard output.
///
/// # Errors
/// A sentence: it is not to be run, cannot be started, ended with another status than 0, or took too long.
pub(super) async fn run(
    arguments: &[String],
    surroundings: &Surroundings<'_>,
    limit: Duration,
) -> Result<String, String> {
    run_noted(arguments, surroundings, limit, |_| ()).await
}

/// As [`run`]; `begun` is told the process.
async fn run_noted(
    arguments: &[String],
    surroundings: &Surroundings<'_>,
    limit: Duration,
    begun: impl FnOnce(i32),
) -> Result<String, String> {
    let [word, rest @ ..] = arguments else { return Err("the command is empty".to_owned()) };
    let shown = match surroundings {
        Surroundings::Notice(_) => word.clone(),
        _ => quote::command(arguments, SHOWN),
    };
    let program = program(word)
        .and_then(|program| nobody_else_writes(&program, arguments, 0).map(|()| program))
        .map_err(|reason| format!("`{shown}` is not run: {reason}"))?;
    let mut command = std::process::Command::new(&program);
    command
        .args(rest)
        .env_clear()
        .envs(surroundings.variables())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    if let Surroundings::Notice(_) = surroundings {
        command.stdin(Stdio::piped());
    }
    let mut child = Command::from(command).spawn().map_err(|e| {
        let remedy = match e.kind() {
            std::io::ErrorKind::PermissionDenied => "is it executable",
            std::io::ErrorKind::NotFound => "is the interpreter in its first line installed",
            _ => "can it be run by hand",
        };
        format!("cannot run `{shown}`: {e}: {remedy}")
    })?;
    let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    if let Some(group) = group {
        begun(group.as_raw_nonzero().get());
    }
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let secrets = quote::credentials(rest, surroundings.added());
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
    let (ended, words) = match ended.await {
        Ok(Ok(status)) if status.success() => return Ok(String::from_utf8_lossy(&out).into_owned()),
        Ok(Ok(status)) => (format!("`{shown}` failed ({status})"), said(&err, &out, &secrets)),
        Ok(Err(e)) => return Err(format!("lost track of `{shown}`: {e}")),
        Err(_) => {
            if let Some(group) = group {
                // The group may have ended in this very moment, which is just as well.
                let _ = rustix::process::kill_process_group(group, Signal::KILL);
            }
            let ended = format!("`{shown}` did not end within {} s and was stopped", limit.as_secs());
            match said(&err, &out, &secrets) {
                None => return Err(ended),
                words => (ended, words),
            }
        }
    };
    Err(format!("{ended}, saying: {}", words.as_deref().unwrap_or("nothing")))
}

/// What a command said, fit for a sentence: its errors, or else its output.
fn said(err: &[u8], out: &[u8], secrets: &[&str]) -> Option<String> {
    let mut texts = [err, out].into_iter().map(|bytes| {
        let text = without_keys(&quote::without(&String::from_utf8_lossy(bytes), secrets));
        printable(&hidden(&telling(&text)), SHOWN)
    });
    texts.find(|text| !text.is_empty())
}

/// The lines that tell what is wrong, where a program says so among much else; otherwise the last ones.
fn telling(text: &str) -> String {
    const WORDS: [&str; 14] = [
        "error",
        "fatal",
        "emerg",
        "alert",
        "bungled",
        "unrecognized",
        "unknown",
        "invalid",
        "failed",
        "cannot",
        "can't",
        "denied",
        "no such",
        "not found",
    ];
    let tells = |line: &&str| {
        let line = line.to_lowercase();
        WORDS.iter().any(|word| line.contains(word))
    };
    let of_trouble: Vec<_> = text.lines().filter(tells).collect();
    let lines = if of_trouble.is_empty() { text.lines().collect() } else { of_trouble };
    let (mut from, mut length) = (lines.len(), 0);
    while from > 0 && (length == 0 || length + lines[from - 1].len() < SHOWN) {
        from -= 1;
        length += lines[from].len() + 2;
    }
    lines[from..].join("\n")
}

/// A text without the private keys that a careless script may have printed.
fn without_keys(text: &str) -> String {
    const BEGIN: &str = "-----BEGIN ";
    const END: &str = "PRIVATE KEY-----";
    let mut kept = String::new();
    let mut is_key = false;
    for line in text.lines() {
        let is_border = line.contains(END);
        if is_border && !line.contains(BEGIN) && !is_key {
            // The beginning was dropped with the rest of what came first.
            kept.clear();
        }
        if !is_border && !is_key {
            kept.push_str(line);
            kept.push('\n');
        }
        if is_border {
            is_key = line.contains(BEGIN);
            kept.push_str(if is_key { "(a private key)\n" } else { "" });
        }
    }
    kept
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
            environment: &BTreeMap::from([("KRB5_KTNAME".to_owned(), "a b".to_owned())]),
            lineage: Path::new("/state/live/a.example"),
            domains: "a.example b.example",
        };
        run(&arguments, &surroundings, limit).await.map(drop)
    }

    async fn notified(script: &str, document: &str) -> Result<(), String> {
        let arguments = ["sh", "-c", script, "s3cret"].map(str::to_owned);
        run(&arguments, &Surroundings::Notice(document), LONG).await.map(drop)
    }

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn success_failure_and_its_words() {
        assert_eq!(sh("exit 0", LONG).await, Ok(()));
        let told = sh("echo out; echo went wrong >&2; exit 3", LONG).await.unwrap_err();
        assert!(told.ends_with("failed (exit status: 3), saying: went wrong"), "{told}");
        let told = run(&["/no/such".to_owned()], &Surroundings::Notice(""), LONG).await.unwrap_err();
        assert_eq!(told, "`/no/such` is not run: there is nothing at that path: is /no/such installed");
        let told = run(&["no-such".to_owned()], &Surroundings::Notice(""), LONG).await.unwrap_err();
        assert!(told.contains("there is no program `no-such` in /usr/local/sbin:"), "{told}");
    }

    #[tokio::test]
    async fn what_others_may_change_is_not_run() {
        use std::os::unix::fs::PermissionsExt;
        let holder = tempfile::tempdir().unwrap();
        let script = holder.path().join("hook");
        std::fs::write(&script, "#!/bin/sh\nexit 0\n").unwrap();
        let set = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        let arguments = [script.to_str().unwrap().to_owned()];
        let surroundings = Surroundings::Server { environment: &BTreeMap::new() };
        set(&script, 0o700);
        assert_eq!(run(&arguments, &surroundings, LONG).await.as_deref(), Ok(""));
        set(&script, 0o770);
        let told = run(&arguments, &surroundings, LONG).await.unwrap_err();
        assert!(told.contains("its group could change it: run `chmod g-w "), "{told}");
        set(&script, 0o700);
        set(holder.path(), 0o757);
        let told = run(&arguments, &surroundings, LONG).await.unwrap_err();
        assert!(told.contains("anybody could change it: run `chmod o-w "), "{told}");
        set(holder.path(), 0o700);
        set(&script, 0o600);
        let told = run(&arguments, &surroundings, LONG).await.unwrap_err();
        assert!(told.ends_with("is it executable"), "{told}");
    }

    #[tokio::test]
    async fn a_script_that_others_may_change_is_not_run_by_way_of_an_interpreter() {
        let holder = tempfile::tempdir().unwrap();
        let set = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        let script = holder.path().join("hook");
        std::fs::write(&script, "exit 0\n").unwrap();
        let path = script.to_str().unwrap();
        let surroundings = Surroundings::Server { environment: &BTreeMap::new() };
        for (mode, words, may) in [
            (0o644, vec!["sh", path], true),
            (0o646, vec!["sh", path], false),
            (0o646, vec!["/bin/sh", "-e", path], false),
            (0o666, vec!["timeout", "5", "sh", path], false),
            (0o666, vec!["bash", "-o", "pipefail", path], false),
            (0o666, vec!["bash", &format!("--rcfile={path}"), "-c", "exit 0"], false),
            (0o666, vec!["sh", "-c", &format!(". {path}")], false),
            (0o666, vec!["sh", "-c", &format!("exec sh -e {path}")], false),
            (0o666, vec!["awk", "-f", path], false),
            (0o757, vec!["timeout", "5", path], false),
            (0o757, vec!["env", "X=1", path, "x"], false),
            // A file that is read and not run.
            (0o666, vec!["test", "-f", path], true),
            (0o666, vec!["sh", "-c", "test -f $0", path], true),
        ] {
            set(&script, mode);
            let arguments: Vec<String> = words.iter().map(ToString::to_string).collect();
            let ran = run(&arguments, &surroundings, LONG).await;
            assert_eq!(ran.is_ok(), may, "{mode:o} {words:?}: {ran:?}");
            assert!(may || ran.unwrap_err().contains("could change it: run `chmod "));
        }
    }

    #[tokio::test]
    async fn the_interpreter_in_the_first_line_is_looked_at_like_the_program() {
        let holder = tempfile::tempdir().unwrap();
        let at = |name: &str| holder.path().join(name);
        let write = |name: &str, text: &str, mode| {
            std::fs::write(at(name), text).unwrap();
            std::fs::set_permissions(at(name), std::fs::Permissions::from_mode(mode)).unwrap();
        };
        std::fs::copy("/bin/sh", at("shell")).unwrap();
        write("hook", &format!("#!{} -e\nexit 0\n", at("shell").display()), 0o755);
        write("outer", &format!("#!/usr/bin/env {}\n", at("hook").display()), 0o755);
        write("circle", &format!("#!{}\n", at("circle").display()), 0o755);
        let surroundings = Surroundings::Server { environment: &BTreeMap::new() };
        for mode in [0o755, 0o757] {
            let shell = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(at("shell"), shell).unwrap();
            for words in [vec!["hook"], vec!["outer"], vec!["timeout", "9", "hook"], vec!["sh", "-c", "hook"]]
            {
                let words: Vec<_> = words
                    .iter()
                    .map(|word| {
                        if word.starts_with(['h', 'o']) {
                            at(word).display().to_string()
                        } else {
                            word.to_string()
                        }
                    })
                    .collect();
                let ran = run(&words, &surroundings, LONG).await;
                let refused = ran.as_ref().is_err_and(|told| {
                    told.contains("the interpreter in the first line of") && told.contains("run `chmod o-w ")
                });
                assert!(if mode == 0o755 { ran.is_ok() } else { refused }, "{words:?}: {ran:?}");
            }
        }
        let told = run(&[at("circle").display().to_string()], &surroundings, LONG).await.unwrap_err();
        assert!(told.contains("lead from script to script"), "{told}");
    }

    #[tokio::test]
    async fn credentials_among_the_arguments_and_the_words_are_not_told() {
        let words =
            ["sh", "-c", "echo password=S3CRET no $2 $API_TOKEN >&2; exit 1", "x", "--token", "S3CRET words"];
        let environment = BTreeMap::from([("API_TOKEN".to_owned(), "S3CRET too".to_owned())]);
        let surroundings = Surroundings::Server { environment: &environment };
        let told = run(&words.map(str::to_owned), &surroundings, LONG).await.unwrap_err();
        assert!(!told.contains("S3CRET"), "{told}");
        assert!(
            told.contains("x --token ***") && told.ends_with("saying: password=*** no *** ***"),
            "{told}"
        );
    }

    #[test]
    fn private_keys_are_not_told() {
        let key = "-----BEGIN PRIVATE KEY-----\nMIGH\n-----END PRIVATE KEY-----\n";
        for (text, told) in [
            (format!("before\n{key}after"), "before\n(a private key)\nafter\n"),
            (format!("GH\nAb\n-----END EC PRIVATE KEY-----\nx\n{key}"), "x\n(a private key)\n"),
            ("-----BEGIN RSA PRIVATE KEY-----\nMIGH\n".to_owned(), "(a private key)\n"),
            ("plain\n".to_owned(), "plain\n"),
        ] {
            assert_eq!(without_keys(&text), told);
        }
    }

    #[test]
    fn what_is_told_is_what_went_wrong() {
        let startup: String =
            (0..40).map(|n| format!("2026/11/27 10:00:00| Startup: step {n} of many\n")).collect();
        let squid = format!("{startup}2026/11/27| /etc/squid.conf(10): unrecognized: 'bogus'\n{startup}");
        assert_eq!(telling(&squid), "2026/11/27| /etc/squid.conf(10): unrecognized: 'bogus'");
        let told = telling(&startup);
        assert!(told.ends_with("step 39 of many") && told.len() <= SHOWN && told.len() > SHOWN / 2, "{told}");
        assert_eq!(telling(""), "");
        let endless = "x".repeat(5000);
        assert_eq!(telling(&endless), endless);
    }

    #[tokio::test]
    async fn the_environment_is_certbots_and_nothing_else() {
        let script = r#"test "$RENEWED_LINEAGE" = /state/live/a.example && test "$RENEWED_DOMAINS" = "a.example b.example" && test "$KRB5_KTNAME" = "a b" && test -d "$HOME" && test "$(env | cut -d= -f1 | sort | grep -v -e ^_ -e PWD -e SHLVL | tr '\n' ' ')" = "HOME KRB5_KTNAME LC_ALL PATH RENEWED_DOMAINS RENEWED_LINEAGE " || { env >&2; exit 1; }"#;
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
