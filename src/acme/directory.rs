//! What the CA's directory says besides its URLs (RFC 8555 section 7.1.1): the library reads it and keeps
//! it to itself, so the transport remembers it as it passes by.

use http::Uri;
use serde_json::Value;

use crate::hostname::Hostname;

/// Most CAA identities that are kept; CAs have one to five.
const CAA_IDENTITIES: usize = 32;

/// The parts of a directory that the engine asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Directory {
    /// Where renewal information is asked for, without a slash at its end (RFC 9773 section 4.1).
    pub(super) renewal_info: Option<String>,
    /// What a CAA record may name to let this CA sign.
    pub(super) caa_identities: Vec<String>,
}

impl Directory {
    /// Reads a directory. None where the text is none; what is malformed inside one counts as absent.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let document: Value = serde_json::from_slice(body).ok()?;
        document.get("newOrder")?.as_str()?;
        let identities = document.pointer("/meta/caaIdentities").and_then(Value::as_array);
        Some(Self {
            renewal_info: document.get("renewalInfo").and_then(Value::as_str).and_then(https_base),
            caa_identities: identities
                .into_iter()
                .flatten()
                .filter_map(|identity| Hostname::parse_any(identity.as_str()?).ok())
                .map(String::from)
                .take(CAA_IDENTITIES)
                .collect(),
        })
    }
}

fn https_base(url: &str) -> Option<String> {
    let parsed: Uri = url.parse().ok()?;
    let is_usable =
        parsed.scheme_str() == Some("https") && parsed.host().is_some() && parsed.query().is_none();
    is_usable.then(|| url.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<(Option<String>, String)> {
        Directory::parse(text.as_bytes()).map(|d| (d.renewal_info, d.caa_identities.join(" ")))
    }

    #[test]
    fn directories_of_every_shape() {
        for (text, expected) in [
            (r#"{"newOrder":"https://ca/o"}"#, Some((None, ""))),
            (
                r#"{"newOrder":"https://ca/o","renewalInfo":"https://ca/ari/"}"#,
                Some((Some("https://ca/ari"), "")),
            ),
            (r#"{"newOrder":"https://ca/o","renewalInfo":"http://ca/ari"}"#, Some((None, ""))),
            (r#"{"newOrder":"https://ca/o","renewalInfo":"https://ca/ari?x"}"#, Some((None, ""))),
            (r#"{"newOrder":"https://ca/o","renewalInfo":"/ari"}"#, Some((None, ""))),
            (r#"{"newOrder":"https://ca/o","renewalInfo":7,"meta":[]}"#, Some((None, ""))),
            (
                r#"{"newOrder":"https://ca/o","meta":{"caaIdentities":["CA.example","b c",3,"x.example"]}}"#,
                Some((None, "ca.example x.example")),
            ),
            (r#"{"newOrder":"https://ca/o","meta":{"caaIdentities":"ca.example"}}"#, Some((None, ""))),
            (r#"{"suggestedWindow":{}}"#, None),
            (r#"{"newOrder":1}"#, None),
            ("[]", None),
            ("", None),
            ("\u{0}", None),
        ] {
            let expected = expected.map(|(url, names)| (url.map(str::to_owned), names.to_owned()));
            assert_eq!(parsed(text), expected, "{text}");
        }
        let many =
            format!(r#"{{"newOrder":"u","meta":{{"caaIdentities":[{}"a.b"]}}}}"#, r#""a.b","#.repeat(999));
        assert_eq!(Directory::parse(many.as_bytes()).unwrap().caa_identities.len(), CAA_IDENTITIES);
    }
}
