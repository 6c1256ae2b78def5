//! tls-alpn-01: a CA that asks the front, where port 80 is out of its reach.

use std::process::Command;

use crate::bed::client::{get, served_leaf};
use crate::bed::pebble::{Mood, Pebble};
use crate::bed::process::run;
use crate::bed::wicketgate::Setup;
use crate::bed::{Bed, needs, until};

const NAMES: [&str; 2] = ["one.example.test", "two.example.test"];

#[test]
fn a_certificate_is_obtained_and_renewed_by_the_front_alone() {
    needs!("pebble", "curl", "openssl");
    let bed = Bed::new();
    // The CA looks for port 80 where nobody is.
    let pebble = Pebble::start(&bed, Mood::Kind, bed.port());
    let mut setup = Setup::new(&bed, &pebble.directory(), pebble.api_root())
        .certificate(&NAMES)
        .with("challenge = \"tls-alpn-01\"")
        .upstream("demo");
    setup.front = pebble.tls_port;
    let (daemon, first) = setup.start_until_served(&bed, NAMES[0]);
    assert_eq!(first.names, NAMES);
    assert!(daemon.process.lines().iter().any(|line| line.contains("challenge answered in a handshake")));
    setup.command(&bed, &["renew", "--force"]).expect_code(0);
    let second = until("the new one is served", || {
        served_leaf(setup.front, NAMES[1]).filter(|leaf| leaf.serial != first.serial)
    });
    assert_eq!(second.names, NAMES);
    // Nothing is answered when nothing is pending, and everybody else gets the certificate as ever.
    let asked = run(Command::new("openssl")
        .args(["s_client", "-alpn", "acme-tls/1", "-servername", NAMES[0]])
        .args(["-connect", &format!("127.0.0.1:{}", setup.front)]));
    assert!(asked.text().contains("no application protocol"), "{}", asked.text());
    assert_eq!(get(setup.gate, NAMES[0], "/").unwrap().status, 308);
    let told = setup.command(&bed, &["rehearse"]).expect_code(1).text();
    assert!(told.contains("rehearse --staging"), "{told}");
}

/// A CA that looks for both ports where nobody is, and a certificate that goes by the front.
fn out_of_reach(bed: &Bed) -> (Pebble, Setup) {
    let pebble = Pebble::start(bed, Mood::Kind, bed.port());
    let setup = Setup::new(bed, &pebble.directory(), pebble.api_root())
        .certificate(&NAMES[..1])
        .with("challenge = \"tls-alpn-01\"")
        .upstream("demo");
    (pebble, setup)
}

/// Where the CA comes to another server, or to none, it is said.
#[test]
fn a_front_that_is_not_reached_is_told() {
    needs!("pebble", "curl");
    let bed = Bed::new();
    let (_pebble, setup) = out_of_reach(&bed);
    let daemon = setup.start(&bed);
    let told = daemon.process.wait_for_line("cannot prove control over the names");
    assert!(told.contains("port 443"), "{told}");
    let told = setup.command(&bed, &["check"]).expect_code(0).stdout;
    assert!(told.contains("one.example.test goes by tls-alpn-01"), "{told}");
}

#[test]
fn it_takes_a_daemon() {
    needs!("pebble", "curl");
    let bed = Bed::new();
    let (_pebble, setup) = out_of_reach(&bed);
    let alone = setup.renew(&bed).expect_code(1).text();
    assert!(alone.contains("which only a running daemon has"), "{alone}");
}
