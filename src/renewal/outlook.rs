//! What the preflight says of an order, as far as the keeper acts on it.

use std::collections::{BTreeMap, BTreeSet};

use super::keeper::Keeper;
use super::report::What;
use crate::config::{CertificateRequest, Issuer};
use crate::hostname::Identifier;
use crate::preflight::{self, CaFacts, Preflight};

/// What an order can expect.
#[derive(Debug, Default)]
pub(super) struct Outlook {
    /// Names that the CA would not validate.
    pub(super) condemned: BTreeSet<Identifier>,
    /// Something could not be seen from here.
    pub(super) is_inconclusive: bool,
    /// What was found for each name that is not well.
    pub(super) sentences: BTreeMap<Identifier, String>,
    /// What was found for names that are condemned.
    pub(super) text: String,
}
