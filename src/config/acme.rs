//! `[acme]`, `[admin]` and `[helper]`, checked.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::gate::listen_address;
use super::problem::seen;
use super::section::Section;
use super::{Acme, Admin, Config, HelperUnit, Issuer};
use crate::hostname::Hostname;

mod eab;
mod issuer;
mod limits;
mod resolvers;

use issuer::issuer;
pub(super) use issuer::without_credentials;

/// Longest path of a unix socket, in bytes: `sun_path` has 108, the last of them zero.
pub(super) const MAX_SOCKET_PATH: usize = 107;

pub(super) fn acme(root: &Section<'_>, has_certificates: bool) -> Acme {
    let section = root.table("acme");
    let known = section.entry("issuer").map_or(Some(Issuer::LetsEncrypt), |entry| entry.parsed(issuer));
    let fallback_issuers = issuer::fallbacks(&section, known.as_ref());
    let staging = issuer::staging(&section, known.as_ref(), &fallback_issuers);
    if let Some(issuer) = known.as_ref().filter(|issuer| has_certificates && **issuer != Issuer::Embedded) {
        require_terms(&section, std::iter::once(issuer).chain(&fallback_issuers).chain(&staging));
    }
    let mut acme = Acme {
        issuer: known.clone().unwrap_or(Issuer::LetsEncrypt),
        contact: contacts(&section),
        terms_agreed: section.boolean("terms-agreed", false),
        roots: existing_file(&section, "roots", "name a PEM file with the CA's root"),
        fallback_issuers,
        staging,
        eab: Vec::new(),
        preflight: section.entry("preflight").map(|_| section.boolean("preflight", true)),
        resolvers: resolvers::resolvers(&section),
        limits: limits::limits(&section),
        concurrency: section.integer("concurrency", 4, 1..=32),
    };
    acme.eab = eab::eab(&section, &acme, known.is_some());
    for issuer in std::iter::once(&acme.issuer).chain(&acme.fallback_issuers) {
        if matches!(issuer, Issuer::ZeroSsl | Issuer::Google) && acme.eab_for(issuer).is_none() {
            let message = format!(
                "`{}` opens an account only with external account binding; without `eab` an account must be in the state directory already",
                issuer.name()
            );
            section.warn(&message);
        }
    }
    acme
}

fn require_terms<'a>(section: &Section<'_>, issuers: impl Iterator<Item = &'a Issuer>) {
    let mut all: Vec<_> = issuers.map(issuer::terms).collect();
    // In their order; Let's Encrypt and its staging directory have the same.
    let mut seen = BTreeSet::new();
    all.retain(|terms| seen.insert(terms.clone()));
    let whose = if all.len() > 1 { "every CA" } else { "the CA" };
    let message = format!(
        "the terms of {whose} must be agreed to before it signs; read them ({}) and write `terms-agreed = true` under [acme], or pass --agree-terms",
        all.join(", ")
    );
    match section.entry("terms-agreed") {
        None => section.refuse_missing("terms-agreed", &message),
        Some(entry) if entry.is_false() => entry.refuse(&message),
        Some(_) => {}
    }
}

fn contacts(section: &Section<'_>) -> Vec<String> {
    let mut contacts = Vec::new();
    for (entry, url) in section.each("contact", contact) {
        if contacts.contains(&url) {
            entry.refuse(&format!("{} is listed twice; keep it once", seen(entry.text().unwrap_or(&url))));
        } else {
            contacts.push(url);
        }
    }
    contacts
}

/// A mail address as a `mailto:` URL (RFC 8555 section 7.3: one address, no header fields).
fn contact(text: &str) -> Result<String, String> {
    let malformed = || format!("{} is not a mail address; write it as in \"ops@example.net\"", seen(text));
    let address = text.strip_prefix("mailto:").unwrap_or(text);
    let (user, domain) = address.rsplit_once('@').ok_or_else(malformed)?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._+-~='*!$".contains(c);
    let well_formed = (1..=64).contains(&user.len()) && user.chars().all(is_plain) && !user.starts_with('.');
    let domain: Hostname = domain.parse().map_err(|_| malformed())?;
    if well_formed { Ok(format!("mailto:{user}@{domain}")) } else { Err(malformed()) }
}

/// A path whose absence is known; a file that this user may not look at is left to those who may.
pub(super) fn existing_file(section: &Section<'_>, name: &str, remedy: &str) -> Option<PathBuf> {
    let path = section.path(name)?;
    let missing = std::fs::metadata(&path).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound);
    if missing && let Some(entry) = section.entry(name) {
        entry.refuse(&format!("there is no such file; {remedy}"));
    }
    Some(path)
}

fn admin_socket(section: &Section<'_>) -> PathBuf {
    section.path("socket").unwrap_or_else(|| PathBuf::from(Config::DEFAULT_SOCKET))
}

pub(super) fn admin(root: &Section<'_>) -> Admin {
    let section = root.table("admin");
    let socket = admin_socket(&section);
    if let (Err(message), Some(entry)) = (check_socket_path(&socket), section.entry("socket")) {
        entry.refuse(&message);
    }
    let listen = section.entry("listen").and_then(|entry| {
        let address: SocketAddr = entry.parsed(|text| listen_address(text, 9180))?;
        if !address.ip().is_loopback() {
            entry.warn(&format!(
                "whoever reaches `{address}` may read which certificates there are and what fails; write a loopback address, or see to it that a packet filter lets the right ones through"
            ));
        }
        Some(address)
    });
    Admin { socket, listen }
}

pub(super) fn helper(root: &Section<'_>) -> Option<HelperUnit> {
    let section = root.table("helper");
    if !section.is_present() {
        return None;
    }
    let Some(entry) = section.entry("socket") else {
        section.refuse_missing("socket", "missing; write where `wicketgate helper` listens, as in \"/run/wicketgate-helper/socket\", or remove the table");
        return None;
    };
    let socket = section.path("socket")?;
    if let Err(message) = check_socket_path(&socket) {
        entry.refuse(&message);
    } else if socket == admin_socket(&root.table("admin")) {
        entry.refuse("the admin socket is there; give each a path of its own");
    }
    Some(HelperUnit { socket })
}

pub(super) fn check_socket_path(path: &Path) -> Result<(), String> {
    match path.as_os_str().len() {
        length if length > MAX_SOCKET_PATH => Err(format!(
            "the path of the socket has {length} bytes, and the system takes {MAX_SOCKET_PATH}; choose a shorter one"
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contacts_become_mailto_urls() {
        for (text, url) in [
            ("ops@example.net", "mailto:ops@example.net"),
            ("mailto:a.b+c@EXAMPLE.net", "mailto:a.b+c@example.net"),
            ("me@bücher.example", "mailto:me@xn--bcher-kva.example"),
        ] {
            assert_eq!(contact(text).as_deref(), Ok(url));
        }
        for text in [
            "",
            "ops",
            "@a.b",
            "ops@",
            "a b@c.d",
            "a@b",
            "a?subject=x@b.c",
            "a,b@c.d",
            "tel:+1@a.b",
            "a@b.c\n",
        ] {
            assert!(contact(text).is_err(), "{text}");
        }
    }
}
