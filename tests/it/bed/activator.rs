//! A service manager that holds sockets.

use std::path::Path;
use std::process::Command;

use super::Bed;
use super::process::Process;
use super::wicketgate::{PROGRAM, clean};

/// Starts `wicketgate run` with these sockets, ports of 127.0.0.1 and paths; SIGHUP to it restarts it.
pub(crate) fn activate(bed: &Bed, sockets: &[&str], config: &Path) -> Process {
    let script = bed.write("activator.py", include_str!("activator.py"));
    let mut command = Command::new("python3");
    clean(&mut command);
    command.arg(script).args(sockets).args(["--", PROGRAM, "--config"]).arg(config).arg("run");
    Process::start("the service manager", &mut command)
}
