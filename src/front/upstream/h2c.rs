//! Upstreams that speak HTTP/2 from the first byte, without TLS (RFC 9113 section 3.3), gRPC servers above all. Many
//! requests share a connection, which a task of its own drives.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::header::{CONNECTION, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Request, Response, Uri, Version};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::Instant;

use super::body::{Download, Progress, Upload, UploadState};
use super::{Failure, Pools, Socket};
use crate::config::{Place, Upstream};
use crate::front::deadline::Deadline;
use crate::front::headers::Provenance;
use crate::front::routes::Limits;
use crate::front::thread::LocalExecutor;

/// Requests on one connection; beyond them another one is made.
const STREAMS: u32 = 100;

/// What an upstream may send of one answer, and of all on a connection, before a client has taken it.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// What a response's header may take.
const HEADER: u32 = 64 * 1024;

/// A silent connection is asked whether it is alive.
const PING_INTERVAL: Duration = Duration::from_secs(20);

/// A connection to an upstream.
pub(super) struct Shared {
    sender: http2::SendRequest<Upload>,
    streams: Rc<Cell<u32>>,
    pub(super) idle_since: Cell<Instant>,
}

/// A request on it, until this is dropped.
pub(super) struct Stream(Rc<Shared>);

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
        self.0.idle_since.set(Instant::now());
    }
}

impl Shared {
    async fn connect(upstream: &Upstream, limit: Duration, pools: &Pools) -> Result<Rc<Self>, Failure> {
        let slot = pools.slot()?;
        let socket = Socket::connect(upstream, limit).await?;
        let (sender, connection) = http2::Builder::new(LocalExecutor)
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(HEADER)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_while_idle(false)
            .handshake(TokioIo::new(socket))
            .await
            .map_err(|error| Failure::Cut(error.into()))?;
        // It ends when nobody holds its sender any more, and its last answer is through.
        tokio::task::spawn_local(async move {
            let _open = slot;
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an upstream connection broke off");
            }
        });
        Ok(Rc::new(Self { sender, streams: Rc::default(), idle_since: Cell::new(Instant::now()) }))
    }

    /// Whether it can take one more request.
    pub(super) fn has_room(&self) -> bool {
        !self.sender.is_closed() && self.streams.get() < STREAMS
    }

    /// Whether it is worth keeping.
    pub(super) fn is_kept(&self, now: Instant, limit: Duration) -> bool {
        !self.sender.is_closed()
            && (self.streams.get() > 0 || now.duration_since(self.idle_since.get()) <= limit)
    }

    fn begin(self: &Rc<Self>) -> Stream {
        self.streams.set(self.streams.get() + 1);
        Stream(self.clone())
    }
}

/// Sends a request and waits for the response's header. One that a connection did not take, or that may be repeated
/// (RFC 9110 section 9.2.2) and met one that was closing, is sent once more, on a new connection.
pub(super) async fn send(
    pools: &Rc<Pools>,
    upstream: &Arc<Upstream>,
    limits: Limits,
    request: Box<Request<Upload>>,
) -> Result<Response<Download>, Failure> {
    let request = *request;
    let repeatable = request.body().is_empty() && request.method().is_idempotent();
    let progress = request.body().progress();
    let (shared, is_kept) = match pools.shared(upstream) {
        Some(shared) => (shared, true),
        None => (made(pools, upstream, limits).await?, false),
    };
    let spare = (is_kept && repeatable).then(|| copy_of(&request));
    let mut stream = shared.begin();
    let mut outcome = exchange(&shared, request, progress.as_deref(), limits).await;
    if let Err((Failure::Cut(_), unsent)) = &mut outcome
        && is_kept
        && let Some(request) = unsent.take().map(|request| *request).or(spare)
    {
        let shared = made(pools, upstream, limits).await?;
        stream = shared.begin();
        outcome = exchange(&shared, request, progress.as_deref(), limits).await;
    }
    let (head, incoming) = outcome.map_err(|(failure, _)| failure)?.into_parts();
    let download = Download::multiplexed(incoming, stream, limits.response, pools, upstream);
    Ok(Response::from_parts(head, download))
}

fn copy_of(request: &Request<Upload>) -> Request<Upload> {
    let mut copy = Request::new(Upload::Empty);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    copy
}

/// What came of the last connection that was to be made.
#[derive(Default)]
pub(super) struct Making(Option<(Instant, io::ErrorKind)>);

/// A connection with room, made now, or by somebody who was faster. Where that one failed while we waited, we have, too.
async fn made(pools: &Rc<Pools>, upstream: &Arc<Upstream>, limits: Limits) -> Result<Rc<Shared>, Failure> {
    let since = Instant::now();
    let making = pools.making(upstream);
    let mut last = making.lock().await;
    if let Some(shared) = pools.shared(upstream) {
        return Ok(shared);
    }
    if let Making(Some((at, kind))) = *last
        && at >= since
    {
        return Err(Failure::Connect(kind.into()));
    }
    match Shared::connect(upstream, limits.connect, pools).await {
        Ok(shared) => Ok(pools.share(upstream, shared)),
        Err(failure) => {
            let kind = match &failure {
                Failure::Connect(error) => error.kind(),
                _ => io::ErrorKind::TimedOut,
            };
            *last = Making(Some((Instant::now(), kind)));
            Err(failure)
        }
    }
}

type Unsent = Option<Box<Request<Upload>>>;

async fn exchange(
    shared: &Shared,
    request: Request<Upload>,
    upload: Option<&Progress>,
    limits: Limits,
) -> Result<Response<hyper::body::Incoming>, (Failure, Unsent)> {
    let start = Instant::now();
    let mut deadline = Deadline::default();
    let mut sender = shared.sender.clone();
    let mut response = pin!(sender.try_send_request(request));
    poll_fn(|context| {
        let state = upload.map_or(UploadState::Ended(start), Progress::state);
        match response.as_mut().poll(context) {
            Poll::Ready(Ok(response)) => Poll::Ready(Ok(response)),
            Poll::Ready(Err(mut error)) => {
                let unsent = error.take_message().map(Box::new);
                Poll::Ready(Err((state.failure(error.into_error()), unsent)))
            }
            Poll::Pending => {
                state.poll_patience(context, &mut deadline, limits).map(|failure| Err((failure, None)))
            }
        }
    })
    .await
}

/// A request in the form of HTTP/2: a whole URL, and no field that is about a connection (RFC 9113 section 8.2.2).
pub(super) fn request(
    mut head: Parts,
    body: Upload,
    provenance: &Provenance,
    upstream: &Upstream,
) -> Request<Upload> {
    provenance.insert_into(&mut head.headers);
    let mut uri = head.uri.into_parts();
    uri.scheme = Some(Scheme::HTTP);
    uri.authority = Some(authority(&head.headers).unwrap_or_else(|| fallback(upstream)));
    // A query alone stands at the root.
    let path = uri.path_and_query.as_ref().map_or("/", PathAndQuery::as_str);
    if !path.starts_with(['/', '*']) || uri.path_and_query.is_none() {
        uri.path_and_query = format!("/{}", path.trim_start_matches('/')).parse().ok();
    }
    head.uri = Uri::from_parts(uri).unwrap_or_default();
    head.version = Version::HTTP_2;
    head.extensions.clear();
    for field in [HOST, CONNECTION, TRANSFER_ENCODING] {
        head.headers.remove(field);
    }
    Request::from_parts(head, body)
}

fn authority(headers: &HeaderMap) -> Option<Authority> {
    headers.get(HOST)?.to_str().ok()?.parse().ok()
}

/// For a client that names no host, by a certificate without a name.
fn fallback(upstream: &Upstream) -> Authority {
    let name = match upstream.place() {
        Some(Place::Tcp { host, .. }) => host.parse().ok(),
        _ => None,
    };
    name.unwrap_or(Authority::from_static("localhost"))
}
