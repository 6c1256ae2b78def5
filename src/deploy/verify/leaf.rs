//! What a shown certificate says of itself, whatever it is worth: pure. It is looked at, not trusted.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::hostname::Identifier;
use crate::words::printable;

/// Names that a sentence tells; a certificate may have a hundred.
const TOLD: usize = 5;
/// Longest name that a sentence tells, characters.
const LONGEST: usize = 100;

/// A leaf, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// Its names and addresses as they stand in subjectAltName, wildcards included.
    pub names: Vec<String>,
    /// Serial number, hex.
    pub serial: String,
    /// Who it is for, as a distinguished name.
    pub subject: String,
    /// Who signed it, as a distinguished name.
    pub issuer: String,
    /// Start of validity.
    pub not_before: SystemTime,
    /// End of validity.
    pub not_after: SystemTime,
}

impl Leaf {
    /// Reads a certificate.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn read(der: &[u8]) -> Result<Self, String> {
        let (_, leaf) = X509Certificate::from_der(der).map_err(|e| e.to_string())?;
        Ok(Self {
            names: names(&leaf),
            serial: leaf.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect(),
            subject: printable(&leaf.subject().to_string(), LONGEST),
            issuer: printable(&leaf.issuer().to_string(), LONGEST),
            not_before: time(leaf.validity().not_before.timestamp()),
            not_after: time(leaf.validity().not_after.timestamp()),
        })
    }

    /// Whether it names this identifier, by itself or by a wildcard of one label (RFC 6125 section 6.4).
    pub fn covers(&self, identifier: &Identifier) -> bool {
        let wanted = identifier.to_string();
        let parent = match identifier {
            Identifier::Dns(name) => name.wildcard(),
            Identifier::Ip(_) => None,
        };
        self.names.iter().any(|name| {
            name.eq_ignore_ascii_case(&wanted)
                || parent.as_ref().is_some_and(|p| name.eq_ignore_ascii_case(p))
        })
    }

    /// How much of its lifetime is left; `None` when it is over, or was none.
    pub fn fraction_left(&self, now: SystemTime) -> Option<f64> {
        let left = self.not_after.duration_since(now).ok().filter(|left| !left.is_zero())?;
        let lifetime = self.not_after.duration_since(self.not_before).ok()?;
        Some(left.as_secs_f64() / lifetime.as_secs_f64())
    }
}

/// `a.example, b.example (serial 0a, from CN=R10, valid 2026-01-01 to 2026-04-01)`
impl fmt::Display for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.names.iter().take(TOLD).map(String::as_str).collect::<Vec<_>>().join(", ");
        match self.names.len() {
            0 => write!(f, "no name (its subject is `{}`)", self.subject)?,
            count if count > TOLD => write!(f, "{shown} and {} more", count - TOLD)?,
            _ => f.write_str(&shown)?,
        }
        let (from, to) = (day(self.not_before), day(self.not_after));
        write!(f, " (serial {}, from `{}`, valid {from} to {to})", self.serial, self.issuer)
    }
}

/// The date, in UTC.
pub(super) fn day(at: SystemTime) -> String {
    Timestamp::try_from(at).map_or_else(|_| "no date".to_owned(), |at| at.strftime("%Y-%m-%d").to_string())
}

fn names(leaf: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = leaf.subject_alternative_name() else { return Vec::new() };
    let read = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(printable(name, LONGEST)),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let v6 = <[u8; 16]>::try_from(*bytes).map(IpAddr::from);
            v4.or(v6).ok().map(|ip| ip.to_string())
        }
        _ => None,
    };
    extension.value.general_names.iter().filter_map(read).collect()
}

fn time(seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let time = if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    };
    time.unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(names: &[&str]) -> Leaf {
        let names: Vec<_> = names.iter().map(|n| (*n).to_owned()).collect();
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        params.serial_number = Some(rcgen::SerialNumber::from(vec![0x0a, 0xff]));
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2026, 4, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        Leaf::read(params.self_signed(&key).unwrap().der()).unwrap()
    }

    #[test]
    fn what_it_says() {
        let told = leaf(&["a.example", "*.w.example", "192.0.2.1"]).to_string();
        assert!(told.starts_with("a.example, *.w.example, 192.0.2.1 (serial 0aff, from `CN=rcgen"), "{told}");
        assert!(told.ends_with("`, valid 2026-01-01 to 2026-04-01)"), "{told}");
        assert!(leaf(&[]).to_string().starts_with("no name (its subject is `CN=rcgen"));
        let many: Vec<_> = (0..100).map(|n| format!("n{n}.example")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        assert!(leaf(&many).to_string().contains("n4.example and 95 more (serial"));
        assert!(Leaf::read(b"x").is_err());
    }

    #[test]
    fn which_names_it_covers() {
        let leaf = leaf(&["a.example", "*.w.example", "192.0.2.1", "2001:db8::1"]);
        for (name, covered) in [
            ("a.example", true),
            ("A.Example", true),
            ("b.example", false),
            ("x.w.example", true),
            ("y.x.w.example", false),
            ("w.example", false),
            ("192.0.2.1", true),
            ("192.0.2.2", false),
            ("2001:db8::1", true),
        ] {
            assert_eq!(leaf.covers(&name.parse().unwrap()), covered, "{name}");
        }
    }
}
