//! One GET over a connection of its own, as a validator sends it, with everything bounded that comes back.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, HOST, LOCATION, USER_AGENT};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::tls;
use crate::net::witness::{Began, Witness};
use crate::preflight::sighting::{Answer, Failure, Place, Scheme};

/// To be connected, TCP alone. The kernel asks again after 1 and 3 seconds.
const CONNECT: Duration = Duration::from_secs(5);

/// To find out whether a silent program speaks TLS.
const TLS_LOOK: Duration = Duration::from_secs(3);

/// How much of a body is kept: more than any key authorization, enough to recognise a page.
const BODY_LIMIT: usize = 1024;

/// Longest header that is read, in bytes.
const HEADER_LIMIT: usize = 16 * 1024;

/// Longest value of a field that is kept, in bytes.
const VALUE_LIMIT: usize = 256;

/// Fields that tell who made an answer.
const TELLING: [&str; 16] = [
    "server",
    "via",
    "x-squid-error",
    "x-cache",
    "x-cache-lookup",
    "x-powered-by",
    "x-varnish",
    "x-envoy-upstream-service-time",
    "x-amz-cf-id",
    "x-served-by",
    "x-sucuri-id",
    "cf-ray",
    "cf-mitigated",
    "proxy-status",
    "www-authenticate",
    "proxy-authenticate",
];

const AGENT: &str =
    concat!("wicketgate/", env!("CARGO_PKG_VERSION"), " (preflight; +", env!("CARGO_PKG_REPOSITORY"), ")");

/// An answer, and where it redirects to.
pub(super) struct Exchanged {
    pub(super) answer: Answer,
    pub(super) location: Option<Vec<u8>>,
}

/// Asks for a URL at an address.
pub(super) async fn ask(place: &Place, address: SocketAddr, end: Instant) -> Result<Exchanged, Failure> {
    let stream = connect(address, end).await?;
    match place.scheme {
        Scheme::Https => {
            let began = Began::default();
            let secured = tls::handshake(stream, &place.host);
            let stream =
                timeout_at(end, secured).await.map_err(|_| Failure::Silent)?.map_err(Failure::Tls)?;
            converse(place, stream, &began, end).await
        }
        Scheme::Http => {
            let began = Began::default();
            match converse(place, stream, &began, end).await {
                // A TLS server may hang up on a plain request without a word.
                Err(Failure::Closed | Failure::Reset) if speaks_tls(place, address, end).await => {
                    Err(Failure::SpeaksTls)
                }
                other => other,
            }
        }
    }
}

async fn connect(address: SocketAddr, end: Instant) -> Result<TcpStream, Failure> {
    match timeout_at(end, timeout(CONNECT, TcpStream::connect(address))).await {
        Ok(Ok(Ok(stream))) => Ok(stream),
        Ok(Ok(Err(error))) => Err(of_connect(&error)),
        Ok(Err(_)) | Err(_) => Err(Failure::ConnectTimeout),
    }
}

fn of_connect(error: &io::Error) -> Failure {
    match Errno::from_io_error(error) {
        Some(Errno::CONNREFUSED) => Failure::Refused,
        Some(Errno::TIMEDOUT) => Failure::ConnectTimeout,
        Some(Errno::CONNRESET) => Failure::Reset,
        Some(
            Errno::NETUNREACH
            | Errno::HOSTUNREACH
            | Errno::NETDOWN
            | Errno::HOSTDOWN
            | Errno::ADDRNOTAVAIL
            | Errno::AFNOSUPPORT
            | Errno::ACCESS
            | Errno::PERM
            | Errno::INVAL,
        ) => Failure::NoRoute(error.to_string()),
        _ => Failure::Other(error.to_string()),
    }
}

async fn speaks_tls(place: &Place, address: SocketAddr, end: Instant) -> bool {
    let look = async {
        let stream = TcpStream::connect(address).await.ok()?;
        tls::handshake(stream, &place.host).await.ok()
    };
    let look = timeout(TLS_LOOK, look);
    matches!(timeout_at(end + TLS_LOOK, look).await, Ok(Ok(Some(_))))
}

async fn converse<S>(place: &Place, stream: S, began: &Began, end: Instant) -> Result<Exchanged, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let told = |error: &hyper::Error| of_exchange(error, began);
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(HEADER_LIMIT)
        .handshake(TokioIo::new(Witness::new(stream, began.clone())))
        .await
        .map_err(|e| told(&e))?;
    // Dropped, and so ended, with this function.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let request = Request::get(&place.path)
        .header(HOST, place.authority())
        .header(USER_AGENT, AGENT)
        .header(ACCEPT, "*/*")
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|e| Failure::Other(e.to_string()))?;
    let response = match timeout_at(end, sender.send_request(request)).await {
        Ok(response) => response.map_err(|e| told(&e))?,
        Err(_) if began.bytes().is_empty() => return Err(Failure::Silent),
        Err(_) => return Err(stalled(&began.bytes())),
    };
    let (headers, location) = telling(response.headers());
    let status = response.status();
    let (body, more) = match timeout_at(end, beginning(response)).await {
        Ok(read) => read.map_err(|e| told(&e))?,
        Err(_) => return Err(Failure::Stalled),
    };
    Ok(Exchanged { answer: Answer { status, headers, body, more }, location })
}

/// What began and did not become a header in time.
fn stalled(bytes: &[u8]) -> Failure {
    if bytes.starts_with(b"HTTP/") { Failure::Stalled } else { foreign(bytes) }
}

fn foreign(bytes: &[u8]) -> Failure {
    // An alert or a handshake record of any version (RFC 8446 section 5.1).
    if matches!(bytes, [0x15 | 0x16, 0x03, 0..=4, ..]) {
        Failure::SpeaksTls
    } else {
        Failure::NotHttp(bytes.to_vec())
    }
}

fn of_exchange(error: &hyper::Error, began: &Began) -> Failure {
    let bytes = began.bytes();
    let cause = error.source().and_then(|e| e.downcast_ref::<io::Error>());
    let is_http = bytes.starts_with(b"HTTP/1.");
    if error.is_parse_too_large() && (is_http || bytes.is_empty()) {
        return Failure::HeaderTooLarge;
    }
    if !bytes.is_empty() && !is_http {
        return foreign(&bytes);
    }
    match cause.map(io::Error::kind) {
        Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) if bytes.is_empty() => {
            return Failure::Reset;
        }
        Some(io::ErrorKind::TimedOut) => return Failure::Silent,
        _ => {}
    }
    if error.is_parse() {
        return Failure::NotHttp(bytes);
    }
    if bytes.is_empty() { Failure::Closed } else { Failure::BrokeOff }
}

/// The fields worth keeping, and `Location`.
fn telling(headers: &HeaderMap) -> (Vec<(String, String)>, Option<Vec<u8>>) {
    let cut = |value: &http::HeaderValue| {
        let bytes = value.as_bytes();
        String::from_utf8_lossy(&bytes[..bytes.len().min(VALUE_LIMIT)]).into_owned()
    };
    let kept = TELLING.iter().filter_map(|name| Some(((*name).to_owned(), cut(headers.get(*name)?))));
    (kept.collect(), headers.get(LOCATION).map(|value| value.as_bytes().to_vec()))
}

/// How the body begins, and whether it goes on.
async fn beginning(mut response: Response<Incoming>) -> Result<(Vec<u8>, bool), hyper::Error> {
    let mut body = Vec::new();
    while let Some(frame) = response.frame().await {
        if let Some(data) = frame?.data_ref() {
            body.extend_from_slice(&data[..data.len().min(BODY_LIMIT + 1 - body.len())]);
        }
        if body.len() > BODY_LIMIT {
            body.truncate(BODY_LIMIT);
            return Ok((body, true));
        }
    }
    Ok((body, false))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn place() -> Place {
        Place { scheme: Scheme::Http, host: "a.example".into(), port: 80, path: "/tok".into() }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    /// Answers each connection with those bytes, once a request is there, and tells the last request.
    async fn answering(answer: &'static [u8]) -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<String>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut asked = Vec::new();
                while !asked.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = stream.read_u8().await else { break };
                    asked.push(byte);
                }
                // The asker may be gone.
                let _ = sender.send(String::from_utf8_lossy(&asked).into_owned());
                let _ = stream.write_all(answer).await;
            }
        });
        (address, receiver)
    }

    async fn asked(answer: &'static [u8]) -> Result<Exchanged, Failure> {
        let (address, _requests) = answering(answer).await;
        ask(&place(), address, soon()).await
    }

    #[tokio::test]
    async fn the_request_is_the_one_of_a_validator() {
        let (address, mut requests) =
            answering(b"HTTP/1.1 200 OK\r\nServer: nginx\r\nX-Own: 1\r\n\r\nbody").await;
        let exchanged = ask(&place(), address, soon()).await.unwrap_or_else(|e| panic!("{e:?}"));
        assert_eq!(exchanged.answer.body, b"body");
        assert_eq!(exchanged.answer.headers, [("server".to_owned(), "nginx".to_owned())]);
        let request = requests.recv().await.unwrap().to_lowercase();
        assert!(request.starts_with("get /tok http/1.1\r\n"), "{request}");
        assert!(request.contains("\r\nhost: a.example\r\n"), "{request}");
        assert!(request.contains("\r\naccept: */*\r\n"), "{request}");
    }

    #[tokio::test]
    async fn long_bodies_are_cut() {
        let answer: &'static [u8] =
            Box::leak([b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b'x'; 1 << 20]].concat().into_boxed_slice());
        let exchanged = asked(answer).await.unwrap_or_else(|e| panic!("{e:?}"));
        assert_eq!((exchanged.answer.body.len(), exchanged.answer.more), (BODY_LIMIT, true));
    }

    #[tokio::test]
    async fn answers_that_are_none() {
        let long: &'static [u8] =
            Box::leak([b"HTTP/1.1 200 OK\r\nx: ".to_vec(), vec![b'x'; 1 << 17]].concat().into_boxed_slice());
        for (answer, expected) in [
            (&b""[..], Failure::Closed),
            (b"SSH-2.0-OpenSSH_9\r\n", Failure::NotHttp(b"SSH-2.0-OpenSSH_9\r\n".to_vec())),
            (b"\x15\x03\x01\x00\x02\x02\x46", Failure::SpeaksTls),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", Failure::BrokeOff),
            (b"HTTP/1.1 200 OK\r\nServ", Failure::BrokeOff),
            (long, Failure::HeaderTooLarge),
        ] {
            assert_eq!(asked(answer).await.err(), Some(expected), "{answer:?}");
        }
    }

    #[tokio::test]
    async fn a_closed_port_is_told() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert_eq!(ask(&place(), address, soon()).await.err(), Some(Failure::Refused));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_told_apart_from_an_answer_that_stalls() {
        for (said, expected) in [
            (&b""[..], Failure::Silent),
            (b"HTTP/1.1 200 OK\r\n", Failure::Stalled),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ntok", Failure::Stalled),
            (b"220 mail.example ESMTP", Failure::NotHttp(b"220 mail.example ESMTP".to_vec())),
        ] {
            let (near, mut far) = tokio::io::duplex(1 << 16);
            let answering = tokio::spawn(async move {
                let mut asked = Vec::new();
                while !asked.ends_with(b"\r\n\r\n") {
                    asked.push(far.read_u8().await.unwrap());
                }
                far.write_all(said).await.unwrap();
                far
            });
            let end = Instant::now() + Duration::from_secs(10);
            let failed = converse(&place(), near, &Began::default(), end).await.err();
            assert_eq!(failed, Some(expected), "{said:?}");
            drop(answering.await.unwrap());
        }
    }
}
