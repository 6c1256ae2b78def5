//! Tokens that only another ACME client knows: while its relay is there, it is asked for those that are not
//! in the table. What it says is put into the table; the table alone answers.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::Token;
use crate::hostname::Identifier;

/// How long a relay may take for an answer: half of what CAs wait for one.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many questions a relay holds at once. Who asks beyond them gets what the table says.
pub const QUESTIONS: usize = 1024;

/// All relays. Clones share them; readers never wait.
#[derive(Clone, Default, Debug)]
pub(super) struct Relays(Arc<ArcSwap<Vec<Relay>>>);

#[derive(Clone, Debug)]
struct Relay {
    /// `None`: it may be asked for any.
    hosts: Arc<Option<BTreeSet<Identifier>>>,
    questions: mpsc::Sender<Question>,
}

/// A token that somebody came for and the table does not have. It is answered when this is dropped: then the
/// table is looked at again.
#[derive(Debug)]
pub struct Question {
    /// The token.
    pub token: Token,
    /// The host that was asked for.
    pub host: Identifier,
    answered: oneshot::Sender<()>,
}

impl Question {
    /// Whether the one who asked has gone, or was told to wait no longer.
    pub fn is_given_up(&self) -> bool {
        self.answered.is_closed()
    }
}

/// A relay's end of the line; it is asked as long as this lives.
#[derive(Debug)]
pub struct RelayEnd {
    relays: Relays,
    hosts: Arc<Option<BTreeSet<Identifier>>>,
    questions: mpsc::Receiver<Question>,
}

impl RelayEnd {
    /// The next question; cancelling loses none.
    pub async fn question(&mut self) -> Question {
        self.questions.recv().await.expect("the list keeps a sender as long as this lives")
    }
}

impl Drop for RelayEnd {
    fn drop(&mut self) {
        self.relays.0.rcu(|relays| {
            let others = relays.iter().filter(|relay| !Arc::ptr_eq(&relay.hosts, &self.hosts));
            others.cloned().collect::<Vec<_>>()
        });
    }
}

impl Relays {
    pub(super) fn add(&self, hosts: Option<BTreeSet<Identifier>>) -> RelayEnd {
        let (sender, questions) = mpsc::channel(QUESTIONS);
        let relay = Relay { hosts: Arc::new(hosts), questions: sender };
        self.0.rcu(|relays| relays.iter().chain([&relay]).cloned().collect::<Vec<_>>());
        RelayEnd { relays: self.clone(), hosts: relay.hosts, questions }
    }

    /// Asks every relay for that host; ready when all have answered, or after 5 s. `None` where nobody
    /// can be asked.
    pub(super) fn ask(&self, token: &Token, host: &Identifier) -> Option<impl Future<Output = ()> + use<>> {
        let relays = self.0.load();
        let mut asked = relays
            .iter()
            .filter(|relay| (*relay.hosts).as_ref().is_none_or(|hosts| hosts.contains(host)))
            .filter_map(|relay| {
                let (answered, answer) = oneshot::channel();
                let question = Question { token: token.clone(), host: host.clone(), answered };
                relay.questions.try_send(question).is_ok().then_some(answer)
            })
            .peekable();
        asked.peek()?;
        let asked: Vec<_> = asked.collect();
        Some(async move {
            let all = async {
                for answer in asked {
                    // It is dropped, never sent.
                    let _ = answer.await;
                }
            };
            // Whoever is late has not answered.
            let _ = timeout(PATIENCE, all).await;
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(relays: &Relays, host: &str) -> Option<impl Future<Output = ()> + use<>> {
        relays.ask(&"token".parse().unwrap(), &host.parse().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_relay_is_asked_for_its_hosts_as_long_as_it_lives() {
        let relays = Relays::default();
        assert!(ask(&relays, "a.net").is_none());
        let mut one = relays.add(Some(["a.net".parse().unwrap()].into()));
        assert!(ask(&relays, "b.net").is_none());
        let mut all = relays.add(None);
        let (a, b) = (ask(&relays, "a.net").unwrap(), ask(&relays, "b.net").unwrap());
        for question in [one.question().await, all.question().await] {
            assert_eq!((question.token.as_str(), question.host.to_string()), ("token", "a.net".into()));
            assert!(!question.is_given_up());
        }
        a.await;
        drop(b);
        assert!(all.question().await.is_given_up());
        drop(all);
        assert!(ask(&relays, "b.net").is_none());
        assert!(ask(&relays, "a.net").is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_slow_or_swamped_is_not_waited_for() {
        let relays = Relays::default();
        let mut slow = relays.add(None);
        let began = tokio::time::Instant::now();
        let asked: Vec<_> = std::iter::from_fn(|| ask(&relays, "a.net")).collect();
        assert_eq!(asked.len(), QUESTIONS);
        let kept = slow.question().await;
        for answer in asked.into_iter().take(1) {
            answer.await;
        }
        assert_eq!(began.elapsed(), PATIENCE);
        assert!(kept.is_given_up());
    }
}
