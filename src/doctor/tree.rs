//! The files as they are, below a folder that stands for `/`: links are followed as the server would, and
//! never out of it; nothing but plain files is opened, and not too much of them.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use zeroize::Zeroizing;

use super::papers::{self, PaperFile};
use super::reading::{Absence, Entry, Files};

/// Largest configuration file, in bytes.
const LARGEST_TEXT: u64 = 8 << 20;
/// Largest certificate or key file, in bytes.
const LARGEST_PAPER: u64 = 1 << 20;
/// Most names that are read of a folder.
const MOST_ENTRIES: usize = 10_000;
/// Most links on one way, as the kernel has it.
const MOST_LINKS: usize = 40;

pub(super) struct Tree {
    root: PathBuf,
}

/// A path without links, and how it came to that.
struct Resolved {
    real: PathBuf,
    hops: Vec<String>,
    /// Every folder on the way can be entered by everybody.
    is_open: bool,
}

impl Tree {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Certificates and key in a file.
    pub(super) fn paper(&self, path: &str, labels: bool) -> PaperFile {
        let resolved = match self.resolve(path) {
            Ok(resolved) => resolved,
            Err(absence) => {
                let hops = vec![path.to_owned()];
                return PaperFile { hops, content: Err(absence), is_exposed: false, label: None };
            }
        };
        let mode = fs::metadata(&resolved.real).map(|meta| meta.mode()).unwrap_or_default();
        let content = open(&resolved.real, LARGEST_PAPER).map(|bytes| papers::read(&bytes));
        PaperFile {
            content,
            is_exposed: resolved.is_open && mode & 0o004 != 0,
            label: if labels { label(&resolved.real) } else { None },
            hops: resolved.hops,
        }
    }

    fn resolve(&self, path: &str) -> Result<Resolved, Absence> {
        let mut pending: VecDeque<String> = parts(path).collect();
        let mut done: Vec<String> = Vec::new();
        let mut hops = vec![path.to_owned()];
        let mut followed: Option<(String, String)> = None;
        let mut is_open = true;
        while let Some(part) = pending.pop_front() {
            match part.as_str() {
                "." => continue,
                ".." => {
                    done.pop();
                    continue;
                }
                _ => done.push(part),
            }
            let here = self.below(&done);
            let meta = fs::symlink_metadata(&here).map_err(|e| absence(&e, followed.as_ref()))?;
            if meta.is_symlink() {
                if hops.len() > MOST_LINKS {
                    return Err(Absence::Failed("its links lead in a circle".to_owned()));
                }
                let target = fs::read_link(&here).map_err(|e| absence(&e, None))?;
                let target = target.to_string_lossy().into_owned();
                let link = joined(&done);
                done.pop();
                if target.starts_with('/') {
                    done.clear();
                }
                for part in parts(&target).collect::<Vec<_>>().into_iter().rev() {
                    pending.push_front(part);
                }
                hops.push(normal(&done, &pending));
                followed = Some((link, target));
            } else if meta.is_dir() && !pending.is_empty() {
                is_open &= meta.mode() & 0o001 != 0;
            }
        }
        Ok(Resolved { real: self.below(&done), hops, is_open })
    }

    fn below(&self, parts: &[String]) -> PathBuf {
        parts.iter().fold(self.root.clone(), |path, part| path.join(part))
    }
}

impl Files for Tree {
    fn read(&self, path: &str) -> Result<String, Absence> {
        let resolved = self.resolve(path)?;
        let bytes = open(&resolved.real, LARGEST_TEXT)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn list(&self, folder: &str) -> Result<Vec<Entry>, Absence> {
        let resolved = self.resolve(folder)?;
        let entries = match fs::read_dir(&resolved.real) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotADirectory => return Err(Absence::NotAFile),
            Err(e) => return Err(absence(&e, None)),
        };
        let folder = folder.trim_end_matches('/');
        let mut found: Vec<_> = entries
            .flatten()
            .take(MOST_ENTRIES)
            .map(|entry| {
                let name = entry.file_name().to_string_lossy().into_owned();
                let target = self.resolve(&format!("{folder}/{name}"));
                let is_folder = target.is_ok_and(|target| target.real.is_dir());
                Entry { name, is_folder }
            })
            .collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }
}

fn parts(path: &str) -> impl Iterator<Item = String> {
    path.split('/').filter(|part| !part.is_empty()).map(str::to_owned)
}

fn joined(parts: &[String]) -> String {
    format!("/{}", parts.join("/"))
}

/// The path that is ahead, without `..`.
fn normal(done: &[String], pending: &VecDeque<String>) -> String {
    let mut parts: Vec<&String> = done.iter().collect();
    for part in pending {
        match part.as_str() {
            "." => {}
            ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    format!("/{}", parts.iter().map(|part| part.as_str()).collect::<Vec<_>>().join("/"))
}

fn absence(error: &io::Error, followed: Option<&(String, String)>) -> Absence {
    match (error.kind(), followed) {
        (io::ErrorKind::NotFound | io::ErrorKind::NotADirectory, Some((link, to))) => {
            Absence::Dangling { link: link.clone(), to: to.clone() }
        }
        (io::ErrorKind::NotFound | io::ErrorKind::NotADirectory, None) => Absence::Missing,
        (io::ErrorKind::PermissionDenied, _) => Absence::Denied,
        _ => Absence::Failed(error.to_string()),
    }
}

/// A plain file's bytes, at most so many. Whoever waits at a pipe is not waited for.
fn open(path: &Path, largest: u64) -> Result<Zeroizing<Vec<u8>>, Absence> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let failed = |e: io::Error| absence(&e, None);
    let meta = fs::metadata(path).map_err(failed)?;
    if meta.is_dir() {
        return Err(Absence::IsFolder);
    }
    if !meta.is_file() {
        return Err(Absence::NotAFile);
    }
    let file = File::from(rustix::fs::open(path, flags, Mode::empty()).map_err(|e| failed(e.into()))?);
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(largest + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > largest { Err(Absence::TooLarge) } else { Ok(bytes) }
}

/// The type of a file's label: `cert_t` of `system_u:object_r:cert_t:s0`.
fn label(path: &Path) -> Option<String> {
    let mut buffer = [0; 512];
    let length = rustix::fs::getxattr(path, "security.selinux", &mut buffer[..]).ok()?;
    let text = std::str::from_utf8(&buffer[..length]).ok()?;
    Some(text.trim_end_matches('\0').split(':').nth(2)?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_stay_below_the_root() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir_all(root.join("etc/x")).unwrap();
        fs::write(root.join("etc/x/file"), "here").unwrap();
        symlink("/etc/x/file", root.join("etc/absolute")).unwrap();
        symlink("../../../../etc/x", root.join("etc/up")).unwrap();
        symlink("/nowhere", root.join("etc/dangling")).unwrap();
        symlink("/etc/round", root.join("etc/round")).unwrap();
        let tree = Tree::new(root);
        assert_eq!(tree.read("/etc/absolute").as_deref(), Ok("here"));
        assert_eq!(tree.read("/etc/up/file").as_deref(), Ok("here"));
        let dangling = Absence::Dangling { link: "/etc/dangling".to_owned(), to: "/nowhere".to_owned() };
        assert_eq!(tree.read("/etc/dangling"), Err(dangling));
        assert!(matches!(tree.read("/etc/round"), Err(Absence::Failed(_))));
        assert_eq!(tree.read("/etc/x"), Err(Absence::IsFolder));
        assert_eq!(tree.read("/etc/x/file/y"), Err(Absence::Missing));
        assert_eq!(tree.resolve("/etc/up/file").unwrap().hops, ["/etc/up/file", "/etc/x/file"]);
        let names: Vec<_> = tree.list("/etc").unwrap().into_iter().map(|e| (e.name, e.is_folder)).collect();
        let expected =
            [("absolute", false), ("dangling", false), ("round", false), ("up", true), ("x", true)];
        assert_eq!(names, expected.map(|(name, is_folder)| (name.to_owned(), is_folder)));
    }

    #[test]
    fn pipes_and_floods_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let mode = Mode::from_raw_mode(0o600);
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, folder.path().join("pipe"), kind, mode, 0).unwrap();
        File::create(folder.path().join("large")).unwrap().set_len(LARGEST_TEXT + 1).unwrap();
        let tree = Tree::new(folder.path());
        assert_eq!(tree.read("/pipe"), Err(Absence::NotAFile));
        assert_eq!(tree.read("/large"), Err(Absence::TooLarge));
    }
}
