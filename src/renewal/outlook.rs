//! What the preflight says of an order, as far as the keeper acts on it.

use std::collections::{BTreeMap, BTreeSet};

use super::issuer::ca_facts;
use super::keeper::Keeper;
use super::report::What;
use crate::config::CertificateRequest;
use crate::hostname::Identifier;
use crate::preflight::{self, Finding, Preflight};

/// What an order can expect.
#[derive(Debug, Default)]
pub(super) struct Outlook {
    /// Names that no CA would validate, or that keep every issuer from signing for the others.
    pub(super) condemned: BTreeSet<Identifier>,
    /// Something could not be seen from here.
    pub(super) is_inconclusive: bool,
    /// What was found for each name that is not well; `None` where nobody looked.
    pub(super) sentences: Option<BTreeMap<Identifier, String>>,
    /// What was found for names that are condemned.
    pub(super) text: String,
    findings: Option<Vec<Finding>>,
}

impl Keeper {
    /// Looks at a certificate's names as the CAs will, where that makes sense.
    pub(super) async fn look(&self, request: &CertificateRequest, tell: &impl Fn(What)) -> Outlook {
        let config = self.config();
        if !preflight::applies(&config.acme, &config.acme.issuer, &config.gate) {
            return Outlook::default();
        }
        let preflight = match Preflight::new(&config) {
            Ok(preflight) => preflight,
            Err(e) => {
                tell(What::Warning(e.to_string()));
                return Outlook { is_inconclusive: true, ..Outlook::default() };
            }
        };
        // That a CA cannot be reached is told when it is asked.
        let (facts, _) = ca_facts(&config, Some(&self.store)).await;
        let findings = preflight.look(&request.identifiers, &self.table, &facts).await;
        let issuers: Vec<_> = facts.into_iter().map(|ca| ca.issuer).collect();
        let outlook = Outlook::of(findings, &issuers);
        if outlook.condemned.is_empty() && outlook.is_inconclusive {
            tell(What::Warning(format!("the preflight: {}", outlook.text)));
        }
        outlook
    }
}

impl Outlook {
    /// For an order that these issuers may be asked for, in this order. What was found about one that is
    /// passed over, or that only stands by, is no matter of an order at another one.
    fn of(findings: Vec<Finding>, issuers: &[String]) -> Self {
        let standing = preflight::standing(&findings, issuers);
        let first = standing.allowed.first();
        let is_meant = |f: &&Finding| first.is_none() || f.issuer.is_none() || f.issuer.as_ref() == first;
        let meant: Vec<_> = findings.iter().filter(is_meant).cloned().collect();
        let summary = preflight::summary(&meant);
        Self {
            condemned: standing.condemned,
            is_inconclusive: summary.inconclusive,
            sentences: Some(preflight::sentences(&meant)),
            text: summary.text,
            findings: Some(findings),
        }
    }

    /// The same for an order at that issuer.
    pub(super) fn at(&self, issuer: &str) -> Self {
        match &self.findings {
            Some(findings) => Self::of(findings.clone(), &[issuer.to_owned()]),
            None => Self { is_inconclusive: self.is_inconclusive, ..Self::default() },
        }
    }

    /// Why an issuer is not asked for these names; `None` where it may be.
    pub(super) fn forbids(&self, issuer: &str, names: &[Identifier]) -> Option<String> {
        let findings = self.findings.as_deref().unwrap_or_default();
        let against: Vec<_> = preflight::against(findings, issuer, names).into_iter().cloned().collect();
        (!against.is_empty()).then(|| preflight::summary(&against).text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preflight::{Cause, Certainty};

    fn finding(name: &str, issuer: Option<&str>, certainty: Certainty) -> Finding {
        Finding {
            identifier: name.parse().unwrap(),
            address: None,
            issuer: issuer.map(str::to_owned),
            cause: Cause::CaaForbidden,
            certainty,
            seen: format!("{name} at {}", issuer.unwrap_or("all")),
            means: "m".to_owned(),
            remedy: String::new(),
        }
    }

    #[test]
    fn an_order_is_told_what_concerns_it() {
        use Certainty::{Certain, Warning};
        let issuers = ["one".to_owned(), "two".to_owned()];
        let passed_over = vec![
            finding("a.example", Some("one"), Certain),
            finding("a.example", Some("two"), Warning),
            finding("b.example", None, Warning),
        ];
        let outlook = Outlook::of(passed_over, &issuers);
        assert_eq!((outlook.condemned.len(), outlook.is_inconclusive), (0, true));
        assert_eq!(outlook.text, "a.example: a.example at two: m; b.example: b.example at all: m");
        assert_eq!(outlook.at("two").text, outlook.text);
        assert_eq!(outlook.at("one").text, "a.example: a.example at one: m");
        let names: Vec<Identifier> = ["a.example", "b.example"].iter().map(|n| n.parse().unwrap()).collect();
        assert!(outlook.forbids("one", &names).is_some_and(|why| why.contains("a.example at one")));
        assert_eq!(outlook.forbids("one", &names[1..]), None);
        assert_eq!(outlook.forbids("two", &names), None);

        let stands_by = Outlook::of(vec![finding("a.example", Some("two"), Certain)], &issuers);
        assert_eq!((stands_by.condemned.len(), stands_by.is_inconclusive), (0, false));
        assert_eq!(stands_by.text, "");

        let everywhere =
            vec![finding("a.example", Some("one"), Certain), finding("a.example", Some("two"), Certain)];
        let everywhere = Outlook::of(everywhere, &issuers);
        assert_eq!(everywhere.condemned.len(), 1);
        assert!(everywhere.text.contains("at one") && everywhere.text.contains("at two"));
        assert_eq!(Outlook::default().forbids("one", &names), None);
    }
}
