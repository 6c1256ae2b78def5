//! Hostnames: which are served and on no certificate, which are on a certificate and served by nobody,
//! which certificate nobody uses. Pure.

use std::collections::BTreeMap;

use super::super::finding::{Cause, Finding, Severity};
use super::super::picture::{Pattern, Picture, Place, Site};
use super::Evidence;
use crate::hostname::{Hostname, Identifier};

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Finding> {
    let mut findings = not_covered(evidence);
    if !evidence.ours.is_unknown() {
        findings.extend(without_certificate(evidence, &findings));
        findings.extend(unserved(evidence));
        findings.extend(unused(evidence));
    }
    findings
}

/// Names of TLS sites that are not on the certificate that is shown there.
fn not_covered(evidence: &Evidence<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (picture, site) in evidence.sites().filter(|(_, site)| site.is_tls()) {
        let leaves: Vec<_> = site.certificates.iter().filter_map(|pair| evidence.leaf(pair)).collect();
        // A certificate that could not be read may cover anything.
        if leaves.is_empty() || leaves.len() < site.certificates.len() {
            continue;
        }
        for (name, place) in exact(site) {
            if leaves.iter().any(|leaf| leaf.covers(name)) {
                continue;
            }
            let path = &site.certificates[0].certificate.path;
            let seen = format!("{name} is served with {path}, which is for {}", leaves[0].names());
            let own = evidence.ours.certificates.iter().find(|own| own.covers(name));
            let remedy = match own {
                Some(own) if evidence.ours.owner_of(path).is_some_and(|it| it == own) => {
                    format!(
                        "the certificate lacks it although it is configured: see `wicketgate status {}`",
                        own.name
                    )
                }
                Some(own) => format!("serve it with {}, the files of certificate `{}`", own.live, own.name),
                None => add_to(evidence, name),
            };
            findings.push(
                Finding::new(Cause::NameNotCovered, Severity::Problem, seen)
                    .at(picture.server, place)
                    .means(format!("every browser refuses https://{name}/"))
                    .remedy(remedy),
            );
        }
    }
    findings
}

/// Names that are served and that no certificate of ours has, nor another one that is served for them.
fn without_certificate(evidence: &Evidence<'_>, told: &[Finding]) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    let mut seen_before = Vec::new();
    for (picture, site) in evidence.sites() {
        for (name, place) in exact(site) {
            if !is_public(name)
                || seen_before.contains(&name)
                || evidence.ours.certificates.iter().any(|own| own.covers(name))
                || is_covered_elsewhere(evidence, name)
            {
                continue;
            }
            seen_before.push(name);
            let is_told =
                told.iter().any(|finding| finding.seen.starts_with(&format!("{name} is served with")));
            if is_told {
                continue;
            }
            let seen = match neighbour(evidence, name) {
                Some(other) => {
                    format!("{name} is served, and no certificate has it, while {other} is on one")
                }
                None => format!("{name} is served, and no certificate has it"),
            };
            findings.push(
                Finding::new(Cause::HostnameWithoutCertificate, Severity::Warning, seen)
                    .at(picture.server, place)
                    .means(format!("https://{name}/ shows a warning, if it works at all"))
                    .remedy(format!("{}; or take it out of the server's names", add_to(evidence, name))),
            );
        }
    }
    findings
}

/// Names on certificates of ours that no server has.
fn unserved(evidence: &Evidence<'_>) -> Vec<Finding> {
    let has_names = evidence.sites().any(|(_, site)| !site.names.is_empty());
    if evidence.ours.has_front || !has_names {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for own in &evidence.ours.certificates {
        for identifier in &own.identifiers {
            let Identifier::Dns(name) = identifier else { continue };
            let is_served = evidence.sites().any(|(_, site)| {
                if site.names.is_empty() || site.names.iter().any(|n| n.pattern == Pattern::Any) {
                    // What takes everything serves what its certificates are for.
                    return site.certificates.iter().filter_map(|p| evidence.leaf(p)).any(|l| l.covers(name));
                }
                site.answers(name)
            });
            if is_served {
                continue;
            }
            let seen = format!("{name} is on certificate `{}`, and no server here has that name", own.name);
            findings.push(
                Finding::new(Cause::HostnameUnserved, Severity::Warning, seen)
                    .means("a renewal that fails for it would be for nothing; or a server lacks the name")
                    .remedy(format!(
                        "give the name to the site that it belongs to, or take it out of `hostnames` of certificate `{}`",
                        own.name
                    )),
            );
        }
    }
    findings
}

/// Certificates of ours that nobody reads.
fn unused(evidence: &Evidence<'_>) -> Vec<Finding> {
    if evidence.ours.has_front {
        return Vec::new();
    }
    let paths: Vec<&str> = evidence
        .sites()
        .flat_map(|(_, site)| &site.certificates)
        .flat_map(|pair| std::iter::once(&pair.certificate).chain(&pair.key).chain(&pair.chain))
        .flat_map(|located| match evidence.paper(&located.path) {
            Some(file) => file.hops.iter().map(String::as_str).collect(),
            None => vec![located.path.as_str()],
        })
        .collect();
    let shown: Vec<_> = evidence
        .sites()
        .flat_map(|(_, site)| &site.certificates)
        .filter_map(|pair| evidence.leaf(pair))
        .collect();
    let unused = evidence.ours.certificates.iter().filter(|own| {
        let live = evidence.paper(&format!("{}/fullchain.pem", own.live));
        let leaf = live.and_then(|file| file.content.as_ref().ok()?.certificates.first());
        // A copy is told as such.
        let is_copied = leaf.is_some_and(|leaf| shown.iter().any(|other| other.der == leaf.der));
        let owns = |path: &&str| evidence.ours.owner_of(path).is_some_and(|owner| owner.name == own.name);
        !is_copied && !paths.iter().any(owns)
    });
    unused
        .map(|own| {
            let other = evidence.sites().find_map(|(picture, site)| {
                let (name, place) = exact(site).find(|(name, _)| own.covers(name))?;
                let pair = site.certificates.first()?;
                Some((picture, name, place, &pair.certificate.path))
            });
            let seen = match other {
                Some((picture, name, _, path)) => format!(
                    "no server uses certificate `{}`: {} serves {name} with {path}",
                    own.name,
                    picture.server.name()
                ),
                None => format!("no server uses certificate `{}`", own.name),
            };
            let finding = Finding::new(Cause::CertificateUnused, Severity::Warning, seen)
                .means("it is renewed for nobody")
                .remedy(format!(
                    "name {}/fullchain.pem and privkey.pem in the server (combined.pem for HAProxy and hitch), or take the [[certificate]] out",
                    own.live
                ));
            match other {
                Some((picture, _, place, _)) => finding.at(picture.server, place),
                None => finding,
            }
        })
        .collect()
}

pub(super) fn exact(site: &Site) -> impl Iterator<Item = (&Hostname, &Place)> {
    site.names.iter().filter_map(|named| match &named.pattern {
        Pattern::Exact(name) => Some((name, &named.place)),
        _ => None,
    })
}

/// Whether a public CA could sign it at all.
fn is_public(name: &Hostname) -> bool {
    const PRIVATE: [&str; 9] =
        ["localhost", "local", "localdomain", "lan", "internal", "intranet", "home", "corp", "arpa"];
    name.as_str().rsplit_once('.').is_some_and(|(_, top)| !PRIVATE.contains(&top))
}

fn is_covered_elsewhere(evidence: &Evidence<'_>, name: &Hostname) -> bool {
    evidence.sites().filter(|(_, site)| site.is_tls() && site.answers(name)).any(|(_, site)| {
        site.certificates.iter().filter_map(|pair| evidence.leaf(pair)).any(|leaf| leaf.covers(name))
    })
}

/// The same name with or without `www.`, where one of our certificates has it.
fn neighbour(evidence: &Evidence<'_>, name: &Hostname) -> Option<Hostname> {
    let other = match name.as_str().strip_prefix("www.") {
        Some(bare) => bare.to_owned(),
        None => format!("www.{name}"),
    };
    let other = Hostname::parse_any(&other).ok()?;
    evidence.ours.certificates.iter().any(|own| own.covers(&other)).then_some(other)
}

fn add_to(evidence: &Evidence<'_>, name: &Hostname) -> String {
    let other = neighbour(evidence, name);
    let own = other.and_then(|other| evidence.ours.certificates.iter().find(|own| own.covers(&other)));
    match own {
        Some(own) => format!("add \"{name}\" to `hostnames` of certificate `{}`", own.name),
        None => format!("add \"{name}\" to `hostnames` of a [[certificate]]"),
    }
}

/// By name, for sites on port 80: whether a host is reached over TLS too.
pub(super) fn has_tls(evidence: &Evidence<'_>, name: &Hostname) -> bool {
    let by_front = evidence.ours.has_front && evidence.ours.certificates.iter().any(|own| own.covers(name));
    by_front
        || evidence.sites().filter(|(_, site)| site.is_tls()).any(|(_, site)| {
            let leaves = || site.certificates.iter().filter_map(|pair| evidence.leaf(pair));
            let takes_all = site.names.is_empty() || site.names.iter().any(|n| n.pattern == Pattern::Any);
            if takes_all { leaves().any(|leaf| leaf.covers(name)) } else { site.answers(name) }
        })
}

/// The places at which sites on port 80 have names that are ours, or all of them where ours are not known.
pub(super) fn concerns_us(evidence: &Evidence<'_>, site: &Site) -> bool {
    let ours = &evidence.ours;
    let takes_all = site.names.is_empty();
    takes_all
        || ours.is_unknown()
        || ours
            .certificates
            .iter()
            .flat_map(|own| &own.identifiers)
            .any(|identifier| matches!(identifier, Identifier::Dns(name) if site.answers(name)))
}

/// Every exact name on port 80 with its site, once.
pub(super) fn on_port_80<'a>(
    evidence: &Evidence<'a>,
) -> BTreeMap<&'a Hostname, (&'a Picture, &'a Site, &'a Place)> {
    let mut found = BTreeMap::new();
    for (picture, site) in evidence.sites().filter(|(_, site)| site.port_80().is_some()) {
        for (name, place) in exact(site) {
            found.entry(name).or_insert((picture, site, place));
        }
    }
    found
}
