//! A child process whose output is read line by line and which never outlives its test.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use wicketgate::clock;

use super::{PATIENCE, until_within};

/// A running program. Dropped, it and its children are killed; when the test has failed, what it said
/// is shown.
pub(crate) struct Process {
    name: String,
    child: Child,
    said: Arc<Said>,
    status: Option<ExitStatus>,
}

#[derive(Default)]
struct Said {
    lines: Mutex<Vec<String>>,
    more: Condvar,
}

impl Process {
    /// Starts it in a process group of its own, with both outputs captured in the order they come.
    pub(crate) fn start(name: &str, command: &mut Command) -> Self {
        let mut child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start ({command:?}): {error}"));
        let said = Arc::<Said>::default();
        collect(child.stdout.take().expect("piped"), said.clone());
        collect(child.stderr.take().expect("piped"), said.clone());
        Self { name: name.to_owned(), child, said, status: None }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has said so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        // Who has waited in vain for a line has panicked with the lock in his hand.
        self.said.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for a line that contains `text`, said before or to come.
    #[track_caller]
    pub(crate) fn wait_for_line(&self, text: &str) -> String {
        self.wait_for_line_after(0, text)
    }

    /// As [`Self::wait_for_line`], not looking at the first `skip` lines.
    #[track_caller]
    pub(crate) fn wait_for_line_after(&self, skip: usize, text: &str) -> String {
        let end = clock::monotonic() + PATIENCE;
        let mut lines = self.said.lines.lock().unwrap();
        loop {
            if let Some(line) = lines.iter().skip(skip).find(|line| line.contains(text)) {
                return line.clone();
            }
            let left = end.saturating_duration_since(clock::monotonic());
            assert!(!left.is_zero(), "{} did not say `{text}` within {PATIENCE:?}", self.name);
            lines = self.said.more.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// Signals it; where it is `nsenter`, which passes nothing on, the program in the namespace.
    pub(crate) fn signal(&self, signal: Signal) {
        let path = |what: &str| format!("/proc/{0}/{what}", self.id());
        let is_nsenter = std::fs::read_link(path("exe")).is_ok_and(|program| program.ends_with("nsenter"));
        let children = std::fs::read_to_string(path(&format!("task/{}/children", self.id())));
        let inner = children.ok().filter(|_| is_nsenter).and_then(|list| list.trim().parse().ok());
        kill_process(inner.and_then(Pid::from_raw).unwrap_or(self.pid()), signal).unwrap();
    }

    /// The exit status, if it has ended.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().unwrap();
        }
        self.status
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn wait(&mut self, limit: Duration) -> ExitStatus {
        let what = format!("{} ends", self.name);
        until_within(limit, &what, || self.ended())
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Its children first get the signal with it; an ended leader may have left some behind.
        let _ = kill_process_group(self.pid(), Signal::KILL);
        let _ = self.child.wait();
        // What a faketime that is killed leaves behind keeps a later one of the same number from starting.
        for name in ["faketime_shm_", "sem.faketime_sem_"] {
            let _ = std::fs::remove_file(format!("/dev/shm/{name}{}", self.child.id()));
        }
        if std::thread::panicking() {
            eprintln!("---- what {} said ----", self.name);
            for line in self.lines() {
                eprintln!("{line}");
            }
        }
    }
}

fn collect(from: impl Read + Send + 'static, said: Arc<Said>) {
    std::thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            said.lines.lock().unwrap().push(String::from_utf8_lossy(&line).into_owned());
            said.more.notify_all();
        }
    });
}

/// What a program that ran to its end left behind.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// Both outputs.
    pub(crate) fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// Asserts the exit code, showing what was said if it is another.
    #[track_caller]
    pub(crate) fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "\nstdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }
}

/// The processes that a process has started.
pub(crate) fn children(pid: u32) -> Vec<Pid> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.map(|task| std::fs::read_to_string(task.path().join("children")).unwrap_or_default());
    let all = lists.collect::<Vec<_>>().join(" ");
    all.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}

/// Runs a program to its end, which has to come within [`PATIENCE`].
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Ran {
    run_within(PATIENCE, command)
}

/// As [`run`], with a limit of its own.
#[track_caller]
pub(crate) fn run_within(limit: Duration, command: &mut Command) -> Ran {
    let mut child = command
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    let stdout = drain(child.stdout.take().expect("piped"));
    let stderr = drain(child.stderr.take().expect("piped"));
    let end = clock::monotonic() + limit;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break Some(status);
        }
        if clock::monotonic() > end {
            break None;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
    let _ = child.wait();
    let stdout = stdout.join().unwrap();
    let stderr = stderr.join().unwrap();
    let Some(status) = status else {
        panic!("{command:?} did not end within {limit:?}\nstdout: {stdout}\nstderr: {stderr}")
    };
    Ran { code: status.code(), stdout, stderr }
}

fn drain(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

#[test]
fn a_dropped_process_takes_its_children_along() {
    let process = Process::start("sh", Command::new("sh").args(["-c", "sleep 1000 & echo child $!; wait"]));
    let line = process.wait_for_line("child ");
    let child: u32 = line.trim_start_matches("child ").parse().unwrap();
    drop(process);
    until_within(PATIENCE, "the child is gone", || {
        let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        // Killed and not yet collected by its new parent is gone enough.
        (stat.is_empty() || stat.contains(") Z ")).then_some(())
    });
}
