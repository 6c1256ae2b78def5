//! What the CA said about single names: which one failed, with what, and who had come for it.

use instant_acme::{
    AuthorizationState, AuthorizationStatus, Challenge, ChallengeStatus, ChallengeType, Problem,
};

use super::problem::{Stage, kind, remedy};
use crate::challenge::Arrival;
use crate::hostname::{Hostname, Identifier};
use crate::words::printable;

/// Longest text of a CA's about one name, in characters.
const MAX_DETAIL: usize = 600;
/// How many names are told one by one in an error.
const TOLD: usize = 10;

/// A name that the CA could not validate, or does not sign for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameFailure {
    /// The name.
    pub identifier: Identifier,
    /// The last part of the problem's type: `connection`, `unauthorized`, `caa` … (RFC 8555 section 6.7);
    /// empty where the CA named none.
    pub kind: String,
    /// The CA's own words, on one line, without a full stop.
    pub detail: String,
    /// The status in the problem document. That of a request of ours, or the CA's own choice: not what a
    /// validator was answered.
    pub status: Option<u16>,
    /// Who came to this machine for the name's challenge, and, within the last hour, for one that had been
    /// withdrawn; the first few of many.
    pub arrivals: Vec<Arrival>,
    /// Its authorization became invalid, which a CA counts.
    pub authorization_failed: bool,
    /// The CA asked in a handshake with port 443 (tls-alpn-01).
    pub by_handshake: bool,
}

impl NameFailure {
    /// What to do about a problem of this kind in general, for who has no better evidence: a clause
    /// without a full stop.
    pub fn remedy(&self) -> Option<&'static str> {
        // Of a request, these two speak of the account, and not of a name.
        let is_of_request = matches!(self.kind.as_str(), "unauthorized" | "malformed");
        let is_told = self.authorization_failed || !is_of_request;
        remedy(&self.kind, Stage::Validating).filter(|_| is_told)
    }

    /// From an authorization that can never become valid; None while it can.
    pub(super) fn of_authorization(authorization: &AuthorizationState) -> Option<Self> {
        let status = match authorization.status {
            AuthorizationStatus::Pending | AuthorizationStatus::Valid => return None,
            AuthorizationStatus::Invalid => "invalid",
            AuthorizationStatus::Revoked => "revoked",
            AuthorizationStatus::Expired => "expired",
            AuthorizationStatus::Deactivated => "deactivated",
        };
        let identifier = of_acme(authorization.identifier().identifier)?;
        let authorization_failed = authorization.status == AuthorizationStatus::Invalid;
        let problem = problem_of(authorization);
        let detail = problem.map_or_else(
            || format!("the CA's authorization is {status}, and it gave no reason"),
            |problem| words(problem, ""),
        );
        Some(Self {
            identifier,
            kind: problem.map(|p| printable(kind(p), 80)).unwrap_or_default(),
            detail,
            status: problem.and_then(|p| p.status),
            arrivals: Vec::new(),
            authorization_failed,
            by_handshake: is_by_handshake(authorization),
        })
    }

    /// From the subproblems of a refusal, those that name an identifier (RFC 8555 section 6.7.1).
    pub(super) fn of_subproblems(problem: &Problem, status: Option<u16>) -> Vec<Self> {
        let named = problem.subproblems.iter().filter_map(|sub| {
            let kind = sub.r#type.as_deref().map(last_part).unwrap_or_default();
            Some(Self {
                identifier: of_acme(sub.identifier.as_ref()?)?,
                kind: printable(kind, 80),
                detail: sentence(sub.detail.as_deref(), MAX_DETAIL),
                status: status.or(problem.status),
                arrivals: Vec::new(),
                authorization_failed: false,
                by_handshake: false,
            })
        });
        named.collect()
    }
}

fn is_by_handshake(authorization: &AuthorizationState) -> bool {
    let by_handshake = |c: &Challenge| c.r#type == ChallengeType::TlsAlpn01 && c.error.is_some();
    authorization.challenges.iter().any(by_handshake)
}

/// The error of the challenge that was tried, else any.
fn problem_of(authorization: &AuthorizationState) -> Option<&Problem> {
    let with_error = || authorization.challenges.iter().filter(|c| c.error.is_some());
    let tried = with_error().find(|c| c.r#type == ChallengeType::Http01);
    let invalid = with_error().find(|c| c.status == ChallengeStatus::Invalid);
    tried.or(invalid).or_else(|| with_error().next())?.error.as_ref()
}

/// The identifier in our form; None for kinds that http-01 cannot prove.
pub(super) fn of_acme(identifier: &instant_acme::Identifier) -> Option<Identifier> {
    match identifier {
        instant_acme::Identifier::Dns(name) => Hostname::parse_any(name).ok().map(Identifier::Dns),
        instant_acme::Identifier::Ip(ip) => Some(Identifier::Ip(*ip)),
        _ => None,
    }
}

/// What an order failed with, name by name, with the remedy once for all names that share it.
pub(super) fn told(failures: &[NameFailure]) -> String {
    let mut told: Vec<String> = Vec::new();
    for (i, failure) in failures.iter().take(TOLD).enumerate() {
        let is_last_of_kind = failures.iter().take(TOLD).skip(i + 1).all(|f| f.kind != failure.kind);
        let remedy = remedy(&failure.kind, Stage::Validating).filter(|_| is_last_of_kind);
        let remedy = remedy.map(|remedy| format!(": {remedy}")).unwrap_or_default();
        let kind = if failure.kind.is_empty() { String::new() } else { format!(" ({})", failure.kind) };
        told.push(format!("{}: {}{kind}{remedy}", failure.identifier, failure.detail));
    }
    if let Some(more) = failures.len().checked_sub(TOLD).filter(|more| *more > 0) {
        told.push(format!("and {more} more names"));
    }
    told.join("; ")
}

/// The CA's words, `mark`, and its words about the parts.
pub(super) fn words(problem: &Problem, mark: &str) -> String {
    let mut text = sentence(problem.detail.as_deref(), MAX_DETAIL);
    text.push_str(mark);
    for sub in problem.subproblems.iter().take(TOLD) {
        let name = sub.identifier.as_ref().map(|i| i.authorized(false).to_string()).unwrap_or_default();
        let name = if name.is_empty() { name } else { format!("{}: ", printable(&name, 260)) };
        text.push_str(&format!("; {name}{}", sentence(sub.detail.as_deref(), 300)));
    }
    if let Some(more) = problem.subproblems.len().checked_sub(TOLD).filter(|more| *more > 0) {
        text.push_str(&format!("; and {more} more"));
    }
    text
}

fn sentence(text: Option<&str>, limit: usize) -> String {
    let text = printable(text.unwrap_or_default(), limit);
    let text = text.trim().trim_end_matches('.');
    if text.is_empty() { "no detail given".to_owned() } else { text.to_owned() }
}

/// The last part of `urn:ietf:params:acme:error:…`.
pub(super) fn last_part(urn: &str) -> &str {
    urn.strip_prefix("urn:ietf:params:acme:error:").unwrap_or(urn)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authorization(status: &str, challenges: &str) -> AuthorizationState {
        let text = format!(
            r#"{{"identifier":{{"type":"dns","value":"A.example"}},"status":"{status}","challenges":[{challenges}]}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    fn challenge(kind: &str, status: &str, error: &str) -> String {
        let error = if error.is_empty() { String::new() } else { format!(r#","error":{error}"#) };
        format!(r#"{{"type":"{kind}","url":"u","token":"t","status":"{status}"{error}}}"#)
    }

    fn error(kind: &str, detail: &str) -> String {
        format!(r#"{{"type":"urn:ietf:params:acme:error:{kind}","detail":"{detail}","status":400}}"#)
    }

    #[test]
    fn a_dead_authorization_always_says_something() {
        let tried = challenge("http-01", "invalid", &error("connection", "de\\ntail."));
        let untried = challenge("dns-01", "pending", "");
        let odd = challenge("tls-alpn-01", "pending", &error("tls", "odd"));
        for (status, challenges, kind, detail, counted) in [
            ("invalid", vec![&untried, &tried], "connection", "de; tail", true),
            ("invalid", vec![&odd, &tried], "connection", "de; tail", true),
            ("invalid", vec![&untried, &odd], "tls", "odd", true),
            ("invalid", vec![&untried], "", "the CA's authorization is invalid, and it gave no reason", true),
            ("invalid", vec![], "", "the CA's authorization is invalid, and it gave no reason", true),
            ("expired", vec![], "", "the CA's authorization is expired, and it gave no reason", false),
            (
                "deactivated",
                vec![],
                "",
                "the CA's authorization is deactivated, and it gave no reason",
                false,
            ),
        ] {
            let challenges = challenges.into_iter().cloned().collect::<Vec<_>>().join(",");
            let failure = NameFailure::of_authorization(&authorization(status, &challenges)).unwrap();
            let seen = (failure.kind.as_str(), failure.detail.as_str(), failure.authorization_failed);
            assert_eq!(seen, (kind, detail, counted), "{status} {challenges}");
            assert_eq!(failure.identifier.to_string(), "a.example");
        }
        for alive in ["pending", "valid"] {
            assert_eq!(NameFailure::of_authorization(&authorization(alive, &tried)), None);
        }
    }

    #[test]
    fn subproblems_are_failures_of_names_that_do_not_count() {
        let text = r#"{"type":"urn:ietf:params:acme:error:compound","subproblems":[
            {"type":"urn:ietf:params:acme:error:caa","detail":"no.","identifier":{"type":"dns","value":"a.example"}},
            {"detail":"nobody's"},
            {"type":"x:y","identifier":{"type":"ip","value":"192.0.2.1"}}]}"#;
        let problem: Problem = serde_json::from_str(text).unwrap();
        let failures = NameFailure::of_subproblems(&problem, Some(403));
        let seen: Vec<_> =
            failures.iter().map(|f| (f.identifier.to_string(), f.kind.as_str(), f.detail.as_str())).collect();
        assert_eq!(
            seen,
            [("a.example".to_owned(), "caa", "no"), ("192.0.2.1".to_owned(), "x:y", "no detail given"),]
        );
        assert!(failures.iter().all(|f| !f.authorization_failed && f.status == Some(403)));
    }

    #[test]
    fn a_remedy_that_names_share_is_told_once() {
        let failure = |name: String, kind: &str| NameFailure {
            identifier: name.parse().unwrap(),
            kind: kind.to_owned(),
            detail: "refused".to_owned(),
            status: None,
            arrivals: Vec::new(),
            authorization_failed: true,
            by_handshake: false,
        };
        let mut failures: Vec<_> = (0..30).map(|n| failure(format!("n{n}.example"), "connection")).collect();
        failures.insert(1, failure("a.example".to_owned(), "caa"));
        let text = told(&failures);
        assert!(
            text.starts_with("n0.example: refused (connection); a.example: refused (caa): the name's CAA")
        );
        assert_eq!(text.matches("could not connect to port 80").count(), 1, "{text}");
        assert!(text.ends_with("and 21 more names"), "{text}");
    }
}
