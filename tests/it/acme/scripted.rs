//! A CA that says what a test wants: it checks nothing, signs nothing, and writes down what it was asked.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use wicketgate::acme::{Session, Setup};

use crate::bed::pki::Pki;

/// An answer: status, Retry-After, body.
pub(crate) type Answer = (u16, Option<&'static str>, String);

/// A problem document as an answer.
pub(crate) fn problem(status: u16, kind: &str) -> Answer {
    let body = json!({ "type": format!("urn:ietf:params:acme:error:{kind}"), "detail": "so it is" });
    (status, None, body.to_string())
}

/// What the CA makes of one name of an order.
#[derive(Clone)]
pub(crate) struct Proof {
    pub(crate) name: &'static str,
    pub(crate) status: &'static str,
    /// What it becomes when its challenge is to be looked at.
    pub(crate) becomes: &'static str,
    /// The challenge's error, from then on.
    pub(crate) error: Value,
}

impl Proof {
    pub(crate) fn new(name: &'static str, becomes: &'static str, error: Value) -> Self {
        Self { name, status: "pending", becomes, error }
    }
}

/// A signed request, as it came.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) payload: Value,
}

#[derive(Default)]
pub(crate) struct Script {
    /// Members of the directory besides the usual ones.
    pub(crate) directory: Vec<(&'static str, Value)>,
    /// Answers to the next new orders; then orders are made.
    pub(crate) refusals: VecDeque<Answer>,
    /// The order's names.
    pub(crate) proofs: Vec<Proof>,
    /// Whether an order says what it replaces.
    pub(crate) forgets_replaces: bool,
    /// The status of an order of which not every name is proven.
    pub(crate) order_status: &'static str,
    /// The answer to renewal information.
    pub(crate) renewal_info: Option<Answer>,
    /// What is asked without a signature, but for directory and nonces.
    pub(crate) fetched: Vec<String>,
    pub(crate) asked: Vec<Asked>,
    pub(crate) replaces: Value,
    pub(crate) base: String,
}

impl Script {
    /// The payloads that were sent to a path.
    pub(crate) fn sent_to(&self, path: &str) -> Vec<Value> {
        self.asked.iter().filter(|asked| asked.path == path).map(|asked| asked.payload.clone()).collect()
    }

    fn order(&self) -> String {
        let base = &self.base;
        let urls: Vec<_> = (0..self.proofs.len()).map(|n| format!("{base}/authorization/{n}")).collect();
        let status =
            if self.proofs.iter().all(|p| p.status == "valid") { "ready" } else { self.order_status };
        json!({
            "status": status, "authorizations": urls, "finalize": format!("{base}/finalize"),
            "identifiers": [], "replaces": self.replaces,
        })
        .to_string()
    }

    fn authorization(&self, number: usize) -> String {
        let Proof { name, status, error, .. } = &self.proofs[number];
        let challenge = |kind: &str| {
            json!({
                "type": kind, "url": format!("{}/challenge/{number}", self.base), "token": format!("token{number}"),
                "status": if *status == "invalid" { "invalid" } else { "pending" },
            })
        };
        let mut tried = challenge("http-01");
        if *status == "invalid" && !error.is_null() {
            tried["error"] = error.clone();
        }
        json!({
            "identifier": { "type": "dns", "value": name }, "status": status,
            "challenges": [challenge("dns-01"), tried],
        })
        .to_string()
    }

    fn signed(&mut self, path: &str, payload: &Value) -> Answer {
        if let Some(number) = path.strip_prefix("/challenge/") {
            let number: usize = number.parse().unwrap();
            self.proofs[number].status = self.proofs[number].becomes;
            let url = format!("{}/challenge/{number}", self.base);
            let body = json!({ "type": "http-01", "url": url, "token": "t", "status": "processing" });
            return (200, None, body.to_string());
        }
        if let Some(number) = path.strip_prefix("/authorization/") {
            let number: usize = number.parse().unwrap();
            if payload["status"] == "deactivated" {
                self.proofs[number].status = "deactivated";
            }
            return (200, None, self.authorization(number));
        }
        match path {
            "/new-account" => (201, None, json!({ "status": "valid" }).to_string()),
            "/new-order" => {
                if let Some(refusal) = self.refusals.pop_front() {
                    return refusal;
                }
                self.replaces = payload["replaces"].clone();
                if self.forgets_replaces {
                    self.replaces = Value::Null;
                }
                (201, None, self.order())
            }
            // More seconds than any clock holds.
            "/order" => (200, Some("18446744073709551615"), self.order()),
            _ => problem(404, "malformed"),
        }
    }
}

/// The CA; it ends with the runtime.
#[derive(Clone)]
pub(crate) struct ScriptedCa {
    script: Arc<Mutex<Script>>,
    base: String,
    root: CertificateDer<'static>,
}

impl ScriptedCa {
    pub(crate) async fn start(dir: &Path, script: Script) -> Self {
        let pki = Pki::new(dir, "scripted", &["127.0.0.1"]);
        let chain = CertificateDer::pem_file_iter(&pki.chain).unwrap().map(Result::unwrap).collect();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, PrivateKeyDer::from_pem_file(&pki.key).unwrap())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let base = format!("https://{}", listener.local_addr().unwrap());
        let script = Script { base: base.clone(), ..script };
        let root = CertificateDer::from_pem_file(&pki.root).unwrap();
        let ca = Self { script: Arc::new(Mutex::new(script)), base, root };
        let serving = ca.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (ca, acceptor) = (serving.clone(), acceptor.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request| ca.clone().answer(request));
                    // A client that goes away is no failure of the CA's.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        ca
    }

    pub(crate) fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap()
    }

    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    pub(crate) async fn session(&self) -> Session {
        let setup = Setup {
            directory_url: format!("{}/directory", self.base),
            contact: Vec::new(),
            eab: None,
            roots: vec![self.root.clone()],
            direct: true,
        };
        Session::open(&setup, None).await.unwrap_or_else(|e| panic!("{e}")).session
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        let body = body.collect().await.unwrap().to_bytes();
        let mut script = self.script();
        let (status, retry_after, body) = if parts.method == Method::POST {
            let signed: Value = serde_json::from_slice(&body).unwrap();
            let payload = BASE64_URL_SAFE_NO_PAD.decode(signed["payload"].as_str().unwrap()).unwrap();
            let payload = serde_json::from_slice(&payload).unwrap_or(Value::Null);
            script.asked.push(Asked { path: path.clone(), payload: payload.clone() });
            script.signed(&path, &payload)
        } else if path == "/directory" {
            let base = &self.base;
            let mut directory = json!({
                "newNonce": format!("{base}/nonce"), "newAccount": format!("{base}/new-account"),
                "newOrder": format!("{base}/new-order"),
            });
            for (name, value) in &script.directory {
                directory[name] = value.clone();
            }
            (200, None, directory.to_string())
        } else if path == "/nonce" {
            (200, None, String::new())
        } else {
            script.fetched.push(path.clone());
            script.renewal_info.clone().unwrap_or_else(|| problem(404, "malformed"))
        };
        let mut response = Response::builder()
            .status(status)
            .header(
                "content-type",
                if status < 400 { "application/json" } else { "application/problem+json" },
            )
            .header("replay-nonce", "nonce");
        if let Some(location) = [("/new-account", "/account/1"), ("/new-order", "/order")]
            .iter()
            .find_map(|(from, to)| (*from == path).then(|| format!("{}{to}", self.base)))
        {
            response = response.header("location", location);
        }
        if let Some(wait) = retry_after {
            response = response.header("retry-after", wait);
        }
        Ok(response.body(Full::from(body)).unwrap())
    }
}
