//! Requests that two servers could read differently, through the front to real proxies and on to an application that
//! writes down what it gets: it never sees a request that was not meant as one.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use wicketgate::config::{Front, Place};

use super::rig::{App, Pieces, Rig, connect, http, settings, soon};
use crate::bed::client::is_open;
use crate::bed::nginx::Nginx;
use crate::bed::process::Process;
use crate::bed::{Bed, needs, set_mode, until};

/// Connections at once.
const AT_ONCE: usize = 24;

/// Bytes to be sent, in which `{id}` is the case's number.
struct Case {
    name: String,
    bytes: Vec<u8>,
    /// What the first request's body is, where the case is a sound one.
    body: Option<Vec<u8>>,
}

/// What a body pretends to be.
const HIDDEN: &str = "GET /{id}-s HTTP/1.1\r\nHost: a.test\r\n\r\n";
const NEXT: &str = "GET /{id}-b HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";

/// Without the place-holder, which all numbers of five digits take the place of.
fn length(text: &str) -> usize {
    text.replace("{id}", "00000").len()
}

fn case(cases: &mut Vec<Case>, name: &str, text: &str, body: Option<&str>) {
    let id = format!("{:05}", cases.len());
    let fill = |text: &str| text.replace("{id}", &id).into_bytes();
    cases.push(Case { name: name.to_owned(), bytes: fill(text), body: body.map(fill) });
}

/// Every way to write a length.
fn lengths(cases: &mut Vec<Case>) {
    let n = length(HIDDEN);
    let mut lines = vec![
        (format!("Content-Length: {n}"), true),
        (format!("content-length:{n}"), true),
        (format!("Content-Length: {n}\t "), true),
    ];
    lines.extend(
        [
            format!("Content-Length: +{n}"),
            format!("Content-Length: -{n}"),
            format!("Content-Length: 0{n}"),
            format!("Content-Length: 0x{n:x}"),
            format!("Content-Length: {n}.0"),
            format!("Content-Length: {n}e0"),
            format!("Content-Length: \"{n}\""),
            format!("Content-Length: {n},{n}"),
            format!("Content-Length: {n}, 0"),
            format!("Content-Length: 0, {n}"),
            format!("Content-Length: {n} 0"),
            format!("Content-Length: {}", (1_u128 << 64) + n as u128),
            format!("Content-Length : {n}"),
            format!(" Content-Length: {n}"),
            format!("Content-Length:\u{b}{n}"),
            format!("Content-Length: {n}\0"),
            format!("Content\0-Length: {n}"),
            format!("Content_Length: {n}"),
            format!("X: y\r\n Content-Length: {n}"),
            format!("X: y\rContent-Length: {n}"),
            format!("X: y\nContent-Length: {n}"),
            format!("Content-Length:\r\n {n}"),
            format!("Content-Length: {n}\r\nContent-Length: 0"),
            format!("Content-Length: 0\r\nContent-Length: {n}"),
            format!("Content-Length: {n}\r\nContent-Length: {n}"),
            format!("Content-Length: 0\r\ncontent-length: {n}"),
            "Content-Length:".to_owned(),
            "Content-Length: ,".to_owned(),
        ]
        .map(|line| (line, false)),
    );
    for (line, is_sound) in &lines {
        for method in ["GET", "POST", "DELETE", "OPTIONS"] {
            for version in ["1.1", "1.0"] {
                let text = format!(
                    "{method} /{{id}}-a HTTP/{version}\r\nHost: a.test\r\n{line}\r\n\r\n{HIDDEN}{NEXT}"
                );
                // Some proxies take no body with a GET.
                let body = (*is_sound && version == "1.1" && method != "GET").then_some(HIDDEN);
                case(cases, &format!("{method} {version} {line:?}"), &text, body);
            }
        }
    }
}

/// Every way to name a coding, beside a length and without.
fn codings(cases: &mut Vec<Case>) {
    let values = [
        "chunked",
        "Chunked",
        "chunked ",
        "\tchunked",
        "\u{b}chunked",
        "chunked\u{b}",
        "\"chunked\"",
        "xchunked",
        "chunked, identity",
        "identity, chunked",
        "gzip, chunked",
        "x, chunked",
        "chunked, chunked",
        "chunked;q=1",
        ",chunked",
        "chunked,",
        "",
        "identity",
        "chunked\0",
        "chunked\r\nTransfer-Encoding: identity",
        "identity\r\nTransfer-Encoding: chunked",
        "chunked\r\nTransfer-Encoding: chunked",
    ];
    let names = [
        "Transfer-Encoding: ",
        "transfer-encoding:",
        "Transfer-Encoding : ",
        " Transfer-Encoding: ",
        "Transfer_Encoding: ",
        "X: y\r\n Transfer-Encoding: ",
        "X: y\rTransfer-Encoding: ",
    ];
    let ended = format!("0\r\n\r\n{HIDDEN}");
    let whole = format!("{:x}\r\n{HIDDEN}\r\n0\r\n\r\n", length(HIDDEN));
    for name in names {
        for value in values {
            for beside in ["", "before", "after"] {
                for body in [&ended, &whole] {
                    let n = length(body);
                    let (before, after) = match beside {
                        "before" => (format!("Content-Length: {n}\r\n"), String::new()),
                        "after" => (String::new(), format!("\r\nContent-Length: {n}")),
                        _ => (String::new(), String::new()),
                    };
                    // Without a length, what follows the end is a request, and meant as one.
                    if beside.is_empty() && std::ptr::eq(body, &ended) {
                        continue;
                    }
                    let text = format!(
                        "POST /{{id}}-a HTTP/1.1\r\nHost: a.test\r\n{before}{name}{value}{after}\r\n\r\n{body}{NEXT}"
                    );
                    let is_sound =
                        beside.is_empty() && name.trim_end() == "Transfer-Encoding:" && value == "chunked";
                    let shown = format!(
                        "{name:?} {value:?} {beside} {}",
                        if std::ptr::eq(body, &whole) { "whole" } else { "ended" }
                    );
                    case(cases, &shown, &text, is_sound.then_some(HIDDEN));
                }
            }
        }
    }
}

/// Every way to frame a chunk.
fn chunks(cases: &mut Vec<Case>) {
    let n = length(HIDDEN);
    let mut sizes = vec![(format!("{n:x}"), true), (format!("{n:X}"), true), (format!("00{n:x}"), true)];
    sizes.extend(
        [
            format!("0x{n:x}"),
            format!("+{n:x}"),
            format!("-{n:x}"),
            format!("{n:x} "),
            format!(" {n:x}"),
            format!("{n:x};a=b"),
            format!("{n:x};a=\"\n{n:x}\""),
            format!("{n:x};\r"),
            format!("{n:x}\t;a"),
            format!("{n:x}\n"),
            format!("{n:x}\r"),
            format!("1000000000000000{n:x}"),
            format!("{n:x}h"),
            String::new(),
        ]
        .map(|size| (size, false)),
    );
    let ends = [("\r\n", true), ("\n", false), ("", false), ("\r", false), ("xx", false)];
    let lasts = [
        ("0\r\n\r\n", true),
        ("00\r\n\r\n", true),
        ("0\r\nX: y\r\n\r\n", true),
        ("0\n\n", false),
        ("0;a\r\n\r\n", false),
        ("0\r\nContent-Length: 5\r\n\r\n", false),
        ("0\r\nHost: evil.test\r\n\r\n", false),
        ("-0\r\n\r\n", false),
        ("0\r\n\n", false),
    ];
    for (size, sound_size) in &sizes {
        for (end, sound_end) in ends {
            for (last, sound_last) in lasts {
                let text = format!(
                    "POST /{{id}}-a HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n{size}\r\n{HIDDEN}{end}{last}{NEXT}"
                );
                let is_sound = *sound_size && sound_end && sound_last;
                case(cases, &format!("chunk {size:?} {end:?} {last:?}"), &text, is_sound.then_some(HIDDEN));
            }
        }
    }
}

/// Every way to write the first lines.
fn lines(cases: &mut Vec<Case>) {
    let firsts = [
        "GET {p} HTTP/1.1",
        "GET  {p} HTTP/1.1",
        "GET {p}  HTTP/1.1",
        "GET\t{p}\tHTTP/1.1",
        "GET {p} HTTP/1.1 ",
        "GET {p} HTTP/1.2",
        "GET {p} HTTP/2.0",
        "GET {p} HTTP/0.9",
        "GET {p} http/1.1",
        "GET {p}",
        "GET {p}#f HTTP/1.1",
        "GET {p} x HTTP/1.1",
        "GET http://a.test{p} HTTP/1.1",
        "GET http://evil.test{p} HTTP/1.1",
        "GET http://a.test@evil.test{p} HTTP/1.1",
        "\r\nGET {p} HTTP/1.1",
        "\nGET {p} HTTP/1.1",
        "G ET {p} HTTP/1.1",
        "GET {p}\0 HTTP/1.1",
        "GET {p}\r HTTP/1.1",
        "get {p} HTTP/1.1",
    ];
    let hosts = [
        "Host: a.test",
        "Host: a.test\r\nHost: evil.test",
        "Host: evil.test\r\nHost: a.test",
        "Host : a.test",
        " Host: a.test",
        "Host: evil.test",
        "Host: a.test@evil.test",
        "Host: a.test, evil.test",
        "Host: a.test/x",
        "Host:\r\n a.test",
        "Host: a.test\u{b}",
        "X: y\rHost: evil.test\r\nHost: a.test",
        "X: y\nHost: a.test",
        "Host\0: a.test",
        "",
    ];
    for first in firsts {
        for host in hosts {
            for end in ["\r\n", "\n", "\r"] {
                let first = first.replace("{p}", "/{id}-a");
                let host = if host.is_empty() { String::new() } else { format!("{host}{end}") };
                case(
                    cases,
                    &format!("{first:?} {host:?} {end:?}"),
                    &format!("{first}{end}{host}{end}{NEXT}"),
                    None,
                );
            }
        }
    }
}

/// What the application got: by case, each request's path, host and body.
type Seen = Arc<Mutex<BTreeMap<usize, Vec<(String, String, Vec<u8>)>>>>;

async fn recorder() -> (App, Seen) {
    let seen = Seen::default();
    let app = App::http({
        let seen = seen.clone();
        move |request| {
            let seen = seen.clone();
            async move {
                let (path, host) = (request.uri().path().to_owned(), request.headers().get("host").cloned());
                // Squid asks its peers for something of its own now and then.
                if path.starts_with("/squid-internal") {
                    return Response::new(Pieces::none());
                }
                // Broken off and known to be, it is no request.
                let Ok(body) = request.into_body().collect().await else {
                    return Response::new(Pieces::none());
                };
                let body = body.to_bytes().to_vec();
                let case = path.get(1..6).and_then(|id| id.parse().ok()).unwrap_or(usize::MAX);
                let host = host
                    .map_or_else(String::new, |host| String::from_utf8_lossy(host.as_bytes()).into_owned());
                seen.lock().unwrap().entry(case).or_default().push((path, host, body));
                Response::new(Pieces::of([Frame::data(Bytes::from_static(b"recorded"))]))
            }
        }
    })
    .await;
    (app, seen)
}

/// One that passes everything on to `port`.
fn nginx(bed: &Bed, port: u16) -> (Box<dyn Send>, u16) {
    let own = bed.port();
    let server = format!(
        "server {{ listen 127.0.0.1:{own}; location / {{ proxy_pass http://127.0.0.1:{port}; proxy_http_version 1.1;
         proxy_set_header Host $http_host; proxy_set_header Connection \"\"; }} }}"
    );
    (Box::new(Nginx::servers(bed, "between", &server, own, 1)), own)
}

fn apache(bed: &Bed, port: u16) -> (Box<dyn Send>, u16) {
    let own = bed.port();
    let modules = ["mpm_event", "authz_core", "proxy", "proxy_http"]
        .map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"))
        .concat();
    std::fs::create_dir_all(bed.path("between-apache")).unwrap();
    let folder = bed.path("between-apache").display().to_string();
    let config = bed.write(
        "between-apache/apache.conf",
        format!(
            "ServerRoot {folder}\nDefaultRuntimeDir {folder}\nPidFile {folder}/pid\nErrorLog {folder}/error.log\n{modules}\
             User www-data\nGroup www-data\nServerName a.test\nListen 127.0.0.1:{own}\nProxyPreserveHost On\n\
             ProxyPass / http://127.0.0.1:{port}/\n"
        ),
    );
    let mut command = Command::new("/usr/sbin/apache2");
    let process = Process::start("apache2", command.args(["-D", "FOREGROUND", "-f"]).arg(&config));
    until("apache2 listens", || is_open(own).then_some(()));
    (Box::new(process), own)
}

fn squid(bed: &Bed, port: u16) -> (Box<dyn Send>, u16) {
    let own = bed.port();
    let dir = bed.path("between-squid");
    std::fs::create_dir_all(&dir).unwrap();
    set_mode(&dir, 0o777);
    let folder = dir.display();
    let config = bed.write(
        "between-squid/squid.conf",
        format!(
            "http_port 127.0.0.1:{own} accel defaultsite=a.test vhost\ncache deny all\n\
             cache_peer 127.0.0.1 parent {port} 0 no-query originserver\nhttp_access allow all\nnever_direct allow all\n\
             pid_filename {folder}/pid\ncache_log {folder}/cache.log\naccess_log none\ncoredump_dir {folder}\n\
             visible_hostname a.test\npinger_enable off\nshutdown_lifetime 0 seconds\ndns_nameservers 127.0.0.1\n"
        ),
    );
    let mut command = Command::new("/usr/sbin/squid");
    let process = Process::start(
        "squid",
        command.args(["--foreground", "-n", &format!("it{own}"), "-f"]).arg(Path::new(&config)),
    );
    until("squid listens", || is_open(own).then_some(()));
    (Box::new(process), own)
}

/// Sends a case and tells how many answers of the application came back.
async fn send(rig: &Rig, config: Arc<rustls::ClientConfig>, case: &Case) -> usize {
    let mut stream = soon(connect(rig.address, config, "a.test")).await.unwrap();
    let mut answer = Vec::new();
    // A front that has closed already has said what it has to say.
    let _ = stream.write_all(&case.bytes).await;
    let _ = soon(stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).matches("recorded").count()
}

#[tokio::test]
async fn nothing_is_smuggled_past_the_front() {
    needs!("nginx", "apache2", "squid");
    let mut cases = Vec::new();
    for add in [lengths, codings, chunks, lines] {
        add(&mut cases);
    }
    assert!(cases.len() >= 2000, "{}", cases.len());
    let cases = Arc::new(cases);
    let bed = Bed::new();
    set_mode(bed.dir(), 0o755);
    let mut report = String::new();
    for (name, start) in
        [("nginx", nginx as fn(&Bed, u16) -> (Box<dyn Send>, u16)), ("apache", apache), ("squid", squid)]
    {
        let (app, seen) = recorder().await;
        let Some(Place::Tcp { port, .. }) = app.upstream.place() else { unreachable!() };
        let (_running, between) = start(&bed, *port);
        let hasty = Duration::from_millis(300);
        let front = Front {
            idle_timeout: hasty,
            response_timeout: Duration::from_secs(10),
            ..settings(http("127.0.0.1", between))
        };
        let rig = Arc::new(Rig::with(&front, Duration::ZERO));
        let client = Arc::new(rig.authority.client(&["http/1.1"]));
        let gate = Arc::new(Semaphore::new(AT_ONCE));
        let sent: Vec<_> = (0..cases.len())
            .map(|n| {
                let (rig, client, cases, gate) = (rig.clone(), client.clone(), cases.clone(), gate.clone());
                tokio::spawn(async move {
                    let _turn = gate.acquire().await.unwrap();
                    send(&rig, client, &cases[n]).await
                })
            })
            .collect();
        let mut answered = Vec::new();
        for sent in sent {
            answered.push(sent.await.unwrap());
        }
        let seen = seen.lock().unwrap().clone();
        assert!(!seen.contains_key(&usize::MAX), "{name}: {:?}", seen.get(&usize::MAX));
        let mut passed = 0;
        for (n, case) in cases.iter().enumerate() {
            let got = seen.get(&n).map_or(&[][..], Vec::as_slice);
            passed += usize::from(!got.is_empty());
            if let Some(wrong) = difference(n, case, got, answered[n]) {
                writeln!(report, "{name}: {}: {wrong}", case.name).unwrap();
            }
        }
        eprintln!("{name}: {} cases, {passed} of them let through", cases.len());
        assert!(passed > 20, "{name} lets nothing through");
    }
    assert!(report.is_empty(), "differences:\n{report}");
}

/// Where what was seen is not what was meant.
fn difference(n: usize, case: &Case, got: &[(String, String, Vec<u8>)], answered: usize) -> Option<String> {
    let paths: Vec<_> = got.iter().map(|(path, ..)| path.as_str()).collect();
    let (first, next) = (format!("/{n:05}-a"), format!("/{n:05}-b"));
    let is_meant = match paths.as_slice() {
        [] => case.body.is_none(),
        [only] => case.body.is_none() && (*only == first || *only == next),
        [one, two] => *one == first && *two == next,
        // A field like any other, and gone on the way: what follows is a request, and meant as one.
        [one, _, two] => case.name.contains("Content_Length") && *one == first && *two == next,
        _ => false,
    };
    if !is_meant {
        return Some(format!("seen {paths:?}"));
    }
    if let Some((_, host, _)) =
        got.iter().find(|(_, host, _)| !host.trim_end_matches(":443").eq_ignore_ascii_case("a.test"))
    {
        return Some(format!("for host {host:?}"));
    }
    if let Some(body) = &case.body
        && got[0].2 != *body
    {
        return Some(format!("with another body: {:?}", String::from_utf8_lossy(&got[0].2)));
    }
    (answered != got.len()).then(|| format!("{} requests, {answered} answers", got.len()))
}
