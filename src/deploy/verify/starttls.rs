//! What is said before TLS begins, with everything bounded that comes back: SMTP (RFC 3207) and IMAP
//! (RFC 9051 section 6.2.1).

use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

use super::fault::{Fault, Phase};
use crate::config::Protocol;
use crate::words::printable;

/// Longest line, bytes; RFC 5321 section 4.5.3.1.5 wants 512.
const LINE: u64 = 2048;
/// Most bytes before TLS begins.
const TOTAL: u64 = 16 * 1024;
/// Most lines before TLS begins.
const LINES: usize = 200;
/// Bytes that tell who speaks.
const BEGAN: usize = 64;
/// Most characters of what was said that a sentence repeats.
const TOLD: usize = 120;

/// Has the server begin TLS; `from` is this side's address.
pub(super) async fn prepare<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    protocol: Protocol,
    from: SocketAddr,
) -> Result<S, Fault> {
    let mut talk =
        Talk { stream: BufReader::new(stream), protocol, left: TOTAL, lines: 0, began: Vec::new() };
    match protocol {
        Protocol::Tls => {}
        Protocol::Smtp => talk.smtp(from).await?,
        Protocol::Imap => talk.imap().await?,
    }
    if !talk.stream.buffer().is_empty() {
        // What came in the clear would be taken for what came protected (RFC 3207 section 6).
        return Err(talk.words("it goes on talking in the clear after it agreed to STARTTLS", ""));
    }
    Ok(talk.stream.into_inner())
}

struct Talk<S> {
    stream: BufReader<S>,
    protocol: Protocol,
    /// Bytes that may still come.
    left: u64,
    /// Lines that came.
    lines: usize,
    /// How it began.
    began: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Talk<S> {
    async fn smtp(&mut self, from: SocketAddr) -> Result<(), Fault> {
        let (code, text) = self.reply().await?;
        if code != 220 {
            return Err(self.words("its greeting is", &text));
        }
        // RFC 5321 section 4.1.3
        let ehlo = match from.ip() {
            IpAddr::V4(ip) => format!("EHLO [{ip}]"),
            IpAddr::V6(ip) => format!("EHLO [IPv6:{ip}]"),
        };
        self.say(&ehlo).await?;
        let (code, text) = self.reply().await?;
        if code != 250 {
            return Err(self.words("its answer to EHLO is", &text));
        }
        let is_starttls =
            |line: &str| line.get(4..).is_some_and(|l| l.trim().eq_ignore_ascii_case("STARTTLS"));
        if !text.lines().any(is_starttls) {
            return Err(self.words("it does not offer STARTTLS; what it offers is", &text));
        }
        self.say("STARTTLS").await?;
        match self.reply().await? {
            (220, _) => Ok(()),
            (_, text) => Err(self.words("its answer to STARTTLS is", &text)),
        }
    }

    /// The code of a reply, and all its lines.
    async fn reply(&mut self) -> Result<(u16, String), Fault> {
        let mut all = String::new();
        loop {
            let line = self.line().await?;
            all.push_str(&line);
            all.push('\n');
            let code = line.get(..3).filter(|code| code.bytes().all(|b| b.is_ascii_digit()));
            let Some(code) = code.and_then(|code| code.parse().ok()) else {
                return Err(self.words("it says", &all));
            };
            match line.as_bytes().get(3) {
                Some(b'-') => {}
                Some(b' ') | None => return Ok((code, all)),
                Some(_) => return Err(self.words("it says", &all)),
            }
        }
    }

    async fn imap(&mut self) -> Result<(), Fault> {
        let greeting = self.line().await?;
        if !begins(&greeting, "* OK") {
            return Err(self.words("its greeting is", &greeting));
        }
        self.say("a1 STARTTLS").await?;
        loop {
            let line = self.line().await?;
            if begins(&line, "a1 OK") {
                return Ok(());
            }
            if !line.starts_with("* ") {
                return Err(self.words("its answer to STARTTLS is", &line));
            }
        }
    }

    async fn say(&mut self, line: &str) -> Result<(), Fault> {
        let line = format!("{line}\r\n");
        let said = self.stream.write_all(line.as_bytes()).await;
        said.map_err(|e| self.broken(&e))?;
        let said = self.stream.flush().await;
        said.map_err(|e| self.broken(&e))
    }

    async fn line(&mut self) -> Result<String, Fault> {
        let (mut line, limit) = (Vec::new(), LINE.min(self.left));
        let read = (&mut self.stream).take(limit).read_until(b'\n', &mut line).await;
        let read = read.map_err(|e| self.broken(&e))?;
        self.left = self.left.saturating_sub(u64::try_from(read).unwrap_or(LINE));
        self.lines += 1;
        let room = BEGAN.saturating_sub(self.began.len());
        self.began.extend_from_slice(&line[..line.len().min(room)]);
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        if (read as u64 == limit && !line.ends_with(b"\n")) || self.left == 0 || self.lines > LINES {
            return Err(Fault::Endless { began: self.began.clone() });
        }
        if line.ends_with(b"\n") {
            return Ok(text);
        }
        if text.is_empty() {
            Err(self.hung_up())
        } else {
            Err(self.words("it hung up in the midst of", &text))
        }
    }

    fn hung_up(&self) -> Fault {
        if self.began.is_empty() {
            return Fault::Closed(Phase::Banner);
        }
        self.words("it hung up after", &String::from_utf8_lossy(&self.began))
    }

    fn broken(&self, error: &io::Error) -> Fault {
        match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                self.hung_up()
            }
            _ => Fault::Unreachable(error.to_string()),
        }
    }

    fn words(&self, what: &str, said: &str) -> Fault {
        let said = printable(said, TOLD);
        let seen = if said.is_empty() { what.to_owned() } else { format!("{what} `{said}`") };
        Fault::Words { protocol: self.protocol, seen, began: self.began.clone() }
    }
}

fn begins(line: &str, with: &str) -> bool {
    line.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with))
        && !line.as_bytes().get(with.len()).is_some_and(u8::is_ascii_alphanumeric)
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    /// What comes of a server that says `said`, and what it was told.
    async fn told(protocol: Protocol, said: &str) -> (Result<(), String>, String) {
        let (near, mut far) = duplex(1 << 20);
        far.write_all(said.as_bytes()).await.unwrap();
        far.shutdown().await.unwrap();
        let result = prepare(near, protocol, "[::1]:4711".parse().unwrap()).await;
        let result = result.map(drop).map_err(|fault| match fault {
            Fault::Words { seen, .. } => seen,
            Fault::Endless { began } => format!("endless: {}", String::from_utf8_lossy(&began)),
            other => format!("{other:?}"),
        });
        let mut heard = Vec::new();
        far.read_to_end(&mut heard).await.unwrap();
        (result, String::from_utf8(heard).unwrap())
    }

    #[tokio::test]
    async fn servers_that_begin_tls() {
        let said = "220-mail.example ESMTP\r\n220 ready\r\n250-mail.example\r\n250-SIZE 1\r\n250-starttls\r\n250 HELP\r\n220 go on\r\n";
        let (result, heard) = told(Protocol::Smtp, said).await;
        assert_eq!((result, heard.as_str()), (Ok(()), "EHLO [IPv6:::1]\r\nSTARTTLS\r\n"));
        let said = "* OK [CAPABILITY IMAP4rev1 STARTTLS] ready\r\n* CAPABILITY IMAP4rev1\r\na1 OK go on\r\n";
        let (result, heard) = told(Protocol::Imap, said).await;
        assert_eq!((result, heard.as_str()), (Ok(()), "a1 STARTTLS\r\n"));
        assert_eq!(told(Protocol::Tls, "").await, (Ok(()), String::new()));
    }

    #[tokio::test]
    async fn servers_that_do_not() {
        let endless_lines = "220-again\r\n".repeat(10_000);
        let endless_line = "2".repeat(100_000);
        let untagged = "* OK\r\n".repeat(10_000);
        for (protocol, said, seen) in [
            (Protocol::Smtp, "554 no\r\n", "its greeting is `554 no`"),
            (Protocol::Smtp, "HTTP/1.1 400 Bad Request\r\n\r\n", "it says `HTTP/1.1 400 Bad Request`"),
            (Protocol::Smtp, "220 a\r\n502 what\r\n", "its answer to EHLO is `502 what`"),
            (
                Protocol::Smtp,
                "220 a\r\n250-a\r\n250 SIZE 1\r\n",
                "it does not offer STARTTLS; what it offers is `250-a; 250 SIZE 1`",
            ),
            (
                Protocol::Smtp,
                "220 a\r\n250-a\r\n250 STARTTLS\r\n454 not now\r\n",
                "its answer to STARTTLS is `454 not now`",
            ),
            (
                Protocol::Smtp,
                "220 a\r\n250 x STARTTLS\r\n",
                "it does not offer STARTTLS; what it offers is `250 x STARTTLS`",
            ),
            (
                Protocol::Smtp,
                "220 a\r\n250-a\r\n250 STARTTLS\r\n220 go\r\n250 injected\r\n",
                "it goes on talking in the clear after it agreed to STARTTLS",
            ),
            (Protocol::Smtp, "220 half", "it hung up in the midst of `220 half`"),
            (Protocol::Smtp, "", "Closed(Banner)"),
            (Protocol::Smtp, "220 a\r\n", "it hung up after `220 a`"),
            (Protocol::Imap, "* OK\r\n* ID\r\n", "it hung up after `* OK; * ID`"),
            (Protocol::Smtp, "22é a\r\n", "it says `22é a`"),
            (Protocol::Imap, "* BYE full\r\n", "its greeting is `* BYE full`"),
            (Protocol::Imap, "* PREAUTH hello\r\n", "its greeting is `* PREAUTH hello`"),
            (Protocol::Imap, "* OK\r\na1 BAD what\r\n", "its answer to STARTTLS is `a1 BAD what`"),
            (Protocol::Imap, "* OKAY\r\n", "its greeting is `* OKAY`"),
        ] {
            assert_eq!(told(protocol, said).await.0.unwrap_err(), seen, "{said}");
        }
        for (protocol, said, begins) in [
            (Protocol::Smtp, endless_lines.as_str(), "220-again\r\n220-again\r\n"),
            (Protocol::Smtp, &endless_line, "2222"),
            (Protocol::Imap, &untagged, "* OK\r\n* OK\r\n"),
            (Protocol::Imap, &untagged[..6 * (LINES + 1)], "* OK\r\n* OK\r\n"),
        ] {
            let seen = told(protocol, said).await.0.unwrap_err();
            assert!(seen.starts_with(&format!("endless: {begins}")) && seen.len() < 100, "{seen}");
        }
        let enough = told(Protocol::Imap, &format!("{}a1 OK\r\n", &untagged[..6 * (LINES - 1)])).await;
        assert_eq!(enough.0, Ok(()));
    }
}
