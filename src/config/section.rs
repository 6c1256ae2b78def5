//! Reading checked values out of the tree: a value that does not parse or is out of bounds is reported
//! and its default goes on in its place, so that every problem is found in one run.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::document::{Node, Value};
use super::files::absolute;
use super::problem::{Origin, Report, seen};

/// A table of the configuration, present or not.
#[derive(Clone)]
pub(super) struct Section<'a> {
    node: Option<&'a Node>,
    /// Where a missing key is reported: at the nearest table that is there.
    origin: &'a Origin,
    path: String,
    /// Something else than a table stands in its place, which is reported already: nothing is missing.
    is_misplaced: bool,
    report: &'a Report,
}

/// A value of the configuration under its key.
#[derive(Clone)]
pub(super) struct Entry<'a> {
    node: &'a Node,
    path: String,
    report: &'a Report,
}

impl<'a> Section<'a> {
    pub(super) fn root(node: &'a Node, report: &'a Report) -> Self {
        Self { node: Some(node), origin: &node.origin, path: String::new(), is_misplaced: false, report }
    }

    fn join(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    pub(super) fn is_present(&self) -> bool {
        self.node.is_some()
    }

    pub(super) fn entry(&self, name: &str) -> Option<Entry<'a>> {
        let node = self.node?.child(name)?;
        Some(Entry { node, path: self.join(name), report: self.report })
    }

    pub(super) fn table(&self, name: &str) -> Section<'a> {
        let child = self.node.and_then(|node| node.child(name));
        let node = child.filter(|node| matches!(node.value, Value::Table(_)));
        let origin = child.map_or(self.origin, |node| &node.origin);
        let is_misplaced = self.is_misplaced || child.is_some() != node.is_some();
        Section { node, origin, path: self.join(name), is_misplaced, report: self.report }
    }

    /// The tables of `[[name]]`.
    pub(super) fn tables(&self, name: &str) -> Vec<Section<'a>> {
        let Some(Node { value: Value::List(items), .. }) = self.node.and_then(|node| node.child(name)) else {
            return Vec::new();
        };
        let section = |node: &'a Node| Section {
            node: Some(node),
            origin: &node.origin,
            path: self.join(name),
            is_misplaced: false,
            report: self.report,
        };
        items.iter().filter(|item| matches!(item.value, Value::Table(_))).map(section).collect()
    }

    /// The table of `[name]` or those of `[[name]]`.
    pub(super) fn table_or_tables(&self, name: &str) -> Vec<Section<'a>> {
        let table = self.table(name);
        if table.is_present() { vec![table] } else { self.tables(name) }
    }

    /// The tables of `[name.*]` with their names.
    pub(super) fn named(&self, name: &str) -> Vec<(&'a str, Section<'a>)> {
        let table = self.table(name);
        let Some(Node { value: Value::Table(entries), .. }) = table.node else { return Vec::new() };
        entries.keys().map(|key| (key.as_str(), table.table(key))).collect()
    }

    /// Every value of this table under its name.
    pub(super) fn entries(&self) -> Vec<(&'a str, Entry<'a>)> {
        let Some(Node { value: Value::Table(entries), .. }) = self.node else { return Vec::new() };
        let entry = |(name, node): (&'a String, &'a Node)| {
            (name.as_str(), Entry { node, path: self.join(name), report: self.report })
        };
        entries.iter().map(entry).collect()
    }

    /// The value, parsed; the default where it is missing or wrong.
    pub(super) fn parsed<T>(
        &self,
        name: &str,
        default: T,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> T {
        match self.entry(name) {
            Some(entry) => entry.parsed(parse).unwrap_or(default),
            None => default,
        }
    }

    /// The values of a list, or of a single text, parsed; those that are wrong are left out.
    pub(super) fn each<T>(
        &self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<(Entry<'a>, T)> {
        let entries = self.entry(name).map(|entry| entry.items()).unwrap_or_default();
        entries.into_iter().filter_map(|entry| entry.parsed(&parse).map(|value| (entry, value))).collect()
    }

    pub(super) fn boolean(&self, name: &str, default: bool) -> bool {
        match self.entry(name).map(|entry| &entry.node.value) {
            Some(Value::Boolean(truth)) => *truth,
            _ => default,
        }
    }

    pub(super) fn integer(&self, name: &str, default: usize, range: RangeInclusive<usize>) -> usize {
        let Some(entry) = self.entry(name) else { return default };
        let Value::Integer(number) = entry.node.value else { return default };
        match usize::try_from(number) {
            Ok(number) if range.contains(&number) => number,
            _ => {
                entry.refuse(&out_of_range(number, range.start(), range.end()));
                default
            }
        }
    }

    pub(super) fn duration(
        &self,
        name: &str,
        default: Duration,
        range: RangeInclusive<Duration>,
    ) -> Duration {
        self.parsed(name, default, |text| {
            let duration = humantime::parse_duration(text.trim()).map_err(|_| {
                format!(
                    "{} is not a duration; write a number with its unit, as in \"10s\" or \"5m\"",
                    seen(text)
                )
            })?;
            if range.contains(&duration) {
                return Ok(duration);
            }
            let shown = |d: &Duration| humantime::format_duration(*d).to_string();
            Err(out_of_range(text, shown(range.start()), shown(range.end())))
        })
    }

    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        let entry = self.entry(name)?;
        entry.parsed(|text| absolute(text, entry.origin()))
    }

    /// Reports a key that is missing, at this table's place in the file. A table that only a variable
    /// or a flag brought about is no place: neither said what is missing.
    pub(super) fn refuse_missing(&self, name: &str, message: &str) {
        if self.is_misplaced {
            return;
        }
        let origin = if let Origin::File { .. } = self.origin { self.origin } else { &Origin::Nowhere };
        self.report.refuse(origin, Some(&self.join(name)), message);
    }

    /// Reports something about this table.
    pub(super) fn refuse(&self, message: &str) {
        self.report.refuse(self.origin, (!self.path.is_empty()).then_some(&self.path), message);
    }

    pub(super) fn warn(&self, message: &str) {
        self.report.warn(self.origin, (!self.path.is_empty()).then_some(&self.path), message);
    }

    pub(super) fn origin(&self) -> &'a Origin {
        self.origin
    }
}

impl<'a> Entry<'a> {
    pub(super) fn origin(&self) -> &'a Origin {
        &self.node.origin
    }

    pub(super) fn refuse(&self, message: &str) {
        self.report.refuse(&self.node.origin, Some(&self.path), message);
    }

    pub(super) fn warn(&self, message: &str) {
        self.report.warn(&self.node.origin, Some(&self.path), message);
    }

    pub(super) fn text(&self) -> Option<&'a str> {
        match &self.node.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn is_false(&self) -> bool {
        matches!(self.node.value, Value::Boolean(false))
    }

    /// The parsed text; `None` if it is wrong, which is then reported.
    pub(super) fn parsed<T>(&self, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        parse(self.text()?).map_err(|message| self.refuse(&message)).ok()
    }

    /// A list's items, or the one value that stands for a list.
    pub(super) fn items(&self) -> Vec<Entry<'a>> {
        match &self.node.value {
            Value::List(items) => {
                let entry = |node| Entry { node, path: self.path.clone(), report: self.report };
                items.iter().map(entry).collect()
            }
            _ => vec![self.clone()],
        }
    }
}

fn out_of_range(number: impl Display, low: impl Display, high: impl Display) -> String {
    format!("`{number}` is out of range; write {low} to {high}")
}

/// The meaning of a word out of a short list, or the sentence that spells the list out.
pub(super) fn one_of<T: Copy>(text: &str, what: &str, words: &[(&str, T)]) -> Result<T, String> {
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
        return Ok(*value);
    }
    Err(format!("{} is no {what}; write {}", seen(text), alternatives(words.iter().map(|(word, _)| *word))))
}

/// Words as a sentence names them: `"a", "b" or "c"`.
pub(super) fn alternatives<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let quoted: Vec<_> = words.map(|word| format!("\"{word}\"")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}
