use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};

use proptest::prelude::*;

use super::*;

const NO_CAP: usize = usize::MAX;

fn of(total: usize, per_network: usize, handshakes: usize) -> Connections {
    Connections::new("front", Caps { total, per_network, handshakes })
}

fn network(address: &str) -> Option<Network> {
    Some(address.parse::<IpAddr>().unwrap().into())
}

fn is_evicted(admission: &Admission) -> bool {
    pin!(admission.evicted()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

#[test]
fn the_longest_idle_goes_first() {
    let connections = of(2, NO_CAP, NO_CAP);
    let (a, b) = (connections.admit(None), connections.admit(None));
    drop(a.busy());
    let c = connections.admit(None);
    assert_eq!([&a, &b, &c].map(is_evicted), [false, true, false]);
    assert_eq!(connections.len(), 3);
    drop(b);
    assert_eq!(connections.len(), 2);
}

#[test]
fn busy_connections_stay_and_the_newcomer_goes() {
    let connections = of(2, NO_CAP, NO_CAP);
    let (a, b) = (connections.admit(None), connections.admit(None));
    let guards = [a.busy(), a.busy(), b.busy()];
    let c = connections.admit(None);
    assert_eq!([&a, &b, &c].map(is_evicted), [false, false, true]);
    let [outer, inner, _other] = guards;
    drop(outer);
    let d = connections.admit(None);
    assert!(is_evicted(&d) && !is_evicted(&a), "a has another request under way");
    drop(inner);
    let e = connections.admit(None);
    assert!(is_evicted(&a) && !is_evicted(&e));
}

#[test]
fn a_guard_that_outlives_its_connection_keeps_the_slot() {
    let connections = of(2, NO_CAP, NO_CAP);
    let a = connections.admit(None);
    let guard = a.busy();
    drop(a);
    assert!(connections.is_empty());
    let b = connections.admit(None);
    assert_ne!(b.slot, guard.slot);
    let freed = guard.slot;
    drop(guard);
    assert_eq!(connections.admit(None).slot, freed);
}

#[tokio::test]
async fn eviction_and_draining_wake_those_who_wait() {
    tokio::task::LocalSet::new()
        .run_until(async {
            let connections = of(1, NO_CAP, NO_CAP);
            connections.drained().await;
            let first = connections.admit(None);
            let waiting = tokio::task::spawn_local(async move { first.evicted().await });
            tokio::task::yield_now().await;
            let second = connections.admit(None);
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

#[test]
fn a_network_is_what_one_client_has() {
    for (a, b, are_one) in [
        ("192.0.2.1", "192.0.2.1", true),
        ("192.0.2.1", "192.0.2.2", false),
        ("192.0.2.1", "::ffff:192.0.2.1", true),
        ("2001:db8::1", "2001:db8::ffff:0:0:1", true),
        ("2001:db8::1", "2001:db8:0:1::1", false),
        ("::1", "127.0.0.1", false),
    ] {
        assert_eq!(network(a) == network(b), are_one, "{a} {b}");
    }
    let shown = |address| network(address).unwrap().to_string();
    assert_eq!([shown("::ffff:192.0.2.1"), shown("2001:db8::1:2:3:4")], ["192.0.2.1", "2001:db8::/64"]);
}

#[test]
fn shares_are_rounded_up() {
    let caps = Caps { total: 4096, per_network: 7, handshakes: 1 };
    assert_eq!(caps.share(1), caps);
    assert_eq!(caps.share(4), Caps { total: 1024, per_network: 2, handshakes: 1 });
}

#[test]
fn a_full_network_makes_room_for_itself() {
    let connections = of(10, 2, NO_CAP);
    let (here, there) = (network("192.0.2.1"), network("192.0.2.2"));
    let others = [connections.admit(there), connections.admit(None), connections.admit(None)];
    let (a, b) = (connections.admit(here), connections.admit(here));
    drop(a.busy());
    let c = connections.admit(here);
    assert_eq!([&a, &b, &c].map(is_evicted), [false, true, false]);
    let _busy = [a.busy(), c.busy()];
    let d = connections.admit(here);
    assert!(is_evicted(&d), "all others of its network are busy");
    // One that comes through a proxy counts once it is known whose it is.
    let e = connections.admit(None);
    e.comes_from(here.unwrap());
    assert!(is_evicted(&e));
    let f = connections.admit(None);
    f.comes_from(there.unwrap());
    assert!(!is_evicted(&f) && !others.iter().any(is_evicted));
    drop(a);
    assert!(!is_evicted(&connections.admit(here)), "there is room again");
}

#[test]
fn of_handshakes_the_oldest_goes() {
    let connections = of(10, NO_CAP, 2);
    let done: Vec<_> = (0..5).map(|_| connections.admit(None)).inspect(Admission::established).collect();
    let (a, b, c) = (connections.admit(None), connections.admit(None), connections.admit(None));
    assert_eq!([&a, &b, &c].map(is_evicted), [true, false, false]);
    b.established();
    let d = connections.admit(None);
    assert!(![&b, &c, &d].into_iter().chain(&done).any(is_evicted));
    drop(c);
    assert!(![connections.admit(None), d].iter().any(is_evicted));
}

#[test]
fn room_is_made_by_the_idle_and_not_by_the_newest() {
    let connections = of(100, NO_CAP, NO_CAP);
    let all: Vec<_> = (0..40).map(|_| connections.admit(None)).collect();
    let _busy = all[0].busy();
    for last_evicted in [ROOM, 39 - SPARED, 39 - SPARED] {
        connections.make_room();
        let evicted: Vec<_> = all.iter().map(is_evicted).collect();
        assert_eq!(evicted, (0..40).map(|n| (1..=last_evicted).contains(&n)).collect::<Vec<_>>());
    }
}

#[test]
fn networks_that_are_gone_leave_nothing_behind() {
    let connections = of(3, 2, NO_CAP);
    for n in 0..1000 {
        drop(connections.admit(network(&format!("2001:db8:0:{n:x}::1"))));
    }
    let kept: Vec<_> = (0..10).map(|n| connections.admit(network(&format!("192.0.2.{n}")))).collect();
    assert_eq!(connections.0.registry.borrow().networks(), 3);
    drop(kept);
    assert_eq!(connections.0.registry.borrow().networks(), 0);
}

#[derive(Debug, Clone)]
enum Step {
    Admit(Option<u8>),
    ComesFrom(usize, u8),
    Establish(usize),
    Leave(usize),
    Begin(usize),
    End(usize),
    MakeRoom(usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => proptest::option::of(0..3_u8).prop_map(Step::Admit),
        2 => (any::<usize>(), 0..3_u8).prop_map(|(index, network)| Step::ComesFrom(index, network)),
        3 => any::<usize>().prop_map(Step::Establish),
        2 => any::<usize>().prop_map(Step::Leave),
        4 => any::<usize>().prop_map(Step::Begin),
        4 => any::<usize>().prop_map(Step::End),
        1 => (0..4_usize, 0..4_usize).prop_map(|(count, spared)| Step::MakeRoom(count, spared)),
    ]
}

/// One connection in the plain model: a list searched from end to end.
struct Modelled {
    admission: Admission,
    guards: Vec<BusyGuard>,
    network: Option<u8>,
    admitted_at: usize,
    idle_since: usize,
    /// The same, but not before it counted in its network.
    idle_there_since: usize,
    is_shaking: bool,
    evicted: bool,
}

/// Evicts the one with the least key among those that are meant.
fn evict(model: &mut [Modelled], is_meant: impl Fn(&Modelled) -> bool, key: impl Fn(&Modelled) -> usize) {
    let candidates = model.iter_mut().filter(|c| !c.evicted && c.guards.is_empty() && is_meant(c));
    candidates.min_by_key(|c| key(c)).unwrap().evicted = true;
}

fn alive(model: &[Modelled], is_meant: impl Fn(&Modelled) -> bool) -> usize {
    model.iter().filter(|c| !c.evicted && is_meant(c)).count()
}

proptest! {
    #[test]
    fn agrees_with_a_plain_scan(
        total in 1..8_usize,
        per_network in 1..4_usize,
        handshakes in 1..5_usize,
        steps in proptest::collection::vec(step(), 0..200),
    ) {
        let connections = of(total, per_network, handshakes);
        let named = |n: u8| Network(IpAddr::from([192, 0, 2, n]));
        let mut model: Vec<Modelled> = Vec::new();
        for (time, step) in steps.into_iter().enumerate() {
            let pick = |index: usize, len: usize| (len > 0).then(|| index % len);
            match step {
                Step::Admit(network) => {
                    model.push(Modelled {
                        admission: connections.admit(network.map(named)),
                        guards: vec![],
                        network,
                        admitted_at: time,
                        idle_since: time,
                        idle_there_since: time,
                        is_shaking: true,
                        evicted: false,
                    });
                    if network.is_some() && alive(&model, |c| c.network == network) > per_network {
                        evict(&mut model, |c| c.network == network, |c| c.idle_there_since);
                    }
                    if alive(&model, |_| true) > total {
                        evict(&mut model, |_| true, |c| c.idle_since);
                    }
                    if alive(&model, |c| c.is_shaking) > handshakes {
                        evict(&mut model, |c| c.is_shaking, |c| c.admitted_at);
                    }
                }
                Step::ComesFrom(index, network) => {
                    if let Some(index) = pick(index, model.len()) {
                        let modelled = &mut model[index];
                        modelled.admission.comes_from(named(network));
                        if modelled.network.is_none() && !modelled.evicted && modelled.guards.is_empty() {
                            modelled.network = Some(network);
                            modelled.idle_there_since = time;
                            if alive(&model, |c| c.network == Some(network)) > per_network {
                                evict(&mut model, |c| c.network == Some(network), |c| c.idle_there_since);
                            }
                        }
                    }
                }
                Step::Establish(index) => {
                    if let Some(index) = pick(index, model.len()) {
                        model[index].admission.established();
                        model[index].is_shaking = false;
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
                        model[index].is_shaking = false;
                    }
                }
                Step::End(index) => {
                    if let Some(index) = pick(index, model.len())
                        && model[index].guards.pop().is_some()
                    {
                        model[index].idle_since = time;
                        model[index].idle_there_since = time;
                    }
                }
                Step::MakeRoom(count, spared) => {
                    connections.make_room_of(count, spared);
                    for _ in 0..count {
                        let idle = model.iter().filter(|c| !c.evicted && c.guards.is_empty()).count();
                        if idle > spared {
                            evict(&mut model, |_| true, |c| c.idle_since);
                        }
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
