//! A real HAProxy that wants a PROXY header ahead of TLS.

use std::path::Path;
use std::process::Command;

use super::client::is_open;
use super::process::Process;
use super::{Bed, until};

/// A running HAProxy.
pub(crate) struct Haproxy {
    pub(crate) port: u16,
    _process: Process,
}

impl Haproxy {
    /// Serves a PEM file with chain and key behind `accept-proxy`.
    pub(crate) fn behind_a_proxy(bed: &Bed, combined: &Path) -> Self {
        let port = bed.port();
        let config = bed.write(
            "haproxy.cfg",
            format!(
                "global\n  ssl-default-bind-options ssl-min-ver TLSv1.2\n\
                 defaults\n  mode http\n  timeout client 10s\n  timeout connect 10s\n  timeout server 10s\n\
                 frontend tls\n  bind 127.0.0.1:{port} accept-proxy ssl crt {}\n  http-request return status 204\n",
                combined.display()
            ),
        );
        let mut command = Command::new("/usr/sbin/haproxy");
        let process = Process::start("haproxy", command.arg("-db").arg("-f").arg(config));
        until("haproxy listens", || is_open(port).then_some(()));
        Self { port, _process: process }
    }
}
