//! Renewal information (RFC 9773): how a certificate is named, and when the embedded CA would have it
//! renewed. Pure.

use std::fmt;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::faults::WindowFault;

const HOUR: Duration = Duration::from_secs(3600);

/// Let's Encrypt's `Retry-After`.
const ASK_AGAIN: Duration = Duration::from_secs(6 * 3600);

/// Certificates that live shorter are renewed at half of their lifetime, others at two thirds.
const SHORT_LIVED: Duration = Duration::from_secs(10 * 24 * 3600);

/// The latest moment that a window is moved to: the end of the year 9999.
const LAST: Duration = Duration::from_secs(253_402_300_799);

/// The unique name of a certificate (RFC 9773 section 4.1): who issued it, and its serial number, both in
/// the lengths that the embedded CA uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct CertificateId {
    pub(super) issuer: [u8; 20],
    pub(super) serial: [u8; 16],
}

/// Why a text is no certificate's name here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum CertificateIdError {
    #[error("it is not two texts in base64url without padding with one dot between them")]
    Malformed,
    #[error("no certificate from here has such a name")]
    Foreign,
}

impl CertificateId {
    /// Reads a name; each has one textual form only.
    pub(super) fn parse(text: &str) -> Result<Self, CertificateIdError> {
        let (issuer, serial) = text.split_once('.').ok_or(CertificateIdError::Malformed)?;
        let bytes = |text: &str| {
            let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| CertificateIdError::Malformed)?;
            if bytes.is_empty() { Err(CertificateIdError::Malformed) } else { Ok(bytes) }
        };
        let (issuer, serial) = (bytes(issuer)?, bytes(serial)?);
        Ok(Self {
            issuer: issuer.try_into().map_err(|_| CertificateIdError::Foreign)?,
            serial: serial.try_into().map_err(|_| CertificateIdError::Foreign)?,
        })
    }
}

impl fmt::Display for CertificateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        write!(f, "{}.{}", text(&self.issuer), text(&self.serial))
    }
}

/// A certificate's life, as far as its renewal depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) not_before: SystemTime,
    /// The last moment, as it is written in the certificate.
    pub(super) not_after: SystemTime,
    pub(super) revoked: bool,
}

impl Life {
    fn length(self) -> Duration {
        self.not_after.duration_since(self.not_before).unwrap_or_default() + Duration::from_secs(1)
    }

    /// The window in which to renew, both ends included: around two thirds of the lifetime, and a
    /// forty-fifth of it wide; in the past for what is revoked. `asks` counts the earlier asks.
    pub(super) fn window(self, fault: WindowFault, asks: u64, now: SystemTime) -> (SystemTime, SystemTime) {
        let (start, end) = self.usual(now);
        match fault {
            WindowFault::None => (start, end),
            WindowFault::Now => (now, now + Duration::from_secs(2)),
            WindowFault::Past => past(now),
            WindowFault::Later(delay) => (later(start, delay), later(end, delay)),
            WindowFault::Earlier(step) => {
                let step = step.saturating_mul(u32::try_from(asks).unwrap_or(u32::MAX));
                (earlier(start, step), earlier(end, step))
            }
            WindowFault::Reversed => (end, start),
            WindowFault::Fixed { start, end } => (start, end),
        }
    }

    /// How long an answer holds: some hours, less where a life is short.
    pub(super) fn ask_again(self) -> Duration {
        ASK_AGAIN.min(self.length() / 20).max(Duration::from_secs(1))
    }

    fn usual(self, now: SystemTime) -> (SystemTime, SystemTime) {
        if self.revoked {
            return past(now);
        }
        let length = self.length();
        let left = if length < SHORT_LIVED { length / 2 } else { length / 3 };
        let (ideal, margin) = (self.not_before + (length - left), length / 90);
        (ideal - margin, ideal + margin)
    }
}

/// One that calls for a renewal at once.
fn past(now: SystemTime) -> (SystemTime, SystemTime) {
    (earlier(now, HOUR), earlier(now, HOUR / 2))
}

fn later(time: SystemTime, delay: Duration) -> SystemTime {
    let last = SystemTime::UNIX_EPOCH + LAST;
    time.checked_add(delay).map_or(last, |then| then.min(last))
}

fn earlier(time: SystemTime, step: Duration) -> SystemTime {
    time.checked_sub(step).map_or(SystemTime::UNIX_EPOCH, |then| then.max(SystemTime::UNIX_EPOCH))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn noon() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn life(length: Duration) -> Life {
        let not_after = noon() + length - Duration::from_secs(1);
        Life { not_before: noon(), not_after, revoked: false }
    }

    #[test]
    fn the_name_of_rfc_9773_is_foreign() {
        // RFC 9773 section 4.1: a serial number of nine bytes.
        let foreign = CertificateId::parse("aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE");
        assert_eq!(foreign, Err(CertificateIdError::Foreign));
        for text in
            ["", ".", "a", "AAAA", "AAAA.", ".AAAA", "AAAA.AAAA.AAAA", "AA==.AAAA", "AAAA/AAAA", "é.é"]
        {
            assert_eq!(CertificateId::parse(text), Err(CertificateIdError::Malformed), "{text}");
        }
    }

    #[test]
    fn the_usual_window_lies_at_two_thirds() {
        let (start, end) = life(90 * DAY).window(WindowFault::None, 0, noon());
        assert_eq!((start, end), (noon() + 59 * DAY, noon() + 61 * DAY));
        let (start, end) = life(6 * DAY).window(WindowFault::None, 0, noon());
        assert_eq!(start + end.duration_since(start).unwrap() / 2, noon() + 3 * DAY);
        for (length, again) in [
            (90 * DAY, 6 * HOUR),
            (Duration::from_secs(180), Duration::from_secs(9)),
            (Duration::ZERO, Duration::from_secs(1)),
        ] {
            assert_eq!(life(length.max(Duration::from_secs(1))).ask_again(), again);
        }
    }

    #[test]
    fn windows_go_wrong_as_they_are_told() {
        let usual = life(90 * DAY).window(WindowFault::None, 0, noon());
        let now = noon() + DAY;
        for (fault, asks, expected) in [
            (WindowFault::Now, 0, (now, now + Duration::from_secs(2))),
            (WindowFault::Past, 0, (now - HOUR, now - HOUR / 2)),
            (WindowFault::Later(DAY), 3, (usual.0 + DAY, usual.1 + DAY)),
            (WindowFault::Earlier(DAY), 0, usual),
            (WindowFault::Earlier(DAY), 3, (usual.0 - 3 * DAY, usual.1 - 3 * DAY)),
            (WindowFault::Reversed, 0, (usual.1, usual.0)),
            (WindowFault::Fixed { start: now, end: noon() }, 0, (now, noon())),
        ] {
            assert_eq!(life(90 * DAY).window(fault, asks, now), expected, "{fault:?}");
        }
        let revoked = Life { revoked: true, ..life(90 * DAY) };
        assert_eq!(revoked.window(WindowFault::None, 0, now), (now - HOUR, now - HOUR / 2));
    }

    proptest! {
        #[test]
        fn a_name_reads_back(issuer: [u8; 20], serial: [u8; 16]) {
            let id = CertificateId { issuer, serial };
            prop_assert_eq!(CertificateId::parse(&id.to_string()), Ok(id));
        }

        #[test]
        fn foreign_names_never_panic(text in "[A-Za-z0-9_.=-]{0,60}") {
            if let Ok(id) = CertificateId::parse(&text) {
                prop_assert_eq!(id.to_string(), text);
            }
        }

        #[test]
        fn a_window_lies_within_the_life(seconds in 60u64..398 * 86_400) {
            let life = life(Duration::from_secs(seconds));
            let (start, end) = life.window(WindowFault::None, 0, noon());
            prop_assert!(life.not_before < start && start < end && end < life.not_after);
            let width = end.duration_since(start).unwrap();
            prop_assert!((width.as_secs_f64() * 45.0 / seconds as f64 - 1.0).abs() < 1e-6);
        }

        #[test]
        fn no_fault_overflows(seconds: u64, asks: u64) {
            let delay = Duration::from_secs(seconds);
            for fault in [WindowFault::Later(delay), WindowFault::Earlier(delay)] {
                let (start, end) = life(DAY).window(fault, asks, noon());
                prop_assert!(start <= end && start >= SystemTime::UNIX_EPOCH);
            }
        }
    }
}
