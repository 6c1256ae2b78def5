//! One client's connection: handshake, then the protocol that was agreed on, under supervision.
//!
//! A connection has one timer, for all of its deadlines: for the handshake, for a request's header
//! and idling, for a client that stopped taking what it asked for, for the farewell.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::request::Parts;
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;

use super::access::Record;
use super::deadline::Deadline;
use super::frames::Counted;
use super::headers::Provenance;
use super::proxy::{self, Abandoned, Answering, ResponseBody};
use super::resolver::Served;
use super::thread::Thread;
use super::tls::{self, HandshakeError, Secured};
use super::{http1, proxied, raw};

use super::upstream::Switched;
use crate::net::limits::{Admission, BusyGuard};

/// A client that takes nothing of what it asked for has at least this long.
const STALL: Duration = Duration::from_secs(60);

/// How long a farewell may take.
pub(super) const FAREWELL: Duration = Duration::from_secs(2);

/// After this time without a request a connection gives its buffers back.
const REST: Duration = Duration::from_millis(250);

/// When the front stops, a connection that has just been opened may still send its request.
const FRESH: Duration = Duration::from_secs(1);

/// What all requests of a connection share.
pub(super) struct Client {
    pub(super) thread: Rc<Thread>,
    pub(super) address: IpAddr,
    pub(super) served: Arc<Served>,
    pub(super) session: Session,
    admission: Admission,
    /// What was last told of a client, and of which.
    provenance: RefCell<Option<(IpAddr, Rc<Provenance>)>>,
    /// Requests under way.
    active: Cell<u32>,
    /// Of their bodies, how many gave a piece and were not asked for the next one yet.
    owed: Cell<u32>,
    /// When one of these numbers last changed, or a piece went out.
    changed: Cell<Instant>,
    spoke: Cell<bool>,
    /// Of the last request's body, not all was read.
    pub(super) unread: Cell<bool>,
    task: RefCell<Option<Waker>>,
    /// Nothing is left to be written; only HTTP/1.1 keeps this up to date.
    pub(super) flushed: Cell<bool>,
    switched: RefCell<Option<(Switched, Underway)>>,
}

/// What was agreed on in the handshake.
#[derive(Debug, Clone, Copy)]
pub(super) struct Session {
    pub(super) version: Option<rustls::ProtocolVersion>,
    pub(super) suite: Option<rustls::CipherSuite>,
    pub(super) group: Option<rustls::NamedGroup>,
}

impl Client {
    /// Begins a request.
    pub(super) fn begin(self: &Rc<Self>, request: &Parts) -> Underway {
        let now = Instant::now();
        self.active.set(self.active.get() + 1);
        self.changed.set(now);
        self.spoke.set(true);
        let state = &self.thread.state;
        let record = state
            .access_log()
            .map(|_| Record::new(self.address, &state.routes().trusted_proxies, request, now));
        Underway { client: self.clone(), owed: false, record, _busy: self.admission.busy() }
    }

    /// What the upstream is told of the client at that address, which has asked for a host of this connection's
    /// certificate; nearly always the same as the last time.
    pub(super) fn provenance(
        &self,
        address: IpAddr,
        host: &[u8],
        value: impl FnOnce() -> HeaderValue,
    ) -> Rc<Provenance> {
        let mut last = self.provenance.borrow_mut();
        let next = match &*last {
            Some((client, last)) if *client == address => {
                if last.host.as_bytes() == host {
                    return last.clone();
                }
                Rc::new(last.with_host(address, &value()))
            }
            _ => Rc::new(Provenance::new(address, &value())),
        };
        *last = Some((address, next.clone()));
        next
    }

    /// Whether the connection's certificate is one for that `Host` (RFC 9110 section 7.4).
    pub(super) fn covers(&self, host: &[u8]) -> bool {
        let is_the_last =
            matches!(&*self.provenance.borrow(), Some((_, last)) if last.host.as_bytes() == host);
        is_the_last || self.served.covers(host)
    }

    /// What the connection has become, if [`Client::switch`] was called.
    pub(super) fn take_switched(&self) -> Option<(Switched, Underway)> {
        self.switched.borrow_mut().take()
    }

    /// Resolves when this connection must make room for another.
    pub(super) async fn evicted(&self) {
        self.admission.evicted().await;
    }

    /// Lets the connection become a tunnel once the response has been sent.
    pub(super) fn switch(&self, switched: Switched, underway: Underway) {
        *self.switched.borrow_mut() = Some((switched, underway));
    }
}

/// A request under way, until this is dropped.
pub(super) struct Underway {
    client: Rc<Client>,
    owed: bool,
    /// For the access log, where there is one.
    record: Option<Box<Record>>,
    _busy: BusyGuard,
}

impl Underway {
    /// What the access log is to say of it, if there is one.
    pub(super) fn record(&mut self, note: impl FnOnce(&mut Record)) {
        if let Some(record) = &mut self.record {
            note(record);
        }
    }

    /// A piece of the response has been handed out.
    pub(super) fn gave(&mut self) {
        self.client.changed.set(Instant::now());
        if !std::mem::replace(&mut self.owed, true) {
            self.client.owed.set(self.client.owed.get() + 1);
        }
    }

    /// The next one has been asked for.
    pub(super) fn asked(&mut self) {
        if std::mem::replace(&mut self.owed, false) {
            self.client.owed.set(self.client.owed.get() - 1);
        }
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.asked();
        let client = &self.client;
        if let (Some(record), Some(log)) = (&self.record, client.thread.state.access_log()) {
            client.thread.lines.add(log, record, client.session.version);
        }
        client.changed.set(Instant::now());
        client.active.set(client.active.get() - 1);
        // A task of its own may have carried the request; the connection must set its deadline anew.
        if client.active.get() == 0
            && let Some(task) = &*client.task.borrow()
        {
            task.wake_by_ref();
        }
    }
}

/// Serves a connection until it is over.
pub(super) async fn serve(thread: Rc<Thread>, tcp: TcpStream, peer: SocketAddr, admission: Admission) {
    let accepted = Instant::now();
    let registered = thread.watch.register(poll_fn(|context| Poll::Ready(context.waker().clone())).await);
    // Phases are boxed so that an idle connection holds no room for its handshake.
    thread.state.counts.connections.add();
    let secured = match Box::pin(secure(&thread, tcp, peer, accepted, &admission)).await {
        Some(Ok(secured)) => secured,
        Some(Err(error)) => {
            thread.state.counts.no_handshake.add();
            tracing::debug!(client = %peer, %error, "no handshake");
            return;
        }
        None => {
            thread.state.counts.no_handshake.add();
            return;
        }
    };
    admission.established();
    let Secured { stream, served, client: address, raw } = secured;
    let (_, tls) = stream.get_ref();
    let session = Session {
        version: tls.protocol_version(),
        suite: tls.negotiated_cipher_suite().map(|suite| suite.suite()),
        group: tls.negotiated_key_exchange_group().map(|group| group.name()),
    };
    let is_h2 = tls.alpn_protocol() == Some(b"h2");
    let client = Rc::new(Client {
        thread: thread.clone(),
        address: address.ip(),
        served,
        session,
        admission,
        provenance: RefCell::default(),
        active: Cell::new(0),
        owed: Cell::new(0),
        changed: Cell::new(Instant::now()),
        spoke: Cell::new(false),
        unread: Cell::new(false),
        task: RefCell::new(None),
        flushed: Cell::new(true),
        switched: RefCell::default(),
    });
    if let Some(raw) = raw {
        return Box::pin(raw::serve(&client, address, stream, raw)).await;
    }
    let supervisor = Supervisor::new(client.clone(), accepted);
    let ended = if is_h2 {
        *client.task.borrow_mut() = Some(registered.waker());
        Box::pin(serve_h2(&client, stream, supervisor)).await
    } else {
        http1::serve(&client, stream, supervisor).await
    };
    if let Err(error) = ended {
        tracing::debug!(client = %peer, %error, "a connection broke off");
    }
}

/// The handshake within its deadline; `None` if the connection has to go.
async fn secure(
    thread: &Thread,
    mut tcp: TcpStream,
    peer: SocketAddr,
    accepted: Instant,
    admission: &Admission,
) -> Option<Result<Secured, HandshakeError>> {
    let limit = thread.state.routes().limits.handshake;
    let mut deadline = Deadline::default();
    let mut evicted = pin!(admission.evicted());
    let mut handshake = pin!(async {
        let told = match thread.state.routes().trusts(peer.ip()) {
            true => proxied::client(&mut tcp).await?,
            false => None,
        };
        if let Some(told) = told {
            admission.comes_from(told.ip().into());
        }
        tls::handshake(tcp, told.unwrap_or(peer), &thread.state).await
    });
    poll_fn(|context| {
        if let Poll::Ready(done) = handshake.as_mut().poll(context) {
            return Poll::Ready(Some(done));
        }
        if thread.watch.is_over() || evicted.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        let at = accepted + limit;
        let at = thread.watch.draining().map_or(at, |since| at.min(since + FAREWELL));
        deadline.poll(context, at).map(|()| None)
    })
    .await
}

async fn serve_h2(
    client: &Rc<Client>,
    stream: Box<TlsStream<TcpStream>>,
    mut supervisor: Supervisor,
) -> hyper::Result<()> {
    let service = Requests(client.clone());
    let mut connection =
        pin!(client.thread.http2.serve_connection(TokioIo::new(Counted::new(stream)), service));
    poll_fn(|context| {
        loop {
            if let Poll::Ready(ended) = connection.as_mut().poll(context) {
                return Poll::Ready(ended);
            }
            match supervisor.poll(context) {
                Poll::Ready(Step::Rest) => {}
                Poll::Ready(Step::WindDown) => connection.as_mut().graceful_shutdown(),
                Poll::Ready(Step::Leave) => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}

/// Answers a connection's requests.
pub(super) struct Requests(pub(super) Rc<Client>);

impl Service<Request<Incoming>> for Requests {
    type Response = Response<ResponseBody>;
    type Error = Abandoned;
    type Future = Answering;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        proxy::answer(&self.0, request)
    }
}

/// What a connection has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing has happened for a while: give buffers back until something does.
    Rest,
    /// Say goodbye: what is under way is finished, nothing new begun.
    WindDown,
    /// Go, as it is.
    Leave,
}

/// Watches over a connection's deadlines and the world outside.
pub(super) struct Supervisor {
    client: Rc<Client>,
    /// Whether the connection knows how to rest and does not do so already.
    pub(super) may_rest: bool,
    accepted: Instant,
    idle: Duration,
    deadline: Deadline,
    /// Since when it is winding down.
    farewell: Option<Instant>,
}

impl Supervisor {
    fn new(client: Rc<Client>, accepted: Instant) -> Self {
        let idle = client.thread.state.routes().limits.idle;
        Self { client, may_rest: false, accepted, idle, deadline: Deadline::default(), farewell: None }
    }

    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Step> {
        let client = &self.client;
        if client.thread.watch.is_over() || pin!(client.admission.evicted()).as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Step::Leave);
        }
        let draining = client.thread.watch.draining().is_some() && self.farewell.is_none();
        if draining && (client.spoke.get() || self.accepted.elapsed() >= FRESH) {
            self.farewell = Some(Instant::now());
            return Poll::Ready(Step::WindDown);
        }
        let at = match (client.active.get(), client.owed.get(), self.farewell) {
            (0, _, Some(since)) => since.max(client.changed.get()) + FAREWELL,
            (0, _, None) if draining => self.accepted + FRESH,
            (0, _, None) if self.may_rest && client.flushed.get() => {
                client.changed.get() + REST.min(self.idle)
            }
            (0, _, None) => client.changed.get() + self.idle,
            (_, 0, _) => return Poll::Pending,
            (..) => client.changed.get() + self.idle.max(STALL),
        };
        match self.deadline.poll(context, at) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(())
                if at < client.changed.get() + self.idle
                    && !draining
                    && client.active.get() == 0
                    && self.farewell.is_none() =>
            {
                Poll::Ready(Step::Rest)
            }
            Poll::Ready(()) if client.active.get() == 0 && self.farewell.is_none() => {
                self.farewell = Some(Instant::now());
                Poll::Ready(Step::WindDown)
            }
            Poll::Ready(()) => Poll::Ready(Step::Leave),
        }
    }
}
