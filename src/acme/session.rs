//! An account at an issuer: made once, kept, found again after a restart.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use instant_acme::{Account, AccountCredentials, ChallengeHandle, Error, ExternalAccountKey, NewAccount};
use rustls::pki_types::CertificateDer;

use super::abandoned::Awaited;
use super::account_key::Prepared;
use super::problem::{AcmeError, Stage, Verdict, is_bad_nonce};
use super::transport::Transport;

/// Rounds of the library's own three tries that a bad nonce may cost: at a CA that refuses every second
/// nonce, all of them fail once in 16 million requests.
pub(super) const NONCE_ROUNDS: u32 = 8;

/// Runs an operation again as long as it only failed for its nonce (RFC 8555 section 6.5).
macro_rules! nonce_safe {
    ($operation:expr) => {{
        let mut rounds = $crate::acme::session::NONCE_ROUNDS;
        loop {
            match $operation.await {
                Err(e) if rounds > 1 && $crate::acme::problem::is_bad_nonce(&e) => rounds -= 1,
                done => break done,
            }
        }
    }};
}
pub(super) use nonce_safe;

/// What is needed to open an account.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The issuer's directory.
    pub directory_url: String,
    /// `mailto:` URLs.
    pub contact: Vec<String>,
    /// Key identifier and base64url HMAC key for an external account binding.
    pub eab: Option<(String, zeroize::Zeroizing<String>)>,
    /// Roots to trust for the issuer's API besides the public ones.
    pub roots: Vec<CertificateDer<'static>>,
    /// Leave HTTPS_PROXY aside: the issuer is on this machine.
    pub direct: bool,
}

/// An account, ready for orders. Clones are the same account.
#[derive(Clone)]
pub struct Session {
    pub(super) account: Account,
    pub(super) transport: Transport,
    pub(super) roots: Vec<CertificateDer<'static>>,
    pub(super) awaited: Awaited,
}

/// A session, and the credentials to keep where they are new.
pub struct Opened {
    /// The session.
    pub session: Session,
    /// JSON with the account's private key: to be kept, mode 0600, and never shown.
    pub new_credentials: Option<zeroize::Zeroizing<String>>,
}

impl Session {
    /// Opens the account of `kept` credentials, or makes a new one.
    ///
    /// # Errors
    /// The CA is away, its directory is none, or it refuses the account.
    pub async fn open(setup: &Setup, kept: Option<&str>) -> Result<Opened, AcmeError> {
        let transport = Transport::new(&setup.roots, setup.direct);
        let roots = setup.roots.clone();
        if let Some(kept) = kept {
            let Prepared { credentials, key } = Prepared::new(kept);
            let transport = transport.signing_with(key);
            let parse = || serde_json::from_str::<AccountCredentials>(&credentials);
            if let Err(e) = parse() {
                let reason = format!(
                    "account.json is damaged ({e}): remove it, and a new account is made in its place"
                );
                return Err(AcmeError::new("read the kept account", Verdict::Permanent, reason));
            }
            let open = || async {
                let builder = Account::builder_with_http(Box::new(transport.clone()));
                builder.from_credentials(parse()?).await
            };
            let account =
                nonce_safe!(open()).map_err(|e| failed("read the CA's directory", Stage::Opening, &e))?;
            let session = Self { account, transport, roots, awaited: Awaited::default() };
            return Ok(Opened { session, new_credentials: None });
        }
        let eab = match &setup.eab {
            None => None,
            Some((kid, key)) => {
                let key = BASE64_URL_SAFE_NO_PAD.decode(key.trim().trim_end_matches('=')).map_err(|_| {
                    let reason = "the file of `acme.eab.hmac-key-file` is not base64url: copy the CA's HMAC key into it as it is";
                    AcmeError::new("open an account", Verdict::Permanent, reason)
                })?;
                Some(ExternalAccountKey::new(kid.clone(), &key))
            }
        };
        let contact: Vec<&str> = setup.contact.iter().map(String::as_str).collect();
        let wanted =
            NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let open = || {
            let builder = Account::builder_with_http(Box::new(transport.clone()));
            builder.create(&wanted, setup.directory_url.clone(), eab.as_ref())
        };
        let (account, credentials) =
            nonce_safe!(open()).map_err(|e| failed("open an account", Stage::Opening, &e))?;
        let json = serde_json::to_string(&credentials).expect("credentials always have a JSON form");
        let session = Self { account, transport, roots, awaited: Awaited::default() };
        Ok(Opened { session, new_credentials: Some(json.into()) })
    }

    /// Whether the CA's directory offers a profile of that name.
    pub fn offers_profile(&self, name: &str) -> bool {
        self.account.profiles().any(|p| p.name == name)
    }

    /// The names of the profiles in the CA's directory.
    pub fn profiles(&self) -> Vec<String> {
        let mut names: Vec<_> = self.account.profiles().map(|p| p.name.to_owned()).collect();
        names.sort();
        names
    }

    /// The account's URL at the CA, which a CAA record may name (RFC 8657).
    pub fn account_uri(&self) -> &str {
        self.account.id()
    }

    /// What a CAA record may name to let this CA sign, as its directory says; in lower case, perhaps
    /// empty (RFC 8659 section 4.2).
    pub fn caa_identities(&self) -> Vec<String> {
        self.transport.directory().caa_identities
    }

    /// What an answer to that challenge is (RFC 8555 section 8.1).
    pub(super) fn key_authorization(&self, challenge: &ChallengeHandle<'_>) -> Bytes {
        match self.transport.key() {
            Some(key) => format!("{}.{}", challenge.token, key.thumbprint()).into(),
            None => Bytes::copy_from_slice(challenge.key_authorization().as_str().as_bytes()),
        }
    }

    pub(super) fn failed(&self, action: &'static str, error: &Error) -> AcmeError {
        failed(action, Stage::Asking, error)
    }
}

fn failed(action: &'static str, stage: Stage, error: &Error) -> AcmeError {
    debug_assert!(!action.is_empty());
    if is_bad_nonce(error) {
        let reason = "the CA refused every nonce it gave out: it has trouble of its own";
        return AcmeError::new(action, Verdict::Unavailable, reason);
    }
    AcmeError::from_library(action, stage, error)
}
