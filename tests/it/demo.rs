//! `deploy/demo.toml`: the whole thing without root, DNS or network, as a newcomer sees it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use wicketgate::clock;

use crate::bed::client::{curl, served_leaf};
use crate::bed::namespace::Namespace;
use crate::bed::process::Process;
use crate::bed::wicketgate::{PROGRAM, Setup, clean};
use crate::bed::{Bed, PATIENCE, needs, until};

/// The repository's own file.
fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/demo.toml")
}

#[test]
fn within_five_seconds_it_says_what_to_try_and_that_works() {
    needs!("namespaces", "nsenter", "ip", "curl", "ss");
    let bed = Bed::new();
    // Its ports are fixed, and here they are free.
    let inside = Namespace::start(&bed, &[]);
    let began = clock::monotonic();
    let mut command = inside.command(PROGRAM);
    clean(&mut command);
    command.env("WICKETGATE_STATE_DIR", bed.path("state"));
    command.env("WICKETGATE_ADMIN__SOCKET", bed.path("admin.sock"));
    let mut demo = Process::start("the demo", command.arg("run").arg("--config").arg(demo()));
    demo.wait_for_line("curl ");
    demo.wait_for_line("obtained");
    assert!(began.elapsed() < Duration::from_secs(5), "it took {:?}", began.elapsed());

    let lines = until("every command to try is printed", || {
        let lines = demo.lines();
        let tries: Vec<String> =
            lines.iter().filter_map(|line| line.find("curl ").map(|at| line[at..].to_owned())).collect();
        (tries.iter().any(|line| line.contains("https://"))
            && tries.iter().any(|line| line.contains("http://")))
        .then_some(tries)
    });
    for line in lines {
        let ran = inside.sh(&line).expect_code(0);
        assert!(!ran.stdout.is_empty(), "{line} shows nothing");
    }
    demo.signal(Signal::INT);
    assert_eq!(demo.wait(PATIENCE).code(), Some(0));
    assert_eq!(inside.sh("ss -Hltn").expect_code(0).stdout, "", "something still listens");
}

#[test]
fn it_renews_and_swaps_while_one_looks() {
    needs!("faketime", "openssl", "curl");
    let bed = Bed::new();
    let setup = Setup::embedded(&bed).certificate(&["demo.example.test"]).with("profile = \"minutes\"");
    // Its minutes last seconds: every clock of it runs twenty times as fast.
    let mut fast = Command::new("faketime");
    clean(&mut fast);
    fast.args(["-f", "+0 x20", PROGRAM, "--config"]).arg(setup.write(&bed)).arg("run");
    let demo = Process::start("the demo", &mut fast);
    let first = setup.wait_until_served("demo.example.test");
    let second = until("another certificate is served", || {
        let leaf = served_leaf(setup.front, "demo.example.test")?;
        (leaf.serial != first.serial).then_some(leaf)
    });
    assert!(second.not_before > first.not_before);
    assert!(second.not_before < first.not_after, "the renewal came after the end");
    assert!(demo.lines().iter().filter(|line| line.contains("obtained")).count() >= 2);
}

#[test]
fn its_certificates_are_fenced() {
    needs!("openssl", "curl");
    let bed = Bed::new();
    let setup = Setup::embedded(&bed).certificate(&["demo.example.test"]);
    let (_daemon, leaf) = setup.start_until_served(&bed, "demo.example.test");
    let root = setup.state.join("embedded-ca/root.pem");
    let page = curl(&root, "demo.example.test", setup.front, "/", &[]).expect_code(0).stdout;
    let serial = leaf.serial.replace(':', "").to_lowercase();
    let shown = page.replace(':', "").to_lowercase();
    assert!(shown.contains(&serial), "the page does not show serial {serial}: {page}");

    let text =
        crate::bed::process::run(Command::new("openssl").args(["x509", "-noout", "-text", "-in"]).arg(&root))
            .expect_code(0)
            .stdout;
    assert!(text.contains("Name Constraints"), "{text}");
    assert!(text.contains("demo.example.test"), "{text}");
    let status = setup.command(&bed, &["status"]).expect_code(0);
    assert!(status.text().to_lowercase().contains("untrusted"), "{}", status.text());
    let deployed = Setup::embedded(&bed)
        .certificate(&["demo.example.test"])
        .with("deploy = [\"server\"]")
        .tables("[deploy.server]\nreload = [\"true\"]");
    deployed.command(&bed, &["config", "check"]).expect_code(78);
}
