//! Asks one address for the canary as the CA would ask it: GET on port 80 with the right Host, redirects
//! followed, certificates not checked (RFC 8555 section 8.3), everything bounded.

mod exchange;
mod redirect;
mod tls;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::dns::Resolver;
use super::evidence::{Dns, Records};
use super::sighting::{End, Failure, Place, RedirectFault, Scheme, Sighting, Stand};
use crate::hostname::{Hostname, Identifier};

/// For everything at one address, redirects included.
const DEADLINE: Duration = Duration::from_secs(10);

/// Addresses of a redirect's target that are tried, while there is no way to them.
const TRIED: usize = 4;

/// What is asked for.
#[derive(Clone)]
pub(super) struct Question {
    /// The identifier to prove.
    pub(super) identifier: Identifier,
    /// The path of the canary.
    pub(super) path: String,
    /// This CA follows redirects.
    pub(super) follows: bool,
}

/// Asks for the canary at one address.
pub(super) async fn probe(question: &Question, address: SocketAddr, resolver: &Arc<Resolver>) -> Sighting {
    let end = Instant::now() + DEADLINE;
    let place = Place {
        scheme: Scheme::Http,
        host: question.identifier.to_string(),
        port: Scheme::Http.port(),
        path: question.path.clone(),
    };
    let mut places = vec![place];
    let came = follow(question, address, resolver, &mut places, end).await;
    Sighting { address, stand: stand(address.ip()), places, end: came }
}

async fn follow(
    question: &Question,
    first: SocketAddr,
    resolver: &Arc<Resolver>,
    places: &mut Vec<Place>,
    end: Instant,
) -> End {
    let mut addresses = vec![first];
    loop {
        let place = places.last().expect("there is the first place").clone();
        let exchanged = match ask_any(&place, &addresses, end).await {
            Ok(exchanged) => exchanged,
            Err(failure) => return End::Failed(failure),
        };
        let exchange::Exchanged { answer, location } = exchanged;
        if !redirect::is_redirect(answer.status) {
            return End::Answer(answer);
        }
        if !question.follows {
            let to = location.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
            return End::Lost(RedirectFault::NotFollowed(to.chars().take(200).collect()));
        }
        match redirect::next(places, location.as_deref()) {
            Ok(next) => places.push(next),
            Err(fault) => return End::Lost(fault),
        }
        let next = places.last().expect("it was just added");
        let looked = tokio::time::timeout_at(end, addresses_of(next, &places[0].host, first.ip(), resolver));
        addresses = match looked.await {
            Ok(Ok(addresses)) => addresses,
            Ok(Err(failure)) => return End::Failed(failure),
            Err(_) => {
                return End::Failed(Failure::Unresolved { host: next.host.clone(), confirmed: false });
            }
        };
    }
}

/// Asks the first address; the next one only where the one before cannot be reached at all, as the CA does
/// with IPv6 and IPv4.
async fn ask_any(
    place: &Place,
    addresses: &[SocketAddr],
    end: Instant,
) -> Result<exchange::Exchanged, Failure> {
    let mut last = None;
    for address in addresses.iter().take(TRIED) {
        match exchange::ask(place, *address, end).await {
            Err(failure @ (Failure::ConnectTimeout | Failure::NoRoute(_))) => last = Some(failure),
            done => return done,
        }
    }
    Err(last.unwrap_or_else(|| Failure::Unresolved { host: place.host.clone(), confirmed: false }))
}

/// Where a redirect's target is. The host that is being probed stays at the address that is being probed:
/// each of its addresses is looked at by itself.
async fn addresses_of(
    place: &Place,
    probed: &str,
    address: IpAddr,
    resolver: &Arc<Resolver>,
) -> Result<Vec<SocketAddr>, Failure> {
    if place.host == probed {
        return Ok(vec![SocketAddr::new(address, place.port)]);
    }
    if let Ok(address) = place.host.parse() {
        return Ok(vec![SocketAddr::new(address, place.port)]);
    }
    let unresolved = |confirmed| Failure::Unresolved { host: place.host.clone(), confirmed };
    let name = Hostname::parse_any(&place.host).map_err(|_| unresolved(true))?;
    let dns = resolver.look(&name).await;
    let (v6, v4) = addresses(&dns);
    let found: Vec<_> = v6.chain(v4).map(|ip| SocketAddr::new(ip, place.port)).collect();
    if found.is_empty() { Err(unresolved(is_confirmed(&dns))) } else { Ok(found) }
}

/// IPv6 and IPv4 addresses.
pub(super) fn addresses(dns: &Dns) -> (impl Iterator<Item = IpAddr>, impl Iterator<Item = IpAddr>) {
    fn all<T: Copy + Into<IpAddr>>(records: &Records<T>) -> impl Iterator<Item = IpAddr> {
        let found = match records {
            Records::Found(found) => found.as_slice(),
            _ => &[],
        };
        found.iter().map(|ip| (*ip).into())
    }
    (all(&dns.aaaa), all(&dns.a))
}

fn is_confirmed(dns: &Dns) -> bool {
    fn sure<T>(records: &Records<T>) -> bool {
        matches!(records, Records::Empty { confirmed: true } | Records::NoName { confirmed: true })
    }
    sure(&dns.a) && sure(&dns.aaaa) && !dns.in_hosts_file
}

/// Where this machine stands towards an address: the kernel chooses the sender's address without sending
/// anything, and for an address of the machine's own it chooses that very address.
fn stand(address: IpAddr) -> Stand {
    let any: IpAddr = if address.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let from = UdpSocket::bind((any, 0))
        .and_then(|socket| {
            socket.connect((address, 80))?;
            socket.local_addr()
        })
        .map(|local| local.ip())
        .ok();
    Stand { own: address.is_loopback() || from == Some(address), from }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_addresses_are_told_from_others() {
        assert!(stand("127.0.0.1".parse().unwrap()).own);
        assert!(stand("127.9.9.9".parse().unwrap()).own, "all of 127/8 is the machine's own");
        assert!(!stand("192.0.2.1".parse().unwrap()).own);
    }
}
