//! Validations, by verdict and against gates that answer anything.

use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

fn attempt() -> Attempt {
    Attempt {
        identifier: "a.example".parse().unwrap(),
        token: "tok".into(),
        key_authorization: "tok.thumb".into(),
    }
}

fn gate() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 80).into()
}

fn seen(status: u16, body: &[u8]) -> Seen {
    Seen { status: StatusCode::from_u16(status).unwrap(), location: None, body: body.to_vec(), more: false }
}

#[test]
fn only_the_exact_key_authorization_passes() {
    assert_eq!(attempt().judge(gate(), &seen(200, b"tok.thumb")), Ok(()));
    for body in [&b"tok.thumb\n"[..], b"tok.thum", b"", b" tok.thumb", b"TOK.thumb", b"\xef\xbb\xbftok.thumb"]
    {
        let problem = attempt().judge(gate(), &seen(200, body)).unwrap_err();
        assert_eq!(problem.kind, ProblemType::Unauthorized, "{body:?}");
    }
    let endless = Seen { more: true, ..seen(200, b"tok.thumb") };
    assert!(attempt().judge(gate(), &endless).is_err());
}

#[test]
fn details_tell_what_was_seen() {
    assert_eq!(
        attempt().judge(gate(), &seen(404, b"<html>\r\n\xff")).unwrap_err().detail,
        "127.0.0.1:80: Invalid response from http://a.example/.well-known/acme-challenge/tok: 404, \
         and the body begins \"<html>\\r\\n\\xff\""
    );
    let redirect = Seen { location: Some(escape(b"https://a.example/", false)), ..seen(308, b"") };
    let problem = attempt().judge(gate(), &redirect).unwrap_err();
    assert_eq!(problem.kind, ProblemType::Connection);
    assert!(problem.detail.contains("Redirect 308 to \"https://a.example/\""), "{}", problem.detail);
    let long = escape(&[b'x'; 300], false);
    assert_eq!(long, format!("\"{}…\"", "x".repeat(QUOTE)));
}

#[test]
fn the_host_has_brackets_for_ipv6_and_no_port() {
    for (identifier, expected) in
        [("a.example", "a.example"), ("192.0.2.1", "192.0.2.1"), ("2001:db8::1", "[2001:db8::1]")]
    {
        assert_eq!(host(&identifier.parse().unwrap()), expected);
    }
}

#[test]
fn enough_must_agree_and_the_primary_one_always() {
    let bad = || Err(Problem::new(ProblemType::Connection, "no"));
    let good = || Ok(());
    for (results, tolerated, expected) in [
        (vec![good()], 0, None),
        (vec![bad()], 2, Some("no")),
        (vec![bad(), good(), good()], 1, Some("no")),
        (vec![good(), bad(), good()], 1, None),
        (vec![good(), bad(), good()], 0, Some("During secondary validation: no")),
        (vec![good(), bad(), bad(), good()], 1, Some("During secondary validation: no")),
    ] {
        let shown = format!("{results:?} {tolerated}");
        let detail = quorum(results, tolerated).err().map(|problem| problem.detail);
        assert_eq!(detail.as_deref(), expected, "{shown}");
    }
}

#[test]
fn vantage_points_have_addresses_of_their_own_where_they_can() {
    let points = |count| VantagePoints { count, failing: 0 };
    assert_eq!(source(gate(), points(3), 0), Some(Ipv4Addr::new(127, 0, 0, 2)));
    assert_eq!(source(gate(), points(3), 2), Some(Ipv4Addr::new(127, 0, 0, 4)));
    assert_eq!(source(gate(), points(1), 0), None);
    for elsewhere in ["[::1]:80", "192.0.2.1:80"] {
        assert_eq!(source(elsewhere.parse().unwrap(), points(3), 0), None, "{elsewhere}");
    }
}

#[test]
fn faults_are_told_in_the_words_of_the_field() {
    for (fault, kind, says) in [
        (ValidationFault::Dns, ProblemType::Dns, "NXDOMAIN looking up A for a.example"),
        (ValidationFault::Connection, ProblemType::Connection, "Timeout during connect"),
        (ValidationFault::Status(403), ProblemType::Unauthorized, "/tok: 403"),
        (ValidationFault::Caa, ProblemType::Caa, "CAA record for a.example"),
    ] {
        let problem = attempt().failure(gate(), fault);
        assert_eq!(problem.kind, kind);
        assert!(problem.detail.contains(says), "{}", problem.detail);
    }
}

/// Serves one connection with those bytes and returns what was asked.
async fn raw_gate(answer: Vec<u8>) -> (SocketAddr, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            asked.push(stream.read_u8().await.unwrap());
        }
        // The validator may hang up in the midst of a long answer.
        let _ = stream.write_all(&answer).await;
        String::from_utf8(asked).unwrap()
    });
    (address, served)
}

#[tokio::test]
async fn the_request_is_the_one_of_a_validator() {
    let (gate, served) = raw_gate(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ntok.thumb".to_vec()).await;
    assert_eq!(attempt().run(gate, Plan::default()).await, Ok(()));
    let asked = served.await.unwrap().to_lowercase();
    assert!(asked.starts_with("get /.well-known/acme-challenge/tok http/1.1\r\n"), "{asked}");
    assert!(asked.contains("\r\nhost: a.example\r\n") && asked.contains("\r\naccept: */*\r\n"), "{asked}");
}

#[tokio::test]
async fn an_answer_without_end_is_cut() {
    let mut answer = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    answer.resize(1 << 20, b'x');
    let (gate, _served) = raw_gate(answer).await;
    let problem = attempt().run(gate, Plan::default()).await.unwrap_err();
    assert_eq!(problem.kind, ProblemType::Unauthorized);
    assert!(problem.detail.ends_with("x…\""), "{}", problem.detail);
}

#[tokio::test]
async fn what_is_no_http_is_a_connection_problem() {
    let (gate, _served) = raw_gate(b"SSH-2.0-OpenSSH\r\n\r\n".to_vec()).await;
    let problem = attempt().run(gate, Plan::default()).await.unwrap_err();
    assert_eq!(problem.kind, ProblemType::Connection);
    assert!(problem.detail.contains("Error getting validation data"), "{}", problem.detail);
}

#[tokio::test]
async fn a_closed_port_is_told() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let gate = listener.local_addr().unwrap();
    drop(listener);
    let problem = attempt().run(gate, Plan::default()).await.unwrap_err();
    assert_eq!(problem.kind, ProblemType::Connection);
    assert!(problem.detail.ends_with(": Connection refused"), "{}", problem.detail);
}
