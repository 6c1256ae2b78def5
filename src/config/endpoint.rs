//! Where a server shows a certificate, as a person writes it: `[proxy+][tls://|smtp://|imap://]HOST:PORT`. Where
//! there is no scheme, the port tells what is spoken.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use super::problem::seen;
use crate::hostname::Hostname;
use crate::words::printable;

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
    /// Nothing: TLS from the first byte (`tls://`).
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
        let wrong = |what: &str| format!("{} {what}", seen(text));
        let (before, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (Some(scheme.to_ascii_lowercase()), rest),
            None => (None, text),
        };
        let (proxy, protocol) = match before.as_deref() {
            None => (false, None),
            Some("proxy") => (true, Some(Protocol::Tls)),
            Some(scheme) => {
                let (proxy, scheme) =
                    scheme.strip_prefix("proxy+").map_or((false, scheme), |scheme| (true, scheme));
                let known = PROTOCOLS.iter().find(|(name, _)| *name == scheme);
                let (_, protocol) = known
                    .ok_or_else(|| wrong(&format!("begins with a scheme that is not known here; {FORM}")))?;
                (proxy, Some(*protocol))
            }
        };
        let written = &text[..text.len() - rest.len()];
        let (host, port) = parts(rest, written).map_err(|what| wrong(&what))?;
        Ok(Self { proxy, protocol: protocol.unwrap_or(Protocol::usual(port)), host, port })
    }
}

/// Host and port of what is after the scheme, `written`; what is wrong with it in words.
fn parts(rest: &str, written: &str) -> Result<(String, u16), String> {
    if rest.parse::<Ipv6Addr>().is_ok() {
        return Err(match rest.rsplit_once(':') {
            Some((host, port)) if host.parse::<Ipv6Addr>().is_ok() => format!(
                "has an IPv6 address without brackets, so that where it ends cannot be told: if {port} is the port, write \"{written}[{host}]:{port}\""
            ),
            _ => format!("is an IPv6 address and has no port: write \"{written}[{rest}]:PORT\""),
        });
    }
    let formless = |what: &str| format!("{what}; {FORM}");
    let (host, port) =
        rest.rsplit_once(':').filter(|_| !rest.ends_with(']')).ok_or(formless("has no port"))?;
    let host = self::host(host).map_err(|what| formless(&what))?;
    let is_number = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    match port.parse() {
        Ok(port @ 1_u16..) if is_number => Ok((host, port)),
        _ if is_number => Err(format!("asks for port {}: ports are from 1 to 65535", printable(port, 20))),
        _ => Err(formless("has no port: a number belongs after the last colon")),
    }
}

fn host(text: &str) -> Result<String, String> {
    match text.strip_prefix('[').map(|inner| inner.strip_suffix(']')) {
        Some(Some(inner)) if inner.parse::<Ipv6Addr>().is_ok() => Ok(inner.to_owned()),
        Some(_) => Err("names no host: between brackets belongs an IPv6 address".to_owned()),
        None if is_host(text) => Ok(text.to_owned()),
        None if text.contains(':') => Err("names no host: it has several colons".to_owned()),
        None if !text.is_ascii() => {
            let name = Hostname::parse_any(text).map_err(|e| format!("names no host: {e}"))?;
            Ok(name.as_str().to_owned())
        }
        None => Err("names no host".to_owned()),
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
        for (text, shown) in [
            ("tls://a:1", "a:1"),
            ("proxy://a:1", "proxy+tls://a:1"),
            ("proxy://a:25", "proxy+tls://a:25"),
            ("SMTP://a:2525", "smtp://a:2525"),
            ("bücher.example:443", "xn--bcher-kva.example:443"),
            ("imap://BÜCHER.example:143", "imap://xn--bcher-kva.example:143"),
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), shown, "{text}");
        }
    }

    #[test]
    fn what_is_spoken_is_told_by_the_scheme_or_else_by_the_port() {
        for (port, protocol) in [
            (25, Protocol::Smtp),
            (587, Protocol::Smtp),
            (143, Protocol::Imap),
            (465, Protocol::Tls),
            (993, Protocol::Tls),
            (443, Protocol::Tls),
            (2525, Protocol::Tls),
        ] {
            let spoken = |text: String| text.parse::<Endpoint>().unwrap().protocol;
            assert_eq!(spoken(format!("a:{port}")), protocol, "{port}");
            assert_eq!(spoken(format!("tls://a:{port}")), Protocol::Tls, "{port}");
            assert_eq!(spoken(format!("smtp://a:{port}")), Protocol::Smtp, "{port}");
            assert_eq!(spoken(format!("proxy+imap://a:{port}")), Protocol::Imap, "{port}");
        }
    }

    #[test]
    fn what_is_none_is_explained() {
        for (text, says) in [
            ("127.0.0.1", "has no port;"),
            ("127.0.0.1:0", "asks for port 0: ports are from 1 to 65535"),
            ("127.0.0.1:99999", "asks for port 99999: ports are from 1 to 65535"),
            ("127.0.0.1:65536", "asks for port 65536: ports are from 1 to 65535"),
            ("a:99999999999999999999999999", "asks for port 99999999999999999999…: ports are"),
            ("127.0.0.1:-1", "has no port: a number belongs after the last colon"),
            ("127.0.0.1:+443", "has no port: a number belongs after the last colon"),
            ("127.0.0.1:", "has no port: a number belongs after the last colon"),
            ("127.0.0.1:https", "has no port: a number belongs after the last colon"),
            ("[::1]", "has no port;"),
            ("::1", "is an IPv6 address and has no port: write \"[::1]:PORT\""),
            ("imap://fe80::abcd", "has no port: write \"imap://[fe80::abcd]:PORT\""),
            ("2001:db8::", "is an IPv6 address and has no port: write \"[2001:db8::]:PORT\""),
            ("::1:443", "if 443 is the port, write \"[::1]:443\""),
            ("smtp://2001:db8::5:25", "if 25 is the port, write \"smtp://[2001:db8::5]:25\""),
            ("https://a:443", "scheme"),
            ("a:1:443", "names no host: it has several colons"),
            ("[::1:443", "names no host: between brackets belongs an IPv6 address"),
            ("[a]:443", "names no host: between brackets belongs an IPv6 address"),
            (":443", "names no host"),
            ("a b:443", "names no host"),
            ("bü cher.example:443", "names no host: `bü cher.example` is not a hostname"),
            ("", "has no port"),
        ] {
            let told = text.parse::<Endpoint>().unwrap_err();
            assert!(told.contains(says), "{text}: {told}");
        }
    }
}
