//! The configuration as a tree of values, each of which knows who said it: the common form of
//! files, environment and flags before anything is checked.

use std::collections::BTreeMap;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Origin, Report, SourceFile};

/// A value and its origin.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) origin: Origin,
    pub(super) value: Value,
}

/// What a value is.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Text(String),
    /// Numbers beyond 64 bits are kept at the bound: every range refuses them.
    Integer(i64),
    Boolean(bool),
    /// A kind that no key takes, by its name.
    Other(&'static str),
    List(Vec<Node>),
    Table(BTreeMap<String, Node>),
}

impl Node {
    pub(super) fn text(origin: Origin, text: &str) -> Self {
        Self { origin, value: Value::Text(text.to_owned()) }
    }

    pub(super) fn texts(origin: &Origin, texts: &[String]) -> Self {
        let list = texts.iter().map(|text| Self::text(origin.clone(), text)).collect();
        Self { origin: origin.clone(), value: Value::List(list) }
    }

    pub(super) fn empty_table(origin: Origin) -> Self {
        Self { origin, value: Value::Table(BTreeMap::new()) }
    }

    /// The entry of a table.
    pub(super) fn child(&self, name: &str) -> Option<&Self> {
        match &self.value {
            Value::Table(entries) => entries.get(name),
            _ => None,
        }
    }

    /// Sets the value at a dotted path, making tables on the way. Where something else than a table
    /// is in the way nothing changes: that is refused anyway.
    pub(super) fn set(&mut self, path: &str, node: Self) {
        let Value::Table(entries) = &mut self.value else { return };
        match path.split_once('.') {
            None => {
                entries.insert(path.to_owned(), node);
            }
            Some((first, rest)) => entries
                .entry(first.to_owned())
                .or_insert_with(|| Self::empty_table(node.origin.clone()))
                .set(rest, node),
        }
    }

    /// Appends to the list at a key, making it if needed.
    pub(super) fn push(&mut self, name: &str, node: Self) {
        let Value::Table(entries) = &mut self.value else { return };
        let list = entries
            .entry(name.to_owned())
            .or_insert_with(|| Self { origin: node.origin.clone(), value: Value::List(Vec::new()) });
        if let Value::List(items) = &mut list.value {
            items.push(node);
        }
    }

    /// Adds another file's values: tables merge, lists of tables append, anything else must be said
    /// once.
    pub(super) fn merge(&mut self, other: Self, key: &str, report: &Report) {
        match (&mut self.value, other.value) {
            (Value::Table(mine), Value::Table(theirs)) => {
                for (name, node) in theirs {
                    let path = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                    match mine.get_mut(&name) {
                        Some(present) => present.merge(node, &path, report),
                        None => {
                            mine.insert(name, node);
                        }
                    }
                }
            }
            (Value::List(mine), Value::List(theirs)) if all_tables(mine) && all_tables(&theirs) => {
                mine.extend(theirs);
            }
            _ => {
                let message = format!("is also set at {}; keep one of the two", self.origin);
                report.refuse(&other.origin, Some(key), &message);
            }
        }
    }
}

fn all_tables(items: &[Node]) -> bool {
    items.iter().all(|item| matches!(item.value, Value::Table(_)))
}

/// Parses one file's text; a syntax error is reported and gives `None`.
pub(super) fn parse(text: &str, file: &Arc<SourceFile>, report: &Report) -> Option<Node> {
    let lines = Lines::new(text, file);
    let table = match DeTable::parse(text) {
        Ok(table) => table,
        Err(error) => {
            let span = error.span().unwrap_or(0..0);
            report.refuse(&lines.at(span.start), None, &syntax_message(error.message(), text.get(span)));
            return None;
        }
    };
    let root = Origin::File { file: Arc::clone(file), line: 0 };
    Some(Node { origin: root, value: lines.table(table.get_ref()) })
}

fn syntax_message(message: &str, at: Option<&str>) -> String {
    if message == "duplicate key" {
        let key = at.unwrap_or_default();
        return format!("`{key}` is set twice in this table; keep one of the two");
    }
    format!("not valid TOML: {message}; text stands in quotes, a list in brackets, one key on a line")
}

/// Turns offsets into lines.
struct Lines<'a> {
    file: &'a Arc<SourceFile>,
    ends: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn new(text: &str, file: &'a Arc<SourceFile>) -> Self {
        Self { file, ends: text.match_indices('\n').map(|(offset, _)| offset).collect() }
    }

    fn at(&self, offset: usize) -> Origin {
        let line = self.ends.partition_point(|&end| end < offset) + 1;
        Origin::File { file: Arc::clone(self.file), line }
    }

    fn table(&self, table: &DeTable<'_>) -> Value {
        let entries = table.iter().map(|(key, value)| {
            let node = Node { origin: self.at(key.span().start), value: self.value(value) };
            (key.get_ref().to_string(), node)
        });
        Value::Table(entries.collect())
    }

    fn value(&self, value: &Spanned<DeValue<'_>>) -> Value {
        match value.get_ref() {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(number) => Value::Integer(integer(number.as_str(), number.radix())),
            DeValue::Boolean(truth) => Value::Boolean(*truth),
            DeValue::Float(_) => Value::Other("a fraction"),
            DeValue::Datetime(_) => Value::Other("a date"),
            DeValue::Array(items) => Value::List(
                items
                    .iter()
                    .map(|item| Node { origin: self.at(item.span().start), value: self.value(item) })
                    .collect(),
            ),
            DeValue::Table(table) => self.table(table),
        }
    }
}

fn integer(text: &str, radix: u32) -> i64 {
    let bound = if text.starts_with('-') { i64::MIN } else { i64::MAX };
    i64::from_str_radix(text, radix).unwrap_or(bound)
}
