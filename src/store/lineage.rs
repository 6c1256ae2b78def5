//! The file `state.json` of a lineage: what was tried, and what is still to be deployed.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Version;
use crate::config::KeyType;
use crate::hostname::Identifier;

/// What is kept about a lineage besides its certificate.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct LineageState {
    /// The issuer's name that signed the live version.
    pub issuer: Option<String>,
    /// The key type of the live version.
    pub key_type: Option<KeyType>,
    /// Attempts to obtain a certificate since the last success.
    pub attempts: Attempts,
    /// The identifiers that those attempts were for: another wish starts afresh.
    pub attempted_for: Vec<Identifier>,
    /// Servers, by the name of their `[deploy.NAME]`, that have yet to take a version.
    pub pending_deploys: BTreeMap<String, PendingDeploy>,
}

/// Failures in a row, and when the next try may be.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Attempts {
    /// How many failed since the last success.
    pub failures: u32,
    /// Not before this moment.
    pub retry_at: Option<Timestamp>,
    /// What the last one failed with.
    pub last_error: Option<String>,
}

/// A version that a server has yet to take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PendingDeploy {
    /// The version to be taken.
    pub version: Version,
    /// Tries so far.
    pub attempts: Attempts,
}
