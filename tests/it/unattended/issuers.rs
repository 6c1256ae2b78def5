//! More than one CA: staging after a failure, others where the first is of no use, accounts elsewhere.

use std::fs;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use wicketgate::rehearsal::{ExternalAccount, Faults, ProblemType, RefusalForm, RefusedIdentifiers};

use super::NAME;
use super::bench::{Bench, failing, identifier, says};
use crate::bed::Bed;
use crate::bed::fickle::FickleCa;
use crate::bed::wicketgate::Setup;

/// Two CAs at one gate, and a certificate; `acme` are the lines about the second, by its directory.
fn two(
    first: impl FnOnce(&mut wicketgate::rehearsal::Settings),
    acme: impl Fn(&str) -> String,
) -> (Bench, FickleCa) {
    let bed = Bed::new();
    let gate = bed.port();
    let mut settings = FickleCa::settings(gate, &[NAME]);
    first(&mut settings);
    let ca = FickleCa::start_with(&bed, settings);
    let second = FickleCa::start(&bed, gate, &[NAME]);
    let roots = [&ca.root, &second.root].map(|path| fs::read_to_string(path).unwrap()).concat();
    let roots = bed.write("both-roots.pem", roots);
    let mut setup = Setup::new(&bed, &ca.directory, &roots).without_front();
    setup.gate = gate;
    let setup = setup.acme(&acme(&second.directory)).certificate(&[NAME]);
    (Bench { setup, ca, bed }, second)
}

fn name_of(directory: &str) -> String {
    directory.trim_start_matches("https://").replace([':', '/'], "_")
}

#[test]
fn after_a_failure_staging_is_asked_first() {
    let (bench, staging) = two(|_| {}, |second| format!("staging = {second:?}"));
    let orders = || (bench.ca.seen().orders, staging.seen().orders);
    bench.ca.set(failing(NAME));
    staging.set(failing(NAME));
    bench.command(&["renew"]).expect_code(1);
    assert_eq!(orders(), (1, 0));
    for tries in 1..=3 {
        let ran = bench.command(&["renew", "--force"]).expect_code(1);
        says(&ran, &["where a failure costs nothing", "where it was tried first"]);
        assert_eq!(orders(), (1, tries));
    }
    // Mended at staging alone: production is asked again, and fails again.
    staging.set(Faults::default());
    let ran = bench.command(&["renew", "--force"]).expect_code(1);
    says(&ran, &["it works at"]);
    assert_eq!(orders(), (2, 4));
    bench.ca.set(Faults::default());
    bench.command(&["renew", "--force"]).expect_code(0);
    assert_eq!(orders(), (3, 5));
    assert_eq!(bench.status()["issuer"], name_of(&bench.ca.directory));
    // What works goes straight to production.
    bench.command(&["renew", "--force"]).expect_code(0);
    assert_eq!(orders(), (4, 5));
}

#[test]
fn staging_that_is_away_is_no_obstacle() {
    let (bench, staging) = two(|_| {}, |second| format!("staging = {second:?}"));
    bench.ca.set(failing(NAME));
    bench.command(&["renew"]).expect_code(1);
    drop(staging);
    bench.ca.set(Faults::default());
    let ran = bench.command(&["renew", "--force"]).expect_code(0);
    says(&ran, &["is no help now, going on without"]);
}

#[track_caller]
fn obtained_from_the_second(bench: &Bench, second: &FickleCa) {
    let ran = bench.command(&["renew"]).expect_code(0);
    says(&ran, &["warning: ", &format!("now asking {}", name_of(&second.directory))]);
    let status = bench.status();
    assert_eq!(status["issuer"], name_of(&second.directory), "{status}");
    assert_eq!(status["failures"], 0, "{status}");
    let ran = bench.command(&["renew"]).expect_code(0);
    says(&ran, &["nothing to do"]);
    assert_eq!(second.seen().certificates, 1);
}

#[test]
fn a_ca_that_refuses_for_good_is_passed_over() {
    for kind in [ProblemType::RejectedIdentifier, ProblemType::Caa] {
        let (bench, second) = two(|_| {}, |second| format!("fallback-issuers = [{second:?}]"));
        let form = RefusalForm::Subproblems;
        let refused = Some(RefusedIdentifiers { identifiers: vec![identifier(NAME)], kind, form });
        bench.ca.set(Faults { refused, ..Faults::default() });
        obtained_from_the_second(&bench, &second);
        assert_eq!(bench.ca.seen().certificates, 0);
        // By hand the first is asked first again, and the second renews what is its own.
        bench.command(&["renew", "--force"]).expect_code(0);
        assert_eq!(second.seen().orders_with_replaces, 1);
        bench.ca.set(Faults::default());
        bench.command(&["renew", "--force"]).expect_code(0);
        assert_eq!(bench.status()["issuer"], name_of(&bench.ca.directory));
        assert_eq!(bench.ca.seen().orders_with_replaces, 0);
    }
}

#[test]
fn a_ca_that_is_away_is_passed_over() {
    let bed = Bed::new();
    let (gate, closed) = (bed.port(), bed.port());
    let ca = FickleCa::start(&bed, gate, &[NAME]);
    let away = format!("https://127.0.0.1:{closed}/directory");
    let mut setup = Setup::new(&bed, &away, &ca.root).without_front();
    setup.gate = gate;
    let setup = setup.acme(&format!("fallback-issuers = [{:?}]", ca.directory)).certificate(&[NAME]);
    let second = FickleCa::start(&bed, gate, &[NAME]);
    let bench = Bench { setup, ca: second, bed };
    obtained_from_the_second(&bench, &ca);
}

#[test]
fn one_that_only_wants_patience_is_waited_for_while_there_is_time() {
    let (bench, second) = two(|_| {}, |second| format!("fallback-issuers = [{second:?}]"));
    bench.command(&["renew"]).expect_code(0);
    let limited = Faults { retry_after_429: Some(Duration::from_secs(7200)), ..Faults::default() };
    bench.ca.set(limited);
    bench.command(&["renew", "--force"]).expect_code(75);
    assert_eq!(second.seen().orders, 0);
}

#[test]
fn accounts_are_bound_where_the_ca_requires_it() {
    const KEY: [u8; 32] = [7; 32];
    let bind = |settings: &mut wicketgate::rehearsal::Settings| {
        settings.external_accounts = vec![ExternalAccount::new("kid-1", KEY)];
    };
    let (mut bench, second) = two(bind, |second| format!("fallback-issuers = [{second:?}]"));
    // Without a binding, the one that requires it is of no use.
    obtained_from_the_second(&bench, &second);
    let key = bench.bed.write("eab.key", BASE64_URL_SAFE_NO_PAD.encode(KEY));
    crate::bed::set_mode(&key, 0o600);
    let directory = bench.ca.directory.clone();
    bench.setup = bench
        .setup
        .acme(&format!("eab = {{ kid = \"kid-1\", hmac-key-file = {key:?}, issuer = {directory:?} }}"));
    bench.command(&["renew", "--force"]).expect_code(0);
    assert_eq!(bench.status()["issuer"], name_of(&directory));
    assert_eq!(bench.ca.seen().accounts, 1);
}
