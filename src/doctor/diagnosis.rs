//! What the facts mean: the servers' pictures, the certificate files, our own configuration, and who holds
//! port 80, beside each other. Pure.

mod certificates;
mod challenge;
mod names;

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::Serialize;

use super::finding::{Cause, Finding, Severity};
use super::ours::{Configuration, Gateway, Ours};
use super::papers::PaperFile;
use super::picture::{Pair, Picture, Server, Site, TroubleKind};

/// Everything that is known.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// The servers' configurations.
    pub pictures: &'a [Picture],
    /// The files that they name, and ours, by their paths.
    pub papers: &'a BTreeMap<String, PaperFile>,
    /// Our part.
    pub ours: &'a Ours,
    /// Where other servers reach the gate.
    pub gateway: &'a Gateway,
    /// Who holds port 80.
    pub port_80: &'a Port80,
    /// SELinux keeps servers to its rules.
    pub is_enforcing: bool,
    /// The present.
    pub now: SystemTime,
}

/// Who holds port 80.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum Port80 {
    /// Nobody.
    Free,
    /// This program.
    Held {
        /// Its short name.
        program: String,
        /// Its process id.
        pid: u32,
    },
    /// Somebody whom this user may not see.
    HeldUnseen,
    /// It was not looked at: the files are another installation's.
    NotLooked,
}

impl Port80 {
    fn program(&self) -> Option<&str> {
        match self {
            Self::Held { program, .. } => Some(program),
            _ => None,
        }
    }
}

/// All findings, in the order in which they are told: what concerns us, then each server's, problems first.
pub fn diagnose(evidence: &Evidence<'_>) -> Vec<Finding> {
    let mut findings = own_configuration(evidence.ours);
    if evidence.pictures.is_empty() {
        let known: Vec<_> = Server::ALL.map(Server::name).into();
        let severity = if evidence.ours.has_front { Severity::Fine } else { Severity::Warning };
        findings.push(
            Finding::new(
                Cause::NoServer,
                severity,
                format!("no configuration of {} was found", known.join(", ")),
            )
            .means("none of these servers is installed in the usual place"),
        );
    }
    for picture in evidence.pictures {
        findings.extend(troubles(picture));
    }
    findings.extend(certificates::judge(evidence));
    findings.extend(names::judge(evidence));
    findings.extend(challenge::judge(evidence));
    findings.sort_by_key(|finding| (finding.server, finding.severity));
    findings.dedup();
    findings
}

/// The servers whose rule is to be printed: those that hold port 80 or would, and do not pass everything on.
pub fn gatekeepers<'a>(evidence: &Evidence<'a>, findings: &[Finding]) -> Vec<&'a Picture> {
    let in_the_way = |server: Server| {
        findings.iter().any(|finding| {
            finding.server == Some(server)
                && matches!(
                    finding.cause,
                    Cause::ChallengeRedirected
                        | Cause::ChallengeDenied
                        | Cause::ChallengeFiltered
                        | Cause::ChallengeAnswered
                        | Cause::ChallengeMisdirected
                        | Cause::ChallengeAltered
                        | Cause::Port80Contended
                )
        })
    };
    evidence.pictures.iter().filter(|picture| in_the_way(picture.server)).collect()
}

fn own_configuration(ours: &Ours) -> Vec<Finding> {
    match &ours.configuration {
        Configuration::Good => Vec::new(),
        Configuration::Missing => {
            let seen = "there is no configuration of wicketgate, neither a file nor flags";
            vec![
                Finding::new(Cause::ConfigurationMissing, Severity::Warning, seen)
                    .means("which hostnames and certificates are ours is not known; the servers were looked at all the same")
                    .remedy("name it with `--config FILE`, or write one (`wicketgate config example` prints it)"),
            ]
        }
        Configuration::Wrong(problems) => problems
            .iter()
            .map(|problem| {
                Finding::new(Cause::ConfigurationWrong, Severity::Problem, problem)
                    .means("wicketgate's own configuration is not taken, so which hostnames and certificates are ours is not known; the servers were looked at all the same")
                    .remedy("correct it; `wicketgate config check` says when it is good")
            })
            .collect(),
    }
}

fn troubles(picture: &Picture) -> Vec<Finding> {
    let name = picture.server.name();
    let explain = |kind| match kind {
        TroubleKind::Unreadable => (
            Cause::FileUnreadable,
            Severity::Warning,
            "what it says was not looked at".to_owned(),
            "run `wicketgate doctor` as root".to_owned(),
        ),
        TroubleKind::Missing => (
            Cause::FileMissing,
            Severity::Problem,
            format!("{name} may refuse to start, or to take changes"),
            "put the file there, or take out the line (or the link) that leads to it".to_owned(),
        ),
        TroubleKind::Broken => (
            Cause::Syntax,
            Severity::Problem,
            format!("{name} would refuse this; what stands around it was looked at as well as could be"),
            format!("correct the line; {} says when it is good", test_command(picture.server)),
        ),
        TroubleKind::Endless => (
            Cause::IncludeEndless,
            Severity::Problem,
            "it was left out here".to_owned(),
            "take the circle out, or make it less".to_owned(),
        ),
        TroubleKind::Unknown => (
            Cause::ValueUnknown,
            Severity::Warning,
            "this part could not be judged".to_owned(),
            "look at it yourself".to_owned(),
        ),
    };
    picture
        .troubles
        .iter()
        .map(|trouble| {
            let (cause, severity, means, remedy) = explain(trouble.kind);
            Finding::new(cause, severity, &trouble.seen)
                .at(picture.server, &trouble.place)
                .means(means)
                .remedy(remedy)
        })
        .collect()
}

fn test_command(server: Server) -> &'static str {
    match server {
        Server::Nginx => "`nginx -t`",
        Server::Apache => "`apachectl configtest`",
        Server::Squid => "`squid -k parse`",
        Server::Haproxy => "`haproxy -c -f /etc/haproxy/haproxy.cfg`",
        Server::Hitch => "`hitch --test --config=/etc/hitch/hitch.conf`",
    }
}

/// How a server is made to take what was changed.
fn reload(server: Server) -> &'static str {
    match server {
        Server::Nginx => "`nginx -s reload`",
        Server::Apache => "`apachectl graceful`",
        Server::Squid => "`squid -k reconfigure`",
        Server::Haproxy => "`systemctl reload haproxy`",
        Server::Hitch => "`systemctl reload hitch`",
    }
}

impl<'a> Evidence<'a> {
    fn sites(&self) -> impl Iterator<Item = (&'a Picture, &'a Site)> {
        self.pictures.iter().flat_map(|picture| picture.sites.iter().map(move |site| (picture, site)))
    }

    fn paper(&self, path: &str) -> Option<&'a PaperFile> {
        self.papers.get(path)
    }

    /// The leaf that a pair shows.
    fn leaf(&self, pair: &Pair) -> Option<&'a super::papers::Paper> {
        self.paper(&pair.certificate.path)?.content.as_ref().ok()?.certificates.first()
    }
}
