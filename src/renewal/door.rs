//! Whether port 80 listens all the time, or only while somebody is expected.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{Mutex, Notify};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::net::drain::{Stop, StopTrigger};
use crate::net::listen::ListenError;

/// The way in for the CA's validators.
#[derive(Debug)]
pub enum Door {
    /// Somebody else listens all the time.
    Open,
    /// It is opened for the first order and shut after the last.
    Momentary(Momentary),
}

/// Why it cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// The port cannot be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// What stands before it (`[[gate.opening]]`) cannot be opened.
    #[error("[[gate.opening]] fails: {0}")]
    Opening(String),
}

/// What opening comes to: what then serves until its stop.
pub type Opened = Pin<Box<dyn Future<Output = Result<JoinHandle<()>, DoorError>>>>;

/// Makes a gate listen and serve until the stop that it is given, with what stands before it open; what it comes to
/// is awaited before the port is asked for again.
type Opener = Box<dyn Fn(Stop) -> Opened>;

/// A gate that is opened on demand.
pub struct Momentary {
    open: Opener,
    /// How long it stays open for those who come late.
    linger: Duration,
    present: Rc<RefCell<Option<Rc<Holders>>>>,
    /// The gate behind the present door, or behind the last one, which may still hold the port.
    gate: Mutex<Option<JoinHandle<()>>>,
}

/// Who holds the door open.
#[derive(Default)]
struct Holders {
    count: Cell<usize>,
    /// There is no time to linger.
    hurried: Cell<bool>,
    changed: Notify,
}

/// Keeps the door open as long as it lives.
#[must_use = "the door is shut when this is dropped"]
pub struct OpenDoor(Rc<Holders>);

impl OpenDoor {
    fn held(holders: &Rc<Holders>) -> Self {
        holders.count.set(holders.count.get() + 1);
        holders.changed.notify_one();
        Self(holders.clone())
    }
}

impl Drop for OpenDoor {
    fn drop(&mut self) {
        self.0.count.set(self.0.count.get() - 1);
        self.0.changed.notify_one();
    }
}

impl Door {
    /// A door that `open` opens, and that stays open for a while (`linger`) after the last who held it.
    pub fn momentary(open: impl Fn(Stop) -> Opened + 'static, linger: Duration) -> Self {
        Self::Momentary(Momentary {
            open: Box::new(open),
            linger,
            present: Rc::default(),
            gate: Mutex::default(),
        })
    }

    /// Opens it, or joins those who hold it open. The gate of one that was shut a moment ago first lets go of
    /// the port. To be called inside a `LocalSet`.
    ///
    /// # Errors
    /// The port cannot be had, or what stands before it does not open.
    pub async fn open(&self) -> Result<Option<OpenDoor>, DoorError> {
        let Self::Momentary(momentary) = self else { return Ok(None) };
        let mut gate = momentary.gate.lock().await;
        if let Some(holders) = &*momentary.present.borrow() {
            return Ok(Some(OpenDoor::held(holders)));
        }
        ended(&mut gate).await;
        let (trigger, stop) = StopTrigger::new();
        *gate = Some((momentary.open)(stop).await?);
        let holders = Rc::<Holders>::default();
        let door = OpenDoor::held(&holders);
        *momentary.present.borrow_mut() = Some(holders.clone());
        let (present, linger) = (momentary.present.clone(), momentary.linger);
        tokio::task::spawn_local(async move {
            let _stopped_with_it = trigger;
            holders.left(linger).await;
            present.take();
        });
        Ok(Some(door))
    }

    /// Whether somebody may come in now.
    pub fn is_open(&self) -> bool {
        match self {
            Self::Open => true,
            Self::Momentary(momentary) => momentary.present.borrow().is_some(),
        }
    }

    /// Where it does not linger, waits until the last answers of a shut door are sent.
    pub async fn shut(&self) {
        if let Self::Momentary(momentary) = self
            && momentary.linger.is_zero()
        {
            self.close().await;
        }
    }

    /// Shuts it once nobody holds it, without lingering, and waits until the last answers are sent.
    pub async fn close(&self) {
        let Self::Momentary(momentary) = self else { return };
        if let Some(holders) = &*momentary.present.borrow() {
            holders.hurried.set(true);
            holders.changed.notify_one();
        }
        ended(&mut *momentary.gate.lock().await).await;
    }
}

impl Holders {
    /// Waits until the last of them has gone and none has come for a while.
    async fn left(&self, linger: Duration) {
        loop {
            while self.count.get() > 0 {
                self.changed.notified().await;
            }
            if self.hurried.get() || timeout(linger, self.changed.notified()).await.is_err() {
                return;
            }
        }
    }
}

async fn ended(gate: &mut Option<JoinHandle<()>>) {
    if let Some(serving) = gate.take() {
        // A gate that panicked is shut as well.
        let _ = serving.await;
    }
}

impl fmt::Debug for Momentary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Momentary").field("linger", &self.linger).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::LocalSet;
    use tokio::time::{advance, sleep};

    use super::*;

    /// A door, how often it was opened, and whether a gate serves behind it.
    fn door(linger: Duration) -> (Door, Rc<Cell<u32>>, Rc<Cell<bool>>) {
        let (opened, serves) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
        let door = Door::momentary(
            {
                let (opened, serves) = (opened.clone(), serves.clone());
                move |stop| {
                    assert!(!serves.replace(true), "the port is not free");
                    opened.set(opened.get() + 1);
                    let serves = serves.clone();
                    Box::pin(async move {
                        Ok(tokio::task::spawn_local(async move {
                            stop.requested().await;
                            // The last answers.
                            sleep(Duration::from_millis(10)).await;
                            serves.set(false);
                        }))
                    })
                }
            },
            linger,
        );
        (door, opened, serves)
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_shut_a_while_after_the_last_who_held_it() {
        LocalSet::new()
            .run_until(async {
                let (door, opened, serves) = door(Duration::from_secs(5));
                let first = door.open().await.unwrap();
                let second = door.open().await.unwrap();
                drop(first);
                sleep(Duration::from_secs(60)).await;
                assert!(serves.get() && door.is_open());
                drop(second);
                sleep(Duration::from_secs(4)).await;
                assert!(serves.get());
                let third = door.open().await.unwrap();
                sleep(Duration::from_secs(60)).await;
                assert!(serves.get());
                drop(third);
                sleep(Duration::from_secs(6)).await;
                assert!(!serves.get() && !door.is_open());
                assert_eq!(opened.get(), 1);
                drop(door.open().await.unwrap());
                assert_eq!(opened.get(), 2);
            })
            .await;
    }

    #[tokio::test(start_paused = true)]
    async fn without_lingering_the_next_waits_for_the_port() {
        LocalSet::new()
            .run_until(async {
                let (door, opened, serves) = door(Duration::ZERO);
                for n in 1..=3 {
                    drop(door.open().await.unwrap());
                    tokio::task::yield_now().await;
                    assert_eq!(opened.get(), n);
                    advance(Duration::from_millis(1)).await;
                }
                door.shut().await;
                assert!(!serves.get());
            })
            .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_close_waits_for_those_who_hold_it_and_not_for_latecomers() {
        LocalSet::new()
            .run_until(async {
                let (door, _, serves) = door(Duration::from_secs(3600));
                let held = door.open().await.unwrap();
                let holding = tokio::task::spawn_local(async move {
                    sleep(Duration::from_secs(1)).await;
                    drop(held);
                });
                door.close().await;
                assert!(holding.is_finished() && !serves.get());
                door.close().await;
            })
            .await;
    }
}
