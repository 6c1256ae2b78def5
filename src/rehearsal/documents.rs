//! The resources of the embedded CA as JSON (RFC 8555 section 7.1), and their URLs.

use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};

use super::order::{Progress, Proof};
use super::problem::identifier_json;
use super::profile::PROFILES;
use super::renewal::CertificateId;
use super::state::{Account, Authorization, Order};

/// A resource, by its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    Directory,
    Terms,
    NewNonce,
    NewAccount,
    NewOrder,
    Account(u64),
    /// An account's orders, from a number on.
    Orders(u64, u64),
    Order(u64),
    Finalize(u64),
    Authorization(u64),
    Challenge(u64),
    Certificate(u64),
    RevokeCert,
    KeyChange,
    RenewalInfo(CertificateId),
    /// The page that explains an unusual window.
    Explanation,
}

impl Route {
    /// Reads a path; a query makes it another path.
    pub(super) fn parse(path: &str) -> Option<Self> {
        match path {
            "/directory" => return Some(Self::Directory),
            "/terms" => return Some(Self::Terms),
            "/new-nonce" => return Some(Self::NewNonce),
            "/new-account" => return Some(Self::NewAccount),
            "/new-order" => return Some(Self::NewOrder),
            "/revoke-cert" => return Some(Self::RevokeCert),
            "/key-change" => return Some(Self::KeyChange),
            "/renewal-explained" => return Some(Self::Explanation),
            _ => {}
        }
        let (kind, rest) = path.strip_prefix('/')?.split_once('/')?;
        if let ("orders", Some((account, from))) = (kind, rest.split_once('/')) {
            return Some(Self::Orders(number(account)?, number(from)?));
        }
        if kind == RENEWAL_INFO {
            return CertificateId::parse(rest).ok().map(Self::RenewalInfo);
        }
        let number = number(rest)?;
        match kind {
            "account" => Some(Self::Account(number)),
            "order" => Some(Self::Order(number)),
            "finalize" => Some(Self::Finalize(number)),
            "authorization" => Some(Self::Authorization(number)),
            "challenge" => Some(Self::Challenge(number)),
            "certificate" => Some(Self::Certificate(number)),
            _ => None,
        }
    }

    /// Whether it may be read without a signature (RFC 8555 section 6.3, RFC 9773 section 4.1).
    pub(super) fn is_public(self) -> bool {
        matches!(
            self,
            Self::Directory | Self::Terms | Self::NewNonce | Self::RenewalInfo(_) | Self::Explanation
        )
    }

    pub(super) fn path(self) -> String {
        match self {
            Self::Directory => "/directory".to_owned(),
            Self::Terms => "/terms".to_owned(),
            Self::NewNonce => "/new-nonce".to_owned(),
            Self::NewAccount => "/new-account".to_owned(),
            Self::NewOrder => "/new-order".to_owned(),
            Self::Account(number) => format!("/account/{number}"),
            Self::Orders(account, from) => format!("/orders/{account}/{from}"),
            Self::Order(number) => format!("/order/{number}"),
            Self::Finalize(number) => format!("/finalize/{number}"),
            Self::Authorization(number) => format!("/authorization/{number}"),
            Self::Challenge(number) => format!("/challenge/{number}"),
            Self::Certificate(number) => format!("/certificate/{number}"),
            Self::RevokeCert => "/revoke-cert".to_owned(),
            Self::KeyChange => "/key-change".to_owned(),
            Self::RenewalInfo(id) => format!("/{RENEWAL_INFO}/{id}"),
            Self::Explanation => "/renewal-explained".to_owned(),
        }
    }
}

/// Where renewal information is, with the certificate's name after a slash (RFC 9773 section 4.1).
const RENEWAL_INFO: &str = "renewal-info";

/// Digits only, and as they are written back: one path for each resource.
fn number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|number: &u64| number.to_string() == text)
}

/// What is read at `termsOfService`.
pub(super) const TERMS: &str = "This is the embedded CA of wicketgate, for demonstrations, rehearsals and \
tests only. Nobody trusts its certificates, and nobody should: its keys are in memory and end with the \
process.\n";

/// What is read at an `explanationURL`.
pub(super) const EXPLANATION: &str = "The certificate was revoked. Renew it now.\n";

/// What a directory offers beyond the usual.
#[derive(Debug, Clone, Copy)]
pub(super) struct Offers {
    pub(super) renewal_info: bool,
    pub(super) external_account_required: bool,
}

/// Writes documents with absolute URLs.
#[derive(Debug, Clone)]
pub(super) struct Documents {
    /// `https://ADDRESS:PORT`
    pub(super) base: String,
    /// What the CA calls itself in CAA records.
    pub(super) caa_identity: String,
    /// Whether what is invalid tells why.
    pub(super) details: bool,
}

impl Documents {
    pub(super) fn url(&self, route: Route) -> String {
        format!("{}{}", self.base, route.path())
    }

    /// RFC 8555 section 7.1.1, without what is never offered: newAuthz.
    pub(super) fn directory(&self, offers: Offers) -> Value {
        let profiles: Map<String, Value> =
            PROFILES.iter().map(|&(name, _, description)| (name.to_owned(), description.into())).collect();
        let mut directory = json!({
            "newNonce": self.url(Route::NewNonce),
            "newAccount": self.url(Route::NewAccount),
            "newOrder": self.url(Route::NewOrder),
            "revokeCert": self.url(Route::RevokeCert),
            "keyChange": self.url(Route::KeyChange),
            "meta": {
                "termsOfService": self.url(Route::Terms),
                "website": env!("CARGO_PKG_REPOSITORY"),
                "caaIdentities": [self.caa_identity],
                "externalAccountRequired": offers.external_account_required,
                "profiles": profiles,
            },
        });
        if offers.renewal_info {
            directory["renewalInfo"] = format!("{}/{RENEWAL_INFO}", self.base).into();
        }
        directory
    }

    /// RFC 9773 section 4.2
    pub(super) fn renewal_information(
        &self,
        (start, end): (SystemTime, SystemTime),
        explanation_url: Option<&str>,
    ) -> Value {
        let mut document = json!({
            "suggestedWindow": { "start": timestamp(start), "end": timestamp(end) },
        });
        if let Some(url) = explanation_url {
            document["explanationURL"] = url.into();
        }
        document
    }

    /// RFC 8555 section 7.1.2
    pub(super) fn account(&self, number: u64, account: &Account) -> Value {
        let mut document = json!({
            "status": if account.active { "valid" } else { "deactivated" },
            "contact": account.contact,
            "termsOfServiceAgreed": true,
            "orders": self.url(Route::Orders(number, 0)),
        });
        if let Some(binding) = &account.external_binding {
            document["externalAccountBinding"] = binding.clone();
        }
        document
    }

    /// RFC 8555 section 7.1.3
    pub(super) fn order(&self, number: u64, order: &Order) -> Value {
        let authorizations = order.authorizations.iter().map(|&a| self.url(Route::Authorization(a)));
        let mut document = json!({
            "status": order.progress.status().name(),
            "expires": timestamp(order.expires),
            "identifiers": order.identifiers.iter().map(identifier_json).collect::<Vec<_>>(),
            "authorizations": authorizations.collect::<Vec<_>>(),
            "finalize": self.url(Route::Finalize(number)),
            "profile": order.profile.0,
        });
        if let Some(id) = &order.replaces {
            document["replaces"] = id.to_string().into();
        }
        match &order.progress {
            Progress::Valid { .. } => document["certificate"] = self.url(Route::Certificate(number)).into(),
            Progress::Invalid { error: Some(error) } if self.details => document["error"] = error.to_json(),
            _ => {}
        }
        document
    }

    /// RFC 8555 section 7.1.4
    pub(super) fn authorization(&self, number: u64, authorization: &Authorization, now: SystemTime) -> Value {
        json!({
            "status": authorization.status(now).name(),
            "expires": timestamp(authorization.expires),
            "identifier": identifier_json(&authorization.identifier),
            "challenges": [self.challenge(number, authorization)],
        })
    }

    /// RFC 8555 sections 7.1.5 and 8.3
    pub(super) fn challenge(&self, number: u64, authorization: &Authorization) -> Value {
        let mut document = json!({
            "type": "http-01",
            "url": self.url(Route::Challenge(number)),
            "status": authorization.proof.challenge(),
            "token": authorization.token,
        });
        match &authorization.proof {
            Proof::Valid { validated } | Proof::Deactivated { validated: Some(validated) } => {
                document["validated"] = timestamp(*validated).into();
            }
            Proof::Invalid { error } if self.details => document["error"] = error.to_json(),
            _ => {}
        }
        document
    }
}

/// RFC 3339, whole seconds.
pub(super) fn timestamp(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    jiff::Timestamp::from_second(seconds.cast_signed()).unwrap_or(jiff::Timestamp::MAX).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_is_read_back() {
        for route in [
            Route::Directory,
            Route::Terms,
            Route::NewNonce,
            Route::NewAccount,
            Route::NewOrder,
            Route::Account(1),
            Route::Orders(1, 7),
            Route::Order(2),
            Route::Finalize(3),
            Route::Authorization(4),
            Route::Challenge(5),
            Route::Certificate(u64::MAX),
            Route::RevokeCert,
            Route::KeyChange,
            Route::RenewalInfo(CertificateId { issuer: [1; 20], serial: [2; 16] }),
            Route::Explanation,
        ] {
            assert_eq!(Route::parse(&route.path()), Some(route));
        }
    }

    #[test]
    fn other_paths_lead_nowhere() {
        for path in [
            "",
            "/",
            "/directory/",
            "/directory?",
            "/order/",
            "/order/01",
            "/order/+1",
            "/order/1/2",
            "/order/18446744073709551616",
            "/revoke-cert/1",
            "/orders/1",
            "/renewal-info",
            "/renewal-info/",
            "/renewal-info/1",
            "/renewal-info/aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE",
        ] {
            assert_eq!(Route::parse(path), None, "{path}");
        }
    }

    #[test]
    fn timestamps_are_rfc_3339() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_800_000_000_900);
        assert_eq!(timestamp(time), "2027-01-15T08:00:00Z");
    }
}
