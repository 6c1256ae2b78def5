//! Two certificates in one lineage, RSA and ECDSA: obtained, stored, renewed and served together.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use wicketgate::rehearsal::{Faults, ProblemType, RateLimits, RenewalFaults, WindowFault};

use crate::bed::client::{is_open, s_client};
use crate::bed::fickle::FickleCa;
use crate::bed::nginx::Nginx;
use crate::bed::pebble::{Mood, Pebble};
use crate::bed::pki::{Seen, read_chain_file};
use crate::bed::process::{Process, run};
use crate::bed::wicketgate::Setup;
use crate::bed::{Bed, needs, until};

const NAME: &str = "www.example.test";
const PAIR: &str = "key-type = [\"ecdsa-p256\", \"rsa-2048\"]";

/// For Pebble, with a pair, without a front.
fn with_pebble(bed: &Bed) -> (Pebble, Setup) {
    let (pebble, setup) = Setup::with_pebble(bed, Mood::Kind, &[NAME, "example.test"]);
    (pebble, setup.with(PAIR).without_front())
}

/// For the embedded CA by itself, whose faults can be set.
fn with_fickle(bed: &Bed, key_type: &str) -> (FickleCa, Setup) {
    let gate = bed.port();
    let ca = FickleCa::start(bed, gate, &[NAME]);
    let mut setup = Setup::new(bed, &ca.directory, &ca.root).certificate(&[NAME]).with(key_type);
    setup.gate = gate;
    (ca, setup.without_front())
}

/// The leaf of a file of the live version.
#[track_caller]
fn leaf(setup: &Setup, file: &str) -> Seen {
    read_chain_file(&setup.live(NAME).join(file))[0].clone()
}

/// What `status --json` says of the certificate.
#[track_caller]
fn status(bed: &Bed, setup: &Setup) -> Value {
    let ran = setup.command(bed, &["status", "--json"]).expect_code(0);
    let mut report: Value = serde_json::from_str(&ran.stdout).unwrap();
    report["certificates"][0].take()
}

/// Every file is as the README says, by openssl's word too.
#[track_caller]
fn assert_stored(setup: &Setup, root: &Path) {
    let live = setup.live(NAME);
    let openssl = |arguments: &[&str], file: &str| {
        run(Command::new("openssl").args(arguments).arg("-in").arg(live.join(file))).expect_code(0).stdout
    };
    for (within, key) in [("ecdsa/", "ecdsa 256"), ("rsa/", "rsa 2048"), ("", "ecdsa 256")] {
        let file = |name: &str| format!("{within}{name}");
        let certificate = leaf(setup, &file("cert.pem"));
        assert_eq!(certificate.key, key, "{within}");
        assert_eq!(certificate.names, ["example.test", NAME]);
        for name in ["fullchain.pem", "combined.pem"] {
            assert_eq!(leaf(setup, &file(name)), certificate, "{within}{name}");
        }
        let public = openssl(&["x509", "-noout", "-pubkey"], &file("cert.pem"));
        for name in ["privkey.pem", "combined.pem"] {
            assert_eq!(openssl(&["pkey", "-pubout"], &file(name)), public, "{within}{name}");
        }
        run(Command::new("openssl")
            .args(["verify", "-purpose", "sslserver", "-CAfile"])
            .arg(root)
            .arg("-untrusted")
            .arg(live.join(file("chain.pem")))
            .arg(live.join(file("cert.pem"))))
        .expect_code(0);
    }
    for algorithm in ["ecdsa", "rsa"] {
        let read = |file: String| fs::read_to_string(live.join(file)).unwrap();
        assert_eq!(read(format!("combined.pem.{algorithm}")), read(format!("{algorithm}/combined.pem")));
    }
}

/// The serial that a client sees which verifies signatures of that kind alone.
#[track_caller]
fn served(port: u16, algorithm: &str) -> Option<String> {
    let schemes = if algorithm == "rsa" { "rsa_pss_rsae_sha256:RSA+SHA256" } else { "ECDSA+SHA256" };
    let shown = s_client(port, NAME, &["-sigalgs", schemes]).stdout;
    let (_, from) = shown.split_once("-----BEGIN CERTIFICATE-----")?;
    let pem = format!("-----BEGIN CERTIFICATE-----{from}");
    Some(
        crate::bed::pki::read_chain(pem.split_inclusive("-----END CERTIFICATE-----\n").next()?)[0]
            .serial
            .clone(),
    )
}

#[test]
fn pebble_signs_both_and_every_file_is_in_place() {
    needs!("pebble", "openssl", "curl");
    let bed = Bed::new();
    let (pebble, setup) = with_pebble(&bed);
    let ran = setup.renew(&bed).expect_code(0);
    assert!(ran.text().contains("obtained a pair of certificates"), "{}", ran.text());
    assert_stored(&setup, &pebble.signing_root(&bed));
    assert_eq!((pebble.accounts(), pebble.orders()), (1, 2));
    setup.renew(&bed).expect_code(0);
    assert_eq!(pebble.orders(), 2, "nothing is due");

    let said = status(&bed, &setup);
    let number = |serial: &Value| serial.as_str().unwrap().to_owned();
    let plain = |seen: Seen| seen.serial.replace(':', "");
    assert_eq!(said["algorithm"], "ecdsa");
    assert_eq!(number(&said["serial"]), plain(leaf(&setup, "cert.pem")));
    assert_eq!(said["also"].as_array().unwrap().len(), 1);
    assert_eq!(said["also"][0]["algorithm"], "rsa");
    assert_eq!(number(&said["also"][0]["serial"]), plain(leaf(&setup, "rsa/cert.pem")));
    assert_eq!(said["also"][0]["path"], format!("{}/rsa", setup.live(NAME).display()));
    let text = setup.command(&bed, &["status"]).expect_code(0).text();
    assert!(text.contains(&format!("{} (RSA), until", plain(leaf(&setup, "rsa/cert.pem")))), "{text}");
}

#[test]
fn pebble_in_its_trying_mood_signs_pairs_again_and_again() {
    needs!("pebble", "openssl", "curl");
    let bed = Bed::new();
    let (pebble, setup) = Setup::with_pebble(&bed, Mood::Trying, &[NAME, "example.test"]);
    let setup = setup.with(PAIR).without_front();
    let mut serials = BTreeSet::new();
    for _ in 0..3 {
        setup.command(&bed, &["renew", "--force"]).expect_code(0);
        assert_stored(&setup, &pebble.signing_root(&bed));
        serials.extend([leaf(&setup, "ecdsa/cert.pem").serial, leaf(&setup, "rsa/cert.pem").serial]);
    }
    assert_eq!(serials.len(), 6);
}

#[test]
fn the_front_shows_each_client_its_own_and_swaps_both() {
    needs!("openssl");
    let bed = Bed::new();
    let setup = Setup::embedded(&bed).certificate(&[NAME, "example.test"]).with(PAIR);
    let (_daemon, _) = setup.start_until_served(&bed, NAME);
    for _ in 0..2 {
        for algorithm in ["ecdsa", "rsa"] {
            let stored = leaf(&setup, &format!("{algorithm}/cert.pem")).serial;
            assert_eq!(served(setup.front, algorithm), Some(stored), "{algorithm}");
        }
        setup.command(&bed, &["renew", "--force"]).expect_code(0);
    }
    // One key type again: the other certificate is not served any more.
    let before = leaf(&setup, "cert.pem");
    let mut single = setup;
    single.certificates = single.certificates.replace(PAIR, "key-type = \"rsa-2048\"");
    single.write(&bed);
    single.command(&bed, &["reload"]).expect_code(0);
    until("the daemon has obtained the one that is wanted now", || {
        (leaf(&single, "cert.pem").key == "rsa 2048").then_some(())
    });
    assert_ne!(leaf(&single, "cert.pem"), before);
    assert!(!single.live(NAME).join("ecdsa").exists());
    until("the front shows no other", || (served(single.front, "ecdsa").is_none()).then_some(()));
}

#[test]
fn a_changed_wish_is_ordered_and_another_order_of_the_same_is_not() {
    let bed = Bed::new();
    let (ca, setup) = with_fickle(&bed, "key-type = \"ecdsa-p256\"");
    let with = |key_type: &str| {
        let mut other = with_ca(&bed, &ca, setup.gate);
        other.certificates = setup.certificates.replace("\"ecdsa-p256\"", key_type);
        other
    };
    setup.renew(&bed).expect_code(0);
    for (key_type, certificates) in [
        ("[\"ecdsa-p256\"]", 1),
        ("[\"ecdsa-p256\", \"rsa-2048\"]", 3),
        ("[\"rsa-2048\", \"ecdsa-p256\"]", 3),
        ("[\"rsa-2048\", \"ecdsa-p384\"]", 5),
        ("\"rsa-2048\"", 6),
    ] {
        let ran = with(key_type).renew(&bed).expect_code(0);
        assert_eq!(ca.seen().certificates, certificates, "{key_type}: {}", ran.text());
    }
    assert_eq!(leaf(&setup, "cert.pem").key, "rsa 2048");
    assert!(!setup.live(NAME).join("rsa").exists());
}

fn with_ca(bed: &Bed, ca: &FickleCa, gate: u16) -> Setup {
    let mut setup = Setup::new(bed, &ca.directory, &ca.root).without_front();
    setup.gate = gate;
    setup
}

#[test]
fn a_second_half_that_fails_costs_the_first_only_once() {
    let bed = Bed::new();
    let (ca, setup) = with_fickle(&bed, PAIR);
    let limits = Some(RateLimits::LETS_ENCRYPT);
    let refused = Faults { rsa_refused: Some(ProblemType::BadPublicKey), limits, ..Faults::default() };
    ca.set(refused.clone());
    let ran = setup.renew(&bed).expect_code(1);
    for words in [
        "for its rsa-2048 key: ",
        "was told to refuse RSA keys",
        "for its ecdsa-p256 key was obtained and is kept",
    ] {
        assert!(ran.text().contains(words), "{words}: {}", ran.text());
    }
    assert!(!setup.live(NAME).exists(), "half of a pair is not served");
    let half = setup.state.join("lineages").join(NAME).join("half");
    let kept = read_chain_file(&half.join("cert.pem"))[0].clone();
    // Each is a process of its own; five certificates would be all that the CA signs in a week.
    for _ in 0..6 {
        let ran = setup.command(&bed, &["renew", "--force"]).expect_code(1);
        assert!(
            ran.text().contains("for its ecdsa-p256 key is kept from the attempt before"),
            "{}",
            ran.text()
        );
    }
    let seen = ca.seen();
    assert_eq!((seen.certificates, seen.orders, seen.limits_met), (1, 8, 0), "{seen:?}");

    ca.set(Faults { rsa_refused: None, ..refused });
    setup.command(&bed, &["renew", "--force"]).expect_code(0);
    let seen = ca.seen();
    assert_eq!((seen.certificates, seen.limits_met), (2, 0), "{seen:?}");
    assert_eq!(leaf(&setup, "ecdsa/cert.pem"), kept);
    assert_eq!(leaf(&setup, "rsa/cert.pem").key, "rsa 2048");
    assert!(!half.exists());
    // The next renewal is of both.
    setup.command(&bed, &["renew", "--force"]).expect_code(0);
    assert_ne!(leaf(&setup, "ecdsa/cert.pem"), kept);
    assert_eq!(ca.seen().certificates, 4);
}

#[test]
fn what_is_kept_of_a_pair_is_the_whole_once_one_key_is_wanted() {
    let bed = Bed::new();
    let (ca, setup) = with_fickle(&bed, PAIR);
    ca.set(Faults { rsa_refused: Some(ProblemType::BadPublicKey), ..Faults::default() });
    setup.renew(&bed).expect_code(1);
    let mut setup = setup;
    setup.certificates = setup.certificates.replace(PAIR, "key-type = \"ecdsa-p256\"");
    setup.command(&bed, &["renew", "--force"]).expect_code(0);
    assert_eq!(ca.seen().certificates, 1);
    assert_eq!(leaf(&setup, "cert.pem").key, "ecdsa 256");
}

#[test]
fn both_are_renewed_when_the_ca_wants_it_and_each_names_what_it_replaces() {
    let bed = Bed::new();
    let (ca, setup) = with_fickle(&bed, PAIR);
    setup.renew(&bed).expect_code(0);
    let past = RenewalFaults { window: WindowFault::Past, ..RenewalFaults::default() };
    ca.set(Faults { renewal: past, ..Faults::default() });
    let mut daemon = setup.start(&bed);
    let said = until("both were renewed", || {
        let said = status(&bed, &setup);
        (said["version"] == 2).then_some(said)
    });
    assert_eq!(said["also"][0]["algorithm"], "rsa");
    until("both of the new ones were asked about", || (ca.seen().renewal_info_asks >= 4).then_some(()));
    daemon.stop();
    let seen = ca.seen();
    assert_eq!((seen.certificates, seen.orders_with_replaces), (4, 2), "{seen:?}");
    let state = fs::read_to_string(setup.state.join("lineages").join(NAME).join("state.json")).unwrap();
    let state: Value = serde_json::from_str(&state).unwrap();
    assert_eq!(state["renewal-information"].as_array().unwrap().len(), 2, "{state}");
    assert_eq!(state["key-type"], serde_json::json!(["ecdsa-p256", "rsa-2048"]));
}

#[test]
fn a_rehearsal_is_of_both_and_leaves_nothing() {
    let bed = Bed::new();
    let (ca, setup) = with_fickle(&bed, PAIR);
    let ran = setup.command(&bed, &["rehearse"]).expect_code(0);
    assert!(ran.text().contains("obtained it for its ecdsa-p256 key, of two"), "{}", ran.text());
    assert_eq!(ca.seen().certificates, 0);
    assert!(!setup.live(NAME).exists() && !setup.state.join("lineages").join(NAME).join("half").exists());
}

#[test]
fn nginx_serves_both() {
    needs!("pebble", "nginx", "openssl", "curl");
    let bed = Bed::new();
    let (_pebble, setup) = with_pebble(&bed);
    setup.renew(&bed).expect_code(0);
    let live = setup.live(NAME);
    let nginx = Nginx::pair(&bed, &live, bed.port());
    for algorithm in ["ecdsa", "rsa"] {
        let stored = leaf(&setup, &format!("{algorithm}/cert.pem")).serial;
        assert_eq!(served(nginx.port(), algorithm), Some(stored), "{algorithm}");
    }
}

#[test]
fn haproxy_serves_both_or_the_first() {
    needs!("pebble", "haproxy", "openssl", "curl");
    let bed = Bed::new();
    let (_pebble, setup) = with_pebble(&bed);
    setup.renew(&bed).expect_code(0);
    let live = setup.live(NAME).display().to_string();
    let (first, both) = (bed.port(), bed.port());
    let file = bed.write(
        "haproxy.cfg",
        format!(
            "global\n  ssl-default-bind-options ssl-min-ver TLSv1.2\n\
             defaults\n  mode http\n  timeout client 10s\n  timeout server 10s\n  timeout connect 10s\n\
             frontend first\n  bind 127.0.0.1:{first} ssl crt {live}/combined.pem\n\
             frontend both\n  bind 127.0.0.1:{both} ssl crt {live}/combined.pem.ecdsa crt {live}/combined.pem.rsa\n"
        ),
    );
    let program = ["/usr/sbin/haproxy", "/usr/local/sbin/haproxy"];
    let program = program.into_iter().find(|path| Path::new(path).exists()).unwrap_or("haproxy");
    let _haproxy = Process::start("haproxy", Command::new(program).args(["-db", "-f"]).arg(&file));
    until("haproxy listens", || (is_open(first) && is_open(both)).then_some(()));
    let stored = |algorithm: &str| leaf(&setup, &format!("{algorithm}/cert.pem")).serial;
    assert_eq!(served(first, "ecdsa"), Some(stored("ecdsa")));
    assert_eq!(served(first, "rsa"), None, "combined.pem is the first certificate alone");
    for algorithm in ["ecdsa", "rsa"] {
        assert_eq!(served(both, algorithm), Some(stored(algorithm)), "{algorithm}");
    }
}

#[test]
fn a_stop_between_the_two_loses_neither_the_first_nor_the_count() {
    let bed = Bed::new();
    let gate = bed.port();
    let ca = FickleCa::start(&bed, gate, &[NAME]);
    let mut setup = Setup::new(&bed, &ca.directory, &ca.root).certificate(&[NAME]).with(PAIR).without_front();
    setup.gate = gate;
    let state = setup.state.join("lineages").join(NAME);
    // Signing takes long enough for the test to see the first certificate come and stop there.
    ca.set(Faults { processing: Duration::from_secs(2), ..Faults::default() });
    let mut daemon = setup.start(&bed);
    until("the first of two is kept", || state.join("half/cert.pem").exists().then_some(()));
    daemon.stop();
    let kept = read_chain_file(&state.join("half/cert.pem"))[0].clone();
    let ledger = fs::read_to_string(setup.state.join("ledger.json")).unwrap();
    let ledger: Value = serde_json::from_str(&ledger).unwrap();
    assert_eq!(ledger["pending"].as_array().unwrap().len(), 0, "{ledger}");
    ca.set(Faults::default());
    setup.command(&bed, &["renew", "--force"]).expect_code(0);
    assert_eq!(leaf(&setup, "ecdsa/cert.pem"), kept);
}
