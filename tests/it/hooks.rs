//! Other ACME clients beside the daemon: their challenges are answered by the gate, through the hooks of
//! `deploy/hooks/`, while it is shut otherwise.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::bed::client::is_open;
use crate::bed::pebble::{Mood, Pebble};
use crate::bed::pki::read_chain_file;
use crate::bed::process::{Ran, run, run_within};
use crate::bed::wicketgate::{Daemon, PROGRAM, Setup, clean};
use crate::bed::{Bed, needs, until};

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
    let text = setup.text().replace("[gate]\n", "[gate]\nopen = \"during-orders\"\n");
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
fn the_hooks_are_sound_and_say_what_is_missing() {
    needs!("shellcheck");
    for name in ["certbot.sh", "dehydrated.sh"] {
        run(Command::new("shellcheck").args(["--shell", "sh"]).arg(hook(name))).expect_code(0);
    }
    let told = run(Command::new(hook("certbot.sh")).env_remove("CERTBOT_DOMAIN"));
    assert_ne!(told.code, Some(0));
    assert!(told.stderr.contains("CERTBOT_DOMAIN"), "{}", told.stderr);
    run(Command::new(hook("dehydrated.sh")).arg("startup_hook")).expect_code(0);
}
