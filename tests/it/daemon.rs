//! `run`: from disk, through reloads and stops, beside a second one, and asked over its socket.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::bed::client::{ask, connect_tls, get, is_open, read_answer, s_client, served_leaf};
use crate::bed::pebble::{Mood, Pebble};
use crate::bed::process::{Process, run};
use crate::bed::upstream;
use crate::bed::wicketgate::{Setup, command};
use crate::bed::{Bed, PATIENCE, needs, until};
use wicketgate::clock;

const NAME: &str = "www.example.test";

fn with_pebble(bed: &Bed) -> (Pebble, Setup) {
    Setup::with_pebble(bed, Mood::Kind, &[NAME])
}

#[test]
fn it_obtains_serves_and_starts_again_from_disk() {
    needs!("pebble", "openssl", "curl");
    let bed = Bed::new();
    let (mut pebble, setup) = with_pebble(&bed);
    let (mut daemon, leaf) = setup.start_until_served(&bed, NAME);
    assert_eq!(leaf, setup.stored(NAME)[0]);
    assert_eq!(pebble.orders(), 1);
    assert_eq!(daemon.stop().code(), Some(0));
    assert!(!is_open(setup.gate) && !is_open(setup.front));

    pebble.stop();
    let (_daemon, again) = setup.start_until_served(&bed, NAME);
    assert_eq!(again, leaf);
}

#[test]
fn redirects_are_permanent_once_the_certificate_is_served() {
    needs!("pebble", "openssl", "curl");
    let bed = Bed::new();
    let (mut pebble, setup) = with_pebble(&bed);
    pebble.stop();
    let daemon = setup.start(&bed);
    daemon.process.wait_for_line("FAILED");
    let before = get(setup.gate, NAME, "/a?b=c").unwrap();
    let location = format!("https://{NAME}:{}/a?b=c", setup.front);
    assert_eq!((before.status, before.header("location")), (307, Some(location.as_str())));
    // Before the first certificate there is none to show, not even a foreign one.
    assert_eq!(served_leaf(setup.front, NAME), None);

    pebble.restart();
    setup.command(&bed, &["renew", "--force"]).expect_code(0);
    setup.wait_until_served(NAME);
    let after = get(setup.gate, NAME, "/a?b=c").unwrap();
    assert_eq!((after.status, after.header("location")), (308, Some(location.as_str())));
    assert_eq!(get(setup.gate, "elsewhere.example", "/").unwrap().status, 421);
    assert_eq!(get(setup.gate, NAME, "/.well-known/acme-challenge/unknown").unwrap().status, 404);
}

#[test]
fn an_unknown_name_gets_no_foreign_certificate() {
    needs!("pebble", "openssl", "curl");
    let bed = Bed::new();
    let (_pebble, setup) = with_pebble(&bed);
    let (_daemon, _) = setup.start_until_served(&bed, NAME);
    for name in ["elsewhere.example", ""] {
        let ran = s_client(setup.front, name, &[]);
        assert!(ran.text().contains("alert"), "{name:?}: {}", ran.text());
        assert!(!ran.text().contains("BEGIN CERTIFICATE"), "{name:?}: {}", ran.text());
    }
}

#[test]
fn renew_goes_through_the_daemon_and_the_front_swaps() {
    needs!("pebble", "openssl", "curl");
    let bed = Bed::new();
    let (pebble, setup) = with_pebble(&bed);
    let (_daemon, first) = setup.start_until_served(&bed, NAME);
    let root = pebble.signing_root(&bed);
    let mut kept = connect_tls(&root, NAME, setup.front).unwrap();
    assert_eq!(ask(&mut kept, NAME, "/").unwrap().status, 200);

    let told = setup.command(&bed, &["renew", "--force"]).expect_code(0);
    assert!(told.text().contains("obtained a certificate for www.example.test"), "{}", told.text());
    let second = served_leaf(setup.front, NAME).unwrap();
    assert_ne!(second.serial, first.serial);
    assert_eq!(second, setup.stored(NAME)[0]);
    // A connection made before the swap lives on.
    assert_eq!(ask(&mut kept, NAME, "/").unwrap().status, 200);

    let idle = setup.renew(&bed).expect_code(0);
    assert!(idle.text().contains("nothing to do"), "{}", idle.text());
    let unknown = setup.command(&bed, &["renew", "other.example.test"]).expect_code(2);
    assert!(unknown.text().contains("other.example.test"), "{}", unknown.text());
}

#[test]
fn a_failed_renewal_changes_nothing_that_is_served() {
    needs!("pebble", "openssl", "curl");
    let bed = Bed::new();
    let (mut pebble, setup) = with_pebble(&bed);
    let (_daemon, first) = setup.start_until_served(&bed, NAME);
    pebble.stop();
    let told = setup.command(&bed, &["renew", "--force"]).expect_code(1);
    assert!(told.text().contains("cannot reach localhost"), "{}", told.text());
    assert_eq!(served_leaf(setup.front, NAME).unwrap(), first);
    let status = setup.command(&bed, &["status"]).expect_code(0);
    assert!(status.text().contains("cannot reach localhost"), "{}", status.text());
}

#[test]
fn a_wrong_configuration_changes_nothing_and_says_why() {
    needs!("pebble", "openssl", "curl");
    let bed = Bed::new();
    let (_pebble, setup) = with_pebble(&bed);
    let (daemon, leaf) = setup.start_until_served(&bed, NAME);
    let said = daemon.process.lines().len();
    bed.write("wicketgate.toml", setup.text() + "[gates]\n");
    daemon.process.signal(Signal::HUP);
    daemon.process.wait_for_line_after(said, "`gates`");
    assert_eq!(served_leaf(setup.front, NAME).unwrap(), leaf);
    assert_eq!(get(setup.gate, NAME, "/").unwrap().status, 308);

    let asked = run(command(&bed.path("wicketgate.toml")).arg("reload"));
    assert_eq!(asked.code, Some(78), "{}", asked.text());
    assert!(asked.text().contains("`gates`"), "{}", asked.text());

    // Its old configuration is whole, and a right one is taken again.
    setup.write(&bed);
    let said = daemon.process.lines().len();
    setup.command(&bed, &["reload"]).expect_code(0);
    assert!(daemon.process.lines().len() > said, "a reload is worth a line");
}

#[test]
fn a_reload_takes_new_certificates_without_dropping_a_connection() {
    needs!("pebble", "openssl", "curl");
    let bed = Bed::new();
    let (pebble, setup) = with_pebble(&bed);
    let (daemon, _) = setup.start_until_served(&bed, NAME);
    let mut kept = connect_tls(&pebble.signing_root(&bed), NAME, setup.front).unwrap();
    assert_eq!(ask(&mut kept, NAME, "/").unwrap().status, 200);
    let setup = setup.certificate(&["new.example.test"]);
    setup.write(&bed);
    daemon.process.signal(Signal::HUP);
    setup.wait_until_served("new.example.test");
    assert_eq!(get(setup.gate, "new.example.test", "/").unwrap().status, 308);
    assert_eq!(ask(&mut kept, NAME, "/").unwrap().status, 200);
}

#[test]
fn a_request_under_way_is_answered_before_the_end() {
    needs!("pebble", "openssl", "curl");
    let bed = Bed::new();
    let (pebble, setup) = with_pebble(&bed);
    let (arrived, go_on) = (bed.path("arrived"), bed.path("go-on"));
    let upstream = {
        let (arrived, go_on) = (arrived.clone(), go_on.clone());
        upstream::start(&bed, move |_, mut stream| {
            fs::write(&arrived, "").unwrap();
            until("the test lets the upstream answer", || go_on.exists().then_some(()));
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate").unwrap();
        })
    };
    let setup = setup.upstream(&format!("http://127.0.0.1:{upstream}"));
    let (mut daemon, _) = setup.start_until_served(&bed, NAME);
    let mut tls = connect_tls(&pebble.signing_root(&bed), NAME, setup.front).unwrap();
    tls.write_all(format!("GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n").as_bytes()).unwrap();
    until("the request is with the upstream", || arrived.exists().then_some(()));
    daemon.process.signal(Signal::TERM);
    until("no new connection is taken", || (!is_open(setup.front)).then_some(()));
    assert!(daemon.process.ended().is_none(), "it ended with a request under way");
    fs::write(&go_on, "").unwrap();
    let answer = read_answer(&mut tls).unwrap();
    assert_eq!((answer.status, answer.body), (200, b"late".to_vec()));
    assert_eq!(daemon.process.wait(PATIENCE).code(), Some(0));
}

#[test]
fn the_grace_time_ends() {
    needs!("pebble", "openssl", "curl");
    let bed = Bed::new();
    let (pebble, setup) = with_pebble(&bed);
    let arrived = bed.path("arrived");
    let upstream = {
        let arrived = arrived.clone();
        upstream::start(&bed, move |_, stream| {
            fs::write(&arrived, "").unwrap();
            upstream::wait_for_end(stream);
        })
    };
    let setup = setup.upstream(&format!("http://127.0.0.1:{upstream}"));
    let config = bed.write("wicketgate.toml", setup.text().replace("grace = \"5s\"", "grace = \"1s\""));
    let mut daemon = crate::bed::wicketgate::Daemon::start(&config);
    setup.wait_until_served(NAME);
    let mut tls = connect_tls(&pebble.signing_root(&bed), NAME, setup.front).unwrap();
    tls.write_all(format!("GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n").as_bytes()).unwrap();
    until("the request is with the upstream", || arrived.exists().then_some(()));
    let began = clock::monotonic();
    daemon.stop();
    assert!(began.elapsed() < Duration::from_secs(4), "it took {:?}", began.elapsed());
}

#[test]
fn the_second_one_names_the_first() {
    needs!("pebble", "openssl", "curl");
    let bed = Bed::new();
    let (_pebble, setup) = with_pebble(&bed);
    let (daemon, leaf) = setup.start_until_served(&bed, NAME);
    let mut other = Setup::embedded(&bed).certificate(&[NAME]);
    other.state = setup.state.clone();
    other.socket = bed.path("other.sock");
    let config = bed.write("other.toml", other.text());
    let second = run(command(&config).arg("run")).expect_code(75);
    let pid = format!("pid {}", daemon.process.id());
    assert!(second.text().contains(&pid), "{pid} is not in: {}", second.text());
    assert_eq!(served_leaf(setup.front, NAME).unwrap(), leaf);
}

#[test]
fn a_taken_address_is_named_before_anything_else_happens() {
    let bed = Bed::new();
    let setup = Setup::embedded(&bed).certificate(&[NAME]);
    let _taken = TcpListener::bind(("127.0.0.1", setup.front)).unwrap();
    let ran = setup.command(&bed, &["run"]).expect_code(1);
    assert!(ran.text().contains(&format!("127.0.0.1:{}", setup.front)), "{}", ran.text());
}

#[test]
fn systemd_is_told_of_every_change() {
    needs!("pebble", "openssl", "curl");
    let bed = Bed::new();
    let (_pebble, setup) = with_pebble(&bed);
    let path = bed.path("notify.sock");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let wait_for = |word: &str| {
        let mut buffer = [0; 4096];
        loop {
            let length = socket.recv(&mut buffer).unwrap_or_else(|error| panic!("no {word}: {error}"));
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if text.lines().any(|line| line == word) {
                return text;
            }
        }
    };
    let config = setup.write(&bed);
    let mut process =
        Process::start("wicketgate run", command(&config).arg("run").env("NOTIFY_SOCKET", &path));
    wait_for("READY=1");
    assert!(is_open(setup.gate) && is_open(setup.front), "READY came before the listeners");
    process.signal(Signal::HUP);
    let reloading = wait_for("RELOADING=1");
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    wait_for("READY=1");
    process.signal(Signal::TERM);
    wait_for("STOPPING=1");
    assert_eq!(process.wait(PATIENCE).code(), Some(0));
}

#[test]
fn the_status_is_the_same_with_and_without_a_daemon() {
    needs!("pebble", "openssl", "curl");
    let bed = Bed::new();
    let (_pebble, setup) = with_pebble(&bed);
    let (mut daemon, leaf) = setup.start_until_served(&bed, NAME);
    let json = |bed: &Bed| -> serde_json::Value {
        let ran = setup.command(bed, &["status", "--json"]).expect_code(0);
        serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {}", ran.stdout))
    };
    let with = json(&bed);
    let certificate = &with["certificates"][0];
    assert_eq!(certificate["name"], NAME);
    let serial = certificate["serial"].as_str().unwrap().replace(':', "");
    assert_eq!(serial, leaf.serial.replace(':', ""));
    assert_eq!((certificate["version"].as_u64(), certificate["failures"].as_u64()), (Some(1), Some(0)));
    let plain = setup.command(&bed, &["status"]).expect_code(0);
    assert!(plain.stdout.contains(NAME), "{}", plain.stdout);
    daemon.stop();
    assert_eq!(json(&bed)["certificates"], with["certificates"]);
}

#[test]
fn the_socket_is_for_its_user_alone() {
    needs!("pebble", "openssl", "curl");
    let bed = Bed::new();
    let (_pebble, setup) = with_pebble(&bed);
    let (mut daemon, _) = setup.start_until_served(&bed, NAME);
    let meta = fs::metadata(&setup.socket).unwrap();
    assert!(meta.file_type().is_socket());
    assert_eq!(meta.mode() & 0o777, 0o600);
    daemon.stop();
    assert!(!setup.socket.exists(), "the socket stays behind");
}

#[test]
fn another_user_is_refused_at_the_socket() {
    needs!("root", "pebble", "openssl", "curl", "setpriv");
    let bed = Bed::new();
    let (_pebble, setup) = with_pebble(&bed);
    let (_daemon, leaf) = setup.start_until_served(&bed, NAME);
    // Even where the file's mode was loosened by mistake.
    crate::bed::set_mode(&setup.socket, 0o666);
    let mut foreign = Command::new("setpriv");
    crate::bed::wicketgate::clean(&mut foreign);
    let ran = run(foreign
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .arg(crate::bed::wicketgate::PROGRAM)
        .arg("--config")
        .arg(setup.write(&bed))
        .args(["renew", "--force"]));
    assert_ne!(ran.code, Some(0), "{}", ran.text());
    assert_eq!(served_leaf(setup.front, NAME).unwrap(), leaf);
}
