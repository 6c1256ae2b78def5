//! Apache's grammar: lines, sections, `Define`, `<IfModule>`, macros, includes; what the start would skip
//! is skipped. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use super::super::picture::{Place, TroubleKind};
use super::super::reading::{Reading, absolute};
use crate::words::quote::{quoted, quoted_line};

/// A directive, or a section with what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    /// In lower case.
    pub(super) name: String,
    /// As it is written.
    pub(super) written: String,
    pub(super) args: Vec<String>,
    pub(super) place: Place,
    pub(super) children: Vec<Node>,
}

impl Node {
    pub(super) fn empty(place: Place) -> Self {
        Self { name: String::new(), written: String::new(), args: Vec::new(), place, children: Vec::new() }
    }

    /// As a person would recognise it.
    pub(super) fn words(&self) -> String {
        let words: Vec<_> = std::iter::once(&self.written).chain(&self.args).map(String::as_str).collect();
        quoted_line(&words.join(" "), 120)
    }
}

/// How deep sections may stand in each other, and macros and files in their uses.
const DEEPEST: usize = 40;
/// Most lines, each counted as often as it is used.
const MOST_LINES: usize = if cfg!(test) { 20_000 } else { 300_000 };
/// Most text, each line counted as often as it is used, in bytes.
const MOST_BYTES: usize = 16 << 20;
/// A line that would grow beyond this is left as it is, in bytes.
const LONGEST: usize = 1 << 16;

/// What is compiled in, on Debian and elsewhere.
const BUILT_IN: [&str; 12] = [
    "core_module",
    "http_module",
    "so_module",
    "log_config_module",
    "logio_module",
    "version_module",
    "unixd_module",
    "watchdog_module",
    "core.c",
    "mod_so.c",
    "mod_version.c",
    "mod_unixd.c",
];

/// Everything, the folder that paths start from, and the modules that are loaded.
pub(super) fn read(
    main: &str,
    root: &str,
    environment: &BTreeMap<String, String>,
    reading: &mut Reading<'_>,
) -> Option<(Vec<Node>, String, BTreeSet<String>)> {
    let opened = reading.begin(main);
    if opened.is_none() && reading.troubles.is_empty() {
        return None;
    }
    let mut start = Start {
        reading,
        root: root.to_owned(),
        defines: environment.clone(),
        modules: BUILT_IN.map(str::to_owned).into(),
        macros: BTreeMap::new(),
        using: Vec::new(),
        lines: 0,
        bytes: 0,
    };
    let mut tree = Vec::new();
    if let Some((file, text)) = opened {
        let lines = lines(&file, &text);
        tree = start.follow(&lines, 0);
        start.reading.leave();
    }
    Some((tree, start.root, start.modules))
}

/// A line, with those that it continues on.
#[derive(Debug, Clone)]
struct Line {
    text: String,
    place: Place,
}

fn lines(file: &Arc<str>, text: &str) -> Vec<Line> {
    let mut found = Vec::new();
    let mut open: Option<Line> = None;
    for (i, line) in text.lines().enumerate() {
        let mut whole =
            open.take().unwrap_or_else(|| Line { text: String::new(), place: Place::new(file, i + 1) });
        match line.strip_suffix('\\') {
            Some(begun) => {
                whole.text.push_str(begun);
                open = Some(whole);
            }
            None => {
                whole.text.push_str(line);
                found.push(whole);
            }
        }
    }
    found.extend(open);
    found.retain(|line| {
        let text = line.text.trim_start();
        !text.is_empty() && !text.starts_with('#')
    });
    found
}

/// `<Macro NAME $parameter…>`
struct Macro {
    parameters: Vec<String>,
    body: Rc<[Line]>,
}

/// A start of the server, as far as its files go.
struct Start<'a, 'b> {
    reading: &'a mut Reading<'b>,
    root: String,
    defines: BTreeMap<String, String>,
    modules: BTreeSet<String>,
    macros: BTreeMap<String, Macro>,
    /// The macros that are being used, outermost first.
    using: Vec<String>,
    lines: usize,
    bytes: usize,
}

/// A section that is being read.
struct Open {
    node: Node,
    /// Its content counts as if it stood outside.
    is_transparent: bool,
    outer: Vec<Node>,
}

impl Start<'_, '_> {
    fn follow(&mut self, lines: &[Line], depth: usize) -> Vec<Node> {
        let mut open: Vec<Open> = Vec::new();
        let mut current: Vec<Node> = Vec::new();
        let mut i = 0;
        while let Some(line) = lines.get(i) {
            i += 1;
            self.lines += 1;
            self.bytes += line.text.len();
            if self.lines > MOST_LINES || self.bytes > MOST_BYTES || depth + open.len() > DEEPEST {
                let seen = "there is too much to read, or it stands too deep".to_owned();
                self.reading.trouble(&line.place, TroubleKind::TooMuch, seen);
                break;
            }
            let text = self.expanded(line.text.trim());
            if let Some(closing) = text.strip_prefix("</") {
                let name = closing.trim_end_matches('>').trim().to_ascii_lowercase();
                if open.last().is_some_and(|o| o.node.name == name) {
                    close(&mut open, &mut current);
                } else {
                    let seen = format!("`</{}>` closes nothing", quoted(&name, 60));
                    self.reading.trouble(&line.place, TroubleKind::Broken, seen);
                }
            } else if let Some(opening) = text.strip_prefix('<') {
                let node = node(opening.strip_suffix('>').unwrap_or(opening), &line.place);
                if !opening.ends_with('>') {
                    let seen = format!("`<{}` lacks its `>`", node.words());
                    self.reading.trouble(&line.place, TroubleKind::Broken, seen);
                }
                match node.name.as_str() {
                    "macro" => i = self.define_macro(&node, lines, i),
                    name if self.is_skipped(name, &node.args) => i = end_of(name, lines, i),
                    name => {
                        let is_transparent = matches!(
                            name,
                            "ifmodule" | "ifdefine" | "ifversion" | "iffile" | "ifdirective" | "ifsection"
                        );
                        open.push(Open { node, is_transparent, outer: std::mem::take(&mut current) });
                    }
                }
            } else {
                let node = node(&text, &line.place);
                self.directive(node, &mut current, depth + open.len());
            }
        }
        while let Some(unclosed) = open.last() {
            let seen = format!("the section `<{}>` is not closed", unclosed.node.words());
            self.reading.trouble(&unclosed.node.place.clone(), TroubleKind::Broken, seen);
            close(&mut open, &mut current);
        }
        current
    }

    fn directive(&mut self, node: Node, current: &mut Vec<Node>, depth: usize) {
        let first = node.args.first().cloned().unwrap_or_default();
        match node.name.as_str() {
            "define" => {
                self.defines.insert(first, node.args.get(1).cloned().unwrap_or_default());
            }
            "undefine" => {
                self.defines.remove(&first);
            }
            "serverroot" => self.root = first,
            "loadmodule" => {
                if let Some(file) = node.args.get(1).and_then(|path| path.rsplit('/').next()) {
                    self.modules.insert(file.replace(".so", ".c"));
                }
                self.modules.insert(first);
            }
            "include" | "includeoptional" => {
                let must = node.name == "include";
                current.extend(self.include(&absolute(&self.root, &first), &node.place, must, depth));
            }
            "use" => current.extend(self.use_macro(&node, depth)),
            _ => current.push(node),
        }
    }

    fn include(&mut self, pattern: &str, from: &Place, must: bool, depth: usize) -> Vec<Node> {
        let mut found = Vec::new();
        if pattern.contains("${") || pattern.contains("$(") {
            let seen =
                format!("what `{pattern}` includes depends on a variable that is not defined in the files");
            self.reading.trouble(from, TroubleKind::Unknown, seen);
            return found;
        }
        for path in self.reading.matches(pattern, from, must) {
            if self.reading.is_spent() {
                break;
            }
            // A folder stands for all that is below it.
            if let Some(entries) = self.reading.folder(&path, from) {
                if depth < DEEPEST {
                    for entry in entries {
                        let below = format!("{}/{}", path.trim_end_matches('/'), entry.name);
                        found.extend(self.include(&escaped(&below), from, false, depth + 1));
                    }
                }
                continue;
            }
            if let Some((file, text)) = self.reading.enter(&path, from) {
                found.extend(self.follow(&lines(&file, &text), depth + 1));
                self.reading.leave();
            }
        }
        found
    }

    fn define_macro(&mut self, node: &Node, all: &[Line], from: usize) -> usize {
        let after = end_of("macro", all, from);
        let body = all[from..after].iter().take((after - from).saturating_sub(1)).cloned().collect();
        if let Some((name, parameters)) = node.args.split_first() {
            let defined = Macro { parameters: parameters.to_vec(), body };
            self.macros.insert(name.to_ascii_lowercase(), defined);
        }
        after
    }

    fn use_macro(&mut self, node: &Node, depth: usize) -> Vec<Node> {
        let Some((name, values)) = node.args.split_first() else { return Vec::new() };
        let Some(found) = self.macros.get(&name.to_ascii_lowercase()) else {
            let seen = format!("`{}` uses a macro that is not defined in the files", node.words());
            self.reading.trouble(&node.place, TroubleKind::Unknown, seen);
            return Vec::new();
        };
        if self.using.contains(&name.to_ascii_lowercase()) {
            let seen = format!("`{}` uses a macro within itself", node.words());
            self.reading.trouble(&node.place, TroubleKind::Endless, seen);
            return Vec::new();
        }
        // A parameter may begin with another one's name.
        let mut replaced: Vec<_> =
            found.parameters.iter().zip(values).filter(|(parameter, _)| !parameter.is_empty()).collect();
        replaced.sort_by_key(|(parameter, _)| std::cmp::Reverse(parameter.len()));
        let with = |line: &Line| {
            let text = replaced.iter().fold(line.text.clone(), |text, (parameter, value)| {
                let grown = text.len() + text.matches(parameter.as_str()).count() * value.len();
                if grown > LONGEST { text } else { text.replace(parameter.as_str(), value) }
            });
            Line { text, place: line.place.clone() }
        };
        let body: Vec<_> = found.body.iter().map(with).collect();
        self.using.push(name.to_ascii_lowercase());
        let nodes = self.follow(&body, depth + 1);
        self.using.pop();
        nodes
    }

    fn is_skipped(&self, name: &str, args: &[String]) -> bool {
        let Some(first) = args.first() else { return false };
        let (negated, word) = match first.strip_prefix('!') {
            Some(word) => (true, word),
            None => (false, first.as_str()),
        };
        match name {
            "ifmodule" => self.modules.contains(word) == negated,
            "ifdefine" => self.defines.contains_key(word) == negated,
            _ => false,
        }
    }

    /// `${NAME}`, where it is known.
    fn expanded(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            out.push_str(&rest[..at]);
            let after = &rest[at + 2..];
            match after.find('}') {
                Some(end)
                    if self.defines.get(&after[..end]).is_some_and(|v| v.len() + out.len() < LONGEST) =>
                {
                    out.push_str(&self.defines[&after[..end]]);
                    rest = &after[end + 1..];
                }
                _ => {
                    out.push_str("${");
                    rest = after;
                }
            }
        }
        out.push_str(rest);
        out
    }
}

/// A file's name is no pattern.
fn escaped(path: &str) -> String {
    path.chars().fold(String::with_capacity(path.len()), |mut out, c| {
        if matches!(c, '*' | '?' | '[') {
            out.push('\\');
        }
        out.push(c);
        out
    })
}

fn close(open: &mut Vec<Open>, current: &mut Vec<Node>) {
    let Some(Open { mut node, is_transparent, outer }) = open.pop() else { return };
    let inside = std::mem::replace(current, outer);
    if is_transparent {
        current.extend(inside);
    } else {
        node.children = inside;
        current.push(node);
    }
}

/// The line after the one that closes a section.
fn end_of(name: &str, lines: &[Line], from: usize) -> usize {
    let mut depth = 1;
    for (i, line) in lines.iter().enumerate().skip(from) {
        let text = line.text.trim();
        let begins = |start: &str| {
            let rest = text.strip_prefix(start)?;
            let word: String = rest.chars().take_while(char::is_ascii_alphanumeric).collect();
            word.eq_ignore_ascii_case(name).then_some(())
        };
        if begins("</").is_some() {
            depth -= 1;
        } else if begins("<").is_some() {
            depth += 1;
        }
        if depth == 0 {
            return i + 1;
        }
    }
    lines.len()
}

fn node(text: &str, place: &Place) -> Node {
    let mut words = words(text).into_iter();
    let written = words.next().unwrap_or_default();
    Node {
        name: written.to_ascii_lowercase(),
        written,
        args: words.collect(),
        place: place.clone(),
        children: Vec::new(),
    }
}

/// Words, with `"…"` and `'…'` around those that have blanks.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text.chars().peekable();
    loop {
        while rest.next_if(|c| c.is_whitespace()).is_some() {}
        let Some(&first) = rest.peek() else { return words };
        let quote = matches!(first, '"' | '\'').then_some(first);
        if quote.is_some() {
            rest.next();
        }
        let mut word = String::new();
        while let Some(c) = rest.next() {
            match (c, quote) {
                ('\\', Some(quote)) if rest.peek().is_some_and(|n| *n == quote || *n == '\\') => {
                    word.extend(rest.next());
                }
                (c, Some(quote)) if c == quote => break,
                (c, None) if c.is_whitespace() => break,
                (c, _) => word.push(c),
            }
        }
        words.push(word);
    }
}
