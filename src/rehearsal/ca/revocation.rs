//! Revocation (RFC 8555 section 7.6).

use std::time::SystemTime;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::StatusCode;
use serde::Deserialize;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::super::authority::fingerprint;
use super::super::jwk::AccountKey;
use super::super::jws::Payload;
use super::super::problem::{Problem, ProblemType};
use super::super::reply::Reply;
use super::{Ca, read};

/// The reasons that a subscriber may give (RFC 5280 section 5.3.1): unspecified, keyCompromise,
/// affiliationChanged, superseded, cessationOfOperation.
const REASONS: [u64; 5] = [0, 1, 3, 4, 5];

/// Who asks for a revocation.
pub(super) enum Revoker {
    /// An account.
    Account(u64),
    /// Whoever has this key; good for its own certificate.
    Key(AccountKey),
}

impl Ca {
    pub(super) fn revoke(
        &mut self,
        revoker: Revoker,
        payload: Payload,
        now: SystemTime,
    ) -> Result<Reply, Problem> {
        #[derive(Deserialize)]
        struct Revocation {
            certificate: String,
            reason: Option<u64>,
        }
        let request: Revocation = read(payload.object()?)?;
        let der = BASE64_URL_SAFE_NO_PAD.decode(&request.certificate).map_err(|e| {
            Problem::malformed(format!("`certificate` is not base64url without padding: {e}"))
        })?;
        if let Some(reason) = request.reason.filter(|reason| !REASONS.contains(reason)) {
            return Err(Problem::new(
                ProblemType::BadRevocationReason,
                format!("the reason {reason} is not accepted: give one of 0, 1, 3, 4, 5 or none"),
            ));
        }
        // Looked up before it is parsed: so it is only ever what was signed here.
        let id = self.certificates.id_of(&fingerprint(&der));
        let id = id.ok_or_else(|| Problem::not_found("certificate"))?;
        let issued = self.certificates.find(&id).ok_or_else(|| Problem::not_found("certificate"))?;
        let may = match &revoker {
            Revoker::Account(account) => {
                issued.account == *account
                    || self.state.holds(*account, issued.identifiers.iter().cloned(), now)
            }
            Revoker::Key(key) => X509Certificate::from_der(&der)
                .is_ok_and(|(_, certificate)| key.is_key_of(certificate.public_key())),
        };
        if !may {
            return Err(Problem::new(
                ProblemType::Unauthorized,
                match revoker {
                    Revoker::Account(_) => {
                        "the certificate is another account's, and this one has no authorization for all of \
                         its identifiers"
                    }
                    Revoker::Key(_) => "the request is not signed with the certificate's key",
                },
            ));
        }
        if let Some(issued) = self.certificates.find_mut(&id) {
            if issued.revoked {
                return Err(Problem::new(ProblemType::AlreadyRevoked, "the certificate was revoked before"));
            }
            issued.revoked = true;
            self.seen.revocations += 1;
        }
        Ok(Reply::empty(StatusCode::OK))
    }
}
