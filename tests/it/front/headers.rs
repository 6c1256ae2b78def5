//! What the application is told, and what the client is.

use http::{HeaderValue, Response, StatusCode};

use super::rig::{App, Pieces, Rig, data, get, http, settings, soon, text};
use std::time::Duration;
use wicketgate::config::{Place, Site, Upstream};

#[tokio::test]
async fn the_application_learns_who_asked_from_the_front_alone() {
    let app = App::saying("ok").await;
    let rig = Rig::start(app.upstream.clone());
    let lies = [
        ("x-forwarded-for", "6.6.6.6"),
        ("x_forwarded_for", "6.6.6.6"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "evil.test"),
        ("x-forwarded-port", "1"),
        ("x-real-ip", "6.6.6.6"),
        ("forwarded", "for=6.6.6.6"),
        ("cookie", "a=1"),
        ("cookie", "b=2"),
    ];
    let mut requests = [get("/path?query=1%2F"), get("https://A.test:8443/path?query=1%2F")];
    for request in &mut requests {
        for (name, value) in lies {
            request.headers_mut().append(name, HeaderValue::from_static(value));
        }
    }
    let [mut one, mut two] = requests;
    for (name, value) in
        [("connection", "keep-alive, x-hop"), ("x-hop", "1"), ("te", "gzip"), ("proxy-connection", "close")]
    {
        one.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    *one.headers_mut().get_mut("host").unwrap() = HeaderValue::from_static("A.test:8443");
    two.headers_mut().insert("te", HeaderValue::from_static("trailers"));
    soon(rig.h1().await.send_request(one)).await.unwrap();
    soon(rig.h2().await.send_request(two)).await.unwrap();
    let seen = app.seen();
    for seen in &seen {
        assert_eq!(seen.line, "GET /path?query=1%2F HTTP/1.1");
        for (name, values) in [
            ("host", &["A.test:8443"][..]),
            ("x-forwarded-for", &["127.0.0.1"]),
            ("x-forwarded-proto", &["https"]),
            ("x-forwarded-host", &["A.test:8443"]),
            ("forwarded", &["for=127.0.0.1;host=\"A.test:8443\";proto=https"]),
            ("x_forwarded_for", &[]),
            ("x-forwarded-port", &[]),
            ("x-real-ip", &[]),
            ("x-hop", &[]),
            ("proxy-connection", &[]),
        ] {
            assert_eq!(seen.header(name), values, "{name}: {seen:?}");
        }
    }
    assert_eq!(seen[0].header("connection"), [""; 0]);
    assert_eq!(seen[0].header("te"), [""; 0]);
    assert_eq!(seen[0].header("cookie"), ["a=1", "b=2"]);
    assert_eq!(seen[1].header("cookie"), ["a=1; b=2"]);
    assert_eq!((seen[1].header("connection"), seen[1].header("te")), (vec!["te"], vec!["trailers"]));
}

#[tokio::test]
async fn an_answers_hop_by_hop_fields_end_here() {
    let app = App::http(|_| async {
        let mut response = Response::new(Pieces::of([data("ok")]));
        for (name, value) in [
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-authenticate", "Basic"),
            ("upgrade", "h2c"),
            ("x-kept", "1"),
            ("x-kept", "2"),
        ] {
            response.headers_mut().append(name, HeaderValue::from_static(value));
        }
        response
    })
    .await;
    let rig = Rig::start(app.upstream.clone());
    let one = soon(rig.h1().await.send_request(get("/"))).await.unwrap();
    let two = soon(rig.h2().await.send_request(get("https://a.test/"))).await.unwrap();
    for response in [one, two] {
        let mut names: Vec<&str> = response.headers().keys().map(http::HeaderName::as_str).collect();
        names.sort_unstable();
        let version = response.version();
        let wanted: &[&str] = match version {
            http::Version::HTTP_2 => &["date", "x-kept"],
            _ => &["date", "transfer-encoding", "x-kept"],
        };
        assert_eq!(names, wanted, "{version:?}");
        assert_eq!(response.headers().get_all("x-kept").iter().count(), 2);
    }
}

#[tokio::test]
async fn a_host_leads_to_its_site() {
    let (one, two) = (App::saying("one").await, App::saying("two").await);
    let mut front = settings(one.upstream.clone());
    front.sites = vec![Site { hostnames: vec!["b.test".parse().unwrap()], upstream: two.upstream.clone() }];
    let rig = Rig::with(&front, Duration::ZERO);
    let mut h1 = rig.h1().await;
    let mut h2 = rig.h2().await;
    for (host, wanted) in [("a.test", "one"), ("b.test", "two"), ("B.test.:443", "two"), ("A.test:1", "one")]
    {
        let mut request = get("/");
        request.headers_mut().insert("host", HeaderValue::from_str(host).unwrap());
        assert_eq!(text(soon(h1.send_request(request)).await.unwrap()).await, wanted, "{host}");
        let request = get(&format!("https://{host}/"));
        assert_eq!(text(soon(h2.send_request(request)).await.unwrap()).await, wanted, "{host}");
    }
    front.upstream = two.upstream.clone();
    front.sites.clear();
    rig.state.reload(&front);
    assert_eq!(text(soon(h1.send_request(get("/"))).await.unwrap()).await, "two", "after a reload");
}

#[tokio::test]
async fn requests_that_cannot_be_routed_are_refused_in_words() {
    let app = App::saying("ok").await;
    let rig = Rig::start(app.upstream.clone());
    for (request, wanted) in [
        ("GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 400"),
        ("GET / HTTP/1.1\r\nhost: a.test\r\nhost: a.test\r\n\r\n", "HTTP/1.1 400"),
        ("GET / HTTP/1.1\r\nhost: a b\r\n\r\n", "HTTP/1.1 400"),
        ("CONNECT a.test:443 HTTP/1.1\r\nhost: a.test\r\n\r\n", "HTTP/1.1 501"),
        ("POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", "HTTP/1.1 400"),
        ("POST / HTTP/1.1\r\nhost: a.test\r\ntransfer-encoding: x\r\n\r\n", "HTTP/1.1 400"),
    ] {
        let answer =
            rig.talk(&format!("{request}GET / HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n")).await;
        assert!(answer.starts_with(wanted), "{request}: {answer}");
    }
    let many = "x: y\r\n".repeat(101);
    let answer = rig.talk(&format!("GET / HTTP/1.1\r\nhost: a.test\r\n{many}\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    let large = "y".repeat(70_000);
    let answer = rig.talk(&format!("GET / HTTP/1.1\r\nhost: a.test\r\nx: {large}\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    let mut h2 = rig.h2().await;
    let mut request = get("https://a.test/");
    request.headers_mut().insert("host", HeaderValue::from_static("b.test"));
    assert_eq!(soon(h2.send_request(request)).await.unwrap().status(), StatusCode::BAD_REQUEST);
    let mut request = get("https://a.test/");
    request.headers_mut().insert("x", HeaderValue::from_str(&"y".repeat(40_000)).unwrap());
    let answer = soon(h2.send_request(request)).await.unwrap();
    assert_eq!(answer.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    assert!(app.seen().iter().all(|seen| seen.header("host") == ["a.test"]), "{:?}", app.seen());
}

#[tokio::test]
async fn http_1_0_is_answered_in_kind() {
    let app = App::saying("old").await;
    let rig = Rig::start(app.upstream.clone());
    let answer = rig.talk("GET / HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n") && answer.ends_with("\r\n\r\nold"), "{answer}");
    assert!(!answer.contains("transfer-encoding"), "{answer}");
    assert_eq!(app.last().header("host"), ["a.test"], "the certificate's name");
    assert_eq!(app.last().line, "GET / HTTP/1.1");
    let answer = rig.talk("GET http://b.test/x HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!((app.last().line.as_str(), app.last().header("host")), ("GET /x HTTP/1.1", vec!["b.test"]));
}

#[tokio::test]
async fn an_upstream_by_its_configured_kind() {
    let rig = Rig::start(Upstream::Demo);
    let answer = soon(rig.h1().await.send_request(get("/"))).await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/plain; charset=utf-8");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        for _ in 0..2 {
            super::rig::read_head(&mut stream).await;
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nunix";
            tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await.unwrap();
        }
    });
    let rig = Rig::start(Upstream::Http(Place::Unix(path)));
    let mut h1 = rig.h1().await;
    for _ in 0..2 {
        assert_eq!(text(soon(h1.send_request(get("/"))).await.unwrap()).await, "unix");
    }
    // A name with several addresses, of which only one answers.
    let app = App::saying("named").await;
    let Some(Place::Tcp { port, .. }) = app.upstream.place() else {
        unreachable!("an application listens on TCP")
    };
    let rig = Rig::start(http("localhost", *port));
    assert_eq!(text(soon(rig.h1().await.send_request(get("/"))).await.unwrap()).await, "named");
}
