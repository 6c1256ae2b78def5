//! The servers as they are shipped with: Debian's own, with the configuration of `deploy/`, which nobody told
//! anything but where to look. Obtained, served, renewed, broken in every way, mended, and reported.
//!
//! Each stands in a mount namespace with its own /etc, /run and /var/log, started as the distribution starts it.

mod faults;
mod helpers;
mod scene;

use scene::{Lone, Scene, Server};

use crate::bed::needs;
use crate::bed::until;

const NGINX: Server = Server {
    service: "nginx",
    shipped: "deploy/nginx/example.net.conf",
    place: "nginx/conf.d/example.test.conf",
    prepare: "rm -f /etc/nginx/sites-enabled/*",
    start: "nginx",
    program: "nginx",
    rubbish: ("rubbish on;", "unknown directive \"rubbish\""),
    lone: Lone::Leaf,
};

const SQUID: Server = Server {
    service: "squid",
    shipped: "deploy/squid/squid.conf",
    place: "squid/squid.conf",
    prepare: "install -d -m 0755 /etc/squid/tls",
    start: "squid",
    program: "squid",
    rubbish: ("https_port rubbish", "https_port"),
    lone: Lone::Leaf,
};

/// Files of Squid's own, as its group may read them.
const COPIES: &str = "copy = { fullchain = \"/etc/squid/tls/fullchain.pem\", \
    key = \"/etc/squid/tls/privkey.pem\", owner = \"root:proxy\", mode = \"0640\" }";

const HAPROXY: Server = Server {
    service: "haproxy",
    shipped: "deploy/haproxy/haproxy.cfg",
    place: "haproxy/haproxy.cfg",
    prepare: "mkdir /run/haproxy",
    start: "haproxy -W -D -f /etc/haproxy/haproxy.cfg -p /run/haproxy.pid",
    program: "haproxy",
    rubbish: ("rubbish", "unknown keyword 'rubbish'"),
    lone: Lone::LeafAndKey,
};

const APACHE: Server = Server {
    service: "apache",
    shipped: "deploy/apache/example.net.conf",
    place: "apache2/sites-available/example.test.conf",
    prepare: "a2enmod ssl; a2ensite example.test; sed -i /^Listen.80$/d /etc/apache2/ports.conf",
    start: "apache2ctl start",
    program: "apache2",
    rubbish: ("Rubbish", "Invalid command 'Rubbish'"),
    lone: Lone::Leaf,
};

const HITCH: Server = Server {
    service: "hitch",
    shipped: "deploy/hitch/hitch.conf",
    place: "hitch/hitch.conf",
    prepare: "true",
    start: "hitch --daemon --config /etc/hitch/hitch.conf",
    program: "hitch",
    rubbish: ("rubbish = 1", "rubbish"),
    lone: Lone::LeafAndKey,
};

/// From the first certificate to a server that was killed.
fn goes_through(scene: &mut Scene) {
    let Server { service, rubbish, .. } = *scene.server;

    // The first certificate: nobody is there yet who could take it.
    let told = scene.run(&["renew"]).expect_code(1).text();
    assert!(told.contains(&format!("{service} did not take it: it does not run")), "{told}");
    scene.start();
    assert_eq!(scene.served(), Some(scene.stored()));
    let told = scene.run(&["deploy"]).expect_code(0).text();
    assert!(told.contains(&format!("{service} serves it, with its whole chain: ")), "{told}");
    scene.run(&["verify"]).expect_code(0);
    assert_eq!(scene.deploys()["pending"], false);

    // The renewal, that needs nobody.
    let first = scene.stored();
    scene.run(&["renew", "--force"]).expect_code(0);
    let second = scene.stored();
    assert_ne!(first, second);
    assert_eq!(scene.served(), Some(second.clone()));

    // Its configuration is broken, which is told in its own words, and nothing that is served changes.
    let version = scene.version();
    let good = scene.change(|text| format!("{text}\n{}\n", rubbish.0));
    let told = scene.run(&["renew", "--force"]).expect_code(1).text();
    assert!(told.contains("its configuration does not pass its own test: `"), "{told}");
    assert!(told.contains(rubbish.1), "{told}");
    assert_eq!(scene.served(), Some(second.clone()));
    if scene.has_copies() {
        assert!(told.contains("the files that it had were put back"), "{told}");
        assert_eq!(scene.copied(), second);
    } else {
        assert!(
            told.contains("with the previous version the test fails as well, so the certificate is not"),
            "{told}"
        );
    }
    assert_eq!(scene.version(), version + 1);
    let status = scene.deploys();
    assert_eq!(status["pending"], true);
    assert!(status["last-error"].as_str().unwrap().contains(rubbish.1), "{status}");
    let told = scene.run(&["verify"]).expect_code(1).text();
    assert!(told.contains("still shows the old certificate"), "{told}");
    scene.write(&good);
    scene.run(&["deploy"]).expect_code(0);
    assert_eq!(scene.served(), Some(scene.stored()));
    assert_eq!(scene.deploys()["pending"], false);

    // The leaf alone in the place of the chain.
    scene.lone();
    if scene.has_runtime_api() {
        scene.kill();
        scene.start();
        let told = scene.run(&["deploy"]).expect_code(1).text();
        assert!(told.contains("HAProxy"), "{told}");
        scene.kill();
    } else {
        let told = scene.run(&["deploy"]).expect_code(1).text();
        assert!(told.contains("sends an incomplete chain") && told.contains("cert.pem"), "{told}");
        let told = scene.run(&["verify"]).expect_code(1).text();
        assert!(told.contains("sends an incomplete chain") && told.contains("cert.pem"), "{told}");
    }
    scene.write(&good);
    scene.look_for("30s");
    if scene.has_runtime_api() {
        scene.start();
    }
    scene.run(&["deploy"]).expect_code(0);
    scene.run(&["verify"]).expect_code(0);

    // It has died.
    scene.kill();
    let told = scene.run(&["renew", "--force"]).expect_code(1).text();
    assert!(told.contains(&format!("{service} did not take it: it does not run")), "{told}");
    let told = scene.run(&["verify"]).expect_code(1).text();
    assert!(told.contains("nobody listens there"), "{told}");
    scene.start();
    until("it serves the newest", || (scene.served()? == scene.stored()).then_some(()));
    scene.run(&["deploy"]).expect_code(0);
    scene.run(&["verify"]).expect_code(0);
}

#[test]
fn nginx_from_the_first_certificate_to_its_death() {
    needs!("root", "mounts", "pebble", "nginx", "openssl");
    goes_through(&mut Scene::new(&NGINX, ""));
}

#[test]
fn squid_from_the_first_certificate_to_its_death() {
    needs!("root", "mounts", "pebble", "squid", "openssl");
    goes_through(&mut Scene::new(&SQUID, ""));
}

#[test]
fn squid_with_files_of_its_own_from_the_first_certificate_to_its_death() {
    needs!("root", "mounts", "pebble", "squid", "openssl");
    let mut scene = Scene::new(&SQUID, COPIES);
    goes_through(&mut scene);
    scene.owns_copies("root:proxy 640");
}

#[test]
fn haproxy_from_the_first_certificate_to_its_death() {
    needs!("root", "mounts", "pebble", "haproxy", "openssl");
    goes_through(&mut Scene::new(&HAPROXY, ""));
}

#[test]
fn haproxy_by_its_runtime_api_from_the_first_certificate_to_its_death() {
    needs!("root", "mounts", "pebble", "haproxy", "openssl");
    goes_through(&mut Scene::new(&HAPROXY, "runtime-socket = \"/run/haproxy/admin.sock\""));
}

#[test]
fn apache_from_the_first_certificate_to_its_death() {
    needs!("root", "mounts", "pebble", "apache2", "openssl");
    goes_through(&mut Scene::new(&APACHE, ""));
}

#[test]
fn hitch_from_the_first_certificate_to_its_death() {
    needs!("root", "mounts", "pebble", "hitch", "openssl");
    goes_through(&mut Scene::new(&HITCH, ""));
}
