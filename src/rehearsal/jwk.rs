//! Account keys: a JSON Web Key (RFC 7517, RFC 7518 section 6, RFC 8037), its thumbprint (RFC 7638) and
//! what it signed.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RsaPublicKeyComponents, UnparsedPublicKey,
};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::Value;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

/// A signature algorithm of JSON Web Signatures that a client may use (RFC 8555 section 6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Es256,
    Es384,
    Rs256,
    EdDsa,
}

impl Algorithm {
    pub(super) const ALL: [Self; 4] = [Self::Es256, Self::Es384, Self::Rs256, Self::EdDsa];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Rs256 => "RS256",
            Self::EdDsa => "EdDSA",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }
}

/// Why a JSON Web Key is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum JwkError {
    #[error("the key type `{0}` is not supported: use EC (P-256, P-384), RSA or OKP (Ed25519)")]
    Type(String),
    #[error("the curve `{0}` is not supported for this key type")]
    Curve(String),
    #[error("the key's member `{0}` is missing, or is not base64url without padding")]
    Member(&'static str),
    #[error("the key's member `{member}` has {actual} bytes, not {expected}")]
    Length { member: &'static str, actual: usize, expected: usize },
    #[error("an RSA key needs 2048 to 4096 bits and an odd exponent of 65537 or more; this one has {0} bits")]
    Rsa(usize),
    #[error("the key has a private part: keep it to yourself, and use another key from now on")]
    Private,
}

/// The public key of an account.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct AccountKey {
    material: Material,
    thumbprint: String,
}

#[derive(Clone, PartialEq, Eq)]
enum Material {
    /// Uncompressed points.
    P256(Vec<u8>),
    P384(Vec<u8>),
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    Ed25519(Vec<u8>),
}

impl AccountKey {
    /// Reads a public JSON Web Key; unknown members are ignored.
    pub(super) fn from_jwk(jwk: &Value) -> Result<Self, JwkError> {
        if jwk.get("d").is_some() {
            return Err(JwkError::Private);
        }
        let text = |member: &'static str| jwk[member].as_str().unwrap_or_default();
        let (material, canonical) = match text("kty") {
            "EC" => {
                let length = match text("crv") {
                    "P-256" => 32,
                    "P-384" => 48,
                    other => return Err(JwkError::Curve(other.to_owned())),
                };
                let (x, y) = (fixed(jwk, "x", length)?, fixed(jwk, "y", length)?);
                let point = [&[4], x.as_slice(), y.as_slice()].concat();
                let canonical = format!(
                    r#"{{"crv":"{}","kty":"EC","x":"{}","y":"{}"}}"#,
                    text("crv"),
                    text("x"),
                    text("y")
                );
                (if length == 32 { Material::P256(point) } else { Material::P384(point) }, canonical)
            }
            "RSA" => {
                let (n, e) = (member(jwk, "n")?, member(jwk, "e")?);
                let bits = bit_length(&n);
                if n.first() == Some(&0) || !rsa_is_sound(&n, &e) {
                    return Err(JwkError::Rsa(bits));
                }
                let canonical = format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, text("e"), text("n"));
                (Material::Rsa { n, e }, canonical)
            }
            "OKP" => {
                if text("crv") != "Ed25519" {
                    return Err(JwkError::Curve(text("crv").to_owned()));
                }
                let x = fixed(jwk, "x", 32)?;
                let canonical = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, text("x"));
                (Material::Ed25519(x), canonical)
            }
            other => return Err(JwkError::Type(other.to_owned())),
        };
        let thumbprint = BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, canonical.as_bytes()));
        Ok(Self { material, thumbprint })
    }

    /// base64url(SHA-256) of the canonical key (RFC 7638).
    pub(super) fn thumbprint(&self) -> &str {
        &self.thumbprint
    }

    /// Whether this key made the signature with that algorithm.
    pub(super) fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        match (&self.material, algorithm) {
            (Material::P256(point), Algorithm::Es256) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature).is_ok()
            }
            (Material::P384(point), Algorithm::Es384) => {
                UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point).verify(message, signature).is_ok()
            }
            (Material::Rsa { n, e }, Algorithm::Rs256) => RsaPublicKeyComponents { n, e }
                .verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
                .is_ok(),
            (Material::Ed25519(x), Algorithm::EdDsa) => {
                UnparsedPublicKey::new(&ED25519, x).verify(message, signature).is_ok()
            }
            _ => false,
        }
    }

    /// Whether that is the key of a certificate or of a request for one.
    pub(super) fn is_key_of(&self, key: &SubjectPublicKeyInfo<'_>) -> bool {
        match key.parsed() {
            Ok(PublicKey::RSA(rsa)) => self.is_rsa(rsa.modulus, rsa.exponent),
            Ok(PublicKey::EC(point)) => self.is_point(point.data()),
            _ => false,
        }
    }

    /// Whether a certificate's elliptic-curve key, as an uncompressed point, is this one.
    fn is_point(&self, other: &[u8]) -> bool {
        matches!(&self.material, Material::P256(point) | Material::P384(point) if point == other)
    }

    /// Whether a certificate's RSA key is this one; leading zeros do not matter.
    fn is_rsa(&self, modulus: &[u8], exponent: &[u8]) -> bool {
        matches!(&self.material, Material::Rsa { n, e }
            if n == without_leading_zeros(modulus) && without_leading_zeros(e) == without_leading_zeros(exponent))
    }
}

impl fmt::Debug for AccountKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AccountKey").field(&self.thumbprint).finish()
    }
}

/// The strength asked of RSA keys: 2048 to 4096 bits, an odd exponent from 65537 up.
pub(super) fn rsa_is_sound(n: &[u8], e: &[u8]) -> bool {
    let e = without_leading_zeros(e);
    let odd = |number: &[u8]| number.last().is_some_and(|last| last % 2 == 1);
    (2048..=4096).contains(&bit_length(n)) && odd(n) && odd(e) && (17..=64).contains(&bit_length(e))
}

/// The length in bits of a big-endian number.
pub(super) fn bit_length(number: &[u8]) -> usize {
    let number = without_leading_zeros(number);
    number.first().map_or(0, |first| number.len() * 8 - first.leading_zeros() as usize)
}

fn without_leading_zeros(number: &[u8]) -> &[u8] {
    &number[number.iter().take_while(|&&byte| byte == 0).count()..]
}

fn member(jwk: &Value, name: &'static str) -> Result<Vec<u8>, JwkError> {
    let text = jwk[name].as_str().filter(|text| !text.is_empty()).ok_or(JwkError::Member(name))?;
    BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| JwkError::Member(name))
}

fn fixed(jwk: &Value, name: &'static str, expected: usize) -> Result<Vec<u8>, JwkError> {
    let bytes = member(jwk, name)?;
    if bytes.len() == expected {
        Ok(bytes)
    } else {
        Err(JwkError::Length { member: name, actual: bytes.len(), expected })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// RFC 7638 section 3.1
    const EXAMPLE_N: &str = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";

    #[test]
    fn the_thumbprint_of_rfc_7638() {
        let key = AccountKey::from_jwk(&json!({
            "kty": "RSA", "n": EXAMPLE_N, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29",
        }))
        .unwrap();
        assert_eq!(key.thumbprint(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    }

    #[test]
    fn the_thumbprint_and_signature_of_rfc_8037() {
        // RFC 8037 appendix A.2 to A.5
        let key = AccountKey::from_jwk(&json!({
            "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
        }))
        .unwrap();
        assert_eq!(key.thumbprint(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        let message = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
        let signature = BASE64_URL_SAFE_NO_PAD
            .decode("hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg")
            .unwrap();
        assert!(key.verifies(Algorithm::EdDsa, message, &signature));
        assert!(!key.verifies(Algorithm::EdDsa, b"another", &signature));
        assert!(!key.verifies(Algorithm::Es256, message, &signature));
    }

    #[test]
    fn the_p256_signature_of_rfc_7515() {
        // RFC 7515 appendix A.3
        let key = AccountKey::from_jwk(&json!({
            "kty": "EC", "crv": "P-256",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        }))
        .unwrap();
        let message = b"eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let signature = BASE64_URL_SAFE_NO_PAD
            .decode("DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q")
            .unwrap();
        assert!(key.verifies(Algorithm::Es256, message, &signature));
        assert!(!key.verifies(Algorithm::Es384, message, &signature));
    }

    #[test]
    fn the_rsa_signature_of_rfc_7515() {
        // RFC 7515 appendix A.2
        let key = AccountKey::from_jwk(&json!({
            "kty": "RSA", "e": "AQAB",
            "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
        }))
        .unwrap();
        let message = b"eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let signature = BASE64_URL_SAFE_NO_PAD
            .decode("cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw")
            .unwrap();
        assert!(key.verifies(Algorithm::Rs256, message, &signature));
    }

    #[test]
    fn unsound_keys_are_refused_with_the_reason() {
        let small = BASE64_URL_SAFE_NO_PAD.encode([0xff; 128]);
        for (jwk, expected) in [
            (json!({ "kty": "oct", "k": "AAAA" }), JwkError::Type("oct".into())),
            (json!({}), JwkError::Type(String::new())),
            (json!({ "kty": "EC", "crv": "secp256k1" }), JwkError::Curve("secp256k1".into())),
            (json!({ "kty": "EC", "crv": "P-256", "y": "AAAA" }), JwkError::Member("x")),
            (json!({ "kty": "EC", "crv": "P-256", "x": "AA==" }), JwkError::Member("x")),
            (
                json!({ "kty": "EC", "crv": "P-256", "x": "AAAA" }),
                JwkError::Length { member: "x", actual: 3, expected: 32 },
            ),
            (json!({ "kty": "OKP", "crv": "X25519" }), JwkError::Curve("X25519".into())),
            (json!({ "kty": "RSA", "n": small, "e": "AQAB" }), JwkError::Rsa(1024)),
            (json!({ "kty": "RSA", "n": EXAMPLE_N, "e": "Aw" }), JwkError::Rsa(2048)),
            (json!({ "kty": "EC", "d": "AAAA" }), JwkError::Private),
        ] {
            assert_eq!(AccountKey::from_jwk(&jwk), Err(expected), "{jwk}");
        }
    }

    #[test]
    fn numbers_are_compared_without_their_leading_zeros() {
        let key = AccountKey::from_jwk(&json!({ "kty": "RSA", "n": EXAMPLE_N, "e": "AQAB" })).unwrap();
        let n = BASE64_URL_SAFE_NO_PAD.decode(EXAMPLE_N).unwrap();
        assert!(key.is_rsa(&[&[0], n.as_slice()].concat(), &[1, 0, 1]));
        assert!(!key.is_rsa(&n, &[3]));
        assert!(!key.is_point(&n));
        assert_eq!(bit_length(&[0, 0, 1, 0]), 9);
        assert_eq!(bit_length(&[]), 0);
    }
}
