//! Renewal information and orders that name what they replace (RFC 9773).

use std::time::SystemTime;

use http::StatusCode;

use super::super::documents::Route;
use super::super::faults::RetryAfter;
use super::super::problem::Problem;
use super::super::renewal::{CertificateId, CertificateIdError};
use super::super::reply::Reply;
use super::super::request::OrderRequest;
use super::Ca;

impl Ca {
    /// RFC 9773 section 4
    pub(super) fn renewal_information(
        &mut self,
        id: &CertificateId,
        now: SystemTime,
    ) -> Result<Reply, Problem> {
        let faults = &self.faults.renewal;
        let issued = self.certificates.find_mut(id).filter(|_| !faults.not_offered);
        let issued = issued.ok_or_else(|| Problem::not_found("certificate"))?;
        let life = issued.life();
        let window = life.window(faults.window, issued.asks, now);
        issued.asks = issued.asks.saturating_add(1);
        let explained = life.revoked.then(|| self.documents.url(Route::Explanation));
        let explanation = faults.explanation_url.clone().or(explained);
        let document = self.documents.renewal_information(window, explanation.as_deref());
        let retry_after = faults.retry_after.unwrap_or(RetryAfter::Seconds(life.ask_again()));
        Ok(Reply::json(StatusCode::OK, &document).come_back(retry_after, now))
    }

    /// The certificate that an order replaces, if it may (RFC 9773 section 5).
    pub(super) fn replaced(
        &self,
        account: u64,
        request: &OrderRequest,
        now: SystemTime,
    ) -> Result<Option<CertificateId>, Problem> {
        let Some(text) = &request.replaces else { return Ok(None) };
        if self.faults.renewal.not_offered {
            return Ok(None);
        }
        if let Some(kind) = self.faults.replaces_refused {
            return Err(Problem::new(kind, "the embedded CA was told to refuse `replaces`"));
        }
        let id = CertificateId::parse(text).map_err(|error| match error {
            CertificateIdError::Malformed => {
                Problem::malformed(format!("`replaces` is no certificate's name: {error}"))
            }
            CertificateIdError::Foreign => Problem::not_found("certificate to replace"),
        })?;
        let lives = |order| self.state.order_lives(order, now);
        self.certificates.may_replace(&id, account, &request.identifiers, lives)?;
        Ok(Some(id))
    }
}
