//! Reading the file and what it includes into one tree.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::document::{self, Node, Value};
use super::problem::{Origin, Report, SourceFile};
use crate::glob::{fits, is_pattern};

/// Largest configuration file, in bytes.
const MAX_SIZE: u64 = 1 << 20;
/// Most files that `include` may bring in.
const MAX_FILES: usize = 1000;

/// Reads a file with its includes, merged, and tells which files these were; `None` if that failed, which is
/// then reported.
pub(super) fn read(shown: &Path, report: &Report) -> (Option<Node>, Vec<PathBuf>) {
    let mut reading = Reading { report, seen: Vec::new() };
    let root = reading.whole(shown);
    (root, reading.seen)
}

/// The tree of a text that is in no file yet, without what it includes.
pub(super) fn parse(text: &str, shown: &Path, report: &Report) -> Option<Node> {
    let file = Arc::new(SourceFile { index: 0, shown: shown.to_owned(), folder: folder_of(shown) });
    document::parse(text, &file, report)
}

fn include_patterns(root: &Node) -> Vec<(String, Origin)> {
    let text = |node: &Node| match &node.value {
        Value::Text(text) => Some((text.clone(), node.origin.clone())),
        _ => None,
    };
    match root.child("include") {
        Some(Node { value: Value::List(items), .. }) => items.iter().filter_map(text).collect(),
        Some(node) => text(node).into_iter().collect(),
        None => Vec::new(),
    }
}

struct Reading<'a> {
    report: &'a Report,
    /// Canonical paths of the files read, so that no file counts twice.
    seen: Vec<PathBuf>,
}

impl Reading<'_> {
    fn whole(&mut self, shown: &Path) -> Option<Node> {
        let mut root = self.file(shown)?;
        let mut complete = true;
        for (pattern, origin) in include_patterns(&root) {
            for path in self.matches(&pattern, &origin) {
                match self.included(&path, &origin) {
                    Some(node) => root.merge(node, "", self.report),
                    None => complete = false,
                }
            }
        }
        complete.then_some(root)
    }

    fn file(&mut self, shown: &Path) -> Option<Node> {
        let file = Arc::new(SourceFile {
            index: self.seen.len(),
            shown: shown.to_owned(),
            folder: folder_of(shown),
        });
        self.seen.push(fs::canonicalize(shown).unwrap_or_else(|_| shown.to_owned()));
        let whole = Origin::File { file: Arc::clone(&file), line: 0 };
        let bytes = match read_bounded(shown) {
            Ok(bytes) => bytes,
            Err(error) => {
                self.report.refuse(&whole, None, &format!("cannot be read: {}", explain(&error)));
                return None;
            }
        };
        match std::str::from_utf8(&bytes) {
            Ok(text) => document::parse(text, &file, self.report),
            Err(error) => {
                let line = bytes[..error.valid_up_to()].iter().filter(|&&b| b == b'\n').count() + 1;
                let at = Origin::File { file, line };
                self.report.refuse(&at, None, "not UTF-8 text; save the file in that encoding");
                None
            }
        }
    }

    fn included(&mut self, shown: &Path, from: &Origin) -> Option<Node> {
        if fs::canonicalize(shown).is_ok_and(|path| self.seen.contains(&path)) {
            return Some(Node::empty_table(Origin::Nowhere));
        }
        if !shown.exists() {
            let message = format!("`{}` does not exist; create it, or take it out", shown.display());
            self.report.refuse(from, Some("include"), &message);
            return None;
        }
        if self.seen.len() > MAX_FILES {
            let message = format!("matches more than {MAX_FILES} files; write fewer, larger ones");
            self.report.refuse(from, Some("include"), &message);
            return None;
        }
        let mut node = self.file(shown)?;
        if let Value::Table(entries) = &mut node.value
            && let Some(nested) = entries.remove("include")
        {
            let message = "an included file cannot include others; name them all in the first file";
            self.report.refuse(&nested.origin, Some("include"), message);
        }
        Some(node)
    }

    /// The files that a pattern names, in the order of their names, as paths to show.
    fn matches(&self, pattern: &str, origin: &Origin) -> Vec<PathBuf> {
        let refuse = |message: &str| self.report.refuse(origin, Some("include"), message);
        let path = Path::new(pattern);
        let Origin::File { file, .. } = origin else { return Vec::new() };
        let from = file.shown.parent().unwrap_or(Path::new(""));
        let Some(name) = path.file_name().and_then(|name| name.to_str()).filter(|_| !pattern.contains('\0'))
        else {
            refuse(&format!("`{pattern}` names no file; write a pattern such as `conf.d/*.toml`"));
            return Vec::new();
        };
        let folder = from.join(path.parent().unwrap_or(Path::new("")));
        if path.parent().is_some_and(|folder| is_pattern(&folder.to_string_lossy())) {
            refuse(&format!(
                "`{pattern}` has `*` or `?` in a folder's name; only the last part may have them"
            ));
            return Vec::new();
        }
        if !is_pattern(name) {
            return vec![folder.join(name)];
        }
        let listed = folder_entries(if folder.as_os_str().is_empty() { Path::new(".") } else { &folder });
        let mut names = match listed {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                refuse(&format!("the folder of `{pattern}` cannot be read: {}", explain(&error)));
                return Vec::new();
            }
        };
        names.retain(|found| fits(name, found));
        names.sort();
        if names.is_empty() {
            self.report.warn(origin, Some("include"), &format!("`{pattern}` matches no file"));
        }
        names.into_iter().map(|name| folder.join(name)).collect()
    }
}

fn folder_entries(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let is_folder = fs::metadata(entry.path()).is_ok_and(|m| m.is_dir());
        if let (false, Ok(name)) = (is_folder, entry.file_name().into_string()) {
            names.push(name);
        }
    }
    Ok(names)
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_SIZE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_SIZE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 1 MiB"));
    }
    Ok(bytes)
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "it does not exist; create it (`wicketgate config example` prints one) or name another".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "this user may not read it; change its mode or its group".to_owned()
        }
        io::ErrorKind::IsADirectory => "it is a folder; name a file in it".to_owned(),
        io::ErrorKind::FileTooLarge => "it is larger than 1 MiB; split it with `include`".to_owned(),
        _ => error.to_string(),
    }
}

/// The folder a file stands in, absolute and without links, so that `..` in a path below it means what
/// it looks like.
fn folder_of(file: &Path) -> PathBuf {
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    fs::canonicalize(folder).or_else(|_| std::path::absolute(folder)).unwrap_or_else(|_| folder.to_owned())
}

/// A path from the configuration, made absolute.
pub(super) fn absolute(text: &str, origin: &Origin) -> Result<PathBuf, String> {
    if text.is_empty() {
        return Err("a path is empty; write one, or remove the key".to_owned());
    }
    if text.contains('\0') {
        return Err("a path has a zero byte in it; remove it".to_owned());
    }
    let path = Path::new(text);
    let mut out = match (path.is_absolute(), origin.folder()) {
        (true, _) => PathBuf::new(),
        (false, Some(folder)) => folder.to_owned(),
        (false, None) => std::env::current_dir().map_err(|e| {
            format!("`{text}` is relative, and the current folder is unknown ({e}); write it from `/`")
        })?,
    };
    // A `..` can be resolved without looking only directly below the root or the canonical folder.
    let mut canonical = true;
    for part in path.components() {
        match part {
            Component::ParentDir if canonical => {
                out.pop();
            }
            Component::CurDir => {}
            part => {
                canonical &= part == Component::RootDir;
                out.push(part);
            }
        }
    }
    Ok(out)
}

/// Folders that hold much else: of a file in one of them, the file alone is needed.
const COMMON: [&str; 11] =
    ["/", "/dev", "/etc", "/home", "/opt", "/root", "/run", "/srv", "/tmp", "/usr", "/var"];

/// Whether much else is in a folder than what a program of ours has there.
pub(crate) fn is_common(folder: &Path) -> bool {
    let is = |common: &[&str]| common.iter().any(|common| folder == Path::new(common));
    // What is directly under these is somebody's home, or many programs' own.
    let is_in = |common: &[&str]| {
        folder.parent().is_some_and(|parent| common.iter().any(|common| parent == Path::new(common)))
    };
    is(&COMMON)
        || is(&["/etc/ssl", "/etc/pki", "/etc/ssl/certs"])
        || is_in(&["/home", "/run/user", "/var", "/usr"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_start_from_the_folder_of_their_file() {
        let file = SourceFile { index: 0, shown: "x/y.toml".into(), folder: "/etc/gate".into() };
        let here = Origin::File { file: Arc::new(file), line: 1 };
        for (text, path) in [
            ("/a/b", "/a/b"),
            ("//a/./b", "/a/b"),
            ("a", "/etc/gate/a"),
            ("./a", "/etc/gate/a"),
            ("../a", "/etc/a"),
            ("../../../a", "/a"),
            ("/../a", "/a"),
            ("/a/..", "/a/.."),
            ("a/../b", "/etc/gate/a/../b"),
        ] {
            assert_eq!(absolute(text, &here).as_deref(), Ok(Path::new(path)), "{text}");
        }
        let from_flag = absolute("a", &Origin::Flag("--state-dir")).unwrap();
        assert_eq!(from_flag, std::env::current_dir().unwrap().join("a"));
        assert!(absolute("", &here).is_err() && absolute("a\0b", &here).is_err());
    }
}
