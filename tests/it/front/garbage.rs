//! Applications whose answers are none, or more than one: a client gets an answer of its own or an error, and the
//! connection that such an answer came by is not used again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::rig::{App, Pieces, Rig, get, post, read_head, settings, soon};
use crate::bed::resident;

/// What no client may ever see: it stands behind each answer's end.
const POISON: &str = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nPOISON";

/// What the client gets.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Wanted {
    /// A 502 or 504 of the front's own.
    Refusal,
    /// That, or an answer that breaks off.
    Failure,
    /// This body, whole.
    Answer(&'static str),
}
use Wanted::{Answer, Failure, Refusal};

/// Whether the application closes the connection after its answer.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Then {
    Stays,
    Closes,
}
use Then::{Closes, Stays};

const CASES: &[(&str, Wanted, Then)] = &[
    // Of no such protocol.
    ("hello, world\n\n", Refusal, Stays),
    ("\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x64\0\x04\0\x02\0\0\0\x05\0\0\x40\0", Refusal, Stays),
    ("\x15\x03\x03\0\x02\x02\x28", Refusal, Stays),
    ("<html>200 OK</html>\r\n\r\n", Refusal, Stays),
    ("HTTP/2 200\r\n\r\n", Refusal, Stays),
    ("HTTP/0.9 200 OK\r\n\r\n", Refusal, Stays),
    ("HTTP/1.1\r\n\r\n", Refusal, Stays),
    ("HTTP/1.1 20 OK\r\n\r\n", Refusal, Stays),
    ("HTTP/1.1 2000 OK\r\n\r\n", Refusal, Stays),
    ("HTTP/1.1 -20 OK\r\n\r\n", Refusal, Stays),
    ("HTTP/1.1 099 Low\r\ncontent-length: 0\r\n\r\n", Refusal, Stays),
    ("GET / HTTP/1.1\r\nhost: a.test\r\n\r\n", Refusal, Stays),
    // Fields that are none.
    ("HTTP/1.1 200 OK\r\nno colon\r\ncontent-length: 2\r\n\r\nok", Refusal, Stays),
    ("HTTP/1.1 200 OK\r\na b: c\r\ncontent-length: 2\r\n\r\nok", Refusal, Stays),
    ("HTTP/1.1 200 OK\r\n: c\r\ncontent-length: 2\r\n\r\nok", Refusal, Stays),
    ("HTTP/1.1 200 OK\r\na: b\0c\r\ncontent-length: 2\r\n\r\nok", Refusal, Stays),
    ("HTTP/1.1 200 OK\r\na: b\rc: d\r\ncontent-length: 2\r\n\r\nok", Refusal, Stays),
    ("HTTP/1.1 200 OK\r\ncontent-length : 2\r\n\r\nok", Refusal, Stays),
    // Lengths.
    ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 44\r\n\r\nok", Refusal, Stays),
    ("HTTP/1.1 200 OK\r\ncontent-length: 2, 44\r\n\r\nok", Refusal, Stays),
    ("HTTP/1.1 200 OK\r\ncontent-length: -2\r\n\r\nok", Refusal, Stays),
    ("HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nok", Refusal, Stays),
    ("HTTP/1.1 200 OK\r\ncontent-length: 0x2\r\n\r\nok", Refusal, Stays),
    ("HTTP/1.1 200 OK\r\ncontent-length: 2 2\r\n\r\nok", Refusal, Stays),
    ("HTTP/1.1 200 OK\r\ncontent-length:\r\n\r\nok", Refusal, Stays),
    ("HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999999\r\n\r\nok", Refusal, Stays),
    ("HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551615\r\n\r\nok", Failure, Closes),
    // Both: the chunks win (RFC 9112 section 6.3).
    (
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        Answer("ok"),
        Stays,
    ),
    // Codings that do not end in chunks reach to the connection's end, or are refused.
    ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\ncontent-length: 2\r\n\r\nok", Failure, Stays),
    ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, gzip\r\n\r\n2\r\nok\r\n0\r\n\r\n", Failure, Stays),
    ("HTTP/1.1 200 OK\r\ntransfer-encoding: xchunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", Failure, Stays),
    // Chunks.
    ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nok\r\n0\r\n\r\n", Failure, Stays),
    ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-2\r\nok\r\n0\r\n\r\n", Failure, Stays),
    ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n+2\r\nok\r\n0\r\n\r\n", Failure, Stays),
    ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0x2\r\nok\r\n0\r\n\r\n", Failure, Stays),
    ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\r\nok\r\n0\r\n\r\n", Failure, Stays),
    (
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\nok\r\n0\r\n\r\n",
        Failure,
        Stays,
    ),
    ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nokay\r\n0\r\n\r\n", Failure, Stays),
    ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\nok\n0\n\n", Failure, Closes),
    ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nno colon\r\n\r\n", Failure, Stays),
    // Closed in the middle.
    ("", Refusal, Closes),
    ("HTTP/1.1 20", Refusal, Closes),
    ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n", Refusal, Closes),
    ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r", Refusal, Closes),
    ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok", Failure, Closes),
    ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2", Failure, Closes),
    ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\no", Failure, Closes),
    ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0", Failure, Closes),
    ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\na: b\r\n", Failure, Closes),
    ("HTTP/1.1 103 Early Hints\r\n\r\n", Refusal, Closes),
    // Not asked for.
    ("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n", Refusal, Stays),
    // As it should be, but for what follows.
    ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", Answer("ok"), Stays),
    ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", Answer("ok"), Stays),
    ("HTTP/1.1 204 No Content\r\n\r\n", Answer(""), Stays),
    ("HTTP/1.1 304 Not Modified\r\ncontent-length: 999\r\n\r\n", Answer(""), Stays),
    ("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", Answer("ok"), Stays),
    ("HTTP/1.1 200 OK\r\n\r\nok", Answer("ok"), Closes),
    ("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", Answer("ok"), Closes),
];

/// An application that answers `/good/N` with `good N`, and everything else as `bad` does; how often a connection was
/// used again after that.
struct Odd {
    app: App,
    reused: Arc<AtomicUsize>,
}

impl Odd {
    async fn new<F>(bad: impl Fn(TcpStream) -> F + Clone + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Option<TcpStream>> + Send + 'static,
    {
        let reused = Arc::<AtomicUsize>::default();
        let counted = reused.clone();
        let app = App::raw(move |mut stream| {
            let (bad, reused) = (bad.clone(), counted.clone());
            async move {
                loop {
                    let head = read_head(&mut stream).await;
                    let Some(path) = head.split(' ').nth(1) else { return };
                    if let Some(number) = path.strip_prefix("/good/") {
                        let answer = format!(
                            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\ngood {number}",
                            5 + number.len()
                        );
                        stream.write_all(answer.as_bytes()).await.unwrap();
                        continue;
                    }
                    let Some(mut stream) = bad(stream).await else { return };
                    // Of this connection nothing may be heard any more but its end.
                    let mut rest = Vec::new();
                    let _ = stream.read_to_end(&mut rest).await;
                    reused.fetch_add(usize::from(rest.windows(5).any(|w| w == b"/good")), Ordering::SeqCst);
                    return;
                }
            }
        })
        .await;
        Self { app, reused }
    }
}

/// What a client has got: the status and the whole body, or nothing whole.
type Got = Option<(StatusCode, Bytes)>;

async fn ask(rig: &Rig, is_h2: bool, method: Method, path: &str) -> Got {
    let target = if is_h2 { format!("https://a.test{path}") } else { path.to_owned() };
    let mut request = get(&target);
    *request.method_mut() = method;
    let response = if is_h2 {
        soon(rig.h2().await.send_request(request)).await.ok()?
    } else {
        soon(rig.h1().await.send_request(request)).await.ok()?
    };
    let status = response.status();
    let body = soon(response.into_body().collect()).await.ok()?;
    Some((status, body.to_bytes()))
}

fn is_refusal(got: &Got) -> bool {
    got.as_ref().is_some_and(|(status, body)| {
        [StatusCode::BAD_GATEWAY, StatusCode::GATEWAY_TIMEOUT].contains(status) && !body.is_empty()
    })
}

fn is_as(wanted: Wanted, got: &Got) -> bool {
    let is_answer =
        |text| got.as_ref().is_some_and(|(status, body)| !status.is_server_error() && body == text);
    match wanted {
        Refusal => is_refusal(got),
        Failure => is_refusal(got) || got.is_none(),
        Answer(text) => is_answer(text),
    }
}

/// Asks for something good and then for `/bad`, over both protocols, and tells what was wrong.
async fn complaints(name: &str, odd: &Odd, rig: &Rig, method: Method, wanted: Wanted) -> Vec<String> {
    let mut complaints = Vec::new();
    for (n, is_h2) in [false, true].into_iter().enumerate() {
        let got = ask(rig, is_h2, method.clone(), &format!("/bad/{n}")).await;
        if !is_as(wanted, &got) {
            complaints.push(format!("{name}, HTTP/2: {is_h2}: {got:?} in place of {wanted:?}"));
        }
        for is_h2 in [false, true] {
            let got = ask(rig, is_h2, Method::GET, &format!("/good/{n}")).await;
            if got != Some((StatusCode::OK, format!("good {n}").into())) {
                complaints.push(format!("{name}, HTTP/2: {is_h2}: {got:?} in place of its own answer"));
            }
        }
    }
    if odd.reused.load(Ordering::SeqCst) > 0 {
        complaints.push(format!("{name}: the connection was used again"));
    }
    complaints
}

/// A front before it that does not wait for long.
fn rig(odd: &Odd) -> Rig {
    let mut front = settings(odd.app.upstream.clone());
    front.response_timeout = Duration::from_secs(5);
    Rig::with(&front, Duration::ZERO)
}

#[tokio::test]
async fn a_broken_answer_is_an_error_and_ends_the_connection() {
    let mut checks = JoinSet::new();
    for &(answer, wanted, then) in CASES {
        for poison in [false, true] {
            // What a connection is worth after a right answer is another question.
            if poison && then == Closes || !poison && matches!(wanted, Answer(_)) && then == Stays {
                continue;
            }
            checks.spawn(async move {
                let odd = Odd::new(move |mut stream: TcpStream| async move {
                    let _ = stream.write_all(answer.as_bytes()).await;
                    if poison {
                        let _ = stream.write_all(POISON.as_bytes()).await;
                    }
                    (then == Stays).then_some(stream)
                })
                .await;
                complaints(&format!("{answer:?}, {poison}"), &odd, &rig(&odd), Method::GET, wanted).await
            });
        }
    }
    let wrong: Vec<_> = checks.join_all().await.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn a_body_where_there_is_none_is_nobodys() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nPOISON",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n6\r\nPOISON\r\n0\r\n\r\n",
    ] {
        let odd = Odd::new(move |mut stream: TcpStream| async move {
            let _ = stream.write_all(answer.as_bytes()).await;
            Some(stream)
        })
        .await;
        let rig = rig(&odd);
        let wrong = complaints(answer, &odd, &rig, Method::HEAD, Answer("")).await;
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}

#[tokio::test]
async fn an_answer_that_nobody_asked_for_is_nobodys() {
    // Some time after the right one, while the connection rests.
    let (told, mut sent) = tokio::sync::mpsc::unbounded_channel();
    let odd = Odd::new(move |mut stream: TcpStream| {
        let told = told.clone();
        async move {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
            let _ = stream.write_all(POISON.as_bytes()).await;
            told.send(()).unwrap();
            Some(stream)
        }
    })
    .await;
    let rig = rig(&odd);
    for n in 0..6 {
        let is_h2 = n % 2 == 1;
        let got = ask(&rig, is_h2, Method::GET, "/bad").await;
        assert_eq!(got, Some((StatusCode::OK, "ok".into())));
        soon(sent.recv()).await.unwrap();
        // Sent is not yet arrived.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let got = ask(&rig, !is_h2, Method::GET, &format!("/good/{n}")).await;
        assert_eq!(got, Some((StatusCode::OK, format!("good {n}").into())));
    }
    assert_eq!(odd.reused.load(Ordering::SeqCst), 0);
}

/// Writes until it is not taken any more.
async fn without_end(mut stream: TcpStream, begins: &'static str, again: &'static str) -> Option<TcpStream> {
    let many = again.repeat(64 * 1024 / again.len());
    let mut written = stream.write_all(begins.as_bytes()).await;
    while written.is_ok() {
        written = stream.write_all(many.as_bytes()).await;
    }
    None
}

#[tokio::test]
async fn a_header_without_end_is_refused() {
    for (begins, again) in [
        ("HTTP/1.1 200 OK\r\n", "x"),
        ("HTTP/1.1 200 OK\r\n", "a: b\r\n"),
        ("HTTP/1.1 200 OK\r\na: ", "y"),
        ("HTTP/1.1 200 ", "y"),
        ("", "\r\n"),
        ("", "HTTP/1.1 103 Early Hints\r\n\r\n"),
        ("", "x"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", "a: b\r\n"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;", "x"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", "0"),
    ] {
        eprintln!("{begins:?} {again:?}");
        let before = resident(std::process::id());
        let odd = Odd::new(move |stream| without_end(stream, begins, again)).await;
        let rig = rig(&odd);
        let wrong = complaints(&format!("{begins:?} {again:?}"), &odd, &rig, Method::GET, Failure).await;
        assert!(wrong.is_empty(), "{wrong:#?}");
        let after = resident(std::process::id());
        assert!(after < before + 100_000, "{begins:?} {again:?}: from {before} to {after} kB");
    }
}

#[tokio::test]
async fn so_many_hints_may_precede_an_answer() {
    for (hints, wanted, is_h2) in
        [(32, Answer("ok"), false), (32, Answer("ok"), true), (33, Refusal, false), (33, Refusal, true)]
    {
        let odd = Odd::new(move |mut stream: TcpStream| async move {
            let answer = "HTTP/1.1 103 Early Hints\r\na: b\r\n\r\n".repeat(hints)
                + "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            let _ = stream.write_all(answer.as_bytes()).await;
            Some(stream)
        })
        .await;
        let got = ask(&rig(&odd), is_h2, Method::GET, "/bad").await;
        assert!(is_as(wanted, &got), "{hints}: {got:?}");
    }
}

#[tokio::test]
async fn a_thousand_fields_are_refused() {
    let odd = Odd::new(|mut stream: TcpStream| async move {
        let fields: String = (0..1000).map(|n| format!("x-{n}: y\r\n")).collect();
        let answer = format!("HTTP/1.1 200 OK\r\n{fields}content-length: 2\r\n\r\nok");
        let _ = stream.write_all(answer.as_bytes()).await;
        Some(stream)
    })
    .await;
    let rig = rig(&odd);
    let wrong = complaints("a thousand fields", &odd, &rig, Method::GET, Refusal).await;
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn an_answer_before_the_upload_has_ended_is_the_last_one() {
    // Read or unread, and with the connection closed or open after it.
    for (closes, status) in
        [(true, "413 Content Too Large"), (false, "413 Content Too Large"), (false, "200 OK")]
    {
        let odd = Odd::new(move |mut stream: TcpStream| async move {
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 5\r\n\r\nearly");
            let _ = stream.write_all(answer.as_bytes()).await;
            if closes {
                let _ = stream.shutdown().await;
            }
            // Nothing is read for a while.
            tokio::time::sleep(Duration::from_millis(300)).await;
            Some(stream)
        })
        .await;
        let rig = rig(&odd);
        for is_h2 in [false, true] {
            let (feed, pieces) = Pieces::new();
            for _ in 0..64 {
                feed.send(Ok(Frame::data(Bytes::from_static(&[b'x'; 64 * 1024])))).unwrap();
            }
            let target = if is_h2 { "https://a.test/bad" } else { "/bad" };
            let request = post(target, pieces);
            let response = if is_h2 {
                soon(rig.h2().await.send_request(request)).await.ok()
            } else {
                soon(rig.h1().await.send_request(request)).await.ok()
            };
            drop(feed);
            // The answer as it came, or an error; a client that still sends may see a cut in its place.
            if let Some(response) = response {
                let came = response.status();
                let body = soon(response.into_body().collect()).await.map(|body| body.to_bytes());
                let is_its_own =
                    status.starts_with(came.as_str()) && body.as_ref().is_ok_and(|body| body == "early");
                assert!(
                    is_its_own || came.is_server_error() || body.is_err(),
                    "{status}, {is_h2}: {came} {body:?}"
                );
            }
            for n in 0..3 {
                let got = ask(&rig, is_h2, Method::GET, &format!("/good/{n}")).await;
                assert_eq!(got, Some((StatusCode::OK, format!("good {n}").into())), "{status}, {is_h2}");
            }
        }
        assert_eq!(odd.reused.load(Ordering::SeqCst), 0, "{status}");
    }
}
