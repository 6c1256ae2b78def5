//! Revocation (RFC 8555 section 7.6).

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};

use super::*;

fn revocation(der: &[u8], reason: Option<u64>) -> String {
    json!({ "certificate": BASE64_URL_SAFE_NO_PAD.encode(der), "reason": reason }).to_string()
}

#[test]
fn the_owner_revokes_a_certificate_once() {
    let mut session = Session::with_account(Faults::default());
    let chain = session.obtain(&["a.example"], &KeyPair::generate().unwrap());
    let payload = revocation(&chain[0], Some(4));
    let done = session.post("/revoke-cert", &payload);
    assert_eq!((done.status, done.text.as_str()), (200, ""));
    let again = session.post("/revoke-cert", &payload);
    assert_eq!((again.status, again.error()), (400, "alreadyRevoked"));
    assert_eq!(session.ca.seen().revocations, 1);
}

#[test]
fn unsound_revocations_are_refused_with_the_reason() {
    let mut session = Session::with_account(Faults::default());
    let chain = session.obtain(&["a.example"], &KeyPair::generate().unwrap());
    for (payload, status, kind) in [
        (revocation(&chain[0], Some(2)), 400, "badRevocationReason"),
        (revocation(&chain[0], Some(7)), 400, "badRevocationReason"),
        (revocation(&chain[0], Some(u64::MAX)), 400, "badRevocationReason"),
        (revocation(&chain[1], None), 404, "malformed"),
        (revocation(b"", None), 404, "malformed"),
        (revocation(&[&chain[0][..], &[0]].concat(), None), 404, "malformed"),
        (r#"{"certificate":"=="}"#.into(), 400, "malformed"),
        (r#"{"certificate":"","reason":-1}"#.into(), 400, "malformed"),
        ("{}".into(), 400, "malformed"),
        (String::new(), 400, "malformed"),
    ] {
        let answer = session.post("/revoke-cert", &payload);
        assert_eq!((answer.status, answer.error()), (status, kind), "{payload}");
    }
    assert_eq!(session.post("/revoke-cert", &revocation(&chain[0], None)).status, 200);
}

#[test]
fn another_account_revokes_what_it_has_proved_to_control() {
    let mut session = Session::with_account(Faults::default());
    let chain = session.obtain(&["a.example", "b.example"], &KeyPair::generate().unwrap());
    session.become_another();
    let payload = revocation(&chain[0], None);
    let stranger = session.post("/revoke-cert", &payload);
    assert_eq!((stranger.status, stranger.error()), (403, "unauthorized"));
    session.ready_order(&["a.example"]);
    assert_eq!(session.post("/revoke-cert", &payload).error(), "unauthorized");
    session.ready_order(&["b.example"]);
    assert_eq!(session.post("/revoke-cert", &payload).status, 200);
}

#[test]
fn the_certificates_own_key_revokes_it() {
    let mut session = Session::with_account(Faults::default());
    let key = KeyPair::generate().unwrap();
    let chain = session.obtain(&["a.example"], &key);
    let payload = revocation(&chain[0], Some(1));
    let by_key = |session: &mut Session, client: &Client| {
        let header = json!({
            "alg": "ES256", "nonce": session.nonce(), "url": format!("{BASE}/revoke-cert"), "jwk": client.jwk(),
        });
        let body = client.sign(&header, &payload);
        session.ask(&Method::POST, "/revoke-cert", Some("application/jose+json"), &body)
    };
    let wrong = by_key(&mut session, &Client::new());
    assert_eq!((wrong.status, wrong.error()), (403, "unauthorized"));
    // Nor is it enough to own an account, if the request is not signed in its name.
    let account_key = std::mem::replace(&mut session.client, Client::new());
    assert_eq!(by_key(&mut session, &account_key).error(), "unauthorized");

    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.serialized_der()).unwrap();
    assert_eq!(by_key(&mut session, &Client::of(pair)).status, 200);
    assert_eq!(session.ca.seen().revocations, 1);
}
