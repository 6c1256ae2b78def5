//! Certificates that somebody else obtains, as certbot keeps them: `live/NAME/fullchain.pem` leads to a numbered file in
//! `archive`, and a renewal moves one link after the other.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use std::time::{Duration, SystemTime};

use serde_json::Value;
use wicketgate::clock;

use crate::bed::client::{get, served_leaf};
use crate::bed::pki::{Pki, Seen, read_chain_file};
use crate::bed::process::run;
use crate::bed::webhook::{OK, Webhook};
use crate::bed::wicketgate::{Daemon, Setup, command};
use crate::bed::{Bed, needs, set_mode, until};

const OWN: &str = "own.example.test";
const FOREIGN: [&str; 2] = ["www.example.test", "api.example.test"];

struct Certbot {
    root: PathBuf,
}

impl Certbot {
    fn new(bed: &Bed) -> Self {
        let root = bed.path("letsencrypt");
        for folder in ["live/shop", "archive/shop"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        Self { root }
    }

    /// Puts a certificate into the archive.
    fn archive(&self, bed: &Bed, version: usize) -> Seen {
        let pki = Pki::new(bed.dir(), &format!("v{version}"), &FOREIGN);
        for (from, name) in [(&pki.chain, "fullchain"), (&pki.key, "privkey")] {
            fs::copy(from, self.root.join(format!("archive/shop/{name}{version}.pem"))).unwrap();
        }
        read_chain_file(&pki.chain)[0].clone()
    }

    fn link(&self, name: &str, version: usize) {
        let link = self.path(name);
        let _ = fs::remove_file(&link);
        symlink(format!("../../archive/shop/{name}{version}.pem"), link).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(format!("live/shop/{name}.pem"))
    }
}

fn setup(bed: &Bed, certbot: &Certbot) -> Setup {
    let (chain, key) = (certbot.path("fullchain"), certbot.path("privkey"));
    Setup::embedded(bed)
        .certificate(&[OWN])
        .upstream("demo")
        .tables(&format!("[[certificate]]\nfiles = {{ fullchain = {chain:?}, key = {key:?} }}\n"))
}

fn redirect(setup: &Setup, host: &str) -> u16 {
    get(setup.gate, host, "/").unwrap().status
}

#[test]
fn they_are_served_and_followed() {
    needs!("openssl");
    let bed = Bed::new();
    set_mode(bed.dir(), 0o755);
    let certbot = Certbot::new(&bed);
    let first = certbot.archive(&bed, 1);
    certbot.link("fullchain", 1);
    certbot.link("privkey", 1);
    let setup = setup(&bed, &certbot);
    let (daemon, _) = setup.start_until_served(&bed, OWN);
    let served = |name: &str| served_leaf(setup.front, name);
    for name in FOREIGN {
        assert_eq!(served(name), Some(first.clone()), "{name}");
        assert_eq!(redirect(&setup, name), 308, "{name}");
    }
    assert_eq!(redirect(&setup, "other.example.test"), 421);

    // A renewal that is interrupted between its two links: the pair does not fit.
    let second = certbot.archive(&bed, 2);
    let said = daemon.process.lines().len();
    certbot.link("fullchain", 2);
    daemon.process.wait_for_line_after(said, "what was served before is served on");
    assert_eq!(served(FOREIGN[0]), Some(first.clone()));
    certbot.link("privkey", 2);
    until("the new pair is served", || (served(FOREIGN[0]) == Some(second.clone())).then_some(()));

    // Half a file, then none, then a good one.
    let said = daemon.process.lines().len();
    let whole = fs::read(certbot.path("fullchain")).unwrap();
    let archived = certbot.root.join("archive/shop/fullchain2.pem");
    fs::write(&archived, &whole[..whole.len() / 2]).unwrap();
    daemon.process.wait_for_line_after(said, "cannot be served");
    fs::write(&archived, &whole[..whole.len() - 60]).unwrap();
    daemon.process.wait_for_line_after(said, "breaks off in the middle");
    fs::remove_file(&archived).unwrap();
    daemon.process.wait_for_line_after(said, "No such file or directory");
    assert_eq!(served(FOREIGN[1]), Some(second.clone()));
    let third = certbot.archive(&bed, 3);
    certbot.link("privkey", 3);
    certbot.link("fullchain", 3);
    until("the third pair is served", || (served(FOREIGN[1]) == Some(third.clone())).then_some(()));
    // What is told is told once, and a renewal in one go is no trouble at all.
    let lines = daemon.process.lines();
    let troubles = lines.iter().filter(|line| line.contains("cannot be served")).count();
    assert!((4..=5).contains(&troubles), "{lines:#?}");
}

#[test]
fn a_reload_adds_and_removes_them() {
    needs!("openssl");
    let bed = Bed::new();
    let certbot = Certbot::new(&bed);
    let first = certbot.archive(&bed, 1);
    certbot.link("fullchain", 1);
    certbot.link("privkey", 1);
    let with = setup(&bed, &certbot);
    let (daemon, _) = with.start_until_served(&bed, OWN);
    assert_eq!(served_leaf(with.front, FOREIGN[0]), Some(first.clone()));
    let text = with.text();
    let without = text.split("[[certificate]]\nfiles").next().unwrap();
    bed.write("wicketgate.toml", without);
    let reload = || run(command(&bed.path("wicketgate.toml")).arg("reload")).expect_code(0);
    reload();
    assert_eq!(served_leaf(with.front, FOREIGN[0]), None);
    bed.write("wicketgate.toml", &text);
    reload();
    assert_eq!(served_leaf(with.front, FOREIGN[0]), Some(first));
    drop(daemon);
}

/// `cert.pem` in the place of `fullchain.pem`.
#[test]
fn a_leaf_without_its_chain_is_told() {
    needs!("openssl");
    let bed = Bed::new();
    let certbot = Certbot::new(&bed);
    certbot.archive(&bed, 1);
    certbot.link("fullchain", 1);
    certbot.link("privkey", 1);
    let whole = fs::read_to_string(certbot.path("fullchain")).unwrap();
    let end = whole.find("-----END CERTIFICATE-----").unwrap() + "-----END CERTIFICATE-----\n".len();
    fs::write(certbot.path("fullchain"), &whole[..end]).unwrap();
    let setup = setup(&bed, &certbot);
    let (daemon, _) = setup.start_until_served(&bed, OWN);
    daemon.process.wait_for_line("is it `cert.pem` in the place of `fullchain.pem`");
    assert!(served_leaf(setup.front, FOREIGN[0]).is_some());
}

/// They need no CA, and nothing is obtained.
#[test]
fn they_may_be_all_there_is() {
    needs!("openssl");
    let bed = Bed::new();
    let certbot = Certbot::new(&bed);
    certbot.archive(&bed, 1);
    certbot.link("fullchain", 1);
    certbot.link("privkey", 1);
    let setup = setup(&bed, &certbot);
    let text = setup.text().replace(&format!("[[certificate]]\nhostnames = [{OWN:?}]"), "");
    assert!(!text.contains(OWN), "{text}");
    let config = bed.write("wicketgate.toml", text);
    let daemon = Daemon::start(&config);
    daemon.process.wait_for_line("serves the certificate of");
    until("it is served", || served_leaf(setup.front, FOREIGN[0]));
    daemon.process.wait_for_line("ready: ");
    assert!(!daemon.process.lines().iter().any(|line| line.contains(" WARN ") || line.contains("ERROR")));
}

const DAY: Duration = Duration::from_secs(86_400);

/// A pair with that many days behind and before it.
fn write_pair(certbot: &Certbot, version: usize, behind: u32, before: u32) {
    let now: SystemTime = clock::now();
    let mut params = rcgen::CertificateParams::new(FOREIGN.map(str::to_owned)).unwrap();
    params.not_before = (now - DAY * behind).into();
    params.not_after = (now + DAY * before).into();
    let key = rcgen::KeyPair::generate().unwrap();
    let made = params.self_signed(&key).unwrap();
    for (name, text) in [("fullchain", made.pem()), ("privkey", key.serialize_pem())] {
        fs::write(certbot.root.join(format!("archive/shop/{name}{version}.pem")), text).unwrap();
    }
    certbot.link("privkey", version);
    certbot.link("fullchain", version);
}

fn status(setup: &Setup, bed: &Bed) -> Value {
    let told = setup.command(bed, &["status", "--json"]).expect_code(0).stdout;
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["from-files"].as_array().unwrap().len(), 1, "{told}");
    told["from-files"][0].clone()
}

#[test]
fn status_page_and_metrics_have_them() {
    needs!("openssl");
    let bed = Bed::new();
    let certbot = Certbot::new(&bed);
    let first = certbot.archive(&bed, 1);
    certbot.link("fullchain", 1);
    certbot.link("privkey", 1);
    let page = bed.port();
    let mut setup = setup(&bed, &certbot);
    // The admin socket's table is the last one above them.
    setup.certificates.insert_str(0, &format!("listen = \"127.0.0.1:{page}\"\n"));
    let (chain, key) = (certbot.path("fullchain"), certbot.path("privkey"));

    // From disk, while no daemon runs.
    let told = status(&setup, &bed);
    assert_eq!((&told["name"], &told["served"]), (&"shop".into(), &false.into()), "{told}");
    let serial = first.serial.replace(':', "");
    assert_eq!(told["serial"], *serial);

    let (daemon, _) = setup.start_until_served(&bed, OWN);
    daemon.process.wait_for_line("ready: ");
    let told = status(&setup, &bed);
    assert_eq!((&told["served"], &told["trouble"]), (&true.into(), &Value::Null), "{told}");
    assert_eq!(told["fullchain"].as_str().unwrap(), chain.to_str().unwrap());
    let mut names: Vec<_> =
        told["identifiers"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["api.example.test", "www.example.test"]);
    let text = setup.command(&bed, &["status"]).expect_code(0).stdout;
    for line in [
        "\nshop (from files; somebody else renews it)\n".to_owned(),
        format!("  files     {}, {}\n", chain.display(), key.display()),
        "  valid     until ".to_owned(),
        "  served    by the TLS front\n".to_owned(),
    ] {
        assert!(text.contains(&line), "{line}: {text}");
    }
    let shown = |path: &str| {
        let answer = get(page, "localhost", path).unwrap();
        (answer.status, String::from_utf8(answer.body).unwrap())
    };
    let end: jiff::Timestamp = told["not-after"].as_str().unwrap().parse().unwrap();
    let (_, metrics) = shown("/metrics");
    let line =
        format!("wicketgate_certificate_not_after_seconds{{certificate=\"shop\"}} {}", end.as_second());
    assert!(metrics.contains(&line), "{line}: {metrics}");
    assert!(metrics.contains("wicketgate_certificate_files_unusable{certificate=\"shop\"} 0"), "{metrics}");
    assert!(shown("/").1.contains("Somebody else renews it, in "));
    until("it is ready", || (shown("/readyz").0 == 200).then_some(()));

    // What was served before is, and it is said why.
    fs::write(certbot.root.join("archive/shop/privkey1.pem"), "no key").unwrap();
    until("the trouble is told", || status(&setup, &bed)["trouble"].as_str().map(str::to_owned));
    let told = status(&setup, &bed);
    assert_eq!((&told["served"], &told["serial"]), (&true.into(), &(*serial).into()));
    let text = setup.command(&bed, &["status"]).expect_code(0).stdout;
    assert!(text.contains("  NOT TAKEN "), "{text}");
    let (_, metrics) = shown("/metrics");
    assert!(metrics.contains("wicketgate_certificate_files_unusable{certificate=\"shop\"} 1"), "{metrics}");
    assert!(shown("/").1.contains("What is in the files now cannot be served"));
}

/// Whoever renews it has not.
#[test]
fn their_end_is_watched() {
    needs!("openssl");
    let bed = Bed::new();
    let certbot = Certbot::new(&bed);
    write_pair(&certbot, 1, 85, 5);
    let hook = Webhook::start(&bed, &[OK]);
    let setup =
        setup(&bed, &certbot).tables(&format!("[notify]\nwebhook = \"http://127.0.0.1:{}/\"\n", hook.port));
    let (daemon, _) = setup.start_until_served(&bed, OWN);
    let told = daemon.process.wait_for_line("whoever renews it has not yet");
    assert!(told.contains(" WARN ") && told.contains("expires in 4 days"), "{told}");
    let expiring = |cause: &str| {
        until("the notice has come", || {
            hook.documents()
                .into_iter()
                .find(|one| one["certificate"] == "shop" && one["summary"].as_str().unwrap().contains(cause))
        })
    };
    let notice = expiring("the certificate shop (from files) expires in 4 days");
    assert_eq!(notice["kind"], "expiring", "{notice}");
    let text = notice["text"].as_str().unwrap();
    assert!(text.contains("it is not renewed here") && text.contains("and no newer one is there"), "{text}");
    let mut names: Vec<_> = notice["identifiers"].as_array().unwrap().clone();
    names.sort_by_key(ToString::to_string);
    assert_eq!(names, ["api.example.test", "www.example.test"]);

    // A good one ends it, and the next one that ends is told again.
    let said = daemon.process.lines().len();
    write_pair(&certbot, 2, 1, 89);
    daemon.process.wait_for_line_after(said, "serves the certificate of");
    write_pair(&certbot, 3, 90, 0);
    let told = daemon.process.wait_for_line_after(said, "has ENDED");
    assert!(told.contains("ERROR"), "{told}");
    // Without a daemon it is the files that are looked at.
    drop(daemon);
    setup.command(&bed, &["renew"]).expect_code(0);
    assert_eq!(expiring("the certificate shop (from files) has expired")["kind"], "expired");
}
