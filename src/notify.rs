//! Telling a person: to a command, a webhook, or by mail.

pub mod queue;

pub use crate::store::outbox::{Channel, Kind, Notice};
