//! Fences in the source tree that the compiler does not draw: who may import whom, and where a library
//! may be seen. Every rule asserts that it has read something.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The levels of src/lib.rs, from the top: a module imports from lower levels only.
const LEVELS: &[&[&str]] = &[
    &["cli", "daemon"],
    &["admin"],
    &["doctor", "import", "notify", "renewal"],
    &["acme", "deploy", "front", "gate", "preflight", "rehearsal", "store"],
    &["foreign", "net", "sandbox"],
    &["config"],
    &["certificate", "challenge", "clock", "folder", "glob", "hostname", "tickets", "words"],
];

/// May know everybody: they put the parts together.
const COMPOSERS: &[&str] = &["cli", "daemon", "lib", "main"];

/// Files that decide and do nothing else.
const PURE: &[&str] = &[
    "admin/metrics.rs",
    "admin/page.rs",
    "deploy/openings/nftables.rs",
    "deploy/scripts.rs",
    "deploy/services.rs",
    "deploy/transaction.rs",
    "deploy/verify/chain.rs",
    "deploy/verify/fault.rs",
    "deploy/verify/leaf.rs",
    "doctor/apache.rs",
    "doctor/apache/fate.rs",
    "doctor/apache/tree.rs",
    "doctor/diagnosis.rs",
    "doctor/diagnosis/certificates.rs",
    "doctor/diagnosis/challenge.rs",
    "doctor/diagnosis/names.rs",
    "doctor/finding.rs",
    "doctor/glob.rs",
    "doctor/haproxy.rs",
    "doctor/haproxy/tree.rs",
    "doctor/hitch.rs",
    "doctor/nginx.rs",
    "doctor/nginx/fate.rs",
    "doctor/nginx/tree.rs",
    "doctor/ours.rs",
    "doctor/papers.rs",
    "doctor/picture.rs",
    "doctor/reading.rs",
    "doctor/rule.rs",
    "doctor/squid.rs",
    "doctor/truth.rs",
    "doctor/words.rs",
    "front/abilities.rs",
    "front/headers.rs",
    "gate/reply.rs",
    "glob.rs",
    "import/certbot/accounts.rs",
    "import/certbot/conf.rs",
    "import/certbot/configuration.rs",
    "import/certbot/lineages.rs",
    "import/certbot/plan.rs",
    "import/certbot/renewal.rs",
    "net/proxy_protocol.rs",
    "notify/expiry.rs",
    "notify/queue.rs",
    "notify/shown.rs",
    "preflight/caa.rs",
    "preflight/caa/property.rs",
    "preflight/diagnosis.rs",
    "preflight/diagnosis/across.rs",
    "preflight/diagnosis/address.rs",
    "preflight/diagnosis/answer.rs",
    "preflight/diagnosis/name.rs",
    "preflight/diagnosis/server.rs",
    "preflight/dns/message.rs",
    "preflight/dns/reading.rs",
    "preflight/dns/signatures.rs",
    "preflight/issuers.rs",
    "preflight/probe/redirect.rs",
    "preflight/sighting.rs",
    "preflight/summary.rs",
    "renewal/explanation.rs",
    "renewal/half.rs",
    "renewal/ledger.rs",
    "renewal/ledger/charge.rs",
    "renewal/ledger/file.rs",
    "renewal/ledger/limits.rs",
    "renewal/ledger/words.rs",
    "renewal/names.rs",
    "renewal/postponement.rs",
    "renewal/schedule.rs",
    "renewal/schedule/pause.rs",
    "renewal/schedule/reason.rs",
    "renewal/schedule/window.rs",
    "words/quote.rs",
];

fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(path)
}

/// Every source file, by its path below `src`, without its comments and its tests.
fn files() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let root = source("");
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                found.insert(name, code(&fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(found.len() > 10, "only {} source files were found", found.len());
    found
}

/// The text up to its tests, without lines that are comments.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text);
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// `gate/reply.rs` and `gate.rs` are of the module `gate`.
fn module(file: &str) -> &str {
    file.split(['/', '.']).next().unwrap_or(file)
}

/// The crate's modules that a text names: `crate::gate::…` and `crate::{gate::…, net}`.
fn imports(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for rest in text.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            Some(group) => found.extend(group_members(group)),
            None => found.push(first_word(rest)),
        }
    }
    found
}

/// The first word of each member of a `{…}` group, whose inner groups are passed over.
fn group_members(group: &str) -> Vec<String> {
    let (mut depth, mut members, mut current) = (0, Vec::new(), String::new());
    for c in group.chars() {
        match c {
            '}' if depth == 0 => break,
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => members.push(std::mem::take(&mut current)),
            _ if depth == 0 => current.push(c),
            _ => {}
        }
    }
    members.push(current);
    members.iter().map(|member| first_word(member.trim())).filter(|word| !word.is_empty()).collect()
}

fn first_word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn level(module: &str) -> Option<usize> {
    LEVELS.iter().position(|level| level.contains(&module))
}

#[test]
fn the_levels_are_those_of_the_map() {
    let map = fs::read_to_string(source("lib.rs")).unwrap();
    let blocks: Vec<Vec<&str>> = map
        .split("\n\n")
        .map(|block| {
            let lines = block.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
            lines.collect::<Vec<_>>()
        })
        .filter(|block| !block.is_empty())
        .collect();
    assert_eq!(blocks, LEVELS, "src/lib.rs and this test disagree about the levels");
}

#[test]
fn imports_point_down() {
    let mut seen = 0;
    let mut wrong = Vec::new();
    for (file, text) in files() {
        let importer = module(&file).to_owned();
        if COMPOSERS.contains(&importer.as_str()) {
            continue;
        }
        let from = level(&importer).unwrap_or_else(|| panic!("src/{file} is on no level of src/lib.rs"));
        for imported in imports(&text) {
            let Some(to) = level(&imported) else { continue };
            seen += 1;
            // The lowest level is the domain's own types, which are made of each other.
            let allowed = to > from || to + 1 == LEVELS.len() || imported == importer;
            if !allowed {
                wrong.push(format!("src/{file} imports `{imported}`, which is not below it"));
            }
        }
    }
    assert!(seen > 10, "only {seen} imports were looked at");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn instant_acme_is_seen_under_acme_alone() {
    let users: Vec<String> =
        files().into_iter().filter(|(_, text)| text.contains("instant_acme")).map(|(file, _)| file).collect();
    assert!(!users.is_empty(), "nobody uses instant_acme: does this test look for the right name?");
    for file in users {
        assert_eq!(module(&file), "acme", "src/{file} speaks of instant_acme");
    }
}

#[test]
fn pure_files_do_nothing() {
    let files = files();
    for file in PURE {
        let text =
            files.get(*file).unwrap_or_else(|| panic!("src/{file} is gone: is it pure elsewhere now?"));
        for word in
            ["tokio", "async fn", ".await", "std::fs", "std::net::Tcp", "clock::now", "clock::monotonic"]
        {
            assert!(!text.contains(word), "src/{file} contains `{word}`");
        }
    }
}

#[test]
fn the_shape_of_files_stays_in_config_and_store() {
    let mut users = 0;
    for (file, text) in files() {
        if !text.contains("Deserialize") {
            continue;
        }
        users += 1;
        if !["config", "store"].contains(&module(&file)) {
            // What crosses a socket may have a shape elsewhere, and there are no files there.
            for word in ["fs::", "File::"] {
                assert!(
                    !text.contains(word),
                    "src/{file} gives a shape to what it reads from files (`{word}`)"
                );
            }
            assert!(!text.contains("toml::"), "src/{file} reads TOML: that is for config/");
        }
    }
    assert!(users > 1, "nobody deserializes: does this test look for the right name?");
}

#[test]
fn imports_are_found_in_every_form() {
    let text = "use crate::net::Listener;\nuse crate::{clock, gate::{reply, Policy}, config};\nlet x = crate::store::open();";
    assert_eq!(imports(text), ["net", "clock", "gate", "config", "store"]);
    assert_eq!(imports("use crate::{\n    clock,\n    net,\n};"), ["clock", "net"]);
    assert_eq!(module("gate/reply.rs"), "gate");
    assert_eq!(module("gate.rs"), "gate");
}
