//! The ACME engine against a CA that says what no well-behaved one would, or only once a year.

mod scripted;

use std::cell::RefCell;
use std::time::{Duration, SystemTime};

use scripted::{Proof, Script, ScriptedCa, problem};
use serde_json::{Value, json};
use wicketgate::acme::{AcmeError, CertificateId, OrderRequest, Session, Step, Verdict};
use wicketgate::certificate::Certificate;
use wicketgate::challenge::{Arrival, ChallengeTable, Outcome};
use wicketgate::clock;
use wicketgate::config::{ChallengeKind, KeyType};

/// How long a test waits for anything that should happen at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// A runtime and a CA in it.
fn with_ca<F: Future<Output = ()>>(script: Script, test: impl FnOnce(ScriptedCa) -> F) {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let ca = ScriptedCa::start(dir.path(), script).await;
        test(ca).await;
    });
}

/// A certificate with an authority key identifier, as a CA's has one.
fn certificate() -> Certificate {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(["a.example".to_owned()]).unwrap();
    params.use_authority_key_identifier_extension = true;
    Certificate::stored(&params.self_signed(&key).unwrap().pem(), &key.serialize_pem()).unwrap()
}

fn request(names: &[&str]) -> OrderRequest {
    OrderRequest {
        identifiers: names.iter().map(|name| name.parse().unwrap()).collect(),
        challenge: ChallengeKind::Http01,
        key_type: KeyType::EcdsaP256,
        profile: None,
        replaces: None,
    }
}

/// Runs an order that fails, and returns what was told and what it failed with.
async fn fail(session: &Session, request: &OrderRequest, table: &ChallengeTable) -> (Vec<Step>, AcmeError) {
    let steps = RefCell::new(Vec::new());
    let obtained = session.obtain(request, table, &|step| steps.borrow_mut().push(step)).await;
    (steps.into_inner(), obtained.expect_err("no order of this CA ends well"))
}

fn ari(base: &str) -> Vec<(&'static str, Value)> {
    vec![
        ("renewalInfo", json!(format!("{base}/ari/"))),
        ("meta", json!({ "profiles": { "short": "six days" }, "caaIdentities": ["CA.example"] })),
    ]
}

/// A CA that offers renewal information and one profile; its directory is read when a session opens.
async fn offering(ca: &ScriptedCa) -> Session {
    let offered = ari(ca.base());
    ca.script().directory = offered;
    ca.session().await
}

fn invalid(kind: &str) -> Value {
    json!({ "type": format!("urn:ietf:params:acme:error:{kind}"), "detail": "seen from afar", "status": 400 })
}

#[test]
fn renewal_information_is_asked_by_the_certificates_identity() {
    with_ca(Script::default(), |ca| async move {
        let certificate = certificate();
        let without = ca.session().await;
        assert!(!without.offers_renewal_info() && without.caa_identities().is_empty());
        let refused = without.renewal_info(&certificate).await.unwrap_err();
        assert_eq!(refused.verdict(), Verdict::Permanent);
        assert!(ca.script().fetched.is_empty());

        let session = offering(&ca).await;
        assert!(session.offers_renewal_info());
        assert_eq!(session.caa_identities(), ["ca.example"]);
        assert_eq!(session.account_uri(), format!("{}/account/1", ca.base()));
        let window = |wait| {
            let body = r#"{"suggestedWindow":{"start":"2026-11-02T00:00:00Z","end":"2026-11-03T00:00:00Z"},"explanationURL":"https://ca.example/why"}"#;
            Some((200, wait, body.to_owned()))
        };
        ca.script().renewal_info = window(None);
        let read = session.renewal_info(&certificate).await.unwrap();
        assert_eq!(read.end.duration_since(read.start).unwrap(), Duration::from_secs(86_400));
        assert_eq!(read.explanation_url.as_deref(), Some("https://ca.example/why"));
        assert_eq!(read.ask_again, None);
        let id = CertificateId::of(&certificate).unwrap();
        assert_eq!(ca.script().fetched, [format!("/ari/{id}")]);
        for (wait, is_told) in [("21600", true), ("0", true), ("4294967295", true), ("soon", false)] {
            ca.script().renewal_info = window(Some(wait));
            let read = session.renewal_info(&certificate).await.unwrap();
            assert_eq!(read.ask_again.is_some(), is_told, "{wait}");
            assert!(
                read.ask_again
                    .is_none_or(|at| at > clock::now() && at <= clock::now() + Duration::from_secs(86_400))
            );
        }
    });
}

#[test]
fn renewal_information_that_is_none_is_an_error_and_no_more() {
    with_ca(Script::default(), |ca| async move {
        let session = offering(&ca).await;
        let certificate = certificate();
        let odd = |body: &str| (200, Some("18446744073709551615"), body.to_owned());
        for (answer, words) in [
            (problem(404, "malformed"), "so it is (malformed)"),
            (problem(500, "serverInternal"), "so it is (serverInternal)"),
            (odd("{"), "the answer is not JSON"),
            (odd("{}"), "names no start"),
            (odd(&format!("\"{}\"", "x".repeat(2 << 20))), "more than 1048576 bytes"),
        ] {
            ca.script().renewal_info = Some(answer);
            let refused = session.renewal_info(&certificate).await.unwrap_err().to_string();
            assert!(refused.starts_with("cannot ask the CA when to renew: "), "{refused}");
            assert!(refused.contains(words), "`{words}` is not in: {refused}");
            assert!(!refused.contains("acme.eab"), "it is no matter of the account: {refused}");
        }
    });
}

#[test]
fn an_order_refused_for_what_it_replaces_is_repeated_once_without() {
    with_ca(Script { order_status: "invalid", ..Script::default() }, |ca| async move {
        let id = CertificateId::of(&certificate()).unwrap();
        let request = OrderRequest { replaces: Some(id.clone()), ..request(&["a.example"]) };
        let table = ChallengeTable::new();
        let replaces = |ca: &ScriptedCa| -> Vec<bool> {
            let orders = ca.script().sent_to("/new-order");
            ca.script().asked.clear();
            ca.script().proofs = vec![Proof::new("a.example", "invalid", Value::Null)];
            orders.iter().map(|order| order["replaces"] == json!(id.to_string())).collect()
        };
        replaces(&ca);

        // Where the CA has never heard of it, it is not told.
        fail(&ca.session().await, &request, &table).await;
        assert_eq!(replaces(&ca), [false]);

        let session = offering(&ca).await;
        let (steps, _) = fail(&session, &request, &table).await;
        assert_eq!(steps[0], Step::Ordered { to_prove: 1, replaces: true });
        assert_eq!(replaces(&ca), [true]);

        for refusal in [
            problem(409, "alreadyReplaced"),
            problem(400, "malformed"),
            problem(403, "unauthorized"),
            problem(500, "serverInternal"),
        ] {
            ca.script().refusals = [refusal.clone()].into();
            let (steps, _) = fail(&session, &request, &table).await;
            assert!(matches!(steps[0], Step::ReplacesRefused { .. }), "{refusal:?}: {steps:?}");
            assert_eq!(steps[1], Step::Ordered { to_prove: 1, replaces: false }, "{refusal:?}");
            assert_eq!(replaces(&ca), [true, false], "{refusal:?}");

            ca.script().refusals = [refusal.clone(), refusal.clone()].into();
            let (steps, _) = fail(&session, &request, &table).await;
            assert_eq!(steps.len(), 1, "{refusal:?}: {steps:?}");
            assert_eq!(replaces(&ca), [true, false], "once, and not again: {refusal:?}");
        }

        // Taken is taken, whether or not the answer says what for.
        ca.script().forgets_replaces = true;
        let (steps, _) = fail(&session, &request, &table).await;
        assert_eq!(steps[0], Step::Ordered { to_prove: 1, replaces: false }, "{steps:?}");
        assert_eq!(replaces(&ca), [true]);

        for refusal in [
            problem(429, "rateLimited"),
            problem(503, "serverInternal"),
            problem(400, "rejectedIdentifier"),
            problem(403, "caa"),
            problem(400, "accountDoesNotExist"),
        ] {
            ca.script().refusals = [refusal.clone()].into();
            let (steps, _) = fail(&session, &request, &table).await;
            assert_eq!(steps, [], "{refusal:?}");
            assert_eq!(replaces(&ca), [true], "{refusal:?}");
        }
    });
}

#[test]
fn a_profile_that_the_ca_offers_and_refuses_is_left_out_once() {
    with_ca(Script { order_status: "invalid", ..Script::default() }, |ca| async move {
        let session = offering(&ca).await;
        let replaces = CertificateId::of(&certificate());
        let request = OrderRequest { profile: Some("short".to_owned()), replaces, ..request(&["a.example"]) };
        ca.script().proofs = vec![Proof::new("a.example", "invalid", Value::Null)];
        ca.script().refusals = [problem(400, "invalidProfile"), problem(409, "alreadyReplaced")].into();
        let (steps, _) = fail(&session, &request, &ChallengeTable::new()).await;
        assert!(matches!(&steps[0], Step::ProfileRefused { wanted, .. } if wanted == "short"), "{steps:?}");
        assert!(matches!(steps[1], Step::ReplacesRefused { .. }), "{steps:?}");
        let orders = ca.script().sent_to("/new-order");
        let members: Vec<_> =
            orders.iter().map(|o| (o.get("profile").is_some(), o.get("replaces").is_some())).collect();
        assert_eq!(members, [(true, true), (false, true), (false, false)]);
    });
}

#[test]
fn verdicts_carry_how_long_and_how_widely_to_wait() {
    with_ca(Script::default(), |ca| async move {
        let session = ca.session().await;
        for (status, kind, wait, whole_issuer) in [
            (429, "rateLimited", Some("120"), false),
            (429, "rateLimited", None, false),
            (429, "malformed", Some("120"), true),
            (503, "rateLimited", Some("120"), true),
            (503, "serverInternal", None, true),
        ] {
            let (status, _, body) = problem(status, kind);
            ca.script().refusals = [(status, wait, body)].into();
            let (_, error) = fail(&session, &request(&["a.example"]), &ChallengeTable::new()).await;
            let Verdict::RateLimited { until, whole_issuer: seen } = error.verdict() else {
                panic!("{error}")
            };
            assert_eq!((seen, until.is_some()), (whole_issuer, wait.is_some()), "{status} {kind}");
            assert!(until.is_none_or(|until| until > clock::now()), "{status} {kind}");
        }
    });
}

/// Three names fail, one is valid, one is pending when the order ends.
fn five_names() -> Script {
    let mut proven = Proof::new("proven.example", "valid", Value::Null);
    proven.status = "valid";
    Script {
        order_status: "pending",
        proofs: vec![
            Proof::new("waits.example", "pending", Value::Null),
            proven,
            Proof::new("one.example", "invalid", invalid("connection")),
            Proof::new("two.example", "invalid", invalid("unauthorized")),
            Proof::new("three.example", "invalid", Value::Null),
        ],
        ..Script::default()
    }
}

const FIVE: [&str; 5] = ["waits.example", "proven.example", "one.example", "two.example", "three.example"];

#[test]
fn every_dead_name_is_known_with_who_came_and_the_others_are_let_go() {
    with_ca(five_names(), |ca| async move {
        let (session, table) = (ca.session().await, ChallengeTable::new());
        // What came for an attempt before is told where it came late.
        let came = |outcome| Arrival {
            at: clock::now(),
            client: "192.0.2.1".parse().unwrap(),
            host: Some("two.example".parse().unwrap()),
            outcome,
        };
        let steps = |step: Step| {
            // The CA's validators come once all challenges are in place.
            if step == Step::Challenged("three.example".parse().unwrap()) {
                table.arrived("token3", came(Outcome::Answered)).unwrap();
                ca.script().order_status = "invalid";
            }
        };
        let error = session.obtain(&request(&FIVE), &table, &steps).await.unwrap_err();
        let failures = error.failures();
        let seen: Vec<_> = failures
            .iter()
            .map(|f| (f.identifier.to_string(), f.kind.as_str(), f.arrivals.len(), f.authorization_failed))
            .collect();
        let expected =
            [("one.example", "connection", 0), ("two.example", "unauthorized", 1), ("three.example", "", 0)];
        let expected: Vec<_> =
            expected.iter().map(|(name, kind, n)| ((*name).to_owned(), *kind, *n, true)).collect();
        assert_eq!(seen, expected);
        assert_eq!(failures[0].detail, "seen from afar");
        assert_eq!(error.verdict(), Verdict::Validation);
        assert_eq!(error.action(), "prove control over the names");
        assert!(table.is_empty());

        let statuses: Vec<_> = ca.script().proofs.iter().map(|p| p.status).collect();
        assert_eq!(statuses, ["deactivated", "valid", "invalid", "invalid", "invalid"]);

        table.arrived("token3", came(Outcome::UnknownToken)).unwrap();
        let late = table.late_arrivals(&"two.example".parse().unwrap(), clock::now());
        assert_eq!(late.iter().map(|a| a.outcome).collect::<Vec<_>>(), [Outcome::Late]);
    });
}

#[test]
fn a_refusal_by_name_is_no_failed_authorization() {
    with_ca(Script::default(), |ca| async move {
        let body = json!({
            "type": "urn:ietf:params:acme:error:rejectedIdentifier", "detail": "some names", "status": 400,
            "subproblems": [
                { "type": "urn:ietf:params:acme:error:rejectedIdentifier", "detail": "Policy.",
                  "identifier": { "type": "dns", "value": "one.example" } },
                { "type": "urn:ietf:params:acme:error:caa", "identifier": { "type": "odd", "value": [] } },
            ],
        });
        ca.script().refusals = [(400, None, body.to_string())].into();
        let session = ca.session().await;
        let (_, error) = fail(&session, &request(&FIVE), &ChallengeTable::new()).await;
        assert_eq!(error.verdict(), Verdict::Permanent);
        let [failure] = error.failures() else { panic!("{:?}", error.failures()) };
        assert_eq!(
            (failure.identifier.to_string().as_str(), failure.detail.as_str()),
            ("one.example", "Policy")
        );
        assert!(!failure.authorization_failed && failure.status == Some(400));
    });
}

/// Waits until the CA has seen what it should.
async fn until(ca: &ScriptedCa, mut is_so: impl FnMut(&Script) -> bool) {
    let waiting = async {
        while !is_so(&ca.script()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("the CA sees it in time");
}

#[test]
fn an_order_that_is_dropped_lets_its_names_go() {
    let script = Script {
        order_status: "pending",
        proofs: vec![Proof::new("a.example", "pending", Value::Null); 2],
        ..Script::default()
    };
    with_ca(script, |ca| async move {
        let (session, table) = (ca.session().await, ChallengeTable::new());
        let request = request(&["a.example"]);
        {
            let mut order = std::pin::pin!(session.obtain(&request, &table, &|_| ()));
            tokio::select! {
                ended = &mut order => panic!("{ended:?}"),
                () = until(&ca, |script| !script.sent_to("/order").is_empty()) => {}
            }
            assert!(!table.is_empty());
        }
        assert!(table.is_empty());
        until(&ca, |script| script.proofs.iter().all(|p| p.status == "deactivated")).await;
    });
}

#[test]
fn a_name_that_another_order_waits_for_is_not_let_go() {
    let script = Script {
        order_status: "pending",
        proofs: vec![Proof::new("a.example", "pending", Value::Null)],
        ..Script::default()
    };
    with_ca(script, |ca| async move {
        let (session, table) = (ca.session().await, ChallengeTable::new());
        let request = request(&["a.example"]);
        let mut waits = std::pin::pin!(session.obtain(&request, &table, &|_| ()));
        {
            let mut given_up = std::pin::pin!(session.obtain(&request, &table, &|_| ()));
            tokio::select! {
                ended = &mut waits => panic!("{ended:?}"),
                ended = &mut given_up => panic!("{ended:?}"),
                () = until(&ca, |script| script.sent_to("/challenge/0").len() == 2) => {}
            }
        }
        // The order that was given up is looked at again before anything is let go.
        let reads = ca.script().sent_to("/order").len();
        tokio::select! {
            ended = &mut waits => panic!("{ended:?}"),
            () = until(&ca, |script| script.sent_to("/order").len() > reads + 3) => {}
        }
        assert_eq!(ca.script().proofs[0].status, "pending");
        assert!(!table.is_empty(), "the token is held by the order that still waits");
    });
}

#[test]
fn a_wait_of_more_seconds_than_a_clock_holds_is_survived() {
    let script = Script {
        order_status: "pending",
        proofs: vec![Proof::new("a.example", "invalid", invalid("dns"))],
        ..Script::default()
    };
    with_ca(script, |ca| async move {
        let (session, table) = (ca.session().await, ChallengeTable::new());
        let steps = |step| {
            if matches!(step, Step::Challenged(_)) {
                ca.script().order_status = "invalid";
            }
        };
        let before: SystemTime = clock::now();
        let error = session.obtain(&request(&["a.example"]), &table, &steps).await.unwrap_err();
        assert!(ca.script().sent_to("/order").len() > 1, "the order was read with that Retry-After");
        assert_eq!(error.verdict(), Verdict::Validation);
        assert!(clock::now() >= before);
    });
}
