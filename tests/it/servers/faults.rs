//! Servers that are wrong in ways of their own, and what the administrator reads of it.

use rustix::process::{Signal, kill_process};

use super::NGINX;
use super::scene::{NAME, Scene};
use crate::bed::{needs, until};

/// nginx, with a certificate that it serves.
fn served() -> Scene {
    let scene = Scene::new(&NGINX, "");
    scene.run(&["renew"]).expect_code(1);
    scene.start();
    scene.run(&["deploy"]).expect_code(0);
    scene
}

#[test]
fn a_key_that_stays_when_the_certificate_goes_has_the_version_before_put_back() {
    needs!("root", "mounts", "pebble", "nginx", "openssl");
    let scene = served();
    // Whoever pins a key has a server that can be started with the old certificate alone.
    let (live, first) = (scene.setup.live(NAME), scene.stored());
    let pinned = scene.bed.path("etc/pinned.pem");
    std::fs::copy(live.join("privkey.pem"), &pinned).unwrap();
    let key = live.join("privkey.pem");
    let good = scene.change(|text| text.replace(key.to_str().unwrap(), pinned.to_str().unwrap()));
    let told = scene.run(&["renew", "--force"]).expect_code(1).text();
    assert!(told.contains("key values mismatch"), "{told}");
    assert!(told.contains("with the previous version the test passes, so that one was put back"), "{told}");
    assert_eq!((scene.version(), scene.stored()), (1, first.clone()));
    assert_eq!(scene.served(), Some(first.clone()));
    // It can be started anew.
    scene.kill();
    scene.start();
    assert_eq!(scene.served(), Some(first.clone()));
    assert_eq!(scene.deploys()["pending"], true);

    scene.write(&good);
    scene.run(&["deploy"]).expect_code(0);
    assert_eq!(scene.version(), 2);
    assert_ne!(scene.stored(), first);
    assert_eq!(scene.served(), Some(scene.stored()));
}

#[test]
fn a_virtual_host_that_is_forgotten_is_named() {
    needs!("root", "mounts", "pebble", "nginx", "openssl");
    let mut scene = served();
    let other = crate::bed::pki::Pki::new(scene.bed.dir(), "other", &["other.example.test"]);
    let port = scene.port;
    scene.change(|text| {
        format!(
            "server {{ listen {port} ssl default_server; server_name other.example.test;
               ssl_certificate {}; ssl_certificate_key {}; }}\n{}",
            other.chain.display(),
            other.key.display(),
            text.replace("www.example.test;", ";")
        )
    });
    scene.look_for("5s");
    let told = scene.run(&["renew", "--force"]).expect_code(1).text();
    assert!(told.contains("shows another certificate, other.example.test"), "{told}");
    assert!(told.contains("asked for www.example.test"), "{told}");
    assert!(told.contains("no virtual host of its answers to this name"), "{told}");
    let told = scene.run(&["verify"]).expect_code(1).text();
    assert!(told.contains("no virtual host of its answers to this name"), "{told}");
}

#[test]
fn a_listener_that_speaks_no_tls_is_named() {
    needs!("root", "mounts", "pebble", "nginx", "openssl");
    let mut scene = served();
    // With `ssl` on a listening socket, a reload takes it away only with the socket.
    scene.kill();
    scene.change(|text| text.replace(" ssl;", ";"));
    scene.sh("setsid --wait nginx </dev/null >/dev/null 2>&1");
    until("it listens", || crate::bed::client::is_open(scene.port).then_some(()));
    scene.look_for("5s");
    let told = scene.run(&["deploy"]).expect_code(1).text();
    assert!(told.contains("plain HTTP") || told.contains("speaks no TLS"), "{told}");
    let told = scene.run(&["verify"]).expect_code(1).text();
    assert!(told.contains("speaks no TLS"), "{told}");
}

#[test]
fn a_server_that_hangs_is_waited_for_and_told() {
    needs!("root", "mounts", "pebble", "nginx", "openssl");
    let mut scene = served();
    let stopped = scene.processes();
    for pid in &stopped {
        kill_process(*pid, Signal::STOP).unwrap();
    }
    scene.look_for("5s");
    let told = scene.run(&["renew", "--force"]).expect_code(1).text();
    assert!(told.contains("does not answer to TLS"), "{told}");
    assert_eq!(scene.version(), 2);
    for pid in &stopped {
        kill_process(*pid, Signal::CONT).unwrap();
    }
    // It reads what it was told to read meanwhile.
    until("it serves the new one", || (scene.served()? == scene.stored()).then_some(()));
    scene.look_for("30s");
    scene.run(&["deploy"]).expect_code(0);
}

#[test]
fn a_name_that_would_hurt_a_shell_is_no_name() {
    needs!("root", "mounts", "pebble");
    let mut scene = Scene::new(&NGINX, "");
    let good = scene.setup.certificates.clone();
    for name in [
        "$(touch /mnt/hurt).example.test",
        "a;touch /mnt/hurt",
        "`id`.example.test",
        "-rf.example.test",
        "../../etc",
    ] {
        scene.setup.certificates = good.replace("www.example.test", name);
        for command in [&["config", "check"][..], &["renew"]] {
            let told = scene.run(command).expect_code(78).text();
            assert!(told.contains("hostnames"), "{name}: {told}");
        }
    }
    scene.sh("test ! -e /mnt/hurt");
}

#[test]
fn a_state_without_rights_is_named() {
    needs!("root", "mounts", "pebble", "nginx", "openssl", "setpriv");
    let mut scene = served();
    scene.become_nobody();
    std::os::unix::fs::chown(&scene.setup.state, Some(0), Some(0)).unwrap();
    let told = scene.run(&["renew"]).text();
    let state = scene.setup.state.display().to_string();
    assert!(told.contains(&state) && told.contains("ermission"), "{told}");
    // Served all the same, and a monitor sees as much.
    let told = scene.run(&["verify"]).text();
    assert!(told.contains(&state), "{told}");
}
