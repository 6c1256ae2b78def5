//! Who asks for what no CA would ask for: a challenge that never was, a host that is none of ours. Each such
//! request is one line in the log, in a form that fail2ban reads (`deploy/fail2ban/`), unless a ban would hit
//! somebody else: a proxy in front of the gate, or a client that knew a token.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::HeaderMap;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Lines of one network: so many at once, then one in this time.
const OF_A_NETWORK: Pace = Pace { burst: 20, every: Duration::from_secs(60) };

/// Lines of all networks together.
const OF_ALL: Pace = Pace { burst: 200, every: Duration::from_secs(1) };

/// How many networks and clients are remembered. Those of the past are pushed out by newer ones.
const REMEMBERED: usize = 4096;

/// What a scanner asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// A challenge that is not pending and was not a short while ago.
    UnknownToken,
    /// A host that is not redirected here.
    ForeignHost,
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownToken => "unknown-token",
            Self::ForeignHost => "foreign-host",
        })
    }
}

/// What is remembered of scanners, and of those who are none. Bounded, whoever comes.
#[derive(Debug, Default)]
pub struct Scanners(Mutex<Remembered>);

#[derive(Debug, Default)]
struct Remembered {
    cleared: Recent<IpAddr>,
    lines: Lines,
}

impl Scanners {
    /// The client got the answer to a challenge: it knew the token, so it is the CA's, or ours.
    pub fn clear(&self, client: IpAddr) {
        self.lock().cleared.insert(client);
    }

    /// Whether a line may be written about a request of that client now; then, how many requests had none
    /// since the line before.
    pub fn line(&self, client: IpAddr, now: Instant) -> Option<u64> {
        let mut remembered = self.lock();
        if remembered.cleared.contains(&client) {
            return None;
        }
        remembered.lines.admit(network(client), now)
    }

    /// Every state in between is a valid one, so a panic elsewhere spoils nothing.
    fn lock(&self) -> MutexGuard<'_, Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a ban of the client would hit the client: not one that is a proxy, and never this machine.
///
/// `peer` is at the other end of the connection. Where the client is that one, and the request shows that it came
/// through a proxy, the proxy is one that nobody declared as trusted.
pub fn is_bannable(client: IpAddr, peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> bool {
    let is_here = client.is_loopback() || client.is_unspecified();
    let is_proxy =
        trusted.iter().any(|network| network.contains(&client)) || (client == peer && is_forwarded(headers));
    !is_here && !is_proxy
}

/// Whether a proxy has left its mark.
fn is_forwarded(headers: &HeaderMap) -> bool {
    const MARKS: [&str; 5] = ["x-forwarded-for", "forwarded", "via", "x-real-ip", "cf-connecting-ip"];
    MARKS.iter().any(|mark| headers.contains_key(*mark))
}

/// Who shares a pace: a client with one address seldom has only one.
fn network(client: IpAddr) -> IpNet {
    let network = match client {
        IpAddr::V4(address) => Ipv4Net::new(address, 24).map(IpNet::from),
        IpAddr::V6(address) => Ipv6Net::new(address, 48).map(IpNet::from),
    };
    network.map_or(IpNet::from(client), |network| network.trunc())
}

/// A number at once, and one more in each interval.
#[derive(Debug, Clone, Copy)]
struct Pace {
    burst: u32,
    every: Duration,
}

impl Pace {
    /// Takes one away, if there is one. `full` is when all of them are there again; in the past or none where
    /// they are.
    fn take(self, full: Option<Instant>, now: Instant) -> Option<Instant> {
        let next = full.map_or(now, |full| full.max(now)) + self.every;
        (next <= now + self.every * self.burst).then_some(next)
    }
}

/// Which lines are written.
#[derive(Debug, Default)]
struct Lines {
    /// When a network's pace has recovered.
    networks: HashMap<IpNet, Instant>,
    all: Option<Instant>,
    untold: u64,
}

impl Lines {
    fn admit(&mut self, network: IpNet, now: Instant) -> Option<u64> {
        let taken =
            OF_A_NETWORK.take(self.networks.get(&network).copied(), now).zip(OF_ALL.take(self.all, now));
        let Some((of_network, of_all)) = taken else {
            self.untold += 1;
            return None;
        };
        // At the pace of all, so few are remembered that the walk is short.
        self.networks.retain(|_, full| *full > now);
        if self.networks.len() == REMEMBERED && !self.networks.contains_key(&network) {
            self.untold += 1;
            return None;
        }
        self.networks.insert(network, of_network);
        self.all = Some(of_all);
        Some(std::mem::take(&mut self.untold))
    }
}

/// The last of those that were inserted.
#[derive(Debug)]
struct Recent<T> {
    set: HashSet<T>,
    oldest_first: VecDeque<T>,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self { set: HashSet::new(), oldest_first: VecDeque::new() }
    }
}

impl<T: Copy + Eq + std::hash::Hash> Recent<T> {
    fn insert(&mut self, value: T) {
        if !self.set.insert(value) {
            return;
        }
        self.oldest_first.push_back(value);
        if self.oldest_first.len() > REMEMBERED
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            self.set.remove(&oldest);
        }
    }

    fn contains(&self, value: &T) -> bool {
        self.set.contains(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::monotonic;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_has_a_pace_and_leaves_the_others_theirs() {
        let (scanners, start) = (Scanners::default(), monotonic());
        let told = (0..1000).filter(|n| {
            let client = ip(&format!("198.51.100.{}", n % 256));
            scanners.line(client, start).is_some()
        });
        assert_eq!(told.count(), 20);
        assert_eq!(scanners.line(ip("203.0.113.1"), start), Some(980), "and the untold ones are counted");
        assert_eq!(scanners.line(ip("203.0.113.1"), start), Some(0));

        let later = start + Duration::from_secs(60);
        assert_eq!(scanners.line(ip("198.51.100.1"), later), Some(0));
        assert_eq!(scanners.line(ip("198.51.100.2"), later), None);
        assert_eq!(scanners.line(ip("198.51.100.1"), later + Duration::from_secs(60)), Some(1));
    }

    #[test]
    fn many_networks_share_a_pace_and_a_bounded_memory() {
        let (scanners, start) = (Scanners::default(), monotonic());
        let client = |n: u32| IpAddr::from(std::net::Ipv4Addr::from(n << 8));
        let mut told = 0;
        for n in 0..1_000_000_u32 {
            let now = start + Duration::from_millis(u64::from(n));
            told += u32::from(scanners.line(client(n % 0x7f_ffff), now).is_some());
        }
        assert_eq!(told, 200 + 999);
        assert!(scanners.lock().lines.networks.len() <= REMEMBERED);
    }

    #[test]
    fn who_knew_a_token_is_no_scanner() {
        let (scanners, now) = (Scanners::default(), monotonic());
        scanners.clear(ip("198.51.100.7"));
        assert_eq!(scanners.line(ip("198.51.100.7"), now), None);
        assert_eq!(scanners.line(ip("198.51.100.8"), now), Some(0), "nor was that request one to count");
        for n in 0..2 * REMEMBERED {
            scanners.clear(IpAddr::from(std::net::Ipv6Addr::from(n as u128)));
        }
        let remembered = scanners.lock();
        assert_eq!(remembered.cleared.set.len(), REMEMBERED);
        assert_eq!(remembered.cleared.oldest_first.len(), REMEMBERED);
    }

    #[test]
    fn networks() {
        for (client, expected) in
            [("198.51.100.7", "198.51.100.0/24"), ("2001:db8:1:2::7", "2001:db8:1::/48")]
        {
            assert_eq!(network(ip(client)).to_string(), expected);
        }
    }

    #[test]
    fn proxies_and_this_machine_are_never_to_be_banned() {
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        for (client, peer, mark, expected) in [
            ("198.51.100.7", "198.51.100.7", None, true),
            ("198.51.100.7", "10.0.0.1", Some("x-forwarded-for"), true),
            ("198.51.100.7", "10.0.0.1", None, true),
            ("10.0.0.1", "10.0.0.1", None, false),
            ("127.0.0.1", "127.0.0.1", None, false),
            ("127.0.0.9", "10.0.0.1", Some("x-forwarded-for"), false),
            ("::1", "::1", None, false),
            ("::", "10.0.0.1", Some("x-forwarded-for"), false),
            ("172.17.0.1", "172.17.0.1", Some("x-forwarded-for"), false),
            ("172.17.0.1", "172.17.0.1", Some("forwarded"), false),
            ("172.17.0.1", "172.17.0.1", Some("via"), false),
            ("172.17.0.1", "172.17.0.1", Some("x-real-ip"), false),
            ("172.17.0.1", "172.17.0.1", Some("cf-connecting-ip"), false),
            ("172.17.0.1", "172.17.0.1", None, true),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(mark) = mark {
                headers.insert(mark, "198.51.100.9".parse().unwrap());
            }
            assert_eq!(
                is_bannable(ip(client), ip(peer), &headers, &trusted),
                expected,
                "{client} {peer} {mark:?}"
            );
        }
    }
}
