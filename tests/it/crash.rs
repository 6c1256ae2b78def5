//! Renewals that are cut off: the whole program is killed, or the disk fails, at every step and at any
//! moment. Afterwards there is a whole pair, the server reads it, and the next start goes on by itself.
//!
//! With `WICKETGATE_TESTS_THOROUGH=1` the same tests do far more, which takes minutes; then
//! `-- --nocapture` shows what they counted.

mod copies;
mod faults;
mod handshakes;
mod moments;
mod readers;
mod steps;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use wicketgate::store::{Store, Version};

use crate::bed::pebble::{Mood, Pebble};
use crate::bed::process::{Ran, run};
use crate::bed::strace::{Accident, Traced, watched};
use crate::bed::wicketgate::{Setup, command, walk};
use crate::bed::{Bed, until};

const NAME: &str = "www.example.test";

/// Versions that are kept: the next one makes the oldest go.
const KEPT: Version = 5;

/// A state directory with five versions, a CA, and a server that takes the certificate: everything that
/// happens to it is undone by [`Ground::restore`].
struct Ground {
    bed: Bed,
    pebble: Pebble,
    setup: Setup,
    config: PathBuf,
}

impl Ground {
    fn new() -> Self {
        let bed = Bed::new();
        let (pebble, setup) = Setup::with_pebble(&bed, Mood::Kind, &[NAME]);
        let setup = Self::with_server(&bed, setup.without_front());
        let config = setup.write(&bed);
        let ground = Self { bed, pebble, setup, config };
        ground.renew(&[]).expect_code(0);
        for _ in 1..KEPT {
            ground.renew(&["--force"]).expect_code(0);
        }
        ground.copy(&ground.setup.state, &ground.bed.path("kept"));
        ground
    }

    /// The server that takes it writes down what it reads, and refuses a key that does not fit.
    fn with_server(bed: &Bed, setup: Setup) -> Setup {
        let live = setup.live(NAME);
        let reload = bed.script(
            "reload",
            &format!(
                "set -e; cd {dir}; live={live}\n\
                 openssl x509 -in $live/fullchain.pem -noout -pubkey >of-chain\n\
                 openssl pkey -in $live/privkey.pem -pubout >of-key\n\
                 cmp of-chain of-key; cp $live/fullchain.pem reading; mv reading taken",
                dir = bed.dir().display(),
                live = live.display(),
            ),
        );
        setup.with("deploy = [\"server\"]").tables(&format!(
            "[deploy.server]\ncheck = [\"test\", \"-s\", {:?}]\nreload = [{reload:?}]\nverify = []",
            live.join("combined.pem")
        ))
    }

    /// As it was before anything happened.
    fn restore(&self) {
        fs::remove_dir_all(&self.setup.state).unwrap();
        self.copy(&self.bed.path("kept"), &self.setup.state);
        fs::copy(self.setup.live(NAME).join("fullchain.pem"), self.bed.path("taken")).unwrap();
    }

    fn copy(&self, from: &Path, to: &Path) {
        run(Command::new("cp").arg("--archive").arg(from).arg(to)).expect_code(0);
    }

    fn renew(&self, more: &[&str]) -> Ran {
        run(command(&self.config).arg("renew").args(more))
    }

    /// `renew --force` under strace, which looks at what is done in the state directory.
    fn renew_watched(&self, accident: Option<&Accident>) -> Traced {
        let mut renew = command(&self.config);
        renew.args(["renew", "--force"]);
        watched(&self.bed, &|strace| Command::new(strace), &renew, &self.places(), accident)
    }

    /// Every folder of the state directory that a renewal works in, and every file that it writes.
    fn places(&self) -> Vec<PathBuf> {
        let state = &self.setup.state;
        let lineage = state.join("lineages").join(NAME);
        let versions = lineage.join("versions");
        let draft = versions.join(format!(".{:04}.draft", KEPT + 1));
        let files = ["cert.pem", "chain.pem", "fullchain.pem", "privkey.pem", "combined.pem"];
        let mut places: Vec<_> = files.map(|file| draft.join(file)).into();
        places.extend([
            lineage.join(".state.json.draft"),
            state.join(".ledger.json.draft"),
            state.join("lock"),
        ]);
        places.extend([draft, versions.join(".0001.draft"), versions, lineage]);
        places.extend([state.join("lineages"), state.join("live"), state.clone()]);
        places
    }

    /// A whole pair is live, every version is whole, nothing in them is empty, and nobody holds the lock.
    /// Tells the live version.
    #[track_caller]
    fn assert_whole(&self, after: &str) -> Version {
        assert_whole(&self.setup, after)
    }

    /// The next start has nothing to order, and the server takes what is live.
    #[track_caller]
    fn assert_goes_on(&self, after: &str) {
        let orders = self.pebble.orders();
        let ran = self.renew(&[]);
        assert_eq!(ran.code, Some(0), "{after}: {}", ran.text());
        assert_eq!(self.pebble.orders(), orders, "{after}: ordered needlessly: {}", ran.text());
        self.assert_taken(after);
    }

    /// Nothing that was left lies in the way of the next renewal.
    #[track_caller]
    fn assert_renews(&self, after: &str) {
        let before = self.assert_whole(after);
        let orders = self.pebble.orders();
        let ran = self.renew(&["--force"]);
        assert_eq!(ran.code, Some(0), "{after}: {}", ran.text());
        // What was stored and could not be made live is made so, and not ordered again.
        let was_stored = ran.text().contains("which was obtained before, can be served now");
        assert_eq!(self.pebble.orders(), orders + usize::from(!was_stored), "{after}: {}", ran.text());
        assert!(self.assert_whole(after) >= before + u32::from(!was_stored), "{after}: {}", ran.text());
        self.assert_taken(after);
        let is_draft =
            |path: &PathBuf| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.'));
        let drafts: Vec<_> = walk(&self.setup.state).into_iter().filter(is_draft).collect();
        assert!(drafts.is_empty(), "{after}: left behind: {drafts:?}");
    }

    /// The server has read what is live.
    #[track_caller]
    fn assert_taken(&self, after: &str) {
        let taken = fs::read_to_string(self.bed.path("taken")).unwrap();
        let live = fs::read_to_string(self.setup.live(NAME).join("fullchain.pem")).unwrap();
        assert!(taken == live, "{after}: the server has not read what is live");
    }
}

#[track_caller]
fn assert_whole(setup: &Setup, after: &str) -> Version {
    let store = Store::open_existing(&setup.state).unwrap();
    // What was killed while it started its helper lets go of the lock when that one has begun.
    drop(until(&format!("the lock is free: {after}"), || store.lock().ok()));
    let versions = setup.state.join("lineages").join(NAME).join("versions");
    for entry in fs::read_dir(&versions).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Ok(version) = name.parse::<Version>() else {
            assert!(name.starts_with('.') && name.ends_with(".draft"), "{after}: {name}");
            continue;
        };
        let bundle = store.version(NAME, version).unwrap_or_else(|e| panic!("{after}: {e}"));
        let certificate = bundle.first();
        let read = |file: &str| fs::read_to_string(versions.join(&name).join(file)).unwrap_or_default();
        let is_whole = read("cert.pem") == certificate.leaf_pem()
            && read("chain.pem") == certificate.issuers_pem()
            && read("combined.pem") == certificate.fullchain_pem() + certificate.key_pem();
        assert!(is_whole, "{after}: version {name} lacks a file");
    }
    let live = store.current(NAME).unwrap_or_else(|e| panic!("{after}: {e}"));
    live.unwrap_or_else(|| panic!("{after}: nothing is live")).0
}

/// A helper that is alone ends by itself, after the command that it runs.
#[track_caller]
fn wait_until_alone(bed: &Bed, config: &Path) {
    until("nobody is left", || {
        let left = running_with(config) + running_with(&bed.path("reload"));
        (left == 0).then_some(())
    });
}

/// How many processes have that path among their arguments.
fn running_with(path: &Path) -> usize {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    let wanted = path.as_os_str().as_encoded_bytes();
    lines.filter(|line| line.split(|byte| *byte == 0).any(|argument| argument == wanted)).count()
}
