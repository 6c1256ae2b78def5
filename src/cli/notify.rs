//! `notify --test`: whether a notice would reach anybody.

use clap::Args;
use jiff::Timestamp;

use super::{Arguments, CONFIGURATION, FAILED, Failure, helper_arguments, log, output, runtime};
use crate::clock;
use crate::deploy::Helper;
use crate::notify::{self, notice};

#[derive(Args, Debug)]
pub(super) struct NotifyArguments {
    /// Send a test notice on every configured way, now, and say of each whether it was taken
    #[arg(long, required = true)]
    test: bool,
}

pub(super) fn run(arguments: &Arguments, _: &NotifyArguments) -> Result<u8, Failure> {
    let config = arguments.load_aloud()?;
    log::start(arguments, "warn")?;
    if notify::configured(&config.notify).is_empty() {
        let message = "there is nobody to tell: write `command`, `webhook` or `mail` under [notify] (`wicketgate config example` shows them)";
        return Err(Failure::new(CONFIGURATION, message));
    }
    let at = Timestamp::try_from(clock::now()).unwrap_or(Timestamp::MAX);
    let test = notice::test_notice(at, &notice::host());
    let helper = Helper::new(helper_arguments());
    let runtime = runtime()?;
    let results = runtime.block_on(async {
        let results = notify::try_every_way(&config, &helper, &test).await;
        helper.stop().await;
        results
    });
    // A name that is still being looked up is nobody's concern any more.
    runtime.shutdown_background();
    let mut code = 0;
    for (way, result) in results {
        match result {
            Ok(sentences) => {
                output::line(&format!("{way}: taken"));
                for sentence in sentences {
                    output::line(&format!("{way}: but {sentence}"));
                    code = FAILED;
                }
            }
            Err(e) => {
                output::line(&format!("{way}: NOT taken: {e}"));
                code = FAILED;
            }
        }
    }
    Ok(code)
}
