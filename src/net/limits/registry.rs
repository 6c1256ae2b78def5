//! Who is here, and who has to go: no I/O. Connections that may go stand in lists of which each is in the order in which
//! they would go; the lists run through the slots of a slab, so every step is O(1) however many there are.

use std::collections::HashMap;
use std::task::Waker;

use super::{Caps, Network};

/// The end of a list, or no group.
const NONE: usize = usize::MAX;

pub(super) struct Registry {
    caps: Caps,
    pub(super) slots: Vec<Slot>,
    /// Free slots, linked as in [`List::Idle`].
    free: usize,
    idle: Ends,
    /// How many there are in that list.
    resting: usize,
    handshakes: Ends,
    /// How many there are in that list.
    shaking: usize,
    groups: Vec<Group>,
    free_groups: Vec<usize>,
    by_network: HashMap<Network, usize>,
    /// Connections with an `Admission`.
    pub(super) admitted: usize,
    /// Those of them that were told to go.
    leaving: usize,
}

pub(super) struct Slot {
    admitted: bool,
    pub(super) evicted: bool,
    shaking: bool,
    busy: u32,
    /// The group that it counts in.
    group: usize,
    links: [Link; 3],
    pub(super) waker: Option<Waker>,
}

/// The connections of a network that were not told to go.
struct Group {
    network: Network,
    count: usize,
    idle: Ends,
}

/// A list that a connection may stand in, by its place among the links.
#[derive(Clone, Copy)]
enum List {
    /// Without a request, the longest first.
    Idle,
    /// Of these, those of one network.
    Network,
    /// In a handshake, the oldest first.
    Handshakes,
}

#[derive(Clone, Copy)]
struct Link {
    previous: usize,
    next: usize,
}

#[derive(Clone, Copy)]
struct Ends {
    first: usize,
    last: usize,
}

const EMPTY: Ends = Ends { first: NONE, last: NONE };
const LOOSE: Link = Link { previous: NONE, next: NONE };

/// Who was told to go.
#[derive(Default)]
pub(super) struct Evicted {
    /// Those who wait to be told.
    pub(super) wakers: Vec<Waker>,
    /// One of the newcomer's network, because that has all that it may have.
    pub(super) is_of_full_network: bool,
}

impl Registry {
    pub(super) fn new(caps: Caps) -> Self {
        Self {
            caps: Caps {
                total: caps.total.max(1),
                per_network: caps.per_network.max(1),
                handshakes: caps.handshakes.max(1),
            },
            slots: Vec::new(),
            free: NONE,
            idle: EMPTY,
            resting: 0,
            handshakes: EMPTY,
            shaking: 0,
            groups: Vec::new(),
            free_groups: Vec::new(),
            by_network: HashMap::new(),
            admitted: 0,
            leaving: 0,
        }
    }

    /// A newcomer, and who has to go for it.
    pub(super) fn admit(&mut self, network: Option<Network>) -> (usize, Evicted) {
        let slot = self.new_slot();
        self.admitted += 1;
        self.rest(slot, true);
        self.push(List::Handshakes, slot);
        self.shaking += 1;
        let mut gone = network.map(|network| self.join(slot, network)).unwrap_or_default();
        if self.admitted - self.leaving > self.caps.total {
            self.evict(self.idle.first, &mut gone);
        }
        if self.shaking > self.caps.handshakes {
            self.evict(self.handshakes.first, &mut gone);
        }
        (slot, gone)
    }

    /// Counts a connection in a network, if it is in none yet; before its first request.
    pub(super) fn join(&mut self, slot: usize, network: Network) -> Evicted {
        let mut gone = Evicted::default();
        if !self.is_idle(slot) || self.slots[slot].group != NONE {
            return gone;
        }
        let group = self.group(network);
        self.groups[group].count += 1;
        self.slots[slot].group = group;
        self.push(List::Network, slot);
        if self.groups[group].count > self.caps.per_network {
            gone.is_of_full_network = true;
            self.evict(self.groups[group].idle.first, &mut gone);
        }
        gone
    }

    /// Tells so many of the longest idle to go, but none of the last `spared`.
    pub(super) fn make_room(&mut self, count: usize, spared: usize) -> Evicted {
        let mut gone = Evicted::default();
        for _ in 0..count.min(self.resting.saturating_sub(spared)) {
            self.evict(self.idle.first, &mut gone);
        }
        gone
    }

    /// The handshake is over.
    pub(super) fn establish(&mut self, slot: usize) {
        if std::mem::take(&mut self.slots[slot].shaking) {
            self.unlink(List::Handshakes, slot);
            self.shaking -= 1;
        }
    }

    pub(super) fn begin(&mut self, slot: usize) {
        self.establish(slot);
        self.rest(slot, false);
        self.slots[slot].busy += 1;
    }

    pub(super) fn end(&mut self, slot: usize) {
        self.slots[slot].busy -= 1;
        self.rest(slot, true);
        self.release(slot);
    }

    /// Whether that was the last one.
    pub(super) fn leave(&mut self, slot: usize) -> bool {
        self.establish(slot);
        self.rest(slot, false);
        self.leave_group(slot);
        self.admitted -= 1;
        self.leaving -= usize::from(self.slots[slot].evicted);
        self.slots[slot].admitted = false;
        self.release(slot);
        self.admitted == 0
    }

    fn evict(&mut self, victim: usize, gone: &mut Evicted) {
        self.establish(victim);
        self.rest(victim, false);
        self.leave_group(victim);
        self.leaving += 1;
        let slot = &mut self.slots[victim];
        slot.evicted = true;
        gone.wakers.extend(slot.waker.take());
    }

    fn new_slot(&mut self) -> usize {
        let fresh = Slot {
            admitted: true,
            evicted: false,
            shaking: true,
            busy: 0,
            group: NONE,
            links: [LOOSE; 3],
            waker: None,
        };
        match self.free {
            NONE => {
                self.slots.push(fresh);
                self.slots.len() - 1
            }
            slot => {
                self.free = self.slots[slot].links[List::Idle as usize].next;
                self.slots[slot] = fresh;
                slot
            }
        }
    }

    /// A guard may outlive its connection: the slot is free only after both.
    fn release(&mut self, slot: usize) {
        let entry = &mut self.slots[slot];
        if !entry.admitted && entry.busy == 0 {
            entry.waker = None;
            entry.links[List::Idle as usize].next = self.free;
            self.free = slot;
        }
    }

    fn group(&mut self, network: Network) -> usize {
        *self.by_network.entry(network).or_insert_with(|| {
            let group = Group { network, count: 0, idle: EMPTY };
            match self.free_groups.pop() {
                Some(place) => {
                    self.groups[place] = group;
                    place
                }
                None => {
                    self.groups.push(group);
                    self.groups.len() - 1
                }
            }
        })
    }

    /// For a connection that stands in no list of its network any more.
    fn leave_group(&mut self, slot: usize) {
        let place = std::mem::replace(&mut self.slots[slot].group, NONE);
        if place == NONE {
            return;
        }
        let group = &mut self.groups[place];
        group.count -= 1;
        if group.count == 0 {
            self.by_network.remove(&group.network);
            self.free_groups.push(place);
        }
    }

    fn is_idle(&self, slot: usize) -> bool {
        let slot = &self.slots[slot];
        slot.admitted && !slot.evicted && slot.busy == 0
    }

    /// Puts a connection that is idle into the lists of those, or takes it out.
    fn rest(&mut self, slot: usize, is_resting: bool) {
        if !self.is_idle(slot) {
            return;
        }
        let change = if is_resting { Self::push } else { Self::unlink };
        self.resting = if is_resting { self.resting + 1 } else { self.resting - 1 };
        change(self, List::Idle, slot);
        if self.slots[slot].group != NONE {
            change(self, List::Network, slot);
        }
    }

    fn ends(&mut self, list: List, slot: usize) -> &mut Ends {
        match list {
            List::Idle => &mut self.idle,
            List::Network => &mut self.groups[self.slots[slot].group].idle,
            List::Handshakes => &mut self.handshakes,
        }
    }

    fn push(&mut self, list: List, slot: usize) {
        let ends = self.ends(list, slot);
        let last = std::mem::replace(&mut ends.last, slot);
        if last == NONE {
            ends.first = slot;
        } else {
            self.slots[last].links[list as usize].next = slot;
        }
        self.slots[slot].links[list as usize] = Link { previous: last, next: NONE };
    }

    fn unlink(&mut self, list: List, slot: usize) {
        let Link { previous, next } = self.slots[slot].links[list as usize];
        match previous {
            NONE => self.ends(list, slot).first = next,
            previous => self.slots[previous].links[list as usize].next = next,
        }
        match next {
            NONE => self.ends(list, slot).last = previous,
            next => self.slots[next].links[list as usize].previous = previous,
        }
    }

    #[cfg(test)]
    pub(super) fn networks(&self) -> usize {
        self.by_network.len()
    }
}
