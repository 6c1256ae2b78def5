//! Bodies on their way through. Nothing is collected: a piece is taken when the other side has room.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::h2c::Stream;
use super::link::{BrokenOff, Link, Spawned};
use super::wire::Piece;
use super::{Failure, Pools, Shown};
use crate::config::Upstream;
use crate::front::deadline::Deadline;
use crate::front::headers;
use crate::front::routes::Limits;

/// A request's body.
#[derive(Default)]
pub(in crate::front) enum Upload {
    #[default]
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
            _ if error.is_parse() => Failure::Unreadable(error.into()),
            _ => Failure::Cut(error.into()),
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
    Cut(BrokenOff),
    #[error("the upstream fell silent for {0:?} in the middle of its answer")]
    Silent(Duration),
}

/// A response's body.
pub(in crate::front) struct Download {
    source: Source,
    /// The client has been waiting for the upstream since then.
    waiting: Option<Instant>,
    limit: Duration,
    pools: Rc<Pools>,
    upstream: Arc<Upstream>,
}

/// Where the bytes come from.
enum Source {
    /// A connection of its own, and what sends the rest of the request, for as long as this is kept.
    Link(Box<Link>, #[allow(dead_code, reason = "it ends the task when it is dropped")] Option<Spawned>),
    /// A connection that others share.
    Stream(Incoming, Deadline, #[allow(dead_code, reason = "it ends the stream when it is dropped")] Stream),
    /// Nothing more to come.
    Done,
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
        Self::from(Source::Stream(incoming, Deadline::default(), stream), limit, pools, upstream)
    }

    /// Of a connection whose answer has begun.
    pub(super) fn new(
        link: Box<Link>,
        upload: Option<Spawned>,
        limit: Duration,
        pools: &Rc<Pools>,
        upstream: &Arc<Upstream>,
    ) -> Self {
        let mut download = Self::from(Source::Link(link, upload), limit, pools, upstream);
        if download.is_end_stream() {
            download.settle();
        }
        download
    }

    fn from(source: Source, limit: Duration, pools: &Rc<Pools>, upstream: &Arc<Upstream>) -> Self {
        Self { source, waiting: None, limit, pools: pools.clone(), upstream: upstream.clone() }
    }

    /// The body is complete: its connection is good for another request.
    fn settle(&mut self) {
        if let Source::Link(link, _) = std::mem::replace(&mut self.source, Source::Done)
            && link.is_ready()
        {
            self.pools.put(&self.upstream, link);
        }
    }

    fn poll_source(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        match &mut self.source {
            Source::Link(link, _) => {
                let piece = ready!(link.poll_piece(context, &mut self.pools.buffer.borrow_mut()));
                Poll::Ready(piece.map(|piece| {
                    piece.map(|piece| match piece {
                        Piece::Data(data) => Frame::data(data),
                        Piece::Trailers(trailers) => Frame::trailers(trailers),
                    })
                }))
            }
            Source::Stream(incoming, ..) => Pin::new(incoming).poll_frame(context).map_err(Into::into),
            Source::Done => Poll::Ready(None),
        }
    }

    fn complain(&self, error: &Interrupted, advice: &str) {
        if self.pools.may_warn(&self.upstream) {
            tracing::warn!(upstream = %Shown(&self.upstream), "{error}{advice}");
        }
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
        let Poll::Ready(polled) = this.poll_source(context) else {
            let at = *this.waiting.get_or_insert_with(Instant::now) + this.limit;
            match &mut this.source {
                Source::Link(link, _) => ready!(link.poll_deadline(context, at)),
                Source::Stream(_, deadline, _) => ready!(deadline.poll(context, at)),
                Source::Done => {}
            }
            let error = Interrupted::Silent(this.limit);
            this.complain(&error, ": raise `front.response-timeout` if it needs longer");
            this.source = Source::Done;
            return Poll::Ready(Some(Err(error)));
        };
        this.waiting = None;
        Poll::Ready(match polled {
            Some(Ok(frame)) => {
                if this.is_end_stream() {
                    this.settle();
                }
                Some(Ok(clean(frame)))
            }
            Some(Err(error)) => {
                let error = Interrupted::Cut(error);
                this.complain(&error, "; its own log should tell why; the client's answer was cut short");
                this.source = Source::Done;
                Some(Err(error))
            }
            None => {
                this.settle();
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Link(link, _) => link.incoming().has_ended(),
            Source::Stream(incoming, ..) => incoming.is_end_stream(),
            Source::Done => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Link(link, _) => {
                let (least, is_exact) = link.incoming().size();
                let mut hint = SizeHint::new();
                hint.set_lower(least);
                if is_exact {
                    hint.set_upper(least);
                }
                hint
            }
            Source::Stream(incoming, ..) => incoming.size_hint(),
            Source::Done => SizeHint::with_exact(0),
        }
    }
}
