//! Why a certificate is ordered now, or when it will be: values to decide by, and plain words.

use std::fmt;
use std::time::Duration;

use crate::words::{printable, rough};

/// Why a certificate is ordered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// There is none.
    NoCertificate,
    /// The live one does not serve the present wish, for this reason.
    Unfit(String),
    /// The moment in the CA's renewal window has come.
    Window {
        /// The CA's `explanationURL`.
        explanation: Option<String>,
    },
    /// The part of its lifetime is left at which it is renewed where the CA suggests nothing.
    Fraction {
        /// What is left.
        left: Duration,
    },
    /// The CA's renewal window would come too late.
    Backstop {
        /// What is left.
        left: Duration,
    },
    /// It has ended.
    Ended,
    /// Somebody asked for it.
    ByHand,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const EXPLANATION: usize = 200;
        match self {
            Self::NoCertificate => f.write_str("there is no certificate yet"),
            Self::Unfit(why) => f.write_str(why),
            Self::Window { explanation: None } => f.write_str("the CA's renewal window has come"),
            Self::Window { explanation: Some(text) } => {
                write!(f, "the CA's renewal window has come; it explains: {}", printable(text, EXPLANATION))
            }
            Self::Fraction { left } => write!(f, "it ends in {}", rough(*left)),
            Self::Backstop { left } => {
                write!(f, "it ends in {}, and the CA's renewal window would come too late", rough(*left))
            }
            Self::Ended => f.write_str("it has ended"),
            Self::ByHand => f.write_str("asked for by hand"),
        }
    }
}

/// What makes a moment the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It was chosen in the CA's renewal window.
    RenewalWindow,
    /// A part of the lifetime is left then, as the CA suggests nothing.
    Fraction,
    /// The CA's renewal window would come too late.
    Backstop,
    /// It would be due before, but came too short a time ago.
    InUseYet,
    /// It is due, but attempts have failed.
    Backoff {
        /// How many in a row; 0 where the pause has another cause.
        failures: u32,
    },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RenewalWindow => f.write_str("ARI window"),
            Self::Fraction => f.write_str("fraction of its lifetime"),
            Self::Backstop => f.write_str("backstop, the ARI window is too late"),
            Self::InUseYet => f.write_str("it was replaced a short time ago"),
            Self::Backoff { failures: 0 } => f.write_str("backoff"),
            Self::Backoff { failures: 1 } => f.write_str("backoff after a failure"),
            Self::Backoff { failures } => write!(f, "backoff after {failures} failures"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_plain_words() {
        let left = Duration::from_secs(86_400 * 5);
        for (reason, words) in [
            (Reason::Unfit("another key type is configured".to_owned()), "another key type is configured"),
            (Reason::Window { explanation: None }, "the CA's renewal window has come"),
            (
                Reason::Window { explanation: Some("https://ca.example/why\n\u{1b}[2J".to_owned()) },
                "the CA's renewal window has come; it explains: https://ca.example/why;  [2J",
            ),
            (Reason::Backstop { left }, "it ends in 5 days, and the CA's renewal window would come too late"),
        ] {
            assert_eq!(reason.to_string(), words);
        }
        for (why, words) in [
            (Why::RenewalWindow, "ARI window"),
            (Why::Backoff { failures: 1 }, "backoff after a failure"),
            (Why::Backoff { failures: 7 }, "backoff after 7 failures"),
        ] {
            assert_eq!(why.to_string(), words);
        }
    }
}
