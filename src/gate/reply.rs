//! What a request on port 80 gets. Pure: values in, a value out.

use std::borrow::Cow;
use std::collections::BTreeSet;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version, header};

use super::Policy;
use super::host::{Host, HostError};
use crate::challenge::{ChallengeTable, Outcome, Token};
use crate::config::RedirectHosts;
use crate::hostname::Identifier;

/// Where challenges live (RFC 8555 section 8.3). Nothing at or below it is ever redirected.
pub const CHALLENGE_PATH: &str = "/.well-known/acme-challenge";

/// The parts of a request that decide.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The method.
    pub method: &'a Method,
    /// The client's version.
    pub version: Version,
    /// The request's target, in any of its forms.
    pub target: &'a Uri,
    /// The header, of which only `Host` counts.
    pub headers: &'a HeaderMap,
}

/// An answer, decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The challenge is pending for that host.
    Challenge {
        /// The body, exactly.
        key_authorization: Bytes,
        /// The host that was asked for; an HTTP/1.0 client may not say.
        host: Option<Identifier>,
    },
    /// No answer to that challenge. The client can't tell the reasons apart.
    NoChallenge {
        /// For our own records; never [`Outcome::Answered`].
        reason: Outcome,
        /// The host that was asked for.
        host: Option<Identifier>,
    },
    /// Neither GET nor HEAD at a challenge.
    MethodNotAllowed,
    /// To https.
    Redirect {
        /// Permanent only where a certificate for the host is served.
        status: StatusCode,
        /// `https://HOST[:PORT]/path?query`
        location: HeaderValue,
    },
    /// A host that is none of ours (RFC 9110 section 15.5.20).
    Misdirected,
    /// A request that names no host or no path in a form that can be relied on.
    BadRequest(BadRequest),
}

/// Why a request is refused whatever it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// The host.
    #[error(transparent)]
    Host(#[from] HostError),
    /// `*`, an authority (CONNECT), or bytes that no URL may carry.
    #[error("the target is no path in visible ASCII")]
    Target,
    /// HTTP/1.0 without a host, where the answer depends on it.
    #[error("no host to redirect to")]
    NoHost,
}

/// Decides. `served` are the identifiers for which a certificate is served.
pub fn reply(
    request: &Request<'_>,
    table: &ChallengeTable,
    policy: &Policy,
    served: &BTreeSet<Identifier>,
) -> Reply {
    decide(request, table, policy, served).unwrap_or_else(Reply::BadRequest)
}

fn decide(
    request: &Request<'_>,
    table: &ChallengeTable,
    policy: &Policy,
    served: &BTreeSet<Identifier>,
) -> Result<Reply, BadRequest> {
    let host = Host::of(request.version, request.target, request.headers)?.map(|host| host.identifier);
    let path_and_query = request.target.path_and_query().ok_or(BadRequest::Target)?.as_str();
    let is_path = path_and_query.starts_with(['/', '?']);
    if *request.method == Method::CONNECT || !is_path || !path_and_query.bytes().all(|b| b.is_ascii_graphic())
    {
        return Err(BadRequest::Target);
    }
    if let Some(token) = challenge_token(request.target.path()) {
        return Ok(if matches!(*request.method, Method::GET | Method::HEAD) {
            challenge(token, host, table, policy.match_host)
        } else {
            Reply::MethodNotAllowed
        });
    }
    let host = host.ok_or(BadRequest::NoHost)?;
    if let RedirectHosts::Configured(hosts) = &policy.redirect.hosts
        && !hosts.contains(&host)
        && !served.contains(&host)
    {
        return Ok(Reply::Misdirected);
    }
    let status = if served.contains(&host) { policy.redirect.status } else { StatusCode::TEMPORARY_REDIRECT };
    Ok(Reply::Redirect { status, location: location(&host, policy.redirect.port, path_and_query)? })
}

/// What stands in a token's place; nothing is decoded, so there is one spelling of each path.
pub(super) fn challenge_token(path: &str) -> Option<&str> {
    match path.strip_prefix(CHALLENGE_PATH)? {
        "" => Some(""),
        rest => rest.strip_prefix('/'),
    }
}

fn challenge(token: &str, host: Option<Identifier>, table: &ChallengeTable, match_host: bool) -> Reply {
    if !Token::is_valid(token.as_bytes()) {
        return Reply::NoChallenge { reason: Outcome::NotAToken, host };
    }
    let Some(pending) = table.find(token) else {
        return Reply::NoChallenge { reason: Outcome::UnknownToken, host };
    };
    let reason = match &host {
        _ if !match_host => Outcome::Answered,
        Some(host) if pending.hosts.contains(host) => Outcome::Answered,
        Some(_) => Outcome::WrongHost,
        None => Outcome::NoHost,
    };
    match reason {
        Outcome::Answered => Reply::Challenge { key_authorization: pending.key_authorization, host },
        reason => Reply::NoChallenge { reason, host },
    }
}

/// `https://HOST[:PORT]/path?query`, path and query byte for byte.
fn location(host: &Identifier, port: u16, path_and_query: &str) -> Result<HeaderValue, BadRequest> {
    let host = host.authority();
    let port = if port == 443 { Cow::Borrowed("") } else { format!(":{port}").into() };
    // `http://host?query` has an empty path (RFC 9112 section 3.2.1).
    let path = if path_and_query.starts_with('?') { "/" } else { "" };
    HeaderValue::try_from(["https://", &host, &port, path, path_and_query].concat())
        .map_err(|_| BadRequest::Target)
}

impl Reply {
    /// Writes the header fields into an empty map and returns status and body. The body belongs to
    /// GET; whoever sends it leaves it out for HEAD, and adds its length and the date.
    pub fn render(self, headers: &mut HeaderMap) -> (StatusCode, Bytes) {
        const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
        const TEXT: HeaderValue = HeaderValue::from_static("text/plain");
        let (status, body) = match self {
            Self::Challenge { key_authorization, .. } => {
                let octets = const { HeaderValue::from_static("application/octet-stream") };
                headers.insert(header::CONTENT_TYPE, octets);
                headers.insert(header::CACHE_CONTROL, NO_STORE);
                return (StatusCode::OK, key_authorization);
            }
            Self::Redirect { status, location } => {
                headers.insert(header::LOCATION, location);
                return (status, Bytes::new());
            }
            // A cache in front that keeps this would hide the challenge when it is pending.
            Self::NoChallenge { .. } => {
                headers.insert(header::CACHE_CONTROL, NO_STORE);
                (StatusCode::NOT_FOUND, "404 no such challenge\n")
            }
            Self::MethodNotAllowed => {
                headers.insert(header::ALLOW, const { HeaderValue::from_static("GET, HEAD") });
                headers.insert(header::CACHE_CONTROL, NO_STORE);
                (StatusCode::METHOD_NOT_ALLOWED, "405 only GET and HEAD\n")
            }
            Self::Misdirected => (StatusCode::MISDIRECTED_REQUEST, "421 not served here\n"),
            Self::BadRequest(_) => {
                headers.insert(header::CONNECTION, const { HeaderValue::from_static("close") });
                (StatusCode::BAD_REQUEST, "400 bad request\n")
            }
        };
        headers.insert(header::CONTENT_TYPE, TEXT);
        (status, Bytes::from_static(body.as_bytes()))
    }
}

#[cfg(test)]
mod tests;
