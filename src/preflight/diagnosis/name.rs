//! What name servers say of a name, judged. Pure.

use std::net::IpAddr;

use super::{Cause, Certainty, Finding};
use crate::hostname::Identifier;
use crate::preflight::caa::{self, Question, Verdict};
use crate::preflight::evidence::{Dns, DnsFailure, Records};
use crate::words::printable;

/// What stands against the name itself.
pub(super) fn of_dns(identifier: &Identifier, dns: &Dns, question: &Question<'_>) -> Vec<Finding> {
    let has_address = matches!(dns.a, Records::Found(_)) || matches!(dns.aaaa, Records::Found(_));
    let mut findings = Vec::new();
    let make = |verdict: Verdicted| Finding {
        identifier: identifier.clone(),
        address: None,
        cause: verdict.cause,
        certainty: verdict.certainty,
        seen: verdict.seen,
        means: verdict.means,
        remedy: verdict.remedy,
    };
    if has_address {
        findings.extend(half(identifier, dns).map(make));
        findings.extend(caa(identifier, dns, question).map(make));
    } else {
        findings.push(make(nothing(identifier, dns)));
    }
    findings
}

/// An address that a CA out there does not reach.
pub(super) fn private(identifier: &Identifier, address: IpAddr) -> Finding {
    // An identifier that is such an address itself leaves no doubt; a name may have another one outside.
    let is_itself = *identifier == Identifier::Ip(address);
    let (certainty, seen) = if is_itself {
        (Certainty::Certain, format!("{address} is an address of a private network or of one machine"))
    } else {
        (
            Certainty::Warning,
            format!("the DNS says {address}, an address of a private network or of one machine"),
        )
    };
    Finding {
        identifier: identifier.clone(),
        address: Some(address),
        cause: Cause::PrivateAddress,
        certainty,
        seen,
        means: "a public CA cannot reach it; where name servers tell the inside another address than the outside, it asks another one".to_owned(),
        remedy: "publish the public address in the DNS; where the outside has it already, let `acme.resolvers` name a server that says what the outside hears".to_owned(),
    }
}

struct Verdicted {
    cause: Cause,
    certainty: Certainty,
    seen: String,
    means: String,
    remedy: String,
}

/// One kind of address was found, and asking for the other failed: the CA goes on with what it has.
fn half(identifier: &Identifier, dns: &Dns) -> Option<Verdicted> {
    let (kind, failure) = match (&dns.a, &dns.aaaa) {
        (Records::Failed(failure), _) => ("A (IPv4)", failure),
        (_, Records::Failed(failure)) => ("AAAA (IPv6)", failure),
        _ => return None,
    };
    let verdict = of_failure(identifier, kind, failure);
    Some(Verdicted { certainty: Certainty::Warning, ..verdict })
}

fn nothing(identifier: &Identifier, dns: &Dns) -> Verdicted {
    let verdict = match (&dns.a, &dns.aaaa) {
        (Records::Failed(failure), _) => of_failure(identifier, "A (IPv4)", failure),
        (_, Records::Failed(failure)) => of_failure(identifier, "AAAA (IPv6)", failure),
        (Records::NoName { confirmed }, _) | (_, Records::NoName { confirmed }) => Verdicted {
            cause: Cause::NoName,
            certainty: if *confirmed { Certainty::Certain } else { Certainty::Warning },
            seen: format!(
                "name servers say that {identifier} does not exist (NXDOMAIN){}",
                source(*confirmed)
            ),
            means: "the CA finds no address to come to".to_owned(),
            remedy: format!(
                "is it spelt right? add an A or AAAA record for {identifier}, or take the name out of the certificate"
            ),
        },
        (a, aaaa) => {
            let confirmed = is_confirmed_empty(a) && is_confirmed_empty(aaaa);
            Verdicted {
                cause: Cause::NoAddress,
                certainty: if confirmed { Certainty::Certain } else { Certainty::Warning },
                seen: format!(
                    "{identifier} exists and has neither an A nor an AAAA record{}",
                    source(confirmed)
                ),
                means: "the CA finds no address to come to".to_owned(),
                remedy: format!(
                    "add an A or AAAA record for {identifier}, or take the name out of the certificate"
                ),
            }
        }
    };
    if !dns.in_hosts_file {
        return verdict;
    }
    Verdicted {
        certainty: verdict.certainty.min(Certainty::Warning),
        means: format!(
            "{}; this machine finds the name in its hosts file, which a public CA does not read",
            verdict.means
        ),
        ..verdict
    }
}

fn is_confirmed_empty<T>(records: &Records<T>) -> bool {
    matches!(records, Records::Empty { confirmed: true })
}

fn source(confirmed: bool) -> &'static str {
    if confirmed { ", the zone's own servers too" } else { "; the zone's own servers were not heard" }
}

fn of_failure(identifier: &Identifier, kind: &str, failure: &DnsFailure) -> Verdicted {
    let said = |says: &Option<String>| match says {
        Some(words) => format!(" (\"{}\")", printable(words, 160)),
        None => String::new(),
    };
    let unanswered = |seen: String| {
        Verdicted {
        cause: Cause::DnsUnanswered,
        certainty: Certainty::Warning,
        seen,
        means: "what the CA would hear is not known".to_owned(),
        remedy: "see whether this machine's name servers work (`/etc/resolv.conf`), or name others in `acme.resolvers`".to_owned(),
    }
    };
    match failure {
        DnsFailure::ServFail { confirmed, says } => Verdicted {
            cause: Cause::DnsServfail,
            certainty: if *confirmed { Certainty::Certain } else { Certainty::Warning },
            seen: format!("the question for {kind} of {identifier} ends in SERVFAIL{}{}", said(says), source(*confirmed)),
            means: "the CA takes no answer for an answer and fails".to_owned(),
            remedy: "have the zone's name servers repaired: are all of them up, do they know the zone, has a secondary lost it".to_owned(),
        },
        DnsFailure::Bogus { says } => Verdicted {
            cause: Cause::DnssecBogus,
            certainty: Certainty::Certain,
            seen: format!("{kind} of {identifier} is there, and its DNSSEC signatures do not validate{}", said(says)),
            means: "a resolver that checks signatures, as every CA's does, gives no answer".to_owned(),
            remedy: "sign the zone anew, or have the registrar remove or replace the DS record (DNSSEC analysers on the web show which key is missing); a wrong clock at this machine's resolver looks the same".to_owned(),
        },
        DnsFailure::Refused => {
            unanswered(format!("the name server refuses to be asked for {kind} of {identifier} (REFUSED)"))
        }
        DnsFailure::Silent => {
            unanswered(format!("no name server answered in time when asked for {kind} of {identifier}"))
        }
        DnsFailure::Unusable(reason) => {
            unanswered(format!("no usable answer for {kind} of {identifier}: {}", printable(reason, 200)))
        }
    }
}

fn caa(identifier: &Identifier, dns: &Dns, question: &Question<'_>) -> Option<Verdicted> {
    let records = match &dns.caa {
        Records::Found(records) => records,
        Records::Empty { .. } | Records::NoName { .. } => return None,
        Records::Failed(failure) => {
            let verdict = of_failure(identifier, "CAA", failure);
            let means = format!("{}; without an answer about CAA no CA may issue", verdict.means);
            return Some(Verdicted { means, ..verdict });
        }
    };
    let Identifier::Dns(name) = identifier else { return None };
    let at = dns.caa_at.as_ref().unwrap_or(name);
    let shown: Vec<_> = records
        .iter()
        .take(4)
        .map(|r| {
            format!(
                "{} {} \"{}\"",
                if r.critical { 128 } else { 0 },
                printable(&r.tag, 20),
                printable(&r.value, 80)
            )
        })
        .collect();
    let seen = format!("CAA of {at}: {}{}", shown.join(", "), if records.len() > 4 { ", …" } else { "" });
    match caa::decide(records, question) {
        Verdict::Allowed => None,
        Verdict::Forbidden { reason } => Some(Verdicted {
            cause: Cause::CaaForbidden,
            certainty: Certainty::Certain,
            seen,
            means: "CAA records say who may issue for the name, and this CA may not".to_owned(),
            remedy: reason.explain(at, question),
        }),
        Verdict::Unknown => Some(Verdicted {
            cause: Cause::CaaUncertain,
            certainty: Certainty::Warning,
            seen,
            means: "whether this CA is meant is not known: its directory does not say its name, or the account is not there yet".to_owned(),
            remedy: "compare the records with what the CA's documentation gives as its name for CAA".to_owned(),
        }),
    }
}
