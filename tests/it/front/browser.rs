//! A real browser that trusts the CA: a page over HTTP/2, and a WebSocket beside it.

use std::process::Command;

use crate::bed::process::{Process, run};
use crate::bed::wicketgate::Setup;
use crate::bed::{Bed, needs};

const NAME: &str = "www.example.test";
/// Tells by a request what came of it.
const PAGE: &str = r#"<!doctype html>
<title>Browser</title>
<script>
  const big = "x".repeat(300000), told = [];
  async function tell() {
    await fetch("/first");
    const entries = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")];
    await fetch("/told/" + [...entries.map((entry) => entry.nextHopProtocol), ...told].join("/"));
  }
  const socket = new WebSocket("wss://" + location.host + "/echo");
  socket.onopen = () => socket.send("hello");
  // One after the other: websocketd stands still where it has an answer to hand out while it takes a large message.
  socket.onmessage = (event) => {
    told.push(event.data === big ? "big" : event.data);
    told.length === 1 ? socket.send(big) : socket.close(1000);
  };
  socket.onclose = (event) => { told.push(event.code, event.wasClean); tell(); };
</script>
"#;

#[test]
fn a_browser_takes_http_2_and_a_websocket() {
    needs!("chromium", "certutil", "websocketd");
    let bed = Bed::new();
    let port = bed.port();
    bed.write("pages/index.html", PAGE);
    let mut application = Command::new("websocketd");
    application.args(["--address=127.0.0.1", "--loglevel=access", &format!("--port={port}")]);
    application.arg(format!("--staticdir={}", bed.path("pages").display())).arg("cat");
    let application = Process::start("websocketd", &mut application);
    application.wait_for_line("Serving CGI or static files");

    let setup = Setup::embedded(&bed).certificate(&[NAME]).upstream(&format!("http://127.0.0.1:{port}"));
    let _daemon = setup.start_until_served(&bed, NAME);
    // What Chromium trusts besides its own list.
    let trusted = bed.path("home/.pki/nssdb");
    std::fs::create_dir_all(&trusted).unwrap();
    let database = format!("sql:{}", trusted.display());
    let certutil = |arguments: &[&str]| {
        run(Command::new("certutil").args(["-d", &database]).args(arguments)).expect_code(0);
    };
    certutil(&["-N", "--empty-password"]);
    let root = setup.state.join("embedded-ca/root.pem").display().to_string();
    certutil(&["-A", "-t", "C,,", "-n", "test", "-i", &root]);

    let mut chromium = Command::new("chromium");
    chromium.env("HOME", bed.path("home")).env("TMPDIR", bed.path("")).args([
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
    ]);
    chromium.arg(format!("--user-data-dir={}", bed.path("profile").display()));
    chromium.args(["--no-proxy-server", "--enable-logging=stderr"]);
    chromium.arg(format!("--host-resolver-rules=MAP {NAME} 127.0.0.1"));
    let chromium = Process::start("chromium", chromium.arg(format!("https://{NAME}:{}/", setup.front)));
    let told = application.wait_for_line("/told/");
    assert!(told.contains(&format!("{NAME}:{}/told/h2/h2/hello/big/1000/true'", setup.front)), "{told}");
    assert!(chromium.lines().iter().all(|line| !line.contains("ERR_CERT")), "{:?}", chromium.lines());
}
