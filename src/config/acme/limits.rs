//! `acme.limits`: what a CA allows, in an administrator's words.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::super::problem::seen;
use super::super::section::Section;
use super::super::{Rate, RateLimits};

const COUNTS: RangeInclusive<u32> = 1..=1_000_000;

/// A bucket that takes longer than a year to fill is a slip of the unit.
const PERIODS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(365 * 86_400);

pub(super) fn limits(acme: &Section<'_>) -> RateLimits {
    let section = acme.table("limits");
    let limit = |name| section.entry(name).and_then(|entry| entry.parsed(rate));
    RateLimits {
        failed_authorizations: limit("failed-authorizations"),
        certificates_per_set: limit("certificates-per-set"),
        certificates_per_domain: limit("certificates-per-domain"),
        orders: limit("orders"),
        accounts: limit("accounts"),
    }
}

/// `"5 in 1h"` or `"none"`.
fn rate(text: &str) -> Result<Rate, String> {
    const FORM: &str = "write how many in what time, as in \"5 in 1h\", or \"none\"";
    if text.trim() == "none" {
        return Ok(Rate::Unlimited);
    }
    let malformed = || format!("{} is no limit; {FORM}", seen(text));
    let (count, per) = text.split_once(" in ").ok_or_else(malformed)?;
    let (count, per) = (count.trim(), per.trim());
    if count.is_empty() || !count.bytes().all(|b| b.is_ascii_digit()) {
        return Err(malformed());
    }
    // Digits that are no number of this size are too many of them.
    let count = count.parse().unwrap_or(u32::MAX);
    if count == 0 {
        return Err(format!("{} would allow nothing at all; {FORM}", seen(text)));
    }
    if !COUNTS.contains(&count) {
        return Err(format!(
            "{} has a number out of range; write 1 to {}, or \"none\"",
            seen(text),
            COUNTS.end()
        ));
    }
    let per = humantime::parse_duration(per).map_err(|_| {
        format!(
            "{} has no duration after `in`; write a number with its unit there, as in \"1h\" or \"7d\"",
            seen(text)
        )
    })?;
    if !PERIODS.contains(&per) {
        return Err(format!("{} has a duration out of range; write \"1s\" to \"365d\" there", seen(text)));
    }
    Ok(Rate::Limited { count, per })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        let limited = |count, secs| Ok(Rate::Limited { count, per: Duration::from_secs(secs) });
        for (text, wanted) in [
            ("5 in 1h", limited(5, 3600)),
            (" 50  in  7d ", limited(50, 7 * 86_400)),
            ("300 in 3h 30m", limited(300, 12_600)),
            ("1000000 in 365d", limited(1_000_000, 365 * 86_400)),
            ("1 in 1s", limited(1, 1)),
            ("none", Ok(Rate::Unlimited)),
        ] {
            assert_eq!(rate(text), wanted, "{text}");
        }
        for (text, reason) in [
            ("", "is no limit"),
            ("5", "is no limit"),
            ("5/1h", "is no limit"),
            ("five in 1h", "is no limit"),
            ("-5 in 1h", "is no limit"),
            (" in 1h", "is no limit"),
            ("None", "is no limit"),
            ("0 in 1h", "nothing at all"),
            ("1000001 in 1h", "number out of range"),
            ("99999999999999999999 in 1h", "number out of range"),
            ("5 in an hour", "no duration after"),
            ("5 in 1", "no duration after"),
            ("5 in 0s", "duration out of range"),
            ("5 in 999ms", "duration out of range"),
            ("5 in 366d", "duration out of range"),
        ] {
            let message = rate(text).unwrap_err();
            assert!(message.contains(reason), "{text}: {message}");
        }
    }
}
