//! Keys and certificates of the embedded CA: root, intermediate, the API's own certificate, leaves.
//!
//! The keys live in memory only and end with the process. The root is short-lived and name-constrained
//! (RFC 5280 section 4.2.1.10), so that a person may trust it for a rehearsal without risk.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, PublicKeyData, SanType,
    SerialNumber, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::hostname::{Hostname, Identifier};

use super::faults::ChainFault;
use super::renewal::CertificateId;

/// Clocks disagree by seconds even on one machine; a longer shift would only distort short lifetimes.
const BACKDATE: Duration = Duration::from_secs(5);

/// A root with an intermediate that signs leaves.
pub(super) struct Authority {
    root_pem: String,
    intermediate: Issuer<'static, KeyPair>,
    intermediate_pem: String,
    /// The intermediate's key identifier.
    key_identifier: [u8; 20],
    permitted: BTreeSet<Identifier>,
    backdate: Duration,
    not_before: SystemTime,
    not_after: SystemTime,
}

/// How long a root lasts, and how far back certificates are dated.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// Of root and intermediate, from the first moment that they are valid.
    pub(super) lifetime: Duration,
    /// Of everything that is signed; a few seconds at least.
    pub(super) backdate: Duration,
}

/// What was signed.
#[derive(Debug)]
pub(super) struct Leaf {
    /// In PEM, leaf first, without the root.
    pub(super) chain: String,
    pub(super) id: CertificateId,
    /// SHA-256 of its DER.
    pub(super) fingerprint: [u8; 32],
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
}

/// What is to be signed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) names: &'a [Identifier],
    pub(super) lifetime: Duration,
    pub(super) serial: [u8; 16],
    pub(super) fault: ChainFault,
}

/// The API's own certificate chain and key.
pub(super) struct ApiCredentials {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
}

/// Why no leaf was issued.
#[derive(Debug, thiserror::Error)]
pub(super) enum IssueError {
    #[error("the embedded CA's root has expired: restart it to get a new one")]
    Expired,
    #[error("`{0}` is not among the names that this embedded CA was started for")]
    NotPermitted(Identifier),
    #[error("the certificate can't be made: {0}")]
    Encoding(#[from] rcgen::Error),
}

impl Authority {
    /// Makes all keys; `random` ends up in names and serial numbers.
    pub(super) fn new(
        permitted: &[Identifier],
        listen: IpAddr,
        terms: Terms,
        now: SystemTime,
        random: [u8; 16],
    ) -> Result<(Self, ApiCredentials), rcgen::Error> {
        let backdate = terms.backdate.max(BACKDATE);
        let not_before = now - backdate;
        let not_after = not_before + terms.lifetime;
        let [first, second, third] = [0, 1, 2].map(|step| {
            let mut serial = random;
            serial[15] ^= step;
            serial
        });
        let mark = random[..4].iter().map(|byte| format!("{byte:02x}")).collect::<String>();

        let mut root_params = ca_params(
            &format!("wicketgate rehearsal root {mark} (untrusted)"),
            1,
            not_before,
            not_after,
            first,
        );
        root_params.name_constraints = Some(constraints(permitted, listen));
        let root_key = KeyPair::generate()?;
        let root = root_params.self_signed(&root_key)?;
        let root_issuer = Issuer::new(root_params, root_key);

        let mut intermediate_params = ca_params(
            &format!("wicketgate rehearsal intermediate {mark} (untrusted)"),
            0,
            not_before,
            not_after,
            second,
        );
        intermediate_params.use_authority_key_identifier_extension = true;
        intermediate_params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let intermediate_key = KeyPair::generate()?;
        let key_identifier = intermediate_params.key_identifier(&intermediate_key);
        let key_identifier =
            key_identifier.try_into().expect("by default it is 160 bits of a digest (RFC 7093 section 2)");
        let intermediate = intermediate_params.signed_by(&intermediate_key, &root_issuer)?;

        let api_names = std::iter::once(Identifier::Dns(localhost()))
            .chain(loopbacks(listen).into_iter().map(Identifier::Ip))
            .collect::<Vec<_>>();
        let api_key = KeyPair::generate()?;
        let api = leaf_params(&api_names, not_before, not_after, third)?.signed_by(&api_key, &root_issuer)?;

        let authority = Self {
            root_pem: root.pem(),
            intermediate: Issuer::new(intermediate_params, intermediate_key),
            intermediate_pem: intermediate.pem(),
            key_identifier,
            permitted: permitted.iter().cloned().collect(),
            backdate,
            not_before,
            not_after,
        };
        Ok((authority, ApiCredentials { chain: vec![api.into()], key: api_key.into() }))
    }

    pub(super) fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// Signs a leaf. It is valid from a few seconds ago, or as far back as was agreed, for its lifetime,
    /// but never outside the intermediate's own.
    pub(super) fn issue(
        &self,
        key: &impl PublicKeyData,
        wanted: Wanted<'_>,
        now: SystemTime,
    ) -> Result<Leaf, IssueError> {
        if let Some(name) = wanted.names.iter().find(|&name| !self.permitted.contains(name)) {
            return Err(IssueError::NotPermitted(name.clone()));
        }
        let second = Duration::from_secs(1);
        let mut not_before = (now - self.backdate).max(self.not_before);
        // Both ends belong to the validity (RFC 5280 section 4.1.2.5).
        let mut not_after = (not_before + wanted.lifetime - second).min(self.not_after);
        if not_after <= now {
            return Err(IssueError::Expired);
        }
        if wanted.fault == ChainFault::Expired {
            let hour = Duration::from_secs(3600);
            (not_before, not_after) = (now - 2 * hour, now - hour);
        }
        let mut params = leaf_params(wanted.names, not_before, not_after, wanted.serial)?;
        if wanted.fault == ChainFault::WrongName {
            params.subject_alt_names = vec![SanType::DnsName("elsewhere.invalid".try_into()?)];
        }
        let leaf = if wanted.fault == ChainFault::WrongKey {
            params.signed_by(&KeyPair::generate()?, &self.intermediate)?
        } else {
            params.signed_by(key, &self.intermediate)?
        };
        let chain = match wanted.fault {
            ChainFault::MissingIntermediate => leaf.pem(),
            ChainFault::ReversedOrder => self.intermediate_pem.clone() + &leaf.pem(),
            _ => leaf.pem() + &self.intermediate_pem,
        };
        Ok(Leaf {
            chain,
            id: CertificateId { issuer: self.key_identifier, serial: positive(wanted.serial) },
            fingerprint: fingerprint(leaf.der()),
            not_before,
            not_after,
        })
    }
}

/// SHA-256.
pub(super) fn fingerprint(der: &[u8]) -> [u8; 32] {
    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(digest(&SHA256, der).as_ref());
    fingerprint
}

fn ca_params(
    name: &str,
    path_length: u8,
    not_before: SystemTime,
    not_after: SystemTime,
    serial: [u8; 16],
) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, not_before, not_after);
    params.serial_number = Some(serial_number(serial));
    params
}

fn leaf_params(
    names: &[Identifier],
    not_before: SystemTime,
    not_after: SystemTime,
    serial: [u8; 16],
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    // The subject stays empty: names are in subjectAltName only, critical by then
    // (RFC 5280 section 4.2.1.6).
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = names
        .iter()
        .map(|name| {
            Ok(match name {
                Identifier::Dns(name) => SanType::DnsName(name.as_str().try_into()?),
                Identifier::Ip(address) => SanType::IpAddress(*address),
            })
        })
        .collect::<Result<_, rcgen::Error>>()?;
    // `NoCa` would leave out the subject key identifier.
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, not_before, not_after);
    params.serial_number = Some(serial_number(serial));
    Ok(params)
}

/// What the root may vouch for. A type of name that is not listed at all would be unlimited
/// (RFC 5280 section 4.2.1.10), so host names and addresses of both families are always there.
fn constraints(permitted: &[Identifier], listen: IpAddr) -> NameConstraints {
    let subtree = |identifier: &Identifier| match identifier {
        Identifier::Dns(name) => GeneralSubtree::DnsName(name.as_str().to_owned()),
        Identifier::Ip(address) => {
            let bits = if address.is_ipv4() { 32 } else { 128 };
            GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(*address, bits))
        }
    };
    let own = std::iter::once(Identifier::Dns(localhost()))
        .chain(loopbacks(listen).into_iter().map(Identifier::Ip))
        .filter(|identifier| !permitted.contains(identifier))
        .collect::<Vec<_>>();
    NameConstraints {
        permitted_subtrees: permitted.iter().chain(&own).map(subtree).collect(),
        excluded_subtrees: Vec::new(),
    }
}

fn localhost() -> Hostname {
    Hostname::parse_any("localhost").expect("`localhost` is a host name")
}

/// The addresses that the API's certificate covers: the usual two, and the one it listens on.
fn loopbacks(listen: IpAddr) -> Vec<IpAddr> {
    let mut addresses = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    if !addresses.contains(&listen) {
        addresses.push(listen);
    }
    addresses
}

fn serial_number(random: [u8; 16]) -> SerialNumber {
    SerialNumber::from_slice(&positive(random))
}

/// As a serial number: positive and of constant length (RFC 5280 section 4.1.2.2).
fn positive(mut random: [u8; 16]) -> [u8; 16] {
    random[0] = random[0] & 0x3f | 0x40;
    random
}

fn set_validity(params: &mut CertificateParams, not_before: SystemTime, not_after: SystemTime) {
    let since_epoch = |time: SystemTime| {
        Duration::from_secs(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs())
    };
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since_epoch(not_before);
    params.not_after = epoch + since_epoch(not_after);
}

#[cfg(test)]
mod tests;
