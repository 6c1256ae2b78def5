//! Caps on connections that never stop accepting: at a cap, the connection that has been without a complete request
//! for longest has to go. There is one for all of them, one for those of each network, at which one of that network
//! goes, and one for handshakes under way, at which the oldest one goes.
//!
//! So a flood of silent connections pushes out itself, and a newcomer always has as long to speak as the flood needs to
//! fill the whole cap once more; and whoever has one network only fills no more than its share.
//!
//! A registry belongs to one thread.

mod registry;

use std::cell::RefCell;
use std::fmt;
use std::future::poll_fn;
use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;
use std::task::Poll;

use tokio::sync::Notify;
use tokio::time::Instant;

use self::registry::{Evicted, Registry};
use super::accept::Complaint;

/// How many make room when the process has no descriptor left.
const ROOM: usize = 16;

/// How many of the last to have come or to have been answered need not: what they ask for may be on its way.
const SPARED: usize = 16;

/// Most connections at once; at least one each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// In all.
    pub total: usize,
    /// Of one network.
    pub per_network: usize,
    /// In a handshake.
    pub handshakes: usize,
}

impl Caps {
    /// The share of one of so many threads, rounded up.
    #[must_use]
    pub fn share(self, threads: usize) -> Self {
        let share = |cap: usize| cap.div_ceil(threads.max(1));
        Self {
            total: share(self.total),
            per_network: share(self.per_network),
            handshakes: share(self.handshakes),
        }
    }
}

/// What one client has to choose its addresses from: an IPv4 address, or an IPv6 network of 64 bits (RFC 4291 section
/// 2.5.1, RFC 6177).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network(IpAddr);

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
            address => address,
        })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => address.fmt(f),
            IpAddr::V6(address) => write!(f, "{address}/64"),
        }
    }
}

/// The registry of one thread's connections. Clones share it.
#[derive(Clone)]
pub struct Connections(Rc<Shared>);

struct Shared {
    /// Whose connections they are, as its table in the configuration is called.
    part: &'static str,
    registry: RefCell<Registry>,
    /// Networks that have all that they may have.
    full: RefCell<Complaint>,
    /// Told when the last connection has left.
    empty: Notify,
}

impl Connections {
    /// A registry for `gate` or `front`.
    pub fn new(part: &'static str, caps: Caps) -> Self {
        Self(Rc::new(Shared {
            part,
            registry: RefCell::new(Registry::new(caps)),
            full: RefCell::default(),
            empty: Notify::new(),
        }))
    }

    /// Counts a new connection, in a handshake, of that network (`None`: many clients'); at a cap another one is
    /// evicted, which is the new one itself where all others are busy.
    pub fn admit(&self, network: Option<Network>) -> Admission {
        let (slot, gone) = self.0.registry.borrow_mut().admit(network);
        self.0.tell(gone, network);
        Admission { shared: self.0.clone(), slot }
    }

    /// Evicts some of those who have been idle for longest, for the process has no descriptor left.
    pub fn make_room(&self) {
        self.make_room_of(ROOM, SPARED);
    }

    fn make_room_of(&self, count: usize, spared: usize) {
        let gone = self.0.registry.borrow_mut().make_room(count, spared);
        self.0.tell(gone, None);
    }

    /// How many connections there are, those included that were told to go and have not gone yet.
    pub fn len(&self) -> usize {
        self.0.registry.borrow().admitted
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Resolves when no connection is left.
    pub async fn drained(&self) {
        loop {
            let emptied = self.0.empty.notified();
            if self.is_empty() {
                return;
            }
            emptied.await;
        }
    }
}

impl Shared {
    fn tell(&self, gone: Evicted, network: Option<Network>) {
        gone.wakers.into_iter().for_each(std::task::Waker::wake);
        if let (true, Some(network)) = (gone.is_of_full_network, network)
            && let Some(connections) = self.full.borrow_mut().due(Instant::now())
        {
            let part = self.part;
            tracing::warn!(
                %network,
                closed = connections,
                "a network has as many connections to the {part} as it may have, and its own idle ones make room (if many clients come from there: list it in `{part}.trusted-proxies` where it is a proxy of yours, else raise `{part}.max-connections-per-network`)"
            );
        }
    }
}

/// A connection's place among the others, given up on drop.
#[must_use = "the connection leaves the registry when this is dropped"]
pub struct Admission {
    shared: Rc<Shared>,
    slot: usize,
}

impl Admission {
    /// Resolves when this connection must make room for another; closing it is up to the caller.
    ///
    /// One task at a time may wait.
    pub async fn evicted(&self) {
        poll_fn(|context| {
            let mut registry = self.shared.registry.borrow_mut();
            let slot = &mut registry.slots[self.slot];
            if slot.evicted {
                return Poll::Ready(());
            }
            match &slot.waker {
                Some(waker) if waker.will_wake(context.waker()) => {}
                _ => slot.waker = Some(context.waker().clone()),
            }
            Poll::Pending
        })
        .await;
    }

    /// Counts this connection as one of that network, once its PROXY header has told for whom it comes.
    pub fn comes_from(&self, network: Network) {
        let gone = self.shared.registry.borrow_mut().join(self.slot, network);
        self.shared.tell(gone, Some(network));
    }

    /// The handshake is over.
    pub fn established(&self) {
        self.shared.registry.borrow_mut().establish(self.slot);
    }

    /// While a complete request is being answered, the connection is not evicted. After the last of
    /// its guards it counts as idle from that moment.
    pub fn busy(&self) -> BusyGuard {
        self.shared.registry.borrow_mut().begin(self.slot);
        BusyGuard { shared: self.shared.clone(), slot: self.slot }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let empty = self.shared.registry.borrow_mut().leave(self.slot);
        if empty {
            self.shared.empty.notify_waiters();
        }
    }
}

/// A request is being answered, until this is dropped.
#[must_use = "the connection is idle again when this is dropped"]
pub struct BusyGuard {
    shared: Rc<Shared>,
    slot: usize,
}

impl Drop for BusyGuard {
    fn drop(&mut self) {
        self.shared.registry.borrow_mut().end(self.slot);
    }
}

#[cfg(test)]
mod tests;
