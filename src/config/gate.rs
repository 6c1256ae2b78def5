//! `[gate]`, checked.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;

use http::StatusCode;
use ipnet::IpNet;

use super::opening;
use super::problem::seen;
use super::section::{Section, one_of};
use super::{Gate, GateOpen, Redirect, RedirectHosts};
use crate::hostname::{Hostname, Identifier};

/// Most addresses that one of gate and front listens on.
const MAX_LISTEN: usize = 64;

/// What a cap on connections may be.
pub(super) const CONNECTIONS: RangeInclusive<usize> = 1..=1_000_000;

/// `configured` is what certificates and sites name.
pub(super) fn gate(root: &Section<'_>, configured: BTreeSet<Identifier>) -> Gate {
    let section = root.table("gate");
    let listen = listen(&section, 80);
    let max_connections = section.integer("max-connections", 1024, CONNECTIONS);
    Gate {
        open: section.parsed("open", GateOpen::Always, open),
        openings: opening::openings(&section, &listen),
        listen,
        redirect: redirect(&section.table("redirect"), configured),
        match_host: section.boolean("match-host", true),
        trusted_proxies: trusted_proxies(&section),
        max_connections,
        max_connections_per_network: per_network(&section, max_connections),
    }
}

/// Of one network a quarter, if nothing else is said.
pub(super) fn per_network(section: &Section<'_>, max_connections: usize) -> usize {
    section.integer("max-connections-per-network", part(max_connections, 4), CONNECTIONS)
}

/// One of so many parts of a cap, but never so few that one busy client would feel it.
pub(super) fn part(cap: usize, parts: usize) -> usize {
    cap.div_ceil(parts).max(cap.min(64))
}

fn open(text: &str) -> Result<GateOpen, String> {
    one_of(text, "way to open", &[("always", GateOpen::Always), ("during-orders", GateOpen::DuringOrders)])
}

/// The addresses to listen on; every IPv6 and IPv4 address at `port` if none is given.
pub(super) fn listen(section: &Section<'_>, port: u16) -> Vec<SocketAddr> {
    let default = vec![SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))];
    let Some(entry) = section.entry("listen") else { return default };
    let count = entry.items().len();
    if count == 0 {
        entry.refuse("an empty list; write at least one address, as in \"[::]:80\", or remove the key");
    }
    if count > MAX_LISTEN {
        entry.refuse(&format!("{count} addresses; write {MAX_LISTEN} at most"));
        return default;
    }
    let mut addresses = Vec::new();
    for (entry, address) in section.each("listen", |text| listen_address(text, port)) {
        match addresses.iter().find(|listed| collide(**listed, address)) {
            Some(same) if *same == address => {
                entry.refuse(&format!("`{address}` is listed twice; keep it once"));
            }
            Some(listed) => entry.refuse(&format!(
                "`{address}` and `{listed}` cannot both be listened on, one covers the other (\"[::]\" is every address, IPv4 too); keep one of them"
            )),
            None => addresses.push(address),
        }
    }
    addresses
}

pub(super) fn listen_address(text: &str, port: u16) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let meant = if let Ok(ip) = bare.parse::<IpAddr>() {
        SocketAddr::from((ip, port)).to_string()
    } else if let Ok(port) = text.trim_start_matches(['*', ':']).parse::<u16>() {
        format!("[::]:{port}")
    } else {
        format!("[::]:{port}")
    };
    Err(format!(
        "{} is no address to listen on; write an IP address and a port, as in \"{meant}\"",
        seen(text)
    ))
}

/// Whether both cannot be listened on at once: one is the other, or covers it.
pub(super) fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let covers = |a: IpAddr, b: IpAddr| a == b || (a.is_unspecified() && (a.is_ipv6() || b.is_ipv4()));
    a.port() == b.port() && a.port() != 0 && (covers(a.ip(), b.ip()) || covers(b.ip(), a.ip()))
}

fn redirect(section: &Section<'_>, mut configured: BTreeSet<Identifier>) -> Redirect {
    let hosts = section.parsed("hosts", true, |text| {
        one_of(text, "choice of hosts", &[("configured", true), ("any", false)])
    });
    let also = section.each("also-hosts", also_host);
    if !hosts && let Some(entry) = section.entry("also-hosts") {
        entry.refuse("with `hosts = \"any\"` every host is redirected already; remove one of the two");
    }
    configured.extend(also.into_iter().map(|(_, host)| host));
    let port = section.integer("port", 443, 1..=usize::from(u16::MAX));
    Redirect {
        status: status(section),
        port: u16::try_from(port).unwrap_or(443),
        hosts: if hosts { RedirectHosts::Configured(configured) } else { RedirectHosts::Any },
    }
}

fn status(section: &Section<'_>) -> StatusCode {
    let default = StatusCode::PERMANENT_REDIRECT;
    let Some(entry) = section.entry("status") else { return default };
    let number = section.integer("status", 308, 0..=usize::MAX);
    match number {
        301 => StatusCode::MOVED_PERMANENTLY,
        302 => StatusCode::FOUND,
        307 => StatusCode::TEMPORARY_REDIRECT,
        308 => default,
        _ => {
            entry.refuse(&format!("`{number}` is no redirect of the gate's; write 301, 302, 307 or 308"));
            default
        }
    }
}

/// A host of the redirect alone, which no CA has to sign: a single label will do.
fn also_host(text: &str) -> Result<Identifier, String> {
    if text.contains('*') {
        return Err(format!(
            "{} is a pattern; name each host by itself, or write `hosts = \"any\"`",
            seen(text)
        ));
    }
    match text.parse() {
        Ok(identifier) => Ok(identifier),
        Err(_) => Hostname::parse_any(text)
            .map(Identifier::Dns)
            .map_err(|error| format!("{error}; write it as it stands in a URL, without a port")),
    }
}

pub(super) fn trusted_proxies(section: &Section<'_>) -> Vec<IpNet> {
    let mut networks = Vec::new();
    for (entry, network) in section.each("trusted-proxies", network) {
        if network.prefix_len() == 0 {
            entry.warn(&format!("`{network}` lets every client choose the address that is logged for it"));
        }
        if networks.contains(&network) {
            entry.refuse(&format!("`{network}` is listed twice; keep it once"));
        } else {
            networks.push(network);
        }
    }
    networks
}

fn network(text: &str) -> Result<IpNet, String> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(ip));
    }
    text.parse::<IpNet>().map(|network| network.trunc()).map_err(|_| {
        format!(
            "{} is no network; write an address or a CIDR, as in \"192.0.2.7\" or \"10.0.0.0/8\"",
            seen(text)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_cap() {
        for (cap, half, quarter) in
            [(4096, 2048, 1024), (1024, 512, 256), (100, 64, 64), (10, 10, 10), (1, 1, 1)]
        {
            assert_eq!((part(cap, 2), part(cap, 4)), (half, quarter), "{cap}");
        }
    }

    #[test]
    fn colliding_addresses() {
        for (a, b, expected) in [
            ("[::]:80", "[::]:80", true),
            ("[::]:80", "0.0.0.0:80", true),
            ("[::]:80", "127.0.0.1:80", true),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("0.0.0.0:80", "[::1]:80", false),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("127.0.0.1:80", "127.0.0.1:81", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
        ] {
            let (a, b) = (a.parse().unwrap(), b.parse().unwrap());
            assert_eq!((collide(a, b), collide(b, a)), (expected, expected), "{a} {b}");
        }
    }

    #[test]
    fn a_wrong_listen_address_is_shown_right() {
        for (text, meant) in [
            ("80", "\"[::]:80\""),
            (":8080", "\"[::]:8080\""),
            ("*:8080", "\"[::]:8080\""),
            ("127.0.0.1", "\"127.0.0.1:80\""),
            ("::1", "\"[::1]:80\""),
            ("[::1]", "\"[::1]:80\""),
            ("localhost:80", "\"[::]:80\""),
        ] {
            assert!(listen_address(text, 80).unwrap_err().ends_with(meant), "{text}");
        }
    }

    #[test]
    fn networks() {
        for (text, expected) in
            [("10.1.2.3/8", "10.0.0.0/8"), ("192.0.2.7", "192.0.2.7/32"), ("::1", "::1/128")]
        {
            assert_eq!(network(text).map(|n| n.to_string()).as_deref(), Ok(expected));
        }
        assert!(network("10.0.0.0/33").is_err() && network("localhost").is_err());
    }
}
