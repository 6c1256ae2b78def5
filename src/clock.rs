//! The one clock. Everything else takes the time as an argument, so that a test can choose it;
//! clippy's `disallowed-methods` keeps it that way.

use std::time::{Instant, SystemTime};

/// The time of day, for dates in certificates and in files.
#[allow(clippy::disallowed_methods)]
pub fn now() -> SystemTime {
    SystemTime::now()
}

/// A clock that never jumps, for deadlines and measured durations.
#[allow(clippy::disallowed_methods)]
pub fn monotonic() -> Instant {
    Instant::now()
}
