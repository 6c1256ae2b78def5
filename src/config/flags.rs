//! The usual keys as flags, so that a container needs no file.

use super::document::{Node, Value};
use super::environment::value;
use super::keys::{KEYS, Kind};
use super::problem::{Origin, Report};

/// The configuration's flags. They win over environment and file; a list replaces the file's list, and
/// the certificate of `--hostname` is added to the file's.
#[derive(clap::Args, Debug, Clone, Default, PartialEq, Eq)]
#[command(next_help_heading = "Configuration (instead of or over the file)")]
pub struct Flags {
    /// A name for the certificate; repeat it for more names in the same one
    #[arg(long, value_name = "NAME", global = true)]
    pub hostname: Vec<String>,
    /// Mail address for the CA's account; may be repeated
    #[arg(long, value_name = "ADDRESS", global = true)]
    pub contact: Vec<String>,
    /// Agree to the CA's terms of service
    #[arg(long, global = true)]
    pub agree_terms: bool,
    /// letsencrypt, letsencrypt-staging, zerossl, google, embedded, or a directory's https URL
    #[arg(long, value_name = "ISSUER", global = true)]
    pub issuer: Option<String>,
    /// PEM file with roots to trust for the CA's own API
    #[arg(long, value_name = "FILE", global = true)]
    pub roots: Option<String>,
    /// Key of the certificate of --hostname: ecdsa-p256, ecdsa-p384, rsa-2048, rsa-3072, rsa-4096; twice
    /// for a pair of ECDSA and RSA
    #[arg(long, value_name = "TYPE", global = true)]
    pub key_type: Vec<String>,
    /// The CA's profile for the certificate of --hostname
    #[arg(long, value_name = "PROFILE", global = true)]
    pub profile: Option<String>,
    /// Terminate TLS and forward here: http://HOST:PORT, unix:/PATH, or demo
    #[arg(long, value_name = "UPSTREAM", global = true)]
    pub upstream: Option<String>,
    /// Where accounts, keys and certificates are kept
    #[arg(long, value_name = "FOLDER", global = true)]
    pub state_dir: Option<String>,
    /// Where the gate listens, every address at port 80 if not given; may be repeated
    #[arg(long, value_name = "ADDRESS:PORT", global = true)]
    pub gate_listen: Vec<String>,
    /// Where the front listens, every address at port 443 if not given; may be repeated
    #[arg(long, value_name = "ADDRESS:PORT", global = true)]
    pub front_listen: Vec<String>,
    /// The port that redirects name, 443 if not given
    #[arg(long, value_name = "PORT", global = true)]
    pub redirect_port: Option<String>,
    /// The admin socket
    #[arg(long, value_name = "PATH", global = true)]
    pub admin_socket: Option<String>,
}

impl Flags {
    /// Puts the flags' values over what the tree says.
    pub(super) fn apply(&self, root: &mut Node, report: &Report) {
        let single = [
            ("--issuer", "acme.issuer", &self.issuer),
            ("--roots", "acme.roots", &self.roots),
            ("--upstream", "front.upstream", &self.upstream),
            ("--state-dir", "state-dir", &self.state_dir),
            ("--redirect-port", "gate.redirect.port", &self.redirect_port),
            ("--admin-socket", "admin.socket", &self.admin_socket),
        ];
        for (flag, path, text) in single {
            let Some(text) = text else { continue };
            let origin = Origin::Flag(flag);
            let kind = KEYS.iter().find(|key| key.path == path).map_or(Kind::Text, |key| key.kind);
            match value(kind, text) {
                Ok(value) => root.set(path, Node { origin, value }),
                Err(message) => report.refuse(&origin, Some(path), &message),
            }
        }
        let lists = [
            ("--contact", "acme.contact", &self.contact),
            ("--gate-listen", "gate.listen", &self.gate_listen),
            ("--front-listen", "front.listen", &self.front_listen),
        ];
        for (flag, path, texts) in lists {
            if !texts.is_empty() {
                root.set(path, Node::texts(&Origin::Flag(flag), texts));
            }
        }
        if self.agree_terms {
            let origin = Origin::Flag("--agree-terms");
            root.set("acme.terms-agreed", Node { origin, value: Value::Boolean(true) });
        }
        self.apply_certificate(root, report);
    }

    fn apply_certificate(&self, root: &mut Node, report: &Report) {
        let given = [
            ("--key-type", "key-type", self.key_type.as_slice()),
            ("--profile", "profile", self.profile.as_slice()),
        ];
        let given = given.into_iter().filter(|(_, _, texts)| !texts.is_empty());
        if self.hostname.is_empty() {
            for (flag, key, _) in given {
                let message = format!(
                    "it is for the certificate of --hostname, and there is none; add --hostname, or write `{key}` under [[certificate]] in the file"
                );
                report.refuse(&Origin::Flag(flag), None, &message);
            }
            return;
        }
        let origin = Origin::Flag("--hostname");
        let mut certificate = Node::empty_table(origin.clone());
        certificate.set("hostnames", Node::texts(&origin, &self.hostname));
        for (flag, key, texts) in given {
            let origin = Origin::Flag(flag);
            certificate.set(
                key,
                match texts {
                    [text] => Node::text(origin, text),
                    _ => Node::texts(&origin, texts),
                },
            );
        }
        root.push("certificate", certificate);
    }
}
