//! A configuration with a CA whose faults a test chooses, and what is asked of both.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use wicketgate::hostname::Identifier;
use wicketgate::rehearsal::{FailingValidation, Faults, ValidationFault};

use crate::bed::Bed;
use crate::bed::fickle::FickleCa;
use crate::bed::process::{Ran, run_within};
use crate::bed::wicketgate::{PROGRAM, Setup, clean};

/// One certificate, one CA.
pub(super) struct Bench {
    pub(super) setup: Setup,
    pub(super) ca: FickleCa,
    pub(super) bed: Bed,
}

impl Bench {
    /// For one certificate with these names, without a front.
    pub(super) fn new(names: &[&str]) -> Self {
        let mut bench = Self::without_certificates(names);
        bench.add(names, "");
        bench
    }

    /// With a CA that signs for these names, and nothing to be signed yet.
    pub(super) fn without_certificates(names: &[&str]) -> Self {
        let bed = Bed::new();
        let gate = bed.port();
        let ca = FickleCa::start(&bed, gate, names);
        let mut setup = Setup::new(&bed, &ca.directory, &ca.root).without_front();
        setup.gate = gate;
        Self { setup, ca, bed }
    }

    /// Adds a certificate, with these lines in its table.
    pub(super) fn add(&mut self, names: &[&str], lines: &str) {
        self.setup.certificates += &format!("[[certificate]]\nhostnames = {names:?}\n{lines}\n");
    }

    /// Has the front serve what there is.
    pub(super) fn with_front(mut self) -> Self {
        self.setup = self.setup.upstream("demo");
        self
    }

    /// Runs a command to its end.
    #[track_caller]
    pub(super) fn command(&self, arguments: &[&str]) -> Ran {
        self.setup.command(&self.bed, arguments)
    }

    /// Runs a command whose clock is ahead by so much: `+2m`, `+13h`.
    #[track_caller]
    pub(super) fn later(&self, ahead: &str, arguments: &[&str]) -> Ran {
        let mut command = Command::new("faketime");
        clean(&mut command);
        command.args(["-f", ahead, PROGRAM, "--config"]).arg(self.setup.write(&self.bed)).args(arguments);
        run_within(Duration::from_secs(60), &mut command)
    }

    /// What `status --json` says of the first certificate.
    #[track_caller]
    pub(super) fn status(&self) -> Value {
        let ran = self.command(&["status", "--json"]).expect_code(0);
        let mut report: Value = serde_json::from_str(&ran.stdout).unwrap();
        report["certificates"][0].take()
    }

    /// Failed validations that the CA has counted for a name.
    pub(super) fn failed(&self, name: &str) -> u64 {
        self.ca.seen().authorizations_failed.get(&identifier(name)).copied().unwrap_or(0)
    }
}

pub(super) fn identifier(name: &str) -> Identifier {
    name.parse().expect("an identifier")
}

/// The CA sees somebody else's 403 for that name.
pub(super) fn forbidden(name: &str) -> FailingValidation {
    let fault = ValidationFault::Status(403);
    FailingValidation { identifier: identifier(name), fault, gate_is_asked: false }
}

/// Validation fails for that name.
pub(super) fn failing(name: &str) -> Faults {
    Faults { failing: vec![forbidden(name)], ..Faults::default() }
}

/// The `what` of each event that `--json` told, by its kind.
pub(super) fn told<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events.iter().filter_map(|event| event["what"].get(kind)).collect()
}

/// The events of a command that was run with `--json`.
#[track_caller]
pub(super) fn events(ran: &Ran) -> Vec<Value> {
    ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Asserts that a program said all of this.
#[track_caller]
pub(super) fn says(ran: &Ran, words: &[&str]) {
    for word in words {
        assert!(ran.text().contains(word), "`{word}` is not in: {}", ran.text());
    }
}
