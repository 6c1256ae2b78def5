//! What went wrong at the CA, in words for the one who must mend it (RFC 8555 section 6.7).

use std::fmt;
use std::time::SystemTime;

use instant_acme::{Error, Problem};

use super::transport::TransportError;
use crate::certificate::CertificateError;
use crate::words::printable;

/// A failed operation at a CA.
#[derive(Debug, Clone)]
pub struct AcmeError {
    /// What was being done: "order a certificate".
    pub(super) action: &'static str,
    /// What was seen and what to do, one sentence.
    pub(super) reason: String,
    /// What follows for the next try.
    pub(super) verdict: Verdict,
}

/// What a failure means for the next try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The same request can only fail again: a person must change something.
    Permanent,
    /// The CA asked to wait, until that moment if it named one.
    RateLimited(Option<SystemTime>),
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

    pub(super) fn new(action: &'static str, verdict: Verdict, reason: impl Into<String>) -> Self {
        Self { action, reason: reason.into(), verdict }
    }

    /// From the library's error; `wait` is the Retry-After of the refusal.
    pub(super) fn from_library(action: &'static str, error: &Error, wait: Option<SystemTime>) -> Self {
        match error {
            Error::Api(problem) => {
                let verdict = match kind(problem) {
                    "rateLimited" => Verdict::RateLimited(wait),
                    "accountDoesNotExist" => Verdict::AccountGone,
                    _ if problem.status == Some(503) => Verdict::RateLimited(wait),
                    "serverInternal" | "badNonce" | "connection" | "dns" | "tls" | "unauthorized"
                    | "incorrectResponse" => Verdict::Transient,
                    _ => Verdict::Permanent,
                };
                Self::new(action, verdict, describe(problem, Stage::Asking))
            }
            Error::Json(e) => Self::new(
                action,
                Verdict::Transient,
                format!("the CA's answer is not an ACME document ({e}): is the issuer's directory URL right"),
            ),
            Error::Other(inner) => {
                let verdict = match inner.downcast_ref::<TransportError>() {
                    Some(TransportError::Problem(problem)) => {
                        return Self::from_library(action, &Error::Api(problem.clone()), wait);
                    }
                    Some(
                        TransportError::NotAcme { status: 429 | 503, .. }
                        | TransportError::Refused { status: 429 | 503, .. },
                    ) => Verdict::RateLimited(wait),
                    Some(TransportError::Redirect { .. }) => Verdict::Permanent,
                    _ => Verdict::Transient,
                };
                Self::new(action, verdict, inner.to_string())
            }
            Error::Str(_) => Self::new(
                action,
                Verdict::Transient,
                format!(
                    "the CA's answer is not an ACME document ({error}): is the issuer's directory URL right"
                ),
            ),
            other => Self::new(action, Verdict::Transient, other.to_string()),
        }
    }
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

/// The last part of `urn:ietf:params:acme:error:…`.
fn kind(problem: &Problem) -> &str {
    let kind = problem.r#type.as_deref().unwrap_or_default();
    kind.strip_prefix("urn:ietf:params:acme:error:").unwrap_or(kind)
}

pub(super) fn is_bad_nonce(error: &Error) -> bool {
    matches!(error, Error::Api(problem) if kind(problem) == "badNonce")
}

/// When a problem was met: the same type means different things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The CA answered a request of ours.
    Asking,
    /// The CA looked at a name.
    Validating,
}

/// The CA's own words, its subproblems, and the remedy for that kind of problem.
pub(super) fn describe(problem: &Problem, stage: Stage) -> String {
    let kind = kind(problem);
    let detail = printable(problem.detail.as_deref().unwrap_or("no detail given"), 600);
    let mut text = format!("{} ({})", detail.trim_end_matches('.'), printable(kind, 80));
    for sub in problem.subproblems.iter().take(10) {
        let name = sub.identifier.as_ref().map(|i| i.authorized(false).to_string()).unwrap_or_default();
        let detail = sub.detail.as_deref().unwrap_or("no detail given");
        text.push_str(&format!("; {}: {}", printable(&name, 260), printable(detail, 300)));
    }
    if let Some(remedy) = remedy(kind, stage) {
        text.push_str(": ");
        text.push_str(remedy);
    }
    text
}

/// What to do about a kind of problem.
fn remedy(kind: &str, stage: Stage) -> Option<&'static str> {
    Some(match kind {
        "connection" => {
            "the CA could not connect to port 80 of that name: open it in the firewall, forward it to this machine, and check that the name's A and AAAA records lead here"
        }
        "dns" => {
            "the CA could not resolve that name: check its A and AAAA records and its CAA records with your DNS provider"
        }
        "unauthorized" | "malformed" if stage == Stage::Asking => {
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

    #[test]
    fn verdicts_follow_the_problem_type() {
        let wait = Some(SystemTime::UNIX_EPOCH);
        for (kind, status, verdict) in [
            ("rateLimited", 429, Verdict::RateLimited(wait)),
            ("serverInternal", 503, Verdict::RateLimited(wait)),
            ("serverInternal", 500, Verdict::Transient),
            ("connection", 400, Verdict::Transient),
            ("accountDoesNotExist", 400, Verdict::AccountGone),
            ("rejectedIdentifier", 400, Verdict::Permanent),
            ("caa", 403, Verdict::Permanent),
        ] {
            assert_eq!(
                AcmeError::from_library("x", &problem(kind, status), wait).verdict(),
                verdict,
                "{kind}"
            );
        }
    }

    #[test]
    fn a_problem_is_told_with_its_remedy() {
        let Error::Api(refused) = problem("unauthorized", 403) else { unreachable!() };
        assert!(describe(&refused, Stage::Asking).contains("check `acme.eab`"));
        assert!(describe(&refused, Stage::Validating).contains("something other than this gate answered"));
        let told = AcmeError::from_library("order a certificate", &problem("caa", 403), None).to_string();
        assert_eq!(
            told,
            "cannot order a certificate: de; tail (caa); b.example: no: the name's CAA record forbids this CA: \
             add the CA to it, or choose the CA it names as `acme.issuer`"
        );
    }
}
