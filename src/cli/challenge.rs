//! `challenge`: tokens from another ACME client.

mod relay;

use std::time::Duration;

use clap::Subcommand;
use http::Method;

use super::{Arguments, FAILED, Failure, output, runtime};
use crate::admin::ForeignChallenge;
use crate::admin::client::Client;
use crate::hostname::Identifier;

#[derive(Subcommand, Debug)]
pub(super) enum ChallengeCommand {
    /// Answer a token for a host until it is removed, its time is over or the daemon ends; the gate is opened for it
    Put {
        /// Host to answer for
        host: Identifier,
        /// The challenge's token; behind `--`, it may begin with anything
        #[arg(allow_hyphen_values = true)]
        token: String,
        /// The exact answer, `TOKEN.THUMBPRINT`
        #[arg(allow_hyphen_values = true)]
        key_authorization: String,
        /// For how long at most
        #[arg(long, default_value = "10m", value_parser = humantime::parse_duration)]
        ttl: Duration,
        /// Another host to answer for; may be repeated
        #[arg(long = "host", value_name = "HOST", id = "more")]
        more: Vec<Identifier>,
    },
    /// Answer a token no more
    Remove {
        /// The challenge's token; behind `--`, it may begin with anything
        #[arg(allow_hyphen_values = true)]
        token: String,
    },
    /// Print the tokens that are answered
    List,
    /// Run another ACME client with the gate open, and ask it for the tokens that come: one that answers on a port of
    /// its own (lego, acme.sh, certbot --standalone) or writes into a web root. Ends with its exit code
    Relay(relay::RelayArguments),
}

pub(super) fn run(arguments: &Arguments, command: &ChallengeCommand) -> Result<u8, Failure> {
    let configured = arguments.configured()?;
    runtime()?.block_on(async {
        let Some(daemon) = Client::connect(configured.socket()).await? else {
            let message = format!(
                "no daemon answers on {}: start it with `wicketgate run`",
                configured.socket().display()
            );
            return Err(Failure::new(FAILED, message));
        };
        match command {
            ChallengeCommand::Relay(arguments) => {
                return relay::run(daemon, configured.socket(), arguments).await;
            }
            ChallengeCommand::Put { host, token, key_authorization, ttl, more } => {
                let challenge = ForeignChallenge {
                    key_authorization: key_authorization.clone(),
                    hosts: std::iter::once(host).chain(more).cloned().collect(),
                    ttl: ttl.as_secs(),
                };
                let body = serde_json::to_vec(&challenge).expect("plain values always have a JSON form");
                daemon.challenge(Method::PUT, token, body.into()).await?;
            }
            ChallengeCommand::Remove { token } => {
                daemon.challenge(Method::DELETE, token, bytes::Bytes::new()).await?;
            }
            ChallengeCommand::List => {
                for token in daemon.challenges().await? {
                    output::line(&token);
                }
            }
        }
        Ok(0)
    })
}
