//! What a header section may carry across the proxy, and what it may not.
//!
//! Fields that describe one hop end here (RFC 9110 section 7.6.1), and everything that tells an
//! application who the client is comes from us alone: whatever of that kind came in is dropped, in any
//! spelling that a gateway interface would fold into the same variable (`X_Forwarded_For`).

use std::fmt::Write;
use std::net::IpAddr;

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::{StatusCode, Version};

static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
static PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
pub(super) static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static HTTPS: HeaderValue = HeaderValue::from_static("https");

/// What the upstream is told about the client.
#[derive(Debug, Clone)]
pub struct Provenance {
    /// The client's address, for `X-Forwarded-For`.
    pub client: HeaderValue,
    /// `Host` as received; for HTTP/2 its `:authority`.
    pub host: HeaderValue,
    /// The `Forwarded` element for both.
    pub forwarded: HeaderValue,
    /// All of it as lines of a header, `Host` first (RFC 9110 section 7.2).
    pub lines: Bytes,
}

impl Provenance {
    /// For a client's address and the host that it asked for.
    pub fn new(client: IpAddr, host: &HeaderValue) -> Self {
        let client = client.to_canonical();
        // An address is made of digits, letters, dots and colons.
        let value = HeaderValue::try_from(client.to_string()).expect("addresses are visible ASCII");
        Self::of(value, copied(host), forwarded(client, host))
    }

    /// The same client asking for another host.
    pub fn with_host(&self, client: IpAddr, host: &HeaderValue) -> Self {
        Self::of(self.client.clone(), copied(host), forwarded(client.to_canonical(), host))
    }

    fn of(client: HeaderValue, host: HeaderValue, forwarded: HeaderValue) -> Self {
        let mut lines = Vec::with_capacity(160 + 2 * host.len() + client.len() + forwarded.len());
        for (name, value) in fields(&client, &host, &forwarded) {
            write_field(name, value, &mut lines);
        }
        Self { client, host, forwarded, lines: lines.into() }
    }

    /// Puts it into a header, in place of what stands there.
    pub fn insert_into(&self, headers: &mut HeaderMap) {
        for (name, value) in fields(&self.client, &self.host, &self.forwarded) {
            headers.insert(name, value.clone());
        }
    }
}

fn fields<'a>(
    client: &'a HeaderValue,
    host: &'a HeaderValue,
    forwarded: &'a HeaderValue,
) -> [(&'static HeaderName, &'a HeaderValue); 5] {
    [
        (&HOST, host),
        (&X_FORWARDED_FOR, client),
        (&X_FORWARDED_PROTO, &HTTPS),
        (&X_FORWARDED_HOST, host),
        (&FORWARDED, forwarded),
    ]
}

/// `name: value` and the line's end (RFC 9112 section 5).
pub(super) fn write_field(name: &HeaderName, value: &HeaderValue, into: &mut Vec<u8>) {
    let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
    into.reserve(name.len() + value.len() + 4);
    into.extend_from_slice(name);
    into.extend_from_slice(b": ");
    into.extend_from_slice(value);
    into.extend_from_slice(b"\r\n");
}

/// A value of its own: one that was received holds on to the buffer that it arrived in.
fn copied(value: &HeaderValue) -> HeaderValue {
    HeaderValue::from_bytes(value.as_bytes()).unwrap_or_else(|_| value.clone())
}

/// `for=192.0.2.1;host=example.net;proto=https` (RFC 7239 section 4); what is no token is quoted, and
/// so is an IPv6 address, in brackets (section 6.1).
fn forwarded(client: IpAddr, host: &HeaderValue) -> HeaderValue {
    let mut value = String::with_capacity(48 + host.len());
    let written = match client {
        IpAddr::V4(ip) => write!(value, "for={ip}"),
        IpAddr::V6(ip) => write!(value, "for=\"[{ip}]\""),
    };
    written.expect("a String takes everything");
    if let Ok(host) = host.to_str()
        && !host.is_empty()
    {
        value.push_str(";host=");
        if host.bytes().all(is_token_byte) {
            value.push_str(host);
        } else {
            value.push('"');
            for c in host.chars() {
                if matches!(c, '"' | '\\') {
                    value.push('\\');
                }
                value.push(c);
            }
            value.push('"');
        }
    }
    value.push_str(";proto=https");
    HeaderValue::try_from(value).expect("made of visible ASCII")
}

/// RFC 9110 section 5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Makes a client's request header fit for the upstream, which is told of the client by a [`Provenance`].
///
/// `upgrade` is the protocol to switch to, from [`wanted_upgrade`]. `version` is the client's.
pub fn forward_request(
    headers: &mut HeaderMap,
    version: Version,
    has_body: bool,
    upgrade: Option<HeaderValue>,
) {
    let trailers = accepts_trailers(headers);
    // EXPECT: answered by us when the body is asked for; an upstream that never sees it can't wait for it.
    remove(headers, |name| is_hop_by_hop(name) || is_claim(name) || *name == EXPECT);
    if version == Version::HTTP_2 {
        join_cookies(headers);
        // Lines that differ never get here; equal ones would still be refused by many.
        if let Some(length) = headers.get(CONTENT_LENGTH).cloned() {
            headers.insert(CONTENT_LENGTH, length);
        }
    }
    // HTTP/2 lets an empty one through.
    if headers.get(CONTENT_LENGTH).is_some_and(|length| !length.as_bytes().iter().any(u8::is_ascii_digit)) {
        headers.remove(CONTENT_LENGTH);
    }
    if has_body && !headers.contains_key(CONTENT_LENGTH) {
        // Said aloud, because a GET without either would be taken to have no body at all.
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if let Some(protocol) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol);
    } else if trailers {
        // RFC 9110 section 10.1.4: TE has to be named in Connection.
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Makes an upstream's response header fit for the client.
pub fn forward_response(headers: &mut HeaderMap, status: StatusCode, version: Version) {
    let upgrade = match status {
        StatusCode::SWITCHING_PROTOCOLS | StatusCode::UPGRADE_REQUIRED if version == Version::HTTP_11 => {
            headers.remove(UPGRADE)
        }
        _ => None,
    };
    // The length of a body that is framed by chunks is not told by anything else (RFC 9112 section 6.3).
    if headers.contains_key(TRANSFER_ENCODING) || status == StatusCode::NO_CONTENT {
        headers.remove(CONTENT_LENGTH);
    }
    remove(headers, is_hop_by_hop);
    if let Some(protocol) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol);
    }
}

/// Makes trailers fit for the other side: an application may merge them into the header, so what may not
/// stand there may not come this way either (RFC 9110 section 6.5.1).
pub fn forward_trailers(trailers: &mut HeaderMap) {
    remove(trailers, |name| is_hop_by_hop(name) || is_claim(name) || [CONTENT_LENGTH, HOST].contains(name));
}

/// The protocol that a request asks to switch to, where it is one that may be passed on: HTTP/1.1 with
/// `Upgrade` named in `Connection` (RFC 9110 section 7.8), without a body, and not to HTTP/2 in the
/// clear, which would take later requests past the front.
pub fn wanted_upgrade(version: Version, headers: &HeaderMap, has_body: bool) -> Option<HeaderValue> {
    let protocol = headers.get(UPGRADE)?;
    let single = headers.get_all(UPGRADE).iter().nth(1).is_none();
    let is_h2 = tokens(protocol).any(|token| {
        token.eq_ignore_ascii_case(b"h2c") || token.len() >= 4 && token[..4].eq_ignore_ascii_case(b"http")
    });
    let named = headers
        .get_all(CONNECTION)
        .iter()
        .any(|value| tokens(value).any(|token| token.eq_ignore_ascii_case(b"upgrade")));
    let passes = version == Version::HTTP_11 && single && named && !is_h2 && !has_body;
    passes.then(|| protocol.clone())
}

/// Removes fields, and those that `Connection` names (RFC 9110 section 7.6.1). Mostly there is nothing to remove.
fn remove(headers: &mut HeaderMap, is_unwanted: impl Fn(&HeaderName) -> bool) {
    if !headers.keys().any(&is_unwanted) {
        return;
    }
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(tokens)
        // The usual one, which goes anyway.
        .filter(|token| !token.eq_ignore_ascii_case(b"keep-alive"))
        .filter_map(|token| HeaderName::from_bytes(token).ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    while let Some(name) = headers.keys().find(|name| is_unwanted(name)).cloned() {
        headers.remove(name);
    }
}

/// About one hop: RFC 9110 section 7.6.1, and what its predecessors listed.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    // Nearly all names are told apart by their first letter.
    match name.as_str().as_bytes().first() {
        Some(b'c') => *name == CONNECTION,
        Some(b'k') => *name == KEEP_ALIVE,
        Some(b'p') => {
            *name == PROXY_CONNECTION || *name == PROXY_AUTHENTICATE || *name == PROXY_AUTHORIZATION
        }
        Some(b't') => *name == TE || *name == TRANSFER_ENCODING,
        Some(b'u') => *name == UPGRADE,
        _ => false,
    }
}

/// Something by which a client could pretend to be another one, or to have come another way.
fn is_claim(name: &HeaderName) -> bool {
    let name = name.as_str().as_bytes();
    match name.first() {
        Some(b'x') => starts_with(name, b"x-forwarded") || equals(name, b"x-real-ip"),
        Some(b'f') => name == b"forwarded",
        // CGI would make it HTTP_PROXY, which many HTTP clients obey (CVE-2016-5385).
        Some(b'p') => name == b"proxy",
        // Read as framing by whoever folds the two spellings (nginx drops such names for this reason).
        Some(b'c') => name == b"content_length",
        Some(b't') => name == b"transfer_encoding",
        _ => false,
    }
}

/// Equal once `_` is read as `-`, as CGI and its heirs do.
fn equals(name: &[u8], wanted: &[u8]) -> bool {
    name.len() == wanted.len() && starts_with(name, wanted)
}

fn starts_with(name: &[u8], wanted: &[u8]) -> bool {
    name.len() >= wanted.len()
        && name.iter().zip(wanted).all(|(&have, &want)| have == want || (have == b'_' && want == b'-'))
}

/// HTTP/2 may split the cookies over many fields; HTTP/1.1 knows one (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(COOKIE).iter();
    let (Some(first), Some(second)) = (cookies.next(), cookies.next()) else { return };
    let mut joined = first.as_bytes().to_vec();
    for cookie in std::iter::once(second).chain(cookies) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(cookie.as_bytes());
    }
    if let Ok(joined) = HeaderValue::from_maybe_shared(Bytes::from(joined)) {
        headers.insert(COOKIE, joined);
    }
}

/// Whether the sender reads trailers (RFC 9110 section 10.1.4).
fn accepts_trailers(headers: &HeaderMap) -> bool {
    headers.get_all(TE).iter().any(|value| tokens(value).any(|token| token.eq_ignore_ascii_case(b"trailers")))
}

/// The elements of a comma-separated list (RFC 9110 section 5.6.1).
pub(super) fn tokens(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value.as_bytes().split(|&b| b == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(
                HeaderName::try_from(*name).unwrap(),
                HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            );
        }
        headers
    }

    /// Sorted `name: value` lines without those that every request gets.
    fn lines(headers: &HeaderMap) -> Vec<String> {
        let mut lines: Vec<_> = headers
            .iter()
            .filter(|(name, _)| {
                !["host", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded"]
                    .contains(&name.as_str())
            })
            .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
            .collect();
        lines.sort();
        lines
    }

    fn provenance() -> Provenance {
        Provenance::new("192.0.2.1".parse().unwrap(), &HeaderValue::from_static("example.net"))
    }

    /// A header as the application gets it.
    fn forward(headers: &mut HeaderMap, version: Version, has_body: bool, upgrade: Option<HeaderValue>) {
        forward_request(headers, version, has_body, upgrade);
        provenance().insert_into(headers);
    }

    #[test]
    fn what_is_told_of_a_client_as_lines() {
        let text = "host: example.net\r\nx-forwarded-for: 192.0.2.1\r\nx-forwarded-proto: https\r\n\
                    x-forwarded-host: example.net\r\nforwarded: for=192.0.2.1;host=example.net;proto=https\r\n";
        assert_eq!(provenance().lines, text);
    }

    #[test]
    fn hop_by_hop_fields_end_here() {
        for (fields, kept) in [
            (&[("accept", "*/*"), ("connection", "close")][..], &["accept: */*"][..]),
            (&[("connection", "X-Secret, keep-alive"), ("x-secret", "1"), ("x-other", "2")], &["x-other: 2"]),
            (&[("connection", "a"), ("connection", "b,,c"), ("a", "1"), ("b", "2"), ("c", "3")], &[]),
            (&[("keep-alive", "timeout=5"), ("proxy-connection", "close")], &[]),
            (&[("proxy-authorization", "Basic x"), ("proxy-authenticate", "Basic")], &[]),
            (
                &[("transfer-encoding", "chunked"), ("upgrade", "websocket"), ("trailer", "x")],
                &["trailer: x"],
            ),
            (&[("te", "gzip")], &[]),
            (&[("te", "gzip, Trailers"), ("connection", "te")], &["connection: te", "te: trailers"]),
            (&[("connection", "host, x-forwarded-for, forwarded")], &[]),
            (&[("connection", "@, bad name, ok"), ("ok", "1")], &[]),
            (&[("expect", "100-continue"), ("content-length", "5")], &["content-length: 5"]),
        ] {
            let mut headers = map(fields);
            forward(&mut headers, Version::HTTP_11, false, None);
            assert_eq!(lines(&headers), kept, "{fields:?}");
            assert_eq!(headers[HOST], "example.net", "{fields:?}");
            assert_eq!(headers["x-forwarded-for"], "192.0.2.1", "{fields:?}");
        }
    }

    #[test]
    fn claims_from_outside_are_dropped() {
        let mut headers = map(&[
            ("forwarded", "for=6.6.6.6"),
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-for", "7.7.7.7"),
            ("x_forwarded_for", "6.6.6.6"),
            ("x-forwarded_host", "evil.test"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-port", "80"),
            ("x-forwarded-ssl", "off"),
            ("x-real-ip", "6.6.6.6"),
            ("x_real-ip", "6.6.6.6"),
            ("proxy", "evil.test:3128"),
            ("x-requested-with", "kept"),
            ("from", "kept"),
        ]);
        forward(&mut headers, Version::HTTP_11, false, None);
        assert_eq!(lines(&headers), ["from: kept", "x-requested-with: kept"]);
        for (name, value) in [
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "example.net"),
            ("forwarded", "for=192.0.2.1;host=example.net;proto=https"),
        ] {
            assert_eq!(headers.get_all(name).iter().collect::<Vec<_>>(), [value], "{name}");
        }
    }

    #[test]
    fn forwarded_is_quoted_where_it_must_be() {
        for (client, host, wanted) in [
            ("192.0.2.1", "example.net", "for=192.0.2.1;host=example.net;proto=https"),
            ("::ffff:192.0.2.1", "a.test", "for=192.0.2.1;host=a.test;proto=https"),
            ("2001:db8::1", "a.test:8443", "for=\"[2001:db8::1]\";host=\"a.test:8443\";proto=https"),
            ("192.0.2.1", "[2001:db8::2]", "for=192.0.2.1;host=\"[2001:db8::2]\";proto=https"),
            ("192.0.2.1", "", "for=192.0.2.1;proto=https"),
            ("192.0.2.1", "a\"b\\c", "for=192.0.2.1;host=\"a\\\"b\\\\c\";proto=https"),
        ] {
            let provenance = Provenance::new(client.parse().unwrap(), &HeaderValue::try_from(host).unwrap());
            assert_eq!(provenance.forwarded, wanted);
            let other = provenance.with_host(client.parse().unwrap(), &HeaderValue::from_static("other"));
            assert!(other.forwarded.to_str().unwrap().contains(";host=other;"));
        }
    }

    #[test]
    fn upgrades_that_may_pass() {
        let websocket = [("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")];
        let wanted =
            |version, fields: &[(&str, &str)], has_body| wanted_upgrade(version, &map(fields), has_body);
        assert_eq!(wanted(Version::HTTP_11, &websocket, false).unwrap(), "websocket");
        assert!(wanted(Version::HTTP_10, &websocket, false).is_none());
        assert!(wanted(Version::HTTP_2, &websocket, false).is_none());
        assert!(wanted(Version::HTTP_11, &websocket, true).is_none());
        for fields in [
            &[("upgrade", "websocket")][..],
            &[("upgrade", "websocket"), ("connection", "close")],
            &[("upgrade", "h2c"), ("connection", "upgrade")],
            &[("upgrade", "websocket, H2C"), ("connection", "upgrade")],
            &[("upgrade", "HTTP/2.0"), ("connection", "upgrade")],
            &[("upgrade", "websocket"), ("upgrade", "h2c"), ("connection", "upgrade")],
        ] {
            assert!(wanted(Version::HTTP_11, fields, false).is_none(), "{fields:?}");
        }
    }

    #[test]
    fn an_upgrade_is_announced_both_ways() {
        let mut headers = map(&[("connection", "upgrade, x-y"), ("upgrade", "websocket"), ("x-y", "1")]);
        let upgrade = Some(HeaderValue::from_static("websocket"));
        forward(&mut headers, Version::HTTP_11, false, upgrade);
        assert_eq!(lines(&headers), ["connection: upgrade", "upgrade: websocket"]);
        forward_response(&mut headers, StatusCode::SWITCHING_PROTOCOLS, Version::HTTP_11);
        assert_eq!(lines(&headers), ["connection: upgrade", "upgrade: websocket"]);
        let mut other = headers.clone();
        forward_response(&mut other, StatusCode::UPGRADE_REQUIRED, Version::HTTP_11);
        assert_eq!(lines(&other), ["connection: upgrade", "upgrade: websocket"]);
        for (status, version) in [(200, Version::HTTP_11), (426, Version::HTTP_2), (101, Version::HTTP_10)] {
            let mut other = headers.clone();
            forward_response(&mut other, StatusCode::from_u16(status).unwrap(), version);
            assert_eq!(lines(&other), [""; 0], "{status} {version:?}");
        }
    }

    #[test]
    fn cookies_are_joined_for_http_1() {
        let fields = [("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")];
        let mut headers = map(&fields);
        forward(&mut headers, Version::HTTP_2, false, None);
        assert_eq!(lines(&headers), ["cookie: a=1; b=2; c=3"]);
        let mut headers = map(&fields[..1]);
        forward(&mut headers, Version::HTTP_2, false, None);
        assert_eq!(lines(&headers), ["cookie: a=1"]);
    }

    #[test]
    fn a_body_is_framed_in_one_way() {
        for (version, fields, framed) in [
            (Version::HTTP_11, &[("transfer-encoding", "chunked")][..], "transfer-encoding: chunked"),
            (Version::HTTP_11, &[("content-length", "5")], "content-length: 5"),
            (Version::HTTP_2, &[], "transfer-encoding: chunked"),
            (Version::HTTP_2, &[("content-length", "")], "transfer-encoding: chunked"),
            (Version::HTTP_2, &[("content-length", "5"), ("content-length", "5")], "content-length: 5"),
            (
                Version::HTTP_11,
                &[("connection", "content-length"), ("content-length", "5")],
                "transfer-encoding: chunked",
            ),
        ] {
            let mut headers = map(fields);
            forward(&mut headers, version, true, None);
            assert_eq!(lines(&headers), [framed], "{version:?} {fields:?}");
        }
    }

    fn field() -> impl Strategy<Value = (String, String)> {
        let name = prop_oneof![
            prop::sample::select(vec![
                "connection",
                "keep-alive",
                "te",
                "transfer-encoding",
                "upgrade",
                "forwarded",
                "x-forwarded-for",
                "x_forwarded_proto",
                "x-real-ip",
                "proxy",
                "host",
                "accept",
            ])
            .prop_map(str::to_owned),
            "[a-z]{1,3}",
        ];
        let value = prop_oneof![
            "[a-z]{1,3}(, ?[a-z]{1,3}){0,3}",
            prop::sample::select(vec![
                "host",
                "x-forwarded-for, te",
                "trailers",
                "upgrade",
                "content-length"
            ])
            .prop_map(str::to_owned),
        ];
        (name, value)
    }

    proptest! {
        #[test]
        fn nothing_of_one_hop_and_no_claim_survives(fields in prop::collection::vec(field(), 0..20)) {
            let mut headers = HeaderMap::new();
            for (name, value) in &fields {
                headers.append(HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value).unwrap());
            }
            let before = headers.clone();
            let named: Vec<String> = before
                .get_all(CONNECTION)
                .iter()
                .flat_map(|v| v.to_str().unwrap().split(',').map(|t| t.trim().to_owned()))
                .collect();
            forward(&mut headers, Version::HTTP_11, false, None);
            let ours = ["host", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded"];
            for name in ours {
                prop_assert_eq!(headers.get_all(name).iter().count(), 1);
            }
            prop_assert_eq!(&headers[HOST], "example.net");
            let trailers = accepts_trailers(&before);
            for (name, value) in &headers {
                let name = name.as_str();
                if ours.contains(&name) {
                    continue;
                }
                if trailers && (name == "te" || name == "connection") {
                    prop_assert!(value == "trailers" || value == "te");
                    continue;
                }
                prop_assert!(!named.iter().any(|n| n == name), "{name} was named in Connection");
                prop_assert!(
                    !["connection", "keep-alive", "te", "transfer-encoding", "upgrade", "proxy"].contains(&name)
                );
                prop_assert!(!name.replace('_', "-").starts_with("x-forwarded"));
            }
            for (name, value) in &before {
                let plain = name.as_str().len() <= 3 && name != TE;
                if plain && !named.iter().any(|n| n == name.as_str()) {
                    prop_assert!(headers.get_all(name).iter().any(|v| v == value), "{name} was lost");
                }
            }
        }
    }

    #[test]
    fn a_length_beside_chunks_is_not_passed_on() {
        let mut both = HeaderMap::new();
        both.insert(CONTENT_LENGTH, HeaderValue::from_static("2"));
        both.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        forward_response(&mut both, StatusCode::OK, Version::HTTP_11);
        assert!(both.is_empty(), "{both:?}");
        let mut empty = HeaderMap::new();
        empty.insert(CONTENT_LENGTH, HeaderValue::from_static("5"));
        forward_response(&mut empty, StatusCode::NO_CONTENT, Version::HTTP_2);
        assert!(empty.is_empty(), "{empty:?}");
        let mut plain = HeaderMap::new();
        plain.insert(CONTENT_LENGTH, HeaderValue::from_static("5"));
        forward_response(&mut plain, StatusCode::OK, Version::HTTP_2);
        assert_eq!(plain.len(), 1);
    }

    #[test]
    fn trailers_carry_no_claims_and_no_framing() {
        let mut trailers = HeaderMap::new();
        for name in [
            "x-forwarded-for",
            "x_real_ip",
            "forwarded",
            "connection",
            "te",
            "transfer-encoding",
            "content-length",
            "host",
            "content_length",
        ] {
            trailers.insert(HeaderName::from_static(name), HeaderValue::from_static("6"));
        }
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        forward_trailers(&mut trailers);
        assert_eq!(trailers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["grpc-status"]);
    }
}
