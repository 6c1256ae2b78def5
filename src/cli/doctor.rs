//! `doctor`: what is wrong in the servers around, without changing anything.

use std::path::PathBuf;

use clap::Args;

use super::{Arguments, FAILED, Failure, output};
use crate::clock;
use crate::config::{Config, DEFAULT_FILE, environment};
use crate::doctor::finding::{Finding, How, Rule, Severity};
use crate::doctor::ours::{Configuration, Ours};
use crate::doctor::{self, Report};

#[derive(Args, Debug)]
pub(super) struct DoctorArguments {
    /// Print JSON: an object with `root`, `port-80`, `servers`, `findings` and `rules`; the README has their
    /// fields
    #[arg(long)]
    json: bool,
    /// Look at the installation below this folder in place of `/` (of a container, say); the servers' paths
    /// and wicketgate's own start there
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments, doctor: &DoctorArguments) -> Result<u8, Failure> {
    if let Some(root) = &doctor.root
        && !root.is_dir()
    {
        return Err(Failure::new(FAILED, format!("{} is no folder that can be looked at", root.display())));
    }
    let report = doctor::examine(doctor.root.as_deref(), &ours(arguments, doctor), clock::now());
    if doctor.json {
        output::json(&report);
    } else {
        output::say(&describe(&report, output::is_watched()));
    }
    Ok(if report.has_problems() { FAILED } else { 0 })
}

fn ours(arguments: &Arguments, doctor: &DoctorArguments) -> Ours {
    let below_root = doctor.root.as_ref().map(|root| root.join(DEFAULT_FILE.trim_start_matches('/')));
    let file = match (&arguments.config, below_root) {
        (Some(named), _) => Some(named.clone()),
        (None, Some(file)) => Some(file).filter(|file| file.try_exists().unwrap_or(true)),
        (None, None) => Config::file(None),
    };
    match Config::load(file.as_deref(), environment(), &arguments.flags) {
        Ok(config) => Ours::from(&config),
        Err(_) if file.is_none() => Ours::unknown(Configuration::Missing),
        Err(e) => Ours::unknown(Configuration::Wrong(e.problems().iter().map(ToString::to_string).collect())),
    }
}

/// The report for a person.
fn describe(report: &Report, colours: bool) -> String {
    let mut text = String::new();
    let general: Vec<_> = report.findings.iter().filter(|finding| finding.server.is_none()).collect();
    if !general.is_empty() {
        text.push_str("this machine\n");
        general.iter().for_each(|finding| text.push_str(&paragraph(finding, colours)));
    }
    for looked in &report.servers {
        let plural =
            |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
        let (files, sites) = (plural(looked.files, "file"), plural(looked.sites, "site"));
        text.push_str(&format!("\n{}, from {} ({files}, {sites})\n", looked.server.name(), looked.file));
        let own: Vec<_> = report.findings.iter().filter(|f| f.server == Some(looked.server)).collect();
        own.iter().for_each(|finding| text.push_str(&paragraph(finding, colours)));
        if own.iter().all(|finding| finding.severity == Severity::Fine) {
            text.push_str(&format!("  {}nothing wrong was found\n", mark(Severity::Fine, colours)));
        }
        let rules: Vec<_> = report.rules.iter().filter(|rule| rule.server == looked.server).collect();
        if !rules.is_empty() {
            text.push_str("  the rule that hands challenges to the gate:\n");
            rules.iter().for_each(|rule| text.push_str(&part(rule)));
        }
    }
    let count = |severity| report.findings.iter().filter(|f| f.severity == severity).count();
    let closing = match (count(Severity::Problem), count(Severity::Warning)) {
        (0, 0) => "nothing wrong was found".to_owned(),
        (problems, warnings) => format!("problems: {problems}, warnings: {warnings}"),
    };
    text.push_str(&format!("\n{closing}; nothing was changed\n"));
    text
}

fn paragraph(finding: &Finding, colours: bool) -> String {
    let place = finding.place.as_ref().map_or_else(String::new, |place| format!("{place}: "));
    let mut text =
        format!("  {}{place}{} [{}]\n", mark(finding.severity, colours), finding.seen, finding.cause);
    if !finding.means.is_empty() {
        text.push_str(&format!("    means: {}\n", finding.means));
    }
    if !finding.remedy.is_empty() {
        text.push_str(&format!("    to do: {}\n", finding.remedy));
    }
    text
}

fn part(rule: &Rule) -> String {
    let places = rule.places.join(", ");
    let how = match rule.how {
        How::Within => format!("as the first lines of the block that begins at {places}"),
        How::Above => format!("above {places}"),
        How::InsteadOf => format!("in place of the line {places}"),
        How::AtEnd => format!("at the end of {places}"),
    };
    let mut text = format!("    {how}:\n");
    rule.lines.lines().for_each(|line| text.push_str(&format!("      {line}\n")));
    if !rule.note.is_empty() {
        text.push_str(&format!("    {}\n", rule.note));
    }
    text
}

fn mark(severity: Severity, colours: bool) -> String {
    let (colour, word) = match severity {
        Severity::Fine => (32, "ok"),
        Severity::Warning => (33, "warning"),
        Severity::Problem => (31, "PROBLEM"),
    };
    if colours { format!("\x1b[{colour}m{word}\x1b[0m: ") } else { format!("{word}: ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Looked;
    use crate::doctor::diagnosis::Port80;
    use crate::doctor::finding::Cause;
    use crate::doctor::picture::Server;

    #[test]
    fn a_report_reads_as_sentences() {
        let finding = |server, cause, severity, place: Option<&str>| Finding {
            server,
            cause,
            severity,
            place: place.map(str::to_owned),
            seen: "seen".to_owned(),
            means: "meant".to_owned(),
            remedy: if severity == Severity::Fine { String::new() } else { "done".to_owned() },
        };
        let looked = |server, file: &str| Looked { server, file: file.to_owned(), files: 1, sites: 2 };
        let report = Report {
            root: None,
            port_80: Port80::Free,
            servers: vec![looked(Server::Nginx, "/n"), looked(Server::Squid, "/s")],
            findings: vec![
                finding(None, Cause::Port80Free, Severity::Fine, None),
                finding(Some(Server::Nginx), Cause::LoneLeaf, Severity::Problem, Some("/n:3")),
            ],
            rules: vec![Rule {
                server: Server::Nginx,
                how: How::Within,
                places: vec!["/n:1".to_owned(), "/n:9".to_owned()],
                note: String::new(),
                lines: "a {\n    b\n}\n".to_owned(),
            }],
        };
        let expected = "this machine\n\
            \x20 ok: seen [port-80-free]\n\
            \x20   means: meant\n\
            \nnginx, from /n (1 file, 2 sites)\n\
            \x20 PROBLEM: /n:3: seen [lone-leaf]\n\
            \x20   means: meant\n\
            \x20   to do: done\n\
            \x20 the rule that hands challenges to the gate:\n\
            \x20   as the first lines of the block that begins at /n:1, /n:9:\n\
            \x20     a {\n\
            \x20         b\n\
            \x20     }\n\
            \nSquid, from /s (1 file, 2 sites)\n\
            \x20 ok: nothing wrong was found\n\
            \nproblems: 1, warnings: 0; nothing was changed\n";
        assert_eq!(describe(&report, false), expected);
    }
}
