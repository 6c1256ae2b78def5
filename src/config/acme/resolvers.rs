//! `acme.resolvers`: the name servers that the preflight asks in place of the system's.

use std::net::{IpAddr, SocketAddr};

use super::super::problem::seen;
use super::super::section::Section;

/// Most name servers: each one that is silent costs a preflight its patience.
const MAX_RESOLVERS: usize = 8;

const DNS_PORT: u16 = 53;

pub(super) fn resolvers(section: &Section<'_>) -> Vec<SocketAddr> {
    let mut resolvers = Vec::new();
    for (entry, address) in section.each("resolvers", resolver) {
        if resolvers.contains(&address) {
            entry.refuse(&format!("`{address}` is listed twice; keep it once"));
        } else {
            resolvers.push(address);
        }
    }
    if let Some(entry) = section.entry("resolvers").filter(|_| resolvers.len() > MAX_RESOLVERS) {
        entry.refuse(&format!("{} name servers; {MAX_RESOLVERS} is the most", resolvers.len()));
    }
    resolvers
}

fn resolver(text: &str) -> Result<SocketAddr, String> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = match (text.parse::<SocketAddr>(), text.parse::<IpAddr>(), bare) {
        (Ok(address), ..) => address,
        (_, Ok(ip), _) => SocketAddr::from((ip, DNS_PORT)),
        (.., Some(bare)) if bare.contains(':') => {
            SocketAddr::from((bare.parse::<IpAddr>().map_err(|_| malformed(text))?, DNS_PORT))
        }
        _ => return Err(malformed(text)),
    };
    let ip = address.ip();
    if ip.is_unspecified() || ip.is_multicast() || address.port() == 0 {
        return Err(format!("{} is no server's address; write the one that the name server has", seen(text)));
    }
    Ok(address)
}

fn malformed(text: &str) -> String {
    format!(
        "{} is no address of a name server; write an IP address, with a port where it is not {DNS_PORT}, as in \"192.0.2.53\" or \"[2001:db8::53]:5353\"",
        seen(text)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_53_where_none_is_named() {
        for (text, address) in [
            ("192.0.2.53", "192.0.2.53:53"),
            ("192.0.2.53:5353", "192.0.2.53:5353"),
            ("2001:db8::53", "[2001:db8::53]:53"),
            ("[2001:db8::53]", "[2001:db8::53]:53"),
            ("[2001:db8::53]:5353", "[2001:db8::53]:5353"),
        ] {
            assert_eq!(resolver(text).map(|a| a.to_string()).as_deref(), Ok(address));
        }
        for text in [
            "",
            "dns.example.net",
            "192.0.2.53:0",
            "[192.0.2.53]",
            "0.0.0.0",
            "ff02::1",
            "192.0.2.53:65536",
            "[::",
        ] {
            assert!(resolver(text).is_err(), "{text}");
        }
    }
}
