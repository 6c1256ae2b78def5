//! A stop signal that any thread can give and any number of tasks can wait for.

use tokio::sync::watch;

/// Tells whether to stop. Clones listen to the same trigger.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Resolves once stopping was asked for, at once where it was already.
    pub async fn requested(&self) {
        // An error means that the trigger is gone, which is a request too.
        let _ = self.0.clone().wait_for(|stop| *stop).await;
    }

    /// Whether stopping was asked for.
    pub fn is_requested(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }
}

/// Asks for the stop; dropping it asks as well, so that nobody outlives the one in charge.
#[derive(Debug)]
pub struct StopTrigger(watch::Sender<bool>);

impl StopTrigger {
    /// A trigger and the signal that it gives.
    #[allow(clippy::new_ret_no_self)]
    pub fn new() -> (Self, Stop) {
        let (sender, receiver) = watch::channel(false);
        (Self(sender), Stop(receiver))
    }

    /// Asks everybody to stop; asking twice changes nothing.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waiters_wake_on_a_stop_from_another_thread() {
        let (trigger, stop) = StopTrigger::new();
        let waiting = tokio::spawn({
            let stop = stop.clone();
            async move { stop.requested().await }
        });
        assert!(!stop.is_requested());
        std::thread::spawn(move || {
            trigger.stop();
            trigger
        })
        .join()
        .unwrap();
        waiting.await.unwrap();
        assert!(stop.is_requested());
        stop.requested().await;
    }

    #[tokio::test]
    async fn a_lost_trigger_stops_too() {
        let (trigger, stop) = StopTrigger::new();
        drop(trigger);
        assert!(stop.is_requested());
        stop.requested().await;
    }
}
