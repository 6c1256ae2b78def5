//! The files that servers read certificates and keys from: is it there, is it the chain, does the key fit,
//! will it be renewed, can the server read it and nobody else. Pure.

use std::collections::BTreeMap;

use super::super::finding::{Cause, Finding, Severity};
use super::super::ours::OurCertificate;
use super::super::papers::{Key, Paper, PaperFile, Papers};
use super::super::picture::{Located, Pair, Picture, Place, Server};
use super::super::reading::{Absence, folder_of};
use super::Evidence;
use crate::words::rough;

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for picture in evidence.pictures {
        // Fifty virtual hosts may share one pair, and it is told once.
        let mut pairs: Vec<(&Pair, Vec<&Place>)> = Vec::new();
        let mut positions = BTreeMap::new();
        for pair in picture.sites.iter().flat_map(|site| &site.certificates) {
            let position = *positions.entry(paths(pair)).or_insert(pairs.len());
            let place = &pair.certificate.place;
            match pairs.get_mut(position) {
                Some((known, more)) => {
                    if known.certificate.place != *place && more.last() != Some(&place) {
                        more.push(place);
                    }
                }
                None => pairs.push((pair, Vec::new())),
            }
        }
        for (pair, more) in pairs {
            let look = Look { evidence, picture, pair };
            let mut found = look.all();
            for finding in &mut found {
                match more.as_slice() {
                    [] => {}
                    [one] => finding.seen.push_str(&format!("; also at {one}")),
                    [one, rest @ ..] => {
                        finding.seen.push_str(&format!("; also at {one} and {} more", rest.len()));
                    }
                }
            }
            findings.extend(found);
        }
    }
    findings
}

/// What tells one pair from another.
fn paths(pair: &Pair) -> [Option<&str>; 3] {
    [Some(&pair.certificate), pair.key.as_ref(), pair.chain.as_ref()]
        .map(|located| located.map(|located| located.path.as_str()))
}

struct Look<'a> {
    evidence: &'a Evidence<'a>,
    picture: &'a Picture,
    pair: &'a Pair,
}

impl Look<'_> {
    fn all(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let certificate = &self.pair.certificate;
        if let Some(file) = self.evidence.paper(&certificate.path) {
            match &file.content {
                Err(absence) => findings.push(self.absent(certificate, absence, false)),
                Ok(papers) => findings.extend(self.certificate(file, papers)),
            }
            findings.extend(self.path(certificate, file));
            findings.extend(self.label(certificate, file));
        }
        findings.extend(self.key());
        if let Some(chain) = &self.pair.chain
            && let Some(file) = self.evidence.paper(&chain.path)
        {
            if let Err(absence) = &file.content {
                findings.push(self.absent(chain, absence, false));
            }
            findings.extend(self.path(chain, file));
            findings.extend(self.label(chain, file));
        }
        findings
    }

    fn finding(&self, cause: Cause, severity: Severity, at: &Located, seen: String) -> Finding {
        Finding::new(cause, severity, seen).at(self.picture.server, &at.place)
    }

    fn absent(&self, at: &Located, absence: &Absence, is_key: bool) -> Finding {
        let name = self.picture.server.name();
        let seen = format!("`{}` names {}, which {absence}", at.directive, at.path);
        if *absence == Absence::Denied {
            let cause = if is_key { Cause::KeyUnreadable } else { Cause::CertificateUnreadable };
            return self
                .finding(cause, Severity::Warning, at, seen)
                .means("it could not be judged; the server, which starts as root, may well read it")
                .remedy("run `wicketgate doctor` as root");
        }
        let remedy = match self.evidence.ours.owner_of(&at.path) {
            Some(own) => format!(
                "it is where certificate `{}` of wicketgate will be: obtain it with `wicketgate renew {}`, before {name} is started",
                own.name, own.name
            ),
            None => match self.ours_for(at) {
                Some((own, file)) => format!("write {}/{file}, which wicketgate keeps", own.live),
                None => "put the file there, or name the right one".to_owned(),
            },
        };
        let cause = if is_key { Cause::KeyMissing } else { Cause::CertificateMissing };
        self.finding(cause, Severity::Problem, at, seen)
            .means(format!("{name} does not start, or keeps what it had before"))
            .remedy(remedy)
    }

    fn certificate(&self, file: &PaperFile, papers: &Papers) -> Vec<Finding> {
        let at = &self.pair.certificate;
        let (path, name) = (&at.path, self.picture.server.name());
        let mut findings = Vec::new();
        if let Some(damage) = &papers.damage {
            let seen = format!("{path} cannot be read: {damage}");
            findings.push(
                self.finding(Cause::CertificateDamaged, Severity::Problem, at, seen)
                    .means(format!("{name} does not start with it"))
                    .remedy("put a whole file there"),
            );
        }
        let Some(leaf) = papers.certificates.first() else {
            if papers.damage.is_none() {
                let seen = format!("`{}` names {path}, in which there is no certificate", at.directive);
                findings.push(
                    self.finding(Cause::CertificateDamaged, Severity::Problem, at, seen)
                        .means(format!("{name} does not start with it"))
                        .remedy(self.instead(at)),
                );
            }
            return findings;
        };
        findings.extend(self.chain(papers, leaf));
        findings.extend(self.dates(leaf));
        if leaf.is_self_signed && papers.certificates.len() == 1 {
            let seen = format!("{path} is signed by itself, for {}", leaf.names());
            findings.push(
                self.finding(Cause::SelfSigned, Severity::Warning, at, seen)
                    .means("no browser trusts it")
                    .remedy(self.instead(at)),
            );
        }
        findings.extend(self.copy(file, leaf));
        findings
    }

    fn chain(&self, papers: &Papers, leaf: &Paper) -> Option<Finding> {
        let at = &self.pair.certificate;
        let path = &at.path;
        if let Some(gap) = &papers.gap {
            let seen = format!("the chain in {path} does not hold together: {gap}");
            return Some(
                self.finding(Cause::ChainBroken, Severity::Problem, at, seen)
                    .means("clients that do not know the missing link by chance refuse it")
                    .remedy(self.instead(at)),
            );
        }
        let has_chain_file = self.pair.chain.as_ref().is_some_and(|chain| {
            self.evidence
                .paper(&chain.path)
                .and_then(|file| file.content.as_ref().ok())
                .is_some_and(|papers| !papers.certificates.is_empty())
        });
        if papers.certificates.len() > 1 || has_chain_file || leaf.is_self_signed || self.is_whole(at, leaf) {
            return None;
        }
        let seen = format!("`{}` names {path}, which holds the server's certificate alone", at.directive);
        Some(
            self.finding(Cause::LoneLeaf, Severity::Problem, at, seen)
                .means("the CA's intermediate certificate is not sent: browsers that happen to have it work, the others refuse the site")
                .remedy(self.instead(at)),
        )
    }

    /// Whether the leaf alone is all there is: its `fullchain.pem` has no more.
    fn is_whole(&self, at: &Located, leaf: &Paper) -> bool {
        let beside = format!("{}/fullchain.pem", folder_of(&at.path));
        // Anybody may give a file that name; a folder of present versions has it from a CA's answer.
        if at.path == beside && !is_live(&at.path) {
            return false;
        }
        let full = self.evidence.paper(&beside).and_then(|file| file.content.as_ref().ok());
        full.is_some_and(|full| full.certificates.len() == 1 && full.certificates[0].der == leaf.der)
    }

    fn dates(&self, leaf: &Paper) -> Option<Finding> {
        let at = &self.pair.certificate;
        if let Ok(ago) = self.evidence.now.duration_since(leaf.not_after) {
            let seen = format!("{} ended {} ago; it is for {}", at.path, rough(ago), leaf.names());
            let remedy = match self.evidence.ours.owner_of(&at.path) {
                Some(own) => format!("`wicketgate status` tells why `{}` was not renewed", own.name),
                None => self.instead(at),
            };
            return Some(
                self.finding(Cause::Expired, Severity::Problem, at, seen)
                    .means("every browser refuses the site")
                    .remedy(remedy),
            );
        }
        let ahead = leaf.not_before.duration_since(self.evidence.now).ok()?;
        (ahead.as_secs() > 300).then(|| {
            let seen = format!("{} is not valid for another {}", at.path, rough(ahead));
            self.finding(Cause::NotYetValid, Severity::Problem, at, seen)
                .means("browsers refuse the site until then")
                .remedy("is this machine's clock right?")
        })
    }

    /// A copy of what wicketgate keeps, which its renewals do not reach.
    fn copy(&self, file: &PaperFile, leaf: &Paper) -> Option<Finding> {
        let at = &self.pair.certificate;
        let ours = self.evidence.ours;
        if file.hops.iter().any(|hop| ours.owner_of(hop).is_some()) {
            return None;
        }
        // Another tool's live folder is no copy.
        if file.hops.iter().any(|hop| is_live(hop)) {
            return None;
        }
        let own = ours.certificates.iter().find(|own| {
            !leaf.identifiers.is_empty() && leaf.identifiers.iter().all(|id| own.identifiers.contains(id))
        })?;
        let present = self
            .evidence
            .paper(&format!("{}/fullchain.pem", own.live))
            .and_then(|file| file.content.as_ref().ok())
            .and_then(|papers| papers.certificates.first())?;
        let (cause, severity, seen, means) = if present.der == leaf.der {
            (
                Cause::Copy,
                Severity::Warning,
                format!("{} is a copy of what wicketgate keeps for `{}`", at.path, own.name),
                "a renewal does not reach it, unless a command of yours copies it again each time",
            )
        } else if present.not_after > leaf.not_after && present.issuer == leaf.issuer {
            (
                Cause::CopyStale,
                Severity::Problem,
                format!("{} is an older copy of what wicketgate keeps for `{}`", at.path, own.name),
                "it was renewed since, and the server does not know: it will end in service",
            )
        } else {
            return None;
        };
        Some(self.finding(cause, severity, at, seen).means(means).remedy(self.instead(at)))
    }

    fn path(&self, at: &Located, file: &PaperFile) -> Option<Finding> {
        let frozen = file.hops.iter().position(|hop| thawed(hop).is_some())?;
        if file.hops[..frozen].iter().any(|hop| is_live(hop)) {
            return None;
        }
        let hop = &file.hops[frozen];
        let seen = if hop == &at.path {
            format!("`{}` names {hop}, which is one version for ever", at.directive)
        } else {
            format!("`{}` names {}, a link to {hop}, which is one version for ever", at.directive, at.path)
        };
        Some(
            self.finding(Cause::FrozenPath, Severity::Problem, at, seen)
                .means("a renewal makes a new version beside it, and the server goes on with the old one")
                .remedy(format!(
                    "write {}, then {}",
                    thawed(hop).unwrap_or_default(),
                    super::reload(self.picture.server)
                )),
        )
    }

    fn label(&self, at: &Located, file: &PaperFile) -> Option<Finding> {
        let label = file.label.as_deref().filter(|_| self.evidence.is_enforcing)?;
        if is_readable_type(label) {
            return None;
        }
        let real = file.hops.last().unwrap_or(&at.path);
        let state_dir = &self.evidence.ours.state_dir;
        let folder = if real.starts_with(&format!("{state_dir}/")) { state_dir } else { folder_of(real) };
        let seen = format!("{real} has the SELinux type `{label}`, and SELinux is enforcing");
        Some(
            self.finding(Cause::SelinuxLabel, Severity::Problem, at, seen)
                .means(format!("{} may not read it, whatever its mode is", self.picture.server.name()))
                .remedy(format!(
                    "`semanage fcontext -a -t cert_t '{folder}(/.*)?'`, then `restorecon -R -v {folder}`"
                )),
        )
    }

    fn key(&self) -> Vec<Finding> {
        let certificate = &self.pair.certificate;
        let beside;
        let (at, file) = match &self.pair.key {
            Some(key) => (key, self.evidence.paper(&key.path)),
            None => {
                let own = self.evidence.paper(&certificate.path);
                let has_none =
                    own.and_then(|f| f.content.as_ref().ok()).is_some_and(|papers| papers.key == Key::None);
                beside = Located { path: format!("{}.key", certificate.path), ..certificate.clone() };
                let other = self.evidence.paper(&beside.path).filter(|file| file.content.is_ok());
                match other.filter(|_| has_none && self.pair.key_beside) {
                    Some(file) => (&beside, Some(file)),
                    None => (certificate, own),
                }
            }
        };
        let Some(file) = file else { return Vec::new() };
        let mut findings = Vec::new();
        let is_own_file = at.path != certificate.path;
        let papers = match &file.content {
            Ok(papers) => papers,
            Err(absence) => {
                if is_own_file {
                    findings.push(self.absent(at, absence, true));
                }
                return findings;
            }
        };
        let name = self.picture.server.name();
        match &papers.key {
            Key::None => {
                let seen = format!("`{}` names {}, in which there is no key", at.directive, at.path);
                findings.push(
                    self.finding(Cause::KeyMissing, Severity::Problem, at, seen)
                        .means(if is_own_file || self.pair.key.is_some() {
                            format!("{name} does not start with it")
                        } else {
                            format!("{name} wants certificate, chain and key in this one file")
                        })
                        .remedy(self.instead(at)),
                );
            }
            Key::Locked => {
                let seen = format!("the key in {} is protected by a password", at.path);
                findings.push(self.finding(Cause::KeyDamaged, Severity::Warning, at, seen).means(
                    "whether it fits could not be judged, and the server asks for the password at each start",
                ));
            }
            Key::Damaged(why) => {
                let seen = format!("the key in {} cannot be used: {why}", at.path);
                findings.push(
                    self.finding(Cause::KeyDamaged, Severity::Problem, at, seen)
                        .means(format!("{name} does not start with it"))
                        .remedy("put a whole key there"),
                );
            }
            Key::Public(public) => {
                if let Some(leaf) = self.evidence.leaf(self.pair)
                    && leaf.public_key != *public
                {
                    let seen = format!(
                        "the key in {} does not belong to the certificate in {}",
                        at.path, certificate.path
                    );
                    findings.push(
                        self.finding(Cause::KeyMismatch, Severity::Problem, at, seen)
                            .means(format!(
                                "they were made for different keys, and {name} does not start with them"
                            ))
                            .remedy("name certificate and key from one folder of one version"),
                    );
                }
            }
        }
        if papers.key != Key::None && file.is_exposed {
            let seen = format!("everybody on this machine can read the key in {}", at.path);
            findings.push(
                self.finding(Cause::KeyExposed, Severity::Problem, at, seen)
                    .means("whoever has it can pass as the site")
                    .remedy(format!("`chmod o= {}`, and obtain a new certificate with a new key", at.path)),
            );
        }
        if is_own_file {
            findings.extend(self.path(at, file));
            findings.extend(self.label(at, file));
        }
        findings
    }

    /// The certificate of ours that would do here, and its file.
    fn ours_for(&self, at: &Located) -> Option<(&OurCertificate, &'static str)> {
        let ours = self.evidence.ours;
        let by_leaf = self.evidence.leaf(self.pair).and_then(|leaf| {
            let fits = |own: &&OurCertificate| leaf.identifiers.iter().any(|id| own.identifiers.contains(id));
            ours.certificates.iter().find(fits)
        });
        let by_site = || {
            let mut sites = self.picture.sites.iter().filter(|site| site.certificates.contains(self.pair));
            sites.find_map(|site| {
                ours.certificates.iter().find(|own| {
                    site.names.iter().any(|named| {
                        matches!(&named.pattern, super::super::picture::Pattern::Exact(name) if own.covers(name))
                    })
                })
            })
        };
        let own = ours.owner_of(&at.path).or(by_leaf).or_else(by_site)?;
        let is_key = self.pair.key.as_ref() == Some(at);
        Some((own, if is_key { "privkey.pem" } else { self.wanted() }))
    }

    /// The name of the file that belongs here.
    fn wanted(&self) -> &'static str {
        match self.picture.server {
            Server::Haproxy => "combined.pem",
            Server::Hitch if self.pair.key.is_none() => "combined.pem",
            _ => "fullchain.pem",
        }
    }

    /// What to write in place of a path.
    fn instead(&self, at: &Located) -> String {
        let then = format!("then {}", super::reload(self.picture.server));
        if let Some((own, file)) = self.ours_for(at) {
            return format!("write {}/{file}, {then}", own.live);
        }
        let folder = folder_of(&at.path);
        if self.wanted() == "fullchain.pem" && at.path.ends_with("/cert.pem") {
            return format!("write {folder}/fullchain.pem, {then}");
        }
        match self.wanted() {
            "combined.pem" => format!(
                "put certificate, chain and key into one file (`cat {folder}/fullchain.pem {folder}/privkey.pem`), or let wicketgate obtain it: its live/NAME/combined.pem is one, {then}"
            ),
            _ => format!("name the file with the whole chain, leaf first, {then}"),
        }
    }
}

/// Whether a path is below a folder whose content is the present version.
fn is_live(path: &str) -> bool {
    path.contains("/live/")
}

/// The lasting path, for one that leads into a certain version: ours, or certbot's.
fn thawed(path: &str) -> Option<String> {
    let parts: Vec<_> = path.split('/').collect();
    if let Some(at) = parts.windows(3).position(|w| w[0] == "lineages" && w[2] == "versions") {
        let (root, name, rest) = (parts[..at].join("/"), parts[at + 1], parts.get(at + 4..)?.join("/"));
        return Some(format!("{root}/live/{name}/{rest}"));
    }
    let at = parts.iter().position(|part| *part == "archive")?;
    let [name, file] = parts.get(at + 1..)? else { return None };
    let stem = file.strip_suffix(".pem")?;
    let bare = stem.trim_end_matches(|c: char| c.is_ascii_digit());
    (bare.len() < stem.len()).then(|| format!("{}/live/{name}/{bare}.pem", parts[..at].join("/")))
}

/// SELinux types that servers may read under the reference policy.
fn is_readable_type(label: &str) -> bool {
    const READABLE: [&str; 6] =
        ["cert_t", "etc_t", "usr_t", "public_content_t", "squid_conf_t", "haproxy_conf_t"];
    READABLE.contains(&label) || label.starts_with("httpd_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_a_lasting_path() {
        for (path, lasting) in [
            (
                "/var/lib/w/lineages/a.b/versions/0007/fullchain.pem",
                Some("/var/lib/w/live/a.b/fullchain.pem"),
            ),
            ("/etc/letsencrypt/archive/a.b/cert12.pem", Some("/etc/letsencrypt/live/a.b/cert.pem")),
            ("/etc/letsencrypt/archive/a.b/cert.pem", None),
            ("/etc/letsencrypt/live/a.b/cert.pem", None),
            ("/archive", None),
            ("/lineages/a/versions", None),
        ] {
            assert_eq!(thawed(path).as_deref(), lasting, "{path}");
        }
    }
}
