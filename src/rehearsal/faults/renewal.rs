//! Renewal information (RFC 9773) as clients meet it on a bad day.

use std::time::{Duration, SystemTime};

use super::{AnswerFault, RetryAfter};

/// What goes wrong with renewal information; everything is off by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RenewalFaults {
    /// The directory does not offer it, and `replaces` in a new order is ignored.
    pub not_offered: bool,
    /// What is wrong with its answers; goes before [`Faults::answer`](super::Faults::answer).
    pub answer: AnswerFault,
    /// What is unusual about the suggested window.
    pub window: WindowFault,
    /// `Retry-After` instead of the usual one.
    pub retry_after: Option<RetryAfter>,
    /// A page that explains the window, as it stands in the answer.
    pub explanation_url: Option<String>,
}

/// What is unusual about a suggested window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WindowFault {
    /// Nothing.
    #[default]
    None,
    /// It begins when it is asked for, and lasts two seconds.
    Now,
    /// It ended half an hour before it was asked for, as after an incident.
    Past,
    /// It is the usual one, so much later.
    Later(Duration),
    /// It is the usual one when it is asked for the first time, and so much earlier with each time more.
    Earlier(Duration),
    /// The usual one with its ends exchanged.
    Reversed,
    /// Exactly this one.
    Fixed {
        /// Its first second.
        start: SystemTime,
        /// Its last one.
        end: SystemTime,
    },
}
