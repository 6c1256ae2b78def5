//! A command's side of the admin socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::{
    CheckReport, CheckRequest, Conclusion, DeployRequest, Refusal, RehearseRequest, RelayAnswer,
    RelayQuestion, RelayRequest, Reloaded, RenewRequest, StatusReport,
};
use crate::renewal::Event;

/// Longest line the daemon sends, bytes.
const LINE_LIMIT: usize = 1 << 20;

/// For an answer that takes the daemon no work.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a daemon did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// It said no, and why.
    #[error("{0}")]
    Refused(String),
    /// It does not know what it was asked about.
    #[error("{0}")]
    Unknown(String),
    /// Its socket is there, but this user may not use it.
    #[error("{0} may only be used by root and by the daemon's own user: run the command as one of them")]
    NotAllowed(String),
    /// The conversation broke.
    #[error("the conversation with the running daemon broke off: {0}")]
    Broken(String),
}

impl From<Refusal> for ClientError {
    fn from(refusal: Refusal) -> Self {
        if refusal.unknown { Self::Unknown(refusal.error) } else { Self::Refused(refusal.error) }
    }
}

/// A daemon that answers.
pub struct Client {
    stream: UnixStream,
}

impl Client {
    /// Reaches the daemon behind `socket`; `None` where none runs.
    ///
    /// # Errors
    /// One runs, but does not let this user in.
    pub async fn connect(socket: &Path) -> Result<Option<Self>, ClientError> {
        match UnixStream::connect(socket).await {
            Ok(stream) => Ok(Some(Self { stream })),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                Ok(None)
            }
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                Err(ClientError::NotAllowed(socket.display().to_string()))
            }
            Err(e) => Err(ClientError::Broken(e.to_string())),
        }
    }

    /// The daemon's state.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn status(self) -> Result<StatusReport, ClientError> {
        let answer = async { whole(self.send(Method::GET, "/status", Bytes::new()).await?).await };
        tokio::time::timeout(PATIENCE, answer).await.unwrap_or_else(|_| {
            let seconds = PATIENCE.as_secs();
            Err(ClientError::Broken(format!(
                "it did not answer within {seconds} s; is it stopped or starved"
            )))
        })
    }

    /// Has the configuration read again; the warnings.
    ///
    /// # Errors
    /// [`ClientError::Refused`] when it is wrong; nothing has changed then.
    pub async fn reload(self) -> Result<Vec<String>, ClientError> {
        let reloaded: Reloaded = whole(self.send(Method::POST, "/reload", Bytes::new()).await?).await?;
        Ok(reloaded.warnings)
    }

    /// Has names looked at as a CA would; bounded by the daemon's own deadlines.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn check(self, request: &CheckRequest) -> Result<CheckReport, ClientError> {
        let body = serde_json::to_vec(request).expect("plain values always have a JSON form");
        whole(self.send(Method::POST, "/check", body.into()).await?).await
    }

    /// Has certificates attended to, telling each event as it happens.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn renew(
        self,
        request: &RenewRequest,
        told: &dyn Fn(&Event),
    ) -> Result<Conclusion, ClientError> {
        self.follow("/renew", request, told).await
    }

    /// Has servers take what is stored once more, telling each event as it happens.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn deploy(
        self,
        request: &DeployRequest,
        told: &dyn Fn(&Event),
    ) -> Result<Conclusion, ClientError> {
        self.follow("/deploy", request, told).await
    }

    /// Has certificates rehearsed, telling each event as it happens.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn rehearse(
        self,
        request: &RehearseRequest,
        told: &dyn Fn(&Event),
    ) -> Result<Conclusion, ClientError> {
        self.follow("/rehearse", request, told).await
    }

    async fn follow(
        self,
        path: &str,
        request: &impl Serialize,
        told: &dyn Fn(&Event),
    ) -> Result<Conclusion, ClientError> {
        let body = serde_json::to_vec(request).expect("plain values always have a JSON form");
        let mut lines = FollowedLines::of(self.send(Method::POST, path, body.into()).await?).await?;
        while let Some(line) = lines.next().await? {
            if let Ok(event) = serde_json::from_slice::<Event>(&line) {
                told(&event);
            } else if let Ok(refusal) = serde_json::from_slice::<Refusal>(&line) {
                return Err(refusal.into());
            } else {
                return serde_json::from_slice(&line).map_err(|e| ClientError::Broken(e.to_string()));
            }
        }
        Err(ClientError::Broken("the daemon has ended".to_owned()))
    }

    /// Has the gate ask for tokens that it does not know, with the gate open, as long as the questions are read.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn relay(self, request: &RelayRequest) -> Result<Questions, ClientError> {
        let body = serde_json::to_vec(request).expect("plain values always have a JSON form");
        let response = self.send(Method::POST, "/relay", body.into()).await?;
        FollowedLines::of(response).await.map(Questions)
    }

    /// Puts a challenge of another client into the gate, or takes one out.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn challenge(self, method: Method, token: &str, body: Bytes) -> Result<(), ClientError> {
        nothing(self.send(method, &format!("/challenges/{token}"), body).await?).await
    }

    /// The tokens of other clients.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn challenges(self) -> Result<Vec<String>, ClientError> {
        whole(self.send(Method::GET, "/challenges", Bytes::new()).await?).await
    }

    async fn send(self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>, ClientError> {
        send(&mut self.sender().await?, method, path, body).await
    }

    async fn sender(self) -> Result<Sender, ClientError> {
        let begun = http1::handshake(TokioIo::new(self.stream)).await;
        let (sender, connection) = begun.map_err(|e| ClientError::Broken(e.to_string()))?;
        tokio::spawn(connection);
        Ok(sender)
    }
}

type Sender = http1::SendRequest<Full<Bytes>>;

async fn send(
    sender: &mut Sender,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<Response<Incoming>, ClientError> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "wicketgate")
        .body(Full::new(body))
        .map_err(|e| ClientError::Broken(e.to_string()))?;
    sender.send_request(request).await.map_err(|e| ClientError::Broken(e.to_string()))
}

/// Answers a relay's questions, over one connection as long as that lasts.
pub struct Answers {
    socket: PathBuf,
    sender: Option<Sender>,
}

impl Answers {
    /// For the daemon behind `socket`.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned(), sender: None }
    }

    /// Answers one. That nobody waits for it any more, or that the daemon has ended, is no error.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn say(&mut self, answer: &RelayAnswer) -> Result<(), ClientError> {
        let body = Bytes::from(serde_json::to_vec(answer).expect("plain values always have a JSON form"));
        // The daemon closes one that was idle for a while.
        let mut sender = match self.sender.take().filter(|sender| sender.is_ready()) {
            Some(sender) => sender,
            None => match Client::connect(&self.socket).await? {
                Some(daemon) => daemon.sender().await?,
                None => return Ok(()),
            },
        };
        let response = send(&mut sender, Method::POST, "/relay/answer", body).await?;
        if response.status() == StatusCode::CONFLICT {
            return Ok(());
        }
        nothing(response).await?;
        self.sender = Some(sender);
        Ok(())
    }
}

/// The questions of a relay, as they come.
pub struct Questions(FollowedLines);

impl Questions {
    /// The next one; `None` when the daemon has ended.
    ///
    /// # Errors
    /// [`ClientError::Broken`]
    pub async fn next(&mut self) -> Result<Option<RelayQuestion>, ClientError> {
        let Some(line) = self.0.next().await? else { return Ok(None) };
        serde_json::from_slice(&line).map(Some).map_err(|e| ClientError::Broken(e.to_string()))
    }
}

/// Lines that the daemon sends as it has them.
struct FollowedLines {
    body: Incoming,
    pending: BytesMut,
}

impl FollowedLines {
    async fn of(response: Response<Incoming>) -> Result<Self, ClientError> {
        if !response.status().is_success() {
            return Err(refused(response).await);
        }
        Ok(Self { body: response.into_body(), pending: BytesMut::new() })
    }

    async fn next(&mut self) -> Result<Option<BytesMut>, ClientError> {
        loop {
            if let Some(end) = self.pending.iter().position(|b| *b == b'\n') {
                return Ok(Some(self.pending.split_to(end + 1)));
            }
            if self.pending.len() > LINE_LIMIT {
                return Err(ClientError::Broken("it sent a line without an end".to_owned()));
            }
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            let frame = frame.map_err(|e| ClientError::Broken(e.to_string()))?;
            self.pending.extend_from_slice(frame.data_ref().map_or(&[], |d| d));
        }
    }
}

/// An answer as a whole.
async fn whole<T: DeserializeOwned>(response: Response<Incoming>) -> Result<T, ClientError> {
    if !response.status().is_success() {
        return Err(refused(response).await);
    }
    let body = response.into_body().collect().await.map_err(|e| ClientError::Broken(e.to_string()))?;
    serde_json::from_slice(&body.to_bytes()).map_err(|e| ClientError::Broken(e.to_string()))
}

/// An answer of nothing, where all went well.
async fn nothing(response: Response<Incoming>) -> Result<(), ClientError> {
    if response.status().is_success() { Ok(()) } else { Err(refused(response).await) }
}

async fn refused(response: Response<Incoming>) -> ClientError {
    match response.into_body().collect().await.map(|body| serde_json::from_slice(&body.to_bytes())) {
        Ok(Ok(refusal)) => Refusal::into(refusal),
        Ok(Err(e)) => ClientError::Broken(e.to_string()),
        Err(e) => ClientError::Broken(e.to_string()),
    }
}
