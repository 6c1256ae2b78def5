//! The socket itself: made private before anyone can connect, removed at the end.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UnixListener;

/// Why there is no admin socket.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Another daemon answers on it.
    #[error("another wicketgate listens on {}: give this one another `admin.socket`", .0.display())]
    Taken(PathBuf),
    /// Something else has that name.
    #[error("{} is in the way of the admin socket and is no socket: remove it, or set another `admin.socket`", .0.display())]
    InTheWay(PathBuf),
    /// The system refused.
    #[error("cannot make the admin socket {}: {source}: set `admin.socket` to a place where this user may write", path.display())]
    Io {
        /// Its path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// A bound admin socket.
#[derive(Debug)]
pub struct AdminSocket {
    pub(super) listener: UnixListener,
    /// Removed from the file system on drop, unless it is the service manager's.
    path: Option<PathBuf>,
}

impl AdminSocket {
    /// Binds with mode 0600, in the place of a socket that nobody listens on. To be called inside a
    /// runtime.
    ///
    /// # Errors
    /// [`AdminError`] says what is in the way.
    pub fn bind(path: &Path) -> Result<Self, AdminError> {
        let failed = |source| AdminError::Io { path: path.to_owned(), source };
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        if let Ok(metadata) = std::fs::symlink_metadata(path) {
            if !metadata.file_type().is_socket() {
                return Err(AdminError::InTheWay(path.to_owned()));
            }
            if StdUnixStream::connect(path).is_ok() {
                return Err(AdminError::Taken(path.to_owned()));
            }
            std::fs::remove_file(path).map_err(failed)?;
        }
        let bind = || -> io::Result<UnixListener> {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            // The name that bind creates takes its mode from the socket, so it is never open to others.
            rustix::fs::fchmod(&socket, Mode::from_raw_mode(0o600))?;
            socket.bind(&SockAddr::unix(path)?)?;
            socket.listen(128)?;
            socket.set_nonblocking(true)?;
            UnixListener::from_std(StdUnixListener::from(std::os::fd::OwnedFd::from(socket)))
        };
        Ok(Self { listener: bind().map_err(failed)?, path: Some(path.to_owned()) })
    }

    /// One that the service manager holds. Who may connect is the unit's affair (`SocketMode=`), and looked at when
    /// he does. To be called inside a runtime.
    ///
    /// # Errors
    /// The system refused.
    pub fn inherited(listener: StdUnixListener) -> Result<Self, AdminError> {
        let failed = |source| AdminError::Io { path: PathBuf::from("from the service manager"), source };
        Ok(Self { listener: UnixListener::from_std(listener).map_err(failed)?, path: None })
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // Where it is gone already, all is well.
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[tokio::test]
    async fn it_is_private_and_replaces_only_dead_sockets() {
        let holder = tempfile::tempdir().unwrap();
        let path = holder.path().join("run/admin.sock");
        let socket = AdminSocket::bind(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(matches!(AdminSocket::bind(&path), Err(AdminError::Taken(_))));
        drop(socket);
        assert!(!path.exists());

        drop(StdUnixListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(AdminSocket::bind(&path).unwrap());

        std::fs::write(&path, "a file").unwrap();
        assert!(matches!(AdminSocket::bind(&path), Err(AdminError::InTheWay(_))));
    }
}
