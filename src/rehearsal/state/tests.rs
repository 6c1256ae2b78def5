//! What is remembered, and for how long.

use super::super::jws::signing::Client;
use super::super::profile::PROFILES;
use super::*;

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

fn name(text: &str) -> Identifier {
    text.parse().unwrap()
}

fn new_order(state: &mut State, account: u64, names: &[&str], now: SystemTime) -> Result<u64, Problem> {
    let identifiers = names.iter().map(|text| name(text)).collect();
    let draft = Draft { account, identifiers, profile: &PROFILES[0], replaces: None };
    state.create_order(draft, || "token".into(), now)
}

fn prove_all(state: &mut State, order: u64, account: u64, now: SystemTime) {
    for number in state.order(order, account, now).unwrap().authorizations.clone() {
        state.authorization(number, account).unwrap().proof.begin(false);
        state.prove(number, Ok(()), now);
    }
}

fn status(state: &mut State, order: u64, account: u64, now: SystemTime) -> OrderStatus {
    state.order(order, account, now).unwrap().progress.status()
}

#[test]
fn an_order_becomes_ready_and_then_expires() {
    let mut state = State::new(Limits::default());
    let account = state.create_account(Client::new().key(), vec![], None, NOW).unwrap();
    let order = new_order(&mut state, account, &["a.example", "b.example"], NOW).unwrap();
    assert_eq!(status(&mut state, order, account, NOW), OrderStatus::Pending);
    prove_all(&mut state, order, account, NOW);
    assert_eq!(status(&mut state, order, account, NOW), OrderStatus::Ready);
    let names = || [name("a.example"), name("b.example")].into_iter();
    assert!(state.holds(account, names(), NOW) && !state.holds(account + 1, names(), NOW));
    assert!(!state.holds(account, std::iter::once(name("c.example")), NOW));
    assert!(!state.holds(account, names(), NOW + ORDER_LIFETIME));
    assert!(state.order_lives(order, NOW) && !state.order_lives(order, NOW + ORDER_LIFETIME));
    assert_eq!(status(&mut state, order, account, NOW + ORDER_LIFETIME), OrderStatus::Invalid);
}

#[test]
fn a_failed_validation_fails_the_order() {
    let mut state = State::new(Limits::default());
    let account = state.create_account(Client::new().key(), vec![], None, NOW).unwrap();
    let order = new_order(&mut state, account, &["a.example"], NOW).unwrap();
    let number = state.order(order, account, NOW).unwrap().authorizations[0];
    state.authorization(number, account).unwrap().proof.begin(false);
    let failed = state.prove(number, Err(Problem::malformed("wrong")), NOW);
    assert_eq!(failed, Some((account, name("a.example"))));
    assert_eq!(state.prove(number, Err(Problem::malformed("again")), NOW), None);
    assert!(!state.order_lives(order, NOW));
    assert_eq!(status(&mut state, order, account, NOW), OrderStatus::Invalid);
    assert!(state.orders_of(account, 0, 10, NOW).is_empty());
}

#[test]
fn a_stranger_sees_nothing() {
    let mut state = State::new(Limits::default());
    let account = state.create_account(Client::new().key(), vec![], None, NOW).unwrap();
    let stranger = state.create_account(Client::new().key(), vec![], None, NOW).unwrap();
    let order = new_order(&mut state, account, &["a.example"], NOW).unwrap();
    let authorization = state.order(order, account, NOW).unwrap().authorizations[0];
    assert_eq!(state.order(order, stranger, NOW).unwrap_err(), Problem::not_found("order"));
    assert!(state.authorization(authorization, stranger).is_err());
    assert!(state.orders_of(stranger, 0, 10, NOW).is_empty());
    assert_eq!(state.orders_of(account, 0, 10, NOW), [order]);
}

#[test]
fn a_fresh_proof_is_used_again_by_the_same_account_only() {
    let mut state = State::new(Limits::default());
    let account = state.create_account(Client::new().key(), vec![], None, NOW).unwrap();
    let stranger = state.create_account(Client::new().key(), vec![], None, NOW).unwrap();
    let order = new_order(&mut state, account, &["a.example"], NOW).unwrap();
    prove_all(&mut state, order, account, NOW);

    let moment = NOW + REUSE - Duration::from_secs(1);
    let again = new_order(&mut state, account, &["a.example", "b.example"], moment).unwrap();
    let foreign = new_order(&mut state, stranger, &["a.example"], moment).unwrap();
    let late = new_order(&mut state, account, &["a.example"], NOW + REUSE).unwrap();
    let proven = state.order(order, account, moment).unwrap().authorizations[0];
    let of = |state: &mut State, order, account| {
        state.order(order, account, moment).unwrap().authorizations.clone()
    };
    assert_eq!(of(&mut state, again, account)[0], proven);
    assert_ne!(of(&mut state, foreign, stranger)[0], proven);
    assert_ne!(of(&mut state, late, account)[0], proven);
    // An order ends with the first of its authorizations.
    assert_eq!(state.order(again, account, moment).unwrap().expires, NOW + ORDER_LIFETIME);

    state.authorization(proven, account).unwrap().proof.deactivate();
    let after = new_order(&mut state, account, &["a.example"], moment).unwrap();
    assert_ne!(of(&mut state, after, account)[0], proven);
}

#[test]
fn the_oldest_finished_order_goes_when_there_are_too_many() {
    let mut state = State::new(Limits { accounts: 1, orders: 2, authorizations: 3 });
    let account = state.create_account(Client::new().key(), vec![], None, NOW).unwrap();
    let open = new_order(&mut state, account, &["a.example"], NOW).unwrap();
    let finished = new_order(&mut state, account, &["b.example"], NOW).unwrap();
    let error = new_order(&mut state, account, &["c.example"], NOW).unwrap_err();
    assert_eq!(error.kind, ProblemType::RateLimited);

    let number = state.order(finished, account, NOW).unwrap().authorizations[0];
    state.authorization(number, account).unwrap().proof.deactivate();
    let third = new_order(&mut state, account, &["c.example"], NOW).unwrap();
    assert!(state.order(finished, account, NOW).is_err());
    assert!(state.order(open, account, NOW).is_ok());
    assert_eq!(state.authorizations.len(), 2);

    // Two more authorizations do not fit, though one order would go.
    state.complete(third, Ok("chain".into()));
    assert!(new_order(&mut state, account, &["d.example", "e.example", "f.example"], NOW).is_err());
}

#[test]
fn a_busy_account_stays_and_an_idle_one_goes() {
    let mut state = State::new(Limits { accounts: 2, ..Limits::default() });
    let idle = Client::new().key();
    let busy = state.create_account(Client::new().key(), vec![], None, NOW).unwrap();
    state.create_account(idle.clone(), vec![], None, NOW).unwrap();
    new_order(&mut state, busy, &["a.example"], NOW).unwrap();
    state.create_account(Client::new().key(), vec![], None, NOW).unwrap();
    assert!(state.account(busy).is_some());
    assert_eq!(state.account_of(&idle), None);
    assert_eq!(state.accounts.len(), state.by_key.len());
}

#[test]
fn only_a_processing_order_completes() {
    let mut state = State::new(Limits::default());
    let account = state.create_account(Client::new().key(), vec![], None, NOW).unwrap();
    let order = new_order(&mut state, account, &["a.example"], NOW).unwrap();
    state.complete(order, Ok("chain".into()));
    assert_eq!(status(&mut state, order, account, NOW), OrderStatus::Pending);
    assert!(state.processing(order).is_none());
}
