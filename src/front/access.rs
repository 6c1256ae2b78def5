//! The access log: a line for each response, once its body has ended or was cut.
//!
//! A front thread formats lines into a buffer of its own and hands it over full, or each second, to the one thread that
//! writes; it takes no lock and makes no system call for a request, and never waits: what a full disk or a stuck pipe
//! does not take is dropped and counted.

pub mod line;
mod writer;

use std::cell::RefCell;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{HOST, REFERER, USER_AGENT};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, Uri, Version};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio::time::Instant;

use self::line::{Line, combined, combined_stamp, json};
use self::writer::Writer;
use super::headers::X_FORWARDED_FOR;
use crate::clock;
use crate::config::{AccessLog as Settings, LogFormat, LogPlace};
use crate::net::client::client_address;

/// A buffer of this size is handed over, bytes.
const BATCH: usize = 16 * 1024;
/// Buffers that may wait for the writer, of all threads.
const WAITING: usize = 64;
/// How long a line waits at most before it is handed over.
pub(super) const FLUSH: Duration = Duration::from_secs(1);
/// nginx's word for a client that left before there was an answer; no such thing is ever sent.
const CLIENT_LEFT: u16 = 499;

/// The log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum AccessLogError {
    /// The file.
    #[error(
        "the access log {} cannot be opened: {source}; its folder has to be there, and this process, which runs as uid {uid}, to be allowed to make files in it: `install -d -m 0750 -o {uid} {}`", path.display(), path.parent().unwrap_or(path).display()
    )]
    Open {
        /// As configured.
        path: PathBuf,
        /// Who tried.
        uid: u32,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The thread that writes it.
    #[error("the access log's thread cannot be started: {0}")]
    Thread(#[source] std::io::Error),
}

/// What the writer and everybody else tell each other.
#[derive(Debug, Default)]
struct Shared {
    /// Lines that were dropped.
    lost: AtomicU64,
    /// It has been told that lines are lost.
    is_told: AtomicBool,
    /// The file is to be opened anew.
    reopen: AtomicBool,
    /// Nothing more will come.
    ending: AtomicBool,
}

/// An open access log and its writing thread.
#[derive(Debug)]
pub struct AccessLog {
    format: LogFormat,
    zone: TimeZone,
    shown: String,
    shared: Arc<Shared>,
    batches: SyncSender<Vec<u8>>,
    /// Hangs up when the writer has ended.
    ended: Mutex<Receiver<()>>,
}

impl AccessLog {
    /// Opens the file, with mode 0640 where it is new, and starts the thread that writes it.
    ///
    /// # Errors
    /// [`AccessLogError`]
    pub fn open(settings: &Settings) -> Result<Self, AccessLogError> {
        let shared = Arc::<Shared>::default();
        let writer = Writer::open(&settings.place, shared.clone()).map_err(|source| {
            let path = match &settings.place {
                LogPlace::Stdout => PathBuf::from("-"),
                LogPlace::File(path) => path.clone(),
            };
            AccessLogError::Open { path, uid: rustix::process::geteuid().as_raw(), source }
        })?;
        let (batches, receiver) = sync_channel(WAITING);
        let (alive, ended) = sync_channel(0);
        let write = move || {
            writer.serve(&receiver);
            drop(alive);
        };
        let thread = std::thread::Builder::new().name("access-log".to_owned());
        thread.spawn(write).map_err(AccessLogError::Thread)?;
        Ok(Self {
            format: settings.format,
            zone: TimeZone::try_system().unwrap_or(TimeZone::UTC),
            shown: settings.place.to_string(),
            shared,
            batches,
            ended: Mutex::new(ended),
        })
    }

    /// Opens the file anew, soon: it may have been moved.
    pub fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Relaxed);
        self.nudge();
    }

    /// Lines that were dropped since the start.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// Waits until what was handed over is written, for at most `limit`.
    pub fn finish(&self, limit: Duration) {
        self.shared.ending.store(true, Ordering::Relaxed);
        self.nudge();
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if ended.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("the access log {} takes nothing; its last lines are lost", self.shown);
        }
    }

    /// Where the queue is full, the writer has no need of it.
    fn nudge(&self) {
        let _ = self.batches.try_send(Vec::new());
    }

    fn hand_over(&self, batch: Vec<u8>) {
        let Err(TrySendError::Full(batch) | TrySendError::Disconnected(batch)) = self.batches.try_send(batch)
        else {
            return;
        };
        self.shared.lose(&batch, || format!("the access log {} does not take lines as fast as they come (is its disk slow, or its reader stuck?)", self.shown));
    }
}

impl Shared {
    /// Counts lines that are dropped, and says why the first time.
    fn lose(&self, lines: &[u8], why: impl FnOnce() -> String) {
        let count = lines.iter().filter(|byte| **byte == b'\n').count() as u64;
        if count == 0 {
            return;
        }
        self.lost.fetch_add(count, Ordering::Relaxed);
        if !self.is_told.swap(true, Ordering::Relaxed) {
            tracing::warn!("{}: lines are dropped, and requests go on", why());
        }
    }
}

/// One thread's lines that are yet to be handed over.
#[derive(Default)]
pub(super) struct Buffer {
    lines: RefCell<Vec<u8>>,
    /// The second that was formatted last, and how.
    stamp: RefCell<(i64, String)>,
}

impl Buffer {
    /// Adds the line of a request that is over.
    pub(super) fn add(&self, log: &AccessLog, record: &Record, tls: Option<rustls::ProtocolVersion>) {
        let at = Timestamp::try_from(clock::now()).unwrap_or(Timestamp::UNIX_EPOCH);
        let line = record.line(tls);
        let mut lines = self.lines.borrow_mut();
        match log.format {
            LogFormat::Combined => {
                let (second, stamp) = &mut *self.stamp.borrow_mut();
                if stamp.is_empty() || *second != at.as_second() {
                    (*second, *stamp) = (at.as_second(), combined_stamp(at, &log.zone));
                }
                combined(&mut lines, &line, stamp);
            }
            LogFormat::Json => json(&mut lines, &line, at),
        }
        if lines.len() >= BATCH {
            log.hand_over(std::mem::replace(&mut *lines, Vec::with_capacity(BATCH)));
        }
    }

    /// Hands over what has been waiting; to be called each [`FLUSH`].
    pub(super) fn flush(&self, log: &AccessLog) {
        let lines = self.lines.take();
        if !lines.is_empty() {
            log.hand_over(lines);
        }
    }
}

/// What is to be said of a request, gathered while it is under way.
pub(super) struct Record {
    client: IpAddr,
    method: Method,
    uri: Uri,
    host: Option<HeaderValue>,
    version: Version,
    referer: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    began: Instant,
    /// When it was sent to the application.
    sent: Option<Instant>,
    /// From then to the response's header.
    upstream: Option<Duration>,
    status: Option<StatusCode>,
    bytes: u64,
    has_ended: bool,
}

impl Record {
    /// Of a request as it came; `peer` is the other end, which may be trusted to tell for whom it comes.
    pub(super) fn new(peer: IpAddr, trusted: &[ipnet::IpNet], request: &Parts, now: Instant) -> Box<Self> {
        let forwarded = request.headers.get_all(&X_FORWARDED_FOR).iter().map(HeaderValue::as_bytes);
        let field = |name| request.headers.get(name).cloned();
        Box::new(Self {
            client: client_address(peer, forwarded, trusted),
            method: request.method.clone(),
            uri: request.uri.clone(),
            host: field(HOST),
            version: request.version,
            referer: field(REFERER),
            user_agent: field(USER_AGENT),
            began: now,
            sent: None,
            upstream: None,
            status: None,
            bytes: 0,
            has_ended: false,
        })
    }

    /// It is sent to the application.
    pub(super) fn sends(&mut self) {
        self.sent = Some(Instant::now());
    }

    /// That has answered, or will not.
    pub(super) fn hears(&mut self) {
        self.upstream = self.sent.map(|sent| sent.elapsed());
    }

    /// The client gets this status.
    pub(super) fn answers(&mut self, status: StatusCode) {
        self.status = Some(status);
        self.has_ended |= status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            || self.method == Method::HEAD;
    }

    /// And so many bytes more of a body.
    pub(super) fn gives(&mut self, bytes: usize, are_last: bool) {
        self.bytes += bytes as u64;
        self.has_ended |= are_last;
    }

    /// The body was complete.
    pub(super) fn ends(&mut self) {
        self.has_ended = true;
    }

    fn line(&self, tls: Option<rustls::ProtocolVersion>) -> Line<'_> {
        let authority = self.uri.authority().map(|authority| authority.as_str().as_bytes());
        let target = self.uri.path_and_query().map(|target| target.as_str().as_bytes());
        Line {
            client: self.client,
            host: authority.or(self.host.as_ref().map(HeaderValue::as_bytes)),
            method: self.method.as_str(),
            target: target.or(authority).unwrap_or_default(),
            version: self.version,
            status: self.status.map_or(CLIENT_LEFT, |status| status.as_u16()),
            bytes: self.bytes,
            is_complete: self.status.is_some() && self.has_ended,
            duration: self.began.elapsed(),
            upstream: self.upstream,
            referer: self.referer.as_ref().map(HeaderValue::as_bytes),
            user_agent: self.user_agent.as_ref().map(HeaderValue::as_bytes),
            tls,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn record(request: Request<()>, trusted: &[ipnet::IpNet]) -> Box<Record> {
        let (parts, ()) = request.into_parts();
        Record::new("10.0.0.1".parse().unwrap(), trusted, &parts, Instant::now())
    }

    #[test]
    fn what_a_line_says_of_a_request() {
        let request = |uri: &str| {
            let request = Request::get(uri).header("host", "field.test");
            request.header("x-forwarded-for", "192.0.2.9").body(()).unwrap()
        };
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        for (uri, trusted, host, target, client) in [
            ("/a?b=c", &[][..], "field.test", "/a?b=c", "10.0.0.1"),
            ("/a", &trusted, "field.test", "/a", "192.0.2.9"),
            ("https://in.test/a?b", &[], "in.test", "/a?b", "10.0.0.1"),
            ("*", &[], "field.test", "*", "10.0.0.1"),
            ("connect.test:443", &[], "connect.test:443", "connect.test:443", "10.0.0.1"),
        ] {
            let record = record(request(uri), trusted);
            let line = record.line(None);
            assert_eq!(line.host, Some(host.as_bytes()), "{uri}");
            assert_eq!(
                (line.target, line.client.to_string()),
                (target.as_bytes(), client.to_owned()),
                "{uri}"
            );
        }
    }

    #[test]
    fn how_a_response_ended() {
        let get = || record(Request::new(()), &[]);
        let line = |record: &Record| {
            let line = record.line(None);
            (line.status, line.bytes, line.is_complete)
        };
        assert_eq!(line(&get()), (499, 0, false), "the client left before there was an answer");
        let mut cut = get();
        cut.answers(StatusCode::OK);
        cut.gives(7, false);
        assert_eq!(line(&cut), (200, 7, false));
        cut.ends();
        assert_eq!(line(&cut), (200, 7, true));
        for (method, status) in [("HEAD", 200), ("GET", 304), ("GET", 204), ("GET", 101)] {
            let mut none = record(Request::builder().method(method).body(()).unwrap(), &[]);
            none.answers(StatusCode::from_u16(status).unwrap());
            assert_eq!(line(&none), (status, 0, true), "{method} {status}");
        }
    }
}
