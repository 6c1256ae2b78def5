//! Everything that must outlive a restart: accounts, keys, certificates, and when to try again.
//!
//! The contract: what is here is whole. Files are created with their final mode and owner before they
//! have content, synced with their folders, and become visible by one rename; whoever reads `live/NAME`
//! finds the old version or the new one. One process at a time writes, under a lock that the kernel
//! releases when the process ends. Root leaves nothing that belongs to root in a folder that belongs to
//! somebody else.
//!
//! ```text
//! state-dir/                       0700, or 0750 with a group that may read certificates
//!   lock                           flock, as on the directory; holds the owner's pid
//!   accounts/<issuer>/account.json 0600
//!   outbox.json                    notices on their way, and what was told
//!   embedded-ca/root.pem           roots of the embedded CA
//!   ledger.json                    what has been asked of each CA
//!   lineages/<name>/state.json     attempts, and what servers have taken
//!   lineages/<name>/versions/0007/ cert.pem chain.pem fullchain.pem privkey.pem combined.pem; of a pair
//!                                  ecdsa/ rsa/ combined.pem.ecdsa combined.pem.rsa too
//!   lineages/<name>/half/          of a pair, what was obtained of it so far
//!   live/<name> → ../lineages/<name>/versions/0007
//! ```

mod aside;
mod bundle;
mod chains;
mod half;
mod ledger;
mod lineage;
pub mod outbox;
mod permanence;
mod sharing;

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

pub use chains::{KeptChains, kept_chains, live_chains};
pub use ledger::{BucketKey, BucketKind, BucketRow, LedgerFile, PendingRow, Span, WaitRow};
pub use lineage::{
    Attempts, Deployed, Failing, Half, LineageState, NotLive, Postponed, RenewalInformation, SuggestedWindow,
};
use outbox::Outbox;
pub use permanence::Permanence;

use crate::certificate::Bundle;
use crate::folder::{Access, Folder, FolderError, Owner};

/// Versions of a certificate that are kept for rolling back, the current one included.
const KEPT_VERSIONS: usize = 5;

/// What follows from a damaged version.
const FALL_BACK: &str = "the newest version that is whole takes its place, else a new one is ordered";

/// Largest file read back, bytes.
const MAX_FILE: u64 = 1 << 20;

/// Largest outbox read back, bytes.
const MAX_OUTBOX: u64 = 16 << 20;

/// The state directory, open.
#[derive(Debug)]
pub struct Store {
    root: Folder,
    path: PathBuf,
    /// It was made just now.
    is_new: bool,
}

/// The right to write, as long as it lives.
#[derive(Debug)]
pub struct StoreLock {
    _held: Vec<fs::File>,
    unwritable: Option<StoreError>,
}

impl StoreLock {
    /// Why nothing can be written, where that is so already: what is stored can be read and served, but
    /// nothing can be kept, and so nothing is asked of a CA.
    pub fn unwritable(&self) -> Option<String> {
        let error = self.unwritable.as_ref()?;
        Some(format!(
            "{error}; what is stored is served, but NOTHING CAN BE RENEWED OR KEPT until that is mended"
        ))
    }
}

/// What can go wrong with the state directory.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process works on the same directory.
    #[error(
        "another wicketgate (pid {pid}) works on {}: stop it, or give this one a state-dir of its own", path.display()
    )]
    Locked {
        /// The state directory.
        path: PathBuf,
        /// Process id of the holder.
        pid: String,
    },
    /// Somebody else's directory.
    #[error(
        "{} belongs to uid {owner}, but wicketgate runs as uid {us}: run it as that user, or hand the directory over with `chown -R {us} {0}`", path.display()
    )]
    NotOurs {
        /// The state directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Who we are.
        us: u32,
    },
    /// Private keys would be readable or replaceable by others.
    #[error(
        "{} has mode {mode:04o}, which lets others at private keys: run `chmod 0700 {0}`, or 2750 with a group that may read them", path.display()
    )]
    TooOpen {
        /// The state directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The system refused an operation.
    #[error("cannot {action} {}: {source}{}", path.display(), remedy(source))]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Something that is not ours has the place of the link to a certificate.
    #[error(
        "{} is {found}, where a link to the certificate's files belongs, so nothing that is obtained could be served: move it out of the way (wicketgate has no use for what is in it)", path.display()
    )]
    InTheWay {
        /// The place.
        path: PathBuf,
        /// What is there.
        found: &'static str,
    },
    /// A version is stored, but the link still leads to the one before.
    #[error("what was obtained is stored as version {version}, but cannot be served yet: {why}")]
    NotLive {
        /// The version.
        version: Version,
        /// Why not.
        #[source]
        why: Box<StoreError>,
    },
    /// A stored file is damaged.
    #[error("{} is damaged: {reason}; {remedy}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
        /// What to do.
        remedy: &'static str,
    },
}

impl From<FolderError> for StoreError {
    fn from(FolderError { action, path, source }: FolderError) -> Self {
        Self::Io { action, path, source }
    }
}

fn remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free some space on that file system: what was stored before is untouched"
        }
        io::ErrorKind::ReadOnlyFilesystem => "; mount it writable, or choose another state-dir",
        io::ErrorKind::PermissionDenied => "; the directory must belong to the user that wicketgate runs as",
        _ => "",
    }
}

/// Whether it is the disk, or its rights, that allow nothing to be written.
fn cannot_be_written(error: &StoreError) -> bool {
    use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let StoreError::Io { source, .. } = error else { return false };
    matches!(source.kind(), PermissionDenied | QuotaExceeded | ReadOnlyFilesystem | StorageFull)
}

/// A file that holds what no program writes is damaged; one that the system does not hand out is not.
fn damaged_if_unreadable(error: FolderError, remedy: &'static str) -> StoreError {
    match error {
        FolderError { path, source, .. } if source.kind() == io::ErrorKind::InvalidData => {
            StoreError::Damaged { path, reason: source.to_string(), remedy }
        }
        other => other.into(),
    }
}

/// A version number of a lineage: 1, 2, 3 …
pub type Version = u32;

impl Store {
    /// Opens the state directory, creating it if it is missing. Created by root, it belongs to the user
    /// `wicketgate` where there is one.
    ///
    /// # Errors
    /// It belongs to somebody else, is open to others, or cannot be reached.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let us = rustix::process::geteuid().as_raw();
        let mut is_new = false;
        if let Err(e) = fs::symlink_metadata(path) {
            if e.kind() != io::ErrorKind::NotFound {
                return Err(StoreError::Io { action: "open", path: path.to_owned(), source: e });
            }
            create(path, us)?;
            is_new = true;
        } else {
            narrow(path, us)?;
        }
        Ok(Self { is_new, ..Self::open_existing(path)? })
    }

    /// Opens the state directory if there is one, for reading what another process keeps there.
    ///
    /// # Errors
    /// As [`Store::open`], and when it is missing.
    pub fn open_existing(path: &Path) -> Result<Self, StoreError> {
        let us = rustix::process::geteuid().as_raw();
        let root = Folder::open(path)?;
        let meta = root.metadata()?;
        if us != 0 && meta.uid() != us {
            return Err(StoreError::NotOurs { path: path.to_owned(), owner: meta.uid(), us });
        }
        let mode = meta.mode() & 0o7777;
        if mode & 0o027 != 0 {
            return Err(StoreError::TooOpen { path: path.to_owned(), mode });
        }
        let group_reads = mode & 0o050 == 0o050;
        let root = root.with_access(Access {
            group_reads,
            group: group_reads.then(|| meta.gid()),
            owner: (us == 0).then(|| Owner { uid: meta.uid(), gid: meta.gid() }),
        });
        Ok(Self { root, path: path.to_owned(), is_new: false })
    }

    /// Takes the lock, or says who holds it. It can be taken where nothing can be written, too: then the
    /// folder itself is what is locked, and nobody else can have it who could write later.
    ///
    /// # Errors
    /// [`StoreError::Locked`] while another process has it.
    pub fn lock(&self) -> Result<StoreLock, StoreError> {
        let (file, mut unwritable) = match self.root.open_lock("lock").map_err(StoreError::from) {
            Ok(file) => (Some(file), None),
            Err(e) if cannot_be_written(&e) => (self.root.open_to_read("lock")?, Some(e)),
            Err(e) => return Err(e),
        };
        let mut held = Vec::new();
        if let Some(mut file) = file {
            self.flock(&file, "lock", Some(&file))?;
            if unwritable.is_none() {
                // It is for people: the lock holds without it.
                let pid = format!("{}\n", std::process::id());
                let written = file.set_len(0).and_then(|()| io::Write::write_all(&mut file, pid.as_bytes()));
                unwritable = written.err().map(|e| self.root.failed("write", "lock", e).into());
            }
            held.push(file);
        }
        let folder = self.root.again()?;
        match self.flock(&folder, "", held.first()) {
            Ok(()) => held.push(folder),
            // Some network file systems lock nothing but files that are open for writing.
            Err(StoreError::Io { .. }) if !held.is_empty() => {}
            Err(e) => return Err(e),
        }
        Ok(StoreLock { _held: held, unwritable })
    }

    fn flock(&self, file: &fs::File, name: &str, names_holder: Option<&fs::File>) -> Result<(), StoreError> {
        match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let text = names_holder.map(io::read_to_string).and_then(Result::ok).unwrap_or_default();
                let pid = text.trim().parse::<u32>().map_or_else(|_| "unknown".to_owned(), |p| p.to_string());
                Err(StoreError::Locked { path: self.path.clone(), pid })
            }
            Err(e) => Err(self.root.failed("lock", name, e.into()).into()),
        }
    }

    /// The state directory's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder that servers read a certificate's files from.
    pub fn live_path(&self, name: &str) -> PathBuf {
        self.path.join("live").join(name)
    }

    /// The kept account of an issuer, as JSON.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn account(&self, issuer: &str) -> Result<Option<String>, StoreError> {
        let Some(folder) = self.root.existing("accounts")? else { return Ok(None) };
        let Some(folder) = folder.existing(issuer)? else { return Ok(None) };
        Ok(folder.read("account.json", MAX_FILE)?)
    }

    /// Keeps an account, mode 0600.
    ///
    /// # Errors
    /// It could not be written.
    pub fn save_account(&self, issuer: &str, json: &str) -> Result<(), StoreError> {
        let private = self.root.private();
        Ok(private.subfolder("accounts")?.subfolder(issuer)?.replace("account.json", json.as_bytes())?)
    }

    /// Whether there is an account at a CA: whoever has one has asked that CA for something.
    ///
    /// # Errors
    /// The folder is there and cannot be read.
    pub fn has_accounts(&self) -> Result<bool, StoreError> {
        match self.root.existing("accounts")? {
            Some(folder) => Ok(!folder.names()?.is_empty()),
            None => Ok(false),
        }
    }

    /// The roots of the embedded CA that were written before, as PEM.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn embedded_roots(&self) -> Result<Option<String>, StoreError> {
        match self.root.existing("embedded-ca")? {
            Some(folder) => Ok(folder.read("root.pem", MAX_FILE)?),
            None => Ok(None),
        }
    }

    /// Writes the embedded CA's roots where a person can pass them to curl; returns the path.
    ///
    /// # Errors
    /// It could not be written.
    pub fn save_embedded_roots(&self, pem: &str) -> Result<PathBuf, StoreError> {
        self.root.subfolder("embedded-ca")?.replace("root.pem", pem.as_bytes())?;
        Ok(self.path.join("embedded-ca/root.pem"))
    }

    /// What is kept about a lineage besides its certificate; the default where nothing is.
    ///
    /// # Errors
    /// The file is damaged or cannot be read.
    pub fn lineage_state(&self, name: &str) -> Result<LineageState, StoreError> {
        let Some(folder) = self.existing_lineage(name)? else { return Ok(LineageState::default()) };
        let remedy = "remove it: only the times of past attempts are lost";
        let text = folder.read("state.json", MAX_FILE).map_err(|e| damaged_if_unreadable(e, remedy))?;
        let Some(text) = text else { return Ok(LineageState::default()) };
        serde_json::from_str(&text).map_err(|e| StoreError::Damaged {
            path: self.path.join("lineages").join(name).join("state.json"),
            reason: e.to_string(),
            remedy,
        })
    }

    /// Keeps a lineage's state.
    ///
    /// # Errors
    /// It could not be written.
    pub fn save_lineage_state(&self, name: &str, state: &LineageState) -> Result<(), StoreError> {
        let text = serde_json::to_string_pretty(state).expect("plain values always have a JSON form");
        Ok(self.lineage(name)?.replace("state.json", text.as_bytes())?)
    }

    /// The notices on their way; an empty outbox where there is none.
    ///
    /// # Errors
    /// The file is damaged or cannot be read.
    pub fn outbox(&self) -> Result<Outbox, StoreError> {
        let remedy = "an empty one takes its place: notices that were not delivered are lost, and what was told may be told again";
        let text = self.root.read("outbox.json", MAX_OUTBOX).map_err(|e| damaged_if_unreadable(e, remedy))?;
        let Some(text) = text else { return Ok(Outbox::default()) };
        serde_json::from_str(&text).map_err(|e| StoreError::Damaged {
            path: self.path.join("outbox.json"),
            reason: e.to_string(),
            remedy,
        })
    }

    /// Keeps the notices on their way.
    ///
    /// # Errors
    /// It could not be written.
    pub fn save_outbox(&self, outbox: &Outbox) -> Result<(), StoreError> {
        let text = serde_json::to_string(outbox).expect("plain values always have a JSON form");
        Ok(self.root.replace("outbox.json", text.as_bytes())?)
    }

    /// The version that is live, with its number.
    ///
    /// # Errors
    /// There is one, but it cannot be read or does not hold together.
    pub fn current(&self, name: &str) -> Result<Option<(Version, Bundle)>, StoreError> {
        let Some(live) = self.root.existing("live")? else { return Ok(None) };
        let Some(target) = live.read_link(name)? else { return Ok(None) };
        let damaged =
            |reason: String| StoreError::Damaged { path: self.live_path(name), reason, remedy: FALL_BACK };
        let version = target
            .strip_prefix(&format!("../lineages/{name}/versions/"))
            .and_then(|v| v.parse::<Version>().ok())
            .ok_or_else(|| damaged(format!("it leads to {target}")))?;
        Ok(Some((version, self.version(name, version)?)))
    }

    /// The newest version older than `version` that holds together.
    ///
    /// # Errors
    /// The folders cannot be read.
    pub fn version_before(
        &self,
        name: &str,
        version: Version,
    ) -> Result<Option<(Version, Bundle)>, StoreError> {
        let Some(versions) = self.existing_versions(name)? else { return Ok(None) };
        let older = version_numbers(&versions)?.into_iter().rev().filter(|v| *v < version);
        Ok(older.into_iter().find_map(|v| Some((v, self.version(name, v).ok()?))))
    }

    /// A version that is kept, whether or not it is live.
    ///
    /// # Errors
    /// It is missing, cannot be read, or does not hold together: of a pair, both halves count.
    pub fn version(&self, name: &str, version: Version) -> Result<Bundle, StoreError> {
        let folder_name = version_name(version);
        let path = self.path.join("lineages").join(name).join("versions").join(&folder_name);
        let damaged = |reason: String| StoreError::Damaged { path: path.clone(), reason, remedy: FALL_BACK };
        let versions = self.existing_versions(name)?;
        let folder = versions.map(|v| v.existing(&folder_name)).transpose()?.flatten();
        let folder = folder.ok_or_else(|| damaged("it is missing".to_owned()))?;
        bundle::read(&folder)?.map_err(damaged)
    }

    fn existing_versions(&self, name: &str) -> Result<Option<Folder>, StoreError> {
        match self.existing_lineage(name)? {
            Some(lineage) => Ok(lineage.existing("versions")?),
            None => Ok(None),
        }
    }

    /// Stores a certificate, or both of a pair, as the lineage's next version and makes it live by one
    /// rename.
    ///
    /// # Errors
    /// Something could not be written; the version that was live still is. [`StoreError::NotLive`] where
    /// only the link could not be replaced: [`Store::make_live`] does what is left.
    pub fn save(&self, name: &str, bundle: &Bundle) -> Result<Version, StoreError> {
        let versions = self.lineage(name)?.subfolder("versions")?;
        let present = version_numbers(&versions)?;
        let version = present.last().copied().unwrap_or(0) + 1;
        let (draft, folder_name) = (draft_name(version), version_name(version));
        sweep(&versions, &draft)?;
        let written = versions
            .subfolder(&draft)
            .map_err(StoreError::from)
            .and_then(|folder| bundle::write(&folder, bundle))
            .and_then(|()| Ok(versions.rename(&draft, &folder_name)?))
            .and_then(|()| Ok(versions.sync()?));
        if let Err(e) = written {
            // Whatever cannot be tidied now is tidied before the next draft.
            let _ = versions.remove_tree(&draft);
            return Err(e);
        }
        self.make_live(name, version).map_err(|why| StoreError::NotLive { version, why: Box::new(why) })?;
        let outdated = present.len().saturating_sub(KEPT_VERSIONS - 1);
        for old in &present[..outdated] {
            // No version at all, before it is half of one.
            let (old, draft) = (version_name(*old), draft_name(*old));
            let removed = versions.rename(&old, &draft).and_then(|()| versions.remove_tree(&draft));
            if let Err(e) = removed.map_err(StoreError::from) {
                tracing::warn!(certificate = name, "an old version stays: {e}");
            }
        }
        Ok(version)
    }

    /// Finds out whether a new version could be stored and made live, before a CA is asked for one. What it
    /// tries leaves nothing behind but folders.
    ///
    /// # Errors
    /// Why not.
    pub fn is_ready_for(&self, name: &str) -> Result<(), StoreError> {
        let versions = self.lineage(name)?.subfolder("versions")?;
        let draft = ".ready.draft";
        versions.subfolder(draft)?;
        versions.remove_tree(draft)?;
        self.has_place_for(name)?;
        Ok(self.root.subfolder("live")?.try_link(name)?)
    }

    /// Finds out whether the place of the link to a certificate is free for it; nothing is written.
    ///
    /// # Errors
    /// [`StoreError::InTheWay`], or the folder cannot be read.
    pub fn has_place_for(&self, name: &str) -> Result<(), StoreError> {
        let Some(live) = self.root.existing("live")? else { return Ok(()) };
        match live.other_than_link(name)? {
            Some(found) => Err(StoreError::InTheWay { path: self.live_path(name), found }),
            None => Ok(()),
        }
    }

    /// Makes the newest version that holds together live, in the place of a damaged one.
    ///
    /// # Errors
    /// The folders cannot be read, or the link cannot be replaced.
    pub fn fall_back(&self, name: &str) -> Result<Option<Version>, StoreError> {
        let Some(versions) = self.existing_versions(name)? else { return Ok(None) };
        let whole = version_numbers(&versions)?.into_iter().rev().find(|v| self.version(name, *v).is_ok());
        if let Some(version) = whole {
            self.make_live(name, version)?;
        }
        Ok(whole)
    }

    /// Makes a version that is kept the live one, by one rename.
    ///
    /// # Errors
    /// The link cannot be replaced; the version that was live still is.
    pub fn make_live(&self, name: &str, version: Version) -> Result<(), StoreError> {
        let target = format!("../lineages/{name}/versions/{}", version_name(version));
        Ok(self.root.subfolder("live")?.replace_link(name, &target)?)
    }

    fn lineage(&self, name: &str) -> Result<Folder, StoreError> {
        Ok(self.root.subfolder("lineages")?.subfolder(name)?)
    }

    fn existing_lineage(&self, name: &str) -> Result<Option<Folder>, StoreError> {
        match self.root.existing("lineages")? {
            Some(lineages) => Ok(lineages.existing(name)?),
            None => Ok(None),
        }
    }
}

/// Takes from the group what lets it write, where somebody has let it at all that is in a volume (Kubernetes does, by
/// `fsGroup`): what is ours is shut again, for keys could be replaced otherwise.
fn narrow(path: &Path, us: u32) -> Result<(), StoreError> {
    let failed = |source| StoreError::Io {
        action: "take the group's right to write to",
        path: path.to_owned(),
        source,
    };
    let meta = fs::metadata(path).map_err(failed)?;
    // Root would do it in a folder where others may be moving things about.
    if us == 0 || meta.uid() != us || meta.mode() & 0o027 != 0o020 {
        return Ok(());
    }
    tracing::warn!(
        "{} and what is in it may be written by its group {}: that right is taken from it",
        path.display(),
        meta.gid()
    );
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            // Of a link, its own.
            let meta = entry.metadata().map_err(failed)?;
            if meta.uid() != us || meta.is_symlink() {
                continue;
            }
            let mode = meta.mode() & 0o7777 & !0o020;
            fs::set_permissions(entry.path(), fs::Permissions::from_mode(mode)).map_err(failed)?;
            if meta.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    fs::set_permissions(path, fs::Permissions::from_mode(meta.mode() & 0o7777 & !0o020)).map_err(failed)
}

fn create(path: &Path, us: u32) -> Result<(), StoreError> {
    let failed = |source| StoreError::Io { action: "create", path: path.to_owned(), source };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    fs::DirBuilder::new().mode(0o700).create(path).map_err(failed)?;
    if us == 0
        && let Ok(Some(user)) = nix::unistd::User::from_name("wicketgate")
    {
        std::os::unix::fs::chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).map_err(failed)?;
    }
    Ok(())
}

fn version_name(version: Version) -> String {
    format!("{version:04}")
}

/// The name of a version that is not whole, or soon will not be.
fn draft_name(version: Version) -> String {
    format!(".{version:04}.draft")
}

/// Removes what was left half made or half removed: nobody else works here. What cannot be removed is left
/// there, unless it is in the way.
fn sweep(versions: &Folder, next: &str) -> Result<(), StoreError> {
    for left in versions.names()?.iter().filter(|name| name.starts_with('.') && name.ends_with(".draft")) {
        match versions.remove_tree(left).map_err(StoreError::from) {
            Err(e) if left == next => return Err(e),
            Err(e) => tracing::warn!("a draft stays: {e}"),
            Ok(()) => {}
        }
    }
    Ok(())
}

fn version_numbers(versions: &Folder) -> Result<Vec<Version>, StoreError> {
    let number = |name: &String| name.parse().ok().filter(|n| *n < Version::MAX && version_name(*n) == *name);
    let mut numbers: Vec<Version> = versions.names()?.iter().filter_map(number).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::Certificate;
    use std::os::unix::fs::PermissionsExt;

    fn temporary() -> (tempfile::TempDir, PathBuf) {
        let holder = tempfile::tempdir().unwrap();
        let path = holder.path().join("state");
        (holder, path)
    }

    fn certificate() -> Bundle {
        let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        Certificate::stored(&made.cert.pem(), &made.signing_key.serialize_pem()).unwrap().into()
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn versions_follow_each_other_and_old_ones_go() {
        let (_holder, path) = temporary();
        let store = Store::open(&path).unwrap();
        assert!(store.current("a.example").unwrap().is_none());
        for wanted in 1..=7 {
            let certificate = certificate();
            assert_eq!(store.save("a.example", &certificate).unwrap(), wanted);
            // Whatever somebody puts there is pruned with it.
            fs::create_dir(path.join("live/a.example/backup")).unwrap();
            fs::write(path.join("live/a.example/backup/x"), "").unwrap();
            let (version, stored) = store.current("a.example").unwrap().unwrap();
            assert_eq!((version, stored.serial()), (wanted, certificate.serial()));
        }
        let versions = path.join("lineages/a.example/versions");
        let mut kept: Vec<_> =
            fs::read_dir(&versions).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        kept.sort();
        assert_eq!(kept, ["0003", "0004", "0005", "0006", "0007"]);
        assert_eq!(
            fs::read_link(path.join("live/a.example")).unwrap().to_str().unwrap(),
            "../lineages/a.example/versions/0007"
        );
    }

    #[test]
    fn modes_are_private_or_the_groups() {
        let (_holder, path) = temporary();
        let store = Store::open(&path).unwrap();
        store.save("a.example", &certificate()).unwrap();
        store.save_account("test", "{}").unwrap();
        let key = path.join("live/a.example/privkey.pem");
        assert_eq!((mode(&path), mode(&key)), (0o700, 0o600));

        fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
        let store = Store::open(&path).unwrap();
        store.save("b.example", &certificate()).unwrap();
        store.save_account("other", "{}").unwrap();
        assert_eq!(mode(&path.join("live/b.example/privkey.pem")), 0o640);
        assert_eq!(mode(&path.join("lineages/b.example/versions")), 0o750);
        assert_eq!(mode(&path.join("accounts/other/account.json")), 0o600);
        assert_eq!(mode(&path.join("accounts/other")), 0o700);
    }

    #[test]
    fn an_open_directory_is_refused() {
        let (_holder, path) = temporary();
        Store::open(&path).unwrap();
        for bad in [0o755, 0o770, 0o701] {
            fs::set_permissions(&path, fs::Permissions::from_mode(bad)).unwrap();
            assert!(matches!(Store::open(&path), Err(StoreError::TooOpen { mode, .. }) if mode == bad));
        }
    }

    #[test]
    fn a_second_lock_names_the_first_holder() {
        let (_holder, path) = temporary();
        let store = Store::open(&path).unwrap();
        let held = store.lock().unwrap();
        let refused = store.lock().unwrap_err().to_string();
        assert!(refused.contains(&format!("(pid {})", std::process::id())), "{refused}");
        drop(held);
        store.lock().unwrap();
    }

    #[test]
    fn a_half_written_draft_is_swept_away() {
        let (_holder, path) = temporary();
        let store = Store::open(&path).unwrap();
        store.save("a.example", &certificate()).unwrap();
        let drafts = [".0001.draft", ".0002.draft", ".0007.draft"];
        let drafts = drafts.map(|name| path.join("lineages/a.example/versions").join(name));
        for draft in &drafts {
            fs::create_dir(draft).unwrap();
            fs::write(draft.join("cert.pem"), "half").unwrap();
        }
        assert_eq!(store.save("a.example", &certificate()).unwrap(), 2);
        assert!(drafts.iter().all(|draft| !draft.exists()));
    }

    #[test]
    fn a_planted_link_is_not_followed() {
        let (holder, path) = temporary();
        let store = Store::open(&path).unwrap();
        let elsewhere = holder.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, path.join("lineages")).unwrap();
        assert!(store.save("a.example", &certificate()).is_err());
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    }

    #[test]
    fn damage_is_named_and_state_round_trips() {
        let (_holder, path) = temporary();
        let store = Store::open(&path).unwrap();
        let mut state = LineageState { issuer: Some("x".to_owned()), ..Default::default() };
        state.attempts.failures = 3;
        state.attempts.retry_at = Some("2026-11-23T10:00:00Z".parse().unwrap());
        let attempts = Attempts { failures: 1, ..Attempts::default() };
        state.deployed.insert(
            "nginx".to_owned(),
            Deployed { version: Some(7), under_way: true, goes_back: false, attempts },
        );
        store.save_lineage_state("a.example", &state).unwrap();
        assert_eq!(store.lineage_state("a.example").unwrap(), state);

        store.save("a.example", &certificate()).unwrap();
        store.save("a.example", &certificate()).unwrap();
        fs::write(path.join("live/a.example/privkey.pem"), "nonsense").unwrap();
        let told = store.current("a.example").unwrap_err().to_string();
        assert!(told.contains("is damaged: the private key cannot be read"), "{told}");
        assert_eq!(store.fall_back("a.example").unwrap(), Some(1));
        assert_eq!(store.current("a.example").unwrap().unwrap().0, 1);
        fs::write(path.join("live/a.example/fullchain.pem"), "").unwrap();
        assert_eq!(store.fall_back("a.example").unwrap(), None);
        fs::write(path.join("lineages/a.example/state.json"), "{").unwrap();
        assert!(store.lineage_state("a.example").unwrap_err().to_string().contains("state.json is damaged"));
    }
}
