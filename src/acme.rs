//! The ACME engine (RFC 8555): an account at an issuer, an order, its http-01 challenges, a certificate.
//!
//! [`Session`] is an account at an issuer's directory; [`Session::obtain`] runs one order from its
//! creation to a proven [`Certificate`](crate::certificate::Certificate). Nothing here reads or writes
//! files: credentials come in and go out as text, challenges go into the
//! [`ChallengeTable`](crate::challenge::ChallengeTable) under guards.

mod abandoned;
mod account_key;
mod directory;
mod facts;
mod failure;
#[cfg(fuzzing)]
mod fuzzing;
mod key;
mod order;
mod poll;
mod problem;
mod renewal_info;
mod request;
mod session;
mod transport;

pub use account_key::{AccountKeyError, credentials};
pub use facts::{DirectoryFacts, account_uri, directory};
pub use failure::NameFailure;
#[cfg(fuzzing)]
pub use fuzzing::read_answer;
pub use problem::{AcmeError, Verdict};
pub use renewal_info::{CertificateId, RenewalWindow};
pub use request::{OrderRequest, Step};
pub use session::{Opened, Session, Setup};
// Other clients of this program reach the outside by the same ways.
pub(crate) use transport::{Connector, root_cause};
