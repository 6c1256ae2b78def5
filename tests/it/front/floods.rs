//! Clients that send HTTP/2 frames without end: what they cost stays bounded, and everybody else is served meanwhile.
//!
//! With `WICKETGATE_TESTS_THOROUGH=1` there are a million frames of each kind; the figures are printed with `--nocapture`.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wicketgate::clock;
use wicketgate::config::{Place, Upstream};

use super::frames::*;
use super::rig::{self, App, PATIENCE, soon, text};
use crate::bed::wicketgate::Setup;
use crate::bed::{Bed, is_thorough};

/// Frames that are sent on a connection at most, where it is not ended before.
const FRAMES: u32 = 200_000;

/// What a flood may cost, in kB, on top of what the program takes by itself.
const MOST: u64 = 128 * 1024;

/// A frame of a flood, by its number; streams of a client are odd.
type Flood = fn(u32) -> Vec<u8>;

fn stream(n: u32) -> u32 {
    2 * n + 1
}

const FLOODS: [(&str, Flood); 11] = [
    ("rapid reset", |n| {
        [headers(END_HEADERS | END_STREAM, stream(n), &get()), reset(stream(n), CANCEL)].concat()
    }),
    ("requests that are never finished", |n| headers(END_HEADERS, stream(n), &get())),
    ("requests without a window", |n| match n {
        0 => settings(&[(INITIAL_WINDOW_SIZE, 0)]),
        _ => headers(END_HEADERS | END_STREAM, stream(n), &get()),
    }),
    ("windows of nothing", |n| match n {
        0 => headers(END_HEADERS, 1, &get()),
        _ => window_update(1, 0),
    }),
    ("a header without end", |n| match n {
        0 => headers(0, 1, &get()),
        _ => continuation(0, 1, &[[0x00, 1, b'x', 1, b'y'].as_slice(); 200].concat()),
    }),
    ("empty continuations", |n| match n {
        0 => headers(0, 1, &get()),
        _ => continuation(0, 1, &[]),
    }),
    ("a header that unfolds", |n| {
        // A field of 3,900 bytes put into the table, and then 8,000 references to it (an HPACK bomb).
        let long = [&[0x40, 1, b'x', 0x7f, 0xbd, 0x1d][..], &[b'y'; 3900]].concat();
        headers(END_HEADERS | END_STREAM, stream(n), &[get(), long, vec![0xbe; 8000]].concat())
    }),
    ("pings", |_| ping(0, [7; 8])),
    ("settings", |_| settings(&[(MAX_CONCURRENT_STREAMS, 100)])),
    ("empty data", |n| match n {
        0 => headers(END_HEADERS, 1, &get()),
        _ => data(0, 1, &[]),
    }),
    ("priorities and windows", |n| [priority(stream(n % 1000), 0, 16), window_update(0, 1)].concat()),
];

/// Where the front is, and how to trust it.
#[derive(Clone)]
struct Front {
    address: SocketAddr,
    config: Arc<ClientConfig>,
}

impl Front {
    fn of(setup: &Setup) -> Self {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_file(setup.state.join("embedded-ca/root.pem")).unwrap();
        roots.add(root).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Self { address: (Ipv4Addr::LOCALHOST, setup.front).into(), config: Arc::new(config) }
    }

    /// Sends frames over one connection until it is ended: how many were sent, and whether it was ended.
    async fn flood(&self, of: Flood) -> (u32, bool) {
        let stream = soon(rig::connect(self.address, self.config.clone(), "a.test")).await.unwrap();
        let (mut read, mut write) = tokio::io::split(stream);
        let mut reading = tokio::spawn(async move {
            let mut buffer = vec![0; 64 * 1024];
            // Whatever it says, it has ended when it says nothing more.
            while matches!(read.read(&mut buffer).await, Ok(1..)) {}
        });
        let mut sent = 0;
        let sending = async {
            write.write_all(&[PREFACE, &settings(&[])].concat()).await?;
            while sent < FRAMES && !reading.is_finished() {
                let (mut some, mut count) = (Vec::new(), 0);
                while some.len() < 16 * 1024 && count < 100 {
                    some.extend(of(sent + count));
                    count += 1;
                }
                write.write_all(&some).await?;
                sent += count;
            }
            write.flush().await
        };
        // That it is ended while we send is what is wanted.
        let _ = tokio::time::timeout(Duration::from_secs(60), sending).await;
        let is_ended = tokio::time::timeout(PATIENCE, &mut reading).await.is_ok();
        reading.abort();
        (sent, is_ended)
    }

    /// Floods it again and again, until so many frames were sent or on so many connections: how many of both.
    fn flood_all(&self, of: Flood, most: (u32, u32)) -> (u32, u32) {
        // On Linux that's for this thread: what floods isn't on the same machine as a rule.
        let _ = rustix::process::nice(10);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut sent, mut connections) = (0, 0);
            while sent < most.0 && connections < most.1 {
                let (frames, is_ended) = self.flood(of).await;
                assert!(is_ended, "it goes on after {frames} frames");
                sent += frames;
                connections += 1;
            }
            (sent, connections)
        })
    }

    /// Asks over a connection of its own every few milliseconds, at least so many times and until it is `over`; how
    /// long each took, in order of length.
    async fn ask(&self, least: usize, mut over: impl FnMut() -> bool) -> Vec<Duration> {
        let stream = soon(rig::connect(self.address, self.config.clone(), "a.test")).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut took = Vec::new();
        while !over() || took.len() < least {
            let began = clock::monotonic();
            let response = soon(sender.send_request(rig::get("https://a.test/"))).await.unwrap();
            assert_eq!(text(response).await, "honest");
            took.push(began.elapsed());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        took.sort_unstable();
        took
    }
}

fn percentile_99(sorted: &[Duration]) -> Duration {
    sorted[sorted.len() * 99 / 100]
}

/// Memory in kB; of what is shared with other programs its part (Pss).
fn memory(pid: u32) -> u64 {
    let smaps = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = smaps.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn floods_of_frames_cost_little_and_harm_nobody() {
    // What is ended by its first frames doesn't come to a million of them.
    let (most, asked) = if is_thorough() { ((1_000_000, 10_000), 1000) } else { ((2000, 20), 20) };
    let app = App::saying("honest").await;
    let Upstream::Http(Place::Tcp { host, port }) = &app.upstream else { unreachable!("that is what it is") };
    let bed = Bed::new();
    let setup = Setup::embedded(&bed).certificate(&["a.test"]).upstream(&format!("http://{host}:{port}"));
    let (daemon, _) = setup.start_until_served(&bed, "a.test");
    let pid = daemon.process.id();
    let front = Front::of(&setup);
    let quiet = percentile_99(&front.ask(asked, || true).await);
    let before = memory(pid);
    eprintln!("without a flood: p99 {quiet:?}, {before} kB");
    for (name, of) in FLOODS {
        let began = clock::monotonic();
        let flooding = std::thread::spawn({
            let front = front.clone();
            move || front.flood_all(of, most)
        });
        let mut peak = 0;
        let took = front
            .ask(20, || {
                peak = peak.max(memory(pid));
                flooding.is_finished()
            })
            .await;
        let elapsed = began.elapsed();
        let after = memory(pid);
        let (sent, connections) = flooding.join().unwrap_or_else(|_| panic!("{name} is not ended"));
        let p99 = percentile_99(&took);
        eprintln!(
            "{name}: {sent} frames on {connections} connections, all ended, within {elapsed:?}; {} honest requests \
             answered, p99 {p99:?}, {:.1} times that without; {peak} kB at most, {after} kB after",
            took.len(),
            p99.as_secs_f64() / quiet.as_secs_f64(),
        );
        assert!(peak.max(after) < before + MOST, "{name}: from {before} to {peak} kB");
    }
}
