//! Answers to CAs that ask for a name in a handshake, and in nothing else (tls-alpn-01, RFC 8737).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{CertificateParams, CustomExtension, KeyPair, SanType};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;

use super::FrontState;
use super::tls::with_certificate;
use crate::challenge::{Arrival, Outcome};
use crate::clock;
use crate::hostname::Identifier;

/// The protocol that is spoken then.
const PROTOCOL: &[u8] = b"acme-tls/1";

/// Whether a client speaks it, and nothing else: CAs do (RFC 8737 section 3).
pub(super) fn is_asked<'a>(mut protocols: impl Iterator<Item = &'a [u8]>) -> bool {
    protocols.next() == Some(PROTOCOL) && protocols.next().is_none()
}

/// The handshake that answers for that name; `None` where no such challenge is pending.
pub(super) fn answer(
    state: &FrontState,
    server_name: &str,
    client: SocketAddr,
) -> io::Result<Option<Arc<ServerConfig>>> {
    let Some((token, key_authorization)) = state.challenges.for_handshake(server_name) else {
        return Ok(None);
    };
    let host = identifier_of(server_name);
    let arrival =
        Arrival { at: clock::now(), client: client.ip(), host: host.clone(), outcome: Outcome::Answered };
    state.challenges.arrived(token.as_str(), arrival);
    tracing::info!(client = %client.ip(), hostname = server_name, "challenge answered in a handshake");
    let digest = aws_lc_digest(&key_authorization);
    let certified = certificate(host.as_ref(), server_name, &digest).map_err(io::Error::other)?;
    let mut config = with_certificate(state.resolver().base(), Arc::new(certified));
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(Some(Arc::new(config)))
}

fn aws_lc_digest(bytes: &[u8]) -> [u8; 32] {
    let digest = ::aws_lc_rs::digest::digest(&::aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// A certificate of its own for that name alone, with the digest of the key authorization in a critical extension.
fn certificate(
    identifier: Option<&Identifier>,
    server_name: &str,
    digest: &[u8; 32],
) -> Result<CertifiedKey, Box<dyn std::error::Error + Send + Sync>> {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![match identifier {
        Some(Identifier::Ip(ip)) => SanType::IpAddress(*ip),
        _ => SanType::DnsName(server_name.try_into()?),
    }];
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let signing = aws_lc_rs::sign::any_supported_type(&der)?;
    Ok(CertifiedKey::new(vec![certificate.der().clone()], signing))
}

/// What a CA asks for, where it names an address backwards (RFC 8738 section 6).
fn identifier_of(server_name: &str) -> Option<Identifier> {
    let address = if let Some(reversed) = server_name.strip_suffix(".in-addr.arpa") {
        reversed.rsplit('.').collect::<Vec<_>>().join(".")
    } else if let Some(reversed) = server_name.strip_suffix(".ip6.arpa") {
        let nibbles: Vec<_> = reversed.rsplit('.').collect();
        nibbles.chunks(4).map(|group| group.concat()).collect::<Vec<_>>().join(":")
    } else {
        server_name.to_owned()
    };
    address.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses() {
        for (name, identifier) in [
            ("a.net", "a.net"),
            ("7.2.0.192.in-addr.arpa", "192.0.2.7"),
            ("7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa", "2001:db8::7"),
        ] {
            assert_eq!(identifier_of(name), Some(identifier.parse().unwrap()), "{name}");
        }
    }

    #[test]
    fn only_who_speaks_nothing_else_is_a_ca() {
        let asked = |protocols: &[&'static [u8]]| is_asked(protocols.iter().copied());
        assert!(asked(&[b"acme-tls/1"]));
        assert!(!asked(&[]));
        assert!(!asked(&[b"h2"]));
        assert!(!asked(&[b"acme-tls/1", b"h2"]));
        assert!(!asked(&[b"h2", b"acme-tls/1"]));
    }
}
