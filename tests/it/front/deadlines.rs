//! Those who take too long, and those who take too much room.

use std::sync::Arc;
use std::time::Duration;

use http::Response;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use wicketgate::config::{Front, Upstream};

use super::rig::{App, PATIENCE, Pieces, Rig, data, get, post, settings, soon, text};

const SHORT: Duration = Duration::from_millis(150);

/// A connection without a request rests after a shorter time than this.
pub(super) const LONGER_THAN_AWAKE: Duration = Duration::from_millis(400);

fn hasty(upstream: Upstream) -> Front {
    Front { idle_timeout: SHORT, ..settings(upstream) }
}

#[tokio::test]
async fn a_silent_client_never_gets_past_the_handshake() {
    let front = Front { handshake_timeout: SHORT, ..settings(Upstream::Demo) };
    let rig = Rig::with(&front, Duration::ZERO);
    for first in [&b""[..], b"\x16\x03\x01\x02\x00\x01"] {
        let mut tcp = TcpStream::connect(rig.address).await.unwrap();
        tcp.write_all(first).await.unwrap();
        let _ = soon(tcp.read_to_end(&mut Vec::new())).await;
    }
}

#[tokio::test]
async fn idling_ends_with_a_goodbye_and_half_a_request_without() {
    let rig = Rig::with(&hasty(App::saying("ok").await.upstream), Duration::ZERO);
    let mut idle = rig.raw().await;
    idle.write_all(b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n").await.unwrap();
    let mut heard = Vec::new();
    soon(idle.read_to_end(&mut heard)).await.expect("close_notify");
    assert!(heard.starts_with(b"HTTP/1.1 200"));
    let mut never = rig.raw().await;
    soon(never.read_to_end(&mut Vec::new())).await.expect("close_notify");
    let mut slow = rig.raw().await;
    slow.write_all(b"GET / HTTP/1.1\r\nhost:").await.unwrap();
    let _ = soon(slow.read_to_end(&mut Vec::new())).await;
    let mut h2 = rig.h2().await;
    assert_eq!(text(soon(h2.send_request(get("https://a.test/"))).await.unwrap()).await, "ok");
    let closed = async {
        while !h2.is_closed() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(closed).await;
    let mut mute = rig.tls(rig.authority.client(&["h2"]), "a.test").await.unwrap();
    let _ = soon(mute.read_to_end(&mut Vec::new())).await;
}

#[tokio::test]
async fn a_connection_wakes_from_its_rest_as_if_nothing_had_been() {
    let rig = Rig::start(App::saying("ok").await.upstream);
    let rest = || tokio::time::sleep(LONGER_THAN_AWAKE);
    let mut raw = rig.raw().await;
    rest().await;
    for piece in ["GET / HT", "TP/1.1\r\nhost: a.te", "st\r\n\r\n"] {
        raw.write_all(piece.as_bytes()).await.unwrap();
        rest().await;
    }
    let answer = soon(super::rig::read_head(&mut raw)).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let mut h1 = rig.h1().await;
    for _ in 0..2 {
        assert_eq!(text(soon(h1.send_request(get("/"))).await.unwrap()).await, "ok");
        rest().await;
    }
}

#[tokio::test]
async fn a_client_that_is_slow_to_read_the_end_gets_all_of_it() {
    let app = App::http(|request| async move {
        let length = request.uri().path()[1..].parse().unwrap();
        Response::new(Pieces::of([http_body::Frame::data(vec![7; length].into())]))
    })
    .await;
    let rig = Rig::start(app.upstream);
    // The sockets in between hold about as much as one of these, so that its end waits in the front.
    let mut waiting = Vec::new();
    for step in 1..=64 {
        let length = step * 64 * 1024;
        let tcp = TcpSocket::new_v4().unwrap();
        tcp.set_recv_buffer_size(16 * 1024).unwrap();
        let tcp = tcp.connect(rig.address).await.unwrap();
        let config = Arc::new(rig.authority.client(&["http/1.1"]));
        let mut raw = soon(super::rig::over(tcp, config, "a.test")).await.unwrap();
        let request = format!("GET /{length} HTTP/1.1\r\nhost: a.test\r\n\r\n");
        raw.write_all(request.as_bytes()).await.unwrap();
        waiting.push((raw, length));
    }
    tokio::time::sleep(LONGER_THAN_AWAKE * 2).await;
    for (mut raw, length) in waiting {
        super::rig::read_head(&mut raw).await;
        // Chunk by chunk, up to the last one.
        let (mut body, mut total) = (tokio::io::BufReader::new(raw), 0);
        loop {
            let mut size = String::new();
            soon(tokio::io::AsyncBufReadExt::read_line(&mut body, &mut size)).await.unwrap();
            let size = usize::from_str_radix(size.trim(), 16).unwrap();
            soon(body.read_exact(&mut vec![0; size + 2])).await.unwrap();
            total += size;
            if size == 0 {
                break;
            }
        }
        assert_eq!(total, length);
    }
}

#[tokio::test]
async fn an_upload_that_stands_still_is_a_408_and_a_slow_one_is_not() {
    let app = App::http(|request| async move {
        let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        Response::new(Pieces::of([http_body::Frame::data(body)]))
    })
    .await;
    let mut front = hasty(app.upstream);
    front.response_timeout = SHORT;
    let rig = Rig::with(&front, Duration::ZERO);
    let (feed, pieces) = Pieces::new();
    feed.send(Ok(data("part"))).unwrap();
    let answer = soon(rig.h2().await.send_request(post("https://a.test/", pieces))).await.unwrap();
    assert_eq!(answer.status(), 408);
    drop(feed);
    let (feed, pieces) = Pieces::new();
    tokio::spawn(async move {
        for _ in 0..10 {
            tokio::time::sleep(SHORT / 3).await;
            feed.send(Ok(data("x"))).unwrap();
        }
    });
    let answer = soon(rig.h1().await.send_request(post("/", pieces))).await.unwrap();
    assert_eq!(text(answer).await, "xxxxxxxxxx", "longer than every limit, yet never still");
}

#[tokio::test]
async fn a_slow_answer_outlives_the_idle_limit() {
    let app = App::http(|_| async {
        tokio::time::sleep(SHORT * 3).await;
        Response::new(Pieces::of([data("at last")]))
    })
    .await;
    let rig = Rig::with(&hasty(app.upstream), Duration::ZERO);
    assert_eq!(text(soon(rig.h1().await.send_request(get("/"))).await.unwrap()).await, "at last");
    let answer = soon(rig.h2().await.send_request(get("https://a.test/"))).await.unwrap();
    assert_eq!(text(answer).await, "at last");
}

#[tokio::test]
async fn at_the_cap_the_idlest_goes_and_the_busy_stay() {
    let app = App::http(|request| async move {
        let (feed, pieces) = Pieces::new();
        if request.uri() == "/long" {
            feed.send(Ok(data("begun"))).unwrap();
            tokio::spawn(async move {
                tokio::time::sleep(PATIENCE).await;
                drop(feed);
            });
        }
        Response::new(pieces)
    })
    .await;
    let front = Front { max_connections: 3, ..settings(app.upstream) };
    let rig = Rig::with(&front, Duration::ZERO);
    let mut busy = rig.h1().await;
    let mut long = soon(busy.send_request(get("/long"))).await.unwrap().into_body();
    assert_eq!(soon(long.frame()).await.unwrap().unwrap().into_data().unwrap(), "begun");
    let mut silent = TcpStream::connect(rig.address).await.unwrap();
    let mut idle = rig.raw().await;
    for _ in 0..2 {
        let mut newcomer = rig.h1().await;
        assert_eq!(soon(newcomer.send_request(get("/"))).await.unwrap().status(), 200);
    }
    let _ = soon(silent.read_to_end(&mut Vec::new())).await;
    let _ = soon(idle.read_to_end(&mut Vec::new())).await;
    let pending = tokio::time::timeout(Duration::from_millis(50), long.frame()).await;
    assert!(pending.is_err(), "the busy one is still there");
}
