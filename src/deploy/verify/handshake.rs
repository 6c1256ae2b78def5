//! One new connection to an endpoint: a PROXY header where one is expected, STARTTLS where one is spoken, a
//! full handshake in one version of TLS; what is shown is looked at, not trusted.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use proxy_header::{ProxiedAddress, ProxyHeader};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{AlertDescription, ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;

use super::fault::{Fault, Phase};
use super::starttls;
use super::{Client, Version};
use crate::config::{Endpoint, Protocol};
use crate::hostname::Identifier;
use crate::net::witness::{Began, Witness};

/// To be connected to one address, TCP alone. The kernel asks again after 1 and 3 seconds.
const CONNECT: Duration = Duration::from_secs(5);
/// For a farewell that nobody needs.
const FAREWELL: Duration = Duration::from_millis(200);
/// Addresses of one name that are tried.
const ADDRESSES: usize = 8;

/// What a handshake showed.
pub(super) struct Shown {
    /// Where.
    pub(super) address: SocketAddr,
    /// Leaf first, as it came; not empty.
    pub(super) chain: Vec<CertificateDer<'static>>,
}

/// Why nothing was shown, and where, if it came to a connection.
pub(super) struct Failed {
    pub(super) address: Option<SocketAddr>,
    pub(super) fault: Fault,
}

/// Who connects, and as what.
#[derive(Debug, Clone)]
pub(super) struct Hello {
    pub(super) identifier: Identifier,
    pub(super) version: Version,
    pub(super) client: Client,
}

/// Connects as such a client would, within `limit`.
pub(super) async fn shake(endpoint: &Endpoint, hello: &Hello, limit: Duration) -> Result<Shown, Failed> {
    let end = Instant::now() + limit;
    let stream = connect(endpoint, end).await.map_err(|fault| Failed { address: None, fault })?;
    let gone = |_| Failed { address: None, fault: Fault::Closed(Phase::Connect) };
    let (from, to) = (stream.local_addr().map_err(gone)?, stream.peer_addr().map_err(gone)?);
    let (mut phase, began) = (Phase::Banner, Began::default());
    let talk = talk(endpoint, stream, (from, to), hello, (&mut phase, &began));
    let fault = match timeout_at(end, talk).await {
        Ok(Ok(chain)) => return Ok(Shown { address: to, chain }),
        Ok(Err(fault)) => fault,
        Err(_) => late(endpoint, phase, began.bytes()),
    };
    Err(Failed { address: Some(to), fault })
}

/// What a time that is up means; `began` is what the server sent first.
fn late(endpoint: &Endpoint, phase: Phase, began: Vec<u8>) -> Fault {
    match (phase, endpoint.protocol) {
        _ if began.is_empty() => Fault::TimedOut(phase),
        (Phase::Handshake, Protocol::Tls) if !is_tls(&began) => Fault::NoTls { began },
        // After STARTTLS what came first says nothing of TLS.
        (Phase::Handshake, Protocol::Smtp | Protocol::Imap) => Fault::TimedOut(phase),
        _ => Fault::Slow { phase, began },
    }
}

/// Whether it begins as TLS does: a record is an alert or a part of a handshake.
fn is_tls(began: &[u8]) -> bool {
    began.first().is_none_or(|first| matches!(first, 0x15 | 0x16))
}

async fn connect(endpoint: &Endpoint, end: Instant) -> Result<TcpStream, Fault> {
    let addresses: Vec<SocketAddr> = match endpoint.host.parse::<IpAddr>() {
        Ok(ip) => vec![(ip, endpoint.port).into()],
        Err(_) => {
            let found = timeout_at(end, tokio::net::lookup_host((endpoint.host.as_str(), endpoint.port)));
            let found =
                found.await.map_err(|_| Fault::Unknown("the name servers did not answer".to_owned()))?;
            found.map_err(|e| Fault::Unknown(e.to_string()))?.take(ADDRESSES).collect()
        }
    };
    let mut worst = None;
    for address in &addresses {
        let connecting = timeout_at(end, timeout(CONNECT, TcpStream::connect(address))).await;
        let fault = match connecting {
            Ok(Ok(Ok(stream))) => return Ok(stream),
            Ok(Ok(Err(e))) if e.kind() == io::ErrorKind::ConnectionRefused => Fault::Refused,
            Ok(Ok(Err(e))) => Fault::Unreachable(e.to_string()),
            Ok(Err(_)) | Err(_) => Fault::TimedOut(Phase::Connect),
        };
        // Nobody listens only where every address says so.
        if worst.is_none() || !matches!(fault, Fault::Refused) {
            worst = Some(fault);
        }
    }
    Err(worst.unwrap_or_else(|| Fault::Unknown("it has no address".to_owned())))
}

async fn talk(
    endpoint: &Endpoint,
    mut stream: TcpStream,
    (from, to): (SocketAddr, SocketAddr),
    hello: &Hello,
    (phase, began): (&mut Phase, &Began),
) -> Result<Vec<CertificateDer<'static>>, Fault> {
    if endpoint.proxy {
        let mut header = Vec::new();
        let proxied = ProxyHeader::with_address(ProxiedAddress::stream(from, to));
        proxied.encode_v2(&mut header).map_err(|e| Fault::Tls(e.to_string()))?;
        stream.write_all(&header).await.map_err(|_| Fault::Closed(Phase::Banner))?;
    }
    let stream = Witness::new(stream, began.clone());
    let stream = starttls::prepare(stream, endpoint.protocol, from).await?;
    *phase = Phase::Handshake;
    let name = match &hello.identifier {
        Identifier::Dns(name) => {
            ServerName::try_from(name.as_str().to_owned()).map_err(|e| Fault::Tls(e.to_string()))?
        }
        Identifier::Ip(ip) => ServerName::from(*ip),
    };
    let (config, onlooker) = config(hello.version, hello.client);
    // Before STARTTLS the server spoke in the clear, as it should.
    let spoke_before = !began.bytes().is_empty();
    match TlsConnector::from(config).connect(name, stream).await {
        Ok(mut stream) => {
            let _ = timeout(FAREWELL, stream.shutdown()).await;
            onlooker.proven().ok_or_else(|| Fault::Tls("no certificate was shown".to_owned()))
        }
        // One that wants a client's certificate hangs up, but has shown its own.
        Err(e) => onlooker.proven().ok_or_else(|| {
            let began = if spoke_before { Vec::new() } else { began.bytes() };
            fault(&e, began)
        }),
    }
}

/// What an error means; `began` is what the server sent first.
fn fault(error: &io::Error, began: Vec<u8>) -> Fault {
    if !is_tls(&began) {
        return Fault::NoTls { began };
    }
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::AlertReceived(alert)) => match alert {
            AlertDescription::ProtocolVersion | AlertDescription::InsufficientSecurity => {
                Fault::Declined(words(*alert))
            }
            AlertDescription::HandshakeFailure => Fault::Declined(words(*alert)),
            AlertDescription::UnrecognisedName => Fault::Nameless,
            other => Fault::Alert(words(*other)),
        },
        Some(rustls::Error::PeerIncompatible(why)) => Fault::Declined(format!("{why:?}")),
        Some(other) => Fault::Tls(other.to_string()),
        None => match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe => Fault::Closed(Phase::Handshake),
            _ => Fault::Tls(error.to_string()),
        },
    }
}

/// `HandshakeFailure` as the RFC writes it: `handshake_failure`.
fn words(alert: AlertDescription) -> String {
    let mut text = String::new();
    for c in format!("{alert:?}").chars() {
        if c.is_ascii_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.push(c.to_ascii_lowercase());
    }
    text
}

fn config(version: Version, client: Client) -> (Arc<ClientConfig>, Arc<Onlooker>) {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    // In TLS 1.2 the cipher suite tells the algorithm of the server's key as well (RFC 8422 section 5.1).
    provider.cipher_suites.retain(|suite| match suite {
        rustls::SupportedCipherSuite::Tls12(suite) => suite.sign.iter().any(|scheme| client.takes(*scheme)),
        rustls::SupportedCipherSuite::Tls13(_) => true,
    });
    let schemes = provider.signature_verification_algorithms.supported_schemes();
    let schemes = schemes.into_iter().filter(|scheme| client.names(*scheme)).collect();
    let provider = Arc::new(provider);
    let onlooker = Arc::new(Onlooker { provider: provider.clone(), schemes, seen: Mutex::default() });
    let versions: &[&rustls::SupportedProtocolVersion] = match version {
        Version::Tls13 => &[&rustls::version::TLS13],
        Version::Tls12 => &[&rustls::version::TLS12],
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("the provider supports TLS 1.2 and 1.3")
        .dangerous()
        .with_custom_certificate_verifier(onlooker.clone())
        .with_no_client_auth();
    // A resumed session would show what an earlier one has seen.
    config.resumption = Resumption::disabled();
    (Arc::new(config), onlooker)
}

impl Client {
    /// Whether it can use a server's key that signs so.
    fn takes(self, scheme: SignatureScheme) -> bool {
        use SignatureScheme::{
            ECDSA_NISTP256_SHA256, ECDSA_NISTP384_SHA384, ECDSA_NISTP521_SHA512, ECDSA_SHA1_Legacy, ED448,
            ED25519,
        };
        let is_ecdsa = matches!(
            scheme,
            ECDSA_NISTP256_SHA256
                | ECDSA_NISTP384_SHA384
                | ECDSA_NISTP521_SHA512
                | ECDSA_SHA1_Legacy
                | ED25519
                | ED448
        );
        match self {
            Self::Any => true,
            Self::Ecdsa => is_ecdsa,
            Self::Rsa => !is_ecdsa,
        }
    }

    /// Whether it names this scheme to the server. A client without RSA keys may meet an intermediate with
    /// one: in TLS 1.3 these schemes are for certificates only (RFC 8446 section 4.2.3), and in 1.2 the cipher
    /// suites tell.
    fn names(self, scheme: SignatureScheme) -> bool {
        use SignatureScheme::{RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512};
        self.takes(scheme) || matches!(scheme, RSA_PKCS1_SHA256 | RSA_PKCS1_SHA384 | RSA_PKCS1_SHA512)
    }
}

/// Takes any certificate, but not from one who does not hold its key.
#[derive(Debug)]
struct Onlooker {
    provider: Arc<CryptoProvider>,
    schemes: Vec<SignatureScheme>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    chain: Vec<CertificateDer<'static>>,
    is_proven: bool,
}

impl Onlooker {
    /// The chain, if the server holds the leaf's key.
    fn proven(&self) -> Option<Vec<CertificateDer<'static>>> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        (seen.is_proven && !seen.chain.is_empty()).then(|| seen.chain.clone())
    }

    fn note(&self, valid: HandshakeSignatureValid) -> HandshakeSignatureValid {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).is_proven = true;
        valid
    }
}

impl ServerCertVerifier for Onlooker {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        issuers: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain = std::iter::once(leaf).chain(issuers).map(|der| der.clone().into_owned()).collect();
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Seen { chain, is_proven: false };
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, leaf, signature, algorithms).map(|valid| self.note(valid))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, leaf, signature, algorithms).map(|valid| self.note(valid))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}
