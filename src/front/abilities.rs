//! Which kinds of certificate a client can make use of, as far as its hello tells: pure.
//!
//! The hello as the TLS library shows it leaves out which versions were offered. A client that offers a
//! cipher suite of TLS 1.3 is taken to speak it, which it must do to make sense (RFC 8446 section 4.1.2),
//! and whoever speaks it is answered in it.

use rustls::server::ClientHello;
use rustls::sign::SigningKey;
use rustls::{CipherSuite, NamedGroup, SignatureAlgorithm, SignatureScheme, SupportedCipherSuite};

/// What a client can do.
#[derive(Debug, Clone, Copy)]
pub struct Abilities<'a> {
    /// Signatures that it can verify, in its order.
    pub schemes: &'a [SignatureScheme],
    /// Cipher suites that it offers, in its order.
    pub suites: &'a [CipherSuite],
    /// Groups, which are also the curves of certificates in TLS 1.2; `None` where it does not say.
    pub groups: Option<&'a [NamedGroup]>,
}

impl<'a> Abilities<'a> {
    /// Those of a client that said hello.
    pub fn of(hello: &'a ClientHello<'_>) -> Self {
        Self {
            schemes: hello.signature_schemes(),
            suites: hello.cipher_suites(),
            groups: hello.named_groups(),
        }
    }

    /// Whether a handshake with a certificate of that key can succeed, at a server of these cipher suites.
    pub fn suit(&self, key: &dyn SigningKey, ours: &[SupportedCipherSuite]) -> bool {
        let shared = || ours.iter().filter(|suite| self.suites.contains(&suite.suite()));
        if shared().any(|suite| suite.tls13().is_some()) {
            return self.verifies(key, is_for_tls13);
        }
        shared().any(|suite| suite.usable_for_signature_algorithm(key.algorithm()))
            && self.verifies(key, |_| true)
            && self.knows_curve(key)
    }

    fn verifies(&self, key: &dyn SigningKey, counts: impl Fn(SignatureScheme) -> bool) -> bool {
        self.schemes.iter().any(|scheme| counts(*scheme) && key.choose_scheme(&[*scheme]).is_some())
    }

    /// RFC 8422 section 5.1: in TLS 1.2 the groups say which curves a certificate's key may be on.
    fn knows_curve(&self, key: &dyn SigningKey) -> bool {
        let Some(groups) = self.groups.filter(|_| key.algorithm() == SignatureAlgorithm::ECDSA) else {
            return true;
        };
        let curves = [
            (SignatureScheme::ECDSA_NISTP256_SHA256, NamedGroup::secp256r1),
            (SignatureScheme::ECDSA_NISTP384_SHA384, NamedGroup::secp384r1),
            (SignatureScheme::ECDSA_NISTP521_SHA512, NamedGroup::secp521r1),
        ];
        let of_key = curves.iter().find(|(scheme, _)| key.choose_scheme(&[*scheme]).is_some());
        of_key.is_none_or(|(_, curve)| groups.contains(curve))
    }
}

/// RFC 8446 section 4.2.3: what RSA signs without PSS is for TLS 1.2 alone.
fn is_for_tls13(scheme: SignatureScheme) -> bool {
    !matches!(
        scheme,
        SignatureScheme::RSA_PKCS1_SHA1
            | SignatureScheme::RSA_PKCS1_SHA256
            | SignatureScheme::RSA_PKCS1_SHA384
            | SignatureScheme::RSA_PKCS1_SHA512
            | SignatureScheme::ECDSA_SHA1_Legacy
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use rcgen::{KeyPair, RsaKeySize};
    use rustls::crypto::aws_lc_rs;
    use rustls::pki_types::PrivateKeyDer;

    use super::*;

    type Key = Arc<dyn SigningKey>;

    fn keys() -> (Key, Key, Key) {
        let made = [
            KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
            KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
            KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048),
        ];
        let signing = |made: Result<KeyPair, rcgen::Error>| {
            let der = PrivateKeyDer::try_from(made.unwrap().serialize_der()).unwrap();
            aws_lc_rs::sign::any_supported_type(&der).unwrap()
        };
        let [p256, p384, rsa] = made.map(signing);
        (p256, p384, rsa)
    }

    const P256: SignatureScheme = SignatureScheme::ECDSA_NISTP256_SHA256;
    const P384: SignatureScheme = SignatureScheme::ECDSA_NISTP384_SHA384;
    const PSS: SignatureScheme = SignatureScheme::RSA_PSS_SHA256;
    const PKCS1: SignatureScheme = SignatureScheme::RSA_PKCS1_SHA256;
    const TLS13: CipherSuite = CipherSuite::TLS13_AES_128_GCM_SHA256;
    const WITH_ECDSA: CipherSuite = CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256;
    const WITH_RSA: CipherSuite = CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256;
    const CBC: CipherSuite = CipherSuite::TLS_RSA_WITH_AES_128_CBC_SHA;
    const X25519: NamedGroup = NamedGroup::X25519;
    const CURVE256: NamedGroup = NamedGroup::secp256r1;
    const CURVE384: NamedGroup = NamedGroup::secp384r1;

    #[test]
    fn whom_each_key_suits() {
        let (p256, p384, rsa) = keys();
        type Case<'a> = (&'a [CipherSuite], &'a [SignatureScheme], Option<&'a [NamedGroup]>, [bool; 3]);
        // P-256, P-384, RSA
        let cases: [Case<'_>; 20] = [
            // TLS 1.3: the schemes alone decide, and PKCS #1 does not count.
            (&[TLS13], &[P256, P384, PSS], None, [true, true, true]),
            (&[TLS13], &[P256, PSS], Some(&[X25519]), [true, false, true]),
            (&[TLS13], &[PSS, PKCS1], Some(&[X25519]), [false, false, true]),
            (&[TLS13], &[P384, PKCS1], Some(&[X25519]), [false, true, false]),
            (&[TLS13], &[PKCS1], None, [false, false, false]),
            (&[TLS13], &[SignatureScheme::ED25519], None, [false, false, false]),
            // One that falls back to TLS 1.2 elsewhere is answered in 1.3 here.
            (&[TLS13, WITH_RSA], &[P256], None, [true, false, false]),
            (&[WITH_ECDSA, TLS13], &[PSS, PKCS1], None, [false, false, true]),
            // TLS 1.2: schemes and suites.
            (&[WITH_ECDSA, WITH_RSA], &[P256, PKCS1], None, [true, false, true]),
            (&[WITH_ECDSA, WITH_RSA], &[PSS], None, [false, false, true]),
            (&[WITH_ECDSA, WITH_RSA], &[P384], None, [false, true, false]),
            (&[WITH_ECDSA], &[P256, P384, PKCS1], None, [true, true, false]),
            (&[WITH_RSA], &[P256, P384, PKCS1], None, [false, false, true]),
            (&[WITH_RSA], &[P256, P384], None, [false, false, false]),
            (&[WITH_ECDSA], &[PKCS1], None, [false, false, false]),
            (&[CBC], &[P256, PKCS1], None, [false, false, false]),
            // And the curves.
            (&[WITH_ECDSA, WITH_RSA], &[P256, P384, PKCS1], Some(&[X25519, CURVE256]), [true, false, true]),
            (&[WITH_ECDSA, WITH_RSA], &[P256, P384, PKCS1], Some(&[CURVE384]), [false, true, true]),
            (&[WITH_ECDSA, WITH_RSA], &[P256, P384, PKCS1], Some(&[X25519]), [false, false, true]),
            (&[], &[], None, [false, false, false]),
        ];
        let ours = aws_lc_rs::DEFAULT_CIPHER_SUITES;
        for (suites, schemes, groups, expected) in cases {
            let abilities = Abilities { schemes, suites, groups };
            let found = [&p256, &p384, &rsa].map(|key| abilities.suit(&**key, ours));
            assert_eq!(found, expected, "{abilities:?}");
        }
    }

    proptest! {
        /// More abilities never take anything away, and foreign numbers mean nothing, as long as the
        /// version is the same.
        #[test]
        fn who_can_more_gets_no_less(
            schemes in prop::collection::vec(any::<u16>(), 0..6),
            suites in prop::collection::vec(any::<u16>(), 0..6),
            known in prop::sample::subsequence(vec![P256, P384, PSS, PKCS1], 0..=4),
            of_tls12 in prop::sample::subsequence(vec![WITH_ECDSA, WITH_RSA], 0..=2),
        ) {
            let (p256, _, rsa) = keys_once();
            let ours = aws_lc_rs::DEFAULT_CIPHER_SUITES;
            let is_ours = |suite: &CipherSuite| ours.iter().any(|o| o.suite() == *suite);
            let foreign: Vec<CipherSuite> =
                suites.into_iter().map(CipherSuite::from).filter(|s| !is_ours(s)).collect();
            let more_suites = [of_tls12.clone(), foreign].concat();
            let more_schemes: Vec<_> =
                known.iter().copied().chain(schemes.into_iter().map(SignatureScheme::from)).collect();
            let less = Abilities { schemes: &known, suites: &of_tls12, groups: None };
            let more = Abilities { schemes: &more_schemes, suites: &more_suites, groups: None };
            for key in [p256, rsa] {
                prop_assert!(more.suit(&**key, ours) >= less.suit(&**key, ours));
            }
        }
    }

    fn keys_once() -> &'static (Key, Key, Key) {
        static KEYS: std::sync::OnceLock<(Key, Key, Key)> = std::sync::OnceLock::new();
        KEYS.get_or_init(keys)
    }
}
