//! Where a redirect leads, as a validator reads it. Pure.

use std::net::Ipv6Addr;

use http::{StatusCode, Uri};

use crate::preflight::sighting::{Place, RedirectFault, Scheme};

/// Redirects that a validator follows.
pub(super) const MOST: usize = 10;

/// The longest `Location` that is followed, in bytes.
const LONGEST: usize = 2000;

/// Whether a status is one that clients follow (RFC 9110 section 15.4).
pub(super) fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// The next URL after `visited`, the last of which answered with this `Location`.
pub(super) fn next(visited: &[Place], location: Option<&[u8]>) -> Result<Place, RedirectFault> {
    let base = visited.last().expect("the challenge's own URL was asked for");
    let place = resolve(base, location.unwrap_or_default())?;
    if !matches!(place.port, 80 | 443) {
        return Err(RedirectFault::Port(place));
    }
    if visited.contains(&place) {
        return Err(RedirectFault::Loop(place));
    }
    if visited.len() > MOST {
        return Err(RedirectFault::TooMany);
    }
    Ok(place)
}

/// A URI reference against the URL that it was found at (RFC 3986 section 5.2, as far as redirects need).
fn resolve(base: &Place, location: &[u8]) -> Result<Place, RedirectFault> {
    let malformed =
        || RedirectFault::Malformed(String::from_utf8_lossy(&location[..location.len().min(200)]).into());
    let text = std::str::from_utf8(location).map_err(|_| malformed())?.trim();
    let text = text.split('#').next().unwrap_or_default();
    if text.is_empty() || text.len() > LONGEST || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(malformed());
    }
    if let Some(scheme) = scheme(text) {
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            other => return Err(RedirectFault::Scheme(other.to_owned())),
        };
        return absolute(scheme, text).ok_or_else(malformed);
    }
    if let Some(rest) = text.strip_prefix("//") {
        let scheme = if base.scheme == Scheme::Https { "https" } else { "http" };
        return absolute(base.scheme, &format!("{scheme}://{rest}")).ok_or_else(malformed);
    }
    let bare = base.path.split('?').next().unwrap_or_default();
    let path = match text.as_bytes()[0] {
        b'/' => text.to_owned(),
        b'?' => format!("{bare}{text}"),
        _ => format!("{}/{text}", bare.rsplit_once('/').map_or("", |(folder, _)| folder)),
    };
    Ok(Place { path: without_dots(&path), ..base.clone() })
}

/// What stands before the first colon, where that is a scheme (RFC 3986 section 3.1).
fn scheme(text: &str) -> Option<&str> {
    let (scheme, _) = text.split_once(':')?;
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    is_scheme.then_some(scheme)
}

fn absolute(scheme: Scheme, text: &str) -> Option<Place> {
    let (_, rest) = text.split_once(':')?;
    if !rest.starts_with("//") {
        return None;
    }
    let uri: Uri = text.parse().ok()?;
    let host = host(uri.host()?)?;
    let port = match uri.port() {
        Some(port) => port.as_u16(),
        None if uri.authority()?.as_str().ends_with(':') => scheme.port(),
        None if has_port(uri.authority()?.as_str()) => return None,
        None => scheme.port(),
    };
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    Some(Place { scheme, host, port, path: without_dots(&path) })
}

/// A host in lower case, an IPv6 address without its brackets.
fn host(text: &str) -> Option<String> {
    if let Some(rest) = text.strip_prefix('[') {
        let address: Ipv6Addr = rest.strip_suffix(']')?.parse().ok()?;
        return Some(address.to_string());
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    is_name.then(|| name.to_ascii_lowercase())
}

/// Whether an authority names a port, be it one that there is not.
fn has_port(authority: &str) -> bool {
    let host_and_port = authority.rsplit_once('@').map_or(authority, |(_, rest)| rest);
    host_and_port.rsplit_once(']').map_or(host_and_port, |(_, rest)| rest).contains(':')
}

/// A path without its `.` and `..` (RFC 3986 section 5.2.4).
fn without_dots(path_and_query: &str) -> String {
    let (path, query) = match path_and_query.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path_and_query, None),
    };
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if is_last {
                    kept.push("");
                }
            }
            segment => kept.push(segment),
        }
    }
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("/{}{query}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Place {
        Place {
            scheme: Scheme::Http,
            host: "a.example".into(),
            port: 80,
            path: "/.well-known/acme-challenge/tok".into(),
        }
    }

    fn led(location: &str) -> String {
        match next(&[base()], Some(location.as_bytes())) {
            Ok(place) => place.to_string(),
            Err(RedirectFault::Port(place)) => format!("port {}", place.port),
            Err(RedirectFault::Scheme(scheme)) => format!("scheme {scheme}"),
            Err(RedirectFault::Malformed(_)) => "malformed".into(),
            Err(RedirectFault::Loop(_)) => "loop".into(),
            Err(other) => format!("{other:?}"),
        }
    }

    #[test]
    fn where_locations_lead() {
        for (location, expected) in [
            ("https://A.example./x", "https://a.example/x"),
            ("https://a.example", "https://a.example/"),
            ("https://a.example?q=1", "https://a.example/?q=1"),
            ("HTTPS://a.example/x#part", "https://a.example/x"),
            ("//b.example/x", "http://b.example/x"),
            ("/x?y", "http://a.example/x?y"),
            ("?y", "http://a.example/.well-known/acme-challenge/tok?y"),
            ("x", "http://a.example/.well-known/acme-challenge/x"),
            ("../../x", "http://a.example/x"),
            ("/a/./b/..", "http://a.example/a/"),
            ("http://a.example:443/x", "http://a.example:443/x"),
            ("https://user:secret@b.example/x", "https://b.example/x"),
            ("https://[2001:db8::1]/x", "https://[2001:db8::1]/x"),
            ("http://a.example.well-known/x", "http://a.example.well-known/x"),
            ("https://a.example:/x", "https://a.example/x"),
            ("https://a.example:8443/x", "port 8443"),
            ("https://a.example:99999/x", "malformed"),
            ("ftp://a.example/x", "scheme ftp"),
            ("javascript:alert(1)", "scheme javascript"),
            ("https:///x", "malformed"),
            ("https:x", "malformed"),
            ("http:@0[]", "malformed"),
            ("http://[::1/x", "malformed"),
            ("", "malformed"),
            ("http://a b/", "malformed"),
            ("/.well-known/acme-challenge/tok", "loop"),
        ] {
            assert_eq!(led(location), expected, "{location}");
        }
        assert_eq!(next(&[base()], None), Err(RedirectFault::Malformed(String::new())));
        assert!(matches!(next(&[base()], Some(b"/\xff")), Err(RedirectFault::Malformed(_))));
        let long = format!("/{}", "x".repeat(LONGEST));
        assert_eq!(led(&long), "malformed");
    }

    #[test]
    fn ten_are_followed_and_no_more() {
        let place = |n: usize| Place { path: format!("/{n}"), ..base() };
        let ten: Vec<_> = (0..MOST).map(place).collect();
        assert!(next(&ten, Some(b"/next")).is_ok());
        let eleven: Vec<_> = (0..=MOST).map(place).collect();
        assert_eq!(next(&eleven, Some(b"/next")), Err(RedirectFault::TooMany));
    }

    #[test]
    fn which_statuses_redirect() {
        let redirects: Vec<u16> =
            (300..400).filter(|n| is_redirect(StatusCode::from_u16(*n).unwrap())).collect();
        assert_eq!(redirects, [301, 302, 303, 307, 308]);
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_followed_is_a_url_that_is_followed(location in "(https?:)?[/.?#:a-z0-9@\\[\\]-]{0,40}") {
            if let Ok(place) = next(&[base()], Some(location.as_bytes())) {
                proptest::prop_assert!(matches!(place.port, 80 | 443));
                proptest::prop_assert!(place.path.starts_with('/'));
                let again = next(&[base()], Some(place.to_string().as_bytes()));
                proptest::prop_assert_eq!(again.ok(), Some(place));
            }
        }
    }
}
