use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::challenge::{ChallengeGuard, Pending, Purpose};
use crate::config::Redirect;

const TOKEN: &str = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA";
const KEY_AUTHORIZATION: &str =
    "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA.nP1qzpXGymHBrUEepNY9HCsQk7K8KhOypzEt62jcerQ";

const CONFIGURED: [&str; 4] = ["a.net", "b.net", "2001:db8::1", "192.0.2.1"];

fn identifiers(names: &[&str]) -> BTreeSet<Identifier> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

/// A challenge pending for `a.net` and an address; a.net, b.net and two addresses configured; a
/// certificate served for b.net alone.
struct Gate {
    table: ChallengeTable,
    policy: Policy,
    served: BTreeSet<Identifier>,
    _guard: ChallengeGuard,
}

fn gate() -> Gate {
    let table = ChallengeTable::new();
    let pending = Pending {
        key_authorization: Bytes::from_static(KEY_AUTHORIZATION.as_bytes()),
        hosts: Arc::new(identifiers(&["a.net", "2001:db8::1"])),
        purpose: Purpose::Order,
    };
    let guard = table.put(TOKEN.parse().unwrap(), pending);
    let hosts = RedirectHosts::Configured(identifiers(&CONFIGURED));
    let policy = Policy {
        redirect: Redirect { status: StatusCode::PERMANENT_REDIRECT, port: 443, hosts },
        match_host: true,
        trusted_proxies: Vec::new(),
    };
    Gate { table, policy, served: identifiers(&["b.net"]), _guard: guard }
}

impl Gate {
    fn ask(&self, method: &str, version: Version, target: &str, hosts: &[&str]) -> Reply {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(header::HOST, HeaderValue::from_str(host).unwrap());
        }
        let request = Request {
            method: &method.parse().unwrap(),
            version,
            target: &target.parse().unwrap(),
            headers: &headers,
        };
        reply(&request, &self.table, &self.policy, &self.served)
    }

    fn get(&self, host: &str, target: &str) -> Reply {
        self.ask("GET", Version::HTTP_11, target, &[host])
    }
}

/// Status, header fields and body on one line.
fn shown(reply: Reply) -> String {
    let mut headers = HeaderMap::new();
    let (status, body) = reply.render(&mut headers);
    let mut line = status.as_str().to_owned();
    for (name, value) in &headers {
        line += &format!(" {name}={}", value.to_str().unwrap());
    }
    format!("{line} {:?}", std::str::from_utf8(&body).unwrap())
}

const BAD: &str = r#"400 connection=close content-type=text/plain "400 bad request\n""#;
const NONE: &str = r#"404 cache-control=no-store content-type=text/plain "404 no such challenge\n""#;
const FOREIGN: &str = r#"421 content-type=text/plain "421 not served here\n""#;
const METHOD: &str =
    r#"405 allow=GET, HEAD cache-control=no-store content-type=text/plain "405 only GET and HEAD\n""#;

fn challenge_path() -> String {
    format!("{CHALLENGE_PATH}/{TOKEN}")
}

fn answered() -> String {
    format!("200 content-type=application/octet-stream cache-control=no-store {KEY_AUTHORIZATION:?}")
}

fn to(status: u16, location: &str) -> String {
    format!(r#"{status} location={location} """#)
}

#[test]
fn challenges() {
    let gate = gate();
    let path = challenge_path();
    for host in ["a.net", "A.NET", "a.net.", "a.net:80", "a.net:8080", "[2001:db8::1]", "[2001:DB8:0::1]:80"]
    {
        assert_eq!(shown(gate.get(host, &path)), answered(), "{host}");
    }
    assert_eq!(shown(gate.get("a.net", &format!("{path}?x=y"))), answered());
    assert_eq!(shown(gate.get("a.net", &format!("http://a.net{path}"))), answered());
    assert_eq!(shown(gate.ask("HEAD", Version::HTTP_11, &path, &["a.net"])), answered());
    assert_eq!(shown(gate.ask("GET", Version::HTTP_10, &path, &["a.net"])), answered());
    for method in ["POST", "PUT", "OPTIONS", "TRACE", "get", "DELETE"] {
        for host in ["a.net", "evil.test"] {
            let reply = gate.ask(method, Version::HTTP_11, &path, &[host]);
            assert_eq!(shown(reply), METHOD, "{method} {host}");
        }
    }
}

#[test]
fn every_other_token_gets_the_same_refusal() {
    let gate = gate();
    let path = challenge_path();
    for (host, target, reason) in [
        ("b.net", path.clone(), Outcome::WrongHost),
        ("evil.test", path.clone(), Outcome::WrongHost),
        ("a.net", format!("{CHALLENGE_PATH}/unknown"), Outcome::UnknownToken),
        ("evil.test", format!("{CHALLENGE_PATH}/unknown"), Outcome::UnknownToken),
        ("a.net", format!("{path}/"), Outcome::NotAToken),
        ("a.net", format!("{path}/x"), Outcome::NotAToken),
        ("a.net", format!("{CHALLENGE_PATH}//{TOKEN}"), Outcome::NotAToken),
        ("a.net", format!("{CHALLENGE_PATH}/../x"), Outcome::NotAToken),
        ("a.net", format!("{CHALLENGE_PATH}/%65{}", &TOKEN[1..]), Outcome::NotAToken),
        ("a.net", format!("{CHALLENGE_PATH}/{TOKEN}%00"), Outcome::NotAToken),
        ("a.net", format!("{CHALLENGE_PATH}/{}", "a".repeat(129)), Outcome::NotAToken),
        ("a.net", format!("{CHALLENGE_PATH}/"), Outcome::NotAToken),
        ("a.net", format!("{CHALLENGE_PATH}/?x"), Outcome::NotAToken),
        ("a.net", CHALLENGE_PATH.to_owned(), Outcome::NotAToken),
    ] {
        let reply = gate.get(host, &target);
        assert!(
            matches!(&reply, Reply::NoChallenge { reason: r, .. } if *r == reason),
            "{target}: {reply:?}"
        );
        assert_eq!(shown(reply), NONE, "{host} {target}");
    }
}

#[test]
fn a_gate_behind_redirects_answers_whatever_the_host() {
    let mut gate = gate();
    let path = challenge_path();
    let bare = |gate: &Gate, target: &str| shown(gate.ask("GET", Version::HTTP_10, target, &[]));
    assert_eq!(bare(&gate, &path), NONE, "tokens are bound to hosts");
    gate.policy.match_host = false;
    assert_eq!(bare(&gate, &path), answered());
    assert_eq!(shown(gate.get("evil.test", &path)), answered());
    assert_eq!(shown(gate.get("a_b", &path)), BAD);
    assert_eq!(shown(gate.get("evil.test", "/")), FOREIGN);
    assert_eq!(bare(&gate, "/"), BAD, "no redirect without a host");
}

#[test]
fn redirects() {
    let mut gate = gate();
    assert_eq!(shown(gate.get("a.net", "/x")), to(307, "https://a.net/x"), "no certificate yet");
    assert_eq!(shown(gate.get("b.net", "/x?y=%2F&z")), to(308, "https://b.net/x?y=%2F&z"));
    assert_eq!(
        shown(gate.get("B.NET.:81", "//evil.test/%2e%2e/..")),
        to(308, "https://b.net//evil.test/%2e%2e/..")
    );
    assert_eq!(shown(gate.get("b.net", "/?")), to(308, "https://b.net/?"));
    assert_eq!(shown(gate.get("b.net", "http://b.net")), to(308, "https://b.net/"));
    assert_eq!(shown(gate.get("b.net", "http://b.net?q")), to(308, "https://b.net/?q"));
    assert_eq!(shown(gate.get("[2001:DB8::1]", "/")), to(307, "https://[2001:db8::1]/"));
    assert_eq!(shown(gate.ask("POST", Version::HTTP_10, "/", &["b.net"])), to(308, "https://b.net/"));
    for target in ["/.well-known/acme-challenges", "/.well-known/", "/x/.well-known/acme-challenge/y"] {
        assert_eq!(shown(gate.get("b.net", target)), to(308, &format!("https://b.net{target}")));
    }
    gate.policy.redirect.status = StatusCode::MOVED_PERMANENTLY;
    gate.policy.redirect.port = 8443;
    assert_eq!(shown(gate.get("b.net", "/")), to(301, "https://b.net:8443/"));
    assert_eq!(shown(gate.get("192.0.2.1", "/")), to(307, "https://192.0.2.1:8443/"));
    assert_eq!(shown(gate.get("[2001:db8::1]:80", "/")), to(307, "https://[2001:db8::1]:8443/"));
}

#[test]
fn refusals() {
    let mut gate = gate();
    for host in ["evil.test", "www.a.net", "localhost", "127.0.0.1", "[::1]"] {
        assert_eq!(shown(gate.get(host, "/")), FOREIGN, "{host}");
    }
    for any in [false, true] {
        if any {
            gate.policy.redirect.hosts = RedirectHosts::Any;
            assert_eq!(shown(gate.get("evil.test", "/")), to(307, "https://evil.test/"));
        }
        for host in ["", "a_b.net", "a.net/x", "a.net, b.net", "u@a.net", "a.net:99999", "[::1", "1.2.3"] {
            assert_eq!(shown(gate.get(host, "/")), BAD, "{host}");
        }
        for (method, version, target, hosts) in [
            ("GET", Version::HTTP_11, "/", &[][..]),
            ("GET", Version::HTTP_10, "/", &[]),
            ("GET", Version::HTTP_11, "/", &["a.net", "a.net"]),
            ("GET", Version::HTTP_11, "http://b.net/", &["a.net"]),
            ("GET", Version::HTTP_11, "https://a.net/", &["a.net"]),
            ("OPTIONS", Version::HTTP_11, "*", &["a.net"]),
            ("CONNECT", Version::HTTP_11, "a.net:443", &["a.net"]),
            ("CONNECT", Version::HTTP_11, "/", &["a.net"]),
            ("GET", Version::HTTP_11, "a.net", &["a.net"]),
            ("GET", Version::HTTP_11, "/ä", &["a.net"]),
            ("GET", Version::HTTP_11, "/.well-known/acme-challenge/ä", &["a.net"]),
        ] {
            assert_eq!(shown(gate.ask(method, version, target, hosts)), BAD, "{method} {target} {hosts:?}");
        }
    }
}

fn any_host() -> impl Strategy<Value = String> {
    prop_oneof![
        2 => Just("a.net".to_owned()),
        1 => Just("B.net.:80".to_owned()),
        1 => Just("[2001:db8::1]".to_owned()),
        1 => "[ -~]{0,20}",
        1 => "(a|b)\\.net[ -~]{0,6}",
    ]
}

fn any_target() -> impl Strategy<Value = String> {
    prop_oneof![
        2 => "/[!-~]{0,40}",
        2 => "/\\.well-known/acme-challenge[!-~]{0,12}",
        1 => "/\\.well-known/acme-challenge/[a-zA-Z0-9_-]{1,140}",
        1 => Just(challenge_path()),
        1 => "https?://(a|b)\\.net(:[0-9]{1,5})?[!-~]{0,20}",
        1 => "/\\PC{0,20}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn whatever_comes(
        host in any_host(),
        target in any_target(),
        method in "GET|HEAD|POST|OPTIONS|CONNECT|X",
        any in any::<bool>(),
        old in any::<bool>(),
    ) {
        let Ok(uri) = target.parse::<Uri>() else { return Ok(()) };
        let mut gate = gate();
        if any {
            gate.policy.redirect.hosts = RedirectHosts::Any;
        }
        let version = if old { Version::HTTP_10 } else { Version::HTTP_11 };
        let reply = gate.ask(&method, version, &target, &[&host]);
        let is_challenge = uri.path().starts_with(&format!("{CHALLENGE_PATH}/"));
        match &reply {
            Reply::Redirect { status, location } => {
                prop_assert!(!is_challenge, "never a redirect on the challenge path");
                let location = location.to_str().unwrap();
                prop_assert!(location.bytes().all(|b| b.is_ascii_graphic()));
                let named = Host::parse(host.as_bytes()).unwrap().identifier;
                let shown = match &named {
                    Identifier::Ip(address) if address.is_ipv6() => format!("[{address}]"),
                    other => other.to_string(),
                };
                let rest = location.strip_prefix(&format!("https://{shown}"));
                let slash = if uri.path_and_query().unwrap().as_str().starts_with('?') { "/" } else { "" };
                prop_assert_eq!(rest.unwrap(), format!("{slash}{}", uri.path_and_query().unwrap().as_str()));
                if target.starts_with('/') && !target.contains('#') {
                    prop_assert_eq!(rest.unwrap(), &target, "byte for byte");
                }
                prop_assert!(any || identifiers(&CONFIGURED).contains(&named));
                prop_assert_eq!(*status == StatusCode::PERMANENT_REDIRECT, gate.served.contains(&named));
            }
            Reply::Challenge { .. } => {
                prop_assert_eq!(uri.path(), challenge_path());
                prop_assert_eq!(shown(reply), answered());
            }
            Reply::NoChallenge { .. } => {
                prop_assert!(is_challenge || uri.path() == CHALLENGE_PATH);
                prop_assert_eq!(shown(reply), NONE);
            }
            Reply::MethodNotAllowed => prop_assert_eq!(shown(reply), METHOD),
            Reply::Misdirected => prop_assert!(!any && !is_challenge && shown(reply) == FOREIGN),
            Reply::BadRequest(_) => prop_assert_eq!(shown(reply), BAD),
        }
    }
}
