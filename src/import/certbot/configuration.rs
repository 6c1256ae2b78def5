//! The configuration that an import writes (pure): what was carried over, and in comments what was not.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::plan::{LineagePlan, Plan, written};
use crate::config::{DEFAULT_STATE_DIR, KeyType};
use crate::words::printable;

/// What does not come from certbot.
#[derive(Debug, Clone)]
pub struct Place {
    /// The state directory.
    pub state_dir: PathBuf,
    /// `acme.roots`
    pub roots: Option<PathBuf>,
}

/// How long a comment's line is at most.
const WIDTH: usize = 100;

impl Plan {
    /// The file's text.
    pub fn configuration(&self, place: &Place) -> String {
        let mut text = String::new();
        let from = self
            .version
            .as_ref()
            .map_or_else(|| "certbot".to_owned(), |version| format!("certbot {version}"));
        comment(
            &mut text,
            &format!(
                "Imported from {from} in {} by `wicketgate import certbot`. Every key there is: `wicketgate config example`.",
                self.folder.display()
            ),
        );
        if place.state_dir != Path::new(DEFAULT_STATE_DIR) {
            entry(&mut text, "state-dir", &quoted(&place.state_dir.to_string_lossy()));
        }
        text.push_str("\n[acme]\n");
        entry(&mut text, "issuer", &quoted(&written(&self.issuer)));
        match self.account() {
            Some(account) => {
                comment(&mut text, &format!("The terms were agreed to when {} was made.", account.url));
                text.push_str("terms-agreed = true\n");
                if !account.contact.is_empty() {
                    entry(&mut text, "contact", &list(&account.contact));
                }
            }
            None => {
                comment(
                    &mut text,
                    "No account at this CA was found. Agree to its terms before it is asked for one:",
                );
                text.push_str("#terms-agreed = true\n");
            }
        }
        if let Some(roots) = &place.roots {
            entry(&mut text, "roots", &quoted(&roots.to_string_lossy()));
        }
        if let Some(listen) = self.listen {
            text.push_str("\n[gate]\n");
            comment(
                &mut text,
                "Where certbot's own server listened: something in front of it passes challenges on.",
            );
            entry(&mut text, "listen", &list(&[listen.to_string()]));
        }
        for lineage in &self.lineages {
            text.push('\n');
            certificate(&mut text, lineage);
        }
        if !self.left_behind.is_empty() {
            text.push('\n');
            comment(&mut text, "Not carried over:");
            for sentence in &self.left_behind {
                comment(&mut text, &format!("- {sentence}"));
            }
        }
        text
    }
}

fn certificate(text: &mut String, lineage: &LineagePlan) {
    let mut block = String::from("[[certificate]]\n");
    if lineage.identifiers.first().map(ToString::to_string).as_ref() != Some(&lineage.name) {
        entry(&mut block, "name", &quoted(&lineage.name));
    }
    entry(&mut block, "hostnames", &list(&lineage.identifiers));
    if lineage.key_type != KeyType::default() {
        entry(&mut block, "key-type", &quoted(&lineage.key_type.to_string()));
    }
    if let Some(profile) = &lineage.profile {
        entry(&mut block, "profile", &quoted(profile));
    }
    if lineage.may_lack_names {
        entry(&mut block, "partial", &quoted("always"));
    }
    if let Some(deploy) = lineage.deploy {
        entry(&mut block, "deploy", &list(&[deploy]));
    }
    if let Some(reason) = &lineage.left_out {
        comment(text, &format!("{}: {reason}", printable(&lineage.original, 200)));
    }
    for sentence in lineage.troubles.iter().chain(&lineage.notes) {
        comment(text, &format!("- {sentence}"));
    }
    match lineage.left_out {
        None => text.push_str(&block),
        Some(_) if lineage.identifiers.is_empty() => {}
        Some(_) => block.lines().for_each(|line| {
            let _ = writeln!(text, "#{line}");
        }),
    }
}

fn entry(text: &mut String, key: &str, value: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{key} = {value}");
}

fn quoted(value: &str) -> String {
    toml::Value::from(value).to_string()
}

fn list(values: &[impl ToString]) -> String {
    let values: Vec<_> = values.iter().map(|value| quoted(&value.to_string())).collect();
    format!("[{}]", values.join(", "))
}

/// A sentence as comment lines.
fn comment(text: &mut String, sentence: &str) {
    let sentence = printable(sentence, 2_000);
    let indent = if sentence.starts_with("- ") { "  " } else { "" };
    let mut line = String::new();
    for word in sentence.split(' ').filter(|word| !word.is_empty()) {
        if !line.trim().is_empty() && line.chars().count() + word.chars().count() > WIDTH {
            let _ = writeln!(text, "# {line}");
            line = indent.to_owned();
        }
        if !line.trim().is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    let _ = writeln!(text, "# {line}");
}
