//! The command line: arguments, then one file a command; every error ends here, as one message and one
//! exit code (0 well, 1 failed, 2 usage, 75 try again later, 78 configuration).

mod challenge;
mod check;
mod config;
mod deploy;
mod doctor;
mod following;
mod import;
mod log;
mod notify;
mod openings;
mod output;
mod rehearse;
mod reload;
mod renew;
mod run;
mod status;
mod verify;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::admin::AdminError;
use crate::admin::client::ClientError;
use crate::config::{Config, ConfigError, Flags, environment as config_environment};
use crate::daemon::{CheckError, DaemonError, OnceError, Others};
use crate::deploy::helper::ListenError;
use crate::renewal::{RehearsalRefused, UnknownNames};
use crate::store::StoreError;

/// Answers ACME challenges on port 80 and redirects the rest, obtains and renews certificates, and swaps
/// them in while they are served.
#[derive(Parser, Debug)]
#[command(name = "wicketgate", version, propagate_version = true, after_help = EXIT_CODES)]
struct Arguments {
    /// Configuration file [default: /etc/wicketgate/wicketgate.toml where it exists]
    #[arg(long, short, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// How log lines look
    #[arg(long, value_name = "FORMAT", global = true, default_value = "text")]
    log_format: log::Format,
    /// error, warn, info, debug or trace, also per module, as in `info,wicketgate::gate=debug` [default:
    /// info for `run`, warn for all else]
    #[arg(long, value_name = "LEVEL", global = true)]
    log_level: Option<String>,
    #[command(flatten)]
    flags: Flags,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 all well; 1 something that was asked for failed; 2 usage; 75 try again later; 78 configuration.";

/// The first argument of the process that wicketgate starts as its helper; the rest are its master's.
const HELPER: &str = "helper-of";
/// That of the process that starts helpers.
const STARTER: &str = "starter-of";

#[derive(Subcommand, Debug)]
enum Command {
    /// Hold port 80 (and the TLS front, where configured), obtain what is missing and renew in time
    Run,
    /// Obtain or renew what is due, once; through the running daemon where there is one, else with port 80
    /// open only while an order is pending
    Renew(renew::RenewArguments),
    /// Have servers take what is stored once more: copy, test, reload, and see that it is served
    Deploy(deploy::DeployArguments),
    /// Take the whole way to a certificate with a CA that does not matter: open, listen, order, store,
    /// reload; nothing is left behind
    Rehearse(rehearse::RehearseArguments),
    /// Look at each name and address as the CA would, and tell what would fail and what to do
    Check(check::CheckArguments),
    /// Shake hands where certificates are deployed to, or anywhere else, and tell whether the right one is shown
    /// with its whole chain
    Verify(verify::VerifyArguments),
    /// Read the configurations of nginx, Apache, Squid, HAProxy and hitch, and tell what is wrong with their
    /// certificates, hostnames and port 80; changes nothing
    Doctor(doctor::DoctorArguments),
    /// Show certificates, what comes next and when, and what failed
    Status(status::StatusArguments),
    /// Have the running daemon read its configuration again; a wrong one changes nothing
    Reload,
    /// Run commands and write files for a daemon that may not, asked on the configured socket or one from
    /// systemd. Where none is configured, the daemon starts a helper by itself
    Helper,
    /// Try the ways of [notify] to tell a person
    Notify(notify::NotifyArguments),
    /// Take over accounts, certificates and settings from another ACME client, whose files are only read
    #[command(subcommand)]
    Import(import::ImportCommand),
    /// Check the configuration, or print an example of one
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Have the running gate answer challenges of another ACME client (certbot's manual hooks, say)
    #[command(subcommand)]
    Challenge(challenge::ChallengeCommand),
    /// Show what was opened before the gate for an order, or shut it
    #[command(subcommand)]
    Openings(openings::OpeningsCommand),
    /// Print a shell's completions
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the man page, of the program or of one command
    Man {
        /// The command
        command: Vec<String>,
        /// Write the pages of the program and of all commands into this folder instead
        #[arg(long, value_name = "FOLDER", conflicts_with = "command")]
        all: Option<PathBuf>,
    },
}

/// An error at the edge, with its exit code.
#[derive(Debug)]
struct Failure {
    code: u8,
    message: String,
}

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const LATER: u8 = 75;
const CONFIGURATION: u8 = 78;

impl Failure {
    fn new(code: u8, message: impl ToString) -> Self {
        Self { code, message: message.to_string() }
    }
}

impl From<ConfigError> for Failure {
    fn from(e: ConfigError) -> Self {
        Self::new(CONFIGURATION, e)
    }
}

impl From<StoreError> for Failure {
    fn from(e: StoreError) -> Self {
        let code = if matches!(e, StoreError::Locked { .. }) { LATER } else { FAILED };
        Self::new(code, e)
    }
}

impl From<DaemonError> for Failure {
    fn from(e: DaemonError) -> Self {
        match e {
            DaemonError::Store(e) => e.into(),
            DaemonError::TicketKeys { .. } => Self::new(CONFIGURATION, e),
            other => Self::new(FAILED, other),
        }
    }
}

impl From<OnceError> for Failure {
    fn from(e: OnceError) -> Self {
        match e {
            OnceError::Daemon(e) => e.into(),
            OnceError::Names(e) | OnceError::Rehearsal(RehearsalRefused::Names(e)) => e.into(),
            OnceError::Rehearsal(e) => Self::new(FAILED, e),
        }
    }
}

macro_rules! fails_with {
    ($code:expr, $($error:ty),+) => {
        $(impl From<$error> for Failure {
            fn from(e: $error) -> Self {
                Self::new($code, e)
            }
        })+
    };
}
fails_with!(FAILED, AdminError, ListenError, std::io::Error);
fails_with!(USAGE, UnknownNames);

impl From<ClientError> for Failure {
    fn from(e: ClientError) -> Self {
        let code = if matches!(e, ClientError::Unknown(_)) { USAGE } else { FAILED };
        Self::new(code, e)
    }
}

impl From<CheckError> for Failure {
    fn from(e: CheckError) -> Self {
        let code = if matches!(e, CheckError::Unknown { .. }) { USAGE } else { FAILED };
        Self::new(code, e)
    }
}

/// Runs the program.
pub fn main() -> ExitCode {
    // What we were started with open is nothing that a command which we start should find.
    close_fds::CloseFdsBuilder::new().cloexecfrom(3);
    let mut given = std::env::args_os().skip(1);
    match given.next() {
        Some(first) if first == HELPER => return conclude(run::helper(given)),
        Some(first) if first == STARTER => return conclude(run::starter(given)),
        _ => {}
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(e) => {
            let code = u8::try_from(e.exit_code()).unwrap_or(2);
            // Where even this cannot be printed, the exit code remains.
            let _ = e.print();
            return ExitCode::from(code);
        }
    };
    conclude(dispatch(&arguments))
}

fn conclude(result: Result<u8, Failure>) -> ExitCode {
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            output::complain(&failure.message);
            ExitCode::from(failure.code)
        }
    }
}

fn dispatch(arguments: &Arguments) -> Result<u8, Failure> {
    match &arguments.command {
        Command::Run => run::run(arguments),
        Command::Renew(renew) => renew::run(arguments, renew),
        Command::Deploy(deploy) => deploy::run(arguments, deploy),
        Command::Rehearse(rehearse) => rehearse::run(arguments, rehearse),
        Command::Check(check) => check::run(arguments, check),
        Command::Verify(verify) => verify::run(arguments, verify),
        Command::Doctor(doctor) => doctor::run(arguments, doctor),
        Command::Status(status) => status::run(arguments, status),
        Command::Reload => reload::run(arguments),
        Command::Helper => run::helper_unit(arguments),
        Command::Notify(notify) => notify::run(arguments, notify),
        Command::Import(command) => import::run(arguments, command),
        Command::Config(command) => config::run(arguments, command),
        Command::Challenge(command) => challenge::run(arguments, command),
        Command::Openings(command) => openings::run(arguments, command),
        Command::Completions { shell } => {
            let mut command = Arguments::command();
            let mut text = Vec::new();
            clap_complete::generate(*shell, &mut command, "wicketgate", &mut text);
            output::say(&String::from_utf8_lossy(&text));
            Ok(0)
        }
        Command::Man { all: Some(folder), .. } => {
            clap_mangen::generate_to(Arguments::command(), folder)
                .map_err(|e| Failure::new(FAILED, format!("cannot write to {}: {e}", folder.display())))?;
            Ok(0)
        }
        Command::Man { command, all: None } => {
            let mut program = Arguments::command();
            program.build();
            let page = match command.as_slice() {
                [] => program,
                names => {
                    let name = names.join(" ");
                    subcommand(&program, &name).cloned().ok_or_else(|| {
                        Failure::new(
                            USAGE,
                            format!("there is no command `{name}`; `wicketgate help` lists them"),
                        )
                    })?
                }
            };
            let mut text = Vec::new();
            clap_mangen::Man::new(page).render(&mut text)?;
            output::say(&String::from_utf8_lossy(&text));
            Ok(0)
        }
    }
}

impl Arguments {
    /// The configuration that these arguments name, read afresh.
    fn load(&self) -> Result<Config, ConfigError> {
        let file = Config::file(self.config.clone());
        Config::load(file.as_deref(), config_environment(), &self.flags)
    }

    /// The state directory of a configuration that may be wrong in all else.
    fn state_dir(&self) -> PathBuf {
        let file = Config::file(self.config.clone());
        Config::state_dir_of(file.as_deref(), config_environment(), &self.flags)
    }

    /// Where a daemon listens whose configuration is not known.
    fn usual_socket(&self) -> PathBuf {
        let told = self.flags.admin_socket.clone().or_else(|| std::env::var("WICKETGATE_ADMIN__SOCKET").ok());
        told.as_deref().unwrap_or(Config::DEFAULT_SOCKET).into()
    }

    /// What is configured here, its warnings printed; nothing at all is enough to ask a daemon that was started with
    /// flags.
    fn configured(&self) -> Result<Configured, ConfigError> {
        match self.load_aloud() {
            Ok(config) => Ok(Configured::Here(Box::new(config))),
            Err(e) if e.is_absent() => Ok(Configured::Nothing { socket: self.usual_socket(), e }),
            Err(e) => Err(e),
        }
    }

    /// As [`Arguments::load`], with its warnings printed.
    fn load_aloud(&self) -> Result<Config, ConfigError> {
        let config = self.load()?;
        for warning in &config.warnings {
            output::complain(&format!("warning: {warning}"));
        }
        Ok(config)
    }
}

/// What a command knows that a daemon may do in its place.
enum Configured {
    Here(Box<Config>),
    Nothing { socket: PathBuf, e: ConfigError },
}

impl Configured {
    /// Where the daemon listens, if one runs.
    fn socket(&self) -> &Path {
        match self {
            Self::Here(config) => &config.admin.socket,
            Self::Nothing { socket, .. } => socket,
        }
    }

    /// What the daemon has to work by; its own, where nothing is known here.
    fn digest(&self) -> Option<String> {
        match self {
            Self::Here(config) => Some(config.digest.clone()),
            Self::Nothing { .. } => None,
        }
    }

    /// To do it oneself.
    fn config(self) -> Result<Config, ConfigError> {
        match self {
            Self::Here(config) => Ok(*config),
            Self::Nothing { e, .. } => Err(e),
        }
    }
}

/// A command by its words, with spaces or hyphens between them: `import certbot`, `import-certbot`.
fn subcommand<'a>(program: &'a clap::Command, name: &str) -> Option<&'a clap::Command> {
    program.get_subcommands().find_map(|command| match name.strip_prefix(command.get_name())? {
        "" => Some(command),
        rest => subcommand(command, rest.strip_prefix([' ', '-'])?),
    })
}

/// A runtime for a command: one thread, with timers and sockets.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// The arguments with which the helper finds the same configuration.
fn helper_arguments() -> Vec<OsString> {
    arguments_of(HELPER, std::env::args_os().skip(1))
}

/// The arguments of the process that starts helpers.
fn starter_arguments() -> Vec<OsString> {
    arguments_of(STARTER, std::env::args_os().skip(1))
}

/// Both of them.
fn others() -> Others {
    Others { helper: helper_arguments(), starter: starter_arguments() }
}

fn arguments_of(first: &str, ours: impl Iterator<Item = OsString>) -> Vec<OsString> {
    std::iter::once(OsString::from(first)).chain(ours).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn commands_by_their_words() {
        let program = Arguments::command();
        for (name, expected) in [
            ("run", Some("run")),
            ("import certbot", Some("certbot")),
            ("import-certbot", Some("certbot")),
            ("config check", Some("check")),
            ("check", Some("check")),
            ("runaway", None),
            ("import", Some("import")),
            ("import caddy", None),
            ("", None),
        ] {
            let found = subcommand(&program, name).map(clap::Command::get_name);
            assert_eq!(found, expected, "{name}");
        }
    }
}
