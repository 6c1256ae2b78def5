//! Caddy's ACME server (smallstep's): a second, independent CA. It validates on port 80, so it lives in
//! a namespace.

use std::path::PathBuf;

use super::namespace::Namespace;
use super::process::Process;
use super::{Bed, until};

/// A running Caddy.
pub(crate) struct Caddy {
    _process: Process,
    storage: PathBuf,
}

impl Caddy {
    /// Starts it inside, and waits until its directory answers.
    pub(crate) fn start(bed: &Bed, inside: &Namespace) -> Self {
        let storage = bed.path("caddy");
        let config = bed.write(
            "Caddyfile",
            format!(
                "{{
    admin off
    skip_install_trust
    auto_https disable_redirects
    storage file_system {}
    default_sni localhost
    pki {{
        ca local {{
            name \"Test CA\"
        }}
    }}
}}
https://localhost:14443 {{
    bind 127.0.0.1
    tls internal
    acme_server {{
        ca local
    }}
}}
",
                storage.display()
            ),
        );
        let process = Process::start(
            "caddy",
            inside
                .command("caddy")
                .env("HOME", bed.dir())
                .args(["run", "--adapter", "caddyfile", "--config"])
                .arg(config),
        );
        let caddy = Self { _process: process, storage };
        until("caddy's directory answers", || {
            let ask = format!("curl -sf --cacert {} {DIRECTORY}", caddy.root().display());
            (inside.sh(&ask).code == Some(0)).then_some(())
        });
        caddy
    }

    /// The root behind its API and behind the certificates it signs.
    pub(crate) fn root(&self) -> PathBuf {
        self.storage.join("pki/authorities/local/root.crt")
    }
}

/// Its ACME directory.
pub(crate) const DIRECTORY: &str = "https://localhost:14443/acme/local/directory";

#[test]
fn caddy_answers_as_a_ca() {
    super::needs!("caddy", "namespaces", "ip", "nsenter", "curl");
    let bed = Bed::new();
    let inside = Namespace::start(&bed, &[]);
    let caddy = Caddy::start(&bed, &inside);
    assert!(caddy.root().exists());
}
