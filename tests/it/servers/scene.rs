//! A machine with one server on it, as far as a mount namespace can be one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::bed::client::{is_open, served_leaf};
use crate::bed::namespace::Mounts;
use crate::bed::pebble::{Mood, Pebble};
use crate::bed::pki::{Seen, read_chain_file};
use crate::bed::process::{Ran, run, run_within};
use crate::bed::wicketgate::{PROGRAM, Setup, clean};
use crate::bed::{Bed, until};

/// What the shipped configurations call `example.net`.
pub(super) const NAME: &str = "example.test";

/// A server as it is shipped with.
pub(super) struct Server {
    pub(super) service: &'static str,
    /// Its configuration, in this repository.
    pub(super) shipped: &'static str,
    /// Where that belongs, below /etc.
    pub(super) place: &'static str,
    /// What the administrator does with the packaged configuration.
    pub(super) prepare: &'static str,
    /// How it is started.
    pub(super) start: &'static str,
    /// Its executable file's name.
    pub(super) program: &'static str,
    /// A line that does not belong into its configuration, and what it says of that.
    pub(super) rubbish: (&'static str, &'static str),
    /// How it is configured without the chain.
    pub(super) lone: Lone,
}

/// What stands in the place of the chain.
#[derive(Debug, Clone, Copy)]
pub(super) enum Lone {
    /// `cert.pem`
    Leaf,
    /// A file of the administrator's own.
    LeafAndKey,
}

/// One server, a CA, and wicketgate.
pub(super) struct Scene {
    pub(super) server: &'static Server,
    pub(super) setup: Setup,
    pub(super) mounts: Mounts,
    pub(super) port: u16,
    /// What every command is run by, as in `setpriv …`.
    pub(super) by: Vec<&'static str>,
    /// The binary.
    pub(super) program: PathBuf,
    /// Lines of `[deploy.NAME]`, and what comes after it.
    pub(super) table: String,
    _pebble: Pebble,
    pub(super) bed: Bed,
}

impl Scene {
    /// With these lines in the server's `[deploy.NAME]`, besides where to look.
    pub(super) fn new(server: &'static Server, table: &str) -> Self {
        let bed = Bed::new();
        let (pebble, setup) = Setup::with_pebble(&bed, Mood::Kind, &[NAME, "www.example.test"]);
        let setup = setup.without_front().with(&format!("deploy = [\"{}\"]", server.service));
        let port = bed.port();
        let mut scene = Self {
            server,
            setup,
            mounts: Mounts::start(),
            port,
            by: Vec::new(),
            program: PROGRAM.into(),
            table: table.to_owned(),
            _pebble: pebble,
            bed,
        };
        scene.look_for("30s");
        scene.furnish();
        scene
    }

    /// Its own /etc and /var/log, with the shipped configuration in place.
    fn furnish(&self) {
        let etc = self.bed.path("etc");
        fs::create_dir(&etc).unwrap();
        let folder = self.server.place.split('/').next().unwrap();
        let (from, to) = (format!("/etc/{folder}"), etc.join(folder));
        let logs = "mount -t tmpfs -o mode=0755 tmpfs /var/log;
             for log in nginx apache2 squid; do mkdir /var/log/$log; done; chown proxy: /var/log/squid";
        // What a2enmod remembers.
        let state = self.bed.path("apache-state");
        let apache = format!("mkdir {0}; mount --bind {0} /var/lib/apache2", state.display());
        let apache = if folder == "apache2" { &apache } else { "true" };
        self.sh(&format!(
            "set -e; cp -a {from} {0}; mount --bind {0} {from}; {logs}; {apache}",
            to.display()
        ));
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join(self.server.shipped);
        let text = self.adapted(&fs::read_to_string(shipped).unwrap());
        self.write(&text);
        self.sh(&format!("set -e; {}", self.server.prepare));
        let ports = etc.join("apache2/ports.conf");
        if let Ok(text) = fs::read_to_string(&ports) {
            fs::write(ports, text.replace("443", &self.port.to_string())).unwrap();
        }
    }

    /// A shipped text with the names, the port and the folder of this test.
    pub(super) fn adapted(&self, text: &str) -> String {
        let live = self.setup.state.join("live").join(NAME).display().to_string();
        let live = if self.has_copies() { "/etc/squid/tls".to_owned() } else { live };
        let has_ipv6 = Path::new("/proc/net/if_inet6").exists();
        text.lines()
            .filter(|line| has_ipv6 || !line.contains("[::]"))
            .map(|line| {
                line.replace("/var/lib/wicketgate/live/example.net", &live)
                    .replace("example.net", NAME)
                    .replace("443", &self.port.to_string())
                    + "\n"
            })
            .collect()
    }

    /// Has deploys look for that long at most.
    pub(super) fn look_for(&mut self, within: &str) {
        self.setup.more = format!(
            "[deploy.{}]\nverify = [\"127.0.0.1:{}\"]\nverify-timeout = \"{within}\"\n{}\n",
            self.server.service, self.port, self.table
        );
    }

    pub(super) fn has_copies(&self) -> bool {
        self.table.contains("copy")
    }

    pub(super) fn has_runtime_api(&self) -> bool {
        self.table.contains("runtime-socket")
    }

    /// Runs a shell script inside, which must work.
    #[track_caller]
    pub(super) fn sh(&self, script: &str) {
        self.mounts.sh(script).expect_code(0);
    }

    /// Runs wicketgate inside.
    #[track_caller]
    pub(super) fn run(&self, arguments: &[&str]) -> Ran {
        run_within(Duration::from_secs(60), self.wicketgate().args(arguments))
    }

    /// wicketgate with its configuration.
    pub(super) fn wicketgate(&self) -> Command {
        let program = self.program.to_str().unwrap();
        let words: Vec<_> = self.by.iter().copied().chain([program]).collect();
        let mut command = self.mounts.command(words[0]);
        clean(&mut command);
        command.args(&words[1..]).arg("--config").arg(self.setup.write(&self.bed));
        command
    }

    /// The server's configuration file, from outside.
    pub(super) fn config(&self) -> PathBuf {
        self.bed.path("etc").join(self.server.place)
    }

    pub(super) fn write(&self, text: &str) {
        fs::write(self.config(), text).unwrap();
    }

    /// Changes the server's configuration; the text before.
    pub(super) fn change(&self, change: impl FnOnce(&str) -> String) -> String {
        let text = fs::read_to_string(self.config()).unwrap();
        let changed = change(&text);
        assert_ne!(text, changed);
        self.write(&changed);
        text
    }

    /// Starts the server as an administrator does who has no systemd.
    #[track_caller]
    pub(super) fn start(&self) {
        // What stays in the background must not hold the test's pipes.
        let log = self.bed.path("start.log");
        let script = format!("{} </dev/null >{} 2>&1", self.server.start, log.display());
        // Nor die with the group that it was started in, which it leaves when it pleases.
        let mut start = self.mounts.command("setsid");
        let ran = run(start.args(["--wait", "sh", "-c", &script]));
        assert_eq!(ran.code, Some(0), "{}", fs::read_to_string(log).unwrap());
        until("the server serves", || is_open(self.port).then(|| self.served()).flatten());
    }

    /// The server's processes.
    pub(super) fn processes(&self) -> Vec<Pid> {
        let is_its = |pid: &Pid| {
            let program = fs::read_link(format!("/proc/{}/exe", pid.as_raw_nonzero())).unwrap_or_default();
            program.file_name().and_then(|name| name.to_str()) == Some(self.server.program)
        };
        self.mounts.processes().into_iter().filter(is_its).collect()
    }

    /// Ends every process of the server, as the kernel does that is out of memory.
    pub(super) fn kill(&self) {
        assert!(!self.processes().is_empty());
        until("the server is dead", || {
            for pid in self.processes() {
                let _ = kill_process(pid, Signal::KILL);
            }
            (self.processes().is_empty() && !is_open(self.port)).then_some(())
        });
        self.mounts.bury_the_dead();
    }

    /// The leaf that the server shows.
    pub(super) fn served(&self) -> Option<Seen> {
        served_leaf(self.port, NAME)
    }

    /// The leaf of the live version.
    pub(super) fn stored(&self) -> Seen {
        self.setup.stored(NAME)[0].clone()
    }

    /// The number of the live version.
    pub(super) fn version(&self) -> u32 {
        let target = fs::read_link(self.setup.live(NAME)).unwrap();
        target.file_name().unwrap().to_str().unwrap().parse().unwrap()
    }

    /// The leaf of the copies.
    pub(super) fn copied(&self) -> Seen {
        read_chain_file(&self.bed.path("etc/squid/tls/fullchain.pem"))[0].clone()
    }

    /// Owner, group and mode of the copies.
    #[track_caller]
    pub(super) fn owns_copies(&self, wanted: &str) {
        let told =
            self.mounts.sh("stat -c '%U:%G %a' /etc/squid/tls/fullchain.pem /etc/squid/tls/privkey.pem");
        assert_eq!(told.expect_code(0).stdout, format!("{wanted}\n{wanted}\n"));
    }

    /// What `status --json` says of the server.
    pub(super) fn deploys(&self) -> serde_json::Value {
        let ran = self.run(&["status", "--json"]).expect_code(0);
        let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        report["certificates"][0]["deploys"][0].clone()
    }

    /// Has the server configured with the leaf alone, and little patience with it.
    pub(super) fn lone(&mut self) {
        let live = self.setup.live(NAME);
        let leaf = fs::read_to_string(live.join("cert.pem")).unwrap();
        let key = fs::read_to_string(live.join("privkey.pem")).unwrap();
        if self.has_copies() {
            self.bed.write("etc/squid/tls/cert.pem", &leaf);
        }
        match self.server.lone {
            Lone::Leaf => self.change(|text| text.replace("fullchain.pem", "cert.pem")),
            Lone::LeafAndKey => {
                let lone = self.bed.write("etc/lone.pem", leaf + &key);
                let combined = live.join("combined.pem");
                self.change(|text| text.replace(combined.to_str().unwrap(), lone.to_str().unwrap()))
            }
        };
        self.look_for("2s");
    }
}
