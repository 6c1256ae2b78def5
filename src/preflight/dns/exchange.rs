//! One question to one or several name servers: UDP, TCP where the answer is too long for it, another
//! server where one is silent.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::message::{Misfit, Question, is_puzzled};
use crate::words::printable;

/// More than was offered to take, so that a server that sends more is seen to do so.
const DATAGRAM: usize = 4096;
/// Datagrams with a wrong number that are passed over: others may guess, and nobody guesses for ever.
const STRAYS: usize = 64;

/// Why there is no answer; the greater, the more it tells.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trouble {
    /// No answer in time.
    Silent,
    /// It cannot be reached, or the answer makes no sense; in words.
    Unusable(String),
    /// A zone's own server fails at its zone; in words.
    Failing(String),
    /// It does not serve this machine.
    Refused,
}

/// Whom to ask, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// How often each server is asked.
    pub(super) rounds: usize,
    /// How long one has before another is asked too; the first one may still answer.
    pub(super) pause: Duration,
    /// What counts as an answer.
    pub(super) accept: fn(SocketAddr, Message) -> Result<Message, Trouble>,
}

impl Plan {
    /// The first answer that counts from any of the servers, or the trouble that tells most.
    pub(super) async fn ask(
        &self,
        servers: &[SocketAddr],
        question: &Question,
        until: Instant,
    ) -> Result<Message, Trouble> {
        let mut waiting: VecDeque<SocketAddr> = (0..self.rounds).flat_map(|_| servers).copied().collect();
        let mut asked = JoinSet::new();
        let mut trouble = Trouble::Silent;
        loop {
            if Instant::now() >= until {
                waiting.clear();
            }
            if let Some(server) = waiting.pop_front() {
                asked.spawn(one(server, question.clone(), until, self.accept));
            }
            // Each ends by itself when the time is up, and says then what it has seen.
            let ended = if waiting.is_empty() {
                asked.join_next().await
            } else {
                match timeout_at(Instant::now() + self.pause, asked.join_next()).await {
                    Ok(ended) => ended,
                    Err(_) => continue,
                }
            };
            match ended {
                Some(Ok(Ok(answer))) => return Ok(answer),
                Some(Ok(Err(seen))) => trouble = trouble.max(seen),
                Some(Err(_)) => {}
                None => return Err(trouble),
            }
        }
    }
}

async fn one(
    server: SocketAddr,
    question: Question,
    until: Instant,
    accept: fn(SocketAddr, Message) -> Result<Message, Trouble>,
) -> Result<Message, Trouble> {
    let mut answer = ask(server, &question, true, until).await?;
    if is_puzzled(&answer) {
        answer = ask(server, &question, false, until).await?;
    }
    accept(server, answer)
}

/// Asks by UDP, and again by TCP where the answer was cut off (RFC 7766 section 5).
async fn ask(
    server: SocketAddr,
    question: &Question,
    edns: bool,
    until: Instant,
) -> Result<Message, Trouble> {
    let answer = by_udp(server, question, edns, until).await?;
    if !answer.metadata.truncation {
        return Ok(answer);
    }
    let exchange = by_tcp(server, question, edns);
    match timeout_at(until, exchange).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(why)) => Err(Trouble::Unusable(format!("{server} has a long answer, and over TCP: {why}"))),
        Err(_) => Err(Trouble::Unusable(format!(
            "{server} has a long answer, and over TCP it does not come; let port 53/tcp out"
        ))),
    }
}

async fn by_udp(
    server: SocketAddr,
    question: &Question,
    edns: bool,
    until: Instant,
) -> Result<Message, Trouble> {
    let unreachable = |error: io::Error| Trouble::Unusable(format!("{server}: {}", in_words(&error)));
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await.map_err(unreachable)?;
    // Only this server's datagrams arrive then, and that nobody listens there is heard at once.
    socket.connect(server).await.map_err(unreachable)?;
    let id = number();
    match timeout_at(until, socket.send(&question.bytes(id, edns))).await {
        Ok(sent) => sent.map_err(unreachable)?,
        Err(_) => return Err(Trouble::Silent),
    };
    let mut datagram = vec![0; DATAGRAM];
    let mut seen = Trouble::Silent;
    for _ in 0..STRAYS {
        let length = match timeout_at(until, socket.recv(&mut datagram)).await {
            Ok(received) => received.map_err(unreachable)?,
            Err(_) => return Err(seen),
        };
        match question.answer(id, &datagram[..length]) {
            Ok(answer) => return Ok(answer),
            Err(misfit) => {
                seen = Trouble::Unusable(format!("{server} sends {misfit}"));
                if misfit != Misfit::OtherId {
                    break;
                }
            }
        }
    }
    Err(seen)
}

/// The length before a message makes 65,535 bytes the most (RFC 1035 section 4.2.2).
async fn by_tcp(server: SocketAddr, question: &Question, edns: bool) -> Result<Message, String> {
    let failed = |error: io::Error| in_words(&error);
    let mut stream = TcpStream::connect(server).await.map_err(failed)?;
    let id = number();
    let question_bytes = question.bytes(id, edns);
    let length = u16::try_from(question_bytes.len()).expect("a question has less than 300 bytes");
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend(question_bytes);
    stream.write_all(&framed).await.map_err(failed)?;
    let length = stream.read_u16().await.map_err(failed)?;
    let mut bytes = Vec::new();
    (&mut stream).take(u64::from(length)).read_to_end(&mut bytes).await.map_err(failed)?;
    if bytes.len() < usize::from(length) {
        return Err("the connection ends within the answer".into());
    }
    match question.answer(id, &bytes) {
        // A part of the records may say the opposite of all of them.
        Ok(answer) if answer.metadata.truncation => Err("it is cut off there too".into()),
        Ok(answer) => Ok(answer),
        Err(misfit) => Err(format!("it sends {misfit}")),
    }
}

/// A number that nobody guesses: it is what keeps a stranger's answer out.
fn number() -> u16 {
    let mut bytes = [0; 2];
    aws_lc_rs::rand::fill(&mut bytes).expect("the generator is seeded, or the process would have ended");
    u16::from_be_bytes(bytes)
}

fn in_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NetworkUnreachable => "network unreachable".into(),
        io::ErrorKind::HostUnreachable => "host unreachable".into(),
        io::ErrorKind::ConnectionRefused => "connection refused, no name server listens there".into(),
        io::ErrorKind::PermissionDenied => "a firewall of this machine does not let the question out".into(),
        io::ErrorKind::UnexpectedEof => "the connection ends within the answer".into(),
        _ => printable(&error.to_string(), 100),
    }
}

/// Runs all of them at once; their results are in the order of the futures.
pub(super) async fn together<T, F>(futures: Vec<F>) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let mut running = JoinSet::new();
    for (index, future) in futures.into_iter().enumerate() {
        running.spawn(async move { (index, future.await) });
    }
    let mut results = running.join_all().await;
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

/// The first result, in the order of the futures, that is `decisive`; as soon as it and all before it are
/// there. They run at once.
pub(super) async fn first<T, F>(futures: Vec<F>, mut decisive: impl FnMut(&T) -> bool) -> Option<(usize, T)>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let mut running = JoinSet::new();
    let mut results = Vec::new();
    for (index, future) in futures.into_iter().enumerate() {
        running.spawn(async move { (index, future.await) });
        results.push(None);
    }
    let mut settled = 0;
    while let Some(ended) = running.join_next().await {
        let Ok((index, result)) = ended else { continue };
        results[index] = Some(result);
        while let Some(result) = results.get_mut(settled).and_then(Option::take) {
            if decisive(&result) {
                return Some((settled, result));
            }
            settled += 1;
        }
    }
    None
}
