//! HAProxy's runtime API: certificates replaced in the running process.

use std::os::unix::net::UnixListener;
use std::process::Command;

use super::*;
use crate::bed::client::served_leaf;
use crate::bed::haproxy::Haproxy;
use crate::bed::{ServedFiles, needs};

fn table(socket: &Path, more: &str) -> String {
    format!("[deploy.haproxy]\nruntime-socket = {socket:?}\nverify = []\n{more}\n")
}

#[test]
fn a_certificate_is_replaced_without_a_reload() {
    needs!("root", "mounts", "haproxy", "openssl");
    let bed = Bed::new();
    let rig = Rig::start(&bed, &["haproxy"], &table(&Haproxy::socket(&bed), ""));
    let (_, first) = rig.renew(&bed);
    let live = rig.config.state_dir.join("live").join(NAME).join("combined.pem");
    let other = ServedFiles::new(&bed, "other site");
    let default = other.renew(&bed);
    let haproxy = Haproxy::start(&bed, &|p| Command::new(p), &[&live], bed.port());
    assert_eq!(served_leaf(haproxy.port(), NAME), Some(first));
    let workers = || {
        let list = format!("/proc/{0}/task/{0}/children", haproxy.process.id());
        std::fs::read_to_string(list).unwrap()
    };
    let before = workers();
    for _ in 0..3 {
        let (_, renewed) = rig.renew(&bed);
        rig.reload("haproxy").unwrap();
        assert_eq!(served_leaf(haproxy.port(), NAME), Some(renewed.clone()));
        assert_ne!(renewed, default);
    }
    assert_eq!(workers(), before, "it was reloaded");
}

#[test]
fn several_certificates_are_replaced_or_none() {
    needs!("root", "mounts", "haproxy", "openssl");
    let bed = Bed::new();
    let names = [NAME, "example.org", "example.net"];
    let certificates: String = names
        .iter()
        .map(|name| format!("[[certificate]]\nhostnames = [\"{name}\"]\ndeploy = [\"haproxy\"]\n"))
        .collect();
    let copy = "copy = { combined = \"/mnt/a folder/{name}.pem\" }";
    let rig = Rig::with(&bed, &(certificates + &table(&Haproxy::socket(&bed), copy)));
    rig.mounts.sh("mkdir '/mnt/a folder'").expect_code(0);
    let copy = |name: &str, version| {
        let copied = rig.client.copy(&rig.config, "haproxy", name, version, false);
        rig.runtime.block_on(copied).map_err(sentence).unwrap();
    };
    let renew = |name: &str| {
        let (version, leaf) = rig.renew_for(&bed, name);
        copy(name, version);
        leaf
    };
    let first = names.map(renew);
    let inside = |program: &str| rig.mounts.command(program);
    let files = ["/mnt/a folder/www.example.test.pem", "/mnt/a folder/example.org.pem"].map(Path::new);
    let haproxy = Haproxy::start(&bed, &inside, &files, bed.port());
    let served = |name: &str| served_leaf(haproxy.port(), name).unwrap();
    assert_eq!([served(names[0]), served(names[1])], first[..2]);
    let second = names.map(renew);
    rig.reload_for("haproxy", &names[..2]).unwrap();
    assert_eq!([served(names[0]), served(names[1])], second[..2]);
    // One of them that HAProxy has not read keeps the others from being replaced.
    let third = names.map(renew);
    assert_ne!(third, second);
    let told = rig.reload_for("haproxy", &names).unwrap_err();
    assert!(told.contains("HAProxy has not read /mnt/a folder/example.net.pem nor "), "{told}");
    assert_eq!([served(names[0]), served(names[1])], second[..2]);
}

#[test]
fn what_haproxy_does_not_take_is_told_and_withdrawn() {
    needs!("root", "mounts", "haproxy");
    let bed = Bed::new();
    let tables = [
        table(&Haproxy::socket(&bed), ""),
        table(&Haproxy::user_socket(&bed), "service = \"haproxy\"")
            .replace("deploy.haproxy", "deploy.looking"),
        table(&bed.path("nobody.sock"), "service = \"haproxy\"").replace("deploy.haproxy", "deploy.gone"),
        table(&bed.path("hangs.sock"), "service = \"haproxy\"\ntimeout = \"1s\"")
            .replace("deploy.haproxy", "deploy.hanging"),
        table(&bed.path("closes.sock"), "service = \"haproxy\"").replace("deploy.haproxy", "deploy.closing"),
    ];
    let servers = ["haproxy", "looking", "gone", "hanging", "closing"];
    let rig = Rig::start(&bed, &servers, &tables.concat());
    let told = rig.reload("haproxy").unwrap_err();
    assert!(told.contains("www.example.test has no live version in "), "{told}");
    rig.renew(&bed);
    let other = ServedFiles::new(&bed, "other");
    other.renew(&bed);
    let _haproxy = Haproxy::start(&bed, &|p| Command::new(p), &[&other.combined], bed.port());

    let told = rig.reload("haproxy").unwrap_err();
    let live = rig.config.state_dir.join("live").join(NAME).join("combined.pem");
    let wanted = format!(
        "HAProxy has not read {}: it knows {}; name that file behind `crt` in its configuration and reload it once",
        live.display(),
        other.combined.display()
    );
    assert_eq!(told, wanted);

    let told = rig.reload("looking").unwrap_err();
    assert!(
        told.contains("HAProxy does not allow `show ssl cert` at ") && told.contains("level admin"),
        "{told}"
    );
    let told = rig.reload("gone").unwrap_err();
    assert!(told.contains("HAProxy cannot be reached at ") && told.contains("does it run"), "{told}");
    let _silent = UnixListener::bind(bed.path("hangs.sock")).unwrap();
    let told = rig.reload("hanging").unwrap_err();
    assert!(told.contains("HAProxy did not take everything at ") && told.contains("within 1 s"), "{told}");
    let closing = UnixListener::bind(bed.path("closes.sock")).unwrap();
    std::thread::spawn(move || drop(closing.accept()));
    let told = rig.reload("closing").unwrap_err();
    assert!(
        told.contains("HAProxy gave no answer to `show ssl cert` at ") && told.contains("tune.bufsize"),
        "{told}"
    );
    let said = rig.process.lines().concat();
    assert!(!said.contains("PRIVATE") && !said.contains("MIGH"), "{said}");
}

#[test]
fn a_copy_that_haproxy_has_read_is_replaced_too() {
    needs!("root", "mounts", "haproxy", "openssl");
    let bed = Bed::new();
    let copy = "copy = { combined = \"/mnt/{name}.pem\" }";
    let rig = Rig::start(&bed, &["haproxy"], &table(&Haproxy::socket(&bed), copy));
    let (version, _) = rig.renew(&bed);
    rig.copy("haproxy", version).unwrap();
    let read = PathBuf::from(format!("/mnt/{NAME}.pem"));
    let inside = |program: &str| rig.mounts.command(program);
    let haproxy = Haproxy::start(&bed, &inside, &[&read], bed.port());
    let (version, renewed) = rig.renew(&bed);
    rig.copy("haproxy", version).unwrap();
    rig.reload("haproxy").unwrap();
    assert_eq!(served_leaf(haproxy.port(), NAME), Some(renewed));
}

#[test]
fn a_key_is_given_to_no_stranger() {
    needs!("root", "mounts", "setpriv", "python3");
    let bed = Bed::new();
    let open = bed.path("open");
    std::fs::create_dir(&open).unwrap();
    set_mode(&open, 0o777);
    let planted = open.join("planted.sock");
    let rig = Rig::start(&bed, &["haproxy"], &table(&planted, ""));
    rig.renew(&bed);
    let script = "import socket, sys
s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); print('planted', flush=True)
c, _ = s.accept(); print('got', c.recv(65536), flush=True)";
    let mut stranger = Command::new("setpriv");
    stranger.args(["--reuid", "65534", "--clear-groups", "/usr/bin/python3", "-c", script]).arg(&planted);
    let stranger = Process::start("a stranger", &mut stranger);
    stranger.wait_for_line("planted");
    let told = rig.reload("haproxy").unwrap_err();
    assert!(told.contains("nobody listens there, who is given no private keys"), "{told}");
    assert_eq!(stranger.wait_for_line("got"), "got b''");
}
