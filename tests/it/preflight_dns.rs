//! The preflight's resolver among name servers that fail, lie and fall silent.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use hickory_proto::rr::rdata::opt::EdnsOption;
use wicketgate::hostname::Hostname;
use wicketgate::preflight::caa::{self, Question, Verdict};
use wicketgate::preflight::dns::Resolver;
use wicketgate::preflight::evidence::{CaaRecord, CaaWord, Dns, DnsFailure, Flaw, Records, Signatures};

use crate::bed::nameserver::{
    Asked, NameServer, a, aaaa, authoritative, caa, cname, code, dnskey, ds, framed, name, ns, one, referral,
    rrsig, soa, with,
};
use crate::bed::process::{Process, run};
use crate::bed::{Bed, namespace::Namespace, needs, until};

const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// Where the zone's own server is.
const ZONE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// Where another zone's own server is.
const LOWER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
const SHOWN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);

async fn look_at(servers: &[SocketAddr], authorities: u16, name: &str) -> Dns {
    let resolver = Resolver::new(servers).unwrap().with_authorities_at(authorities);
    resolver.look(&name.parse().unwrap(), &|_| false).await
}

async fn look(servers: &[&NameServer], name: &str) -> Dns {
    let servers: Vec<SocketAddr> = servers.iter().map(|server| server.address()).collect();
    look_at(&servers, servers[0].port(), name).await
}

fn hostname(text: &str) -> Hostname {
    Hostname::parse_any(text).unwrap()
}

fn nxdomain(empty: Message) -> Message {
    code(empty, ResponseCode::NXDomain)
}

fn servfail(empty: Message) -> Message {
    code(empty, ResponseCode::ServFail)
}

#[track_caller]
fn unusable<T: std::fmt::Debug>(records: &Records<T>, words: &str) {
    match records {
        Records::Failed(DnsFailure::Unusable(why)) => assert!(why.contains(words), "{why}"),
        other => panic!("{other:?}"),
    }
}

fn failed<T>(failure: DnsFailure) -> Records<T> {
    Records::Failed(failure)
}

#[tokio::test]
async fn addresses_and_the_nearest_caa_records() {
    let bed = Bed::new();
    let server = NameServer::saying(bed.port(), |asked, empty| match (asked.name.as_str(), asked.kind) {
        ("www.shop.test.example", RecordType::A) => {
            let owner = "www.shop.test.example";
            with(empty, [a(owner, SHOWN), a("other.example", HERE), a(owner, SHOWN), a(owner, ZONE)])
        }
        ("www.shop.test.example", RecordType::AAAA) => {
            with(empty, [aaaa("www.shop.test.example", "2001:db8::7")])
        }
        ("test.example", RecordType::CAA) => {
            let owner = "test.example";
            with(empty, [caa(owner, "ISSUE", b"ca.example"), caa(owner, "iodef", b"mailto:\x1b[2J\xff")])
        }
        ("example", RecordType::CAA) => with(empty, [caa("example", "issue", b";")]),
        _ => empty,
    });
    let seen = look(&[&server], "www.shop.test.example").await;
    let record = |tag: &str, value: &str| CaaRecord { critical: false, tag: tag.into(), value: value.into() };
    let expected = Dns {
        a: Records::Found(vec![SHOWN, ZONE]),
        aaaa: Records::Found(vec!["2001:db8::7".parse().unwrap()]),
        caa: Records::Found(vec![record("issue", "ca.example"), record("iodef", "mailto:\u{1b}[2J\u{fffd}")]),
        caa_at: Some(hostname("test.example")),
        caa_word: CaaWord::NotAsked,
        in_hosts_file: false,
    };
    assert_eq!(seen, expected);
    let asked = server.asked();
    let plain = |asked: &Asked| asked.recursive && asked.edns && !asked.unchecked && !asked.tcp;
    assert!(asked.iter().all(plain), "{asked:?}");
    assert!(asked.iter().all(|asked| asked.name.ends_with("example")), "no search domain: {asked:?}");
}

#[tokio::test]
async fn nothing_at_all_is_nothing() {
    let bed = Bed::new();
    let server = NameServer::saying(bed.port(), |asked, empty| match asked.kind {
        RecordType::A => with(empty, [a("www.test.example", SHOWN)]),
        _ => empty,
    });
    let seen = look(&[&server], "www.test.example").await;
    assert_eq!(seen.aaaa, Records::Empty { confirmed: false });
    assert_eq!((seen.caa, seen.caa_at), (Records::Empty { confirmed: false }, None));
    assert!(!server.asked().iter().any(|asked| asked.kind == RecordType::NS), "nothing to confirm");
}

#[tokio::test]
async fn a_long_answer_comes_over_tcp() {
    let bed = Bed::new();
    let values: Vec<String> = (0..960).map(|i| format!("{i}.ca.example; padding=0123456789")).collect();
    let records: Vec<_> = values.iter().map(|v| caa("www.test.example", "issue", v.as_bytes())).collect();
    let server = NameServer::start(HERE, bed.port(), move |asked, mut empty| {
        if asked.kind != RecordType::CAA {
            return one(&empty);
        }
        if asked.tcp {
            let said = framed(&with(empty, records.clone()));
            assert!(said[1].len() > 60_000);
            return said;
        }
        empty.metadata.truncation = true;
        one(&empty)
    });
    let seen = look(&[&server], "www.test.example").await;
    let Records::Found(found) = seen.caa else { panic!("{:?}", seen.caa) };
    assert!(found.iter().map(|record| &record.value).eq(&values), "{} records", found.len());
}

#[tokio::test]
async fn tcp_that_fails_is_told() {
    let bed = Bed::new();
    let server = NameServer::start(HERE, bed.port(), |asked, mut empty| match (asked.tcp, asked.kind) {
        (false, _) => {
            empty.metadata.truncation = true;
            one(&empty)
        }
        (true, RecordType::A) => vec![vec![0xff, 0xff], vec![0; 100]],
        (true, RecordType::AAAA) => vec![vec![0, 3], vec![1, 2, 3]],
        (true, _) => {
            empty.metadata.truncation = true;
            framed(&with(empty, [caa("www.test.example", "issue", b"ca.example")]))
        }
    });
    let seen = look(&[&server], "www.test.example").await;
    unusable(&seen.a, "over TCP: the connection ends within the answer");
    unusable(&seen.aaaa, "over TCP: it sends an answer with the wrong number");
    unusable(&seen.caa, "over TCP: it is cut off there too");
}

#[tokio::test]
async fn nonsense_is_no_answer() {
    let bed = Bed::new();
    let server = NameServer::start(HERE, bed.port(), |asked, mut empty| match asked.kind {
        RecordType::A => {
            empty.queries[0].name = name("www.other.example");
            one(&with(empty, [a("www.other.example", SHOWN)]))
        }
        RecordType::AAAA => {
            let mut garbage = empty.metadata.id.to_be_bytes().to_vec();
            garbage.extend([0x80, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xc0, 0x0c, 0xc0, 0x0c]);
            vec![garbage]
        }
        _ => {
            let mut claims = empty.metadata.id.to_be_bytes().to_vec();
            claims.extend([0x80, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0]);
            vec![claims]
        }
    });
    let seen = look(&[&server], "www.test.example").await;
    unusable(&seen.a, "sends an answer to another question");
    unusable(&seen.aaaa, "sends an answer that is no DNS message");
    unusable(&seen.caa, "sends an answer to another question");
}

#[tokio::test]
async fn a_guessed_answer_does_not_keep_the_true_one_out() {
    let bed = Bed::new();
    let server = NameServer::start(HERE, bed.port(), |asked, empty| {
        if asked.kind != RecordType::A {
            return one(&empty);
        }
        let mut guess = with(empty.clone(), [a("www.test.example", HERE)]);
        guess.metadata.id = guess.metadata.id.wrapping_add(1);
        let truth = with(empty, [a("www.test.example", SHOWN)]);
        [one(&guess), vec![vec![], vec![0; 3]], one(&truth)].concat()
    });
    assert_eq!(look(&[&server], "www.test.example").await.a, Records::Found(vec![SHOWN]));
}

#[tokio::test]
async fn silence_ends() {
    let bed = Bed::new();
    let server = NameServer::start(HERE, bed.port(), |asked, mut empty| {
        empty.metadata.id = empty.metadata.id.wrapping_add(1);
        if asked.kind == RecordType::AAAA { one(&empty) } else { Vec::new() }
    });
    let seen = look(&[&server], "www.test.example").await;
    assert_eq!(seen.a, failed(DnsFailure::Silent));
    unusable(&seen.aaaa, "sends an answer with the wrong number");
    assert_eq!(seen.caa, failed(DnsFailure::Silent));
    let asked = server.asked();
    assert_eq!(asked.iter().filter(|asked| asked.kind == RecordType::A).count(), 2, "{asked:?}");
}

#[tokio::test]
async fn another_server_answers_where_one_does_not() {
    let bed = Bed::new();
    let port = bed.port();
    let silent = NameServer::start(HERE, port, |_, _| Vec::new());
    let refusing = NameServer::start(ZONE, port, |_, empty| one(&code(empty, ResponseCode::Refused)));
    let third = NameServer::start(LOWER, port, |asked, empty| match asked.kind {
        RecordType::A => one(&with(empty, [a("www.test.example", SHOWN)])),
        _ => one(&empty),
    });
    let seen = look(&[&silent, &refusing, &third], "www.test.example").await;
    assert_eq!(seen.a, Records::Found(vec![SHOWN]));
    assert_eq!(look(&[&refusing], "www.test.example").await.a, failed(DnsFailure::Refused));
}

#[tokio::test]
async fn where_nobody_listens_it_says_so() {
    let bed = Bed::new();
    let address = SocketAddr::from((HERE, bed.port()));
    let seen = look_at(&[address], address.port(), "www.test.example").await;
    unusable(&seen.a, &format!("{address}: connection refused"));
}

#[tokio::test]
async fn a_server_without_extensions_is_asked_without() {
    let bed = Bed::new();
    let server = NameServer::saying(bed.port(), |asked, mut empty| match (asked.edns, asked.kind) {
        (true, _) => {
            empty.edns = None;
            empty.queries.clear();
            code(empty, ResponseCode::FormErr)
        }
        (false, RecordType::A) => with(empty, [a("www.test.example", SHOWN)]),
        (false, RecordType::AAAA) => code(empty, ResponseCode::NotImp),
        (false, _) => empty,
    });
    let seen = look(&[&server], "www.test.example").await;
    assert_eq!(seen.a, Records::Found(vec![SHOWN]));
    unusable(&seen.aaaa, "NOTIMP");
}

#[tokio::test]
async fn a_failed_check_of_signatures_is_told_from_a_failing_server() {
    let bed = Bed::new();
    let times = AtomicUsize::new(0);
    let server = NameServer::saying(bed.port(), move |asked, mut empty| {
        if let Some(edns) = empty.edns.as_mut() {
            let text = b"\0\x07www.test.example \x1b[31mhas expired";
            edns.options_mut().insert(EdnsOption::Unknown(15, text.to_vec()));
        }
        match (asked.kind, asked.unchecked) {
            (RecordType::A, true) => with(empty, [a("www.test.example", SHOWN)]),
            // It fails the first time only.
            (RecordType::AAAA, false) if times.fetch_add(1, Ordering::SeqCst) > 0 => {
                with(empty, [aaaa("www.test.example", "2001:db8::7")])
            }
            (RecordType::AAAA, true) => empty,
            _ => servfail(empty),
        }
    });
    let seen = look(&[&server], "www.test.example").await;
    let says = || Some("signature expired: www.test.example  [31mhas expired".to_owned());
    assert_eq!(seen.a, failed(DnsFailure::Bogus { own: Signatures::Unheard, says: says() }));
    assert_eq!(seen.aaaa, Records::Found(vec!["2001:db8::7".parse::<Ipv6Addr>().unwrap()]));
    assert_eq!(seen.caa, failed(DnsFailure::ServFail { confirmed: false, says: says() }));
}

#[tokio::test]
async fn a_failure_above_the_records_found_does_not_count() {
    let bed = Bed::new();
    let server = NameServer::saying(bed.port(), |asked, empty| match (asked.name.as_str(), asked.kind) {
        ("www.test.example", RecordType::CAA) => with(
            empty,
            [cname("www.test.example", "cdn.example"), caa("cdn.example", "issue", b"ca.example")],
        ),
        (_, RecordType::CAA) => servfail(empty),
        _ => empty,
    });
    let seen = look(&[&server], "www.test.example").await;
    assert!(matches!(seen.caa, Records::Found(_)), "{:?}", seen.caa);
    assert_eq!(seen.caa_at, Some(hostname("www.test.example")));
    let below = look(&[&server], "x.www.test.example").await;
    assert!(matches!(below.caa, Records::Failed(_)), "the name itself fails: {:?}", below.caa);
}

#[tokio::test]
async fn aliases_are_followed_and_end() {
    let bed = Bed::new();
    let server = NameServer::saying(bed.port(), |asked, empty| {
        let number = |prefix: &str| asked.name.strip_prefix(prefix)?.split('.').next()?.parse::<u32>().ok();
        match (asked.name.as_str(), asked.kind) {
            (_, RecordType::CAA) => empty,
            ("www.test.example", _) => with(empty, [cname("www.test.example", "cdn.example")]),
            ("cdn.example", RecordType::A) => with(empty, [a("cdn.example", SHOWN)]),
            ("cdn.example", _) => nxdomain(empty),
            ("one.example", _) => with(empty, [cname("one.example", "two.example")]),
            ("two.example", _) => with(empty, [cname("two.example", "one.example")]),
            _ => match number("n") {
                Some(n) => with(empty, [cname(&asked.name, &format!("n{}.example", n + 1))]),
                None => empty,
            },
        }
    });
    let seen = look(&[&server], "www.test.example").await;
    assert_eq!(seen.a, Records::Found(vec![SHOWN]));
    assert_eq!(seen.aaaa, Records::NoName { confirmed: false });
    unusable(&look(&[&server], "one.example").await.a, "the CNAME records go in a circle: one.example.");
    unusable(&look(&[&server], "n0.example").await.a, "more than 10 CNAME records in a row");
}

#[tokio::test]
async fn a_server_of_zones_is_no_resolver() {
    let bed = Bed::new();
    let server = NameServer::saying(bed.port(), |_, empty| referral(empty, "example", "ns.example", LOWER));
    let seen = look(&[&server], "www.test.example").await;
    unusable(&seen.a, "the name server does not resolve names for this machine");
}

/// A resolver that has heard no good of `www.test.example`, and knows who serves `test.example`.
fn resolver_of_a_zone(port: u16, absence: fn(Message) -> Message) -> NameServer {
    NameServer::saying(port, move |asked, empty| match (asked.name.as_str(), asked.kind) {
        ("test.example", RecordType::NS) => with(empty, [ns("test.example", "ns.test.example")]),
        ("ns.test.example", RecordType::A) => with(empty, [a("ns.test.example", ZONE)]),
        ("test.example", _) | ("ns.test.example", _) | ("example", _) => empty,
        _ => absence(empty),
    })
}

#[tokio::test]
async fn the_zones_own_server_confirms() {
    let bed = Bed::new();
    let port = bed.port();
    type Absence = fn(Message) -> Message;
    let no_name = |confirmed| Records::NoName { confirmed };
    let no_data = |confirmed| Records::Empty { confirmed };
    let fails = |confirmed| failed(DnsFailure::ServFail { confirmed, says: None });
    let cases: [(&str, Absence, Absence, Records<Ipv4Addr>); 15] = [
        ("says so", nxdomain, |m| authoritative(nxdomain(m)), no_name(true)),
        ("says so, with its start", |m| m, starting, no_data(true)),
        ("is not the zone's", nxdomain, nxdomain, no_name(false)),
        ("knows the name", nxdomain, authoritative, no_name(false)),
        (
            "has the record",
            nxdomain,
            |m| authoritative(with(m, [a("www.test.example", SHOWN)])),
            no_name(false),
        ),
        ("has no such name", |m| m, |m| authoritative(nxdomain(m)), no_data(false)),
        ("speaks for another zone", nxdomain, elsewhere, no_name(false)),
        ("refers and claims", nxdomain, |m| authoritative(down(m)), no_name(false)),
        (
            "refers to itself",
            nxdomain,
            |m| referral(m, "test.example", "ns.test.example", ZONE),
            no_name(false),
        ),
        ("refers up", nxdomain, |m| referral(m, "example", "ns.test.example", ZONE), no_name(false)),
        ("refers down for ever", nxdomain, down, no_name(false)),
        ("fails too", servfail, servfail, fails(true)),
        ("refuses", servfail, |m| code(m, ResponseCode::Refused), fails(true)),
        ("is well", servfail, authoritative, fails(false)),
        ("is a resolver that fails", servfail, resolving, fails(false)),
    ];
    for (what, heard, said, expected) in cases {
        let resolver = resolver_of_a_zone(port, heard);
        let zone = NameServer::start(ZONE, port, move |_, empty| one(&said(empty)));
        let seen = look(&[&resolver], "www.test.example").await;
        assert_eq!(seen.a, expected, "the zone's server {what}");
        let asked = zone.asked();
        assert!(!asked.is_empty() && asked.iter().all(|asked| !asked.recursive), "{what}: {asked:?}");
        assert!(asked.len() <= 30, "{what}: {} questions", asked.len());
    }
}

fn starting(mut message: Message) -> Message {
    message.authorities.push(soa("test.example"));
    authoritative(message)
}

fn elsewhere(mut message: Message) -> Message {
    message.authorities.push(soa("other.example"));
    authoritative(nxdomain(message))
}

fn down(message: Message) -> Message {
    referral(message, "www.test.example", "ns.test.example", ZONE)
}

fn resolving(mut message: Message) -> Message {
    message.metadata.recursion_available = true;
    servfail(message)
}

#[tokio::test]
async fn a_lie_or_silence_confirms_nothing() {
    let bed = Bed::new();
    let port = bed.port();
    let resolver = resolver_of_a_zone(port, nxdomain);
    let zone = NameServer::start(ZONE, port, |asked, mut empty| {
        if asked.kind == RecordType::A {
            return Vec::new();
        }
        empty.queries[0].name = name("other.example");
        one(&authoritative(nxdomain(empty)))
    });
    let seen = look(&[&resolver], "www.test.example").await;
    assert_eq!(seen.a, Records::NoName { confirmed: false });
    assert_eq!(seen.aaaa, Records::NoName { confirmed: false });
    assert!(!zone.asked().is_empty());
}

#[tokio::test]
async fn a_resolver_that_is_the_zones_server_confirms_itself() {
    let bed = Bed::new();
    let server = NameServer::saying(bed.port(), |asked, empty| match asked.kind {
        RecordType::CAA => empty,
        _ => authoritative(nxdomain(empty)),
    });
    let seen = look(&[&server], "www.test.example").await;
    assert_eq!(seen.a, Records::NoName { confirmed: true });
    assert!(!server.asked().iter().any(|asked| asked.kind == RecordType::NS), "nobody else is asked");
}

#[tokio::test]
async fn a_delegation_is_followed_to_servers_that_fail() {
    let bed = Bed::new();
    let port = bed.port();
    let resolver = resolver_of_a_zone(port, servfail);
    let _zone = NameServer::start(ZONE, port, |_, empty| {
        one(&referral(empty, "www.test.example", "ns.www.test.example", LOWER))
    });
    let lower = NameServer::start(LOWER, port, |_, empty| one(&code(empty, ResponseCode::Refused)));
    let seen = look(&[&resolver], "www.test.example").await;
    assert_eq!(seen.caa, failed(DnsFailure::ServFail { confirmed: true, says: None }));
    assert!(!lower.asked().is_empty());
}

/// A resolver that has heard of a CAA record of `test.example`, and knows who serves the zones.
fn resolver_of_caa(port: u16, claims: fn(Message) -> Message) -> NameServer {
    let answer = |asked: &Asked, empty| match (asked.name.as_str(), asked.kind) {
        ("www.test.example", RecordType::A) => with(empty, [a("www.test.example", SHOWN)]),
        ("test.example", RecordType::CAA) => with(empty, [caa("test.example", "issue", b"ca.example")]),
        ("test.example", RecordType::NS) => with(empty, [ns("test.example", "ns.test.example")]),
        ("ns.test.example", RecordType::A) => with(empty, [a("ns.test.example", ZONE)]),
        ("cdn.example", RecordType::NS) => with(empty, [ns("cdn.example", "ns.cdn.example")]),
        ("ns.cdn.example", RecordType::A) => with(empty, [a("ns.cdn.example", LOWER)]),
        _ => empty,
    };
    NameServer::saying(port, move |asked, empty| claims(answer(asked, empty)))
}

async fn weigh(servers: &[&NameServer], name: &str) -> CaaWord {
    let addresses: Vec<SocketAddr> = servers.iter().map(|server| server.address()).collect();
    let resolver = Resolver::new(&addresses).unwrap().with_authorities_at(addresses[0].port());
    resolver.look(&name.parse().unwrap(), &|_| true).await.caa_word
}

/// What a zone's own server makes of a name and an empty answer.
type Say = Box<dyn Fn(&str, Message) -> Message + Send + Sync>;

fn say(empty: Message, owner: &str, value: &str) -> Message {
    authoritative(with(empty, [caa(owner, "issue", value.as_bytes())]))
}

/// The zone's own server has that record for the zone, and says something else of the name below.
fn apex(value: &'static str, below: impl Fn(Message) -> Message + Send + Sync + 'static) -> Say {
    Box::new(move |asked, empty| match asked {
        "test.example" => say(empty, "test.example", value),
        _ => below(empty),
    })
}

#[tokio::test]
async fn caa_is_heard_at_the_zones_own_servers() {
    const WWW: &str = "www.test.example";
    let bed = Bed::new();
    let port = bed.port();
    let resolver = resolver_of_caa(port, |m| m);
    let found = |at: &str, value: &str| CaaWord::Found {
        records: vec![CaaRecord { critical: false, tag: "issue".into(), value: value.into() }],
        at: hostname(at),
    };
    let (here, lower) = (found("test.example", "ca.example"), found(WWW, "at-lower.example"));
    let leads = |m| with(m, [cname(WWW, "cdn.example")]);
    let rows: Vec<(&str, Say, CaaWord)> = vec![
        ("says the same", apex("ca.example", authoritative), here.clone()),
        ("has replaced them", apex("b.example", authoritative), found("test.example", "b.example")),
        ("has removed them", Box::new(|_, m| authoritative(m)), CaaWord::Nothing),
        ("denies the name below", apex("ca.example", |m| authoritative(nxdomain(m))), here.clone()),
        (
            "has some of the name below",
            apex("ca.example", |m| say(m, WWW, "b.example")),
            found(WWW, "b.example"),
        ),
        ("fails for the name below", apex("ca.example", servfail), CaaWord::Unheard),
        (
            "has the name below elsewhere",
            apex("ca.example", |m| referral(m, WWW, "ns.www.test.example", LOWER)),
            lower.clone(),
        ),
        ("leads to another zone", apex("ca.example", move |m| authoritative(leads(m))), lower.clone()),
        (
            "leads to another zone and speaks for it",
            apex("ca.example", move |m| say(leads(m), "cdn.example", "not-the-zones.example")),
            lower,
        ),
        (
            "leads in a circle",
            apex("ca.example", |m| authoritative(with(m, [cname(WWW, WWW)]))),
            CaaWord::Unheard,
        ),
        ("refuses", Box::new(|_, m| code(m, ResponseCode::Refused)), CaaWord::Unheard),
        (
            "is a resolver",
            Box::new(|asked, m| with(m, [caa(asked, "issue", b"ca.example")])),
            CaaWord::Unheard,
        ),
        ("refers up", Box::new(|_, m| referral(m, "example", "ns.test.example", ZONE)), CaaWord::Unheard),
    ];
    let _lower = NameServer::start(LOWER, port, |asked, m| one(&say(m, &asked.name, "at-lower.example")));
    for (what, said, expected) in rows {
        let zone = NameServer::start(ZONE, port, move |asked, empty| one(&said(&asked.name, empty)));
        assert_eq!(weigh(&[&resolver], WWW).await, expected, "the zone's server {what}");
        let asked = zone.asked();
        assert!(!asked.is_empty() && asked.iter().all(|asked| !asked.recursive), "{what}: {asked:?}");
    }
    // Nobody is there.
    assert_eq!(weigh(&[&resolver], WWW).await, CaaWord::Unheard);
    // Where nothing depends on it, nobody is asked.
    let before = resolver.asked().len();
    assert_eq!(look(&[&resolver], WWW).await.caa_word, CaaWord::NotAsked);
    assert!(!resolver.asked()[before..].iter().any(|asked| asked.kind == RecordType::NS));
}

#[tokio::test]
async fn caa_of_a_server_that_is_named_and_the_zones_own_needs_no_other() {
    let bed = Bed::new();
    let server = NameServer::saying(bed.port(), |asked, empty| match asked.name.as_str() {
        "test.example" if asked.kind == RecordType::CAA => say(empty, "test.example", "ca.example"),
        _ => authoritative(empty),
    });
    let CaaWord::Found { at, .. } = weigh(&[&server], "www.test.example").await else { panic!("not found") };
    assert_eq!(at, hostname("test.example"));
    assert!(!server.asked().iter().any(|asked| asked.kind == RecordType::NS), "{:?}", server.asked());
}

/// A resolver that checks the signatures of `test.example`, and does not find them good.
fn resolver_of_a_bogus_zone(port: u16) -> NameServer {
    NameServer::saying(port, |asked, empty| match (asked.name.as_str(), asked.kind) {
        (name, _) if name.ends_with("test.example") && !asked.unchecked => servfail(empty),
        ("test.example", RecordType::NS) => with(empty, [ns("test.example", "ns.test.example")]),
        ("ns.test.example", RecordType::A) => with(empty, [a("ns.test.example", ZONE)]),
        ("example", RecordType::NS) => with(empty, [ns("example", "ns.example")]),
        ("ns.example", RecordType::A) => with(empty, [a("ns.example", LOWER)]),
        ("www.test.example", RecordType::A) => with(empty, [a("www.test.example", SHOWN)]),
        _ => empty,
    })
}

#[tokio::test]
async fn why_signatures_do_not_validate_shows_at_the_zones_own_servers() {
    use RecordType::{A, DNSKEY, DS};
    const WWW: &str = "www.test.example";
    const TOP: &str = "test.example";
    let bed = Bed::new();
    let port = bed.port();
    let resolver = resolver_of_a_bogus_zone(port);
    let day = std::time::Duration::from_secs(86_400);
    let shown = |records: &Records<Ipv4Addr>| match records {
        Records::Failed(DnsFailure::Bogus { own, .. }) => *own,
        other => panic!("{other:?}"),
    };
    type Records3 = [Vec<hickory_proto::rr::Record>; 3];
    // What the zone above says of DS, and the zone of its keys and of the address.
    let good = || -> Records3 {
        [
            vec![ds(TOP, false), rrsig(TOP, DS, -1..1)],
            vec![dnskey(TOP), rrsig(TOP, DNSKEY, -3..3)],
            vec![a(WWW, SHOWN), rrsig(WWW, A, -3..3)],
        ]
    };
    let with_ds = |records| -> Records3 { [records, good()[1].clone(), vec![a(WWW, SHOWN)]] };
    let with_address = |records| -> Records3 { [good()[0].clone(), good()[1].clone(), records] };
    type Wanted = fn(Signatures, std::time::SystemTime) -> bool;
    let nothing: Wanted = |own, _| own == Signatures::Unexplained;
    let rows: Vec<(&str, Records3, Wanted)> = vec![
        ("are current", good(), nothing),
        (
            "ran out",
            with_address(vec![a(WWW, SHOWN), rrsig(WWW, A, -9..-2)]),
            |own, now| matches!(own, Signatures::Flawed(Flaw::Expired(at)) if at < now),
        ),
        (
            "are of the future",
            with_address(vec![a(WWW, SHOWN), rrsig(WWW, A, 2..9)]),
            |own, now| matches!(own, Signatures::Flawed(Flaw::NotYet(at)) if at > now),
        ),
        ("are missing", with_address(vec![a(WWW, SHOWN)]), |own, _| {
            own == Signatures::Flawed(Flaw::Unsigned)
        }),
        ("are of other keys", with_ds(vec![ds(TOP, true), rrsig(TOP, DS, -1..1)]), |own, _| {
            own == Signatures::Flawed(Flaw::OtherKeys)
        }),
        ("are missing, and not announced", with_ds(vec![]), nothing),
        ("are missing, and a clock is wrong", with_ds(vec![ds(TOP, false), rrsig(TOP, DS, -9..-2)]), nothing),
    ];
    for (what, [above, keys, address], wanted) in rows {
        let above =
            NameServer::start(LOWER, port, move |asked, empty| match (asked.kind, asked.name.as_str()) {
                (DS, TOP) => one(&authoritative(with(empty, above.clone()))),
                _ => one(&referral(empty, TOP, "ns.test.example", ZONE)),
            });
        let zone = NameServer::start(ZONE, port, move |asked, empty| {
            let records = match asked.kind {
                DNSKEY => keys.clone(),
                A if asked.name == WWW => address.clone(),
                _ => vec![],
            };
            one(&authoritative(with(empty, records)))
        });
        let seen = look(&[&resolver], WWW).await;
        let now = wicketgate::clock::now();
        assert!(wanted(shown(&seen.a), now), "the signatures {what}: {:?}", seen.a);
        if let Signatures::Flawed(Flaw::Expired(at)) = shown(&seen.a) {
            let age = now.duration_since(at).unwrap();
            assert!(age > day && age < day * 3, "{age:?}");
        }
        for server in [&above, &zone] {
            assert!(!server.asked().is_empty() && server.asked().iter().all(|asked| !asked.recursive));
        }
    }
    // Nobody is there.
    assert_eq!(shown(&look(&[&resolver], WWW).await.a), Signatures::Unheard);
}

/// What another implementation answers, as a second opinion on the wire format.
#[tokio::test]
async fn pebbles_name_server() {
    needs!("pebble-challtestsrv", "curl");
    let bed = Bed::new();
    let (port, management) = (bed.port(), bed.port());
    let _server = Process::start(
        "pebble-challtestsrv",
        Command::new("pebble-challtestsrv")
            .args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", ""])
            .args(["-defaultIPv4", "192.0.2.7"])
            .args(["-dns01", &format!("127.0.0.1:{port}")])
            .args(["-management", &format!("127.0.0.1:{management}")]),
    );
    let set = |path: &str, body: serde_json::Value| {
        until("the management interface obeys", || {
            let ran = run(Command::new("curl")
                .args(["--silent", "--fail", "--noproxy", "*", "--data", &body.to_string()])
                .arg(format!("http://127.0.0.1:{management}/{path}")));
            (ran.code == Some(0)).then_some(())
        });
    };
    set(
        "add-caa",
        serde_json::json!({"host": "test.example.", "policies": [{"tag": "issue", "value": "ca.example"}]}),
    );
    set("add-aaaa", serde_json::json!({"host": "six.test.example.", "addresses": ["2001:db8::6"]}));
    set("set-cname", serde_json::json!({"host": "alias.test.example.", "target": "six.test.example."}));
    set("set-servfail", serde_json::json!({"host": "fails.test.example."}));
    let server = [SocketAddr::from((HERE, port))];
    until("the name server answers", || {
        let socket = UdpSocket::bind((HERE, 0)).ok()?;
        socket.set_read_timeout(Some(std::time::Duration::from_millis(200))).ok()?;
        let ping = b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x01a\x07example\0\0\x01\0\x01";
        socket.send_to(ping, server[0]).ok()?;
        socket.recv(&mut [0; 512]).ok()
    });

    let plain = look_at(&server, port, "www.test.example").await;
    assert_eq!(plain.a, Records::Found(vec![SHOWN]));
    assert!(matches!(plain.aaaa, Records::Empty { .. }), "{plain:?}");
    assert_eq!(plain.caa_at, Some(hostname("test.example")));
    let Records::Found(records) = &plain.caa else { panic!("{plain:?}") };
    let verdict = |identity: &str| {
        let identities = [identity.to_owned()];
        let question =
            Question { identities: &identities, account_uri: None, method: "http-01", wildcard: false };
        caa::decide(records, &question)
    };
    assert_eq!(verdict("ca.example"), Verdict::Allowed);
    assert!(matches!(verdict("other.example"), Verdict::Forbidden { .. }));

    let six = Records::Found(vec!["2001:db8::6".parse().unwrap()]);
    assert_eq!(look_at(&server, port, "six.test.example").await.aaaa, six);
    assert_eq!(look_at(&server, port, "alias.test.example").await.aaaa, six);
    let fails = look_at(&server, port, "fails.test.example").await;
    assert!(matches!(fails.a, Records::Failed(DnsFailure::ServFail { .. })), "{fails:?}");
    assert!(matches!(fails.caa, Records::Failed(DnsFailure::ServFail { .. })), "{fails:?}");
}

/// Port 53, the files of the system, and a network that leads nowhere.
#[test]
fn in_a_network_of_its_own() {
    needs!("namespaces", "ip", "nsenter");
    let bed = Bed::new();
    let inside = Namespace::start(&bed, &["hosts.test.example"]);
    let conf = bed.write("resolv.conf", "search wrong.example\nnameserver 127.0.0.1\n");
    inside.sh(&format!("mount --bind {} /etc/resolv.conf", conf.display())).expect_code(0);
    let mut command = inside.command(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "preflight_dns::inside"]);
    let ran = run(&mut command).expect_code(0);
    assert!(ran.stdout.contains("1 passed"), "{}", ran.stdout);
}

#[tokio::test]
#[ignore = "in_a_network_of_its_own runs it where port 53 is free"]
async fn inside() {
    const PORT: u16 = 53;
    let resolver = resolver_of_a_zone(PORT, nxdomain);
    let zone = NameServer::start(ZONE, PORT, |_, empty| one(&authoritative(nxdomain(empty))));
    let system = Resolver::new(&[]).unwrap();
    let seen = system.look(&hostname("hosts.test.example"), &|_| true).await;
    assert_eq!(seen.a, Records::NoName { confirmed: true }, "the hosts file is no answer");
    assert!(seen.in_hosts_file);
    assert!(!zone.asked().is_empty());
    assert!(resolver.asked().iter().all(|asked| !asked.name.contains("wrong")), "{:?}", resolver.asked());
    assert!(!system.look(&hostname("www.test.example"), &|_| true).await.in_hosts_file);

    // The system's own resolver may call itself an authority, and is believed alone as little.
    drop((resolver, zone));
    let resolver = resolver_of_caa(PORT, authoritative);
    let zone = NameServer::start(ZONE, PORT, |_, empty| one(&authoritative(empty)));
    let seen = system.look(&hostname("www.test.example"), &|_| true).await;
    assert!(matches!(seen.caa, Records::Found(_)), "{:?}", seen.caa);
    assert_eq!(seen.caa_word, CaaWord::Nothing);
    assert!(!zone.asked().is_empty());
    drop(resolver);

    let nowhere = Resolver::new(&["192.0.2.1:53".parse().unwrap(), "[2001:db8::1]:53".parse().unwrap()]);
    let seen = nowhere.unwrap().look(&hostname("www.test.example"), &|_| true).await;
    unusable(&seen.a, "network unreachable");
    unusable(&seen.caa, "network unreachable");
}
