//! A person is told: by command, webhook and mail, over restarts, once, and by `notify --test`.

use std::fs;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use wicketgate::certificate::Certificate;
use wicketgate::clock;
use wicketgate::store::Store;

use crate::bed::mail_server::MailServer;
use crate::bed::pki::Pki;
use crate::bed::webhook::{OK, Reply, TROUBLE, Webhook};
use crate::bed::wicketgate::Setup;
use crate::bed::{Bed, needs, until, until_within};

const NAME: &str = "www.example.test";
const DAY: Duration = Duration::from_secs(86_400);
/// The part of a webhook's path that nobody may see.
const SECRET: &str = "s3cr3t-path";

fn url(hook: &Webhook) -> String {
    format!("webhook = \"http://127.0.0.1:{}/hooks/{SECRET}?token=hushhush\"\n", hook.port)
}

/// A CA that nobody answers for: every attempt fails.
fn without_ca(bed: &Bed, notify: &str) -> Setup {
    let directory = format!("https://127.0.0.1:{}/directory", bed.port());
    let pki = Pki::new(bed.dir(), "ca", &["127.0.0.1"]);
    Setup::new(bed, &directory, &pki.root).certificate(&[NAME]).tables(&format!("[notify]\n{notify}"))
}

fn embedded(bed: &Bed, notify: &str) -> Setup {
    Setup::embedded(bed).certificate(&[NAME]).tables(&format!("[notify]\n{notify}"))
}

/// A certificate with that many days behind and before it, stored as the next version.
fn store(setup: &Setup, behind: u32, before: u32) -> Certificate {
    let now: SystemTime = clock::now();
    let mut params = rcgen::CertificateParams::new(vec![NAME.to_owned()]).unwrap();
    params.not_before = (now - DAY * behind).into();
    params.not_after = (now + DAY * before).into();
    let key = rcgen::KeyPair::generate().unwrap();
    let made = params.self_signed(&key).unwrap();
    let certificate = Certificate::stored(&made.pem(), &key.serialize_pem()).unwrap();
    Store::open(&setup.state).unwrap().save(NAME, &certificate.clone().into()).unwrap();
    certificate
}

fn assert_secret(text: &str) {
    for secret in [SECRET, "hushhush", "swordfish"] {
        assert!(!text.contains(secret), "{secret} is in {text}");
    }
}

#[test]
fn a_test_notice_arrives_on_every_way() {
    needs!("aiosmtpd");
    let bed = Bed::new();
    let pki = Pki::new(bed.dir(), "mail", &["localhost", "127.0.0.1"]);
    let server = MailServer::start(&bed, "starttls", Some(&pki), Some(("gate", "swordfish")));
    let hook = Webhook::start(&bed, &[OK]);
    let given = bed.path("given");
    let command =
        bed.script("page", &format!("cat > {0}.new && env >> {0}.env && mv {0}.new {0}", given.display()));
    let password = bed.write("password", "swordfish\n");
    crate::bed::set_mode(&password, 0o600);
    let setup = embedded(
        &bed,
        &format!(
            "{}command = [{command:?}]\n[notify.mail]\nto = [\"ops@example.net\", \"nobody@example.net\"]\n\
             from = \"gate@example.net\"\nsmtp = \"smtp://127.0.0.1:{}\"\nuser = \"gate\"\n\
             password-file = {password:?}\nroots = {:?}\n",
            url(&hook),
            server.port,
            pki.root
        ),
    );
    // One of two recipients is refused: that is said, and the other one has the mail.
    let ran = setup.command(&bed, &["notify", "--test"]).expect_code(1);
    assert_secret(&ran.text());
    for line in [
        format!("command ({}): taken\n", command.display()),
        format!("webhook (http://127.0.0.1:{}): taken\n", hook.port),
        format!("mail (smtp://127.0.0.1:{}): taken\n", server.port),
        "refused the recipient nobody@example.net: 550 no such user here".to_owned(),
    ] {
        assert!(ran.stdout.contains(&line), "{line} is not in {}", ran.stdout);
    }
    let mail = server.mail();
    assert!(mail.starts_with("ops@example.net\n"), "{mail}");
    assert!(mail.contains("Auto-Submitted: auto-generated") && mail.contains("Subject: "), "{mail}");
    let document = hook.documents().remove(0);
    let from_command: Value = serde_json::from_str(&fs::read_to_string(&given).unwrap()).unwrap();
    assert_eq!(document, from_command);
    assert_eq!((&document["version"], &document["kind"]), (&Value::from(1), &Value::from("test")));
    assert!(document["text"].as_str().unwrap().contains("this is a test"));
    assert!(document["host"].is_string() && document["id"].is_string());
    let request = &hook.requests()[0];
    assert!(request.starts_with(&format!("POST /hooks/{SECRET}?token=hushhush HTTP/1.1\r\n")), "{request}");
    assert!(request.contains("content-type: application/json\r\n"), "{request}");
    let environment = fs::read_to_string(bed.path("given.env")).unwrap();
    assert!(environment.contains("LC_ALL=C") && !environment.contains("CARGO"), "{environment}");
    // It leaves nothing behind.
    assert!(!setup.state.join("outbox.json").exists());
}

#[test]
fn a_test_without_anybody_to_tell_is_a_matter_of_the_configuration() {
    let bed = Bed::new();
    let ran = embedded(&bed, "").command(&bed, &["notify", "--test"]).expect_code(78);
    assert!(ran.stderr.contains("there is nobody to tell"), "{}", ran.stderr);
    embedded(&bed, "").command(&bed, &["notify"]).expect_code(2);
}

#[test]
fn what_a_webhook_does_instead_is_said_without_its_secret() {
    let bed = Bed::new();
    for (replies, told) in [
        (&[TROUBLE][..], "answered 500 Internal Server Error, saying: no disk; it has trouble of its own"),
        (
            &[Reply::Bytes(
                "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/s3cr3t-path\r\ncontent-length: 0\r\n\r\n",
            )],
            "answered 302, which leads elsewhere",
        ),
        (
            &[Reply::Bytes(
                "HTTP/1.1 404 Not Found\r\ncontent-length: 30\r\n\r\nCannot POST /hooks/s3cr3t-path",
            )],
            "answered 404 Not Found; does the webhook still exist",
        ),
        (
            &[Reply::Endless("HTTP/1.1 403 Forbidden\r\nx: y\r\n\r\nword word word\r\n")],
            "answered 403 Forbidden, saying: word word word",
        ),
        (&[Reply::Endless("HTTP/1.1 200 OK\r\nx: y\r\n")], "cannot reach http://127.0.0.1:"),
        (&[Reply::Bytes("SSH-2.0-OpenSSH\r\n")], "cannot reach http://127.0.0.1:"),
        (&[Reply::Silence], "within 15 s"),
    ] {
        let hook = Webhook::start(&bed, replies);
        let ran = embedded(&bed, &url(&hook)).command(&bed, &["notify", "--test"]).expect_code(1);
        assert!(
            ran.stdout.contains("NOT taken") && ran.stdout.contains(told),
            "{told} is not in {}",
            ran.stdout
        );
        assert_secret(&ran.text());
    }
    // A success is one, however long it goes on.
    let hook = Webhook::start(&bed, &[Reply::Endless("HTTP/1.1 204 No Content\r\n\r\n")]);
    embedded(&bed, &url(&hook)).command(&bed, &["notify", "--test"]).expect_code(0);
    let hook = Webhook::start(&bed, &[Reply::Endless("HTTP/1.1 200 OK\r\nx: y\r\n\r\nand so on")]);
    embedded(&bed, &url(&hook)).command(&bed, &["notify", "--test"]).expect_code(0);
}

#[test]
fn what_a_command_does_instead_is_said() {
    let bed = Bed::new();
    for (body, told) in [
        ("echo out of paper >&2; exit 3", "failed (exit status: 3), saying: out of paper"),
        (
            "yes | head -c 3000000; yes x | head -c 3000000 >&2; exit 1",
            "failed (exit status: 1), saying: x; x;",
        ),
        ("kill -9 $$", "failed (signal: 9 (SIGKILL))"),
    ] {
        let command = bed.script("page", body);
        let setup = embedded(&bed, &format!("command = [{command:?}, \"swordfish\"]\n"));
        let ran = setup.command(&bed, &["notify", "--test"]).expect_code(1);
        assert!(ran.stdout.contains(told) && ran.stdout.len() < 3000, "{told} is not in {}", ran.stdout);
        assert_secret(&ran.text());
    }
    let ran = embedded(&bed, "command = [\"/no/such/program\"]\n").command(&bed, &["notify", "--test"]);
    assert!(ran.expect_code(1).stdout.contains("is /no/such/program installed"));
}

#[test]
fn mail_goes_out_as_the_server_is_protected_and_not_otherwise() {
    needs!("aiosmtpd");
    let bed = Bed::new();
    let pki = Pki::new(bed.dir(), "mail", &["localhost", "127.0.0.1"]);
    let other = Pki::new(bed.dir(), "other", &["elsewhere.example"]);
    for (name, content) in [("right", "swordfish"), ("wrong", "swordfish2")] {
        crate::bed::set_mode(&bed.write(name, content), 0o600);
    }
    let login = Some(("gate", "swordfish"));
    let plain = MailServer::start(&bed, "plain", None, None);
    let starttls = MailServer::start(&bed, "starttls", Some(&pki), login);
    let tls = MailServer::start(&bed, "tls", Some(&pki), login);
    let send = |scheme: &str, server: &MailServer, more: &str, to: &str| {
        let notify = format!(
            "[notify.mail]\nto = {to:?}\nfrom = \"gate@example.net\"\nsmtp = \"{scheme}://127.0.0.1:{}\"\n{more}",
            server.port
        );
        embedded(&bed, &notify).command(&bed, &["notify", "--test"])
    };
    let ops = "ops@example.net";
    let user = |password: &str, pki: &Pki| {
        format!("user = \"gate\"\npassword-file = {:?}\nroots = {:?}\n", bed.path(password), pki.root)
    };
    send("smtp+plain", &plain, "", ops).expect_code(0);
    send("smtp", &starttls, &user("right", &pki), ops).expect_code(0);
    send("smtps", &tls, &user("right", &pki), ops).expect_code(0);
    for server in [&plain, &starttls, &tls] {
        assert!(server.mail().starts_with("ops@example.net\n"));
    }
    for (scheme, server, more, to, told) in [
        ("smtp", &plain, String::new(), ops, "offers no STARTTLS, so nothing was sent"),
        (
            "smtp+plain",
            &plain,
            String::new(),
            "nobody@example.net",
            "refused the recipient nobody@example.net: 550",
        ),
        ("smtp", &starttls, user("wrong", &pki), ops, "did not accept the login: 535"),
        ("smtps", &tls, user("wrong", &pki), ops, "did not accept the login: 535"),
        (
            "smtp",
            &starttls,
            user("right", &other),
            ops,
            "put the root it comes from into `notify.mail.roots`",
        ),
        ("smtps", &tls, user("right", &other), ops, "put the root it comes from into `notify.mail.roots`"),
        ("smtps", &plain, user("right", &pki), ops, "does it speak TLS there"),
        ("smtp", &starttls, format!("roots = {:?}\n", pki.root), ops, "it may want a login"),
    ] {
        let ran = send(scheme, server, &more, to).expect_code(1);
        assert!(ran.stdout.contains(told), "{told} is not in {}", ran.stdout);
        assert_secret(&ran.text());
    }
    for server in [&plain, &starttls, &tls] {
        assert_eq!(server.mails().len(), 1);
    }
    drop(plain);
    let gone = MailServer::start(&bed, "plain", None, None);
    let port = gone.port;
    drop(gone);
    let notify = format!(
        "[notify.mail]\nto = \"{ops}\"\nfrom = \"gate@example.net\"\nsmtp = \"smtp+plain://localhost:{port}\"\n"
    );
    let ran = embedded(&bed, &notify).command(&bed, &["notify", "--test"]).expect_code(1);
    assert!(ran.stdout.contains(&format!("cannot reach the mail server localhost:{port}")), "{}", ran.stdout);
}

#[test]
fn a_notice_that_was_not_taken_goes_out_after_a_restart_and_only_once() {
    let bed = Bed::new();
    let hook = Webhook::start(&bed, &[TROUBLE, OK]);
    let setup = without_ca(&bed, &url(&hook)).without_front();
    let ran = setup.renew(&bed).expect_code(1);
    assert_secret(&ran.text());
    assert!(ran.stderr.contains("a notice was not taken by webhook"), "{}", ran.stderr);
    let id = hook.documents()[0]["id"].clone();
    assert_eq!(hook.documents().len(), 1);
    // The next runs find it on disk, and take it up when its time has come.
    until("the notice is delivered", || {
        setup.renew(&bed).expect_code(75);
        (hook.documents().len() == 2).then_some(())
    });
    let document = hook.documents().remove(1);
    assert_eq!((&document["id"], &document["kind"]), (&id, &Value::from("attempt-failed")));
    assert_eq!(document["certificate"], NAME);
    assert!(
        document["details"]["retry-at"].is_string()
            && document["text"].as_str().unwrap().contains("cannot reach")
    );
    // The same failure again is within the quiet period, over restarts.
    setup.command(&bed, &["renew", "--force"]).expect_code(1);
    setup.command(&bed, &["renew", "--force"]).expect_code(1);
    assert_eq!(hook.documents().len(), 2);
    let kept = fs::read_to_string(setup.state.join("outbox.json")).unwrap();
    assert_secret(&kept);
}

#[test]
fn what_is_obtained_ends_the_quiet_of_its_failures() {
    let bed = Bed::new();
    let hook = Webhook::start(&bed, &[OK]);
    let broken = without_ca(&bed, &url(&hook)).without_front();
    let mut whole = embedded(&bed, &url(&hook)).without_front();
    whole.gate = broken.gate;
    broken.renew(&bed).expect_code(1);
    broken.command(&bed, &["renew", "--force"]).expect_code(1);
    assert_eq!(hook.count("attempt-failed"), 1);
    whole.command(&bed, &["renew", "--force"]).expect_code(0);
    assert_eq!((hook.count("obtained"), hook.count("renewed")), (1, 0));
    whole.command(&bed, &["renew", "--force"]).expect_code(0);
    assert_eq!((hook.count("obtained"), hook.count("renewed")), (1, 1));
    broken.command(&bed, &["renew", "--force"]).expect_code(1);
    assert_eq!(hook.count("attempt-failed"), 2, "a new failure was not told");
}

#[test]
fn a_way_that_hangs_holds_up_neither_the_others_nor_the_renewals() {
    needs!("openssl");
    let bed = Bed::new();
    let hook = Webhook::start(&bed, &[OK]);
    let go_on = bed.path("go-on");
    let command = bed.script("page", &format!("cat; until [ -e {} ]; do sleep 0.05; done", go_on.display()));
    let setup = embedded(&bed, &format!("command = [{command:?}]\n{}", url(&hook)));
    let (mut daemon, first) = setup.start_until_served(&bed, NAME);
    until("the webhook has it", || (hook.count("obtained") == 1).then_some(()));
    setup.command(&bed, &["renew", "--force"]).expect_code(0);
    assert_ne!(setup.wait_until_served(NAME), first);
    until("the webhook has the second one too", || (hook.count("renewed") == 1).then_some(()));
    assert!(!daemon.process.lines().iter().any(|line| line.contains("taken by command")));
    fs::write(&go_on, "").unwrap();
    daemon.process.wait_for_line("a notice was taken by command");
    daemon.stop();
    assert_secret(&daemon.process.lines().join("\n"));
}

#[test]
fn a_reload_takes_new_ways() {
    needs!("openssl");
    let bed = Bed::new();
    let hook = Webhook::start(&bed, &[OK]);
    let mut setup = embedded(&bed, "");
    // The webhook's port is a new one, and a sandbox would not have it.
    setup.top = "sandbox = \"off\"\n".to_owned();
    let (_daemon, _) = setup.start_until_served(&bed, NAME);
    assert!(!setup.state.join("outbox.json").exists(), "where nobody is told nothing is kept");
    let given = bed.path("given");
    let command = bed.script("page", &format!("cat > {0}.new && mv {0}.new {0}", given.display()));
    setup.more = format!("[notify]\ncommand = [{command:?}]\n{}", url(&hook));
    setup.command(&bed, &["reload"]).expect_code(0);
    setup.command(&bed, &["renew", "--force"]).expect_code(0);
    until("both have it", || (hook.count("renewed") == 1 && given.exists()).then_some(()));
}

#[test]
fn the_end_of_a_certificate_is_told_by_stages() {
    let bed = Bed::new();
    let hook = Webhook::start(&bed, &[OK]);
    let setup = without_ca(&bed, &url(&hook)).without_front();
    for (behind, before, kind, count) in [
        (50, 50, "expiring", 0),
        (80, 20, "expiring", 1),
        (95, 5, "expiring", 2),
        (99, 1, "expiring", 3),
        (90, 0, "expired", 1),
    ] {
        store(&setup, behind, before);
        for _ in 0..2 {
            // Whatever comes of the renewal, the end is looked at.
            setup.renew(&bed);
        }
        assert_eq!(hook.count(kind), count, "{behind} {before}");
    }
    let documents = hook.documents();
    let last = documents.last().unwrap();
    assert!(
        last["text"].as_str().unwrap().contains("attempts to renew it that failed in a row: 1"),
        "{last}"
    );
    // A new one ends it all, and its end is told afresh.
    store(&setup, 1, 90);
    setup.renew(&bed);
    store(&setup, 80, 20);
    setup.renew(&bed);
    assert_eq!(hook.count("expiring"), 4);
}

#[test]
fn a_daemon_tells_of_an_end_and_of_a_front_that_lags_behind() {
    needs!("openssl");
    let bed = Bed::new();
    let hook = Webhook::start(&bed, &[OK]);
    let setup = without_ca(&bed, &url(&hook));
    let old = store(&setup, 80, 20);
    let (mut daemon, _) = setup.start_until_served(&bed, NAME);
    let new = store(&setup, 80, 25);
    let patience = Duration::from_secs(60);
    until_within(patience, "the end is told", || (hook.count("expiring") == 1).then_some(()));
    until_within(patience, "the front is told of", || (hook.count("deploy-failed") == 1).then_some(()));
    let documents = hook.documents();
    let told = documents.iter().find(|document| document["kind"] == "deploy-failed").unwrap();
    assert_eq!(told["details"]["serial-served"], old.serial());
    assert_eq!(told["details"]["serial-stored"], new.serial());
    daemon.stop();
}
