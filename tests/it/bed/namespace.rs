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

/// A mount namespace alone, with folders of its own at /run, /dev/shm and /mnt: root stays root, and ports
/// are everybody's. Servers in it are not taken for those of other tests that run at the same time.
pub(crate) struct Mounts {
    holder: Process,
}

/// Whether this user can make [`Mounts`].
pub(crate) fn mounts_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        let script = "mount -t tmpfs tmpfs /mnt";
        run(Command::new("unshare").args(["--mount", "sh", "-c", script])).code == Some(0)
    })
}

impl Mounts {
    pub(crate) fn start() -> Self {
        let script =
            "set -e; for folder in /run /dev/shm /mnt; do mount -t tmpfs -o mode=0755 tmpfs $folder; done
             mkdir /run/lock; chmod 1777 /dev/shm; echo made; exec sleep infinity";
        let holder = Process::start("mounts", Command::new("unshare").args(["--mount", "sh", "-c", script]));
        holder.wait_for_line("made");
        Self { holder }
    }

    /// A command that runs inside.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.holder.id().to_string(), "--mount", "--"]).arg(program);
        command
    }

    /// Runs a shell script inside, to its end.
    pub(crate) fn sh(&self, script: &str) -> super::process::Ran {
        run(self.command("sh").args(["-c", script]))
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        let space = |pid: &OsStr| std::fs::read_link(Path::new("/proc").join(pid).join("ns/mnt")).ok();
        let Some(ours) = space(self.holder.id().to_string().as_ref()) else { return };
        // A server that went to the background is nobody's child any more.
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let pid = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
            if let Some(pid) = pid
                && space(&entry.file_name()).as_ref() == Some(&ours)
            {
                let _ = kill_process(pid, Signal::KILL);
            }
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
