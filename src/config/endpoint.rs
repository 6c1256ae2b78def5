//! Where a server shows a certificate, as a person writes it: `[proxy+][smtp://|imap://]HOST:PORT`.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use super::problem::seen;
use crate::hostname::Hostname;

/// A place to shake hands at.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// A PROXY protocol header goes ahead of everything else.
    pub proxy: bool,
    /// What is spoken before TLS begins.
    pub protocol: Protocol,
    /// Name or address, IPv6 without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// What is spoken before TLS begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// Nothing: TLS from the first byte (`tls://`, or no scheme at all).
    Tls,
    /// `smtp://`: STARTTLS (RFC 3207).
    Smtp,
    /// `imap://`: STARTTLS (RFC 9051 section 6.2.1).
    Imap,
}

impl Protocol {
    /// What is usually spoken at a port.
    pub fn usual(port: u16) -> Self {
        match port {
            25 | 587 => Self::Smtp,
            143 => Self::Imap,
            _ => Self::Tls,
        }
    }
}

const PROTOCOLS: [(&str, Protocol); 3] =
    [("tls", Protocol::Tls), ("smtp", Protocol::Smtp), ("imap", Protocol::Imap)];

const FORM: &str = "write it as in \"127.0.0.1:443\", \"[::1]:443\", \"smtp://mail.example.net:25\", \"imap://…\" or, where the server expects the PROXY protocol, \"proxy+tls://127.0.0.1:443\"";

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("{} {what}; {FORM}", seen(text));
        let (scheme, rest) = text.split_once("://").unwrap_or(("tls", text));
        let (proxy, scheme) = match scheme.strip_prefix("proxy+") {
            Some(scheme) => (true, scheme),
            None => (scheme == "proxy", if scheme == "proxy" { "tls" } else { scheme }),
        };
        let protocol = PROTOCOLS.iter().find(|(name, _)| *name == scheme).map(|(_, protocol)| *protocol);
        let protocol = protocol.ok_or_else(|| wrong("begins with a scheme that is not known here"))?;
        let (host, digits) = rest.rsplit_once(':').ok_or_else(|| wrong("has no port"))?;
        let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        let port = match digits.parse() {
            Ok(port @ 1_u16..) => port,
            _ if is_number => {
                return Err(wrong("has a port that there is none of: they are from 1 to 65535"));
            }
            _ => return Err(wrong("has no port")),
        };
        let host = match host.strip_prefix('[').map(|inner| inner.strip_suffix(']')) {
            Some(Some(inner)) if inner.parse::<Ipv6Addr>().is_ok() => inner.to_owned(),
            None if is_host(host) => host.to_owned(),
            None if host.contains(':') => return Err(wrong("has an IPv6 address without brackets")),
            None if !host.is_ascii() => {
                let name = Hostname::parse_any(host).map_err(|e| wrong(&format!("names no host: {e}")))?;
                name.as_str().to_owned()
            }
            _ => return Err(wrong("names no host")),
        };
        Ok(Self { proxy, protocol, host, port })
    }
}

fn is_host(text: &str) -> bool {
    (1..=253).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // At these ports who reads it without a scheme would think of STARTTLS.
        if self.proxy || self.protocol != Protocol::Tls || Protocol::usual(self.port) != Protocol::Tls {
            let proxy = if self.proxy { "proxy+" } else { "" };
            let scheme = PROTOCOLS.iter().find(|(_, p)| *p == self.protocol).map_or("", |(name, _)| name);
            write!(f, "{proxy}{scheme}://")?;
        }
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_and_read_alike() {
        for text in [
            "127.0.0.1:443",
            "[::1]:8443",
            "localhost:443",
            "smtp://mail.example.net:25",
            "imap://[2001:db8::1]:143",
            "proxy+tls://127.0.0.1:443",
            "proxy+smtp://127.0.0.1:25",
            "tls://mail.example.net:25",
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        assert_eq!("tls://a:1".parse::<Endpoint>().unwrap().to_string(), "a:1");
        assert_eq!(
            "bücher.example:443".parse::<Endpoint>().unwrap().to_string(),
            "xn--bcher-kva.example:443"
        );
        assert_eq!("proxy://a:1".parse::<Endpoint>().unwrap().to_string(), "proxy+tls://a:1");
    }

    #[test]
    fn what_is_none_is_explained() {
        for (text, says) in [
            ("127.0.0.1", "has no port"),
            ("127.0.0.1:0", "from 1 to 65535"),
            ("127.0.0.1:99999", "from 1 to 65535"),
            ("127.0.0.1:-1", "has no port"),
            ("127.0.0.1:", "has no port"),
            ("b\u{fc} cher.example:443", "names no host"),
            ("127.0.0.1:https", "has no port"),
            ("https://a:443", "scheme"),
            ("::1:443", "without brackets"),
            ("[::1:443", "names no host"),
            (":443", "names no host"),
            ("a b:443", "names no host"),
            ("[a]:443", "names no host"),
            ("", "has no port"),
        ] {
            let told = text.parse::<Endpoint>().unwrap_err();
            assert!(told.contains(says), "{text}: {told}");
        }
    }
}
