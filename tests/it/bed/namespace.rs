//! A network and a mount table of a test's own: port 80 is free there, names resolve as it says, and a
//! disk can be full.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use rustix::process::{Pid, Signal, kill_process};

use super::Bed;
use super::process::{Process, run};

/// User, network and mount namespaces, held by a process that sleeps.
pub(crate) struct Namespace {
    holder: Process,
}

/// Mount and process namespaces, with folders of their own at /run, /dev/shm and /mnt: root stays root, and
/// ports are everybody's. Servers of other tests that run at the same time are not seen in it, and somebody
/// collects those that have died.
pub(crate) struct Mounts {
    holder: Process,
}

/// Whether this user can make [`Mounts`].
pub(crate) fn mounts_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        let arguments =
            ["--mount", "--pid", "--fork", "--mount-proc", "mount", "-t", "tmpfs", "tmpfs", "/mnt"];
        run(Command::new("unshare").args(arguments)).code == Some(0)
    })
}

impl Mounts {
    pub(crate) fn start() -> Self {
        let script =
            "set -e; for folder in /run /dev/shm /mnt; do mount -t tmpfs -o mode=0755 tmpfs $folder; done
             mkdir /run/lock; chmod 1777 /dev/shm; echo made; sleep infinity & wait";
        let arguments = ["--mount", "--pid", "--fork", "--mount-proc", "sh", "-c", script];
        let holder = Process::start("mounts", Command::new("unshare").args(arguments));
        holder.wait_for_line("made");
        Self { holder }
    }

    /// A command that runs inside.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        let holder = self.holder.id();
        command.args(["--target", &holder.to_string(), "--mount"]);
        command.arg(format!("--pid=/proc/{holder}/ns/pid_for_children")).arg("--").arg(program);
        command
    }

    /// Runs a shell script inside, to its end.
    pub(crate) fn sh(&self, script: &str) -> super::process::Ran {
        run(self.command("sh").args(["-c", script]))
    }

    /// Waits until those that have died are collected: a pid file that names one of them is still believed.
    #[track_caller]
    pub(crate) fn bury_the_dead(&self) {
        super::until("the dead are collected", || {
            (self.sh("ps -e -o stat= | grep -q ^Z").code == Some(1)).then_some(())
        });
    }

    /// Every process inside, also one that went to the background and is nobody's child any more.
    pub(crate) fn processes(&self) -> Vec<Pid> {
        let space = |pid: &OsStr| std::fs::read_link(Path::new("/proc").join(pid).join("ns/mnt")).ok();
        let Some(ours) = space(self.holder.id().to_string().as_ref()) else { return Vec::new() };
        let all = std::fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.file_name());
        all.filter(|name| space(name).as_ref() == Some(&ours))
            .filter_map(|name| Pid::from_raw(name.to_str()?.parse().ok()?))
            .collect()
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        for pid in self.processes() {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// Whether this kernel and this user can make one.
pub(crate) fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        let script = "ip link set lo up && mount -t tmpfs tmpfs /mnt";
        let mut command = Command::new("unshare");
        run(command.args(UNSHARE).args(["sh", "-c", script])).code == Some(0)
    })
}

const UNSHARE: [&str; 4] = ["--user", "--map-root-user", "--net", "--mount"];

impl Namespace {
    /// With loopback up and these names leading to it.
    pub(crate) fn start(bed: &Bed, names: &[&str]) -> Self {
        Self::with(bed, names, "true")
    }

    /// With a disk of that size mounted at a folder.
    pub(crate) fn with_small_disk(bed: &Bed, folder: &Path, kilobytes: u32) -> Self {
        let folder = folder.display();
        Self::with(bed, &[], &format!("mount -t tmpfs -o mode=0755,size={kilobytes}k tmpfs {folder}"))
    }

    fn with(bed: &Bed, names: &[&str], then: &str) -> Self {
        let hosts = bed.write("hosts", format!("127.0.0.1 localhost {}\n", names.join(" ")));
        let script = format!(
            "set -e; ip link set lo up; mount --bind {} /etc/hosts; {then}; echo made; exec sleep infinity",
            hosts.display()
        );
        let holder =
            Process::start("namespace", Command::new("unshare").args(UNSHARE).args(["sh", "-c", &script]));
        holder.wait_for_line("made");
        Self { holder }
    }

    /// A command that runs inside.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.holder.id().to_string()]);
        command.args(["--user", "--net", "--mount", "--preserve-credentials", "--"]).arg(program);
        command
    }

    /// Runs a shell script inside, to its end.
    pub(crate) fn sh(&self, script: &str) -> super::process::Ran {
        run(self.command("sh").args(["-c", script]))
    }
}

#[test]
fn names_and_port_80_are_the_tests_own() {
    super::needs!("namespaces", "ip", "nsenter");
    let bed = Bed::new();
    let disk = bed.path("disk");
    std::fs::create_dir(&disk).unwrap();
    let inside = Namespace::start(&bed, &["one.example.test"]);
    assert!(inside.sh("getent hosts one.example.test").expect_code(0).stdout.contains("127.0.0.1"));
    assert!(!inside.sh("ss -Hltn").expect_code(0).stdout.contains(":80 "), "port 80 is taken");
    let small = Namespace::with_small_disk(&bed, &disk, 64);
    let filled = small.sh(&format!("dd if=/dev/zero of={}/x bs=1k count=100", disk.display()));
    assert!(filled.stderr.contains("No space left"), "{}", filled.stderr);
    assert!(!disk.join("x").exists(), "the disk is seen outside");
}
