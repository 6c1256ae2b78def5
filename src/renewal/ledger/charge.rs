//! What an attempt draws on, and what came of it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::limits::{Limit, Limits};
use super::{CLOCK_CORRECTION, LONGEST_ATTEMPT, distinct};
use crate::hostname::Identifier;
use crate::store::{BucketKey, BucketKind};

/// What is to be asked of a CA.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The issuer's name.
    pub issuer: &'a str,
    /// The account's name, the same for as long as the account is.
    pub account: &'a str,
    /// What the certificate is for.
    pub identifiers: &'a [Identifier],
    /// How many certificates for them are ordered, one after the other: 2 for a pair. All of them are
    /// allowed, or none.
    pub certificates: u32,
    /// An operator asks: the reserve may be used.
    pub force: bool,
    /// A certificate for the same set was obtained before: where the CA spares renewals, it escapes the
    /// limits on orders and domains.
    pub is_renewal: bool,
    /// The CA's renewal information suggests it and the order names what it replaces (RFC 9773): where the
    /// CA spares renewals, exempt from the limits on orders, sets and domains.
    pub by_renewal_information: bool,
    /// An account has to be made first.
    pub needs_account: bool,
}

/// An attempt that was begun; give it to [`Ledger::settle`](super::Ledger::settle) however it ends. One
/// that is dropped counts as the worst.
#[derive(Debug, PartialEq)]
#[must_use = "what is not settled counts as the worst"]
pub struct Charge {
    pub(super) id: u64,
    pub(super) keys: Vec<BucketKey>,
    pub(super) limits: Limits,
}

/// What came of an order; by default nothing did, and the CA was not asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Happened {
    /// Something of it may have reached the CA. Without this, nothing else counts.
    pub asked: bool,
    /// An order was made.
    pub ordered: bool,
    /// Whose authorizations failed, or may have: all that were not valid when the CA was last heard.
    pub failed: Vec<Identifier>,
    /// A certificate was issued.
    pub obtained: bool,
    /// An account was made.
    pub account_made: bool,
    /// The order named what it replaces, and the CA took it: not counted where it spares renewals.
    pub exempt: bool,
}

impl<'a> Ask<'a> {
    pub(super) fn for_identifiers(identifiers: &'a [Identifier]) -> Self {
        Self {
            issuer: "",
            account: "",
            identifiers,
            certificates: 1,
            force: false,
            is_renewal: false,
            by_renewal_information: false,
            needs_account: false,
        }
    }
}

impl Happened {
    pub(super) fn includes(&self, key: &BucketKey, limits: &Limits) -> bool {
        let is_exempt = self.exempt && limits.spare_renewals();
        self.asked
            && match key.bucket {
                BucketKind::Failures | BucketKind::Unattended | BucketKind::FailuresInARow => {
                    self.failed.iter().any(|identifier| identifier.to_string() == key.of)
                }
                BucketKind::Set | BucketKind::RegisteredDomain => self.obtained && !is_exempt,
                BucketKind::Orders => self.ordered && !is_exempt,
                BucketKind::Accounts => self.account_made,
            }
    }
}

/// A bucket that an attempt draws on.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) key: BucketKey,
    pub(super) limit: Limit,
    /// So many must be there.
    pub(super) needs: i64,
    /// So many are taken at worst. What is counted along with another bucket is not charged by itself.
    pub(super) charges: u32,
}

/// An attempt under way, or cut off.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pending {
    pub(super) begun_at: i64,
    pub(super) cut_off_at: Option<i64>,
    pub(super) charged: Vec<BucketKey>,
}

impl Pending {
    /// Nobody will settle it any more.
    pub(super) fn is_over(&self, now: i64) -> bool {
        let possible = self.begun_at - CLOCK_CORRECTION..self.begun_at + LONGEST_ATTEMPT;
        self.cut_off_at.is_some() || !possible.contains(&now)
    }

    /// How many it may take from that bucket.
    pub(super) fn charges(&self, key: &BucketKey) -> usize {
        let is_counted = |charged: &&BucketKey| {
            counted_in(charged.bucket).contains(&key.bucket)
                && (&charged.of, &charged.account, &charged.issuer) == (&key.of, &key.account, &key.issuer)
        };
        self.charged.iter().filter(is_counted).count()
    }
}

pub(super) fn is_of_failures(key: &BucketKey) -> bool {
    counted_in(BucketKind::Failures).contains(&key.bucket)
}

/// The buckets in which a thing is counted that is charged in the first of them.
pub(super) fn counted_in(charged: BucketKind) -> &'static [BucketKind] {
    match charged {
        BucketKind::Failures => &[BucketKind::Failures, BucketKind::FailuresInARow],
        BucketKind::Unattended => &[BucketKind::Unattended],
        BucketKind::FailuresInARow => &[BucketKind::FailuresInARow],
        BucketKind::Set => &[BucketKind::Set],
        BucketKind::RegisteredDomain => &[BucketKind::RegisteredDomain],
        BucketKind::Orders => &[BucketKind::Orders],
        BucketKind::Accounts => &[BucketKind::Accounts],
    }
}

/// Every bucket that an attempt draws on. An attempt ends with its first failure, so a name can fail once
/// in it, however many certificates are ordered.
pub(super) fn claims(ask: &Ask<'_>, limits: &Limits) -> Vec<Claim> {
    let mut claims = Vec::new();
    let mut claim = |key: BucketKey, needs: i64, charges: u32| {
        if let Some(limit) = limits.of_kind(key.bucket) {
            claims.push(Claim { key, limit, needs, charges });
        }
    };
    let identifiers = distinct(ask.identifiers);
    for identifier in &identifiers {
        let key = |kind| failures_key(ask, identifier, kind);
        let reserve = if ask.force { 0 } else { limits.reserve() };
        claim(key(BucketKind::Failures), 1 + reserve, 1);
        if !ask.force {
            // What the operator asks for is not counted here: an attempt that nobody asked for always finds
            // this bucket with room for it, and so is never lost in one that overflows.
            claim(key(BucketKind::Unattended), 1, 1);
        }
        let is_charged = limits.of_kind(BucketKind::Failures).is_none();
        claim(key(BucketKind::FailuresInARow), 1, u32::from(is_charged));
    }
    let of_issuer = |bucket, account: &str, of: String| BucketKey {
        issuer: ask.issuer.to_owned(),
        account: account.to_owned(),
        bucket,
        of,
    };
    // The CA may not accept what the order says it replaces: it is charged all the same.
    let is_exempt = ask.by_renewal_information && limits.spare_renewals();
    let needs = if is_exempt { 0 } else { i64::from(ask.certificates) };
    claim(of_issuer(BucketKind::Set, "", set(&identifiers)), needs, ask.certificates);
    if !(ask.is_renewal && limits.spare_renewals()) {
        claim(of_issuer(BucketKind::Orders, ask.account, String::new()), needs, ask.certificates);
        for domain in identifiers.iter().map(|i| registered_domain(i)).collect::<BTreeSet<_>>() {
            claim(of_issuer(BucketKind::RegisteredDomain, "", domain), needs, ask.certificates);
        }
    }
    if ask.needs_account {
        claim(of_issuer(BucketKind::Accounts, "", String::new()), 1, 1);
    }
    claims
}

pub(super) fn failures_key(ask: &Ask<'_>, identifier: &Identifier, bucket: BucketKind) -> BucketKey {
    BucketKey {
        issuer: ask.issuer.to_owned(),
        account: ask.account.to_owned(),
        bucket,
        of: identifier.to_string(),
    }
}

/// A name for a set of identifiers, however they are ordered: a list of a hundred would be long.
fn set(identifiers: &BTreeSet<&Identifier>) -> String {
    let mut digest = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for identifier in identifiers {
        digest.update(identifier.to_string().as_bytes());
        digest.update(b"\n");
    }
    let nibbles = digest.finish().as_ref().iter().flat_map(|byte| [byte >> 4, byte & 15]).collect::<Vec<_>>();
    nibbles.into_iter().map(|nibble| char::from(b"0123456789abcdef"[usize::from(nibble)])).collect()
}

/// What the CA counts a name under: its registered domain by the public suffix list, or itself where it is
/// a public suffix; an IPv4 address, or the /64 of an IPv6 address.
pub(super) fn registered_domain(identifier: &Identifier) -> String {
    match identifier {
        Identifier::Dns(name) => psl::domain_str(name.as_str()).unwrap_or(name.as_str()).to_owned(),
        Identifier::Ip(IpAddr::V4(ip)) => ip.to_string(),
        Identifier::Ip(IpAddr::V6(ip)) => {
            let [a, b, c, d, ..] = ip.segments();
            format!("{}/64", std::net::Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}
