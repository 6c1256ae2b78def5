//! Crowds: many connections of one network, many handshakes that come to nothing, many clients behind one proxy.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::client::TlsStream;
use wicketgate::config::{Front, Upstream};

use super::rig::{App, PATIENCE, Pieces, Rig, data, get, over, read_head, settings, soon};

const ANOTHER: &str = "127.0.0.2";

/// A connection that comes from that address.
async fn from(rig: &Rig, address: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{address}:0").parse().unwrap()).unwrap();
    socket.connect(rig.address).await.unwrap()
}

async fn secured(rig: &Rig, tcp: TcpStream) -> TlsStream<TcpStream> {
    soon(over(tcp, Arc::new(rig.authority.client(&["http/1.1"])), "a.test")).await.unwrap()
}

async fn is_answered(stream: &mut TlsStream<TcpStream>) -> bool {
    let request = b"HEAD / HTTP/1.1\r\nhost: a.test\r\n\r\n";
    stream.write_all(request).await.is_ok() && soon(read_head(stream)).await.starts_with("HTTP/1.1 200")
}

/// It has been closed, or is about to be.
async fn is_closed(tcp: &mut TcpStream) -> bool {
    soon(tcp.read(&mut [0; 16])).await.map_or(true, |read| read == 0)
}

fn is_open(tcp: &TcpStream) -> bool {
    matches!(tcp.try_read(&mut [0; 1]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

#[tokio::test]
async fn a_flood_from_one_network_takes_no_place_of_another() {
    let front = Front { max_connections: 20, max_connections_per_network: 6, ..settings(Upstream::Demo) };
    let rig = Rig::with(&front, Duration::ZERO);
    let mut known = secured(&rig, from(&rig, ANOTHER).await).await;
    let mut flood = Vec::new();
    for n in 0..60 {
        let mut stranger = from(&rig, "127.0.0.1").await;
        if n % 2 == 1 {
            // It may have been sent away already.
            let _ = stranger.write_all(b"\x16\x03\x01\x02").await;
        }
        flood.push(stranger);
    }
    // Accepted after all of them, since it is answered.
    let mut newcomer = secured(&rig, from(&rig, ANOTHER).await).await;
    assert!(is_answered(&mut newcomer).await && is_answered(&mut known).await);
    let last = flood.split_off(54);
    for stranger in &mut flood {
        assert!(is_closed(stranger).await);
    }
    assert!(last.iter().all(is_open), "it keeps its share");
}

#[tokio::test]
async fn a_network_that_is_busy_keeps_what_is_under_way() {
    let app = App::http(|_| async {
        let (feed, pieces) = Pieces::new();
        feed.send(Ok(data("begun"))).unwrap();
        tokio::spawn(async move {
            tokio::time::sleep(PATIENCE).await;
            drop(feed);
        });
        http::Response::new(pieces)
    })
    .await;
    let front = Front { max_connections_per_network: 2, ..settings(app.upstream) };
    let rig = Rig::with(&front, Duration::ZERO);
    let mut under_way = Vec::new();
    for _ in 0..2 {
        let mut client = rig.h1().await;
        let mut body = soon(client.send_request(get("/"))).await.unwrap().into_body();
        assert_eq!(soon(body.frame()).await.unwrap().unwrap().into_data().unwrap(), "begun");
        under_way.push((client, body));
    }
    let mut third = from(&rig, "127.0.0.1").await;
    assert!(is_closed(&mut third).await);
    for (_, body) in &mut under_way {
        let more = tokio::time::timeout(Duration::from_millis(50), body.frame()).await;
        assert!(more.is_err(), "it is still there");
    }
    let mut other = secured(&rig, from(&rig, ANOTHER).await).await;
    other.write_all(b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n").await.unwrap();
    assert!(soon(read_head(&mut other)).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn handshakes_that_never_end_keep_nobody_out() {
    let front = Front { max_handshakes: 4, ..settings(Upstream::Demo) };
    let rig = Rig::with(&front, Duration::ZERO);
    let mut known = Vec::new();
    for _ in 0..10 {
        let mut client = rig.raw().await;
        // The handshake is over on the other side as well.
        assert!(is_answered(&mut client).await);
        known.push(client);
    }
    let mut flood = Vec::new();
    for _ in 0..40 {
        let mut stranger = TcpStream::connect(rig.address).await.unwrap();
        let _ = stranger.write_all(b"\x16\x03\x01\x02\x00\x01").await;
        flood.push(stranger);
    }
    known.push(rig.raw().await);
    // The newcomer's own handshake was one more.
    let last = flood.split_off(37);
    for stranger in &mut flood {
        assert!(is_closed(stranger).await);
    }
    assert!(last.iter().all(is_open));
    for client in &mut known {
        assert!(is_answered(client).await, "who is through has nothing to do with it");
    }
}

#[tokio::test]
async fn a_trusted_proxys_connections_count_for_its_clients() {
    let trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    let front = Front { trusted_proxies, max_connections_per_network: 3, ..settings(Upstream::Demo) };
    let rig = Rig::with(&front, Duration::ZERO);
    let through = async |client: Option<&str>| {
        let mut tcp = TcpStream::connect(rig.address).await.unwrap();
        if let Some(client) = client {
            let header = format!("PROXY TCP4 {client} 127.0.0.1 4711 443\r\n");
            tcp.write_all(header.as_bytes()).await.unwrap();
        }
        secured(&rig, tcp).await
    };
    let mut all = Vec::new();
    for n in 0..10 {
        all.push(through(Some(&format!("192.0.2.{n}"))).await);
        all.push(through(None).await);
    }
    let mut first = through(Some("198.51.100.1")).await;
    for _ in 0..3 {
        all.push(through(Some("198.51.100.1")).await);
    }
    let _ = soon(first.read_to_end(&mut Vec::new())).await;
    for stream in &mut all {
        assert!(is_answered(stream).await);
    }
}
