//! The protocol, driven without a network.

use std::net::Ipv4Addr;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;

use super::super::authority::Terms;
use super::super::faults::ChainFault;
use super::super::jws::signing::Client;
use super::super::state::REUSE;
use super::orders::PAGE;
use super::*;

mod accounts;
mod hostile;
mod limits;
mod renewal;
mod revocation;

const BASE: &str = "https://127.0.0.1:14000";

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn ca(faults: Faults) -> Ca {
    founded(faults, ExternalAccounts::default())
}

fn founded(faults: Faults, external: ExternalAccounts) -> Ca {
    let permitted: Vec<Identifier> =
        ["a.example", "b.example", "192.0.2.1"].map(|name| name.parse().unwrap()).to_vec();
    let lifetime = Duration::from_secs(200 * 24 * 3600);
    let terms = Terms { lifetime, backdate: Duration::ZERO };
    let (authority, _) =
        Authority::new(&permitted, Ipv4Addr::LOCALHOST.into(), terms, now(), [9; 16]).unwrap();
    let (base, caa_identity) = (BASE.to_owned(), "ca.example".to_owned());
    Ca::new(Founding { base, authority, permitted, external, leaf_lifetime: None, caa_identity, faults })
}

/// An ACME client without a network.
struct Session {
    ca: Ca,
    client: Client,
    account: Option<String>,
    now: SystemTime,
}

/// What a client sees of an answer.
#[derive(Debug)]
struct Answer {
    status: u16,
    body: Value,
    text: String,
    reply: Reply,
    action: Option<Action>,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.reply.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn links(&self) -> Vec<&str> {
        self.reply.headers.get_all("link").iter().map(|value| value.to_str().unwrap()).collect()
    }

    /// The error type after its prefix.
    fn error(&self) -> &str {
        self.body["type"].as_str().unwrap_or_default().trim_start_matches("urn:ietf:params:acme:error:")
    }

    fn url(&self, member: &str) -> String {
        self.body[member].as_str().unwrap().to_owned()
    }
}

impl Session {
    fn new(faults: Faults) -> Self {
        Self { ca: ca(faults), client: Client::new(), account: None, now: now() }
    }

    fn with_account(faults: Faults) -> Self {
        let mut session = Self::new(faults);
        let answer = session.post("/new-account", &json!({ "termsOfServiceAgreed": true }).to_string());
        assert_eq!(answer.status, 201, "{answer:?}");
        session.account = Some(answer.header("location").to_owned());
        session
    }

    fn ask(&mut self, method: &Method, path: &str, content_type: Option<&str>, body: &[u8]) -> Answer {
        let (reply, action) = self.ca.handle(Ask { method, path, content_type, body }, self.now);
        Answer {
            status: reply.status.as_u16(),
            body: serde_json::from_slice(&reply.body).unwrap_or(Value::Null),
            text: String::from_utf8(reply.body.to_vec()).unwrap(),
            reply,
            action,
        }
    }

    fn nonce(&mut self) -> String {
        let answer = self.ask(&Method::HEAD, "/new-nonce", None, b"");
        answer.header("replay-nonce").to_owned()
    }

    fn protected(&mut self, path: &str) -> Value {
        let mut protected = json!({ "alg": "ES256", "nonce": self.nonce(), "url": format!("{BASE}{path}") });
        match (&self.account, path) {
            (Some(account), path) if path != "/new-account" => protected["kid"] = account.as_str().into(),
            _ => protected["jwk"] = self.client.jwk(),
        }
        protected
    }

    fn send(&mut self, path: &str, protected: &Value, payload: &str) -> Answer {
        let body = self.client.sign(protected, payload);
        self.ask(&Method::POST, path, Some("application/jose+json"), &body)
    }

    fn post(&mut self, path: &str, payload: &str) -> Answer {
        let path = path.strip_prefix(BASE).unwrap_or(path).to_owned();
        let protected = self.protected(&path);
        self.send(&path, &protected, payload)
    }

    /// POST-as-GET
    fn get(&mut self, path: &str) -> Answer {
        self.post(path, "")
    }

    fn new_order(&mut self, names: &[&str]) -> Answer {
        let identifiers: Vec<_> = names.iter().map(|name| json!({ "type": "dns", "value": name })).collect();
        self.post("/new-order", &json!({ "identifiers": identifiers, "profile": "minutes" }).to_string())
    }

    /// Answers all challenges of an order; the validator's verdicts are given.
    fn prove(&mut self, order: &Answer, verdict: &Result<(), Problem>) {
        for url in order.body["authorizations"].as_array().unwrap() {
            let authorization = self.get(url.as_str().unwrap());
            let challenge = self.post(authorization.body["challenges"][0]["url"].as_str().unwrap(), "{}");
            if let Some(Action::Validate { authorization, .. }) = challenge.action {
                self.ca.validated(authorization, verdict.clone(), self.now);
            }
        }
    }

    fn finalize(&mut self, order: &Answer, names: &[&str]) -> Answer {
        let csr = csr(names, &KeyPair::generate().unwrap());
        self.post(&order.url("finalize"), &json!({ "csr": csr }).to_string())
    }

    /// A whole issuance: the chain's DER, leaf first.
    fn obtain(&mut self, names: &[&str], key: &KeyPair) -> Vec<Vec<u8>> {
        let order = self.ready_order(names);
        self.complete(&order, names, key)
    }

    fn complete(&mut self, order: &Answer, names: &[&str], key: &KeyPair) -> Vec<Vec<u8>> {
        let done = self.post(&order.url("finalize"), &json!({ "csr": csr(names, key) }).to_string());
        assert_eq!(done.body["status"], "valid", "{done:?}");
        let chain = self.get(&done.url("certificate"));
        CertificateDer::pem_slice_iter(chain.text.as_bytes()).map(|der| der.unwrap().to_vec()).collect()
    }

    /// Becomes another client with an account of its own.
    fn become_another(&mut self) -> (Client, Option<String>) {
        let before = (std::mem::replace(&mut self.client, Client::new()), self.account.take());
        let answer = self.post("/new-account", r#"{"termsOfServiceAgreed":true}"#);
        assert_eq!(answer.status, 201, "{answer:?}");
        self.account = Some(answer.header("location").to_owned());
        before
    }

    fn ready_order(&mut self, names: &[&str]) -> Answer {
        let order = self.new_order(names);
        self.prove(&order, &Ok(()));
        order
    }
}

fn csr(names: &[&str], key: &KeyPair) -> String {
    let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name = DistinguishedName::new();
    BASE64_URL_SAFE_NO_PAD.encode(params.serialize_request(key).unwrap().der())
}

#[test]
fn the_directory_names_what_there_is() {
    let mut session = Session::new(Faults::default());
    let answer = session.ask(&Method::GET, "/directory", None, b"");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body["newOrder"], format!("{BASE}/new-order"));
    assert_eq!(answer.body["meta"]["profiles"]["minutes"], "3 minutes, to watch a renewal");
    assert_eq!(answer.body["meta"]["termsOfService"], format!("{BASE}/terms"));
    assert_eq!(answer.body["revokeCert"], format!("{BASE}/revoke-cert"));
    assert_eq!(answer.body["keyChange"], format!("{BASE}/key-change"));
    assert_eq!(answer.body["renewalInfo"], format!("{BASE}/renewal-info"));
    assert_eq!(answer.body["meta"]["externalAccountRequired"], false);
    assert_eq!(answer.body.get("newAuthz"), None);
    assert!(answer.links().is_empty());
    let terms = session.ask(&Method::GET, "/terms", None, b"");
    assert!(terms.text.contains("tests only"), "{}", terms.text);
}

#[test]
fn nonces_come_by_head_and_get() {
    let mut session = Session::new(Faults::default());
    let head = session.ask(&Method::HEAD, "/new-nonce", None, b"");
    let get = session.ask(&Method::GET, "/new-nonce", None, b"");
    assert_eq!((head.status, get.status), (200, 204));
    assert_ne!(head.header("replay-nonce"), get.header("replay-nonce"));
    assert!(!get.header("replay-nonce").is_empty());
    assert_eq!(get.header("cache-control"), "no-store");
    assert_eq!(get.links(), [format!("<{BASE}/directory>;rel=\"index\"")]);
}

#[test]
fn wrong_methods_paths_and_types_are_told() {
    let mut session = Session::with_account(Faults::default());
    let account = session.account.clone().unwrap().strip_prefix(BASE).unwrap().to_owned();
    for (method, path, content_type, status) in [
        (Method::GET, "/nowhere", None, 404),
        (Method::GET, "/directory?x", None, 404),
        (Method::DELETE, "/directory", None, 405),
        (Method::GET, "/new-order", None, 405),
        (Method::GET, account.as_str(), None, 405),
        (Method::POST, "/new-order", None, 415),
        (Method::POST, "/new-order", Some("application/json"), 415),
        (Method::POST, "/new-order", Some("application/jose+json"), 400),
    ] {
        let answer = session.ask(&method, path, content_type, b"");
        assert_eq!(answer.status, status, "{method} {path}");
        assert_eq!(answer.error(), "malformed", "{method} {path}");
        assert_eq!(answer.header("content-type"), "application/problem+json");
    }
    let refused = session.ask(&Method::GET, "/new-order", None, b"");
    assert_eq!(refused.header("allow"), "POST");
    assert_eq!(session.get("/order/999").status, 404);
}

#[test]
fn the_public_resources_can_be_read_with_a_signature_too() {
    let mut session = Session::with_account(Faults::default());
    assert_eq!(session.get("/directory").body["newOrder"], format!("{BASE}/new-order"));
    assert_eq!(session.get("/new-nonce").status, 204);
    assert_eq!(session.get("/terms").status, 200);
    assert_eq!(session.post("/terms", "{}").error(), "malformed");
}

#[test]
fn a_nonce_is_good_once_and_the_refusal_brings_a_new_one() {
    let mut session = Session::with_account(Faults::default());
    let protected = session.protected("/new-order");
    let order = r#"{"identifiers":[{"type":"dns","value":"a.example"}]}"#;
    assert_eq!(session.send("/new-order", &protected, order).status, 201);
    let replay = session.send("/new-order", &protected, order);
    assert_eq!((replay.status, replay.error()), (400, "badNonce"));
    let mut again = protected;
    again["nonce"] = replay.header("replay-nonce").into();
    assert_eq!(session.send("/new-order", &again, order).status, 201);
}

#[test]
fn a_request_without_the_key_does_not_use_up_a_nonce() {
    let mut session = Session::with_account(Faults::default());
    let protected = session.protected("/new-order");
    let forged = Client::new().sign(&protected, "{}");
    let refused = session.ask(&Method::POST, "/new-order", Some("application/jose+json"), &forged);
    assert_eq!(refused.error(), "malformed");
    let order = r#"{"identifiers":[{"type":"dns","value":"a.example"}]}"#;
    assert_eq!(session.send("/new-order", &protected, order).status, 201);
}

#[test]
fn the_signed_url_must_be_the_requested_one() {
    let mut session = Session::with_account(Faults::default());
    let protected = session.protected("/new-account");
    let answer = session.send("/new-order", &protected, "{}");
    assert_eq!((answer.status, answer.error()), (401, "unauthorized"));
}

#[test]
fn an_account_is_made_once_for_a_key() {
    let mut session = Session::new(Faults::default());
    let existing = json!({ "onlyReturnExisting": true }).to_string();
    assert_eq!(session.post("/new-account", &existing).error(), "accountDoesNotExist");

    let disagrees = session.post("/new-account", "{}");
    assert_eq!((disagrees.status, disagrees.error()), (403, "userActionRequired"));
    assert!(disagrees.links().contains(&format!("<{BASE}/terms>;rel=\"terms-of-service\"").as_str()));

    let agrees = json!({ "termsOfServiceAgreed": true, "contact": ["mailto:ops@example.net"] }).to_string();
    let first = session.post("/new-account", &agrees);
    assert_eq!(first.status, 201);
    assert_eq!(first.body["contact"], json!(["mailto:ops@example.net"]));
    let second = session.post("/new-account", &existing);
    assert_eq!(second.status, 200);
    assert_eq!(second.header("location"), first.header("location"));

    let unsupported = json!({ "termsOfServiceAgreed": true, "contact": ["tel:1"] }).to_string();
    let mut other = Session::new(Faults::default());
    assert_eq!(other.post("/new-account", &unsupported).error(), "unsupportedContact");
}

#[test]
fn key_and_account_url_are_each_for_their_own_requests() {
    let mut session = Session::with_account(Faults::default());
    let mut with_key = session.protected("/new-order");
    with_key.as_object_mut().unwrap().remove("kid");
    with_key["jwk"] = session.client.jwk();
    assert_eq!(session.send("/new-order", &with_key, "{}").error(), "malformed");

    let mut with_account = session.protected("/new-account");
    with_account.as_object_mut().unwrap().remove("jwk");
    with_account["kid"] = session.account.clone().into();
    assert_eq!(session.send("/new-account", &with_account, "{}").error(), "malformed");

    for foreign in [format!("{BASE}/account/999"), "https://elsewhere/account/1".into(), "1".into()] {
        let mut protected = session.protected("/new-order");
        protected["kid"] = foreign.clone().into();
        assert_eq!(session.send("/new-order", &protected, "{}").error(), "accountDoesNotExist", "{foreign}");
    }
}

#[test]
fn an_account_is_updated_and_deactivated() {
    let mut session = Session::with_account(Faults::default());
    let account = session.account.clone().unwrap();
    let update = json!({ "contact": ["mailto:new@example.net"] }).to_string();
    assert_eq!(session.post(&account, &update).body["contact"], json!(["mailto:new@example.net"]));
    assert_eq!(session.get(&account).body["contact"], json!(["mailto:new@example.net"]));
    assert_eq!(session.post(&account, r#"{"status":"revoked"}"#).error(), "malformed");
    let half_wrong = json!({ "status": "deactivated", "contact": ["tel:1"] }).to_string();
    assert_eq!(session.post(&account, &half_wrong).error(), "unsupportedContact");
    assert_eq!(session.get(&account).body["status"], "valid");
    assert_eq!(session.post(&account, r#"{"status":"deactivated"}"#).body["status"], "deactivated");
    let late = session.get(&account);
    assert_eq!((late.status, late.error()), (401, "unauthorized"));
    let again = session.post("/new-account", r#"{"termsOfServiceAgreed":true}"#);
    assert_eq!((again.status, again.error()), (401, "unauthorized"));
}

#[test]
fn another_account_sees_nothing() {
    let mut session = Session::with_account(Faults::default());
    let owner = session.account.clone().unwrap();
    let order = session.ready_order(&["a.example"]);
    let done = session.finalize(&order, &["a.example"]);

    session.client = Client::new();
    let stranger = session.post("/new-account", r#"{"termsOfServiceAgreed":true}"#);
    session.account = Some(stranger.header("location").to_owned());
    let order_url = done.header("location").to_owned();
    for url in [
        order_url.clone(),
        order.url("finalize"),
        done.url("certificate"),
        order.body["authorizations"][0].as_str().unwrap().to_owned(),
    ] {
        let payload = if url.contains("finalize") { r#"{"csr":""}"# } else { "" };
        assert_eq!(session.post(&url, payload).status, 404, "{url}");
    }
    assert_eq!(session.get(&owner).status, 401);
    let orders = owner.replace("/account/", "/orders/") + "/0";
    assert_eq!(session.get(&orders).status, 401);
}

#[test]
fn a_whole_issuance() {
    let mut session = Session::with_account(Faults::default());
    let order = session.new_order(&["a.example", "b.example"]);
    assert_eq!(order.status, 201);
    assert_eq!(order.body["status"], "pending");
    assert_eq!(order.body["profile"], "minutes");
    let url = order.header("location").to_owned();

    let authorization = session.get(order.body["authorizations"][0].as_str().unwrap());
    let challenge = &authorization.body["challenges"][0];
    assert_eq!(
        (challenge["type"].as_str(), challenge["status"].as_str()),
        (Some("http-01"), Some("pending"))
    );
    let token = challenge["token"].as_str().unwrap().to_owned();
    assert_eq!(token.len(), 43);
    let challenge_url = challenge["url"].as_str().unwrap().to_owned();
    assert_eq!(session.get(&challenge_url).action, None);
    let begun = session.post(&challenge_url, "{}");
    assert_eq!(begun.body["status"], "processing");
    assert_eq!(begun.links().len(), 2);
    let Some(Action::Validate { attempt, .. }) = &begun.action else { panic!("{begun:?}") };
    assert_eq!(attempt.identifier.to_string(), "a.example");
    assert_eq!(attempt.key_authorization, format!("{token}.{}", session.client.key().thumbprint()));
    assert_eq!(session.post(&challenge_url, "{}").action, None);
    let Some(Action::Validate { authorization: number, .. }) = begun.action else { unreachable!() };
    session.ca.validated(number, Ok(()), now());

    let early = session.finalize(&order, &["a.example", "b.example"]);
    assert_eq!((early.status, early.error()), (403, "orderNotReady"));
    session.prove(&order, &Ok(()));
    assert_eq!(session.get(&url).body["status"], "ready");
    assert_eq!(session.finalize(&order, &["a.example"]).error(), "badCSR");
    assert_eq!(session.post(&order.url("finalize"), r#"{"csr":"=="}"#).error(), "badCSR");
    assert_eq!(session.get(&url).body["status"], "ready");

    let done = session.finalize(&order, &["a.example", "b.example"]);
    assert_eq!(done.body["status"], "valid");
    assert_eq!(done.header("location"), url);
    assert_eq!(done.header("retry-after"), "");
    let chain = session.get(&done.url("certificate"));
    assert_eq!(chain.header("content-type"), "application/pem-certificate-chain");
    assert_eq!(chain.text.matches("BEGIN CERTIFICATE").count(), 2);

    let account = session.account.clone().unwrap();
    let orders = session.get(&account).url("orders");
    assert_eq!(session.get(&orders).body["orders"], json!([url]));
}

#[test]
fn a_failed_challenge_shows_its_error_and_fails_the_order() {
    let mut session = Session::with_account(Faults::default());
    let order = session.new_order(&["a.example"]);
    session.prove(&order, &Err(Problem::new(ProblemType::Connection, "refused")));
    let authorization = session.get(order.body["authorizations"][0].as_str().unwrap());
    assert_eq!(authorization.body["status"], "invalid");
    let error = &authorization.body["challenges"][0]["error"];
    assert_eq!(error["type"], "urn:ietf:params:acme:error:connection");
    let url = order.header("location").to_owned();
    let state = session.get(&url);
    assert_eq!(state.body["status"], "invalid");
    // As at Let's Encrypt: the reason is in the authorization only.
    assert_eq!(state.body.get("error"), None);
}

#[test]
fn a_fresh_authorization_is_used_again_and_an_old_one_is_not() {
    let mut session = Session::with_account(Faults::default());
    let first = session.ready_order(&["a.example"]);
    let second = session.new_order(&["a.example"]);
    assert_eq!(second.body["status"], "ready");
    assert_eq!(second.body["authorizations"], first.body["authorizations"]);
    session.now += REUSE;
    assert_eq!(session.new_order(&["a.example"]).body["status"], "pending");
}

#[test]
fn a_deactivated_authorization_ends_its_order() {
    let mut session = Session::with_account(Faults::default());
    let order = session.ready_order(&["a.example"]);
    let authorization = order.body["authorizations"][0].as_str().unwrap().to_owned();
    assert_eq!(session.post(&authorization, r#"{"status":"valid"}"#).error(), "malformed");
    let given_up = session.post(&authorization, r#"{"status":"deactivated"}"#);
    assert_eq!(given_up.body["status"], "deactivated");
    assert_eq!(session.post(&authorization, r#"{"status":"deactivated"}"#).error(), "malformed");
    let url = order.header("location").to_owned();
    assert_eq!(session.get(&url).body["status"], "invalid");
}

#[test]
fn a_list_of_orders_has_pages() {
    let mut session = Session::with_account(Faults::default());
    for _ in 0..=PAGE {
        session.new_order(&["a.example"]);
    }
    let orders = session.account.clone().unwrap().replace("/account/", "/orders/") + "/0";
    let first = session.get(&orders);
    assert_eq!(first.body["orders"].as_array().unwrap().len(), PAGE);
    let next = first.links().into_iter().find_map(|link| link.strip_suffix(">;rel=\"next\"")).unwrap();
    let next = next.trim_start_matches('<').to_owned();
    let second = session.get(&next);
    assert_eq!(second.body["orders"].as_array().unwrap().len(), 1);
    assert_eq!(second.links().len(), 1);
}

#[test]
fn slow_processing_tells_when_to_come_back() {
    let mut session = Session::with_account(Faults {
        processing: Duration::from_secs(5),
        processing_retry_after: Some(Duration::from_secs(3)),
        ..Faults::default()
    });
    let order = session.ready_order(&["a.example"]);
    let begun = session.finalize(&order, &["a.example"]);
    assert_eq!((begun.body["status"].as_str(), begun.header("retry-after")), (Some("processing"), "3"));
    let Some(Action::Issue { order: number, after }) = begun.action else { panic!("{begun:?}") };
    assert_eq!(after, Duration::from_secs(5));
    assert_eq!(session.finalize(&order, &["a.example"]).error(), "orderNotReady");
    session.ca.issue(number, now());
    let url = order.header("location").to_owned();
    let done = session.get(&url);
    assert_eq!((done.body["status"].as_str(), done.header("retry-after")), (Some("valid"), ""));
}

#[test]
fn an_order_can_be_told_to_fail() {
    let faults = Faults { order_error: Some(ProblemType::Caa), ..Faults::default() };
    let mut session = Session::with_account(faults);
    let order = session.ready_order(&["a.example"]);
    let done = session.finalize(&order, &["a.example"]);
    assert_eq!(done.body["status"], "invalid");
    assert_eq!(done.body["error"]["type"], "urn:ietf:params:acme:error:caa");
}

#[test]
fn a_rate_limit_can_be_set() {
    let mut session = Session::with_account(Faults::default());
    session.ca.set_faults(Faults { retry_after_429: Some(Duration::from_secs(720)), ..Faults::default() });
    let refused = session.new_order(&["a.example"]);
    assert_eq!((refused.status, refused.error()), (429, "rateLimited"));
    assert_eq!(refused.header("retry-after"), "720");
    session.ca.set_faults(Faults::default());
    assert_eq!(session.new_order(&["a.example"]).status, 201);
}

#[test]
fn bad_nonces_come_in_the_share_that_was_asked_for() {
    let mut session = Session::with_account(Faults::default());
    session.ca.set_faults(Faults { bad_nonce_percent: 50, seed: 1, ..Faults::default() });
    let account = session.account.clone().unwrap();
    let refused = (0..400).filter(|_| session.get(&account).error() == "badNonce").count();
    assert!((150..250).contains(&refused), "{refused}");
}

#[test]
fn a_chain_fault_reaches_the_download() {
    let faults = Faults { chain: ChainFault::MissingIntermediate, ..Faults::default() };
    let mut session = Session::with_account(faults);
    let order = session.ready_order(&["a.example"]);
    let done = session.finalize(&order, &["a.example"]);
    let chain = session.get(&done.url("certificate"));
    assert_eq!(chain.text.matches("BEGIN CERTIFICATE").count(), 1);
}
