//! Clients that stop in each state of a connection, or go on by a byte at a time, while everybody else is served.
//!
//! With `WICKETGATE_TESTS_THOROUGH=1` there are as many as the figures are about; they are printed with `--nocapture`.

use std::io;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::Frame;
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use wicketgate::clock;
use wicketgate::config::Place;

use super::rig::{App, Pieces, get, over, soon, text};
use crate::bed::client::get as get_plain;
use crate::bed::process::{Process, run_within};
use crate::bed::wicketgate::{Daemon, Setup};
use crate::bed::{Bed, is_thorough, needs, resident};

const NAME: &str = "www.example.test";
/// How long a stranger stands before it comes anew: longer than a handshake may take.
const STANDS: Duration = Duration::from_secs(12);

/// Where a stranger stops.
#[derive(Debug, Clone, Copy)]
enum State {
    /// Connected.
    Silent,
    /// In the middle of its first flight, and then byte by byte.
    HalfHello,
    /// After it, without reading the answer.
    Hello,
    /// Having read the answer, in both versions.
    NoFinished,
    NoFinished12,
    /// After the handshake, in both protocols.
    NoRequest,
    NoRequest2,
    /// In the middle of a header or a body, and then byte by byte.
    HalfHeader,
    HalfBody,
    /// In a frame of HTTP/2.
    HalfFrame,
    /// Having asked for a large answer, without reading it.
    Unread,
}

const STATES: [State; 11] = [
    State::Silent,
    State::HalfHello,
    State::Hello,
    State::NoFinished,
    State::NoFinished12,
    State::NoRequest,
    State::NoRequest2,
    State::HalfHeader,
    State::HalfBody,
    State::HalfFrame,
    State::Unread,
];

/// The clients' settings.
struct Clients {
    front: SocketAddr,
    roots: RootCertStore,
    standing: AtomicUsize,
}

impl Clients {
    fn tls(&self, alpn: &str, version: &'static rustls::SupportedProtocolVersion) -> Arc<ClientConfig> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        Arc::new(config)
    }

    /// From one of many addresses, each of which has ports of its own.
    async fn connect(&self, number: usize) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        let last = u8::try_from(number % 100 + 1).expect("below 256");
        socket.bind(SocketAddr::from(([127, 0, 1, last], 0)))?;
        socket.connect(self.front).await
    }

    /// Stands in that state until it is turned away, or has stood long enough.
    async fn stand(&self, state: State, number: usize) -> io::Result<()> {
        let tcp = self.connect(number).await?;
        let (v12, v13) = (&rustls::version::TLS12, &rustls::version::TLS13);
        let hello = |version| {
            let name = NAME.try_into().unwrap();
            let mut bytes = Vec::new();
            let mut connection = ClientConnection::new(self.tls("h2", version), name).unwrap();
            connection.write_tls(&mut bytes).unwrap();
            bytes
        };
        match state {
            State::Silent => self.wait(tcp, b"").await,
            State::HalfHello => {
                let hello = hello(v13);
                let (first, rest) = hello.split_at(hello.len() / 2);
                self.drip(tcp, first, rest).await
            }
            State::Hello => self.wait(tcp, &hello(v13)).await,
            State::NoFinished | State::NoFinished12 => {
                let mut tcp = tcp;
                tcp.write_all(&hello(if matches!(state, State::NoFinished) { v13 } else { v12 })).await?;
                let mut read = [0; 16 * 1024];
                let _ = tcp.read(&mut read).await?;
                self.wait(tcp, b"").await
            }
            _ => {
                let alpn =
                    if matches!(state, State::NoRequest2 | State::HalfFrame) { "h2" } else { "http/1.1" };
                let stream = over(tcp, self.tls(alpn, v13), NAME).await?;
                let head = format!("POST / HTTP/1.1\r\nhost: {NAME}\r\ncontent-length: 100000\r\n\r\n");
                match state {
                    State::NoRequest | State::NoRequest2 => self.wait(stream, b"").await,
                    State::HalfHeader => self.drip(stream, &head.as_bytes()[..30], &[b'x'; 100]).await,
                    State::HalfBody => self.drip(stream, head.as_bytes(), &[b'x'; 100]).await,
                    State::HalfFrame => {
                        let begins =
                            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\x01\0\x01\x04\0\0\0\x01";
                        self.drip(stream, begins, &[0x40; 100]).await
                    }
                    _ => {
                        let request = format!("GET /large HTTP/1.1\r\nhost: {NAME}\r\n\r\n");
                        self.wait(stream, request.as_bytes()).await
                    }
                }
            }
        }
    }

    async fn wait(&self, stream: impl AsyncWriteExt + Unpin, begins: &[u8]) -> io::Result<()> {
        self.drip(stream, begins, b"").await
    }

    /// Sends the beginning at once, and of the rest a byte each second.
    async fn drip(
        &self,
        mut stream: impl AsyncWriteExt + Unpin,
        begins: &[u8],
        rest: &[u8],
    ) -> io::Result<()> {
        stream.write_all(begins).await?;
        stream.flush().await?;
        self.standing.fetch_add(1, Ordering::Relaxed);
        let dripping = async {
            for byte in rest {
                tokio::time::sleep(Duration::from_secs(1)).await;
                stream.write_all(&[*byte]).await?;
                stream.flush().await?;
            }
            std::future::pending::<io::Result<()>>().await
        };
        let ended = tokio::time::timeout(STANDS, dripping).await;
        self.standing.fetch_sub(1, Ordering::Relaxed);
        ended.unwrap_or(Ok(()))
    }

    /// A request over a connection of its own.
    async fn ask(&self, alpn: &str) {
        let stream = self.connect(0).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let stream = TokioIo::new(over(stream, self.tls(alpn, &rustls::version::TLS13), NAME).await.unwrap());
        let response = if alpn == "h2" {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(get(&format!("https://{NAME}/"))).await.unwrap()
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
            tokio::spawn(connection);
            let mut request = get("/");
            request.headers_mut().insert("host", NAME.parse().unwrap());
            sender.send_request(request).await.unwrap()
        };
        assert_eq!(response.status(), 200);
        assert_eq!(text(response).await, "honest");
    }
}

/// An application with a large answer, and one for everybody else.
async fn application() -> (App, u16) {
    let app = App::http(|request| async move {
        if request.uri().path() == "/large" {
            let piece = Bytes::from_static(&[b'x'; 64 * 1024]);
            return Response::new(Pieces::of((0..64).map(|_| Frame::data(piece.clone()))));
        }
        let _ = request.into_body().collect().await;
        Response::new(Pieces::of([super::rig::data("honest")]))
    })
    .await;
    let wicketgate::config::Upstream::Http(Place::Tcp { port, .. }) = app.upstream else {
        unreachable!("that is how it listens")
    };
    (app, port)
}

/// A daemon before it that takes as many connections as come.
fn start(bed: &Bed, port: u16) -> (Setup, Daemon, SocketAddr) {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let setup =
        Setup::embedded(bed).certificate(&[NAME, "127.0.0.1"]).upstream(&format!("http://127.0.0.1:{port}"));
    let text = setup.text();
    let more = format!("[front]\nmax-connections = 9000\ndefault-certificate = {NAME:?}\n");
    let config = bed.write("wicketgate.toml", text.replace("[front]\n", &more));
    let daemon = Process::start("wicketgate run", crate::bed::wicketgate::command(&config).arg("run"));
    setup.wait_until_served(NAME);
    let front = SocketAddr::from(([127, 0, 0, 1], setup.front));
    (setup, Daemon { process: daemon }, front)
}

#[tokio::test]
async fn slow_connections_in_each_state_keep_nobody_waiting() {
    let (count, lasts) = if is_thorough() { (5_000, 40) } else { (800, 5) };
    let bed = Bed::new();
    let (_app, port) = application().await;
    let (setup, daemon, front) = start(&bed, port);
    let pid = daemon.process.id();
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_file(setup.state.join("embedded-ca/root.pem")).unwrap();
    roots.add(root).unwrap();
    let clients = Arc::new(Clients { front, roots, standing: AtomicUsize::new(0) });
    soon(clients.ask("h2")).await;
    let before = resident(pid);

    let strangers: Vec<_> = (0..count)
        .map(|number| {
            let clients = clients.clone();
            tokio::spawn(async move {
                loop {
                    // Turned away is as good as tired: it comes again.
                    let _ = clients.stand(STATES[number % STATES.len()], number).await;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            })
        })
        .collect();
    let began = clock::monotonic();
    let (mut honest, mut peak, mut most) = (0, 0, before);
    // While they come, and once all stand.
    let mut slowest = [Duration::ZERO; 2];
    let mut all_since: Option<std::time::Instant> = None;
    while all_since.is_none_or(|since| clock::monotonic() - since < Duration::from_secs(lasts)) {
        for alpn in ["h2", "http/1.1"] {
            let asked = clock::monotonic();
            soon(clients.ask(alpn)).await;
            let longest = &mut slowest[usize::from(all_since.is_some())];
            *longest = (*longest).max(clock::monotonic() - asked);
            honest += 1;
        }
        peak = peak.max(clients.standing.load(Ordering::Relaxed));
        most = most.max(resident(pid));
        if peak >= count * 9 / 10 {
            all_since.get_or_insert_with(clock::monotonic);
        }
        assert!(
            clock::monotonic() - began < Duration::from_secs(120 + lasts),
            "only {peak} of {count} stand"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for stranger in strangers {
        stranger.abort();
    }
    eprintln!(
        "{peak} slow connections in {} states at once: {honest} honest requests served, the slowest after {:?} while they came and {:?} afterwards; resident memory {before} kB before, {most} kB at most",
        STATES.len(),
        slowest[0],
        slowest[1],
    );
    assert!(most < before + 400_000, "{before} kB grew to {most} kB");
}

#[tokio::test]
async fn slowhttptest_finds_front_and_gate_available() {
    needs!("slowhttptest");
    let (connections, lasts) = if is_thorough() { (2_000, 20) } else { (250, 5) };
    let bed = Bed::new();
    let (_app, port) = application().await;
    let (setup, _daemon, _) = start(&bed, port);
    let doors = [format!("https://127.0.0.1:{}/", setup.front), format!("http://127.0.0.1:{}/", setup.gate)];
    let modes = [("-H", "header"), ("-B", "body"), ("-R", "ranges"), ("-X", "reading")];
    let mut tests: Vec<_> =
        modes.iter().flat_map(|mode| doors.iter().map(move |door| (mode, door))).collect();
    // Few all at once, many one after the other.
    let at_once = if is_thorough() { 1 } else { tests.len() };
    while !tests.is_empty() {
        let running: Vec<_> = tests
            .drain(..at_once)
            .map(|((mode, name), door)| {
                let mut command = Command::new("slowhttptest");
                command.args([mode, "-c", &connections.to_string(), "-r", &(connections / 2).to_string()]);
                command.args(["-i", "2", "-p", "10", "-l", &lasts.to_string(), "-u", door]);
                let what = format!("{name} at {door}");
                let run = move || run_within(Duration::from_secs(120), &mut command).text();
                (what, tokio::task::spawn_blocking(run))
            })
            .collect();
        for (what, test) in running {
            let said = test.await.unwrap();
            let told = |label: &str| {
                let line = said.lines().rev().find_map(|line| Some(line.split_once(label)?.1))?;
                // In colours.
                line.trim_end_matches("\u{1b}[0m").rsplit([' ', 'm']).next()
            };
            eprintln!("{what}: {:?} connected at the end", told("connected:"));
            assert_eq!(told("service available:"), Some("YES"), "{what}: {said}");
        }
    }
    let answer = get_plain(setup.gate, NAME, "/").unwrap();
    assert!(matches!(answer.status, 307 | 308), "{}", answer.status);
}
