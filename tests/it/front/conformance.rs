//! HTTP/2 as it is written down (RFC 9113, RFC 7541), on raw frames: the cases of the public list h2spec, in its order.
//!
//! As there, a connection error is told by a GOAWAY with its code or by closing the connection, a stream error by a
//! RST_STREAM or by either of these. The code is looked at more closely here: a connection that is closed after a GOAWAY
//! with another code than the RFC's must be named in [`UNSPECIFIC`].

mod generic;
mod hpack;
mod rfc9113;

use http::Response;
use http_body_util::BodyExt;

use Wanted::{
    Closed, ConnectionError, Data, GoAway, Pong, PongOrClosed, Reset, Responds, Settings, SettingsAck,
    StreamEnd, StreamError,
};

use super::frames::*;
use super::rig::{App, PATIENCE, Pieces, Rig};

/// What the application answers.
const ANSWER: &str = "an answer";

/// What a front must send before long.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Wanted {
    /// As its first frame, with this value.
    Settings(u16, u32),
    SettingsAck,
    Pong([u8; 8]),
    PongOrClosed([u8; 8]),
    /// A response of status 200 on that stream.
    Responds(u32),
    /// A DATA frame on stream 1, of this many bytes if that matters.
    Data(Option<usize>),
    /// The end of the response on stream 1.
    StreamEnd,
    /// RST_STREAM, on that stream.
    Reset(u32, u32),
    GoAway(u32),
    Closed,
    /// Any of these codes will do.
    StreamError(&'static [u32]),
    ConnectionError(&'static [u32]),
}

/// What has come of a turn.
enum Verdict {
    Well,
    /// Closed, as it should be; before it another code was told.
    WellButFor(u32),
    Wrong,
}

impl Wanted {
    /// Judges what was heard last (`None`: the connection is closed), with what was heard before; `None` if there is
    /// nothing to be said yet.
    fn judge(self, before: &[Frame], last: Option<&Frame>) -> Option<Verdict> {
        let by = |is_well: bool| Some(if is_well { Verdict::Well } else { Verdict::Wrong });
        let Some(frame) = last else {
            let told = before.iter().filter(|frame| frame.kind == GOAWAY).find_map(Frame::code);
            return match (self, told) {
                (StreamError(_) | ConnectionError(_), Some(code)) => Some(Verdict::WellButFor(code)),
                (StreamError(_) | ConnectionError(_) | PongOrClosed(_) | Closed, _) => by(true),
                _ => by(false),
            };
        };
        match (self, frame.kind) {
            (Settings(id, value), _) => by(frame.kind == SETTINGS
                && frame.stream == 0
                && !frame.has(ACK)
                && frame.settings().contains(&(id, value))),
            (SettingsAck, SETTINGS) if frame.has(ACK) => by(frame.payload.is_empty()),
            (Pong(payload) | PongOrClosed(payload), PING) => by(frame.has(ACK) && frame.payload == payload),
            (Responds(stream), HEADERS) => {
                by(frame.stream == stream && frame.payload.first() == Some(&STATUS_200))
            }
            (Data(length), DATA) => {
                by(frame.stream == 1 && length.is_none_or(|length| frame.payload.len() == length))
            }
            (StreamEnd, DATA | HEADERS) => {
                (frame.stream == 1 && frame.has(END_STREAM)).then_some(Verdict::Well)
            }
            (Reset(stream, code), RST_STREAM) => by((frame.stream, frame.code()) == (stream, Some(code))),
            (GoAway(code), GOAWAY) => by(frame.code() == Some(code)),
            (StreamError(codes), RST_STREAM) => match frame.code() {
                // A response that didn't wait for the request's end.
                Some(NO_ERROR) => None,
                code => by(code.is_some_and(|code| codes.contains(&code))),
            },
            (StreamError(codes) | ConnectionError(codes), GOAWAY) => {
                // Another one counts once the connection is closed.
                frame.code().is_some_and(|code| codes.contains(&code)).then_some(Verdict::Well)
            }
            // Closing it is all that can come now.
            (PongOrClosed(_) | Closed, _) => None,
            (_, RST_STREAM | GOAWAY) => by(false),
            _ => None,
        }
    }
}

/// `:status: 200` of HPACK's static table.
const STATUS_200: u8 = 0x88;

/// Something is sent, and something must come.
struct Case {
    section: &'static str,
    what: &'static str,
    turns: Vec<(Vec<u8>, Wanted)>,
}

/// One on a fresh connection, without the SETTINGS that are exchanged first.
fn bare(section: &'static str, what: &'static str, sent: &[&[u8]], wanted: Wanted) -> Case {
    Case { section, what, turns: vec![(sent.concat(), wanted)] }
}

/// One on a connection whose settings are agreed on.
fn case(section: &'static str, what: &'static str, sent: &[Vec<u8>], wanted: Wanted) -> Case {
    bare(section, what, &[PREFACE, &settings(&[])], Settings(MAX_CONCURRENT_STREAMS, STREAMS))
        .then(&[frame(SETTINGS, ACK, 0, &[])], SettingsAck)
        .then(sent, wanted)
}

impl Case {
    fn then(mut self, sent: &[Vec<u8>], wanted: Wanted) -> Self {
        self.turns.push((sent.concat(), wanted));
        self
    }

    /// Goes through it; what's wrong, if something is.
    async fn run(&self, rig: &Rig) -> Result<(), String> {
        let mut connection = ByHand::open(rig).await;
        let mut told = None;
        for (sent, wanted) in &self.turns {
            // What can't be sent any more is answered by the end of the connection.
            connection.say(sent).await;
            let mut heard = Vec::new();
            let listening = async {
                loop {
                    let frame = connection.hear().await;
                    if let Some(verdict) = wanted.judge(&heard, frame.as_ref()) {
                        heard.extend(frame);
                        break verdict;
                    }
                    heard.extend(frame);
                }
            };
            let verdict = tokio::time::timeout(PATIENCE, listening).await;
            let heard: Vec<String> = heard.iter().map(ToString::to_string).collect();
            match verdict {
                Ok(Verdict::Well) => {}
                Ok(Verdict::WellButFor(code)) => told = Some(code),
                Ok(Verdict::Wrong) => return Err(format!("wanted {wanted:?}, heard {heard:?}")),
                Err(_) => return Err(format!("wanted {wanted:?}, heard {heard:?} and nothing more")),
            }
        }
        let is_unspecific = UNSPECIFIC.contains(&(self.section, self.what));
        match told {
            None if is_unspecific => {
                Err("the code is the RFC's by now, and UNSPECIFIC need not say so".into())
            }
            Some(code) if code != PROTOCOL_ERROR || !is_unspecific => {
                Err(format!("closed after GOAWAY with error {code}"))
            }
            _ => Ok(()),
        }
    }
}

/// Errors that end the connection, as they should or may, and are told by PROTOCOL_ERROR, "unspecific" (RFC 9113
/// section 7), where the RFC has a code of their own: that's how h2 tells of whatever it can't decode, and of frames
/// on a stream that it knows to be closed. Nothing is taken that shouldn't be.
const UNSPECIFIC: [(&str, &str); 21] = [
    // FRAME_SIZE_ERROR
    ("http2 6.3", "PRIORITY of 4 bytes"),
    ("http2 6.4", "RST_STREAM of 3 bytes"),
    ("http2 6.5", "SETTINGS that acknowledge and say something"),
    ("http2 6.7", "PING of 6 bytes"),
    ("http2 6.9", "WINDOW_UPDATE of 3 bytes"),
    // FLOW_CONTROL_ERROR
    ("http2 6.5.2", "INITIAL_WINDOW_SIZE of 2^31"),
    ("http2 6.9.2", "INITIAL_WINDOW_SIZE of 2^31"),
    // STREAM_CLOSED
    ("http2 5.1", "half-closed: DATA"),
    ("http2 5.1", "half-closed: HEADERS"),
    ("http2 5.1", "closed by RST_STREAM: HEADERS"),
    ("http2 5.1", "closed: HEADERS"),
    ("http2 6.1", "DATA on a stream that is not open"),
    // COMPRESSION_ERROR
    ("http2 4.3", "a field that is cut off"),
    ("hpack 2.3.3", "a field that is not in the table"),
    ("hpack 2.3.3", "a name that is not in the table"),
    ("hpack 4.2", "a size of the table at the end"),
    ("hpack 5.2", "more than 7 bits of padding"),
    ("hpack 5.2", "padding of zeros"),
    ("hpack 5.2", "the end of a string within it"),
    ("hpack 6.1", "index 0"),
    ("hpack 6.3", "a table that is larger than was agreed on"),
];

/// Goes through all of them, as many as the list has, and tells of all that went wrong.
async fn go_through(cases: Vec<Case>, count: usize) -> App {
    assert_eq!(cases.len(), count);
    let app = App::http(|request| async {
        let _ = request.into_body().collect().await;
        Response::new(Pieces::of([super::rig::data(ANSWER)]))
    })
    .await;
    let rig = Rig::start(app.upstream.clone());
    let mut wrong = Vec::new();
    for case in &cases {
        if let Err(why) = case.run(&rig).await {
            wrong.push(format!("{} {}: {why}", case.section, case.what));
        }
    }
    assert!(wrong.is_empty(), "{} of {count} cases:\n{}", wrong.len(), wrong.join("\n"));
    app
}

/// As many as the front says it takes at a time.
const STREAMS: u32 = 128;
const WINDOW: u32 = 65_535;
const FRAME: usize = 16_384;
/// The most that a window may be opened to.
const WIDEST: u32 = 0x7fff_ffff;

const ZEROS: [u8; 8] = [0; 8];
const EIGHT: [u8; 8] = *b"any eigh";

/// HEADERS that are complete.
fn open(stream: u32, block: &[u8]) -> Vec<u8> {
    headers(END_HEADERS, stream, block)
}

/// HEADERS that are complete, and the request with them.
fn whole(stream: u32, block: &[u8]) -> Vec<u8> {
    headers(END_HEADERS | END_STREAM, stream, block)
}

/// A GET, with more in its header.
fn get_with(more: &[u8]) -> Vec<u8> {
    [&get()[..], more].concat()
}

fn post_with(more: &[u8]) -> Vec<u8> {
    [&post()[..], more].concat()
}

fn ping_out() -> Vec<u8> {
    ping(0, EIGHT)
}

fn extra() -> Vec<u8> {
    field("x-extra", "some")
}

fn unknown_frame() -> Vec<u8> {
    frame(0x16, 0, 0, &ZEROS)
}

#[test]
fn names_tell_one_case_from_another() {
    let parts = [
        generic::cases(),
        hpack::understood(),
        rfc9113::connection(),
        rfc9113::streams(),
        rfc9113::frames(),
        rfc9113::messages(),
        hpack::refused(),
    ];
    let mut names: Vec<_> = parts.iter().flatten().map(|case| (case.section, case.what)).collect();
    assert_eq!(names.len(), 147);
    assert!(UNSPECIFIC.iter().all(|name| names.contains(name)));
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 147);
}

#[tokio::test]
async fn what_is_allowed_is_understood() {
    let cases: Vec<Case> = generic::cases().into_iter().chain(hpack::understood()).collect();
    go_through(cases, 44).await;
}

#[tokio::test]
async fn connections_and_streams() {
    let cases: Vec<Case> = rfc9113::connection().into_iter().chain(rfc9113::streams()).collect();
    go_through(cases, 33).await;
}

#[tokio::test]
async fn frames_of_each_type() {
    go_through(rfc9113::frames(), 44).await;
}

#[tokio::test]
async fn requests() {
    let app = go_through(rfc9113::messages(), 18).await;
    // What is malformed in its header isn't forwarded (RFC 9113 section 8.1.1); all of those are GETs.
    assert!(app.seen().iter().all(|seen| seen.line.starts_with("POST ")), "{:?}", app.seen());
}

#[tokio::test]
async fn compressed_headers() {
    go_through(hpack::refused(), 8).await;
}
