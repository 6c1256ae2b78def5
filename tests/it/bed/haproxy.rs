//! A real HAProxy that ends TLS with PEM files, and has a runtime API.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::client::is_open;
use super::process::Process;
use super::{Bed, until};

/// A running HAProxy with a configuration of its own, in master-worker mode and in the foreground.
pub(crate) struct Haproxy {
    pub(crate) process: Process,
    pub(crate) config: PathBuf,
    port: u16,
}

impl Haproxy {
    /// A TLS server of these files, each with key and chain, started by what `program` makes of its name.
    pub(crate) fn start(bed: &Bed, program: &dyn Fn(&str) -> Command, combined: &[&Path], port: u16) -> Self {
        Self::with_mode(bed, program, combined, port, &["-W"])
    }

    /// As [`Self::start`], with the arguments that choose its mode.
    pub(crate) fn with_mode(
        bed: &Bed,
        program: &dyn Fn(&str) -> Command,
        combined: &[&Path],
        port: u16,
        mode: &[&str],
    ) -> Self {
        let (socket, user_socket) = (Self::socket(bed), Self::user_socket(bed));
        let files: String = combined.iter().map(|file| format!(" crt {file:?}")).collect();
        let config = bed.write(
            "haproxy/haproxy.cfg",
            format!(
                "global\n  stats socket {} mode 600 level admin\n  stats socket {} mode 600 level user\n\
                 defaults\n  mode http\n  timeout connect 5s\n  timeout client 5s\n  timeout server 5s\n\
                 frontend tls\n  bind 127.0.0.1:{port} ssl{files}\n  \
                 http-request return status 200 content-type text/plain string \"haproxy\\n\"\n",
                socket.display(),
                user_socket.display()
            ),
        );
        let mut command = program("/usr/sbin/haproxy");
        let process = Process::start("haproxy", command.args(mode).arg("-f").arg(&config));
        // Its sockets come to their names after its ports.
        let has_sockets = || [&socket, &user_socket].iter().all(|path| UnixStream::connect(path).is_ok());
        until("haproxy listens", || (is_open(port) && has_sockets()).then_some(()));
        Self { process, config, port }
    }

    /// Serves a PEM file with chain and key where a PROXY header comes ahead of TLS.
    pub(crate) fn behind_a_proxy(bed: &Bed, combined: &Path) -> Self {
        let port = bed.port();
        let config = bed.write(
            "haproxy.cfg",
            format!(
                "global\n  ssl-default-bind-options ssl-min-ver TLSv1.2\n\
                 defaults\n  mode http\n  timeout client 10s\n  timeout connect 10s\n  timeout server 10s\n\
                 frontend tls\n  bind 127.0.0.1:{port} accept-proxy ssl crt {}\n  http-request return status 204\n",
                combined.display()
            ),
        );
        let mut command = Command::new("/usr/sbin/haproxy");
        let process = Process::start("haproxy", command.arg("-db").arg("-f").arg(&config));
        until("haproxy listens", || is_open(port).then_some(()));
        Self { process, config, port }
    }

    /// Where its runtime API is, with all rights.
    pub(crate) fn socket(bed: &Bed) -> PathBuf {
        bed.path("haproxy/admin.sock")
    }

    /// Where its runtime API is for those who may only look.
    pub(crate) fn user_socket(bed: &Bed) -> PathBuf {
        bed.path("haproxy/user.sock")
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The command that makes it read its files again, as a person would configure it.
    pub(crate) fn reload_command(&self) -> Vec<String> {
        ["/bin/kill", "-USR2", &self.process.id().to_string()].map(str::to_owned).to_vec()
    }
}

#[test]
fn haproxy_reads_its_files_again() {
    super::needs!("haproxy", "openssl");
    let bed = Bed::new();
    super::assert_reads_again(&bed, |files| {
        let haproxy = Haproxy::start(&bed, &|p| Command::new(p), &[&files.combined], bed.port());
        (haproxy.port(), haproxy.reload_command(), Box::new(haproxy))
    });
}
