//! Faults that tests of an ACME client inject into the embedded CA: what a real authority does on a bad
//! day, or a broken one on any day. They can be set in code only; no configuration reaches them.

use std::time::Duration;

use super::problem::ProblemType;

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
    /// What is wrong with the chain that is handed out.
    pub chain: ChainFault,
    /// What is wrong with answers as such.
    pub answer: AnswerFault,
    /// Which answers are wrong.
    pub answer_scope: AnswerScope,
    /// New orders are refused with 429 `rateLimited` and this `Retry-After`, in whole seconds.
    pub retry_after_429: Option<Duration>,
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
    /// 200 with an HTML page, as a captive portal or a filter sends it.
    Html,
    /// 302 to another host.
    Redirect,
    /// 200 with a body that never ends.
    Endless,
    /// No answer at all, while the connection stays open.
    Hang,
}

/// Which requests meet an [`AnswerFault`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AnswerScope {
    /// All of them.
    #[default]
    All,
    /// Those whose path begins so: `/directory`, `/new-nonce`, `/new-account`, `/new-order`,
    /// `/account/`, `/order/`, `/finalize/`, `/authorization/`, `/challenge/`, `/certificate/`.
    Path(&'static str),
}

impl Faults {
    /// The fault that a request for that path meets.
    pub(super) fn answer_to(&self, path: &str) -> AnswerFault {
        match self.answer_scope {
            AnswerScope::All => self.answer,
            AnswerScope::Path(prefix) if path.starts_with(prefix) => self.answer,
            AnswerScope::Path(_) => AnswerFault::None,
        }
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
        let narrow = Faults { answer_scope: AnswerScope::Path("/directory"), ..everywhere };
        assert_eq!(narrow.answer_to("/directory"), AnswerFault::Html);
        assert_eq!(narrow.answer_to("/new-nonce"), AnswerFault::None);
    }
}
