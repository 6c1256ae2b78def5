//! Asking a CA when it wants a certificate renewed (RFC 9773), and keeping what it says.

use super::keeper::{Keeper, rand_unit};
use super::lineages::stamp;
use super::report::What;
use super::schedule;
use crate::acme::{AcmeError, RenewalWindow};
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
        let answer = match self.desk.session_at_hand(&config, &self.store, issuer).await {
            None => Ok(None),
            Some(Err(e)) => Err(e.to_string()),
            Some(Ok(session)) if !session.offers_renewal_info() => Ok(None),
            Some(Ok(session)) => {
                session.renewal_info(certificate).await.map(Some).map_err(|e: AcmeError| e.to_string())
            }
        };
        if let Err(reason) = &answer {
            // The fraction of its lifetime and the backstop stand, so nobody need act.
            tracing::debug!(certificate = name, issuer = issuer.name(), "no renewal information: {reason}");
        }
        let told = self.note_renewal_information(name, issuer, certificate.serial(), answer);
        told.into_iter().for_each(tell);
    }

    fn note_renewal_information(
        &self,
        name: &str,
        issuer: &Issuer,
        serial: &str,
        answer: Result<Option<RenewalWindow>, String>,
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
            Err(_) => before.as_ref().map_or(0, |b| b.failures).saturating_add(1),
        };
        let kept_window = before.and_then(|b| b.window);
        let (window, retry_after) = match answer {
            Ok(Some(window)) => (chosen(&window, kept_window.as_ref(), lineage.jitter), window.ask_again),
            Ok(None) => (None, None),
            // The CA is away or says nothing that makes sense: what it said before still holds.
            Err(_) => (kept_window.clone(), None),
        };
        let ask_at = schedule::ask_again(now, retry_after, lifetime, failures, rand_unit());
        let moved =
            kept_window.is_some() && window.as_ref().map(|w| w.chosen) != kept_window.map(|w| w.chosen);
        let told = window.as_ref().filter(|_| moved).map(|window| {
            let why = window.explanation_url.as_ref().map(|url| format!("; it explains why at {url}"));
            What::Step(format!(
                "{} has moved the renewal to {}{}",
                issuer.name(),
                super::report::minute(window.chosen),
                why.unwrap_or_default()
            ))
        });
        let ask_at = stamp(ask_at);
        let information = RenewalInformation { serial: serial.to_owned(), window, ask_at, failures };
        lineage.state.renewal_information.push(information);
        told
    }
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
