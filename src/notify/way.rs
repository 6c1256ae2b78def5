//! The ways to a person that a configuration has, and one delivery on one of them.

use super::mail::{self, MailError};
use super::notice;
use super::webhook::{self, WebhookError};
use crate::config::{Config, Notify};
use crate::deploy::{DeployError, Helper};
use crate::store::outbox::{Channel, Notice};

/// Why a notice was not taken; the sentence is meant for the administrator.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// By the command.
    #[error(transparent)]
    Command(#[from] DeployError),
    /// By the webhook.
    #[error(transparent)]
    Webhook(#[from] WebhookError),
    /// By the mail server.
    #[error(transparent)]
    Mail(#[from] MailError),
    /// The configuration has changed meanwhile.
    #[error("there is no {0} in [notify] any more")]
    Gone(Channel),
}

/// The ways that are configured.
pub fn configured(notify: &Notify) -> Vec<Channel> {
    let is_there = |channel: &Channel| match channel {
        Channel::Command => notify.command.is_some(),
        Channel::Webhook => notify.webhook.is_some(),
        Channel::Mail => notify.mail.is_some(),
    };
    Channel::ALL.into_iter().filter(is_there).collect()
}

/// A way as a sentence names it, without anything that is secret in it.
pub fn describe(way: Channel, notify: &Notify) -> String {
    let (command, webhook, mail) = (&notify.command, &notify.webhook, &notify.mail);
    let place = match way {
        Channel::Command => command.as_ref().and_then(|words| words.first().cloned()),
        Channel::Webhook => webhook.as_ref().map(webhook::place),
        Channel::Mail => mail.as_ref().map(mail::describe),
    };
    place.map_or_else(|| way.to_string(), |place| format!("{way} ({place})"))
}

/// Delivers on one way, within that way's time limit. What is returned deserves a word though it arrived.
pub(super) async fn deliver(
    way: Channel,
    config: &Config,
    helper: &Helper,
    id: u64,
    notice: &Notice,
) -> Result<Vec<String>, DeliveryError> {
    let notify = &config.notify;
    match (way, &notify.command, &notify.webhook, &notify.mail) {
        (Channel::Command, Some(_), ..) => helper.notify(config, &notice::document(id, notice)).await?,
        (Channel::Webhook, _, Some(url), _) => {
            let document = notice::document(id, notice).to_string();
            webhook::send(url, notify.webhook_roots.as_deref(), document).await?;
        }
        (Channel::Mail, _, _, Some(mail)) => return Ok(mail::send(mail, id, notice).await?),
        _ => return Err(DeliveryError::Gone(way)),
    }
    Ok(Vec::new())
}
