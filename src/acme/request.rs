//! What is ordered, and the first word of an order: what a CA does not take besides the names is left out
//! once, for a certificate without it is better than none.

use instant_acme::{Error, NewOrder, Order};

use super::problem::{AcmeError, kind, quoted};
use super::renewal_info::CertificateId;
use super::session::{Session, nonce_safe};
use super::transport::{TransportError, noting_url};
use crate::config::{ChallengeKind, KeyType};
use crate::hostname::Identifier;

/// What is ordered.
#[derive(Debug, Clone)]
pub struct OrderRequest {
    /// What the certificate shall cover.
    pub identifiers: Vec<Identifier>,
    /// How that is proven.
    pub challenge: ChallengeKind,
    /// The key to make for it.
    pub key_type: KeyType,
    /// The profile to ask for, where the directory offers it.
    pub profile: Option<String>,
    /// The certificate that the new one replaces, told where the CA offers renewal information (RFC 9773
    /// section 5). Such renewals are exempt from many CAs' limits.
    pub replaces: Option<CertificateId>,
}

/// A step of an order, told as it happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The CA's directory has no such profile; the order goes on without one.
    ProfileNotOffered {
        /// The profile asked for.
        wanted: String,
        /// The profiles that there are.
        offered: Vec<String>,
    },
    /// The CA refuses the profile that its directory offers; the order is repeated without it.
    ProfileRefused {
        /// The profile asked for.
        wanted: String,
        /// The CA's words.
        reason: String,
    },
    /// The CA refuses the order, perhaps for the certificate that it says to replace; the order is
    /// repeated without saying so.
    ReplacesRefused {
        /// The CA's words.
        reason: String,
    },
    /// The order is made; so many of its identifiers must be proven.
    Ordered {
        /// Identifiers without a valid authorization.
        to_prove: usize,
        /// The CA knows which certificate the order replaces.
        replaces: bool,
    },
    /// The challenge for this identifier is in place and the CA was told.
    Challenged(Identifier),
    /// Every identifier is proven.
    Validated,
    /// The CA signs.
    Finalized,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ProfileNotOffered { wanted, offered } => {
                let offered = if offered.is_empty() { "none".to_owned() } else { offered.join(", ") };
                write!(f, "the CA offers no profile `{wanted}` (it has: {offered}); ordering without one")
            }
            Self::ProfileRefused { wanted, reason } => {
                write!(f, "the CA refuses the profile `{wanted}`: {reason}; ordering without one")
            }
            Self::ReplacesRefused { reason } => write!(
                f,
                "the CA refuses the order, which names the certificate it replaces: {reason}; ordering without naming it"
            ),
            Self::Ordered { to_prove: 0, .. } => f.write_str("ordered; the CA asks for no proof this time"),
            Self::Ordered { to_prove: 1, .. } => f.write_str("ordered; one name to prove"),
            Self::Ordered { to_prove, .. } => write!(f, "ordered; {to_prove} names to prove"),
            Self::Challenged(identifier) => write!(f, "the CA was asked to look at {identifier}"),
            Self::Validated => f.write_str("every name is proven"),
            Self::Finalized => f.write_str("the CA signs"),
        }
    }
}

impl Session {
    /// Makes the order, and tells whether the CA knows what it replaces. What a CA may refuse for itself
    /// (a profile, `replaces`) is left out once each.
    pub(super) async fn order(
        &self,
        request: &OrderRequest,
        told: &dyn Fn(Step),
    ) -> Result<(Order, bool), AcmeError> {
        let identifiers: Vec<_> = request.identifiers.iter().map(to_acme).collect();
        let mut profile = request.profile.as_deref();
        if let Some(wanted) = profile
            && !self.offers_profile(wanted)
        {
            told(Step::ProfileNotOffered { wanted: wanted.to_owned(), offered: self.profiles() });
            profile = None;
        }
        let mut replaces = request.replaces.as_ref().filter(|_| self.offers_renewal_info());
        loop {
            let mut wanted = NewOrder::new(&identifiers);
            if let Some(profile) = profile {
                wanted = wanted.profile(profile);
            }
            if let Some(replaced) = replaces {
                wanted = wanted.replaces(replaced.as_acme());
            }
            let error = match nonce_safe!(self.new_order(&wanted)) {
                Ok((order, is_confirmed)) => return Ok((order, is_confirmed && replaces.is_some())),
                Err(error) => error,
            };
            let reason = words_of(&error);
            match Refusal::of(&error, profile.is_some(), replaces.is_some()) {
                Some(Refusal::Profile) => {
                    let wanted = profile.take().unwrap_or_default().to_owned();
                    told(Step::ProfileRefused { wanted, reason });
                }
                Some(Refusal::Replaces) => {
                    replaces = None;
                    told(Step::ReplacesRefused { reason });
                }
                None => return Err(self.failed("order a certificate", &error)),
            }
        }
    }
}

impl Session {
    /// Makes an order, and tells whether the CA's answer confirms what it replaces. A CA that takes an order
    /// must repeat that in its answer (RFC 9773 section 5), and the library gives up an order where it does
    /// not. But it was made, and counts: it is gone on with, as one that replaces nothing.
    async fn new_order(&self, wanted: &NewOrder<'_>) -> Result<(Order, bool), Error> {
        match noting_url(self.account.new_order(wanted)).await {
            (Ok(order), _) => Ok((order, true)),
            (Err(Error::Other(e)), Some(url)) if !e.is::<TransportError>() => {
                tracing::debug!("the order is taken, but not as it was meant: {e}");
                Ok((nonce_safe!(self.account.order(url.clone()))?, false))
            }
            (Err(e), _) => Err(e),
        }
    }
}

/// What an order may be refused for that it can do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    Profile,
    Replaces,
}

impl Refusal {
    /// What to leave out. A refusal may be for `replaces` unless it is plainly for something else: CAs
    /// differ in how they say so, and certificates have expired over it.
    fn of(error: &Error, has_profile: bool, has_replaces: bool) -> Option<Self> {
        let replaces = has_replaces.then_some(Self::Replaces);
        let Error::Other(inner) = error else {
            // An answer that is no JSON: of an order with members that the library reads in one form only.
            return replaces.filter(|_| matches!(error, Error::Json(_)));
        };
        match inner.downcast_ref::<TransportError>() {
            Some(TransportError::Problem { status: 429 | 503, .. }) => None,
            Some(TransportError::Problem { problem, .. }) => match kind(problem) {
                "invalidProfile" if has_profile => Some(Self::Profile),
                "rateLimited" | "badNonce" | "accountDoesNotExist" => None,
                "rejectedIdentifier"
                | "unsupportedIdentifier"
                | "caa"
                | "dns"
                | "connection"
                | "tls"
                | "incorrectResponse" => None,
                _ if problem.subproblems.iter().any(|sub| sub.identifier.is_some()) => None,
                _ => replaces,
            },
            Some(TransportError::Refused { status, .. } | TransportError::NotAcme { status, .. }) => {
                replaces.filter(|_| *status >= 400 && !matches!(status, 429 | 503))
            }
            Some(_) => None,
            // The library's own: the order was taken.
            None => None,
        }
    }
}

/// The CA's words, without a remedy: the order goes on.
fn words_of(error: &Error) -> String {
    let Error::Other(inner) = error else { return error.to_string() };
    match inner.downcast_ref::<TransportError>() {
        Some(TransportError::Problem { problem, .. }) => quoted(problem),
        Some(error) => error.to_string(),
        None => error.to_string(),
    }
}

fn to_acme(identifier: &Identifier) -> instant_acme::Identifier {
    match identifier {
        Identifier::Dns(name) => instant_acme::Identifier::Dns(name.as_str().to_owned()),
        Identifier::Ip(ip) => instant_acme::Identifier::Ip(*ip),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acme::problem::read_problem;

    fn problem(kind: &str, status: u16) -> Error {
        let body = format!(r#"{{"type":"urn:ietf:params:acme:error:{kind}","detail":"no"}}"#);
        let problem = read_problem(body.as_bytes()).unwrap();
        Error::Other(Box::new(TransportError::Problem { problem, status, wait: None }))
    }

    #[test]
    fn what_is_left_out_of_an_order_that_was_refused() {
        use Refusal::{Profile, Replaces};
        for (kind, status, expected) in [
            ("alreadyReplaced", 409, Some(Replaces)),
            ("malformed", 400, Some(Replaces)),
            ("unauthorized", 403, Some(Replaces)),
            ("serverInternal", 500, Some(Replaces)),
            ("neverHeardOf", 404, Some(Replaces)),
            ("invalidProfile", 400, Some(Profile)),
            ("serverInternal", 503, None),
            ("rateLimited", 429, None),
            ("malformed", 429, None),
            ("badNonce", 400, None),
            ("accountDoesNotExist", 400, None),
            ("rejectedIdentifier", 400, None),
            ("unsupportedIdentifier", 400, None),
            ("caa", 403, None),
        ] {
            let error = problem(kind, status);
            assert_eq!(Refusal::of(&error, true, true), expected, "{kind} {status}");
            let without = expected.filter(|refusal| *refusal == Profile);
            assert_eq!(Refusal::of(&error, true, false), without, "{kind} {status}");
        }
        assert_eq!(Refusal::of(&problem("invalidProfile", 400), false, true), Some(Replaces));
        assert_eq!(Refusal::of(&problem("invalidProfile", 400), false, false), None);
    }

    #[test]
    fn refusals_in_other_forms() {
        let other = |e: TransportError| Error::Other(Box::new(e));
        let url = || "https://ca.example/o".to_owned();
        let not_acme = |status| TransportError::NotAcme { url: url(), status, wait: None, kind: "x".into() };
        let named = r#"{"type":"x:y","subproblems":[{"identifier":{"type":"dns","value":"a.example"}}]}"#;
        let named = read_problem(named.as_bytes()).unwrap();
        for (error, is_refusal) in [
            (other(TransportError::Problem { problem: named, status: 400, wait: None }), false),
            (other(TransportError::Refused { url: url(), status: 409, wait: None }), true),
            (other(TransportError::Refused { url: url(), status: 503, wait: None }), false),
            (other(not_acme(500)), true),
            (other(not_acme(200)), false),
            (other(not_acme(429)), false),
            (other(TransportError::Timeout { host: "h".into() }), false),
            (other(TransportError::Connect { host: "h".into(), reason: "r".into() }), false),
            (other(TransportError::Redirect { url: url(), to: "x".into() }), false),
            (Error::Other("replaces field mismatch".into()), false),
            (Error::Json(serde_json::from_str::<u8>("x").unwrap_err()), true),
            (Error::Str("no order URL found"), false),
        ] {
            let expected = is_refusal.then_some(Refusal::Replaces);
            assert_eq!(Refusal::of(&error, true, true), expected, "{error}");
            assert_eq!(Refusal::of(&error, true, false), None, "{error}");
        }
        assert_eq!(words_of(&problem("alreadyReplaced", 409)), "no (alreadyReplaced)");
    }
}
