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
mod tests {
    use rustls::pki_types::pem::PemObject;
    use x509_parser::certificate::X509Certificate;
    use x509_parser::extensions::{GeneralName, ParsedExtension};
    use x509_parser::prelude::FromDer;

    use super::super::profile::PROFILES;
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn noon() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn identifiers(names: &[&str]) -> Vec<Identifier> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn authority(lifetime: Duration) -> Authority {
        backdated(lifetime, Duration::ZERO)
    }

    fn backdated(lifetime: Duration, backdate: Duration) -> Authority {
        let permitted = identifiers(&["a.example", "192.0.2.1"]);
        let terms = Terms { lifetime, backdate };
        Authority::new(&permitted, Ipv4Addr::LOCALHOST.into(), terms, noon(), [0xab; 16]).unwrap().0
    }

    fn wanted(names: &[Identifier], lifetime: Duration, fault: ChainFault) -> Wanted<'_> {
        Wanted { names, lifetime, serial: [7; 16], fault }
    }

    fn issue(authority: &Authority, lifetime: Duration, now: SystemTime, fault: ChainFault) -> Vec<Vec<u8>> {
        let key = KeyPair::generate().unwrap();
        let names = identifiers(&["a.example", "192.0.2.1"]);
        let leaf = authority.issue(&key, wanted(&names, lifetime, fault), now).unwrap();
        CertificateDer::pem_slice_iter(leaf.chain.as_bytes()).map(|der| der.unwrap().to_vec()).collect()
    }

    fn parse(der: &[u8]) -> X509Certificate<'_> {
        X509Certificate::from_der(der).unwrap().1
    }

    fn seconds(time: SystemTime) -> i64 {
        time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs().cast_signed()
    }

    #[test]
    fn every_profile_has_its_lifetime() {
        let authority = authority(200 * DAY);
        for (name, lifetime, _) in PROFILES {
            let chain = issue(&authority, *lifetime, noon(), ChainFault::None);
            let validity = parse(&chain[0]).validity().clone();
            assert_eq!(validity.not_before.timestamp(), seconds(noon()) - 5, "{name}");
            let whole = validity.not_after.timestamp() - validity.not_before.timestamp() + 1;
            assert_eq!(whole, lifetime.as_secs().cast_signed(), "{name}");
        }
    }

    #[test]
    fn a_leaf_never_outlives_the_intermediate() {
        let authority = authority(30 * DAY);
        let chain = issue(&authority, 90 * DAY, noon() + 10 * DAY, ChainFault::None);
        let [leaf, intermediate] = [parse(&chain[0]), parse(&chain[1])];
        assert_eq!(leaf.validity().not_after, intermediate.validity().not_after);
        let key = KeyPair::generate().unwrap();
        let late = authority.issue(&key, wanted(&[], DAY, ChainFault::None), noon() + 30 * DAY);
        assert!(matches!(late, Err(IssueError::Expired)));
    }

    #[test]
    fn the_chain_links_and_carries_what_clients_look_for() {
        let authority = authority(200 * DAY);
        let root_der = CertificateDer::from_pem_slice(authority.root_pem().as_bytes()).unwrap();
        let root = parse(&root_der);
        let chain = issue(&authority, DAY, noon(), ChainFault::None);
        let [leaf, intermediate] = [parse(&chain[0]), parse(&chain[1])];
        root.verify_signature(None).unwrap();
        intermediate.verify_signature(Some(root.public_key())).unwrap();
        leaf.verify_signature(Some(intermediate.public_key())).unwrap();
        assert_eq!(root.basic_constraints().unwrap().unwrap().value.path_len_constraint, Some(1));
        assert_eq!(intermediate.basic_constraints().unwrap().unwrap().value.path_len_constraint, Some(0));
        assert!(!leaf.is_ca());
        assert!(leaf.extended_key_usage().unwrap().unwrap().value.server_auth);
        let subject_key = |certificate: &X509Certificate<'_>| {
            certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
                _ => None,
            })
        };
        let authority_key = leaf.iter_extensions().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                Some(id.key_identifier.as_ref().unwrap().0.to_vec())
            }
            _ => None,
        });
        assert!(subject_key(&leaf).is_some());
        assert_eq!(authority_key, subject_key(&intermediate));
        let names = &leaf.subject_alternative_name().unwrap().unwrap().value.general_names;
        assert_eq!(names, &[GeneralName::DNSName("a.example"), GeneralName::IPAddress(&[192, 0, 2, 1])]);
    }

    #[test]
    fn the_root_is_limited_in_names_and_addresses_of_both_families() {
        // With host names alone permitted, any address would be.
        let (permitted, listen) = (identifiers(&["a.example"]), "127.0.0.2".parse().unwrap());
        let terms = Terms { lifetime: DAY, backdate: Duration::ZERO };
        let (authority, _) = Authority::new(&permitted, listen, terms, noon(), [1; 16]).unwrap();
        let der = CertificateDer::from_pem_slice(authority.root_pem().as_bytes()).unwrap();
        let root = parse(&der);
        let extension = root.name_constraints().unwrap().unwrap();
        assert!(extension.critical);
        let permitted = extension
            .value
            .permitted_subtrees
            .as_ref()
            .unwrap()
            .iter()
            .map(|tree| &tree.base)
            .collect::<Vec<_>>();
        let v6 = [[0; 15].as_slice(), &[1], &[0xff; 16]].concat();
        assert_eq!(
            permitted,
            [
                &GeneralName::DNSName("a.example"),
                &GeneralName::DNSName("localhost"),
                &GeneralName::IPAddress(&[127, 0, 0, 1, 255, 255, 255, 255]),
                &GeneralName::IPAddress(&v6),
                &GeneralName::IPAddress(&[127, 0, 0, 2, 255, 255, 255, 255]),
            ]
        );
    }

    #[test]
    fn a_leaf_is_backdated_as_agreed_and_keeps_its_lifetime() {
        let hour = Duration::from_secs(3600);
        let authority = backdated(400 * DAY, hour);
        let chain = issue(&authority, 398 * DAY, noon(), ChainFault::None);
        let validity = parse(&chain[0]).validity().clone();
        assert_eq!(validity.not_before.timestamp(), seconds(noon() - hour));
        assert_eq!(validity.not_after.timestamp() + 1, seconds(noon() - hour + 398 * DAY));
    }

    #[test]
    fn nothing_is_signed_for_a_name_that_is_not_permitted() {
        let authority = authority(200 * DAY);
        let key = KeyPair::generate().unwrap();
        for names in [&["b.example"][..], &["a.example", "x.a.example"], &["192.0.2.2"]] {
            let names = identifiers(names);
            let error = authority.issue(&key, wanted(&names, DAY, ChainFault::None), noon()).unwrap_err();
            assert!(matches!(error, IssueError::NotPermitted(_)), "{names:?}: {error}");
        }
    }

    #[test]
    fn a_leaf_has_the_name_that_clients_make_of_it() {
        let authority = authority(200 * DAY);
        let key = KeyPair::generate().unwrap();
        let names = identifiers(&["a.example"]);
        let issued = authority.issue(&key, wanted(&names, DAY, ChainFault::None), noon()).unwrap();
        let der = CertificateDer::from_pem_slice(issued.chain.as_bytes()).unwrap();
        let leaf = parse(&der);
        assert_eq!(leaf.raw_serial(), issued.id.serial);
        let issuer = leaf.iter_extensions().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0.to_vec()),
            _ => None,
        });
        assert_eq!(issuer.as_deref(), Some(issued.id.issuer.as_slice()));
        assert_eq!(issued.fingerprint, fingerprint(&der));
    }

    #[test]
    fn chain_faults_are_what_they_say() {
        let authority = authority(200 * DAY);
        let expired = issue(&authority, DAY, noon(), ChainFault::Expired);
        assert!(parse(&expired[0]).validity().not_after.timestamp() < seconds(noon()));
        let wrong_name = issue(&authority, DAY, noon(), ChainFault::WrongName);
        assert_eq!(
            parse(&wrong_name[0]).subject_alternative_name().unwrap().unwrap().value.general_names,
            [GeneralName::DNSName("elsewhere.invalid")]
        );
        let reversed = issue(&authority, DAY, noon(), ChainFault::ReversedOrder);
        assert!(parse(&reversed[0]).is_ca() && !parse(&reversed[1]).is_ca());
        let alone = issue(&authority, DAY, noon(), ChainFault::MissingIntermediate);
        assert_eq!(alone.len(), 1);

        let key = KeyPair::generate().unwrap();
        let leaf = |fault| {
            let names = identifiers(&["a.example"]);
            let issued = authority.issue(&key, wanted(&names, DAY, fault), noon()).unwrap();
            let der = CertificateDer::from_pem_slice(issued.chain.as_bytes()).unwrap();
            parse(&der).public_key().subject_public_key.data.to_vec()
        };
        assert_eq!(leaf(ChainFault::None), key.der_bytes());
        assert_ne!(leaf(ChainFault::WrongKey), key.der_bytes());
    }

    #[test]
    fn serial_numbers_are_positive_and_of_constant_length() {
        for first in 0..=255 {
            let serial = serial_number([first; 16]).to_bytes();
            assert!((0x40..0x80).contains(&serial[0]), "{first}");
            assert_eq!(serial.len(), 16);
        }
    }
}
