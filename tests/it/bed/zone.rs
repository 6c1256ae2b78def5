//! Names that a test makes up, as a zone's own server tells of them, on good days and bad ones.

use std::net::{IpAddr, SocketAddr};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Record, RecordType};

use super::nameserver::{self, Asked, NameServer};

/// What is said of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    /// A or AAAA.
    Address(IpAddr),
    /// CAA with the tag `issue`.
    Issue(String),
    /// The name exists.
    Exists,
    /// SERVFAIL to every question.
    ServFail,
    /// CAA with the tag `issue`, without authority.
    IssueHearsay(String),
    /// SERVFAIL, but an address where signatures need not be checked.
    Bogus(IpAddr),
    /// The same, of a zone with a server of that name, whose signatures ran out, as who asks for them sees.
    Expired(IpAddr, String),
    /// A zone with a server of that name.
    Served(String),
    /// NXDOMAIN, without authority.
    Hearsay,
}

/// Names in lower case, and what is said of them. Names that others stand below exist as well.
pub(crate) type Zone = Vec<(String, Told)>;

/// Serves a zone as long as the server lives.
pub(crate) fn serve(address: SocketAddr, zone: Zone) -> NameServer {
    NameServer::start(address.ip(), address.port(), move |asked, empty| {
        let answer = answer(&zone, asked, empty);
        if asked.tcp { vec![nameserver::framed(&answer).concat()] } else { nameserver::one(&answer) }
    })
}

fn answer(zone: &Zone, asked: &Asked, empty: Message) -> Message {
    let told: Vec<_> = zone.iter().filter(|(name, _)| *name == asked.name).map(|(_, told)| told).collect();
    let is_parent = zone.iter().any(|(name, _)| name.ends_with(&format!(".{}", asked.name)));
    if told.is_empty() && !is_parent {
        return nameserver::code(nameserver::authoritative(empty), ResponseCode::NXDomain);
    }
    let mut records = Vec::new();
    for told in told {
        match told {
            Told::Address(address) => records.extend(address_record(asked, *address)),
            Told::Issue(value) if asked.kind == RecordType::CAA => {
                records.push(nameserver::caa(&asked.name, "issue", value.as_bytes()));
            }
            Told::IssueHearsay(value) if asked.kind == RecordType::CAA => {
                let record = nameserver::caa(&asked.name, "issue", value.as_bytes());
                return nameserver::with(empty, [record]);
            }
            Told::Served(server) if asked.kind == RecordType::NS => {
                records.push(nameserver::ns(&asked.name, server));
            }
            Told::Expired(address, server) if asked.unchecked || !asked.recursive => {
                records.extend(expired(asked, *address, server));
            }
            Told::Bogus(address) if asked.unchecked => records.extend(address_record(asked, *address)),
            Told::ServFail | Told::Bogus(_) | Told::Expired(..) => {
                return nameserver::code(empty, ResponseCode::ServFail);
            }
            Told::Hearsay => return nameserver::code(empty, ResponseCode::NXDomain),
            Told::Issue(_) | Told::IssueHearsay(_) | Told::Served(_) | Told::Exists => {}
        }
    }
    nameserver::with(nameserver::authoritative(empty), records)
}

/// A zone's own records and the one above's of it, with their signatures.
fn expired(asked: &Asked, address: IpAddr, server: &str) -> Vec<Record> {
    let name = asked.name.as_str();
    let signed = |record, days| vec![record, nameserver::rrsig(name, asked.kind, days)];
    match asked.kind {
        RecordType::NS => vec![nameserver::ns(name, server)],
        RecordType::DS => signed(nameserver::ds(name, false), -1..1),
        RecordType::DNSKEY => signed(nameserver::dnskey(name), -3..3),
        _ => address_record(asked, address).map_or_else(Vec::new, |record| signed(record, -9..-2)),
    }
}

fn address_record(asked: &Asked, address: IpAddr) -> Option<Record> {
    match (address, asked.kind) {
        (IpAddr::V4(ip), RecordType::A) => Some(nameserver::a(&asked.name, ip)),
        (IpAddr::V6(ip), RecordType::AAAA) => Some(nameserver::aaaa(&asked.name, &ip.to_string())),
        _ => None,
    }
}
