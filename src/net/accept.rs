//! The accept loop: it survives everything that a flood or an exhausted table of descriptors does to
//! `accept`, because a gate that stops accepting has stopped for good.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep};

use super::drain::Stop;
use super::listen::BACKLOG;

/// How long to wait for somebody to give a descriptor or memory back.
const BACK_OFF: Duration = Duration::from_millis(50);

/// At most one line about failing accepts in this time.
const LOG_INTERVAL: Duration = Duration::from_secs(30);

/// A listener that the runtime watches.
pub type WatchedListener = AsyncFd<TcpListener>;

/// Has the runtime watch a listener.
///
/// # Errors
/// It can't be.
pub fn watch(listener: TcpListener) -> io::Result<WatchedListener> {
    listener.set_nonblocking(true)?;
    // What took its place is unsafe, for the sake of descriptors that may be closed meanwhile; a listener's is not.
    #[allow(deprecated, reason = "a listener keeps its descriptor for as long as it lives")]
    AsyncFd::with_interest(listener, Interest::READABLE)
}

/// Accepts until the stop and hands each connection over, not blocking and not watched yet, its answers sent without
/// delay (`TCP_NODELAY`), its peer's address in IPv4 form where it came over IPv4.
///
/// `on` must return quickly: it spawns a task for the connection. `exhausted` is called whenever the process has no
/// descriptor or no memory left for another one, before a pause in which those of other threads have their turn.
pub async fn accept_loop(
    listener: WatchedListener,
    stop: Stop,
    mut on: impl FnMut(TcpStream, SocketAddr),
    mut exhausted: impl FnMut(),
) {
    // What `bind` made hands the option down to its connections; any other listener does not.
    let inherits = socket2::SockRef::from(listener.get_ref()).tcp_nodelay().unwrap_or(false);
    let mut complaint = Complaint::default();
    let accepting = async {
        loop {
            match listener.async_io(Interest::READABLE, accept).await {
                Ok((stream, peer)) => {
                    prepare(&stream, inherits);
                    on(stream, canonical(peer));
                }
                Err(error) if is_of_one_connection(&error) => {
                    tracing::debug!(%error, "a connection was gone before it was accepted");
                }
                Err(error) => {
                    if let Some(failures) = complaint.due(Instant::now()) {
                        tracing::warn!(
                            %error,
                            failures,
                            "connections cannot be accepted; idle ones make room, and it is tried again every {BACK_OFF:?} (out of descriptors or memory? raise LimitNOFILE, or lower max-connections)"
                        );
                    }
                    exhausted();
                    sleep(BACK_OFF).await;
                }
            }
        }
    };
    tokio::select! {
        biased;
        () = stop.requested() => {}
        () = accepting => {}
    }

    // Closing the listener would reset those who wait in the kernel's queue: they believe themselves
    // connected.
    let listener = listener.into_inner();
    let waiting = std::iter::repeat_with(|| accept(&listener))
        .filter(|accepted| !accepted.as_ref().is_err_and(is_of_one_connection))
        .map_while(Result::ok);
    for (stream, peer) in waiting.take(BACKLOG) {
        prepare(&stream, inherits);
        on(stream, canonical(peer));
    }
}

/// The next connection, made not to block in the same call.
fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (stream, peer) = acceptfrom_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
    Ok((stream.into(), peer.unwrap_or_else(|| SocketAddr::from(([0; 4], 0)))))
}

fn prepare(stream: &TcpStream, inherits: bool) {
    if !inherits && let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY cannot be set");
    }
}

/// The address as an IPv4 one where an IPv4 peer came to a dual-stack socket.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Errors that accept(2) passes on from the connection it was about to return; the next one may be
/// accepted at once.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(
            Errno::CONNABORTED
                | Errno::INTR
                | Errno::PROTO
                | Errno::NOPROTOOPT
                | Errno::NETDOWN
                | Errno::NETUNREACH
                | Errno::HOSTDOWN
                | Errno::HOSTUNREACH
                | Errno::NONET
                | Errno::OPNOTSUPP
                | Errno::PERM
        )
    )
}

/// Counts what happens too often to be told each time, and says when one line about it is due.
#[derive(Default)]
pub(super) struct Complaint {
    last: Option<Instant>,
    failures: u64,
}

impl Complaint {
    /// How often it happened since the last line, where another line is due.
    pub(super) fn due(&mut self, now: Instant) -> Option<u64> {
        self.failures += 1;
        if self.last.is_some_and(|last| now < last + LOG_INTERVAL) {
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.failures))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::drain::StopTrigger;
    use crate::net::listen::{ListenOptions, bind};

    #[tokio::test]
    async fn hands_over_prepared_connections_until_the_stop() {
        check(bind("[::]:0".parse().unwrap(), &ListenOptions::default()).unwrap()).await;
        let plain = TcpListener::bind("[::]:0").unwrap();
        check(plain).await;
    }

    async fn check(listener: TcpListener) {
        let port = listener.local_addr().unwrap().port();
        let (trigger, stop) = StopTrigger::new();
        let (sender, mut accepted) = tokio::sync::mpsc::unbounded_channel();
        let serving = tokio::spawn(accept_loop(
            watch(listener).unwrap(),
            stop,
            move |stream, peer| {
                sender.send((stream, peer)).unwrap();
            },
            || {},
        ));
        let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (stream, peer) = accepted.recv().await.unwrap();
        assert_eq!(peer, client.local_addr().unwrap(), "not [::ffff:127.0.0.1]");
        assert!(stream.nodelay().unwrap());
        // One that the loop had no time to accept is handed over all the same.
        let late = TcpStream::connect(("127.0.0.1", port)).unwrap();
        trigger.stop();
        serving.await.unwrap();
        let (stream, peer) = accepted.recv().await.unwrap();
        assert_eq!(peer, late.local_addr().unwrap());
        assert!(stream.nodelay().unwrap());
        assert!(accepted.recv().await.is_none());
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "the listener is closed");
    }

    #[test]
    fn exhaustion_backs_off_and_a_lost_connection_does_not() {
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM] {
            assert!(!is_of_one_connection(&errno.into()), "{errno:?}");
        }
        for errno in [Errno::CONNABORTED, Errno::INTR, Errno::PROTO] {
            assert!(is_of_one_connection(&errno.into()), "{errno:?}");
        }
    }

    #[test]
    fn one_line_an_interval() {
        let mut complaint = Complaint::default();
        let start = Instant::now();
        assert_eq!(complaint.due(start), Some(1));
        assert_eq!(complaint.due(start + BACK_OFF), None);
        assert_eq!(complaint.due(start + LOG_INTERVAL), Some(2));
    }
}
