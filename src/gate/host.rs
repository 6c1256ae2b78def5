//! The host that a request is for, in its one normal form.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::{HeaderMap, Uri, Version, header, uri};

use crate::hostname::{Hostname, Identifier};

/// Where `Host` or a target without a port points.
const DEFAULT_PORT: u16 = 80;

/// A host and port as in `Host` (RFC 9110 section 7.2), the host in normal form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// The name or address.
    pub identifier: Identifier,
    /// The port, 80 where none is given.
    pub port: u16,
}

/// Why a request names no host that can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// HTTP/1.1 without `Host` (RFC 9112 section 3.2).
    #[error("no Host header")]
    Missing,
    /// More than one `Host` (RFC 9112 section 3.2).
    #[error("more than one Host header")]
    Repeated,
    /// Neither a host name nor an address, or a port that is none.
    #[error("the host is neither a hostname nor an address")]
    Malformed,
    /// The target is a whole URL, for another host than `Host` names, or not for http.
    #[error("the request's target and its Host header disagree")]
    Mismatch,
}

impl Host {
    /// The host that a request is for; `None` where an HTTP/1.0 client did not say.
    pub fn of(version: Version, target: &Uri, headers: &HeaderMap) -> Result<Option<Self>, HostError> {
        let mut lines = headers.get_all(header::HOST).iter();
        let host = match (lines.next(), lines.next()) {
            (Some(line), None) => Some(Self::parse(line.as_bytes())?),
            (Some(_), Some(_)) => return Err(HostError::Repeated),
            (None, _) if version > Version::HTTP_10 => return Err(HostError::Missing),
            (None, _) => None,
        };
        let (Some(scheme), Some(authority)) = (target.scheme(), target.authority()) else {
            return Ok(host);
        };
        let named = Self::parse(authority.as_str().as_bytes())?;
        if *scheme != uri::Scheme::HTTP || host.is_some_and(|host| host != named) {
            return Err(HostError::Mismatch);
        }
        Ok(Some(named))
    }

    /// Parses `uri-host [ ":" port ]`: ASCII, any case, a trailing dot tolerated.
    pub fn parse(bytes: &[u8]) -> Result<Self, HostError> {
        if !bytes.is_ascii() {
            return Err(HostError::Malformed);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| HostError::Malformed)?;
        let (identifier, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']').ok_or(HostError::Malformed)?;
                let address: Ipv6Addr = address.parse().map_err(|_| HostError::Malformed)?;
                let port = match port {
                    "" => None,
                    port => Some(port.strip_prefix(':').ok_or(HostError::Malformed)?),
                };
                (Identifier::Ip(IpAddr::V6(address)), port)
            }
            None => {
                let (name, port) = match text.split_once(':') {
                    Some((name, port)) => (name, Some(port)),
                    None => (text, None),
                };
                (name_or_ipv4(name)?, port)
            }
        };
        // RFC 3986 section 3.2.3 allows an empty port.
        let port = match port {
            None | Some("") => DEFAULT_PORT,
            Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => {
                port.parse().map_err(|_| HostError::Malformed)?
            }
            Some(_) => return Err(HostError::Malformed),
        };
        Ok(Self { identifier, port })
    }
}

fn name_or_ipv4(text: &str) -> Result<Identifier, HostError> {
    if text.ends_with(|c: char| c.is_ascii_digit())
        && let Ok(address) = text.parse::<Ipv4Addr>()
    {
        return Ok(Identifier::Ip(IpAddr::V4(address)));
    }
    Hostname::parse_any(text).map(Identifier::Dns).map_err(|_| HostError::Malformed)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn shown(text: &str) -> Result<String, HostError> {
        Host::parse(text.as_bytes()).map(|host| format!("{} {}", host.identifier, host.port))
    }

    #[test]
    fn hosts_in_normal_form() {
        for (text, normal) in [
            ("example.net", "example.net 80"),
            ("Example.NET.", "example.net 80"),
            ("example.net:8080", "example.net 8080"),
            ("example.net.:", "example.net 80"),
            ("localhost", "localhost 80"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example 80"),
            ("192.0.2.1", "192.0.2.1 80"),
            ("192.0.2.1:81", "192.0.2.1 81"),
            ("[2001:DB8::1]", "2001:db8::1 80"),
            ("[::1]:80", "::1 80"),
        ] {
            assert_eq!(shown(text), Ok(normal.to_owned()), "{text}");
        }
    }

    #[test]
    fn malformed_hosts() {
        for text in [
            "",
            " ",
            ".",
            ":80",
            "a b",
            "a.net b.net",
            "a.net,b.net",
            "a.net/",
            "a.net/x",
            "u@a.net",
            "a_b.net",
            "a..net",
            "a.net:x",
            "a.net:+80",
            "a.net:65536",
            "a.net:80:80",
            "a%2enet",
            "::1",
            "[::1",
            "[::1]80",
            "[::1]x",
            "[::1%eth0]",
            "[a.net]",
            "1.2.3",
            "1.2.3.4.",
            "01.2.3.4",
            "0x7f.1",
            "300.1.1.1",
            "a.net?x",
            "a.net#x",
            "a.net\\x",
            "bücher.example",
            "\u{ff}",
            "-a.net",
            "*.a.net",
        ] {
            assert_eq!(shown(text), Err(HostError::Malformed), "{text}");
        }
        assert_eq!(Host::parse(b"a\xff.net"), Err(HostError::Malformed));
    }

    fn of(version: Version, target: &str, lines: &[&'static str]) -> Result<Option<String>, HostError> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::HOST, HeaderValue::from_static(line));
        }
        Ok(Host::of(version, &target.parse().unwrap(), &headers)?.map(|host| host.identifier.to_string()))
    }

    #[test]
    fn the_host_of_a_request() {
        use HostError::{Malformed, Mismatch, Missing, Repeated};
        let some = |text: &str| Ok(Some(text.to_owned()));
        for (version, target, lines, expected) in [
            (Version::HTTP_11, "/", &["a.net"][..], some("a.net")),
            (Version::HTTP_11, "/", &[], Err(Missing)),
            (Version::HTTP_11, "http://a.net/", &[], Err(Missing)),
            (Version::HTTP_11, "/", &["a.net", "a.net"], Err(Repeated)),
            (Version::HTTP_10, "/", &["a.net", "b.net"], Err(Repeated)),
            (Version::HTTP_10, "/", &[], Ok(None)),
            (Version::HTTP_10, "http://a.net/", &[], some("a.net")),
            (Version::HTTP_10, "/", &[""], Err(Malformed)),
            (Version::HTTP_11, "http://A.net./x", &["a.net:80"], some("a.net")),
            (Version::HTTP_11, "http://b.net/", &["a.net"], Err(Mismatch)),
            (Version::HTTP_11, "http://a.net:81/", &["a.net"], Err(Mismatch)),
            (Version::HTTP_11, "https://a.net/", &["a.net"], Err(Mismatch)),
            (Version::HTTP_11, "http://a.net@b.net/", &["a.net"], Err(Malformed)),
        ] {
            assert_eq!(of(version, target, lines), expected, "{version:?} {target} {lines:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_parses_is_visible_ascii(bytes in proptest::collection::vec(0_u8.., 0..40)) {
            if let Ok(host) = Host::parse(&bytes) {
                let text = host.identifier.to_string();
                proptest::prop_assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.:".contains(&b)));
                proptest::prop_assert!(!text.bytes().any(|b| b.is_ascii_uppercase()));
            }
        }
    }
}
