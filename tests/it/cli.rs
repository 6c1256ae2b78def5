//! The command line apart from the certificates: `config check`, `config example`, usage.

use std::path::Path;
use std::process::Command;

use crate::bed::Bed;
use crate::bed::process::run;
use crate::bed::wicketgate::{PROGRAM, Setup, command};

#[test]
fn a_right_configuration_is_told_so() {
    let bed = Bed::new();
    let setup = Setup::embedded(&bed).certificate(&["www.example.test"]);
    setup.command(&bed, &["config", "check"]).expect_code(0);
    assert!(!setup.state.exists(), "a check changes nothing");
}

#[test]
fn a_wrong_one_is_refused_with_place_and_remedy() {
    let bed = Bed::new();
    let setup = Setup::embedded(&bed).certificate(&["*.example.test"]);
    for arguments in [&["config", "check"][..], &["run"], &["renew"], &["status"]] {
        let ran = setup.command(&bed, arguments).expect_code(78);
        assert!(ran.stderr.contains("wicketgate.toml"), "{arguments:?}: {}", ran.stderr);
        assert!(ran.stderr.contains("http-01 cannot prove control"), "{arguments:?}: {}", ran.stderr);
    }
    assert!(!setup.state.exists() && !setup.socket.exists());
}

#[test]
fn the_example_is_a_right_configuration() {
    let bed = Bed::new();
    let example = run(Command::new(PROGRAM).args(["config", "example"])).expect_code(0).stdout;
    let shipped = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/example.toml"));
    assert_eq!(example, shipped.unwrap());
    run(command(&bed.write("example.toml", example)).args(["config", "check"])).expect_code(0);
}

#[test]
fn usage_is_shown_where_it_was_wrong() {
    let wrong = run(Command::new(PROGRAM).arg("--no-such-flag")).expect_code(2);
    assert!(wrong.stderr.contains("--help"), "{}", wrong.stderr);
    let help = run(Command::new(PROGRAM).arg("--help")).expect_code(0).stdout;
    for word in ["run", "renew", "status", "verify", "reload", "config"] {
        assert!(help.contains(word), "--help does not name `{word}`: {help}");
    }
    let version = run(Command::new(PROGRAM).arg("--version")).expect_code(0).stdout;
    assert_eq!(version.trim(), concat!("wicketgate ", env!("CARGO_PKG_VERSION")));
}
