//! A stop loses nothing that can be finished in time.

use std::time::Duration;

use http::Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::bodies::{SHOUT, shouting};
use super::deadlines::LONGER_THAN_AWAKE;
use super::rig::{App, PATIENCE, Pieces, Rig, data, get, read_head, settings, soon, text, until};

#[tokio::test]
async fn what_is_under_way_is_finished() {
    let (feed, pieces) = Pieces::new();
    let (other_feed, other) = Pieces::new();
    let bodies = std::sync::Arc::new(std::sync::Mutex::new(vec![pieces, other]));
    let app = App::http(move |_| {
        let body = bodies.lock().unwrap().pop().unwrap();
        async move { Response::new(body) }
    })
    .await;
    let mut rig = Rig::with(&settings(app.upstream), PATIENCE);
    let (mut h1, mut h2) = (rig.h1().await, rig.h2().await);
    let mut idle = rig.raw().await;
    let one = soon(h1.send_request(get("/"))).await.unwrap();
    let two = soon(h2.send_request(get("https://a.test/"))).await.unwrap();
    rig.stop();
    let mut ended = Vec::new();
    soon(idle.read_to_end(&mut ended)).await.expect("an idle one is closed with a goodbye");
    until("the listener is closed", || std::net::TcpStream::connect(rig.address).is_err()).await;
    assert!(!rig.has_stopped());
    for feed in [feed, other_feed] {
        feed.send(Ok(data("to the "))).unwrap();
        feed.send(Ok(data("end"))).unwrap();
    }
    assert_eq!(text(one).await, "to the end");
    assert_eq!(text(two).await, "to the end");
    until("the front ends by itself", || rig.has_stopped()).await;
    assert!(soon(h2.send_request(get("https://a.test/"))).await.is_err());
}

#[tokio::test]
async fn those_at_rest_are_told_too() {
    let mut rig = Rig::with(&settings(App::saying("ok").await.upstream), PATIENCE);
    let mut raw = rig.raw().await;
    tokio::time::sleep(LONGER_THAN_AWAKE).await;
    rig.stop();
    soon(raw.read_to_end(&mut Vec::new())).await.expect("close_notify");
    until("the front ends by itself", || rig.has_stopped()).await;
}

#[tokio::test]
async fn the_last_answer_says_that_it_is_the_last() {
    let app = App::http(|_| async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        Response::new(Pieces::of([data("late")]))
    })
    .await;
    let mut rig = Rig::with(&settings(app.upstream.clone()), PATIENCE);
    let mut h1 = rig.h1().await;
    let answering = h1.send_request(get("/"));
    let stopping = async {
        until("the request is under way", || !app.seen().is_empty()).await;
        rig.stop();
    };
    let (answer, ()) = tokio::join!(answering, stopping);
    let answer = answer.unwrap();
    assert_eq!(answer.headers()["connection"], "close");
    assert_eq!(text(answer).await, "late");
    until("the front ends by itself", || rig.has_stopped()).await;
}

#[tokio::test]
async fn a_connection_just_opened_is_still_served() {
    let mut rig = Rig::with(&settings(App::saying("welcome").await.upstream), PATIENCE);
    let mut h1 = rig.h1().await;
    rig.stop();
    until("the listener is closed", || std::net::TcpStream::connect(rig.address).is_err()).await;
    assert_eq!(text(soon(h1.send_request(get("/"))).await.unwrap()).await, "welcome");
    until("the front ends by itself", || rig.has_stopped()).await;
}

#[tokio::test]
async fn a_silent_connection_does_not_hold_up_the_end() {
    let mut rig = Rig::with(&settings(App::saying("ok").await.upstream), PATIENCE);
    let silent = TcpStream::connect(rig.address).await.unwrap();
    let mut h1 = rig.h1().await;
    assert_eq!(text(soon(h1.send_request(get("/"))).await.unwrap()).await, "ok");
    let begun = tokio::time::Instant::now();
    rig.stop();
    until("the front ends by itself", || rig.has_stopped()).await;
    assert!(begun.elapsed() < PATIENCE / 2, "neither the grace time nor the handshake's limit");
    drop(silent);
}

#[tokio::test]
async fn grace_has_an_end() {
    let grace = Duration::from_millis(300);
    let app = shouting().await;
    let mut rig = Rig::with(&settings(app.upstream), grace);
    let mut tunnel = rig.raw().await;
    tunnel.write_all(SHOUT).await.unwrap();
    soon(read_head(&mut tunnel)).await;
    let mut heard = [0; 12];
    soon(tunnel.read_exact(&mut heard)).await.unwrap();
    let silent = TcpStream::connect(rig.address).await.unwrap();
    rig.stop();
    until("the listener is closed", || std::net::TcpStream::connect(rig.address).is_err()).await;
    tunnel.write_all(b"still here").await.unwrap();
    let mut heard = [0; 10];
    soon(tunnel.read_exact(&mut heard)).await.unwrap();
    assert_eq!(&heard, b"STILL HERE", "a tunnel lives on while there is time");
    until("the front ends all the same", || rig.has_stopped()).await;
    let _ = soon(tunnel.read_to_end(&mut Vec::new())).await;
    drop(silent);
}
