//! Telling a person: to a command, a webhook, or by mail.
