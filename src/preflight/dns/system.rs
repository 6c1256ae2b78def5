//! What this machine says about names: the servers in `/etc/resolv.conf`, the names in `/etc/hosts`.

use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::path::Path;

use crate::hostname::Hostname;

/// The file that names the servers to ask (resolv.conf(5)).
pub(super) const RESOLV_CONF: &str = "/etc/resolv.conf";
/// The file of names that this machine alone knows (hosts(5)).
pub(super) const HOSTS: &str = "/etc/hosts";

/// As many as the C library asks.
const SERVERS: usize = 3;
const PORT: u16 = 53;
const LARGEST_FILE: u64 = 4 << 20;

/// The text of a file, as far as it is read.
pub(super) fn read(path: &str) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LARGEST_FILE).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The servers of a `resolv.conf`; that of this machine where it names none, as the C library has it.
pub(super) fn servers(text: &str) -> Vec<SocketAddr> {
    let mut servers: Vec<SocketAddr> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some("nameserver")).then(|| words.next()).flatten()
        })
        .filter_map(server)
        .take(SERVERS)
        .collect();
    if servers.is_empty() {
        servers.push((Ipv4Addr::LOCALHOST, PORT).into());
    }
    servers
}

fn server(text: &str) -> Option<SocketAddr> {
    let Some((address, scope)) = text.split_once('%') else {
        return text.parse::<IpAddr>().ok().map(|address| (address, PORT).into());
    };
    Some(SocketAddrV6::new(address.parse().ok()?, PORT, 0, interface(scope)?).into())
}

/// The number of a network interface.
fn interface(scope: &str) -> Option<u32> {
    if let Ok(number) = scope.parse() {
        return Some(number);
    }
    let plain = scope.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:@".contains(&b));
    if scope.is_empty() || scope.contains("..") || !plain {
        return None;
    }
    let path = Path::new("/sys/class/net").join(scope).join("ifindex");
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Whether a hosts file has an address for the name.
pub(super) fn names(text: &str, name: &Hostname) -> bool {
    text.lines().any(|line| {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let address = words.next().map(|word| word.split('%').next().unwrap_or(word));
        address.is_some_and(|address| address.parse::<IpAddr>().is_ok())
            && words.any(|word| word.trim_end_matches('.').eq_ignore_ascii_case(name.as_str()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_of_a_file() {
        for (text, expected) in [
            ("nameserver 192.0.2.1\nnameserver 2001:db8::1", "192.0.2.1:53 [2001:db8::1]:53"),
            ("# nameserver 192.0.2.1\n;nameserver 192.0.2.2", "127.0.0.1:53"),
            ("", "127.0.0.1:53"),
            ("search example.net\n\tnameserver\t192.0.2.1  # ours\noptions edns0", "192.0.2.1:53"),
            ("nameserver fe80::1%7", "[fe80::1%7]:53"),
            ("nameserver fe80::1%lo", "[fe80::1%1]:53"),
            ("nameserver fe80::1%../lo\nnameserver 192.0.2.1", "192.0.2.1:53"),
            ("nameserver nonsense\nnameserver\nnameservers 192.0.2.9\nnameserver 192.0.2.1", "192.0.2.1:53"),
            (
                "nameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\nnameserver 192.0.2.4",
                "192.0.2.1:53 192.0.2.2:53 192.0.2.3:53",
            ),
        ] {
            let seen: Vec<String> = servers(text).iter().map(ToString::to_string).collect();
            assert_eq!(seen.join(" "), expected, "{text}");
        }
    }

    #[test]
    fn names_of_a_hosts_file() {
        let name: Hostname = "www.example.net".parse().unwrap();
        for (text, expected) in [
            ("127.0.0.1 localhost\n192.0.2.1\twww.example.net", true),
            ("192.0.2.1 example.net WWW.Example.NET. other", true),
            ("fe80::1%lo www.example.net", true),
            ("192.0.2.1 example.net # www.example.net", false),
            ("# 192.0.2.1 www.example.net", false),
            ("192.0.2.1 xwww.example.net www.example.netx", false),
            ("nonsense www.example.net", false),
            ("www.example.net", false),
            ("", false),
        ] {
            assert_eq!(names(text, &name), expected, "{text}");
        }
    }
}
