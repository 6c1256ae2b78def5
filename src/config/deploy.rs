//! `[deploy.NAME]`, checked: servers that take certificates.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use super::certificates::{NAME_FORM, is_file_name};
use super::problem::seen;
use super::section::{Entry, Section, one_of};
use super::{CertificateRequest, Copies, CopyMode, DeployTarget, Endpoint, Service};

const SERVICES: [(&str, Service); 5] = [
    ("nginx", Service::Nginx),
    ("squid", Service::Squid),
    ("haproxy", Service::Haproxy),
    ("apache", Service::Apache),
    ("hitch", Service::Hitch),
];

/// Stands in a path of `copy` for the certificate's name.
const NAME: &str = Copies::NAME;

/// Stands there for what its key signs with: `ecdsa` or `rsa`.
const ALGORITHM: &str = Copies::ALGORITHM;

/// The known server of that name.
pub(super) fn service(name: &str) -> Option<Service> {
    SERVICES.iter().find(|(known, _)| *known == name).map(|(_, service)| *service)
}

/// The servers that take certificates: those that have a table, and known ones that a certificate names.
pub(super) fn targets(
    root: &Section<'_>,
    certificates: &[CertificateRequest],
) -> BTreeMap<String, DeployTarget> {
    let mut targets = BTreeMap::new();
    for (name, section) in root.named("deploy") {
        if !is_file_name(name) {
            section.refuse(&format!("{} is no name for a server; {NAME_FORM}", seen(name)));
        }
        let users: Vec<_> =
            certificates.iter().filter(|c| c.deploy.iter().any(|named| named == name)).collect();
        targets.insert(name.to_owned(), target(name, &section, &users));
    }
    refuse_shared_copies(root, &targets);
    let named: BTreeSet<_> = certificates.iter().flat_map(|certificate| &certificate.deploy).collect();
    for name in named {
        if let Some(service) = service(name)
            && !targets.contains_key(name)
        {
            let users: Vec<_> = certificates.iter().filter(|c| c.deploy.contains(name)).collect();
            refuse_pairs(root, name, Some(service), &users);
            targets.insert(name.clone(), DeployTarget::preset(service));
        }
    }
    targets
}

/// Some servers show one certificate for a name, whatever the client can verify.
fn refuse_pairs(section: &Section<'_>, name: &str, kind: Option<Service>, users: &[&CertificateRequest]) {
    let pair = users.iter().find(|certificate| certificate.key_types.len() > 1);
    if let (Some(Service::Hitch | Service::Squid), Some(pair)) = (kind, pair) {
        section.refuse(&format!(
            "`{}` is a pair, and {name} shows one certificate for a name; give it one key type, or make a [[certificate]] of its own for that server",
            pair.name
        ));
    }
}

/// Two servers that shared a copy would put back each other's files.
fn refuse_shared_copies(root: &Section<'_>, targets: &BTreeMap<String, DeployTarget>) {
    let mut taken: BTreeMap<&PathBuf, &str> = BTreeMap::new();
    for (name, section) in root.named("deploy") {
        let copies = targets.get(name).and_then(|target| target.copies.as_ref());
        for (_, path) in copies.into_iter().flat_map(Copies::files) {
            if let Some(other) = taken.insert(path, name).filter(|other| *other != name) {
                section.table("copy").refuse(&format!(
                    "[deploy.{other}] copies to {} too; give each server files of its own, or reload both by one command",
                    path.display()
                ));
            }
        }
    }
}

fn target(name: &str, section: &Section<'_>, users: &[&CertificateRequest]) -> DeployTarget {
    let kind = match section.entry("service") {
        Some(entry) => entry.parsed(|text| one_of(text, "server that is known here", &SERVICES)),
        None => service(name),
    };
    let given = |key: &str| section.entry(key).map(|entry| command(&entry));
    let reload = given("reload");
    let runtime_socket = section.path("runtime-socket");
    if reload.is_none() && kind.is_none() {
        let message = "missing; write the command that makes the server read the new files, as in `reload = [\"nginx\", \"-s\", \"reload\"]`, or name a known server in `service`";
        section.refuse_missing("reload", message);
    }
    refuse_pairs(section, name, kind, users);
    if let Some(entry) = section.entry("runtime-socket") {
        if kind != Some(Service::Haproxy) {
            entry.refuse("only HAProxy has one; remove it, or write `service = \"haproxy\"`");
        } else if reload.is_some() {
            entry.refuse("HAProxy takes certificates by it without a reload; remove it or `reload`");
        }
    }
    let verify = match section.entry("verify") {
        Some(_) => section.each("verify", str::parse).into_iter().map(|(_, endpoint)| endpoint).collect(),
        None => kind.map(Service::endpoints).unwrap_or_default(),
    };
    if verify.is_empty() && section.entry("verify").is_none() {
        section.warn(
            "nothing shows whether the server serves what it was given; write where it does, as in `verify = [\"127.0.0.1:443\"]`, or `verify = []` if it cannot be looked at",
        );
    }
    let (second, hour) = (Duration::from_secs(1), Duration::from_secs(3600));
    let preset = DeployTarget::default();
    DeployTarget {
        service: kind,
        check: given("check"),
        reload,
        start: given("start"),
        each: section.boolean("each", false),
        verify,
        verify_timeout: section.duration("verify-timeout", preset.verify_timeout, second..=hour),
        copies: copies(&section.table("copy"), users),
        runtime_socket,
        environment: environment(section),
        timeout: section.duration("timeout", preset.timeout, second..=hour),
    }
}

/// `environment = { NAME = "value" }`
pub(super) fn environment(section: &Section<'_>) -> BTreeMap<String, String> {
    const OURS: [&str; 2] = ["RENEWED_LINEAGE", "RENEWED_DOMAINS"];
    let mut variables = BTreeMap::new();
    for (name, entry) in section.table("environment").entries() {
        let is_name = !name.is_empty() && !name.contains(['=', '\0']);
        match entry.text() {
            _ if !is_name => entry.refuse(&format!("{} is no name for a variable; correct it", seen(name))),
            _ if OURS.contains(&name) => entry.refuse("it tells of the certificate; choose another name"),
            Some(text) if text.contains('\0') => entry.refuse("it has a zero byte in it; remove it"),
            Some(text) => {
                variables.insert(name.to_owned(), text.to_owned());
            }
            None => {}
        }
    }
    variables
}

fn copies(section: &Section<'_>, users: &[&CertificateRequest]) -> Option<Copies> {
    if !section.is_present() {
        return None;
    }
    let mut taken: BTreeMap<PathBuf, &str> = BTreeMap::new();
    let pair = users.iter().find(|certificate| certificate.key_types.len() > 1);
    let mut path = |key: &'static str| {
        let entry = section.entry(key)?;
        let path = entry.parsed(destination)?;
        if users.len() > 1 && !path.to_string_lossy().contains(NAME) {
            entry.refuse(&format!(
                "{} certificates would be copied to the same file; write `{NAME}` where the certificate's name belongs, as in \"/etc/tls/{NAME}.pem\"",
                users.len()
            ));
        }
        if let Some(pair) = pair
            && !path.to_string_lossy().contains(ALGORITHM)
        {
            entry.refuse(&format!(
                "`{}` is a pair, and both of its certificates would be copied to the same file; write `{ALGORITHM}` where `ecdsa` or `rsa` belongs, as in \"/etc/tls/{ALGORITHM}.pem\", or give it one key type",
                pair.name
            ));
        }
        if let Some(other) = taken.insert(path.clone(), key) {
            entry.refuse(&format!("`{other}` is copied to the same file; give each a path of its own"));
        }
        Some(path)
    };
    let copies = Copies {
        cert: path("cert"),
        chain: path("chain"),
        fullchain: path("fullchain"),
        key: path("key"),
        combined: path("combined"),
        owner: section.entry("owner").and_then(|entry| entry.parsed(owner)),
        mode: section.parsed("mode", CopyMode::default(), mode),
    };
    let keys = ["cert", "chain", "fullchain", "key", "combined"];
    if keys.iter().all(|key| section.entry(key).is_none()) {
        section.refuse(
            "it copies nothing; name the files, as in `copy = { fullchain = \"/etc/squid/tls/fullchain.pem\", key = \"/etc/squid/tls/key.pem\" }`",
        );
    }
    Some(copies)
}

fn destination(text: &str) -> Result<PathBuf, String> {
    let path = Path::new(text);
    let is_plain = path.components().all(|c| matches!(c, Component::RootDir | Component::Normal(_)));
    if !path.is_absolute() {
        return Err(format!("{} is not an absolute path; write it from `/`", seen(text)));
    }
    if !is_plain || text.ends_with('/') || text.contains('\0') || path.file_name().is_none() {
        return Err(format!(
            "{} is no file's path; write it without `.`, `..` and a `/` at its end",
            seen(text)
        ));
    }
    if text.replace(NAME, "").replace(ALGORITHM, "").contains(['{', '}']) {
        return Err(format!(
            "{} has braces in it; only `{NAME}` is replaced, by the certificate's name, and `{ALGORITHM}`, by `ecdsa` or `rsa`",
            seen(text)
        ));
    }
    Ok(path.to_owned())
}

/// `user`, `user:group` or `:group`, names or numbers.
fn owner(text: &str) -> Result<String, String> {
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    let is_name = |part: &str| {
        part.is_empty()
            || (part.len() <= 64 && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-$".contains(&b)))
    };
    if (user.is_empty() && group.is_empty()) || !is_name(user) || !is_name(group) {
        return Err(format!(
            "{} is no owner; write it as in \"root:proxy\", \"proxy\" or \":proxy\"",
            seen(text)
        ));
    }
    Ok(text.to_owned())
}

fn mode(text: &str) -> Result<CopyMode, String> {
    let bits = u32::from_str_radix(text, 8).ok().filter(|bits| *bits <= 0o777 && text.len() <= 4);
    let Some(bits) = bits else {
        return Err(format!("{} is no mode; write it as in \"0640\"", seen(text)));
    };
    if bits & 0o027 != 0 {
        return Err(format!(
            "{} would let others at a private key; write \"0600\", or \"0640\" and a group in `owner`",
            seen(text)
        ));
    }
    if bits & 0o400 == 0 || bits & 0o111 != 0 {
        return Err(format!("{} is no mode for a certificate's file; write it as in \"0640\"", seen(text)));
    }
    Ok(CopyMode(bits))
}

/// A program and its arguments.
pub(super) fn command(entry: &Entry<'_>) -> Vec<String> {
    let items = entry.items();
    let words: Vec<_> = items.iter().filter_map(Entry::text).map(str::to_owned).collect();
    // A list with something else than texts in it was refused before.
    if entry.text().is_some() || words.len() < items.len() {
        return Vec::new();
    }
    match words.first().map(String::as_str) {
        None => entry.refuse("an empty list; write the program and its arguments"),
        Some("") => entry.refuse("the program's name is empty; write its absolute path, or its bare name"),
        Some(program) if program.contains('/') && !program.starts_with('/') => entry.refuse(&format!(
            "{} is a relative path, which would depend on where wicketgate is started; write it from `/`, or the bare name of an installed program",
            seen(program)
        )),
        Some(_) if words.iter().any(|word| word.contains('\0')) => {
            entry.refuse("an argument has a zero byte in it; remove it");
        }
        Some(_) => {}
    }
    words
}

impl Service {
    /// Where it usually shows its certificates on this machine.
    fn endpoints(self) -> Vec<Endpoint> {
        vec!["127.0.0.1:443".parse().expect("an address and a port")]
    }
}

impl DeployTarget {
    /// A known server as it is usually installed.
    pub fn preset(service: Service) -> Self {
        Self { service: Some(service), verify: service.endpoints(), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_plain_absolute_files() {
        for good in ["/etc/a.pem", "/etc/{name}.pem", "/etc/{name}/{algorithm}.pem"] {
            assert!(destination(good).is_ok(), "{good}");
        }
        for bad in ["", "a.pem", "/", "/etc/", "/etc/../a", "/etc/./a/..", "/etc/{nam}.pem", "/etc/{", "/a\0"]
        {
            assert!(destination(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn owners_and_modes() {
        for good in ["root", "root:proxy", ":proxy", "0:13", "www-data", "_x$"] {
            assert_eq!(owner(good).as_deref(), Ok(good));
        }
        for bad in ["", ":", "a b", "a:b:c", "a/b", "root:\n"] {
            assert!(owner(bad).is_err(), "{bad}");
        }
        assert_eq!(mode("0640"), Ok(CopyMode(0o640)));
        assert_eq!(mode("400"), Ok(CopyMode(0o400)));
        for bad in ["", "0644", "0660", "0750", "640a", "4640", "0000", "00640", "rw", "-640"] {
            assert!(mode(bad).is_err(), "{bad}");
        }
    }
}
