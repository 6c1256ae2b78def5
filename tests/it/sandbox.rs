//! The sandbox: what is forbidden is tried from within, and everything else still works.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{chown, symlink};
use std::path::Path;
use std::process::Command;

use wicketgate::config::{Config, Flags};
use wicketgate::sandbox::plan::Plan;
use wicketgate::sandbox::{State, enter};

use crate::bed::client::{is_open, served_leaf};
use crate::bed::process::{Process, run};
use crate::bed::wicketgate::{PROGRAM, Setup, clean};
use crate::bed::{Bed, needs, set_mode, until};

const NAME: &str = "www.example.test";
/// A user of every Debian system, and his number.
const USER: (&str, u32) = ("daemon", 1);

/// Runs [`inside`] in a process of its own.
#[test]
fn what_is_forbidden_is_denied() {
    needs!("strace");
    let bed = Bed::new();
    let ran = run(Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "sandbox::inside", "--ignored", "--nocapture", "--test-threads", "1"])
        .env("WICKETGATE_SANDBOX_BED", bed.dir()));
    let told = ran.expect_code(0).text();
    assert!(told.contains("1 passed"), "{told}");
}

/// Tries every forbidden act from within, and every allowed one.
#[test]
#[ignore = "what_is_forbidden_is_denied runs it in a process of its own"]
fn inside() {
    let bed = std::env::var("WICKETGATE_SANDBOX_BED").unwrap();
    let path = |name: &str| Path::new(&bed).join(name);
    let (wanted, other) =
        (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let (wanted, other) = ((wanted.local_addr().unwrap(), wanted), (other.local_addr().unwrap(), other));
    let to_bind = {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap()
    };
    fs::create_dir_all(path("etc")).unwrap();
    fs::create_dir_all(path("state")).unwrap();
    fs::write(path("secret"), "secret").unwrap();
    let text = format!(
        "state-dir = {:?}\n[acme]\nissuer = \"https://127.0.0.1:{}/dir\"\nterms-agreed = true\n[gate]\nopen = \"during-orders\"\nlisten = [\"{to_bind}\"]\n\
         [admin]\nsocket = {:?}\n[[certificate]]\nhostnames = [{NAME:?}]\n",
        path("state"),
        wanted.0.port(),
        path("run/admin.sock"),
    );
    fs::write(path("etc/wicketgate.toml"), text).unwrap();
    let config = Config::load(Some(&path("etc/wicketgate.toml")), [], &Flags::default()).unwrap();
    let plan = Plan::of(&config, &BTreeSet::new(), 1);
    let parts = enter(&plan, None).unwrap();
    for part in parts.iter().filter(|part| part.part != "user") {
        assert_eq!(part.state, State::On, "{part:?}");
    }

    let is_denied = |what: &str, result: std::io::Result<()>| {
        let error = result.expect_err(what);
        assert!(
            matches!(error.kind(), ErrorKind::PermissionDenied) || error.raw_os_error() == Some(1),
            "{what}: {error}"
        );
        eprintln!("denied: {what}: {error}");
    };
    is_denied("reading /etc/passwd", File::open("/etc/passwd").map(drop));
    is_denied("reading /etc/shadow", File::open("/etc/shadow").map(drop));
    is_denied("reading another file beside the state directory", fs::read(path("secret")).map(drop));
    is_denied("listing the root folder", fs::read_dir("/").map(drop));
    is_denied("reading another process's environment", File::open("/proc/1/environ").map(drop));
    is_denied("writing in /tmp", fs::write(format!("/tmp/wicketgate-{}", std::process::id()), ""));
    is_denied("writing beside the state directory", fs::write(path("planted"), ""));
    is_denied("writing into the configuration", fs::write(path("etc/wicketgate.toml"), ""));
    is_denied("removing a file beside the state directory", fs::remove_file(path("secret")));
    is_denied("moving a file out of the state directory", {
        fs::write(path("state/a"), "").unwrap();
        fs::rename(path("state/a"), path("etc/a")).map_err(|e| match e.raw_os_error() {
            // EXDEV, by which Landlock says so.
            Some(18) => ErrorKind::PermissionDenied.into(),
            _ => e,
        })
    });
    is_denied("running a program", Command::new("/bin/true").status().map(drop));
    is_denied("running a program of one's own", {
        fs::copy(path("state/a"), path("state/program")).unwrap();
        Command::new(path("state/program")).status().map(drop)
    });
    is_denied("connecting to a port that is not named", TcpStream::connect(other.0).map(drop));
    is_denied("binding a port that is not named", TcpListener::bind("127.0.0.1:0").map(drop));
    is_denied(
        "sending a signal",
        rustix::process::kill_process(rustix::process::getppid().unwrap(), rustix::process::Signal::TERM)
            .map_err(Into::into),
    );
    is_denied(
        "becoming dumpable",
        rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable)
            .map_err(Into::into),
    );
    is_denied(
        "a raw packet socket",
        rustix::net::socket(rustix::net::AddressFamily::PACKET, rustix::net::SocketType::DGRAM, None)
            .map(drop)
            .map_err(Into::into),
    );

    symlink("/etc/passwd", path("state/link")).unwrap();
    is_denied("reading through a link", File::open(path("state/link")).map(drop));
    fs::write(path("state/b"), "b").unwrap();
    fs::rename(path("state/b"), path("state/c")).unwrap();
    assert_eq!(fs::read(path("state/c")).unwrap(), b"b");
    assert!(fs::read_to_string(path("etc/wicketgate.toml")).unwrap().contains(NAME));
    let listener = TcpListener::bind(to_bind).unwrap();
    assert_eq!(listener.local_addr().unwrap(), to_bind);
    TcpStream::connect(wanted.0).unwrap();
    std::thread::spawn(|| fs::read("/etc/passwd").unwrap_err()).join().unwrap();
}

/// Waits for what the daemon says of itself in /proc/PID/status.
fn field(pid: u32, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("there is no {name} in {status}")).trim().to_owned()
}

#[test]
fn root_is_given_up_and_everything_works() {
    needs!("root", "pebble", "openssl", "curl");
    let bed = Bed::new();
    let (_pebble, setup) = Setup::with_pebble(&bed, crate::bed::pebble::Mood::Kind, &[NAME]);
    fs::create_dir(&setup.state).unwrap();
    set_mode(&setup.state, 0o700);
    chown(&setup.state, Some(USER.1), Some(USER.1)).unwrap();
    let ran = bed.path("ran");
    let hook = bed.script("hook", &format!("id -u >>{}", ran.display()));
    let setup =
        setup.with("deploy = [\"a\"]").tables(&format!("[deploy.a]\nreload = [{hook:?}]\nverify = []"));
    let (daemon, first) = setup.start_until_served(&bed, NAME);
    let process = &daemon.process;
    let told = process.wait_for_line("sandbox: user on: ");
    assert!(told.contains(&format!("runs as {}, with no capability", USER.0)), "{told}");
    let pid = process.id();
    let ids = format!("{0}\t{0}\t{0}\t{0}", USER.1);
    assert_eq!((field(pid, "Uid"), field(pid, "Gid")), (ids.clone(), ids));
    assert_eq!(field(pid, "Groups"), USER.1.to_string());
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(pid, set), "0000000000000000", "{set}");
    }
    assert_eq!((field(pid, "NoNewPrivs"), field(pid, "Seccomp")), ("1".to_owned(), "2".to_owned()));
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().collect::<Vec<_>>(), ["0", "0", "bytes"]);

    // The helper has kept root's rights, whoever asks for it.
    until("the hook has run", || fs::read_to_string(&ran).ok().filter(|text| text == "0\n"));
    setup.command(&bed, &["renew", "--force"]).expect_code(0);
    assert_ne!(setup.wait_until_served(NAME), first);
    assert_eq!(fs::read_to_string(&ran).unwrap(), "0\n0\n");
    setup.command(&bed, &["reload"]).expect_code(0);
    let told = setup.command(&bed, &["status", "--json"]).expect_code(0).stdout;
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["sandbox"][0]["part"], "user");
    assert!(told["sandbox"].as_array().unwrap().iter().all(|part| part["state"] == "on"), "{told}");
    // What is stored is his, and nobody else's.
    for file in crate::bed::wicketgate::walk(&setup.state).iter().filter(|file| !file.ends_with("a")) {
        let owner = std::os::unix::fs::MetadataExt::uid(&fs::symlink_metadata(file).unwrap());
        assert_eq!(owner, USER.1, "{}", file.display());
    }
    // Another process of the same user does not get at it.
    let traced = run(Command::new("setpriv")
        .args(["--reuid", USER.0, "--regid", USER.0, "--clear-groups"])
        .args(["strace", "-p", &pid.to_string()]));
    assert!(traced.code != Some(0) && traced.text().contains("Operation not permitted"), "{}", traced.text());
    assert!(served_leaf(setup.front, NAME).is_some());
}

#[test]
fn a_port_below_1024_can_be_had_again() {
    needs!("root", "nft", "ip", "nsenter");
    let bed = Bed::new();
    let hosts = crate::bed::hosts::Hosts::start();
    let state = bed.path("state");
    fs::create_dir(&state).unwrap();
    set_mode(&state, 0o700);
    chown(&state, Some(USER.1), Some(USER.1)).unwrap();
    let config = bed.write(
        "wicketgate.toml",
        format!(
            "state-dir = {state:?}\nuser = {:?}\nsandbox = \"required\"\n[acme]\nissuer = \"embedded\"\nterms-agreed = true\n[gate]\nopen = \"during-orders\"\n\
             listen = [\"127.0.0.1:80\"]\n[admin]\nsocket = {:?}\n[[certificate]]\nhostnames = [{NAME:?}]\n",
            USER.0,
            bed.path("admin.sock")
        ),
    );
    let daemon = Process::start("wicketgate run", &mut hosts.wicketgate(&config, &["run"]));
    daemon.wait_for_line("obtained a certificate");
    assert!(daemon.lines().iter().any(|line| line.contains("with CAP_NET_BIND_SERVICE alone")));
    assert_eq!(field(daemon.id(), "CapEff"), "0000000000000400");
    run(&mut hosts.wicketgate(&config, &["renew", "--force"])).expect_code(0);

    // Who has taken it meanwhile is named, although that cannot be seen from within.
    until("the port is shut", || (!hosts.sh("ss -Hltn").stdout.contains(":80 ")).then_some(()));
    let taker = Process::start(
        "another server",
        hosts.command("python3").args(["-m", "http.server", "--bind", "127.0.0.1", "80"]),
    );
    until("it listens", || hosts.sh("ss -Hltn").stdout.contains(":80 ").then_some(()));
    let told = run(&mut hosts.wicketgate(&config, &["renew", "--force"])).expect_code(1).text();
    assert!(told.contains(&format!("another program holds the port (python3, pid {}", taker.id())), "{told}");
}

#[test]
fn what_is_not_possible_is_refused() {
    let bed = Bed::new();
    let setup = Setup::embedded(&bed).certificate(&[NAME]).without_front();
    let refused = |top: &str, says: &str| {
        let mut setup = Setup::embedded(&bed).certificate(&[NAME]).without_front();
        setup.top = format!("{top}\n");
        let told = setup.command(&bed, &["run"]).text();
        assert!(told.contains(says), "{told}");
    };
    if rustix::process::geteuid().is_root() {
        refused(
            "sandbox = \"required\"",
            "and not all of it is possible here: user is partly on (runs as root",
        );
        refused(
            "user = \"no-such-user\"",
            "there is none of that name: create it, as with `useradd --system",
        );
        fs::create_dir_all(bed.path("state")).unwrap();
        set_mode(&bed.path("state"), 0o700);
        refused(
            &format!("user = {:?}", USER.0),
            &format!("belongs to uid 0, and `user` is {0}: run `chown -R {0}: ", USER.0),
        );
    }
    // A reload cannot widen it.
    let mut setup = setup;
    let daemon = {
        let daemon = setup.start(&bed);
        daemon.process.wait_for_line("ready: ");
        daemon
    };
    setup.more = "[notify]\nwebhook = \"https://hook.example.test:8443/x\"\n".to_owned();
    let told = setup.command(&bed, &["reload"]).expect_code(78).text();
    assert!(
        told.contains(
            "the sandbox only narrows, and connecting to port 8443 needs a restart; nothing has changed"
        ),
        "{told}"
    );
    drop(daemon);
    assert!(!is_open(setup.gate));
}

/// One renewal, by root, of what belongs to another: root's rights are gone before anything comes from the network.
#[test]
fn a_renewal_without_a_daemon_is_shut_in_too() {
    needs!("root", "strace");
    let bed = Bed::new();
    set_mode(bed.dir(), 0o755);
    let setup = Setup::embedded(&bed).certificate(&[NAME]);
    let config = setup.write(&bed);
    fs::create_dir(&setup.state).unwrap();
    chown(&setup.state, Some(USER.1), Some(USER.1)).unwrap();
    set_mode(&setup.state, 0o700);
    let log = bed.path("calls");
    let mut command = Command::new("strace");
    clean(&mut command);
    command.args(["-f", "-e", "trace=setresuid,landlock_restrict_self,seccomp,bind", "-o"]).arg(&log);
    command.arg(PROGRAM).arg("--config").arg(&config).arg("renew");
    run(&mut command).expect_code(0);
    let calls = fs::read_to_string(&log).unwrap();
    let at = |call: &str| {
        calls.lines().position(|line| line.contains(call)).unwrap_or_else(|| panic!("{call}: {calls}"))
    };
    let gate = at(&format!("port=htons({})", setup.gate));
    for call in [
        format!("setresuid({0}, {0}, {0})", USER.1),
        "landlock_restrict_self(".into(),
        "SECCOMP_SET_MODE_FILTER".into(),
    ] {
        assert!(at(&call) < gate, "{call} comes after the gate: {calls}");
    }
    assert_eq!(setup.stored(NAME)[0].names, [NAME]);
}

#[test]
fn a_user_that_nobody_can_become_is_told() {
    needs!("root", "setpriv");
    let bed = Bed::new();
    set_mode(bed.dir(), 0o777);
    let setup = Setup::embedded(&bed).certificate(&[NAME]);
    let text = setup.text();
    let config = bed.write("wicketgate.toml", format!("user = \"nobody\"\n{text}"));
    let mut command = Command::new("setpriv");
    clean(&mut command);
    command
        .args(["--reuid", "1", "--regid", "1", "--clear-groups", PROGRAM, "--config"])
        .arg(&config)
        .arg("run");
    let daemon = Process::start("wicketgate run", &mut command);
    daemon.wait_for_line("`user = \"nobody\"` needs a start by root");
}

/// The daemon's user makes it, and makes it anew when it was moved, in a folder in which he can do nothing else.
#[test]
fn the_access_log_is_written_from_within() {
    needs!("root", "openssl", "curl");
    let bed = Bed::new();
    set_mode(bed.dir(), 0o755);
    let setup = Setup::embedded(&bed).certificate(&[NAME]);
    let logs = bed.path("logs");
    for (folder, mode) in [(&setup.state, 0o700), (&logs, 0o750)] {
        fs::create_dir(folder).unwrap();
        set_mode(folder, mode);
        chown(folder, Some(USER.1), Some(USER.1)).unwrap();
    }
    let (file, moved) = (logs.join("access.log"), logs.join("access.log.1"));
    let mut setup = setup.tables(&format!("[front.access-log]\nfile = {file:?}\n"));
    setup.top = "sandbox = \"required\"\n".to_owned();
    let (daemon, _) = setup.start_until_served(&bed, NAME);
    let ask = |path: &str| {
        let url = format!("https://{NAME}:{}{path}", setup.front);
        let resolve = format!("{NAME}:{}:127.0.0.1", setup.front);
        run(Command::new("curl").args(["-sk", "--resolve", &resolve, &url])).expect_code(0);
    };
    let wait_for = |path: &str| {
        until("the line is there", || fs::read_to_string(&file).ok().filter(|text| text.contains(path)))
    };
    ask("/one");
    assert!(wait_for("\"GET /one HTTP/2.0\" 200 ").starts_with("127.0.0.1 - - ["));
    let meta = fs::metadata(&file).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&meta), USER.1);
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o7777 & !0o640, 0);
    fs::rename(&file, &moved).unwrap();
    setup.command(&bed, &["reload"]).expect_code(0);
    until("it is made anew", || file.exists().then_some(()));
    ask("/two");
    assert!(!wait_for("/two").contains("/one"));
    // Another place needs a new start.
    let text = setup.text().replace("access.log", "other.log");
    bed.write("wicketgate.toml", text);
    let told = run(crate::bed::wicketgate::command(&bed.path("wicketgate.toml")).arg("reload")).text();
    assert!(told.contains("a change of front.access-log needs a restart"), "{told}");
    drop(daemon);

    // A folder that is not his.
    chown(&logs, Some(0), Some(0)).unwrap();
    let mut daemon = setup.start(&bed);
    daemon.process.wait_for_line("the access log ");
    assert_ne!(daemon.process.wait(crate::bed::PATIENCE).code(), Some(0));
    let told = daemon.process.lines().join("\n");
    assert!(told.contains("cannot be opened: Permission denied"), "{told}");
    assert!(told.contains(&format!("`install -d -m 0750 -o {} {}`", USER.1, logs.display())), "{told}");
}
