//! The built-in page: it shows the certificate that it came with.

use std::fmt::Write;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Response, Version};

use super::connection::Session;
use super::resolver::Served;

/// Whether the client would rather read text: it says so by path, or does not ask for HTML.
pub(super) fn wants_text(path: &str, headers: &HeaderMap) -> bool {
    path == "/plain"
        || !headers.get_all(ACCEPT).iter().any(|value| {
            value.as_bytes().to_ascii_lowercase().windows(9).any(|window| window == b"text/html")
        })
}

/// The page, as text or as HTML.
pub(super) fn page(
    served: &Served,
    session: &Session,
    version: Version,
    text: bool,
    now: SystemTime,
) -> Response<Bytes> {
    let facts = Facts::new(served, session, version, now);
    let (kind, body) = if text {
        ("text/plain; charset=utf-8", facts.text())
    } else {
        ("text/html; charset=utf-8", facts.html())
    };
    let mut response = Response::new(Bytes::from(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'",
        ),
    );
    response
}

/// What there is to say, in order.
struct Facts {
    lines: Vec<(&'static str, String)>,
    left: u64,
}

impl Facts {
    fn new(served: &Served, session: &Session, version: Version, now: SystemTime) -> Self {
        let mut names: Vec<String> = served.identifiers.iter().map(ToString::to_string).collect();
        names.extend(served.wildcards.iter().map(|parent| format!("*.{parent}")));
        let left = served.not_after.duration_since(now).map_or(0, |left| left.as_secs());
        let date = |time| httpdate::fmt_http_date(time);
        let lines = vec![
            ("names", names.join(", ")),
            ("serial", served.serial.clone()),
            ("issuer", served.issuer.clone()),
            ("valid from", date(served.not_before)),
            ("valid until", date(served.not_after)),
            ("left", countdown(left)),
            ("protocol", format!("{version:?}")),
            ("tls", tls_line(session)),
        ];
        Self { lines, left }
    }

    fn text(&self) -> String {
        let mut text = String::from("served by wicketgate, with this certificate:\n");
        for (name, value) in &self.lines {
            writeln!(text, "{name:<12} {value}").expect("a String takes everything");
        }
        text
    }

    fn html(&self) -> String {
        let mut rows = String::new();
        for (name, value) in &self.lines {
            let id = if *name == "left" { " id=left" } else { "" };
            write!(rows, "<dt>{name}</dt><dd{id}>{}</dd>", escape(value)).expect("a String takes everything");
        }
        TEMPLATE.replace("{rows}", &rows).replace("{left}", &self.left.to_string())
    }
}

fn tls_line(session: &Session) -> String {
    let parts = [
        session.version.map(|version| format!("{version:?}")),
        session.suite.map(|suite| format!("{suite:?}")),
        session.group.map(|group| format!("{group:?}")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// `61` → `1:01`, longer ones with hours and days.
fn countdown(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    let seconds = seconds % 60;
    match (days, hours) {
        (0, 0) => format!("{minutes}:{seconds:02}"),
        (0, _) => format!("{hours}:{minutes:02}:{seconds:02}"),
        _ => format!("{days} d {hours}:{minutes:02}:{seconds:02}"),
    }
}

/// Text for an HTML element.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

const TEMPLATE: &str = r#"<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>wicketgate</title>
<style>
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:10vh auto;padding:0 1.5rem}
h1{font-size:1.6rem;margin:0 0 .25rem}
p{margin:0 0 2rem;opacity:.75}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.4rem 1.5rem;margin:0;padding:1.25rem 1.5rem;border:1px solid #8886;border-radius:.75rem}
dt{opacity:.65}dd{margin:0;font-family:ui-monospace,monospace;overflow-wrap:anywhere}
#left{font-weight:700;font-variant-numeric:tabular-nums}
</style></head><body>
<h1>The gate is shut, the wicket works.</h1>
<p>This page came with the certificate below. When it is renewed, the numbers change; no connection is dropped.</p>
<dl>{rows}</dl>
<script>
let end=performance.now()+{left}*1000,el=document.getElementById("left"),two=n=>String(n).padStart(2,"0");
setInterval(()=>{let s=Math.max(0,Math.floor((end-performance.now())/1000)),d=Math.floor(s/86400),h=Math.floor(s/3600)%24,m=Math.floor(s/60)%60;
el.textContent=(d?d+" d ":"")+(d||h?h+":"+two(m):m)+":"+two(s%60)},500);
setInterval(()=>fetch(location.href,{headers:{accept:"text/html"}}).then(r=>r.text()).then(t=>{
let fresh=new DOMParser().parseFromString(t,"text/html").querySelectorAll("dd");
document.querySelectorAll("dd").forEach((dd,i)=>{if(dd.id!="left"&&fresh[i])dd.textContent=fresh[i].textContent});
let n=t.match(/performance\.now\(\)\+(\d+)\*1000/);if(n)end=performance.now()+n[1]*1000}).catch(()=>{}),5000);
</script></body></html>
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_for_those_who_do_not_ask_for_html() {
        let accept = |value: &'static str| HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(value))]);
        assert!(wants_text("/", &accept("*/*")));
        assert!(wants_text("/", &HeaderMap::new()));
        assert!(!wants_text("/", &accept("application/xhtml+xml, Text/HTML;q=0.9")));
        assert!(wants_text("/plain", &accept("text/html")));
    }

    #[test]
    fn countdowns() {
        for (seconds, text) in
            [(0, "0:00"), (61, "1:01"), (3_600, "1:00:00"), (90_061, "1 d 1:01:01"), (59, "0:59")]
        {
            assert_eq!(countdown(seconds), text);
        }
    }

    #[test]
    fn markup_in_a_name_stays_text() {
        assert_eq!(escape("CN=<b>&"), "CN=&lt;b&gt;&amp;");
    }
}
