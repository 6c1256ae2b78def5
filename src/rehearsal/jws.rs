//! Requests as JSON Web Signatures in the flattened form that ACME asks for (RFC 8555 section 6.2), and
//! the signatures inside them: of a new key (section 7.3.5) and of an external account (section 7.3.4).

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;

use crate::words::printable;

use super::jwk::{AccountKey, Algorithm};
use super::problem::{Problem, ProblemType};

/// How much of a foreign text is quoted.
const SHOWN: usize = 200;

/// A request's body, parsed but not yet verified.
#[derive(Debug)]
pub(super) struct Jws {
    /// Empty in a signature inside another one.
    pub(super) nonce: String,
    pub(super) url: String,
    pub(super) signer: Signer,
    algorithm: Algorithm,
    payload: Vec<u8>,
    signing_input: String,
    signature: Vec<u8>,
}

/// Who claims to have signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Signer {
    /// A key of its own, for `newAccount`, and for a revocation by the certificate's key.
    Key(AccountKey),
    /// The URL of an account, for everything else.
    Account(String),
}

/// What a verified request carries.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Payload {
    /// POST-as-GET: no payload at all (RFC 8555 section 6.3).
    Get,
    /// A JSON object.
    Object(Value),
}

impl Payload {
    /// The object, where one is needed.
    pub(super) fn object(self) -> Result<Value, Problem> {
        match self {
            Self::Object(value) => Ok(value),
            Self::Get => Err(Problem::malformed("this resource needs a JSON object as its payload")),
        }
    }

    /// Nothing, where the resource can only be read.
    pub(super) fn nothing(&self) -> Result<(), Problem> {
        match self {
            Self::Get => Ok(()),
            Self::Object(_) => {
                Err(Problem::malformed("this resource is read by POST-as-GET, with an empty payload"))
            }
        }
    }
}

#[derive(Deserialize)]
struct Flattened {
    protected: String,
    payload: String,
    signature: String,
    /// An unprotected header, which must not be there.
    header: Option<Value>,
    /// The general form's, which must not be there.
    signatures: Option<Value>,
}

#[derive(Deserialize)]
struct Protected {
    alg: String,
    nonce: Option<String>,
    url: Option<String>,
    jwk: Option<Value>,
    kid: Option<String>,
    crit: Option<Value>,
}

impl Jws {
    /// Reads a body; nothing in it is believed before [`verify`](Self::verify).
    pub(super) fn parse(body: &[u8]) -> Result<Self, Problem> {
        let (flattened, header) = parts(serde_json::from_slice(body))?;
        let nonce = header
            .nonce
            .clone()
            .ok_or_else(|| Problem::new(ProblemType::BadNonce, "the protected header has no nonce"))?;
        Self::new(flattened, header, nonce)
    }

    /// Reads the signature of a new key inside a request; a nonce does not matter there (RFC 8555
    /// section 7.3.5).
    pub(super) fn parse_inner(value: &Value) -> Result<Self, Problem> {
        let (flattened, header) = parts(Flattened::deserialize(value))?;
        Self::new(flattened, header, String::new())
    }

    fn new(flattened: Flattened, header: Protected, nonce: String) -> Result<Self, Problem> {
        let algorithm = Algorithm::from_name(&header.alg).ok_or_else(|| {
            Problem::new(
                ProblemType::BadSignatureAlgorithm,
                format!("the algorithm `{}` is not supported", printable(&header.alg, SHOWN)),
            )
        })?;
        let signer = match (header.jwk, header.kid) {
            (Some(jwk), None) => Signer::Key(
                AccountKey::from_jwk(&jwk)
                    .map_err(|e| Problem::new(ProblemType::BadPublicKey, e.to_string()))?,
            ),
            (None, Some(kid)) => Signer::Account(kid),
            _ => {
                return Err(Problem::malformed("the protected header needs either jwk or kid, and not both"));
            }
        };
        let url = header.url.ok_or_else(|| Problem::malformed("the protected header has no url"))?;
        Ok(Self {
            nonce,
            url,
            signer,
            algorithm,
            payload: decode("payload", &flattened.payload)?,
            signature: decode("signature", &flattened.signature)?,
            signing_input: flattened.signing_input(),
        })
    }

    /// Checks the signature and hands out the payload.
    pub(super) fn verify(self, key: &AccountKey) -> Result<Payload, Problem> {
        if !key.verifies(self.algorithm, self.signing_input.as_bytes(), &self.signature) {
            return Err(Problem::malformed(format!(
                "the signature does not verify: the key is of another kind than {}, or the request was altered",
                self.algorithm.name()
            )));
        }
        if self.payload.is_empty() {
            return Ok(Payload::Get);
        }
        match serde_json::from_slice(&self.payload) {
            Ok(value @ Value::Object(_)) => Ok(Payload::Object(value)),
            Ok(_) => Err(Problem::malformed("the payload is not a JSON object")),
            Err(e) => Err(Problem::malformed(format!("the payload is not JSON: {e}"))),
        }
    }
}

/// The signature that binds a new account to one elsewhere, by a key that both sides share.
#[derive(Debug)]
pub(super) struct Binding {
    pub(super) kid: String,
    pub(super) url: String,
    pub(super) signing_input: String,
    pub(super) signature: Vec<u8>,
    payload: Vec<u8>,
}

impl Binding {
    /// Reads a binding; nothing in it is believed before its signature is checked.
    pub(super) fn parse(value: &Value) -> Result<Self, Problem> {
        let (flattened, header) = parts(Flattened::deserialize(value))?;
        if header.alg != "HS256" {
            return Err(Problem::malformed("an external account binding is signed with HS256"));
        }
        if header.nonce.is_some() {
            return Err(Problem::malformed("an external account binding has no nonce"));
        }
        let (Some(kid), None) = (header.kid, header.jwk) else {
            return Err(Problem::malformed("an external account binding has a kid, and no jwk"));
        };
        let url = header.url.ok_or_else(|| Problem::malformed("the binding's header has no url"))?;
        Ok(Self {
            kid,
            url,
            payload: decode("payload", &flattened.payload)?,
            signature: decode("signature", &flattened.signature)?,
            signing_input: flattened.signing_input(),
        })
    }

    /// The key that it binds.
    pub(super) fn key(&self) -> Result<AccountKey, Problem> {
        let jwk: Value = serde_json::from_slice(&self.payload)
            .map_err(|_| Problem::malformed("the binding's payload is not a JSON Web Key"))?;
        AccountKey::from_jwk(&jwk).map_err(|e| Problem::malformed(format!("the binding's key: {e}")))
    }
}

impl Flattened {
    fn signing_input(&self) -> String {
        format!("{}.{}", self.protected, self.payload)
    }
}

/// A signature and its header, in the one form that is allowed.
fn parts(read: Result<Flattened, serde_json::Error>) -> Result<(Flattened, Protected), Problem> {
    let flattened = read.map_err(|e| {
        Problem::malformed(format!(
            "this is not a flattened JSON Web Signature: {}",
            printable(&e.to_string(), SHOWN)
        ))
    })?;
    if flattened.header.is_some() || flattened.signatures.is_some() {
        return Err(Problem::malformed("unprotected headers and several signatures are not allowed"));
    }
    let header: Protected =
        serde_json::from_slice(&decode("protected", &flattened.protected)?).map_err(|e| {
            Problem::malformed(format!(
                "the protected header makes no sense: {}",
                printable(&e.to_string(), SHOWN)
            ))
        })?;
    if header.crit.is_some() {
        return Err(Problem::malformed("critical header extensions (crit) are not supported"));
    }
    Ok((flattened, header))
}

fn decode(member: &str, text: &str) -> Result<Vec<u8>, Problem> {
    BASE64_URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|e| Problem::malformed(format!("`{member}` is not base64url without padding: {e}")))
}

/// A client's side, for tests.
#[cfg(test)]
pub(super) mod signing {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
    use serde_json::json;

    use super::*;

    pub(in super::super) struct Client(EcdsaKeyPair);

    /// An external account binding; `payload` is taken as it is.
    pub(in super::super) fn binding(protected: &Value, payload: &str, key: &[u8]) -> Value {
        let protected = BASE64_URL_SAFE_NO_PAD.encode(protected.to_string());
        let payload = BASE64_URL_SAFE_NO_PAD.encode(payload);
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, key);
        let tag = aws_lc_rs::hmac::sign(&key, format!("{protected}.{payload}").as_bytes());
        json!({
            "protected": protected,
            "payload": payload,
            "signature": BASE64_URL_SAFE_NO_PAD.encode(tag),
        })
    }

    impl Client {
        pub(in super::super) fn new() -> Self {
            Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
        }

        pub(in super::super) fn of(key: EcdsaKeyPair) -> Self {
            Self(key)
        }

        pub(in super::super) fn jwk(&self) -> Value {
            let (x, y) = self.0.public_key().as_ref()[1..].split_at(32);
            json!({
                "kty": "EC", "crv": "P-256",
                "x": BASE64_URL_SAFE_NO_PAD.encode(x), "y": BASE64_URL_SAFE_NO_PAD.encode(y),
            })
        }

        pub(in super::super) fn key(&self) -> AccountKey {
            AccountKey::from_jwk(&self.jwk()).unwrap()
        }

        /// A signed body; `payload` is taken as it is.
        pub(in super::super) fn sign(&self, protected: &Value, payload: &str) -> Vec<u8> {
            let protected = BASE64_URL_SAFE_NO_PAD.encode(protected.to_string());
            let payload = BASE64_URL_SAFE_NO_PAD.encode(payload);
            let signature =
                self.0.sign(&SystemRandom::new(), format!("{protected}.{payload}").as_bytes()).unwrap();
            json!({
                "protected": protected,
                "payload": payload,
                "signature": BASE64_URL_SAFE_NO_PAD.encode(signature),
            })
            .to_string()
            .into_bytes()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::signing::Client;
    use super::*;

    fn header(client: &Client) -> Value {
        json!({ "alg": "ES256", "nonce": "n", "url": "https://ca/new-account", "jwk": client.jwk() })
    }

    #[test]
    fn a_signed_request_is_read() {
        let client = Client::new();
        let jws = Jws::parse(&client.sign(&header(&client), r#"{"a":1}"#)).unwrap();
        assert_eq!((jws.nonce.as_str(), jws.url.as_str()), ("n", "https://ca/new-account"));
        assert_eq!(jws.signer, Signer::Key(client.key()));
        assert_eq!(jws.verify(&client.key()), Ok(Payload::Object(json!({ "a": 1 }))));

        let empty = Jws::parse(&client.sign(&header(&client), "")).unwrap();
        assert_eq!(empty.verify(&client.key()), Ok(Payload::Get));
    }

    #[test]
    fn another_key_or_an_altered_request_does_not_verify() {
        let (client, other) = (Client::new(), Client::new());
        let body = client.sign(&header(&client), r#"{"a":1}"#);
        let problem = Jws::parse(&body).unwrap().verify(&other.key()).unwrap_err();
        assert!(problem.detail.starts_with("the signature does not verify"), "{problem:?}");

        let mut altered: Value = serde_json::from_slice(&body).unwrap();
        altered["payload"] = BASE64_URL_SAFE_NO_PAD.encode(r#"{"a":2}"#).into();
        assert!(Jws::parse(altered.to_string().as_bytes()).unwrap().verify(&client.key()).is_err());
    }

    #[test]
    fn senseless_requests_are_refused_with_the_reason() {
        let client = Client::new();
        let with = |member: &str, value: Value| {
            let mut header = header(&client);
            header[member] = value;
            client.sign(&header, "{}")
        };
        let without = |member: &str| {
            let mut header = header(&client);
            header.as_object_mut().unwrap().remove(member);
            client.sign(&header, "{}")
        };
        let extra = {
            let mut body: Value = serde_json::from_slice(&client.sign(&header(&client), "{}")).unwrap();
            body["header"] = json!({});
            body.to_string().into_bytes()
        };
        let padded = br#"{"protected":"e30=","payload":"","signature":""}"#.to_vec();
        for (body, kind, says) in [
            (b"[]".to_vec(), ProblemType::Malformed, "flattened"),
            (extra, ProblemType::Malformed, "unprotected headers"),
            (padded, ProblemType::Malformed, "`protected` is not base64url"),
            (with("alg", json!("none")), ProblemType::BadSignatureAlgorithm, "`none`"),
            (with("alg", json!("HS256")), ProblemType::BadSignatureAlgorithm, "`HS256`"),
            (with("kid", json!("https://ca/account/1")), ProblemType::Malformed, "not both"),
            (without("jwk"), ProblemType::Malformed, "either jwk or kid"),
            (with("jwk", json!({ "kty": "oct" })), ProblemType::BadPublicKey, "`oct`"),
            (without("nonce"), ProblemType::BadNonce, "no nonce"),
            (without("url"), ProblemType::Malformed, "no url"),
            (with("crit", json!(["b64"])), ProblemType::Malformed, "crit"),
        ] {
            let problem = Jws::parse(&body).unwrap_err();
            assert_eq!(problem.kind, kind, "{problem:?}");
            assert!(problem.detail.contains(says), "{problem:?}");
        }
    }

    #[test]
    fn a_payload_is_an_object_or_nothing() {
        let client = Client::new();
        for payload in ["[]", "7", "{", "null"] {
            let jws = Jws::parse(&client.sign(&header(&client), payload)).unwrap();
            assert_eq!(jws.verify(&client.key()).unwrap_err().kind, ProblemType::Malformed, "{payload}");
        }
        assert!(Payload::Get.object().is_err());
        assert!(Payload::Object(json!({})).nothing().is_err());
    }

    proptest::proptest! {
        #[test]
        fn foreign_bytes_never_panic(body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = Jws::parse(&body);
        }

        #[test]
        fn foreign_headers_never_panic(protected in "\\PC{0,120}", payload in "\\PC{0,20}") {
            let body = json!({
                "protected": BASE64_URL_SAFE_NO_PAD.encode(&protected),
                "payload": BASE64_URL_SAFE_NO_PAD.encode(&payload),
                "signature": "",
            });
            proptest::prop_assert!(Jws::parse(body.to_string().as_bytes()).is_err());
            proptest::prop_assert!(Jws::parse_inner(&body).is_err());
            proptest::prop_assert!(Binding::parse(&body).is_err());
        }
    }
}
