//! `config check` and `config example`.

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{Arguments, CONFIGURATION, Failure, output};
use crate::config::Config;

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
        output::line(&summary(&config));
        return Ok(0);
    }
    let (finding, code) = match loaded {
        Ok(config) => {
            let certificates = config.certificates.iter().map(|c| c.name.clone()).collect();
            let finding = Finding {
                ok: true,
                errors: Vec::new(),
                warnings: config.warnings,
                certificates,
                digest: Some(config.digest),
            };
            (finding, 0)
        }
        Err(e) => {
            let errors = e.problems().iter().map(ToString::to_string).collect();
            let nothing = Vec::new();
            let finding =
                Finding { ok: false, errors, warnings: nothing.clone(), certificates: nothing, digest: None };
            (finding, CONFIGURATION)
        }
    };
    output::json(&finding);
    Ok(code)
}

fn summary(config: &Config) -> String {
    let addresses =
        |list: &[std::net::SocketAddr]| list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let names: Vec<_> = config.certificates.iter().map(|c| c.name.as_str()).collect();
    let mut text = format!(
        "the configuration is good: {} certificate{} ({}) from {}, the gate on {}",
        names.len(),
        if names.len() == 1 { "" } else { "s" },
        names.join(", "),
        config.acme.issuer.name(),
        addresses(&config.gate.listen),
    );
    if let Some(front) = &config.front {
        text.push_str(&format!(", the front on {}", addresses(&front.listen)));
    }
    text
}
