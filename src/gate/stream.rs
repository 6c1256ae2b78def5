//! A connection's socket, watched: what passes through it tells which deadline applies.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::deadlines::{Phase, Verdict};
use crate::net::early::EarlyStream;
use crate::net::limits::{Admission, BusyGuard};
use crate::net::proxy_protocol;

/// Unread input that is thrown away before a connection is closed regardless, in bytes.
const MAX_LINGER: usize = 256 * 1024;

/// The time as of the last sweep, which is near enough for deadlines and costs nothing to read.
pub(super) struct Clock(Cell<Instant>);

impl Clock {
    pub(super) fn new() -> Self {
        Self(Cell::new(Instant::now()))
    }

    pub(super) fn refresh(&self) -> Instant {
        self.0.set(Instant::now());
        self.0.get()
    }
}

/// One connection's state, shared by its socket, its requests and the sweep.
pub(super) struct Watch {
    pub(super) admission: Admission,
    clock: Rc<Clock>,
    born: Instant,
    phase: Cell<Phase>,
    since: Cell<Instant>,
    order: Cell<Verdict>,
    /// The last bytes read.
    tail: Cell<[u8; 4]>,
    /// The first bytes read were those of a PROXY header.
    proxied: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Watch {
    pub(super) fn new(admission: Admission, clock: Rc<Clock>) -> Self {
        let now = clock.refresh();
        Self {
            admission,
            clock,
            born: now,
            phase: Cell::new(Phase::Opening),
            since: Cell::new(now),
            order: Cell::new(Verdict::Stay),
            tail: Cell::default(),
            proxied: Cell::new(false),
            waker: RefCell::new(None),
        }
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase.get()
    }

    pub(super) fn since(&self) -> Instant {
        self.since.get()
    }

    pub(super) fn born(&self) -> Instant {
        self.born
    }

    /// What the sweep wants of this connection.
    pub(super) fn order(&self) -> Verdict {
        self.order.get()
    }

    /// Gives an order; a harder one is never taken back.
    pub(super) fn give(&self, order: Verdict) {
        if order > self.order.get() {
            self.order.set(order);
            if let Some(waker) = self.waker.borrow().as_ref() {
                waker.wake_by_ref();
            }
        }
    }

    /// Whom to wake for an order.
    pub(super) fn set_waker(&self, waker: &Waker) {
        let mut current = self.waker.borrow_mut();
        if !current.as_ref().is_some_and(|current| current.will_wake(waker)) {
            *current = Some(waker.clone());
        }
    }

    /// A request's header has been read; its answer follows at once. Its body, where it has one,
    /// nobody reads.
    pub(super) fn request_complete(&self, has_body: bool) {
        if self.phase.get() != Phase::Blocked {
            self.enter(match self.tail.get() {
                _ if has_body => Phase::Body,
                [.., b'\n', b'\n'] | [b'\r', b'\n', b'\r', b'\n'] => Phase::Idle,
                // What follows in the buffer is the beginning of another one.
                _ => Phase::Header,
            });
        }
        drop(self.admission.busy());
    }

    /// The answer to the request that was just read has to be asked for.
    pub(super) fn asking(&self) -> BusyGuard {
        self.enter(Phase::Asking);
        self.admission.busy()
    }

    /// The connection goes on after a poll: a body that would have ended it was swallowed whole.
    pub(super) fn body_swallowed(&self) {
        if self.phase.get() == Phase::Body {
            self.enter(Phase::Idle);
        }
    }

    /// Whether the connection has to end now.
    pub(super) fn is_over(&self) -> bool {
        match self.order.get() {
            Verdict::Stay => false,
            Verdict::Finish => self.phase.get() == Phase::Idle,
            Verdict::Close => true,
        }
    }

    /// Whether the client began with a PROXY header.
    pub(super) fn began_with_proxy_header(&self) -> bool {
        self.proxied.get()
    }

    /// Notes what was read.
    pub(super) fn read(&self, bytes: &[u8]) {
        if self.phase.get() == Phase::Opening {
            self.proxied.set(proxy_protocol::speaks(bytes));
        }
        let mut tail = self.tail.get();
        let fresh = &bytes[bytes.len().saturating_sub(4)..];
        tail.rotate_left(fresh.len());
        tail[4 - fresh.len()..].copy_from_slice(fresh);
        self.tail.set(tail);
        if matches!(self.phase.get(), Phase::Opening | Phase::Idle) {
            self.enter(Phase::Header);
        }
    }

    fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.since.set(self.clock.0.get());
    }
}

/// Space to read into, shared by all connections of the thread.
pub(super) type Scratch = Rc<RefCell<Box<[u8]>>>;

/// The socket as hyper sees it.
pub(super) struct WatchedStream {
    stream: EarlyStream,
    watch: Rc<Watch>,
    scratch: Scratch,
    /// What was read before.
    begun: Bytes,
    eof: bool,
    lingered: usize,
}

impl WatchedStream {
    /// A socket of which `begun` has been read already.
    pub(super) fn new(stream: EarlyStream, begun: Bytes, watch: Rc<Watch>, scratch: Scratch) -> Self {
        Self { stream, watch, scratch, begun, eof: false, lingered: 0 }
    }

    fn wrote(&self, result: &Poll<io::Result<usize>>) {
        match (result, self.watch.phase.get()) {
            (Poll::Pending, phase) if phase != Phase::Blocked => self.watch.enter(Phase::Blocked),
            (Poll::Ready(Ok(_)), Phase::Blocked) => self.watch.enter(Phase::Idle),
            _ => {}
        }
    }
}

impl Read for WatchedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.begun.is_empty() {
            let bytes = this.begun.split_to(this.begun.len().min(into.remaining()));
            into.put_slice(&bytes);
            this.watch.read(&bytes);
            return Poll::Ready(Ok(()));
        }
        let mut scratch = this.scratch.borrow_mut();
        let space = into.remaining().min(scratch.len());
        let mut buffer = ReadBuf::new(&mut scratch[..space]);
        std::task::ready!(Pin::new(&mut this.stream).poll_read(context, &mut buffer))?;
        into.put_slice(buffer.filled());
        match buffer.filled() {
            [] => this.eof = true,
            bytes => this.watch.read(bytes),
        }
        Poll::Ready(Ok(()))
    }
}

impl Write for WatchedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.wrote(&result);
        result
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A socket has no buffer of its own.
        Poll::Ready(Ok(()))
    }

    /// Closing a socket with unread input resets the connection, and the reset may overtake the
    /// answer (RFC 9112 section 9.6): so the rest is read and thrown away, within bounds. Where all
    /// input was read, closing does everything that a shutdown would.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.eof || this.watch.phase.get() == Phase::Idle {
            return Poll::Ready(Ok(()));
        }
        if this.watch.phase.get() != Phase::Lingering {
            this.watch.enter(Phase::Lingering);
            std::task::ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
        }
        let mut scratch = this.scratch.borrow_mut();
        while this.lingered < MAX_LINGER {
            let mut buffer = ReadBuf::new(&mut scratch);
            std::task::ready!(Pin::new(&mut this.stream).poll_read(context, &mut buffer))?;
            if buffer.filled().is_empty() {
                break;
            }
            this.lingered += buffer.filled().len();
        }
        Poll::Ready(Ok(()))
    }
}
