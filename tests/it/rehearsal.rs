//! The embedded CA with a real ACME client, a real gate and OpenSSL as the judge of its chains.

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use instant_acme::{
    Account, AuthorizationStatus, BodyWrapper, BytesResponse, ChallengeType, Error, HttpClient, Identifier,
    NewAccount, NewOrder, Order, OrderStatus, Problem, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::net::TcpListener;
use wicketgate::rehearsal::{
    AnswerFault, AnswerScope, ChainFault, EmbeddedCa, Faults, ProblemType, Settings,
};
use x509_parser::prelude::{FromDer, X509Certificate};

mod renewals;
mod validations;

const NAMES: [&str; 4] = ["a.example", "b.example", "127.0.0.1", "::1"];

/// Answers challenges as a gate does: the right bytes for the right host, else 404.
#[derive(Clone, Default)]
struct Answers {
    expected: Arc<Mutex<HashMap<(String, String), String>>>,
    clients: Arc<Mutex<BTreeSet<IpAddr>>>,
}

impl Answers {
    fn put(&self, host: &str, token: &str, answer: &str) {
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        self.expected.lock().unwrap().insert((host, token.to_owned()), answer.to_owned());
    }

    fn reply(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let host = request.headers()[HOST].to_str().unwrap().to_owned();
        let token = request.uri().path().strip_prefix("/.well-known/acme-challenge/").unwrap_or_default();
        match self.expected.lock().unwrap().get(&(host, token.to_owned())) {
            Some(answer) => Response::new(Full::from(answer.clone())),
            None => {
                let mut response = Response::new(Full::from("nothing here"));
                *response.status_mut() = StatusCode::NOT_FOUND;
                response
            }
        }
    }

    /// Who has come.
    fn clients(&self) -> BTreeSet<IpAddr> {
        self.clients.lock().unwrap().clone()
    }

    fn forget_clients(&self) {
        self.clients.lock().unwrap().clear();
    }

    async fn serve(&self) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let answers = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, client)) = listener.accept().await {
                answers.clients.lock().unwrap().insert(client.ip());
                let answers = answers.clone();
                let service = service_fn(move |request| {
                    let reply = answers.reply(&request);
                    async move { Ok::<_, Infallible>(reply) }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        address
    }
}

type Https = Client<HttpsConnector<HttpConnector>, BodyWrapper<Bytes>>;

fn tls(root_pem: &str) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(root_pem.as_bytes()).unwrap()).unwrap();
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// A client for instant-acme that trusts the embedded CA's root alone.
struct Transport(Https);

impl Transport {
    fn new(ca: &EmbeddedCa) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        // Without it every request over HTTP/2 waits 40 ms for the peer's delayed acknowledgement.
        tcp.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls(ca.root_pem()))
            .https_only()
            .enable_all_versions()
            .wrap_connector(tcp);
        Self(Client::builder(TokioExecutor::new()).build(connector))
    }
}

impl HttpClient for Transport {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let response = self.0.request(request);
        Box::pin(async move {
            let (parts, body) = response.await.map_err(|e| Error::Other(Box::new(e)))?.into_parts();
            let collect = Limited::new(body, 1 << 20).collect();
            let body = tokio::time::timeout(Duration::from_secs(10), collect)
                .await
                .map_err(|e| Error::Other(Box::new(e)))?
                .map_err(Error::Other)?;
            Ok(Response::from_parts(parts, Full::new(body.to_bytes())).into())
        })
    }
}

/// A CA, its gate, and an account.
struct Bench {
    ca: EmbeddedCa,
    answers: Answers,
    account: Account,
}

impl Bench {
    async fn new() -> Self {
        Self::with(|_| ()).await
    }

    async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let answers = Answers::default();
        let permitted = NAMES.map(|name| name.parse().unwrap()).to_vec();
        let mut settings = Settings::new(answers.serve().await, permitted);
        settings.root_lifetime = Duration::from_secs(200 * 24 * 3600);
        change(&mut settings);
        let ca = EmbeddedCa::start(settings).await.unwrap();
        let account = account(&ca).await.unwrap();
        Self { ca, answers, account }
    }

    async fn order(&self, names: &[&str], profile: Option<&str>) -> Result<Order, Error> {
        let identifiers = identifiers(names);
        let mut order = NewOrder::new(&identifiers);
        if let Some(profile) = profile {
            order = order.profile(profile);
        }
        self.account.new_order(&order).await
    }

    /// Puts the right answers at the gate and says so to the CA.
    async fn answer(&self, order: &mut Order) -> Result<(), Error> {
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            if authorization.status != AuthorizationStatus::Pending {
                continue;
            }
            let mut challenge = authorization.challenge(ChallengeType::Http01).unwrap();
            let host = challenge.identifier().to_string();
            self.answers.put(&host, &challenge.token, challenge.key_authorization().as_str());
            challenge.set_ready().await?;
        }
        Ok(())
    }

    async fn ready(&self, names: &[&str], profile: Option<&str>) -> Order {
        let mut order = self.order(names, profile).await.unwrap();
        self.answer(&mut order).await.unwrap();
        assert_eq!(order.poll_ready(&quickly()).await.unwrap(), OrderStatus::Ready);
        order
    }

    /// A whole issuance: the chain in PEM.
    async fn obtain(&self, names: &[&str], profile: Option<&str>) -> String {
        let mut order = self.ready(names, profile).await;
        order.finalize_csr(&csr(names, &KeyPair::generate().unwrap())).await.unwrap();
        order.poll_certificate(&quickly()).await.unwrap()
    }
}

async fn account(ca: &EmbeddedCa) -> Result<Account, Error> {
    let new = NewAccount {
        contact: &["mailto:ops@example.net"],
        terms_of_service_agreed: true,
        only_return_existing: false,
    };
    let builder = Account::builder_with_http(Box::new(Transport::new(ca)));
    Ok(builder.create(&new, ca.directory_url(), None).await?.0)
}

fn quickly() -> RetryPolicy {
    RetryPolicy::new().initial_delay(Duration::from_millis(5)).backoff(1.2).timeout(Duration::from_secs(30))
}

fn identifiers(names: &[&str]) -> Vec<Identifier> {
    names
        .iter()
        .map(|name| match name.parse() {
            Ok(address) => Identifier::Ip(address),
            Err(_) => Identifier::Dns((*name).to_owned()),
        })
        .collect()
}

fn csr(names: &[&str], key: &KeyPair) -> Vec<u8> {
    let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.serialize_request(key).unwrap().der().to_vec()
}

fn api_problem(error: Error) -> Problem {
    match error {
        Error::Api(problem) => problem,
        other => panic!("not a problem document: {other}"),
    }
}

fn kind(problem: &Problem) -> &str {
    problem.r#type.as_deref().unwrap().trim_start_matches("urn:ietf:params:acme:error:")
}

/// What OpenSSL says of a chain: whether it verifies, and its words.
fn openssl_verify(root: &str, chain: &str, extra: &[&str]) -> (bool, String) {
    let folder = TempDir::new().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (root, chain) = (write("root.pem", root), write("chain.pem", chain));
    let output = Command::new("openssl")
        .args(["verify", "-x509_strict", "-purpose", "sslserver", "-no-CApath", "-no-CAstore"])
        .args(extra)
        .args([Path::new("-CAfile"), &root, Path::new("-untrusted"), &chain, &chain])
        .output()
        .expect("openssl is installed");
    let words = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.success(), words.into_owned())
}

#[tokio::test]
async fn openssl_accepts_what_is_issued_and_nothing_beyond_the_permitted_names() {
    crate::bed::needs!("openssl");
    let bench = Bench::new().await;
    let chain = bench.obtain(&["a.example", "127.0.0.1", "::1"], None).await;
    for check in
        [["-verify_hostname", "a.example"], ["-verify_ip", "127.0.0.1"], ["-verify_ip", "0:0:0:0:0:0:0:1"]]
    {
        let (verifies, words) = openssl_verify(bench.ca.root_pem(), &chain, &check);
        assert!(verifies, "{check:?}: {words}");
    }
    let (verifies, words) = openssl_verify(bench.ca.root_pem(), &chain, &["-verify_hostname", "b.example"]);
    assert!(!verifies && words.contains("hostname mismatch"), "{words}");

    bench.ca.set_faults(Faults { chain: ChainFault::WrongName, ..Faults::default() });
    let (verifies, words) =
        openssl_verify(bench.ca.root_pem(), &bench.obtain(&["a.example"], None).await, &[]);
    assert!(!verifies && words.contains("permitted subtree violation"), "{words}");
}

#[tokio::test]
async fn openssl_tells_the_chain_faults() {
    crate::bed::needs!("openssl");
    let bench = Bench::new().await;
    for (chain, says) in [
        (ChainFault::MissingIntermediate, "unable to get local issuer certificate"),
        (ChainFault::Expired, "certificate has expired"),
        // The first certificate is then the intermediate, which is no server's.
        (ChainFault::ReversedOrder, "hostname mismatch"),
    ] {
        bench.ca.set_faults(Faults { chain, ..Faults::default() });
        let issued = bench.obtain(&["a.example"], None).await;
        let (verifies, words) =
            openssl_verify(bench.ca.root_pem(), &issued, &["-verify_hostname", "a.example"]);
        assert!(!verifies && words.contains(says), "{chain:?}: {words}");
    }
}

#[tokio::test]
async fn every_profile_is_offered_and_issued() {
    crate::bed::needs!("openssl");
    let bench = Bench::new().await;
    let offered: BTreeSet<_> = bench.account.profiles().map(|profile| profile.name.to_owned()).collect();
    assert_eq!(offered, EmbeddedCa::profiles().iter().map(|profile| profile.0.to_owned()).collect());
    for (name, lifetime, _) in EmbeddedCa::profiles() {
        let chain = bench.obtain(&["a.example"], Some(name)).await;
        let der = CertificateDer::from_pem_slice(chain.as_bytes()).unwrap();
        let (_, leaf) = X509Certificate::from_der(&der).unwrap();
        let validity = leaf.validity();
        let whole = validity.not_after.timestamp() - validity.not_before.timestamp() + 1;
        assert_eq!(whole, lifetime.as_secs().cast_signed(), "{name}");
        let (verifies, words) = openssl_verify(bench.ca.root_pem(), &chain, &[]);
        assert!(verifies, "{name}: {words}");
    }
    let identifiers = identifiers(&["a.example"]);
    // instant-acme itself refuses a profile that the directory lacks, or the CA does.
    assert!(bench.account.new_order(&NewOrder::new(&identifiers).profile("hours")).await.is_err());
}

#[tokio::test]
async fn a_hundred_names_pass_openssl_and_webpki() {
    crate::bed::needs!("openssl");
    let names: Vec<_> = (0..100).map(|n| format!("n{n}.example")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let permitted = names.iter().map(|name| name.parse().unwrap()).collect();
    let bench = Bench::with(|settings| settings.permitted = permitted).await;
    let pem = bench.obtain(&names, Some("minutes")).await;
    let (verifies, words) = openssl_verify(bench.ca.root_pem(), &pem, &["-verify_hostname", "n99.example"]);
    assert!(verifies, "{words}");

    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(bench.ca.root_pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes()).map(Result::unwrap).collect();
    let verify = |name: &'static str| {
        verifier.verify_server_cert(&chain[0], &chain[1..], &name.try_into().unwrap(), &[], UnixTime::now())
    };
    assert!(verify("n0.example").is_ok());
    assert!(verify("n100.example").is_err());
}

#[tokio::test]
async fn an_rsa_key_is_certified_too() {
    crate::bed::needs!("openssl");
    let bench = Bench::new().await;
    let mut order = bench.ready(&["a.example"], None).await;
    let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    order.finalize_csr(&csr(&["a.example"], &key)).await.unwrap();
    let chain = order.poll_certificate(&quickly()).await.unwrap();
    let (verifies, words) = openssl_verify(bench.ca.root_pem(), &chain, &[]);
    assert!(verifies, "{words}");
}

#[tokio::test]
async fn a_wrong_key_authorization_is_unauthorized() {
    let bench = Bench::new().await;
    let mut order = bench.order(&["a.example"], None).await.unwrap();
    {
        let mut authorizations = order.authorizations();
        let mut authorization = authorizations.next().await.unwrap().unwrap();
        let mut challenge = authorization.challenge(ChallengeType::Http01).unwrap();
        bench.answers.put("a.example", &challenge.token, "someone else's");
        challenge.set_ready().await.unwrap();
    }
    let problem = refused(&mut order).await;
    assert_eq!(kind(&problem), "unauthorized");
    let detail = problem.detail.unwrap();
    assert!(detail.contains("http://a.example/.well-known/acme-challenge/"), "{detail}");
    assert!(detail.contains(r#"got "someone else\'s""#), "{detail}");
}

#[tokio::test]
async fn an_unanswered_challenge_tells_the_status_and_the_body() {
    let bench = Bench::new().await;
    let mut order = bench.order(&["127.0.0.1"], None).await.unwrap();
    {
        let mut authorizations = order.authorizations();
        let mut authorization = authorizations.next().await.unwrap().unwrap();
        authorization.challenge(ChallengeType::Http01).unwrap().set_ready().await.unwrap();
    }
    let problem = refused(&mut order).await;
    assert_eq!(kind(&problem), "unauthorized");
    let detail = problem.detail.unwrap();
    assert!(detail.contains("404") && detail.contains("\"nothing here\""), "{detail}");
}

#[tokio::test]
async fn a_closed_gate_is_a_connection_problem() {
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
    let bench = Bench::with(|settings| settings.gate = closed).await;
    let mut order = bench.order(&["a.example"], None).await.unwrap();
    bench.answer(&mut order).await.unwrap();
    let problem = refused(&mut order).await;
    assert_eq!(kind(&problem), "connection");
    assert!(problem.detail.unwrap().ends_with("Connection refused"));
}

/// Waits for an order to fail and takes the reason from its only challenge, as with Let's Encrypt.
async fn refused(order: &mut Order) -> Problem {
    assert_eq!(order.poll_ready(&quickly()).await.unwrap(), OrderStatus::Invalid);
    let mut authorizations = order.authorizations();
    let mut authorization = authorizations.next().await.unwrap().unwrap();
    let state = authorization.refresh().await.unwrap();
    assert_eq!(state.status, AuthorizationStatus::Invalid);
    state.challenges[0].error.clone().unwrap()
}

#[tokio::test]
async fn a_name_outside_the_permitted_ones_is_rejected() {
    let bench = Bench::new().await;
    for name in ["c.example", "x.a.example", "192.0.2.1", "*.a.example"] {
        let Err(error) = bench.order(&[name], None).await else { panic!("{name} was accepted") };
        assert_eq!(kind(&api_problem(error)), "rejectedIdentifier", "{name}");
    }
}

#[tokio::test]
async fn a_patient_client_survives_bad_nonces() {
    let bench = Bench::with(|settings| {
        settings.faults = Faults { bad_nonce_percent: 0, ..Faults::default() };
    })
    .await;
    bench.ca.set_faults(Faults { bad_nonce_percent: 50, seed: 3, ..Faults::default() });
    // instant-acme tries three times by itself; one in eight calls fails nevertheless.
    macro_rules! patiently {
        ($call:expr) => {
            loop {
                match $call {
                    Ok(value) => break value,
                    Err(error) => assert_eq!(kind(&api_problem(error)), "badNonce"),
                }
            }
        };
    }
    for _ in 0..10 {
        let mut order = patiently!(bench.order(&["a.example", "b.example"], Some("minutes")).await);
        patiently!(bench.answer(&mut order).await);
        let status = patiently!(order.poll_ready(&quickly()).await);
        assert_eq!(status, OrderStatus::Ready);
        let key = KeyPair::generate().unwrap();
        patiently!(order.finalize_csr(&csr(&["a.example", "b.example"], &key)).await);
        let chain = patiently!(order.poll_certificate(&quickly()).await);
        assert!(chain.starts_with("-----BEGIN CERTIFICATE-----"));
    }
}

#[tokio::test]
async fn processing_takes_as_long_as_it_was_told() {
    let bench = Bench::new().await;
    bench.ca.set_faults(Faults { processing: Duration::from_millis(300), ..Faults::default() });
    let mut order = bench.ready(&["a.example"], None).await;
    order.finalize_csr(&csr(&["a.example"], &KeyPair::generate().unwrap())).await.unwrap();
    assert_eq!(order.state().status, OrderStatus::Processing);
    assert!(order.poll_certificate(&quickly()).await.unwrap().contains("BEGIN CERTIFICATE"));

    bench.ca.set_faults(Faults { order_error: Some(ProblemType::Caa), ..Faults::default() });
    let mut order = bench.ready(&["b.example"], None).await;
    order.finalize_csr(&csr(&["b.example"], &KeyPair::generate().unwrap())).await.unwrap();
    assert_eq!(order.state().status, OrderStatus::Invalid);
    assert_eq!(kind(order.state().error.as_ref().unwrap()), "caa");
}

#[tokio::test]
async fn answers_go_wrong_where_they_are_told_to() {
    let bench = Bench::new().await;
    let scope = AnswerScope::Path("/directory");
    for answer in [AnswerFault::Garbage, AnswerFault::Html, AnswerFault::Redirect, AnswerFault::Endless] {
        bench.ca.set_faults(Faults { answer, answer_scope: scope, ..Faults::default() });
        assert!(account(&bench.ca).await.is_err(), "{answer:?}");
        // Nothing else is touched.
        assert!(bench.order(&["a.example"], None).await.is_ok(), "{answer:?}");
    }
    bench.ca.set_faults(Faults { answer: AnswerFault::Hang, ..Faults::default() });
    let hangs = tokio::time::timeout(Duration::from_millis(200), account(&bench.ca)).await;
    assert!(hangs.is_err());
    bench.ca.set_faults(Faults::default());
    assert!(account(&bench.ca).await.is_ok());
}

#[tokio::test]
async fn the_api_speaks_both_versions_and_bounds_what_it_reads() {
    let bench = Bench::new().await;
    let http1 = HttpsConnectorBuilder::new().with_tls_config(tls(bench.ca.root_pem())).https_only();
    let http1: Client<_, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).build(http1.enable_http1().build());
    let http2 = HttpsConnectorBuilder::new().with_tls_config(tls(bench.ca.root_pem())).https_only();
    let http2: Client<_, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).http2_only(true).build(http2.enable_http2().build());
    let url = bench.ca.directory_url();
    for (client, version) in [(http1, http::Version::HTTP_11), (http2, http::Version::HTTP_2)] {
        let ask = |method: Method, url: &str, body: Vec<u8>| {
            client.request(Request::builder().method(method).uri(url).body(Full::from(body)).unwrap())
        };
        let response = ask(Method::GET, &url, vec![]).await.unwrap();
        assert_eq!((response.status(), response.version()), (StatusCode::OK, version));
        let response = ask(Method::HEAD, &url.replace("directory", "new-nonce"), vec![]).await.unwrap();
        assert!(response.headers().contains_key("replay-nonce"));
        assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty());
        let new_order = url.replace("directory", "new-order");
        let response = ask(Method::POST, &new_order, vec![b' '; (64 << 10) + 1]).await.unwrap();
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }
}

#[tokio::test]
async fn a_stranger_does_not_trust_the_api() {
    let bench = Bench::new().await;
    let other = Bench::new().await;
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls(other.ca.root_pem())).https_only();
    let client: Client<_, Empty<Bytes>> =
        Client::builder(TokioExecutor::new()).build(connector.enable_http1().build());
    assert!(client.get(bench.ca.directory_url().parse().unwrap()).await.is_err());
}

/// A port that was free a moment ago.
async fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn caddy_obtains_a_certificate() {
    crate::bed::needs!("caddy", "openssl");
    let (http_port, https_port) = (free_port().await, free_port().await);
    let gate = (Ipv4Addr::LOCALHOST, http_port).into();
    let ca = EmbeddedCa::start(Settings::new(gate, vec!["a.example".parse().unwrap()])).await.unwrap();
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("root.pem"), ca.root_pem()).unwrap();
    let caddyfile = format!(
        "{{\n admin off\n skip_install_trust\n http_port {http_port}\n https_port {https_port}\n \
         email ops@example.net\n acme_ca {}\n acme_ca_root {}\n storage file_system {}\n}}\n\
         a.example {{\n bind 127.0.0.1\n tls {{\n issuer acme {{\n disable_tlsalpn_challenge\n }}\n }}\n \
         respond hello\n}}\n",
        ca.directory_url(),
        path("root.pem"),
        path("storage"),
    );
    std::fs::write(path("Caddyfile"), caddyfile).unwrap();
    let log = std::fs::File::create(path("log")).unwrap();
    let _caddy = tokio::process::Command::new("caddy")
        .args(["run", "--adapter", "caddyfile", "--config", &path("Caddyfile")])
        .env("HOME", folder.path())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .expect("caddy is installed");

    let directory = ca.directory_url();
    let issuer = directory.trim_start_matches("https://").replace([':', '/'], "-");
    let certificate = path(&format!("storage/certificates/{issuer}/a.example/a.example.crt"));
    let found = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            match std::fs::read_to_string(&certificate) {
                Ok(chain) if !chain.is_empty() => break chain,
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    });
    let Ok(chain) = found.await else {
        panic!("no {certificate}: {}", std::fs::read_to_string(path("log")).unwrap())
    };
    let (verifies, words) = openssl_verify(ca.root_pem(), &chain, &["-verify_hostname", "a.example"]);
    assert!(verifies, "{words}");
}
