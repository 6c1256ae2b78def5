//! Faults that tests of an ACME client inject into the embedded CA: what a real authority does on a bad
//! day, or a broken one on any day. They can be set in code only; no configuration reaches them.

use std::time::{Duration, SystemTime};

use super::limits::RateLimits;
use super::problem::ProblemType;

mod orders;
mod renewal;
mod validation;

pub use orders::{RefusalForm, RefusedIdentifiers};
pub use renewal::{RenewalFaults, WindowFault};
pub use validation::{FailingValidation, ValidationFault, VantagePoints};

/// The last second that an HTTP date can tell (RFC 9110 section 5.6.7).
const LAST_HTTP_DATE: Duration = Duration::from_secs(253_402_300_799);

/// What goes wrong; everything is off by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    /// Where the dice start: the same requests in the same order meet the same faults.
    pub seed: u64,
    /// Share of signed requests that are refused with `badNonce`, 0 to 100.
    pub bad_nonce_percent: u8,
    /// How long an order stays `processing` after it was finalized; zero issues at once.
    pub processing: Duration,
    /// `Retry-After`, in whole seconds, on orders that are `processing`.
    pub processing_retry_after: Option<Duration>,
    /// Orders become `invalid` with this error instead of being issued.
    pub order_error: Option<ProblemType>,
    /// Certificates for RSA keys are refused with this error.
    pub rsa_refused: Option<ProblemType>,
    /// What is wrong with the chain that is handed out.
    pub chain: ChainFault,
    /// What is wrong with answers as such.
    pub answer: AnswerFault,
    /// Which answers are wrong.
    pub answer_scope: AnswerScope,
    /// New orders are refused with 429 `rateLimited` and this `Retry-After`, in whole seconds.
    pub retry_after_429: Option<Duration>,
    /// Limits that are really kept, as a public CA keeps them. Setting others than before empties the
    /// buckets.
    pub limits: Option<RateLimits>,
    /// Identifiers that new orders are refused for.
    pub refused: Option<RefusedIdentifiers>,
    /// New orders that name the certificate they replace are refused with this error: `alreadyReplaced`,
    /// `malformed`, `serverInternal` and the like.
    pub replaces_refused: Option<ProblemType>,
    /// Identifiers whose validation fails whatever the gate answers.
    pub failing: Vec<FailingValidation>,
    /// From how many places a challenge is validated.
    pub vantage_points: VantagePoints,
    /// Orders, authorizations and challenges that are `invalid` do not tell why.
    pub no_details: bool,
    /// What goes wrong with renewal information (RFC 9773).
    pub renewal: RenewalFaults,
}

/// What is wrong with an issued chain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ChainFault {
    /// Nothing.
    #[default]
    None,
    /// The leaf certifies a key that nobody asked for.
    WrongKey,
    /// The leaf names `elsewhere.invalid`.
    WrongName,
    /// The leaf ended an hour ago.
    Expired,
    /// The intermediate comes before the leaf.
    ReversedOrder,
    /// The leaf comes alone.
    MissingIntermediate,
}

/// What is wrong with an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AnswerFault {
    /// Nothing.
    #[default]
    None,
    /// 200 with bytes that are neither JSON nor text.
    Garbage,
    /// 200 with JSON that breaks off.
    BrokenJson,
    /// 200 with an HTML page, as a captive portal or a filter sends it.
    Html,
    /// 302 to another host.
    Redirect,
    /// 200 with a body that never ends.
    Endless,
    /// No answer at all, while the connection stays open.
    Hang,
    /// A problem document with that status (400 to 599): 404 `malformed`, 429 `rateLimited`, 500 and 503
    /// `serverInternal`. The request has no other effect.
    Status(u16, RetryAfter),
}

/// Which requests meet an [`AnswerFault`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AnswerScope {
    /// All of them.
    #[default]
    All,
    /// Those whose path begins so: `/directory`, `/new-nonce`, `/new-account`, `/new-order`,
    /// `/account/`, `/order/`, `/finalize/`, `/authorization/`, `/challenge/`, `/certificate/`,
    /// `/renewal-info/`, `/revoke-cert`, `/key-change`.
    Path(&'static str),
    /// Those whose path begins with one of these.
    Paths(&'static [&'static str]),
}

/// The header that tells when to come back (RFC 9110 section 10.2.3).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RetryAfter {
    /// It is not there.
    #[default]
    Missing,
    /// As a number of seconds.
    Seconds(Duration),
    /// As an HTTP date, so long after the answer; never after the year 9999.
    Date(Duration),
    /// As this text, sensible or not; left out where it cannot be in a header.
    Text(&'static str),
}

impl RetryAfter {
    /// The header's value.
    pub(super) fn value(self, now: SystemTime) -> Option<String> {
        match self {
            Self::Missing => None,
            Self::Seconds(delay) => Some(delay.as_secs().to_string()),
            Self::Date(delay) => {
                let last = SystemTime::UNIX_EPOCH + LAST_HTTP_DATE;
                let then = now.checked_add(delay).map_or(last, |then| then.min(last));
                Some(httpdate::fmt_http_date(then.max(SystemTime::UNIX_EPOCH)))
            }
            Self::Text(text) => Some(text.to_owned()),
        }
    }
}

impl Faults {
    /// The fault that a request for that path meets.
    pub(super) fn answer_to(&self, path: &str) -> AnswerFault {
        if self.renewal.answer != AnswerFault::None && path.starts_with("/renewal-info/") {
            return self.renewal.answer;
        }
        let meets = match self.answer_scope {
            AnswerScope::All => true,
            AnswerScope::Path(prefix) => path.starts_with(prefix),
            AnswerScope::Paths(prefixes) => prefixes.iter().any(|prefix| path.starts_with(prefix)),
        };
        if meets { self.answer } else { AnswerFault::None }
    }
}

/// Where chance decides about a fault: splitmix64, reproducible from its seed.
#[derive(Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// True in so many of a hundred throws.
    pub(super) fn percent(&mut self, share: u8) -> bool {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % 100 < u64::from(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dice_are_fair_and_reproducible() {
        let throws = |seed| {
            let mut dice = Dice::new(seed);
            (0..10_000).map(|_| dice.percent(30)).collect::<Vec<_>>()
        };
        assert_eq!(throws(1), throws(1));
        assert_ne!(throws(1), throws(2));
        let hits = throws(1).into_iter().filter(|&hit| hit).count();
        assert!((2_800..3_200).contains(&hits), "{hits}");
        let mut dice = Dice::new(0);
        assert!((0..1_000).all(|_| !dice.percent(0) && dice.percent(100)));
    }

    #[test]
    fn a_scope_limits_the_fault() {
        let everywhere = Faults { answer: AnswerFault::Html, ..Faults::default() };
        assert_eq!(everywhere.answer_to("/new-nonce"), AnswerFault::Html);
        let narrow = Faults { answer_scope: AnswerScope::Path("/directory"), ..everywhere.clone() };
        assert_eq!(narrow.answer_to("/directory"), AnswerFault::Html);
        assert_eq!(narrow.answer_to("/new-nonce"), AnswerFault::None);
        let some =
            Faults { answer_scope: AnswerScope::Paths(&["/new-order", "/order/"]), ..everywhere.clone() };
        for (path, meets) in [("/new-order", true), ("/order/1", true), ("/finalize/1", false)] {
            assert_eq!(some.answer_to(path) == AnswerFault::Html, meets, "{path}");
        }
        let renewal = RenewalFaults { answer: AnswerFault::Hang, ..RenewalFaults::default() };
        let both = Faults { renewal, ..narrow };
        assert_eq!(both.answer_to("/renewal-info/x.y"), AnswerFault::Hang);
        assert_eq!(both.answer_to("/directory"), AnswerFault::Html);
    }

    #[test]
    fn retry_after_comes_in_every_form() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        for (retry_after, expected) in [
            (RetryAfter::Missing, None),
            (RetryAfter::Seconds(Duration::from_millis(2_900)), Some("2")),
            (RetryAfter::Date(Duration::from_secs(60)), Some("Fri, 15 Jan 2027 08:01:00 GMT")),
            (RetryAfter::Date(Duration::MAX), Some("Fri, 31 Dec 9999 23:59:59 GMT")),
            (RetryAfter::Text("soon"), Some("soon")),
        ] {
            assert_eq!(retry_after.value(now).as_deref(), expected);
        }
    }
}
