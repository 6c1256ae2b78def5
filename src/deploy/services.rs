//! How the known servers are tested, reloaded and started: from what was found out about one on this
//! machine to what is done, without doing it.
//!
//! Where systemd runs the server, systemd reloads and starts it. Else it is told by its own signal, sent
//! to the process that was found, which needs no file with a process id; and the arguments it was started
//! with that say where its configuration is are used again, so that another instance than the distribution's
//! own is tested as what it is. They are believed because the process belongs to root or to our own user.

use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::config::Service;

/// What was found out about a server on this machine.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Facts {
    /// The unit of its name, where systemd runs this machine and knows it.
    pub(super) unit: Option<Unit>,
    /// Its top processes.
    pub(super) running: Vec<Instance>,
    /// Processes of its name that cannot be looked at, or belong to somebody else: what to say of them.
    pub(super) others: Vec<String>,
    /// The programs of its names that are installed.
    pub(super) installed: Vec<PathBuf>,
}

/// A unit of systemd's.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Unit {
    pub(super) name: String,
    pub(super) is_active: bool,
    pub(super) can_reload: bool,
    /// The process that systemd watches.
    pub(super) main: Option<u32>,
}

/// A running server: the process above all others of its kind.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Instance {
    pub(super) pid: u32,
    /// Its program's file.
    pub(super) program: PathBuf,
    /// What it was started with, the program's name first.
    pub(super) arguments: Vec<String>,
    /// It has processes of its own kind below it.
    pub(super) has_workers: bool,
}

/// How a server is reloaded.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Reload {
    /// By a command.
    Command(Vec<String>),
    /// By a signal to that process.
    Signal(Instance, Signal),
}

/// What is known of one kind of server.
struct Kind {
    /// For sentences.
    name: &'static str,
    /// Of its executable files.
    programs: &'static [&'static str],
    /// Of its unit, as distributions call it.
    units: &'static [&'static str],
    /// What makes it read its files again, and which process: the top one.
    signal: Signal,
    /// Options that are used again, with their value: where the configuration is.
    kept: &'static [&'static str],
    /// Other options that have a value.
    dropped: &'static [&'static str],
}

fn kind(service: Service) -> Kind {
    match service {
        Service::Nginx => Kind {
            name: "nginx",
            programs: &["nginx"],
            units: &["nginx"],
            signal: Signal::HUP,
            kept: &["-c", "-p", "-e"],
            dropped: &["-g", "-s"],
        },
        Service::Squid => Kind {
            name: "Squid",
            programs: &["squid"],
            units: &["squid"],
            signal: Signal::HUP,
            kept: &["-f", "-n"],
            dropped: &["-a", "-d", "-k", "-l", "-u"],
        },
        Service::Haproxy => Kind {
            name: "HAProxy",
            programs: &["haproxy"],
            units: &["haproxy"],
            signal: Signal::USR2,
            kept: &["-f", "-C"],
            dropped: &["-p", "-S", "-L", "-n", "-N", "-m", "-x"],
        },
        Service::Apache => Kind {
            name: "Apache",
            programs: &["apache2", "httpd"],
            units: &["apache2", "httpd"],
            signal: Signal::USR1,
            kept: &["-f", "-d", "-C", "-c", "-D"],
            dropped: &["-E", "-e", "-k"],
        },
        // Of hitch, everything can be said by options.
        Service::Hitch => Kind {
            name: "hitch",
            programs: &["hitch"],
            units: &["hitch"],
            signal: Signal::HUP,
            kept: &[],
            dropped: &[],
        },
    }
}

/// Names of the server's executable files.
pub(super) fn programs(service: Service) -> &'static [&'static str] {
    kind(service).programs
}

/// Names of its unit.
pub(super) fn units(service: Service) -> &'static [&'static str] {
    kind(service).units
}

/// The server's name for a sentence.
pub(super) fn name(service: Service) -> &'static str {
    kind(service).name
}

impl Facts {
    /// The one instance that runs; the error says why there is none to be sure of.
    fn instance(&self, service: Service) -> Result<Option<&Instance>, String> {
        match self.running.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(one)),
            several => {
                let pids: Vec<_> = several.iter().map(|instance| instance.pid.to_string()).collect();
                Err(format!(
                    "{} runs {} times (pids {}), and it cannot be told which one is meant: write `check` and `reload` for the one that is",
                    name(service),
                    several.len(),
                    pids.join(", ")
                ))
            }
        }
    }

    /// Whether it runs; `None` where that cannot be told.
    pub(super) fn is_running(&self) -> Option<bool> {
        let is_active = self.unit.as_ref().is_some_and(|unit| unit.is_active);
        match (is_active || !self.running.is_empty(), self.others.is_empty()) {
            (true, _) => Some(true),
            (false, true) => Some(false),
            (false, false) => None,
        }
    }
}

/// The command that tests the configuration.
///
/// # Errors
/// A sentence: there is no way to know which.
pub(super) fn check(
    service: Service,
    facts: &Facts,
    remembered: Option<&Instance>,
) -> Result<Vec<String>, String> {
    let instance = facts.instance(service)?.or(remembered);
    if instance.is_none() && facts.unit.is_none() && !facts.others.is_empty() {
        return Err(absent(service, facts));
    }
    let program = program(service, facts, instance)?;
    let own = own_arguments(service, instance)?;
    let is_plain = own.is_empty();
    let (before, after): (Vec<&str>, &[&str]) = match service {
        Service::Nginx => (vec![], &["-t"]),
        Service::Squid => (vec![], &["-k", "parse"]),
        Service::Haproxy if is_plain => (vec!["-c"], &["-f", "/etc/haproxy/haproxy.cfg"]),
        Service::Haproxy => (vec!["-c"], &[]),
        Service::Apache if is_plain && is_control(&program) => (vec![], &["configtest"]),
        Service::Apache => (vec![], &["-t"]),
        Service::Hitch if is_plain => (vec!["--test"], &["--config", "/etc/hitch/hitch.conf"]),
        Service::Hitch => (vec!["--test"], &[]),
    };
    Ok(command(&program, &before, own, after))
}

/// How it is made to read its files again.
///
/// # Errors
/// A sentence: it does not run, or no signal would do it.
pub(super) fn reload(service: Service, facts: &Facts) -> Result<Reload, String> {
    if let Some(unit) = facts.unit.as_ref().filter(|unit| unit.is_active && unit.can_reload) {
        return Ok(Reload::Command(["systemctl", "reload", &unit.name].map(str::to_owned).to_vec()));
    }
    let Kind { name, signal, .. } = kind(service);
    let instance = facts.instance(service)?.ok_or_else(|| absent(service, facts))?;
    let is_mastered = instance.has_workers || instance.arguments.iter().any(|a| a == "-W" || a == "-Ws");
    if service == Service::Haproxy && !is_mastered {
        return Err(format!(
            "{name} (pid {}) runs without a master process, which alone can reload it: start it with -W or -Ws, name its `runtime-socket`, or write `reload`",
            instance.pid
        ));
    }
    Ok(Reload::Signal(instance.clone(), signal))
}

/// There is no instance to deal with.
fn absent(service: Service, facts: &Facts) -> String {
    let name = name(service);
    match facts.others.as_slice() {
        [] => format!("{name} does not run here: start it, or write `reload` if it goes by another name"),
        others => format!(
            "no {name} runs here to deal with: {}; write `check` and `reload` for it",
            others.join("; ")
        ),
    }
}

/// The command that starts it, as it ran before if that was seen.
///
/// # Errors
/// A sentence: there is no way to know which.
pub(super) fn start(
    service: Service,
    facts: &Facts,
    remembered: Option<&Instance>,
) -> Result<Vec<String>, String> {
    if let Some(unit) = &facts.unit {
        return Ok(["systemctl", "start", &unit.name].map(str::to_owned).to_vec());
    }
    let program = program(service, facts, remembered)?;
    let own = own_arguments(service, remembered)?;
    let is_plain = own.is_empty();
    let (before, after): (Vec<&str>, &[&str]) = match service {
        // One that is configured for the foreground is another's to start, and says so at once.
        Service::Nginx => (vec![], &["-g", "daemon on;"]),
        Service::Squid => (vec![], &[]),
        Service::Haproxy if is_plain => {
            (vec!["-W", "-D"], &["-f", "/etc/haproxy/haproxy.cfg", "-p", "/run/haproxy.pid"])
        }
        Service::Haproxy => (vec!["-W", "-D"], &[]),
        Service::Apache if is_plain && is_control(&program) => (vec![], &["start"]),
        Service::Apache => (vec![], &["-k", "start"]),
        Service::Hitch if is_plain => (vec!["--daemon"], &["--config", "/etc/hitch/hitch.conf"]),
        Service::Hitch => (vec!["--daemon"], &[]),
    };
    let mut all = command(&program, &before, own, after);
    if let (Service::Haproxy, Some(remembered)) = (service, remembered) {
        all.extend(values(&remembered.arguments, "-p"));
    }
    Ok(all)
}

fn command(program: &Path, before: &[&str], own: Vec<String>, after: &[&str]) -> Vec<String> {
    let program = std::iter::once(program.display().to_string());
    let before = before.iter().map(|&word| word.to_owned());
    program.chain(before).chain(own).chain(after.iter().map(|&word| word.to_owned())).collect()
}

/// The program to run: that of the instance, or the installed one; for Apache its control script, which
/// knows the distribution's variables, where the distribution's program runs.
fn program(service: Service, facts: &Facts, instance: Option<&Instance>) -> Result<PathBuf, String> {
    let Kind { name, programs, .. } = kind(service);
    let installed = |wanted: &[&str]| {
        let is_wanted = |path: &&PathBuf| wanted.iter().any(|w| path.file_name().is_some_and(|n| n == *w));
        facts.installed.iter().find(is_wanted).cloned()
    };
    let of_instance = instance.map(|instance| instance.program.clone());
    if service == Service::Apache {
        let is_usual = of_instance.as_ref().is_none_or(|program| program.starts_with("/usr/sbin"));
        if let Some(control) = installed(CONTROLS).filter(|_| is_usual) {
            return Ok(control);
        }
    }
    of_instance.or_else(|| installed(programs)).ok_or_else(|| {
        format!(
            "{name} neither runs nor is installed in {}: write `check` and `reload` if it goes by another name",
            super::command::PATH
        )
    })
}

/// Apache's control scripts.
pub(super) const CONTROLS: &[&str] = &["apache2ctl", "apachectl"];

fn is_control(program: &Path) -> bool {
    CONTROLS.iter().any(|control| program.file_name().is_some_and(|name| name == *control))
}

/// The arguments of a running server that say where its configuration is.
fn own_arguments(service: Service, instance: Option<&Instance>) -> Result<Vec<String>, String> {
    let Some(instance) = instance else { return Ok(Vec::new()) };
    let Kind { name, kept, dropped, .. } = kind(service);
    let unclear = |seen: &str| {
        format!(
            "the arguments of {name} (pid {}) cannot be told apart at `{}`: write `check` and `reload`",
            instance.pid,
            crate::words::printable(seen, 60)
        )
    };
    let mut own = Vec::new();
    let mut rest = instance.arguments.iter().skip(1).peekable();
    while let Some(word) = rest.next() {
        let option = |options: &[&str]| {
            // A value may follow its option in the same word.
            options.iter().any(|option| word == option || (word.starts_with(option) && option.len() == 2))
        };
        if service == Service::Hitch {
            if word != "--daemon" {
                own.push(word.clone());
            }
        } else if service == Service::Haproxy && ["-sf", "-st"].contains(&word.as_str()) {
            // Process ids of those before it.
            while rest.next_if(|next| next.parse::<u32>().is_ok()).is_some() {}
        } else if service == Service::Haproxy && word == "--" {
            own.push(word.clone());
            own.extend(rest.by_ref().cloned());
        } else if service == Service::Nginx && word == "-g" {
            // Directives, of which nginx's title shows no border.
            while rest.next_if(|next| !next.starts_with('-')).is_some() {}
        } else if option(kept) {
            let is_apart = word.len() == 2;
            let value = is_apart.then(|| rest.next().ok_or_else(|| unclear(word))).transpose()?;
            if value.is_some_and(|value| value == "FOREGROUND") || word == "-DFOREGROUND" {
                continue;
            }
            own.push(word.clone());
            own.extend(value.cloned());
        } else if option(dropped) {
            if word.len() == 2 {
                rest.next();
            }
        } else if !word.starts_with('-') {
            return Err(unclear(word));
        }
    }
    Ok(own)
}

/// An option and its value, if it is given.
fn values(arguments: &[String], option: &str) -> Vec<String> {
    let place = arguments.iter().position(|word| word == option);
    place.map(|place| arguments[place..].iter().take(2).cloned().collect()).unwrap_or_default()
}

/// The arguments in a process's command line as the kernel tells it: nginx writes a title over it.
pub(super) fn arguments(command_line: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(command_line);
    let words = text.split('\0').filter(|word| !word.is_empty());
    match text.split('\0').next().and_then(|first| first.strip_prefix("nginx: master process ")) {
        Some(title) => title.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect(),
        None => words.map(str::to_owned).collect(),
    }
}

/// A unit out of what `systemctl show` says of it; `None` where there is no such unit.
pub(super) fn unit(name: &str, shown: &str) -> Option<Unit> {
    let value = |key: &str| {
        shown.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).unwrap_or_default()
    };
    (value("LoadState") == "loaded").then(|| Unit {
        name: name.to_owned(),
        is_active: ["active", "reloading"].contains(&value("ActiveState")),
        can_reload: value("CanReload") == "yes",
        main: value("MainPID").parse().ok().filter(|pid| *pid != 0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICES: [(Service, &str); 5] = [
        (Service::Nginx, "/usr/sbin/nginx"),
        (Service::Squid, "/usr/sbin/squid"),
        (Service::Haproxy, "/usr/sbin/haproxy"),
        (Service::Apache, "/usr/sbin/apache2"),
        (Service::Hitch, "/usr/sbin/hitch"),
    ];

    fn instance(program: &str, line: &str) -> Instance {
        Instance {
            pid: 7,
            program: PathBuf::from(program),
            arguments: line.split(' ').map(str::to_owned).collect(),
            has_workers: true,
        }
    }

    fn running(program: &str, line: &str) -> Facts {
        Facts {
            running: vec![instance(program, line)],
            installed: vec![PathBuf::from(program), "/usr/sbin/apache2ctl".into()],
            ..Facts::default()
        }
    }

    fn installed(program: &str) -> Facts {
        Facts { installed: vec![program.into(), "/usr/sbin/apache2ctl".into()], ..Facts::default() }
    }

    fn with_unit(program: &str, is_active: bool, can_reload: bool) -> Facts {
        let unit = Unit { name: "the-unit".to_owned(), is_active, can_reload, main: Some(7) };
        Facts { unit: Some(unit), ..running(program, "x") }
    }

    #[test]
    fn the_usual_installation() {
        let checks = [
            "/usr/sbin/nginx -t",
            "/usr/sbin/squid -k parse",
            "/usr/sbin/haproxy -c -f /etc/haproxy/haproxy.cfg",
            "/usr/sbin/apache2ctl configtest",
            "/usr/sbin/hitch --test --config /etc/hitch/hitch.conf",
        ];
        let starts = [
            "/usr/sbin/nginx -g daemon on;",
            "/usr/sbin/squid",
            "/usr/sbin/haproxy -W -D -f /etc/haproxy/haproxy.cfg -p /run/haproxy.pid",
            "/usr/sbin/apache2ctl start",
            "/usr/sbin/hitch --daemon --config /etc/hitch/hitch.conf",
        ];
        let signals = [Signal::HUP, Signal::HUP, Signal::USR2, Signal::USR1, Signal::HUP];
        for (n, (service, path)) in SERVICES.into_iter().enumerate() {
            let facts = installed(path);
            assert_eq!(check(service, &facts, None).unwrap().join(" "), checks[n]);
            assert_eq!(start(service, &facts, None).unwrap().join(" "), starts[n]);
            assert_eq!(facts.is_running(), Some(false));
            let told = reload(service, &facts).unwrap_err();
            assert!(
                told.ends_with("does not run here: start it, or write `reload` if it goes by another name")
            );

            let facts = running(path, path);
            assert_eq!(check(service, &facts, None).unwrap().join(" "), checks[n]);
            assert_eq!(reload(service, &facts).unwrap(), Reload::Signal(instance(path, path), signals[n]));
            assert_eq!(facts.is_running(), Some(true));

            let told = check(service, &Facts::default(), None).unwrap_err();
            assert!(told.contains("neither runs nor is installed"), "{told}");
        }
    }

    #[test]
    fn systemd_reloads_and_starts_what_it_runs() {
        for (service, path) in SERVICES {
            let word = |word: &str| vec!["systemctl".to_owned(), word.to_owned(), "the-unit".to_owned()];
            let active = with_unit(path, true, true);
            assert_eq!(reload(service, &active).unwrap(), Reload::Command(word("reload")));
            assert_eq!(start(service, &active, None).unwrap(), word("start"));
            // A unit that cannot reload, or is not what runs: by signal.
            for facts in [with_unit(path, true, false), with_unit(path, false, true)] {
                assert!(matches!(reload(service, &facts), Ok(Reload::Signal(..))));
            }
            let stopped = Facts { running: vec![], ..with_unit(path, false, true) };
            assert_eq!(stopped.is_running(), Some(false));
        }
    }

    #[test]
    fn an_instance_of_its_own_is_taken_as_it_runs() {
        for (service, program, line, checked, started) in [
            (
                Service::Nginx,
                "/usr/sbin/nginx",
                "/usr/sbin/nginx -c /x/n.conf -g daemon off; master_process on; -e /x/log",
                "/usr/sbin/nginx -c /x/n.conf -e /x/log -t",
                "/usr/sbin/nginx -c /x/n.conf -e /x/log -g daemon on;",
            ),
            (
                Service::Squid,
                "/usr/sbin/squid",
                "squid --foreground -n it -sYC -f /x/squid.conf -d 1",
                "/usr/sbin/squid -n it -f /x/squid.conf -k parse",
                "/usr/sbin/squid -n it -f /x/squid.conf",
            ),
            (
                Service::Haproxy,
                "/usr/sbin/haproxy",
                "haproxy -sf 12 13 -x sockpair@3 -Ws -f /x/a.cfg -f /x/b -p /x/pid -S /x/master.sock",
                "/usr/sbin/haproxy -c -f /x/a.cfg -f /x/b",
                "/usr/sbin/haproxy -W -D -f /x/a.cfg -f /x/b -p /x/pid",
            ),
            (
                Service::Haproxy,
                "/opt/haproxy",
                "haproxy -W -- /x/a.cfg /x/b.cfg",
                "/opt/haproxy -c -- /x/a.cfg /x/b.cfg",
                "/opt/haproxy -W -D -- /x/a.cfg /x/b.cfg",
            ),
            (
                Service::Apache,
                "/usr/sbin/apache2",
                "/usr/sbin/apache2 -d /x -f a.conf -D FOREGROUND -DMore -k start",
                "/usr/sbin/apache2ctl -d /x -f a.conf -DMore -t",
                "/usr/sbin/apache2ctl -d /x -f a.conf -DMore -k start",
            ),
            (
                Service::Apache,
                "/opt/httpd/bin/httpd",
                "httpd -k start",
                "/opt/httpd/bin/httpd -t",
                "/opt/httpd/bin/httpd -k start",
            ),
            (
                Service::Hitch,
                "/usr/sbin/hitch",
                "hitch --daemon --user nobody --config=/x/h.conf /x/a.pem",
                "/usr/sbin/hitch --test --user nobody --config=/x/h.conf /x/a.pem",
                "/usr/sbin/hitch --daemon --user nobody --config=/x/h.conf /x/a.pem",
            ),
        ] {
            let facts = running(program, line);
            assert_eq!(check(service, &facts, None).unwrap().join(" "), checked);
            let seen = instance(program, line);
            let gone = installed("/usr/sbin/other");
            assert_eq!(check(service, &gone, Some(&seen)).unwrap().join(" "), checked);
            assert_eq!(start(service, &gone, Some(&seen)).unwrap().join(" "), started);
        }
    }

    #[test]
    fn what_is_not_sure_is_asked_for() {
        let two = Facts {
            running: vec![instance("/usr/sbin/nginx", "nginx"), instance("/usr/sbin/nginx", "nginx")],
            ..Facts::default()
        };
        let told = reload(Service::Nginx, &two).unwrap_err();
        assert!(told.starts_with("nginx runs 2 times (pids 7, 7), and it cannot be told which"), "{told}");
        assert!(check(Service::Nginx, &two, None).is_err());

        let spaces = running("/usr/sbin/nginx", "nginx -c /a b/nginx.conf");
        let told = check(Service::Nginx, &spaces, None).unwrap_err();
        assert!(told.contains("cannot be told apart at `b/nginx.conf`"), "{told}");

        let mut alone = running("/usr/sbin/haproxy", "haproxy -D -f /x");
        alone.running[0].has_workers = false;
        let told = reload(Service::Haproxy, &alone).unwrap_err();
        assert!(told.contains("start it with -W or -Ws, name its `runtime-socket`"), "{told}");
        alone.running[0].arguments[1] = "-Ws".to_owned();
        assert!(reload(Service::Haproxy, &alone).is_ok());

        let foreign = Facts { others: vec!["pid 9 belongs to x".to_owned()], ..Facts::default() };
        assert_eq!(foreign.is_running(), None);
        let told = reload(Service::Squid, &foreign).unwrap_err();
        assert_eq!(
            told,
            "no Squid runs here to deal with: pid 9 belongs to x; write `check` and `reload` for it"
        );
    }

    #[test]
    fn command_lines_and_units_are_read() {
        let title = b"nginx: master process /usr/sbin/nginx -c /x/n.conf\0\0\0\0";
        assert_eq!(arguments(title), ["/usr/sbin/nginx", "-c", "/x/n.conf"]);
        assert_eq!(arguments(b"hitch\0--config\0/a b\0"), ["hitch", "--config", "/a b"]);
        assert!(arguments(b"").is_empty());

        let shown = "LoadState=loaded\nActiveState=active\nCanReload=yes\nMainPID=812\n";
        let found = Unit { name: "x".to_owned(), is_active: true, can_reload: true, main: Some(812) };
        assert_eq!(unit("x", shown), Some(found.clone()));
        let stopped = "LoadState=loaded\nActiveState=failed\nCanReload=no\nMainPID=0\n";
        assert_eq!(
            unit("x", stopped),
            Some(Unit { is_active: false, can_reload: false, main: None, ..found })
        );
        assert_eq!(unit("x", "LoadState=not-found\nActiveState=inactive\n"), None);
        assert_eq!(unit("x", ""), None);
    }
}
