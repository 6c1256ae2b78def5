//! What a CA sends: its status, its Content-Type and its Retry-After, a line each, then the body. Bytes that begin like
//! DER are taken for a certificate.

#![no_main]

use std::time::{Duration, SystemTime};

use libfuzzer_sys::fuzz_target;
use wicketgate::acme::read_answer;
use wicketgate::certificate::Certificate;

/// The key of the chain in the corpus.
const KEY: &str = include_str!("../key.pem");
/// When it was valid.
const NOW: Duration = Duration::from_secs(1_800_000_000);

fuzz_target!(|bytes: &[u8]| {
    let now = SystemTime::UNIX_EPOCH + NOW;
    if bytes.starts_with(&[0x30]) {
        return check_chain(&pem(bytes), now);
    }
    let mut parts = bytes.splitn(4, |byte| *byte == b'\n');
    let mut line = || parts.next().unwrap_or_default();
    let (status, kind, wait, body) = (line(), line(), line(), line());
    let status = std::str::from_utf8(status).ok().and_then(|text| text.parse().ok()).unwrap_or(200);
    for told in read_answer(status, kind, wait, body, now) {
        assert!(!told.chars().any(char::is_control), "{told:?}");
        assert!(told.chars().count() < 20_000, "{} characters", told.len());
    }
    if let Ok(chain) = std::str::from_utf8(body) {
        check_chain(chain, now);
    }
});

/// What is taken for a certificate is one for the name that was asked for.
fn check_chain(chain: &str, now: SystemTime) {
    let wanted = ["a.test".parse().unwrap()];
    match Certificate::new(chain, KEY, &wanted, now) {
        Ok(certificate) => {
            assert!(certificate.covers(&wanted[0]) && certificate.not_after() > now);
            let again = Certificate::new(&certificate.fullchain_pem(), KEY, &wanted, now).unwrap();
            assert_eq!(again.identifiers(), certificate.identifiers());
        }
        Err(error) => drop(error.to_string()),
    }
    drop(Certificate::names_in(chain));
}

fn pem(der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for three in der.chunks(3) {
        let bits = (0..3).fold(0_u32, |bits, n| bits << 8 | u32::from(*three.get(n).unwrap_or(&0)));
        for n in 0..4 {
            let is_there = n <= three.len();
            let index = (bits >> (18 - 6 * n) & 63) as usize;
            text.push(if is_there { ALPHABET[index].into() } else { '=' });
        }
    }
    text + "\n-----END CERTIFICATE-----\n"
}
