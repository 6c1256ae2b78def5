//! Other ACME clients beside the daemon: their challenges are answered by the gate, through the hooks of
//! `deploy/hooks/`, while it is shut otherwise.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::bed::client::{get, is_open};
use crate::bed::pebble::{Mood, Pebble};
use crate::bed::pki::read_chain_file;
use crate::bed::process::{Process, Ran, run, run_within};
use crate::bed::wicketgate::{Daemon, PROGRAM, Setup, clean, command};
use crate::bed::{Bed, PATIENCE, needs, until};

const NAMES: [&str; 2] = ["one.example.test", "two.example.test"];

fn hook(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/hooks").join(name)
}

/// A daemon whose gate is shut, and which has no certificate to obtain by itself.
fn start(bed: &Bed) -> (Pebble, Setup, Daemon) {
    let gate = bed.port();
    let pebble = Pebble::start(bed, Mood::Kind, gate);
    let mut setup = Setup::new(bed, &pebble.directory(), pebble.api_root()).without_front();
    setup.gate = gate;
    // Here the CA and all strangers are of one network.
    let text = setup
        .text()
        .replace("[gate]\n", "[gate]\nopen = \"during-orders\"\nmax-connections-per-network = 1000\n");
    let daemon = Daemon::start(&bed.write("wicketgate.toml", text));
    daemon.process.wait_for_line("ready: the gate on ");
    assert!(!is_open(gate));
    (pebble, setup, daemon)
}

/// Runs a client, whose hooks find this program.
fn client(bed: &Bed, command: &mut Command) -> Ran {
    clean(command);
    let program = format!("{PROGRAM} --config {}", bed.path("wicketgate.toml").display());
    run_within(
        Duration::from_secs(120),
        command.env("WICKETGATE", program).env("HOME", bed.dir()).env("TMPDIR", bed.dir()),
    )
}

#[test]
fn certbot_obtains_and_renews_by_its_manual_hooks() {
    needs!("pebble", "curl", "certbot");
    let bed = Bed::new();
    let (pebble, setup, daemon) = start(&bed);
    let certbot = |arguments: &[&str]| {
        let mut certbot = Command::new("certbot");
        certbot.env("REQUESTS_CA_BUNDLE", pebble.api_root()).args(arguments).arg("--non-interactive");
        for (option, folder) in [("--config-dir", "le"), ("--work-dir", "work"), ("--logs-dir", "logs")] {
            certbot.arg(option).arg(bed.path(folder));
        }
        client(&bed, &mut certbot).expect_code(0)
    };
    let (hook, directory) = (hook("certbot.sh"), pebble.directory());
    let hook = hook.to_str().unwrap();
    certbot(&[
        "certonly",
        "--manual",
        "--preferred-challenges",
        "http",
        "--manual-auth-hook",
        hook,
        "--manual-cleanup-hook",
        hook,
        "--agree-tos",
        "--register-unsafely-without-email",
        "--server",
        &directory,
        "-d",
        NAMES[0],
        "-d",
        NAMES[1],
    ]);
    let chain = bed.path(&format!("le/live/{}/fullchain.pem", NAMES[0]));
    let first = read_chain_file(&chain).remove(0);
    assert_eq!(first.names, NAMES);
    certbot(&["renew", "--force-renewal", "--no-random-sleep-on-renew"]);
    assert_ne!(read_chain_file(&chain).remove(0), first);
    assert!(daemon.process.lines().iter().filter(|line| line.contains("challenge answered")).count() >= 2);
    until("the port is shut", || (!is_open(setup.gate)).then_some(()));
}

#[test]
fn dehydrated_obtains_by_its_hook() {
    needs!("pebble", "curl", "dehydrated");
    let bed = Bed::new();
    let (pebble, setup, _daemon) = start(&bed);
    std::fs::create_dir(bed.path("wellknown")).unwrap();
    for chain in ["no", "yes"] {
        let config = format!(
            "CA={}\nCURL_OPTS=\"--cacert {}\"\nCHALLENGETYPE=http-01\nHOOK={}\nHOOK_CHAIN={chain}\nBASEDIR={}\nWELLKNOWN={}\nKEY_ALGO=prime256v1\n",
            pebble.directory(),
            pebble.api_root().display(),
            hook("dehydrated.sh").display(),
            bed.path("dehydrated").display(),
            bed.path("wellknown").display(),
        );
        std::fs::create_dir_all(bed.path("dehydrated")).unwrap();
        let config = bed.write("dehydrated.conf", config);
        let dehydrated = |arguments: &[&str]| {
            let mut dehydrated = Command::new("dehydrated");
            dehydrated.arg("--config").arg(&config).args(arguments);
            client(&bed, &mut dehydrated).expect_code(0)
        };
        dehydrated(&["--register", "--accept-terms"]);
        dehydrated(&["--cron", "--force", "--domain", NAMES[0], "--domain", NAMES[1]]);
        let certificate = bed.path(&format!("dehydrated/certs/{}/fullchain.pem", NAMES[0]));
        assert_eq!(read_chain_file(&certificate)[0].names, NAMES);
        std::fs::remove_file(certificate).unwrap();
    }
    until("the port is shut", || (!is_open(setup.gate)).then_some(()));
}

#[test]
fn lego_obtains_and_renews_behind_a_relay() {
    needs!("pebble", "lego");
    let bed = Bed::new();
    let (pebble, setup, daemon) = start(&bed);
    let own_port = bed.port();
    let lego = |what: &[&str]| {
        let mut lego = Command::new(hook("lego.sh"));
        lego.env("LEGO_CA_CERTIFICATES", pebble.api_root()).env("PORT", own_port.to_string());
        lego.args(["--server", &pebble.directory(), "--accept-tos", "--email", "ops@example.test", "--path"]);
        lego.arg(bed.path("lego")).args(["--domains", NAMES[0], "--domains", NAMES[1]]).args(what);
        client(&bed, &mut lego).expect_code(0)
    };
    let chain = bed.path(&format!("lego/certificates/{}.crt", NAMES[0]));
    lego(&["run"]);
    let first = read_chain_file(&chain).remove(0);
    assert_eq!(first.names, NAMES);
    lego(&["renew", "--days", "9999", "--no-random-sleep"]);
    assert_ne!(read_chain_file(&chain).remove(0), first);
    assert!(daemon.process.lines().iter().filter(|line| line.contains("challenge answered")).count() >= 2);
    until("the port is shut", || (!is_open(setup.gate)).then_some(()));
}

#[test]
fn certbot_obtains_behind_a_relay_by_port_and_by_web_root() {
    needs!("pebble", "certbot");
    let bed = Bed::new();
    let (pebble, setup, _daemon) = start(&bed);
    std::fs::create_dir(bed.path("web")).unwrap();
    let (port, web) = (bed.port().to_string(), bed.path("web").display().to_string());
    let folders = ["config-dir", "work-dir", "logs-dir"]
        .map(|folder| [format!("--{folder}"), bed.path(folder).display().to_string()]);
    for (relayed, by) in [
        (["--port", &port], vec!["--standalone", "--http-01-address", "127.0.0.1", "--http-01-port", &port]),
        (["--webroot", &web], vec!["--webroot", "--webroot-path", &web]),
    ] {
        let mut command = setup_command(&bed);
        command
            .args(["challenge", "relay"])
            .args(relayed)
            .args(["--host", NAMES[0], "--", "certbot", "certonly"]);
        command.args(by).args(folders.as_flattened()).env("REQUESTS_CA_BUNDLE", pebble.api_root());
        command.args([
            "--agree-tos",
            "--register-unsafely-without-email",
            "--non-interactive",
            "--force-renewal",
        ]);
        command.args(["--server", &pebble.directory(), "-d", NAMES[0]]);
        run_within(Duration::from_secs(120), &mut command).expect_code(0);
        let chain = bed.path(&format!("config-dir/live/{}/fullchain.pem", NAMES[0]));
        assert_eq!(read_chain_file(&chain)[0].names, NAMES[..1]);
        until("the port is shut", || (!is_open(setup.gate)).then_some(()));
    }
}

fn setup_command(bed: &Bed) -> Command {
    let mut command = command(&bed.path("wicketgate.toml"));
    command.env("HOME", bed.dir()).env("TMPDIR", bed.dir());
    command
}

#[test]
fn a_relay_answers_for_its_hosts_as_long_as_its_command_runs() {
    needs!("pebble");
    let bed = Bed::new();
    let (_pebble, setup, daemon) = start(&bed);
    let folder = bed.path("web/.well-known/acme-challenge");
    std::fs::create_dir_all(&folder).unwrap();
    let put = |token: &str, text: &str| std::fs::write(folder.join(token), text).unwrap();
    put("good", "good.thumbprint\n");
    put("other", "good.thumbprint");
    put("long", &format!("long.{}", "a".repeat(2000)));
    std::os::unix::fs::symlink("/etc/passwd", folder.join("link")).unwrap();
    let mut command = setup_command(&bed);
    command.args(["challenge", "relay", "--webroot"]).arg(bed.path("web")).args(["--host", NAMES[0]]);
    command.args(["--", "/bin/sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.05; done"]);
    let mut relay = Process::start("relay", &mut command);
    until("the gate is open", || is_open(setup.gate).then_some(()));
    let ask = |host: &str, token: &str| {
        let answer = get(setup.gate, host, &format!("/.well-known/acme-challenge/{token}")).unwrap();
        (answer.status, answer.body)
    };
    let known = (200, b"good.thumbprint".to_vec());
    assert_eq!(ask(NAMES[0], "good"), known);
    // From the table, then.
    std::fs::remove_file(folder.join("good")).unwrap();
    assert_eq!(ask(NAMES[0], "good"), known);
    let unknown = (404, b"404 no such challenge\n".to_vec());
    for token in ["other", "long", "link", "absent", "..", "..%2fgood", ""] {
        assert_eq!(ask(NAMES[0], token), unknown, "{token}");
    }
    put("late", "late.thumbprint");
    assert_eq!(ask(NAMES[1], "late"), unknown);
    assert_eq!(ask(NAMES[0], "late").0, 200);
    daemon.process.wait_for_line("challenge answered");

    let listed = run(setup_command(&bed).args(["challenge", "list"])).expect_code(0);
    assert_eq!(listed.stdout.lines().count(), 2, "{}", listed.stdout);
    relay.signal(Signal::TERM);
    assert_eq!(relay.wait(PATIENCE).code(), Some(7));
    until("the port is shut", || (!is_open(setup.gate)).then_some(()));
    run(setup_command(&bed).args(["challenge", "put", NAMES[0], "another", "another.thumbprint"]))
        .expect_code(0);
    assert_eq!(ask(NAMES[0], "good"), unknown);
    assert_eq!(ask(NAMES[0], "another").0, 200);
}

/// A client that takes its time holds up nobody else, and nobody for longer than a CA would wait.
#[test]
fn a_relay_that_does_not_answer_is_not_waited_for() {
    needs!("pebble");
    let bed = Bed::new();
    let (_pebble, setup, mut daemon) = start(&bed);
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = setup_command(&bed);
    command.args(["challenge", "relay", "--port", &mute.local_addr().unwrap().port().to_string()]);
    command.args(["--", "sleep", "60"]);
    let mut relay = Process::start("relay", &mut command);
    until("the gate is open", || is_open(setup.gate).then_some(()));
    let ask = |token: &str| get(setup.gate, NAMES[0], &format!("/.well-known/acme-challenge/{token}"));
    std::thread::scope(|threads| {
        let slow: Vec<_> = (0..100).map(|n| threads.spawn(move || ask(&format!("slow{n}")))).collect();
        run(setup_command(&bed).args(["challenge", "put", NAMES[0], "quick", "quick.thumbprint"]))
            .expect_code(0);
        assert_eq!(ask("quick").unwrap().status, 200);
        for slow in slow {
            assert_eq!(slow.join().unwrap().unwrap().status, 404);
        }
    });
    relay.wait_for_line("cannot be asked for token slow");
    daemon.stop();
    relay.wait_for_line("the daemon has ended");
    relay.signal(Signal::TERM);
    assert_eq!(relay.wait(PATIENCE).code(), Some(143));
}

#[test]
fn a_relay_says_why_it_does_not_begin() {
    needs!("pebble");
    let bed = Bed::new();
    let (_pebble, setup, mut daemon) = start(&bed);
    let relay = |arguments: &[&str]| run(setup_command(&bed).args(["challenge", "relay"]).args(arguments));
    relay(&["--port", "5002"]).expect_code(2);
    relay(&["--", "true"]).expect_code(2);
    relay(&["--port", "0", "--", "true"]).expect_code(2);
    relay(&["--webroot", "/no/such/folder", "--", "true"]).expect_code(1);
    relay(&["--port", "5002", "--", "/etc/passwd"]).expect_code(126);
    relay(&["--port", "1", "--webroot", "/", "--", "true"]).expect_code(2);
    let absent = relay(&["--port", "5002", "--", "/no/such/program"]).expect_code(127);
    assert!(absent.stderr.contains("/no/such/program cannot be run: No such file"), "{}", absent.stderr);
    relay(&["--port", "5002", "--", "sh", "-c", "exit 9"]).expect_code(9);
    until("the port is shut", || (!is_open(setup.gate)).then_some(()));
    daemon.stop();
    let alone = relay(&["--port", "5002", "--", "touch", bed.path("ran").to_str().unwrap()]).expect_code(1);
    assert!(alone.stderr.contains("start it with `wicketgate run`"), "{}", alone.stderr);
    assert!(!bed.path("ran").exists());
}

#[test]
fn the_hooks_are_sound_and_say_what_is_missing() {
    needs!("shellcheck");
    for name in ["certbot.sh", "dehydrated.sh", "lego.sh", "acme.sh"] {
        run(Command::new("shellcheck").args(["--shell", "sh"]).arg(hook(name))).expect_code(0);
    }
    let told = run(Command::new(hook("certbot.sh")).env_remove("CERTBOT_DOMAIN"));
    assert_ne!(told.code, Some(0));
    assert!(told.stderr.contains("CERTBOT_DOMAIN"), "{}", told.stderr);
    run(Command::new(hook("dehydrated.sh")).arg("startup_hook")).expect_code(0);
}

#[test]
fn a_flood_of_tokens_keeps_nobody_from_his() {
    needs!("pebble");
    let bed = Bed::new();
    let (_pebble, setup, _daemon) = start(&bed);
    let folder = bed.path("web/.well-known/acme-challenge");
    std::fs::create_dir_all(&folder).unwrap();
    let mut command = setup_command(&bed);
    command.args(["challenge", "relay", "--webroot"]).arg(bed.path("web")).args(["--", "sleep", "60"]);
    let relay = Process::start("relay", &mut command);
    until("the gate is open", || is_open(setup.gate).then_some(()));
    let ask = |token: &str| get(setup.gate, NAMES[0], &format!("/.well-known/acme-challenge/{token}"));
    std::thread::scope(|threads| {
        for n in 0..300 {
            threads.spawn(move || (0..5).for_each(|round| drop(ask(&format!("flood{n}-{round}")))));
        }
        for n in 0..20 {
            let token = format!("honest{n}");
            std::fs::write(folder.join(&token), format!("{token}.thumbprint")).unwrap();
            assert_eq!(ask(&token).unwrap().status, 200, "{n}");
        }
    });
    relay.signal(Signal::TERM);
    assert!(relay.lines().iter().all(|line| !line.contains("broke off")), "{:#?}", relay.lines());
}
