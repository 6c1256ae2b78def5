//! Everybody else's servers, on the other machine: one nginx, one Squid, one Apache, another wicketgate,
//! and a packet filter.

use std::fs;
use std::path::PathBuf;

use crate::bed::neighbours::{Neighbours, OURS};
use crate::bed::pki::Pki;
use crate::bed::process::Process;
use crate::bed::wicketgate::{PROGRAM, clean};
use crate::bed::{Bed, set_mode, until};

/// All of them, until dropped.
pub(super) struct Servers {
    _running: Vec<Process>,
}

impl Servers {
    /// Starts them and waits until they listen.
    pub(super) fn start(bed: &Bed, neighbours: &Neighbours) -> Self {
        let filter = "table inet filter { chain input { type filter hook input priority 0;
             ip daddr 192.0.2.70 tcp dport 80 drop
             ip6 daddr 2001:db8::70 tcp dport 80 drop
             ip daddr 192.0.2.71 tcp dport 80 reject with icmp type admin-prohibited
             ip daddr 192.0.2.72 tcp dport 80 reject with tcp reset
             }
             }\n";
        let filter = bed.write("filter.nft", filter);
        neighbours.their_sh(&format!("nft -f {}", filter.display())).expect_code(0);
        let nginx = nginx_config(bed, "theirs", &nginx_servers(bed));
        let other = bed.write("other-gate.toml", other_gate(bed));
        let mut gate = neighbours.theirs(PROGRAM);
        clean(&mut gate);
        let running = vec![
            Process::start("nginx", neighbours.theirs("nginx").arg("-c").arg(nginx)),
            Process::start("squid", neighbours.theirs_as_user("squid").args(["-N", "-f"]).arg(squid(bed))),
            Process::start(
                "apache2",
                neighbours.theirs_as_user("apache2").args(["-X", "-f"]).arg(apache(bed)),
            ),
            Process::start("another wicketgate", gate.arg("--config").arg(other).arg("run")),
        ];
        until("the servers listen", || {
            let listening = neighbours.their_sh("ss -Hltn").stdout;
            let all = ["192.0.2.11:80 ", "192.0.2.40:80 ", "192.0.2.42:80 ", "192.0.2.44:80 "];
            all.iter().all(|address| listening.contains(address)).then_some(())
        });
        Self { _running: running }
    }
}

/// A configuration in the foreground, with these servers.
pub(super) fn nginx_config(bed: &Bed, name: &str, servers: &str) -> PathBuf {
    let dir = bed.path(&format!("nginx-{name}"));
    fs::create_dir_all(&dir).unwrap();
    let folders: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {}/{kind};\n", dir.display()))
        .concat();
    bed.write(
        &format!("nginx-{name}/nginx.conf"),
        format!(
            "daemon off; master_process off; user root root; pid {dir}/pid; error_log {dir}/error.log;
             events {{ worker_connections 500; }}
             http {{ access_log off; default_type text/plain; {folders} {servers} }}\n",
            dir = dir.display()
        ),
    )
}

fn nginx_servers(bed: &Bed) -> String {
    let pki = Pki::new(bed.dir(), "theirs", &["https.example"]);
    let root = bed.path("another-root");
    fs::create_dir_all(&root).unwrap();
    set_mode(&root, 0o755);
    fs::write(root.join("index.html"), "<!DOCTYPE html><title>home</title>").unwrap();
    let passwords = bed.write("passwords", "nobody:{PLAIN}none\n");
    let tls = format!("ssl_certificate {}; ssl_certificate_key {};", pki.chain.display(), pki.key.display());
    let pass = format!("location / {{ proxy_pass http://{OURS}:80; proxy_set_header Host $host; }}");
    let pass_bare =
        format!("location / {{ proxy_pass http://{OURS}:80; proxy_set_header Host bare.example; }}");
    let root = format!("root {};", root.display());
    let stateless =
        format!("location ~ ^/.well-known/acme-challenge/(.*)$ {{ return 200 \"$1.{}\"; }}", "C".repeat(43));
    [
        (11, "deny all;".to_owned()),
        (12, format!("listen [2001:db8::12]:80; {root}")),
        (13, format!("{root} auth_basic x; auth_basic_user_file {};", passwords.display())),
        (14, "return 302 http://$host$request_uri;".to_owned()),
        (15, "return 301 http://home.example/;".to_owned()),
        (16, format!("{root} location / {{ try_files $uri /index.html; }}")),
        (17, "location / { proxy_pass http://127.0.0.1:1; }".to_owned()),
        (18, "return 302 https://$host:8443$request_uri;".to_owned()),
        (19, "return 302 ftp://$host$request_uri;".to_owned()),
        (20, "return 302 http://slash.example.well-known/acme-challenge/x;".to_owned()),
        (21, "listen 192.0.2.21:443; return 302 https://$host$request_uri;".to_owned()),
        (23, "return 429;".to_owned()),
        (24, "return 421;".to_owned()),
        (25, "return 500;".to_owned()),
        (26, pass.clone()),
        (27, "return 301 https://$host$request_uri;".to_owned()),
        (28, "return 204;".to_owned()),
        (29, "return 444;".to_owned()),
        (30, "return 301 https://192.0.2.30$request_uri;".to_owned()),
        (31, stateless),
        (32, "return 302 'http://';".to_owned()),
        (33, "return 302 http://refused.example$request_uri;".to_owned()),
        (34, "return 200 hello;".to_owned()),
    ]
    .map(|(n, inside)| format!("server {{ listen 192.0.2.{n}:80; {inside} }}\n"))
    .concat()
        + &format!(
            "server {{ listen 192.0.2.22:80 ssl; {tls} {pass} }}
             server {{ listen 192.0.2.27:443 ssl; {tls} {pass} }}
             server {{ listen 192.0.2.30:443 ssl; {tls} {pass_bare} }}\n"
        )
}

fn squid(bed: &Bed) -> PathBuf {
    let dir = bed.path("squid");
    fs::create_dir_all(&dir).unwrap();
    bed.write(
        "squid/squid.conf",
        format!(
            "http_port 192.0.2.40:80 accel vhost\nhttp_port 192.0.2.41:80 accel vhost name=dead\n\
             acl dead myportname dead\nhttp_access allow dead\nhttp_access deny all\n\
             cache_peer 127.0.0.1 parent 1 0 no-query originserver\nnever_direct allow all\n\
             connect_retries 0\ncache deny all\nvisible_hostname squid.test\npinger_enable off\n\
             access_log none\npid_filename {dir}/pid\ncache_log {dir}/log\ncoredump_dir {dir}\n\
             shutdown_lifetime 0 seconds\n",
            dir = dir.display()
        ),
    )
}

fn apache(bed: &Bed) -> PathBuf {
    let dir = bed.path("apache");
    fs::create_dir_all(dir.join("root")).unwrap();
    let module = |name: &str| {
        let path = format!("/usr/lib/apache2/modules/mod_{name}.so");
        format!("LoadModule {name}_module {path}\n")
    };
    let modules: String = ["mpm_event", "authz_core"].map(module).concat();
    bed.write(
        "apache/apache.conf",
        format!(
            "ServerRoot {dir}\nDefaultRuntimeDir {dir}\nPidFile {dir}/pid\nErrorLog {dir}/log\n\
             ServerName apache.example\nMutex fcntl\n{modules}Listen 192.0.2.42:80\nListen 192.0.2.43:80\n\
             <VirtualHost 192.0.2.42:80>\nServerName apache.example\nDocumentRoot {dir}/root\n\
             <Location />\nRequire all denied\n</Location>\n</VirtualHost>\n\
             <VirtualHost 192.0.2.43:80>\nServerName apache.example\nDocumentRoot {dir}/root\n</VirtualHost>\n",
            dir = dir.display()
        ),
    )
}

fn other_gate(bed: &Bed) -> String {
    format!(
        "state-dir = {:?}\n[acme]\nissuer = \"embedded\"\n[gate]\nlisten = [\"192.0.2.44:80\"]\n\
         [admin]\nsocket = {:?}\n",
        bed.path("other-state"),
        bed.path("other.sock")
    )
}
