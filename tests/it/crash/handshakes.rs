//! A daemon that is killed and started again while clients shake hands with its front.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use wicketgate::clock;

use super::moments::Dice;
use super::{Ground, NAME, assert_whole, wait_until_alone};
use crate::bed::client::connect_tls;
use crate::bed::pebble::Mood;
use crate::bed::process::Process;
use crate::bed::wicketgate::{Setup, command};
use crate::bed::{Bed, PATIENCE, is_thorough, needs};

type Leaf = Vec<u8>;

#[test]
fn every_handshake_shows_an_old_or_a_new_certificate() {
    needs!("pebble", "curl", "openssl");
    let bed = Bed::new();
    let (pebble, setup) = Setup::with_pebble(&bed, Mood::Kind, &[NAME]);
    // What is cut off counts as failed, and after a few of them no more would be ordered for hours.
    let setup = Ground::with_server(&bed, setup).tables("[acme.limits]\nfailed-authorizations = \"none\"");
    let config = setup.write(&bed);
    drop(setup.start_until_served(&bed, NAME));
    wait_until_alone(&bed, &config);
    let root = pebble.signing_root(&bed);
    let known: Mutex<BTreeSet<Leaf>> = Mutex::new(leaves(&setup));
    let shown: Mutex<BTreeSet<Leaf>> = Mutex::default();
    let over = AtomicBool::new(false);
    let rounds = if is_thorough() { 200 } else { 6 };
    let mut dice = Dice::new();
    let handshakes = std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let _over = Over(&over);
            shake_hands(&root, setup.front, &shown, &over)
        });
        let _over = Over(&over);
        for round in 0..rounds {
            let mut daemon = Process::start("wicketgate run", command(&config).arg("run"));
            setup.wait_until_served(NAME);
            let before = assert_live_is_served(&setup, &root);
            let renewing = Process::start("wicketgate renew", command(&config).args(["renew", "--force"]));
            let moment = Duration::from_millis((800.0 * dice.next()) as u64);
            until_moment_or_end(&over, moment);
            daemon.signal(Signal::KILL);
            daemon.wait(PATIENCE);
            drop((daemon, renewing));
            wait_until_alone(&bed, &config);
            assert_whole(&setup, &format!("round {round}, killed after {moment:?}"));
            known.lock().unwrap().extend(leaves(&setup));
            assert!(known.lock().unwrap().contains(&before));
        }
        over.store(true, Ordering::Relaxed);
        client.join().unwrap()
    });
    let (known, shown) = (known.into_inner().unwrap(), shown.into_inner().unwrap());
    eprintln!(
        "{rounds} kills: {handshakes} handshakes were completed and showed {} certificates; {} were stored",
        shown.len(),
        known.len()
    );
    assert!(shown.is_subset(&known), "a certificate was shown that was never stored");
    assert!(shown.len() > 1 && handshakes > rounds);
}

/// Ends the other side with this one, however it ends.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The leaves of all stored versions.
fn leaves(setup: &Setup) -> BTreeSet<Leaf> {
    let versions = setup.state.join("lineages").join(NAME).join("versions");
    let names = fs::read_dir(versions).unwrap().map(|entry| entry.unwrap().path());
    let is_version =
        |path: &std::path::PathBuf| !path.file_name().unwrap().to_string_lossy().starts_with('.');
    names.filter(is_version).map(|path| leaf(&fs::read(path.join("cert.pem")).unwrap())).collect()
}

fn leaf(pem: &[u8]) -> Leaf {
    CertificateDer::from_pem_slice(pem).unwrap().to_vec()
}

/// After its start it serves what is live.
#[track_caller]
fn assert_live_is_served(setup: &Setup, root: &std::path::Path) -> Leaf {
    let tls = connect_tls(root, NAME, setup.front).unwrap();
    let shown = tls.conn.peer_certificates().unwrap()[0].to_vec();
    let live = leaf(&fs::read(setup.live(NAME).join("cert.pem")).unwrap());
    assert!(shown == live, "another certificate is served than the live one");
    shown
}

/// Handshakes one after the other; how many were completed. A certificate that does not lead to the CA's
/// root, of another name or without its chain fails the test.
fn shake_hands(root: &std::path::Path, port: u16, shown: &Mutex<BTreeSet<Leaf>>, over: &AtomicBool) -> usize {
    let mut completed = 0;
    while !over.load(Ordering::Relaxed) {
        match connect_tls(root, NAME, port) {
            Ok(tls) => {
                completed += 1;
                let leaf = tls.conn.peer_certificates().expect("a completed handshake")[0].to_vec();
                shown.lock().unwrap().insert(leaf);
            }
            Err(e) => {
                let said = e.to_string();
                assert!(!said.contains("certificate"), "a handshake showed what it should not: {said}");
                // Nobody is there for the moment.
                std::thread::park_timeout(Duration::from_millis(2));
            }
        }
    }
    completed
}

fn until_moment_or_end(over: &AtomicBool, moment: Duration) {
    let end = clock::monotonic() + moment;
    while clock::monotonic() < end && !over.load(Ordering::Relaxed) {
        std::thread::park_timeout(Duration::from_millis(1));
    }
}
