//! Which program holds a port, as far as this user may see it: the kernel's table of sockets, then the
//! open files of processes.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;

use crate::words::printable;

/// Processes that are looked at.
const MOST_PROCESSES: usize = 50_000;

/// A program that holds a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// Its short name.
    pub program: String,
    /// The systemd unit that it belongs to.
    pub unit: Option<String>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, pid {}", self.program, self.pid)?;
        match &self.unit {
            Some(unit) => write!(f, ", of {unit}"),
            None => Ok(()),
        }
    }
}

/// Whether anybody listens on a TCP port.
pub fn is_held(port: u16) -> bool {
    !sockets(port).is_empty()
}

/// Who listens on a TCP port; `None` where that cannot be seen.
pub fn of_port(port: u16) -> Option<Holder> {
    let sockets = sockets(port);
    if sockets.is_empty() {
        return None;
    }
    let processes = fs::read_dir("/proc").ok()?.flatten().take(MOST_PROCESSES);
    processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).find_map(|pid| {
        holds(pid, &sockets).then(|| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            Holder { pid, program: printable(name.trim(), 40), unit: unit(&groups) }
        })
    })
}

/// The unit, from the text of `/proc/PID/cgroup` (cgroups(7)): the last part of the path that is one.
fn unit(groups: &str) -> Option<String> {
    let paths = groups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    let is_unit = |part: &&str| [".service", ".socket", ".scope"].iter().any(|kind| part.ends_with(kind));
    paths.flat_map(|path| path.rsplit('/')).find(is_unit).map(|unit| printable(unit, 80))
}

fn sockets(port: u16) -> BTreeSet<u64> {
    ["/proc/self/net/tcp", "/proc/self/net/tcp6"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|table| listening(&table, port))
        .collect()
}

fn holds(pid: u32, sockets: &BTreeSet<u64>) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    files.flatten().any(|file| {
        let target = fs::read_link(file.path()).unwrap_or_default();
        let inode = target.to_str().and_then(|t| t.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
        inode.is_some_and(|inode| sockets.contains(&inode))
    })
}

/// Inodes of the sockets that listen on a port, from the text of `/proc/net/tcp` (proc(5)).
fn listening(table: &str, port: u16) -> Vec<u64> {
    const LISTEN: &str = "0A";
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let local = u16::from_str_radix(fields.get(1)?.rsplit_once(':')?.1, 16).ok()?;
            (local == port && *fields.get(3)? == LISTEN).then(|| fields.get(9)?.parse().ok()).flatten()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_read() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
                     0: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0\n\
                     1: 0100007F:0050 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 100 0 0 10 0\n\
                     2: 0100007F:01BB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1 0 100 0 0 10 0\n\
                     damaged\n";
        assert_eq!(listening(table, 80), [4711]);
        assert_eq!(listening(table, 443), [4713]);
        assert!(listening(table, 81).is_empty());
        assert!(listening("", 80).is_empty());
    }

    #[test]
    fn units_are_read() {
        for (groups, expected) in [
            ("0::/system.slice/nginx.service\n", Some("nginx.service")),
            (
                "12:pids:/system.slice/squid.service\n1:name=systemd:/system.slice/squid.service\n0::/\n",
                Some("squid.service"),
            ),
            ("0::/system.slice/system-getty.slice/getty@tty1.service/child\n", Some("getty@tty1.service")),
            ("0::/\n", None),
            ("", None),
            ("damaged", None),
        ] {
            assert_eq!(unit(groups).as_deref(), expected, "{groups}");
        }
    }

    #[test]
    fn this_very_program_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(of_port(port).map(|h| h.pid), Some(std::process::id()));
        assert!(is_held(port));
        drop(listener);
        assert_eq!(of_port(port), None);
        assert!(!is_held(port));
    }
}
