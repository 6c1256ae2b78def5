//! The token map: which key authorization answers which token, and for which hosts.
//!
//! One of the two objects that threads share: the ACME engine writes, the gate reads without a lock.
//! A challenge is put under a guard that withdraws it on every way out.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;

use crate::hostname::Identifier;

/// A challenge token: base64url characters only, at most 128 of them (RFC 8555 section 8.3 asks for
/// 128 bits of entropy; CAs send 22 to 43 characters).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Token(String);

/// The text is not a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a challenge token: 1 to {max} characters of A-Z a-z 0-9 _ - (RFC 8555 section 8.3)", max = Token::MAX)]
pub struct TokenError;

impl Token {
    /// The longest token accepted, in characters.
    pub const MAX: usize = 128;

    /// The token's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the bytes are in the alphabet and of a possible length.
    pub fn is_valid(bytes: &[u8]) -> bool {
        (1..=Self::MAX).contains(&bytes.len())
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        if Self::is_valid(text.as_bytes()) { Ok(Self(text.to_owned())) } else { Err(TokenError) }
    }
}

impl std::borrow::Borrow<str> for Token {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// One pending challenge.
#[derive(Clone)]
pub struct Pending {
    /// `token "." base64url(SHA-256 thumbprint)`, the exact bytes of the answer (RFC 8555 section 8.1).
    pub key_authorization: Bytes,
    /// The identifiers of the order that this challenge belongs to; only for them it is answered.
    pub hosts: Arc<BTreeSet<Identifier>>,
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

/// The map that the gate answers from. Clones share one map; readers never wait.
#[derive(Clone, Default, Debug)]
pub struct ChallengeTable {
    entries: Arc<ArcSwap<HashMap<Token, Pending>>>,
}

impl ChallengeTable {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// The pending challenge of that token, whatever the host.
    pub fn find(&self, token: &str) -> Option<Pending> {
        self.entries.load().get(token).cloned()
    }

    /// Whether no challenge is pending.
    pub fn is_empty(&self) -> bool {
        self.entries.load().is_empty()
    }

    /// Publishes a challenge until the guard is dropped.
    #[must_use = "the challenge is withdrawn when the guard is dropped"]
    pub fn put(&self, token: Token, pending: Pending) -> ChallengeGuard {
        self.entries.rcu(|entries| {
            let mut entries = HashMap::clone(entries);
            entries.insert(token.clone(), pending.clone());
            entries
        });
        ChallengeGuard { table: self.clone(), token, hosts: pending.hosts }
    }
}

/// Withdraws its challenge when dropped, unless another order has put the same token since: a CA may give
/// one pending authorization to two orders.
#[derive(Debug)]
pub struct ChallengeGuard {
    table: ChallengeTable,
    token: Token,
    hosts: Arc<BTreeSet<Identifier>>,
}

impl Drop for ChallengeGuard {
    fn drop(&mut self) {
        self.table.entries.rcu(|entries| {
            let mut entries = HashMap::clone(entries);
            if entries.get(&self.token).is_some_and(|p| Arc::ptr_eq(&p.hosts, &self.hosts)) {
                entries.remove(&self.token);
            }
            entries
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_withdraws_its_own_token_only() {
        let table = ChallengeTable::new();
        let pending =
            |text: &str| Pending { key_authorization: Bytes::from(text.to_owned()), hosts: Arc::default() };
        let first = table.put("aaa".parse().unwrap(), pending("aaa.x"));
        let second = table.put("bbb".parse().unwrap(), pending("bbb.x"));
        drop(first);
        assert!(table.find("aaa").is_none());
        assert_eq!(table.find("bbb").unwrap().key_authorization, "bbb.x");
        drop(second);
        assert!(table.is_empty());
    }

    #[test]
    fn a_token_that_two_orders_share_outlives_the_first() {
        let table = ChallengeTable::new();
        let pending = || Pending { key_authorization: Bytes::from_static(b"t.x"), hosts: Arc::default() };
        let first = table.put("t".parse().unwrap(), pending());
        let second = table.put("t".parse().unwrap(), pending());
        drop(first);
        assert!(table.find("t").is_some());
        drop(second);
        assert!(table.is_empty());
    }

    #[test]
    fn tokens_outside_the_alphabet_are_refused() {
        for text in ["", "a.b", "a/b", "a b", "ä", "a%41", &"a".repeat(129)] {
            assert_eq!(text.parse::<Token>(), Err(TokenError), "{text}");
        }
        assert!("evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA".parse::<Token>().is_ok());
    }

    #[test]
    fn debug_output_keeps_the_answer_secret() {
        let pending = Pending { key_authorization: Bytes::from_static(b"tok.secret"), hosts: Arc::default() };
        assert!(!format!("{pending:?}").contains("secret"));
    }
}
