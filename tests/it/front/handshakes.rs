//! Which certificate, which protocol, which keys; and who is turned away, and how.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::{ClientSessionMemoryCache, ClientSessionStore, Resumption};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{AlertDescription, ClientConfig, Error, HandshakeKind, NamedGroup, ProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wicketgate::certificate::Bundle;
use wicketgate::config::Upstream;
use wicketgate::tickets::TicketKeys;

use super::rig::{App, Rig, connect, get, settings, soon, text};

async fn leaf(rig: &Rig, name: &str) -> Result<CertificateDer<'static>, Error> {
    match soon(rig.tls(rig.authority.client(&[]), name)).await {
        Ok(stream) => Ok(stream.get_ref().1.peer_certificates().unwrap()[0].clone()),
        Err(error) => Err(*error.into_inner().unwrap().downcast().unwrap()),
    }
}

fn refused_with(alert: AlertDescription) -> Result<CertificateDer<'static>, Error> {
    Err(Error::AlertReceived(alert))
}

#[tokio::test]
async fn each_name_gets_its_own_and_unknown_ones_an_alert() {
    let rig = Rig::bare(&settings(Upstream::Demo), Duration::ZERO);
    let unknown = || refused_with(AlertDescription::UnrecognisedName);
    assert_eq!(leaf(&rig, "a.test").await, unknown(), "closed before the first certificate");
    let one = rig.install("one", &["a.test"]);
    let wild = rig.install("wild", &["*.b.test"]);
    assert_eq!(leaf(&rig, "a.test").await.as_ref(), Ok(&one.chain()[0]));
    assert_eq!(leaf(&rig, "x.b.test").await.as_ref(), Ok(&wild.chain()[0]));
    assert_eq!(leaf(&rig, "b.test").await, unknown());
    assert_eq!(leaf(&rig, "x.y.b.test").await, unknown());
    rig.state.resolver().remove("one");
    assert_eq!(leaf(&rig, "a.test").await, unknown());
}

#[tokio::test]
async fn without_a_name_the_address_then_the_default() {
    let mut front = settings(Upstream::Demo);
    let rig = Rig::bare(&front, Duration::ZERO);
    let host = rig.install("host", &["a.test"]);
    assert_eq!(leaf(&rig, "127.0.0.1").await, refused_with(AlertDescription::MissingExtension));
    let address = rig.install("address", &["127.0.0.1"]);
    assert_eq!(leaf(&rig, "127.0.0.1").await.as_ref(), Ok(&address.chain()[0]));
    rig.state.resolver().remove("address");
    front.default_certificate = Some("host".to_owned());
    rig.state.reload(&front);
    let mut nameless = rig.authority.client(&[]);
    nameless.enable_sni = false;
    let stream = soon(rig.tls(nameless, "a.test")).await.unwrap();
    assert_eq!(stream.get_ref().1.peer_certificates().unwrap()[0], host.chain()[0]);
}

/// What `openssl s_client` prints.
fn s_client(rig: &Rig, arguments: &[&str]) -> String {
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &rig.address.to_string()])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("openssl is installed");
    [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat()
}

#[tokio::test]
async fn openssl_agrees() {
    crate::bed::needs!("openssl");
    let rig = Rig::start(Upstream::Demo);
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root.pem");
    std::fs::write(&root, rig.authority.pem()).unwrap();
    let root = root.to_str().unwrap();
    for (version, name) in [("-tls1_3", "TLSv1.3"), ("-tls1_2", "TLSv1.2")] {
        let said = s_client(&rig, &[version, "-servername", "a.test", "-CAfile", root, "-alpn", "h2"]);
        assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
        assert!(said.contains(&format!("New, {name}")), "{said}");
        assert!(said.contains("ALPN protocol: h2"), "{said}");
        let said = s_client(&rig, &[version, "-servername", "evil.test"]);
        assert!(said.contains("unrecognized name"), "{said}");
        assert!(!said.contains("BEGIN CERTIFICATE"), "{said}");
        let said = s_client(&rig, &[version, "-noservername"]);
        assert!(said.contains("missing extension"), "{said}");
    }
    let said = s_client(&rig, &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0", "-servername", "a.test"]);
    assert!(said.contains("alert") && said.contains("Cipher is (NONE)"), "{said}");
}

#[tokio::test]
async fn of_a_pair_each_client_gets_what_it_can_verify() {
    crate::bed::needs!("openssl");
    let rig = Rig::bare(&settings(Upstream::Demo), Duration::ZERO);
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root.pem");
    std::fs::write(&root, rig.authority.pem()).unwrap();
    let root = root.to_str().unwrap();
    let (ecdsa, rsa) = (rig.authority.certificate(&["a.test"]), rig.authority.of_rsa(&["a.test"]));
    const BOTH: &str = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256";
    // What the client says, and which it gets where ECDSA comes first, and where RSA does.
    let cases: [(&[&str], &str, &str); 13] = [
        (&["-tls1_3"], "ECDSA", "RSA"),
        (&["-tls1_3", "-sigalgs", "ECDSA+SHA256"], "ECDSA", "ECDSA"),
        (&["-tls1_3", "-sigalgs", "rsa_pss_rsae_sha256"], "RSA", "RSA"),
        (&["-tls1_3", "-sigalgs", "rsa_pss_rsae_sha256:ECDSA+SHA256"], "ECDSA", "RSA"),
        (&["-tls1_3", "-sigalgs", "RSA+SHA256:ECDSA+SHA256"], "ECDSA", "ECDSA"),
        // One that may speak TLS 1.2 too is answered in 1.3.
        (&["-sigalgs", "rsa_pss_rsae_sha256:RSA+SHA256"], "RSA", "RSA"),
        (&["-tls1_2"], "ECDSA", "RSA"),
        (&["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"], "RSA", "RSA"),
        (&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"], "ECDSA", "ECDSA"),
        (&["-tls1_2", "-cipher", BOTH, "-sigalgs", "RSA+SHA256"], "RSA", "RSA"),
        (&["-tls1_2", "-cipher", BOTH, "-sigalgs", "ECDSA+SHA256"], "ECDSA", "ECDSA"),
        (&["-tls1_2", "-cipher", BOTH, "-sigalgs", "ECDSA+SHA256:RSA+SHA256"], "ECDSA", "RSA"),
        // Its curves rule the ECDSA one out.
        (&["-tls1_2", "-cipher", BOTH, "-curves", "X25519"], "RSA", "RSA"),
    ];
    for (first, second) in [(&ecdsa, &rsa), (&rsa, &ecdsa)] {
        let pair = Bundle::pair(first.clone(), second.clone()).unwrap();
        rig.state.resolver().install("pair", &pair).unwrap();
        for (arguments, ecdsa_first, rsa_first) in cases {
            let expected = if first.serial() == ecdsa.serial() { ecdsa_first } else { rsa_first };
            let said = s_client(
                &rig,
                &[&["-servername", "a.test", "-CAfile", root, "-verify_return_error"], arguments].concat(),
            );
            assert!(said.contains("Verify return code: 0 (ok)"), "{arguments:?}: {said}");
            let signature = said.lines().find_map(|line| line.strip_prefix("Peer signature type: ")).unwrap();
            assert!(signature.starts_with(expected), "{arguments:?}: {signature}");
        }
    }
    // Who can verify neither is told so in the handshake.
    let said = s_client(&rig, &["-tls1_3", "-servername", "a.test", "-sigalgs", "ed25519"]);
    assert!(said.contains("handshake failure"), "{said}");
    let said = s_client(&rig, &["-tls1_3", "-servername", "evil.test"]);
    assert!(said.contains("unrecognized name"), "{said}");
}

#[tokio::test]
async fn a_session_of_either_half_resumes_across_swaps() {
    let rig = Rig::bare(&settings(Upstream::Demo), Duration::ZERO);
    let (ecdsa, rsa) = (rig.authority.certificate(&["a.test"]), rig.authority.of_rsa(&["a.test"]));
    let install = |bundle: &Bundle| rig.state.resolver().install("pair", bundle).unwrap();
    install(&Bundle::pair(ecdsa.clone(), rsa.clone()).unwrap());
    let config = Arc::new(rig.authority.client(&[]));
    assert_eq!(visit(&rig, &config, "a.test").await.unwrap(), HandshakeKind::Full);
    install(&Bundle::pair(rsa.clone(), ecdsa).unwrap());
    assert_eq!(visit(&rig, &config, "a.test").await.unwrap(), HandshakeKind::Resumed);
    install(&rsa.into());
    assert_eq!(visit(&rig, &config, "a.test").await.unwrap(), HandshakeKind::Resumed);
}

#[tokio::test]
async fn protocols_and_keys_are_agreed_on() {
    let rig = Rig::start(Upstream::Demo);
    for (offered, agreed) in [
        (&["h2", "http/1.1"][..], Some("h2")),
        (&["http/1.1"], Some("http/1.1")),
        (&["http/1.1", "h2"], Some("h2")),
        (&[], None),
    ] {
        let stream = soon(rig.tls(rig.authority.client(offered), "a.test")).await.unwrap();
        let session = stream.get_ref().1;
        assert_eq!(session.alpn_protocol(), agreed.map(str::as_bytes), "{offered:?}");
        assert_eq!(session.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        let group = session.negotiated_key_exchange_group().unwrap().name();
        assert_eq!(group, NamedGroup::X25519MLKEM768);
        assert_eq!(session.handshake_kind(), Some(HandshakeKind::Full), "no detour");
    }
    let failed = soon(rig.tls(rig.authority.client(&["spdy/1"]), "a.test")).await.unwrap_err();
    assert!(failed.to_string().contains("NoApplicationProtocol"), "{failed}");
}

/// Gives every name the tickets of all.
#[derive(Debug)]
struct Careless(ClientSessionMemoryCache);

const ANY: &str = "any.test";

impl Careless {
    fn name() -> ServerName<'static> {
        ServerName::try_from(ANY).unwrap()
    }
}

impl ClientSessionStore for Careless {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.0.set_kx_hint(Self::name(), group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.0.kx_hint(&Self::name())
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: rustls::client::Tls12ClientSessionValue) {
        self.0.set_tls12_session(Self::name(), value);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<rustls::client::Tls12ClientSessionValue> {
        self.0.tls12_session(&Self::name())
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.0.remove_tls12_session(&Self::name());
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: rustls::client::Tls13ClientSessionValue) {
        self.0.insert_tls13_ticket(Self::name(), value);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<rustls::client::Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(&Self::name())
    }
}

/// One request, so that tickets have arrived; tells how the handshake went.
async fn visit(rig: &Rig, config: &Arc<ClientConfig>, name: &str) -> std::io::Result<HandshakeKind> {
    let mut stream = soon(connect(rig.address, config.clone(), name)).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n").await?;
    soon(stream.read_to_end(&mut Vec::new())).await?;
    Ok(stream.get_ref().1.handshake_kind().unwrap())
}

#[tokio::test]
async fn sessions_resume_across_swaps_but_only_for_their_own_name() {
    let rig = Rig::bare(&settings(Upstream::Demo), Duration::ZERO);
    let (tls13, tls12) = (&[&rustls::version::TLS13][..], &[&rustls::version::TLS12][..]);
    for (versions, are_shared) in [(tls13, false), (tls12, false), (tls13, true), (tls12, true)] {
        let keys = || Arc::new(TicketKeys::parse(&[0x80, 0x81].repeat(40)).unwrap());
        rig.state.resolver().share_tickets(are_shared.then(keys));
        rig.install("a", &["a.test"]);
        rig.install("b", &["b.test"]);
        let mut config =
            ClientConfig::builder_with_provider(rig.authority.client(&[]).crypto_provider().clone())
                .with_protocol_versions(versions)
                .unwrap()
                .with_webpki_verifier(
                    rustls::client::WebPkiServerVerifier::builder(Arc::new(rig.authority.roots()))
                        .build()
                        .unwrap(),
                )
                .with_no_client_auth();
        config.resumption = Resumption::store(Arc::new(Careless(ClientSessionMemoryCache::new(32))));
        let config = Arc::new(config);
        assert_eq!(visit(&rig, &config, "a.test").await.unwrap(), HandshakeKind::Full);
        assert_eq!(visit(&rig, &config, "a.test").await.unwrap(), HandshakeKind::Resumed);
        rig.install("a", &["a.test"]);
        assert_eq!(visit(&rig, &config, "a.test").await.unwrap(), HandshakeKind::Resumed, "after a swap");
        assert_eq!(visit(&rig, &config, "b.test").await.unwrap(), HandshakeKind::Full, "another name");
        let again = Arc::new({
            let mut config = ClientConfig::clone(&config);
            config.resumption = Resumption::store(Arc::new(Careless(ClientSessionMemoryCache::new(32))));
            config
        });
        assert_eq!(visit(&rig, &again, "a.test").await.unwrap(), HandshakeKind::Full);
        rig.state.resolver().remove("a");
        let refused = visit(&rig, &again, "a.test").await.unwrap_err();
        assert!(refused.to_string().contains("UnrecognisedName"), "no certificate, no session: {refused}");
    }
}

#[tokio::test]
async fn noise_harms_nobody() {
    let rig = Rig::start(App::saying("well").await.upstream);
    let long = vec![0x16; 70_000];
    let noises: [&[u8]; 6] = [
        b"",
        b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
        b"\x16\x03\x01\x00\x05hello",
        b"\x16\x03\x01\xff\xff\x01\xff\xff\xff",
        b"\x80\x2e\x01\x00\x02",
        &long,
    ];
    for noise in noises {
        let mut tcp = tokio::net::TcpStream::connect(rig.address).await.unwrap();
        let _ = tcp.write_all(noise).await;
        let _ = tcp.shutdown().await;
        let _ = soon(tcp.read_to_end(&mut Vec::new())).await;
    }
    for noise in
        ["\0\0\0\0\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET\r\n\r\n", "\r\n\r\n\r\n\r\n\x7f"]
    {
        let answer = rig.talk(noise).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{noise:?}: {answer}");
    }
    for noise in [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\x04\x00\x00\x00\x00\x00"[..],
        b"GET / HTTP/1.1\r\n\r\n",
    ] {
        let mut stream = rig.tls(rig.authority.client(&["h2"]), "a.test").await.unwrap();
        stream.write_all(noise).await.unwrap();
        let _ = soon(stream.read_to_end(&mut Vec::new())).await;
    }
    let answer = soon(rig.h1().await.send_request(get("/"))).await.unwrap();
    assert_eq!(text(answer).await, "well");
}

#[tokio::test]
async fn curl_sees_the_demo_page() {
    crate::bed::needs!("curl");
    let rig = Rig::bare(&settings(Upstream::Demo), Duration::ZERO);
    let certificate = rig.install("main", &["a.test", "b.test"]);
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root.pem");
    std::fs::write(&root, rig.authority.pem()).unwrap();
    let curl = |arguments: &[&str]| {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--fail", "--cacert"])
            .arg(&root)
            .args(["--resolve", &format!("a.test:{}:127.0.0.1", rig.address.port())])
            .args(arguments)
            .output()
            .expect("curl is installed");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let url = format!("https://a.test:{}/", rig.address.port());
    for protocol in ["--http1.1", "--http2"] {
        let page = curl(&[protocol, &url]);
        for wanted in ["a.test, b.test", certificate.serial(), "Front Test CA", "TLSv1_3", "X25519"] {
            assert!(page.contains(wanted), "{wanted}: {page}");
        }
        assert!(page.contains(if protocol == "--http2" { "HTTP/2" } else { "HTTP/1.1" }), "{page}");
        assert!(!page.contains('<'), "{page}");
    }
    let html = curl(&["--header", "accept: text/html", &url]);
    assert!(html.starts_with("<!doctype html>") && html.contains(certificate.serial()), "{html}");
    assert!(!html.contains("{rows}") && !html.contains("{left}"), "{html}");
    assert!(!curl(&["--header", "accept: text/html", &format!("{url}plain")]).contains('<'));
}
