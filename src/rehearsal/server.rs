//! The embedded CA's network side: TLS, HTTP/1.1 and HTTP/2 within time and size limits, and the
//! actions that the protocol asks for.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::clock;

use super::authority::ApiCredentials;
use super::ca::{Action, Ask, Ca};
use super::faults::AnswerFault;
use super::problem::Problem;
use super::reply::Reply;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// For the first request's header after the handshake, and for each body.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Without a request on its way; a later request's header counts as idling.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// For the rest of an answer, once a connection is to be closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_CONNECTIONS: usize = 256;
const MAX_BODY: usize = 64 * 1024;
const MAX_HEADER: usize = 16 * 1024;

const UNREADABLE: &str = "the body could not be read";

/// What all connections share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) ca: Arc<Mutex<Ca>>,
    pub(super) gate: SocketAddr,
    /// Closed when the CA is dropped.
    pub(super) stop: watch::Receiver<()>,
}

/// The CA, whatever became of the last one who held it: each step leaves it whole.
pub(super) fn lock(ca: &Mutex<Ca>) -> MutexGuard<'_, Ca> {
    ca.lock().unwrap_or_else(PoisonError::into_inner)
}

/// TLS 1.2 and 1.3 with the API's certificate.
pub(super) fn acceptor(credentials: ApiCredentials) -> Result<TlsAcceptor, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(credentials.chain, credentials.key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Accepts until the CA is dropped.
pub(super) async fn run(listener: TcpListener, acceptor: TlsAcceptor, shared: Shared) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut stop = shared.stop.clone();
    let accept = async {
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, client)) => {
                    let (acceptor, shared) = (acceptor.clone(), shared.clone());
                    tokio::spawn(async move {
                        let mut stop = shared.stop.clone();
                        tokio::select! {
                            () = connection(stream, client, acceptor, shared) => {}
                            () = stopped(&mut stop) => {}
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the embedded CA can't accept a connection");
                    // Out of descriptors, most likely: some are about to come back.
                    sleep(Duration::from_millis(50)).await;
                }
            }
        }
    };
    tokio::select! {
        () = accept => {}
        () = stopped(&mut stop) => {}
    }
}

async fn stopped(stop: &mut watch::Receiver<()>) {
    while stop.changed().await.is_ok() {}
}

async fn connection(stream: TcpStream, client: SocketAddr, acceptor: TlsAcceptor, shared: Shared) {
    // Small answers that wait for nothing; where it can't be set they are only later.
    let _ = stream.set_nodelay(true);
    let stream = match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%client, %error, "the embedded CA's TLS handshake failed");
            return;
        }
        Err(_) => {
            tracing::debug!(%client, "the embedded CA's TLS handshake took too long");
            return;
        }
    };
    let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let (busy, requests) = watch::channel(0_usize);
    let busy = Arc::new(busy);
    let service = service_fn(move |request| {
        let (shared, request_is_here) = (shared.clone(), Busy::new(busy.clone()));
        async move {
            let response = respond(&shared, request).await;
            drop(request_is_here);
            Ok::<_, Infallible>(response)
        }
    });
    let io = TokioIo::new(stream);
    let result = if h2 {
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(64)
            .max_header_list_size(MAX_HEADER as u32)
            .serve_connection(io, service);
        limited(connection, requests).await
    } else {
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE_TIMEOUT)
            .max_buf_size(MAX_HEADER)
            .serve_connection(io, service);
        limited(connection, requests).await
    };
    if let Err(error) = result {
        tracing::debug!(%client, %error, "the embedded CA's connection ended early");
    }
}

/// A connection that can be told to finish.
trait Closing: Future<Output = hyper::Result<()>> {
    fn close(self: Pin<&mut Self>);
}

impl<S: hyper::service::HttpService<Incoming, ResBody = AnswerBody, Error = Infallible>> Closing
    for http1::Connection<Io, S>
{
    fn close(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<S> Closing for http2::Connection<Io, S, TokioExecutor>
where
    S: hyper::service::HttpService<Incoming, ResBody = AnswerBody, Error = Infallible>,
    S::Future: Send + 'static,
{
    fn close(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

type Io = TokioIo<tokio_rustls::server::TlsStream<TcpStream>>;

/// Serves until the peer leaves or idles too long.
async fn limited(connection: impl Closing, requests: watch::Receiver<usize>) -> hyper::Result<()> {
    let mut connection = pin!(connection);
    tokio::select! {
        result = &mut connection => return result,
        () = idled(requests) => {}
    }
    connection.as_mut().close();
    timeout(CLOSE_TIMEOUT, connection).await.unwrap_or(Ok(()))
}

/// Returns when no request is under way for too long.
async fn idled(mut requests: watch::Receiver<usize>) {
    let mut limit = REQUEST_TIMEOUT;
    loop {
        if *requests.borrow_and_update() > 0 {
            if requests.changed().await.is_err() {
                return;
            }
        } else if !matches!(timeout(limit, requests.changed()).await, Ok(Ok(()))) {
            return;
        }
        limit = IDLE_TIMEOUT;
    }
}

/// Counts a request while it is answered.
struct Busy(Arc<watch::Sender<usize>>);

impl Busy {
    fn new(requests: Arc<watch::Sender<usize>>) -> Self {
        requests.send_modify(|count| *count += 1);
        Self(requests)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

async fn respond(shared: &Shared, request: Request<Incoming>) -> Response<AnswerBody> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let body = match timeout(REQUEST_TIMEOUT, Limited::new(body, MAX_BODY).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let problem = Problem::malformed(format!("the body has more than {MAX_BODY} bytes"));
            return http(Reply::problem(&problem.with_status(StatusCode::PAYLOAD_TOO_LARGE)));
        }
        Ok(Err(_)) => return http(Reply::problem(&Problem::malformed(UNREADABLE))),
        Err(_) => {
            let problem = Problem::malformed(UNREADABLE).with_status(StatusCode::REQUEST_TIMEOUT);
            return http(Reply::problem(&problem));
        }
    };
    let fault = lock(&shared.ca).meet(path);
    if let Some(response) = faulty(fault).await {
        return response;
    }
    let ask = Ask {
        method: &parts.method,
        path,
        content_type: parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()),
        body: &body,
    };
    let (reply, action) = lock(&shared.ca).handle(ask, clock::now());
    tracing::debug!(method = %parts.method, path, status = reply.status.as_u16(), "the embedded CA answers");
    if let Some(action) = action {
        perform(action, shared.clone());
    }
    http(reply)
}

/// Does what the protocol asked for, beside the answer.
fn perform(action: Action, mut shared: Shared) {
    tokio::spawn(async move {
        let done = async {
            match action {
                Action::Validate { authorization, attempt, plan } => {
                    let result = attempt.run(shared.gate, plan).await;
                    lock(&shared.ca).validated(authorization, result, clock::now());
                }
                Action::Issue { order, after } => {
                    sleep(after).await;
                    lock(&shared.ca).issue(order, clock::now());
                }
            }
        };
        tokio::select! {
            () = done => {}
            () = stopped(&mut shared.stop) => {}
        }
    });
}

fn http(reply: Reply) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::Whole(reply.body));
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    response
}

async fn faulty(fault: AnswerFault) -> Option<Response<AnswerBody>> {
    let (content_type, body) = match fault {
        // A status is told by the protocol itself, with a nonce.
        AnswerFault::None | AnswerFault::Status(..) => return None,
        AnswerFault::Hang => return std::future::pending().await,
        AnswerFault::Redirect => {
            let mut response = Response::new(AnswerBody::Whole(Bytes::new()));
            *response.status_mut() = StatusCode::FOUND;
            let elsewhere = HeaderValue::from_static("https://elsewhere.invalid/directory");
            response.headers_mut().insert(LOCATION, elsewhere);
            return Some(response);
        }
        AnswerFault::Garbage => {
            ("application/json", AnswerBody::Whole(Bytes::from_static(b"\x00\xff{\"\xc3\x28garbage\x1b[31m")))
        }
        AnswerFault::BrokenJson => (
            "application/json",
            AnswerBody::Whole(Bytes::from_static(br#"{"suggestedWindow":{"start":"2027-01-15T08:00:00Z","#)),
        ),
        AnswerFault::Html => (
            "text/html",
            AnswerBody::Whole(Bytes::from_static(
                b"<!DOCTYPE html><title>Sign in</title><p>Please sign in to use this network.\n",
            )),
        ),
        AnswerFault::Endless => ("application/json", AnswerBody::Endless),
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    Some(response)
}

/// An answer's body.
enum AnswerBody {
    Whole(Bytes),
    /// A fault: spaces for ever, which JSON allows.
    Endless,
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        static SPACES: [u8; 16 * 1024] = [b' '; 16 * 1024];
        Poll::Ready(match self.get_mut() {
            Self::Whole(bytes) if bytes.is_empty() => None,
            Self::Whole(bytes) => Some(Ok(Frame::data(std::mem::take(bytes)))),
            Self::Endless => Some(Ok(Frame::data(Bytes::from_static(&SPACES)))),
        })
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Endless => SizeHint::default(),
        }
    }
}
