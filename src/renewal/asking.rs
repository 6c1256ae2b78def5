//! Asking CAs for a certificate: the ledger before each of them, staging first where it pays, the
//! fallback issuers in their order.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::time::SystemTime;

use super::explanation::{self, Seen};
use super::issuer::IssuerError;
use super::keeper::{Asked, Keeper};
use super::ledger::{Ask, Charge, Happened, Limits, Scope};
use super::lineages::stamp;
use super::names::Chosen;
use super::outlook::Outlook;
use super::report::What;
use super::schedule;
use crate::acme::{AcmeError, CertificateId, NameFailure, OrderRequest, Step, Verdict};
use crate::certificate::{Bundle, Certificate};
use crate::clock;
use crate::config::{CertificateRequest, Config, Issuer, KeyType};
use crate::hostname::Identifier;
use crate::store::Half;

/// The ledger's name for the account: there is one at each issuer, and who makes a new one after the CA
/// has forgotten it is not better off for it.
pub(super) const ACCOUNT: &str = "";

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

/// What becomes of what a CA signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aim {
    /// It is served, so what was obtained of a pair is not thrown away when the rest fails.
    Serve,
    /// It only shows that it can be obtained.
    Try,
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
        // What it says of the account, or of itself, is true for staging alone.
        self.kind == Kind::Names || (self.kind == Kind::Permanent && !self.failures.is_empty())
    }
}

impl Keeper {
    /// Whether the ledger lets any of the issuers be asked for these names, before doors are opened for it.
    pub(super) fn may_ask_anyone(
        &self,
        name: &str,
        identifiers: &[Identifier],
        asked: Asked,
    ) -> Result<(), Refusal> {
        let config = self.config();
        let is_urgent = self.lineages.borrow().get(name).is_none_or(|l| l.is_urgent(clock::now()));
        let mut soonest: Option<(SystemTime, Refusal)> = None;
        for issuer in config.acme.issuers() {
            let issuer_name = issuer.name();
            let ordered = self.to_order(name, &issuer_name, identifiers, Aim::Serve);
            let ask = self.ask(name, issuer, &issuer_name, identifiers, &ordered, asked, false);
            let refused = match self.allowed(&config, issuer, &ask) {
                Ok(()) => return Ok(()),
                Err(refused) => refused,
            };
            let is_passed_on = limited(refused.clone()).passes_on(is_urgent);
            if soonest.as_ref().is_none_or(|(until, _)| refused.until < *until) {
                soonest = Some((refused.until, limited(refused)));
            }
            if !is_passed_on {
                break;
            }
        }
        soonest.map_or(Ok(()), |(_, refusal)| Err(refusal))
    }

    /// Asks the issuers in their order, as long as the one before is down or refuses for good. One that CAA
    /// forbids is passed over, if there is another.
    pub(super) async fn obtain(
        &self,
        name: &str,
        request: &CertificateRequest,
        chosen: &Chosen,
        outlook: &Outlook,
        asked: Asked,
        tell: &impl Fn(What),
    ) -> Result<(Bundle, Issuer), Refusal> {
        let config = self.config();
        let is_urgent = self.lineages.borrow().get(name).is_none_or(|l| l.is_urgent(clock::now()));
        let forbidden = |issuer: &Issuer| {
            let why = outlook.forbids(&issuer.name(), &chosen.with).filter(|_| !asked.skip_preflight)?;
            Some(format!("not asked, as it would have to refuse: {why}"))
        };
        let is_open = config.acme.issuers().any(|issuer| forbidden(issuer).is_none());
        let (mut earlier, mut was_asked) = (Vec::new(), false);
        let mut refused: Option<(&Issuer, Refusal)> = None;
        let mut passed_over = Vec::new();
        for issuer in config.acme.issuers() {
            if let Some(why) = forbidden(issuer).filter(|_| is_open) {
                tell(What::Warning(format!("{} is {why}", issuer.name())));
                passed_over.push(format!("{}: {why}", issuer.name()));
                continue;
            }
            if let Some((before, refusal)) = refused.take() {
                was_asked |= !matches!(refusal.kind, Kind::Limited(_));
                tell(What::Warning(format!("{}; now asking {}", refusal.text, issuer.name())));
                earlier.push(format!("{}: {}", before.name(), refusal.text));
            }
            earlier.append(&mut passed_over);
            let outlook = outlook.at(&issuer.name());
            match self.obtain_from(issuer, name, request, chosen, &outlook, asked, tell).await {
                Ok(obtained) => return Ok((obtained, issuer.clone())),
                Err(refusal) => {
                    let is_last = !refusal.passes_on(is_urgent);
                    refused = Some((issuer, refusal));
                    if is_last {
                        break;
                    }
                }
            }
        }
        let Some((issuer, mut refusal)) = refused else {
            return Err(Refusal::local("no issuer is configured".to_owned()));
        };
        if was_asked && matches!(refusal.kind, Kind::Limited(_)) {
            // The issuers before were asked, and that counts.
            refusal.kind = Kind::Transient;
        }
        if !(earlier.is_empty() && passed_over.is_empty()) {
            earlier.push(format!("{}: {}", issuer.name(), refusal.text));
            earlier.append(&mut passed_over);
            refusal.text = earlier.join("; ");
        }
        Err(refusal)
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
    ) -> Result<Bundle, Refusal> {
        let config = self.config();
        if let Some(staging) = config.acme.staging_of(issuer)
            && self.wants_staging(name, chosen, outlook)
        {
            let place = staging.name();
            tell(What::Step(format!("trying it at {place} first, where a failure costs nothing")));
            match self.ask_for(&staging, name, request, chosen, Aim::Try, outlook, asked, tell).await {
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
                    tell(What::Warning(format!(
                        "{place} is no help now, going on without: {}",
                        refusal.text
                    )));
                }
            }
        }
        self.ask_for(issuer, name, request, chosen, Aim::Serve, outlook, asked, tell).await
    }

    /// After a failure, and for a hostname that was never validated and may not work.
    fn wants_staging(&self, name: &str, chosen: &Chosen, outlook: &Outlook) -> bool {
        let lineages = self.lineages.borrow();
        let Some(lineage) = lineages.get(name) else { return false };
        let is_new = |i: &Identifier| !lineage.state.validated.contains(i);
        lineage.state.staging_first || (outlook.is_inconclusive && chosen.with.iter().any(is_new))
    }

    /// Asks one directory for a certificate, or for both of a pair, one after the other: what the first has
    /// proven, most CAs take as proven for the second.
    #[expect(clippy::too_many_arguments)]
    pub(super) async fn ask_for(
        &self,
        issuer: &Issuer,
        name: &str,
        request: &CertificateRequest,
        chosen: &Chosen,
        aim: Aim,
        outlook: &Outlook,
        asked: Asked,
        tell: &impl Fn(What),
    ) -> Result<Bundle, Refusal> {
        let config = self.config();
        let half = self.half(name, issuer, chosen, aim);
        let is_wanted = |key_type: &KeyType| half.as_ref().is_none_or(|(kept, _)| kept != key_type);
        let ordered: Vec<_> = request.key_types.iter().copied().filter(is_wanted).collect();
        let needs_account = self.desk.needs_account(&self.store, issuer).await;
        let issuer_name = issuer.name();
        let limits = Limits::of(issuer, &config.acme.limits);
        let ask = self.ask(name, issuer, &issuer_name, &chosen.with, &ordered, asked, needs_account);
        let begun = self.ledger.borrow_mut().begin(&ask, &limits, clock::now());
        let worst = Happened {
            asked: true,
            ordered: true,
            failed: chosen.with.clone(),
            account_made: needs_account,
            ..Happened::default()
        };
        let charge = Some(begun.map_err(limited)?);
        let mut charged = Charged { keeper: self, charge, happened: Vec::new(), worst };
        // The CA in this program counts nothing, so there is nothing to be kept of it.
        let is_counted = *issuer != Issuer::Embedded;
        if is_counted && let Err(e) = self.save_ledger() {
            // Nothing can be kept, so nothing is asked.
            charged.settle();
            return Err(Refusal::local(e.to_string()));
        }

        if let Some((kept, _)) = &half {
            tell(What::Step(format!("the certificate for its {kept} key is kept from the attempt before")));
        }
        let mut obtained: Vec<_> = half.into_iter().collect();
        let mut result = Ok(());
        for (position, key_type) in ordered.iter().copied().enumerate() {
            let mut happened = Happened::default();
            let needs_account = needs_account && position == 0;
            let order =
                self.order(issuer, name, request, key_type, chosen, needs_account, &mut happened, tell);
            let answer = order.await;
            charged.happened.push(happened);
            match answer {
                Ok(certificate) => {
                    let is_half = position + 1 < ordered.len();
                    if is_half && aim == Aim::Serve {
                        self.keep_half(name, issuer, request, key_type, chosen, &certificate, tell);
                    }
                    obtained.push((key_type, certificate));
                    if is_half {
                        tell(What::Step(format!("obtained it for its {key_type} key, of two")));
                    }
                }
                Err(e) => {
                    result = Err((key_type, e));
                    break;
                }
            }
        }
        let now = clock::now();
        let refusal = match &result {
            Ok(()) => None,
            Err((key_type, e)) => {
                let mut refusal = refusal(issuer, e, &chosen.with, outlook, now);
                if request.key_types.len() > 1 {
                    refusal.text = format!("for its {key_type} key: {}", refusal.text);
                    if let (Some((kept, _)), Aim::Serve) = (obtained.first(), aim) {
                        refusal.text.push_str(&format!(
                            "; the certificate for its {kept} key was obtained and is kept, so the next attempt need not ask for it again"
                        ));
                    }
                }
                Some(refusal)
            }
        };
        charged.settle();
        {
            let mut ledger = self.ledger.borrow_mut();
            if let Err((_, AskError::Acme(e) | AskError::Issuer(IssuerError::Acme(e)))) = &result
                && let Verdict::RateLimited { until: Some(until), whole_issuer } = e.verdict()
            {
                let scope = if whole_issuer { Scope::Issuer } else { Scope::Identifiers(&chosen.with) };
                ledger.blocked(&issuer_name, scope, until, now);
            }
        }
        if is_counted && let Err(e) = self.save_ledger() {
            tell(What::Warning(e.to_string()));
        }
        if let Some(Refusal { kind: Kind::Paused(until), text, .. }) = &refusal {
            tell(What::IssuerPaused { issuer: issuer.name(), until: stamp(*until), reason: text.clone() });
        }
        match refusal {
            Some(refusal) => Err(refusal),
            None => bundle(&request.key_types, obtained),
        }
    }

    /// The keys that a CA is to be asked for.
    fn to_order(&self, name: &str, issuer: &str, identifiers: &[Identifier], aim: Aim) -> Vec<KeyType> {
        let lineages = self.lineages.borrow();
        let Some(lineage) = lineages.get(name) else { return Vec::new() };
        let half = lineage.half(issuer, identifiers, clock::now()).filter(|_| aim == Aim::Serve);
        let is_wanted = |key_type: &KeyType| half.is_none_or(|kept| kept.key_type != *key_type);
        lineage.request.key_types.iter().copied().filter(is_wanted).collect()
    }

    /// What of a pair need not be ordered again.
    fn half(&self, name: &str, issuer: &Issuer, chosen: &Chosen, aim: Aim) -> Option<(KeyType, Certificate)> {
        let lineages = self.lineages.borrow();
        let lineage = lineages.get(name).filter(|_| aim == Aim::Serve)?;
        let kept = lineage.half(&issuer.name(), &chosen.with, clock::now())?;
        let certificate = self.store.half(name).filter(|c| c.serial() == kept.serial)?;
        Some((kept.key_type, certificate))
    }

    /// Keeps half of a pair, before the other half is asked for: whatever happens then, it is not lost.
    #[expect(clippy::too_many_arguments)]
    fn keep_half(
        &self,
        name: &str,
        issuer: &Issuer,
        request: &CertificateRequest,
        key_type: KeyType,
        chosen: &Chosen,
        certificate: &Certificate,
        tell: &impl Fn(What),
    ) {
        let kept = self.store.save_half(name, certificate).and_then(|()| {
            if let Some(lineage) = self.lineages.borrow_mut().get_mut(name) {
                lineage.state.half = Some(Half {
                    issuer: issuer.name(),
                    key_type,
                    profile: request.profile.clone(),
                    ordered_for: chosen.with.clone(),
                    serial: certificate.serial().to_owned(),
                    not_before: stamp(certificate.not_before()),
                    not_after: stamp(certificate.not_after()),
                });
            }
            self.save_state(name)
        });
        if let Err(e) = kept {
            tell(What::Warning(e.to_string()));
        }
    }

    /// One order; notes in `happened` what of it the CA counts.
    #[expect(clippy::too_many_arguments)]
    async fn order(
        &self,
        issuer: &Issuer,
        name: &str,
        request: &CertificateRequest,
        key_type: KeyType,
        chosen: &Chosen,
        needs_account: bool,
        happened: &mut Happened,
        tell: &impl Fn(What),
    ) -> Result<Certificate, AskError> {
        let config = self.config();
        let (replaces, is_suggested) = {
            let lineages = self.lineages.borrow();
            let lineage = lineages.get(name).filter(|l| l.is_from(issuer));
            let replaced = lineage.and_then(|l| l.replaced(key_type));
            let window = replaced.and_then(|c| lineage.and_then(|l| l.window_for(c)));
            (replaced.and_then(CertificateId::of), window.is_some_and(|w| w.start <= clock::now()))
        };
        let order = OrderRequest {
            identifiers: chosen.with.clone(),
            challenge: request.challenge,
            key_type,
            profile: request.profile.clone(),
            replaces,
        };
        let validated = Cell::new(false);
        let ordered = Cell::new(None);
        let steps = |step: Step| {
            match step {
                Step::Ordered { replaces, .. } => ordered.set(Some(replaces)),
                Step::Validated => validated.set(true),
                _ => {}
            }
            tell(match step {
                // The CA in this program forgets with each start what it has signed.
                Step::ReplacesRefused { .. } if *issuer == Issuer::Embedded => What::Step(step.to_string()),
                Step::ProfileNotOffered { .. }
                | Step::ProfileRefused { .. }
                | Step::ReplacesRefused { .. } => What::Warning(step.to_string()),
                _ => What::Step(step.to_string()),
            });
        };
        happened.asked = true;
        let mut session = self.desk.session(&config, &self.store, issuer).await?;
        happened.account_made = needs_account;
        let mut obtained = session.obtain(&order, &self.table, &steps).await;
        if obtained.as_ref().is_err_and(|e| e.verdict() == Verdict::AccountGone) {
            session = self.desk.replace_account(&config, &self.store, issuer).await?;
            happened.account_made = true;
            obtained = session.obtain(&order, &self.table, &steps).await;
        }
        happened.ordered = ordered.get().is_some();
        // A CA exempts what it has suggested itself; of a pair, it may have suggested one of the two.
        happened.exempt = ordered.get() == Some(true) && is_suggested;
        // What the CA has signed counts there, whether or not it could be accepted here.
        let is_signed =
            |e: &AcmeError| matches!(e.action(), "accept the certificate" | "download the certificate");
        happened.obtained = obtained.as_ref().map_or_else(is_signed, |_| true);
        if let Err(e) = &obtained {
            let failed = e.failures().iter().filter(|f| f.authorization_failed);
            happened.failed = failed.map(|f| f.identifier.clone()).collect();
            if happened.ordered && !validated.get() && happened.failed.is_empty() {
                // The CA was not heard to the end: each of them may have failed.
                happened.failed.clone_from(&chosen.with);
            }
        }
        Ok(obtained?)
    }

    #[expect(clippy::too_many_arguments)]
    fn ask<'a>(
        &self,
        name: &str,
        issuer: &Issuer,
        issuer_name: &'a str,
        identifiers: &'a [Identifier],
        ordered: &[KeyType],
        asked: Asked,
        needs_account: bool,
    ) -> Ask<'a> {
        let lineages = self.lineages.borrow();
        let before = lineages.get(name).filter(|l| l.live.is_some() && l.is_from(issuer));
        let set = |list: &[Identifier]| list.iter().cloned().collect::<BTreeSet<_>>();
        let is_renewal = before.is_some_and(|l| set(&l.state.ordered_for) == set(identifiers));
        let has_begun = |w: schedule::Window| w.start <= clock::now();
        let is_suggested = |key_type: &KeyType| {
            before.and_then(|l| l.window_for(l.replaced(*key_type)?)).is_some_and(has_begun)
        };
        Ask {
            issuer: issuer_name,
            account: ACCOUNT,
            identifiers,
            certificates: u32::try_from(ordered.len()).unwrap_or(u32::MAX),
            force: asked.force,
            is_renewal,
            // Of a pair, whichever the CA does not exempt is to be paid for.
            by_renewal_information: is_renewal && ordered.iter().all(is_suggested),
            needs_account,
        }
    }

    fn allowed(&self, config: &Config, issuer: &Issuer, ask: &Ask<'_>) -> Result<(), super::ledger::Refusal> {
        let limits = Limits::of(issuer, &config.acme.limits);
        self.ledger.borrow_mut().allows(ask, &limits, clock::now())
    }

    pub(super) fn save_ledger(&self) -> Result<(), crate::store::StoreError> {
        let file = self.ledger.borrow().file(clock::now());
        self.store.save_ledger(&file)?;
        self.ledger.borrow_mut().saved();
        Ok(())
    }
}

/// What an error of an order means, in words that take in what was seen besides.
fn refusal(
    issuer: &Issuer,
    error: &AskError,
    ordered: &[Identifier],
    outlook: &Outlook,
    now: SystemTime,
) -> Refusal {
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
    let expected =
        matches!(issuer, Issuer::LetsEncrypt | Issuer::LetsEncryptStaging).then_some(VANTAGE_POINTS);
    let seen = Seen { preflight: outlook.sentences.as_ref(), vantage_points: expected };
    let text = explanation::sentence(acme, &seen);
    let mut failures = acme.failures().to_vec();
    if failures.is_empty() && kind == Kind::Permanent {
        failures = named_in(&acme.to_string(), ordered);
    }
    Refusal { text, kind, failures }
}

/// The names that a refusal without subproblems speaks of, where it is not of all of them.
fn named_in(text: &str, ordered: &[Identifier]) -> Vec<NameFailure> {
    let text_lower = text.to_ascii_lowercase();
    let is_of_a_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '_');
    let words: BTreeSet<_> =
        text_lower.split(|c| !is_of_a_name(c)).map(|word| word.trim_matches(['.', ':'])).collect();
    let named: Vec<_> = ordered.iter().filter(|i| words.contains(i.to_string().as_str())).collect();
    if named.len() == ordered.len() {
        return Vec::new();
    }
    let failure = |identifier: &&Identifier| NameFailure {
        identifier: (*identifier).clone(),
        kind: "rejectedIdentifier".to_owned(),
        detail: text.to_owned(),
        status: None,
        arrivals: Vec::new(),
        authorization_failed: false,
        by_handshake: false,
    };
    named.iter().map(failure).collect()
}

/// What was obtained, in the order of its keys.
fn bundle(key_types: &[KeyType], obtained: Vec<(KeyType, Certificate)>) -> Result<Bundle, Refusal> {
    let place = |key_type: KeyType| key_types.iter().position(|wanted| *wanted == key_type);
    let mut obtained = obtained;
    obtained.sort_by_key(|(key_type, _)| place(*key_type));
    let mut certificates = obtained.into_iter().map(|(_, certificate)| certificate);
    let first = certificates.next().ok_or_else(|| Refusal::local("no key type is configured".to_owned()))?;
    Bundle::new(first, certificates.next()).map_err(|e| Refusal::local(e.to_string()))
}

/// What an attempt may cost at the CA, until it has ended. An order that is given up because the program is
/// told to stop is booked as if every name had failed.
struct Charged<'a> {
    keeper: &'a Keeper,
    charge: Option<Charge>,
    /// What came of each order that has ended.
    happened: Vec<Happened>,
    /// What may come of the one under way.
    worst: Happened,
}

impl Charged<'_> {
    /// No order is under way any more.
    fn settle(mut self) {
        if let Some(charge) = self.charge.take() {
            self.keeper.ledger.borrow_mut().settle_all(charge, &self.happened, clock::now());
        }
    }
}

impl Drop for Charged<'_> {
    fn drop(&mut self) {
        let Some(charge) = self.charge.take().filter(|_| !std::thread::panicking()) else { return };
        let mut happened = std::mem::take(&mut self.happened);
        happened.push(std::mem::take(&mut self.worst));
        self.keeper.ledger.borrow_mut().settle_all(charge, &happened, clock::now());
        if let Err(error) = self.keeper.save_ledger() {
            tracing::warn!("{error}");
        }
    }
}

fn limited(refused: super::ledger::Refusal) -> Refusal {
    Refusal { text: refused.says, kind: Kind::Limited(refused.until), failures: Vec::new() }
}

/// Why an order gave nothing.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error(transparent)]
    Issuer(#[from] IssuerError),
    #[error(transparent)]
    Acme(#[from] AcmeError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_without_subproblems_may_still_name_names() {
        let ordered: Vec<Identifier> =
            ["a.test", "blocked.test", "192.0.2.1"].iter().map(|n| n.parse().unwrap()).collect();
        for (text, wanted) in [
            ("order included a domain that is forbidden: \"blocked.test\"", &["blocked.test"][..]),
            ("Cannot issue for BLOCKED.test.", &["blocked.test"]),
            ("no certificate for sub.blocked.test", &[]),
            ("192.0.2.1: not yours", &["192.0.2.1"]),
            ("a.test, blocked.test and 192.0.2.1", &[]),
            ("policy forbids it", &[]),
        ] {
            let named = named_in(text, &ordered);
            let named: Vec<_> = named.iter().map(|f| f.identifier.to_string()).collect();
            assert_eq!(named, wanted, "{text}");
        }
    }
}
