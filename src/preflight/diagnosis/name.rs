//! What name servers say of a name, judged. Pure.

use std::net::IpAddr;

use super::{Asker, Cause, Certainty, Finding};
use crate::hostname::{Hostname, Identifier};
use crate::preflight::caa::{self, Verdict};
use crate::preflight::evidence::{CaaRecord, CaaWord, Dns, DnsFailure, Flaw, Records, Signatures};
use crate::words::printable;

/// Records of one name that are told.
const SHOWN: usize = 4;

/// What stands against the name itself.
pub(super) fn of_dns(identifier: &Identifier, dns: &Dns, issuers: &[Asker<'_>]) -> Vec<Finding> {
    let has_address = matches!(dns.a, Records::Found(_)) || matches!(dns.aaaa, Records::Found(_));
    let mut findings = Vec::new();
    let make = |verdict: Verdicted, issuer: Option<&str>| Finding {
        identifier: identifier.clone(),
        address: None,
        issuer: issuer.map(str::to_owned),
        cause: verdict.cause,
        certainty: verdict.certainty,
        seen: verdict.seen,
        means: verdict.means,
        remedy: verdict.remedy,
    };
    if has_address {
        findings.extend(half(identifier, dns).map(|verdict| make(verdict, None)));
        match &dns.caa {
            Records::Found(records) => {
                for issuer in issuers {
                    let verdict = caa(identifier, dns, records, issuer);
                    findings.extend(verdict.map(|verdict| make(verdict, Some(issuer.name))));
                }
            }
            Records::Failed(failure) => {
                let verdict = of_failure(identifier, "CAA", failure);
                let means = format!("{}; without an answer about CAA no CA may issue", verdict.means);
                findings.push(make(Verdicted { means, ..verdict }, None));
            }
            Records::Empty { .. } | Records::NoName { .. } => {}
        }
    } else {
        findings.push(make(nothing(identifier, dns), None));
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
        issuer: None,
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
        DnsFailure::Bogus { own, says } => bogus(identifier, kind, *own, &said(says)),
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

/// The resolver has checked signatures, and there is an answer without that check.
fn bogus(identifier: &Identifier, kind: &str, own: Signatures, said: &str) -> Verdicted {
    let seen = format!("{kind} of {identifier} is there, and its DNSSEC signatures do not validate{said}");
    let alone = |own: &str| {
        Verdicted {
            cause: Cause::DnssecBogus,
            certainty: Certainty::Warning,
            seen: format!("{seen}, one resolver says; the zone's own servers {own}"),
            means: "if they are wrong, the CA gets no answer and fails; a wrong clock or an old trust anchor at this machine's resolver, or a server before it that drops signatures, looks the same".to_owned(),
            remedy: "have the zone looked at (DNSSEC analysers on the web show what is wrong), and where it is well, the resolver: its clock, its trust anchor, its forwarders".to_owned(),
        }
    };
    let flaw = match own {
        Signatures::Flawed(flaw) => flaw,
        Signatures::Unheard => return alone("were not heard"),
        Signatures::Unexplained => return alone("show nothing that would explain it"),
    };
    let date = |at| jiff::Timestamp::try_from(at).map_or_else(|_| "?".to_owned(), |at| at.to_string());
    let what = match flaw {
        Flaw::Unsigned => "the zone above announces a key (DS), and they send no signatures".to_owned(),
        Flaw::OtherKeys => "none of their keys is the one that the zone above announces (DS)".to_owned(),
        Flaw::Expired(at) => format!("their signatures ran out at {}", date(at)),
        Flaw::NotYet(at) => format!("their signatures do not count before {}", date(at)),
    };
    Verdicted {
        cause: Cause::DnssecBogus,
        certainty: Certainty::Certain,
        seen: format!("{seen}, and the zone's own servers show why: {what}"),
        means: "a resolver that checks signatures, as every CA's does, gives no answer".to_owned(),
        remedy: "sign the zone anew, or have the registrar remove or replace the DS record (DNSSEC analysers on the web show which key is missing)".to_owned(),
    }
}

/// What CAA records mean for one issuer: what a resolver says of them, beside what the zones' own servers say.
fn caa(identifier: &Identifier, dns: &Dns, records: &[CaaRecord], issuer: &Asker<'_>) -> Option<Verdicted> {
    let Identifier::Dns(name) = identifier else { return None };
    let at = dns.caa_at.as_ref().unwrap_or(name);
    let (heard, who) = (shown(at, records), issuer.name);
    let (own, own_says) = match &dns.caa_word {
        CaaWord::Found { records, at } => (Some((caa::decide(records, &issuer.caa), at)), shown(at, records)),
        CaaWord::Nothing => (None, "there are no such records".to_owned()),
        CaaWord::NotAsked | CaaWord::Unheard => (None, String::new()),
    };
    let both = match own_says.as_str() {
        "" => heard.clone(),
        own if own == heard => heard.clone(),
        own => format!("a resolver says: {heard}; the zone's own servers say: {own}"),
    };
    let uncertain = |seen, means, remedy| {
        Some(Verdicted { cause: Cause::CaaUncertain, certainty: Certainty::Warning, seen, means, remedy })
    };
    let contradicted = || {
        uncertain(
            both.clone(),
            format!("the one forbids {who} to issue for the name and the other does not; the CA asks afresh and may hear either"),
            "where the records were changed lately, the old answer is gone when its time to live is over; else see that all of the zone's servers say the same".to_owned(),
        )
    };
    match (caa::decide(records, &issuer.caa), own) {
        (Verdict::Allowed, Some((Verdict::Forbidden { .. }, _))) => contradicted(),
        (Verdict::Allowed, _) => None,
        (Verdict::Forbidden { .. }, Some((Verdict::Forbidden { reason }, at))) => Some(Verdicted {
            cause: Cause::CaaForbidden,
            certainty: Certainty::Certain,
            seen: format!("{own_says}, the zone's own servers say"),
            means: format!("CAA records say who may issue for the name, and {who} may not"),
            remedy: reason.explain(at, &issuer.caa),
        }),
        (Verdict::Forbidden { .. }, Some((Verdict::Allowed, _))) => contradicted(),
        (Verdict::Forbidden { .. }, None) if dns.caa_word == CaaWord::Nothing => contradicted(),
        (Verdict::Forbidden { reason }, None) => uncertain(
            format!("a resolver says: {heard}; the zone's own servers were not heard"),
            format!("if that is so, {who} may not issue for the name"),
            reason.explain(at, &issuer.caa),
        ),
        (Verdict::Unknown, _) | (_, Some((Verdict::Unknown, _))) => uncertain(
            both,
            format!(
                "whether {who} is meant is not known: its directory does not say its name, or the account is not there yet"
            ),
            "compare the records with what the CA's documentation gives as its name for CAA".to_owned(),
        ),
    }
}

/// Records as a zone file has them.
fn shown(at: &Hostname, records: &[CaaRecord]) -> String {
    let text = |record: &CaaRecord| {
        let flags = if record.critical { 128 } else { 0 };
        format!("{flags} {} \"{}\"", printable(&record.tag, 20), printable(&record.value, 80))
    };
    // Name servers send them in any order.
    let mut shown: Vec<_> = records.iter().map(text).collect();
    shown.sort();
    let more = if shown.len() > SHOWN { ", …" } else { "" };
    shown.truncate(SHOWN);
    format!("CAA of {at}: {}{more}", shown.join(", "))
}
