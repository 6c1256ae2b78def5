//! An overview as one page for a person: no script, nothing fetched, readable on a phone, in light and dark. Pure.

use jiff::{SignedDuration, Timestamp};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::overview::Overview;
use super::{GateStatus, OpeningsState};
use crate::foreign::FilesStatus;
use crate::renewal::CertificateStatus;
use crate::words::{printable, rough};

/// The page's only style, whose digest the policy names.
pub(super) const STYLE: &str = include_str!("page.css");

/// Knocks shown.
const KNOCKS: usize = 20;
/// Longest sentence shown, characters.
const LONGEST: usize = 800;
/// The bar's length in units of its own.
const BAR: f64 = 1000.0;

/// The document.
pub(super) fn page(overview: &Overview) -> String {
    let certificates = &overview.status.certificates;
    let from_files = &overview.status.from_files;
    let tones = certificates.iter().map(|c| standing(c, overview.at).0);
    let worst =
        tones.chain(from_files.iter().map(|c| files_standing(c, overview.at).0)).max().unwrap_or(Tone::Good);
    let title = format!("{}wicketgate on {}", if worst == Tone::Good { "" } else { "! " }, overview.host);
    let document = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="refresh" content="60";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    header {
                        h1 { "wicketgate on " (overview.host) }
                        p {
                            "version " (overview.status.version.as_deref().unwrap_or("unknown"))
                            @if let Some(since) = overview.status.since { ", running for " (until(overview.at, since)) }
                            ", seen " (moment(overview.at))
                        }
                    }
                    @for certificate in certificates { (card(certificate, overview.at)) }
                    @for files in from_files { (files_card(files, overview.at)) }
                    @if certificates.is_empty() && from_files.is_empty() { section { p { "No certificate is configured." } } }
                    (gate(overview))
                    footer { "This page is made anew each minute. The same for programs: /metrics, /healthz, /readyz." }
                }
            }
        }
    };
    document.into_string()
}

/// How serious it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Tone {
    Good,
    Warn,
    Bad,
}

impl Tone {
    fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Warn => "warn",
            Self::Bad => "bad",
        }
    }
}

/// A certificate's state in a few words.
fn standing(c: &CertificateStatus, now: Timestamp) -> (Tone, String) {
    let is_failing = c.failures > 0 || c.put_off.is_some();
    match c.not_after {
        None if is_failing => (Tone::Bad, "there is none, and attempts fail".to_owned()),
        None => (Tone::Warn, "there is none yet".to_owned()),
        Some(end) if end <= now => (Tone::Bad, format!("ended {} ago", until(now, end))),
        Some(end) => {
            let left = format!("{} left", until(now, end));
            let is_short = c.fraction_left.is_some_and(|fraction| fraction < 0.1);
            let is_undone = c.deploys.iter().any(|deploy| deploy.last_error.is_some()) || c.held_back;
            match () {
                () if is_short => (Tone::Bad, format!("only {left}")),
                () if is_failing => (Tone::Warn, format!("{left}, attempts fail")),
                () if is_undone => (Tone::Warn, format!("{left}, not served everywhere")),
                () if !c.failing.is_empty() => (Tone::Warn, format!("{left}, names fail")),
                () if c.untrusted => (Tone::Warn, format!("{left}, nobody trusts its CA")),
                () => (Tone::Good, left),
            }
        }
    }
}

fn card(c: &CertificateStatus, now: Timestamp) -> Markup {
    let (tone, words) = standing(c, now);
    let names: Vec<_> =
        c.identifiers.iter().map(ToString::to_string).filter(|name| *name != c.name).collect();
    html! {
        section {
            div.head { h2 { (c.name) } span class={ "chip " (tone.class()) } { (words) } }
            @if !names.is_empty() { p.soft { "also " (names.join(", ")) } }
            @if let (Some(from), Some(to)) = (c.not_before, c.not_after) { (bar(c, from, to, now)) }
            p { "Next: " (if c.next <= now { "now".to_owned() } else { format!("in {}, {}", until(now, c.next), moment(c.next)) }) ", " (printable(&c.reason, LONGEST)) "." }
            @if let Some(reason) = &c.put_off { p.told.warn-line { "Put off: " (printable(reason, LONGEST)) } }
            @if let Some(error) = &c.last_error {
                @if c.failures > 0 { p.told { (c.failures) " failed in a row. The last one: " (printable(error, LONGEST)) } }
            }
            @for name in &c.failing {
                p.told.warn-line {
                    (name.identifier) @if name.dropped { " is left out" } @else { " fails" }
                    @if let Some(error) = &name.last_error { ": " (printable(error, LONGEST)) }
                }
            }
            @if c.held_back { p.told.warn-line { "Held back: the files are those of the version before." } }
            @for deploy in &c.deploys {
                p class={ @if deploy.last_error.is_some() { "told" } @else { "soft" } } {
                    (deploy.service) ": "
                    @match (&deploy.last_error, deploy.pending) {
                        (Some(error), _) => { (printable(error, LONGEST)) @if let Some(at) = deploy.retry_at { " Tried again " (moment(at)) "." } }
                        (None, true) => { "has yet to take it" }
                        (None, false) => { "serves it" }
                    }
                }
            }
            p.soft {
                @if let Some(by) = &c.signed_by { "Signed by " (by) ". " }
                @if !c.failures_left.is_empty() { "Limits at " (c.failures_left_at) ": " (c.failures_left) "." }
            }
        }
    }
}

/// The same of a certificate from files.
fn files_standing(files: &FilesStatus, now: Timestamp) -> (Tone, String) {
    match files.not_after {
        None => (Tone::Bad, "nothing is served".to_owned()),
        Some(end) if end <= now => (Tone::Bad, format!("ended {} ago", until(now, end))),
        Some(end) => {
            let left = format!("{} left", until(now, end));
            match () {
                () if files.fraction_left.is_some_and(|fraction| fraction < 0.1) => {
                    (Tone::Bad, format!("only {left}"))
                }
                () if files.trouble.is_some() => (Tone::Warn, format!("{left}, the files cannot be served")),
                () => (Tone::Good, left),
            }
        }
    }
}

fn files_card(files: &FilesStatus, now: Timestamp) -> Markup {
    let (tone, words) = files_standing(files, now);
    html! {
        section {
            div.head { h2 { (files.name) } span class={ "chip " (tone.class()) } { (words) } }
            p.soft { "for " (files.identifiers.join(", ")) }
            p {
                "Somebody else renews it, in " (files.fullchain.display()) "."
                @if let Some(end) = files.not_after { " It ends " (moment(end)) "." }
            }
            @if let Some(trouble) = &files.trouble { p.told.warn-line { "What is in the files now cannot be served: " (printable(trouble, LONGEST)) } }
            @if let Some(by) = &files.signed_by { p.soft { "Signed by " (by) "." } }
        }
    }
}

/// The certificate's lifetime, how much of it is over, the window of its renewal, and the next order.
fn bar(c: &CertificateStatus, from: Timestamp, to: Timestamp, now: Timestamp) -> Markup {
    let whole = to.duration_since(from).as_secs_f64().max(1.0);
    let place = |at: Timestamp| (at.duration_since(from).as_secs_f64() / whole * BAR).clamp(0.0, BAR);
    // Without a word of the CA's, from the next order on.
    let (opens, closes) = c.window.unwrap_or((c.next, to));
    let (opens, closes) = (place(opens), place(closes));
    let label = format!(
        "valid from {} to {}; {} are over; the next order is at {}",
        moment(from),
        moment(to),
        percent(place(now)),
        moment(c.next)
    );
    html! {
        svg viewBox="0 0 1000 24" preserveAspectRatio="none" role="img" aria-label=(label) {
            title { (label) }
            rect.life x="0" y="4" width="1000" height="16" {}
            rect.done x="0" y="4" width=(number(place(now))) height="16" {}
            rect.window x=(number(opens)) y="4" width=(number((closes - opens).max(3.0))) height="5" {}
            rect.next x=(number(place(c.next))) y="0" width="3" height="24" {}
        }
        div.ends.soft { span { (day(from)) } span { (day(to)) } }
    }
}

fn gate(overview: &Overview) -> Markup {
    let counts = &overview.counts;
    html! {
        section {
            div.head {
                h2 { "At the gate" }
                @if let Some(gate) = &overview.status.gate { (gate_standing(gate)) }
            }
            p {
                (counts.answered) " challenges answered, " (counts.unknown) " asked for that never were, "
                (counts.redirected) " requests redirected, " (counts.refused) " refused, over "
                (counts.gate_connections) " connections."
                @if let Some((connections, no_handshake)) = counts.front {
                    " The TLS front had " (connections) " connections, " (no_handshake) " without a handshake."
                }
            }
            @if overview.knocks.is_empty() { p.soft { "Nobody came for a challenge since the start." } }
            @else {
                div.wide { table {
                    thead { tr { th { "when" } th { "who" } th { "for" } th { "what became of it" } } }
                    tbody {
                        @for knock in overview.knocks.iter().take(KNOCKS) {
                            tr {
                                td { (until(overview.at, knock.at)) " ago" }
                                td { (knock.client) }
                                td { (knock.host.as_deref().unwrap_or("no host")) }
                                td class=(if knock.is_answered { "good" } else { "soft" }) { (knock.outcome) }
                            }
                        }
                    }
                } }
            }
        }
    }
}

fn gate_standing(gate: &GateStatus) -> Markup {
    let listens = match (gate.listening, gate.during_orders) {
        (true, true) => "open now, for an order",
        (true, false) => "listens",
        (false, _) => "shut, until an order",
    };
    html! {
        @match &gate.openings {
            Some(OpeningsState::Stuck(reason)) => { span.chip.bad { "an opening cannot be shut: " (printable(reason, LONGEST)) } }
            Some(OpeningsState::Open) => { span.chip.good { (listens) "; what stands before it is open" } }
            Some(OpeningsState::Shut) => { span.chip.good { (listens) "; what stands before it is shut" } }
            None => { span.chip.good { (listens) } }
        }
    }
}

/// How far two moments are apart, roughly.
fn until(a: Timestamp, b: Timestamp) -> String {
    let apart: SignedDuration = a.duration_since(b);
    rough(apart.unsigned_abs())
}

fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

fn day(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d").to_string()
}

fn number(value: f64) -> String {
    format!("{value:.1}")
}

fn percent(place: f64) -> String {
    format!("{:.0} %", place / BAR * 100.0)
}
