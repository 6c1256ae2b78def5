//! Squid: from the text of its files to the ports at which it stands in for a site. Pure.
//!
//! All its accelerating ports share one list of access rules and one set of peers. A port for a forward
//! proxy is nobody's site, and the certificate of a port with `ssl-bump` is a CA's.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::picture::{
    Deed, Door, DoorPart, Fate, Listen, Located, Named, PAGE, Pair, Pattern, Picture, Place, Server, Site,
    TOKEN, Trouble, TroubleKind,
};
use super::reading::{Files, Reading, absolute, folder_of};
use super::truth::{Truth, is_ca, regex};
use super::words::endpoint;
use crate::words::quote::{quoted, quoted_line};

/// Where it is installed.
pub(super) const MAIN: [&str; 3] =
    ["/etc/squid/squid.conf", "/usr/local/squid/etc/squid.conf", "/etc/squid3/squid.conf"];

/// Most hostnames that are taken of a list.
const MOST_NAMES: usize = 500;
/// A list of more expressions than these is a filter's, and is not looked through.
const MOST_EXPRESSIONS: usize = 500;

/// Reads a configuration; `None` where there is none.
pub fn read(main: &str, files: &dyn Files) -> Option<Picture> {
    let mut reading = Reading::new(files);
    let opened = reading.begin(main);
    if opened.is_none() && reading.troubles.is_empty() {
        return None;
    }
    let mut lines = Vec::new();
    if let Some((file, text)) = opened {
        follow(&file, &text, folder_of(main), &mut reading, &mut lines);
        reading.leave();
    }
    let rules = Rules::new(&lines, &mut reading);
    let (mut sites, mut troubles) = (Vec::new(), Vec::new());
    for line in &lines {
        sites.extend(site(line, &rules, folder_of(main), &mut troubles));
    }
    let doors =
        if sites.iter().any(|site| site.port_80().is_some()) { rules.doors(&lines) } else { Vec::new() };
    troubles.splice(0..0, reading.troubles);
    Some(Picture {
        server: Server::Squid,
        main: main.to_owned(),
        files: reading.read,
        sites,
        troubles,
        doors,
    })
}

/// A directive.
#[derive(Debug, Clone)]
struct Line {
    name: String,
    args: Vec<String>,
    place: Place,
}

impl Line {
    fn shown(&self) -> String {
        let words: Vec<_> = std::iter::once(&self.name).chain(&self.args).map(String::as_str).collect();
        quoted_line(&words.join(" "), 120)
    }
}

fn follow(file: &Arc<str>, text: &str, folder: &str, reading: &mut Reading<'_>, lines: &mut Vec<Line>) {
    // Conditions that enclose the line, and whether each lets it count.
    let mut conditions: Vec<(bool, Place)> = Vec::new();
    for (whole, number) in joined(text) {
        let mut words = words(&whole).into_iter();
        let Some(name) = words.next() else { continue };
        let line =
            Line { name: name.to_ascii_lowercase(), args: words.collect(), place: Place::new(file, number) };
        let counts = conditions.iter().all(|(counts, _)| *counts);
        match line.name.as_str() {
            "if" => conditions.push((holds(&line.args), line.place)),
            "else" => {
                if let Some((counts, _)) = conditions.last_mut() {
                    *counts = !*counts;
                }
            }
            "endif" if conditions.is_empty() => {
                reading.trouble(&line.place, TroubleKind::Broken, "`endif` without an `if`".to_owned());
            }
            "endif" => {
                conditions.pop();
            }
            "include" if counts => {
                for pattern in &line.args {
                    let pattern = absolute(folder, pattern.trim_matches(['"', '\'']));
                    for path in reading.matches(&pattern, &line.place, !crate::glob::is_pattern(&pattern)) {
                        if let Some((file, text)) = reading.enter(&path, &line.place) {
                            follow(&file, &text, folder, reading, lines);
                            reading.leave();
                        }
                    }
                }
            }
            _ if counts => lines.push(line),
            _ => {}
        }
    }
    if let Some((_, place)) = conditions.pop() {
        reading.trouble(&place, TroubleKind::Broken, "`if` is not closed by `endif`".to_owned());
    }
}

/// Lines with those that they continue on, without comments; with their first line's number.
fn joined(text: &str) -> Vec<(String, usize)> {
    let mut found: Vec<(String, usize)> = Vec::new();
    let mut continues = false;
    for (i, line) in text.lines().enumerate() {
        let (line, goes_on) = match line.strip_suffix('\\') {
            Some(begun) => (begun, true),
            None => (line, false),
        };
        match found.last_mut() {
            Some((whole, _)) if continues => {
                whole.push(' ');
                whole.push_str(line);
            }
            _ => found.push((line.to_owned(), i + 1)),
        }
        continues = goes_on;
    }
    found.retain(|(line, _)| !line.trim_start().starts_with('#'));
    found
}

/// Words up to a comment.
fn words(line: &str) -> Vec<String> {
    line.split_whitespace().take_while(|word| !word.starts_with('#')).map(str::to_owned).collect()
}

/// What is false for certain; the rest may hold.
fn holds(args: &[String]) -> bool {
    match args {
        [word] => word != "false" && word != "0",
        [left, equals, right] if equals == "=" => match (left.parse::<i64>(), right.parse::<i64>()) {
            (Ok(left), Ok(right)) => left == right,
            _ => true,
        },
        _ => true,
    }
}

fn site(line: &Line, rules: &Rules, folder: &str, troubles: &mut Vec<Trouble>) -> Option<Site> {
    let is_https = match line.name.as_str() {
        "http_port" => false,
        "https_port" => true,
        _ => return None,
    };
    let (first, options) = line.args.split_first()?;
    let has = |word: &str| options.iter().any(|option| option == word);
    if has("ssl-bump") || has("intercept") || has("tproxy") || has("transparent") {
        return None;
    }
    let value = |name: &str| options.iter().find_map(|o| o.strip_prefix(name)?.strip_prefix('='));
    let is_accelerator = has("accel") || has("vhost") || value("defaultsite").is_some();
    if !is_accelerator && !is_https {
        return None;
    }
    let (address, port) = endpoint(first, if is_https { 443 } else { 80 })?;
    let mut site = Site::new(line.place.clone());
    site.listens.push(Listen { address, port, tls: is_https, place: line.place.clone() });
    let named = value("defaultsite").into_iter().map(|text| {
        let (host, _) = super::words::host_and_port(text, port);
        Named { pattern: Pattern::parse(&host), place: line.place.clone() }
    });
    site.names = named.chain(rules.names.iter().cloned()).collect();
    if is_https {
        site.certificates = pairs(line, options, folder, troubles);
    } else {
        site.challenge = rules.fate(TOKEN);
        site.page = rules.fate(PAGE);
    }
    Some(site)
}

/// `tls-cert=` and `cert=`, each with the key that follows it.
fn pairs(line: &Line, options: &[String], folder: &str, troubles: &mut Vec<Trouble>) -> Vec<Pair> {
    let mut pairs: Vec<Pair> = Vec::new();
    for option in options {
        let Some((name, path)) = option.split_once('=') else { continue };
        if !matches!(name, "tls-cert" | "cert" | "tls-key" | "key") {
            continue;
        }
        if path.contains("${") {
            let seen = format!("`{}` depends on a variable", quoted(option, 120));
            troubles.push(Trouble { place: line.place.clone(), kind: TroubleKind::Unknown, seen });
            continue;
        }
        let located = Located {
            path: absolute(folder, path),
            place: line.place.clone(),
            directive: format!("{name}="),
        };
        match (name, pairs.last_mut()) {
            ("tls-cert" | "cert", _) => {
                pairs.push(Pair { certificate: located, key: None, chain: None, key_beside: false });
            }
            (_, Some(pair)) => pair.key = Some(located),
            (_, None) => {}
        }
    }
    pairs
}

/// What all accelerating ports share.
struct Rules {
    acls: BTreeMap<String, Vec<Acl>>,
    access: Vec<Line>,
    redirector: Option<Line>,
    redirector_access: Vec<Line>,
    peers: Vec<Peer>,
    peer_access: Vec<Line>,
    names: Vec<Named>,
}

#[derive(Debug, Clone)]
struct Acl {
    kind: String,
    values: Vec<String>,
}

#[derive(Debug, Clone)]
struct Peer {
    name: String,
    host: String,
    port: u16,
    line: Line,
}

impl Rules {
    fn new(lines: &[Line], reading: &mut Reading<'_>) -> Self {
        let mut rules = Self {
            acls: BTreeMap::new(),
            access: of(lines, "http_access"),
            redirector: of(lines, "url_rewrite_program")
                .pop()
                .filter(|line| line.args.first().is_some_and(|p| p != "none")),
            redirector_access: of(lines, "url_rewrite_access"),
            peers: Vec::new(),
            peer_access: of(lines, "cache_peer_access"),
            names: Vec::new(),
        };
        for line in lines.iter().filter(|line| line.name == "acl") {
            let [name, kind, values @ ..] = line.args.as_slice() else { continue };
            let values = values.iter().flat_map(|value| listed(value, line, reading)).collect();
            rules.acls.entry(name.clone()).or_default().push(Acl { kind: kind.to_ascii_lowercase(), values });
        }
        for line in lines.iter().filter(|line| line.name == "cache_peer") {
            let [host, _, port, _, options @ ..] = line.args.as_slice() else { continue };
            let name = options.iter().find_map(|o| o.strip_prefix("name=")).unwrap_or(host);
            let (host, port) = (host.clone(), port.parse().unwrap_or(0));
            rules.peers.push(Peer { name: name.to_owned(), host, port, line: line.clone() });
        }
        rules.names = rules.names(lines);
        rules
    }

    /// The names in `dstdomain` lists by which requests are let in or peers are chosen.
    fn names(&self, lines: &[Line]) -> Vec<Named> {
        let by_peers = self.peer_access.iter().map(|line| line.args.get(1..).unwrap_or_default());
        let by_access = self.access.iter().map(|line| line.args.as_slice());
        // What is chosen by is what is served; what is let in may be a forward proxy's.
        let lists: Vec<_> =
            if self.peer_access.is_empty() { by_access.collect() } else { by_peers.collect() };
        let used: Vec<&String> = lists
            .into_iter()
            .filter(|args| args.first().is_some_and(|word| word == "allow"))
            .flat_map(|args| &args[1..])
            .collect();
        let mut names = Vec::new();
        for line in lines.iter().filter(|line| line.name == "acl") {
            let [name, kind, ..] = line.args.as_slice() else { continue };
            if !kind.eq_ignore_ascii_case("dstdomain") || !used.contains(&name) {
                continue;
            }
            for acl in self.acls.get(name).into_iter().flatten() {
                for value in acl.values.iter().filter(|value| !value.starts_with('-')).take(MOST_NAMES) {
                    let mut add = |pattern| {
                        let named = Named { pattern, place: line.place.clone() };
                        if !names.iter().any(|known: &Named| known.pattern == named.pattern) {
                            names.push(named);
                        }
                    };
                    if let Some(parent) = value.strip_prefix('.') {
                        add(Pattern::parse(&format!("*.{parent}")));
                    }
                    add(Pattern::parse(value.trim_start_matches('.')));
                }
            }
        }
        names
    }

    /// What becomes of a request, by the access rules, the redirector and the peers.
    fn fate(&self, uri: &str) -> Vec<Fate> {
        let mut fates = Vec::new();
        let mut add = |line: &Line, deed: Deed, certain: bool| {
            fates.push(Fate { deed, certain, place: line.place.clone(), words: line.shown() });
        };
        for line in &self.access {
            let Some((word, acls)) = line.args.split_first() else { continue };
            match (self.all(acls, uri), word == "deny") {
                (Truth::No, _) | (Truth::Maybe, false) => {}
                (Truth::Yes, false) => break,
                (Truth::Yes, true) => {
                    add(line, Deed::Denied, true);
                    return fates;
                }
                // A list of sites or clients that may go is closed by `deny all`, which is met above.
                (Truth::Maybe, true) => add(line, Deed::Denied, false),
            }
        }
        if let Some(program) = &self.redirector
            && self.allowed(&self.redirector_access, 0, uri) != Truth::No
        {
            add(program, Deed::Filtered, false);
        }
        for peer in &self.peers {
            let own: Vec<_> = self
                .peer_access
                .iter()
                .filter(|line| line.args.first() == Some(&peer.name))
                .cloned()
                .collect();
            let allowed = self.allowed(&own, 1, uri);
            if allowed == Truth::No {
                continue;
            }
            let deed = Deed::Passed { host: peer.host.clone(), port: peer.port, faithful: true };
            add(&peer.line, deed, allowed == Truth::Yes);
        }
        fates
    }

    /// By a list of `allow` and `deny` whose word is at `at`: the first that holds; else the contrary of
    /// the last.
    fn allowed(&self, list: &[Line], at: usize, uri: &str) -> Truth {
        let mut doubt = false;
        let mut last = None;
        for line in list {
            let Some((word, acls)) = line.args.get(at..).and_then(<[String]>::split_first) else { continue };
            let allows = word == "allow";
            last = Some(allows);
            match self.all(acls, uri) {
                Truth::Yes if doubt => return Truth::Maybe,
                Truth::Yes => return allows.into(),
                Truth::Maybe => doubt = true,
                Truth::No => {}
            }
        }
        if doubt { Truth::Maybe } else { last.is_none_or(|allows| !allows).into() }
    }

    fn all(&self, acls: &[String], uri: &str) -> Truth {
        acls.iter().map(|acl| self.one(acl, uri)).fold(Truth::Yes, Truth::and)
    }

    fn one(&self, word: &str, uri: &str) -> Truth {
        let (negated, name) = match word.strip_prefix('!') {
            Some(name) => (true, name),
            None => (false, word),
        };
        let truth = match (name, self.acls.get(name)) {
            ("all", _) => Truth::Yes,
            ("localhost" | "manager" | "to_localhost" | "to_linklocal", None) => Truth::No,
            ("CONNECT", None) => Truth::No,
            (_, None) => Truth::Maybe,
            (_, Some(acls)) => acls.iter().map(|acl| acl.holds(uri)).fold(Truth::No, Truth::or),
        };
        truth.not_if(negated)
    }

    /// Above the first access rule; and below the peers, above what chooses among them.
    fn doors(&self, lines: &[Line]) -> Vec<Door> {
        let mut doors = Vec::new();
        let first = self.access.first().map(|line| line.place.clone());
        // Lists that Squid has not seen yet may not be named: the rule brings its own.
        let above = first.or_else(|| lines.first().map(|line| line.place.clone()));
        if let Some(above) = above {
            doors.push(Door { at: above, part: DoorPart::Access { redirector: self.redirector.is_some() } });
        }
        let others: Vec<_> = self.peers.iter().map(|peer| peer.name.clone()).collect();
        let choice = self.peer_access.first().map(|line| line.place.clone());
        let last = self
            .peers
            .last()
            .map(|peer| Place { file: peer.line.place.file.clone(), line: peer.line.place.line + 1 });
        let access = self.access.first().map(|line| line.place.clone());
        if let Some(above) = choice.or(last).or(access) {
            doors.push(Door { at: above, part: DoorPart::Peer { others } });
        }
        doors
    }
}

impl Acl {
    fn holds(&self, uri: &str) -> Truth {
        let ignores_case = self.values.iter().any(|value| value == "-i");
        let values = || self.values.iter().filter(|value| !value.starts_with('-'));
        let any =
            |is_so: &dyn Fn(&str) -> Truth| values().map(|value| is_so(value)).fold(Truth::No, Truth::or);
        match self.kind.as_str() {
            "src" => any(&is_ca),
            "port" | "myport" | "localport" => any(&|value| match value.split_once('-') {
                Some((from, to)) => match (from.parse::<u16>(), to.parse::<u16>()) {
                    (Ok(from), Ok(to)) => (from..=to).contains(&80).into(),
                    _ => Truth::Maybe,
                },
                None => (value == "80").into(),
            }),
            "method" => any(&|value| (value == "GET").into()),
            "proto" => any(&|value| value.eq_ignore_ascii_case("http").into()),
            "urlpath_regex" if self.values.len() > MOST_EXPRESSIONS => Truth::Maybe,
            "urlpath_regex" => any(&|value| regex(value, uri, ignores_case)),
            "url_regex" if self.values.len() > MOST_EXPRESSIONS => Truth::Maybe,
            // Of the host nothing is known but that it is some name.
            "url_regex" => {
                any(&|value| match regex(value, &format!("http://example.net{uri}"), ignores_case) {
                    Truth::Yes => Truth::Yes,
                    _ => Truth::Maybe,
                })
            }
            _ => Truth::Maybe,
        }
    }
}

fn of(lines: &[Line], name: &str) -> Vec<Line> {
    lines.iter().filter(|line| line.name == name).cloned().collect()
}

/// A value, or the lines of the file that it names in quotes.
fn listed(value: &str, line: &Line, reading: &mut Reading<'_>) -> Vec<String> {
    let Some(path) = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')) else {
        return vec![value.to_owned()];
    };
    let Some((_, text)) = reading.enter(path, &line.place) else { return Vec::new() };
    reading.leave();
    text.lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests;
