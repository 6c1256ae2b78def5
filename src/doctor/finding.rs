//! What the doctor tells. Pure.

use std::fmt;

use serde::Serialize;

use super::picture::{Place, Server};
use crate::words::quote::hidden;

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Finding {
    /// In whose files; null where it is about this machine, or about wicketgate.
    pub server: Option<Server>,
    /// What it is.
    pub cause: Cause,
    /// How bad it is.
    pub severity: Severity,
    /// `FILE:LINE`; null where no file says it.
    pub place: Option<String>,
    /// What was seen.
    pub seen: String,
    /// What that means.
    pub means: String,
    /// What to do; empty where there is nothing to do.
    pub remedy: String,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Something is wrong, or will be.
    Problem,
    /// It may be meant so, or could not be judged.
    Warning,
    /// As it should be.
    Fine,
}

macro_rules! causes {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)+) => {
        /// What was found: a constant word.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(into = "&'static str")]
        pub enum Cause {
            $($(#[$doc])* $name,)+
        }

        impl Cause {
            /// Every one.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The word.
            pub fn word(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)+
                }
            }
        }
    };
}

causes! {
    /// There is no configuration of wicketgate's.
    ConfigurationMissing = "configuration-missing",
    /// It is wrong.
    ConfigurationWrong = "configuration-wrong",
    /// No server was found.
    NoServer = "no-server",
    /// A file that belongs to a server's configuration may not be read by this user.
    FileUnreadable = "file-unreadable",
    /// A file that a server's configuration names is not there, or no file.
    FileMissing = "file-missing",
    /// A server's configuration breaks its own rules.
    Syntax = "syntax",
    /// Files include each other, or are too many.
    IncludeEndless = "include-endless",
    /// A value depends on what is not known here.
    ValueUnknown = "value-unknown",
    /// The certificate's file is not there.
    CertificateMissing = "certificate-missing",
    /// This user may not read it.
    CertificateUnreadable = "certificate-unreadable",
    /// There is no certificate in it, or a damaged one.
    CertificateDamaged = "certificate-damaged",
    /// The key's file is not there, or has no key.
    KeyMissing = "key-missing",
    /// This user may not read it.
    KeyUnreadable = "key-unreadable",
    /// It cannot be used, or cannot be judged.
    KeyDamaged = "key-damaged",
    /// The key belongs to another certificate.
    KeyMismatch = "key-mismatch",
    /// Everybody can read the key.
    KeyExposed = "key-exposed",
    /// The certificate stands alone where its chain belongs.
    LoneLeaf = "lone-leaf",
    /// The chain does not hold together.
    ChainBroken = "chain-broken",
    /// The certificate has ended.
    Expired = "expired",
    /// It is not valid yet.
    NotYetValid = "not-yet-valid",
    /// It signed itself.
    SelfSigned = "self-signed",
    /// The path leads to one version for ever.
    FrozenPath = "frozen-path",
    /// A copy of a certificate of ours, older than the present one.
    CopyStale = "copy-stale",
    /// A copy of a certificate of ours, which renewals may pass by.
    Copy = "copy",
    /// A host that a site serves is not on its certificate.
    NameNotCovered = "name-not-covered",
    /// SELinux keeps servers from reading the file.
    SelinuxLabel = "selinux-label",
    /// No server uses a certificate of ours.
    CertificateUnused = "certificate-unused",
    /// A host is served and on no certificate.
    HostnameWithoutCertificate = "hostname-without-certificate",
    /// A host on a certificate of ours is served by nobody.
    HostnameUnserved = "hostname-unserved",
    /// A redirect catches the challenge.
    ChallengeRedirected = "challenge-redirected",
    /// A rule refuses the challenge.
    ChallengeDenied = "challenge-denied",
    /// A filter may refuse the challenge.
    ChallengeFiltered = "challenge-filtered",
    /// The server answers the challenge itself.
    ChallengeAnswered = "challenge-answered",
    /// It is passed on to somebody else.
    ChallengeMisdirected = "challenge-misdirected",
    /// It is passed on to the gate with another Host or path.
    ChallengeAltered = "challenge-altered",
    /// It is passed on to the gate.
    ChallengePassed = "challenge-passed",
    /// A site that is reached by http alone.
    HttpOnlySite = "http-only-site",
    /// A server and the gate both want port 80.
    Port80Contended = "port-80-contended",
    /// Who holds port 80.
    Port80Held = "port-80-held",
    /// Nobody holds port 80.
    Port80Free = "port-80-free",
    /// It cannot be told who holds port 80.
    Port80Unknown = "port-80-unknown",
}

impl From<Cause> for &'static str {
    fn from(cause: Cause) -> Self {
        cause.word()
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl Finding {
    pub(super) fn new(cause: Cause, severity: Severity, seen: impl Into<String>) -> Self {
        Self {
            server: None,
            cause,
            severity,
            place: None,
            seen: hidden(&seen.into()),
            means: String::new(),
            remedy: String::new(),
        }
    }

    pub(super) fn at(mut self, server: Server, place: &Place) -> Self {
        self.server = Some(server);
        self.place = Some(place.to_string());
        self
    }

    pub(super) fn means(mut self, words: impl Into<String>) -> Self {
        self.means = hidden(&words.into());
        self
    }

    pub(super) fn remedy(mut self, words: impl Into<String>) -> Self {
        self.remedy = hidden(&words.into());
        self
    }
}

/// A part of what hands the challenges to the gate, to be put into a server's files as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Rule {
    /// Whose files.
    pub server: Server,
    /// How it goes in.
    pub how: How,
    /// `FILE:LINE`, one or several; at the end of a file there is no line.
    pub places: Vec<String>,
    /// What to do besides, in words; empty where that is all.
    pub note: String,
    /// The lines.
    pub lines: String,
}

/// How a part of a rule goes into a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// As the first lines of the block that begins at each place.
    Within,
    /// Above the line.
    Above,
    /// In place of the line.
    InsteadOf,
    /// At the end of the file.
    AtEnd,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn causes_are_words_of_their_own() {
        let words: BTreeSet<_> = Cause::ALL.iter().map(|cause| cause.word()).collect();
        assert_eq!(words.len(), Cause::ALL.len());
        for word in words {
            let is_kebab = word.split('-').all(|part| {
                !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
            });
            assert!(is_kebab, "{word}");
        }
    }
}
