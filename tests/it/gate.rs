//! The gate over real sockets: raw bytes in, raw bytes out.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::StatusCode;
use wicketgate::challenge::{ChallengeGuard, ChallengeTable, Pending, Purpose};
use wicketgate::clock::monotonic;
use wicketgate::config::{Redirect, RedirectHosts};
use wicketgate::gate::visits::Outcome;
use wicketgate::gate::{GateLimits, GateState, Policy, serve};
use wicketgate::hostname::Identifier;
use wicketgate::net::drain::StopTrigger;
use wicketgate::net::listen::{ListenOptions, bind};

const TOKEN: &str = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA";
const KEY_AUTHORIZATION: &str =
    "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA.nP1qzpXGymHBrUEepNY9HCsQk7K8KhOypzEt62jcerQ";

/// How long a test waits for anything that should happen at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// A gate on a port of its own, on a thread of its own.
struct Gate {
    address: SocketAddr,
    state: GateState,
    trigger: Option<StopTrigger>,
    thread: Option<JoinHandle<()>>,
    challenge: ChallengeGuard,
}

impl Gate {
    fn start() -> Self {
        Self::start_with(GateLimits::new(1000), PATIENCE)
    }

    fn start_with(limits: GateLimits, grace: Duration) -> Self {
        Self::start_after(limits, grace, |_| ()).0
    }

    /// Runs something while connections are queued already, but nobody serves them yet.
    fn start_after<T>(
        limits: GateLimits,
        grace: Duration,
        before: impl FnOnce(SocketAddr) -> T,
    ) -> (Self, T) {
        let table = ChallengeTable::new();
        let hosts: BTreeSet<Identifier> = ["a.net", "b.net"].map(|name| name.parse().unwrap()).into();
        let challenge = table.put(
            TOKEN.parse().unwrap(),
            Pending {
                key_authorization: Bytes::from_static(KEY_AUTHORIZATION.as_bytes()),
                hosts: Arc::new(["a.net".parse().unwrap()].into()),
                purpose: Purpose::Order,
            },
        );
        let redirect = Redirect {
            status: StatusCode::PERMANENT_REDIRECT,
            port: 443,
            hosts: RedirectHosts::Configured(hosts),
        };
        let trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
        let state = GateState::new(table, Policy { redirect, match_host: true, trusted_proxies });
        let listener = bind("127.0.0.1:0".parse().unwrap(), &ListenOptions::default()).unwrap();
        let address = listener.local_addr().unwrap();
        let result = before(address);
        let (trigger, stop) = StopTrigger::new();
        let thread = std::thread::spawn({
            let state = state.clone();
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(serve(listener, state, limits, stop, grace)).unwrap();
            }
        });
        let gate = Self { address, state, trigger: Some(trigger), thread: Some(thread), challenge };
        (gate, result)
    }

    fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.address).unwrap();
        Client::new(stream)
    }

    fn stop(&mut self) {
        self.trigger.take();
    }

    fn join(&mut self) {
        self.stop();
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take()
            && !std::thread::panicking()
        {
            thread.join().unwrap();
        }
    }
}

struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
}

#[derive(Debug, PartialEq)]
struct Answer {
    /// The status line and the header fields, sorted, `date` checked and left out.
    head: Vec<String>,
    body: String,
}

impl Client {
    fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, unread: Vec::new() }
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// The next answer to a request that is not HEAD.
    fn answer(&mut self) -> Answer {
        self.answer_with(|head| {
            let length = head.iter().find_map(|line| line.strip_prefix("content-length: "));
            length.expect("every answer tells its length").parse().unwrap()
        })
    }

    fn answer_with(&mut self, body_length: impl FnOnce(&[String]) -> usize) -> Answer {
        let end = loop {
            if let Some(end) = self.unread.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            assert!(self.read_more(), "closed within a header: {:?}", String::from_utf8_lossy(&self.unread));
        };
        let head = String::from_utf8(self.unread.drain(..end + 4).collect()).unwrap();
        let mut lines: Vec<String> = head.trim_end().split("\r\n").map(str::to_owned).collect();
        let dates = lines.extract_if(1.., |line| line.starts_with("date: ")).collect::<Vec<_>>();
        assert_eq!(dates.len(), 1, "{head}");
        assert!(httpdate::parse_http_date(&dates[0]["date: ".len()..]).is_ok());
        lines[1..].sort();
        let length = body_length(&lines);
        while self.unread.len() < length {
            assert!(self.read_more(), "closed within a body");
        }
        let body = String::from_utf8(self.unread.drain(..length).collect()).unwrap();
        Answer { head: lines, body }
    }

    fn read_more(&mut self) -> bool {
        let mut buffer = [0; 4096];
        let read = self.stream.read(&mut buffer).unwrap();
        self.unread.extend_from_slice(&buffer[..read]);
        read > 0
    }

    /// Whether the gate closes without another byte.
    fn is_closed(&mut self) -> bool {
        assert!(self.unread.is_empty(), "{:?}", String::from_utf8_lossy(&self.unread));
        match self.stream.read(&mut [0]) {
            Ok(read) => read == 0,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => true,
            Err(error) => panic!("neither data nor an end: {error}"),
        }
    }
}

fn answer(head: &[&str], body: &str) -> Answer {
    let mut head: Vec<String> = head.iter().map(|&line| line.to_owned()).collect();
    head[1..].sort();
    Answer { head, body: body.to_owned() }
}

fn key_authorization() -> Answer {
    answer(
        &[
            "HTTP/1.1 200 OK",
            "content-type: application/octet-stream",
            "cache-control: no-store",
            "content-length: 87",
        ],
        KEY_AUTHORIZATION,
    )
}

fn redirect(location: &str) -> Answer {
    answer(&["HTTP/1.1 307 Temporary Redirect", &format!("location: {location}"), "content-length: 0"], "")
}

fn not_found() -> Answer {
    answer(
        &[
            "HTTP/1.1 404 Not Found",
            "cache-control: no-store",
            "content-length: 22",
            "content-type: text/plain",
        ],
        "404 no such challenge\n",
    )
}

fn bad_request(version: &str) -> Answer {
    answer(
        &[
            &format!("{version} 400 Bad Request"),
            "connection: close",
            "content-length: 16",
            "content-type: text/plain",
        ],
        "400 bad request\n",
    )
}

fn get(host: &str, target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

fn challenge() -> String {
    get("a.net", &format!("/.well-known/acme-challenge/{TOKEN}"))
}

/// Polls until the condition holds.
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = monotonic() + PATIENCE;
    while !condition() {
        assert!(monotonic() < deadline, "{what} never came true");
        std::thread::yield_now();
    }
}

#[test]
fn answers_on_one_connection_carry_exactly_these_fields() {
    let gate = Gate::start();
    let mut client = gate.connect();
    client.send(challenge());
    assert_eq!(client.answer(), key_authorization());
    client.send(get("a.net", "/.well-known/acme-challenge/other"));
    assert_eq!(client.answer(), not_found());
    client.send(get("b.net", &format!("/.well-known/acme-challenge/{TOKEN}")));
    assert_eq!(client.answer(), not_found());
    client.send(get("A.net.:80", "/x%2f?y=//z"));
    assert_eq!(client.answer(), redirect("https://a.net/x%2f?y=//z"));
    client.send(get("evil.test", "/"));
    let foreign = answer(
        &["HTTP/1.1 421 Misdirected Request", "content-length: 20", "content-type: text/plain"],
        "421 not served here\n",
    );
    assert_eq!(client.answer(), foreign);
    client.send(challenge().replacen("GET", "DELETE", 1));
    let not_allowed = answer(
        &[
            "HTTP/1.1 405 Method Not Allowed",
            "allow: GET, HEAD",
            "cache-control: no-store",
            "content-length: 22",
            "content-type: text/plain",
        ],
        "405 only GET and HEAD\n",
    );
    assert_eq!(client.answer(), not_allowed);
    gate.state.served.store(Arc::new(["a.net".parse().unwrap()].into()));
    client.send(get("a.net", "/"));
    assert_eq!(client.answer().head[0], "HTTP/1.1 308 Permanent Redirect");
    client.send("GET / HTTP/1.1\r\n\r\n");
    assert_eq!(client.answer(), bad_request("HTTP/1.1"));
    assert!(client.is_closed());
}

#[test]
fn head_gets_the_fields_of_get_and_no_body() {
    let gate = Gate::start();
    let mut client = gate.connect();
    for request in [challenge(), get("a.net", "/x"), get("a.net", "/.well-known/acme-challenge/other")] {
        client.send(&request);
        let full = client.answer();
        client.send(request.replacen("GET", "HEAD", 1));
        let head = client.answer_with(|_| 0);
        assert_eq!((head.head, head.body.as_str()), (full.head, ""));
    }
    client.send(challenge());
    assert_eq!(client.answer(), key_authorization(), "nothing was left over");
}

#[test]
fn http_1_0() {
    let gate = Gate::start();
    let mut client = gate.connect();
    client.send(challenge().replacen("HTTP/1.1", "HTTP/1.0", 1));
    assert_eq!(client.answer().body, KEY_AUTHORIZATION);
    assert!(client.is_closed());

    let mut client = gate.connect();
    client.send("GET /x HTTP/1.0\r\nHost: a.net\r\nConnection: keep-alive\r\n\r\n");
    let kept = client.answer();
    assert!(kept.head.contains(&"connection: keep-alive".to_owned()), "{kept:?}");
    assert!(kept.head.contains(&"location: https://a.net/x".to_owned()), "{kept:?}");
    client.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(client.answer(), bad_request("HTTP/1.0"));
    assert!(client.is_closed());

    let mut client = gate.connect();
    client.send(format!("GET /.well-known/acme-challenge/{TOKEN} HTTP/1.0\r\n\r\n"));
    assert_eq!(client.answer().head[0], "HTTP/1.0 404 Not Found");
}

#[test]
fn requests_in_pieces_and_in_a_row() {
    let gate = Gate::start();
    let mut client = gate.connect();
    for byte in challenge().into_bytes() {
        client.send([byte]);
    }
    assert_eq!(client.answer(), key_authorization());
    client.send([challenge(), get("a.net", "/1"), challenge(), get("a.net", "/2")].concat());
    assert_eq!(client.answer(), key_authorization());
    assert_eq!(client.answer(), redirect("https://a.net/1"));
    assert_eq!(client.answer(), key_authorization());
    assert_eq!(client.answer(), redirect("https://a.net/2"));
    let many: usize = 5000;
    std::thread::scope(|scope| {
        let mut sender = client.stream.try_clone().unwrap();
        scope.spawn(move || sender.write_all(get("a.net", "/").repeat(many).as_bytes()).unwrap());
        for _ in 0..many {
            assert_eq!(client.answer(), redirect("https://a.net/"));
        }
    });
}

#[test]
fn an_answer_before_a_close_arrives_whatever_follows_the_request() {
    let gate = Gate::start();
    let body = "x".repeat(100_000);
    let posted = format!("POST / HTTP/1.1\r\nHost: a.net\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let closing = || {
        let mut answer = redirect("https://a.net/");
        answer.head.insert(1, "connection: close".to_owned());
        answer
    };
    for (request, expected) in [
        (get("a.net", "/").replacen("\r\n\r\n", "\r\nConnection: close\r\n\r\nGET /more", 1), closing()),
        (format!("GET / HTTP/1.1\r\n\r\n{body}"), bad_request("HTTP/1.1")),
        (posted, closing()),
    ] {
        let mut client = gate.connect();
        client.send(request);
        assert_eq!(client.answer(), expected);
        assert_eq!(client.stream.read(&mut [0]).unwrap(), 0, "an end, and no reset");
    }
}

#[test]
fn a_small_body_does_not_end_the_connection() {
    let gate = Gate::start();
    let mut client = gate.connect();
    client.send("POST /form HTTP/1.1\r\nHost: a.net\r\nContent-Length: 3\r\n\r\na=b");
    assert_eq!(client.answer(), redirect("https://a.net/form"));
    client.send(challenge());
    assert_eq!(client.answer(), key_authorization());
}

#[test]
fn a_client_may_close_its_side_after_asking() {
    let (_gate, mut client) = Gate::start_after(GateLimits::new(1000), PATIENCE, |address| {
        let mut client = Client::new(TcpStream::connect(address).unwrap());
        client.send(challenge());
        client.stream.shutdown(std::net::Shutdown::Write).unwrap();
        client
    });
    assert_eq!(client.answer(), key_authorization());
    assert!(client.is_closed());
}

#[test]
fn hosts_that_cannot_be_relied_on() {
    let gate = Gate::start();
    for request in [
        "GET / HTTP/1.1\r\nHost: a.net\r\nHost: a.net\r\n\r\n".to_owned(),
        get("", "/"),
        get("a.net, b.net", "/"),
        get("a.net/x", "/"),
        get("u@a.net", "/"),
        get("a.net:80:80", "/"),
        get("a.net", "http://b.net/"),
        get("a.net", "https://a.net/"),
        get("a.net", "*").replacen("GET", "OPTIONS", 1),
        get("a.net", "a.net:443").replacen("GET", "CONNECT", 1),
    ] {
        let mut client = gate.connect();
        client.send(&request);
        assert_eq!(client.answer(), bad_request("HTTP/1.1"), "{request}");
        assert!(client.is_closed());
    }
    for request in [
        b"GET / HTTP/1.1\r\nHost: a\xff.net\r\n\r\n".as_slice(),
        b"GET /\xc3\xa4 HTTP/1.1\r\nHost: a.net\r\n\r\n",
    ] {
        let mut client = gate.connect();
        client.send(request);
        assert_eq!(client.answer().head[0], "HTTP/1.1 400 Bad Request");
        assert!(client.is_closed());
    }
}

#[test]
fn what_is_no_http_is_refused_in_short() {
    let gate = Gate::start();
    let bare =
        |status: &str| answer(&[&format!("HTTP/1.1 {status}"), "connection: close", "content-length: 0"], "");
    let long = "x".repeat(17_000);
    let fields = "X: y\r\n".repeat(101);
    for (request, expected) in [
        ("\x16\x03\x01\x02\x00\x01\r\n\r\n".to_owned(), bare("400 Bad Request")),
        ("GET / HTTP/1.1\r\nHost: a.net\r\nX\0: y\r\n\r\n".to_owned(), bare("400 Bad Request")),
        ("GET / HTTP/1.1\r\nHost : a.net\r\n\r\n".to_owned(), bare("400 Bad Request")),
        ("GET / HTTP/1.1\r\nHost: a.net\r\n b.net\r\n\r\n".to_owned(), bare("400 Bad Request")),
        ("GET / HTTP/3.0\r\nHost: a.net\r\n\r\n".to_owned(), bare("400 Bad Request")),
        (
            format!("GET / HTTP/1.1\r\nHost: a.net\r\nX: {long}\r\n\r\n"),
            bare("431 Request Header Fields Too Large"),
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: a.net\r\n{fields}\r\n"),
            bare("431 Request Header Fields Too Large"),
        ),
    ] {
        let mut client = gate.connect();
        client.send(&request);
        assert_eq!(client.answer(), expected, "{request}");
        assert!(client.is_closed());
    }
    let mut client = gate.connect();
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert!(client.is_closed());
}

/// Deadlines that a test can wait for; all others stay long.
fn long_limits() -> GateLimits {
    let hour = Duration::from_secs(3600);
    GateLimits {
        max_connections: 1000,
        max_connections_per_network: 1000,
        first_byte: hour,
        header: hour,
        idle: hour,
        write: hour,
        linger: hour,
        lifetime: hour,
    }
}

const SHORT: Duration = Duration::from_millis(200);

/// How long until the gate closed, of which the deadline may be missed by the sweep's interval.
fn closes_after_the_deadline(client: &mut Client, start: Instant) {
    assert!(client.is_closed());
    let waited = start.elapsed();
    assert!(waited >= SHORT * 3 / 4, "closed after {waited:?} already");
}

#[test]
fn a_silent_connection_is_closed() {
    let gate = Gate::start_with(GateLimits { first_byte: SHORT, ..long_limits() }, PATIENCE);
    let start = monotonic();
    closes_after_the_deadline(&mut gate.connect(), start);
}

#[test]
fn a_header_that_drips_is_closed() {
    let gate = Gate::start_with(GateLimits { header: SHORT, ..long_limits() }, PATIENCE);
    let mut client = gate.connect();
    client.send(challenge());
    assert_eq!(client.answer(), key_authorization());
    client.send("GET / HTTP/1.1\r\nHost: a.net\r\n");
    let start = monotonic();
    client.stream.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    eventually("the end of a slow header", || {
        let sent = client.stream.write_all(b"X: y\r\n");
        let read = client.stream.read(&mut [0]);
        sent.is_err() || matches!(&read, Ok(0)) || read.is_err_and(|e| e.kind() == ErrorKind::ConnectionReset)
    });
    assert!(start.elapsed() >= SHORT * 3 / 4);
}

#[test]
fn an_idle_connection_is_closed_and_one_in_use_is_not() {
    let gate = Gate::start_with(GateLimits { idle: SHORT, ..long_limits() }, PATIENCE);
    let mut client = gate.connect();
    let start = monotonic();
    while start.elapsed() < SHORT * 3 {
        client.send(challenge());
        assert_eq!(client.answer(), key_authorization());
    }
    let start = monotonic();
    closes_after_the_deadline(&mut client, start);
}

#[test]
fn a_client_that_never_reads_is_closed() {
    let gate = Gate::start_with(GateLimits { write: SHORT, ..long_limits() }, PATIENCE);
    let client = gate.connect();
    socket2::SockRef::from(&client.stream).set_recv_buffer_size(4096).unwrap();
    let request = get("a.net", &format!("/{}", "x".repeat(8000)));
    let error = loop {
        if let Err(error) = (&client.stream).write_all(request.as_bytes()) {
            break error;
        }
    };
    assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
}

#[test]
fn a_connection_in_constant_use_ends_between_two_requests() {
    let gate = Gate::start_with(GateLimits { lifetime: SHORT, ..long_limits() }, PATIENCE);
    let mut client = gate.connect();
    let start = monotonic();
    // Either it is told with an answer, or it is found idle.
    let mut told = false;
    while !told {
        if client.stream.write_all(challenge().as_bytes()).is_err() {
            break;
        }
        match client.stream.peek(&mut [0]) {
            Ok(1) => told = client.answer().head.contains(&"connection: close".to_owned()),
            _ => break,
        }
    }
    assert!(start.elapsed() >= SHORT * 3 / 4);
    assert!(start.elapsed() < PATIENCE);
}

#[test]
fn at_the_cap_the_silent_ones_go_and_the_newcomer_is_served() {
    let gate = Gate::start_with(GateLimits { max_connections: 50, ..long_limits() }, PATIENCE);
    let mut known = gate.connect();
    known.send(challenge());
    assert_eq!(known.answer(), key_authorization());
    let mut silent: Vec<Client> = (0..48).map(|_| gate.connect()).collect();
    // Accepted after all of them, since it is answered; then both are younger than they are.
    let mut last = gate.connect();
    for client in [&mut last, &mut known] {
        client.send(challenge());
        assert_eq!(client.answer(), key_authorization());
    }
    let mut flood: Vec<Client> = (0..48).map(|_| gate.connect()).collect();
    for client in &mut silent {
        assert!(client.is_closed());
    }
    for client in flood.iter_mut().chain([&mut known, &mut last]) {
        client.send(challenge());
        assert_eq!(client.answer(), key_authorization());
    }
}

#[test]
fn a_network_fills_no_more_than_its_share() {
    let limits = GateLimits { max_connections: 20, max_connections_per_network: 6, ..long_limits() };
    let gate = Gate::start_with(limits, PATIENCE);
    let policy = Policy { trusted_proxies: vec![], ..Policy::clone(&gate.state.policy.load()) };
    gate.state.policy.store(Arc::new(policy));
    let another = || {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 2], 0)).into()).unwrap();
        socket.connect(&gate.address.into()).unwrap();
        Client::new(socket.into())
    };
    let mut known = another();
    let mut flood: Vec<Client> = (0..60).map(|_| gate.connect()).collect();
    for client in [&mut another(), &mut known] {
        client.send(challenge());
        assert_eq!(client.answer(), key_authorization());
    }
    for silent in flood.drain(..54) {
        assert!({ silent }.is_closed());
    }
    for client in &mut flood {
        client.send(challenge());
        assert_eq!(client.answer(), key_authorization());
    }
}

#[test]
fn a_stop_drops_nothing_and_ends() {
    let mut gate = Gate::start();
    let mut idle = gate.connect();
    idle.send(challenge());
    assert_eq!(idle.answer(), key_authorization());
    let mut asking = gate.connect();
    asking.send("GET /asked HTTP/1.1\r\n");
    let mut asking_again = gate.connect();
    asking_again.send([challenge(), "GET /again HTTP/1.1\r\n".to_owned()].concat());
    assert_eq!(asking_again.answer(), key_authorization());
    let mut silent = gate.connect();
    // The last to be accepted is answered, so the ones before were accepted, too.
    let mut last = gate.connect();
    last.send(challenge());
    assert_eq!(last.answer(), key_authorization());
    gate.stop();
    assert!(idle.is_closed());
    assert!(last.is_closed());
    for (client, path) in [(&mut asking, "asked"), (&mut asking_again, "again")] {
        client.send("Host: a.net\r\n\r\n");
        let answer = client.answer();
        assert!(answer.head.contains(&format!("location: https://a.net/{path}")), "{answer:?}");
        assert!(answer.head.contains(&"connection: close".to_owned()), "{answer:?}");
        assert!(client.is_closed());
    }
    silent.send(challenge());
    assert_eq!(silent.answer().body, KEY_AUTHORIZATION, "its request was on its way");
    assert!(TcpStream::connect(gate.address).is_err(), "nothing listens any more");
    gate.join();
}

#[test]
fn the_time_of_grace_has_an_end() {
    let mut gate = Gate::start_with(long_limits(), SHORT);
    let mut stuck = gate.connect();
    stuck.send([challenge(), "GET / HTTP/1.1\r\n".to_owned()].concat());
    assert_eq!(stuck.answer(), key_authorization());
    let start = monotonic();
    gate.join();
    assert!(start.elapsed() >= SHORT && start.elapsed() < PATIENCE);
    assert!(stuck.is_closed());
}

#[test]
fn visits_are_told_with_the_client_behind_a_proxy() {
    let gate = Gate::start();
    let mut client = gate.connect();
    let since = wicketgate::clock::now();
    client.send(challenge().replacen("\r\n\r\n", "\r\nX-Forwarded-For: 1.1.1.1, 192.0.2.9\r\n\r\n", 1));
    client.answer();
    client.send(get("b.net", &format!("/.well-known/acme-challenge/{TOKEN}")));
    client.answer();
    let visits = |host: &str| gate.state.visits.since(&host.parse().unwrap(), since);
    let [answered] = &visits("a.net")[..] else { panic!("{:?}", gate.state.visits) };
    assert_eq!((answered.client.to_string().as_str(), answered.outcome), ("192.0.2.9", Outcome::Answered));
    let [refused] = &visits("b.net")[..] else { panic!("{:?}", gate.state.visits) };
    assert_eq!((refused.client.to_string().as_str(), refused.outcome), ("127.0.0.1", Outcome::WrongHost));
}

#[test]
fn who_came_is_written_down_beside_the_token() {
    let gate = Gate::start();
    let mut client = gate.connect();
    client.send(challenge());
    client.answer();
    client.send(get("b.net", &format!("/.well-known/acme-challenge/{TOKEN}")).replacen("GET", "HEAD", 1));
    client.answer_with(|_| 0);
    client.send(get("a.net", "/.well-known/acme-challenge/other"));
    client.answer();
    let arrivals = gate.challenge.arrivals();
    let outcomes: Vec<_> =
        arrivals.iter().map(|a| (a.outcome, a.host.clone().unwrap().to_string())).collect();
    assert_eq!(outcomes, [(Outcome::Answered, "a.net".to_owned()), (Outcome::WrongHost, "b.net".to_owned())]);
}

#[test]
fn a_canary_is_answered_and_is_nobodys_visit() {
    let gate = Gate::start();
    let canary = gate.state.table.put(
        "canary".parse().unwrap(),
        Pending {
            key_authorization: Bytes::from_static(b"canary.sings"),
            hosts: Arc::new(["b.net".parse().unwrap()].into()),
            purpose: Purpose::Canary,
        },
    );
    let mut client = gate.connect();
    let ask = || get("b.net", "/.well-known/acme-challenge/canary");
    client.send(ask());
    assert_eq!(client.answer().body, "canary.sings");
    assert_eq!(canary.arrived(), 1);
    drop(canary);
    client.send(ask());
    client.answer();
    let visits = &gate.state.visits;
    assert_eq!((visits.answered(), visits.late(), visits.refused()), (0, 0, 0), "{visits:?}");
}

#[test]
fn who_comes_late_gets_what_a_stranger_gets_and_is_none() {
    let gate = Gate::start();
    let pending = Pending {
        key_authorization: Bytes::from_static(b"gone.x"),
        hosts: Arc::new(["a.net".parse().unwrap()].into()),
        purpose: Purpose::Order,
    };
    drop(gate.state.table.put("gone".parse().unwrap(), pending));
    let mut client = gate.connect();
    let mut ask = |token: &str| {
        client.send(get("a.net", &format!("/.well-known/acme-challenge/{token}")));
        client.answer()
    };
    assert_eq!(ask("gone"), ask("never"));
    let visits = &gate.state.visits;
    assert_eq!((visits.answered(), visits.late(), visits.refused()), (0, 1, 1), "{visits:?}");
}
