//! Asking CAs for a certificate: the ledger before each of them, staging first where it pays, the
//! fallback issuers in their order.

use std::collections::BTreeSet;
use std::time::SystemTime;

use super::explanation;
use super::issuer::IssuerError;
use super::keeper::{Asked, Keeper};
use super::ledger::{Ask, Limits, Scope, Settlement};
use super::lineages::stamp;
use super::names::Chosen;
use super::outlook::Outlook;
use super::report::{What, minute};
use super::schedule;
use crate::acme::{AcmeError, NameFailure, Obtained, OrderRequest, Step, Verdict};
use crate::clock;
use crate::config::{CertificateRequest, Config, Issuer};
use crate::hostname::Identifier;

/// Vantage points that Let's Encrypt validates from, as far as is known.
const VANTAGE_POINTS: usize = 5;

/// Why there is no certificate.
#[derive(Debug)]
pub(super) struct Refusal {
    /// What was seen, what it means, what to do.
    pub(super) text: String,
    pub(super) kind: Kind,
    /// The names that it is about.
    pub(super) failures: Vec<NameFailure>,
}

/// What a refusal means for the next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The trouble is on this machine.
    Local,
    /// The ledger allows nothing before that moment; no CA was asked.
    Limited(SystemTime),
    /// The CA wants nothing to be asked before that moment.
    Paused(SystemTime),
    /// The CA is down.
    Unavailable,
    /// The CA refuses for good.
    Permanent,
    /// Names could not be validated.
    Names,
    /// It may work the next time.
    Transient,
}

impl Refusal {
    pub(super) fn local(text: String) -> Self {
        Self { text, kind: Kind::Local, failures: Vec::new() }
    }

    /// Whether another CA may do better. One that only wants patience is waited for, unless there is no
    /// time left.
    fn passes_on(&self, is_urgent: bool) -> bool {
        match self.kind {
            Kind::Unavailable | Kind::Permanent => true,
            Kind::Limited(_) | Kind::Paused(_) => is_urgent,
            Kind::Local | Kind::Names | Kind::Transient => false,
        }
    }

    /// Whether staging has shown that production would fail too.
    fn is_telling(&self) -> bool {
        matches!(self.kind, Kind::Names | Kind::Permanent | Kind::Transient)
    }
}

impl Keeper {
    /// Whether the ledger lets any of the issuers be asked, before doors are opened for it.
    pub(super) fn may_ask_anyone(
        &self,
        name: &str,
        request: &CertificateRequest,
        asked: Asked,
    ) -> Result<(), Refusal> {
        let config = self.config();
        let is_urgent = self.lineages.borrow().get(name).is_none_or(|l| l.is_urgent(clock::now()));
        let mut first = None;
        for issuer in config.acme.issuers() {
            let ask = self.ask(name, issuer, &request.identifiers, asked.force, false);
            match self.allowed(&config, issuer, &ask) {
                Ok(()) => return Ok(()),
                Err(refusal) if refusal.passes_on(is_urgent) => first = first.or(Some(refusal)),
                Err(refusal) => return Err(first.unwrap_or(refusal)),
            }
        }
        first.map_or(Ok(()), Err)
    }

    /// Asks the issuers in their order, as long as the one before is down or refuses for good.
    pub(super) async fn obtain(
        &self,
        name: &str,
        request: &CertificateRequest,
        chosen: &Chosen,
        outlook: &Outlook,
        asked: Asked,
        tell: &impl Fn(What),
    ) -> Result<(Obtained, Issuer), Refusal> {
        let config = self.config();
        let is_urgent = self.lineages.borrow().get(name).is_none_or(|l| l.is_urgent(clock::now()));
        let mut issuers = config.acme.issuers().peekable();
        let mut earlier = Vec::new();
        loop {
            let Some(issuer) = issuers.next() else {
                return Err(Refusal::local("no issuer is configured".to_owned()));
            };
            let mut refusal = match self.obtain_from(issuer, name, request, chosen, outlook, asked, tell).await {
                Ok(obtained) => return Ok((obtained, issuer.clone())),
                Err(refusal) => refusal,
            };
            match issuers.peek() {
                Some(next) if refusal.passes_on(is_urgent) => {
                    tell(What::Warning(format!("{}; now asking {}", refusal.text, next.name())));
                    earlier.push(format!("{}: {}", issuer.name(), refusal.text));
                }
                _ => {
                    if !earlier.is_empty() {
                        refusal.text = format!("{}; {}: {}", earlier.join("; "), issuer.name(), refusal.text);
                    }
                    return Err(refusal);
                }
            }
        }
    }

    /// Asks one issuer, at its staging directory first where that pays.
    #[expect(clippy::too_many_arguments)]
    async fn obtain_from(
        &self,
        issuer: &Issuer,
        name: &str,
        request: &CertificateRequest,
        chosen: &Chosen,
        outlook: &Outlook,
        asked: Asked,
        tell: &impl Fn(What),
    ) -> Result<Obtained, Refusal> {
        let config = self.config();
        if let Some(staging) = config.acme.staging_of(issuer)
            && self.wants_staging(name, chosen, outlook)
        {
            let place = staging.name();
            tell(What::Step(format!("trying it at {place} first, where a failure costs nothing")));
            match self.ask_for(&staging, name, request, chosen, outlook, asked, tell).await {
                Ok(_) => {
                    if let Some(lineage) = self.lineages.borrow_mut().get_mut(name) {
                        lineage.state.staging_first = false;
                    }
                    tell(What::Step(format!("it works at {place}")));
                }
                Err(mut refusal) if refusal.is_telling() => {
                    refusal.text = format!("at {place}, where it was tried first: {}", refusal.text);
                    return Err(refusal);
                }
                Err(refusal) => {
                    tell(What::Warning(format!("{place} is no help now, going on without: {}", refusal.text)));
                }
            }
        }
        self.ask_for(issuer, name, request, chosen, outlook, asked, tell).await
    }

    /// After a failure, and for a hostname that was never validated and may not work.
    fn wants_staging(&self, name: &str, chosen: &Chosen, outlook: &Outlook) -> bool {
        let lineages = self.lineages.borrow();
        let Some(lineage) = lineages.get(name) else { return false };
        let is_new = |i: &Identifier| !lineage.state.validated.contains(i);
        lineage.state.staging_first || (outlook.is_inconclusive && chosen.with.iter().any(is_new))
    }

    /// Asks one directory.
    #[expect(clippy::too_many_arguments)]
    pub(super) async fn ask_for(
        &self,
        issuer: &Issuer,
        name: &str,
        request: &CertificateRequest,
        chosen: &Chosen,
        outlook: &Outlook,
        asked: Asked,
        tell: &impl Fn(What),
    ) -> Result<Obtained, Refusal> {
        let config = self.config();
        let needs_account = self.desk.needs_account(&self.store, issuer).await;
        let ask = self.ask(name, issuer, &chosen.with, asked.force, needs_account);
        self.allowed(&config, issuer, &ask)?;
        let limits = Limits::of(issuer, &config.acme.limits);
        let charge = self.ledger.borrow_mut().begin(&ask, &limits, clock::now());
        self.save_ledger().map_err(|e| Refusal::local(e.to_string()))?;

        let mut settlement = Settlement::default();
        let result = self.order(issuer, name, request, chosen, &mut settlement, tell).await;
        let now = clock::now();
        let refusal = match &result {
            Ok(_) => None,
            Err(e) => Some(self.refusal(issuer, e, outlook, now)),
        };
        if let Some(refusal) = &refusal {
            let failed = refusal.failures.iter().filter(|f| f.authorization_failed);
            settlement.failed = failed.map(|f| f.identifier.clone()).collect();
        }
        {
            let mut ledger = self.ledger.borrow_mut();
            ledger.settle(charge, &settlement, now);
            if let Err(AskError::Acme(e)) = &result
                && let Verdict::RateLimited { until: Some(until), whole_issuer } = e.verdict()
            {
                let scope = if whole_issuer {
                    Scope::Issuer
                } else {
                    Scope::Identifiers(chosen.with.iter().cloned().collect())
                };
                ledger.block(&ask.issuer, scope, until, now);
            }
        }
        if let Err(e) = self.save_ledger() {
            tell(What::Warning(e.to_string()));
        }
        if let Some(Refusal { kind: Kind::Paused(until), text, .. }) = &refusal {
            tell(What::IssuerPaused { issuer: issuer.name(), until: stamp(*until), reason: text.clone() });
        }
        match (result, refusal) {
            (Ok(obtained), _) => Ok(obtained),
            (Err(_), Some(refusal)) => Err(refusal),
            (Err(e), None) => Err(Refusal::local(e.to_string())),
        }
    }

    /// One order; notes in `settlement` what of it the CA counts.
    async fn order(
        &self,
        issuer: &Issuer,
        name: &str,
        request: &CertificateRequest,
        chosen: &Chosen,
        settlement: &mut Settlement,
        tell: &impl Fn(What),
    ) -> Result<Obtained, AskError> {
        let config = self.config();
        let replaces = {
            let lineages = self.lineages.borrow();
            let lineage = lineages.get(name);
            let same_issuer = lineage.is_some_and(|l| l.state.issuer.as_ref() == Some(&issuer.name()));
            lineage.filter(|_| same_issuer).and_then(|l| l.live.as_ref()).and_then(|(_, c)| crate::acme::replaces(c))
        };
        let order = OrderRequest {
            identifiers: chosen.with.clone(),
            key_type: request.key_type,
            profile: request.profile.clone(),
            replaces,
        };
        let steps = |step: Step| {
            tell(match step {
                Step::ProfileNotOffered { .. } | Step::ProfileRefused { .. } | Step::ReplacesRefused { .. } => {
                    What::Warning(step.to_string())
                }
                _ => What::Step(step.to_string()),
            });
        };
        settlement.asked = true;
        let mut session = self.desk.session(&config, &self.store, issuer).await?;
        let obtained = match session.obtain(&order, &self.table, &steps).await {
            Err(e) if e.verdict() == Verdict::AccountGone => {
                session = self.desk.replace_account(&config, &self.store, issuer).await?;
                session.obtain(&order, &self.table, &steps).await?
            }
            obtained => obtained?,
        };
        settlement.obtained = true;
        settlement.exempt = obtained.replaced;
        Ok(obtained)
    }

    fn ask(
        &self,
        name: &str,
        issuer: &Issuer,
        identifiers: &[Identifier],
        force: bool,
        needs_account: bool,
    ) -> Ask {
        let lineages = self.lineages.borrow();
        let lineage = lineages.get(name);
        let set: BTreeSet<_> = identifiers.iter().cloned().collect();
        let is_from_it = lineage.is_some_and(|l| l.state.issuer.as_ref() == Some(&issuer.name()));
        let is_renewal = is_from_it
            && lineage.is_some_and(|l| {
                l.live.is_some() && l.state.ordered_for.iter().cloned().collect::<BTreeSet<_>>() == set
            });
        let by_renewal_information = is_renewal
            && lineage.is_some_and(|l| l.window().is_some_and(|w| w.start <= clock::now()));
        Ask {
            issuer: issuer.name(),
            identifiers: set,
            force,
            is_renewal,
            by_renewal_information,
            needs_account,
        }
    }

    fn allowed(&self, config: &Config, issuer: &Issuer, ask: &Ask) -> Result<(), Refusal> {
        let limits = Limits::of(issuer, &config.acme.limits);
        self.ledger.borrow().allows(ask, &limits, clock::now()).map_err(|refused| Refusal {
            text: refused.says,
            kind: Kind::Limited(refused.until),
            failures: Vec::new(),
        })
    }

    pub(super) fn save_ledger(&self) -> Result<(), crate::store::StoreError> {
        let file = self.ledger.borrow_mut().to_file(clock::now());
        self.store.save_ledger(&file)
    }

    fn refusal(&self, issuer: &Issuer, error: &AskError, outlook: &Outlook, now: SystemTime) -> Refusal {
        let acme = match error {
            AskError::Acme(e) | AskError::Issuer(IssuerError::Acme(e)) => e,
            AskError::Issuer(_) => {
                return Refusal { text: error.to_string(), kind: Kind::Permanent, failures: Vec::new() };
            }
        };
        let kind = match acme.verdict() {
            Verdict::RateLimited { until, .. } => {
                Kind::Paused(until.unwrap_or(now + schedule::retry_after(2, 0.0)))
            }
            Verdict::Unavailable => Kind::Unavailable,
            Verdict::Permanent => Kind::Permanent,
            Verdict::Validation => Kind::Names,
            Verdict::Transient | Verdict::AccountGone => Kind::Transient,
        };
        let failures = acme.failures().to_vec();
        let expected = matches!(issuer, Issuer::LetsEncrypt | Issuer::LetsEncryptStaging).then_some(VANTAGE_POINTS);
        let text = if failures.is_empty() {
            acme.to_string()
        } else {
            explanation::explain(acme, &outlook.sentences, expected)
        };
        Refusal { text, kind, failures }
    }
}

/// Why an order gave nothing.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error(transparent)]
    Issuer(#[from] IssuerError),
    #[error(transparent)]
    Acme(#[from] AcmeError),
}
