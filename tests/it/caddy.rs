//! Issuance by Caddy's ACME server, which shares no code with Pebble, on the real port 80.

use std::process::Command;

use crate::bed::caddy::{Caddy, DIRECTORY};
use crate::bed::namespace::Namespace;
use crate::bed::process::run;
use crate::bed::wicketgate::{PROGRAM, Setup, clean};
use crate::bed::{Bed, needs};

#[test]
fn caddy_signs_for_port_80() {
    needs!("caddy", "namespaces", "ip", "nsenter", "curl", "openssl");
    let names = ["www.caddy.test", "caddy.test"];
    let bed = Bed::new();
    let inside = Namespace::start(&bed, &names);
    let caddy = Caddy::start(&bed, &inside);
    let mut setup = Setup::new(&bed, DIRECTORY, &caddy.root()).without_front().certificate(&names);
    setup.gate = 80;
    let renew = |more: &[&str]| {
        let mut command = inside.command(PROGRAM);
        clean(&mut command);
        run(command.arg("--config").arg(setup.write(&bed)).arg("renew").args(more)).expect_code(0)
    };
    renew(&[]);
    let first = setup.stored(names[0]);
    assert_eq!(first[0].names, ["caddy.test", "www.caddy.test"]);
    assert!(first.len() > 1, "the chain is not complete");
    let live = setup.live(names[0]);
    run(Command::new("openssl")
        .args(["verify", "-purpose", "sslserver", "-CAfile"])
        .arg(caddy.root())
        .arg("-untrusted")
        .arg(live.join("chain.pem"))
        .arg(live.join("cert.pem")))
    .expect_code(0);
    assert!(!inside.sh("ss -Hltn").stdout.contains(":80 "), "port 80 is still open");

    let again = renew(&[]);
    assert!(again.text().contains("nothing to do"), "{}", again.text());
    renew(&["--force"]);
    assert_ne!(setup.stored(names[0])[0].serial, first[0].serial);
}
