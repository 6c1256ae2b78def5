//! Carries what [`reply`](super::reply::reply) decides: HTTP/1 connections on one thread, each within
//! its deadlines.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::DerefMut;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, header};
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use tokio::io::AsyncReadExt;
use tokio::sync::Notify;
use tokio::task::{JoinSet, LocalSet, spawn_local};
use tokio::time::{Instant, sleep, timeout};

use super::deadlines::{GateLimits, Verdict, verdict};
use super::host::Host;
use super::reply::{self, Reply, Request, challenge_token};
use super::scanners::{Asked, is_bannable};
use super::stream::{Clock, Scratch, Watch, WatchedStream};
use super::visits::Visit;
use super::{GateState, Policy};
use crate::challenge::{Arrival, Expected, Outcome, Purpose};
use crate::clock;
use crate::hostname::Identifier;
use crate::net::accept::{WatchedListener, accept_loop, watch};
use crate::net::client::client_address;
use crate::net::drain::Stop;
use crate::net::early::EarlyStream;
use crate::net::limits::{Admission, Caps, Connections};
use crate::net::proxy_protocol::{Beginning, beginning};

/// The largest header of a request, in bytes; hyper answers 431 to a larger one. It allows 100
/// fields at most: a cap of its own would cost an allocation a request.
const MAX_HEADER: usize = 16 * 1024;

/// At most one line about the same trouble of many connections in this time.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// Serves one listener; see [`serve_all`].
pub async fn serve(
    listener: std::net::TcpListener,
    state: GateState,
    limits: GateLimits,
    stop: Stop,
    grace: Duration,
) -> io::Result<()> {
    serve_all(vec![listener], state, limits, stop, grace).await
}

/// Answers on all listeners until the stop, then lets the requests under way finish, at most for the
/// time of grace. Needs a current-thread runtime. Fails only where a listener cannot be used at all.
pub async fn serve_all(
    listeners: Vec<std::net::TcpListener>,
    state: GateState,
    limits: GateLimits,
    stop: Stop,
    grace: Duration,
) -> io::Result<()> {
    let listeners = listeners.into_iter().map(watch).collect::<io::Result<Vec<_>>>()?;
    let gate = Rc::new(Gate::new(state, limits));
    let local = LocalSet::new();
    // The set polls its main future whenever any connection wakes, so that one only waits.
    let serving = local.spawn_local(gate.clone().run(listeners, stop, grace));
    local.run_until(serving).await.map_err(io::Error::other)
}

/// Everything that one thread's connections share.
struct Gate {
    state: GateState,
    limits: GateLimits,
    http: http1::Builder,
    connections: Connections,
    watches: RefCell<Watches>,
    clock: Rc<Clock>,
    scratch: Scratch,
    stopping: Cell<bool>,
    /// When something was last said that each connection could be an occasion for.
    complained: Cell<Option<Instant>>,
    /// Told when a connection comes while there was none, so that an idle gate sleeps soundly.
    first: Notify,
}

impl Gate {
    fn new(state: GateState, limits: GateLimits) -> Self {
        let caps = Caps {
            total: limits.max_connections,
            per_network: limits.max_connections_per_network,
            // There are none.
            handshakes: usize::MAX,
        };
        let mut http = http1::Builder::new();
        // hyper's own deadline would set and cancel a timer for each request; the sweep has them all.
        // Flushing pipelined answers together is left off: hyper then loses an answer that precedes a
        // close while input is left.
        // A client may close its side once it has asked; looking for that would be one more read for each request.
        http.max_buf_size(MAX_HEADER).writev(false).header_read_timeout(None).half_close(true);
        Self {
            state,
            limits,
            http,
            connections: Connections::new("gate", caps),
            watches: RefCell::default(),
            clock: Rc::new(Clock::new()),
            scratch: Rc::new(RefCell::new(vec![0; 8 * 1024].into_boxed_slice())),
            stopping: Cell::new(false),
            complained: Cell::new(None),
            first: Notify::new(),
        }
    }

    async fn run(self: Rc<Self>, listeners: Vec<WatchedListener>, stop: Stop, grace: Duration) {
        let sweeping = spawn_local(self.clone().sweep_for_ever());
        let mut accepting = JoinSet::new();
        for listener in listeners {
            let gate = self.clone();
            let connections = self.connections.clone();
            let on = move |stream, peer: SocketAddr| {
                // Admitted at once, so that a stop waits for it even before its task runs.
                if gate.connections.is_empty() {
                    gate.first.notify_one();
                }
                gate.state.counts.connections.add();
                // A proxy's are many clients'.
                let network = (!gate.is_trusted(peer.ip())).then(|| peer.ip().into());
                let admission = gate.connections.admit(network);
                spawn_local(gate.clone().converse(EarlyStream::Early(stream), peer, admission));
            };
            let exhausted = move || connections.make_room();
            accepting.spawn_local(accept_loop(listener, stop.clone(), on, exhausted));
        }
        while accepting.join_next().await.is_some() {}
        self.stopping.set(true);
        self.sweep();
        if timeout(grace, self.connections.drained()).await.is_err() {
            tracing::info!(connections = self.connections.len(), "the time of grace is over; closing");
            self.watches.borrow().each(|watch| watch.give(Verdict::Close));
            self.connections.drained().await;
        }
        sweeping.abort();
    }

    async fn sweep_for_ever(self: Rc<Self>) {
        loop {
            if self.connections.is_empty() {
                self.first.notified().await;
            }
            sleep(self.limits.sweep_interval()).await;
            self.sweep();
        }
    }

    fn sweep(&self) {
        let now = self.clock.refresh();
        self.watches.borrow().each(|watch| {
            let in_phase = now.saturating_duration_since(watch.since());
            let age = now.saturating_duration_since(watch.born());
            watch.give(verdict(&self.limits, self.stopping.get(), watch.phase(), in_phase, age));
        });
    }

    /// One connection, from its first byte to its end.
    async fn converse(self: Rc<Self>, mut stream: EarlyStream, peer: SocketAddr, admission: Admission) {
        let watch = Rc::new(Watch::new(admission, self.clock.clone()));
        let _listed = Listed::new(&self, watch.clone());
        let (mut client, mut begun) = (peer.ip(), Bytes::new());
        if self.is_trusted(client) {
            match until_over(&watch, Box::pin(proxy_header(&mut stream, &watch))).await {
                None => return,
                Some(Ok((told, rest))) => {
                    if let Some(told) = told {
                        client = told.ip();
                        watch.admission.comes_from(client.into());
                    }
                    begun = rest;
                }
                Some(Err(error)) => {
                    self.complain(|| {
                        tracing::warn!(proxy = %client, %error, "a connection of a trusted proxy was closed");
                    });
                    return;
                }
            }
        }
        let io = WatchedStream::new(stream, begun, watch.clone(), self.scratch.clone());
        let answering = Answering { gate: self.clone(), watch: watch.clone(), peer: client };
        let connection = pin!(self.http.serve_connection(io, answering));
        if let Some(Err(error)) = until_over(&watch, connection).await {
            tracing::trace!(client = %peer.ip(), %error, "connection failed");
        }
        if watch.began_with_proxy_header() && !self.is_trusted(peer.ip()) {
            self.complain(|| {
                tracing::warn!(
                    client = %peer.ip(),
                    "a client sends PROXY headers and is none of `gate.trusted-proxies`: its requests are refused; if it is your proxy, list it there"
                );
            });
        }
    }

    fn is_trusted(&self, peer: IpAddr) -> bool {
        self.state.policy.load().trusted_proxies.iter().any(|network| network.contains(&peer))
    }

    /// Says something that each connection could be an occasion for, now and then.
    fn complain(&self, say: impl FnOnce()) {
        let now = self.clock.refresh();
        if self.complained.get().is_none_or(|last| now.saturating_duration_since(last) >= COMPLAINT_INTERVAL)
        {
            self.complained.set(Some(now));
            say();
        }
    }
}

/// Goes on until it has ended, or the connection has to; then there is no outcome.
async fn until_over<T>(watch: &Watch, mut work: Pin<impl DerefMut<Target: Future<Output = T>>>) -> Option<T> {
    let mut evicted = pin!(watch.admission.evicted());
    poll_fn(|context| {
        watch.set_waker(context.waker());
        if let Poll::Ready(outcome) = work.as_mut().poll(context) {
            return Poll::Ready(Some(outcome));
        }
        watch.body_swallowed();
        // Asked after the connection, so that what has arrived by now is still answered.
        if evicted.as_mut().poll(context).is_ready() || watch.is_over() {
            return Poll::Ready(None);
        }
        Poll::Pending
    })
    .await
}

/// The client that a PROXY header names, where there is one, and what was read beyond it.
async fn proxy_header(stream: &mut EarlyStream, watch: &Watch) -> io::Result<(Option<SocketAddr>, Bytes)> {
    let mut begun = BytesMut::new();
    loop {
        let before = begun.len();
        let ended = stream.read_buf(&mut begun).await? == 0;
        watch.read(&begun[before..]);
        match beginning(&begun) {
            Beginning::Undecided if !ended => {}
            Beginning::Undecided | Beginning::Plain => return Ok((None, begun.freeze())),
            Beginning::Header { length, client } => return Ok((client, begun.split_off(length).freeze())),
            Beginning::Broken => {
                let words =
                    "its PROXY header is none that can be read (versions 1 and 2 of the protocol can)";
                return Err(io::Error::new(io::ErrorKind::InvalidData, words));
            }
        }
    }
}

/// All connections, for the sweep.
#[derive(Default)]
struct Watches {
    slots: Vec<Option<Rc<Watch>>>,
    free: Vec<usize>,
}

impl Watches {
    fn each(&self, visit: impl FnMut(&Rc<Watch>)) {
        self.slots.iter().flatten().for_each(visit);
    }
}

/// A connection's entry in the list, removed on drop.
struct Listed<'a> {
    watches: &'a RefCell<Watches>,
    slot: usize,
}

impl<'a> Listed<'a> {
    fn new(gate: &'a Gate, watch: Rc<Watch>) -> Self {
        let mut watches = gate.watches.borrow_mut();
        if gate.stopping.get() {
            watch.give(Verdict::Finish);
        }
        let slot = watches.free.pop().unwrap_or(watches.slots.len());
        if slot == watches.slots.len() {
            watches.slots.push(None);
        }
        watches.slots[slot] = Some(watch);
        Self { watches: &gate.watches, slot }
    }
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        let mut watches = self.watches.borrow_mut();
        watches.slots[self.slot] = None;
        watches.free.push(self.slot);
    }
}

/// Answers one connection's requests.
#[derive(Clone)]
struct Answering {
    gate: Rc<Gate>,
    watch: Rc<Watch>,
    /// The other end, or the client that it speaks for by its PROXY header.
    peer: IpAddr,
}

type Response = http::Response<Full<Bytes>>;

impl hyper::service::Service<http::Request<Incoming>> for Answering {
    type Response = Response;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, request: http::Request<Incoming>) -> Self::Future {
        let has_body = !request.body().is_end_stream();
        self.watch.request_complete(has_body);
        let (request, _body) = request.into_parts();
        let reply = self.decide(&request);
        if let Reply::NoChallenge { reason: Outcome::UnknownToken, host: Some(host) } = &reply
            && let Some(token) = challenge_token(request.uri.path()).and_then(|token| token.parse().ok())
            && let Some(asked) = self.gate.state.table.ask(&token, host)
        {
            let (answering, busy) = (self.clone(), self.watch.asking());
            return Answer::Asked(Box::pin(async move {
                asked.await;
                drop(busy);
                answering.watch.request_complete(has_body);
                let reply = answering.decide(&request);
                answering.respond(reply, request)
            }));
        }
        Answer::Known(Some(self.respond(reply, request)))
    }
}

/// A response, or what has to be waited for first.
enum Answer {
    Known(Option<Response>),
    Asked(Pin<Box<dyn Future<Output = Response>>>),
}

impl Future for Answer {
    type Output = Result<Response, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Known(response) => Poll::Ready(Ok(response.take().expect("polled once"))),
            Self::Asked(response) => response.as_mut().poll(context).map(Ok),
        }
    }
}

impl Answering {
    fn decide(&self, request: &http::request::Parts) -> Reply {
        let state = &self.gate.state;
        let asked = Request {
            method: &request.method,
            version: request.version,
            target: &request.uri,
            headers: &request.headers,
        };
        reply::reply(&asked, &state.table, &state.policy.load(), &state.served.load())
    }

    fn respond(&self, reply: Reply, request: http::request::Parts) -> Response {
        self.report(&reply, &request, &self.gate.state.policy.load());
        // The request's map serves the answer: one allocation a connection in all.
        let mut headers = request.headers;
        headers.clear();
        let (status, body) = reply.render(&mut headers);
        if self.watch.order() >= Verdict::Finish {
            headers.insert(header::CONNECTION, const { HeaderValue::from_static("close") });
        }
        if request.method == Method::HEAD && body.is_empty() {
            // hyper knows the length of an empty answer only where it would send one.
            headers.insert(header::CONTENT_LENGTH, const { HeaderValue::from_static("0") });
        }
        let mut response = http::Response::new(Full::new(body));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }

    fn report(&self, reply: &Reply, request: &http::request::Parts, policy: &Policy) {
        match reply {
            Reply::Challenge { .. } | Reply::NoChallenge { .. } => {}
            Reply::Redirect { .. } => self.gate.state.counts.redirected.add(),
            _ => self.gate.state.counts.refused.add(),
        }
        match reply {
            Reply::Challenge { host, .. } => self.report_visit(Outcome::Answered, host, request, policy),
            Reply::NoChallenge { reason, host } => self.report_visit(*reason, host, request, policy),
            Reply::BadRequest(reason) => {
                tracing::debug!(client = %self.client(&request.headers, policy), %reason, "refused");
            }
            Reply::Misdirected => {
                let host = Host::of(request.version, &request.uri, &request.headers).ok().flatten();
                let host = host.map(|host| host.identifier);
                let client = self.client(&request.headers, policy);
                if !self.report_scanner(Asked::ForeignHost, client, &host, &request.headers, policy) {
                    tracing::debug!(%client, ?reply, "refused");
                }
            }
            Reply::MethodNotAllowed => {
                tracing::debug!(client = %self.client(&request.headers, policy), ?reply, "refused");
            }
            Reply::Redirect { status, location } => {
                tracing::trace!(client = %self.client(&request.headers, policy), %status, ?location, "redirected");
            }
        }
    }

    fn report_visit(
        &self,
        outcome: Outcome,
        host: &Option<Identifier>,
        request: &http::request::Parts,
        policy: &Policy,
    ) {
        let (at, client) = (clock::now(), self.client(&request.headers, policy));
        let token = challenge_token(request.uri.path()).unwrap_or_default();
        let arrival = Arrival { at, client, host: host.clone(), outcome };
        let expected = self.gate.state.table.arrived(token, arrival);
        let hostname = host.as_ref().map(tracing::field::display);
        let token = shortened(token);
        let outcome = match expected {
            Some(Expected { purpose: Purpose::Canary, .. }) => {
                tracing::debug!(%client, hostname, token, %outcome, "the preflight's own request came");
                return;
            }
            Some(Expected { late: true, .. }) if outcome == Outcome::UnknownToken => Outcome::Late,
            _ => outcome,
        };
        let is_first = self.gate.state.visits.record(Visit { at, client, host: host.clone(), outcome });
        match outcome {
            Outcome::Answered | Outcome::Late => self.gate.state.scanners.clear(client),
            Outcome::UnknownToken | Outcome::NotAToken
                if self.report_scanner(Asked::UnknownToken, client, host, &request.headers, policy) =>
            {
                return;
            }
            _ => {}
        }
        if !is_first {
            return;
        }
        match outcome {
            Outcome::Answered => tracing::info!(%client, hostname, token, "challenge answered"),
            Outcome::Late => {
                tracing::debug!(%client, hostname, token, "came for a challenge after it was withdrawn");
            }
            _ => tracing::debug!(%client, hostname, token, reason = %outcome, "challenge refused"),
        }
    }

    /// Writes the line that `deploy/fail2ban/` reads, where it may be written: its form is a promise.
    fn report_scanner(
        &self,
        asked: Asked,
        client: IpAddr,
        host: &Option<Identifier>,
        headers: &HeaderMap,
        policy: &Policy,
    ) -> bool {
        if !is_bannable(client, self.peer, headers, &policy.trusted_proxies) {
            return false;
        }
        let Some(untold) = self.gate.state.scanners.line(client, clock::monotonic()) else { return false };
        let host = host.as_ref().map(tracing::field::display);
        let untold = (untold > 0).then_some(untold);
        tracing::info!(%client, %asked, host, untold, "scanner");
        true
    }

    fn client(&self, headers: &HeaderMap, policy: &Policy) -> IpAddr {
        let forwarded = headers.get_all("x-forwarded-for").iter().map(HeaderValue::as_bytes);
        client_address(self.peer, forwarded, &policy.trusted_proxies)
    }
}

/// The first characters of a token: enough to tell challenges apart in a log.
fn shortened(token: &str) -> &str {
    token.get(..8).unwrap_or(token)
}
