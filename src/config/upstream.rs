//! Where the front sends requests, checked.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::Uri;

use super::acme::{check_socket_path, without_credentials};
use super::files::absolute;
use super::problem::{Origin, seen};
use super::section::Section;
use super::{Place, Raw, Upstream};

const FORMS: &str =
    "write \"http://HOST:PORT\", \"h2c://HOST:PORT\", \"tcp://HOST:PORT\", \"unix:/PATH\" or \"demo\"";

/// The longest name of a protocol (RFC 7301 section 3.1).
const LONGEST_ALPN: usize = 255;

/// What upstreams that are given bytes have in common.
#[derive(Debug, Clone, Default)]
pub(super) struct Usual {
    proxy_protocol: bool,
    alpn: Vec<String>,
}

impl Usual {
    /// As `[front]` says it, for its own upstream and those of all sites.
    pub(super) fn of_front(front: &Section<'_>) -> Self {
        Self::default().with(front)
    }

    fn with(&self, section: &Section<'_>) -> Self {
        let own = section.each("alpn", alpn).into_iter().map(|(_, name)| name).collect();
        Self {
            proxy_protocol: section.boolean("proxy-protocol", self.proxy_protocol),
            alpn: if section.entry("alpn").is_some() { own } else { self.alpn.clone() },
        }
    }
}

/// `upstream` of `[front]`.
pub(super) fn of_front(front: &Section<'_>, usual: &Usual) -> Option<Upstream> {
    let missing = "missing; say where requests go: `upstream = \"http://127.0.0.1:8080\"`, or --upstream";
    Some(with(upstream(front, missing)?, usual))
}

/// `upstream` of a site, with its own keys.
pub(super) fn of_site(site: &Section<'_>, usual: &Usual) -> Option<Upstream> {
    let missing = "missing; say where the site's requests go: `upstream = \"http://127.0.0.1:8080\"`";
    let upstream = upstream(site, missing)?;
    if !matches!(upstream, Upstream::Raw(_)) {
        for entry in ["proxy-protocol", "alpn"].iter().filter_map(|key| site.entry(key)) {
            entry.refuse("only an upstream that is given bytes has it: `upstream = \"tcp://HOST:PORT\"`; HTTP tells of its client by fields, and which HTTP is known");
        }
        return Some(upstream);
    }
    Some(with(upstream, &usual.with(site)))
}

fn with(upstream: Upstream, Usual { proxy_protocol, alpn }: &Usual) -> Upstream {
    match upstream {
        Upstream::Raw(raw) => {
            Upstream::Raw(Raw { proxy_protocol: *proxy_protocol, alpn: alpn.clone(), ..raw })
        }
        other => other,
    }
}

fn upstream(section: &Section<'_>, missing: &str) -> Option<Upstream> {
    match section.entry("upstream") {
        Some(entry) => entry.parsed(|text| parse(text, entry.origin())),
        None => {
            section.refuse_missing("upstream", missing);
            None
        }
    }
}

fn alpn(text: &str) -> Result<String, String> {
    if (1..=LONGEST_ALPN).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "{} is no protocol's name; write it as it is registered, as in \"h2\" or \"imap\"",
        seen(text)
    ))
}

fn parse(text: &str, origin: &Origin) -> Result<Upstream, String> {
    let raw = |place| Upstream::Raw(Raw { place, proxy_protocol: false, alpn: Vec::new() });
    if text == "demo" {
        return Ok(Upstream::Demo);
    }
    for (prefix, upstream) in [
        ("unix:", &Upstream::Http as &dyn Fn(Place) -> Upstream),
        ("h2c+unix:", &Upstream::H2c),
        ("tcp+unix:", &raw),
    ] {
        if let Some(path) = text.strip_prefix(prefix) {
            return unix(text, path, origin).map(upstream);
        }
    }
    match text.split_once("://") {
        Some(("http", _)) => tcp(text, Some(80)).map(Upstream::Http),
        Some(("h2c", _)) => tcp(text, Some(80)).map(Upstream::H2c),
        Some(("tcp", _)) => tcp(text, None).map(raw),
        Some(("https", _)) => Err(format!(
            "{} asks for TLS towards the upstream, which the front does not speak; write \"http://…\", with the upstream near by or behind a tunnel",
            without_credentials(text)
        )),
        _ => Err(format!("{} is no upstream; {FORMS}", without_credentials(text))),
    }
}

fn unix(text: &str, path: &str, origin: &Origin) -> Result<Place, String> {
    if path.starts_with('@') {
        return Err(format!("{} is an abstract socket; write the path of one in a folder", seen(text)));
    }
    let path = absolute(path, origin)?;
    check_socket_path(&path).map(|()| Place::Unix(path))
}

fn tcp(text: &str, usual_port: Option<u16>) -> Result<Place, String> {
    let shown = without_credentials(text);
    let malformed = || format!("{shown} is no upstream; {FORMS}");
    let url: Uri = text.parse().map_err(|_| malformed())?;
    let authority = url.authority().ok_or_else(malformed)?;
    if authority.as_str().contains('@') {
        return Err(format!("{shown} has a user name or a password in it; remove it"));
    }
    if text.contains('#') || url.path_and_query().is_some_and(|path| path != "/") {
        return Err(format!("{shown} has a path, and requests keep their own; write host and port only"));
    }
    let host = authority.host();
    let port = match authority.as_str()[host.len()..].strip_prefix(':') {
        Some(port) => port.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(malformed)?,
        None => usual_port.ok_or_else(|| format!("{shown} has no port; {FORMS}"))?,
    };
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    // Names of containers may have underscores, which no hostname of a certificate has.
    let is_name = |text: &str| {
        (1..=253).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
    };
    match bracketed {
        Some(ip) if ip.parse::<Ipv6Addr>().is_ok() => Ok(Place::Tcp { host: ip.to_owned(), port }),
        None if is_name(host) => Ok(Place::Tcp { host: host.to_owned(), port }),
        _ => Err(malformed()),
    }
}

/// Whether an upstream is one of our own listeners, so that requests would go round in circles.
pub(super) fn is_own_listener(upstream: &Upstream, listen: &[SocketAddr]) -> bool {
    let Some(Place::Tcp { host, port }) = upstream.place() else { return false };
    let host = if host == "localhost" { "127.0.0.1" } else { host };
    let Ok(ip) = host.parse::<IpAddr>() else { return false };
    let ours = |listen: &&SocketAddr| listen.ip() == ip || (listen.ip().is_unspecified() && ip.is_loopback());
    listen.iter().filter(|listen| listen.port() == *port).any(|listen| ours(&listen))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams() {
        let at = |host: &str, port| Place::Tcp { host: host.to_owned(), port };
        let tcp = |host: &str, port| Upstream::Http(at(host, port));
        let raw = |place| Upstream::Raw(Raw { place, proxy_protocol: false, alpn: vec![] });
        for (text, expected) in [
            ("demo", Upstream::Demo),
            ("http://app", tcp("app", 80)),
            ("http://app:8080", tcp("app", 8080)),
            ("http://my_app.internal:8080/", tcp("my_app.internal", 8080)),
            ("http://[::1]:9000", tcp("::1", 9000)),
            ("http://127.0.0.1:9000", tcp("127.0.0.1", 9000)),
            ("unix:/run/app.sock", Upstream::Http(Place::Unix("/run/app.sock".into()))),
            ("unix:///run/app.sock", Upstream::Http(Place::Unix("/run/app.sock".into()))),
            ("h2c://app", Upstream::H2c(at("app", 80))),
            ("h2c+unix:/run/app.sock", Upstream::H2c(Place::Unix("/run/app.sock".into()))),
            ("tcp://app:1", raw(at("app", 1))),
            ("tcp+unix:/run/app.sock", raw(Place::Unix("/run/app.sock".into()))),
        ] {
            assert_eq!(parse(text, &Origin::Nowhere), Ok(expected), "{text}");
        }
        for text in [
            "",
            "app:8080",
            "http://",
            "http://:80",
            "http://app:0",
            "http://app:99999",
            "http://app:",
            "http://a b",
            "http://app/base",
            "http://app?x=1",
            "http://[::1",
            "http://[x]",
            "http://me:secret@app",
            "https://app",
            "h2c://app/x",
            "tcp://app",
            "tcp+unix:@app",
            "unix:",
            "unix:@name",
            "ftp://me:secret@app",
            "demo ",
            "http://app/#x",
        ] {
            let message = parse(text, &Origin::Nowhere).expect_err(text);
            assert!(!message.contains("secret"), "{message}");
        }
        let long = format!("unix:/{}", "a".repeat(107));
        assert!(parse(&long, &Origin::Nowhere).unwrap_err().contains("has 108 bytes"));
    }

    #[test]
    fn circles() {
        let listen = ["[::]:80".parse().unwrap(), "192.0.2.1:443".parse().unwrap()];
        for (text, circle) in [
            ("http://127.0.0.1", true),
            ("http://localhost:80", true),
            ("http://[::1]", true),
            ("http://127.0.0.1:8080", false),
            ("http://192.0.2.1:443", true),
            ("http://192.0.2.2:443", false),
            ("http://app", false),
            ("demo", false),
        ] {
            let upstream = parse(text, &Origin::Nowhere).unwrap();
            assert_eq!(is_own_listener(&upstream, &listen), circle, "{text}");
        }
    }
}
