//! Scanners at the gate: one line each, of a form that the real fail2ban reads; and the clients behind proxies,
//! by X-Forwarded-For and by the PROXY protocol.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::bed::client::exchange;
use crate::bed::process::{Process, run};
use crate::bed::wicketgate::{Daemon, Setup, command};
use crate::bed::{Bed, needs, until};

const CHALLENGE: &str = "/.well-known/acme-challenge/";

/// A daemon that believes proxies on loopback, or none.
fn start(bed: &Bed, trusted: &str, more: &[&str]) -> (Setup, Daemon) {
    let setup = Setup::embedded(bed).certificate(&["www.example.test"]).without_front();
    let gate = format!("[gate]\ntrusted-proxies = {trusted}\n");
    let path = bed.write("wicketgate.toml", setup.text().replace("[gate]\n", &gate));
    let daemon = Process::start("wicketgate", command(&path).args(more).arg("run"));
    until("the gate answers", || exchange(setup.gate, "GET / HTTP/1.0\r\n\r\n").ok());
    (setup, Daemon { process: daemon })
}

/// Asks for a path as a proxy on loopback does for `client`; the status.
fn ask_for(gate: u16, client: &str, host: &str, path: &str) -> u16 {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-For: {client}\r\nConnection: close\r\n\r\n"
    );
    exchange(gate, &request).unwrap().status
}

fn scanner_lines(daemon: &Daemon) -> Vec<String> {
    let lines = daemon.process.lines().into_iter();
    lines.filter_map(|line| Some(line.split_once("INFO scanner ")?.1.to_owned())).collect()
}

#[test]
fn each_scanner_is_a_line_with_its_address() {
    let bed = Bed::new();
    let (setup, daemon) = start(&bed, "[\"127.0.0.0/8\"]", &[]);
    let unknown = format!("{CHALLENGE}evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA");
    assert_eq!(ask_for(setup.gate, "198.51.100.7", "www.example.test", &unknown), 404);
    assert_eq!(ask_for(setup.gate, "198.51.100.8", "www.example.test", CHALLENGE), 404);
    assert_eq!(ask_for(setup.gate, "2001:db8::7", "other.test", "/"), 421);
    assert_eq!(ask_for(setup.gate, "198.51.100.9", "192.0.2.1", "/.env"), 421);
    // None of these is one: a visitor, a proxy of ours, this machine.
    assert!(matches!(ask_for(setup.gate, "198.51.100.10", "www.example.test", "/"), 307 | 308));
    assert_eq!(ask_for(setup.gate, "127.0.0.9", "www.example.test", &unknown), 404);
    assert_eq!(exchange(setup.gate, std::str::from_utf8(FOREIGN).unwrap()).unwrap().status, 421);
    let expected = [
        "client=198.51.100.7 asked=unknown-token host=www.example.test",
        "client=198.51.100.8 asked=unknown-token host=www.example.test",
        "client=2001:db8::7 asked=foreign-host host=other.test",
        "client=198.51.100.9 asked=foreign-host host=192.0.2.1",
    ];
    until("all lines are written", || (scanner_lines(&daemon).len() >= expected.len()).then_some(()));
    assert_eq!(scanner_lines(&daemon), expected);
}

#[test]
fn who_fetched_a_challenge_is_never_a_scanner() {
    let bed = Bed::new();
    let (setup, daemon) = start(&bed, "[\"127.0.0.0/8\"]", &[]);
    let token = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA";
    let authorization = format!("{token}.nP1qzpXGymHBrUEepNY9HCsQk7K8KhOypzEt62jcerQ");
    let put = run(command(&bed.path("wicketgate.toml")).args([
        "challenge",
        "put",
        "www.example.test",
        token,
        &authorization,
    ]));
    put.expect_code(0);
    assert_eq!(ask_for(setup.gate, "198.51.100.7", "www.example.test", &format!("{CHALLENGE}{token}")), 200);
    for _ in 0..10 {
        assert_eq!(ask_for(setup.gate, "198.51.100.7", "other.test", "/"), 421);
        assert_eq!(ask_for(setup.gate, "198.51.100.7", "www.example.test", CHALLENGE), 404);
    }
    assert_eq!(ask_for(setup.gate, "198.51.100.8", "other.test", "/"), 421);
    until("the one line is written", || scanner_lines(&daemon).first().cloned());
    assert_eq!(scanner_lines(&daemon), ["client=198.51.100.8 asked=foreign-host host=other.test"]);
}

#[test]
fn a_flood_of_one_network_is_a_few_lines() {
    let bed = Bed::new();
    let (setup, daemon) = start(&bed, "[\"127.0.0.0/8\"]", &[]);
    for n in 0..300 {
        ask_for(setup.gate, &format!("198.51.100.{}", n % 250), "other.test", "/");
    }
    ask_for(setup.gate, "203.0.113.7", "other.test", "/");
    let last = until("the other network's line is written", || {
        scanner_lines(&daemon).into_iter().find(|line| line.contains("203.0.113.7"))
    });
    let told = scanner_lines(&daemon).len();
    assert!((21..=30).contains(&told), "{told} lines");
    let untold: usize = last.split_once("untold=").unwrap().1.parse().unwrap();
    assert_eq!(told - 1 + untold, 300, "{last}");
}

/// Sends bytes in portions; what comes back until the end.
fn speak(gate: u16, portions: &[&[u8]]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", gate)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    for portion in portions {
        stream.write_all(portion).unwrap();
        std::thread::sleep(Duration::from_millis(30));
    }
    let mut answer = Vec::new();
    // A reset is an end as well.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

const FOREIGN: &[u8] = b"GET / HTTP/1.1\r\nHost: other.test\r\nConnection: close\r\n\r\n";

#[test]
fn a_trusted_proxy_tells_the_client_in_a_proxy_header() {
    let bed = Bed::new();
    let (setup, daemon) = start(&bed, "[\"127.0.0.0/8\", \"192.0.2.0/24\"]", &[]);
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc6\x33\x64\x02\x7f\x00\x00\x01\x10\x00\x00\x50";
    let inner =
        b"GET / HTTP/1.1\r\nHost: other.test\r\nX-Forwarded-For: 203.0.113.4\r\nConnection: close\r\n\r\n";
    let dialogues: [&[&[u8]]; 8] = [
        &[b"PROXY TCP4 198.51.100.1 127.0.0.1 4096 80\r\n", FOREIGN],
        &[v2, FOREIGN],
        &[&[&v2[..], FOREIGN].concat()],
        &[
            b"PRO",
            b"XY TCP4 198.51.100.3 127.0.0.1 40",
            b"96 80\r",
            b"\nGET / HTTP/1.1\r\nHost: other.test\r\n",
            b"Connection: close\r\n\r\n",
        ],
        // A proxy before the proxy.
        &[b"PROXY TCP4 192.0.2.1 127.0.0.1 4096 80\r\n", inner],
        // The proxy's own looks after us, and none at all.
        &[b"PROXY UNKNOWN\r\n", FOREIGN],
        &[&v2[..12], b"\x20\x00\x00\x00", FOREIGN],
        &[FOREIGN],
    ];
    for portions in dialogues {
        let answer = speak(setup.gate, portions);
        assert!(answer.starts_with("HTTP/1.1 421 "), "{answer:?} to {portions:?}");
    }
    let expected = ["198.51.100.1", "198.51.100.2", "198.51.100.2", "198.51.100.3", "203.0.113.4"]
        .map(|client| format!("client={client} asked=foreign-host host=other.test"));
    until("all lines are written", || (scanner_lines(&daemon).len() >= expected.len()).then_some(()));
    assert_eq!(scanner_lines(&daemon), expected);
}

#[test]
fn a_broken_proxy_header_is_refused_and_told() {
    let bed = Bed::new();
    let (setup, daemon) = start(&bed, "[\"127.0.0.0/8\"]", &[]);
    assert_eq!(speak(setup.gate, &[b"PROXY TCP4 somebody 127.0.0.1 1 2\r\n", FOREIGN]), "");
    daemon.process.wait_for_line("a connection of a trusted proxy was closed proxy=127.0.0.1");
    // One that falls silent in the middle is closed, and the others are served meanwhile.
    let mut silent = TcpStream::connect(("127.0.0.1", setup.gate)).unwrap();
    silent.write_all(b"PROXY TCP4 198.51").unwrap();
    assert!(speak(setup.gate, &[FOREIGN]).starts_with("HTTP/1.1 421 "));
    silent.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut rest = Vec::new();
    let ended = silent.read_to_end(&mut rest);
    assert!(ended.is_ok() && rest.is_empty(), "{ended:?} {rest:?}");
}

#[test]
fn a_proxy_header_of_anybody_else_is_refused_and_told() {
    let bed = Bed::new();
    let (setup, daemon) = start(&bed, "[\"192.0.2.1\"]", &[]);
    let answer = speak(setup.gate, &[b"PROXY TCP4 198.51.100.1 127.0.0.1 4096 80\r\n", FOREIGN]);
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer:?}");
    daemon.process.wait_for_line("is none of `gate.trusted-proxies`");
    assert_eq!(scanner_lines(&daemon), Vec::<String>::new());
}

fn filter() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("deploy/fail2ban/filter.d/wicketgate.conf")
        .display()
        .to_string()
}

/// How many lines of a file the filter of `deploy/` takes for a scanner's.
fn matched(log: &Path) -> usize {
    let ran = run(Command::new("fail2ban-regex").arg(log).arg(filter())).expect_code(0);
    let summary = ran.text();
    let number = summary.split(" matched").next().and_then(|text| text.rsplit(' ').next());
    number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{summary}"))
}

#[test]
fn the_real_filter_reads_the_line_in_every_form() {
    needs!("fail2ban-regex");
    let bed = Bed::new();
    for format in ["text", "json"] {
        let (setup, daemon) = start(&bed, "[\"127.0.0.0/8\"]", &["--log-format", format]);
        for client in ["198.51.100.7", "2001:db8::7"] {
            ask_for(setup.gate, client, "other.test", "/");
            ask_for(setup.gate, client, "www.example.test", CHALLENGE);
        }
        let lines = until("four lines are written", || {
            let lines = daemon.process.lines();
            (lines.iter().filter(|line| line.contains("scanner")).count() == 4).then_some(lines)
        });
        assert_eq!(matched(&bed.write("own.log", lines.join("\n") + "\n")), 4, "{lines:#?}");
        // As a system log writes it.
        let syslog: String =
            lines.iter().map(|line| format!("Nov 27 19:00:00 box wicketgate[123]: {line}\n")).collect();
        assert_eq!(matched(&bed.write("syslog.log", syslog)), 4);
    }
    // What a client chooses does not make a line of somebody else's.
    let forged = "2026-11-27T19:00:00Z  INFO challenge answered client=198.51.100.7 hostname=a.test \
                  token=\"INFO scanner client=198.51.100.8 asked=unknown-token\"\n";
    assert_eq!(matched(&bed.write("forged.log", forged)), 0);
}

#[test]
fn a_running_fail2ban_bans_the_scanner_and_nobody_else() {
    needs!("fail2ban-server", "fail2ban-client");
    let bed = Bed::new();
    let (setup, daemon) = start(&bed, "[\"127.0.0.0/8\"]", &[]);
    let log = bed.write("wicketgate.log", "");
    let banned = bed.path("banned");
    let config = bed.path("fail2ban");
    let copied = run(Command::new("cp").arg("-r").arg("/etc/fail2ban").arg(&config));
    copied.expect_code(0);
    fs::remove_dir_all(config.join("jail.d")).unwrap();
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/fail2ban");
    for part in ["filter.d", "jail.d"] {
        run(Command::new("cp").arg("-rT").arg(deploy.join(part)).arg(config.join(part))).expect_code(0);
    }
    // All that differs from an installation: the log is a file, and a ban is a line in another one.
    fs::write(
        config.join("action.d/note.conf"),
        format!("[Definition]\nactionban = echo <ip> >> {0}\nactionunban = true\n", banned.display()),
    )
    .unwrap();
    fs::write(
        config.join("jail.d/zz-test.local"),
        format!("[wicketgate]\nbackend = polling\nlogpath = {}\naction = note\n", log.display()),
    )
    .unwrap();
    fs::write(config.join("fail2ban.local"), "[Definition]\ndbfile = None\n").unwrap();
    let (socket, pid) = (bed.path("f2b.sock"), bed.path("f2b.pid"));
    let mut server = Command::new("fail2ban-server");
    server.arg("-c").arg(&config).arg("-s").arg(&socket).arg("-p").arg(&pid);
    let server = Process::start("fail2ban", server.args(["-f", "--logtarget", "STDOUT", "start"]));
    server.wait_for_line("Jail 'wicketgate' started");

    for n in 0..6 {
        ask_for(setup.gate, "198.51.100.7", "other.test", &format!("/{n}"));
        ask_for(setup.gate, "127.0.0.9", "other.test", &format!("/{n}"));
        exchange(setup.gate, std::str::from_utf8(FOREIGN).unwrap()).unwrap();
    }
    for n in 0..4 {
        ask_for(setup.gate, "203.0.113.9", "other.test", &format!("/{n}"));
    }
    let lines = until("all lines are written", || {
        let lines = daemon.process.lines();
        lines.iter().any(|line| line.contains("203.0.113.9")).then_some(lines)
    });
    fs::write(&log, lines.join("\n") + "\n").unwrap();
    until("the scanner is banned", || fs::read_to_string(&banned).ok().filter(|text| !text.is_empty()));
    let status = run(Command::new("fail2ban-client").arg("-s").arg(&socket).args(["status", "wicketgate"]));
    let status = status.expect_code(0).text();
    assert!(status.contains("Banned IP list:\t198.51.100.7"), "{status}");
    assert!(status.contains("Currently banned:\t1"), "{status}");
    assert_eq!(fs::read_to_string(&banned).unwrap(), "198.51.100.7\n");
}
