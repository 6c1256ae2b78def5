//! The helper is killed while a command runs: the next one for that server does not run beside it.

use super::*;
use crate::bed::needs;

/// Starts a reload whose helper is killed once the command runs, and another helper after that.
fn kill_while_it_runs(bed: &Bed, rig: &mut Rig, begun: &Path) {
    let (client, config) = (Helper::new(Vec::new()), rig.config.clone());
    let asking = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(client.reload(&config, "x", &[NAME.to_owned()])).map_err(sentence)
    });
    until("the command runs", || begun.exists().then_some(()));
    until("it is noted", || state(bed).join("running/x").exists().then_some(()));
    rig.process.signal(Signal::KILL);
    rig.process.wait(std::time::Duration::from_secs(10));
    asking.join().unwrap().unwrap_err();
    rig.process = helper(&rig.mounts, &bed.path("wicketgate.toml"));
}

#[test]
fn the_command_that_it_left_behind_is_awaited() {
    needs!("root", "mounts");
    let bed = Bed::new();
    let (log, goes_on) = (bed.path("log"), bed.path("goes-on"));
    let (log_shown, goes_on_shown) = (log.display(), goes_on.display());
    let say = format!(
        "echo begun >>{log_shown}; until test -e {goes_on_shown}; do sleep 0.05; done; echo ended >>{log_shown}"
    );
    let hook = bed.script("hook", &say);
    let table = format!("[deploy.x]\nreload = [{hook:?}]\nverify = []\ntimeout = \"30s\"\n");
    let mut rig = Rig::start(&bed, &["x"], &table);
    kill_while_it_runs(&bed, &mut rig, &log);
    let allow = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(500));
        std::fs::write(goes_on, "").unwrap();
    });
    rig.reload("x").unwrap();
    allow.join().unwrap();
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "begun\nended\nbegun\nended\n");
    assert!(!state(&bed).join("running/x").exists());
}

#[test]
fn the_command_that_it_left_behind_is_ended_once_its_time_is_over() {
    needs!("root", "mounts");
    let bed = Bed::new();
    let log = bed.path("log");
    let shown = log.display();
    // The first one hangs, the second does not.
    let say = format!("test -e {shown} && exec echo ran >>{shown}; echo $$ >{shown}; sleep 1000");
    let hook = bed.script("hook", &say);
    let table = format!("[deploy.x]\nreload = [{hook:?}]\nverify = []\ntimeout = \"1s\"\n");
    let mut rig = Rig::start(&bed, &["x"], &table);
    kill_while_it_runs(&bed, &mut rig, &log);
    rig.reload("x").unwrap();
    let text = std::fs::read_to_string(&log).unwrap();
    let (pid, rest) = text.split_once('\n').unwrap();
    assert_eq!(rest, "ran\n");
    let stat = rig.mounts.sh(&format!("cat /proc/{pid}/stat")).stdout;
    assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
}
