//! The embedded CA: a small real ACME server (RFC 8555) in this binary, so that a demo, a rehearsal and
//! a test take the same path as production: directory, account, order, a request to the gate, a chain.
//! It knows renewal information and replacements (RFC 9773), revocation, key rollover, profiles, and
//! external account binding where it is started with such accounts. It can keep the limits of a public CA
//! and go wrong in the ways of real ones. Pre-authorization and challenges other than http-01 it does
//! not know.
//!
//! It is fenced. It listens on loopback only; its keys are in memory and end with it; its root is
//! short-lived and name-constrained to the identifiers that it was started for, and nothing is signed for
//! another; the names of its root and intermediate say "untrusted". Nothing of it is global: several can
//! run side by side in one process, as staging and production do, and know nothing of each other. All
//! that it remembers is bounded in number; a certificate that is forgotten has no renewal information any
//! more.
//!
//! # Map
//! - `ca`: the protocol, pure: a request and the time in, a `reply` and an action out
//! - `server`: TLS, HTTP and time limits; performs the actions
//! - `jws`, `jwk`, `nonces`, `external`: who asks, on whose behalf, and whether it is a replay
//! - `request`, `csr`: what may be asked for
//! - `limits`: how often
//! - `state`, `order`, `certificates`: what is remembered, and how it moves on
//! - `validate`: http-01, by real requests to the gate
//! - `authority`, `profile`: keys, certificates, lifetimes
//! - `renewal`: when to renew, and what a certificate is called
//! - `documents`, `problem`: JSON out
//! - `faults`, `seen`: what tests let go wrong, and what they can count

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::Socket;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::clock;
use crate::hostname::Identifier;

mod authority;
mod ca;
mod certificates;
mod csr;
mod documents;
mod external;
mod faults;
mod jwk;
mod jws;
mod limits;
mod nonces;
mod order;
mod problem;
mod profile;
mod renewal;
mod reply;
mod request;
mod seen;
mod server;
mod state;
mod validate;

pub use external::{ExternalAccount, ExternalAccountError};
pub use faults::{
    AnswerFault, AnswerScope, ChainFault, FailingValidation, Faults, RefusalForm, RefusedIdentifiers,
    RenewalFaults, RetryAfter, ValidationFault, VantagePoints, WindowFault,
};
pub use limits::{RateLimit, RateLimits};
pub use problem::ProblemType;
pub use seen::Seen;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A root for rehearsals that lives longer than this would be taken for a real one. The longest leaves
/// that clients ever accepted, of 398 days, need this much.
const MAX_ROOT_LIFETIME: Duration = Duration::from_secs(400 * 24 * 3600);

const MIN_LEAF_LIFETIME: Duration = Duration::from_secs(30);
const MAX_LEAF_LIFETIME: Duration = Duration::from_secs(398 * 24 * 3600);

/// Real CAs go back by an hour.
/// Connections that wait until they are accepted.
const BACKLOG: i32 = 128;
const MAX_BACKDATE: Duration = DAY;

/// How an embedded CA shall run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where its API listens; loopback only.
    pub listen: SocketAddr,
    /// A socket that is bound already, to listen on in place of that.
    pub bound: Option<Arc<Socket>>,
    /// Where http-01 validations are sent, with the identifier as Host.
    pub gate: SocketAddr,
    /// What it issues for; nothing else, and its root could not vouch for anything else.
    pub permitted: Vec<Identifier>,
    /// How long root and intermediate last; leaves never last longer. A minute to 400 days.
    pub root_lifetime: Duration,
    /// How long leaves last, whatever their profile says: 30 seconds to 398 days, and no longer than the
    /// root.
    pub leaf_lifetime: Option<Duration>,
    /// How far before its issuance a certificate begins, root and intermediate included: at most a day,
    /// and a few seconds at least. It is a part of the lifetime, as with real CAs, so it must be shorter.
    pub backdate: Duration,
    /// Accounts elsewhere. Where there are any, each new account must be bound to one of them, and no two
    /// to the same.
    pub external_accounts: Vec<ExternalAccount>,
    /// What it calls itself in CAA records (`caaIdentities` of its directory).
    pub caa_identity: String,
    /// What goes wrong, for tests.
    pub faults: Faults,
}

impl Settings {
    /// A free port on 127.0.0.1, a root for 30 days, leaves as their profiles say, no accounts elsewhere,
    /// no faults.
    pub fn new(gate: SocketAddr, permitted: Vec<Identifier>) -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            bound: None,
            gate,
            permitted,
            root_lifetime: 30 * DAY,
            leaf_lifetime: None,
            backdate: Duration::ZERO,
            external_accounts: Vec::new(),
            caa_identity: "rehearsal.invalid".to_owned(),
            faults: Faults::default(),
        }
    }
}

/// Why the embedded CA did not start.
#[derive(Debug, thiserror::Error)]
pub enum RehearsalError {
    /// The address is reachable from elsewhere.
    #[error("the embedded CA can't listen on {0}: it is for this machine only, use 127.0.0.1 or [::1]")]
    NotLoopback(SocketAddr),
    /// The root's lifetime is out of bounds.
    #[error("the embedded CA's root can't last {}: choose between a minute and 400 days", humantime::format_duration(*.0))]
    Lifetime(Duration),
    /// The leaves' lifetime is out of bounds.
    #[error("the embedded CA's leaves can't last {}: choose between 30 seconds and 398 days", humantime::format_duration(*.0))]
    LeafLifetime(Duration),
    /// Certificates would begin too early.
    #[error(
        "the embedded CA can't backdate by {}: choose at most a day, and less than the lifetimes",
        humantime::format_duration(*.0)
    )]
    Backdate(Duration),
    /// The accounts elsewhere make no sense.
    #[error(
        "the embedded CA can't bind accounts: {0}; give each a kid of its own and 32 bytes or more as its key"
    )]
    ExternalAccounts(#[from] ExternalAccountError),
    /// The address cannot be bound.
    #[error(
        "the embedded CA can't listen on {address}: {source}; choose another address, or port 0 for a free one"
    )]
    Bind {
        /// The address from the settings.
        address: SocketAddr,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Keys or certificates could not be made.
    #[error("the embedded CA can't make its keys and certificates: {0}")]
    Keys(#[from] rcgen::Error),
    /// The TLS server refuses the API's certificate.
    #[error("the embedded CA can't serve its API over TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// A running embedded CA; dropping it stops it and forgets its keys.
pub struct EmbeddedCa {
    ca: Arc<Mutex<ca::Ca>>,
    base: String,
    root_pem: String,
    /// Every task of the server ends when this is dropped.
    _running: watch::Sender<()>,
}

impl EmbeddedCa {
    /// Binds, makes the keys, and serves on the current tokio runtime.
    ///
    /// # Errors
    /// When the settings are out of bounds, the address cannot be bound, or a certificate cannot be made.
    pub async fn start(settings: Settings) -> Result<Self, RehearsalError> {
        let Settings {
            listen,
            bound,
            gate,
            permitted,
            root_lifetime,
            leaf_lifetime,
            backdate,
            external_accounts,
            caa_identity,
            faults,
        } = settings;
        if !listen.ip().is_loopback() {
            return Err(RehearsalError::NotLoopback(listen));
        }
        if !(Duration::from_secs(60)..=MAX_ROOT_LIFETIME).contains(&root_lifetime) {
            return Err(RehearsalError::Lifetime(root_lifetime));
        }
        check_leaf_lifetime(leaf_lifetime)?;
        if backdate > MAX_BACKDATE
            || backdate >= leaf_lifetime.map_or(root_lifetime, |l| l.min(root_lifetime))
        {
            return Err(RehearsalError::Backdate(backdate));
        }
        let external = external::ExternalAccounts::new(external_accounts)?;
        let bind = |source| RehearsalError::Bind { address: listen, source };
        let listener = match bound {
            Some(bound) => {
                let socket = bound.try_clone().map_err(bind)?;
                socket.listen(BACKLOG).and_then(|()| TcpListener::from_std(socket.into())).map_err(bind)?
            }
            None => TcpListener::bind(listen).await.map_err(bind)?,
        };
        let base = format!("https://{}", listener.local_addr().map_err(bind)?);

        let terms = authority::Terms { lifetime: root_lifetime, backdate };
        let (authority, credentials) =
            authority::Authority::new(&permitted, listen.ip(), terms, clock::now(), random())?;
        let acceptor = server::acceptor(credentials)?;
        let root_pem = authority.root_pem().to_owned();
        let base_url = base.clone();
        let founding = ca::Founding {
            base: base_url,
            authority,
            permitted,
            external,
            leaf_lifetime,
            caa_identity,
            faults,
        };
        let ca = Arc::new(Mutex::new(ca::Ca::new(founding)));
        let (running, stop) = watch::channel(());
        tokio::spawn(server::run(listener, acceptor, server::Shared { ca: ca.clone(), gate, stop }));
        Ok(Self { ca, base, root_pem, _running: running })
    }

    /// `https://127.0.0.1:PORT/directory`
    pub fn directory_url(&self) -> String {
        format!("{}/directory", self.base)
    }

    /// The root in PEM; it signs the issued chains and the API's own certificate.
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// The profiles on offer: name, lifetime of the leaf, description.
    pub fn profiles() -> &'static [(&'static str, Duration, &'static str)] {
        profile::PROFILES
    }

    /// Changes what goes wrong from the next request on.
    pub fn set_faults(&self, faults: Faults) {
        server::lock(&self.ca).set_faults(faults);
    }

    /// Changes how long leaves last from the next one on; `None` leaves it to their profiles.
    ///
    /// # Errors
    /// When it is out of the bounds of [`Settings::leaf_lifetime`].
    pub fn set_leaf_lifetime(&self, lifetime: Option<Duration>) -> Result<(), RehearsalError> {
        check_leaf_lifetime(lifetime)?;
        server::lock(&self.ca).set_leaf_lifetime(lifetime);
        Ok(())
    }

    /// What has happened since the start.
    pub fn seen(&self) -> Seen {
        server::lock(&self.ca).seen().clone()
    }
}

fn check_leaf_lifetime(lifetime: Option<Duration>) -> Result<(), RehearsalError> {
    match lifetime {
        Some(lifetime) if !(MIN_LEAF_LIFETIME..=MAX_LEAF_LIFETIME).contains(&lifetime) => {
            Err(RehearsalError::LeafLifetime(lifetime))
        }
        _ => Ok(()),
    }
}

impl fmt::Debug for EmbeddedCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedCa").field("base", &self.base).finish_non_exhaustive()
    }
}

/// The one source of randomness: nonces, tokens, serial numbers. Keys take theirs by themselves, and
/// faults throw dice that a test seeds.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the generator is seeded, or the process would have ended");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate() -> SocketAddr {
        (Ipv4Addr::LOCALHOST, 1).into()
    }

    #[tokio::test]
    async fn only_loopback_is_listened_on() {
        for listen in ["0.0.0.0:0", "192.0.2.1:0", "[::]:0"] {
            let settings = Settings { listen: listen.parse().unwrap(), ..Settings::new(gate(), vec![]) };
            let error = EmbeddedCa::start(settings).await.unwrap_err();
            assert!(matches!(error, RehearsalError::NotLoopback(_)), "{listen}: {error}");
        }
    }

    #[tokio::test]
    async fn a_root_is_neither_eternal_nor_momentary() {
        for (root_lifetime, says) in [(401 * DAY, "1year"), (Duration::ZERO, "0s")] {
            let settings = Settings { root_lifetime, ..Settings::new(gate(), vec![]) };
            let error = EmbeddedCa::start(settings).await.unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[tokio::test]
    async fn senseless_settings_are_refused_with_the_bounds() {
        let settings = || Settings::new(gate(), vec![]);
        let account = |kid: &str| ExternalAccount::new(kid, [7; 32]);
        let minute = Duration::from_secs(60);
        for (settings, says) in [
            (Settings { leaf_lifetime: Some(399 * DAY), ..settings() }, "398 days"),
            (Settings { leaf_lifetime: Some(Duration::ZERO), ..settings() }, "30 seconds"),
            (Settings { backdate: 2 * DAY, ..settings() }, "backdate by 2days"),
            (
                Settings { backdate: minute, leaf_lifetime: Some(minute), ..settings() },
                "less than the lifetimes",
            ),
            (
                Settings { external_accounts: vec![account("a"), account("a")], ..settings() },
                "`a` is there twice",
            ),
        ] {
            let error = EmbeddedCa::start(settings).await.unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        let ca = EmbeddedCa::start(settings()).await.unwrap();
        assert!(ca.set_leaf_lifetime(Some(Duration::MAX)).is_err());
        assert!(ca.set_leaf_lifetime(Some(398 * DAY)).is_ok());
    }

    #[tokio::test]
    async fn a_taken_port_is_named() {
        let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let listen = taken.local_addr().unwrap();
        let settings = Settings { listen, ..Settings::new(gate(), vec![]) };
        let error = EmbeddedCa::start(settings).await.unwrap_err().to_string();
        assert!(error.contains(&listen.to_string()) && error.contains("choose another"), "{error}");
    }

    #[tokio::test]
    async fn dropping_it_frees_the_port() {
        let ca = EmbeddedCa::start(Settings::new(gate(), vec![])).await.unwrap();
        let address: SocketAddr =
            ca.directory_url().trim_start_matches("https://").trim_end_matches("/directory").parse().unwrap();
        tokio::net::TcpStream::connect(address).await.unwrap();
        drop(ca);
        tokio::time::timeout(Duration::from_secs(10), async {
            while tokio::net::TcpStream::connect(address).await.is_ok() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("nobody listens any more");
    }
}
