use proptest::prelude::*;

use super::super::picture::sketch;
use super::super::reading::memory::Memory;
use super::*;

fn seen(files: &[(&str, &str)]) -> Vec<String> {
    sketch(&read("/etc/nginx/nginx.conf", &Memory::new(files)).unwrap())
}

/// One server in the main file, from its second line on.
fn server(text: &str) -> Vec<String> {
    let text = format!("http {{\nserver {{ {text} }}\n}}\n");
    seen(&[("/etc/nginx/nginx.conf", &text)])
}

/// What becomes of a challenge in a server.
fn fate(text: &str) -> String {
    let seen = server(text);
    assert_eq!(seen.len(), 1, "{seen:?}");
    seen[0].split("challenge ").nth(1).unwrap_or_default().to_owned()
}

#[test]
fn includes_quotes_comments_and_debians_layout() {
    let main = "user www-data;\ninclude /etc/nginx/modules-enabled/*.conf;\nevents { worker_connections 768; }\n\
        http {\n\tinclude mime.types; # relative to this file\n\tinclude /etc/nginx/conf.d/*.conf;\n\tinclude sites-enabled/*;\n}\n\
        stream { server { listen 993 ssl; ssl_certificate a.pem; ssl_certificate_key a.key; } }\n";
    let one = "# comment with { and ;\nserver {\n  listen 80; listen [::]:80;\n  server_name .example.net \"quoted.example.net\" _;\n  root /x;\n}\n\
        server {\n  listen 127.0.0.1:443 ssl http2;\n  server_name ~^(?<n>.+)\\.example\\.org$ 'a.example.org';\n  include snippets/tls.conf;\n}\n";
    let tls = "ssl_certificate /etc/x/cert.pem;\nssl_certificate_key ssl/key.pem;\n";
    let found = seen(&[
        ("/etc/nginx/nginx.conf", main),
        ("/etc/nginx/mime.types", "types {\n text/html html htm;\n}\n"),
        ("/etc/nginx/sites-enabled/one", one),
        ("/etc/nginx/snippets/tls.conf", tls),
    ]);
    assert_eq!(
        found,
        [
            "/etc/nginx/sites-enabled/one:2: *:80 *:80; names example.net *.example.net quoted.example.net (_); challenge answered@5",
            "/etc/nginx/sites-enabled/one:7: 127.0.0.1:443s; names ~^(?<n>.+)\\.example\\.org$ a.example.org; pem /etc/x/cert.pem@1+/etc/nginx/ssl/key.pem@2",
            "/etc/nginx/nginx.conf:9: *:993s; pem /etc/nginx/a.pem@9+/etc/nginx/a.key@9",
        ]
    );
}

#[test]
fn names_and_listeners() {
    for (text, expected) in [
        ("listen 80 default_server; server_name _;", "*:80"),
        ("server_name a.example;", "*:80; names a.example"),
        ("listen unix:/run/x; listen 8080;", "*:8080"),
        ("listen localhost:80; server_name \"\";", "*:80; names ()"),
        ("listen 443; ssl on; ssl_certificate /c;", "*:443s; pem /c@2"),
        (
            "listen 443 quic; ssl_certificate /c; ssl_certificate /d; ssl_certificate_key /k; ssl_certificate_key /l;",
            "*:443s; pem /c@2+/k@2 /d@2+/l@2",
        ),
        ("listen 80; server_name *.a.example www.b.*;", "*:80; names *.a.example (www.b.*)"),
    ] {
        let seen = server(text);
        let seen = seen[0].trim_start_matches("/etc/nginx/nginx.conf:2: ");
        assert_eq!(seen.split("; challenge").next().unwrap(), expected, "{text}");
    }
}

#[test]
fn certificates_come_from_the_outside_where_there_are_none() {
    let text = "http { ssl_certificate /c; ssl_certificate_key /k;\nserver { listen 443 ssl; }\nserver { listen 443 ssl; ssl_certificate /own; ssl_certificate_key $k; } }";
    assert_eq!(
        seen(&[("/etc/nginx/nginx.conf", text)]),
        [
            "/etc/nginx/nginx.conf:2: *:443s; pem /c@1+/k@1",
            "/etc/nginx/nginx.conf:3: *:443s; pem /own@3",
            "/etc/nginx/nginx.conf:3! Unknown: `ssl_certificate_key $k` depends on a variable, so its files were not looked at",
        ]
    );
}

#[test]
fn a_challenge_meets_its_fate() {
    let pass = "proxy_pass http://127.0.0.1:8080; proxy_set_header Host $host;";
    for (text, expected) in [
        ("root /x;", "answered@2"),
        ("return 301 https://$host$request_uri;", "redirected@2"),
        ("return 444;", "denied@2"),
        ("return https://a.example/;", "redirected@2"),
        ("rewrite ^ https://a.example$request_uri? permanent;", "redirected@2"),
        ("rewrite ^/old https://a.example/ permanent; root /x;", "answered@2"),
        (
            "server_name a.example; if ($host = a.example) { return 301 https://a.example/; } return 404;",
            "redirected@2",
        ),
        (
            "server_name a.example; if ($host = b.example) { return 301 https://a.example/; } root /x;",
            "answered@2",
        ),
        ("if ($scheme != https) { return 301 https://x/; }", "redirected@2"),
        ("if ($http_x_forwarded_proto != \"https\") { return 301 https://x/; }", "redirected@2"),
        ("if ($request_uri !~ ^/\\.well-known/) { return 301 https://x/; } root /x;", "answered@2"),
        ("if ($uri ~ ^/\\.well-known/acme-challenge/) { break; } return 301 https://x/;", "answered@2"),
        (
            "set $to 1; if ($uri ~ \"^/.well-known\") { set $to 0; } if ($to) { return 301 https://x/; } root /x;",
            "answered@2",
        ),
        ("if ($badbot) { return 403; } root /x;", "denied?@2 answered@2"),
        ("location / { return 301 https://x/; }", "redirected@2"),
        (
            &format!(
                "location / {{ return 301 https://x/; }} location ^~ /.well-known/acme-challenge/ {{ {pass} }}"
            ),
            "passed to 127.0.0.1:8080@2",
        ),
        (&format!("location ~ /\\. {{ deny all; }} location /.well-known/ {{ {pass} }}"), "denied@2"),
        (
            &format!("location ~ /\\. {{ deny all; }} location ^~ /.well-known/ {{ {pass} }}"),
            "passed to 127.0.0.1:8080@2",
        ),
        (
            &format!("location ~ /\\.(?!well-known) {{ deny all; }} location / {{ {pass} }}"),
            "passed to 127.0.0.1:8080@2",
        ),
        ("location ~ (?<!x)y { deny all; } root /x;", "denied?@2 answered@2"),
        ("location / { allow 10.0.0.0/8; deny all; root /x; }", "denied@2"),
        ("deny all; location /.well-known/ { allow all; root /x; }", "answered@2"),
        ("auth_basic closed; location / { root /x; }", "denied@2"),
        ("auth_basic closed; location / { auth_basic off; root /x; }", "answered@2"),
        (
            "location / { proxy_pass http://127.0.0.1:8080/; proxy_set_header Host $host; }",
            "passed to 127.0.0.1:8080@2",
        ),
        (
            "location /.well-known/ { proxy_pass http://127.0.0.1:8080/; proxy_set_header Host $host; }",
            "passed to 127.0.0.1:8080 altered@2",
        ),
        ("location / { proxy_pass http://127.0.0.1:8080; }", "passed to 127.0.0.1:8080 altered@2"),
        ("location / { content_by_lua_block { if x then ngx.say(\"}\") { } end } root /x; }", "answered@2"),
        ("location /.well-known { location /.well-known/acme-challenge { return 403; } }", "denied@2"),
    ] {
        assert_eq!(fate(text), expected, "{text}");
    }
}

#[test]
fn an_upstream_has_its_servers() {
    let text = "http { upstream gate { server 127.0.0.1:8080; }\nserver { location / { proxy_pass http://gate; proxy_set_header Host $host; } } }";
    assert_eq!(
        seen(&[("/etc/nginx/nginx.conf", text)]),
        ["/etc/nginx/nginx.conf:2: *:80; challenge passed to 127.0.0.1:8080@2"]
    );
}

#[test]
fn broken_files_lose_only_what_is_broken() {
    let main = "http {\ninclude gone.conf;\ninclude locked.conf;\ninclude round.conf;\ninclude none/*.conf;\nserver { listen 80 }\nserver { listen 443 ssl;\nssl_certificate \"open;\n";
    let found = seen(&[
        ("/etc/nginx/nginx.conf", main),
        ("/etc/nginx/locked.conf", "DENIED"),
        ("/etc/nginx/round.conf", "include round.conf; server { listen 81; }"),
    ]);
    assert_eq!(
        found,
        [
            "/etc/nginx/round.conf:1: *:81; challenge answered@1",
            "/etc/nginx/nginx.conf:6: *:80; challenge answered@6",
            "/etc/nginx/nginx.conf:7: *:443s",
            "/etc/nginx/nginx.conf:2! Missing: /etc/nginx/gone.conf does not exist",
            "/etc/nginx/nginx.conf:3! Unreadable: /etc/nginx/locked.conf may not be read by this user",
            "/etc/nginx/round.conf:1! Endless: /etc/nginx/round.conf includes itself",
            "/etc/nginx/nginx.conf:6! Broken: `listen 80` is not ended by `;`",
            "/etc/nginx/nginx.conf:8! Broken: a quote is opened here and never closed",
            "/etc/nginx/nginx.conf:8! Broken: `ssl_certificate` is not ended by `;`",
            "/etc/nginx/nginx.conf:7! Broken: the block of `server` is not closed by `}`",
            "/etc/nginx/nginx.conf:1! Broken: the block of `http` is not closed by `}`",
        ]
    );
    assert!(read("/etc/nginx/nginx.conf", &Memory::new(&[])).is_none());
}

#[test]
fn depth_and_number_are_bounded() {
    let deep = "a {".repeat(100_000);
    assert!(seen(&[("/etc/nginx/nginx.conf", &deep)]).iter().any(|line| line.contains("Endless")));
    // Each file includes the next one many times.
    let many: Vec<_> = (0..30)
        .map(|n| (format!("/etc/nginx/{n}"), format!("include {};", n + 1).repeat(10)))
        .chain([("/etc/nginx/nginx.conf".to_owned(), "include 0;".to_owned())])
        .collect();
    let many: Vec<_> = many.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    assert!(seen(&many).iter().any(|line| line.contains("too many files")));
}

proptest! {
    #[test]
    fn no_text_is_too_much(text in "(server|listen|location|if|http|return|[ \n{};~\"'#\\\\$]|[a-z0-9/.*^]|\\PC){0,80}") {
        let files = Memory::new(&[("/etc/nginx/nginx.conf", &format!("http {{ {text}")), ("/etc/nginx/x", &text)]);
        read("/etc/nginx/nginx.conf", &files);
        read("/etc/nginx/x", &files);
    }
}
