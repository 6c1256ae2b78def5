//! What becomes of one lineage (pure): its files, if a version of them holds together, and its settings.

use std::time::SystemTime;

use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use x509_parser::public_key::PublicKey;

use super::accounts::directory_url;
use super::conf::Conf;
use super::renewal::Settings;
use super::tree::FoundLineage;
use crate::certificate::Certificate;
use crate::config::{Issuer, KeyType};
use crate::hostname::{Hostname, Identifier};
use crate::words::{printable, rough};

/// Most identifiers in one certificate here.
const MAX_IDENTIFIERS: usize = 100;

/// certbot's issuer where a file names none.
const USUAL_SERVER: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// A lineage, and what becomes of it.
#[derive(Debug, Clone)]
pub struct LineagePlan {
    /// certbot's name for it.
    pub original: String,
    /// Its name here.
    pub name: String,
    /// What it covers, but for wildcards.
    pub identifiers: Vec<Identifier>,
    /// Who signed it.
    pub issuer: Issuer,
    /// The key that is configured.
    pub key_type: KeyType,
    /// The profile to ask for.
    pub profile: Option<String>,
    /// It may lack names that fail, at once.
    pub may_lack_names: bool,
    /// The [deploy.NAME] table.
    pub deploy: Option<&'static str>,
    /// Why it stands in the configuration as a comment only.
    pub left_out: Option<String>,
    /// The files to store.
    pub certificate: Option<Certificate>,
    /// What has no place here, and what else there is to know.
    pub notes: Vec<String>,
    /// What failed.
    pub troubles: Vec<String>,
    /// The key type of the files, where there is such a one here.
    pub(super) stored_key_type: Option<KeyType>,
    /// A CA came to port 80 for these names before.
    pub(super) was_proven_by_http: bool,
    pub(super) settings: Settings,
}

/// What the files say.
#[derive(Default)]
struct Files {
    certificate: Option<Certificate>,
    identifiers: Vec<Identifier>,
    wildcards: Vec<Hostname>,
    notes: Vec<String>,
    troubles: Vec<String>,
}

impl LineagePlan {
    /// Decides about one lineage at the moment `now`.
    pub(super) fn new(found: &FoundLineage, now: SystemTime) -> Self {
        let mut files = Files::of(found, now);
        let conf = match &found.file {
            Ok(text) => Conf::parse(text),
            Err(trouble) => {
                files
                    .troubles
                    .push(format!("{trouble}; what can be known without it is taken from the files"));
                Conf::default()
            }
        };
        let file = format!("renewal/{}.conf", printable(&found.name, 200));
        files.troubles.extend(conf.troubles.iter().map(|trouble| format!("`{file}` is damaged: {trouble}")));
        if found.file.is_ok() && conf.section(&["renewalparams"]).is_none() {
            files.troubles.push(format!(
                "`{file}` is damaged: it has no [renewalparams], so its settings are not known"
            ));
        }
        let settings = Settings::of(&conf);
        if files.identifiers.is_empty() && files.wildcards.is_empty() {
            files.names_from_elsewhere(&settings, &found.name);
        }
        let server = settings.server.as_deref().map_or_else(|| USUAL_SERVER.to_owned(), directory_url);
        let issuer = server.parse::<Issuer>();
        let stored_key_type = files.certificate.as_ref().and_then(key_type_of);
        let mut notes = files.notes;
        let key_type = match (stored_key_type, settings.key_type) {
            (Some(stored), wanted) => {
                if let Some(wanted) = wanted.filter(|wanted| *wanted != stored && found.file.is_ok()) {
                    notes.push(format!(
                        "its file asks for {wanted}, and its key is {stored}, which stays: write the other one as `key-type`, and it is ordered at once"
                    ));
                }
                stored
            }
            (None, wanted) => wanted.unwrap_or_default(),
        };
        if files.certificate.is_some() && stored_key_type.is_none() {
            notes.push(format!("its key is of a kind that is not made here: the next one is {key_type}"));
        }
        let odd: Vec<_> = files.certificate.iter().flat_map(odd_names).collect();
        if !odd.is_empty() {
            notes
                .push(format!("it has {}, which cannot be ordered here and will be missing", odd.join(", ")));
        }
        let mut left_out = None;
        let stays = !files.wildcards.is_empty();
        if !stays {
            notes.extend(settings.left_behind.iter().cloned());
        }
        if stays {
            let wildcards: Vec<_> = files.wildcards.iter().map(|parent| format!("*.{parent}")).collect();
            left_out = Some(format!(
                "{} cannot be proven by http-01, only in DNS: it stays with certbot",
                wildcards.join(", ")
            ));
        } else if files.identifiers.is_empty() {
            left_out = Some("its names are not known: list them".to_owned());
        } else if let Some(odd) = files.identifiers.iter().find(|i| !is_orderable(i)) {
            left_out = Some(format!("`{odd}` is no name that a public CA signs"));
        } else if files.identifiers.len() > MAX_IDENTIFIERS {
            let count = files.identifiers.len();
            left_out =
                Some(format!("it has {count} names, and {MAX_IDENTIFIERS} is the most here: split it"));
        } else if let Err(reason) = &issuer {
            left_out = Some(format!("its server {reason}"));
        } else if settings.is_left_alone {
            left_out = Some("certbot was told not to renew it (`autorenew = False`)".to_owned());
        }
        if let Some(at) = files.identifiers.iter().position(|i| i.to_string() == found.name) {
            files.identifiers[..=at].rotate_right(1);
        }
        Self {
            original: found.name.clone(),
            name: found.name.clone(),
            identifiers: files.identifiers,
            issuer: issuer.unwrap_or(Issuer::LetsEncrypt),
            key_type,
            profile: settings.profile.clone().filter(|profile| is_profile(profile)),
            may_lack_names: settings.may_lack_names,
            deploy: settings.deploy(),
            // A copy of what somebody else renews would grow old unseen.
            certificate: files.certificate.filter(|_| !stays),
            left_out,
            notes,
            troubles: files.troubles,
            stored_key_type,
            was_proven_by_http: !settings.is_proven_elsewhere(),
            settings,
        }
    }
}

impl LineagePlan {
    /// Whether a file says who signed it.
    pub(super) fn knows_issuer(&self) -> bool {
        self.settings.server.is_some()
    }
}

impl Files {
    /// The newest version that holds together, and why those before it do not.
    fn of(found: &FoundLineage, now: SystemTime) -> Self {
        let mut files = Self::default();
        let mut passed = Vec::new();
        for version in &found.versions {
            let chain = version.chain.as_deref().map_err(Clone::clone);
            if files.identifiers.is_empty() && files.wildcards.is_empty() {
                let texts = [chain.as_deref().ok(), version.leaf.as_deref()];
                let named = texts.into_iter().flatten().find_map(|text| Certificate::names_in(text).ok());
                (files.identifiers, files.wildcards) = named.unwrap_or_default();
            }
            let proven = chain.and_then(|chain| {
                let key = version.key.as_ref().map_err(Clone::clone)?;
                Certificate::stored(chain, key).map_err(|e| format!("`{}`: {e}", version.place))
            });
            match proven {
                Ok(certificate) => {
                    // A newer one that is broken tells what is wanted.
                    if files.identifiers != certificate.identifiers() {
                        files.notes.push(
                            "a newer version has other names: it is ordered with those at once".to_owned(),
                        );
                    }
                    files.certificate = Some(certificate);
                    if !passed.is_empty() {
                        files.notes.push(format!("its files are those of `{}`", version.place));
                    }
                    break;
                }
                Err(reason) => passed.push(reason),
            }
        }
        passed.extend(found.troubles.iter().cloned());
        passed.dedup();
        let Some(certificate) = &files.certificate else {
            if found.versions.is_empty() && passed.is_empty() {
                passed.push("it has no files in `live` and `archive`".to_owned());
            }
            files.troubles = passed;
            files.notes.push("it has no files that hold together: it is obtained anew".to_owned());
            return files;
        };
        files.notes.extend(passed);
        if let Ok(ago) = now.duration_since(certificate.not_after()) {
            files.notes.push(format!("it ended {} ago: it is obtained anew", rough(ago)));
            files.certificate = None;
        }
        files
    }

    /// Names where no certificate tells them.
    fn names_from_elsewhere(&mut self, settings: &Settings, name: &str) {
        let named = settings.webroot_names.iter().filter_map(|name| name.parse::<Identifier>().ok());
        for identifier in named {
            if !self.identifiers.contains(&identifier) {
                self.identifiers.push(identifier);
            }
        }
        if !self.identifiers.is_empty() {
            self.notes.push("its names are those of its web roots: look whether they are all".to_owned());
        } else if name.parse::<Identifier>().is_ok() {
            self.notes.push(format!("no file tells its names, one of which may be {name}"));
        }
    }
}

/// Names in a certificate that are none here.
fn odd_names(certificate: &Certificate) -> Vec<String> {
    let leaf = certificate.chain().first().and_then(|der| X509Certificate::from_der(der).ok());
    let Some((_, leaf)) = leaf else { return Vec::new() };
    let Ok(Some(extension)) = leaf.subject_alternative_name() else { return Vec::new() };
    let names = extension.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => {
            let is_odd = Hostname::parse_any(name.strip_prefix("*.").unwrap_or(name)).is_err();
            is_odd.then(|| printable(name, 100))
        }
        GeneralName::IPAddress(_) => None,
        other => Some(printable(&other.to_string(), 100)),
    });
    names.collect()
}

/// The kind of a certificate's key, where there is such a one here.
fn key_type_of(certificate: &Certificate) -> Option<KeyType> {
    let (_, leaf) = X509Certificate::from_der(certificate.chain().first()?).ok()?;
    match leaf.public_key().parsed().ok()? {
        PublicKey::RSA(key) => match key.key_size() {
            2048 => Some(KeyType::Rsa2048),
            3072 => Some(KeyType::Rsa3072),
            4096 => Some(KeyType::Rsa4096),
            _ => None,
        },
        PublicKey::EC(point) => match point.data().len() {
            65 => Some(KeyType::EcdsaP256),
            97 => Some(KeyType::EcdsaP384),
            _ => None,
        },
        _ => None,
    }
}

/// Whether the configuration takes it.
fn is_orderable(identifier: &Identifier) -> bool {
    match identifier {
        Identifier::Dns(name) => name.as_str().parse::<Hostname>().is_ok(),
        Identifier::Ip(ip) => !ip.is_unspecified() && !ip.is_multicast(),
    }
}

fn is_profile(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}
