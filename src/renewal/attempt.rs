//! One attempt to obtain a certificate: what the preflight, the ledger and the CAs say, in this order, and
//! what is kept of it.

use std::collections::BTreeSet;
use std::time::SystemTime;

use jiff::Timestamp;

use super::asking::{Kind, Refusal};
use super::door::OpenDoor;
use super::keeper::{Asked, Keeper, Outcome, rand_unit};
use super::lineages::{Lineage, stamp};
use super::names::{self, Chosen};
use super::outlook::Outlook;
use super::postponement;
use super::report::{What, list};
use super::schedule::{self, Reason};
use crate::certificate::Bundle;
use crate::clock;
use crate::config::{CertificateRequest, ChallengeKind, Issuer, Partial};
use crate::hostname::Identifier;
use crate::store::{Attempts, LineageState, NotLive, Postponed, RenewalInformation, StoreError, Version};

/// Rounds of one attempt: with all names, and without those that failed in the first.
const ROUNDS: usize = 2;

/// What the last error of an attempt says that has not ended.
const INTERRUPTED: &str = "wicketgate was stopped in the middle of the attempt";

/// Why nothing was obtained.
enum Stopped {
    /// The preflight found what would fail.
    Postponed(Postponed),
    /// Names that were left out were looked at again, and would fail again.
    StillFailing,
    /// Asked for, and refused by a CA, the ledger, or this machine.
    Refused(Refusal),
}

impl From<Refusal> for Stopped {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Keeper {
    /// One attempt: written down as a failure before the CA is asked, so that a crash in the middle of it
    /// cannot become a storm, and struck out when it succeeds.
    pub(super) async fn renew(
        &self,
        name: &str,
        reason: Reason,
        asked: Option<Asked>,
        tell: &impl Fn(What),
    ) -> Outcome {
        let asked = asked.unwrap_or_default();
        let retried = match self.lineages.borrow().get(name) {
            Some(lineage) if asked.force => lineage.names_left_out(),
            Some(lineage) => lineage.names_to_retry(clock::now()),
            None => return Outcome::Well,
        };
        tell(What::Due(reason.to_string()));
        let is_retry = reason == Reason::NamesRetried;
        let begun = match self.begin_attempt(name, &retried, is_retry) {
            Ok(begun) => begun,
            Err(e) => {
                // Nothing can be kept, so nothing is asked of the CA; only this process remembers.
                let error = e.to_string();
                let retry_at = stamp(clock::now() + schedule::retry_after(1, 0.0));
                self.note_unkept(name, &error, retry_at, is_retry.then_some(&retried));
                let still_missing = still_missing(&retried, is_retry);
                tell(What::Failed { error, retry_at, still_served: self.is_live(name), still_missing });
                return Outcome::Failed;
            }
        };
        let outcome = match self.attempt(name, &retried, is_retry, asked, tell).await {
            Ok(()) => {
                begun.end();
                Outcome::Well
            }
            Err(Stopped::Postponed(postponed)) => {
                drop(begun);
                self.note_postponed(name, postponed, tell);
                Outcome::Failed
            }
            Err(Stopped::StillFailing) => {
                begun.end();
                Outcome::Well
            }
            Err(Stopped::Refused(Refusal { kind: Kind::Limited(until), text, .. })) => {
                drop(begun);
                self.note_limited(name, until, &text, is_retry.then_some(&retried));
                tell(What::Limited { retry_at: stamp(until), reason: text });
                Outcome::Later
            }
            Err(Stopped::Refused(refusal)) => {
                let paused = matches!(refusal.kind, Kind::Paused(_));
                self.note_refused(name, refusal, &retried, is_retry, tell);
                begun.end();
                if paused { Outcome::Later } else { Outcome::Failed }
            }
        };
        if let Err(e) = self.save_state(name) {
            tell(What::Warning(e.to_string()));
        }
        outcome
    }

    /// Counts an attempt as failed until it has ended. One that is made for names which were left out
    /// counts for them alone.
    fn begin_attempt<'a>(
        &'a self,
        name: &'a str,
        retried: &BTreeSet<Identifier>,
        is_retry: bool,
    ) -> Result<Begun<'a>, StoreError> {
        let (now, jitter) = (clock::now(), rand_unit());
        let mut before = LineageState::default();
        if let Some(lineage) = self.lineages.borrow_mut().get_mut(name) {
            let state = &mut lineage.state;
            before = state.clone();
            for identifier in retried {
                let kept = state.failing.entry(identifier.clone()).or_default();
                let error = kept.attempts.last_error.clone();
                names::failed(kept, error.as_deref().unwrap_or(INTERRUPTED), now, jitter);
            }
            if !is_retry {
                if state.attempted_for != lineage.request.identifiers {
                    state.attempts = Attempts::default();
                    state.attempted_for.clone_from(&lineage.request.identifiers);
                }
                state.attempts.failures = state.attempts.failures.saturating_add(1);
                state.attempts.last_error = Some(INTERRUPTED.to_owned());
                let retry_at = lineage.retry_moment(now, jitter);
                lineage.state.attempts.retry_at = Some(stamp(retry_at));
            }
        }
        let begun = Begun { keeper: self, name, before: Some(before) };
        match self.save_state(name) {
            Ok(()) => Ok(begun),
            Err(e) => {
                begun.undo();
                Err(e)
            }
        }
    }

    /// An attempt that could not even be written down. It failed for what the disk says, and for nothing
    /// else: the CA was not asked.
    fn note_unkept(
        &self,
        name: &str,
        error: &str,
        retry_at: Timestamp,
        retried: Option<&BTreeSet<Identifier>>,
    ) {
        let mut lineages = self.lineages.borrow_mut();
        let Some(lineage) = lineages.get_mut(name) else { return };
        let note = |attempts: &mut Attempts| {
            attempts.failures = attempts.failures.max(1);
            attempts.retry_at = Some(retry_at);
            attempts.last_error = Some(error.to_owned());
        };
        let Some(retried) = retried else {
            lineage.state.attempted_for.clone_from(&lineage.request.identifiers);
            return note(&mut lineage.state.attempts);
        };
        for identifier in retried {
            note(&mut lineage.state.failing.entry(identifier.clone()).or_default().attempts);
        }
    }

    async fn attempt(
        &self,
        name: &str,
        retried: &BTreeSet<Identifier>,
        is_retry: bool,
        asked: Asked,
        tell: &impl Fn(What),
    ) -> Result<(), Stopped> {
        let config = self.config();
        let Some(request) = config.certificates.iter().find(|c| c.name == name) else { return Ok(()) };
        let local = |e: StoreError| Stopped::from(Refusal::local(e.to_string()));
        if let Some((kept, certificate, issuer)) = self.not_live(name, request) {
            self.store.make_live(name, kept.version).map_err(local)?;
            tell(What::Step(format!(
                "version {}, which was obtained before, can be served now",
                kept.version
            )));
            let without =
                request.identifiers.iter().filter(|i| !kept.ordered_for.contains(i)).cloned().collect();
            let chosen = Chosen { with: kept.ordered_for, without };
            self.install_new(
                name,
                request,
                &chosen,
                &Outlook::default(),
                (kept.version, certificate),
                issuer,
                tell,
            );
            return Ok(());
        }
        self.store.is_ready_for(name).map_err(local)?;
        let mut retried = retried;
        let nothing = BTreeSet::new();
        let without_preflight = |retried| self.choose(request, &nothing, retried).with;
        if let Err(refusal) = self.may_ask_anyone(name, &without_preflight(retried), asked) {
            if is_retry || retried.is_empty() {
                return Err(refusal.into());
            }
            // Names that are not to be asked for yet do not hold up the others.
            retried = &nothing;
            self.may_ask_anyone(name, &without_preflight(retried), asked)?;
        }
        let (door, outlook) = self.expect_ca(request, tell).await?;
        let mut chosen = self.choose(request, &outlook.condemned, retried);
        // What is made for the sake of names alone would give the same certificate again without them.
        let is_in_vain = |chosen: &Chosen| is_retry && !chosen.with.iter().any(|i| retried.contains(i));
        if is_in_vain(&chosen) {
            self.note_still_failing(name, &outlook);
            return Err(Stopped::StillFailing);
        }
        if !asked.skip_preflight && chosen.with.iter().any(|i| outlook.condemned.contains(i)) {
            self.postpone(name, &outlook)?;
            tell(What::Warning(format!(
                "the CA is asked although the preflight found what would fail, because it cannot be put off any longer: {}",
                outlook.text
            )));
        }
        let mut round = 1;
        let (obtained, issuer) = loop {
            match self.obtain(name, request, &chosen, &outlook, asked, tell).await {
                Ok(obtained) => break obtained,
                Err(mut refusal) => {
                    if round > 1 && matches!(refusal.kind, Kind::Limited(_)) {
                        // The CA was asked in the round before, and that counts.
                        refusal.kind = Kind::Names;
                    }
                    self.note_failing(name, &refusal, retried);
                    let has_failed = |i: &Identifier| refusal.failures.iter().any(|f| f.identifier == *i);
                    let retried = retried.iter().filter(|i| !has_failed(i)).cloned().collect();
                    let again = self.choose(request, &outlook.condemned, &retried);
                    if round == ROUNDS
                        || refusal.failures.is_empty()
                        || again.with == chosen.with
                        || is_in_vain(&again)
                    {
                        return Err(refusal.into());
                    }
                    tell(What::Warning(format!(
                        "ordering again without {}: {}",
                        list(&again.without),
                        refusal.text
                    )));
                    chosen = again;
                    round += 1;
                }
            }
        };
        drop(door);
        self.take(name, request, &chosen, &outlook, obtained, issuer, tell).map_err(local)
    }

    /// Makes way for a CA's validators, and looks at what they would find.
    pub(super) async fn expect_ca(
        &self,
        request: &CertificateRequest,
        tell: &impl Fn(What),
    ) -> Result<(Option<OpenDoor>, Outlook), Refusal> {
        match request.challenge {
            ChallengeKind::Http01 => {
                let door = self.door.open().await;
                let door =
                    door.map_err(|e| Refusal::local(format!("port 80 cannot be opened for the CA: {e}")))?;
                Ok((door, self.look(request, tell).await))
            }
            // What a CA would find at the front is not looked at beforehand.
            ChallengeKind::TlsAlpn01 if self.served.resolver.is_some() => Ok((None, Outlook::default())),
            ChallengeKind::TlsAlpn01 => {
                let text = "tls-alpn-01 is answered by the front, which only a running daemon has: start `wicketgate run`, which obtains it by itself";
                Err(Refusal::local(text.to_owned()))
            }
        }
    }

    /// What was obtained before and could not be made live, where it still is what is wished.
    fn not_live(&self, name: &str, request: &CertificateRequest) -> Option<(NotLive, Bundle, Issuer)> {
        let mut lineages = self.lineages.borrow_mut();
        let lineage = lineages.get_mut(name)?;
        let kept = lineage.state.not_live.clone()?;
        let issuer = lineage.issuers.iter().find(|i| i.name() == kept.issuer).cloned();
        let bundle = self.store.version(name, kept.version).ok();
        let is_wished = |b: &Bundle| {
            kept.key_types == request.key_types
                && kept.ordered_for.iter().all(|i| request.identifiers.contains(i))
                && clock::now() < schedule::renew_at(b.not_before(), b.not_after(), 1.0)
        };
        match (issuer, bundle) {
            (Some(issuer), Some(bundle)) if is_wished(&bundle) => Some((kept, bundle, issuer)),
            _ => {
                lineage.state.not_live = None;
                None
            }
        }
    }

    fn choose(
        &self,
        request: &CertificateRequest,
        condemned: &BTreeSet<Identifier>,
        retried: &BTreeSet<Identifier>,
    ) -> Chosen {
        let lineages = self.lineages.borrow();
        let Some(lineage) = lineages.get(&request.name) else {
            return Chosen { with: request.identifiers.clone(), without: Vec::new() };
        };
        names::choose(
            &request.identifiers,
            &lineage.state.failing,
            condemned,
            retried,
            request.partial,
            lineage.is_emergency(clock::now()),
        )
    }

    /// Puts the order off, unless it has been for long enough.
    fn postpone(&self, name: &str, outlook: &Outlook) -> Result<(), Stopped> {
        let lineages = self.lineages.borrow();
        let Some(lineage) = lineages.get(name) else { return Ok(()) };
        let (now, before) = (clock::now(), lineage.state.postponed.as_ref());
        let (since, looks) = before.map_or((None, 0), |p| (Some(p.since.into()), p.looks));
        match postponement::decide(since, looks, lineage.validity(), now, rand_unit()) {
            postponement::Verdict::Order => Ok(()),
            postponement::Verdict::Postpone { look_at, order_at } => Err(Stopped::Postponed(Postponed {
                since: stamp(since.filter(|since| *since <= now).unwrap_or(now)),
                looks: looks + 1,
                look_at: stamp(look_at),
                order_at: stamp(order_at),
                reason: outlook.text.clone(),
            })),
        }
    }

    /// Stores what was obtained, and makes it visible.
    #[expect(clippy::too_many_arguments)]
    fn take(
        &self,
        name: &str,
        request: &CertificateRequest,
        chosen: &Chosen,
        outlook: &Outlook,
        bundle: Bundle,
        issuer: Issuer,
        tell: &impl Fn(What),
    ) -> Result<(), StoreError> {
        let version = match self.store.save(name, &bundle) {
            Err(StoreError::NotLive { version, why }) => {
                if let Some(lineage) = self.lineages.borrow_mut().get_mut(name) {
                    lineage.state.not_live = Some(NotLive {
                        version,
                        issuer: issuer.name(),
                        key_types: request.key_types.clone(),
                        ordered_for: chosen.with.clone(),
                    });
                }
                return Err(StoreError::NotLive { version, why });
            }
            saved => saved?,
        };
        self.install_new(name, request, chosen, outlook, (version, bundle), issuer, tell);
        Ok(())
    }

    /// Serves what was stored and made live, and keeps what follows from it.
    #[expect(clippy::too_many_arguments)]
    fn install_new(
        &self,
        name: &str,
        request: &CertificateRequest,
        chosen: &Chosen,
        outlook: &Outlook,
        (version, bundle): (Version, Bundle),
        issuer: Issuer,
        tell: &impl Fn(What),
    ) {
        if let Err(e) = self.store.remove_half(name) {
            tell(What::Warning(e.to_string()));
        }
        let now = clock::now();
        let mut told = Vec::new();
        if let Some(lineage) = self.lineages.borrow_mut().get_mut(name) {
            self.install(name, &bundle);
            let renewal = lineage.live.is_some();
            let (serial, not_after) = (bundle.serial().to_owned(), stamp(bundle.not_after()));
            let also = bundle.second().map(|second| second.serial().to_owned()).into_iter().collect();
            let identifiers = bundle.identifiers().to_vec();
            let (not_before, not_after_at) = (bundle.not_before(), bundle.not_after());
            let state = &mut lineage.state;
            // A window that is over before its time came: the CA may have revoked what it was about.
            let windows = state.renewal_information.iter();
            let is_over = |kept: &&RenewalInformation| {
                kept.window.as_ref().is_some_and(|window| SystemTime::from(window.end) <= now)
            };
            state.distrusted = windows.filter(is_over).map(|kept| kept.serial.clone()).collect();
            state.held_back = None;
            state.not_live = None;
            state.deployed.values_mut().for_each(|deployed| deployed.goes_back = false);
            let patience = state.patience.filter(|_| renewal).map(SystemTime::from);
            state.patience = Some(stamp(schedule::patience(patience, now, not_before, not_after_at)));
            state.issuer = Some(issuer.name());
            state.key_types.clone_from(&request.key_types);
            state.half = None;
            state.ordered_for.clone_from(&chosen.with);
            state.obtained_at = Some(stamp(now));
            state.attempts = Attempts::default();
            state.staging_first = false;
            state.postponed = None;
            state.renewal_information.clear();
            for identifier in &chosen.with {
                if !state.validated.contains(identifier) {
                    state.validated.push(identifier.clone());
                }
            }
            state.validated.retain(|i| request.identifiers.contains(i));
            let is_back = |i: &&Identifier| state.failing.get(i).is_some_and(|f| f.dropped);
            let back: Vec<_> = chosen.with.iter().filter(is_back).cloned().collect();
            state.failing.retain(|i, _| chosen.without.contains(i));
            let mut reasons = Vec::new();
            for identifier in &chosen.without {
                let kept = state.failing.entry(identifier.clone()).or_default();
                let found = outlook.sentences.iter().flatten().find(|(name, _)| *name == identifier);
                let known = kept.attempts.last_error.clone();
                let error = known.or(found.map(|(_, sentence)| sentence.clone())).unwrap_or_default();
                if kept.attempts.retry_at.is_none_or(|at| SystemTime::from(at) <= now) {
                    names::failed(kept, &error, now, rand_unit());
                }
                kept.dropped = true;
                reasons.push(format!(
                    "{identifier}: {}",
                    kept.attempts.last_error.as_deref().unwrap_or("it fails")
                ));
            }
            lineage.live = Some((version, bundle));
            lineage.limited = None;
            let renews_at = stamp(lineage.next_order(now));
            told.push(What::Obtained { version, serial, identifiers, not_after, renews_at, renewal, also });
            if !back.is_empty() {
                told.push(What::NameBack { identifiers: back });
            }
            if !chosen.without.is_empty() {
                told.push(What::NameDropped {
                    identifiers: chosen.without.clone(),
                    reason: format!(
                        "{}; it is tried on, and taken back as soon as it works",
                        reasons.join("; ")
                    ),
                });
            }
        }
        self.served.publish(&self.lineages.borrow());
        told.into_iter().for_each(tell);
    }

    fn note_postponed(&self, name: &str, postponed: Postponed, tell: &impl Fn(What)) {
        tell(What::Postponed {
            reason: postponed.reason.clone(),
            retry_at: postponed.look_at,
            order_at: postponed.order_at,
            still_served: self.is_live(name),
        });
        if let Some(lineage) = self.lineages.borrow_mut().get_mut(name) {
            lineage.state.postponed = Some(postponed);
        }
    }

    /// Nothing is asked before `until`, or before so little is left of the present certificate that
    /// another issuer is asked. Where it was asked for names that were left out, only they wait.
    fn note_limited(
        &self,
        name: &str,
        until: SystemTime,
        text: &str,
        retried: Option<&BTreeSet<Identifier>>,
    ) {
        let now = clock::now();
        let until = until.min(now + schedule::LONGEST_WAIT);
        let mut lineages = self.lineages.borrow_mut();
        let Some(lineage) = lineages.get_mut(name) else { return };
        let Some(retried) = retried else {
            let urgent = lineage.validity().map(postponement::last_moment).filter(|at| *at > now);
            lineage.limited = Some((urgent.map_or(until, |at| at.min(until)), text.to_owned()));
            return;
        };
        for identifier in retried {
            if let Some(kept) = lineage.state.failing.get_mut(identifier) {
                kept.attempts.retry_at = Some(stamp(until));
            }
        }
    }

    fn note_refused(
        &self,
        name: &str,
        refusal: Refusal,
        retried: &BTreeSet<Identifier>,
        is_retry: bool,
        tell: &impl Fn(What),
    ) {
        let now = clock::now();
        let Refusal { text: error, kind, .. } = refusal;
        let mut retry_at = stamp(now);
        if let Some(lineage) = self.lineages.borrow_mut().get_mut(name) {
            lineage.state.postponed = None;
            if is_retry {
                let kept = retried.iter().filter_map(|i| lineage.state.failing.get(i));
                retry_at = kept.filter_map(|f| f.attempts.retry_at).min().unwrap_or(retry_at);
            } else {
                lineage.state.staging_first |=
                    matches!(kind, Kind::Names | Kind::Permanent | Kind::Transient);
                let attempts = &mut lineage.state.attempts;
                attempts.last_error = Some(error.clone());
                retry_at = attempts.retry_at.unwrap_or(retry_at);
            }
        }
        if let Kind::Paused(until) = kind {
            // The ledger keeps it for that issuer; another one may be asked when there is no time left.
            self.note_limited(name, until, &error, is_retry.then_some(retried));
            retry_at = retry_at.max(stamp(until.min(now + schedule::LONGEST_WAIT)));
        }
        let still_missing = still_missing(retried, is_retry);
        tell(What::Failed { error, retry_at, still_served: self.is_live(name), still_missing });
    }

    /// Counts a failure for each name that the CA did not validate or refuses; those that were retried
    /// are counted already.
    fn note_failing(&self, name: &str, refusal: &Refusal, retried: &BTreeSet<Identifier>) {
        let now = clock::now();
        if let Some(lineage) = self.lineages.borrow_mut().get_mut(name) {
            for failure in &refusal.failures {
                if !lineage.request.identifiers.contains(&failure.identifier) {
                    continue;
                }
                let kept = lineage.state.failing.entry(failure.identifier.clone()).or_default();
                if retried.contains(&failure.identifier) {
                    kept.attempts.last_error = Some(failure.detail.clone());
                } else {
                    names::failed(kept, &failure.detail, now, rand_unit());
                }
            }
            // A name that works again starts afresh.
            let failed = |i: &Identifier| refusal.failures.iter().any(|f| f.identifier == *i);
            if refusal.kind == Kind::Names {
                lineage.state.failing.retain(|i, kept| kept.dropped || failed(i));
            }
        }
    }

    fn note_still_failing(&self, name: &str, outlook: &Outlook) {
        if let Some(lineage) = self.lineages.borrow_mut().get_mut(name) {
            for (identifier, sentence) in outlook.sentences.iter().flatten() {
                if let Some(kept) = lineage.state.failing.get_mut(identifier) {
                    kept.attempts.last_error = Some(sentence.clone());
                }
            }
        }
    }
}

/// The names that an attempt was made for, where it was made for them alone.
fn still_missing(retried: &BTreeSet<Identifier>, is_retry: bool) -> Vec<Identifier> {
    retried.iter().filter(|_| is_retry).cloned().collect()
}

impl Lineage {
    /// When an attempt that fails now is made again: in an emergency that lies ahead, names that fail may
    /// be left out, so that moment is not slept through.
    fn retry_moment(&self, now: SystemTime, jitter: f64) -> SystemTime {
        let usual = now + schedule::retry_after(self.state.attempts.failures, jitter);
        let emergency = self.validity().map(names::emergency_at).filter(|at| *at > now);
        match emergency {
            Some(at) if self.request.partial == Partial::Emergency && !self.state.failing.is_empty() => {
                usual.min(at)
            }
            _ => usual,
        }
    }
}

/// An attempt under way. One that is given up because the program is told to stop does not count, nor one
/// that never reached a CA.
struct Begun<'a> {
    keeper: &'a Keeper,
    name: &'a str,
    before: Option<LineageState>,
}

impl Begun<'_> {
    /// The attempt has ended by itself, well or not.
    fn end(mut self) {
        self.before = None;
    }

    /// It never began; on disk there is nothing of it.
    fn undo(mut self) {
        if let Some(before) = self.before.take() {
            self.forget(before);
        }
    }

    fn forget(&self, before: LineageState) {
        if let Some(lineage) = self.keeper.lineages.borrow_mut().get_mut(self.name) {
            lineage.state.attempts = before.attempts;
            lineage.state.attempted_for = before.attempted_for;
            for (identifier, kept) in before.failing {
                lineage.state.failing.entry(identifier).or_default().attempts = kept.attempts;
            }
        }
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        let Some(before) = self.before.take().filter(|_| !std::thread::panicking()) else { return };
        self.forget(before);
        if let Err(error) = self.keeper.save_state(self.name) {
            tracing::warn!("{error}");
        }
    }
}
