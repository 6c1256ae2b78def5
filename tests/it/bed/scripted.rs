//! Servers that say what a test wishes before TLS begins, or do not begin it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection};
use wicketgate::certificate::Certificate;

use super::Bed;

/// What happens on a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Act {
    /// TLS from the first byte, with one certificate after the other, a connection each.
    Tls,
    /// IMAP with STARTTLS.
    Imap,
    /// SMTP with STARTTLS.
    Smtp,
    /// Nothing, until the other side goes.
    Silence,
    /// The connection ends.
    HangUp,
    /// These words again and again.
    Endless(&'static str),
    /// The same, but slowly.
    Dripping(&'static [u8]),
}

/// A listening server. Its thread ends with the tests.
pub(crate) struct Scripted {
    pub(crate) port: u16,
}

impl Scripted {
    pub(crate) fn start(bed: &Bed, act: Act, certificates: &[Certificate]) -> Self {
        let port = bed.port();
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let configs: Vec<_> = certificates.iter().map(config).collect();
        std::thread::spawn(move || {
            for (turn, stream) in listener.incoming().enumerate() {
                let Ok(stream) = stream else { return };
                let config = configs.get(turn % configs.len().max(1)).cloned();
                // A client that goes in the midst of it is no failure.
                std::thread::spawn(move || perform(stream, act, config));
            }
        });
        Self { port }
    }
}

fn config(certificate: &Certificate) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(certificate.chain().to_vec(), certificate.key().clone_key())
        .unwrap();
    Arc::new(config)
}

fn perform(mut stream: TcpStream, act: Act, config: Option<Arc<ServerConfig>>) -> Option<()> {
    match act {
        Act::HangUp => return None,
        Act::Silence => return stream.read_to_end(&mut Vec::new()).ok().map(drop),
        Act::Endless(words) => while stream.write_all(words.as_bytes()).is_ok() {},
        Act::Dripping(words) => {
            // The other side goes, or the tests end.
            stream.set_read_timeout(Some(Duration::from_millis(100))).ok()?;
            while stream.write_all(words).is_ok() && !matches!(stream.read(&mut [0; 512]), Ok(0)) {}
        }
        Act::Tls => {}
        Act::Imap => {
            stream.write_all(b"* OK [CAPABILITY IMAP4rev1 STARTTLS] ready\r\n").ok()?;
            let mut line = String::new();
            BufReader::new(stream.try_clone().ok()?).read_line(&mut line).ok()?;
            let (tag, command) = line.trim_end().split_once(' ')?;
            assert_eq!(command, "STARTTLS");
            stream.write_all(format!("{tag} OK begin\r\n").as_bytes()).ok()?;
        }
        Act::Smtp => {
            stream.write_all(b"220 mail.example.test ESMTP\r\n").ok()?;
            let mut lines = BufReader::new(stream.try_clone().ok()?);
            for (command, answer) in
                [("EHLO ", "250-mail.example.test\r\n250 STARTTLS"), ("STARTTLS", "220 go")]
            {
                let mut line = String::new();
                lines.read_line(&mut line).ok()?;
                if !line.starts_with(command) {
                    return stream.write_all(b"500 what?\r\n").ok();
                }
                stream.write_all(format!("{answer}\r\n").as_bytes()).ok()?;
            }
        }
    }
    let mut connection = ServerConnection::new(config?).unwrap();
    while connection.is_handshaking() {
        connection.complete_io(&mut stream).ok()?;
    }
    stream.read_to_end(&mut Vec::new()).ok().map(drop)
}
