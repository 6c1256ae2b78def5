//! What can be found out about a server on this machine: from systemd, where it runs the machine, and
//! from the list of processes.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::command::{self, Surroundings};
use super::services::{self, Facts, Instance, Unit};
use super::trust;
use crate::config::Service;

/// Where things are found out; a test has places of its own.
#[derive(Debug, Clone)]
pub(super) struct Machine {
    /// A folder that is there where systemd runs the machine.
    pub(super) systemd: PathBuf,
    /// The program that asks it.
    pub(super) systemctl: String,
    /// The list of processes.
    pub(super) processes: PathBuf,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            systemd: PathBuf::from("/run/systemd/system"),
            systemctl: "systemctl".to_owned(),
            processes: PathBuf::from("/proc"),
        }
    }
}

/// A process of a server's name.
struct Found {
    pid: u32,
    parent: u32,
    /// Who it is, or why it is none to deal with.
    instance: Result<Instance, String>,
}

impl Machine {
    /// Everything that matters for a server.
    ///
    /// # Errors
    /// A sentence: something could not be looked at.
    pub(super) async fn facts(&self, service: Service, limit: Duration) -> Result<Facts, String> {
        let unit = self.unit(service, limit).await?;
        let mut facts = self.seen(service)?;
        if let Some(main) = unit.as_ref().filter(|unit| unit.is_active).and_then(|unit| unit.main) {
            // The one that systemd watches is the one that is meant.
            facts.running.retain(|instance| instance.pid == main);
            if facts.running.is_empty()
                && let Ok(mut instance) = self.instance(main)
            {
                // Somebody else could have written over its arguments.
                let keeps = if self.is_trusted(main) { instance.arguments.len() } else { 1 };
                instance.arguments.truncate(keeps);
                facts.running.push(instance);
            }
        }
        let names = services::programs(service).iter().chain(match service {
            Service::Apache => services::CONTROLS,
            _ => &[],
        });
        Ok(Facts { unit, installed: names.filter_map(|name| command::installed(name)).collect(), ..facts })
    }

    /// The server's unit, an active one before others.
    async fn unit(&self, service: Service, limit: Duration) -> Result<Option<Unit>, String> {
        if !self.systemd.is_dir() {
            return Ok(None);
        }
        let mut known = None;
        for name in services::units(service) {
            let properties = "--property=LoadState,ActiveState,CanReload,MainPID";
            let arguments = [&self.systemctl, "show", properties, name].map(str::to_owned);
            let environment = BTreeMap::new();
            let surroundings = Surroundings::Server { environment: &environment };
            let shown = command::run(&arguments, &surroundings, limit).await?;
            match services::unit(name, &shown) {
                Some(unit) if unit.is_active => return Ok(Some(unit)),
                found => known = known.or(found),
            }
        }
        Ok(known)
    }

    /// Its processes that have none of their kind above them.
    fn seen(&self, service: Service) -> Result<Facts, String> {
        let list = fs::read_dir(&self.processes)
            .map_err(|e| format!("cannot read {}: {e}", self.processes.display()))?;
        let pids = list.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        // Whatever ends while it is looked at does not run.
        let all: BTreeMap<u32, Found> =
            pids.filter_map(|pid| self.find(service, pid)).map(|found| (found.pid, found)).collect();
        let mut facts = Facts::default();
        for found in all.values().filter(|found| !all.contains_key(&found.parent)) {
            match &found.instance {
                Ok(instance) => {
                    let has_workers = all.values().any(|other| other.parent == found.pid);
                    facts.running.push(Instance { has_workers, ..instance.clone() });
                }
                Err(reason) => facts.others.push(reason.clone()),
            }
        }
        Ok(facts)
    }

    fn find(&self, service: Service, pid: u32) -> Option<Found> {
        let stat = fs::read_to_string(self.path(pid, "stat")).ok()?;
        let (name, rest) = stat.rsplit_once(") ")?;
        let (_, name) = name.split_once('(')?;
        let mut fields = rest.split(' ');
        let (state, parent) = (fields.next()?, fields.next()?.parse().ok()?);
        if state == "Z" {
            return None;
        }
        let is_server = |name: &str| services::programs(service).contains(&name);
        // One in a container is not this machine's.
        if fs::read_link(self.path(pid, "ns/pid")).is_ok() && !self.shares(pid, "ns/pid") {
            return None;
        }
        let found = |instance| Some(Found { pid, parent, instance });
        match self.instance(pid) {
            Ok(instance) => {
                let is_its =
                    instance.program.file_name().and_then(|name| name.to_str()).is_some_and(is_server);
                if is_its { found(self.ours(pid).map(|()| instance)) } else { None }
            }
            // Somebody else's: the name that everybody may see has to do.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied && is_server(name) => {
                found(Err(format!("pid {pid} belongs to somebody else and cannot be looked at")))
            }
            Err(_) => None,
        }
    }

    /// Whether a process is one to deal with: it sees the same files as this one, and it is root's or our own
    /// user's, whose arguments are believed.
    fn ours(&self, pid: u32) -> Result<(), String> {
        if !self.shares(pid, "ns/mnt") {
            return Err(format!("pid {pid} has a view of its own on the files"));
        }
        if self.is_trusted(pid) {
            Ok(())
        } else {
            Err(format!("pid {pid} belongs to {}", trust::user(self.owner(pid))))
        }
    }

    fn shares(&self, pid: u32, space: &str) -> bool {
        let own = fs::read_link(self.processes.join("self").join(space)).ok();
        own.is_some() && fs::read_link(self.path(pid, space)).ok() == own
    }

    fn is_trusted(&self, pid: u32) -> bool {
        [0, rustix::process::geteuid().as_raw()].contains(&self.owner(pid))
    }

    fn owner(&self, pid: u32) -> u32 {
        fs::metadata(self.path(pid, "")).map(|meta| meta.uid()).unwrap_or(u32::MAX)
    }

    fn instance(&self, pid: u32) -> io::Result<Instance> {
        let program = fs::read_link(self.path(pid, "exe"))?;
        // An upgrade has put another file in its place.
        let program = match program.to_str().and_then(|path| path.strip_suffix(" (deleted)")) {
            Some(path) => PathBuf::from(path),
            None => program,
        };
        let arguments = services::arguments(&fs::read(self.path(pid, "cmdline"))?);
        Ok(Instance { pid, program, arguments, has_workers: false })
    }

    fn path(&self, pid: u32, what: &str) -> PathBuf {
        self.processes.join(pid.to_string()).join(what)
    }

    /// Sends a signal to a process, if it still is the one that was seen.
    ///
    /// # Errors
    /// A sentence: it is gone, or somebody else's.
    pub(super) fn send(&self, instance: &Instance, signal: Signal) -> Result<(), String> {
        let shown = format!("{} (pid {})", instance.program.display(), instance.pid);
        let gone = || format!("{shown} has ended in this very moment: is it being restarted");
        let pid = i32::try_from(instance.pid).ok().and_then(Pid::from_raw).ok_or_else(gone)?;
        // Held open, its number goes to no other process.
        let held = pidfd_open(pid, PidfdFlags::empty()).map_err(|_| gone())?;
        if self.instance(instance.pid).ok().map(|now| now.program) != Some(instance.program.clone()) {
            return Err(gone());
        }
        pidfd_send_signal(&held, signal).map_err(|e| {
            format!("{shown} cannot be told to reload: {e}: only root or its own user may; run the helper as one of them")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    const LIMIT: Duration = Duration::from_secs(20);

    /// A machine that systemd seems to run, with a `systemctl` that says this.
    fn machine(holder: &Path, systemctl: &str) -> Machine {
        let path = holder.join("systemctl");
        fs::write(&path, format!("#!/bin/sh\n{systemctl}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let (systemd, processes) = (holder.join("system"), holder.join("proc"));
        fs::create_dir_all(&systemd).unwrap();
        fs::create_dir_all(&processes).unwrap();
        Machine { systemd, systemctl: path.to_str().unwrap().to_owned(), processes }
    }

    /// A process in a list of our own.
    fn process(machine: &Machine, pid: u32, parent: u32, program: &str, line: &str) {
        let folder = machine.path(pid, "");
        for folder in [folder.join("ns"), machine.processes.join("self/ns")] {
            fs::create_dir_all(&folder).unwrap();
            for space in ["pid", "mnt"] {
                let _ = symlink(format!("{space}:[1]"), folder.join(space));
            }
        }
        let name = program.rsplit('/').next().unwrap();
        fs::write(folder.join("stat"), format!("{pid} ({name}) S {parent} 1 1 0")).unwrap();
        fs::write(folder.join("cmdline"), line.replace(' ', "\0")).unwrap();
        symlink(program, folder.join("exe")).unwrap();
    }

    #[tokio::test]
    async fn systemd_is_asked_where_it_runs_the_machine() {
        let holder = tempfile::tempdir().unwrap();
        let says = r#"test "$1" = show || exit 1
            case $3 in
            apache2) echo LoadState=not-found ;;
            httpd) printf 'LoadState=loaded\nActiveState=active\nCanReload=yes\nMainPID=20\n' ;;
            esac"#;
        let machine = machine(holder.path(), says);
        process(&machine, 20, 1, "/usr/sbin/httpd", "/usr/sbin/httpd -DFOREGROUND");
        process(&machine, 30, 1, "/usr/sbin/httpd", "/usr/sbin/httpd -f /other");
        let facts = machine.facts(Service::Apache, LIMIT).await.unwrap();
        assert_eq!(
            facts.unit.as_ref().map(|unit| (unit.name.as_str(), unit.is_active)),
            Some(("httpd", true))
        );
        assert_eq!(facts.running.iter().map(|i| i.pid).collect::<Vec<_>>(), [20]);
        let none = machine.facts(Service::Nginx, LIMIT).await.unwrap();
        assert_eq!((none.unit, none.running), (None, vec![]));

        let elsewhere = Machine { systemd: holder.path().join("none"), ..machine };
        let facts = elsewhere.facts(Service::Apache, LIMIT).await.unwrap();
        assert_eq!((facts.unit, facts.running.len()), (None, 2));
    }

    #[tokio::test]
    async fn a_systemctl_that_hangs_is_told() {
        let holder = tempfile::tempdir().unwrap();
        let machine = machine(holder.path(), "exec sleep 1000");
        let told = machine.facts(Service::Nginx, Duration::from_millis(100)).await.unwrap_err();
        assert!(told.contains("did not end within"), "{told}");
    }

    #[test]
    fn the_top_process_is_found_and_workers_and_strangers_are_not() {
        let holder = tempfile::tempdir().unwrap();
        let machine = machine(holder.path(), "");
        process(&machine, 5, 1, "/usr/sbin/nginx (deleted)", "nginx: master process nginx");
        process(&machine, 6, 5, "/usr/sbin/nginx", "nginx: worker process");
        process(&machine, 7, 1, "/usr/bin/nginx-debug", "nginx-debug");
        process(&machine, 8, 6, "/usr/sbin/nginx", "nginx: worker process");
        let seen = machine.seen(Service::Nginx).unwrap();
        assert_eq!(seen.running.len(), 1, "{seen:?}");
        assert_eq!((seen.running[0].pid, seen.running[0].has_workers), (5, true));
        assert_eq!(seen.running[0].program, Path::new("/usr/sbin/nginx"));
        assert_eq!(seen.others, Vec::<String>::new());

        process(&machine, 9, 1, "/usr/sbin/nginx", "nginx");
        fs::remove_file(machine.path(9, "ns/mnt")).unwrap();
        symlink("mnt:[2]", machine.path(9, "ns/mnt")).unwrap();
        let seen = machine.seen(Service::Nginx).unwrap();
        assert_eq!((seen.running.len(), seen.others.len()), (1, 1), "{seen:?}");
        assert_eq!(seen.others, ["pid 9 has a view of its own on the files"]);
        fs::remove_file(machine.path(9, "ns/pid")).unwrap();
        symlink("pid:[2]", machine.path(9, "ns/pid")).unwrap();
        assert_eq!(machine.seen(Service::Nginx).unwrap().others, Vec::<String>::new(), "in a container");
    }

    #[test]
    fn only_the_process_that_was_seen_gets_the_signal() {
        let machine = Machine::default();
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let mut instance = machine.instance(child.id()).unwrap();
        let program = std::mem::replace(&mut instance.program, "/usr/sbin/nginx".into());
        let told = machine.send(&instance, Signal::KILL).unwrap_err();
        assert!(told.contains("has ended in this very moment"), "{told}");
        instance.program = program;
        assert_eq!(machine.send(&instance, Signal::KILL), Ok(()));
        child.wait().unwrap();
        assert!(machine.send(&instance, Signal::KILL).is_err());
    }
}
