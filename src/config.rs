//! What the administrator wants, checked: a [`Config`] exists only if every value in it makes sense.
//!
//! Three sources, later ones win: the file with its `include`s, environment variables
//! (`WICKETGATE_ACME__ISSUER`), and the command line's flags.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use http::{StatusCode, Uri};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::certificate::Algorithm;
use crate::hostname::{Hostname, HostnameError, Identifier};

mod acme;
mod certificates;
mod deploy;
mod document;
mod endpoint;
mod environment;
mod files;
mod flags;
mod front;
mod gate;
mod keys;
mod load;
mod notify;
mod opening;
mod problem;
mod section;
mod upstream;

pub use certificates::is_file_name as is_lineage_name;
pub use endpoint::{Endpoint, Protocol};
pub use environment::environment;
pub(crate) use files::is_common;
pub use flags::Flags;
pub use opening::{Closing, OpeningRecord};
pub use problem::{ConfigError, Problem};

/// The file that is read when the command line names none.
pub const DEFAULT_FILE: &str = "/etc/wicketgate/wicketgate.toml";

/// Where the state is kept where nothing else is said.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/wicketgate";

/// A whole configuration, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where accounts, keys and certificates are kept; absolute.
    pub state_dir: PathBuf,
    /// The CA.
    pub acme: Acme,
    /// Port 80.
    pub gate: Gate,
    /// The TLS front, where there is one.
    pub front: Option<Front>,
    /// Certificates to obtain, in the order of the file; their names are unique.
    pub certificates: Vec<CertificateRequest>,
    /// `[[certificate]]` with `files`: somebody else's, served by the front.
    pub foreign_certificates: Vec<ForeignCertificate>,
    /// Servers that take certificates, by name; those that certificates refer to exist.
    pub deploy: BTreeMap<String, DeployTarget>,
    /// The helper, where a unit of its own runs it.
    pub helper: Option<HelperUnit>,
    /// Whom to tell.
    pub notify: Notify,
    /// The local socket.
    pub admin: Admin,
    /// Hex SHA-256 over all values from all sources: equal digests mean equal configurations.
    pub digest: String,
    /// Whom `run` becomes once everything is bound, and his first group; `None`: the owner of the state directory.
    pub user: Option<(String, Option<String>)>,
    /// How far `run` confines itself.
    pub sandbox: Sandbox,
    /// How long `run` waits for open connections when it stops (`grace`).
    pub grace: Duration,
    /// Things that were accepted but deserve a word, one sentence each.
    pub warnings: Vec<String>,
    /// The files that it was read from, links resolved.
    pub files: Vec<PathBuf>,
}

/// `[acme]`
#[derive(Debug, Clone, PartialEq)]
pub struct Acme {
    /// Who signs.
    pub issuer: Issuer,
    /// `mailto:` URLs of the account.
    pub contact: Vec<String>,
    /// The CA's terms were agreed to.
    pub terms_agreed: bool,
    /// PEM file with roots to trust for the CA's own API, besides the public ones.
    pub roots: Option<PathBuf>,
    /// CAs to go to, in this order, when the one before is down, refuses for good or is forbidden by CAA.
    pub fallback_issuers: Vec<Issuer>,
    /// The staging directory of an issuer that is configured by its URL.
    pub staging: Option<Issuer>,
    /// External account bindings (RFC 8555 section 7.3.4), one for each issuer that wants one.
    pub eab: Vec<ExternalAccount>,
    /// How many orders may be under way at once.
    pub concurrency: usize,
    /// Whether a preflight stands before each order; `None` leaves it to what can be known of the CA.
    pub preflight: Option<bool>,
    /// Name servers for the preflight; the system's where there are none.
    pub resolvers: Vec<SocketAddr>,
    /// The CA's limits, where they are not those that are known of it.
    pub limits: RateLimits,
}

impl Acme {
    /// The issuers in the order in which they are asked.
    pub fn issuers(&self) -> impl Iterator<Item = &Issuer> {
        std::iter::once(&self.issuer).chain(&self.fallback_issuers)
    }

    /// Where mistakes cost nothing: the staging directory of one of the configured issuers.
    pub fn staging_of(&self, issuer: &Issuer) -> Option<Issuer> {
        match issuer {
            Issuer::LetsEncrypt => Some(Issuer::LetsEncryptStaging),
            Issuer::Directory(_) if *issuer == self.issuer => self.staging.clone(),
            _ => None,
        }
    }

    /// The external account binding for an issuer.
    pub fn eab_for(&self, issuer: &Issuer) -> Option<&ExternalAccount> {
        self.eab.iter().find(|eab| eab.issuer == *issuer)
    }
}

/// `limits = { failed-authorizations = "5 in 1h", … }`; what is not set is what is known of the CA.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RateLimits {
    /// Failed authorizations for one identifier.
    pub failed_authorizations: Option<Rate>,
    /// Certificates for the same set of identifiers.
    pub certificates_per_set: Option<Rate>,
    /// Certificates below one registered domain.
    pub certificates_per_domain: Option<Rate>,
    /// New orders of the account.
    pub orders: Option<Rate>,
    /// New accounts from this address.
    pub accounts: Option<Rate>,
}

/// A limit of a CA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rate {
    /// `"none"`
    Unlimited,
    /// `"5 in 1h"`: a bucket of five that is full again after an hour.
    Limited {
        /// How many at once; at least 1.
        count: u32,
        /// How long an empty bucket takes to fill.
        per: Duration,
    },
}

/// A certification authority's ACME directory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Issuer {
    /// `letsencrypt`
    LetsEncrypt,
    /// `letsencrypt-staging`
    LetsEncryptStaging,
    /// `zerossl`
    ZeroSsl,
    /// `google`
    Google,
    /// `embedded`: the CA in this binary, for demos and tests.
    Embedded,
    /// Any other, by its directory URL (https).
    Directory(Uri),
}

impl Issuer {
    /// The directory's URL; `None` for the embedded CA, whose port is chosen when it starts.
    pub fn directory_url(&self) -> Option<String> {
        Some(match self {
            Self::LetsEncrypt => "https://acme-v02.api.letsencrypt.org/directory".to_owned(),
            Self::LetsEncryptStaging => "https://acme-staging-v02.api.letsencrypt.org/directory".to_owned(),
            Self::ZeroSsl => "https://acme.zerossl.com/v2/DV90".to_owned(),
            Self::Google => "https://dv.acme-v02.api.pki.goog/directory".to_owned(),
            Self::Embedded => return None,
            Self::Directory(url) => url.to_string(),
        })
    }

    /// A short name that can be a folder's: `letsencrypt`, or a URL's host, port and path with `_`
    /// for everything that is not a letter, digit, dot or hyphen.
    pub fn name(&self) -> String {
        match self {
            Self::LetsEncrypt => "letsencrypt".to_owned(),
            Self::LetsEncryptStaging => "letsencrypt-staging".to_owned(),
            Self::ZeroSsl => "zerossl".to_owned(),
            Self::Google => "google".to_owned(),
            Self::Embedded => "embedded".to_owned(),
            Self::Directory(url) => url
                .to_string()
                .trim_start_matches("https://")
                .trim_end_matches('/')
                .chars()
                .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '_' })
                .collect(),
        }
    }
}

/// `eab = { kid = "…", hmac-key-file = "…", issuer = "…" }`, or a list of them.
#[derive(Debug, Clone, PartialEq)]
pub struct ExternalAccount {
    /// Whose account it binds: `acme.issuer` where nothing else is said.
    pub issuer: Issuer,
    /// Key identifier from the CA.
    pub kid: String,
    /// File with the base64url HMAC key.
    pub hmac_key_file: PathBuf,
}

/// `[gate]`
#[derive(Debug, Clone, PartialEq)]
pub struct Gate {
    /// Addresses to listen on.
    pub listen: Vec<SocketAddr>,
    /// When.
    pub open: GateOpen,
    /// What else must open for a CA.
    pub openings: Vec<Opening>,
    /// What is redirected, and how.
    pub redirect: Redirect,
    /// A token is answered only for the hosts of its order.
    pub match_host: bool,
    /// Peers whose X-Forwarded-For tells the client's address.
    pub trusted_proxies: Vec<IpNet>,
    /// Most connections at once.
    pub max_connections: usize,
    /// Of these, most of one network: an IPv4 address, or 64 bits of IPv6.
    pub max_connections_per_network: usize,
}

/// `[[gate.opening]]`: a door before the gate, a packet filter's as a rule, that is open during orders.
#[derive(Debug, Clone, PartialEq)]
pub struct Opening {
    /// How it is opened.
    pub way: OpeningWay,
    /// How long it stays open once nobody renews it: by the kernel's own clock where it is a set of nftables, by the
    /// helper's otherwise.
    pub lease: Duration,
}

/// How a door is opened and shut.
#[derive(Debug, Clone, PartialEq)]
pub enum OpeningWay {
    /// By elements with a timeout in a set of nftables.
    Nftables {
        /// Family, table and name of the set.
        set: [String; 3],
        /// What is put in.
        ports: BTreeSet<u16>,
    },
    /// By commands.
    Commands {
        /// Opens it; run once more, it changes nothing.
        open: Vec<String>,
        /// Shuts it; run once more, it changes nothing.
        close: Vec<String>,
        /// Variables for both.
        environment: BTreeMap<String, String>,
        /// For each of them.
        timeout: Duration,
    },
}

/// How far `run` confines itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sandbox {
    /// As far as the kernel goes.
    Auto,
    /// Wholly, or it does not start.
    Required,
    /// Not at all.
    Off,
}

/// When the gate listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GateOpen {
    /// All the time.
    Always,
    /// While a CA is expected.
    DuringOrders,
}

/// `redirect = { status = 308, port = 443, hosts = "configured" }`
#[derive(Debug, Clone, PartialEq)]
pub struct Redirect {
    /// 301, 302, 307 or 308, once a certificate for the host is served; 307 before that.
    pub status: StatusCode,
    /// The port in `Location`; 443 is left out there.
    pub port: u16,
    /// Which hosts.
    pub hosts: RedirectHosts,
}

/// Which hosts are redirected.
#[derive(Debug, Clone, PartialEq)]
pub enum RedirectHosts {
    /// Any host of valid form.
    Any,
    /// The certificates' and sites' identifiers, and `also-hosts`; exact names.
    Configured(BTreeSet<Identifier>),
}

/// `[front]`
#[derive(Debug, Clone, PartialEq)]
pub struct Front {
    /// Addresses to listen on.
    pub listen: Vec<SocketAddr>,
    /// Where requests go that no site claims.
    pub upstream: Upstream,
    /// Upstreams by host name.
    pub sites: Vec<Site>,
    /// The certificate for clients that send no SNI.
    pub default_certificate: Option<String>,
    /// Peers whose PROXY header and X-Forwarded-For tell the client's address.
    pub trusted_proxies: Vec<IpNet>,
    /// The largest body of a request, bytes; `None`: as large as it is.
    pub max_body: Option<u64>,
    /// The value of Strict-Transport-Security (RFC 6797), where one is to be sent.
    pub hsts: Option<String>,
    /// A file with the keys of session tickets, which other nodes have too.
    pub ticket_key_file: Option<PathBuf>,
    /// Where a line is written for each response, if anywhere.
    pub access_log: Option<AccessLog>,
    /// Most connections at once, over all threads.
    pub max_connections: usize,
    /// Of these, most of one network: an IPv4 address, or 64 bits of IPv6.
    pub max_connections_per_network: usize,
    /// Of these, most in a handshake.
    pub max_handshakes: usize,
    /// Threads, each with its own listener and upstream pool.
    pub threads: usize,
    /// From a connection's start to the end of its TLS handshake.
    pub handshake_timeout: Duration,
    /// For a request's header, and for keep-alive idling.
    pub idle_timeout: Duration,
    /// To connect to the upstream.
    pub connect_timeout: Duration,
    /// From a request's end to the response's header, and between two pieces of its body.
    pub response_timeout: Duration,
}

/// `front.access-log`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLog {
    /// Where its lines go.
    pub place: LogPlace,
    /// What they look like.
    pub format: LogFormat,
}

/// Where a log's lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogPlace {
    /// `-`
    Stdout,
    /// A file, or a pipe with a name.
    File(PathBuf),
}

impl fmt::Display for LogPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => f.write_str("on the standard output"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// What a line of the access log looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Apache's and nginx's "combined".
    Combined,
    /// An object with more in it.
    Json,
}

/// `[[front.site]]`
#[derive(Debug, Clone, PartialEq)]
pub struct Site {
    /// What its clients may ask for.
    pub hostnames: Vec<SiteName>,
    /// Where its requests go.
    pub upstream: Upstream,
}

/// A name that a site answers to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum SiteName {
    /// That one.
    Exact(Hostname),
    /// `*.PARENT`, by its parent: every name with exactly one label more (RFC 9525 section 6.3).
    Below(Hostname),
}

impl SiteName {
    /// Whether that name is one of them.
    pub fn matches(&self, name: &Hostname) -> bool {
        match self {
            Self::Exact(own) => own == name,
            Self::Below(parent) => {
                name.as_str().split_once('.').is_some_and(|(_, rest)| rest == parent.as_str())
            }
        }
    }
}

impl FromStr for SiteName {
    type Err = HostnameError;

    fn from_str(text: &str) -> Result<Self, HostnameError> {
        match text.strip_prefix("*.") {
            // With a single label too, as in a network of one's own. A second star is no hostname.
            Some(parent) => Hostname::parse_any(parent)
                .map(Self::Below)
                .map_err(|_| HostnameError::Malformed(text.to_owned())),
            None => text.parse().map(Self::Exact),
        }
    }
}

impl fmt::Display for SiteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => name.fmt(f),
            Self::Below(parent) => write!(f, "*.{parent}"),
        }
    }
}

/// Where the front sends requests.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Upstream {
    /// `http://HOST[:PORT]`, `unix:/PATH`: HTTP/1.1.
    Http(Place),
    /// `h2c://HOST[:PORT]`, `h2c+unix:/PATH`: HTTP/2 without TLS and from its first byte (RFC 9113 section 3.3).
    H2c(Place),
    /// `tcp://HOST:PORT`, `tcp+unix:/PATH`: what comes out of TLS goes on as it is.
    Raw(Raw),
    /// `demo`: the built-in page that shows the certificate it is served with.
    Demo,
}

/// An upstream that is given bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Raw {
    /// Where it listens.
    pub place: Place,
    /// It is told of each client first, by a PROXY header of version 2.
    pub proxy_protocol: bool,
    /// The protocols that it speaks, as clients are offered them (ALPN); empty: none are offered.
    pub alpn: Vec<String>,
}

/// Where an upstream listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Place {
    /// Resolved at each connect.
    Tcp {
        /// Name or address, IPv6 without brackets.
        host: String,
        /// Port.
        port: u16,
    },
    /// A socket in the file system.
    Unix(PathBuf),
}

impl Upstream {
    /// Where it listens; the demo page is nowhere.
    pub fn place(&self) -> Option<&Place> {
        match self {
            Self::Http(place) | Self::H2c(place) => Some(place),
            Self::Raw(raw) => Some(&raw.place),
            Self::Demo => None,
        }
    }
}

/// How a CA finds out whose a name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChallengeKind {
    /// It asks port 80 (RFC 8555 section 8.3).
    #[default]
    Http01,
    /// It asks the front (RFC 8737): for hosts whose port 80 cannot be reached at all.
    TlsAlpn01,
}

/// `[[certificate]]` with `files`: obtained and renewed by somebody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignCertificate {
    /// `name`, or that of the folder that `fullchain` is in.
    pub name: String,
    /// PEM: the certificate and those that lead from it to a root.
    pub fullchain: PathBuf,
    /// PEM: its private key.
    pub key: PathBuf,
}

/// `[[certificate]]`
#[derive(Debug, Clone, PartialEq)]
pub struct CertificateRequest {
    /// The lineage's name: `name`, or the first identifier.
    pub name: String,
    /// What it shall cover; not empty, no duplicates.
    pub identifiers: Vec<Identifier>,
    /// How the CA finds out that they are ours.
    pub challenge: ChallengeKind,
    /// The key to make; or two of different algorithms, for a pair of certificates, the one that is wanted
    /// most first.
    pub key_types: Vec<KeyType>,
    /// The CA's profile to ask for, where its directory offers it.
    pub profile: Option<String>,
    /// May it be obtained without names that fail?
    pub partial: Partial,
    /// Keys of [`Config::deploy`].
    pub deploy: Vec<String>,
}

/// `partial = "emergency"`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Partial {
    /// A certificate has all its names or is not obtained.
    Never,
    /// Names that fail are left out when less than a tenth of the present certificate's lifetime is left.
    #[default]
    Emergency,
    /// Names that fail are left out at once.
    Always,
}

/// The kind of private key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum KeyType {
    /// ECDSA on P-256.
    #[default]
    EcdsaP256,
    /// ECDSA on P-384.
    EcdsaP384,
    /// RSA, 2048 bits.
    #[serde(rename = "rsa-2048")]
    Rsa2048,
    /// RSA, 3072 bits.
    #[serde(rename = "rsa-3072")]
    Rsa3072,
    /// RSA, 4096 bits.
    #[serde(rename = "rsa-4096")]
    Rsa4096,
}

impl KeyType {
    /// What such a key signs with.
    pub fn algorithm(self) -> Algorithm {
        match self {
            Self::EcdsaP256 | Self::EcdsaP384 => Algorithm::Ecdsa,
            Self::Rsa2048 | Self::Rsa3072 | Self::Rsa4096 => Algorithm::Rsa,
        }
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(certificates::key_type_name(*self))
    }
}

/// `[deploy.NAME]`: a server that takes certificates.
#[derive(Debug, Clone, PartialEq)]
pub struct DeployTarget {
    /// What it is, where it is one that is known: by `service`, or by the table's name.
    pub service: Option<Service>,
    /// The command that tests the server's configuration: program and arguments, no shell.
    pub check: Option<Vec<String>>,
    /// The command that makes the server read the new files; there is one where `service` is `None`.
    pub reload: Option<Vec<String>>,
    /// The command that starts a server which a reload has ended.
    pub start: Option<Vec<String>>,
    /// `reload` is run once for each certificate, as certbot runs its hooks.
    pub each: bool,
    /// Where the server shows its certificates; nothing is proven where there is none.
    pub verify: Vec<Endpoint>,
    /// How long the server may take to show what it was given.
    pub verify_timeout: Duration,
    /// Files that are written for the server.
    pub copies: Option<Copies>,
    /// HAProxy's runtime API: a UNIX socket.
    pub runtime_socket: Option<PathBuf>,
    /// Variables for the commands, besides the usual few.
    pub environment: BTreeMap<String, String>,
    /// How long a command may run.
    pub timeout: Duration,
}

impl Default for DeployTarget {
    fn default() -> Self {
        Self {
            service: None,
            check: None,
            reload: None,
            start: None,
            each: false,
            verify: Vec::new(),
            verify_timeout: Duration::from_secs(30),
            copies: None,
            runtime_socket: None,
            environment: BTreeMap::new(),
            timeout: Duration::from_secs(60),
        }
    }
}

/// A server whose ways are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// nginx
    Nginx,
    /// Squid
    Squid,
    /// HAProxy
    Haproxy,
    /// Apache httpd
    Apache,
    /// hitch
    Hitch,
}

/// `copy = { fullchain = "…", key = "…", owner = "root:proxy", mode = "0640" }`
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Copies {
    /// The leaf alone.
    pub cert: Option<PathBuf>,
    /// Everything but the leaf.
    pub chain: Option<PathBuf>,
    /// Leaf and chain.
    pub fullchain: Option<PathBuf>,
    /// The private key.
    pub key: Option<PathBuf>,
    /// Leaf, chain and key in one.
    pub combined: Option<PathBuf>,
    /// `user`, `user:group` or `:group`; the writer's own where there is none.
    pub owner: Option<String>,
    /// Their mode.
    pub mode: CopyMode,
}

/// A file's permission bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyMode(pub u32);

impl Default for CopyMode {
    fn default() -> Self {
        Self(0o600)
    }
}

impl Copies {
    /// Stands in a path for the certificate's name.
    pub const NAME: &str = "{name}";
    /// Stands in a path for the kind of the certificate's key.
    pub const ALGORITHM: &str = "{algorithm}";

    /// A path of `copy` for a certificate; `None` where it tells kinds of keys apart and this one is of no
    /// known kind.
    pub fn path_for(path: &Path, name: &str, algorithm: Option<Algorithm>) -> Option<PathBuf> {
        let path = path.to_string_lossy().replace(Self::NAME, name);
        if !path.contains(Self::ALGORITHM) {
            return Some(path.into());
        }
        Some(path.replace(Self::ALGORITHM, algorithm?.name()).into())
    }

    /// The store's name of each file to copy, and the path it is copied to, where `{name}` stands for the
    /// certificate's name and `{algorithm}` for what its key signs with: `ecdsa` or `rsa`. The paths of a
    /// server that takes a pair all have it, and of a pair each half is copied.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &PathBuf)> {
        let all = [
            ("cert.pem", &self.cert),
            ("chain.pem", &self.chain),
            ("fullchain.pem", &self.fullchain),
            ("privkey.pem", &self.key),
            ("combined.pem", &self.combined),
        ];
        all.into_iter().filter_map(|(name, path)| Some((name, path.as_ref()?)))
    }
}

/// `[helper]`: a helper that is not started by the main process.
#[derive(Debug, Clone, PartialEq)]
pub struct HelperUnit {
    /// Where it listens.
    pub socket: PathBuf,
}

/// `[admin]`
#[derive(Debug, Clone, PartialEq)]
pub struct Admin {
    /// The unix socket.
    pub socket: PathBuf,
    /// Where anybody may look: metrics, health and the status page.
    pub listen: Option<SocketAddr>,
}

/// `[notify]`
#[derive(Debug, Clone, PartialEq)]
pub struct Notify {
    /// A certificate is expiring when less than this part of its lifetime is left; between 0 and 1.
    pub expiring_below: f64,
    /// How long nothing is said again of the same cause.
    pub quiet: Duration,
    /// A program that reads an event as JSON: program and arguments, no shell.
    pub command: Option<Vec<String>>,
    /// A URL that takes an event as JSON in a POST; its path may be a secret.
    pub webhook: Option<Uri>,
    /// PEM file with roots to trust for the webhook besides the public ones.
    pub webhook_roots: Option<PathBuf>,
    /// Mail.
    pub mail: Option<Mail>,
}

impl Default for Notify {
    fn default() -> Self {
        Self {
            expiring_below: 0.25,
            quiet: Duration::from_secs(24 * 3600),
            command: None,
            webhook: None,
            webhook_roots: None,
            mail: None,
        }
    }
}

/// `mail = { to = ["…"], from = "…", smtp = "…" }`
#[derive(Debug, Clone, PartialEq)]
pub struct Mail {
    /// Addresses.
    pub to: Vec<String>,
    /// The sender's address.
    pub from: String,
    /// The server.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is protected.
    pub security: MailSecurity,
    /// Name to log in with.
    pub user: Option<String>,
    /// File with the password.
    pub password_file: Option<PathBuf>,
    /// PEM file with roots to trust besides the public ones.
    pub roots: Option<PathBuf>,
}

/// How a connection to a mail server is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailSecurity {
    /// `smtp://HOST:587`: STARTTLS, or nothing is sent.
    StartTls,
    /// `smtps://HOST:465`
    Tls,
    /// `smtp+plain://localhost:25`: for a server on this machine.
    None,
}
