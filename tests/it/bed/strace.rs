//! strace as an accident: a program is killed at a chosen system call, or the call fails; and a witness of
//! what the program did to its files until then.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;

use super::Bed;
use super::process::{Ran, run};

/// What changes files and folders; `openat` where it creates, and the older calls that libraries may use.
const CHANGES: [&str; 16] = [
    "openat",
    "open",
    "mkdirat",
    "mkdir",
    "renameat",
    "renameat2",
    "rename",
    "symlinkat",
    "unlinkat",
    "unlink",
    "write",
    "fsync",
    "fchmod",
    "fchown",
    "fchownat",
    "ftruncate",
];

/// What befalls a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Accident {
    /// The system call.
    pub(crate) call: String,
    /// Which of them, from 1; each thread counts by itself.
    pub(crate) nth: usize,
    pub(crate) then: Then,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// It is killed before the call has done anything.
    Killed,
    /// The call fails with that error.
    Fails(&'static str),
    /// It does, and so do all that follow.
    KeepsFailing(&'static str),
}

/// Something that a program did to a file or a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) call: String,
    /// Which of those calls it was, from 1.
    pub(crate) nth: usize,
    /// As strace shows it, with the paths of the descriptors.
    pub(crate) text: String,
}

/// A program that ran under strace.
pub(crate) struct Traced {
    pub(crate) ran: Ran,
    /// What was done, in its order.
    pub(crate) steps: Vec<Step>,
    /// The calls that were met by the accident.
    pub(crate) met: Vec<String>,
}

/// Runs a command whose calls on those paths are watched, and lets the accident happen; strace is started by
/// what `by` makes of its name.
#[track_caller]
pub(crate) fn watched(
    bed: &Bed,
    by: &dyn Fn(&str) -> Command,
    command: &Command,
    paths: &[PathBuf],
    accident: Option<&Accident>,
) -> Traced {
    let log = bed.path("strace.log");
    let _ = std::fs::remove_file(&log);
    let mut strace = by("strace");
    strace.args(["-f", "-y", "-q", "-s", "0", "-o"]).arg(&log);
    if accident.is_none_or(|accident| accident.then != Then::Killed) {
        // Faster, but no signal can be sent that way.
        strace.arg("--seccomp-bpf");
    }
    // A machine that lacks one of the calls does not mind.
    strace.arg("-e").arg(format!("trace={}", CHANGES.map(|call| format!("?{call}")).join(",")));
    for path in paths {
        strace.arg("-P").arg(path);
    }
    if let Some(Accident { call, nth, then }) = accident {
        let what = match then {
            Then::Killed => format!("signal=KILL:when={nth}"),
            Then::Fails(error) => format!("error={error}:when={nth}"),
            Then::KeepsFailing(error) => format!("error={error}:when={nth}+"),
        };
        strace.arg("-e").arg(format!("inject={call}:{what}"));
    }
    strace.arg("--").arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => strace.env(name, value),
            None => strace.env_remove(name),
        };
    }
    let ran = run(&mut strace);
    let text = std::fs::read_to_string(&log).unwrap_or_else(|e| panic!("no log of strace's ({e}): {ran:?}"));
    let (steps, met) = read(&text);
    Traced { ran, steps, met }
}

/// What was done, and what was met by an accident.
fn read(log: &str) -> (Vec<Step>, Vec<String>) {
    let (mut steps, mut met) = (Vec::new(), Vec::new());
    let mut counts: HashMap<(String, String), usize> = HashMap::new();
    let mut begun: HashMap<String, (String, usize)> = HashMap::new();
    for line in log.lines() {
        let Some((pid, text)) = line.split_once(' ') else { continue };
        let text = text.trim_start();
        let (text, nth) = if let Some((_, end)) = text.split_once(" resumed>") {
            let Some((beginning, nth)) = begun.remove(pid) else { continue };
            (format!("{beginning}{end}"), nth)
        } else {
            let Some((call, _)) = text.split_once('(').filter(|_| !text.starts_with(['-', '+'])) else {
                continue;
            };
            let count = counts.entry((pid.to_owned(), call.to_owned())).or_default();
            *count += 1;
            if let Some(beginning) = text.strip_suffix(" <unfinished ...>") {
                begun.insert(pid.to_owned(), (beginning.to_owned(), *count));
                continue;
            }
            (text.to_owned(), *count)
        };
        if text.ends_with(" (INJECTED)") {
            met.push(text);
            continue;
        }
        let result = text.rsplit_once(" = ").map_or("?", |(_, result)| result.trim());
        if result.starts_with('?') {
            met.push(text);
            continue;
        }
        let call = text.split('(').next().unwrap_or_default().to_owned();
        let is_done = !result.starts_with('-');
        if is_done && (!call.starts_with("open") || text.contains("O_CREAT")) {
            steps.push(Step { call, nth, text });
        }
    }
    (steps, met)
}

#[test]
fn a_log_is_read_as_steps() {
    let log = "\
7 openat(3</s>, \"a\", O_RDONLY) = 4</s/a>\n\
7 openat(3</s>, \"b\", O_WRONLY|O_CREAT|O_EXCL, 0600) = 4</s/b>\n\
7 write(4</s/b>, \"\"..., 5 <unfinished ...>\n\
8 fsync(9</s>) = 0\n\
7 <... write resumed>) = 5\n\
7 mkdirat(3</s>, \"c\", 0700) = -1 EEXIST (File exists)\n\
7 fsync(4</s/b>) = -1 EIO (Input/output error) (INJECTED)\n\
7 renameat(3</s>, \"b\", 3</s>, \"a\" <unfinished ...>\n\
8 fsync(9</s>) = ?\n\
7 <... renameat resumed>) = ?\n\
7 +++ killed by SIGKILL +++\n";
    let (steps, met) = read(log);
    let seen: Vec<_> = steps.iter().map(|step| (step.call.as_str(), step.nth)).collect();
    assert_eq!(seen, [("openat", 2), ("fsync", 1), ("write", 1)]);
    assert!(met[0].starts_with("fsync(4") && met[2].starts_with("renameat("), "{met:?}");
}
