//! Everything that is read of a CA's answer, for the fuzz target `acme_answers`: in a build for anything else this is
//! not there.

use std::time::{Duration, SystemTime};

use http::Response;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use instant_acme::{AuthorizationState, OrderState};

use super::directory::Directory;
use super::failure::NameFailure;
use super::poll;
use super::problem::{AcmeError, Stage, read_problem};
use super::renewal_info::window;
use super::transport::{check, wait_of};

/// Reads an answer as each part of the engine would. What was made of it for people to read.
pub fn read_answer(status: u16, kind: &[u8], wait: &[u8], body: &[u8], now: SystemTime) -> Vec<String> {
    let mut response = Response::new(());
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or_default();
    for (name, value) in [(CONTENT_TYPE, kind), (RETRY_AFTER, wait)] {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            response.headers_mut().insert(name, value);
        }
    }
    let parts = response.into_parts().0;
    let mut told = Vec::new();
    if let Err(error) = check("https://ca.test/acme", &parts, body) {
        told.push(error.to_string());
    }
    let wait = wait_of(&parts);
    assert!(poll::pause(0, wait, now) <= Duration::from_secs(120));
    if let Some(problem) = read_problem(body) {
        for stage in [Stage::Opening, Stage::Asking, Stage::Validating, Stage::RenewalInfo] {
            let error = AcmeError::from_problem("ask", stage, &problem, Some(status), wait);
            told.extend(error.failures().iter().map(|failure| format!("{failure:?}")));
            told.push(error.to_string());
        }
    }
    match window(body, wait, now) {
        Ok(window) => {
            assert!(window.start < window.end);
            told.extend(window.explanation_url);
        }
        Err(reason) => told.push(reason),
    }
    if let Some(directory) = Directory::parse(body) {
        told.extend(directory.renewal_info);
        told.extend(directory.caa_identities);
    }
    let authorization = serde_json::from_slice::<AuthorizationState>(body).ok();
    if let Some(failure) = authorization.as_ref().and_then(NameFailure::of_authorization) {
        told.push(AcmeError::validation("validate", vec![failure]).to_string());
    }
    drop(serde_json::from_slice::<OrderState>(body));
    told
}
