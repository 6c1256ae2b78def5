//! Certificates that somebody else obtains, as certbot keeps them: `live/NAME/fullchain.pem` leads to a numbered file in
//! `archive`, and a renewal moves one link after the other.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use crate::bed::client::{get, served_leaf};
use crate::bed::pki::{Pki, Seen, read_chain_file};
use crate::bed::process::run;
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
