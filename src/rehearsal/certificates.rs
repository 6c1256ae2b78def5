//! What the embedded CA remembers of the certificates that it issued: for renewal information,
//! replacements and revocations. Bounded in number, the oldest going first; pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::SystemTime;

use crate::hostname::Identifier;

use super::problem::{Problem, ProblemType};
use super::renewal::{CertificateId, Life};

/// A certificate that was issued.
#[derive(Debug, Clone)]
pub(super) struct Issued {
    pub(super) account: u64,
    pub(super) identifiers: BTreeSet<Identifier>,
    /// SHA-256 of its DER.
    pub(super) fingerprint: [u8; 32],
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
    pub(super) revoked: bool,
    pub(super) replacement: Replacement,
    /// How often its renewal information was asked for.
    pub(super) asks: u64,
}

/// Whether an order replaces a certificate (RFC 9773 section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Replacement {
    None,
    /// By that order, as long as it is not invalid.
    Ordered(u64),
    /// By another certificate.
    Done,
}

impl Issued {
    pub(super) fn life(&self) -> Life {
        Life { not_before: self.not_before, not_after: self.not_after, revoked: self.revoked }
    }
}

/// The certificates that are remembered.
#[derive(Debug)]
pub(super) struct Certificates {
    by_age: BTreeMap<u64, (CertificateId, Issued)>,
    ages: HashMap<CertificateId, u64>,
    next: u64,
    capacity: usize,
}

impl Certificates {
    pub(super) fn new(capacity: usize) -> Self {
        Self { by_age: BTreeMap::new(), ages: HashMap::new(), next: 0, capacity }
    }

    pub(super) fn add(&mut self, id: CertificateId, issued: Issued) {
        if self.by_age.len() >= self.capacity
            && let Some((_, (oldest, _))) = self.by_age.pop_first()
        {
            self.ages.remove(&oldest);
        }
        self.by_age.insert(self.next, (id, issued));
        self.ages.insert(id, self.next);
        self.next += 1;
    }

    pub(super) fn find(&self, id: &CertificateId) -> Option<&Issued> {
        self.by_age.get(self.ages.get(id)?).map(|(_, issued)| issued)
    }

    pub(super) fn find_mut(&mut self, id: &CertificateId) -> Option<&mut Issued> {
        self.by_age.get_mut(self.ages.get(id)?).map(|(_, issued)| issued)
    }

    /// The certificate whose DER has that SHA-256.
    pub(super) fn id_of(&self, fingerprint: &[u8; 32]) -> Option<CertificateId> {
        let found = self.by_age.values().find(|(_, issued)| &issued.fingerprint == fingerprint);
        found.map(|(id, _)| *id)
    }

    /// Whether that exact set of identifiers has had a certificate before.
    pub(super) fn has_set(&self, identifiers: &BTreeSet<Identifier>) -> bool {
        self.by_age.values().any(|(_, issued)| &issued.identifiers == identifiers)
    }

    /// Whether an order of that account may replace that certificate; `is_open` tells of an order whether
    /// it can still end well.
    pub(super) fn may_replace(
        &self,
        id: &CertificateId,
        account: u64,
        identifiers: &[Identifier],
        is_open: impl FnOnce(u64) -> bool,
    ) -> Result<(), Problem> {
        let issued = self.find(id).ok_or_else(|| Problem::not_found("certificate to replace"))?;
        if issued.account != account {
            return Err(Problem::new(
                ProblemType::Unauthorized,
                "the certificate to replace is another account's",
            ));
        }
        if !identifiers.iter().any(|identifier| issued.identifiers.contains(identifier)) {
            return Err(Problem::malformed("the certificate to replace has none of the order's identifiers"));
        }
        match issued.replacement {
            Replacement::Ordered(order) if !is_open(order) => Ok(()),
            Replacement::None => Ok(()),
            Replacement::Ordered(_) | Replacement::Done => Err(Problem::new(
                ProblemType::AlreadyReplaced,
                format!("the certificate {id} is replaced by another order"),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> CertificateId {
        CertificateId { issuer: [1; 20], serial: [number; 16] }
    }

    fn issued(account: u64, names: &[&str]) -> Issued {
        Issued {
            account,
            identifiers: names.iter().map(|name| name.parse().unwrap()).collect(),
            fingerprint: [0; 32],
            not_before: SystemTime::UNIX_EPOCH,
            not_after: SystemTime::UNIX_EPOCH,
            revoked: false,
            replacement: Replacement::None,
            asks: 0,
        }
    }

    #[test]
    fn the_oldest_goes_first() {
        let mut certificates = Certificates::new(2);
        for number in 0..3 {
            certificates.add(id(number), issued(1, &["a.example"]));
        }
        assert!(certificates.find(&id(0)).is_none());
        assert!(certificates.find(&id(1)).is_some() && certificates.find_mut(&id(2)).is_some());
        assert_eq!((certificates.by_age.len(), certificates.ages.len()), (2, 2));
    }

    #[test]
    fn a_replacement_is_of_the_same_account_and_shares_an_identifier() {
        let mut certificates = Certificates::new(9);
        certificates.add(id(1), issued(7, &["a.example", "b.example"]));
        for (replacement, open, account, name, expected) in [
            (Replacement::None, false, 7, "a.example", None),
            (Replacement::None, false, 8, "a.example", Some((ProblemType::Unauthorized, 403))),
            (Replacement::None, false, 7, "c.example", Some((ProblemType::Malformed, 400))),
            (Replacement::Ordered(3), false, 7, "b.example", None),
            (Replacement::Ordered(3), true, 7, "b.example", Some((ProblemType::AlreadyReplaced, 409))),
            (Replacement::Done, false, 7, "b.example", Some((ProblemType::AlreadyReplaced, 409))),
        ] {
            certificates.find_mut(&id(1)).unwrap().replacement = replacement;
            let verdict = certificates.may_replace(&id(1), account, &[name.parse().unwrap()], |_| open);
            let found = verdict.err().map(|problem| (problem.kind, problem.status.as_u16()));
            assert_eq!(found, expected, "{replacement:?} {open} {account} {name}");
        }
        let unknown = certificates.may_replace(&id(2), 7, &[], |_| false).unwrap_err();
        assert_eq!(unknown.status, 404);
    }

    #[test]
    fn a_set_is_the_same_in_any_order() {
        let mut certificates = Certificates::new(9);
        certificates.add(id(1), issued(7, &["a.example", "b.example"]));
        let set = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
        assert!(certificates.has_set(&set(&["b.example", "a.example"])));
        assert!(!certificates.has_set(&set(&["a.example"])));
    }
}
