//! The http-01 validation (RFC 8555 section 8.3): a real request to the gate, and the judgement of what
//! came back, told in the manner of Let's Encrypt's authority so that clients learn to explain it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, HOST, LOCATION, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::hostname::Identifier;

use super::faults::{ValidationFault, VantagePoints};
use super::problem::{Problem, ProblemType};

/// For the whole validation.
const TIMEOUT: Duration = Duration::from_secs(10);

/// More than any key authorization; nothing beyond it is read.
const BODY_LIMIT: usize = 512;

/// How much of an answer a detail quotes, in bytes.
const QUOTE: usize = 96;

const AGENT: &str = concat!(
    "wicketgate/",
    env!("CARGO_PKG_VERSION"),
    " (rehearsal validation; +",
    env!("CARGO_PKG_REPOSITORY"),
    ")"
);

/// A challenge to validate.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Attempt {
    pub(super) identifier: Identifier,
    pub(super) token: String,
    pub(super) key_authorization: String,
}

impl std::fmt::Debug for Attempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attempt").field("identifier", &self.identifier).finish_non_exhaustive()
    }
}

/// How a challenge is validated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Why it fails in any case, and whether the gate is asked nevertheless.
    pub(super) failing: Option<(ValidationFault, bool)>,
    pub(super) points: VantagePoints,
}

/// What the gate answered.
#[derive(Debug)]
struct Seen {
    status: StatusCode,
    location: Option<String>,
    body: Vec<u8>,
    more: bool,
}

impl Attempt {
    /// Asks the gate, as often as is planned, and judges.
    pub(super) async fn run(&self, gate: SocketAddr, plan: Plan) -> Result<(), Problem> {
        match plan.failing {
            Some((fault, asks)) => {
                if asks {
                    self.ask_from_everywhere(gate, plan.points).await;
                }
                Err(self.failure(gate, fault))
            }
            None => quorum(self.ask_from_everywhere(gate, plan.points).await, plan.points.tolerated()),
        }
    }

    /// What each vantage point found, the primary one first.
    async fn ask_from_everywhere(&self, gate: SocketAddr, points: VantagePoints) -> Vec<Result<(), Problem>> {
        let mut asking = JoinSet::new();
        for point in 0..points.asking() {
            let (attempt, source) = (self.clone(), source(gate, points, point));
            let reaches = points.reaches(point);
            asking.spawn(async move {
                let result = match reaches {
                    true => attempt.ask(gate, source).await,
                    false => Err(attempt.failure(gate, ValidationFault::Connection)),
                };
                (point, result)
            });
        }
        let mut results = asking.join_all().await;
        results.sort_by_key(|(point, _)| *point);
        results.into_iter().map(|(_, result)| result).collect()
    }

    async fn ask(&self, gate: SocketAddr, source: Option<Ipv4Addr>) -> Result<(), Problem> {
        let connection = |what: String| {
            Problem::new(ProblemType::Connection, format!("{gate}: Fetching {}: {what}", self.url()))
        };
        match tokio::time::timeout(TIMEOUT, self.fetch(gate, source)).await {
            Ok(Ok(seen)) => self.judge(gate, &seen),
            Ok(Err(what)) => Err(connection(what)),
            Err(_) => Err(connection(format!("Timeout after {} seconds", TIMEOUT.as_secs()))),
        }
    }

    /// What is told of a fault.
    fn failure(&self, gate: SocketAddr, fault: ValidationFault) -> Problem {
        let name = host(&self.identifier);
        let (kind, detail) = match fault {
            ValidationFault::Dns => (
                ProblemType::Dns,
                format!(
                    "DNS problem: NXDOMAIN looking up A for {name} - check that a DNS record exists for \
                     this domain"
                ),
            ),
            ValidationFault::Connection => (
                ProblemType::Connection,
                format!("{gate}: Fetching {}: Timeout during connect (likely firewall problem)", self.url()),
            ),
            ValidationFault::Status(status) => {
                (ProblemType::Unauthorized, format!("{gate}: Invalid response from {}: {status}", self.url()))
            }
            ValidationFault::Caa => (ProblemType::Caa, format!("CAA record for {name} prevents issuance")),
        };
        Problem::new(kind, detail)
    }

    fn path(&self) -> String {
        format!("/.well-known/acme-challenge/{}", self.token)
    }

    fn url(&self) -> String {
        format!("http://{}{}", host(&self.identifier), self.path())
    }

    async fn fetch(&self, gate: SocketAddr, source: Option<Ipv4Addr>) -> Result<Seen, String> {
        let stream = connect(gate, source).await.map_err(|e| sentence(&e))?;
        let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
            .max_buf_size(16 * 1024)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|e| e.to_string())?;
        // Dropped, and so ended, with this function.
        let mut driver = JoinSet::new();
        driver.spawn(connection);

        let request = Request::get(self.path())
            .header(HOST, host(&self.identifier))
            .header(USER_AGENT, AGENT)
            .header(ACCEPT, "*/*")
            .header(CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .map_err(|e| e.to_string())?;
        let mut response = sender
            .send_request(request)
            .await
            .map_err(|e| format!("Error getting validation data: {}", chain(&e)))?;
        let location = response.headers().get(LOCATION).map(|value| escape(value.as_bytes(), false));
        let mut body = Vec::new();
        let mut more = false;
        while let Some(frame) = response.frame().await {
            let frame = frame.map_err(|e| format!("Error reading the answer: {}", chain(&e)))?;
            if let Some(data) = frame.data_ref() {
                body.extend_from_slice(&data[..data.len().min(BODY_LIMIT + 1 - body.len())]);
            }
            if body.len() > BODY_LIMIT {
                body.truncate(BODY_LIMIT);
                more = true;
                break;
            }
        }
        Ok(Seen { status: response.status(), location, body, more })
    }

    fn judge(&self, gate: SocketAddr, seen: &Seen) -> Result<(), Problem> {
        let unauthorized = |what: String| Err(Problem::new(ProblemType::Unauthorized, what));
        if seen.status.is_redirection() {
            return Err(Problem::new(
                ProblemType::Connection,
                format!(
                    "{gate}: Fetching {}: Redirect {} to {}, and the embedded CA follows none",
                    self.url(),
                    seen.status.as_u16(),
                    seen.location.as_deref().unwrap_or("nowhere"),
                ),
            ));
        }
        if seen.status != StatusCode::OK {
            return unauthorized(format!(
                "{gate}: Invalid response from {}: {}, and the body begins {}",
                self.url(),
                seen.status.as_u16(),
                escape(&seen.body, seen.more),
            ));
        }
        if seen.more || seen.body != self.key_authorization.as_bytes() {
            return unauthorized(format!(
                "{gate}: The key authorization from {} did not match this challenge: expected {} bytes that \
                 begin with the token, got {}",
                self.url(),
                self.key_authorization.len(),
                escape(&seen.body, seen.more),
            ));
        }
        Ok(())
    }
}

/// Whether enough vantage points agree; the primary one comes first.
fn quorum(results: Vec<Result<(), Problem>>, tolerated: usize) -> Result<(), Problem> {
    let mut results = results.into_iter();
    results.next().unwrap_or(Ok(()))?;
    let mut failed = results.filter_map(Result::err);
    failed.nth(tolerated).map_or(Ok(()), |problem| Err(problem.seen_from_afar()))
}

/// Where a vantage point asks from, if addresses can tell them apart.
fn source(gate: SocketAddr, points: VantagePoints, point: u8) -> Option<Ipv4Addr> {
    let several = points.count > 1 && gate.is_ipv4() && gate.ip().is_loopback();
    several.then(|| Ipv4Addr::new(127, 0, 0, point.saturating_add(2)))
}

async fn connect(gate: SocketAddr, source: Option<Ipv4Addr>) -> std::io::Result<TcpStream> {
    let Some(source) = source else { return TcpStream::connect(gate).await };
    let socket = TcpSocket::new_v4()?;
    socket.bind((source, 0).into())?;
    socket.connect(gate).await
}

/// The Host header: IPv6 in brackets, never a port.
fn host(identifier: &Identifier) -> String {
    match identifier {
        Identifier::Ip(IpAddr::V6(address)) => format!("[{address}]"),
        other => other.to_string(),
    }
}

/// The first bytes in quotes, printable.
fn escape(bytes: &[u8], more: bool) -> String {
    let shown = &bytes[..bytes.len().min(QUOTE)];
    let dots = if more || shown.len() < bytes.len() { "…" } else { "" };
    format!("\"{}{dots}\"", shown.escape_ascii())
}

fn sentence(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "Connection refused".to_owned(),
        std::io::ErrorKind::ConnectionReset => "Connection reset by peer".to_owned(),
        _ => error.to_string(),
    }
}

/// hyper's errors tell the cause one level deeper.
fn chain(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests;
