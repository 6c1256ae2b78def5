//! Reading certbot's folder: nothing in it is changed, links are followed within it alone, and what cannot
//! be read is a sentence in the place of the text.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use zeroize::Zeroizing;

use super::conf::Conf;
use super::renewal;
use crate::words::printable;

/// Largest file, bytes.
const MAX_FILE: u64 = 1 << 20;
/// Most entries of a folder that are looked at.
const MAX_ENTRIES: usize = 20_000;
/// Most folders below `accounts` that are looked at, and how deep they go.
const MAX_FOLDERS: usize = 2_000;
const MAX_DEPTH: usize = 8;
/// Versions of a lineage that are looked at, the newest ones.
const VERSIONS: usize = 3;

/// Folders that certbot keeps to root.
const PRIVATE: [&str; 3] = ["accounts", "archive", "live"];

const DENIED: &str = "this user may not read it; certbot's folder belongs to root: run this as root";

/// The files of a version.
const KINDS: [&str; 4] = ["privkey", "fullchain", "cert", "chain"];

/// Why there is nothing to import.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The folder itself.
    #[error("cannot read {}: {reason}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// It holds something else.
    #[error(
        "{} holds neither `renewal` nor `accounts`: it is not certbot's folder; name the one that `certbot certificates` shows paths in", .0.display()
    )]
    NotCertbots(PathBuf),
}

/// A text, or a sentence about why there is none.
pub(super) type Found<T> = Result<T, String>;

/// What was found.
#[derive(Debug, Default)]
pub struct Tree {
    /// The folder, as it was named.
    pub(super) shown: PathBuf,
    /// One for each file in `renewal`.
    pub(super) lineages: Vec<FoundLineage>,
    /// One for each account's folder.
    pub(super) accounts: Vec<FoundAccount>,
    /// Programs in `renewal-hooks`, by their path there.
    pub(super) hooks: Vec<String>,
    /// What `cli.ini` sets.
    pub(super) options: Vec<String>,
    /// Folders in `live` that no renewal file knows.
    pub(super) orphans: Vec<String>,
    /// What could not be read besides.
    pub(super) troubles: Vec<String>,
}

/// A lineage's files.
#[derive(Debug)]
pub(super) struct FoundLineage {
    /// The renewal file's name.
    pub(super) name: String,
    /// Its text.
    pub(super) file: Found<String>,
    /// Its versions, the newest first; what `live` leads to comes last.
    pub(super) versions: Vec<FoundVersion>,
    /// Links that lead nowhere, folders that cannot be read.
    pub(super) troubles: Vec<String>,
}

/// One version.
pub(super) struct FoundVersion {
    /// Where it was found.
    pub(super) place: String,
    pub(super) chain: Found<String>,
    /// The certificate alone, for its names.
    pub(super) leaf: Option<String>,
    pub(super) key: Found<Zeroizing<String>>,
}

/// An account's files.
pub(super) struct FoundAccount {
    /// The CA's host and path.
    pub(super) server: String,
    /// Its folder's name.
    pub(super) id: String,
    pub(super) key: Found<Zeroizing<String>>,
    pub(super) registration: Found<String>,
    pub(super) meta: Option<String>,
}

impl std::fmt::Debug for FoundVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FoundVersion").field("place", &self.place).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for FoundAccount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FoundAccount").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Tree {
    /// Reads certbot's folder.
    ///
    /// # Errors
    /// It cannot be read at all, or is not certbot's.
    pub fn read(dir: &Path) -> Result<Self, TreeError> {
        let failed = |e: &io::Error| TreeError::Folder { path: dir.to_owned(), reason: explain(e) };
        let root = fs::canonicalize(dir).map_err(|e| failed(&e))?;
        fs::read_dir(&root).map_err(|e| failed(&e))?;
        let reader = Reader { root };
        let mut tree = Self { shown: dir.to_owned(), ..Self::default() };
        let is_there = |name: &str| reader.root.join(name).symlink_metadata().is_ok();
        if !is_there("renewal") && !is_there("accounts") {
            return Err(TreeError::NotCertbots(dir.to_owned()));
        }
        for name in PRIVATE {
            let listed = fs::read_dir(reader.root.join(name));
            if listed.is_err_and(|e| e.kind() == io::ErrorKind::PermissionDenied) {
                return Err(TreeError::Folder { path: dir.join(name), reason: DENIED.to_owned() });
            }
        }
        let mut known = Vec::new();
        for file in reader.names("renewal", &mut tree.troubles) {
            let Some(name) = file.strip_suffix(".conf").filter(|name| !name.is_empty()) else { continue };
            let (lineage, folder) = reader.lineage(name);
            known.push(folder);
            tree.lineages.push(lineage);
        }
        for folder in reader.names("live", &mut tree.troubles) {
            if !known.contains(&folder) && reader.root.join("live").join(&folder).is_dir() {
                tree.orphans.push(folder);
            }
        }
        reader.accounts(&mut tree);
        for kind in ["pre", "deploy", "post"] {
            let folder = format!("renewal-hooks/{kind}");
            let hooks = reader.names(&folder, &mut tree.troubles);
            tree.hooks.extend(hooks.into_iter().map(|hook| format!("{folder}/{hook}")));
        }
        match reader.optional("cli.ini") {
            Ok(text) => tree.options = options(&text.unwrap_or_default()),
            Err(trouble) => tree.troubles.push(trouble),
        }
        Ok(tree)
    }
}

/// What `cli.ini` sets, without what Debian puts there.
fn options(text: &str) -> Vec<String> {
    let lines =
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', ';', '[']));
    let is_usual =
        |line: &&str| ["max-log-backups", "preconfigured-renewal"].iter().any(|key| line.starts_with(key));
    lines
        .filter(|line| !is_usual(line))
        .map(|line| match line.split_once('=') {
            Some((key, value)) => renewal::shown(key.trim(), value.trim()),
            // What has no `=` is a word that may be anything.
            None if line.len() < 40 && line.bytes().all(|b| b.is_ascii_lowercase() || b == b'-') => {
                line.to_owned()
            }
            None => "a line without `=`".to_owned(),
        })
        .collect()
}

struct Reader {
    /// Without links.
    root: PathBuf,
}

impl Reader {
    /// The names in a folder, sorted; a folder that is not there has none.
    fn names(&self, folder: &str, troubles: &mut Vec<String>) -> Vec<String> {
        match self.list(folder) {
            Ok(names) => names,
            Err(trouble) => {
                troubles.push(trouble);
                Vec::new()
            }
        }
    }

    fn list(&self, folder: &str) -> Found<Vec<String>> {
        let Some(path) = self.resolve(folder)? else { return Ok(Vec::new()) };
        let failed = |e: &io::Error| format!("cannot list `{}`: {}", printable(folder, 200), explain(e));
        let mut names = Vec::new();
        for entry in fs::read_dir(path).map_err(|e| failed(&e))? {
            names.push(entry.map_err(|e| failed(&e))?.file_name().to_string_lossy().into_owned());
            if names.len() > MAX_ENTRIES {
                return Err(format!("`{folder}` has more than {MAX_ENTRIES} entries: it is not certbot's"));
            }
        }
        names.sort();
        Ok(names)
    }

    /// Where a path leads, links followed; `None` where there is nothing of that name.
    fn resolve(&self, path: &str) -> Found<Option<PathBuf>> {
        let (full, shown) = (self.root.join(path), printable(path, 200));
        match fs::canonicalize(&full) {
            Ok(real) if real.starts_with(&self.root) => Ok(Some(real)),
            Ok(real) => Err(format!(
                "`{shown}` leads out of the folder, to {}, and is not followed there",
                printable(&real.to_string_lossy(), 200)
            )),
            Err(e) if e.kind() == io::ErrorKind::NotFound => match fs::read_link(&full) {
                Ok(target) => Err(format!(
                    "`{shown}` leads to {}, which is missing",
                    printable(&target.to_string_lossy(), 200)
                )),
                Err(_) => Ok(None),
            },
            Err(e) => Err(format!("cannot read `{shown}`: {}", explain(&e))),
        }
    }

    /// The text of a file that may be missing.
    fn optional(&self, path: &str) -> Found<Option<String>> {
        let Some(real) = self.resolve(path)? else { return Ok(None) };
        read(&real).map(Some).map_err(|reason| format!("cannot read `{}`: {reason}", printable(path, 200)))
    }

    fn required(&self, path: &str) -> Found<String> {
        self.optional(path)?.ok_or_else(|| format!("`{}` is missing", printable(path, 200)))
    }

    /// A lineage, and its folder's name in `live`.
    fn lineage(&self, name: &str) -> (FoundLineage, String) {
        let file = self.required(&format!("renewal/{name}.conf"));
        let conf = file.as_ref().map(|text| Conf::parse(text)).unwrap_or_default();
        let folder = renewal::live_folder(&conf).unwrap_or_else(|| name.to_owned());
        let archive = renewal::archive_folder(&conf).unwrap_or_else(|| folder.clone());
        let archive = format!("archive/{archive}");
        let mut troubles = Vec::new();
        let names = self.names(&archive, &mut troubles);
        let mut numbers: Vec<u32> = names
            .iter()
            .filter_map(|name| KINDS.iter().find_map(|kind| name.strip_prefix(kind)))
            .filter_map(|rest| rest.strip_suffix(".pem")?.parse().ok())
            .collect();
        numbers.sort_unstable_by(|a, b| b.cmp(a));
        numbers.dedup();
        let mut versions: Vec<_> = numbers
            .into_iter()
            .take(VERSIONS)
            .map(|number| {
                self.version(format!("{archive}, version {number}"), |kind| {
                    format!("{archive}/{kind}{number}.pem")
                })
            })
            .collect();
        let live = format!("live/{folder}");
        let at_live = self.version(live.clone(), |kind| format!("{live}/{kind}.pem"));
        for trouble in [at_live.chain.as_ref().err(), at_live.key.as_ref().err()].into_iter().flatten() {
            troubles.push(trouble.clone());
        }
        if at_live.chain.is_ok() || at_live.leaf.is_some() || at_live.key.is_ok() {
            versions.push(at_live);
        }
        (FoundLineage { name: name.to_owned(), file, versions, troubles }, folder)
    }

    fn version(&self, place: String, path: impl Fn(&str) -> String) -> FoundVersion {
        let [key, full, leaf, rest] = KINDS.map(path);
        let leaf = self.optional(&leaf).ok().flatten();
        // Its two halves are as good, where they fit.
        let chain = self.required(&full).or_else(|trouble| match (&leaf, self.optional(&rest)) {
            (Some(leaf), Ok(Some(rest))) => Ok(format!("{leaf}\n{rest}")),
            _ => Err(trouble),
        });
        FoundVersion { place, chain, leaf, key: self.required(&key).map(Zeroizing::new) }
    }

    /// Every account: a folder with a key, at any depth, since the CA's path is in the way.
    fn accounts(&self, tree: &mut Tree) {
        let mut waiting = vec![("accounts".to_owned(), 0)];
        let mut looked = 0;
        while let Some((folder, depth)) = waiting.pop() {
            looked += 1;
            if looked > MAX_FOLDERS {
                tree.troubles
                    .push(format!("`accounts` has more than {MAX_FOLDERS} folders: the rest is not read"));
                return;
            }
            let names = self.names(&folder, &mut tree.troubles);
            let is_account =
                ["private_key.json", "regr.json"].iter().any(|file| names.iter().any(|n| n == file));
            let parts = folder.strip_prefix("accounts/").and_then(|rest| rest.rsplit_once('/'));
            if let (true, Some((server, id))) = (is_account, parts) {
                tree.accounts.push(FoundAccount {
                    server: server.to_owned(),
                    id: id.to_owned(),
                    key: self.required(&format!("{folder}/private_key.json")).map(Zeroizing::new),
                    registration: self.required(&format!("{folder}/regr.json")),
                    meta: self.optional(&format!("{folder}/meta.json")).ok().flatten(),
                });
                continue;
            }
            if depth < MAX_DEPTH {
                for name in names {
                    let inner = format!("{folder}/{name}");
                    match self.resolve(&inner) {
                        Ok(Some(path)) if path.is_dir() => waiting.push((inner, depth + 1)),
                        Ok(_) => {}
                        Err(trouble) => tree.troubles.push(trouble),
                    }
                }
            }
        }
        tree.accounts.sort_by(|a, b| (&a.server, &a.id).cmp(&(&b.server, &b.id)));
    }
}

/// The text of a regular file.
fn read(path: &Path) -> Result<String, String> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| explain(&e.into()))?;
    let file = File::from(file);
    if !file.metadata().map_err(|e| explain(&e))?.is_file() {
        return Err("it is no regular file".to_owned());
    }
    let mut text = String::new();
    match file.take(MAX_FILE + 1).read_to_string(&mut text) {
        Ok(length) if length as u64 > MAX_FILE => Err(format!("it is larger than {MAX_FILE} bytes")),
        Ok(0) => Err("it is empty".to_owned()),
        Ok(_) => Ok(text),
        Err(e) if e.kind() == io::ErrorKind::InvalidData => Err("it is no text".to_owned()),
        Err(e) => Err(explain(&e)),
    }
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such folder".to_owned(),
        io::ErrorKind::PermissionDenied => DENIED.to_owned(),
        io::ErrorKind::NotADirectory => "it is no folder".to_owned(),
        _ => printable(&error.to_string(), 200),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A folder with one lineage of two versions, and one account.
    fn folder() -> tempfile::TempDir {
        let holder = tempfile::tempdir().unwrap();
        let root = holder.path();
        write(root, "renewal/a.test.conf", "version = 2.1.0\n[renewalparams]\n");
        for number in [1, 2, 10] {
            write(root, &format!("archive/a.test/fullchain{number}.pem"), &format!("chain {number}"));
            write(root, &format!("archive/a.test/privkey{number}.pem"), &format!("key {number}"));
        }
        fs::create_dir_all(root.join("live/a.test")).unwrap();
        for kind in ["fullchain", "privkey"] {
            symlink(
                format!("../../archive/a.test/{kind}2.pem"),
                root.join(format!("live/a.test/{kind}.pem")),
            )
            .unwrap();
        }
        write(root, "live/README", "for people");
        write(root, "accounts/ca.test/acme/dir/0123/private_key.json", "{}");
        write(root, "accounts/ca.test/acme/dir/0123/regr.json", "{}");
        holder
    }

    fn places(lineage: &FoundLineage) -> Vec<&str> {
        lineage.versions.iter().map(|version| version.place.as_str()).collect()
    }

    #[test]
    fn versions_newest_first_and_what_is_live() {
        let holder = folder();
        let tree = Tree::read(holder.path()).unwrap();
        assert_eq!((tree.troubles.len(), tree.orphans.len()), (0, 0));
        let [lineage] = &tree.lineages[..] else { panic!("{:?}", tree.lineages) };
        assert_eq!(
            places(lineage),
            [
                "archive/a.test, version 10",
                "archive/a.test, version 2",
                "archive/a.test, version 1",
                "live/a.test"
            ]
        );
        assert_eq!(lineage.versions[3].chain.as_deref(), Ok("chain 2"));
        assert_eq!(lineage.troubles, [""; 0]);
        let [account] = &tree.accounts[..] else { panic!("{:?}", tree.accounts) };
        assert_eq!((account.server.as_str(), account.id.as_str()), ("ca.test/acme/dir", "0123"));
    }

    #[test]
    fn what_cannot_be_read_is_a_sentence() {
        let holder = folder();
        let root = holder.path();
        let outside = tempfile::NamedTempFile::new().unwrap();
        fs::remove_file(root.join("archive/a.test/fullchain2.pem")).unwrap();
        fs::remove_file(root.join("live/a.test/privkey.pem")).unwrap();
        symlink(outside.path(), root.join("live/a.test/privkey.pem")).unwrap();
        fs::remove_file(root.join("archive/a.test/privkey10.pem")).unwrap();
        fs::create_dir(root.join("archive/a.test/privkey10.pem")).unwrap();
        write(root, "archive/a.test/fullchain10.pem", "");
        fs::write(root.join("archive/a.test/privkey1.pem"), [0xff, 0xfe]).unwrap();
        fs::create_dir(root.join("renewal/b.test.conf")).unwrap();
        symlink("nowhere", root.join("renewal/c.test.conf")).unwrap();
        fs::create_dir_all(root.join("live/orphan.test")).unwrap();
        symlink("nothing", root.join("accounts/gone")).unwrap();
        let tree = Tree::read(root).unwrap();
        let a = &tree.lineages[0];
        let errors: Vec<_> = a
            .versions
            .iter()
            .flat_map(|v| [v.chain.as_ref().err(), v.key.as_ref().err()])
            .flatten()
            .map(String::as_str)
            .collect();
        assert_eq!(
            errors,
            [
                "cannot read `archive/a.test/fullchain10.pem`: it is empty",
                "cannot read `archive/a.test/privkey10.pem`: it is no regular file",
                "`archive/a.test/fullchain2.pem` is missing",
                "cannot read `archive/a.test/privkey1.pem`: it is no text",
            ]
        );
        assert_eq!(a.troubles.len(), 2);
        assert_eq!(
            a.troubles[0],
            "`live/a.test/fullchain.pem` leads to ../../archive/a.test/fullchain2.pem, which is missing"
        );
        assert!(a.troubles[1].contains("leads out of the folder"), "{:?}", a.troubles);
        let told: Vec<_> = tree.lineages[1..].iter().map(|l| l.file.clone().unwrap_err()).collect();
        assert_eq!(
            told,
            [
                "cannot read `renewal/b.test.conf`: it is no regular file",
                "`renewal/c.test.conf` leads to nowhere, which is missing"
            ]
        );
        assert_eq!(tree.orphans, ["orphan.test"]);
        assert_eq!(tree.troubles, ["`accounts/gone` leads to nothing, which is missing"]);
    }

    #[test]
    fn the_halves_of_a_chain_are_as_good() {
        let holder = folder();
        let root = holder.path();
        for kind in ["cert", "chain"] {
            write(root, &format!("archive/a.test/{kind}10.pem"), kind);
        }
        fs::remove_file(root.join("archive/a.test/fullchain10.pem")).unwrap();
        let tree = Tree::read(root).unwrap();
        assert_eq!(tree.lineages[0].versions[0].chain.as_deref(), Ok("cert\nchain"));
        fs::remove_file(root.join("archive/a.test/chain10.pem")).unwrap();
        let version = Tree::read(root).unwrap().lineages.remove(0).versions.remove(0);
        assert_eq!(version.chain, Err("`archive/a.test/fullchain10.pem` is missing".to_owned()));
        assert_eq!(version.leaf.as_deref(), Some("cert"));
    }

    #[test]
    fn another_folder_is_none_of_certbots() {
        let holder = tempfile::tempdir().unwrap();
        let told = |path: &Path| Tree::read(path).unwrap_err().to_string();
        assert!(told(holder.path()).contains("holds neither `renewal` nor `accounts`"));
        assert!(told(&holder.path().join("x")).ends_with("there is no such folder"));
        write(holder.path(), "file", "x");
        assert!(told(&holder.path().join("file")).ends_with("it is no folder"));
    }

    #[test]
    fn debians_own_options_are_not_told() {
        let text = "# said\nmax-log-backups = 0\npreconfigured-renewal = True\npre-hook = systemctl stop x\n";
        assert_eq!(options(text), ["pre-hook = systemctl …"]);
        let text = "eab-hmac-key = SECRET\ndns-foo-api-key=SECRET\nSECRET\nagree-tos\n";
        let told = options(text).join(" ");
        assert!(
            told.contains("eab-hmac-key") && told.contains("agree-tos") && !told.contains("SECRET"),
            "{told}"
        );
    }
}
