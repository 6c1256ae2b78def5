//! Clients that send HTTP/2 frames without end: what they cost stays bounded, and everybody else is served meanwhile.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use wicketgate::clock;

use super::frames::*;
use super::rig;
use super::rig::{App, Rig, soon, text};

/// Frames that are sent at most, where the connection is not ended before.
const FRAMES: u32 = 200_000;

/// A frame of a flood, by its number; streams of a client are odd.
type Flood = fn(u32) -> Vec<u8>;

fn stream(n: u32) -> u32 {
    2 * n + 1
}

const FLOODS: [(&str, Flood); 9] = [
    ("rapid reset", |n| {
        [
            frame(HEADERS, END_HEADERS | END_STREAM, stream(n), &get()),
            frame(RST_STREAM, 0, stream(n), &[0, 0, 0, 8]),
        ]
        .concat()
    }),
    ("requests that are never finished", |n| frame(HEADERS, END_HEADERS, stream(n), &get())),
    ("a header without end", |n| match n {
        0 => frame(HEADERS, 0, 1, &get()),
        _ => frame(CONTINUATION, 0, 1, &[[0x00, 1, b'x', 1, b'y'].as_slice(); 200].concat()),
    }),
    ("empty continuations", |n| match n {
        0 => frame(HEADERS, 0, 1, &get()),
        _ => frame(CONTINUATION, 0, 1, &[]),
    }),
    ("a header that unfolds", |n| {
        // A field of 3,900 bytes put into the table, and then 8,000 references to it (an HPACK bomb).
        let long = [&[0x40, 1, b'x', 0x7f, 0xbd, 0x1d][..], &[b'y'; 3900]].concat();
        frame(HEADERS, END_HEADERS | END_STREAM, stream(n), &[get(), long, vec![0xbe; 8000]].concat())
    }),
    ("pings", |_| frame(PING, 0, 0, &[7; 8])),
    ("settings", |_| frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100])),
    ("empty data", |n| match n {
        0 => frame(HEADERS, END_HEADERS, 1, &get()),
        _ => frame(DATA, 0, 1, &[]),
    }),
    ("priorities and windows", |n| {
        [frame(PRIORITY, 0, stream(n % 1000), &[0, 0, 0, 0, 16]), frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])]
            .concat()
    }),
];

/// What a flood came to.
struct Came {
    sent: u32,
    is_ended: bool,
    after: Duration,
}

async fn flood(rig: &Rig, of: Flood) -> Came {
    let (mut read, mut write) = tokio::io::split(ByHand::open(rig).await.into_stream());
    let began = clock::monotonic();
    let mut reading = tokio::spawn(async move {
        let mut buffer = vec![0; 64 * 1024];
        // Whatever it says, it has ended when it says nothing more.
        while matches!(read.read(&mut buffer).await, Ok(1..)) {}
    });
    let mut sent = 0;
    let sending = async {
        write.write_all(PREFACE).await?;
        write.write_all(&frame(SETTINGS, 0, 0, &[])).await?;
        while sent < FRAMES && !reading.is_finished() {
            let many: Vec<u8> = (sent..sent + 100).flat_map(of).collect();
            write.write_all(&many).await?;
            sent += 100;
        }
        write.flush().await
    };
    // That it is ended while we send is what is wanted.
    let _ = tokio::time::timeout(Duration::from_secs(60), sending).await;
    let is_ended = tokio::time::timeout(Duration::from_secs(5), &mut reading).await.is_ok();
    reading.abort();
    Came { sent, is_ended, after: began.elapsed() }
}

pub(super) fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() / 1024
}

#[tokio::test]
async fn floods_of_frames_cost_little_and_harm_nobody() {
    let app = App::saying("honest").await;
    let rig = Rig::start(app.upstream.clone());
    for (name, of) in FLOODS {
        let before = resident();
        let mut honest = rig.h2().await;
        let served = async {
            let mut slowest = Duration::ZERO;
            let mut count = 0;
            loop {
                let began = clock::monotonic();
                let response = soon(honest.send_request(rig::get("https://a.test/"))).await.unwrap();
                assert_eq!(text(response).await, "honest");
                slowest = slowest.max(began.elapsed());
                count += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
                if count >= 10 {
                    break (slowest, count);
                }
            }
        };
        let (came, (slowest, count)) = tokio::join!(flood(&rig, of), served);
        let after = resident();
        eprintln!(
            "{name}: {} frames, {} after {:?}; {count} honest requests, the slowest {slowest:?}; {before} to {after} MB",
            came.sent,
            if came.is_ended { "ended" } else { "NOT ended" },
            came.after,
        );
        assert!(came.is_ended, "{name} goes on after {} frames", came.sent);
        assert!(after < before + 100, "{name}: from {before} to {after} MB");
    }
}
