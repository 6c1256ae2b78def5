//! One order, from its creation to a proven certificate (RFC 8555 section 7.4).

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use instant_acme::{AuthorizationStatus, ChallengeType, Order, OrderStatus};

use super::abandoned::Underway;
use super::failure::{NameFailure, of_acme};
use super::key::{self, KeyAndRequest};
use super::poll;
use super::problem::{AcmeError, Stage, Verdict, is_bad_nonce};
use super::request::{OrderRequest, Step};
use super::session::{NONCE_ROUNDS, Session, nonce_safe};
use crate::certificate::Certificate;
use crate::challenge::{ChallengeGuard, ChallengeTable, HandshakeGuard, Pending, Purpose, Token};
use crate::clock;
use crate::config::ChallengeKind;
use crate::hostname::Identifier;

/// Longest wait for the CA's validation, and again for its signature.
const PATIENCE: Duration = Duration::from_secs(300);
/// Longest time to learn what each name failed with.
const INQUEST: Duration = Duration::from_secs(30);

const PROVE: &str = "prove control over the names";

/// The challenges of an order that are in place.
type Guards = Vec<(Identifier, ChallengeGuard, Option<HandshakeGuard>)>;

impl Session {
    /// Obtains a certificate: its challenges are in `table` while the CA looks, and withdrawn on every
    /// way out. An order that fails leaves no pending authorization at the CA, as far as the CA answers
    /// within a few seconds.
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
        let (order, replaces) = self.order(request, told).await?;
        let mut underway = Underway::new(order, self.awaited.clone());
        let mut guards = Guards::new();
        if let Err(error) = self.prove(underway.order(), request, replaces, table, &mut guards, told).await {
            if may_ask_on(error.verdict()) {
                let error = self.inquest(underway.order(), &guards, table, error).await;
                drop(guards);
                underway.abandon().await;
                return Err(error);
            }
            underway.settle();
            return Err(error);
        }
        underway.settle();
        drop(guards);
        told(Step::Validated);

        let made = making.await.map_err(|e| e.to_string()).and_then(|m| m.map_err(|e| e.to_string()));
        let KeyAndRequest { key_pem, request: csr } =
            made.map_err(|e| AcmeError::new("make a private key", Verdict::Permanent, e))?;
        let order = underway.order();
        nonce_safe!(order.finalize_csr(&csr)).map_err(|e| self.failed("finalize the order", &e))?;
        told(Step::Finalized);
        self.await_valid(order).await?;
        let chain = nonce_safe!(order.certificate())
            .map_err(|e| self.failed("download the certificate", &e))?
            .ok_or_else(|| {
                AcmeError::new("download the certificate", Verdict::Transient, "the CA took the order back")
            })?;
        let certificate = Certificate::new(&chain, &key_pem, &request.identifiers, clock::now())?;
        self.check_complete(&certificate)?;
        Ok(certificate)
    }

    /// Has every name proven.
    async fn prove(
        &self,
        order: &mut Order,
        request: &OrderRequest,
        replaces: bool,
        table: &ChallengeTable,
        guards: &mut Guards,
        told: &dyn Fn(Step),
    ) -> Result<(), AcmeError> {
        let to_prove = self.fetch_authorizations(order).await?;
        told(Step::Ordered { to_prove, replaces });
        self.answer(order, request, table, guards, told).await?;
        self.await_ready(order).await
    }

    /// Puts the answers in place and tells the CA to look, for every identifier not proven before.
    async fn answer(
        &self,
        order: &mut Order,
        request: &OrderRequest,
        table: &ChallengeTable,
        guards: &mut Guards,
        told: &dyn Fn(Step),
    ) -> Result<(), AcmeError> {
        let hosts: Arc<BTreeSet<Identifier>> = Arc::new(request.identifiers.iter().cloned().collect());
        let mut done = HashSet::new();
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(|e| self.failed("read an authorization", &e))?;
            match authorization.status {
                AuthorizationStatus::Pending => {}
                AuthorizationStatus::Valid => continue,
                status => {
                    let name = authorization.identifier();
                    let reason = format!("the CA's authorization for {name} is {status:?}");
                    return Err(AcmeError::new(PROVE, Verdict::Transient, reason));
                }
            }
            if !done.insert(authorization.url().to_owned()) {
                continue;
            }
            let Some(identifier) = of_acme(authorization.identifier().identifier) else {
                let reason = "the CA wants proof for something that is neither a name nor an address";
                return Err(AcmeError::new(PROVE, Verdict::Transient, reason));
            };
            let (kind, name) = match request.challenge {
                ChallengeKind::Http01 => (ChallengeType::Http01, "http-01"),
                ChallengeKind::TlsAlpn01 => (ChallengeType::TlsAlpn01, "tls-alpn-01"),
            };
            let Some(mut challenge) = authorization.challenge(kind) else {
                let reason = format!("the CA offers no {name} challenge for {identifier}, only others");
                return Err(AcmeError::new(PROVE, Verdict::Permanent, reason));
            };
            let token: Token = challenge
                .token
                .parse()
                .map_err(|e| AcmeError::new("read a challenge", Verdict::Transient, format!("{e}")))?;
            let key_authorization = self.key_authorization(&challenge);
            let pending = Pending { key_authorization, hosts: hosts.clone(), purpose: Purpose::Order };
            let in_handshakes = (request.challenge == ChallengeKind::TlsAlpn01)
                .then(|| table.answer_handshakes(&identifier, token.clone()));
            guards.push((identifier.clone(), table.put(token, pending), in_handshakes));
            nonce_safe!(challenge.set_ready()).map_err(|e| self.failed("have a name validated", &e))?;
            told(Step::Challenged(identifier));
        }
        Ok(())
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
        let settled = |status| !matches!(status, OrderStatus::Pending);
        match self.poll(order, "have the names validated", settled).await? {
            OrderStatus::Invalid => Err(match &order.state().error {
                Some(problem) => AcmeError::from_problem(PROVE, Stage::Validating, problem, None, None),
                None => AcmeError::new(PROVE, Verdict::Validation, "the CA gave no reason"),
            }),
            _ => Ok(()),
        }
    }

    /// Learns what each name failed with, where names are what the order failed with; else the error
    /// stays as it is.
    async fn inquest(
        &self,
        order: &mut Order,
        guards: &Guards,
        table: &ChallengeTable,
        error: AcmeError,
    ) -> AcmeError {
        let mut failures = Vec::new();
        let asking = async {
            // The library keeps what it has read of each authorization until the order is read anew.
            if nonce_safe!(order.refresh()).is_err() {
                return;
            }
            let mut rounds = NONCE_ROUNDS * 4;
            'walk: loop {
                failures.clear();
                let mut authorizations = order.authorizations();
                while let Some(authorization) = authorizations.next().await {
                    match authorization {
                        Ok(authorization) => failures.extend(NameFailure::of_authorization(&authorization)),
                        Err(e) if is_bad_nonce(&e) && rounds > 1 => {
                            rounds -= 1;
                            continue 'walk;
                        }
                        // What the others say is still worth knowing.
                        Err(_) => {}
                    }
                }
                return;
            }
        };
        // What is known by then is told.
        let _ = tokio::time::timeout(INQUEST, asking).await;
        if failures.is_empty() {
            return error;
        }
        let now = clock::now();
        for failure in &mut failures {
            let own = guards.iter().filter(|(identifier, ..)| *identifier == failure.identifier);
            failure.arrivals = own.flat_map(|(_, guard, _)| guard.arrivals()).collect();
            failure.arrivals.extend(table.late_arrivals(&failure.identifier, now));
        }
        AcmeError::validation(PROVE, failures)
    }

    async fn await_valid(&self, order: &mut Order) -> Result<(), AcmeError> {
        const ACTION: &str = "have the certificate signed";
        let settled = |status| matches!(status, OrderStatus::Valid | OrderStatus::Invalid);
        match self.poll(order, ACTION, settled).await? {
            OrderStatus::Invalid => Err(match &order.state().error {
                Some(problem) => AcmeError::from_problem(ACTION, Stage::Asking, problem, None, None),
                None => {
                    let reason = "the CA declared the order invalid and gave no reason";
                    AcmeError::new(ACTION, Verdict::Transient, reason)
                }
            }),
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

/// Whether a CA that answered with this is worth asking on.
fn may_ask_on(verdict: Verdict) -> bool {
    match verdict {
        Verdict::Permanent | Verdict::Validation | Verdict::Transient => true,
        Verdict::RateLimited { whole_issuer, .. } => !whole_issuer,
        Verdict::Unavailable | Verdict::AccountGone => false,
    }
}
