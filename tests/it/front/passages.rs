//! Other ways behind the front than HTTP/1.1, and other ways to it than straight from the client.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wicketgate::config::{Front, Raw, Site, Upstream};
use wicketgate::net::proxy_protocol;

use super::rig::{App, Pieces, Rig, connect, data, get, over, post, read_head, settings, soon, text, until};

/// The application, as one that is given bytes.
fn raw(app: &App, proxy_protocol: bool, alpn: &[&str]) -> Upstream {
    let place = app.upstream.place().unwrap().clone();
    Upstream::Raw(Raw { place, proxy_protocol, alpn: alpn.iter().map(ToString::to_string).collect() })
}

#[tokio::test]
async fn trailers_and_bodies_pass_through_http_2_on_both_sides() {
    // As gRPC does it: the end of an answer is told by trailers.
    let app = App::h2c(|request| async move {
        let got = request.into_body().collect().await.unwrap();
        let sum = got.trailers().and_then(|t| t.get("x-sum")).cloned();
        let size = got.to_bytes().len();
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        trailers.insert("x-echo", sum.unwrap_or(HeaderValue::from_static("none")));
        let body = Pieces::of([Frame::data(Bytes::from(size.to_string())), Frame::trailers(trailers)]);
        let mut response = Response::new(body);
        response.headers_mut().insert("trailer", HeaderValue::from_static("x-echo"));
        response
    })
    .await;
    let rig = Rig::start(app.upstream.clone());
    let (mut h1, mut h2) = (rig.h1().await, rig.h2().await);
    for round in 0..3 {
        for is_h2 in [false, true] {
            let sum = HeaderMap::from_iter([("x-sum".parse().unwrap(), HeaderValue::from_static("42"))]);
            let body = Pieces::of([Frame::data(Bytes::from(vec![7; 100_000])), Frame::trailers(sum)]);
            let mut request = post(if is_h2 { "https://a.test/x?y" } else { "/x?y" }, body);
            request.headers_mut().insert("te", HeaderValue::from_static("trailers"));
            request.headers_mut().insert("trailer", HeaderValue::from_static("x-sum"));
            let response = match is_h2 {
                true => soon(h2.send_request(request)).await.unwrap(),
                false => soon(h1.send_request(request)).await.unwrap(),
            };
            assert_eq!(response.status(), StatusCode::OK, "round {round}");
            let got = soon(response.into_body().collect()).await.unwrap();
            // To HTTP/1.1 only those are sent that the header has announced.
            assert_eq!(got.trailers().unwrap().contains_key("grpc-status"), is_h2);
            assert_eq!(got.trailers().unwrap()["x-echo"], "42");
            assert_eq!(got.to_bytes(), "100000");
            let seen = app.last();
            assert_eq!(seen.line, "POST http://a.test/x?y HTTP/2.0");
            assert_eq!(
                (seen.header("te"), seen.header("x-forwarded-proto")),
                (vec!["trailers"], vec!["https"])
            );
            assert_eq!(seen.header("connection"), [""; 0]);
        }
    }
    assert_eq!(app.connections.load(Ordering::SeqCst), 1, "they share a connection");
}

#[tokio::test]
async fn many_requests_at_once_share_connections() {
    let app = App::h2c(|_| async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        Response::new(Pieces::of([data("late")]))
    })
    .await;
    let rig = Rig::start(app.upstream.clone());
    let (one, two) = (rig.h2().await, rig.h2().await);
    let all = (0..250).map(|n| {
        let mut h2 = if n % 2 == 0 { one.clone() } else { two.clone() };
        tokio::spawn(async move { text(soon(h2.send_request(get("https://a.test/"))).await.unwrap()).await })
    });
    for answer in all.collect::<Vec<_>>() {
        assert_eq!(answer.await.unwrap(), "late");
    }
    let connections = app.connections.load(Ordering::SeqCst);
    assert!((2..=4).contains(&connections), "{connections}");
}

/// One that hangs up in the middle, or speaks no HTTP/2, is told of, and the next request gets a connection of its own.
#[tokio::test]
async fn what_breaks_behind_is_a_502_and_mends() {
    let app = App::raw(|mut stream| async move {
        let mut preface = [0; 24];
        let _ = stream.read_exact(&mut preface).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    })
    .await;
    let Upstream::Http(place) = app.upstream.clone() else { unreachable!() };
    let rig = Rig::start(Upstream::H2c(place));
    let mut h1 = rig.h1().await;
    for _ in 0..2 {
        let response = soon(h1.send_request(get("/"))).await.unwrap();
        assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
        text(response).await;
    }
    assert!(app.connections.load(Ordering::SeqCst) >= 2);

    let app = App::h2c(|request| async move {
        if request.uri().path() == "/cut" {
            let (feed, body) = Pieces::new();
            tokio::spawn(async move {
                feed.send(Ok(data("begun"))).unwrap();
                tokio::time::sleep(Duration::from_millis(100)).await;
                feed.send(Err(std::io::Error::other("cut"))).unwrap();
            });
            return Response::new(body);
        }
        Response::new(Pieces::of([data("whole")]))
    })
    .await;
    let rig = Rig::start(app.upstream.clone());
    let mut h2 = rig.h2().await;
    let response = soon(h2.send_request(get("https://a.test/cut"))).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert!(soon(response.into_body().collect()).await.is_err(), "a cut answer looks complete");
    assert_eq!(text(soon(h2.send_request(get("https://a.test/"))).await.unwrap()).await, "whole");
}

#[tokio::test]
async fn an_upgrade_is_not_asked_of_an_application_that_has_none() {
    let app = App::h2c(|_| async { Response::new(Pieces::of([data("plain")])) }).await;
    let rig = Rig::start(app.upstream.clone());
    let answer = rig
        .talk("GET / HTTP/1.1\r\nhost: a.test\r\nconnection: upgrade, close\r\nupgrade: websocket\r\n\r\n")
        .await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("plain"), "{answer}");
    assert_eq!(app.last().header("upgrade"), [""; 0]);
}

/// Echoes, and tells what came before the first line.
async fn echo() -> App {
    App::raw(|mut stream| async move {
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    })
    .await
}

#[tokio::test]
async fn bytes_pass_as_they_are() {
    let app = echo().await;
    let rig = Rig::start(raw(&app, false, &[]));
    let mut stream = soon(rig.tls(rig.authority.client(&[]), "a.test")).await.unwrap();
    let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let (mut read, mut write) = tokio::io::split(&mut stream);
    let writing = async {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let mut got = Vec::new();
    let reading = read.read_to_end(&mut got);
    let (_, read) = soon(async { tokio::join!(writing, reading) }).await;
    read.unwrap();
    assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
    assert_eq!(stream.get_ref().1.alpn_protocol(), None);
    // A client that offers protocols is not turned away by one that has named none.
    let stream = soon(rig.tls(rig.authority.client(&["h2", "http/1.1"]), "a.test")).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), None);
    assert!(soon(rig.tls(rig.authority.client(&[]), "c.test")).await.is_err(), "no certificate, no passage");
}

#[tokio::test]
async fn an_application_may_speak_first_and_be_told_of_the_client() {
    let app = App::raw(|mut stream| async move {
        let mut header = vec![0; 16];
        stream.read_exact(&mut header).await.unwrap();
        let more = usize::from(u16::from_be_bytes([header[14], header[15]]));
        header.resize(16 + more, 0);
        stream.read_exact(&mut header[16..]).await.unwrap();
        stream.write_all(&header).await.unwrap();
    })
    .await;
    let mut front = settings(App::saying("http").await.upstream);
    let upstream = raw(&app, true, &["imap", "h2"]);
    front.sites = vec![Site { hostnames: vec!["b.test".parse().unwrap()], upstream }];
    let rig = Rig::with(&front, Duration::ZERO);
    let tcp = TcpStream::connect(rig.address).await.unwrap();
    let us = tcp.local_addr().unwrap();
    let client = Arc::new(rig.authority.client(&["h2", "http/1.1"]));
    let mut stream = soon(over(tcp, client, "b.test")).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let mut header = Vec::new();
    soon(stream.read_to_end(&mut header)).await.unwrap();
    assert_eq!(header, proxy_protocol::header(us, rig.address, Some("b.test"), Some(b"h2")));
    // The other host of the same certificate speaks HTTP, and has nothing to say for that one.
    let mut h1 = rig.h1().await;
    assert_eq!(text(soon(h1.send_request(get("/"))).await.unwrap()).await, "http");
    let mut request = get("/");
    request.headers_mut().insert("host", HeaderValue::from_static("b.test"));
    let response = soon(h1.send_request(request)).await.unwrap();
    assert_eq!(response.status(), StatusCode::MISDIRECTED_REQUEST);
}

#[tokio::test]
async fn raw_connections_end_with_the_application_and_with_the_front() {
    let closing = App::raw(|mut stream| async move {
        let _ = stream.write_all(b"bye").await;
    })
    .await;
    let rig = Rig::start(raw(&closing, false, &[]));
    let mut stream = soon(rig.tls(rig.authority.client(&[]), "a.test")).await.unwrap();
    let mut got = Vec::new();
    soon(stream.read_to_end(&mut got)).await.unwrap();
    assert_eq!(got, b"bye");

    let app = echo().await;
    let mut rig = Rig::start(raw(&app, false, &[]));
    let mut stream = soon(rig.tls(rig.authority.client(&[]), "a.test")).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    assert_eq!(soon(stream.read_u8()).await.unwrap(), b'x');
    rig.stop();
    let mut rest = Vec::new();
    let _ = soon(stream.read_to_end(&mut rest)).await;
    until("the front has stopped", || rig.has_stopped()).await;
}

/// A connection that begins as `begins`, to ask who it is taken for.
async fn taken_for(rig: &Rig, app: &App, begins: &[u8], fields: &str) -> std::io::Result<Vec<String>> {
    let mut tcp = TcpStream::connect(rig.address).await?;
    // In two pieces, as it may come.
    let (first, second) = begins.split_at(begins.len() / 2);
    tcp.write_all(first).await?;
    tcp.flush().await?;
    tokio::time::sleep(Duration::from_millis(20)).await;
    tcp.write_all(second).await?;
    let client = Arc::new(rig.authority.client(&["http/1.1"]));
    let mut stream = soon(over(tcp, client, "a.test")).await?;
    stream.write_all(format!("GET / HTTP/1.1\r\nhost: a.test\r\n{fields}\r\n").as_bytes()).await?;
    assert!(soon(read_head(&mut stream)).await.starts_with("HTTP/1.1 200"));
    Ok(["x-forwarded-for", "forwarded"].iter().map(|name| app.last().header(name).join("|")).collect())
}

#[tokio::test]
async fn a_trusted_proxy_tells_for_whom_it_comes() {
    let app = App::saying("ok").await;
    let trusted = vec!["127.0.0.1/32".parse().unwrap(), "198.51.100.0/24".parse().unwrap()];
    let rig =
        Rig::with(&Front { trusted_proxies: trusted, ..settings(app.upstream.clone()) }, Duration::ZERO);
    let of = |client: &str| {
        let client: SocketAddr = client.parse().unwrap();
        proxy_protocol::header(client, rig.address, None, None)
    };
    let tcp4 = b"PROXY TCP4 203.0.113.9 127.0.0.1 4711 443\r\n".to_vec();
    let unknown = b"PROXY UNKNOWN\r\n".to_vec();
    for (begins, fields, client) in [
        (vec![], "", "127.0.0.1"),
        (tcp4, "", "203.0.113.9"),
        (of("203.0.113.9:4711"), "", "203.0.113.9"),
        (of("[2001:db8::9]:4711"), "", "2001:db8::9"),
        (unknown, "", "127.0.0.1"),
        (vec![], "x-forwarded-for: 192.0.2.1, 203.0.113.7\r\n", "203.0.113.7"),
        (of("198.51.100.3:1"), "x-forwarded-for: 203.0.113.7\r\n", "203.0.113.7"),
        (of("203.0.113.9:1"), "x-forwarded-for: 192.0.2.1\r\n", "203.0.113.9"),
        (vec![], "x-forwarded-for: nonsense\r\n", "127.0.0.1"),
    ] {
        let [told, forwarded] = &taken_for(&rig, &app, &begins, fields).await.unwrap()[..] else { panic!() };
        assert_eq!(told, client, "{fields}");
        let client = if client.contains(':') { format!("\"[{client}]\"") } else { client.to_owned() };
        assert_eq!(*forwarded, format!("for={client};host=a.test;proto=https"));
    }
    for broken in
        [&b"PROXY TCP4 nonsense\r\n"[..], b"PROXY TCP4 1.2.3.4 \r\n", b"\r\n\r\n\0\r\nQUIT\nxxxxxxxxxxxxxxxx"]
    {
        assert!(taken_for(&rig, &app, broken, "").await.is_err());
    }
    // Nobody else is believed.
    let rig = Rig::start(app.upstream.clone());
    assert!(taken_for(&rig, &app, &of("203.0.113.9:1"), "").await.is_err());
    let told = taken_for(&rig, &app, b"", "x-forwarded-for: 203.0.113.7\r\n").await.unwrap();
    assert_eq!(told[0], "127.0.0.1");
}

#[tokio::test]
async fn a_host_of_another_certificate_is_misdirected() {
    let app = App::saying("ok").await;
    let mut front = settings(app.upstream.clone());
    front.default_certificate = Some("main".to_owned());
    let rig = Rig::with(&front, Duration::ZERO);
    rig.install("other", &["c.test", "*.d.test"]);
    for (server_name, host, wanted) in [
        ("a.test", "a.test", 200),
        ("a.test", "A.TEST.:8443", 200),
        ("a.test", "b.test", 200),
        ("a.test", "c.test", 421),
        ("a.test", "x.a.test", 421),
        ("a.test", "127.0.0.1", 421),
        ("127.0.0.1", "a.test", 200),
        ("127.0.0.1", "127.0.0.1", 421),
        ("c.test", "a.test", 421),
        ("c.test", "x.d.test", 200),
        ("x.d.test", "y.d.test", 200),
        ("x.d.test", "d.test", 421),
        ("x.d.test", "x.y.d.test", 421),
    ] {
        for alpn in ["http/1.1", "h2"] {
            let client = Arc::new(rig.authority.client(&[alpn]));
            let config = if server_name == "127.0.0.1" { rig.unchecked(alpn) } else { client };
            let stream =
                hyper_util::rt::TokioIo::new(soon(connect(rig.address, config, server_name)).await.unwrap());
            let status = if alpn == "h2" {
                let executor = hyper_util::rt::TokioExecutor::new();
                let (mut sender, connection) =
                    hyper::client::conn::http2::handshake(executor, stream).await.unwrap();
                tokio::spawn(connection);
                soon(sender.send_request(get(&format!("https://{host}/")))).await.unwrap().status()
            } else {
                let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
                tokio::spawn(connection);
                let mut request = get("/");
                request.headers_mut().insert("host", HeaderValue::from_str(host).unwrap());
                soon(sender.send_request(request)).await.unwrap().status()
            };
            assert_eq!(status.as_u16(), wanted, "{server_name}, {host}, {alpn}");
        }
    }
}

#[tokio::test]
async fn a_body_may_be_as_large_as_configured() {
    let app = App::http(|request| async move {
        let size = request.into_body().collect().await.map_or(0, |body| body.to_bytes().len());
        Response::new(Pieces::of([Frame::data(Bytes::from(size.to_string()))]))
    })
    .await;
    let rig = Rig::with(&Front { max_body: Some(1000), ..settings(app.upstream.clone()) }, Duration::ZERO);
    for (size, framed, wanted) in
        [(1000, true, 200), (1001, true, 413), (1000, false, 200), (1001, false, 413), (200_000, false, 413)]
    {
        let body = || {
            let pieces = vec![7; size];
            Pieces::of(pieces.chunks(10_000).map(|piece| Frame::data(Bytes::copy_from_slice(piece))))
        };
        for is_h2 in [false, true] {
            let mut request = post(if is_h2 { "https://a.test/" } else { "/" }, body());
            if framed {
                request.headers_mut().insert("content-length", HeaderValue::from(size));
            }
            let response = match is_h2 {
                true => soon(rig.h2().await.send_request(request)).await.unwrap(),
                false => soon(rig.h1().await.send_request(request)).await.unwrap(),
            };
            assert_eq!(response.status().as_u16(), wanted, "{size}, {framed}, {is_h2}");
        }
    }
    assert_eq!(text(soon(rig.h1().await.send_request(get("/"))).await.unwrap()).await, "0");
}

#[tokio::test]
async fn browsers_are_told_to_come_by_tls_alone() {
    let own = "max-age=1";
    let app = App::http(move |request| async move {
        let mut response = Response::new(Pieces::of([data("ok")]));
        if request.uri().path() == "/own" {
            response.headers_mut().insert("strict-transport-security", HeaderValue::from_static(own));
        }
        response
    })
    .await;
    let configured = "max-age=31536000; includeSubDomains";
    let front = Front { hsts: Some(configured.to_owned()), ..settings(app.upstream.clone()) };
    let rig = Rig::with(&front, Duration::ZERO);
    for (path, wanted) in [("/", configured), ("/own", own)] {
        let response = soon(rig.h1().await.send_request(get(path))).await.unwrap();
        assert_eq!(
            response.headers().get_all("strict-transport-security").iter().collect::<Vec<_>>(),
            [wanted]
        );
    }
    let answer = rig.talk("GET / HTTP/1.1\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains(configured), "{answer}");
}
