//! What becomes of everything in certbot's folder (pure).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::SystemTime;

use super::accounts::{self, directory_url};
use super::tree::Tree;
use crate::certificate::Certificate;
use crate::config::{Issuer, is_lineage_name};
use crate::hostname::Identifier;
use crate::words::printable;

pub use super::accounts::AccountPlan;
pub use super::lineages::LineagePlan;

/// Everything that was found, and what becomes of it.
pub struct Plan {
    /// certbot's folder, as it was named.
    pub folder: PathBuf,
    /// The newest of certbot's versions that wrote there.
    pub version: Option<String>,
    /// The CA that is configured.
    pub issuer: Issuer,
    /// Accounts that are taken over.
    pub accounts: Vec<AccountPlan>,
    /// One for each lineage.
    pub lineages: Vec<LineagePlan>,
    /// Where the gate listens, if not on port 80.
    pub listen: Option<SocketAddr>,
    /// What has no place here and is of no single lineage.
    pub left_behind: Vec<String>,
    /// What failed besides.
    pub troubles: Vec<String>,
}

impl Plan {
    /// Decides at the moment `now`.
    pub fn new(tree: &Tree, now: SystemTime) -> Self {
        let mut lineages: Vec<_> = tree.lineages.iter().map(|found| LineagePlan::new(found, now)).collect();
        name(&mut lineages);
        let wanted: Vec<_> = lineages
            .iter()
            .filter_map(|lineage| {
                let settings = &lineage.settings;
                Some((
                    settings.server.clone().unwrap_or(lineage.issuer.directory_url()?),
                    settings.account.clone()?,
                ))
            })
            .collect();
        let accounts = accounts::choose(&tree.accounts, &wanted);
        let issuer = main_issuer(&lineages)
            .or_else(|| accounts.taken.first().map(|account| account.issuer.clone()))
            .unwrap_or(Issuer::LetsEncrypt);
        for lineage in &mut lineages {
            if !lineage.knows_issuer() {
                lineage.issuer = issuer.clone();
            }
            leave_to_another_issuer(lineage, &issuer);
        }
        leave_to_a_twin(&mut lineages);
        for lineage in &mut lineages {
            ask_for_addresses(lineage);
            let missing = missing_account(lineage, &accounts.taken);
            lineage.notes.extend(missing);
        }
        let mut left_behind = accounts.left_behind;
        let listen = listen(&lineages, &mut left_behind);
        left_behind.extend(tree.hooks.iter().map(|hook| {
            format!(
                "`{}`: certbot runs it for every certificate; the `reload` of a [deploy.NAME] table takes the place of a deploy hook",
                printable(hook, 200)
            )
        }));
        let of_everything =
            "it is set for every lineage in `cli.ini`; look whether it has a place in the configuration";
        left_behind.extend(tree.options.iter().map(|option| format!("`{option}`: {of_everything}")));
        left_behind.extend(tree.orphans.iter().map(|folder| {
            format!(
                "`live/{}`: no renewal file knows it, so certbot does not renew it either",
                printable(folder, 200)
            )
        }));
        let troubles = tree.troubles.iter().cloned().chain(accounts.troubles).collect();
        let version = lineages.iter().filter_map(|lineage| lineage.settings.version.clone());
        Self {
            folder: tree.shown.clone(),
            version: version.max_by_key(|version| numbers(version)),
            issuer,
            accounts: accounts.taken,
            lineages,
            listen,
            left_behind,
            troubles,
        }
    }

    /// Lineages that are in the configuration.
    pub fn active(&self) -> impl Iterator<Item = &LineagePlan> {
        self.lineages.iter().filter(|lineage| lineage.left_out.is_none())
    }

    /// The account at the configured CA.
    pub fn account(&self) -> Option<&AccountPlan> {
        self.accounts.iter().find(|account| account.issuer == self.issuer)
    }

    /// Whether something could not be taken over that should have been.
    pub fn has_troubles(&self) -> bool {
        !self.troubles.is_empty() || self.lineages.iter().any(|lineage| !lineage.troubles.is_empty())
    }
}

/// Gives each lineage a name that is one here.
fn name(lineages: &mut [LineagePlan]) {
    let mut taken: BTreeSet<String> =
        lineages.iter().map(|lineage| lineage.name.clone()).filter(|name| is_lineage_name(name)).collect();
    for lineage in lineages.iter_mut().filter(|lineage| !is_lineage_name(&lineage.name)) {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        let plain: String =
            lineage.name.chars().take(180).map(|c| if is_allowed(c) { c } else { '_' }).collect();
        let plain = format!("_{}", plain.trim_start_matches(['.', '-', '_', ':']));
        let free = (1..)
            .map(|n| if n == 1 { plain.clone() } else { format!("{plain}-{n}") })
            .find(|name| !taken.contains(name))
            .unwrap_or(plain);
        taken.insert(free.clone());
        lineage
            .notes
            .push(format!("its name `{}` is none here: it is `{free}`", printable(&lineage.original, 100)));
        lineage.name = free;
    }
}

/// The CA of most lineages; one whose certificates are trusted before one for tries.
fn main_issuer(lineages: &[LineagePlan]) -> Option<Issuer> {
    let active = lineages.iter().filter(|l| l.left_out.is_none() && l.knows_issuer());
    let active: Vec<_> = active.map(|lineage| &lineage.issuer).collect();
    let rank = |issuer: &Issuer| {
        let count = active.iter().filter(|other| **other == issuer).count();
        (*issuer != Issuer::LetsEncryptStaging, count, *issuer == Issuer::LetsEncrypt)
    };
    // Of equals the first one.
    active.iter().rev().max_by_key(|issuer| rank(issuer)).map(|issuer| (*issuer).clone())
}

fn leave_to_another_issuer(lineage: &mut LineagePlan, issuer: &Issuer) {
    if lineage.left_out.is_some() || lineage.issuer == *issuer {
        return;
    }
    let (other, main) = (lineage.issuer.name(), issuer.name());
    let remedy = match lineage.issuer {
        Issuer::LetsEncryptStaging => "it was for tries".to_owned(),
        _ => format!(
            "with `fallback-issuers = [\"{}\"]` it stays in use until it is due",
            written(&lineage.issuer)
        ),
    };
    lineage.left_out = Some(format!(
        "it is from {other}, and one CA is configured here, {main}, which would be asked for it at once; {remedy}"
    ));
}

/// Of several lineages with the same names and kind of key, which certbot makes when it is asked in a hurry
/// (`example.net-0001`), one is enough: the CA signs the same names a few times a week only.
fn leave_to_a_twin(lineages: &mut [LineagePlan]) {
    let mut best: BTreeMap<_, usize> = BTreeMap::new();
    let identity = |l: &LineagePlan| {
        let names: BTreeSet<_> = l.identifiers.iter().cloned().collect();
        (names, l.key_type.to_string())
    };
    let rank = |l: &LineagePlan| (l.certificate.as_ref().map(Certificate::not_after), Reverse(l.name.len()));
    let contends = |l: &LineagePlan| l.left_out.is_none() && !l.identifiers.is_empty();
    for (place, lineage) in lineages.iter().enumerate().filter(|(_, l)| contends(l)) {
        let place_of_best = best.entry(identity(lineage)).or_insert(place);
        if rank(lineage) > rank(&lineages[*place_of_best]) {
            *place_of_best = place;
        }
    }
    let names: Vec<_> = lineages.iter().map(|lineage| lineage.name.clone()).collect();
    for (place, lineage) in lineages.iter_mut().enumerate().filter(|(_, l)| contends(l)) {
        if let Some(twin) = best.get(&identity(lineage)).filter(|twin| **twin != place) {
            let twin = &names[*twin];
            lineage.left_out = Some(format!(
                "it has the same names as {twin}, whose certificate lasts longer, and a CA signs the same names a few times a week only; a server that reads the files of this one is to read live/{twin}"
            ));
        }
    }
}

/// An issuer as the configuration has it.
pub(super) fn written(issuer: &Issuer) -> String {
    match issuer {
        Issuer::Directory(url) => url.to_string(),
        known => known.name(),
    }
}

/// Let's Encrypt signs IP addresses with one of its profiles only.
fn ask_for_addresses(lineage: &mut LineagePlan) {
    let is_theirs = matches!(lineage.issuer, Issuer::LetsEncrypt | Issuer::LetsEncryptStaging);
    let has_address = lineage.identifiers.iter().any(|identifier| matches!(identifier, Identifier::Ip(_)));
    if is_theirs && has_address && lineage.profile.as_deref() != Some("shortlived") {
        lineage.profile = Some("shortlived".to_owned());
        lineage.notes.push("it has an IP address, so `profile` is \"shortlived\"".to_owned());
    }
}

/// What is to be said where a lineage's account is not there.
fn missing_account(lineage: &LineagePlan, taken: &[AccountPlan]) -> Option<String> {
    let id = lineage.settings.account.as_ref()?;
    if lineage.left_out.is_some() || taken.iter().any(|account| account.issuer == lineage.issuer) {
        return None;
    }
    let server = lineage.settings.server.as_deref().map(directory_url).unwrap_or_default();
    Some(format!(
        "its account {} at {} is not there, or cannot be used: another is made at the first order",
        printable(id, 60),
        printable(&server, 200)
    ))
}

/// Where the gate listens: where certbot's own server did, as far as the lineages agree.
fn listen(lineages: &[LineagePlan], left_behind: &mut Vec<String>) -> Option<SocketAddr> {
    let active = || lineages.iter().filter(|lineage| lineage.left_out.is_none());
    let ports: BTreeSet<_> = active().map(|lineage| lineage.settings.listened).collect();
    match ports.into_iter().collect::<Vec<_>>()[..] {
        [Some((address, port))] => {
            Some(SocketAddr::new(address.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED)), port))
        }
        [] | [None] => None,
        _ => {
            left_behind.push(
                "`http01_port`, `http01_address`: the lineages do not agree, so the gate listens on port 80; set `listen` under [gate] where a server in front of it passes challenges on"
                    .to_owned(),
            );
            None
        }
    }
}

fn numbers(version: &str) -> Vec<u32> {
    version.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}

#[cfg(test)]
mod tests;
