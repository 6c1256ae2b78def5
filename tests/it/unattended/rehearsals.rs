//! A rehearsal: it tells whether a renewal would work, and leaves everything as it was.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;

use super::NAME;
use super::bench::{Bench, says};
use crate::bed::client::{is_open, served_leaf};
use crate::bed::wicketgate::{Setup, walk};
use crate::bed::{Bed, needs};

const WELL: &str = "verdict: a renewal would work; nothing was changed";
const FAIL: &str = "verdict: a renewal would FAIL as things are; nothing was changed";

/// Everything in the state directory but the lock, which says who had it last.
fn kept(bench: &Bench) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let content =
        |path: &PathBuf| path.symlink_metadata().unwrap().is_file().then(|| fs::read(path).unwrap());
    let paths = walk(&bench.setup.state).into_iter().filter(|path| !path.ends_with("lock"));
    paths.map(|path| (path.clone(), content(&path))).collect()
}

#[track_caller]
fn same(before: &BTreeMap<PathBuf, Option<Vec<u8>>>, after: &BTreeMap<PathBuf, Option<Vec<u8>>>) {
    let paths = before.keys().chain(after.keys());
    let changed: Vec<_> = paths.filter(|path| before.get(*path) != after.get(*path)).collect();
    assert!(changed.is_empty(), "{changed:?}");
}

#[test]
fn a_rehearsal_without_a_daemon_leaves_nothing_behind() {
    let bench = Bench::new(&[NAME]);
    bench.command(&["renew"]).expect_code(0);
    let before = kept(&bench);
    let ran = bench.command(&["rehearse"]).expect_code(0);
    says(&ran, &["the rehearsal went well: obtained and stored", WELL]);
    same(&before, &kept(&bench));
    assert!(!is_open(bench.setup.gate));
    assert_eq!(bench.ca.seen().orders, 1);
    // A renewal goes on from where it was.
    says(&bench.command(&["renew"]).expect_code(0), &["nothing to do"]);
}

#[test]
fn a_rehearsal_before_the_first_certificate_obtains_none() {
    let bench = Bench::new(&[NAME]);
    says(&bench.command(&["rehearse"]).expect_code(0), &[WELL]);
    assert!(!bench.setup.live(NAME).exists());
    let left: Vec<_> = kept(&bench).into_keys().filter(|path| path.is_file()).collect();
    assert!(left.iter().all(|path| path.ends_with("lock")), "{left:?}");
    assert_eq!((bench.ca.seen().accounts, bench.ca.seen().orders), (0, 0));
}

#[test]
fn a_rehearsal_by_the_daemon_changes_nothing_that_is_served() {
    needs!("openssl");
    let bench = Bench::new(&[NAME]).with_front();
    let (daemon, leaf) = bench.setup.start_until_served(&bench.bed, NAME);
    crate::bed::until("the CA was asked", || (bench.ca.seen().renewal_info_asks > 0).then_some(()));
    crate::bed::until("and its answer is kept", || (bench.status()["reason"] == "ARI window").then_some(()));
    let before = kept(&bench);
    says(&bench.command(&["rehearse"]).expect_code(0), &[WELL]);
    same(&before, &kept(&bench));
    assert_eq!(served_leaf(bench.setup.front, NAME), Some(leaf));
    assert_eq!(bench.ca.seen().orders, 1);
    let lines = daemon.process.lines().join("\n");
    assert!(!lines.contains("ERROR"), "{lines}");
}

#[test]
fn a_rehearsal_fails_where_a_renewal_would() {
    let bench = Bench::new(&[NAME]);
    bench.command(&["renew"]).expect_code(0);
    let before = kept(&bench);
    // Somebody has taken the port.
    let _taken = TcpListener::bind(("127.0.0.1", bench.setup.gate)).unwrap();
    let ran = bench.command(&["rehearse"]).expect_code(1);
    says(&ran, &["THE REHEARSAL FAILED: port 80 cannot be opened for the CA", FAIL]);
    same(&before, &kept(&bench));
}

#[test]
fn a_rehearsal_of_an_unknown_name_is_refused() {
    let bench = Bench::new(&[NAME]);
    let ran = bench.command(&["rehearse", "other.example.test"]).expect_code(2);
    says(&ran, &["no certificate is named other.example.test"]);
}

#[test]
fn without_a_certificate_there_is_nothing_to_rehearse() {
    let bench = Bench::without_certificates(&[NAME]);
    let ran = bench.command(&["rehearse"]).expect_code(1);
    says(&ran, &["there is nothing to rehearse"]);
    assert!(!ran.text().contains("verdict"), "{}", ran.text());
}

#[test]
fn what_a_killed_rehearsal_has_left_goes_at_the_next_start() {
    let bench = Bench::new(&[NAME]);
    bench.command(&["renew"]).expect_code(0);
    let left = bench.setup.state.join("rehearsal");
    fs::create_dir_all(left.join("lineages/x/versions/0001")).unwrap();
    fs::write(left.join("lineages/x/versions/0001/privkey.pem"), "").unwrap();
    bench.command(&["renew"]).expect_code(0);
    assert!(!left.exists());
}

/// It forgets at each start what it has signed, and nobody need know.
#[test]
fn the_embedded_ca_is_not_complained_about() {
    let bed = Bed::new();
    let setup = Setup::embedded(&bed).certificate(&[NAME]).without_front();
    setup.renew(&bed).expect_code(0);
    let ran = setup.command(&bed, &["renew", "--force"]).expect_code(0);
    assert!(!ran.text().contains("warning"), "{}", ran.text());
}
