//! The known servers, without systemd: tested, told by signal, found, missed, and started as they ran.

use std::process::Command;

use super::*;
use crate::bed::apache::Apache;
use crate::bed::client::served_leaf;
use crate::bed::haproxy::Haproxy;
use crate::bed::hitch::Hitch;
use crate::bed::nginx::Nginx;
use crate::bed::squid::Squid;
use crate::bed::{ServedFiles, needs};

/// A server under test: where it listens, its configuration file, and itself.
struct Server {
    port: u16,
    config: PathBuf,
    running: Box<dyn std::any::Any>,
}

/// Everything that a server goes through; `broken` is what does not belong into its configuration.
fn goes_through(
    service: &str,
    broken: (&str, &str),
    start: impl FnOnce(&Bed, &dyn Fn(&str) -> Command, &ServedFiles, u16) -> Server,
) {
    let bed = Bed::new();
    let rig = Rig::start(&bed, &[service], "");
    let inside = |program: &str| rig.mounts.command(program);
    assert_eq!(rig.is_running(service), Ok(Some(false)));
    let told = rig.reload(service).unwrap_err();
    assert!(told.contains("does not run here: start it, or write `reload`"), "{told}");

    let files = ServedFiles::new(&bed, "tls");
    let first = files.renew(&bed);
    let server = start(&bed, &inside, &files, bed.port());
    let serves = |leaf: &Seen| served_leaf(server.port, NAME).as_ref() == Some(leaf);
    assert!(serves(&first));
    assert_eq!(rig.is_running(service), Ok(Some(true)));
    assert_eq!(rig.check(service), Ok(true));

    let second = files.renew(&bed);
    rig.reload(service).unwrap();
    until("it serves the second certificate", || serves(&second).then_some(()));

    let text = std::fs::read_to_string(&server.config).unwrap();
    std::fs::write(&server.config, format!("{text}\n{}\n", broken.0)).unwrap();
    let told = rig.check(service).unwrap_err();
    assert!(told.contains(broken.1), "{told}");
    std::fs::write(&server.config, text).unwrap();
    assert_eq!(rig.check(service), Ok(true));

    drop(server.running);
    until("it is gone", || (rig.is_running(service) == Ok(Some(false))).then_some(()));
    rig.mounts.bury_the_dead();
    // What ran in the foreground, by its own configuration, is not the helper's to start.
    if service == "nginx" {
        let told = rig.start_server(service).unwrap_err();
        assert!(told.contains("\"daemon\" directive is duplicate"), "{told}");
        return;
    }
    assert_eq!(rig.start_server(service), Ok(true));
    until("it serves again", || served_leaf(server.port, NAME).filter(|leaf| *leaf == second));
    assert_eq!(rig.is_running(service), Ok(Some(true)));
    assert_eq!(rig.check(service), Ok(true));
}

#[test]
fn nginx_goes_through_everything() {
    needs!("root", "mounts", "nginx", "openssl");
    goes_through("nginx", ("rubbish;", "unknown directive \"rubbish\""), |bed, by, files, port| {
        let live = files.chain.parent().unwrap();
        let nginx = Nginx::tls_by(bed, by, live, port);
        Server { port, config: nginx.config.clone(), running: Box::new(nginx) }
    });
}

#[test]
fn squid_goes_through_everything() {
    needs!("root", "mounts", "squid", "openssl");
    goes_through("squid", ("https_port rubbish", "https_port"), |bed, by, files, port| {
        let squid = Squid::start(bed, by, &files.chain, &files.key, port);
        Server { port, config: squid.config.clone(), running: Box::new(squid) }
    });
}

#[test]
fn haproxy_goes_through_everything() {
    needs!("root", "mounts", "haproxy", "openssl");
    goes_through("haproxy", ("rubbish", "unknown keyword 'rubbish'"), |bed, by, files, port| {
        let haproxy = Haproxy::start(bed, by, &[&files.combined], port);
        Server { port, config: haproxy.config.clone(), running: Box::new(haproxy) }
    });
}

#[test]
fn apache_goes_through_everything() {
    needs!("root", "mounts", "apache2", "openssl");
    goes_through("apache", ("Rubbish", "Invalid command 'Rubbish'"), |bed, by, files, port| {
        let apache = Apache::start(bed, by, &files.chain, &files.key, port);
        Server { port, config: apache.config.clone(), running: Box::new(apache) }
    });
}

#[test]
fn hitch_goes_through_everything() {
    needs!("root", "mounts", "hitch", "openssl");
    goes_through("hitch", ("rubbish = 1", "rubbish"), |bed, by, files, port| {
        let hitch = Hitch::start(bed, by, &files.combined, port);
        Server { port, config: hitch.config.clone(), running: Box::new(hitch) }
    });
}

#[test]
fn what_is_not_sure_is_asked_for() {
    needs!("root", "mounts", "haproxy", "hitch", "nginx");
    let bed = Bed::new();
    let rig = Rig::start(&bed, &["haproxy", "hitch", "nginx"], "");
    let files = ServedFiles::new(&bed, "tls");
    files.renew(&bed);
    let inside = |program: &str| rig.mounts.command(program);

    let _alone = Haproxy::with_mode(&bed, &inside, &[&files.combined], bed.port(), &["-db"]);
    let told = rig.reload("haproxy").unwrap_err();
    assert!(told.contains("runs without a master process"), "{told}");

    let first = Hitch::start(&bed, &inside, &files.combined, bed.port());
    let again = bed.path("again");
    std::fs::create_dir(&again).unwrap();
    let text = std::fs::read_to_string(&first.config).unwrap();
    let other = bed.port();
    let text = text.replace(&format!(":{}\"", first.port()), &format!(":{other}\""));
    std::fs::write(again.join("hitch.conf"), text).unwrap();
    let mut second = inside("/usr/sbin/hitch");
    let _second = Process::start("hitch", second.arg("--config").arg(again.join("hitch.conf")));
    until("the second hitch listens", || crate::bed::client::is_open(other).then_some(()));
    for told in [rig.reload("hitch").unwrap_err(), rig.check("hitch").unwrap_err()] {
        assert!(
            told.contains("hitch runs 2 times (pids ") && told.contains("write `check` and `reload`"),
            "{told}"
        );
    }

    // One that sees other files than the helper is nothing to touch.
    let apart = |program: &str| {
        let mut command = inside("unshare");
        command.args(["--mount", program]);
        command
    };
    let nginx = Nginx::tls_by(&bed, &apart, files.chain.parent().unwrap(), bed.port());
    let told = rig.reload("nginx").unwrap_err();
    assert!(told.contains("a view of its own on the files; write `check` and `reload` for it"), "{told}");
    assert_eq!(rig.is_running("nginx"), Ok(None));
    drop(nginx);
}
