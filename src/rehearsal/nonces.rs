//! Replay protection (RFC 8555 section 6.5): every nonce is good for one request, and only so many are
//! kept, the oldest going first.

use std::collections::{BTreeMap, HashMap};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

/// The nonces that were handed out and not used yet.
#[derive(Debug)]
pub(super) struct Nonces {
    by_age: BTreeMap<u64, String>,
    ages: HashMap<String, u64>,
    next: u64,
    capacity: usize,
}

impl Nonces {
    pub(super) fn new(capacity: usize) -> Self {
        Self { by_age: BTreeMap::new(), ages: HashMap::new(), next: 0, capacity }
    }

    /// Hands out a nonce made of those random bytes.
    pub(super) fn issue(&mut self, random: [u8; 16]) -> String {
        if self.by_age.len() >= self.capacity
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.ages.remove(&oldest);
        }
        let nonce = BASE64_URL_SAFE_NO_PAD.encode(random);
        self.by_age.insert(self.next, nonce.clone());
        self.ages.insert(nonce.clone(), self.next);
        self.next += 1;
        nonce
    }

    /// Whether the nonce was handed out and not used before; it is used now.
    pub(super) fn redeem(&mut self, nonce: &str) -> bool {
        match self.ages.remove(nonce) {
            Some(age) => self.by_age.remove(&age).is_some(),
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_good_once() {
        let mut nonces = Nonces::new(10);
        let nonce = nonces.issue([7; 16]);
        assert!(!nonces.redeem("never-issued"));
        assert!(nonces.redeem(&nonce));
        assert!(!nonces.redeem(&nonce));
    }

    #[test]
    fn the_oldest_goes_first() {
        let mut nonces = Nonces::new(2);
        let [a, b, c] = [1, 2, 3].map(|n| nonces.issue([n; 16]));
        assert!(!nonces.redeem(&a));
        assert!(nonces.redeem(&b));
        assert!(nonces.redeem(&c));
        assert!(nonces.by_age.is_empty() && nonces.ages.is_empty());
    }

    proptest::proptest! {
        #[test]
        fn never_more_than_its_capacity(steps in proptest::collection::vec((0u8..40, proptest::bool::ANY), 0..200)) {
            let mut nonces = Nonces::new(8);
            let mut issued = Vec::new();
            for (seed, issue) in steps {
                if issue {
                    // distinct, as random ones are
                    let mut random = [seed; 16];
                    random[..8].copy_from_slice(&nonces.next.to_be_bytes());
                    issued.push(nonces.issue(random));
                } else if let Some(nonce) = issued.get(usize::from(seed)) {
                    nonces.redeem(nonce);
                    proptest::prop_assert!(!nonces.redeem(nonce));
                }
                proptest::prop_assert!(nonces.by_age.len() <= 8);
                proptest::prop_assert_eq!(nonces.by_age.len(), nonces.ages.len());
            }
        }
    }
}
