//! What the zone's own servers say, asked directly: a resolver's word may be old, a CA's resolvers start
//! afresh.
//!
//! Which servers these are is the resolver's word all the same. It is asked for it without the check of
//! signatures: what the servers of a zone say is to be heard whether or not it validates.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::time::Instant;

use super::exchange::{Plan, Trouble, first, together};
use super::lookup::{End, Ended, Lookup};
use super::message::Question;
use super::reading::{Chain, Reading, Referral, address, in_words};
use super::signatures::{Signed, flaw};
use crate::clock;
use crate::preflight::evidence::Signatures;

/// Names above a name that are looked at for the zone; deeper zones are not seen in the field.
const STEPS: usize = 12;
/// Servers of a zone whose addresses are looked for.
const SERVERS: usize = 4;
/// Addresses that are asked, one after the other, until one answers.
const ADDRESSES: usize = 6;
/// Zones below a zone, one naming the servers of the next, and aliases.
const HOPS: usize = 6;
/// How long an authoritative server has before another is asked too.
const PAUSE: Duration = Duration::from_millis(700);

const PLAN: Plan = Plan { rounds: 1, pause: PAUSE, accept };

/// What a zone's own server says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Word {
    /// These records, of the type that was asked for; aliases followed, each to its zone's servers.
    Found(Vec<RData>),
    /// The name exists and has no such record.
    NoData,
    /// The name does not exist.
    NoName,
    /// Servers that answer at all fail.
    Fails,
    /// Something else, or nothing.
    Unclear,
}

/// Zones' own servers, found through resolvers.
#[derive(Debug, Clone)]
pub(super) struct Authority {
    lookup: Lookup,
    port: u16,
}

/// A zone and where it is served.
#[derive(Debug, Clone)]
struct Zone {
    name: Name,
    servers: Vec<SocketAddr>,
}

impl Authority {
    /// Found through these resolvers, and asked at that port: 53, but in tests.
    pub(super) fn new(resolvers: &Lookup, port: u16) -> Self {
        Self { lookup: resolvers.unchecked(), port }
    }

    /// What the servers of a name's zone say of each of the types, in their order.
    pub(super) async fn ask(&self, name: &Name, kinds: &[RecordType], until: Instant) -> Vec<Word> {
        let Some(zone) = self.zone(name, until).await else { return vec![Word::Unclear; kinds.len()] };
        let ask = |kind: &RecordType| {
            let (authority, zone, name, kind) = (self.clone(), zone.clone(), name.clone(), *kind);
            async move { authority.word(zone, &name, kind, until).await }
        };
        together(kinds.iter().map(ask).collect()).await
    }

    /// What the servers of a name's zone say of a type.
    pub(super) async fn ask_one(&self, name: &Name, kind: RecordType, until: Instant) -> Word {
        match self.zone(name, until).await {
            Some(zone) => self.word(zone, name, kind, until).await,
            None => Word::Unclear,
        }
    }

    /// What the servers of a name's zone, and those of the zone above, show of the signatures of its records.
    pub(super) async fn signatures(&self, name: &Name, kind: RecordType, until: Instant) -> Signatures {
        let signed = async {
            let zone = self.zone(name, until).await?;
            let (zone, answer) = self.signed(zone, name, kind, until).await?;
            let apex = zone.name.clone();
            let above = async {
                let upper = self.zone(&apex.base_name(), until).await?;
                self.signed(upper, &apex, RecordType::DS, until).await
            };
            let keys = self.signed(zone, &apex, RecordType::DNSKEY, until);
            let (above, keys) = tokio::join!(above, keys);
            Some((apex, above?.1, keys?.1, answer))
        };
        let Some((zone, above, keys, answer)) = signed.await else { return Signatures::Unheard };
        let signed = Signed { zone: &zone, name, kind, above: &above, keys: &keys, answer: &answer };
        flaw(&signed, clock::now()).map_or(Signatures::Unexplained, Signatures::Flawed)
    }

    /// The answer of a zone's own server, with its signatures, and the zone.
    async fn signed(
        &self,
        mut zone: Zone,
        name: &Name,
        kind: RecordType,
        until: Instant,
    ) -> Option<(Zone, Message)> {
        let question = Question::direct(name, kind).signed();
        for _ in 0..=HOPS {
            let answer = PLAN.ask(&zone.servers, &question, until).await.ok()?;
            match Chain::new(name.clone()).read(&answer, kind) {
                Reading::Referral(referral) if is_below(&referral.zone, &zone.name) => {
                    zone = self.below(referral, until).await;
                }
                _ if answer.metadata.authoritative => return Some((zone, answer)),
                _ => return None,
            }
        }
        None
    }

    /// The nearest zone above the name whose servers the resolver names.
    async fn zone(&self, name: &Name, until: Instant) -> Option<Zone> {
        let labels = usize::from(name.num_labels());
        let steps: Vec<Name> = (1..=labels).rev().take(STEPS).map(|count| name.trim_to(count)).collect();
        let questions = steps.iter().map(|step| self.question(step, RecordType::NS, until)).collect();
        // An alias has no servers of its own, and those of its target serve another zone.
        let (index, ended) = first(questions, |ended: &Ended| {
            matches!(ended.with, End::Found { .. }) && steps.contains(&ended.at)
        })
        .await?;
        let End::Found { records, .. } = ended.with else { return None };
        let servers = records.into_iter().filter_map(|record| match record {
            RData::NS(server) => Some(server.0),
            _ => None,
        });
        let addresses = self.addresses(servers.take(SERVERS).collect(), until).await;
        Some(Zone { name: steps[index].clone(), servers: self.ports(addresses) })
    }

    /// The addresses of servers, the first ones of all of them before the second ones.
    async fn addresses(&self, servers: Vec<Name>, until: Instant) -> Vec<IpAddr> {
        let mut questions = Vec::new();
        for kind in [RecordType::A, RecordType::AAAA] {
            questions.extend(servers.iter().map(|server| self.question(server, kind, until)));
        }
        let answers = together(questions).await;
        let lists: Vec<Vec<IpAddr>> = answers
            .into_iter()
            .map(|ended| match ended.with {
                End::Found { records, .. } => records.iter().filter_map(address).take(ADDRESSES).collect(),
                _ => Vec::new(),
            })
            .collect();
        (0..ADDRESSES).flat_map(|nth| lists.iter().filter_map(move |list| list.get(nth)).copied()).collect()
    }

    /// A question to the resolvers, to be asked beside others.
    fn question(
        &self,
        name: &Name,
        kind: RecordType,
        until: Instant,
    ) -> impl Future<Output = Ended> + Send + use<> {
        let (lookup, name) = (self.lookup.clone(), name.clone());
        async move { lookup.ask(name, kind, until).await }
    }

    fn ports(&self, addresses: Vec<IpAddr>) -> Vec<SocketAddr> {
        let mut servers = Vec::new();
        for address in addresses.into_iter().filter(is_host) {
            let server = SocketAddr::new(address, self.port);
            if servers.len() < ADDRESSES && !servers.contains(&server) {
                servers.push(server);
            }
        }
        servers
    }

    async fn word(&self, mut zone: Zone, name: &Name, kind: RecordType, until: Instant) -> Word {
        let mut chain = Chain::new(name.clone());
        for _ in 0..=HOPS {
            let asked = chain.end().clone();
            let question = Question::direct(&asked, kind);
            let answer = match PLAN.ask(&zone.servers, &question, until).await {
                Ok(answer) => answer,
                Err(Trouble::Failing(_)) => return Word::Fails,
                Err(_) => return Word::Unclear,
            };
            let reading = chain.read(&answer, kind);
            if *chain.end() != asked && !matches!(reading, Reading::Nonsense(_)) {
                // What an alias leads to may be another zone's.
                let Some(other) = self.zone(chain.end(), until).await else { return Word::Unclear };
                zone = other;
                continue;
            }
            match reading {
                Reading::Found { records, authoritative: true } => return Word::Found(records),
                Reading::NoData { authoritative: true } => return Word::NoData,
                Reading::NoName { authoritative: true } => return Word::NoName,
                Reading::Referral(referral) if is_below(&referral.zone, &zone.name) => {
                    zone = self.below(referral, until).await;
                }
                _ => return Word::Unclear,
            }
        }
        Word::Unclear
    }

    async fn below(&self, referral: Referral, until: Instant) -> Zone {
        let Referral { zone, mut servers, glue } = referral;
        let mut addresses = self.ports(glue);
        if addresses.is_empty() {
            servers.truncate(SERVERS);
            addresses = self.ports(self.addresses(servers, until).await);
        }
        Zone { name: zone, servers: addresses }
    }
}

/// Every referral must lead down, or they would never end.
fn is_below(lower: &Name, upper: &Name) -> bool {
    lower.num_labels() > upper.num_labels() && upper.zone_of(lower)
}

/// One host, and no group of them.
fn is_host(address: &IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    !(address.is_unspecified() || address.is_multicast() || broadcast)
}

/// An answer that offers recursion and no authority is not the zone's own server: some networks send every
/// question to a resolver of theirs.
fn accept(server: SocketAddr, answer: Message) -> Result<Message, Trouble> {
    let metadata = &answer.metadata;
    match metadata.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain => {
            let refers = answer.answers.is_empty()
                && answer.authorities.iter().any(|record| record.record_type() == RecordType::NS);
            if metadata.authoritative || refers {
                return Ok(answer);
            }
            Err(Trouble::Unusable(format!("{server} does not serve the zone")))
        }
        _ if metadata.recursion_available => Err(Trouble::Unusable(format!("{server} is a resolver"))),
        code => Err(Trouble::Failing(format!("{server} answers {}", in_words(code)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn referrals_lead_down() {
        let name = |text| Name::from_ascii(text).unwrap();
        for (lower, upper, below) in [
            ("a.test.", "test.", true),
            ("A.Test.", "test.", true),
            ("b.a.test.", "test.", true),
            ("test.", "test.", false),
            ("test.", "a.test.", false),
            ("a.example.", "test.", false),
            (".", "test.", false),
        ] {
            assert_eq!(is_below(&name(lower), &name(upper)), below, "{lower} {upper}");
        }
    }

    #[test]
    fn only_single_hosts_are_asked() {
        for (address, asked) in [
            ("192.0.2.1", true),
            ("127.0.0.1", true),
            ("2001:db8::1", true),
            ("0.0.0.0", false),
            ("::", false),
            ("224.0.0.251", false),
            ("ff02::fb", false),
            ("255.255.255.255", false),
        ] {
            assert_eq!(is_host(&address.parse().unwrap()), asked, "{address}");
        }
    }
}
