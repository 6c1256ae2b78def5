//! nginx: from the text of its files to sites. Pure.
//!
//! The grammar is small and complete: words, quotes, `;`, blocks; `include` anywhere. Of the meaning only
//! what decides who gets a request is followed (ngx_http_rewrite_module, ngx_http_core_module, "location").

mod fate;
mod tree;

use super::picture::{
    CHALLENGE, Door, DoorPart, Listen, Located, Named, PAGE, Pair, Pattern, Picture, Server, Site, TOKEN,
};
use super::picture::{Trouble, TroubleKind};
use super::reading::{Files, Reading, absolute, folder_of};
use crate::words::quote::quoted_line;
use tree::Directive;

/// Where it is installed.
pub(super) const MAIN: [&str; 3] =
    ["/etc/nginx/nginx.conf", "/usr/local/nginx/conf/nginx.conf", "/usr/local/etc/nginx/nginx.conf"];

/// Reads a configuration; `None` where there is none.
pub fn read(main: &str, files: &dyn Files) -> Option<Picture> {
    let mut reading = Reading::new(files);
    let folder = folder_of(main).to_owned();
    let tree = tree::read(main, &folder, &mut reading)?;
    let mut found = Found { folder, sites: Vec::new(), doors: Vec::new(), troubles: Vec::new() };
    for directive in &tree {
        match directive.name.as_str() {
            "http" => found.http(directive),
            "stream" | "mail" => found.streams(directive),
            _ => {}
        }
    }
    let mut troubles = reading.troubles;
    troubles.extend(found.troubles);
    Some(Picture {
        server: Server::Nginx,
        main: main.to_owned(),
        files: reading.read,
        sites: found.sites,
        troubles,
        doors: found.doors,
    })
}

struct Found {
    /// Relative paths start there.
    folder: String,
    sites: Vec<Site>,
    doors: Vec<Door>,
    troubles: Vec<Trouble>,
}

impl Found {
    fn http(&mut self, outer: &Directive) {
        // What all of them share, which each of them is looked at with.
        let http = &outer.without("server");
        for server in outer.children("server") {
            let mut site = self.tls_of(http, server);
            site.names = names(server);
            if site.listens.iter().any(|listen| !listen.tls) {
                site.challenge = fate::of(http, server, &site.names, TOKEN);
                site.page = fate::of(http, server, &site.names, PAGE);
            }
            if site.port_80().is_some() {
                let is_rewrite = |d: &Directive| matches!(d.name.as_str(), "return" | "rewrite" | "if");
                let existing =
                    server.children("location").find(|l| l.args.last().is_some_and(|p| p == CHALLENGE));
                let part = DoorPart::Location {
                    rewrites: server.block.iter().any(is_rewrite),
                    existing: existing.map(|location| location.place.clone()),
                };
                self.doors.push(Door { at: server.place.clone(), part });
            }
            self.sites.push(site);
        }
    }

    /// Servers that pass bytes on: their certificates are looked at, and nothing else.
    fn streams(&mut self, outer: &Directive) {
        for server in outer.children("server") {
            let mut site = self.tls_of(outer, server);
            site.listens.retain(|listen| listen.tls);
            if site.is_tls() {
                self.sites.push(site);
            }
        }
    }

    fn tls_of(&mut self, outer: &Directive, server: &Directive) -> Site {
        let mut site = Site::new(server.place.clone());
        let all_tls = server.value("ssl").or_else(|| outer.value("ssl")) == Some("on");
        site.listens = server.children("listen").filter_map(|listen| listener(listen, all_tls)).collect();
        if server.children("listen").next().is_none() {
            site.listens.push(Listen { address: None, port: 80, tls: all_tls, place: server.place.clone() });
        }
        if site.is_tls() {
            site.certificates = self.pairs(outer, server);
        }
        site
    }

    fn pairs(&mut self, outer: &Directive, server: &Directive) -> Vec<Pair> {
        let inherited = |name: &str| -> Vec<Directive> {
            let own: Vec<_> = server.children(name).cloned().collect();
            if own.is_empty() { outer.children(name).cloned().collect() } else { own }
        };
        let mut keys = inherited("ssl_certificate_key").into_iter();
        let mut pairs = Vec::new();
        for certificate in inherited("ssl_certificate") {
            let key = keys.next().and_then(|key| self.located(&key));
            let Some(certificate) = self.located(&certificate) else { continue };
            pairs.push(Pair { certificate, key, chain: None, key_beside: false });
        }
        pairs
    }

    fn located(&mut self, directive: &Directive) -> Option<Located> {
        let path = directive.args.first()?;
        let (place, name) = (directive.place.clone(), directive.name.clone());
        if path.starts_with("data:") || path.starts_with("engine:") || path.starts_with("store:") {
            return None;
        }
        if path.contains('$') {
            let seen = format!("`{name} {path}` depends on a variable, so its files were not looked at");
            self.troubles.push(Trouble { place, kind: TroubleKind::Unknown, seen });
            return None;
        }
        Some(Located { path: absolute(&self.folder, path), place, directive: name })
    }
}

fn names(server: &Directive) -> Vec<Named> {
    let mut names = Vec::new();
    for directive in server.children("server_name") {
        for word in &directive.args {
            let mut add = |pattern| names.push(Named { pattern, place: directive.place.clone() });
            match word.strip_prefix('.') {
                Some(parent) => {
                    add(Pattern::parse(parent));
                    add(Pattern::parse(&format!("*.{parent}")));
                }
                None if word.starts_with('~') => add(Pattern::Regex(word[1..].to_owned())),
                // What no client asks for is how a server for everything else is written.
                None if word == "_" || word.is_empty() => add(Pattern::Other(word.clone())),
                None => add(Pattern::parse(word)),
            }
        }
    }
    // A default server takes whatever no other one does.
    let is_default =
        server.children("listen").any(|listen| listen.has("default_server") || listen.has("default"));
    let is_unnamed = names.iter().all(|n| matches!(n.pattern, Pattern::Other(_)));
    if is_default && is_unnamed {
        names.clear();
    }
    names
}

fn listener(listen: &Directive, all_tls: bool) -> Option<Listen> {
    let first = listen.args.first()?;
    if first.starts_with("unix:") {
        return None;
    }
    let (address, port) = super::words::endpoint(first, 80)?;
    let tls = all_tls || listen.has("ssl") || listen.has("quic");
    Some(Listen { address, port, tls, place: listen.place.clone() })
}

/// What stands in an `if`'s parentheses.
fn condition(directive: &Directive) -> String {
    directive.args.join(" ").trim_start_matches('(').trim_end_matches(')').trim().to_owned()
}

fn shown(directive: &Directive) -> String {
    let words: Vec<_> = std::iter::once(&directive.name).chain(&directive.args).map(String::as_str).collect();
    quoted_line(&words.join(" "), 120)
}

#[cfg(test)]
mod tests;
