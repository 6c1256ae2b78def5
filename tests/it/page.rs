//! `admin.listen`: metrics, health and the status page, for who may only look.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::bed::client::{Answer, exchange, get};
use crate::bed::pebble::{Mood, Pebble};
use crate::bed::process::{run, run_within};
use crate::bed::wicketgate::{Daemon, Setup};
use crate::bed::{Bed, needs, until};

const NAME: &str = "www.example.test";

/// A daemon with a page at that port, and a server that does not take its certificate.
fn start(bed: &Bed) -> (Setup, (Daemon, Pebble), u16) {
    let page = bed.port();
    let (pebble, setup) = Setup::with_pebble(bed, Mood::Kind, &[NAME]);
    let setup = setup
        .with("deploy = [\"shop\"]")
        .tables("[deploy.shop]\ncheck = [\"sh\", \"-c\", \"echo '<script>alert(1)</script> cannot' >&2; exit 1\"]\nreload = [\"true\"]\nverify = []\n");
    let text = setup.text().replace("[admin]\n", &format!("[admin]\nlisten = \"127.0.0.1:{page}\"\n"));
    let config = bed.write("wicketgate.toml", text);
    let daemon = Daemon::start(&config);
    daemon.process.wait_for_line("shop did not take it");
    (setup, (daemon, pebble), page)
}

fn shown(page: u16, path: &str) -> Answer {
    get(page, "localhost", path).unwrap()
}

fn text(answer: &Answer) -> String {
    String::from_utf8(answer.body.clone()).unwrap()
}

/// The value of that line.
fn value(metrics: &str, line: &str) -> f64 {
    let found = metrics.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("there is no `{line}` in {metrics}")).parse().unwrap()
}

#[test]
fn metrics_health_and_page_tell_what_is() {
    needs!("pebble", "curl");
    let bed = Bed::new();
    let (setup, _daemon, page) = start(&bed);
    assert_eq!(get(setup.gate, "foreign.example.test", "/").unwrap().status, 421);
    assert_eq!(get(setup.gate, NAME, "/.well-known/acme-challenge/unknown-token").unwrap().status, 404);

    let metrics = shown(page, "/metrics");
    assert_eq!(metrics.status, 200);
    assert!(
        metrics.header("content-type").unwrap().starts_with("application/openmetrics-text; version=1.0.0")
    );
    let metrics = text(&metrics);
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");
    let of = |name: &str| value(&metrics, &format!("wicketgate_{name}{{certificate=\"{NAME}\"}}"));
    assert!(of("certificate_not_after_seconds") > of("certificate_next_order_seconds"));
    assert!(of("certificate_next_order_seconds") > of("certificate_not_before_seconds"));
    assert_eq!((of("certificate_failures"), of("certificate_untrusted")), (0.0, 0.0));
    let deploy = format!("wicketgate_deploy_pending{{certificate=\"{NAME}\",service=\"shop\"}}");
    assert_eq!(value(&metrics, &deploy), 1.0);
    assert!(value(&metrics, "wicketgate_gate_requests_total{outcome=\"challenge\"}") >= 1.0);
    assert_eq!(value(&metrics, "wicketgate_gate_requests_total{outcome=\"unknown-token\"}"), 1.0);
    assert_eq!(value(&metrics, "wicketgate_gate_requests_total{outcome=\"refused\"}"), 1.0);
    assert_eq!(value(&metrics, "wicketgate_gate_listening"), 1.0);
    assert_eq!(value(&metrics, "wicketgate_sandbox_enforced{part=\"memory\"}"), 1.0);
    assert_eq!(text(&shown(page, "/healthz")), "ok\n");
    assert_eq!((shown(page, "/readyz").status, text(&shown(page, "/readyz"))), (200, "ready\n".to_owned()));

    let document = shown(page, "/");
    let policy = document.header("content-security-policy").unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
    let html = text(&document);
    assert!(html.contains(NAME) && html.contains("not served everywhere"), "{html}");
    assert!(
        html.contains("&lt;script&gt;alert(1)&lt;/script&gt; cannot") && !html.contains("<script"),
        "{html}"
    );
    assert!(html.contains("<svg") && html.contains("no such challenge is pending"), "{html}");
    // Nothing is fetched from anywhere, and no key is shown.
    for word in ["http://", "https://", "src=", "url(", "PRIVATE"] {
        assert!(!html.contains(word), "{word} in {html}");
    }
    assert_eq!(shown(page, "/status").status, 404);
}

#[test]
fn it_only_tells_and_is_not_held_up() {
    needs!("pebble", "curl");
    let bed = Bed::new();
    let (_setup, _daemon, page) = start(&bed);
    for request in ["POST / HTTP/1.1", "PUT /metrics HTTP/1.1", "DELETE /challenges/x HTTP/1.1"] {
        let answer = exchange(
            page,
            &format!("{request}\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"),
        )
        .unwrap();
        assert_eq!(answer.status, 405, "{request}");
    }
    // A name that somebody else has made lead here.
    for (host, status) in [
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("LOCALHOST:1", 200),
        ("127.0.0.1", 200),
        ("[::1]:9180", 200),
    ] {
        assert_eq!(get(page, host, "/metrics").unwrap().status, status, "{host}");
    }
    let long = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    assert!(exchange(page, &long).map_or(true, |answer| answer.status == 431));
    // As many who say nothing as may come.
    let mut silent: Vec<_> = (0..64).map(|_| TcpStream::connect(("127.0.0.1", page)).unwrap()).collect();
    std::thread::sleep(Duration::from_millis(200));
    let mut one_more = TcpStream::connect(("127.0.0.1", page)).unwrap();
    one_more.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    // Turned away at once; whether the request could still be sent does not matter.
    let _ = one_more.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(one_more.read(&mut [0; 16]).unwrap_or(0), 0);
    silent.truncate(32);
    until("there is room again", || {
        get(page, "localhost", "/healthz").is_ok_and(|answer| answer.status == 200).then_some(())
    });
}

#[test]
fn without_a_certificate_it_is_not_ready() {
    let bed = Bed::new();
    let page = bed.port();
    // A CA that is not there.
    let setup =
        Setup::new(&bed, &format!("https://127.0.0.1:{}/dir", bed.port()), Path::new("/etc/hostname"));
    let acme = setup.text();
    let text_ = acme
        .replace("roots = \"/etc/hostname\"\n", "")
        .replace("[admin]\n", &format!("[admin]\nlisten = \"127.0.0.1:{page}\"\n"));
    let text_ = format!("{text_}[[certificate]]\nhostnames = [{NAME:?}]\n");
    let daemon = Daemon::start(&bed.write("wicketgate.toml", text_));
    daemon.process.wait_for_line("ready: ");
    let answer = shown(page, "/readyz");
    assert_eq!((answer.status, text(&answer)), (503, format!("{NAME} has no certificate yet\n")));
    assert_eq!(shown(page, "/healthz").status, 200);
    assert!(!text(&shown(page, "/metrics")).contains("certificate_not_after_seconds{"));
    assert!(text(&shown(page, "/")).contains("there is none"));
}

/// The names in an expression of Prometheus.
fn names(rules: &str) -> BTreeSet<&str> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    rules.split(|c| !word(c)).filter(|name| name.starts_with("wicketgate_")).collect()
}

#[test]
fn every_alert_is_about_a_metric_that_there_is() {
    needs!("promtool", "pebble", "curl");
    let rules_file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus/wicketgate.rules.yml");
    let rules = fs::read_to_string(&rules_file).unwrap();
    let checked = run(Command::new("promtool").args(["check", "rules"]).arg(&rules_file)).expect_code(0);
    assert!(checked.text().contains("9 rules found"), "{}", checked.text());
    let bed = Bed::new();
    let (_setup, _daemon, page) = start(&bed);
    let metrics = text(&shown(page, "/metrics"));
    // Those that are there only with an opening, or with a CA that counts.
    let others = [
        "wicketgate_gate_opening_open",
        "wicketgate_gate_opening_stuck",
        "wicketgate_certificate_failures_left",
    ];
    for name in names(&rules) {
        let help = format!("# HELP {name} ");
        assert!(metrics.contains(&help) || others.contains(&name), "{name} is not among {metrics}");
    }
}

#[test]
fn a_browser_shows_it_without_a_complaint() {
    needs!("chromium", "pebble", "curl");
    let bed = Bed::new();
    let (_setup, _daemon, page) = start(&bed);
    let picture = bed.path("page.png");
    let mut command = Command::new("chromium");
    command.args([
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--enable-logging=stderr",
    ]);
    command.arg(format!("--user-data-dir={}", bed.path("profile").display()));
    command.args(["--window-size=390,844", "--virtual-time-budget=2000"]);
    command.arg(format!("--screenshot={}", picture.display())).arg(format!("http://127.0.0.1:{page}/"));
    let ran = run_within(Duration::from_secs(120), &mut command);
    assert!(picture.metadata().is_ok_and(|meta| meta.len() > 10_000), "{}", ran.text());
    for complaint in ["Content Security Policy", "Refused to", "Uncaught"] {
        assert!(!ran.text().contains(complaint), "{}", ran.text());
    }
}
