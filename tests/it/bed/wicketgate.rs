//! The program under test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use rustix::process::Signal;

use super::client::{is_open, served_leaf};
use super::pebble::{Mood, Pebble};
use super::pki::{Seen, read_chain_file};
use super::process::{Process, Ran, run_within};
use super::{Bed, until};

/// The binary.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_wicketgate");

/// A configuration with its ports; its text can be changed and added to before it is used.
pub(crate) struct Setup {
    pub(crate) state: PathBuf,
    pub(crate) gate: u16,
    pub(crate) front: u16,
    pub(crate) socket: PathBuf,
    issuer: String,
    /// Lines above the first table.
    pub(crate) top: String,
    upstream: Option<String>,
    pub(crate) certificates: String,
    pub(crate) more: String,
}

impl Setup {
    /// For a CA by its directory and its API's root, with a front that shows the built-in page.
    pub(crate) fn new(bed: &Bed, directory: &str, root: &Path) -> Self {
        let acme = format!("issuer = {directory:?}\nroots = {root:?}\n");
        Self::with_acme(bed, acme)
    }

    /// For a Pebble of its own in that mood, which validates at its gate, and one certificate.
    pub(crate) fn with_pebble(bed: &Bed, mood: Mood, hostnames: &[&str]) -> (Pebble, Self) {
        let gate = bed.port();
        let pebble = Pebble::start(bed, mood, gate);
        let mut setup = Self::new(bed, &pebble.directory(), pebble.api_root());
        setup.gate = gate;
        (pebble, setup.certificate(hostnames))
    }

    /// For the embedded CA.
    pub(crate) fn embedded(bed: &Bed) -> Self {
        Self::with_acme(bed, "issuer = \"embedded\"\n".to_owned())
    }

    fn with_acme(bed: &Bed, issuer: String) -> Self {
        Self {
            state: bed.path("state"),
            gate: bed.port(),
            front: bed.port(),
            socket: bed.path("admin.sock"),
            issuer,
            top: String::new(),
            upstream: Some("demo".to_owned()),
            certificates: String::new(),
            more: String::new(),
        }
    }

    /// Adds a certificate for these names.
    pub(crate) fn certificate(mut self, hostnames: &[&str]) -> Self {
        self.certificates += &format!("[[certificate]]\nhostnames = {hostnames:?}\n");
        self
    }

    /// Adds lines to the certificate added last.
    pub(crate) fn with(mut self, lines: &str) -> Self {
        self.certificates += lines;
        self.certificates += "\n";
        self
    }

    /// Forwards to that upstream.
    pub(crate) fn upstream(mut self, upstream: &str) -> Self {
        self.upstream = Some(upstream.to_owned());
        self
    }

    /// Leaves 443 to others.
    pub(crate) fn without_front(mut self) -> Self {
        self.upstream = None;
        self
    }

    /// Adds tables at the end.
    pub(crate) fn tables(mut self, text: &str) -> Self {
        self.more += text;
        self.more += "\n";
        self
    }

    /// Adds lines to the table of the CA.
    pub(crate) fn acme(mut self, lines: &str) -> Self {
        self.issuer += lines;
        self.issuer += "\n";
        self
    }

    /// The file's text.
    pub(crate) fn text(&self) -> String {
        let front = self.upstream.as_ref().map_or_else(String::new, |upstream| {
            format!(
                "[front]\nlisten = [\"127.0.0.1:{}\"]\nupstream = {upstream:?}\nthreads = 1\n",
                self.front
            )
        });
        format!(
            "state-dir = {:?}\ngrace = \"5s\"\n{}[acme]\n{}terms-agreed = true\n\
             [gate]\nlisten = [\"127.0.0.1:{}\"]\nredirect = {{ port = {} }}\n\
             {front}[admin]\nsocket = {:?}\n{}{}",
            self.state,
            self.top,
            self.issuer,
            self.gate,
            self.front,
            self.socket,
            self.certificates,
            self.more
        )
    }

    /// Writes the file, in one step: a daemon and its helper may be reading it.
    pub(crate) fn write(&self, bed: &Bed) -> PathBuf {
        let path = bed.path("wicketgate.toml");
        fs::rename(bed.write("wicketgate.toml.new", self.text()), &path).unwrap();
        path
    }

    /// Where a lineage's current files are.
    pub(crate) fn live(&self, name: &str) -> PathBuf {
        self.state.join("live").join(name)
    }

    /// The stored chain of a lineage, leaf first.
    #[track_caller]
    pub(crate) fn stored(&self, name: &str) -> Vec<Seen> {
        read_chain_file(&self.live(name).join("fullchain.pem"))
    }

    /// Starts `run` with this configuration.
    pub(crate) fn start(&self, bed: &Bed) -> Daemon {
        Daemon::start(&self.write(bed))
    }

    /// Starts `run` and waits until the front serves this name.
    #[track_caller]
    pub(crate) fn start_until_served(&self, bed: &Bed, name: &str) -> (Daemon, Seen) {
        let daemon = self.start(bed);
        let leaf = self.wait_until_served(name);
        (daemon, leaf)
    }

    /// Waits until the front serves this name.
    #[track_caller]
    pub(crate) fn wait_until_served(&self, name: &str) -> Seen {
        until(&format!("the front serves {name}"), || {
            is_open(self.front).then(|| served_leaf(self.front, name)).flatten()
        })
    }

    /// The kept account; there is one issuer.
    pub(crate) fn account(&self) -> PathBuf {
        let issuers: Vec<_> = fs::read_dir(self.state.join("accounts")).unwrap().collect();
        assert_eq!(issuers.len(), 1, "{issuers:?}");
        issuers[0].as_ref().unwrap().path().join("account.json")
    }

    /// `renew`, to its end.
    #[track_caller]
    pub(crate) fn renew(&self, bed: &Bed) -> Ran {
        self.command(bed, &["renew"])
    }

    /// Runs a command with this configuration, to its end.
    #[track_caller]
    pub(crate) fn command(&self, bed: &Bed, arguments: &[&str]) -> Ran {
        run_within(Duration::from_secs(60), command(&self.write(bed)).args(arguments))
    }
}

/// `wicketgate --config FILE`, in an environment without anything that could configure it.
pub(crate) fn command(config: &Path) -> Command {
    let mut command = Command::new(PROGRAM);
    clean(&mut command);
    command.arg("--config").arg(config);
    command
}

/// Takes away what the surroundings of the tests could put into the program.
pub(crate) fn clean(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let is_ours = name.to_str().is_some_and(|name| {
            name.starts_with("WICKETGATE_") || name.to_ascii_uppercase().ends_with("_PROXY")
        });
        if is_ours || name == "NOTIFY_SOCKET" || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
}

/// A running `wicketgate run`.
pub(crate) struct Daemon {
    pub(crate) process: Process,
}

impl Daemon {
    pub(crate) fn start(config: &Path) -> Self {
        Self { process: Process::start("wicketgate run", command(config).arg("run")) }
    }

    /// Asks it to end and waits for that.
    #[track_caller]
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.process.signal(Signal::TERM);
        self.process.wait(super::PATIENCE)
    }
}

/// Every path below a folder, itself included, links not followed.
pub(crate) fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![folder.to_owned()];
    let mut next = 0;
    while let Some(path) = found.get(next).cloned() {
        next += 1;
        if path.symlink_metadata().is_ok_and(|m| m.is_dir()) {
            found.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    found
}
