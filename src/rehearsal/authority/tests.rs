//! Keys and certificates, read back by a parser.

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
        ParsedExtension::AuthorityKeyIdentifier(id) => Some(id.key_identifier.as_ref().unwrap().0.to_vec()),
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
