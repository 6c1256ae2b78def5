//! The file `outbox.json`: notices that have yet to reach a person, and what was told before, so that
//! neither a restart nor a crash loses one or tells one twice.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::hostname::Identifier;

/// Something that a person should know of, in words of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Notice {
    /// When it happened.
    pub at: Timestamp,
    /// The machine's name.
    pub host: String,
    /// What kind of thing happened.
    pub kind: Kind,
    /// The lineage's name, where it is about one.
    pub certificate: Option<String>,
    /// What that certificate covers or shall cover.
    pub identifiers: Vec<Identifier>,
    /// What it is about, in constant words: kind, certificate and this together are one cause, which is
    /// not told twice within a quiet period.
    pub cause: String,
    /// One line.
    pub summary: String,
    /// The whole, in plain words: what was seen, what it means, what to do, when it is tried again.
    pub text: String,
    /// The same for programs; keys in kebab-case.
    pub details: serde_json::Map<String, serde_json::Value>,
}

/// What kind of thing happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A first certificate is here.
    Obtained,
    /// A new certificate has taken the place of an old one.
    Renewed,
    /// An attempt to obtain a certificate failed.
    AttemptFailed,
    /// A certificate nears its end.
    Expiring,
    /// A certificate has ended.
    Expired,
    /// A server did not take a certificate, or shows an older one.
    DeployFailed,
    /// A name was left out of a certificate.
    NameDropped,
    /// A name that was left out is covered again.
    NameBack,
    /// The issuer does not want to be asked for a while.
    IssuerPaused,
    /// What was opened for an order cannot be shut.
    LeftOpen,
    /// Nothing happened: the administrator tries the way to him.
    Test,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Obtained => "obtained",
            Self::Renewed => "renewed",
            Self::AttemptFailed => "attempt-failed",
            Self::Expiring => "expiring",
            Self::Expired => "expired",
            Self::DeployFailed => "deploy-failed",
            Self::NameDropped => "name-dropped",
            Self::NameBack => "name-back",
            Self::IssuerPaused => "issuer-paused",
            Self::LeftOpen => "left-open",
            Self::Test => "test",
        })
    }
}

/// A way to a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Channel {
    /// A program of the administrator's.
    Command,
    /// A URL that takes JSON.
    Webhook,
    /// SMTP.
    Mail,
}

impl Channel {
    /// Every way there is.
    pub const ALL: [Self; 3] = [Self::Command, Self::Webhook, Self::Mail];
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Command => "command",
            Self::Webhook => "webhook",
            Self::Mail => "mail",
        })
    }
}

/// Everything that waits to be delivered, and the memory of what was told.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Outbox {
    /// Oldest first.
    pub letters: Vec<Letter>,
    /// Oldest first.
    pub told: Vec<Told>,
}

/// A notice on its way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Letter {
    /// The same at every try and on every way, so that a receiver can tell a repetition.
    pub id: u64,
    /// When it was put here.
    pub posted_at: Timestamp,
    /// What is told.
    pub notice: Notice,
    /// The ways on which it has yet to arrive.
    pub ways: BTreeMap<Channel, Tries>,
}

/// Failed tries to deliver on one way.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Tries {
    /// How many.
    pub failures: u32,
    /// Not before this moment.
    pub retry_at: Option<Timestamp>,
    /// What the last one failed with.
    pub last_error: Option<String>,
}

/// A cause that was told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Told {
    /// [`Notice::kind`]
    pub kind: Kind,
    /// [`Notice::certificate`]
    pub certificate: Option<String>,
    /// [`Notice::cause`]
    pub cause: String,
    /// When.
    pub at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_on_disk_are_the_words_that_are_shown() {
        use Kind::*;
        for kind in [
            Obtained,
            Renewed,
            AttemptFailed,
            Expiring,
            Expired,
            DeployFailed,
            NameDropped,
            NameBack,
            IssuerPaused,
            Test,
        ] {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.to_string());
        }
        for channel in Channel::ALL {
            assert_eq!(serde_json::to_value(channel).unwrap(), channel.to_string());
        }
    }
}
