//! Asks the name servers what a CA would ask them, and tells what the zone's own servers say from what is
//! only heard of it.
//!
//! What would stop a CA counts as certain only where the zones' own servers show it:
//! - "no such name", "no such record" and SERVFAIL: they say the same, or fail too.
//! - CAA records that forbid an order: they have, from the name upwards, records that forbid it as well.
//! - Signatures that do not validate (SERVFAIL, and an answer once the check is left out): that is one
//!   resolver's word. A wrong clock, an old trust anchor or a forwarder that drops signatures makes a sound
//!   zone look the same there, and two resolvers of one network mostly share such a fault, so a second one
//!   confirms nothing. Without a validating library of our own three things show at the zone's own servers:
//!   no signatures although the zone above announces a key, no key that is the announced one, and
//!   signatures whose time is over by this machine's clock, where that clock finds those of the zone above
//!   to be current. Whatever else may be wrong with a signature stays a warning.
//!
//! The system's own functions for resolving names hide what matters here: whether a "no" is the zone's or a
//! cache's, whether a failure is one of DNSSEC, and that a CA does not read the hosts file.

mod authority;
mod climb;
mod exchange;
mod lookup;
mod message;
mod reading;
mod signatures;
mod system;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::rr::{Name, RData, RecordType};
use tokio::time::Instant;

use self::authority::{Authority, Word};
use self::climb::{Climbed, climb, climb_at_zones};
use self::exchange::together;
use self::lookup::{End, Ended, Lookup};
use self::system::{HOSTS, RESOLV_CONF};
use super::evidence::{CaaRecord, CaaWord, Dns, DnsFailure, Records, Signatures};
use crate::hostname::Hostname;

/// How long the resolvers have for an answer.
const ANSWERS: Duration = Duration::from_secs(5);
/// How long the zone's own servers have after that.
const CONFIRMATION: Duration = Duration::from_secs(3);
/// Addresses of one name that are looked at; a CA tries fewer.
const ADDRESSES: usize = 64;
const PORT: u16 = 53;

/// Why there is nobody to ask.
#[derive(Debug, thiserror::Error)]
pub enum ResolverError {
    /// The system's list of name servers cannot be read.
    #[error(
        "cannot read {path}, where the name servers to ask stand: {source}; \
         make it readable, or name the servers in the configuration"
    )]
    Unreadable {
        /// The file.
        path: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// Asks name servers. Nothing is kept from one call to the next but whom to ask; what `/etc/resolv.conf`
/// says is read once, so a new one for every preflight sees the present.
#[derive(Debug, Clone)]
pub struct Resolver {
    lookup: Lookup,
    authority: Authority,
    /// The administrator has named the servers.
    is_named: bool,
}

impl Resolver {
    /// Asks these servers, or where there are none, those of `/etc/resolv.conf` as it stands now; where
    /// there is no such file, the one on this machine.
    pub fn new(servers: &[SocketAddr]) -> Result<Self, ResolverError> {
        let lookup = if servers.is_empty() {
            let text = match system::read(RESOLV_CONF) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
                read => read.map_err(|source| ResolverError::Unreadable { path: RESOLV_CONF, source })?,
            };
            Lookup::new(&system::servers(&text))
        } else {
            Lookup::new(servers)
        };
        let authority = Authority::new(&lookup, PORT);
        Ok(Self { lookup, authority, is_named: !servers.is_empty() })
    }

    /// Zones' own servers are asked at this port in place of 53, for networks that redirect it and for
    /// tests.
    #[must_use]
    pub fn with_authorities_at(mut self, port: u16) -> Self {
        self.authority = Authority::new(&self.lookup, port);
        self
    }

    /// What the name servers say about a name. CAA records that are `weighty` are not believed from a
    /// resolver alone. It takes 8 seconds at most, whatever they do; it must run on a tokio runtime with I/O
    /// and time.
    pub async fn look(&self, name: &Hostname, weighty: &(dyn Fn(&[CaaRecord]) -> bool + Sync)) -> Dns {
        let until = Instant::now() + ANSWERS;
        let lookup = &self.lookup;
        let (a, aaaa, caa) = tokio::join!(
            lookup.ask(absolute(name), RecordType::A, until),
            lookup.ask(absolute(name), RecordType::AAAA, until),
            climb(lookup, name, until),
        );
        let (a, aaaa) = if self.is_named { (a, aaaa) } else { (hearsay(a), hearsay(aaaa)) };
        let until = Instant::now() + CONFIRMATION;
        let (words, signatures, caa_word) = tokio::join!(
            self.confirm(&a, &aaaa, &caa, until),
            self.signatures(&a, &aaaa, &caa, until),
            self.caa_word(name, &caa, weighty, until),
        );
        let own = |kind, at: &Name| Own {
            word: words.iter().find(|(asked, _)| *asked == kind).map(|(_, word)| word),
            signatures: signatures.iter().find(|(of, _)| of == at).map(|(_, seen)| *seen),
        };
        let (caa, caa_at) = match caa {
            Climbed::Found { records, at, .. } => (Records::Found(records), Some(at)),
            Climbed::Nothing => (Records::Empty { confirmed: false }, None),
            Climbed::Failed { failure, at } => (failed(failure, &own(RecordType::CAA, &at)), None),
        };
        Dns {
            a: records(a.with, &own(RecordType::A, &a.at), v4),
            aaaa: records(aaaa.with, &own(RecordType::AAAA, &aaaa.at), v6),
            caa,
            caa_at,
            caa_word,
            // A file that cannot be read leads no program anywhere.
            in_hosts_file: system::read(HOSTS).is_ok_and(|text| system::names(&text, name)),
        }
    }

    /// Asks the zone's own servers about whatever would stop a CA.
    async fn confirm(
        &self,
        a: &Ended,
        aaaa: &Ended,
        caa: &Climbed,
        until: Instant,
    ) -> Vec<(RecordType, Word)> {
        let mut doubts: Vec<(Name, Vec<RecordType>)> = Vec::new();
        let mut doubt = |at: &Name, kind| match doubts.iter_mut().find(|(name, _)| name == at) {
            Some((_, kinds)) => kinds.push(kind),
            None => doubts.push((at.clone(), vec![kind])),
        };
        for (kind, ended, other) in [(RecordType::A, a, aaaa), (RecordType::AAAA, aaaa, a)] {
            if is_doubtful(&ended.with, &other.with) {
                doubt(&ended.at, kind);
            }
        }
        if let Climbed::Failed { at, failure: DnsFailure::ServFail { .. } } = caa {
            doubt(at, RecordType::CAA);
        }
        let ask = |(name, kinds): (Name, Vec<RecordType>)| {
            let authority = self.authority.clone();
            async move {
                let words = authority.ask(&name, &kinds, until).await;
                kinds.into_iter().zip(words).collect::<Vec<_>>()
            }
        };
        let words = together(doubts.into_iter().map(ask).collect()).await;
        words.into_iter().flatten().collect()
    }

    /// Looks at signatures that do not validate, once for each name.
    async fn signatures(
        &self,
        a: &Ended,
        aaaa: &Ended,
        caa: &Climbed,
        until: Instant,
    ) -> Vec<(Name, Signatures)> {
        let mut doubts: Vec<(Name, RecordType)> = Vec::new();
        let mut doubt = |at: &Name, kind, failure: &DnsFailure| {
            let is_new = doubts.iter().all(|(name, _)| name != at);
            if is_new && matches!(failure, DnsFailure::Bogus { .. }) {
                doubts.push((at.clone(), kind));
            }
        };
        for (kind, ended) in [(RecordType::A, a), (RecordType::AAAA, aaaa)] {
            if let End::Failed(failure) = &ended.with {
                doubt(&ended.at, kind, failure);
            }
        }
        if let Climbed::Failed { at, failure } = caa {
            doubt(at, RecordType::CAA, failure);
        }
        let ask = |(name, kind): (Name, RecordType)| {
            let authority = self.authority.clone();
            async move {
                let seen = authority.signatures(&name, kind, until).await;
                (name, seen)
            }
        };
        together(doubts.into_iter().map(ask).collect()).await
    }

    async fn caa_word(
        &self,
        name: &Hostname,
        caa: &Climbed,
        weighty: &(dyn Fn(&[CaaRecord]) -> bool + Sync),
        until: Instant,
    ) -> CaaWord {
        match caa {
            Climbed::Found { records, .. } if !weighty(records) => CaaWord::NotAsked,
            Climbed::Found { records, at, authoritative: true } if self.is_named => {
                CaaWord::Found { records: records.clone(), at: at.clone() }
            }
            Climbed::Found { at, .. } => climb_at_zones(&self.authority, name, at, until).await,
            Climbed::Nothing | Climbed::Failed { .. } => CaaWord::NotAsked,
        }
    }
}

/// What was found out at a zone's own servers about one question, where they were asked.
struct Own<'a> {
    word: Option<&'a Word>,
    signatures: Option<Signatures>,
}

/// The system's resolver may tell the inside of a network other things than the world hears, and call itself
/// an authority for them (a split horizon): that confirms nothing. Servers that are named in `acme.resolvers`
/// are believed, as they may be the zone's own.
fn hearsay(mut ended: Ended) -> Ended {
    if let End::NoName { authoritative } | End::NoData { authoritative } = &mut ended.with {
        *authoritative = false;
    }
    ended
}

/// One family without addresses is common; both without any, and whatever else stops a CA, is worth a
/// second opinion.
fn is_doubtful(end: &End, other: &End) -> bool {
    match end {
        End::NoName { authoritative } => !authoritative,
        End::NoData { authoritative } => {
            !authoritative && matches!(other, End::NoData { .. } | End::NoName { .. })
        }
        End::Failed(failure) => matches!(failure, DnsFailure::ServFail { .. }),
        End::Found { .. } => false,
    }
}

fn records<T: PartialEq>(end: End, own: &Own<'_>, of: fn(&RData) -> Option<T>) -> Records<T> {
    match end {
        End::Found { records, .. } => {
            let mut found = Vec::new();
            for one in records.iter().filter_map(of) {
                if found.len() < ADDRESSES && !found.contains(&one) {
                    found.push(one);
                }
            }
            Records::Found(found)
        }
        End::NoData { authoritative } => {
            Records::Empty { confirmed: authoritative || own.word == Some(&Word::NoData) }
        }
        End::NoName { authoritative } => {
            Records::NoName { confirmed: authoritative || own.word == Some(&Word::NoName) }
        }
        End::Failed(failure) => failed(failure, own),
    }
}

fn failed<T>(failure: DnsFailure, own: &Own<'_>) -> Records<T> {
    Records::Failed(match failure {
        DnsFailure::ServFail { says, .. } => {
            DnsFailure::ServFail { confirmed: own.word == Some(&Word::Fails), says }
        }
        DnsFailure::Bogus { says, .. } => {
            DnsFailure::Bogus { own: own.signatures.unwrap_or(Signatures::Unheard), says }
        }
        other => other,
    })
}

fn v4(data: &RData) -> Option<Ipv4Addr> {
    match data {
        RData::A(address) => Some(address.0),
        _ => None,
    }
}

fn v6(data: &RData) -> Option<Ipv6Addr> {
    match data {
        RData::AAAA(address) => Some(address.0),
        _ => None,
    }
}

/// The name as one that no search domain is added to.
fn absolute(name: &Hostname) -> Name {
    Name::from_ascii(format!("{name}.")).expect("a host name is a domain name of at most 253 characters")
}
