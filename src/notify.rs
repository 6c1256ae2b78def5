//! Telling a person: to a command, a webhook, or by mail.
//!
//! [`Notifier::tell`] takes a [`Notice`] and returns at once; the notice is on disk by then and goes out on
//! every configured way, tried again and over restarts, without anybody waiting for it. [`queue`] decides,
//! pure, what goes out when; [`notice`] has the document that programs get. The [`ExpiryWatch`] tells of
//! certificates that near their end, knowing nothing of renewals.

pub mod expiry;
mod files;
mod mail;
pub mod notice;
mod notifier;
pub mod queue;
mod shown;
mod watch;
mod way;
mod webhook;

pub use crate::store::outbox::{Channel, Kind, Notice};
pub use mail::MailError;
pub use notifier::{Notifier, try_every_way};
pub use watch::ExpiryWatch;
pub use way::{DeliveryError, configured, describe};
pub use webhook::WebhookError;
