//! What `verify` makes of what it has seen: pure, with the time passed in.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde::Serialize;

use crate::deploy::verify::chain::Verdict;
use crate::deploy::verify::{Inspection, Leaf, Sighting};
use crate::hostname::Identifier;
use crate::store::Version;
use crate::words::rough;

/// Names that a line tells; a certificate may have a hundred.
const TOLD: usize = 5;
const DAY: u64 = 86_400;

/// Everything that was seen.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Report {
    /// Nothing is a fault.
    pub(super) ok: bool,
    /// What could not be looked at or judged.
    pub(super) warnings: Vec<String>,
    /// One for each endpoint and name.
    pub(super) endpoints: Vec<Row>,
}

/// One name at one endpoint.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Row {
    /// The certificate that should be there; null where none has to be.
    pub(super) certificate: Option<String>,
    /// The server's name in `[deploy.NAME]`, or `front`; null for an address of `--at`.
    pub(super) service: Option<String>,
    endpoint: String,
    identifier: String,
    state: State,
    /// `1.3`, `1.2`
    versions: Vec<&'static str>,
    address: Option<String>,
    serial: Option<String>,
    issuer: Option<String>,
    names: Vec<String>,
    not_after: Option<Timestamp>,
    /// Whole days; negative since it expired.
    days_left: Option<i64>,
    chain: Option<&'static str>,
    /// Whether it is the stored version; null where nothing is stored, or it cannot be read.
    live: Option<bool>,
    /// The version that is shown; null where it is none of those that are kept, or nothing can be compared.
    version: Option<Version>,
    /// The version that is stored as the live one; null where that is not known.
    stored_version: Option<Version>,
    messages: Vec<Message>,
}

/// A sentence and its weight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Message {
    state: State,
    text: String,
}

/// How it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum State {
    Ok,
    Warning,
    Fault,
}

/// What a target is judged by.
#[derive(Debug, Clone, Default)]
pub(super) struct Measure {
    pub(super) certificate: Option<String>,
    pub(super) service: Option<String>,
    /// A private CA was configured, so that a root which is unknown here is no surprise.
    pub(super) is_private: bool,
    pub(super) expiring_below: f64,
    /// What is stored of certificates that have the name, whether or not they must be there.
    pub(super) stored: Vec<Stored>,
}

/// What is stored of a certificate.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    /// Its name.
    pub(super) certificate: String,
    /// The names that it is for.
    pub(super) identifiers: Vec<Identifier>,
    /// The version that servers are to show.
    pub(super) live: Version,
    /// Every version that is kept, the oldest first: a leaf, or both of a pair.
    pub(super) versions: Vec<(Version, Vec<Leaf>)>,
    /// A server takes it from here, so that `deploy` does something.
    pub(super) is_deployed: bool,
}

impl Stored {
    /// The version that has this leaf. Half of a pair may stay when the other is renewed: the live version is
    /// looked at first, then the newest.
    fn version_of(&self, leaf: &Leaf) -> Option<Version> {
        let has = |(_, leaves): &&(Version, Vec<Leaf>)| leaves.contains(leaf);
        let live = self.versions.iter().filter(|(version, _)| *version == self.live);
        live.chain(self.versions.iter().rev()).find(has).map(|(version, _)| *version)
    }

    /// What to do where another version is shown, or none, if that is to change.
    fn deploy(&self) -> String {
        if self.is_deployed { format!(" (`wicketgate deploy {}`)", self.certificate) } else { String::new() }
    }

    /// A sentence, unless the live version is shown.
    fn words(&self, shown: Option<Version>) -> Option<String> {
        let (live, deploy) = (self.live, self.deploy());
        match shown {
            Some(version) if version == live => None,
            Some(version) => Some(format!(
                "it serves version {version}, and version {live} is the stored one: reload it{deploy}"
            )),
            None => {
                let leaves = self.versions.iter().filter(|(version, _)| *version == live);
                let leaves: Vec<_> = leaves.flat_map(|(_, leaves)| leaves).map(ToString::to_string).collect();
                Some(format!(
                    "it serves none of the versions that are kept here of {}; stored is version {live}, {}: if this server is to show that one, deploy it there{deploy}",
                    self.certificate,
                    leaves.join(" and ")
                ))
            }
        }
    }
}

impl Measure {
    /// The stored certificate that has this name, and this leaf rather than not; and which version has it.
    fn stored_for(&self, identifier: &Identifier, leaf: Option<&Leaf>) -> Option<(&Stored, Option<Version>)> {
        let of_name = || self.stored.iter().filter(|stored| stored.identifiers.contains(identifier));
        let shown = leaf.and_then(|leaf| of_name().find_map(|one| Some((one, Some(one.version_of(leaf)?)))));
        shown.or_else(|| of_name().next().map(|one| (one, None)))
    }
}

/// Judges one name at one endpoint.
pub(super) fn judge(inspection: &Inspection, measure: &Measure, now: SystemTime) -> Row {
    let mut messages: Vec<_> = inspection
        .faults
        .iter()
        .map(|fault| Message { state: State::Fault, text: fault.to_string() })
        .collect();
    for sighting in &inspection.sightings {
        let stored = measure.stored_for(&inspection.identifier, Some(&sighting.leaf));
        let version = stored.and_then(|(_, version)| version);
        let compared = stored.and_then(|(stored, version)| stored.words(version));
        match sighting.is_expected {
            // One that should not be there has been told, but not which version it is.
            Some(false) if version.is_some() => {
                messages.extend(compared.map(|text| Message { state: State::Fault, text }));
            }
            Some(_) => {}
            None => messages.extend(compared.map(|text| Message { state: State::Warning, text })),
        }
        if sighting.is_expected != Some(false) {
            messages.extend(words(sighting, inspection, measure, now));
        }
    }
    messages.sort_by_key(|message| std::cmp::Reverse(message.state));
    messages.dedup();
    let worst = inspection.sightings.iter().min_by_key(|s| (s.is_expected, s.leaf.not_after));
    let stored = measure.stored_for(&inspection.identifier, worst.map(|s| &s.leaf));
    let (live, version) = (stored.map(|(stored, _)| stored.live), stored.and_then(|(_, version)| version));
    Row {
        certificate: measure.certificate.clone(),
        service: measure.service.clone(),
        endpoint: inspection.endpoint.to_string(),
        identifier: inspection.identifier.to_string(),
        state: messages.iter().map(|message| message.state).max().unwrap_or(State::Ok),
        versions: inspection.versions.iter().map(|version| version.number()).collect(),
        address: worst
            .map(|s| s.address)
            .or_else(|| inspection.faults.iter().find_map(|fault| fault.address))
            .map(|address| address.to_string()),
        serial: worst.map(|s| s.leaf.serial.clone()),
        issuer: worst.map(|s| s.leaf.issuer.clone()),
        names: worst.map(|s| s.leaf.names.clone()).unwrap_or_default(),
        not_after: worst.and_then(|s| Timestamp::try_from(s.leaf.not_after).ok()),
        days_left: worst.map(|s| days_left(s.leaf.not_after, now)),
        chain: worst.filter(|s| s.is_expected != Some(false)).map(|s| match s.chain.verdict {
            Verdict::Trusted => "trusted",
            Verdict::Private { .. } => "private",
            Verdict::Untrusted { .. } => "untrusted",
            Verdict::Missing { .. } => "incomplete",
            Verdict::Unreadable { .. } => "unreadable",
        }),
        live: worst.and_then(|s| s.is_expected.or_else(|| live.map(|live| version == Some(live)))),
        version,
        stored_version: live,
        messages,
    }
}

fn words(sighting: &Sighting, seen: &Inspection, measure: &Measure, now: SystemTime) -> Vec<Message> {
    let (leaf, mut messages) = (&sighting.leaf, Vec::new());
    let mut say = |state, text| messages.push(Message { state, text });
    if !sighting.covers {
        say(
            State::Fault,
            format!("what it shows for {} is for others: {leaf}; clients refuse it", seen.identifier),
        );
    }
    match (leaf.not_after.duration_since(now), leaf.fraction_left(now)) {
        (Ok(left), Some(part)) if part < measure.expiring_below => {
            let percent = (part * 100.0).floor();
            say(State::Warning, format!("it ends in {}: {percent} % of its lifetime are left", rough(left)));
        }
        (Ok(_), Some(_)) => {}
        (Err(since), _) => {
            say(
                State::Fault,
                format!("it expired {} ago: clients refuse it ({leaf})", rough(since.duration())),
            );
        }
        (Ok(_), None) => say(State::Fault, format!("it has expired: clients refuse it ({leaf})")),
    }
    if let Ok(ahead) = leaf.not_before.duration_since(now)
        && ahead > Duration::from_secs(300)
    {
        say(State::Fault, format!("it is not valid for another {}: clients refuse it", rough(ahead)));
    }
    let root = match &sighting.chain.verdict {
        Verdict::Private { issuer } => Some(issuer),
        Verdict::Untrusted { root } => Some(root),
        Verdict::Trusted | Verdict::Missing { .. } | Verdict::Unreadable { .. } => None,
    };
    if let Some(root) = root {
        if measure.is_private {
            let text = format!("its chain ends at `{root}`: clients accept it that were given this root");
            say(State::Ok, text);
        } else {
            say(
                State::Fault,
                format!(
                    "its chain ends at `{root}`, which is no public root: clients refuse it; if that is your own CA, put its root into `acme.roots` or pass it with `--roots`"
                ),
            );
        }
    }
    for warning in &sighting.chain.warnings {
        say(State::Warning, warning.clone());
    }
    messages
}

fn days_left(not_after: SystemTime, now: SystemTime) -> i64 {
    let days = |duration: Duration| i64::try_from(duration.as_secs() / DAY).unwrap_or(i64::MAX);
    match not_after.duration_since(now) {
        Ok(left) => days(left),
        Err(since) => -1 - days(since.duration()),
    }
}

/// The report for a person, as it comes.
#[derive(Debug)]
pub(super) struct Telling {
    colours: bool,
    /// The row that was told last.
    last: Option<Row>,
}

impl Telling {
    /// Nothing is told yet.
    pub(super) fn new(colours: bool) -> Self {
        Self { colours, last: None }
    }

    /// What could not be looked at or judged.
    pub(super) fn warnings(&self, warnings: &[String]) -> String {
        let mut text = String::new();
        for warning in warnings {
            text.push_str(&format!("{}{warning}\n", mark(State::Warning, self.colours)));
        }
        if !warnings.is_empty() {
            text.push('\n');
        }
        text
    }

    /// The next rows.
    pub(super) fn rows(&mut self, rows: &[Row]) -> String {
        let mut text = String::new();
        for rows in rows.chunk_by(is_alike) {
            let row = &rows[0];
            let is_same = |part: fn(&Row) -> (&Option<String>, &str)| {
                self.last.as_ref().is_some_and(|last| part(last) == part(row))
            };
            let is_there = is_same(|row| (&row.certificate, ""));
            if !is_there {
                text.push_str(row.certificate.as_deref().unwrap_or("not deployed from here"));
                text.push('\n');
            }
            if !is_there || !is_same(|row| (&row.service, &row.endpoint)) {
                let service = row.service.as_ref().map(|service| format!("{service} ")).unwrap_or_default();
                text.push_str(&format!("  {service}{}\n", row.endpoint));
            }
            self.last = Some(row.clone());
            text.push_str(&paragraph(rows, self.colours));
        }
        text
    }
}

/// Whether two names deserve one paragraph: they differ in nothing but themselves.
fn is_alike(one: &Row, other: &Row) -> bool {
    let place = |row: &Row| (row.certificate.clone(), row.service.clone(), row.endpoint.clone());
    let shown = |row: &Row| (row.state, row.versions.clone(), row.serial.clone(), row.live, row.version);
    place(one) == place(other) && shown(one) == shown(other) && nameless(one) == nameless(other)
}

/// What is said of a name, without it.
fn nameless(row: &Row) -> Vec<(State, String)> {
    let name = &row.identifier;
    let without = |text: &str| {
        let text = text.replace(&format!("asked for {name} over"), "asked over");
        text.replace(&format!("shows for {name} is"), "shows is")
    };
    row.messages.iter().map(|message| (message.state, without(&message.text))).collect()
}

fn paragraph(rows: &[Row], colours: bool) -> String {
    let row = &rows[0];
    let shown: Vec<_> = rows.iter().take(TOLD).map(|row| row.identifier.as_str()).collect();
    let more = rows.len() - shown.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let mut text = format!("    {}{}{more}", mark(row.state, colours), shown.join(", "));
    if let (Some(days), Some(end)) = (row.days_left, row.not_after) {
        let left = match days {
            ..0 => "expired".to_owned(),
            0 => "ends within a day".to_owned(),
            1 => "1 day left".to_owned(),
            _ => format!("{days} days left"),
        };
        let versions = row.versions.join(" and ");
        let chain = match row.chain {
            Some("trusted" | "private") => "whole chain, ",
            Some("untrusted") => "untrusted chain, ",
            Some(_) => "incomplete chain, ",
            None => "",
        };
        text.push_str(&format!(": {left} (until {}), {chain}TLS {versions}", end.strftime("%Y-%m-%d")));
        if row.live == Some(true) {
            text.push_str(", the stored certificate");
            text.push_str(&row.version.map(|version| format!(" (version {version})")).unwrap_or_default());
        }
    }
    text.push('\n');
    for message in &row.messages {
        let mark = if message.state == row.state && row.messages.len() == 1 {
            String::new()
        } else {
            mark(message.state, colours)
        };
        text.push_str(&format!("      {mark}{}\n", message.text));
    }
    text
}

fn mark(state: State, colours: bool) -> String {
    let (colour, word) = match state {
        State::Ok => (32, "ok"),
        State::Warning => (33, "warning"),
        State::Fault => (31, "FAULT"),
    };
    if colours { format!("\x1b[{colour}m{word}\x1b[0m: ") } else { format!("{word}: ") }
}

impl Report {
    /// Of rows, and what could not be judged.
    pub(super) fn new(warnings: Vec<String>, endpoints: Vec<Row>) -> Self {
        let ok = endpoints.iter().all(|row| row.state != State::Fault);
        Self { ok, warnings, endpoints }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::verify::chain::Chain;
    use crate::deploy::verify::{Client, Fault, Leaf, NotServed, Version};

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(20_000 * DAY)
    }

    fn days(count: u64) -> Duration {
        Duration::from_secs(count * DAY)
    }

    /// What is seen for `name`, of a certificate for a.example that lasts from one moment to the other.
    fn seen(name: &str, from: SystemTime, to: SystemTime, verdict: Verdict) -> Inspection {
        let leaf = Leaf {
            names: vec!["a.example".to_owned(), "b.example".to_owned()],
            serial: "0a".to_owned(),
            subject: String::new(),
            issuer: "CN=R10".to_owned(),
            not_before: from,
            not_after: to,
        };
        let identifier = name.parse().unwrap();
        Inspection {
            endpoint: "127.0.0.1:443".parse().unwrap(),
            versions: Version::ALL.to_vec(),
            sightings: vec![Sighting {
                address: ([127, 0, 0, 1], 443).into(),
                covers: leaf.covers(&identifier),
                leaf,
                chain: Chain { verdict, warnings: Vec::new() },
                is_expected: None,
            }],
            identifier,
            faults: Vec::new(),
        }
    }

    fn good(name: &str) -> Inspection {
        seen(name, now() - days(1), now() + days(89), Verdict::Trusted)
    }

    fn measure(is_private: bool) -> Measure {
        Measure { is_private, expiring_below: 0.25, ..Measure::default() }
    }

    #[test]
    fn what_is_a_fault_and_what_is_not() {
        let (past, soon, later) = (now() - days(1), now() + days(9), now() + days(89));
        let private = || Verdict::Private { issuer: "CN=ours".to_owned() };
        let of = |from, to, verdict| seen("a.example", from, to, verdict);
        for (inspection, is_private, state, says) in [
            (good("a.example"), false, State::Ok, ""),
            (good("c.example"), false, State::Fault, "what it shows for c.example is for others: a.example"),
            (of(past, soon, Verdict::Trusted), false, State::Ok, ""),
            (
                of(now() - days(91), soon, Verdict::Trusted),
                false,
                State::Warning,
                "it ends in 9 days: 9 % of",
            ),
            (of(now() - days(90), past, Verdict::Trusted), false, State::Fault, "it expired 24 hours ago"),
            (of(now() - days(90), now(), Verdict::Trusted), false, State::Fault, "it has expired"),
            (of(soon, later, Verdict::Trusted), false, State::Fault, "not valid for another 9 days"),
            (of(past, later, private()), true, State::Ok, "clients accept it that were given this root"),
            (of(past, later, private()), false, State::Fault, "`CN=ours`, which is no public root"),
            (
                of(past, later, Verdict::Untrusted { root: "CN=x".to_owned() }),
                false,
                State::Fault,
                "`CN=x`, which is no public root",
            ),
        ] {
            let row = judge(&inspection, &measure(is_private), now());
            assert_eq!(row.state, state, "{row:?}");
            let told: Vec<_> = row.messages.iter().map(|message| message.text.as_str()).collect();
            assert_eq!(told.is_empty(), says.is_empty(), "{told:?}");
            assert!(told.iter().all(|text| text.contains(says)), "{told:?}");
        }
        let left = |to| judge(&of(past, to, Verdict::Trusted), &measure(false), now()).days_left.unwrap();
        assert_eq!((left(soon), left(now() + days(1) / 2), left(now() - days(1) / 2)), (9, 0, -1));
    }

    #[test]
    fn a_report_groups_what_is_alike() {
        let refused = |name: &str| {
            let mut inspection = good(name);
            inspection.faults.push(NotServed {
                endpoint: inspection.endpoint.clone(),
                address: None,
                identifier: inspection.identifier.clone(),
                version: Version::Tls13,
                client: Client::Any,
                fault: Box::new(Fault::Nameless),
                others: 0,
            });
            inspection.sightings.clear();
            inspection
        };
        let to = |service: &str| Measure {
            certificate: Some("web".to_owned()),
            service: Some(service.to_owned()),
            ..measure(false)
        };
        let rows = [
            judge(&good("a.example"), &to("nginx"), now()),
            judge(&good("b.example"), &to("nginx"), now()),
            judge(&refused("a.example"), &to("squid"), now()),
            judge(&refused("b.example"), &to("squid"), now()),
            judge(&good("a.example"), &measure(false), now()),
        ];
        let report = Report::new(vec!["the store cannot be read".to_owned()], rows.to_vec());
        assert!(!report.ok);
        // However it comes.
        let mut telling = Telling::new(false);
        let (begin, end) = report.endpoints.split_at(2);
        let told = [telling.warnings(&report.warnings), telling.rows(begin), telling.rows(end)].concat();
        assert_eq!(
            told,
            "warning: the store cannot be read\n\n\
             web\n\
             \x20 nginx 127.0.0.1:443\n\
             \x20   ok: a.example, b.example: 89 days left (until 2025-01-01), whole chain, TLS 1.3 and 1.2\n\
             \x20 squid 127.0.0.1:443\n\
             \x20   FAULT: a.example, b.example\n\
             \x20     127.0.0.1:443 says that it serves no such name (unrecognized_name), asked for a.example over TLS 1.3: no virtual host of its names it: add the name to one that uses this certificate, or remove it from `hostnames`\n\
             not deployed from here\n\
             \x20 127.0.0.1:443\n\
             \x20   ok: a.example: 89 days left (until 2025-01-01), whole chain, TLS 1.3 and 1.2\n"
        );
    }

    #[test]
    fn what_is_shown_is_compared_with_every_version() {
        let leaf = |serial: &str| {
            let mut leaf = good("a.example").sightings.remove(0).leaf;
            serial.clone_into(&mut leaf.serial);
            leaf
        };
        let stored = |certificate: &str, names: &[&str], is_deployed, versions: &[(u32, &[&str])]| Stored {
            certificate: certificate.to_owned(),
            identifiers: names.iter().map(|name| name.parse().unwrap()).collect(),
            live: 4,
            versions: versions
                .iter()
                .map(|(version, serials)| (*version, serials.iter().map(|serial| leaf(serial)).collect()))
                .collect(),
            is_deployed,
        };
        // A pair of which one half was renewed alone, and gone back from version 5.
        let versions: [(u32, &[&str]); 3] = [(3, &["3e", "3r"]), (4, &["4e", "3r"]), (5, &["5e", "5r"])];
        let measure = Measure {
            stored: vec![
                stored("web", &["a.example"], true, &versions),
                stored("other", &["a.example", "b.example"], false, &[(4, &["0b"])]),
            ],
            ..measure(false)
        };
        let look = |name: &str, serial: &str, is_expected| {
            let mut seen = good(name);
            seen.sightings[0].leaf = leaf(serial);
            seen.sightings[0].is_expected = is_expected;
            let row = judge(&seen, &measure, now());
            let text = row.messages.iter().map(|m| m.text.clone()).collect::<Vec<_>>().join("\n");
            ((row.live, row.version, row.stored_version), row.state, text)
        };
        let older =
            "it serves version 3, and version 4 is the stored one: reload it (`wicketgate deploy web`)";
        let newer =
            "it serves version 5, and version 4 is the stored one: reload it (`wicketgate deploy web`)";
        for (serial, is_expected, live, version, state, text) in [
            ("4e", None, true, Some(4), State::Ok, ""),
            ("3r", None, true, Some(4), State::Ok, ""),
            ("3e", None, false, Some(3), State::Warning, older),
            ("5r", None, false, Some(5), State::Warning, newer),
            ("0b", None, true, Some(4), State::Ok, ""),
            ("4e", Some(true), true, Some(4), State::Ok, ""),
            ("3e", Some(false), false, Some(3), State::Fault, older),
            // The fault of one that is none of ours is told by the look itself.
            ("ff", Some(false), false, None, State::Ok, ""),
        ] {
            let wanted = ((Some(live), version, Some(4)), state, text.to_owned());
            assert_eq!(look("a.example", serial, is_expected), wanted, "{serial}");
        }
        let (known, state, text) = look("a.example", "ff", None);
        assert_eq!((known, state), ((Some(false), None, Some(4)), State::Warning));
        assert!(text.starts_with("it serves none of the versions that are kept here of web; stored is version 4, a.example, b.example (serial 4e"), "{text}");
        assert!(text.ends_with("deploy it there (`wicketgate deploy web`)"), "{text}");
        // Nothing of ours would reload that one.
        let (known, _, text) = look("b.example", "4e", None);
        assert_eq!(known, (Some(false), None, Some(4)));
        assert!(text.ends_with("deploy it there"), "{text}");
        assert_eq!(look("c.example", "4e", None).0, (None, None, None));
        let nobody = Inspection { sightings: Vec::new(), ..good("a.example") };
        let row = judge(&nobody, &measure, now());
        assert_eq!((row.live, row.version, row.stored_version), (None, None, Some(4)));
    }
}
