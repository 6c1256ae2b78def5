//! What the preflight makes of real servers that are in the way of a challenge, each of them built for real
//! on another machine: nginx, Squid, Apache, another wicketgate, packet filters, a name server, and
//! programs that answer as no good one does.
//!
//! The table that it finds is written to `target/preflight-situations.md`.

mod servers;

use std::fmt::Write;
use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;

use crate::bed::neighbours::{Neighbours, OURS};
use crate::bed::process::{Process, Ran, run_within};
use crate::bed::wicketgate::{PROGRAM, clean};
use crate::bed::zone::{Told, Zone};
use crate::bed::{Bed, needs, oddities, until};

use servers::Servers;

const NAME_SERVER: &str = "192.0.2.53";

/// A situation: what it is, the name, where the name leads, and what shall be found.
struct Situation {
    what: &'static str,
    name: &'static str,
    records: &'static [&'static str],
    cause: &'static str,
    certainty: &'static str,
    /// A part of the remedy; empty where there is nothing to do.
    remedy: &'static str,
}

const fn at(
    what: &'static str,
    name: &'static str,
    records: &'static [&'static str],
    cause: &'static str,
    certainty: &'static str,
    remedy: &'static str,
) -> Situation {
    Situation { what, name, records, cause, certainty, remedy }
}

const CERTAIN: &str = "certain";
const WARNING: &str = "warning";
const FINE: &str = "fine";

const SITUATIONS: &[Situation] = &[
    at("the gate itself", "own.example", &["192.0.2.1"], "answered", FINE, ""),
    at("nginx passes challenges on", "passed.example", &["192.0.2.26"], "answered", FINE, ""),
    at(
        "nginx redirects to https with a certificate of its own, and passes on there",
        "https.example",
        &["192.0.2.27"],
        "answered",
        FINE,
        "",
    ),
    at(
        "nginx redirects to a bare address",
        "bare.example",
        &["192.0.2.30"],
        "redirect-to-address",
        WARNING,
        "redirect to a name",
    ),
    at(
        "Squid's http_access forbids",
        "squid.example",
        &["192.0.2.40"],
        "forbidden",
        CERTAIN,
        "http_access allow acme",
    ),
    at("Squid's parent is away", "parent.example", &["192.0.2.41"], "bad-gateway", CERTAIN, "cache_peer"),
    at(
        "nginx denies",
        "denied.example",
        &["192.0.2.11"],
        "forbidden",
        CERTAIN,
        "location ^~ /.well-known/acme-challenge/",
    ),
    at(
        "Apache forbids",
        "apache.example",
        &["192.0.2.42"],
        "forbidden",
        CERTAIN,
        "ProxyPass /.well-known/acme-challenge/",
    ),
    at(
        "nginx has another document root",
        "root.example",
        &["192.0.2.12"],
        "not-found",
        CERTAIN,
        "proxy_pass http://",
    ),
    at(
        "Apache has another document root",
        "apache-root.example",
        &["192.0.2.43"],
        "not-found",
        CERTAIN,
        "ProxyPass",
    ),
    at(
        "nginx asks for a password",
        "login.example",
        &["192.0.2.13"],
        "login-wall",
        CERTAIN,
        "auth_basic off",
    ),
    at("nginx redirects in a circle", "circle.example", &["192.0.2.14"], "redirect-loop", CERTAIN, "exempt"),
    at(
        "nginx redirects everything to a home page elsewhere",
        "moved.example",
        &["192.0.2.15"],
        "redirect-elsewhere",
        CERTAIN,
        "exempt",
    ),
    at(
        "nginx shows its home page for every path",
        "spa.example",
        &["192.0.2.16"],
        "html-page",
        CERTAIN,
        "proxy_pass",
    ),
    at(
        "the application behind nginx is away",
        "gateway.example",
        &["192.0.2.17"],
        "bad-gateway",
        CERTAIN,
        "the gate is up there",
    ),
    at("nginx redirects to port 8443", "port.example", &["192.0.2.18"], "redirect-port", CERTAIN, "exempt"),
    at("nginx redirects to ftp", "scheme.example", &["192.0.2.19"], "redirect-scheme", CERTAIN, "exempt"),
    at(
        "nginx redirects to a name without the slash after it",
        "slash.example",
        &["192.0.2.20"],
        "redirect-unresolved",
        CERTAIN,
        "exempt",
    ),
    at(
        "nginx redirects to https, where no TLS is spoken",
        "plain443.example",
        &["192.0.2.21"],
        "redirect-tls",
        CERTAIN,
        "exempt",
    ),
    at(
        "nginx speaks TLS on port 80",
        "tls80.example",
        &["192.0.2.22"],
        "tls-on-port80",
        CERTAIN,
        "off the listener",
    ),
    at(
        "nginx limits requests",
        "limited.example",
        &["192.0.2.23"],
        "too-many-requests",
        WARNING,
        "rate limit",
    ),
    at(
        "nginx does not serve the host",
        "misdirected.example",
        &["192.0.2.24"],
        "misdirected",
        CERTAIN,
        "add the name",
    ),
    at("an application fails", "error.example", &["192.0.2.25"], "server-error", CERTAIN, "proxy_pass"),
    at("nginx answers 204", "empty.example", &["192.0.2.28"], "other-status", CERTAIN, "proxy_pass"),
    at("nginx hangs up (444)", "dropped.example", &["192.0.2.29"], "closed", CERTAIN, "port 80"),
    at(
        "another client's stateless answer",
        "stateless.example",
        &["192.0.2.31"],
        "other-client",
        CERTAIN,
        "take its answer",
    ),
    at("a redirect to no URL", "malformed.example", &["192.0.2.32"], "redirect-malformed", CERTAIN, "exempt"),
    at(
        "a redirect to where nobody listens",
        "dead-end.example",
        &["192.0.2.33"],
        "redirect-unreachable",
        CERTAIN,
        "exempt",
    ),
    at("text in the answer's place", "text.example", &["192.0.2.34"], "wrong-body", CERTAIN, "proxy_pass"),
    at(
        "another wicketgate",
        "other-gate.example",
        &["192.0.2.44"],
        "other-gate",
        CERTAIN,
        "stop the other one",
    ),
    at(
        "a program that takes the request and says nothing",
        "silent.example",
        &["192.0.2.50"],
        "silent",
        WARNING,
        "ss -ltnp",
    ),
    at(
        "a filter that resets the connection",
        "reset.example",
        &["192.0.2.51"],
        "reset",
        CERTAIN,
        "intrusion prevention",
    ),
    at("a program that hangs up", "close.example", &["192.0.2.52"], "closed", CERTAIN, "ss -ltnp"),
    at("an SSH server on port 80", "ssh.example", &["192.0.2.54"], "not-http", CERTAIN, "ss -ltnp"),
    at("HTTP/2 without being asked", "http2.example", &["192.0.2.55"], "not-http", CERTAIN, "ss -ltnp"),
    at(
        "a proxy that adds a line end",
        "newline.example",
        &["192.0.2.56"],
        "trailing-whitespace",
        WARNING,
        "unchanged",
    ),
    at("a body that is far too long", "large.example", &["192.0.2.57"], "too-large", CERTAIN, "pass"),
    at("a header that is far too long", "header.example", &["192.0.2.58"], "too-large", CERTAIN, "ss -ltnp"),
    at("an answer that stops half-way", "stalled.example", &["192.0.2.59"], "silent", WARNING, "ss -ltnp"),
    at(
        "redirects without an end",
        "onwards.example",
        &["192.0.2.60"],
        "too-many-redirects",
        CERTAIN,
        "exempt",
    ),
    at("an answer that is cut", "cut.example", &["192.0.2.61"], "closed", CERTAIN, "ss -ltnp"),
    at(
        "a filter drops the packets",
        "filtered.example",
        &["192.0.2.70"],
        "timed-out",
        WARNING,
        "open port 80",
    ),
    at(
        "a filter rejects with ICMP",
        "rejected.example",
        &["192.0.2.71"],
        "no-route",
        WARNING,
        "ip route get",
    ),
    at(
        "a filter rejects with a reset",
        "reset-by-filter.example",
        &["192.0.2.72"],
        "refused",
        CERTAIN,
        "open port 80",
    ),
    at("nobody listens", "refused.example", &["192.0.2.99"], "refused", CERTAIN, "start the gate there"),
    at(
        "there is no way to the address",
        "far.example",
        &["198.51.100.1"],
        "no-route",
        WARNING,
        "ip route get",
    ),
    at(
        "IPv6 leads to another server",
        "v6-wrong.example",
        &["2001:db8::12", "192.0.2.26"],
        "ipv6-broken",
        CERTAIN,
        "AAAA record",
    ),
    at(
        "IPv6 is filtered, IPv4 works",
        "v6-filtered.example",
        &["2001:db8::70", "192.0.2.26"],
        "ipv6-broken",
        WARNING,
        "AAAA record",
    ),
    at(
        "one of two addresses is another server's",
        "half.example",
        &["192.0.2.12", "192.0.2.26"],
        "some-addresses-wrong",
        CERTAIN,
        "remove them from the DNS",
    ),
    at(
        "a private address in the DNS",
        "private.example",
        &["10.0.0.5"],
        "private-address",
        WARNING,
        "acme.resolvers",
    ),
    at("an address as identifier", "192.0.2.12", &[], "not-found", CERTAIN, "proxy_pass"),
    at("a name that does not exist", "missing.example", &["no such name"], "no-name", CERTAIN, "spelt right"),
    at(
        "a name that a resolver alone denies",
        "hearsay.example",
        &["hearsay"],
        "no-name",
        WARNING,
        "spelt right",
    ),
    at(
        "a name that only the hosts file has",
        "hosts.example",
        &["no such name"],
        "no-name",
        WARNING,
        "spelt right",
    ),
    at(
        "a name without an address",
        "bare-name.example",
        &["exists"],
        "no-address",
        CERTAIN,
        "add an A or AAAA record",
    ),
    at("name servers that fail", "servfail.example", &["servfail"], "dns-servfail", WARNING, "repaired"),
    at(
        "signatures that do not validate, a resolver says",
        "bogus.example",
        &["bogus"],
        "dnssec-bogus",
        WARNING,
        "its clock, its trust anchor",
    ),
    at(
        "signatures that ran out, the zone's own servers show",
        "expired.test",
        &["expired"],
        "dnssec-bogus",
        CERTAIN,
        "sign the zone anew",
    ),
    at("CAA forbids every CA", "caa.example", &["192.0.2.26", "issue ;"], "caa-forbidden", CERTAIN, ""),
    at(
        "CAA that a resolver alone has heard of",
        "caa-heard.example",
        &["192.0.2.26", "heard issue ;"],
        "caa-uncertain",
        WARNING,
        "set in its place",
    ),
    at(
        "CAA names a CA, and this one does not say its name",
        "caa-other.example",
        &["192.0.2.26", "issue ca.example"],
        "caa-uncertain",
        WARNING,
        "compare",
    ),
];

fn zone() -> Zone {
    let mut zone = Vec::new();
    let mut add = |name: &str, record| zone.push((name.to_owned(), record));
    for situation in SITUATIONS {
        for text in situation.records {
            let record = match *text {
                "no such name" => continue,
                "exists" => Told::Exists,
                "hearsay" => Told::Hearsay,
                "servfail" => Told::ServFail,
                "bogus" => Told::Bogus([192, 0, 2, 26].into()),
                "expired" => Told::Expired([192, 0, 2, 26].into(), "ns.test".to_owned()),
                text => match (text.strip_prefix("issue "), text.strip_prefix("heard issue ")) {
                    (Some(value), _) => Told::Issue(value.to_owned()),
                    (None, Some(value)) => Told::IssueHearsay(value.to_owned()),
                    (None, None) => Told::Address(text.parse::<IpAddr>().expect("an address")),
                },
            };
            add(situation.name, record);
        }
    }
    add("test", Told::Served("ns.test".to_owned()));
    add("ns.test", Told::Address(NAME_SERVER.parse().expect("an address")));
    add("home.example", Told::Address([192, 0, 2, 16].into()));
    zone
}

/// A configuration for the machine, its gate at these addresses.
fn config(bed: &Bed, file: &str, listen: &str, names: &[&str]) -> std::path::PathBuf {
    let (state, socket) = (bed.path(&format!("{file}-state")), bed.path(&format!("{file}.sock")));
    let certificates = match names {
        [] => String::new(),
        names => format!("[[certificate]]\nname = \"all\"\nhostnames = {names:?}\n"),
    };
    bed.write(
        &format!("{file}.toml"),
        format!(
            "state-dir = {state:?}\ngrace = \"1s\"\n[acme]\nissuer = \"letsencrypt\"\nterms-agreed = true\n\
             resolvers = [\"{NAME_SERVER}:53\"]\n[gate]\nlisten = {listen}\n\
             [admin]\nsocket = {socket:?}\n{certificates}"
        ),
    )
}

fn check(neighbours: &Neighbours, config: &std::path::Path, arguments: &[&str]) -> Ran {
    let mut command = neighbours.machine.command(PROGRAM);
    clean(&mut command);
    run_within(
        Duration::from_secs(90),
        command.arg("--config").arg(config).args(["check", "--json"]).args(arguments),
    )
}

fn report(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {}", ran.text()))
}

/// The finding of that name and cause.
fn finding<'a>(report: &'a Value, name: &str, cause: &str) -> Option<&'a Value> {
    report["findings"].as_array()?.iter().find(|f| f["identifier"] == name && f["cause"] == cause)
}

#[test]
fn every_situation_is_found_and_explained() {
    needs!("namespaces", "ip", "nsenter", "nft", "nginx", "squid", "apache2");
    let bed = Bed::new();
    let neighbours = Neighbours::start(&bed, &["hosts.example"]);
    let _odd = oddities::start(&neighbours, NAME_SERVER, &zone());
    let _servers = Servers::start(&bed, &neighbours);
    let names: Vec<_> = SITUATIONS.iter().map(|s| s.name).collect();
    let config = config(&bed, "machine", "[\"[::]:80\"]", &names);

    let ran = check(&neighbours, &config, &[]).expect_code(1);
    let report = report(&ran);
    assert_eq!(report["gate-problem"], Value::Null);
    assert!(report["vantage"].as_str().unwrap().contains("from inside"));
    assert_eq!(report["warnings"].as_array().unwrap().len(), 1, "the CA is away: {}", report["warnings"]);

    let mut table = "| situation | cause | certainty | remedy |\n|---|---|---|---|\n".to_owned();
    let mut wrong = Vec::new();
    for s in SITUATIONS {
        let all: Vec<_> =
            report["findings"].as_array().unwrap().iter().filter(|f| f["identifier"] == s.name).collect();
        let Some(found) = finding(&report, s.name, s.cause) else {
            wrong.push(format!("{}: no {} among {all:#?}", s.what, s.cause));
            continue;
        };
        let remedy = found["remedy"].as_str().unwrap();
        let has_certain = all.iter().any(|f| f["certainty"] == CERTAIN);
        if found["certainty"] != s.certainty
            || !remedy.contains(s.remedy)
            || has_certain != (s.certainty == CERTAIN)
        {
            wrong.push(format!("{}: expected {} and `{}`, found {all:#?}", s.what, s.certainty, s.remedy));
        }
        let remedy = if remedy.is_empty() { "–".to_owned() } else { remedy.replace('|', "\\|") };
        writeln!(table, "| {} | {} | {} | {remedy} |", s.what, s.cause, s.certainty).unwrap();
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let rows = table.lines().count() - 2;
    assert!(rows >= 30, "only {rows} situations");
    let target = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    std::fs::create_dir_all(&target).unwrap();
    std::fs::write(target.join("preflight-situations.md"), table).unwrap();

    let squid = finding(&report, "squid.example", "forbidden").unwrap()["seen"].as_str().unwrap();
    assert!(squid.contains("Squid") && squid.contains("ERR_ACCESS_DENIED"), "{squid}");
}

#[test]
fn what_is_well_costs_no_exit_code_and_names_need_no_configuration() {
    needs!("namespaces", "ip", "nsenter");
    let bed = Bed::new();
    let neighbours = Neighbours::start(&bed, &[]);
    let _odd = oddities::start(&neighbours, NAME_SERVER, &zone());
    let config = config(&bed, "machine", "[\"[::]:80\"]", &["own.example", "newline.example"]);
    let warned = report(&check(&neighbours, &config, &["all"]).expect_code(0));
    assert!(finding(&warned, "own.example", "answered").is_some(), "{warned}");
    assert!(finding(&warned, "newline.example", "trailing-whitespace").is_some(), "{warned}");
    let one = report(&check(&neighbours, &config, &["refused.example"]).expect_code(1));
    assert_eq!(one["findings"].as_array().unwrap().len(), 1, "{one}");
    let unknown = check(&neighbours, &config, &["al"]).expect_code(2);
    assert!(unknown.stderr.contains("`al` is neither a certificate"), "{}", unknown.stderr);
}

#[test]
fn a_running_daemon_looks_by_its_own_gate() {
    needs!("namespaces", "ip", "nsenter");
    let bed = Bed::new();
    let neighbours = Neighbours::start(&bed, &[]);
    let _odd = oddities::start(&neighbours, NAME_SERVER, &zone());
    let config = config(&bed, "machine", "[\"[::]:80\"]", &["own.example"]);
    let mut command = neighbours.machine.command(PROGRAM);
    clean(&mut command);
    let daemon = Process::start("wicketgate run", command.arg("--config").arg(&config).arg("run"));
    daemon.wait_for_line("ready:");
    let found = report(&check(&neighbours, &config, &[]).expect_code(0));
    assert!(finding(&found, "own.example", "answered").is_some(), "{found}");
    let mut other = std::fs::read_to_string(&config).unwrap();
    other = other.replace("\"1s\"", "\"2s\"");
    let other = bed.write("other.toml", other);
    let refused = check(&neighbours, &other, &[]).expect_code(1);
    assert!(refused.stderr.contains("works by another configuration"), "{}", refused.stderr);
}

#[test]
fn a_taken_port_is_told_with_who_has_it_and_an_own_address_elsewhere_only_warns() {
    needs!("namespaces", "ip", "nsenter", "nginx");
    let bed = Bed::new();
    let neighbours = Neighbours::start(&bed, &[]);
    let _odd = oddities::start(&neighbours, NAME_SERVER, &zone());
    let text = servers::nginx_config(&bed, "ours", &format!("server {{ listen {OURS}:80; return 404; }}"));
    let _nginx = Process::start("our nginx", neighbours.machine.command("nginx").arg("-c").arg(&text));
    until("nginx listens", || neighbours.machine.sh("ss -Hltn").stdout.contains(":80 ").then_some(()));

    let at_80 = config(&bed, "taken", "[\"[::]:80\"]", &["own.example"]);
    let taken = report(&check(&neighbours, &at_80, &[]).expect_code(1));
    let problem = taken["gate-problem"].as_str().unwrap();
    assert!(
        problem.contains("another program holds the port") && problem.contains("nginx, pid"),
        "{problem}"
    );
    assert_eq!(finding(&taken, "own.example", "not-found").unwrap()["certainty"], CERTAIN);

    let elsewhere = config(&bed, "elsewhere", "[\"127.0.0.1:8402\"]", &["own.example"]);
    let warned = report(&check(&neighbours, &elsewhere, &[]).expect_code(0));
    let found = finding(&warned, "own.example", "not-found").unwrap();
    assert_eq!(found["certainty"], WARNING);
    assert!(found["means"].as_str().unwrap().contains("DNAT"), "{found}");
    assert!(found["remedy"].as_str().unwrap().contains("proxy_pass http://127.0.0.1:8402"), "{found}");
}
