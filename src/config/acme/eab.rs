//! External account bindings (RFC 8555 section 7.3.4): one table, or a list of them.

use super::super::section::Section;
use super::super::{Acme, ExternalAccount, Issuer};
use super::existing_file;
use super::issuer::{issuer, shown};

/// The bindings, at most one for an issuer. Where the configured issuers are not known for sure
/// (`are_known`: one was wrong, which is reported) no binding is refused for being nobody's.
pub(super) fn eab(section: &Section<'_>, acme: &Acme, are_known: bool) -> Vec<ExternalAccount> {
    let mut bindings: Vec<ExternalAccount> = Vec::new();
    for section in section.table_or_tables("eab") {
        let issuer = match section.entry("issuer") {
            Some(entry) => match entry.parsed(issuer) {
                Some(issuer) => issuer,
                None => continue,
            },
            None => acme.issuer.clone(),
        };
        if are_known && !is_configured(acme, &issuer) {
            let message = format!(
                "{} is neither `acme.issuer` nor one of `acme.fallback-issuers` nor `acme.staging`; add it there, or remove this binding",
                shown(&issuer)
            );
            match section.entry("issuer") {
                Some(entry) => entry.refuse(&message),
                None => section.refuse(&message),
            }
        } else if bindings.iter().any(|binding| binding.issuer == issuer) {
            let message = format!(
                "there is a binding for {} already; keep one, or say with `issuer` whose this one is",
                shown(&issuer)
            );
            section.refuse(&message);
        }
        bindings.extend(binding(&section, issuer));
    }
    bindings
}

fn is_configured(acme: &Acme, issuer: &Issuer) -> bool {
    *issuer == acme.issuer
        || acme.fallback_issuers.contains(issuer)
        || acme.staging_of(&acme.issuer).as_ref() == Some(issuer)
}

fn binding(section: &Section<'_>, issuer: Issuer) -> Option<ExternalAccount> {
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
    let hmac_key_file = existing_file(section, "hmac-key-file", remedy);
    Some(ExternalAccount { issuer, kid: kid?, hmac_key_file: hmac_key_file? })
}
