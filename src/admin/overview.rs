//! What there is to see at a glance, for the metrics and the status page.

use jiff::Timestamp;

use super::StatusReport;

/// Everything, at one moment.
#[derive(Debug, Clone)]
pub struct Overview {
    /// The moment.
    pub at: Timestamp,
    /// This machine's name.
    pub host: String,
    /// As `status` has it.
    pub status: StatusReport,
    /// Who came to the gate for a challenge lately, the last one first.
    pub knocks: Vec<Knock>,
    /// What was done since the start.
    pub counts: Counts,
}

/// Somebody came for a challenge.
#[derive(Debug, Clone)]
pub struct Knock {
    /// When.
    pub at: Timestamp,
    /// His address.
    pub client: String,
    /// The host that he asked for.
    pub host: Option<String>,
    /// What became of it, in words.
    pub outcome: String,
    /// He got what he came for.
    pub is_answered: bool,
}

/// What gate and front did since the start.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Connections to the gate.
    pub gate_connections: u64,
    /// Challenges that were answered.
    pub answered: u64,
    /// Those that came late for one.
    pub late: u64,
    /// Challenges that never were.
    pub unknown: u64,
    /// Requests that were redirected.
    pub redirected: u64,
    /// Requests that were refused besides.
    pub refused: u64,
    /// Connections to the front, and those that did not get beyond the handshake; `None` without a front.
    pub front: Option<(u64, u64)>,
    /// Lines of the access log that were dropped; `None` without one.
    pub log_lost: Option<u64>,
}

impl Overview {
    /// Why not everything is as it should be, a sentence each; nothing where it is.
    pub fn amiss(&self) -> Vec<String> {
        let mut told = Vec::new();
        for c in &self.status.certificates {
            match c.not_after {
                None => told.push(format!("{} has no certificate yet", c.name)),
                Some(end) if end <= self.at => told.push(format!("the certificate {} has ended", c.name)),
                Some(_) => {}
            }
        }
        for files in &self.status.from_files {
            match files.not_after {
                None => told.push(format!("nothing is served of the files of {}", files.name)),
                Some(end) if end <= self.at => told.push(format!("the certificate {} has ended", files.name)),
                Some(_) => {}
            }
        }
        told
    }
}
