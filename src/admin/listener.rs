//! The listener for everybody who may reach it: metrics, health and the status page. It only tells.

use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderName, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};

use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::overview::Overview;
use super::{metrics, page};
use crate::net::accept::{accept_loop, watch};
use crate::net::drain::Stop;
use crate::net::early::EarlyStream;

/// Connections at once; who comes beyond them is turned away.
const CONNECTIONS: usize = 64;
/// For a request's header to arrive.
const HEADER_TIME: Duration = Duration::from_secs(10);
/// A connection's longest life: a scraper comes again.
const LIFE: Duration = Duration::from_secs(300);
/// Of headers, at most so many bytes; the parser wants room for one piece of input.
const MAX_HEADER: usize = 8 * 1024;

/// Answers until the stop, on the keeper's thread.
pub(super) async fn serve(listener: std::net::TcpListener, look: Rc<dyn Fn() -> Overview>, stop: Stop) {
    let listener = match watch(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the status page cannot be served"),
    };
    // Where only this machine is to see it, a page from elsewhere shall not have a browser here fetch it under a name of
    // its own (DNS rebinding).
    let is_local = listener.get_ref().local_addr().is_ok_and(|address| address.ip().is_loopback());
    let places = Rc::new(Semaphore::new(CONNECTIONS));
    let policy = Rc::new(policy());
    let on = move |stream, _| {
        let (look, places, policy) = (look.clone(), places.clone(), policy.clone());
        tokio::task::spawn_local(async move {
            let Ok(_place) = places.try_acquire() else { return };
            // Cut off, should it never end.
            let _ = timeout(LIFE, converse(EarlyStream::Early(stream), &look, &policy, is_local)).await;
        });
    };
    accept_loop(listener, stop, on, || {}).await;
}

async fn converse(
    stream: EarlyStream,
    look: &Rc<dyn Fn() -> Overview>,
    policy: &HeaderValue,
    is_local: bool,
) {
    let service = service_fn(|request: Request<hyper::body::Incoming>| {
        let response = if is_local && !names_this_machine(request.headers().get(HOST)) {
            let text = "this is told under an address or as localhost only\n".to_owned();
            response(StatusCode::MISDIRECTED_REQUEST, PLAIN, text, policy)
        } else {
            answer(request.method(), request.uri().path(), &**look, policy)
        };
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(MAX_HEADER)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection to the status page broke");
    }
}

const PLAIN: &str = "text/plain; charset=utf-8";

/// Whether a `Host` is an address, `localhost` or missing: then no name that somebody else has made lead here.
fn names_this_machine(host: Option<&HeaderValue>) -> bool {
    let Some(host) = host else { return true };
    let Ok(host) = host.to_str() else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<std::net::IpAddr>().is_ok()
}

fn answer(
    method: &Method,
    path: &str,
    look: &dyn Fn() -> Overview,
    policy: &HeaderValue,
) -> Response<Full<Bytes>> {
    if ![Method::GET, Method::HEAD].contains(method) {
        let mut refused =
            response(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "this only tells\n".to_owned(), policy);
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match path {
        "/" => response(StatusCode::OK, "text/html; charset=utf-8", page::page(&look()), policy),
        "/metrics" => response(StatusCode::OK, metrics::CONTENT_TYPE, metrics::text(&look()), policy),
        "/healthz" => response(StatusCode::OK, PLAIN, "ok\n".to_owned(), policy),
        "/readyz" => {
            let amiss = look().amiss();
            let status = if amiss.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            let text = if amiss.is_empty() { "ready\n".to_owned() } else { amiss.join("\n") + "\n" };
            response(status, PLAIN, text, policy)
        }
        _ => response(
            StatusCode::NOT_FOUND,
            PLAIN,
            "there is /, /metrics, /healthz and /readyz\n".to_owned(),
            policy,
        ),
    }
}

fn response(
    status: StatusCode,
    kind: &'static str,
    body: String,
    policy: &HeaderValue,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let fixed: [(HeaderName, &str); 4] = [
        (CONTENT_TYPE, kind),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
    ];
    for (name, value) in fixed {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy.clone());
    response
}

/// Nothing but the page itself and its own style.
fn policy() -> HeaderValue {
    let style = STANDARD.encode(digest(&SHA256, page::STYLE.as_bytes()));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    HeaderValue::from_str(&policy).expect("visible ASCII")
}
