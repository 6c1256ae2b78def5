//! What the network-facing process takes away from itself once everything is bound and its helper's starter runs:
//! rights, files, ports and system calls that it does not need. Each part says what came of it.
//!
//! All of it happens while there is one thread, so that every later one has no more.

mod identity;
pub mod plan;
mod restrictions;
mod syscalls;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use serde::{Deserialize, Serialize};

pub use identity::{Identity, UserError};
use plan::Plan;

/// What came of one part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Part {
    /// Which.
    pub part: String,
    /// How far it came.
    pub state: State,
    /// What is to be known of it, in words; empty where there is nothing.
    pub note: String,
}

/// How far a part of the sandbox came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// All of it is enforced.
    On,
    /// Some of it: the kernel or the circumstances have no more.
    Partly,
    /// Nothing of it.
    Off,
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::On => "on",
            Self::Partly => "partly on",
            Self::Off => "off",
        })
    }
}

/// Why the process goes no further.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Rights could not be given up, which can only mean that they are kept.
    #[error("the sandbox cannot be entered: {what}: {source}; `sandbox = \"off\"` does without it")]
    Failed {
        /// What was tried.
        what: &'static str,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The configuration wants all of it.
    #[error(
        "`sandbox = \"required\"`, and not all of it is possible here: {0}; write \"auto\" to take what there is, or use a newer kernel"
    )]
    Required(String),
}

impl Part {
    fn new(part: &str, state: State, note: impl Into<String>) -> Self {
        Self { part: part.to_owned(), state, note: note.into() }
    }
}

/// Gives up everything that the plan does not name. To be called while the process has one thread.
///
/// # Errors
/// [`SandboxError`]: the process still has what it had, and is to end.
pub fn enter(plan: &Plan, identity: Option<&Identity>) -> Result<Vec<Part>, SandboxError> {
    let failed = |what| move |source: rustix::io::Errno| SandboxError::Failed { what, source: source.into() };
    let mut parts = Vec::new();
    // Read while this still may be done.
    let restrictions = restrictions::Restrictions::prepare(plan);
    parts.push(identity::assume(identity, plan.keeps_binding)?);
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).map_err(failed("no core dumps"))?;
    // After the change of the user, which makes a process dumpable again.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(failed("no dumps"))?;
    parts.push(Part::new("memory", State::On, "no core dumps, and nobody's debugger"));
    rustix::thread::set_no_new_privs(true).map_err(failed("no new privileges"))?;
    parts.extend(restrictions.enforce());
    parts.push(syscalls::restrict());
    Ok(parts)
}

/// An error if a part is missing that shall not be.
///
/// # Errors
/// [`SandboxError::Required`]
pub fn require_all(parts: &[Part]) -> Result<(), SandboxError> {
    let missing: Vec<_> = parts
        .iter()
        .filter(|part| part.state != State::On)
        .map(|part| format!("{} is {} ({})", part.part, part.state, part.note))
        .collect();
    if missing.is_empty() { Ok(()) } else { Err(SandboxError::Required(missing.join(", "))) }
}
