//! HTTP/1.1 on a client's connection, and what it may turn into: a tunnel, or a rest.
//!
//! A connection that rests is a TLS session and a socket; HTTP and its buffers are made anew when the
//! next byte arrives.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::server::TlsStream;

use super::connection::{Client, FAREWELL, Requests, Step, Supervisor, Underway};
use super::deadline::Deadline;
use super::tunnel::{self, End};
use super::upstream::{Slot, Socket};

/// Unread input that is thrown away before a connection is closed regardless, in bytes.
const MAX_LINGER: usize = 1024 * 1024;

/// Serves a connection until it is over.
pub(super) async fn serve(
    client: &Rc<Client>,
    mut stream: Box<TlsStream<TcpStream>>,
    mut supervisor: Supervisor,
) -> hyper::Result<()> {
    let mut read = Bytes::new();
    loop {
        // Each phase has a box of its own, so that none holds room for another.
        supervisor.may_rest = true;
        (stream, read) = match Box::pin(talk(client, stream, read, &mut supervisor)).await? {
            Ended::Resting(stream, read) => (stream, read),
            Ended::Switched(here, there, _held) => {
                Box::pin(tunnel::pass(client, here, there)).await;
                return Ok(());
            }
            Ended::Over => return Ok(()),
        };
        supervisor.may_rest = false;
        match rest(&stream, &mut supervisor).await {
            None => {}
            Some(Step::WindDown | Step::Rest) => {
                // A peer that is gone needs no goodbye.
                let _ = timeout(FAREWELL, stream.shutdown()).await;
                return Ok(());
            }
            Some(Step::Leave) => return Ok(()),
        }
    }
}

/// How a phase of requests and responses ended.
enum Ended {
    /// By lack of requests; with what was read of the next one.
    Resting(Box<TlsStream<TcpStream>>, Bytes),
    /// By an upgrade.
    Switched(End<Box<TlsStream<TcpStream>>>, End<Socket>, (Underway, Slot)),
    /// For good.
    Over,
}

async fn talk(
    client: &Rc<Client>,
    stream: Box<TlsStream<TcpStream>>,
    read: Bytes,
    supervisor: &mut Supervisor,
) -> hyper::Result<Ended> {
    let wire = Wire { stream: TokioIo::new(stream), read, client: client.clone(), lingering: None };
    let mut connection = client.thread.http1.serve_connection(wire, Requests(client.clone()));
    let step = poll_fn(|context| {
        loop {
            if let Poll::Ready(ended) = Pin::new(&mut connection).poll(context) {
                return Poll::Ready(ended.map(|()| None));
            }
            match supervisor.poll(context) {
                Poll::Ready(Step::WindDown) => Pin::new(&mut connection).graceful_shutdown(),
                Poll::Ready(step) => return Poll::Ready(Ok(Some(step))),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await?;
    match step {
        Some(Step::Rest) => {
            let parts = connection.into_parts();
            Ok(Ended::Resting(parts.io.stream.into_inner(), rejoined(&parts.read_buf, &parts.io.read)))
        }
        Some(_) => Ok(Ended::Over),
        None => Ok(match client.take_switched() {
            Some((switched, underway)) => {
                let parts = connection.into_parts();
                let read = rejoined(&parts.read_buf, &parts.io.read);
                let here = End { stream: parts.io.stream.into_inner(), read };
                let there = End { stream: switched.socket, read: switched.read };
                Ended::Switched(here, there, (underway, switched.slot))
            }
            None => Ended::Over,
        }),
    }
}

/// What HTTP had taken, and what it had not; copied, for even without a byte left in them the buffers
/// are as large as ever.
fn rejoined(taken: &[u8], left: &[u8]) -> Bytes {
    if taken.is_empty() && left.is_empty() { Bytes::new() } else { [taken, left].concat().into() }
}

/// Waits for the next byte; `None` when it is there.
async fn rest(stream: &TlsStream<TcpStream>, supervisor: &mut Supervisor) -> Option<Step> {
    let tcp = stream.get_ref().0;
    poll_fn(|context| {
        if tcp.poll_read_ready(context).is_ready() {
            return Poll::Ready(None);
        }
        supervisor.poll(context).map(Some)
    })
    .await
}

/// The TLS stream, behind what was read before, telling whether all that was written has left.
struct Wire {
    stream: TokioIo<Box<TlsStream<TcpStream>>>,
    read: Bytes,
    client: Rc<Client>,
    lingering: Option<Lingering>,
}

/// A connection whose answer is out and whose client goes on sending: closed now, it would be reset, and the reset may
/// overtake the answer (RFC 9112 section 9.6).
struct Lingering {
    until: Instant,
    deadline: Deadline,
    /// What is still read and thrown away, bytes.
    left: usize,
}

impl Lingering {
    fn new() -> Self {
        Self { until: Instant::now() + FAREWELL, deadline: Deadline::default(), left: MAX_LINGER }
    }

    fn poll(&mut self, context: &mut Context<'_>, tcp: &mut TcpStream, scratch: &mut [u8]) -> Poll<()> {
        while self.left > 0 {
            if self.deadline.poll(context, self.until).is_ready() {
                break;
            }
            let mut buffer = ReadBuf::new(scratch);
            match ready!(Pin::new(&mut *tcp).poll_read(context, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {
                    self.left = self.left.saturating_sub(buffer.filled().len());
                }
                _ => break,
            }
        }
        Poll::Ready(())
    }
}

impl Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let length = self.read.len().min(buffer.remaining());
        buffer.put_slice(&self.read[..length]);
        self.read.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl Write for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.client.flushed.set(false);
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.client.flushed.set(false);
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        // HTTP flushes only once it has handed over everything.
        self.client.flushed.set(true);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.lingering.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
            if !this.client.unread.get() {
                return Poll::Ready(Ok(()));
            }
        }
        let lingering = this.lingering.get_or_insert_with(Lingering::new);
        let tcp = this.stream.inner_mut().get_mut().0;
        this.client.thread.scratch.with(|scratch| lingering.poll(context, tcp, scratch)).map(Ok)
    }
}
