//! An application that is away, hangs, cuts, or closes what was kept open.

use std::sync::atomic::Ordering;
use std::time::Duration;

use http::StatusCode;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wicketgate::config::{Place, Upstream};

use super::rig::{App, Pieces, Rig, data, get, http, post, read_head, settings, soon, text};

const SHORT: Duration = Duration::from_millis(100);

/// The status over both protocols, and whether there is a page that says why.
async fn statuses(rig: &Rig) -> [StatusCode; 2] {
    let one = soon(rig.h1().await.send_request(get("/"))).await.unwrap();
    let two = soon(rig.h2().await.send_request(get("https://a.test/"))).await.unwrap();
    let statuses = [one.status(), two.status()];
    for response in [one, two] {
        assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
        assert!(text(response).await.contains("the application behind this server"));
    }
    statuses
}

#[tokio::test]
async fn an_application_that_is_away_is_a_502() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for upstream in [
        http("127.0.0.1", gone),
        http("name.invalid", 80),
        Upstream::Http(Place::Unix("/nonexistent/app.sock".into())),
    ] {
        let shown = format!("{upstream:?}");
        assert_eq!(statuses(&Rig::start(upstream)).await, [StatusCode::BAD_GATEWAY; 2], "{shown}");
    }
}

#[tokio::test]
async fn an_application_that_answers_nonsense_is_a_502() {
    for answer in [
        "",
        "HTTP/1.1 200 OK\r\ncontent-",
        "hello\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
    ] {
        let app = App::sending(answer).await;
        assert_eq!(statuses(&Rig::start(app.upstream)).await, [StatusCode::BAD_GATEWAY; 2], "{answer:?}");
    }
}

#[tokio::test]
async fn an_application_that_hangs_is_a_504() {
    let app = App::raw(|mut stream| async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let mut front = settings(app.upstream);
    front.response_timeout = SHORT;
    assert_eq!(statuses(&Rig::with(&front, Duration::ZERO)).await, [StatusCode::GATEWAY_TIMEOUT; 2]);

    // A full queue: the kernel answers no further SYN.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let mut waiting = Vec::new();
    while let Ok(Ok(stream)) = tokio::time::timeout(SHORT, TcpStream::connect(address)).await {
        waiting.push(stream);
    }
    let mut front = settings(http("127.0.0.1", address.port()));
    front.connect_timeout = SHORT;
    assert_eq!(statuses(&Rig::with(&front, Duration::ZERO)).await, [StatusCode::GATEWAY_TIMEOUT; 2]);
}

#[tokio::test]
async fn a_cut_answer_never_looks_complete() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
    ] {
        let app = App::sending(answer).await;
        let rig = Rig::start(app.upstream);
        // Whether the header still goes out depends on when the cut is noticed.
        if let Ok(one) = soon(rig.h1().await.send_request(get("/"))).await {
            assert!(soon(one.into_body().collect()).await.is_err(), "{answer:?}");
        }
        let error = match soon(rig.h2().await.send_request(get("https://a.test/"))).await {
            Ok(two) => soon(two.into_body().collect()).await.unwrap_err(),
            Err(error) => error,
        };
        assert!(format!("{error:?}").contains("Reset(StreamId(1), INTERNAL_ERROR"), "{answer:?}: {error:?}");
        // HTTP/1.0 has nothing but the end of the connection, and that one comes without a goodbye.
        let mut old = rig.raw().await;
        old.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        let ended = soon(old.read_to_end(&mut Vec::new())).await;
        assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof, "{answer:?}");
    }
}

#[tokio::test]
async fn an_answer_that_stands_still_is_cut() {
    let app = App::raw(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello").await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let mut front = settings(app.upstream);
    front.response_timeout = SHORT;
    let rig = Rig::with(&front, Duration::ZERO);
    let one = soon(rig.h1().await.send_request(get("/"))).await.unwrap();
    assert_eq!(one.status(), StatusCode::OK);
    assert!(soon(one.into_body().collect()).await.is_err());
    let two = soon(rig.h2().await.send_request(get("https://a.test/"))).await.unwrap();
    assert!(soon(two.into_body().collect()).await.is_err());
}

#[tokio::test]
async fn connections_are_kept_and_used_again() {
    let app = App::http(|request| async move {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let (feed, pieces) = Pieces::new();
        feed.send(Ok(data("got "))).unwrap();
        feed.send(Ok(http_body::Frame::data(body))).unwrap();
        http::Response::new(pieces)
    })
    .await;
    let rig = Rig::start(app.upstream.clone());
    let (mut h1, mut h2) = (rig.h1().await, rig.h2().await);
    for _ in 0..20 {
        assert_eq!(text(soon(h1.send_request(get("/"))).await.unwrap()).await, "got ");
        let request = post("/", Pieces::of([data("it")]));
        assert_eq!(text(soon(h1.send_request(request)).await.unwrap()).await, "got it");
        let request = post("https://a.test/", Pieces::of([data("it")]));
        assert_eq!(text(soon(h2.send_request(request)).await.unwrap()).await, "got it");
        let mut head = get("https://a.test/");
        *head.method_mut() = http::Method::HEAD;
        assert_eq!(text(soon(h2.send_request(head)).await.unwrap()).await, "");
    }
    assert_eq!(app.connections.load(Ordering::SeqCst), 1);
    let both = tokio::join!(h2.send_request(get("https://a.test/")), h1.send_request(get("/")));
    assert!(both.0.is_ok() && both.1.is_ok());
    assert!(app.connections.load(Ordering::SeqCst) <= 2);
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_costs_no_request() {
    // It promises to keep each connection, and closes it after one answer.
    let app = App::sending("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    let rig = Rig::start(app.upstream.clone());
    let mut h1 = rig.h1().await;
    for round in 0..50 {
        let answer = soon(h1.send_request(get("/"))).await.unwrap();
        assert_eq!((answer.status(), text(answer).await.as_str()), (StatusCode::OK, "ok"), "round {round}");
    }
    assert_eq!(app.connections.load(Ordering::SeqCst), 50);
}

#[tokio::test]
async fn a_request_is_repeated_once_if_it_may_be() {
    // The second request on each connection is read and then dropped without an answer.
    let app = App::raw(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        read_head(&mut stream).await;
    })
    .await;
    let rig = Rig::start(app.upstream.clone());
    let mut h1 = rig.h1().await;
    for _ in 0..2 {
        assert_eq!(text(soon(h1.send_request(get("/"))).await.unwrap()).await, "ok");
    }
    assert_eq!(app.connections.load(Ordering::SeqCst), 2, "the second one was repeated");
    let answer = soon(h1.send_request(post("/", Pieces::of([data("pay")])))).await.unwrap();
    assert_eq!(answer.status(), StatusCode::BAD_GATEWAY, "nobody pays twice");
    assert_eq!(app.connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_request_along() {
    let (told, mut ended) = tokio::sync::mpsc::unbounded_channel();
    let app = App::raw(move |mut stream| {
        let told = told.clone();
        async move {
            read_head(&mut stream).await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
            told.send(()).unwrap();
        }
    })
    .await;
    let rig = Rig::start(app.upstream.clone());
    for target in ["/", "https://a.test/"] {
        // Without a body, and in the middle of one.
        for whole in [true, false] {
            let (feed, pieces) = Pieces::new();
            feed.send(Ok(data("part"))).unwrap();
            let request = if whole { get(target) } else { post(target, pieces) };
            let before = app.connections.load(Ordering::SeqCst);
            if target == "/" {
                let mut sender = rig.h1().await;
                let sending = sender.send_request(request);
                let _ = tokio::time::timeout(SHORT, sending).await;
            } else {
                let mut sender = rig.h2().await;
                let sending = sender.send_request(request);
                let _ = tokio::time::timeout(SHORT, sending).await;
            }
            assert_eq!(app.connections.load(Ordering::SeqCst), before + 1);
            soon(ended.recv()).await.unwrap();
            drop(feed);
        }
    }
}
