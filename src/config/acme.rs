//! `[acme]` and `[admin]`, checked.

use std::path::{Path, PathBuf};

use http::Uri;

use super::keys::nearest;
use super::problem::seen;
use super::section::{Section, alternatives};
use super::{Acme, Admin, Config, ExternalAccount, Issuer, RateLimits};
use crate::hostname::Hostname;

/// Longest path of a unix socket, in bytes: `sun_path` has 108, the last of them zero.
pub(super) const MAX_SOCKET_PATH: usize = 107;

const ISSUERS: [(&str, Issuer); 5] = [
    ("letsencrypt", Issuer::LetsEncrypt),
    ("letsencrypt-staging", Issuer::LetsEncryptStaging),
    ("zerossl", Issuer::ZeroSsl),
    ("google", Issuer::Google),
    ("embedded", Issuer::Embedded),
];

pub(super) fn acme(root: &Section<'_>, has_certificates: bool) -> Acme {
    let section = root.table("acme");
    let issuer = section.entry("issuer").map_or(Some(Issuer::LetsEncrypt), |entry| entry.parsed(issuer));
    if let Some(issuer) = issuer.as_ref().filter(|issuer| has_certificates && **issuer != Issuer::Embedded) {
        require_terms(&section, issuer);
    }
    let issuer = issuer.unwrap_or(Issuer::LetsEncrypt);
    let eab: Vec<_> = eab(&section, &issuer).into_iter().collect();
    if eab.is_empty()
        && matches!(issuer, Issuer::ZeroSsl | Issuer::Google)
        && !section.table("eab").is_present()
    {
        let message = format!(
            "`{}` opens an account only with external account binding; without `eab` an account must be in the state directory already",
            issuer.name()
        );
        section.warn(&message);
    }
    Acme {
        issuer,
        contact: contacts(&section),
        terms_agreed: section.boolean("terms-agreed", false),
        roots: existing_file(&section, "roots", "name a PEM file with the CA's root"),
        fallback_issuers: Vec::new(),
        staging: None,
        eab,
        preflight: None,
        resolvers: Vec::new(),
        limits: RateLimits::default(),
        concurrency: section.integer("concurrency", 4, 1..=32),
    }
}

fn require_terms(section: &Section<'_>, issuer: &Issuer) {
    let message = format!(
        "the terms of the CA must be agreed to before it signs; read them ({}) and write `terms-agreed = true` under [acme], or pass --agree-terms",
        terms(issuer)
    );
    match section.entry("terms-agreed") {
        None => section.refuse_missing("terms-agreed", &message),
        Some(entry) if entry.is_false() => entry.refuse(&message),
        Some(_) => {}
    }
}

fn issuer(text: &str) -> Result<Issuer, String> {
    if let Some((_, issuer)) = ISSUERS.iter().find(|(word, _)| *word == text) {
        return Ok(issuer.clone());
    }
    if text.starts_with("http://") {
        return Err(format!(
            "{} is not https, and ACME runs over nothing else (RFC 8555 section 6.1); write the https:// URL",
            without_credentials(text)
        ));
    }
    if text.starts_with("https://") {
        return directory(text);
    }
    let words: Vec<_> = ISSUERS.iter().map(|(word, _)| *word).collect();
    let meant = nearest(text, words.iter().copied());
    let hint = meant.map(|word| format!("; did you mean \"{word}\"?")).unwrap_or_default();
    let list = alternatives(words.iter().copied());
    Err(format!("{} is no issuer; write {list}, or an https:// directory URL{hint}", seen(text)))
}

fn directory(text: &str) -> Result<Issuer, String> {
    let malformed = "is no URL; write it as in \"https://ca.example.net/directory\"";
    let url: Uri = text.parse().map_err(|_| format!("{} {malformed}", without_credentials(text)))?;
    let authority = url.authority().map_or("", |authority| authority.as_str());
    if authority.contains('@') {
        return Err(format!(
            "{} has a user name or a password in it; a directory needs none (see `acme.eab`), remove it",
            without_credentials(text)
        ));
    }
    if url.host().is_none_or(str::is_empty) || authority.ends_with(':') {
        return Err(format!("{} {malformed}", seen(text)));
    }
    let known = ISSUERS.iter().find(|(_, issuer)| issuer.directory_url().as_deref() == Some(text));
    Ok(known.map_or(Issuer::Directory(url), |(_, issuer)| issuer.clone()))
}

/// A URL as an error may show it.
pub(super) fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return seen(url) };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..end].rsplit_once('@') {
        Some((_, host)) => seen(&format!("{scheme}://…@{host}{}", &rest[end..])),
        None => seen(url),
    }
}

/// Where the CA's terms are.
fn terms(issuer: &Issuer) -> String {
    match issuer {
        Issuer::LetsEncrypt | Issuer::LetsEncryptStaging => "https://letsencrypt.org/repository/".to_owned(),
        Issuer::ZeroSsl => "https://zerossl.com/terms/".to_owned(),
        Issuer::Google => "https://pki.goog/repository/".to_owned(),
        Issuer::Embedded => "none".to_owned(),
        Issuer::Directory(url) => format!("`termsOfService` in {url}"),
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

fn eab(acme: &Section<'_>, issuer: &Issuer) -> Option<ExternalAccount> {
    let section = acme.table("eab");
    if !section.is_present() {
        return None;
    }
    for name in ["kid", "hmac-key-file"] {
        if section.entry(name).is_none() {
            let message =
                "missing; external account binding needs both `kid` and `hmac-key-file` from the CA";
            section.refuse_missing(name, message);
        }
    }
    let kid = section.entry("kid")?.parsed(|text| {
        let well_formed = (1..=1024).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        if well_formed {
            Ok(text.to_owned())
        } else {
            Err("not a key identifier; write the CA's `kid` as it is, without spaces".to_owned())
        }
    });
    // What stands there may be the key itself, by mistake: the message does not repeat it.
    let remedy = "write the path of a file that holds the key; the key itself does not belong here";
    let hmac_key_file = existing_file(&section, "hmac-key-file", remedy);
    Some(ExternalAccount { issuer: issuer.clone(), kid: kid?, hmac_key_file: hmac_key_file? })
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

pub(super) fn admin(root: &Section<'_>) -> Admin {
    let section = root.table("admin");
    let socket = section.path("socket").unwrap_or_else(|| PathBuf::from(Config::DEFAULT_SOCKET));
    if let (Err(message), Some(entry)) = (check_socket_path(&socket), section.entry("socket")) {
        entry.refuse(&message);
    }
    Admin { socket }
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
    fn issuers() {
        for (word, known) in &ISSUERS {
            assert_eq!(issuer(word).as_ref(), Ok(known));
            if let Some(url) = known.directory_url() {
                assert_eq!(issuer(&url).as_ref(), Ok(known), "{url}");
            }
        }
        let own = issuer("https://localhost:14000/dir").unwrap();
        assert_eq!(own.directory_url().as_deref(), Some("https://localhost:14000/dir"));
        for wrong in ["", "LetsEncrypt!", "http://x/", "https://", "https://:1/", "https://a b/", "ftp://x/"]
        {
            assert!(issuer(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_password_in_a_url_is_not_repeated() {
        for url in ["https://me:secret@ca.example/d", "http://me:secret@ca.example", "https://me:secret@a b"]
        {
            let message = issuer(url).unwrap_err();
            assert!(!message.contains("secret"), "{message}");
        }
    }

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
