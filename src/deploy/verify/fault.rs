//! Why a server does not show what it should, in sentences for the one who is woken by them: pure.

use std::fmt;
use std::net::SocketAddr;

use super::chain::Verdict;
use super::leaf::Leaf;
use super::{CONNECTIONS, Client, Version};
use crate::config::{Endpoint, Protocol};
use crate::hostname::Identifier;
use crate::words::printable;

/// Most characters of a foreign answer that a sentence repeats.
const TOLD: usize = 60;

/// So often in a row one hangs up that does not speak a version of TLS.
pub(super) const HANGUPS: usize = 3;

/// How far a connection had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It was being made.
    Connect,
    /// Something was said in the clear.
    Banner,
    /// TLS had begun.
    Handshake,
}

/// What was seen in place of the right certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The host's name leads nowhere.
    Unknown(String),
    /// Nobody listens at any of its addresses.
    Refused,
    /// There is no way to it; the system's words.
    Unreachable(String),
    /// Nothing came.
    TimedOut(Phase),
    /// Something came, but not the whole of it in time.
    Slow {
        /// What it should have come to.
        phase: Phase,
        /// How it began.
        began: Vec<u8>,
    },
    /// So much was said in the clear that there is no end to be seen.
    Endless {
        /// How it began.
        began: Vec<u8>,
    },
    /// It hung up.
    Closed(Phase),
    /// Something else than TLS; the first bytes.
    NoTls {
        /// How it began.
        began: Vec<u8>,
    },
    /// What was said before TLS is not what the protocol wants.
    Words {
        /// The protocol.
        protocol: Protocol,
        /// What was seen.
        seen: String,
        /// How it began.
        began: Vec<u8>,
    },
    /// It does not speak this version of TLS, or has no certificate for such a client; in words.
    Declined(String),
    /// It serves no such name.
    Nameless,
    /// It refused for another reason; the alert's name.
    Alert(String),
    /// The handshake broke off.
    Tls(String),
    /// What it showed cannot be read.
    Unreadable(String),
    /// An older certificate of the same names.
    Old(Leaf),
    /// Another certificate altogether.
    Other {
        /// What it is.
        leaf: Leaf,
        /// Whether it covers the name that was asked for.
        covers: bool,
    },
    /// Some connections showed the right one, others did not.
    Mixed {
        /// What the others showed.
        leaf: Leaf,
    },
    /// The right leaf, but clients cannot follow its chain.
    Incomplete(Verdict),
}

impl Fault {
    /// A server that speaks TLS does not do so in this version, or not with such a client. Some hang up in
    /// place of saying so; but so does a worker that ends, hence only after that many times in a row.
    pub(super) fn is_decline(&self, times: usize) -> bool {
        match self {
            Self::Declined(_) => true,
            Self::Closed(Phase::Handshake) => times >= HANGUPS,
            _ => false,
        }
    }

    /// It does not depend on the name that is asked for.
    pub(super) fn is_of_every_name(&self) -> bool {
        matches!(
            self,
            Self::Unknown(_)
                | Self::Refused
                | Self::Unreachable(_)
                | Self::TimedOut(_)
                | Self::Slow { .. }
                | Self::Endless { .. }
                | Self::Closed(Phase::Connect | Phase::Banner)
                | Self::NoTls { .. }
                | Self::Words { .. }
        )
    }

    fn seen(&self) -> String {
        match self {
            Self::Unknown(why) => format!("is not to be found: its host's name leads to no address ({why})"),
            Self::Refused => "refuses connections: nobody listens there".to_owned(),
            Self::Unreachable(why) => format!("cannot be reached ({why})"),
            Self::TimedOut(Phase::Connect) => "does not answer when a connection is tried".to_owned(),
            Self::TimedOut(Phase::Banner) => "takes connections and says nothing".to_owned(),
            Self::TimedOut(Phase::Handshake) => "takes connections, but does not answer to TLS".to_owned(),
            Self::Slow { phase: Phase::Handshake, .. } => {
                "begins to answer to TLS, and does not come to the end of it in time".to_owned()
            }
            Self::Endless { began } => {
                let began = printable(&String::from_utf8_lossy(began), TOLD);
                format!("begins to speak, `{began}`, and talks without an end")
            }
            Self::Slow { began, .. } => {
                let began = printable(&String::from_utf8_lossy(began), TOLD);
                format!("begins to speak, `{began}`, and does not come to TLS in time")
            }
            Self::Closed(Phase::Connect | Phase::Banner) => "hangs up at once".to_owned(),
            Self::Closed(Phase::Handshake) => "hangs up when TLS begins".to_owned(),
            Self::NoTls { began } => {
                let began = String::from_utf8_lossy(began);
                let began = printable(began.lines().next().unwrap_or_default(), TOLD);
                format!("speaks no TLS; it says `{began}`")
            }
            Self::Words { protocol, seen, .. } => {
                let spoken = if *protocol == Protocol::Imap { "IMAP" } else { "SMTP" };
                format!("does not begin TLS as {spoken} does: {seen}")
            }
            Self::Declined(why) => format!("refuses the handshake ({why})"),
            Self::Nameless => "says that it serves no such name (unrecognized_name)".to_owned(),
            Self::Alert(alert) => format!("breaks the handshake off ({alert})"),
            Self::Tls(why) => format!("cannot be shaken hands with ({why})"),
            Self::Unreadable(why) => format!("shows a certificate that cannot be read ({why})"),
            Self::Old(leaf) => format!("still shows the old certificate, {leaf}"),
            Self::Other { leaf, .. } => format!("shows another certificate, {leaf}"),
            Self::Mixed { leaf } => {
                format!("shows the new certificate to some connections, and to others {leaf}")
            }
            Self::Incomplete(verdict) => match verdict {
                Verdict::Missing { of, issuer, .. } => {
                    format!("sends an incomplete chain: `{of}` was signed by `{issuer}`, which is not sent")
                }
                Verdict::Unreadable { position, reason } => {
                    format!("sends a chain whose certificate {position} cannot be read ({reason})")
                }
                Verdict::Untrusted { root } => {
                    format!("sends a chain that ends at `{root}`, an unknown root")
                }
                Verdict::Private { issuer } => {
                    format!("sends a chain that ends at `{issuer}`, an unknown root")
                }
                Verdict::Trusted => "sends a chain that leads to a trusted root".to_owned(),
            },
        }
    }

    /// What it means and what to do.
    fn meaning(&self, endpoint: &Endpoint, client: Client) -> String {
        match self {
            Self::Unknown(_) => "correct the host in `verify`, or mend the name's address records".to_owned(),
            Self::Refused => {
                "the server is not running, or listens elsewhere: look at its own log, start it, or correct `verify`".to_owned()
            }
            Self::Unreachable(_) | Self::TimedOut(Phase::Connect) => {
                "something in between drops it, or the address is wrong: look at the firewall and at `verify`"
                    .to_owned()
            }
            Self::TimedOut(Phase::Banner) | Self::Closed(Phase::Banner) if endpoint.protocol != Protocol::Tls => {
                let tls = Endpoint { protocol: Protocol::Tls, ..endpoint.clone() };
                format!("it may speak TLS from the first byte, or hang: if it is the former, write \"{tls}\"")
            }
            Self::Slow { phase: Phase::Handshake, .. } => {
                "it is overloaded, or something in between loses what is large (a wrong MTU does): look at its log, and try from another machine".to_owned()
            }
            Self::Slow { .. } | Self::Endless { .. } => {
                "it is overloaded, or holds strangers up on purpose (a greeting delay, a tarpit): look at its log, and except from that who looks".to_owned()
            }
            Self::TimedOut(_) | Self::Closed(_) if !endpoint.proxy => format!(
                "it may hang, or expect a PROXY header first: look at its log, and if it is the latter, write \"{}\"",
                Endpoint { proxy: true, ..endpoint.clone() }
            ),
            Self::TimedOut(_) | Self::Closed(_) => format!(
                "it may hang, or expect no PROXY header: look at its log, and if it is the latter, write \"{}\"",
                Endpoint { proxy: false, ..endpoint.clone() }
            ),
            Self::NoTls { began } => no_tls(endpoint, began),
            Self::Words { protocol, began, .. } => match Speaker::of(began) {
                Speaker::Mail(spoken) if spoken == *protocol => {
                    // It has spoken in the clear, so that TLS from the first byte is not what it waits for.
                    let port = if spoken == Protocol::Imap { 993 } else { 465 };
                    let tls = Endpoint { protocol: Protocol::Tls, port, ..endpoint.clone() };
                    format!(
                        "nothing protects what is said there: switch STARTTLS on in the server (its log says why it is off, or refuses this client), or look where it speaks TLS from the first byte, at {tls} perhaps"
                    )
                }
                _ => no_tls(endpoint, began),
            },
            Self::Declined(_) if client != Client::Any => format!(
                "it has no certificate for clients that can use {client} keys only, or not read it yet: configure both certificates of the pair in it, and reload it"
            ),
            Self::Declined(_) => {
                "it speaks neither TLS 1.3 nor 1.2 with a cipher that is still in use, or has no certificate for this name: look at its configuration".to_owned()
            }
            Self::Nameless => {
                "no virtual host of its names it: add the name to one that uses this certificate, or remove it from `hostnames`".to_owned()
            }
            Self::Alert(_) | Self::Tls(_) | Self::Unreadable(_) => {
                "look at the server's own log, which says more of it".to_owned()
            }
            Self::Old(_) => {
                "it was not reloaded, or reads other files than those in `live/NAME` of the state directory (or their copies): compare its configuration, and reload it".to_owned()
            }
            Self::Other { covers: false, .. } => {
                "no virtual host of its answers to this name, and a default one does: add the name to the one that uses this certificate, or remove it from `hostnames`".to_owned()
            }
            Self::Other { .. } => {
                "it reads other files, another virtual host answers, or another server does: compare its configuration, and that `verify` leads to it".to_owned()
            }
            Self::Mixed { .. } => {
                "an old worker still serves, or several servers answer at this address: wait until the old workers end, or restart it".to_owned()
            }
            Self::Incomplete(Verdict::Missing { is_known: true, .. }) => {
                "many clients cannot follow it and refuse: the server seems to be configured with cert.pem in place of fullchain.pem".to_owned()
            }
            Self::Incomplete(Verdict::Missing { .. }) => {
                "either it is missing, and the server is configured with cert.pem in place of fullchain.pem; or it is the root of a private CA, and belongs into `acme.roots` (or `--roots`)".to_owned()
            }
            Self::Incomplete(_) => {
                "only clients that know this root can follow it; if it is your own CA's, put it into `acme.roots`".to_owned()
            }
        }
    }
}

/// Who speaks so first.
#[derive(Debug, PartialEq, Eq)]
enum Speaker {
    Http,
    Mail(Protocol),
    Ftp,
    Pop3,
    Ssh,
    Other,
}

impl Speaker {
    fn of(began: &[u8]) -> Self {
        let first = began.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let has_ftp = first.windows(3).any(|part| part.eq_ignore_ascii_case(b"FTP"));
        match first {
            [b'H', b'T', b'T', b'P', b'/', ..] => Self::Http,
            [b'S', b'S', b'H', b'-', ..] => Self::Ssh,
            [b'+', b'O', b'K', ..] => Self::Pop3,
            [b'*', b' ', ..] => Self::Mail(Protocol::Imap),
            // A greeting, or a refusal in its place (RFC 5321 section 4.2).
            [b'2' | b'4' | b'5', b'0'..=b'5', b'0'..=b'9', b' ' | b'-' | b'\r', ..] => {
                if has_ftp {
                    Self::Ftp
                } else {
                    Self::Mail(Protocol::Smtp)
                }
            }
            _ => Self::Other,
        }
    }
}

fn no_tls(endpoint: &Endpoint, began: &[u8]) -> String {
    let with = |protocol| Endpoint { protocol, ..endpoint.clone() };
    match Speaker::of(began) {
        Speaker::Http => {
            "that is plain HTTP: is it the right port, and does the server's listener say `ssl`?".to_owned()
        }
        Speaker::Mail(protocol) => {
            let name = if protocol == Protocol::Imap { "IMAP" } else { "SMTP" };
            format!("that is {name}, which begins TLS by STARTTLS: write \"{}\"", with(protocol))
        }
        Speaker::Ftp => "that is FTP, which is not spoken here: look where it speaks TLS from the first byte, at port 990 as a rule".to_owned(),
        Speaker::Pop3 => "that is POP3, whose STLS is not spoken here: look where it speaks TLS from the first byte, at port 995 as a rule".to_owned(),
        Speaker::Ssh => "that is SSH: `verify` has the wrong port".to_owned(),
        Speaker::Other => {
            "another program is there, or TLS is switched off in it: look at `verify` and at the server's configuration"
                .to_owned()
        }
    }
}

/// An endpoint does not show what it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotServed {
    /// Where.
    pub endpoint: Endpoint,
    /// The address that was connected to.
    pub address: Option<SocketAddr>,
    /// The name that was asked for.
    pub identifier: Identifier,
    /// In which version of TLS.
    pub version: Version,
    /// As which client.
    pub client: Client,
    /// What was seen.
    pub fault: Box<Fault>,
    /// How many other names are not served either.
    pub others: usize,
}

impl NotServed {
    /// Nobody listens at any address of the endpoint.
    pub fn is_refused(&self) -> bool {
        *self.fault == Fault::Refused
    }
}

impl fmt::Display for NotServed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { endpoint, address, identifier, version, client, fault, others } = self;
        write!(f, "{endpoint}")?;
        if let Some(address) = address.filter(|address| address.ip().to_string() != endpoint.host) {
            write!(f, " ({address})")?;
        }
        write!(f, " {}", fault.seen())?;
        match **fault {
            // None of them got as far as a name.
            Fault::Unknown(_) | Fault::Refused | Fault::Unreachable(_) | Fault::TimedOut(Phase::Connect) => {}
            _ => {
                write!(f, ", asked for {identifier} over {version}")?;
                if *client != Client::Any {
                    write!(f, " by a client that can use {client} keys only")?;
                }
                if matches!(**fault, Fault::Mixed { .. }) {
                    write!(f, "; {CONNECTIONS} in a row did not show the new one")?;
                }
            }
        }
        write!(f, ": {}", fault.meaning(endpoint, *client))?;
        match others {
            0 => Ok(()),
            1 => f.write_str(" (another name of the certificate is not served either)"),
            more => write!(f, " ({more} other names of the certificate are not served either)"),
        }
    }
}

impl std::error::Error for NotServed {}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn leaf() -> Leaf {
        let day = Duration::from_secs(86_400);
        Leaf {
            names: vec!["a.example".to_owned()],
            serial: "0a".to_owned(),
            subject: "CN=a".to_owned(),
            issuer: "CN=R10".to_owned(),
            not_before: SystemTime::UNIX_EPOCH + day * 20_000,
            not_after: SystemTime::UNIX_EPOCH + day * 20_090,
        }
    }

    fn not_served(endpoint: &str, fault: Fault) -> NotServed {
        NotServed {
            endpoint: endpoint.parse().unwrap(),
            address: Some(([127, 0, 0, 1], 443).into()),
            identifier: "a.example".parse().unwrap(),
            version: Version::Tls13,
            client: Client::Any,
            fault: Box::new(fault),
            others: 0,
        }
    }

    #[test]
    fn a_sentence_says_what_where_why_and_what_to_do() {
        assert_eq!(
            not_served("127.0.0.1:443", Fault::Old(leaf())).to_string(),
            "127.0.0.1:443 still shows the old certificate, a.example (serial 0a, from `CN=R10`, valid 2024-10-04 to 2025-01-02), asked for a.example over TLS 1.3: it was not reloaded, or reads other files than those in `live/NAME` of the state directory (or their copies): compare its configuration, and reload it"
        );
        assert_eq!(
            not_served("localhost:443", Fault::Refused).to_string(),
            "localhost:443 (127.0.0.1:443) refuses connections: nobody listens there: the server is not running, or listens elsewhere: look at its own log, start it, or correct `verify`"
        );
        assert!(not_served("localhost:443", Fault::Refused).is_refused());
        assert!(!not_served("localhost:443", Fault::TimedOut(Phase::Connect)).is_refused());
        let pair = NotServed {
            client: Client::Rsa,
            others: 3,
            ..not_served("127.0.0.1:443", Fault::Declined("handshake_failure".to_owned()))
        };
        assert_eq!(
            pair.to_string(),
            "127.0.0.1:443 refuses the handshake (handshake_failure), asked for a.example over TLS 1.3 by a client that can use RSA keys only: it has no certificate for clients that can use RSA keys only, or not read it yet: configure both certificates of the pair in it, and reload it (3 other names of the certificate are not served either)"
        );
    }

    #[test]
    fn what_is_seen_decides_what_is_advised() {
        let missing =
            |is_known| Verdict::Missing { of: "CN=a".to_owned(), issuer: "CN=R10".to_owned(), is_known };
        let began = |text: &[u8]| Fault::NoTls { began: text.to_vec() };
        let words = |protocol, began: &str| Fault::Words {
            protocol,
            seen: format!("its greeting is `{began}`"),
            began: began.as_bytes().to_vec(),
        };
        let slow = |phase, began: &[u8]| Fault::Slow { phase, began: began.to_vec() };
        for (endpoint, fault, parts) in [
            ("127.0.0.1:80", began(b"HTTP/1.1 400 Bad"), ["says `HTTP/1.1 400 Bad`", "plain HTTP"]),
            ("127.0.0.1:25", began(b"220 mail"), ["speaks no TLS", "write \"smtp://127.0.0.1:25\""]),
            ("127.0.0.1:143", began(b"* OK hi"), ["speaks no TLS", "write \"imap://127.0.0.1:143\""]),
            ("127.0.0.1:22", began(b"SSH-2.0-x"), ["SSH-2.0-x", "wrong port"]),
            ("127.0.0.1:9", began(b"\x1b[2J"), ["says ` [2J`", "another program"]),
            ("tls://127.0.0.1:25", began(b"554 no"), ["says `554 no`", "write \"smtp://127.0.0.1:25\""]),
            ("127.0.0.1:143", began(b"* BYE"), ["* BYE", "write \"imap://127.0.0.1:143\""]),
            ("127.0.0.1:21", began(b"220 (vsFTPd 3.0.3)\r\n"), ["vsFTPd", "that is FTP"]),
            ("127.0.0.1:110", began(b"+OK ready\r\n"), ["+OK ready", "port 995"]),
            (
                "smtp://127.0.0.1:25",
                words(Protocol::Smtp, "554 no"),
                ["begin TLS as SMTP does: its greeting is `554 no`", "switch STARTTLS on"],
            ),
            ("smtp://a:587", words(Protocol::Smtp, "220 a"), ["STARTTLS on", "at a:465 perhaps"]),
            ("imap://a:143", words(Protocol::Imap, "* OK"), ["as IMAP does", "at a:993 perhaps"]),
            ("imap://a:25", words(Protocol::Imap, "220 a"), ["as IMAP does", "write \"smtp://a:25\""]),
            ("smtp://a:143", words(Protocol::Smtp, "* OK"), ["as SMTP does", "write \"imap://a:143\""]),
            ("smtp://a:22", words(Protocol::Smtp, "SSH-2.0"), ["as SMTP does", "that is SSH"]),
            (
                "smtp://127.0.0.1:2525",
                Fault::TimedOut(Phase::Banner),
                ["says nothing", "write \"127.0.0.1:2525\""],
            ),
            (
                "smtp://127.0.0.1:25",
                Fault::TimedOut(Phase::Banner),
                ["says nothing", "write \"tls://127.0.0.1:25\""],
            ),
            (
                "proxy+imap://127.0.0.1:143",
                Fault::Closed(Phase::Banner),
                ["hangs up at once", "write \"proxy+tls://127.0.0.1:143\""],
            ),
            (
                "smtp://127.0.0.1:25",
                slow(Phase::Banner, b"220-a\r\n220-a\r\n"),
                ["begins to speak, `220-a; 220-a`, and does not come to TLS in time", "a tarpit"],
            ),
            (
                "127.0.0.1:443",
                slow(Phase::Handshake, b"\x16\x03"),
                ["begins to answer to TLS, and does not come to the end", "MTU"],
            ),
            (
                "127.0.0.1:443",
                Fault::Closed(Phase::Handshake),
                ["hangs up when TLS begins", "write \"proxy+tls://127.0.0.1:443\""],
            ),
            (
                "proxy+tls://127.0.0.1:443",
                Fault::TimedOut(Phase::Handshake),
                ["does not answer to TLS", "write \"127.0.0.1:443\""],
            ),
            ("127.0.0.1:443", Fault::Nameless, ["serves no such name", "add the name"]),
            (
                "127.0.0.1:443",
                Fault::Other { leaf: leaf(), covers: false },
                ["shows another certificate", "a default one does"],
            ),
            (
                "127.0.0.1:443",
                Fault::Other { leaf: leaf(), covers: true },
                ["shows another certificate", "reads other files"],
            ),
            (
                "127.0.0.1:443",
                Fault::Mixed { leaf: leaf() },
                ["to some connections, and to others a.example", "an old worker"],
            ),
            (
                "127.0.0.1:443",
                Fault::Incomplete(missing(true)),
                ["`CN=R10`, which is not sent", "cert.pem in place of fullchain.pem"],
            ),
            ("127.0.0.1:443", Fault::Incomplete(missing(false)), ["incomplete chain", "acme.roots"]),
            (
                "mail:443",
                Fault::Unknown("no such host".to_owned()),
                ["leads to no address (no such host)", "address records"],
            ),
        ] {
            let told = not_served(endpoint, fault).to_string();
            for part in parts {
                assert!(told.contains(part), "{part}: {told}");
            }
        }
    }
}
