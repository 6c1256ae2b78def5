//! Certificates, from due to served: the only place that orders them.
//!
//! [`Lineages`] knows what is stored and what follows from it; [`Keeper`] acts on it, one pass at a
//! time; [`schedule`] decides, pure. Everything that happens is told as an [`Event`].

mod door;
pub mod explanation;
mod issuer;
mod keeper;
mod lineages;
mod report;
pub mod schedule;

pub use door::Door;
pub use issuer::{IssuerError, reachable, read_roots};
pub use keeper::{Keeper, Outcome, Served, UnknownNames};
pub use lineages::Lineages;
pub use report::{CertificateStatus, DeployStatus, Event, What};
