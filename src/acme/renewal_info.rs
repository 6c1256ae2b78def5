//! When the CA wants a certificate renewed (ACME renewal information, RFC 9773).
//!
//! Asked for over the engine's own transport: the library wants a Retry-After in the answer, which a CA
//! may leave out.

use std::fmt;
use std::time::{Duration, SystemTime};

use http::Uri;
use instant_acme::{CertificateIdentifier, Error};
use jiff::Timestamp;
use serde_json::Value;

use super::problem::{AcmeError, Stage, Verdict};
use super::session::Session;
use crate::certificate::Certificate;
use crate::clock;
use crate::words::printable;

const ACTION: &str = "ask the CA when to renew";

/// Longest URL of an explanation that is shown, in bytes.
const MAX_EXPLANATION_URL: usize = 500;

/// Soonest and latest moment at which a CA's Retry-After makes us ask again (RFC 9773 section 4.3.3).
const ASK_AGAIN: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(86_400));

/// The identity of a certificate at its CA: what an order says that it replaces (RFC 9773 section 4.1).
#[derive(Clone, PartialEq, Eq)]
pub struct CertificateId(CertificateIdentifier<'static>);

impl CertificateId {
    /// The identity of this certificate. None where its leaf has no authority key identifier, without
    /// which it has none.
    pub fn of(certificate: &Certificate) -> Option<Self> {
        let leaf = certificate.chain().first()?;
        CertificateIdentifier::try_from(leaf).ok().map(|id| Self(id.into_owned()))
    }

    pub(super) fn as_acme(&self) -> CertificateIdentifier<'static> {
        self.0.clone()
    }
}

impl fmt::Display for CertificateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for CertificateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CertificateId({})", self.0)
    }
}

/// The window in which the CA wants a certificate renewed (RFC 9773 section 4.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenewalWindow {
    /// Its start; in the past where the certificate should be renewed at once.
    pub start: SystemTime,
    /// Its end, after its start.
    pub end: SystemTime,
    /// An http or https URL of a page that tells why.
    pub explanation_url: Option<String>,
    /// When the CA wants to be asked again, one minute to one day ahead.
    pub ask_again: Option<SystemTime>,
}

impl Session {
    /// Whether the CA tells when it wants certificates renewed.
    pub fn offers_renewal_info(&self) -> bool {
        self.transport.directory().renewal_info.is_some()
    }

    /// Asks when the CA wants this certificate renewed.
    ///
    /// # Errors
    /// The CA tells nothing of the kind, knows no such certificate, cannot be reached, or its answer is
    /// no window. None of this stands in the way of a renewal.
    pub async fn renewal_info(&self, certificate: &Certificate) -> Result<RenewalWindow, AcmeError> {
        let refused = |verdict, reason: &str| AcmeError::new(ACTION, verdict, reason);
        let base = self
            .transport
            .directory()
            .renewal_info
            .ok_or_else(|| refused(Verdict::Permanent, "its directory offers no renewal information"))?;
        let id = CertificateId::of(certificate).ok_or_else(|| {
            refused(Verdict::Permanent, "the certificate has no authority key identifier to ask by")
        })?;
        let answer = self.transport.get(format!("{base}/{id}")).await;
        let (body, asked) = answer
            .map_err(|e| AcmeError::from_library(ACTION, Stage::RenewalInfo, &Error::Other(Box::new(e))))?;
        window(&body, asked, clock::now()).map_err(|reason| refused(Verdict::Unavailable, &reason))
    }
}

/// Reads the CA's answer; `asked` is its Retry-After.
pub(super) fn window(
    body: &[u8],
    asked: Option<SystemTime>,
    now: SystemTime,
) -> Result<RenewalWindow, String> {
    let document: Value =
        serde_json::from_slice(body).map_err(|e| format!("the answer is not JSON ({e})"))?;
    let moment = |name: &str| -> Result<SystemTime, String> {
        let value = document.pointer(&format!("/suggestedWindow/{name}"));
        let text = value
            .and_then(Value::as_str)
            .ok_or_else(|| format!("the answer names no {name} of a suggested window"))?;
        let parsed: Result<Timestamp, _> = text.parse();
        let timestamp = parsed.map_err(|_| {
            format!("the {name} of the suggested window is no date (RFC 3339): `{}`", printable(text, 60))
        })?;
        Ok(timestamp.into())
    };
    let (start, end) = (moment("start")?, moment("end")?);
    if end <= start {
        return Err("the suggested window ends before it starts".to_owned());
    }
    let explanation_url = document.get("explanationURL").and_then(Value::as_str);
    Ok(RenewalWindow {
        start,
        end,
        explanation_url: explanation_url.filter(|url| is_shown(url)).map(str::to_owned),
        ask_again: asked.map(|at| at.clamp(now + ASK_AGAIN.0, now + ASK_AGAIN.1)),
    })
}

fn is_shown(url: &str) -> bool {
    let is_web = |url: &Uri| matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some();
    url.len() <= MAX_EXPLANATION_URL
        && url.bytes().all(|b| b.is_ascii_graphic())
        && url.parse().is_ok_and(|url| is_web(&url))
}

#[cfg(test)]
mod tests {
    use super::*;
    use instant_acme::CertificateIdentifier;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, SerialNumber};
    use rustls::pki_types::Der;

    fn at(text: &str) -> SystemTime {
        text.parse::<Timestamp>().unwrap().into()
    }

    fn now() -> SystemTime {
        at("2026-11-01T00:00:00Z")
    }

    fn answer(start: &str, end: &str) -> String {
        format!(r#"{{"suggestedWindow":{{"start":"{start}","end":"{end}"}}}}"#)
    }

    /// The example of RFC 9773 section 4.1.
    #[test]
    fn the_identity_of_the_rfc() {
        let key_id = [
            0x69, 0x88, 0x5b, 0x6b, 0x87, 0x46, 0x40, 0x41, 0xe1, 0xb3, 0x7b, 0x84, 0x7b, 0xa0, 0xae, 0x2c,
            0xde, 0x01, 0xc8, 0xd4,
        ];
        let serial = [0x00, 0x87, 0x65, 0x43, 0x21];
        let id = CertificateIdentifier::new(Der::from_slice(&key_id), Der::from_slice(&serial));
        assert_eq!(CertificateId(id.into_owned()).to_string(), "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE");
    }

    #[test]
    fn the_identity_of_a_certificate() {
        let key = KeyPair::generate().unwrap();
        let made = |with_key_id| {
            let mut params = CertificateParams::new(["a.example".to_owned()]).unwrap();
            params.use_authority_key_identifier_extension = with_key_id;
            params.serial_number = Some(SerialNumber::from(vec![0x87, 0x65, 0x43, 0x21]));
            let pem = params.self_signed(&key).unwrap().pem();
            Certificate::stored(&pem, &key.serialize_pem()).unwrap()
        };
        let id = CertificateId::of(&made(true)).unwrap().to_string();
        assert!(id.ends_with(".AIdlQyE") && id.len() > 10, "{id}");
        assert_eq!(CertificateId::of(&made(false)), None);
    }

    #[test]
    fn windows_of_any_year_and_offset() {
        for (start, end) in [
            ("2026-11-02T00:00:00Z", "2026-11-03T00:00:00Z"),
            ("2026-11-02T02:00:00+02:00", "2026-11-02t23:59:60.5z"),
            ("0001-01-01T00:00:00Z", "9998-12-31T23:59:59-11:00"),
            ("1969-12-31T23:59:59Z", "1970-01-01T00:00:00.000000001Z"),
        ] {
            let read = window(answer(start, end).as_bytes(), None, now()).unwrap();
            assert_eq!((read.start, read.end), (at(start), at(end)));
            assert_eq!((read.explanation_url, read.ask_again), (None, None));
        }
    }

    #[test]
    fn answers_that_are_no_window_are_named() {
        for (body, words) in [
            ("", "the answer is not JSON"),
            ("<html>", "the answer is not JSON"),
            ("{", "the answer is not JSON"),
            ("null", "names no start"),
            ("[]", "names no start"),
            (r#"{"suggestedWindow":[]}"#, "names no start"),
            (r#"{"suggestedWindow":{"start":5}}"#, "names no start"),
            (r#"{"suggestedWindow":{"start":"2026-11-02T00:00:00Z"}}"#, "names no end"),
            (&answer("tomorrow\\u001b[2J", "later"), "the start of the suggested window is no date"),
            (
                &answer("2026-11-02T00:00:00", "2026-11-03T00:00:00"),
                "start of the suggested window is no date",
            ),
            (
                &answer("2026-11-02T00:00:00Z", "2026-13-03T00:00:00Z"),
                "end of the suggested window is no date",
            ),
            (
                &answer("2026-11-02T00:00:00Z", "99999-01-01T00:00:00Z"),
                "end of the suggested window is no date",
            ),
            (&answer("2026-11-02T00:00:00Z", "2026-11-02T00:00:00Z"), "ends before it starts"),
            (&answer("2026-11-02T00:00:00Z", "2026-11-01T00:00:00Z"), "ends before it starts"),
        ] {
            let refused = window(body.as_bytes(), None, now()).unwrap_err();
            assert!(refused.contains(words), "{body}: {refused}");
            assert!(!refused.contains('\u{1b}'));
        }
    }

    #[test]
    fn an_explanation_is_a_short_web_address_or_none() {
        let long = format!("https://ca.example/{}", "x".repeat(MAX_EXPLANATION_URL));
        for (url, is_shown) in [
            ("https://ca.example/why?x=1", true),
            ("HTTP://ca.example", true),
            ("javascript:alert(1)", false),
            ("ftp://ca.example/", false),
            ("/why", false),
            ("https://", false),
            ("https://ca.example/a b", false),
            ("https://ca.example/\\u001b", false),
            ("https://ca.example/\u{202e}", false),
            (&long, false),
            ("", false),
        ] {
            let body = format!(
                r#"{{"explanationURL":"{url}","suggestedWindow":{{"start":"2026-11-02T00:00:00Z","end":"2026-11-03T00:00:00Z"}}}}"#
            );
            let shown = window(body.as_bytes(), None, now()).unwrap().explanation_url;
            assert_eq!(shown, is_shown.then(|| url.to_owned()), "{url}");
        }
    }

    #[test]
    fn asking_again_stays_within_a_minute_and_a_day() {
        let body = answer("2026-11-02T00:00:00Z", "2026-11-03T00:00:00Z");
        for (asked, expected) in [
            (None, None),
            (Some("2026-11-01T06:00:00Z"), Some("2026-11-01T06:00:00Z")),
            (Some("2026-11-01T00:00:01Z"), Some("2026-11-01T00:01:00Z")),
            (Some("1994-11-06T08:49:37Z"), Some("2026-11-01T00:01:00Z")),
            (Some("2162-01-01T00:00:00Z"), Some("2026-11-02T00:00:00Z")),
        ] {
            let read = window(body.as_bytes(), asked.map(at), now()).unwrap();
            assert_eq!(read.ask_again, expected.map(at), "{asked:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_odd(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = window(&body, None, now());
        }

        #[test]
        fn a_window_that_is_accepted_has_a_length(start in "\\PC{0,30}", end in "\\PC{0,30}") {
            let body = serde_json::json!({ "suggestedWindow": { "start": start, "end": end } }).to_string();
            if let Ok(read) = window(body.as_bytes(), None, now()) {
                prop_assert!(read.start < read.end);
            }
        }
    }
}
