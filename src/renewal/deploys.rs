//! What the keeper does once certificates are stored: has every server take those that it has not. What
//! comes after what is decided in [`crate::deploy::transaction`]; here it is performed, told and kept.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use tokio::task::JoinSet;

use super::keeper::{Keeper, Outcome, rand_unit};
use super::lineages::stamp;
use super::report::{Event, What};
use super::schedule;
use crate::certificate::Bundle;
use crate::clock;
use crate::config::{Config, DeployTarget};
use crate::deploy::DeployError;
use crate::deploy::transaction::{Beginning, Fault, Item, Seen, Step, Transaction, Verdict, Which};
use crate::deploy::verify::{self, Roots};
use crate::store::{Attempts, Deployed, StoreError, Version};

/// Certificates that are looked at at once.
const LOOKS: usize = 8;

/// Certificates that a step is told of one by one; of more, the first stands for all.
const TOLD: usize = 3;

/// Which servers are to take a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Those that have not, after a failure not before its pause is over.
    Due,
    /// Those that have not.
    Pending,
    /// All, those that have it as well.
    Again,
}

/// One server, and the certificates that it is to take.
struct Round<'a> {
    config: Arc<Config>,
    service: &'a str,
    target: &'a DeployTarget,
    parcels: Vec<Parcel>,
    /// Places of those whose files could not be copied: what follows is not about them.
    uncopied: RefCell<BTreeSet<usize>>,
    told: &'a dyn Fn(&Event),
}

/// A certificate on its way to a server.
struct Parcel {
    name: String,
    version: Version,
    bundle: Bundle,
    previous: Option<Version>,
    /// A transaction before this one has not come to its end.
    was_cut_short: bool,
}

impl Keeper {
    /// Has servers take certificates, one server after the other, each with all that is for it at once;
    /// how it ended for each certificate.
    pub(super) async fn deploy(
        &self,
        names: &[String],
        wanted: Wanted,
        told: &dyn Fn(&Event),
    ) -> BTreeMap<String, Outcome> {
        let mut outcomes: BTreeMap<_, _> = names.iter().map(|name| (name.clone(), Outcome::Well)).collect();
        let config = self.config();
        let mut rounds: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for name in names {
            for (service, retry_at) in self.servers(name, wanted) {
                if let Some(retry_at) = retry_at.filter(|at| wanted == Wanted::Due && *at > clock::now()) {
                    let last_error = self.last_deploy_error(name, &service);
                    let what = What::DeployHeld { service, retry_at: stamp(retry_at), last_error };
                    told(&Event { certificate: name.clone(), what });
                    outcomes.insert(name.clone(), Outcome::Failed);
                    continue;
                }
                rounds.entry(service).or_default().push(name.clone());
            }
        }
        for (service, names) in rounds {
            let Some(target) = config.deploy.get(&service) else { continue };
            let parcels = names.iter().filter_map(|name| self.parcel(name, &service)).collect();
            let uncopied = RefCell::default();
            let round = Round { config: config.clone(), service: &service, target, parcels, uncopied, told };
            let (verdicts, is_down) = self.have_taken(&round).await;
            for (parcel, verdict) in round.parcels.iter().zip(verdicts) {
                if verdict.is_err() {
                    outcomes.insert(parcel.name.clone(), Outcome::Failed);
                }
                self.conclude(&round, parcel, verdict, is_down, wanted);
                self.hold_back_for_others(&round, parcel);
            }
        }
        outcomes
    }

    /// Has `live` lead to versions that were held back for servers which the configuration names no more.
    pub(super) fn release_held_back(&self) -> Vec<String> {
        let names = self.lineages.borrow().names();
        let held = |name: &String| {
            let lineages = self.lineages.borrow();
            let lineage = lineages.get(name).filter(|lineage| lineage.is_held_back_for_nobody())?;
            lineage.live.as_ref().map(|(version, _)| *version)
        };
        let mut told = Vec::new();
        for (name, version) in names.into_iter().filter_map(|name| held(&name).map(|version| (name, version)))
        {
            let released = self.store.make_live(&name, version).and_then(|()| {
                if let Some(lineage) = self.lineages.borrow_mut().get_mut(&name) {
                    lineage.state.held_back = None;
                }
                self.save_state(&name)
            });
            told.extend(released.err().map(|e| e.to_string()));
        }
        told
    }

    fn servers(&self, name: &str, wanted: Wanted) -> Vec<(String, Option<SystemTime>)> {
        let lineages = self.lineages.borrow();
        let Some(lineage) = lineages.get(name) else { return Vec::new() };
        match wanted {
            Wanted::Due | Wanted::Pending => lineage.pending_deploys(clock::now()).collect(),
            Wanted::Again => lineage.deploys().map(|service| (service, None)).collect(),
        }
    }

    fn parcel(&self, name: &str, service: &str) -> Option<Parcel> {
        let lineages = self.lineages.borrow();
        let lineage = lineages.get(name)?;
        let (version, bundle) = lineage.live.clone()?;
        // What it took last is better than a later version that it did not take either.
        let taken = lineage.state.deployed.get(service).and_then(|deployed| deployed.version);
        let taken = taken.filter(|taken| *taken < version && self.store.version(name, *taken).is_ok());
        let before = || self.store.version_before(name, version).ok().flatten().map(|(version, _)| version);
        let was_cut_short = lineage.state.deployed.get(service).is_some_and(|deployed| deployed.under_way);
        let previous = taken.or_else(before);
        Some(Parcel { name: name.to_owned(), version, bundle, previous, was_cut_short })
    }

    /// Goes through the transaction with one server; also whether it was left not running.
    async fn have_taken(&self, round: &Round<'_>) -> (Vec<Verdict>, bool) {
        let items = round.parcels.iter().map(|parcel| self.item(round, parcel)).collect();
        let mut transaction = Transaction::new(Beginning {
            has_copies: round.target.copies.is_some(),
            has_endpoints: !round.target.verify.is_empty(),
            was_cut_short: round.parcels.iter().any(|parcel| parcel.was_cut_short),
            items,
        });
        let mut seen = Seen::Nothing;
        loop {
            let step = transaction.next(seen);
            if step == Step::End {
                let is_down = transaction.is_down();
                return (transaction.verdicts(), is_down);
            }
            seen = self.perform(round, step).await;
        }
    }

    fn item(&self, round: &Round<'_>, parcel: &Parcel) -> Item {
        let lineages = self.lineages.borrow();
        let is_held_back = lineages.get(&parcel.name).is_some_and(|l| l.state.held_back.is_some());
        // Of copies, what was there before the first of them is kept.
        let can_go_back = round.target.copies.is_some() || self.may_live_again(parcel);
        Item { is_held_back, can_go_back }
    }

    /// Whether the previous version could be served as well: it is valid, and its CA stands by it.
    fn may_live_again(&self, parcel: &Parcel) -> bool {
        let lineages = self.lineages.borrow();
        let distrusted =
            lineages.get(&parcel.name).map(|l| l.state.distrusted.as_slice()).unwrap_or_default();
        let previous = parcel.previous.and_then(|version| self.store.version(&parcel.name, version).ok());
        previous.is_some_and(|bundle| {
            let serials = bundle.serials();
            bundle.not_after() > clock::now() && !serials.iter().any(|serial| distrusted.contains(serial))
        })
    }

    async fn perform(&self, round: &Round<'_>, step: Step) -> Seen {
        let Round { config, service, .. } = round;
        match step {
            Step::Running => match self.helper.is_running(config, service).await {
                Ok(Some(true)) => Seen::Done,
                Ok(Some(false)) => {
                    Seen::Failed("it does not run: start it, and it reads the new files by itself".to_owned())
                }
                Ok(None) => Seen::Nothing,
                Err(e) => Seen::Failed(e.to_string()),
            },
            Step::Live(which, places) => self.make_live(round, which, &places),
            Step::Copy(which, places) => self.copy(round, which, places).await,
            Step::Check => {
                let seen = done(self.helper.check(config, service).await);
                if seen == Seen::Done {
                    round.say(&format!("{service}: its configuration passes its own test"));
                }
                seen
            }
            Step::Reload(places) => {
                let parcels: Vec<_> = places.iter().map(|place| &round.parcels[*place]).collect();
                if let Err(e) = self.begin(&parcels, service) {
                    return Seen::Failed(e);
                }
                let names: Vec<_> = parcels.iter().map(|parcel| parcel.name.clone()).collect();
                let seen = done(self.helper.reload(config, service, &names).await.map(|()| true));
                if seen == Seen::Done {
                    round.say(&format!("{service}: reloaded"));
                }
                seen
            }
            Step::Start => {
                let seen = done(self.helper.start_server(config, service).await);
                if seen == Seen::Done {
                    round.say(&format!("{service}: it had ended, and was started again"));
                }
                seen
            }
            Step::Look(places) => look(round, places).await,
            Step::End => Seen::Nothing,
        }
    }

    fn make_live(&self, round: &Round<'_>, which: Which, places: &[usize]) -> Seen {
        for place in places {
            let parcel = &round.parcels[*place];
            self.with_deployed(parcel, round.service, |kept| kept.goes_back = which == Which::Previous);
            if let Err(e) = self.lead(parcel, which) {
                return Seen::Failed(e.to_string());
            }
        }
        Seen::Done
    }

    /// Has `live` lead to a version. That the other one is to be served is written down as long as that may be
    /// so.
    fn lead(&self, parcel: &Parcel, which: Which) -> Result<(), StoreError> {
        let hold = |held_back| {
            if let Some(lineage) = self.lineages.borrow_mut().get_mut(&parcel.name) {
                lineage.state.held_back = held_back;
            }
            self.save_state(&parcel.name)
        };
        hold(Some(parcel.version))?;
        match (which, parcel.previous) {
            (Which::Previous, Some(previous)) => self.store.make_live(&parcel.name, previous),
            _ => {
                self.store.make_live(&parcel.name, parcel.version)?;
                hold(None)
            }
        }
    }

    /// A server that takes it reads the new version once; then `live` leads back to the one that every other
    /// server can be started with.
    fn hold_back_for_others(&self, round: &Round<'_>, parcel: &Parcel) {
        let is_for_others = {
            let lineages = self.lineages.borrow();
            lineages.get(&parcel.name).is_some_and(|lineage| {
                let goes_back =
                    |service: &String| lineage.state.deployed.get(service).is_some_and(|d| d.goes_back);
                lineage.state.held_back.is_none() && lineage.request.deploy.iter().any(goes_back)
            })
        };
        if is_for_others
            && self.may_live_again(parcel)
            && let Err(e) = self.lead(parcel, Which::Previous)
        {
            round.tell(parcel, What::Warning(e.to_string()));
        }
    }

    async fn copy(&self, round: &Round<'_>, which: Which, places: Vec<usize>) -> Seen {
        let (config, service) = (&round.config, round.service);
        let mut answers = Vec::new();
        for place in places {
            let parcel = &round.parcels[place];
            let Parcel { name, version, was_cut_short, .. } = parcel;
            let copied = match which {
                Which::New => match self.begin(&[parcel], service) {
                    Ok(()) => self
                        .helper
                        .copy(config, service, name, *version, *was_cut_short)
                        .await
                        .map(|()| false),
                    Err(e) => return Seen::Failed(e),
                },
                Which::Previous => self.helper.put_back(config, service, name, *version).await,
            };
            if copied.is_err() && which == Which::New {
                round.uncopied.borrow_mut().insert(place);
            }
            let what = if which == Which::New { "copy failed: " } else { "" };
            let fault = |e: DeployError| Fault { text: format!("{what}{e}"), is_refused: false };
            let put_back = |is_back: bool| if is_back { "put back".to_owned() } else { String::new() };
            answers.push((place, copied.map(put_back).map_err(fault)));
        }
        Seen::Each(answers)
    }

    /// Writes down that something is done to the server: whoever comes after a crash has to finish it, and may
    /// have to start the server.
    fn begin(&self, parcels: &[&Parcel], service: &str) -> Result<(), String> {
        for parcel in parcels {
            if let Some(lineage) = self.lineages.borrow_mut().get_mut(&parcel.name) {
                lineage.state.deployed.entry(service.to_owned()).or_default().under_way = true;
            }
            self.save_state(&parcel.name).map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    /// Keeps and tells how it ended.
    fn conclude(&self, round: &Round<'_>, parcel: &Parcel, verdict: Verdict, is_down: bool, wanted: Wanted) {
        let service = round.service.to_owned();
        let what = match verdict {
            Ok(proof) => {
                self.with_deployed(parcel, &service, |kept| {
                    *kept = Deployed { version: Some(parcel.version), ..Deployed::default() };
                });
                What::Deployed { service, proof }
            }
            Err(error) => {
                let mut retry_at = clock::now();
                self.with_deployed(parcel, &service, |kept| {
                    // Whatever it had taken before, it does not serve it now.
                    kept.version = kept.version.filter(|version| *version != parcel.version);
                    kept.under_way = is_down;
                    // What a person tries does not make the others rarer.
                    let counts = u32::from(wanted == Wanted::Due || kept.attempts.failures == 0);
                    let failures = kept.attempts.failures.saturating_add(counts);
                    retry_at += schedule::deploy_retry_after(failures, rand_unit());
                    let last_error = Some(error.clone());
                    kept.attempts = Attempts { failures, retry_at: Some(stamp(retry_at)), last_error };
                });
                What::DeployFailed { service, error, retry_at: stamp(retry_at) }
            }
        };
        round.tell(parcel, what);
        if let Err(e) = self.save_state(&parcel.name) {
            round.tell(parcel, What::Warning(e.to_string()));
        }
    }

    fn with_deployed(&self, parcel: &Parcel, service: &str, change: impl FnOnce(&mut Deployed)) {
        if let Some(lineage) = self.lineages.borrow_mut().get_mut(&parcel.name) {
            change(lineage.state.deployed.entry(service.to_owned()).or_default());
        }
    }

    fn last_deploy_error(&self, name: &str, service: &str) -> String {
        let lineages = self.lineages.borrow();
        let kept = lineages.get(name).and_then(|l| l.state.deployed.get(service));
        kept.and_then(|d| d.attempts.last_error.clone()).unwrap_or_default()
    }
}

impl Round<'_> {
    fn tell(&self, parcel: &Parcel, what: What) {
        (self.told)(&Event { certificate: parcel.name.clone(), what });
    }

    /// A step of the server's, for the certificates that it takes.
    fn say(&self, text: &str) {
        let uncopied = self.uncopied.borrow();
        let parcels = self.parcels.iter().enumerate().filter(|(place, _)| !uncopied.contains(place));
        let parcels: Vec<_> = parcels.map(|(_, parcel)| parcel).collect();
        let count = parcels.len();
        let others =
            if count > TOLD { format!(" (for this and {} others)", count - 1) } else { String::new() };
        let first = if count > TOLD { 1 } else { count };
        for parcel in &parcels[..first] {
            self.tell(parcel, What::Step(format!("{text}{others}")));
        }
    }
}

fn done(result: Result<bool, DeployError>) -> Seen {
    match result {
        Ok(true) => Seen::Done,
        Ok(false) => Seen::Nothing,
        Err(e) => Seen::Failed(e.to_string()),
    }
}

/// Sees at every endpoint whether the certificates at those places are served.
async fn look(round: &Round<'_>, places: Vec<usize>) -> Seen {
    let roots = match Roots::load(round.config.acme.roots.as_deref()) {
        Ok(roots) => Arc::new(roots),
        Err(e) => return Seen::Failed(e.to_string()),
    };
    let endpoints: Arc<[_]> = round.target.verify.clone().into();
    let within = round.target.verify_timeout;
    let mut waiting = places.into_iter();
    let mut looks = JoinSet::new();
    let mut answers = Vec::new();
    loop {
        while looks.len() < LOOKS
            && let Some(place) = waiting.next()
        {
            let bundle = round.parcels[place].bundle.clone();
            let (endpoints, roots) = (endpoints.clone(), roots.clone());
            looks.spawn(async move {
                let (mut proofs, mut warnings) = (Vec::new(), Vec::new());
                let certificates: Vec<_> = bundle.certificates().cloned().collect();
                for endpoint in endpoints.iter() {
                    match verify::shows(endpoint, &certificates, bundle.identifiers(), &roots, within).await {
                        Ok(served) => {
                            warnings.extend(served.warnings.iter().map(|w| format!("{endpoint}: {w}")));
                            let versions: Vec<_> = served.versions.iter().map(ToString::to_string).collect();
                            proofs.push(format!("{endpoint} ({})", versions.join(", ")));
                        }
                        Err(e) => {
                            let fault = Fault { text: e.to_string(), is_refused: e.is_refused() };
                            return (place, warnings, Err(fault));
                        }
                    }
                }
                (place, warnings, Ok(proofs.join(", ")))
            });
        }
        match looks.join_next().await {
            None => return Seen::Each(answers),
            Some(Ok((place, warnings, answer))) => {
                for warning in warnings {
                    round.tell(&round.parcels[place], What::Warning(warning));
                }
                answers.push((place, answer));
            }
            Some(Err(e)) => return Seen::Failed(format!("it could not be looked at; this is a bug: {e}")),
        }
    }
}
