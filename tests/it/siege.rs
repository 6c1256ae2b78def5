//! The gate under siege, as it is run: strangers who guess, and strangers who say nothing.
//!
//! With `WICKETGATE_TESTS_THOROUGH=1` there are as many as the figures are about; they are printed with `--nocapture`.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use wicketgate::clock;

use crate::bed::client::get;
use crate::bed::process::{Process, run};
use crate::bed::random::Random;
use crate::bed::wicketgate::{PROGRAM, Setup, clean, command};
use crate::bed::{Bed, PATIENCE, is_thorough, needs, resident, until};

const NAME: &str = "www.example.test";
const TOKEN: &str = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA";
const ANSWER: &str =
    "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA.nP1qzpXGymHBrUEepNY9HCsQk7K8KhOypzEt62jcerQ";

/// Words that strangers make up.
struct Strangers(Random);

impl Strangers {
    fn one_of<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.0.below(words.len())]
    }

    /// A token of the right form.
    fn token(&mut self) -> String {
        const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        (0..43).map(|_| LETTERS[self.0.below(64)] as char).collect()
    }

    /// A way to write a path that might be taken for the pending challenge's, and is another one.
    fn encoding(&mut self) -> Vec<u8> {
        let slash =
            ["/", "//", "/./", "/%2f", "%2F", "/..;/", "\\\\", "/%5c", "/\\0/", "/%00/", "/%c0%af", "/%252f"];
        let known = [
            "%2ewell-known",
            ".well-known%00",
            ".WELL-KNOWN",
            ".well-known/.",
            "x/../.well-known",
            "%2e%2e/.well-known",
            ".well-known;x",
            "..%2f.well-known",
            ".well-known",
            "\u{ff0e}well-known",
            "%e0%80%aewell-known",
            " .well-known",
        ];
        let challenge = [
            "acme-challenge",
            "acme-challenge/..",
            "acme%2dchallenge",
            "ACME-CHALLENGE",
            "acme-challenge%20",
        ];
        let token = [
            TOKEN,
            "%65vaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA",
            "../../etc/passwd",
            "*",
            "",
            ".",
            "%00",
            "a b",
        ];
        let end = ["", "/", "%00", "?x", "#x", ";x", ".", "%20", "/..", ".html"];
        loop {
            let target = [
                self.one_of(&slash),
                self.one_of(&known),
                self.one_of(&slash),
                self.one_of(&challenge),
                self.one_of(&slash),
                self.one_of(&token),
                self.one_of(&end),
            ]
            .concat();
            let target = if self.0.below(8) == 0 { format!("http://{NAME}{target}") } else { target };
            // What is that path, or that path and a query, is no other one.
            let honest = format!("/.well-known/acme-challenge/{TOKEN}");
            let path = target.strip_prefix(&format!("http://{NAME}")).unwrap_or(&target);
            if path.split(['?', '#']).next() != Some(honest.as_str()) {
                return format!("GET {target} HTTP/1.1\r\nHost: {NAME}\r\n\r\n").into_bytes();
            }
        }
    }
}

/// One request over a connection of its own; whether the key authorization came back.
fn is_hit(gate: u16, request: &[u8]) -> bool {
    let mut stream = TcpStream::connect(("127.0.0.1", gate)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request).unwrap();
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    // One that is refused in the middle of it may be reset.
    let _ = stream.read_to_end(&mut answer);
    answer.windows(ANSWER.len()).any(|window| window == ANSWER.as_bytes())
}

#[test]
fn guesses_and_encodings_hit_nothing_and_read_no_file() {
    needs!("strace");
    let (tokens, encodings) = if is_thorough() { (100_000, 10_000) } else { (5_000, 2_000) };
    let bed = Bed::new();
    let setup = Setup::embedded(&bed).certificate(&[NAME]).without_front();
    let log = bed.path("strace.log");
    let mut traced = Command::new("strace");
    clean(&mut traced);
    traced.args(["-f", "-q", "--seccomp-bpf", "-e", "trace=%file,getdents64", "-o"]).arg(&log);
    traced.arg(PROGRAM).arg("--config").arg(setup.write(&bed)).arg("run");
    let daemon = Process::start("wicketgate run", &mut traced);
    daemon.wait_for_line("obtained a certificate");
    run(command(&bed.path("wicketgate.toml")).args(["challenge", "put", NAME, TOKEN, ANSWER, "--ttl", "1h"]))
        .expect_code(0);
    let lines = || fs::read_to_string(&log).unwrap_or_default().lines().count();
    // Nothing is left to be done.
    let mut before = lines();
    until("it is quiet", || {
        std::thread::sleep(Duration::from_secs(2));
        let now = lines();
        std::mem::replace(&mut before, now).eq(&now).then_some(())
    });
    let path = format!("/.well-known/acme-challenge/{TOKEN}");
    let honest = format!("GET {path} HTTP/1.1\r\nHost: {NAME}\r\n\r\n");
    assert!(is_hit(setup.gate, honest.as_bytes()), "a hit is not seen");
    let mut random = Strangers(Random(0x5eed));
    let mut hits = 0;
    for _ in 0..tokens / 100 {
        // A hundred on one connection, as scanners do.
        let requests: Vec<String> = (0..100)
            .map(|n| {
                let end = if n == 99 { "Connection: close\r\n" } else { "" };
                format!(
                    "GET /.well-known/acme-challenge/{} HTTP/1.1\r\nHost: {NAME}\r\n{end}\r\n",
                    random.token()
                )
            })
            .collect();
        hits += usize::from(is_hit(setup.gate, requests.concat().as_bytes()));
    }
    for _ in 0..encodings {
        hits += usize::from(is_hit(setup.gate, &random.encoding()));
    }
    let text = fs::read_to_string(&log).unwrap();
    // Threads that end and signals stand between; what resolves names is looked at once a minute.
    let is_read = |line: &&str| {
        line.contains('(') && !line.contains("/etc/resolv.conf") && !line.contains("/etc/hosts")
    };
    let read: Vec<_> = text.lines().skip(before).filter(is_read).collect();
    eprintln!("{tokens} random tokens, {encodings} encodings: {hits} hits, {} file accesses", read.len());
    assert_eq!(hits, 0);
    assert_eq!(read, Vec::<&str>::new());
    // The honest one is answered as ever.
    assert_eq!(get(setup.gate, NAME, &path).unwrap().body, ANSWER.as_bytes());
}

#[test]
fn an_honest_challenge_is_answered_among_thousands_who_say_nothing() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let most = limit.maximum.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
    let each = if is_thorough() { 15_000 } else { 700 };
    let each = each.min(most.saturating_sub(2_000) / 2);
    let bed = Bed::new();
    let setup = Setup::embedded(&bed).certificate(&[NAME]);
    let (daemon, _) = setup.start_until_served(&bed, NAME);
    let pid = daemon.process.id();
    setup.command(&bed, &["challenge", "put", NAME, TOKEN, ANSWER, "--ttl", "1h"]).expect_code(0);
    let before = resident(pid);
    let done = Arc::new(AtomicBool::new(false));
    let honest = std::thread::spawn({
        let (done, gate) = (done.clone(), setup.gate);
        move || {
            let path = format!("/.well-known/acme-challenge/{TOKEN}");
            let (mut count, mut longest) = (0, Duration::ZERO);
            while !done.load(Ordering::Relaxed) {
                let began = clock::monotonic();
                assert_eq!(get(gate, NAME, &path).unwrap().body, ANSWER.as_bytes());
                longest = longest.max(clock::monotonic() - began);
                count += 1;
                std::thread::sleep(Duration::from_millis(20));
            }
            (count, longest)
        }
    });
    let mut peak = before;
    for (what, port) in [("the gate", setup.gate), ("the front", setup.front)] {
        let mut strangers = Vec::new();
        for n in 0..2 * each {
            // In turn one that says nothing, and one that stops in the middle.
            let Ok(mut stranger) = TcpStream::connect(("127.0.0.1", port)) else { continue };
            if n % 2 == 1 {
                let begun: &[u8] =
                    if port == setup.gate { b"GET /.well-known/acme" } else { b"\x16\x03\x01\x02" };
                // It may have been sent away already.
                let _ = stranger.write_all(begun);
            }
            strangers.push(stranger);
        }
        peak = peak.max(resident(pid));
        assert!(strangers.len() > each, "only {} came to {what}", strangers.len());
        std::thread::sleep(Duration::from_secs(1));
        peak = peak.max(resident(pid));
    }
    done.store(true, Ordering::Relaxed);
    let (count, longest) = honest.join().unwrap();
    eprintln!(
        "{each} silent and {each} half-open connections each to gate and front: {count} honest challenges answered, the slowest after {longest:?}; resident memory {before} kB before, {peak} kB at most"
    );
    assert!(count > 10, "{count}");
    assert!(peak < before + 200_000, "{before} kB grew to {peak} kB");
}

/// Strangers at the front take every descriptor that the process may have.
#[test]
fn running_out_of_descriptors_is_survived_and_the_gate_answers() {
    let bed = Bed::new();
    let setup = Setup::embedded(&bed).certificate(&[NAME]);
    let mut few = Command::new("sh");
    clean(&mut few);
    few.args(["-c", "ulimit -n 100 && exec \"$0\" \"$@\"", PROGRAM, "--config"])
        .arg(setup.write(&bed))
        .arg("run");
    let daemon = Process::start("wicketgate run", &mut few);
    let leaf = setup.wait_until_served(NAME);
    setup.command(&bed, &["challenge", "put", NAME, TOKEN, ANSWER, "--ttl", "1h"]).expect_code(0);
    let path = format!("/.well-known/acme-challenge/{TOKEN}");
    let mut strangers = Vec::new();
    for n in 0..20 {
        strangers.extend((0..30).map(|_| TcpStream::connect(("127.0.0.1", setup.front)).unwrap()));
        if n == 5 {
            daemon.wait_for_line("idle ones make room");
        }
        assert_eq!(
            get(setup.gate, NAME, &path).unwrap().body,
            ANSWER.as_bytes(),
            "after {}",
            strangers.len()
        );
    }
    // And so does the front, while the strangers are still there.
    assert_eq!(setup.wait_until_served(NAME), leaf);
    drop(strangers);
    let lines = daemon.lines();
    assert!(!lines.iter().any(|line| line.contains("this is a bug")), "{lines:#?}");
    assert_eq!(get(setup.gate, NAME, &path).unwrap().body, ANSWER.as_bytes());
}
