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

use super::h2c::Stream;
use super::link::{Link, Spawned};
use super::{Failure, Pools, Shown};
use crate::config::Upstream;
use crate::front::deadline::Deadline;
use crate::front::headers;
use crate::front::routes::Limits;

/// A request's body.
pub(in crate::front) enum Upload {
    Empty,
    /// With the bytes that may still come.
    Stream(Incoming, Rc<Progress>, u64),
}

/// Why a request's body stops in its middle.
#[derive(Debug, thiserror::Error)]
pub(in crate::front) enum UploadError {
    #[error(transparent)]
    Client(#[from] hyper::Error),
    #[error("the request is larger than `front.max-body`")]
    TooLarge,
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
    /// It would be larger than may be.
    TooLarge,
}

impl UploadState {
    /// Why there is no answer, where this is what the exchange came to.
    pub(super) fn failure(self, error: hyper::Error) -> Failure {
        match self {
            Self::Broken => Failure::ClientGone,
            Self::TooLarge => Failure::TooLarge,
            _ if error.is_parse() => Failure::Unreadable(error),
            _ => Failure::Cut(error),
        }
    }

    /// Ready when whoever is waited for has had his time.
    pub(super) fn poll_patience(
        self,
        context: &mut Context<'_>,
        deadline: &mut Deadline,
        limits: Limits,
    ) -> Poll<Failure> {
        let (at, failure) = match self {
            Self::AwaitingClient(since) => (since + limits.idle, Failure::ClientStalled(limits.idle)),
            Self::Flowing(since) | Self::Ended(since) => {
                (since + limits.response, Failure::ResponseTimeout(limits.response))
            }
            Self::Broken => return Poll::Ready(Failure::ClientGone),
            Self::TooLarge => return Poll::Ready(Failure::TooLarge),
        };
        deadline.poll(context, at).map(|()| failure)
    }
}

impl Progress {
    pub(super) fn state(&self) -> UploadState {
        self.0.get()
    }

    pub(in crate::front) fn has_ended(&self) -> bool {
        matches!(self.0.get(), UploadState::Ended(_))
    }
}

impl Upload {
    /// Of at most `limit` bytes.
    pub(in crate::front) fn new(incoming: Incoming, limit: Option<u64>) -> Self {
        if incoming.is_end_stream() {
            return Self::Empty;
        }
        let progress = Rc::new(Progress(Cell::new(UploadState::Flowing(Instant::now()))));
        Self::Stream(incoming, progress, limit.unwrap_or(u64::MAX))
    }

    pub(in crate::front) fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    pub(in crate::front) fn progress(&self) -> Option<Rc<Progress>> {
        match self {
            Self::Empty => None,
            Self::Stream(_, progress, _) => Some(progress.clone()),
        }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let Self::Stream(incoming, progress, left) = self.get_mut() else { return Poll::Ready(None) };
        let polled = Pin::new(&mut *incoming).poll_frame(context).map_ok(clean).map_err(UploadError::from);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            match left.checked_sub(frame.data_ref().map_or(0, |data| data.len() as u64)) {
                Some(less) => *left = less,
                None => {
                    progress.0.set(UploadState::TooLarge);
                    return Poll::Ready(Some(Err(UploadError::TooLarge)));
                }
            }
        }
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
            Self::Stream(incoming, ..) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Stream(incoming, ..) => incoming.size_hint(),
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
    /// Something else does, as long as this is kept.
    Elsewhere(Deadline, #[allow(dead_code, reason = "it ends what it stands for when it is dropped")] Kept),
    /// Nothing more to move.
    Done,
}

/// What moves bytes by itself.
pub(super) enum Kept {
    /// A task: the upload goes on, whether or not anybody reads the response.
    Task(#[allow(dead_code, reason = "as above")] Spawned),
    /// A connection that others share.
    Stream(#[allow(dead_code, reason = "as above")] Stream),
}

impl Download {
    /// Of a connection with other requests on it.
    pub(super) fn multiplexed(
        incoming: Incoming,
        stream: Stream,
        limit: Duration,
        pools: &Rc<Pools>,
        upstream: &Arc<Upstream>,
    ) -> Self {
        let source = Source::Elsewhere(Deadline::default(), Kept::Stream(stream));
        Self { incoming, source, waiting: None, limit, pools: pools.clone(), upstream: upstream.clone() }
    }

    pub(super) fn new(
        incoming: Incoming,
        link: Box<Link>,
        uploaded: bool,
        limit: Duration,
        pools: &Rc<Pools>,
        upstream: &Arc<Upstream>,
    ) -> Self {
        let source = if uploaded {
            Source::Link(link)
        } else {
            Source::Elsewhere(Deadline::default(), Kept::Task(link.spawn()))
        };
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
            Source::Elsewhere(..) | Source::Done => Pin::new(&mut self.incoming).poll_frame(context),
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
                    Source::Elsewhere(deadline, _) => deadline.poll(context, at),
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
