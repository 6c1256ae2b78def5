//! Issuance by Pebble, Let's Encrypt's test CA, in its moods.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use crate::bed::pebble::{Mood, Pebble};
use crate::bed::process::run;
use crate::bed::wicketgate::Setup;
use crate::bed::{Bed, needs};

/// What every issuance test wants: the names are covered, the chain leads to the CA's root, the key is
/// the leaf's, and the files have the modes and forms that servers rely on.
#[track_caller]
fn assert_stored(bed: &Bed, pebble: &Pebble, setup: &Setup, names: &[&str]) {
    let live = setup.live(names[0]);
    let chain = setup.stored(names[0]);
    let mut expected: Vec<&str> = names.to_vec();
    expected.sort_unstable();
    assert_eq!(chain[0].names, expected);
    assert!(chain.len() > 1, "no intermediate came with the leaf");
    for pair in chain.windows(2) {
        assert_eq!(pair[0].issuer, pair[1].subject, "the chain is out of order");
    }

    let verify = |purpose: &str| {
        run(Command::new("openssl")
            .args(["verify", "-purpose", purpose, "-CAfile"])
            .arg(pebble.signing_root(bed))
            .arg("-untrusted")
            .arg(live.join("chain.pem"))
            .arg(live.join("cert.pem")))
    };
    verify("sslserver").expect_code(0);
    let public = |arguments: &[&str], file: &str| {
        run(Command::new("openssl").args(arguments).arg("-in").arg(live.join(file))).expect_code(0).stdout
    };
    let of_leaf = public(&["x509", "-noout", "-pubkey"], "cert.pem");
    assert_eq!(of_leaf, public(&["pkey", "-pubout"], "privkey.pem"));

    let read = |file: &str| fs::read_to_string(live.join(file)).unwrap();
    assert_eq!(read("fullchain.pem"), read("cert.pem") + &read("chain.pem"));
    assert_eq!(crate::bed::pki::read_chain(&read("combined.pem")), chain);
    assert!(read("combined.pem").contains("PRIVATE KEY"));
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    for file in ["cert.pem", "chain.pem", "fullchain.pem", "privkey.pem", "combined.pem"] {
        assert_eq!(mode(&live.join(file)) & 0o077, 0, "{file} is open to others");
    }
    assert_eq!(mode(&setup.state), 0o700);
    assert!(fs::read_link(&live).unwrap().to_str().unwrap().starts_with("../lineages/"));
}

#[track_caller]
fn issues(mood: Mood, names: &[&str]) {
    let bed = Bed::new();
    let gate = bed.port();
    let pebble = Pebble::start(&bed, mood, gate);
    let mut setup = Setup::new(&bed, &pebble.directory(), pebble.api_root()).certificate(names);
    setup.gate = gate;
    setup.renew(&bed).expect_code(0);
    assert_stored(&bed, &pebble, &setup, names);
}

fn a_hundred() -> Vec<String> {
    (0..100).map(|n| format!("n{n}.example.test")).collect()
}

fn borrowed(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

#[test]
fn one_name_in_the_default_mood() {
    needs!("pebble", "openssl", "curl");
    issues(Mood::Default, &["www.example.test"]);
}

#[test]
fn a_hundred_names_in_the_default_mood() {
    needs!("pebble", "openssl", "curl");
    issues(Mood::Default, &borrowed(&a_hundred()));
}

#[test]
fn an_address_in_the_default_mood() {
    needs!("pebble", "openssl", "curl");
    issues(Mood::Default, &["127.0.0.1"]);
}

#[test]
fn one_name_in_the_trying_mood() {
    needs!("pebble", "openssl", "curl");
    issues(Mood::Trying, &["www.example.test"]);
}

#[test]
fn a_hundred_names_in_the_trying_mood() {
    needs!("pebble", "openssl", "curl");
    issues(Mood::Trying, &borrowed(&a_hundred()));
}

#[test]
fn an_address_in_the_trying_mood() {
    needs!("pebble", "openssl", "curl");
    issues(Mood::Trying, &["127.0.0.1"]);
}

#[test]
fn a_name_and_an_address_share_a_certificate() {
    needs!("pebble", "openssl", "curl");
    issues(Mood::Kind, &["www.example.test", "127.0.0.1", "example.test"]);
}

#[test]
fn every_second_nonce_is_bad() {
    needs!("pebble", "openssl", "curl");
    let names = a_hundred();
    issues(Mood::Forgetful, &borrowed(&names[..20]));
}

#[test]
fn the_trying_mood_renews_again_and_again() {
    needs!("pebble", "openssl", "curl");
    let bed = Bed::new();
    let (_pebble, setup) = Setup::with_pebble(&bed, Mood::Trying, &["a.example.test", "b.example.test"]);
    let mut serials = std::collections::BTreeSet::new();
    for _ in 0..5 {
        setup.command(&bed, &["renew", "--force"]).expect_code(0);
        serials.insert(setup.stored("a.example.test")[0].serial.clone());
    }
    assert_eq!(serials.len(), 5);
}

#[test]
fn the_account_is_made_once_and_kept() {
    needs!("pebble", "curl");
    let bed = Bed::new();
    let (pebble, setup) = Setup::with_pebble(&bed, Mood::Kind, &["www.example.test"]);
    setup.renew(&bed).expect_code(0);
    let account = setup.account();
    assert_eq!(fs::metadata(&account).unwrap().mode() & 0o777, 0o600);
    let kept = fs::read(&account).unwrap();
    setup.command(&bed, &["renew", "--force"]).expect_code(0);
    assert_eq!((pebble.accounts(), pebble.orders()), (1, 2));
    assert_eq!(fs::read(&account).unwrap(), kept);
}

#[test]
fn a_forgotten_account_is_replaced_and_it_is_said() {
    needs!("pebble", "curl");
    let bed = Bed::new();
    let (mut pebble, setup) = Setup::with_pebble(&bed, Mood::Kind, &["www.example.test"]);
    setup.renew(&bed).expect_code(0);
    let first = fs::read(setup.account()).unwrap();
    pebble.restart();
    let ran = setup.command(&bed, &["renew", "--force"]).expect_code(0);
    assert!(ran.text().contains("the CA does not know the account any more"), "{}", ran.text());
    assert_ne!(fs::read(setup.account()).unwrap(), first);
    assert_eq!(pebble.accounts(), 1);
}

#[test]
fn a_profile_that_the_ca_does_not_offer_is_left_out() {
    needs!("pebble", "curl");
    let bed = Bed::new();
    let gate = bed.port();
    let pebble = Pebble::start(&bed, Mood::Kind, gate);
    let mut setup = Setup::new(&bed, &pebble.directory(), pebble.api_root())
        .certificate(&["www.example.test"])
        .with("profile = \"shortlived\"");
    setup.gate = gate;
    let ran = setup.renew(&bed).expect_code(0);
    assert!(ran.text().contains("no profile `shortlived`"), "{}", ran.text());
    assert_stored(&bed, &pebble, &setup, &["www.example.test"]);
}

#[test]
fn keys_are_of_the_kind_that_was_asked_for() {
    needs!("pebble", "openssl", "curl");
    let bed = Bed::new();
    let gate = bed.port();
    let pebble = Pebble::start(&bed, Mood::Kind, gate);
    let kinds = [
        ("ecdsa-p256", "ecdsa 256"),
        ("ecdsa-p384", "ecdsa 384"),
        ("rsa-2048", "rsa 2048"),
        ("rsa-3072", "rsa 3072"),
    ];
    let mut setup = Setup::new(&bed, &pebble.directory(), pebble.api_root());
    setup.gate = gate;
    for (kind, _) in kinds {
        setup = setup.certificate(&[&format!("{kind}.example.test")]).with(&format!("key-type = \"{kind}\""));
    }
    setup.renew(&bed).expect_code(0);
    for (kind, seen) in kinds {
        let name = format!("{kind}.example.test");
        assert_eq!(setup.stored(&name)[0].key, seen);
        assert_stored(&bed, &pebble, &setup, &[&name]);
    }
}

#[test]
fn one_refused_name_does_not_stop_the_others() {
    needs!("pebble", "curl");
    let bed = Bed::new();
    let gate = bed.port();
    let pebble = Pebble::start(&bed, Mood::Kind, gate);
    let mut setup = Setup::new(&bed, &pebble.directory(), pebble.api_root())
        .certificate(&["blocked.test"])
        .certificate(&["www.example.test"]);
    setup.gate = gate;
    let ran = setup.renew(&bed).expect_code(1);
    assert!(
        ran.text().contains("the CA does not sign for that name: remove it from `hostnames`"),
        "{}",
        ran.text()
    );
    assert_stored(&bed, &pebble, &setup, &["www.example.test"]);
    assert!(!setup.live("blocked.test").exists());
}

#[test]
fn an_external_account_binding_opens_the_door() {
    needs!("pebble", "curl");
    let bed = Bed::new();
    let gate = bed.port();
    let pebble = Pebble::start_with_binding(&bed, gate);
    let key = bed.write("eab.key", Pebble::BINDING_KEY);
    let mut setup =
        Setup::new(&bed, &pebble.directory(), pebble.api_root()).certificate(&["www.example.test"]);
    setup.gate = gate;
    let ran = setup.renew(&bed).expect_code(1);
    assert!(ran.text().contains("`acme.eab`"), "{}", ran.text());
    let setup = setup.acme(&format!("eab = {{ kid = {:?}, hmac-key-file = {key:?} }}", Pebble::BINDING_ID));
    setup.command(&bed, &["renew", "--force"]).expect_code(0);
    assert_stored(&bed, &pebble, &setup, &["www.example.test"]);
}
