//! Servers that do on port 80 what no good server does, and the name server beside them, in a process on
//! another machine: this test program itself, started once more there.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::Duration;

use super::neighbours::{Neighbours, OURS};
use super::process::Process;
use super::zone::{self, Told, Zone};

/// The variable that tells the started program to serve: the name server's address and its zone.
const ZONE: &str = "WICKETGATE_TEST_ZONE";

/// What a server does with a connection.
#[derive(Debug, Clone, Copy)]
enum Oddity {
    /// Takes the request and says nothing.
    Silent,
    /// Cuts the connection with a reset.
    Reset,
    /// Hangs up.
    Close,
    /// Another protocol, which speaks first.
    Says(&'static [u8]),
    /// Begins an answer and stops.
    Stall,
    /// The gate's own answer with a line end after it.
    Newline,
    /// A body without an end in sight.
    Large,
    /// A header without an end in sight.
    LargeHeader,
    /// From one path to the next, for ever.
    Onwards,
}

/// Who is where.
const SERVED: [(&str, Oddity); 11] = [
    ("192.0.2.50:80", Oddity::Silent),
    ("192.0.2.51:80", Oddity::Reset),
    ("192.0.2.52:80", Oddity::Close),
    ("192.0.2.54:80", Oddity::Says(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n")),
    ("192.0.2.55:80", Oddity::Says(b"\x00\x00\x00\x04\x00\x00\x00\x00\x00")),
    ("192.0.2.56:80", Oddity::Newline),
    ("192.0.2.57:80", Oddity::Large),
    ("192.0.2.58:80", Oddity::LargeHeader),
    ("192.0.2.59:80", Oddity::Stall),
    ("192.0.2.60:80", Oddity::Onwards),
    ("192.0.2.61:80", Oddity::Says(b"HTTP/1.1 200 OK\r\nContent-Length: 87\r\n\r\ncut")),
];

/// Starts all of them on the other machine, with a name server on port 53 of `address`.
pub(crate) fn start(neighbours: &Neighbours, address: &str, zone: &Zone) -> Process {
    let zone: String = zone.iter().map(|(name, told)| format!(";{name}={}", written(told))).collect();
    let mut command: Command = neighbours.theirs(std::env::current_exe().expect("a test program has a path"));
    command.args(["--exact", "bed::oddities::serve_for_another_test", "--ignored", "--nocapture"]);
    command.env(ZONE, format!("{address}:53{zone}"));
    let process = Process::start("odd servers", &mut command);
    process.wait_for_line("all are there");
    process
}

fn written(told: &Told) -> String {
    match told {
        Told::Address(address) => format!("address {address}"),
        Told::Issue(value) => format!("issue {}", value.replace(';', "nobody")),
        Told::Exists => "exists".to_owned(),
        Told::ServFail => "servfail".to_owned(),
        Told::IssueHearsay(value) => format!("issue-hearsay {}", value.replace(';', "nobody")),
        Told::Bogus(address) => format!("bogus {address}"),
        Told::Expired(address, server) => format!("expired {address} {server}"),
        Told::Served(server) => format!("served {server}"),
        Told::Hearsay => "hearsay".to_owned(),
    }
}

fn read(text: &str) -> Told {
    let (kind, value) = text.split_once(' ').unwrap_or((text, ""));
    match kind {
        "address" => Told::Address(value.parse().expect("an address")),
        "issue" => Told::Issue(value.replace("nobody", ";")),
        "exists" => Told::Exists,
        "servfail" => Told::ServFail,
        "issue-hearsay" => Told::IssueHearsay(value.replace("nobody", ";")),
        "expired" => {
            let (address, server) = value.split_once(' ').expect("an address and a server");
            Told::Expired(address.parse().expect("an address"), server.to_owned())
        }
        "served" => Told::Served(value.to_owned()),
        "bogus" => Told::Bogus(value.parse().expect("an address")),
        "hearsay" => Told::Hearsay,
        other => panic!("`{other}` is no record"),
    }
}

#[test]
#[ignore = "started by other tests, on another machine"]
#[expect(clippy::print_stdout, reason = "the test that started it waits for the line")]
fn serve_for_another_test() {
    let Ok(text) = std::env::var(ZONE) else { return };
    let mut parts = text.split(';');
    let address = parts.next().and_then(|a| a.parse().ok()).expect("the name server's address");
    let names =
        parts.filter_map(|part| part.split_once('=')).map(|(name, r)| (name.to_owned(), read(r))).collect();
    let _name_server = zone::serve(address, names);
    for (address, oddity) in SERVED {
        let address: SocketAddr = address.parse().unwrap();
        let listener = TcpListener::bind(address).unwrap_or_else(|e| panic!("{address}: {e}"));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || behave(stream, oddity));
            }
        });
    }
    println!("all are there");
    loop {
        thread::park();
    }
}

/// One connection; who hangs up in the midst of it is no failure.
fn behave(mut stream: TcpStream, oddity: Oddity) -> Option<()> {
    if let Oddity::Says(words) = oddity {
        stream.write_all(words).ok()?;
    }
    let request = request(&mut stream)?;
    match oddity {
        Oddity::Silent | Oddity::Says([0 | b'S', ..]) => hold(stream),
        Oddity::Says(_) | Oddity::Close => drop(stream),
        Oddity::Reset => socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).ok()?,
        Oddity::Stall => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 87\r\n\r\nbegun").ok()?;
            hold(stream);
        }
        Oddity::Newline => {
            let mut gate = TcpStream::connect((OURS, 80)).ok()?;
            gate.write_all(request.as_bytes()).ok()?;
            let mut answer = Vec::new();
            gate.read_to_end(&mut answer).ok()?;
            let body = answer.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
            stream.write_all(b"HTTP/1.1 200 OK\r\nServer: template\r\nConnection: close\r\n\r\n").ok()?;
            stream.write_all(&answer[body..]).and_then(|()| stream.write_all(b"\n")).ok()?;
        }
        Oddity::Large => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").ok()?;
            stream.write_all(&[b'x'; 100_000]).ok()?;
        }
        Oddity::LargeHeader => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n").ok()?;
            for n in 0..2000 {
                stream.write_all(format!("X-Field-{n}: {}\r\n", "x".repeat(50)).as_bytes()).ok()?;
            }
        }
        Oddity::Onwards => {
            let path = request.split(' ').nth(1)?;
            let answer = format!(
                "HTTP/1.1 302 Found\r\nLocation: {path}x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
            stream.write_all(answer.as_bytes()).ok()?;
        }
    }
    Some(())
}

fn request(stream: &mut TcpStream) -> Option<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

/// Until the other side gives up.
fn hold(mut stream: TcpStream) {
    // Whatever ends it, it has ended.
    let _ = stream.read_to_end(&mut Vec::new());
}
