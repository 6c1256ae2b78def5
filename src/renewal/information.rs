//! Asking a CA when it wants a certificate renewed (RFC 9773), and keeping what it says.

use std::time::SystemTime;

use super::issuer::IssuerError;
use super::keeper::{Keeper, rand_unit};
use super::ledger::Scope;
use super::lineages::stamp;
use super::report::{What, minute};
use super::schedule::{self, Decision, Why};
use crate::acme::{RenewalWindow, Verdict};
use crate::certificate::Certificate;
use crate::clock;
use crate::config::Issuer;
use crate::store::{RenewalInformation, SuggestedWindow};

impl Keeper {
    /// Asks about the live certificate where that is due, and fixes the moment of its renewal.
    pub(super) async fn ask_renewal_information(&self, name: &str, tell: &impl Fn(What)) {
        let (issuer, due) = {
            let lineages = self.lineages.borrow();
            let Some(lineage) = lineages.get(name) else { return };
            let (now, Some(issuer)) = (clock::now(), lineage.live_issuer()) else { return };
            let Some((_, live)) = &lineage.live else { return };
            let is_due = |c: &&Certificate| lineage.next_ask_about(c, now).is_some_and(|at| at <= now);
            (issuer, live.certificates().filter(is_due).cloned().collect::<Vec<_>>())
        };
        for certificate in &due {
            self.ask_about(name, &issuer, certificate, tell).await;
        }
        if !due.is_empty()
            && let Err(e) = self.save_state(name)
        {
            tell(What::Warning(e.to_string()));
        }
    }

    async fn ask_about(&self, name: &str, issuer: &Issuer, certificate: &Certificate, tell: &impl Fn(What)) {
        let config = self.config();
        let paused = self.ledger.borrow().information_waits(&issuer.name(), clock::now());
        let answer = match paused {
            Some(until) => Err(Unanswered {
                reason: "the CA has asked to be left alone".to_owned(),
                until: Some(until),
                was_asked: false,
            }),
            None => match self.desk.session_at_hand(&config, &self.store, issuer).await {
                None => Ok(None),
                Some(Err(e)) => Err(self.unanswered(issuer, &e, Scope::Issuer, tell)),
                Some(Ok(session)) if !session.offers_renewal_info() => Ok(None),
                Some(Ok(session)) => session
                    .renewal_info(certificate)
                    .await
                    .map(Some)
                    .map_err(|e| self.unanswered(issuer, &e.into(), Scope::Information, tell)),
            },
        };
        if let Err(Unanswered { reason, .. }) = &answer {
            // The fraction of its lifetime and the backstop stand, so nobody need act.
            tracing::debug!(certificate = name, issuer = issuer.name(), "no renewal information: {reason}");
        }
        let told = self.note_renewal_information(name, issuer, certificate.serial(), answer);
        told.into_iter().for_each(tell);
    }

    /// Keeps the Retry-After of an answer that was none, for every certificate of that CA.
    fn unanswered(
        &self,
        issuer: &Issuer,
        error: &IssuerError,
        scope: Scope<'_>,
        tell: &impl Fn(What),
    ) -> Unanswered {
        let until = match error {
            IssuerError::Acme(e) => match e.verdict() {
                Verdict::RateLimited { until, .. } => until,
                _ => None,
            },
            _ => None,
        };
        if let Some(until) = until {
            self.ledger.borrow_mut().blocked(&issuer.name(), scope, until, clock::now());
            // The CA in this program counts nothing, so there is nothing to be kept of it.
            if *issuer != Issuer::Embedded
                && let Err(e) = self.save_ledger()
            {
                tell(What::Warning(e.to_string()));
            }
        }
        Unanswered { reason: error.to_string(), until, was_asked: true }
    }

    fn note_renewal_information(
        &self,
        name: &str,
        issuer: &Issuer,
        serial: &str,
        answer: Result<Option<RenewalWindow>, Unanswered>,
    ) -> Option<What> {
        let now = clock::now();
        let mut lineages = self.lineages.borrow_mut();
        let lineage = lineages.get_mut(name)?;
        let lifetime = lineage.validity().map(|(from, to)| to.duration_since(from).unwrap_or_default())?;
        let serials = lineage.live.as_ref().map(|(_, live)| live.serials()).unwrap_or_default();
        let kept = &mut lineage.state.renewal_information;
        let before = kept.iter().find(|kept| kept.serial == serial).cloned();
        // What was said of earlier versions is of no use any more.
        kept.retain(|kept| kept.serial != serial && serials.contains(&kept.serial));
        let failures = match &answer {
            Ok(_) => 0,
            Err(unanswered) => {
                let failures = before.as_ref().map_or(0, |b| b.failures);
                failures.saturating_add(unanswered.was_asked.into())
            }
        };
        let kept_window = before.and_then(|b| b.window);
        let (window, retry_after) = match answer {
            Ok(Some(window)) => (chosen(&window, kept_window.as_ref(), lineage.jitter), window.ask_again),
            Ok(None) => (None, None),
            // The CA is away or says nothing that makes sense: what it said before still holds.
            Err(unanswered) => (kept_window.clone(), unanswered.until),
        };
        let ask_at = schedule::ask_again(now, retry_after, lifetime, failures, rand_unit());
        let moved =
            kept_window.is_some() && window.as_ref().map(|w| w.chosen) != kept_window.map(|w| w.chosen);
        lineage.state.renewal_information.push(RenewalInformation {
            serial: serial.to_owned(),
            window: window.clone(),
            ask_at: stamp(ask_at),
            failures,
        });
        let window = window.filter(|_| moved)?;
        Some(What::Step(moved_to(&issuer.name(), &window, &lineage.decide(now))))
    }
}

/// What comes of a window that is another one now.
fn moved_to(issuer: &str, window: &SuggestedWindow, decision: &Decision) -> String {
    let wish = minute(window.chosen);
    let said = match decision {
        Decision::Wait { why: Why::RenewalWindow, .. } => format!("has moved the renewal to {wish}"),
        Decision::Wait { at, why } | Decision::Held { at, why } => {
            format!("suggests to renew at {wish}, but that happens at {}: {why}", minute(stamp(*at)))
        }
        Decision::Order(reason) => format!("suggests to renew at {wish}, and that happens now: {reason}"),
    };
    let url = window.explanation_url.as_ref().map(|url| format!("; it explains why at {url}"));
    format!("{issuer} {said}{}", url.unwrap_or_default())
}

/// Why nothing is known of a renewal.
struct Unanswered {
    reason: String,
    /// The CA is not to be asked before.
    until: Option<SystemTime>,
    was_asked: bool,
}

/// The window with the moment chosen in it: once, and kept as long as the window stays the same.
fn chosen(window: &RenewalWindow, kept: Option<&SuggestedWindow>, random: f64) -> Option<SuggestedWindow> {
    let before = kept.map(|kept| schedule::Window {
        start: kept.start.into(),
        end: kept.end.into(),
        chosen: kept.chosen.into(),
    });
    let moment = schedule::keep_or_choose(before.as_ref(), window.start, window.end, random)?;
    Some(SuggestedWindow {
        start: stamp(moment.start),
        end: stamp(moment.end),
        chosen: stamp(moment.chosen),
        explanation_url: window.explanation_url.clone(),
    })
}
