//! Whether the CAA records in force let a CA issue: the rules that a CA follows, applied before it is asked
//! (RFC 8659 section 4, RFC 8657).

mod property;
mod words;

use self::property::{Property, parse};
use super::evidence::CaaRecord;

/// Tags that every CA understands, whatever it makes of them (RFC 8659 section 4, RFC 9495).
const UNDERSTOOD: [&str; 4] = ["issue", "issuewild", "iodef", "issuemail"];

/// What the records are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question<'a> {
    /// The issuer domain names of the CA (`caaIdentities` of its directory, RFC 8555 section 7.1.1); empty
    /// where it names none.
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

/// What in the records forbids to issue; of several records, what is nearest to a permission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// A tag that must be understood and is not (RFC 8659 section 4.1), whatever else is allowed.
    UnknownCritical {
        /// The tag.
        tag: String,
    },
    /// The CA is named, for another account only (RFC 8657 section 3).
    OtherAccount {
        /// The account that is named.
        uri: String,
    },
    /// The CA is named, for other validation methods only (RFC 8657 section 4).
    OtherMethods {
        /// The methods that are named, as they are written.
        methods: String,
    },
    /// The value is not written as RFC 8659 section 4.2 asks; it then names nobody.
    Malformed {
        /// The value.
        value: String,
    },
    /// Issuers are named, and this CA is none of them.
    OthersOnly {
        /// The issuers that are named, in lower case.
        named: Vec<String>,
    },
    /// Nobody may issue: `issue ";"`.
    Nobody,
}

/// Whether the records let the CA issue.
pub fn decide(records: &[CaaRecord], question: &Question<'_>) -> Verdict {
    if let Some(record) = records.iter().find(|record| record.critical && !is_understood(&record.tag)) {
        return Verdict::Forbidden { reason: Reason::UnknownCritical { tag: record.tag.clone() } };
    }
    let mut refusals = Vec::new();
    let mut depends = false;
    for record in in_question(records, question.wildcard) {
        match ask(&record.value, question) {
            Verdict::Allowed => return Verdict::Allowed,
            Verdict::Unknown => depends = true,
            Verdict::Forbidden { reason } => refusals.push(reason),
        }
    }
    match sum(refusals) {
        _ if depends => Verdict::Unknown,
        Some(reason) => Verdict::Forbidden { reason },
        // Records about other things, such as where to report to, forbid nothing.
        None => Verdict::Allowed,
    }
}

fn is_understood(tag: &str) -> bool {
    UNDERSTOOD.iter().any(|known| tag.eq_ignore_ascii_case(known))
}

/// The records that count: `issuewild` counts for wildcards only, and then alone (RFC 8659 section 4.3).
fn in_question(records: &[CaaRecord], wildcard: bool) -> impl Iterator<Item = &CaaRecord> {
    let has = |tag: &str| records.iter().any(|record| record.tag.eq_ignore_ascii_case(tag));
    let tag = if wildcard && has("issuewild") { "issuewild" } else { "issue" };
    records.iter().filter(move |record| record.tag.eq_ignore_ascii_case(tag))
}

/// What a single record says.
fn ask(value: &str, question: &Question<'_>) -> Verdict {
    let forbidden = |reason| Verdict::Forbidden { reason };
    let Some(property) = parse(value) else {
        return forbidden(Reason::Malformed { value: value.to_owned() });
    };
    if property.issuer.is_empty() {
        return forbidden(Reason::Nobody);
    }
    if question.identities.is_empty() {
        return Verdict::Unknown;
    }
    let is_named = |identity: &String| identity.trim_end_matches('.').eq_ignore_ascii_case(property.issuer);
    if !question.identities.iter().any(is_named) {
        return forbidden(Reason::OthersOnly { named: vec![property.issuer.to_ascii_lowercase()] });
    }
    if let Some(reason) = other_methods(&property, question.method) {
        return forbidden(reason);
    }
    account(&property, question.account_uri)
}

/// A list that cannot be read, or that is given twice, allows nothing.
fn other_methods(property: &Property<'_>, method: &str) -> Option<Reason> {
    let lists: Vec<&str> = property.values("validationmethods").collect();
    let is_label =
        |label: &str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let allows = |list: &&str| list.split(',').all(is_label) && list.split(',').any(|label| label == method);
    match lists.as_slice() {
        [] => None,
        [list] if allows(list) => None,
        lists => Some(Reason::OtherMethods { methods: lists.join("; ") }),
    }
}

/// An account that is given twice is nobody's (RFC 8657 section 3).
fn account(property: &Property<'_>, ours: Option<&str>) -> Verdict {
    let accounts: Vec<&str> = property.values("accounturi").collect();
    match (accounts.as_slice(), ours) {
        ([], _) => Verdict::Allowed,
        ([named], Some(ours)) if *named == ours => Verdict::Allowed,
        ([_], None) => Verdict::Unknown,
        (several, _) => Verdict::Forbidden { reason: Reason::OtherAccount { uri: several.join("; ") } },
    }
}

/// Of several refusals the one that is nearest to a permission; the issuers of all records together.
fn sum(refusals: Vec<Reason>) -> Option<Reason> {
    let mut named: Vec<String> = Vec::new();
    for refusal in &refusals {
        if let Reason::OthersOnly { named: more } = refusal {
            named.extend(more.iter().filter(|issuer| !named.contains(issuer)).cloned().collect::<Vec<_>>());
        }
    }
    match refusals.into_iter().min_by_key(distance)? {
        Reason::OthersOnly { .. } => Some(Reason::OthersOnly { named }),
        reason => Some(reason),
    }
}

fn distance(reason: &Reason) -> u8 {
    match reason {
        Reason::UnknownCritical { .. } => 0,
        Reason::OtherMethods { .. } => 1,
        Reason::OtherAccount { .. } => 2,
        // It may be meant for this CA.
        Reason::Malformed { .. } => 3,
        Reason::OthersOnly { .. } => 4,
        Reason::Nobody => 5,
    }
}

#[cfg(test)]
mod tests;
