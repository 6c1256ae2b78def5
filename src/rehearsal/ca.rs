//! The protocol itself (RFC 8555): a request and the time in, an answer and something to do out.
//!
//! Nothing here waits or talks to anybody, so a test can drive it without a network; `server` performs
//! the [`Action`]s.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::hostname::Identifier;

use super::authority::Authority;
use super::csr;
use super::documents::{Documents, Route, TERMS};
use super::faults::{Dice, Faults};
use super::jwk::AccountKey;
use super::jws::{Jws, Payload, Signer};
use super::nonces::Nonces;
use super::order::{OrderStatus, Progress};
use super::problem::{Problem, ProblemType};
use super::reply::Reply;
use super::request::OrderRequest;
use super::state::{Limits, State};
use super::validate::Attempt;

mod accounts;

/// How many nonces may be outstanding.
const NONCES: usize = 10_000;

/// How many orders a page of an account's list holds.
const PAGE: usize = 100;

/// The embedded CA's mind.
pub(super) struct Ca {
    state: State,
    nonces: Nonces,
    authority: Authority,
    documents: Documents,
    permitted: BTreeSet<Identifier>,
    faults: Faults,
    dice: Dice,
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
    Validate { authorization: u64, attempt: Attempt },
    /// Wait, then call [`Ca::issue`].
    Issue { order: u64, after: Duration },
}

type Outcome = (Reply, Option<Action>);

impl Ca {
    pub(super) fn new(base: String, authority: Authority, permitted: &[Identifier], faults: Faults) -> Self {
        Self {
            state: State::new(Limits::default()),
            nonces: Nonces::new(NONCES),
            authority,
            documents: Documents { base },
            permitted: permitted.iter().cloned().collect(),
            dice: Dice::new(faults.seed),
            faults,
        }
    }

    pub(super) fn faults(&self) -> &Faults {
        &self.faults
    }

    pub(super) fn set_faults(&mut self, faults: Faults) {
        self.dice = Dice::new(faults.seed);
        self.faults = faults;
    }

    /// Answers a request.
    pub(super) fn handle(&mut self, ask: Ask<'_>, now: SystemTime) -> Outcome {
        let route = Route::parse(ask.path);
        let (mut reply, action) =
            self.answer(route, ask, now).unwrap_or_else(|problem| (Reply::problem(&problem), None));
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
            Route::Directory if readable => Reply::json(StatusCode::OK, &self.documents.directory()),
            Route::Terms if readable => Reply::text(TERMS),
            // RFC 8555 section 7.2
            Route::NewNonce if *ask.method == Method::HEAD => Reply::empty(StatusCode::OK),
            Route::NewNonce if readable => Reply::empty(StatusCode::NO_CONTENT),
            _ => {
                let allowed = if route.is_public() { "GET, HEAD, POST" } else { "POST" };
                let problem = Problem::malformed(format!("only {allowed} here (RFC 8555 section 6.3)"))
                    .with_status(StatusCode::METHOD_NOT_ALLOWED);
                Reply::problem(&problem).allow(allowed)
            }
        };
        Ok((reply, None))
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
                jws.url.escape_debug()
            )));
        }
        if route == Route::NewAccount {
            let Signer::Key(key) = jws.signer.clone() else {
                return Err(Problem::malformed("a request for an account carries the key itself (jwk)"));
            };
            let payload = self.authentic(jws, &key)?;
            return Ok((self.new_account(key, payload, now)?, None));
        }
        let Signer::Account(url) = &jws.signer else {
            return Err(Problem::malformed("this request is signed with the account's URL (kid)"));
        };
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
                        url.escape_debug()
                    ),
                )
            })?;
        let (key, active) = (account.key.clone(), account.active);
        let payload = self.authentic(jws, &key)?;
        if !active {
            // RFC 8555 section 7.3.6
            return Err(denied("the account is deactivated"));
        }
        self.serve(route, number, payload, now)
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
            _ => {
                payload.nothing()?;
                self.read(route, account, now)?
            }
        };
        Ok((reply, None))
    }

    /// RFC 8555 section 7.4
    fn new_order(&mut self, account: u64, payload: Payload, now: SystemTime) -> Result<Reply, Problem> {
        let request = OrderRequest::parse(payload.object()?, &self.permitted)?;
        if let Some(delay) = self.faults.retry_after_429 {
            let problem = Problem::new(
                ProblemType::RateLimited,
                format!("too many new orders recently: try again in {} seconds", delay.as_secs()),
            );
            return Ok(Reply::problem(&problem).retry_after(delay));
        }
        let token = || BASE64_URL_SAFE_NO_PAD.encode(super::random::<32>());
        let number = self.state.create_order(account, request.identifiers, request.profile, token, now)?;
        let order = self.state.order(number, account, now)?;
        Ok(Reply::json(StatusCode::CREATED, &self.documents.order(number, order))
            .location(&self.documents.url(Route::Order(number))))
    }

    /// RFC 8555 sections 7.5 and 7.5.2
    fn authorization(
        &mut self,
        number: u64,
        account: u64,
        payload: Payload,
        now: SystemTime,
    ) -> Result<Reply, Problem> {
        let authorization = self.state.authorization(number, account)?;
        if let Payload::Object(value) = payload {
            if value["status"] != "deactivated" {
                return Err(Problem::malformed("an authorization's status can be set to deactivated only"));
            }
            if !authorization.proof.deactivate() {
                return Err(Problem::malformed("only a pending or valid authorization can be deactivated"));
            }
        }
        Ok(Reply::json(StatusCode::OK, &self.documents.authorization(number, authorization, now)))
    }

    /// RFC 8555 section 7.5.1
    fn challenge(
        &mut self,
        number: u64,
        account: u64,
        payload: &Payload,
        now: SystemTime,
    ) -> Result<Outcome, Problem> {
        let thumbprint = self
            .state
            .account(account)
            .map(|account| account.key.thumbprint().to_owned())
            .ok_or_else(|| Problem::not_found("account"))?;
        let authorization = self.state.authorization(number, account)?;
        let expired = now >= authorization.expires;
        let starts = *payload != Payload::Get && authorization.proof.begin(expired);
        let action = starts.then(|| Action::Validate {
            authorization: number,
            attempt: Attempt {
                identifier: authorization.identifier.clone(),
                token: authorization.token.clone(),
                key_authorization: format!("{}.{thumbprint}", authorization.token),
            },
        });
        let reply = Reply::json(StatusCode::OK, &self.documents.challenge(number, authorization))
            .link(&self.documents.url(Route::Authorization(number)), "up");
        Ok((reply, action))
    }

    /// A validation ended.
    pub(super) fn validated(&mut self, authorization: u64, result: Result<(), Problem>, now: SystemTime) {
        self.state.prove(authorization, result, now);
    }

    /// RFC 8555 section 7.4
    fn finalize(
        &mut self,
        number: u64,
        account: u64,
        payload: Payload,
        now: SystemTime,
    ) -> Result<Outcome, Problem> {
        #[derive(Deserialize)]
        struct Finalize {
            csr: String,
        }
        let request: Finalize = read(payload.object()?)?;
        let bad = |detail: String| Problem::new(ProblemType::BadCsr, detail);
        let der = BASE64_URL_SAFE_NO_PAD
            .decode(&request.csr)
            .map_err(|e| bad(format!("csr is not base64url without padding: {e}")))?;
        let account_key = self.state.account(account).map(|account| account.key.clone());
        let account_key = account_key.ok_or_else(|| Problem::not_found("account"))?;
        let order = self.state.order(number, account, now)?;
        if order.progress.status() != OrderStatus::Ready {
            return Err(Problem::new(
                ProblemType::OrderNotReady,
                format!(
                    "the order is {}, and only a ready one can be finalized",
                    order.progress.status().name()
                ),
            ));
        }
        let identifiers = order.identifiers.iter().cloned().collect();
        let key = csr::check(&der, &identifiers, &account_key).map_err(|e| bad(e.to_string()))?;
        order.progress = Progress::Processing { key: Box::new(key) };
        let after = self.faults.processing;
        let action = if after.is_zero() {
            self.issue(number, now);
            None
        } else {
            Some(Action::Issue { order: number, after })
        };
        let reply = self.order(number, account, now)?.location(&self.documents.url(Route::Order(number)));
        Ok((reply, action))
    }

    /// Ends the processing of an order.
    pub(super) fn issue(&mut self, order: u64, now: SystemTime) {
        let Some((key, identifiers, profile)) = self.state.processing(order) else { return };
        let result = match self.faults.order_error {
            Some(kind) => Err(Problem::new(kind, "the embedded CA was told to fail here")),
            None => self
                .authority
                .issue(key, identifiers, profile.1, now, super::random(), self.faults.chain)
                .map_err(|e| Problem::new(ProblemType::ServerInternal, e.to_string())),
        };
        self.state.complete(order, result);
    }

    /// POST-as-GET of what can only be read.
    fn read(&mut self, route: Route, account: u64, now: SystemTime) -> Result<Reply, Problem> {
        Ok(match route {
            Route::Directory => Reply::json(StatusCode::OK, &self.documents.directory()),
            Route::Terms => Reply::text(TERMS),
            Route::NewNonce => Reply::empty(StatusCode::NO_CONTENT),
            Route::Order(number) => self.order(number, account, now)?,
            Route::Orders(number, from) => {
                if number != account {
                    return Err(denied("this is another account"));
                }
                let orders = self.state.orders_of(account, from, PAGE, now);
                let urls: Vec<_> =
                    orders.iter().map(|&order| self.documents.url(Route::Order(order))).collect();
                let reply = Reply::json(StatusCode::OK, &json!({ "orders": urls }));
                match orders.last() {
                    // RFC 8555 section 7.1.2.1
                    Some(last) if orders.len() == PAGE => {
                        reply.link(&self.documents.url(Route::Orders(account, last + 1)), "next")
                    }
                    _ => reply,
                }
            }
            Route::Certificate(number) => match &self.state.order(number, account, now)?.progress {
                Progress::Valid { chain } => Reply::chain(chain.clone()),
                _ => return Err(Problem::not_found("certificate")),
            },
            _ => return Err(Problem::not_found("resource")),
        })
    }

    fn order(&mut self, number: u64, account: u64, now: SystemTime) -> Result<Reply, Problem> {
        let order = self.state.order(number, account, now)?;
        let reply = Reply::json(StatusCode::OK, &self.documents.order(number, order));
        Ok(match (order.progress.status(), self.faults.processing_retry_after) {
            (OrderStatus::Processing, Some(delay)) => reply.retry_after(delay),
            _ => reply,
        })
    }
}

fn denied(detail: impl Into<String>) -> Problem {
    Problem::new(ProblemType::Unauthorized, detail).with_status(StatusCode::UNAUTHORIZED)
}

fn media_type(content_type: Option<&str>) -> Option<&str> {
    Some(content_type?.split(';').next().unwrap_or_default().trim())
}

fn read<T: DeserializeOwned>(value: Value) -> Result<T, Problem> {
    serde_json::from_value(value).map_err(|e| Problem::malformed(format!("the payload makes no sense: {e}")))
}

#[cfg(test)]
mod tests;
