//! More than one CA: staging after a failure, others where the first is of no use, accounts elsewhere.

use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use wicketgate::rehearsal::{ExternalAccount, Faults, ProblemType, RefusalForm, RefusedIdentifiers};

use super::NAME;
use super::bench::{Bench, events, failing, identifier, says, told};
use crate::bed::Bed;
use crate::bed::fickle::FickleCa;
use crate::bed::nameserver::NameServer;
use crate::bed::wicketgate::Setup;
use crate::bed::zone::{self, Told};

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

/// What the first CA calls itself in CAA records, and the second.
const CALLED: [&str; 2] = ["one.example", "rehearsal.invalid"];

/// Two CAs, the second in reserve, and a name server that says who may issue for each name.
fn two_with_caa(names: &[(&str, Told)]) -> (Bench, FickleCa, NameServer) {
    let called = |settings: &mut wicketgate::rehearsal::Settings| {
        CALLED[0].clone_into(&mut settings.caa_identity);
    };
    let (mut bench, second) = two(called, |second| format!("fallback-issuers = [{second:?}]"));
    let address = (Ipv4Addr::LOCALHOST, bench.bed.port()).into();
    let here = Told::Address(Ipv4Addr::LOCALHOST.into());
    let told =
        |(name, told): &(&str, Told)| [here.clone(), told.clone()].map(|told| ((*name).to_owned(), told));
    let server = zone::serve(address, names.iter().flat_map(told).collect());
    bench.setup = bench.setup.acme(&format!("preflight = true\nresolvers = [\"{address}\"]"));
    (bench, second, server)
}

fn issue(value: &str) -> Told {
    Told::Issue(value.to_owned())
}

/// What `check --json` says of CAA: for each issuer by its place the cause and the certainty.
#[track_caller]
fn of_caa(bench: &Bench, second: &FickleCa, code: i32) -> Vec<(usize, String, String)> {
    let ran = bench.command(&["check", "--json"]).expect_code(code);
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let issuers = [&bench.ca.directory, &second.directory].map(|directory| name_of(directory));
    assert_eq!(report["issuer"], issuers[0]);
    assert_eq!(report["issuers"], serde_json::json!(issuers));
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let findings = report["findings"].as_array().unwrap().iter().filter(|f| !f["issuer"].is_null());
    findings
        .map(|f| {
            let place = issuers.iter().position(|issuer| f["issuer"] == *issuer).unwrap();
            (place, text(&f["cause"]), text(&f["certainty"]))
        })
        .collect()
}

/// The CA refuses the name, whatever CAA says.
fn refusing() -> Faults {
    let refused = RefusedIdentifiers {
        identifiers: vec![identifier(NAME)],
        kind: ProblemType::RejectedIdentifier,
        form: RefusalForm::Subproblems,
    };
    Faults { refused: Some(refused), ..Faults::default() }
}

fn forbidden(place: usize) -> (usize, String, String) {
    (place, "caa-forbidden".to_owned(), "certain".to_owned())
}

#[test]
fn one_that_caa_forbids_is_not_asked_and_another_is() {
    let (bench, second, _server) = two_with_caa(&[(NAME, issue(CALLED[1]))]);
    assert_eq!(of_caa(&bench, &second, 0), [forbidden(0)]);
    let ran = bench.command(&["check"]).expect_code(0);
    let first = name_of(&bench.ca.directory);
    says(
        &ran,
        &[&format!("WOULD FAIL: at {first}: CAA of {NAME}"), "www.example.test. CAA 0 issue \"one.example\""],
    );

    let ran = bench.command(&["rehearse"]).expect_code(0);
    says(&ran, &[&format!("an order would not be placed at {first}, which would have to refuse")]);

    let ran = bench.command(&["renew", "--json"]).expect_code(0);
    let events = events(&ran);
    let warnings: Vec<_> = told(&events, "warning").iter().map(|text| text.as_str().unwrap()).collect();
    let passed_over = format!("{first} is not asked, as it would have to refuse: {NAME}: CAA of {NAME}");
    assert!(warnings.iter().any(|text| text.contains(&passed_over)), "{warnings:?}");
    assert_eq!((bench.ca.seen().accounts, bench.ca.seen().orders), (0, 0));
    let status = bench.status();
    assert_eq!((&status["issuer"], &status["failures"]), (&name_of(&second.directory).into(), &0.into()));
    says(&bench.command(&["renew"]).expect_code(0), &["nothing to do"]);
    // The next one is ordered at the same, as a renewal.
    bench.command(&["renew", "--force"]).expect_code(0);
    assert_eq!((bench.ca.seen().orders, second.seen().orders_with_replaces), (0, 1));
    // Whoever wants it gets the first.
    bench.command(&["renew", "--force", "--skip-preflight"]).expect_code(0);
    assert_eq!(bench.ca.seen().certificates, 1);

    // When the other one fails, both are told of.
    second.set(refusing());
    let ran = bench.command(&["renew", "--force"]).expect_code(1);
    let failed = format!("{}: cannot order a certificate", name_of(&second.directory));
    says(&ran, &[&format!("{first}: not asked, as it would have to refuse"), &failed]);
    assert_eq!(bench.ca.seen().orders, 1);
}

#[test]
fn one_in_reserve_that_caa_forbids_is_no_matter_of_the_first() {
    let (bench, second, _server) = two_with_caa(&[(NAME, issue(CALLED[0]))]);
    assert_eq!(of_caa(&bench, &second, 0), [forbidden(1)]);
    let ran = bench.command(&["renew"]).expect_code(0);
    assert!(!ran.text().contains("CAA"), "{}", ran.text());
    assert_eq!((bench.ca.seen().certificates, second.seen().orders), (1, 0));
    // When the first is of no use, the other one is not asked all the same.
    bench.ca.set(refusing());
    let ran = bench.command(&["renew", "--force"]).expect_code(1);
    says(&ran, &[&format!("{} is not asked, as it would have to refuse", name_of(&second.directory))]);
    assert_eq!(second.seen().orders, 0);
}

#[test]
fn where_caa_forbids_every_issuer_the_order_is_put_off() {
    let (bench, second, _server) = two_with_caa(&[(NAME, issue("other.example"))]);
    assert_eq!(of_caa(&bench, &second, 1), [forbidden(0), forbidden(1)]);
    let ran = bench.command(&["renew"]).expect_code(1);
    let [first, other] = [&bench.ca.directory, &second.directory].map(|directory| name_of(directory));
    says(&ran, &["PUT OFF", &format!("{first} may not"), &format!("{other} may not")]);
    assert_eq!((bench.ca.seen().orders, second.seen().orders), (0, 0));
    // The first is asked when somebody wants it.
    bench.command(&["renew", "--skip-preflight"]).expect_code(0);
    assert_eq!((bench.ca.seen().orders, second.seen().orders), (1, 0));
}

#[test]
fn a_name_that_caa_forbids_everywhere_is_left_out_and_the_others_go_where_they_may() {
    const DEAD: &str = "dead.example.test";
    let (mut bench, second, _server) =
        two_with_caa(&[(NAME, issue(CALLED[1])), (DEAD, issue("other.example"))]);
    bench.setup.certificates.clear();
    bench.add(&[NAME, DEAD], "partial = \"always\"");
    let ran = bench.command(&["renew"]).expect_code(1);
    says(&ran, &["OBTAINED WITHOUT dead.example.test", "is not asked, as it would have to refuse"]);
    assert_eq!((bench.ca.seen().orders, second.seen().certificates), (0, 1));
    // Where nothing is left out, nothing is ordered.
    bench.setup.certificates.clear();
    bench.add(&[NAME, DEAD], "partial = \"never\"\nkey-type = \"ecdsa-p384\"");
    says(&bench.command(&["renew", "--force"]).expect_code(1), &["PUT OFF"]);
    assert_eq!((bench.ca.seen().orders, second.seen().orders), (0, 1));
}

#[test]
fn caa_that_a_resolver_alone_has_heard_of_passes_nobody_over() {
    let (bench, second, _server) = two_with_caa(&[(NAME, Told::IssueHearsay(CALLED[1].to_owned()))]);
    let uncertain = (0, "caa-uncertain".to_owned(), "warning".to_owned());
    assert_eq!(of_caa(&bench, &second, 0), [uncertain]);
    let ran = bench.command(&["renew"]).expect_code(0);
    says(&ran, &["warning: the preflight: ", "the zone's own servers were not heard"]);
    assert_eq!((bench.ca.seen().certificates, second.seen().orders), (1, 0));
}
