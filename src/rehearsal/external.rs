//! External account binding (RFC 8555 section 7.3.4): proof that a new account belongs to somebody whom
//! the CA knows from elsewhere, by a key that both share.

use std::collections::BTreeSet;
use std::fmt;

use aws_lc_rs::hmac;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::words::printable;

use super::jwk::AccountKey;
use super::jws::Binding;
use super::problem::{Problem, ProblemType};

/// HS256 needs as many (RFC 7518 section 3.2).
const SHORTEST_KEY: usize = 32;

/// An account elsewhere that a new account can be bound to, once.
#[derive(Clone)]
pub struct ExternalAccount {
    /// The key's name.
    pub kid: String,
    /// The key itself, not in base64url: 32 bytes or more.
    pub hmac_key: Zeroizing<Vec<u8>>,
}

impl ExternalAccount {
    /// From a name and the key's bytes.
    pub fn new(kid: impl Into<String>, hmac_key: impl Into<Vec<u8>>) -> Self {
        Self { kid: kid.into(), hmac_key: Zeroizing::new(hmac_key.into()) }
    }
}

impl fmt::Debug for ExternalAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExternalAccount").field("kid", &self.kid).finish_non_exhaustive()
    }
}

/// What is wrong with external accounts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExternalAccountError {
    /// A key without a name.
    #[error("a kid is empty")]
    Nameless,
    /// Two keys with one name.
    #[error("the kid `{0}` is there twice")]
    Twice(String),
    /// A key that HS256 must not be used with.
    #[error("the key of `{0}` has less than 32 bytes (RFC 7518 section 3.2)")]
    Short(String),
}

/// The accounts elsewhere, and those that are bound already.
#[derive(Debug, Default)]
pub(super) struct ExternalAccounts {
    accounts: Vec<ExternalAccount>,
    bound: BTreeSet<String>,
}

impl ExternalAccounts {
    pub(super) fn new(accounts: Vec<ExternalAccount>) -> Result<Self, ExternalAccountError> {
        let mut names = BTreeSet::new();
        for account in &accounts {
            let kid = || printable(&account.kid, 100);
            if account.kid.is_empty() {
                return Err(ExternalAccountError::Nameless);
            }
            if !names.insert(&account.kid) {
                return Err(ExternalAccountError::Twice(kid()));
            }
            if account.hmac_key.len() < SHORTEST_KEY {
                return Err(ExternalAccountError::Short(kid()));
            }
        }
        Ok(Self { accounts, bound: BTreeSet::new() })
    }

    /// Whether a new account must be bound.
    pub(super) fn required(&self) -> bool {
        !self.accounts.is_empty()
    }

    /// The name of the key that binds that new account; [`bind`](Self::bind) uses it up.
    pub(super) fn verify(
        &self,
        binding: Option<&Value>,
        key: &AccountKey,
        url: &str,
    ) -> Result<String, Problem> {
        let binding = binding.ok_or_else(|| {
            Problem::new(
                ProblemType::ExternalAccountRequired,
                "a new account needs an external account binding here: a kid and an HMAC key",
            )
        })?;
        let binding = Binding::parse(binding)?;
        if binding.url != url {
            return Err(Problem::malformed("the binding's url is not the one of the request"));
        }
        let denied = |what: &str| {
            Problem::new(
                ProblemType::Unauthorized,
                format!("the external account `{}` {what}", printable(&binding.kid, 100)),
            )
        };
        let account = self.accounts.iter().find(|account| account.kid == binding.kid);
        let account = account.ok_or_else(|| denied("is not known here"))?;
        let mac_key = hmac::Key::new(hmac::HMAC_SHA256, &account.hmac_key);
        if hmac::verify(&mac_key, binding.signing_input.as_bytes(), &binding.signature).is_err() {
            return Err(denied("has another HMAC key than the binding was made with"));
        }
        if binding.key()? != *key {
            return Err(Problem::malformed("the binding is for another key than the request's"));
        }
        if self.bound.contains(&binding.kid) {
            return Err(denied("is bound to an account already"));
        }
        Ok(binding.kid)
    }

    /// From now on nobody else can be bound to it.
    pub(super) fn bind(&mut self, kid: String) {
        self.bound.insert(kid);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::jws::signing::{Client, binding};
    use super::*;

    const URL: &str = "https://ca/new-account";
    const KEY: [u8; 32] = [7; 32];

    fn accounts() -> ExternalAccounts {
        ExternalAccounts::new(vec![
            ExternalAccount::new("kid-1", KEY),
            ExternalAccount::new("kid-2", [8; 64]),
        ])
        .unwrap()
    }

    fn header() -> Value {
        json!({ "alg": "HS256", "kid": "kid-1", "url": URL })
    }

    #[test]
    fn a_sound_binding_is_good_once() {
        let (mut accounts, client) = (accounts(), Client::new());
        let sound = binding(&header(), &client.jwk().to_string(), &KEY);
        assert_eq!(accounts.verify(Some(&sound), &client.key(), URL), Ok("kid-1".to_owned()));
        accounts.bind("kid-1".to_owned());
        let again = accounts.verify(Some(&sound), &client.key(), URL).unwrap_err();
        assert_eq!((again.kind, again.status.as_u16()), (ProblemType::Unauthorized, 403));
        assert!(again.detail.contains("already"), "{again:?}");
    }

    #[test]
    fn unsound_bindings_are_refused_with_the_reason() {
        let (accounts, client) = (accounts(), Client::new());
        let jwk = client.jwk().to_string();
        let with = |member: &str, value: Value| {
            let mut header = header();
            header[member] = value;
            binding(&header, &jwk, &KEY)
        };
        let (malformed, unauthorized) = (ProblemType::Malformed, ProblemType::Unauthorized);
        for (value, kind, says) in [
            (json!("x"), malformed, "not a flattened"),
            (json!({}), malformed, "not a flattened"),
            (with("alg", json!("ES256")), malformed, "HS256"),
            (with("alg", json!("none")), malformed, "HS256"),
            (with("nonce", json!("n")), malformed, "nonce"),
            (with("jwk", client.jwk()), malformed, "kid"),
            (with("kid", Value::Null), malformed, "kid"),
            (with("url", json!("https://ca/new-order")), malformed, "url"),
            (with("url", Value::Null), malformed, "url"),
            (with("crit", json!(["b64"])), malformed, "crit"),
            (with("kid", json!("kid-3")), unauthorized, "`kid-3` is not known"),
            (with("kid", json!("kid-2")), unauthorized, "another HMAC key"),
            (binding(&header(), &jwk, &[9; 32]), unauthorized, "another HMAC key"),
            (binding(&header(), &Client::new().jwk().to_string(), &KEY), malformed, "another key"),
            (binding(&header(), "{", &KEY), malformed, "not a JSON Web Key"),
            (binding(&header(), "", &KEY), malformed, "not a JSON Web Key"),
        ] {
            let problem = accounts.verify(Some(&value), &client.key(), URL).unwrap_err();
            assert_eq!(problem.kind, kind, "{problem:?}");
            assert!(problem.detail.contains(says), "{problem:?}");
        }
        let missing = accounts.verify(None, &client.key(), URL).unwrap_err();
        assert_eq!((missing.kind, missing.status.as_u16()), (ProblemType::ExternalAccountRequired, 403));
    }

    #[test]
    fn accounts_are_checked_and_keep_their_keys_to_themselves() {
        let account = |kid: &str, length| ExternalAccount::new(kid, vec![0xab; length]);
        for (accounts, error) in [
            (vec![account("", 32)], ExternalAccountError::Nameless),
            (vec![account("a", 32), account("a", 33)], ExternalAccountError::Twice("a".into())),
            (vec![account("a", 31)], ExternalAccountError::Short("a".into())),
        ] {
            assert_eq!(ExternalAccounts::new(accounts).unwrap_err(), error);
        }
        let shown = format!("{:?}", account("a", 32));
        assert!(shown.contains("\"a\"") && !shown.contains("171"), "{shown}");
    }
}
