//! The protocol itself (RFC 8555, RFC 9773): a request and the time in, an answer and something to do out.
//!
//! Nothing here waits or talks to anybody, so a test can drive it without a network; `server` performs
//! the [`Action`]s.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use http::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::hostname::Identifier;
use crate::words::printable;

use super::authority::Authority;
use super::certificates::Certificates;
use super::documents::{Documents, EXPLANATION, Offers, Route, TERMS};
use super::external::ExternalAccounts;
use super::faults::{AnswerFault, Dice, Faults, RetryAfter};
use super::jwk::AccountKey;
use super::jws::{Jws, Payload, Signer};
use super::limits::{Buckets, Subject};
use super::nonces::Nonces;
use super::problem::{Problem, ProblemType};
use super::reply::Reply;
use super::seen::Seen;
use super::state::{Limits, State};
use super::validate::{Attempt, Plan};

mod accounts;
mod orders;
mod renewal;
mod revocation;

use revocation::Revoker;

/// How many nonces may be outstanding.
const NONCES: usize = 10_000;

/// How many issued certificates are remembered.
const CERTIFICATES: usize = 10_000;

/// How much of a foreign text is quoted.
const SHOWN: usize = 200;

/// The embedded CA's mind.
pub(super) struct Ca {
    state: State,
    nonces: Nonces,
    certificates: Certificates,
    external: ExternalAccounts,
    buckets: Buckets,
    authority: Authority,
    documents: Documents,
    permitted: BTreeSet<Identifier>,
    leaf_lifetime: Option<Duration>,
    faults: Faults,
    dice: Dice,
    seen: Seen,
}

/// What a CA starts with.
pub(super) struct Founding {
    /// `https://ADDRESS:PORT`
    pub(super) base: String,
    pub(super) authority: Authority,
    pub(super) permitted: Vec<Identifier>,
    pub(super) external: ExternalAccounts,
    /// Of every leaf, whatever its profile says.
    pub(super) leaf_lifetime: Option<Duration>,
    pub(super) caa_identity: String,
    pub(super) faults: Faults,
}

/// A request, read whole.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask<'a> {
    pub(super) method: &'a Method,
    /// Path and query.
    pub(super) path: &'a str,
    pub(super) content_type: Option<&'a str>,
    pub(super) body: &'a [u8],
}

/// What is to be done after the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Ask the gate, then call [`Ca::validated`].
    Validate { authorization: u64, attempt: Attempt, plan: Plan },
    /// Wait, then call [`Ca::issue`].
    Issue { order: u64, after: Duration },
}

type Outcome = (Reply, Option<Action>);

impl Ca {
    pub(super) fn new(founding: Founding) -> Self {
        let Founding { base, authority, permitted, external, leaf_lifetime, caa_identity, faults } = founding;
        Self {
            state: State::new(Limits::default()),
            nonces: Nonces::new(NONCES),
            certificates: Certificates::new(CERTIFICATES),
            external,
            buckets: Buckets::default(),
            authority,
            documents: Documents { base, caa_identity, details: !faults.no_details },
            permitted: permitted.into_iter().collect(),
            leaf_lifetime,
            dice: Dice::new(faults.seed),
            faults,
            seen: Seen::default(),
        }
    }

    pub(super) fn set_faults(&mut self, faults: Faults) {
        self.dice = Dice::new(faults.seed);
        self.documents.details = !faults.no_details;
        if self.faults.limits != faults.limits {
            self.buckets.clear();
        }
        self.faults = faults;
    }

    pub(super) fn set_leaf_lifetime(&mut self, lifetime: Option<Duration>) {
        self.leaf_lifetime = lifetime;
    }

    pub(super) fn seen(&self) -> &Seen {
        &self.seen
    }

    /// The fault that a request for that path meets; it is counted by that.
    pub(super) fn meet(&mut self, path: &str) -> AnswerFault {
        if path.starts_with("/renewal-info/") {
            self.seen.renewal_info_asks += 1;
        }
        self.faults.answer_to(path)
    }

    /// Answers a request.
    pub(super) fn handle(&mut self, ask: Ask<'_>, now: SystemTime) -> Outcome {
        let route = Route::parse(ask.path);
        let (mut reply, action) = match self.faults.answer_to(ask.path) {
            AnswerFault::Status(status, retry_after) => (refusal(status, retry_after, now), None),
            _ => self.answer(route, ask, now).unwrap_or_else(|problem| (Reply::problem(&problem), None)),
        };
        if ask.method == Method::POST || route == Some(Route::NewNonce) {
            reply = reply.nonce(self.nonces.issue(super::random()));
        }
        if route != Some(Route::Directory) {
            // RFC 8555 section 7.1
            reply = reply.link(&self.documents.url(Route::Directory), "index");
        }
        if ask.method == Method::HEAD {
            reply = reply.without_body();
        }
        (reply, action)
    }

    fn answer(&mut self, route: Option<Route>, ask: Ask<'_>, now: SystemTime) -> Result<Outcome, Problem> {
        let route = route.ok_or_else(|| Problem::not_found("resource"))?;
        if *ask.method == Method::POST {
            return self.post(route, ask, now);
        }
        let readable = *ask.method == Method::GET || *ask.method == Method::HEAD;
        let reply = match route {
            // RFC 8555 section 7.2
            Route::NewNonce if *ask.method == Method::HEAD => Reply::empty(StatusCode::OK),
            _ if readable && route.is_public() => self.public(route, now)?,
            _ => {
                let allowed = if route.is_public() { "GET, HEAD, POST" } else { "POST" };
                let problem = Problem::malformed(format!("only {allowed} here (RFC 8555 section 6.3)"))
                    .with_status(StatusCode::METHOD_NOT_ALLOWED);
                Reply::problem(&problem).allow(allowed)
            }
        };
        Ok((reply, None))
    }

    /// What anybody may read.
    fn public(&mut self, route: Route, now: SystemTime) -> Result<Reply, Problem> {
        Ok(match route {
            Route::Directory => {
                let offers = Offers {
                    renewal_info: !self.faults.renewal.not_offered,
                    external_account_required: self.external.required(),
                };
                Reply::json(StatusCode::OK, &self.documents.directory(offers))
            }
            Route::Terms => Reply::text(TERMS),
            Route::Explanation => Reply::text(EXPLANATION),
            Route::NewNonce => Reply::empty(StatusCode::NO_CONTENT),
            Route::RenewalInfo(id) => self.renewal_information(&id, now)?,
            _ => return Err(Problem::not_found("resource")),
        })
    }

    fn post(&mut self, route: Route, ask: Ask<'_>, now: SystemTime) -> Result<Outcome, Problem> {
        if media_type(ask.content_type) != Some("application/jose+json") {
            return Err(Problem::malformed("the content type is not application/jose+json")
                .with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        }
        let jws = Jws::parse(ask.body)?;
        if jws.url != self.documents.url(route) {
            // RFC 8555 section 6.4
            return Err(denied(format!(
                "the protected header's url `{}` is not the one that was requested",
                printable(&jws.url, SHOWN)
            )));
        }
        match (route, jws.signer.clone()) {
            (Route::NewAccount, Signer::Key(key)) => {
                let payload = self.authentic(jws, &key)?;
                Ok((self.new_account(key, payload, now)?, None))
            }
            (Route::RevokeCert, Signer::Key(key)) => {
                let payload = self.authentic(jws, &key)?;
                Ok((self.revoke(Revoker::Key(key), payload, now)?, None))
            }
            (Route::NewAccount, Signer::Account(_)) => {
                Err(Problem::malformed("a request for an account carries the key itself (jwk)"))
            }
            (_, Signer::Key(_)) => {
                Err(Problem::malformed("this request is signed with the account's URL (kid)"))
            }
            (_, Signer::Account(url)) => {
                let (account, payload) = self.signer(&url, jws)?;
                self.serve(route, account, payload, now)
            }
        }
    }

    /// The active account with that URL, and what it signed.
    fn signer(&mut self, url: &str, jws: Jws) -> Result<(u64, Payload), Problem> {
        let number = match url.strip_prefix(&self.documents.base).and_then(Route::parse) {
            Some(Route::Account(number)) => Some(number),
            _ => None,
        };
        let (number, account) =
            number.and_then(|number| Some((number, self.state.account(number)?))).ok_or_else(|| {
                Problem::new(
                    ProblemType::AccountDoesNotExist,
                    format!(
                        "there is no account `{}` here: the embedded CA forgets all when it ends",
                        printable(url, SHOWN)
                    ),
                )
            })?;
        let (key, active) = (account.key.clone(), account.active);
        let payload = self.authentic(jws, &key)?;
        if !active {
            // RFC 8555 section 7.3.6
            return Err(denied("the account is deactivated"));
        }
        Ok((number, payload))
    }

    /// The payload, if signature and nonce are good. The nonce is looked at last, so that nobody
    /// without the key can use it up.
    fn authentic(&mut self, jws: Jws, key: &AccountKey) -> Result<Payload, Problem> {
        let nonce = jws.nonce.clone();
        let payload = jws.verify(key)?;
        let unlucky = self.dice.percent(self.faults.bad_nonce_percent);
        if !self.nonces.redeem(&nonce) || unlucky {
            return Err(Problem::new(
                ProblemType::BadNonce,
                "the nonce is unknown, too old or was used before: take the new one",
            ));
        }
        Ok(payload)
    }

    /// A request of an active account.
    fn serve(
        &mut self,
        route: Route,
        account: u64,
        payload: Payload,
        now: SystemTime,
    ) -> Result<Outcome, Problem> {
        let reply = match route {
            Route::NewOrder => self.new_order(account, payload, now)?,
            Route::Finalize(order) => return self.finalize(order, account, payload, now),
            Route::Challenge(number) => return self.challenge(number, account, &payload, now),
            Route::Account(number) => self.account(number, account, payload)?,
            Route::Authorization(number) => self.authorization(number, account, payload, now)?,
            Route::KeyChange => self.change_key(account, payload)?,
            Route::RevokeCert => self.revoke(Revoker::Account(account), payload, now)?,
            _ => {
                payload.nothing()?;
                self.read(route, account, now)?
            }
        };
        Ok((reply, None))
    }

    /// POST-as-GET of what can only be read.
    fn read(&mut self, route: Route, account: u64, now: SystemTime) -> Result<Reply, Problem> {
        match route {
            Route::Order(number) => self.order(number, account, now),
            Route::Orders(number, from) => self.orders(number, from, account, now),
            Route::Certificate(number) => self.certificate(number, account, now),
            _ => self.public(route, now),
        }
    }

    /// The answer where one of those subjects has met its limit; it is counted by that.
    fn limited(&mut self, subjects: &[Subject], now: SystemTime) -> Option<Reply> {
        let limits = self.faults.limits?;
        let limited = self.buckets.check(&limits, subjects, now).err()?;
        self.seen.limits_met += 1;
        let whole = Duration::from_secs(limited.wait.as_secs() + u64::from(limited.wait.subsec_nanos() > 0));
        let moment = super::documents::timestamp(now.checked_add(whole).unwrap_or(now));
        let moment = moment.replace('T', " ").replace('Z', " UTC");
        let detail = format!("{}, retry after {moment}", limited.detail);
        Some(Reply::problem(&Problem::new(ProblemType::RateLimited, detail)).retry_after(whole))
    }

    /// Something happened that counts against the limits.
    fn spend(&mut self, subjects: Vec<Subject>, now: SystemTime) {
        if let Some(limits) = self.faults.limits {
            self.buckets.spend(&limits, subjects, now);
        }
    }
}

/// The answer of [`AnswerFault::Status`].
fn refusal(status: u16, retry_after: RetryAfter, now: SystemTime) -> Reply {
    let status = StatusCode::from_u16(status)
        .ok()
        .filter(|status| status.is_client_error() || status.is_server_error())
        .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let (kind, detail) = match status {
        StatusCode::TOO_MANY_REQUESTS => (ProblemType::RateLimited, "too many requests: try again later"),
        StatusCode::SERVICE_UNAVAILABLE => {
            (ProblemType::ServerInternal, "the service is down for maintenance or had an internal error")
        }
        _ if status.is_server_error() => (ProblemType::ServerInternal, "internal error"),
        _ => (ProblemType::Malformed, "the embedded CA was told to refuse this"),
    };
    Reply::problem(&Problem::new(kind, detail).with_status(status)).come_back(retry_after, now)
}

fn denied(detail: impl Into<String>) -> Problem {
    Problem::new(ProblemType::Unauthorized, detail).with_status(StatusCode::UNAUTHORIZED)
}

fn media_type(content_type: Option<&str>) -> Option<&str> {
    Some(content_type?.split(';').next().unwrap_or_default().trim())
}

fn read<T: DeserializeOwned>(value: Value) -> Result<T, Problem> {
    serde_json::from_value(value).map_err(|e| {
        Problem::malformed(format!("the payload makes no sense: {}", printable(&e.to_string(), SHOWN)))
    })
}

#[cfg(test)]
mod tests;
