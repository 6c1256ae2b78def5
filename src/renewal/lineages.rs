//! What is stored about the configured certificates, and what follows from it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use jiff::Timestamp;

use super::asking::ACCOUNT;
use super::half;
use super::kept;
use super::ledger::{Ask, Ledger, Limits};
use super::names;
use super::postponement;
use super::report::{AlsoServed, CertificateStatus, DeployStatus, NameStatus, What};
use super::schedule::{self, Decision, Known, Why, Window};
use crate::certificate::{Algorithm, Bundle, Certificate};
use crate::clock;
use crate::config::{CertificateRequest, Config, Issuer, KeyType, Partial};
use crate::hostname::Identifier;
use crate::store::{Half, LineageState, RenewalInformation, Store, SuggestedWindow, Version};

/// The configured certificates by name.
#[derive(Debug, Default)]
pub struct Lineages(BTreeMap<String, Lineage>);

/// One certificate: what is wished, kept and live.
#[derive(Debug)]
pub(super) struct Lineage {
    pub(super) request: CertificateRequest,
    /// Whose certificates serve, the first of them wanted most; never empty.
    pub(super) issuers: Vec<Issuer>,
    pub(super) state: LineageState,
    pub(super) live: Option<(Version, Bundle)>,
    /// Spreads the moments of many installations and lineages: from 0 to 1, always the same for one.
    pub(super) jitter: f64,
    /// The share of that by which a moment of our own choice is moved ahead.
    spread: f64,
    /// Until when the ledger allows no order, and why.
    pub(super) limited: Option<(SystemTime, String)>,
}

impl Lineages {
    /// Reads what is stored about each configured certificate. What cannot be read is told, one sentence
    /// each, and treated as missing; where the lock is held (`mend`), an older version that is whole takes
    /// the place of a damaged one.
    pub fn load(config: &Config, store: Option<&Store>, mend: bool) -> (Self, Vec<String>) {
        let mut told = Vec::new();
        let (installation, spread) = (installation(config), spread(config.certificates.len()));
        let lineages = config.certificates.iter().map(|request| {
            let name = request.name.as_str();
            let (mut state, mut live) = (LineageState::default(), None);
            if let Some(store) = store {
                let (kept, sentence) = kept::lineage_state(store, request, clock::now(), mend);
                state = kept;
                let is_forgotten = sentence.is_some() || state == LineageState::default();
                told.extend(sentence);
                live = store.current(name).unwrap_or_else(|e| {
                    told.push(e.to_string());
                    let mended = mend && matches!(store.fall_back(name), Ok(Some(_)));
                    if mended { store.current(name).unwrap_or_default() } else { None }
                });
                if is_forgotten && let Some((version, _)) = &live {
                    // Whether a newer one was held back is not known: it is tried again.
                    let newest = store.version_before(name, Version::MAX).unwrap_or_default();
                    let newest =
                        newest.filter(|(v, bundle)| v > version && bundle.not_after() > clock::now());
                    state.held_back = newest.map(|(version, _)| version);
                    if let Some(held) = state.held_back {
                        told.push(format!(
                            "{name}: version {held} is stored, version {version} is live, and why is not known, since state.json was lost: servers are given {held} again"
                        ));
                        let kept = if mend { store.save_lineage_state(name, &state) } else { Ok(()) };
                        told.extend(kept.err().map(|e| e.to_string()));
                    }
                }
                // A newer one was stored, and whatever was held back before it is over.
                let is_over = |held: &Version| live.as_ref().is_some_and(|(version, _)| version >= held);
                state.held_back = state.held_back.filter(|held| !is_over(held));
                if let Some(version) = state.held_back {
                    match store.version(name, version) {
                        Ok(certificate) => live = Some((version, certificate)),
                        Err(e) => {
                            told.push(e.to_string());
                            state.held_back = None;
                        }
                    }
                }
            }
            if state.issuer.is_none() && live.as_ref().is_some_and(|(_, c)| is_rehearsed(c.first())) {
                // Whoever has lost the memory of it must not take it for a real one.
                state.issuer = Some(Issuer::Embedded.name());
            }
            let jitter = schedule::jitter_of(&format!("{installation}\n{name}"));
            let issuers = config.acme.issuers().cloned().collect();
            (
                name.to_owned(),
                Lineage { request: request.clone(), issuers, state, live, jitter, spread, limited: None },
            )
        });
        let lineages = Self(lineages.collect());
        (lineages, told)
    }

    /// The names.
    pub fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    /// The live certificates and pairs.
    pub fn live(&self) -> impl Iterator<Item = (&str, &Bundle)> {
        self.0.iter().filter_map(|(name, l)| Some((name.as_str(), &l.live.as_ref()?.1)))
    }

    /// Every identifier that a live certificate covers for good: those of the embedded CA count only where
    /// it is the configured issuer.
    pub fn served(&self) -> BTreeSet<Identifier> {
        let for_good = self.0.values().filter(|l| !l.is_untrusted() || l.issuers.contains(&Issuer::Embedded));
        for_good.flat_map(|l| l.live.iter().flat_map(|(_, c)| c.identifiers().iter().cloned())).collect()
    }

    /// The next moment at which something is to be done; `None` without certificates.
    pub fn next_moment(&self, now: SystemTime) -> Option<SystemTime> {
        self.0.values().map(|l| l.next_moment(now)).min()
    }

    /// The state of every certificate.
    pub fn status(
        &self,
        store: Option<&Store>,
        config: &Config,
        ledger: &Ledger,
        now: SystemTime,
    ) -> Vec<CertificateStatus> {
        let path = |name: &str| match store {
            Some(store) => store.live_path(name),
            None => config.state_dir.join("live").join(name),
        };
        self.0
            .iter()
            .map(|(name, l)| l.status(name, path(name).display().to_string(), config, ledger, now))
            .collect()
    }

    /// Attempts that were put off may be made at once.
    pub(super) fn forget_pauses(&mut self) {
        for lineage in self.0.values_mut() {
            lineage.state.attempts.retry_at = None;
            lineage.state.postponed = None;
        }
    }

    /// An order that is put off is looked at at once.
    pub(super) fn look_again(&mut self, name: &str, now: SystemTime) {
        if let Some(postponed) = self.0.get_mut(name).and_then(|l| l.state.postponed.as_mut()) {
            postponed.look_at = stamp(now);
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&Lineage> {
        self.0.get(name)
    }

    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut Lineage> {
        self.0.get_mut(name)
    }
}

impl Lineage {
    /// What to do about the certificate itself.
    pub(super) fn decide(&self, now: SystemTime) -> Decision {
        let unfit = self.unfit();
        let attempts = &self.state.attempts;
        let is_same_wish = self.state.attempted_for == self.request.identifiers;
        let known = Known {
            validity: self.validity(),
            obtained_at: self.state.obtained_at.map(SystemTime::from),
            patience: self.state.patience.map(SystemTime::from),
            unfit: unfit.as_deref(),
            window: self.window(),
            explanation: self.explanation(),
            jitter: self.jitter * self.spread,
            failures: attempts.failures,
            retry_at: attempts.retry_at.filter(|_| is_same_wish).map(SystemTime::from),
        };
        let decision = schedule::decide(&known, now);
        let Some((until, why)) = self.hold(now) else { return decision };
        match decision {
            Decision::Wait { .. } => decision,
            Decision::Held { at, .. } if at >= until => decision,
            _ => Decision::Held { at: until, why },
        }
    }

    /// Until when nothing is ordered for another cause than failures, and why.
    fn hold(&self, now: SystemTime) -> Option<(SystemTime, Why)> {
        let postponed = self.state.postponed.as_ref().map(|p| (SystemTime::from(p.look_at), Why::Preflight));
        let limited = self.limited.as_ref().map(|(until, _)| (*until, Why::Limit));
        let is_believed =
            |(until, _): &(SystemTime, Why)| now < *until && *until <= now + schedule::LONGEST_WAIT;
        postponed.into_iter().chain(limited).filter(is_believed).max_by_key(|(until, _)| *until)
    }

    /// When the certificate itself is ordered again, as things stand at `now`.
    pub(super) fn next_order(&self, now: SystemTime) -> SystemTime {
        match self.decide(now) {
            Decision::Order(_) => now,
            Decision::Wait { at, .. } | Decision::Held { at, .. } => at,
        }
    }

    /// Names that the live version lacks and that are to be tried again now.
    pub(super) fn names_to_retry(&self, now: SystemTime) -> BTreeSet<Identifier> {
        if self.live.is_none() || self.hold(now).is_some() {
            return BTreeSet::new();
        }
        names::to_retry(&self.request.identifiers, &self.state.failing, now)
    }

    /// Names that the live version lacks.
    pub(super) fn names_left_out(&self) -> BTreeSet<Identifier> {
        let is_left_out = |i: &&Identifier| self.state.failing.get(i).is_some_and(|f| f.dropped);
        let lives = self.live.is_some();
        self.request.identifiers.iter().filter(|_| lives).filter(is_left_out).cloned().collect()
    }

    /// The live certificate's validity.
    pub(super) fn validity(&self) -> Option<(SystemTime, SystemTime)> {
        self.live.as_ref().map(|(_, c)| (c.not_before(), c.not_after()))
    }

    /// Less than a tenth of the live certificate's lifetime is left.
    pub(super) fn is_emergency(&self, now: SystemTime) -> bool {
        self.validity().is_some_and(|validity| now >= names::emergency_at(validity))
    }

    /// There is no certificate, or so little left of it that nobody's patience is asked for.
    pub(super) fn is_urgent(&self, now: SystemTime) -> bool {
        self.validity().is_none_or(|validity| now >= postponement::last_moment(validity))
    }

    /// What the CA said about the renewal of a certificate.
    fn information(&self, certificate: &Certificate) -> Option<&RenewalInformation> {
        self.state.renewal_information.iter().find(|kept| kept.serial == certificate.serial())
    }

    /// When the CA wants the live version renewed: of a pair, both are as soon as one of them is due.
    fn suggested(&self) -> Option<&SuggestedWindow> {
        let (_, live) = self.live.as_ref()?;
        let windows = live.certificates().filter_map(|c| self.information(c)?.window.as_ref());
        windows.min_by_key(|window| window.chosen)
    }

    fn window(&self) -> Option<Window> {
        self.suggested().map(window_of)
    }

    /// When the CA wants that certificate renewed.
    pub(super) fn window_for(&self, certificate: &Certificate) -> Option<Window> {
        self.information(certificate)?.window.as_ref().map(window_of)
    }

    fn explanation(&self) -> Option<&str> {
        self.suggested()?.explanation_url.as_deref()
    }

    /// When the CA is asked about the renewal of the live version; `None` where there is nobody to ask.
    pub(super) fn next_ask(&self, now: SystemTime) -> Option<SystemTime> {
        self.live_issuer()?;
        let (_, live) = self.live.as_ref()?;
        live.certificates().filter_map(|certificate| self.next_ask_about(certificate, now)).min()
    }

    /// The same of one certificate of the live version.
    pub(super) fn next_ask_about(&self, certificate: &Certificate, now: SystemTime) -> Option<SystemTime> {
        let next = self.information(certificate).map(|kept| SystemTime::from(kept.ask_at));
        if schedule::is_time_to_ask(next, certificate.not_after(), now) {
            return Some(now);
        }
        next.filter(|at| *at > now && *at < certificate.not_after())
    }

    /// Whether that issuer signed the live version.
    pub(super) fn is_from(&self, issuer: &Issuer) -> bool {
        self.state.issuer.as_ref() == Some(&issuer.name())
    }

    /// The configured issuer that signed the live version.
    pub(super) fn live_issuer(&self) -> Option<Issuer> {
        let issuer = self.state.issuer.as_ref()?;
        self.issuers.iter().find(|i| i.name() == *issuer).cloned()
    }

    /// The certificate of the live version that one with such a key takes the place of.
    pub(super) fn replaced(&self, key_type: KeyType) -> Option<&Certificate> {
        let (_, live) = self.live.as_ref()?;
        let is_only = self.request.key_types.len() == 1;
        live.of(key_type.algorithm()).or(is_only.then_some(live.first()))
    }

    /// What of a pair was obtained before and need not be ordered again.
    pub(super) fn half(&self, issuer: &str, identifiers: &[Identifier], now: SystemTime) -> Option<&Half> {
        let kept = self.state.half.as_ref()?;
        let is_live = self.live.as_ref().is_some_and(|(_, live)| live.serials().contains(&kept.serial));
        (!is_live && half::serves(kept, &self.request, issuer, identifiers, now)).then_some(kept)
    }

    /// What is to be said of names that the live version lacks.
    pub(super) fn missing(&self) -> Option<What> {
        self.live.as_ref()?;
        let is_missing = |i: &&Identifier| self.state.failing.get(i).is_some_and(|f| f.dropped);
        let identifiers: Vec<_> = self.request.identifiers.iter().filter(is_missing).cloned().collect();
        let kept = self.state.failing.get(identifiers.first()?)?;
        Some(What::NameMissing {
            retry_at: kept.attempts.retry_at.unwrap_or_default(),
            last_error: kept.attempts.last_error.clone().unwrap_or_default(),
            identifiers,
        })
    }

    /// Why the live certificate does not serve the present wish.
    fn unfit(&self) -> Option<String> {
        let (_, certificate) = self.live.as_ref()?;
        let wanted = &self.request.identifiers;
        // Names that were left out because they fail are tried again at their own pace.
        let may_lack = self.request.partial != Partial::Never;
        let is_dropped = |i: &&Identifier| may_lack && self.state.failing.get(i).is_some_and(|f| f.dropped);
        let set = |list: &[Identifier]| list.iter().cloned().collect::<BTreeSet<_>>();
        let covered: Vec<_> = wanted.iter().filter(|i| !is_dropped(i)).cloned().collect();
        let ordered = &self.state.ordered_for;
        if (!ordered.is_empty() && set(ordered) != set(&covered))
            || !covered.iter().all(|i| certificate.covers(i))
        {
            return Some("its names in the configuration have changed".to_owned());
        }
        let is_one = |kept: &&String| self.issuers.iter().any(|issuer| issuer.name() == **kept);
        if let Some(other) = self.state.issuer.as_ref().filter(|kept| !is_one(kept)) {
            return Some(format!("it is from {other}, and {} is configured", self.issuers[0].name()));
        }
        // Another order of the same two is no reason for an order: it holds from the next renewal on.
        let kept = &self.state.key_types;
        let is_wanted = |kept: &KeyType| self.request.key_types.contains(kept);
        if !kept.is_empty() && (kept.len() != self.request.key_types.len() || !kept.iter().all(is_wanted)) {
            return Some("another key type is configured".to_owned());
        }
        None
    }

    /// Whether the live version is the embedded CA's.
    fn is_untrusted(&self) -> bool {
        let issuer = self.state.issuer.clone().unwrap_or_else(|| self.issuers[0].name());
        issuer == Issuer::Embedded.name()
    }

    /// The servers that take it, if there is something to take.
    pub(super) fn deploys(&self) -> impl Iterator<Item = String> {
        // What the embedded CA signed is never handed on, whatever is configured by now.
        let is_there = self.live.is_some() && !self.is_untrusted();
        self.request.deploy.iter().filter(move |_| is_there).cloned()
    }

    /// A version is held back for a server that takes it no more: every other one is to have it.
    pub(super) fn is_held_back_for_nobody(&self) -> bool {
        let goes_back = |service: &String| self.state.deployed.get(service).is_some_and(|d| d.goes_back);
        self.state.held_back.is_some() && !self.request.deploy.iter().any(goes_back)
    }

    /// Those that have not, and when a failed one is asked again.
    pub(super) fn pending_deploys(
        &self,
        now: SystemTime,
    ) -> impl Iterator<Item = (String, Option<SystemTime>)> {
        let version = self.live.as_ref().map(|(version, _)| *version);
        self.deploys().filter_map(move |service| {
            let kept = self.state.deployed.get(&service);
            if kept.is_some_and(|d| d.version == version && !d.under_way) {
                return None;
            }
            let retry_at = kept.and_then(|d| d.attempts.retry_at).map(SystemTime::from);
            // A moment further ahead was written by a clock that was wrong.
            Some((service, retry_at.filter(|at| *at <= now + schedule::LONGEST_DEPLOY_WAIT)))
        })
    }

    pub(super) fn next_moment(&self, now: SystemTime) -> SystemTime {
        let names = if self.live.is_some() && self.hold(now).is_none() {
            names::next_retry(&self.request.identifiers, &self.state.failing, now)
        } else {
            None
        };
        let deploys = self.pending_deploys(now).map(|(_, at)| at.unwrap_or(now));
        deploys.chain(names).chain(self.next_ask(now)).fold(self.next_order(now), SystemTime::min)
    }

    /// When the ledger allows the order that is due, where it does not yet.
    fn limit(&self, config: &Config, ledger: &Ledger, now: SystemTime) -> Option<SystemTime> {
        let is_dropped = |i: &&Identifier| self.state.failing.get(i).is_some_and(|f| f.dropped);
        let identifiers: Vec<_> =
            self.request.identifiers.iter().filter(|i| !is_dropped(i)).cloned().collect();
        let allowed = self.issuers.iter().map(|issuer| {
            let ask = Ask {
                issuer: &issuer.name(),
                account: ACCOUNT,
                identifiers: &identifiers,
                certificates: 1,
                force: false,
                is_renewal: true,
                by_renewal_information: true,
                needs_account: false,
            };
            ledger.clone().allows(&ask, &Limits::of(issuer, &config.acme.limits), now)
        });
        allowed.map(|allowed| allowed.err().map(|refused| refused.until)).min().flatten()
    }

    fn status(
        &self,
        name: &str,
        path: String,
        config: &Config,
        ledger: &Ledger,
        now: SystemTime,
    ) -> CertificateStatus {
        let (next, reason) = match self.decide(now) {
            Decision::Order(reason) => match self.limit(config, ledger, now) {
                Some(until) => (until, format!("{}: {reason}", Why::Limit)),
                None => (now, reason.to_string()),
            },
            Decision::Wait { at, why } => (at, why.to_string()),
            Decision::Held { at, why } => (at, why.to_string()),
        };
        let issuer = &self.issuers[0];
        let limits = Limits::of(issuer, &config.acme.limits);
        let left = ledger.failures_left(&issuer.name(), ACCOUNT, &self.request.identifiers, &limits, now);
        let remaining = self.validity().map(|(from, to)| {
            let lifetime = to.duration_since(from).unwrap_or_default().as_secs_f64();
            let left = match to.duration_since(now) {
                Ok(left) => left.as_secs_f64(),
                Err(over) => -over.duration().as_secs_f64(),
            };
            (left / 86_400.0, if lifetime > 0.0 { (left / lifetime).clamp(0.0, 1.0) } else { 0.0 })
        });
        let failing = self.request.identifiers.iter().filter_map(|identifier| {
            let kept = self.state.failing.get(identifier)?;
            Some(NameStatus {
                identifier: identifier.clone(),
                dropped: kept.dropped,
                failures: kept.attempts.failures,
                retry_at: kept.attempts.retry_at.filter(|_| kept.dropped),
                last_error: kept.attempts.last_error.clone(),
            })
        });
        let live = self.live.as_ref();
        let bundle = live.map(|(_, bundle)| bundle);
        let certificate = bundle.map(Bundle::first);
        let also = bundle.and_then(Bundle::second).map(|second| also_served(&path, second));
        let version = live.map(|(v, _)| *v);
        let deploys = self.request.deploy.iter().map(|service| {
            let kept = self.state.deployed.get(service).cloned().unwrap_or_default();
            let pending = version.is_some() && kept.version != version;
            DeployStatus {
                service: service.clone(),
                version: kept.version,
                pending,
                retry_at: kept.attempts.retry_at,
                last_error: kept.attempts.last_error,
            }
        });
        CertificateStatus {
            name: name.to_owned(),
            identifiers: self.request.identifiers.clone(),
            issuer: self.state.issuer.clone().unwrap_or_else(|| issuer.name()),
            untrusted: self.is_untrusted(),
            path,
            version,
            serial: certificate.map(|c| c.serial().to_owned()),
            signed_by: certificate.map(|c| c.issuer().to_owned()),
            not_before: bundle.map(|b| stamp(b.not_before())),
            not_after: bundle.map(|b| stamp(b.not_after())),
            algorithm: certificate.and_then(Certificate::algorithm).map(|a| a.name().to_owned()),
            also: also.into_iter().collect(),
            next: stamp(next),
            reason,
            days_left: remaining.map(|(days, _)| rounded(days, 100.0)),
            fraction_left: remaining.map(|(_, fraction)| rounded(fraction, 1000.0)),
            explanation_url: self.explanation().map(str::to_owned),
            window: self.suggested().map(|window| (window.start, window.end)),
            failures_left_count: Some(left.automatic).filter(|count| *count != u32::MAX),
            failures_left: left.says,
            failures_left_at: self.issuers[0].name(),
            failing: failing.collect(),
            put_off: self.state.postponed.as_ref().map(|postponed| postponed.reason.clone()),
            failures: self.state.attempts.failures,
            last_error: self.state.attempts.last_error.clone(),
            held_back: self.state.held_back.is_some(),
            deploys: deploys.collect(),
        }
    }
}

fn window_of(kept: &SuggestedWindow) -> Window {
    Window { start: kept.start.into(), end: kept.end.into(), chosen: kept.chosen.into() }
}

/// The second certificate of a pair, whose version is in the folder `path`.
fn also_served(path: &str, second: &Certificate) -> AlsoServed {
    let algorithm = second.algorithm().map(Algorithm::name).unwrap_or_default();
    AlsoServed {
        algorithm: algorithm.to_owned(),
        path: format!("{path}/{algorithm}"),
        serial: second.serial().to_owned(),
        signed_by: second.issuer().to_owned(),
        not_before: stamp(second.not_before()),
        not_after: stamp(second.not_after()),
    }
}

/// Whether the embedded CA signed it: it says so in its name.
fn is_rehearsed(certificate: &Certificate) -> bool {
    certificate.issuer().contains("wicketgate rehearsal")
}

/// One certificate is renewed within a hundredth of its lifetime of what everybody expects; many of them
/// are kept apart further, or they would come together for years.
fn spread(certificates: usize) -> f64 {
    const MANY: f64 = 50.0;
    const FEW: f64 = 0.2;
    (f64::from(u32::try_from(certificates).unwrap_or(u32::MAX)) / MANY).clamp(FEW, 1.0)
}

/// What tells this installation from others, and stays.
fn installation(config: &Config) -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let machine = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    format!("{host}\n{}\n{}", machine.trim(), config.state_dir.display())
}

/// Down to so many parts of one: nobody looks at more, and a certificate has not ended before its end.
fn rounded(number: f64, parts: f64) -> f64 {
    (number * parts).floor() / parts
}

/// A moment for a file or a person; one beyond the year 9999 is cut off there.
pub(super) fn stamp(moment: SystemTime) -> Timestamp {
    Timestamp::try_from(moment).unwrap_or(Timestamp::MAX)
}
