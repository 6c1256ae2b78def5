//! Listening sockets that the service manager holds and passes on (sd_listen_fds(3)): who comes while nobody
//! listens, during a restart say, waits in them and is not refused.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use listenfd::ListenFd;

/// The sockets that were passed and are not taken yet.
#[derive(Debug, Default)]
pub struct Inherited {
    tcp: Vec<(SocketAddr, TcpListener)>,
    unix: Vec<(PathBuf, UnixListener)>,
}

/// A socket was passed that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InheritedError {
    /// It does not listen for connections.
    #[error(
        "the service manager passed a socket (number {number}) that is no listening TCP or unix socket: in the .socket unit, write `ListenStream=` alone"
    )]
    Kind {
        /// From 1 on, in the order of the unit.
        number: usize,
    },
    /// The configuration does not have it.
    #[error(
        "the service manager passed a socket for {0}, where nothing listens by this configuration: correct `ListenStream=` in the .socket unit, or `listen` under [gate] or [front], or `admin.socket`"
    )]
    Unwanted(String),
    /// The system refused.
    #[error("a socket from the service manager cannot be used: {0}")]
    Io(#[from] io::Error),
}

impl Inherited {
    /// Takes what was passed to this process, if anything, and forgets the variables that told of it. To be called
    /// before any thread is started.
    ///
    /// # Errors
    /// [`InheritedError`]
    pub fn take() -> Result<Self, InheritedError> {
        let mut passed = ListenFd::from_env();
        let mut inherited = Self::default();
        for place in 0..passed.len() {
            if let Ok(Some(listener)) = passed.take_tcp_listener(place) {
                listener.set_nonblocking(true)?;
                inherited.tcp.push((listener.local_addr()?, listener));
            } else if let Ok(Some(listener)) = passed.take_unix_listener(place) {
                listener.set_nonblocking(true)?;
                let address = listener.local_addr()?;
                inherited.unix.push((address.as_pathname().unwrap_or(Path::new("")).to_owned(), listener));
            } else {
                return Err(InheritedError::Kind { number: place + 1 });
            }
        }
        Ok(inherited)
    }

    /// Whether that address was passed.
    pub fn has(&self, address: SocketAddr) -> bool {
        self.place(address).is_some()
    }

    /// The socket for that address, if it was passed.
    pub fn tcp(&mut self, address: SocketAddr) -> Option<TcpListener> {
        self.place(address).map(|place| self.tcp.swap_remove(place).1)
    }

    fn place(&self, address: SocketAddr) -> Option<usize> {
        let is_same = |passed: SocketAddr| {
            let is_any = |address: SocketAddr| address.ip().is_unspecified();
            passed == address || (passed.port() == address.port() && is_any(passed) && is_any(address))
        };
        self.tcp.iter().position(|(passed, _)| is_same(*passed))
    }

    /// The unix socket of that path, if it was passed.
    pub fn unix(&mut self, path: &Path) -> Option<UnixListener> {
        let place = self.unix.iter().position(|(passed, _)| passed == path)?;
        Some(self.unix.swap_remove(place).1)
    }

    /// Whether all were taken.
    ///
    /// # Errors
    /// One is left: who knocks there would never be answered.
    pub fn finish(self) -> Result<(), InheritedError> {
        let tcp = self.tcp.first().map(|(address, _)| address.to_string());
        match tcp.or_else(|| self.unix.first().map(|(path, _)| path.display().to_string())) {
            Some(left) => Err(InheritedError::Unwanted(left)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_taken_by_their_addresses() {
        let tcp = |address: &str| (address.parse().unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let holder = tempfile::tempdir().unwrap();
        let path = holder.path().join("admin.sock");
        let mut inherited = Inherited {
            tcp: vec![tcp("[::]:80"), tcp("127.0.0.1:443"), tcp("0.0.0.0:8080")],
            unix: vec![(path.clone(), UnixListener::bind(&path).unwrap())],
        };
        assert!(inherited.has("0.0.0.0:80".parse().unwrap()) && !inherited.has("[::]:443".parse().unwrap()));
        assert!(inherited.tcp("[::]:80".parse().unwrap()).is_some());
        assert!(inherited.tcp("[::]:80".parse().unwrap()).is_none());
        assert!(inherited.tcp("127.0.0.2:443".parse().unwrap()).is_none());
        assert!(inherited.tcp("127.0.0.1:443".parse().unwrap()).is_some());
        assert!(inherited.unix(Path::new("/elsewhere")).is_none());
        assert!(inherited.unix(&path).is_some());
        let told = inherited.finish().unwrap_err().to_string();
        assert!(told.contains("a socket for 0.0.0.0:8080, where nothing listens"), "{told}");
        assert!(Inherited::default().finish().is_ok());
    }
}
