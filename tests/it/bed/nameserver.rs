//! A name server that says whatever a test wants it to, lies and silence included.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CAA, CNAME, NS, NULL, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// A question as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Lower case, without the final dot.
    pub(crate) name: String,
    pub(crate) kind: RecordType,
    pub(crate) recursive: bool,
    pub(crate) unchecked: bool,
    pub(crate) edns: bool,
    pub(crate) tcp: bool,
}

/// What the server sends: any number of datagrams, or over TCP bytes as they are.
type Said = Vec<Vec<u8>>;
type Answer = dyn Fn(&Asked, Message) -> Said + Send + Sync;

/// A server on UDP and TCP, ended when dropped.
pub(crate) struct NameServer {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl NameServer {
    /// Answers each question with what the function makes of it and of an empty answer to it.
    pub(crate) fn start(
        address: impl Into<IpAddr>,
        port: u16,
        answer: impl Fn(&Asked, Message) -> Said + Send + Sync + 'static,
    ) -> Self {
        let address = SocketAddr::new(address.into(), port);
        let answer: Arc<Answer> = Arc::new(answer);
        let (asked, stop) = (Arc::<Mutex<Vec<Asked>>>::default(), Arc::new(AtomicBool::new(false)));
        let udp = UdpSocket::bind(address).unwrap();
        let tcp = TcpListener::bind(address).unwrap();
        let threads = vec![
            std::thread::spawn({
                let (answer, asked, stop) = (answer.clone(), asked.clone(), stop.clone());
                move || datagrams(&udp, &*answer, &asked, &stop)
            }),
            std::thread::spawn({
                let (asked, stop) = (asked.clone(), stop.clone());
                move || connections(&tcp, &*answer, &asked, &stop)
            }),
        ];
        Self { address, asked, stop, threads }
    }

    /// On 127.0.0.1, with one message for every question.
    pub(crate) fn saying(
        port: u16,
        answer: impl Fn(&Asked, Message) -> Message + Send + Sync + 'static,
    ) -> Self {
        Self::start(Ipv4Addr::LOCALHOST, port, move |asked, empty| one(&answer(asked, empty)))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Every question so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Both threads wait for something to come.
        if let Ok(socket) = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)) {
            let _ = socket.send_to(&[], self.address);
        }
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(2));
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn datagrams(socket: &UdpSocket, answer: &Answer, asked: &Mutex<Vec<Asked>>, stop: &AtomicBool) {
    let mut datagram = [0; 4096];
    while let Ok((length, from)) = socket.recv_from(&mut datagram) {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        for said in reply(&datagram[..length], false, answer, asked) {
            let _ = socket.send_to(&said, from);
        }
    }
}

fn connections(listener: &TcpListener, answer: &Answer, asked: &Mutex<Vec<Asked>>, stop: &AtomicBool) {
    for stream in listener.incoming() {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let Ok(mut stream) = stream else { continue };
        let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
        let mut length = [0; 2];
        if stream.read_exact(&mut length).is_err() {
            continue;
        }
        let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
        if stream.read_exact(&mut question).is_err() {
            continue;
        }
        for said in reply(&question, true, answer, asked) {
            let _ = stream.write_all(&said);
        }
    }
}

fn reply(question: &[u8], tcp: bool, answer: &Answer, asked: &Mutex<Vec<Asked>>) -> Said {
    let Ok(question) = Message::from_vec(question) else { return Vec::new() };
    let query = question.queries[0].clone();
    let seen = Asked {
        name: query.name.to_ascii().to_ascii_lowercase().trim_end_matches('.').to_owned(),
        kind: query.query_type,
        recursive: question.metadata.recursion_desired,
        unchecked: question.metadata.checking_disabled,
        edns: question.edns.is_some(),
        tcp,
    };
    asked.lock().unwrap().push(seen.clone());
    answer(&seen, question.into_response())
}

/// A message as the only thing that is said, by UDP.
pub(crate) fn one(message: &Message) -> Said {
    vec![message.to_vec().unwrap()]
}

/// A message with its length, for TCP.
pub(crate) fn framed(message: &Message) -> Said {
    let bytes = message.to_vec().unwrap();
    vec![u16::try_from(bytes.len()).unwrap().to_be_bytes().to_vec(), bytes]
}

/// An answer with these records, NODATA without any.
pub(crate) fn with(mut empty: Message, records: impl IntoIterator<Item = Record>) -> Message {
    empty.answers.extend(records);
    empty
}

/// The same with another response code.
pub(crate) fn code(mut message: Message, code: ResponseCode) -> Message {
    message.metadata.response_code = code;
    message
}

/// The same, from the zone's own server.
pub(crate) fn authoritative(mut message: Message) -> Message {
    message.metadata.authoritative = true;
    message
}

/// A referral to a zone's server, with its address.
pub(crate) fn referral(mut empty: Message, zone: &str, server: &str, address: Ipv4Addr) -> Message {
    empty.authorities.push(ns(zone, server));
    empty.additionals.push(a(server, address));
    empty
}

/// A name as it stands in a record.
pub(crate) fn name(text: &str) -> Name {
    Name::from_ascii(format!("{text}.")).unwrap()
}

fn record(owner: &str, data: RData) -> Record {
    Record::from_rdata(name(owner), 60, data)
}

pub(crate) fn a(owner: &str, address: Ipv4Addr) -> Record {
    record(owner, RData::A(A(address)))
}

pub(crate) fn aaaa(owner: &str, address: &str) -> Record {
    record(owner, RData::AAAA(AAAA(address.parse().unwrap())))
}

pub(crate) fn cname(owner: &str, target: &str) -> Record {
    record(owner, RData::CNAME(CNAME(name(target))))
}

pub(crate) fn ns(owner: &str, server: &str) -> Record {
    record(owner, RData::NS(NS(name(server))))
}

pub(crate) fn soa(owner: &str) -> Record {
    record(owner, RData::SOA(SOA::new(name("ns.test"), name("root.test"), 1, 60, 60, 60, 60)))
}

/// Any value, whatever its bytes.
pub(crate) fn caa(owner: &str, tag: &str, value: &[u8]) -> Record {
    let mut data = CAA::new_issue(false, None, Vec::new());
    data.tag = tag.into();
    data.value = value.to_vec();
    record(owner, RData::CAA(data))
}

/// The one key of a zone, as far as its tag goes.
const KEY: [u8; 8] = [1, 1, 3, 13, 0, 0, 0, 7];
/// Its tag (RFC 4034 appendix B).
const TAG: u16 = 0x0101 + 0x030d + 7;

pub(crate) fn dnskey(owner: &str) -> Record {
    raw(owner, RecordType::DNSKEY, &KEY)
}

/// What the zone above says of that key; `other` says it of another one.
pub(crate) fn ds(owner: &str, other: bool) -> Record {
    let tag = TAG + u16::from(other);
    raw(owner, RecordType::DS, &[&tag.to_be_bytes()[..], &[13, 2], &[9; 32]].concat())
}

/// A signature that nobody has made, from some days from now until some other.
pub(crate) fn rrsig(owner: &str, kind: RecordType, days: std::ops::Range<i64>) -> Record {
    let now = wicketgate::clock::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let at = |days: i64| u32::try_from(now.checked_add_signed(days * 86_400).unwrap()).unwrap().to_be_bytes();
    let mut bytes = u16::from(kind).to_be_bytes().to_vec();
    bytes.extend([13, 2, 0, 0, 0, 60]);
    bytes.extend([at(days.end), at(days.start)].concat());
    bytes.extend(TAG.to_be_bytes());
    bytes.extend([0, 7, 7, 7]);
    raw(owner, RecordType::RRSIG, &bytes)
}

fn raw(owner: &str, code: RecordType, bytes: &[u8]) -> Record {
    record(owner, RData::Unknown { code, rdata: NULL::with(bytes.to_vec()) })
}
