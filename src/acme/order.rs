//! One order, from its creation to a proven certificate (RFC 8555 section 7.4).

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use instant_acme::{AuthorizationStatus, ChallengeStatus, ChallengeType, NewOrder, Order, OrderStatus};

use super::key::{self, KeyAndRequest};
use super::poll;
use super::problem::{AcmeError, Stage, Verdict, describe, is_bad_nonce};
use super::session::{NONCE_ROUNDS, Session, nonce_safe};
use crate::certificate::Certificate;
use crate::challenge::{ChallengeGuard, ChallengeTable, Pending, Token};
use crate::clock;
use crate::config::KeyType;
use crate::hostname::Identifier;

/// Longest wait for the CA's validation, and again for its signature.
const PATIENCE: Duration = Duration::from_secs(300);

/// What is ordered.
#[derive(Debug, Clone)]
pub struct OrderRequest {
    /// What the certificate shall cover.
    pub identifiers: Vec<Identifier>,
    /// The key to make for it.
    pub key_type: KeyType,
    /// The profile to ask for, where the directory offers it.
    pub profile: Option<String>,
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
    /// The order is made; so many of its identifiers must be proven.
    Ordered {
        /// Identifiers without a valid authorization.
        to_prove: usize,
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
            Self::Ordered { to_prove: 0 } => f.write_str("ordered; the CA asks for no proof this time"),
            Self::Ordered { to_prove: 1 } => f.write_str("ordered; one name to prove"),
            Self::Ordered { to_prove } => write!(f, "ordered; {to_prove} names to prove"),
            Self::Challenged(identifier) => write!(f, "the CA was asked to look at {identifier}"),
            Self::Validated => f.write_str("every name is proven"),
            Self::Finalized => f.write_str("the CA signs"),
        }
    }
}

impl Session {
    /// Obtains a certificate: its challenges are in `table` while the CA looks, and withdrawn on every
    /// way out.
    ///
    /// # Errors
    /// The CA refuses, cannot be reached, cannot validate, takes longer than five minutes, or sends
    /// something that does not fit.
    pub async fn obtain(
        &self,
        request: &OrderRequest,
        table: &ChallengeTable,
        told: &dyn Fn(Step),
    ) -> Result<Certificate, AcmeError> {
        let making = {
            let (key_type, identifiers) = (request.key_type, request.identifiers.clone());
            tokio::task::spawn_blocking(move || key::make(key_type, &identifiers))
        };
        let mut order = self.order(request, told).await?;
        let guards = self.answer(&mut order, request, table, told).await?;
        self.await_ready(&mut order).await?;
        drop(guards);
        told(Step::Validated);

        let made = making.await.map_err(|e| e.to_string()).and_then(|m| m.map_err(|e| e.to_string()));
        let KeyAndRequest { key_pem, request: csr } =
            made.map_err(|e| AcmeError::new("make a private key", Verdict::Permanent, e))?;
        nonce_safe!(order.finalize_csr(&csr)).map_err(|e| self.failed("finalize the order", &e))?;
        told(Step::Finalized);
        self.await_valid(&mut order).await?;
        let chain = nonce_safe!(order.certificate())
            .map_err(|e| self.failed("download the certificate", &e))?
            .ok_or_else(|| {
                AcmeError::new("download the certificate", Verdict::Transient, "the CA took the order back")
            })?;
        let certificate = Certificate::new(&chain, &key_pem, &request.identifiers, clock::now())?;
        self.check_complete(&certificate)?;
        Ok(certificate)
    }

    async fn order(&self, request: &OrderRequest, told: &dyn Fn(Step)) -> Result<Order, AcmeError> {
        let identifiers: Vec<_> = request.identifiers.iter().map(to_acme).collect();
        let mut wanted = NewOrder::new(&identifiers);
        if let Some(profile) = &request.profile {
            if self.offers_profile(profile) {
                wanted = wanted.profile(profile);
            } else {
                told(Step::ProfileNotOffered { wanted: profile.clone(), offered: self.profiles() });
            }
        }
        nonce_safe!(self.account.new_order(&wanted)).map_err(|e| self.failed("order a certificate", &e))
    }

    /// Puts the answers in place and tells the CA to look, for every identifier not proven before.
    async fn answer(
        &self,
        order: &mut Order,
        request: &OrderRequest,
        table: &ChallengeTable,
        told: &dyn Fn(Step),
    ) -> Result<Vec<ChallengeGuard>, AcmeError> {
        let hosts: Arc<BTreeSet<Identifier>> = Arc::new(request.identifiers.iter().cloned().collect());
        let to_prove = self.fetch_authorizations(order).await?;
        told(Step::Ordered { to_prove });
        let (mut guards, mut done) = (Vec::new(), HashSet::new());
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(|e| self.failed("read an authorization", &e))?;
            match authorization.status {
                AuthorizationStatus::Pending => {}
                AuthorizationStatus::Valid => continue,
                _ => return Err(dead(&authorization)),
            }
            if !done.insert(authorization.url().to_owned()) {
                continue;
            }
            let Some(mut challenge) = authorization.challenge(ChallengeType::Http01) else {
                let reason = "the CA offers no http-01 challenge for it, only others";
                return Err(AcmeError::new("prove a name", Verdict::Permanent, reason));
            };
            let token: Token = challenge
                .token
                .parse()
                .map_err(|e| AcmeError::new("read a challenge", Verdict::Transient, format!("{e}")))?;
            let key_authorization = Bytes::copy_from_slice(challenge.key_authorization().as_str().as_bytes());
            let identifier = challenge.identifier().to_string();
            guards.push(table.put(token, Pending { key_authorization, hosts: hosts.clone() }));
            nonce_safe!(challenge.set_ready()).map_err(|e| self.failed("have a name validated", &e))?;
            if let Ok(identifier) = identifier.parse() {
                told(Step::Challenged(identifier));
            }
        }
        Ok(guards)
    }

    /// Fetches every authorization and counts the pending ones. The library's stream steps past an entry
    /// that failed, so a bad nonce starts the walk again; what was fetched is not asked for twice.
    async fn fetch_authorizations(&self, order: &mut Order) -> Result<usize, AcmeError> {
        let mut rounds = NONCE_ROUNDS * 4;
        'walk: loop {
            let mut pending = 0;
            let mut authorizations = order.authorizations();
            while let Some(authorization) = authorizations.next().await {
                match authorization {
                    Ok(a) => pending += usize::from(a.status == AuthorizationStatus::Pending),
                    Err(e) if is_bad_nonce(&e) && rounds > 1 => {
                        rounds -= 1;
                        continue 'walk;
                    }
                    Err(e) => return Err(self.failed("read an authorization", &e)),
                }
            }
            return Ok(pending);
        }
    }

    async fn await_ready(&self, order: &mut Order) -> Result<(), AcmeError> {
        const ACTION: &str = "have the names validated";
        let settled = |status| !matches!(status, OrderStatus::Pending);
        match self.poll(order, ACTION, settled).await? {
            OrderStatus::Invalid => Err(self.why_invalid(order).await),
            _ => Ok(()),
        }
    }

    async fn await_valid(&self, order: &mut Order) -> Result<(), AcmeError> {
        const ACTION: &str = "have the certificate signed";
        let settled = |status| matches!(status, OrderStatus::Valid | OrderStatus::Invalid);
        match self.poll(order, ACTION, settled).await? {
            OrderStatus::Invalid => {
                let reason = order.state().error.as_ref().map_or_else(
                    || "the CA declared the order invalid and gave no reason".to_owned(),
                    |problem| describe(problem, Stage::Asking),
                );
                Err(AcmeError::new(ACTION, Verdict::Transient, reason))
            }
            _ => Ok(()),
        }
    }

    /// Asks for the order's status until it is settled.
    async fn poll(
        &self,
        order: &mut Order,
        action: &'static str,
        settled: impl Fn(OrderStatus) -> bool,
    ) -> Result<OrderStatus, AcmeError> {
        let polling = async {
            let mut attempt = 0;
            while !settled(order.state().status) {
                let asked = self.transport.take_wait(order.url());
                tokio::time::sleep(poll::pause(attempt, asked, clock::now())).await;
                nonce_safe!(order.refresh()).map_err(|e| self.failed(action, &e))?;
                attempt += 1;
            }
            Ok(order.state().status)
        };
        tokio::time::timeout(PATIENCE, polling).await.unwrap_or_else(|_| {
            let reason = format!("the CA has not finished within {} minutes", PATIENCE.as_secs() / 60);
            Err(AcmeError::new(action, Verdict::Transient, reason))
        })
    }

    /// Collects what the CA saw, name by name.
    async fn why_invalid(&self, order: &mut Order) -> AcmeError {
        const ACTION: &str = "prove control over the names";
        if let Err(e) = self.fetch_authorizations(order).await {
            return e;
        }
        let (mut reasons, mut verdict) = (Vec::new(), None);
        let mut authorizations = order.authorizations();
        while let Some(Ok(authorization)) = authorizations.next().await {
            for challenge in &authorization.challenges {
                if let (ChallengeStatus::Invalid, Some(problem)) = (challenge.status, &challenge.error) {
                    let error = instant_acme::Error::Api(problem.clone());
                    verdict.get_or_insert(AcmeError::from_library(ACTION, &error, None).verdict);
                    reasons.push(format!(
                        "{}: {}",
                        authorization.identifier(),
                        describe(problem, Stage::Validating)
                    ));
                }
            }
        }
        if reasons.is_empty() {
            reasons.push(
                order
                    .state()
                    .error
                    .as_ref()
                    .map_or_else(|| "no reason given".to_owned(), |e| describe(e, Stage::Validating)),
            );
        }
        AcmeError::new(ACTION, verdict.unwrap_or(Verdict::Transient), reasons.join("; "))
    }

    /// A leaf that comes alone is complete only if a root that we know signed it.
    fn check_complete(&self, certificate: &Certificate) -> Result<(), AcmeError> {
        if certificate.chain().len() > 1 || certificate.is_signed_by_one_of(&self.roots) {
            return Ok(());
        }
        let reason = format!(
            "the CA sent the certificate alone, without the chain of `{}`: clients could not verify it (if that CA signs without an intermediate, put its root into `acme.roots`)",
            certificate.issuer()
        );
        Err(AcmeError::new("accept the certificate", Verdict::Transient, reason))
    }
}

fn dead(authorization: &instant_acme::AuthorizationState) -> AcmeError {
    let reason =
        format!("the CA's authorization for {} is {:?}", authorization.identifier(), authorization.status);
    AcmeError::new("prove a name", Verdict::Transient, reason)
}

fn to_acme(identifier: &Identifier) -> instant_acme::Identifier {
    match identifier {
        Identifier::Dns(name) => instant_acme::Identifier::Dns(name.as_str().to_owned()),
        Identifier::Ip(ip) => instant_acme::Identifier::Ip(*ip),
    }
}
