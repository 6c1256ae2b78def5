//! What is open, or may be, on disk: written before anything is opened, so that whoever comes after a crash knows
//! what to shut, and how, whatever the configuration says by then.
//!
//! It has commands in it that root may run. So it is believed only if it is the helper's own user's, under one
//! name and no link: the state directory is the network-facing process's.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::config::{Closing, OpeningRecord as Record};
use crate::folder::Folder;

pub(super) const FILE: &str = "openings.json";
/// Longest record, bytes.
const LIMIT: u64 = 1 << 20;

/// What is open, or may be. Nothing is where there is no record.
///
/// # Errors
/// A sentence: it cannot be read, or is not to be believed.
pub(super) fn read(state_dir: &Path) -> Result<Record, String> {
    let us = rustix::process::geteuid().as_raw();
    let path = state_dir.join(FILE);
    let unusable = |reason: String| {
        format!(
            "{} says which openings to shut, and cannot be used: {reason}; see to it that nothing is open, and remove the file",
            path.display()
        )
    };
    let folder = match Folder::open(state_dir) {
        Ok(folder) => folder,
        Err(e) if e.source.kind() == std::io::ErrorKind::NotFound => return Ok(Record::default()),
        Err(e) => return Err(e.to_string()),
    };
    if let Ok(meta) = path.symlink_metadata()
        && meta.is_file()
        && meta.uid() != us
    {
        // It may well be sound: somebody else's helper has written it, and can read it.
        let (path, uid) = (path.display(), meta.uid());
        return Err(format!(
            "{path} says which openings to shut, and belongs to uid {uid}, not to uid {us}: run this as uid {uid}, as in `setpriv --reuid {uid} --clear-groups wicketgate openings close`; or, if that is nobody who opens anything here, see to it that nothing is open, and remove the file"
        ));
    }
    let text = folder.read_of(us, FILE, LIMIT).map_err(|e| unusable(e.source.to_string()))?;
    let Some(text) = text else { return Ok(Record::default()) };
    serde_json::from_str(&text).map_err(|e| unusable(e.to_string()))
}

/// Keeps what is open, or may be; without a file where nothing is.
///
/// # Errors
/// A sentence: it could not be written.
pub(super) fn write(state_dir: &Path, owner: &str, open: &[Closing]) -> Result<(), String> {
    let write = || {
        let folder = Folder::open(state_dir)?;
        if open.is_empty() {
            folder.unlink(FILE)?;
            return folder.sync();
        }
        let record = Record { owner: owner.to_owned(), open: open.to_vec() };
        let text = serde_json::to_vec_pretty(&record).expect("plain values always have a JSON form");
        folder.replace(FILE, &text)
    };
    write().map_err(|e| e.to_string())
}

/// Whether there is a record, whoever it belongs to.
pub(super) fn exists(state_dir: &Path) -> bool {
    let found = state_dir.join(FILE).symlink_metadata();
    found.is_ok_and(|meta| meta.nlink() > 0)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_was_planted_is_not() {
        let state = tempfile::tempdir().unwrap();
        let file = state.path().join(FILE);
        assert_eq!(read(state.path()), Ok(Record::default()));
        assert_eq!(read(&state.path().join("missing")), Ok(Record::default()));
        let open = [
            Closing::Nftables {
                set: ["inet", "filter", "a"].map(str::to_owned),
                ports: BTreeSet::from([80]),
            },
            Closing::Command {
                close: vec!["ufw".to_owned(), "x".to_owned()],
                environment: BTreeMap::new(),
                timeout: 9,
            },
        ];
        write(state.path(), "1-0", &open).unwrap();
        assert!(exists(state.path()));
        assert_eq!(read(state.path()), Ok(Record { owner: "1-0".to_owned(), open: open.to_vec() }));
        let bare = serde_json::to_string(&open).unwrap();
        std::fs::write(&file, bare).unwrap();
        assert_eq!(read(state.path()), Ok(Record { owner: String::new(), open: open.to_vec() }));
        std::fs::hard_link(&file, state.path().join("second")).unwrap();
        assert!(read(state.path()).unwrap_err().contains("a hard link"));
        std::fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink("second", &file).unwrap();
        assert!(read(state.path()).is_err(), "a link");
        std::fs::remove_file(&file).unwrap();
        std::fs::rename(state.path().join("second"), &file).unwrap();
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&file, Some(65534), None).unwrap();
            assert!(
                read(state.path())
                    .unwrap_err()
                    .contains("belongs to uid 65534, not to uid 0: run this as uid 65534")
            );
            std::os::unix::fs::chown(&file, Some(0), None).unwrap();
        }
        std::fs::write(&file, "[{\"command\":{}}]").unwrap();
        assert!(
            read(state.path()).unwrap_err().contains("see to it that nothing is open, and remove the file")
        );
        write(state.path(), "1-0", &[]).unwrap();
        assert!(!exists(state.path()));
    }
}
