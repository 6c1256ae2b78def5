//! One name of several fails: what the others get, and how it comes back.

use std::time::Duration;

use serde_json::json;
use wicketgate::rehearsal::{Faults, ProblemType, RefusalForm, RefusedIdentifiers};

use super::NAME;
use super::bench::{Bench, events, failing, identifier, says, told};
use crate::bed::needs;
use crate::bed::process::{Ran, run};
use crate::bed::wicketgate::PROGRAM;

const DEAD: &str = "dead.example.test";
const NAMES: [&str; 3] = [NAME, DEAD, "also.example.test"];

fn bench(partial: &str) -> Bench {
    let mut bench = Bench::without_certificates(&NAMES);
    bench.add(&NAMES, &format!("partial = {partial:?}"));
    bench
}

fn stored(bench: &Bench) -> Vec<String> {
    bench.setup.stored(NAME)[0].names.clone()
}

#[test]
fn a_dead_name_is_left_out_and_comes_back() {
    needs!("faketime");
    let bench = bench("always");
    bench.ca.set(failing(DEAD));
    let ran = bench.command(&["renew", "--json"]).expect_code(1);
    let dropped = events(&ran);
    let dropped = told(&dropped, "name-dropped");
    assert_eq!(dropped.len(), 1, "{}", ran.stdout);
    assert_eq!(dropped[0]["identifiers"], json!([DEAD]));
    assert!(dropped[0]["reason"].as_str().unwrap().contains("403"), "{}", dropped[0]);
    assert_eq!(stored(&bench), ["also.example.test", NAME]);
    assert_eq!((bench.failed(DEAD), bench.ca.seen().certificates), (1, 1));

    let shown = bench.command(&["status"]).expect_code(0);
    says(&shown, &["MISSING", "dead.example.test, tried again at", "403"]);
    // Too early to try again, and not forgotten.
    let ran = bench.command(&["renew"]).expect_code(1);
    says(&ran, &["LACKS dead.example.test"]);
    assert_eq!(bench.failed(DEAD), 1);
    // It fails on, alone, and what there is stays.
    let ran = bench.later("+2m", &["renew"]).expect_code(1);
    says(&ran, &["FAILED to take back dead.example.test", "nothing changes for its other names"]);
    assert_eq!((bench.failed(DEAD), bench.ca.seen().certificates), (2, 1));

    bench.ca.set(Faults::default());
    let ran = bench.later("+15m", &["renew", "--json"]).expect_code(0);
    let back = events(&ran);
    let back = told(&back, "name-back");
    assert_eq!(back.len(), 1, "{}", ran.stdout);
    assert_eq!(back[0]["identifiers"], json!([DEAD]));
    assert_eq!(stored(&bench).len(), 3);
    bench.command(&["renew"]).expect_code(0);
    assert_eq!(bench.status()["failing"], json!([]));
}

#[test]
fn by_hand_a_name_that_works_again_is_taken_back_at_once() {
    let bench = bench("always");
    bench.ca.set(failing(DEAD));
    bench.command(&["renew"]).expect_code(1);
    bench.ca.set(Faults::default());
    let ran = bench.command(&["renew", "--force"]).expect_code(0);
    says(&ran, &["dead.example.test is back in the certificate"]);
    assert_eq!(stored(&bench).len(), 3);
}

#[test]
fn nothing_is_left_out_where_that_is_not_wanted() {
    let bench = bench("never");
    bench.ca.set(failing(DEAD));
    for arguments in [&["renew"][..], &["renew", "--force"], &["renew", "--force"]] {
        bench.command(arguments).expect_code(1);
    }
    assert!(!bench.setup.live(NAME).exists());
    assert_eq!(bench.ca.seen().certificates, 0);
}

#[test]
fn in_an_emergency_what_keeps_failing_is_left_out() {
    needs!("faketime");
    let bench = bench("emergency");
    let ran = emergency(&bench);
    says(&ran, &["OBTAINED WITHOUT dead.example.test", "CAA"]);
    assert_eq!(stored(&bench), ["also.example.test", NAME]);
}

#[test]
fn not_in_an_emergency_either_where_that_is_not_wanted() {
    needs!("faketime");
    let bench = bench("never");
    let ran = emergency(&bench);
    says(&ran, &["CAA"]);
    assert_eq!((stored(&bench).len(), bench.ca.seen().certificates), (3, 1));
}

/// One name is refused from the moment on that the certificate is there; the renewal in its last minutes.
fn emergency(bench: &Bench) -> Ran {
    let hour = Duration::from_secs(3600);
    bench.ca.visit(move |ca| ca.set_leaf_lifetime(Some(hour)).unwrap());
    bench.command(&["renew"]).expect_code(0);
    assert_eq!(stored(bench).len(), 3);
    // Names that were proven before are not validated again, so the CA refuses this one for itself.
    bench.ca.set(Faults {
        refused: Some(RefusedIdentifiers {
            identifiers: vec![identifier(DEAD)],
            kind: ProblemType::Caa,
            form: RefusalForm::Subproblems,
        }),
        ..Faults::default()
    });
    // Due, and far from an emergency.
    bench.later("+40m", &["renew"]).expect_code(1);
    bench.later("+40m", &["renew", "--force"]).expect_code(1);
    assert_eq!((stored(bench).len(), bench.ca.seen().certificates), (3, 1));
    bench.later("+56m", &["renew"]).expect_code(1)
}

#[test]
fn a_name_whose_failures_are_used_up_holds_up_nobody() {
    let bench = bench("always");
    bench.ca.set(failing(DEAD));
    let mut certificates = 0;
    for _ in 0..8 {
        let ran = bench.command(&["renew", "--force"]).expect_code(1);
        says(&ran, &["dead.example.test"]);
        certificates += 1;
        assert_eq!(bench.ca.seen().certificates, certificates, "{}", ran.text());
    }
    assert_eq!(bench.failed(DEAD), 5);
    assert_eq!(stored(&bench), ["also.example.test", NAME]);
}

#[test]
fn a_name_that_is_refused_in_words_alone_is_left_out() {
    let bench = bench("always");
    let refused = RefusedIdentifiers {
        identifiers: vec![identifier(DEAD)],
        kind: ProblemType::RejectedIdentifier,
        form: RefusalForm::Detail,
    };
    bench.ca.set(Faults { refused: Some(refused), ..Faults::default() });
    let ran = bench.command(&["renew"]).expect_code(1);
    says(&ran, &["OBTAINED WITHOUT dead.example.test"]);
    assert_eq!(stored(&bench), ["also.example.test", NAME]);
}

#[test]
fn what_waits_for_a_year_is_said_and_does_not_spin() {
    needs!("faketime");
    let mut bench = bench("never");
    bench.setup = bench.setup.acme("limits = { failed-authorizations = \"2 in 365d\" }");
    bench.ca.set(failing(DEAD));
    bench.command(&["renew"]).expect_code(1);
    for _ in 0..2 {
        bench.later("+3m", &["renew"]).expect_code(75);
    }
    let shown = bench.later("+3m", &["status"]).expect_code(0);
    says(&shown, &["the CA's limits allow nothing before"]);
    let mut daemon = std::process::Command::new("timeout");
    crate::bed::wicketgate::clean(&mut daemon);
    let daemon = daemon.args(["3", "faketime", "-f", "+3m", PROGRAM, "--config"]);
    let ran = run(daemon.arg(bench.setup.write(&bench.bed)).arg("run"));
    says(&ran, &["ready: ", "not asked of the CA before"]);
    assert!(ran.text().lines().count() < 30, "{}", ran.text());
    assert_eq!(bench.failed(DEAD), 1);
}
