//! What is to be told of what servers show: pure, and without any knowledge of renewals.

use std::time::SystemTime;

use super::expiry::{self, Stage};
use crate::deploy::verify::{Inspection, Leaf};
use crate::hostname::Identifier;

/// What was found at one endpoint, the first name of each kind.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Found<'a> {
    /// An older certificate than the stored one, and who was asked for.
    pub(super) outdated: Option<(&'a Leaf, &'a Identifier)>,
    /// One that is not stored and nears its end, and who was asked for.
    pub(super) ending: Option<(Stage, &'a Leaf, &'a Identifier)>,
    /// Every name was answered with a certificate.
    pub(super) is_whole: bool,
}

/// Looks through what an endpoint showed; `stored` was read after that. `expiring_below` is between 0 and 1.
pub(super) fn found<'a>(
    seen: &'a [Inspection],
    stored: &[Leaf],
    expiring_below: f64,
    now: SystemTime,
) -> Found<'a> {
    let mut found = Found { is_whole: !seen.is_empty(), ..Found::default() };
    for inspection in seen {
        found.is_whole &= !inspection.sightings.is_empty();
        for leaf in inspection.sightings.iter().map(|sighting| &sighting.leaf) {
            if stored.iter().any(|one| one.serial == leaf.serial && one.issuer == leaf.issuer) {
                continue;
            }
            let is_older = |one: &Leaf| expiry::is_older(leaf.not_after, one.not_before, one.not_after);
            if found.outdated.is_none() && stored.iter().any(is_older) {
                found.outdated = Some((leaf, &inspection.identifier));
            }
            let stage = expiry::stage(leaf.not_before, leaf.not_after, expiring_below, now);
            if let Some(stage) = stage
                && found.ending.is_none_or(|(worst, ..)| worst < stage)
            {
                found.ending = Some((stage, leaf, &inspection.identifier));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::deploy::verify::Sighting;
    use crate::deploy::verify::chain::{Chain, Verdict};

    const DAY: Duration = Duration::from_secs(86_400);

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + DAY * 20_000
    }

    fn leaf(serial: &str, behind: u32, before: u32) -> Leaf {
        Leaf {
            names: vec!["a.example".to_owned()],
            serial: serial.to_owned(),
            subject: String::new(),
            issuer: "CN=ca".to_owned(),
            not_before: now() - DAY * behind,
            not_after: now() + DAY * before,
        }
    }

    fn seen(name: &str, leaves: &[Leaf]) -> Inspection {
        let sighting = |leaf: &Leaf| Sighting {
            address: ([127, 0, 0, 1], 443).into(),
            leaf: leaf.clone(),
            chain: Chain { verdict: Verdict::Trusted, warnings: Vec::new() },
            covers: true,
            is_expected: None,
        };
        Inspection {
            endpoint: "127.0.0.1:443".parse().unwrap(),
            identifier: name.parse().unwrap(),
            versions: Vec::new(),
            sightings: leaves.iter().map(sighting).collect(),
            faults: Vec::new(),
        }
    }

    fn told(seen: &[Inspection], stored: &[Leaf]) -> (Option<String>, Option<(Stage, String)>, bool) {
        let found = found(seen, stored, 0.25, now());
        (
            found.outdated.map(|(leaf, identifier)| format!("{} {identifier}", leaf.serial)),
            found.ending.map(|(stage, leaf, identifier)| (stage, format!("{} {identifier}", leaf.serial))),
            found.is_whole,
        )
    }

    #[test]
    fn what_servers_show_beside_what_is_stored() {
        let (new, old, ending) = (leaf("02", 0, 90), leaf("01", 45, 45), leaf("00", 85, 5));
        let stored = [new.clone()];
        assert_eq!(told(&[], &stored), (None, None, false));
        assert_eq!(told(&[seen("a.example", &stored)], &stored), (None, None, true));
        // Every name counts, and every certificate that is shown for it.
        let mixed = [seen("a.example", &stored), seen("b.example", &[new.clone(), old.clone()])];
        assert_eq!(told(&mixed, &stored), (Some("01 b.example".to_owned()), None, true));
        let both = [seen("a.example", std::slice::from_ref(&ending)), seen("b.example", &[])];
        let (outdated, nearing, whole) = told(&both, &stored);
        assert_eq!(outdated.unwrap(), "00 a.example");
        assert_eq!((nearing.unwrap(), whole), ((Stage::BelowTenth, "00 a.example".to_owned()), false));
        // What nears its end on disk is told of the disk; what is there alone is told all the same.
        assert_eq!(
            told(&[seen("a.example", std::slice::from_ref(&ending))], std::slice::from_ref(&ending)),
            (None, None, true)
        );
        assert_eq!(told(&[seen("a.example", &[ending])], &[]).1.unwrap().0, Stage::BelowTenth);
        // A newer one than the stored one, and the other half of a pair, are nobody's fault.
        assert_eq!(told(&[seen("a.example", &[leaf("03", 0, 91)])], &stored), (None, None, true));
    }
}
