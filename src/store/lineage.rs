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
    /// The key types that the live version was ordered with, in their order; empty where that is not known.
    #[serde(rename = "key-type", with = "one_or_more")]
    pub key_types: Vec<KeyType>,
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
    /// When the CA wants each certificate of the live version renewed (RFC 9773).
    #[serde(with = "one_or_more")]
    pub renewal_information: Vec<RenewalInformation>,
    /// The half of a pair that was obtained so far: see [`Store::half`](super::Store::half).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub half: Option<Half>,
    /// An order that is put off because the preflight found what would fail.
    pub postponed: Option<Postponed>,
    /// The version that is to be served, while `live` leads to the one before, because a server did not
    /// take it.
    pub held_back: Option<Version>,
    /// A version that was obtained and stored, but could not be made live: that is left to do, not another
    /// order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_live: Option<NotLive>,
    /// Serial numbers of the version before that its CA wanted replaced before its time: it may be revoked.
    pub distrusted: Vec<String>,
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
    /// The types of its keys.
    pub key_types: Vec<KeyType>,
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

/// What the half of a pair was ordered for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Half {
    /// The issuer's name.
    pub issuer: String,
    /// Its key.
    pub key_type: KeyType,
    /// The profile that was asked for.
    pub profile: Option<String>,
    /// What it was ordered for.
    pub ordered_for: Vec<Identifier>,
    /// Its serial number, hex.
    pub serial: String,
    /// Start of its validity.
    pub not_before: Timestamp,
    /// End of its validity.
    pub not_after: Timestamp,
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

/// A list that is written as a list only where it has several items: `null`, the item, or all of them. So
/// the files of those who never have more stay as they always were.
mod one_or_more {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written<T> {
        One(T),
        More(Vec<T>),
    }

    pub(super) fn serialize<T: Serialize, S: Serializer>(items: &[T], to: S) -> Result<S::Ok, S::Error> {
        match items {
            [] => to.serialize_none(),
            [one] => one.serialize(to),
            more => more.serialize(to),
        }
    }

    pub(super) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<T>, D::Error> {
        Ok(match Option::<Written<T>>::deserialize(from)? {
            None => Vec::new(),
            Some(Written::One(one)) => vec![one],
            Some(Written::More(more)) => more,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn information(serial: &str) -> RenewalInformation {
        let ask_at = "2026-11-25T10:00:00Z".parse().unwrap();
        RenewalInformation { serial: serial.to_owned(), window: None, ask_at, failures: 0 }
    }

    #[test]
    fn one_of_a_kind_is_written_as_before_and_a_pair_as_a_list() {
        for (key_types, written) in [
            (vec![], "null"),
            (vec![KeyType::EcdsaP384], "\"ecdsa-p384\""),
            (vec![KeyType::EcdsaP256, KeyType::Rsa2048], "[\"ecdsa-p256\",\"rsa-2048\"]"),
        ] {
            let renewal_information =
                (0..key_types.len()).map(|n| information(&n.to_string())).collect::<Vec<_>>();
            let state = LineageState { key_types, renewal_information, ..LineageState::default() };
            let text = serde_json::to_string(&state).unwrap();
            assert!(text.contains(&format!("\"key-type\":{written}")), "{text}");
            assert!(!text.contains("half"), "{text}");
            assert_eq!(serde_json::from_str::<LineageState>(&text).unwrap(), state);
        }
    }

    /// As version 0.1 wrote it, with every key that it knew.
    #[test]
    fn an_old_file_is_read() {
        let text = r#"{"issuer": "letsencrypt", "key-type": "rsa-2048", "ordered-for": ["a.example"],
            "obtained-at": null, "patience": null, "attempts": {"failures": 0, "retry-at": null, "last-error": null},
            "attempted-for": [], "validated": [], "staging-first": false, "failing": {},
            "renewal-information": {"serial": "0a", "window": null, "ask-at": "2026-11-25T10:00:00Z", "failures": 0},
            "postponed": null, "deployed": {}}"#;
        let state: LineageState = serde_json::from_str(text).unwrap();
        assert_eq!(state.key_types, [KeyType::Rsa2048]);
        assert_eq!(state.renewal_information, [information("0a")]);
        let none = r#"{"key-type": null, "renewal-information": null}"#;
        assert_eq!(serde_json::from_str::<LineageState>(none).unwrap(), LineageState::default());
        assert!(serde_json::from_str::<LineageState>(r#"{"key-type": "dsa"}"#).is_err());
    }
}
