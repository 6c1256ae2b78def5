//! `config check` and `config example`.

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{Arguments, CONFIGURATION, Failure, output};
use crate::config::{Config, OpeningWay};

#[derive(Subcommand, Debug)]
pub(super) enum ConfigCommand {
    /// Say what is wrong with the configuration, or that nothing is
    Check(CheckArguments),
    /// Print an example with every key
    Example,
}

#[derive(Args, Debug)]
pub(super) struct CheckArguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What a check found.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Finding {
    ok: bool,
    errors: Vec<String>,
    warnings: Vec<String>,
    /// What is right and leaves a risk.
    notes: Vec<String>,
    certificates: Vec<String>,
    digest: Option<String>,
}

pub(super) fn run(arguments: &Arguments, command: &ConfigCommand) -> Result<u8, Failure> {
    let ConfigCommand::Check(check) = command else {
        output::say(Config::EXAMPLE);
        return Ok(0);
    };
    let loaded = arguments.load();
    if !check.json {
        let config = loaded?;
        for warning in &config.warnings {
            output::complain(&format!("warning: {warning}"));
        }
        risks(&config).iter().for_each(|risk| output::line(&format!("note: {risk}")));
        output::line(&summary(&config));
        return Ok(0);
    }
    let (finding, code) = match loaded {
        Ok(config) => {
            let certificates = config.certificates.iter().map(|c| c.name.clone()).collect();
            let finding = Finding {
                ok: true,
                errors: Vec::new(),
                notes: risks(&config),
                warnings: config.warnings,
                certificates,
                digest: Some(config.digest),
            };
            (finding, 0)
        }
        Err(e) => {
            let errors = e.problems().iter().map(ToString::to_string).collect();
            let nothing = Vec::new();
            let finding = Finding {
                ok: false,
                errors,
                warnings: nothing.clone(),
                notes: nothing.clone(),
                certificates: nothing,
                digest: None,
            };
            (finding, CONFIGURATION)
        }
    };
    output::json(&finding);
    Ok(code)
}

/// What openings by commands leave to chance.
fn risks(config: &Config) -> Vec<String> {
    let by_command =
        config.gate.openings.iter().enumerate().filter_map(|(place, opening)| match &opening.way {
            OpeningWay::Commands { open, .. } => Some((place, open)),
            OpeningWay::Nftables { .. } => None,
        });
    let risk = |(place, open): (usize, &Vec<String>)| {
        let program = open.first().map(String::as_str).unwrap_or_default();
        format!(
            "opening {} (`{program}`) is shut by a command: should wicketgate and its helper be killed at once, or the machine lose its power, in the middle of an order, it stays open until the service manager's stop command or the next start shuts it; where the command has a timeout of its own, use it, or use a set of nftables, which the kernel shuts by itself",
            place + 1
        )
    };
    by_command.map(risk).collect()
}

fn summary(config: &Config) -> String {
    let addresses =
        |list: &[std::net::SocketAddr]| list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let names: Vec<_> = config.certificates.iter().map(|c| c.name.as_str()).collect();
    let certificates = match names.as_slice() {
        [] => "no certificate".to_owned(),
        [name] => format!("1 certificate ({name}) from {}", config.acme.issuer.name()),
        names => {
            format!("{} certificates ({}) from {}", names.len(), names.join(", "), config.acme.issuer.name())
        }
    };
    let mut text =
        format!("the configuration is good: {certificates}, the gate on {}", addresses(&config.gate.listen),);
    if let Some(front) = &config.front {
        text.push_str(&format!(", the front on {}", addresses(&front.listen)));
    }
    text
}
