//! What testssl.sh thinks of the front, with a certificate of the embedded CA and HSTS.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::bed::process::run_within;
use crate::bed::wicketgate::Setup;
use crate::bed::{Bed, needs};

const NAME: &str = "www.example.test";

/// Findings that are none of the front, by the beginning of their name, and why.
const EXCUSED: [(&str, &str); 5] = [
    (
        "cert_revocation",
        "the embedded CA's certificates cannot be revoked by list or OCSP, and live for a month",
    ),
    ("cert_expirationStatus", "the same: it wants more than a month"),
    ("cert_notAfter", "the same"),
    ("intermediate_cert", "the same"),
    // HIGH in 3.0, a remark in 3.2: where all ciphers are good, the client knows best which one it has hardware for.
    ("cipher_order", "the client chooses among good ones"),
];

/// What is looked at, in any version.
const SOUND: [&str; 20] = [
    "SSLv2",
    "SSLv3",
    "TLS1_2",
    "TLS1_3",
    "ALPN_HTTP2",
    "cert_trust",
    "cert_chain_of_trust",
    "HSTS_time",
    "HSTS_subdomains",
    "heartbleed",
    "CCS",
    "ticketbleed",
    "ROBOT",
    "secure_client_renego",
    "CRIME_TLS",
    "POODLE_SSL",
    "SWEET32",
    "FREAK",
    "LOGJAM",
    "LUCKY13",
];

/// A finding of testssl.sh, as its JSON has it.
struct Finding {
    id: String,
    severity: String,
    text: String,
}

fn findings(json: &str) -> Vec<Finding> {
    let parsed: Vec<Value> = serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"));
    let text = |finding: &Value, name: &str| finding[name].as_str().unwrap_or_default().to_owned();
    let of =
        |f: &Value| Finding { id: text(f, "id"), severity: text(f, "severity"), text: text(f, "finding") };
    parsed.iter().map(of).collect()
}

#[test]
fn testssl_finds_nothing_above_low() {
    needs!("testssl", "openssl");
    let bed = Bed::new();
    let setup = Setup::embedded(&bed)
        .certificate(&[NAME])
        .with("key-type = [\"ecdsa-p256\", \"rsa-2048\"]")
        .tables("[front.hsts]\nmax-age = \"365days\"\ninclude-subdomains = true\n");
    let _daemon = setup.start_until_served(&bed, NAME);
    let report = bed.path("report.json");
    // Another version of it may be named, to see what that one thinks.
    let mut testssl = Command::new(std::env::var_os("TESTSSL").unwrap_or("testssl".into()));
    testssl.args([
        "--quiet",
        "--color",
        "0",
        "--warnings",
        "off",
        "--nodns",
        "none",
        "--fast",
        "--ip",
        "127.0.0.1",
    ]);
    testssl.arg("--add-ca").arg(setup.state.join("embedded-ca/root.pem"));
    testssl.arg("--jsonfile").arg(&report).arg(format!("https://{NAME}:{}/", setup.front));
    let ran = run_within(Duration::from_secs(300), &mut testssl);
    let findings =
        findings(&std::fs::read_to_string(&report).unwrap_or_else(|error| panic!("{error}\n{ran:?}")));
    let of = |id: &str| findings.iter().find(|f| f.id.split(' ').next() == Some(id));
    for id in SOUND {
        let found = of(id).unwrap_or_else(|| panic!("it did not look at {id}\n{}", ran.text()));
        assert_eq!(found.severity, "OK", "{id}: {}\n{}", found.text, ran.text());
    }
    for id in ["TLS1", "TLS1_1"] {
        assert!(of(id).is_some_and(|f| f.text.starts_with("not offered")), "{id}\n{}", ran.text());
    }
    let known = |f: &Finding| EXCUSED.iter().any(|(id, _)| f.id.starts_with(id));
    let bad: Vec<_> = findings
        .iter()
        .filter(|f| ["MEDIUM", "HIGH", "CRITICAL", "FATAL"].contains(&f.severity.as_str()) && !known(f))
        .map(|f| format!("{} {}: {}", f.severity, f.id, f.text))
        .collect();
    assert!(bad.is_empty(), "{bad:#?}\n{}", ran.text());
    // Debian 12's does not grade yet; a newer one does.
    if let Some(grade) = of("overall_grade") {
        assert_eq!(grade.text, "A+", "{}", ran.text());
    }
}
