//! `gate.open = "during-orders"`: nothing listens on port 80 but while somebody is expected.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use serde_json::Value;

use crate::bed::activator::activate;
use crate::bed::client::{get, is_open};
use crate::bed::pebble::{Mood, Pebble};
use crate::bed::process::run;
use crate::bed::wicketgate::{Daemon, Setup, command};
use crate::bed::{Bed, PATIENCE, needs, until};

const NAME: &str = "www.example.test";
const TOKEN: &str = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA";
const ANSWER: &str =
    "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA.nP1qzpXGymHBrUEepNY9HCsQk7K8KhOypzEt62jcerQ";

fn shut(bed: &Bed) -> (Pebble, Setup) {
    let (pebble, setup) = Setup::with_pebble(bed, Mood::Kind, &[NAME]);
    (pebble, setup.without_front())
}

/// Starts `run` with a gate that is shut between orders.
fn start(bed: &Bed, setup: &Setup) -> Daemon {
    let daemon = Daemon::start(&write(bed, setup));
    daemon.process.wait_for_line("ready: the gate on ");
    daemon
}

fn write(bed: &Bed, setup: &Setup) -> std::path::PathBuf {
    let text = setup.text().replace("[gate]\n", "[gate]\nopen = \"during-orders\"\n");
    bed.write("wicketgate.toml", text)
}

fn wicketgate(bed: &Bed, arguments: &[&str]) -> crate::bed::process::Ran {
    run(command(&bed.path("wicketgate.toml")).args(arguments))
}

fn gate(bed: &Bed) -> Value {
    let shown = wicketgate(bed, &["status", "--json"]).expect_code(0);
    serde_json::from_str::<Value>(&shown.stdout).unwrap()["gate"].clone()
}

#[test]
fn the_port_is_open_for_an_order_and_shut_afterwards() {
    needs!("pebble", "curl");
    let bed = Bed::new();
    let (_pebble, setup) = shut(&bed);
    let daemon = start(&bed, &setup);
    assert!(daemon.process.wait_for_line("ready: ").contains(" while an order is pending; "));
    daemon.process.wait_for_line("obtained a certificate");
    until("the port is shut", || (!is_open(setup.gate)).then_some(()));
    assert_eq!(gate(&bed)["listening"], false);
    assert!(wicketgate(&bed, &["status"]).stdout.contains("is open during orders only: shut now"));
    let before = daemon.process.lines().len();
    wicketgate(&bed, &["renew", "--force"]).expect_code(0);
    daemon.process.wait_for_line_after(before, "obtained a certificate");
    // For those who come late.
    assert!(is_open(setup.gate), "it does not linger");
    assert_eq!(gate(&bed)["listening"], true);
    until("the port is shut again", || (!is_open(setup.gate)).then_some(()));
}

#[test]
fn another_clients_token_opens_it_and_a_connection_at_the_edge_is_finished() {
    needs!("pebble", "curl");
    let bed = Bed::new();
    let (_pebble, setup) = shut(&bed);
    let daemon = start(&bed, &setup);
    daemon.process.wait_for_line("obtained a certificate");
    until("the port is shut", || (!is_open(setup.gate)).then_some(()));

    let path = format!("/.well-known/acme-challenge/{TOKEN}");
    let other = "other.example.test";
    wicketgate(&bed, &["challenge", "put", other, TOKEN, ANSWER, "--ttl", "2s"]).expect_code(0);
    assert_eq!(get(setup.gate, other, &path).unwrap().body, ANSWER.as_bytes());
    assert_eq!(get(setup.gate, "foreign.example.test", &path).unwrap().status, 404);
    let mut at_the_edge = TcpStream::connect(("127.0.0.1", setup.gate)).unwrap();
    at_the_edge.write_all(format!("GET {path} HTTP/1.1\r\n").as_bytes()).unwrap();
    until("the port is shut", || TcpStream::connect(("127.0.0.1", setup.gate)).is_err().then_some(()));
    at_the_edge.write_all(format!("Host: {other}\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
    at_the_edge.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = String::new();
    at_the_edge.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer:?}");

    // Any token: some begin as options do.
    for token in ["-Zu2aXZ2aXZ2aXZ2aXZ2aQ", "-hu2aXZ2aXZ2aXZ2aXZ2aQ", "--ttl", "-", "_"] {
        let answer = format!("{token}.{}", &ANSWER[TOKEN.len() + 1..]);
        wicketgate(&bed, &["challenge", "put", "--", other, token, &answer]).expect_code(0);
        assert_eq!(wicketgate(&bed, &["challenge", "list"]).stdout, format!("{token}\n"));
        wicketgate(&bed, &["challenge", "remove", "--", token]).expect_code(0);
    }
    let (token, answer) = ("-Zu2aXZ", format!("-Zu2aXZ.{}", &ANSWER[TOKEN.len() + 1..]));
    wicketgate(&bed, &["challenge", "put", other, token, &answer, "--ttl", "1m"]).expect_code(0);
    wicketgate(&bed, &["challenge", "remove", token]).expect_code(0);

    wicketgate(&bed, &["challenge", "put", other, TOKEN, ANSWER]).expect_code(0);
    assert_eq!(wicketgate(&bed, &["challenge", "list"]).stdout, format!("{TOKEN}\n"));
    assert_eq!(get(setup.gate, other, &path).unwrap().status, 200);
    wicketgate(&bed, &["challenge", "remove", TOKEN]).expect_code(0);
    until("the port is shut again", || (!is_open(setup.gate)).then_some(()));
    for (ttl, code) in [("0s", 1), ("25h", 1), ("soon", 2)] {
        wicketgate(&bed, &["challenge", "put", other, TOKEN, ANSWER, "--ttl", ttl]).expect_code(code);
    }
    assert!(!is_open(setup.gate));
}

#[test]
fn a_port_that_somebody_took_meanwhile_is_told_before_the_ca_is_asked() {
    needs!("pebble", "curl");
    let bed = Bed::new();
    let (_pebble, setup) = shut(&bed);
    let daemon = start(&bed, &setup);
    daemon.process.wait_for_line("obtained a certificate");
    until("the port is shut", || (!is_open(setup.gate)).then_some(()));
    let taken = TcpListener::bind(("127.0.0.1", setup.gate)).unwrap();
    // It is written before the CA is asked for anything.
    let asked = || std::fs::read(setup.state.join("ledger.json")).unwrap();
    let before = asked();
    let told = wicketgate(&bed, &["renew", "--force"]).expect_code(1);
    assert!(told.text().contains("another program holds the port ("), "{}", told.text());
    assert!(told.text().contains(&format!(", pid {}", std::process::id())), "{}", told.text());
    assert!(asked() == before, "the CA was asked in vain");
    let report = wicketgate(&bed, &["check", "--json"]).expect_code(1);
    assert!(report.stdout.contains("another program holds the port ("), "{}", report.stdout);
    drop(taken);
    wicketgate(&bed, &["renew", "--force"]).expect_code(0);
    wicketgate(&bed, &["check"]).expect_code(0);
}

#[test]
fn a_stop_does_not_linger() {
    needs!("pebble", "curl");
    let bed = Bed::new();
    let (_pebble, setup) = shut(&bed);
    let mut daemon = start(&bed, &setup);
    daemon.process.wait_for_line("obtained a certificate");
    wicketgate(&bed, &["challenge", "put", NAME, TOKEN, ANSWER]).expect_code(0);
    assert!(is_open(setup.gate));
    assert!(daemon.stop().success());
    assert!(!is_open(setup.gate));
}

#[test]
fn an_inherited_socket_is_refused_with_the_reason() {
    let bed = Bed::new();
    let setup = Setup::embedded(&bed).certificate(&[NAME]).without_front();
    let config = write(&bed, &setup);
    let process = activate(&bed, &[&setup.gate.to_string()], &config);
    process.wait_for_line("whoever holds the socket decides when it listens");
}
