//! Validations that fail as they do in the field: for one identifier, or seen from some places only.

use crate::hostname::Identifier;

/// An identifier whose validation fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailingValidation {
    /// Whose.
    pub identifier: Identifier,
    /// With which problem.
    pub fault: ValidationFault,
    /// Whether the gate is asked nevertheless; its answer does not matter. Where it is not asked it sees
    /// nothing, as with a name that does not resolve or a filter on the way.
    pub gate_is_asked: bool,
}

/// Why a validation fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValidationFault {
    /// `dns`: the name does not exist.
    Dns,
    /// `connection`: nobody answered.
    Connection,
    /// `unauthorized`: the answer had this status, 403 or 404 most often.
    Status(u16),
    /// `caa`: a CAA record forbids it.
    Caa,
}

/// From how many places a challenge is validated (RFC 8555 section 10.2). The first is the primary one,
/// which must pass. Of the remote ones one may fail if there are two or more, two if there are six or
/// more (CA/Browser Forum baseline requirements, section 3.2.2.9).
///
/// Each asks the gate once, from an address of its own (127.0.0.2, 127.0.0.3 and so on) where the gate is
/// at an IPv4 loopback address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VantagePoints {
    /// How many ask; 0 stands for a single one at no address in particular, more than 16 count as 16.
    pub count: u8,
    /// How many of them, from the last on, cannot reach the gate.
    pub failing: u8,
}

impl VantagePoints {
    const MOST: u8 = 16;

    /// How many ask, one at least.
    pub(in super::super) fn asking(self) -> u8 {
        self.count.clamp(1, Self::MOST)
    }

    /// Whether that one, counted from 0, reaches the gate.
    pub(in super::super) fn reaches(self, point: u8) -> bool {
        point < self.asking().saturating_sub(self.failing)
    }

    /// How many remote ones may fail.
    pub(in super::super) fn tolerated(self) -> usize {
        match self.asking() - 1 {
            0 | 1 => 0,
            2..=5 => 1,
            _ => 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quorum_of_the_remote_ones_must_pass() {
        for (count, asking, tolerated) in
            [(0, 1, 0), (1, 1, 0), (2, 2, 0), (3, 3, 1), (5, 5, 1), (6, 6, 1), (7, 7, 2), (255, 16, 2)]
        {
            let points = VantagePoints { count, failing: 0 };
            assert_eq!((points.asking(), points.tolerated()), (asking, tolerated), "{count}");
        }
    }

    #[test]
    fn the_last_ones_fail_first() {
        let points = VantagePoints { count: 5, failing: 2 };
        assert_eq!([0, 1, 2, 3, 4].map(|point| points.reaches(point)), [true, true, true, false, false]);
        assert!(!VantagePoints { count: 2, failing: 9 }.reaches(0));
        assert!(VantagePoints::default().reaches(0));
    }
}
