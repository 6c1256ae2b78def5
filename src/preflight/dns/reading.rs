//! What an answer means for the name that was asked for: records, their absence, an alias to follow, other
//! servers to ask, or nonsense. Decisions alone.

use std::net::IpAddr;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

/// Aliases followed for one question; resolvers stop at 8 to 16.
const ALIASES: usize = 10;
/// Server names and addresses taken from one referral.
const SERVERS: usize = 8;

/// The meaning of one answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reading {
    /// Records of the type that was asked for.
    Found {
        /// The records.
        records: Vec<RData>,
        /// A server of the zone says so.
        authoritative: bool,
    },
    /// The name exists and has no such record.
    NoData {
        /// A server of the zone says so.
        authoritative: bool,
    },
    /// The name does not exist.
    NoName {
        /// A server of the zone says so.
        authoritative: bool,
    },
    /// The chain of aliases leads to a name that this answer says nothing about.
    Alias,
    /// Others are to be asked.
    Referral(Referral),
    /// SERVFAIL.
    ServFail,
    /// Nothing of use; why, in words.
    Nonsense(String),
}

/// The servers of a zone nearer to the name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Referral {
    /// The zone.
    pub(super) zone: Name,
    /// The names of its servers.
    pub(super) servers: Vec<Name>,
    /// Addresses of them that came with it.
    pub(super) glue: Vec<IpAddr>,
}

/// A name and the aliases that it led to, over any number of answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chain(Vec<Name>);

impl Chain {
    pub(super) fn new(name: Name) -> Self {
        Self(vec![name])
    }

    /// Where the aliases led to so far.
    pub(super) fn end(&self) -> &Name {
        self.0.last().expect("a chain begins with a name")
    }

    fn follow(&mut self, alias: &Name) -> Result<(), String> {
        if self.0.contains(alias) {
            return Err(format!("the CNAME records go in a circle: {alias} leads to itself"));
        }
        if self.0.len() > ALIASES {
            return Err(format!("more than {ALIASES} CNAME records in a row, the last one to {alias}"));
        }
        self.0.push(alias.clone());
        Ok(())
    }

    /// Reads an answer about the end of the chain, which moves with the aliases in it.
    pub(super) fn read(&mut self, message: &Message, kind: RecordType) -> Reading {
        let code = message.metadata.response_code;
        match code {
            ResponseCode::NoError | ResponseCode::NXDomain => {}
            ResponseCode::ServFail => return Reading::ServFail,
            other => return Reading::Nonsense(format!("the answer is {}", in_words(other))),
        }
        let asked = self.end().clone();
        loop {
            let mut owned = of(&message.answers, self.end());
            let found: Vec<RData> =
                owned.clone().filter(|r| r.record_type() == kind).map(|r| r.data.clone()).collect();
            if !found.is_empty() {
                if code == ResponseCode::NXDomain {
                    return Reading::Nonsense(format!("it sends records of {} and denies it", self.end()));
                }
                // AA is about the name itself, and not about its aliases (RFC 1035 section 4.1.1).
                let authoritative = message.metadata.authoritative && *self.end() == asked;
                return Reading::Found { records: found, authoritative };
            }
            let alias = owned.find_map(|record| match &record.data {
                RData::CNAME(alias) => Some(alias.0.clone()),
                _ => None,
            });
            let Some(alias) = alias else { break };
            if let Err(why) = self.follow(&alias) {
                return Reading::Nonsense(why);
            }
        }
        self.read_absence(message, *self.end() == asked)
    }

    /// `direct`: no alias was followed, so that AA is about the name itself.
    fn read_absence(&self, message: &Message, direct: bool) -> Reading {
        let end = self.end();
        let is_start = |record: &&Record| record.record_type() == RecordType::SOA;
        let start = message.authorities.iter().find(is_start);
        // One who speaks for another zone has no authority over this name.
        let start = start.map(|start| start.name.zone_of(end));
        let authoritative = direct && message.metadata.authoritative && start != Some(false);
        if message.metadata.response_code == ResponseCode::NXDomain {
            return Reading::NoName { authoritative };
        }
        if start == Some(true) {
            return Reading::NoData { authoritative };
        }
        if !direct {
            return Reading::Alias;
        }
        // Servers without the start of a zone are a referral (RFC 2308 section 2.2).
        match referral(message, end) {
            Some(_) if authoritative => {
                Reading::Nonsense("it says that it is the zone's own server and names others".into())
            }
            Some(referral) => Reading::Referral(referral),
            None => Reading::NoData { authoritative },
        }
    }
}

/// The records of a name.
fn of<'m>(records: &'m [Record], name: &Name) -> impl Iterator<Item = &'m Record> + Clone + use<'m> {
    let name = name.clone();
    records.iter().filter(move |r| r.dns_class == DNSClass::IN && r.name == name)
}

fn referral(message: &Message, name: &Name) -> Option<Referral> {
    let servers_of = |record: &Record| match &record.data {
        RData::NS(server) if record.name.zone_of(name) => Some((record.name.clone(), server.0.clone())),
        _ => None,
    };
    let (zone, _) = message.authorities.iter().find_map(servers_of)?;
    let servers: Vec<Name> = message
        .authorities
        .iter()
        .filter_map(servers_of)
        .filter(|(owner, _)| *owner == zone)
        .map(|(_, server)| server)
        .take(SERVERS)
        .collect();
    let glue = servers.iter().flat_map(|server| of(&message.additionals, server));
    let glue = glue.filter_map(|record| address(&record.data)).take(SERVERS).collect();
    Some(Referral { zone, servers, glue })
}

/// The address in a record, if it is one of an address.
pub(super) fn address(data: &RData) -> Option<IpAddr> {
    match data {
        RData::A(address) => Some(address.0.into()),
        RData::AAAA(address) => Some(address.0.into()),
        _ => None,
    }
}

/// A response code as administrators know it (RFC 1035 section 4.1.1, RFC 2136 section 2.2).
pub(super) fn in_words(code: ResponseCode) -> String {
    match code {
        ResponseCode::FormErr => "FORMERR: it does not understand the question".into(),
        ResponseCode::NotImp => "NOTIMP: it does not answer such questions".into(),
        ResponseCode::Refused => "REFUSED: it does not serve this machine".into(),
        ResponseCode::NotAuth => "NOTAUTH: it does not serve the zone".into(),
        ResponseCode::ServFail => "SERVFAIL: it fails".into(),
        other => format!("response code {}", u16::from(other)),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use hickory_proto::op::OpCode;
    use hickory_proto::rr::rdata::{A, CNAME, NS, SOA};

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn a(owner: &str) -> Record {
        Record::from_rdata(name(owner), 60, RData::A(A(Ipv4Addr::LOCALHOST)))
    }

    fn cname(owner: &str, to: &str) -> Record {
        Record::from_rdata(name(owner), 60, RData::CNAME(CNAME(name(to))))
    }

    fn ns(owner: &str, to: &str) -> Record {
        Record::from_rdata(name(owner), 60, RData::NS(NS(name(to))))
    }

    fn soa(owner: &str) -> Record {
        let data = SOA::new(name("ns.test."), name("root.test."), 1, 60, 60, 60, 60);
        Record::from_rdata(name(owner), 60, RData::SOA(data))
    }

    fn message(code: ResponseCode, aa: bool, answers: Vec<Record>, authorities: Vec<Record>) -> Message {
        let mut message = Message::error_msg(1, OpCode::Query, code);
        message.metadata.authoritative = aa;
        message.answers = answers;
        message.authorities = authorities;
        message
    }

    #[test]
    fn what_answers_mean() {
        use ResponseCode::{NXDomain, NoError};
        let nonsense = |text: &str| Reading::Nonsense(text.into());
        let found =
            |authoritative| Reading::Found { records: vec![RData::A(A(Ipv4Addr::LOCALHOST))], authoritative };
        let nodata = |authoritative| Reading::NoData { authoritative };
        let noname = |authoritative| Reading::NoName { authoritative };
        let lower = Referral { zone: name("w.test."), servers: vec![name("ns.w.test.")], glue: vec![] };
        for (what, code, aa, answers, authorities, expected) in [
            ("an address", NoError, false, vec![a("w.test.")], vec![], found(false)),
            ("in capitals", NoError, false, vec![a("W.Test.")], vec![], found(false)),
            ("an address, by the zone", NoError, true, vec![a("w.test.")], vec![], found(true)),
            (
                "an alias, by its zone",
                NoError,
                true,
                vec![cname("w.test.", "x.test."), a("x.test.")],
                vec![],
                found(false),
            ),
            ("another's address", NoError, false, vec![a("x.test.")], vec![soa("test.")], nodata(false)),
            (
                "an alias",
                NoError,
                false,
                vec![a("y.test."), cname("x.test.", "y.test."), cname("w.test.", "x.test.")],
                vec![],
                found(false),
            ),
            (
                "an alias into nothing",
                NXDomain,
                true,
                vec![cname("w.test.", "x.test.")],
                vec![soa("test.")],
                noname(false),
            ),
            (
                "an alias without records",
                NoError,
                true,
                vec![cname("w.test.", "x.test.")],
                vec![soa("test.")],
                nodata(false),
            ),
            (
                "an alias elsewhere",
                NoError,
                true,
                vec![cname("w.test.", "x.example.")],
                vec![],
                Reading::Alias,
            ),
            (
                "a circle",
                NoError,
                false,
                vec![cname("w.test.", "x.test."), cname("x.test.", "w.test.")],
                vec![],
                nonsense("the CNAME records go in a circle: w.test. leads to itself"),
            ),
            ("nothing", NoError, false, vec![], vec![], nodata(false)),
            ("nothing, by the zone", NoError, true, vec![], vec![soa("test.")], nodata(true)),
            ("no name", NXDomain, false, vec![], vec![soa("test.")], noname(false)),
            ("no name, by the zone", NXDomain, true, vec![], vec![soa("test.")], noname(true)),
            ("another zone's word", NXDomain, true, vec![], vec![soa("example.")], noname(false)),
            (
                "both",
                NXDomain,
                false,
                vec![a("w.test.")],
                vec![],
                nonsense("it sends records of w.test. and denies it"),
            ),
            (
                "a referral",
                NoError,
                false,
                vec![],
                vec![ns("w.test.", "ns.w.test.")],
                Reading::Referral(lower),
            ),
            (
                "a referral by the zone itself",
                NoError,
                true,
                vec![],
                vec![ns("w.test.", "ns.w.test.")],
                nonsense("it says that it is the zone's own server and names others"),
            ),
            ("a referral aside", NoError, false, vec![], vec![ns("x.test.", "ns.w.test.")], nodata(false)),
            (
                "refused",
                ResponseCode::Refused,
                false,
                vec![],
                vec![],
                nonsense("the answer is REFUSED: it does not serve this machine"),
            ),
            ("a failure", ResponseCode::ServFail, false, vec![], vec![], Reading::ServFail),
        ] {
            let mut chain = Chain::new(name("w.test."));
            assert_eq!(
                chain.read(&message(code, aa, answers, authorities), RecordType::A),
                expected,
                "{what}"
            );
        }
    }

    #[test]
    fn aliases_end_somewhere() {
        let mut chain = Chain::new(name("0.test."));
        let one = |i: usize| {
            message(
                ResponseCode::NoError,
                false,
                vec![cname(&format!("{i}.test."), &format!("{}.test.", i + 1))],
                vec![],
            )
        };
        for i in 0..ALIASES {
            assert_eq!(chain.read(&one(i), RecordType::A), Reading::Alias, "{i}");
        }
        assert_eq!(*chain.end(), name("10.test."));
        let Reading::Nonsense(why) = chain.read(&one(ALIASES), RecordType::A) else { panic!("it goes on") };
        assert_eq!(why, "more than 10 CNAME records in a row, the last one to 11.test.");
    }

    #[test]
    fn glue_belongs_to_the_servers() {
        let mut answer =
            message(ResponseCode::NoError, false, vec![], vec![ns("test.", "n1.test."), ns("test.", "n2.")]);
        answer.additionals = vec![a("n1.test."), a("stranger.test.")];
        let Reading::Referral(referral) = Chain::new(name("w.test.")).read(&answer, RecordType::A) else {
            panic!("no referral");
        };
        assert_eq!(referral.servers, [name("n1.test."), name("n2.")]);
        assert_eq!(referral.glue, [IpAddr::from(Ipv4Addr::LOCALHOST)]);
    }
}
