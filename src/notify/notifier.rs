//! Takes notices, keeps them on disk, and sees them out, each way in a loop of its own.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use super::queue::{self, Admission, Next};
use super::way::{self, DeliveryError};
use crate::clock;
use crate::config::Config;
use crate::deploy::{DeployError, Helper};
use crate::store::Store;
use crate::store::outbox::{Channel, Kind, Letter, Notice, Outbox};

/// Longest time between two looks at the clock, which may jump.
const LOOK: Duration = Duration::from_secs(30);

/// Tells a person, in its own time. Lives on one thread.
pub struct Notifier {
    config: RefCell<Arc<Config>>,
    store: Store,
    outbox: RefCell<Outbox>,
    /// One of its own: a command that hangs shall not hold up a server's reload.
    helper: Helper,
    changed: watch::Sender<()>,
}

impl Notifier {
    /// Takes up what was left on disk. `store` is a handle of its own to the state directory, whose lock
    /// this process holds. What could not be read is told.
    pub fn new(config: Arc<Config>, store: Store, helper: Helper) -> (Rc<Self>, Vec<String>) {
        let (outbox, told) = match store.outbox() {
            Ok(outbox) => (outbox, Vec::new()),
            Err(e) => {
                let aside = match store.set_aside_outbox() {
                    Ok(path) => path.map(|path| format!("; it is kept as {}", path.display())),
                    Err(e) => Some(format!("; it stays where it is: {e}")),
                };
                (Outbox::default(), vec![format!("{e}{}", aside.unwrap_or_default())])
            }
        };
        let (changed, _) = watch::channel(());
        let notifier =
            Self { config: RefCell::new(config), store, outbox: RefCell::new(outbox), helper, changed };
        notifier.tidy();
        (Rc::new(notifier), told)
    }

    /// Starts the helper where there is a command, while this process still has all its rights.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn start_helper(&self) -> Result<(), DeployError> {
        let config = self.config();
        if config.notify.command.is_some() { self.helper.start(&config).await } else { Ok(()) }
    }

    /// Takes a new configuration: what waits for a way that is gone is dropped.
    pub fn reconfigure(&self, config: Arc<Config>) {
        *self.config.borrow_mut() = config;
        self.tidy();
        self.changed.send_replace(());
    }

    /// Takes a notice: on disk when this returns, delivered later. Nothing happens where nobody is to be
    /// told, or where the cause was told within the quiet period.
    pub fn tell(&self, notice: &Notice) {
        let config = self.config();
        let (ways, quiet) = (way::configured(&config.notify), config.notify.quiet);
        let admission = queue::admit(&mut self.outbox.borrow_mut(), notice, &ways, quiet, now(), random());
        match admission {
            Admission::NoWay => {}
            Admission::Quiet => {
                tracing::debug!(certificate = notice.certificate, kind = %notice.kind, "told before, so nobody is told now");
            }
            Admission::Posted { given_up } => {
                give_up(&given_up);
                self.save();
                self.changed.send_replace(());
            }
        }
    }

    /// Something is well again: its next failure is told at once, be it within the quiet period. Without a
    /// cause everything of that kind and certificate is.
    pub fn mended(&self, kind: Kind, certificate: Option<&str>, cause: Option<&str>) {
        if queue::mend(&mut self.outbox.borrow_mut(), kind, certificate, cause) {
            self.save();
        }
    }

    /// Delivers whatever is due, for ever.
    pub async fn deliver(&self) {
        let [first, second, third] = Channel::ALL;
        tokio::join!(self.serve(first), self.serve(second), self.serve(third));
    }

    /// Delivers what is due now, and gives the rest up to the next time after `limit`.
    pub async fn flush(&self, limit: Duration) {
        let [first, second, third] = Channel::ALL;
        let all = async { tokio::join!(self.drain(first), self.drain(second), self.drain(third)) };
        if tokio::time::timeout(limit, all).await.is_err() {
            tracing::warn!("not every notice could be delivered in time; the rest is tried the next time");
        }
    }

    /// Ends the helper once it is idle.
    pub async fn close(&self) {
        self.helper.stop().await;
    }

    async fn serve(&self, way: Channel) {
        let mut changed = self.changed.subscribe();
        loop {
            changed.borrow_and_update();
            let pause = match self.next(way) {
                Next::Deliver(letter) => {
                    self.deliver_one(way, &letter).await;
                    continue;
                }
                Next::Wait(until) => {
                    Duration::try_from(until.duration_since(now())).unwrap_or_default().min(LOOK)
                }
                Next::Idle => LOOK,
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                // The sender lives as long as this does.
                _ = changed.changed() => {}
            }
        }
    }

    async fn drain(&self, way: Channel) {
        while let Next::Deliver(letter) = self.next(way) {
            self.deliver_one(way, &letter).await;
        }
    }

    fn next(&self, way: Channel) -> Next {
        queue::next(&self.outbox.borrow(), way, now())
    }

    async fn deliver_one(&self, way: Channel, letter: &Letter) {
        let config = self.config();
        let (kind, certificate) = (letter.notice.kind, letter.notice.certificate.as_deref());
        let delivered = way::deliver(way, &config, &self.helper, letter.id, &letter.notice).await;
        match delivered {
            Ok(sentences) => {
                tracing::info!(certificate, %kind, "a notice was taken by {}", way::describe(way, &config.notify));
                for sentence in sentences {
                    tracing::warn!(certificate, %kind, "{sentence}");
                }
                queue::arrived(&mut self.outbox.borrow_mut(), letter.id, way);
            }
            Err(e) => {
                let (jitter, place) = (unit(random()), way::describe(way, &config.notify));
                let retry_at = queue::failed(
                    &mut self.outbox.borrow_mut(),
                    letter.id,
                    way,
                    &e.to_string(),
                    now(),
                    jitter,
                );
                if let Some(retry_at) = retry_at {
                    let retry_at = retry_at.strftime("%Y-%m-%d %H:%M:%S UTC");
                    tracing::warn!(certificate, %kind, "a notice was not taken by {place}: {e}; it is tried again at {retry_at}");
                }
            }
        }
        self.tidy();
        self.save();
    }

    fn tidy(&self) {
        let ways = way::configured(&self.config().notify);
        give_up(&queue::tidy(&mut self.outbox.borrow_mut(), &ways, now()));
    }

    fn save(&self) {
        if let Err(e) = self.store.save_outbox(&self.outbox.borrow()) {
            tracing::warn!("notices are kept in memory only, and a restart would lose or repeat them: {e}");
        }
    }

    /// The present configuration.
    pub fn config(&self) -> Arc<Config> {
        self.config.borrow().clone()
    }
}

/// Tries every configured way once, now, all at the same time; each with its description and what came of
/// it. Nothing is kept.
pub async fn try_every_way(
    config: &Config,
    helper: &Helper,
    notice: &Notice,
) -> Vec<(String, Result<Vec<String>, DeliveryError>)> {
    let id = random();
    let try_way = async |way: Channel| {
        let is_configured = way::configured(&config.notify).contains(&way);
        if !is_configured {
            return None;
        }
        Some((way::describe(way, &config.notify), way::deliver(way, config, helper, id, notice).await))
    };
    let [first, second, third] = Channel::ALL;
    let (first, second, third) = tokio::join!(try_way(first), try_way(second), try_way(third));
    [first, second, third].into_iter().flatten().collect()
}

fn give_up(letters: &[Letter]) {
    for letter in letters {
        let certificate = letter.notice.certificate.as_deref();
        for (way, tries) in &letter.ways {
            let last = tries.last_error.as_deref().unwrap_or("it was never tried");
            tracing::error!(
                certificate,
                kind = %letter.notice.kind,
                "a notice could not be delivered by {way} and is given up: {}; the last try: {last}",
                letter.notice.summary
            );
        }
    }
}

fn now() -> Timestamp {
    Timestamp::try_from(clock::now()).unwrap_or(Timestamp::MAX)
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    // Without a source of randomness, a number that may repeat is better than no notice.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    u64::from_be_bytes(bytes)
}

/// A number from 0 to 1.
fn unit(random: u64) -> f64 {
    f64::from(u32::try_from(random >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX)
}
