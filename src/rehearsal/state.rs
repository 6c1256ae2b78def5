//! What the embedded CA remembers: accounts, orders and authorizations, each bounded in number.
//!
//! Pure: time and random tokens are arguments, and a resource is shown to its own account only.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, SystemTime};

use rcgen::SubjectPublicKeyInfo;
use serde_json::Value;

use crate::hostname::Identifier;

use super::jwk::AccountKey;
use super::order::{AuthorizationStatus, OrderStatus, Progress, Proof, settle};
use super::problem::{Problem, ProblemType};
use super::profile::Profile;
use super::renewal::CertificateId;

/// How long orders and authorizations last.
pub(super) const ORDER_LIFETIME: Duration = Duration::from_secs(3600);

/// How long after its validation an authorization is used again for another order: long enough for a
/// retry, short enough that a renewal in the shortest profile goes the whole way.
pub(super) const REUSE: Duration = Duration::from_secs(60);

/// How many of each kind are kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) accounts: usize,
    pub(super) orders: usize,
    pub(super) authorizations: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { accounts: 10_000, orders: 10_000, authorizations: 50_000 }
    }
}

#[derive(Debug)]
pub(super) struct Account {
    pub(super) key: AccountKey,
    pub(super) contact: Vec<String>,
    pub(super) active: bool,
    /// The binding to an account elsewhere, as the client sent it.
    pub(super) external_binding: Option<Value>,
}

#[derive(Debug)]
pub(super) struct Order {
    account: u64,
    pub(super) identifiers: Vec<Identifier>,
    pub(super) authorizations: Vec<u64>,
    pub(super) profile: &'static Profile,
    pub(super) replaces: Option<CertificateId>,
    pub(super) expires: SystemTime,
    pub(super) progress: Progress,
}

/// What an order is made of.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) account: u64,
    pub(super) identifiers: Vec<Identifier>,
    pub(super) profile: &'static Profile,
    pub(super) replaces: Option<CertificateId>,
}

/// An order that waits for its certificate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiting<'a> {
    pub(super) account: u64,
    pub(super) key: &'a SubjectPublicKeyInfo,
    pub(super) identifiers: &'a [Identifier],
    pub(super) profile: &'static Profile,
    pub(super) replaces: Option<CertificateId>,
}

#[derive(Debug)]
pub(super) struct Authorization {
    account: u64,
    pub(super) identifier: Identifier,
    /// Of its http-01 challenge, which shares the authorization's number.
    pub(super) token: String,
    pub(super) proof: Proof,
    pub(super) expires: SystemTime,
    /// How many orders refer to it.
    orders: usize,
}

impl Authorization {
    pub(super) fn status(&self, now: SystemTime) -> AuthorizationStatus {
        self.proof.authorization(now >= self.expires)
    }
}

/// All that is remembered; numbers grow, so the smallest is the oldest.
#[derive(Debug, Default)]
pub(super) struct State {
    accounts: BTreeMap<u64, Account>,
    by_key: HashMap<String, u64>,
    orders: BTreeMap<u64, Order>,
    authorizations: BTreeMap<u64, Authorization>,
    /// The last authorization that became valid.
    proven: HashMap<(u64, Identifier), u64>,
    last: u64,
    limits: Limits,
}

impl State {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    pub(super) fn account(&self, number: u64) -> Option<&Account> {
        self.accounts.get(&number)
    }

    pub(super) fn account_mut(&mut self, number: u64) -> Option<&mut Account> {
        self.accounts.get_mut(&number)
    }

    pub(super) fn account_of(&self, key: &AccountKey) -> Option<u64> {
        self.by_key.get(key.thumbprint()).copied()
    }

    /// Adds an account. Where there are too many, the oldest that has no order under way goes.
    pub(super) fn create_account(
        &mut self,
        key: AccountKey,
        contact: Vec<String>,
        external_binding: Option<Value>,
        now: SystemTime,
    ) -> Result<u64, Problem> {
        if self.accounts.len() >= self.limits.accounts {
            let busy = |account: u64| {
                self.orders.values().any(|order| order.account == account && self.is_open(order, now))
            };
            let oldest = self.accounts.keys().copied().find(|&account| !busy(account)).ok_or_else(full)?;
            if let Some(account) = self.accounts.remove(&oldest) {
                self.by_key.remove(account.key.thumbprint());
            }
        }
        let number = self.next();
        self.by_key.insert(key.thumbprint().to_owned(), number);
        self.accounts.insert(number, Account { key, contact, active: true, external_binding });
        Ok(number)
    }

    /// Gives an account another key, which no account may have yet.
    pub(super) fn change_key(&mut self, number: u64, key: AccountKey) {
        if let Some(account) = self.accounts.get_mut(&number) {
            self.by_key.remove(account.key.thumbprint());
            self.by_key.insert(key.thumbprint().to_owned(), number);
            account.key = key;
        }
    }

    /// Adds an order with one authorization for each identifier: one that this account proved a moment
    /// ago, or a new one. Where there are too many orders, the oldest finished one goes.
    pub(super) fn create_order(
        &mut self,
        draft: Draft,
        mut token: impl FnMut() -> String,
        now: SystemTime,
    ) -> Result<u64, Problem> {
        let Draft { account, identifiers, profile, replaces } = draft;
        while self.orders.len() >= self.limits.orders
            || self.authorizations.len() + identifiers.len() > self.limits.authorizations
        {
            let oldest =
                self.orders.iter().find(|(_, order)| !self.is_open(order, now)).map(|(&number, _)| number);
            self.remove_order(oldest.ok_or_else(full)?);
        }
        let mut expires = now + ORDER_LIFETIME;
        let mut authorizations = Vec::with_capacity(identifiers.len());
        for identifier in &identifiers {
            let number = match self.reusable(account, identifier, now) {
                Some(number) => number,
                None => {
                    let number = self.next();
                    self.authorizations.insert(
                        number,
                        Authorization {
                            account,
                            identifier: identifier.clone(),
                            token: token(),
                            proof: Proof::Pending,
                            expires: now + ORDER_LIFETIME,
                            orders: 0,
                        },
                    );
                    number
                }
            };
            if let Some(authorization) = self.authorizations.get_mut(&number) {
                authorization.orders += 1;
                expires = expires.min(authorization.expires);
            }
            authorizations.push(number);
        }
        let number = self.next();
        self.orders.insert(
            number,
            Order {
                account,
                identifiers,
                authorizations,
                profile,
                replaces,
                expires,
                progress: Progress::Pending,
            },
        );
        Ok(number)
    }

    /// An order of that account, brought up to date.
    pub(super) fn order(
        &mut self,
        number: u64,
        account: u64,
        now: SystemTime,
    ) -> Result<&mut Order, Problem> {
        let authorizations = &self.authorizations;
        let order = self
            .orders
            .get_mut(&number)
            .filter(|order| order.account == account)
            .ok_or_else(|| Problem::not_found("order"))?;
        let before = order.progress.status();
        let after = settled(authorizations, order, now);
        if after != before {
            order.progress = match after {
                OrderStatus::Ready => Progress::Ready,
                _ => Progress::Invalid { error: None },
            };
        }
        Ok(order)
    }

    /// The numbers of an account's orders that did not fail, from a number on, at most `count`
    /// (RFC 8555 section 7.1.2.1).
    pub(super) fn orders_of(&self, account: u64, from: u64, count: usize, now: SystemTime) -> Vec<u64> {
        self.orders
            .range(from..)
            .filter(|(_, order)| order.account == account)
            .filter(|(_, order)| settled(&self.authorizations, order, now) != OrderStatus::Invalid)
            .map(|(&number, _)| number)
            .take(count)
            .collect()
    }

    pub(super) fn authorization(&mut self, number: u64, account: u64) -> Result<&mut Authorization, Problem> {
        self.authorizations
            .get_mut(&number)
            .filter(|authorization| authorization.account == account)
            .ok_or_else(|| Problem::not_found("authorization"))
    }

    /// A validation ended. Who failed to prove what, if that was the end of the authorization.
    pub(super) fn prove(
        &mut self,
        number: u64,
        result: Result<(), Problem>,
        now: SystemTime,
    ) -> Option<(u64, Identifier)> {
        let authorization = self.authorizations.get_mut(&number)?;
        let before = authorization.proof == Proof::Processing;
        authorization.proof.end(result, now);
        let subject = (authorization.account, authorization.identifier.clone());
        match authorization.proof {
            Proof::Invalid { .. } if before => return Some(subject),
            Proof::Valid { .. } if authorization.status(now) == AuthorizationStatus::Valid => {
                self.proven.insert(subject, number);
            }
            _ => {}
        }
        None
    }

    /// Whether an account has a valid authorization for each of those identifiers.
    pub(super) fn holds(
        &self,
        account: u64,
        mut identifiers: impl Iterator<Item = Identifier>,
        now: SystemTime,
    ) -> bool {
        identifiers.all(|identifier| {
            self.proven
                .get(&(account, identifier))
                .and_then(|number| self.authorizations.get(number))
                .is_some_and(|found| found.status(now) == AuthorizationStatus::Valid)
        })
    }

    /// Whether that order is still here and not invalid.
    pub(super) fn order_lives(&self, number: u64, now: SystemTime) -> bool {
        self.orders
            .get(&number)
            .is_some_and(|order| settled(&self.authorizations, order, now) != OrderStatus::Invalid)
    }

    /// An order that waits for its certificate.
    pub(super) fn processing(&self, number: u64) -> Option<Waiting<'_>> {
        let order = self.orders.get(&number)?;
        match &order.progress {
            Progress::Processing { key } => Some(Waiting {
                account: order.account,
                key,
                identifiers: &order.identifiers,
                profile: order.profile,
                replaces: order.replaces,
            }),
            _ => None,
        }
    }

    /// The issuance of a processing order ended.
    pub(super) fn complete(&mut self, number: u64, result: Result<String, Problem>) {
        if let Some(order) = self.orders.get_mut(&number)
            && order.progress.status() == OrderStatus::Processing
        {
            order.progress = match result {
                Ok(chain) => Progress::Valid { chain },
                Err(error) => Progress::Invalid { error: Some(error) },
            };
        }
    }

    fn is_open(&self, order: &Order, now: SystemTime) -> bool {
        !settled(&self.authorizations, order, now).is_final()
    }

    fn reusable(&self, account: u64, identifier: &Identifier, now: SystemTime) -> Option<u64> {
        let number = *self.proven.get(&(account, identifier.clone()))?;
        let authorization = self.authorizations.get(&number)?;
        match authorization.proof {
            Proof::Valid { validated } if now < validated + REUSE => Some(number),
            _ => None,
        }
    }

    fn remove_order(&mut self, number: u64) {
        let Some(order) = self.orders.remove(&number) else { return };
        for number in order.authorizations {
            let Some(authorization) = self.authorizations.get_mut(&number) else { continue };
            authorization.orders -= 1;
            if authorization.orders == 0
                && let Some(gone) = self.authorizations.remove(&number)
            {
                let key = (gone.account, gone.identifier);
                if self.proven.get(&key) == Some(&number) {
                    self.proven.remove(&key);
                }
            }
        }
    }

    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

fn settled(authorizations: &BTreeMap<u64, Authorization>, order: &Order, now: SystemTime) -> OrderStatus {
    let statuses = order.authorizations.iter().map(|number| {
        authorizations.get(number).map_or(AuthorizationStatus::Invalid, |found| found.status(now))
    });
    settle(order.progress.status(), statuses, now >= order.expires)
}

fn full() -> Problem {
    Problem::new(
        ProblemType::RateLimited,
        "the embedded CA keeps only so many orders, and all of them are under way: finish some",
    )
}

#[cfg(test)]
mod tests;
