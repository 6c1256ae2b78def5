//! `[[certificate]]`, checked.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::acme::existing_file;
use super::deploy::service;
use super::front::listing;
use super::keys::nearest;
use super::problem::seen;
use super::section::{Section, one_of};
use super::{CertificateRequest, ChallengeKind, ForeignCertificate, KeyType, Partial, Rate, RateLimits};
use crate::hostname::Identifier;

/// Most identifiers in one certificate: the limit of the public CAs.
pub(super) const MAX_IDENTIFIERS: usize = 100;

const KEY_TYPES: [(&str, KeyType); 5] = [
    ("ecdsa-p256", KeyType::EcdsaP256),
    ("ecdsa-p384", KeyType::EcdsaP384),
    ("rsa-2048", KeyType::Rsa2048),
    ("rsa-3072", KeyType::Rsa3072),
    ("rsa-4096", KeyType::Rsa4096),
];

/// How many keys a certificate may have.
const PAIR: usize = 2;

const PARTIAL: [(&str, Partial); 3] =
    [("never", Partial::Never), ("emergency", Partial::Emergency), ("always", Partial::Always)];

/// The certificates; `targets` are the names of `[deploy.NAME]`, right or wrong.
pub(super) fn certificates(
    root: &Section<'_>,
    embedded: bool,
) -> (Vec<CertificateRequest>, Vec<ForeignCertificate>) {
    let targets: Vec<_> = root.named("deploy").into_iter().map(|(name, _)| name).collect();
    let mut places = BTreeMap::new();
    let (mut certificates, mut foreign) = (Vec::new(), Vec::new());
    let mut place = |name: &str, section: &Section<'_>| {
        if let Some(first) = places.insert(name.to_owned(), section.origin().clone()) {
            let message = format!(
                "the certificate at {first} has the name `{name}` too; give this one a `name` of its own"
            );
            section.refuse(&message);
        }
    };
    for section in root.tables("certificate") {
        if is_foreign(&section) {
            if let Some(certificate) = foreign_certificate(root, &section) {
                place(&certificate.name, &section);
                foreign.push(certificate);
            }
            continue;
        }
        let identifiers = identifiers(&section);
        let Some(name) = name(&section, &identifiers) else { continue };
        place(&name, &section);
        certificates.push(CertificateRequest {
            challenge: challenge(root, &section),
            name,
            identifiers,
            key_types: key_types(&section),
            profile: section.entry("profile").and_then(|entry| entry.parsed(profile)),
            partial: section
                .parsed("partial", Partial::default(), |text| one_of(text, "choice for `partial`", &PARTIAL)),
            deploy: deploy_names(&section, &targets, embedded),
        });
    }
    let used: BTreeSet<_> = certificates.iter().flat_map(|certificate| &certificate.deploy).collect();
    for (target, section) in root.named("deploy") {
        if !used.contains(&target.to_owned()) {
            section.warn(&format!(
                "no certificate names it; write `deploy = [{target:?}]` under a [[certificate]]"
            ));
        }
    }
    (certificates, foreign)
}

fn challenge(root: &Section<'_>, section: &Section<'_>) -> ChallengeKind {
    let kinds = [("http-01", ChallengeKind::Http01), ("tls-alpn-01", ChallengeKind::TlsAlpn01)];
    let kind =
        section.parsed("challenge", ChallengeKind::default(), |text| one_of(text, "challenge", &kinds));
    if kind == ChallengeKind::TlsAlpn01
        && !root.table("front").is_present()
        && let Some(entry) = section.entry("challenge")
    {
        entry.refuse("tls-alpn-01 is answered by the front on port 443, and there is none: add [front], or write \"http-01\"");
    }
    kind
}

/// Whether somebody else obtains it.
pub(super) fn is_foreign(section: &Section<'_>) -> bool {
    section.entry("files").is_some()
}

fn foreign_certificate(root: &Section<'_>, section: &Section<'_>) -> Option<ForeignCertificate> {
    let files = section.table("files");
    for key in ["hostnames", "challenge", "key-type", "profile", "partial", "deploy"] {
        if let Some(entry) = section.entry(key) {
            entry.refuse("a certificate from files is as whoever obtains it has made it, and the front serves it for the names in it; remove this key");
        }
    }
    if !root.table("front").is_present() {
        files.refuse("it is served by the front, and there is none: add [front], or have your server read the files itself");
    }
    let path = |key: &str, example: &str| {
        let remedy = "write the path of a file that is there already: it may change at any time, and is read again then";
        let path = existing_file(&files, key, remedy);
        if path.is_none() {
            files.refuse_missing(
                key,
                &format!("missing; as in `{key} = \"/etc/letsencrypt/live/example.net/{example}\"`"),
            );
        }
        path
    };
    let (fullchain, key) = (path("fullchain", "fullchain.pem"), path("key", "privkey.pem"));
    let (fullchain, key) = (fullchain?, key?);
    let folder = fullchain
        .parent()
        .and_then(|folder| folder.file_name())
        .map(|name| name.to_string_lossy().into_owned());
    let name = match section.entry("name") {
        Some(entry) => entry.parsed(certificate_name)?,
        None => folder.unwrap_or_else(|| "files".to_owned()),
    };
    Some(ForeignCertificate { name, fullchain, key })
}

/// One key type, or one of each algorithm.
fn key_types(section: &Section<'_>) -> Vec<KeyType> {
    let default = vec![KeyType::default()];
    let Some(entry) = section.entry("key-type") else { return default };
    let written = entry.items().len();
    let mut key_types: Vec<KeyType> = Vec::new();
    for (item, key_type) in section.each("key-type", |text| one_of(text, "key type", &KEY_TYPES)) {
        if key_types.contains(&key_type) {
            item.refuse(&format!("`{key_type}` is listed twice; keep it once"));
        } else if written <= PAIR
            && let Some(other) = key_types.iter().find(|other| other.algorithm() == key_type.algorithm())
        {
            item.refuse(&format!(
                "`{other}` and `{key_type}` are both {}: a pair is for clients that know only RSA beside those that know ECDSA; keep one of them, or write one of each, as in {EXAMPLE}",
                key_type.algorithm()
            ));
        } else {
            key_types.push(key_type);
        }
    }
    match written {
        0 => entry.refuse(&format!("an empty list; write one key type, or a pair as in {EXAMPLE}")),
        1 | PAIR => {}
        n => entry.refuse(&format!(
            "{n} key types; a certificate has one, or two for a pair of RSA and ECDSA, as in {EXAMPLE}"
        )),
    }
    if key_types.is_empty() { default } else { key_types }
}

const EXAMPLE: &str = "`key-type = [\"ecdsa-p256\", \"rsa-2048\"]`";

/// A key type as it is written.
pub(super) fn key_type_name(key_type: KeyType) -> &'static str {
    KEY_TYPES.iter().find(|(_, known)| *known == key_type).map_or("", |(name, _)| name)
}

/// A pair needs two certificates for the same names at once, and limits that never allow it would have it
/// wait for ever.
pub(super) fn check_limits(root: &Section<'_>, certificates: &[CertificateRequest], limits: &RateLimits) {
    let Some(pair) = certificates.iter().find(|c| c.key_types.len() == PAIR) else { return };
    let section = root.table("acme").table("limits");
    for (key, rate) in [
        ("certificates-per-set", limits.certificates_per_set),
        ("certificates-per-domain", limits.certificates_per_domain),
        ("orders", limits.orders),
    ] {
        if let Some(Rate::Limited { count: 1, .. }) = rate
            && let Some(entry) = section.entry(key)
        {
            entry.refuse(&format!(
                "certificate `{}` is a pair, which takes 2 at once; allow 2 or more, or give it one key type",
                pair.name
            ));
        }
    }
}

fn identifiers(section: &Section<'_>) -> Vec<Identifier> {
    let Some(list) = section.entry("hostnames") else {
        let message = "missing; list what the certificate shall cover, as in `hostnames = [\"example.net\", \"www.example.net\"]`";
        section.refuse_missing("hostnames", message);
        return Vec::new();
    };
    let count = list.items().len();
    if count == 0 {
        list.refuse("an empty list; a certificate covers at least one hostname");
    }
    if count > MAX_IDENTIFIERS {
        let message = format!(
            "{count} hostnames, and one certificate covers {MAX_IDENTIFIERS} at most; split them into several [[certificate]] tables"
        );
        list.refuse(&message);
        return Vec::new();
    }
    let mut identifiers = Vec::new();
    for (entry, identifier) in section.each("hostnames", identifier) {
        if identifiers.contains(&identifier) {
            entry.refuse(&format!("`{identifier}` is listed twice in this certificate; keep it once"));
        } else {
            identifiers.push(identifier);
        }
    }
    identifiers
}

fn identifier(text: &str) -> Result<Identifier, String> {
    match text.parse::<Identifier>() {
        Ok(Identifier::Ip(ip)) => address(ip.to_canonical(), text),
        Ok(identifier) => Ok(identifier),
        Err(error) => Err(match text {
            _ if text.contains("://") => format!("{} is a URL; write its hostname only", seen(text)),
            _ if has_port(text) => {
                format!("{} has a port; a certificate is for the host, write it alone", seen(text))
            }
            _ => format!("{error}{}", if text.starts_with("*.") { "" } else { "; correct it or remove it" }),
        }),
    }
}

fn has_port(text: &str) -> bool {
    text.rsplit_once(':')
        .is_some_and(|(host, port)| host.parse::<Identifier>().is_ok() && port.parse::<u16>().is_ok())
}

fn address(ip: IpAddr, text: &str) -> Result<Identifier, String> {
    if ip.is_unspecified() || ip.is_multicast() {
        return Err(format!("{} is no host's address; write the one that clients connect to", seen(text)));
    }
    Ok(Identifier::Ip(ip))
}

/// The lineage's name; `None` where there is nothing to name it after, which is reported already.
fn name(section: &Section<'_>, identifiers: &[Identifier]) -> Option<String> {
    match section.entry("name") {
        Some(entry) => entry.parsed(certificate_name),
        None => identifiers.first().map(ToString::to_string),
    }
}

fn certificate_name(text: &str) -> Result<String, String> {
    if is_file_name(text) {
        return Ok(text.to_owned());
    }
    Err(format!("{} is no name for a folder; {NAME_FORM}", seen(text)))
}

pub(super) const NAME_FORM: &str =
    "write letters, digits, `.`, `-`, `_` and `:`, 200 at most, the first of them a letter, a digit or `_`";

/// Whether a lineage may have that name.
pub fn is_file_name(text: &str) -> bool {
    text.len() <= 200
        && text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':'))
}

fn profile(text: &str) -> Result<String, String> {
    let well_formed = (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    if well_formed {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "{} is no profile; write one that the CA's directory lists, such as \"classic\"",
            seen(text)
        ))
    }
}

fn deploy_names(section: &Section<'_>, targets: &[&str], embedded: bool) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for (entry, name) in section.each("deploy", |text| known_target(text, targets)) {
        if names.contains(&name) {
            entry.refuse(&format!("`{name}` is listed twice; keep it once"));
        } else {
            names.push(name);
        }
    }
    if embedded && let Some(entry) = section.entry("deploy").filter(|entry| !entry.items().is_empty()) {
        entry.refuse(
            "certificates of the embedded CA are for demos and tests and never go to a real server; remove the key, or choose another `acme.issuer`",
        );
    }
    names
}

fn known_target(text: &str, targets: &[&str]) -> Result<String, String> {
    if targets.contains(&text) || service(text).is_some() {
        return Ok(text.to_owned());
    }
    let remedy = match nearest(text, targets.iter().copied()) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None if targets.is_empty() => format!("add a table `[deploy.{text}]` with a `reload` command"),
        None => format!("add that table, or name one of {}", listing(targets)),
    };
    Err(format!("there is no table for {}; {remedy}", seen(&format!("[deploy.{text}]"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_as_files() {
        for name in ["example.net", "a", "_x", "2001:db8::1", "web-1_b"] {
            assert!(is_file_name(name), "{name}");
        }
        let long = "a".repeat(201);
        for name in ["", ".", "..", ".a", "-a", "a/b", "a b", "a\0", "é", "::1", "a\n", &long] {
            assert!(!is_file_name(name), "{name}");
        }
    }

    #[test]
    fn what_is_no_identifier_is_explained() {
        for (text, reason) in [
            ("https://example.net/", "is a URL"),
            ("example.net:443", "has a port"),
            ("*.example.net", "http-01 cannot prove"),
            ("0.0.0.0", "is no host's address"),
            ("ff02::1", "is no host's address"),
            ("localhost", "single label"),
            ("a_b.example.net", "correct it"),
            ("", "is empty"),
        ] {
            let message = identifier(text).unwrap_err();
            assert!(message.contains(reason), "{text}: {message}");
        }
        assert_eq!(identifier("::ffff:192.0.2.1"), Ok(Identifier::Ip("192.0.2.1".parse().unwrap())));
    }
}
