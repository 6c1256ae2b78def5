//! A request on its way to an application over HTTP/1.1.

use std::io::{self, IoSlice, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::Body;
use tokio::io::AsyncWrite;

use super::body::Upload;
use super::wire::{self, Outgoing};

/// Why a request was not sent to its end.
#[derive(Debug)]
pub(super) enum Unsent {
    /// The application's connection is to blame. It may have answered all the same.
    Connection(io::Error),
    /// The client is: its body broke off, or is not as long as it was said to be.
    Client,
}

/// A header, then a body piece by piece: each is asked for once the one before it was taken.
#[derive(Default)]
pub(super) struct Sending {
    /// What goes before the piece; in the beginning the request's header.
    head: Vec<u8>,
    /// How much of it is out.
    sent: usize,
    piece: Bytes,
    /// What goes after it.
    end: &'static [u8],
    frame: Option<Outgoing>,
    body: Upload,
}

impl Sending {
    /// `head` is a request's header as it goes out, with the body that it announces.
    pub(super) fn new(head: Vec<u8>, frame: Option<Outgoing>, body: Upload) -> Self {
        let frame = frame.filter(|_| !body.is_empty());
        Self { head, sent: 0, piece: Bytes::new(), end: b"", frame, body }
    }

    /// Begins again; only a request without a body can.
    pub(super) fn rewind(&mut self) {
        self.sent = 0;
    }

    /// The room that the header took.
    pub(super) fn into_buffer(self) -> Vec<u8> {
        self.head
    }

    /// Ready when everything has gone out.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<Result<(), Unsent>> {
        loop {
            let mut asked = Poll::Ready(());
            if self.frame.is_some() && self.piece.is_empty() && self.end.is_empty() {
                asked = self.poll_piece(context)?;
            }
            ready!(self.poll_flush(context, to)).map_err(Unsent::Connection)?;
            if self.frame.is_none() {
                return Poll::Ready(Ok(()));
            }
            ready!(asked);
        }
    }

    /// Asks for the next piece, or notices that there is none.
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Unsent>> {
        let Some(frame) = &mut self.frame else { return Poll::Ready(Ok(())) };
        let piece = ready!(Pin::new(&mut self.body).poll_frame(context)).transpose();
        let piece = piece.map_err(|_| Unsent::Client)?;
        if self.sent == self.head.len() {
            self.head.clear();
            self.sent = 0;
        }
        let data = match piece.map(http_body::Frame::into_data) {
            Some(Ok(data)) => data,
            ended => {
                let trailers = ended.and_then(|other| other.err()?.into_trailers().ok());
                match frame {
                    Outgoing::Sized(0) => {}
                    Outgoing::Sized(_) => return Poll::Ready(Err(Unsent::Client)),
                    Outgoing::Chunked => wire::write_trailers(trailers.as_ref(), &mut self.head),
                }
                self.frame = None;
                return Poll::Ready(Ok(()));
            }
        };
        match frame {
            Outgoing::Sized(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(Unsent::Client)?;
                if *left == 0 && self.body.is_end_stream() {
                    self.frame = None;
                }
            }
            // An empty chunk would be the last one.
            Outgoing::Chunked if data.is_empty() => return Poll::Ready(Ok(())),
            Outgoing::Chunked => {
                write!(self.head, "{:x}\r\n", data.len()).expect("a Vec takes everything");
                self.end = b"\r\n";
            }
        }
        self.piece = data;
        Poll::Ready(Ok(()))
    }

    fn poll_flush(
        &mut self,
        context: &mut Context<'_>,
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        loop {
            let head = &self.head[self.sent..];
            let written = if self.piece.is_empty() && self.end.is_empty() {
                if head.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                ready!(Pin::new(&mut *to).poll_write(context, head))?
            } else {
                let slices = [IoSlice::new(head), IoSlice::new(&self.piece), IoSlice::new(self.end)];
                ready!(Pin::new(&mut *to).poll_write_vectored(context, &slices))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_head = written.min(head.len());
            self.sent += of_head;
            let of_piece = (written - of_head).min(self.piece.len());
            self.piece.advance(of_piece);
            self.end = &self.end[written - of_head - of_piece..];
        }
    }
}
