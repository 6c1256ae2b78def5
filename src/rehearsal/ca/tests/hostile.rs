//! What strangers may send: anything. Nothing of it may panic, and nothing may be signed for a name that
//! is not permitted.

use proptest::prelude::*;

use super::super::super::authority::Wanted;
use super::*;

const PATHS: [&str; 9] = [
    "/new-account",
    "/new-order",
    "/account/1",
    "/order/1",
    "/finalize/3",
    "/authorization/2",
    "/challenge/2",
    "/revoke-cert",
    "/key-change",
];

const MEMBERS: [&str; 15] = [
    "identifiers",
    "type",
    "value",
    "replaces",
    "profile",
    "contact",
    "status",
    "csr",
    "certificate",
    "reason",
    "externalAccountBinding",
    "termsOfServiceAgreed",
    "protected",
    "payload",
    "signature",
];

/// JSON made of the names that matter here.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        "[A-Za-z0-9_.-]{0,60}".prop_map(Value::from),
        Just(Value::from("a.example")),
        Just(Value::from("dns")),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        let member = prop::sample::select(MEMBERS.as_slice()).prop_map(str::to_owned);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(member, inner, 0..5)
                .prop_map(|members| members.into_iter().collect::<Value>()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn signed_nonsense_is_answered(payloads in prop::collection::vec((0..PATHS.len(), any_json()), 1..6)) {
        let mut session = Session::with_account(Faults::default());
        session.new_order(&["a.example"]);
        for (path, payload) in payloads {
            let answer = session.post(PATHS[path], &payload.to_string());
            prop_assert!(answer.status < 500, "{answer:?}");
        }
    }

    #[test]
    fn unsigned_nonsense_is_answered(path in "/\\PC{0,40}", body in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut session = Session::new(Faults::default());
        for method in [Method::GET, Method::HEAD, Method::POST, Method::PUT] {
            let answer = session.ask(&method, &path, Some("application/jose+json"), &body);
            prop_assert!((400..500).contains(&answer.status), "{answer:?}");
        }
    }
}

#[test]
fn an_order_for_a_name_that_is_not_permitted_ends_nowhere() {
    let mut session = Session::with_account(Faults::default());
    assert_eq!(session.new_order(&["c.example"]).error(), "rejectedIdentifier");
    let order = session.ready_order(&["a.example"]);
    for names in [&["c.example"][..], &["a.example", "c.example"], &["x.a.example"]] {
        assert_eq!(session.finalize(&order, names).error(), "badCSR", "{names:?}");
    }
    assert_eq!(session.ca.seen().certificates, 0);
    // Nor would the authority sign if all that failed.
    let key = KeyPair::generate().unwrap();
    let names = ["c.example".parse().unwrap()];
    let wanted =
        Wanted { names: &names, lifetime: Duration::from_secs(60), serial: [7; 16], fault: ChainFault::None };
    assert!(session.ca.authority.issue(&key, wanted, now()).is_err());
}
