//! The local socket: other wicketgate commands speak to the daemon here, in HTTP/1.1 with JSON bodies.
//!
//! | request | answer |
//! |---|---|
//! | `GET /status` | [`StatusReport`] |
//! | `POST /reload` | `{"warnings": […]}`, or 422 with `{"error": "…"}` and nothing changed |
//! | `POST /check` with [`CheckRequest`] | [`CheckReport`] |
//! | `POST /renew` with [`RenewRequest`] | a line of JSON an [`Event`](crate::renewal::Event), then one [`Conclusion`] |
//! | `POST /deploy` with [`DeployRequest`] | as for `/renew` |
//! | `POST /rehearse` with [`RehearseRequest`] | as for `/renew` |
//! | `PUT /challenges/TOKEN` with [`ForeignChallenge`] | 204, once the gate listens |
//! | `DELETE /challenges/TOKEN` | 204, or 404 |
//! | `GET /challenges` | the tokens put here, as a list |
//! | `POST /relay` with [`RelayRequest`] | a line of JSON a [`RelayQuestion`], once the gate listens and until the client hangs up |
//! | `POST /relay/answer` with [`RelayAnswer`] | 204 |
//!
//! The socket has mode 0600, and the kernel tells who is at the other end: root and the daemon's own
//! user are served, nobody else.
//!
//! Beside it, where it is configured, a TCP listener only tells: metrics, health, and a page for a person.

mod challenges;
pub mod client;
mod listener;
mod metrics;
mod overview;
mod page;
mod server;
mod socket;

use std::net::SocketAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::foreign::FilesStatus;
use crate::hostname::Identifier;
use crate::preflight::{self, Certainty, Finding};
use crate::renewal::{Asked, CertificateStatus, Outcome};
use crate::sandbox::Part;

pub use overview::{Counts, Knock, Overview};
pub use server::{Actions, serve};
pub use socket::{AdminError, AdminSocket};

/// Largest request body, bytes.
const BODY_LIMIT: usize = 64 * 1024;

/// The daemon's state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct StatusReport {
    /// The daemon's process id; `None` where no daemon runs.
    pub pid: Option<u32>,
    /// The daemon's version.
    pub version: Option<String>,
    /// When it was started.
    pub since: Option<Timestamp>,
    /// Digest of the configuration that the daemon works by.
    pub digest: Option<String>,
    /// The gate; null where no daemon runs.
    #[serde(default)]
    pub gate: Option<GateStatus>,
    /// What came of each part of the daemon's sandbox; empty where it is off.
    #[serde(default)]
    pub sandbox: Vec<Part>,
    /// Every configured certificate that is obtained here.
    pub certificates: Vec<CertificateStatus>,
    /// Those that somebody else obtains, and that come from files.
    #[serde(default)]
    pub from_files: Vec<FilesStatus>,
}

/// The gate's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct GateStatus {
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// It listens only while an order is pending.
    pub during_orders: bool,
    /// It listens now.
    pub listening: bool,
    /// What stands before it; `None` where nothing is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub openings: Option<OpeningsState>,
}

/// Whether what stands before the gate (`[[gate.opening]]`) is open.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OpeningsState {
    /// Nothing is open.
    #[default]
    Shut,
    /// All are open, for an order.
    Open,
    /// Something cannot be shut; why not.
    Stuck(String),
}

/// What `renew` asks for.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RenewRequest {
    /// Certificates by name; none means all.
    pub names: Vec<String>,
    /// Order what is not due as well, and try what was put off.
    pub force: bool,
    /// Ask the CA whatever the preflight would find.
    #[serde(default)]
    pub skip_preflight: bool,
    /// Digest of the asker's configuration; a daemon that works by another one refuses.
    #[serde(default)]
    pub digest: Option<String>,
}

/// What `deploy` asks for.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DeployRequest {
    /// Certificates by name; none means all.
    pub names: Vec<String>,
    /// Digest of the asker's configuration; a daemon that works by another one refuses.
    #[serde(default)]
    pub digest: Option<String>,
}

/// What `rehearse` asks for.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RehearseRequest {
    /// Certificates by name; none means all.
    pub names: Vec<String>,
    /// With the issuer's staging directory in place of the embedded CA.
    pub staging: bool,
    /// Digest of the asker's configuration; a daemon that works by another one refuses.
    #[serde(default)]
    pub digest: Option<String>,
}

/// What `check` asks for.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct CheckRequest {
    /// Certificates by name, hostnames and addresses; none means all certificates.
    pub names: Vec<String>,
    /// Digest of the asker's configuration; a daemon that works by another one refuses.
    #[serde(default)]
    pub digest: Option<String>,
}

/// What a preflight found. The JSON of `check --json` is this; its names are stable, and new ones may be
/// added.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CheckReport {
    /// The issuer's name in the configuration.
    pub issuer: String,
    /// Every issuer that may be asked, in their order, this one first.
    #[serde(default)]
    pub issuers: Vec<String>,
    /// From where it was looked, and what could not be seen from there.
    pub vantage: String,
    /// Why the gate cannot listen, where it cannot: every order would fail.
    pub gate_problem: Option<String>,
    /// What could not be found out, one sentence each.
    pub warnings: Vec<String>,
    /// What was found, in the order of the identifiers.
    pub findings: Vec<Finding>,
}

impl CheckReport {
    /// Whether an issuer would be passed over for another one.
    pub fn passes_over(&self) -> bool {
        let is_of_one = |f: &Finding| f.issuer.is_some() && f.certainty == Certainty::Certain;
        !self.is_certain() && self.findings.iter().any(is_of_one)
    }

    /// Whether an order would fail for certain, at every issuer.
    pub fn is_certain(&self) -> bool {
        self.gate_problem.is_some() || !preflight::lost(&self.findings, &self.issuers).is_empty()
    }
}

/// How a `renew` or a `rehearse` ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Conclusion {
    /// All that was due was done.
    Well,
    /// Something was put off, at the CA's word or after failures.
    Later,
    /// Something failed.
    Failed,
}

impl RenewRequest {
    /// How it is wanted.
    pub fn asked(&self) -> Asked {
        Asked { force: self.force, skip_preflight: self.skip_preflight }
    }
}

impl Conclusion {
    /// The worst of several outcomes.
    pub fn of(outcomes: &[Outcome]) -> Self {
        if outcomes.contains(&Outcome::Failed) {
            Self::Failed
        } else if outcomes.contains(&Outcome::Later) {
            Self::Later
        } else {
            Self::Well
        }
    }
}

/// A challenge of another ACME client that the gate shall answer.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ForeignChallenge {
    /// The exact answer.
    pub key_authorization: String,
    /// The hosts it is answered for.
    pub hosts: Vec<Identifier>,
    /// For how long, in seconds, if nobody removes it.
    pub ttl: u64,
}

/// Has the gate ask another ACME client for tokens that it does not know.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RelayRequest {
    /// The hosts it is asked for; empty: any.
    pub hosts: Vec<Identifier>,
}

/// Somebody came for a token that the gate does not know.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RelayQuestion {
    /// To be named in the answer.
    pub number: u64,
    /// What he came for.
    pub token: String,
    /// The host that he asked.
    pub host: Identifier,
}

/// What the other client says.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RelayAnswer {
    /// The question's number.
    pub number: u64,
    /// The exact answer; `None` where it knows no such token.
    pub key_authorization: Option<String>,
}

/// A refusal, as JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Refusal {
    /// One or more sentences.
    pub error: String,
    /// It names something that there is not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unknown: bool,
}

/// The answer to a reload that was done.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reloaded {
    /// Things that deserve a word.
    pub warnings: Vec<String>,
}
