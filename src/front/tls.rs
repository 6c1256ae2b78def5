//! From a TCP connection to a TLS one: who is asked for, with which certificate, within a deadline.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{Acceptor, NoServerSessionStorage};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{AlertDescription, ServerConfig};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::abilities::Abilities;
use super::resolver::Served;
use super::{FrontState, alpn};
use crate::config::Upstream;
use crate::tickets::Tickets;

/// What every certificate's configuration has in common. Copies share the tickets and their keys.
///
/// No early data: it can be replayed (RFC 8446 section 8). A ticket is good only for the server name
/// that it was given to, and only while that name has a certificate.
pub(super) fn base_config(tickets: Arc<Tickets>) -> Result<ServerConfig, rustls::Error> {
    let provider = CryptoProvider {
        kx_groups: vec![
            aws_lc_rs::kx_group::X25519MLKEM768,
            aws_lc_rs::kx_group::X25519,
            aws_lc_rs::kx_group::SECP256R1,
            aws_lc_rs::kx_group::SECP384R1,
        ],
        ..aws_lc_rs::default_provider()
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Nothing));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = tickets;
    // Whoever resumes knows tickets: nothing has to be remembered here.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    Ok(config)
}

/// The base with a certificate to serve.
pub(super) fn with_certificate(base: &ServerConfig, certified: Arc<CertifiedKey>) -> ServerConfig {
    let mut config = base.clone();
    config.cert_resolver = Arc::new(SingleCertAndKey::from(certified));
    config
}

/// The same for clients that are offered other protocols.
fn with_protocols(config: &ServerConfig, alpn: &[String]) -> ServerConfig {
    let mut config = config.clone();
    config.alpn_protocols = alpn.iter().map(|name| name.clone().into_bytes()).collect();
    config
}

/// The base serves nobody by itself.
#[derive(Debug)]
struct Nothing;

impl rustls::server::ResolvesServerCert for Nothing {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

/// A finished handshake.
pub(super) struct Secured {
    /// Boxed because it is large and passed on often.
    pub(super) stream: Box<TlsStream<TcpStream>>,
    pub(super) served: Arc<Served>,
    /// The other end, or for whom it comes.
    pub(super) client: SocketAddr,
    /// Where the connection's bytes go, if they are not taken for HTTP.
    pub(super) raw: Option<RawPassage>,
}

/// What an upstream that is given bytes may want to know of a connection.
pub(super) struct RawPassage {
    pub(super) upstream: Arc<Upstream>,
    pub(super) server_name: Option<String>,
}

/// Why a handshake came to nothing; always the peer's doing.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    #[error("the client asked for `{0}`, for which no certificate is served")]
    UnknownName(String),
    #[error("the client named no host, and there is no certificate for {0:?} and no default")]
    NoName(Option<IpAddr>),
    /// It was a CA's, for a challenge, and is over.
    #[error("a challenge was answered")]
    Answered,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Performs the handshake; the caller sees to the deadline.
pub(super) async fn handshake(
    tcp: TcpStream,
    client: SocketAddr,
    state: &FrontState,
) -> Result<Secured, HandshakeError> {
    let mut start = LazyConfigAcceptor::new(Acceptor::default(), tcp).await?;
    let hello = start.client_hello();
    if alpn::is_asked(hello.alpn().into_iter().flatten())
        && let Some(name) = hello.server_name()
        && let Some(config) = alpn::answer(state, name, client)?
    {
        let mut stream = start.into_stream(config).await?;
        stream.shutdown().await?;
        return Err(HandshakeError::Answered);
    }
    let mut local = None;
    let found = state.resolver().find(hello.server_name(), &Abilities::of(&hello), || {
        local = start.io.local_addr().ok().map(|address| address.ip().to_canonical());
        local
    });
    let Some(served) = found else {
        let (alert, error) = match hello.server_name() {
            // RFC 6066 section 3.
            Some(name) => (AlertDescription::UnrecognisedName, HandshakeError::UnknownName(name.to_owned())),
            // RFC 8446 section 9.2.
            None => (AlertDescription::MissingExtension, HandshakeError::NoName(local)),
        };
        start.io.write_all(&fatal(alert)).await?;
        start.io.shutdown().await?;
        return Err(error);
    };
    let raw = state.routes().raw(hello.server_name()).map(|upstream| RawPassage {
        upstream: upstream.clone(),
        server_name: hello.server_name().map(str::to_owned),
    });
    let config = match raw.as_ref().map(|raw| &*raw.upstream) {
        Some(Upstream::Raw(raw)) => Arc::new(with_protocols(&served.tls, &raw.alpn)),
        _ => served.tls.clone(),
    };
    let stream = Box::new(start.into_stream(config).await?);
    Ok(Secured { stream, served, client, raw })
}

/// A fatal alert in a record of its own (RFC 8446 sections 5.1 and 6); nothing is encrypted yet.
fn fatal(alert: AlertDescription) -> [u8; 7] {
    [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, alert.into()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_as_the_registry_numbers_them() {
        assert_eq!(fatal(AlertDescription::UnrecognisedName), [21, 3, 3, 0, 2, 2, 112]);
        assert_eq!(fatal(AlertDescription::MissingExtension), [21, 3, 3, 0, 2, 2, 109]);
    }

    #[test]
    fn the_base_shares_its_tickets_and_allows_no_early_data() {
        let base = base_config(Arc::new(Tickets::new().unwrap())).unwrap();
        let copy = base.clone();
        assert!(Arc::ptr_eq(&base.ticketer, &copy.ticketer) && base.ticketer.enabled());
        assert_eq!(base.max_early_data_size, 0);
        assert_eq!(base.alpn_protocols, [&b"h2"[..], b"http/1.1"]);
    }
}
