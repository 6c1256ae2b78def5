//! What is wrong with a configuration, and where it was said: a file's line, an environment variable
//! or a flag. All problems are collected, so that one run shows all of them.

use std::cell::RefCell;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One thing that is wrong, with its place and the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    origin: Origin,
    key: Option<String>,
    message: String,
}

/// A configuration that was refused, with everything that is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    problems: Vec<Problem>,
    is_absent: bool,
}

impl ConfigError {
    /// Most problems shown; the rest is counted.
    const MAX_SHOWN: usize = 50;

    /// Whether there is no configuration at all, which a running daemon may have been given by its own flags.
    pub fn is_absent(&self) -> bool {
        self.is_absent
    }

    /// Every problem, files first and in the order of their lines, then environment, then flags.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().take(Self::MAX_SHOWN).enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        match self.problems.len().saturating_sub(Self::MAX_SHOWN) {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}

impl Problem {
    pub(super) fn new(origin: &Origin, key: Option<&str>, message: &str) -> Self {
        Self { origin: origin.clone(), key: key.map(printable), message: printable(message) }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::Environment(name) => return write!(f, "{}: {}", printable(name), self.message),
            Origin::Flag(flag) => return write!(f, "{flag}: {}", self.message),
            Origin::File { .. } => write!(f, "{}: ", self.origin)?,
            Origin::Nowhere => {}
        }
        match &self.key {
            Some(key) => write!(f, "key `{key}`: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

/// Who said a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// A line of a file, counted from 1; 0 stands for the file as a whole.
    File { file: Arc<SourceFile>, line: usize },
    /// An environment variable, by its name.
    Environment(String),
    /// A flag, with its hyphens.
    Flag(&'static str),
    /// Nobody: there is no file, and the value is missing.
    Nowhere,
}

/// A configuration file that was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SourceFile {
    /// Its place in the order of reading.
    pub(super) index: usize,
    /// Its path as the administrator wrote it.
    pub(super) shown: PathBuf,
    /// The folder that its relative paths start from; absolute, without links.
    pub(super) folder: PathBuf,
}

impl Origin {
    /// The folder that a relative path from here starts from; `None` is the current one.
    pub(super) fn folder(&self) -> Option<&Path> {
        match self {
            Self::File { file, .. } => Some(&file.folder),
            _ => None,
        }
    }

    fn rank(&self) -> (u8, usize, usize) {
        match self {
            Self::File { file, line } => (0, file.index, *line),
            Self::Nowhere => (1, 0, 0),
            Self::Environment(_) => (2, 0, 0),
            Self::Flag(_) => (3, 0, 0),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, line } => {
                f.write_str(&printable(&file.shown.to_string_lossy()))?;
                if *line > 0 { write!(f, ":{line}") } else { Ok(()) }
            }
            Self::Environment(name) => f.write_str(&printable(name)),
            Self::Flag(flag) => f.write_str(flag),
            Self::Nowhere => f.write_str("the defaults"),
        }
    }
}

/// Collects problems and warnings while a configuration is read.
#[derive(Debug, Default)]
pub(super) struct Report {
    problems: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Problem>>,
}

impl Report {
    pub(super) fn refuse(&self, origin: &Origin, key: Option<&str>, message: &str) {
        self.problems.borrow_mut().push(Problem::new(origin, key, message));
    }

    pub(super) fn warn(&self, origin: &Origin, key: Option<&str>, message: &str) {
        self.warnings.borrow_mut().push(Problem::new(origin, key, message));
    }

    /// The problems as an error, whether there is one or not.
    pub(super) fn into_error(self) -> ConfigError {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|p| p.origin.rank());
        problems.dedup();
        ConfigError { problems, is_absent: false }
    }

    /// The only problem: nothing is configured.
    pub(super) fn absent(self, message: &str) -> ConfigError {
        self.refuse(&Origin::Nowhere, None, message);
        ConfigError { is_absent: true, ..self.into_error() }
    }

    /// The warnings, or the problems if there is one.
    pub(super) fn finish(self) -> Result<Vec<String>, ConfigError> {
        if !self.problems.borrow().is_empty() {
            return Err(self.into_error());
        }
        let mut warnings = self.warnings.into_inner();
        warnings.sort_by_key(|w| w.origin.rank());
        Ok(warnings.iter().map(ToString::to_string).collect())
    }
}

/// A value as an error shows it: in backticks, and not more of it than a line can take.
pub(super) fn seen(text: &str) -> String {
    const MAX: usize = 80;
    match text.char_indices().nth(MAX) {
        Some((end, _)) => format!("`{}…`", &text[..end]),
        None => format!("`{text}`"),
    }
}

/// Control characters and those that turn the direction of text escaped, so that a value can neither
/// move the cursor nor forge a line.
fn printable(text: &str) -> String {
    let is_shown = |c: char| {
        !c.is_control()
            && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        if is_shown(c) {
            out.push(c);
        } else {
            out.extend(c.escape_unicode());
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_cannot_forge_a_line() {
        assert_eq!(printable("a\nb\u{1b}[2J\u{202e}é"), "a\\u{a}b\\u{1b}[2J\\u{202e}é");
    }

    #[test]
    fn problems_stand_in_the_order_of_their_places() {
        let file = |index, line| Origin::File {
            file: Arc::new(SourceFile { index, shown: format!("{index}.toml").into(), folder: "/".into() }),
            line,
        };
        let report = Report::default();
        for origin in [
            Origin::Flag("--issuer"),
            Origin::Environment("W_A".into()),
            file(1, 1),
            file(0, 9),
            file(0, 0),
            file(0, 9),
        ] {
            report.refuse(&origin, Some("k"), "wrong");
        }
        let shown = "0.toml: key `k`: wrong\n0.toml:9: key `k`: wrong\n1.toml:1: key `k`: wrong\nW_A: wrong\n--issuer: wrong";
        assert_eq!(report.finish().unwrap_err().to_string(), shown);
    }

    #[test]
    fn long_values_are_cut() {
        assert_eq!(seen("ab"), "`ab`");
        assert_eq!(seen(&"é".repeat(81)), format!("`{}…`", "é".repeat(80)));
    }
}
