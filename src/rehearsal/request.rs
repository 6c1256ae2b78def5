//! What clients may put into `newOrder` and into an account's contacts, checked.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::Deserialize;
use serde_json::Value;

use crate::hostname::{Hostname, Identifier};

use super::problem::{Problem, ProblemType};
use super::profile::{PROFILES, Profile, choose};

/// As many as Let's Encrypt takes.
const MAX_IDENTIFIERS: usize = 100;
const MAX_CONTACTS: usize = 10;
const MAX_ADDRESS: usize = 254;

/// An acceptable order.
#[derive(Debug, PartialEq)]
pub(super) struct OrderRequest {
    /// Without duplicates, in the client's order.
    pub(super) identifiers: Vec<Identifier>,
    pub(super) profile: &'static Profile,
    /// The name of the certificate that it replaces, as it came (RFC 9773 section 5).
    pub(super) replaces: Option<String>,
}

impl OrderRequest {
    /// Reads the payload of `newOrder` (RFC 8555 section 7.4).
    pub(super) fn parse(payload: Value, permitted: &BTreeSet<Identifier>) -> Result<Self, Problem> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct NewOrder {
            identifiers: Vec<Named>,
            profile: Option<String>,
            not_before: Option<Value>,
            not_after: Option<Value>,
            replaces: Option<String>,
        }
        let request: NewOrder = serde_json::from_value(payload)
            .map_err(|e| Problem::malformed(format!("the order makes no sense: {e}")))?;
        if request.not_before.is_some() || request.not_after.is_some() {
            return Err(Problem::malformed("notBefore and notAfter are not supported: choose a profile"));
        }
        if !(1..=MAX_IDENTIFIERS).contains(&request.identifiers.len()) {
            return Err(Problem::malformed(format!(
                "an order has 1 to {MAX_IDENTIFIERS} identifiers, not {}",
                request.identifiers.len()
            )));
        }
        let profile = choose(request.profile.as_deref()).ok_or_else(|| {
            let offered = PROFILES.iter().map(|profile| profile.0).collect::<Vec<_>>().join(", ");
            Problem::new(
                ProblemType::InvalidProfile,
                format!(
                    "there is no profile `{}`: {offered}",
                    request.profile.unwrap_or_default().escape_debug()
                ),
            )
        })?;
        let mut identifiers = Vec::new();
        let mut refused = Vec::new();
        for named in &request.identifiers {
            match named.check(permitted) {
                Ok(identifier) if identifiers.contains(&identifier) => {}
                Ok(identifier) => identifiers.push(identifier),
                Err(reason) => refused.push(reason),
            }
        }
        if refused.is_empty() {
            Ok(Self { identifiers, profile, replaces: request.replaces })
        } else {
            Err(Problem::of_identifiers(refused))
        }
    }
}

#[derive(Deserialize)]
struct Named {
    #[serde(rename = "type")]
    kind: String,
    value: String,
}

impl Named {
    fn check(
        &self,
        permitted: &BTreeSet<Identifier>,
    ) -> Result<Identifier, (Option<Identifier>, ProblemType, String)> {
        let shown = self.value.escape_debug();
        let identifier = match self.kind.as_str() {
            "dns" if self.value.starts_with("*.") => {
                return Err((
                    None,
                    ProblemType::RejectedIdentifier,
                    format!(
                        "`{shown}` is a wildcard, and only http-01 is offered here, which can't prove one"
                    ),
                ));
            }
            // In A-labels (RFC 8555 section 7.1.4), so nothing but the case may change.
            "dns" => Hostname::parse_any(&self.value)
                .ok()
                .filter(|name| name.as_str().eq_ignore_ascii_case(&self.value))
                .map(Identifier::Dns)
                .ok_or_else(|| {
                    (None, ProblemType::Malformed, format!("`{shown}` is not a host name in A-labels"))
                })?,
            // In its one textual form (RFC 8738 section 3).
            "ip" => self
                .value
                .parse()
                .ok()
                .filter(|address: &IpAddr| address.to_string() == self.value)
                .map(Identifier::Ip)
                .ok_or_else(|| {
                    (
                        None,
                        ProblemType::Malformed,
                        format!("`{shown}` is not an IP address in its shortest form"),
                    )
                })?,
            other => {
                return Err((
                    None,
                    ProblemType::UnsupportedIdentifier,
                    format!("identifiers of type `{}` are not supported", other.escape_debug()),
                ));
            }
        };
        if permitted.contains(&identifier) {
            return Ok(identifier);
        }
        let detail = format!("`{shown}` is not among the names that this embedded CA was started for");
        Err((Some(identifier), ProblemType::RejectedIdentifier, detail))
    }
}

/// Checks contact URLs (RFC 8555 section 7.3).
pub(super) fn contacts(urls: Vec<String>) -> Result<Vec<String>, Problem> {
    if urls.len() > MAX_CONTACTS {
        return Err(Problem::new(
            ProblemType::InvalidContact,
            format!("an account has at most {MAX_CONTACTS} contacts, not {}", urls.len()),
        ));
    }
    for url in &urls {
        let shown = url.escape_debug();
        let Some(address) = url.strip_prefix("mailto:") else {
            return Err(Problem::new(
                ProblemType::UnsupportedContact,
                format!("the contact `{shown}` is not a mailto: URL"),
            ));
        };
        // One address and no header fields.
        let sound = address.len() <= MAX_ADDRESS
            && address.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b',' | b'?'))
            && address
                .split_once('@')
                .is_some_and(|(local, domain)| !local.is_empty() && Hostname::parse_any(domain).is_ok());
        if !sound {
            return Err(Problem::new(
                ProblemType::InvalidContact,
                format!("the contact `{shown}` is not one mail address"),
            ));
        }
    }
    Ok(urls)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(payload: Value) -> Result<OrderRequest, Problem> {
        let permitted = ["a.example", "b.example", "192.0.2.1", "2001:db8::1"];
        OrderRequest::parse(payload, &permitted.iter().map(|name| name.parse().unwrap()).collect())
    }

    fn dns(name: &str) -> Value {
        json!({ "type": "dns", "value": name })
    }

    fn ip(address: &str) -> Value {
        json!({ "type": "ip", "value": address })
    }

    #[test]
    fn a_sound_order_is_read_without_duplicates() {
        let request = parse(json!({
            "identifiers": [dns("b.example"), dns("A.example"), ip("2001:db8::1"), dns("b.example")],
            "profile": "minutes",
        }))
        .unwrap();
        let names: Vec<_> = request.identifiers.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["b.example", "a.example", "2001:db8::1"]);
        assert_eq!(request.profile.0, "minutes");
        assert_eq!(parse(json!({ "identifiers": [dns("a.example")] })).unwrap().profile.0, "classic");
    }

    #[test]
    fn unsound_orders_are_refused_with_the_reason() {
        let many = vec![dns("a.example"); 101];
        for (payload, kind, says) in [
            (json!({}), ProblemType::Malformed, "identifiers"),
            (json!({ "identifiers": [] }), ProblemType::Malformed, "not 0"),
            (json!({ "identifiers": many }), ProblemType::Malformed, "not 101"),
            (
                json!({ "identifiers": [dns("a.example")], "notAfter": "2027-01-01T00:00:00Z" }),
                ProblemType::Malformed,
                "notAfter",
            ),
            (
                json!({ "identifiers": [dns("a.example")], "profile": "hours" }),
                ProblemType::InvalidProfile,
                "`hours`: classic, tlsserver, shortlived, minutes",
            ),
            (json!({ "identifiers": [dns("*.a.example")] }), ProblemType::RejectedIdentifier, "only http-01"),
            (json!({ "identifiers": [dns("c.example")] }), ProblemType::RejectedIdentifier, "`c.example`"),
            (json!({ "identifiers": [dns("x.a.example")] }), ProblemType::RejectedIdentifier, "not among"),
            (json!({ "identifiers": [ip("192.0.2.2")] }), ProblemType::RejectedIdentifier, "not among"),
            (json!({ "identifiers": [dns("192.0.2.1")] }), ProblemType::Malformed, "not a host name"),
            (json!({ "identifiers": [dns("bücher.example")] }), ProblemType::Malformed, "A-labels"),
            (json!({ "identifiers": [dns("a.example.")] }), ProblemType::Malformed, "not a host name"),
            (json!({ "identifiers": [ip("2001:0db8::1")] }), ProblemType::Malformed, "shortest form"),
            (
                json!({ "identifiers": [{ "type": "email", "value": "x@a.example" }] }),
                ProblemType::UnsupportedIdentifier,
                "`email`",
            ),
            (
                json!({ "identifiers": [dns("c.example"), dns("a.example"), dns("d.example")] }),
                ProblemType::RejectedIdentifier,
                "2 of the identifiers",
            ),
        ] {
            let problem = parse(payload.clone()).unwrap_err();
            assert_eq!(problem.kind, kind, "{payload}: {problem:?}");
            assert!(problem.detail.contains(says), "{payload}: {problem:?}");
        }
    }

    #[test]
    fn contacts_are_single_mail_addresses() {
        let one = |url: &str| contacts(vec![url.to_owned()]).map_err(|problem| problem.kind);
        assert!(one("mailto:ops@example.net").is_ok());
        assert!(contacts(vec![]).is_ok());
        for url in ["tel:+123", "ops@example.net", "MAILTO"] {
            assert_eq!(one(url), Err(ProblemType::UnsupportedContact), "{url}");
        }
        for url in [
            "mailto:",
            "mailto:@example.net",
            "mailto:ops",
            "mailto:a@x.net,b@x.net",
            "mailto:a@x.net?subject=x",
            "mailto:a b@x.net",
            "mailto:ops@exa_mple.net",
        ] {
            assert_eq!(one(url), Err(ProblemType::InvalidContact), "{url}");
        }
        assert!(contacts(vec!["mailto:a@x.net".into(); 11]).is_err());
    }
}
