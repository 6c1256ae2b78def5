//! What forbids to issue, in words, with the record to set.

use super::{Question, Reason};
use crate::hostname::Hostname;
use crate::words::printable;

/// Issuers told by name.
const NAMED: usize = 5;
/// The most that a piece of a record may be, in characters.
const PIECE: usize = 120;

impl Reason {
    /// What was found and what to set instead, in two or three sentences that end with the record. `at` is
    /// the name that the records were found at.
    pub fn explain(&self, at: &Hostname, question: &Question<'_>) -> String {
        format!("{}; {}", self.seen(at, question), self.remedy(at, question))
    }

    fn seen(&self, at: &Hostname, question: &Question<'_>) -> String {
        let ca = ca(question);
        match self {
            Self::OthersOnly { named } => {
                let (told, more) = named.split_at(named.len().min(NAMED));
                let told: Vec<String> = told.iter().map(|issuer| printable(issuer, PIECE)).collect();
                let more = match more.len() {
                    0 => String::new(),
                    count => format!(" and {count} more"),
                };
                format!("the CAA records of {at} let {}{more} issue, and not {ca}", told.join(", "))
            }
            Self::Nobody => format!("the CAA records of {at} let nobody issue"),
            Self::UnknownCritical { tag } => format!(
                "the CAA records of {at} have one with the tag `{}`, marked critical, which a CA that does \
                 not know it must obey by refusing",
                printable(tag, PIECE)
            ),
            Self::OtherAccount { uri } => format!(
                "the CAA records of {at} let {ca} issue for the account {} only, and ours is {}",
                printable(uri, PIECE),
                question.account_uri.map_or_else(|| "not known yet".into(), |ours| printable(ours, PIECE))
            ),
            Self::OtherMethods { methods } => format!(
                "the CAA records of {at} let {ca} issue after a validation by `{}` only, and ours is {}",
                printable(methods, PIECE),
                question.method
            ),
            Self::Malformed { value } => format!(
                "a CAA record of {at} has the value `{}`, which is no issuer with `tag=value` parameters, \
                 and so lets nobody issue",
                printable(value, PIECE)
            ),
        }
    }

    fn remedy(&self, at: &Hostname, question: &Question<'_>) -> String {
        let record = record(at, question);
        match self {
            Self::UnknownCritical { .. } => "remove it, or set its flags to 0".to_owned(),
            Self::OthersOnly { .. } => format!("add the record: {record}"),
            Self::Nobody => format!("set in its place: {record}"),
            Self::OtherAccount { .. } => match question.account_uri {
                Some(uri) => {
                    format!("add the record: {}", with_parameter(at, question, "accounturi", uri))
                }
                None => format!("add one without an account: {record}"),
            },
            Self::OtherMethods { .. } => format!(
                "add the record: {}",
                with_parameter(at, question, "validationmethods", question.method)
            ),
            Self::Malformed { .. } => format!("correct it, or add: {record}"),
        }
    }
}

fn ca(question: &Question<'_>) -> String {
    question.identities.first().map_or_else(|| "this CA".into(), |identity| printable(identity, PIECE))
}

fn record(at: &Hostname, question: &Question<'_>) -> String {
    format!("{at}. CAA 0 {} \"{}\"", tag(question), issuer(question))
}

fn with_parameter(at: &Hostname, question: &Question<'_>, name: &str, value: &str) -> String {
    let value = printable(value, 300);
    format!("{at}. CAA 0 {} \"{}; {name}={value}\"", tag(question), issuer(question))
}

fn tag(question: &Question<'_>) -> &'static str {
    if question.wildcard { "issuewild" } else { "issue" }
}

fn issuer(question: &Question<'_>) -> String {
    question
        .identities
        .first()
        .map_or_else(|| "the CA's issuer domain name".into(), |identity| printable(identity, PIECE))
}
