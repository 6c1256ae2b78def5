//! What is wrong around wicketgate: the configurations of nginx, Apache, Squid, HAProxy and hitch as they
//! are installed, the certificate files that they name, and who holds port 80. Nothing is changed, and no
//! server's binary is run.
//!
//! A reader for each server makes a [`picture`] of its files, which are followed by an argument; the
//! [`diagnosis`] sets the pictures beside the certificate files as read, our own configuration and the
//! holder of port 80; [`rule`] has the lines that hand challenges to the gate. All of these are pure:
//! [`examine`] reads what they need.

pub mod apache;
pub mod diagnosis;
pub mod finding;
mod glob;
pub mod haproxy;
pub mod hitch;
pub mod nginx;
pub mod ours;
pub mod papers;
pub mod picture;
pub mod reading;
pub mod rule;
pub mod squid;
mod tree;
mod truth;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::SystemTime;

use serde::Serialize;

use crate::net::holder;
use crate::words::printable;
use diagnosis::{Evidence, Port80};
use finding::{Finding, Rule, Severity};
use ours::Ours;
use papers::PaperFile;
use picture::{Picture, Server};
use reading::{Files, folder_of};
use tree::Tree;

/// All that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// The folder that was looked at in place of `/`.
    pub root: Option<String>,
    /// Who holds port 80.
    #[serde(rename = "port-80")]
    pub port_80: Port80,
    /// The servers that are configured here.
    pub servers: Vec<Looked>,
    /// What was found, each server's problems first.
    pub findings: Vec<Finding>,
    /// What hands the challenges to the gate, for each server that has port 80 or would; empty where
    /// nothing is in the way.
    pub rules: Vec<Rule>,
}

/// A server whose configuration was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Looked {
    /// Which.
    pub server: Server,
    /// The file that everything begins with.
    pub file: String,
    /// How many files were read.
    pub files: usize,
    /// How many sites they have.
    pub sites: usize,
}

impl Report {
    /// Whether something is wrong.
    pub fn has_problems(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Problem)
    }
}

/// Looks at this machine, or at the installation below `root`.
pub fn examine(root: Option<&Path>, ours: &Ours, now: SystemTime) -> Report {
    let tree = Tree::new(root.unwrap_or(Path::new("/")));
    let pictures = pictures(&tree);
    let is_enforcing = tree.read("/sys/fs/selinux/enforce").is_ok_and(|text| text.trim() == "1");
    let papers = papers(&tree, &pictures, ours, is_enforcing);
    let port_80 = match root {
        Some(root) if root != Path::new("/") => Port80::NotLooked,
        _ => port_80(),
    };
    let mentioned = numbers(&tree, &pictures);
    let gateway = ours.gate_for_others(|port| {
        mentioned.contains(&port) || port_80 != Port80::NotLooked && holder::is_held(port)
    });
    let evidence = Evidence {
        pictures: &pictures,
        papers: &papers,
        ours,
        gateway: &gateway,
        port_80: &port_80,
        is_enforcing,
        now,
    };
    let findings = diagnosis::diagnose(&evidence);
    let rules = diagnosis::gatekeepers(&evidence, &findings)
        .into_iter()
        .flat_map(|picture| rule::rules(picture, &gateway.address))
        .collect();
    let servers = pictures
        .iter()
        .map(|picture| Looked {
            server: picture.server,
            file: picture.main.clone(),
            files: picture.files.len(),
            sites: picture.sites.len(),
        })
        .collect();
    let root = root.map(|root| root.to_string_lossy().into_owned());
    Report { root, port_80, servers, findings, rules }
}

/// Every number in the servers' files that could be a port: whatever one is for, somebody has it.
fn numbers(tree: &Tree, pictures: &[Picture]) -> BTreeSet<u16> {
    let texts = pictures.iter().flat_map(|picture| &picture.files).filter_map(|file| tree.read(file).ok());
    texts
        .flat_map(|text| {
            text.split(|c: char| !c.is_ascii_digit())
                .filter_map(|digits| digits.parse().ok())
                .collect::<Vec<_>>()
        })
        .collect()
}

fn port_80() -> Port80 {
    match holder::of_port(80) {
        Some(holder) => Port80::Held { program: holder.program, pid: holder.pid },
        None if holder::is_held(80) => Port80::HeldUnseen,
        None => Port80::Free,
    }
}

/// The pictures of the servers that are installed.
fn pictures(files: &dyn Files) -> Vec<Picture> {
    let environment = files.read("/etc/apache2/envvars").map(|text| apache::environment(&text));
    let environment = environment.unwrap_or_default();
    let nginx = nginx::MAIN.iter().find_map(|main| nginx::read(main, files));
    let apache = apache::MAIN.iter().find_map(|(main, root)| apache::read(main, root, &environment, files));
    let squid = squid::MAIN.iter().find_map(|main| squid::read(main, files));
    let named = haproxy_file(files);
    let haproxy =
        named.as_deref().into_iter().chain(haproxy::MAIN).find_map(|main| haproxy::read(main, files));
    let hitch = hitch::MAIN.iter().find_map(|main| hitch::read(main, files));
    [nginx, apache, squid, haproxy, hitch].into_iter().flatten().collect()
}

/// Where Debian's service is told to look: `CONFIG=` in its defaults.
fn haproxy_file(files: &dyn Files) -> Option<String> {
    let text = files.read("/etc/default/haproxy").ok()?;
    let value = text.lines().rev().find_map(|line| line.trim().strip_prefix("CONFIG="))?;
    let path = value.trim_matches(['"', '\'']);
    (path.starts_with('/') && !path.contains('$')).then(|| printable(path, 4096))
}

/// Every file that a server reads a certificate or a key from, what stands beside it, and ours.
fn papers(tree: &Tree, pictures: &[Picture], ours: &Ours, labels: bool) -> BTreeMap<String, PaperFile> {
    /// Most files that are looked at.
    const MOST: usize = 5000;
    let mut paths = BTreeSet::new();
    for pair in pictures.iter().flat_map(|picture| &picture.sites).flat_map(|site| &site.certificates) {
        let path = &pair.certificate.path;
        paths.insert(path.clone());
        paths.insert(format!("{}/fullchain.pem", folder_of(path)));
        paths.extend(pair.key.iter().chain(&pair.chain).map(|located| located.path.clone()));
        if pair.key_beside {
            paths.insert(format!("{path}.key"));
        }
    }
    paths.extend(ours.certificates.iter().map(|own| format!("{}/fullchain.pem", own.live)));
    paths.into_iter().take(MOST).map(|path| (path.clone(), tree.paper(&path, labels))).collect()
}
