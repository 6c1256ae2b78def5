//! What the embedded CA counts, so that a test can tell what a client has asked of it.

use std::collections::BTreeMap;

use crate::hostname::Identifier;

/// What happened since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// New accounts.
    pub accounts: u64,
    /// New orders that were taken.
    pub orders: u64,
    /// Those of them that named the certificate they replace.
    pub orders_with_replaces: u64,
    /// Requests for renewal information, whatever the answer.
    pub renewal_info_asks: u64,
    /// Validations that failed, by identifier.
    pub authorizations_failed: BTreeMap<Identifier, u64>,
    /// Certificates issued.
    pub certificates: u64,
    /// Certificates revoked.
    pub revocations: u64,
    /// Requests refused because of [`RateLimits`](super::RateLimits).
    pub limits_met: u64,
}
