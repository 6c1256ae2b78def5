//! Whether the state directory will still be there after the next start. In a container without a volume
//! it will not, and then every start begins without account and certificates and asks the CA for new ones,
//! until the CA has had enough.

use std::env;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{Store, StoreError};

/// Where the state directory lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permanence {
    /// On something that nothing says will go away.
    Kept,
    /// In memory: gone when the machine or the container stops.
    Memory,
    /// On a container's own layer: gone with the container.
    ContainerLayer,
    /// On an overlay that is the root of this system, and it was not there before this start.
    Overlay,
}

/// What can be seen of it.
#[derive(Debug, Clone, Copy)]
struct Found {
    /// The magic number of the state directory's file system.
    file_system: u32,
    /// It is on the same file system as `/`.
    on_root: bool,
    /// Something says that this is a container whose root goes with it.
    in_container: bool,
    /// This very start has made it.
    is_new: bool,
}

const TMPFS: u32 = 0x0102_1994;
const RAMFS: u32 = 0x8584_58f6;
const OVERLAY: u32 = 0x794c_7630;

/// Values of the variable `container` for those whose root is an image's layer. Others, as systemd-nspawn
/// and LXC, keep their root.
const LAYERED: [&str; 4] = ["docker", "podman", "oci", "containerd"];

impl Permanence {
    /// A sentence for a warning, where there is something to warn about.
    pub fn warning(self, state_dir: &Path) -> Option<String> {
        let path = state_dir.display();
        let remedy = "every start then begins without account, certificates and memory of the CA's limits";
        match self {
            Self::Kept => None,
            Self::Memory => Some(format!(
                "the state directory {path} is kept in memory and is lost when the machine or the container stops: put it on a disk or mount a volume there, because {remedy}"
            )),
            Self::ContainerLayer => Some(format!(
                "the state directory {path} is on the container's own layer and is lost with it: mount a volume there, because {remedy}"
            )),
            Self::Overlay => Some(format!(
                "the state directory {path} is new, and on an overlay that may be gone at the next start: if so, mount a volume there, because {remedy}"
            )),
        }
    }

    fn judge(found: Found) -> Self {
        match found.file_system {
            TMPFS | RAMFS => Self::Memory,
            _ if found.on_root && found.in_container => Self::ContainerLayer,
            // A router's root is an overlay as well, and keeps what is written to it.
            OVERLAY if found.on_root && found.is_new => Self::Overlay,
            _ => Self::Kept,
        }
    }
}

impl Store {
    /// Whether what is kept here outlives the machine's or the container's next start, as far as that can
    /// be seen. A volume or a bind mount does.
    ///
    /// # Errors
    /// The directory, or `/`, cannot be examined.
    pub fn permanence(&self) -> Result<Permanence, StoreError> {
        let root = std::fs::metadata("/").map_err(|source| StoreError::Io {
            action: "examine",
            path: "/".into(),
            source,
        })?;
        Ok(Permanence::judge(Found {
            file_system: self.root.file_system()?,
            on_root: self.root.metadata()?.dev() == root.dev(),
            in_container: in_container(),
            is_new: self.is_new,
        }))
    }
}

fn in_container() -> bool {
    ["/.dockerenv", "/run/.containerenv"].iter().any(|mark| Path::new(mark).exists())
        || env::var("container").is_ok_and(|kind| LAYERED.contains(&kind.as_str()))
        || env::var_os("KUBERNETES_SERVICE_HOST").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXT4: u32 = 0xef53;

    #[test]
    fn a_volume_does_not_warn() {
        let found =
            |file_system, on_root, in_container, is_new| Found { file_system, on_root, in_container, is_new };
        for (found, wanted) in [
            (found(EXT4, true, false, true), Permanence::Kept),
            (found(EXT4, false, false, false), Permanence::Kept),
            (found(EXT4, false, true, true), Permanence::Kept),
            (found(OVERLAY, false, true, true), Permanence::Kept),
            (found(OVERLAY, true, true, false), Permanence::ContainerLayer),
            (found(EXT4, true, true, true), Permanence::ContainerLayer),
            (found(OVERLAY, true, false, true), Permanence::Overlay),
            (found(OVERLAY, true, false, false), Permanence::Kept),
            (found(TMPFS, false, true, true), Permanence::Memory),
            (found(RAMFS, true, false, false), Permanence::Memory),
        ] {
            assert_eq!(Permanence::judge(found), wanted, "{found:?}");
            let warning = wanted.warning(Path::new("/var/lib/wicketgate"));
            assert_eq!(warning.is_none(), wanted == Permanence::Kept);
            assert!(warning.is_none_or(|text| text.contains("/var/lib/wicketgate")));
        }
    }

    #[test]
    fn shared_memory_is_memory() {
        let Ok(holder) = tempfile::tempdir_in("/dev/shm") else { return };
        let store = Store::open(&holder.path().join("state")).unwrap();
        assert!(store.is_new);
        assert_eq!(store.permanence().unwrap(), Permanence::Memory);
        assert!(!Store::open(&holder.path().join("state")).unwrap().is_new);
    }
}
