//! The room that the network-facing process shuts itself into once everything is bound, and what is outside of it:
//! the process that starts its helpers.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use rustix::process::geteuid;
use socket2::{Domain, Protocol, Socket, Type};

use super::DaemonError;
use crate::config::{Config, Sandbox};
use crate::deploy::Helper;
use crate::deploy::starter::Starter;
use crate::sandbox::plan::{Plan, named_files};
use crate::sandbox::{self, Identity, Part};

/// Files outside the room that others replace; a new one in the place of one that was there at the start cannot be
/// seen from within.
const REPLACED: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];

/// Where helpers come from.
pub(super) enum Source {
    /// Each is started directly.
    Arguments(Vec<OsString>),
    /// A process that was started before has them started.
    Starter(Arc<Starter>),
}

impl Source {
    /// Starts that process, unless there is no room to be shut into.
    pub(super) fn new(config: &Config, helper: Vec<OsString>, starter: &[OsString]) -> io::Result<Self> {
        if config.sandbox == Sandbox::Off {
            return Ok(Self::Arguments(helper));
        }
        Ok(Self::Starter(Arc::new(Starter::start(starter)?)))
    }

    pub(super) fn helper(&self) -> Helper {
        match self {
            Self::Arguments(arguments) => Helper::new(arguments.clone()),
            Self::Starter(starter) => Helper::started_by(starter.clone()),
        }
    }

    pub(super) fn starter(&self) -> Option<Arc<Starter>> {
        match self {
            Self::Arguments(_) => None,
            Self::Starter(starter) => Some(starter.clone()),
        }
    }
}

/// Whom to become, and what is kept of the way in.
pub(super) struct Room {
    identity: Option<Identity>,
    /// For the CA in this program, whose port has to be known beforehand.
    pub(super) embedded: Arc<Socket>,
    /// Where that is.
    embedded_port: u16,
    /// Ports of the proxies that the environment names.
    proxies: BTreeSet<u16>,
    plan: Option<Plan>,
    /// Of [`REPLACED`], those that could be read when the door was shut, and have not been missed since.
    watched: RefCell<Vec<&'static str>>,
}

impl Room {
    /// Finds out whom to become, and has the state directory be his.
    ///
    /// # Errors
    /// There is no such user, or the state directory is another's.
    pub(super) fn prepare(config: &Config) -> Result<Self, DaemonError> {
        // Nobody listens there before that CA is wanted.
        let embedded = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        embedded.set_nonblocking(true)?;
        embedded.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        let address = embedded.local_addr()?.as_socket();
        Ok(Self {
            identity: identity(config)?,
            embedded: Arc::new(embedded),
            embedded_port: address.map_or(0, |address| address.port()),
            proxies: proxies(std::env::vars()),
            plan: None,
            watched: RefCell::default(),
        })
    }

    /// Gives a file to the user whom this process will be.
    pub(super) fn hand_over(&self, path: &Path) {
        if let Some(identity) = &self.identity {
            // Where it cannot be, root can do what he could do with it.
            let _ = std::os::unix::fs::chown(path, Some(identity.uid()), Some(identity.gid()));
        }
    }

    /// Shuts the door; what came of each part. To be called while there is one thread.
    ///
    /// # Errors
    /// Not all that is required, or something is kept that shall not be.
    pub(super) fn enter(&mut self, config: &Config) -> Result<Vec<Part>, DaemonError> {
        if config.sandbox == Sandbox::Off {
            return Ok(Vec::new());
        }
        let threads = fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
        if threads != 1 {
            tracing::error!(
                threads,
                "the sandbox does not hold for every thread; this is a bug, please report it"
            );
        }
        let plan = self.plan_of(config);
        let mut parts = sandbox::enter(&plan, self.identity.as_ref())?;
        if config.sandbox == Sandbox::Required {
            sandbox::require_all(&parts)?;
        }
        let unreadable = named_files(config).find(|file| fs::File::open(file).is_err());
        if let (Some(file), Some(part)) = (unreadable, parts.iter_mut().find(|part| part.part == "user")) {
            let sentence = format!(
                "it may not read {0}, and what needs it will fail: `chgrp GROUP {0}` and `chmod 0640 {0}`",
                file.display()
            );
            tracing::warn!("sandbox: {}; {sentence}", part.note);
            part.note.push_str(&format!("; {sentence}"));
        }
        if let (Some((user, _)), None) = (&config.user, &self.identity)
            && Identity::named(user, None).map_or(true, |wanted| wanted.uid() != geteuid().as_raw())
        {
            tracing::warn!(
                "sandbox: `user = {user:?}` needs a start by root; this one runs as uid {}",
                geteuid().as_raw()
            );
        }
        for part in &parts {
            tracing::info!("sandbox: {} {}: {}", part.part, part.state, part.note);
        }
        self.plan = Some(plan);
        let is_read = |path: &&str| fs::File::open(path).is_ok();
        *self.watched.borrow_mut() = REPLACED.into_iter().filter(is_read).collect();
        Ok(parts)
    }

    /// What a new configuration needs that cannot be had in here, in words.
    pub(super) fn lacks(&self, config: &Config) -> Vec<String> {
        let Some(plan) = &self.plan else { return Vec::new() };
        plan.lacks(&self.plan_of(config))
    }

    fn plan_of(&self, config: &Config) -> Plan {
        Plan::of(config, &self.proxies, self.embedded_port)
    }

    /// A file that was replaced since the last look, so that it cannot be read from within any more.
    pub(super) fn replaced(&self) -> Option<&'static str> {
        let mut watched = self.watched.borrow_mut();
        let is_lost =
            |path: &&str| fs::File::open(path).is_err_and(|e| e.kind() == io::ErrorKind::PermissionDenied);
        let place = watched.iter().position(is_lost)?;
        Some(watched.remove(place))
    }
}

fn identity(config: &Config) -> Result<Option<Identity>, DaemonError> {
    if !geteuid().is_root() || config.sandbox == Sandbox::Off {
        return Ok(None);
    }
    let state = &config.state_dir;
    let Some((name, group)) = &config.user else {
        return Ok(fs::metadata(state).ok().and_then(|meta| Identity::owner(&meta)));
    };
    let identity = Identity::named(name, group.as_deref()).map_err(DaemonError::User)?;
    if !state.exists() {
        fs::create_dir_all(state)?;
        std::os::unix::fs::chown(state, Some(identity.uid()), Some(identity.gid()))?;
        fs::set_permissions(state, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    }
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(state)?);
    if owner != identity.uid() {
        return Err(DaemonError::NotHis { state: state.clone(), user: name.clone(), owner });
    }
    Ok(Some(identity))
}

/// The ports in HTTPS_PROXY and its like.
fn proxies(variables: impl Iterator<Item = (String, String)>) -> BTreeSet<u16> {
    let named = variables.filter(|(name, _)| name.to_ascii_lowercase().ends_with("_proxy"));
    let port = |value: &str| {
        let url: http::Uri = value.parse().ok().or_else(|| format!("http://{value}").parse().ok())?;
        Some(url.port_u16().unwrap_or(if url.scheme_str() == Some("https") { 443 } else { 80 }))
    };
    named.filter_map(|(_, value)| port(&value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_proxies() {
        let variables = [
            ("HTTPS_PROXY", "http://proxy.example:3128"),
            ("https_proxy", "proxy.example:8080"),
            ("ALL_PROXY", "https://proxy.example"),
            ("HOME", "/root:1"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(proxies(variables.into_iter()), BTreeSet::from([443, 3128, 8080]));
    }
}
