//! What the keeper does once a certificate is stored: has every server take it that has not.

use std::time::SystemTime;

use super::keeper::{Keeper, Outcome, rand_unit};
use super::lineages::stamp;
use super::report::What;
use super::schedule;
use crate::clock;
use crate::store::{Attempts, Deployed};

impl Keeper {
    /// Has every server take the live version that has not; `force` disregards put-off tries.
    pub(super) async fn deploy(&self, name: &str, force: bool, tell: &impl Fn(What)) -> Outcome {
        let config = self.config();
        let pending: Vec<_> = match self.lineages.borrow().get(name) {
            Some(lineage) => lineage.pending_deploys().collect(),
            None => return Outcome::Well,
        };
        let mut outcome = Outcome::Well;
        for (service, retry_at) in pending {
            if let Some(retry_at) = retry_at.filter(|at| !force && *at > clock::now()) {
                let last_error = self.last_deploy_error(name, &service);
                tell(What::DeployHeld { service, retry_at: stamp(retry_at), last_error });
                outcome = Outcome::Failed;
                continue;
            }
            let result = self.helper.reload(&config, &service, &[name.to_owned()]).await;
            let failed = self.record_deploy(name, &service, result.as_ref().err().map(ToString::to_string));
            match failed {
                None => tell(What::Deployed { service }),
                Some((error, retry_at)) => {
                    outcome = Outcome::Failed;
                    tell(What::DeployFailed { service, error, retry_at: stamp(retry_at) });
                }
            }
            if let Err(e) = self.save_state(name) {
                tell(What::Warning(e.to_string()));
            }
        }
        outcome
    }

    fn record_deploy(
        &self,
        name: &str,
        service: &str,
        error: Option<String>,
    ) -> Option<(String, SystemTime)> {
        let mut lineages = self.lineages.borrow_mut();
        let lineage = lineages.get_mut(name)?;
        let version = lineage.live.as_ref().map(|(version, _)| *version);
        let kept = lineage.state.deployed.entry(service.to_owned()).or_default();
        let Some(error) = error else {
            *kept = Deployed { version, attempts: Attempts::default() };
            return None;
        };
        kept.attempts.failures += 1;
        let pause = schedule::deploy_retry_after(kept.attempts.failures, rand_unit());
        let retry_at = clock::now() + pause;
        kept.attempts.retry_at = Some(stamp(retry_at));
        kept.attempts.last_error = Some(error.clone());
        Some((error, retry_at))
    }

    fn last_deploy_error(&self, name: &str, service: &str) -> String {
        let lineages = self.lineages.borrow();
        let kept = lineages.get(name).and_then(|l| l.state.deployed.get(service));
        kept.and_then(|d| d.attempts.last_error.clone()).unwrap_or_default()
    }
}
