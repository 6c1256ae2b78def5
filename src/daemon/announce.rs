//! What the daemon's log says of certificates, and what it says when it is ready.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::{Config, GateOpen, Issuer};
use crate::net::holder;
use crate::renewal::{Event, Keeper, What};

/// Puts events into the log, each at its level.
pub(super) struct Announcer {
    demo: RefCell<Option<Demo>>,
    shown: Cell<bool>,
}

/// What a person may try against the embedded CA's certificates.
struct Demo {
    root: PathBuf,
    host: String,
    front: Option<SocketAddr>,
    gate: SocketAddr,
}

impl Announcer {
    pub(super) fn new(config: &Config) -> Self {
        Self { demo: RefCell::new(Demo::of(config)), shown: Cell::new(false) }
    }

    pub(super) fn reconfigure(&self, config: &Config) {
        *self.demo.borrow_mut() = Demo::of(config);
    }

    pub(super) fn announce(&self, event: &Event) {
        let certificate = event.certificate.as_str();
        match &event.what {
            What::Failed { retry_at, .. } => {
                tracing::error!(certificate, %retry_at, "{}", event.what);
            }
            What::DeployFailed { service, retry_at, .. } => {
                tracing::error!(certificate, service, %retry_at, "{}", event.what);
            }
            What::Postponed { retry_at, .. } | What::NameMissing { retry_at, .. } => {
                tracing::warn!(certificate, %retry_at, "{}", event.what);
            }
            What::NameDropped { .. } => tracing::error!(certificate, "{}", event.what),
            What::NameBack { .. } => tracing::info!(certificate, "{}", event.what),
            What::Limited { .. } | What::IssuerPaused { .. } | What::Warning(_) => {
                tracing::warn!(certificate, "{}", event.what);
            }
            What::Obtained { serial, also, not_after, .. } => {
                let also = also.first().map(String::as_str);
                tracing::info!(certificate, serial, also, %not_after, "{}", event.what);
                self.show_demo();
            }
            What::Rehearsed { .. } => tracing::info!(certificate, "{}", event.what),
            What::RehearsalFailed { .. } => tracing::warn!(certificate, "{}", event.what),
            What::Deployed { service, .. } => tracing::info!(certificate, service, "{}", event.what),
            What::DeployHeld { .. }
            | What::Due(_)
            | What::NotDue { .. }
            | What::Held { .. }
            | What::Step(_) => {
                tracing::debug!(certificate, "{}", event.what);
            }
        }
    }

    fn show_demo(&self) {
        let demo = self.demo.borrow();
        let Some(demo) = &*demo else { return };
        if self.shown.replace(true) {
            return;
        }
        if let Some(front) = demo.front {
            let (host, port) = (&demo.host, front.port());
            tracing::info!(
                "try: curl --cacert {} --resolve {host}:{port}:{} https://{host}:{port}/",
                shorten(&demo.root),
                bracketed(front)
            );
        }
        let (host, port) = (&demo.host, demo.gate.port());
        tracing::info!(
            "try: curl -i --resolve {host}:{port}:{} 'http://{host}:{port}/any/path?and=query'",
            bracketed(demo.gate)
        );
    }
}

impl Demo {
    fn of(config: &Config) -> Option<Self> {
        if config.acme.issuer != Issuer::Embedded {
            return None;
        }
        Some(Self {
            root: config.state_dir.join("embedded-ca/root.pem"),
            host: config.certificates.first()?.identifiers.first()?.to_string(),
            front: config.front.as_ref().and_then(|f| f.listen.first().copied()),
            gate: *config.gate.listen.first()?,
        })
    }
}

/// A path as a person in this directory would type it.
fn shorten(path: &std::path::Path) -> String {
    let here = std::env::current_dir().ok().filter(|here| here.parent().is_some());
    here.and_then(|here| path.strip_prefix(here).ok()).unwrap_or(path).display().to_string()
}

/// An address for curl's `--resolve`; loopback for "all addresses".
fn bracketed(address: SocketAddr) -> String {
    match address {
        SocketAddr::V4(a) if a.ip().is_unspecified() => "127.0.0.1".to_owned(),
        SocketAddr::V6(a) if a.ip().is_unspecified() => "127.0.0.1".to_owned(),
        SocketAddr::V4(a) => a.ip().to_string(),
        SocketAddr::V6(a) => format!("[{}]", a.ip()),
    }
}

/// The one line that says what is served from now on.
pub(super) fn ready(config: &Config, keeper: &Keeper) {
    let list =
        |addresses: &[SocketAddr]| addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let stored = keeper.status().iter().filter(|c| c.version.is_some()).count();
    let front =
        config.front.as_ref().map(|f| format!(", the front on {}", list(&f.listen))).unwrap_or_default();
    let when = match config.gate.open {
        GateOpen::Always => "",
        GateOpen::DuringOrders => " while an order is pending",
    };
    tracing::info!(
        pid = std::process::id(),
        "ready: the gate on {}{when}{front}; {stored} of {} certificates are here",
        list(&config.gate.listen),
        config.certificates.len(),
    );
    if config.gate.open == GateOpen::DuringOrders {
        for address in &config.gate.listen {
            if let Some(holder) = holder::of_port(address.port()) {
                tracing::warn!(
                    "port {} is held by {holder}: as long as it is, the gate cannot open and every order fails",
                    address.port()
                );
            }
        }
    }
}
