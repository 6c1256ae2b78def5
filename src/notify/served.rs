//! The certificate that a TLS handshake shows, whatever it is worth: it is looked at, not trusted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::hostname::Identifier;

/// From the connection's start to the end of the handshake.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What of a shown certificate matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shown {
    /// Serial number, hex.
    pub(super) serial: String,
    /// End of validity.
    pub(super) not_after: SystemTime,
}

/// Shakes hands with a listener of this machine as a client for `identifier` would.
///
/// # Errors
/// A sentence: no connection, no handshake, no readable certificate.
pub(super) async fn look(listen: SocketAddr, identifier: &Identifier) -> Result<Shown, String> {
    let name = match identifier {
        Identifier::Dns(name) => ServerName::try_from(name.as_str().to_owned()).map_err(|e| e.to_string())?,
        Identifier::Ip(ip) => ServerName::from(*ip),
    };
    let handshake = async {
        let stream = TcpStream::connect(reachable(listen)).await.map_err(|e| e.to_string())?;
        TlsConnector::from(onlooker()).connect(name, stream).await.map_err(|e| e.to_string())
    };
    let stream = tokio::time::timeout(TIMEOUT, handshake)
        .await
        .map_err(|_| format!("no handshake within {} s", TIMEOUT.as_secs()))??;
    let (_, connection) = stream.get_ref();
    let leaf = connection.peer_certificates().and_then(<[_]>::first).ok_or("no certificate was shown")?;
    read(leaf)
}

fn read(leaf: &CertificateDer<'_>) -> Result<Shown, String> {
    let (_, leaf) = X509Certificate::from_der(leaf).map_err(|e| e.to_string())?;
    let end = u64::try_from(leaf.validity().not_after.timestamp()).unwrap_or(0);
    Ok(Shown {
        serial: leaf.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect(),
        not_after: SystemTime::UNIX_EPOCH + Duration::from_secs(end),
    })
}

/// Where a listener on every address answers.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        // It takes IPv4 as well, and does so where there is no IPv6.
        IpAddr::V6(ip) if ip == Ipv6Addr::UNSPECIFIED => Ipv4Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

fn onlooker() -> Arc<rustls::ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("the provider supports TLS 1.2 and 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Onlooker(provider)))
        .with_no_client_auth();
    Arc::new(config)
}

/// Takes any certificate, but not from one who does not hold its key.
#[derive(Debug)]
struct Onlooker(Arc<CryptoProvider>);

impl ServerCertVerifier for Onlooker {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, leaf, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, leaf, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
