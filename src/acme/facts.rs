//! What a CA says of itself without an account, and an account of itself without the CA: enough to judge
//! CAA records before anything is ordered.

use instant_acme::Error;
use rustls::pki_types::CertificateDer;
use serde_json::Value;

use super::directory::Directory;
use super::problem::{AcmeError, Stage, Verdict};
use super::transport::Transport;

const ACTION: &str = "read the CA's directory";

/// What a directory says of its CA.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DirectoryFacts {
    /// What a CAA record may name to let this CA sign (RFC 8555 section 7.1.1); empty where it says nothing.
    pub caa_identities: Vec<String>,
}

/// Reads an issuer's directory, without an account; `roots` are trusted besides the public ones, `direct`
/// leaves HTTPS_PROXY aside.
///
/// # Errors
/// The CA is away, or that is no directory.
pub async fn directory(
    url: &str,
    roots: &[CertificateDer<'static>],
    direct: bool,
) -> Result<DirectoryFacts, AcmeError> {
    let answer = Transport::new(roots, direct).get(url.to_owned()).await;
    let (body, _) = answer
        .map_err(|e| AcmeError::from_library(ACTION, Stage::RenewalInfo, &Error::Other(Box::new(e))))?;
    let directory = Directory::parse(&body).ok_or_else(|| {
        let reason = format!("{url} is no ACME directory: is the issuer's directory URL right");
        AcmeError::new(ACTION, Verdict::Permanent, reason)
    })?;
    Ok(DirectoryFacts { caa_identities: directory.caa_identities })
}

/// The URL of the account that kept credentials are for, which is no secret.
pub fn account_uri(credentials: &str) -> Option<String> {
    let document: Value = serde_json::from_str(credentials).ok()?;
    document.get("id")?.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_known_by_its_url() {
        let kept =
            r#"{"id":"https://ca.example/acct/1","key_pkcs8":"AAAA","directory":"https://ca.example/dir"}"#;
        assert_eq!(account_uri(kept).as_deref(), Some("https://ca.example/acct/1"));
        assert_eq!(account_uri("{}"), None);
        assert_eq!(account_uri("damaged"), None);
    }
}
