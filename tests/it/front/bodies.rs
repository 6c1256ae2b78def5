//! Bodies of every kind, both ways, without being collected; trailers; other protocols.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::rig::{App, Pieces, Rig, data, get, post, read_head, soon, text};

#[tokio::test]
async fn answers_without_a_body_keep_their_length() {
    let app = App::raw(|mut stream| async move {
        loop {
            let head = read_head(&mut stream).await;
            if head.is_empty() {
                return;
            }
            let answer = match head.split(' ').nth(1).unwrap() {
                "/head" => "HTTP/1.1 200 OK\r\ncontent-length: 12345\r\n\r\n",
                "/204" => "HTTP/1.1 204 No Content\r\n\r\n",
                "/304" => "HTTP/1.1 304 Not Modified\r\netag: \"x\"\r\ncontent-length: 12345\r\n\r\n",
                "/103" => "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
                "/odd" => "HTTP/1.1 299 Rather Well\r\ncontent-length: 0\r\n\r\n",
                _ => "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            };
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    })
    .await;
    let rig = Rig::start(app.upstream.clone());
    let (mut h1, mut h2) = (rig.h1().await, rig.h2().await);
    for (path, status, length, body) in [
        ("/head", 200, Some("12345"), ""),
        ("/204", 204, None, ""),
        ("/304", 304, Some("12345"), ""),
        ("/103", 200, Some("2"), "ok"),
        ("/odd", 299, Some("0"), ""),
        ("/", 200, Some("0"), ""),
    ] {
        let method = if path == "/head" { Method::HEAD } else { Method::GET };
        let mut one = get(path);
        *one.method_mut() = method.clone();
        let mut two = get(&format!("https://a.test{path}"));
        *two.method_mut() = method;
        let one = soon(h1.send_request(one)).await.unwrap();
        let two = soon(h2.send_request(two)).await.unwrap();
        for response in [one, two] {
            let version = response.version();
            assert_eq!(response.status().as_u16(), status, "{path} {version:?}");
            // HTTP/1.1 leaves it out of a 304, where it is optional (RFC 9110 section 8.6).
            let length = length.filter(|_| path != "/304" || version == http::Version::HTTP_2);
            let sent = response.headers().get("content-length").map(|value| value.to_str().unwrap());
            assert_eq!(sent, length, "{path} {version:?}");
            assert_eq!(text(response).await, body, "{path} {version:?}");
        }
    }
    assert_eq!(app.connections.load(Ordering::SeqCst), 1);
    let answer = rig.talk("GET /odd HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 299 Rather Well\r\n"), "{answer}");
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let app = App::http(|request| async move {
        let got = request.into_body().collect().await.unwrap();
        let mut trailers = HeaderMap::new();
        let sum = got.trailers().and_then(|t| t.get("x-sum")).cloned();
        trailers.insert("x-echo", sum.unwrap_or(HeaderValue::from_static("none")));
        let mut response = Response::new(Pieces::of([data("body"), Frame::trailers(trailers)]));
        response.headers_mut().insert("trailer", HeaderValue::from_static("x-echo"));
        response
    })
    .await;
    let rig = Rig::start(app.upstream.clone());
    let sum = || {
        Frame::trailers(HeaderMap::from_iter([("x-sum".parse().unwrap(), HeaderValue::from_static("42"))]))
    };
    let mut one = post("/", Pieces::of([data("up"), sum()]));
    let mut two = post("https://a.test/", Pieces::of([data("up"), sum()]));
    for request in [&mut one, &mut two] {
        request.headers_mut().insert("te", HeaderValue::from_static("trailers"));
        request.headers_mut().insert("trailer", HeaderValue::from_static("x-sum"));
    }
    let one = soon(rig.h1().await.send_request(one)).await.unwrap();
    let two = soon(rig.h2().await.send_request(two)).await.unwrap();
    for response in [one, two] {
        let version = response.version();
        let got = soon(response.into_body().collect()).await.unwrap();
        assert_eq!(got.trailers().unwrap()["x-echo"], "42", "{version:?}");
        assert_eq!(got.to_bytes(), "body");
    }
}

const PIECE: usize = 64 * 1024;
const PIECES: u64 = 1024;

fn piece() -> Bytes {
    Bytes::from(vec![7; PIECE])
}

#[tokio::test]
async fn big_bodies_pass_whole_both_ways() {
    let app = App::http(|request| async move {
        let mut body = request.into_body();
        let mut received = 0_u64;
        while let Some(frame) = body.frame().await {
            received += frame.unwrap().data_ref().map_or(0, |data| data.len() as u64);
        }
        let mut response = Response::new(Pieces::of((0..PIECES).map(|_| Frame::data(piece()))));
        response.headers_mut().insert("x-received", HeaderValue::from(received));
        response
    })
    .await;
    let rig = Rig::start(app.upstream.clone());
    let body = || Pieces::of((0..PIECES).map(|_| Frame::data(piece())));
    let one = soon(rig.h1().await.send_request(post("/", body()))).await.unwrap();
    let two = soon(rig.h2().await.send_request(post("https://a.test/", body()))).await.unwrap();
    for response in [one, two] {
        assert_eq!(response.headers()["x-received"], HeaderValue::from(PIECES * PIECE as u64));
        let got = soon(response.into_body().collect()).await.unwrap().to_bytes();
        assert_eq!(got.len() as u64, PIECES * PIECE as u64);
        assert!(got.iter().all(|&b| b == 7));
    }
}

/// How far something got before it stood still.
async fn standstill(counter: &AtomicU64) -> u64 {
    let mut last = 0;
    let mut same = 0;
    while same < 20 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let now = counter.load(Ordering::SeqCst);
        same = if now == last && now > 0 { same + 1 } else { 0 };
        last = now;
    }
    last
}

/// Sockets in between may hold a few MiB; the front itself must not hold more.
const HELD: u64 = 24 * 1024 * 1024;

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_application() {
    let sent = Arc::new(AtomicU64::new(0));
    let app = App::raw({
        let sent = sent.clone();
        move |mut stream| {
            let sent = sent.clone();
            async move {
                read_head(&mut stream).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
                for _ in 0..PIECES {
                    if stream.write_all(&piece()).await.is_err() {
                        return;
                    }
                    sent.fetch_add(PIECE as u64, Ordering::SeqCst);
                }
            }
        }
    })
    .await;
    let rig = Rig::start(app.upstream.clone());
    let mut raw = rig.raw().await;
    raw.write_all(b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n").await.unwrap();
    let held = soon(standstill(&sent)).await;
    assert!(held < HELD, "HTTP/1.1: {held}");
    drop(raw);
    sent.store(0, Ordering::SeqCst);
    let two = soon(rig.h2().await.send_request(get("https://a.test/"))).await.unwrap();
    let held = soon(standstill(&sent)).await;
    assert!(held < HELD, "HTTP/2: {held}");
    let whole = soon(two.into_body().collect()).await.unwrap().to_bytes();
    assert_eq!(whole.len() as u64, PIECES * PIECE as u64);
}

#[tokio::test]
async fn an_application_that_does_not_read_stops_the_client() {
    let app = App::raw(|mut stream| async move {
        read_head(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    let rig = Rig::start(app.upstream.clone());
    let sent = AtomicU64::new(0);
    let mut raw = rig.raw().await;
    let upload = async {
        raw.write_all(b"POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: 67108864\r\n\r\n").await.unwrap();
        for _ in 0..PIECES {
            raw.write_all(&piece()).await.unwrap();
            sent.fetch_add(PIECE as u64, Ordering::SeqCst);
        }
    };
    tokio::select! {
        () = upload => panic!("all of it was taken"),
        held = standstill(&sent) => assert!(held < HELD, "{held}"),
    }
}

#[tokio::test]
async fn an_early_answer_arrives_while_the_upload_goes_on() {
    let app = App::http(|request| async move {
        // Echoes each piece as it comes.
        let (feed, pieces) = Pieces::new();
        tokio::spawn(async move {
            let mut body = request.into_body();
            while let Some(Ok(frame)) = body.frame().await {
                if feed.send(Ok(frame)).is_err() {
                    return;
                }
            }
        });
        Response::new(pieces)
    })
    .await;
    let rig = Rig::start(app.upstream.clone());
    let (mut h1, mut h2) = (rig.h1().await, rig.h2().await);
    for target in ["/", "https://a.test/"] {
        let (feed, pieces) = Pieces::new();
        let request = post(target, pieces);
        let answer = if target == "/" {
            soon(h1.send_request(request)).await.unwrap()
        } else {
            soon(h2.send_request(request)).await.unwrap()
        };
        let mut body = answer.into_body();
        for text in ["one", "two", "three"] {
            feed.send(Ok(data(text))).unwrap();
            let echoed = soon(body.frame()).await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(echoed, text);
        }
        drop(feed);
        assert_eq!(soon(body.collect()).await.unwrap().to_bytes(), "", "{target}");
    }
}

#[tokio::test]
async fn a_get_may_have_a_body_of_any_framing() {
    let app = App::http(|request| async move {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Response::new(Pieces::of([Frame::data(body)]))
    })
    .await;
    let rig = Rig::start(app.upstream.clone());
    let pieces = || Pieces::of([data("que"), data("ry")]);
    let two = get("https://a.test/").map(|_| pieces());
    assert_eq!(text(soon(rig.h2().await.send_request(two)).await.unwrap()).await, "query");
    let answer = rig
        .talk(
            "GET / HTTP/1.1\r\nhost: a.test\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n\
             3\r\nque\r\n2\r\nry\r\n0\r\n\r\n",
        )
        .await;
    assert!(answer.contains("query"), "{answer}");
}

#[tokio::test]
async fn expectations_are_met_here() {
    let app = App::http(|request| async move {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Response::new(Pieces::of([Frame::data(body)]))
    })
    .await;
    let rig = Rig::start(app.upstream.clone());
    let mut raw = rig.raw().await;
    raw.write_all(b"POST / HTTP/1.1\r\nhost: a.test\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(soon(read_head(&mut raw)).await, "HTTP/1.1 100 Continue\r\n\r\n");
    raw.write_all(b"ok").await.unwrap();
    assert!(soon(read_head(&mut raw)).await.starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!(app.last().header("expect"), [""; 0]);
}

/// An application that switches to "shout": every byte comes back in upper case.
pub(super) async fn shouting() -> App {
    App::raw(|mut stream| async move {
        let head = read_head(&mut stream).await.to_ascii_lowercase();
        assert!(head.contains("connection: upgrade\r\n") && head.contains("upgrade: shout\r\n"), "{head}");
        let answer =
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: shout\r\n\r\nHELLO ";
        stream.write_all(answer).await.unwrap();
        let mut buffer = [0; 1024];
        loop {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(n) => stream.write_all(&buffer[..n].to_ascii_uppercase()).await.unwrap(),
            }
        }
    })
    .await
}

pub(super) const SHOUT: &[u8] =
    b"GET / HTTP/1.1\r\nhost: a.test\r\nconnection: Upgrade\r\nupgrade: shout\r\n\r\nearly ";

#[tokio::test]
async fn another_protocol_passes_both_ways() {
    let app = shouting().await;
    let rig = Rig::start(app.upstream.clone());
    let mut raw = rig.raw().await;
    raw.write_all(SHOUT).await.unwrap();
    let head = soon(read_head(&mut raw)).await;
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
    assert!(head.contains("upgrade: shout\r\n") && head.contains("connection: upgrade\r\n"), "{head}");
    let mut heard = [0; 12];
    soon(raw.read_exact(&mut heard)).await.unwrap();
    assert_eq!(&heard, b"HELLO EARLY ");
    for _ in 0..100 {
        raw.write_all(b"more words").await.unwrap();
        let mut heard = [0; 10];
        soon(raw.read_exact(&mut heard)).await.unwrap();
        assert_eq!(&heard, b"MORE WORDS");
    }
    raw.shutdown().await.unwrap();
    assert_eq!(soon(raw.read(&mut [0])).await.unwrap(), 0);
}

#[tokio::test]
async fn an_upgrade_may_be_declined_and_the_connection_lives_on() {
    let app = App::http(|request| async move {
        let mut response = Response::new(Pieces::of([data("no")]));
        if request.uri() == "/426" {
            *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
            response.headers_mut().insert("upgrade", HeaderValue::from_static("shout"));
        }
        response
    })
    .await;
    let rig = Rig::start(app.upstream.clone());
    let mut h1 = rig.h1().await;
    let mut request = get("/");
    request.headers_mut().insert("connection", HeaderValue::from_static("upgrade"));
    request.headers_mut().insert("upgrade", HeaderValue::from_static("shout"));
    assert_eq!(text(soon(h1.send_request(request)).await.unwrap()).await, "no");
    let answer = soon(h1.send_request(get("/426"))).await.unwrap();
    assert_eq!(answer.status(), StatusCode::UPGRADE_REQUIRED);
    assert_eq!(answer.headers()["upgrade"], "shout");
    let mut request = get("/");
    text(answer).await;
    request.headers_mut().insert("connection", HeaderValue::from_static("upgrade, http2-settings"));
    request.headers_mut().insert("upgrade", HeaderValue::from_static("h2c"));
    assert_eq!(text(soon(h1.send_request(request)).await.unwrap()).await, "no");
    assert_eq!(app.last().header("upgrade"), [""; 0], "HTTP/2 in the clear is not passed on");
}
