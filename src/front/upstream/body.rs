//! Bodies on their way through. Nothing is collected: a piece is taken when the other side has room.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::link::{Link, Spawned};
use super::{Pools, Shown};
use crate::config::Upstream;
use crate::front::deadline::Deadline;
use crate::front::headers;

/// A request's body.
pub(in crate::front) enum Upload {
    Empty,
    Stream(Incoming, Rc<Progress>),
}

/// How far an upload is.
pub(in crate::front) struct Progress(Cell<UploadState>);

#[derive(Debug, Clone, Copy)]
pub(super) enum UploadState {
    /// The upstream has taken the last piece then and has not asked for more.
    Flowing(Instant),
    /// The upstream has been waiting for the client since then.
    AwaitingClient(Instant),
    /// All of it was handed over then.
    Ended(Instant),
    /// The client gave up.
    Broken,
}

impl Progress {
    pub(super) fn state(&self) -> UploadState {
        self.0.get()
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(self.0.get(), UploadState::Ended(_))
    }
}

impl Upload {
    pub(in crate::front) fn new(incoming: Incoming) -> Self {
        if incoming.is_end_stream() {
            return Self::Empty;
        }
        Self::Stream(incoming, Rc::new(Progress(Cell::new(UploadState::Flowing(Instant::now())))))
    }

    pub(in crate::front) fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    pub(super) fn progress(&self) -> Option<Rc<Progress>> {
        match self {
            Self::Empty => None,
            Self::Stream(_, progress) => Some(progress.clone()),
        }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Self::Stream(incoming, progress) = self.get_mut() else { return Poll::Ready(None) };
        let polled = Pin::new(&mut *incoming).poll_frame(context).map_ok(clean);
        let state = match &polled {
            Poll::Pending => match progress.0.get() {
                waiting @ UploadState::AwaitingClient(_) => waiting,
                _ => UploadState::AwaitingClient(Instant::now()),
            },
            Poll::Ready(Some(Ok(_))) if incoming.is_end_stream() => UploadState::Ended(Instant::now()),
            Poll::Ready(Some(Ok(_))) => UploadState::Flowing(Instant::now()),
            Poll::Ready(None) => UploadState::Ended(Instant::now()),
            Poll::Ready(Some(Err(_))) => UploadState::Broken,
        };
        progress.0.set(state);
        polled
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Stream(incoming, _) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Stream(incoming, _) => incoming.size_hint(),
        }
    }
}

fn clean(mut frame: Frame<Bytes>) -> Frame<Bytes> {
    if let Some(trailers) = frame.trailers_mut() {
        headers::forward_trailers(trailers);
    }
    frame
}

/// Why a response's body stops in its middle.
#[derive(Debug, thiserror::Error)]
pub(in crate::front) enum Interrupted {
    #[error("the upstream broke off in the middle of its answer: {0}")]
    Cut(#[source] hyper::Error),
    #[error("the upstream fell silent for {0:?} in the middle of its answer")]
    Silent(Duration),
}

/// A response's body.
pub(in crate::front) struct Download {
    incoming: Incoming,
    source: Source,
    /// The client has been waiting for the upstream since then.
    waiting: Option<Instant>,
    limit: Duration,
    pools: Rc<Pools>,
    upstream: Arc<Upstream>,
}

/// What moves the bytes.
enum Source {
    /// Reading the body does.
    Link(Box<Link>),
    /// A task does: the upload goes on, whether or not anybody reads the response.
    Spawned(Deadline, #[allow(dead_code, reason = "it ends the task when it is dropped")] Spawned),
    /// Nothing more to move.
    Done,
}

impl Download {
    pub(super) fn new(
        incoming: Incoming,
        link: Box<Link>,
        uploaded: bool,
        limit: Duration,
        pools: &Rc<Pools>,
        upstream: &Arc<Upstream>,
    ) -> Self {
        let source =
            if uploaded { Source::Link(link) } else { Source::Spawned(Deadline::default(), link.spawn()) };
        let (pools, upstream) = (pools.clone(), upstream.clone());
        let mut download = Self { incoming, source, waiting: None, limit, pools, upstream };
        if download.incoming.is_end_stream() {
            download.settle();
        }
        download
    }

    /// The body is complete: its connection is good for another request.
    fn settle(&mut self) {
        if let Source::Link(link) = std::mem::replace(&mut self.source, Source::Done)
            && link.is_ready()
        {
            self.pools.put(&self.upstream, link);
        }
    }

    fn poll_incoming(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Interrupted>>> {
        match &mut self.source {
            Source::Link(link) => {
                // Both ends are polled here, so neither needs to wake the other; the link's socket
                // wakes the task.
                let mut quiet = Context::from_waker(Waker::noop());
                let mut polled = Pin::new(&mut self.incoming).poll_frame(&mut quiet);
                if polled.is_pending() {
                    link.drive(context);
                    polled = Pin::new(&mut self.incoming).poll_frame(&mut quiet);
                }
                polled
            }
            Source::Spawned(..) | Source::Done => Pin::new(&mut self.incoming).poll_frame(context),
        }
        .map_err(Interrupted::Cut)
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = Interrupted;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Interrupted>>> {
        let this = self.get_mut();
        let polled = this.poll_incoming(context).map_ok(clean);
        match &polled {
            Poll::Pending => {
                let at = *this.waiting.get_or_insert_with(Instant::now) + this.limit;
                let over = match &mut this.source {
                    Source::Link(link) => link.poll_deadline(context, at),
                    Source::Spawned(deadline, _) => deadline.poll(context, at),
                    Source::Done => Poll::Pending,
                };
                return over.map(|()| {
                    let error = Interrupted::Silent(this.limit);
                    if this.pools.may_warn(&this.upstream) {
                        let upstream = Shown(&this.upstream);
                        tracing::warn!(%upstream, "{error}: raise `front.response-timeout` if it needs longer");
                    }
                    Some(Err(error))
                });
            }
            Poll::Ready(Some(Ok(_))) => {
                this.waiting = None;
                if this.incoming.is_end_stream() {
                    this.settle();
                }
            }
            Poll::Ready(Some(Err(error))) => {
                if this.pools.may_warn(&this.upstream) {
                    let upstream = Shown(&this.upstream);
                    tracing::warn!(%upstream, "{error}: its own log should tell why; the client's answer was cut short");
                }
                this.source = Source::Done;
            }
            Poll::Ready(None) => this.settle(),
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
