//! Sockets that a service manager holds: a restart refuses nobody.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use crate::bed::activator::activate;
use crate::bed::client::{ask, connect_tls, read_answer, served_leaf};
use crate::bed::process::run;
use crate::bed::wicketgate::{Setup, command};
use crate::bed::{Bed, PATIENCE, needs, until};

const NAME: &str = "www.example.test";

fn sockets(setup: &Setup) -> [String; 3] {
    [setup.gate.to_string(), setup.front.to_string(), setup.socket.display().to_string()]
}

#[test]
fn fifty_restarts_under_load_lose_nothing() {
    needs!("python3", "openssl");
    let bed = Bed::new();
    let setup = Setup::embedded(&bed).certificate(&[NAME]);
    let config = setup.write(&bed);
    let sockets = sockets(&setup);
    let manager = activate(&bed, &sockets.each_ref().map(String::as_str), &config);
    until("it is served", || served_leaf(setup.front, NAME));
    let root = setup.state.join("embedded-ca/root.pem");
    let stop = Arc::new(AtomicBool::new(false));
    let gate = setup.gate;
    let asking = |what: &'static str, one: Box<dyn Fn() -> std::io::Result<u16> + Send>| {
        let stop = stop.clone();
        std::thread::spawn(move || {
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                let status = one().unwrap_or_else(|e| panic!("{what} {count} is lost: {e}"));
                assert!((200..400).contains(&status), "{what}: {status}");
                count += 1;
            }
            count
        })
    };
    let redirect = move || {
        let mut stream = TcpStream::connect(("127.0.0.1", gate))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET / HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n")?;
        Ok(read_answer(&mut stream)?.status)
    };
    let (front, trusted) = (setup.front, root.clone());
    let page = move || {
        let mut tls = connect_tls(&trusted, NAME, front)?;
        Ok(ask(&mut tls, NAME, "/")?.status)
    };
    let redirects = asking("redirect", Box::new(redirect));
    let pages = asking("page", Box::new(page));
    for n in 1..=50 {
        let seen = manager.lines().len();
        manager.signal(Signal::HUP);
        let ended = manager.wait_for_line_after(seen, "ended ");
        assert_eq!(ended, "ended 0", "restart {n}");
        manager.wait_for_line_after(seen, "ready: ");
        assert!(!redirects.is_finished() && !pages.is_finished(), "a request is lost");
        // Its admin socket is the same one.
        if n % 10 == 0 {
            run(command(&config).arg("reload")).expect_code(0);
        }
    }
    std::thread::sleep(Duration::from_millis(100));
    stop.store(true, Ordering::Relaxed);
    let (redirects, pages) = (redirects.join().unwrap(), pages.join().unwrap());
    eprintln!(
        "50 restarts: {redirects} redirects and {pages} pages, each over a connection of its own, none lost"
    );
    assert!(redirects > 500 && pages > 50, "{redirects} {pages}");
    assert!(setup.socket.exists(), "the service manager's socket was removed");
}

#[test]
fn a_socket_that_nobody_wants_is_named() {
    needs!("python3");
    let bed = Bed::new();
    let setup = Setup::embedded(&bed).certificate(&[NAME]).without_front();
    let config = setup.write(&bed);
    let other = bed.port();
    let manager = activate(&bed, &[&setup.gate.to_string(), &other.to_string()], &config);
    let told = manager.wait_for_line("the service manager passed a socket for");
    assert!(
        told.contains(&format!("127.0.0.1:{other}, where nothing listens by this configuration")),
        "{told}"
    );
}
