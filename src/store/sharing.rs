//! Whether the group that may read certificates and keys will be able to: what a process creates belongs to its own
//! group, unless the folder around it says otherwise (its set-group-ID bit).

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::{Store, StoreError};

/// What decides it.
#[derive(Debug, Clone, Copy)]
struct Sharing {
    /// The state directory's group.
    group: u32,
    /// This process may give files to that group.
    is_member: bool,
    /// What is created in the state directory belongs to its group.
    inherits: bool,
    /// The process's umask lets the group at what is created.
    lets_group: bool,
}

impl Store {
    /// Why the group of the state directory could not read what is stored, where it should.
    ///
    /// # Errors
    /// It cannot be told.
    pub fn sharing_warning(&self) -> Result<Option<String>, StoreError> {
        let access = self.root.access();
        if !access.group_reads || access.owner.is_some() {
            return Ok(None);
        }
        let meta = self.root.metadata()?;
        let groups = rustix::process::getgroups().unwrap_or_default();
        let own = rustix::process::getegid();
        let sharing = Sharing {
            group: meta.gid(),
            is_member: own.as_raw() == meta.gid() || groups.iter().any(|group| group.as_raw() == meta.gid()),
            inherits: meta.mode() & 0o2000 != 0,
            // Where it cannot be told, nothing is said.
            lets_group: fs::read_to_string("/proc/self/status")
                .map_or(true, |text| umask(&text) & 0o050 == 0),
        };
        Ok(sharing.remedy().map(|remedy| {
            format!(
                "group {} may read {}, but not what this process will write there: {}",
                sharing.group,
                self.path.display(),
                remedy.replace("PATH", &self.path.display().to_string())
            )
        }))
    }
}

impl Sharing {
    fn remedy(self) -> Option<&'static str> {
        match self {
            Self { is_member: true, .. } => None,
            Self { inherits: false, .. } => {
                Some("run `find PATH -type d -exec chmod g+s {} +`, so that files there get its group")
            }
            Self { lets_group: false, .. } => Some("run it with a umask of 027 (`UMask=0027` in a unit)"),
            Self { .. } => None,
        }
    }
}

/// The umask, from proc_pid_status(5).
fn umask(status: &str) -> u32 {
    let value = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    value.and_then(|value| u32::from_str_radix(value.trim(), 8).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_between_a_group_and_its_files() {
        let sharing = |is_member, inherits, lets_group| Sharing { group: 1, is_member, inherits, lets_group };
        for (sharing, expected) in [
            (sharing(true, false, false), ""),
            (sharing(false, true, true), ""),
            (sharing(false, false, true), "g+s"),
            (sharing(false, true, false), "UMask=0027"),
        ] {
            let remedy = sharing.remedy().unwrap_or_default();
            assert_eq!(remedy.is_empty(), expected.is_empty(), "{sharing:?}");
            assert!(remedy.contains(expected), "{sharing:?}");
        }
    }

    #[test]
    fn the_umask_is_octal() {
        assert_eq!(umask("Name:\twicketgate\nUmask:\t0027\nState:\tR\n"), 0o027);
        assert_eq!(umask("Name:\tx\n"), 0);
    }
}
