//! The rules that are printed, put into the real servers' files exactly as they stand: a challenge must come
//! through to a real gate then, and must not before.

use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use super::installation::{Installation, Report};
use crate::bed::client::{get, is_open};
use crate::bed::process::{Process, run};
use crate::bed::wicketgate::{Daemon, PROGRAM, Setup, clean};
use crate::bed::{Bed, PATIENCE, needs, until};

const TOKEN: &str = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA";
const ANSWER: &str =
    "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA.nP1qzpXGymHBrUEepNY9HCsQk7K8KhOypzEt62jcerQ";
const HOSTS: [&str; 2] = ["one.example.test", "two.example.test"];

/// A running gate on a port of its own, with a challenge for two hosts.
struct Gate {
    setup: Setup,
    bed: Bed,
    _daemon: Daemon,
}

impl Gate {
    fn start() -> Self {
        let bed = Bed::new();
        let setup = Setup::embedded(&bed).without_front().certificate(&HOSTS);
        let daemon = setup.start(&bed);
        until("the gate listens", || (setup.socket.exists() && is_open(setup.gate)).then_some(()));
        let put = ["challenge", "put", HOSTS[0], TOKEN, ANSWER, "--host", HOSTS[1]];
        setup.command(&bed, &put).expect_code(0);
        Self { setup, bed, _daemon: daemon }
    }
}

/// A server whose files are written for port 80, and who runs with another port in its place.
struct Patient<'a> {
    here: Installation,
    gate: &'a Gate,
    main: &'static str,
    port: u16,
}

impl<'a> Patient<'a> {
    /// `text` is the first file; in it `@ROOT@` stands for the folder that stands for `/`.
    fn new(gate: &'a Gate, main: &'static str, text: &str) -> Self {
        let here = Installation::new();
        let root = here.root().display().to_string();
        here.write(main, text.replace("@ROOT@", &root));
        let port = here.bed.port();
        Self { here, gate, main, port }
    }

    fn report(&self) -> Report {
        let mut command = Command::new(PROGRAM);
        clean(&mut command);
        let config = self.gate.setup.write(&self.gate.bed);
        command.arg("--config").arg(config).args(["doctor", "--json", "--root"]).arg(self.here.root());
        Report::of(&run(&mut command))
    }

    /// Writes the text as it is run: with a free port wherever one of these words stands, in which `@` is
    /// for an address and port 80.
    fn runnable(&self, words: &[&str]) {
        let mut text = fs::read_to_string(self.here.path(self.main)).unwrap();
        for word in words {
            let port_80 = word.replace("@", "80").replace("*80", "*:80");
            assert!(text.contains(&port_80), "{port_80} is not in {text}");
            let other =
                word.replace("*@", "@").replace(":@", "@").replace('@', &format!("127.0.0.1:{}", self.port));
            text = text.replace(&port_80, &other);
        }
        self.here.write(&format!("{}.run", self.main), text);
    }

    fn run_file(&self) -> std::path::PathBuf {
        self.here.path(&format!("{}.run", self.main))
    }

    /// Puts the printed rule into the file, line by line as it says.
    fn treat(&self, report: &Report) {
        let path = self.here.path(self.main);
        let mut lines: Vec<String> =
            fs::read_to_string(&path).unwrap().lines().map(|line| format!("{line}\n")).collect();
        let rules = report.json["rules"].as_array().unwrap();
        assert!(!rules.is_empty(), "{:#}", report.json);
        let mut at_end = String::new();
        for rule in rules {
            let text = rule["lines"].as_str().unwrap();
            for place in rule["places"].as_array().unwrap().iter().map(|place| place.as_str().unwrap()) {
                match rule["how"].as_str().unwrap() {
                    "within" => lines[self.line(place)].push_str(text),
                    "above" => lines[self.line(place)].insert_str(0, text),
                    "instead-of" => {
                        let line = &mut lines[self.line(place)];
                        // What goes above it stays above it.
                        let own = line.trim_end_matches('\n').rfind('\n').map_or(0, |at| at + 1);
                        line.replace_range(own.., text);
                    }
                    "at-end" => at_end.push_str(text),
                    other => panic!("{other}"),
                }
            }
        }
        fs::write(path, lines.concat() + &at_end).unwrap();
    }

    fn line(&self, place: &str) -> usize {
        let (file, line) = place.rsplit_once(':').unwrap();
        assert_eq!(file, self.main);
        line.parse::<usize>().unwrap() - 1
    }

    /// Neither before the rule nor by accident.
    #[track_caller]
    fn expect_no_answer(&self) {
        for host in HOSTS {
            let answer = get(self.port, host, &format!("/.well-known/acme-challenge/{TOKEN}"));
            assert!(answer.is_ok_and(|a| a.body != ANSWER.as_bytes()), "{host} is answered without the rule");
        }
    }

    #[track_caller]
    fn expect_answers(&self) {
        for host in HOSTS {
            let answer = get(self.port, host, &format!("/.well-known/acme-challenge/{TOKEN}")).unwrap();
            let body = String::from_utf8_lossy(&answer.body);
            assert_eq!((answer.status, &*body), (200, ANSWER), "{host}: {:?}", answer.headers);
        }
        // Whatever else the server does, it does as before.
        let page = get(self.port, HOSTS[0], "/a-page").unwrap();
        assert_ne!(page.status, 200);
    }

    /// The whole way: without the rule, with it, and what is said of it then.
    #[track_caller]
    fn heal(&self, start: impl Fn(&Path) -> Process, words: &[&str]) {
        let report = self.report();
        assert!(
            report
                .faults()
                .iter()
                .any(|f| f.starts_with("problem challenge-") || f.starts_with("warning challenge-"))
        );
        let run_with = |expect: &dyn Fn()| {
            self.runnable(words);
            let mut process = start(&self.run_file());
            until("the server listens", || (is_open(self.port) || process.ended().is_some()).then_some(()));
            assert!(process.ended().is_none(), "it does not start");
            expect();
            // Killed it would leave behind what it shares in memory.
            process.signal(Signal::TERM);
            process.wait(PATIENCE);
        };
        run_with(&|| self.expect_no_answer());
        self.treat(&report);
        run_with(&|| self.expect_answers());
        let after = self.report();
        let met = |finding: &&Value| finding["cause"].as_str().is_some_and(|c| c.starts_with("challenge-"));
        let causes: Vec<_> = after.findings().filter(met).map(|f| f["cause"].as_str().unwrap()).collect();
        assert!(
            !causes.is_empty() && causes.iter().all(|cause| *cause == "challenge-passed"),
            "{:#}",
            after.json
        );
        assert_eq!(after.json["rules"].as_array().unwrap().len(), 0);
    }
}

#[test]
fn in_nginx() {
    needs!("nginx");
    let gate = Gate::start();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path @ROOT@/{kind};\n"))
        .concat();
    let patient = Patient::new(
        &gate,
        "/etc/nginx/nginx.conf",
        &format!(
            "daemon off; master_process off; user root root; pid @ROOT@/pid; error_log @ROOT@/error.log;\nevents {{}}\nhttp {{\naccess_log off;\n{temporary}\
             server {{\n  listen 80;\n  server_name one.example.test;\n  if ($host = one.example.test) {{ return 301 https://$host$request_uri; }}\n  return 404;\n}}\n\
             server {{\n  listen 80;\n  server_name two.example.test;\n  root @ROOT@;\n  auth_basic closed; auth_basic_user_file @ROOT@/none;\n  location ~ /\\. {{ deny all; }}\n}}\n}}\n"
        ),
    );
    let start = |file: &Path| {
        Process::start(
            "nginx",
            Command::new("/usr/sbin/nginx").arg("-c").arg(file).arg("-e").arg(patient.here.path("start.log")),
        )
    };
    patient.heal(start, &["listen @;"]);
}

#[test]
fn in_apache() {
    needs!("apache2");
    let gate = Gate::start();
    let modules: String = ["mpm_event", "authz_core", "alias", "rewrite", "proxy", "proxy_http"]
        .map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"))
        .concat();
    let patient = Patient::new(
        &gate,
        "/etc/apache2/apache2.conf",
        &format!(
            "ServerRoot /etc/apache2\nDefaultRuntimeDir @ROOT@\nPidFile @ROOT@/pid\nErrorLog @ROOT@/log\nServerName localhost\nMutex fcntl\n{modules}Listen 80\n\
             <VirtualHost *:80>\nServerName one.example.test\nRewriteEngine On\nRewriteRule ^ https://%{{HTTP_HOST}}%{{REQUEST_URI}} [R=301,L]\n</VirtualHost>\n\
             <VirtualHost *:80>\nServerName two.example.test\nRedirectMatch 404 /\\.\nScriptAlias / /usr/lib/cgi-bin/\n<Location />\nRequire all denied\n</Location>\n</VirtualHost>\n"
        ),
    );
    let start = |file: &Path| {
        Process::start("apache2", Command::new("/usr/sbin/apache2").arg("-X").arg("-f").arg(file))
    };
    patient.heal(start, &["Listen @", "<VirtualHost *@>"]);
}

#[test]
fn in_haproxy() {
    needs!("haproxy");
    let gate = Gate::start();
    let patient = Patient::new(
        &gate,
        "/etc/haproxy/haproxy.cfg",
        "global\n  maxconn 100\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 5s\n  timeout server 5s\n\
         frontend web\n  bind :80\n  acl hidden path_sub /.\n  http-request deny if hidden\n  redirect  location 'https://one.example.test/a page?%[date]&a-query-that-makes-the-line-longer-than-what-is-shown-of-one-in-a-sentence=0123456789-0123456789-0123456789-0123456789-0123456789' code 301 if !{ ssl_fc }\n  default_backend app\n\
         backend app\n  server app 127.0.0.1:9\n",
    );
    let start =
        |file: &Path| Process::start("haproxy", Command::new("/usr/sbin/haproxy").arg("-f").arg(file));
    patient.heal(start, &["bind :@\n"]);
}

#[test]
fn in_squid() {
    needs!("squid");
    let gate = Gate::start();
    let patient = Patient::new(
        &gate,
        "/etc/squid/squid.conf",
        "http_port 80 accel defaultsite=one.example.test vhost\nacl hidden urlpath_regex /\\.\nhttp_access deny hidden\nhttp_access allow all\n\
         cache_peer 127.0.0.1 parent 9 0 no-query originserver name=app\ncache_peer_access app allow all\n\
         cache deny all\nvisible_hostname squid.test\npinger_enable off\naccess_log none\npid_filename @ROOT@/pid\ncache_log @ROOT@/log\n\
         coredump_dir @ROOT@\nshutdown_lifetime 0 seconds\nconnect_retries 0\n",
    );
    let start = |file: &Path| {
        // It gives up root for a user of its own, who has to write here.
        run(Command::new("chown").arg("-R").arg("proxy:proxy").arg(patient.here.root()));
        let mut squid = Command::new("/usr/sbin/squid");
        // What it shares in memory goes by that name, apart from every other Squid's.
        squid.arg("-N").arg("-n").arg(format!("doctor{}", patient.port)).arg("-f").arg(file);
        Process::start("squid", &mut squid)
    };
    patient.heal(start, &["http_port @ "]);
}

/// Caddy's configuration is not read; what the doctor says to write is in deploy/caddy.
#[test]
fn in_caddy() {
    needs!("caddy", "curl");
    let bed = Bed::new();
    let (gate, web) = (bed.port(), bed.port());
    let setup = Setup::embedded(&bed).certificate(&["one.example.test"]).without_front();
    let text = setup.text().replace(&format!("127.0.0.1:{}", setup.gate), &format!("127.0.0.1:{gate}"));
    let daemon = Daemon::start(&bed.write("wicketgate.toml", text));
    daemon.process.wait_for_line("ready: ");
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/caddy/Caddyfile");
    let text = fs::read_to_string(shipped)
        .unwrap()
        .replace("127.0.0.1:8080", &format!("127.0.0.1:{gate}"))
        .replace("http:// {", &format!("http://:{web} {{\n\tbind 127.0.0.1"))
        .replace("auto_https off", "auto_https off\n\tadmin off");
    let caddyfile = bed.write("Caddyfile", text);
    let _caddy = Process::start(
        "caddy",
        Command::new("caddy")
            .env("HOME", bed.dir())
            .args(["run", "--adapter", "caddyfile", "--config"])
            .arg(caddyfile),
    );
    let ask = |path: &str| get(web, "one.example.test", path);
    let answer = until("Caddy answers", || ask("/page?x=1").ok());
    assert_eq!((answer.status, answer.header("location")), (308, Some("https://one.example.test/page?x=1")));
    let (token, answer) =
        ("evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA", "nP1qzpXGymHBrUEepNY9HCsQk7K8KhOypzEt62jcerQ");
    let answer = format!("{token}.{answer}");
    let put = ["challenge", "put", "one.example.test", token, &answer];
    setup_command(&bed, &put);
    assert_eq!(ask(&format!("/.well-known/acme-challenge/{token}")).unwrap().body, answer.as_bytes());
    assert_eq!(ask("/.well-known/acme-challenge/another").unwrap().status, 404);
}

fn setup_command(bed: &Bed, arguments: &[&str]) {
    let mut command = crate::bed::wicketgate::command(&bed.path("wicketgate.toml"));
    run(command.args(arguments)).expect_code(0);
}
