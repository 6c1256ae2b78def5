//! Taking over from certbot: Debian's certbot obtains from Pebble, and wicketgate goes on where it stopped.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use wicketgate::config::{Config, Flags};

use crate::bed::pebble::{Mood, Pebble};
use crate::bed::pki::{Pki, read_chain_file};
use crate::bed::process::{Ran, run, run_within};
use crate::bed::wicketgate::{PROGRAM, clean, command, walk};
use crate::bed::{Bed, needs, set_mode};

/// Path, mode, time of the last change, and bytes or target.
type Entry = (PathBuf, u32, (i64, i64), Vec<u8>);

/// Everything that can be seen of a folder.
fn snapshot(folder: &Path) -> Vec<Entry> {
    let mut entries: Vec<Entry> = walk(folder)
        .into_iter()
        .map(|path| {
            let meta = path.symlink_metadata().unwrap();
            let content = match meta.file_type() {
                kind if kind.is_symlink() => {
                    fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
                }
                kind if kind.is_file() => fs::read(&path).unwrap(),
                _ => Vec::new(),
            };
            (path, meta.mode(), (meta.mtime(), meta.mtime_nsec()), content)
        })
        .collect();
    entries.sort();
    assert!(entries.len() > 1, "there is nothing in {}", folder.display());
    entries
}

/// certbot with everything of its own in the bed.
struct Certbot<'a> {
    bed: &'a Bed,
    pebble: &'a Pebble,
    gate: u16,
}

impl Certbot<'_> {
    fn folder(&self) -> PathBuf {
        self.bed.path("letsencrypt")
    }

    #[track_caller]
    fn run(&self, arguments: &[&str]) -> Ran {
        let mut certbot = Command::new("certbot");
        clean(&mut certbot);
        certbot
            .env("REQUESTS_CA_BUNDLE", self.pebble.api_root())
            .env("HOME", self.bed.dir())
            .args(arguments)
            .args(["--non-interactive", "--agree-tos", "--email", "ops@example.test", "--no-eff-email"])
            .args(["--server", &self.pebble.directory()])
            .args(["--http-01-port", &self.gate.to_string()])
            .arg("--config-dir")
            .arg(self.folder())
            .arg("--work-dir")
            .arg(self.bed.path("certbot-work"))
            .arg("--logs-dir")
            .arg(self.bed.path("certbot-logs"));
        run_within(Duration::from_secs(120), &mut certbot).expect_code(0)
    }

    #[track_caller]
    fn obtain(&self, more: &[&str]) {
        self.run(&[&["certonly", "--standalone"], more].concat());
    }
}

/// `wicketgate import certbot FOLDER` with a configuration and a state directory of the bed's.
struct Import<'a> {
    bed: &'a Bed,
    folder: PathBuf,
    more: Vec<String>,
}

impl<'a> Import<'a> {
    fn new(bed: &'a Bed, folder: PathBuf) -> Self {
        Self { bed, folder, more: Vec::new() }
    }

    fn with(mut self, arguments: &[&str]) -> Self {
        self.more.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }

    fn config(&self) -> PathBuf {
        self.bed.path("wicketgate.toml")
    }

    fn state(&self) -> PathBuf {
        self.bed.path("state")
    }

    fn live(&self, name: &str) -> PathBuf {
        self.state().join("live").join(name)
    }

    fn command(&self) -> Command {
        let mut import = command(&self.config());
        import.args(["import", "certbot"]).arg(&self.folder).arg("--state-dir").arg(self.state());
        import.arg("--admin-socket").arg(self.bed.path("admin.sock")).args(&self.more);
        import
    }

    /// Runs it, and sees that nothing has changed in the folder.
    #[track_caller]
    fn run(&self) -> Ran {
        let before = snapshot(&self.folder);
        let ran = run(&mut self.command());
        assert!(snapshot(&self.folder) == before, "certbot's folder is not what it was");
        ran
    }

    #[track_caller]
    fn wicketgate(&self, arguments: &[&str]) -> Ran {
        let mut wicketgate = command(&self.config());
        wicketgate.arg("--admin-socket").arg(self.bed.path("admin.sock")).args(arguments);
        run_within(Duration::from_secs(60), &mut wicketgate)
    }

    #[track_caller]
    fn loaded(&self) -> Config {
        Config::load(Some(&self.config()), [], &Flags::default()).unwrap()
    }
}

#[test]
fn certbots_account_and_certificates_go_on() {
    needs!("pebble", "curl", "certbot");
    let bed = Bed::new();
    let gate = bed.port();
    let pebble = Pebble::start(&bed, Mood::Kind, gate);
    let certbot = Certbot { bed: &bed, pebble: &pebble, gate };
    certbot.obtain(&["-d", "a.example.test", "-d", "www.a.example.test", "--deploy-hook", "true 'x, y' # z"]);
    certbot.obtain(&["-d", "rsa.example.test", "--key-type", "rsa", "--rsa-key-size", "3072"]);
    assert_eq!((pebble.accounts(), pebble.orders()), (1, 2));

    let import = Import::new(&bed, certbot.folder()).with(&["--roots", pebble.api_root().to_str().unwrap()]);
    let ran = import.run().expect_code(0);
    for says in [
        "(RSA key)",
        "a.example.test: imported; a.example.test, www.a.example.test; ecdsa-p256; valid until ",
        "rsa.example.test: imported; rsa.example.test; rsa-3072; valid until ",
        "`renew_hook = true …`: where it reloads nginx, ",
        "certbot.timer",
    ] {
        assert!(ran.stdout.contains(says), "{says} is not in\n{}", ran.stdout);
    }
    assert_eq!(ran.stderr, "");

    // What was written is right, and leaves nothing to be ordered.
    let config = import.loaded();
    assert_eq!(config.warnings, [""; 0]);
    assert_eq!(config.gate.listen, [format!("[::]:{gate}").parse().unwrap()]);
    assert!(config.acme.terms_agreed);
    for name in ["a.example.test", "rsa.example.test"] {
        for file in ["cert.pem", "chain.pem", "fullchain.pem"] {
            let of_certbot = read_chain_file(&certbot.folder().join("live").join(name).join(file));
            assert_eq!(read_chain_file(&import.live(name).join(file)), of_certbot, "{name}/{file}");
        }
    }
    let account = import.state().join("accounts").join(config.acme.issuer.name()).join("account.json");
    assert_eq!(fs::metadata(&account).unwrap().mode() & 0o777, 0o600);
    import.wicketgate(&["renew"]).expect_code(0);
    assert_eq!(pebble.orders(), 2, "something was ordered before it was due");

    // Once more is harmless.
    let (config_before, state_before) = (snapshot_of_file(&import.config()), snapshot(&import.state()));
    let again = import.run().expect_code(0);
    assert!(again.stdout.contains("a.example.test: here already"), "{}", again.stdout);
    assert!(again.stdout.contains("already, word for word"), "{}", again.stdout);
    assert_eq!(snapshot_of_file(&import.config()), config_before);
    let without_lock = |entries: Vec<Entry>| -> Vec<Entry> {
        entries.into_iter().filter(|(path, ..)| !path.ends_with("lock")).collect()
    };
    assert!(without_lock(snapshot(&import.state())) == without_lock(state_before), "the state has changed");

    // The imported account orders, for a name too that has to be proven with its key.
    let kept = fs::read(&account).unwrap();
    import.wicketgate(&["renew", "--force"]).expect_code(0);
    let more = "\n[[certificate]]\nhostnames = [\"new.example.test\"]\n";
    let text = fs::read_to_string(import.config()).unwrap() + more;
    fs::write(import.config(), text).unwrap();
    import.wicketgate(&["renew"]).expect_code(0);
    assert_eq!((pebble.accounts(), pebble.orders()), (1, 5), "the CA saw a registration");
    assert_eq!(fs::read(&account).unwrap(), kept);
    assert_eq!(read_chain_file(&import.live("rsa.example.test").join("cert.pem"))[0].key, "rsa 3072");
    assert_eq!(
        read_chain_file(&import.live("new.example.test").join("cert.pem"))[0].names,
        ["new.example.test"]
    );

    // What is newer here stays, and a configuration that was changed is not written over.
    let changed = snapshot_of_file(&import.config());
    let live = fs::read_link(import.live("a.example.test")).unwrap();
    let third = import.run().expect_code(0);
    assert!(third.stdout.contains("left, since version 2 here is newer"), "{}", third.stdout);
    assert!(
        third.stdout.contains("written to ") && third.stdout.contains(".imported.toml"),
        "{}",
        third.stdout
    );
    assert_eq!(snapshot_of_file(&import.config()), changed);
    assert_eq!(fs::read_link(import.live("a.example.test")).unwrap(), live);

    // Nothing was taken away from certbot.
    certbot.run(&["renew", "--force-renewal", "--no-random-sleep-on-renew", "--cert-name", "a.example.test"]);
    assert_eq!((pebble.accounts(), pebble.orders()), (1, 6));
}

fn snapshot_of_file(path: &Path) -> (u32, (i64, i64), Vec<u8>) {
    let meta = fs::metadata(path).unwrap();
    (meta.mode(), (meta.mtime(), meta.mtime_nsec()), fs::read(path).unwrap())
}

/// A folder as certbot leaves it, with lineages of one version each.
struct Folder {
    root: PathBuf,
}

impl Folder {
    fn new(bed: &Bed) -> Self {
        let root = bed.path("letsencrypt");
        for folder in ["accounts", "renewal", "live", "archive"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        Self { root }
    }

    fn lineage(&self, bed: &Bed, name: &str, more: &str) {
        let pki = Pki::new(bed.dir(), name, &[name]);
        let (archive, live) = (self.root.join("archive").join(name), self.root.join("live").join(name));
        fs::create_dir_all(&archive).unwrap();
        fs::create_dir_all(&live).unwrap();
        let chain = fs::read_to_string(&pki.chain).unwrap();
        let (leaf, rest) =
            chain.split_at(chain.find("-----END").unwrap() + "-----END CERTIFICATE-----\r\n".len());
        for (kind, text) in [("cert", leaf), ("chain", rest), ("fullchain", &chain)] {
            fs::write(archive.join(format!("{kind}1.pem")), text).unwrap();
        }
        fs::copy(&pki.key, archive.join("privkey1.pem")).unwrap();
        for kind in ["cert", "chain", "fullchain", "privkey"] {
            symlink(format!("../../archive/{name}/{kind}1.pem"), live.join(format!("{kind}.pem"))).unwrap();
        }
        let conf = format!(
            "version = 2.1.0\narchive_dir = /etc/letsencrypt/archive/{name}\nfullchain = /etc/letsencrypt/live/{name}/fullchain.pem\n\n[renewalparams]\nauthenticator = webroot\nwebroot_path = /var/www/html,\nserver = https://acme-v02.api.letsencrypt.org/directory\nkey_type = ecdsa\n{more}"
        );
        fs::write(self.root.join("renewal").join(format!("{name}.conf")), conf).unwrap();
    }
}

#[test]
fn a_broken_folder_loses_nothing_and_says_what_is_wrong() {
    let bed = Bed::new();
    let folder = Folder::new(&bed);
    for name in ["good.test", "dangling.test", "keyless.test", "half.test", "empty.test", "folder.test"] {
        folder.lineage(&bed, name, "");
    }
    let at = |path: &str| folder.root.join(path);
    for kind in ["fullchain", "chain"] {
        fs::remove_file(at(&format!("archive/dangling.test/{kind}1.pem"))).unwrap();
    }
    fs::remove_file(at("archive/keyless.test/privkey1.pem")).unwrap();
    let half = fs::read_to_string(at("renewal/half.test.conf")).unwrap();
    fs::write(at("renewal/half.test.conf"), &half[..half.find("webroot_path").unwrap() + 6]).unwrap();
    fs::write(at("renewal/empty.test.conf"), "").unwrap();
    fs::remove_file(at("renewal/folder.test.conf")).unwrap();
    fs::create_dir(at("renewal/folder.test.conf")).unwrap();
    fs::create_dir_all(at("accounts/ca.test/dir/0123")).unwrap();
    fs::write(at("accounts/ca.test/dir/0123/regr.json"), "{\"uri\": \"https://ca.test/1\"}").unwrap();

    let import = Import::new(&bed, folder.root.clone());
    let ran = import.run().expect_code(1);
    for says in [
        "good.test: imported",
        "dangling.test: without files",
        "FAILED: `archive/dangling.test/fullchain1.pem` is missing",
        "FAILED: `live/dangling.test/fullchain.pem` leads to ../../archive/dangling.test/fullchain1.pem, which is missing",
        "keyless.test: without files",
        "FAILED: `archive/keyless.test/privkey1.pem` is missing",
        "half.test: imported",
        "FAILED: `renewal/half.test.conf` is damaged: line 7: it is neither a section nor `key = value`",
        "empty.test: imported",
        "FAILED: cannot read `renewal/empty.test.conf`: it is empty",
        "folder.test: imported",
        "FAILED: cannot read `renewal/folder.test.conf`: it is no regular file",
        "FAILED: account 0123 at ca.test/dir: `accounts/ca.test/dir/0123/private_key.json` is missing",
    ] {
        assert!(ran.stdout.contains(says), "{says} is not in\n{}", ran.stdout);
    }
    // No account, no agreement to terms: that is left to a person, and all else is right.
    let text = fs::read_to_string(import.config()).unwrap().replace("#terms-agreed", "terms-agreed");
    fs::write(import.config(), text).unwrap();
    let config = import.loaded();
    assert_eq!(config.warnings, [""; 0]);
    let names: Vec<_> = config.certificates.iter().map(|certificate| certificate.name.as_str()).collect();
    assert_eq!(
        names,
        ["dangling.test", "empty.test", "folder.test", "good.test", "half.test", "keyless.test"]
    );
}

#[test]
fn a_dry_run_writes_nothing() {
    let bed = Bed::new();
    let folder = Folder::new(&bed);
    folder.lineage(&bed, "a.test", "");
    let import = Import::new(&bed, folder.root.clone()).with(&["--dry-run"]);
    let ran = import.run().expect_code(0);
    assert!(ran.stdout.contains("[[certificate]]\nhostnames = [\"a.test\"]\n"), "{}", ran.stdout);
    assert!(!import.state().exists() && !import.config().exists());
}

#[test]
fn what_is_written_is_for_its_owner_alone() {
    let bed = Bed::new();
    let folder = Folder::new(&bed);
    folder.lineage(&bed, "a.test", "");
    let import = Import::new(&bed, folder.root.clone());
    let shell = format!("umask 000; {:?}", import.command());
    run(Command::new("sh").args(["-c", &shell])).expect_code(0);
    assert_eq!(fs::metadata(import.config()).unwrap().mode() & 0o7777, 0o600);
}

#[test]
fn a_pipe_is_not_waited_for() {
    let bed = Bed::new();
    let folder = Folder::new(&bed);
    folder.lineage(&bed, "a.test", "");
    let pipe = bed.path("pipe");
    run(Command::new("mkfifo").arg(&pipe)).expect_code(0);
    let ran = Import::new(&bed, folder.root.clone()).with(&["--output", pipe.to_str().unwrap()]).run();
    assert!(ran.expect_code(1).stdout.contains("it is not a regular file"));
}

#[test]
fn nothing_is_written_over() {
    let bed = Bed::new();
    let folder = Folder::new(&bed);
    folder.lineage(&bed, "a.test", "");
    let output = bed.write("other.toml", "mine");
    let import = Import::new(&bed, folder.root.clone()).with(&["--output", output.to_str().unwrap()]);
    let ran = import.run().expect_code(1);
    assert!(ran.stdout.contains("nothing is overwritten, and there is something else in"), "{}", ran.stdout);
    assert!(ran.stdout.contains("hostnames = [\"a.test\"]"), "{}", ran.stdout);
    assert_eq!(fs::read_to_string(&output).unwrap(), "mine");
    assert!(!import.config().exists());

    // Where no path was asked for, that is no failure.
    let present = bed.write("wicketgate.toml", "# mine\n");
    let beside = bed.write("wicketgate.imported.toml", "mine too");
    let ran = Import::new(&bed, folder.root.clone()).run().expect_code(0);
    assert!(ran.stdout.contains("hostnames = [\"a.test\"]"), "{}", ran.stdout);
    assert_eq!(fs::read_to_string(&present).unwrap(), "# mine\n");
    assert_eq!(fs::read_to_string(&beside).unwrap(), "mine too");
}

#[test]
fn another_at_work_is_told_and_left_alone() {
    let bed = Bed::new();
    let folder = Folder::new(&bed);
    folder.lineage(&bed, "a.test", "");
    let import = Import::new(&bed, folder.root.clone());
    let store = wicketgate::store::Store::open(&import.state()).unwrap();
    let _lock = store.lock().unwrap();
    let ran = import.run().expect_code(75);
    assert!(ran.stderr.contains("another wicketgate (pid "), "{}", ran.stderr);
    assert!(!import.config().exists());
}

#[test]
fn folders_without_rights_are_told() {
    needs!("root", "setpriv");
    let bed = Bed::new();
    let folder = Folder::new(&bed);
    folder.lineage(&bed, "a.test", "");
    let program = bed.path("wicketgate");
    fs::copy(PROGRAM, &program).unwrap();
    let state = bed.path("state");
    fs::create_dir(&state).unwrap();
    std::os::unix::fs::chown(&state, Some(65534), Some(65534)).unwrap();
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).unwrap();
    let before = snapshot(&folder.root);
    let import = || {
        let mut foreign = Command::new("setpriv");
        clean(&mut foreign);
        run(foreign
            .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
            .arg(&program)
            .args(["import", "certbot"])
            .arg(&folder.root)
            .args(["--dry-run", "--state-dir"])
            .arg(&state))
    };
    // One sentence, whatever is closed.
    for closed in ["live", "archive", "accounts"] {
        set_mode(&folder.root.join(closed), 0o700);
        let ran = import().expect_code(1);
        let says = format!("/{closed}: this user may not read it; certbot's folder belongs to root");
        assert!(ran.stderr.contains(&says) && ran.stderr.lines().count() == 1, "{}", ran.text());
        set_mode(&folder.root.join(closed), 0o755);
    }
    set_mode(&folder.root.join("archive/a.test"), 0o700);
    let ran = import().expect_code(1);
    assert!(ran.stdout.contains("`archive/a.test`: this user may not read it"), "{}", ran.stdout);
    set_mode(&folder.root.join("archive/a.test"), 0o755);
    set_mode(&folder.root, 0o700);
    let ran = import().expect_code(1);
    assert!(ran.stderr.contains("run this as root"), "{}", ran.text());
    set_mode(&folder.root, 0o755);
    assert!(snapshot(&folder.root) == before);
}

#[test]
fn what_is_not_certbots_is_refused() {
    let bed = Bed::new();
    bed.write("elsewhere/file", "x");
    let ran = Import::new(&bed, bed.path("elsewhere")).run().expect_code(1);
    assert!(ran.stderr.contains("it is not certbot's folder"), "{}", ran.stderr);
    let missing = Import::new(&bed, bed.path("missing"));
    let ran = run(&mut missing.command()).expect_code(1);
    assert!(ran.stderr.contains("there is no such folder"), "{}", ran.stderr);
    assert!(!missing.state().exists());
}
