//! Handshakes with real servers: what is proven by them, and what is said where they show something else.

use std::fs;
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use wicketgate::certificate::Certificate;
use wicketgate::clock;
use wicketgate::deploy::verify::{NotServed, Roots, Served, Version, shows};
use wicketgate::hostname::Identifier;
use wicketgate::store::{Deployed, LineageState, Store};

use crate::bed::client::is_open;
use crate::bed::haproxy::Haproxy;
use crate::bed::ladder::{Issued, Ladder};
use crate::bed::mail_server::MailServer;
use crate::bed::namespace::{Mounts, Namespace};
use crate::bed::nginx::Nginx;
use crate::bed::pki::Pki;
use crate::bed::process::{Process, Ran, run_within};
use crate::bed::scripted::{Act, Scripted};
use crate::bed::webhook::{OK, Webhook};
use crate::bed::wicketgate::{PROGRAM, Setup, clean};
use crate::bed::{Bed, PATIENCE, needs, set_mode, until, until_within};

const NAME: &str = "www.example.test";
/// For what never comes true.
const SHORT: Duration = Duration::from_millis(1500);

/// What comes of waiting for these certificates.
fn wait(
    bed: &Bed,
    ladder: &Ladder,
    endpoint: &str,
    certificates: &[&Issued],
    within: Duration,
) -> Result<Served, NotServed> {
    let roots = Roots::load(Some(&ladder.root(bed))).unwrap();
    let certificates: Vec<Certificate> = certificates.iter().map(|issued| issued.certificate()).collect();
    let identifiers: Vec<Identifier> = certificates[0].identifiers().to_vec();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let endpoint = endpoint.parse().unwrap();
    runtime.block_on(shows(&endpoint, &certificates, &identifiers, &roots, within))
}

#[track_caller]
fn assert_says(told: Result<Served, NotServed>, parts: &[&str]) {
    let told = told.unwrap_err().to_string();
    for part in parts {
        assert!(told.contains(part), "{part:?} is not in: {told}");
    }
}

/// `openssl s_server` with a leaf, its key and what lies above it.
fn s_server(bed: &Bed, issued: &Issued, links: &str, more: &[&str]) -> (Process, String) {
    let port = bed.port();
    let leaf = bed.write(&format!("s-{port}-leaf.pem"), issued.leaf());
    let key = bed.write(&format!("s-{port}-key.pem"), issued.key());
    let mut command = Command::new("openssl");
    command.args(["s_server", "-www", "-accept", &format!("127.0.0.1:{port}"), "-cert"]).arg(leaf);
    command.arg("-key").arg(key).args(more);
    if !links.is_empty() {
        command.arg("-cert_chain").arg(bed.write(&format!("s-{port}-links.pem"), links));
    }
    let process = Process::start("openssl s_server", &mut command);
    until("openssl listens", || is_open(port).then_some(()));
    (process, format!("127.0.0.1:{port}"))
}

#[test]
fn openssl_with_every_kind_of_chain() {
    needs!("openssl");
    let bed = Bed::new();
    let ladder = Ladder::new();
    let issued = ladder.issue(&[NAME], 1, 89);
    let whole = ladder.links(&["inner", "outer"]);
    let look = |links: &str, more: &[&str]| {
        let (_server, endpoint) = s_server(&bed, &issued, links, more);
        wait(&bed, &ladder, &endpoint, &[&issued], PATIENCE)
    };
    let both = vec![Version::Tls13, Version::Tls12];
    assert_eq!(look(&whole, &[]), Ok(Served { warnings: Vec::new(), versions: both.clone() }));
    assert_eq!(look(&whole, &["-tls1_2"]).unwrap().versions, [Version::Tls12]);
    assert_eq!(look(&whole, &["-tls1_3"]).unwrap().versions, [Version::Tls13]);
    // One that wants a certificate of its clients has shown its own before.
    assert_eq!(look(&whole, &["-Verify", "2"]).unwrap().versions, both);

    let begin = clock::monotonic();
    assert_says(
        look("", &[]),
        &["incomplete chain", "signed by `CN=Ladder Inner`", "cert.pem in place of fullchain.pem"],
    );
    let inner_alone = ladder.links(&["inner"]);
    assert_says(
        look(&inner_alone, &[]),
        &["`CN=Ladder Inner` was signed by `CN=Ladder Outer`, which is not sent"],
    );
    assert!(begin.elapsed() < PATIENCE / 2, "what no waiting mends was waited for");
    for (links, warning) in [
        (&["outer", "inner"][..], "out of order"),
        (&["inner", "outer", "root"], "the root `CN=Ladder Root` is sent too (certificate 4)"),
    ] {
        let served = look(&ladder.links(links), &[]).unwrap();
        assert_eq!(served.versions, both);
        assert!(served.warnings.len() == 1 && served.warnings[0].contains(warning), "{:?}", served.warnings);
    }
}

#[test]
fn certificates_that_are_not_the_new_one() {
    needs!("openssl");
    let bed = Bed::new();
    let ladder = Ladder::new();
    let links = ladder.links(&["inner", "outer"]);
    let (old, new) = (ladder.issue(&[NAME], 60, 30), ladder.issue(&[NAME], 0, 90));
    let other = ladder.issue(&["other.example.test"], 1, 89);
    let (_server, endpoint) = s_server(&bed, &old, &links, &[]);
    let serial = old.certificate().serial().to_owned();
    assert_says(
        wait(&bed, &ladder, &endpoint, &[&new], SHORT),
        &[
            "still shows the old certificate, www.example.test",
            &serial,
            "`CN=Ladder Inner`",
            "TLS 1.",
            "reload it",
        ],
    );
    let (_server, endpoint) = s_server(&bed, &other, &links, &[]);
    assert_says(
        wait(&bed, &ladder, &endpoint, &[&new], SHORT),
        &[
            "shows another certificate, other.example.test",
            "asked for www.example.test",
            "a default one does",
        ],
    );
    let mixing = Scripted::start(&bed, Act::Tls, &[old.certificate(), new.certificate(), new.certificate()]);
    assert_says(
        wait(&bed, &ladder, &format!("127.0.0.1:{}", mixing.port), &[&new], SHORT),
        &["shows the new certificate to some connections, and to others www.example.test", "an old worker"],
    );
}

#[test]
fn nginx_with_virtual_hosts_workers_and_a_pair() {
    needs!("nginx");
    let bed = Bed::new();
    let ladder = Ladder::new();
    let many: Vec<String> = (0..100).map(|n| format!("n{n}.example.test")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let (old, new) = (ladder.issue(&many, 60, 30), ladder.issue(&many, 0, 90));
    let (ecdsa, rsa) = (ladder.issue(&[NAME], 0, 90), ladder.issue_rsa(&[NAME], 0, 90));
    let other = ladder.issue(&["default.example.test"], 0, 90);
    let install = |name: &str, issued: &Issued| {
        bed.write(&format!("{name}.pem"), issued.chain());
        bed.write(&format!("{name}-key.pem"), issued.key());
        format!(
            "ssl_certificate {0}/{name}.pem; ssl_certificate_key {0}/{name}-key.pem;",
            bed.dir().display()
        )
    };
    let port = bed.port();
    let listen = format!("listen 127.0.0.1:{port} ssl");
    let servers = format!(
        "server {{ {listen} default_server; {} }}\nserver {{ {listen}; server_name ~^n\\d+\\.; {} }}\n\
         server {{ {listen}; server_name {NAME}; {} {} }}",
        install("default", &other),
        install("many", &old),
        install("ecdsa", &ecdsa),
        install("rsa", &rsa),
    );
    let nginx = Nginx::servers(&bed, "many", &servers, port, 4);
    let endpoint = format!("127.0.0.1:{port}");
    assert_says(
        wait(&bed, &ladder, &endpoint, &[&new], SHORT),
        &["still shows the old certificate, n0.example.test", "n4.example.test and 95 more"],
    );
    // The reload comes while it is waited for.
    install("many", &new);
    let reload = nginx.reload_command();
    let served = std::thread::scope(|scope| {
        scope.spawn(|| crate::bed::process::run(Command::new(&reload[0]).args(&reload[1..])).expect_code(0));
        wait(&bed, &ladder, &endpoint, &[&new], PATIENCE)
    });
    assert_eq!(
        served.unwrap(),
        Served { warnings: Vec::new(), versions: vec![Version::Tls13, Version::Tls12] }
    );
    // Each of a pair by clients that can use nothing else.
    let pair = wait(&bed, &ladder, &endpoint, &[&ecdsa, &rsa], PATIENCE).unwrap();
    assert_eq!(pair.versions, [Version::Tls13, Version::Tls12]);
    let newer = ladder.issue_rsa(&[NAME], 0, 91);
    assert_says(
        wait(&bed, &ladder, &endpoint, &[&ecdsa, &newer], SHORT),
        &["still shows the old certificate", "by a client that can use RSA keys only"],
    );
    let foreign = ladder.issue(&["unknown.example.test"], 0, 90);
    assert_says(
        wait(&bed, &ladder, &endpoint, &[&foreign], SHORT),
        &["shows another certificate, default.example.test", "no virtual host of its answers to this name"],
    );
}

#[test]
fn one_of_a_pair_alone_is_not_enough() {
    needs!("openssl");
    let bed = Bed::new();
    let ladder = Ladder::new();
    let (ecdsa, rsa) = (ladder.issue(&[NAME], 0, 90), ladder.issue_rsa(&[NAME], 0, 90));
    let (_server, endpoint) = s_server(&bed, &ecdsa, &ladder.links(&["inner", "outer"]), &[]);
    assert_says(
        wait(&bed, &ladder, &endpoint, &[&ecdsa, &rsa], SHORT),
        &[
            "refuses the handshake (handshake_failure)",
            "can use RSA keys only",
            "both certificates of the pair",
        ],
    );
}

#[test]
fn through_a_proxy_header() {
    needs!("haproxy");
    let bed = Bed::new();
    let ladder = Ladder::new();
    let issued = ladder.issue(&[NAME], 0, 90);
    let combined = bed.write("combined.pem", format!("{}{}", issued.chain(), issued.key()));
    let haproxy = Haproxy::behind_a_proxy(&bed, &combined);
    let served =
        wait(&bed, &ladder, &format!("proxy+tls://127.0.0.1:{}", haproxy.port()), &[&issued], PATIENCE);
    assert_eq!(served.unwrap().versions, [Version::Tls13, Version::Tls12]);
    assert_says(
        wait(&bed, &ladder, &format!("127.0.0.1:{}", haproxy.port()), &[&issued], SHORT),
        &["hangs up when TLS begins", &format!("write \"proxy+tls://127.0.0.1:{}\"", haproxy.port())],
    );
}

#[test]
fn mail_servers_by_starttls() {
    needs!("aiosmtpd");
    let bed = Bed::new();
    let pki = Pki::new(bed.dir(), "mail", &["localhost", "127.0.0.1"]);
    let smtp = MailServer::start(&bed, "starttls", Some(&pki), None);
    let (port, root) = (smtp.port.to_string(), pki.root.to_str().unwrap());
    let at = |endpoint: &str, more: &[&str]| alone(&[&["--at", endpoint][..], more].concat());
    let ran = at(&format!("smtp://localhost:{port}"), &["--roots", root]).expect_code(0);
    assert!(
        ran.stdout.contains("warning: localhost: ") && ran.stdout.contains("TLS 1.3 and 1.2"),
        "{}",
        ran.stdout
    );
    // Without the root, and without STARTTLS.
    let ran = at(&format!("smtp://localhost:{port}"), &[]).expect_code(1);
    assert!(ran.stdout.contains("which is no public root"), "{}", ran.stdout);
    let ran = at(&format!("localhost:{port}"), &["--roots", root]).expect_code(1);
    assert!(ran.stdout.contains(&format!("write \"smtp://localhost:{port}\"")), "{}", ran.stdout);
    let plain = MailServer::start(&bed, "plain", None, None);
    let ran = at(&format!("smtp://localhost:{}", plain.port), &[]).expect_code(1);
    assert!(ran.stdout.contains("it does not offer STARTTLS; what it offers is `250-"), "{}", ran.stdout);

    let ladder = Ladder::new();
    let issued = ladder.issue(&[NAME], 0, 90);
    let imap = Scripted::start(&bed, Act::Imap, &[issued.certificate()]);
    let endpoint = format!("imap://127.0.0.1:{}", imap.port);
    assert_eq!(wait(&bed, &ladder, &endpoint, &[&issued], PATIENCE).unwrap().versions.len(), 2);
    assert_says(
        wait(&bed, &ladder, &format!("127.0.0.1:{}", imap.port), &[&issued], SHORT),
        &["speaks no TLS; it says `* OK", &format!("write \"{endpoint}\"")],
    );
}

#[test]
fn servers_that_do_not_shake_hands() {
    needs!("nginx");
    let bed = Bed::new();
    let ladder = Ladder::new();
    let issued = ladder.issue(&[NAME], 0, 90);
    let says = |endpoint: String, parts: &[&str]| {
        let begin = clock::monotonic();
        let told = wait(&bed, &ladder, &endpoint, &[&issued], SHORT);
        assert!(begin.elapsed() < SHORT + Duration::from_secs(3), "{endpoint} held it up");
        let is_refused = told.as_ref().unwrap_err().is_refused();
        assert_says(told, parts);
        is_refused
    };
    let on = |act| format!("127.0.0.1:{}", Scripted::start(&bed, act, &[]).port);
    let http = Nginx::upstream(&bed);
    assert!(!says(format!("127.0.0.1:{}", http.port()), &["says `HTTP/1.1 400 Bad Request", "plain HTTP"]));
    assert!(!says(on(Act::Silence), &["takes connections, but does not answer to TLS"]));
    assert!(!says(on(Act::HangUp), &["hangs up when TLS begins"]));
    assert!(!says(on(Act::Endless("SSH-2.0-x\r\n")), &["SSH"]));
    assert!(!says(format!("smtp://{}", on(Act::Silence)), &["takes connections and says nothing"]));
    assert!(!says(format!("smtp://{}", on(Act::HangUp)), &["hangs up at once"]));
    for words in ["220-again\r\n", "2", "220-"] {
        assert!(!says(format!("smtp://{}", on(Act::Endless(words))), &["`, and talks without an end"]));
    }
    assert!(!says(format!("imap://{}", on(Act::Endless("* OK\r\n"))), &["`* OK; * OK", "without an end"]));
    for (scheme, words, said) in [
        ("smtp", b"220-again\r\n".as_slice(), "220-again"),
        ("smtp", b"2", "22"),
        ("imap", b"* OK\r\n", "* OK"),
        ("proxy+smtp", b"220-again\r\n", "220-again"),
    ] {
        let begun = format!("begins to speak, `{said}");
        says(format!("{scheme}://{}", on(Act::Dripping(words))), &[&begun, "does not come to TLS in time"]);
    }
    let half = on(Act::Dripping(b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc"));
    says(half, &["begins to answer to TLS, and does not come to the end of it"]);
    says(format!("proxy+tls://{}", on(Act::Silence)), &["does not answer to TLS", "expect no PROXY header"]);
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert!(says(nobody.to_string(), &["refuses connections: nobody listens there"]));
    assert!(!says("no-such-host.invalid:443".to_owned(), &["leads to no address", "address records"]));
}

/// What a fault says is to be written.
#[track_caller]
fn remedy(ran: &Ran) -> String {
    let said = ran.stdout.split_once("write \"").and_then(|(_, rest)| rest.split_once('"'));
    said.unwrap_or_else(|| panic!("there is no remedy in {}", ran.stdout)).0.to_owned()
}

#[test]
fn what_an_error_says_is_to_be_written_works() {
    let bed = Bed::new();
    let ladder = Ladder::new();
    let issued = ladder.issue(&[NAME], 0, 90);
    let root = ladder.root(&bed);
    let look =
        |endpoint: &str| alone(&["--at", endpoint, "--hostname", NAME, "--roots", root.to_str().unwrap()]);
    let on = |act| format!("127.0.0.1:{}", Scripted::start(&bed, act, &[issued.certificate()]).port);
    let (smtp, imap, tls) = (on(Act::Smtp), on(Act::Imap), on(Act::Tls));
    for (wrong, right) in [
        (smtp.clone(), format!("smtp://{smtp}")),
        (format!("imap://{smtp}"), format!("smtp://{smtp}")),
        (imap.clone(), format!("imap://{imap}")),
        (format!("smtp://{imap}"), format!("imap://{imap}")),
        (format!("smtp://{tls}"), tls.clone()),
        (format!("imap://{tls}"), tls),
    ] {
        assert_eq!(remedy(&look(&wrong).expect_code(1)), right, "{wrong}");
        look(&right).expect_code(0);
    }
    // Who speaks in the clear first does not speak TLS from the first byte.
    let plain = on(Act::Dripping(b"220 mail.example.test ESMTP\r\n"));
    let ran = look(&format!("smtp://{plain}")).expect_code(1);
    assert!(!ran.stdout.contains("write \""), "{}", ran.stdout);
}

#[test]
fn ports_tell_what_is_spoken_and_a_scheme_tells_otherwise() {
    needs!("namespaces", "ip", "nsenter", "openssl", "aiosmtpd");
    let bed = Bed::new();
    let network = Namespace::start(&bed, &[]);
    let pki = Pki::new(bed.dir(), "mail", &["localhost"]);
    let _smtp = MailServer::start_inside(&bed, &network, 25, "starttls", &pki);
    let _smtps = MailServer::start_inside(&bed, &network, 465, "tls", &pki);
    let _tls = MailServer::start_inside(&bed, &network, 587, "tls", &pki);
    let look = |endpoint: &str| {
        let mut command = network.command(PROGRAM);
        clean(&mut command);
        let arguments = ["verify", "--at", endpoint, "--roots", pki.root.to_str().unwrap()];
        run_within(Duration::from_secs(60), command.args(arguments))
    };
    for right in
        ["localhost:25", "smtp://localhost:25", "localhost:465", "tls://localhost:465", "tls://localhost:587"]
    {
        look(right).expect_code(0);
    }
    for (wrong, right) in [
        ("tls://localhost:25", "smtp://localhost:25"),
        ("localhost:587", "tls://localhost:587"),
        ("smtp://localhost:465", "localhost:465"),
    ] {
        assert_eq!(remedy(&look(wrong).expect_code(1)), right, "{wrong}");
    }
}

/// `verify` without any configuration.
fn alone(arguments: &[&str]) -> Ran {
    let mut command = Command::new(PROGRAM);
    clean(&mut command);
    run_within(Duration::from_secs(60), command.arg("verify").args(arguments))
}

#[test]
fn many_endpoints_are_looked_at_together_and_told_in_order() {
    let bed = Bed::new();
    let silent: Vec<_> = (0..12).map(|_| Scripted::start(&bed, Act::Silence, &[])).collect();
    let endpoints: Vec<_> = silent.iter().map(|server| format!("127.0.0.1:{}", server.port)).collect();
    let mut arguments: Vec<_> = endpoints.iter().flat_map(|endpoint| ["--at", endpoint.as_str()]).collect();
    arguments.push("--json");
    // One after the other they would take minutes, and this run ends after one.
    let report: Value = serde_json::from_str(&alone(&arguments).expect_code(1).stdout).unwrap();
    let told: Vec<_> =
        report["endpoints"].as_array().unwrap().iter().map(|row| row["endpoint"].clone()).collect();
    assert_eq!(told, endpoints);
}

/// A configuration that deploys to nginx, with a certificate in its store.
fn deployed(bed: &Bed, nginx: u16, issued: &Issued, more: &str) -> Setup {
    let directory = format!("https://127.0.0.1:{}/directory", bed.port());
    let pki = Pki::new(bed.dir(), "ca", &["127.0.0.1"]);
    let setup = Setup::new(bed, &directory, &pki.root)
        .certificate(&[NAME, "example.test"])
        .with("deploy = [\"web\"]")
        .without_front()
        .tables(&format!(
            "[deploy.web]\nreload = [\"true\"]\nverify = \"127.0.0.1:{nginx}\"\ntimeout = \"1s\"\nverify-timeout = \"1s\"\n{more}"
        ));
    store(&setup, issued);
    setup
}

fn store(setup: &Setup, issued: &Issued) {
    Store::open(&setup.state).unwrap().save(NAME, &issued.certificate().into()).unwrap();
}

/// An nginx that reads a folder of its own, and a way to fill that.
fn copied(bed: &Bed, issued: &Issued) -> Nginx {
    fill(bed, issued.chain(), issued);
    Nginx::tls(bed, &bed.path("served"), bed.port())
}

fn fill(bed: &Bed, chain: &str, issued: &Issued) {
    bed.write("served/fullchain.pem", chain);
    bed.write("served/privkey.pem", issued.key());
}

fn reload(nginx: &Nginx) {
    let reload = nginx.reload_command();
    crate::bed::process::run(Command::new(&reload[0]).args(&reload[1..])).expect_code(0);
}

#[test]
fn the_command_tells_right_from_wrong() {
    needs!("nginx");
    let bed = Bed::new();
    let ladder = Ladder::new();
    let names = [NAME, "example.test"];
    let (old, new) = (ladder.issue(&names, 60, 30), ladder.issue(&names, 0, 90));
    let nginx = copied(&bed, &new);
    let mut setup = deployed(&bed, nginx.port(), &new, "");
    let verify = |more: &[&str]| setup.command(&bed, &[&["verify"][..], more].concat());

    let ran = verify(&[]).expect_code(0);
    assert_eq!(
        ran.stdout.lines().take(3).collect::<Vec<_>>()[..2],
        [NAME, &format!("  web 127.0.0.1:{}", nginx.port())],
        "{}",
        ran.stdout
    );
    assert!(
        ran.stdout.contains("ok: www.example.test, example.test: 89 days left (until "),
        "{}",
        ran.stdout
    );
    assert!(ran.stdout.contains("whole chain, TLS 1.3 and 1.2, the stored certificate"), "{}", ran.stdout);
    assert!(ran.stdout.contains("its chain ends at `CN=Ladder Root`: clients accept it"), "{}", ran.stdout);
    let report: Value = serde_json::from_str(&verify(&["--json"]).expect_code(0).stdout).unwrap();
    let rows = report["endpoints"].as_array().unwrap();
    assert_eq!((report["ok"].clone(), rows.len()), (Value::Bool(true), 2));
    let row = &rows[0];
    for (key, value) in [
        ("certificate", Value::from(NAME)),
        ("service", "web".into()),
        ("endpoint", format!("127.0.0.1:{}", nginx.port()).into()),
        ("address", format!("127.0.0.1:{}", nginx.port()).into()),
        ("identifier", NAME.into()),
        ("state", "ok".into()),
        ("versions", serde_json::json!(["1.3", "1.2"])),
        ("serial", new.certificate().serial().into()),
        ("issuer", "CN=Ladder Inner".into()),
        ("names", serde_json::json!(names)),
        ("days-left", 89.into()),
        ("chain", "private".into()),
        ("live", true.into()),
    ] {
        assert_eq!(row[key], value, "{key}: {row}");
    }
    // By one of its names, and with the root given.
    let root = ladder.root(&bed);
    let ran = verify(&["example.test", "--roots", root.to_str().unwrap()]).expect_code(0);
    assert!(ran.stdout.contains("ok: example.test: ") && !ran.stdout.contains("ends at"), "{}", ran.stdout);
    let ran = verify(&["wrong.example.test"]).expect_code(1);
    assert!(ran.stderr.contains("neither a certificate of the configuration"), "{}", ran.stderr);

    // A store that has gone on, a leaf alone, a store that cannot be read.
    let newer = ladder.issue(&names, 0, 91);
    store(&setup, &newer);
    let ran = verify(&[]).expect_code(1);
    assert!(ran.stdout.contains("FAULT: www.example.test, example.test: "), "{}", ran.stdout);
    assert!(ran.stdout.contains("still shows the old certificate"), "{}", ran.stdout);
    assert!(ran.stdout.contains("serves version 1, and version 2 is the stored one"), "{}", ran.stdout);
    fill(&bed, newer.leaf(), &newer);
    reload(&nginx);
    until("the leaf alone is a fault", || {
        let ran = verify(&[]).expect_code(1);
        ran.stdout.contains("cert.pem in place of fullchain.pem").then_some(())
    });
    // At an address where nobody has to show it.
    fill(&bed, new.chain(), &new);
    reload(&nginx);
    let at = format!("127.0.0.1:{}", nginx.port());
    let elsewhere = ["--at", &at, "--hostname", NAME, "--roots", root.to_str().unwrap(), "--json"];
    let row = |ran: Ran| serde_json::from_str::<Value>(&ran.stdout).unwrap()["endpoints"][0].clone();
    until("another certificate than the stored one is told, and no fault", || {
        let row = row(verify(&elsewhere));
        let words = row["messages"].to_string();
        (row["state"] == "warning"
            && (&row["live"], &row["version"], &row["stored-version"]) == (&false.into(), &1.into(), &2.into())
            && words.contains("serves version 1, and version 2 is the stored one: reload it (`wicketgate deploy www.example.test`)"))
        .then_some(())
    });
    fill(&bed, newer.chain(), &newer);
    reload(&nginx);
    until("the stored one is told", || {
        let row = row(verify(&elsewhere));
        (row["state"] == "ok" && row["live"] == true && row["version"] == 2).then_some(())
    });
    let foreign = ladder.issue(&names, 0, 89);
    fill(&bed, foreign.chain(), &foreign);
    reload(&nginx);
    until("one that was never stored is told", || {
        let row = row(verify(&elsewhere));
        let words = row["messages"].to_string();
        (row["state"] == "warning"
            && row["version"].is_null()
            && row["stored-version"] == 2
            && words.contains("serves none of the versions that are kept here"))
        .then_some(())
    });
    fill(&bed, newer.chain(), &newer);
    reload(&nginx);
    until("the stored one is back", || (row(verify(&elsewhere))["live"] == true).then_some(()));

    fs::remove_file(setup.live(NAME)).unwrap();
    let ran = verify(&[]).expect_code(1);
    assert!(ran.stdout.contains("no certificate is stored yet"), "{}", ran.stdout);
    store(&setup, &newer);
    fs::write(setup.live(NAME).join("fullchain.pem"), "nonsense").unwrap();
    fill(&bed, newer.chain(), &newer);
    reload(&nginx);
    let roots = ["--roots", root.to_str().unwrap()];
    until("the whole chain is judged by itself", || {
        let ran = verify(&roots);
        (ran.code == Some(0) && ran.stdout.contains("what is stored cannot be compared")).then_some(())
    });

    // Near its end: a warning; below it, a fault; and nobody there.
    let late = ladder.issue(&names, 85, 5);
    store(&setup, &late);
    fill(&bed, late.chain(), &late);
    reload(&nginx);
    until("its end is near", || {
        let ran = verify(&roots);
        (ran.code == Some(0) && ran.stdout.contains("5 % of its lifetime are left")).then_some(ran)
    });
    store(&setup, &old);
    let gone = bed.port();
    setup.more = setup.more.replace(&format!(":{}\"", nginx.port()), &format!(":{gone}\""));
    let ran = setup.command(&bed, &["verify"]).expect_code(1);
    assert!(ran.stdout.contains("refuses connections: nobody listens there"), "{}", ran.stdout);
}

#[test]
fn any_address_can_be_looked_at() {
    needs!("openssl");
    let bed = Bed::new();
    let ladder = Ladder::new();
    let issued = ladder.issue(&[NAME], 89, 1);
    let links = ladder.links(&["inner", "outer"]);
    let (_server, endpoint) = s_server(&bed, &issued, &links, &["-tls1_2"]);
    let root = ladder.root(&bed);
    let root = root.to_str().unwrap();
    let at = |more: &[&str]| alone(&[&["--at", endpoint.as_str(), "--roots", root][..], more].concat());
    let ran = at(&["--hostname", NAME]).expect_code(0);
    assert!(ran.stdout.starts_with("not deployed from here\n"), "{}", ran.stdout);
    assert!(ran.stdout.contains("warning: www.example.test: "), "{}", ran.stdout);
    assert!(ran.stdout.contains("whole chain, TLS 1.2\n"), "{}", ran.stdout);
    assert!(ran.stdout.contains("of its lifetime are left"), "{}", ran.stdout);
    let ran = at(&["--hostname", "example.test", "--hostname", NAME, "--json"]).expect_code(1);
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    let states: Vec<_> =
        report["endpoints"].as_array().unwrap().iter().map(|row| row["state"].clone()).collect();
    assert_eq!(states, ["fault", "warning"]);
    assert!(ran.stdout.contains("what it shows for example.test is for others"), "{}", ran.stdout);
    // An address alone is asked for by itself.
    let ran = at(&[]).expect_code(1);
    assert!(ran.stdout.contains("what it shows for 127.0.0.1 is for others"), "{}", ran.stdout);

    let expired = ladder.issue(&["localhost"], 90, 0);
    let (_server, endpoint) = s_server(&bed, &expired, &links, &[]);
    let port = endpoint.rsplit(':').next().unwrap();
    let ran = alone(&["--at", &format!("localhost:{port}"), "--roots", root]).expect_code(1);
    assert!(ran.stdout.contains("it expired ") && ran.stdout.contains("clients refuse it"), "{}", ran.stdout);

    let pipe = bed.path("pipe");
    crate::bed::process::run(Command::new("mkfifo").arg(&pipe)).expect_code(0);
    let pipe = pipe.to_str().unwrap();
    let huge = bed.path("huge.pem");
    fs::File::create(&huge).unwrap().set_len(1 << 40).unwrap();
    for (arguments, code, says) in [
        (&["--at", "localhost"][..], 2, "has no port"),
        (&["--at", "localhost:99999"], 2, "from 1 to 65535"),
        (&["--at", "localhost:1", "--roots", pipe], 1, "it is not a regular file"),
        (&["--at", "localhost:1", "--roots", "/dev/zero"], 1, "it is not a regular file"),
        (&["--at", "localhost:1", "--roots", "/etc"], 1, "is a directory"),
        (&["--at", "localhost:1", "--roots", huge.to_str().unwrap()], 1, "it is larger than"),
        (&["--at", "localhost:1", "--hostname", "a b"], 2, "is not a hostname"),
        (&["--at", "localhost:1", "--roots", "/nowhere.pem"], 1, "cannot read the roots in /nowhere.pem"),
        (&["a.example", "--at", "localhost:1"], 1, "without a configuration"),
    ] {
        let ran = alone(arguments).expect_code(code);
        assert!(ran.stderr.contains(says), "{says}: {}", ran.stderr);
    }
}

#[test]
fn a_monitor_needs_no_rights_on_what_is_stored() {
    needs!("root", "setpriv", "mounts", "openssl");
    let bed = Bed::new();
    let ladder = Ladder::new();
    let issued = ladder.issue(&[NAME], 0, 90);
    let (_server, endpoint) = s_server(&bed, &issued, &ladder.links(&["inner", "outer"]), &[]);
    let root = ladder.root(&bed);
    let setup = deployed(&bed, bed.port(), &issued, "").certificate(&["other.example.test"]);
    let config = setup.write(&bed);
    set_mode(bed.dir(), 0o755);
    set_mode(&config, 0o644);
    let program = bed.path("wicketgate");
    fs::copy(PROGRAM, &program).unwrap();
    let look = |more: &[&str]| {
        let mut command = Command::new("setpriv");
        clean(&mut command);
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&program);
        command.arg("--config").arg(&config).args(["verify", "--roots"]).arg(&root).args(more);
        run_within(Duration::from_secs(60), &mut command)
    };
    let at = ["--at", endpoint.as_str(), "--hostname", NAME];
    let ran = look(&at).expect_code(0);
    let note = format!("warning: this user may not read what is stored in {}", setup.state.display());
    assert_eq!(ran.stdout.matches(&note).count(), 1, "{}", ran.stdout);
    assert!(ran.stdout.contains("ok: www.example.test"), "{}", ran.stdout);
    let report: Value =
        serde_json::from_str(&look(&[&at[..], &["--json"]].concat()).expect_code(0).stdout).unwrap();
    let row = &report["endpoints"][0];
    assert_eq!(
        (&row["live"], &row["version"], &row["stored-version"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
    assert!(report["warnings"][0].as_str().unwrap().contains("may not read what is stored"), "{report}");
    // Once for all certificates.
    let ran = look(&["--at", endpoint.as_str(), NAME, "other.example.test"]).expect_code(1);
    assert_eq!(ran.stdout.matches("may not read what is stored").count(), 1, "{}", ran.stdout);

    // The usual file, which is others' alone.
    let mounts = Mounts::start();
    let usual =
        "set -e; mkdir /mnt/etc; cp -a /etc/. /mnt/etc; mount --bind /mnt/etc /etc; mkdir -p /etc/wicketgate";
    mounts.sh(&format!("{usual}; install -m 0600 {} /etc/wicketgate/wicketgate.toml", config.display()));
    let arguments = ["--reuid", "65534", "--regid", "65534", "--clear-groups"];
    let mut command = mounts.command("setpriv");
    clean(&mut command);
    command.args(arguments).arg(&program).args(["verify", "--roots"]).arg(&root).args(at);
    let ran = run_within(Duration::from_secs(60), &mut command).expect_code(0);
    let note = "warning: this user may not read /etc/wicketgate/wicketgate.toml, so that";
    assert!(ran.stdout.contains(note) && ran.stdout.contains("ok: www.example.test"), "{}", ran.stdout);
    // It is wanted where a certificate is named.
    let ran = run_within(Duration::from_secs(60), command.arg("web")).expect_code(78);
    assert!(ran.stderr.contains("this user may not read it"), "{}", ran.stderr);
}

#[test]
fn names_of_several_certificates_are_compared_with_their_own() {
    needs!("openssl");
    let bed = Bed::new();
    let ladder = Ladder::new();
    let issued = ladder.issue(&[NAME, "other.example.test"], 0, 90);
    let other = ladder.issue(&["other.example.test"], 0, 90);
    let (_server, endpoint) = s_server(&bed, &issued, &ladder.links(&["inner", "outer"]), &[]);
    let root = ladder.root(&bed);
    let setup = deployed(&bed, bed.port(), &issued, "").certificate(&["other.example.test"]);
    Store::open(&setup.state).unwrap().save("other.example.test", &other.certificate().into()).unwrap();
    let arguments = ["verify", "--at", &endpoint, "--roots", root.to_str().unwrap(), "--json"];
    let names = ["--hostname", NAME, "--hostname", "other.example.test"];
    let ran = setup.command(&bed, &[&arguments[..], &names].concat()).expect_code(0);
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    let live: Vec<_> = report["endpoints"].as_array().unwrap().iter().map(|row| &row["live"]).collect();
    assert_eq!(live, [&Value::Bool(true), &Value::Bool(false)], "{report}");
    // It takes no copies of that one, so that nothing of ours would reload it.
    let words = report["endpoints"][1]["messages"].to_string();
    assert!(words.contains("other.example.test") && !words.contains("wicketgate deploy"), "{words}");
}

#[test]
fn the_watch_tells_of_a_server_that_shows_an_old_certificate_and_of_its_end() {
    needs!("nginx");
    let bed = Bed::new();
    let ladder = Ladder::new();
    let hook = Webhook::start(&bed, &[OK]);
    let names = [NAME, "example.test"];
    let (old, new) = (ladder.issue(&names, 85, 5), ladder.issue(&names, 0, 90));
    let nginx = copied(&bed, &old);
    let notify = format!("[notify]\nwebhook = \"http://127.0.0.1:{}/\"\n", hook.port);
    let setup = deployed(&bed, nginx.port(), &new, &notify);
    // The deploy was well; whatever put the old one back, nothing is pending.
    let mut state = LineageState::default();
    state.deployed.insert("web".to_owned(), Deployed { version: Some(1), ..Deployed::default() });
    Store::open(&setup.state).unwrap().save_lineage_state(NAME, &state).unwrap();
    let mut daemon = setup.start(&bed);
    let patience = Duration::from_secs(90);
    until_within(patience, "both are told", || {
        (hook.count("deploy-failed") == 1 && hook.count("expiring") == 1).then_some(())
    });
    let documents = hook.documents();
    let told = |kind: &str| documents.iter().find(|document| document["kind"] == kind).unwrap().clone();
    let (deploy, expiring) = (told("deploy-failed"), told("expiring"));
    let endpoint = format!("127.0.0.1:{}", nginx.port());
    assert_eq!(deploy["cause"], format!("web at {endpoint}"));
    assert_eq!(deploy["details"]["serial-served"], old.certificate().serial());
    assert_eq!(deploy["details"]["serial-stored"], new.certificate().serial());
    assert_eq!(expiring["details"]["endpoint"], endpoint);
    assert!(
        expiring["summary"].as_str().unwrap().starts_with("what web shows for www.example.test expires in")
    );
    daemon.stop();
}

#[test]
fn the_watch_leaves_a_failed_deploy_to_the_deploy_that_told_it() {
    needs!("nginx");
    let bed = Bed::new();
    let ladder = Ladder::new();
    let hook = Webhook::start(&bed, &[OK]);
    let names = [NAME, "example.test"];
    let (old, new) = (ladder.issue(&names, 85, 5), ladder.issue(&names, 0, 90));
    let nginx = copied(&bed, &old);
    let notify = format!("[notify]\nwebhook = \"http://127.0.0.1:{}/\"\n", hook.port);
    let mut setup = deployed(&bed, nginx.port(), &new, &notify);
    setup.more = setup.more.replace("[\"true\"]", "[\"false\"]");
    let mut daemon = setup.start(&bed);
    // What is told after it by the watch says that it has looked.
    until_within(Duration::from_secs(90), "the end is told", || (hook.count("expiring") == 1).then_some(()));
    let documents = hook.documents();
    let causes: Vec<_> =
        documents.iter().filter(|d| d["kind"] == "deploy-failed").map(|d| &d["cause"]).collect();
    assert_eq!(causes, ["web"]);
    daemon.stop();
}
