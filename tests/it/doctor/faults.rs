//! Every fault, with its file and line.

use std::process::Command;

use super::installation::{Installation, Report, doctor, made};
use crate::bed::namespace::Namespace;
use crate::bed::process::{Process, run};
use crate::bed::wicketgate::{PROGRAM, clean};
use crate::bed::{Bed, needs, set_mode, until};

const GATE: &str = "127.0.0.1:8402";
const NGINX: &str = "http {\n  include conf.d/*.conf;\n  include sites-enabled/*;\n}\n";
const LIVE: &str = "/var/lib/wicketgate/live";

/// A server block on 443 with these files.
fn tls(names: &str, certificate: &str, key: &str) -> String {
    format!(
        "server {{\n  listen 443 ssl;\n  server_name {names};\n  ssl_certificate {certificate};\n  ssl_certificate_key {key};\n}}\n"
    )
}

/// A server block on 80 that hands challenges to the gate and redirects the rest.
const DOOR: &str = "server {\n  listen 80 default_server;\n  location ^~ /.well-known/acme-challenge/ {\n    proxy_pass http://127.0.0.1:8402;\n    proxy_set_header Host $host;\n  }\n  location / { return 308 https://$host$request_uri; }\n}\n";

#[test]
fn where_all_is_well_nothing_is_found() {
    let here = Installation::new();
    here.configure(GATE, &[&["a.example", "www.a.example"], &["b.example"], &["c.example"], &["d.example"]]);
    for name in ["a.example", "b.example", "c.example", "d.example"] {
        here.keep(
            name,
            &made(&[name, &format!("www.{name}")][..if name == "a.example" { 2 } else { 1 }], 60),
        );
    }
    let pem = |name: &str, file: &str| format!("{LIVE}/{name}/{file}.pem");
    here.write("/etc/nginx/nginx.conf", NGINX);
    let site = tls("a.example www.a.example", &pem("a.example", "fullchain"), &pem("a.example", "privkey"));
    here.write("/etc/nginx/sites-available/a", site + DOOR);
    here.link("/etc/nginx/sites-enabled/a", "/etc/nginx/sites-available/a");
    here.write(
        "/etc/apache2/apache2.conf",
        format!(
            "LoadModule ssl_module modules/mod_ssl.so\nListen 8443\n<VirtualHost *:8443>\nServerName b.example\nSSLEngine on\nSSLCertificateFile {}\nSSLCertificateChainFile {}\nSSLCertificateKeyFile {}\n</VirtualHost>\n",
            pem("b.example", "cert"), pem("b.example", "chain"), pem("b.example", "privkey")
        ),
    );
    here.write(
        "/etc/squid/squid.conf",
        format!(
            "https_port 8444 accel defaultsite=c.example tls-cert={} tls-key={}\nhttp_port 3128\nhttp_access deny all\n",
            pem("c.example", "fullchain"), pem("c.example", "privkey")
        ),
    );
    here.write(
        "/etc/haproxy/haproxy.cfg",
        format!(
            "frontend f\n  mode http\n  bind :8445 ssl crt {}\n  default_backend b\n",
            pem("d.example", "combined")
        ),
    );
    here.write(
        "/etc/hitch/hitch.conf",
        format!("frontend = \"[*]:8446\"\npem-file = \"{}\"\n", pem("d.example", "combined")),
    );
    let report = here.report();
    report.expect(&[]);
    assert_eq!(report.json["servers"].as_array().unwrap().len(), 5);
    assert_eq!(report.json["rules"].as_array().unwrap().len(), 0, "{:#}", report.json);
    let shown = here.doctor(&[]).expect_code(0).stdout;
    assert!(shown.ends_with("\nnothing wrong was found; nothing was changed\n"), "{shown}");
}

#[test]
fn files_of_certificates_and_keys() {
    let here = Installation::new();
    let names = ["a.example", "b.example"];
    here.configure(GATE, &[&names[..1], &names[1..], &["never.example"], &["nobody.example"]]);
    let (a, b) = (made(&["a.example"], 60), made(&["b.example"], 60));
    here.keep("a.example", &a);
    here.keep("b.example", &b);
    let live = |file: &str| format!("{LIVE}/a.example/{file}.pem");
    here.write("/etc/nginx/nginx.conf", NGINX.to_owned() + "# end\n");
    let site = |name: &str, certificate: &str, key: &str| {
        here.write(&format!("/etc/nginx/sites-enabled/{name}"), tls("a.example", certificate, key));
    };
    here.write("/etc/nginx/conf.d/door.conf", DOOR);
    site("01-good", &live("fullchain"), &live("privkey"));
    site("02-leaf", &live("cert"), &live("privkey"));
    here.write("/etc/ssl/named/fullchain.pem", made(&["x.example"], 60).leaf);
    here.write(
        "/etc/nginx/sites-enabled/18-named",
        tls("x.example", "/etc/ssl/named/fullchain.pem", "/etc/ssl/a.key"),
    );
    site("03-mismatch", &live("fullchain"), &format!("{LIVE}/b.example/privkey.pem"));
    site("04-gone", "/etc/ssl/gone.pem", "/etc/ssl/gone.key");
    site("05-frozen", "/var/lib/wicketgate/lineages/a.example/versions/0007/fullchain.pem", &live("privkey"));
    site(
        "06-never",
        &format!("{LIVE}/never.example/fullchain.pem"),
        &format!("{LIVE}/never.example/privkey.pem"),
    );
    here.write("/etc/ssl/copy.pem", a.fullchain());
    here.write("/etc/ssl/copy.key", &a.key);
    site("07-copy", "/etc/ssl/copy.pem", "/etc/ssl/copy.key");
    let old = made(&["a.example"], 20);
    here.pem_files("/etc/ssl/old", "", &old);
    site("08-stale", "/etc/ssl/old/fullchain.pem", "/etc/ssl/old/privkey.pem");
    let ended = made(&["a.example"], -2);
    here.pem_files("/etc/ssl/ended", "", &ended);
    site("09-ended", "/etc/ssl/ended/fullchain.pem", "/etc/ssl/ended/privkey.pem");
    set_mode(&here.path("/etc/ssl/ended/privkey.pem"), 0o644);
    here.pem_files("/etc/letsencrypt/archive/a.example", "3", &made(&["a.example", "x.example"], 60));
    for kind in ["cert", "fullchain", "privkey"] {
        let target = format!("../../archive/a.example/{kind}3.pem");
        here.link(&format!("/etc/letsencrypt/live/a.example/{kind}.pem"), &target);
        here.link(
            &format!("/etc/nginx/tls/{kind}.pem"),
            &format!("/etc/letsencrypt/archive/a.example/{kind}3.pem"),
        );
    }
    site(
        "10-certbot",
        "/etc/letsencrypt/live/a.example/cert.pem",
        "/etc/letsencrypt/live/a.example/privkey.pem",
    );
    site("11-linked", "tls/fullchain.pem", "/etc/letsencrypt/live/a.example/privkey.pem");
    here.write("/etc/ssl/order.pem", format!("{}{}", a.leaf, b.intermediate.clone() + &b.leaf));
    site("12-order", "/etc/ssl/order.pem", &live("privkey"));
    here.write("/etc/ssl/damaged.pem", a.leaf.replace("MII", "!!!"));
    here.write(
        "/etc/ssl/locked.key",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    site("13-damaged", "/etc/ssl/damaged.pem", "/etc/ssl/locked.key");
    site("14-swapped", &live("privkey"), &live("fullchain"));
    let key = rcgen::KeyPair::generate().unwrap();
    let itself =
        rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap().self_signed(&key).unwrap();
    here.write("/etc/ssl/self.pem", itself.pem());
    here.write("/etc/ssl/self.key", key.serialize_pem());
    site("15-self", "/etc/ssl/self.pem", "/etc/ssl/self.key");
    here.link("/etc/ssl/dangling.pem", "/etc/ssl/nowhere.pem");
    site("16-dangling", "/etc/ssl/dangling.pem", "/etc/ssl");
    here.write(
        "/etc/nginx/sites-enabled/17-uncovered",
        tls("a.example b.example", &live("fullchain"), &live("privkey")),
    );

    let report = here.report();
    let at = |name: &str| format!("/etc/nginx/sites-enabled/{name}");
    let expected = [
        ("problem lone-leaf", at("02-leaf:4")),
        ("problem lone-leaf", at("18-named:4")),
        ("problem key-missing", at("18-named:5")),
        ("problem key-mismatch", at("03-mismatch:5")),
        ("problem certificate-missing", at("04-gone:4")),
        ("problem key-missing", at("04-gone:5")),
        ("problem frozen-path", at("05-frozen:4")),
        ("problem certificate-missing", at("06-never:4")),
        ("problem key-missing", at("06-never:5")),
        ("warning copy", at("07-copy:4")),
        ("problem copy-stale", at("08-stale:4")),
        ("problem expired", at("09-ended:4")),
        ("problem key-exposed", at("09-ended:5")),
        ("problem copy-stale", at("09-ended:4")),
        ("problem lone-leaf", at("10-certbot:4")),
        ("problem frozen-path", at("11-linked:4")),
        ("problem chain-broken", at("12-order:4")),
        ("warning copy", at("12-order:4")),
        ("problem certificate-damaged", at("13-damaged:4")),
        ("warning key-damaged", at("13-damaged:5")),
        ("problem certificate-damaged", at("14-swapped:4")),
        ("problem key-missing", at("14-swapped:5")),
        ("warning self-signed", at("15-self:4")),
        ("problem certificate-missing", at("16-dangling:4")),
        ("problem key-missing", at("16-dangling:5")),
        ("problem name-not-covered", at("17-uncovered:3")),
        ("warning certificate-unused", "-".to_owned()),
        ("warning hostname-unserved", "-".to_owned()),
    ]
    .map(|(what, place)| format!("{what} {place}"));
    report.expect(&expected.each_ref().map(String::as_str));

    report.remedy(
        "lone-leaf",
        &at("02-leaf:4"),
        &format!("write {LIVE}/a.example/fullchain.pem, then `nginx -s reload`"),
    );
    report.remedy("frozen-path", &at("05-frozen:4"), &format!("write {LIVE}/a.example/fullchain.pem"));
    report.remedy("frozen-path", &at("11-linked:4"), "write /etc/letsencrypt/live/a.example/fullchain.pem");
    report.remedy("certificate-missing", &at("06-never:4"), "wicketgate renew never.example");
    report.remedy("copy-stale", &at("08-stale:4"), &format!("write {LIVE}/a.example/fullchain.pem"));
    let dangling = report.finding("certificate-missing", &at("16-dangling:4"))["seen"].as_str().unwrap();
    assert!(dangling.contains("the link /etc/ssl/dangling.pem leads to /etc/ssl/nowhere.pem"), "{dangling}");
}

#[test]
fn squid_before_apache_with_cert_pem_and_a_forgotten_www() {
    let here = Installation::new();
    here.configure("[::]:80", &[&["null-i.example", "old.null-i.example"]]);
    here.keep("null-i.example", &made(&["null-i.example", "old.null-i.example"], 60));
    here.write(
        "/etc/squid/squid.conf",
        format!(
            "acl Safe_ports port 80 443\nhttp_access deny !Safe_ports\nhttp_port 80 accel defaultsite=null-i.example\n\
             https_port 443 accel defaultsite=null-i.example tls-cert={LIVE}/null-i.example/cert.pem tls-key={LIVE}/null-i.example/privkey.pem\n\
             url_rewrite_program /usr/bin/squidGuard\nacl hidden urlpath_regex /\\.\nhttp_access deny hidden\nhttp_access allow all\n\
             cache_peer 127.0.0.1 parent 8080 0 no-query originserver name=apache\n"
        ),
    );
    here.write("/etc/apache2/envvars", "export APACHE_LOG_DIR=/var/log/apache2\n");
    here.write("/etc/apache2/ports.conf", "Listen 127.0.0.1:8080\n");
    here.write("/etc/apache2/apache2.conf", "Include ports.conf\nIncludeOptional sites-enabled/*.conf\n");
    here.write(
        "/etc/apache2/sites-available/null-i.conf",
        "<VirtualHost *:8080>\n  ServerName null-i.example\n  ServerAlias www.null-i.example printer.internal\n  ScriptAlias / /usr/lib/cgi-bin/\n</VirtualHost>\n",
    );
    here.link("/etc/apache2/sites-enabled/null-i.conf", "../sites-available/null-i.conf");
    let report = here.report();
    report.expect(&[
        "problem lone-leaf /etc/squid/squid.conf:4",
        "problem port-80-contended /etc/squid/squid.conf:3",
        "warning challenge-denied /etc/squid/squid.conf:7",
        "warning hostname-without-certificate /etc/apache2/sites-enabled/null-i.conf:3",
        "warning hostname-unserved -",
    ]);
    report.remedy(
        "hostname-without-certificate",
        "/etc/apache2/sites-enabled/null-i.conf:3",
        "add \"www.null-i.example\" to `hostnames` of certificate `null-i.example`",
    );
    report.remedy(
        "port-80-contended",
        "/etc/squid/squid.conf:3",
        "set `gate.listen = [\"127.0.0.1:8081\"]` and `gate.trusted-proxies = [\"127.0.0.1\"]`",
    );
}

#[test]
fn what_catches_a_challenge_on_port_80() {
    let here = Installation::new();
    here.configure(GATE, &[&["a.example", "b.example", "c.example"]]);
    here.keep("a.example", &made(&["a.example", "b.example", "c.example"], 60));
    let pass = "proxy_pass http://127.0.0.1:8402;";
    here.write(
        "/etc/nginx/nginx.conf",
        format!(
            "http {{\nserver {{\n  listen 80; server_name a.example;\n  return 301 https://$host$request_uri;\n}}\n\
             server {{\n  listen 80; server_name b.example;\n  location ~ /\\. {{ deny all; }}\n}}\n\
             server {{\n  listen 80; server_name c.example;\n  location / {{ {pass} }}\n}}\n\
             server {{\n  listen 80; server_name foreign.example;\n  return 301 https://$host$request_uri;\n}}\n\
             server {{\n  listen 80 default_server;\n  location / {{ proxy_pass http://127.0.0.1:9; }}\n}}\n{}}}\n",
            tls("a.example b.example c.example foreign.example", &format!("{LIVE}/a.example/fullchain.pem"), &format!("{LIVE}/a.example/privkey.pem"))
        ),
    );
    let apache = |text: &str| format!("<VirtualHost *:80>\nServerName a.example\n{text}\n</VirtualHost>\n");
    here.write(
        "/etc/apache2/apache2.conf",
        "Listen 80\n".to_owned()
            + &apache("Redirect permanent / https://a.example/")
            + &apache("RewriteEngine On\nRewriteRule ^ https://%{HTTP_HOST}%{REQUEST_URI} [R=301,L]")
            + &apache("ScriptAlias / /usr/lib/cgi-bin/"),
    );
    here.write(
        "/etc/haproxy/haproxy.cfg",
        "frontend f\n  mode http\n  bind :80\n  redirect scheme https if !{ ssl_fc }\nfrontend t\n  bind :80\n",
    );
    let report = here.report();
    report.expect(&[
        "problem challenge-redirected /etc/nginx/nginx.conf:4",
        "problem challenge-denied /etc/nginx/nginx.conf:8",
        "problem challenge-altered /etc/nginx/nginx.conf:12",
        "problem challenge-misdirected /etc/nginx/nginx.conf:20",
        "problem name-not-covered /etc/nginx/nginx.conf:24",
        "problem challenge-redirected /etc/apache2/apache2.conf:4",
        "problem challenge-redirected /etc/apache2/apache2.conf:9",
        "problem challenge-answered /etc/apache2/apache2.conf:13",
        "problem challenge-redirected /etc/haproxy/haproxy.cfg:4",
        "problem challenge-answered /etc/haproxy/haproxy.cfg:5",
    ]);
    report.remedy("challenge-redirected", "/etc/nginx/nginx.conf:4", "to 127.0.0.1:8402");
    report.remedy("name-not-covered", "/etc/nginx/nginx.conf:24", "add \"foreign.example\"");
    let places = |n: usize| report.json["rules"][n]["places"].as_array().unwrap().len();
    assert_eq!((places(0), places(1)), (2, 3), "{:#}", report.json["rules"]);
}

#[test]
fn what_the_gate_on_port_80_would_take_away() {
    let here = Installation::new();
    here.configure("[::]:80", &[&["a.example"]]);
    here.keep("a.example", &made(&["a.example"], 60));
    here.write(
        "/etc/nginx/nginx.conf",
        format!(
            "http {{\nserver {{\n  listen 80;\n  server_name a.example plain.example;\n  root /srv;\n}}\n\
             server {{\n  listen 80;\n  server_name gone.example;\n  return 410;\n}}\n{}}}\n",
            tls(
                "a.example",
                &format!("{LIVE}/a.example/fullchain.pem"),
                &format!("{LIVE}/a.example/privkey.pem")
            )
        ),
    );
    let report = here.report();
    report.expect(&[
        "problem port-80-contended /etc/nginx/nginx.conf:3",
        "problem http-only-site /etc/nginx/nginx.conf:4",
        "warning hostname-without-certificate /etc/nginx/nginx.conf:4",
        "warning hostname-without-certificate /etc/nginx/nginx.conf:9",
    ]);
    // At another address it takes nothing away.
    let text = std::fs::read_to_string(here.path("/etc/nginx/nginx.conf")).unwrap();
    here.configure("192.0.2.1:80", &[&["a.example"]]);
    here.write("/etc/nginx/nginx.conf", text.replace("listen 80;", "listen 192.0.2.2:80;"));
    here.report().expect(&[
        "warning hostname-without-certificate /etc/nginx/nginx.conf:4",
        "warning hostname-without-certificate /etc/nginx/nginx.conf:9",
    ]);
    here.write("/etc/nginx/nginx.conf", text);
    // On another port neither.
    here.configure(GATE, &[&["a.example"]]);
    assert!(!here.report().faults().iter().any(|fault| fault.contains("http-only-site")));
}

#[test]
fn a_filter_that_nobody_here_can_judge() {
    let here = Installation::new();
    here.configure(GATE, &[&["a.example"]]);
    here.keep("a.example", &made(&["a.example"], 60));
    here.write(
        "/etc/squid/squid.conf",
        format!(
            "http_port 80 accel vhost defaultsite=a.example\nhttps_port 443 accel defaultsite=a.example tls-cert={LIVE}/a.example/fullchain.pem tls-key={LIVE}/a.example/privkey.pem\n\
             http_access allow all\nurl_rewrite_program /usr/bin/squidGuard\ncache_peer 127.0.0.1 parent 8402 0 no-query originserver name=gate\n"
        ),
    );
    let report = here.report();
    report.expect(&["warning challenge-filtered /etc/squid/squid.conf:4"]);
    let lines = report.json["rules"][0]["lines"].as_str().unwrap();
    assert!(lines.contains("url_rewrite_access deny wicketgate"), "{lines}");
}

#[test]
fn a_certificate_of_tomorrow() {
    needs!("faketime");
    let here = Installation::new();
    here.configure(GATE, &[&["a.example"]]);
    here.keep("a.example", &made(&["a.example"], 60));
    let site = tls(
        "a.example",
        &format!("{LIVE}/a.example/fullchain.pem"),
        &format!("{LIVE}/a.example/privkey.pem"),
    );
    here.write("/etc/nginx/nginx.conf", format!("http {{\n{site}}}\n"));
    let mut earlier = Command::new("faketime");
    earlier.args(["-f", "-100d"]).arg(PROGRAM);
    let ran = run(doctor(earlier, &here.root()).arg("--json"));
    Report::of(&ran).expect(&["problem not-yet-valid /etc/nginx/nginx.conf:5"]);
    let mut later = Command::new("faketime");
    later.args(["-f", "+61d"]).arg(PROGRAM);
    let ran = run(doctor(later, &here.root()).arg("--json"));
    Report::of(&ran).expect(&["problem expired /etc/nginx/nginx.conf:5"]);
}

#[test]
fn a_copy_is_in_use() {
    let here = Installation::new();
    here.configure(GATE, &[&["a.example"]]);
    let a = made(&["a.example"], 60);
    here.keep("a.example", &a);
    here.pem_files("/etc/ssl/a", "", &a);
    let site = tls("a.example", "/etc/ssl/a/fullchain.pem", "/etc/ssl/a/privkey.pem");
    here.write("/etc/nginx/nginx.conf", format!("http {{\n{site}}}\n"));
    here.report().expect(&["warning copy /etc/nginx/nginx.conf:5"]);
}

#[test]
fn haproxy_and_hitch_want_one_file() {
    let here = Installation::new();
    here.configure(GATE, &[&["a.example"], &["b.example"]]);
    let (a, b) = (made(&["a.example"], 60), made(&["b.example"], 60));
    here.keep("a.example", &a);
    here.keep("b.example", &b);
    here.write("/etc/default/haproxy", "CONFIG=\"/etc/haproxy/other.cfg\"\n");
    here.write(
        "/etc/haproxy/other.cfg",
        format!("global\n  crt-base {LIVE}\nfrontend f\n  mode http\n  bind :443 ssl crt a.example/fullchain.pem crt /etc/certs/\n  bind :444 ssl crt-list /etc/haproxy/list\n"),
    );
    here.write("/etc/haproxy/list", "a.example/combined.pem\n/etc/haproxy/gone.pem a.example\n");
    here.write("/etc/certs/b.pem", b.fullchain());
    here.write("/etc/certs/b.pem.key", &b.key);
    here.write("/etc/certs/leaf.pem", b.leaf.clone() + &a.key);
    here.write(
        "/etc/hitch/hitch.conf",
        format!("frontend = {{\n  host = \"*\"\n  port = \"443\"\n}}\npem-file = \"{LIVE}/b.example/fullchain.pem\"\npem-dir = \"/etc/hitch/none\"\n"),
    );
    let report = here.report();
    report.expect(&[
        "problem key-missing /etc/haproxy/other.cfg:5",
        "warning copy /etc/haproxy/other.cfg:5",
        "problem lone-leaf /etc/haproxy/other.cfg:5",
        "problem key-mismatch /etc/haproxy/other.cfg:5",
        "problem certificate-missing /etc/haproxy/list:2",
        "problem key-missing /etc/hitch/hitch.conf:5",
        "problem file-missing /etc/hitch/hitch.conf:6",
    ]);
    report.remedy("key-missing", "/etc/hitch/hitch.conf:5", &format!("write {LIVE}/b.example/combined.pem"));
}

#[test]
fn broken_configurations_and_ours_is_one_of_them() {
    let here = Installation::new();
    here.configure("nowhere", &[]);
    here.write("/etc/nginx/nginx.conf", NGINX.to_owned() + "include /etc/nginx/gone.conf;\n");
    here.link("/etc/nginx/sites-enabled/old", "/etc/nginx/sites-available/old");
    here.write("/etc/nginx/conf.d/a.conf", "server {\n  listen 443 ssl\n  ssl_certificate /c;\n");
    here.write(
        "/etc/nginx/conf.d/b.conf",
        "include conf.d/b.conf;\nserver { listen 443 ssl; ssl_certificate $x; }\n",
    );
    here.write("/etc/apache2/apache2.conf", "<VirtualHost *:80>\n");
    here.write("/etc/squid/squid.conf/x", "a folder");
    let report = here.report();
    let faults = report.faults();
    let ours: Vec<_> = faults.iter().filter(|fault| fault.contains("configuration-wrong")).collect();
    assert_eq!(ours, ["problem configuration-wrong -"]);
    report.expect(&[
        "problem configuration-wrong -",
        "problem file-missing /etc/nginx/nginx.conf:5",
        "problem file-missing /etc/nginx/nginx.conf:3",
        "problem syntax /etc/nginx/conf.d/a.conf:1",
        "problem include-endless /etc/nginx/conf.d/b.conf:1",
        "warning value-unknown /etc/nginx/conf.d/b.conf:2",
        "problem syntax /etc/apache2/apache2.conf:1",
        "problem file-missing /etc/squid/squid.conf",
    ]);
    let seen: Vec<_> = report.findings().filter_map(|f| f["seen"].as_str()).collect();
    assert!(
        seen.iter().any(|seen| seen.contains("wicketgate.toml:4") && seen.contains("nowhere")),
        "{seen:#?}"
    );
    let link =
        "the link /etc/nginx/sites-enabled/old leads to /etc/nginx/sites-available/old, which does not exist";
    assert!(seen.iter().any(|seen| seen.contains(link)), "{seen:#?}");
}

#[test]
fn debians_own_files_are_understood() {
    needs!("nginx", "apache2", "squid", "haproxy");
    let here = Installation::new();
    let nginx_modules = "/usr/share/nginx/modules-available";
    for folder in ["/etc/nginx", "/etc/apache2", "/etc/squid", "/etc/haproxy", nginx_modules] {
        let to = here.path(folder);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        run(Command::new("cp").arg("-r").arg("-P").arg(folder).arg(to)).expect_code(0);
    }
    let report = here.report();
    assert_eq!(report.json["servers"].as_array().unwrap().len(), 4, "{:#}", report.json);
    let not_understood = ["syntax", "file-missing", "file-unreadable", "include-endless", "value-unknown"];
    for finding in report.findings() {
        assert!(!not_understood.iter().any(|cause| finding["cause"] == *cause), "{finding:#}");
    }
}

#[test]
fn who_holds_port_80() {
    needs!("namespaces", "ip", "nsenter", "nginx");
    let bed = Bed::new();
    let inside = Namespace::start(&bed, &[]);
    let port_80 = || {
        let mut command = inside.command(PROGRAM);
        clean(&mut command);
        Report::of(&run(command.args(["doctor", "--json"]))).json["port-80"].clone()
    };
    assert_eq!(port_80()["state"], "free");
    let config = bed.write(
        "nginx.conf",
        format!(
            "daemon off; master_process off; user root root; pid {0}/pid; error_log {0}/log; events {{}}\n\
             http {{ access_log off; client_body_temp_path {0}/a; proxy_temp_path {0}/b; fastcgi_temp_path {0}/c;\n\
             uwsgi_temp_path {0}/d; scgi_temp_path {0}/e; server {{ listen 80; }} }}\n",
            bed.dir().display()
        ),
    );
    let nginx = Process::start(
        "nginx",
        inside.command("/usr/sbin/nginx").arg("-e").arg(bed.path("log")).arg("-c").arg(config),
    );
    let held = until("nginx holds port 80", || Some(port_80()).filter(|held| held["state"] == "held"));
    assert_eq!((held["program"].as_str(), held["pid"].as_u64()), (Some("nginx"), Some(nginx.id().into())));
}

#[test]
fn where_nothing_is_that_is_told() {
    let here = Installation::new();
    here.report().expect(&["warning configuration-missing -", "warning no-server -"]);
    let ran = run(Command::new(PROGRAM).args(["doctor", "--root", "/nowhere/at/all"])).expect_code(1);
    assert!(ran.stderr.contains("/nowhere/at/all is no folder"), "{}", ran.stderr);
}

#[test]
fn what_this_user_may_not_read_is_told() {
    needs!("root", "setpriv");
    let here = Installation::new();
    let program = here.bed.path("wicketgate");
    std::fs::copy(PROGRAM, &program).unwrap();
    set_mode(&program, 0o755);
    set_mode(&here.root(), 0o755);
    here.write("/etc/nginx/nginx.conf", NGINX);
    here.write("/etc/nginx/sites-enabled/locked", tls("b.example", "/c", "/k"));
    here.write("/etc/nginx/conf.d/a.conf", tls("a.example", "/etc/ssl/a.pem", "/etc/ssl/private/a.key"));
    let a = made(&["a.example"], 60);
    here.write("/etc/ssl/a.pem", a.fullchain());
    here.write("/etc/ssl/private/a.key", &a.key);
    here.write("/etc/squid/conf/squid.conf", "");
    here.write("/etc/haproxy/haproxy.cfg", "frontend f\n  bind :443 ssl crt /etc/locked/\n");
    here.write("/etc/locked/a.pem", "");
    for readable in
        ["/etc/nginx/nginx.conf", "/etc/nginx/conf.d/a.conf", "/etc/ssl/a.pem", "/etc/haproxy/haproxy.cfg"]
    {
        set_mode(&here.path(readable), 0o644);
    }
    for shut in ["/etc/ssl/private", "/etc/squid", "/etc/locked"] {
        set_mode(&here.path(shut), 0o700);
    }
    let mut foreign = Command::new("setpriv");
    foreign.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(program);
    let ran = run(doctor(foreign, &here.root()).arg("--json"));
    Report::of(&ran).expect(&[
        "warning configuration-missing -",
        "warning file-unreadable /etc/nginx/nginx.conf:3",
        "warning key-unreadable /etc/nginx/conf.d/a.conf:5",
        "warning file-unreadable /etc/squid/squid.conf",
        "warning file-unreadable /etc/haproxy/haproxy.cfg:2",
        "warning certificate-unreadable /etc/haproxy/haproxy.cfg:2",
    ]);
}

#[test]
fn selinux_labels_that_keep_servers_out() {
    needs!("root");
    let here = Installation::new();
    here.configure(GATE, &[&["a.example"]]);
    here.keep("a.example", &made(&["a.example"], 60));
    let pem = |file: &str| format!("{LIVE}/a.example/{file}.pem");
    let site = tls("a.example", &pem("fullchain"), &pem("privkey"));
    here.write("/etc/nginx/nginx.conf", format!("http {{\n{site}}}\n"));
    let label = |file: &str, label: &str| {
        let path = here.path(&format!("/var/lib/wicketgate/lineages/a.example/versions/0007/{file}.pem"));
        let value = format!("system_u:object_r:{label}:s0\0");
        rustix::fs::setxattr(path, "security.selinux", value.as_bytes(), rustix::fs::XattrFlags::empty())
            .unwrap();
    };
    label("fullchain", "cert_t");
    label("privkey", "var_lib_t");
    here.report().expect(&[]);
    here.write("/sys/fs/selinux/enforce", "0");
    here.report().expect(&[]);
    here.write("/sys/fs/selinux/enforce", "1");
    let report = here.report();
    report.expect(&["problem selinux-label /etc/nginx/nginx.conf:6"]);
    report.remedy(
        "selinux-label",
        "/etc/nginx/nginx.conf:6",
        "`semanage fcontext -a -t cert_t '/var/lib/wicketgate(/.*)?'`, then `restorecon -R -v /var/lib/wicketgate`",
    );
}
