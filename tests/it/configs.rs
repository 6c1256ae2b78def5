//! Configurations from the outside: folders of right and wrong ones, the shipped files, environment and
//! flags.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::bed::set_mode;
use clap::Parser;
use proptest::prelude::*;
use wicketgate::config::{
    AccessLog, Config, ConfigError, Flags, Front, Issuer, KeyType, LogFormat, LogPlace, MailSecurity,
    OpeningWay, Partial, Place, Rate, RateLimits, Raw, RedirectHosts, Service, Upstream,
};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn load(file: &Path) -> Result<Config, ConfigError> {
    Config::load(Some(file), [], &Flags::default())
}

fn toml_files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "toml"))
        .collect();
    files.sort();
    files
}

/// With `UPDATE_EXPECTED=1` the files are written in place of being compared: look at the difference.
#[test]
fn every_invalid_configuration_is_refused_with_its_whole_message() {
    let folder = folder("tests/configs/invalid");
    let files = toml_files(&folder);
    assert!(files.len() >= 28, "only {} invalid configurations", files.len());
    let mut wrong = Vec::new();
    for file in files {
        let error = load(&file).expect_err(&file.to_string_lossy());
        let message = format!("{error}\n").replace(&format!("{}/", folder.display()), "");
        let expected_file = file.with_extension("err");
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            fs::write(&expected_file, &message).unwrap();
        }
        let expected = fs::read_to_string(&expected_file).unwrap_or_default();
        if message != expected {
            wrong.push(format!("{}\n--- expected\n{expected}--- got\n{message}", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let orphans = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|e| e == "err") && !path.with_extension("toml").exists());
    assert_eq!(orphans, None);
}

#[test]
fn no_message_shows_a_secret_or_a_control_character() {
    for file in toml_files(&folder("tests/configs/invalid")) {
        let message = load(&file).unwrap_err().to_string();
        for secret in ["password", "c2VjcmV0"] {
            assert!(!message.contains(&format!(":{secret}")) && !message.contains("c2VjcmV0"), "{message}");
        }
        assert!(message.lines().all(|line| !line.chars().any(char::is_control)), "{message}");
    }
}

#[test]
fn every_valid_configuration_loads_without_a_warning() {
    let files = toml_files(&folder("tests/configs/valid"));
    assert!(files.len() >= 6, "only {} valid configurations", files.len());
    let mut digests = BTreeSet::new();
    for file in &files {
        let config = load(file).unwrap_or_else(|error| panic!("{}:\n{error}", file.display()));
        assert_eq!(config.warnings, Vec::<String>::new(), "{}", file.display());
        assert_eq!(load(file).unwrap(), config);
        assert!(config.state_dir.is_absolute() && config.admin.socket.is_absolute());
        assert_eq!(config.digest.len(), 64);
        digests.insert(config.digest);
    }
    assert_eq!(digests.len(), files.len());
}

fn valid(name: &str) -> Config {
    load(&folder("tests/configs/valid").join(name)).unwrap()
}

fn names(config: &Config, certificate: usize) -> Vec<String> {
    config.certificates[certificate].identifiers.iter().map(ToString::to_string).collect()
}

#[test]
fn beside_squid() {
    let config = valid("beside-squid.toml");
    assert_eq!(config.acme.issuer, Issuer::LetsEncrypt);
    assert_eq!(config.acme.contact, ["mailto:ops@null-i.net"]);
    assert_eq!(config.grace, Duration::from_secs(5));
    assert_eq!(config.gate.listen.len(), 2);
    assert_eq!(config.gate.redirect.status, 301);
    let RedirectHosts::Configured(hosts) = &config.gate.redirect.hosts else { panic!("not configured") };
    let hosts: Vec<_> = hosts.iter().map(ToString::to_string).collect();
    assert_eq!(hosts, ["intranet", "null-i.net", "old.null-i.net", "www.null-i.net"]);
    let certificate = &config.certificates[0];
    assert_eq!(
        (certificate.name.as_str(), &certificate.key_types[..]),
        ("null-i.net", &[KeyType::Rsa2048][..])
    );
    assert_eq!(certificate.deploy, ["squid"]);
    assert_eq!(config.deploy["squid"].reload.as_deref().unwrap(), ["squid", "-k", "reconfigure"]);
    assert_eq!(config.deploy["squid"].timeout, Duration::from_secs(60));
    assert_eq!(config.front, None);
    assert_eq!(config.admin.socket, Path::new("/run/wicketgate/admin.sock"));
}

#[test]
fn servers() {
    let config = valid("servers.toml");
    assert_eq!(config.deploy.len(), 7);
    let nginx = &config.deploy["nginx"];
    assert_eq!((nginx.service, nginx.check.as_ref()), (Some(Service::Nginx), None));
    let shown = |name: &str| config.deploy[name].verify.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(shown("nginx"), ["127.0.0.1:443"]);
    assert_eq!(shown("squid"), ["127.0.0.1:3129"]);
    assert_eq!(shown("haproxy"), ["proxy+tls://127.0.0.1:443", "[::1]:8443"]);
    assert_eq!(shown("inner-nginx"), Vec::<String>::new());
    assert_eq!(config.deploy["inner-nginx"].service, Some(Service::Nginx));
    let copies = config.deploy["squid"].copies.as_ref().unwrap();
    let files: Vec<_> = copies.files().map(|(name, _)| name).collect();
    assert_eq!(files, ["fullchain.pem", "privkey.pem"]);
    assert_eq!((copies.owner.as_deref(), copies.mode.0), (Some("root:proxy"), 0o640));
    let mail = &config.deploy["mail"];
    assert_eq!((mail.service, mail.each), (None, true));
    assert_eq!(mail.environment["PATH"], "/opt/bin:/usr/bin");
    let helper = config.helper.as_ref().map(|helper| helper.socket.as_path());
    assert_eq!(helper, Some(Path::new("/run/wicketgate-helper/socket")));
}

#[test]
fn beside_nginx() {
    let config = valid("beside-nginx.toml");
    assert_eq!(config.state_dir, Path::new("/var/lib/wicketgate"));
    assert_eq!(config.certificates[0].name, "shop");
    assert_eq!(names(&config, 0), ["xn--bcher-kva.example", "www.xn--bcher-kva.example"]);
    assert_eq!(config.gate.listen, ["[::]:80".parse().unwrap()]);
    assert_eq!(
        config.gate.trusted_proxies,
        ["10.0.0.0/8".parse().unwrap(), "2001:db8::7/128".parse().unwrap()]
    );
    assert!(config.gate.match_host);
    assert_eq!(config.gate.max_connections, 1024);
    assert_eq!((config.gate.redirect.status.as_u16(), config.gate.redirect.port), (308, 443));
    assert_eq!((config.acme.concurrency, config.grace), (4, Duration::from_secs(30)));
}

#[test]
fn sidecar() {
    let config = valid("sidecar.toml");
    let front = config.front.as_ref().unwrap();
    assert_eq!(front.listen, ["[::]:443".parse().unwrap()]);
    assert_eq!(front.upstream, Upstream::Http(Place::Tcp { host: "my_app".to_owned(), port: 8080 }));
    assert_eq!(
        front.sites[0].upstream,
        Upstream::Http(Place::Unix(folder("tests/configs/run/api.sock").canonical()))
    );
    assert_eq!(front.default_certificate.as_deref(), Some("app.example.net"));
    assert_eq!((front.threads, front.max_connections), (2, 4096));
    assert_eq!(front.connect_timeout, Duration::from_millis(500));
    assert_eq!(front.response_timeout, Duration::from_secs(5400));
    assert_eq!(front.access_log, Some(AccessLog { place: LogPlace::Stdout, format: LogFormat::Json }));
    assert_eq!(config.gate.redirect.hosts, RedirectHosts::Any);
    let eab = config.acme.eab.first().unwrap();
    assert_eq!(eab.hmac_key_file, folder("tests/configs/valid/eab.key").canonical());
    assert!(!format!("{config:?}").contains("bm90LWEtc2VjcmV0"));
}

#[test]
fn passages() {
    let config = valid("passages.toml");
    let front = config.front.as_ref().unwrap();
    let at = |port| Place::Tcp { host: "127.0.0.1".to_owned(), port };
    assert_eq!(front.upstream, Upstream::H2c(at(50051)));
    let upstreams: Vec<_> = front.sites.iter().map(|site| site.upstream.clone()).collect();
    let raw = |place, proxy_protocol, alpn: &[&str]| {
        Upstream::Raw(Raw { place, proxy_protocol, alpn: alpn.iter().map(ToString::to_string).collect() })
    };
    let socket = folder("tests/configs/run/mqtt.sock").canonical();
    assert_eq!(upstreams, [raw(at(993), true, &["imap"]), raw(Place::Unix(socket), false, &[])]);
    assert_eq!(front.trusted_proxies, ["192.0.2.0/24".parse().unwrap()]);
    assert_eq!(front.max_body, Some(0));
    assert_eq!(front.hsts.as_deref(), Some("max-age=31536000; includeSubDomains; preload"));
}

#[test]
fn several_issuers_and_what_is_known_of_them() {
    let config = valid("careful.toml");
    let acme = &config.acme;
    let directory = |url: &str| Issuer::Directory(url.parse().unwrap());
    let staging = directory("https://ca.example.net/staging/directory");
    assert_eq!(acme.issuer, directory("https://ca.example.net/directory"));
    assert_eq!(
        acme.fallback_issuers,
        [Issuer::LetsEncrypt, Issuer::ZeroSsl, directory("https://acme.example.org/directory")]
    );
    assert_eq!(acme.staging_of(&acme.issuer), Some(staging.clone()));
    assert_eq!(acme.staging_of(&acme.fallback_issuers[0]), Some(Issuer::LetsEncryptStaging));
    assert_eq!(acme.staging_of(&acme.fallback_issuers[2]), None);
    let kid = |issuer| acme.eab_for(issuer).map(|eab| eab.kid.as_str());
    assert_eq!((kid(&acme.issuer), kid(&Issuer::ZeroSsl)), (Some("kid-1"), Some("kid-2")));
    assert_eq!((kid(&staging), kid(&Issuer::LetsEncrypt)), (Some("kid-3"), None));
    assert_eq!(acme.preflight, Some(false));
    assert_eq!(acme.resolvers.len(), 3);
    assert_eq!(acme.resolvers[1], "[2001:db8::53]:53".parse().unwrap());
    let limited = |count, minutes: u64| Some(Rate::Limited { count, per: Duration::from_secs(minutes * 60) });
    assert_eq!(
        acme.limits,
        RateLimits {
            failed_authorizations: limited(3, 90),
            certificates_per_set: limited(5, 7 * 1440),
            certificates_per_domain: Some(Rate::Unlimited),
            orders: limited(100, 180),
            accounts: None,
        }
    );
    let partial: Vec<_> = config.certificates.iter().map(|certificate| certificate.partial).collect();
    assert_eq!(partial, [Partial::Never, Partial::Emergency, Partial::Always, Partial::Emergency]);

    let plain = valid("beside-squid.toml").acme;
    assert_eq!((plain.preflight, plain.resolvers, plain.limits), (None, vec![], RateLimits::default()));
}

#[test]
fn an_issuer_that_wants_a_binding_and_has_none_is_a_warning() {
    let env = [("WICKETGATE_ACME__ISSUER", "google"), ("WICKETGATE_ACME__FALLBACK_ISSUERS", "zerossl")];
    let line = "--hostname a.example.net --agree-terms";
    let warnings = without_file(&env, line).unwrap().warnings;
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    for (warning, issuer) in warnings.iter().zip(["google", "zerossl"]) {
        assert!(warning.contains(&format!("`{issuer}` opens an account only with")), "{warning}");
    }
}

#[test]
fn a_binding_from_the_environment() {
    let line = "--hostname a.example.net --agree-terms --issuer zerossl";
    let env = [("WICKETGATE_ACME__EAB__KID", "kid-7"), ("WICKETGATE_ACME__EAB__HMAC_KEY_FILE", "Cargo.toml")];
    let config = without_file(&env, line).unwrap();
    let binding = config.acme.eab_for(&Issuer::ZeroSsl).unwrap();
    assert_eq!((binding.kid.as_str(), config.acme.eab.len()), ("kid-7", 1));
    assert_eq!(config.warnings, Vec::<String>::new());

    let over = |file: &str| {
        let env = [("WICKETGATE_ACME__EAB__KID".to_owned(), "kid-7".to_owned())];
        Config::load(Some(&folder("tests/configs/valid").join(file)), env, &Flags::default())
    };
    assert_eq!(over("sidecar.toml").unwrap().acme.eab[0].kid, "kid-7");
    assert_eq!(
        over("careful.toml").unwrap_err().to_string(),
        "WICKETGATE_ACME__EAB__KID: the file has a list at `acme.eab`, and a variable cannot say which of it is meant; write it in the file"
    );
}

#[test]
fn notify() {
    let config = valid("notify.toml").notify;
    assert_eq!((config.expiring_below, config.quiet), (0.3, Duration::from_secs(12 * 3600)));
    assert_eq!(
        config.command.as_deref(),
        Some(["/usr/local/bin/page-me", "--urgent"].map(str::to_owned).as_slice())
    );
    assert_eq!(config.webhook.unwrap().path(), "/hooks/a");
    let mail = config.mail.unwrap();
    assert_eq!((mail.to, mail.from.as_str()), (vec!["ops@example.net".to_owned()], "gate@localhost"));
    assert_eq!((mail.host.as_str(), mail.port, mail.security), ("localhost", 25, MailSecurity::None));
    let default = valid("beside-nginx.toml").notify;
    assert_eq!(default, wicketgate::config::Notify::default());

    let env =
        [("WICKETGATE_NOTIFY__WEBHOOK", "https://chat.example.net/x"), ("WICKETGATE_NOTIFY__QUIET", "1h")];
    let config = without_file(&env, "--hostname a.example.net --issuer embedded").unwrap().notify;
    assert_eq!(config.webhook.unwrap().host(), Some("chat.example.net"));
    assert_eq!(config.quiet, Duration::from_secs(3600));
}

#[test]
fn addresses_and_many() {
    assert_eq!(names(&valid("ip-address.toml"), 0), ["192.0.2.7", "2001:db8::7", "2001:db8::8"]);
    let many = valid("many.toml");
    assert_eq!((many.certificates.len(), many.certificates[0].identifiers.len()), (41, 100));
}

#[test]
fn includes_merge_in_the_order_of_their_names() {
    let config = valid("includes.toml");
    let certificates: Vec<_> = config.certificates.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(certificates, ["one.example.net", "two.example.net", "three.example.net"]);
    assert_eq!(config.deploy.keys().collect::<Vec<_>>(), ["haproxy", "hitch"]);
    assert!(config.acme.terms_agreed);
    assert_eq!(config.state_dir, folder("tests/configs/valid/state").canonical());
    assert_eq!(config.acme.roots, Some(folder("tests/configs/valid/includes.d/root.pem").canonical()));
}

/// The folder of a path as the loader gives it: without links.
trait Canonical {
    fn canonical(self) -> PathBuf;
}

impl Canonical for PathBuf {
    fn canonical(self) -> PathBuf {
        let base = folder("").canonicalize().unwrap();
        base.join(self.strip_prefix(folder("")).unwrap())
    }
}

#[test]
fn a_pattern_that_matches_nothing_is_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("w.toml");
    fs::write(&file, "include = [\"*.toml\", \"none.d/*.toml\"]\nacme.terms-agreed = true\n").unwrap();
    let config = load(&file).unwrap();
    let shown = file.display();
    assert_eq!(
        config.warnings,
        [
            format!("{shown}: there is no [[certificate]], so nothing is obtained and nothing is renewed"),
            format!("{shown}:1: key `include`: `none.d/*.toml` matches no file"),
        ]
    );
}

#[test]
fn the_demo_needs_no_root_no_dns_and_no_network() {
    let config = load(&folder("deploy/demo.toml")).unwrap();
    assert_eq!(config.warnings, Vec::<String>::new());
    assert_eq!(config.acme.issuer, Issuer::Embedded);
    assert_eq!(config.state_dir, folder("target/demo").canonical());
    assert_eq!(config.admin.socket, folder("target/demo/admin.sock").canonical());
    let front = config.front.as_ref().unwrap();
    for address in config.gate.listen.iter().chain(&front.listen) {
        assert!(address.ip().is_loopback() && address.port() > 1024);
    }
    assert_eq!(config.gate.redirect.port, front.listen[0].port());
    assert_eq!(names(&config, 0), ["demo.localhost", "www.demo.localhost"]);
}

#[test]
fn the_example_loads_as_it_stands_and_says_the_defaults() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("wicketgate.toml");
    fs::write(&file, Config::EXAMPLE).unwrap();
    let config = load(&file).unwrap();
    assert_eq!(config.warnings, Vec::<String>::new());

    // Every line that shows a default changes nothing when it is let in.
    for default in [
        "state-dir",
        "grace",
        "sandbox",
        "issuer",
        "concurrency",
        "listen = [\"[::]:80\"]",
        "open = \"always\"",
        "match-host",
        "max-connections = 1024",
        "status",
        "port = 443",
        "hosts = \"configured\"",
        "name",
        "challenge",
        "key-type",
        "partial",
        "socket = \"/run/wicketgate/admin.sock\"",
    ] {
        let line = format!("\n#{default}");
        assert_eq!(Config::EXAMPLE.matches(&line).count(), 1, "{default}");
        fs::write(&file, Config::EXAMPLE.replace(&line, &format!("\n{default}"))).unwrap();
        assert_eq!(load(&file).unwrap(), config, "{default}");
    }
}

/// The example with everything let in that it shows: prose has a space after its `#`, keys have none.
fn full_example() -> String {
    let lines = Config::EXAMPLE.lines().map(|line| match line.strip_prefix('#') {
        Some(key) if key.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => key,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_shows_every_key() {
    let table: toml::Table = full_example().parse().unwrap();
    let mut shown = BTreeSet::new();
    collect(&toml::Value::Table(table), "", &mut shown);
    let known: BTreeSet<_> = Config::keys().map(str::to_owned).collect();
    assert!(known.len() > 40);
    assert_eq!(shown, known);
}

fn collect(value: &toml::Value, path: &str, paths: &mut BTreeSet<String>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                let names = path == "deploy" || path.ends_with(".environment");
                let key = if names { "*" } else { key };
                let path = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
                collect(value, &path, paths);
                paths.insert(path);
            }
        }
        toml::Value::Array(items) => items.iter().for_each(|item| collect(item, path, paths)),
        _ => {}
    }
}

#[test]
fn the_full_example_loads() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("wicketgate.toml");
    fs::create_dir(dir.path().join("shop")).unwrap();
    for name in ["private-ca.pem", "eab.key", "smtp.password", "shop/fullchain.pem", "shop/privkey.pem"] {
        fs::write(dir.path().join(name), "").unwrap();
        set_mode(&dir.path().join(name), 0o600);
    }
    fs::write(dir.path().join("ticket.key"), [0x80, 0x81].repeat(40)).unwrap();
    set_mode(&dir.path().join("ticket.key"), 0o600);
    // `staging` is for an issuer that is named by its URL.
    let issuers = ["\nissuer = \"letsencrypt\"", "\nissuer = \"https://ca.example.net/directory\""];
    let text = full_example().replace("/etc/wicketgate/", "").replace(issuers[0], issuers[1]);
    fs::write(&file, text).unwrap();
    let config = load(&file).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.warnings.len(), 2, "{:?}", config.warnings);
    assert!(config.warnings[0].ends_with("`conf.d/*.toml` matches no file"));
    assert!(config.warnings[1].contains("no certificate names it"));

    // What it shows of the front and of a deploy are the defaults, too.
    let text = "acme.issuer = \"embedded\"\nfront.upstream = \"http://127.0.0.1:8080\"\n\
                certificate = [{ hostnames = [\"example.net\"] }]\ndeploy.squid.reload = [\"squid\"]\n";
    fs::write(&file, text).unwrap();
    let plain = load(&file).unwrap();
    let (shown, plain_front) = (config.front.unwrap(), plain.front.unwrap());
    let defaults = Front {
        sites: Vec::new(),
        default_certificate: None,
        trusted_proxies: Vec::new(),
        max_body: None,
        hsts: None,
        ticket_key_file: None,
        access_log: None,
        threads: plain_front.threads,
        ..shown
    };
    assert_eq!(defaults, plain_front);
    let (shown, plain_squid) = (&config.deploy["squid"], &plain.deploy["squid"]);
    assert_eq!(shown.timeout, plain_squid.timeout);
    assert_eq!(shown.verify_timeout, plain_squid.verify_timeout);
    assert_eq!((shown.each, &shown.verify), (plain_squid.each, &plain_squid.verify));
    assert_eq!(config.notify.expiring_below, plain.notify.expiring_below);
    assert_eq!(config.notify.quiet, plain.notify.quiet);
    assert_eq!(config.notify.mail.unwrap().port, 587);
}

#[test]
fn a_password_that_everybody_may_read_is_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let (file, password) = (dir.path().join("w.toml"), dir.path().join("smtp.password"));
    let text = "acme.issuer = \"embedded\"\ncertificate = [{ hostnames = [\"example.net\"] }]\n[notify]\n\
                mail = { to = \"a@b.example\", from = \"c@d.example\", smtp = \"m.example\", user = \"u\", password-file = \"smtp.password\" }\n";
    fs::write(&file, text).unwrap();
    fs::write(&password, "hush\n").unwrap();
    for (mode, warnings) in [(0o600, 0), (0o640, 0), (0o644, 1), (0o602, 1)] {
        set_mode(&password, mode);
        let told = load(&file).unwrap().warnings;
        assert_eq!(told.len(), warnings, "{mode:o}: {told:?}");
        assert!(told.iter().all(|t| t.contains("`notify.mail.password-file`") && t.contains("chmod o= ")));
    }
}

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    flags: Flags,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Run,
}

/// The flags of `wicketgate run …`.
fn flags(line: &str) -> Flags {
    let words = ["wicketgate", "run"].into_iter().chain(line.split_whitespace());
    let Cli { flags, command: Command::Run } = Cli::try_parse_from(words).unwrap();
    flags
}

fn without_file(env: &[(&str, &str)], line: &str) -> Result<Config, ConfigError> {
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::load(None, env, &flags(line))
}

#[test]
fn flags_alone_make_a_container() {
    let config = without_file(
        &[],
        "--hostname null-i.net --hostname www.null-i.net --contact ops@null-i.net --agree-terms --upstream http://app:8080",
    )
    .unwrap();
    assert_eq!(config.certificates.len(), 1);
    assert_eq!(names(&config, 0), ["null-i.net", "www.null-i.net"]);
    let front = config.front.as_ref().unwrap();
    assert_eq!(front.listen, ["[::]:443".parse().unwrap()]);
    assert!((1..=64).contains(&front.threads));
    assert_eq!(config.state_dir, Path::new("/var/lib/wicketgate"));
    assert_eq!(config.warnings, Vec::<String>::new());
}

#[test]
fn every_flag_reaches_its_key() {
    let config = without_file(
        &[],
        "--hostname demo.localhost --issuer embedded --key-type rsa-3072 --profile minutes --upstream demo \
         --state-dir state --gate-listen 127.0.0.1:8080 --gate-listen [::1]:8080 --front-listen 127.0.0.1:8443 \
         --redirect-port 8443 --admin-socket admin.sock --roots Cargo.toml",
    )
    .unwrap();
    let here = std::env::current_dir().unwrap();
    assert_eq!(config.state_dir, here.join("state"));
    assert_eq!(config.admin.socket, here.join("admin.sock"));
    assert_eq!(config.acme.roots, Some(here.join("Cargo.toml")));
    assert_eq!(config.acme.issuer, Issuer::Embedded);
    assert_eq!(config.certificates[0].key_types, [KeyType::Rsa3072]);
    assert_eq!(config.certificates[0].profile.as_deref(), Some("minutes"));
    assert_eq!(config.gate.listen.len(), 2);
    assert_eq!(config.gate.redirect.port, 8443);
    assert_eq!(config.front.unwrap().listen, ["127.0.0.1:8443".parse().unwrap()]);
    let pair = "--hostname demo.localhost --issuer embedded --key-type ecdsa-p384 --key-type rsa-2048";
    let config = without_file(&[], pair).unwrap();
    assert_eq!(config.certificates[0].key_types, [KeyType::EcdsaP384, KeyType::Rsa2048]);
}

#[test]
fn the_source_of_a_value_does_not_change_the_digest() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("w.toml");
    let text = "acme.issuer = \"embedded\"\nfront.upstream = \"demo\"\n[[certificate]]\nhostnames = [\"a.localhost\"]\n";
    fs::write(&file, text).unwrap();
    let mut from_file = load(&file).unwrap();
    assert_eq!(std::mem::take(&mut from_file.files), [file.canonicalize().unwrap()]);
    let from_flags = without_file(&[], "--issuer embedded --upstream demo --hostname a.localhost").unwrap();
    let env = [("WICKETGATE_ACME__ISSUER", "embedded"), ("WICKETGATE_FRONT__UPSTREAM", "demo")];
    let from_env = without_file(&env, "--hostname a.localhost").unwrap();
    assert_eq!(from_file, from_flags);
    assert_eq!(from_file, from_env);
    let other = without_file(&env, "--hostname b.localhost").unwrap();
    assert_ne!(from_file.digest, other.digest);
}

#[test]
fn the_environment_wins_over_the_file_and_flags_win_over_both() {
    let file = folder("tests/configs/valid/beside-squid.toml");
    let env = [
        ("WICKETGATE_ACME__ISSUER", "zerossl"),
        ("WICKETGATE_GATE__REDIRECT__STATUS", "302"),
        ("WICKETGATE_GATE__MATCH_HOST", "false"),
        ("WICKETGATE_GRACE", "1m"),
        ("WICKETGATE_STATE_DIR", "/tmp/w"),
        ("WICKETGATE_GATE__LISTEN", "127.0.0.1:80"),
        ("WICKETGATE_PORT", "tcp://10.0.0.1:80"),
        ("WICKETGATE_ACME__ISUER", "x"),
        ("PATH", "/bin"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let config = Config::load(Some(&file), env, &flags("--issuer letsencrypt-staging")).unwrap();
    assert_eq!(config.acme.issuer, Issuer::LetsEncryptStaging);
    assert_eq!(config.gate.redirect.status, 302);
    assert!(!config.gate.match_host);
    assert_eq!((config.grace, config.state_dir.as_path()), (Duration::from_secs(60), Path::new("/tmp/w")));
    assert_eq!(config.gate.listen, ["127.0.0.1:80".parse().unwrap()]);
    assert_eq!(
        config.warnings,
        [
            "WICKETGATE_ACME__ISUER: no key has this name, so it is ignored; did you mean WICKETGATE_ACME__ISSUER?",
            "WICKETGATE_PORT: no key has this name, so it is ignored",
        ]
    );
}

#[test]
fn what_is_wrong_in_environment_and_flags_is_said_by_their_names() {
    let error = without_file(
        &[
            ("WICKETGATE_GATE__REDIRECT__STATUS", "abc"),
            ("WICKETGATE_GATE__REDIRECT__PORT", "0"),
            ("WICKETGATE_GATE__REDIRECT__ALSO_HOSTS", "a.b"),
            ("WICKETGATE_GATE__MATCH_HOST", "yes"),
            ("WICKETGATE_ADMIN__LISTEN", "127.0.0.1"),
            ("WICKETGATE_ACME__CONTACT", "ops"),
        ],
        "--hostname *.example.net --hostname a.example.net --issuer lets-encrypt --key-type dsa --front-listen 443",
    )
    .unwrap_err();
    let expected = r#"key `front.upstream`: missing; say where requests go: `upstream = "http://127.0.0.1:8080"`, or --upstream
WICKETGATE_GATE__MATCH_HOST: `yes` is neither true nor false; write one of them
WICKETGATE_GATE__REDIRECT__ALSO_HOSTS: it is a list, which a variable cannot hold; write it in the file
WICKETGATE_GATE__REDIRECT__STATUS: `abc` is not a whole number; write digits only
WICKETGATE_ACME__CONTACT: `ops` is not a mail address; write it as in "ops@example.net"
WICKETGATE_GATE__REDIRECT__PORT: `0` is out of range; write 1 to 65535
WICKETGATE_ADMIN__LISTEN: `127.0.0.1` is no address to listen on; write an IP address and a port, as in "127.0.0.1:9180"
--issuer: `lets-encrypt` is no issuer; write "letsencrypt", "letsencrypt-staging", "zerossl", "google" or "embedded", or an https:// directory URL; did you mean "letsencrypt"?
--hostname: `*.example.net` is a wildcard: http-01 cannot prove control over one; list each hostname by itself
--key-type: `dsa` is no key type; write "ecdsa-p256", "ecdsa-p384", "rsa-2048", "rsa-3072" or "rsa-4096"
--front-listen: `443` is no address to listen on; write an IP address and a port, as in "[::]:443""#;
    assert_eq!(error.to_string(), expected);
    assert_eq!(error.problems().len(), expected.lines().count());
}

#[test]
fn nothing_at_all_is_refused() {
    for line in ["", "--upstream http://app:8080 --agree-terms"] {
        let message = without_file(&[], line).unwrap_err().to_string();
        assert!(message.starts_with("there is nothing to do: no configuration file"), "{message}");
        assert!(message.ends_with("or pass --hostname"), "{message}");
        assert_eq!(message.lines().count(), 1);
    }
    let message = without_file(&[], "--profile x").unwrap_err().to_string();
    assert!(message.contains("--profile: it is for the certificate of --hostname"), "{message}");
    let message = without_file(&[], "--hostname a.example.net").unwrap_err().to_string();
    assert!(
        message.starts_with("key `acme.terms-agreed`: ") && message.contains("--agree-terms"),
        "{message}"
    );
}

#[test]
fn a_flag_may_not_repeat_a_certificate_of_the_file() {
    let file = folder("tests/configs/valid/beside-squid.toml");
    let error = Config::load(Some(&file), [], &flags("--hostname null-i.net")).unwrap_err().to_string();
    let place = format!("{}:13", file.display());
    assert_eq!(
        error,
        format!(
            "--hostname: the certificate at {place} has the name `null-i.net` too; give this one a `name` of its own"
        )
    );
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing.toml");
    assert_eq!(
        load(&missing).unwrap_err().to_string(),
        format!(
            "{}: cannot be read: it does not exist; create it (`wicketgate config example` prints one) or name another",
            missing.display()
        )
    );
    let message = load(dir.path()).unwrap_err().to_string();
    assert!(message.ends_with("cannot be read: it is a folder; name a file in it"), "{message}");
    let large = dir.path().join("large.toml");
    fs::write(&large, vec![b'#'; (1 << 20) + 1]).unwrap();
    assert!(load(&large).unwrap_err().to_string().contains("larger than 1 MiB"));
    assert_eq!(Config::file(Some(missing.clone())), Some(missing));
}

#[test]
fn a_flood_of_problems_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("w.toml");
    let text: String = (0..1000).map(|i| format!("k{i} = 1\n")).collect();
    fs::write(&file, text).unwrap();
    let error = load(&file).unwrap_err();
    assert_eq!(error.problems().len(), 1000);
    assert_eq!(error.to_string().lines().count(), 51);
    assert!(error.to_string().ends_with("and 950 more"));
}

/// Lines that look like a configuration's: known keys and tables with values of every kind.
fn toml_like() -> impl Strategy<Value = String> {
    let keys: Vec<String> = Config::keys()
        .flat_map(|path| [path.replace('*', "x"), path.rsplit('.').next().unwrap_or(path).to_owned()])
        .chain(["open".into(), "colour".into(), "\"a.b\"".into()])
        .collect();
    let value = prop_oneof![
        prop::sample::select(vec![
            "true",
            "0",
            "-1",
            "443",
            "99999999999999999999",
            "1.5",
            "nan",
            "2026-11-01",
            "[]",
            "{}",
            "\"\"",
            "\"10s\"",
            "\"embedded\"",
            "\"demo\"",
            "[\"a.example.net\"]",
            "[\"*.a.b\", 3]",
            "\"unix:a\"",
            "\"http://a:1\"",
            "\"https://a@b/\"",
            "[[1], {}]",
            "{ kid = \"a\" }",
            "\"*\"",
            "\"\\u0000\"",
            "'''\n'''",
            "[\"::1\"]",
            "\"[::]:80\"",
            "\"a/?/*\"",
            "\"..\"",
        ])
        .prop_map(str::to_owned),
        "\\PC{0,12}",
        "[-a-z0-9:/.@\\[\\]]{0,16}".prop_map(|text| format!("\"{text}\"")),
    ];
    let key = prop::sample::select(keys);
    let line = prop_oneof![
        4 => (key.clone(), value).prop_map(|(key, value)| format!("{key} = {value}")),
        1 => key.clone().prop_map(|key| format!("[{key}]")),
        1 => key.prop_map(|key| format!("[[{key}]]")),
        1 => "\\PC{0,20}",
    ];
    prop::collection::vec(line, 0..12).prop_map(|lines| lines.join("\n"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_text_makes_the_loader_panic(text in toml_like()) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("w.toml");
        fs::write(&file, &text).unwrap();
        match load(&file) {
            Ok(config) => prop_assert!(config.state_dir.is_absolute()),
            Err(error) => {
                prop_assert!(!error.problems().is_empty());
                prop_assert!(!error.to_string().chars().any(|c| c.is_control() && c != '\n'));
            }
        }
    }

    #[test]
    fn no_variable_makes_the_loader_panic(name in "[A-Z_]{0,24}", text in "\\PC{0,20}") {
        let env = vec![(format!("WICKETGATE_{name}"), text.clone()), ("WICKETGATE_ACME__ISSUER".to_owned(), text)];
        let result = Config::load(None, env, &flags("--hostname a.example.net"));
        match result {
            Ok(config) => prop_assert_eq!(config.acme.issuer, Issuer::Embedded),
            Err(error) => prop_assert!(!error.to_string().chars().any(|c| c.is_control() && c != '\n')),
        }
    }
}

#[test]
fn openings() {
    let config = valid("openings.toml").gate.openings;
    let sets: Vec<_> = config
        .iter()
        .filter_map(|opening| match &opening.way {
            OpeningWay::Nftables { set, ports } => {
                Some((set.join(" "), ports.iter().copied().collect::<Vec<_>>(), opening.lease.as_secs()))
            }
            OpeningWay::Commands { .. } => None,
        })
        .collect();
    assert_eq!(
        sets,
        [
            ("inet wicketgate acme_open".to_owned(), vec![8080, 8081], 60),
            ("inet wicketgate acme_redirect".to_owned(), vec![80], 120)
        ]
    );
    let OpeningWay::Commands { open, close, environment, timeout } = &config[2].way else {
        panic!("{config:?}")
    };
    assert_eq!((open[1].as_str(), close[1].as_str(), timeout.as_secs()), ("open", "close", 10));
    assert_eq!(environment["API_TOKEN"], "x");
}
