//! Deploys as transactions: what is tested, reloaded, looked at and put back, with servers that fail in every
//! way.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;

use crate::bed::client::{is_open, served_leaf};
use crate::bed::namespace::Mounts;
use crate::bed::nginx::Nginx;
use crate::bed::pebble::{Mood, Pebble};
use crate::bed::process::Process;
use crate::bed::wicketgate::{PROGRAM, Setup, clean};
use crate::bed::{Bed, needs, until};

const NAME: &str = "www.example.test";

fn beside(bed: &Bed, names: &[&str]) -> (Pebble, Setup) {
    let (pebble, setup) = Setup::with_pebble(bed, Mood::Kind, names);
    (pebble, setup.without_front())
}

/// A script that writes a line for each time that it is run.
fn counter(bed: &Bed, name: &str, body: &str) -> (PathBuf, PathBuf) {
    let seen = bed.path(&format!("{name}.seen"));
    let script = bed.script(name, &format!("echo \"$RENEWED_DOMAINS\" >>{}\n{body}", seen.display()));
    (script, seen)
}

fn lines(file: &PathBuf) -> Vec<String> {
    fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn version(setup: &Setup) -> String {
    let target = fs::read_link(setup.live(NAME)).unwrap();
    target.file_name().unwrap().to_str().unwrap().to_owned()
}

fn deploys(bed: &Bed, setup: &Setup) -> serde_json::Value {
    let ran = setup.command(bed, &["status", "--json"]).expect_code(0);
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    report["certificates"][0]["deploys"].clone()
}

#[test]
fn a_test_that_fails_with_the_new_version_alone_has_the_one_before_put_back() {
    needs!("pebble", "curl", "faketime");
    let bed = Bed::new();
    let (pebble, setup) = beside(&bed, &[NAME]);
    let (reload, reloads) = counter(&bed, "reload", "");
    let bad = bed.path("bad");
    let live = setup.live(NAME);
    let check = bed.script(
        "check",
        &format!(
            "readlink {} | grep -q \"$(cat {})\" && {{ echo line 7: no >&2; exit 1; }}; exit 0",
            live.display(),
            bad.display()
        ),
    );
    fs::write(&bad, "none").unwrap();
    let setup = setup
        .with("deploy = [\"server\"]")
        .tables(&format!("[deploy.server]\ncheck = [{check:?}]\nreload = [{reload:?}]\nverify = []"));
    setup.renew(&bed).expect_code(0);
    assert_eq!((version(&setup), lines(&reloads).len()), ("0001".to_owned(), 1));

    fs::write(&bad, "0002").unwrap();
    let told = setup.command(&bed, &["renew", "--force"]).expect_code(1);
    assert!(told.text().contains("line 7: no"), "{}", told.text());
    assert!(told.text().contains("put back in `live`"), "{}", told.text());
    assert_eq!((version(&setup), lines(&reloads).len()), ("0001".to_owned(), 1));
    assert_eq!(deploys(&bed, &setup)[0]["pending"], true);

    // It is not ordered again: what is stored waits, over restarts, until the server takes it.
    let told = setup.renew(&bed).expect_code(1);
    assert!(told.text().contains("has not taken it yet"), "{}", told.text());
    fs::write(&bad, "none").unwrap();
    let mut later = Command::new("faketime");
    clean(&mut later);
    later.args(["-f", "+2m", PROGRAM, "--config"]).arg(setup.write(&bed)).arg("run");
    let daemon = Process::start("wicketgate run", &mut later);
    until("the deploy was tried again", || (deploys(&bed, &setup)[0]["pending"] == false).then_some(()));
    drop(daemon);
    assert_eq!((version(&setup), lines(&reloads).len(), pebble.orders()), ("0002".to_owned(), 2, 2));
}

#[test]
fn a_test_that_fails_with_any_version_leaves_the_new_one() {
    needs!("pebble", "curl");
    let bed = Bed::new();
    let (_pebble, setup) = beside(&bed, &[NAME]);
    let (reload, reloads) = counter(&bed, "reload", "");
    let broken = bed.path("broken");
    let check = bed.script("check", &format!("test ! -e {}", broken.display()));
    let setup = setup
        .with("deploy = [\"server\"]")
        .tables(&format!("[deploy.server]\ncheck = [{check:?}]\nreload = [{reload:?}]\nverify = []"));
    setup.renew(&bed).expect_code(0);
    fs::write(&broken, "").unwrap();
    let told = setup.command(&bed, &["renew", "--force"]).expect_code(1);
    assert!(told.text().contains("the certificate is not the reason"), "{}", told.text());
    assert_eq!((version(&setup), lines(&reloads).len()), ("0002".to_owned(), 1));
    fs::remove_file(&broken).unwrap();
    setup.command(&bed, &["deploy"]).expect_code(0);
    assert_eq!(lines(&reloads).len(), 2);
}

#[test]
fn one_server_s_refusal_keeps_nobody_else_from_the_new_version() {
    needs!("pebble", "curl");
    let bed = Bed::new();
    let (_pebble, setup) = beside(&bed, &[NAME]);
    let live = setup.live(NAME);
    let check = bed.script("check", &format!("readlink {} | grep -q 0001", live.display()));
    let seen = bed.path("seen");
    let record = format!("basename $(readlink {}) >>{}", live.display(), seen.display());
    let other = bed.script("other", &record);
    let setup = setup.with("deploy = [\"a\", \"b\"]").tables(&format!(
        "[deploy.a]\ncheck = [{check:?}]\nreload = [\"true\"]\nverify = []\n\
         [deploy.b]\nreload = [{other:?}]\nverify = []"
    ));
    setup.renew(&bed).expect_code(0);
    setup.command(&bed, &["renew", "--force"]).expect_code(1);
    assert_eq!(lines(&seen), ["0001", "0002"]);
    assert_eq!(version(&setup), "0001", "`a` could not be started with the new one");
    let deploys = deploys(&bed, &setup);
    assert_eq!((&deploys[0]["pending"], &deploys[1]["pending"]), (&true.into(), &false.into()));
}

#[test]
fn several_certificates_for_one_server_cause_one_reload() {
    needs!("pebble", "curl");
    let bed = Bed::new();
    let (_pebble, setup) = beside(&bed, &[NAME, "example.test"]);
    let (reload, reloads) = counter(&bed, "reload", "");
    let (hook, hooked) = counter(&bed, "hook", "test -e \"$RENEWED_LINEAGE/fullchain.pem\"");
    let setup = setup
        .with("deploy = [\"server\", \"hooks\"]")
        .certificate(&["b.example.test"])
        .with("deploy = [\"server\", \"hooks\"]")
        .tables(&format!(
            "[deploy.server]\nreload = [{reload:?}]\nverify = []\n\
             [deploy.hooks]\nreload = [{hook:?}]\neach = true\nverify = []"
        ));
    setup.renew(&bed).expect_code(0);
    let seen = lines(&reloads);
    assert_eq!(seen.len(), 1, "{seen:?}");
    let mut names: Vec<_> = seen[0].split(' ').collect();
    names.sort_unstable();
    assert_eq!(names, ["b.example.test", "example.test", NAME]);
    let mut hooked = lines(&hooked);
    hooked.sort_unstable();
    assert_eq!(hooked, ["b.example.test", &format!("{NAME} example.test")]);

    // Nothing is deployed twice for one version, but on demand.
    setup.renew(&bed).expect_code(0);
    assert_eq!(lines(&reloads).len(), 1);
    setup.command(&bed, &["deploy", "b.example.test"]).expect_code(0);
    assert_eq!(lines(&reloads)[1..], ["b.example.test"]);
    let told = setup.command(&bed, &["deploy", "c.example.test"]).expect_code(2);
    assert!(told.text().contains("no certificate is named c.example.test"), "{}", told.text());
}

#[test]
fn a_deploy_is_done_when_the_server_serves_it() {
    needs!("pebble", "nginx", "openssl", "curl");
    let bed = Bed::new();
    let (_pebble, setup) = beside(&bed, &[NAME]);
    setup.renew(&bed).expect_code(0);
    let nginx = Nginx::tls(&bed, &setup.live(NAME), bed.port());
    let (check, reload, port) = (nginx.check_command(), nginx.reload_command(), nginx.port());
    let table = |reload: &[String]| {
        format!(
            "[deploy.nginx]\ncheck = {check:?}\nreload = {reload:?}\nverify = [\"127.0.0.1:{port}\"]\nverify-timeout = \"10s\""
        )
    };
    let mut setup = setup.with("deploy = [\"nginx\"]").tables(&table(&reload));
    let told = setup.command(&bed, &["renew", "--force"]).expect_code(0);
    assert!(told.text().contains("nginx serves it, with its whole chain"), "{}", told.text());
    assert_eq!(served_leaf(port, NAME).unwrap(), setup.stored(NAME)[0]);

    // The forgotten reload.
    setup.more = table(&["true".to_owned()]).replace("10s", "1s") + "\n";
    let told = setup.command(&bed, &["renew", "--force"]).expect_code(1);
    assert!(told.text().contains("nginx did not take it"), "{}", told.text());
    assert_ne!(served_leaf(port, NAME).unwrap(), setup.stored(NAME)[0]);
    assert_eq!(deploys(&bed, &setup)[0]["pending"], true);

    // `cert.pem` in place of `fullchain.pem`.
    setup.more = table(&reload).replace("10s", "1s") + "\n";
    nginx.change_config(|text| text.replace("fullchain.pem", "cert.pem"));
    let told = setup.command(&bed, &["deploy"]).expect_code(1);
    assert!(told.text().contains("fullchain.pem"), "{}", told.text());

    setup.more = table(&reload) + "\n";
    nginx.change_config(|text| text.replace("cert.pem", "fullchain.pem"));
    setup.command(&bed, &["deploy"]).expect_code(0);
    assert_eq!(served_leaf(port, NAME).unwrap(), setup.stored(NAME)[0]);
}

#[test]
fn a_server_that_a_reload_ends_is_started_again() {
    needs!("pebble", "nginx", "openssl", "curl");
    let bed = Bed::new();
    let (_pebble, setup) = beside(&bed, &[NAME]);
    setup.renew(&bed).expect_code(0);
    let nginx = Nginx::tls(&bed, &setup.live(NAME), bed.port());
    let port = nginx.port();
    let stop = bed.script("stop", &format!("kill -QUIT $(cat {})", bed.path("nginx-tls/pid").display()));
    let mut start = nginx.check_command();
    start.retain(|word| word != "-t");
    start.extend(["-g".to_owned(), "daemon on;".to_owned()]);
    nginx.change_config(|text| text.replace("daemon off;", ""));
    let setup = setup.with("deploy = [\"web\"]").tables(&format!(
        "[deploy.web]\nreload = [{stop:?}]\nstart = {start:?}\nverify = [\"127.0.0.1:{port}\"]\nverify-timeout = \"10s\""
    ));
    let told = setup.command(&bed, &["renew", "--force"]);
    let served = served_leaf(port, NAME);
    let pid = fs::read_to_string(bed.path("nginx-tls/pid")).unwrap_or_default();
    if let Some(pid) = pid.trim().parse().ok().and_then(rustix::process::Pid::from_raw) {
        rustix::process::kill_process(pid, Signal::TERM).unwrap();
        until("nginx has ended", || (!is_open(port)).then_some(()));
    }
    let told = told.expect_code(0);
    assert!(told.text().contains("it had ended, and was started again"), "{}", told.text());
    assert_eq!(served.unwrap(), setup.stored(NAME)[0]);
}

#[test]
fn a_crash_in_the_middle_of_a_reload_is_made_good() {
    needs!("pebble", "curl");
    let bed = Bed::new();
    let (pebble, setup) = beside(&bed, &[NAME]);
    let slow = bed.path("slow");
    let (reload, reloads) =
        counter(&bed, "reload", &format!("while test -e {}; do sleep 0.05; done", slow.display()));
    fs::write(&slow, "").unwrap();
    let setup = setup
        .with("deploy = [\"server\"]")
        .tables(&format!("[deploy.server]\nreload = [{reload:?}]\nverify = []"));
    let mut renewing =
        Process::start("wicketgate renew", crate::bed::wicketgate::command(&setup.write(&bed)).arg("renew"));
    until("the reload is under way", || (lines(&reloads).len() == 1).then_some(()));
    renewing.signal(Signal::KILL);
    renewing.wait(crate::bed::PATIENCE);
    fs::remove_file(&slow).unwrap();
    assert_eq!(deploys(&bed, &setup)[0]["pending"], true);
    setup.renew(&bed).expect_code(0);
    assert_eq!((lines(&reloads).len(), pebble.orders()), (2, 1));
    assert_eq!(deploys(&bed, &setup)[0]["pending"], false);
}

#[test]
fn a_server_that_did_not_start_is_started_by_the_next_try() {
    needs!("pebble", "curl");
    let bed = Bed::new();
    let (_pebble, setup) = beside(&bed, &[NAME]);
    // A server that runs while a file is there, and that its reload ends.
    let (up, broken) = (bed.path("up"), bed.path("broken"));
    let reload = bed.script("reload", &format!("rm -f {}", up.display()));
    let (start, starts) = counter(
        &bed,
        "start",
        &format!(
            "test ! -e {} || {{ echo no such key >&2; exit 1; }}; touch {}",
            broken.display(),
            up.display()
        ),
    );
    let refused = bed.port();
    let setup = setup.with("deploy = [\"server\"]").tables(&format!(
        "[deploy.server]\nreload = [{reload:?}]\nstart = [{start:?}]\n\
         verify = [\"127.0.0.1:{refused}\"]\nverify-timeout = \"1s\""
    ));
    fs::write(&broken, "").unwrap();
    let told = setup.renew(&bed).expect_code(1);
    assert!(told.text().contains("no such key"), "{}", told.text());
    fs::remove_file(&broken).unwrap();
    let before = lines(&starts).len();
    setup.command(&bed, &["deploy"]).expect_code(1);
    assert!(lines(&starts).len() > before, "nobody has started it");
    assert!(up.exists());
}

#[test]
fn what_was_held_back_for_a_server_that_is_gone_is_let_go() {
    needs!("pebble", "curl");
    let bed = Bed::new();
    let (_pebble, setup) = beside(&bed, &[NAME]);
    let check = bed.script("check", &format!("readlink {} | grep -q 0001", setup.live(NAME).display()));
    let mut setup = setup
        .with("deploy = [\"a\"]")
        .tables(&format!("[deploy.a]\ncheck = [{check:?}]\nreload = [\"true\"]\nverify = []"));
    setup.renew(&bed).expect_code(0);
    setup.command(&bed, &["renew", "--force"]).expect_code(1);
    assert_eq!(version(&setup), "0001");
    let shown = setup.command(&bed, &["status"]).expect_code(0);
    assert!(shown.stdout.contains("(version 2, held back: "), "{}", shown.stdout);
    setup.certificates = setup.certificates.replace("deploy = [\"a\"]\n", "");
    setup.renew(&bed).expect_code(0);
    assert_eq!(version(&setup), "0002");
}

#[test]
fn a_pause_that_a_wrong_clock_has_written_is_not_kept() {
    needs!("pebble", "curl", "faketime");
    let bed = Bed::new();
    let (_pebble, setup) = beside(&bed, &[NAME]);
    let works = bed.path("works");
    let reload = bed.script("reload", &format!("test -e {}", works.display()));
    let setup = setup
        .with("deploy = [\"server\"]")
        .tables(&format!("[deploy.server]\nreload = [{reload:?}]\nverify = []"));
    setup.renew(&bed).expect_code(1);
    let mut later = Command::new("faketime");
    clean(&mut later);
    later.args(["-f", "+100d", PROGRAM, "--config"]).arg(setup.write(&bed)).arg("deploy");
    crate::bed::process::run(&mut later).expect_code(1);
    fs::write(&works, "").unwrap();
    setup.renew(&bed).expect_code(0);
}

/// A second version is held back, since the test of the server that takes it passes with the first alone, until the
/// file is there that is told; and the file of the lineage's memory.
fn held_back(bed: &Bed) -> (Pebble, Setup, PathBuf, PathBuf) {
    let (pebble, setup) = beside(bed, &[NAME]);
    let works = bed.path("works");
    let live = setup.live(NAME);
    let check = bed.script(
        "check",
        &format!("test -e {} || readlink {} | grep -q 0001", works.display(), live.display()),
    );
    let setup = setup
        .with("deploy = [\"a\"]")
        .tables(&format!("[deploy.a]\ncheck = [{check:?}]\nreload = [\"true\"]\nverify = []"));
    setup.renew(bed).expect_code(0);
    setup.command(bed, &["renew", "--force"]).expect_code(1);
    assert_eq!(version(&setup), "0001");
    let memory = setup.state.join("lineages").join(NAME).join("state.json");
    (pebble, setup, works, memory)
}

#[test]
fn what_was_held_back_is_tried_again_when_its_memory_is_lost() {
    needs!("pebble", "curl");
    let bed = Bed::new();
    let (_pebble, setup, works, memory) = held_back(&bed);
    fs::write(memory, "{").unwrap();
    setup.command(&bed, &["deploy"]).expect_code(1);
    assert_eq!(version(&setup), "0001", "it passes with the one before alone");
    fs::write(works, "").unwrap();
    setup.command(&bed, &["deploy"]).expect_code(0);
    assert_eq!(version(&setup), "0002");
}

#[test]
fn what_was_held_back_is_tried_again_when_its_memory_is_removed() {
    needs!("pebble", "curl");
    let bed = Bed::new();
    let (_pebble, setup, works, memory) = held_back(&bed);
    fs::remove_file(memory).unwrap();
    let told = setup.command(&bed, &["deploy"]).expect_code(1).text();
    assert!(told.contains("version 2 is stored, version 1 is live, and why is not known"), "{told}");
    // It was written down at once.
    fs::write(works, "").unwrap();
    setup.command(&bed, &["deploy"]).expect_code(0);
    assert_eq!(version(&setup), "0002");
}

#[test]
fn a_certificate_that_was_not_copied_is_told_no_further_steps() {
    needs!("root", "mounts", "pebble", "curl");
    let (bed, mounts) = (Bed::new(), Mounts::start());
    let (_pebble, setup) = beside(&bed, &[NAME]);
    let other = "other.example.test";
    mounts.sh(&format!("mkdir /mnt/{other}")).expect_code(0);
    let setup = setup.with("deploy = [\"a\"]").certificate(&[other]).with("deploy = [\"a\"]").tables(
        "[deploy.a]\ncheck = [\"true\"]\nreload = [\"true\"]\nverify = []\n\
         copy = { key = \"/mnt/{name}/key.pem\" }",
    );
    let mut renew = mounts.command(PROGRAM);
    clean(&mut renew);
    let ran = crate::bed::process::run(renew.arg("--config").arg(setup.write(&bed)).arg("renew"));
    let told = ran.expect_code(1).text();
    let of = |name: &str| told.lines().filter(|line| line.contains(name)).collect::<Vec<_>>().join("\n");
    for step in ["passes its own test", "reloaded"] {
        assert!(of(other).contains(step) && !of(NAME).contains(step), "{step}: {told}");
    }
    assert!(of(NAME).contains("copy failed: "), "{told}");
    assert!(of(NAME).contains("create it, as with"), "{told}");
    mounts.sh(&format!("test -s /mnt/{other}/key.pem")).expect_code(0);
}
