//! Beside a real nginx: it serves 443 from the files and is reloaded; and behind the front as an upstream.

use std::fs;
use std::process::Command;

use crate::bed::client::{curl, served_leaf};
use crate::bed::nginx::Nginx;
use crate::bed::pebble::{Mood, Pebble};
use crate::bed::process::Process;
use crate::bed::wicketgate::{PROGRAM, Setup, clean};
use crate::bed::{Bed, needs, until};

const NAME: &str = "www.example.test";

fn beside(bed: &Bed) -> (Pebble, Setup) {
    let (pebble, setup) = Setup::with_pebble(bed, Mood::Kind, &[NAME, "example.test"]);
    (pebble, setup.without_front())
}

#[test]
fn nginx_is_reloaded_after_each_renewal() {
    needs!("pebble", "nginx", "openssl", "curl");
    let bed = Bed::new();
    let (pebble, setup) = beside(&bed);
    setup.renew(&bed).expect_code(0);
    let nginx = Nginx::tls(&bed, &setup.live(NAME), bed.port());
    let first = served_leaf(nginx.port(), NAME).unwrap();
    assert_eq!(first, setup.stored(NAME)[0]);

    let setup = setup.with("deploy = [\"nginx\"]").tables(&format!(
        "[deploy.nginx]\ncheck = {:?}\nreload = {:?}\nverify = [\"127.0.0.1:{}\"]",
        nginx.check_command(),
        nginx.reload_command(),
        nginx.port()
    ));
    let told = setup.command(&bed, &["renew", "--force"]).expect_code(0);
    assert!(told.text().contains("nginx serves it"), "{}", told.text());
    let second = setup.stored(NAME)[0].clone();
    assert_ne!(second, first);
    until("nginx serves the renewed certificate", || {
        (served_leaf(nginx.port(), NAME)? == second).then_some(())
    });
    let page = curl(&pebble.signing_root(&bed), NAME, nginx.port(), "/", &[]);
    assert_eq!(page.expect_code(0).stdout, "nginx\n");

    let _daemon = setup.start(&bed);
    until("the daemon's socket is there", || setup.socket.exists().then_some(()));
    setup.command(&bed, &["renew", "--force"]).expect_code(0);
    let third = setup.stored(NAME)[0].clone();
    assert_ne!(third, second);
    until("nginx serves what the daemon obtained", || {
        (served_leaf(nginx.port(), NAME)? == third).then_some(())
    });
}

#[test]
fn the_command_sees_what_certbots_hooks_see_and_nothing_else() {
    needs!("pebble", "curl");
    let bed = Bed::new();
    let (_pebble, setup) = beside(&bed);
    let seen = bed.path("seen");
    let reload = bed.script("reload", &format!("env >{0}.draft; mv {0}.draft {0}", seen.display()));
    let setup = setup
        .with("deploy = [\"recorder\"]")
        .tables(&format!("[deploy.recorder]\nreload = [{reload:?}, \"two words\"]"));
    let config = setup.write(&bed);
    let mut renew = crate::bed::wicketgate::command(&config);
    renew.arg("renew").env("SECRET_OF_THE_CALLER", "1");
    crate::bed::process::run(&mut renew).expect_code(0);
    let seen = fs::read_to_string(seen).unwrap();
    let value = |name: &str| {
        let prefix = format!("{name}=");
        seen.lines().find_map(|line| line.strip_prefix(&prefix)).map(str::to_owned)
    };
    assert_eq!(value("RENEWED_DOMAINS").as_deref(), Some("www.example.test example.test"));
    assert_eq!(value("RENEWED_LINEAGE"), Some(setup.live(NAME).display().to_string()));
    assert!(value("PATH").is_some());
    assert_eq!(value("SECRET_OF_THE_CALLER"), None, "the environment is not clean");
}

#[test]
fn a_failing_reload_is_shown_fails_and_is_tried_again() {
    needs!("pebble", "curl", "faketime");
    let bed = Bed::new();
    let (pebble, setup) = beside(&bed);
    let works = bed.path("works");
    let script = format!("test -e {} || {{ echo the server is on strike >&2; exit 3; }}", works.display());
    let reload = bed.script("reload", &script);
    let setup =
        setup.with("deploy = [\"server\"]").tables(&format!("[deploy.server]\nreload = [{reload:?}]"));
    let told = setup.renew(&bed).expect_code(1);
    assert!(told.text().contains("the server is on strike"), "{}", told.text());
    assert!(told.text().contains("server did not take it"), "{}", told.text());

    let status = |setup: &Setup| -> serde_json::Value {
        let ran = setup.command(&bed, &["status", "--json"]).expect_code(0);
        let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        report["certificates"][0]["deploys"][0].clone()
    };
    let pending = status(&setup);
    assert_eq!((pending["service"].as_str(), pending["pending"].as_bool()), (Some("server"), Some(true)));
    let plain = setup.command(&bed, &["status"]).expect_code(0);
    assert!(plain.text().contains("the server is on strike"), "{}", plain.text());

    // The certificate itself is not ordered again for it: a daemon whose clock is past the pause tries
    // the reload alone.
    fs::write(&works, "").unwrap();
    let mut later = Command::new("faketime");
    clean(&mut later);
    later.args(["-f", "+2m", PROGRAM, "--config"]).arg(setup.write(&bed)).arg("run");
    let _daemon = Process::start("wicketgate run", &mut later);
    until("the reload was tried again", || (status(&setup)["pending"] == false).then_some(()));
    assert_eq!(pebble.orders(), 1);
}

#[test]
fn a_reload_that_hangs_is_stopped() {
    needs!("pebble", "curl");
    let bed = Bed::new();
    let (_pebble, setup) = beside(&bed);
    let reload = bed.script("reload", "sleep 1000");
    let setup = setup
        .with("deploy = [\"server\"]")
        .tables(&format!("[deploy.server]\nreload = [{reload:?}]\ntimeout = \"1s\""));
    let told = setup.renew(&bed).expect_code(1);
    assert!(told.text().contains("did not end within 1 s"), "{}", told.text());
}

#[test]
fn nginx_is_an_upstream() {
    needs!("pebble", "nginx", "openssl", "curl");
    let bed = Bed::new();
    let gate = bed.port();
    let pebble = Pebble::start(&bed, Mood::Kind, gate);
    let nginx = Nginx::upstream(&bed);
    let mut setup = Setup::new(&bed, &pebble.directory(), pebble.api_root())
        .certificate(&[NAME])
        .upstream(&format!("http://127.0.0.1:{}", nginx.port()));
    setup.gate = gate;
    let (_daemon, _) = setup.start_until_served(&bed, NAME);
    let root = pebble.signing_root(&bed);
    for version in ["--http1.1", "--http2"] {
        let small = curl(&root, NAME, setup.front, "/small", &[version]).expect_code(0);
        assert_eq!(small.stdout, "x".repeat(1024), "{version}");
        let forged = ["X-Forwarded-For: 6.6.6.6", "X-Forwarded-Proto: gopher"];
        let headers =
            curl(&root, NAME, setup.front, "/headers", &[version, "-H", forged[0], "-H", forged[1]]);
        let told = headers.expect_code(0).stdout;
        assert_eq!(told, format!("host={NAME}:{}\nproto=https\nfor=127.0.0.1\n", setup.front), "{version}");
        let missing =
            curl(&root, NAME, setup.front, "/missing", &[version, "-o", "/dev/null", "-w", "%{http_code}"]);
        assert_eq!(missing.stdout, "404", "{version}");
    }
}
