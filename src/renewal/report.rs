//! What is told: events as they happen, and the state of things when asked.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::hostname::Identifier;
use crate::store::Version;

/// Something that happened to a certificate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The lineage's name.
    pub certificate: String,
    /// What happened.
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// Nothing to do before that moment.
    NotDue {
        /// When it will be renewed.
        renews_at: Timestamp,
    },
    /// Due, but after failures not tried before that moment.
    Held {
        /// The moment.
        retry_at: Timestamp,
        /// Failures in a row.
        failures: u32,
        /// The last one.
        last_error: String,
    },
    /// An order begins, for this reason.
    Due(String),
    /// A step of the order, in words.
    Step(String),
    /// A certificate was obtained, proven, stored and is served by the front, where there is one.
    Obtained {
        /// Its version in the store.
        version: Version,
        /// Its serial number, hex.
        serial: String,
        /// What it covers.
        identifiers: Vec<Identifier>,
        /// End of validity.
        not_after: Timestamp,
        /// When it will be renewed.
        renews_at: Timestamp,
        /// It takes the place of one that was there.
        #[serde(default)]
        renewal: bool,
        /// The serial number of the second certificate of a pair, hex.
        #[serde(default)]
        also: Vec<String>,
    },
    /// The CA's limits, or what is kept of them in reserve, allow no order before that moment.
    Limited {
        /// The moment.
        retry_at: Timestamp,
        /// Which limit, and what may be done.
        reason: String,
    },
    /// The CA itself said that nothing is to be asked of it before that moment.
    IssuerPaused {
        /// The issuer's name in the configuration.
        issuer: String,
        /// The moment.
        until: Timestamp,
        /// The CA's words.
        reason: String,
    },
    /// The preflight found what would fail, so the CA was not asked.
    Postponed {
        /// What was found, what it means, what to do.
        reason: String,
        /// The next look.
        retry_at: Timestamp,
        /// The CA is asked then, whatever is found.
        order_at: Timestamp,
        /// There is a certificate from before, and it is served still.
        still_served: bool,
    },
    /// The certificate was obtained without names that fail.
    NameDropped {
        /// The names.
        identifiers: Vec<Identifier>,
        /// Why, and when they are tried again.
        reason: String,
    },
    /// Names that were left out are back in the certificate.
    NameBack {
        /// The names.
        identifiers: Vec<Identifier>,
    },
    /// The certificate still lacks names that fail.
    NameMissing {
        /// The names.
        identifiers: Vec<Identifier>,
        /// When they are tried again.
        retry_at: Timestamp,
        /// What the last try failed with.
        last_error: String,
    },
    /// An attempt failed; what was served before still is.
    Failed {
        /// What was seen and what to do.
        error: String,
        /// The next attempt.
        retry_at: Timestamp,
        /// There is a certificate from before, and it is served still.
        still_served: bool,
        /// Where it was made only to take these names back, which the certificate lacks: nothing is wrong
        /// with the others.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        still_missing: Vec<Identifier>,
    },
    /// A server took the certificate.
    Deployed {
        /// Its `[deploy.NAME]`.
        service: String,
        /// Where it was seen to serve it, and how; empty where nobody looked.
        #[serde(default)]
        proof: String,
    },
    /// A server did not take it.
    DeployFailed {
        /// Its `[deploy.NAME]`.
        service: String,
        /// What was seen.
        error: String,
        /// The next attempt.
        retry_at: Timestamp,
    },
    /// A server has yet to take it, but after failures it is not asked before that moment.
    DeployHeld {
        /// Its `[deploy.NAME]`.
        service: String,
        /// The moment.
        retry_at: Timestamp,
        /// What the last try failed with.
        last_error: String,
    },
    /// A rehearsal went the whole way.
    Rehearsed {
        /// What it went through.
        passed: String,
    },
    /// A rehearsal did not.
    RehearsalFailed {
        /// What was seen and what to do.
        error: String,
    },
    /// Something that a person should know, though the work goes on.
    Warning(String),
}

impl What {
    /// Whether a person must act or at least know.
    pub fn is_failure(&self) -> bool {
        matches!(
            self,
            Self::Failed { .. }
                | Self::DeployFailed { .. }
                | Self::Postponed { .. }
                | Self::NameDropped { .. }
                | Self::RehearsalFailed { .. }
                | Self::NameMissing { .. }
        )
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotDue { renews_at } => write!(f, "nothing to do; it is renewed at {}", minute(*renews_at)),
            Self::Held { retry_at, failures, last_error } => write!(
                f,
                "not tried now: {failures} failed in a row, the next attempt is at {} (`--force` tries at once); the last one: {last_error}",
                minute(*retry_at)
            ),
            Self::Due(reason) => write!(f, "due: {reason}"),
            Self::Step(step) => f.write_str(step),
            Self::Obtained { identifiers, not_after, renews_at, also, .. } => write!(
                f,
                "obtained {} for {}, valid until {}, to be renewed at {}",
                if also.is_empty() { "a certificate" } else { "a pair of certificates" },
                list(identifiers),
                minute(*not_after),
                minute(*renews_at)
            ),
            Self::Failed { error, retry_at, still_missing, .. } if !still_missing.is_empty() => write!(
                f,
                "FAILED to take back {}: {error}; nothing changes for its other names; next attempt at {}",
                list(still_missing),
                minute(*retry_at)
            ),
            Self::Failed { error, retry_at, still_served, .. } => {
                let still = if *still_served { "; what was served before still is" } else { "" };
                write!(f, "FAILED: {error}{still}; next attempt at {}", minute(*retry_at))
            }
            Self::Limited { retry_at, reason } => {
                write!(f, "not asked of the CA before {}: {reason}", minute(*retry_at))
            }
            Self::IssuerPaused { issuer, until, reason } => {
                write!(f, "{issuer} wants nothing to be asked of it before {}: {reason}", minute(*until))
            }
            Self::Postponed { reason, retry_at, order_at, still_served } => {
                let still = if *still_served { "; what was served before still is" } else { "" };
                write!(
                    f,
                    "PUT OFF: the CA was not asked, because it would fail: {reason}{still}; next look at {}, and the CA is asked at {} whatever is found (`renew --skip-preflight` asks at once)",
                    minute(*retry_at),
                    minute(*order_at)
                )
            }
            Self::NameDropped { identifiers, reason } => {
                write!(f, "OBTAINED WITHOUT {}: {reason}", list(identifiers))
            }
            Self::NameBack { identifiers } => {
                write!(f, "{} {} back in the certificate", list(identifiers), are(identifiers))
            }
            Self::NameMissing { identifiers, retry_at, last_error } => write!(
                f,
                "the certificate LACKS {}, tried again at {}; the last try: {last_error}",
                list(identifiers),
                minute(*retry_at)
            ),
            Self::Deployed { service, proof } if proof.is_empty() => {
                write!(f, "{service} was made to read it; nobody looked whether it serves it")
            }
            Self::Deployed { service, proof } => {
                write!(f, "{service} serves it, with its whole chain: {proof}")
            }
            Self::DeployFailed { service, error, retry_at } => {
                write!(
                    f,
                    "FAILED: {service} did not take it: {error}; next attempt at {} (`wicketgate deploy` tries at once)",
                    minute(*retry_at)
                )
            }
            Self::DeployHeld { service, retry_at, last_error } => write!(
                f,
                "{service} has not taken it yet and is asked again at {} (`wicketgate deploy` tries at once); the last try: {last_error}",
                minute(*retry_at)
            ),
            Self::Rehearsed { passed } => write!(f, "the rehearsal went well: {passed}"),
            Self::RehearsalFailed { error } => write!(f, "THE REHEARSAL FAILED: {error}"),
            Self::Warning(text) => write!(f, "warning: {text}"),
        }
    }
}

fn are(identifiers: &[Identifier]) -> &'static str {
    if identifiers.len() == 1 { "is" } else { "are" }
}

/// Names for a sentence, the first few of many.
pub(crate) fn list(identifiers: &[Identifier]) -> String {
    const SHOWN: usize = 4;
    let mut text = identifiers.iter().take(SHOWN).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if identifiers.len() > SHOWN {
        text.push_str(&format!(" and {} more", identifiers.len() - SHOWN));
    }
    text
}

/// A moment in UTC, to the second.
pub(crate) fn minute(moment: Timestamp) -> String {
    moment.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// The state of one certificate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CertificateStatus {
    /// The lineage's name.
    pub name: String,
    /// What it shall cover.
    pub identifiers: Vec<Identifier>,
    /// The issuer's name in the configuration.
    pub issuer: String,
    /// The live version is from the embedded CA, which nobody trusts.
    pub untrusted: bool,
    /// The folder with its files.
    pub path: String,
    /// The live version.
    pub version: Option<Version>,
    /// Serial number of the live version, hex.
    pub serial: Option<String>,
    /// Who signed the live version.
    pub signed_by: Option<String>,
    /// Start of validity; of a pair, when both have begun.
    pub not_before: Option<Timestamp>,
    /// End of validity; of a pair, when one of them ends.
    pub not_after: Option<Timestamp>,
    /// What its key signs with: `ecdsa` or `rsa`.
    #[serde(default)]
    pub algorithm: Option<String>,
    /// Of a pair, the second certificate.
    #[serde(default)]
    pub also: Vec<AlsoServed>,
    /// The next order.
    pub next: Timestamp,
    /// Why then.
    pub reason: String,
    /// Days until the live version ends, negative after that.
    pub days_left: Option<f64>,
    /// The part of its lifetime that is left, 1 to 0.
    pub fraction_left: Option<f64>,
    /// Where the CA explains the moment that it wants the renewal at.
    pub explanation_url: Option<String>,
    /// When the CA wants it renewed (RFC 9773), from and to.
    #[serde(default)]
    pub window: Option<(Timestamp, Timestamp)>,
    /// Attempts that may still fail at the CA that is asked next; `None` where it does not count them.
    #[serde(default)]
    pub failures_left_count: Option<u32>,
    /// The same in words.
    pub failures_left: String,
    /// That CA's name in the configuration: the first issuer, whoever signed the live version.
    #[serde(default)]
    pub failures_left_at: String,
    /// Why an order was put off: what the preflight found.
    pub put_off: Option<String>,
    /// Names that fail, or that the live version lacks.
    pub failing: Vec<NameStatus>,
    /// Failed attempts in a row.
    pub failures: u32,
    /// What the last one failed with.
    pub last_error: Option<String>,
    /// A server's own test fails with the live version, so the files are those of the one before.
    #[serde(default)]
    pub held_back: bool,
    /// Servers that take it.
    pub deploys: Vec<DeployStatus>,
}

/// The second certificate of a pair.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct AlsoServed {
    /// What its key signs with: `ecdsa` or `rsa`.
    pub algorithm: String,
    /// The folder with its files.
    pub path: String,
    /// Its serial number, hex.
    pub serial: String,
    /// Who signed it.
    pub signed_by: String,
    /// Start of its validity.
    pub not_before: Timestamp,
    /// End of its validity.
    pub not_after: Timestamp,
}

/// The state of a name that fails.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct NameStatus {
    /// The name.
    pub identifier: Identifier,
    /// The live version was obtained without it.
    pub dropped: bool,
    /// Failed tries in a row.
    pub failures: u32,
    /// When it is tried again, where it was dropped.
    pub retry_at: Option<Timestamp>,
    /// What the last try failed with.
    pub last_error: Option<String>,
}

/// The state of one server that takes a certificate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DeployStatus {
    /// Its `[deploy.NAME]`.
    pub service: String,
    /// The version it took last.
    pub version: Option<Version>,
    /// It has yet to take the live version.
    pub pending: bool,
    /// When it is tried again.
    pub retry_at: Option<Timestamp>,
    /// What the last try failed with.
    pub last_error: Option<String>,
}
