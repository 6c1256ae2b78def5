//! `reload`: has the running daemon read its configuration again.

use super::{Arguments, CONFIGURATION, FAILED, Failure, output, runtime};
use crate::admin::client::{Client, ClientError};

pub(super) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let configured = arguments.configured()?;
    let warnings = runtime()?.block_on(async {
        let Some(daemon) = Client::connect(configured.socket()).await? else {
            let message = format!(
                "no daemon answers on {}: start it with `wicketgate run`",
                configured.socket().display()
            );
            return Err(Failure::new(FAILED, message));
        };
        daemon.reload().await.map_err(|e| match e {
            ClientError::Refused(reason) => Failure::new(CONFIGURATION, reason),
            other => other.into(),
        })
    })?;
    for warning in warnings {
        output::complain(&format!("warning: {warning}"));
    }
    output::line("the daemon has taken the configuration");
    Ok(0)
}
