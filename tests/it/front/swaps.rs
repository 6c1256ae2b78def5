//! Certificates and settings change while everybody is at work, and nobody notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http::Response;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::bodies::{SHOUT, shouting};
use super::rig::{App, Pieces, Rig, data, get, post, read_head, settings, soon, text};
use wicketgate::config::Site;

const SWAPS: usize = 1000;
/// So many swaps to a reload.
const A_RELOAD: usize = 20;
const KEPT: usize = 64;

#[tokio::test]
async fn a_thousand_swaps_and_fifty_reloads_drop_nothing() {
    let app = App::http(|request| async move {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Response::new(Pieces::of([data("ok"), http_body::Frame::data(body)]))
    })
    .await;
    let shout = shouting().await;
    let mut front = settings(app.upstream);
    front.sites = vec![Site { hostnames: vec!["b.test".parse().unwrap()], upstream: shout.upstream }];
    let rig = Arc::new(Rig::with(&front, Duration::ZERO));

    let mut tunnel = rig.raw().await;
    let hello = String::from_utf8(SHOUT.to_vec()).unwrap().replace("a.test", "b.test");
    tunnel.write_all(hello.as_bytes()).await.unwrap();
    soon(read_head(&mut tunnel)).await;
    soon(tunnel.read_exact(&mut [0; 12])).await.unwrap();
    let (feed, pieces) = Pieces::new();
    let mut uploader = rig.h1().await;
    let upload = tokio::spawn(async move { uploader.send_request(post("/", pieces)).await });
    let (feed_h2, pieces) = Pieces::new();
    let mut uploader = rig.h2().await;
    let upload_h2 = tokio::spawn(async move { uploader.send_request(post("https://a.test/", pieces)).await });

    let done = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicU64::new(0));
    let mut clients = Vec::new();
    for index in 0..KEPT {
        let (rig, done, served) = (rig.clone(), done.clone(), served.clone());
        clients.push(tokio::spawn(async move {
            let mut h1 = rig.h1().await;
            let mut h2 = rig.h2().await;
            while !done.load(Ordering::SeqCst) {
                let answer = if index % 2 == 0 {
                    h1.send_request(get("/")).await
                } else {
                    h2.send_request(get("https://a.test/")).await
                };
                assert_eq!(text(answer.expect("a kept connection is never dropped")).await, "ok");
                served.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }));
    }
    let handshakes = Arc::new(AtomicU64::new(0));
    for _ in 0..2 {
        let (rig, done, handshakes) = (rig.clone(), done.clone(), handshakes.clone());
        clients.push(tokio::spawn(async move {
            while !done.load(Ordering::SeqCst) {
                let mut fresh = rig.h1().await;
                let answer = fresh.send_request(get("/")).await.expect("a new connection is never refused");
                assert_eq!(text(answer).await, "ok");
                handshakes.fetch_add(1, Ordering::SeqCst);
            }
        }));
    }
    let certificates = [(); 4].map(|()| rig.authority.certificate(&["a.test", "b.test"]));
    for swap in 0..SWAPS {
        let before = handshakes.load(Ordering::SeqCst);
        rig.state.resolver().install("main", &certificates[swap % 4].clone().into()).unwrap();
        if swap % A_RELOAD == 0 {
            rig.state.reload(&front);
        }
        feed.send(Ok(data("."))).unwrap();
        feed_h2.send(Ok(data(","))).unwrap();
        tunnel.write_all(b"x").await.unwrap();
        let mut heard = [0];
        soon(tunnel.read_exact(&mut heard)).await.expect("the tunnel lives on");
        assert_eq!(heard, *b"X");
        if swap % 4 == 0 {
            super::rig::until("new handshakes go on", || handshakes.load(Ordering::SeqCst) > before).await;
        }
    }
    done.store(true, Ordering::SeqCst);
    for client in clients {
        soon(client).await.expect("no client failed");
    }
    drop((feed, feed_h2));
    for (upload, piece) in [(upload, "."), (upload_h2, ",")] {
        let answer = soon(upload).await.unwrap().expect("the upload lives on");
        assert_eq!(text(answer).await, format!("ok{}", piece.repeat(SWAPS)));
    }
    assert!(served.load(Ordering::SeqCst) >= KEPT as u64);
    assert!(handshakes.load(Ordering::SeqCst) >= SWAPS as u64 / 4);
}
