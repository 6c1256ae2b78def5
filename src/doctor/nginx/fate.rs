//! What nginx does with a request over plain http: the server's rewrites, its choice of a location, that
//! one's rewrites, its access rules, its content. Pure.

use std::collections::BTreeMap;

use super::super::picture::{Deed, Fate, Named, Pattern};
use super::super::truth::{Truth, is_ca, regex};
use super::tree::Directive;
use super::{condition, shown};

/// What may happen, and last what happens for certain.
pub(super) fn of(http: &Directive, server: &Directive, names: &[Named], uri: &str) -> Vec<Fate> {
    let mut walk = Walk { uri, names, variables: BTreeMap::new(), fates: Vec::new() };
    if walk.rewrites(&server.block, true) == Flow::Over {
        return walk.fates;
    }
    let (location, doubtful) = choose(&server.block, uri, 0);
    for doubtful in doubtful {
        walk.doubt(&[http, server, doubtful]);
    }
    match location {
        Some(path) => {
            let levels: Vec<_> = [http, server].into_iter().chain(path).collect();
            walk.inside(&levels, true);
        }
        None => walk.inside(&[http, server], false),
    }
    walk.fates
}

/// Whether a walk goes on.
#[derive(PartialEq)]
enum Flow {
    On,
    /// No more rewrites here.
    Break,
    Over,
}

struct Walk<'a> {
    uri: &'a str,
    names: &'a [Named],
    /// What `set` says, as far as it is known.
    variables: BTreeMap<String, Option<String>>,
    fates: Vec<Fate>,
}

impl Walk<'_> {
    fn add(&mut self, directive: &Directive, deed: Deed, certain: bool) {
        let (place, words) = (directive.place.clone(), shown(directive));
        self.fates.push(Fate { deed, certain, place, words });
    }

    fn rewrites(&mut self, block: &[Directive], certain: bool) -> Flow {
        for directive in block {
            let flow = match directive.name.as_str() {
                "set" => self.set(directive, certain),
                "return" => self.returns(directive, certain),
                "rewrite" => self.rewrite(directive, certain),
                "break" if certain => return Flow::Break,
                "if" => match self.holds(&condition(directive)) {
                    Truth::No => Flow::On,
                    Truth::Yes => self.rewrites(&directive.block, certain),
                    Truth::Maybe => {
                        self.rewrites(&directive.block, false);
                        Flow::On
                    }
                },
                _ => Flow::On,
            };
            if flow != Flow::On {
                return flow;
            }
        }
        Flow::On
    }

    fn set(&mut self, directive: &Directive, certain: bool) -> Flow {
        if let [name, value] = directive.args.as_slice() {
            let known = if certain { self.value(value) } else { None };
            self.variables.insert(name.trim_start_matches('$').to_owned(), known);
        }
        Flow::On
    }

    fn returns(&mut self, directive: &Directive, certain: bool) -> Flow {
        let first = directive.args.first().map_or("", String::as_str);
        let deed = match first.parse::<u16>() {
            Ok(300..=399) | Err(_) => Deed::Redirected,
            Ok(400..) => Deed::Denied,
            Ok(_) => Deed::Answered,
        };
        self.add(directive, deed, certain);
        if certain { Flow::Over } else { Flow::On }
    }

    fn rewrite(&mut self, directive: &Directive, certain: bool) -> Flow {
        let [pattern, to, flags @ ..] = directive.args.as_slice() else { return Flow::On };
        let matched = regex(pattern, self.uri, false);
        if matched == Truth::No {
            return Flow::On;
        }
        let flag = flags.first().map_or("", String::as_str);
        let is_redirect = ["http://", "https://", "$scheme"].iter().any(|start| to.starts_with(start))
            || matches!(flag, "redirect" | "permanent");
        let certain = certain && matched == Truth::Yes;
        self.add(directive, if is_redirect { Deed::Redirected } else { Deed::Answered }, certain);
        if certain { Flow::Over } else { Flow::On }
    }

    /// Whether a condition of `if` holds for a CA's request.
    fn holds(&self, condition: &str) -> Truth {
        let words: Vec<_> = condition.split_whitespace().collect();
        match words.as_slice() {
            ["-f" | "-d" | "-e" | "-x", _] => Truth::No,
            ["!-f" | "!-d" | "!-e" | "!-x", _] => Truth::Yes,
            [name] => match self.value(name) {
                Some(value) => (!value.is_empty() && value != "0").into(),
                None => Truth::Maybe,
            },
            [name, operator, rest @ ..] => {
                let wanted = rest.join(" ");
                let wanted = wanted.trim_matches(|c| c == '"' || c == '\'');
                let compare = |value: &str| match *operator {
                    "=" => (value == wanted).into(),
                    "!=" => Truth::from(value != wanted),
                    "~" => regex(wanted, value, false),
                    "~*" => regex(wanted, value, true),
                    "!~" => regex(wanted, value, false).not(),
                    "!~*" => regex(wanted, value, true).not(),
                    _ => Truth::Maybe,
                };
                if matches!(*name, "$host" | "$http_host" | "$server_name") {
                    return self.for_some_name(compare);
                }
                self.value(name).map_or(Truth::Maybe, |value| compare(&value))
            }
            [] => Truth::Maybe,
        }
    }

    /// Whether something is so for one of the server's names: that one's challenge is met then.
    fn for_some_name(&self, compare: impl Fn(&str) -> Truth) -> Truth {
        let exact: Vec<_> = self
            .names
            .iter()
            .filter_map(|named| match &named.pattern {
                Pattern::Exact(name) => Some(name.as_str()),
                _ => None,
            })
            .collect();
        if exact.is_empty() || exact.len() < self.names.len() {
            return Truth::Maybe;
        }
        exact.into_iter().map(compare).fold(Truth::No, Truth::or)
    }

    /// What a word with variables stands for, if that is known.
    fn value(&self, word: &str) -> Option<String> {
        let Some(name) = word.strip_prefix('$') else {
            return (!word.contains('$')).then(|| word.to_owned());
        };
        let name = name.trim_start_matches('{').trim_end_matches('}');
        if let Some(known) = self.variables.get(name) {
            return known.clone();
        }
        Some(match name {
            "uri" | "request_uri" | "document_uri" => self.uri.to_owned(),
            "scheme" => "http".to_owned(),
            "server_port" => "80".to_owned(),
            "request_method" => "GET".to_owned(),
            "https" | "ssl_protocol" | "args" | "query_string" | "is_args" => String::new(),
            "http_x_forwarded_proto" | "http_x_forwarded_ssl" | "http_cookie" | "http_referer" => {
                String::new()
            }
            _ => return None,
        })
    }

    /// In the innermost of these levels, outermost first.
    fn inside(&mut self, levels: &[&Directive], has_location: bool) {
        let Some(innermost) = levels.last() else { return };
        if has_location && self.rewrites(&innermost.block, true) == Flow::Over {
            return;
        }
        if self.refused(levels) {
            return;
        }
        let content = innermost.block.iter().rev().find(|directive| is_content(&directive.name));
        match content {
            Some(directive) if directive.name == "proxy_pass" => {
                let deed = self.passed(levels, directive);
                self.add(directive, deed, true);
            }
            Some(directive) => self.add(directive, Deed::Answered, true),
            None => {
                let mut from = levels.iter().rev().flat_map(|level| level.block.iter().rev());
                let root = from.find(|d| matches!(d.name.as_str(), "root" | "alias"));
                self.add(root.unwrap_or(innermost), Deed::Answered, true);
            }
        }
    }

    /// A location whose expression cannot be judged from here.
    fn doubt(&mut self, levels: &[&Directive]) {
        let known = self.fates.len();
        self.inside(levels, true);
        for fate in &mut self.fates[known..] {
            fate.certain = false;
        }
        // That it may be answered there as well is no news.
        let judged = self.fates.split_off(known);
        self.fates.extend(judged.into_iter().filter(|f| matches!(f.deed, Deed::Denied | Deed::Redirected)));
    }

    fn refused(&mut self, levels: &[&Directive]) -> bool {
        let nearest = |names: &[&str]| {
            levels.iter().rev().find_map(|level| {
                let there: Vec<_> =
                    level.block.iter().filter(|directive| names.contains(&directive.name.as_str())).collect();
                (!there.is_empty()).then_some(there)
            })
        };
        for rule in nearest(&["allow", "deny"]).unwrap_or_default() {
            match is_ca(rule.args.first().map_or("", String::as_str)) {
                Truth::Yes if rule.name == "deny" => {
                    self.add(rule, Deed::Denied, true);
                    return true;
                }
                Truth::Yes => break,
                _ => {}
            }
        }
        if let Some([.., realm]) = nearest(&["auth_basic"]).as_deref()
            && !realm.has("off")
        {
            self.add(realm, Deed::Denied, true);
            return true;
        }
        if let Some([.., request]) = nearest(&["auth_request"]).as_deref()
            && !request.has("off")
        {
            self.add(request, Deed::Filtered, false);
        }
        false
    }

    fn passed(&self, levels: &[&Directive], pass: &Directive) -> Deed {
        let url = pass.args.first().map_or("", String::as_str);
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        let (authority, path) = match rest.find('/') {
            Some(at) => (&rest[..at], Some(&rest[at..])),
            None => (rest, None),
        };
        let (host, port) = super::super::words::host_and_port(authority, 80);
        let (host, port) = upstream(levels, &host).unwrap_or((host, port));
        // With a path of its own the location's prefix is replaced by it.
        let location = levels.last().map_or("", |level| level.args.last().map_or("", String::as_str));
        let keeps_path = path.is_none_or(|path| path == location || path == "$request_uri");
        let host_header = levels.iter().rev().find_map(|level| {
            let headers: Vec<_> = level.children("proxy_set_header").collect();
            let host =
                headers.iter().find(|h| h.args.first().is_some_and(|n| n.eq_ignore_ascii_case("host")));
            (!headers.is_empty()).then(|| host.and_then(|h| h.args.get(1)).map_or("", String::as_str))
        });
        let keeps_host = matches!(host_header, Some("$host" | "$http_host" | "$server_name"));
        Deed::Passed { host, port, faithful: keeps_path && keeps_host }
    }
}

fn is_content(name: &str) -> bool {
    matches!(
        name,
        "proxy_pass"
            | "fastcgi_pass"
            | "uwsgi_pass"
            | "scgi_pass"
            | "grpc_pass"
            | "memcached_pass"
            | "try_files"
            | "stub_status"
    ) || name.starts_with("content_by_lua")
}

/// The first server of an `upstream`.
fn upstream(levels: &[&Directive], name: &str) -> Option<(String, u16)> {
    let http = levels.first()?;
    let found = http.children("upstream").find(|upstream| upstream.has(name))?;
    let server = found.value("server")?;
    Some(super::super::words::host_and_port(server, 80))
}

/// The locations that a path leads through, outermost first, and those whose expressions cannot be judged.
fn choose<'a>(
    block: &'a [Directive],
    uri: &str,
    depth: usize,
) -> (Option<Vec<&'a Directive>>, Vec<&'a Directive>) {
    let mut doubtful = Vec::new();
    let mut best: Option<(&Directive, usize, bool)> = None;
    for location in block.iter().filter(|directive| directive.name == "location") {
        let (modifier, pattern) = match location.args.as_slice() {
            [pattern] => match pattern.strip_prefix('=') {
                Some(exact) => ("=", exact),
                None => ("", pattern.as_str()),
            },
            [modifier, pattern] => (modifier.as_str(), pattern.as_str()),
            _ => continue,
        };
        match modifier {
            "=" if pattern == uri => return (Some(vec![location]), doubtful),
            "" | "^~"
                if uri.starts_with(pattern) && best.is_none_or(|(_, length, _)| pattern.len() >= length) =>
            {
                best = Some((location, pattern.len(), modifier == "^~"));
            }
            _ => {}
        }
    }
    let mut nested = None;
    let mut has_regex = false;
    if let (Some((location, ..)), true) = (best, depth < 50) {
        let (inner, unsure) = choose(&location.block, uri, depth + 1);
        has_regex = inner.as_ref().is_some_and(|path| path.iter().any(|l| is_regex(l)));
        nested = inner;
        doubtful.extend(unsure);
    }
    let is_strong = best.is_some_and(|(_, _, strong)| strong);
    if !is_strong && !has_regex {
        for location in block.iter().filter(|directive| directive.name == "location" && is_regex(directive)) {
            let [modifier, pattern] = location.args.as_slice() else { continue };
            match regex(pattern, uri, modifier == "~*") {
                Truth::Yes => return (Some(vec![location]), doubtful),
                Truth::Maybe => doubtful.push(location),
                Truth::No => {}
            }
        }
    }
    let path = best.map(|(location, ..)| {
        std::iter::once(location).chain(nested.unwrap_or_default()).collect::<Vec<_>>()
    });
    (path, doubtful)
}

fn is_regex(location: &Directive) -> bool {
    matches!(location.args.first().map(String::as_str), Some("~" | "~*"))
}
