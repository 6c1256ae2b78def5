//! A mail server that keeps what it gets.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::namespace::Namespace;
use super::pki::Pki;
use super::process::Process;
use super::{Bed, until};

const SCRIPT: &str = include_str!("mail_server.py");

/// A running mail server.
pub(crate) struct MailServer {
    pub(crate) port: u16,
    folder: PathBuf,
    _process: Process,
}

impl MailServer {
    /// `mode` is `plain`, `starttls` or `tls`; with `login` (user, password) it takes nothing without.
    pub(crate) fn start(bed: &Bed, mode: &str, pki: Option<&Pki>, login: Option<(&str, &str)>) -> Self {
        // Its library is the system's, whatever other Python comes first in PATH.
        Self::start_as(bed, Command::new("/usr/bin/python3"), bed.port(), mode, pki, login)
    }

    /// As [`Self::start`], in a network where any port is free.
    pub(crate) fn start_inside(bed: &Bed, network: &Namespace, port: u16, mode: &str, pki: &Pki) -> Self {
        Self::start_as(bed, network.command("/usr/bin/python3"), port, mode, Some(pki), None)
    }

    fn start_as(
        bed: &Bed,
        mut command: Command,
        port: u16,
        mode: &str,
        pki: Option<&Pki>,
        login: Option<(&str, &str)>,
    ) -> Self {
        let folder = bed.path(&format!("mail-{port}"));
        fs::create_dir(&folder).unwrap();
        let script = bed.write("mail_server.py", SCRIPT);
        command.arg("-B").arg(script).arg(port.to_string()).arg(&folder).arg(mode);
        if let Some(pki) = pki {
            command.args([&pki.chain, &pki.key]);
        }
        if let Some((user, password)) = login {
            command.args([user, password]);
        }
        let process = Process::start("the mail server", &mut command);
        process.wait_for_line("listening");
        Self { port, folder, _process: process }
    }

    /// The mails so far, their recipients in the first line.
    pub(crate) fn mails(&self) -> Vec<String> {
        (1..).map_while(|n| fs::read_to_string(self.folder.join(format!("{n}.eml"))).ok()).collect()
    }

    /// Waits for the first mail.
    #[track_caller]
    pub(crate) fn mail(&self) -> String {
        until("a mail comes", || self.mails().into_iter().next())
    }
}
