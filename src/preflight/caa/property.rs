//! The value of an `issue` or `issuewild` record: an issuer and parameters (RFC 8659 section 4.2).

/// A value that follows the grammar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Property<'a> {
    /// The issuer's domain name; empty where nobody is named.
    pub(super) issuer: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> Property<'a> {
    /// The values of a parameter, in their order; its name in any case.
    pub(super) fn values(&self, tag: &str) -> impl Iterator<Item = &'a str> {
        self.parameters
            .iter()
            .filter(move |(name, _)| name.eq_ignore_ascii_case(tag))
            .map(|(_, value)| *value)
    }
}

/// The issuer and the parameters in a value, if it follows the grammar.
pub(super) fn parse(value: &str) -> Option<Property<'_>> {
    let mut parts = value.split(';').map(trim);
    let issuer = parts.next().unwrap_or_default();
    if !(issuer.is_empty() || issuer.split('.').all(is_label)) {
        return None;
    }
    let rest: Vec<&str> = parts.collect();
    // One semicolon may stand without parameters, and none after the last one.
    let parameters = match rest.as_slice() {
        [] | [""] => Vec::new(),
        rest => rest.iter().map(|text| parameter(text)).collect::<Option<_>>()?,
    };
    Some(Property { issuer, parameters })
}

fn parameter(text: &str) -> Option<(&str, &str)> {
    let (tag, value) = text.split_once('=')?;
    let (tag, value) = (trim(tag), trim(value));
    (is_label(tag) && value.bytes().all(|b| b.is_ascii_graphic())).then_some((tag, value))
}

/// Letters and digits, with hyphens between them.
fn is_label(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_follow_the_grammar() {
        for (value, issuer, parameters) in [
            ("ca.example", "ca.example", &[][..]),
            ("", "", &[]),
            (" \t", "", &[]),
            (";", "", &[]),
            (" ; ", "", &[]),
            ("ca.example;", "ca.example", &[]),
            ("ca.example ; a=b", "ca.example", &[("a", "b")]),
            ("\tca.example;a = b ;\tc-d=e=f", "ca.example", &[("a", "b"), ("c-d", "e=f")]),
            ("; a=", "", &[("a", "")]),
            ("localhost", "localhost", &[]),
        ] {
            let expected = Property { issuer, parameters: parameters.to_vec() };
            assert_eq!(parse(value), Some(expected), "{value:?}");
        }
    }

    #[test]
    fn values_that_do_not() {
        for value in [
            "%%%%%",
            "ca.example.",
            ".ca.example",
            "-ca.example",
            "\"ca.example\"",
            "ca.example, other.example",
            "ca.example other.example",
            "https://ca.example",
            "ca.example; a",
            "ca.example; a=b;",
            "ca.example;; a=b",
            "ca.example; =b",
            "ca.example; a-=b",
            "ca.example; a_b=c",
            "ca.example; a=b c",
            "ca.example; a=ü",
            "ca.example\u{fffd}",
            "ca.example\n",
            "bücher.example",
        ] {
            assert_eq!(parse(value), None, "{value:?}");
        }
    }
}
