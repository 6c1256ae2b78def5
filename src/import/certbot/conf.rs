//! The form of certbot's renewal files (pure): `key = value`, lists with commas, quotes of four kinds,
//! sections in sections. certbot writes it with ConfigObj; no crate reads all of it.
//!
//! certbot gives a whole file up for one wrong line. Here the rest is read, and what was wrong is told.

use std::collections::BTreeMap;

use crate::words::printable;

/// Most lines that are looked at.
const MAX_LINES: usize = 20_000;
/// Most sentences about one file.
const MAX_TROUBLES: usize = 5;

/// What a file says.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Conf {
    /// By the path of their section, which is empty at the top.
    sections: BTreeMap<Vec<String>, Vec<(String, Value)>>,
    /// What could not be read, one sentence each.
    pub(super) troubles: Vec<String>,
}

/// One text, or a list of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Value {
    items: Vec<String>,
    is_list: bool,
}

impl Value {
    fn one(text: &str) -> Self {
        Self { items: vec![text.to_owned()], is_list: false }
    }

    /// On one line; a list with its commas.
    pub(super) fn text(&self) -> String {
        self.items.join(", ")
    }

    /// Its texts, of which there may be none.
    pub(super) fn items(&self) -> &[String] {
        &self.items
    }

    /// Whether certbot means nothing by it.
    pub(super) fn is_nothing(&self) -> bool {
        self.items
            .iter()
            .all(|item| matches!(item.trim().to_ascii_lowercase().as_str(), "" | "none" | "false"))
    }
}

impl Conf {
    /// Reads a file's text.
    pub(super) fn parse(text: &str) -> Self {
        let mut conf = Self::default();
        let mut section: Vec<String> = Vec::new();
        let mut lines = text.strip_prefix('\u{feff}').unwrap_or(text).lines().enumerate();
        while let Some((index, line)) = lines.next() {
            if index >= MAX_LINES {
                conf.trouble(index, &format!("the file has more than {MAX_LINES} lines"));
                break;
            }
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if line.starts_with('[') {
                match header(line) {
                    Some((depth, name)) if depth <= section.len() + 1 => {
                        section.truncate(depth - 1);
                        section.push(name);
                        conf.sections.entry(section.clone()).or_default();
                    }
                    _ => conf.trouble(index, "a section's line is expected, as in `[renewalparams]`"),
                }
                continue;
            }
            let Some((key, rest)) = key(line) else {
                // What stands there may be half of a secret.
                conf.trouble(index, "it is neither a section nor `key = value`");
                continue;
            };
            let value = match triple(rest) {
                Some((quote, begun)) => closed(quote, begun, &mut lines),
                None => value(rest),
            };
            let Some(value) = value else {
                conf.trouble(index, &format!("the value of `{}` has no end", printable(&key, 60)));
                continue;
            };
            let entries = conf.sections.entry(section.clone()).or_default();
            if entries.iter().any(|(present, _)| *present == key) {
                conf.trouble(index, &format!("`{}` is set a second time", printable(&key, 60)));
            } else {
                entries.push((key, value));
            }
        }
        conf
    }

    /// The entries of a section, in their order; `None` where there is no such section.
    pub(super) fn section(&self, path: &[&str]) -> Option<&[(String, Value)]> {
        self.sections.get(&path.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>()).map(Vec::as_slice)
    }

    /// An entry above all sections.
    pub(super) fn top(&self, key: &str) -> Option<&Value> {
        find(self.section(&[])?, key)
    }

    fn trouble(&mut self, index: usize, what: &str) {
        if self.troubles.len() < MAX_TROUBLES {
            self.troubles.push(format!("line {}: {what}", index + 1));
        }
    }
}

/// The value of a key.
pub(super) fn find<'a>(entries: &'a [(String, Value)], key: &str) -> Option<&'a Value> {
    entries.iter().find(|(name, _)| name == key).map(|(_, value)| value)
}

/// How deep a section is, and its name.
fn header(line: &str) -> Option<(usize, String)> {
    let depth = line.chars().take_while(|c| *c == '[').count();
    let end = "]".repeat(depth);
    let at = line.rfind(&end)?;
    let after = line[at + depth..].trim();
    let name = line.get(depth..at)?.trim();
    let is_whole =
        !name.is_empty() && !name.contains(['[', ']']) && (after.is_empty() || after.starts_with('#'));
    is_whole.then(|| (depth, unquoted(name).to_owned()))
}

/// A key, and what follows its `=`.
fn key(line: &str) -> Option<(String, &str)> {
    if let Some(quote) = line.chars().next().filter(|c| matches!(c, '"' | '\'')) {
        let (key, rest) = line[1..].split_once(quote)?;
        return Some((key.to_owned(), rest.trim_start().strip_prefix('=')?.trim()));
    }
    let (key, rest) = line.split_once('=')?;
    let key = key.trim();
    (!key.is_empty()).then(|| (key.to_owned(), rest.trim()))
}

/// The quote of a value that may go over several lines, and the value's beginning.
fn triple(rest: &str) -> Option<(&'static str, &str)> {
    ["\"\"\"", "'''"].into_iter().find_map(|quote| Some((quote, rest.strip_prefix(quote)?)))
}

/// Such a value up to its closing quote.
fn closed<'a>(quote: &str, begun: &str, lines: &mut impl Iterator<Item = (usize, &'a str)>) -> Option<Value> {
    let mut text = String::new();
    let mut line = begun;
    loop {
        if let Some((last, _)) = line.split_once(quote) {
            text.push_str(last);
            return Some(Value::one(&text));
        }
        text.push_str(line);
        text.push('\n');
        line = lines.next()?.1;
    }
}

/// A value on one line: what is outside of quotes ends at a comma or at a comment.
fn value(rest: &str) -> Option<Value> {
    let mut items = Vec::new();
    let (mut rest, mut is_list) = (rest, false);
    loop {
        rest = rest.trim_start();
        let Some(first) = rest.chars().next().filter(|c| *c != '#') else { break };
        if first == ',' {
            is_list = true;
            rest = &rest[1..];
            continue;
        }
        if matches!(first, '"' | '\'') {
            let (item, after) = rest[1..].split_once(first)?;
            items.push(item.to_owned());
            rest = after.trim_start();
            if !rest.is_empty() && !rest.starts_with([',', '#']) {
                return None;
            }
        } else {
            let end = rest.find([',', '#']).unwrap_or(rest.len());
            items.push(rest[..end].trim().to_owned());
            rest = &rest[end..];
        }
    }
    if items.is_empty() && !is_list {
        items.push(String::new());
    }
    Some(Value { is_list: is_list || items.len() > 1, items })
}

fn unquoted(text: &str) -> &str {
    ['"', '\''].into_iter().find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Option<(Vec<String>, bool)> {
        let conf = Conf::parse(&format!("key = {line}\n"));
        conf.top("key").map(|value| (value.items().to_vec(), value.is_list))
    }

    #[test]
    fn values_as_certbot_writes_them() {
        for (line, items, is_list) in [
            ("webroot", vec!["webroot"], false),
            ("/var/www/html,", vec!["/var/www/html"], true),
            ("/a, /b", vec!["/a", "/b"], true),
            ("dns-01, http-01,", vec!["dns-01", "http-01"], true),
            ("\"Foo, Bar\"", vec!["Foo, Bar"], false),
            ("'echo \"x, y\" # z'", vec!["echo \"x, y\" # z"], false),
            ("'''it's \"both\"'''", vec!["it's \"both\""], false),
            ("\"\"", vec![""], false),
            ("", vec![""], false),
            (",", vec![], true),
            ("30 days # a word", vec!["30 days"], false),
            ("'a', \"b\", c", vec!["a", "b", "c"], true),
            ("None", vec!["None"], false),
        ] {
            let wanted = items.into_iter().map(str::to_owned).collect();
            assert_eq!(read(line), Some((wanted, is_list)), "{line}");
        }
    }

    #[test]
    fn sections_in_sections_and_quoted_keys() {
        let conf = Conf::parse(
            "version = 2.1.0\n[renewalparams]\nserver = s\n[[webroot_map]]\nexample.test = /srv/www\n\"a=b\" = /c\n[other] # said\nx = 1\n",
        );
        assert_eq!(conf.troubles, [""; 0]);
        assert_eq!(conf.top("version").unwrap().text(), "2.1.0");
        assert_eq!(find(conf.section(&["renewalparams"]).unwrap(), "server").unwrap().text(), "s");
        let map = conf.section(&["renewalparams", "webroot_map"]).unwrap();
        assert_eq!(find(map, "example.test").unwrap().text(), "/srv/www");
        assert_eq!(find(map, "a=b").unwrap().text(), "/c");
        assert_eq!(find(conf.section(&["other"]).unwrap(), "x").unwrap().text(), "1");
        assert!(conf.section(&["webroot_map"]).is_none());
    }

    #[test]
    fn a_value_may_go_over_lines() {
        let conf = Conf::parse("a = '''one\ntwo'''\nb = 2\n");
        assert_eq!(conf.top("a").unwrap().text(), "one\ntwo");
        assert_eq!(conf.top("b").unwrap().text(), "2");
    }

    #[test]
    fn a_half_written_file_keeps_what_was_written() {
        let conf = Conf::parse("version = 2.1.0\n[renewalparams]\nserver = s\nauthent");
        assert_eq!(conf.troubles, ["line 4: it is neither a section nor `key = value`"]);
        assert_eq!(find(conf.section(&["renewalparams"]).unwrap(), "server").unwrap().text(), "s");
        for (text, says) in [
            ("[renewalpar", "line 1: a section's line is expected, as in `[renewalparams]`"),
            ("[[deep]]", "line 1: a section's line is expected, as in `[renewalparams]`"),
            ("a = \"b", "line 1: the value of `a` has no end"),
            ("a = '''b\n", "line 1: the value of `a` has no end"),
            ("a = 'b' c", "line 1: the value of `a` has no end"),
            ("a = 1\na = 2", "line 2: `a` is set a second time"),
            ("= 1", "line 1: it is neither a section nor `key = value`"),
            ("\0\u{1b}[2J", "line 1: it is neither a section nor `key = value`"),
        ] {
            assert_eq!(Conf::parse(text).troubles, [says], "{text}");
        }
        assert_eq!(Conf::parse(&"x\n".repeat(MAX_LINES * 2)).troubles.len(), MAX_TROUBLES);
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_strange(text in "\\PC{0,200}") {
            let _ = Conf::parse(&text);
        }

        #[test]
        fn nor_one_that_looks_right(
            lines in proptest::collection::vec("[\\[\\]\"'=#, a-c\u{e9}]{0,12}", 0..12),
        ) {
            let conf = Conf::parse(&lines.join("\n"));
            for value in conf.sections.values().flatten().map(|(_, value)| value) {
                let _ = (value.text(), value.is_nothing());
            }
        }

        #[test]
        fn what_is_quoted_comes_back(text in "[a-zA-Z0-9 ,#=./\u{e9}'-]{0,30}") {
            proptest::prop_assert_eq!(read(&format!("\"{text}\"")), Some((vec![text], false)));
        }
    }
}
