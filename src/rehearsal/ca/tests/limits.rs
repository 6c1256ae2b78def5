//! Limits as a public CA keeps them, orders refused by name, and what is told of it.

use super::super::super::faults::{
    AnswerScope, FailingValidation, RefusalForm, RefusedIdentifiers, ValidationFault, VantagePoints,
};
use super::super::super::limits::{RateLimit, RateLimits};
use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn limited(limits: RateLimits) -> Session {
    Session::with_account(Faults { limits: Some(limits), ..Faults::default() })
}

fn once(refill: Duration) -> RateLimit {
    RateLimit { burst: 1, refill }
}

fn fail(session: &mut Session, name: &str) {
    let order = session.new_order(&[name]);
    assert_eq!(order.status, 201, "{order:?}");
    session.prove(&order, &Err(Problem::new(ProblemType::Connection, "refused")));
}

#[test]
fn five_failures_lock_an_account_out_of_an_identifier() {
    let mut session = limited(RateLimits::LETS_ENCRYPT);
    for _ in 0..5 {
        fail(&mut session, "a.example");
    }
    session.now += MINUTE;
    let refused = session.new_order(&["b.example", "a.example"]);
    assert_eq!((refused.status, refused.error(), refused.header("retry-after")), (429, "rateLimited", "660"));
    assert_eq!(
        refused.body["detail"],
        "too many failed authorizations (5) for \"a.example\", retry after 2027-01-15 08:12:00 UTC"
    );
    assert_eq!(session.new_order(&["b.example"]).status, 201);
    let seen = session.ca.seen().clone();
    assert_eq!(
        seen.authorizations_failed.into_iter().collect::<Vec<_>>(),
        [("a.example".parse().unwrap(), 5)]
    );
    assert_eq!((seen.orders, seen.limits_met), (6, 1));

    session.now += 11 * MINUTE;
    fail(&mut session, "a.example");
    assert_eq!(session.new_order(&["a.example"]).status, 429);
    session.become_another();
    assert_eq!(session.new_order(&["a.example"]).status, 201);
}

#[test]
fn a_set_of_names_has_only_so_many_certificates_unless_they_replace_each_other() {
    let mut session = limited(RateLimits { exact_set: once(MINUTE), ..RateLimits::LETS_ENCRYPT });
    let key = KeyPair::generate().unwrap();
    session.obtain(&["a.example", "b.example"], &key);
    let refused = session.new_order(&["b.example", "a.example"]);
    assert_eq!((refused.status, refused.header("retry-after")), (429, "60"));
    assert!(refused.text.contains("exact set of identifiers"), "{}", refused.text);
    session.obtain(&["a.example"], &key);
    session.now += MINUTE;
    session.obtain(&["a.example", "b.example"], &key);
    assert_eq!(session.new_order(&["a.example", "b.example"]).status, 429);
}

#[test]
fn renewals_of_a_set_escape_the_limits_on_orders_and_domains() {
    let limits =
        RateLimits { new_orders: once(MINUTE), registered_domain: once(MINUTE), ..RateLimits::LETS_ENCRYPT };
    let mut session = limited(limits);
    session.obtain(&["a.example"], &KeyPair::generate().unwrap());
    let other = session.new_order(&["b.example"]);
    assert_eq!(other.status, 429);
    assert!(other.text.contains("too many new orders"), "{}", other.text);
    session.obtain(&["a.example"], &KeyPair::generate().unwrap());
    session.become_another();
    // Another account, but a domain of the same one.
    let domain = session.new_order(&["a.example", "b.example"]);
    assert!(domain.text.contains("already issued for \\\"a.example\\\""), "{}", domain.text);
}

#[test]
fn accounts_are_limited_and_found_again_without_limit() {
    let mut session = Session::new(Faults::default());
    let limits = RateLimits { new_accounts: once(MINUTE), ..RateLimits::LETS_ENCRYPT };
    session.ca.set_faults(Faults { limits: Some(limits), ..Faults::default() });
    let request = r#"{"termsOfServiceAgreed":true}"#;
    assert_eq!(session.post("/new-account", request).status, 201);
    assert_eq!(session.post("/new-account", request).status, 200);
    session.client = Client::new();
    let refused = session.post("/new-account", request);
    assert_eq!((refused.status, refused.header("retry-after")), (429, "60"));

    // Other faults leave what was counted; other limits begin anew.
    session.ca.set_faults(Faults { limits: Some(limits), seed: 1, ..Faults::default() });
    assert_eq!(session.post("/new-account", request).status, 429);
    session.ca.set_faults(Faults { limits: Some(RateLimits::LETS_ENCRYPT), ..Faults::default() });
    assert_eq!(session.post("/new-account", request).status, 201);
}

#[test]
fn named_identifiers_are_refused_and_others_are_not() {
    let mut session = Session::with_account(Faults::default());
    let refused = RefusedIdentifiers {
        identifiers: vec!["b.example".parse().unwrap()],
        kind: ProblemType::RejectedIdentifier,
        form: RefusalForm::Subproblems,
    };
    session.ca.set_faults(Faults { refused: Some(refused), ..Faults::default() });
    let answer = session.new_order(&["a.example", "b.example"]);
    assert_eq!((answer.status, answer.error()), (400, "rejectedIdentifier"));
    assert_eq!(answer.body["subproblems"][0]["identifier"]["value"], "b.example");
    assert_eq!(session.new_order(&["a.example"]).status, 201);
    assert_eq!(session.ca.seen().orders, 1);
}

#[test]
fn a_validation_is_planned_as_it_was_told() {
    let mut session = Session::with_account(Faults::default());
    let points = VantagePoints { count: 5, failing: 1 };
    let failing = FailingValidation {
        identifier: "b.example".parse().unwrap(),
        fault: ValidationFault::Dns,
        gate_is_asked: false,
    };
    session.ca.set_faults(Faults { failing: vec![failing], vantage_points: points, ..Faults::default() });
    let order = session.new_order(&["a.example", "b.example"]);
    let mut plans = Vec::new();
    for url in order.body["authorizations"].as_array().unwrap() {
        let authorization = session.get(url.as_str().unwrap());
        let begun = session.post(authorization.body["challenges"][0]["url"].as_str().unwrap(), "{}");
        let Some(Action::Validate { plan, .. }) = begun.action else { panic!("{begun:?}") };
        plans.push(plan);
    }
    assert_eq!(
        plans,
        [Plan { failing: None, points }, Plan { failing: Some((ValidationFault::Dns, false)), points }]
    );
}

#[test]
fn what_failed_need_not_tell_why() {
    let mut session = Session::with_account(Faults { no_details: true, ..Faults::default() });
    let order = session.new_order(&["a.example"]);
    session.prove(&order, &Err(Problem::new(ProblemType::Connection, "refused")));
    let authorization = session.get(order.body["authorizations"][0].as_str().unwrap());
    assert_eq!(authorization.body["status"], "invalid");
    assert_eq!(authorization.body["challenges"][0].get("error"), None);

    let caa = Faults { order_error: Some(ProblemType::Caa), no_details: true, ..Faults::default() };
    session.ca.set_faults(caa);
    let order = session.ready_order(&["b.example"]);
    let done = session.finalize(&order, &["b.example"]);
    assert_eq!((done.body["status"].as_str(), done.body.get("error")), (Some("invalid"), None));
}

#[test]
fn a_status_comes_where_it_was_told_to_with_a_nonce() {
    let mut session = Session::with_account(Faults::default());
    let retry_after = RetryAfter::Date(Duration::from_secs(90));
    session.ca.set_faults(Faults {
        answer: AnswerFault::Status(503, retry_after),
        answer_scope: AnswerScope::Paths(&["/new-order", "/order/"]),
        ..Faults::default()
    });
    let down = session.new_order(&["a.example"]);
    assert_eq!((down.status, down.error()), (503, "serverInternal"));
    assert_eq!(down.header("retry-after"), "Fri, 15 Jan 2027 08:01:30 GMT");
    assert_ne!(down.header("replay-nonce"), "");
    let account = session.account.clone().unwrap();
    assert_eq!(session.get(&account).status, 200);
    assert_eq!(session.ca.seen().orders, 0);
}
