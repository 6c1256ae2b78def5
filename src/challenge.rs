//! The token map: which key authorization answers which token, and for which hosts.
//!
//! One of the two objects that threads share: the ACME engine writes, the gate reads without a lock.
//! A challenge is put under a guard that withdraws it on every way out. Who came for it is written down
//! beside it, and a withdrawn token stays known for an hour, so that who comes late is no scanner.

mod arrivals;
mod relay;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use bytes::Bytes;

use crate::clock;
use crate::hostname::Identifier;

pub use arrivals::{Arrival, Outcome};
use arrivals::{Log, Withdrawn};
use relay::Relays;
pub use relay::{QUESTIONS, Question, RelayEnd};

/// A challenge token: base64url characters only, at most 128 of them (RFC 8555 section 8.3 asks for
/// 128 bits of entropy; CAs send 22 to 43 characters).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Token(String);

/// The text is not a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a challenge token: 1 to {max} characters of A-Z a-z 0-9 _ - (RFC 8555 section 8.3)", max = Token::MAX)]
pub struct TokenError;

impl Token {
    /// The longest token accepted, in characters.
    pub const MAX: usize = 128;

    /// The token's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the bytes are in the alphabet and of a possible length.
    pub fn is_valid(bytes: &[u8]) -> bool {
        (1..=Self::MAX).contains(&bytes.len())
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        if Self::is_valid(text.as_bytes()) { Ok(Self(text.to_owned())) } else { Err(TokenError) }
    }
}

impl std::borrow::Borrow<str> for Token {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// One pending challenge.
#[derive(Clone)]
pub struct Pending {
    /// `token "." base64url(SHA-256 thumbprint)`, the exact bytes of the answer (RFC 8555 section 8.1).
    pub key_authorization: Bytes,
    /// The identifiers of the order that this challenge belongs to; only for them it is answered.
    pub hosts: Arc<BTreeSet<Identifier>>,
    /// Who is expected to come.
    pub purpose: Purpose,
}

/// Who is expected to come for a challenge. The gate answers all alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A CA's validators.
    Order,
    /// This machine's own preflight: no sign that a CA reached it.
    Canary,
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending")
            .field("hosts", &self.hosts)
            .field("purpose", &self.purpose)
            .finish_non_exhaustive()
    }
}

/// The map that the gate answers from. Clones share one map; readers never wait.
#[derive(Clone, Default, Debug)]
pub struct ChallengeTable {
    entries: Arc<ArcSwap<HashMap<Token, Entry>>>,
    withdrawn: Arc<Withdrawn>,
    relays: Relays,
    /// What the front answers in its handshakes, by the name that a CA asks for.
    handshakes: Arc<ArcSwap<HashMap<String, Token>>>,
}

/// A token that is pending. A CA may give one pending authorization to two orders: then both hold it, and
/// it stays until the last of them lets go.
#[derive(Clone, Debug)]
struct Entry {
    /// Never empty; the newest one answers.
    holders: Vec<Pending>,
    log: Arc<Log>,
}

/// A request for a token of ours, as [`ChallengeTable::arrived`] knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// Who was expected to come for that token.
    pub purpose: Purpose,
    /// The token was withdrawn before.
    pub late: bool,
}

impl ChallengeTable {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// The pending challenge of that token, whatever the host.
    pub fn find(&self, token: &str) -> Option<Pending> {
        self.entries.load().get(token).and_then(|entry| entry.holders.last()).cloned()
    }

    /// Whether no challenge is pending.
    pub fn is_empty(&self) -> bool {
        self.entries.load().is_empty()
    }

    /// Writes down that somebody came for a token, where it is one of ours: pending, or withdrawn within
    /// the hour before. None for any other token.
    pub fn arrived(&self, token: &str, arrival: Arrival) -> Option<Expected> {
        if let Some(entry) = self.entries.load().get(token) {
            let purpose = entry.holders.last()?.purpose;
            entry.log.add(arrival);
            return Some(Expected { purpose, late: false });
        }
        self.withdrawn.arrived(token, arrival).map(|purpose| Expected { purpose, late: true })
    }

    /// Who came for `host` within the hour before `now` and found the challenge of an order withdrawn,
    /// oldest first; only the first few of many.
    pub fn late_arrivals(&self, host: &Identifier, now: SystemTime) -> Vec<Arrival> {
        self.withdrawn.late(host, now)
    }

    /// Publishes a challenge until the guard is dropped.
    #[must_use = "the challenge is withdrawn when the guard is dropped"]
    pub fn put(&self, token: Token, pending: Pending) -> ChallengeGuard {
        let (hosts, purpose) = (pending.hosts.clone(), pending.purpose);
        let mut log = Arc::default();
        self.entries.rcu(|entries| {
            let mut entries = HashMap::clone(entries);
            let entry = entries
                .entry(token.clone())
                .or_insert_with(|| Entry { holders: Vec::new(), log: Arc::default() });
            entry.holders.push(pending.clone());
            log = entry.log.clone();
            entries
        });
        self.withdrawn.remove(&token);
        ChallengeGuard { table: self.clone(), token, hosts, purpose, log }
    }

    /// Has the front answer a token of this table, too, to a CA that asks it for `identifier` by tls-alpn-01 (RFC 8737),
    /// until the guard is dropped.
    #[must_use = "the front answers no more when this is dropped"]
    pub fn answer_handshakes(&self, identifier: &Identifier, token: Token) -> HandshakeGuard {
        let name = handshake_name(identifier);
        self.handshakes.rcu(|handshakes| {
            let mut handshakes = HashMap::clone(handshakes);
            handshakes.insert(name.clone(), token.clone());
            handshakes
        });
        HandshakeGuard { table: self.clone(), name, token }
    }

    /// The token and the key authorization that prove a name to a CA that asks for it in a handshake.
    pub fn for_handshake(&self, server_name: &str) -> Option<(Token, Bytes)> {
        let token = self.handshakes.load().get(server_name)?.clone();
        let pending = self.find(token.as_str())?;
        Some((token, pending.key_authorization))
    }

    /// Has another ACME client asked for tokens that are not here: for those of `hosts`, or of any.
    #[must_use = "it is asked no more when this is dropped"]
    pub fn relay(&self, hosts: Option<BTreeSet<Identifier>>) -> RelayEnd {
        self.relays.add(hosts)
    }

    /// Asks the clients that know tokens of `host` besides, where there are some; ready within seconds. Then it pays
    /// to look again.
    pub fn ask(&self, token: &Token, host: &Identifier) -> Option<impl Future<Output = ()> + use<>> {
        self.relays.ask(token, host)
    }

    fn withdraw(&self, guard: &ChallengeGuard, now: SystemTime) {
        let mut is_gone = false;
        self.entries.rcu(|entries| {
            let mut entries = HashMap::clone(entries);
            if let Some(entry) = entries.get_mut(&guard.token)
                && let Some(own) = entry.holders.iter().position(|p| Arc::ptr_eq(&p.hosts, &guard.hosts))
            {
                entry.holders.remove(own);
            }
            is_gone = entries.get(&guard.token).is_some_and(|entry| entry.holders.is_empty());
            if is_gone {
                entries.remove(&guard.token);
            }
            entries
        });
        if is_gone {
            self.withdrawn.add(guard.token.clone(), guard.purpose, now);
        }
    }
}

/// Withdraws its challenge when dropped, unless another order holds the same token.
#[derive(Debug)]
pub struct ChallengeGuard {
    table: ChallengeTable,
    token: Token,
    hosts: Arc<BTreeSet<Identifier>>,
    purpose: Purpose,
    log: Arc<Log>,
}

impl ChallengeGuard {
    /// Who came for this token so far, oldest first; only the first few of many.
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.log.kept()
    }

    /// How many came for this token so far.
    pub fn arrived(&self) -> u64 {
        self.log.total()
    }
}

impl Drop for ChallengeGuard {
    fn drop(&mut self) {
        self.table.withdraw(self, clock::now());
    }
}

/// Has the front answer no more, when dropped.
#[derive(Debug)]
pub struct HandshakeGuard {
    table: ChallengeTable,
    name: String,
    token: Token,
}

impl Drop for HandshakeGuard {
    fn drop(&mut self) {
        self.table.handshakes.rcu(|handshakes| {
            let mut handshakes = HashMap::clone(handshakes);
            // A later order for that name may have taken its place.
            if handshakes.get(&self.name) == Some(&self.token) {
                handshakes.remove(&self.name);
            }
            handshakes
        });
    }
}

/// What a CA names in its handshake (RFC 8737 section 3; for addresses RFC 8738 section 6).
fn handshake_name(identifier: &Identifier) -> String {
    match identifier {
        Identifier::Dns(name) => name.to_string(),
        Identifier::Ip(IpAddr::V4(ip)) => {
            let [a, b, c, d] = ip.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        Identifier::Ip(IpAddr::V6(ip)) => {
            let nibbles = ip.octets().into_iter().rev().flat_map(|octet| [octet & 15, octet >> 4]);
            nibbles.map(|nibble| format!("{nibble:x}.")).collect::<String>() + "ip6.arpa"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(text: &str, hosts: &Arc<BTreeSet<Identifier>>) -> Pending {
        let key_authorization = Bytes::from(text.to_owned());
        Pending { key_authorization, hosts: hosts.clone(), purpose: Purpose::Order }
    }

    fn arrival(outcome: Outcome) -> Arrival {
        let host = Some("a.net".parse().unwrap());
        Arrival { at: clock::now(), client: "192.0.2.1".parse().unwrap(), host, outcome }
    }

    #[test]
    fn a_guard_withdraws_its_own_token_only() {
        let table = ChallengeTable::new();
        let first = table.put("aaa".parse().unwrap(), pending("aaa.x", &Arc::default()));
        let second = table.put("bbb".parse().unwrap(), pending("bbb.x", &Arc::default()));
        drop(first);
        assert!(table.find("aaa").is_none());
        assert_eq!(table.find("bbb").unwrap().key_authorization, "bbb.x");
        drop(second);
        assert!(table.is_empty());
    }

    #[test]
    fn the_front_answers_a_token_as_long_as_both_guards_live() {
        let table = ChallengeTable::new();
        let (one, other): (Token, Token) = ("aaa".parse().unwrap(), "bbb".parse().unwrap());
        let host: Identifier = "a.net".parse().unwrap();
        let pending_one = table.put(one.clone(), pending("aaa.x", &Arc::default()));
        let first = table.answer_handshakes(&host, one.clone());
        assert_eq!(table.for_handshake("a.net").unwrap().1, "aaa.x");
        assert!(table.for_handshake("b.net").is_none());
        drop(pending_one);
        assert!(table.for_handshake("a.net").is_none());
        let _pending = table.put(other.clone(), pending("bbb.x", &Arc::default()));
        let second = table.answer_handshakes(&host, other);
        drop(first);
        assert_eq!(table.for_handshake("a.net").unwrap().1, "bbb.x");
        drop(second);
        assert!(table.for_handshake("a.net").is_none());
        for (identifier, name) in [
            ("192.0.2.7", "7.2.0.192.in-addr.arpa"),
            ("2001:db8::7", "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"),
        ] {
            assert_eq!(handshake_name(&identifier.parse().unwrap()), name);
        }
    }

    #[test]
    fn a_token_that_two_orders_share_stays_until_both_are_over() {
        for first_goes_first in [true, false] {
            let table = ChallengeTable::new();
            let token = || "t".parse().unwrap();
            let one = table.put(token(), pending("t.x", &Arc::default()));
            let other = table.put(token(), pending("t.x", &Arc::default()));
            let (goes, stays) = if first_goes_first { (one, other) } else { (other, one) };
            drop(goes);
            let expected = table.arrived("t", arrival(Outcome::Answered));
            assert_eq!(expected, Some(Expected { purpose: Purpose::Order, late: false }));
            assert_eq!(stays.arrivals().len(), 1);
            drop(stays);
            assert!(table.is_empty());
        }
    }

    #[test]
    fn who_came_is_known_to_every_order_that_waits() {
        let table = ChallengeTable::new();
        let one = table.put("t".parse().unwrap(), pending("t.x", &Arc::default()));
        table.arrived("t", arrival(Outcome::WrongHost));
        let other = table.put("t".parse().unwrap(), pending("t.x", &Arc::default()));
        table.arrived("t", arrival(Outcome::Answered));
        assert_eq!((one.arrivals(), one.arrived()), (other.arrivals(), 2));
        let outcomes: Vec<_> = one.arrivals().iter().map(|a| a.outcome).collect();
        assert_eq!(outcomes, [Outcome::WrongHost, Outcome::Answered]);
    }

    #[test]
    fn a_withdrawn_token_is_late_until_it_is_pending_again() {
        let (table, host) = (ChallengeTable::new(), "a.net".parse().unwrap());
        assert_eq!(table.arrived("t", arrival(Outcome::UnknownToken)), None);
        drop(table.put("t".parse().unwrap(), pending("t.x", &Arc::default())));
        let late = table.arrived("t", arrival(Outcome::UnknownToken));
        assert_eq!(late, Some(Expected { purpose: Purpose::Order, late: true }));
        assert_eq!(table.late_arrivals(&host, clock::now())[0].outcome, Outcome::Late);
        let again = table.put("t".parse().unwrap(), pending("t.x", &Arc::default()));
        assert!(!table.arrived("t", arrival(Outcome::Answered)).unwrap().late);
        assert_eq!(again.arrived(), 1);
    }

    #[test]
    fn tokens_outside_the_alphabet_are_refused() {
        for text in ["", "a.b", "a/b", "a b", "ä", "a%41", &"a".repeat(129)] {
            assert_eq!(text.parse::<Token>(), Err(TokenError), "{text}");
        }
        assert!("evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA".parse::<Token>().is_ok());
    }

    #[test]
    fn debug_output_keeps_the_answer_secret() {
        let table = ChallengeTable::new();
        let guard = table.put("tok".parse().unwrap(), pending("tok.secret", &Arc::default()));
        let shown = format!("{:?} {table:?} {guard:?}", table.find("tok"));
        assert!(shown.contains("Pending") && !shown.contains("secret"), "{shown}");
    }
}
