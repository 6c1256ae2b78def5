//! The HTTP client under the ACME library: everything bounded, everything explained.
//!
//! The library collects bodies without a limit and waits for ever; here a connect and a total deadline,
//! a cap on the body and a look at the content type stand before it. The transport also remembers each
//! answer's Retry-After and the directory, which the library keeps to itself, and reads refusals with
//! more patience than the library has.

use std::cell::Cell;
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, LOCATION, RETRY_AFTER, USER_AGENT};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient, Problem};
use rustls::pki_types::CertificateDer;
use tokio::net::TcpStream;
use tower_service::Service;

use super::account_key::AccountKey;
use super::directory::Directory;
use super::problem::{is_bad_nonce_problem, read_problem};
use crate::clock;
use crate::words::printable;

/// Names the program, its version and where to complain about it (RFC 8555 section 6.1).
const AGENT: &str =
    concat!("wicketgate/", env!("CARGO_PKG_VERSION"), " (+", env!("CARGO_PKG_REPOSITORY"), ")");

/// To reach the CA or the proxy, names resolved, before TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// From a request's start to its answer's last byte.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(45);
/// Longest answer, bytes: a chain of a hundred names is below 20 kB.
const BODY_LIMIT: usize = 1 << 20;
/// URLs whose Retry-After is remembered at once.
const REMEMBERED: usize = 1024;

tokio::task_local! {
    /// The URL of what a request has made at the CA, for who asks within this scope: the library keeps it to
    /// itself where it is not content with the answer.
    static CREATED: Cell<Option<String>>;
}

/// Awaits a request of the library's, and tells the URL of what it has made at the CA, whatever the library
/// thinks of the answer.
pub(super) async fn noting_url<T>(request: impl Future<Output = T>) -> (T, Option<String>) {
    let noted = async {
        let answer = request.await;
        (answer, CREATED.with(Cell::take))
    };
    CREATED.scope(Cell::default(), noted).await
}

/// Why a request to the CA got no usable answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum TransportError {
    #[error("no answer from {host} within {} s: is it up, and may this machine reach it", TOTAL_TIMEOUT.as_secs())]
    Timeout { host: String },
    #[error("cannot reach {host}: {reason}{}", connect_remedy(reason))]
    Connect { host: String, reason: String },
    #[error(
        "{host} sent an answer of more than {BODY_LIMIT} bytes, which no ACME server does: is the directory URL right"
    )]
    TooLarge { host: String },
    #[error("the answer from {host} broke off: {reason}")]
    Broken { host: String, reason: String },
    #[error("{}", problem.detail.as_deref().unwrap_or("no detail given"))]
    Problem { problem: Problem, status: u16, wait: Option<SystemTime> },
    #[error("{url} answered {status}{}", not_acme_remedy(*status))]
    Refused { url: String, status: u16, wait: Option<SystemTime> },
    #[error("{url} redirects to `{to}`: configure that address as the issuer if it is the CA's")]
    Redirect { url: String, to: String },
    #[error("{url} answered {status} with {kind} in place of an ACME document{}", not_acme_remedy(*status))]
    NotAcme { url: String, status: u16, wait: Option<SystemTime>, kind: String },
    #[error("`{url}` is no URL that can be asked")]
    Url { url: String },
    #[error("the request to {url} could not be signed with the account's key")]
    Unsigned { url: String },
}

fn connect_remedy(reason: &str) -> &'static str {
    if reason.contains("UnknownIssuer") {
        "; its certificate is not from a public CA: put the root it comes from into `acme.roots`"
    } else if reason.contains("CaUsedAsEndEntity") {
        "; it shows a CA's certificate as its own: it needs one that was signed for its name, and `acme.roots` the root of that"
    } else if reason.contains("certificate") {
        "; is something between this machine and the CA, or is this machine's clock wrong"
    } else {
        "; is the CA up, and may this machine reach it (HTTPS_PROXY is honoured)"
    }
}

fn not_acme_remedy(status: u16) -> &'static str {
    match status {
        429 => ": too many requests, and waiting is the only remedy",
        500.. => ": the CA has trouble of its own",
        _ => ": is the issuer's directory URL right",
    }
}

/// A bounded HTTP client for one issuer. Clones share one connection pool.
#[derive(Clone)]
pub(super) struct Transport {
    client: Client<HttpsConnector<Connector>, BodyWrapper<Bytes>>,
    passed_by: Arc<Mutex<PassedBy>>,
    /// Signs in the place of the library, whose key is a stand-in.
    key: Option<Arc<AccountKey>>,
}

/// What the library's answers said besides what it looks at.
#[derive(Default)]
struct PassedBy {
    waits: HashMap<String, SystemTime>,
    directory: Directory,
}

impl Transport {
    /// A client that trusts the public roots and `roots`, and goes through the proxy that HTTPS_PROXY and
    /// NO_PROXY name, unless `direct`.
    pub(super) fn new(roots: &[CertificateDer<'static>], direct: bool) -> Self {
        let mut store = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        store.add_parsable_certificates(roots.iter().cloned());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider supports TLS 1.2 and 1.3")
            .with_root_certificates(store)
            .with_no_client_auth();
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_only()
            .enable_http1()
            .enable_http2()
            .wrap_connector(Connector::new(direct));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .build(connector);
        Self { client, passed_by: Arc::default(), key: None }
    }

    /// The same client, for an account whose key the library cannot sign with.
    pub(super) fn signing_with(self, key: Option<AccountKey>) -> Self {
        Self { key: key.map(Arc::new), ..self }
    }

    /// The account's key, where it is not the library's.
    pub(super) fn key(&self) -> Option<&AccountKey> {
        self.key.as_deref()
    }

    /// The moment that the last answer from `url` asked to wait for; forgotten once told.
    pub(super) fn take_wait(&self, url: &str) -> Option<SystemTime> {
        self.lock().waits.remove(url)
    }

    /// The issuer's directory, as it was last read.
    pub(super) fn directory(&self) -> Directory {
        self.lock().directory.clone()
    }

    /// Asks without a signature. The answer's body, and the moment of its Retry-After.
    pub(super) async fn get(&self, url: String) -> Result<(Bytes, Option<SystemTime>), TransportError> {
        let request = Request::get(&url).body(BodyWrapper::default());
        let request = request.map_err(|_| TransportError::Url { url: printable(&url, 200) })?;
        let (parts, body) = self.exchange(request).await?;
        Ok((body, wait_of(&parts)))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, PassedBy> {
        self.passed_by.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn remember_wait(&self, url: &str, wait: Option<SystemTime>) {
        let waits = &mut self.lock().waits;
        match wait {
            Some(wait) if waits.len() < REMEMBERED => {
                waits.insert(url.to_owned(), wait);
            }
            _ => {
                waits.remove(url);
            }
        }
    }

    /// One request of the library's.
    async fn send(self, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, TransportError> {
        let (url, is_get) = (request.uri().to_string(), request.method() == Method::GET);
        let request = self.signed(request).await?;
        let (mut parts, body) = self.exchange(request).await?;
        self.remember_wait(&url, wait_of(&parts));
        // The library adds any number of seconds to the present, which a large one would not survive.
        parts.headers.remove(RETRY_AFTER);
        if parts.status == StatusCode::CREATED
            && let Some(created) = parts.headers.get(LOCATION).and_then(|v| v.to_str().ok())
        {
            // Nobody may want to know.
            let _ = CREATED.try_with(|url| url.set(Some(created.to_owned())));
        }
        if is_get && let Some(directory) = Directory::parse(&body) {
            self.lock().directory = directory;
        }
        Ok(BytesResponse::from(Response::from_parts(parts, Full::new(body))))
    }

    /// The request as the account signs it.
    async fn signed(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Result<Request<BodyWrapper<Bytes>>, TransportError> {
        let Some(key) = self.key.as_ref().filter(|_| request.method() == Method::POST) else {
            return Ok(request);
        };
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        match key.sign_again(&body) {
            Some(body) => Ok(Request::from_parts(parts, BodyWrapper::from(body))),
            None => Err(TransportError::Unsigned { url: printable(&parts.uri.to_string(), 200) }),
        }
    }

    /// One request and its answer. Refusals are errors, but for a refused nonce: the library tries again.
    async fn exchange(
        &self,
        mut request: Request<BodyWrapper<Bytes>>,
    ) -> Result<(http::response::Parts, Bytes), TransportError> {
        let url = request.uri().to_string();
        let is_signed = request.method() == Method::POST;
        let host = request.uri().authority().map_or_else(|| url.clone(), ToString::to_string);
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(AGENT));
        let answer = async {
            let response = self
                .client
                .request(request)
                .await
                .map_err(|e| TransportError::Connect { host: host.clone(), reason: root_cause(&e) })?;
            let (parts, body) = response.into_parts();
            match Limited::new(body, BODY_LIMIT).collect().await {
                Ok(body) => Ok((parts, body.to_bytes())),
                Err(e) if e.is::<http_body_util::LengthLimitError>() => {
                    Err(TransportError::TooLarge { host: host.clone() })
                }
                Err(e) => Err(TransportError::Broken { host: host.clone(), reason: root_cause(&*e) }),
            }
        };
        let (parts, body) = tokio::time::timeout(TOTAL_TIMEOUT, answer)
            .await
            .map_err(|_| TransportError::Timeout { host: host.clone() })??;
        check(&url, &parts, &body)?;
        if parts.status.is_success() {
            return Ok((parts, body));
        }
        let (status, wait) = (parts.status.as_u16(), wait_of(&parts));
        match read_problem(&body) {
            Some(problem) if is_signed && is_bad_nonce_problem(&problem) => Ok((parts, body)),
            Some(problem) => Err(TransportError::Problem { problem, status, wait }),
            None => Err(TransportError::Refused { url, status, wait }),
        }
    }
}

/// The moment that an answer's Retry-After names.
pub(super) fn wait_of(parts: &http::response::Parts) -> Option<SystemTime> {
    let value = parts.headers.get(RETRY_AFTER)?.to_str().ok()?;
    retry_after(value, clock::now())
}

/// Whether an answer can be an ACME server's: JSON, a problem document, a chain, or empty.
pub(super) fn check(url: &str, parts: &http::response::Parts, body: &[u8]) -> Result<(), TransportError> {
    if parts.status.is_redirection() {
        let to = parts.headers.get(LOCATION).map_or("", |v| v.to_str().unwrap_or("(unreadable)"));
        return Err(TransportError::Redirect { url: url.to_owned(), to: printable(to, 200) });
    }
    let kind = parts.headers.get(CONTENT_TYPE).map_or("", |v| v.to_str().unwrap_or("(unreadable)"));
    let expected = kind.contains("json") || kind.starts_with("application/pem-certificate-chain");
    if body.is_empty() || expected {
        return Ok(());
    }
    let kind = match kind {
        "" => "content of no declared type".to_owned(),
        kind if kind.starts_with("text/html") => "an HTML page".to_owned(),
        kind => format!("`{}`", printable(kind, 80)),
    };
    let (status, wait) = (parts.status.as_u16(), wait_of(parts));
    Err(TransportError::NotAcme { url: url.to_owned(), status, wait, kind })
}

/// Retry-After as a moment: seconds from `now`, or an HTTP date (RFC 9110 section 10.2.3).
fn retry_after(value: &str, now: SystemTime) -> Option<SystemTime> {
    match value.trim().parse::<u32>() {
        Ok(seconds) => Some(now + Duration::from_secs(seconds.into())),
        Err(_) => httpdate::parse_http_date(value.trim()).ok(),
    }
}

/// The innermost cause, which is the one that tells something.
pub(crate) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

impl HttpClient for Transport {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let sent = self.clone().send(request);
        Box::pin(async move { sent.await.map_err(|e| Error::Other(Box::new(e))) })
    }
}

/// Connects straight, or through the proxy that the environment names for the destination.
#[derive(Clone)]
pub(crate) struct Connector {
    tcp: HttpConnector,
    proxies: Arc<Matcher>,
}

impl Connector {
    /// Honours HTTPS_PROXY and NO_PROXY, unless `direct`.
    pub(crate) fn new(direct: bool) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let proxies = Arc::new(if direct { Matcher::builder().build() } else { Matcher::from_env() });
        Self { tcp, proxies }
    }
}

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, destination: Uri) -> Self::Future {
        let Some(proxy) = self.proxies.intercept(&destination) else {
            let connecting = self.tcp.call(destination);
            return Box::pin(async move { connecting.await.map_err(Into::into) });
        };
        let mut tunnel = Tunnel::new(proxy.uri().clone(), self.tcp.clone());
        if let Some(credentials) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(credentials.clone());
        }
        let name = proxy.uri().authority().map(|a| a.host().to_owned()).unwrap_or_default();
        Box::pin(async move {
            tunnel.call(destination).await.map_err(|e| format!("through the proxy {name}: {e}").into())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_in_both_forms() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        for (value, seconds) in [
            ("0", Some(0)),
            (" 120 ", Some(120)),
            ("Mon, 12 Jan 1970 13:46:50 GMT", Some(10)),
            ("-1", None),
            ("soon", None),
            ("", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(retry_after(value, now), seconds.map(|s| now + Duration::from_secs(s)), "{value}");
        }
    }

    #[test]
    fn what_no_acme_server_sends_is_named() {
        let parts = |status: u16, headers: &[(&str, &str)]| {
            let mut builder = Response::builder().status(status);
            for (name, value) in headers {
                builder = builder.header(*name, *value);
            }
            builder.body(()).unwrap().into_parts().0
        };
        let json = [("content-type", "application/json; charset=utf-8")];
        assert!(check("u", &parts(200, &json), b"{}").is_ok());
        assert!(check("u", &parts(400, &[("content-type", "application/problem+json")]), b"{}").is_ok());
        assert!(check("u", &parts(204, &[]), b"").is_ok());
        let told = |status, headers: &[(&str, &str)]| {
            check("https://ca/d", &parts(status, headers), b"x").unwrap_err().to_string()
        };
        assert_eq!(
            told(200, &[("content-type", "text/html; charset=utf-8")]),
            "https://ca/d answered 200 with an HTML page in place of an ACME document: is the issuer's directory URL right"
        );
        assert!(told(503, &[]).contains("answered 503 with content of no declared type"));
        assert!(told(302, &[("location", "ftp://\u{fc}")]).contains("redirects to `(unreadable)`"));
        assert!(told(301, &[("location", "https://other/d")]).contains("redirects to `https://other/d`"));
    }
}
