//! An overview as OpenMetrics text. Pure.

use std::sync::atomic::AtomicU64;

use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;

use super::overview::Overview;
use super::{GateStatus, OpeningsState};
use crate::foreign::FilesStatus;
use crate::renewal::CertificateStatus;
use crate::sandbox::State;

/// What the text is (OpenMetrics 1.0).
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfCertificate {
    certificate: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfDeploy {
    certificate: String,
    service: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPart {
    part: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

type Numbers<L> = Family<L, Gauge<f64, AtomicU64>>;

/// The text.
pub(super) fn text(overview: &Overview) -> String {
    let mut all = Registry::with_prefix("wicketgate");
    let version = overview.status.version.clone().unwrap_or_default();
    let build = [("version".into(), version.into())];
    all.sub_registry_with_labels(build.into_iter()).register(
        "build",
        "Of the program",
        ConstGauge::new(1_i64),
    );
    if let Some(since) = overview.status.since {
        all.register("start_time_seconds", "When the daemon was started", ConstGauge::new(seconds(since)));
    }
    let sandbox = Numbers::<OfPart>::default();
    for part in &overview.status.sandbox {
        let enforced = match part.state {
            State::On => 1.0,
            State::Partly => 0.5,
            State::Off => 0.0,
        };
        sandbox.get_or_create(&OfPart { part: part.part.clone() }).set(enforced);
    }
    all.register("sandbox_enforced", "Of each part of the sandbox, 1 for all of it, 0.5 for some", sandbox);
    certificates(&mut all, overview);
    deploys(&mut all, overview);
    gate(&mut all, overview);
    if let Some((connections, no_handshake)) = overview.counts.front {
        let connections = ConstCounter::new(connections);
        all.register("front_connections", "Connections to the TLS front", connections);
        let failed = ConstCounter::new(no_handshake);
        all.register(
            "front_handshakes_failed",
            "Connections to the TLS front that did not get beyond the handshake",
            failed,
        );
    }
    if let Some(lost) = overview.counts.log_lost {
        let lost = ConstCounter::new(lost);
        all.register("access_log_lines_lost", "Lines of the access log that were dropped", lost);
    }
    let mut text = String::new();
    // Writing into a text does not fail.
    let _ = prometheus_client::encoding::text::encode(&mut text, &all);
    text
}

fn certificates(all: &mut Registry, overview: &Overview) {
    let of_files = |number: &dyn Fn(&FilesStatus) -> Option<f64>| {
        let numbers = Numbers::<OfCertificate>::default();
        for files in &overview.status.from_files {
            if let Some(number) = number(files) {
                numbers.get_or_create(&OfCertificate { certificate: files.name.clone() }).set(number);
            }
        }
        numbers
    };
    let mut family = |name: &str,
                      help: &str,
                      numbers: Numbers<OfCertificate>,
                      number: &dyn Fn(&CertificateStatus) -> Option<f64>| {
        for c in &overview.status.certificates {
            if let Some(number) = number(c) {
                numbers.get_or_create(&OfCertificate { certificate: c.name.clone() }).set(number);
            }
        }
        all.register(name, help, numbers);
    };
    let from_files = of_files(&|files| files.not_before.map(seconds));
    family("certificate_not_before_seconds", "Start of validity of the live certificate", from_files, &|c| {
        c.not_before.map(seconds)
    });
    let from_files = of_files(&|files| files.not_after.map(seconds));
    family(
        "certificate_not_after_seconds",
        "End of validity of the live certificate; missing where there is none",
        from_files,
        &|c| c.not_after.map(seconds),
    );
    let family = &mut |name: &str, help: &str, number: &dyn Fn(&CertificateStatus) -> Option<f64>| {
        family(name, help, Numbers::default(), number);
    };
    family("certificate_next_order_seconds", "When the next order is due", &|c| Some(seconds(c.next)));
    family("certificate_failures", "Failed attempts in a row", &|c| Some(f64::from(c.failures)));
    family(
        "certificate_failures_left",
        "Attempts that may still fail at the CA that is asked next; missing where it does not count them",
        &|c| c.failures_left_count.map(f64::from),
    );
    family("certificate_names_failing", "Names of the certificate that fail", &|c| {
        Some(c.failing.len() as f64)
    });
    family(
        "certificate_put_off",
        "The preflight found what would fail, so that the order is put off",
        &|c| Some(truth(c.put_off.is_some())),
    );
    family("certificate_untrusted", "The live certificate is from the embedded CA", &|c| {
        Some(truth(c.untrusted))
    });
    let numbers = of_files(&|files| Some(truth(files.trouble.is_some() || !files.served)));
    let help = "What is in the files of somebody else's certificate cannot be served";
    all.register("certificate_files_unusable", help, numbers);
}

fn deploys(all: &mut Registry, overview: &Overview) {
    let (pending, failing) = (Numbers::<OfDeploy>::default(), Numbers::<OfDeploy>::default());
    for c in &overview.status.certificates {
        for deploy in &c.deploys {
            let labels = OfDeploy { certificate: c.name.clone(), service: deploy.service.clone() };
            pending.get_or_create(&labels).set(truth(deploy.pending));
            failing.get_or_create(&labels).set(truth(deploy.last_error.is_some()));
        }
    }
    all.register("deploy_pending", "The server has yet to take the live version", pending);
    all.register("deploy_failing", "The server did not take it when it was asked last", failing);
}

fn gate(all: &mut Registry, overview: &Overview) {
    let counts = &overview.counts;
    all.register("gate_connections", "Connections to the gate", ConstCounter::new(counts.gate_connections));
    let requests = Family::<Outcome, prometheus_client::metrics::counter::Counter>::default();
    for (outcome, count) in [
        ("challenge", counts.answered),
        ("late", counts.late),
        ("unknown-token", counts.unknown),
        ("redirect", counts.redirected),
        ("refused", counts.refused),
    ] {
        requests.get_or_create(&Outcome { outcome }).inc_by(count);
    }
    all.register("gate_requests", "Requests to the gate, by what became of them", requests);
    let Some(GateStatus { listening, openings, .. }) = &overview.status.gate else { return };
    all.register("gate_listening", "The gate listens now", ConstGauge::new(i64::from(*listening)));
    if let Some(openings) = openings {
        let is_open = ConstGauge::new(i64::from(*openings != OpeningsState::Shut));
        all.register("gate_opening_open", "What stands before the gate is open", is_open);
        let is_stuck = ConstGauge::new(i64::from(matches!(openings, OpeningsState::Stuck(_))));
        all.register("gate_opening_stuck", "What stands before the gate cannot be shut", is_stuck);
    }
}

fn seconds(at: Timestamp) -> f64 {
    at.as_second() as f64
}

fn truth(is: bool) -> f64 {
    if is { 1.0 } else { 0.0 }
}
