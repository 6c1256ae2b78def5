//! The CAA records in force for a name: those of the name itself, or of the nearest name above it that has
//! any (RFC 8659 section 3).
//!
//! Records that forbid an order are believed when the zones' own servers say the same, climbing as a CA does:
//! a resolver may hold records that were replaced since, and none of a name below that has some by now.

use std::collections::VecDeque;

use hickory_proto::rr::rdata::CAA;
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::time::Instant;

use super::authority::{Authority, Word};
use super::exchange::first;
use super::lookup::{End, Ended, Lookup};
use crate::hostname::Hostname;
use crate::preflight::evidence::{CaaRecord, CaaWord, DnsFailure};

/// Names asked about at once; few have more.
const AT_ONCE: usize = 8;

/// What climbing found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Climbed {
    /// Records in force.
    Found {
        /// The records.
        records: Vec<CaaRecord>,
        /// The name whose they are.
        at: Hostname,
        /// The zones' own servers said so, up to this name.
        authoritative: bool,
    },
    /// None up to the top.
    Nothing,
    /// A CA would stop here: there might be records that it cannot see.
    Failed {
        /// The name whose records cannot be had; aliases followed.
        at: Name,
        /// Why not.
        failure: DnsFailure,
    },
}

/// Climbs from the name up to the label below the root.
pub(super) async fn climb(lookup: &Lookup, name: &Hostname, until: Instant) -> Climbed {
    let mut steps: VecDeque<Hostname> = steps(name).collect();
    let mut authoritative = true;
    while !steps.is_empty() {
        let now: Vec<Hostname> = steps.drain(..AT_ONCE.min(steps.len())).collect();
        let ask = |step: &Hostname| {
            let (lookup, step) = (lookup.clone(), super::absolute(step));
            async move { lookup.ask(step, RecordType::CAA, until).await }
        };
        let questions = now.iter().map(ask).collect();
        let decisive = |ended: &Ended| {
            authoritative &= is_authoritative(&ended.with);
            matches!(ended.with, End::Found { .. } | End::Failed(_))
        };
        match first(questions, decisive).await {
            Some((index, Ended { with: End::Found { records, .. }, .. })) => {
                let records = records.iter().filter_map(record).collect();
                return Climbed::Found { records, at: now[index].clone(), authoritative };
            }
            Some((_, Ended { with: End::Failed(failure), at })) => return Climbed::Failed { at, failure },
            _ => {}
        }
    }
    Climbed::Nothing
}

/// What the zones' own servers say, from the name up to the one that a resolver has found records at.
pub(super) async fn climb_at_zones(
    authority: &Authority,
    name: &Hostname,
    top: &Hostname,
    until: Instant,
) -> CaaWord {
    let mut steps: Vec<Hostname> = steps(name).collect();
    steps.truncate(steps.iter().position(|step| step == top).map_or(1, |height| height + 1));
    if steps.len() > AT_ONCE {
        return CaaWord::Unheard;
    }
    let ask = |step: &Hostname| {
        let (authority, step) = (authority.clone(), super::absolute(step));
        async move { authority.ask_one(&step, RecordType::CAA, until).await }
    };
    let questions = steps.iter().map(ask).collect();
    match first(questions, |word: &Word| !matches!(word, Word::NoData | Word::NoName)).await {
        Some((index, Word::Found(records))) => {
            CaaWord::Found { records: records.iter().filter_map(record).collect(), at: steps[index].clone() }
        }
        Some(_) => CaaWord::Unheard,
        None => CaaWord::Nothing,
    }
}

fn is_authoritative(end: &End) -> bool {
    match end {
        End::Found { authoritative, .. } | End::NoData { authoritative } | End::NoName { authoritative } => {
            *authoritative
        }
        End::Failed(_) => false,
    }
}

/// The name and those above it, without the root.
fn steps(name: &Hostname) -> impl Iterator<Item = Hostname> {
    let text = name.as_str();
    let starts = std::iter::once(0).chain(text.match_indices('.').map(|(at, _)| at + 1));
    starts.filter_map(|start| Hostname::parse_any(&text[start..]).ok())
}

fn record(data: &RData) -> Option<CaaRecord> {
    let RData::CAA(CAA { issuer_critical, reserved_flags, tag, value, .. }) = data else { return None };
    Some(CaaRecord {
        // Many mistook the flag for 1, and Let's Encrypt takes it for what they meant.
        critical: *issuer_critical || reserved_flags & 1 == 1,
        tag: tag.to_ascii_lowercase(),
        value: String::from_utf8_lossy(value).into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_go_up_to_the_label_below_the_root() {
        let name = "www.Shop.example.net".parse().unwrap();
        let seen: Vec<String> = steps(&name).map(String::from).collect();
        assert_eq!(seen, ["www.shop.example.net", "shop.example.net", "example.net", "net"]);
        assert_eq!(steps(&Hostname::parse_any("localhost").unwrap()).count(), 1);
    }

    #[test]
    fn records_as_they_stand() {
        let mut caa = CAA::new_issue(false, None, vec![]);
        caa.tag = "IssueWild".into();
        caa.value = b"ca.example\xff\x1b".to_vec();
        for (flags, critical) in
            [((false, 0), false), ((true, 0), true), ((false, 1), true), ((false, 2), false)]
        {
            (caa.issuer_critical, caa.reserved_flags) = flags;
            assert_eq!(
                record(&RData::CAA(caa.clone())).unwrap(),
                CaaRecord { critical, tag: "issuewild".into(), value: "ca.example\u{fffd}\u{1b}".into() }
            );
        }
    }
}
