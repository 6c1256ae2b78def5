//! Validations from several places, and ones that fail whatever the gate answers.

use wicketgate::rehearsal::{
    FailingValidation, RefusalForm, RefusedIdentifiers, ValidationFault, VantagePoints,
};

use super::*;

/// Tries to prove one name with the right answer at the gate: the problem, if there is one.
async fn prove(bench: &Bench, name: &str) -> Option<Problem> {
    let mut order = bench.order(&[name], None).await.unwrap();
    bench.answer(&mut order).await.unwrap();
    match order.poll_ready(&quickly()).await.unwrap() {
        OrderStatus::Ready => None,
        _ => Some(refused(&mut order).await),
    }
}

#[tokio::test]
async fn every_vantage_point_asks_from_an_address_of_its_own() {
    let bench = Bench::new().await;
    let points =
        |count, failing| Faults { vantage_points: VantagePoints { count, failing }, ..Faults::default() };
    bench.ca.set_faults(points(5, 0));
    assert!(prove(&bench, "a.example").await.is_none());
    let from = |last: u8| IpAddr::from([127, 0, 0, last]);
    assert_eq!(bench.answers.clients(), BTreeSet::from([2, 3, 4, 5, 6].map(from)));

    bench.answers.forget_clients();
    bench.ca.set_faults(points(5, 1));
    assert!(prove(&bench, "b.example").await.is_none());
    assert_eq!(bench.answers.clients(), BTreeSet::from([2, 3, 4, 5].map(from)));

    bench.ca.set_faults(points(5, 2));
    let problem = prove(&bench, "127.0.0.1").await.unwrap();
    assert_eq!(kind(&problem), "connection");
    let detail = problem.detail.unwrap();
    assert!(detail.starts_with("During secondary validation: "), "{detail}");

    bench.ca.set_faults(points(5, 5));
    let problem = prove(&bench, "::1").await.unwrap();
    assert!(!problem.detail.unwrap().contains("secondary"));
}

#[tokio::test]
async fn a_named_identifier_fails_whatever_the_gate_answers() {
    let bench = Bench::new().await;
    for (fault, expected, says) in [
        (ValidationFault::Dns, "dns", "NXDOMAIN"),
        (ValidationFault::Connection, "connection", "likely firewall problem"),
        (ValidationFault::Status(403), "unauthorized", ": 403"),
        (ValidationFault::Status(404), "unauthorized", ": 404"),
        (ValidationFault::Caa, "caa", "CAA record"),
    ] {
        for gate_is_asked in [false, true] {
            bench.answers.forget_clients();
            let failing =
                vec![FailingValidation { identifier: "a.example".parse().unwrap(), fault, gate_is_asked }];
            bench.ca.set_faults(Faults { failing, ..Faults::default() });
            let problem = prove(&bench, "a.example").await.unwrap();
            assert_eq!(kind(&problem), expected);
            assert!(problem.detail.as_deref().unwrap().contains(says), "{problem}");
            assert_eq!(!bench.answers.clients().is_empty(), gate_is_asked, "{fault:?}");
        }
    }
    assert!(prove(&bench, "b.example").await.is_none());
    let failed: Vec<_> = bench.ca.seen().authorizations_failed.into_iter().collect();
    assert_eq!(failed, [("a.example".parse().unwrap(), 10)]);
}

#[tokio::test]
async fn a_refused_identifier_is_named_to_the_client() {
    let bench = Bench::new().await;
    let refused = RefusedIdentifiers {
        identifiers: vec!["b.example".parse().unwrap()],
        kind: ProblemType::Caa,
        form: RefusalForm::Subproblems,
    };
    bench.ca.set_faults(Faults { refused: Some(refused), ..Faults::default() });
    let Err(error) = bench.order(&["a.example", "b.example"], None).await else { panic!("it was taken") };
    let problem = api_problem(error);
    assert_eq!(kind(&problem), "caa");
    assert_eq!(problem.subproblems.len(), 1);
    let Some(Identifier::Dns(name)) = &problem.subproblems[0].identifier else { panic!("{problem}") };
    assert_eq!(name, "b.example");
    assert!(bench.order(&["a.example"], None).await.is_ok());
}
