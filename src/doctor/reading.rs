//! Following what files include, within bounds: how deep, how many, how much; a circle is noticed. Pure:
//! who has the files is an argument.

use std::cell::Cell;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use super::glob;
use super::picture::{Place, Trouble, TroubleKind};
use crate::words::quote::quoted;

/// Who has the files.
pub trait Files {
    /// A file's text; what is not UTF-8 in it is replaced.
    ///
    /// # Errors
    /// It is not there, or not to be read.
    fn read(&self, path: &str) -> Result<String, Absence>;

    /// What a folder has, in the order of the names.
    ///
    /// # Errors
    /// It is not there, or not to be read.
    fn list(&self, folder: &str) -> Result<Vec<Entry>, Absence>;
}

/// A name in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name.
    pub name: String,
    /// It is a folder, or a link to one.
    pub is_folder: bool,
}

/// Why a file or a folder could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Absence {
    /// There is nothing of that name.
    Missing,
    /// A link on the way leads to where nothing is.
    Dangling {
        /// The link.
        link: String,
        /// Where it leads.
        to: String,
    },
    /// This user may not.
    Denied,
    /// A folder stands where a file was looked for.
    IsFolder,
    /// A device, a pipe, a socket.
    NotAFile,
    /// More than would be read.
    TooLarge,
    /// So much was read before that nothing more is.
    TooMany,
    /// Anything else, in the system's words.
    Failed(String),
}

impl fmt::Display for Absence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("does not exist"),
            Self::Dangling { link, to } => {
                write!(f, "cannot be reached: the link {link} leads to {to}, which does not exist")
            }
            Self::Denied => f.write_str("may not be read by this user"),
            Self::IsFolder => f.write_str("is a folder"),
            Self::NotAFile => f.write_str("is neither a file nor a folder"),
            Self::TooMany => f.write_str("was left out: there are too many files and folders"),
            Self::TooLarge => f.write_str("is larger than what a configuration has"),
            Self::Failed(words) => write!(f, "cannot be read: {}", quoted(words, 200)),
        }
    }
}

impl Absence {
    pub(super) fn kind(&self) -> TroubleKind {
        match self {
            Self::Denied => TroubleKind::Unreadable,
            Self::TooMany => TroubleKind::TooMuch,
            _ => TroubleKind::Missing,
        }
    }
}

/// Most files of one server, counting each time that one is read.
const MOST_FILES: usize = 50_000;
/// Most text of one server, in bytes.
const MOST_BYTES: usize = 256 << 20;
/// Most folders that are looked into for one server, counting each time.
const MOST_FOLDERS: usize = 10_000;
/// Most names in them.
const MOST_ENTRIES: usize = 200_000;
/// How deep files may include each other.
const DEEPEST: usize = 24;
/// Most troubles that are kept.
const MOST_TROUBLES: usize = 200;

/// What keys and certificates begin with, and no configuration.
const PAPER: &str = "-----BEGIN";

/// Files of which no more than so much is read in all.
struct Bounded<'a> {
    files: &'a dyn Files,
    reads: Cell<usize>,
    bytes: Cell<usize>,
    folders: Cell<usize>,
    entries: Cell<usize>,
}

impl Bounded<'_> {
    fn is_spent(&self) -> bool {
        self.reads.get() >= MOST_FILES
            || self.bytes.get() >= MOST_BYTES
            || self.folders.get() >= MOST_FOLDERS
            || self.entries.get() >= MOST_ENTRIES
    }
}

impl Files for Bounded<'_> {
    fn read(&self, path: &str) -> Result<String, Absence> {
        if self.is_spent() {
            return Err(Absence::TooMany);
        }
        let text = self.files.read(path)?;
        self.reads.set(self.reads.get() + 1);
        self.bytes.set(self.bytes.get() + text.len());
        Ok(text)
    }

    fn list(&self, folder: &str) -> Result<Vec<Entry>, Absence> {
        if self.is_spent() {
            return Err(Absence::TooMany);
        }
        let entries = self.files.list(folder)?;
        self.folders.set(self.folders.get() + 1);
        self.entries.set(self.entries.get() + entries.len());
        Ok(entries)
    }
}

/// Reads one server's files.
pub(super) struct Reading<'a> {
    files: Bounded<'a>,
    /// The files that are being read, outermost first.
    open: Vec<Arc<str>>,
    known: HashSet<Arc<str>>,
    told: HashSet<String>,
    pub(super) read: Vec<String>,
    pub(super) troubles: Vec<Trouble>,
}

impl<'a> Reading<'a> {
    pub(super) fn new(files: &'a dyn Files) -> Self {
        let files = Bounded {
            files,
            reads: Cell::new(0),
            bytes: Cell::new(0),
            folders: Cell::new(0),
            entries: Cell::new(0),
        };
        Self {
            files,
            open: Vec::new(),
            known: HashSet::new(),
            told: HashSet::new(),
            read: Vec::new(),
            troubles: Vec::new(),
        }
    }

    /// The text of the first file; `None` where there is none, which is a trouble unless it is missing.
    pub(super) fn begin(&mut self, path: &str) -> Option<(Arc<str>, String)> {
        let file: Arc<str> = path.into();
        match self.files.read(path) {
            Err(Absence::Missing) => None,
            result => self.opened(&file, result, &Place::new(&file, 0)),
        }
    }

    /// The text of a file that another names at `from`. [`Self::leave`] must follow where it is told.
    pub(super) fn enter(&mut self, path: &str, from: &Place) -> Option<(Arc<str>, String)> {
        if self.open.iter().any(|open| &**open == path) {
            self.trouble(from, TroubleKind::Endless, format!("{path} includes itself"));
            return None;
        }
        if self.open.len() >= DEEPEST {
            self.trouble(
                from,
                TroubleKind::Endless,
                format!("files include each other {DEEPEST} times deep"),
            );
            return None;
        }
        let file: Arc<str> = path.into();
        let result = self.files.read(path);
        self.opened(&file, result, from)
    }

    fn opened(
        &mut self,
        file: &Arc<str>,
        result: Result<String, Absence>,
        from: &Place,
    ) -> Option<(Arc<str>, String)> {
        match result {
            // Whatever is told of a configuration may quote it.
            Ok(text) if text.contains(PAPER) => {
                let seen = format!("{file} holds a key or a certificate, no configuration");
                self.trouble(from, TroubleKind::Broken, seen);
                None
            }
            Ok(text) => {
                if self.known.insert(file.clone()) {
                    self.read.push(file.to_string());
                }
                self.open.push(file.clone());
                Some((file.clone(), text))
            }
            Err(Absence::TooMany) => {
                self.too_much(from);
                None
            }
            Err(absence) => {
                self.trouble(from, absence.kind(), format!("{file} {absence}"));
                None
            }
        }
    }

    fn too_much(&mut self, from: &Place) {
        let seen = "there are too many files and folders to read them all".to_owned();
        if !self.troubles.iter().any(|trouble| trouble.seen == seen) {
            self.trouble(from, TroubleKind::TooMuch, seen);
        }
    }

    /// Whether nothing more will be read.
    pub(super) fn is_spent(&self) -> bool {
        self.files.is_spent()
    }

    pub(super) fn leave(&mut self) {
        self.open.pop();
    }

    /// The files that an absolute pattern names, in order. Where it `must` match and does not, that is a
    /// trouble.
    pub(super) fn matches(&mut self, pattern: &str, from: &Place, must: bool) -> Vec<String> {
        if !crate::glob::is_pattern(pattern) {
            let is_there = !matches!(self.files.list(pattern), Err(Absence::Missing));
            return if must || is_there { vec![pattern.to_owned()] } else { Vec::new() };
        }
        match glob::expand(pattern, &self.files) {
            Ok(found) => {
                if found.is_empty() && must {
                    self.trouble(from, TroubleKind::Missing, format!("{pattern} matches no file"));
                }
                found
            }
            Err((_, Absence::TooMany)) => {
                self.too_much(from);
                Vec::new()
            }
            Err((folder, absence)) => {
                self.trouble(from, absence.kind(), format!("{folder} {absence}"));
                Vec::new()
            }
        }
    }

    /// What a folder has; nothing where it is a file.
    pub(super) fn folder(&mut self, path: &str, from: &Place) -> Option<Vec<Entry>> {
        match self.files.list(path) {
            Ok(entries) => Some(entries),
            Err(Absence::Denied) => {
                self.trouble(from, TroubleKind::Unreadable, format!("{path} {}", Absence::Denied));
                None
            }
            Err(Absence::TooMany) => {
                self.too_much(from);
                None
            }
            Err(_) => None,
        }
    }

    /// Whether a file can be read.
    pub(super) fn is_file(&self, path: &str) -> bool {
        !matches!(
            self.files.read(path),
            Err(Absence::Missing | Absence::Dangling { .. } | Absence::IsFolder | Absence::TooMany)
        )
    }

    pub(super) fn trouble(&mut self, place: &Place, kind: TroubleKind, seen: String) {
        if self.troubles.len() >= MOST_TROUBLES || !self.told.insert(format!("{place} {seen}")) {
            return;
        }
        let trouble = Trouble { place: place.clone(), kind, seen: quoted(&seen, 600) };
        if !self.troubles.contains(&trouble) {
            self.troubles.push(trouble);
        }
    }
}

/// A path from a folder, unless it is absolute.
pub(super) fn absolute(folder: &str, path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("{}/{path}", folder.trim_end_matches('/')) }
}

/// The folder that a file is in.
pub(super) fn folder_of(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some(("", _)) | None => "/",
        Some((folder, _)) => folder,
    }
}

/// Files in memory, for tests of the readers.
#[cfg(test)]
pub(super) mod memory {
    use std::collections::{BTreeMap, BTreeSet};

    use super::{Absence, Entry, Files};

    pub(crate) struct Memory(pub(crate) BTreeMap<String, String>);

    impl Memory {
        pub(crate) fn new(files: &[(&str, &str)]) -> Self {
            Self(files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect())
        }

        fn is_folder(&self, path: &str) -> bool {
            let below = format!("{}/", path.trim_end_matches('/'));
            self.0.keys().any(|key| key.starts_with(&below))
        }
    }

    impl Files for Memory {
        fn read(&self, path: &str) -> Result<String, Absence> {
            match self.0.get(path) {
                Some(text) if text == "DENIED" => Err(Absence::Denied),
                Some(text) => Ok(text.clone()),
                None if self.is_folder(path) => Err(Absence::IsFolder),
                None => Err(Absence::Missing),
            }
        }

        fn list(&self, folder: &str) -> Result<Vec<Entry>, Absence> {
            let below = format!("{}/", folder.trim_end_matches('/'));
            let names: BTreeSet<_> = self
                .0
                .keys()
                .filter_map(|key| key.strip_prefix(&below)?.split('/').next().map(str::to_owned))
                .collect();
            if names.is_empty() {
                let is_file = self.0.contains_key(folder);
                return Err(if is_file { Absence::NotAFile } else { Absence::Missing });
            }
            let is_folder = |name: &str| self.is_folder(&format!("{below}{name}"));
            Ok(names.into_iter().map(|name| Entry { is_folder: is_folder(&name), name }).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::memory::Memory;
    use super::*;

    #[test]
    fn circles_and_what_is_missing_are_told_once() {
        let files = Memory::new(&[("/a", "x"), ("/b", "DENIED")]);
        let mut reading = Reading::new(&files);
        let (file, _) = reading.begin("/a").unwrap();
        let here = Place::new(&file, 3);
        assert!(reading.enter("/a", &here).is_none());
        assert!(reading.enter("/a", &here).is_none());
        assert!(reading.enter("/b", &here).is_none());
        assert!(reading.enter("/c", &here).is_none());
        let told: Vec<_> = reading.troubles.iter().map(|t| format!("{} {}", t.place, t.seen)).collect();
        assert_eq!(
            told,
            ["/a:3 /a includes itself", "/a:3 /b may not be read by this user", "/a:3 /c does not exist"]
        );
    }

    #[test]
    fn a_key_is_named_and_not_read() {
        let files = Memory::new(&[("/a", "x"), ("/k", "-----BEGIN PRIVATE KEY-----\nMIGHAgEA\n")]);
        let mut reading = Reading::new(&files);
        let (file, _) = reading.begin("/a").unwrap();
        assert!(reading.enter("/k", &Place::new(&file, 1)).is_none());
        assert_eq!(reading.troubles[0].seen, "/k holds a key or a certificate, no configuration");
        assert!(Reading::new(&files).begin("/k").is_none());
    }

    /// Every folder has as many folders again.
    struct Endless(usize);

    impl Files for Endless {
        fn read(&self, _: &str) -> Result<String, Absence> {
            Err(Absence::IsFolder)
        }

        fn list(&self, _: &str) -> Result<Vec<Entry>, Absence> {
            Ok((0..self.0).map(|i| Entry { name: format!("{i:04}"), is_folder: true }).collect())
        }
    }

    #[test]
    fn folders_without_end_are_given_up() {
        let here = Place::new(&"/a".into(), 1);
        for (width, pattern) in [(3000, "/d/*/*/*/x.conf"), (2, &"/*".repeat(60)), (1000, "/*/*/*/*")] {
            let files = Endless(width);
            let mut reading = Reading::new(&files);
            assert_eq!(reading.matches(pattern, &here, true), [""; 0]);
            let told: Vec<_> = reading.troubles.iter().map(|t| (t.kind, t.seen.as_str())).collect();
            let seen = "there are too many files and folders to read them all";
            assert_eq!(told, [(TroubleKind::TooMuch, seen)]);
        }
    }

    #[test]
    fn paths() {
        assert_eq!(absolute("/etc/nginx/", "a/b"), "/etc/nginx/a/b");
        assert_eq!(absolute("/etc/nginx", "/a"), "/a");
        assert_eq!((folder_of("/etc/a"), folder_of("/a"), folder_of("a")), ("/etc", "/", "/"));
    }
}
