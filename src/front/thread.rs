//! What the connections of one front thread share.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use hyper::server::conn::{http1, http2};
use hyper_util::rt::TokioTimer;
use tokio::time::Instant;

use super::FrontState;
use super::access::Buffer;
use super::tunnel::Scratch;
use super::upstream::Pools;

/// The most that a request's header may take.
const HTTP1_HEADER: usize = 64 * 1024;
/// The largest piece of a body that is read at once or held for a client.
const HTTP1_BUFFER: usize = 64 * 1024;
const HTTP2_HEADERS: u32 = 32 * 1024;
const HTTP2_STREAMS: u32 = 128;
/// What a client may send before the upstream has taken it.
const HTTP2_STREAM_WINDOW: u32 = 256 * 1024;
const HTTP2_CONNECTION_WINDOW: u32 = 1024 * 1024;
/// What is held for a stream whose client does not read.
const HTTP2_SEND_BUFFER: usize = 64 * 1024;

/// One front thread.
pub(super) struct Thread {
    pub(super) state: Arc<FrontState>,
    pub(super) pools: Rc<Pools>,
    pub(super) scratch: Scratch,
    pub(super) watch: Watch,
    /// Of the access log.
    pub(super) lines: Buffer,
    pub(super) http1: http1::Builder,
    pub(super) http2: http2::Builder<LocalExecutor>,
}

impl Thread {
    pub(super) fn new(state: Arc<FrontState>) -> Self {
        let mut http1 = http1::Builder::new();
        // The supervisor has the deadlines. At most 100 header fields is hyper's own default.
        http1.header_read_timeout(None).max_header_size(HTTP1_HEADER).max_buf_size(HTTP1_BUFFER);
        let mut http2 = http2::Builder::new(LocalExecutor);
        http2
            .timer(TokioTimer::new())
            .max_concurrent_streams(HTTP2_STREAMS)
            .max_header_list_size(HTTP2_HEADERS)
            .initial_stream_window_size(HTTP2_STREAM_WINDOW)
            .initial_connection_window_size(HTTP2_CONNECTION_WINDOW)
            .max_send_buf_size(HTTP2_SEND_BUFFER);
        Self {
            state,
            pools: Rc::default(),
            scratch: Scratch::default(),
            watch: Watch::default(),
            lines: Buffer::default(),
            http1,
            http2,
        }
    }
}

/// Spawns onto the thread's own `LocalSet`.
#[derive(Debug, Clone, Copy)]
pub(super) struct LocalExecutor;

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// Tells all connections of a thread to come to an end. To look costs them a comparison.
#[derive(Default)]
pub(super) struct Watch {
    draining: Cell<Option<Instant>>,
    over: Cell<bool>,
    next: Cell<u64>,
    tasks: RefCell<HashMap<u64, Waker>>,
}

impl Watch {
    /// Wakes this task at each change, until the registration is dropped.
    pub(super) fn register(&self, waker: Waker) -> Registration<'_> {
        let key = self.next.get();
        self.next.set(key + 1);
        self.tasks.borrow_mut().insert(key, waker.clone());
        Registration { watch: self, key, waker }
    }

    /// Connections should finish what they are at.
    pub(super) fn drain(&self) {
        self.draining.set(Some(Instant::now()));
        self.wake();
    }

    /// Connections must go.
    pub(super) fn end(&self) {
        self.over.set(true);
        self.wake();
    }

    /// Since when connections should finish.
    pub(super) fn draining(&self) -> Option<Instant> {
        self.draining.get()
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.get()
    }

    fn wake(&self) {
        for waker in self.tasks.borrow().values() {
            waker.wake_by_ref();
        }
    }
}

/// A task that is told of changes.
pub(super) struct Registration<'a> {
    watch: &'a Watch,
    key: u64,
    waker: Waker,
}

impl Registration<'_> {
    pub(super) fn waker(&self) -> Waker {
        self.waker.clone()
    }
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        self.watch.tasks.borrow_mut().remove(&self.key);
    }
}
