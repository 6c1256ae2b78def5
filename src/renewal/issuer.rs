//! The accounts at the issuers, each opened once and kept; the embedded CA, started where it is the issuer.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use socket2::Socket;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use x509_parser::prelude::FromDer;
use zeroize::Zeroizing;

use crate::acme::{self, AcmeError, Session, Setup};
use crate::clock;
use crate::config::{Config, Issuer};
use crate::folder::read_file;
use crate::preflight::CaFacts;
use crate::rehearsal::{EmbeddedCa, RehearsalError, Settings};
use crate::store::{Store, StoreError};

/// Largest file with roots or a key, bytes.
const MAX_FILE: u64 = 1 << 20;

/// Why there is no account to order with.
#[derive(Debug, thiserror::Error)]
pub enum IssuerError {
    /// The CA.
    #[error(transparent)]
    Acme(#[from] AcmeError),
    /// The state directory.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The embedded CA.
    #[error("the embedded CA cannot be started: {0}")]
    Embedded(#[from] RehearsalError),
    /// A file named in the configuration.
    #[error("cannot read {} ({key}): {source}", path.display())]
    File {
        /// The key that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// `acme.roots` holds no certificate.
    #[error("{} (acme.roots) holds no PEM certificate", .0.display())]
    NoRoots(PathBuf),
}

/// The accounts at the configured issuers, each opened when it is first needed.
#[derive(Default)]
pub(super) struct Desk {
    slots: RefCell<HashMap<String, Rc<Slot>>>,
    embedded: Mutex<Option<EmbeddedCa>>,
    /// Where the embedded CA listens, if that is settled.
    bound: RefCell<Option<Arc<Socket>>>,
}

/// An account that is open, or being opened by one of those who want it.
type Slot = Mutex<Option<Session>>;

/// Roots of earlier runs of the embedded CA that are still told to clients.
const KEPT_ROOTS: usize = 4;

impl Desk {
    /// Has the embedded CA listen there, whenever it is started.
    pub(super) fn settle_embedded(&self, bound: Arc<Socket>) {
        *self.bound.borrow_mut() = Some(bound);
    }

    /// The issuer's session, opened at the first call.
    pub(super) async fn session(
        &self,
        config: &Config,
        store: &Store,
        issuer: &Issuer,
    ) -> Result<Session, IssuerError> {
        let slot = self.slot(issuer);
        let mut slot = slot.lock().await;
        if let Some(session) = &*slot {
            return Ok(session.clone());
        }
        let setup = self.setup(config, store, issuer).await?;
        let name = issuer.name();
        // The embedded CA forgets its accounts with each start.
        let kept = match issuer {
            Issuer::Embedded => None,
            _ => store.account(&name)?.map(Zeroizing::new),
        };
        let opened = Session::open(&setup, kept.as_deref().map(String::as_str)).await?;
        if let Some(credentials) = &opened.new_credentials
            && *issuer != Issuer::Embedded
        {
            store.save_account(&name, credentials)?;
            tracing::info!(issuer = name, "made an account at the CA");
        }
        *slot = Some(opened.session.clone());
        Ok(opened.session)
    }

    /// The issuer's session, where it can be had without making an account and without starting a CA.
    pub(super) async fn session_at_hand(
        &self,
        config: &Config,
        store: &Store,
        issuer: &Issuer,
    ) -> Option<Result<Session, IssuerError>> {
        if self.needs_account(store, issuer).await {
            return None;
        }
        Some(self.session(config, store, issuer).await)
    }

    /// Whether an order at that issuer makes an account first.
    pub(super) async fn needs_account(&self, store: &Store, issuer: &Issuer) -> bool {
        let is_open = self.slot(issuer).lock().await.is_some();
        !is_open && (*issuer == Issuer::Embedded || matches!(store.account(&issuer.name()), Ok(None)))
    }

    /// Makes a new account in the place of one that the CA has forgotten.
    pub(super) async fn replace_account(
        &self,
        config: &Config,
        store: &Store,
        issuer: &Issuer,
    ) -> Result<Session, IssuerError> {
        let slot = self.slot(issuer);
        let mut slot = slot.lock().await;
        let setup = self.setup(config, store, issuer).await?;
        let name = issuer.name();
        tracing::warn!(issuer = name, "the CA does not know the account any more: making a new one");
        let opened = Session::open(&setup, None).await?;
        if let Some(credentials) = &opened.new_credentials {
            store.save_account(&name, credentials)?;
        }
        *slot = Some(opened.session.clone());
        Ok(opened.session)
    }

    /// Forgets the sessions: the configuration names other issuers, or other settings for them.
    pub(super) async fn close(&self) {
        self.slots.borrow_mut().clear();
        *self.embedded.lock().await = None;
    }

    /// Forgets one session; the embedded CA ends with its own.
    pub(super) async fn dismiss(&self, issuer: &Issuer) {
        self.slots.borrow_mut().remove(&issuer.name());
        if *issuer == Issuer::Embedded {
            *self.embedded.lock().await = None;
        }
    }

    fn slot(&self, issuer: &Issuer) -> Rc<Slot> {
        self.slots.borrow_mut().entry(issuer.name()).or_default().clone()
    }

    async fn setup(&self, config: &Config, store: &Store, issuer: &Issuer) -> Result<Setup, IssuerError> {
        let mut roots = match &config.acme.roots {
            Some(path) => read_roots(path)?,
            None => Vec::new(),
        };
        let eab = match config.acme.eab_for(issuer) {
            Some(eab) => {
                let path = &eab.hmac_key_file;
                let key = read_file(path, MAX_FILE).and_then(|bytes| {
                    String::from_utf8(bytes)
                        .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.utf8_error()))
                });
                let key = key.map_err(|source| IssuerError::File {
                    key: "acme.eab.hmac-key-file",
                    path: path.clone(),
                    source,
                })?;
                Some((eab.kid.clone(), Zeroizing::new(key)))
            }
            None => None,
        };
        let directory_url = match issuer.directory_url() {
            Some(url) => url,
            None => {
                let mut embedded = self.embedded.lock().await;
                let ca = match &mut *embedded {
                    Some(ca) => ca,
                    none => {
                        let bound = self.bound.borrow().clone();
                        none.insert(start_embedded(config, store, bound).await?)
                    }
                };
                roots.extend(CertificateDer::pem_slice_iter(ca.root_pem().as_bytes()).flatten());
                ca.directory_url()
            }
        };
        let direct = *issuer == Issuer::Embedded;
        Ok(Setup { directory_url, contact: config.acme.contact.clone(), eab, roots, direct })
    }
}

/// What can be known of every issuer that may be asked, in their order, without an account being made, and
/// what could not be found out.
pub async fn ca_facts(config: &Config, store: Option<&Store>) -> (Vec<CaFacts>, Vec<String>) {
    let mut warnings = Vec::new();
    let roots = match config.acme.roots.as_deref().map(read_roots).transpose() {
        Ok(roots) => roots.unwrap_or_default(),
        Err(e) => {
            warnings.push(e.to_string());
            Vec::new()
        }
    };
    let mut asked = JoinSet::new();
    let mut all = Vec::new();
    for (position, issuer) in config.acme.issuers().enumerate() {
        let mut facts = CaFacts { issuer: issuer.name(), ..CaFacts::default() };
        if let Some(url) = issuer.directory_url() {
            let roots = roots.clone();
            asked.spawn_local(async move { (position, acme::directory(&url, &roots, false).await) });
            let kept = store.and_then(|store| store.account(&facts.issuer).ok().flatten());
            facts.account_uri = kept.map(Zeroizing::new).and_then(|kept| acme::account_uri(&kept));
        } else {
            facts.direct_to = config.gate.listen.first().copied().map(reachable);
        }
        all.push(facts);
    }
    let mut directories = asked.join_all().await;
    directories.sort_by_key(|(position, _)| *position);
    for (position, directory) in directories {
        match directory {
            Ok(directory) => all[position].identities = directory.caa_identities,
            Err(e) => {
                let of = if position == 0 { String::new() } else { format!("{}: ", all[position].issuer) };
                warnings.push(format!("{of}what the CA calls itself in CAA records is not known: {e}"));
            }
        }
    }
    (all, warnings)
}

async fn start_embedded(
    config: &Config,
    store: &Store,
    bound: Option<Arc<Socket>>,
) -> Result<EmbeddedCa, IssuerError> {
    let permitted = config.certificates.iter().flat_map(|c| c.identifiers.iter().cloned()).collect();
    let settings = Settings { bound, ..Settings::new(reachable(config.gate.listen[0]), permitted) };
    let ca = EmbeddedCa::start(settings).await?;
    let mut roots = vec![ca.root_pem().trim_end().to_owned()];
    if let Some(before) = store.embedded_roots()? {
        roots.extend(unexpired(&before).into_iter().take(KEPT_ROOTS));
    }
    if config.acme.issuer != Issuer::Embedded {
        // For a rehearsal: nobody is to trust it, not even for a try.
        return Ok(ca);
    }
    let path = store.save_embedded_roots(&format!("{}\n", roots.join("\n")))?;
    tracing::info!(
        "the embedded CA is started, for demos and tests only: nobody trusts it; its root is in {}",
        path.display()
    );
    Ok(ca)
}

/// Where a client on this machine reaches a listener.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        // A dual-stack listener falls back to IPv4 where there is no IPv6.
        IpAddr::V6(ip) if ip.is_unspecified() => match std::net::UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)) {
            Ok(_) => Ipv6Addr::LOCALHOST.into(),
            Err(_) => Ipv4Addr::LOCALHOST.into(),
        },
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// The certificates of a PEM text that have not expired, newest first as they stand.
fn unexpired(pem: &str) -> Vec<String> {
    let now = x509_parser::time::ASN1Time::from_timestamp(
        clock::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs()).cast_signed(),
    );
    let Ok(now) = now else { return Vec::new() };
    pem::parse_many(pem)
        .unwrap_or_default()
        .iter()
        .filter(|block| {
            x509_parser::certificate::X509Certificate::from_der(block.contents())
                .is_ok_and(|(_, c)| c.validity().not_after > now)
        })
        .map(|block| pem::encode_config(block, pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF)))
        .map(|text| text.trim_end().to_owned())
        .collect()
}

/// The certificates of `acme.roots`.
///
/// # Errors
/// The file cannot be read, or holds none.
fn read_roots(path: &Path) -> Result<Vec<CertificateDer<'static>>, IssuerError> {
    let text = read_file(path, MAX_FILE).map_err(|source| IssuerError::File {
        key: "acme.roots",
        path: path.to_owned(),
        source,
    })?;
    let roots: Vec<_> = CertificateDer::pem_slice_iter(&text).flatten().collect();
    if roots.is_empty() { Err(IssuerError::NoRoots(path.to_owned())) } else { Ok(roots) }
}
