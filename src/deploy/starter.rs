//! The process that starts helpers: it keeps the rights that the network-facing process gives up, holds no listener,
//! and can be asked for two things: a helper at the other end of a socket, and who holds a port. It ends when its own
//! socket closes.

use std::ffi::OsString;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recv, recvmsg, send, sendmsg, socketpair,
    sockopt,
};

use crate::net::holder::{self, Holder};

/// Asks for a helper; its socket comes along.
const HELPER: u8 = b'h';
/// Asks who holds the port of the next two bytes.
const PORT: u8 = b'p';
/// Longest message, bytes.
const LONGEST: usize = 512;
/// Most helpers at once: each part of the daemon has one, and a new one where that hangs.
const MOST: usize = 16;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The process, seen from the one that asks it.
#[derive(Debug)]
pub struct Starter {
    /// With the number of the last question: an answer that came too late is told by its own.
    socket: Mutex<(OwnedFd, u8)>,
    _process: Child,
}

impl Starter {
    /// Starts it, as this binary with `arguments`.
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn start(arguments: &[OsString]) -> io::Result<Self> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        sockopt::set_socket_timeout(&ours, sockopt::Timeout::Recv, Some(PATIENCE))?;
        let process = Command::new("/proc/self/exe")
            .args(arguments)
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()?;
        Ok(Self { socket: Mutex::new((ours, 0)), _process: process })
    }

    /// A helper, at the other end of this.
    pub(super) fn helper(&self) -> io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        let told = self.ask(&[HELPER], Some(theirs))?;
        if told.is_empty() { Ok(ours) } else { Err(io::Error::other(told)) }
    }

    /// Who listens on a port, as far as its rights see.
    pub fn holder(&self, port: u16) -> Option<Holder> {
        let [high, low] = port.to_be_bytes();
        let told = self.ask(&[PORT, high, low], None).ok()?;
        let mut lines = told.lines();
        let (pid, program) = (lines.next()?.parse().ok()?, lines.next()?.to_owned());
        Some(Holder { pid, program, unit: lines.next().map(str::to_owned) })
    }

    fn ask(&self, question: &[u8], passed: Option<UnixStream>) -> io::Result<String> {
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let (socket, number) = &mut *socket;
        *number = number.wrapping_add(1);
        let question = [&[*number], question].concat();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors: Vec<_> = passed.iter().map(AsFd::as_fd).collect();
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(io::Error::other("there is no room for a descriptor"));
        }
        sendmsg(&*socket, &[IoSlice::new(&question)], &mut control, SendFlags::NOSIGNAL)?;
        let mut answer = [0; LONGEST];
        for _ in 0..=u8::MAX {
            let (length, _) = recv(&*socket, &mut answer, RecvFlags::empty())?;
            // An empty message is not sent: it would be the end.
            match answer[..length] {
                [] => break,
                [of, ref told @ ..] if of == *number => return Ok(String::from_utf8_lossy(told).into_owned()),
                // To an earlier one, that nobody waits for any more.
                _ => {}
            }
        }
        Err(io::Error::other("the process that starts helpers is gone: restart wicketgate"))
    }
}

/// The process itself: serves its standard input until that closes. `arguments` are a helper's.
///
/// # Errors
/// Standard input is no socket of the kind, or breaks.
pub fn serve_starts(arguments: &[OsString]) -> io::Result<()> {
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    let running = Arc::new(());
    loop {
        let (question, passed) = receive(&socket)?;
        let Some((number, question)) = question.split_first() else { return Ok(()) };
        let told = match (question, passed) {
            ([HELPER], Some(stdin)) => {
                start(arguments, stdin, &running).map_or_else(|e| e.to_string(), |()| String::new())
            }
            ([PORT, high, low], None) => {
                let found = holder::of_port(u16::from_be_bytes([*high, *low]));
                found.map_or_else(String::new, |Holder { pid, program, unit }| {
                    format!("{pid}\n{program}\n{}", unit.unwrap_or_default())
                })
            }
            _ => "that is nothing to ask for".to_owned(),
        };
        let mut answer = vec![*number];
        answer.extend(told.bytes().take(LONGEST - 1));
        send(&socket, &answer, SendFlags::NOSIGNAL)?;
    }
}

fn receive(socket: &OwnedFd) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut question = [0; LONGEST];
    let received = loop {
        let parts = &mut [IoSliceMut::new(&mut question)];
        match recvmsg(socket, parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            received => break received?,
        }
    };
    let passed = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    Ok((question[..received.bytes].to_vec(), passed))
}

/// Starts a helper; `running` is shared by those that have not ended.
fn start(arguments: &[OsString], stdin: OwnedFd, running: &Arc<()>) -> io::Result<()> {
    if Arc::strong_count(running) > MOST {
        return Err(io::Error::other(format!("{MOST} helpers run already")));
    }
    let mut child = Command::new("/proc/self/exe")
        .args(arguments)
        .stdin(Stdio::from(stdin))
        .stdout(Stdio::null())
        .process_group(0)
        .spawn()?;
    // It ends by itself once its socket is closed, and somebody has to take notice.
    let running = running.clone();
    std::thread::spawn(move || {
        // Its status says nothing.
        let _ = child.wait();
        drop(running);
    });
    Ok(())
}
