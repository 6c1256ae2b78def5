//! HAProxy: from the text of its files to frontends. Pure.
//!
//! Of its conditions those are followed that a path, a scheme or an address decides; all else may hold.

mod tree;

use std::collections::HashMap;

use super::picture::{
    Deed, Door, DoorPart, Fate, Listen, Located, Named, PAGE, Pair, Pattern, Picture, Place, Server, Site,
    TOKEN, TroubleKind,
};
use super::reading::{Files, Reading, absolute};
use super::truth::{Truth, is_ca, regex};
use super::words::{endpoint, host_and_port};
use tree::{Line, Section};

/// Where it is installed.
pub(super) const MAIN: [&str; 2] = ["/etc/haproxy/haproxy.cfg", "/usr/local/etc/haproxy/haproxy.cfg"];

/// By their names.
type Backends<'a> = HashMap<&'a str, &'a Section>;

/// Reads a configuration; `None` where there is none.
pub fn read(main: &str, files: &dyn Files) -> Option<Picture> {
    let mut reading = Reading::new(files);
    let sections = tree::read(main, &mut reading)?;
    let mut backends = HashMap::new();
    for section in sections.iter().filter(|s| matches!(s.kind.as_str(), "backend" | "listen")) {
        backends.entry(section.name.as_str()).or_insert(section);
    }
    let (mut sites, mut doors) = (Vec::new(), Vec::new());
    let globals = sections.iter().filter(|section| section.kind == "global");
    let base = globals.flat_map(|section| section.lines("crt-base")).last();
    let base = base.and_then(|line| line.words.get(1)).cloned().unwrap_or_default();
    for section in sections.iter().filter(|s| s.kind == "frontend" || s.kind == "listen") {
        let site = site(section, (&sections, &backends), &base, &mut reading);
        if site.port_80().is_some() {
            let first = section
                .lines
                .iter()
                .find(|line| line.words[0].starts_with("http-request") || is_choice(line));
            let above = first.map_or_else(
                || Place { file: section.place.file.clone(), line: section.place.line + 1 },
                |line| line.place.clone(),
            );
            let redirects = section
                .lines("redirect")
                .map(|line| (line.place.clone(), line.text.replacen("redirect", "http-request redirect", 1)))
                .collect();
            let is_tcp = mode(section, &sections) == "tcp";
            doors.push(Door { at: above, part: DoorPart::Frontend { redirects, is_tcp } });
        }
        sites.push(site);
    }
    Some(Picture {
        server: Server::Haproxy,
        main: main.to_owned(),
        files: reading.read,
        sites,
        troubles: reading.troubles,
        doors,
    })
}

fn is_choice(line: &Line) -> bool {
    matches!(line.words[0].as_str(), "redirect" | "use_backend" | "default_backend" | "use-server")
}

fn mode<'a>(section: &'a Section, sections: &'a [Section]) -> &'a str {
    let of = |section: &'a Section| section.lines("mode").last()?.words.get(1).map(String::as_str);
    of(section).or_else(|| section.defaults.and_then(|defaults| of(&sections[defaults]))).unwrap_or("tcp")
}

/// `sections` are all of them, and those among them that requests are passed on to.
fn site(
    section: &Section,
    (sections, backends): (&[Section], &Backends<'_>),
    base: &str,
    reading: &mut Reading<'_>,
) -> Site {
    let mut site = Site::new(section.place.clone());
    for line in section.lines("bind") {
        let Some((addresses, options)) = line.words[1..].split_first() else { continue };
        let tls = options.iter().any(|word| word == "ssl");
        for address in addresses.split(',') {
            let address = address.trim_start_matches("ipv4@").trim_start_matches("ipv6@");
            if address.contains('@') || address.starts_with('/') {
                continue;
            }
            let Some((address, port)) = endpoint(address, 0) else { continue };
            site.listens.push(Listen { address, port, tls, place: line.place.clone() });
        }
        if tls {
            for pair in options.windows(2) {
                match pair[0].as_str() {
                    "crt" => site.certificates.extend(certificates(&pair[1], base, line, reading)),
                    "crt-list" => site.certificates.extend(listed(&pair[1], base, line, reading)),
                    _ => {}
                }
            }
        }
    }
    let walk = Walk { section, backends };
    site.names = walk.names();
    if site.listens.iter().any(|listen| !listen.tls) {
        if mode(section, sections) == "http" {
            site.challenge = walk.fate(TOKEN);
            site.page = walk.fate(PAGE);
        } else {
            site.challenge = walk.backends(&default_backend(section), true);
            site.page = site.challenge.clone();
        }
    }
    site
}

/// A file, or all files of a folder.
fn certificates(path: &str, base: &str, line: &Line, reading: &mut Reading<'_>) -> Vec<Pair> {
    if path.contains('$') || path.starts_with('@') {
        let seen = format!("`crt {path}` depends on what is not in the file");
        reading.trouble(&line.place, TroubleKind::Unknown, seen);
        return Vec::new();
    }
    let path = if base.is_empty() { path.to_owned() } else { absolute(base, path) };
    let pair = |path: String| Pair {
        certificate: Located { path, place: line.place.clone(), directive: "crt".to_owned() },
        key: None,
        chain: None,
        key_beside: true,
    };
    if let Some(entries) = reading.folder(&path, &line.place) {
        let folder = path.trim_end_matches('/');
        let is_taken = |name: &str| {
            let reserved = [".key", ".issuer", ".ocsp", ".sctl"];
            !name.starts_with('.') && !reserved.iter().any(|end| name.ends_with(end))
        };
        return entries
            .into_iter()
            .filter(|entry| !entry.is_folder && is_taken(&entry.name))
            .map(|entry| pair(format!("{folder}/{}", entry.name)))
            .collect();
    }
    // Of a bundle the common part of the names is given.
    let kinds = ["rsa", "ecdsa", "dsa"].map(|kind| format!("{path}.{kind}"));
    if !reading.is_file(&path) && kinds.iter().any(|path| reading.is_file(path)) {
        return kinds.into_iter().filter(|path| reading.is_file(path)).map(pair).collect();
    }
    vec![pair(path)]
}

/// `crt-list FILE`: a certificate on each line.
fn listed(file: &str, base: &str, line: &Line, reading: &mut Reading<'_>) -> Vec<Pair> {
    let Some((file, text)) = reading.enter(file, &line.place) else { return Vec::new() };
    reading.leave();
    let mut found = Vec::new();
    for (i, text) in text.lines().enumerate() {
        let Some(path) = text.split_whitespace().next().filter(|word| !word.starts_with('#')) else {
            continue;
        };
        let line = Line { words: Vec::new(), text: String::new(), place: Place::new(&file, i + 1) };
        found.extend(certificates(path, base, &line, reading));
    }
    found
}

fn default_backend(section: &Section) -> Option<String> {
    section.lines("default_backend").last()?.words.get(1).cloned()
}

struct Walk<'a> {
    section: &'a Section,
    backends: &'a Backends<'a>,
}

impl Walk<'_> {
    /// The hosts by which it tells its sites apart: those of the conditions of `use_backend` and `redirect`.
    fn names(&self) -> Vec<Named> {
        let is_choice = |line: &&Line| {
            let words: Vec<_> = line.words.iter().map(String::as_str).collect();
            matches!(words.as_slice(), ["use_backend" | "redirect", ..] | ["http-request", "redirect", ..])
        };
        let choices: Vec<_> = self.section.lines.iter().filter(is_choice).collect();
        let anonymous = choices.iter().flat_map(|line| {
            let sets = line.words.split(|word| word == "{").skip(1);
            sets.filter_map(|set| set.split(|word| word == "}").next())
                .map(|words| (words.to_vec(), &line.place))
        });
        let is_used = |name: &String| choices.iter().any(|line| line.words.contains(name));
        let named = self
            .section
            .lines("acl")
            .filter(|line| line.words.get(1).is_some_and(is_used))
            .map(|line| (line.words[2..].to_vec(), &line.place));
        let mut names: Vec<Named> = Vec::new();
        for (words, place) in named.chain(anonymous) {
            let Some((fetch, values)) = words.split_first() else { continue };
            let fetch = fetch.to_ascii_lowercase();
            let is_host = [
                "hdr(host)",
                "hdr_dom(host)",
                "hdr_end(host)",
                "hdr_beg(host)",
                "ssl_fc_sni",
                "req.ssl_sni",
                "req_ssl_sni",
            ]
            .iter()
            .any(|name| fetch.trim_start_matches("req.").starts_with(name.trim_start_matches("req.")));
            if !is_host || fetch.contains("_beg") || fetch.contains("_reg") {
                continue;
            }
            let is_end = fetch.contains("_end") || values.iter().any(|v| v == "end");
            for value in plain(values) {
                let pattern = match value.strip_prefix('.') {
                    Some(parent) if is_end => Pattern::parse(&format!("*.{parent}")),
                    _ => Pattern::parse(host_and_port(&value, 0).0.as_str()),
                };
                if !matches!(pattern, Pattern::Other(_)) && !names.iter().any(|n| n.pattern == pattern) {
                    names.push(Named { pattern, place: place.clone() });
                }
            }
        }
        // What fits none of them goes to the default, which takes everything.
        let has_default = default_backend(self.section).is_some() || self.section.kind == "listen";
        if has_default && !names.is_empty() {
            names.push(Named { pattern: Pattern::Any, place: self.section.place.clone() });
        }
        names
    }

    fn fate(&self, uri: &str) -> Vec<Fate> {
        let mut fates = Vec::new();
        if self.requests(self.section, uri, &mut fates) {
            return fates;
        }
        for line in self.section.lines("redirect") {
            match self.condition(&line.words, uri) {
                Truth::No => {}
                held => {
                    fates.push(fate(line, Deed::Redirected, held));
                    if held == Truth::Yes {
                        return fates;
                    }
                }
            }
        }
        let mut chosen = None;
        for line in self.section.lines("use_backend") {
            let Some(name) = line.words.get(1) else { continue };
            match self.condition(&line.words, uri) {
                Truth::Yes => {
                    chosen = Some(name.clone());
                    break;
                }
                // Which of the sites it is for cannot be told; a backend is no obstacle by itself.
                Truth::Maybe => {}
                Truth::No => {}
            }
        }
        let backend = chosen.or_else(|| default_backend(self.section));
        if let Some(backend) = self.backend(&backend)
            && self.requests(backend, uri, &mut fates)
        {
            return fates;
        }
        fates.extend(self.backends(&backend, false));
        fates
    }

    /// `http-request` rules; whether one of them has the last word.
    fn requests(&self, section: &Section, uri: &str, fates: &mut Vec<Fate>) -> bool {
        for line in section.lines("http-request") {
            let deed = match line.words.get(1).map(String::as_str) {
                Some("deny" | "tarpit" | "reject" | "auth" | "silent-drop") => Deed::Denied,
                Some("redirect") => Deed::Redirected,
                Some("return") => Deed::Answered,
                Some("allow") => {
                    if self.condition_in(section, &line.words, uri) == Truth::Yes {
                        return false;
                    }
                    continue;
                }
                _ => continue,
            };
            match self.condition_in(section, &line.words, uri) {
                Truth::No => {}
                held => {
                    fates.push(fate(line, deed, held));
                    if held == Truth::Yes {
                        return true;
                    }
                }
            }
        }
        false
    }

    fn backend(&self, name: &Option<String>) -> Option<&Section> {
        let name = name.as_ref()?;
        self.backends.get(name.as_str()).copied()
    }

    fn backends(&self, name: &Option<String>, is_tcp: bool) -> Vec<Fate> {
        let section = match self.backend(name) {
            Some(section) => section,
            None if self.section.kind == "listen" => self.section,
            None => {
                let (place, words) = (self.section.place.clone(), self.section.shown());
                return vec![Fate { deed: Deed::Answered, certain: true, place, words }];
            }
        };
        let changes_host = section.lines("http-request").any(|line| {
            let words: Vec<_> = line.words.iter().map(|word| word.to_ascii_lowercase()).collect();
            words.get(1).is_some_and(|w| w == "set-header") && words.get(2).is_some_and(|w| w == "host")
        });
        let servers = section.lines("server").filter_map(|line| {
            let (host, port) = host_and_port(line.words.get(2)?, 80);
            let deed = Deed::Passed { host, port, faithful: !changes_host || is_tcp };
            Some(Fate { deed, certain: true, place: line.place.clone(), words: line.shown() })
        });
        let found: Vec<_> = servers.take(1).collect();
        if found.is_empty() {
            let (place, words) = (section.place.clone(), section.shown());
            return vec![Fate { deed: Deed::Answered, certain: true, place, words }];
        }
        found
    }

    fn condition(&self, words: &[String], uri: &str) -> Truth {
        self.condition_in(self.section, words, uri)
    }

    /// What follows `if` or `unless`.
    fn condition_in(&self, section: &Section, words: &[String], uri: &str) -> Truth {
        let Some(at) = words.iter().rposition(|word| word == "if" || word == "unless") else {
            return Truth::Yes;
        };
        let negated = words[at] == "unless";
        let mut any = Truth::No;
        let mut all = Truth::Yes;
        let mut rest = words[at + 1..].iter();
        while let Some(word) = rest.next() {
            if matches!(word.as_str(), "or" | "||" | "OR") {
                any = any.or(all);
                all = Truth::Yes;
                continue;
            }
            let (is_not, name) = match word.strip_prefix('!') {
                Some(name) => (true, name),
                None => (false, word.as_str()),
            };
            // The mark may stand apart.
            let name = if name.is_empty() { rest.next().map_or("", String::as_str) } else { name };
            let truth = if name == "{" {
                let set: Vec<_> = rest.by_ref().take_while(|word| *word != "}").cloned().collect();
                holds(&set, uri)
            } else {
                named(section, name, uri)
            };
            all = all.and(truth.not_if(is_not));
        }
        any.or(all).not_if(negated)
    }
}

fn fate(line: &Line, deed: Deed, held: Truth) -> Fate {
    Fate { deed, certain: held == Truth::Yes, place: line.place.clone(), words: line.shown() }
}

fn named(section: &Section, name: &str, uri: &str) -> Truth {
    let lines: Vec<_> =
        section.lines("acl").filter(|line| line.words.get(1).is_some_and(|n| n == name)).collect();
    if lines.is_empty() {
        return match name {
            "TRUE" | "HTTP" | "HTTP_1.1" | "METH_GET" => Truth::Yes,
            "FALSE" | "LOCALHOST" | "METH_POST" | "METH_CONNECT" | "METH_OPTIONS" | "METH_PUT" => Truth::No,
            _ => Truth::Maybe,
        };
    }
    lines.iter().map(|line| holds(line.words.get(2..).unwrap_or_default(), uri)).fold(Truth::No, Truth::or)
}

/// Values without their flags.
fn plain(words: &[String]) -> Vec<String> {
    let mut values = Vec::new();
    let mut rest = words.iter();
    let mut are_flags = true;
    while let Some(word) = rest.next() {
        match word.as_str() {
            "--" if are_flags => are_flags = false,
            "-m" | "-f" | "-u" | "-M" if are_flags => {
                rest.next();
            }
            flag if are_flags && flag.starts_with('-') => {}
            value => values.push(value.to_owned()),
        }
    }
    values
}

/// Whether `FETCH [FLAGS] VALUES` holds for a CA's request over plain http.
fn holds(words: &[String], uri: &str) -> Truth {
    let Some((fetch, rest)) = words.split_first() else { return Truth::Maybe };
    let ignore_case = rest.iter().any(|word| word == "-i");
    let from_file = rest.iter().any(|word| word == "-f");
    let by = rest.iter().position(|word| word == "-m").and_then(|at| rest.get(at + 1)).map(String::as_str);
    let values = plain(rest);
    let fetch = fetch.split(',').next().unwrap_or_default();
    let any = |is_so: &dyn Fn(&str) -> Truth| values.iter().map(|v| is_so(v)).fold(Truth::No, Truth::or);
    let same = |a: &str, b: &str| if ignore_case { a.eq_ignore_ascii_case(b) } else { a == b };
    match fetch {
        _ if from_file => Truth::Maybe,
        "ssl_fc" | "ssl_fc_has_sni" => Truth::No,
        "always_true" => Truth::Yes,
        "always_false" => Truth::No,
        "dst_port" => any(&|value| (value == "80").into()),
        "method" => any(&|value| (value == "GET").into()),
        "src" => any(&is_ca),
        "path" | "path_beg" | "path_end" | "path_sub" | "path_dir" | "path_reg" | "url" | "url_beg"
        | "url_reg" | "url_sub" => {
            let kind = by.unwrap_or_else(|| fetch.split_once('_').map_or("str", |(_, kind)| kind));
            any(&|value| match kind {
                "beg" => uri.starts_with(value).into(),
                "end" => uri.ends_with(value).into(),
                "sub" => uri.contains(value).into(),
                "dir" => format!("{uri}/").contains(&format!("/{}/", value.trim_matches('/'))).into(),
                "reg" => regex(value, uri, ignore_case),
                "str" => same(uri, value).into(),
                _ => Truth::Maybe,
            })
        }
        "hdr(x-forwarded-proto)" | "req.hdr(x-forwarded-proto)" => any(&|value| value.is_empty().into()),
        _ => Truth::Maybe,
    }
}

#[cfg(test)]
mod tests;
