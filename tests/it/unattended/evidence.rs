//! What the CA reports is held against who came to the gate.

use wicketgate::rehearsal::{Faults, VantagePoints};

use super::NAME;
use super::bench::{Bench, failing, says};

#[test]
fn somebody_else_has_answered_the_ca() {
    let bench = Bench::new(&[NAME]);
    bench.ca.set(failing(NAME));
    let ran = bench.command(&["renew"]).expect_code(1);
    says(
        &ran,
        &[
            "the CA reports 403, unauthorized",
            "no request for it reached port 80 here, so something other than this gate answered the CA",
        ],
    );
    let error = bench.status()["last-error"].to_string();
    assert!(error.contains("no request for it reached port 80 here"), "{error}");
}

#[test]
fn some_networks_do_not_get_through() {
    let bench = Bench::new(&[NAME]);
    bench.ca.set(Faults { vantage_points: VantagePoints { count: 5, failing: 2 }, ..Faults::default() });
    let ran = bench.command(&["renew"]).expect_code(1);
    says(
        &ran,
        &["3 requests arrived here and got the right answer", "other networks may be blocked on the way"],
    );
}

#[test]
fn one_network_that_does_not_get_through_is_no_matter() {
    let bench = Bench::new(&[NAME]);
    bench.ca.set(Faults { vantage_points: VantagePoints { count: 5, failing: 1 }, ..Faults::default() });
    bench.command(&["renew"]).expect_code(0);
}
