//! Which CA signs, which ones stand in for it, and where it is rehearsed.

use std::str::FromStr;

use http::Uri;

use super::super::Issuer;
use super::super::keys::nearest;
use super::super::problem::seen;
use super::super::section::{Section, alternatives};

/// Most stand-ins: each may be asked in turn before an attempt has failed.
const MAX_FALLBACKS: usize = 8;

const ISSUERS: [(&str, Issuer); 5] = [
    ("letsencrypt", Issuer::LetsEncrypt),
    ("letsencrypt-staging", Issuer::LetsEncryptStaging),
    ("zerossl", Issuer::ZeroSsl),
    ("google", Issuer::Google),
    ("embedded", Issuer::Embedded),
];

impl FromStr for Issuer {
    type Err = String;

    /// A known CA's word, or the https:// URL of any CA's directory.
    fn from_str(text: &str) -> Result<Self, String> {
        issuer(text)
    }
}

/// The CAs to go to after `issuer` (`None`: it was wrong, which is reported), in their order.
pub(super) fn fallbacks(section: &Section<'_>, issuer: Option<&Issuer>) -> Vec<Issuer> {
    let mut fallbacks: Vec<Issuer> = Vec::new();
    for (entry, fallback) in section.each("fallback-issuers", self::issuer) {
        if fallbacks.iter().any(|listed| is_same(listed, &fallback)) {
            entry.refuse(&format!("{} is listed already; keep it once", shown(&fallback)));
        } else if let Err(message) = check_fallback(&fallback, issuer) {
            entry.refuse(&message);
        } else {
            fallbacks.push(fallback);
        }
    }
    if let Some(entry) = section.entry("fallback-issuers").filter(|_| fallbacks.len() > MAX_FALLBACKS) {
        entry.refuse(&format!("{} issuers; {MAX_FALLBACKS} is the most", fallbacks.len()));
    }
    fallbacks
}

fn check_fallback(fallback: &Issuer, issuer: Option<&Issuer>) -> Result<(), String> {
    let name = shown(fallback);
    match issuer {
        Some(issuer) if is_same(fallback, issuer) => {
            Err(format!("{name} is `acme.issuer` itself; name another CA, or remove it"))
        }
        Some(Issuer::Embedded) => Err(format!(
            "{name} cannot stand in for the embedded CA, which is for demos and tests; remove the key, or choose another `acme.issuer`"
        )),
        _ if matches!(fallback, Issuer::Embedded | Issuer::LetsEncryptStaging) => {
            Err(format!("nobody trusts certificates of {name}, so it cannot stand in for a CA; remove it"))
        }
        _ => Ok(()),
    }
}

/// Accounts are kept under an issuer's name: two URLs that give one name would share them.
fn is_same(a: &Issuer, b: &Issuer) -> bool {
    a == b || a.name() == b.name()
}

/// The staging directory of an `issuer` that is configured by its URL (`None`: it was wrong, which is
/// reported).
pub(super) fn staging(
    section: &Section<'_>,
    issuer: Option<&Issuer>,
    fallbacks: &[Issuer],
) -> Option<Issuer> {
    let entry = section.entry("staging")?;
    let staging = entry.parsed(staging_directory)?;
    if let Err(message) = check_staging(&staging, issuer?, fallbacks) {
        entry.refuse(&message);
        return None;
    }
    Some(staging)
}

fn staging_directory(text: &str) -> Result<Issuer, String> {
    if text.starts_with("https://") || text.starts_with("http://") {
        return issuer(text);
    }
    Err(format!("{} is no URL; write the https:// URL of the CA's staging directory", seen(text)))
}

fn check_staging(staging: &Issuer, issuer: &Issuer, fallbacks: &[Issuer]) -> Result<(), String> {
    let remove = "`staging` is for an issuer that is named by its URL; remove the key";
    match issuer {
        Issuer::LetsEncrypt => {
            return Err(format!("the staging directory of Let's Encrypt is built in; {remove}"));
        }
        Issuer::LetsEncryptStaging => {
            return Err(format!("`acme.issuer` is a staging directory already; {remove}"));
        }
        Issuer::Embedded => return Err(format!("the embedded CA is for tests already; {remove}")),
        Issuer::ZeroSsl | Issuer::Google => {
            return Err(format!("{} is used without a staging directory; {remove}", shown(issuer)));
        }
        Issuer::Directory(_) => {}
    }
    if is_same(staging, issuer) {
        return Err(
            "it is the directory of `acme.issuer`, where mistakes count; name its staging directory, or remove the key"
                .to_owned(),
        );
    }
    let signs = fallbacks.iter().any(|fallback| is_same(staging, fallback));
    if signs || !matches!(staging, Issuer::Directory(_) | Issuer::LetsEncryptStaging) {
        return Err(format!(
            "it is the directory of {}, where mistakes count; name the staging directory of `acme.issuer`, or remove the key",
            shown(staging)
        ));
    }
    Ok(())
}

pub(super) fn issuer(text: &str) -> Result<Issuer, String> {
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

/// An issuer as it is written in the file.
pub(super) fn shown(issuer: &Issuer) -> String {
    match issuer {
        Issuer::Directory(url) => seen(&url.to_string()),
        known => seen(&known.name()),
    }
}

/// A URL as an error may show it.
pub(in crate::config) fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return seen(url) };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..end].rsplit_once('@') {
        Some((_, host)) => seen(&format!("{scheme}://…@{host}{}", &rest[end..])),
        None => seen(url),
    }
}

/// Where the CA's terms are.
pub(super) fn terms(issuer: &Issuer) -> String {
    match issuer {
        Issuer::LetsEncrypt | Issuer::LetsEncryptStaging => "https://letsencrypt.org/repository/".to_owned(),
        Issuer::ZeroSsl => "https://zerossl.com/terms/".to_owned(),
        Issuer::Google => "https://pki.goog/repository/".to_owned(),
        Issuer::Embedded => "none".to_owned(),
        Issuer::Directory(url) => format!("`termsOfService` in {url}"),
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
    fn two_urls_of_one_folder_are_the_same() {
        let parsed = |text| issuer(text).unwrap();
        for (a, b, same) in [
            ("https://ca.example/dir", "https://CA.example/dir", true),
            ("https://ca.example/dir", "https://ca.example/dir/", true),
            ("https://ca.example/dir", "https://ca.example/other", false),
            ("letsencrypt", "letsencrypt-staging", false),
        ] {
            assert_eq!(is_same(&parsed(a), &parsed(b)), same, "{a} {b}");
        }
    }
}
