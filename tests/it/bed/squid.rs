//! A real Squid that ends TLS in front of a site, with the PEM files of a folder.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use wicketgate::clock;

use super::client::is_open;
use super::process::Process;
use super::{Bed, PATIENCE, set_mode, until};

/// A running Squid with a configuration of its own, in the foreground.
pub(crate) struct Squid {
    process: Process,
    pub(crate) config: PathBuf,
    port: u16,
}

impl Squid {
    /// A TLS server of `chain` and `key`, started by what `program` makes of its name.
    pub(crate) fn start(
        bed: &Bed,
        program: &dyn Fn(&str) -> Command,
        chain: &Path,
        key: &Path,
        port: u16,
    ) -> Self {
        let dir = bed.path("squid");
        std::fs::create_dir_all(&dir).unwrap();
        // Started by root, it writes here as somebody else.
        set_mode(&dir, 0o777);
        let (folder, chain, key) = (dir.display(), chain.display(), key.display());
        let config = bed.write(
            "squid/squid.conf",
            format!(
                "https_port 127.0.0.1:{port} accel cert={chain} key={key} defaultsite=www.example.test\n\
                 cache_peer 127.0.0.1 parent 9 0 no-query originserver\nhttp_access allow all\n\
                 pid_filename {folder}/pid\ncache_log {folder}/cache.log\naccess_log none\n\
                 coredump_dir {folder}\nvisible_hostname www.example.test\npinger_enable off\n\
                 shutdown_lifetime 0 seconds\ndns_nameservers 127.0.0.1\n"
            ),
        );
        // A name of its own for its shared memory, which others on this machine do not collide with.
        let process = Process::start(
            "squid",
            program("/usr/sbin/squid").args(["--foreground", "-n", &format!("it{port}"), "-f"]).arg(&config),
        );
        until("squid listens", || is_open(port).then_some(()));
        Self { process, config, port }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The command that makes it read its files again, as a person would configure it.
    pub(crate) fn reload_command(&self) -> Vec<String> {
        let config = self.config.to_str().expect("a path in UTF-8").to_owned();
        let name = format!("it{}", self.port);
        ["/usr/sbin/squid", "-n", &name, "-f", &config, "-k", "reconfigure"].map(str::to_owned).to_vec()
    }
}

impl Drop for Squid {
    /// Killed at once, it would leave its shared memory behind.
    fn drop(&mut self) {
        let end = clock::monotonic() + PATIENCE;
        if self.process.ended().is_none() {
            self.process.signal(Signal::TERM);
        }
        while self.process.ended().is_none() && clock::monotonic() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn squid_reads_its_files_again() {
    super::needs!("squid", "openssl");
    let bed = Bed::new();
    super::assert_reads_again(&bed, |files| {
        let squid = Squid::start(&bed, &|p| Command::new(p), &files.chain, &files.key, bed.port());
        (squid.port(), squid.reload_command(), Box::new(squid))
    });
}
