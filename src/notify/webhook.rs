//! A notice as JSON in a POST: chat systems, alerting services, a script of one's own.
//!
//! The URL's path is the secret of most of these services. It goes to them and to nobody else: errors
//! name scheme and host, a redirect is not followed, and an answer that repeats the path is not shown.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, USER_AGENT};
use http::{Method, Request, StatusCode, Uri};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

use super::files;
use crate::acme::{Connector, root_cause};
use crate::words::printable;

/// Names the program and its version.
const AGENT: &str =
    concat!("wicketgate/", env!("CARGO_PKG_VERSION"), " (+", env!("CARGO_PKG_REPOSITORY"), ")");
/// From the connection's start to what is read of the answer.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(15);
/// How much of a refusal's answer is read, bytes.
const READ: usize = 4096;
/// How much of it is shown, characters.
const SHOWN: usize = 200;
/// Shortest part of a path that could be a secret, characters.
const SECRET: usize = 6;

/// Why a webhook did not take a notice.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// Its roots cannot be read.
    #[error("{0}; correct `notify.webhook-roots`")]
    Roots(String),
    /// No answer in time.
    #[error("no answer from {place} within {} s: is it up, and may this machine reach it", TOTAL_TIMEOUT.as_secs())]
    Timeout {
        /// Scheme and host.
        place: String,
    },
    /// No connection, or it broke.
    #[error("cannot reach {place}: {reason}{}", connect_remedy(reason))]
    Connect {
        /// Scheme and host.
        place: String,
        /// What was seen.
        reason: String,
    },
    /// It sends its callers elsewhere.
    #[error(
        "{place} answered {status}, which leads elsewhere, and that is not followed: write the final URL into `notify.webhook`"
    )]
    Redirect {
        /// Scheme and host.
        place: String,
        /// Its answer.
        status: u16,
    },
    /// It refused.
    #[error("{place} answered {status}{said}{}", status_remedy(*status))]
    Refused {
        /// Scheme and host.
        place: String,
        /// Its answer.
        status: u16,
        /// What it said, if that may be shown.
        said: String,
    },
}

fn connect_remedy(reason: &str) -> &'static str {
    if reason.contains("UnknownIssuer") {
        "; its certificate is not from a public CA: put the root it comes from into `notify.webhook-roots`"
    } else if reason.contains("certificate") {
        "; is something between this machine and the webhook, or is this machine's clock wrong"
    } else {
        "; is it up, and may this machine reach it (HTTPS_PROXY is honoured)"
    }
}

fn status_remedy(status: u16) -> &'static str {
    match status {
        400 | 415 | 422 => "; does it take JSON with a field `text`",
        401 | 403 => "; is the secret in `notify.webhook` still valid",
        404 | 410 => "; does the webhook still exist: compare `notify.webhook` with what its service shows",
        429 => "; it wants fewer messages",
        500.. => "; it has trouble of its own",
        _ => "; is `notify.webhook` right",
    }
}

/// Sends a document.
///
/// # Errors
/// [`WebhookError`]; the path of `url` is in none of them.
pub(super) async fn send(url: &Uri, roots: Option<&Path>, document: String) -> Result<(), WebhookError> {
    let timeout = || WebhookError::Timeout { place: place(url) };
    tokio::time::timeout(TOTAL_TIMEOUT, post(url, roots, document)).await.map_err(|_| timeout())?
}

async fn post(url: &Uri, roots: Option<&Path>, document: String) -> Result<(), WebhookError> {
    let mut store = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(path) = roots {
        store.add_parsable_certificates(files::roots(path).map_err(WebhookError::Roots)?);
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider supports TLS 1.2 and 1.3")
        .with_root_certificates(store)
        .with_no_client_auth();
    // Plain http is for this machine, and no proxy leads there.
    let direct = url.scheme_str() == Some("http");
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .wrap_connector(Connector::new(direct));
    let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
    let mut request = Request::new(Full::new(Bytes::from(document)));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = url.clone();
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(AGENT));
    let response = client.request(request).await.map_err(|e| WebhookError::Connect {
        place: place(url),
        reason: printable(&root_cause(&e), SHOWN),
    })?;
    let status = response.status();
    let (place, code) = (place(url), status.as_u16());
    // Whatever it says beside it, a success is one; nobody waits for the end of an endless answer.
    match status {
        _ if status.is_success() => Ok(()),
        _ if status.is_redirection() => Err(WebhookError::Redirect { place, status: code }),
        _ => Err(WebhookError::Refused {
            place,
            status: code,
            said: said(url, status, response.into_body()).await,
        }),
    }
}

/// The beginning of a refusal's answer, if it has words and does not repeat the secret.
async fn said(url: &Uri, status: StatusCode, mut body: impl Body<Data = Bytes> + Unpin) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < READ
        && let Some(Ok(frame)) = body.frame().await
    {
        if let Some(data) = frame.data_ref() {
            bytes.extend_from_slice(&data[..data.len().min(READ - bytes.len())]);
        }
    }
    let reason = status.canonical_reason().map(|reason| format!(" {reason}")).unwrap_or_default();
    match showable(url, &String::from_utf8_lossy(&bytes)) {
        Some(text) => format!("{reason}, saying: {text}"),
        None => reason,
    }
}

fn showable(url: &Uri, text: &str) -> Option<String> {
    let path = url.path_and_query().map_or("", http::uri::PathAndQuery::as_str);
    let mut secrets = path.split(['/', '?', '&', '=']).filter(|part| part.len() >= SECRET);
    // A page for people explains nothing in its first words.
    let is_page = text.trim_start().starts_with('<');
    let text = text.trim();
    if text.is_empty() || is_page || secrets.any(|part| text.contains(part)) {
        return None;
    }
    Some(printable(text, SHOWN))
}

/// What may be shown of the URL.
pub(super) fn place(url: &Uri) -> String {
    let authority = url.authority().map_or("", |authority| authority.as_str());
    format!("{}://{authority}", url.scheme_str().unwrap_or("https"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_repeats_the_secret_is_not_shown() {
        let url: Uri = "https://hooks.example.net/services/T0AAAA1/s3cr3t?token=hushhush".parse().unwrap();
        for (text, shown) in [
            ("invalid_payload", Some("invalid_payload")),
            ("Cannot POST /services/T0AAAA1/s3cr3t", None),
            ("no such token: hushhush", None),
            ("<!DOCTYPE html><title>no</title>", None),
            (" \r\n", None),
            ("a\u{1b}[2Jb\nc", Some("a [2Jb; c")),
        ] {
            assert_eq!(showable(&url, text).as_deref(), shown, "{text}");
        }
        assert_eq!(showable(&url, &"x".repeat(5000)).unwrap().chars().count(), SHOWN + 1);
        assert_eq!(place(&url), "https://hooks.example.net");
    }
}
