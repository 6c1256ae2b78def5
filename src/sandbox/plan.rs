//! What the process needs of files and ports, from its configuration. Pure.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::config::{AccessLog, Config, GateOpen, Issuer, LogPlace, Place, is_common};

/// What is needed from now on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Files and folders to read.
    pub read: BTreeSet<PathBuf>,
    /// Folders to read and to write in.
    pub write: BTreeSet<PathBuf>,
    /// Folders in which files are made and written, and nothing is removed.
    pub append: BTreeSet<PathBuf>,
    /// Folders in which a name may be removed.
    pub remove: BTreeSet<PathBuf>,
    /// TCP ports to listen on, later than now.
    pub bind: BTreeSet<u16>,
    /// TCP ports to connect to.
    pub connect: BTreeSet<u16>,
    /// The capability to bind low ports is needed later.
    pub keeps_binding: bool,
}

/// What every program reads that resolves names.
const SYSTEM: [&str; 25] = [
    "/dev/null",
    "/dev/urandom",
    "/etc/gai.conf",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/localtime",
    // Spreads renewals over machines.
    "/etc/machine-id",
    "/etc/nsswitch.conf",
    "/etc/protocols",
    "/etc/resolv.conf",
    "/etc/services",
    "/lib",
    "/lib64",
    "/proc/self",
    "/run/NetworkManager",
    "/run/resolvconf",
    "/run/systemd/resolve",
    "/sys/class/net",
    "/sys/devices",
    "/usr/lib",
    "/usr/lib64",
    "/usr/share/zoneinfo",
    "/var/run/nscd",
];

/// The configuration's own files, and those that it names and that are read when they are needed.
pub fn named_files(config: &Config) -> impl Iterator<Item = &PathBuf> {
    let mail = config.notify.mail.as_ref();
    let named = [
        config.acme.roots.as_ref(),
        config.notify.webhook_roots.as_ref(),
        mail.and_then(|mail| mail.password_file.as_ref()),
        mail.and_then(|mail| mail.roots.as_ref()),
    ];
    let tickets = config.front.iter().filter_map(|front| front.ticket_key_file.as_ref());
    let bindings = config.acme.eab.iter().map(|eab| &eab.hmac_key_file);
    let foreign = config.foreign_certificates.iter().flat_map(|c| [&c.fullchain, &c.key]);
    config.files.iter().chain(named.into_iter().flatten()).chain(bindings).chain(foreign).chain(tickets)
}

impl Plan {
    /// What a configuration needs. `proxies` are the ports of the proxies that the environment names, `embedded` is
    /// where the CA in this program listens.
    pub fn of(config: &Config, proxies: &BTreeSet<u16>, embedded: u16) -> Self {
        let mut plan = Self { read: SYSTEM.map(PathBuf::from).into(), ..Self::default() };
        plan.write.insert(config.state_dir.clone());
        // The admin socket, at the end; where much else is, it stays.
        let folder = config.admin.socket.parent().filter(|folder| !is_common(folder));
        plan.remove.extend(folder.map(Path::to_owned));
        let acme = &config.acme;
        let mail = config.notify.mail.as_ref();
        plan.read.extend(named_files(config).map(|file| around(file)));
        // What a link leads to, as certbot's `live` into its `archive`, or a mounted secret's into its version.
        let tickets = config.front.iter().filter_map(|front| front.ticket_key_file.as_ref());
        let foreign = config.foreign_certificates.iter().flat_map(|c| [&c.fullchain, &c.key]).chain(tickets);
        plan.read.extend(foreign.filter_map(|file| file.canonicalize().ok()).map(|file| around(&file)));
        // 53: name servers, where an answer is too long for a datagram. 80 and 443: what the preflight asks.
        plan.connect.extend([53, 80, 443, embedded]);
        plan.connect.extend(proxies);
        plan.connect.extend(acme.resolvers.iter().map(|address| address.port()));
        plan.connect.extend(config.gate.listen.iter().map(|address| address.port()));
        let staging = acme.issuers().filter_map(|issuer| acme.staging_of(issuer)).collect::<Vec<_>>();
        for issuer in acme.issuers().chain(&staging) {
            if let Issuer::Directory(url) = issuer {
                plan.connect.insert(url.port_u16().unwrap_or(443));
            }
        }
        plan.connect.extend(config.notify.webhook.as_ref().map(|url| url.port_u16().unwrap_or(443)));
        plan.connect.extend(mail.map(|mail| mail.port));
        let endpoints = config.deploy.values().flat_map(|target| &target.verify);
        plan.connect.extend(endpoints.map(|endpoint| endpoint.port));
        if let Some(front) = &config.front {
            plan.connect.extend(front.listen.iter().map(|address| address.port()));
            if let Some(AccessLog { place: LogPlace::File(path), .. }) = &front.access_log {
                plan.append.extend(path.parent().map(Path::to_owned));
            }
            let upstreams = front.sites.iter().map(|site| &site.upstream).chain([&front.upstream]);
            plan.connect.extend(upstreams.filter_map(|upstream| match upstream.place()? {
                Place::Tcp { port, .. } => Some(*port),
                Place::Unix(_) => None,
            }));
        }
        if config.gate.open == GateOpen::DuringOrders {
            plan.bind.extend(config.gate.listen.iter().map(|address| address.port()));
        }
        plan.keeps_binding = plan.bind.iter().any(|port| *port < 1024);
        plan
    }

    /// What another plan needs that this one does not have, in words: a sandbox only narrows.
    pub fn lacks(&self, other: &Self) -> Vec<String> {
        let is_within =
            |folders: &BTreeSet<PathBuf>, path: &Path| folders.iter().any(|f| path.starts_with(f));
        let files =
            other.read.iter().filter(|path| !is_within(&self.read, path) && !is_within(&self.write, path));
        let ports = other.connect.difference(&self.connect);
        files
            .map(|path| format!("reading {}", path.display()))
            .chain(ports.map(|port| format!("connecting to port {port}")))
            .collect()
    }
}

/// The folder of a file, so that one that takes its place is read as well, unless much else is in it.
fn around(file: &Path) -> PathBuf {
    file.parent().filter(|folder| !is_common(folder)).unwrap_or(file).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_that_hold_much_else_are_not_opened() {
        for (file, expected) in [
            ("/etc/wicketgate/wicketgate.toml", "/etc/wicketgate"),
            ("/etc/wicketgate.toml", "/etc/wicketgate.toml"),
            ("/root/a.toml", "/root/a.toml"),
            ("/srv/app/a.toml", "/srv/app"),
        ] {
            assert_eq!(around(Path::new(file)), Path::new(expected));
        }
    }

    #[test]
    fn what_is_new_is_named() {
        let plan = |read: &[&str], connect: &[u16]| Plan {
            read: read.iter().map(PathBuf::from).collect(),
            connect: connect.iter().copied().collect(),
            ..Plan::default()
        };
        let now = plan(&["/etc/wicketgate", "/etc/hosts"], &[443, 80]);
        assert_eq!(now.lacks(&plan(&["/etc/wicketgate/eab", "/etc/hosts"], &[80])), Vec::<String>::new());
        assert_eq!(
            now.lacks(&plan(&["/srv/roots"], &[80, 8443])),
            ["reading /srv/roots", "connecting to port 8443"]
        );
    }
}
