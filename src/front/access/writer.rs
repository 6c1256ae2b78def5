//! The thread that writes the access log, and finds out when the file is another one.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::Shared;
use crate::clock;
use crate::config::LogPlace;

/// How often it is looked whether the file was moved.
const LOOK: Duration = Duration::from_secs(1);
/// How often it is told at most how many lines were lost.
const TELL: Duration = Duration::from_secs(60);

/// An open log.
pub(super) struct Writer {
    place: Place,
    shared: Arc<Shared>,
    /// The last line was written in part.
    is_torn: bool,
    looked: Instant,
    told: Instant,
    /// Of those that were lost, how many have been told.
    told_lost: u64,
}

enum Place {
    Stdout,
    File {
        path: PathBuf,
        /// `None` where it cannot be opened now.
        file: Option<File>,
        /// At the last look there was none of that name: whoever moved it may be about to make one.
        is_missing: bool,
    },
}

impl Writer {
    pub(super) fn open(place: &LogPlace, shared: Arc<Shared>) -> io::Result<Self> {
        let place = match place {
            LogPlace::Stdout => Place::Stdout,
            LogPlace::File(path) => Place::File { path: path.clone(), file: open(path)?, is_missing: false },
        };
        let now = clock::monotonic();
        Ok(Self { place, shared, is_torn: false, looked: now, told: now, told_lost: 0 })
    }

    /// Writes until everybody has hung up or the end is announced.
    pub(super) fn serve(mut self, batches: &Receiver<Vec<u8>>) {
        loop {
            match batches.recv_timeout(LOOK) {
                Ok(batch) => self.write(batch),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if self.shared.ending.load(Ordering::Relaxed) {
                // In the time between, somebody may have handed over his last.
                loop {
                    match batches.try_recv() {
                        Ok(batch) => self.write(batch),
                        Err(TryRecvError::Empty | TryRecvError::Disconnected) => return,
                    }
                }
            }
            let is_asked = self.shared.reopen.swap(false, Ordering::Relaxed);
            if is_asked || self.looked.elapsed() >= LOOK {
                self.looked = clock::monotonic();
                // What was begun in one file does not go on in another.
                self.is_torn &= !self.place.look(is_asked);
            }
            self.tell();
        }
    }

    fn write(&mut self, mut batch: Vec<u8>) {
        if batch.is_empty() {
            return;
        }
        if self.is_torn {
            batch.insert(0, b'\n');
        }
        let (written, outcome) = self.place.write(&batch);
        if written > 0 {
            self.is_torn = batch[written - 1] != b'\n';
        }
        if let Err(error) = outcome {
            let place = &self.place;
            self.shared
                .lose(&batch[written..], || format!("the access log {place} cannot be written: {error}"));
        }
    }

    /// Tells from time to time how many lines were lost, once that is over for now.
    fn tell(&mut self) {
        let lost = self.shared.lost.load(Ordering::Relaxed);
        if lost == self.told_lost || self.told.elapsed() < TELL {
            return;
        }
        tracing::warn!(lost = lost - self.told_lost, "lines of the access log {} were lost", self.place);
        (self.told, self.told_lost) = (clock::monotonic(), lost);
        self.shared.is_told.store(false, Ordering::Relaxed);
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stdout => f.write_str("on the standard output"),
            Self::File { path, .. } => path.display().fmt(f),
        }
    }
}

impl Place {
    /// How many bytes were written, and what stopped it. It waits for a pipe to be read.
    fn write(&mut self, bytes: &[u8]) -> (usize, io::Result<()>) {
        let mut written = 0;
        while written < bytes.len() {
            match self.write_some(&bytes[written..]) {
                Ok(0) => return (written, Err(ErrorKind::WriteZero.into())),
                Ok(count) => written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    if let Self::File { file, .. } = self
                        && error.kind() == ErrorKind::BrokenPipe
                    {
                        *file = None;
                    }
                    return (written, Err(error));
                }
            }
        }
        (written, Ok(()))
    }

    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout => {
                // Not through the library's own buffer.
                rustix::io::write(rustix::stdio::stdout(), bytes).map_err(Into::into)
            }
            Self::File { file: Some(file), .. } => file.write(bytes),
            Self::File { file: None, .. } => {
                Err(io::Error::other("it is not open; a pipe needs a reader, and a file a folder"))
            }
        }
    }

    /// Opens the file anew where it has to be, and tells whether it did; what cannot be opened is tried again at the
    /// next look.
    fn look(&mut self, is_asked: bool) -> bool {
        let Self::File { path, file, is_missing } = self else { return false };
        let mark = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
        let there = std::fs::metadata(&*path).map(mark).ok();
        let ours = file.as_ref().and_then(|file| file.metadata().map(mark).ok());
        let was_missing = std::mem::replace(is_missing, there.is_none());
        let is_due = match there {
            _ if ours.is_none() || is_asked => true,
            Some(there) => ours != Some(there),
            None => was_missing,
        };
        match if is_due { open(path) } else { Ok(None) } {
            Ok(Some(opened)) => {
                *file = Some(opened);
                true
            }
            // What is open is better than nothing.
            Ok(None) => false,
            Err(error) => {
                tracing::debug!(%error, "the access log {} cannot be opened anew", path.display());
                false
            }
        }
    }
}

/// The file, or `None` for a pipe that nobody reads.
fn open(path: &std::path::Path) -> io::Result<Option<File>> {
    let mut options = OpenOptions::new();
    // Appending, so that it may be cut while it is written (logrotate's `copytruncate`). To open a pipe shall not wait
    // for a reader.
    options.append(true).create(true).mode(0o640).custom_flags(libc::O_NONBLOCK);
    let file = match options.open(path) {
        Ok(file) => file,
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => return Ok(None),
        Err(error) => return Err(error),
    };
    // To write into it shall.
    let flags = fcntl_getfl(&file)?;
    fcntl_setfl(&file, flags - OFlags::NONBLOCK)?;
    Ok(Some(file))
}
