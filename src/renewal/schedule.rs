//! When a certificate is due (pure).

use std::time::{Duration, SystemTime};

use crate::words::rough;

const DAY: Duration = Duration::from_secs(86_400);

/// Pauses after the first, second, third and every further failure in a row, as the CAs advise.
const RETRY: [Duration; 4] =
    [Duration::from_secs(60), Duration::from_secs(600), Duration::from_secs(6000), DAY];

/// Pauses between tries to have a server take a certificate: its own trouble, so they stay short.
const DEPLOY_RETRY: [Duration; 4] =
    [Duration::from_secs(30), Duration::from_secs(120), Duration::from_secs(600), Duration::from_secs(3600)];

/// Longest pause that a CA's Retry-After can ask for. A moment further ahead was written by a clock that
/// was wrong.
pub const LONGEST_WAIT: Duration = Duration::from_secs(30 * 86_400);

/// TEMP
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window { pub start: SystemTime, pub end: SystemTime, pub chosen: SystemTime }
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldBecause { Failures(u32), Preflight, Limit }
impl std::fmt::Display for HeldBecause { fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { match self {
 Self::Failures(1) => f.write_str("retry after a failure"), Self::Failures(n) => write!(f, "retry after {n} failures"), Self::Preflight => f.write_str("preflight"), Self::Limit => f.write_str("limit") } } }
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold { pub until: SystemTime, pub why: HeldBecause }
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason { Text(String), ByHand, NamesRetried }
impl std::fmt::Display for Reason { fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { match self { Self::Text(t) => f.write_str(t), Self::ByHand => f.write_str("asked for by hand"), Self::NamesRetried => f.write_str("names that were left out are tried again") } } }
#[derive(Debug, Clone, Copy, Default)]
pub struct Known<'a> { pub validity: Option<(SystemTime, SystemTime)>, pub obtained_at: Option<SystemTime>, pub unfit: Option<&'a str>, pub window: Option<Window>, pub jitter: f64, pub hold: Option<Hold> }
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision { Order(Reason), Wait { at: SystemTime, why: &'static str }, Held { at: SystemTime, why: HeldBecause } }
pub fn renew_at(not_before: SystemTime, not_after: SystemTime) -> SystemTime {
    let lifetime = not_after.duration_since(not_before).unwrap_or_default();
    let left = if lifetime < 10 * DAY { lifetime / 2 } else { lifetime / 3 };
    not_after - left
}
fn earliest(obtained_at: Option<SystemTime>, not_after: SystemTime) -> SystemTime {
    let Some(obtained_at) = obtained_at else { return SystemTime::UNIX_EPOCH };
    obtained_at + not_after.duration_since(obtained_at).unwrap_or_default() / 4
}
pub fn decide(known: &Known<'_>, now: SystemTime) -> Decision {
    let reason = match (known.validity, known.unfit) {
        (None, _) => "there is no certificate yet".to_owned(),
        (Some(_), Some(unfit)) => unfit.to_owned(),
        (Some((not_before, not_after)), None) => {
            let mut due = renew_at(not_before, not_after).max(earliest(known.obtained_at, not_after));
            if let Some(w) = known.window { due = w.chosen; }
            if now < due {
                return Decision::Wait { at: due, why: "renewal in time" };
            }
            match not_after.duration_since(now) {
                Ok(left) => format!("it ends in {}", rough(left)),
                Err(_) => "it has ended".to_owned(),
            }
        }
    };
    match known.hold {
        Some(Hold { until, why }) if now < until => Decision::Held { at: until, why },
        _ => Decision::Order(Reason::Text(reason)),
    }
}
pub fn ask_again(asked_at: SystemTime, _retry_after: Option<SystemTime>, _lifetime: Duration, _failures: u32, _random: f64) -> SystemTime { asked_at + DAY / 2 }
pub fn keep_or_choose(before: Option<&Window>, start: SystemTime, end: SystemTime, random: f64) -> Window {
    if let Some(b) = before && b.start == start && b.end == end { return *b; }
    Window { start, end, chosen: start + end.duration_since(start).unwrap_or_default().mul_f64(random) }
}

/// The pause after so many failures in a row (1 is the first). `jitter` from 0 to 1 lengthens it by up to
/// a tenth, so that many installations do not come back together.
pub fn retry_after(failures: u32, jitter: f64) -> Duration {
    stretched(&RETRY, failures, jitter)
}

/// The pause before a server is asked again to take a certificate.
pub fn deploy_retry_after(failures: u32, jitter: f64) -> Duration {
    stretched(&DEPLOY_RETRY, failures, jitter)
}

fn stretched(table: &[Duration], failures: u32, jitter: f64) -> Duration {
    let place = (failures.max(1) as usize - 1).min(table.len() - 1);
    table[place].mul_f64(1.0 + jitter.clamp(0.0, 1.0) / 10.0)
}

