//! What the preflight says of an order, as far as the keeper acts on it.

use std::collections::{BTreeMap, BTreeSet};

use super::issuer::ca_facts;
use super::keeper::Keeper;
use super::report::What;
use crate::config::CertificateRequest;
use crate::hostname::Identifier;
use crate::preflight::{self, Certainty, Finding, Preflight};

/// What an order can expect.
#[derive(Debug, Default)]
pub(super) struct Outlook {
    /// Names that the CA would not validate.
    pub(super) condemned: BTreeSet<Identifier>,
    /// Something could not be seen from here.
    pub(super) is_inconclusive: bool,
    /// What was found for each name that is not well; `None` where nobody looked.
    pub(super) sentences: Option<BTreeMap<Identifier, String>>,
    /// What was found for names that are condemned.
    pub(super) text: String,
}

impl Keeper {
    /// Looks at a certificate's names as the CA will, where that makes sense.
    pub(super) async fn look(&self, request: &CertificateRequest, tell: &impl Fn(What)) -> Outlook {
        let config = self.config();
        let issuer = &config.acme.issuer;
        if !preflight::applies(&config.acme, issuer, &config.gate) {
            return Outlook::default();
        }
        let preflight = match Preflight::new(&config) {
            Ok(preflight) => preflight,
            Err(e) => {
                tell(What::Warning(e.to_string()));
                return Outlook { is_inconclusive: true, ..Outlook::default() };
            }
        };
        // That the CA cannot be reached is told when it is asked.
        let (facts, _) = ca_facts(&config, Some(&self.store), issuer).await;
        let findings = preflight.look(&request.identifiers, &self.table, &facts).await;
        let outlook = Outlook::of(&findings);
        if outlook.condemned.is_empty() && outlook.is_inconclusive {
            tell(What::Warning(format!("the preflight: {}", outlook.text)));
        }
        outlook
    }
}

impl Outlook {
    fn of(findings: &[Finding]) -> Self {
        let certain = findings.iter().filter(|f| f.certainty == Certainty::Certain);
        let summary = preflight::summary(findings);
        Self {
            condemned: certain.map(|f| f.identifier.clone()).collect(),
            is_inconclusive: summary.inconclusive,
            sentences: Some(preflight::sentences(findings)),
            text: summary.text,
        }
    }
}
