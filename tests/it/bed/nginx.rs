//! A real nginx, as an upstream and as a server of the PEM files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::client::is_open;
use super::process::Process;
use super::{Bed, set_mode, until};

/// A running nginx with a configuration of its own, in the foreground.
pub(crate) struct Nginx {
    _process: Process,
    pub(crate) config: PathBuf,
    port: u16,
}

impl Nginx {
    /// An HTTP server of the folder `origin`: `/small` is 1 kB of `x`, `/headers` tells what came.
    pub(crate) fn upstream(bed: &Bed) -> Self {
        let origin = bed.path("origin");
        fs::create_dir_all(&origin).unwrap();
        set_mode(&origin, 0o755);
        fs::write(origin.join("small"), [b'x'; 1024]).unwrap();
        let port = bed.port();
        let server = format!(
            "listen 127.0.0.1:{port}; root {}; default_type text/plain;
             location = /headers {{
               return 200 \"host=$http_host\\nproto=$http_x_forwarded_proto\\nfor=$http_x_forwarded_for\\n\";
             }}",
            origin.display()
        );
        Self::servers(bed, "upstream", &format!("server {{ {server} }}"), port, 1)
    }

    /// A TLS server of what the folder `live` holds: `fullchain.pem` and `privkey.pem`.
    pub(crate) fn tls(bed: &Bed, live: &Path, port: u16) -> Self {
        Self::tls_by(bed, &|program| Command::new(program), live, port)
    }

    /// As [`Self::tls`], started by what `program` makes of its name.
    pub(crate) fn tls_by(bed: &Bed, program: &dyn Fn(&str) -> Command, live: &Path, port: u16) -> Self {
        let live = live.display();
        let server = format!(
            "listen 127.0.0.1:{port} ssl;
             ssl_certificate {live}/fullchain.pem; ssl_certificate_key {live}/privkey.pem;
             location / {{ return 200 \"nginx\\n\"; }}"
        );
        Self::start(bed, program, "tls", &format!("server {{ {server} }}"), port, 1)
    }

    /// A TLS server of the pair that the folder `live` holds, as a person would configure it.
    pub(crate) fn pair(bed: &Bed, live: &Path, port: u16) -> Self {
        let live = live.display();
        let server = format!(
            "listen 127.0.0.1:{port} ssl;
             ssl_certificate {live}/ecdsa/fullchain.pem; ssl_certificate_key {live}/ecdsa/privkey.pem;
             ssl_certificate {live}/rsa/fullchain.pem; ssl_certificate_key {live}/rsa/privkey.pem;
             location / {{ return 200 \"nginx\\n\"; }}"
        );
        Self::servers(bed, "pair", &format!("server {{ {server} }}"), port, 1)
    }

    /// These servers, of which one listens on `port`, with that many workers.
    pub(crate) fn servers(bed: &Bed, name: &str, servers: &str, port: u16, workers: usize) -> Self {
        Self::start(bed, &|program| Command::new(program), name, servers, port, workers)
    }

    fn start(
        bed: &Bed,
        by: &dyn Fn(&str) -> Command,
        name: &str,
        servers: &str,
        port: u16,
        workers: usize,
    ) -> Self {
        let dir = bed.path(&format!("nginx-{name}"));
        fs::create_dir_all(&dir).unwrap();
        let folders: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {}/{kind};\n", dir.display()))
            .concat();
        let config = bed.write(
            &format!("nginx-{name}/nginx.conf"),
            format!(
                "daemon off; pid {dir}/pid; error_log {dir}/error.log; worker_processes {workers};
                 events {{ worker_connections 1000; }}
                 http {{ access_log off; ssl_protocols TLSv1.2 TLSv1.3; {folders} {servers} }}\n",
                dir = dir.display()
            ),
        );
        let process = Process::start(
            &format!("nginx ({name})"),
            by(&program()).arg("-c").arg(&config).arg("-e").arg(dir.join("error.log")),
        );
        until("nginx listens", || is_open(port).then_some(()));
        Self { _process: process, config, port }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The command that makes it read its files again, as a person would configure it.
    pub(crate) fn reload_command(&self) -> Vec<String> {
        self.command_with(&["-s", "reload"])
    }

    /// The command that tests its configuration.
    pub(crate) fn check_command(&self) -> Vec<String> {
        self.command_with(&["-t"])
    }

    fn command_with(&self, arguments: &[&str]) -> Vec<String> {
        let program = program();
        let config = self.config.to_str().expect("a path in UTF-8");
        [program.as_str(), "-c", config].iter().chain(arguments).map(ToString::to_string).collect()
    }

    /// Changes its configuration, which it reads at the next reload.
    pub(crate) fn change_config(&self, change: impl Fn(&str) -> String) {
        let text = fs::read_to_string(&self.config).unwrap();
        fs::write(&self.config, change(&text)).unwrap();
    }
}

/// It lives outside of an ordinary user's `PATH`.
fn program() -> String {
    ["/usr/sbin/nginx", "/usr/local/sbin/nginx"]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .unwrap_or("nginx")
        .to_owned()
}

#[test]
fn nginx_serves_files_and_reads_them_again() {
    super::needs!("nginx", "openssl", "curl");
    use super::pki::{Pki, read_chain_file};
    let bed = Bed::new();
    let live = bed.path("live");
    fs::create_dir(&live).unwrap();
    let install = |pki: &Pki| {
        fs::copy(&pki.chain, live.join("fullchain.pem")).unwrap();
        fs::copy(&pki.key, live.join("privkey.pem")).unwrap();
    };
    let first = Pki::new(bed.dir(), "first", &["www.example.test"]);
    install(&first);
    let nginx = Nginx::tls(&bed, &live, bed.port());
    let served = || super::client::served_leaf(nginx.port(), "www.example.test");
    assert_eq!(served(), Some(read_chain_file(&first.chain)[0].clone()));
    let page = super::client::curl(&first.root, "www.example.test", nginx.port(), "/", &[]);
    assert_eq!(page.expect_code(0).stdout, "nginx\n");

    let second = Pki::new(bed.dir(), "second", &["www.example.test"]);
    install(&second);
    let reload = nginx.reload_command();
    super::process::run(Command::new(&reload[0]).args(&reload[1..])).expect_code(0);
    let renewed = read_chain_file(&second.chain)[0].clone();
    until("nginx serves the second certificate", || (served() == Some(renewed.clone())).then_some(()));
}

#[test]
fn the_upstream_tells_what_it_was_asked() {
    super::needs!("nginx");
    let bed = Bed::new();
    let nginx = Nginx::upstream(&bed);
    let small = super::client::get(nginx.port(), "www.example.test", "/small").unwrap();
    assert_eq!((small.status, small.body), (200, vec![b'x'; 1024]));
    let headers = super::client::get(nginx.port(), "www.example.test", "/headers").unwrap();
    assert_eq!(headers.body, b"host=www.example.test\nproto=\nfor=\n");
}
