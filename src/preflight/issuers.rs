//! Which issuers a certificate may be asked from, as far as CAA says: one that is forbidden for certain is
//! passed over, and only where all of them are is there nobody to ask. Pure.

use std::collections::BTreeSet;

use super::diagnosis::{Certainty, Finding};
use crate::hostname::Identifier;

/// What findings mean for the names of one certificate and the issuers that may be asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Names that would fail wherever they were ordered, and where no issuer may sign for all the others,
    /// those that stand in the way of the issuer with the fewest of them.
    pub condemned: BTreeSet<Identifier>,
    /// The issuers that may sign for all names that could work at all, in their order.
    pub allowed: Vec<String>,
}

/// Weighs findings about the names of one certificate; the issuers are in the order that they are asked in.
pub fn standing(findings: &[Finding], issuers: &[String]) -> Standing {
    let hopeless = certain(findings, None);
    let forbidden = |issuer: &String| &certain(findings, Some(issuer)) - &hopeless;
    let fewest = issuers.iter().map(forbidden).min_by_key(BTreeSet::len).unwrap_or_default();
    let allowed = issuers.iter().filter(|issuer| forbidden(issuer).is_empty());
    Standing { allowed: allowed.cloned().collect(), condemned: &hopeless | &fewest }
}

/// What an issuer is not asked because of: what was found for certain about it alone and some of the names.
pub fn against<'f>(findings: &'f [Finding], issuer: &str, names: &[Identifier]) -> Vec<&'f Finding> {
    let is_against = |f: &&Finding| {
        f.certainty == Certainty::Certain
            && f.issuer.as_deref() == Some(issuer)
            && names.contains(&f.identifier)
    };
    findings.iter().filter(is_against).collect()
}

/// The names that would fail for every issuer, each looked at by itself.
pub fn lost(findings: &[Finding], issuers: &[String]) -> BTreeSet<Identifier> {
    let forbidden = issuers.iter().map(|issuer| certain(findings, Some(issuer)));
    let everywhere = forbidden.reduce(|all, more| &all & &more).unwrap_or_default();
    &certain(findings, None) | &everywhere
}

/// The names that are certain to fail: for every issuer, or for one alone.
fn certain(findings: &[Finding], issuer: Option<&String>) -> BTreeSet<Identifier> {
    let is_meant = |f: &&Finding| f.certainty == Certainty::Certain && f.issuer.as_ref() == issuer;
    findings.iter().filter(is_meant).map(|f| f.identifier.clone()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::preflight::diagnosis::Cause;

    fn finding(name: &str, issuer: Option<&str>, certainty: Certainty) -> Finding {
        Finding {
            identifier: name.parse().unwrap(),
            address: None,
            issuer: issuer.map(str::to_owned),
            cause: Cause::CaaForbidden,
            certainty,
            seen: "s".to_owned(),
            means: "m".to_owned(),
            remedy: "r".to_owned(),
        }
    }

    /// `a` alone: for every issuer; `a@1`: at issuer 1; `a@1?`: perhaps.
    fn findings(text: &str) -> Vec<Finding> {
        let parse = |word: &str| {
            let (word, certainty) = match word.strip_suffix('?') {
                Some(word) => (word, Certainty::Warning),
                None => (word, Certainty::Certain),
            };
            let (name, issuer) = word.split_once('@').map_or((word, None), |(n, i)| (n, Some(i)));
            finding(&format!("{name}.example"), issuer, certainty)
        };
        text.split_whitespace().map(parse).collect()
    }

    fn issuers(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn names(set: &BTreeSet<Identifier>) -> String {
        let name = |i: &Identifier| i.to_string().trim_end_matches(".example").to_owned();
        set.iter().map(name).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn one_that_is_forbidden_is_passed_over_and_all_of_them_are_an_end() {
        for (found, of, condemned, allowed, lost_names) in [
            ("", "1 2", "", "1 2", ""),
            ("a", "1 2", "a", "1 2", "a"),
            ("a@1", "1", "a", "", "a"),
            ("a@1", "1 2", "", "2", ""),
            ("a@2", "1 2", "", "1", ""),
            ("a@1?", "1 2", "", "1 2", ""),
            ("a@1 a@2", "1 2", "a", "", "a"),
            ("a@1 a@2 b@1", "1 2", "a", "", "a"),
            ("a@1 b@2", "1 2", "a", "", ""),
            ("a@1 b@1 b@2", "1 2", "b", "", "b"),
            ("a@1 b@1 c@2", "1 2", "c", "", ""),
            ("a@1 b@2", "1 2 3", "", "3", ""),
            // What fails everywhere is no reason to pass an issuer over for the others.
            ("a a@1 b@2", "1 2", "a", "1", "a"),
            ("a@9", "1 2", "", "1 2", ""),
            ("a", "", "a", "", "a"),
        ] {
            let found = findings(found);
            let seen = standing(&found, &issuers(of));
            let seen = (names(&seen.condemned), seen.allowed.join(" "), names(&lost(&found, &issuers(of))));
            let expected = (condemned.to_owned(), allowed.to_owned(), lost_names.to_owned());
            assert_eq!(seen, expected, "{found:?}");
        }
    }

    #[test]
    fn what_is_held_against_an_issuer() {
        let found = findings("a@1 b@1 a@2 b@2? a");
        let count = |issuer, names: &[&str]| {
            let names: Vec<_> = names.iter().map(|n| n.parse().unwrap()).collect();
            against(&found, issuer, &names).len()
        };
        assert_eq!(count("1", &["a.example", "b.example"]), 2);
        assert_eq!(count("1", &["b.example"]), 1);
        assert_eq!(count("2", &["b.example"]), 0);
        assert_eq!(count("3", &["a.example"]), 0);
    }

    proptest! {
        #[test]
        fn an_allowed_issuer_signs_for_all_that_is_not_condemned(
            found in proptest::collection::vec((0usize..4, 0usize..4, proptest::bool::ANY), 0..12),
        ) {
            let all = issuers("0 1 2");
            let found: Vec<_> = found
                .into_iter()
                .map(|(name, issuer, is_certain)| {
                    let certainty = if is_certain { Certainty::Certain } else { Certainty::Warning };
                    let name = ["a.example", "b.example", "c.example", "d.example"][name];
                    finding(name, all.get(issuer).map(String::as_str), certainty)
                })
                .collect();
            let seen = standing(&found, &all);
            let hopeless = certain(&found, None);
            let forbidden = |issuer: &String| certain(&found, Some(issuer));
            for issuer in &all {
                prop_assert_eq!(forbidden(issuer).is_subset(&hopeless), seen.allowed.contains(issuer));
            }
            prop_assert!(lost(&found, &all).is_subset(&seen.condemned));
            prop_assert_eq!(seen.condemned == hopeless, !seen.allowed.is_empty(), "one way is enough");
            // Without what is condemned, somebody may always be asked.
            prop_assert!(all.iter().any(|issuer| forbidden(issuer).is_subset(&seen.condemned)));
        }
    }
}
