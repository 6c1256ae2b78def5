//! From files, environment and flags to a checked [`Config`].

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::document::Node;
use super::flags::Flags;
use super::problem::{ConfigError, Origin, Report};
use super::section::{Section, one_of};
use super::upstream::is_own_listener;
use super::{
    CertificateRequest, Config, DEFAULT_FILE, DEFAULT_STATE_DIR, Front, Gate, Issuer, Place, Sandbox,
    SiteName, Upstream, acme, certificates, deploy, environment, files, front, gate, keys, notify,
};
use crate::hostname::Identifier;

impl Config {
    /// The configuration of `deploy/example.toml`: every key, with a sentence each.
    pub const EXAMPLE: &str = include_str!("../../deploy/example.toml");

    /// The admin socket where none is configured.
    pub const DEFAULT_SOCKET: &str = "/run/wicketgate/admin.sock";

    /// The file to load: the one that was named, else the usual one where it exists, else none. A usual
    /// one that this user may not look for counts as there, so that loading says so.
    pub fn file(named: Option<PathBuf>) -> Option<PathBuf> {
        named.or_else(|| Some(PathBuf::from(DEFAULT_FILE)).filter(|file| file.try_exists().unwrap_or(true)))
    }

    /// Reads the file with its includes (`None`: there is no file), puts the environment's values and
    /// then the flags over it, and checks the whole.
    ///
    /// # Errors
    /// Everything that is wrong, with its place and remedy. Only files that cannot be read or parsed
    /// keep the checks of values from being made.
    pub fn load(
        file: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
        flags: &Flags,
    ) -> Result<Self, ConfigError> {
        let report = Report::default();
        let (root, files) = match file {
            Some(file) => files::read(file, &report),
            None => (Some(Node::empty_table(Origin::Nowhere)), Vec::new()),
        };
        let Some(root) = overlaid(root, env, flags, &report) else { return Err(report.into_error()) };
        let section = Section::root(&root, &report);
        if file.is_none() && section.tables("certificate").is_empty() {
            let message = format!(
                "there is nothing to do: no configuration file ({DEFAULT_FILE} does not exist) and no --hostname; write the file (`wicketgate config example` prints one), or pass --hostname"
            );
            return Err(report.absent(&message));
        }
        Ok(Self { files, ..finished(&root, report)? })
    }

    /// The state directory of a configuration that may be wrong in all else, for who has to shut what was opened by an
    /// earlier one.
    pub fn state_dir_of(
        file: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
        flags: &Flags,
    ) -> PathBuf {
        let of_env =
            || env.into_iter().find(|(name, _)| name == "WICKETGATE_STATE_DIR").map(|(_, value)| value);
        let of_file = || {
            let text = std::fs::read_to_string(file?).ok()?;
            let line = text.lines().find_map(|line| line.trim_start().strip_prefix("state-dir"))?;
            let value = line.trim_start().strip_prefix('=')?.trim_start();
            let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
            value[1..].split(quote).next().map(str::to_owned)
        };
        flags
            .state_dir
            .clone()
            .or_else(of_env)
            .or_else(of_file)
            .map_or_else(|| PathBuf::from(DEFAULT_STATE_DIR), PathBuf::from)
    }

    /// As [`Config::load`], of a text that is in no file yet; relative paths in it start from `shown`'s
    /// folder.
    ///
    /// # Errors
    /// Everything that is wrong, with its place and remedy.
    pub fn parse(
        text: &str,
        shown: &Path,
        env: impl IntoIterator<Item = (String, String)>,
        flags: &Flags,
    ) -> Result<Self, ConfigError> {
        let report = Report::default();
        let root = files::parse(text, shown, &report);
        let Some(root) = overlaid(root, env, flags, &report) else { return Err(report.into_error()) };
        finished(&root, report)
    }

    /// The path of every key that this version understands, `*` for a name of the administrator's
    /// choice.
    pub fn keys() -> impl Iterator<Item = &'static str> {
        keys::KEYS.iter().map(|key| key.path)
    }
}

/// The tree with the environment's values and the flags over it. Where there is none, what could not be
/// read is reported by now, and nothing follows from it.
fn overlaid(
    mut root: Option<Node>,
    env: impl IntoIterator<Item = (String, String)>,
    flags: &Flags,
    report: &Report,
) -> Option<Node> {
    if let Some(root) = &mut root {
        environment::apply(env, root, report);
        flags.apply(root, report);
        keys::check(root, report);
    }
    root
}

fn finished(root: &Node, report: Report) -> Result<Config, ConfigError> {
    let (mut config, threads_are_given) = build(&Section::root(root, &report));
    config.warnings = report.finish()?;
    config.digest = digest(&config, threads_are_given);
    Ok(config)
}

/// Reads and checks everything; what is wrong is in the report, with a stand-in here.
fn build(root: &Section<'_>) -> (Config, bool) {
    let tables = root.tables("certificate");
    let acme = acme::acme(root, tables.iter().any(|section| !certificates::is_foreign(section)));
    let (certificates, foreign_certificates) =
        certificates::certificates(root, acme.issuer == Issuer::Embedded);
    certificates::check_limits(root, &certificates, &acme.limits);
    if tables.is_empty() {
        root.warn("there is no [[certificate]], so nothing is obtained and nothing is renewed");
    }
    warn_of_addresses(root, &acme.issuer, &certificates);
    let (front, threads_are_given) = match front::front(root, &certificates, &foreign_certificates) {
        Some((front, threads_are_default)) => (Some(front), !threads_are_default),
        None => (None, true),
    };
    let gate = gate::gate(root, configured_hosts(&certificates, front.as_ref()));
    let deploy = deploy::targets(root, &certificates);
    let config = Config {
        state_dir: state_dir(root),
        acme,
        gate,
        front,
        certificates,
        foreign_certificates,
        deploy,
        helper: acme::helper(root),
        notify: notify::notify(root),
        admin: acme::admin(root),
        user: user(root),
        sandbox: root.parsed("sandbox", Sandbox::Auto, |text| {
            let words = [("auto", Sandbox::Auto), ("required", Sandbox::Required), ("off", Sandbox::Off)];
            one_of(text, "extent of the sandbox", &words)
        }),
        digest: String::new(),
        grace: root.duration("grace", Duration::from_secs(30), Duration::ZERO..=Duration::from_secs(3600)),
        warnings: Vec::new(),
        files: Vec::new(),
    };
    check_page(root, &config);
    if let Some(front) = &config.front {
        check_listeners(root, &config.gate, front);
        check_upstreams(root, &config, front);
    }
    (config, threads_are_given)
}

fn user(root: &Section<'_>) -> Option<(String, Option<String>)> {
    let name = |key: &str| {
        root.entry(key).and_then(|entry| {
            entry.parsed(|text| match text {
                "" => Err("an empty name; write one, or remove the key".to_owned()),
                "root" if key == "user" => {
                    Err("root is what it is to become something else than; remove the key to remain root"
                        .to_owned())
                }
                text => Ok(text.to_owned()),
            })
        })
    };
    let (user, group) = (name("user"), name("group"));
    if let (None, Some(entry)) = (root.entry("user"), root.entry("group")) {
        entry.refuse("it goes with `user`; write that too, or remove it");
    }
    user.map(|user| (user, group))
}

fn state_dir(root: &Section<'_>) -> PathBuf {
    let path = root.path("state-dir").unwrap_or_else(|| PathBuf::from(DEFAULT_STATE_DIR));
    if path.parent().is_none()
        && let Some(entry) = root.entry("state-dir")
    {
        entry.refuse("`/` is the whole system; name a folder for wicketgate alone");
    }
    path
}

fn configured_hosts(certificates: &[CertificateRequest], front: Option<&Front>) -> BTreeSet<Identifier> {
    let of_certificates = certificates.iter().flat_map(|certificate| certificate.identifiers.iter().cloned());
    let sites = front.map(|front| front.sites.as_slice()).unwrap_or_default();
    let names = sites.iter().flat_map(|site| &site.hostnames);
    let of_sites = names.filter_map(|name| match name {
        SiteName::Exact(name) => Some(Identifier::Dns(name.clone())),
        // Which of them there are, certificates say.
        SiteName::Below(_) => None,
    });
    of_certificates.chain(of_sites).collect()
}

/// Let's Encrypt signs IP addresses with one of its profiles only.
fn warn_of_addresses(root: &Section<'_>, issuer: &Issuer, certificates: &[CertificateRequest]) {
    if !matches!(issuer, Issuer::LetsEncrypt | Issuer::LetsEncryptStaging) {
        return;
    }
    for certificate in certificates {
        let has_address = certificate.identifiers.iter().any(|id| matches!(id, Identifier::Ip(_)));
        if has_address && certificate.profile.as_deref() != Some("shortlived") {
            let name = &certificate.name;
            root.warn(&format!(
                "certificate `{name}` has an IP address, which Let's Encrypt signs with `profile = \"shortlived\"` only"
            ));
        }
    }
}

fn check_listeners(root: &Section<'_>, gate: &Gate, front: &Front) {
    for ours in &front.listen {
        if let Some(theirs) = gate.listen.iter().find(|theirs| gate::collide(*ours, **theirs)) {
            let message = format!(
                "`{ours}` is taken by the gate, which listens on `{theirs}`; choose another port for one of them"
            );
            match root.table("front").entry("listen") {
                Some(entry) => entry.refuse(&message),
                None => root.table("front").refuse_missing("listen", &message),
            }
        }
    }
}

/// The page for everybody is neither the gate's nor the front's.
fn check_page(root: &Section<'_>, config: &Config) {
    let Some(ours) = config.admin.listen else { return };
    let front = config.front.iter().flat_map(|front| &front.listen);
    let theirs = config.gate.listen.iter().chain(front).find(|theirs| gate::collide(ours, **theirs));
    if let (Some(theirs), Some(entry)) = (theirs, root.table("admin").entry("listen")) {
        entry.refuse(&format!("`{ours}` is taken: gate or front listens on `{theirs}`; choose another port"));
    }
}

fn check_upstreams(root: &Section<'_>, config: &Config, front: &Front) {
    let listen: Vec<_> = config.gate.listen.iter().chain(&front.listen).copied().collect();
    let is_circle = |upstream: &Upstream| {
        is_own_listener(upstream, &listen)
            || upstream.place() == Some(&Place::Unix(config.admin.socket.clone()))
    };
    let section = root.table("front");
    let of_sites = section.tables("site").into_iter().zip(&front.sites).map(|(s, site)| (s, &site.upstream));
    for (section, upstream) in std::iter::once((section.clone(), &front.upstream)).chain(of_sites) {
        if let (true, Some(entry)) = (is_circle(upstream), section.entry("upstream")) {
            entry.refuse("wicketgate itself listens there; name the address of the application");
        }
    }
}

/// Hex SHA-256 over everything that was configured. A number of threads that was left to the machine
/// counts as such: it may change from one start to the next without anybody's doing.
fn digest(config: &Config, threads_are_given: bool) -> String {
    let mut canonical =
        Config { digest: String::new(), warnings: Vec::new(), files: Vec::new(), ..config.clone() };
    if let (false, Some(front)) = (threads_are_given, &mut canonical.front) {
        front.threads = 0;
    }
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, format!("{canonical:?}").as_bytes());
    hash.as_ref().iter().fold(String::with_capacity(64), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
