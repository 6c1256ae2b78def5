//! Session tickets that several nodes share by a file of keys: two daemons, and a client that goes from one to the other.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned, SupportedProtocolVersion,
};

use crate::bed::pki::Pki;
use crate::bed::process::run;
use crate::bed::wicketgate::{Daemon, Setup, command};
use crate::bed::{Bed, PATIENCE, set_mode, until};

const NAME: &str = "www.example.test";
const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];

/// Nodes of one name and one key file.
struct Nodes {
    bed: Bed,
    pki: Pki,
    file: PathBuf,
}

struct Node {
    config: PathBuf,
    front: u16,
    daemon: Daemon,
    _bed: Bed,
}

/// A key that is made of one number.
fn key(n: u8) -> [u8; 80] {
    std::array::from_fn(|place| place as u8 ^ n.wrapping_mul(29) | 0x80)
}

impl Nodes {
    fn new() -> Self {
        let bed = Bed::new();
        let pki = Pki::new(bed.dir(), "nodes", &[NAME]);
        fs::create_dir(bed.path("keys")).unwrap();
        Self { pki, file: bed.path("keys/ticket.key"), bed }
    }

    /// Puts another file in the place of the last one.
    fn write(&self, content: &[u8], mode: u32) {
        let new = self.bed.write("keys/new", content);
        set_mode(&new, mode);
        fs::rename(new, &self.file).unwrap();
    }

    fn keys(&self, keys: &[u8]) {
        self.write(&keys.iter().flat_map(|n| key(*n)).collect::<Vec<_>>(), 0o600);
    }

    /// A node's configuration, the key file in it or not.
    fn configure(&self, bed: &Bed, has_key_file: bool) -> (PathBuf, u16) {
        let setup = Setup::embedded(bed).tables(&format!(
            "[[certificate]]\nfiles = {{ fullchain = {:?}, key = {:?} }}\n",
            self.pki.chain, self.pki.key
        ));
        let mut text = setup.text();
        if has_key_file {
            text = text.replace("[front]\n", &format!("[front]\nticket-key-file = {:?}\n", self.file));
        }
        (bed.write("wicketgate.toml", text), setup.front)
    }

    fn start(&self) -> Node {
        let bed = Bed::new();
        let (config, front) = self.configure(&bed, true);
        let daemon = Daemon::start(&config);
        daemon.process.wait_for_line("ready: ");
        Node { config, front, daemon, _bed: bed }
    }

    /// A client that remembers sessions.
    fn client(&self, version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        for der in CertificateDer::pem_file_iter(&self.pki.root).unwrap() {
            roots.add(der.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = Resumption::in_memory_sessions(8);
        Arc::new(config)
    }

    fn clients(&self) -> [Arc<ClientConfig>; 2] {
        VERSIONS.map(|version| self.client(version))
    }
}

impl Node {
    /// What becomes of a connection; at its end the client has tickets for the next one.
    fn visit(&self, client: &Arc<ClientConfig>) -> HandshakeKind {
        let name = ServerName::try_from(NAME).unwrap();
        let connection = ClientConnection::new(client.clone(), name).unwrap();
        let stream = TcpStream::connect(("127.0.0.1", self.front)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut tls = StreamOwned::new(connection, stream);
        tls.write_all(format!("GET / HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n").as_bytes())
            .unwrap();
        tls.read_to_end(&mut Vec::new()).unwrap();
        tls.conn.handshake_kind().unwrap()
    }

    fn reload(&self) -> String {
        run(command(&self.config).arg("reload")).expect_code(0).text()
    }

    /// Does something, and waits until this line tells what became of it.
    fn after(&self, line: &str, change: impl FnOnce()) -> String {
        let said = self.daemon.process.lines().len();
        change();
        self.daemon.process.wait_for_line_after(said, line)
    }
}

const SEALED: &str = "session tickets are sealed with a key of";

#[test]
fn a_session_goes_from_node_to_node_and_outlives_a_restart() {
    let nodes = Nodes::new();
    nodes.keys(&[1]);
    let (here, mut there) = (nodes.start(), nodes.start());
    let sealing = |node: &Node| {
        let line = node.daemon.process.wait_for_line(SEALED);
        line.split_whitespace().find(|word| word.contains("key=")).map(str::to_owned).expect(&line)
    };
    assert_eq!(sealing(&here), sealing(&there), "both tell that they have the same key");
    let clients = nodes.clients();
    for client in &clients {
        assert_eq!(here.visit(client), HandshakeKind::Full);
        assert_eq!(there.visit(client), HandshakeKind::Resumed);
        assert_eq!(here.visit(client), HandshakeKind::Resumed);
    }
    there.daemon.stop();
    there.daemon = Daemon::start(&there.config);
    there.daemon.process.wait_for_line("ready: ");
    for client in &clients {
        assert_eq!(there.visit(client), HandshakeKind::Resumed, "after a restart");
    }
}

#[test]
fn keys_are_rotated_by_a_change_of_the_file_and_no_session_is_lost() {
    let nodes = Nodes::new();
    nodes.keys(&[1]);
    let (here, there) = (nodes.start(), nodes.start());
    let told = |node: &Node| node.daemon.process.lines().iter().filter(|line| line.contains(SEALED)).count();
    for keys in [&[1, 2][..], &[1, 2, 3], &[2, 3, 4], &[3, 4, 5]] {
        let clients = nodes.clients();
        for client in &clients {
            assert_eq!(here.visit(client), HandshakeKind::Full);
        }
        // For a while one of them has the new file and the other one has not: its look is every two seconds.
        here.after(SEALED, || nodes.keys(keys));
        for (client, version) in clients.iter().zip(VERSIONS) {
            assert_eq!(here.visit(client), HandshakeKind::Resumed, "{keys:?}, {version:?}");
            assert_eq!(there.visit(client), HandshakeKind::Resumed, "{keys:?}, {version:?}");
        }
        until("the other one has it too", || (told(&there) == told(&here)).then_some(()));
        for (client, version) in clients.iter().zip(VERSIONS) {
            assert_eq!(there.visit(client), HandshakeKind::Resumed, "{keys:?}, {version:?}");
        }
    }
    let clients = nodes.clients();
    for client in &clients {
        assert_eq!(there.visit(client), HandshakeKind::Full);
    }
    here.after(SEALED, || nodes.keys(&[8, 9]));
    for client in &clients {
        assert_eq!(here.visit(client), HandshakeKind::Full, "no key is left that it was sealed with");
    }
}

#[test]
fn whatever_is_wrong_with_the_file_the_last_good_keys_stay() {
    let nodes = Nodes::new();
    nodes.keys(&[1]);
    let (node, other) = (nodes.start(), nodes.start());
    let clients = nodes.clients();
    for client in &clients {
        assert_eq!(node.visit(client), HandshakeKind::Full);
    }
    let resumes = || {
        for client in &clients {
            assert_eq!(node.visit(client), HandshakeKind::Resumed);
            assert_eq!(other.visit(client), HandshakeKind::Resumed);
        }
    };
    let stay = "the keys that were read before are used on";
    type Harm<'a> = (&'a str, &'a dyn Fn());
    let harms: [Harm<'_>; 4] = [
        ("it has 79 bytes", &|| nodes.write(&key(1)[..79], 0o600)),
        ("it is empty", &|| nodes.write(b"", 0o600)),
        ("its mode is 0644", &|| nodes.write(&key(7), 0o644)),
        ("No such file or directory", &|| fs::remove_file(&nodes.file).unwrap()),
    ];
    for (says, harm) in harms {
        let told = node.after(stay, harm);
        assert!(told.contains(says), "{told}");
        resumes();
        if nodes.file.exists() {
            // A reload tells it, and takes the rest of the configuration.
            assert!(node.reload().contains(says));
            resumes();
        }
    }
    node.after(SEALED, || nodes.keys(&[1, 2]));
    resumes();
    // What is told is told once.
    let lines = node.daemon.process.lines();
    assert_eq!(lines.iter().filter(|line| line.contains(stay)).count(), 4, "{lines:#?}");
}

#[test]
fn a_reload_takes_the_file_and_leaves_it() {
    let nodes = Nodes::new();
    nodes.keys(&[1]);
    let node = nodes.start();
    let clients = nodes.clients();
    for client in &clients {
        assert_eq!(node.visit(client), HandshakeKind::Full);
    }
    let text = fs::read_to_string(&node.config).unwrap();
    let without: String =
        text.lines().filter(|l| !l.contains("ticket-key-file")).map(|l| format!("{l}\n")).collect();
    fs::write(&node.config, without).unwrap();
    node.reload();
    for client in &clients {
        assert_eq!(node.visit(client), HandshakeKind::Full, "with keys of its own");
        assert_eq!(node.visit(client), HandshakeKind::Resumed);
    }
    fs::write(&node.config, text).unwrap();
    node.reload();
    for client in &clients {
        assert_eq!(node.visit(client), HandshakeKind::Resumed, "its own stay good");
    }
}

#[test]
fn with_a_bad_file_it_does_not_start() {
    let nodes = Nodes::new();
    let bed = Bed::new();
    let (config, _) = nodes.configure(&bed, true);
    let refused = |content: &[u8], mode: u32, says: &str| {
        nodes.write(content, mode);
        let told = run(command(&config).arg("run")).expect_code(78).text();
        assert!(told.contains("front.ticket-key-file: ") && told.contains(says), "{told}");
        let checked = run(command(&config).args(["config", "check"])).expect_code(0).text();
        assert!(checked.contains(says) && checked.contains("does not start with it"), "{checked}");
        let secret: String = key(1).iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        assert!(!told.contains(&secret), "{told}");
    };
    refused(&key(1)[..33], 0o600, "it has 33 bytes, and a key has 80");
    refused(&key(1), 0o640 | 0o004, "its mode is 0644");
    refused(&key(1), 0o660, "its mode is 0660");
    refused(b"c2VjcmV0\n", 0o600, "its line 1 holds 6 bytes");
    fs::remove_file(&nodes.file).unwrap();
    let told = run(command(&config).arg("run")).expect_code(78).text();
    assert!(told.contains("`front.ticket-key-file`: there is no such file"), "{told}");
}
