//! Certificates, from due to served: the only place that orders them.
//!
//! [`Lineages`] knows what is stored and what follows from it; [`Keeper`] acts on it, one pass at a
//! time; [`schedule`] and [`ledger`] decide, pure. Everything that happens is told as an [`Event`].

mod asking;
mod attempt;
mod deploys;
mod door;
pub mod explanation;
mod half;
mod information;
mod issuer;
mod keeper;
mod kept;
pub mod ledger;
mod lineages;
pub mod names;
mod outlook;
pub mod postponement;
mod rehearse;
mod report;
pub mod schedule;

pub use door::{Door, DoorError, OpenDoor, Opened};
pub use issuer::{IssuerError, ca_facts};
pub use keeper::{Asked, Keeper, Outcome, Served, UnknownNames};
pub use kept::ledger as stored_ledger;
pub use lineages::Lineages;
pub use rehearse::RehearsalRefused;
pub use report::{AlsoServed, CertificateStatus, DeployStatus, Event, NameStatus, What};
