//! Two machines: ours, where the program under test runs, and another one with many addresses, where
//! everybody else's servers are. Port 80 and port 53 are free on both.

use std::ffi::OsStr;
use std::process::Command;

use super::Bed;
use super::namespace::Namespace;
use super::process::{Process, Ran, run};

/// Our machine's address.
pub(crate) const OURS: &str = "192.0.2.1";

/// Two network namespaces and the cable between them.
pub(crate) struct Neighbours {
    /// Ours.
    pub(crate) machine: Namespace,
    world: Process,
}

impl Neighbours {
    /// With these names in our hosts file; theirs has all of 192.0.2.10 to 192.0.2.99 and 2001:db8::10 to
    /// 2001:db8::99.
    pub(crate) fn start(bed: &Bed, names: &[&str]) -> Self {
        let machine = Namespace::start(bed, names);
        let hold = "ip link set lo up; echo made; exec sleep infinity";
        let world =
            Process::start("the other machine", machine.command("unshare").args(["--net", "sh", "-c", hold]));
        world.wait_for_line("made");
        let neighbours = Self { machine, world };
        let cable = format!(
            "set -e; ip link add cable type veth peer name cable netns {}
             ip link set cable up; ip address add {OURS}/24 dev cable
             ip address add 2001:db8::1/64 dev cable nodad",
            neighbours.world.id()
        );
        neighbours.machine.sh(&cable).expect_code(0);
        let addresses = "set -e; ip link set cable up; echo 0 >/proc/sys/net/ipv4/ip_unprivileged_port_start
             for n in $(seq 10 99); do
               echo address add 192.0.2.$n/24 dev cable; echo address add 2001:db8::$n/64 dev cable nodad
             done | ip -batch -";
        run(neighbours.theirs("sh").args(["-c", addresses])).expect_code(0);
        neighbours
    }

    /// A command that runs on the other machine.
    pub(crate) fn theirs(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.world.id().to_string()]);
        command.args(["--user", "--net", "--mount", "--preserve-credentials", "--"]).arg(program);
        command
    }

    /// A command that runs on the other machine as an ordinary user, for programs that refuse to be root
    /// and cannot become anybody else in a namespace of one user.
    pub(crate) fn theirs_as_user(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.theirs("unshare");
        command.args(["--user", "--map-user=13", "--map-group=13", "--"]).arg(program);
        command
    }

    /// Runs a shell script on the other machine, to its end.
    pub(crate) fn their_sh(&self, script: &str) -> Ran {
        run(self.theirs("sh").args(["-c", script]))
    }
}
