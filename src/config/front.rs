//! `[front]`, checked.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use http::Uri;

use super::acme::{check_socket_path, without_credentials};
use super::files::absolute;
use super::gate::listen;
use super::keys::{nearest, not_yet};
use super::problem::{Origin, seen};
use super::section::Section;
use super::{CertificateRequest, Front, Site, Upstream};
use crate::hostname::{Hostname, Identifier};

/// Most threads that are started without being asked for.
const MAX_DEFAULT_THREADS: usize = 64;

const SECOND: Duration = Duration::from_secs(1);
const TENTH: Duration = Duration::from_millis(100);
const HOUR: Duration = Duration::from_secs(3600);

/// The front, and whether its number of threads was left to the machine.
pub(super) fn front(root: &Section<'_>, certificates: &[CertificateRequest]) -> Option<(Front, bool)> {
    let section = root.table("front");
    if !section.is_present() {
        return None;
    }
    let upstream = match section.entry("upstream") {
        Some(entry) => entry.parsed(|text| upstream(text, entry.origin())),
        None => {
            let message =
                "missing; say where requests go: `upstream = \"http://127.0.0.1:8080\"`, or --upstream";
            section.refuse_missing("upstream", message);
            None
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get().min(MAX_DEFAULT_THREADS));
    let front = Front {
        listen: listen(&section, 443),
        upstream: upstream.unwrap_or(Upstream::Demo),
        sites: sites(&section, certificates),
        default_certificate: default_certificate(&section, certificates),
        max_connections: section.integer("max-connections", 4096, 1..=1_000_000),
        threads: section.integer("threads", cores, 1..=256),
        handshake_timeout: section.duration("handshake-timeout", 10 * SECOND, TENTH..=300 * SECOND),
        idle_timeout: section.duration("idle-timeout", 60 * SECOND, SECOND..=HOUR),
        connect_timeout: section.duration("connect-timeout", 5 * SECOND, TENTH..=300 * SECOND),
        response_timeout: section.duration("response-timeout", 60 * SECOND, SECOND..=24 * HOUR),
    };
    Some((front, section.entry("threads").is_none()))
}

fn sites(front: &Section<'_>, certificates: &[CertificateRequest]) -> Vec<Site> {
    let mut taken = BTreeSet::new();
    front.tables("site").iter().map(|section| site(section, certificates, &mut taken)).collect()
}

fn site(section: &Section<'_>, certificates: &[CertificateRequest], taken: &mut BTreeSet<Hostname>) -> Site {
    let mut hostnames = Vec::new();
    for (entry, hostname) in section.each("hostnames", site_hostname) {
        if !taken.insert(hostname.clone()) {
            entry.refuse(&format!("`{hostname}` has a site already; keep it in one of them"));
            continue;
        }
        let identifier = Identifier::Dns(hostname.clone());
        if !certificates.iter().any(|certificate| certificate.identifiers.contains(&identifier)) {
            entry.warn(&format!("no certificate covers `{hostname}`, so its clients are turned away"));
        }
        hostnames.push(hostname);
    }
    if section.entry("hostnames").is_none_or(|entry| entry.items().is_empty()) {
        section.refuse_missing(
            "hostnames",
            "missing; a site needs at least one hostname, as in `hostnames = [\"api.example.net\"]`",
        );
    }
    let upstream = match section.entry("upstream") {
        Some(entry) => entry.parsed(|text| upstream(text, entry.origin())),
        None => {
            let message = "missing; say where the site's requests go: `upstream = \"http://127.0.0.1:8080\"`";
            section.refuse_missing("upstream", message);
            None
        }
    };
    Site { hostnames, upstream: upstream.unwrap_or(Upstream::Demo) }
}

fn site_hostname(text: &str) -> Result<Hostname, String> {
    if text.starts_with("*.") {
        return Err(format!("{} is a wildcard; list each hostname by itself", seen(text)));
    }
    text.parse().map_err(|error| format!("{error}; write a name that a certificate covers"))
}

fn default_certificate(section: &Section<'_>, certificates: &[CertificateRequest]) -> Option<String> {
    section.entry("default-certificate")?.parsed(|text| {
        if certificates.iter().any(|certificate| certificate.name == text) {
            return Ok(text.to_owned());
        }
        let names: Vec<_> = certificates.iter().map(|certificate| certificate.name.as_str()).collect();
        let remedy = match nearest(text, names.iter().copied()) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None if names.is_empty() => "add a [[certificate]] of that name".to_owned(),
            None => format!("the names are {}", listing(&names)),
        };
        Err(format!("{} is no certificate's name; {remedy}", seen(text)))
    })
}

/// Names for a message: the first few of them.
pub(super) fn listing(names: &[&str]) -> String {
    const MAX: usize = 8;
    let shown: Vec<_> = names.iter().take(MAX).map(|name| format!("`{name}`")).collect();
    let more = if names.len() > MAX { format!(" and {} more", names.len() - MAX) } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

const FORMS: &str = "write \"http://HOST:PORT\", \"unix:/PATH\" or \"demo\"";

fn upstream(text: &str, origin: &Origin) -> Result<Upstream, String> {
    if text == "demo" {
        return Ok(Upstream::Demo);
    }
    if let Some(path) = text.strip_prefix("unix:") {
        if path.starts_with('@') {
            return Err(format!("{} is an abstract socket; write the path of one in a folder", seen(text)));
        }
        let path = absolute(path, origin)?;
        return check_socket_path(&path).map(|()| Upstream::Unix(path));
    }
    match text.split_once("://") {
        Some(("http", _)) => tcp(text),
        Some(("https", _)) => Err(format!(
            "{} asks for TLS towards the upstream, which the front does not speak; write \"http://…\", with the upstream near by or behind a tunnel",
            without_credentials(text)
        )),
        Some(("h2c", _)) => {
            Err(not_yet("it speaks HTTP/1.1 to the upstream, not HTTP/2", "write \"http://HOST:PORT\""))
        }
        Some(("tcp", _)) => Err(not_yet(
            "it forwards HTTP only, not raw bytes",
            "write \"http://HOST:PORT\", or let a server of its own terminate TLS with the PEM files",
        )),
        _ => Err(format!("{} is no upstream; {FORMS}", without_credentials(text))),
    }
}

fn tcp(text: &str) -> Result<Upstream, String> {
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
        None => 80,
    };
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    // Names of containers may have underscores, which no hostname of a certificate has.
    let is_name = |text: &str| {
        (1..=253).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
    };
    match bracketed {
        Some(ip) if ip.parse::<Ipv6Addr>().is_ok() => Ok(Upstream::Tcp { host: ip.to_owned(), port }),
        None if is_name(host) => Ok(Upstream::Tcp { host: host.to_owned(), port }),
        _ => Err(malformed()),
    }
}

/// Whether an upstream is one of our own listeners, so that requests would go round in circles.
pub(super) fn is_own_listener(upstream: &Upstream, listen: &[SocketAddr]) -> bool {
    let Upstream::Tcp { host, port } = upstream else { return false };
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
        let tcp = |host: &str, port| Upstream::Tcp { host: host.to_owned(), port };
        for (text, expected) in [
            ("demo", Upstream::Demo),
            ("http://app", tcp("app", 80)),
            ("http://app:8080", tcp("app", 8080)),
            ("http://my_app.internal:8080/", tcp("my_app.internal", 8080)),
            ("http://[::1]:9000", tcp("::1", 9000)),
            ("http://127.0.0.1:9000", tcp("127.0.0.1", 9000)),
            ("unix:/run/app.sock", Upstream::Unix("/run/app.sock".into())),
            ("unix:///run/app.sock", Upstream::Unix("/run/app.sock".into())),
        ] {
            assert_eq!(upstream(text, &Origin::Nowhere), Ok(expected), "{text}");
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
            "h2c://app",
            "tcp://app:1",
            "unix:",
            "unix:@name",
            "ftp://me:secret@app",
            "demo ",
            "http://app/#x",
        ] {
            let message = upstream(text, &Origin::Nowhere).expect_err(text);
            assert!(!message.contains("secret"), "{message}");
        }
        let long = format!("unix:/{}", "a".repeat(107));
        assert!(upstream(&long, &Origin::Nowhere).unwrap_err().contains("has 108 bytes"));
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
            let upstream = upstream(text, &Origin::Nowhere).unwrap();
            assert_eq!(is_own_listener(&upstream, &listen), circle, "{text}");
        }
    }
}
