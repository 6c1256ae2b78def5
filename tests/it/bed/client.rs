//! Clients: bytes by hand for port 80, curl and openssl for TLS.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::pki::{Seen, read_chain};
use super::process::{Ran, run};

/// An answer, as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names in lower case, in the order they came.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// Whether something accepts connections there.
pub(crate) fn is_open(port: u16) -> bool {
    TcpStream::connect_timeout(&loopback(port), Duration::from_secs(2)).is_ok()
}

/// One GET over a connection of its own.
pub(crate) fn get(port: u16, host: &str, path: &str) -> std::io::Result<Answer> {
    exchange(port, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"))
}

/// Sends these bytes and reads until the server closes.
pub(crate) fn exchange(port: u16, request: &str) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&loopback(port), Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(request.as_bytes())?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    parse(&bytes).ok_or_else(|| {
        std::io::Error::other(format!("not an HTTP answer: {:?}", String::from_utf8_lossy(&bytes)))
    })
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers = lines
        .map(|line| line.split_once(':').map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_owned())))
        .collect::<Option<_>>()?;
    Some(Answer { status, headers, body: bytes[end + 4..].to_vec() })
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// The chain a TLS server on loopback shows for a name, leaf first; nothing if there is no handshake.
pub(crate) fn served_chain(port: u16, name: &str) -> Option<Vec<Seen>> {
    let ran = s_client(port, name, &[]);
    let chain = read_chain(&certificates_in(&ran.stdout));
    (!chain.is_empty()).then_some(chain)
}

/// The leaf of [`served_chain`].
pub(crate) fn served_leaf(port: u16, name: &str) -> Option<Seen> {
    served_chain(port, name).map(|chain| chain[0].clone())
}

/// `openssl s_client` towards loopback, ended as soon as the handshake is done.
pub(crate) fn s_client(port: u16, name: &str, more: &[&str]) -> Ran {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-showcerts", "-connect", &format!("127.0.0.1:{port}")]);
    if name.is_empty() {
        command.arg("-noservername");
    } else {
        command.args(["-servername", name]);
    }
    run(command.args(more))
}

fn certificates_in(text: &str) -> String {
    let (begin, end) = ("-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----\n");
    text.split(begin)
        .skip(1)
        .filter_map(|part| part.split_once(end))
        .map(|(body, _)| format!("{begin}{body}{end}"))
        .collect()
}

/// `curl` for `https://NAME:PORT/PATH` on loopback, trusting that root alone.
pub(crate) fn curl(root: &Path, name: &str, port: u16, path: &str, more: &[&str]) -> Ran {
    run(Command::new("curl")
        .args(["--silent", "--show-error", "--fail", "--max-time", "20", "--noproxy", "*"])
        .args(["--resolve", &format!("{name}:{port}:127.0.0.1")])
        .arg("--cacert")
        .arg(root)
        .args(more)
        .arg(format!("https://{name}:{port}{path}")))
}

/// A TLS connection that stays, to a server whose certificate must lead to that root.
pub(crate) type Tls = StreamOwned<ClientConnection, TcpStream>;

/// Connects and shakes hands; HTTP/1.1 is spoken on it.
pub(crate) fn connect_tls(root: &Path, name: &str, port: u16) -> std::io::Result<Tls> {
    let mut roots = RootCertStore::empty();
    for der in CertificateDer::pem_file_iter(root).expect("a PEM file") {
        roots.add(der.expect("PEM of a root")).expect("a root");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider's own versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from(name.to_owned()).expect("a server's name");
    let mut connection = ClientConnection::new(Arc::new(config), name).map_err(std::io::Error::other)?;
    let mut stream = TcpStream::connect_timeout(&loopback(port), Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    while connection.is_handshaking() {
        connection.complete_io(&mut stream)?;
    }
    Ok(StreamOwned::new(connection, stream))
}

/// One request on a connection that stays, answered with a Content-Length.
pub(crate) fn ask(tls: &mut Tls, host: &str, path: &str) -> std::io::Result<Answer> {
    tls.write_all(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())?;
    read_answer(tls)
}

/// Reads one answer with a Content-Length.
pub(crate) fn read_answer(from: &mut impl Read) -> std::io::Result<Answer> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        from.read_exact(&mut byte)?;
        bytes.push(byte[0]);
    }
    let mut answer = parse(&bytes).ok_or_else(|| std::io::Error::other("not an HTTP answer"))?;
    let length = answer.header("content-length").and_then(|text| text.parse().ok());
    answer.body = vec![0; length.ok_or_else(|| std::io::Error::other("no Content-Length"))?];
    from.read_exact(&mut answer.body)?;
    Ok(answer)
}

#[test]
fn answers_are_taken_apart() {
    let answer = parse(b"HTTP/1.1 308 Permanent Redirect\r\nLocation: https://a.b/\r\n\r\nbody").unwrap();
    assert_eq!((answer.status, answer.header("location")), (308, Some("https://a.b/")));
    assert_eq!(answer.body, b"body");
    assert!(parse(b"SSH-2.0\r\n").is_none());
}
