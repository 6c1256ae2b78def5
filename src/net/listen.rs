//! Listening sockets, bound before anything else starts, with errors that name the remedy.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use super::holder::{self, Holder};
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

/// How many connections the kernel queues until they are accepted; it caps this by
/// `net.core.somaxconn`.
pub(super) const BACKLOG: usize = 4096;

/// How to bind.
#[derive(Debug, Clone, Copy, Default)]
pub struct ListenOptions {
    /// Several listeners of one user may share the address, each with its own queue.
    pub reuse_port: bool,
}

/// Why an address could not be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// EADDRINUSE
    #[error(
        "cannot listen on {address}: another program holds the port{}: stop it, or choose another port under `listen`{}",
        shown(holder),
        ways_out(address.port())
    )]
    InUse {
        /// What was asked for.
        address: SocketAddr,
        /// Who has it, as far as this user may see.
        holder: Option<Holder>,
    },
    /// EACCES
    #[error(
        "cannot listen on {0}: port {port} is privileged; start as root, or grant CAP_NET_BIND_SERVICE (`AmbientCapabilities=CAP_NET_BIND_SERVICE` in a systemd unit)",
        port = .0.port()
    )]
    Forbidden(SocketAddr),
    /// EADDRNOTAVAIL
    #[error(
        "cannot listen on {0}: this machine has no such address; `ip address` lists those it has, `[::]:{port}` means all of them",
        port = .0.port()
    )]
    NoSuchAddress(SocketAddr),
    /// Anything else the kernel said.
    #[error(
        "cannot listen on {address}: {cause}; choose another address under `listen`, or repair the cause"
    )]
    Other {
        /// What was asked for.
        address: SocketAddr,
        /// The kernel's answer.
        #[source]
        cause: io::Error,
    },
}

fn shown(holder: &Option<Holder>) -> String {
    match holder {
        Some(holder) => format!(" ({holder})"),
        None => ", which this user may not see (as root, `ss -ltnp` shows it)".to_owned(),
    }
}

/// What else there is to do where the gate's usual port is taken.
fn ways_out(port: u16) -> &'static str {
    if port == 80 {
        ": `wicketgate doctor` prints the rule by which the server on port 80 hands challenges to a gate that listens elsewhere; or a packet filter redirects port 80 there for the time of an order ([[gate.opening]], deploy/nftables); or systemd holds the port (wicketgate.socket)"
    } else {
        ""
    }
}

impl ListenError {
    fn new(address: SocketAddr, cause: io::Error) -> Self {
        match cause.kind() {
            io::ErrorKind::AddrInUse => Self::InUse { address, holder: holder::of_port(address.port()) },
            io::ErrorKind::PermissionDenied => Self::Forbidden(address),
            io::ErrorKind::AddrNotAvailable => Self::NoSuchAddress(address),
            _ => Self::Other { address, cause },
        }
    }
}

/// Binds and listens: non-blocking, closed on exec, answers sent without delay.
///
/// `[::]:P` takes IPv4 too, and falls back to `0.0.0.0:P` on a machine without IPv6.
pub fn bind(address: SocketAddr, options: &ListenOptions) -> Result<TcpListener, ListenError> {
    bind_by(address, |address| open(address, options))
}

fn bind_by<T>(address: SocketAddr, open: impl Fn(SocketAddr) -> io::Result<T>) -> Result<T, ListenError> {
    match open(address) {
        Err(error) if is_any_v6(address) && lacks_ipv6(&error) => {
            let fallback = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port());
            open(fallback).map_err(|cause| ListenError::new(fallback, cause))
        }
        opened => opened.map_err(|cause| ListenError::new(address, cause)),
    }
}

fn is_any_v6(address: SocketAddr) -> bool {
    address.is_ipv6() && address.ip().is_unspecified()
}

/// The kernel has no IPv6 (`ipv6.disable=1`), or it is switched off on every interface.
fn lacks_ipv6(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL))
}

fn open(address: SocketAddr, options: &ListenOptions) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if is_any_v6(address) {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    if options.reuse_port {
        socket.set_reuse_port(true)?;
    }
    // Inherited by every connection: one system call in all in place of one for each.
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG as i32)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    fn bind_plain(address: &str) -> Result<TcpListener, ListenError> {
        bind(address.parse().unwrap(), &ListenOptions::default())
    }

    #[test]
    fn any_address_takes_ipv4() {
        let listener = bind_plain("[::]:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect(("127.0.0.1", port)).unwrap();
    }

    #[test]
    fn two_listeners_share_a_port_only_when_asked_to() {
        let sharing = ListenOptions { reuse_port: true };
        let first = bind("127.0.0.1:0".parse().unwrap(), &sharing).unwrap();
        let address = first.local_addr().unwrap();
        bind(address, &sharing).unwrap();
        let error = bind(address, &ListenOptions::default()).unwrap_err();
        let us = std::process::id();
        let told = error.to_string();
        assert!(
            told.starts_with(&format!("cannot listen on {address}: another program holds the port (")),
            "{told}"
        );
        assert!(told.contains(&format!(", pid {us}")), "{told}");
    }

    #[test]
    fn ways_out_of_a_taken_port_80_are_named() {
        let told = |address: &str| {
            bind_by(address.parse().unwrap(), |_| -> io::Result<()> { Err(Errno::ADDRINUSE.into()) })
                .unwrap_err()
                .to_string()
        };
        for word in ["wicketgate doctor", "[[gate.opening]]", "wicketgate.socket"] {
            assert!(told("0.0.0.0:80").contains(word), "{word}");
            assert!(!told("0.0.0.0:443").contains(word), "{word}");
        }
    }

    #[test]
    fn a_foreign_address_is_named() {
        let error = bind_plain("192.0.2.1:80").unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot listen on 192.0.2.1:80: this machine has no such address; `ip address` lists those it \
             has, `[::]:80` means all of them"
        );
    }

    #[test]
    fn a_privileged_port_names_the_capability() {
        let error = bind_by("[::]:80".parse().unwrap(), |_| -> io::Result<()> { Err(Errno::ACCESS.into()) })
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot listen on [::]:80: port 80 is privileged; start as root, or grant CAP_NET_BIND_SERVICE \
             (`AmbientCapabilities=CAP_NET_BIND_SERVICE` in a systemd unit)"
        );
    }

    #[test]
    fn without_ipv6_any_address_falls_back_and_a_single_one_does_not() {
        for errno in [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL] {
            let v4_only = |address: SocketAddr| match address {
                SocketAddr::V4(_) => Ok(address),
                SocketAddr::V6(_) => Err(errno.into()),
            };
            assert_eq!(bind_by("[::]:80".parse().unwrap(), v4_only).unwrap(), "0.0.0.0:80".parse().unwrap());
            assert!(bind_by("[::1]:80".parse().unwrap(), v4_only).is_err());
        }
        let taken = |_| -> io::Result<()> { Err(Errno::ADDRINUSE.into()) };
        assert!(
            matches!(bind_by("[::]:80".parse().unwrap(), taken), Err(ListenError::InUse { address, .. }) if address.is_ipv6())
        );
    }
}
