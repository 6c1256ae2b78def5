//! New orders that are refused because of their identifiers, in the forms that authorities use.

use crate::hostname::Identifier;

use super::super::problem::{Problem, ProblemType};

/// Identifiers that no order may have, and how that is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedIdentifiers {
    /// Those that are refused; an order with others only is taken.
    pub identifiers: Vec<Identifier>,
    /// Why: `rejectedIdentifier`, `caa` and the like.
    pub kind: ProblemType,
    /// Where the answer names them.
    pub form: RefusalForm,
}

/// How a refusal tells which identifiers are at fault.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RefusalForm {
    /// By a subproblem for each of them, even where there is one only (RFC 8555 section 6.7.1).
    #[default]
    Subproblems,
    /// By its detail alone.
    Detail,
    /// Not at all.
    Nameless,
}

impl RefusedIdentifiers {
    /// The answer to an order for those identifiers, if it is refused.
    pub(in super::super) fn verdict(&self, ordered: &[Identifier]) -> Option<Problem> {
        let refused: Vec<_> =
            ordered.iter().filter(|&identifier| self.identifiers.contains(identifier)).collect();
        if refused.is_empty() {
            return None;
        }
        let says = |identifier: &Identifier| match self.kind {
            ProblemType::Caa => format!("CAA record for {identifier} prevents issuance"),
            _ => format!("the CA does not issue for \"{identifier}\""),
        };
        Some(match self.form {
            RefusalForm::Subproblems => {
                let detail = format!("{} of the identifiers are refused", refused.len());
                let subproblems = refused
                    .iter()
                    .map(|&identifier| (Some(identifier.clone()), self.kind, says(identifier)))
                    .collect();
                Problem::new(self.kind, detail).with_subproblems(subproblems)
            }
            RefusalForm::Detail => {
                let details: Vec<_> = refused.into_iter().map(says).collect();
                Problem::new(self.kind, details.join("; "))
            }
            RefusalForm::Nameless => Problem::new(self.kind, "one or more of the identifiers are refused"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Identifier {
        text.parse().unwrap()
    }

    #[test]
    fn only_the_named_identifiers_are_refused_in_the_chosen_form() {
        let refused = |form| RefusedIdentifiers {
            identifiers: vec![name("a.example"), name("b.example")],
            kind: ProblemType::Caa,
            form,
        };
        let ordered = [name("a.example"), name("c.example")];
        assert_eq!(refused(RefusalForm::Detail).verdict(&[name("c.example")]), None);

        let listed = refused(RefusalForm::Subproblems).verdict(&ordered).unwrap().to_json();
        assert_eq!(listed["subproblems"].as_array().unwrap().len(), 1);
        assert_eq!(listed["subproblems"][0]["identifier"]["value"], "a.example");
        assert_eq!(listed["subproblems"][0]["type"], "urn:ietf:params:acme:error:caa");
        assert_eq!(listed["status"], 403);

        let named = refused(RefusalForm::Detail).verdict(&ordered).unwrap().to_json();
        assert_eq!(named["detail"], "CAA record for a.example prevents issuance");
        assert_eq!(named.get("subproblems"), None);

        let nameless = refused(RefusalForm::Nameless).verdict(&ordered).unwrap().to_json();
        assert!(!nameless.to_string().contains("a.example"), "{nameless}");
    }
}
