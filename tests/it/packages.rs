//! The packages of `deploy/package`, installed into a Debian of the test's own and taken away again. systemd is in
//! charge of nothing there; the RPM is unpacked by the real rpm, and SELinux's programs are stand-ins.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::bed::machine::Machine;
use crate::bed::process::{Process, run, run_within};
use crate::bed::{Bed, PATIENCE, needs, set_mode};

const NAME: &str = "www.example.test";

/// What `deploy/package` built, by its ending.
pub(crate) fn package(ending: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/package");
    let mut all = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    all.find(|path| path.extension().is_some_and(|e| e == ending)).unwrap()
}

/// A Debian with little more than what it cannot do without.
fn debian(bed: &Bed) -> PathBuf {
    let root = bed.path("debian");
    let mut command = Command::new("debootstrap");
    command.args(["--variant=minbase", "--include=adduser,systemd", "bookworm"]).arg(&root);
    run_within(Duration::from_secs(300), &mut command).expect_code(0);
    set_mode(bed.dir(), 0o755);
    root
}

/// Names below a root that have to do with us, but for those that every installation leaves.
fn traces(root: &Path) -> Vec<String> {
    let found =
        run(Command::new("find").arg(root).args(["-xdev", "-name", "*wicketgate*", "-printf", "%P\\n"]));
    found.expect_code(0).stdout.lines().map(str::to_owned).collect()
}

#[test]
fn they_install_run_and_leave() {
    needs!("root", "packages", "debootstrap", "rpm", "ip", "nsenter", "curl");
    let bed = Bed::new();
    let root = debian(&bed);
    let machine = Machine::start(&root, "");
    by_deb(&machine, &root);
    by_rpm(&machine, &root);
}

fn by_deb(machine: &Machine, root: &Path) {
    fs::copy(package("deb"), root.join("package.deb")).unwrap();
    machine.sh("dpkg -i /package.deb").expect_code(0);
    let facts = "stat -c '%U:%G %a %n' /var/lib/wicketgate /etc/wicketgate/wicketgate.toml
        getent passwd wicketgate | cut -d: -f6,7
        systemctl is-enabled wicketgate.service wicketgate-renew.timer
        wicketgate config check";
    let told = machine.sh(facts).text();
    for expected in [
        "wicketgate:wicketgate 2750 /var/lib/wicketgate",
        "root:wicketgate 640 /etc/wicketgate/wicketgate.toml",
        "/var/lib/wicketgate:/usr/sbin/nologin",
        "disabled\ndisabled\n",
        "the configuration is good",
    ] {
        assert!(told.contains(expected), "{expected}: {told}");
    }
    let pages = machine.sh("zcat /usr/share/man/man1/wicketgate-run.1.gz; bash -n /usr/share/bash-completion/completions/wicketgate");
    assert!(pages.expect_code(0).stdout.contains("wicketgate\\-run \\- "));

    // As the administrator goes on.
    let config = root.join("etc/wicketgate/wicketgate.toml");
    let text = fs::read_to_string(&config).unwrap();
    let mine = format!(
        "{}\n[[certificate]]\nhostnames = [\"{NAME}\"]\n",
        text.replace("[acme]", "[acme]\nissuer = \"embedded\"")
    );
    fs::write(&config, mine).unwrap();
    machine.sh("systemctl --quiet enable wicketgate.service wicketgate-renew.timer").expect_code(0);
    serves(machine, root);

    // The same once more: an upgrade.
    machine.sh("dpkg -i /package.deb").expect_code(0);
    assert!(fs::read_to_string(&config).unwrap().contains(NAME), "the configuration was overwritten");
    assert!(machine.sh("systemctl is-enabled wicketgate.service").stdout.contains("enabled"));

    machine.sh("dpkg --remove wicketgate").expect_code(0);
    let wanted = run(Command::new("find").arg(root.join("etc/systemd")).args(["-name", "wicketgate*"]));
    assert_eq!(wanted.expect_code(0).stdout, "", "units are still enabled");
    assert!(root.join("var/lib/wicketgate/live").exists() && config.exists(), "it took what it should keep");
    machine.sh("dpkg --purge wicketgate").expect_code(0);
    let left = traces(root);
    assert!(left.is_empty(), "{left:?}");
}

/// As its service starts it: unprivileged, but for the ports.
fn serves(machine: &Machine, root: &Path) {
    machine.sh("install -d -o wicketgate -m 0755 /run/wicketgate").expect_code(0);
    let mut command = machine.command_as("wicketgate:wicketgate", "/usr/bin/wicketgate");
    let mut daemon = Process::start("wicketgate run", command.arg("run"));
    daemon.wait_for_line("obtained");
    let key = root.join(format!("var/lib/wicketgate/live/{NAME}/privkey.pem"));
    let stored = fs::metadata(&key).unwrap();
    assert_eq!((stored.uid(), stored.mode() & 0o7777), (owner(machine), 0o640));
    let told = machine.sh("wicketgate status").expect_code(0).stdout;
    assert!(told.contains(NAME), "{told}");
    let moved =
        machine.outside("curl").args(["-sSi", "-H", &format!("Host: {NAME}"), "http://127.0.0.1/x"]).output();
    let moved = String::from_utf8(moved.unwrap().stdout).unwrap();
    assert!(moved.contains(&format!("location: https://{NAME}/x")), "{moved}");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait(PATIENCE).code(), Some(0));
    machine.sh("rmdir /run/wicketgate").expect_code(0);
}

fn owner(machine: &Machine) -> u32 {
    machine.sh("id -u wicketgate").expect_code(0).stdout.trim().parse().unwrap()
}

fn by_rpm(machine: &Machine, root: &Path) {
    fs::copy(package("rpm"), root.join("package.rpm")).unwrap();
    machine.sh("deluser --quiet wicketgate").expect_code(0);
    for (program, answer) in [("semanage", "true"), ("restorecon", "true"), ("selinuxenabled", "true")] {
        let path = root.join("usr/sbin").join(program);
        fs::write(&path, format!("#!/bin/sh\necho {program} \"$@\" >>/asked\n{answer}\n")).unwrap();
        set_mode(&path, 0o755);
    }
    // `--nodeps`: this Debian has no RPM that could provide systemd and shadow-utils.
    let rpm = |arguments: &[&str]| {
        let mut command = machine.outside("rpm");
        run(command.arg("--root").arg(root).args(["--nodeps", "--noplugins"]).args(arguments)).expect_code(0)
    };
    let package = root.join("package.rpm");
    rpm(&["-i", package.to_str().unwrap()]);
    let facts = "stat -c '%U:%G %a %n' /var/lib/wicketgate /var/lib/wicketgate/* /etc/wicketgate/wicketgate.toml; cat /asked";
    let told = machine.sh(facts).expect_code(0).stdout;
    for expected in [
        "wicketgate:wicketgate 2750 /var/lib/wicketgate\n",
        "wicketgate:wicketgate 2750 /var/lib/wicketgate/lineages\n",
        "wicketgate:wicketgate 2750 /var/lib/wicketgate/live\n",
        "root:wicketgate 640 /etc/wicketgate/wicketgate.toml",
        "semanage fcontext --add --type cert_t /var/lib/wicketgate/lineages(/.*)?\n",
        "semanage fcontext --add --type cert_t /var/lib/wicketgate/live(/.*)?\n",
        "restorecon -R /var/lib/wicketgate\n",
    ] {
        assert!(told.contains(expected), "{expected}: {told}");
    }
    fs::write(
        root.join("etc/wicketgate/wicketgate.toml"),
        format!("[acme]\nissuer = \"embedded\"\n[[certificate]]\nhostnames = [\"{NAME}\"]\n"),
    )
    .unwrap();
    serves(machine, root);

    rpm(&["-e", "wicketgate"]);
    assert!(root.join("var/lib/wicketgate/live").join(NAME).exists(), "it took what it should keep");
    assert!(
        machine
            .sh("cat /asked")
            .stdout
            .contains("semanage fcontext --delete /var/lib/wicketgate/live(/.*)?\n")
    );
    let left: Vec<_> =
        traces(root).into_iter().filter(|name| !name.starts_with("var/lib/wicketgate")).collect();
    // What was changed is kept, under another name.
    assert_eq!(left, ["etc/wicketgate", "etc/wicketgate/wicketgate.toml.rpmsave"]);
}
