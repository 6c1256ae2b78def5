use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::*;

const NAME: &str = "www.null-i.net";
const V4: &str = "203.0.113.7";
const V6: &str = "2001:db8::7";

fn identifier() -> Identifier {
    NAME.parse().unwrap()
}

fn arrival(client: &str, host: &str, outcome: Outcome) -> Arrival {
    let host = (!host.is_empty()).then(|| host.parse().unwrap());
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
    Arrival { at, client: client.parse().unwrap(), host, outcome }
}

fn answered(clients: &[&str]) -> Vec<Arrival> {
    clients.iter().map(|client| arrival(client, NAME, Outcome::Answered)).collect()
}

fn failure(kind: &str, detail: &str, arrivals: Vec<Arrival>) -> NameFailure {
    NameFailure {
        identifier: identifier(),
        kind: kind.to_owned(),
        detail: detail.to_owned(),
        status: Some(400),
        arrivals,
        authorization_failed: true,
        by_handshake: false,
    }
}

fn told(failure: NameFailure, found: Option<&str>, vantage_points: Option<usize>) -> String {
    let preflight = found.map(|found| BTreeMap::from([(failure.identifier.clone(), found.to_owned())]));
    let explained = explain(&[failure], &Seen { preflight: preflight.as_ref(), vantage_points });
    let [Explanation { identifiers, text }] = &explained[..] else { panic!("{explained:?}") };
    assert_eq!(*identifiers, [identifier()]);
    text.clone()
}

/// Words that must be in an explanation, and words that must not.
struct Situation {
    name: &'static str,
    failure: NameFailure,
    found: Option<&'static str>,
    vantage_points: Option<usize>,
    says: &'static [&'static str],
    keeps_to_itself: &'static [&'static str],
}

fn situation(
    name: &'static str,
    failure: NameFailure,
    says: &'static [&'static str],
    keeps_to_itself: &'static [&'static str],
) -> Situation {
    Situation { name, failure, found: None, vantage_points: None, says, keeps_to_itself }
}

impl Situation {
    fn found(self, found: &'static str) -> Self {
        Self { found: Some(found), ..self }
    }

    fn of(self, vantage_points: usize) -> Self {
        Self { vantage_points: Some(vantage_points), ..self }
    }
}

const TIMEOUT: &str = "203.0.113.7: Fetching http://www.null-i.net/.well-known/acme-challenge/x: Timeout during connect (likely firewall problem)";
const TIMEOUT_V6: &str =
    "2001:db8::7: Fetching http://www.null-i.net/.well-known/acme-challenge/x: Timeout during connect";
const REFUSED: &str =
    "203.0.113.7: Fetching http://www.null-i.net/.well-known/acme-challenge/x: Connection refused";
const FORBIDDEN: &str =
    "203.0.113.7: Invalid response from http://www.null-i.net/.well-known/acme-challenge/x: 403";
const NOT_FOUND_V6: &str =
    "2001:db8::7: Invalid response from http://www.null-i.net/.well-known/acme-challenge/x: 404";
const WRONG_KEY: &str = "The key authorization file from the server did not match this challenge";

fn situations() -> Vec<Situation> {
    let late = || vec![arrival(V4, NAME, Outcome::Late), arrival(V4, NAME, Outcome::Late)];
    let misdirected = |host| vec![arrival(V4, host, Outcome::WrongHost)];
    let two = || answered(&["198.51.100.1", "198.51.100.1", "198.51.100.2"]);
    let five = || answered(&["198.51.100.1", "198.51.100.2", "198.51.100.3", "198.51.100.4", "198.51.100.5"]);
    let mut refused_by_policy = failure("rejectedIdentifier", "Forbidden by policy", Vec::new());
    refused_by_policy.authorization_failed = false;
    let mut refused_account = failure("unauthorized", "account is deactivated", Vec::new());
    refused_account.authorization_failed = false;
    vec![
        situation(
            "403 from a filter in front",
            failure("unauthorized", FORBIDDEN, Vec::new()),
            &["reports 403", "no request for it reached port 80", "something other than this gate answered the CA", "must all lead here"],
            &["preflight", "vantage", "(the CA went to"],
        ),
        situation(
            "403, and the preflight saw the filter",
            failure("unauthorized", FORBIDDEN, Vec::new()),
            &["something other than this gate answered the CA: the preflight found: Squid at 203.0.113.7 answers 403 (ERR_ACCESS_DENIED)"],
            &["must all lead here"],
        )
        .found("Squid at 203.0.113.7 answers 403 (ERR_ACCESS_DENIED)."),
        situation(
            "timeout, nobody came",
            failure("connection", TIMEOUT, Vec::new()),
            &["reports connection", "no request for it reached port 80", "open it in the firewall"],
            &["answered the CA", "went to"],
        ),
        situation(
            "timeout, nobody came, the preflight knows the culprit",
            failure("connection", TIMEOUT, Vec::new()),
            &["no request for it reached port 80 here: the preflight found: nothing forwards port 80"],
            &["open it in the firewall"],
        )
        .found("nothing forwards port 80"),
        situation(
            "connection refused",
            failure("connection", REFUSED, Vec::new()),
            &["and what the CA found there refused it", "open it in the firewall, which rejects it"],
            &["drops it"],
        ),
        situation(
            "IPv6 leads nowhere",
            failure("connection", TIMEOUT_V6, Vec::new()),
            &["the CA went to 2001:db8::7", "AAAA"],
            &["only requests over"],
        ),
        situation(
            "another host answers over IPv6, nobody came",
            failure("unauthorized", NOT_FOUND_V6, Vec::new()),
            &["reports 404", "something other than this gate answered the CA (the CA went to 2001:db8::7"],
            &[],
        ),
        situation(
            "IPv4 arrived, IPv6 failed",
            failure("unauthorized", NOT_FOUND_V6, answered(&[V4])),
            &["only requests over IPv4 arrived here, while the CA went by IPv6, to 2001:db8::7", "remove the AAAA record"],
            &["changes the answer"],
        ),
        situation(
            "IPv6 arrived, IPv4 failed",
            failure("connection", TIMEOUT, answered(&[V6])),
            &["only requests over IPv6 arrived here, while the CA went by IPv4, to 203.0.113.7", "the A record leads elsewhere"],
            &["AAAA"],
        ),
        situation(
            "a translating device hides the family",
            failure("unauthorized", NOT_FOUND_V6, answered(&["10.0.0.1"])),
            &["1 request arrived here and got the right answer", "something in between changes the answer"],
            &["only requests over"],
        ),
        situation(
            "a geo filter drops some networks",
            failure("connection", TIMEOUT, two()),
            &["2 of about 5 vantage points arrived here", "some networks are blocked on the way (a geo filter"],
            &["changes the answer", "no request"],
        )
        .of(5),
        situation(
            "a geo filter answers for some networks",
            failure("unauthorized", FORBIDDEN, two()),
            &["reports 403", "2 of about 5 vantage points", "other networks are answered by something else"],
            &["blocked on the way"],
        )
        .of(5),
        situation(
            "some networks are blocked, of an unknown number",
            failure("connection", TIMEOUT, two()),
            &["3 requests arrived here and got the right answer, and the CA still saw no answer", "may be blocked"],
            &["vantage"],
        ),
        situation(
            "all arrived, and the answers are lost",
            failure("connection", TIMEOUT, five()),
            &["5 requests arrived", "do not find the way back"],
            &["vantage"],
        )
        .of(5),
        situation(
            "all arrived, and the answer is changed",
            failure("unauthorized", WRONG_KEY, five()),
            &["reports unauthorized", "something in between changes the answer", "may rewrite"],
            &["vantage", "something other than this gate"],
        )
        .of(5),
        situation(
            "answers behind one masquerading device are counted one by one",
            failure("unauthorized", WRONG_KEY, answered(&["192.168.1.1"; 5])),
            &["5 requests arrived", "changes the answer"],
            &["vantage"],
        )
        .of(5),
        situation(
            "the answer is changed, and the preflight saw how",
            failure("incorrectResponse", WRONG_KEY, five()),
            &["changes the answer", "may rewrite", "; the preflight found: the body ends with an advertisement"],
            &[],
        )
        .found("the body ends with an advertisement"),
        situation(
            "a proxy changes the host",
            failure("unauthorized", FORBIDDEN, misdirected("backend.internal.net")),
            &["1 request arrived for the host backend.internal.net", "changes the Host header"],
            &["drops the Host header", "answered the CA", "besides"],
        ),
        situation(
            "a proxy drops the host",
            failure("unauthorized", FORBIDDEN, vec![arrival(V4, "", Outcome::NoHost)]),
            &["1 request arrived without a host", "drops the Host header"],
            &["changes the Host header"],
        ),
        situation(
            "one of two proxies changes the host",
            failure(
                "unauthorized",
                FORBIDDEN,
                [misdirected("backend.internal.net"), answered(&[V4, "203.0.113.8"])].concat(),
            ),
            &["besides 2 requests that were answered", "changes the Host header"],
            &["changes the answer"],
        ),
        situation(
            "everybody came late",
            failure("connection", TIMEOUT, late()),
            &["no request for it reached port 80 here in time, but 2 requests came late", "holds requests back"],
            &["open it in the firewall"],
        ),
        situation(
            "late ones beside others do not count",
            failure("unauthorized", WRONG_KEY, [late(), answered(&[V4])].concat()),
            &["1 request arrived here and got the right answer", "changes the answer"],
            &["late"],
        ),
        situation(
            "who came before the answer was in place",
            failure("unauthorized", FORBIDDEN, vec![arrival(V4, NAME, Outcome::UnknownToken)]),
            &["requests arrived, though none while the answer was in place"],
            &["changes the answer"],
        ),
        situation(
            "the name does not resolve",
            failure("dns", "DNS problem: NXDOMAIN looking up A for www.null-i.net", Vec::new()),
            &["this is no matter of this machine", "could not resolve"],
            &["firewall"],
        ),
        situation(
            "the name does not resolve, and the preflight knows why",
            failure("dns", "DNS problem: SERVFAIL looking up CAA", Vec::new()),
            &["no matter of this machine: the preflight found: DNSSEC does not validate"],
            &["check its A and AAAA"],
        )
        .found("DNSSEC does not validate"),
        situation(
            "the name resolves for some",
            failure("dns", "During secondary validation: DNS problem: query timed out", two()),
            &["3 requests arrived here", "could not resolve the name elsewhere", "DNS provider"],
            &["no matter"],
        ),
        situation(
            "sent on to https",
            failure("tls", "remote error: tls: handshake failure", Vec::new()),
            &["sent the CA on to https, where TLS failed", "without a redirect"],
            &["firewall"],
        ),
        situation(
            "CAA forbids",
            failure("caa", "CAA record for null-i.net prevents issuance", answered(&[V4])),
            &["reports caa", "no matter of this machine", "add the CA to it"],
            &["arrived"],
        ),
        situation(
            "the CA does not sign for it",
            refused_by_policy,
            &["reports rejectedIdentifier", "\"Forbidden by policy\"", "remove it from `hostnames`"],
            &["port 80", "request"],
        ),
        situation(
            "a refusal of the account is none of the name",
            refused_account,
            &["reports unauthorized", "\"account is deactivated\""],
            &["port 80", "request", "gate"],
        ),
        situation(
            "a kind that nobody knows",
            failure("neverHeardOf", "odd", answered(&[V4])),
            &["reports neverHeardOf", "1 request arrived here and got the right answer"],
            &["changes the answer"],
        ),
        situation(
            "no reason given",
            failure("", "the CA's authorization is invalid, and it gave no reason", Vec::new()),
            &["reports a failure", "no request for it reached port 80 here"],
            &["firewall"],
        ),
    ]
}

#[test]
fn situations_are_told_apart() {
    let situations = situations();
    assert!(situations.len() >= 20);
    for Situation { name, failure, found, vantage_points, says, keeps_to_itself } in situations {
        let detail = failure.detail.clone();
        let text = told(failure, found, vantage_points);
        for word in says {
            assert!(text.contains(word), "{name}: `{word}` is not in: {text}");
        }
        for word in keeps_to_itself {
            assert!(!text.replace(&detail, "").contains(word), "{name}: `{word}` is in: {text}");
        }
        assert!(text.contains(&format!("\"{detail}\"")), "{name}: the CA's words are not in: {text}");
        assert!(!text.ends_with(['.', ' ', ':', ';']), "{name}: {text}");
        assert!(!text.contains("..") && !text.contains("  ") && !text.contains(": :"), "{name}: {text}");
    }
}

#[test]
fn the_example_of_a_filter_reads_as_a_sentence() {
    assert_eq!(
        told(failure("unauthorized", FORBIDDEN, Vec::new()), Some("Squid answers 403 there"), Some(5)),
        "the CA reports 403, unauthorized (in its words: \"203.0.113.7: Invalid response from \
         http://www.null-i.net/.well-known/acme-challenge/x: 403\"); no request for it reached port 80 here, \
         so something other than this gate answered the CA: the preflight found: Squid answers 403 there"
    );
}

#[test]
fn names_with_one_explanation_stand_together() {
    let of = |name: &str, kind: &str, detail: &str| NameFailure {
        identifier: name.parse().unwrap(),
        ..failure(kind, detail, Vec::new())
    };
    let mut failures: Vec<_> = (0..60)
        .map(|n| of(&format!("n{n}.example"), "connection", &format!("192.0.2.{n}: Timeout")))
        .collect();
    failures.insert(1, of("a.example", "unauthorized", FORBIDDEN));
    failures.insert(2, of("b.example", "unauthorized", "Invalid response from x: 404"));
    let explained = explain(&failures, &Seen::default());
    let sizes: Vec<_> = explained.iter().map(|e| e.identifiers.len()).collect();
    assert_eq!(sizes, [60, 1, 1]);
    assert!(explained[0].text.contains("in its words, of n0.example: \"192.0.2.0: Timeout\""));
    assert_eq!(explained[0].text.matches("open it in the firewall").count(), 1);
    assert!(explained[1].text.contains("reports 403") && explained[2].text.contains("reports 404"));

    let found = BTreeMap::from([("n5.example".parse().unwrap(), "n5 leads to 192.0.2.99".to_owned())]);
    let explained = explain(&failures, &Seen { preflight: Some(&found), vantage_points: None });
    let sizes: Vec<_> = explained.iter().map(|e| e.identifiers.len()).collect();
    assert_eq!(sizes, [59, 1, 1, 1]);
    assert!(explained[3].text.ends_with("the preflight found: n5 leads to 192.0.2.99"));
}

#[test]
fn statuses_and_addresses_in_a_cas_words() {
    for (detail, status, address) in [
        (FORBIDDEN, Some(403), Some(V4)),
        (NOT_FOUND_V6, Some(404), Some(V6)),
        (
            "Non-200 status code from HTTP: http://a.example/.well-known/acme-challenge/x returned 502",
            Some(502),
            None,
        ),
        ("http GET for http://a.example:80/x with status code 404.", Some(404), None),
        ("Invalid response from http://a.example/x [2001:db8::7]: \"<html>\"", None, Some(V6)),
        ("dial tcp 203.0.113.7:80: connect: timeout", None, None),
        ("got ::ffff:203.0.113.7, wanted more", None, Some(V4)),
        ("host404.example returned 200", None, None),
        ("999 of 4030", None, None),
        ("", None, None),
    ] {
        assert_eq!(status_in(detail), status, "{detail}");
        assert_eq!(address_in(detail), address.map(|a| a.parse().unwrap()), "{detail}");
    }
}

fn any_arrival() -> impl Strategy<Value = Arrival> {
    let outcome = prop::sample::select(vec![
        Outcome::Answered,
        Outcome::UnknownToken,
        Outcome::WrongHost,
        Outcome::NoHost,
        Outcome::Late,
    ]);
    let client =
        prop::sample::select(vec!["203.0.113.7", "10.0.0.1", "2001:db8::7", "100.64.0.1", "fe80::1"]);
    let host = prop::sample::select(vec!["", NAME, "b.example"]);
    (client, host, outcome).prop_map(|(client, host, outcome)| arrival(client, host, outcome))
}

proptest! {
    #[test]
    fn every_failure_is_explained_once_on_one_line(
        kinds in prop::collection::vec(
            (
                prop::sample::select(vec![
                    "connection", "unauthorized", "incorrectResponse", "tls", "dns", "caa", "odd", "",
                ]),
                "\\PC{0,60}",
                prop::collection::vec(any_arrival(), 0..8),
                any::<bool>(),
            ),
            0..6,
        ),
        vantage_points in prop::option::of(0..9_usize),
    ) {
        let failures: Vec<_> = kinds
            .into_iter()
            .map(|(kind, detail, arrivals, authorization_failed)| NameFailure {
                authorization_failed,
                by_handshake: false,
                ..failure(kind, &detail, arrivals)
            })
            .collect();
        let explained = explain(&failures, &Seen { preflight: None, vantage_points });
        prop_assert_eq!(explained.iter().map(|e| e.identifiers.len()).sum::<usize>(), failures.len());
        for explanation in explained {
            prop_assert!(!explanation.text.contains('\n'));
        }
    }
}
