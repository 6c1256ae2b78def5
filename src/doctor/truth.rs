//! Yes, no, or not to be told from here; and regular expressions of other programs. Pure.

use std::net::IpAddr;

use ipnet::IpNet;
use regex::bytes::RegexBuilder;

/// What is known of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Truth {
    Yes,
    No,
    Maybe,
}

impl Truth {
    pub(super) fn not(self) -> Self {
        match self {
            Self::Yes => Self::No,
            Self::No => Self::Yes,
            Self::Maybe => Self::Maybe,
        }
    }

    pub(super) fn not_if(self, negated: bool) -> Self {
        if negated { self.not() } else { self }
    }

    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Yes, Self::Yes) => Self::Yes,
            _ => Self::Maybe,
        }
    }

    pub(super) fn or(self, other: Self) -> Self {
        self.not().and(other.not()).not()
    }
}

impl From<bool> for Truth {
    fn from(is_so: bool) -> Self {
        if is_so { Self::Yes } else { Self::No }
    }
}

/// Largest compiled expression, in bytes; what needs more is not looked at.
const MOST: usize = 1 << 20;

/// Whether a pattern of PCRE's or POSIX's is found in a text. What this program's engine does not have
/// (looking around, references back) may match.
pub(super) fn regex(pattern: &str, text: &str, ignore_case: bool) -> Truth {
    let mut builder = RegexBuilder::new(pattern);
    let built =
        builder.unicode(false).case_insensitive(ignore_case).size_limit(MOST).dfa_size_limit(MOST).build();
    match built {
        Ok(regex) => regex.is_match(text.as_bytes()).into(),
        // `/\.(?!well-known)` is how everybody writes an exception for challenges.
        Err(_) if pattern.contains("(?!") && pattern.contains("well-known") => Truth::No,
        Err(_) => Truth::Maybe,
    }
}

/// Whether a CA comes from one of these addresses: `all`, a network, an address.
pub(super) fn is_ca(text: &str) -> Truth {
    let is_private = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.is_private() || ip.is_loopback() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    };
    let everybody = ["all", "0.0.0.0/0", "::/0", "0/0"];
    if everybody.iter().any(|word| text.eq_ignore_ascii_case(word)) {
        return Truth::Yes;
    }
    let network = text.parse::<IpNet>().map(|net| net.addr()).or_else(|_| text.parse::<IpAddr>());
    match network {
        Ok(ip) if is_private(ip) => Truth::No,
        Ok(_) => Truth::Maybe,
        Err(_) if text == "localhost" => Truth::No,
        Err(_) => Truth::Maybe,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_values() {
        use Truth::{Maybe, No, Yes};
        assert_eq!([Yes.and(Maybe), No.and(Maybe), Yes.or(Maybe), No.or(Maybe)], [Maybe, No, Yes, Maybe]);
        assert_eq!([Maybe.not(), Yes.not_if(true), Yes.not_if(false)], [Maybe, No, Yes]);
    }

    #[test]
    fn expressions_of_others() {
        let path = "/.well-known/acme-challenge/x";
        for (pattern, truth) in [
            (r"/\.", Truth::Yes),
            (r"^/\.ht", Truth::No),
            (r"/\.(?!well-known)", Truth::No),
            (r"(?<!a)b", Truth::Maybe),
            (r"\.php$", Truth::No),
            (r"(", Truth::Maybe),
            ("a{1000}{1000}", Truth::Maybe),
            (r"^/\w*\d*", Truth::Yes),
        ] {
            assert_eq!(regex(pattern, path, false), truth, "{pattern}");
        }
    }

    #[test]
    fn a_ca_comes_from_the_world() {
        for (text, truth) in [
            ("all", Truth::Yes),
            ("10.0.0.0/8", Truth::No),
            ("127.0.0.1", Truth::No),
            ("fc00::/7", Truth::No),
            ("203.0.113.0/24", Truth::Maybe),
            ("unix:", Truth::Maybe),
        ] {
            assert_eq!(is_ca(text), truth, "{text}");
        }
    }
}
