//! The units in deploy/systemd: what systemd thinks of them. They are not run: there is no systemd in charge here.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bed::process::run;
use crate::bed::{Bed, needs};

fn units() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/systemd");
    let all = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    all.collect()
}

#[test]
fn every_unit_is_understood() {
    needs!("systemd-analyze");
    let bed = Bed::new();
    let units = units();
    assert!(units.len() >= 6, "{units:?}");
    // Beside each other, since they name each other, with programs that there are.
    for unit in &units {
        let text = std::fs::read_to_string(unit).unwrap().replace("/usr/bin/wicketgate", "/bin/true");
        bed.write(unit.file_name().unwrap().to_str().unwrap(), text);
    }
    for unit in &units {
        let here = bed.path(unit.file_name().unwrap().to_str().unwrap());
        let told = run(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&here)).text();
        let told: Vec<_> = told.lines().filter(|line| line.contains("wicketgate")).collect();
        assert!(told.is_empty(), "{}: {told:?}", unit.display());
    }
}

#[test]
fn the_daemon_is_exposed_little() {
    needs!("systemd-analyze");
    let unit = units().into_iter().find(|unit| unit.ends_with("wicketgate.service")).unwrap();
    let ran =
        run(Command::new("systemd-analyze").args(["security", "--offline=true", "--threshold=20"]).arg(unit));
    let told = ran.expect_code(0).text();
    assert!(told.contains("Overall exposure level for wicketgate.service: "), "{told}");
}
