//! A deadline that moves with every sign of life costs no timer: the timer stays where it was, and when
//! it fires, it is set to where the deadline has moved meanwhile.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

/// A timer to be asked with a moment that may differ from call to call.
#[derive(Debug, Default)]
pub(super) struct Deadline(Option<Pin<Box<Sleep>>>);

impl Deadline {
    /// Ready once `at` has passed; wakes the task for it otherwise.
    pub(super) fn poll(&mut self, context: &mut Context<'_>, at: Instant) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if at < sleep.deadline() {
            sleep.as_mut().reset(at);
        }
        loop {
            ready!(sleep.as_mut().poll(context));
            if sleep.deadline() >= at {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn follows_the_moment_it_is_asked_for() {
        let start = Instant::now();
        let mut deadline = Deadline::default();
        let mut first = true;
        poll_fn(|context| {
            let at = start + Duration::from_secs(if std::mem::take(&mut first) { 1 } else { 5 });
            deadline.poll(context, at)
        })
        .await;
        assert_eq!(start.elapsed().as_secs(), 5, "later than it was set to");
        let far = Instant::now() + Duration::from_secs(60);
        assert!(poll_fn(|context| Poll::Ready(deadline.poll(context, far))).await.is_pending());
        poll_fn(|context| deadline.poll(context, start + Duration::from_secs(7))).await;
        assert_eq!(start.elapsed().as_secs(), 7, "earlier than it was set to");
        poll_fn(|context| deadline.poll(context, start)).await;
        assert_eq!(start.elapsed().as_secs(), 7, "the past is at once");
    }
}
