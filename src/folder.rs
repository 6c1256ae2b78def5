//! A folder held open: names below it are reached through its descriptor and never through a link, so
//! that whoever owns the state directory cannot lead root elsewhere.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid};

/// The system refused an operation.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}", path.display())]
pub(crate) struct FolderError {
    /// What was tried.
    pub(crate) action: &'static str,
    /// On what.
    pub(crate) path: PathBuf,
    /// Why not.
    #[source]
    pub(crate) source: io::Error,
}

/// Who may read, and who owns what is created.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Access {
    /// The folder's group may read certificates and keys.
    pub(crate) group_reads: bool,
    /// Set when root works for another user.
    pub(crate) owner: Option<Owner>,
    /// Who reads, where this process may be able to give files to that group.
    pub(crate) group: Option<u32>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

#[derive(Debug)]
pub(crate) struct Folder {
    fd: OwnedFd,
    path: PathBuf,
    access: Access,
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl Folder {
    /// Opens a folder by its path; the last component may be a link.
    pub(crate) fn open(path: &Path) -> Result<Self, FolderError> {
        let fd = rustix::fs::open(path, FOLDER, Mode::empty()).map_err(|e| FolderError {
            action: "open",
            path: path.to_owned(),
            source: e.into(),
        })?;
        Ok(Self { fd, path: path.to_owned(), access: Access::default() })
    }

    pub(crate) fn with_access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    pub(crate) fn access(&self) -> Access {
        self.access
    }

    /// The same folder, but what is created below it is the owner's alone.
    pub(crate) fn private(&self) -> PrivateFolder<'_> {
        PrivateFolder(self)
    }

    pub(crate) fn metadata(&self) -> Result<std::fs::Metadata, FolderError> {
        let file = self.fd.try_clone().map(File::from).map_err(|e| self.failed("open", "", e))?;
        file.metadata().map_err(|e| self.failed("examine", "", e))
    }

    /// The magic number of the file system that it is on (statfs(2)).
    pub(crate) fn file_system(&self) -> Result<u32, FolderError> {
        let found = rustix::fs::fstatfs(&self.fd).map_err(|e| self.failed("examine", "", e.into()))?;
        // The field is wider on some machines than on others; the numbers have 32 bits on all of them.
        Ok(found.f_type as u32)
    }

    /// An error about a name in this folder.
    pub(crate) fn failed(&self, action: &'static str, name: &str, source: io::Error) -> FolderError {
        let path = if name.is_empty() { self.path.clone() } else { self.path.join(name) };
        FolderError { action, path, source }
    }

    /// The folder of that name, if it is there.
    pub(crate) fn existing(&self, name: &str) -> Result<Option<Self>, FolderError> {
        match rustix::fs::openat(&self.fd, name, FOLDER | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(fd) => Ok(Some(Self { fd, path: self.path.join(name), access: self.access })),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(e) => Err(self.failed("open", name, e.into())),
        }
    }

    /// The folder of that name, created with its final mode and owner if it is missing.
    pub(crate) fn subfolder(&self, name: &str) -> Result<Self, FolderError> {
        self.subfolder_with(name, self.access)
    }

    fn subfolder_with(&self, name: &str, access: Access) -> Result<Self, FolderError> {
        let mode = if access.group_reads { 0o750 } else { 0o700 };
        let created = match rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(mode)) {
            Ok(()) => true,
            Err(rustix::io::Errno::EXIST) => false,
            Err(e) => return Err(self.failed("create", name, e.into())),
        };
        let fd = rustix::fs::openat(&self.fd, name, FOLDER | OFlags::NOFOLLOW, Mode::empty())
            .map_err(|e| self.failed("open", name, e.into()))?;
        let folder = Self { fd, path: self.path.join(name), access };
        if created {
            folder.settle(folder.fd.as_fd(), mode).map_err(|e| self.failed("create", name, e))?;
            self.sync()?;
        }
        Ok(folder)
    }

    /// Gives a new file or folder its final mode, whatever the umask, and its owner and group. A folder in one
    /// whose group is inherited hands it on (`g+s`), which a change of mode by one who is not of that group ends.
    fn settle(&self, fd: impl AsFd, mode: u32) -> io::Result<()> {
        let stat = rustix::fs::fstat(&fd)?;
        let mode = mode | stat.st_mode & 0o2000;
        if stat.st_mode & 0o7777 != mode {
            rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode))?;
        }
        match (self.access.owner, self.access.group) {
            (Some(Owner { uid, gid }), _) => {
                rustix::fs::fchown(&fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
            }
            (None, Some(gid)) if stat.st_gid != gid => {
                match rustix::fs::fchown(&fd, None, Some(Gid::from_raw(gid))) {
                    // Not a member of it, which was told at the start.
                    Ok(()) | Err(rustix::io::Errno::PERM) => {}
                    Err(e) => return Err(e.into()),
                }
            }
            (None, _) => {}
        }
        Ok(())
    }

    /// Writes new files, and syncs them once all are written: the first sync then carries most of the
    /// work of the others. The names must be free.
    pub(crate) fn create_all(&self, files: &[(&str, &[u8])]) -> Result<(), FolderError> {
        let written: Vec<_> =
            files.iter().map(|(name, content)| self.write(name, content)).collect::<Result<_, _>>()?;
        for ((name, _), file) in files.iter().zip(written) {
            file.sync_all().map_err(|e| self.failed("write", name, e))?;
        }
        Ok(())
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<File, FolderError> {
        let mode = if self.access.group_reads { 0o640 } else { 0o600 };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let write = || -> io::Result<File> {
            let fd = rustix::fs::openat(&self.fd, name, flags, Mode::from_raw_mode(0o600))?;
            self.settle(&fd, mode)?;
            let mut file = File::from(fd);
            file.write_all(content)?;
            Ok(file)
        };
        write().map_err(|e| self.failed("write", name, e))
    }

    /// Puts a whole new file in the place of an old one.
    pub(crate) fn replace(&self, name: &str, content: &[u8]) -> Result<(), FolderError> {
        let draft = format!(".{name}.draft");
        self.unlink(&draft)?;
        if let Err(e) = self.create_all(&[(&draft, content)]).and_then(|()| self.rename(&draft, name)) {
            // The first failure is the one to tell; the draft is removed before the next try as well.
            let _ = self.unlink(&draft);
            return Err(e);
        }
        self.sync()
    }

    /// Puts a symbolic link in the place of an old one.
    pub(crate) fn replace_link(&self, name: &str, target: &str) -> Result<(), FolderError> {
        let draft = format!(".{name}.draft");
        self.unlink(&draft)?;
        rustix::fs::symlinkat(target, &self.fd, &draft)
            .map_err(|e| self.failed("create", &draft, e.into()))?;
        if let Some(Owner { uid, gid }) = self.access.owner {
            let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            rustix::fs::chownat(&self.fd, &draft, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|e| self.failed("hand over", &draft, e.into()))?;
        }
        self.rename(&draft, name)?;
        self.sync()
    }

    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<(), FolderError> {
        rustix::fs::renameat(&self.fd, from, &self.fd, to)
            .map_err(|e| self.failed("put in place", to, e.into()))
    }

    pub(crate) fn sync(&self) -> Result<(), FolderError> {
        rustix::fs::fsync(&self.fd).map_err(|e| self.failed("sync", "", e.into()))
    }

    pub(crate) fn unlink(&self, name: &str) -> Result<(), FolderError> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(e) => Err(self.failed("remove", name, e.into())),
        }
    }

    /// Removes a folder and what is in it, links not followed; nothing is done where it is missing.
    pub(crate) fn remove_tree(&self, name: &str) -> Result<(), FolderError> {
        let Some(folder) = self.existing(name)? else { return Ok(()) };
        for entry in folder.names()? {
            match rustix::fs::unlinkat(&folder.fd, &entry, AtFlags::empty()) {
                Err(rustix::io::Errno::ISDIR | rustix::io::Errno::PERM) => folder.remove_tree(&entry)?,
                _ => folder.unlink(&entry)?,
            }
        }
        rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR)
            .map_err(|e| self.failed("remove", name, e.into()))
    }

    /// The text of a regular file of at most `limit` bytes, if it is there.
    pub(crate) fn read(&self, name: &str, limit: u64) -> Result<Option<String>, FolderError> {
        self.read_if(name, limit, |_| Ok(()))
    }

    /// As [`Folder::read`], but what has a second name elsewhere, or belongs to somebody else than the
    /// folder does, is refused: it may be another one's secret, planted here.
    pub(crate) fn read_own(&self, name: &str, limit: u64) -> Result<Option<String>, FolderError> {
        self.read_of(self.metadata()?.uid(), name, limit)
    }

    /// As [`Folder::read`], but only what belongs to that user and has no second name.
    pub(crate) fn read_of(&self, owner: u32, name: &str, limit: u64) -> Result<Option<String>, FolderError> {
        self.read_if(name, limit, |stat| match stat {
            _ if stat.st_nlink != 1 => {
                Err(invalid("it has a second name elsewhere (a hard link)".to_owned()))
            }
            _ if stat.st_uid != owner => {
                Err(invalid(format!("it belongs to uid {}, and should to uid {owner}", stat.st_uid)))
            }
            _ => Ok(()),
        })
    }

    fn read_if(
        &self,
        name: &str,
        limit: u64,
        acceptable: impl FnOnce(&Stat) -> io::Result<()>,
    ) -> Result<Option<String>, FolderError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(e) => return Err(self.failed("open", name, e.into())),
        };
        let stat = rustix::fs::fstat(&fd).map_err(|e| self.failed("examine", name, e.into()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(self.failed("read", name, invalid("it is not a regular file".to_owned())));
        }
        acceptable(&stat).map_err(|e| self.failed("read", name, e))?;
        let mut text = String::new();
        let read = File::from(fd).take(limit + 1).read_to_string(&mut text);
        match read {
            Ok(n) if n as u64 > limit => {
                Err(self.failed("read", name, invalid(format!("it is larger than {limit} bytes"))))
            }
            Ok(_) => Ok(Some(text)),
            Err(e) => Err(self.failed("read", name, e)),
        }
    }

    /// Where a symbolic link leads, if it is there.
    pub(crate) fn read_link(&self, name: &str) -> Result<Option<String>, FolderError> {
        match rustix::fs::readlinkat(&self.fd, name, Vec::new()) {
            Ok(target) => Ok(Some(target.to_string_lossy().into_owned())),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(e) => Err(self.failed("read the link", name, e.into())),
        }
    }

    /// The file that is locked; it stays when the lock is released.
    pub(crate) fn open_lock(&self, name: &str) -> Result<File, FolderError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || -> io::Result<File> {
            let fd = rustix::fs::openat(&self.fd, name, flags, Mode::from_raw_mode(0o600))?;
            if let Some(Owner { uid, gid }) = self.access.owner {
                rustix::fs::fchown(&fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
            }
            Ok(File::from(fd))
        };
        open().map_err(|e| self.failed("open", name, e))
    }

    /// A file that is there, for reading and locking; `None` where there is none.
    pub(crate) fn open_to_read(&self, name: &str) -> Result<Option<File>, FolderError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(File::from(fd))),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(e) => Err(self.failed("open", name, e.into())),
        }
    }

    /// This folder, opened once more: a lock on it is another than one that was taken before.
    pub(crate) fn again(&self) -> Result<File, FolderError> {
        let opened = rustix::fs::openat(&self.fd, ".", FOLDER, Mode::empty());
        opened.map(File::from).map_err(|e| self.failed("open", "", e.into()))
    }

    /// What is there under that name, unless it is a symbolic link or nothing.
    pub(crate) fn other_than_link(&self, name: &str) -> Result<Option<&'static str>, FolderError> {
        let stat = match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(e) => return Err(self.failed("examine", name, e.into())),
        };
        Ok(match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => None,
            FileType::Directory => Some("a directory"),
            FileType::RegularFile => Some("a file"),
            _ => Some("neither a file nor a directory"),
        })
    }

    /// Whether [`Folder::replace_link`] could make its link: it is made, and removed again.
    pub(crate) fn try_link(&self, name: &str) -> Result<(), FolderError> {
        let draft = format!(".{name}.draft");
        self.unlink(&draft)?;
        rustix::fs::symlinkat("nowhere", &self.fd, &draft)
            .map_err(|e| self.failed("create", &draft, e.into()))?;
        self.unlink(&draft)
    }

    /// The names in this folder, in no order.
    pub(crate) fn names(&self) -> Result<Vec<String>, FolderError> {
        let list = || -> io::Result<Vec<String>> {
            let mut names = Vec::new();
            for entry in rustix::fs::Dir::read_from(&self.fd)? {
                let name = entry?.file_name().to_string_lossy().into_owned();
                if name != "." && name != ".." {
                    names.push(name);
                }
            }
            Ok(names)
        };
        list().map_err(|e| self.failed("list", "", e))
    }
}

/// A regular file that somebody names, links followed, of at most `limit` bytes. A pipe that nobody writes to,
/// or a device without an end, is not waited for.
///
/// # Errors
/// It cannot be read, is no regular file, or is larger.
pub(crate) fn read_file(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let meta = file.metadata()?;
    if meta.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if !meta.is_file() {
        return Err(invalid("it is not a regular file".to_owned()));
    }
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {limit} bytes")));
    }
    Ok(bytes)
}

fn invalid(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// A view of a folder whose new children no group may read.
pub(crate) struct PrivateFolder<'a>(&'a Folder);

impl PrivateFolder<'_> {
    pub(crate) fn subfolder(&self, name: &str) -> Result<Folder, FolderError> {
        self.0.subfolder_with(name, Access { group_reads: false, group: None, ..self.0.access })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_of_a_bounded_size_are_read() {
        let holder = tempfile::tempdir().unwrap();
        let path = |name: &str| holder.path().join(name);
        std::fs::write(path("file"), "12345").unwrap();
        std::os::unix::fs::symlink("file", path("link")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, path("pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        let read = |path: &Path, limit| read_file(path, limit).map_err(|e| e.to_string());
        assert_eq!(read(&path("file"), 5), Ok(b"12345".to_vec()));
        assert_eq!(read(&path("link"), 5), Ok(b"12345".to_vec()));
        assert_eq!(read(&path("file"), 4), Err("it is larger than 4 bytes".to_owned()));
        for (other, says) in [
            (holder.path(), "is a directory"),
            (&path("pipe"), "it is not a regular file"),
            (Path::new("/dev/zero"), "it is not a regular file"),
            (&path("nothing"), "No such file"),
        ] {
            let told = read(other, 5).unwrap_err();
            assert!(told.contains(says), "{}: {told}", other.display());
        }
    }
}
