//! What would fail is found before the CA is asked: by the preflight, unless somebody wants it to be asked
//! all the same, and where the certificate is to go.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::time::Duration;

use serde_json::json;
use wicketgate::rehearsal::Faults;

use super::NAME;
use super::bench::{Bench, says};
use crate::bed::client::is_open;
use crate::bed::nameserver::NameServer;
use crate::bed::process::Process;
use crate::bed::wicketgate::command;
use crate::bed::zone::{self, Told};
use crate::bed::{Bed, PATIENCE, needs, set_mode, until};

const DEAD: &str = "dead.example.test";

/// Somebody else's server on port 80 of an address of its own on this machine.
fn stranger(bed: &Bed) -> IpAddr {
    let [high, low] = bed.port().to_be_bytes();
    let address = Ipv4Addr::new(127, 80, high, low);
    let listener = TcpListener::bind((address, 80)).expect("root may listen on port 80");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // Who asks may be gone by now.
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(
                b"HTTP/1.1 404 Not Found\r\nServer: nginx\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            );
        }
    });
    address.into()
}

/// With a name server that knows these names.
fn bench(
    names: &[&str],
    lines: &str,
    zone: impl FnOnce(&Bed) -> Vec<(&'static str, Told)>,
) -> (Bench, NameServer) {
    let mut bench = Bench::without_certificates(names);
    bench.add(names, lines);
    let zone = zone(&bench.bed).into_iter().map(|(name, record)| (name.to_owned(), record)).collect();
    let address = (Ipv4Addr::LOCALHOST, bench.bed.port()).into();
    let server = zone::serve(address, zone);
    bench.setup = bench.setup.acme(&format!("preflight = true\nresolvers = [\"{address}\"]"));
    (bench, server)
}

fn of_a_name_that_is_gone() -> (Bench, NameServer) {
    bench(&[NAME], "", |_| vec![("other.example.test", Told::Exists)])
}

#[test]
fn what_would_fail_is_put_off_unless_it_is_asked_for() {
    let (bench, _server) = of_a_name_that_is_gone();
    let ran = bench.command(&["renew"]).expect_code(1);
    let diagnosis = "name servers say that www.example.test does not exist";
    says(&ran, &["PUT OFF: the CA was not asked", diagnosis, "`renew --skip-preflight` asks at once"]);
    let status = bench.status();
    assert_eq!(status["reason"], "put off, the preflight found what would fail");
    assert_eq!(status["failures"], 0, "{status}");
    // Whoever asks by hand has it looked at again.
    let ran = bench.command(&["renew"]).expect_code(1);
    says(&ran, &["PUT OFF", diagnosis]);
    assert_eq!(bench.ca.seen().orders, 0);
    // This CA comes by another way than the preflight has seen.
    let ran = bench.command(&["renew", "--skip-preflight"]).expect_code(0);
    says(&ran, &["obtained a certificate"]);
    assert_eq!(bench.ca.seen().orders, 1);
}

#[test]
fn a_wrong_server_on_this_machine_is_told_and_no_obstacle() {
    needs!("root");
    // Behind a rule that redirects what comes from outside, the CA would not see it.
    let (bench, _server) = bench(&[NAME], "", |bed| vec![(NAME, Told::Address(stranger(bed)))]);
    let ran = bench.command(&["renew"]).expect_code(0);
    says(&ran, &["warning: the preflight: ", "answered 404 Not Found, and it is nginx"]);
}

#[test]
fn signatures_that_one_resolver_alone_rejects_put_nothing_off() {
    // Its clock may be wrong, its anchor old.
    let (bench, _server) = bench(&[NAME], "", |_| vec![(NAME, Told::Bogus(Ipv4Addr::LOCALHOST.into()))]);
    let ran = bench.command(&["renew"]).expect_code(0);
    says(&ran, &["warning: the preflight: ", "do not validate, one resolver says", "looks the same"]);
    assert_eq!(bench.ca.seen().orders, 1);
}

#[test]
fn a_daemon_puts_it_off_and_goes_on() {
    let (bench, _server) = of_a_name_that_is_gone();
    let mut daemon = bench.setup.start(&bench.bed);
    let status = until("it is put off", || {
        let status = bench.status();
        (status["reason"] == "put off, the preflight found what would fail").then_some(status)
    });
    assert_eq!(status["version"], json!(null));
    assert!(is_open(bench.setup.gate));
    assert_eq!(bench.ca.seen().orders, 0);
    assert!(daemon.stop().success());
}

#[test]
fn after_a_day_the_ca_is_asked_whatever_is_found() {
    needs!("faketime");
    let (bench, _server) = of_a_name_that_is_gone();
    bench.command(&["renew"]).expect_code(1);
    bench.later("+23h", &["renew"]).expect_code(1);
    assert_eq!(bench.ca.seen().orders, 0);
    let ran = bench.later("+25h", &["renew"]).expect_code(0);
    says(&ran, &["cannot be put off any longer"]);
    assert_eq!(bench.ca.seen().orders, 1);
}

#[test]
fn a_name_that_does_not_exist_keeps_no_renewal_waiting() {
    needs!("faketime");
    let names = [NAME, DEAD];
    // What the CA would see of the first is not known here; the second is known not to exist.
    let (bench, _server) = bench(&names, "partial = \"always\"", |_| vec![(NAME, Told::ServFail)]);
    let ran = bench.command(&["renew"]).expect_code(1);
    says(&ran, &["OBTAINED WITHOUT dead.example.test"]);
    let seen = bench.ca.seen();
    assert_eq!((seen.orders, seen.authorizations_failed.len()), (1, 0));
    // Another look at it finds the same, for which the CA need not be asked.
    let ran = bench.later("+2m", &["renew"]).expect_code(1);
    says(&ran, &["LACKS dead.example.test"]);
    assert_eq!(bench.ca.seen().orders, 1);
    // The others are due by now, and so is another look at the dead one.
    let mut bench = bench;
    bench.setup.certificates.clear();
    bench.add(&names, "partial = \"always\"\nkey-type = \"ecdsa-p384\"");
    let ran = bench.later("+20m", &["renew"]).expect_code(1);
    says(&ran, &["obtained a certificate for www.example.test", "LACKS dead.example.test"]);
    assert_eq!((bench.ca.seen().orders, bench.status()["failures"].clone()), (2, json!(0)));
}

#[test]
fn what_could_not_be_served_is_not_ordered() {
    let bench = Bench::new(&[NAME]);
    let live = bench.setup.live(NAME);
    fs::create_dir_all(&live).unwrap();
    set_mode(&bench.setup.state, 0o700);
    let ran = bench.command(&["renew"]).expect_code(1);
    says(&ran, &["live/www.example.test is a directory, where a link", "move it out of the way"]);
    fs::remove_dir(&live).unwrap();
    fs::write(&live, "").unwrap();
    says(&bench.command(&["renew", "--force"]).expect_code(1), &["is a file, where a link"]);
    says(&bench.command(&["rehearse"]).expect_code(1), &["is a file, where a link", "would FAIL"]);
    assert_eq!((bench.ca.seen().orders, is_open(bench.setup.gate)), (0, false));
    fs::remove_file(&live).unwrap();
    bench.command(&["renew", "--force"]).expect_code(0);
    assert_eq!(bench.ca.seen().orders, 1);
}

#[test]
fn what_was_stored_and_could_not_be_served_is_not_ordered_again() {
    let bench = Bench::new(&[NAME]);
    bench.ca.set(Faults { processing: Duration::from_secs(3), ..Faults::default() });
    let config = bench.setup.write(&bench.bed);
    let mut renew = Process::start("wicketgate renew", command(&config).arg("renew"));
    let live = bench.setup.live(NAME);
    until("it is ordered", || (bench.ca.seen().orders == 1).then_some(()));
    fs::create_dir_all(live.join("precious")).unwrap();
    assert_eq!(renew.wait(PATIENCE).code(), Some(1));
    let lines = renew.lines().join("\n");
    assert!(lines.contains("stored as version 1, but cannot be served yet"), "{lines}");
    says(&bench.command(&["renew", "--force"]).expect_code(1), &["cannot put in place"]);
    fs::remove_dir_all(&live).unwrap();
    let ran = bench.command(&["renew", "--force"]).expect_code(0);
    says(&ran, &["version 1, which was obtained before, can be served now", "obtained a certificate"]);
    let seen = bench.ca.seen();
    assert_eq!((seen.orders, seen.certificates), (1, 1));
    assert_eq!(bench.setup.stored(NAME)[0].names, [NAME]);
    bench.command(&["renew", "--force"]).expect_code(0);
    assert_eq!(bench.ca.seen().orders, 2);
}
