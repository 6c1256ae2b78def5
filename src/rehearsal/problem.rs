//! Problem documents (RFC 7807, RFC 8555 section 6.7): how the embedded CA says no.

use http::StatusCode;
use serde_json::{Value, json};

use crate::hostname::Identifier;

use super::jwk::Algorithm;

/// An ACME error type (RFC 8555 section 6.7; `alreadyReplaced` from RFC 9773 section 7.4;
/// `invalidProfile` from draft-ietf-acme-profiles).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProblemType {
    /// No account has that key or URL.
    AccountDoesNotExist,
    /// The certificate named by `replaces` has been replaced by another order.
    AlreadyReplaced,
    /// The certificate was revoked before.
    AlreadyRevoked,
    /// The certificate signing request is unacceptable.
    BadCsr,
    /// The nonce is unknown or was used before.
    BadNonce,
    /// The key of a request is of an unsupported kind or size.
    BadPublicKey,
    /// The reason for a revocation is not one that the CA accepts.
    BadRevocationReason,
    /// The signature algorithm of a request is unsupported.
    BadSignatureAlgorithm,
    /// Certification Authority Authorization records forbid the issuance.
    Caa,
    /// The gate could not be reached.
    Connection,
    /// A DNS query failed.
    Dns,
    /// A new account must name an account elsewhere that it belongs to.
    ExternalAccountRequired,
    /// A contact URL cannot be parsed.
    InvalidContact,
    /// The profile is not offered.
    InvalidProfile,
    /// The request makes no sense.
    Malformed,
    /// The order cannot be finalized in its present state.
    OrderNotReady,
    /// Too many requests.
    RateLimited,
    /// The CA does not issue for that identifier.
    RejectedIdentifier,
    /// The CA itself failed.
    ServerInternal,
    /// Not allowed, or the challenge was answered wrongly.
    Unauthorized,
    /// A contact URL has an unsupported scheme.
    UnsupportedContact,
    /// An identifier is of an unsupported type.
    UnsupportedIdentifier,
    /// A person must do something, such as agree to the terms.
    UserActionRequired,
}

impl ProblemType {
    /// The type's URN.
    pub fn urn(self) -> String {
        format!("urn:ietf:params:acme:error:{}", self.name())
    }

    fn name(self) -> &'static str {
        match self {
            Self::AccountDoesNotExist => "accountDoesNotExist",
            Self::AlreadyReplaced => "alreadyReplaced",
            Self::AlreadyRevoked => "alreadyRevoked",
            Self::BadCsr => "badCSR",
            Self::BadNonce => "badNonce",
            Self::BadPublicKey => "badPublicKey",
            Self::BadRevocationReason => "badRevocationReason",
            Self::BadSignatureAlgorithm => "badSignatureAlgorithm",
            Self::Caa => "caa",
            Self::Connection => "connection",
            Self::Dns => "dns",
            Self::ExternalAccountRequired => "externalAccountRequired",
            Self::InvalidContact => "invalidContact",
            Self::InvalidProfile => "invalidProfile",
            Self::Malformed => "malformed",
            Self::OrderNotReady => "orderNotReady",
            Self::RateLimited => "rateLimited",
            Self::RejectedIdentifier => "rejectedIdentifier",
            Self::ServerInternal => "serverInternal",
            Self::Unauthorized => "unauthorized",
            Self::UnsupportedContact => "unsupportedContact",
            Self::UnsupportedIdentifier => "unsupportedIdentifier",
            Self::UserActionRequired => "userActionRequired",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::Caa
            | Self::ExternalAccountRequired
            | Self::OrderNotReady
            | Self::Unauthorized
            | Self::UserActionRequired => StatusCode::FORBIDDEN,
            // RFC 9773 section 5
            Self::AlreadyReplaced => StatusCode::CONFLICT,
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::ServerInternal => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

/// A problem document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) kind: ProblemType,
    pub(super) status: StatusCode,
    pub(super) detail: String,
    /// One for each identifier that is at fault (RFC 8555 section 6.7.1).
    subproblems: Vec<Subproblem>,
}

/// What is wrong with one identifier, as far as it could be read.
pub(super) type Subproblem = (Option<Identifier>, ProblemType, String);

impl Problem {
    pub(super) fn new(kind: ProblemType, detail: impl Into<String>) -> Self {
        Self { kind, status: kind.status(), detail: detail.into(), subproblems: Vec::new() }
    }

    pub(super) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(ProblemType::Malformed, detail)
    }

    /// A resource that does not exist, or not for this account: a stranger cannot tell which.
    pub(super) fn not_found(what: &str) -> Self {
        Self::malformed(format!("there is no such {what} here")).with_status(StatusCode::NOT_FOUND)
    }

    pub(super) fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// One problem for several identifiers: itself where there is one, else subproblems.
    pub(super) fn of_identifiers(mut problems: Vec<Subproblem>) -> Self {
        match problems.as_mut_slice() {
            [(_, kind, detail)] => Self::new(*kind, std::mem::take(detail)),
            [] => Self::malformed("the order is refused"),
            [(_, first, _), rest @ ..] => {
                let kind = if rest.iter().all(|(_, kind, _)| kind == first) {
                    *first
                } else {
                    ProblemType::Malformed
                };
                let detail = format!("{} of the identifiers are refused", problems.len());
                Self { subproblems: problems, ..Self::new(kind, detail) }
            }
        }
    }

    pub(super) fn with_subproblems(mut self, subproblems: Vec<Subproblem>) -> Self {
        self.subproblems = subproblems;
        self
    }

    /// What only one of several validators has seen (Let's Encrypt's words).
    pub(super) fn seen_from_afar(mut self) -> Self {
        self.detail = format!("During secondary validation: {}", self.detail);
        self
    }

    pub(super) fn to_json(&self) -> Value {
        let mut document = json!({
            "type": self.kind.urn(),
            "detail": self.detail,
            "status": self.status.as_u16(),
        });
        if !self.subproblems.is_empty() {
            document["subproblems"] = self
                .subproblems
                .iter()
                .map(|(identifier, kind, detail)| {
                    let mut sub = json!({ "type": kind.urn(), "detail": detail });
                    if let Some(identifier) = identifier {
                        sub["identifier"] = identifier_json(identifier);
                    }
                    sub
                })
                .collect();
        }
        if self.kind == ProblemType::BadSignatureAlgorithm {
            // RFC 8555 section 6.2
            document["algorithms"] = Algorithm::ALL.iter().map(|algorithm| algorithm.name()).collect();
        }
        document
    }
}

/// An identifier object (RFC 8555 section 7.1.3, RFC 8738 section 3).
pub(super) fn identifier_json(identifier: &Identifier) -> Value {
    let kind = match identifier {
        Identifier::Dns(_) => "dns",
        Identifier::Ip(_) => "ip",
    };
    json!({ "type": kind, "value": identifier.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_refused_identifier_is_the_problem_itself() {
        let problem = Problem::of_identifiers(vec![(
            Some("a.example".parse().unwrap()),
            ProblemType::RejectedIdentifier,
            "no".into(),
        )]);
        assert_eq!(
            problem.to_json(),
            json!({
                "type": "urn:ietf:params:acme:error:rejectedIdentifier",
                "detail": "no",
                "status": 400,
            })
        );
    }

    #[test]
    fn several_refused_identifiers_are_subproblems() {
        let problem = Problem::of_identifiers(vec![
            (Some("a.example".parse().unwrap()), ProblemType::RejectedIdentifier, "no".into()),
            (Some("192.0.2.1".parse().unwrap()), ProblemType::RejectedIdentifier, "nor this".into()),
        ]);
        let document = problem.to_json();
        assert_eq!(document["type"], "urn:ietf:params:acme:error:rejectedIdentifier");
        assert_eq!(document["subproblems"][1]["identifier"], json!({ "type": "ip", "value": "192.0.2.1" }));

        let mixed = Problem::of_identifiers(vec![
            (None, ProblemType::UnsupportedIdentifier, "what".into()),
            (Some("a.example".parse().unwrap()), ProblemType::RejectedIdentifier, "no".into()),
        ]);
        assert_eq!(mixed.kind, ProblemType::Malformed);
        assert_eq!(mixed.to_json()["subproblems"][0].get("identifier"), None);
    }

    #[test]
    fn a_bad_algorithm_lists_the_good_ones() {
        let document = Problem::new(ProblemType::BadSignatureAlgorithm, "HS256").to_json();
        assert_eq!(document["algorithms"], json!(["ES256", "ES384", "RS256", "EdDSA"]));
    }
}
