//! Which of certbot's accounts is taken (pure): one for each CA, the one that most lineages name.

use std::collections::BTreeMap;

use serde_json::Value;
use zeroize::Zeroizing;

use super::tree::FoundAccount;
use crate::acme;
use crate::config::Issuer;
use crate::hostname::Hostname;
use crate::words::printable;

/// An account that is taken over.
pub struct AccountPlan {
    /// Its CA.
    pub issuer: Issuer,
    /// Its URL there.
    pub url: String,
    /// The kind of its key: `RSA` or `EC`.
    pub kind: String,
    /// certbot's name for it.
    pub id: String,
    /// Mail addresses that its registration shows.
    pub(super) contact: Vec<String>,
    pub(super) credentials: Zeroizing<String>,
}

/// The accounts, by their CA.
#[derive(Default)]
pub(super) struct Accounts {
    pub(super) taken: Vec<AccountPlan>,
    /// What is wrong with others.
    pub(super) troubles: Vec<String>,
    /// Others that are well.
    pub(super) left_behind: Vec<String>,
}

/// The directory's URL for a server that certbot names; Let's Encrypt's first protocol is gone, and
/// certbot goes to the second with the same accounts.
pub(super) fn directory_url(server: &str) -> String {
    match server {
        "https://acme-v01.api.letsencrypt.org/directory" => {
            "https://acme-v02.api.letsencrypt.org/directory".to_owned()
        }
        "https://acme-staging.api.letsencrypt.org/directory" => {
            "https://acme-staging-v02.api.letsencrypt.org/directory".to_owned()
        }
        other => other.to_owned(),
    }
}

/// Chooses among the accounts; `wanted` are server and account of each lineage.
pub(super) fn choose(found: &[FoundAccount], wanted: &[(String, String)]) -> Accounts {
    let mut accounts = Accounts::default();
    let mut by_issuer: BTreeMap<String, Vec<(usize, String, AccountPlan)>> = BTreeMap::new();
    for account in found {
        let here = |server: &str| folder_of(server) == account.server;
        let server = wanted.iter().map(|(server, _)| server.as_str()).find(|server| here(server));
        let server = directory_url(server.unwrap_or(&format!("https://{}", account.server)));
        let plan = match plan(account, &server) {
            Ok(plan) => plan,
            Err(reason) => {
                let (id, server) = (printable(&account.id, 60), printable(&account.server, 200));
                accounts.troubles.push(format!("account {id} at {server}: {reason}"));
                continue;
            }
        };
        let named = wanted.iter().filter(|(server, id)| here(server) && *id == account.id).count();
        let of_issuer = by_issuer.entry(plan.issuer.name()).or_default();
        // The folder of Let's Encrypt's second protocol is a link to that of the first.
        if !of_issuer.iter().any(|(_, _, other)| other.url == plan.url) {
            of_issuer.push((named, created(account), plan));
        }
    }
    for (_, mut candidates) in by_issuer {
        candidates.sort_by(|a, b| (b.0, &b.1).cmp(&(a.0, &a.1)));
        let mut candidates = candidates.into_iter();
        let Some((_, _, taken)) = candidates.next() else { continue };
        accounts.left_behind.extend(candidates.map(|(named, _, other)| {
            let count = if named == 0 {
                "no lineage names it".to_owned()
            } else {
                format!("{named} of the lineages name it")
            };
            format!(
                "account {} at {}: there is one account for a CA here, and {} is taken ({count})",
                other.url,
                other.issuer.name(),
                taken.url
            )
        }));
        accounts.taken.push(taken);
    }
    accounts
}

/// The folder below `accounts` that certbot keeps a server's accounts in.
fn folder_of(server: &str) -> String {
    let rest = server.split_once("://").map_or(server, |(_, rest)| rest);
    rest.split(['?', '#']).next().unwrap_or(rest).trim_end_matches('/').to_owned()
}

fn plan(found: &FoundAccount, server: &str) -> Result<AccountPlan, String> {
    let issuer: Issuer = server.parse()?;
    let directory = issuer.directory_url().unwrap_or_else(|| server.to_owned());
    let json = |text: &str, file: &str| {
        serde_json::from_str::<Value>(text)
            .map_err(|e| format!("{file} is damaged: {}", printable(&e.to_string(), 100)))
    };
    let registration = json(found.registration.as_deref().map_err(Clone::clone)?, "regr.json")?;
    let url = registration["uri"].as_str().filter(|url| url.starts_with("https://"));
    let url = url.ok_or("regr.json does not tell the account's URL")?.to_owned();
    let key = json(found.key.as_ref().map_err(Clone::clone)?, "private_key.json")?;
    let credentials = acme::credentials(&key, &url, &directory)
        .map_err(|e| format!("private_key.json cannot be used: {e}"))?;
    let kind = key["kty"].as_str().unwrap_or_default().to_owned();
    let contact = registration["body"]["contact"].as_array().into_iter().flatten();
    let contact = contact.filter_map(|url| mail_address(url.as_str()?)).collect();
    Ok(AccountPlan { issuer, url: printable(&url, 300), kind, id: found.id.clone(), contact, credentials })
}

/// When it was made, in a form that sorts; empty where that is not known.
fn created(found: &FoundAccount) -> String {
    let meta: Option<Value> = found.meta.as_deref().and_then(|text| serde_json::from_str(text).ok());
    meta.and_then(|meta| Some(meta["creation_dt"].as_str()?.to_owned())).unwrap_or_default()
}

fn mail_address(url: &str) -> Option<String> {
    let address = url.strip_prefix("mailto:")?;
    let (user, domain) = address.split_once('@')?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._+-".contains(c);
    let is_well = (1..=64).contains(&user.len()) && user.chars().all(is_plain) && !user.starts_with('.');
    let domain: Hostname = domain.parse().ok()?;
    is_well.then(|| format!("{user}@{domain}"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use base64::Engine;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;
    use rcgen::KeyPair;

    /// A private key as certbot keeps one.
    fn jwk() -> String {
        let key = KeyPair::generate().unwrap();
        // SEC 1 inside PKCS #8: the private number follows its own header.
        let der = key.serialize_der();
        let at = der.windows(2).position(|pair| pair == [0x04, 0x20]).unwrap() + 2;
        let point = key.public_key_raw();
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        serde_json::json!({
            "kty": "EC", "crv": "P-256",
            "x": encode(&point[1..33]), "y": encode(&point[33..]), "d": encode(&der[at..at + 32]),
        })
        .to_string()
    }

    pub(in super::super) fn account(server: &str, id: &str, created: &str) -> FoundAccount {
        FoundAccount {
            server: server.to_owned(),
            id: id.to_owned(),
            key: Ok(jwk().into()),
            registration: Ok(format!(
                r#"{{"body": {{"contact": ["mailto:ops@a.test", "tel:1"]}}, "uri": "https://{server}/acct/{id}"}}"#
            )),
            meta: Some(format!(r#"{{"creation_dt": "{created}"}}"#)),
        }
    }

    const V1: &str = "acme-v01.api.letsencrypt.org/directory";
    const V2: &str = "acme-v02.api.letsencrypt.org/directory";

    fn wanted(of: &[(&str, &str)]) -> Vec<(String, String)> {
        of.iter().map(|(server, id)| (format!("https://{server}"), (*id).to_owned())).collect()
    }

    #[test]
    fn the_account_that_most_lineages_name() {
        let found = [account(V2, "a", "2020"), account(V2, "b", "2021"), account("ca.test:1/x/dir", "c", "")];
        let named = choose(&found, &wanted(&[(V2, "a"), (V2, "a"), (V2, "b")]));
        let taken: Vec<_> = named.taken.iter().map(|a| (a.issuer.name(), a.id.as_str())).collect();
        assert_eq!(taken, [("ca.test_1_x_dir".to_owned(), "c"), ("letsencrypt".to_owned(), "a")]);
        assert_eq!(named.taken[1].contact, ["ops@a.test"]);
        assert_eq!(named.left_behind.len(), 1);
        assert!(named.left_behind[0].ends_with("(1 of the lineages name it)"), "{:?}", named.left_behind);
        assert!(named.troubles.is_empty());

        let newest = choose(&found[..2], &[]);
        assert_eq!(newest.taken[0].id, "b");
    }

    #[test]
    fn the_first_protocols_accounts_are_the_seconds() {
        let same =
            || FoundAccount { registration: account(V1, "a", "").registration, ..account(V2, "a", "") };
        let found = [FoundAccount { server: V1.to_owned(), ..same() }, same()];
        let chosen = choose(&found, &wanted(&[(V1, "a")]));
        let [taken] = &chosen.taken[..] else { panic!("{} accounts", chosen.taken.len()) };
        assert_eq!(
            (taken.issuer.clone(), taken.url.as_str()),
            (Issuer::LetsEncrypt, "https://acme-v01.api.letsencrypt.org/directory/acct/a")
        );
        let kept: Value = serde_json::from_str(&taken.credentials).unwrap();
        assert_eq!(kept["directory"], "https://acme-v02.api.letsencrypt.org/directory");
        assert!(chosen.left_behind.is_empty());
    }

    #[test]
    fn what_is_wrong_with_an_account_is_told() {
        let with = |change: &dyn Fn(&mut FoundAccount)| {
            let mut found = account(V2, "a", "");
            change(&mut found);
            choose(&[found], &[]).troubles.remove(0)
        };
        for (told, says) in [
            (with(&|a| a.key = Err("`k` is missing".to_owned())), ": `k` is missing"),
            (with(&|a| a.key = Ok("{".to_owned().into())), "private_key.json is damaged"),
            (
                with(&|a| a.key = Ok("{}".to_owned().into())),
                "private_key.json cannot be used: the key type ``",
            ),
            (with(&|a| a.registration = Ok("{}".to_owned())), "regr.json does not tell"),
            (with(&|a| a.registration = Ok("[".to_owned())), "regr.json is damaged"),
            (with(&|a| "a b".clone_into(&mut a.server)), "is no URL"),
        ] {
            assert!(told.contains(says), "{told}");
        }
    }

    #[test]
    fn servers_and_their_folders() {
        for (server, folder) in [
            ("https://ca.test:14000/dir", "ca.test:14000/dir"),
            ("https://ca.test/a/b/?x=1", "ca.test/a/b"),
            ("ca.test", "ca.test"),
        ] {
            assert_eq!(folder_of(server), folder);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_strange(key in "\\PC{0,80}", registration in "\\PC{0,80}") {
            let found = FoundAccount { key: Ok(key.into()), registration: Ok(registration), ..account(V2, "a", "") };
            proptest::prop_assert_eq!(choose(&[found], &[]).troubles.len(), 1);
        }
    }
}
