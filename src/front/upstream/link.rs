//! One connection to an upstream, driven by whoever uses it.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::body::{Progress, Upload, UploadState};
use super::{Failure, Slot, Socket};
use crate::config::Upstream;
use crate::front::deadline::Deadline;
use crate::front::routes::Limits;

/// The most that a response's header may take.
const HEADER: usize = 64 * 1024;
/// The largest piece of a body that is read at once.
const BUFFER: usize = 64 * 1024;

pub(super) struct Link {
    sender: http1::SendRequest<Upload>,
    connection: http1::Connection<TokioIo<Socket>, Upload>,
    /// The connection has finished and must not be polled again.
    finished: bool,
    pub(super) idle_since: Instant,
    deadline: Deadline,
    _slot: Slot,
}

impl Link {
    pub(super) async fn connect(upstream: &Upstream, limit: Duration, slot: Slot) -> Result<Self, Failure> {
        let socket = Socket::connect(upstream, limit).await?;
        let (sender, connection) = http1::Builder::new()
            .max_header_size(HEADER)
            .max_buf_size(BUFFER)
            .handshake(TokioIo::new(socket))
            .await
            .map_err(Failure::Cut)?;
        Ok(Self {
            sender,
            connection,
            finished: false,
            idle_since: Instant::now(),
            deadline: Deadline::default(),
            _slot: slot,
        })
    }

    /// Moves bytes in both directions as far as they go now.
    pub(super) fn drive(&mut self, context: &mut Context<'_>) {
        if !self.finished && self.connection.poll_without_shutdown(context).is_ready() {
            self.finished = true;
        }
    }

    /// Whether another request can be sent: neither was it closed by the other side, nor did that say
    /// anything unasked.
    pub(super) fn is_usable(&mut self, context: &mut Context<'_>) -> bool {
        self.drive(context);
        self.is_ready()
    }

    pub(super) fn is_ready(&self) -> bool {
        !self.finished && self.sender.is_ready()
    }

    /// Sends a request and waits for the response's header.
    pub(super) async fn exchange(
        &mut self,
        request: Request<Upload>,
        upload: Option<&Progress>,
        limits: Limits,
    ) -> Result<Response<Incoming>, Failure> {
        let start = Instant::now();
        let mut response = pin!(self.sender.send_request(request));
        let (connection, finished, deadline) = (&mut self.connection, &mut self.finished, &mut self.deadline);
        poll_fn(|context| {
            if !*finished && connection.poll_without_shutdown(context).is_ready() {
                *finished = true;
            }
            let state = upload.map_or(UploadState::Ended(start), Progress::state);
            match response.as_mut().poll(context) {
                Poll::Ready(Ok(response)) => return Poll::Ready(Ok(response)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(state.failure(error))),
                Poll::Pending if *finished => return Poll::Ready(Err(Failure::Closed)),
                Poll::Pending => {}
            }
            state.poll_patience(context, deadline, limits).map(Err)
        })
        .await
    }

    pub(super) fn poll_deadline(&mut self, context: &mut Context<'_>, at: Instant) -> Poll<()> {
        self.deadline.poll(context, at)
    }

    /// The socket of a connection that has switched protocols, and what was read from it too far.
    pub(super) fn into_socket(self) -> (Socket, Bytes) {
        let parts = self.connection.into_parts();
        (parts.io.into_inner(), parts.read_buf)
    }

    /// Finishes what it is at in a task of its own, and then closes.
    pub(super) fn spawn(self) -> Spawned {
        let Self { sender, mut connection, finished, .. } = self;
        // With the sender gone, the connection closes when it has nothing more to do.
        drop(sender);
        Spawned(tokio::task::spawn_local(async move {
            if !finished && let Err(error) = Pin::new(&mut connection).await {
                tracing::debug!(%error, "an upstream connection broke off");
            }
        }))
    }
}

/// A task that ends when this is dropped.
pub(super) struct Spawned(JoinHandle<()>);

impl Drop for Spawned {
    fn drop(&mut self) {
        self.0.abort();
    }
}
