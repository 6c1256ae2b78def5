//! Upstreams that misbehave or take their time, as a thread with a socket.

use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::thread;

use super::Bed;

/// Listens on a new port and has every connection served by `answer`, which gets the request's head.
pub(crate) fn start(bed: &Bed, answer: impl Fn(String, TcpStream) + Clone + Send + 'static) -> u16 {
    let port = bed.port();
    start_on(port, answer);
    port
}

/// As [`start`], on a port that is claimed already.
pub(crate) fn start_on(port: u16, answer: impl Fn(String, TcpStream) + Clone + Send + 'static) {
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let answer = answer.clone();
            thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).unwrap_or(0) > 0 {}
                if !head.is_empty() {
                    answer(head, stream);
                }
            });
        }
    });
}

/// Reads until the other side closes.
pub(crate) fn wait_for_end(mut stream: TcpStream) {
    let mut rest = Vec::new();
    // Closed or reset is the same end.
    let _ = stream.read_to_end(&mut rest);
}
