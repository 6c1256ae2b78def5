//! `status`: how things stand, from the daemon or, where none runs, from disk.

use std::time::SystemTime;

use clap::Args;
use jiff::Timestamp;

use super::{Arguments, FAILED, Failure, output, runtime};
use crate::admin::client::Client;
use crate::admin::{OpeningsState, StatusReport};
use crate::clock;
use crate::config::Config;
use crate::foreign::FilesStatus;
use crate::renewal::{CertificateStatus, Lineages, stored_ledger};
use crate::store::Store;
use crate::words::rough;

#[derive(Args, Debug)]
pub(super) struct StatusArguments {
    /// Print JSON: an object with `pid`, `version`, `since`, `digest` and `gate` of the daemon (null where none
    /// runs), `certificates` and `from-files`; the README has their fields. The exit code is 0 whatever it shows
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, status: &StatusArguments) -> Result<u8, Failure> {
    let config = arguments.load_aloud();
    let socket = match &config {
        Ok(config) => config.admin.socket.clone(),
        // A daemon may run well by an earlier configuration, or by flags that are not repeated here.
        Err(_) => arguments.usual_socket(),
    };
    let report = runtime()?.block_on(async {
        let daemon = Client::connect(&socket).await;
        match (daemon, config) {
            (Ok(Some(daemon)), config) => {
                let report = daemon.status().await?;
                match config {
                    Err(e) if e.is_absent() => {}
                    Err(e) => output::complain(&format!("warning: the daemon runs by another configuration than this one, which is wrong: {e}")),
                    Ok(config) if report.digest.as_ref() != Some(&config.digest) => {
                        output::complain("warning: the daemon runs by another configuration than this one; `wicketgate reload` has it take this one");
                    }
                    Ok(_) => {}
                }
                Ok::<_, Failure>(report)
            }
            (Ok(None), Err(e)) if e.is_absent() => Err(Failure::new(
                FAILED,
                format!("no daemon answers on {}, and {e}", socket.display()),
            )),
            (_, Err(e)) => Err(e.into()),
            (Err(e), Ok(_)) => Err(e.into()),
            (Ok(None), Ok(config)) => from_disk(&config),
        }
    })?;
    if status.json {
        output::json(&report);
    } else {
        output::say(&describe(&report, clock::now()));
    }
    Ok(0)
}

fn from_disk(config: &Config) -> Result<StatusReport, Failure> {
    let store = match Store::open_existing(&config.state_dir) {
        Ok(store) => Some(store),
        Err(_) if !config.state_dir.exists() => None,
        Err(e) => return Err(e.into()),
    };
    let now = clock::now();
    let (lineages, told) = Lineages::load(config, store.as_ref(), false);
    let (ledger, damaged) = stored_ledger(store.as_ref(), now, false);
    for sentence in told.into_iter().chain(damaged) {
        output::complain(&sentence);
    }
    let certificates = lineages.status(store.as_ref(), config, &ledger, now);
    let from_files = config.foreign_certificates.iter().map(|c| FilesStatus::on_disk(c, now)).collect();
    Ok(without_daemon(certificates, from_files))
}

fn without_daemon(certificates: Vec<CertificateStatus>, from_files: Vec<FilesStatus>) -> StatusReport {
    StatusReport {
        pid: None,
        version: None,
        since: None,
        digest: None,
        gate: None,
        sandbox: Vec::new(),
        certificates,
        from_files,
    }
}

/// The report for a person.
fn describe(report: &StatusReport, now: SystemTime) -> String {
    let mut text = match (report.pid, report.since) {
        (Some(pid), Some(since)) => {
            format!(
                "wicketgate {} runs (pid {pid}) since {}\n",
                report.version.as_deref().unwrap_or("?"),
                time(since)
            )
        }
        _ => "no daemon runs; this is what is stored\n".to_owned(),
    };
    if let Some(gate) = report.gate.as_ref().filter(|gate| gate.during_orders) {
        let listen: Vec<_> = gate.listen.iter().map(ToString::to_string).collect();
        let now = if gate.listening { "open now" } else { "shut now" };
        text.push_str(&format!("the gate on {} is open during orders only: {now}\n", listen.join(", ")));
    }
    for part in &report.sandbox {
        text.push_str(&format!("sandbox: {} {}: {}\n", part.part, part.state, part.note));
    }
    match report.gate.as_ref().and_then(|gate| gate.openings.as_ref()) {
        Some(OpeningsState::Shut) => {
            text.push_str("what stands before the gate ([[gate.opening]]) is shut\n");
        }
        Some(OpeningsState::Open) => {
            text.push_str("what stands before the gate ([[gate.opening]]) is open now\n");
        }
        Some(OpeningsState::Stuck(reason)) => {
            text.push_str(&format!("AN OPENING BEFORE THE GATE IS NOT SHUT: {reason}\n"));
        }
        None => {}
    }
    for c in &report.certificates {
        text.push_str(&format!("\n{}\n", c.name));
        let mut row = |label: &str, value: String| text.push_str(&format!("  {label:<9} {value}\n"));
        row("names", c.identifiers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
        let untrusted = if c.untrusted { " (UNTRUSTED: for demos and tests only)" } else { "" };
        row("issuer", format!("{}{untrusted}", c.issuer));
        match (c.version, c.not_after) {
            (Some(version), Some(not_after)) => {
                row("valid", validity(c.not_before, not_after, c.fraction_left, now));
                row("serial", c.serial.clone().unwrap_or_default());
                for second in &c.also {
                    let end = time(second.not_after);
                    row(
                        "also",
                        format!("{} ({}), until {end}", second.serial, second.algorithm.to_uppercase()),
                    );
                }
                let held =
                    if c.held_back { ", held back: the files are those of the one before" } else { "" };
                row("files", format!("{} (version {version}{held})", c.path));
            }
            _ => row("valid", "no certificate yet".to_owned()),
        }
        row(
            "next",
            format!("{} ({}; {})", time(c.next), distance(c.next, now, "from now", "overdue"), c.reason),
        );
        if let Some(url) = &c.explanation_url {
            row("explained", url.clone());
        }
        if !c.failures_left.is_empty() {
            let of_another = !c.failures_left_at.is_empty() && c.failures_left_at != c.issuer;
            let at = if of_another { format!("at {}: ", c.failures_left_at) } else { String::new() };
            row("limits", format!("{at}{}", c.failures_left));
        }
        if let Some(found) = &c.put_off {
            row("PUT OFF", found.clone());
        }
        for n in &c.failing {
            let last = n.last_error.as_deref().unwrap_or("unknown");
            let failures = format!("{} in a row; the last: {last}", n.failures);
            match n.retry_at {
                Some(at) if n.dropped => {
                    row("MISSING", format!("{}, tried again at {}: {failures}", n.identifier, time(at)));
                }
                _ => row("failing", format!("{}: {failures}", n.identifier)),
            }
        }
        if c.failures > 0 {
            let last = c.last_error.as_deref().unwrap_or("unknown");
            row("FAILED", format!("{} in a row; the last: {last}", c.failures));
        }
        for d in &c.deploys {
            let state = match (&d.last_error, d.pending, d.version) {
                (Some(error), true, _) => {
                    let next =
                        d.retry_at.map(|at| format!("; tried again at {}", time(at))).unwrap_or_default();
                    format!("FAILED: {error}{next}")
                }
                (None, true, _) => "pending".to_owned(),
                (_, false, Some(version)) => format!("took version {version}"),
                (_, false, None) => "nothing to take yet".to_owned(),
            };
            row("deploy", format!("{}: {state}", d.service));
        }
    }
    for c in &report.from_files {
        text.push_str(&format!("\n{} (from files; somebody else renews it)\n", c.name));
        let mut row = |label: &str, value: String| text.push_str(&format!("  {label:<9} {value}\n"));
        row("files", format!("{}, {}", c.fullchain.display(), c.key.display()));
        if let Some(not_after) = c.not_after {
            row("names", c.identifiers.join(", "));
            row("signed by", c.signed_by.clone().unwrap_or_default());
            row("valid", validity(c.not_before, not_after, c.fraction_left, now));
            row("serial", c.serial.clone().unwrap_or_default());
        }
        match (&c.trouble, c.served) {
            (Some(trouble), true) => {
                row("NOT TAKEN", format!("{trouble}; what is told here is what is served from before"));
            }
            (Some(trouble), false) => row("UNUSABLE", trouble.clone()),
            (None, true) => row("served", "by the TLS front".to_owned()),
            (None, false) => row("served", "not now".to_owned()),
        }
    }
    text
}

/// From when to when a certificate is valid, and what is left of that.
fn validity(
    not_before: Option<Timestamp>,
    not_after: Timestamp,
    fraction_left: Option<f64>,
    now: SystemTime,
) -> String {
    if let Some(begin) = not_before.filter(|begin| SystemTime::from(*begin) > now) {
        return format!(
            "NOT BEFORE {}, which is {} (is this machine's clock right?); until {}",
            time(begin),
            distance(begin, now, "from now", "ago"),
            time(not_after)
        );
    }
    let fraction = match fraction_left {
        Some(fraction) if fraction > 0.0 => {
            format!(", {:.0} % of its lifetime", (fraction * 100.0).floor())
        }
        _ => String::new(),
    };
    format!("until {} ({}{fraction})", time(not_after), distance(not_after, now, "left", "ago"))
}

fn time(moment: Timestamp) -> String {
    moment.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

fn distance(moment: Timestamp, now: SystemTime, ahead: &str, behind: &str) -> String {
    let moment = SystemTime::from(moment);
    match moment.duration_since(now) {
        Ok(left) => format!("{} {ahead}", rough(left)),
        Err(e) => format!("{} {behind}", rough(e.duration())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn described(changes: serde_json::Value) -> String {
        let mut certificate = json!({
            "name": "a", "identifiers": ["a.example"], "issuer": "letsencrypt", "untrusted": false,
            "path": "/s/live/a", "version": 1, "serial": "01", "signed-by": "R1",
            "not-before": "2026-11-01T00:00:00Z", "not-after": "2027-01-30T00:00:00Z",
            "next": "2027-01-01T00:00:00Z", "reason": "ARI window", "days-left": 60.0, "fraction-left": 0.7,
            "explanation-url": null, "failures-left": "3 left this hour", "failures-left-at": "letsencrypt",
            "put-off": null, "failing": [], "failures": 0, "last-error": null, "deploys": [],
        });
        for (key, value) in changes.as_object().unwrap() {
            certificate[key] = value.clone();
        }
        let certificates = vec![serde_json::from_value(certificate).unwrap()];
        let report = without_daemon(certificates, Vec::new());
        let now: Timestamp = "2026-11-27T00:00:00Z".parse().unwrap();
        describe(&report, now.into())
    }

    #[test]
    fn limits_are_those_of_the_ca_that_is_asked_next() {
        assert!(described(json!({})).contains("  limits    3 left this hour\n"));
        let fallback = described(json!({ "issuer": "zerossl" }));
        assert!(fallback.contains("  limits    at letsencrypt: 3 left this hour\n"), "{fallback}");
    }

    #[test]
    fn a_certificate_that_has_not_begun_is_no_whole_one() {
        let begun = described(json!({}));
        assert!(
            begun.contains("  valid     until 2027-01-30 00:00:00 UTC (64 days left, 70 % of"),
            "{begun}"
        );
        let early = described(json!({ "not-before": "2026-12-01T00:00:00Z", "fraction-left": 1.0 }));
        assert!(
            early.contains("  valid     NOT BEFORE 2026-12-01 00:00:00 UTC, which is 4 days from now"),
            "{early}"
        );
        assert!(!early.contains('%'), "{early}");
    }
}
