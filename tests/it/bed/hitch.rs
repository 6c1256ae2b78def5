//! A real hitch that ends TLS with PEM files.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::client::is_open;
use super::process::Process;
use super::{Bed, until};

/// A running hitch with a configuration of its own, in the foreground.
pub(crate) struct Hitch {
    process: Process,
    pub(crate) config: PathBuf,
    port: u16,
}

impl Hitch {
    /// A TLS server of a file with key and chain, started by what `program` makes of its name.
    pub(crate) fn start(bed: &Bed, program: &dyn Fn(&str) -> Command, combined: &Path, port: u16) -> Self {
        // It does not run as root.
        let user = if rustix::process::geteuid().is_root() { "user = \"nobody\"\n" } else { "" };
        let config = bed.write(
            "hitch/hitch.conf",
            format!(
                "frontend = \"[127.0.0.1]:{port}\"\nbackend = \"[127.0.0.1]:9\"\nworkers = 1\n{user}\
                 pem-file = \"{}\"\n",
                combined.display()
            ),
        );
        let mut command = program("/usr/sbin/hitch");
        let process = Process::start("hitch", command.arg("--config").arg(&config));
        until("hitch listens", || is_open(port).then_some(()));
        Self { process, config, port }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The command that makes it read its files again, as a person would configure it.
    pub(crate) fn reload_command(&self) -> Vec<String> {
        ["/bin/kill", "-HUP", &self.process.id().to_string()].map(str::to_owned).to_vec()
    }
}

#[test]
fn hitch_reads_its_files_again() {
    super::needs!("hitch", "openssl");
    let bed = Bed::new();
    super::assert_reads_again(&bed, |files| {
        let hitch = Hitch::start(&bed, &|p| Command::new(p), &files.combined, bed.port());
        (hitch.port(), hitch.reload_command(), Box::new(hitch))
    });
}
