//! The memory of past attempts is lost: it is set aside and told, and nothing is ordered for an hour.

use std::fs;
use std::path::{Path, PathBuf};

use super::NAME;
use super::bench::{Bench, says};
use crate::bed::client::served_leaf;
use crate::bed::needs;

/// Leaves half of a file, as a full disk or a torn write does, and tells where it will be kept.
fn truncate(path: &Path) -> PathBuf {
    let text = fs::read(path).unwrap();
    fs::write(path, &text[..text.len() / 2]).unwrap();
    let mut aside = path.as_os_str().to_owned();
    aside.push(".damaged-1");
    aside.into()
}

fn ledger(bench: &Bench) -> PathBuf {
    bench.setup.state.join("ledger.json")
}

fn lineage_state(bench: &Bench) -> PathBuf {
    bench.setup.state.join("lineages").join(NAME).join("state.json")
}

#[test]
fn a_damaged_ledger_means_an_hour_without_orders() {
    needs!("openssl", "faketime");
    let bench = Bench::new(&[NAME]).with_front();
    bench.command(&["renew"]).expect_code(0);
    let aside = truncate(&ledger(&bench));
    let (mut daemon, leaf) = bench.setup.start_until_served(&bench.bed, NAME);
    daemon.process.wait_for_line("nothing is asked of a CA for an hour");
    assert!(aside.is_file());
    let ran = bench.command(&["renew", "--force"]).expect_code(75);
    says(&ran, &["ledger.json) was damaged", "the reserve for `--force` included"]);
    assert_eq!(served_leaf(bench.setup.front, NAME), Some(leaf));
    daemon.stop();
    // It stays so over restarts.
    bench.command(&["renew", "--force"]).expect_code(75);
    bench.later("+58m", &["renew", "--force"]).expect_code(75);
    assert_eq!(bench.ca.seen().orders, 1);
    bench.later("+62m", &["renew", "--force"]).expect_code(0);
    assert_eq!(bench.ca.seen().orders, 2);
}

#[test]
fn a_damaged_state_means_an_hour_without_orders() {
    needs!("faketime");
    let mut bench = Bench::without_certificates(&[NAME, "also.example.test"]);
    bench.add(&[NAME], "");
    bench.command(&["renew"]).expect_code(0);
    let first = bench.setup.stored(NAME);
    // Due at once, were it not for the damage.
    bench.setup.certificates.clear();
    bench.add(&[NAME, "also.example.test"], "");
    let aside = truncate(&lineage_state(&bench));
    let ran = bench.command(&["renew"]).expect_code(75);
    says(&ran, &["state.json is damaged", ".damaged-1", "nothing is ordered for it within an hour"]);
    assert!(aside.is_file());
    bench.later("+58m", &["renew"]).expect_code(75);
    assert_eq!((bench.ca.seen().orders, bench.setup.stored(NAME)), (1, first));
    bench.later("+62m", &["renew"]).expect_code(0);
    assert_eq!(bench.setup.stored(NAME)[0].names.len(), 2);
}

#[test]
fn a_damaged_state_does_not_stop_what_is_served() {
    needs!("openssl");
    let bench = Bench::new(&[NAME]).with_front();
    bench.command(&["renew"]).expect_code(0);
    let aside = truncate(&lineage_state(&bench));
    let (daemon, leaf) = bench.setup.start_until_served(&bench.bed, NAME);
    daemon.process.wait_for_line("nothing is ordered for it within an hour");
    assert!(aside.is_file());
    assert_eq!(bench.setup.stored(NAME)[0], leaf);
    assert_eq!(bench.ca.seen().orders, 1);
}

#[test]
fn a_ledger_that_is_missing_beside_an_account_is_no_new_one() {
    needs!("faketime");
    let bench = Bench::new(&[NAME]);
    bench.command(&["renew"]).expect_code(0);
    fs::remove_file(ledger(&bench)).unwrap();
    let ran = bench.command(&["renew", "--force"]).expect_code(75);
    says(
        &ran,
        &["ledger.json is missing, although there are accounts", "nothing is asked of a CA for an hour"],
    );
    bench.later("+58m", &["renew", "--force"]).expect_code(75);
    bench.later("+62m", &["renew", "--force"]).expect_code(0);
    assert_eq!(bench.ca.seen().orders, 2);
}

#[test]
fn a_damaged_outbox_is_set_aside() {
    let bench = Bench::new(&[NAME]);
    bench.command(&["renew"]).expect_code(0);
    let outbox = bench.setup.state.join("outbox.json");
    let aside = |n: u32| bench.setup.state.join(format!("outbox.json.damaged-{n}"));
    fs::write(&outbox, "{").unwrap();
    says(&bench.command(&["renew"]).expect_code(0), &["outbox.json is damaged", ".damaged-1"]);
    assert_eq!(fs::read_to_string(aside(1)).unwrap(), "{");
    let _ = fs::remove_file(&outbox);
    fs::create_dir(&outbox).unwrap();
    says(&bench.command(&["renew"]).expect_code(0), &["outbox.json is damaged", ".damaged-2"]);
    assert!(aside(2).is_dir() && !outbox.is_dir());
    assert!(!bench.command(&["renew"]).expect_code(0).text().contains("damaged"));
}
