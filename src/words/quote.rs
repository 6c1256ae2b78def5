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

/// Whether a name says that its value is a credential.
static CREDENTIAL: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"(?i-u)(^|[-_])(pass|pwd|pw|key|auth)$|password|passwd|passphrase|secret|token|api-?_?key|access-?_?key|credential|authorization|login$",
    )
    .expect("a constant")
});

/// Shortest value that is looked for in other text; what is shorter is part of too many words, bytes.
const SHORTEST: usize = 6;

/// A command for a sentence: its arguments without the values of those that are named like credentials.
pub(crate) fn command(arguments: &[String], limit: usize) -> String {
    let secrets = secrets(arguments);
    let shown = arguments.iter().zip(&secrets).map(|(word, secret)| match secret {
        Some(secret) => format!("{}{HIDDEN}", &word[..word.len() - secret.len()]),
        None => quoted_line(word, usize::MAX),
    });
    printable(&shown.collect::<Vec<_>>().join(" "), limit)
}

/// The values in a command's arguments and in its environment that are named like credentials.
pub(crate) fn credentials<'a>(
    arguments: &'a [String],
    environment: impl Iterator<Item = (&'a str, &'a str)>,
) -> Vec<&'a str> {
    let named = environment.filter(|(name, _)| is_credential(name)).map(|(_, value)| value);
    secrets(arguments).into_iter().flatten().chain(named).filter(|value| value.len() >= SHORTEST).collect()
}

/// A text without those values.
pub(crate) fn without(text: &str, values: &[&str]) -> String {
    values.iter().fold(text.to_owned(), |text, value| text.replace(value, HIDDEN))
}

/// Of each word, the end that is a credential: `--token VALUE`, `NAME=VALUE`, `-u USER:VALUE`.
fn secrets(words: &[String]) -> Vec<Option<&str>> {
    let mut before = None;
    let each = words.iter().map(|word| {
        let is_value = before.is_some_and(|option: &str| match option {
            // curl's and its like's.
            "-u" | "--user" | "-U" | "--proxy-user" => word.contains(':'),
            _ => is_credential(option),
        });
        before = Some(word.as_str()).filter(|word| word.starts_with('-') && !word.contains('='));
        if is_value {
            before = None;
            return Some(word.as_str());
        }
        let (name, value) = word.split_once('=')?;
        let is_name = !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || "/?&:".contains(c));
        (is_name && is_credential(name) && !is_path_of_key(name, value)).then_some(value)
    });
    each.collect()
}

fn is_credential(name: &str) -> bool {
    CREDENTIAL.is_match(name)
}

fn is_path_of_key(name: &str, value: &str) -> bool {
    name.to_ascii_lowercase().ends_with("key") && value.starts_with('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(words: &[&str]) -> String {
        command(&words.iter().map(ToString::to_string).collect::<Vec<_>>(), 500)
    }

    #[test]
    fn commands_word_by_word() {
        for (words, expected) in [
            (vec!["push", "--token", "S3CRET one", "x"], "push --token *** x"),
            (vec!["push", "--api-token=S3CRET one", "x"], "push --api-token=*** x"),
            (vec!["env", "DB_PASSWORD=S3CRET one", "x"], "env DB_PASSWORD=*** x"),
            (vec!["curl", "-u", "user:S3CRET", "https://x/"], "curl -u *** https://x/"),
            (vec!["curl", "https://user:S3CRET@x/"], "curl https://***@x/"),
            (vec!["curl", "-H", "Authorization: Bearer S3CRET"], "curl -H Authorization: Bearer ***"),
            (vec!["sudo", "-u", "www-data", "x"], "sudo -u www-data x"),
            (vec!["x", "--key=/etc/a/key.pem", "--mode=fast"], "x --key=/etc/a/key.pem --mode=fast"),
            (vec!["x", "--key=S3CRET"], "x --key=***"),
            (vec!["sh", "-c", "echo \u{1b}[2J"], "sh -c echo  [2J"),
            (vec!["systemctl", "reload", "monkey"], "systemctl reload monkey"),
        ] {
            let told = shown(&words);
            assert!(!told.contains("S3CRET"), "{told}");
            assert_eq!(told, expected);
        }
    }

    #[test]
    fn values_of_credentials_are_known_elsewhere() {
        let words = ["x", "--token", "S3CRET", "-p=1"].map(str::to_owned);
        let environment = [("API_TOKEN", "ENV S3CRET"), ("MODE", "production"), ("PASSWORD", "short")];
        let found = credentials(&words, environment.into_iter());
        assert_eq!(found, ["S3CRET", "ENV S3CRET"]);
        assert_eq!(without("a S3CRET b", &found), "a *** b");
    }

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
