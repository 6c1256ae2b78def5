use proptest::prelude::*;

use super::super::picture::sketch;
use super::super::reading::memory::Memory;
use super::*;

const MAIN: &str = "/etc/hitch/hitch.conf";

fn seen(files: &[(&str, &str)]) -> Vec<String> {
    sketch(&read(MAIN, &Memory::new(files)).unwrap())
}

#[test]
fn frontends_and_their_files() {
    let text = "# comment\nfrontend = {\n    host = \"*\"\n    port = \"443\"\n    pem-file = \"/own.pem\"\n}\nfrontend = \"[::1]:8443\" # more\nfrontend = \"[*]:444+/plus.pem\"\n\
        backend = \"[127.0.0.1]:6086\"\nworkers = 4\npem-file = { cert = \"/a.pem\" private-key = \"/a.key\" }\n\"pem-file\" = \"/b#1.pem\"\npem-dir = \"/etc/hitch/d/\"\npem-dir-glob = \"*.pem\"\n";
    let shared = "/a.pem@11+/a.key@11 /b#1.pem@12 /etc/hitch/d/x.pem@13";
    let found = seen(&[(MAIN, text), ("/etc/hitch/d/x.pem", ""), ("/etc/hitch/d/x.key", "")]);
    assert_eq!(
        found,
        [
            format!("/etc/hitch/hitch.conf:2: *:443s; pem /own.pem@5 {shared}"),
            format!("/etc/hitch/hitch.conf:7: ::1:8443s; pem {shared}"),
            format!("/etc/hitch/hitch.conf:8: *:444s; pem /plus.pem@8 {shared}"),
        ]
    );
}

#[test]
fn debians_example_has_no_certificate() {
    let text = "frontend = {\n    host = \"*\"\n    port = \"443\"\n}\nbackend = \"[127.0.0.1]:6086\"    # 6086\nworkers = 4\n\ndaemon = on\n";
    assert_eq!(seen(&[(MAIN, text)]), ["/etc/hitch/hitch.conf:1: *:443s"]);
}

#[test]
fn broken_files_lose_only_what_is_broken() {
    let text = "}\nno equals\npem-file = \"/open\nfrontend = {\nport = \"443\"\nfrontend = {\nhost = \"127.0.0.1\"\npem-dir = \"/gone\"\n";
    assert_eq!(
        seen(&[(MAIN, text)]),
        [
            "/etc/hitch/hitch.conf:4: *:443s; pem /open@3",
            "/etc/hitch/hitch.conf:6: 127.0.0.1:443s; pem /open@3",
            "/etc/hitch/hitch.conf:1! Broken: a `}` closes nothing",
            "/etc/hitch/hitch.conf:2! Broken: `no equals` has no `=`",
            "/etc/hitch/hitch.conf:4! Broken: the block of `frontend` is not closed by `}`",
            "/etc/hitch/hitch.conf:6! Broken: the block of `frontend` is not closed by `}`",
            "/etc/hitch/hitch.conf:8! Missing: /gone does not exist, or is no folder",
        ]
    );
}

proptest! {
    #[test]
    fn no_text_is_too_much(text in "(frontend = |pem-file = |pem-dir = |cert = |[ \n\"{}#=+\\[\\]]|[a-z0-9/.*:]|\\PC){0,80}") {
        read(MAIN, &Memory::new(&[(MAIN, &text)]));
    }
}
