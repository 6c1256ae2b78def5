//! Port 80: three answers and no file.
//!
//! The key authorization of a challenge that is pending for the very host that was asked for; a
//! redirect to https for hosts of ours; a constant refusal for all else. [`reply`](reply::reply)
//! decides, without I/O; [`serve`] carries what it decided.

pub mod deadlines;
pub mod host;
pub mod reply;
pub mod scanners;
mod server;
mod stream;
pub mod visits;

use std::collections::BTreeSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use ipnet::IpNet;

use crate::challenge::ChallengeTable;
use crate::config;
use crate::hostname::Identifier;
use crate::net::counter::Counter;

pub use deadlines::GateLimits;
use scanners::Scanners;
pub use server::{serve, serve_all};
use visits::Visits;

/// What the gate may say, from the configuration; replaced as a whole on a reload.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// What is redirected, and how.
    pub redirect: config::Redirect,
    /// A token is answered only for the hosts of its order.
    pub match_host: bool,
    /// Peers whose PROXY header or X-Forwarded-For tells the client's address.
    pub trusted_proxies: Vec<IpNet>,
}

impl From<&config::Gate> for Policy {
    fn from(gate: &config::Gate) -> Self {
        Self {
            redirect: gate.redirect.clone(),
            match_host: gate.match_host,
            trusted_proxies: gate.trusted_proxies.clone(),
        }
    }
}

/// What the gate answers from. Clones share everything; readers never wait.
#[derive(Debug, Clone)]
pub struct GateState {
    /// Pending challenges.
    pub table: ChallengeTable,
    /// The configuration's part.
    pub policy: Arc<ArcSwap<Policy>>,
    /// Identifiers that a certificate is served for: only they are redirected for good.
    pub served: Arc<ArcSwap<BTreeSet<Identifier>>>,
    /// Who came for a challenge.
    pub visits: Arc<Visits>,
    /// Who asked for what is not here.
    pub scanners: Arc<Scanners>,
    /// What it did besides.
    pub counts: Arc<GateCounts>,
}

/// What the gate did since the start, besides [`Visits`].
#[derive(Debug, Default)]
pub struct GateCounts {
    /// Connections.
    pub connections: Counter,
    /// Requests redirected to https.
    pub redirected: Counter,
    /// Requests refused that were for no challenge: foreign hosts, malformed ones.
    pub refused: Counter,
}

impl GateState {
    /// A gate that serves no certificate yet and was visited by nobody.
    pub fn new(table: ChallengeTable, policy: Policy) -> Self {
        Self {
            table,
            policy: Arc::new(ArcSwap::from_pointee(policy)),
            served: Arc::default(),
            visits: Arc::default(),
            scanners: Arc::default(),
            counts: Arc::default(),
        }
    }
}
