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
    /// Until when the live version is used, whatever the CA wants: one that keeps asking for replacements
    /// does not get them.
    pub patience: Option<Timestamp>,
    /// Attempts to obtain a certificate since the last success.
    pub attempts: Attempts,
    /// The identifiers that those attempts were for: another wish starts afresh.
    pub attempted_for: Vec<Identifier>,
    /// Identifiers that a CA has validated before.
    pub validated: Vec<Identifier>,
    /// The next attempt goes to the issuer's staging directory first, because the last one failed there
    /// or in production.
    pub staging_first: bool,
    /// Identifiers that fail, and those that the live version lacks because they did.
    pub failing: BTreeMap<Identifier, Failing>,
    /// When the CA wants the live version renewed (RFC 9773).
    pub renewal_information: Option<RenewalInformation>,
    /// An order that is put off because the preflight found what would fail.
    pub postponed: Option<Postponed>,
    /// The version that is to be served, while `live` leads to the one before, because a server did not
    /// take it.
    pub held_back: Option<Version>,
    /// A version that was obtained and stored, but could not be made live: that is left to do, not another
    /// order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_live: Option<NotLive>,
    /// The serial number of a version that its CA wanted replaced before its time: it may be revoked.
    pub distrusted: Option<String>,
    /// What each server, by the name of its `[deploy.NAME]`, has taken. One whose version is not the
    /// live one has yet to take it.
    pub deployed: BTreeMap<String, Deployed>,
}

/// A version that could not be made live, and what is to be kept of it once it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct NotLive {
    /// The version.
    pub version: Version,
    /// The issuer's name that signed it.
    pub issuer: String,
    /// The type of its key.
    pub key_type: KeyType,
    /// What it was ordered for.
    pub ordered_for: Vec<Identifier>,
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

/// An identifier that orders fail for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Failing {
    /// The live version was obtained without it.
    pub dropped: bool,
    /// Failures in a row, and when it is tried again.
    pub attempts: Attempts,
}

/// What a CA said about the renewal of a certificate, and what was made of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RenewalInformation {
    /// The serial number of the certificate that it is about, hex.
    pub serial: String,
    /// The window, once the CA has named one.
    pub window: Option<SuggestedWindow>,
    /// When the CA is asked again.
    pub ask_at: Timestamp,
    /// Asks in a row that failed.
    pub failures: u32,
}

/// A suggested window (RFC 9773 section 4.2) and the moment chosen in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SuggestedWindow {
    /// Its start.
    pub start: Timestamp,
    /// Its end.
    pub end: Timestamp,
    /// The moment chosen in it, once.
    pub chosen: Timestamp,
    /// Where the CA explains it.
    pub explanation_url: Option<String>,
}

/// An order that is put off.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Postponed {
    /// Since when.
    pub since: Timestamp,
    /// How often it was looked at since.
    pub looks: u32,
    /// The next look.
    pub look_at: Timestamp,
    /// The CA is asked then, whatever is found.
    pub order_at: Timestamp,
    /// What was found the last time.
    pub reason: String,
}

/// What a server has taken.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Deployed {
    /// The version it took last.
    pub version: Option<Version>,
    /// It was told to reload, and what came of it is not known yet.
    pub under_way: bool,
    /// Its own test failed with the live version, and passed with the one before.
    pub goes_back: bool,
    /// Failures in a row since then.
    pub attempts: Attempts,
}
