//! A real Apache httpd that ends TLS with PEM files.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::client::is_open;
use super::process::Process;
use super::{Bed, until};

/// A running Apache with a configuration of its own, in the foreground.
pub(crate) struct Apache {
    _process: Process,
    pub(crate) config: PathBuf,
    port: u16,
}

impl Apache {
    /// A TLS server of `chain` and `key`, started by what `program` makes of its name.
    pub(crate) fn start(
        bed: &Bed,
        program: &dyn Fn(&str) -> Command,
        chain: &Path,
        key: &Path,
        port: u16,
    ) -> Self {
        let dir = bed.path("apache");
        std::fs::create_dir_all(&dir).unwrap();
        let modules: String = ["mpm_event", "authz_core", "ssl"]
            .map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"))
            .concat();
        let (folder, chain, key) = (dir.display(), chain.display(), key.display());
        let config = bed.write(
            "apache/apache.conf",
            format!(
                "ServerRoot {folder}\nDefaultRuntimeDir {folder}\nPidFile {folder}/pid\n\
                 ErrorLog {folder}/error.log\n{modules}User www-data\nGroup www-data\n\
                 ServerName www.example.test\nStartServers 1\nServerLimit 2\nThreadsPerChild 5\n\
                 MinSpareThreads 1\nMaxSpareThreads 6\nMaxRequestWorkers 10\nListen 127.0.0.1:{port}\n\
                 <VirtualHost 127.0.0.1:{port}>\nSSLEngine on\nSSLCertificateFile {chain}\n\
                 SSLCertificateKeyFile {key}\n</VirtualHost>\n"
            ),
        );
        let mut command = program("/usr/sbin/apache2");
        let process = Process::start("apache2", command.args(["-D", "FOREGROUND", "-f"]).arg(&config));
        until("apache2 listens", || is_open(port).then_some(()));
        Self { _process: process, config, port }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The command that makes it read its files again, as a person would configure it.
    pub(crate) fn reload_command(&self) -> Vec<String> {
        let config = self.config.to_str().expect("a path in UTF-8");
        ["/usr/sbin/apache2", "-f", config, "-k", "graceful"].map(str::to_owned).to_vec()
    }
}

#[test]
fn apache_reads_its_files_again() {
    super::needs!("apache2", "openssl");
    let bed = Bed::new();
    super::assert_reads_again(&bed, |files| {
        let apache = Apache::start(&bed, &|p| Command::new(p), &files.chain, &files.key, bed.port());
        (apache.port(), apache.reload_command(), Box::new(apache))
    });
}
