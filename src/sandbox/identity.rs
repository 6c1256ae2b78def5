//! Who the process is: root's rights are given up for those of a user, and of the capabilities at most one is kept.

use std::ffi::CString;

use rustix::fs::{Gid, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::{Part, SandboxError, State};

/// A user to become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// His name, or his number where he has none.
    pub name: String,
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
}

/// There is no such user or group.
#[derive(Debug, thiserror::Error)]
#[error(
    "{key} = {name:?}: there is none of that name: create it, as with `useradd --system {name}`, or name another"
)]
pub struct UserError {
    key: &'static str,
    name: String,
}

impl Identity {
    /// A user by his name, with his groups, or with another first group.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn named(name: &str, group: Option<&str>) -> Result<Self, UserError> {
        let unknown = |key, name: &str| UserError { key, name: name.to_owned() };
        let user = nix::unistd::User::from_name(name).ok().flatten().ok_or_else(|| unknown("user", name))?;
        let mut identity = Self::of(&user);
        if let Some(group) = group {
            let found = nix::unistd::Group::from_name(group).ok().flatten();
            identity.gid = found.ok_or_else(|| unknown("group", group))?.gid.as_raw();
        }
        Ok(identity)
    }

    /// Whom a file belongs to; `None` for root's.
    pub fn owner(meta: &impl std::os::unix::fs::MetadataExt) -> Option<Self> {
        if meta.uid() == 0 {
            return None;
        }
        let known = nix::unistd::User::from_uid(meta.uid().into()).ok().flatten();
        Some(known.as_ref().map_or_else(
            || Self {
                name: format!("uid {}", meta.uid()),
                uid: meta.uid(),
                gid: meta.gid(),
                groups: Vec::new(),
            },
            Self::of,
        ))
    }

    fn of(user: &nix::unistd::User) -> Self {
        let groups = CString::new(user.name.clone())
            .ok()
            .and_then(|name| nix::unistd::getgrouplist(&name, user.gid).ok());
        Self {
            name: user.name.clone(),
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            groups: groups.unwrap_or_default().into_iter().map(nix::unistd::Gid::as_raw).collect(),
        }
    }

    /// His number.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// His first group's.
    pub fn gid(&self) -> u32 {
        self.gid
    }
}

/// Becomes the user, where this is root and there is one, and keeps of the capabilities only that to bind low ports,
/// and only where it is needed and there.
pub(super) fn assume(identity: Option<&Identity>, keeps_binding: bool) -> Result<Part, SandboxError> {
    let failed = |what| move |source: rustix::io::Errno| SandboxError::Failed { what, source: source.into() };
    let is_root = rustix::process::geteuid().is_root();
    let now = rustix::thread::capabilities(None).map_err(failed("reading the capabilities"))?;
    let kept =
        if keeps_binding { now.permitted & CapabilitySet::NET_BIND_SERVICE } else { CapabilitySet::empty() };
    for bit in (0..63).map(|n| CapabilitySet::from_bits_retain(1 << n)) {
        // As far as the kernel has them, and with a right that root has and a plain user does not.
        if rustix::thread::remove_capability_from_bounding_set(bit).is_err() {
            break;
        }
    }
    if let (true, Some(identity)) = (is_root, identity) {
        rustix::thread::set_keep_capabilities(true).map_err(failed("keeping a capability"))?;
        let groups: Vec<_> = identity.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
        let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
        rustix::thread::set_thread_groups(&groups).map_err(failed("leaving root's groups"))?;
        rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(failed("changing the group"))?;
        rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(failed("changing the user"))?;
    }
    let _ = rustix::thread::clear_ambient_capability_set();
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets).map_err(failed("giving up capabilities"))?;
    let user = identity.filter(|_| is_root).map_or_else(
        || format!("uid {}", rustix::process::geteuid().as_raw()),
        |identity| identity.name.clone(),
    );
    let kept = if kept.is_empty() { "no capability" } else { "CAP_NET_BIND_SERVICE alone" };
    if is_root && identity.is_none() {
        // Whose files are root's, and so are many sockets.
        let note =
            format!("runs as root, with {kept}: name a `user`, or have the state directory belong to one");
        return Ok(Part::new("user", State::Partly, note));
    }
    Ok(Part::new("user", State::On, format!("runs as {user}, with {kept}")))
}
