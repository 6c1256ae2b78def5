//! Accounts: created, found again, updated, given another key, deactivated (RFC 8555 section 7.3).

use std::time::SystemTime;

use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use super::super::documents::Route;
use super::super::jwk::AccountKey;
use super::super::jws::{Jws, Payload, Signer};
use super::super::limits::Subject;
use super::super::problem::{Problem, ProblemType};
use super::super::reply::Reply;
use super::super::request::contacts;
use super::{Ca, denied, read};

impl Ca {
    /// RFC 8555 section 7.3
    pub(super) fn new_account(
        &mut self,
        key: AccountKey,
        payload: Payload,
        now: SystemTime,
    ) -> Result<Reply, Problem> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct NewAccount {
            #[serde(default)]
            contact: Vec<String>,
            #[serde(default)]
            terms_of_service_agreed: bool,
            #[serde(default)]
            only_return_existing: bool,
            external_account_binding: Option<Value>,
        }
        let request: NewAccount = read(payload.object()?)?;
        let (status, number) = match self.state.account_of(&key) {
            Some(number) => (StatusCode::OK, number),
            None if request.only_return_existing => {
                return Err(Problem::new(ProblemType::AccountDoesNotExist, "no account has this key"));
            }
            None if !request.terms_of_service_agreed => {
                let problem = Problem::new(
                    ProblemType::UserActionRequired,
                    format!("the terms at {} must be agreed to", self.documents.url(Route::Terms)),
                );
                // RFC 8555 section 7.3.3
                return Ok(
                    Reply::problem(&problem).link(&self.documents.url(Route::Terms), "terms-of-service")
                );
            }
            None => {
                let contact = contacts(request.contact)?;
                // RFC 8555 section 7.3.4; ignored where nobody is known from elsewhere.
                let binding = request.external_account_binding.filter(|_| self.external.required());
                let kid = match self.external.required() {
                    true => {
                        let url = self.documents.url(Route::NewAccount);
                        Some(self.external.verify(binding.as_ref(), &key, &url)?)
                    }
                    false => None,
                };
                if let Some(reply) = self.limited(&[Subject::Accounts], now) {
                    return Ok(reply);
                }
                let number = self.state.create_account(key, contact, binding, now)?;
                if let Some(kid) = kid {
                    self.external.bind(kid);
                }
                self.spend(vec![Subject::Accounts], now);
                self.seen.accounts += 1;
                (StatusCode::CREATED, number)
            }
        };
        let account = self.state.account(number).ok_or_else(|| Problem::not_found("account"))?;
        if !account.active {
            return Err(denied("the account with this key is deactivated"));
        }
        Ok(Reply::json(status, &self.documents.account(number, account))
            .location(&self.documents.url(Route::Account(number))))
    }

    /// RFC 8555 sections 7.3.2 and 7.3.6
    pub(super) fn account(&mut self, number: u64, caller: u64, payload: Payload) -> Result<Reply, Problem> {
        #[derive(Deserialize)]
        struct Update {
            contact: Option<Vec<String>>,
            status: Option<String>,
        }
        if number != caller {
            return Err(denied("this is another account"));
        }
        let account = self.state.account_mut(number).ok_or_else(|| Problem::not_found("account"))?;
        if let Payload::Object(value) = payload {
            let update: Update = read(value)?;
            let contact = update.contact.map(contacts).transpose()?;
            match update.status.as_deref() {
                None | Some("valid") => {}
                Some("deactivated") => account.active = false,
                Some(_) => {
                    return Err(Problem::malformed("an account's status can be set to deactivated only"));
                }
            }
            if let Some(contact) = contact {
                account.contact = contact;
            }
        }
        Ok(Reply::json(StatusCode::OK, &self.documents.account(number, account)))
    }

    /// RFC 8555 section 7.3.5
    pub(super) fn change_key(&mut self, caller: u64, payload: Payload) -> Result<Reply, Problem> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct KeyChange {
            account: String,
            old_key: Value,
        }
        let inner = Jws::parse_inner(&payload.object()?)?;
        let Signer::Key(new_key) = inner.signer.clone() else {
            return Err(Problem::malformed("the inner signature carries the new key itself (jwk)"));
        };
        if inner.url != self.documents.url(Route::KeyChange) {
            return Err(Problem::malformed("the inner signature's url is not the one of the request"));
        }
        let change: KeyChange = read(inner.verify(&new_key)?.object()?)?;
        if change.account != self.documents.url(Route::Account(caller)) {
            return Err(Problem::malformed("the key change is for another account than the one that asks"));
        }
        let account = self.state.account(caller).ok_or_else(|| Problem::not_found("account"))?;
        if AccountKey::from_jwk(&change.old_key).ok().as_ref() != Some(&account.key) {
            return Err(Problem::malformed("oldKey is not the account's present key"));
        }
        if let Some(other) = self.state.account_of(&new_key) {
            let problem =
                Problem::malformed("an account has the new key already").with_status(StatusCode::CONFLICT);
            return Ok(Reply::problem(&problem).location(&self.documents.url(Route::Account(other))));
        }
        self.state.change_key(caller, new_key);
        let account = self.state.account(caller).ok_or_else(|| Problem::not_found("account"))?;
        Ok(Reply::json(StatusCode::OK, &self.documents.account(caller, account)))
    }
}
