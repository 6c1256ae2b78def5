//! The daemon's side of the admin socket.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use jiff::Timestamp;
use serde::Serialize;
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::challenges::{ForeignChallenges, ForeignError};
use super::{
    AdminSocket, BODY_LIMIT, CheckReport, CheckRequest, Conclusion, Counts, DeployRequest, GateStatus, Knock,
    OpeningsState, Overview, Refusal, RehearseRequest, Reloaded, RenewRequest, StatusReport, listener,
};
use crate::challenge::ChallengeTable;
use crate::clock;
use crate::config::GateOpen;
use crate::foreign::FilesStatus;
use crate::front::FrontState;
use crate::gate::GateState;
use crate::gate::visits::{Outcome as VisitOutcome, Visit};
use crate::net::drain::Stop;
use crate::notify::notice;
use crate::renewal::{Event, Keeper, Outcome, RehearsalRefused, UnknownNames};
use crate::sandbox::Part;

/// For a request's body to arrive.
const BODY_TIME: Duration = Duration::from_secs(10);

/// What a reload came to: warnings, or why nothing has changed.
type ReloadFuture = Pin<Box<dyn Future<Output = Result<Vec<String>, String>>>>;

/// What a check comes to, or why none was made.
type CheckFuture = Pin<Box<dyn Future<Output = Result<CheckReport, Refusal>>>>;

/// What the socket can set in motion.
pub struct Actions {
    /// Certificates.
    pub keeper: Rc<Keeper>,
    /// Tokens.
    pub table: ChallengeTable,
    /// Reads the configuration again.
    pub reload: Box<dyn Fn() -> ReloadFuture>,
    /// Looks at names as a CA would.
    pub check: Box<dyn Fn(Vec<String>) -> CheckFuture>,
    /// What came of each part of the sandbox.
    pub sandbox: Vec<Part>,
    /// What the gate did.
    pub gate: GateState,
    /// What the front did.
    pub front: Option<Arc<FrontState>>,
    /// Whether what stands before the gate is open.
    pub openings: Box<dyn Fn() -> Option<OpeningsState>>,
    /// What is served of certificates from files.
    pub from_files: Box<dyn Fn() -> Vec<FilesStatus>>,
    /// Puts an event into the daemon's log.
    pub log: Rc<dyn Fn(&Event)>,
    /// When the daemon was started.
    pub since: Timestamp,
}

struct Desk {
    actions: Actions,
    stop: Stop,
    foreign: Rc<ForeignChallenges>,
}

/// Serves the socket, and the listener for everybody (`page`), until the stop, on the keeper's thread.
pub async fn serve(socket: AdminSocket, page: Option<std::net::TcpListener>, actions: Actions, stop: Stop) {
    let foreign = ForeignChallenges::new(actions.table.clone(), actions.keeper.clone());
    let desk = Rc::new(Desk { actions, stop: stop.clone(), foreign });
    if let Some(page) = page {
        let look = Rc::new({
            let desk = desk.clone();
            move || desk.overview()
        });
        tokio::task::spawn_local(listener::serve(page, look, stop.clone()));
    }
    loop {
        let accepted = tokio::select! {
            () = stop.requested() => break,
            accepted = socket.listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                tokio::task::spawn_local(converse(stream, desk.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "the admin socket cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    // A conversation under way does not keep the gate open for them.
    desk.foreign.clear();
}

async fn converse(stream: UnixStream, desk: Rc<Desk>) {
    let us = rustix::process::geteuid().as_raw();
    let known = stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == us);
    if !known {
        tracing::warn!("a stranger at the admin socket was turned away");
        return;
    }
    let service = service_fn(move |request| {
        let desk = desk.clone();
        async move { Ok::<_, Infallible>(desk.answer(request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(10))
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "an admin connection broke");
    }
}

impl Desk {
    async fn answer(self: &Rc<Self>, request: Request<Incoming>) -> Response<Lines> {
        let (parts, body) = request.into_parts();
        let body = tokio::time::timeout(BODY_TIME, Limited::new(body, BODY_LIMIT).collect());
        let body = match body.await.unwrap_or_else(|late| Err(late.into())) {
            Ok(body) => body.to_bytes(),
            Err(e) => return refusal(StatusCode::BAD_REQUEST, format!("the request cannot be read: {e}")),
        };
        let path = parts.uri.path();
        match (&parts.method, path, path.strip_prefix("/challenges/")) {
            (&Method::GET, "/status", _) => json(StatusCode::OK, &self.status()),
            (&Method::POST, "/reload", _) => match (self.actions.reload)().await {
                Ok(warnings) => json(StatusCode::OK, &Reloaded { warnings }),
                Err(error) => refusal(StatusCode::UNPROCESSABLE_ENTITY, error),
            },
            (&Method::POST, "/renew", _) => match serde_json::from_slice(&body) {
                Ok(request) => self.renew(request),
                Err(e) => refusal(StatusCode::BAD_REQUEST, e.to_string()),
            },
            (&Method::POST, "/deploy", _) => match serde_json::from_slice(&body) {
                Ok(request) => self.deploy(request),
                Err(e) => refusal(StatusCode::BAD_REQUEST, e.to_string()),
            },
            (&Method::POST, "/rehearse", _) => match serde_json::from_slice(&body) {
                Ok(request) => self.rehearse(request),
                Err(e) => refusal(StatusCode::BAD_REQUEST, e.to_string()),
            },
            (&Method::POST, "/check", _) => match serde_json::from_slice(&body) {
                Ok(request) => self.check(request).await,
                Err(e) => refusal(StatusCode::BAD_REQUEST, e.to_string()),
            },
            (&Method::GET, "/challenges", _) => json(StatusCode::OK, &self.foreign.list()),
            (&Method::PUT, _, Some(token)) => match serde_json::from_slice(&body) {
                Ok(challenge) => done(self.foreign.put(token, challenge).await),
                Err(e) => refusal(StatusCode::BAD_REQUEST, e.to_string()),
            },
            (&Method::DELETE, _, Some(token)) => match self.foreign.remove(token) {
                true => empty(StatusCode::NO_CONTENT),
                false => refusal(StatusCode::NOT_FOUND, "no such token was put here".to_owned()),
            },
            (&Method::POST, "/relay", _) => match serde_json::from_slice(&body) {
                Ok(request) => match self.foreign.relay(request, self.stop.clone()).await {
                    Ok(questions) => following(questions),
                    Err(e) => foreign_refusal(e),
                },
                Err(e) => refusal(StatusCode::BAD_REQUEST, e.to_string()),
            },
            (&Method::POST, "/relay/answer", _) => match serde_json::from_slice(&body) {
                Ok(answer) => done(self.foreign.answer(answer)),
                Err(e) => refusal(StatusCode::BAD_REQUEST, e.to_string()),
            },
            _ => refusal(StatusCode::NOT_FOUND, format!("there is no {} {path}", parts.method)),
        }
    }

    fn status(&self) -> StatusReport {
        StatusReport {
            pid: Some(std::process::id()),
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            since: Some(self.actions.since),
            digest: Some(self.actions.keeper.config().digest.clone()),
            gate: Some(self.gate()),
            sandbox: self.actions.sandbox.clone(),
            certificates: self.actions.keeper.status(),
            from_files: (self.actions.from_files)(),
        }
    }

    fn overview(&self) -> Overview {
        let stamp = |at| Timestamp::try_from(at).unwrap_or(Timestamp::MAX);
        let knock = |visit: Visit| Knock {
            at: stamp(visit.at),
            client: visit.client.to_string(),
            host: visit.host.map(|host| host.to_string()),
            outcome: visit.outcome.to_string(),
            is_answered: visit.outcome == VisitOutcome::Answered,
        };
        let visits = self.actions.gate.visits.recent();
        let (visited, counts) = (&self.actions.gate.visits, &self.actions.gate.counts);
        Overview {
            at: stamp(clock::now()),
            host: notice::host(),
            status: self.status(),
            knocks: visits.into_iter().rev().map(knock).collect(),
            counts: Counts {
                gate_connections: counts.connections.get(),
                answered: visited.answered(),
                late: visited.late(),
                unknown: visited.refused(),
                redirected: counts.redirected.get(),
                refused: counts.refused.get(),
                front: self
                    .actions
                    .front
                    .as_ref()
                    .map(|front| (front.counts.connections.get(), front.counts.no_handshake.get())),
                log_lost: self.actions.front.as_ref().and_then(|front| Some(front.access_log()?.lost())),
            },
        }
    }

    fn gate(&self) -> GateStatus {
        let gate = &self.actions.keeper.config().gate;
        GateStatus {
            listen: gate.listen.clone(),
            during_orders: gate.open == GateOpen::DuringOrders,
            listening: gate.open == GateOpen::Always || self.actions.keeper.door().is_open(),
            openings: (self.actions.openings)(),
        }
    }

    fn renew(self: &Rc<Self>, request: RenewRequest) -> Response<Lines> {
        let desk = self.clone();
        self.followed(request.digest.clone(), async move |told| {
            desk.actions.keeper.attend(&request.names, request.asked(), told).await.map_err(|e| unknown(&e))
        })
    }

    fn deploy(self: &Rc<Self>, request: DeployRequest) -> Response<Lines> {
        let desk = self.clone();
        self.followed(request.digest.clone(), async move |told| {
            desk.actions.keeper.deploy_again(&request.names, told).await.map_err(|e| unknown(&e))
        })
    }

    fn rehearse(self: &Rc<Self>, request: RehearseRequest) -> Response<Lines> {
        let desk = self.clone();
        self.followed(request.digest.clone(), async move |told| {
            let keeper = &desk.actions.keeper;
            keeper.rehearse(&request.names, request.staging, told).await.map_err(|e| match e {
                RehearsalRefused::Names(e) => unknown(&e),
                e => Refusal { error: e.to_string(), unknown: false },
            })
        })
    }

    /// A pass that goes on to its end even when the one who asked hangs up, but not when the daemon stops.
    fn followed(
        self: &Rc<Self>,
        digest: Option<String>,
        work: impl AsyncFnOnce(Rc<dyn Fn(&Event)>) -> Result<Vec<Outcome>, Refusal> + 'static,
    ) -> Response<Lines> {
        if let Some(error) = self.disagreement(digest.as_deref()) {
            return refusal(StatusCode::CONFLICT, error);
        }
        let (sender, receiver) = mpsc::unbounded_channel();
        let desk = self.clone();
        tokio::task::spawn_local(async move {
            let log = desk.actions.log.clone();
            let line = |value: &dyn erased::Line| {
                // Nobody may be listening any more.
                let _ = sender.send(value.line());
            };
            let told = {
                let sender = sender.clone();
                Rc::new(move |event: &Event| {
                    log(event);
                    // Nobody may be listening any more.
                    let _ = sender.send(erased::Line::line(event));
                })
            };
            tokio::select! {
                () = desk.stop.requested() => line(&Refusal { error: "the daemon was told to stop".to_owned(), unknown: false }),
                ended = work(told) => match ended {
                    Ok(outcomes) => line(&Conclusion::of(&outcomes)),
                    Err(refusal) => line(&refusal),
                },
            }
        });
        following(receiver)
    }

    /// Why nothing is done for somebody who works by another configuration.
    fn disagreement(&self, theirs: Option<&str>) -> Option<String> {
        let ours = &self.actions.keeper.config().digest;
        theirs.is_some_and(|theirs| theirs != ours).then(|| {
            format!(
                "the running daemon (pid {}) works by another configuration than this one: if it has changed, run `wicketgate reload` first; if it is another installation's, give it an `admin.socket` of its own",
                std::process::id()
            )
        })
    }

    async fn check(&self, request: CheckRequest) -> Response<Lines> {
        if let Some(error) = self.disagreement(request.digest.as_deref()) {
            return refusal(StatusCode::CONFLICT, error);
        }
        tokio::select! {
            () = self.stop.requested() => {
                refusal(StatusCode::SERVICE_UNAVAILABLE, "the daemon was told to stop".to_owned())
            }
            looked = (self.actions.check)(request.names) => match looked {
                Ok(report) => json(StatusCode::OK, &report),
                Err(refusal) => json(StatusCode::UNPROCESSABLE_ENTITY, &refusal),
            },
        }
    }
}

fn unknown(names: &UnknownNames) -> Refusal {
    Refusal { error: names.to_string(), unknown: true }
}

mod erased {
    use super::{Bytes, Serialize};

    /// Anything that has a line of JSON.
    pub(super) trait Line {
        fn line(&self) -> Bytes;
    }

    impl<T: Serialize> Line for T {
        fn line(&self) -> Bytes {
            let mut line = serde_json::to_vec(self).expect("plain values always have a JSON form");
            line.push(b'\n');
            Bytes::from(line)
        }
    }
}

/// A body: one piece, or lines as they come.
pub(super) enum Lines {
    One(Option<Bytes>),
    Following(mpsc::UnboundedReceiver<Bytes>),
}

impl http_body::Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::One(piece) => Poll::Ready(piece.take().map(|p| Ok(Frame::data(p)))),
            Self::Following(lines) => lines.poll_recv(context).map(|line| line.map(|l| Ok(Frame::data(l)))),
        }
    }
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<Lines> {
    let text = serde_json::to_vec(value).expect("plain values always have a JSON form");
    let mut response = Response::new(Lines::One(Some(Bytes::from(text))));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}

/// Lines as they come.
fn following(lines: mpsc::UnboundedReceiver<Bytes>) -> Response<Lines> {
    let mut response = Response::new(Lines::Following(lines));
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/x-ndjson"));
    response
}

fn done(outcome: Result<(), ForeignError>) -> Response<Lines> {
    match outcome {
        Ok(()) => empty(StatusCode::NO_CONTENT),
        Err(e) => foreign_refusal(e),
    }
}

fn foreign_refusal(error: ForeignError) -> Response<Lines> {
    match error {
        ForeignError::Malformed(error) => refusal(StatusCode::BAD_REQUEST, error),
        ForeignError::Conflict(error) => refusal(StatusCode::CONFLICT, error),
    }
}

fn refusal(status: StatusCode, error: String) -> Response<Lines> {
    json(status, &Refusal { error, unknown: false })
}

fn empty(status: StatusCode) -> Response<Lines> {
    let mut response = Response::new(Lines::One(None));
    *response.status_mut() = status;
    response
}
