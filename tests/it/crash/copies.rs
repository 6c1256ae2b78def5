//! Cut off while the files are copied to where a server insists to find them.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::{NAME, assert_whole};
use crate::bed::namespace::Mounts;
use crate::bed::pebble::{Mood, Pebble};
use crate::bed::process::{Ran, run};
use crate::bed::strace::{Accident, Then, Traced, watched};
use crate::bed::wicketgate::{PROGRAM, Setup, clean};
use crate::bed::{Bed, is_thorough, needs};

/// A folder that only root can write to, all the way up.
const FOLDER: &str = "/mnt/tls";
const FILES: [&str; 3] = ["fullchain.pem", "key.pem", "combined.pem"];

struct Place {
    bed: Bed,
    _pebble: Pebble,
    setup: Setup,
    config: PathBuf,
    inside: Mounts,
}

#[test]
fn cut_off_at_every_step_of_copying_each_file_is_whole_and_the_next_deploy_goes_on() {
    needs!("root", "mounts", "nsenter", "pebble", "curl", "openssl", "strace");
    let place = Place::new();
    place.restore();
    let traced = place.renew(None);
    traced.ran.expect_code(0);
    let steps = traced.steps;
    for (call, count) in [("openat", 3), ("write", 3), ("fsync", 4), ("renameat", 3)] {
        let found = steps.iter().filter(|step| step.call == call).count();
        assert!(found >= count, "{call}: {steps:#?}");
    }
    let mut mixed = BTreeSet::new();
    for (number, step) in steps.iter().enumerate() {
        let fails = Then::Fails(["ENOSPC", "EIO", "EDQUOT", "EROFS"][number % 4]);
        // By turns; thoroughly, both.
        let turn = number % 2;
        let accidents = [Then::Killed, fails];
        for then in if is_thorough() { &accidents[..] } else { &accidents[turn..=turn] } {
            let then = *then;
            place.restore();
            let accident = Accident { call: step.call.clone(), nth: step.nth, then };
            let traced = place.renew(Some(&accident));
            let after = format!("{then:?} at {:?}", traced.met);
            assert!(!traced.met.is_empty(), "{after}");
            let text = traced.ran.text();
            assert_whole(&place.setup, &after);
            if !place.is_of_one_version(&after) {
                mixed.insert(number);
            }
            match traced.ran.code {
                // A helper that was killed has a successor, which may find too little left to do to be killed too.
                Some(0) if then == Then::Killed => assert!(place.has_taken(), "{after}: {text}"),
                code => {
                    assert_eq!(code, Some(1), "{after}: {text}");
                    let says_where = then == Then::Killed || text.contains(FOLDER);
                    assert!(text.contains("server did not take it") && says_where, "{after}: {text}");
                }
            }
            // Only the server has to be seen to again: nothing is ordered.
            let ran = place.run(&["deploy"]);
            assert_eq!(ran.code, Some(0), "{after}: {}", ran.text());
            assert!(place.is_of_one_version(&after), "{after}");
            assert!(place.has_taken(), "{after}: the server has not read what is live");
            let is_draft = "-name '.*' -not -name '*.before-wicketgate'";
            let drafts = place.inside.sh(&format!("find {FOLDER} {is_draft}"));
            assert_eq!(drafts.stdout, "", "{after}");
        }
    }
    eprintln!(
        "cut off at each of {} steps of copying: after {} of them the copies were of two versions until the next deploy",
        steps.len(),
        mixed.len()
    );
}

impl Place {
    fn new() -> Self {
        let bed = Bed::new();
        let (pebble, setup) = Setup::with_pebble(&bed, Mood::Kind, &[NAME]);
        let reload = bed.script(
            "reload",
            &format!(
                "set -e; cd {FOLDER}; dir={}\n\
                 openssl x509 -in fullchain.pem -noout -pubkey >$dir/of-chain\n\
                 openssl pkey -in key.pem -pubout >$dir/of-key\n\
                 cmp $dir/of-chain $dir/of-key; cp fullchain.pem $dir/reading; mv $dir/reading $dir/taken",
                bed.dir().display()
            ),
        );
        let setup = setup.without_front().with("deploy = [\"server\"]").tables(&format!(
            "[deploy.server]\nreload = [{reload:?}]\nverify = []\n\
             copy = {{ fullchain = \"{FOLDER}/fullchain.pem\", key = \"{FOLDER}/key.pem\", combined = \"{FOLDER}/combined.pem\" }}"
        ));
        let (config, inside) = (setup.write(&bed), Mounts::start());
        inside.sh(&format!("mkdir --mode 755 {FOLDER}")).expect_code(0);
        let place = Self { bed, _pebble: pebble, setup, config, inside };
        place.run(&["renew"]).expect_code(0);
        place.inside.sh(&format!("cp -a {FOLDER} /mnt/kept")).expect_code(0);
        run(std::process::Command::new("cp").arg("-a").arg(&place.setup.state).arg(place.bed.path("kept")))
            .expect_code(0);
        place
    }

    fn restore(&self) {
        let (state, kept) = (self.setup.state.display(), self.bed.path("kept"));
        let script =
            format!("rm -rf {state} {FOLDER}; cp -a {} {state}; cp -a /mnt/kept {FOLDER}", kept.display());
        self.inside.sh(&script).expect_code(0);
    }

    fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = std::process::Command::new(PROGRAM);
        clean(&mut command);
        command.arg("--config").arg(&self.config).args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let command = self.command(arguments);
        run(self.inside.command(PROGRAM).args(command.get_args()))
    }

    /// `renew --force` under strace, which looks at what is done in the folder of the copies.
    fn renew(&self, accident: Option<&Accident>) -> Traced {
        let folder = PathBuf::from(FOLDER);
        let mut places: Vec<_> = FILES.map(|file| folder.join(format!(".{file}.wicketgate"))).into();
        let kept = FILES.map(|file| format!(".{file}.before-wicketgate"));
        places.extend(
            kept.iter().flat_map(|name| [folder.join(name), folder.join(format!(".{name}.wicketgate"))]),
        );
        places.push(folder);
        let strace = &|program: &str| self.inside.command(program);
        watched(&self.bed, strace, &self.command(&["renew", "--force"]), &places, accident)
    }

    /// Whether the server has read what is live.
    fn has_taken(&self) -> bool {
        let read = |path: PathBuf| std::fs::read_to_string(path).unwrap();
        read(self.bed.path("taken")) == read(self.setup.live(NAME).join("fullchain.pem"))
    }

    /// Whether the copies fit each other; each by itself is whole.
    #[track_caller]
    fn is_of_one_version(&self, after: &str) -> bool {
        let [chain, key, combined] =
            FILES.map(|file| self.inside.sh(&format!("cat {FOLDER}/{file}")).expect_code(0).stdout);
        let versions = self.setup.state.join("lineages").join(NAME).join("versions");
        let read = |version: &std::path::Path, file: &str| {
            std::fs::read_to_string(version.join(file)).unwrap_or_default()
        };
        let all: Vec<_> = std::fs::read_dir(versions).unwrap().map(|entry| entry.unwrap().path()).collect();
        let of = |text: &str, file: &str| all.iter().position(|version| read(version, file) == text);
        let found = [of(&chain, "fullchain.pem"), of(&key, "privkey.pem"), of(&combined, "combined.pem")];
        let [Some(chain), Some(key), Some(combined)] = found else {
            panic!("{after}: a copy is not whole: {found:?}")
        };
        chain == key && key == combined
    }
}
