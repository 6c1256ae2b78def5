//! A line of the access log. Pure.
//!
//! Whatever a client sends, it stays one line: what could end it, or a field of it, is escaped, and so is everything
//! that is not ASCII.

use std::io::Write;
use std::net::IpAddr;
use std::time::Duration;

use http::Version;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use rustls::ProtocolVersion;

/// The most of a client's words that is taken over from one field, bytes.
const LONGEST: usize = 4096;

/// What there is to say of a request and its response.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    /// The client, as far as those before the front are believed.
    pub client: IpAddr,
    /// The host that was asked for.
    pub host: Option<&'a [u8]>,
    /// GET, say.
    pub method: &'a str,
    /// Path and query.
    pub target: &'a [u8],
    /// The protocol between client and front.
    pub version: Version,
    /// As sent; 499 where the client left before there was an answer.
    pub status: u16,
    /// Of the response's body.
    pub bytes: u64,
    /// That was all of it.
    pub is_complete: bool,
    /// From the request's header to the end of the response's body.
    pub duration: Duration,
    /// From sending the request on to the header of the application's response.
    pub upstream: Option<Duration>,
    /// In the client's words.
    pub referer: Option<&'a [u8]>,
    /// In the client's words.
    pub user_agent: Option<&'a [u8]>,
    /// As agreed on.
    pub tls: Option<ProtocolVersion>,
}

/// A moment in the way of [`combined`]: `10/Oct/2000:13:55:36 -0700`.
pub fn combined_stamp(at: Timestamp, zone: &TimeZone) -> String {
    at.to_zoned(zone.clone()).strftime("%d/%b/%Y:%H:%M:%S %z").to_string()
}

/// Adds a line in the "combined" format of Apache and nginx, its escapes (`\xHH`) being nginx's.
pub fn combined(out: &mut Vec<u8>, line: &Line<'_>, stamp: &str) {
    put(out, format_args!("{} - - [{stamp}] \"", line.client));
    escaped(out, line.method.as_bytes());
    out.push(b' ');
    escaped(out, line.target);
    put(out, format_args!(" {}\" {} {} \"", protocol(line.version), line.status, line.bytes));
    escaped(out, line.referer.unwrap_or(b"-"));
    out.extend_from_slice(b"\" \"");
    escaped(out, line.user_agent.unwrap_or(b"-"));
    out.extend_from_slice(b"\"\n");
}

/// Adds a line with a JSON object. What is no UTF-8 becomes U+FFFD; durations are seconds.
pub fn json(out: &mut Vec<u8>, line: &Line<'_>, at: Timestamp) {
    put(out, format_args!("{{\"time\":\"{at:.3}\",\"client\":\"{}\",\"host\":", line.client));
    text(out, line.host);
    out.extend_from_slice(b",\"method\":");
    text(out, Some(line.method.as_bytes()));
    out.extend_from_slice(b",\"target\":");
    text(out, Some(line.target));
    put(
        out,
        format_args!(
            ",\"version\":\"{}\",\"status\":{},\"bytes\":{},\"complete\":{},\"duration\":{}",
            protocol(line.version),
            line.status,
            line.bytes,
            line.is_complete,
            Seconds(line.duration)
        ),
    );
    match line.upstream {
        Some(upstream) => put(out, format_args!(",\"upstream-duration\":{}", Seconds(upstream))),
        None => out.extend_from_slice(b",\"upstream-duration\":null"),
    }
    out.extend_from_slice(b",\"referer\":");
    text(out, line.referer);
    out.extend_from_slice(b",\"user-agent\":");
    text(out, line.user_agent);
    out.extend_from_slice(b",\"tls\":");
    text(out, tls(line.tls).map(str::as_bytes));
    out.extend_from_slice(b"}\n");
}

fn put(out: &mut Vec<u8>, arguments: std::fmt::Arguments<'_>) {
    // Writing into memory does not fail.
    let _ = out.write_fmt(arguments);
}

fn cut(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(LONGEST)]
}

fn escaped(out: &mut Vec<u8>, bytes: &[u8]) {
    for byte in cut(bytes) {
        match byte {
            b'"' | b'\\' | 0..0x20 | 0x7f.. => put(out, format_args!("\\x{byte:02X}")),
            plain => out.push(*plain),
        }
    }
}

/// A JSON string in ASCII, or `null`.
fn text(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    let Some(bytes) = bytes else { return out.extend_from_slice(b"null") };
    out.push(b'"');
    for chunk in cut(bytes).utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\\' => out.extend_from_slice(&[b'\\', c as u8]),
                ' '..='~' => out.push(c as u8),
                other => {
                    for unit in other.encode_utf16(&mut [0; 2]) {
                        put(out, format_args!("\\u{unit:04x}"));
                    }
                }
            }
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
    out.push(b'"');
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}

fn tls(version: Option<ProtocolVersion>) -> Option<&'static str> {
    match version? {
        ProtocolVersion::TLSv1_3 => Some("TLSv1.3"),
        ProtocolVersion::TLSv1_2 => Some("TLSv1.2"),
        _ => None,
    }
}

/// To the microsecond.
struct Seconds(Duration);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:06}", self.0.as_secs(), self.0.subsec_micros())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::tz::Offset;
    use proptest::prelude::*;

    fn line() -> Line<'static> {
        Line {
            client: "192.0.2.1".parse().unwrap(),
            host: Some(b"a.test"),
            method: "GET",
            target: b"/apache_pb.gif?a=b",
            version: Version::HTTP_11,
            status: 200,
            bytes: 2326,
            is_complete: true,
            duration: Duration::from_micros(1_000_250),
            upstream: Some(Duration::from_millis(7)),
            referer: Some(b"http://www.example.com/start.html"),
            user_agent: Some(b"Mozilla/4.08 [en] (Win98; I ;Nav)"),
            tls: Some(ProtocolVersion::TLSv1_3),
        }
    }

    fn at() -> Timestamp {
        "2000-10-10T20:55:36.0421Z".parse().unwrap()
    }

    fn as_combined(line: &Line<'_>) -> String {
        let mut out = Vec::new();
        combined(&mut out, line, &combined_stamp(at(), &TimeZone::fixed(Offset::constant(-7))));
        String::from_utf8(out).unwrap()
    }

    fn as_json(line: &Line<'_>) -> String {
        let mut out = Vec::new();
        json(&mut out, line, at());
        String::from_utf8(out).unwrap()
    }

    /// The example of Apache's documentation.
    #[test]
    fn combined_lines() {
        assert_eq!(
            as_combined(&line()),
            "192.0.2.1 - - [10/Oct/2000:13:55:36 -0700] \"GET /apache_pb.gif?a=b HTTP/1.1\" 200 2326 \
             \"http://www.example.com/start.html\" \"Mozilla/4.08 [en] (Win98; I ;Nav)\"\n"
        );
        let bare = Line {
            client: "2001:db8::1".parse().unwrap(),
            version: Version::HTTP_2,
            status: 499,
            bytes: 0,
            referer: None,
            user_agent: Some(b""),
            ..line()
        };
        assert_eq!(
            as_combined(&bare),
            "2001:db8::1 - - [10/Oct/2000:13:55:36 -0700] \"GET /apache_pb.gif?a=b HTTP/2.0\" 499 0 \"-\" \"\"\n"
        );
    }

    #[test]
    fn json_lines() {
        assert_eq!(
            as_json(&line()),
            "{\"time\":\"2000-10-10T20:55:36.042Z\",\"client\":\"192.0.2.1\",\"host\":\"a.test\",\"method\":\"GET\",\
             \"target\":\"/apache_pb.gif?a=b\",\"version\":\"HTTP/1.1\",\"status\":200,\"bytes\":2326,\
             \"complete\":true,\"duration\":1.000250,\"upstream-duration\":0.007000,\
             \"referer\":\"http://www.example.com/start.html\",\
             \"user-agent\":\"Mozilla/4.08 [en] (Win98; I ;Nav)\",\"tls\":\"TLSv1.3\"}\n"
        );
        let bare = Line { host: None, upstream: None, referer: None, user_agent: None, tls: None, ..line() };
        let read: serde_json::Value = serde_json::from_str(&as_json(&bare)).unwrap();
        for key in ["host", "upstream-duration", "referer", "user-agent", "tls"] {
            assert!(read[key].is_null(), "{key}");
        }
    }

    #[test]
    fn what_a_client_sends_cannot_end_a_field_or_a_line() {
        for (sent, in_combined, in_json) in [
            (&b"\" 200 1 \"x"[..], "\\x22 200 1 \\x22x", "\\\" 200 1 \\\"x"),
            (b"a\\\"", "a\\x5C\\x22", "a\\\\\\\""),
            (b"a\r\n192.0.2.9", "a\\x0D\\x0A192.0.2.9", "a\\u000d\\u000a192.0.2.9"),
            (b"\x00\x1b[2J\x7f", "\\x00\\x1B[2J\\x7F", "\\u0000\\u001b[2J\\u007f"),
            ("b\u{fc}cher \u{202e}".as_bytes(), "b\\xC3\\xBCcher \\xE2\\x80\\xAE", "b\\u00fccher \\u202e"),
            ("\u{1f600}".as_bytes(), "\\xF0\\x9F\\x98\\x80", "\\ud83d\\ude00"),
            (b"\xff\xfea", "\\xFF\\xFEa", "\\ufffd\\ufffda"),
        ] {
            let line = Line { user_agent: Some(sent), ..line() };
            let told = as_combined(&line);
            assert!(told.ends_with(&format!(" \"{in_combined}\"\n")), "{told}");
            let told = as_json(&line);
            assert!(told.contains(&format!(",\"user-agent\":\"{in_json}\",")), "{told}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_make_one_line(
            target in prop::collection::vec(any::<u8>(), 0..5000),
            referer in prop::option::of(prop::collection::vec(any::<u8>(), 0..100)),
            agent in prop::option::of(prop::collection::vec(any::<u8>(), 0..100)),
            micros in any::<u64>(),
        ) {
            let line = Line {
                target: &target,
                host: referer.as_deref(),
                referer: referer.as_deref(),
                user_agent: agent.as_deref(),
                duration: Duration::from_micros(micros),
                ..line()
            };
            for told in [as_combined(&line), as_json(&line)] {
                let body = told.strip_suffix('\n').unwrap();
                prop_assert!(body.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{}", body);
            }
            let told = as_combined(&line);
            prop_assert_eq!(told.matches('"').count(), 6, "three quoted fields: {}", told);
            let read: serde_json::Value = serde_json::from_str(&as_json(&line)).unwrap();
            let agent = agent.map(|agent| String::from_utf8_lossy(&agent).into_owned());
            prop_assert_eq!(read["user-agent"].as_str(), agent.as_deref());
        }
    }
}
