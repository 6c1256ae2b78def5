//! One command at a time for a server, even where the helper was killed while one ran: what runs is noted in
//! the state directory, and whoever comes next waits for it, and ends it once its time is over.
//!
//! The folder belongs to whom the state directory belongs to; a note is believed only if it is the helper's
//! own user's, so that nobody has root end a process of his choice.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::time::Instant;

use crate::folder::{Access, Folder, FolderError, Owner};

const FOLDER: &str = "running";
/// Longest note, bytes.
const LIMIT: u64 = 4096;
/// How often it is looked whether a command has ended.
const LOOK: Duration = Duration::from_millis(50);
/// How long a process may take to be gone once it was killed.
const DEATH: Duration = Duration::from_secs(5);

/// Which process runs for a server, as it is written down: the server's name, since a note that was moved is
/// another server's; the leader of the command's process group; when that began; the boot, and the process
/// namespace, since in another one the number is another process. `None`: it has ended.
fn note(service: &str, pid: i32) -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let processes = fs::read_link("/proc/self/ns/pid").ok()?;
    let began = began(pid)?;
    Some(format!("{service:?}\n{pid} {began} {} {}\n", boot.trim(), processes.display()))
}

/// The process that a note is about, if that very one still runs.
fn noted(service: &str, text: &str) -> Option<i32> {
    let pid = text.lines().nth(1)?.split(' ').next()?.parse().ok()?;
    (note(service, pid).as_deref() == Some(text)).then_some(pid)
}

/// When a process began, in clock ticks since the boot (proc(5)), unless it has ended.
fn began(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Its name, in parentheses, may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") { None } else { fields.nth(18)?.parse().ok() }
}

/// Where it is noted what runs for a server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Running<'a> {
    pub(super) state_dir: &'a Path,
    /// The name of its table.
    pub(super) service: &'a str,
}

impl Running<'_> {
    /// Waits until the command that a helper before this one has left behind has ended, or ends it, with its
    /// whole group, once `limit` is over.
    ///
    /// # Errors
    /// A sentence: it does not end.
    pub(super) async fn wait(&self, limit: Duration) -> Result<(), String> {
        let Some(pid) = self.left_behind() else { return Ok(()) };
        tracing::warn!(
            service = self.service,
            pid,
            "a command of an earlier helper still runs: its end is awaited for up to {} s",
            limit.as_secs()
        );
        if !self.has_ended(limit).await {
            tracing::warn!(service = self.service, pid, "it did not end, and is stopped");
            if let Some(group) = Pid::from_raw(pid) {
                // It may have ended in this very moment.
                let _ = rustix::process::kill_process_group(group, Signal::KILL);
            }
            if !self.has_ended(DEATH).await {
                return Err(format!(
                    "a command that was started before for {} cannot be stopped (pid {pid}): the next one is not run beside it",
                    self.service
                ));
            }
        }
        self.ended();
        Ok(())
    }

    async fn has_ended(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while self.left_behind().is_some() {
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(LOOK).await;
        }
        true
    }

    /// Notes the process that runs now. A note that cannot be written keeps nobody from working.
    pub(super) fn begun(&self, pid: i32) {
        let Some(note) = note(self.service, pid) else { return };
        if let Err(e) = self.folder().and_then(|folder| folder.replace(&self.file(), note.as_bytes())) {
            tracing::warn!("it is not noted which command runs: {e}");
        }
    }

    /// Nothing runs any more. A note that stays leads to no process.
    pub(super) fn ended(&self) {
        let _ = self.folder().and_then(|folder| folder.unlink(&self.file()));
    }

    fn left_behind(&self) -> Option<i32> {
        let folder = Folder::open(self.state_dir).ok()?.existing(FOLDER).ok()??;
        let us = rustix::process::geteuid().as_raw();
        noted(self.service, &folder.read_of(us, &self.file(), LIMIT).ok()??)
    }

    /// The note's file. Names that are no file's may come to the same one, which then is believed of one.
    fn file(&self) -> String {
        let fit = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
        self.service.chars().map(fit).take(100).collect()
    }

    /// The folder, the state directory's owner's; what is written in it is the helper's user's.
    fn folder(&self) -> Result<Folder, FolderError> {
        let state = Folder::open(self.state_dir)?;
        let meta = state.metadata()?;
        let owner = rustix::process::geteuid().is_root().then(|| Owner { uid: meta.uid(), gid: meta.gid() });
        let state = state.with_access(Access { owner, ..Access::default() });
        Ok(state.subfolder(FOLDER)?.with_access(Access::default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command};

    fn sleeping(seconds: &str) -> Child {
        Command::new("sleep").arg(seconds).process_group(0).spawn().unwrap()
    }

    /// Waits for a child in a thread of its own, since one that nobody waits for does not go away.
    fn reaped(mut child: Child) -> (i32, std::thread::JoinHandle<std::process::ExitStatus>) {
        let pid = child.id().cast_signed();
        (pid, std::thread::spawn(move || child.wait().unwrap()))
    }

    #[tokio::test]
    async fn what_was_left_behind_is_awaited_or_ended() {
        let state = tempfile::tempdir().unwrap();
        let running = Running { state_dir: state.path(), service: "x" };
        assert_eq!(running.wait(Duration::ZERO).await, Ok(()));
        for (seconds, limit, is_ended) in [("0.3", 20, false), ("1000", 0, true)] {
            let (pid, status) = reaped(sleeping(seconds));
            running.begun(pid);
            assert!(running.left_behind().is_some());
            assert_eq!(running.wait(Duration::from_secs(limit)).await, Ok(()));
            assert_eq!(status.join().unwrap().success(), !is_ended, "{seconds}");
            assert!(!state.path().join("running/x").exists());
        }
    }

    #[tokio::test]
    async fn only_own_notes_about_the_very_process_are_believed() {
        let state = tempfile::tempdir().unwrap();
        let running = Running { state_dir: state.path(), service: "x" };
        let mut child = sleeping("1000");
        running.begun(child.id().cast_signed());
        let file = state.path().join("running/x");
        let text = fs::read_to_string(&file).unwrap();
        let (name, line) = text.trim().split_once('\n').unwrap();
        let words: Vec<_> = line.split(' ').collect();
        let with = |place: usize, word: &str| {
            let mut words = words.clone();
            words[place] = word;
            format!("{name}\n{}\n", words.join(" "))
        };
        for other in [
            text.replace('x', "y"),
            with(0, "-1"),
            with(0, "0"),
            with(1, "1"),
            with(2, "another"),
            with(3, "pid:[1]"),
            format!("{text}more"),
            String::new(),
        ] {
            fs::write(&file, &other).unwrap();
            assert_eq!(running.left_behind(), None, "{other:?}");
        }
        fs::write(&file, &text).unwrap();
        assert!(running.left_behind().is_some());
        fs::hard_link(&file, state.path().join("second")).unwrap();
        assert_eq!(running.left_behind(), None, "a second name");
        fs::remove_file(state.path().join("second")).unwrap();
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&file, Some(65534), None).unwrap();
            assert_eq!(running.left_behind(), None, "somebody else's");
        }
        fs::remove_file(&file).unwrap();
        fs::write(state.path().join("elsewhere"), &text).unwrap();
        std::os::unix::fs::symlink("../elsewhere", &file).unwrap();
        assert_eq!(running.left_behind(), None, "a link");
        assert_eq!(running.wait(Duration::ZERO).await, Ok(()));
        assert_eq!(child.try_wait().unwrap(), None, "it was not touched");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
