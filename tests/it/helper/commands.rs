//! Configured commands: what they are told, once or for each certificate, and which are not run.

use super::*;
use crate::bed::needs;

fn lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn one_reload_for_all_certificates_or_one_for_each() {
    needs!("root", "mounts");
    let bed = Bed::new();
    let log = bed.path("log");
    let say = format!(r#"echo "$RENEWED_LINEAGE|$RENEWED_DOMAINS|$EXTRA|$HOME|$#" >>{}"#, log.display());
    let hook = bed.script("hook", &say);
    let certificate =
        |names: &str| format!("[[certificate]]\nhostnames = [{names}]\ndeploy = [\"all\", \"each\"]\n");
    let server = |name: &str, more: &str| {
        format!(
            "[deploy.{name}]\nreload = [{hook:?}]\ncheck = [{hook:?}, \"$(id)\", \"; id\"]\nverify = []\n{more}\nenvironment = {{ EXTRA = \"two words\" }}\n"
        )
    };
    let tables = [
        certificate("\"www.example.test\", \"example.test\""),
        certificate("\"192.0.2.7\""),
        server("all", ""),
        server("each", "each = true"),
    ];
    let rig = Rig::with(&bed, &tables.concat());
    let home = std::env::var("HOME").unwrap_or_else(|_| "/root".to_owned());
    let live = rig.config.state_dir.join("live");
    let live = live.display();
    rig.reload_for("all", &[NAME, "192.0.2.7"]).unwrap();
    assert_eq!(lines(&log), [format!("{live}/{NAME}|{NAME} example.test 192.0.2.7|two words|{home}|0")]);
    std::fs::remove_file(&log).unwrap();
    rig.reload_for("each", &[NAME, "192.0.2.7"]).unwrap();
    assert_eq!(
        lines(&log),
        [
            format!("{live}/{NAME}|{NAME} example.test|two words|{home}|0"),
            format!("{live}/192.0.2.7|192.0.2.7|two words|{home}|0"),
        ]
    );
    std::fs::remove_file(&log).unwrap();
    assert_eq!(rig.check("all"), Ok(true));
    assert_eq!(lines(&log), [format!("||two words|{home}|2")]);
    assert_eq!((rig.is_running("all"), rig.start_server("all")), (Ok(None), Ok(false)));
}

#[test]
fn a_command_that_others_may_change_is_not_run() {
    needs!("root", "mounts");
    let bed = Bed::new();
    let ran = bed.path("ran");
    let hook = bed.script("hooks/hook", &format!("touch {}", ran.display()));
    let rig = Rig::start(&bed, &["x"], &format!("[deploy.x]\nreload = [{hook:?}]\nverify = []\n"));
    let folder = hook.parent().unwrap();
    for (path, mode, remedy) in
        [(hook.as_path(), 0o775, "g-w"), (hook.as_path(), 0o757, "o-w"), (folder, 0o777, "go-w")]
    {
        set_mode(path, mode);
        let told = rig.reload("x").unwrap_err();
        assert!(told.contains(&format!("run `chmod {remedy} {}`", path.display())), "{told}");
        set_mode(path, 0o755);
    }
    std::os::unix::fs::chown(&hook, Some(65534), None).unwrap();
    let told = rig.reload("x").unwrap_err();
    assert!(told.contains("belongs to nobody, who could change it"), "{told}");
    assert!(!ran.exists());
    std::os::unix::fs::chown(&hook, Some(0), None).unwrap();
    rig.reload("x").unwrap();
    assert!(ran.exists());
}

#[test]
fn a_server_that_hangs_is_told_and_its_group_ended() {
    needs!("root", "mounts");
    let bed = Bed::new();
    let pid = bed.path("pid");
    let hook =
        bed.script("hook", &format!("sleep 1000 & echo $! >{}; echo waiting for it; wait", pid.display()));
    let table = format!("[deploy.x]\nreload = [{hook:?}]\nverify = []\ntimeout = \"1s\"\n");
    let rig = Rig::start(&bed, &["x"], &table);
    let told = rig.reload("x").unwrap_err();
    assert!(told.ends_with("did not end within 1 s and was stopped, saying: waiting for it"), "{told}");
    let pid = std::fs::read_to_string(pid).unwrap();
    until("its child is gone", || {
        let stat = rig.mounts.sh(&format!("cat /proc/{}/stat", pid.trim())).stdout;
        (stat.is_empty() || stat.contains(") Z ")).then_some(())
    });
}

#[test]
fn what_the_program_was_started_with_open_is_not_passed_on() {
    needs!("root", "mounts");
    let bed = Bed::new();
    let log = bed.path("log");
    let hook = bed.script("hook", &format!("ls -l /proc/self/fd >{}", log.display()));
    let secret = bed.write("secret", "");
    let rig = Rig::start(&bed, &["x"], &format!("[deploy.x]\nreload = [{hook:?}]\nverify = []\n"));
    let command = format!(
        "exec 7<{} {PROGRAM} --config {} deploy",
        secret.display(),
        bed.path("wicketgate.toml").display()
    );
    // Through a helper of its own, which it starts by itself.
    let text = std::fs::read_to_string(bed.path("wicketgate.toml")).unwrap();
    let text = text.lines().filter(|line| !line.contains("[helper]") && !line.contains("helper.sock"));
    let text = text.collect::<Vec<_>>().join("\n");
    bed.write("wicketgate.toml", text);
    rig.renew(&bed);
    rig.mounts.sh(&command).expect_code(0);
    let open = lines(&log);
    assert!(!open.is_empty() && !open.iter().any(|line| line.contains("secret")), "{open:?}");
}
