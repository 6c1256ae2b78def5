//! Orders, from the first request to the certificate (RFC 8555 sections 7.4 and 7.5).

use std::collections::BTreeSet;
use std::time::SystemTime;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use crate::hostname::Identifier;

use super::super::authority::{Leaf, Wanted};
use super::super::certificates::{Issued, Replacement};
use super::super::csr;
use super::super::documents::Route;
use super::super::jws::Payload;
use super::super::limits::Subject;
use super::super::order::{OrderStatus, Progress};
use super::super::problem::{Problem, ProblemType};
use super::super::random;
use super::super::reply::Reply;
use super::super::request::OrderRequest;
use super::super::state::Draft;
use super::super::validate::{Attempt, Plan};
use super::{Action, Ca, Outcome, denied, read};

/// How many orders a page of an account's list holds.
pub(super) const PAGE: usize = 100;

impl Ca {
    /// RFC 8555 section 7.4
    pub(super) fn new_order(
        &mut self,
        account: u64,
        payload: Payload,
        now: SystemTime,
    ) -> Result<Reply, Problem> {
        let request = OrderRequest::parse(payload.object()?, &self.permitted)?;
        if let Some(delay) = self.faults.retry_after_429 {
            let problem = Problem::new(
                ProblemType::RateLimited,
                format!("too many new orders recently: try again in {} seconds", delay.as_secs()),
            );
            return Ok(Reply::problem(&problem).retry_after(delay));
        }
        let refused = self.faults.refused.as_ref();
        if let Some(problem) = refused.and_then(|refused| refused.verdict(&request.identifiers)) {
            return Err(problem);
        }
        let replaces = self.replaced(account, &request, now)?;
        // A renewal that names what it replaces is exempt from all limits, as at Let's Encrypt.
        let counted = match replaces {
            Some(_) => Vec::new(),
            None => self.counted(account, &request.identifiers),
        };
        if let Some(reply) = self.limited(&counted, now) {
            return Ok(reply);
        }
        let token = || BASE64_URL_SAFE_NO_PAD.encode(random::<32>());
        let OrderRequest { identifiers, profile, .. } = request;
        let draft = Draft { account, identifiers, profile, replaces };
        let number = self.state.create_order(draft, token, now)?;
        self.spend(
            counted.into_iter().filter(|subject| matches!(subject, Subject::Orders(_))).collect(),
            now,
        );
        self.seen.orders += 1;
        if let Some(replaced) = replaces.and_then(|id| self.certificates.find_mut(&id)) {
            replaced.replacement = Replacement::Ordered(number);
            self.seen.orders_with_replaces += 1;
        }
        let order = self.state.order(number, account, now)?;
        Ok(Reply::json(StatusCode::CREATED, &self.documents.order(number, order))
            .location(&self.documents.url(Route::Order(number))))
    }

    /// What an order of those identifiers counts as. Where the same set has had a certificate before, it
    /// is a renewal, which escapes the limits on orders and domains.
    fn counted(&self, account: u64, identifiers: &[Identifier]) -> Vec<Subject> {
        let set: BTreeSet<_> = identifiers.iter().cloned().collect();
        let failures = identifiers.iter().map(|identifier| Subject::Failures(account, identifier.clone()));
        let mut subjects: Vec<_> = failures.collect();
        if !self.certificates.has_set(&set) {
            subjects.push(Subject::Orders(account));
            subjects.extend(Subject::domains(identifiers).into_iter().map(Subject::Domain));
        }
        subjects.push(Subject::Set(set));
        subjects
    }

    /// RFC 8555 sections 7.5 and 7.5.2
    pub(super) fn authorization(
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
    pub(super) fn challenge(
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
            plan: Plan {
                failing: self
                    .faults
                    .failing
                    .iter()
                    .find(|failing| failing.identifier == authorization.identifier)
                    .map(|failing| (failing.fault, failing.gate_is_asked)),
                points: self.faults.vantage_points,
            },
        });
        let reply = Reply::json(StatusCode::OK, &self.documents.challenge(number, authorization))
            .link(&self.documents.url(Route::Authorization(number)), "up");
        Ok((reply, action))
    }

    /// A validation ended.
    pub(in super::super) fn validated(
        &mut self,
        authorization: u64,
        result: Result<(), Problem>,
        now: SystemTime,
    ) {
        if let Some((account, identifier)) = self.state.prove(authorization, result, now) {
            *self.seen.authorizations_failed.entry(identifier.clone()).or_default() += 1;
            self.spend(vec![Subject::Failures(account, identifier)], now);
        }
    }

    /// RFC 8555 section 7.4
    pub(super) fn finalize(
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
        if let Some(kind) = self.faults.rsa_refused
            && *rcgen::PublicKeyData::algorithm(&key) == rcgen::PKCS_RSA_SHA256
        {
            return Err(Problem::new(kind, "the embedded CA was told to refuse RSA keys"));
        }
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
    pub(in super::super) fn issue(&mut self, order: u64, now: SystemTime) {
        let Some(waiting) = self.state.processing(order) else { return };
        let wanted = Wanted {
            names: waiting.identifiers,
            lifetime: self.leaf_lifetime.unwrap_or(waiting.profile.1),
            serial: random(),
            fault: self.faults.chain,
        };
        let result = match self.faults.order_error {
            Some(kind) => Err(Problem::new(kind, "the embedded CA was told to fail here")),
            None => self
                .authority
                .issue(waiting.key, wanted, now)
                .map_err(|e| Problem::new(ProblemType::ServerInternal, e.to_string())),
        };
        let result = match result {
            Ok(leaf) => {
                let identifiers = waiting.identifiers.to_vec();
                let (account, replaces) = (waiting.account, waiting.replaces);
                if let Some(replaced) = replaces.and_then(|id| self.certificates.find_mut(&id)) {
                    replaced.replacement = Replacement::Done;
                }
                Ok(self.record(leaf, account, identifiers, replaces.is_some(), now))
            }
            Err(problem) => Err(problem),
        };
        self.state.complete(order, result);
    }

    /// Remembers what was issued, and hands out the chain.
    fn record(
        &mut self,
        leaf: Leaf,
        account: u64,
        identifiers: Vec<Identifier>,
        exempt: bool,
        now: SystemTime,
    ) -> String {
        let set: BTreeSet<_> = identifiers.iter().cloned().collect();
        let mut subjects = vec![Subject::Set(set.clone())];
        if !exempt && !self.certificates.has_set(&set) {
            subjects.extend(Subject::domains(&identifiers).into_iter().map(Subject::Domain));
        }
        self.spend(subjects, now);
        self.seen.certificates += 1;
        self.certificates.add(
            leaf.id,
            Issued {
                account,
                identifiers: set,
                fingerprint: leaf.fingerprint,
                not_before: leaf.not_before,
                not_after: leaf.not_after,
                revoked: false,
                replacement: Replacement::None,
                asks: 0,
            },
        );
        leaf.chain
    }

    pub(super) fn order(&mut self, number: u64, account: u64, now: SystemTime) -> Result<Reply, Problem> {
        let order = self.state.order(number, account, now)?;
        let reply = Reply::json(StatusCode::OK, &self.documents.order(number, order));
        Ok(match (order.progress.status(), self.faults.processing_retry_after) {
            (OrderStatus::Processing, Some(delay)) => reply.retry_after(delay),
            _ => reply,
        })
    }

    /// RFC 8555 section 7.1.2.1
    pub(super) fn orders(
        &self,
        number: u64,
        from: u64,
        account: u64,
        now: SystemTime,
    ) -> Result<Reply, Problem> {
        if number != account {
            return Err(denied("this is another account"));
        }
        let orders = self.state.orders_of(account, from, PAGE, now);
        let urls: Vec<_> = orders.iter().map(|&order| self.documents.url(Route::Order(order))).collect();
        let reply = Reply::json(StatusCode::OK, &json!({ "orders": urls }));
        Ok(match orders.last() {
            Some(last) if orders.len() == PAGE => {
                reply.link(&self.documents.url(Route::Orders(account, last + 1)), "next")
            }
            _ => reply,
        })
    }

    /// RFC 8555 section 7.4.2
    pub(super) fn certificate(
        &mut self,
        number: u64,
        account: u64,
        now: SystemTime,
    ) -> Result<Reply, Problem> {
        match &self.state.order(number, account, now)?.progress {
            Progress::Valid { chain } => Ok(Reply::chain(chain.clone())),
            _ => Err(Problem::not_found("certificate")),
        }
    }
}
