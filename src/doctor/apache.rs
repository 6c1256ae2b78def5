//! Apache httpd: from the text of its files to virtual hosts. Pure.

mod fate;
mod tree;

use std::collections::BTreeMap;

use super::picture::{
    Door, DoorPart, Listen, Located, Named, PAGE, Pair, Pattern, Picture, Server, Site, TOKEN, Trouble,
    TroubleKind,
};
use super::reading::{Files, Reading, absolute};
use super::words::endpoint;
use tree::Node;

/// Where it is installed: its first file, and the folder that paths start from.
pub(super) const MAIN: [(&str, &str); 3] = [
    ("/etc/apache2/apache2.conf", "/etc/apache2"),
    ("/etc/httpd/conf/httpd.conf", "/etc/httpd"),
    ("/usr/local/apache2/conf/httpd.conf", "/usr/local/apache2"),
];

/// Reads a configuration; `None` where there is none. `environment` is what its start script exports.
pub fn read(
    main: &str,
    root: &str,
    environment: &BTreeMap<String, String>,
    files: &dyn Files,
) -> Option<Picture> {
    let mut reading = Reading::new(files);
    let (tree, root, modules) = tree::read(main, root, environment, &mut reading)?;
    let mut found = Found { root, missing: Vec::new(), troubles: Vec::new() };
    for (module, name) in [("proxy_module", "proxy"), ("proxy_http_module", "proxy_http")] {
        if !modules.contains(module) {
            found.missing.push(name);
        }
    }
    let (sites, doors) = found.sites(&tree);
    let mut troubles = reading.troubles;
    troubles.extend(found.troubles);
    Some(Picture {
        server: Server::Apache,
        main: main.to_owned(),
        files: reading.read,
        sites,
        troubles,
        doors,
    })
}

/// `NAME=value` and `export NAME=value`, as in Debian's `envvars`; with the one variable that it uses
/// itself left out.
pub fn environment(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| {
            let line = line.trim();
            let (name, value) = line.strip_prefix("export ").unwrap_or(line).split_once('=')?;
            let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            let value = value.trim().trim_matches(['"', '\'']).replace("$SUFFIX", "");
            is_name.then(|| (name.to_owned(), value))
        })
        .collect()
}

struct Found {
    /// Relative paths start there.
    root: String,
    missing: Vec<&'static str>,
    troubles: Vec<Trouble>,
}

impl Found {
    fn sites(&mut self, tree: &[Node]) -> (Vec<Site>, Vec<Door>) {
        let listens: Vec<_> = tree
            .iter()
            .filter(|node| node.name == "listen")
            .filter_map(|node| {
                let (address, port) = endpoint(node.args.first()?, 80)?;
                Some(Listen { address, port, tls: false, place: node.place.clone() })
            })
            .collect();
        let (mut sites, mut doors) = (Vec::new(), Vec::new());
        let (hosts, shared): (Vec<_>, Vec<_>) =
            tree.iter().cloned().partition(|node| node.name == "virtualhost");
        for host in &hosts {
            let addresses = host.args.iter().flat_map(|arg| reached(arg, &listens, host)).collect();
            let site = self.site(host, &host.children, &shared, addresses);
            if site.port_80().is_some() {
                let part = DoorPart::VirtualHost { missing: self.missing.clone(), is_main: false };
                doors.push(Door { at: host.place.clone(), part });
            }
            sites.push(site);
        }
        // What no virtual host takes, the main server answers.
        let rest: Vec<_> = listens
            .into_iter()
            .filter(|listen| {
                !sites.iter().flat_map(|site: &Site| &site.listens).any(|l| l.port == listen.port)
            })
            .collect();
        if let Some(first) = rest.first() {
            let mut main = Node::empty(first.place.clone());
            main.name = "main server".to_owned();
            let site = self.site(&main, &shared, &[], rest.clone());
            if site.port_80().is_some() {
                let part = DoorPart::VirtualHost { missing: self.missing.clone(), is_main: true };
                doors.push(Door { at: first.place.clone(), part });
            }
            sites.push(site);
        }
        (sites, doors)
    }

    fn site(&mut self, host: &Node, own: &[Node], main: &[Node], mut listens: Vec<Listen>) -> Site {
        let mut site = Site::new(host.place.clone());
        let value = |name: &str| last(own, name).or_else(|| last(main, name)).and_then(|n| n.args.first());
        let tls = value("sslengine").is_some_and(|word| !word.eq_ignore_ascii_case("off"));
        for listen in &mut listens {
            listen.tls = tls;
        }
        site.listens = listens;
        site.names = names(own);
        if tls {
            site.certificates = self.pairs(own, main);
        } else {
            site.challenge = fate::of(host, own, main, &site.names, TOKEN);
            site.page = fate::of(host, own, main, &site.names, PAGE);
        }
        site
    }

    fn pairs(&mut self, own: &[Node], main: &[Node]) -> Vec<Pair> {
        let mut located = |name: &str| -> Vec<Located> {
            let of = |nodes: &[Node]| -> Vec<Node> {
                nodes.iter().filter(|node| node.name == name).cloned().collect()
            };
            let mine = of(own);
            let nodes = if mine.is_empty() { of(main) } else { mine };
            nodes.iter().filter_map(|node| self.located(node)).collect()
        };
        let certificates = located("sslcertificatefile");
        let mut keys = located("sslcertificatekeyfile").into_iter();
        let chain = located("sslcertificatechainfile").into_iter().next();
        let pair =
            |certificate| Pair { certificate, key: keys.next(), chain: chain.clone(), key_beside: false };
        certificates.into_iter().map(pair).collect()
    }

    fn located(&mut self, node: &Node) -> Option<Located> {
        let path = node.args.first()?;
        let place = node.place.clone();
        if path.contains("${") {
            let seen = format!("`{}` depends on a variable that is not defined in the files", node.words());
            self.troubles.push(Trouble { place, kind: TroubleKind::Unknown, seen });
            return None;
        }
        // Keys may be in hardware.
        if path.starts_with("pkcs11:") || path.starts_with("builtin:") {
            return None;
        }
        Some(Located { path: absolute(&self.root, path), place, directive: node.written.clone() })
    }
}

fn last<'a>(nodes: &'a [Node], name: &str) -> Option<&'a Node> {
    nodes.iter().rfind(|node| node.name == name)
}

fn names(own: &[Node]) -> Vec<Named> {
    let mut names = Vec::new();
    for node in own.iter().filter(|node| matches!(node.name.as_str(), "servername" | "serveralias")) {
        for word in &node.args {
            let host = word.split_once("://").map_or(word.as_str(), |(_, rest)| rest);
            let (host, _) = super::words::host_and_port(host, 80);
            names.push(Named { pattern: Pattern::parse(&host), place: node.place.clone() });
        }
    }
    names
}

/// The listeners that an address of `<VirtualHost …>` takes requests from.
fn reached(word: &str, listens: &[Listen], host: &Node) -> Vec<Listen> {
    let word = word.replace("_default_", "*");
    let (any_port, text) = match word.rsplit_once(':') {
        Some((address, "*")) => (true, address.to_owned()),
        _ => (!word.contains(':') || word.ends_with(']'), word),
    };
    let Some((address, port)) = endpoint(&text, 80) else { return Vec::new() };
    listens
        .iter()
        .filter(|listen| any_port || listen.port == port)
        .filter(|listen| address.is_none() || listen.address.is_none() || address == listen.address)
        .map(|listen| Listen {
            address: address.or(listen.address),
            port: listen.port,
            tls: false,
            place: host.place.clone(),
        })
        .collect()
}

#[cfg(test)]
mod tests;
