//! External account binding and key rollover (RFC 8555 sections 7.3.4 and 7.3.5).

use super::super::super::external::ExternalAccount;
use super::super::super::jws::signing::binding;
use super::*;

const KEY: [u8; 32] = [7; 32];

fn with_external() -> Session {
    let external = ExternalAccounts::new(vec![ExternalAccount::new("kid-1", KEY)]).unwrap();
    let ca = founded(Faults::default(), external);
    Session { ca, client: Client::new(), account: None, now: now() }
}

fn bound(client: &Client) -> Value {
    let header = json!({ "alg": "HS256", "kid": "kid-1", "url": format!("{BASE}/new-account") });
    json!({
        "termsOfServiceAgreed": true,
        "externalAccountBinding": binding(&header, &client.jwk().to_string(), &KEY),
    })
}

#[test]
fn an_account_is_bound_to_one_elsewhere_once() {
    let mut session = with_external();
    let directory = session.ask(&Method::GET, "/directory", None, b"");
    assert_eq!(directory.body["meta"]["externalAccountRequired"], true);
    let without = session.post("/new-account", r#"{"termsOfServiceAgreed":true}"#);
    assert_eq!((without.status, without.error()), (403, "externalAccountRequired"));
    assert_eq!(session.post("/new-account", &bound(&Client::new()).to_string()).error(), "malformed");

    let request = bound(&session.client);
    let made = session.post("/new-account", &request.to_string());
    assert_eq!(made.status, 201, "{made:?}");
    assert_eq!(made.body["externalAccountBinding"], request["externalAccountBinding"]);
    // The same key finds its account again, bound or not.
    assert_eq!(session.post("/new-account", r#"{"onlyReturnExisting":true}"#).status, 200);

    session.client = Client::new();
    let again = bound(&session.client).to_string();
    let again = session.post("/new-account", &again);
    assert_eq!((again.status, again.error()), (403, "unauthorized"));
    assert_eq!(session.ca.seen().accounts, 1);
}

#[test]
fn a_binding_is_ignored_where_none_is_asked_for() {
    let mut session = Session::new(Faults::default());
    let request = bound(&session.client).to_string();
    let made = session.post("/new-account", &request);
    assert_eq!((made.status, made.body.get("externalAccountBinding")), (201, None));
}

/// The payload of a key change.
fn change(account: &str, old: &Client, new: &Client, url: &str) -> Value {
    let header = json!({ "alg": "ES256", "url": url, "jwk": new.jwk() });
    let payload = json!({ "account": account, "oldKey": old.jwk() });
    serde_json::from_slice(&new.sign(&header, &payload.to_string())).unwrap()
}

#[test]
fn a_key_is_changed_and_the_old_one_opens_nothing() {
    let mut session = Session::with_account(Faults::default());
    let account = session.account.clone().unwrap();
    let order = session.new_order(&["a.example"]);
    let new = Client::new();
    let request = change(&account, &session.client, &new, &format!("{BASE}/key-change"));
    let changed = session.post("/key-change", &request.to_string());
    assert_eq!((changed.status, changed.body["status"].as_str()), (200, Some("valid")));
    assert_eq!(session.get(&account).error(), "malformed");

    let old = std::mem::replace(&mut session.client, new);
    assert_eq!(session.get(order.header("location")).status, 200);
    assert_eq!(session.post("/new-account", r#"{"onlyReturnExisting":true}"#).header("location"), account);
    session.client = old;
    session.account = None;
    let gone = session.post("/new-account", r#"{"onlyReturnExisting":true}"#);
    assert_eq!(gone.error(), "accountDoesNotExist");
}

#[test]
fn unsound_key_changes_are_refused_and_change_nothing() {
    let mut session = Session::with_account(Faults::default());
    let account = session.account.clone().unwrap();
    let (url, new) = (format!("{BASE}/key-change"), Client::new());
    let sound = change(&account, &session.client, &new, &url);
    let mut forged = sound.clone();
    forged["signature"] = change(&account, &session.client, &new, &url)["payload"].clone();
    let kid = json!({ "alg": "ES256", "url": url, "kid": account });
    let by_kid: Value = serde_json::from_slice(&new.sign(&kid, "{}")).unwrap();
    for request in [
        json!({}),
        forged,
        by_kid,
        change(&format!("{BASE}/account/999"), &session.client, &new, &url),
        change(&account, &new, &new, &url),
        change(&account, &session.client, &new, &format!("{BASE}/new-order")),
    ] {
        let refused = session.post("/key-change", &request.to_string());
        assert_eq!((refused.status, refused.error()), (400, "malformed"), "{request}");
    }
    let (first, _) = session.become_another();
    let second = session.account.clone().unwrap();
    let taken = change(&second, &session.client, &first, &url);
    let taken = session.post("/key-change", &taken.to_string());
    assert_eq!((taken.status, taken.header("location")), (409, account.as_str()));
    assert_eq!(session.get(&second).status, 200);
}
