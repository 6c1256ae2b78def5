//! A small authoritative DNS server for names that a test makes up, with answers that real ones give on
//! bad days only.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::thread;

/// What is said of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record {
    /// A or AAAA.
    Address(IpAddr),
    /// CAA with the tag `issue`.
    Issue(String),
    /// The name exists.
    Exists,
    /// SERVFAIL to every question.
    ServFail,
    /// SERVFAIL, but an address where signatures need not be checked.
    Bogus(IpAddr),
    /// NXDOMAIN, without authority.
    Hearsay,
}

/// Names in lower case, and what is said of them.
pub(crate) type Zone = Vec<(String, Record)>;

const A: u16 = 1;
const AAAA: u16 = 28;
const CAA: u16 = 257;
const AUTHORITATIVE: u8 = 0x04;
const SERVFAIL: u8 = 2;
const NXDOMAIN: u8 = 3;

/// Serves a zone over UDP and TCP, until the process ends.
pub(crate) fn serve(address: SocketAddr, zone: Zone) {
    let zone = Arc::new(zone);
    let udp = UdpSocket::bind(address).expect("the name server's port is free");
    let tcp = TcpListener::bind(address).expect("the name server's port is free");
    let known = zone.clone();
    thread::spawn(move || {
        let mut query = [0; 1500];
        while let Ok((length, client)) = udp.recv_from(&mut query) {
            if let Some(answer) = answer(&query[..length], &known) {
                // Who does not wait any more gets none.
                let _ = udp.send_to(&answer, client);
            }
        }
    });
    thread::spawn(move || {
        for mut stream in tcp.incoming().flatten() {
            let zone = zone.clone();
            thread::spawn(move || {
                let mut length = [0; 2];
                stream.read_exact(&mut length).ok()?;
                let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
                stream.read_exact(&mut query).ok()?;
                let answer = answer(&query, &zone)?;
                let length = u16::try_from(answer.len()).ok()?.to_be_bytes();
                stream.write_all(&[&length[..], &answer].concat()).ok()
            });
        }
    });
}

/// The answer to a question (RFC 1035 section 4.1).
fn answer(query: &[u8], zone: &Zone) -> Option<Vec<u8>> {
    let (name, end) = question(query)?;
    let kind = u16::from_be_bytes([*query.get(end)?, *query.get(end + 1)?]);
    let unchecked = query[3] & 0x10 != 0;
    let said: Vec<_> = zone.iter().filter(|(known, _)| *known == name).map(|(_, record)| record).collect();
    // The names that others stand below exist as well.
    let is_parent = zone.iter().any(|(known, _)| known.ends_with(&format!(".{name}")));
    let (mut flags, mut code, mut answers) = (AUTHORITATIVE, 0, Vec::new());
    for record in &said {
        match record {
            Record::Address(address) => answers.extend(address_record(*address, kind)),
            Record::Issue(value) if kind == CAA => {
                let data = [&[0, 5][..], b"issue", value.as_bytes()].concat();
                answers.push((CAA, data));
            }
            Record::Bogus(address) if unchecked => answers.extend(address_record(*address, kind)),
            Record::ServFail | Record::Bogus(_) => (flags, code) = (0, SERVFAIL),
            Record::Hearsay => (flags, code) = (0, NXDOMAIN),
            Record::Issue(_) | Record::Exists => {}
        }
    }
    if said.is_empty() && !is_parent {
        code = NXDOMAIN;
    }
    let mut message = query[..2].to_vec();
    message.extend([0x80 | flags | (query[2] & 0x01), 0x80 | (query[3] & 0x10) | code]);
    message.extend([0, 1, 0, u8::try_from(answers.len()).ok()?, 0, 0, 0, 0]);
    message.extend(&query[12..end + 4]);
    for (kind, data) in answers {
        message.extend([0xc0, 12]);
        message.extend(kind.to_be_bytes());
        message.extend([0, 1, 0, 0, 0, 60]);
        message.extend(u16::try_from(data.len()).ok()?.to_be_bytes());
        message.extend(data);
    }
    Some(message)
}

fn address_record(address: IpAddr, kind: u16) -> Option<(u16, Vec<u8>)> {
    match (address, kind) {
        (IpAddr::V4(ip), A) => Some((A, ip.octets().to_vec())),
        (IpAddr::V6(ip), AAAA) => Some((AAAA, ip.octets().to_vec())),
        _ => None,
    }
}

/// The name that is asked for, in lower case, and where its type begins.
fn question(query: &[u8]) -> Option<(String, usize)> {
    let (mut labels, mut at) = (Vec::new(), 12);
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            return Some((labels.join("."), at));
        }
        labels.push(String::from_utf8_lossy(query.get(at..at + length)?).to_ascii_lowercase());
        at += length;
    }
}

#[test]
fn questions_are_read_and_answered() {
    let zone = vec![("a.example".to_owned(), Record::Address([192, 0, 2, 7].into()))];
    let ask = |name: &str, kind: u8| {
        let mut query = vec![9, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            query.push(label.len() as u8);
            query.extend(label.bytes());
        }
        query.extend([0, 0, kind, 0, 1]);
        answer(&query, &zone).unwrap()
    };
    let found = ask("A.example", 1);
    assert_eq!((found[3] & 0x0f, found[7]), (0, 1));
    assert!(found.ends_with(&[0, 4, 192, 0, 2, 7]));
    assert_eq!(ask("a.example", 28)[7], 0);
    assert_eq!(ask("b.example", 1)[3] & 0x0f, NXDOMAIN);
    assert_eq!(ask("example", 1)[3] & 0x0f, 0);
    assert!(answer(&[0; 5], &zone).is_none());
}
