//! Challenges of other ACME clients: tokens that are put here, and relays to clients that tell theirs when they
//! are asked.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::{ForeignChallenge, RelayAnswer, RelayQuestion, RelayRequest};
use crate::challenge::{ChallengeGuard, ChallengeTable, Pending, Purpose, QUESTIONS, Question, Token};
use crate::hostname::Identifier;
use crate::net::drain::Stop;
use crate::renewal::{Keeper, OpenDoor};

/// Tokens that are held at once, those of relays included.
const LIMIT: usize = 1000;

/// Relays at once.
const RELAYS: usize = 16;

/// For how long a token may be put here.
const TIMES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(86_400);

/// Why a token is not answered, in one or more sentences.
#[derive(Debug)]
pub(super) enum ForeignError {
    /// What was sent is no such thing.
    Malformed(String),
    /// Not now.
    Conflict(String),
}

/// All of them, on the keeper's thread.
pub(super) struct ForeignChallenges {
    table: ChallengeTable,
    keeper: Rc<Keeper>,
    held: RefCell<HashMap<String, Held>>,
    relays: Cell<usize>,
    asked: RefCell<HashMap<u64, Asked>>,
    last: Cell<u64>,
}

/// A token, answered as long as this lives.
struct Held {
    _guard: ChallengeGuard,
    _door: Option<OpenDoor>,
    until: Until,
}

/// When a token is withdrawn, where nobody removes it.
enum Until {
    /// Its own time is over.
    Timer(AbortHandle),
    /// The relay that told it ends.
    Relay(u64),
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Until::Timer(timer) = &self.until {
            timer.abort();
        }
    }
}

/// A question that a relay has not answered yet.
struct Asked {
    relay: u64,
    question: Question,
}

impl ForeignChallenges {
    pub(super) fn new(table: ChallengeTable, keeper: Rc<Keeper>) -> Rc<Self> {
        Rc::new(Self {
            table,
            keeper,
            held: RefCell::default(),
            relays: Cell::new(0),
            asked: RefCell::default(),
            last: Cell::new(0),
        })
    }

    /// The tokens held.
    pub(super) fn list(&self) -> Vec<String> {
        self.held.borrow().keys().cloned().collect()
    }

    /// Holds a token for its time, with the gate open.
    pub(super) async fn put(
        self: &Rc<Self>,
        token: &str,
        challenge: ForeignChallenge,
    ) -> Result<(), ForeignError> {
        let token = parse(token, &challenge.key_authorization)?;
        let ttl = Duration::from_secs(challenge.ttl);
        if !TIMES.contains(&ttl) {
            return Err(ForeignError::Malformed("a token is held from 1 second to 24 hours".to_owned()));
        }
        self.space()?;
        let door = self.open().await?;
        let name = token.as_str().to_owned();
        let timer = tokio::task::spawn_local({
            let (challenges, name) = (Rc::downgrade(self), name);
            async move {
                tokio::time::sleep(ttl).await;
                if let Some(challenges) = challenges.upgrade() {
                    challenges.remove(&name);
                }
            }
        });
        let hosts = challenge.hosts.into_iter().collect();
        self.hold(token, challenge.key_authorization, hosts, door, Until::Timer(timer.abort_handle()));
        Ok(())
    }

    /// Withdraws a token; false where it is not here.
    pub(super) fn remove(&self, token: &str) -> bool {
        let removed = self.held.borrow_mut().remove(token);
        removed.is_some()
    }

    /// A daemon that stops holds the gate open for nobody.
    pub(super) fn clear(&self) {
        let held = self.held.take();
        drop(held);
    }

    /// Has another client asked for its tokens, with the gate open, until nobody reads the questions any more.
    pub(super) async fn relay(
        self: &Rc<Self>,
        request: RelayRequest,
        stop: Stop,
    ) -> Result<mpsc::UnboundedReceiver<Bytes>, ForeignError> {
        if self.relays.get() >= RELAYS {
            return Err(ForeignError::Conflict(format!("{RELAYS} relays are there already")));
        }
        let door = self.open().await?;
        let relay = self.next();
        let hosts = (!request.hosts.is_empty()).then(|| request.hosts.into_iter().collect());
        let mut end = self.table.relay(hosts);
        self.relays.set(self.relays.get() + 1);
        let (sender, receiver) = mpsc::unbounded_channel();
        let challenges = self.clone();
        tokio::task::spawn_local(async move {
            let _open = door;
            loop {
                let question = tokio::select! {
                    () = sender.closed() => break,
                    () = stop.requested() => break,
                    question = end.question() => question,
                };
                if let Some(question) = challenges.ask(relay, question) {
                    // Whoever read them may have gone, which ends the loop.
                    let _ = sender.send(line(&question));
                }
            }
            challenges.relays.set(challenges.relays.get() - 1);
            challenges.asked.borrow_mut().retain(|_, asked| asked.relay != relay);
            challenges
                .held
                .borrow_mut()
                .retain(|_, held| !matches!(held.until, Until::Relay(of) if of == relay));
        });
        Ok(receiver)
    }

    /// Notes a question, for its answer; none where there are too many without one.
    fn ask(&self, relay: u64, question: Question) -> Option<RelayQuestion> {
        let mut asked = self.asked.borrow_mut();
        asked.retain(|_, asked| !asked.question.is_given_up());
        if asked.values().filter(|asked| asked.relay == relay).count() >= QUESTIONS {
            return None;
        }
        let number = self.next();
        let line =
            RelayQuestion { number, token: question.token.as_str().to_owned(), host: question.host.clone() };
        asked.insert(number, Asked { relay, question });
        Some(line)
    }

    /// Takes a relay's answer; who asked looks at the table again.
    pub(super) fn answer(&self, answer: RelayAnswer) -> Result<(), ForeignError> {
        let Some(Asked { relay, question }) = self.asked.borrow_mut().remove(&answer.number) else {
            return Err(ForeignError::Conflict("that question waits no longer".to_owned()));
        };
        if let Some(key_authorization) = answer.key_authorization {
            let token = parse(question.token.as_str(), &key_authorization)?;
            self.space()?;
            let hosts = [question.host.clone()].into();
            self.hold(token, key_authorization, hosts, None, Until::Relay(relay));
        }
        Ok(())
    }

    fn hold(
        &self,
        token: Token,
        key_authorization: String,
        hosts: BTreeSet<Identifier>,
        door: Option<OpenDoor>,
        until: Until,
    ) {
        let name = token.as_str().to_owned();
        let key_authorization = Bytes::from(key_authorization);
        let pending = Pending { key_authorization, hosts: Arc::new(hosts), purpose: Purpose::Order };
        let guard = self.table.put(token, pending);
        let earlier = self.held.borrow_mut().insert(name, Held { _guard: guard, _door: door, until });
        drop(earlier);
    }

    fn space(&self) -> Result<(), ForeignError> {
        if self.held.borrow().len() < LIMIT {
            return Ok(());
        }
        Err(ForeignError::Conflict(format!("{LIMIT} tokens are held already: remove some")))
    }

    async fn open(&self) -> Result<Option<OpenDoor>, ForeignError> {
        let opened = self.keeper.door().open().await;
        opened.map_err(|e| ForeignError::Conflict(format!("the gate cannot answer it: {e}")))
    }

    fn next(&self) -> u64 {
        self.last.set(self.last.get() + 1);
        self.last.get()
    }
}

fn line(question: &RelayQuestion) -> Bytes {
    let mut line = serde_json::to_vec(question).expect("plain values always have a JSON form");
    line.push(b'\n');
    Bytes::from(line)
}

/// The token, where the key authorization is one of its (RFC 8555 section 8.1).
fn parse(token: &str, key_authorization: &str) -> Result<Token, ForeignError> {
    let token: Token = token.parse().map_err(|e| ForeignError::Malformed(format!("{e}")))?;
    let thumbprint = key_authorization.strip_prefix(token.as_str()).and_then(|rest| rest.strip_prefix('.'));
    if !thumbprint.is_some_and(|t| Token::is_valid(t.as_bytes())) {
        let error = "the key authorization is not TOKEN.THUMBPRINT (RFC 8555 section 8.1)".to_owned();
        return Err(ForeignError::Malformed(error));
    }
    Ok(token)
}
