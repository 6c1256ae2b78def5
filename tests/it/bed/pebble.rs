//! Let's Encrypt's test CA, with a DNS of its own that leads every name to loopback.

use std::path::PathBuf;
use std::process::Command;

use super::Bed;
use super::client::is_open;
use super::pki::Pki;
use super::process::{Process, run};
use super::until;

/// How the CA behaves.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mood {
    /// As the package comes: 5 % bad nonces, validations that take up to 15 s, half of the
    /// authorizations reused.
    Default,
    /// No sleeping and nothing else that hampers.
    Kind,
    /// What a client must stand: 30 % bad nonces, validations of up to 2 s, reused authorizations, three
    /// certificates in a chain, alternate roots, and the stricter reading of the protocol.
    Trying,
    /// No sleeping, but every second nonce is bad.
    Forgetful,
}

impl Mood {
    fn environment(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Default => &[],
            Self::Kind => &[("PEBBLE_VA_NOSLEEP", "1"), ("PEBBLE_WFE_NONCEREJECT", "0")],
            Self::Trying => &[
                ("PEBBLE_WFE_NONCEREJECT", "30"),
                ("PEBBLE_AUTHZREUSE", "50"),
                ("PEBBLE_VA_SLEEPTIME", "2"),
                ("PEBBLE_CHAIN_LENGTH", "3"),
                ("PEBBLE_ALTERNATE_ROOTS", "2"),
            ],
            Self::Forgetful => &[("PEBBLE_VA_NOSLEEP", "1"), ("PEBBLE_WFE_NONCEREJECT", "50")],
        }
    }

    fn is_strict(self) -> bool {
        matches!(self, Self::Trying)
    }
}

/// A running Pebble. Its state is in memory: a restart forgets every account.
pub(crate) struct Pebble {
    mood: Mood,
    api: Pki,
    config: PathBuf,
    _dns: Process,
    dns_port: u16,
    port: u16,
    management: u16,
    /// Where it validates by tls-alpn-01.
    pub(crate) tls_port: u16,
    process: Option<Process>,
}

impl Pebble {
    /// A CA that validates on port `gate`, for certificates of five years.
    pub(crate) fn start(bed: &Bed, mood: Mood, gate: u16) -> Self {
        Self::start_with_lifetime(bed, mood, gate, 5 * 365 * 86_400)
    }

    /// A CA whose certificates last that many seconds.
    pub(crate) fn start_with_lifetime(bed: &Bed, mood: Mood, gate: u16, lifetime: u32) -> Self {
        Self::start_with(bed, mood, gate, lifetime, false)
    }

    /// The one account that [`Pebble::start_with_binding`] knows.
    pub(crate) const BINDING_ID: &str = "kid-1";
    /// Its base64url HMAC key.
    pub(crate) const BINDING_KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";

    /// A CA that wants accounts made with it beforehand.
    pub(crate) fn start_with_binding(bed: &Bed, gate: u16) -> Self {
        Self::start_with(bed, Mood::Kind, gate, 5 * 365 * 86_400, true)
    }

    fn start_with(bed: &Bed, mood: Mood, gate: u16, lifetime: u32, binding: bool) -> Self {
        let api = Pki::new(bed.dir(), "pebble-api", &["localhost", "127.0.0.1", "::1"]);
        let (port, management, dns_port) = (bed.port(), bed.port(), bed.port());
        let tls_port = bed.port();
        let config = serde_json::json!({"pebble": {
            "listenAddress": format!("127.0.0.1:{port}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": api.chain,
            "privateKey": api.key,
            "httpPort": gate,
            "tlsPort": tls_port,
            "externalAccountBindingRequired": binding,
            "externalAccountMACKeys": {Self::BINDING_ID: Self::BINDING_KEY},
            "domainBlocklist": ["blocked.test"],
            "retryAfter": {"authz": 1, "order": 1},
            "certificateValidityPeriod": lifetime,
        }});
        let config = bed.write("pebble.json", config.to_string());
        let dns = Process::start(
            "pebble-challtestsrv",
            Command::new("pebble-challtestsrv")
                .args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", ""])
                .args(["-dns01", &format!("127.0.0.1:{dns_port}")])
                .args(["-management", &format!("127.0.0.1:{}", bed.port())]),
        );
        let mut pebble =
            Self { mood, api, config, _dns: dns, dns_port, port, management, tls_port, process: None };
        pebble.restart();
        pebble
    }

    /// Ends it, if it runs.
    pub(crate) fn stop(&mut self) {
        self.process = None;
        until("pebble's port is closed", || (!is_open(self.port)).then_some(()));
    }

    /// Starts it again on the same ports, with nothing remembered.
    pub(crate) fn restart(&mut self) {
        self.stop();
        let mut command = Command::new("pebble");
        command
            .arg("-config")
            .arg(&self.config)
            .args(["-dnsserver", &format!("127.0.0.1:{}", self.dns_port)]);
        if self.mood.is_strict() {
            command.arg("-strict");
        }
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PEBBLE_")) {
            command.env_remove(name);
        }
        command.envs(self.mood.environment().iter().copied());
        self.process = Some(Process::start("pebble", &mut command));
        until("pebble and its DNS listen", || {
            [self.port, self.management, self.dns_port].into_iter().all(is_open).then_some(())
        });
    }

    /// The ACME directory's URL.
    pub(crate) fn directory(&self) -> String {
        format!("https://localhost:{}/dir", self.port)
    }

    /// The root behind its API's own certificate.
    pub(crate) fn api_root(&self) -> &PathBuf {
        &self.api.root
    }

    /// The root behind the certificates it signs, asked from its management interface.
    pub(crate) fn signing_root(&self, bed: &Bed) -> PathBuf {
        let ran = run(Command::new("curl")
            .args(["--silent", "--show-error", "--fail", "--noproxy", "*", "--cacert"])
            .arg(&self.api.root)
            .arg(format!("https://localhost:{}/roots/0", self.management)))
        .expect_code(0);
        bed.write("pebble-signing-root.pem", ran.stdout)
    }

    /// How many orders it has taken since the last start.
    pub(crate) fn orders(&self) -> usize {
        self.process().lines().iter().filter(|line| line.contains("POST /order-plz")).count()
    }

    fn process(&self) -> &Process {
        self.process.as_ref().expect("pebble runs")
    }

    /// How many accounts were made since the last start.
    pub(crate) fn accounts(&self) -> usize {
        self.process().lines().iter().filter(|line| line.ends_with(" accounts in memory")).count()
    }
}

#[test]
fn pebble_answers_and_comes_back() {
    super::needs!("pebble", "curl");
    let bed = Bed::new();
    let gate = bed.port();
    let mut pebble = Pebble::start(&bed, Mood::Trying, gate);
    let ask = |pebble: &Pebble| {
        run(Command::new("curl")
            .args(["--silent", "--show-error", "--fail", "--noproxy", "*", "--cacert"])
            .arg(pebble.api_root())
            .arg(pebble.directory()))
    };
    assert!(ask(&pebble).expect_code(0).stdout.contains("newOrder"));
    let root = super::pki::read_chain_file(&pebble.signing_root(&bed));
    assert!(root[0].subject.contains("Pebble Root"), "{root:?}");
    pebble.stop();
    assert_ne!(ask(&pebble).code, Some(0));
    pebble.restart();
    assert_ne!(super::pki::read_chain_file(&pebble.signing_root(&bed)), root, "a restart forgets the root");
}
