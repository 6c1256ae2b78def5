//! `[[gate.opening]]`, checked.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::deploy::{command, environment};
use super::problem::seen;
use super::section::Section;
use super::{Opening, OpeningWay};
use crate::words::quote;

/// Most of them.
const MOST: usize = 16;
/// Families that have sets of ports (nft(8)).
const FAMILIES: [&str; 3] = ["inet", "ip", "ip6"];
/// Longest name of a table or a set, bytes: the kernel's limit, its ending zero byte not counted.
const LONGEST: usize = 255;

/// How what was opened is shut, as it is kept on disk while it is open: whoever shuts it may know another
/// configuration, or none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Closing {
    /// By taking ports out of a set of nftables.
    Nftables {
        /// Family, table, name.
        set: [String; 3],
        /// The ports.
        ports: BTreeSet<u16>,
    },
    /// By a command.
    Command {
        /// The command.
        close: Vec<String>,
        /// Its variables.
        environment: BTreeMap<String, String>,
        /// Its time, seconds.
        timeout: u64,
    },
}

impl Opening {
    /// How it is shut.
    pub fn closing(&self) -> Closing {
        match &self.way {
            OpeningWay::Nftables { set, ports } => {
                Closing::Nftables { set: set.clone(), ports: ports.clone() }
            }
            OpeningWay::Commands { close, environment, timeout, .. } => Closing::Command {
                close: close.clone(),
                environment: environment.clone(),
                timeout: timeout.as_secs(),
            },
        }
    }
}

/// What is open, or may be, as it is kept on disk.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", from = "WrittenRecord")]
pub struct OpeningRecord {
    /// Who has opened it last.
    pub owner: String,
    /// How it is shut.
    pub open: Vec<Closing>,
}

/// As it is, or as it was written before there were owners.
#[derive(Deserialize)]
#[serde(untagged)]
enum WrittenRecord {
    Owned { owner: String, open: Vec<Closing> },
    Bare(Vec<Closing>),
}

impl From<WrittenRecord> for OpeningRecord {
    fn from(written: WrittenRecord) -> Self {
        match written {
            WrittenRecord::Owned { owner, open } => Self { owner, open },
            WrittenRecord::Bare(open) => Self { owner: String::new(), open },
        }
    }
}

impl fmt::Display for Closing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nftables { set, ports } => {
                let ports: Vec<_> = ports.iter().map(ToString::to_string).collect();
                write!(f, "{} in the nftables set `{}`", ports.join(", "), set.join(" "))
            }
            Self::Command { close, .. } => {
                write!(f, "what `{}` shuts", quote::command(close, 200))
            }
        }
    }
}

pub(super) fn openings(gate: &Section<'_>, listen: &[SocketAddr]) -> Vec<Opening> {
    let sections = gate.tables("opening");
    if let Some(section) = sections.get(MOST) {
        section.refuse(&format!("{} openings; write {MOST} at most", sections.len()));
    }
    let openings: Vec<_> = sections.iter().filter_map(|section| opening(section, listen)).collect();
    let same = |place: &usize| openings[..*place].iter().any(|o| o.way == openings[*place].way);
    if let Some(place) = (0..openings.len()).find(same) {
        sections[place].refuse("it is there already; keep one of them");
    }
    openings
}

fn opening(section: &Section<'_>, listen: &[SocketAddr]) -> Option<Opening> {
    let second = Duration::from_secs(1);
    let lease = section.duration("lease", Duration::from_secs(60), 10 * second..=3600 * second);
    let of_commands = ["open", "close", "environment", "timeout"];
    if section.entry("nftables-set").is_some() {
        for key in of_commands {
            if let Some(entry) = section.entry(key) {
                entry.refuse("it belongs to an opening by commands; remove it, or `nftables-set`");
            }
        }
        let set = section.entry("nftables-set").and_then(|entry| entry.parsed(set))?;
        return Some(Opening { way: OpeningWay::Nftables { set, ports: ports(section, listen) }, lease });
    }
    if let Some(entry) = section.entry("port") {
        entry.refuse("it belongs to `nftables-set`; remove it, and name the port in the commands");
    }
    if section.entry("open").is_none() && section.entry("close").is_none() {
        section.refuse(
            "nothing says how it is opened; write `nftables-set = \"inet filter acme_open\"`, or `open = [\"…\"]` and `close = [\"…\"]`",
        );
        return None;
    }
    for (key, other) in [("open", "close"), ("close", "open")] {
        if section.entry(key).is_none() {
            section.refuse_missing(
                key,
                &format!("missing; what `{other}` does has to be undone: write `{key}` too"),
            );
        }
    }
    let way = OpeningWay::Commands {
        open: command(&section.entry("open")?),
        close: command(&section.entry("close")?),
        environment: environment(section),
        timeout: section.duration("timeout", 30 * second, second..=600 * second),
    };
    Some(Opening { way, lease })
}

fn set(text: &str) -> Result<[String; 3], String> {
    let is_name = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_alphabetic())
            && word.len() <= LONGEST
            && word.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c))
    };
    let words: Vec<_> = text.split_ascii_whitespace().collect();
    match words[..] {
        [family, table, name] if FAMILIES.contains(&family) && is_name(table) && is_name(name) => {
            Ok([family, table, name].map(str::to_owned))
        }
        _ => Err(format!(
            "{} is no set of nftables; write its family (inet, ip or ip6), its table and its name, as in \"inet filter acme_open\"",
            seen(text)
        )),
    }
}

/// The ports that the gate listens on, unless another one is named, for a rule that redirects, say.
fn ports(section: &Section<'_>, listen: &[SocketAddr]) -> BTreeSet<u16> {
    if section.entry("port").is_some() {
        let port = section.integer("port", 80, 1..=usize::from(u16::MAX));
        return BTreeSet::from([u16::try_from(port).unwrap_or(80)]);
    }
    let ports: BTreeSet<_> = listen.iter().map(|address| address.port()).collect();
    if ports.contains(&0) {
        section.refuse("the gate listens on a port of the system's choice; write a fixed one under `listen`");
    }
    ports
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets() {
        assert_eq!(set("inet filter  acme_open"), Ok(["inet", "filter", "acme_open"].map(str::to_owned)));
        for text in [
            "",
            "acme_open",
            "filter acme_open",
            "bridge filter acme_open",
            "inet filter acme_open; flush ruleset",
            "inet filter a{b}",
            "inet filter 1a",
            "inet fil\u{e4}ter a",
        ] {
            assert!(set(text).unwrap_err().contains("is no set of nftables"), "{text}");
        }
    }
}
