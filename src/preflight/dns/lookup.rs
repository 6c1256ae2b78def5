//! One question to the resolvers, followed to its end: through aliases, and past a failed check of
//! signatures to tell a broken DNSSEC from a broken server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::time::Instant;

use super::exchange::{Plan, Trouble};
use super::message::{Question, says};
use super::reading::{Chain, Reading, in_words};
use crate::preflight::evidence::{DnsFailure, Signatures};

/// A lost datagram is sent again, a slow server gets company, after this long.
const PAUSE: Duration = Duration::from_secs(1);

const PLAN: Plan = Plan { rounds: 2, pause: PAUSE, accept };

/// The resolvers that are asked.
#[derive(Debug, Clone)]
pub(super) struct Lookup {
    servers: Arc<[SocketAddr]>,
    /// Signatures are left unchecked.
    unchecked: bool,
}

/// Where a question ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ended {
    /// The name it ended at: the one asked for, or the last of its aliases.
    pub(super) at: Name,
    /// With what.
    pub(super) with: End,
}

/// What a question ended with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// Records of the type that was asked for.
    Found {
        /// The records.
        records: Vec<RData>,
        /// A server of the zone says so.
        authoritative: bool,
    },
    /// None of that type.
    NoData {
        /// A server of the zone says so.
        authoritative: bool,
    },
    /// No such name.
    NoName {
        /// A server of the zone says so.
        authoritative: bool,
    },
    /// No answer.
    Failed(DnsFailure),
}

impl Lookup {
    pub(super) fn new(servers: &[SocketAddr]) -> Self {
        Self { servers: servers.into(), unchecked: false }
    }

    /// The same resolvers, asked to leave signatures unchecked.
    pub(super) fn unchecked(&self) -> Self {
        Self { unchecked: true, ..self.clone() }
    }

    /// Asks until there is an end to it, or the time is up.
    pub(super) async fn ask(&self, name: Name, kind: RecordType, until: Instant) -> Ended {
        let mut chain = Chain::new(name);
        loop {
            let answer = match self.answer(chain.end(), kind, until).await {
                Ok(answer) => answer,
                Err(failure) => return Ended { at: chain.end().clone(), with: End::Failed(failure) },
            };
            let with = match chain.read(&answer, kind) {
                Reading::Alias => continue,
                Reading::Found { records, authoritative } => End::Found { records, authoritative },
                Reading::NoData { authoritative } => End::NoData { authoritative },
                Reading::NoName { authoritative } => End::NoName { authoritative },
                Reading::ServFail => {
                    End::Failed(DnsFailure::ServFail { confirmed: false, says: says(&answer) })
                }
                Reading::Referral(referral) => End::Failed(DnsFailure::Unusable(format!(
                    "the name server does not resolve names for this machine, it names the servers of {}",
                    referral.zone
                ))),
                Reading::Nonsense(why) => End::Failed(DnsFailure::Unusable(why)),
            };
            return Ended { at: chain.end().clone(), with };
        }
    }

    /// An answer that is no SERVFAIL, or why there is none.
    async fn answer(&self, name: &Name, kind: RecordType, until: Instant) -> Result<Message, DnsFailure> {
        let question = Question { unchecked: self.unchecked, ..Question::new(name, kind) };
        let answer = PLAN.ask(&self.servers, &question, until).await.map_err(failure)?;
        // Where nothing was checked, no check has failed.
        if !is_failure(&answer) || self.unchecked {
            return Ok(answer);
        }
        let says = says(&answer);
        let failed = DnsFailure::ServFail { confirmed: false, says: says.clone() };
        let unchecked = PLAN.ask(&self.servers, &question.clone().unchecked(), until).await;
        if !unchecked.is_ok_and(|answer| !is_failure(&answer)) {
            return Err(failed);
        }
        // A failure that has passed meanwhile looks the same as one that only the check causes.
        match PLAN.ask(&self.servers, &question, until).await {
            Ok(answer) if !is_failure(&answer) => Ok(answer),
            _ => Err(DnsFailure::Bogus { own: Signatures::Unheard, says }),
        }
    }
}

fn is_failure(answer: &Message) -> bool {
    answer.metadata.response_code == ResponseCode::ServFail
}

fn failure(trouble: Trouble) -> DnsFailure {
    match trouble {
        Trouble::Silent => DnsFailure::Silent,
        Trouble::Refused => DnsFailure::Refused,
        Trouble::Unusable(why) | Trouble::Failing(why) => DnsFailure::Unusable(why),
    }
}

fn accept(server: SocketAddr, answer: Message) -> Result<Message, Trouble> {
    match answer.metadata.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain | ResponseCode::ServFail => Ok(answer),
        ResponseCode::Refused => Err(Trouble::Refused),
        other => Err(Trouble::Unusable(format!("{server} answers {}", in_words(other)))),
    }
}
