//! A front on a thread of its own, clients that trust its CA, and applications behind it.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Uri};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use wicketgate::certificate::Certificate;
use wicketgate::challenge::ChallengeTable;
use wicketgate::config::{Front, Place, Upstream};
use wicketgate::front::{AccessLog, CertificateResolver, FrontState, caps, serve};
use wicketgate::net::drain::StopTrigger;
use wicketgate::net::listen::{ListenOptions, bind};

pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// The future's value, or a failed test.
pub(super) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("in time")
}

/// Asks again and again until it is so.
pub(super) async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let waiting = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{what}, in time"));
}

/// A CA for tests.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
    pem: String,
}

impl Authority {
    pub(super) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "Front Test CA");
        let root = params.self_signed(&key).unwrap();
        Self { root: root.der().clone(), pem: root.pem(), issuer: Issuer::new(params, key) }
    }

    pub(super) fn pem(&self) -> &str {
        &self.pem
    }

    pub(super) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        roots
    }

    pub(super) fn certificate(&self, names: &[&str]) -> Certificate {
        self.signed(KeyPair::generate().unwrap(), names)
    }

    /// One with an RSA key.
    pub(super) fn of_rsa(&self, names: &[&str]) -> Certificate {
        let key = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
        self.signed(key, names)
    }

    fn signed(&self, key: KeyPair, names: &[&str]) -> Certificate {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.not_before = rcgen::date_time_ymd(2024, 1, 1);
        params.not_after = rcgen::date_time_ymd(2090, 1, 1);
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        Certificate::stored(&(leaf.pem() + &self.pem), &key.serialize_pem()).unwrap()
    }

    /// A client that trusts this CA and offers these protocols.
    pub(super) fn client(&self, alpn: &[&str]) -> ClientConfig {
        // As browsers do.
        let mut provider = aws_lc_rs::default_provider();
        provider.kx_groups = vec![aws_lc_rs::kx_group::X25519MLKEM768, aws_lc_rs::kx_group::X25519];
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
        config
    }
}

/// An application that speaks HTTP/1.1 there.
pub(super) fn http(host: &str, port: u16) -> Upstream {
    Upstream::Http(Place::Tcp { host: host.to_owned(), port })
}

/// A configuration with patient limits.
pub(super) fn settings(upstream: Upstream) -> Front {
    Front {
        listen: vec![],
        upstream,
        sites: vec![],
        default_certificate: None,
        trusted_proxies: vec![],
        max_body: None,
        hsts: None,
        ticket_key_file: None,
        access_log: None,
        max_connections: 1000,
        max_connections_per_network: 1000,
        max_handshakes: 1000,
        threads: 1,
        handshake_timeout: PATIENCE,
        idle_timeout: PATIENCE,
        connect_timeout: PATIENCE,
        response_timeout: PATIENCE,
    }
}

/// A running front; dropping it stops it at once.
pub(super) struct Rig {
    pub(super) address: SocketAddr,
    pub(super) state: Arc<FrontState>,
    pub(super) authority: Authority,
    trigger: Option<StopTrigger>,
    thread: Option<JoinHandle<()>>,
}

impl Rig {
    /// One that serves `a.test` and `b.test`.
    pub(super) fn start(upstream: Upstream) -> Self {
        Self::with(&settings(upstream), Duration::ZERO)
    }

    pub(super) fn with(front: &Front, grace: Duration) -> Self {
        let rig = Self::bare(front, grace);
        rig.install("main", &["a.test", "b.test"]);
        rig
    }

    /// One without any certificate.
    pub(super) fn bare(front: &Front, grace: Duration) -> Self {
        let log = front.access_log.as_ref().map(|log| AccessLog::open(log).unwrap());
        let state = FrontState::new(CertificateResolver::new().unwrap(), front, ChallengeTable::new());
        let state = Arc::new(state.with_access_log(log));
        let listener =
            bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), &ListenOptions { reuse_port: true }).unwrap();
        let address = listener.local_addr().unwrap();
        let (trigger, stop) = StopTrigger::new();
        let thread = std::thread::spawn({
            let (state, caps) = (state.clone(), caps(front));
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let local = tokio::task::LocalSet::new();
                local.block_on(&runtime, serve(vec![listener], state, caps, stop, grace)).unwrap();
            }
        });
        Self { address, state, authority: Authority::new(), trigger: Some(trigger), thread: Some(thread) }
    }

    pub(super) fn install(&self, lineage: &str, names: &[&str]) -> Certificate {
        let certificate = self.authority.certificate(names);
        self.state.resolver().install(lineage, &certificate.clone().into()).unwrap();
        certificate
    }

    /// Asks the front to stop, and tells whether it has.
    pub(super) fn stop(&mut self) {
        self.trigger = None;
    }

    pub(super) fn has_stopped(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// A TLS connection to `name` (an address sends no SNI).
    pub(super) async fn tls(&self, config: ClientConfig, name: &str) -> io::Result<TlsStream<TcpStream>> {
        connect(self.address, Arc::new(config), name).await
    }

    /// A client that takes any certificate.
    pub(super) fn unchecked(&self, alpn: &str) -> Arc<ClientConfig> {
        let mut config = self.authority.client(&[alpn]);
        let provider = config.crypto_provider().clone();
        config.dangerous().set_certificate_verifier(Arc::new(Credulous(provider)));
        Arc::new(config)
    }

    /// A TLS connection to `a.test` for HTTP/1.1, to speak it by hand.
    pub(super) async fn raw(&self) -> TlsStream<TcpStream> {
        soon(self.tls(self.authority.client(&["http/1.1"]), "a.test")).await.unwrap()
    }

    pub(super) async fn h1(&self) -> hyper::client::conn::http1::SendRequest<Pieces> {
        let stream = TokioIo::new(self.raw().await);
        let (sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        sender
    }

    pub(super) async fn h2(&self) -> hyper::client::conn::http2::SendRequest<Pieces> {
        let stream = soon(self.tls(self.authority.client(&["h2"]), "a.test")).await.unwrap();
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    /// Sends bytes over a connection of its own and reads until the front closes it.
    pub(super) async fn talk(&self, bytes: &str) -> String {
        let mut stream = self.raw().await;
        stream.write_all(bytes.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        let mut answer = Vec::new();
        // How it ends is not the question here.
        let _ = soon(stream.read_to_end(&mut answer)).await;
        String::from_utf8_lossy(&answer).into_owned()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.trigger = None;
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.expect("the front's thread ends well");
            }
        }
    }
}

/// Takes any certificate.
#[derive(Debug)]
struct Credulous(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for Credulous {
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
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

pub(super) async fn connect(
    address: SocketAddr,
    config: Arc<ClientConfig>,
    name: &str,
) -> io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    over(tcp, config, name).await
}

pub(super) async fn over(
    tcp: TcpStream,
    config: Arc<ClientConfig>,
    name: &str,
) -> io::Result<TlsStream<TcpStream>> {
    let name = match name.parse::<IpAddr>() {
        Ok(ip) => ServerName::IpAddress(ip.into()),
        Err(_) => ServerName::try_from(name.to_owned()).unwrap(),
    };
    TlsConnector::from(config).connect(name, tcp).await
}

/// A body of pieces that are sent as the test says.
pub(super) struct Pieces(mpsc::UnboundedReceiver<Result<Frame<Bytes>, io::Error>>);

/// Adds to [`Pieces`]; dropping it ends the body.
pub(super) type Feed = mpsc::UnboundedSender<Result<Frame<Bytes>, io::Error>>;

impl Pieces {
    pub(super) fn new() -> (Feed, Self) {
        let (feed, pieces) = mpsc::unbounded_channel();
        (feed, Self(pieces))
    }

    pub(super) fn none() -> Self {
        Self::new().1
    }

    pub(super) fn of(frames: impl IntoIterator<Item = Frame<Bytes>>) -> Self {
        let (feed, pieces) = Self::new();
        for frame in frames {
            feed.send(Ok(frame)).unwrap();
        }
        pieces
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.0.poll_recv(context)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_closed() && self.0.is_empty()
    }
}

pub(super) fn data(text: &'static str) -> Frame<Bytes> {
    Frame::data(Bytes::from_static(text.as_bytes()))
}

/// A GET in the form that each protocol wants.
pub(super) fn get(target: &str) -> Request<Pieces> {
    let uri: Uri = target.parse().unwrap();
    let mut request = Request::new(Pieces::none());
    if uri.authority().is_none() {
        request.headers_mut().insert("host", "a.test".parse().unwrap());
    }
    *request.uri_mut() = uri;
    request
}

pub(super) fn post(target: &str, body: Pieces) -> Request<Pieces> {
    let mut request = get(target).map(|_| body);
    *request.method_mut() = http::Method::POST;
    request
}

pub(super) async fn text(response: Response<Incoming>) -> String {
    let body = soon(response.into_body().collect()).await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

/// What an application has seen of a request.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) line: String,
    pub(super) headers: HeaderMap,
}

impl Seen {
    pub(super) fn header(&self, name: &str) -> Vec<&str> {
        self.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
    }
}

/// An application; its sockets are closed with the test's runtime.
#[derive(Clone)]
pub(super) struct App {
    pub(super) upstream: Upstream,
    pub(super) connections: Arc<AtomicUsize>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl App {
    /// One on hyper, which speaks HTTP as it should be spoken.
    pub(super) async fn http<F>(
        answer: impl Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Response<Pieces>> + Send + 'static,
    {
        Self::on_hyper(answer, false).await
    }

    /// The same in HTTP/2 from the first byte.
    pub(super) async fn h2c<F>(
        answer: impl Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Response<Pieces>> + Send + 'static,
    {
        let app = Self::on_hyper(answer, true).await;
        let Upstream::Http(place) = app.upstream else { unreachable!("that is what `raw` says") };
        Self { upstream: Upstream::H2c(place), ..app }
    }

    async fn on_hyper<F>(
        answer: impl Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        is_h2: bool,
    ) -> Self
    where
        F: Future<Output = Response<Pieces>> + Send + 'static,
    {
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let app = Self::raw({
            let seen = seen.clone();
            move |stream| {
                let (seen, answer) = (seen.clone(), answer.clone());
                async move {
                    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                        seen.lock().unwrap().push(Seen {
                            line: format!("{} {} {:?}", request.method(), request.uri(), request.version()),
                            headers: request.headers().clone(),
                        });
                        let answering = answer(request);
                        async move { Ok::<_, Infallible>(answering.await) }
                    });
                    let stream = TokioIo::new(stream);
                    if is_h2 {
                        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                            .serve_connection(stream, service)
                            .await;
                    } else {
                        let _ = hyper::server::conn::http1::Builder::new()
                            .serve_connection(stream, service)
                            .with_upgrades()
                            .await;
                    }
                }
            }
        })
        .await;
        Self { seen, ..app }
    }

    /// One that answers everything with a text.
    pub(super) async fn saying(text: &'static str) -> Self {
        Self::http(move |_| async move { Response::new(Pieces::of([data(text)])) }).await
    }

    /// One that does as it likes with each connection.
    pub(super) async fn raw<F>(on: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        tokio::spawn({
            let connections = connections.clone();
            async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    stream.set_nodelay(true).unwrap();
                    connections.fetch_add(1, Ordering::SeqCst);
                    tokio::spawn(on(stream));
                }
            }
        });
        let upstream = http("127.0.0.1", port);
        Self { upstream, connections, seen: Arc::default() }
    }

    /// One that reads a request's header, sends these bytes and closes.
    pub(super) async fn sending(bytes: &'static str) -> Self {
        Self::raw(move |mut stream| async move {
            read_head(&mut stream).await;
            let _ = stream.write_all(bytes.as_bytes()).await;
        })
        .await
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(super) fn last(&self) -> Seen {
        self.seen().pop().expect("a request came through")
    }
}

/// Reads up to the empty line, and tells what it read.
pub(super) async fn read_head(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match stream.read(&mut byte).await {
            Ok(1) => head.push(byte[0]),
            _ => break,
        }
    }
    String::from_utf8(head).unwrap()
}
