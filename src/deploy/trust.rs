//! Who could change a file: what somebody else than root and this process's own user may change is
//! neither run nor written to, since that would be doing as they please.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// More links than this on one way lead in a circle.
const MAX_LINKS: usize = 40;

/// The file behind a path, links followed, if nobody else than root and the user `us` could change it, or
/// any folder or link on the way to it. In a sticky folder everybody may create, but what is root's or
/// ours stays what it is.
///
/// # Errors
/// A sentence: which path somebody else could change, and what mends it.
pub(super) fn settled(path: &Path, us: u32) -> Result<PathBuf, String> {
    let mut reached = PathBuf::from("/");
    let mut ahead: VecDeque<OsString> = names(path).collect();
    let mut links = 0;
    judge(&reached, us)?;
    while let Some(name) = ahead.pop_front() {
        if name == ".." {
            reached.pop();
            continue;
        }
        let next = reached.join(&name);
        if !judge(&next, us)? {
            reached = next;
            continue;
        }
        links += 1;
        if links > MAX_LINKS {
            return Err(format!("{} leads in a circle: correct the symbolic links", path.display()));
        }
        let target = fs::read_link(&next).map_err(|e| format!("cannot read {}: {e}", next.display()))?;
        if target.is_absolute() {
            reached = PathBuf::from("/");
        }
        for name in names(&target).collect::<Vec<_>>().into_iter().rev() {
            ahead.push_front(name);
        }
    }
    Ok(reached)
}

fn names(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsStr::new("..").to_owned()),
        _ => None,
    })
}

/// Whether it is a link; an error if somebody else could change it.
fn judge(path: &Path, us: u32) -> Result<bool, String> {
    let meta = fs::symlink_metadata(path).map_err(|e| format!("cannot examine {}: {e}", path.display()))?;
    let is_link = meta.is_symlink();
    if meta.uid() != 0 && meta.uid() != us {
        return Err(format!(
            "{0} belongs to {1}, who could change it: name another path, or, if you know what it is, run `chown -h {2} {0}`",
            path.display(),
            user(meta.uid()),
            user(us)
        ));
    }
    let is_sticky_folder = meta.is_dir() && meta.mode() & 0o1000 != 0;
    if !is_link
        && !is_sticky_folder
        && let Some((who, remedy)) = open_to(meta.mode())
    {
        return Err(format!(
            "{0} has mode {1:04o}, so that {who} could change it: run `chmod {remedy} {0}`",
            path.display(),
            meta.mode() & 0o7777
        ));
    }
    Ok(is_link)
}

/// Who else may write by these permission bits, and what takes that away.
pub(super) fn open_to(mode: u32) -> Option<(&'static str, &'static str)> {
    match (mode & 0o020 != 0, mode & 0o002 != 0) {
        (true, true) => Some(("anybody", "go-w")),
        (true, false) => Some(("its group", "g-w")),
        (false, true) => Some(("anybody", "o-w")),
        (false, false) => None,
    }
}

/// A user's name for a sentence, or its number.
pub(super) fn user(uid: u32) -> String {
    match nix::unistd::User::from_uid(uid.into()) {
        Ok(Some(user)) => user.name,
        _ => format!("uid {uid}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn set(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_others_could_change_is_told_with_its_remedy() {
        let holder = tempfile::tempdir().unwrap();
        let us = rustix::process::geteuid().as_raw();
        let (folder, link) = (holder.path().join("folder"), holder.path().join("link"));
        let file = folder.join("script");
        fs::create_dir(&folder).unwrap();
        fs::write(&file, "").unwrap();
        symlink("folder/../folder/script", &link).unwrap();
        set(&folder, 0o755);
        set(&file, 0o700);
        assert_eq!(settled(&link, us).as_deref(), Ok(fs::canonicalize(&file).unwrap().as_path()));
        for (path, mode, who, remedy) in [
            (&file, 0o720, "its group", "g-w"),
            (&file, 0o702, "anybody", "o-w"),
            (&file, 0o777, "anybody", "go-w"),
            (&folder, 0o775, "its group", "g-w"),
            (&folder, 0o757, "anybody", "o-w"),
        ] {
            let before = fs::metadata(path).unwrap().mode();
            set(path, mode);
            let told = settled(&link, us).unwrap_err();
            let shown = path.display();
            let wanted = format!(
                "{shown} has mode {mode:04o}, so that {who} could change it: run `chmod {remedy} {shown}`"
            );
            assert_eq!(told, wanted);
            set(path, before & 0o7777);
        }
        // In a sticky folder, what is ours stays ours.
        set(&folder, 0o1777);
        assert!(settled(&link, us).is_ok());
        // Seen by another user, who is not root either, what is ours is somebody else's.
        if us != 0 {
            assert!(settled(&link, us + 1).unwrap_err().contains("who could change it: name another path"));
        }
    }

    #[test]
    fn circles_and_holes_end() {
        let holder = tempfile::tempdir().unwrap();
        let us = rustix::process::geteuid().as_raw();
        symlink("b", holder.path().join("a")).unwrap();
        symlink("a", holder.path().join("b")).unwrap();
        assert!(settled(&holder.path().join("a"), us).unwrap_err().contains("in a circle"));
        assert!(settled(&holder.path().join("missing"), us).unwrap_err().starts_with("cannot examine"));
    }
}
