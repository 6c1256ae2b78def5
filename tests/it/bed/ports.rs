//! Free ports, without races between tests, test processes and checkouts on one machine.

use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicU16, Ordering};

use socket2::{Domain, Socket, Type};

/// Below the kernel's range for outgoing connections, so that none of them takes a claimed port.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port that is ours: an abstract socket of its name is held, which the kernel lets go with the process.
pub(crate) struct Claim {
    pub(crate) port: u16,
    _name: UnixDatagram,
}

impl Claim {
    pub(crate) fn next() -> Self {
        // Processes begin at different places, so that they seldom meet.
        let start = (std::process::id().wrapping_mul(131) % u32::from(COUNT)) as u16;
        for _ in 0..COUNT {
            let step = NEXT.fetch_add(1, Ordering::Relaxed);
            let port = FIRST + ((u32::from(start) + u32::from(step)) % u32::from(COUNT)) as u16;
            let name = SocketAddr::from_abstract_name(format!("wicketgate-it-port-{port}")).unwrap();
            let Ok(name) = UnixDatagram::bind_addr(&name) else { continue };
            if is_free(port) {
                return Self { port, _name: name };
            }
        }
        panic!("no free port in {FIRST}..{}", FIRST + COUNT);
    }
}

/// Whether nobody listens there. A socket that listened, if only for this, would go on to do so in a process that
/// another thread is starting in this very moment, until that runs its program.
fn is_free(port: u16) -> bool {
    let probe = |kind| -> std::io::Result<()> {
        let socket = Socket::new(Domain::IPV4, kind, None)?;
        // Among datagrams it would be shared.
        socket.set_reuse_address(kind == Type::STREAM)?;
        socket.bind(&std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())
    };
    probe(Type::STREAM).and_then(|()| probe(Type::DGRAM)).is_ok()
}

#[test]
fn a_port_where_somebody_listens_is_not_free() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    assert!(!is_free(port));
}

#[test]
fn two_claims_are_two_ports() {
    let first = Claim::next();
    let second = Claim::next();
    assert_ne!(first.port, second.port);
    let name = SocketAddr::from_abstract_name(format!("wicketgate-it-port-{}", first.port)).unwrap();
    assert!(UnixDatagram::bind_addr(&name).is_err(), "another process could claim the same port");
}
