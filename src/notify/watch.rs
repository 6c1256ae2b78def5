//! The expiry watch: looks at what is on disk and at what is served, and tells when an end is near,
//! whatever the renewals think of it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde_json::{Map, json};
use tokio::time::Instant;

use super::expiry::{self, Stage};
use super::notice::{Account, compose};
use super::notifier::Notifier;
use super::shown::{self, Found};
use super::way;
use crate::certificate::Bundle;
use crate::clock;
use crate::config::{CertificateRequest, Config, Endpoint};
use crate::deploy::verify::{Expected, Inspection, Leaf, Roots, Turns, endpoint_of, inspect_all};
use crate::foreign::FilesStatus;
use crate::hostname::Identifier;
use crate::store::outbox::{Kind, Notice};
use crate::store::{LineageState, Store, live_chains};
use crate::words::rough;

/// Time for the renewals to begin with what is due at once, before anybody is told of it.
const FIRST: Duration = Duration::from_secs(15);
/// Time for a certificate between the disk and the front.
const CONFIRM: Duration = Duration::from_secs(5);
/// Commands of one deploy, each of which has its own limit: check, reload, start.
const COMMANDS: u32 = 3;
/// For one name at one endpoint.
const WITHIN: Duration = Duration::from_secs(20);
/// [`Notice::cause`] of a front that shows an older certificate.
const FRONT: &str = "front";

/// Watches the certificates of a configuration.
pub struct ExpiryWatch {
    store: Store,
    host: String,
    /// What is served of certificates from files, where somebody serves them.
    files: RefCell<Option<FilesSource>>,
    /// Since when something is not as it should be: it may be on its way.
    suspected: RefCell<BTreeMap<Suspicion, Instant>>,
}

/// Tells what is served of certificates from files.
type FilesSource = Rc<dyn Fn() -> Vec<FilesStatus>>;

/// A certificate by name, a place by [`Place::cause`], and what was stored then.
type Suspicion = (String, String, Vec<String>);

/// Where a certificate should be shown.
struct Place {
    service: String,
    endpoint: Endpoint,
    /// How long a certificate may take to it.
    patience: Duration,
}

impl Place {
    fn is_front(&self) -> bool {
        self.service == FRONT
    }

    /// [`Notice::cause`] of an older certificate there. A deploy's own failure has the service's name.
    fn cause(&self) -> String {
        if self.is_front() { FRONT.to_owned() } else { format!("{} at {}", self.service, self.endpoint) }
    }

    /// [`Notice::cause`] of a certificate there that nears its end.
    fn ending_cause(&self, stage: Stage) -> String {
        format!("{}, shown by {}", stage.cause(), self.cause())
    }
}

impl ExpiryWatch {
    /// A watch with a handle of its own to the state directory; `host` is this machine's name.
    pub fn new(store: Store, host: String) -> Self {
        Self { store, host, files: RefCell::default(), suspected: RefCell::default() }
    }

    /// Watches what is served of certificates from files, as this tells, in place of the files themselves.
    pub fn watch_files(&self, status: FilesSource) {
        *self.files.borrow_mut() = Some(status);
    }

    /// Looks at disk, front and servers, for ever.
    pub async fn watch(&self, notifier: &Notifier) {
        tokio::time::sleep(FIRST).await;
        loop {
            let shortest = self.look_at_disk(notifier);
            let again = self.look_at_servers(notifier).await;
            let pause = expiry::pause(shortest);
            tokio::time::sleep(again.map_or(pause, |again| pause.min(again))).await;
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
                // What servers show has causes of its own.
                None => Stage::ALL.iter().for_each(|stage| {
                    notifier.mended(kind_of(*stage), Some(&request.name), Some(stage.cause()));
                }),
            }
        }
        for files in self.files(&config, now) {
            let (Some(from), Some(to)) = (files.not_before, files.not_after) else { continue };
            let (from, to) = (SystemTime::from(from), SystemTime::from(to));
            shortest = shortest.into_iter().chain(to.duration_since(from).ok()).min();
            match expiry::stage(from, to, config.notify.expiring_below, now) {
                Some(stage) => notifier.tell(&files_expiring(stage, &files, to, now, &self.host)),
                None => Stage::ALL.iter().for_each(|stage| {
                    notifier.mended(kind_of(*stage), Some(&files.name), Some(stage.cause()));
                }),
            }
        }
        shortest
    }

    fn files(&self, config: &Config, now: SystemTime) -> Vec<FilesStatus> {
        match &*self.files.borrow() {
            Some(served) => served(),
            None => config.foreign_certificates.iter().map(|c| FilesStatus::on_disk(c, now)).collect(),
        }
    }

    /// Looks once at what the front of this process and the servers show that were given certificates; how
    /// soon that is to be done again, where something may be on its way.
    async fn look_at_servers(&self, notifier: &Notifier) -> Option<Duration> {
        let config = notifier.config();
        if way::configured(&config.notify).is_empty() {
            return None;
        }
        let (roots, turns) = (Roots::public(), Turns::default());
        let (mut suspicions, mut again) = (Vec::new(), None);
        for request in &config.certificates {
            for place in places(&config, request) {
                // Which keys are to be shown; what is compared is read again after the handshakes: what was
                // stored before them must be shown by them.
                let before = expected(&config, request);
                let names = &request.identifiers;
                let seen = inspect_all(&place.endpoint, names, &before, &roots, WITHIN, &turns).await;
                let stored: Vec<Leaf> =
                    expected(&config, request).iter().map(|one| one.leaf().clone()).collect();
                let now = clock::now();
                let found = shown::found(&seen, &stored, config.notify.expiring_below, now);
                say_what_hides(request, &seen);
                if found.outdated.is_none() && found.ending.is_none() {
                    if found.is_whole {
                        mend(notifier, request, &place);
                    }
                    continue;
                }
                let serials = stored.iter().map(|leaf| leaf.serial.clone()).collect();
                let suspicion = (request.name.clone(), place.cause(), serials);
                let since = self.suspected.borrow().get(&suspicion).copied().unwrap_or_else(Instant::now);
                suspicions.push((suspicion, since));
                let left = place.patience.saturating_sub(since.elapsed());
                if left.is_zero() {
                    self.tell(notifier, request, &place, &found, &stored);
                } else {
                    again = again.into_iter().chain([left]).min();
                }
            }
        }
        *self.suspected.borrow_mut() = suspicions.into_iter().collect();
        again
    }

    /// Tells of what was not on its way.
    fn tell(
        &self,
        notifier: &Notifier,
        request: &CertificateRequest,
        place: &Place,
        found: &Found<'_>,
        stored: &[Leaf],
    ) {
        let now = clock::now();
        if let (Some((leaf, identifier)), Some(stored)) = (found.outdated, stored.first())
            && !self.is_deploy_told(request, place)
        {
            notifier.tell(&outdated(request, place, (leaf, identifier), stored, now, &self.host));
        }
        if let Some((stage, leaf, identifier)) = found.ending {
            notifier.tell(&ending(request, place, (stage, leaf, identifier), now, &self.host));
        }
    }

    /// The server has yet to take the live version, and that it would not was told then.
    fn is_deploy_told(&self, request: &CertificateRequest, place: &Place) -> bool {
        let live = self.store.current(&request.name).ok().flatten().map(|(version, _)| version);
        let state = self.store.lineage_state(&request.name).unwrap_or_default();
        let deployed = state.deployed.get(&place.service);
        deployed.is_some_and(|one| one.version != live && one.attempts.last_error.is_some())
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

fn places(config: &Config, request: &CertificateRequest) -> Vec<Place> {
    let mut places = Vec::new();
    // All its listeners hand out the same certificates.
    if let Some(listen) = config.front.as_ref().and_then(|front| front.listen.first()) {
        places.push(Place { service: FRONT.to_owned(), endpoint: endpoint_of(*listen), patience: CONFIRM });
    }
    for service in &request.deploy {
        let Some(target) = config.deploy.get(service) else { continue };
        let patience = target.timeout * COMMANDS + target.verify_timeout;
        places.extend(target.verify.iter().map(|endpoint| Place {
            service: service.clone(),
            endpoint: endpoint.clone(),
            patience,
        }));
    }
    places
}

fn expected(config: &Config, request: &CertificateRequest) -> Vec<Expected> {
    // What cannot be read has been told by the look at the disk.
    let chains = live_chains(&config.state_dir, &request.name).unwrap_or_default();
    chains.into_iter().filter_map(|chain| Expected::new(chain).ok()).collect()
}

fn say_what_hides(request: &CertificateRequest, seen: &[Inspection]) {
    for inspection in seen.iter().filter(|inspection| inspection.sightings.is_empty()) {
        for fault in &inspection.faults {
            tracing::debug!(certificate = request.name, "what is shown cannot be seen: {fault}");
        }
    }
}

fn mend(notifier: &Notifier, request: &CertificateRequest, place: &Place) {
    let name = Some(request.name.as_str());
    notifier.mended(Kind::DeployFailed, name, Some(&place.cause()));
    for stage in Stage::ALL {
        notifier.mended(kind_of(stage), name, Some(&place.ending_cause(stage)));
    }
}

fn kind_of(stage: Stage) -> Kind {
    if stage == Stage::Expired { Kind::Expired } else { Kind::Expiring }
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

/// Of a certificate that somebody else renews.
fn files_expiring(stage: Stage, files: &FilesStatus, end: SystemTime, now: SystemTime, host: &str) -> Notice {
    let (name, path, serial) =
        (&files.name, files.fullchain.display(), files.serial.as_deref().unwrap_or("?"));
    let trouble = match &files.trouble {
        Some(trouble) => format!("; what is in the files now cannot be served: {trouble}"),
        None => ", and no newer one is there".to_owned(),
    };
    let (summary, verb, meaning) = match end.duration_since(now) {
        Ok(left) if stage != Stage::Expired => (
            format!("the certificate {name} (from files) expires in {}", rough(left)),
            "ends",
            "whoever renews it should have done so by now; after that moment clients refuse to connect",
        ),
        _ => (
            format!("the certificate {name} (from files) has expired"),
            "ended",
            "clients refuse to connect, or warn their users",
        ),
    };
    let identifiers: Vec<Identifier> =
        files.identifiers.iter().filter_map(|name| name.parse().ok()).collect();
    let mut details = Map::new();
    details.insert("serial".to_owned(), json!(serial));
    details.insert("not-after".to_owned(), json!(moment(end)));
    details.insert("fullchain".to_owned(), json!(path.to_string()));
    let account = Account {
        certificate: Some(name),
        identifiers: &identifiers,
        cause: stage.cause(),
        summary: &summary,
        seen: &format!("the certificate of {path} (serial {serial}) {verb} at {}{trouble}", moment(end)),
        meaning,
        remedy: "it is not renewed here: see why whoever writes these files has not (certbot: `certbot renew`, its timer and its log), and whether he writes into these files still; `wicketgate status` shows what is served",
        next: "the files are read again as soon as they change, and a good pair is served at once",
        details,
    };
    compose(kind_of(stage), account, stamp(now), host)
}

fn outdated(
    request: &CertificateRequest,
    place: &Place,
    (leaf, identifier): (&Leaf, &Identifier),
    stored: &Leaf,
    now: SystemTime,
    host: &str,
) -> Notice {
    let (name, service) = (&request.name, &place.service);
    let (shown_end, stored_end) = (moment(leaf.not_after), moment(stored.not_after));
    let who = if place.is_front() { "the TLS front" } else { service };
    let remedy = if place.is_front() {
        "run `wicketgate reload`; if that does not help, restart the service, and report what the log says"
            .to_owned()
    } else {
        format!(
            "`wicketgate verify {name}` shows what is seen now; does {service} read the files in `live/{name}` of the state directory (or their copies), and was it reloaded since"
        )
    };
    let account = Account {
        certificate: Some(name),
        identifiers: &request.identifiers,
        cause: &place.cause(),
        summary: &format!("{who} still shows an old certificate for {name}"),
        seen: &format!(
            "a handshake with {who} at {} for {identifier} showed serial {}, which ends at {shown_end}; stored is serial {}, which ends at {stored_end}",
            place.endpoint, leaf.serial, stored.serial
        ),
        meaning: "the new certificate is here, but clients are given the old one, which will end first",
        remedy: &remedy,
        next: "it is looked at again within the hour",
        details: details(place, leaf, identifier, Some(stored)),
    };
    compose(Kind::DeployFailed, account, stamp(now), host)
}

fn ending(
    request: &CertificateRequest,
    place: &Place,
    (stage, leaf, identifier): (Stage, &Leaf, &Identifier),
    now: SystemTime,
    host: &str,
) -> Notice {
    let (name, service) = (&request.name, &place.service);
    let who = if place.is_front() { "the TLS front" } else { service };
    let (summary, meaning) = match leaf.not_after.duration_since(now) {
        Ok(left) if stage != Stage::Expired => (
            format!("what {who} shows for {name} expires in {}", rough(left)),
            "after that moment clients refuse to connect, whatever is stored here",
        ),
        _ => (
            format!("what {who} shows for {name} has expired"),
            "clients refuse to connect, or warn their users, whatever is stored here",
        ),
    };
    let account = Account {
        certificate: Some(name),
        identifiers: &request.identifiers,
        cause: &place.ending_cause(stage),
        summary: &summary,
        seen: &format!(
            "a handshake with {who} at {} for {identifier} showed {leaf}, which is not what is stored",
            place.endpoint
        ),
        meaning,
        remedy: &format!(
            "`wicketgate verify {name}` shows what is seen now, and `wicketgate status` whether {service} has yet to take what is stored"
        ),
        next: "it is looked at again within the hour",
        details: details(place, leaf, identifier, None),
    };
    compose(kind_of(stage), account, stamp(now), host)
}

fn details(
    place: &Place,
    leaf: &Leaf,
    identifier: &Identifier,
    stored: Option<&Leaf>,
) -> Map<String, serde_json::Value> {
    let mut details = Map::new();
    details.insert("service".to_owned(), json!(place.service));
    details.insert("endpoint".to_owned(), json!(place.endpoint.to_string()));
    details.insert("identifier".to_owned(), json!(identifier));
    details.insert("serial-served".to_owned(), json!(leaf.serial));
    if let Some(stored) = stored {
        details.insert("serial-stored".to_owned(), json!(stored.serial));
    }
    details.insert("not-after".to_owned(), json!(moment(leaf.not_after)));
    details
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
    use crate::config::{ChallengeKind, KeyType, Partial};

    #[test]
    fn what_is_said_of_an_end() {
        let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        let certificate: Bundle =
            Certificate::stored(&made.cert.pem(), &made.signing_key.serialize_pem()).unwrap().into();
        let request = CertificateRequest {
            name: "a".to_owned(),
            identifiers: vec!["a.example".parse().unwrap()],
            challenge: ChallengeKind::Http01,
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
