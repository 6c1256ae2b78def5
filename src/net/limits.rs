//! A cap on connections that never stops accepting: at the cap, the connection that has been
//! without a complete request for longest has to go.
//!
//! So a flood of silent connections pushes out itself, and a newcomer always has as long to speak as
//! the flood needs to fill the whole cap once more. Idle connections stand in a queue (a linked list
//! inside a slab), so every step is O(1) however many there are.
//!
//! A registry belongs to one thread.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use tokio::sync::Notify;

/// The registry of one thread's connections. Clones share it.
#[derive(Clone)]
pub struct Connections(Rc<Shared>);

struct Shared {
    registry: RefCell<Registry>,
    /// Told when the last connection has left.
    empty: Notify,
}

impl Connections {
    /// A registry that keeps at most `cap` connections (at least one).
    pub fn new(cap: usize) -> Self {
        Self(Rc::new(Shared { registry: RefCell::new(Registry::new(cap.max(1))), empty: Notify::new() }))
    }

    /// Counts a new connection; at the cap the one that has been idle for longest is evicted, which
    /// is the new one itself where all others are busy.
    pub fn admit(&self) -> Admission {
        let (slot, evicted) = self.0.registry.borrow_mut().admit();
        if let Some(waker) = evicted {
            waker.wake();
        }
        Admission { shared: self.0.clone(), slot }
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

/// The end of the idle queue, or of the free list.
const NONE: usize = usize::MAX;

struct Registry {
    cap: usize,
    slots: Vec<Slot>,
    /// Free slots, linked by `next`.
    free: usize,
    /// Idle for longest.
    first: usize,
    /// Idle for shortest.
    last: usize,
    /// Connections with an `Admission`.
    admitted: usize,
    /// Those of them that were told to go.
    leaving: usize,
}

struct Slot {
    admitted: bool,
    evicted: bool,
    busy: u32,
    /// In the idle queue, or in the free list.
    previous: usize,
    next: usize,
    waker: Option<Waker>,
}

impl Registry {
    fn new(cap: usize) -> Self {
        Self { cap, slots: Vec::new(), free: NONE, first: NONE, last: NONE, admitted: 0, leaving: 0 }
    }

    fn admit(&mut self) -> (usize, Option<Waker>) {
        let fresh = Slot { admitted: true, evicted: false, busy: 0, previous: NONE, next: NONE, waker: None };
        let slot = match self.free {
            NONE => {
                self.slots.push(fresh);
                self.slots.len() - 1
            }
            slot => {
                self.free = self.slots[slot].next;
                self.slots[slot] = fresh;
                slot
            }
        };
        self.admitted += 1;
        self.push_idle(slot);
        let over = self.admitted - self.leaving > self.cap;
        (slot, if over { self.evict_first() } else { None })
    }

    fn evict_first(&mut self) -> Option<Waker> {
        let victim = self.first;
        self.unlink(victim);
        self.leaving += 1;
        let slot = &mut self.slots[victim];
        slot.evicted = true;
        slot.waker.take()
    }

    fn begin(&mut self, slot: usize) {
        if self.is_idle(slot) {
            self.unlink(slot);
        }
        self.slots[slot].busy += 1;
    }

    fn end(&mut self, slot: usize) {
        self.slots[slot].busy -= 1;
        if self.is_idle(slot) {
            self.push_idle(slot);
        }
        self.release(slot);
    }

    /// Whether that was the last one.
    fn leave(&mut self, slot: usize) -> bool {
        if self.is_idle(slot) {
            self.unlink(slot);
        }
        self.admitted -= 1;
        self.leaving -= usize::from(self.slots[slot].evicted);
        self.slots[slot].admitted = false;
        self.release(slot);
        self.admitted == 0
    }

    /// A guard may outlive its connection: the slot is free only after both.
    fn release(&mut self, slot: usize) {
        let entry = &mut self.slots[slot];
        if !entry.admitted && entry.busy == 0 {
            entry.waker = None;
            entry.next = self.free;
            self.free = slot;
        }
    }

    fn is_idle(&self, slot: usize) -> bool {
        let slot = &self.slots[slot];
        slot.admitted && !slot.evicted && slot.busy == 0
    }

    fn push_idle(&mut self, slot: usize) {
        self.slots[slot].previous = self.last;
        self.slots[slot].next = NONE;
        match self.last {
            NONE => self.first = slot,
            last => self.slots[last].next = slot,
        }
        self.last = slot;
    }

    fn unlink(&mut self, slot: usize) {
        let (previous, next) = (self.slots[slot].previous, self.slots[slot].next);
        match previous {
            NONE => self.first = next,
            previous => self.slots[previous].next = next,
        }
        match next {
            NONE => self.last = previous,
            next => self.slots[next].previous = previous,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::Context;

    use proptest::prelude::*;

    use super::*;

    fn is_evicted(admission: &Admission) -> bool {
        pin!(admission.evicted()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn the_longest_idle_goes_first() {
        let connections = Connections::new(2);
        let (a, b) = (connections.admit(), connections.admit());
        drop(a.busy());
        let c = connections.admit();
        assert_eq!([&a, &b, &c].map(is_evicted), [false, true, false]);
        assert_eq!(connections.len(), 3);
        drop(b);
        assert_eq!(connections.len(), 2);
    }

    #[test]
    fn busy_connections_stay_and_the_newcomer_goes() {
        let connections = Connections::new(2);
        let (a, b) = (connections.admit(), connections.admit());
        let guards = [a.busy(), a.busy(), b.busy()];
        let c = connections.admit();
        assert_eq!([&a, &b, &c].map(is_evicted), [false, false, true]);
        let [outer, inner, _other] = guards;
        drop(outer);
        let d = connections.admit();
        assert!(is_evicted(&d) && !is_evicted(&a), "a has another request under way");
        drop(inner);
        let e = connections.admit();
        assert!(is_evicted(&a) && !is_evicted(&e));
    }

    #[test]
    fn a_guard_that_outlives_its_connection_keeps_the_slot() {
        let connections = Connections::new(2);
        let a = connections.admit();
        let guard = a.busy();
        drop(a);
        assert!(connections.is_empty());
        let b = connections.admit();
        assert_ne!(b.slot, guard.slot);
        let freed = guard.slot;
        drop(guard);
        assert_eq!(connections.admit().slot, freed);
    }

    #[tokio::test]
    async fn eviction_and_draining_wake_those_who_wait() {
        tokio::task::LocalSet::new()
            .run_until(async {
                let connections = Connections::new(1);
                connections.drained().await;
                let first = connections.admit();
                let waiting = tokio::task::spawn_local(async move { first.evicted().await });
                tokio::task::yield_now().await;
                let second = connections.admit();
                waiting.await.unwrap();
                let drained = tokio::task::spawn_local({
                    let connections = connections.clone();
                    async move { connections.drained().await }
                });
                tokio::task::yield_now().await;
                assert!(!drained.is_finished());
                drop(second);
                drained.await.unwrap();
            })
            .await;
    }

    #[derive(Debug, Clone)]
    enum Step {
        Admit,
        Leave(usize),
        Begin(usize),
        End(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => Just(Step::Admit),
            1 => any::<usize>().prop_map(Step::Leave),
            2 => any::<usize>().prop_map(Step::Begin),
            2 => any::<usize>().prop_map(Step::End),
        ]
    }

    /// One connection in the plain model: a list searched from end to end.
    struct Modelled {
        admission: Admission,
        guards: Vec<BusyGuard>,
        idle_since: usize,
        evicted: bool,
    }

    proptest! {
        #[test]
        fn agrees_with_a_plain_scan(cap in 1..6_usize, steps in proptest::collection::vec(step(), 0..200)) {
            let connections = Connections::new(cap);
            let mut model: Vec<Modelled> = Vec::new();
            for (time, step) in steps.into_iter().enumerate() {
                let pick = |index: usize, len: usize| (len > 0).then(|| index % len);
                match step {
                    Step::Admit => {
                        let admission = connections.admit();
                        model.push(Modelled { admission, guards: vec![], idle_since: time, evicted: false });
                        if model.iter().filter(|c| !c.evicted).count() > cap {
                            let victim = model
                                .iter_mut()
                                .filter(|c| !c.evicted && c.guards.is_empty())
                                .min_by_key(|c| c.idle_since)
                                .unwrap();
                            victim.evicted = true;
                        }
                    }
                    Step::Leave(index) => {
                        if let Some(index) = pick(index, model.len()) {
                            model.remove(index);
                        }
                    }
                    Step::Begin(index) => {
                        if let Some(index) = pick(index, model.len()) {
                            let guard = model[index].admission.busy();
                            model[index].guards.push(guard);
                        }
                    }
                    Step::End(index) => {
                        if let Some(index) = pick(index, model.len())
                            && model[index].guards.pop().is_some()
                        {
                            model[index].idle_since = time;
                        }
                    }
                }
                prop_assert_eq!(connections.len(), model.len());
                for connection in &model {
                    prop_assert_eq!(is_evicted(&connection.admission), connection.evicted);
                }
            }
        }
    }
}
