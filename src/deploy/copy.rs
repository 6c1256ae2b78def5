//! Files for a server that insists on places of its own, written so that nobody who can write near them
//! leads root elsewhere.
//!
//! The way to a file is gone component by component, without following links; each folder on it must be
//! one that only root or the writer can change, so that what was looked at stays what it was. All files
//! are written as drafts before the first of them takes its place: a full disk leaves the old ones. What was
//! there before stays beside it, under another name, and can be put back.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::unistd::{Group, User};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;
use zeroize::Zeroizing;

use super::trust::{open_to, user};
use crate::certificate::{Algorithm, Bundle, Certificate};
use crate::config::{Copies, CopyMode};
use crate::folder::Folder;

/// Largest file read back, bytes.
const LIMIT: u64 = 1 << 20;

/// Who writes, and whose what is written shall be.
#[derive(Debug, Clone, Copy)]
struct Rights {
    /// The user that this process runs as.
    writer: u32,
    uid: u32,
    gid: u32,
    mode: u32,
}

/// A stored version, read beneath the state directory without following links, and proven again: a link
/// or a foreign file that is planted there leads to nothing that is written elsewhere.
///
/// # Errors
/// A sentence: it is not there, cannot be read, or does not hold together.
pub(super) fn stored(state: &Path, name: &str, version: u32) -> Result<Bundle, String> {
    let shown = format!("version {version} of {name}");
    let unusable = |reason: String| format!("{shown} is not passed on: {reason}");
    let read = || -> Result<_, crate::folder::FolderError> {
        let mut folder = Folder::open(state)?;
        for part in ["lineages", name, "versions", &format!("{version:04}")] {
            let Some(inner) = folder.existing(part)? else { return Ok(None) };
            folder = inner;
        }
        let first = read_pair(&folder)?;
        let mut halves = Vec::new();
        for algorithm in Algorithm::ALL {
            if let Some(inner) = folder.existing(algorithm.name())? {
                halves.push((algorithm, read_pair(&inner)?));
            }
        }
        Ok(first.map(|first| (first, halves)))
    };
    let (first, halves) = match read() {
        Ok(Some(files)) => files,
        Ok(None) => return Err(unusable("it is not in the state directory, or not whole".to_owned())),
        Err(e) => return Err(unusable(e.to_string())),
    };
    let proven = |(chain, key): &(String, Zeroizing<String>)| {
        Certificate::stored(chain, key).map_err(|e| unusable(e.to_string()))
    };
    let first = proven(&first)?;
    let second = halves.iter().find(|(algorithm, _)| first.algorithm() != Some(*algorithm));
    let second = match second {
        Some((_, Some(files))) => Some(proven(files)?),
        Some((algorithm, None)) => return Err(unusable(format!("its {algorithm} half is not whole"))),
        None => None,
    };
    Bundle::new(first, second).map_err(|e| unusable(e.to_string()))
}

/// Chain and key in a folder.
fn read_pair(folder: &Folder) -> Result<Option<(String, Zeroizing<String>)>, crate::folder::FolderError> {
    let (chain, key) = (folder.read_own("fullchain.pem", LIMIT)?, folder.read_own("privkey.pem", LIMIT)?);
    Ok(chain.zip(key.map(Zeroizing::new)))
}

/// Writes the files of a lineage to where `copies` wants them; those that are there already are left. What is
/// there otherwise is kept beside it, unless that has been done before (`goes_on`).
///
/// # Errors
/// A sentence: what stands in the way, where, and what to do. What was there is there still, or again.
pub(super) fn copy(copies: &Copies, name: &str, bundle: &Bundle, goes_on: bool) -> Result<(), String> {
    let rights = Rights::wanted(copies.owner.as_deref(), copies.mode)?;
    let mut drafts = Vec::new();
    for (file, path, certificate) in wanted(copies, name, bundle)? {
        let place = Place::open(&path, rights)?;
        let content = content(certificate, file);
        if !place.holds(content.as_bytes(), rights) {
            drafts.push(Draft::write(place, content.as_bytes(), rights)?);
        } else if !goes_on {
            place.forget()?;
        }
    }
    for draft in &drafts {
        if !goes_on {
            draft.place.forget()?;
        }
        draft.place.keep()?;
    }
    // The first of them carries most of the work of the others.
    for draft in &drafts {
        draft.file.sync_all().map_err(|e| draft.place.refuse(&format!("it cannot be synced: {e}")))?;
    }
    for place in 0..drafts.len() {
        if let Err(reason) = drafts[place].put_in_place() {
            let undone: Result<Vec<_>, _> =
                drafts[..place].iter().map(|done| done.place.put_back()).collect();
            return Err(match undone {
                Ok(_) => reason,
                Err(also) => format!("{reason}; and of those that were written before: {also}"),
            });
        }
    }
    Ok(())
}

/// Puts back what was there before the last copy; `false` where nothing was, or nothing had changed.
///
/// # Errors
/// A sentence: what stands in the way.
pub(super) fn put_back(copies: &Copies, name: &str, bundle: &Bundle) -> Result<bool, String> {
    let rights = Rights::wanted(copies.owner.as_deref(), copies.mode)?;
    let mut any = false;
    for (_, path, _) in wanted(copies, name, bundle)? {
        any |= Place::open(&path, rights)?.put_back()?;
    }
    Ok(any)
}

/// What of a lineage goes where: the store's name of each file, its path, and whose it is. A path without
/// `{algorithm}` takes what is of the first certificate.
fn wanted<'a>(
    copies: &'a Copies,
    name: &str,
    bundle: &'a Bundle,
) -> Result<Vec<(&'static str, PathBuf, &'a Certificate)>, String> {
    let mut all = Vec::new();
    for (file, path) in copies.files() {
        let is_for_each = path.to_string_lossy().contains(Copies::ALGORITHM);
        for certificate in bundle.certificates().take(if is_for_each { usize::MAX } else { 1 }) {
            all.push((file, resolved(path, name, certificate)?, certificate));
        }
    }
    Ok(all)
}

/// Where `copy` wants a file of that certificate.
pub(super) fn resolved(path: &Path, name: &str, certificate: &Certificate) -> Result<PathBuf, String> {
    Copies::path_for(path, name, certificate.algorithm()).ok_or_else(|| {
        format!(
            "{} is not written: the key of {name} is neither ECDSA nor RSA: write the path without `{}`",
            path.display(),
            Copies::ALGORITHM
        )
    })
}

/// What a file of the store's holds.
fn content(certificate: &Certificate, file: &str) -> Zeroizing<String> {
    Zeroizing::new(match file {
        "cert.pem" => certificate.leaf_pem(),
        "chain.pem" => certificate.issuers_pem(),
        "fullchain.pem" => certificate.fullchain_pem(),
        "privkey.pem" => certificate.key_pem().to_owned(),
        _ => combined(certificate).to_string(),
    })
}

/// Leaf, chain and key in one.
pub(super) fn combined(certificate: &Certificate) -> Zeroizing<String> {
    Zeroizing::new(format!("{}{}", certificate.fullchain_pem(), certificate.key_pem()))
}

impl Rights {
    fn wanted(owner: Option<&str>, CopyMode(mode): CopyMode) -> Result<Self, String> {
        let (writer, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let (uid, gid) = parse_owner(owner.unwrap_or_default())?;
        Ok(Self { writer, uid: uid.unwrap_or(writer), gid: gid.unwrap_or(group), mode })
    }

    fn is_trusted(self, uid: u32) -> bool {
        uid == 0 || uid == self.writer
    }
}

/// User and group of `user:group`, by name or number.
fn parse_owner(owner: &str) -> Result<(Option<u32>, Option<u32>), String> {
    let (user, group) = owner.split_once(':').unwrap_or((owner, ""));
    let number = |text: &str| text.parse::<u32>().ok();
    let by_name = |name: &str| User::from_name(name).ok().flatten().map(|found| found.uid.as_raw());
    let group_by_name = |name: &str| Group::from_name(name).ok().flatten().map(|found| found.gid.as_raw());
    let find = |kind: &str, name: &str, found: Option<u32>| match found {
        _ if name.is_empty() => Ok(None),
        Some(id) => Ok(Some(id)),
        None => Err(format!("there is no {kind} `{name}` on this machine: correct `owner` under `copy`")),
    };
    Ok((
        find("user", user, by_name(user).or_else(|| number(user)))?,
        find("group", group, group_by_name(group).or_else(|| number(group)))?,
    ))
}

/// A name in a folder that nobody else can change.
#[derive(Debug)]
struct Place {
    folder: OwnedFd,
    name: String,
    path: PathBuf,
}

const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Place {
    /// Goes there, without following links.
    fn open(path: &Path, rights: Rights) -> Result<Self, String> {
        let refuse = |reason: &str| format!("{} is not written: {reason}", path.display());
        let text = path.to_str().ok_or_else(|| refuse("its path is not UTF-8"))?;
        let mut names: Vec<&str> = text.split('/').filter(|name| !name.is_empty()).collect();
        let name = names.pop().ok_or_else(|| refuse("it is no file's path"))?.to_owned();
        let mut here = PathBuf::from("/");
        let mut folder = rustix::fs::open("/", FOLDER | OFlags::PATH, Mode::empty())
            .map_err(|e| refuse(&format!("`/` cannot be opened: {e}")))?;
        for name in names {
            folder_fault(&here, &stat(&folder, &here).map_err(|e| refuse(&e))?, rights)
                .map_or(Ok(()), |fault| Err(refuse(&fault)))?;
            here.push(name);
            folder = rustix::fs::openat(&folder, name, FOLDER | OFlags::PATH, Mode::empty())
                .map_err(|e| refuse(&not_a_folder(&folder, name, &here, e)))?;
        }
        folder_fault(&here, &stat(&folder, &here).map_err(|e| refuse(&e))?, rights)
            .map_or(Ok(()), |fault| Err(refuse(&fault)))?;
        // To be synced, it has to be open for reading.
        let folder = rustix::fs::openat(&folder, ".", FOLDER | OFlags::RDONLY, Mode::empty())
            .map_err(|e| refuse(&format!("{} cannot be opened: {e}", here.display())))?;
        let place = Self { folder, name, path: path.to_owned() };
        match rustix::fs::statat(&place.folder, &place.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => file_fault(&stat, rights).map_or(Ok(place), |fault| Err(refuse(&fault))),
            Err(Errno::NOENT) => Ok(place),
            Err(e) => Err(refuse(&format!("it cannot be examined: {e}"))),
        }
    }

    /// Whether it is there already as it shall be.
    fn holds(&self, content: &[u8], rights: Rights) -> bool {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Ok(fd) = rustix::fs::openat(&self.folder, &self.name, flags, Mode::empty()) else { return false };
        let as_wanted = rustix::fs::fstat(&fd).is_ok_and(|stat| {
            (stat.st_uid, stat.st_gid, stat.st_mode & 0o7777) == (rights.uid, rights.gid, rights.mode)
                && FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
        });
        let mut there = Zeroizing::new(Vec::new());
        as_wanted && File::from(fd).take(LIMIT).read_to_end(&mut there).is_ok() && there.as_slice() == content
    }

    /// Where what was there before is kept: servers that read whole folders pass over such names.
    fn kept(&self) -> String {
        format!(".{}.before-wicketgate", self.name)
    }

    /// Keeps what is there beside it, with its owner and mode; what is kept already stays.
    fn keep(&self) -> Result<(), String> {
        let refuse =
            |e: &dyn std::fmt::Display| self.refuse(&format!("what is there cannot be kept beside it: {e}"));
        let kept = self.kept();
        match rustix::fs::statat(&self.folder, &kept, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => return Ok(()),
            Ok(_) => return Err(refuse(&format!("{kept} is no file: remove it"))),
            Err(Errno::NOENT) => {}
            Err(e) => return Err(refuse(&e)),
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let there = match rustix::fs::openat(&self.folder, &self.name, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT) => return Ok(()),
            Err(e) => return Err(refuse(&e)),
        };
        let stat = rustix::fs::fstat(&there).map_err(|e| refuse(&e))?;
        let mut content = Zeroizing::new(Vec::new());
        let read = there.take(LIMIT + 1).read_to_end(&mut content).map_err(|e| refuse(&e))?;
        if read as u64 > LIMIT {
            return Err(refuse(&format!("it is larger than {LIMIT} bytes: name another path")));
        }
        let rights =
            Rights { writer: stat.st_uid, uid: stat.st_uid, gid: stat.st_gid, mode: stat.st_mode & 0o7777 };
        let folder = self.folder.try_clone().map_err(|e| refuse(&e))?;
        let path = self.path.with_file_name(&kept);
        let mut draft = Draft::write(Self { folder, name: kept, path }, &content, rights)?;
        draft.file.sync_all().map_err(|e| refuse(&e))?;
        draft.put_in_place()
    }

    /// Nothing is kept any more.
    fn forget(&self) -> Result<(), String> {
        match rustix::fs::unlinkat(&self.folder, self.kept(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(self.refuse(&format!("{} cannot be removed: {e}", self.kept()))),
        }
    }

    /// Puts back what is kept; `false` where nothing is.
    fn put_back(&self) -> Result<bool, String> {
        match rustix::fs::renameat(&self.folder, self.kept(), &self.folder, &self.name) {
            Ok(()) => rustix::fs::fsync(&self.folder)
                .map(|()| true)
                .map_err(|e| self.refuse(&format!("its folder cannot be synced: {e}"))),
            Err(Errno::NOENT) => Ok(false),
            Err(e) => Err(self.refuse(&format!("what was there before cannot be put back: {e}"))),
        }
    }

    fn refuse(&self, reason: &str) -> String {
        format!("{} is not written: {reason}", self.path.display())
    }
}

fn stat(fd: &OwnedFd, path: &Path) -> Result<Stat, String> {
    rustix::fs::fstat(fd).map_err(|e| format!("{} cannot be examined: {e}", path.display()))
}

/// What keeps a folder from being one that only root and the writer can change.
fn folder_fault(path: &Path, stat: &Stat, rights: Rights) -> Option<String> {
    let shown = path.display();
    if !rights.is_trusted(stat.st_uid) {
        return Some(format!(
            "the folder {shown} belongs to {}, who could put something else in its place: name a folder that belongs to {}, all the way up",
            user(stat.st_uid),
            if rights.writer == 0 { "root".to_owned() } else { format!("root or {}", user(rights.writer)) }
        ));
    }
    let (who, remedy) = open_to(stat.st_mode)?;
    if stat.st_mode & 0o1000 != 0 {
        return Some(format!(
            "the folder {shown} has mode {:04o}, so that {who} may write to it: name a folder that is only root's, all the way up",
            stat.st_mode & 0o7777
        ));
    }
    Some(format!(
        "the folder {shown} has mode {:04o}, so that {who} could put something else in its place: run `chmod {remedy} {shown}`, or name another folder",
        stat.st_mode & 0o7777
    ))
}

/// What keeps a file that is there from being replaced.
fn file_fault(stat: &Stat, rights: Rights) -> Option<String> {
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind != FileType::RegularFile {
        return Some(format!("{} is in its place: remove it, or name another path", kind_in_words(kind)));
    }
    if stat.st_nlink != 1 {
        return Some(format!(
            "the file that is there has {} names (hard links): remove it, or name another path",
            stat.st_nlink
        ));
    }
    if !rights.is_trusted(stat.st_uid) && stat.st_uid != rights.uid {
        return Some(format!(
            "the file that is there belongs to {}, who may not want it replaced: remove it, or name another path",
            user(stat.st_uid)
        ));
    }
    None
}

fn not_a_folder(parent: &OwnedFd, name: &str, path: &Path, error: Errno) -> String {
    let shown = path.display();
    match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => {
            format!("there is no folder {shown}: create it, as with `install -d -m 0755 {shown}`")
        }
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::Directory => {
            let kind = kind_in_words(FileType::from_raw_mode(stat.st_mode));
            format!("{shown} is {kind}, where a folder must be: name the folder's own path")
        }
        _ => format!("the folder {shown} cannot be opened: {error}"),
    }
}

fn kind_in_words(kind: FileType) -> &'static str {
    match kind {
        FileType::Symlink => "a symbolic link",
        FileType::Directory => "a folder",
        FileType::Fifo => "a named pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::RegularFile => "a file",
        FileType::Unknown => "something unknown",
    }
}

/// A whole new file beside the one that it will replace; dropped, it is gone.
#[derive(Debug)]
struct Draft {
    place: Place,
    name: String,
    file: File,
    is_placed: bool,
}

impl Draft {
    fn write(place: Place, content: &[u8], rights: Rights) -> Result<Self, String> {
        let name = format!(".{}.wicketgate", place.name);
        // One that a crash has left; whatever it is, it is not followed.
        match rustix::fs::unlinkat(&place.folder, &name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => {
                let shown = place.path.with_file_name(&name);
                return Err(place.refuse(&format!("{} cannot be removed: {e}", shown.display())));
            }
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&place.folder, &name, flags, Mode::from_raw_mode(0o600))
            .map_err(|e| place.refuse(&format!("its folder takes no new file: {}{}", e, remedy(e))))?;
        let mut draft = Self { place, name, file: File::from(fd), is_placed: false };
        draft.settle(rights)?;
        draft.file.write_all(content).map_err(|e| {
            let remedy = Errno::from_io_error(&e).map(remedy).unwrap_or_default();
            draft.place.refuse(&format!("{e}{remedy}"))
        })?;
        Ok(draft)
    }

    /// Gives it its owner and mode, while nothing is in it.
    fn settle(&self, rights: Rights) -> Result<(), String> {
        let refuse = |e: Errno| self.place.refuse(&format!("its mode cannot be set: {e}"));
        let stat = rustix::fs::fstat(&self.file).map_err(refuse)?;
        if (stat.st_uid, stat.st_gid) != (rights.uid, rights.gid) {
            let (uid, gid) = (Uid::from_raw(rights.uid), Gid::from_raw(rights.gid));
            rustix::fs::fchown(&self.file, Some(uid), Some(gid)).map_err(|e| {
                self.place.refuse(&format!(
                    "it cannot be given to {}, group {}: {e}; only root may: run the helper as root, or leave `owner` out",
                    user(rights.uid),
                    rights.gid
                ))
            })?;
        }
        rustix::fs::fchmod(&self.file, Mode::from_raw_mode(rights.mode)).map_err(refuse)
    }

    fn put_in_place(&mut self) -> Result<(), String> {
        let Self { place, name, .. } = &*self;
        rustix::fs::renameat(&place.folder, name, &place.folder, &place.name)
            .map_err(|e| place.refuse(&format!("it cannot be put in place: {e}")))?;
        self.is_placed = true;
        rustix::fs::fsync(&self.place.folder)
            .map_err(|e| self.place.refuse(&format!("its folder cannot be synced: {e}")))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.is_placed {
            // What stays is removed before the next try.
            let _ = rustix::fs::unlinkat(&self.place.folder, &self.name, AtFlags::empty());
        }
    }
}

fn remedy(error: Errno) -> &'static str {
    match error {
        Errno::NOSPC | Errno::DQUOT => "; free some space there: the old files are untouched",
        Errno::ROFS => "; mount it writable, or name another folder",
        Errno::ACCESS | Errno::PERM => "; run the helper as root, or as a user that may write there",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIGHTS: Rights = Rights { writer: 1000, uid: 13, gid: 13, mode: 0o640 };

    fn stat_of(mode: u32, uid: u32, links: u64) -> Stat {
        let mut stat = rustix::fs::stat("/").unwrap();
        stat.st_mode = mode;
        stat.st_uid = uid;
        stat.st_nlink = links as _;
        stat
    }

    #[test]
    fn folders_are_roots_or_the_writers_alone() {
        let fault =
            |mode: u32, uid| folder_fault(Path::new("/x"), &stat_of(0o040_000 | mode, uid, 2), RIGHTS);
        for (mode, uid) in [(0o755, 0), (0o700, 1000), (0o711, 0), (0o2755, 0)] {
            assert_eq!(fault(mode, uid), None, "{mode:o} {uid}");
        }
        for (mode, uid, said) in [
            (0o755, 13, "belongs to"),
            (0o755, 65534, "belongs to"),
            (0o775, 0, "chmod g-w /x"),
            (0o757, 1000, "chmod o-w /x"),
            (0o1777, 0, "name a folder that is only root's"),
        ] {
            assert!(fault(mode, uid).is_some_and(|told| told.contains(said)), "{mode:o} {uid}");
        }
    }

    #[test]
    fn only_a_plain_file_is_replaced() {
        let fault = |mode, uid, links| file_fault(&stat_of(mode, uid, links), RIGHTS);
        for uid in [0, 1000, 13] {
            assert_eq!(fault(0o100_644, uid, 1), None, "{uid}");
        }
        for (mode, uid, links, said) in [
            (0o100_644, 33, 1, "belongs to"),
            (0o100_644, 0, 2, "2 names"),
            (0o120_777, 0, 1, "a symbolic link"),
            (0o040_755, 0, 1, "a folder"),
            (0o010_644, 0, 1, "a named pipe"),
            (0o140_644, 0, 1, "a socket"),
            (0o020_644, 0, 1, "a device"),
            (0o060_644, 0, 1, "a device"),
        ] {
            assert!(fault(mode, uid, links).is_some_and(|told| told.contains(said)), "{mode:o} {uid}");
        }
    }

    #[test]
    fn owners() {
        assert_eq!(parse_owner(""), Ok((None, None)));
        assert_eq!(parse_owner("root"), Ok((Some(0), None)));
        assert_eq!(parse_owner("root:0"), Ok((Some(0), Some(0))));
        assert_eq!(parse_owner(":12345"), Ok((None, Some(12345))));
        let told = parse_owner("no-such-user-here").unwrap_err();
        assert!(told.contains("there is no user `no-such-user-here`"), "{told}");
        assert!(parse_owner("root:no-such-group-here").unwrap_err().contains("no group"));
    }

    fn made(key: &rcgen::KeyPair) -> Certificate {
        let leaf = rcgen::CertificateParams::new(["a.example".to_owned()]).unwrap().self_signed(key).unwrap();
        Certificate::stored(&leaf.pem(), &key.serialize_pem()).unwrap()
    }

    #[test]
    fn a_pair_goes_to_two_places_where_the_path_tells_them_apart() {
        let rsa =
            rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
        let (first, second) = (made(&rcgen::KeyPair::generate().unwrap()), made(&rsa));
        let copies = Copies {
            key: Some("/tls/{name}.key".into()),
            combined: Some("/tls/{name}.pem.{algorithm}".into()),
            ..Copies::default()
        };
        let shown = |bundle: &Bundle| {
            let wanted = wanted(&copies, "a", bundle).unwrap();
            let one = |(file, path, c): &(&str, PathBuf, &Certificate)| {
                format!("{file} {} {}", path.display(), c.algorithm().unwrap().name())
            };
            wanted.iter().map(one).collect::<Vec<_>>()
        };
        assert_eq!(
            shown(&Bundle::pair(first.clone(), second).unwrap()),
            [
                "privkey.pem /tls/a.key ecdsa",
                "combined.pem /tls/a.pem.ecdsa ecdsa",
                "combined.pem /tls/a.pem.rsa rsa",
            ]
        );
        assert_eq!(
            shown(&first.into()),
            ["privkey.pem /tls/a.key ecdsa", "combined.pem /tls/a.pem.ecdsa ecdsa"]
        );
    }

    #[test]
    fn half_of_a_pair_is_not_passed_on() {
        let holder = tempfile::tempdir().unwrap();
        let folder = holder.path().join("lineages/a/versions/0001");
        let rsa =
            rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
        let (first, second) = (made(&rcgen::KeyPair::generate().unwrap()), made(&rsa));
        for (within, certificate) in [("", &first), ("ecdsa", &first), ("rsa", &second)] {
            std::fs::create_dir_all(folder.join(within)).unwrap();
            std::fs::write(folder.join(within).join("fullchain.pem"), certificate.fullchain_pem()).unwrap();
            std::fs::write(folder.join(within).join("privkey.pem"), certificate.key_pem()).unwrap();
        }
        let bundle = stored(holder.path(), "a", 1).unwrap();
        assert_eq!(bundle.serials(), [first.serial(), second.serial()]);
        std::fs::remove_file(folder.join("rsa/privkey.pem")).unwrap();
        let told = stored(holder.path(), "a", 1).map(drop).unwrap_err();
        assert!(told.contains("its RSA half is not whole"), "{told}");
        std::fs::write(folder.join("rsa/privkey.pem"), first.key_pem()).unwrap();
        let told = stored(holder.path(), "a", 1).map(drop).unwrap_err();
        assert!(told.contains("does not belong"), "{told}");
    }

    #[test]
    fn what_is_planted_in_the_state_directory_is_not_passed_on() {
        use std::os::unix::fs::symlink;
        let holder = tempfile::tempdir().unwrap();
        let state = holder.path().join("state");
        let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let folder = state.join("lineages/a.example/versions/0001");
        std::fs::create_dir_all(&folder).unwrap();
        let (chain_file, key_file) = (folder.join("fullchain.pem"), folder.join("privkey.pem"));
        std::fs::write(&chain_file, &chain).unwrap();
        std::fs::write(&key_file, &key).unwrap();
        assert!(stored(&state, "a.example", 1).is_ok());
        let refused = |said: &str| {
            let told = stored(&state, "a.example", 1).map(drop).unwrap_err();
            assert!(told.starts_with("version 1 of a.example is not passed on: "), "{told}");
            assert!(told.contains(said), "{told}");
            assert!(!told.contains("PRIVATE"), "{told}");
        };
        assert!(stored(&state, "a.example", 2).map(drop).unwrap_err().contains("not in the state directory"));
        let other = holder.path().join("other.pem");
        std::fs::rename(&key_file, &other).unwrap();
        refused("not whole");
        symlink(&other, &key_file).unwrap();
        refused("cannot open");
        std::fs::remove_file(&key_file).unwrap();
        std::fs::hard_link(&other, &key_file).unwrap();
        refused("hard link");
        std::fs::remove_file(&key_file).unwrap();
        std::fs::write(&key_file, "root:x:0:0:root").unwrap();
        refused("private key cannot be read");
        let stranger = rcgen::KeyPair::generate().unwrap().serialize_pem();
        std::fs::write(&key_file, stranger).unwrap();
        refused("does not belong");
        let elsewhere = holder.path().join("elsewhere");
        std::fs::rename(&folder, &elsewhere).unwrap();
        std::fs::write(elsewhere.join("privkey.pem"), &key).unwrap();
        symlink(&elsewhere, &folder).unwrap();
        refused("cannot open");
    }
}
