//! An installation below a folder: servers' files, certificates, wicketgate's own.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::Value;

use crate::bed::process::{Ran, run};
use crate::bed::wicketgate::{PROGRAM, clean};
use crate::bed::{Bed, set_mode};

/// Texts in PEM.
pub(super) struct Made {
    pub(super) leaf: String,
    pub(super) intermediate: String,
    pub(super) key: String,
}

impl Made {
    pub(super) fn fullchain(&self) -> String {
        format!("{}{}", self.leaf, self.intermediate)
    }
}

/// A certificate below an intermediate one, for these names, that lasts so many days from now on.
pub(super) fn made(names: &[&str], days: i64) -> Made {
    let authority = |name: &str| {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        params
    };
    let key = || KeyPair::generate().unwrap();
    let root = CertifiedIssuer::self_signed(authority("root"), key()).unwrap();
    let intermediate = CertifiedIssuer::signed_by(authority("intermediate"), key(), &root).unwrap();
    let leaf_key = key();
    let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    let now = wicketgate::clock::now();
    let day = std::time::Duration::from_secs(86_400);
    params.not_before = (now - day * 90).into();
    params.not_after = match u32::try_from(days) {
        Ok(days) => (now + day * days).into(),
        Err(_) => (now - day * u32::try_from(-days).unwrap()).into(),
    };
    let leaf = params.signed_by(&leaf_key, &intermediate).unwrap();
    Made { leaf: leaf.pem(), intermediate: intermediate.pem(), key: leaf_key.serialize_pem() }
}

pub(super) struct Installation {
    pub(super) bed: Bed,
}

impl Installation {
    pub(super) fn new() -> Self {
        let installation = Self { bed: Bed::new() };
        fs::create_dir(installation.root()).unwrap();
        installation
    }

    pub(super) fn root(&self) -> PathBuf {
        self.bed.path("root")
    }

    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.root().join(path.trim_start_matches('/'))
    }

    /// Writes a file, by its path below the root; only its owner reads it.
    pub(super) fn write(&self, path: &str, text: impl AsRef<str>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text.as_ref()).unwrap();
        set_mode(&path, 0o600);
    }

    pub(super) fn link(&self, path: &str, target: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    }

    /// wicketgate's configuration: a gate and certificates.
    pub(super) fn configure(&self, gate: &str, certificates: &[&[&str]]) {
        let tables: String =
            certificates.iter().map(|names| format!("[[certificate]]\nhostnames = {names:?}\n")).collect();
        self.write(
            "/etc/wicketgate/wicketgate.toml",
            format!("[acme]\nterms-agreed = true\n[gate]\nlisten = [{gate:?}]\n{tables}"),
        );
    }

    /// A certificate of ours as the store keeps it, its seventh version.
    pub(super) fn keep(&self, name: &str, made: &Made) {
        let folder = format!("/var/lib/wicketgate/lineages/{name}/versions/0007");
        self.pem_files(&folder, "", made);
        self.write(&format!("{folder}/combined.pem"), made.fullchain() + &made.key);
        self.link(&format!("/var/lib/wicketgate/live/{name}"), &format!("../lineages/{name}/versions/0007"));
    }

    /// `cert.pem`, `chain.pem`, `fullchain.pem` and `privkey.pem`, with something in their names.
    pub(super) fn pem_files(&self, folder: &str, number: &str, made: &Made) {
        for (name, text) in [
            ("cert", &made.leaf),
            ("chain", &made.intermediate),
            ("fullchain", &made.fullchain()),
            ("privkey", &made.key),
        ] {
            self.write(&format!("{folder}/{name}{number}.pem"), text);
        }
    }

    pub(super) fn doctor(&self, arguments: &[&str]) -> Ran {
        run(doctor(Command::new(PROGRAM), &self.root()).args(arguments))
    }

    /// The report, with the exit code that belongs to it.
    #[track_caller]
    pub(super) fn report(&self) -> Report {
        let before = contents(&self.root());
        let ran = self.doctor(&["--json"]);
        assert_eq!(contents(&self.root()), before, "the doctor changed something");
        Report::of(&ran)
    }
}

/// The command line, in an environment without anything that could configure it.
pub(super) fn doctor(mut command: Command, root: &Path) -> Command {
    clean(&mut command);
    command.arg("doctor").arg("--root").arg(root);
    command
}

/// Every path with what it holds and its modes.
fn contents(root: &Path) -> Vec<String> {
    use std::os::unix::fs::MetadataExt;
    let mut found: Vec<_> = crate::bed::wicketgate::walk(root)
        .into_iter()
        .map(|path| {
            let meta = path.symlink_metadata().unwrap();
            let text = if meta.is_file() { fs::read(&path).unwrap_or_default() } else { Vec::new() };
            format!("{} {:o} {} {text:?}", path.display(), meta.mode(), meta.mtime_nsec())
        })
        .collect();
    found.sort();
    found
}

pub(super) struct Report {
    pub(super) json: Value,
}

impl Report {
    #[track_caller]
    pub(super) fn of(ran: &Ran) -> Self {
        let json: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {}", ran.text()));
        let report = Self { json };
        let has_problems = report.findings().any(|finding| finding["severity"] == "problem");
        assert_eq!(ran.code, Some(i32::from(has_problems)), "{}", ran.text());
        report
    }

    pub(super) fn findings(&self) -> impl Iterator<Item = &Value> {
        self.json["findings"].as_array().unwrap().iter()
    }

    /// `SEVERITY CAUSE PLACE` of everything that is not fine.
    pub(super) fn faults(&self) -> BTreeSet<String> {
        let mut faults = BTreeSet::new();
        for finding in self.findings().filter(|finding| finding["severity"] != "fine") {
            for part in ["seen", "means", "remedy"] {
                let text = finding[part].as_str().unwrap();
                assert!(!text.is_empty() || part == "remedy", "{finding}");
                assert!(!text.contains("PRIVATE KEY"), "{finding}");
            }
            let word = |name: &str| finding[name].as_str().unwrap_or("-").to_owned();
            faults.insert(format!("{} {} {}", word("severity"), word("cause"), word("place")));
        }
        faults
    }

    /// Compares everything that is not fine with what is expected, whatever the order.
    #[track_caller]
    pub(super) fn expect(&self, expected: &[&str]) {
        let found = self.faults();
        let expected: BTreeSet<_> = expected.iter().map(|&line| line.to_owned()).collect();
        let missing: Vec<_> = expected.difference(&found).collect();
        let more: Vec<_> = found.difference(&expected).collect();
        assert!(
            missing.is_empty() && more.is_empty(),
            "missing: {missing:#?}\ntoo much: {more:#?}\n{:#}",
            self.json
        );
    }

    /// The one finding of that cause at that place.
    #[track_caller]
    pub(super) fn finding(&self, cause: &str, place: &str) -> &Value {
        let found: Vec<_> = self.findings().filter(|f| f["cause"] == cause && f["place"] == place).collect();
        assert_eq!(found.len(), 1, "{cause} at {place}: {:#}", self.json);
        found[0]
    }

    /// Whether the remedy of that finding has these words.
    #[track_caller]
    pub(super) fn remedy(&self, cause: &str, place: &str, words: &str) {
        let remedy = self.finding(cause, place)["remedy"].as_str().unwrap();
        assert!(remedy.contains(words), "{remedy:?} should say {words:?}");
    }
}
