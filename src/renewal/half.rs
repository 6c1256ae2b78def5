//! The half of a pair that an attempt has obtained before the other half failed: whether the next attempt can
//! do without ordering it again (pure).
//!
//! A CA signs few certificates for the same names in a week. Attempts that get half-way each time would use
//! them up within hours, and whoever has then mended the cause would have to wait for days.

use std::collections::BTreeSet;
use std::time::SystemTime;

use crate::config::CertificateRequest;
use crate::hostname::Identifier;
use crate::store::Half;

/// The share of its lifetime after which it is ordered anew: a pair ends with the half that ends first. It
/// is longer than the CAs take to let another one be ordered, so that a cause that is never mended does not
/// use up what they allow.
const FRESH: u32 = 3;

/// Whether what is kept serves an order of `issuer` for `identifiers`.
pub(super) fn serves(
    kept: &Half,
    request: &CertificateRequest,
    issuer: &str,
    identifiers: &[Identifier],
    now: SystemTime,
) -> bool {
    let set = |list: &[Identifier]| list.iter().cloned().collect::<BTreeSet<_>>();
    let (from, to) = (SystemTime::from(kept.not_before), SystemTime::from(kept.not_after));
    let is_fresh = to.duration_since(from).is_ok_and(|lifetime| now < from + lifetime / FRESH);
    is_fresh
        && kept.issuer == issuer
        && kept.profile == request.profile
        && request.key_types.contains(&kept.key_type)
        && set(&kept.ordered_for) == set(identifiers)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{ChallengeKind, KeyType, Partial};

    fn names(list: &[&str]) -> Vec<Identifier> {
        list.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn only_what_was_ordered_in_the_same_way_and_lately_is_of_use() {
        let from = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_438_800);
        let days = |n: u64| Duration::from_secs(n * 86_400);
        let kept = Half {
            issuer: "letsencrypt".to_owned(),
            key_type: KeyType::EcdsaP256,
            profile: None,
            ordered_for: names(&["a.test", "b.test"]),
            serial: "0a".to_owned(),
            not_before: from.try_into().unwrap(),
            not_after: (from + days(90)).try_into().unwrap(),
        };
        let request = CertificateRequest {
            name: "a.test".to_owned(),
            identifiers: names(&["a.test", "b.test"]),
            challenge: ChallengeKind::Http01,
            key_types: vec![KeyType::Rsa2048, KeyType::EcdsaP256],
            profile: None,
            partial: Partial::default(),
            deploy: Vec::new(),
        };
        let both = names(&["b.test", "a.test"]);
        let fits = |request: &CertificateRequest, issuer: &str, identifiers: &[Identifier], after: u64| {
            serves(&kept, request, issuer, identifiers, from + days(after))
        };
        assert!(fits(&request, "letsencrypt", &both, 0) && fits(&request, "letsencrypt", &both, 29));
        assert!(!fits(&request, "letsencrypt", &both, 30), "a pair ends with its first half");
        assert!(!fits(&request, "zerossl", &both, 1));
        assert!(!fits(&request, "letsencrypt", &names(&["a.test"]), 1));
        assert!(!fits(&request, "letsencrypt", &names(&["a.test", "b.test", "c.test"]), 1));
        let other = CertificateRequest { profile: Some("shortlived".to_owned()), ..request.clone() };
        assert!(!fits(&other, "letsencrypt", &both, 1));
        let other = CertificateRequest { key_types: vec![KeyType::EcdsaP384], ..request.clone() };
        assert!(!fits(&other, "letsencrypt", &both, 1));
        let alone = CertificateRequest { key_types: vec![KeyType::EcdsaP256], ..request };
        assert!(fits(&alone, "letsencrypt", &both, 1), "it is no half any more, but a whole");
        let nonsense = Half { not_after: (from - days(1)).try_into().unwrap(), ..kept };
        assert!(!serves(&nonsense, &alone, "letsencrypt", &both, from));
    }
}
