//! The test bed: a folder, free ports, the binary and the servers around it, all gone when dropped.

pub(crate) mod activator;
pub(crate) mod apache;
pub(crate) mod caddy;
pub(crate) mod client;
pub(crate) mod fickle;
pub(crate) mod haproxy;
pub(crate) mod hitch;
pub(crate) mod hosts;
pub(crate) mod ladder;
pub(crate) mod machine;
pub(crate) mod mail_server;
pub(crate) mod nameserver;
pub(crate) mod namespace;
pub(crate) mod neighbours;
pub(crate) mod nginx;
pub(crate) mod oddities;
pub(crate) mod pebble;
pub(crate) mod pki;
pub(crate) mod ports;
pub(crate) mod process;
pub(crate) mod random;
pub(crate) mod scripted;
pub(crate) mod squid;
pub(crate) mod strace;
pub(crate) mod upstream;
pub(crate) mod webhook;
pub(crate) mod wicketgate;
pub(crate) mod zone;

use std::cell::RefCell;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::wicketgate::clock;

use ports::Claim;

/// How long a condition may take to come true before the test fails, on a machine with two busy cores.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What a test stands on. Dropping it removes its folder and frees its ports.
pub(crate) struct Bed {
    dir: tempfile::TempDir,
    claims: RefCell<Vec<Claim>>,
}

impl Bed {
    /// A new folder, readable by other users too, since some tests change the owner of what is in it.
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("wicketgate-it-").tempdir().expect("a temporary folder");
        set_mode(dir.path(), 0o755);
        Self { dir, claims: RefCell::default() }
    }

    /// A port on 127.0.0.1 that nothing else takes while the bed lives.
    pub(crate) fn port(&self) -> u16 {
        let claim = Claim::next();
        let port = claim.port;
        self.claims.borrow_mut().push(claim);
        port
    }

    /// The bed's folder.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A path in the bed's folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file into the bed's folder and tells its path.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a file in the bed's folder")).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// Writes an executable script, for `reload` commands.
    pub(crate) fn script(&self, name: &str, body: &str) -> PathBuf {
        let path = self.write(name, format!("#!/bin/sh\n{body}\n"));
        set_mode(&path, 0o755);
        path
    }
}

/// Sets a path's permission bits.
pub(crate) fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Looks until there is something to see, and fails the test when [`PATIENCE`] ends before that.
#[track_caller]
pub(crate) fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    until_within(PATIENCE, what, look)
}

/// As [`until`], with a limit of its own.
#[track_caller]
pub(crate) fn until_within<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = clock::monotonic() + limit;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(clock::monotonic() < end, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What a test may need that is no package: the user it is run by, and a kernel that lets him.
const SURROUNDINGS: [&str; 4] = ["root", "namespaces", "mounts", "packages"];

/// Whether a test can run here: every name is a program in `PATH`, or one of [`SURROUNDINGS`].
///
/// What is missing fails the test, unless `tests/run` said that it may be left out
/// (`WICKETGATE_TESTS_WITHOUT`); then it is written where `tests/run` reads it for its closing summary.
/// In CI no program may be missing.
#[must_use = "a test that cannot run returns at once"]
pub(crate) fn can_run(test: &str, needs: &[&str]) -> bool {
    let allowed = std::env::var("WICKETGATE_TESTS_WITHOUT").unwrap_or_default();
    let missing: Vec<&str> = needs.iter().copied().filter(|need| !is_there(need)).collect();
    if missing.is_empty() {
        return true;
    }
    let in_ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
    let may_be_left_out = missing.iter().all(|need| allowed.split_whitespace().any(|name| name == *need));
    assert!(
        may_be_left_out && !(in_ci && missing.iter().any(|need| !SURROUNDINGS.contains(need))),
        "{test} needs {missing:?}, which is not here: tests/run installs what the tests need"
    );
    let line = format!("{test}: left out, there is no {}\n", missing.join(", "));
    eprint!("{line}");
    if let Some(path) = std::env::var_os("WICKETGATE_TESTS_LEFT_OUT") {
        let mut file = fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }
    false
}

fn is_there(need: &str) -> bool {
    match need {
        "root" => rustix::process::geteuid().is_root(),
        "namespaces" => namespace::available(),
        "mounts" => namespace::mounts_available(),
        "packages" => Path::new(env!("CARGO_MANIFEST_DIR")).join("target/package/wicketgate").is_file(),
        program => std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
            .chain(["/usr/sbin".into(), "/sbin".into()])
            .any(|folder| folder.join(program).is_file()),
    }
}

/// Ends the test early, and says so, where something it needs may be left out: `needs!("nginx", "curl")`.
macro_rules! needs {
    ($($need:expr),+ $(,)?) => {
        if !$crate::bed::can_run($crate::bed::name_of(&|| ()), &[$($need),+]) {
            return;
        }
    };
}
pub(crate) use needs;

/// The path of the function that a closure stands in: `it::pebble::one_name`.
pub(crate) fn name_of<T>(_: &T) -> &'static str {
    std::any::type_name::<T>().trim_end_matches("::{{closure}}")
}

/// A server's files of one certificate, in places that do not change.
pub(crate) struct ServedFiles {
    pub(crate) chain: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) combined: PathBuf,
}

impl ServedFiles {
    /// In a folder of the bed, with nothing in them yet.
    pub(crate) fn new(bed: &Bed, folder: &str) -> Self {
        let dir = bed.path(folder);
        fs::create_dir_all(&dir).unwrap();
        Self {
            chain: dir.join("fullchain.pem"),
            key: dir.join("privkey.pem"),
            combined: dir.join("combined.pem"),
        }
    }

    /// Puts a new certificate for `www.example.test` there, and tells its leaf.
    pub(crate) fn renew(&self, bed: &Bed) -> pki::Seen {
        let pki = pki::Pki::new(bed.dir(), "served", &["www.example.test"]);
        let (chain, key) = (fs::read(&pki.chain).unwrap(), fs::read(&pki.key).unwrap());
        fs::write(&self.combined, [chain.clone(), key.clone()].concat()).unwrap();
        fs::write(&self.chain, chain).unwrap();
        fs::write(&self.key, key).unwrap();
        set_mode(&self.key, 0o600);
        set_mode(&self.combined, 0o600);
        pki::read_chain_file(&pki.chain)[0].clone()
    }
}

/// A server serves what is in its files, and after its reload command what is in them then.
#[track_caller]
fn assert_reads_again(
    bed: &Bed,
    start: impl FnOnce(&ServedFiles) -> (u16, Vec<String>, Box<dyn std::any::Any>),
) {
    let files = ServedFiles::new(bed, "tls");
    let first = files.renew(bed);
    let (port, reload, _server) = start(&files);
    let served = || client::served_leaf(port, "www.example.test");
    assert_eq!(served(), Some(first));
    let second = files.renew(bed);
    process::run(std::process::Command::new(&reload[0]).args(&reload[1..])).expect_code(0);
    until("the server serves the second certificate", || (served()? == second).then_some(()));
}

/// Resident memory of a process, kB.
pub(crate) fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// Whether tests do as much as the figures are about, which takes minutes.
pub(crate) fn is_thorough() -> bool {
    std::env::var("WICKETGATE_TESTS_THOROUGH").is_ok_and(|value| value == "1")
}
