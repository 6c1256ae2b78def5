//! What of the renewals' events a person is told, and the tasks that tell it.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::openings::Alarm;
use crate::clock;
use crate::config::Config;
use crate::deploy::{DeployError, Helper};
use crate::foreign::FilesStatus;
use crate::hostname::Identifier;
use crate::notify::notice::{Account, compose, host};
use crate::notify::{ExpiryWatch, Kind, Notice, Notifier};
use crate::renewal::{Event, What};
use crate::store::{Store, StoreError};
use crate::words::printable;

/// How long `renew` without a daemon waits for its notices to be taken: longer than each of the ways may
/// take, so that what was tried is known to have been tried.
const LAST_MINUTE: Duration = Duration::from_secs(70);
/// [`Notice::cause`] of an attempt that failed.
const ORDER: &str = "order";
/// [`Notice::cause`] of an order that is put off.
const PREFLIGHT: &str = "preflight";
/// [`Notice::cause`] of an opening that cannot be shut.
const OPENING: &str = "opening";
/// Longest error in the details, characters.
const MAX_ERROR: usize = 1000;

/// The notifier and the expiry watch of one process.
pub(super) struct Notices {
    notifier: Rc<Notifier>,
    watch: ExpiryWatch,
    host: String,
}

impl Notices {
    /// Takes up what was left on disk; this process holds the state directory's lock. What could not be
    /// read is told.
    pub(super) fn open(config: Arc<Config>, helper: Helper) -> Result<(Rc<Self>, Vec<String>), StoreError> {
        let (outbox, watched) = (Store::open(&config.state_dir)?, Store::open(&config.state_dir)?);
        let (notifier, told) = Notifier::new(config, outbox, helper);
        let watch = ExpiryWatch::new(watched, host());
        Ok((Rc::new(Self { notifier, watch, host: host() }), told))
    }

    /// See [`Notifier::start_helper`].
    pub(super) async fn start_helper(&self) -> Result<(), DeployError> {
        self.notifier.start_helper().await
    }

    /// Tells of an event, if it is one to tell of, and remembers what it mends.
    pub(super) fn tell(&self, event: &Event) {
        let certificate = Some(event.certificate.as_str());
        for (kind, cause) in mended_by(&event.what) {
            self.notifier.mended(kind, certificate, cause);
        }
        let config = self.notifier.config();
        let request = config.certificates.iter().find(|c| c.name == event.certificate);
        let identifiers = request.map(|r| r.identifiers.as_slice()).unwrap_or_default();
        let now = Timestamp::try_from(clock::now()).unwrap_or(Timestamp::MAX);
        if let Some(notice) = notice_of(event, identifiers, now, &self.host) {
            self.notifier.tell(&notice);
        }
    }

    /// Tells that an opening before the gate cannot be shut, or that it is.
    pub(super) fn opening_alarm(self: &Rc<Self>) -> Alarm {
        let notices = self.clone();
        Rc::new(move |amiss| {
            let Some(reason) = amiss else {
                return notices.notifier.mended(Kind::LeftOpen, None, Some(OPENING));
            };
            let account = Account {
                cause: OPENING,
                summary: "what was opened for an order cannot be shut",
                seen: reason,
                meaning: "port 80 may be open to everybody, although no CA is expected",
                remedy: "shut it by hand, and mend what was seen; `wicketgate openings list` shows what is open, `wicketgate openings close` tries at once",
                next: "it is tried again until it succeeds",
                details: details([("error", json!(printable(reason, MAX_ERROR)))]),
                ..Account::default()
            };
            let now = Timestamp::try_from(clock::now()).unwrap_or(Timestamp::MAX);
            notices.notifier.tell(&compose(Kind::LeftOpen, account, now, &notices.host));
        })
    }

    /// Watches what is served of certificates from files, in place of the files themselves.
    pub(super) fn watch_files(&self, status: Rc<dyn Fn() -> Vec<FilesStatus>>) {
        self.watch.watch_files(status);
    }

    /// Delivers and watches, for ever.
    pub(super) async fn serve(&self) {
        tokio::join!(self.notifier.deliver(), self.watch.watch(&self.notifier));
    }

    /// Takes a new configuration.
    ///
    /// # Errors
    /// The helper that it needs cannot be started.
    pub(super) async fn reconfigure(&self, config: Arc<Config>) -> Result<(), DeployError> {
        self.notifier.reconfigure(config);
        self.start_helper().await
    }

    /// Looks at the ends of what is stored, delivers what is due, and leaves the rest on disk when its
    /// time is up: for a process that is about to end.
    pub(super) async fn conclude(&self) {
        self.watch.look_at_disk(&self.notifier);
        self.notifier.flush(LAST_MINUTE).await;
        // A command that hangs has its own limit, and the helper ends with it.
        let _ = tokio::time::timeout(Duration::from_secs(1), self.close()).await;
    }

    /// Ends the helper once it is idle.
    pub(super) async fn close(&self) {
        self.notifier.close().await;
    }
}

/// The failures that an event ends, by kind and cause; without a cause all of that kind.
fn mended_by(what: &What) -> Vec<(Kind, Option<&str>)> {
    match what {
        What::Obtained { .. } => {
            vec![(Kind::AttemptFailed, None), (Kind::Expiring, None), (Kind::Expired, None)]
        }
        What::NameBack { .. } => vec![(Kind::NameDropped, None)],
        What::Deployed { service, .. } => vec![(Kind::DeployFailed, Some(service))],
        _ => Vec::new(),
    }
}

/// What a person is told of an event, if anything.
fn notice_of(event: &Event, identifiers: &[Identifier], at: Timestamp, host: &str) -> Option<Notice> {
    let name = event.certificate.as_str();
    let base = Account { certificate: Some(name), identifiers, ..Account::default() };
    let notice = match &event.what {
        What::Obtained { version, serial, identifiers, not_after, renews_at, renewal, also } => {
            let (kind, verb) =
                if *renewal { (Kind::Renewed, "renewed") } else { (Kind::Obtained, "obtained") };
            let account = Account {
                identifiers,
                // Each of them is news.
                cause: serial,
                summary: &format!("the certificate {name} was {verb}"),
                seen: &match also.first() {
                    None => format!(
                        "a certificate with serial {serial}, valid until {}, is stored",
                        moment(*not_after)
                    ),
                    Some(second) => format!(
                        "a pair of certificates with serials {serial} and {second}, valid until {}, is stored",
                        moment(*not_after)
                    ),
                },
                next: &format!("it is renewed at {}", moment(*renews_at)),
                details: details([
                    ("serial", json!(serial)),
                    ("also", json!(also)),
                    ("version", json!(version)),
                    ("not-after", json!(not_after)),
                    ("renews-at", json!(renews_at)),
                ]),
                ..base
            };
            compose(kind, account, at, host)
        }
        What::Failed { error, retry_at, still_missing, .. } if !still_missing.is_empty() => {
            let names = list(still_missing);
            let account = Account {
                identifiers: still_missing,
                cause: &format!("{ORDER} {names}"),
                summary: &format!("{names} still cannot be taken back into the certificate {name}"),
                seen: error,
                meaning: &format!(
                    "the certificate is served for its other names; {names} cannot be served with TLS"
                ),
                remedy: &format!(
                    "mend what was seen, or remove {names} from `hostnames`; `wicketgate renew {name} --force` tries at once"
                ),
                next: &format!("it is tried again at {}", moment(*retry_at)),
                details: details([
                    ("error", json!(printable(error, MAX_ERROR))),
                    ("retry-at", json!(retry_at)),
                    ("still-missing", json!(still_missing)),
                ]),
                ..base
            };
            compose(Kind::AttemptFailed, account, at, host)
        }
        What::Failed { error, retry_at, still_served, .. } => {
            let account = Account {
                cause: ORDER,
                summary: &format!("no certificate could be obtained for {name}"),
                seen: error,
                meaning: if *still_served {
                    "what was served before still is, until it ends"
                } else {
                    "there is no certificate from before: its names cannot be served with TLS"
                },
                remedy: &format!(
                    "mend what was seen; after that, `wicketgate renew {name} --force` tries at once"
                ),
                next: &format!("it is tried again at {}", moment(*retry_at)),
                details: details([
                    ("error", json!(printable(error, MAX_ERROR))),
                    ("retry-at", json!(retry_at)),
                    ("still-served", json!(still_served)),
                ]),
                ..base
            };
            compose(Kind::AttemptFailed, account, at, host)
        }
        What::Postponed { reason, retry_at, order_at, still_served } => {
            let account = Account {
                cause: PREFLIGHT,
                summary: &format!("the order for {name} is put off, because it would fail"),
                seen: reason,
                meaning: if *still_served {
                    "the CA was not asked; what was served before still is, until it ends"
                } else {
                    "the CA was not asked; there is no certificate from before"
                },
                remedy: &format!("mend what was seen; `wicketgate check {name}` shows whether it is"),
                next: &format!(
                    "it is looked at again at {}, and the CA is asked at {} whatever is found",
                    moment(*retry_at),
                    moment(*order_at)
                ),
                details: details([
                    ("error", json!(printable(reason, MAX_ERROR))),
                    ("retry-at", json!(retry_at)),
                    ("order-at", json!(order_at)),
                    ("still-served", json!(still_served)),
                ]),
                ..base
            };
            compose(Kind::AttemptFailed, account, at, host)
        }
        What::NameDropped { identifiers, reason } => {
            let names = list(identifiers);
            let account = Account {
                cause: &names,
                summary: &format!("the certificate {name} was obtained without {names}"),
                seen: reason,
                meaning: &format!("{names} cannot be served with TLS any more once the old certificate ends"),
                remedy: &format!(
                    "mend what was seen, or remove {names} from `hostnames`; `wicketgate check {names}` shows whether it works"
                ),
                next: "what is missing is tried on by itself, and taken back as soon as it works",
                details: details([
                    ("dropped", json!(identifiers)),
                    ("error", json!(printable(reason, MAX_ERROR))),
                ]),
                ..base
            };
            compose(Kind::NameDropped, account, at, host)
        }
        What::NameBack { identifiers } => {
            let names = list(identifiers);
            let account = Account {
                cause: &names,
                summary: &format!("the certificate {name} covers {names} again"),
                seen: &format!("{names} could be validated"),
                details: details([("back", json!(identifiers))]),
                ..base
            };
            compose(Kind::NameBack, account, at, host)
        }
        What::IssuerPaused { issuer, until, reason } => {
            let account = Account {
                cause: issuer,
                summary: &format!("{issuer} wants nothing to be asked of it until {}", moment(*until)),
                seen: reason,
                meaning: "the CA's limits are reached; asking before that would only make it longer",
                next: &format!("it is asked again after {}", moment(*until)),
                details: details([
                    ("issuer", json!(issuer)),
                    ("until", json!(until)),
                    ("error", json!(printable(reason, MAX_ERROR))),
                ]),
                ..base
            };
            compose(Kind::IssuerPaused, account, at, host)
        }
        What::DeployFailed { service, error, retry_at } => {
            let account = Account {
                cause: service,
                summary: &format!("{service} did not take the certificate {name}"),
                seen: error,
                meaning: &format!(
                    "the new certificate is stored, but it was not seen that {service} serves it: as a rule it goes on with the old one until that ends"
                ),
                remedy: &format!(
                    "mend what was seen; after that, `wicketgate deploy {name}` tries at once, and `wicketgate verify {name}` shows what is served"
                ),
                next: &format!("{service} is asked again at {}", moment(*retry_at)),
                details: details([
                    ("service", json!(service)),
                    ("error", json!(printable(error, MAX_ERROR))),
                    ("retry-at", json!(retry_at)),
                ]),
                ..base
            };
            compose(Kind::DeployFailed, account, at, host)
        }
        // Steps on the way, and what was told when it happened.
        What::NotDue { .. }
        | What::Held { .. }
        | What::Due(_)
        | What::Step(_)
        | What::Deployed { .. }
        | What::DeployHeld { .. }
        | What::Limited { .. }
        | What::NameMissing { .. }
        | What::Rehearsed { .. }
        | What::RehearsalFailed { .. }
        | What::Warning(_) => return None,
    };
    Some(notice)
}

fn list(identifiers: &[Identifier]) -> String {
    identifiers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn details<const N: usize>(values: [(&str, Value); N]) -> Map<String, Value> {
    values.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn told(what: What) -> Option<Notice> {
        let identifiers = ["a.example".parse().unwrap()];
        let event = Event { certificate: "a".to_owned(), what };
        notice_of(&event, &identifiers, at("2026-11-25T10:00:00Z"), "gate")
    }

    fn failed(error: &str, still_served: bool) -> Notice {
        let retry_at = at("2026-11-25T12:00:00Z");
        let error = error.to_owned();
        told(What::Failed { error, retry_at, still_served, still_missing: Vec::new() }).unwrap()
    }

    /// Nothing is wrong with the names that the certificate has.
    #[test]
    fn a_name_that_cannot_be_taken_back_is_the_one_that_is_told_of() {
        let still_missing = vec!["dead.example".parse().unwrap()];
        let retry_at = at("2026-11-25T12:00:00Z");
        let notice =
            told(What::Failed { error: "e".to_owned(), retry_at, still_served: true, still_missing })
                .unwrap();
        assert_eq!(notice.summary, "dead.example still cannot be taken back into the certificate a");
        assert!(notice.text.contains("served for its other names"), "{}", notice.text);
        assert_eq!(notice.identifiers[0].to_string(), "dead.example");
        // One that is about the whole is told besides.
        assert_ne!(notice.cause, failed("e", true).cause);
    }

    #[test]
    fn failures_say_everything_and_have_a_constant_cause() {
        let notice = failed("the CA said no", true);
        assert_eq!(
            notice.text,
            "gate: no certificate could be obtained for a\n\nWhat was seen: the CA said no\n\n\
             What it means: what was served before still is, until it ends\n\n\
             What to do: mend what was seen; after that, `wicketgate renew a --force` tries at once\n\n\
             What comes next: it is tried again at 2026-11-25 12:00:00 UTC\n"
        );
        let other = failed("something else", false);
        assert_eq!((notice.kind, &notice.cause), (other.kind, &other.cause));
        assert_ne!(notice.text, other.text);
        let deploy = |service: &str| {
            let retry_at = at("2026-11-25T12:00:00Z");
            let what = What::DeployFailed { service: service.to_owned(), error: "e".to_owned(), retry_at };
            told(what).unwrap()
        };
        assert_ne!(deploy("nginx").cause, deploy("squid").cause);
        assert_eq!(deploy("nginx").kind, Kind::DeployFailed);
    }

    #[test]
    fn what_the_keeper_does_without_being_asked_is_told() {
        let (retry_at, order_at) = (at("2026-11-25T12:00:00Z"), at("2026-11-26T10:00:00Z"));
        let identifiers = vec!["b.example".parse().unwrap()];
        let reason = "r".to_owned();
        for (what, kind, says) in [
            (
                What::Postponed { reason: reason.clone(), retry_at, order_at, still_served: true },
                Kind::AttemptFailed,
                "the CA is asked at 2026-11-26 10:00:00 UTC whatever is found",
            ),
            (
                What::NameDropped { identifiers: identifiers.clone(), reason: reason.clone() },
                Kind::NameDropped,
                "the certificate a was obtained without b.example",
            ),
            (What::NameBack { identifiers }, Kind::NameBack, "covers b.example again"),
            (
                What::IssuerPaused { issuer: "ca".to_owned(), until: retry_at, reason },
                Kind::IssuerPaused,
                "ca wants nothing to be asked of it until 2026-11-25 12:00:00 UTC",
            ),
        ] {
            let notice = told(what).unwrap();
            assert_eq!(notice.kind, kind);
            assert!(notice.text.contains(says), "{}", notice.text);
        }
    }

    #[test]
    fn first_and_later_certificates() {
        let obtained = |version, serial: &str| What::Obtained {
            renewal: version > 1,
            version,
            serial: serial.to_owned(),
            identifiers: vec!["a.example".parse().unwrap(), "b.example".parse().unwrap()],
            not_after: at("2027-02-25T10:00:00Z"),
            renews_at: at("2027-01-25T10:00:00Z"),
            also: if version > 1 { vec!["99".to_owned()] } else { Vec::new() },
        };
        let (first, next) = (told(obtained(1, "01")).unwrap(), told(obtained(2, "02")).unwrap());
        assert_eq!((first.kind, next.kind), (Kind::Obtained, Kind::Renewed));
        assert_eq!(first.identifiers.len(), 2);
        assert!(first.text.contains("a certificate with serial 01,"), "{}", first.text);
        assert!(next.text.contains("a pair of certificates with serials 02 and 99,"), "{}", next.text);
        assert_ne!(first.cause, next.cause, "two renewals within a day are two pieces of news");
        let ended: Vec<_> = mended_by(&obtained(2, "02")).into_iter().map(|(kind, _)| kind).collect();
        assert_eq!(ended, [Kind::AttemptFailed, Kind::Expiring, Kind::Expired]);
        let deployed = What::Deployed { service: "nginx".to_owned(), proof: String::new() };
        assert_eq!(mended_by(&deployed), [(Kind::DeployFailed, Some("nginx"))]);
        assert_eq!(told(deployed), None);
        assert_eq!(told(What::Step("s".to_owned())), None);
    }
}
