//! Findings in a few sentences, for an error and for the explanation of a failed order. Pure.

use std::collections::BTreeMap;

use super::diagnosis::{Certainty, Finding};
use crate::hostname::Identifier;

/// Findings that a text tells in full.
const TOLD: usize = 5;

/// Findings in short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The CA would fail.
    pub certain: bool,
    /// Something is inconclusive, or the CA has a way round it.
    pub inconclusive: bool,
    /// The worst findings, one after the other; empty where all is fine.
    pub text: String,
}

/// Sums findings up: those that are certain, or where there are none, the warnings.
pub fn summary(findings: &[Finding]) -> Summary {
    let certain = findings.iter().any(|f| f.certainty == Certainty::Certain);
    let inconclusive = findings.iter().any(|f| f.certainty == Certainty::Warning);
    let told = if certain { Certainty::Certain } else { Certainty::Warning };
    let worst: Vec<_> = findings.iter().filter(|f| f.certainty == told).collect();
    let mut text = worst.iter().take(TOLD).map(|f| sentence(f)).collect::<Vec<_>>().join("; ");
    if worst.len() > TOLD {
        text.push_str(&format!("; and {} more: `wicketgate check` shows them all", worst.len() - TOLD));
    }
    Summary { certain, inconclusive, text }
}

/// What was found about each identifier that is not fine, the worst first.
pub fn sentences(findings: &[Finding]) -> BTreeMap<Identifier, String> {
    let mut by_identifier = BTreeMap::<&Identifier, Vec<&Finding>>::new();
    for finding in findings.iter().filter(|f| f.certainty > Certainty::Fine) {
        by_identifier.entry(&finding.identifier).or_default().push(finding);
    }
    by_identifier
        .into_iter()
        .map(|(identifier, mut findings)| {
            findings.sort_by_key(|f| std::cmp::Reverse(f.certainty));
            let text = findings.iter().take(TOLD).map(|f| statement(f)).collect::<Vec<_>>().join("; ");
            (identifier.clone(), text)
        })
        .collect()
}

fn sentence(finding: &Finding) -> String {
    format!("{}: {}", finding.identifier, statement(finding))
}

fn statement(finding: &Finding) -> String {
    let Finding { seen, means, remedy, .. } = finding;
    if remedy.is_empty() { format!("{seen}: {means}") } else { format!("{seen}: {means}; to do: {remedy}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preflight::diagnosis::Cause;

    fn finding(name: &str, certainty: Certainty, seen: &str) -> Finding {
        Finding {
            identifier: name.parse().unwrap(),
            address: None,
            issuer: None,
            cause: Cause::Unknown,
            certainty,
            seen: seen.to_owned(),
            means: "m".to_owned(),
            remedy: "r".to_owned(),
        }
    }

    #[test]
    fn what_is_certain_is_told_before_what_may_be() {
        use Certainty::{Certain, Fine, Warning};
        let fine = finding("a.example", Fine, "f");
        let warning = finding("a.example", Warning, "w");
        let certain = finding("a.example", Certain, "c");
        let all_fine = summary(std::slice::from_ref(&fine));
        assert_eq!(all_fine, Summary { certain: false, inconclusive: false, text: String::new() });
        assert_eq!(summary(&[fine.clone(), warning.clone()]).text, "a.example: w: m; to do: r");
        let told = summary(&[warning.clone(), certain.clone()]);
        assert_eq!((told.certain, told.inconclusive), (true, true));
        assert_eq!(told.text, "a.example: c: m; to do: r");
        let many = summary(&vec![certain.clone(); 7]).text;
        assert!(many.ends_with("and 2 more: `wicketgate check` shows them all"), "{many}");

        let told = sentences(&[fine, warning, certain, finding("b.example", Fine, "f")]);
        assert_eq!(told.len(), 1);
        assert_eq!(told[&"a.example".parse().unwrap()], "c: m; to do: r; w: m; to do: r");
    }
}
