//! A folder as the root of a machine of its own, with a network of its own where everybody may bind every port, as
//! containers have it. For root alone.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::process::{Process, Ran, run};

pub(crate) struct Machine {
    holder: Process,
    root: PathBuf,
}

impl Machine {
    /// With `/proc` and the usual devices; `then` is a script that is run outside of it before, with `$root`.
    pub(crate) fn start(root: &Path, then: &str) -> Self {
        let script = format!(
            "set -e; root=$1; ip link set lo up
             echo 0 >/proc/sys/net/ipv4/ip_unprivileged_port_start
             mount --bind \"$root\" \"$root\"; mkdir -p \"$root/proc\" \"$root/dev\"
             mount --bind /proc \"$root/proc\"; mount -t tmpfs tmpfs \"$root/dev\"
             for device in null zero urandom; do
                 touch \"$root/dev/$device\"; mount --bind \"/dev/$device\" \"$root/dev/$device\"
             done
             {then}
             echo made; exec sleep infinity"
        );
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "sh", "-c", &script, "-"]).arg(root);
        let holder = Process::start("a machine", &mut command);
        holder.wait_for_line("made");
        Self { holder, root: root.to_owned() }
    }

    /// A program of the machine, as root.
    pub(crate) fn command(&self, program: &str) -> Command {
        self.chroot(&[], program)
    }

    /// As a user of the machine, without any other group.
    pub(crate) fn command_as(&self, user: &str, program: &str) -> Command {
        self.chroot(&[&format!("--userspec={user}"), "--groups="], program)
    }

    fn chroot(&self, options: &[&str], program: &str) -> Command {
        let mut command = self.outside("chroot");
        // As a service is started: nothing of this environment.
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.args(options).arg(&self.root).arg(program);
        command
    }

    /// A shell script on the machine, as root, to its end.
    pub(crate) fn sh(&self, script: &str) -> Ran {
        run(self.command("/bin/sh").args(["-c", script]))
    }

    /// A program of this system in the machine's network.
    pub(crate) fn outside(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.holder.id().to_string(), "--net", "--mount", "--"]).arg(program);
        command
    }
}
