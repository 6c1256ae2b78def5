//! A webhook that answers as a test wishes, or does not.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::Bed;

/// How it answers one request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reply {
    /// These bytes, then the connection ends.
    Bytes(&'static str),
    /// These bytes, and then more of them for as long as somebody reads.
    Endless(&'static str),
    /// Nothing, until the other side goes.
    Silence,
}

pub(crate) const OK: Reply = Reply::Bytes("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
pub(crate) const TROUBLE: Reply =
    Reply::Bytes("HTTP/1.1 500 Internal Server Error\r\ncontent-length: 7\r\n\r\nno disk");

/// A listening webhook. Its thread ends with the tests.
pub(crate) struct Webhook {
    pub(crate) port: u16,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Webhook {
    /// Answers the first request with the first reply and so on; the last one repeats.
    pub(crate) fn start(bed: &Bed, replies: &'static [Reply]) -> Self {
        let port = bed.port();
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let seen = requests.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let Some(request) = read_request(&mut stream) else { continue };
                let mut seen = seen.lock().unwrap();
                let reply = replies[seen.len().min(replies.len() - 1)];
                seen.push(request);
                drop(seen);
                std::thread::spawn(move || answer(stream, reply));
            }
        });
        Self { port, requests }
    }

    /// The requests so far, header and body.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// The documents so far.
    pub(crate) fn documents(&self) -> Vec<serde_json::Value> {
        let body = |request: &String| request.split_once("\r\n\r\n").unwrap().1.to_owned();
        self.requests().iter().map(|request| serde_json::from_str(&body(request)).unwrap()).collect()
    }

    /// How many documents of that kind came.
    pub(crate) fn count(&self, kind: &str) -> usize {
        self.documents().iter().filter(|document| document["kind"] == kind).count()
    }
}

fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((header, body)) = text.split_once("\r\n\r\n") {
            let length = header.lines().find_map(|line| line.strip_prefix("content-length: "))?;
            if body.len() >= length.parse().ok()? {
                return Some(text);
            }
        }
        match stream.read(&mut piece) {
            Ok(n @ 1..) => bytes.extend_from_slice(&piece[..n]),
            _ => return None,
        }
    }
}

fn answer(mut stream: TcpStream, reply: Reply) {
    match reply {
        Reply::Bytes(bytes) => drop(stream.write_all(bytes.as_bytes())),
        Reply::Endless(bytes) => while stream.write_all(bytes.as_bytes()).is_ok() {},
        Reply::Silence => drop(stream.read(&mut [0])),
    }
}
