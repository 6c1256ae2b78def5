//! What Apache does with a request over plain http, in the order in which its modules come to it:
//! mod_rewrite, mod_proxy, mod_alias, access, and then the files. Pure.

use super::super::picture::{Deed, Fate, Named, Pattern};
use super::super::truth::{Truth, is_ca, regex};
use super::super::words::host_and_port;
use super::tree::Node;

/// What may happen, and last what happens for certain. `own` is the virtual host's, `main` is what stands
/// outside of all of them.
pub(super) fn of(host: &Node, own: &[Node], main: &[Node], names: &[Named], uri: &str) -> Vec<Fate> {
    let mut walk = Walk { uri, names, fates: Vec::new() };
    walk.follow(host, own, main);
    walk.fates
}

struct Walk<'a> {
    uri: &'a str,
    names: &'a [Named],
    fates: Vec<Fate>,
}

impl Walk<'_> {
    fn add(&mut self, node: &Node, deed: Deed, certain: bool) {
        let words = if node.args.is_empty() { String::new() } else { node.words() };
        self.fates.push(Fate { deed, certain, place: node.place.clone(), words });
    }

    fn follow(&mut self, host: &Node, own: &[Node], main: &[Node]) {
        if self.rewritten(own, main) {
            return;
        }
        let passed = own.iter().chain(main).find_map(|node| self.pass(node));
        if !matches!(passed, Some(Some(_))) && (self.redirected(own) || self.redirected(main)) {
            return;
        }
        if let Some(refusing) = self.refusing(own, main) {
            self.add(&refusing, Deed::Denied, true);
            return;
        }
        match passed {
            Some(Some((node, to))) => {
                let keeps_host = [own, main].iter().find_map(|nodes| {
                    let found = nodes.iter().rfind(|n| n.name == "proxypreservehost")?;
                    Some(found.args.first().is_some_and(|word| word.eq_ignore_ascii_case("on")))
                });
                let deed = self.deed(&to, keeps_host == Some(true));
                self.add(&node, deed, true);
            }
            _ => {
                let root = [own, main].iter().find_map(|nodes| {
                    nodes.iter().find(|n| self.is_alias(n)).or_else(|| super::last(nodes, "documentroot"))
                });
                self.add(&root.unwrap_or(host).clone(), Deed::Answered, true);
            }
        }
    }

    /// mod_rewrite of the virtual host; whether it has the last word.
    fn rewritten(&mut self, own: &[Node], main: &[Node]) -> bool {
        let is_on = super::last(own, "rewriteengine")
            .and_then(|node| node.args.first())
            .is_some_and(|word| word.eq_ignore_ascii_case("on"));
        if !is_on {
            return false;
        }
        let inherits = own.iter().any(|node| {
            node.name == "rewriteoptions"
                && node.args.iter().any(|a| a.to_ascii_lowercase().starts_with("inherit"))
        });
        let inherited = if inherits { main } else { &[] };
        let mut conditions = Vec::new();
        for node in own.iter().chain(inherited) {
            match node.name.as_str() {
                "rewritecond" => conditions.push(node),
                "rewriterule" => {
                    let held = self.hold(&std::mem::take(&mut conditions));
                    match self.rule(node, held) {
                        Some(is_over) => return is_over,
                        None => continue,
                    }
                }
                _ => {}
            }
        }
        false
    }

    /// `Some(true)`: the request has met its fate; `Some(false)`: no more rules.
    fn rule(&mut self, node: &Node, held: Truth) -> Option<bool> {
        let [pattern, to, flags @ ..] = node.args.as_slice() else { return None };
        let flags: Vec<_> = flags
            .first()
            .map_or("", String::as_str)
            .trim_matches(|c| c == '[' || c == ']')
            .split(',')
            .map(|flag| flag.trim().to_ascii_uppercase())
            .collect();
        let has = |names: &[&str]| {
            flags.iter().any(|flag| names.contains(&flag.split('=').next().unwrap_or_default()))
        };
        let (negated, pattern) = match pattern.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, pattern.as_str()),
        };
        let matched = regex(pattern, self.uri, has(&["NC", "NOCASE"])).not_if(negated).and(held);
        if matched == Truth::No {
            return None;
        }
        let certain = matched == Truth::Yes;
        let is_url = to.contains("://");
        let deed = if has(&["F", "FORBIDDEN", "G", "GONE"]) {
            Deed::Denied
        } else if has(&["P", "PROXY"]) {
            // With what the pattern caught, the path is as it came.
            target(to).into_passed(to.contains('$') || to.contains("%{REQUEST_URI}"))
        } else if has(&["R", "REDIRECT"]) || is_url {
            Deed::Redirected
        } else if to == "-" {
            return (certain && has(&["L", "LAST", "END"])).then_some(false);
        } else {
            Deed::Answered
        };
        self.add(node, deed, certain);
        certain.then_some(true)
    }

    fn hold(&self, conditions: &[&Node]) -> Truth {
        let mut all = Truth::Yes;
        let mut any: Option<Truth> = None;
        for node in conditions {
            let one = self.condition(node);
            let flags = node.args.get(2).map_or("", String::as_str).to_ascii_uppercase();
            let joined = any.take().map_or(one, |before| before.or(one));
            if flags.contains("OR") && !flags.contains("NOR") {
                any = Some(joined);
            } else {
                all = all.and(joined);
            }
        }
        any.map_or(all, |last| all.and(last))
    }

    fn condition(&self, node: &Node) -> Truth {
        let [test, pattern, ..] = node.args.as_slice() else { return Truth::Maybe };
        let ignore_case = node.args.get(2).is_some_and(|flags| flags.to_ascii_uppercase().contains("NC"));
        let (negated, pattern) = match pattern.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, pattern.as_str()),
        };
        let compare = |value: &str| -> Truth {
            match pattern {
                "-f" | "-d" | "-s" | "-l" | "-F" | "-e" => Truth::No,
                _ => match pattern.strip_prefix('=') {
                    Some(wanted) => {
                        let wanted = wanted.trim_matches('"');
                        (value == wanted || ignore_case && value.eq_ignore_ascii_case(wanted)).into()
                    }
                    None => regex(pattern, value, ignore_case),
                },
            }
            .not_if(negated)
        };
        match test.as_str() {
            "%{REQUEST_URI}" => compare(self.uri),
            "%{REQUEST_FILENAME}" if pattern.starts_with('-') => compare(""),
            "%{THE_REQUEST}" => compare(&format!("GET {} HTTP/1.1", self.uri)),
            "%{HTTPS}" => compare("off"),
            "%{SERVER_PORT}" => compare("80"),
            "%{REQUEST_SCHEME}" => compare("http"),
            "%{REQUEST_METHOD}" => compare("GET"),
            "%{QUERY_STRING}" | "%{HTTP:X-Forwarded-Proto}" | "%{HTTP_COOKIE}" | "%{HTTP_REFERER}" => {
                compare("")
            }
            "%{HTTP_HOST}" | "%{SERVER_NAME}" => {
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
            _ => Truth::Maybe,
        }
    }

    /// What a `ProxyPass` says of the path: `Some(None)` excepts it.
    fn pass(&self, node: &Node) -> Option<Option<(Node, String)>> {
        match node.name.as_str() {
            "proxypass" => {
                let [from, to, ..] = node.args.as_slice() else { return None };
                if !begins(self.uri, from) {
                    return None;
                }
                if to == "!" {
                    return Some(None);
                }
                let rest = &self.uri[from.len().min(self.uri.len())..];
                Some(Some((node.clone(), format!("{to}{rest}"))))
            }
            "proxypassmatch" => {
                let [pattern, to, ..] = node.args.as_slice() else { return None };
                match regex(pattern, self.uri, false) {
                    Truth::Yes if to == "!" => Some(None),
                    Truth::Yes => Some(Some((node.clone(), to.clone()))),
                    _ => None,
                }
            }
            "location" if self.is_at(node) == Truth::Yes => {
                let inner = node.children.iter().find(|n| n.name == "proxypass")?;
                let to = inner.args.first()?;
                let from = node.args.first()?;
                let rest = self.uri.get(from.len()..).unwrap_or_default();
                if to == "!" { Some(None) } else { Some(Some((inner.clone(), format!("{to}{rest}")))) }
            }
            _ => None,
        }
    }

    fn deed(&self, to: &str, keeps_host: bool) -> Deed {
        let path = to.split_once("://").and_then(|(_, rest)| rest.find('/').map(|at| &rest[at..]));
        let keeps_path = path == Some(self.uri) || to.contains('$');
        target(to).into_passed(keeps_path && keeps_host)
    }

    fn redirected(&mut self, nodes: &[Node]) -> bool {
        for node in nodes {
            let args: Vec<_> = node.args.iter().map(String::as_str).collect();
            let (status, rest) = match (node.name.as_str(), args.as_slice()) {
                ("redirect" | "redirectmatch", [status, rest @ ..])
                    if status.parse::<u16>().is_ok()
                        || ["permanent", "temp", "seeother", "gone"]
                            .contains(&status.to_ascii_lowercase().as_str()) =>
                {
                    (*status, rest)
                }
                ("redirect" | "redirectmatch" | "redirectpermanent" | "redirecttemp", rest) => ("302", rest),
                _ => continue,
            };
            let Some(from) = rest.first() else { continue };
            let matched = if node.name == "redirectmatch" {
                regex(from, self.uri, false)
            } else {
                begins(self.uri, from).into()
            };
            let is_refusal = status == "gone" || status.parse::<u16>().is_ok_and(|s| s >= 400);
            let deed = if is_refusal { Deed::Denied } else { Deed::Redirected };
            match matched {
                Truth::Yes => {
                    self.add(node, deed, true);
                    return true;
                }
                Truth::Maybe => self.add(node, deed, false),
                Truth::No => {}
            }
        }
        false
    }

    fn is_alias(&self, node: &Node) -> bool {
        let Some(from) = node.args.first() else { return false };
        match node.name.as_str() {
            "alias" | "scriptalias" => begins(self.uri, from),
            "aliasmatch" | "scriptaliasmatch" => regex(from, self.uri, false) == Truth::Yes,
            _ => false,
        }
    }

    /// The access rule that refuses it; later sections win over earlier ones, `<If>` over all.
    fn refusing(&self, own: &[Node], main: &[Node]) -> Option<Node> {
        let is_if = |node: &&Node| node.name == "if" && node.args.join(" ").contains("acme-challenge");
        let sections = main.iter().chain(own).filter(|node| self.is_at(node) == Truth::Yes);
        let sections: Vec<_> = sections.chain(main.iter().chain(own).filter(is_if)).collect();
        let mut refusing = None;
        for section in sections {
            if let Some(judged) = judge(&section.children) {
                refusing = judged;
            }
        }
        refusing
    }

    /// Whether a `<Location>` or `<LocationMatch>` is about the path.
    fn is_at(&self, node: &Node) -> Truth {
        match (node.name.as_str(), node.args.as_slice()) {
            ("location", [tilde, pattern]) if tilde == "~" => regex(pattern, self.uri, false),
            ("locationmatch", [pattern, ..]) => regex(pattern, self.uri, false),
            ("location", [path, ..]) => begins(self.uri, path).into(),
            _ => Truth::No,
        }
    }
}

/// `Some(Some(_))`: refused by that; `Some(None)`: let through; `None`: nothing is said.
fn judge(nodes: &[Node]) -> Option<Option<Node>> {
    let mut refusing = None;
    let mut judged = None;
    for node in nodes {
        let args: Vec<_> = node.args.iter().map(|arg| arg.to_ascii_lowercase()).collect();
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        match (node.name.as_str(), args.as_slice()) {
            ("require", ["all", "granted"]) => return Some(None),
            ("allow", ["from", "all"]) => judged = Some(None),
            ("require", ["ip" | "host" | "forward-dns", from, ..]) if is_ca(from) == Truth::Yes => {
                return Some(None);
            }
            ("require", ["not" | "env" | "expr" | "method", ..]) => {}
            ("require", _) => refusing = refusing.or(Some(node.clone())),
            ("deny", ["from", "all"]) => refusing = refusing.or(Some(node.clone())),
            ("requireany" | "requireall", _) => match judge(&node.children) {
                Some(None) => return Some(None),
                Some(inner) => refusing = refusing.or(inner),
                None => {}
            },
            _ => {}
        }
    }
    refusing.map(Some).or(judged)
}

/// Whether a path is at or below a prefix, segment by segment.
fn begins(uri: &str, prefix: &str) -> bool {
    uri.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || prefix.ends_with('/') || rest.starts_with('/'))
}

/// Host and port of a URL.
struct Target {
    host: String,
    port: u16,
}

fn target(url: &str) -> Target {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let authority = rest.split(['/', '$', '%']).next().unwrap_or_default();
    let default = if scheme.eq_ignore_ascii_case("https") { 443 } else { 80 };
    let (host, port) = host_and_port(authority, default);
    Target { host, port: if scheme == "balancer" { 0 } else { port } }
}

impl Target {
    fn into_passed(self, faithful: bool) -> Deed {
        Deed::Passed { host: self.host, port: self.port, faithful }
    }
}
