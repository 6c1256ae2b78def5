//! How long a connection may take for what. One sweep over all connections decides; no request sets
//! a timer of its own.

use std::time::Duration;

use crate::config;

/// Caps on what a stranger can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GateLimits {
    /// Most connections at once.
    pub max_connections: usize,
    /// Most connections of one network at once.
    pub max_connections_per_network: usize,
    /// From the connection's start to its first byte.
    pub first_byte: Duration,
    /// From a request's first byte to the end of its header.
    pub header: Duration,
    /// Without a byte between two requests.
    pub idle: Duration,
    /// Without the client taking a byte of an answer.
    pub write: Duration,
    /// After the answer, to let the client finish sending what nobody reads, so that the answer is
    /// not lost to a reset.
    pub linger: Duration,
    /// Of a connection as a whole; the request under way is still answered.
    pub lifetime: Duration,
}

impl From<&config::Gate> for GateLimits {
    fn from(gate: &config::Gate) -> Self {
        Self {
            max_connections_per_network: gate.max_connections_per_network,
            ..Self::new(gate.max_connections)
        }
    }
}

impl GateLimits {
    /// The usual deadlines with this cap, which one network may fill.
    pub fn new(max_connections: usize) -> Self {
        Self {
            max_connections,
            max_connections_per_network: max_connections,
            first_byte: Duration::from_secs(10),
            header: Duration::from_secs(10),
            idle: Duration::from_secs(30),
            write: Duration::from_secs(10),
            linger: Duration::from_secs(2),
            lifetime: Duration::from_secs(600),
        }
    }

    /// How often to look: deadlines are kept to within this, either way.
    pub(super) fn sweep_interval(&self) -> Duration {
        let shortest = [self.first_byte, self.header, self.idle, self.write, self.linger, self.lifetime]
            .into_iter()
            .min();
        (shortest.unwrap_or_default() / 8).clamp(Duration::from_millis(5), Duration::from_millis(500))
    }

    fn of(&self, phase: Phase) -> Duration {
        match phase {
            Phase::Opening => self.first_byte,
            Phase::Header | Phase::Body | Phase::Asking => self.header,
            Phase::Idle => self.idle,
            Phase::Blocked => self.write,
            Phase::Lingering => self.linger,
        }
    }
}

/// A connection that said nothing yet gets this long when the gate stops, for its request may be on
/// its way.
const OPENING_WHEN_STOPPING: Duration = Duration::from_secs(1);

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// No byte came yet.
    Opening,
    /// A request has begun.
    Header,
    /// A request was answered whose body nobody reads.
    Body,
    /// Another ACME client is asked for the answer.
    Asking,
    /// Every request was answered.
    Idle,
    /// The client does not take its answer.
    Blocked,
    /// The answer is out; waiting for the client to finish.
    Lingering,
}

/// What is to become of a connection, from mildest to hardest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    /// It may go on.
    Stay,
    /// It ends as soon as no request is under way.
    Finish,
    /// It ends now.
    Close,
}

/// Decides about a connection of that age that has been in its phase for so long.
pub(super) fn verdict(
    limits: &GateLimits,
    stopping: bool,
    phase: Phase,
    in_phase: Duration,
    age: Duration,
) -> Verdict {
    let mut allowed = limits.of(phase);
    if stopping && phase == Phase::Opening {
        allowed = allowed.min(OPENING_WHEN_STOPPING);
    }
    if in_phase >= allowed || age >= limits.lifetime + limits.header + limits.write {
        Verdict::Close
    } else if stopping || age >= limits.lifetime {
        Verdict::Finish
    } else {
        Verdict::Stay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts() {
        use Phase::{Asking, Blocked, Header, Idle, Lingering, Opening};
        use Verdict::{Close, Finish, Stay};
        let limits = GateLimits::new(1);
        for (stopping, phase, in_phase, age, expected) in [
            (false, Opening, 9_999, 9_999, Stay),
            (false, Opening, 10_000, 10_000, Close),
            (false, Header, 9_999, 50_000, Stay),
            (false, Header, 10_000, 10_000, Close),
            (false, Idle, 29_999, 50_000, Stay),
            (false, Idle, 30_000, 50_000, Close),
            (false, Blocked, 9_999, 50_000, Stay),
            (false, Blocked, 10_000, 50_000, Close),
            (false, Lingering, 2_000, 50_000, Close),
            (false, Idle, 1, 600_000, Finish),
            (false, Header, 1, 619_999, Finish),
            (false, Blocked, 1, 620_000, Close),
            (true, Opening, 999, 999, Finish),
            (true, Opening, 1_000, 1_000, Close),
            (true, Header, 1_000, 1_000, Finish),
            (true, Idle, 0, 0, Finish),
            (true, Asking, 9_999, 9_999, Finish),
            (false, Asking, 10_000, 10_000, Close),
            (true, Lingering, 1_999, 9_000, Finish),
        ] {
            let [in_phase, age] = [in_phase, age].map(Duration::from_millis);
            assert_eq!(
                verdict(&limits, stopping, phase, in_phase, age),
                expected,
                "{stopping} {phase:?} {in_phase:?} {age:?}"
            );
        }
    }

    #[test]
    fn sweeps_are_neither_frantic_nor_late() {
        let mut limits = GateLimits::new(1);
        assert_eq!(limits.sweep_interval(), Duration::from_millis(250));
        limits.header = Duration::from_millis(80);
        assert_eq!(limits.sweep_interval(), Duration::from_millis(10));
        limits.idle = Duration::ZERO;
        assert_eq!(limits.sweep_interval(), Duration::from_millis(5));
    }
}
