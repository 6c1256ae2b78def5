//! Account keys of other clients. The ACME library signs with ECDSA P-256 and nothing else, and an account
//! made elsewhere has an RSA key as a rule; changing it at the CA (RFC 8555 section 7.3.5) would take the
//! account away from whoever uses it there. So the library is given a key of its own to sign with, and
//! what it has signed is signed again on its way out.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use zeroize::Zeroizing;

/// Why a private JSON Web Key is no account key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccountKeyError {
    /// Neither RSA nor an elliptic curve.
    #[error("the key type `{0}` is not supported, only RSA and EC are")]
    Type(String),
    /// Another curve.
    #[error("the curve `{0}` is not supported, only P-256 and P-384 are")]
    Curve(String),
    /// A part is not there.
    #[error("the key's member `{0}` is missing, or is not base64url")]
    Member(&'static str),
    /// The parts do not make a key.
    #[error("its parts do not make a key of 2048 bits or more")]
    Broken,
}

/// The kept form of an account that another client made, from its private key (RFC 7517), its URL and its
/// CA's directory: what [`Session::open`](super::Session::open) takes.
///
/// # Errors
/// The key cannot sign here.
pub fn credentials(
    jwk: &Value,
    account: &str,
    directory: &str,
) -> Result<Zeroizing<String>, AccountKeyError> {
    let pkcs8 = pkcs8_of(jwk)?;
    if !is_native(&pkcs8) && AccountKey::from_pkcs8(&pkcs8).is_none() {
        return Err(AccountKeyError::Broken);
    }
    let key = Zeroizing::new(BASE64_URL_SAFE_NO_PAD.encode(&*pkcs8));
    Ok(Zeroizing::new(json!({"id": account, "key_pkcs8": *key, "directory": directory}).to_string()))
}

/// A key that the library cannot sign with.
pub(super) struct AccountKey {
    pair: Pair,
    jwk: Value,
    thumbprint: String,
}

enum Pair {
    Rsa(RsaKeyPair),
    P384(EcdsaKeyPair),
}

/// Kept credentials in the form that the library takes.
pub(super) struct Prepared {
    /// The same credentials, with a key of the library's kind.
    pub(super) credentials: Zeroizing<String>,
    /// The key that signs in the place of that one.
    pub(super) key: Option<AccountKey>,
}

impl Prepared {
    /// Prepares credentials; what makes no sense is left for the library to say.
    pub(super) fn new(kept: &str) -> Self {
        let as_it_is = || Self { credentials: Zeroizing::new(kept.to_owned()), key: None };
        let Ok(mut document) = serde_json::from_str::<Value>(kept) else { return as_it_is() };
        let encoded = document["key_pkcs8"].as_str().unwrap_or_default();
        let Ok(pkcs8) = BASE64_URL_SAFE_NO_PAD.decode(encoded).map(Zeroizing::new) else { return as_it_is() };
        let Some(key) = AccountKey::from_pkcs8(&pkcs8) else { return as_it_is() };
        let stand_in = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        let Ok(stand_in) = stand_in else { return as_it_is() };
        document["key_pkcs8"] = BASE64_URL_SAFE_NO_PAD.encode(&stand_in).into();
        Self { credentials: Zeroizing::new(document.to_string()), key: Some(key) }
    }
}

impl AccountKey {
    /// An RSA or a P-384 key; `None` for every other one.
    fn from_pkcs8(der: &[u8]) -> Option<Self> {
        let (pair, jwk, canonical) = if let Ok(pair) = RsaKeyPair::from_pkcs8(der) {
            let public = pair.public_key();
            let n = BASE64_URL_SAFE_NO_PAD.encode(public.modulus().big_endian_without_leading_zero());
            let e = BASE64_URL_SAFE_NO_PAD.encode(public.exponent().big_endian_without_leading_zero());
            let canonical = format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#);
            (Pair::Rsa(pair), json!({"kty": "RSA", "n": n, "e": e}), canonical)
        } else {
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, der).ok()?;
            let (x, y) = pair.public_key().as_ref().get(1..)?.split_at_checked(48)?;
            let (x, y) = (BASE64_URL_SAFE_NO_PAD.encode(x), BASE64_URL_SAFE_NO_PAD.encode(y));
            let canonical = format!(r#"{{"crv":"P-384","kty":"EC","x":"{x}","y":"{y}"}}"#);
            (Pair::P384(pair), json!({"kty": "EC", "crv": "P-384", "x": x, "y": y}), canonical)
        };
        let thumbprint = BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, canonical.as_bytes()));
        Some(Self { pair, jwk, thumbprint })
    }

    /// base64url(SHA-256) of the canonical key (RFC 7638), which is half of a key authorization.
    pub(super) fn thumbprint(&self) -> &str {
        &self.thumbprint
    }

    /// The same request (RFC 8555 section 6.2), signed with this key; `None` where it is no request.
    pub(super) fn sign_again(&self, body: &[u8]) -> Option<Vec<u8>> {
        let mut request: Value = serde_json::from_slice(body).ok()?;
        let protected = BASE64_URL_SAFE_NO_PAD.decode(request["protected"].as_str()?).ok()?;
        let mut header: Value = serde_json::from_slice(&protected).ok()?;
        *header.get_mut("alg")? = self.algorithm().into();
        if let Some(jwk) = header.get_mut("jwk") {
            *jwk = self.jwk.clone();
        }
        let protected = BASE64_URL_SAFE_NO_PAD.encode(header.to_string());
        let input = format!("{protected}.{}", request["payload"].as_str()?);
        request["signature"] = BASE64_URL_SAFE_NO_PAD.encode(self.sign(input.as_bytes())?).into();
        request["protected"] = protected.into();
        Some(request.to_string().into_bytes())
    }

    /// RFC 7518 section 3.1
    fn algorithm(&self) -> &'static str {
        match self.pair {
            Pair::Rsa(_) => "RS256",
            Pair::P384(_) => "ES384",
        }
    }

    fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).ok()?;
                Some(signature)
            }
            Pair::P384(pair) => pair.sign(&random, message).ok().map(|signature| signature.as_ref().to_vec()),
        }
    }
}

impl fmt::Debug for AccountKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AccountKey").field(&self.thumbprint).finish()
    }
}

/// Whether the library signs with it by itself.
fn is_native(pkcs8: &[u8]) -> bool {
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8).is_ok()
}

/// A private JSON Web Key (RFC 7518 section 6) as PKCS #8.
fn pkcs8_of(jwk: &Value) -> Result<Zeroizing<Vec<u8>>, AccountKeyError> {
    match jwk["kty"].as_str().unwrap_or_default() {
        "RSA" => rsa_pkcs8(jwk),
        "EC" => match jwk["crv"].as_str().unwrap_or_default() {
            "P-256" => ec_pkcs8(jwk, &ECDSA_P256_SHA256_FIXED_SIGNING, 32),
            "P-384" => ec_pkcs8(jwk, &ECDSA_P384_SHA384_FIXED_SIGNING, 48),
            other => Err(AccountKeyError::Curve(other.to_owned())),
        },
        other => Err(AccountKeyError::Type(other.to_owned())),
    }
}

/// RFC 8017 appendix A.1.2 in RFC 5208 section 5
fn rsa_pkcs8(jwk: &Value) -> Result<Zeroizing<Vec<u8>>, AccountKeyError> {
    const MEMBERS: [&str; 8] = ["n", "e", "d", "p", "q", "dp", "dq", "qi"];
    let mut numbers = Vec::with_capacity(MEMBERS.len());
    for name in MEMBERS {
        numbers.push(member(jwk, name)?);
    }
    let sequence = |write: &dyn Fn(&mut yasna::DERWriterSeq<'_>)| {
        Zeroizing::new(yasna::construct_der(|writer| writer.write_sequence(|members| write(members))))
    };
    let key = sequence(&|members| {
        members.next().write_u8(0);
        for number in &numbers {
            members.next().write_bigint_bytes(number, true);
        }
    });
    let rsa_encryption = yasna::models::ObjectIdentifier::from_slice(&[1, 2, 840, 113_549, 1, 1, 1]);
    Ok(sequence(&|members| {
        members.next().write_u8(0);
        members.next().write_sequence(|algorithm| {
            algorithm.next().write_oid(&rsa_encryption);
            algorithm.next().write_null();
        });
        members.next().write_bytes(&key);
    }))
}

fn ec_pkcs8(
    jwk: &Value,
    algorithm: &'static EcdsaSigningAlgorithm,
    length: usize,
) -> Result<Zeroizing<Vec<u8>>, AccountKeyError> {
    let fixed = |name| match member(jwk, name)? {
        bytes if bytes.len() > length => Err(AccountKeyError::Broken),
        bytes => Ok(Zeroizing::new([vec![0; length - bytes.len()], bytes.to_vec()].concat())),
    };
    let (x, y, d) = (fixed("x")?, fixed("y")?, fixed("d")?);
    let point = [&[4], x.as_slice(), y.as_slice()].concat();
    let pair = EcdsaKeyPair::from_private_key_and_public_key(algorithm, &d, &point)
        .map_err(|_| AccountKeyError::Broken)?;
    let document = pair.to_pkcs8v1().map_err(|_| AccountKeyError::Broken)?;
    Ok(Zeroizing::new(document.as_ref().to_vec()))
}

fn member(jwk: &Value, name: &'static str) -> Result<Zeroizing<Vec<u8>>, AccountKeyError> {
    let text = jwk[name].as_str().map(|text| text.trim_end_matches('=')).filter(|text| !text.is_empty());
    let text = text.ok_or(AccountKeyError::Member(name))?;
    BASE64_URL_SAFE_NO_PAD.decode(text).map(Zeroizing::new).map_err(|_| AccountKeyError::Member(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::signature::{
        ECDSA_P384_SHA384_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
    };

    /// The key of RFC 7515 appendix A.2.
    fn rsa() -> Value {
        json!({
            "kty": "RSA", "e": "AQAB",
            "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
            "d": "Eq5xpGnNCivDflJsRQBXHx1hdR1k6Ulwe2JZD50LpXyWPEAeP88vLNO97IjlA7_GQ5sLKMgvfTeXZx9SE-7YwVol2NXOoAJe46sui395IW_GO-pWJ1O0BkTGoVEn2bKVRUCgu-GjBVaYLU6f3l9kJfFNS3E0QbVdxzubSu3Mkqzjkn439X0M_V51gfpRLI9JYanrC4D4qAdGcopV_0ZHHzQlBjudU2QvXt4ehNYTCBr6XCLQUShb1juUO1ZdiYoFaFQT5Tw8bGUl_x_jTj3ccPDVZFD9pIuhLhBOneufuBiB4cS98l2SR_RQyGWSeWjnczT0QU91p1DhOVRuOopznQ",
            "p": "4BzEEOtIpmVdVEZNCqS7baC4crd0pqnRH_5IB3jw3bcxGn6QLvnEtfdUdiYrqBdss1l58BQ3KhooKeQTa9AB0Hw_Py5PJdTJNPY8cQn7ouZ2KKDcmnPGBY5t7yLc1QlQ5xHdwW1VhvKn-nXqhJTBgIPgtldC-KDV5z-y2XDwGUc",
            "q": "uQPEfgmVtjL0Uyyx88GZFF1fOunH3-7cepKmtH4pxhtCoHqpWmT8YAmZxaewHgHAjLYsp1ZSe7zFYHj7C6ul7TjeLQeZD_YwD66t62wDmpe_HlB-TnBA-njbglfIsRLtXlnDzQkv5dTltRJ11BKBBypeeF6689rjcJIDEz9RWdc",
            "dp": "BwKfV3Akq5_MFZDFZCnW-wzl-CCo83WoZvnLQwCTeDv8uzluRSnm71I3QCLdhrqE2e9YkxvuxdBfpT_PI7Yz-FOKnu1R6HsJeDCjn12Sk3vmAktV2zb34MCdy7cpdTh_YVr7tss2u6vneTwrA86rZtu5Mbr1C1XsmvkxHQAdYo0",
            "dq": "h_96-mK1R_7glhsum81dZxjTnYynPbZpHziZjeeHcXYsXaaMwkOlODsWa7I9xXDoRwbKgB719rrmI2oKr6N3Do9U0ajaHF-NKJnwgjMd2w9cjz3_-kyNlxAr2v4IKhGNpmM5iIgOS1VZnOZ68m6_pbLBSp3nssTdlqvd0tIiTHU",
            "qi": "IYd7DHOhrWvxkwPQsRM2tOgrjbcrfvtQJipd-DlcxyVuuM9sQLdgjVk2oy26F0EmpScGLq2MowX7fhd_QJQ3ydy5cY7YIBi87w93IKLEdfnbJtoOPLUW0ITrJReOgo1cq9SbsxYawBgfp_gh6A5603k2-ZQwVK0JKSHuLFkuQ3U",
        })
    }

    fn p384() -> Value {
        let pair = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        let (x, y) = pair.public_key().as_ref()[1..].split_at(48);
        let d: aws_lc_rs::encoding::EcPrivateKeyBin<'_> =
            aws_lc_rs::encoding::AsBigEndian::as_be_bytes(&pair.private_key()).unwrap();
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        json!({"kty": "EC", "crv": "P-384", "x": encode(x), "y": encode(y), "d": encode(d.as_ref())})
    }

    fn prepared(jwk: &Value) -> Prepared {
        Prepared::new(&credentials(jwk, "https://ca.example/acct/1", "https://ca.example/dir").unwrap())
    }

    /// A request as the library makes it.
    fn request(header: &Value) -> Vec<u8> {
        let protected = BASE64_URL_SAFE_NO_PAD.encode(header.to_string());
        let payload = BASE64_URL_SAFE_NO_PAD.encode(r#"{"a":1}"#);
        json!({"protected": protected, "payload": payload, "signature": "AAAA"}).to_string().into_bytes()
    }

    /// Header, what is signed, and the signature.
    fn parts(body: &[u8]) -> (Value, String, Vec<u8>) {
        let request: Value = serde_json::from_slice(body).unwrap();
        let text = |member: &str| request[member].as_str().unwrap().to_owned();
        let decode = |text: &str| BASE64_URL_SAFE_NO_PAD.decode(text).unwrap();
        let header = serde_json::from_slice(&decode(&text("protected"))).unwrap();
        let input = format!("{}.{}", text("protected"), text("payload"));
        (header, input, decode(&text("signature")))
    }

    #[test]
    fn an_rsa_account_signs_what_the_library_has_signed() {
        let jwk = rsa();
        let key = prepared(&jwk).key.unwrap();
        let header = json!({"alg": "ES256", "kid": "https://ca.example/acct/1", "nonce": "n", "url": "u"});
        let (signed, input, signature) = parts(&key.sign_again(&request(&header)).unwrap());
        assert_eq!(signed, json!({"alg": "RS256", "kid": header["kid"], "nonce": "n", "url": "u"}));
        let number = |name: &str| BASE64_URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap();
        RsaPublicKeyComponents { n: number("n"), e: number("e") }
            .verify(&RSA_PKCS1_2048_8192_SHA256, input.as_bytes(), &signature)
            .unwrap();
        let canonical = format!(r#"{{"e":"AQAB","kty":"RSA","n":{}}}"#, jwk["n"]);
        assert_eq!(key.thumbprint(), BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, canonical.as_bytes())));
        assert_eq!(format!("{key:?}"), format!("AccountKey({:?})", key.thumbprint()));
    }

    #[test]
    fn a_p384_account_does_so_with_its_own_algorithm() {
        let jwk = p384();
        let key = prepared(&jwk).key.unwrap();
        let header = json!({"alg": "ES256", "jwk": {"kty": "EC"}, "nonce": "n", "url": "u"});
        let (signed, input, signature) = parts(&key.sign_again(&request(&header)).unwrap());
        assert_eq!(signed["alg"], "ES384");
        assert_eq!(signed["jwk"], json!({"kty": "EC", "crv": "P-384", "x": jwk["x"], "y": jwk["y"]}));
        let Pair::P384(pair) = &key.pair else { panic!("another kind of key") };
        UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, pair.public_key().as_ref())
            .verify(input.as_bytes(), &signature)
            .unwrap();
    }

    #[test]
    fn the_library_gets_its_own_key_where_the_accounts_is_of_its_kind() {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let kept = json!({
            "id": "https://ca.example/acct/1",
            "key_pkcs8": BASE64_URL_SAFE_NO_PAD.encode(pair.to_pkcs8v1().unwrap()),
            "directory": "https://ca.example/dir",
        })
        .to_string();
        let prepared = Prepared::new(&kept);
        assert!(prepared.key.is_none());
        assert_eq!(*prepared.credentials, kept);
        for senseless in ["", "{", "[]", r#"{"key_pkcs8":7}"#, r#"{"key_pkcs8":"AAAA"}"#] {
            assert_eq!(*Prepared::new(senseless).credentials, senseless);
        }
    }

    #[test]
    fn the_stand_in_is_a_key_that_the_library_takes() {
        let prepared = prepared(&rsa());
        let credentials: Value = serde_json::from_str(&prepared.credentials).unwrap();
        let pkcs8 = BASE64_URL_SAFE_NO_PAD.decode(credentials["key_pkcs8"].as_str().unwrap()).unwrap();
        assert!(is_native(&pkcs8));
        assert_eq!(credentials["id"], "https://ca.example/acct/1");
        let _ = serde_json::from_str::<instant_acme::AccountCredentials>(&prepared.credentials).unwrap();
    }

    #[test]
    fn keys_that_cannot_sign_are_refused_with_the_reason() {
        let without = |name: &str| {
            let mut jwk = rsa();
            jwk.as_object_mut().unwrap().remove(name);
            jwk
        };
        let mut other = rsa();
        other["d"] = other["n"].clone();
        for (jwk, expected) in [
            (json!({"kty": "oct"}), AccountKeyError::Type("oct".to_owned())),
            (json!([]), AccountKeyError::Type(String::new())),
            (json!({"kty": "EC", "crv": "P-521"}), AccountKeyError::Curve("P-521".to_owned())),
            (without("qi"), AccountKeyError::Member("qi")),
            (json!({"kty": "EC", "crv": "P-256", "x": "AA", "y": "?"}), AccountKeyError::Member("y")),
            (json!({"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "d": "AQ"}), AccountKeyError::Broken),
            (other, AccountKeyError::Broken),
        ] {
            let refused =
                credentials(&jwk, "https://ca.example/acct/1", "https://ca.example/dir").unwrap_err();
            assert_eq!(refused, expected);
        }
    }

    proptest::proptest! {
        #[test]
        fn foreign_requests_never_panic(body in "\\PC{0,80}") {
            let key = AccountKey::from_pkcs8(&pkcs8_of(&rsa()).unwrap()).unwrap();
            proptest::prop_assert!(key.sign_again(body.as_bytes()).is_none());
        }
    }
}
