use proptest::prelude::*;

use super::super::picture::sketch;
use super::super::reading::memory::Memory;
use super::*;

const MAIN: &str = "/etc/haproxy/haproxy.cfg";

fn seen(files: &[(&str, &str)]) -> Vec<String> {
    sketch(&read(MAIN, &Memory::new(files)).unwrap())
}

/// What becomes of a challenge at a frontend whose default is a backend `app`.
fn fate(text: &str) -> String {
    let text = format!(
        "defaults\n mode http\nfrontend f\n bind :80\n{text}\n default_backend app\nbackend app\n server a 127.0.0.1:8081\nbackend gate\n server g 127.0.0.1:8080\nbackend shut\n http-request deny\n server s 127.0.0.1:1\n"
    );
    let seen = seen(&[(MAIN, &text)]);
    assert_eq!(seen.len(), 1, "{seen:?}");
    seen[0].split("challenge ").nth(1).unwrap_or_default().to_owned()
}

#[test]
fn binds_certificates_and_names() {
    let main = "global\n\tcrt-base /etc/ssl/private\n\tsetenv DIR /etc/certs\ndefaults\n\tmode\thttp\n\
        frontend web\n  bind *:80,[::]:80 # both\n  bind :443 ssl crt site.pem crt \"$DIR/b.pem\" alpn h2,http/1.1 crt-list /etc/haproxy/list\n  bind /run/x.sock ssl crt no.pem\n\
        \x20 acl one hdr(host) -i one.example www.one.example:80\n  acl two hdr_end(host) -i .two.example\n  use_backend b1 if one\n  use_backend b2 if { req.hdr(host) -m str three.example } or two\n  acl bad hdr(host) evil.example\n  http-request deny if bad\n\
        listen stats\n  bind 127.0.0.1:9000 ssl crt /etc/dir/ crt /etc/bundle.pem crt \"${GONE}/x\"\n";
    let found = seen(&[
        (MAIN, main),
        ("/etc/haproxy/list", "# list\nc.pem [alpn h2] c.example\n\n/etc/d.pem !x.example\n"),
        ("/etc/dir/b.pem", ""),
        ("/etc/dir/a.pem", ""),
        ("/etc/dir/a.pem.key", ""),
        ("/etc/dir/.hidden", ""),
        ("/etc/dir/sub/x", ""),
        ("/etc/bundle.pem.rsa", ""),
        ("/etc/bundle.pem.ecdsa", ""),
    ]);
    assert_eq!(
        found,
        [
            "/etc/haproxy/haproxy.cfg:6: *:80 *:80 *:443s; names one.example www.one.example *.two.example three.example; pem /etc/ssl/private/site.pem@8 /etc/certs/b.pem@8 /etc/ssl/private/c.pem@2 /etc/d.pem@4 /etc/ssl/private/no.pem@9; challenge denied?@15 answered@6",
            "/etc/haproxy/haproxy.cfg:16: 127.0.0.1:9000s; pem /etc/dir/a.pem@17 /etc/dir/b.pem@17 /etc/bundle.pem.rsa@17 /etc/bundle.pem.ecdsa@17",
            "/etc/haproxy/haproxy.cfg:17! Unknown: `crt ${GONE}/x` depends on what is not in the file",
        ]
    );
}

#[test]
fn a_challenge_meets_its_fate() {
    for (text, expected) in [
        ("", "passed to 127.0.0.1:8081@8"),
        (" redirect scheme https code 301 if !{ ssl_fc }", "redirected@5"),
        (" http-request redirect scheme https unless { ssl_fc }", "redirected@5"),
        (
            " acl acme path_beg /.well-known/acme-challenge/\n redirect scheme https if !acme",
            "passed to 127.0.0.1:8081@9",
        ),
        (
            " acl acme path_beg /.well-known/acme-challenge/\n use_backend gate if acme",
            "passed to 127.0.0.1:8080@11",
        ),
        (
            " acl acme path,url_dec -m beg /.well-known/\n http-request allow if acme\n http-request deny\n use_backend gate if acme",
            "passed to 127.0.0.1:8080@13",
        ),
        (" acl dot path_sub /.\n http-request deny if dot", "denied@6"),
        (
            " http-request deny deny_status 429 if { sc_http_req_rate(0) gt 20 }",
            "denied?@5 passed to 127.0.0.1:8081@8",
        ),
        (" http-request deny if { path_reg ^/\\.git } or { path_end .php }", "passed to 127.0.0.1:8081@8"),
        (" acl lan src 10.0.0.0/8\n http-request deny unless lan", "denied@6"),
        (" http-request auth unless { http_auth(u) }", "denied?@5 passed to 127.0.0.1:8081@8"),
        (" use_backend shut if TRUE", "denied@12"),
        (" use_backend gate if { path_dir .well-known } ! { ssl_fc }", "passed to 127.0.0.1:8080@10"),
    ] {
        assert_eq!(fate(text), expected, "{text}");
    }
    let tcp = "frontend f\n bind :80\n default_backend b\nbackend b\n server s 127.0.0.1:8080\n";
    assert_eq!(
        seen(&[(MAIN, tcp)]),
        ["/etc/haproxy/haproxy.cfg:1: *:80; challenge passed to 127.0.0.1:8080@5"]
    );
}

#[test]
fn more_files_stand_beside_the_first() {
    let found = seen(&[
        (MAIN, "defaults\n mode http\n"),
        ("/etc/haproxy/conf.d/b.cfg", "frontend b\n bind :81\n"),
        (
            "/etc/haproxy/conf.d/a.cfg",
            "frontend a\n bind :80\n default_backend b\nbackend b\n server s 127.0.0.1:8080\n",
        ),
        ("/etc/haproxy/conf.d/c.bak", "frontend c\n bind :82\n"),
    ]);
    assert_eq!(
        found,
        [
            "/etc/haproxy/conf.d/a.cfg:1: *:80; challenge passed to 127.0.0.1:8080@5",
            "/etc/haproxy/conf.d/b.cfg:1: *:81; challenge answered@1",
        ]
    );
}

#[test]
fn broken_files_lose_only_what_is_broken() {
    let text = "bind :80\nfrontend f\n bind :80\n bind :443 ssl crt \"open\n acl\n use_backend\n bind\n bind x ssl\n http-request\n redirect if\n default_backend gone\n.if defined(X)\n.endif\n";
    assert_eq!(
        seen(&[(MAIN, text)]),
        [
            "/etc/haproxy/haproxy.cfg:2: *:80; challenge answered@2",
            "/etc/haproxy/haproxy.cfg:1! Broken: `bind` stands in no section",
            "/etc/haproxy/haproxy.cfg:4! Broken: a quote is opened and not closed on the line",
        ]
    );
}

proptest! {
    #[test]
    fn no_text_is_too_much(text in "(frontend |backend |bind |ssl crt |acl |if |unless |use_backend |http-request |\\{ |\\} |mode http|[ \n\\\\\"'#!$]|[a-z0-9/.*:]|\\PC){0,80}") {
        read(MAIN, &Memory::new(&[(MAIN, &text)]));
    }
}
