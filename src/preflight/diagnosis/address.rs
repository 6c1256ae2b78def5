//! What came from one address, judged. Pure.

use std::net::{IpAddr, Ipv6Addr};

use super::{Cause, Certainty, Surroundings, answer};
use crate::preflight::sighting::{End, Failure, RedirectFault, Sighting};
use crate::words::printable;

/// A judgement, without whom it is about.
pub(super) struct Judged {
    pub(super) cause: Cause,
    pub(super) certainty: Certainty,
    pub(super) seen: String,
    pub(super) means: String,
    pub(super) remedy: String,
}

/// How much a cause weighs, before it is asked whose address it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weight {
    /// As it should be.
    Fine,
    /// It may look otherwise to the CA.
    Inconclusive,
    /// Wrong for everybody who sees it.
    Wrong,
}

/// A cause with its words.
pub(super) struct Verdict {
    pub(super) cause: Cause,
    pub(super) weight: Weight,
    /// Continues "192.0.2.1 …".
    pub(super) seen: String,
    pub(super) means: String,
    pub(super) remedy: String,
}

/// Judges what came from an address.
pub(super) fn judge(sighting: &Sighting, expected: &[u8], surroundings: &Surroundings) -> Judged {
    let verdict = match &sighting.end {
        End::Answer(answer) => answer::judge(sighting, answer, expected, surroundings),
        End::Lost(fault) => lost(sighting, fault),
        End::Failed(failure) => failed(sighting, failure, surroundings),
    };
    let (certainty, remark) = weigh(sighting, verdict.weight, surroundings);
    let means = match remark {
        Some(remark) => format!("{}; {remark}", verdict.means),
        None => verdict.means,
    };
    let seen = format!("{}{} {}", sighting.address, way(sighting), verdict.seen);
    Judged { cause: verdict.cause, certainty, seen, means, remedy: verdict.remedy }
}

fn weigh(sighting: &Sighting, weight: Weight, surroundings: &Surroundings) -> (Certainty, Option<String>) {
    let address = sighting.address.ip();
    match weight {
        Weight::Fine => (Certainty::Fine, None),
        Weight::Inconclusive => (Certainty::Warning, None),
        Weight::Wrong if surroundings.direct || surroundings.taken && sighting.stand.own => {
            (Certainty::Certain, None)
        }
        Weight::Wrong if sighting.stand.own && !surroundings.covers(address) => {
            let remark = format!(
                "but this is one of this machine's own addresses and the gate listens on {}: where port 80 of what comes from outside is redirected to it (DNAT), this request did not pass that rule and the CA's will",
                surroundings.listens_on()
            );
            (Certainty::Warning, Some(remark))
        }
        Weight::Wrong => {
            let is_behind_nat = sighting.stand.from.is_some_and(is_private) && !is_private(address);
            let remark = is_behind_nat.then(|| {
                "this machine is behind a router that translates addresses: if that router answered by itself, only because the request came from inside, `acme.preflight = false` leaves this look out".to_owned()
            });
            (Certainty::Certain, remark)
        }
    }
}

/// Whether only machines nearby reach an address.
pub(super) fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            ip.is_private() || ip.is_loopback() || ip.is_link_local() || a == 0 || a == 100 && b & 0xc0 == 64
        }
        IpAddr::V6(ip) => {
            ip.is_loopback()
                || ip.is_unspecified()
                || is_in(ip, 0xfc00, 0xfe00)
                || is_in(ip, 0xfe80, 0xffc0)
                || ip.to_ipv4_mapped().is_some_and(|ip| is_private(ip.into()))
        }
    }
}

/// Whether only this machine, or its link, reaches an address.
pub(super) fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local() || ip.octets()[0] == 0,
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unspecified() || is_in(ip, 0xfe80, 0xffc0),
    }
}

fn is_in(ip: Ipv6Addr, prefix: u16, mask: u16) -> bool {
    ip.segments()[0] & mask == prefix
}

/// `, after a redirect to https://…,`
fn way(sighting: &Sighting) -> String {
    let redirects = sighting.places.len() - 1;
    let Some(last) = sighting.places.last().filter(|_| redirects > 0) else { return String::new() };
    let last = printable(&last.to_string(), 160);
    match redirects {
        1 => format!(", by a redirect to {last},"),
        n => format!(", by {n} redirects, the last to {last},"),
    }
}

/// What most redirects of challenges want.
pub(super) const EXEMPT: &str =
    "exempt `/.well-known/acme-challenge/` from redirects on port 80, and have it passed on to the gate";

fn lost(sighting: &Sighting, fault: &RedirectFault) -> Verdict {
    let wrong = |cause, seen: String, means: &str| Verdict {
        cause,
        weight: Weight::Wrong,
        seen,
        means: means.to_owned(),
        remedy: EXEMPT.to_owned(),
    };
    match fault {
        RedirectFault::Loop(place) => wrong(
            Cause::RedirectLoop,
            format!("redirects back to {}, which was asked for before", printable(&place.to_string(), 160)),
            "the redirects go in a circle, and the CA gives up",
        ),
        RedirectFault::TooMany => wrong(
            Cause::TooManyRedirects,
            format!("redirects once more after {} redirects", sighting.places.len() - 1),
            "the CA follows ten redirects and no more",
        ),
        RedirectFault::Port(place) => wrong(
            Cause::RedirectPort,
            format!("redirects to {}, port {}", printable(&place.to_string(), 160), place.port),
            "the CA follows redirects to ports 80 and 443 only",
        ),
        RedirectFault::Scheme(scheme) => wrong(
            Cause::RedirectScheme,
            format!("redirects to a URL with the scheme `{}`", printable(scheme, 40)),
            "the CA follows redirects to http and https only",
        ),
        RedirectFault::Malformed(location) => wrong(
            Cause::RedirectMalformed,
            format!("redirects to `{}`", printable(location, 160)),
            "that is no URL that the CA could follow",
        ),
        RedirectFault::NotFollowed(location) => wrong(
            Cause::RedirectNotFollowed,
            format!("redirects to `{}`", printable(location, 160)),
            "this CA follows no redirects",
        ),
    }
}

fn failed(sighting: &Sighting, failure: &Failure, surroundings: &Surroundings) -> Verdict {
    let verdict = direct_failure(sighting, failure, surroundings);
    if sighting.places.len() == 1 {
        return verdict;
    }
    // The first address answered; it is the redirect that leads astray.
    let cause = match verdict.cause {
        Cause::RedirectTls | Cause::RedirectUnresolved => verdict.cause,
        _ => Cause::RedirectUnreachable,
    };
    Verdict {
        cause,
        means: format!("the CA follows the redirect and finds the same: {}", verdict.means),
        remedy: EXEMPT.to_owned(),
        ..verdict
    }
}

fn direct_failure(sighting: &Sighting, failure: &Failure, surroundings: &Surroundings) -> Verdict {
    let port = match sighting.places.as_slice() {
        [.., _, last] => last.port,
        _ => sighting.address.port(),
    };
    let make = |cause, weight, seen: String, means: &str, remedy: String| Verdict {
        cause,
        weight,
        seen,
        means: means.to_owned(),
        remedy,
    };
    let give_or_pass = || {
        format!(
            "find out which program has port 80 there (`ss -ltnp` on that machine); have it pass `/.well-known/acme-challenge/` on to {}, or give port 80 to the gate",
            surroundings.forward_to()
        )
    };
    let open = "open port 80 for everybody while orders are pending: the CA comes from unpublished, changing addresses";
    match failure {
        Failure::Refused => make(
            Cause::Refused,
            Weight::Wrong,
            format!("refused the connection to port {port}"),
            "nothing listens there, or a filter rejects",
            if sighting.stand.own {
                format!(
                    "have the gate listen on {port} of that address (`gate.listen`), and look for rules that reject (`nft list ruleset`)"
                )
            } else {
                format!(
                    "is the name meant to lead to that machine? if so: start the gate there, or forward port {port} to this one; {open}"
                )
            },
        ),
        Failure::ConnectTimeout => make(
            Cause::TimedOut,
            Weight::Inconclusive,
            format!("did not answer an attempt to connect to port {port}"),
            "a filter drops the packets, the machine is away, or a router does not turn packets from inside round; from outside it may look better",
            format!("{open}; try from another network: `curl -v http://{}/`", sighting.places[0].host),
        ),
        Failure::NoRoute(words) => make(
            Cause::NoRoute,
            Weight::Inconclusive,
            format!("cannot be reached from this machine: {}", printable(words, 120)),
            if sighting.address.is_ipv6() {
                "this machine has no way to that IPv6 address; the CA prefers IPv6 and will try it"
            } else {
                "there is no way from here, or a router or filter on the way refuses"
            },
            if sighting.address.is_ipv6() {
                "if IPv6 does not work at that machine, remove the AAAA record; else try from a machine with IPv6".to_owned()
            } else {
                "look at the routes (`ip route get`), at filters that reject, and whether the address is right".to_owned()
            },
        ),
        Failure::Reset => make(
            Cause::Reset,
            Weight::Wrong,
            "reset the connection".to_owned(),
            "a program or a filter on the way cuts the connection when it sees the request",
            format!(
                "look for an intrusion prevention or URL filter in front of port 80, and let `/.well-known/acme-challenge/` pass; or {}",
                give_or_pass()
            ),
        ),
        Failure::Closed => make(
            Cause::Closed,
            Weight::Wrong,
            "closed the connection without an answer".to_owned(),
            "a program that is not the gate has port 80, or one in front of it drops the request (nginx's `return 444`, a TCP proxy whose target is away)",
            give_or_pass(),
        ),
        Failure::BrokeOff => make(
            Cause::Closed,
            Weight::Wrong,
            "closed the connection in the midst of an answer".to_owned(),
            "the program there, or one that it passes requests on to, breaks off",
            give_or_pass(),
        ),
        Failure::Silent => make(
            Cause::Silent,
            Weight::Inconclusive,
            "took the connection and sent nothing".to_owned(),
            "the program that has the port hangs, or waits for a server behind it that does not answer; the CA gives up after about ten seconds",
            give_or_pass(),
        ),
        Failure::Stalled => make(
            Cause::Silent,
            Weight::Inconclusive,
            "began an answer and did not end it in time".to_owned(),
            "the program that has the port hangs; the CA gives up after about ten seconds",
            give_or_pass(),
        ),
        Failure::NotHttp(bytes) => make(
            Cause::NotHttp,
            Weight::Wrong,
            format!("answered with something that is not HTTP: {}", quoted(bytes)),
            &format!("{} has the port", protocol(bytes)),
            give_or_pass(),
        ),
        Failure::SpeaksTls => make(
            Cause::TlsOnPort80,
            Weight::Wrong,
            format!("speaks TLS on port {port}"),
            "the CA speaks plain HTTP on port 80 and gets no answer that it understands",
            format!(
                "take `ssl` or `tls` off the listener for port 80, or the redirection from 80 to 443; then {}",
                give_or_pass()
            ),
        ),
        Failure::HeaderTooLarge => make(
            Cause::TooLarge,
            Weight::Wrong,
            "sent a header of more than 16 kB".to_owned(),
            "that is not the gate's answer, and no validator reads that much",
            give_or_pass(),
        ),
        Failure::Tls(reason) => make(
            Cause::RedirectTls,
            Weight::Wrong,
            format!("fails in the TLS handshake: {}", printable(reason, 160)),
            "there is no TLS that the CA could use; it would not have looked at the certificate",
            EXEMPT.to_owned(),
        ),
        Failure::Unresolved { host, confirmed } => make(
            Cause::RedirectUnresolved,
            if *confirmed { Weight::Wrong } else { Weight::Inconclusive },
            format!("leads to `{}`, for which no address was found", printable(host, 100)),
            if host.ends_with(".well-known") || host.contains(".well-known.") {
                "there is a `/` missing between host and path in the redirect's target"
            } else {
                "the redirect's target has no address"
            },
            EXEMPT.to_owned(),
        ),
        Failure::Other(words) => make(
            Cause::Unknown,
            Weight::Inconclusive,
            format!("cannot be asked: {}", printable(words, 160)),
            "this machine could not look, which says nothing of what the CA would see",
            "repair the cause and look again".to_owned(),
        ),
    }
}

/// Bytes in quotes, as a person can read them.
pub(super) fn quoted(bytes: &[u8]) -> String {
    const SHOWN: usize = 60;
    let dots = if bytes.len() > SHOWN { "…" } else { "" };
    format!("\"{}{dots}\"", bytes[..bytes.len().min(SHOWN)].escape_ascii())
}

/// Who begins like that.
fn protocol(bytes: &[u8]) -> &'static str {
    match bytes {
        [b'S', b'S', b'H', b'-', ..] => "an SSH server",
        [b'2', b'2', b'0', b' ' | b'-', ..] => "a mail or FTP server",
        [_, _, _, 0x04, _, 0, 0, 0, 0, ..] => "a server that speaks HTTP/2 without being asked to",
        _ => "a program that speaks another protocol",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_the_world_does_not_reach() {
        for (text, expected) in [
            ("10.1.2.3", true),
            ("172.31.0.1", true),
            ("172.32.0.1", false),
            ("192.168.1.1", true),
            ("100.64.0.1", true),
            ("100.128.0.1", false),
            ("169.254.1.1", true),
            ("127.0.1.1", true),
            ("0.0.0.0", true),
            ("192.0.2.1", false),
            ("203.0.113.7", false),
            ("::1", true),
            ("fd00::1", true),
            ("fe80::1", true),
            ("::ffff:10.0.0.1", true),
            ("2001:db8::1", false),
        ] {
            assert_eq!(is_private(text.parse().unwrap()), expected, "{text}");
        }
    }
}
