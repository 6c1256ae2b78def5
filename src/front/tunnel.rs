//! Bytes both ways, after an upgrade or from the beginning, until both sides have finished. An idle tunnel holds no buffer:
//! all tunnels of a thread read into one.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;

use super::connection::Client;
use super::deadline::Deadline;
use super::upstream::Socket;

/// How long one side may go on when the other one has finished.
const LINGER: Duration = Duration::from_secs(10);

/// What one thread's tunnels read into.
pub(super) struct Scratch(RefCell<Box<[u8]>>);

impl Default for Scratch {
    fn default() -> Self {
        Self(RefCell::new(vec![0; 16 * 1024].into_boxed_slice()))
    }
}

impl Scratch {
    /// Lends it for something that keeps none of it.
    pub(super) fn with<T>(&self, use_it: impl FnOnce(&mut [u8]) -> T) -> T {
        use_it(&mut self.0.borrow_mut())
    }
}

/// One end of a tunnel, and what was read from it already.
pub(super) struct End<T> {
    pub(super) stream: T,
    pub(super) read: Bytes,
}

/// Passes bytes between a client and an upstream until one of them has had enough, or must go.
pub(super) async fn pass(client: &Client, here: End<Box<TlsStream<TcpStream>>>, there: End<Socket>) {
    let mut copying = pin!(copy(here, there, &client.thread.scratch));
    let mut evicted = pin!(client.evicted());
    poll_fn(|context| {
        if let Poll::Ready(ended) = copying.as_mut().poll(context) {
            if let Err(error) = ended {
                tracing::debug!(client = %client.address, %error, "an upgraded connection broke off");
            }
            return Poll::Ready(());
        }
        if client.thread.watch.is_over() {
            return Poll::Ready(());
        }
        evicted.as_mut().poll(context)
    })
    .await;
}

/// Copies until both directions are over, or one is and the other goes on for too long.
pub(super) async fn copy<A, B>(mut a: End<A>, mut b: End<B>, scratch: &Scratch) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let mut there = Direction::new(std::mem::take(&mut a.read));
    let mut back = Direction::new(std::mem::take(&mut b.read));
    let mut deadline = Deadline::default();
    let mut finishing = None;
    poll_fn(|context| {
        let mut scratch = scratch.0.borrow_mut();
        let there = there.poll(context, &mut a.stream, &mut b.stream, &mut scratch)?;
        let back = back.poll(context, &mut b.stream, &mut a.stream, &mut scratch)?;
        match (there, back) {
            (Poll::Ready(()), Poll::Ready(())) => Poll::Ready(Ok(())),
            (Poll::Pending, Poll::Pending) => Poll::Pending,
            _ => {
                let since = *finishing.get_or_insert_with(Instant::now);
                deadline.poll(context, since + LINGER).map(Ok)
            }
        }
    })
    .await
}

struct Direction {
    /// Read and not yet written.
    pending: Bytes,
    unflushed: bool,
    ended: bool,
    closed: bool,
}

impl Direction {
    fn new(pending: Bytes) -> Self {
        Self { pending, unflushed: false, ended: false, closed: false }
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        scratch: &mut [u8],
    ) -> Poll<io::Result<()>> {
        if self.closed {
            return Poll::Ready(Ok(()));
        }
        loop {
            while self.pending.has_remaining() {
                let written = ready!(Pin::new(&mut *to).poll_write(context, &self.pending))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.pending.advance(written);
                self.unflushed = true;
            }
            if self.ended {
                ready!(Pin::new(&mut *to).poll_shutdown(context))?;
                self.closed = true;
                return Poll::Ready(Ok(()));
            }
            let mut buffer = ReadBuf::new(scratch);
            match Pin::new(&mut *from).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => self.ended = true,
                // Many close without a TLS goodbye.
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => self.ended = true,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) => {
                    let read = buffer.filled();
                    let written = match Pin::new(&mut *to).poll_write(context, read)? {
                        Poll::Ready(written) => written,
                        Poll::Pending => 0,
                    };
                    self.unflushed = true;
                    self.pending = Bytes::copy_from_slice(&read[written..]);
                }
                Poll::Pending => {
                    if self.unflushed {
                        ready!(Pin::new(&mut *to).poll_flush(context))?;
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn carries_both_ways_and_starts_with_what_was_read() {
        let ((mut left, a), (b, mut right)) = (duplex(7), duplex(5));
        let scratch = Scratch::default();
        let end = |stream, read: &'static str| End { stream, read: Bytes::from_static(read.as_bytes()) };
        let tunnel = copy(end(a, "early "), end(b, "first "), &scratch);
        let talk = async {
            let sent: Vec<u8> = (0..100_000_u32).map(|i| i.to_le_bytes()[0]).collect();
            let (mut got_right, mut got_left) = (Vec::new(), Vec::new());
            let (mut left_read, mut left_write) = tokio::io::split(&mut left);
            let (mut right_read, mut right_write) = tokio::io::split(&mut right);
            tokio::join!(
                async {
                    left_write.write_all(&sent).await.unwrap();
                    left_write.shutdown().await.unwrap();
                },
                async {
                    right_write.write_all(&sent).await.unwrap();
                    right_write.shutdown().await.unwrap();
                },
                async { right_read.read_to_end(&mut got_right).await.unwrap() },
                async { left_read.read_to_end(&mut got_left).await.unwrap() },
            );
            assert_eq!(got_right, [b"early ", &sent[..]].concat());
            assert_eq!(got_left, [b"first ", &sent[..]].concat());
        };
        let (done, ()) = tokio::join!(tunnel, talk);
        done.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_side_that_never_finishes_is_left_in_the_end() {
        let ((mut left, a), (b, mut right)) = (duplex(64), duplex(64));
        left.shutdown().await.unwrap();
        let scratch = Scratch::default();
        let start = Instant::now();
        let ends = (End { stream: a, read: Bytes::new() }, End { stream: b, read: Bytes::new() });
        copy(ends.0, ends.1, &scratch).await.unwrap();
        assert_eq!(start.elapsed().as_secs(), LINGER.as_secs());
        assert_eq!(right.read(&mut [0]).await.unwrap(), 0, "and it was told");
    }
}
