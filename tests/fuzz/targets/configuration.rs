//! A configuration, after lines `WICKETGATE_…=value` of the environment.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use wicketgate::config::{Config, ConfigError, Flags};

const FILE: &str = "/nowhere/wicketgate.toml";

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut text) = std::str::from_utf8(bytes) else { return };
    let mut environment = Vec::new();
    while let Some((line, rest)) = text.split_once('\n')
        && line.starts_with("WICKETGATE_")
        && let Some((name, value)) = line.split_once('=')
    {
        environment.push((name.to_owned(), value.to_owned()));
        text = rest;
    }
    let load = || Config::parse(text, Path::new(FILE), environment.clone(), &Flags::default());
    match load() {
        Ok(config) => {
            assert!(config.state_dir.is_absolute() && config.admin.socket.is_absolute());
            assert!(config.warnings.iter().all(|warning| is_one_line(warning)));
            assert_eq!(config, load().unwrap());
        }
        Err(error) => check(&error),
    }
});

/// There is a problem, and each has its place, or is a key that is said nowhere.
fn check(error: &ConfigError) {
    assert!(!error.problems().is_empty());
    for problem in error.problems() {
        let shown = problem.to_string();
        assert!([FILE, "WICKETGATE_", "key `"].iter().any(|place| shown.starts_with(place)), "{shown}");
        assert!(is_one_line(&shown), "{shown:?}");
    }
}

fn is_one_line(text: &str) -> bool {
    !text.chars().any(char::is_control)
}
