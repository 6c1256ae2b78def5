//! Names that a certificate can carry: a host name in its one normal form, or an IP address.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use idna::AsciiDenyList;
use idna::uts46::{DnsLength, Hyphens, Uts46};
use serde::{Deserialize, Serialize};

/// A DNS host name as a lower-case A-label without a trailing dot (RFC 5890, RFC 1123).
///
/// Cheap to compare: equal names are equal bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hostname(String);

/// Why a text is no host name that http-01 can validate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostnameError {
    /// The text is empty.
    #[error("a hostname is empty")]
    Empty,
    /// A wildcard, which http-01 cannot prove (RFC 8555 section 8.3).
    #[error("`{0}` is a wildcard: http-01 cannot prove control over one; list each hostname by itself")]
    Wildcard(String),
    /// Anything that is not a valid host name.
    #[error(
        "`{0}` is not a hostname: letters, digits and hyphens in labels of 1 to 63 characters, 253 in all"
    )]
    Malformed(String),
    /// A name with one label only, which no public CA signs.
    #[error("`{0}` has a single label: a certificate needs a full name such as `www.example.net`")]
    SingleLabel(String),
}

impl Hostname {
    /// The name as an A-label, lower-case, without a trailing dot.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as a person writes it, U-labels decoded.
    pub fn to_unicode(&self) -> String {
        Uts46::new().to_unicode(self.0.as_bytes(), AsciiDenyList::EMPTY, Hyphens::Allow).0.into_owned()
    }

    /// The wildcard form that would cover this name in a certificate: `a.b.c` → `*.b.c`.
    pub fn wildcard(&self) -> Option<String> {
        self.0.split_once('.').map(|(_, rest)| format!("*.{rest}"))
    }

    /// Parses any syntactically valid host name, single labels such as `localhost` included, for
    /// matching what a client sent.
    pub fn parse_any(text: &str) -> Result<Self, HostnameError> {
        if text.is_empty() {
            return Err(HostnameError::Empty);
        }
        let bare = text.strip_suffix('.').unwrap_or(text);
        // The common case, already in normal form, needs no Unicode tables.
        if is_normal(bare) {
            return Ok(Self(bare.to_owned()));
        }
        let malformed = || HostnameError::Malformed(text.to_owned());
        let ascii = Uts46::new()
            .to_ascii(bare.as_bytes(), AsciiDenyList::STD3, Hyphens::Check, DnsLength::Verify)
            .map_err(|_| malformed())?
            .into_owned();
        if ascii.ends_with('.') || ascii.parse::<IpAddr>().is_ok() || ends_in_number(&ascii) {
            return Err(malformed());
        }
        Ok(Self(ascii))
    }
}

fn is_normal(text: &str) -> bool {
    text.len() <= 253
        && !ends_in_number(text)
        && text.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.as_bytes().get(2..4) != Some(b"--")
                && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        })
}

/// A last label of digits only would be read as an IPv4 address by many (WHATWG URL, section 3.5).
fn ends_in_number(text: &str) -> bool {
    text.rsplit('.').next().is_some_and(|label| label.bytes().all(|b| b.is_ascii_digit()))
}

impl FromStr for Hostname {
    type Err = HostnameError;

    fn from_str(text: &str) -> Result<Self, HostnameError> {
        if text.starts_with("*.") {
            return Err(HostnameError::Wildcard(text.to_owned()));
        }
        let name = Self::parse_any(text)?;
        if name.0.contains('.') { Ok(name) } else { Err(HostnameError::SingleLabel(text.to_owned())) }
    }
}

impl TryFrom<String> for Hostname {
    type Error = HostnameError;

    fn try_from(text: String) -> Result<Self, HostnameError> {
        Self::parse_any(&text)
    }
}

impl From<Hostname> for String {
    fn from(name: Hostname) -> Self {
        name.0
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// What a certificate vouches for (RFC 8555 section 9.7.7, RFC 8738).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Debug)]
#[serde(try_from = "String", into = "String")]
pub enum Identifier {
    /// A host name.
    Dns(Hostname),
    /// An IP address.
    Ip(IpAddr),
}

impl Identifier {
    /// As it stands in a URL and in a Host field: an IPv6 address in brackets (RFC 3986 section 3.2.2).
    pub fn authority(&self) -> Cow<'_, str> {
        match self {
            Self::Dns(name) => name.as_str().into(),
            Self::Ip(IpAddr::V6(address)) => format!("[{address}]").into(),
            Self::Ip(IpAddr::V4(address)) => address.to_string().into(),
        }
    }
}

impl FromStr for Identifier {
    type Err = HostnameError;

    /// A bare or bracketed IP address, or a host name.
    fn from_str(text: &str) -> Result<Self, HostnameError> {
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
        match bare.parse() {
            Ok(ip) => Ok(Self::Ip(ip)),
            Err(_) => text.parse().map(Self::Dns),
        }
    }
}

impl TryFrom<String> for Identifier {
    type Error = HostnameError;

    fn try_from(text: String) -> Result<Self, HostnameError> {
        text.parse()
    }
}

impl From<Identifier> for String {
    fn from(identifier: Identifier) -> Self {
        identifier.to_string()
    }
}

impl fmt::Display for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => name.fmt(f),
            Self::Ip(ip) => ip.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_forms() {
        for (text, normal) in [
            ("example.net", "example.net"),
            ("WWW.Example.NET.", "www.example.net"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("faß.example", "xn--fa-hia.example"),
            ("a-b.c9", "a-b.c9"),
        ] {
            assert_eq!(text.parse::<Hostname>().map(String::from), Ok(normal.to_owned()), "{text}");
        }
        assert_eq!("BÜCHER.example".parse::<Hostname>().unwrap().to_unicode(), "bücher.example");
    }

    #[test]
    fn refusals_name_the_reason() {
        assert_eq!("*.example.net".parse::<Hostname>(), Err(HostnameError::Wildcard("*.example.net".into())));
        assert_eq!("localhost".parse::<Hostname>(), Err(HostnameError::SingleLabel("localhost".into())));
        assert_eq!("".parse::<Hostname>(), Err(HostnameError::Empty));
        let long_label = format!("{}.net", "a".repeat(64));
        let long_name = format!("{}net", "abcdefgh.".repeat(28)) + "x";
        for text in [
            "a..b",
            ".a.b",
            "a.b..",
            "-a.net",
            "a-.net",
            "a_b.net",
            "a b.net",
            "a/b.net",
            "a.net:80",
            "xn--.net",
            "xn--zzzzzz-.net",
            "1.2.3.4",
            "300.1.1.1",
            "a.1",
            &long_label,
            &long_name,
            "a\0.net",
            "a@b.net",
        ] {
            assert_eq!(text.parse::<Hostname>(), Err(HostnameError::Malformed(text.into())), "{text}");
        }
    }

    #[test]
    fn identifiers() {
        assert_eq!("[2001:db8::1]".parse(), Ok(Identifier::Ip("2001:db8::1".parse().unwrap())));
        assert_eq!("192.0.2.7".parse(), Ok(Identifier::Ip("192.0.2.7".parse().unwrap())));
        assert_eq!("A.b".parse(), Ok(Identifier::Dns("a.b".parse().unwrap())));
    }

    proptest::proptest! {
        #[test]
        fn normalising_twice_changes_nothing(text in "\\PC{0,40}") {
            if let Ok(name) = Hostname::parse_any(&text) {
                proptest::prop_assert_eq!(Hostname::parse_any(name.as_str()), Ok(name.clone()));
                proptest::prop_assert!(name.as_str().bytes().all(|b| !b.is_ascii_uppercase()));
            }
        }
    }
}
