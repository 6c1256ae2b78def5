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
    /// What the live version was ordered for; a CA may have added names.
    pub ordered_for: Vec<Identifier>,
    /// When the live version was obtained.
    pub obtained_at: Option<Timestamp>,
    /// Attempts to obtain a certificate since the last success.
    pub attempts: Attempts,
    /// The identifiers that those attempts were for: another wish starts afresh.
    pub attempted_for: Vec<Identifier>,
    /// What each server, by the name of its `[deploy.NAME]`, has taken. One whose version is not the
    /// live one has yet to take it.
    pub deployed: BTreeMap<String, Deployed>,
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

/// What a server has taken.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Deployed {
    /// The version it took last.
    pub version: Option<Version>,
    /// Failures in a row since then.
    pub attempts: Attempts,
}
