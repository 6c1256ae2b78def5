//! What went wrong at the CA, in words for the one who must mend it (RFC 8555 section 6.7).

use std::fmt;
use std::time::SystemTime;

use instant_acme::{Error, Problem, Subproblem};
use serde_json::Value;

use super::failure::{NameFailure, last_part, words};
use super::transport::TransportError;
use crate::certificate::CertificateError;
use crate::words::printable;

/// Most subproblems that are read: one for each name of a large certificate.
const SUBPROBLEMS: usize = 128;

/// A failed operation at a CA.
#[derive(Debug, Clone)]
pub struct AcmeError {
    /// What was being done: "order a certificate".
    action: &'static str,
    /// What was seen and what to do, one sentence.
    reason: String,
    /// What follows for the next try.
    verdict: Verdict,
    /// What the CA said about single names.
    failures: Vec<NameFailure>,
}

/// What a failure means for the next try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The CA refuses for good: a person must change something.
    Permanent,
    /// The CA asks to wait.
    RateLimited {
        /// Until that moment, where it named one; perhaps in the past, perhaps absurdly late.
        until: Option<SystemTime>,
        /// With everything, not only with an order like this one.
        whole_issuer: bool,
    },
    /// The CA is down, cannot be reached, or answers what is no ACME: another CA may serve.
    Unavailable,
    /// Names could not be validated; see [`AcmeError::failures`].
    Validation,
    /// It may pass by itself.
    Transient,
    /// The CA does not know the account any more: a new one is needed.
    AccountGone,
}

impl AcmeError {
    /// What the failure means for the next try.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// What was being done, as it follows "cannot".
    pub fn action(&self) -> &'static str {
        self.action
    }

    /// What the CA said about single names: one for each name whose authorization failed, and one for
    /// each name that a refusal speaks of. Empty where the failure is of another kind.
    pub fn failures(&self) -> &[NameFailure] {
        &self.failures
    }

    pub(super) fn new(action: &'static str, verdict: Verdict, reason: impl Into<String>) -> Self {
        Self { action, reason: reason.into(), verdict, failures: Vec::new() }
    }

    /// Names could not be validated.
    pub(super) fn validation(action: &'static str, failures: Vec<NameFailure>) -> Self {
        let is_final = !failures.is_empty() && failures.iter().all(|f| is_permanent(&f.kind));
        let verdict = if is_final { Verdict::Permanent } else { Verdict::Validation };
        Self { action, reason: super::failure::told(&failures), verdict, failures }
    }

    /// From the library's error.
    pub(super) fn from_library(action: &'static str, stage: Stage, error: &Error) -> Self {
        let not_acme = || {
            let reason = format!(
                "the CA's answer is not an ACME document ({error}): is the issuer's directory URL right"
            );
            Self::new(action, Verdict::Unavailable, reason)
        };
        match error {
            Error::Api(problem) => Self::from_problem(action, stage, problem, problem.status, None),
            Error::Json(_) | Error::Str(_) => not_acme(),
            Error::Other(inner) => match inner.downcast_ref::<TransportError>() {
                Some(TransportError::Problem { problem, status, wait }) => {
                    Self::from_problem(action, stage, problem, Some(*status), *wait)
                }
                Some(
                    TransportError::NotAcme { status: 429 | 503, wait, .. }
                    | TransportError::Refused { status: 429 | 503, wait, .. },
                ) => {
                    let verdict = Verdict::RateLimited { until: *wait, whole_issuer: true };
                    Self::new(action, verdict, inner.to_string())
                }
                Some(TransportError::Redirect { .. }) => {
                    Self::new(action, Verdict::Permanent, inner.to_string())
                }
                Some(_) => Self::new(action, Verdict::Unavailable, inner.to_string()),
                None => Self::new(action, Verdict::Transient, inner.to_string()),
            },
            other => Self::new(action, Verdict::Transient, other.to_string()),
        }
    }

    /// From a problem document; `status` and `wait` are those of the answer that carried it.
    pub(super) fn from_problem(
        action: &'static str,
        stage: Stage,
        problem: &Problem,
        status: Option<u16>,
        wait: Option<SystemTime>,
    ) -> Self {
        Self {
            action,
            reason: describe(problem, stage),
            verdict: verdict(problem, stage, status.or(problem.status), wait),
            failures: NameFailure::of_subproblems(problem, status),
        }
    }
}

fn verdict(problem: &Problem, stage: Stage, status: Option<u16>, wait: Option<SystemTime>) -> Verdict {
    let kind = kind(problem);
    let limited = |whole_issuer| Verdict::RateLimited { until: wait, whole_issuer };
    if stage == Stage::Validating {
        // The status in there is of the CA's choosing, and says nothing of the CA itself.
        return if is_permanent(kind) { Verdict::Permanent } else { Verdict::Validation };
    }
    match (kind, status) {
        (_, Some(503)) => limited(true),
        ("rateLimited", _) => limited(stage == Stage::Opening),
        ("accountDoesNotExist", _) => Verdict::AccountGone,
        (_, Some(429)) => limited(true),
        ("badNonce" | "serverInternal", _) | (_, Some(500..)) => Verdict::Unavailable,
        ("connection" | "dns" | "tls" | "incorrectResponse", _) => Verdict::Validation,
        ("compound", _) if is_permanent_throughout(problem) => Verdict::Permanent,
        (kind, _) if is_permanent(kind) => Verdict::Permanent,
        _ => Verdict::Transient,
    }
}

fn is_permanent_throughout(problem: &Problem) -> bool {
    let mut kinds = problem.subproblems.iter().map(|s| last_part(s.r#type.as_deref().unwrap_or_default()));
    !problem.subproblems.is_empty() && kinds.all(is_permanent)
}

/// Problems that the same request can only meet again.
fn is_permanent(kind: &str) -> bool {
    matches!(
        kind,
        "badCSR"
            | "badPublicKey"
            | "badSignatureAlgorithm"
            | "caa"
            | "externalAccountRequired"
            | "invalidContact"
            | "invalidProfile"
            | "rejectedIdentifier"
            | "unsupportedContact"
            | "unsupportedIdentifier"
            | "userActionRequired"
    )
}

impl fmt::Display for AcmeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}", self.action, self.reason)
    }
}

impl std::error::Error for AcmeError {}

impl From<CertificateError> for AcmeError {
    fn from(error: CertificateError) -> Self {
        let reason = format!("what the CA sent is not served, because {error}");
        Self::new("accept the certificate", Verdict::Transient, reason)
    }
}

/// The problem document in a refusal. What is malformed inside one is left out: the CA's words count, and
/// the library would give up the whole for a member of an unknown kind.
pub(super) fn read_problem(body: &[u8]) -> Option<Problem> {
    let document: Value = serde_json::from_slice(body).ok()?;
    let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    let status = document.get("status").and_then(Value::as_u64).and_then(|s| u16::try_from(s).ok());
    let subproblems = document.get("subproblems").and_then(Value::as_array);
    let subproblems = subproblems.into_iter().flatten().take(SUBPROBLEMS).map(|sub| Subproblem {
        identifier: sub.get("identifier").and_then(|i| serde_json::from_value(i.clone()).ok()),
        r#type: text(sub, "type"),
        detail: text(sub, "detail"),
    });
    let problem = Problem {
        r#type: text(&document, "type"),
        detail: text(&document, "detail"),
        status,
        subproblems: subproblems.collect(),
    };
    (problem.r#type.is_some() || problem.detail.is_some()).then_some(problem)
}

/// The last part of `urn:ietf:params:acme:error:…`.
pub(super) fn kind(problem: &Problem) -> &str {
    last_part(problem.r#type.as_deref().unwrap_or_default())
}

pub(super) fn is_bad_nonce(error: &Error) -> bool {
    matches!(error, Error::Api(problem) if is_bad_nonce_problem(problem))
}

pub(super) fn is_bad_nonce_problem(problem: &Problem) -> bool {
    kind(problem) == "badNonce"
}

/// When a problem was met: the same type means different things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The CA was asked for an account.
    Opening,
    /// The CA answered another signed request of ours.
    Asking,
    /// The CA looked at a name.
    Validating,
    /// The CA was asked when to renew, without an account.
    RenewalInfo,
}

/// The CA's own words, its subproblems, and the remedy for that kind of problem.
pub(super) fn describe(problem: &Problem, stage: Stage) -> String {
    let remedy = remedy(kind(problem), stage).map(|remedy| format!(": {remedy}")).unwrap_or_default();
    format!("{}{remedy}", quoted(problem))
}

/// The CA's own words with the problem's type, and no remedy.
pub(super) fn quoted(problem: &Problem) -> String {
    match kind(problem) {
        "" => words(problem, ""),
        kind => words(problem, &format!(" ({})", printable(kind, 80))),
    }
}

/// What to do about a kind of problem.
pub(super) fn remedy(kind: &str, stage: Stage) -> Option<&'static str> {
    if stage == Stage::RenewalInfo {
        return None;
    }
    Some(match kind {
        "connection" => {
            "the CA could not connect to port 80 of that name: open it in the firewall, forward it to this machine, and check that the name's A and AAAA records lead here"
        }
        "dns" => {
            "the CA could not resolve that name: check its A and AAAA records and its CAA records with your DNS provider"
        }
        "unauthorized" | "malformed" if stage != Stage::Validating => {
            "the CA does not accept this account: check `acme.eab` where it has one; if the account was deactivated, remove account.json below `accounts` in the state directory, and a new one is made"
        }
        "unauthorized" | "incorrectResponse" => {
            "something other than this gate answered the CA: the name's A and AAAA records must all lead here, and no proxy or filter in front may answer /.well-known/acme-challenge/ itself"
        }
        "caa" => {
            "the name's CAA record forbids this CA: add the CA to it, or choose the CA it names as `acme.issuer`"
        }
        "rateLimited" => {
            "the CA's limit is reached: waiting is the only remedy, and trying more often makes it longer"
        }
        "rejectedIdentifier" => "the CA does not sign for that name: remove it from `hostnames`",
        "externalAccountRequired" => "this CA wants an account made with it beforehand: set `acme.eab`",
        "userActionRequired" => "the CA wants its terms agreed to: visit it as it says",
        "invalidContact" | "unsupportedContact" => "correct the addresses in `acme.contact`",
        "invalidProfile" => "choose a `profile` that the CA's directory names, or leave it out",
        "badCSR" | "badPublicKey" => "choose another `key-type`",
        "accountDoesNotExist" => "the CA has forgotten the account",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(kind: &str, status: u16) -> Error {
        let text = format!(
            r#"{{"type":"urn:ietf:params:acme:error:{kind}","detail":"de\ntail.","status":{status},
                "subproblems":[{{"identifier":{{"type":"dns","value":"b.example"}},"detail":"no"}}]}}"#
        );
        Error::Api(serde_json::from_str(&text).unwrap())
    }

    fn refused(kind: &str, status: u16, wait: Option<SystemTime>) -> Error {
        let Error::Api(problem) = problem(kind, status) else { unreachable!() };
        Error::Other(Box::new(TransportError::Problem { problem, status, wait }))
    }

    #[test]
    fn verdicts_follow_the_problem_the_status_and_the_stage() {
        use Stage::{Asking, Opening, Validating};
        let wait = Some(SystemTime::UNIX_EPOCH);
        let limited = |whole_issuer| Verdict::RateLimited { until: wait, whole_issuer };
        for (kind, status, stage, verdict) in [
            ("rateLimited", 429, Asking, limited(false)),
            ("rateLimited", 429, Opening, limited(true)),
            ("rateLimited", 503, Asking, limited(true)),
            ("serverInternal", 503, Asking, limited(true)),
            ("malformed", 429, Asking, limited(true)),
            ("serverInternal", 500, Asking, Verdict::Unavailable),
            ("unknown", 502, Asking, Verdict::Unavailable),
            ("serverInternal", 400, Validating, Verdict::Validation),
            ("unauthorized", 503, Validating, Verdict::Validation),
            ("connection", 400, Validating, Verdict::Validation),
            ("connection", 400, Asking, Verdict::Validation),
            ("caa", 403, Validating, Verdict::Permanent),
            ("caa", 403, Asking, Verdict::Permanent),
            ("rejectedIdentifier", 400, Asking, Verdict::Permanent),
            ("badCSR", 400, Asking, Verdict::Permanent),
            ("externalAccountRequired", 403, Opening, Verdict::Permanent),
            ("accountDoesNotExist", 400, Asking, Verdict::AccountGone),
            ("unauthorized", 403, Asking, Verdict::Transient),
            ("malformed", 400, Asking, Verdict::Transient),
            ("orderNotReady", 403, Asking, Verdict::Transient),
            ("neverHeardOf", 400, Asking, Verdict::Transient),
            ("", 400, Asking, Verdict::Transient),
        ] {
            let error = AcmeError::from_library("x", stage, &refused(kind, status, wait));
            assert_eq!(error.verdict(), verdict, "{kind} {status} {stage:?}");
        }
    }

    #[test]
    fn what_is_no_acme_is_a_ca_that_is_unavailable_or_overloaded() {
        let other = |e: TransportError| Error::Other(Box::new(e));
        let (host, url) = (|| "ca.example".to_owned(), || "https://ca.example/d".to_owned());
        let not_acme = |status, wait| TransportError::NotAcme { url: url(), status, wait, kind: "x".into() };
        let wait = Some(SystemTime::UNIX_EPOCH);
        let limited = |until| Verdict::RateLimited { until, whole_issuer: true };
        for (error, verdict) in [
            (TransportError::Timeout { host: host() }, Verdict::Unavailable),
            (TransportError::Connect { host: host(), reason: "refused".into() }, Verdict::Unavailable),
            (TransportError::TooLarge { host: host() }, Verdict::Unavailable),
            (TransportError::Broken { host: host(), reason: "reset".into() }, Verdict::Unavailable),
            (TransportError::Refused { url: url(), status: 404, wait: None }, Verdict::Unavailable),
            (TransportError::Refused { url: url(), status: 429, wait }, limited(wait)),
            (not_acme(200, None), Verdict::Unavailable),
            (not_acme(502, None), Verdict::Unavailable),
            (not_acme(503, wait), limited(wait)),
            (not_acme(429, None), limited(None)),
            (TransportError::Redirect { url: url(), to: "y".into() }, Verdict::Permanent),
        ] {
            let told = error.to_string();
            let seen = AcmeError::from_library("x", Stage::Asking, &other(error));
            assert_eq!(seen.verdict(), verdict, "{told}");
        }
        let json = serde_json::from_str::<u8>("x").unwrap_err();
        for error in [Error::Json(json), Error::Str("no nonce")] {
            let seen = AcmeError::from_library("x", Stage::Asking, &error);
            assert_eq!(seen.verdict(), Verdict::Unavailable);
            assert!(seen.to_string().contains("is the issuer's directory URL right"), "{seen}");
        }
    }

    #[test]
    fn refusals_are_read_whatever_else_is_in_them() {
        for (body, kind_and_detail, subproblems) in [
            (r#"{"type":"urn:ietf:params:acme:error:caa","detail":"no"}"#, Some(("caa", "no")), 0),
            (r#"{"type":"about:blank","status":"403"}"#, Some(("about:blank", "no detail given")), 0),
            (r#"{"detail":"no","subproblems":7}"#, Some(("", "no")), 0),
            (
                r#"{"detail":"no","subproblems":[{"identifier":{"type":"tn","value":"1"}},3,{"detail":["x"]}]}"#,
                Some(("", "no")),
                3,
            ),
            (r#"{"error":"no"}"#, None, 0),
            (r#"{"type":3}"#, None, 0),
            ("[]", None, 0),
            ("no", None, 0),
            ("", None, 0),
        ] {
            let read = read_problem(body.as_bytes());
            let seen = read.as_ref().map(|p| (kind(p), words(p, "").split("; ").next().unwrap().to_owned()));
            assert_eq!(seen, kind_and_detail.map(|(k, d)| (k, d.to_owned())), "{body}");
            assert_eq!(read.map_or(0, |p| p.subproblems.len()), subproblems, "{body}");
        }
        let many = format!(r#"{{"detail":"no","subproblems":[{}{{}}]}}"#, "{},".repeat(5000));
        assert_eq!(read_problem(many.as_bytes()).unwrap().subproblems.len(), SUBPROBLEMS);
    }

    #[test]
    fn a_compound_is_as_final_as_its_parts() {
        let verdict = |kinds: &[&str]| {
            let parts: Vec<_> = kinds.iter().map(|kind| serde_json::json!({ "type": kind })).collect();
            let body = serde_json::json!({ "type": "compound", "subproblems": parts }).to_string();
            let problem = read_problem(body.as_bytes()).unwrap();
            AcmeError::from_problem("x", Stage::Asking, &problem, Some(400), None).verdict()
        };
        assert_eq!(verdict(&["caa", "rejectedIdentifier"]), Verdict::Permanent);
        assert_eq!(verdict(&["caa", "malformed"]), Verdict::Transient);
        assert_eq!(verdict(&[]), Verdict::Transient);
    }

    #[test]
    fn a_problem_is_told_with_its_remedy() {
        let Error::Api(unauthorized) = problem("unauthorized", 403) else { unreachable!() };
        assert!(describe(&unauthorized, Stage::Asking).contains("check `acme.eab`"));
        assert!(
            describe(&unauthorized, Stage::Validating).contains("something other than this gate answered")
        );
        let told = AcmeError::from_library("order a certificate", Stage::Asking, &refused("caa", 403, None))
            .to_string();
        assert_eq!(
            told,
            "cannot order a certificate: de; tail (caa); b.example: no: the name's CAA record forbids this CA: \
             add the CA to it, or choose the CA it names as `acme.issuer`"
        );
    }
}
