//! Pieces that several servers write alike: addresses with ports. Pure.

use std::net::IpAddr;

/// `*:80`, `80`, `1.2.3.4:80`, `[::]:80`, `[::1]`, `name:80`: an address (`None` is every one, and a name,
/// which may be any) and a port.
pub(super) fn endpoint(text: &str, default_port: u16) -> Option<(Option<IpAddr>, u16)> {
    if let Ok(port) = text.parse() {
        return Some((None, port));
    }
    let (host, port) = host_and_port(text, default_port);
    if port == 0 {
        return None;
    }
    let address = host.parse::<IpAddr>().ok().filter(|ip| !ip.is_unspecified());
    Some((address, port))
}

/// A host, without brackets, and a port; 0 where that is not one.
pub(super) fn host_and_port(text: &str, default_port: u16) -> (String, u16) {
    if let Some(rest) = text.strip_prefix('[')
        && let Some((host, rest)) = rest.split_once(']')
    {
        let port = rest.strip_prefix(':').map_or(default_port, |port| port.parse().unwrap_or(0));
        return (host.to_owned(), port);
    }
    match text.rsplit_once(':') {
        // An IPv6 address without brackets has no port.
        Some((host, _)) if host.contains(':') && text.parse::<IpAddr>().is_ok() => {
            (text.to_owned(), default_port)
        }
        Some((host, port)) => (host.to_owned(), port.parse().unwrap_or(0)),
        None => (text.to_owned(), default_port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        let ip = |text: &str| text.parse::<IpAddr>().ok();
        for (text, expected) in [
            ("80", Some((None, 80))),
            ("*:8080", Some((None, 8080))),
            ("[::]:80", Some((None, 80))),
            ("0.0.0.0:81", Some((None, 81))),
            ("127.0.0.1", Some((ip("127.0.0.1"), 443))),
            ("[::1]:80", Some((ip("::1"), 80))),
            ("::1", Some((ip("::1"), 443))),
            ("localhost:80", Some((None, 80))),
            (":80", Some((None, 80))),
            ("a:b", None),
            ("a:99999", None),
        ] {
            assert_eq!(endpoint(text, 443), expected, "{text}");
        }
    }
}
