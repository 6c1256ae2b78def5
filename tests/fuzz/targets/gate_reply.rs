//! A request on port 80: `METHOD target VERSION` and header fields, a line each.

#![no_main]

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version};
use libfuzzer_sys::fuzz_target;
use wicketgate::challenge::{ChallengeGuard, ChallengeTable, Pending, Purpose};
use wicketgate::config::{Redirect, RedirectHosts};
use wicketgate::gate::Policy;
use wicketgate::gate::reply::{CHALLENGE_PATH, Reply, Request, reply};
use wicketgate::hostname::Identifier;

const TOKEN: &str = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA";
const KEY_AUTHORIZATION: &str =
    "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA.nP1qzpXGymHBrUEepNY9HCsQk7K8KhOypzEt62jcerQ";
/// The redirects that there are: to https, of a host of ours, and nowhere else.
const OURS: [&str; 3] = ["https://a.test/", "https://192.0.2.1/", "https://[2001:db8::1]/"];

struct Gate {
    table: ChallengeTable,
    policy: Policy,
    served: BTreeSet<Identifier>,
    _guard: ChallengeGuard,
}

static GATE: LazyLock<Gate> = LazyLock::new(|| {
    let ours: BTreeSet<Identifier> =
        ["a.test", "192.0.2.1", "2001:db8::1"].iter().map(|name| name.parse().unwrap()).collect();
    let table = ChallengeTable::new();
    let pending = Pending {
        key_authorization: Bytes::from_static(KEY_AUTHORIZATION.as_bytes()),
        hosts: Arc::new(["a.test".parse().unwrap()].into()),
        purpose: Purpose::Order,
    };
    let guard = table.put(TOKEN.parse().unwrap(), pending);
    let redirect = Redirect {
        status: StatusCode::PERMANENT_REDIRECT,
        port: 443,
        hosts: RedirectHosts::Configured(ours.clone()),
    };
    let policy = Policy { redirect, match_host: true, trusted_proxies: Vec::new() };
    Gate { table, policy, served: ours, _guard: guard }
});

fuzz_target!(|bytes: &[u8]| {
    let Some((method, version, target, headers)) = request(bytes) else { return };
    let request = Request { method: &method, version, target: &target, headers: &headers };
    let decided = reply(&request, &GATE.table, &GATE.policy, &GATE.served);
    if let Reply::NoChallenge { .. } | Reply::Challenge { .. } = decided {
        assert!(
            target.path().starts_with(CHALLENGE_PATH) && (method == Method::GET || method == Method::HEAD)
        );
    }
    let mut fields = HeaderMap::new();
    let (status, body) = decided.render(&mut fields);
    // Nothing but what is listed here ever leaves.
    let known = [ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, LOCATION];
    assert!(fields.keys().all(|name| known.contains(name)));
    match status.as_u16() {
        200 => assert_eq!(body, KEY_AUTHORIZATION),
        308 => {
            let location = fields[LOCATION].to_str().unwrap();
            assert!(location.bytes().all(|byte| byte.is_ascii_graphic()));
            let rest = OURS.iter().find_map(|start| location.strip_prefix(start)).expect("one of ours");
            let path_and_query = target.path_and_query().unwrap().as_str();
            assert_eq!(rest, path_and_query.strip_prefix('/').unwrap_or(path_and_query));
            assert!(!target.path().starts_with(&format!("{CHALLENGE_PATH}/")));
            assert!(body.is_empty());
        }
        400 | 404 | 405 | 421 => assert!(body.starts_with(status.as_str().as_bytes())),
        other => panic!("{other}"),
    }
});

fn request(bytes: &[u8]) -> Option<(Method, Version, Uri, HeaderMap)> {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let mut words = lines.next()?.split(|byte| *byte == b' ');
    let method = Method::from_bytes(words.next()?).ok()?;
    let target = Uri::try_from(words.next()?).ok()?;
    let version = if words.next()? == b"HTTP/1.0" { Version::HTTP_10 } else { Version::HTTP_11 };
    let mut headers = HeaderMap::new();
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        headers.append(name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?);
    }
    Some((method, version, target, headers))
}
