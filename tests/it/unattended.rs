//! What must not go wrong while nobody looks: each of these did once.

mod bench;
mod evidence;
mod foresight;
mod issuers;
mod limits;
mod memory;
mod partial;
mod rehearsals;
mod renewal_information;

use std::fs;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use wicketgate::rehearsal::{AnswerFault, AnswerScope, Faults};

use crate::bed::client::served_leaf;
use crate::bed::fickle::FickleCa;
use crate::bed::pebble::{Mood, Pebble};
use crate::bed::process::{Process, children};
use crate::bed::wicketgate::{PROGRAM, Setup, clean, command};
use crate::bed::{Bed, PATIENCE, needs, until};

const NAME: &str = "www.example.test";

fn with_pebble(bed: &Bed) -> (Pebble, Setup) {
    Setup::with_pebble(bed, Mood::Kind, &[NAME])
}

fn with_service(setup: Setup, reload: &str) -> Setup {
    setup
        .with("deploy = [\"server\"]")
        .tables(&format!("[deploy.server]\nreload = [\"sh\", \"-c\", {reload:?}]"))
}

#[test]
fn a_log_that_cannot_be_written_ends_nothing() {
    needs!("openssl");
    let bed = Bed::new();
    let setup = Setup::embedded(&bed).certificate(&[NAME]);
    let mut shell = Command::new("sh");
    clean(&mut shell);
    shell.args(["-c", "exec \"$0\" --config \"$1\" run 2>/dev/full", PROGRAM]).arg(setup.write(&bed));
    let _daemon = Process::start("wicketgate run", &mut shell);
    let first = setup.wait_until_served(NAME);
    setup.command(&bed, &["renew", "--force"]).expect_code(0);
    assert_ne!(served_leaf(setup.front, NAME), Some(first));
}

#[test]
fn what_the_embedded_ca_signed_is_never_handed_on() {
    needs!("pebble", "curl");
    let bed = Bed::new();
    let (mut pebble, real) = with_pebble(&bed);
    let mut rehearsed = Setup::embedded(&bed).certificate(&[NAME]);
    rehearsed.gate = real.gate;
    rehearsed.renew(&bed).expect_code(0);
    pebble.stop();
    let marker = bed.path("taken");
    let real = with_service(real, &format!("touch {}", marker.display()));
    real.renew(&bed).expect_code(1);
    assert!(!marker.exists(), "the server was handed an untrusted certificate");
    let status = real.command(&bed, &["status"]).expect_code(0);
    assert!(status.text().contains("UNTRUSTED"), "{}", status.text());

    pebble.restart();
    real.command(&bed, &["renew", "--force"]).expect_code(0);
    assert!(marker.exists());
    assert!(!real.command(&bed, &["status"]).text().contains("UNTRUSTED"));
}

#[test]
fn a_stop_does_not_wait_for_a_pass_under_way() {
    needs!("pebble", "openssl", "curl");
    let bed = Bed::new();
    let (_pebble, setup) = with_pebble(&bed);
    let (begun, enough, ended) = (bed.path("begun"), bed.path("enough"), bed.path("ended"));
    let reload = format!(
        "touch {}; n=0; until test -e {} -o $n = 400; do n=$((n+1)); sleep 0.1; done; touch {}",
        begun.display(),
        enough.display(),
        ended.display()
    );
    let mut setup = with_service(setup, &reload);
    setup.more = format!("{}timeout = \"50s\"\n", setup.more);
    let text = setup.text().replace("grace = \"5s\"", "grace = \"1s\"");
    let config = bed.write("quick.toml", text);
    let mut daemon = Process::start("wicketgate run", command(&config).arg("run"));
    until("the reload has begun", || begun.exists().then_some(()));
    daemon.signal(Signal::HUP);
    daemon.signal(Signal::TERM);
    // Far below the command's own limit.
    assert_eq!(daemon.wait(Duration::from_secs(15)).code(), Some(0));
    assert!(!ended.exists());
    // It was left to end by itself, and nothing of it shall be left here.
    fs::write(&enough, "").unwrap();
    until("the reload has ended", || ended.exists().then_some(()));
}

#[test]
fn an_attempt_that_a_stop_cuts_short_does_not_count() {
    let bed = Bed::new();
    let gate = bed.port();
    let ca = FickleCa::start(&bed, gate, &[NAME]);
    ca.set(Faults {
        answer: AnswerFault::Hang,
        answer_scope: AnswerScope::Path("/new-order"),
        ..Faults::default()
    });
    let mut setup = Setup::new(&bed, &ca.directory, &ca.root).certificate(&[NAME]);
    setup.gate = gate;
    let failures = || -> u64 {
        let ran = setup.command(&bed, &["status", "--json"]).expect_code(0);
        let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        report["certificates"][0]["failures"].as_u64().unwrap()
    };
    for way in ["run", "renew"] {
        let mut process = Process::start("wicketgate", command(&setup.write(&bed)).arg(way));
        until("the attempt is under way", || (failures() == 1).then_some(()));
        process.signal(Signal::TERM);
        process.wait(PATIENCE);
        assert_eq!(failures(), 0, "{way}");
    }
    // A crash is another matter.
    let mut process = Process::start("wicketgate", command(&setup.write(&bed)).arg("run"));
    until("the attempt is under way", || (failures() == 1).then_some(()));
    process.signal(Signal::KILL);
    process.wait(PATIENCE);
    assert_eq!(failures(), 1);
}

#[test]
fn a_low_limit_of_descriptors_is_raised() {
    let bed = Bed::new();
    let setup = Setup::embedded(&bed).certificate(&[NAME]);
    let mut shell = Command::new("sh");
    clean(&mut shell);
    shell.args(["-c", "ulimit -Sn 64; exec \"$0\" --config \"$1\" run", PROGRAM]).arg(setup.write(&bed));
    let daemon = Process::start("wicketgate run", &mut shell);
    daemon.wait_for_line("ready");
    let limits = fs::read_to_string(format!("/proc/{}/limits", daemon.id())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let numbers: Vec<_> = line.split_whitespace().filter(|word| word.parse::<u64>().is_ok()).collect();
    assert_eq!(numbers[0], numbers[1], "{line}");
}

#[test]
fn a_helper_that_died_is_replaced() {
    needs!("pebble", "openssl", "curl");
    let bed = Bed::new();
    let (_pebble, setup) = with_pebble(&bed);
    let setup = with_service(setup, "true");
    let (daemon, _) = setup.start_until_served(&bed, NAME);
    daemon.process.wait_for_line("server was made to read it");
    // Another process has started it.
    let starter = children(daemon.process.id())[0].as_raw_nonzero().get().cast_unsigned();
    let helper = children(starter)[0].as_raw_nonzero().to_string();
    assert!(Command::new("kill").args(["-KILL", &helper]).status().unwrap().success());
    let told = setup.command(&bed, &["renew", "--force"]).expect_code(0);
    assert!(told.text().contains("server was made to read it"), "{}", told.text());
    assert!(!fs::exists(format!("/proc/{helper}")).unwrap(), "the dead helper was not waited for");
}

#[test]
fn a_daemon_of_another_configuration_is_not_taken_for_ours() {
    needs!("openssl");
    let bed = Bed::new();
    let setup = Setup::embedded(&bed).certificate(&[NAME]);
    let (_daemon, _) = setup.start_until_served(&bed, NAME);
    let setup = setup.certificate(&["other.example.test"]);
    let told = setup.command(&bed, &["renew"]).expect_code(1);
    assert!(told.text().contains("works by another configuration"), "{}", told.text());
    let told = setup.command(&bed, &["status"]).expect_code(0);
    assert!(told.text().contains("`wicketgate reload` has it take this one"), "{}", told.text());
    setup.command(&bed, &["reload"]).expect_code(0);
    setup.command(&bed, &["renew"]).expect_code(0);

    bed.write("wicketgate.toml", format!("nonsense = 1\n{}", setup.text()));
    let config = bed.path("wicketgate.toml");
    let socket = setup.socket.to_str().unwrap();
    let told = crate::bed::process::run(command(&config).args(["status", "--admin-socket", socket]));
    assert!(told.expect_code(0).stdout.contains("other.example.test"));
}

#[test]
fn the_last_whole_version_takes_the_place_of_a_damaged_one() {
    needs!("pebble", "openssl", "curl");
    let bed = Bed::new();
    let (mut pebble, setup) = with_pebble(&bed);
    setup.renew(&bed).expect_code(0);
    let first = setup.stored(NAME)[0].clone();
    setup.command(&bed, &["renew", "--force"]).expect_code(0);
    pebble.stop();
    fs::write(setup.live(NAME).join("privkey.pem"), "").unwrap();
    let (daemon, served) = setup.start_until_served(&bed, NAME);
    assert_eq!(served, first);
    assert_eq!(setup.stored(NAME)[0], first, "servers read the damaged one");
    daemon.process.wait_for_line("is damaged");
}

#[test]
fn a_reload_in_the_middle_of_an_order_waits_for_its_end() {
    needs!("openssl");
    const OTHER: &str = "other.example.test";
    let mut bench = bench::Bench::without_certificates(&[NAME, OTHER]).with_front();
    bench.add(&[NAME], "");
    bench.ca.set(Faults { processing: Duration::from_secs(2), ..Faults::default() });
    let daemon = bench.setup.start(&bench.bed);
    until("the order is under way", || (bench.ca.seen().orders == 1).then_some(()));
    bench.add(&[OTHER], "");
    bench.setup.write(&bench.bed);
    daemon.process.signal(Signal::HUP);
    bench.setup.wait_until_served(OTHER);
    bench.setup.wait_until_served(NAME);
    let seen = bench.ca.seen();
    assert_eq!((seen.orders, seen.certificates), (2, 2), "{}", daemon.process.lines().join("\n"));
    daemon.process.wait_for_line("the configuration is taken");
}
