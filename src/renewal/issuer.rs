//! The issuer's account, opened once and kept; the embedded CA, started where it is the issuer.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::sync::Mutex;
use x509_parser::prelude::FromDer;
use zeroize::Zeroizing;

use crate::acme::{AcmeError, Session, Setup};
use crate::clock;
use crate::config::{Config, Issuer};
use crate::rehearsal::{EmbeddedCa, RehearsalError, Settings};
use crate::store::{Store, StoreError};

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

/// The present issuer.
#[derive(Default)]
pub(super) struct Desk {
    session: Mutex<Option<Session>>,
    embedded: Mutex<Option<EmbeddedCa>>,
}

/// Roots of earlier runs of the embedded CA that are still told to clients.
const KEPT_ROOTS: usize = 4;

impl Desk {
    /// The session, opened at the first call.
    pub(super) async fn session(&self, config: &Config, store: &Store) -> Result<Session, IssuerError> {
        let mut slot = self.session.lock().await;
        if let Some(session) = &*slot {
            return Ok(session.clone());
        }
        let setup = self.setup(config, store).await?;
        let issuer = config.acme.issuer.name();
        // The embedded CA forgets its accounts with each start.
        let kept = match config.acme.issuer {
            Issuer::Embedded => None,
            _ => store.account(&issuer)?.map(Zeroizing::new),
        };
        let opened = Session::open(&setup, kept.as_deref().map(String::as_str)).await?;
        if let Some(credentials) = &opened.new_credentials
            && config.acme.issuer != Issuer::Embedded
        {
            store.save_account(&issuer, credentials)?;
            tracing::info!(issuer, "made an account at the CA");
        }
        *slot = Some(opened.session.clone());
        Ok(opened.session)
    }

    /// Makes a new account in the place of one that the CA has forgotten.
    pub(super) async fn replace_account(
        &self,
        config: &Config,
        store: &Store,
    ) -> Result<Session, IssuerError> {
        let mut slot = self.session.lock().await;
        let setup = self.setup(config, store).await?;
        let issuer = config.acme.issuer.name();
        tracing::warn!(issuer, "the CA does not know the account any more: making a new one");
        let opened = Session::open(&setup, None).await?;
        if let Some(credentials) = &opened.new_credentials {
            store.save_account(&issuer, credentials)?;
        }
        *slot = Some(opened.session.clone());
        Ok(opened.session)
    }

    /// Forgets the session: the configuration names another issuer, or other settings for it.
    pub(super) async fn close(&self) {
        *self.session.lock().await = None;
        *self.embedded.lock().await = None;
    }

    async fn setup(&self, config: &Config, store: &Store) -> Result<Setup, IssuerError> {
        let mut roots = match &config.acme.roots {
            Some(path) => read_roots(path)?,
            None => Vec::new(),
        };
        let eab = match config.acme.eab_for(&config.acme.issuer) {
            Some(eab) => {
                let path = &eab.hmac_key_file;
                let key = std::fs::read_to_string(path).map_err(|source| IssuerError::File {
                    key: "acme.eab.hmac-key-file",
                    path: path.clone(),
                    source,
                })?;
                Some((eab.kid.clone(), Zeroizing::new(key)))
            }
            None => None,
        };
        let directory_url = match config.acme.issuer.directory_url() {
            Some(url) => url,
            None => {
                let mut embedded = self.embedded.lock().await;
                let ca = match &mut *embedded {
                    Some(ca) => ca,
                    none => none.insert(start_embedded(config, store).await?),
                };
                roots.extend(CertificateDer::pem_slice_iter(ca.root_pem().as_bytes()).flatten());
                ca.directory_url()
            }
        };
        let direct = config.acme.issuer == Issuer::Embedded;
        Ok(Setup { directory_url, contact: config.acme.contact.clone(), eab, roots, direct })
    }
}

async fn start_embedded(config: &Config, store: &Store) -> Result<EmbeddedCa, IssuerError> {
    let permitted = config.certificates.iter().flat_map(|c| c.identifiers.iter().cloned()).collect();
    let ca = EmbeddedCa::start(Settings::new(reachable(config.gate.listen[0]), permitted)).await?;
    let mut roots = vec![ca.root_pem().trim_end().to_owned()];
    if let Some(before) = store.embedded_roots()? {
        roots.extend(unexpired(&before).into_iter().take(KEPT_ROOTS));
    }
    let path = store.save_embedded_roots(&format!("{}\n", roots.join("\n")))?;
    tracing::info!(
        "the embedded CA is started, for demos and tests only: nobody trusts it; its root is in {}",
        path.display()
    );
    Ok(ca)
}

/// Where a client on this machine reaches a listener.
pub fn reachable(listen: SocketAddr) -> SocketAddr {
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
pub fn read_roots(path: &Path) -> Result<Vec<CertificateDer<'static>>, IssuerError> {
    let text = std::fs::read(path).map_err(|source| IssuerError::File {
        key: "acme.roots",
        path: path.to_owned(),
        source,
    })?;
    let roots: Vec<_> = CertificateDer::pem_slice_iter(&text).flatten().collect();
    if roots.is_empty() { Err(IssuerError::NoRoots(path.to_owned())) } else { Ok(roots) }
}
