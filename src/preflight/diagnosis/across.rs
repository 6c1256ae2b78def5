//! What several addresses of one name mean together. Pure.
//!
//! A CA takes one address: IPv6 where there is any, and IPv4 in its place only after an attempt to connect
//! that timed out. Of several it takes any, from each of its networks another one.

use std::net::IpAddr;

use super::{Cause, Certainty, Finding, Subject};
use crate::hostname::Identifier;

/// Adjusts findings about single addresses to each other, and adds those about all of them.
pub(super) fn settle(findings: &mut Vec<Finding>, identifier: &Identifier) {
    let v6 = Family::of(findings, IpAddr::is_ipv6);
    if v6.is_sound() {
        for finding in findings.iter_mut().filter(|f| is_judged(f) && !works(f)) {
            if finding.certainty == Certainty::Certain {
                finding.certainty = Certainty::Warning;
                finding
                    .means
                    .push_str("; the CA takes IPv6, which works, and does not come to this address now");
            }
        }
    }
    let v4 = Family::of(findings, IpAddr::is_ipv4);
    for (family, kind) in [(&v6, "IPv6"), (&v4, "IPv4")] {
        if family.working > 0 && family.failing > 0 {
            findings.push(some(identifier, family, kind));
        }
    }
    if v6.failing > 0 && v6.working == 0 && v4.working > 0 {
        findings.push(ipv6_broken(identifier, &v6));
    }
}

/// The finding that not all addresses were looked at.
pub(super) fn left_out(subject: &Subject<'_>) -> Finding {
    Finding {
        identifier: subject.identifier.clone(),
        address: None,
        issuer: None,
        cause: Cause::TooManyAddresses,
        certainty: Certainty::Warning,
        seen: format!(
            "{} has {} addresses; {} of them were not looked at",
            subject.identifier,
            subject.sightings.len() + subject.left_out,
            subject.left_out
        ),
        means: "the CA may take one of them".to_owned(),
        remedy: "make sure that all of them pass challenges on to the gate".to_owned(),
    }
}

/// The addresses of one family.
struct Family {
    working: usize,
    failing: usize,
    /// The worst of those that fail.
    worst: Certainty,
    /// The CA finds no connection at all at those that fail.
    unreachable: bool,
    /// Those that fail, in words.
    names: Vec<String>,
}

impl Family {
    fn of(findings: &[Finding], is_member: impl Fn(&IpAddr) -> bool) -> Self {
        let members: Vec<_> =
            findings.iter().filter(|f| is_judged(f) && f.address.as_ref().is_some_and(&is_member)).collect();
        let failing: Vec<_> = members.iter().filter(|f| !works(f)).collect();
        Self {
            working: members.len() - failing.len(),
            failing: failing.len(),
            worst: failing.iter().map(|f| f.certainty).max().unwrap_or(Certainty::Fine),
            unreachable: failing.iter().all(|f| matches!(f.cause, Cause::TimedOut | Cause::NoRoute)),
            names: failing.iter().filter_map(|f| f.address).map(|a| a.to_string()).take(4).collect(),
        }
    }

    fn is_sound(&self) -> bool {
        self.working > 0 && self.failing == 0
    }
}

/// Whether a finding is the judgement of an address, and not a remark about it.
fn is_judged(finding: &Finding) -> bool {
    finding.address.is_some() && finding.cause != Cause::PrivateAddress
}

fn works(finding: &Finding) -> bool {
    matches!(finding.cause, Cause::Answered | Cause::TrailingWhitespace | Cause::RedirectToAddress)
}

fn some(identifier: &Identifier, family: &Family, kind: &str) -> Finding {
    Finding {
        identifier: identifier.clone(),
        address: None,
        issuer: None,
        cause: Cause::SomeAddressesWrong,
        certainty: family.worst,
        seen: format!(
            "{} of {} {kind} addresses fail ({})",
            family.failing,
            family.failing + family.working,
            family.names.join(", ")
        ),
        means: "the CA takes one of them, from each of its networks perhaps another one, and all must agree"
            .to_owned(),
        remedy: "repair those addresses, remove them from the DNS, or have all machines pass `/.well-known/acme-challenge/` on to one gate".to_owned(),
    }
}

fn ipv6_broken(identifier: &Identifier, v6: &Family) -> Finding {
    let (means, certainty) = if v6.unreachable {
        (
            "the CA tries IPv6 first; where that attempt times out for it too, it goes on with IPv4, more slowly",
            Certainty::Warning,
        )
    } else {
        (
            "the CA takes IPv6 where there is an AAAA record, and after a wrong answer it does not try IPv4",
            v6.worst,
        )
    };
    Finding {
        identifier: identifier.clone(),
        address: None,
        issuer: None,
        cause: Cause::Ipv6Broken,
        certainty,
        seen: format!("IPv6 fails ({}) where IPv4 works", v6.names.join(", ")),
        means: means.to_owned(),
        remedy: "have the gate answer on IPv6 as well (`gate.listen = [\"[::]:80\"]`), correct the AAAA record, or remove it".to_owned(),
    }
}
