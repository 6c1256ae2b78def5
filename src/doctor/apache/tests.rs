use proptest::prelude::*;

use super::super::picture::sketch;
use super::super::reading::memory::Memory;
use super::*;

const MAIN: &str = "/etc/apache2/apache2.conf";

fn seen(files: &[(&str, &str)]) -> Vec<String> {
    let environment =
        environment("export APACHE_LOG_DIR=/var/log/apache2$SUFFIX\nunset HOME\nexport LANG=C\n");
    sketch(&read(MAIN, "/etc/apache2", &environment, &Memory::new(files)).unwrap())
}

/// What becomes of a challenge in a virtual host that is named a.example.
fn fate(text: &str) -> String {
    let text = format!("Listen 80\n<VirtualHost *:80>\nServerName a.example\n{text}\n</VirtualHost>\n");
    let seen = seen(&[(MAIN, &text)]);
    assert_eq!(seen.len(), 1, "{seen:?}");
    seen[0].split("challenge ").nth(1).unwrap_or_default().to_owned()
}

#[test]
fn debians_layout_with_variables_modules_and_continued_lines() {
    let main = "IncludeOptional mods-enabled/*.load\nInclude ports.conf\nErrorLog ${APACHE_LOG_DIR}/error.log\nIncludeOptional sites-enabled/*.conf\nIncludeOptional gone/*.conf\n";
    let ports = "Listen 80\n<IfModule ssl_module>\n\tListen 443\n</IfModule>\n<IfModule mod_gnutls.c>\n\tListen 443\n</IfModule>\n";
    let site = "Define host www.example.net\n<IfModule mod_ssl.c>\n<VirtualHost _default_:443>\n  ServerName https://${host}:443\n  ServerAlias example.net \\\n    *.img.example.net\n\
        \x20 SSLEngine on\n  SSLCertificateFile \"/etc/ssl/a b.pem\"\n  SSLCertificateKeyFile 'ssl/key.pem'\n  SSLCertificateChainFile /etc/ssl/chain.pem\n</VirtualHost>\n</IfModule>\n\
        <VirtualHost 192.0.2.1:80 [2001:db8::1]:80>\n  servername ${host}\n  DocumentRoot /srv/${host}\n  <IfDefine host>\n   Redirect permanent /old https://x/\n  </IfDefine>\n</VirtualHost>\n<VirtualHost *:8080>\n</VirtualHost>\n";
    let found = seen(&[
        (MAIN, main),
        ("/etc/apache2/ports.conf", ports),
        ("/etc/apache2/mods-enabled/ssl.load", "LoadModule ssl_module /usr/lib/apache2/modules/mod_ssl.so\n"),
        ("/etc/apache2/sites-enabled/a.conf", site),
    ]);
    assert_eq!(
        found,
        [
            "/etc/apache2/sites-enabled/a.conf:3: *:443s; names www.example.net example.net *.img.example.net; pem /etc/ssl/a b.pem@8+/etc/apache2/ssl/key.pem@9+/etc/ssl/chain.pem@10",
            "/etc/apache2/sites-enabled/a.conf:13: 192.0.2.1:80 2001:db8::1:80; names www.example.net; challenge answered@15",
            "/etc/apache2/sites-enabled/a.conf:20: challenge answered@20",
        ]
    );
}

#[test]
fn what_would_be_skipped_is_skipped() {
    let text = "Listen 80\n<IfModule !ssl_module>\n<VirtualHost *:80>\nServerName a.example\n</VirtualHost>\n</IfModule>\n\
        <IfModule ssl_module>\n<VirtualHost *:80>\nServerName b.example\n</VirtualHost>\n</IfModule>\n\
        <IfDefine !X>\nDefine X\n</IfDefine>\n<IfDefine X>\n<IfDefine Y>\n</IfDefine>\n<VirtualHost *:80>\nServerName c.example\n</VirtualHost>\n</IfDefine>\n";
    let names: Vec<_> =
        seen(&[(MAIN, text)]).iter().map(|line| line.split(';').nth(1).unwrap().to_owned()).collect();
    assert_eq!(names, [" names a.example", " names c.example"]);
}

#[test]
fn macros_are_used() {
    let text = "Listen 443\n<Macro VHost $name $names>\n<VirtualHost *:443>\nServerName $name\nServerAlias $names\nSSLEngine on\nSSLCertificateFile /live/$name/cert.pem\n</VirtualHost>\n</Macro>\n\
        Use VHost a.example www.a.example\nUse VHost b.example www.b.example\nUndefMacro VHost\nUse Gone x\n";
    assert_eq!(
        seen(&[(MAIN, text)]),
        [
            "/etc/apache2/apache2.conf:3: *:443s; names a.example www.a.example; pem /live/a.example/cert.pem@7",
            "/etc/apache2/apache2.conf:3: *:443s; names b.example www.b.example; pem /live/b.example/cert.pem@7",
            "/etc/apache2/apache2.conf:13! Unknown: `Use Gone x` uses a macro that is not defined in the files",
        ]
    );
}

#[test]
fn the_main_server_takes_what_no_virtual_host_does() {
    let text = "Listen 80\nServerName a.example\nDocumentRoot /x\nSSLCertificateFile /c\nSSLCertificateKeyFile /k\n<VirtualHost *:443>\nSSLEngine on\n</VirtualHost>\nListen 443\n";
    assert_eq!(
        seen(&[(MAIN, text)]),
        [
            "/etc/apache2/apache2.conf:6: *:443s; pem /c@4+/k@5",
            "/etc/apache2/apache2.conf:1: *:80; names a.example; challenge answered@3"
        ]
    );
}

#[test]
fn a_challenge_meets_its_fate() {
    let pass = "ProxyPass /.well-known/acme-challenge/ http://127.0.0.1:8080/.well-known/acme-challenge/\nProxyPreserveHost On";
    for (text, expected) in [
        ("DocumentRoot /x", "answered@4"),
        ("Redirect permanent / https://a.example/", "redirected@4"),
        ("Redirect / https://a.example/", "redirected@4"),
        ("RedirectPermanent /shop https://a.example/\nDocumentRoot /x", "answered@5"),
        ("RedirectMatch 404 /\\..*$", "denied@4"),
        ("RedirectMatch ^/(?!\\.well-known/).* https://a.example/\nDocumentRoot /x", "answered@5"),
        ("RewriteEngine On\nRewriteRule ^ https://%{HTTP_HOST}%{REQUEST_URI} [R=301,L]", "redirected@5"),
        ("RewriteRule ^ https://%{HTTP_HOST}%{REQUEST_URI} [R=301,L]\nDocumentRoot /x", "answered@5"),
        ("RewriteEngine on\nRewriteCond %{HTTPS} off\nRewriteRule (.*) https://x$1", "redirected@6"),
        (
            "RewriteEngine on\nRewriteCond %{HTTPS} =on\nRewriteRule (.*) https://x$1\nDocumentRoot /x",
            "answered@7",
        ),
        (
            "RewriteEngine on\nRewriteCond %{SERVER_NAME} =www.a.example [OR]\nRewriteCond %{SERVER_NAME} =a.example\nRewriteRule ^ https://%{SERVER_NAME}%{REQUEST_URI} [END,NE,R=permanent]",
            "redirected@7",
        ),
        (
            "RewriteEngine on\nRewriteCond %{REQUEST_URI} !^/\\.well-known/acme-challenge/\nRewriteRule ^ https://x/ [R]\nDocumentRoot /x",
            "answered@7",
        ),
        (
            "RewriteEngine on\nRewriteCond %{HTTP_USER_AGENT} bot\nRewriteRule ^ - [F]\nDocumentRoot /x",
            "denied?@6 answered@7",
        ),
        (
            "RewriteEngine on\nRewriteRule ^/\\.well-known - [END]\nRewriteRule ^ https://x/ [R]\nDocumentRoot /x",
            "answered@7",
        ),
        ("RewriteEngine on\nRewriteRule ^/(.*) http://127.0.0.1:8080/$1 [P]", "passed to 127.0.0.1:8080@5"),
        (pass, "passed to 127.0.0.1:8080@4"),
        (&format!("{pass}\nRedirect / https://a.example/"), "passed to 127.0.0.1:8080@4"),
        (&format!("RewriteEngine on\nRewriteRule ^ https://x/ [R]\n{pass}"), "redirected@5"),
        (
            "ProxyPass /.well-known/acme-challenge/ !\nProxyPass / http://127.0.0.1:9/\nAlias /.well-known /x",
            "answered@6",
        ),
        ("ProxyPass / http://127.0.0.1:8080/", "passed to 127.0.0.1:8080 altered@4"),
        ("ProxyPass / balancer://app/", "passed to app:0 altered@4"),
        (
            "<Location /.well-known/acme-challenge/>\nProxyPass http://127.0.0.1:8080/.well-known/acme-challenge/\n</Location>\nProxyPreserveHost on",
            "passed to 127.0.0.1:8080@5",
        ),
        ("ScriptAlias / /usr/lib/cgi-bin/", "answered@4"),
        ("<Location />\nRequire all denied\n</Location>", "denied@5"),
        ("<Location />\nAuthType Basic\nRequire valid-user\n</Location>", "denied@6"),
        ("<Location />\nOrder deny,allow\nDeny from all\n</Location>", "denied@6"),
        (
            "<LocationMatch \"/\\.\">\nRequire all denied\n</LocationMatch>\n<Location /.well-known>\nRequire all granted\n</Location>\nDocumentRoot /x",
            "answered@10",
        ),
        (
            "<If \"%{REQUEST_URI} =~ m#^/\\.well-known/acme-challenge/#\">\nRequire all granted\n</If>\n<Location />\nRequire all denied\n</Location>\nDocumentRoot /x",
            "answered@10",
        ),
    ] {
        assert_eq!(fate(text), expected, "{text}");
    }
}

#[test]
fn broken_files_lose_only_what_is_broken() {
    let text = "Listen 80\nInclude gone.conf\nInclude none/*.conf\nInclude locked.conf\nInclude apache2.conf\nInclude ${NOWHERE}/x\n</Directory>\n<VirtualHost *:80>\nServerName a.example\nSSLEngine on\nSSLCertificateFile ${GONE}/x\n";
    assert_eq!(
        seen(&[(MAIN, text), ("/etc/apache2/locked.conf", "DENIED")]),
        [
            "/etc/apache2/apache2.conf:8: *:80s; names a.example",
            "/etc/apache2/apache2.conf:2! Missing: /etc/apache2/gone.conf does not exist",
            "/etc/apache2/apache2.conf:3! Missing: /etc/apache2/none/*.conf matches no file",
            "/etc/apache2/apache2.conf:4! Unreadable: /etc/apache2/locked.conf may not be read by this user",
            "/etc/apache2/apache2.conf:5! Endless: /etc/apache2/apache2.conf includes itself",
            "/etc/apache2/apache2.conf:6! Unknown: what `/etc/apache2/${NOWHERE}/x` includes depends on a variable that is not defined in the files",
            "/etc/apache2/apache2.conf:7! Broken: `</directory>` closes nothing",
            "/etc/apache2/apache2.conf:8! Broken: the section `<VirtualHost *:80>` is not closed",
            "/etc/apache2/apache2.conf:11! Unknown: `SSLCertificateFile ${GONE}/x` depends on a variable that is not defined in the files",
        ]
    );
}

#[test]
fn a_folder_is_included_with_all_below_it() {
    let host = |name: &str| format!("<VirtualHost *:80>\nServerName {name}\n</VirtualHost>\n");
    let found = seen(&[
        (MAIN, "Listen 80\nInclude sites\n"),
        ("/etc/apache2/sites/a", &host("a.example")),
        ("/etc/apache2/sites/sub/b", &host("b.example")),
    ]);
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn macros_that_use_themselves_end() {
    let text = "<Macro A $x>\nUse A $x$x\nUse A $x\n</Macro>\nUse A aaaa\n";
    assert!(seen(&[(MAIN, text)]).iter().any(|line| line.contains("uses a macro within itself")));
    // Each uses the next one many times, with ever longer words.
    let chain: String = (0..30)
        .map(|n| format!("<Macro M{n} $x>\n{}</Macro>\n", format!("Use M{} $x$x\n", n + 1).repeat(20)))
        .chain(["Use M0 aaaa\n".to_owned()])
        .collect();
    assert!(seen(&[(MAIN, &chain)]).iter().any(|line| line.contains("too much")));
    let doubling = "Define A aaaa\n".to_owned() + &"Define A ${A}${A}\n".repeat(60);
    assert!(seen(&[(MAIN, &doubling)]).is_empty());
}

proptest! {
    #[test]
    fn no_text_is_too_much(text in "(<|</|>|VirtualHost |Macro |Use |IfModule |Define |RewriteRule |ProxyPass |[ \n\\\\\"'#$]|\\$\\{|[a-zA-Z0-9/.*:]|\\PC){0,80}") {
        let files = Memory::new(&[(MAIN, &format!("Listen 80\n<VirtualHost *:80>\n{text}")), ("/x", &text)]);
        read(MAIN, "/", &BTreeMap::new(), &files);
        read("/x", "/", &BTreeMap::new(), &files);
        environment(&text);
    }
}
