//! What of foreign text may be shown: of servers' files, of commands and of what they say, all but what opens
//! doors. Pure.

use std::sync::LazyLock;

use regex::{Captures, Regex};

use super::printable;

/// What stands in the place of a value that is not shown.
const HIDDEN: &str = "***";

/// `https://USER:PASSWORD@`
static USERINFO: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r#"(://)[^/ \t\r\n"'`<>@]*(?:@[^/ \t\r\n"'`<>@]*)*@"#).expect("a constant"));

/// `password=SECRET`, and such with quotes; a path that a `key=` names is none.
static ASSIGNED: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r#"([A-Za-z0-9_-]*(?i-u:login|password|passwd|passphrase|pass|pwd|secret|token|key|credentials?|auth) ?= ?)("[^"]*"?|'[^']*'?|[^ \t\r\n"'`;&|]+)"#,
    )
    .expect("a constant")
});

/// `password SECRET`, `Authorization "Basic SECRET"`
static FOLLOWING: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r#"(^|[ \t"'`])([A-Za-z0-9_-]*(?i-u:password|passwd|passphrase|secret|token|api-?key)|(?i-u:auth|basic|bearer))(:?[ \t]+["']?)([^ \t\r\n"'`;]+)"#,
    )
    .expect("a constant")
});

/// The text without credentials where they are marked as such.
pub(crate) fn hidden(text: &str) -> String {
    let text = USERINFO.replace_all(text, format!("${{1}}{HIDDEN}@"));
    let text = ASSIGNED.replace_all(&text, |found: &Captures<'_>| {
        let is_path = found[1].to_ascii_lowercase().trim_end_matches([' ', '=']).ends_with("key")
            && found[2].trim_start_matches(['"', '\'']).starts_with('/');
        if is_path { found[0].to_owned() } else { format!("{}{HIDDEN}", &found[1]) }
    });
    text.into_owned()
}

/// A piece of foreign text for a sentence: without credentials, on one line, and not too long.
pub(crate) fn quoted(text: &str, limit: usize) -> String {
    printable(&hidden(text), limit)
}

/// A whole line of foreign text for a sentence.
pub(crate) fn quoted_line(text: &str, limit: usize) -> String {
    let text = FOLLOWING.replace_all(text, format!("${{1}}${{2}}${{3}}{HIDDEN}"));
    quoted(&text, limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_not_shown() {
        for text in [
            "cache_peer 10.0.0.1 parent 80 0 login=admin:SECRET originserver",
            "rewrite ^ https://u:SECRET@x/",
            "rewrite ^ https://SECRET@x/ permanent",
            "rewrite ^ https://u:SE@CRET@x/",
            "x password=\"SECRET and SECRET\" y",
            "x api_key=SECRET;",
            "if ($arg_token = SECRET)",
            "return 301 https://x/?a=b&token=SECRET&c",
            "user x insecure-password SECRET",
            "stats auth admin:SECRET",
            "RequestHeader set Authorization \"Basic SECRET\"",
            "proxy_set_header X-Api-Key SECRET",
        ] {
            let shown = quoted_line(text, 160);
            assert!(!shown.contains("SECRET") && !shown.contains("CRET@"), "{shown}");
            assert!(shown.contains(HIDDEN), "{shown}");
        }
        // What is cut off cannot be told from what is harmless.
        assert!(!quoted_line("rewrite ^ https://user:SECRET@x/", 25).contains("SEC"));
    }

    #[test]
    fn the_rest_is_shown_as_it_is() {
        for text in [
            "https_port 443 accel tls-cert=/etc/a/fullchain.pem tls-key=/etc/a/privkey.pem",
            "return 301 https://$host$request_uri",
            "redirect scheme https code 301 if !{ ssl_fc }",
            "auth_basic closed",
            "RewriteRule ^ https://%{HTTP_HOST}/@x [R=301,L]",
        ] {
            assert_eq!(quoted_line(text, 160), text);
        }
    }
}
