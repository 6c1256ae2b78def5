//! Renewal information and replacements (RFC 9773).

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;

use super::super::super::faults::{RenewalFaults, WindowFault};
use super::*;

/// The name that a client makes of a leaf (RFC 9773 section 4.1).
fn certificate_id(der: &[u8]) -> String {
    let (_, leaf) = X509Certificate::from_der(der).unwrap();
    let issuer = leaf.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref(),
        _ => None,
    });
    let text = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    format!("{}.{}", text(issuer.unwrap().0), text(leaf.raw_serial()))
}

impl Session {
    fn renewal_info(&mut self, id: &str) -> Answer {
        self.ask(&Method::GET, &format!("/renewal-info/{id}"), None, b"")
    }

    fn replace(&mut self, names: &[&str], id: &str) -> Answer {
        let identifiers: Vec<_> = names.iter().map(|name| json!({ "type": "dns", "value": name })).collect();
        self.post("/new-order", &json!({ "identifiers": identifiers, "replaces": id }).to_string())
    }
}

fn issued(session: &mut Session, names: &[&str]) -> String {
    certificate_id(&session.obtain(names, &KeyPair::generate().unwrap())[0])
}

#[test]
fn a_certificate_has_its_window_and_others_have_none() {
    let mut session = Session::with_account(Faults::default());
    session.ca.set_leaf_lifetime(Some(Duration::from_secs(90 * 24 * 3600)));
    let id = issued(&mut session, &["a.example"]);
    let answer = session.renewal_info(&id);
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    assert_eq!(answer.header("retry-after"), "21600");
    // The leaf begins five seconds ago: 59 and 61 days after that.
    assert_eq!(
        answer.body,
        json!({ "suggestedWindow": { "start": "2027-03-15T07:59:55Z", "end": "2027-03-17T07:59:55Z" } })
    );
    assert_eq!(answer.header("replay-nonce"), "");
    assert_eq!(session.get(&format!("/renewal-info/{id}")).body, answer.body);

    let (issuer, serial) = id.split_once('.').unwrap();
    let other = BASE64_URL_SAFE_NO_PAD.encode([0x41; 16]);
    for unknown in [
        format!("{issuer}.{other}"),
        format!("{other}.{serial}"),
        format!("{id}="),
        serial.into(),
        String::new(),
    ] {
        let answer = session.renewal_info(&unknown);
        assert_eq!((answer.status, answer.error()), (404, "malformed"), "{unknown}");
    }
}

#[test]
fn an_order_replaces_a_certificate_once() {
    let mut session = Session::with_account(Faults::default());
    let id = issued(&mut session, &["a.example"]);
    let order = session.replace(&["a.example", "b.example"], &id);
    assert_eq!((order.status, order.url("replaces")), (201, id.clone()));
    let url = order.header("location").to_owned();
    assert_eq!(session.get(&url).body["replaces"], id);
    let twice = session.replace(&["a.example"], &id);
    assert_eq!((twice.status, twice.error()), (409, "alreadyReplaced"));

    // What became of nothing replaces nothing.
    session.prove(&order, &Err(Problem::new(ProblemType::Connection, "refused")));
    assert_eq!(session.get(&url).body["status"], "invalid");
    let again = session.replace(&["a.example"], &id);
    assert_eq!(again.status, 201, "{again:?}");
    session.prove(&again, &Ok(()));
    let next = certificate_id(&session.complete(&again, &["a.example"], &KeyPair::generate().unwrap())[0]);
    assert_eq!(session.replace(&["a.example"], &id).error(), "alreadyReplaced");
    assert_eq!(session.replace(&["a.example"], &next).status, 201);
    assert_eq!((session.ca.seen().orders, session.ca.seen().orders_with_replaces), (4, 3));
}

#[test]
fn what_may_not_be_replaced_is_refused_with_the_reason() {
    let mut session = Session::with_account(Faults::default());
    let id = issued(&mut session, &["a.example"]);
    let unknown = format!("{}.{}", &id[..27], BASE64_URL_SAFE_NO_PAD.encode([0x41; 16]));
    for (id, names, status, kind) in [
        (id.as_str(), ["b.example"], 400, "malformed"),
        (unknown.as_str(), ["a.example"], 404, "malformed"),
        ("aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE", ["a.example"], 404, "malformed"),
        ("nonsense", ["a.example"], 400, "malformed"),
        ("", ["a.example"], 400, "malformed"),
    ] {
        let answer = session.replace(&names, id);
        assert_eq!((answer.status, answer.error()), (status, kind), "{id}");
    }
    session.become_another();
    let foreign = session.replace(&["a.example"], &id);
    assert_eq!((foreign.status, foreign.error()), (403, "unauthorized"));
    assert_eq!(session.ca.seen().orders_with_replaces, 0);
}

#[test]
fn replacing_can_be_told_to_fail() {
    let mut session = Session::with_account(Faults::default());
    let id = issued(&mut session, &["a.example"]);
    for (kind, status, name) in [
        (ProblemType::AlreadyReplaced, 409, "alreadyReplaced"),
        (ProblemType::Malformed, 400, "malformed"),
        (ProblemType::ServerInternal, 500, "serverInternal"),
    ] {
        session.ca.set_faults(Faults { replaces_refused: Some(kind), ..Faults::default() });
        let refused = session.replace(&["a.example"], &id);
        assert_eq!((refused.status, refused.error()), (status, name));
        assert_eq!(session.new_order(&["a.example"]).status, 201);
    }
}

#[test]
fn renewal_information_need_not_be_offered() {
    let mut session = Session::with_account(Faults::default());
    let id = issued(&mut session, &["a.example"]);
    let renewal = RenewalFaults { not_offered: true, ..RenewalFaults::default() };
    session.ca.set_faults(Faults { renewal, ..Faults::default() });
    assert_eq!(session.ask(&Method::GET, "/directory", None, b"").body.get("renewalInfo"), None);
    assert_eq!(session.renewal_info(&id).status, 404);
    let order = session.replace(&["a.example"], &id);
    assert_eq!((order.status, order.body.get("replaces")), (201, None));
}

#[test]
fn answers_about_renewals_go_wrong_as_they_are_told() {
    let mut session = Session::with_account(Faults::default());
    let id = issued(&mut session, &["a.example"]);
    let usual = session.renewal_info(&id);
    let with = |session: &mut Session, renewal: RenewalFaults| {
        session.ca.set_faults(Faults { renewal, ..Faults::default() });
        session.renewal_info(&id)
    };
    let none = RenewalFaults::default;
    let reversed = with(&mut session, RenewalFaults { window: WindowFault::Reversed, ..none() });
    assert_eq!(reversed.body["suggestedWindow"]["start"], usual.body["suggestedWindow"]["end"]);
    let step = Duration::from_secs(10);
    let earlier = RenewalFaults { window: WindowFault::Earlier(step), ..none() };
    let moved: Vec<_> = (0..2)
        .map(|_| with(&mut session, earlier.clone()).body["suggestedWindow"]["start"].clone())
        .collect();
    assert!(moved[1].as_str() < moved[0].as_str(), "{moved:?}");

    let page = "https://ca.example/incident".to_owned();
    let explained = with(&mut session, RenewalFaults { explanation_url: Some(page.clone()), ..none() });
    assert_eq!(explained.body["explanationURL"], page);
    for (retry_after, expected) in [
        (RetryAfter::Missing, ""),
        (RetryAfter::Seconds(Duration::from_secs(7)), "7"),
        (RetryAfter::Date(Duration::from_secs(60)), "Fri, 15 Jan 2027 08:01:00 GMT"),
        (RetryAfter::Text("soon"), "soon"),
        (RetryAfter::Text("no\r\nheader"), ""),
    ] {
        let answer = with(&mut session, RenewalFaults { retry_after: Some(retry_after), ..none() });
        assert_eq!((answer.status, answer.header("retry-after")), (200, expected), "{retry_after:?}");
    }
    let soon = RetryAfter::Seconds(Duration::from_secs(1));
    for (status, error) in
        [(404, "malformed"), (429, "rateLimited"), (500, "serverInternal"), (503, "serverInternal")]
    {
        let answer =
            with(&mut session, RenewalFaults { answer: AnswerFault::Status(status, soon), ..none() });
        assert_eq!((answer.status, answer.error(), answer.header("retry-after")), (status, error, "1"));
    }
}

#[test]
fn a_revoked_certificate_is_to_be_renewed_at_once() {
    let mut session = Session::with_account(Faults::default());
    let der = session.obtain(&["a.example"], &KeyPair::generate().unwrap())[0].clone();
    let payload = json!({ "certificate": BASE64_URL_SAFE_NO_PAD.encode(&der) }).to_string();
    assert_eq!(session.post("/revoke-cert", &payload).status, 200);
    let id = certificate_id(&der);
    let answer = session.renewal_info(&id);
    assert_eq!(
        answer.body["suggestedWindow"],
        json!({ "start": "2027-01-15T07:00:00Z", "end": "2027-01-15T07:30:00Z" })
    );
    let page = answer.url("explanationURL");
    let page = session.ask(&Method::GET, page.strip_prefix(BASE).unwrap(), None, b"");
    assert!(page.text.contains("revoked"), "{}", page.text);
    assert_eq!(session.replace(&["a.example"], &id).status, 201);
}

#[test]
fn asks_are_counted_whatever_the_answer() {
    let mut session = Session::with_account(Faults::default());
    let renewal = RenewalFaults { answer: AnswerFault::Hang, ..RenewalFaults::default() };
    session.ca.set_faults(Faults { renewal, ..Faults::default() });
    assert_eq!(session.ca.meet("/renewal-info/x.y"), AnswerFault::Hang);
    assert_eq!(session.ca.meet("/directory"), AnswerFault::None);
    assert_eq!(session.ca.seen().renewal_info_asks, 1);
}
