//! Certificate signing requests (RFC 2986): whether one may be signed for an order (RFC 8555 section 7.4).

use std::collections::BTreeSet;
use std::net::IpAddr;

use rcgen::{
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, PublicKeyData, SubjectPublicKeyInfo,
};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

use crate::hostname::{Hostname, Identifier};

use super::jwk::{AccountKey, bit_length, rsa_is_sound};

/// Why a request is not signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum CsrError {
    #[error("this is no certificate signing request in DER")]
    Unreadable,
    #[error("the request's own signature does not verify")]
    Signature,
    #[error("the key must be on P-256 or P-384, or RSA")]
    KeyType,
    #[error("an RSA key needs 2048 to 4096 bits and an odd exponent of 65537 or more; this one has {0} bits")]
    WeakRsa(usize),
    #[error("the key is the account's own: a certificate needs another")]
    AccountKey,
    #[error("the name `{0}` can't be in a certificate from here")]
    Name(String),
    #[error("the request asks for a certificate authority")]
    Authority,
    #[error("the request names {asked}, the order {ordered}: they must be the same")]
    OtherNames { asked: String, ordered: String },
}

/// The key to certify, if the request is sound, names exactly the order's identifiers, and does not
/// use the account's key.
pub(super) fn check(
    der: &[u8],
    ordered: &BTreeSet<Identifier>,
    account: &AccountKey,
) -> Result<SubjectPublicKeyInfo, CsrError> {
    let (rest, request) = X509CertificationRequest::from_der(der).map_err(|_| CsrError::Unreadable)?;
    if !rest.is_empty() {
        return Err(CsrError::Unreadable);
    }
    let key = key(&request, account)?;
    request.verify_signature().map_err(|_| CsrError::Signature)?;
    let asked = names(&request)?;
    if &asked != ordered {
        return Err(CsrError::OtherNames { asked: list(&asked), ordered: list(ordered) });
    }
    Ok(key)
}

fn key(
    request: &X509CertificationRequest<'_>,
    account: &AccountKey,
) -> Result<SubjectPublicKeyInfo, CsrError> {
    let spki = &request.certification_request_info.subject_pki;
    let key = SubjectPublicKeyInfo::from_der(spki.raw).map_err(|_| CsrError::KeyType)?;
    let known = [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_RSA_SHA256];
    if !known.contains(&key.algorithm()) {
        return Err(CsrError::KeyType);
    }
    match spki.parsed() {
        Ok(PublicKey::RSA(rsa)) if !rsa_is_sound(rsa.modulus, rsa.exponent) => {
            return Err(CsrError::WeakRsa(bit_length(rsa.modulus)));
        }
        Ok(PublicKey::RSA(_) | PublicKey::EC(_)) => {}
        _ => return Err(CsrError::KeyType),
    }
    if account.is_key_of(spki) {
        return Err(CsrError::AccountKey);
    }
    Ok(key)
}

/// The subject's common name counts as a name too (RFC 8555 section 7.4).
fn names(request: &X509CertificationRequest<'_>) -> Result<BTreeSet<Identifier>, CsrError> {
    let mut names = BTreeSet::new();
    for common_name in request.certification_request_info.subject.iter_common_name() {
        let text = common_name.as_str().map_err(|_| CsrError::Unreadable)?;
        names.insert(match text.parse() {
            Ok(address) => Identifier::Ip(address),
            Err(_) => dns(text)?,
        });
    }
    for extension in request.requested_extensions().into_iter().flatten() {
        match extension {
            ParsedExtension::SubjectAlternativeName(alternatives) => {
                for name in &alternatives.general_names {
                    names.insert(match name {
                        GeneralName::DNSName(text) => dns(text)?,
                        GeneralName::IPAddress(bytes) => Identifier::Ip(address(bytes)?),
                        other => return Err(CsrError::Name(other.to_string())),
                    });
                }
            }
            ParsedExtension::BasicConstraints(constraints) if constraints.ca => {
                return Err(CsrError::Authority);
            }
            _ => {}
        }
    }
    Ok(names)
}

fn dns(text: &str) -> Result<Identifier, CsrError> {
    Hostname::parse_any(text)
        .ok()
        .filter(|name| name.as_str().eq_ignore_ascii_case(text))
        .map(Identifier::Dns)
        .ok_or_else(|| CsrError::Name(text.escape_debug().to_string()))
}

fn address(bytes: &[u8]) -> Result<IpAddr, CsrError> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        Ok(octets.into())
    } else if let Ok(octets) = <[u8; 16]>::try_from(bytes) {
        Ok(octets.into())
    } else {
        Err(CsrError::Unreadable)
    }
}

fn list(names: &BTreeSet<Identifier>) -> String {
    if names.is_empty() {
        return "nothing".to_owned();
    }
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;
    use rcgen::{
        BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair,
        PKCS_ECDSA_P521_SHA512, PKCS_ED25519, RsaKeySize, SanType,
    };
    use serde_json::json;

    use super::super::jws::signing::Client;
    use super::*;

    fn request(names: &[&str], key: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let names = names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = DistinguishedName::new();
        change(&mut params);
        params.serialize_request(key).unwrap().der().to_vec()
    }

    fn set(names: &[&str]) -> BTreeSet<Identifier> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn sound_requests_are_accepted_whatever_the_key() {
        let account = Client::new().key();
        let names = ["a.example", "b.example", "192.0.2.1", "2001:db8::1"];
        for key in [
            KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap(),
            KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap(),
            KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap(),
        ] {
            let checked = check(&request(&names, &key, |_| ()), &set(&names), &account).unwrap();
            assert_eq!(checked.der_bytes(), key.der_bytes());
            assert_eq!(checked.algorithm(), key.algorithm());
        }
    }

    #[test]
    fn upper_case_and_a_common_name_are_the_same_name() {
        let key = KeyPair::generate().unwrap();
        let der = request(&["A.Example"], &key, |params| {
            params.distinguished_name.push(DnType::CommonName, "a.example");
        });
        assert!(check(&der, &set(&["a.example"]), &Client::new().key()).is_ok());
    }

    #[test]
    fn other_names_than_the_orders_are_refused() {
        let account = Client::new().key();
        let key = KeyPair::generate().unwrap();
        let ordered = set(&["a.example", "b.example"]);
        for names in
            [&["a.example"][..], &["a.example", "b.example", "c.example"], &["a.example", "c.example"], &[]]
        {
            let error = check(&request(names, &key, |_| ()), &ordered, &account).unwrap_err();
            assert!(matches!(error, CsrError::OtherNames { .. }), "{error:?}");
        }
        let surplus_common_name = request(&["a.example", "b.example"], &key, |params| {
            params.distinguished_name.push(DnType::CommonName, "c.example");
        });
        assert!(matches!(check(&surplus_common_name, &ordered, &account), Err(CsrError::OtherNames { .. })));
    }

    #[test]
    fn unsound_requests_are_refused_with_the_reason() {
        let account = Client::new().key();
        let ordered = set(&["a.example"]);
        let key = KeyPair::generate().unwrap();
        let good = request(&["a.example"], &key, |_| ());
        let mut forged = good.clone();
        *forged.last_mut().unwrap() ^= 1;
        let trailing = [good.as_slice(), &[0]].concat();
        let mail = request(&["a.example"], &key, |params| {
            params.subject_alt_names.push(SanType::Rfc822Name("x@a.example".try_into().unwrap()));
        });
        for (der, expected) in [
            (b"nonsense".to_vec(), CsrError::Unreadable),
            (trailing, CsrError::Unreadable),
            (forged, CsrError::Signature),
            (
                request(&["a.example"], &KeyPair::generate_for(&PKCS_ED25519).unwrap(), |_| ()),
                CsrError::KeyType,
            ),
            (
                request(&["a.example"], &KeyPair::generate_for(&PKCS_ECDSA_P521_SHA512).unwrap(), |_| ()),
                CsrError::KeyType,
            ),
            (request(&["*.a.example"], &key, |_| ()), CsrError::Name("*.a.example".into())),
            (
                request(&["a.example"], &key, |params| {
                    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
                }),
                CsrError::Authority,
            ),
        ] {
            assert_eq!(check(&der, &ordered, &account).map(|_| ()), Err(expected));
        }
        assert!(matches!(check(&mail, &ordered, &account), Err(CsrError::Name(_))));
    }

    #[test]
    fn the_account_key_is_not_certified() {
        let key = KeyPair::generate().unwrap();
        let (x, y) = key.der_bytes()[1..].split_at(32);
        let account = AccountKey::from_jwk(&json!({
            "kty": "EC", "crv": "P-256",
            "x": BASE64_URL_SAFE_NO_PAD.encode(x), "y": BASE64_URL_SAFE_NO_PAD.encode(y),
        }))
        .unwrap();
        let der = request(&["a.example"], &key, |_| ());
        assert_eq!(check(&der, &set(&["a.example"]), &account), Err(CsrError::AccountKey));
    }

    proptest::proptest! {
        #[test]
        fn foreign_bytes_never_panic(flips in proptest::collection::vec((0usize..400, proptest::prelude::any::<u8>()), 1..8)) {
            let key = KeyPair::generate().unwrap();
            let mut der = request(&["a.example"], &key, |_| ());
            for (position, byte) in flips {
                let position = position % der.len();
                der[position] = byte;
            }
            let _ = check(&der, &set(&["a.example"]), &Client::new().key());
        }
    }
}
