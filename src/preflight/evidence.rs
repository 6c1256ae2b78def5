//! What was seen about a name, as plain values: the resolver and the probe make them, the diagnosis reads
//! them.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::SystemTime;

use crate::hostname::Hostname;

/// What the name servers said about a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    /// IPv4 addresses, CNAMEs followed.
    pub a: Records<Ipv4Addr>,
    /// IPv6 addresses, CNAMEs followed.
    pub aaaa: Records<Ipv6Addr>,
    /// The CAA records in force, with the name they were found at (RFC 8659 section 3).
    pub caa: Records<CaaRecord>,
    /// Where the CAA records were found by climbing the tree.
    pub caa_at: Option<Hostname>,
    /// What the zones' own servers say of these records.
    pub caa_word: CaaWord,
    /// The name stands in this machine's hosts file, which no CA reads.
    pub in_hosts_file: bool,
}

/// What the zones' own servers say of CAA records that a resolver has found: climbed from the name as far up
/// as the resolver found them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CaaWord {
    /// They were not asked, since nothing depends on it.
    NotAsked,
    /// They were asked, and not heard, or not to the end.
    Unheard,
    /// There are none, neither where the resolver has found them nor below.
    Nothing,
    /// There are these.
    Found {
        /// The records.
        records: Vec<CaaRecord>,
        /// The name whose they are.
        at: Hostname,
    },
}

/// The answer to one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Records<T> {
    /// At least one.
    Found(Vec<T>),
    /// The name exists and has no such record.
    Empty {
        /// The zone's own servers say so too, not only a resolver's cache.
        confirmed: bool,
    },
    /// The name does not exist (NXDOMAIN).
    NoName {
        /// The zone's own servers say so too, not only a resolver's cache.
        confirmed: bool,
    },
    /// No answer that could be used.
    Failed(DnsFailure),
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DnsFailure {
    /// SERVFAIL, whether or not the check for signatures is left out.
    ServFail {
        /// The zone's own servers, asked directly, fail too; false where they could not be asked.
        confirmed: bool,
        /// The server's own words (RFC 8914), where it gave any.
        says: Option<String>,
    },
    /// SERVFAIL, but an answer once the check for signatures is left out: DNSSEC does not validate.
    Bogus {
        /// What shows at the zone's own servers.
        own: Signatures,
        /// The server's own words (RFC 8914), where it gave any.
        says: Option<String>,
    },
    /// The server does not serve this machine (REFUSED).
    Refused,
    /// No answer in time.
    Silent,
    /// The server cannot be reached, or its answer makes no sense; the reason in words.
    Unusable(String),
}

/// What a zone's own servers, and those of the zone above, show of signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signatures {
    /// They were not heard.
    Unheard,
    /// Nothing that would explain why they do not validate.
    Unexplained,
    /// Something is wrong.
    Flawed(Flaw),
}

/// What is wrong with the signatures that a zone's own servers send, as far as it shows without checking any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// The zone above announces a key (DS), and there is no signature.
    Unsigned,
    /// The zone above announces a key (DS), and the zone has none that it could be.
    OtherKeys,
    /// Every signature has run out, the last one at that moment.
    Expired(SystemTime),
    /// No signature counts before that moment.
    NotYet(SystemTime),
}

/// A CAA record (RFC 8659 section 4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaaRecord {
    /// One who does not understand the tag must not issue.
    pub critical: bool,
    /// `issue`, `issuewild`, `iodef`, …, in lower case.
    pub tag: String,
    /// The value as it stands.
    pub value: String,
}
