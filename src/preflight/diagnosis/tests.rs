use http::StatusCode;

use super::*;
use crate::preflight::caa::Question;
use crate::preflight::evidence::{CaaRecord, CaaWord, DnsFailure, Flaw, Records, Signatures};
use crate::preflight::sighting::{Answer, End, Failure, Place, RedirectFault, Scheme, Stand};

const TOKEN: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

fn expected() -> String {
    format!("{TOKEN}.{}", "B".repeat(43))
}

fn place(url: (Scheme, &str, u16)) -> Place {
    let (scheme, host, port) = url;
    Place { scheme, host: host.into(), port, path: format!("/.well-known/acme-challenge/{TOKEN}") }
}

fn seen(address: &str, end: End) -> Sighting {
    Sighting {
        address: SocketAddr::new(address.parse().unwrap(), 80),
        stand: Stand { own: false, from: Some([192, 0, 2, 1].into()) },
        places: vec![place((Scheme::Http, "a.example", 80))],
        end,
    }
}

fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> End {
    End::Answer(Answer {
        status: StatusCode::from_u16(status).unwrap(),
        headers: headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
        body: body.into(),
        more: false,
    })
}

fn surroundings() -> Surroundings {
    Surroundings { gate: vec!["[::]:80".parse().unwrap()], taken: false, reach: Reach::World, direct: false }
}

fn dns() -> Dns {
    Dns {
        a: Records::Found(vec![[203, 0, 113, 7].into()]),
        aaaa: Records::Empty { confirmed: true },
        caa: Records::Empty { confirmed: true },
        caa_at: None,
        caa_word: CaaWord::NotAsked,
        in_hosts_file: false,
    }
}

fn diagnosed(
    dns: Option<&Dns>,
    sightings: &[Sighting],
    surroundings: &Surroundings,
) -> Vec<(Cause, Certainty)> {
    let caa = Question { identities: &[], account_uri: None, method: "http-01", wildcard: false };
    let findings = found(dns, &[Asker { name: "ca", caa }], sightings, surroundings);
    findings.into_iter().map(|f| (f.cause, f.certainty)).collect()
}

fn found(
    dns: Option<&Dns>,
    issuers: &[Asker<'_>],
    sightings: &[Sighting],
    surroundings: &Surroundings,
) -> Vec<Finding> {
    let expected = expected();
    let identifier = "a.example".parse().unwrap();
    let expected = expected.as_bytes();
    let subject = Subject { identifier: &identifier, dns, issuers, sightings, left_out: 0, expected };
    let findings = diagnose(&subject, surroundings);
    for finding in &findings {
        assert!(!finding.seen.is_empty() && !finding.means.is_empty(), "{finding:?}");
        assert_eq!(finding.remedy.is_empty(), finding.certainty == Certainty::Fine, "{finding:?}");
        let text = format!("{} {} {}", finding.seen, finding.means, finding.remedy);
        assert!(!text.chars().any(char::is_control), "{text:?}");
    }
    findings
}

fn one(end: End) -> (Cause, Certainty) {
    let found = diagnosed(None, &[seen("203.0.113.7", end)], &surroundings());
    assert_eq!(found.len(), 1);
    found[0]
}

#[test]
fn answers_of_every_kind() {
    use Certainty::{Certain, Fine, Warning};
    let right = expected();
    for (end, expected) in [
        (answer(200, &[], &right), (Cause::Answered, Fine)),
        (answer(200, &[], &format!("{right}\n")), (Cause::TrailingWhitespace, Warning)),
        (answer(200, &[], &format!(" {right}")), (Cause::WrongBody, Certain)),
        (answer(200, &[], &format!("{right}x")), (Cause::TooLarge, Certain)),
        (answer(200, &[], &format!("{TOKEN}.{}", "C".repeat(43))), (Cause::OtherClient, Certain)),
        (answer(200, &[], "<!DOCTYPE html><p>hello"), (Cause::HtmlPage, Certain)),
        (answer(200, &[], ""), (Cause::WrongBody, Certain)),
        (answer(201, &[], &right), (Cause::OtherStatus, Certain)),
        (
            answer(403, &[("server", "squid"), ("x-squid-error", "ERR_ACCESS_DENIED 0")], ""),
            (Cause::Forbidden, Certain),
        ),
        (answer(404, &[("server", "nginx")], "<html>"), (Cause::NotFound, Certain)),
        (answer(404, &[], "404 no such challenge\n"), (Cause::OtherGate, Certain)),
        (answer(421, &[], "421 not served here\n"), (Cause::OtherGate, Certain)),
        (answer(421, &[], ""), (Cause::Misdirected, Certain)),
        (answer(401, &[], ""), (Cause::LoginWall, Certain)),
        (answer(429, &[], ""), (Cause::TooManyRequests, Warning)),
        (answer(502, &[], ""), (Cause::BadGateway, Certain)),
        (answer(500, &[], ""), (Cause::ServerError, Certain)),
        (
            answer(400, &[], "<center>The plain HTTP request was sent to HTTPS port</center>"),
            (Cause::TlsOnPort80, Certain),
        ),
        (End::Failed(Failure::Refused), (Cause::Refused, Certain)),
        (End::Failed(Failure::Reset), (Cause::Reset, Certain)),
        (End::Failed(Failure::Closed), (Cause::Closed, Certain)),
        (End::Failed(Failure::ConnectTimeout), (Cause::TimedOut, Warning)),
        (End::Failed(Failure::NoRoute("no route".into())), (Cause::NoRoute, Warning)),
        (End::Failed(Failure::Silent), (Cause::Silent, Warning)),
        (End::Failed(Failure::NotHttp(b"SSH-2.0-\x1b[2J".to_vec())), (Cause::NotHttp, Certain)),
        (End::Failed(Failure::SpeaksTls), (Cause::TlsOnPort80, Certain)),
        (End::Failed(Failure::HeaderTooLarge), (Cause::TooLarge, Certain)),
        (End::Failed(Failure::Other("odd".into())), (Cause::Unknown, Warning)),
        (End::Lost(RedirectFault::TooMany), (Cause::TooManyRedirects, Certain)),
        (End::Lost(RedirectFault::Scheme("ftp".into())), (Cause::RedirectScheme, Certain)),
        (End::Lost(RedirectFault::Malformed("\u{1b}".into())), (Cause::RedirectMalformed, Certain)),
    ] {
        assert_eq!(one(end.clone()), expected, "{end:?}");
    }
}

#[test]
fn redirects_that_lead_astray_are_told_from_answers_behind_them() {
    let over = |to: Place, end: End| {
        let mut sighting = seen("203.0.113.7", end);
        sighting.places.push(to);
        diagnosed(None, &[sighting], &surroundings())[0]
    };
    let same = || place((Scheme::Https, "a.example", 443));
    let home = || Place { path: "/".into(), ..place((Scheme::Https, "www.example", 443)) };
    let bare = || place((Scheme::Https, "203.0.113.9", 443));
    for (to, end, expected) in [
        (same(), answer(200, &[], &expected()), (Cause::Answered, Certainty::Fine)),
        (bare(), answer(200, &[], &expected()), (Cause::RedirectToAddress, Certainty::Warning)),
        (same(), answer(404, &[], ""), (Cause::NotFound, Certainty::Certain)),
        (home(), answer(200, &[], "<html>"), (Cause::RedirectElsewhere, Certainty::Certain)),
        (same(), End::Failed(Failure::Tls("no".into())), (Cause::RedirectTls, Certainty::Certain)),
        (same(), End::Failed(Failure::Refused), (Cause::RedirectUnreachable, Certainty::Certain)),
        (same(), End::Failed(Failure::ConnectTimeout), (Cause::RedirectUnreachable, Certainty::Warning)),
    ] {
        assert_eq!(over(to, end.clone()), expected, "{end:?}");
    }
}

#[test]
fn an_own_address_off_port_80_says_little() {
    let mut sighting = seen("203.0.113.7", answer(404, &[], ""));
    sighting.stand.own = true;
    let elsewhere = Surroundings { gate: vec!["127.0.0.1:8402".parse().unwrap()], ..surroundings() };
    for (surroundings, expected) in [
        (surroundings(), Certainty::Certain),
        (elsewhere.clone(), Certainty::Warning),
        (Surroundings { taken: true, ..elsewhere }, Certainty::Certain),
    ] {
        let found = diagnosed(None, std::slice::from_ref(&sighting), &surroundings);
        assert_eq!(found, [(Cause::NotFound, expected)], "{surroundings:?}");
    }
}

#[test]
fn families_and_many_addresses() {
    use Certainty::{Certain, Fine, Warning};
    let right = || answer(200, &[], &expected());
    let wrong = || answer(404, &[], "");
    let (v4, other, v6) = ("203.0.113.7", "203.0.113.8", "2001:db8::7");
    let timeout = || End::Failed(Failure::ConnectTimeout);
    for (ends, expected) in [
        (
            vec![(v6, wrong()), (v4, right())],
            vec![(Cause::NotFound, Certain), (Cause::Answered, Fine), (Cause::Ipv6Broken, Certain)],
        ),
        (
            vec![(v6, timeout()), (v4, right())],
            vec![(Cause::TimedOut, Warning), (Cause::Answered, Fine), (Cause::Ipv6Broken, Warning)],
        ),
        (vec![(v6, right()), (v4, wrong())], vec![(Cause::Answered, Fine), (Cause::NotFound, Warning)]),
        (
            vec![(v4, right()), (other, wrong())],
            vec![(Cause::Answered, Fine), (Cause::NotFound, Certain), (Cause::SomeAddressesWrong, Certain)],
        ),
        (vec![(v4, wrong()), (other, wrong())], vec![(Cause::NotFound, Certain), (Cause::NotFound, Certain)]),
    ] {
        let sightings: Vec<_> = ends.into_iter().map(|(address, end)| seen(address, end)).collect();
        assert_eq!(diagnosed(None, &sightings, &surroundings()), expected);
    }
}

#[test]
fn private_addresses_are_no_place_for_a_public_ca() {
    let sighting = seen("10.0.0.7", answer(404, &[], ""));
    let found = diagnosed(None, std::slice::from_ref(&sighting), &surroundings());
    assert_eq!(found, [(Cause::PrivateAddress, Certainty::Warning), (Cause::NotFound, Certainty::Warning)]);
    let inside = Surroundings { reach: Reach::Network, ..surroundings() };
    assert_eq!(diagnosed(None, &[sighting], &inside), [(Cause::NotFound, Certainty::Certain)]);
}

#[test]
fn what_name_servers_say() {
    use Certainty::{Certain, Warning};
    let without =
        |a: Records<std::net::Ipv4Addr>, aaaa: Records<std::net::Ipv6Addr>| Dns { a, aaaa, ..dns() };
    let failed = |failure: DnsFailure| without(Records::Failed(failure.clone()), Records::Failed(failure));
    let says = Some("signature\u{7} expired".to_owned());
    for (dns, expected) in [
        (dns(), None),
        (
            without(Records::NoName { confirmed: true }, Records::NoName { confirmed: true }),
            Some((Cause::NoName, Certain)),
        ),
        (
            without(Records::NoName { confirmed: false }, Records::NoName { confirmed: false }),
            Some((Cause::NoName, Warning)),
        ),
        (
            Dns {
                in_hosts_file: true,
                ..without(Records::NoName { confirmed: true }, Records::NoName { confirmed: true })
            },
            Some((Cause::NoName, Warning)),
        ),
        (
            without(Records::Empty { confirmed: true }, Records::Empty { confirmed: true }),
            Some((Cause::NoAddress, Certain)),
        ),
        (
            without(Records::Empty { confirmed: true }, Records::Empty { confirmed: false }),
            Some((Cause::NoAddress, Warning)),
        ),
        (failed(DnsFailure::ServFail { confirmed: true, says: None }), Some((Cause::DnsServfail, Certain))),
        (failed(DnsFailure::ServFail { confirmed: false, says: None }), Some((Cause::DnsServfail, Warning))),
        (
            failed(DnsFailure::Bogus { own: Signatures::Unheard, says: says.clone() }),
            Some((Cause::DnssecBogus, Warning)),
        ),
        (
            failed(DnsFailure::Bogus { own: Signatures::Flawed(Flaw::Unsigned), says }),
            Some((Cause::DnssecBogus, Certain)),
        ),
        (failed(DnsFailure::Silent), Some((Cause::DnsUnanswered, Warning))),
        (failed(DnsFailure::Refused), Some((Cause::DnsUnanswered, Warning))),
        (
            Dns { aaaa: Records::Failed(DnsFailure::ServFail { confirmed: true, says: None }), ..dns() },
            Some((Cause::DnsServfail, Warning)),
        ),
        (
            Dns { caa: Records::Failed(DnsFailure::ServFail { confirmed: true, says: None }), ..dns() },
            Some((Cause::DnsServfail, Certain)),
        ),
        (
            Dns {
                caa: Records::Found(vec![CaaRecord {
                    critical: false,
                    tag: "issue".into(),
                    value: "ca.example".into(),
                }]),
                ..dns()
            },
            Some((Cause::CaaUncertain, Warning)),
        ),
    ] {
        assert_eq!(diagnosed(Some(&dns), &[], &surroundings()), Vec::from_iter(expected), "{dns:?}");
    }
}

#[test]
fn why_signatures_do_not_validate() {
    let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_790_000_000);
    for (own, words) in [
        (Signatures::Unheard, "one resolver says; the zone's own servers were not heard"),
        (
            Signatures::Unexplained,
            "one resolver says; the zone's own servers show nothing that would explain it",
        ),
        (
            Signatures::Flawed(Flaw::Unsigned),
            "the zone above announces a key (DS), and they send no signatures",
        ),
        (
            Signatures::Flawed(Flaw::OtherKeys),
            "none of their keys is the one that the zone above announces (DS)",
        ),
        (Signatures::Flawed(Flaw::Expired(at)), "their signatures ran out at 2026-09-21T14:13:20Z"),
        (Signatures::Flawed(Flaw::NotYet(at)), "their signatures do not count before 2026-09-21T14:13:20Z"),
    ] {
        let is_certain = matches!(own, Signatures::Flawed(_));
        let failure = DnsFailure::Bogus { own, says: Some("signature expired".to_owned()) };
        let dns =
            Dns { a: Records::Failed(failure.clone()), aaaa: Records::Failed(failure.clone()), ..dns() };
        let findings = found(Some(&dns), &[], &[], &surroundings());
        assert_eq!(findings.len(), 1);
        assert!(
            findings[0].seen.contains(words) && findings[0].seen.contains("signature expired"),
            "{own:?}"
        );
        assert_eq!(findings[0].certainty == Certainty::Certain, is_certain);
        // CAA alone: the CA fails on that as surely.
        let dns = Dns { caa: Records::Failed(failure), ..self::dns() };
        let findings = found(Some(&dns), &[], &[], &surroundings());
        assert_eq!((findings[0].cause, findings[0].issuer.as_deref()), (Cause::DnssecBogus, None));
        assert_eq!(findings[0].certainty == Certainty::Certain, is_certain);
    }
}

#[test]
fn caa_is_certain_where_the_zones_own_servers_say_so_for_each_issuer() {
    use Certainty::{Certain, Warning};
    let identities = [["one.example".to_owned()], ["two.example".to_owned()]];
    let asker = |name, identities| Asker {
        name,
        caa: Question { identities, account_uri: None, method: "http-01", wildcard: false },
    };
    let issuers = [asker("first", &identities[0]), asker("second", &identities[1]), asker("unnamed", &[])];
    let records =
        |value: &str| vec![CaaRecord { critical: false, tag: "issue".to_owned(), value: value.to_owned() }];
    let word = |value: &str| CaaWord::Found { records: records(value), at: "b.example".parse().unwrap() };
    const SAY: &str = "the zone's own servers say";
    let (forbidden, uncertain) = (Cause::CaaForbidden, Cause::CaaUncertain);
    // What a resolver says, what the zone's own servers say, what is found of which issuer, and its words.
    type Row<'a> = (&'a str, CaaWord, Vec<(&'a str, Cause, Certainty, &'a str)>);
    let unnamed = ("unnamed", uncertain, Warning, "is meant is not known");
    let rows: Vec<Row<'_>> = vec![
        ("one.example", CaaWord::NotAsked, vec![("second", uncertain, Warning, "were not heard"), unnamed]),
        ("one.example", CaaWord::Unheard, vec![("second", uncertain, Warning, "were not heard"), unnamed]),
        (
            "one.example",
            CaaWord::Nothing,
            vec![("second", uncertain, Warning, "say: there are no such"), unnamed],
        ),
        ("one.example", word("one.example"), vec![("second", forbidden, Certain, SAY), unnamed]),
        (
            "one.example",
            word("two.example"),
            vec![
                ("first", uncertain, Warning, "say: CAA of b.example: 0 issue \"two.example\""),
                ("second", uncertain, Warning, "a resolver says: CAA of a.example: 0 issue \"one.example\""),
                unnamed,
            ],
        ),
        (
            "other.example",
            word(";"),
            vec![
                ("first", forbidden, Certain, "0 issue \";\", the zone's own servers say"),
                ("second", forbidden, Certain, SAY),
                unnamed,
            ],
        ),
        (
            ";",
            word(";"),
            vec![
                ("first", forbidden, Certain, SAY),
                ("second", forbidden, Certain, SAY),
                ("unnamed", forbidden, Certain, SAY),
            ],
        ),
        (
            ";",
            word("one.example"),
            vec![
                ("first", uncertain, Warning, "a resolver says"),
                ("second", forbidden, Certain, SAY),
                unnamed,
            ],
        ),
    ];
    for (heard, word, expected) in rows {
        let dns = Dns { caa: Records::Found(records(heard)), caa_word: word.clone(), ..dns() };
        let findings = found(Some(&dns), &issuers, &[], &surroundings());
        let seen: Vec<_> =
            findings.iter().map(|f| (f.issuer.as_deref().unwrap(), f.cause, f.certainty)).collect();
        let wanted: Vec<_> =
            expected.iter().map(|(i, cause, certainty, _)| (*i, *cause, *certainty)).collect();
        assert_eq!(seen, wanted, "{heard} {word:?}");
        for (finding, (issuer, .., words)) in findings.iter().zip(&expected) {
            let text = format!("{} {}", finding.seen, finding.means);
            assert!(text.contains(words) && text.contains(issuer), "{words}: {text}");
        }
    }
}
