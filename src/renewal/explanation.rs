//! Why the CA could not validate a name, in plain words: what the CA reports, who arrived at the gate and
//! what the preflight saw are three views of one thing, and together they mostly name the culprit (pure).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::report::list;
use crate::acme::{AcmeError, NameFailure};
use crate::challenge::{Arrival, Outcome};
use crate::hostname::Identifier;
use crate::words::printable;

/// What is known besides the CA's own words.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen<'a> {
    /// What the preflight found wrong with a name, and what to do: a clause without a full stop.
    pub preflight: Option<&'a BTreeMap<Identifier, String>>,
    /// From about how many networks this CA looks at once, where that is known.
    pub vantage_points: Option<usize>,
}

/// Names that failed in one way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The names, in the order of the CA's answers.
    pub identifiers: Vec<Identifier>,
    /// What was seen, by whom, what it means and what to do: a clause without a full stop.
    pub text: String,
}

/// The whole error in one sentence; where it speaks of no names, its own words.
pub fn sentence(error: &AcmeError, seen: &Seen<'_>) -> String {
    let explanations = explain(error.failures(), seen);
    if explanations.is_empty() {
        return error.to_string();
    }
    let told: Vec<_> = explanations.iter().map(|e| format!("{}: {}", list(&e.identifiers), e.text)).collect();
    format!("cannot {}: {}", error.action(), told.join("; "))
}

/// Explains each failed name; names with the same explanation stand together.
pub fn explain(failures: &[NameFailure], seen: &Seen<'_>) -> Vec<Explanation> {
    let mut groups: Vec<(String, Vec<&NameFailure>)> = Vec::new();
    for failure in failures {
        let meaning = Case::of(failure, seen).meaning();
        let alike = |(told, members): &&mut (String, Vec<&NameFailure>)| {
            *told == meaning && report(members[0]).0 == report(failure).0
        };
        match groups.iter_mut().find(alike) {
            Some((_, members)) => members.push(failure),
            None => groups.push((meaning, vec![failure])),
        }
    }
    let explanation = |(meaning, members): (String, Vec<&NameFailure>)| {
        let (reported, words) = report(members[0]);
        let of = match members.len() {
            1 => String::new(),
            _ => format!(", of {}", members[0].identifier),
        };
        let meaning = if meaning.is_empty() { meaning } else { format!("; {meaning}") };
        Explanation {
            identifiers: members.iter().map(|f| f.identifier.clone()).collect(),
            text: format!("the CA reports {reported} (in its words{of}: \"{words}\"){meaning}"),
        }
    };
    groups.into_iter().map(explanation).collect()
}

/// What the CA reports, in short, and its own words.
fn report(failure: &NameFailure) -> (String, String) {
    let kind = if failure.kind.is_empty() { "a failure" } else { &failure.kind };
    let short = match status_in(&failure.detail).filter(|_| is_about_an_answer(&failure.kind)) {
        Some(status) => format!("{status}, {kind}"),
        None => kind.to_owned(),
    };
    (short, printable(&failure.detail, 600))
}

fn is_about_an_answer(kind: &str) -> bool {
    matches!(kind, "unauthorized" | "incorrectResponse" | "connection")
}

/// The HTTP status that the CA's words speak of: they mostly end with it.
fn status_in(detail: &str) -> Option<u16> {
    let words = detail.split_whitespace().rev();
    let mut statuses = words.filter_map(|word| {
        let digits = word.trim_matches(|c: char| c.is_ascii_punctuation());
        digits.parse().ok().filter(|status| digits.len() == 3 && (300..600).contains(status))
    });
    statuses.next()
}

/// The address that the CA's words speak of.
fn address_in(detail: &str) -> Option<IpAddr> {
    detail.split([' ', '[', ']', '(', ')', '"', ',', ';', '/']).find_map(|word| {
        let bare = word.strip_suffix(':').unwrap_or(word).trim_end_matches('.');
        let address: IpAddr = bare.parse().ok()?;
        Some(address.to_canonical())
    })
}

/// One failed name, with its evidence sorted.
struct Case<'a> {
    failure: &'a NameFailure,
    preflight: Option<&'a str>,
    vantage_points: Option<usize>,
    /// Who came while the challenge was pending.
    came: Vec<&'a Arrival>,
    answered: Vec<&'a Arrival>,
    misdirected: Vec<&'a Arrival>,
    late: usize,
}

/// What the evidence says, and what to do where the preflight knows nothing better.
struct Finding {
    seen: String,
    remedy: Option<String>,
}

impl Finding {
    fn new(seen: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { seen: seen.into(), remedy: Some(remedy.into()) }
    }
}

const NOBODY: &str = "no request for it reached port 80 here";

impl<'a> Case<'a> {
    fn of(failure: &'a NameFailure, seen: &Seen<'a>) -> Self {
        let with = |wanted: fn(Outcome) -> bool| -> Vec<&'a Arrival> {
            failure.arrivals.iter().filter(|arrival| wanted(arrival.outcome)).collect()
        };
        Self {
            failure,
            preflight: seen
                .preflight
                .and_then(|found| found.get(&failure.identifier))
                .map(|sentence| sentence.trim().trim_end_matches('.'))
                .filter(|sentence| !sentence.is_empty()),
            vantage_points: seen.vantage_points,
            came: with(|outcome| outcome != Outcome::Late),
            answered: with(|outcome| outcome == Outcome::Answered),
            misdirected: with(|outcome| matches!(outcome, Outcome::WrongHost | Outcome::NoHost)),
            late: with(|outcome| outcome == Outcome::Late).len(),
        }
    }

    /// What it means and what to do; empty where nothing is known but the CA's words.
    fn meaning(&self) -> String {
        let Finding { seen, remedy } = self.finding();
        let preflight = self.preflight.map(str::to_owned);
        let advice = match (remedy, preflight) {
            // Where nobody came, what the preflight saw in the CA's place is the better explanation.
            (_, Some(found)) if self.came.is_empty() => Some(format!("the preflight found: {found}")),
            (Some(remedy), Some(found)) => Some(format!("{remedy}; the preflight found: {found}")),
            (remedy, found) => remedy.or(found.map(|found| format!("the preflight found: {found}"))),
        };
        [Some(seen).filter(|s| !s.is_empty()), advice].into_iter().flatten().collect::<Vec<_>>().join(": ")
    }

    fn finding(&self) -> Finding {
        if !self.failure.authorization_failed {
            return Finding { seen: String::new(), remedy: self.general() };
        }
        match self.failure.kind.as_str() {
            "dns" => self.unresolved(),
            "connection" | "unauthorized" | "incorrectResponse" | "tls" => self.unreached(),
            "caa" => Finding { seen: "this is no matter of this machine".to_owned(), remedy: self.general() },
            _ => Finding { seen: self.tally(), remedy: self.general() },
        }
    }

    fn general(&self) -> Option<String> {
        self.failure.remedy().map(str::to_owned)
    }

    /// tls-alpn-01.
    fn unreached_by_handshake(&self) -> Finding {
        let seen = match self.came.len() {
            0 => "nobody asked for it in a handshake here".to_owned(),
            1 => "one handshake asked for it here".to_owned(),
            n => format!("{n} handshakes asked for it here"),
        };
        let remedy = "port 443 of every address in the name's A and AAAA records must lead to this front, past nothing else that ends TLS";
        Finding::new(seen, remedy)
    }

    fn unresolved(&self) -> Finding {
        if self.came.is_empty() {
            return Finding {
                seen: format!("{NOBODY}, and this is no matter of this machine"),
                remedy: self.general(),
            };
        }
        Finding::new(
            format!("{}, while the CA could not resolve the name elsewhere", self.tally()),
            "some of the name's own servers answer wrongly, or not everyone: have all of them checked by your DNS provider",
        )
    }

    fn unreached(&self) -> Finding {
        if self.failure.by_handshake {
            return self.unreached_by_handshake();
        }
        if self.came.is_empty() {
            return if self.late > 0 { self.too_late() } else { self.nobody() };
        }
        if let Some(finding) = self.other_family() {
            return finding;
        }
        if !self.misdirected.is_empty() {
            return self.misdirected();
        }
        if self.answered.is_empty() {
            let advice = "what is in front may have kept them, or sent them twice";
            return Finding::new("requests arrived, though none while the answer was in place", advice);
        }
        self.answered_in_vain()
    }

    fn nobody(&self) -> Finding {
        let detail = self.failure.detail.to_ascii_lowercase();
        let by_ipv6 = match address_in(&self.failure.detail) {
            Some(IpAddr::V6(address)) => {
                format!(" (the CA went to {address}: where there is an AAAA record, it goes by IPv6)")
            }
            _ => String::new(),
        };
        match self.failure.kind.as_str() {
            "connection" if detail.contains("https://") => Finding::new(
                format!("{NOBODY}, and the CA's words are of https: something in front sent it on there"),
                "exempt /.well-known/acme-challenge/ from redirects on port 80, and have it passed on to this gate",
            ),
            "connection" if detail.contains("refused") => Finding::new(
                format!("{NOBODY}, and what the CA found there refused it{by_ipv6}"),
                "the name's A and AAAA records must lead here; where they do, open it in the firewall, which rejects it, and forward it to this machine",
            ),
            "connection" => Finding::new(
                format!("{NOBODY}{by_ipv6}"),
                "a firewall or a missing port forwarding drops it: open it in the firewall, forward it to this machine, and check that the name's A and AAAA records lead here",
            ),
            "tls" => Finding::new(
                format!("{NOBODY}, so something in front sent the CA on to https, where TLS failed"),
                "let /.well-known/acme-challenge/ pass on port 80 without a redirect",
            ),
            _ => Finding::new(
                format!("{NOBODY}, so something other than this gate answered the CA{by_ipv6}"),
                "the name's A and AAAA records must all lead here, and no proxy or filter in front may answer /.well-known/acme-challenge/ itself",
            ),
        }
    }

    fn too_late(&self) -> Finding {
        Finding::new(
            format!(
                "{NOBODY} in time, but {} came late, after the CA had given up and the challenge was withdrawn",
                requests(self.late)
            ),
            "something in front holds requests back for longer than the CA waits, which is about ten seconds: look for a filter that inspects them, or for a device that is overloaded",
        )
    }

    /// The CA went by one family of addresses, and whoever came used the other one.
    fn other_family(&self) -> Option<Finding> {
        let address = address_in(&self.failure.detail)?;
        // Behind a device that translates, the client's address tells nothing of the way.
        if self.came.iter().any(|a| is_local(a.client) || a.client.is_ipv6() == address.is_ipv6()) {
            return None;
        }
        let (family, other, record) =
            if address.is_ipv6() { ("IPv6", "IPv4", "AAAA") } else { ("IPv4", "IPv6", "A") };
        Some(Finding::new(
            format!("only requests over {other} arrived here, while the CA went by {family}, to {address}"),
            format!(
                "the {record} record leads elsewhere, or port 80 is not open over {family}: correct that, or remove the {record} record"
            ),
        ))
    }

    fn misdirected(&self) -> Finding {
        let hosts: BTreeSet<_> = self.misdirected.iter().filter_map(|a| a.host.as_ref()).collect();
        let hosts: Vec<_> = hosts.into_iter().cloned().collect();
        let under = match &hosts[..] {
            [] => "without a host".to_owned(),
            hosts => format!("for the host {}", list(hosts)),
        };
        let also = match self.answered.len() {
            0 => String::new(),
            count => format!(", besides {} that {} answered", requests(count), were(count)),
        };
        let cause = if hosts.is_empty() {
            "a proxy in front drops the Host header: have it pass that on, in HTTP/1.1"
        } else {
            "a proxy in front changes the Host header: have it pass that on as it came, or set `gate.match-host = false` where another gate sends its challenges here"
        };
        Finding::new(format!("{} arrived {under}{also}", requests(self.misdirected.len())), cause)
    }

    fn answered_in_vain(&self) -> Finding {
        let networks = self.networks();
        let is_connection = matches!(self.failure.kind.as_str(), "connection" | "tls");
        match self.vantage_points {
            Some(expected) if networks < expected => {
                let seen = format!(
                    "{networks} of about {expected} vantage points arrived here and got the right answer"
                );
                if is_connection {
                    let remedy = "some networks are blocked on the way (a geo filter, or a list of bad addresses?): let everyone reach port 80 while an order is pending";
                    Finding::new(seen, remedy)
                } else {
                    let remedy = "other networks are answered by something else (a geo filter, a content network, or a second address of that name?): all must reach this gate";
                    Finding::new(seen, remedy)
                }
            }
            _ if is_connection => Finding::new(
                format!("{}, and the CA still saw no answer", self.tally()),
                "other networks may be blocked on the way (a geo filter?), or answers do not find the way back: look at firewalls that track connections, and at routes that differ from the way in",
            ),
            _ => Finding::new(
                format!(
                    "{}, and the CA still refuses, so something in between changes the answer",
                    self.tally()
                ),
                "no proxy or filter in front may rewrite, compress or cache what comes from /.well-known/acme-challenge/",
            ),
        }
    }

    /// From how many networks requests came and were answered. Behind a device that puts its own address
    /// in the place of theirs, each request counts.
    fn networks(&self) -> usize {
        if self.answered.iter().any(|arrival| is_local(arrival.client)) {
            return self.answered.len();
        }
        self.answered.iter().map(|arrival| arrival.client).collect::<BTreeSet<_>>().len()
    }

    fn tally(&self) -> String {
        match (self.answered.len(), self.came.len()) {
            (0, 0) => NOBODY.to_owned(),
            (0, came) => format!("{} arrived here and {} not answered", requests(came), were(came)),
            (answered, _) => {
                format!("{} arrived here and got the right answer", requests(answered))
            }
        }
    }
}

fn requests(count: usize) -> String {
    format!("{count} request{}", if count == 1 { "" } else { "s" })
}

fn were(count: usize) -> &'static str {
    if count == 1 { "was" } else { "were" }
}

/// No address of a CA's: of this machine, or of a network that ends here.
fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => {
            let is_shared = ip.octets()[0] == 100 && (64..128).contains(&ip.octets()[1]);
            ip.is_loopback() || ip.is_private() || ip.is_link_local() || is_shared
        }
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests;
