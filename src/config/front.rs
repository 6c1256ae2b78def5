//! `[front]`, checked.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use super::acme::existing_file;
use super::files::{absolute, is_common};
use super::gate::{CONNECTIONS, listen, part, per_network, trusted_proxies};
use super::keys::nearest;
use super::problem::seen;
use super::section::{Section, one_of};
use super::upstream::{Usual, of_front, of_site};
use super::{
    AccessLog, CertificateRequest, ForeignCertificate, Front, LogFormat, LogPlace, Site, SiteName, Upstream,
};
use crate::hostname::Identifier;
use crate::tickets::{TicketKeyError, TicketKeys};

/// Most threads that are started without being asked for.
const MAX_DEFAULT_THREADS: usize = 64;

const SECOND: Duration = Duration::from_secs(1);
const TENTH: Duration = Duration::from_millis(100);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
const HOUR: Duration = Duration::from_secs(3600);

/// The front, and whether its number of threads was left to the machine.
pub(super) fn front(
    root: &Section<'_>,
    certificates: &[CertificateRequest],
    foreign: &[ForeignCertificate],
) -> Option<(Front, bool)> {
    let section = root.table("front");
    if !section.is_present() {
        return None;
    }
    let usual = Usual::of_front(&section);
    let upstream = of_front(&section, &usual);
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get().min(MAX_DEFAULT_THREADS));
    let max_connections = section.integer("max-connections", 4096, CONNECTIONS);
    let front = Front {
        listen: listen(&section, 443),
        upstream: upstream.unwrap_or(Upstream::Demo),
        sites: sites(&section, certificates, foreign.is_empty(), &usual),
        default_certificate: default_certificate(&section, certificates, foreign),
        trusted_proxies: trusted_proxies(&section),
        max_body: max_body(&section),
        hsts: hsts(&section.table("hsts")),
        ticket_key_file: ticket_key_file(&section),
        access_log: access_log(&section.table("access-log")),
        max_connections,
        max_connections_per_network: per_network(&section, max_connections),
        max_handshakes: section.integer("max-handshakes", part(max_connections, 2), CONNECTIONS),
        threads: section.integer("threads", cores, 1..=256),
        handshake_timeout: section.duration("handshake-timeout", 10 * SECOND, TENTH..=300 * SECOND),
        idle_timeout: section.duration("idle-timeout", 60 * SECOND, SECOND..=HOUR),
        connect_timeout: section.duration("connect-timeout", 5 * SECOND, TENTH..=300 * SECOND),
        response_timeout: section.duration("response-timeout", 60 * SECOND, SECOND..=24 * HOUR),
    };
    Some((front, section.entry("threads").is_none()))
}

/// Bytes.
fn max_body(section: &Section<'_>) -> Option<u64> {
    section.entry("max-body")?;
    u64::try_from(section.integer("max-body", 0, 0..=usize::MAX)).ok()
}

/// What is wrong with the file's content is a warning here and an error when the front starts: it may change at any
/// time, and all else that reads the configuration goes on without it.
fn ticket_key_file(section: &Section<'_>) -> Option<PathBuf> {
    // What stands there may be the key itself, by mistake: the message does not repeat it.
    let remedy = "write the path of a file with a key that all nodes share (`openssl rand 80` makes one); the key itself does not belong here";
    let file = existing_file(section, "ticket-key-file", remedy)?;
    match (TicketKeys::read(&file), section.entry("ticket-key-file")) {
        // A missing one is refused already, and one that this user may not read may be wicketgate's alone.
        (Ok(_) | Err(TicketKeyError::Unreadable(_)), _) | (_, None) => {}
        (Err(e), Some(entry)) => {
            entry.warn(&format!("{}: {e}; wicketgate does not start with it", file.display()));
        }
    }
    Some(file)
}

/// The value of Strict-Transport-Security. For a browser's built-in list (`preload`) its keepers want a year, and
/// every subdomain; who gets there by mistake needs months to get out.
fn hsts(section: &Section<'_>) -> Option<String> {
    if !section.is_present() {
        return None;
    }
    let age = section.duration("max-age", YEAR, Duration::ZERO..=10 * YEAR);
    let (subdomains, preload) =
        (section.boolean("include-subdomains", false), section.boolean("preload", false));
    if preload && (age < YEAR || !subdomains) {
        let message = "the lists that browsers have built in take a host with `max-age = \"365days\"` or more and `include-subdomains = true` alone; set both, if every subdomain speaks TLS for good, or leave `preload` out";
        section.entry("preload").iter().for_each(|entry| entry.refuse(message));
    }
    let mut value = format!("max-age={}", age.as_secs());
    for (directive, is_set) in [("includeSubDomains", subdomains), ("preload", preload)] {
        if is_set {
            value.push_str("; ");
            value.push_str(directive);
        }
    }
    Some(value)
}

/// A folder that holds much else is nothing that the daemon may write in: a file that was moved could not be made anew.
fn access_log(section: &Section<'_>) -> Option<AccessLog> {
    if !section.is_present() {
        return None;
    }
    let formats = [("combined", LogFormat::Combined), ("json", LogFormat::Json)];
    let format = section.parsed("format", LogFormat::Combined, |text| one_of(text, "format", &formats));
    let Some(entry) = section.entry("file") else {
        section.refuse_missing(
            "file",
            "missing; write where the log is to be, as in `file = \"/var/log/wicketgate/access.log\"`, or \"-\" for the standard output",
        );
        return None;
    };
    let place = entry.parsed(|text| {
        if text == "-" {
            return Ok(LogPlace::Stdout);
        }
        let path = absolute(text, entry.origin())?;
        match path.parent() {
            Some(folder) if !is_common(folder) => Ok(LogPlace::File(path)),
            folder => Err(format!(
                "{} holds much else, and the daemon has to be allowed to write in the log's folder; name a folder of the log's own, as in \"/var/log/wicketgate/access.log\"",
                seen(&folder.unwrap_or(&path).display().to_string())
            )),
        }
    })?;
    Some(AccessLog { place, format })
}

/// Whether a foreign certificate covers a name is known only once it is read: then nothing is said.
fn sites(
    front: &Section<'_>,
    certificates: &[CertificateRequest],
    are_all: bool,
    usual: &Usual,
) -> Vec<Site> {
    let mut taken = BTreeSet::new();
    front
        .tables("site")
        .iter()
        .map(|section| site(section, certificates, are_all, &mut taken, usual))
        .collect()
}

fn site(
    section: &Section<'_>,
    certificates: &[CertificateRequest],
    are_all: bool,
    taken: &mut BTreeSet<SiteName>,
    usual: &Usual,
) -> Site {
    let mut hostnames = Vec::new();
    for (entry, hostname) in section.each("hostnames", site_hostname) {
        if !taken.insert(hostname.clone()) {
            entry.refuse(&format!("`{hostname}` has a site already; keep it in one of them"));
            continue;
        }
        let covers =
            |identifier: &Identifier| matches!(identifier, Identifier::Dns(name) if hostname.matches(name));
        if are_all && !certificates.iter().flat_map(|certificate| &certificate.identifiers).any(covers) {
            entry.warn(&format!("no certificate covers `{hostname}`, so its clients are turned away"));
        }
        hostnames.push(hostname);
    }
    if section.entry("hostnames").is_none_or(|entry| entry.items().is_empty()) {
        section.refuse_missing(
            "hostnames",
            "missing; a site needs at least one hostname, as in `hostnames = [\"api.example.net\"]`",
        );
    }
    let upstream = of_site(section, usual);
    Site { hostnames, upstream: upstream.unwrap_or(Upstream::Demo) }
}

fn site_hostname(text: &str) -> Result<SiteName, String> {
    text.parse().map_err(|error| {
        let remedy = if text.contains('*') {
            "a wildcard is one label, the first: `*.example.net`"
        } else {
            "write a name that a certificate covers"
        };
        format!("{error}; {remedy}")
    })
}

fn default_certificate(
    section: &Section<'_>,
    certificates: &[CertificateRequest],
    foreign: &[ForeignCertificate],
) -> Option<String> {
    section.entry("default-certificate")?.parsed(|text| {
        let of_files = foreign.iter().map(|certificate| certificate.name.as_str());
        let names: Vec<_> =
            certificates.iter().map(|certificate| certificate.name.as_str()).chain(of_files).collect();
        if names.contains(&text) {
            return Ok(text.to_owned());
        }
        let remedy = match nearest(text, names.iter().copied()) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None if names.is_empty() => "add a [[certificate]] of that name".to_owned(),
            None => format!("the names are {}", listing(&names)),
        };
        Err(format!("{} is no certificate's name; {remedy}", seen(text)))
    })
}

/// Names for a message: the first few of them.
pub(super) fn listing(names: &[&str]) -> String {
    const MAX: usize = 8;
    let shown: Vec<_> = names.iter().take(MAX).map(|name| format!("`{name}`")).collect();
    let more = if names.len() > MAX { format!(" and {} more", names.len() - MAX) } else { String::new() };
    format!("{}{more}", shown.join(", "))
}
