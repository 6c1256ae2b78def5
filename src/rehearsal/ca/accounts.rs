//! Accounts: created, found again, updated, deactivated (RFC 8555 section 7.3).

use std::time::SystemTime;

use http::StatusCode;
use serde::Deserialize;

use super::super::documents::Route;
use super::super::jwk::AccountKey;
use super::super::jws::Payload;
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
                (StatusCode::CREATED, self.state.create_account(key, contact, now)?)
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
}
