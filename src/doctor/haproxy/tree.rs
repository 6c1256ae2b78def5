//! HAProxy's grammar: lines of words in sections, with quotes, escapes and variables (configuration
//! manual, 2.2 to 2.4). No file includes another. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::picture::{Place, TroubleKind};
use super::super::reading::{Reading, folder_of};
use crate::words::quote::{quoted, quoted_line};

/// A line that has at least one word.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) words: Vec<String>,
    /// The line as it is written.
    pub(super) text: String,
    pub(super) place: Place,
}

impl Line {
    pub(super) fn shown(&self) -> String {
        quoted_line(&self.words.join(" "), 160)
    }
}

/// A section with its lines.
#[derive(Debug, Clone)]
pub(super) struct Section {
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) place: Place,
    /// The place among the sections of the `defaults` that it stands below.
    pub(super) defaults: Option<usize>,
    pub(super) lines: Vec<Line>,
}

impl Section {
    pub(super) fn lines<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Line> {
        self.lines.iter().filter(move |line| line.words[0] == name)
    }

    pub(super) fn shown(&self) -> String {
        quoted(format!("{} {}", self.kind, self.name).trim(), 120)
    }
}

const SECTIONS: [&str; 19] = [
    "global",
    "defaults",
    "frontend",
    "backend",
    "listen",
    "peers",
    "userlist",
    "mailers",
    "program",
    "ring",
    "resolvers",
    "cache",
    "http-errors",
    "fcgi-app",
    "crt-store",
    "log-forward",
    "log-profile",
    "traces",
    "acme",
];

/// Everything; `None` where the first file is not there. What stands in `conf.d` beside it follows, as the
/// services of some distributions have it.
pub(super) fn read(main: &str, reading: &mut Reading<'_>) -> Option<Vec<Section>> {
    let Some((file, text)) = reading.begin(main) else {
        return (!reading.troubles.is_empty()).then(Vec::new);
    };
    let mut tree = Tree { sections: Vec::new(), defaults: None, variables: BTreeMap::new() };
    tree.file(&file, &text, reading);
    reading.leave();
    let here = Place::new(&file, 0);
    for path in reading.matches(&format!("{}/conf.d/*.cfg", folder_of(main)), &here, false) {
        if let Some((file, text)) = reading.enter(&path, &here) {
            tree.file(&file, &text, reading);
            reading.leave();
        }
    }
    Some(tree.sections)
}

struct Tree {
    sections: Vec<Section>,
    /// The last `defaults` so far.
    defaults: Option<usize>,
    variables: BTreeMap<String, String>,
}

impl Tree {
    fn file(&mut self, file: &Arc<str>, text: &str, reading: &mut Reading<'_>) {
        let first = self.sections.len();
        for (i, line) in text.lines().enumerate() {
            let place = Place::new(file, i + 1);
            let words = match words(line, &self.variables) {
                Ok(words) => words,
                Err(seen) => {
                    reading.trouble(&place, TroubleKind::Broken, seen.to_owned());
                    continue;
                }
            };
            let Some(word) = words.first() else { continue };
            if word.starts_with('.') {
                continue;
            }
            if SECTIONS.contains(&word.as_str()) {
                let name = words.get(1).cloned().unwrap_or_default();
                let defaults = self.defaults;
                if word == "defaults" {
                    self.defaults = Some(self.sections.len());
                }
                self.sections.push(Section { kind: word.clone(), name, place, defaults, lines: Vec::new() });
                continue;
            }
            if let ("setenv" | "presetenv", [_, name, value, ..]) = (word.as_str(), words.as_slice()) {
                // What grows without end is no path.
                if value.len() < 4096 {
                    self.variables.insert(name.clone(), value.clone());
                }
            }
            match self.sections[first..].last_mut() {
                Some(section) => section.lines.push(Line { words, text: line.to_owned(), place }),
                None => {
                    let seen = format!("`{}` stands in no section", quoted(word, 60));
                    reading.trouble(&place, TroubleKind::Broken, seen);
                }
            }
        }
    }
}

fn words(line: &str, variables: &BTreeMap<String, String>) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut rest = line.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '#' => break,
            '\\' => word.get_or_insert_default().push(rest.next().ok_or("a `\\` ends the line")?),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match rest.next() {
                        Some('\'') => break,
                        Some(c) => word.push(c),
                        None => return Err("a quote is opened and not closed on the line"),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match rest.next() {
                        Some('"') => break,
                        Some('\\') => match rest.next() {
                            Some(c @ ('"' | '\\' | '$' | '#' | ' ' | '\'')) => word.push(c),
                            Some(c) => word.extend(['\\', c]),
                            None => return Err("a quote is opened and not closed on the line"),
                        },
                        Some('$') => word.push_str(&variable(&mut rest, variables)),
                        Some(c) => word.push(c),
                        None => return Err("a quote is opened and not closed on the line"),
                    }
                }
            }
            c if c.is_whitespace() => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

/// `$NAME`, `${NAME}` or `${NAME-default}`; what is not known stays as it is.
fn variable(
    rest: &mut std::iter::Peekable<std::str::Chars<'_>>,
    variables: &BTreeMap<String, String>,
) -> String {
    let braced = rest.next_if_eq(&'{').is_some();
    let mut name = String::new();
    while let Some(c) = rest.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
        name.push(c);
    }
    let mut default = None;
    if braced {
        let mut tail = String::new();
        while let Some(c) = rest.next_if(|c| *c != '"') {
            if c == '}' {
                break;
            }
            tail.push(c);
        }
        default = tail.strip_prefix('-').map(str::to_owned);
    }
    variables.get(&name).cloned().or(default).unwrap_or_else(|| format!("${{{name}}}"))
}
