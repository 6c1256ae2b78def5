//! The header fields of a request on port 443, a line each, after a line with the peer's address: who the client is, and
//! what an application is told.

#![no_main]

use std::net::IpAddr;
use std::sync::LazyLock;

use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, FORWARDED, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};
use ipnet::IpNet;
use libfuzzer_sys::fuzz_target;
use wicketgate::front::headers::{
    Provenance, forward_request, forward_response, forward_trailers, wanted_upgrade,
};
use wicketgate::net::client::client_address;

static TRUSTED: LazyLock<Vec<IpNet>> =
    LazyLock::new(|| ["10.0.0.0/8", "2001:db8::/32"].iter().map(|net| net.parse().unwrap()).collect());

fuzz_target!(|bytes: &[u8]| {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let first = lines.next().and_then(|line| std::str::from_utf8(line).ok()).unwrap_or_default();
    let peer: IpAddr = first.parse().unwrap_or(IpAddr::from([10, 0, 0, 1]));
    let Some(headers) = fields(lines) else { return };

    let claimed = headers.get_all("x-forwarded-for").iter().map(HeaderValue::as_bytes);
    let client = client_address(peer, claimed, &TRUSTED);
    assert_eq!(client, client.to_canonical());
    if !TRUSTED.iter().any(|net| net.contains(&peer.to_canonical())) {
        assert_eq!(client, peer.to_canonical());
    }

    let host = headers.get(HOST).cloned().unwrap_or(HeaderValue::from_static("a.test"));
    let provenance = Provenance::new(client, &host);
    for version in [Version::HTTP_11, Version::HTTP_2] {
        for has_body in [false, true] {
            let mut sent = headers.clone();
            let upgrade = wanted_upgrade(version, &headers, has_body);
            assert!(upgrade.is_none() || !has_body && version == Version::HTTP_11);
            forward_request(&mut sent, version, has_body, upgrade.clone());
            provenance.insert_into(&mut sent);
            check_request(&sent, &headers, &provenance, upgrade.as_ref(), version, has_body);
        }
        for status in [StatusCode::SWITCHING_PROTOCOLS, StatusCode::OK, StatusCode::NO_CONTENT] {
            let mut answered = headers.clone();
            forward_response(&mut answered, status, version);
            assert!(!answered.contains_key(TRANSFER_ENCODING) && !answered.contains_key("keep-alive"));
            assert!(answered.contains_key(UPGRADE) == answered.contains_key(CONNECTION));
            assert!(version != Version::HTTP_2 || !answered.contains_key(CONNECTION));
        }
    }
    let mut trailers = headers.clone();
    forward_trailers(&mut trailers);
    assert!(!trailers.keys().any(is_claim));
    for name in [CONTENT_LENGTH, HOST, TRANSFER_ENCODING, CONNECTION] {
        assert!(!trailers.contains_key(name));
    }
});

/// What reaches the application about the client is what we said, in each spelling that CGI folds into the same variable.
fn check_request(
    sent: &HeaderMap,
    came: &HeaderMap,
    provenance: &Provenance,
    upgrade: Option<&HeaderValue>,
    version: Version,
    has_body: bool,
) {
    for (name, value) in [
        (HOST, &provenance.host),
        (HeaderName::from_static("x-forwarded-for"), &provenance.client),
        (HeaderName::from_static("x-forwarded-host"), &provenance.host),
        (HeaderName::from_static("x-forwarded-proto"), &HeaderValue::from_static("https")),
        (FORWARDED, &provenance.forwarded),
    ] {
        assert_eq!(sent.get_all(&name).iter().collect::<Vec<_>>(), [value], "{name}");
    }
    let ours = ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "forwarded"];
    assert!(!sent.keys().any(|name| is_claim(name) && !ours.contains(&name.as_str())));
    let named: Vec<_> = sent.get_all(CONNECTION).iter().collect();
    assert!(named.is_empty() || named == ["upgrade"] || named == ["te"], "{named:?}");
    assert_eq!(sent.get(UPGRADE), upgrade);
    assert!(sent.get(TE).is_none_or(|te| te == "trailers"));
    assert!(!sent.contains_key(EXPECT) && !sent.contains_key("proxy-authorization"));
    // One way of telling where the body ends.
    let is_chunked = sent.contains_key(TRANSFER_ENCODING);
    assert!(!(is_chunked && sent.contains_key(CONTENT_LENGTH)));
    assert!(!has_body || is_chunked || sent.contains_key(CONTENT_LENGTH));
    assert!(has_body || !is_chunked);
    assert!(version != Version::HTTP_2 || sent.get_all("cookie").iter().count() <= 1);
    // Nothing is made up besides.
    let added = [CONNECTION, UPGRADE, TE, TRANSFER_ENCODING, HOST];
    assert!(
        sent.keys()
            .all(|name| came.contains_key(name) || added.contains(name) || ours.contains(&name.as_str()))
    );
}

fn is_claim(name: &HeaderName) -> bool {
    let name = name.as_str().replace('_', "-");
    name.starts_with("x-forwarded") || ["x-real-ip", "forwarded", "proxy"].contains(&name.as_str())
}

fn fields<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        headers.append(name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?);
    }
    Some(headers)
}
