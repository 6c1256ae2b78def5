//! Two machines with a wire between them, so that a packet filter counts: the gate's, and one that knocks from
//! outside. Network namespaces of the test's own; for root alone.

use std::fs::File;
use std::io::ErrorKind::{ConnectionRefused, ConnectionReset};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::process::{Process, Ran, run};
use super::wicketgate::{PROGRAM, clean};

const GATE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

/// How long a knock may go unanswered until the door counts as shut. The wire answers within a millisecond.
const SILENCE: Duration = Duration::from_millis(400);

pub(crate) struct Hosts {
    gate: Process,
    outside: Process,
}

/// What a knock from outside came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Knock {
    /// Somebody listens.
    Open,
    /// The filter lets it through, and nobody listens.
    Refused,
    /// The filter drops it.
    Silence,
}

impl Hosts {
    /// With the ruleset of deploy/nftables loaded at the gate.
    pub(crate) fn start() -> Self {
        let host = |name| {
            let script = "ip link set lo up; mount -t tmpfs tmpfs /run; echo made; exec sleep infinity";
            let holder =
                Process::start(name, Command::new("unshare").args(["--net", "--mount", "sh", "-c", script]));
            holder.wait_for_line("made");
            holder
        };
        let hosts = Self { gate: host("the gate's machine"), outside: host("a machine outside") };
        let outside = hosts.outside.id();
        hosts.sh(&format!("ip link add wire type veth peer name wire netns {outside}")).expect_code(0);
        for (host, address) in [(&hosts.gate, "10.77.0.1/24"), (&hosts.outside, "10.77.0.2/24")] {
            let script = format!("ip address add {address} dev wire && ip link set wire up");
            run(inside(host, "sh").args(["-c", &script])).expect_code(0);
        }
        let ruleset = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/nftables/wicketgate.nft");
        run(hosts.command("nft").arg("-f").arg(ruleset)).expect_code(0);
        hosts
    }

    /// A command on the gate's machine.
    pub(crate) fn command(&self, program: &str) -> Command {
        inside(&self.gate, program)
    }

    /// wicketgate there.
    pub(crate) fn wicketgate(&self, config: &Path, arguments: &[&str]) -> Command {
        let mut command = self.command(PROGRAM);
        clean(&mut command);
        command.arg("--config").arg(config).args(arguments);
        command
    }

    /// A shell script there, run to its end.
    pub(crate) fn sh(&self, script: &str) -> Ran {
        run(self.command("sh").args(["-c", script]))
    }

    /// Knocks at the gate from outside.
    pub(crate) fn knock(&self, port: u16) -> Knock {
        // Who waits for an answer asks again and again, and other tests want the processor too.
        std::thread::sleep(Duration::from_millis(50));
        let outside = File::open(format!("/proc/{}/ns/net", self.outside.id())).unwrap();
        let knocking = std::thread::spawn(move || {
            move_into_link_name_space(outside.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            match TcpStream::connect_timeout(&SocketAddr::from((GATE, port)), SILENCE) {
                Ok(_) => Knock::Open,
                // Reset by one that died in this very moment.
                Err(e) if [ConnectionRefused, ConnectionReset].contains(&e.kind()) => Knock::Refused,
                Err(e) if e.kind() == std::io::ErrorKind::TimedOut => Knock::Silence,
                Err(e) => panic!("the wire is cut: {e}"),
            }
        });
        knocking.join().unwrap()
    }
}

fn inside(host: &Process, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["--target", &host.id().to_string(), "--net", "--mount", "--"]).arg(program);
    command
}
