//! What a notice says, for a person and for a program.
//!
//! The JSON document, the same for the command and the webhook (a chat system shows `text`):
//!
//! | key | value |
//! |---|---|
//! | `version` | 1; it changes when a key changes its meaning or goes |
//! | `id` | text; the same when a notice is sent again because its arrival was in doubt |
//! | `at` | when it happened, RFC 3339, UTC |
//! | `host` | the machine's name |
//! | `kind` | `obtained`, `renewed`, `attempt-failed`, `expiring`, `expired`, `deploy-failed`, `name-dropped`, `name-back`, `issuer-paused`, `left-open` or `test` |
//! | `certificate` | the certificate's name, or null |
//! | `identifiers` | what it covers or shall cover, as texts |
//! | `cause` | what failed, in constant words; with `kind` and `certificate` a key to group by |
//! | `summary` | one line |
//! | `text` | the whole, in plain words, over several lines |
//! | `details` | a table of values that depend on `kind` |

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::hostname::Identifier;
use crate::store::outbox::{Kind, Notice};
use crate::words::printable;

/// Longest summary, characters.
const MAX_SUMMARY: usize = 200;
/// Longest sentence of the text, characters: what was seen may be an error of several lines.
const MAX_SENTENCE: usize = 1500;
/// Longest list of identifiers; a certificate has 100 at most.
const MAX_IDENTIFIERS: usize = 100;

/// What there is to tell; parts that are empty are left out.
#[derive(Debug, Clone, Default)]
pub struct Account<'a> {
    /// The lineage's name, where it is about one.
    pub certificate: Option<&'a str>,
    /// What that certificate covers or shall cover.
    pub identifiers: &'a [Identifier],
    /// [`Notice::cause`]
    pub cause: &'a str,
    /// One line.
    pub summary: &'a str,
    /// What was seen.
    pub seen: &'a str,
    /// What it means.
    pub meaning: &'a str,
    /// What to do.
    pub remedy: &'a str,
    /// When it is tried again, or what comes next.
    pub next: &'a str,
    /// The same for programs.
    pub details: Map<String, Value>,
}

/// Makes a notice of it, bounded and without anything that a terminal would obey.
pub fn compose(kind: Kind, account: Account<'_>, at: Timestamp, host: &str) -> Notice {
    let summary = printable(account.summary, MAX_SUMMARY);
    let mut text = format!("{host}: {summary}\n");
    for (label, part) in [
        ("What was seen", account.seen),
        ("What it means", account.meaning),
        ("What to do", account.remedy),
        ("What comes next", account.next),
    ] {
        if !part.is_empty() {
            text.push_str(&format!("\n{label}: {}\n", printable(part, MAX_SENTENCE)));
        }
    }
    Notice {
        at,
        host: host.to_owned(),
        kind,
        certificate: account.certificate.map(str::to_owned),
        identifiers: account.identifiers.iter().take(MAX_IDENTIFIERS).cloned().collect(),
        cause: printable(account.cause, MAX_SUMMARY),
        summary,
        text,
        details: account.details,
    }
}

/// The notice by which the administrator tries the ways to him.
pub fn test_notice(at: Timestamp, host: &str) -> Notice {
    let account = Account {
        summary: "this is a test of wicketgate's notices",
        seen: "somebody ran `wicketgate notify --test`",
        meaning: "notices of this machine's certificates arrive here",
        remedy: "nothing",
        ..Account::default()
    };
    compose(Kind::Test, account, at, host)
}

/// The document for programs; `id` is the letter's.
pub(super) fn document(id: u64, notice: &Notice) -> Value {
    json!({
        "version": 1,
        "id": format!("{id:016x}"),
        "at": notice.at,
        "host": notice.host,
        "kind": notice.kind,
        "certificate": notice.certificate,
        "identifiers": notice.identifiers,
        "cause": notice.cause,
        "summary": notice.summary,
        "text": notice.text,
        "details": notice.details,
    })
}

/// This machine's name.
pub fn host() -> String {
    let name = printable(&rustix::system::uname().nodename().to_string_lossy(), 253);
    if name.is_empty() { "localhost".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_stable() {
        let identifiers: Vec<Identifier> = vec!["a.example".parse().unwrap(), "192.0.2.7".parse().unwrap()];
        let account = Account {
            certificate: Some("a.example"),
            identifiers: &identifiers,
            cause: "order",
            summary: "no certificate\u{1b}[2J for a.example",
            seen: "the CA said:\nno",
            next: "it is tried again at noon",
            details: Map::from_iter([("retry-at".to_owned(), json!("2026-11-25T12:00:00Z"))]),
            ..Account::default()
        };
        let notice = compose(Kind::AttemptFailed, account, "2026-11-25T10:00:00Z".parse().unwrap(), "gate");
        let expected = json!({
            "version": 1,
            "id": "000000000000002a",
            "at": "2026-11-25T10:00:00Z",
            "host": "gate",
            "kind": "attempt-failed",
            "certificate": "a.example",
            "identifiers": ["a.example", "192.0.2.7"],
            "cause": "order",
            "summary": "no certificate [2J for a.example",
            "text": "gate: no certificate [2J for a.example\n\nWhat was seen: the CA said:; no\n\nWhat comes next: it is tried again at noon\n",
            "details": { "retry-at": "2026-11-25T12:00:00Z" },
        });
        assert_eq!(document(42, &notice), expected);
    }

    #[test]
    fn the_largest_document_passes_to_the_helper() {
        let long = "\u{10ffff}\"".repeat(2000);
        let name: Identifier = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "b".repeat(57)).parse().unwrap();
        let identifiers = vec![name; 300];
        let account = Account {
            certificate: Some("a"),
            identifiers: &identifiers,
            cause: &long,
            summary: &long,
            seen: &long,
            meaning: &long,
            remedy: &long,
            next: &long,
            details: Map::new(),
        };
        let notice = compose(Kind::Test, account, Timestamp::UNIX_EPOCH, "gate");
        let length = document(u64::MAX, &notice).to_string().len();
        assert!(length < 60_000, "{length}");
    }
}
