//! A connection that is used before the runtime watches it. Most who come to the gate have sent their request by the time
//! they are accepted, get their answer, and are gone: for them the kernel's table of watched sockets is never touched.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream as Unwatched};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A socket that does not block; the runtime watches it from the first time on that it would.
#[derive(Debug)]
pub enum EarlyStream {
    /// Not watched yet.
    Early(Unwatched),
    /// Watched.
    Watched(TcpStream),
    /// It could not be watched.
    Lost,
}

impl EarlyStream {
    fn watched(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        if let Self::Early(_) = self
            && let Self::Early(stream) = std::mem::replace(self, Self::Lost)
        {
            *self = Self::Watched(TcpStream::from_std(stream)?);
        }
        match self {
            Self::Watched(stream) => Ok(Pin::new(stream)),
            Self::Early(_) | Self::Lost => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl AsyncRead for EarlyStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Self::Early(stream) = this {
            match stream.read(into.initialize_unfilled()) {
                Ok(length) => {
                    into.advance(length);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if would_block(&error) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        this.watched()?.poll_read(context, into)
    }
}

impl AsyncWrite for EarlyStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Self::Early(stream) = this {
            match stream.write(bytes) {
                Err(error) if would_block(&error) => {}
                result => return Poll::Ready(result),
            }
        }
        this.watched()?.poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Self::Early(stream) = this {
            match stream.write_vectored(slices) {
                Err(error) if would_block(&error) => {}
                result => return Poll::Ready(result),
            }
        }
        this.watched()?.poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Self::Early(stream) = this {
            return Poll::Ready(stream.shutdown(Shutdown::Write));
        }
        this.watched()?.poll_shutdown(context)
    }
}

fn would_block(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn is_watched_once_it_would_block() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().unwrap();
        accepted.set_nonblocking(true).unwrap();
        client.write_all(b"one").await.unwrap();
        let mut stream = EarlyStream::Early(accepted);
        let mut read = [0; 3];
        stream.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"one");
        stream.write_all(b"two").await.unwrap();
        client.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"two");
        let (length, ()) = tokio::join!(stream.read(&mut read), async {
            tokio::task::yield_now().await;
            client.write_all(b"six").await.unwrap();
        });
        assert_eq!((length.unwrap(), &read), (3, b"six"));
        assert!(matches!(stream, EarlyStream::Watched(_)));
        stream.shutdown().await.unwrap();
        assert_eq!(client.read(&mut read).await.unwrap(), 0);
    }
}
