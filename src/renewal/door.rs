//! Whether port 80 listens all the time, or only while an order is pending.

use std::cell::RefCell;
use std::fmt;
use std::rc::{Rc, Weak};

use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use crate::net::drain::{Stop, StopTrigger};
use crate::net::listen::ListenError;

/// The way in for the CA's validators.
pub enum Door {
    /// Somebody else listens all the time.
    Open,
    /// It is opened for the first order and shut after the last.
    Momentary(Momentary),
}

/// A gate that is opened on demand.
pub struct Momentary {
    open: Box<dyn Fn(Stop) -> Result<JoinHandle<()>, ListenError>>,
    present: RefCell<Weak<OpenDoor>>,
    /// The gate behind the present door, or behind the last one, which may still hold the port.
    gate: Mutex<Option<JoinHandle<()>>>,
}

/// Keeps the door open as long as it lives.
pub(super) struct OpenDoor {
    _trigger: StopTrigger,
}

impl Door {
    /// A door that `open` opens: it listens and serves until the stop that it is given.
    pub fn momentary(open: impl Fn(Stop) -> Result<JoinHandle<()>, ListenError> + 'static) -> Self {
        Self::Momentary(Momentary {
            open: Box::new(open),
            present: RefCell::default(),
            gate: Mutex::default(),
        })
    }

    /// Opens it, or joins those who hold it open. The gate of one that was shut a moment ago
    /// first lets go of the port.
    pub(super) async fn open(&self) -> Result<Option<Rc<OpenDoor>>, ListenError> {
        let Self::Momentary(momentary) = self else { return Ok(None) };
        let mut gate = momentary.gate.lock().await;
        if let Some(present) = momentary.present.borrow().upgrade() {
            return Ok(Some(present));
        }
        ended(&mut gate).await;
        let (trigger, stop) = StopTrigger::new();
        *gate = Some((momentary.open)(stop)?);
        let door = Rc::new(OpenDoor { _trigger: trigger });
        *momentary.present.borrow_mut() = Rc::downgrade(&door);
        Ok(Some(door))
    }

    /// Waits until the last answers of a shut door are sent.
    pub async fn shut(&self) {
        if let Self::Momentary(momentary) = self {
            ended(&mut *momentary.gate.lock().await).await;
        }
    }
}

async fn ended(gate: &mut Option<JoinHandle<()>>) {
    if let Some(serving) = gate.take() {
        // A gate that panicked is shut as well.
        let _ = serving.await;
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "Open",
            Self::Momentary(_) => "Momentary",
        })
    }
}
