use proptest::prelude::*;

use super::super::picture::sketch;
use super::super::reading::memory::Memory;
use super::*;

const MAIN: &str = "/etc/squid/squid.conf";

fn seen(files: &[(&str, &str)]) -> Vec<String> {
    sketch(&read(MAIN, &Memory::new(files)).unwrap())
}

/// What becomes of a challenge at a port that accelerates.
fn fate(text: &str) -> String {
    let seen = seen(&[(MAIN, &format!("http_port 80 accel vhost\n{text}\n"))]);
    seen[0].split("challenge ").nth(1).unwrap_or_default().to_owned()
}

#[test]
fn ports_names_and_certificates() {
    let main = "# comment\nhttp_port 3128 # the forward proxy\nhttp_port 3129 ssl-bump tls-cert=/ca.pem\nhttp_port 192.0.2.1:80 accel \\\n  defaultsite=www.example.net vhost\n\
        https_port 443 accel tls-cert=/live/cert.pem tls-key=/live/privkey.pem \\\n cert=rsa.pem key=rsa.key\nhttps_port 8443 intercept ssl-bump tls-cert=/ca.pem\nhttps_port [::1]:444 accel tls-cert=/one.pem\n\
        acl ours dstdomain .example.net example.org\nacl more dstdomain \"/etc/squid/more\"\nacl unused dstdomain no.example\ninclude \"/etc/squid/conf.d/*.conf\"\nhttp_access allow ours\n";
    let found = seen(&[
        (MAIN, main),
        ("/etc/squid/more", "# a list\nc.example # why\n\nd.example\n"),
        (
            "/etc/squid/conf.d/a.conf",
            "http_access allow more\nif 0\nhttp_port 81 accel\nelse\nhttp_port 82 accel\nendif\n",
        ),
    ]);
    let names = "*.example.net example.net example.org c.example d.example";
    assert_eq!(
        found,
        [
            format!("/etc/squid/squid.conf:4: 192.0.2.1:80; names www.example.net {names}"),
            format!(
                "/etc/squid/squid.conf:6: *:443s; names {names}; pem /live/cert.pem@6+/live/privkey.pem@6 /etc/squid/rsa.pem@6+/etc/squid/rsa.key@6"
            ),
            format!("/etc/squid/squid.conf:9: ::1:444s; names {names}; pem /one.pem@9"),
            format!("/etc/squid/conf.d/a.conf:5: *:82; names {names}"),
        ]
    );
}

#[test]
fn a_challenge_meets_its_fate() {
    let app = "cache_peer 127.0.0.1 parent 8081 0 no-query originserver name=app";
    let gate = "cache_peer 127.0.0.1 parent 8080 0 no-query originserver name=gate";
    for (text, expected) in [
        (app, "passed to 127.0.0.1:8081@2"),
        ("http_access deny all", "denied@2"),
        ("http_access deny !Safe_ports\nacl Safe_ports port 80 443\nhttp_access allow all", ""),
        ("acl Safe_ports port 443\nhttp_access deny !Safe_ports", "denied@3"),
        ("acl CONNECT method CONNECT\nhttp_access deny CONNECT\nhttp_access allow all", ""),
        ("http_access allow localhost\nhttp_access deny manager\nhttp_access deny all", "denied@4"),
        (
            "acl localnet src 10.0.0.0/8 fc00::/7\nhttp_access allow localnet\nhttp_access deny all",
            "denied@4",
        ),
        ("acl bad urlpath_regex -i /\\.\nhttp_access deny bad\nhttp_access allow all", "denied@3"),
        ("acl bad url_regex -i \"/etc/squid/gone\"\nhttp_access deny bad\nhttp_access allow all", ""),
        ("acl bad url_regex well-known\nhttp_access deny bad\nhttp_access allow all", "denied@3"),
        ("acl bad url_regex banner\nhttp_access deny bad\nhttp_access allow all", "denied?@3"),
        (
            "acl acme urlpath_regex ^/\\.well-known/acme-challenge/\nhttp_access allow acme\nhttp_access deny all",
            "",
        ),
        ("url_rewrite_program /usr/bin/squidGuard\nhttp_access allow all", "filtered?@2"),
        (
            "url_rewrite_program /usr/bin/squidGuard\nacl acme urlpath_regex ^/\\.well-known/\nurl_rewrite_access deny acme\nhttp_access allow all",
            "",
        ),
        (
            &format!(
                "acl acme urlpath_regex ^/\\.well-known/\n{app}\n{gate}\ncache_peer_access gate allow acme\ncache_peer_access gate deny all\ncache_peer_access app deny acme"
            ),
            "passed to 127.0.0.1:8080@4",
        ),
        (
            &format!("acl ours dstdomain a.example\n{app}\ncache_peer_access app allow ours"),
            "passed to 127.0.0.1:8081?@3",
        ),
    ] {
        assert_eq!(fate(text), expected, "{text}");
    }
}

#[test]
fn broken_files_lose_only_what_is_broken() {
    let text = "if 1\ninclude /etc/squid/gone.conf\ninclude /etc/squid/locked.conf /etc/squid/squid.conf\nhttps_port 443 tls-cert=/c\nhttps_port\nacl x\ncache_peer\nhttp_access\nhttp_port a:b accel\n";
    assert_eq!(
        seen(&[(MAIN, text), ("/etc/squid/locked.conf", "DENIED"), ("/etc/squid/x", "endif\n")]),
        [
            "/etc/squid/squid.conf:4: *:443s; pem /c@4",
            "/etc/squid/squid.conf:2! Missing: /etc/squid/gone.conf does not exist",
            "/etc/squid/squid.conf:3! Unreadable: /etc/squid/locked.conf may not be read by this user",
            "/etc/squid/squid.conf:3! Endless: /etc/squid/squid.conf includes itself",
            "/etc/squid/squid.conf:1! Broken: `if` is not closed by `endif`",
        ]
    );
}

proptest! {
    #[test]
    fn no_text_is_too_much(text in "(acl |http_access |allow |deny |http_port |https_port |cache_peer |if |endif|else|include |[ \n\\\\\"#!=]|[a-z0-9/.*:]|\\PC){0,80}") {
        read(MAIN, &Memory::new(&[(MAIN, &text)]));
    }
}
