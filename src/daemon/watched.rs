//! Files that somebody else writes, and that are read again when they change. Whoever writes them may be in the middle of
//! it: what is wrong once something good is in use is told only if it is still so at the next look.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// How often it is looked whether they have changed. A look is two or three system calls a file.
pub(super) const INTERVAL: Duration = Duration::from_secs(2);

/// By what a changed file is told from itself: device, inode, mode, size and the moment of its last change.
pub(super) type Mark = (u64, u64, u32, u64, i64, i64);

pub(super) fn mark(path: &Path) -> io::Result<Mark> {
    let meta = std::fs::metadata(path)?;
    Ok((meta.dev(), meta.ino(), meta.mode(), meta.size(), meta.mtime(), meta.mtime_nsec()))
}

/// What is wrong with a file, and whether it was told.
#[derive(Debug, Default)]
pub(super) struct Trouble(Option<(String, bool)>);

impl Trouble {
    pub(super) fn is_there(&self) -> bool {
        self.0.is_some()
    }

    /// What was told of it.
    pub(super) fn told(&self) -> Option<&str> {
        self.0.as_ref().filter(|(_, is_told)| *is_told).map(|(trouble, _)| trouble.as_str())
    }

    pub(super) fn is_over(&mut self) {
        self.0 = None;
    }

    /// Notes what a look has found, and whether it is to be told now: once, and where something good is in use only at
    /// the second look that finds it.
    pub(super) fn is_due(&mut self, found: &str, something_is_in_use: bool) -> bool {
        let before = self.0.take().filter(|(before, _)| before == found);
        let is_told = before.as_ref().is_some_and(|(_, is_told)| *is_told);
        let is_due = !is_told && (before.is_some() || !something_is_in_use);
        self.0 = Some((found.to_owned(), is_told || is_due));
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn told_once_and_not_while_it_may_pass() {
        let mut trouble = Trouble::default();
        let looks = [("half", false), ("none", false), ("none", true), ("none", false), ("half", false)];
        for (n, (found, due)) in looks.into_iter().enumerate() {
            assert_eq!(trouble.is_due(found, true), due, "look {n}");
        }
        assert_eq!(trouble.told(), None);
        trouble.is_due("half", true);
        assert_eq!(trouble.told(), Some("half"));
        trouble.is_over();
        assert!(!trouble.is_there());
        assert!(trouble.is_due("none", false) && !trouble.is_due("none", false));
    }
}
