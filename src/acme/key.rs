//! Private keys and certificate signing requests, made here and never sent anywhere.

use rcgen::{CertificateParams, DistinguishedName, KeyPair, RsaKeySize};
use zeroize::Zeroizing;

use crate::config::KeyType;
use crate::hostname::Identifier;

/// A new key, and the request (PKCS #10) that it signed.
pub(super) struct KeyAndRequest {
    /// PKCS #8 as PEM.
    pub(super) key_pem: Zeroizing<String>,
    /// DER.
    pub(super) request: Vec<u8>,
}

/// Makes a key and a request for `identifiers`. An RSA key takes up to seconds: not for an async thread.
pub(super) fn make(key_type: KeyType, identifiers: &[Identifier]) -> Result<KeyAndRequest, rcgen::Error> {
    let key = match key_type {
        KeyType::EcdsaP256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?,
        KeyType::EcdsaP384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384)?,
        KeyType::Rsa2048 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048)?,
        KeyType::Rsa3072 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_3072)?,
        KeyType::Rsa4096 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_4096)?,
    };
    let mut params = CertificateParams::new(identifiers.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key)?.der().to_vec();
    Ok(KeyAndRequest { key_pem: Zeroizing::new(key.serialize_pem()), request })
}

#[cfg(test)]
mod tests {
    use super::*;
    use x509_parser::prelude::{FromDer, X509CertificationRequest};

    #[test]
    fn every_kind_of_key_signs_its_request() {
        let identifiers = ["a.example".parse().unwrap(), "192.0.2.1".parse().unwrap()];
        for (kind, bits) in [(KeyType::EcdsaP256, 256), (KeyType::EcdsaP384, 384), (KeyType::Rsa2048, 2048)] {
            let made = make(kind, &identifiers).unwrap();
            assert!(made.key_pem.starts_with("-----BEGIN PRIVATE KEY-----"));
            let (_, request) = X509CertificationRequest::from_der(&made.request).unwrap();
            request.verify_signature().unwrap();
            let key = request.certification_request_info.subject_pki.parsed().unwrap();
            assert!(key.key_size().abs_diff(bits) <= 8, "{kind:?} has {}", key.key_size());
        }
    }
}
