//! An answer of the embedded CA before it becomes HTTP.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::StatusCode;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LINK, LOCATION, RETRY_AFTER,
};
use serde_json::Value;

use super::faults::RetryAfter;
use super::problem::Problem;

const REPLAY_NONCE: HeaderName = HeaderName::from_static("replay-nonce");

/// Status, headers and the whole body.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Reply {
    pub(super) fn empty(status: StatusCode) -> Self {
        let mut headers = HeaderMap::new();
        // RFC 8555 section 7.2 asks for it on nonces; nothing here is worth keeping.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Self { status, headers, body: Bytes::new() }
    }

    pub(super) fn json(status: StatusCode, document: &Value) -> Self {
        Self::with_body(status, "application/json", document.to_string().into())
    }

    pub(super) fn problem(problem: &Problem) -> Self {
        Self::with_body(problem.status, "application/problem+json", problem.to_json().to_string().into())
    }

    pub(super) fn text(text: &'static str) -> Self {
        Self::with_body(StatusCode::OK, "text/plain; charset=utf-8", Bytes::from_static(text.as_bytes()))
    }

    /// RFC 8555 section 7.4.2
    pub(super) fn chain(pem: String) -> Self {
        Self::with_body(StatusCode::OK, "application/pem-certificate-chain", pem.into())
    }

    fn with_body(status: StatusCode, content_type: &'static str, body: Bytes) -> Self {
        let mut reply = Self { body, ..Self::empty(status) };
        reply.headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        reply
    }

    pub(super) fn without_body(mut self) -> Self {
        self.body = Bytes::new();
        self
    }

    pub(super) fn nonce(self, nonce: String) -> Self {
        self.header(REPLAY_NONCE, nonce)
    }

    pub(super) fn location(self, url: &str) -> Self {
        self.header(LOCATION, url.to_owned())
    }

    pub(super) fn link(self, url: &str, relation: &str) -> Self {
        self.header(LINK, format!("<{url}>;rel=\"{relation}\""))
    }

    pub(super) fn allow(self, methods: &str) -> Self {
        self.header(ALLOW, methods.to_owned())
    }

    /// In whole seconds.
    pub(super) fn retry_after(self, delay: Duration) -> Self {
        self.header(RETRY_AFTER, delay.as_secs().to_string())
    }

    /// In the form that was asked for.
    pub(super) fn come_back(self, retry_after: RetryAfter, now: SystemTime) -> Self {
        match retry_after.value(now) {
            Some(value) => self.header(RETRY_AFTER, value),
            None => self,
        }
    }

    fn header(mut self, name: HeaderName, value: String) -> Self {
        // A fault's text need not be fit for a header; what is our own is printable ASCII.
        if let Ok(value) = HeaderValue::try_from(value) {
            self.headers.append(name, value);
        }
        self
    }
}
