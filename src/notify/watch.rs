//! The expiry watch: looks at what is on disk and at what is served, and tells when an end is near,
//! whatever the renewals think of it.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde_json::{Map, json};

use super::expiry::{self, Stage};
use super::notice::{Account, compose};
use super::notifier::Notifier;
use super::served::{self, Shown};
use super::way;
use crate::certificate::Bundle;
use crate::clock;
use crate::config::{CertificateRequest, Config};
use crate::store::outbox::{Kind, Notice};
use crate::store::{LineageState, Store};
use crate::words::rough;

/// Time for the renewals to begin with what is due at once, before anybody is told of it.
const FIRST: Duration = Duration::from_secs(15);
/// Time for a certificate between the disk and the front.
const CONFIRM: Duration = Duration::from_secs(5);
/// [`Notice::cause`] of a front that shows an older certificate.
const FRONT: &str = "front";

/// Watches the certificates of a configuration.
#[derive(Debug)]
pub struct ExpiryWatch {
    store: Store,
    host: String,
}

impl ExpiryWatch {
    /// A watch with a handle of its own to the state directory; `host` is this machine's name.
    pub fn new(store: Store, host: String) -> Self {
        Self { store, host }
    }

    /// Looks at disk and front, for ever.
    pub async fn watch(&self, notifier: &Notifier) {
        tokio::time::sleep(FIRST).await;
        loop {
            let shortest = self.look_at_disk(notifier);
            self.look_at_front(notifier).await;
            tokio::time::sleep(expiry::pause(shortest)).await;
        }
    }

    /// Looks once at what is on disk; the shortest lifetime that was seen.
    pub fn look_at_disk(&self, notifier: &Notifier) -> Option<Duration> {
        let config = notifier.config();
        if way::configured(&config.notify).is_empty() {
            return None;
        }
        let now = clock::now();
        let mut shortest = None;
        for request in &config.certificates {
            let Some(certificate) = self.stored(request) else { continue };
            let lifetime = certificate.not_after().duration_since(certificate.not_before()).ok();
            shortest = shortest.into_iter().chain(lifetime).min();
            let below = config.notify.expiring_below;
            match expiry::stage(certificate.not_before(), certificate.not_after(), below, now) {
                Some(stage) => {
                    let state = self.store.lineage_state(&request.name).unwrap_or_default();
                    notifier.tell(&expiring(stage, request, &certificate, &state, now, &self.host));
                }
                None => {
                    notifier.mended(Kind::Expiring, Some(&request.name), None);
                    notifier.mended(Kind::Expired, Some(&request.name), None);
                }
            }
        }
        shortest
    }

    /// Looks once at what the front of this process shows.
    async fn look_at_front(&self, notifier: &Notifier) {
        let config = notifier.config();
        let Some(listen) = listener(&config) else { return };
        for request in &config.certificates {
            match self.shown_if_older(listen, request).await {
                Ok(None) => notifier.mended(Kind::DeployFailed, Some(&request.name), Some(FRONT)),
                Ok(Some(_)) => {
                    // It may have been on its way.
                    tokio::time::sleep(CONFIRM).await;
                    if let Ok(Some((shown, stored))) = self.shown_if_older(listen, request).await {
                        notifier.tell(&outdated(request, &shown, &stored, clock::now(), &self.host));
                    }
                }
                Err(reason) => {
                    tracing::debug!(
                        certificate = request.name,
                        "what the front shows cannot be seen: {reason}"
                    );
                }
            }
        }
    }

    /// What the front shows, and what is stored, where the front shows an older certificate.
    async fn shown_if_older(
        &self,
        listen: SocketAddr,
        request: &CertificateRequest,
    ) -> Result<Option<(Shown, Bundle)>, String> {
        let Some(identifier) = request.identifiers.first() else { return Ok(None) };
        let shown = served::look(listen, identifier).await?;
        // Read after the handshake: what was stored before it must be shown by it.
        let Some(stored) = self.stored(request) else { return Ok(None) };
        let is_older = !stored.serials().contains(&shown.serial)
            && expiry::is_older(shown.not_after, stored.not_before(), stored.not_after());
        Ok(is_older.then_some((shown, stored)))
    }

    fn stored(&self, request: &CertificateRequest) -> Option<Bundle> {
        match self.store.current(&request.name) {
            Ok(current) => current.map(|(_, bundle)| bundle),
            Err(e) => {
                tracing::warn!(certificate = request.name, "its end cannot be watched: {e}");
                None
            }
        }
    }
}

fn listener(config: &Config) -> Option<SocketAddr> {
    if way::configured(&config.notify).is_empty() {
        return None;
    }
    config.front.as_ref().and_then(|front| front.listen.first().copied())
}

fn expiring(
    stage: Stage,
    request: &CertificateRequest,
    certificate: &Bundle,
    state: &LineageState,
    now: SystemTime,
    host: &str,
) -> Notice {
    let (name, not_after) = (&request.name, certificate.not_after());
    let end = moment(not_after);
    let attempts = &state.attempts;
    let last = match (&attempts.last_error, attempts.failures) {
        (Some(error), failures @ 1..) => {
            format!("; attempts to renew it that failed in a row: {failures}, the last one: {error}")
        }
        _ => String::new(),
    };
    let (kind, summary, seen, meaning) = match not_after.duration_since(now) {
        Ok(left) if stage != Stage::Expired => (
            Kind::Expiring,
            format!("the certificate {name} expires in {}", rough(left)),
            format!(
                "the stored certificate {name} (serial {}) ends at {end}, and no newer one is here{last}",
                certificate.serial()
            ),
            "it should have been renewed by now; after that moment clients refuse to connect",
        ),
        _ => (
            Kind::Expired,
            format!("the certificate {name} has expired"),
            format!(
                "the stored certificate {name} (serial {}) ended at {end}, and no newer one is here{last}",
                certificate.serial()
            ),
            "clients refuse to connect, or warn their users",
        ),
    };
    let next = match attempts.retry_at {
        Some(at) => format!("the next attempt to renew it is at {}", moment(at.into())),
        None => "no attempt to renew it is put off: it is ordered when it is due".to_owned(),
    };
    let mut details = Map::new();
    details.insert("serial".to_owned(), json!(certificate.serial()));
    details.insert("not-after".to_owned(), json!(end));
    details.insert("failures".to_owned(), json!(attempts.failures));
    let account = Account {
        certificate: Some(name),
        identifiers: certificate.identifiers(),
        cause: stage.cause(),
        summary: &summary,
        seen: &seen,
        meaning,
        remedy: &format!(
            "see `wicketgate status` and the log for the reason; `wicketgate renew {name} --force` tries at once and says what is wrong; is `wicketgate run`, or the timer of `wicketgate renew`, still active"
        ),
        next: &next,
        details,
    };
    compose(kind, account, stamp(now), host)
}

fn outdated(
    request: &CertificateRequest,
    shown: &Shown,
    stored: &Bundle,
    now: SystemTime,
    host: &str,
) -> Notice {
    let name = &request.name;
    let (shown_end, stored_end) = (moment(shown.not_after), moment(stored.not_after()));
    let mut details = Map::new();
    details.insert("service".to_owned(), json!(FRONT));
    details.insert("serial-served".to_owned(), json!(shown.serial));
    details.insert("serial-stored".to_owned(), json!(stored.serial()));
    details.insert("not-after".to_owned(), json!(shown_end));
    let account = Account {
        certificate: Some(name),
        identifiers: stored.identifiers(),
        cause: FRONT,
        summary: &format!("the TLS front still shows an old certificate for {name}"),
        seen: &format!(
            "a handshake with the front showed serial {}, which ends at {shown_end}; stored is serial {}, which ends at {stored_end}",
            shown.serial,
            stored.serial()
        ),
        meaning: "the new certificate is here, but clients are given the old one, which will end first",
        remedy: "run `wicketgate reload`; if that does not help, restart the service, and report what the log says",
        next: "the front is looked at again within the hour",
        details,
    };
    compose(Kind::DeployFailed, account, stamp(now), host)
}

fn stamp(at: SystemTime) -> Timestamp {
    Timestamp::try_from(at).unwrap_or(Timestamp::MAX)
}

fn moment(at: SystemTime) -> String {
    stamp(at).strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::Certificate;
    use crate::config::{KeyType, Partial};

    #[test]
    fn what_is_said_of_an_end() {
        let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        let certificate: Bundle =
            Certificate::stored(&made.cert.pem(), &made.signing_key.serialize_pem()).unwrap().into();
        let request = CertificateRequest {
            name: "a".to_owned(),
            identifiers: vec!["a.example".parse().unwrap()],
            key_types: vec![KeyType::default()],
            profile: None,
            partial: Partial::default(),
            deploy: Vec::new(),
        };
        let mut state = LineageState::default();
        let before = certificate.not_after() - Duration::from_secs(3 * 86_400);
        let notice = expiring(Stage::BelowTenth, &request, &certificate, &state, before, "gate");
        assert_eq!(notice.kind, Kind::Expiring);
        assert_eq!(notice.summary, "the certificate a expires in 3 days");
        assert!(notice.text.contains("`wicketgate renew a --force`"), "{}", notice.text);

        state.attempts.failures = 2;
        state.attempts.last_error = Some("the CA said no".to_owned());
        state.attempts.retry_at = Some("2026-11-25T10:00:00Z".parse().unwrap());
        let after = certificate.not_after() + Duration::from_secs(1);
        let notice = expiring(Stage::Expired, &request, &certificate, &state, after, "gate");
        assert_eq!((notice.kind, notice.cause.as_str()), (Kind::Expired, "the certificate has expired"));
        assert!(
            notice
                .text
                .contains("attempts to renew it that failed in a row: 2, the last one: the CA said no")
        );
        assert!(notice.text.contains("the next attempt to renew it is at 2026-11-25 10:00:00 UTC"));
    }
}
