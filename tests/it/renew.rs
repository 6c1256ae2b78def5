//! `renew` for a moment: port 80 opens for an order, and the exit code tells how it went.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, chown};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::bed::client::{get, is_open};
use crate::bed::pebble::{Mood, Pebble};
use crate::bed::process::{Process, run};
use crate::bed::wicketgate::{PROGRAM, Setup, command, walk};
use crate::bed::{Bed, PATIENCE, needs, set_mode, until};

fn setup(bed: &Bed, mood: Mood) -> (Pebble, Setup) {
    let gate = bed.port();
    let pebble = Pebble::start(bed, mood, gate);
    let mut setup = Setup::new(bed, &pebble.directory(), pebble.api_root()).without_front();
    setup.gate = gate;
    (pebble, setup)
}

#[test]
fn the_port_is_open_only_during_the_order() {
    needs!("pebble", "curl");
    let bed = Bed::new();
    let (_pebble, setup) = setup(&bed, Mood::Trying);
    let setup = setup.certificate(&["www.example.test"]);
    assert!(!is_open(setup.gate));
    let mut process = Process::start("wicketgate renew", command(&setup.write(&bed)).arg("renew"));
    // What is no challenge gets nothing from a gate that is open for an order.
    until("the gate opens", || is_open(setup.gate).then_some(()));
    if let Ok(answer) = get(setup.gate, "elsewhere.example", "/") {
        assert_eq!(answer.status, 421);
    }
    process.wait_for_line("obtained a certificate for www.example.test");
    assert_eq!(process.wait(PATIENCE).code(), Some(0));
    assert!(!is_open(setup.gate));
}

#[test]
fn the_port_is_shut_while_a_reload_command_runs() {
    needs!("pebble", "curl");
    let bed = Bed::new();
    let (_pebble, setup) = setup(&bed, Mood::Kind);
    let (started, go_on) = (bed.path("started"), bed.path("go-on"));
    let script =
        format!("touch {}; until [ -e {} ]; do sleep 0.05; done", started.display(), go_on.display());
    let reload = bed.script("reload", &script);
    let setup = setup
        .certificate(&["www.example.test"])
        .with("deploy = [\"slow\"]")
        .tables(&format!("[deploy.slow]\nreload = [{reload:?}]\ntimeout = \"60s\""));
    let mut process = Process::start("wicketgate renew", command(&setup.write(&bed)).arg("renew"));
    until("the reload command runs", || started.exists().then_some(()));
    assert!(!is_open(setup.gate), "the order is done, but port {} is open", setup.gate);
    fs::write(&go_on, "").unwrap();
    assert_eq!(process.wait(PATIENCE).code(), Some(0));
}

#[test]
fn nothing_due_means_no_listener_and_no_order() {
    needs!("pebble", "curl");
    let bed = Bed::new();
    let (mut pebble, setup) = setup(&bed, Mood::Kind);
    let setup = setup.certificate(&["www.example.test"]);
    setup.renew(&bed).expect_code(0);
    let before = setup.stored("www.example.test");
    assert_eq!(pebble.orders(), 1);
    pebble.stop();
    // Whoever tried to listen now would fail.
    let _taken = TcpListener::bind(("127.0.0.1", setup.gate)).unwrap();
    let ran = setup.renew(&bed).expect_code(0);
    assert!(ran.text().contains("nothing to do"), "{}", ran.text());
    assert_eq!(setup.stored("www.example.test"), before);
}

#[test]
fn a_taken_port_is_said_and_fails() {
    needs!("pebble", "curl");
    let bed = Bed::new();
    let (pebble, setup) = setup(&bed, Mood::Kind);
    let setup = setup.certificate(&["www.example.test"]);
    let _taken = TcpListener::bind(("127.0.0.1", setup.gate)).unwrap();
    let ran = setup.renew(&bed).expect_code(1);
    assert!(ran.text().contains(&format!("127.0.0.1:{}", setup.gate)), "{}", ran.text());
    assert_eq!(pebble.orders(), 0, "the CA was asked although its answer could not be heard");
}

#[test]
fn exit_codes_tell_how_it_went() {
    needs!("pebble", "curl");
    let bed = Bed::new();
    let (mut pebble, setup) = setup(&bed, Mood::Kind);
    let setup = setup.certificate(&["www.example.test"]);
    pebble.stop();
    let failed = setup.renew(&bed).expect_code(1);
    assert!(failed.text().contains("cannot reach localhost"), "{}", failed.text());
    // The next attempt has its time; asked for by hand it is made at once.
    let held = setup.renew(&bed).expect_code(75);
    assert!(held.text().contains("the next attempt is at"), "{}", held.text());
    setup.command(&bed, &["renew", "--force"]).expect_code(1);
    pebble.restart();
    setup.command(&bed, &["renew", "--force"]).expect_code(0);
    setup.renew(&bed).expect_code(0);

    let unknown = setup.command(&bed, &["renew", "other.example.test"]).expect_code(2);
    assert!(unknown.text().contains("other.example.test"), "{}", unknown.text());
    setup.command(&bed, &["renew", "--no-such-flag"]).expect_code(2);
    run(Command::new(PROGRAM).arg("no-such-command")).expect_code(2);
    let missing =
        run(Command::new(PROGRAM).args(["--config", "/no/such/file.toml", "renew"])).expect_code(78);
    assert!(missing.text().contains("/no/such/file.toml"), "{}", missing.text());
    let wrong = setup.tables("[gates]\n").renew(&bed).expect_code(78);
    assert!(wrong.text().contains("`gates`"), "{}", wrong.text());
}

#[test]
fn named_certificates_are_renewed_alone() {
    needs!("pebble", "curl");
    let bed = Bed::new();
    let (_pebble, setup) = setup(&bed, Mood::Kind);
    let setup = setup.certificate(&["a.example.test"]).certificate(&["b.example.test"]);
    setup.renew(&bed).expect_code(0);
    let serial = |name: &str| setup.stored(name)[0].serial.clone();
    let before = (serial("a.example.test"), serial("b.example.test"));
    setup.command(&bed, &["renew", "b.example.test", "--force"]).expect_code(0);
    assert_eq!(serial("a.example.test"), before.0);
    assert_ne!(serial("b.example.test"), before.1);
}

#[test]
fn a_changed_wish_is_due_at_once() {
    needs!("pebble", "curl");
    let bed = Bed::new();
    let (_pebble, mut setup) = setup(&bed, Mood::Kind);
    setup = setup.certificate(&["www.example.test"]);
    setup.renew(&bed).expect_code(0);
    setup.certificates.clear();
    setup = setup.certificate(&["www.example.test", "example.test"]);
    setup.renew(&bed).expect_code(0);
    assert_eq!(setup.stored("www.example.test")[0].names, ["example.test", "www.example.test"]);
}

#[test]
fn a_certificate_is_renewed_when_its_time_has_come() {
    needs!("pebble", "curl", "faketime");
    let bed = Bed::new();
    let gate = bed.port();
    const DAY: u32 = 86_400;
    let pebble = Pebble::start_with_lifetime(&bed, Mood::Kind, gate, 90 * DAY);
    let mut setup = Setup::new(&bed, &pebble.directory(), pebble.api_root()).without_front();
    setup.gate = gate;
    let setup = setup.certificate(&["www.example.test"]);
    setup.renew(&bed).expect_code(0);
    let serial = || setup.stored("www.example.test")[0].serial.clone();
    let first = serial();
    let in_days = |days: u32| {
        let mut ahead = Command::new("faketime");
        crate::bed::wicketgate::clean(&mut ahead);
        run(ahead.args(["-f", &format!("+{days}d"), PROGRAM, "--config"]).arg(setup.write(&bed)).arg("renew"))
    };
    // Two thirds of 90 days, or up to a twentieth of them earlier.
    in_days(55).expect_code(0);
    assert_eq!(serial(), first);
    assert_eq!(pebble.orders(), 1);
    // Pebble signs by its own clock, so what it signs has but 29 days left when it comes.
    in_days(61).expect_code(0);
    assert_eq!(pebble.orders(), 2);
    assert_ne!(serial(), first);
}

#[test]
fn root_leaves_nothing_of_its_own() {
    needs!("root", "pebble", "curl");
    let bed = Bed::new();
    let (_pebble, setup) = setup(&bed, Mood::Kind);
    const NOBODY: u32 = 65_534;
    fs::create_dir(&setup.state).unwrap();
    set_mode(&setup.state, 0o700);
    chown(&setup.state, Some(NOBODY), Some(NOBODY)).unwrap();
    let setup = setup.certificate(&["www.example.test"]);
    setup.renew(&bed).expect_code(0);
    setup.command(&bed, &["renew", "--force"]).expect_code(0);
    let paths = walk(&setup.state);
    assert!(paths.len() > 10, "{paths:?}");
    for path in paths {
        assert_eq!(path.symlink_metadata().unwrap().uid(), NOBODY, "{}", path.display());
    }
}

#[test]
fn a_killed_renew_leaves_the_last_certificate() {
    needs!("pebble", "curl");
    let bed = Bed::new();
    let (_pebble, setup) = setup(&bed, Mood::Trying);
    let setup = setup.certificate(&["www.example.test"]);
    setup.renew(&bed).expect_code(0);
    let before = setup.stored("www.example.test");
    let mut process =
        Process::start("wicketgate renew", command(&setup.write(&bed)).args(["renew", "--force"]));
    until("the gate opens", || is_open(setup.gate).then_some(()));
    process.signal(rustix::process::Signal::KILL);
    process.wait(PATIENCE);
    assert_eq!(setup.stored("www.example.test"), before);
    // The lock died with its holder.
    setup.command(&bed, &["renew", "--force"]).expect_code(0);
    assert_ne!(setup.stored("www.example.test"), before);
}

#[test]
fn two_at_once_do_not_meet() {
    needs!("pebble", "curl");
    let bed = Bed::new();
    let (_pebble, setup) = setup(&bed, Mood::Trying);
    let setup = setup.certificate(&["www.example.test"]);
    let config = setup.write(&bed);
    let mut first = Process::start("the first", command(&config).arg("renew"));
    until("the first has its order", || is_open(setup.gate).then_some(()));
    let second = run(command(&config).arg("renew")).expect_code(75);
    assert!(second.text().contains(&format!("pid {}", first.id())), "{}", second.text());
    assert_eq!(first.wait(PATIENCE).code(), Some(0));
}

#[test]
fn many_certificates_are_ordered_at_once() {
    needs!("pebble", "curl");
    let bed = Bed::new();
    let (_pebble, mut setup) = setup(&bed, Mood::Kind);
    let names: Vec<String> = (0..20).map(|n| format!("n{n}.example.test")).collect();
    for name in &names {
        setup = setup.certificate(&[name]);
    }
    // Who watches the port meanwhile sees it open once and shut for good at the end.
    let over = AtomicBool::new(false);
    let openings = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let (mut openings, mut before) = (0, false);
            while !over.load(Ordering::Relaxed) {
                let now = is_open(setup.gate);
                openings += usize::from(now && !before);
                before = now;
                std::thread::sleep(Duration::from_millis(1));
            }
            openings
        });
        setup.renew(&bed).expect_code(0);
        over.store(true, Ordering::Relaxed);
        watch.join().unwrap()
    });
    assert!((1..=names.len()).contains(&openings), "{openings} openings were seen");
    for name in &names {
        assert_eq!(setup.stored(name)[0].names, [name.as_str()]);
    }
}

#[test]
fn one_order_after_the_other_finds_the_port_free_again() {
    needs!("pebble", "curl");
    let bed = Bed::new();
    let (_pebble, setup) = setup(&bed, Mood::Kind);
    let mut setup = setup.acme("concurrency = 2");
    let names: Vec<String> = (0..60).map(|n| format!("n{n}.example.test")).collect();
    for name in &names {
        setup = setup.certificate(&[name]);
    }
    setup.renew(&bed).expect_code(0);
}
