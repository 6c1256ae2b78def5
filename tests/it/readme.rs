//! What the README tells people to write must work.

use std::path::Path;

use wicketgate::config::{Config, Flags};

/// The fenced blocks of that language.
fn blocks(language: &str) -> Vec<String> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let fence = format!("```{language}\n");
    text.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn every_configuration_is_valid() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wicketgate.toml");
    let blocks = blocks("toml");
    assert!(blocks.len() >= 3, "only {} configurations were found", blocks.len());
    // Certificates of somebody else have to be there.
    let foreign = "/etc/letsencrypt/live/shop";
    for name in ["fullchain.pem", "privkey.pem"] {
        std::fs::write(folder.path().join(name), "").unwrap();
    }
    for block in blocks {
        std::fs::write(&file, block.replace(foreign, folder.path().to_str().unwrap())).unwrap();
        let config = Config::load(Some(&file), Vec::new(), &Flags::default())
            .unwrap_or_else(|e| panic!("{e}\n{block}"));
        assert!(config.warnings.is_empty(), "{:?}\n{block}", config.warnings);
    }
}

/// SECURITY.md names tests; they are there.
#[test]
fn every_defence_has_its_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| ")).filter_map(|line| line.rsplit('|').nth(1));
    let listed = std::process::Command::new(std::env::current_exe().unwrap()).arg("--list").output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let mut seen = 0;
    for name in rows.flat_map(|row| row.split('`').skip(1).step_by(2)) {
        seen += 1;
        let is_there = match name.strip_prefix("cargo test ") {
            // A module of the library.
            Some(module) => {
                let path = root.join("src").join(module.trim_end_matches("::").replace("::", "/"));
                path.with_extension("rs").exists()
            }
            None if name.starts_with("src/") => root.join(name).exists(),
            None => listed.lines().any(|line| line.starts_with(name)),
        };
        assert!(is_there, "SECURITY.md names `{name}`, and there is no such test");
    }
    assert!(seen > 20, "{seen}");
}

#[test]
fn every_command_is_one() {
    let program = crate::bed::wicketgate::PROGRAM;
    let mut seen = 0;
    for block in blocks("sh") {
        let joined = block.replace("\\\n", " ");
        for line in joined.lines().filter_map(|line| line.strip_prefix("wicketgate ")) {
            seen += 1;
            // With --help, arguments are parsed and nothing is done.
            let mut words: Vec<_> = line.split_whitespace().collect();
            let options = words.iter().position(|word| *word == "--").unwrap_or(words.len());
            words.insert(options, "--help");
            let ran = std::process::Command::new(program).args(words).output().unwrap();
            assert!(ran.status.success(), "wicketgate {line}: {}", String::from_utf8_lossy(&ran.stderr));
        }
    }
    assert!(seen >= 3, "only {seen} commands were found");
}
