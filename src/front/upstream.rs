//! The way to the application: HTTP/1.1 over TCP or a unix socket, over connections that are kept.
//!
//! An upstream connection has no task of its own: whoever waits for its answer drives it. So a
//! proxied request lives in one task from end to end, and an idle connection costs nothing but its
//! socket.

pub(super) mod body;
mod h2c;
mod link;
mod sending;
mod socket;
mod wire;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use tokio::sync::Mutex;
use tokio::time::Instant;

use self::body::{Download, Progress, Upload};
use self::h2c::{Making, Shared};
use self::link::{BUFFER, BrokenOff, Exchanged, Link};
use self::sending::Sending;
pub(super) use self::socket::Socket;
use super::headers::Provenance;
use super::routes::Limits;
use crate::config::{Place, Upstream};

/// Idle connections are closed after this time; most applications do it after a minute or so.
const IDLE_LIMIT: Duration = Duration::from_secs(50);

/// A request that can't be sent twice goes over a connection that was used within this time, or a new
/// one: the application can hardly be closing it at this very moment.
const SURELY_OPEN: Duration = Duration::from_secs(1);

/// Idle connections per upstream and thread.
const IDLE_CAP: usize = 256;

/// Connections to all upstreams together, per thread: HTTP/2 clients can ask for many at once, and
/// descriptors have to be left for the gate.
const OPEN_CAP: usize = 4096;

/// At most one warning about an upstream in this time.
const WARN_INTERVAL: Duration = Duration::from_secs(10);

/// One thread's idle connections, by upstream.
pub(super) struct Pools {
    pools: RefCell<Vec<Pool>>,
    open: Rc<Cell<usize>>,
    /// What is read goes there first.
    buffer: RefCell<Box<[u8]>>,
    /// Room to write a request's header.
    header: Cell<Vec<u8>>,
}

impl Default for Pools {
    fn default() -> Self {
        Self {
            pools: RefCell::default(),
            open: Rc::default(),
            buffer: RefCell::new(vec![0; BUFFER].into_boxed_slice()),
            header: Cell::default(),
        }
    }
}

/// One of the connections that may be open at once, given back on drop.
pub(super) struct Slot(Rc<Cell<usize>>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

struct Pool {
    upstream: Arc<Upstream>,
    /// The one used last is at the back.
    idle: VecDeque<Box<Link>>,
    /// Connections that take several requests at once.
    shared: Vec<Rc<Shared>>,
    /// One of those is made at a time; who waits finds that one.
    making: Rc<Mutex<Making>>,
    warned: Option<Instant>,
}

/// An upstream as the configuration writes it.
pub(super) struct Shown<'a>(pub(super) &'a Upstream);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (scheme, unix) = match self.0 {
            Upstream::Http(_) => ("http", "unix"),
            Upstream::H2c(_) => ("h2c", "h2c+unix"),
            Upstream::Raw(_) => ("tcp", "tcp+unix"),
            Upstream::Demo => return f.write_str("demo"),
        };
        match self.0.place() {
            Some(Place::Tcp { host, port }) if host.contains(':') => write!(f, "{scheme}://[{host}]:{port}"),
            Some(Place::Tcp { host, port }) => write!(f, "{scheme}://{host}:{port}"),
            Some(Place::Unix(path)) => write!(f, "{unix}:{}", path.display()),
            None => Ok(()),
        }
    }
}

/// What came back.
pub(super) enum Answer {
    /// A response, its body still on the way.
    Response(Response<Download>),
    /// The upstream switches to the protocol that the request asked for.
    Switched(Response<()>, Switched),
}

/// A connection that speaks another protocol now.
pub(super) struct Switched {
    pub(super) socket: Socket,
    /// What it has said in it already.
    pub(super) read: Bytes,
    /// It is one of the connections that may be open.
    pub(super) slot: Slot,
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("has {OPEN_CAP} connections open in this thread, and no more are made")]
    Crowded,
    #[error("cannot be reached: {0}; is it running, and is the `upstream` right")]
    Connect(#[source] io::Error),
    #[error("did not accept a connection within {0:?}")]
    ConnectTimeout(Duration),
    #[error("did not begin to answer within {0:?}; raise `front.response-timeout` if it needs longer")]
    ResponseTimeout(Duration),
    #[error("closed the connection before it had answered: {0}")]
    Cut(BrokenOff),
    #[error("closed the connection before it had answered")]
    Closed,
    #[error("gave an answer that cannot be used: {0}")]
    Unreadable(BrokenOff),
    #[error("sends one interim response after the other, and no final one")]
    Interim,
    #[error("switched to another protocol unasked")]
    Unasked,
    #[error("the client's upload broke off")]
    ClientGone,
    #[error("the client's upload stood still for {0:?}")]
    ClientStalled(Duration),
    #[error("the client's upload is larger than `front.max-body`")]
    TooLarge,
}

impl Failure {
    /// What the client is told; nothing, if it is the one who left.
    pub(super) fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Connect(_)
            | Self::Cut(_)
            | Self::Closed
            | Self::Unreadable(_)
            | Self::Interim
            | Self::Unasked => Some(StatusCode::BAD_GATEWAY),
            Self::ConnectTimeout(_) | Self::ResponseTimeout(_) => Some(StatusCode::GATEWAY_TIMEOUT),
            Self::ClientStalled(_) => Some(StatusCode::REQUEST_TIMEOUT),
            Self::TooLarge => Some(StatusCode::PAYLOAD_TOO_LARGE),
            Self::Crowded => Some(StatusCode::SERVICE_UNAVAILABLE),
            Self::ClientGone => None,
        }
    }

    /// Whether the upstream is to blame.
    pub(super) fn is_upstreams(&self) -> bool {
        !matches!(self, Self::ClientGone | Self::ClientStalled(_) | Self::TooLarge)
    }
}

/// A request in the form in which it goes out.
pub(super) struct Prepared {
    form: Form,
    upload: Option<Rc<Progress>>,
    /// It has no body and may be repeated (RFC 9110 section 9.2.2).
    is_repeatable: bool,
    wants_upgrade: bool,
}

enum Form {
    Http1(Method, Sending),
    H2c(Option<Box<Request<Upload>>>),
}

impl Prepared {
    /// Whether not all of the client's body was read.
    pub(super) fn is_unread(&self) -> bool {
        self.upload.as_ref().is_some_and(|upload| !upload.has_ended())
    }
}

/// Makes a request ready whose header [`forward_request`](super::headers::forward_request) has cleaned.
pub(super) fn prepare(
    pools: &Pools,
    upstream: &Upstream,
    head: Parts,
    body: Upload,
    provenance: &Provenance,
    wants_upgrade: bool,
) -> Prepared {
    let is_repeatable = body.is_empty() && head.method.is_idempotent();
    let upload = body.progress();
    let form = match upstream {
        Upstream::H2c(_) => Form::H2c(Some(Box::new(h2c::request(head, body, provenance, upstream)))),
        _ => {
            let mut header = pools.header.take();
            header.clear();
            wire::write_head(&head, &provenance.lines, &mut header);
            let sending = Sending::new(header, wire::Outgoing::of(&head.headers), body);
            Form::Http1(head.method, sending)
        }
    };
    Prepared { form, upload, is_repeatable, wants_upgrade }
}

/// Sends a request and waits for the response's header.
///
/// One that may be repeated is repeated once, on a new connection, if the kept one turns out to have been closed.
pub(super) async fn send(
    pools: &Rc<Pools>,
    upstream: &Arc<Upstream>,
    limits: Limits,
    prepared: &mut Prepared,
) -> Result<Answer, Failure> {
    let upload = prepared.upload.as_deref();
    let (method, sending) = match &mut prepared.form {
        Form::Http1(method, sending) => (method, sending),
        Form::H2c(request) => {
            let request = request.take().expect("sent once");
            return Box::pin(h2c::send(pools, upstream, limits, request)).await.map(Answer::Response);
        }
    };
    let max_idle = if prepared.is_repeatable { IDLE_LIMIT } else { SURELY_OPEN };
    // A look that the runtime puts off would take a closed connection for an open one.
    let look = poll_fn(|context| Poll::Ready(pools.take(upstream, max_idle, context)));
    let kept = tokio::task::unconstrained(look).await;
    let may_repeat = prepared.is_repeatable && kept.is_some();
    let mut link = match kept {
        Some(link) => link,
        None => connect(pools, upstream, limits).await?,
    };
    let mut outcome = link.exchange(sending, method, upload, limits, &pools.buffer).await;
    if matches!(outcome, Err(Failure::Closed)) && may_repeat {
        link = connect(pools, upstream, limits).await?;
        sending.rewind();
        outcome = link.exchange(sending, method, upload, limits, &pools.buffer).await;
    }
    let Exchanged { response, is_sent } = outcome?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let switched = link.switched().filter(|_| prepared.wants_upgrade);
        return Ok(Answer::Switched(response, switched.ok_or(Failure::Unasked)?));
    }
    let sending = std::mem::take(sending);
    let rest = match is_sent {
        true => {
            pools.header.set(sending.into_buffer());
            None
        }
        false => link.go_on_sending(sending),
    };
    Ok(Answer::Response(response.map(|()| Download::new(link, rest, limits.response, pools, upstream))))
}

/// Boxed, for it is seldom needed, and requests have no room for it.
async fn connect(pools: &Pools, upstream: &Upstream, limits: Limits) -> Result<Box<Link>, Failure> {
    let slot = pools.slot()?;
    Box::pin(Link::connect(upstream, limits.connect, slot)).await.map(Box::new)
}

impl Pools {
    /// The idle connection used last, if one is open still and was used within `max_idle`.
    fn take(
        &self,
        upstream: &Arc<Upstream>,
        max_idle: Duration,
        context: &mut Context<'_>,
    ) -> Option<Box<Link>> {
        let mut pools = self.pools.borrow_mut();
        let pool = pools.iter_mut().find(|pool| pool.is_for(upstream))?;
        let now = Instant::now();
        while let Some(link) = pool.idle.back() {
            if now.duration_since(link.idle_since) > max_idle {
                return None;
            }
            let mut link = pool.idle.pop_back()?;
            if link.is_usable(context) {
                return Some(link);
            }
        }
        None
    }

    /// Keeps a connection for later.
    fn put(&self, upstream: &Arc<Upstream>, mut link: Box<Link>) {
        link.idle_since = Instant::now();
        self.with(upstream, |pool| {
            pool.idle.push_back(link);
            if pool.idle.len() > IDLE_CAP {
                pool.idle.pop_front();
            }
        });
    }

    /// Closes what has been idle for too long or was closed by the other side.
    pub(super) fn prune(&self) {
        let now = Instant::now();
        let mut context = Context::from_waker(Waker::noop());
        for pool in self.pools.borrow_mut().iter_mut() {
            pool.idle.retain_mut(|link| {
                now.duration_since(link.idle_since) <= IDLE_LIMIT && link.is_usable(&mut context)
            });
            pool.shared.retain(|shared| shared.is_kept(now, IDLE_LIMIT));
        }
    }

    /// A connection that takes one more request.
    fn shared(&self, upstream: &Arc<Upstream>) -> Option<Rc<Shared>> {
        let pools = self.pools.borrow();
        let pool = pools.iter().find(|pool| pool.is_for(upstream))?;
        pool.shared.iter().find(|shared| shared.has_room()).cloned()
    }

    fn making(&self, upstream: &Arc<Upstream>) -> Rc<Mutex<Making>> {
        self.with(upstream, |pool| pool.making.clone())
    }

    /// Has others use a connection, too.
    fn share(&self, upstream: &Arc<Upstream>, shared: Rc<Shared>) -> Rc<Shared> {
        self.with(upstream, |pool| pool.shared.push(shared.clone()));
        shared
    }

    /// One more connection, where there may be one.
    pub(super) fn slot(&self) -> Result<Slot, Failure> {
        let open = self.open.get();
        if open >= OPEN_CAP {
            return Err(Failure::Crowded);
        }
        self.open.set(open + 1);
        Ok(Slot(self.open.clone()))
    }

    /// Whether a warning about `upstream` is due.
    pub(super) fn may_warn(&self, upstream: &Arc<Upstream>) -> bool {
        let now = Instant::now();
        self.with(upstream, |pool| {
            let due = pool.warned.is_none_or(|last| now.duration_since(last) >= WARN_INTERVAL);
            if due {
                pool.warned = Some(now);
            }
            due
        })
    }

    fn with<T>(&self, upstream: &Arc<Upstream>, act: impl FnOnce(&mut Pool) -> T) -> T {
        let mut pools = self.pools.borrow_mut();
        let index = match pools.iter().position(|pool| pool.is_for(upstream)) {
            Some(index) => index,
            None => {
                // A reload may have left some behind.
                pools.retain(|pool| !pool.idle.is_empty() || !pool.shared.is_empty());
                pools.push(Pool {
                    upstream: upstream.clone(),
                    idle: VecDeque::new(),
                    shared: Vec::new(),
                    making: Rc::default(),
                    warned: None,
                });
                pools.len() - 1
            }
        };
        act(&mut pools[index])
    }
}

impl Pool {
    fn is_for(&self, upstream: &Arc<Upstream>) -> bool {
        Arc::ptr_eq(&self.upstream, upstream) || self.upstream == *upstream
    }
}
