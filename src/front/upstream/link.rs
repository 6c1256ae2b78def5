//! One connection to an upstream, driven by whoever uses it.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf, ReadHalf};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::body::{Progress, UploadState};
use super::sending::{Sending, Unsent};
use super::wire::{self, Head, Incoming, Piece, WireError};
use super::{Failure, Slot, Socket, Switched};
use crate::config::Upstream;
use crate::front::deadline::Deadline;
use crate::front::routes::Limits;

/// What all links of a thread read into, bytes; larger pieces of a body are read where they stay.
pub(super) const BUFFER: usize = 16 * 1024;
/// The largest piece of a body that is read at once.
const LARGE: u64 = 64 * 1024;
/// Interim responses before the final one.
const INTERIM: u32 = 32;

pub(super) struct Link {
    input: Input,
    /// Read and not yet taken.
    read: Bytes,
    /// What is to come of the answer.
    incoming: Incoming,
    is_kept: bool,
    pub(super) idle_since: Instant,
    deadline: Deadline,
    slot: Slot,
}

enum Input {
    Whole(Socket),
    /// Something else writes to the other half.
    Half(ReadHalf<Socket>),
    /// Nothing is left of it.
    Gone,
}

impl Input {
    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Whole(socket) => Pin::new(socket).poll_read(context, buffer),
            Self::Half(half) => Pin::new(half).poll_read(context, buffer),
            Self::Gone => Poll::Ready(Ok(())),
        }
    }

    fn poll_read_large(&mut self, context: &mut Context<'_>, into: &mut BytesMut) -> Poll<io::Result<usize>> {
        match self {
            Self::Whole(socket) => pin!(socket.read_buf(into)).poll(context),
            Self::Half(half) => pin!(half.read_buf(into)).poll(context),
            Self::Gone => Poll::Ready(Ok(0)),
        }
    }
}

impl Link {
    pub(super) async fn connect(upstream: &Upstream, limit: Duration, slot: Slot) -> Result<Self, Failure> {
        Ok(Self {
            input: Input::Whole(Socket::connect(upstream, limit).await?),
            read: Bytes::new(),
            incoming: Incoming::Sized(0),
            is_kept: true,
            idle_since: Instant::now(),
            deadline: Deadline::default(),
            slot,
        })
    }

    /// Whether another request can be sent: neither was it closed by the other side, nor did that say
    /// anything unasked.
    pub(super) fn is_usable(&mut self, context: &mut Context<'_>) -> bool {
        let mut byte = [0];
        self.is_ready() && self.input.poll_read(context, &mut ReadBuf::new(&mut byte)).is_pending()
    }

    /// The same, as far as it is known without asking.
    pub(super) fn is_ready(&self) -> bool {
        self.is_kept && self.incoming.has_ended() && self.read.is_empty()
    }

    /// Sends a request and waits for the response's header. The request may not have been sent to its end then.
    pub(super) async fn exchange(
        &mut self,
        sending: &mut Sending,
        method: &Method,
        upload: Option<&Progress>,
        limits: Limits,
        buffer: &std::cell::RefCell<Box<[u8]>>,
    ) -> Result<Exchanged, Failure> {
        let start = Instant::now();
        let mut sent = Poll::Pending;
        let mut interim = 0;
        poll_fn(|context| {
            if sent.is_pending() {
                sent = self.poll_send(context, sending, upload)?;
            }
            match self.poll_head(context, method, &mut interim, &mut buffer.borrow_mut()) {
                Poll::Ready(Ok(head)) => {
                    return Poll::Ready(Ok(Exchanged { response: head.response, is_sent: sent.is_ready() }));
                }
                Poll::Ready(Err(failure)) => return Poll::Ready(Err(failure)),
                Poll::Pending => {}
            }
            let state = upload.map_or(UploadState::Ended(start), Progress::state);
            state.poll_patience(context, &mut self.deadline, limits).map(Err)
        })
        .await
    }

    /// Ready when all was sent, or no more can be.
    fn poll_send(
        &mut self,
        context: &mut Context<'_>,
        sending: &mut Sending,
        upload: Option<&Progress>,
    ) -> Result<Poll<()>, Failure> {
        let Input::Whole(socket) = &mut self.input else { return Ok(Poll::Ready(())) };
        match sending.poll(context, socket) {
            Poll::Ready(Ok(())) => Ok(Poll::Ready(())),
            // Whoever turns a request away may close before he has read it; his answer tells why.
            Poll::Ready(Err(Unsent::Connection(error))) => {
                tracing::debug!(%error, "an upstream took no more of a request");
                self.is_kept = false;
                Ok(Poll::Ready(()))
            }
            Poll::Ready(Err(Unsent::Client)) => Err(match upload.map(Progress::state) {
                Some(UploadState::TooLarge) => Failure::TooLarge,
                _ => Failure::ClientGone,
            }),
            Poll::Pending => Ok(Poll::Pending),
        }
    }

    fn poll_head(
        &mut self,
        context: &mut Context<'_>,
        method: &Method,
        interim: &mut u32,
        buffer: &mut [u8],
    ) -> Poll<Result<Head, Failure>> {
        loop {
            if !self.read.is_empty() {
                let head =
                    wire::read_head(&mut self.read, method).map_err(|e| Failure::Unreadable(e.into()))?;
                if let Some(head) = head {
                    let status = head.response.status();
                    if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
                        self.incoming = head.incoming;
                        self.is_kept &= head.is_kept;
                        return Poll::Ready(Ok(head));
                    }
                    *interim += 1;
                    if *interim > INTERIM {
                        return Poll::Ready(Err(Failure::Interim));
                    }
                    continue;
                }
            }
            let is_silent = self.read.is_empty() && *interim == 0;
            match ready!(self.poll_read(context, buffer)) {
                Ok(0) | Err(_) if is_silent => return Poll::Ready(Err(Failure::Closed)),
                Ok(0) => return Poll::Ready(Err(Failure::Cut(WireError::Short.into()))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(Failure::Cut(error.into()))),
            }
        }
    }

    /// The next piece of the answer's body; `None` when that is complete.
    pub(super) fn poll_piece(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<Option<Result<Piece, BrokenOff>>> {
        loop {
            match self.incoming.take(&mut self.read) {
                Ok(Some(piece)) => return Poll::Ready(Some(Ok(piece))),
                Ok(None) if self.incoming.has_ended() => return Poll::Ready(None),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
            match ready!(self.poll_read(context, buffer)) {
                Ok(0) if self.incoming == Incoming::UntilClose => {
                    self.incoming = Incoming::Sized(0);
                    return Poll::Ready(None);
                }
                Ok(0) => return Poll::Ready(Some(Err(WireError::Short.into()))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
        }
    }

    /// Reads something behind what was read before; nothing: the other side has closed.
    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let (to_come, _) = self.incoming.size();
        if to_come > BUFFER as u64 && self.read.is_empty() {
            if let Input::Whole(socket) = &self.input {
                ready!(socket.poll_read_ready(context))?;
            }
            let mut piece = BytesMut::with_capacity(usize::try_from(to_come.min(LARGE)).unwrap_or(BUFFER));
            let length = ready!(self.input.poll_read_large(context, &mut piece))?;
            self.read = piece.freeze();
            return Poll::Ready(Ok(length));
        }
        let mut buffer = ReadBuf::new(buffer);
        ready!(self.input.poll_read(context, &mut buffer))?;
        let more = buffer.filled();
        self.read = match self.read.is_empty() {
            true => Bytes::copy_from_slice(more),
            false => [&self.read, more].concat().into(),
        };
        Poll::Ready(Ok(more.len()))
    }

    pub(super) fn incoming(&self) -> Incoming {
        self.incoming
    }

    pub(super) fn poll_deadline(&mut self, context: &mut Context<'_>, at: Instant) -> Poll<()> {
        self.deadline.poll(context, at)
    }

    /// A connection that has switched protocols.
    pub(super) fn switched(self) -> Option<Switched> {
        match self.input {
            Input::Whole(socket) => Some(Switched { socket, read: self.read, slot: self.slot }),
            Input::Half(_) | Input::Gone => None,
        }
    }

    /// Sends the rest of a request that was answered before its end, in a task of its own.
    pub(super) fn go_on_sending(&mut self, mut sending: Sending) -> Option<Spawned> {
        self.is_kept = false;
        let Input::Whole(socket) = std::mem::replace(&mut self.input, Input::Gone) else { return None };
        let (reading, mut writing) = tokio::io::split(socket);
        self.input = Input::Half(reading);
        Some(Spawned(tokio::task::spawn_local(async move {
            match poll_fn(|context| sending.poll(context, &mut writing)).await {
                Ok(()) => {}
                Err(Unsent::Connection(error)) => {
                    tracing::debug!(%error, "an upload broke off after its answer");
                }
                Err(Unsent::Client) => tracing::debug!("a client left its upload after the answer"),
            }
        })))
    }
}

/// Why there is no more of a body.
pub(super) type BrokenOff = Box<dyn std::error::Error + Send + Sync>;

/// What has come of a request.
pub(super) struct Exchanged {
    pub(super) response: Response<()>,
    /// Whether all of the request was sent.
    pub(super) is_sent: bool,
}

/// A task that ends when this is dropped.
pub(super) struct Spawned(JoinHandle<()>);

impl Drop for Spawned {
    fn drop(&mut self) {
        self.0.abort();
    }
}
