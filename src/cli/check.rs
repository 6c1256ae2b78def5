//! `check`: the preflight alone.

use clap::Args;
use tokio::task::LocalSet;

use super::{Arguments, FAILED, Failure, log, output, runtime};
use crate::admin::client::Client;
use crate::admin::{CheckReport, CheckRequest};
use crate::daemon;
use crate::preflight::{Certainty, Finding};

#[derive(Args, Debug)]
pub(super) struct CheckArguments {
    /// Certificates by name, hostnames or addresses; every certificate if none is given
    names: Vec<String>,
    /// Print JSON: an object with `issuer`, `issuers`, `vantage`, `gate-problem`, `warnings` and `findings`;
    /// each finding has `identifier`, `address` (null where it is about the name), `issuer` (null where it is
    /// about every one), `cause`, `certainty` (fine, warning or certain), `seen`, `means` and `remedy`
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, check: &CheckArguments) -> Result<u8, Failure> {
    let configured = arguments.configured()?;
    log::start(arguments, "warn")?;
    let request = CheckRequest { names: check.names.clone(), digest: configured.digest() };
    let runtime = runtime()?;
    let local = LocalSet::new();
    let report = local.block_on(&runtime, async {
        match Client::connect(configured.socket()).await? {
            Some(daemon) => Ok::<_, Failure>(daemon.check(&request).await?),
            None => Ok(daemon::check_once(configured.config()?, &request).await?),
        }
    });
    drop(local);
    runtime.shutdown_background();
    let report = report?;
    if check.json {
        output::json(&report);
    } else {
        output::say(&describe(&report, output::is_watched()));
    }
    Ok(if report.is_certain() { FAILED } else { 0 })
}

/// The report for a person.
fn describe(report: &CheckReport, colours: bool) -> String {
    let mut text = String::new();
    if let Some(problem) = &report.gate_problem {
        text.push_str(&format!("{}the gate: {problem}\n\n", mark(Certainty::Certain, colours)));
    }
    for warning in &report.warnings {
        text.push_str(&format!("{}{warning}\n\n", mark(Certainty::Warning, colours)));
    }
    let mut name = None;
    for finding in &report.findings {
        if name.replace(&finding.identifier) != Some(&finding.identifier) {
            text.push_str(&format!("{}\n", finding.identifier));
        }
        text.push_str(&paragraph(finding, colours));
    }
    if report.passes_over() {
        text.push_str("\nan issuer that CAA forbids is not asked as long as another one may sign\n");
    }
    text.push_str(&format!("\n{}\n", report.vantage));
    text
}

fn paragraph(finding: &Finding, colours: bool) -> String {
    let Finding { seen, means, remedy, certainty, cause, issuer, .. } = finding;
    let at = issuer.as_ref().map_or_else(String::new, |issuer| format!("at {issuer}: "));
    let mark = mark(*certainty, colours);
    let mut text = format!("  {mark}{at}{seen} [{}]\n    means: {means}\n", cause.name());
    if !remedy.is_empty() {
        text.push_str(&format!("    to do: {remedy}\n"));
    }
    text
}

fn mark(certainty: Certainty, colours: bool) -> String {
    let (colour, word) = match certainty {
        Certainty::Fine => (32, "ok"),
        Certainty::Warning => (33, "warning"),
        Certainty::Certain => (31, "WOULD FAIL"),
    };
    if colours { format!("\x1b[{colour}m{word}\x1b[0m: ") } else { format!("{word}: ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preflight::Cause;

    #[test]
    fn a_report_reads_as_sentences() {
        let finding = |certainty, remedy: &str| Finding {
            identifier: "a.example".parse().unwrap(),
            address: Some([192, 0, 2, 1].into()),
            issuer: None,
            cause: Cause::NotFound,
            certainty,
            seen: "192.0.2.1:80 answered 404".to_owned(),
            means: "another program".to_owned(),
            remedy: remedy.to_owned(),
        };
        let report = CheckReport {
            issuer: "letsencrypt".to_owned(),
            issuers: vec!["letsencrypt".to_owned(), "zerossl".to_owned()],
            vantage: "from inside".to_owned(),
            gate_problem: Some("port 80 is taken".to_owned()),
            warnings: vec!["the CA is away".to_owned()],
            findings: vec![finding(Certainty::Certain, "pass it on"), finding(Certainty::Fine, "")],
        };
        assert_eq!(
            describe(&report, false),
            "WOULD FAIL: the gate: port 80 is taken\n\n\
             warning: the CA is away\n\n\
             a.example\n\
             \x20 WOULD FAIL: 192.0.2.1:80 answered 404 [not-found]\n\
             \x20   means: another program\n\
             \x20   to do: pass it on\n\
             \x20 ok: 192.0.2.1:80 answered 404 [not-found]\n\
             \x20   means: another program\n\
             \nfrom inside\n"
        );
        let caa = Finding { issuer: Some("zerossl".to_owned()), ..finding(Certainty::Certain, "") };
        let passed_over = CheckReport { gate_problem: None, warnings: vec![], findings: vec![caa], ..report };
        assert!(!passed_over.is_certain());
        assert_eq!(
            describe(&passed_over, false),
            "a.example\n\
             \x20 WOULD FAIL: at zerossl: 192.0.2.1:80 answered 404 [not-found]\n\
             \x20   means: another program\n\
             \nan issuer that CAA forbids is not asked as long as another one may sign\n\
             \nfrom inside\n"
        );
    }
}
