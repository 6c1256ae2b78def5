//! Every key there is, in one table: what may be written where, and which kind of value it takes. Suggestions, the names of environment variables and the
//! test of `deploy/example.toml` come from here too.

use super::document::{Node, Value};
use super::problem::{Report, seen};

/// What a key's value looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Duration,
    Integer,
    Boolean,
    /// One text or a list of them.
    TextOrList,
    /// A list of texts.
    List,
    /// A program and its arguments.
    Command,
    Table,
    /// `[[…]]`
    Tables,
    /// `[…]` or `[[…]]`.
    TableOrTables,
    /// A table whose keys are names of the administrator's choice, each of them a table.
    Named,
}

/// A key by its full path; `*` stands for a name of the administrator's choice.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    pub(super) path: &'static str,
    pub(super) kind: Kind,
}

const fn key(path: &'static str, kind: Kind) -> Key {
    Key { path, kind }
}

pub(super) const KEYS: &[Key] = &[
    key("include", Kind::TextOrList),
    key("state-dir", Kind::Text),
    key("user", Kind::Text),
    key("group", Kind::Text),
    key("sandbox", Kind::Text),
    key("grace", Kind::Duration),
    key("acme", Kind::Table),
    key("acme.issuer", Kind::Text),
    key("acme.fallback-issuers", Kind::TextOrList),
    key("acme.staging", Kind::Text),
    key("acme.contact", Kind::TextOrList),
    key("acme.terms-agreed", Kind::Boolean),
    key("acme.roots", Kind::Text),
    key("acme.eab", Kind::TableOrTables),
    key("acme.eab.kid", Kind::Text),
    key("acme.eab.hmac-key-file", Kind::Text),
    key("acme.eab.issuer", Kind::Text),
    key("acme.concurrency", Kind::Integer),
    key("acme.preflight", Kind::Boolean),
    key("acme.resolvers", Kind::TextOrList),
    key("acme.limits", Kind::Table),
    key("acme.limits.failed-authorizations", Kind::Text),
    key("acme.limits.certificates-per-set", Kind::Text),
    key("acme.limits.certificates-per-domain", Kind::Text),
    key("acme.limits.orders", Kind::Text),
    key("acme.limits.accounts", Kind::Text),
    key("gate", Kind::Table),
    key("gate.listen", Kind::TextOrList),
    key("gate.open", Kind::Text),
    key("gate.opening", Kind::Tables),
    key("gate.opening.nftables-set", Kind::Text),
    key("gate.opening.port", Kind::Integer),
    key("gate.opening.open", Kind::Command),
    key("gate.opening.close", Kind::Command),
    key("gate.opening.environment", Kind::Named),
    key("gate.opening.environment.*", Kind::Text),
    key("gate.opening.timeout", Kind::Duration),
    key("gate.opening.lease", Kind::Duration),
    key("gate.redirect", Kind::Table),
    key("gate.redirect.status", Kind::Integer),
    key("gate.redirect.port", Kind::Integer),
    key("gate.redirect.hosts", Kind::Text),
    key("gate.redirect.also-hosts", Kind::List),
    key("gate.match-host", Kind::Boolean),
    key("gate.trusted-proxies", Kind::TextOrList),
    key("gate.max-connections", Kind::Integer),
    key("gate.max-connections-per-network", Kind::Integer),
    key("front", Kind::Table),
    key("front.listen", Kind::TextOrList),
    key("front.upstream", Kind::Text),
    key("front.proxy-protocol", Kind::Boolean),
    key("front.alpn", Kind::TextOrList),
    key("front.trusted-proxies", Kind::TextOrList),
    key("front.max-body", Kind::Integer),
    key("front.hsts", Kind::Table),
    key("front.hsts.max-age", Kind::Duration),
    key("front.hsts.include-subdomains", Kind::Boolean),
    key("front.hsts.preload", Kind::Boolean),
    key("front.access-log", Kind::Table),
    key("front.access-log.file", Kind::Text),
    key("front.access-log.format", Kind::Text),
    key("front.site", Kind::Tables),
    key("front.site.hostnames", Kind::List),
    key("front.site.upstream", Kind::Text),
    key("front.site.proxy-protocol", Kind::Boolean),
    key("front.site.alpn", Kind::TextOrList),
    key("front.default-certificate", Kind::Text),
    key("front.ticket-key-file", Kind::Text),
    key("front.max-connections", Kind::Integer),
    key("front.max-connections-per-network", Kind::Integer),
    key("front.max-handshakes", Kind::Integer),
    key("front.threads", Kind::Integer),
    key("front.handshake-timeout", Kind::Duration),
    key("front.idle-timeout", Kind::Duration),
    key("front.connect-timeout", Kind::Duration),
    key("front.response-timeout", Kind::Duration),
    key("certificate", Kind::Tables),
    key("certificate.name", Kind::Text),
    key("certificate.hostnames", Kind::List),
    key("certificate.key-type", Kind::TextOrList),
    key("certificate.challenge", Kind::Text),
    key("certificate.files", Kind::Table),
    key("certificate.files.fullchain", Kind::Text),
    key("certificate.files.key", Kind::Text),
    key("certificate.profile", Kind::Text),
    key("certificate.partial", Kind::Text),
    key("certificate.deploy", Kind::List),
    key("deploy", Kind::Named),
    key("deploy.*", Kind::Table),
    key("deploy.*.service", Kind::Text),
    key("deploy.*.check", Kind::Command),
    key("deploy.*.reload", Kind::Command),
    key("deploy.*.start", Kind::Command),
    key("deploy.*.each", Kind::Boolean),
    key("deploy.*.verify", Kind::TextOrList),
    key("deploy.*.verify-timeout", Kind::Duration),
    key("deploy.*.copy", Kind::Table),
    key("deploy.*.copy.cert", Kind::Text),
    key("deploy.*.copy.chain", Kind::Text),
    key("deploy.*.copy.fullchain", Kind::Text),
    key("deploy.*.copy.key", Kind::Text),
    key("deploy.*.copy.combined", Kind::Text),
    key("deploy.*.copy.owner", Kind::Text),
    key("deploy.*.copy.mode", Kind::Text),
    key("deploy.*.runtime-socket", Kind::Text),
    key("deploy.*.environment", Kind::Named),
    key("deploy.*.environment.*", Kind::Text),
    key("deploy.*.timeout", Kind::Duration),
    key("helper", Kind::Table),
    key("helper.socket", Kind::Text),
    key("notify", Kind::Table),
    key("notify.expiring-below", Kind::Text),
    key("notify.quiet", Kind::Duration),
    key("notify.command", Kind::Command),
    key("notify.webhook", Kind::Text),
    key("notify.webhook-roots", Kind::Text),
    key("notify.mail", Kind::Table),
    key("notify.mail.to", Kind::TextOrList),
    key("notify.mail.from", Kind::Text),
    key("notify.mail.smtp", Kind::Text),
    key("notify.mail.user", Kind::Text),
    key("notify.mail.password-file", Kind::Text),
    key("notify.mail.roots", Kind::Text),
    key("admin", Kind::Table),
    key("admin.socket", Kind::Text),
    key("admin.listen", Kind::Text),
];

impl Key {
    /// The path's table and its last part.
    fn split(&self) -> (&'static str, &'static str) {
        self.path.rsplit_once('.').unwrap_or(("", self.path))
    }

    /// The environment variable's name; `None` for keys inside `[[…]]` and `[deploy.NAME]`, and for
    /// tables.
    pub(super) fn variable(&self) -> Option<String> {
        let is_table = matches!(self.kind, Kind::Table | Kind::Tables | Kind::TableOrTables | Kind::Named);
        let repeats = ["certificate.", "front.site.", "gate.opening.", "deploy."]
            .iter()
            .any(|p| self.path.starts_with(p));
        (!is_table && !repeats && self.path != "include")
            .then(|| format!("WICKETGATE_{}", self.path.to_uppercase().replace('.', "__").replace('-', "_")))
    }
}

/// Refuses unknown keys and values of the wrong kind.
pub(super) fn check(root: &Node, report: &Report) {
    check_table(root, "", "", report);
}

fn check_table(node: &Node, pattern: &str, shown: &str, report: &Report) {
    let Value::Table(entries) = &node.value else { return };
    let named = KEYS.iter().any(|key| key.path == pattern && key.kind == Kind::Named);
    for (name, child) in entries {
        let part = if named { "*" } else { name };
        let join = |a: &str, b: &str| if a.is_empty() { b.to_owned() } else { format!("{a}.{b}") };
        let quoted = if name.contains('.') { format!("{name:?}") } else { name.clone() };
        let (pattern_here, shown_here) = (join(pattern, part), join(shown, &quoted));
        match KEYS.iter().find(|key| key.split() == (pattern, part)) {
            Some(key) => check_value(child, key, &pattern_here, &shown_here, report),
            None => report.refuse(&child.origin, Some(&shown_here), &unknown(pattern, name)),
        }
    }
}

fn check_value(node: &Node, key: &Key, pattern: &str, shown: &str, report: &Report) {
    let refuse = |node: &Node, message: &str| report.refuse(&node.origin, Some(shown), message);
    match (key.kind, &node.value) {
        (Kind::Text | Kind::Duration | Kind::TextOrList, Value::Text(_))
        | (Kind::Integer, Value::Integer(_))
        | (Kind::Boolean, Value::Boolean(_)) => {}
        (Kind::TextOrList | Kind::List | Kind::Command, Value::List(items)) => {
            for item in items.iter().filter(|item| !matches!(item.value, Value::Text(_))) {
                refuse(item, &format!("{} stands in a list of texts; write it in quotes", describe(item)));
            }
        }
        (Kind::Table | Kind::TableOrTables | Kind::Named, Value::Table(_)) => {
            check_table(node, pattern, shown, report);
        }
        (Kind::Tables | Kind::TableOrTables, Value::List(items)) => {
            for item in items {
                match item.value {
                    Value::Table(_) => check_table(item, pattern, shown, report),
                    _ => refuse(item, &wrong_kind(item, key)),
                }
            }
        }
        _ => refuse(node, &wrong_kind(node, key)),
    }
}

fn wrong_kind(node: &Node, key: &Key) -> String {
    let seen_value = describe(node);
    let (_, name) = key.split();
    match (key.kind, &node.value) {
        (Kind::Command, Value::Text(line)) => command_remedy(name, line),
        (Kind::Text, Value::Integer(_) | Value::Boolean(_)) => {
            format!("{seen_value} is not text; write it in quotes")
        }
        (Kind::Text, _) => format!("{seen_value} is not text; write one text in quotes"),
        (Kind::Duration, _) => {
            format!("{seen_value} is not a duration; write a number with its unit in quotes, as in \"10s\"")
        }
        (Kind::Integer, _) => format!("{seen_value} is not a whole number; write the number without quotes"),
        (Kind::Boolean, _) => {
            format!("{seen_value} is neither true nor false; write one of them without quotes")
        }
        (Kind::TextOrList | Kind::List, Value::Text(text)) => {
            format!("{seen_value} is not a list; write `{name} = [{text:?}]`")
        }
        (Kind::TextOrList | Kind::List | Kind::Command, _) => {
            format!("{seen_value} is not a list of texts; write `{name} = [\"…\"]`")
        }
        (Kind::Tables, Value::Table(_)) => {
            format!("it is a list of tables; write `[[{}]]` with two brackets", key.path)
        }
        (Kind::Tables, _) => format!("{seen_value} is not a list of tables; write `[[{}]]`", key.path),
        (Kind::Table, Value::List(_)) if key.path != "deploy.*" => {
            format!("it is a single table; write `[{}]` with one bracket", key.path)
        }
        (Kind::Table | Kind::TableOrTables | Kind::Named, _) => {
            // Not with the value: under `acme.eab` it could be the secret itself.
            let kind = if let Value::Text(_) = node.value { "a text" } else { &seen_value };
            format!("{kind} is not a table; write `{}` and its keys below it", header(key.path))
        }
    }
}

/// A command line as the list it should have been, or the advice to write a script.
fn command_remedy(name: &str, line: &str) -> String {
    const SHELL: &[char] = &['|', '&', ';', '<', '>', '$', '`', '(', ')', '\\', '*', '?', '~', '\n', '#'];
    if line.contains(SHELL) || line.matches(['"', '\'']).count() % 2 == 1 {
        return format!(
            "{} is a text, and no shell is involved; put it into a script and write `{name} = [\"/path/to/script\"]`",
            seen(line)
        );
    }
    let mut words = vec![];
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (Some(open), _) if open == c => quote = None,
            (None, ' ' | '\t') => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    format!("{} is a text, and no shell is involved; write it as a list: `{name} = {words:?}`", seen(line))
}

fn describe(node: &Node) -> String {
    match &node.value {
        Value::Text(text) => seen(&format!("{text:?}")),
        Value::Integer(number) => format!("`{number}`"),
        Value::Boolean(truth) => format!("`{truth}`"),
        Value::Other(kind) => (*kind).to_owned(),
        Value::List(_) => "a list".to_owned(),
        Value::Table(_) => "a table".to_owned(),
    }
}

fn unknown(pattern: &str, name: &str) -> String {
    let siblings = KEYS.iter().map(Key::split).filter(|(table, _)| *table == pattern).map(|(_, last)| last);
    if let Some(near) = nearest(name, siblings) {
        return format!("unknown; did you mean `{near}`?");
    }
    let known = || KEYS.iter().map(Key::split);
    let elsewhere: Vec<_> = known()
        .filter(|(table, last)| *last == name && !table.is_empty())
        .map(|(table, _)| format!("`{}`", header(table)))
        .collect();
    if !elsewhere.is_empty() {
        return format!("unknown here; it belongs under {}", elsewhere.join(" or "));
    }
    let here: Vec<_> = known().filter(|(table, _)| *table == pattern).map(|(_, last)| last).collect();
    format!("unknown; the keys here are {}", here.join(", "))
}

/// A table's line in a file.
fn header(table: &str) -> String {
    let repeats = KEYS.iter().any(|key| key.path == table && key.kind == Kind::Tables);
    let name = table.replace('*', "NAME");
    if repeats { format!("[[{name}]]") } else { format!("[{name}]") }
}

/// The candidate that is a slip of one or two letters away from `name`, or that `name` is the beginning of.
pub(super) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > 64 {
        return None;
    }
    let name = name.to_lowercase().replace('_', "-");
    candidates
        .filter(|candidate| *candidate != "*")
        .map(|candidate| (distance(&name, candidate), candidate))
        .filter(|(distance, candidate)| {
            *distance <= (candidate.len() / 3).min(2) || (name.len() > 3 && candidate.starts_with(&name))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_its_table() {
        for key in KEYS {
            let (table, last) = key.split();
            assert!(!last.is_empty());
            assert!(
                table.is_empty()
                    || KEYS.iter().any(|k| k.path == table
                        && matches!(k.kind, Kind::Table | Kind::Tables | Kind::TableOrTables | Kind::Named)),
                "{}",
                key.path
            );
        }
    }

    #[test]
    fn variables() {
        let variable = |path: &str| KEYS.iter().find(|key| key.path == path).and_then(Key::variable);
        assert_eq!(variable("acme.issuer").as_deref(), Some("WICKETGATE_ACME__ISSUER"));
        assert_eq!(variable("state-dir").as_deref(), Some("WICKETGATE_STATE_DIR"));
        assert_eq!(variable("gate.redirect.status").as_deref(), Some("WICKETGATE_GATE__REDIRECT__STATUS"));
        assert_eq!(
            variable("acme.eab.hmac-key-file").as_deref(),
            Some("WICKETGATE_ACME__EAB__HMAC_KEY_FILE")
        );
        for path in
            ["certificate.name", "front.site.upstream", "deploy.*.timeout", "acme", "notify", "include"]
        {
            assert_eq!(variable(path), None, "{path}");
        }
    }

    #[test]
    fn slips_are_recognised_and_other_words_are_not() {
        let words = ["issuer", "contact", "terms-agreed", "eab"];
        for (written, meant) in [
            ("isuer", Some("issuer")),
            ("Issuers", Some("issuer")),
            ("terms_agreed", Some("terms-agreed")),
            ("contacts", Some("contact")),
            ("eba", None),
            ("email", None),
            ("terms", Some("terms-agreed")),
            ("ter", None),
        ] {
            assert_eq!(nearest(written, words.into_iter()), meant, "{written}");
        }
    }

    #[test]
    fn a_command_line_is_shown_as_a_list() {
        let remedy =
            |line| command_remedy("reload", line).split("; ").last().map(str::to_owned).unwrap_or_default();
        assert_eq!(
            remedy("squid -k reconfigure"),
            r#"write it as a list: `reload = ["squid", "-k", "reconfigure"]`"#
        );
        assert_eq!(remedy("x 'a b' \"\""), r#"write it as a list: `reload = ["x", "a b", ""]`"#);
        for shell in ["a && b", "echo $HOME", "it's"] {
            assert!(remedy(shell).starts_with("put it into a script"), "{shell}");
        }
    }
}
