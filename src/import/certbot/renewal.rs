//! What a renewal file asks for (pure), and what of it has no place here.

use std::net::IpAddr;

use super::conf::{Conf, Value, find};
use crate::config::KeyType;
use crate::words::printable;

/// How much of a setting is shown.
const SHOWN: usize = 300;

/// Keys that say where certbot has its things, or what it does anyway.
const INERT: &[&str] = &[
    "agree_dev_preview",
    "checkpoints",
    "config_dir",
    "config_file",
    "domains",
    "elliptic_curve",
    "email",
    "http01_address",
    "http01_port",
    "key_path",
    "cert_path",
    "chain_path",
    "fullchain_path",
    "func",
    "logs_dir",
    "manual_public_ip_logging_ok",
    "noninteractive_mode",
    "prepare",
    "rsa_key_size",
    "standalone_supported_challenges",
    "strict_permissions",
    "text_mode",
    "tls_sni_01_port",
    "tls_sni_01_address",
    "tos",
    "user_agent",
    "validate_hooks",
    "verbose_count",
    "webroot",
    "work_dir",
];

/// Keys that are read below, or that say nothing of their own.
const READ: &[&str] = &[
    "account",
    "allow_subset_of_names",
    "authenticator",
    "autorenew",
    "installer",
    "key_type",
    "preferred_profile",
    "required_profile",
    "server",
];

/// What a lineage's file asks for.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Settings {
    /// certbot's version that wrote it.
    pub(super) version: Option<String>,
    /// The directory's URL.
    pub(super) server: Option<String>,
    /// The account's folder.
    pub(super) account: Option<String>,
    /// Who proved the names.
    pub(super) authenticator: Option<String>,
    /// Who was told of new files.
    pub(super) installer: Option<String>,
    /// The key that is asked for.
    pub(super) key_type: Option<KeyType>,
    /// The profile.
    pub(super) profile: Option<String>,
    /// A certificate may lack names that fail.
    pub(super) may_lack_names: bool,
    /// It is not to be renewed.
    pub(super) is_left_alone: bool,
    /// Where `standalone` listened, if not on port 80 of every address.
    pub(super) listened: Option<(Option<IpAddr>, u16)>,
    /// The names in `webroot_map`.
    pub(super) webroot_names: Vec<String>,
    /// What has no place here, each with the reason.
    pub(super) left_behind: Vec<String>,
}

impl Settings {
    /// Reads them from a file.
    pub(super) fn of(conf: &Conf) -> Self {
        let entries = conf.section(&["renewalparams"]).unwrap_or_default();
        let text = |key: &str| find(entries, key).filter(|v| !v.is_nothing()).map(Value::text);
        let is_true = |key: &str| text(key).is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let map = conf.section(&["renewalparams", "webroot_map"]).unwrap_or_default();
        let mut settings = Self {
            version: conf.top("version").map(|version| printable(&version.text(), 20)),
            server: text("server"),
            account: text("account"),
            // Plugins of others had the name of their package before their own once.
            authenticator: text("authenticator").map(|name| last_part(&name, ':')),
            installer: text("installer").map(|name| last_part(&name, ':')),
            profile: text("required_profile").or_else(|| text("preferred_profile")),
            may_lack_names: is_true("allow_subset_of_names"),
            is_left_alone: find(entries, "autorenew").is_some_and(|v| v.text().eq_ignore_ascii_case("false")),
            webroot_names: map.iter().map(|(name, _)| name.clone()).collect(),
            ..Self::default()
        };
        let mut left = Vec::new();
        settings.key_type = key_type(&text, &mut left);
        settings.listened = listened(&settings, &text);
        if let Some(value) = conf.top("renew_before_expiry") {
            left.push(told(
                "renew_before_expiry",
                value,
                "renewals go by the CA's renewal information and by parts of the lifetime",
            ));
        }
        for (key, value) in entries {
            let is_told_below = key == "webroot_path" && !map.is_empty();
            if value.is_nothing() || is_told_below || READ.contains(&key.as_str()) {
                continue;
            }
            left.extend(reason(key, value, &settings).map(|reason| told(key, value, reason)));
        }
        if !map.is_empty() {
            let roots = map.iter().map(|(name, root)| format!("{name} = {}", root.text()));
            let roots = printable(&roots.collect::<Vec<_>>().join(", "), SHOWN);
            left.push(format!("`[[webroot_map]]` ({roots}): {NO_FILES}"));
        }
        if text("required_profile").is_some() {
            left.push(
                "`required_profile`: it is asked for, but where the CA refuses it, the order is made without"
                    .to_owned(),
            );
        }
        left.extend(settings.of_plugins());
        settings.left_behind = left;
        settings
    }

    /// Whether the names were proven in DNS, or by hand.
    pub(super) fn is_proven_elsewhere(&self) -> bool {
        self.authenticator.as_deref().is_some_and(|name| name == "manual" || is_dns(name))
    }

    /// The server that certbot told of new files, where there is a command for it.
    pub(super) fn deploy(&self) -> Option<&'static str> {
        match self.installer.as_deref() {
            Some("nginx") => Some("nginx"),
            Some("apache") => Some("apache"),
            _ => None,
        }
    }

    fn of_plugins(&self) -> Vec<String> {
        let mut left = Vec::new();
        match self.authenticator.as_deref() {
            Some("standalone" | "webroot") | None => {}
            Some(name @ ("nginx" | "apache")) => left.push(format!(
                "`authenticator = {name}`: {name} answered for certbot on port 80, which is the gate's now"
            )),
            Some(name) if name == "manual" || is_dns(name) => left.push(format!(
                "`authenticator = {}`: the names are proven by http-01 now, so port 80 of each must lead to the gate (`wicketgate check` tells)",
                printable(name, 60)
            )),
            Some(name) => left.push(format!(
                "`authenticator = {}`: it is not known here; the names are proven by http-01 on port 80",
                printable(name, 60)
            )),
        }
        match (self.installer.as_deref(), self.deploy()) {
            (_, Some(server)) => left.push(format!(
                "`installer = {server}`: {server} is tested, reloaded and looked at after each renewal (`deploy`), and its own files are left alone: have it read the certificate's new place"
            )),
            (Some(name), None) => left.push(format!(
                "`installer = {}`: it is not known here; a [deploy.NAME] table with a `reload` command takes its place",
                printable(name, 60)
            )),
            (None, None) => {}
        }
        left
    }
}

/// The folder of the lineage's links below `live`, as the file names it.
pub(super) fn live_folder(conf: &Conf) -> Option<String> {
    let path = ["fullchain", "cert", "privkey", "chain"].iter().find_map(|key| conf.top(key))?.text();
    let (folder, _) = path.rsplit_once('/')?;
    folder_name(folder)
}

/// The folder of its versions below `archive`.
pub(super) fn archive_folder(conf: &Conf) -> Option<String> {
    folder_name(conf.top("archive_dir")?.text().trim_end_matches('/'))
}

fn folder_name(path: &str) -> Option<String> {
    let name = last_part(path, '/');
    (!matches!(name.as_str(), "" | "." | "..")).then_some(name)
}

fn last_part(text: &str, separator: char) -> String {
    text.rsplit(separator).next().unwrap_or(text).to_owned()
}

fn is_dns(authenticator: &str) -> bool {
    authenticator.starts_with("dns-") || authenticator.starts_with("dns_")
}

fn told(key: &str, value: &Value, reason: &str) -> String {
    format!("`{}`: {reason}", shown(key, &value.text()))
}

/// Keys whose values are no secrets, as options are written on a command line.
const HARMLESS: &[&str] = &[
    "agree-tos",
    "allow-subset-of-names",
    "authenticator",
    "autorenew",
    "cert-name",
    "config-dir",
    "deploy-hook-timeout",
    "domain",
    "domains",
    "dry-run",
    "elliptic-curve",
    "email",
    "expand",
    "force-renewal",
    "http-01-address",
    "http-01-port",
    "installer",
    "keep-until-expiring",
    "key-type",
    "logs-dir",
    "max-log-backups",
    "must-staple",
    "no-eff-email",
    "non-interactive",
    "pref-challs",
    "preferred-challenges",
    "preferred-chain",
    "preferred-profile",
    "quiet",
    "redirect",
    "renew-before-expiry",
    "renew-by-default",
    "required-profile",
    "reuse-key",
    "rsa-key-size",
    "server",
    "staging",
    "standalone",
    "text",
    "webroot",
    "webroot-path",
    "work-dir",
];

/// A key and what may be shown of its value: all of it where that is harmless, of a command the program.
pub(super) fn shown(key: &str, value: &str) -> String {
    let option = key.trim().to_ascii_lowercase().replace('_', "-");
    let key = printable(key, 60);
    if option.ends_with("-hook") {
        let mut words = value.split_whitespace();
        let program = words.next().unwrap_or_default().trim_matches(['"', '\'']);
        // `KEY=VALUE program` is a command too.
        let program = if program.starts_with('/') || !program.contains('=') { program } else { "…" };
        let more = if words.next().is_some() { " …" } else { "" };
        return format!("{key} = {}{more}", printable(program, SHOWN));
    }
    let is_path = option.starts_with("dns-") && option.ends_with("credentials");
    // Of a URL a part may be a password.
    if (HARMLESS.contains(&option.as_str()) || is_path) && !value.contains('@') || option == "email" {
        return format!("{key} = {}", printable(value, SHOWN));
    }
    format!("{key} (its value is not shown)")
}

const NO_FILES: &str = "no files are written into web roots: the gate answers on port 80 from memory";

/// Why a setting is left behind; `None` where nothing is lost.
fn reason(key: &str, value: &Value, settings: &Settings) -> Option<&'static str> {
    Some(match key {
        "renew_hook" | "deploy_hook" => {
            "where it reloads nginx, apache, squid, haproxy or hitch, write that name into `deploy` of the certificate; anything else as the `reload` of a [deploy.NAME] table: a program and its arguments, or a script, since no shell is involved; it finds RENEWED_LINEAGE and RENEWED_DOMAINS as before"
        }
        "pre_hook" | "post_hook" => {
            "nothing is run before and after a renewal: what stopped a server to free port 80 is not needed where the gate holds the port, and what reloaded one is the `reload` of a [deploy.NAME] table"
        }
        "manual_auth_hook" | "manual_cleanup_hook" => {
            "nobody is asked to put a proof in place: the gate answers for itself"
        }
        "webroot_path" => NO_FILES,
        "preferred_chain" => "the chain that the CA sends first is taken",
        "must_staple" => "it is not asked for: the public CAs have ended OCSP",
        "reuse_key" => {
            "each certificate gets a key of its own: what names the old key (TLSA records, pins) must follow"
        }
        "pref_challs" if value.items().iter().any(|item| item.starts_with("http")) => return None,
        "pref_challs" => "http-01 is the only challenge here",
        _ if INERT.contains(&key) || is_of(key, "apache_") || is_of(key, "nginx_") => return None,
        _ if is_of(key, "dns_") && key.ends_with("credentials") => {
            "no DNS plugin is needed: remove the file, and its rights at the provider, once nobody uses it"
        }
        _ if is_of(key, "dns_") => return None,
        // Old files list every option there was; those of other plugins say nothing.
        _ if settings.version.is_none() => return None,
        _ => "it has no equivalent here",
    })
}

fn is_of(key: &str, prefix: &str) -> bool {
    key.starts_with(prefix)
}

/// The key that is asked for. What there is not here is told, and the usual one is made.
fn key_type(text: &impl Fn(&str) -> Option<String>, left: &mut Vec<String>) -> Option<KeyType> {
    let kind = text("key_type");
    match kind.as_deref() {
        Some("ecdsa") => match text("elliptic_curve").as_deref() {
            None | Some("secp256r1") => Some(KeyType::EcdsaP256),
            Some("secp384r1") => Some(KeyType::EcdsaP384),
            Some(other) => {
                let other = printable(other, 40);
                left.push(format!("`elliptic_curve = {other}`: there are secp256r1 and secp384r1 here"));
                None
            }
        },
        // Before 1.25 nothing was written of it, and it was RSA.
        None | Some("rsa") => match text("rsa_key_size").as_deref() {
            None | Some("2048") => Some(KeyType::Rsa2048),
            Some("3072") => Some(KeyType::Rsa3072),
            Some("4096") => Some(KeyType::Rsa4096),
            Some(other) => {
                let other = printable(other, 40);
                left.push(format!("`rsa_key_size = {other}`: there are 2048, 3072 and 4096 here"));
                None
            }
        },
        Some(other) => {
            left.push(format!("`key_type = {}`: there are ecdsa and rsa here", printable(other, 40)));
            None
        }
    }
}

/// Where certbot's own server listened; others than `standalone` have a server in front of them.
fn listened(settings: &Settings, text: &impl Fn(&str) -> Option<String>) -> Option<(Option<IpAddr>, u16)> {
    if settings.authenticator.as_deref() != Some("standalone") {
        return None;
    }
    let port = text("http01_port").and_then(|port| port.parse().ok()).filter(|port| *port != 0).unwrap_or(80);
    let address = text("http01_address").and_then(|address| address.parse::<IpAddr>().ok());
    (port != 80 || address.is_some()).then_some((address, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Settings {
        let conf = Conf::parse(text);
        assert_eq!(conf.troubles, [""; 0]);
        Settings::of(&conf)
    }

    fn keys(settings: &Settings) -> Vec<&str> {
        settings.left_behind.iter().filter_map(|told| told.split(['`', ' ']).nth(1)).collect()
    }

    /// As 0.9 wrote it: every option there was.
    const OLD: &str = "cert = /etc/letsencrypt/live/a.test/cert.pem
privkey = /etc/letsencrypt/live/a.test/privkey.pem
chain = /etc/letsencrypt/live/a.test/chain.pem
fullchain = /etc/letsencrypt/live/a.test/fullchain.pem

# Options and defaults used in the renewal process
[renewalparams]
no_self_upgrade = False
apache_enmod = a2enmod
no_verify_ssl = False
ifaces = None
register_unsafely_without_email = False
uir = None
installer = none
config_dir = /etc/letsencrypt
text_mode = True
func = <function obtain_cert at 0x30c9500>
staging = False
prepare = False
work_dir = /var/lib/letsencrypt
tos = True
http01_port = 80
email = ops@a.test
csr = None
redirect = None
renew_by_default = True
authenticator = webroot
domains = a.test,
rsa_key_size = 4096
checkpoints = -1
apache_le_vhost_ext = -le-ssl.conf
account = 0123
server = https://acme-v01.api.letsencrypt.org/directory
standalone_supported_challenges = \"http-01,tls-sni-01\"
webroot = True
webroot_path = /var/www/html,
[[webroot_map]]
a.test = /var/www/html
";

    #[test]
    fn an_old_file_with_all_its_defaults() {
        let found = settings(OLD);
        assert_eq!(found.version, None);
        assert_eq!(found.server.as_deref(), Some("https://acme-v01.api.letsencrypt.org/directory"));
        assert_eq!((found.account.as_deref(), found.key_type), (Some("0123"), Some(KeyType::Rsa4096)));
        assert_eq!(found.authenticator.as_deref(), Some("webroot"));
        assert_eq!(found.webroot_names, ["a.test"]);
        assert_eq!(keys(&found), ["[[webroot_map]]"]);
        assert_eq!(live_folder(&Conf::parse(OLD)).as_deref(), Some("a.test"));
    }

    #[test]
    fn files_of_1_2_3_and_5() {
        for (text, key_type, left) in [
            // 1.12: nothing of the key, and it is RSA.
            (
                "version = 1.12.0\narchive_dir = /etc/letsencrypt/archive/a.test\n[renewalparams]\naccount = 0123\nauthenticator = nginx\ninstaller = nginx\nserver = https://acme-v02.api.letsencrypt.org/directory\n",
                Some(KeyType::Rsa2048),
                vec!["authenticator", "installer"],
            ),
            // 2.1, as Debian 12 has it.
            (
                "# renew_before_expiry = 30 days\nversion = 2.1.0\n[renewalparams]\naccount = 0123\npre_hook = systemctl stop nginx\nauthenticator = standalone\npreferred_chain = \"Foo, Bar\"\nkey_type = ecdsa\nelliptic_curve = secp384r1\n",
                Some(KeyType::EcdsaP384),
                vec!["pre_hook", "preferred_chain"],
            ),
            // 3.0 with a DNS plugin.
            (
                "renew_before_expiry = 10 days\nversion = 3.0.1\n[renewalparams]\naccount = 0123\nauthenticator = dns-cloudflare\ndns_cloudflare_credentials = /root/cf.ini\ndns_cloudflare_propagation_seconds = 60\nkey_type = rsa\nrsa_key_size = 3072\nreuse_key = True\n",
                Some(KeyType::Rsa3072),
                vec!["renew_before_expiry", "dns_cloudflare_credentials", "reuse_key", "authenticator"],
            ),
            // 5.1
            (
                "version = 5.1.0\n[renewalparams]\naccount = 0123\nauthenticator = manual\nmanual_auth_hook = /a\nkey_type = ecdsa\nelliptic_curve = secp521r1\npreferred_profile = shortlived\nsomething_new = 7\nissuance_timeout = None\n[acme_renewal_info]\nari_retry_after = 2026-11-27T12:00:00\n",
                None,
                vec!["elliptic_curve", "manual_auth_hook", "something_new", "authenticator"],
            ),
        ] {
            let found = settings(text);
            assert_eq!(found.account.as_deref(), Some("0123"), "{text}");
            assert_eq!(found.key_type, key_type, "{text}");
            assert_eq!(keys(&found), left, "{text}");
        }
    }

    #[test]
    fn what_is_carried_over() {
        let found = settings(
            "version = 5.0.0\n[renewalparams]\nautorenew = False\nallow_subset_of_names = True\nrequired_profile = tlsserver\nauthenticator = standalone\nhttp01_port = 8888\nhttp01_address = 127.0.0.1\ninstaller = apache\npref_challs = http-01,\n",
        );
        assert!(found.is_left_alone && found.may_lack_names);
        assert_eq!(found.profile.as_deref(), Some("tlsserver"));
        assert_eq!(found.listened, Some((Some("127.0.0.1".parse().unwrap()), 8888)));
        assert_eq!(found.deploy(), Some("apache"));
        assert_eq!(keys(&found), ["required_profile", "installer"]);
    }

    #[test]
    fn a_secret_is_not_shown() {
        let found = settings("version = 2.0\n[renewalparams]\nfoo_api_key = abcd\n");
        assert_eq!(found.left_behind, ["`foo_api_key (its value is not shown)`: it has no equivalent here"]);
        for (key, value, expected) in [
            ("eab-hmac-key", "SECRET", "eab-hmac-key (its value is not shown)"),
            ("dns_foo_api_key", "SECRET", "dns_foo_api_key (its value is not shown)"),
            ("something_new", "SECRET", "something_new (its value is not shown)"),
            ("server", "https://u:SECRET@ca.test/", "server (its value is not shown)"),
            ("manual_auth_hook", "/x --password SECRET", "manual_auth_hook = /x …"),
            ("pre-hook", "TOKEN=SECRET /x", "pre-hook = … …"),
            ("deploy_hook", "/x", "deploy_hook = /x"),
            ("rsa-key-size", "4096", "rsa-key-size = 4096"),
            ("email", "a@b.test", "email = a@b.test"),
        ] {
            assert_eq!(shown(key, value), expected);
        }
    }

    #[test]
    fn folders_are_plain_names() {
        let folder = |path: &str| live_folder(&Conf::parse(&format!("cert = {path}\n")));
        assert_eq!(folder("/etc/letsencrypt/live/a.test/cert.pem").as_deref(), Some("a.test"));
        for path in ["cert.pem", "/cert.pem", "/x/../cert.pem", "''"] {
            assert_eq!(folder(path), None, "{path}");
        }
        assert_eq!(archive_folder(&Conf::parse("archive_dir = /a/b/\n")).as_deref(), Some("b"));
    }

    proptest::proptest! {
        #[test]
        fn any_text_has_settings(text in "\\PC{0,300}") {
            let conf = Conf::parse(&format!("version = 2.1.0\n[renewalparams]\n{text}"));
            let told = Settings::of(&conf).left_behind;
            proptest::prop_assert!(told.iter().all(|sentence| !sentence.contains('\n')));
            let _ = (live_folder(&conf), archive_folder(&conf));
        }
    }
}
