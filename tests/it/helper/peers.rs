//! Who may ask, what is asked, and how the helper comes to its socket and goes.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::time::Duration;

use super::*;
use crate::bed::pebble::Mood;
use crate::bed::process::run;
use crate::bed::wicketgate::{Setup, command};
use crate::bed::{PATIENCE, needs};

/// Says one line to the helper and hears one.
fn exchange(socket: &Path, line: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(format!("{line}\n").as_bytes()).unwrap();
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).unwrap();
    answer.trim_end().to_owned()
}

fn table(reload: &Path) -> String {
    format!(
        "[deploy.x]\nreload = [{reload:?}]\nverify = []\n[deploy.y]\nreload = [{reload:?}]\nverify = []\n"
    )
}

#[test]
fn what_is_not_known_is_not_done() {
    needs!("root", "mounts");
    let bed = Bed::new();
    let ran = bed.path("ran");
    let hook = bed.script("hook", &format!("touch {}", ran.display()));
    let rig = Rig::start(&bed, &["x"], &table(&hook));
    let socket = &rig.config.helper.as_ref().unwrap().socket;
    let ask = |action: &str| {
        exchange(socket, &format!(r#"{{"digest":"{}","action":{action}}}"#, rig.config.digest))
    };
    for (action, answer) in [
        (r#"{"check":{"service":2}}"#, r#"{"failed":"the helper knows no such service"}"#),
        (
            r#"{"reload":{"service":0,"certificates":["../x"]}}"#,
            r#"{"failed":"the helper knows no certificate `../x` that is deployed to x"}"#,
        ),
        (
            r#"{"reload":{"service":1,"certificates":["www.example.test"]}}"#,
            r#"{"failed":"the helper knows no certificate `www.example.test` that is deployed to y"}"#,
        ),
        (
            r#"{"copy":{"service":1,"certificate":"www.example.test","version":1,"goes_on":false}}"#,
            r#"{"failed":"the helper knows no certificate `www.example.test` that is deployed to y"}"#,
        ),
        (
            r#"{"copy":{"service":0,"certificate":"www.example.test","version":1,"goes_on":false}}"#,
            r#""nothing""#,
        ),
        (r#"{"notify":{"document":{}}}"#, r#"{"failed":"the helper knows no command to notify with"}"#),
        (r#"{"check":{"service":0}}"#, r#""nothing""#),
        // It says nothing to what it cannot read.
        (r#"{"run":{"command":["id"]}}"#, ""),
        (r#"{"reload":{"service":0,"certificates":[],"command":["id"]}}"#, ""),
        ("7", ""),
    ] {
        assert_eq!(ask(action), answer, "{action}");
    }
    let stale = exchange(socket, r#"{"digest":"00","action":{"reload":{"service":0,"certificates":[]}}}"#);
    assert!(stale.contains("the configuration on disk is not the one in use"), "{stale}");
    assert!(!ran.exists());
    // It still serves whoever asks for what there is.
    rig.reload("x").unwrap();
    assert!(ran.exists());
}

#[test]
fn root_does_nothing_by_a_configuration_that_others_could_change() {
    needs!("root", "mounts");
    let bed = Bed::new();
    let ran = bed.path("ran");
    let hook = bed.script("hook", &format!("touch {}", ran.display()));
    let rig = Rig::start(&bed, &["x"], &table(&hook));
    let file = &rig.config.files[0];
    set_mode(file, 0o666);
    let told = rig.reload("x").unwrap_err();
    assert!(told.contains("root does nothing by a configuration that others could change"), "{told}");
    assert!(told.contains("chmod go-w") && !ran.exists(), "{told}");
    set_mode(file, 0o644);
    rig.reload("x").unwrap();
    assert!(ran.exists());
}

#[test]
fn a_changed_configuration_is_read_when_it_is_asked_for() {
    needs!("root", "mounts");
    let bed = Bed::new();
    let (first, second) = (bed.script("first", "exit 0"), bed.script("second", "echo the second; exit 1"));
    let mut rig = Rig::start(&bed, &["x"], &table(&first));
    rig.reload("x").unwrap();
    let file = bed.path("wicketgate.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace(first.to_str().unwrap(), second.to_str().unwrap())).unwrap();
    rig.reload("x").expect("what is in use and was read before goes on");
    let before = std::mem::replace(&mut rig.config, load(&file));
    let told = rig.reload("x").unwrap_err();
    assert!(told.ends_with("saying: the second"), "{told}");
    rig.config = before;
    assert!(rig.reload("x").unwrap_err().contains("is not the one in use"));
    std::fs::write(&file, "state-dir = 7\n").unwrap();
    let told = rig.reload("x").unwrap_err();
    assert!(told.contains("the helper cannot take the configuration: "), "{told}");
}

#[test]
fn strangers_are_sent_away() {
    needs!("root", "mounts", "setpriv", "python3");
    let bed = Bed::new();
    let rig = Rig::start(&bed, &["x"], &table(Path::new("/bin/true")));
    let socket = &rig.config.helper.as_ref().unwrap().socket;
    let mode = |path: &Path| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    };
    assert_eq!(mode(socket), 0o600);
    let script = "import socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.settimeout(20)
if sys.argv[2:]: s.sendall(sys.argv[2].encode())
print(s.recv(65536).decode())";
    let knock = |said: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--clear-groups", "/usr/bin/python3", "-c", script]);
        run(command.arg(socket).args(said))
    };
    assert!(knock(&[]).expect_code(1).stderr.contains("PermissionError"));
    set_mode(socket, 0o666);
    let told = knock(&[]).expect_code(0).stdout;
    assert!(told.contains("nobody may not ask the helper for anything"), "{told}");
    rig.process.wait_for_line("a connection is refused: nobody may not ask");
    // The state directory's owner may; what he says has to be a question all the same.
    std::os::unix::fs::chown(&rig.config.state_dir, Some(65534), None).unwrap();
    assert_eq!(knock(&["GET / HTTP/1.1\n"]).expect_code(0).stdout, "\n");
    rig.process.wait_for_line("a connection is closed: ");
}

#[test]
fn a_socket_comes_from_systemd_or_is_made_and_removed() {
    needs!("root", "mounts");
    let bed = Bed::new();
    let mut rig = Rig::start(&bed, &["x"], &table(Path::new("/bin/true")));
    let file = bed.path("wicketgate.toml");
    let socket = rig.config.helper.as_ref().unwrap().socket.clone();
    let command = || {
        let mut command = Command::new(PROGRAM);
        clean(&mut command);
        command.arg("--config").arg(&file).arg("helper");
        command
    };
    let told = run(&mut command()).expect_code(1).stderr;
    assert!(told.contains("another helper listens on "), "{told}");
    rig.process.signal(Signal::TERM);
    assert!(rig.process.wait(PATIENCE).success());
    assert!(!socket.exists());
    let told = rig.reload("x").unwrap_err();
    assert!(
        told.contains("the helper cannot be reached at ") && told.contains("wicketgate-helper.service"),
        "{told}"
    );

    // One that a crash has left is no hindrance.
    drop(UnixListener::bind(&socket).unwrap());
    let own = Process::start("wicketgate helper", &mut command());
    own.wait_for_line("listening on");
    rig.reload("x").unwrap();
    drop(own);

    let told = run(command().env("LISTEN_FDS", "1")).expect_code(1).stderr;
    assert!(told.contains("StandardInput=socket"), "{told}");
    std::fs::remove_file(&socket).unwrap();
    let passed = OwnedFd::from(UnixListener::bind(&socket).unwrap());
    let mut inherited = command().stdin(Stdio::from(passed)).stderr(Stdio::null()).spawn().unwrap();
    rig.reload("x").unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_child(&inherited), Signal::TERM).unwrap();
    assert!(inherited.wait().unwrap().success());
    assert!(socket.exists(), "it is systemd's to remove");
}

#[test]
fn a_stop_waits_for_what_is_under_way() {
    needs!("root", "mounts");
    let bed = Bed::new();
    let (begun, go) = (bed.path("begun"), bed.path("go"));
    let wait = format!("touch {}; while ! test -e {}; do sleep 0.01; done", begun.display(), go.display());
    let mut rig = Rig::start(&bed, &["x"], &table(&bed.script("hook", &wait)));
    std::thread::scope(|scope| {
        let config = rig.config.clone();
        let reload = scope.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let client = Helper::new(Vec::new());
            runtime.block_on(client.reload(&config, "x", &[NAME.to_owned()])).map_err(sentence)
        });
        until("the reload has begun", || begun.exists().then_some(()));
        rig.process.signal(Signal::TERM);
        rig.process.wait_for_line("stopping");
        std::fs::write(&go, "").unwrap();
        assert_eq!(reload.join().unwrap(), Ok(()));
    });
    assert!(rig.process.wait(Duration::from_secs(10)).success());
}

#[test]
fn a_daemon_without_root_has_its_servers_reloaded_by_root() {
    needs!("root", "pebble", "setpriv", "curl");
    let bed = Bed::new();
    let (_pebble, setup) = Setup::with_pebble(&bed, Mood::Kind, &[NAME]);
    let (seen, who) = (bed.path("seen"), bed.path("who"));
    // Somebody else may not be able to reach where it was built.
    std::fs::copy(PROGRAM, &who).unwrap();
    let hook = bed.script("hook", &format!("id -u >{0}.draft; mv {0}.draft {0}", seen.display()));
    let tables = format!(
        "[deploy.x]\nreload = [{hook:?}]\nverify = []\n[helper]\nsocket = {:?}",
        bed.path("helper.sock")
    );
    let setup = setup.without_front().with("deploy = [\"x\"]").tables(&tables);
    let file = setup.write(&bed);
    std::fs::create_dir(&setup.state).unwrap();
    set_mode(&setup.state, 0o700);
    std::os::unix::fs::chown(&setup.state, Some(65534), None).unwrap();
    let renew = || {
        let mut renew = Command::new("setpriv");
        clean(&mut renew);
        renew.args(["--reuid", "65534", "--clear-groups"]).arg(&who).arg("--config").arg(&file);
        run(renew.args(["renew", "--force"]))
    };
    let told = renew().expect_code(1).text();
    assert!(told.contains("the helper cannot be reached at "), "{told}");
    let helper = Process::start("wicketgate helper", command(&file).arg("helper"));
    helper.wait_for_line("listening on");
    renew().expect_code(0);
    assert_eq!(std::fs::read_to_string(seen).unwrap(), "0\n");
}
