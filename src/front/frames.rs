//! HTTP/2 frames that carry nothing (RFC 9113 section 10.5): a client that sends pings, settings and the like without end
//! costs work for each of them and asks for nothing. They are counted as they are read, and beyond a measure the
//! connection ends. Resets, headers and empty data have limits in the HTTP/2 library.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// What comes before the first frame (RFC 9113 section 3.4), in bytes.
const PREFACE: usize = 24;
/// RFC 9113 section 4.1, in bytes.
const HEADER: usize = 9;

/// Idle frames that may come at once.
const BURST: u32 = 2_000;
/// Idle frames that may come in a second, and more for each request.
const A_SECOND: u32 = 100;
const A_REQUEST: u32 = 20;

const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
/// The first type that is not of the protocol itself; browsers send some (RFC 9218).
const FOREIGN: u8 = 10;
/// A window that is opened by less is no use.
const CRUMB: u32 = 256;

/// What was read so far.
#[derive(Debug)]
struct Frames {
    /// Bytes before the next frame's header.
    skip: usize,
    header: [u8; HEADER + 4],
    filled: usize,
    /// Idle frames that may still come.
    left: u32,
    since: Option<Instant>,
}

impl Default for Frames {
    fn default() -> Self {
        Self { skip: PREFACE, header: [0; HEADER + 4], filled: 0, left: BURST, since: None }
    }
}

impl Frames {
    /// Takes what was read; false once there were too many frames that carry nothing. Any bytes will do: what is no
    /// HTTP/2 is told by the library.
    fn read(&mut self, mut bytes: &[u8], now: Instant) -> bool {
        self.refill(now);
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            let taken = (self.wanted() - self.filled).min(bytes.len());
            self.header[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled == self.wanted() && !self.frame() {
                return false;
            }
        }
        true
    }

    /// How much of a frame is looked at: of a window's opening its size, too.
    fn wanted(&self) -> usize {
        let is_opening = self.filled >= HEADER && self.header[3] == WINDOW_UPDATE;
        if is_opening { HEADER + 4 } else { HEADER }
    }

    fn refill(&mut self, now: Instant) {
        let since = *self.since.get_or_insert(now);
        let seconds = u32::try_from(now.saturating_duration_since(since).as_secs()).unwrap_or(u32::MAX);
        if seconds > 0 {
            self.since = Some(now);
            self.left = self.left.saturating_add(seconds.saturating_mul(A_SECOND)).min(BURST);
        }
    }

    /// Counts the frame whose header is complete.
    fn frame(&mut self) -> bool {
        let [a, b, c, kind, ..] = self.header;
        let length = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap_or(usize::MAX);
        self.skip = length.saturating_sub(self.filled - HEADER);
        let is_idle = match kind {
            PRIORITY | SETTINGS | PING => true,
            WINDOW_UPDATE => {
                let size = [self.header[9], self.header[10], self.header[11], self.header[12]];
                u32::from_be_bytes(size) < CRUMB
            }
            HEADERS => {
                self.left = self.left.saturating_add(A_REQUEST).min(BURST);
                false
            }
            kind => kind >= FOREIGN,
        };
        self.filled = 0;
        if !is_idle {
            return true;
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

/// A connection whose frames are counted as they are read.
pub(super) struct Counted<T> {
    stream: T,
    frames: Frames,
}

impl<T> Counted<T> {
    pub(super) fn new(stream: T) -> Self {
        Self { stream, frames: Frames::default() }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Counted<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, into))?;
        if !self.frames.read(&into.filled()[before..], Instant::now()) {
            return Poll::Ready(Err(io::Error::other("too many frames that carry nothing")));
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counted<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// How many idle frames may still come at once after these portions of a connection; `None` after too many. For the fuzz
/// target `frames`.
#[cfg(fuzzing)]
pub fn count_frames<'a>(mut portions: impl Iterator<Item = &'a [u8]>) -> Option<u32> {
    let (mut frames, now) = (Frames::default(), Instant::now());
    portions.all(|portion| frames.read(portion, now)).then_some(frames.left)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, 0, 0, 0, 0, 1], payload].concat()
    }

    /// How many of them are let through, one after the other at the same moment, of ten thousand.
    fn let_through(each: &[Vec<u8>]) -> usize {
        let (mut frames, now) = (Frames::default(), Instant::now());
        assert!(frames.read(&[b'x'; PREFACE], now));
        (0..10_000).take_while(|n| frames.read(&each[n % each.len()], now)).count()
    }

    #[test]
    fn what_carries_nothing_is_counted() {
        let burst = BURST as usize;
        for (each, expected) in [
            (vec![frame(PING, &[0; 8])], burst),
            (vec![frame(SETTINGS, &[])], burst),
            (vec![frame(PRIORITY, &[0; 5])], burst),
            (vec![frame(0x10, b"u=1")], burst),
            (vec![frame(WINDOW_UPDATE, &[0, 0, 0, 1])], burst),
            (vec![frame(WINDOW_UPDATE, &[0, 0, 0x80, 0])], 10_000),
            (vec![frame(0, &[0; 100])], 10_000),
            (vec![frame(HEADERS, &[0; 100])], 10_000),
            // A browser's.
            (vec![frame(HEADERS, &[0; 100]), frame(0x10, b"u=1"), frame(PING, &[0; 8])], 10_000),
        ] {
            assert_eq!(let_through(&each), expected, "{:?}", each[0]);
        }
    }

    #[test]
    fn time_makes_room_again() {
        let (mut frames, now) = (Frames::default(), Instant::now());
        let ping = frame(PING, &[0; 8]);
        frames.read(&[b'x'; PREFACE], now);
        assert!((0..BURST).all(|_| frames.read(&ping, now)));
        let later = now + Duration::from_secs(3);
        let again = (0..1000).take_while(|_| frames.read(&ping, later)).count();
        assert_eq!(again, 3 * A_SECOND as usize);
    }

    proptest! {
        /// However the bytes arrive, the same frames are seen in them.
        #[test]
        fn any_portions(
            kinds in prop::collection::vec((0_u8..20, 0_usize..40), 0..40),
            portions in prop::collection::vec(1_usize..30, 1..20),
        ) {
            let now = Instant::now();
            let mut bytes = vec![b'x'; PREFACE];
            for (kind, length) in kinds {
                let length = if kind == WINDOW_UPDATE { 4 } else { length };
                bytes.extend(frame(kind, &vec![7; length]));
            }
            let (mut whole, mut pieces) = (Frames::default(), Frames::default());
            whole.read(&bytes, now);
            let mut rest = &bytes[..];
            for size in portions.iter().cycle() {
                let (piece, left) = rest.split_at((*size).min(rest.len()));
                pieces.read(piece, now);
                rest = left;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!((whole.left, whole.filled, whole.skip), (pieces.left, pieces.filled, pieces.skip));
        }
    }
}
