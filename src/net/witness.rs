//! A stream that remembers how the other side began: where an answer is not what was expected, its first
//! bytes tell what it is.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How many bytes are remembered.
const KEPT: usize = 64;

/// The first bytes that came. Clones share them.
#[derive(Clone, Default)]
pub struct Began(Arc<Mutex<Vec<u8>>>);

impl Began {
    /// What there is so far.
    pub fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = KEPT - kept.len();
        kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

/// A stream that is watched.
pub struct Witness<S> {
    stream: S,
    began: Began,
}

impl<S> Witness<S> {
    /// Watches `stream`, for `began`.
    pub fn new(stream: S, began: Began) -> Self {
        Self { stream, began }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Witness<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.began.note(&buffer.filled()[before..]);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Witness<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn only_the_beginning_is_kept() {
        let (near, mut far) = tokio::io::duplex(1024);
        let began = Began::default();
        let mut watched = Witness::new(near, began.clone());
        assert!(began.bytes().is_empty());
        far.write_all(b"SSH-").await.unwrap();
        watched.read_exact(&mut [0; 4]).await.unwrap();
        assert_eq!(began.bytes(), b"SSH-");
        far.write_all(&[b'x'; 200]).await.unwrap();
        watched.read_exact(&mut [0; 200]).await.unwrap();
        assert_eq!(began.bytes().len(), KEPT);
    }
}
