//! The helper as a unit of its own, asked as the main process asks it: the real binary, among real servers
//! that run in a mount namespace of the test's own.

mod commands;
mod copies;
mod killed;
mod peers;
mod runtime_api;
mod servers;

use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::Signal;
use wicketgate::certificate::Certificate;
use wicketgate::config::{Config, Flags};
use wicketgate::deploy::{DeployError, Helper};
use wicketgate::store::Store;

use crate::bed::namespace::Mounts;
use crate::bed::pki::{Pki, Seen, read_chain_file};
use crate::bed::process::Process;
use crate::bed::wicketgate::{PROGRAM, clean};
use crate::bed::{Bed, set_mode, until};

/// The certificate's only name, and so its own.
const NAME: &str = "www.example.test";

/// A helper, its configuration, a state directory, and the main process's side.
struct Rig {
    mounts: Mounts,
    config: Config,
    process: Process,
    client: Helper,
    runtime: tokio::runtime::Runtime,
}

impl Rig {
    /// With one certificate that goes to these servers, and their tables.
    fn start(bed: &Bed, deploy: &[&str], tables: &str) -> Self {
        let certificates = format!("[[certificate]]\nhostnames = [\"{NAME}\"]\ndeploy = {deploy:?}\n");
        Self::with(bed, &format!("{certificates}{tables}"))
    }

    /// With these certificates and tables.
    fn with(bed: &Bed, tables: &str) -> Self {
        let mounts = Mounts::start();
        let text = format!(
            "state-dir = {:?}\n[acme]\nissuer = \"https://127.0.0.1:9/directory\"\nterms-agreed = true\n\
             [admin]\nsocket = {:?}\n[helper]\nsocket = {:?}\n{tables}",
            state(bed),
            bed.path("admin.sock"),
            bed.path("helper.sock"),
        );
        let file = bed.write("wicketgate.toml", text);
        let config = load(&file);
        Store::open(&config.state_dir).unwrap();
        let process = helper(&mounts, &file);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { mounts, config, process, client: Helper::new(Vec::new()), runtime }
    }

    /// Stores another certificate as the live version; its number and its leaf.
    fn renew(&self, bed: &Bed) -> (u32, Seen) {
        self.renew_for(bed, NAME)
    }

    /// As [`Self::renew`], for the certificate of that name.
    fn renew_for(&self, bed: &Bed, name: &str) -> (u32, Seen) {
        let pki = Pki::new(bed.dir(), "renewed", &[name]);
        let read = |path: &PathBuf| std::fs::read_to_string(path).unwrap();
        let certificate = Certificate::stored(&read(&pki.chain), &read(&pki.key)).unwrap();
        let bundle = certificate.into();
        let version = Store::open(&self.config.state_dir).unwrap().save(name, &bundle).unwrap();
        (version, read_chain_file(&pki.chain)[0].clone())
    }

    fn check(&self, service: &str) -> Result<bool, String> {
        self.runtime.block_on(self.client.check(&self.config, service)).map_err(sentence)
    }

    fn reload(&self, service: &str) -> Result<(), String> {
        self.reload_for(service, &[NAME])
    }

    fn reload_for(&self, service: &str, names: &[&str]) -> Result<(), String> {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        self.runtime.block_on(self.client.reload(&self.config, service, &names)).map_err(sentence)
    }

    fn is_running(&self, service: &str) -> Result<Option<bool>, String> {
        self.runtime.block_on(self.client.is_running(&self.config, service)).map_err(sentence)
    }

    fn start_server(&self, service: &str) -> Result<bool, String> {
        self.runtime.block_on(self.client.start_server(&self.config, service)).map_err(sentence)
    }

    fn copy(&self, service: &str, version: u32) -> Result<(), String> {
        self.runtime.block_on(self.client.copy(&self.config, service, NAME, version, false)).map_err(sentence)
    }

    /// As [`Self::copy`], after a deploy that was cut short.
    fn copy_on(&self, service: &str, version: u32) -> Result<(), String> {
        self.runtime.block_on(self.client.copy(&self.config, service, NAME, version, true)).map_err(sentence)
    }

    fn put_back(&self, service: &str, version: u32) -> Result<bool, String> {
        self.runtime.block_on(self.client.put_back(&self.config, service, NAME, version)).map_err(sentence)
    }
}

fn helper(mounts: &Mounts, file: &Path) -> Process {
    let mut command = mounts.command(PROGRAM);
    clean(&mut command);
    let process = Process::start("wicketgate helper", command.arg("--config").arg(file).arg("helper"));
    process.wait_for_line("listening on");
    process
}

fn sentence(error: DeployError) -> String {
    error.to_string()
}

fn state(bed: &Bed) -> PathBuf {
    bed.path("state")
}

fn load(file: &Path) -> Config {
    Config::load(Some(file), [], &Flags::default()).unwrap()
}
