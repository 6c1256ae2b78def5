//! Which upstream answers for which host, and how long everybody may take.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Uri, Version, header};
use ipnet::IpNet;

use crate::config::{Front, SiteName, Upstream};

/// `[front]` as a request needs it; a reload replaces it as a whole.
#[derive(Debug)]
pub struct Routes {
    sites: HashMap<Box<str>, Arc<Upstream>>,
    /// By the parent's name.
    wildcards: HashMap<Box<str>, Arc<Upstream>>,
    fallback: Arc<Upstream>,
    /// One of them is given bytes.
    has_raw: bool,
    /// Peers that tell for whom they come.
    pub trusted_proxies: Vec<IpNet>,
    /// The largest body of a request, bytes.
    pub max_body: Option<u64>,
    /// Strict-Transport-Security.
    pub hsts: Option<HeaderValue>,
    /// How long everybody may take.
    pub limits: Limits,
}

/// How long everybody may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// From a connection's start to the end of its TLS handshake.
    pub handshake: Duration,
    /// For a request's header, between two pieces of its body, and for keep-alive idling.
    pub idle: Duration,
    /// To connect to the upstream.
    pub connect: Duration,
    /// From a request's end to the response's header, and between two pieces of its body.
    pub response: Duration,
}

impl Routes {
    /// The routes of a configuration; equal upstreams share one pool.
    pub fn new(front: &Front) -> Self {
        let mut known: Vec<Arc<Upstream>> = Vec::new();
        let mut share = |upstream: &Upstream| match known.iter().find(|u| ***u == *upstream) {
            Some(known) => known.clone(),
            None => {
                let upstream = Arc::new(upstream.clone());
                known.push(upstream.clone());
                upstream
            }
        };
        let fallback = share(&front.upstream);
        let (mut sites, mut wildcards) = (HashMap::new(), HashMap::new());
        for site in &front.sites {
            let upstream = share(&site.upstream);
            for name in &site.hostnames {
                match name {
                    SiteName::Exact(name) => sites.insert(name.as_str().into(), upstream.clone()),
                    SiteName::Below(parent) => wildcards.insert(parent.as_str().into(), upstream.clone()),
                };
            }
        }
        let limits = Limits {
            handshake: front.handshake_timeout,
            idle: front.idle_timeout,
            connect: front.connect_timeout,
            response: front.response_timeout,
        };
        Self {
            has_raw: known.iter().any(|upstream| matches!(**upstream, Upstream::Raw(_))),
            sites,
            wildcards,
            fallback,
            trusted_proxies: front.trusted_proxies.clone(),
            max_body: front.max_body,
            hsts: front.hsts.as_ref().and_then(|value| HeaderValue::from_str(value).ok()),
            limits,
        }
    }

    /// Whether that peer tells for whom it comes.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|network| network.contains(&peer))
    }

    /// The upstream for clients that ask for this name in their handshake, where it is given bytes.
    pub fn raw(&self, server_name: Option<&str>) -> Option<&Arc<Upstream>> {
        if !self.has_raw {
            return None;
        }
        let upstream = self.find(server_name.unwrap_or_default().as_bytes());
        matches!(**upstream, Upstream::Raw(_)).then_some(upstream)
    }

    /// The upstream for a `Host` that [`requested_host`] let through; port, case and a trailing dot
    /// make no difference. A site of that very name goes before one with a wildcard, which stands for
    /// exactly one label, as in certificates (RFC 9525 section 6.3).
    pub fn find(&self, host: &[u8]) -> &Arc<Upstream> {
        if self.sites.is_empty() && self.wildcards.is_empty() {
            return &self.fallback;
        }
        let mut buffer = [0; 253];
        lower_case_name(host, &mut buffer).and_then(|name| self.site(name)).unwrap_or(&self.fallback)
    }

    fn site(&self, name: &str) -> Option<&Arc<Upstream>> {
        self.sites.get(name).or_else(|| {
            let (first, parent) = name.split_once('.')?;
            self.wildcards.get(parent).filter(|_| !first.is_empty())
        })
    }
}

/// The name without port and trailing dot, in lower case; `None` if it is longer than names get.
pub(super) fn lower_case_name<'a>(host: &[u8], buffer: &'a mut [u8; 253]) -> Option<&'a str> {
    let name = host.iter().rposition(|&b| b == b':').map_or(host, |colon| match host.last() {
        Some(b']') => host,
        _ => &host[..colon],
    });
    let name = name.strip_suffix(b".").unwrap_or(name);
    let lower = buffer.get_mut(..name.len())?;
    for (to, from) in lower.iter_mut().zip(name) {
        *to = from.to_ascii_lowercase();
    }
    std::str::from_utf8(lower).ok()
}

/// Why a request has no host that it could be sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// RFC 9112 section 3.2: HTTP/1.1 requires it.
    #[error("the request names no host")]
    Missing,
    /// RFC 9112 section 3.2, RFC 9113 section 8.3.1.
    #[error("the request names more than one host")]
    Several,
    /// RFC 9112 section 3.2.
    #[error("the request's host is no host")]
    Malformed,
}

/// The host that a request is for, as it was received.
///
/// A target in absolute form overrules `Host` (RFC 9112 section 3.2.2); in HTTP/2 `:authority` must
/// agree with it (RFC 9113 section 8.3.1). `None`: HTTP/1.0 without a host.
pub fn requested_host<'a>(
    version: Version,
    uri: &'a Uri,
    headers: &'a HeaderMap,
) -> Result<Option<RequestedHost<'a>>, HostError> {
    let mut fields = headers.get_all(header::HOST).iter();
    let field = fields.next();
    if fields.next().is_some() {
        return Err(HostError::Several);
    }
    let host = match (uri.authority(), field) {
        (Some(authority), Some(field)) if version == Version::HTTP_2 => {
            if !field.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()) {
                return Err(HostError::Several);
            }
            RequestedHost::Authority(authority)
        }
        (Some(authority), _) => RequestedHost::Authority(authority),
        (None, Some(field)) => RequestedHost::Field(field),
        (None, None) if version == Version::HTTP_10 => return Ok(None),
        (None, None) => return Err(HostError::Missing),
    };
    if is_host_and_port(host.as_bytes()) { Ok(Some(host)) } else { Err(HostError::Malformed) }
}

/// Where a request's host was found.
#[derive(Debug, Clone, Copy)]
pub enum RequestedHost<'a> {
    /// In its target, or in `:authority`.
    Authority(&'a Authority),
    /// In its `Host` field.
    Field(&'a HeaderValue),
}

impl RequestedHost<'_> {
    /// As received.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Authority(authority) => authority.as_str().as_bytes(),
            Self::Field(field) => field.as_bytes(),
        }
    }

    /// As a field's value.
    pub fn to_value(self) -> Option<HeaderValue> {
        match self {
            Self::Authority(authority) => HeaderValue::from_str(authority.as_str()).ok(),
            Self::Field(field) => Some(field.clone()),
        }
    }
}

/// `uri-host [ ":" port ]` (RFC 9110 section 7.2) of names and addresses as they are used: no user
/// information, no percent-encoding.
fn is_host_and_port(host: &[u8]) -> bool {
    let (name, port) = if let Some(rest) = host.strip_prefix(b"[") {
        let Some(end) = rest.iter().position(|&b| b == b']') else { return false };
        let address = std::str::from_utf8(&rest[..end]).ok().and_then(|a| a.parse().ok());
        let Some::<std::net::Ipv6Addr>(_) = address else { return false };
        (&b"v6"[..], &rest[end + 1..])
    } else {
        let end = host.iter().position(|&b| b == b':').unwrap_or(host.len());
        host.split_at(end)
    };
    let port_fits = match port.strip_prefix(b":") {
        Some(b"") => true,
        Some(digits) => {
            digits.iter().all(u8::is_ascii_digit)
                && std::str::from_utf8(digits).is_ok_and(|digits| digits.parse::<u16>().is_ok())
        }
        None => port.is_empty(),
    };
    let labels = name.strip_suffix(b".").unwrap_or(name);
    port_fits
        && labels.split(|b| *b == b'.').all(|label| !label.is_empty())
        && (1..=254).contains(&name.len())
        && name.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::{Place, Raw, Site};

    fn at(port: u16) -> Upstream {
        Upstream::Http(Place::Tcp { host: "127.0.0.1".to_owned(), port })
    }

    fn front() -> Front {
        let site = |names: &[&str], port| Site {
            hostnames: names.iter().map(|n| n.parse().unwrap()).collect(),
            upstream: at(port),
        };
        Front {
            listen: vec![],
            upstream: at(1),
            sites: vec![
                site(&["a.test", "b.test"], 2),
                site(&["c.test"], 1),
                site(&["*.w.test", "*.deep.w.test"], 3),
                site(&["exact.w.test"], 4),
                site(&["*.lan"], 5),
            ],
            default_certificate: None,
            trusted_proxies: vec![],
            max_body: None,
            hsts: None,
            ticket_key_file: None,
            access_log: None,
            max_connections: 10,
            max_connections_per_network: 10,
            max_handshakes: 10,
            threads: 1,
            handshake_timeout: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(1),
            response_timeout: Duration::from_secs(1),
        }
    }

    #[test]
    fn a_site_by_its_name_else_the_default() {
        let routes = Routes::new(&front());
        let long = "a".repeat(400);
        for (host, port) in [
            ("a.test", 2),
            ("A.Test.", 2),
            ("b.test:8443", 2),
            ("b.test.:8443", 2),
            ("c.test", 1),
            ("x.a.test", 1),
            ("x.w.test", 3),
            ("X.W.Test.:8443", 3),
            ("exact.w.test", 4),
            ("EXACT.w.test.", 4),
            // The parent itself is none of them, nor is what is two labels below it.
            ("w.test", 1),
            ("w.test:443", 1),
            ("a.x.w.test", 1),
            ("x.exact.w.test", 1),
            ("a.deep.w.test", 3),
            ("deep.w.test", 3),
            ("xw.test", 1),
            (".w.test", 1),
            ("*.w.test", 3),
            ("host.lan", 5),
            ("lan", 1),
            ("192.0.2.1", 1),
            ("[2001:db8::1]:443", 1),
            ("[2001:db8::1]", 1),
            ("", 1),
            (&long, 1),
        ] {
            let found = routes.find(host.as_bytes());
            assert_eq!(**found, at(port), "{host}");
            assert!(routes.raw(Some(host)).is_none(), "{host}");
        }
        assert!(Arc::ptr_eq(routes.find(b"c.test"), routes.find(b"elsewhere.test")), "one pool");
    }

    #[test]
    fn bytes_by_the_name_in_the_handshake() {
        let mut front = front();
        let place = Place::Tcp { host: "127.0.0.1".to_owned(), port: 9 };
        let raw = Upstream::Raw(Raw { place, proxy_protocol: false, alpn: vec![] });
        front.sites.push(Site { hostnames: vec!["*.imap.test".parse().unwrap()], upstream: raw.clone() });
        front.sites.push(Site { hostnames: vec!["web.imap.test".parse().unwrap()], upstream: at(2) });
        let routes = Routes::new(&front);
        for (name, expected) in [
            (Some("a.imap.test"), true),
            (Some("A.imap.test."), true),
            (Some("web.imap.test"), false),
            (Some("a.b.imap.test"), false),
            (Some("imap.test"), false),
            (Some("a.test"), false),
            (None, false),
        ] {
            assert_eq!(routes.raw(name).is_some_and(|found| **found == raw), expected, "{name:?}");
        }
    }

    #[test]
    fn the_host_of_a_request() {
        use HostError::{Malformed, Missing, Several};
        let (one, two, zero) = (Version::HTTP_11, Version::HTTP_2, Version::HTTP_10);
        for (version, uri, hosts, wanted) in [
            (one, "/", &["a.test"][..], Ok(Some("a.test"))),
            (one, "/", &["A.test:8443"], Ok(Some("A.test:8443"))),
            (one, "/", &["a.test:"], Ok(Some("a.test:"))),
            (one, "/", &["[2001:db8::1]:443"], Ok(Some("[2001:db8::1]:443"))),
            (one, "/", &["192.0.2.1"], Ok(Some("192.0.2.1"))),
            (one, "/", &["a_b.test"], Ok(Some("a_b.test"))),
            (one, "/", &[], Err(Missing)),
            (zero, "/", &[], Ok(None)),
            (zero, "/", &["a.test"], Ok(Some("a.test"))),
            (one, "/", &["a.test", "a.test"], Err(Several)),
            (one, "https://b.test/", &["a.test"], Ok(Some("b.test"))),
            (one, "https://u@b.test/", &["a.test"], Err(Malformed)),
            (two, "https://b.test/", &[], Ok(Some("b.test"))),
            (two, "https://b.test/", &["B.test"], Ok(Some("b.test"))),
            (two, "https://b.test/", &["a.test"], Err(Several)),
            (two, "/", &["a.test"], Ok(Some("a.test"))),
            (two, "/", &[], Err(Missing)),
            (one, "/", &[""], Err(Malformed)),
            (one, "/", &["a b"], Err(Malformed)),
            (one, "/", &["a.test/x"], Err(Malformed)),
            (one, "/", &["a.test:8x"], Err(Malformed)),
            (one, "/", &["a.test:123456"], Err(Malformed)),
            (one, "/", &["a.test, b.test"], Err(Malformed)),
            (one, "/", &["b\u{fc}cher.test"], Err(Malformed)),
            (one, "/", &["[::1"], Err(Malformed)),
            (one, "/", &["[zz]"], Err(Malformed)),
            (one, "/", &["[::1]x"], Err(Malformed)),
            (one, "/", &[":80"], Err(Malformed)),
        ] {
            let mut headers = HeaderMap::new();
            for host in hosts {
                headers.append(header::HOST, HeaderValue::from_bytes(host.as_bytes()).unwrap());
            }
            let uri: Uri = uri.parse().unwrap();
            let found = requested_host(version, &uri, &headers)
                .map(|host| host.map(|host| host.to_value().unwrap().to_str().unwrap().to_owned()));
            assert_eq!(found, wanted.map(|host| host.map(str::to_owned)), "{version:?} {uri} {hosts:?}");
        }
    }

    proptest! {
        #[test]
        fn an_accepted_host_can_be_quoted_anywhere(host in "[ -~]{0,30}") {
            if is_host_and_port(host.as_bytes()) {
                prop_assert!(!host.contains([' ', '/', '@', ',', ';', '"', '\\', '%', '#', '?']), "{host}");
            }
        }

        #[test]
        fn any_host_finds_an_upstream(host in prop::collection::vec(any::<u8>(), 0..300)) {
            Routes::new(&front()).find(&host);
        }
    }
}
