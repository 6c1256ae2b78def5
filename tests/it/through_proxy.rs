//! The CA reached through a proxy, as HTTPS_PROXY and NO_PROXY say.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::bed::pebble::{Mood, Pebble};
use crate::bed::process::{Ran, run};
use crate::bed::wicketgate::{Setup, command};
use crate::bed::{Bed, needs};

/// A proxy that notes what it was asked for and tunnels there.
struct Proxy {
    port: u16,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let noted = heads.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let noted = noted.clone();
                thread::spawn(move || tunnel(client, &noted));
            }
        });
        Self { port, heads }
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

fn tunnel(mut client: TcpStream, noted: &Mutex<Vec<String>>) -> io::Result<()> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
    noted.lock().unwrap().push(head);
    let mut server = TcpStream::connect(target)?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || io::copy(&mut from, &mut to).and_then(|_| to.shutdown(std::net::Shutdown::Write)));
    io::copy(&mut server, &mut client).map(drop)
}

fn renew(setup: &Setup, bed: &Bed, environment: &[(&str, &str)]) -> Ran {
    let mut renew = command(&setup.write(bed));
    run(renew.args(["renew", "--force"]).envs(environment.iter().copied()))
}

#[test]
fn the_ca_is_reached_through_the_proxy_of_the_environment() {
    needs!("pebble", "curl");
    let bed = Bed::new();
    let (_pebble, setup) = Setup::with_pebble(&bed, Mood::Kind, &["www.example.test"]);
    let proxy = Proxy::start();
    let address = format!("http://someone:secret@127.0.0.1:{}", proxy.port);

    renew(&setup, &bed, &[("HTTPS_PROXY", &address)]).expect_code(0);
    let heads = proxy.heads();
    assert!(!heads.is_empty(), "the proxy was not asked");
    for head in &heads {
        assert!(head.starts_with("CONNECT localhost:"), "{head}");
        assert!(
            head.to_ascii_lowercase().contains("proxy-authorization: basic c29tzw9uztpzzwnyzxq="),
            "{head}"
        );
    }

    renew(&setup, &bed, &[("HTTPS_PROXY", &address), ("NO_PROXY", "localhost")]).expect_code(0);
    assert_eq!(proxy.heads().len(), heads.len(), "the proxy was asked in spite of NO_PROXY");
}

#[test]
fn a_proxy_that_is_away_is_named_without_its_password() {
    needs!("pebble", "curl");
    let bed = Bed::new();
    let pebble = Pebble::start(&bed, Mood::Kind, bed.port());
    let setup = Setup::new(&bed, &pebble.directory(), pebble.api_root()).certificate(&["www.example.test"]);
    let address = format!("http://someone:secret@127.0.0.1:{}", bed.port());
    let ran = renew(&setup, &bed, &[("HTTPS_PROXY", &address)]).expect_code(1);
    assert!(ran.text().contains("through the proxy 127.0.0.1"), "{}", ran.text());
    assert!(!ran.text().contains("secret"), "{}", ran.text());
}
