//! Which certificate a client gets. Readers never wait: the whole table is replaced at once.
//!
//! The name that a client asks for decides about the lineage. Where that is a pair, the client gets the
//! first of the two that it can make use of, and the first where it can make use of neither.
//!
//! Each certificate carries its own `ServerConfig`, a copy of one base with the same tickets and
//! session keys. So a handshake needs one look-up, a session resumes across a swap, and what a page
//! says about its certificate is what the client has seen.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use arc_swap::{ArcSwap, Guard};
use rustls::ServerConfig;
use rustls::sign::SigningKey;

use super::abilities::Abilities;
use super::routes::lower_case_name;
use super::tls;
use crate::certificate::{Bundle, Certificate};
use crate::hostname::Identifier;
use crate::tickets::{TicketKeys, Tickets};

/// The certificates that are served, shared by all threads. Clones share them.
#[derive(Clone)]
pub struct CertificateResolver(Arc<Shared>);

struct Shared {
    base: ServerConfig,
    tickets: Arc<Tickets>,
    table: ArcSwap<Table>,
    /// Held while a new table is made, so that two writers don't lose each other's change.
    writing: Mutex<Writing>,
}

/// A certificate that is being served.
pub struct Served {
    /// The lineage's name.
    pub name: String,
    /// Exact names and addresses.
    pub identifiers: Vec<Identifier>,
    /// Parents of wildcard names.
    pub wildcards: Vec<String>,
    /// Hex.
    pub serial: String,
    /// The issuer's distinguished name.
    pub issuer: String,
    /// Start of validity.
    pub not_before: SystemTime,
    /// End of validity.
    pub not_after: SystemTime,
    pub(super) tls: Arc<ServerConfig>,
    key: Arc<dyn SigningKey>,
}

/// What a lineage serves: a certificate, or a pair.
#[derive(Debug)]
struct Offer {
    first: Arc<Served>,
    second: Option<Arc<Served>>,
    not_after: SystemTime,
    /// What each of them names.
    identifiers: Vec<Identifier>,
    wildcards: Vec<String>,
}

impl Served {
    /// Whether it is a certificate for that `Host`, as received: with a port or not, in any case.
    pub(super) fn covers(&self, host: &[u8]) -> bool {
        let mut buffer = [0; 253];
        let Some(name) = lower_case_name(host, &mut buffer) else { return false };
        let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return self.identifiers.contains(&Identifier::Ip(ip.to_canonical()));
        }
        let is_it =
            |identifier: &Identifier| matches!(identifier, Identifier::Dns(own) if own.as_str() == name);
        self.identifiers.iter().any(is_it)
            || name.split_once('.').is_some_and(|(_, parent)| self.wildcards.iter().any(|own| own == parent))
    }
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Served")
            .field("name", &self.name)
            .field("identifiers", &self.identifiers)
            .field("serial", &self.serial)
            .finish_non_exhaustive()
    }
}

/// Why a certificate can't be served.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// It names nothing that a client could ask for.
    #[error("certificate `{0}` names no host and no address, so no client could ask for it; order it anew")]
    Nameless(String),
}

/// Changes that are being made.
#[derive(Default)]
struct Writing {
    /// More will follow, and take effect with them.
    is_held: bool,
    table: Option<Table>,
}

#[derive(Default, Clone)]
struct Table {
    lineages: BTreeMap<String, Arc<Offer>>,
    default: Option<String>,
    exact: HashMap<Box<str>, Arc<Offer>>,
    /// By the parent's name.
    wildcards: HashMap<Box<str>, Arc<Offer>>,
    addresses: HashMap<IpAddr, Arc<Offer>>,
    identifiers: Arc<BTreeSet<Identifier>>,
}

impl CertificateResolver {
    /// One that serves nothing yet: every handshake is refused.
    ///
    /// # Errors
    /// The random number generator failed.
    pub fn new() -> Result<Self, rustls::Error> {
        let tickets = Arc::new(Tickets::new()?);
        Ok(Self(Arc::new(Shared {
            base: tls::base_config(tickets.clone())?,
            tickets,
            table: ArcSwap::default(),
            writing: Mutex::default(),
        })))
    }

    /// Serves `bundle` from now on, in place of what `name` had before. Connections that are open notice
    /// nothing.
    ///
    /// # Errors
    /// [`InstallError`]; nothing has changed then.
    pub fn install(&self, name: &str, bundle: &Bundle) -> Result<(), InstallError> {
        if bundle.identifiers().is_empty() && bundle.wildcards().is_empty() {
            return Err(InstallError::Nameless(name.to_owned()));
        }
        let served = |certificate: &Certificate| Arc::new(self.served_as(name, certificate));
        let offer = Arc::new(Offer {
            first: served(bundle.first()),
            second: bundle.second().map(served),
            not_after: bundle.not_after(),
            identifiers: bundle.identifiers().to_vec(),
            wildcards: bundle.wildcards().iter().map(ToString::to_string).collect(),
        });
        self.change(|table| {
            table.lineages.insert(name.to_owned(), offer);
        });
        Ok(())
    }

    fn served_as(&self, name: &str, certificate: &Certificate) -> Served {
        let certified = certificate.certified();
        Served {
            name: name.to_owned(),
            identifiers: certificate.identifiers().to_vec(),
            wildcards: certificate.wildcards().iter().map(ToString::to_string).collect(),
            serial: certificate.serial().to_owned(),
            issuer: certificate.issuer().to_owned(),
            not_before: certificate.not_before(),
            not_after: certificate.not_after(),
            key: certified.key.clone(),
            tls: Arc::new(tls::with_certificate(&self.0.base, certified)),
        }
    }

    /// What every handshake has in common.
    pub(super) fn base(&self) -> &ServerConfig {
        &self.0.base
    }

    /// Seals and opens session tickets with keys that other nodes share, from now on; `None`: with keys of this process
    /// alone, which change every six hours.
    pub fn share_tickets(&self, keys: Option<Arc<TicketKeys>>) {
        self.0.tickets.share(keys);
    }

    /// Serves what `name` had no longer.
    pub fn remove(&self, name: &str) {
        self.change(|table| {
            table.lineages.remove(name);
        });
    }

    /// The lineage for clients that name no host and came to an address without a certificate.
    pub fn set_default(&self, name: Option<&str>) {
        self.change(|table| table.default = name.map(str::to_owned));
    }

    /// Every exact name and address that is served.
    pub fn served(&self) -> Arc<BTreeSet<Identifier>> {
        self.0.table.load().identifiers.clone()
    }

    /// What `name` serves now: one certificate, or the two of a pair.
    pub fn lineage(&self, name: &str) -> Vec<Arc<Served>> {
        let table = self.0.table.load();
        let offer = table.lineages.get(name);
        offer.into_iter().flat_map(|o| std::iter::once(&o.first).chain(&o.second)).cloned().collect()
    }

    /// The certificate for a client with these abilities that sent `server_name` (lower case, as the TLS
    /// library gives it) to the address `local`.
    ///
    /// An unknown name has none: a foreign certificate would only be a confusing error. Without a name
    /// it is the address's, else the default.
    pub fn find(
        &self,
        server_name: Option<&str>,
        abilities: &Abilities<'_>,
        local: impl FnOnce() -> Option<IpAddr>,
    ) -> Option<Arc<Served>> {
        let table: Guard<Arc<Table>> = self.0.table.load();
        let offer = match server_name {
            Some(name) => table.by_name(name),
            None => local()
                .and_then(|ip| table.addresses.get(&ip.to_canonical()))
                .or_else(|| table.default.as_ref().and_then(|name| table.lineages.get(name))),
        };
        offer.map(|offer| self.pick(offer, abilities).clone())
    }

    fn pick<'a>(&self, offer: &'a Offer, abilities: &Abilities<'_>) -> &'a Arc<Served> {
        let Some(second) = &offer.second else { return &offer.first };
        let ours = &self.0.base.crypto_provider().cipher_suites;
        let suits = |served: &Served| abilities.suit(&*served.key, ours);
        if !suits(&offer.first) && suits(second) { second } else { &offer.first }
    }

    /// Has all changes that `many` makes take effect together, at its end: a table of thousands is built once.
    pub fn together<T>(&self, many: impl FnOnce() -> T) -> T {
        self.writing().is_held = true;
        let done = many();
        let mut writing = self.writing();
        writing.is_held = false;
        if let Some(table) = writing.table.take() {
            self.publish(table);
        }
        done
    }

    fn change(&self, change: impl FnOnce(&mut Table)) {
        let mut writing = self.writing();
        let mut table = writing.table.take().unwrap_or_else(|| Table::clone(&self.0.table.load()));
        change(&mut table);
        if writing.is_held {
            writing.table = Some(table);
        } else {
            self.publish(table);
        }
    }

    fn publish(&self, mut table: Table) {
        table.index();
        self.0.table.store(Arc::new(table));
    }

    fn writing(&self) -> MutexGuard<'_, Writing> {
        // What a panicking writer left behind is at worst no new table.
        self.0.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for CertificateResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.table.load().lineages.values()).finish()
    }
}

impl Table {
    fn by_name(&self, name: &str) -> Option<&Arc<Offer>> {
        let name = name.strip_suffix('.').unwrap_or(name);
        self.exact.get(name).or_else(|| self.wildcards.get(name.split_once('.')?.1))
    }

    /// Where several certificates cover a name, the one that is valid for longest serves it.
    fn index(&mut self) {
        let mut lineages: Vec<_> = self.lineages.values().cloned().collect();
        lineages.sort_by_key(|offer| offer.not_after);
        self.exact.clear();
        self.wildcards.clear();
        self.addresses.clear();
        for offer in &lineages {
            for identifier in &offer.identifiers {
                match identifier {
                    Identifier::Dns(name) => {
                        self.exact.insert(name.as_str().into(), offer.clone());
                    }
                    Identifier::Ip(ip) => {
                        self.addresses.insert(ip.to_canonical(), offer.clone());
                    }
                }
            }
            for parent in &offer.wildcards {
                self.wildcards.insert(parent.as_str().into(), offer.clone());
            }
        }
        self.identifiers =
            Arc::new(lineages.iter().flat_map(|offer| offer.identifiers.iter().cloned()).collect());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{CertificateParams, KeyPair, RsaKeySize, date_time_ymd};
    use rustls::{CipherSuite, SignatureScheme};

    use super::*;

    const ANY: Abilities<'_> = Abilities { schemes: &[], suites: &[], groups: None };

    fn signed(key: &KeyPair, names: &[&str], year: i32) -> Certificate {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_after = date_time_ymd(year, 1, 1);
        let leaf = params.self_signed(key).unwrap();
        Certificate::stored(&leaf.pem(), &key.serialize_pem()).unwrap()
    }

    fn certificate(names: &[&str], year: i32) -> Bundle {
        signed(&KeyPair::generate().unwrap(), names, year).into()
    }

    fn of_rsa(names: &[&str], year: i32) -> Certificate {
        let key = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        signed(&key, names, year)
    }

    fn found(resolver: &CertificateResolver, name: Option<&str>, local: Option<&str>) -> Option<String> {
        resolver.find(name, &ANY, || local.map(|ip| ip.parse().unwrap())).map(|served| served.name.clone())
    }

    #[test]
    fn of_a_pair_the_first_that_the_client_can_use() {
        const P256: SignatureScheme = SignatureScheme::ECDSA_NISTP256_SHA256;
        const PSS: SignatureScheme = SignatureScheme::RSA_PSS_SHA256;
        const PKCS1: SignatureScheme = SignatureScheme::RSA_PKCS1_SHA256;
        const TLS13: CipherSuite = CipherSuite::TLS13_AES_256_GCM_SHA384;
        const WITH_ECDSA: CipherSuite = CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384;
        const WITH_RSA: CipherSuite = CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384;
        let ecdsa = certificate(&["a.test", "192.0.2.1"], 2040).first().clone();
        let rsa = of_rsa(&["a.test", "192.0.2.1"], 2041);
        let resolver = CertificateResolver::new().unwrap();
        // Which certificate, where ECDSA comes first and where RSA does.
        for (suites, schemes, ecdsa_first, rsa_first) in [
            (&[TLS13][..], &[P256, PSS][..], &ecdsa, &rsa),
            (&[TLS13], &[PSS, P256], &ecdsa, &rsa),
            (&[TLS13], &[P256, PKCS1], &ecdsa, &ecdsa),
            (&[TLS13], &[PSS, PKCS1], &rsa, &rsa),
            (&[TLS13], &[PKCS1], &ecdsa, &rsa),
            (&[WITH_ECDSA, WITH_RSA], &[P256, PKCS1], &ecdsa, &rsa),
            (&[WITH_RSA, WITH_ECDSA], &[PKCS1, P256], &ecdsa, &rsa),
            (&[WITH_RSA], &[P256, PKCS1], &rsa, &rsa),
            (&[WITH_ECDSA], &[P256, PKCS1], &ecdsa, &ecdsa),
            (&[WITH_ECDSA, WITH_RSA], &[PKCS1], &rsa, &rsa),
            (&[WITH_ECDSA, WITH_RSA], &[P256], &ecdsa, &ecdsa),
            (&[], &[], &ecdsa, &rsa),
        ] {
            let abilities = Abilities { schemes, suites, groups: None };
            for (first, second, expected) in [(&ecdsa, &rsa, ecdsa_first), (&rsa, &ecdsa, rsa_first)] {
                resolver.install("pair", &Bundle::pair(first.clone(), second.clone()).unwrap()).unwrap();
                let by_name = resolver.find(Some("a.test"), &abilities, || None).unwrap();
                let by_address =
                    resolver.find(None, &abilities, || Some("192.0.2.1".parse().unwrap())).unwrap();
                assert_eq!(by_name.serial, expected.serial(), "{abilities:?}");
                assert_eq!(by_address.serial, expected.serial());
                assert_eq!(by_name.name, "pair");
            }
        }
        let served: Vec<_> = resolver.lineage("pair").iter().map(|s| s.serial.clone()).collect();
        assert_eq!(served, [rsa.serial(), ecdsa.serial()]);
        // One alone takes its place, whatever a client can do.
        resolver.install("pair", &rsa.clone().into()).unwrap();
        let abilities = Abilities { schemes: &[P256], suites: &[TLS13], groups: None };
        assert_eq!(resolver.find(Some("a.test"), &abilities, || None).unwrap().serial, rsa.serial());
    }

    #[test]
    fn a_name_that_half_of_a_pair_lacks_is_not_served_by_it() {
        let resolver = CertificateResolver::new().unwrap();
        let first = certificate(&["a.test", "b.test"], 2040).first().clone();
        resolver.install("pair", &Bundle::pair(first, of_rsa(&["a.test"], 2040)).unwrap()).unwrap();
        assert_eq!(found(&resolver, Some("a.test"), None).as_deref(), Some("pair"));
        assert_eq!(found(&resolver, Some("b.test"), None), None);
    }

    #[test]
    fn changes_that_are_made_together_take_effect_together() {
        let resolver = CertificateResolver::new().unwrap();
        resolver.install("old", &certificate(&["old.test"], 2040)).unwrap();
        resolver.together(|| {
            resolver.install("a", &certificate(&["a.test"], 2040)).unwrap();
            resolver.remove("old");
            assert_eq!(found(&resolver, Some("a.test"), None), None);
            assert_eq!(found(&resolver, Some("old.test"), None).as_deref(), Some("old"));
        });
        assert_eq!(found(&resolver, Some("a.test"), None).as_deref(), Some("a"));
        assert_eq!(found(&resolver, Some("old.test"), None), None);
        let before = resolver.served();
        resolver.together(|| {});
        assert!(Arc::ptr_eq(&before, &resolver.served()), "nothing is made anew for nothing");
        resolver.install("b", &certificate(&["b.test"], 2040)).unwrap();
        assert_eq!(found(&resolver, Some("b.test"), None).as_deref(), Some("b"));
    }

    #[test]
    fn exact_then_wildcard_then_nothing() {
        let resolver = CertificateResolver::new().unwrap();
        assert_eq!(found(&resolver, Some("a.test"), None), None, "closed before the first certificate");
        resolver.install("one", &certificate(&["a.test", "b.test"], 2040)).unwrap();
        resolver.install("wild", &certificate(&["*.a.test", "w.test"], 2040)).unwrap();
        resolver.install("deep", &certificate(&["x.a.test"], 2039)).unwrap();
        for (name, wanted) in [
            ("a.test", Some("one")),
            ("b.test.", Some("one")),
            ("y.a.test", Some("wild")),
            ("x.a.test", Some("deep")),
            ("y.x.a.test", None),
            ("c.test", None),
            ("test", None),
            ("", None),
            ("*.a.test", Some("wild")),
        ] {
            assert_eq!(found(&resolver, Some(name), None).as_deref(), wanted, "{name}");
        }
        let served: Vec<String> = resolver.served().iter().map(ToString::to_string).collect();
        assert_eq!(served, ["a.test", "b.test", "w.test", "x.a.test"]);
        resolver.remove("one");
        assert_eq!(found(&resolver, Some("a.test"), None), None);
        assert!(resolver.lineage("one").is_empty() && resolver.lineage("wild").len() == 1);
    }

    #[test]
    fn without_a_name_the_address_then_the_default() {
        let resolver = CertificateResolver::new().unwrap();
        resolver.install("ip", &certificate(&["192.0.2.1", "2001:db8::1"], 2040)).unwrap();
        resolver.install("host", &certificate(&["a.test"], 2040)).unwrap();
        assert_eq!(found(&resolver, None, Some("192.0.2.1")).as_deref(), Some("ip"));
        assert_eq!(found(&resolver, None, Some("::ffff:192.0.2.1")).as_deref(), Some("ip"));
        assert_eq!(found(&resolver, None, Some("2001:db8::1")).as_deref(), Some("ip"));
        assert_eq!(found(&resolver, None, Some("192.0.2.2")), None);
        resolver.set_default(Some("host"));
        assert_eq!(found(&resolver, None, Some("192.0.2.2")).as_deref(), Some("host"));
        assert_eq!(found(&resolver, None, None).as_deref(), Some("host"));
        assert_eq!(found(&resolver, Some("c.test"), Some("192.0.2.1")), None, "a name is never ignored");
        resolver.remove("host");
        assert_eq!(found(&resolver, None, None), None);
    }

    #[test]
    fn the_longest_valid_serves_a_shared_name() {
        let resolver = CertificateResolver::new().unwrap();
        resolver.install("a", &certificate(&["x.test", "a.test"], 2041)).unwrap();
        resolver.install("b", &certificate(&["x.test", "b.test"], 2040)).unwrap();
        assert_eq!(found(&resolver, Some("x.test"), None).as_deref(), Some("a"));
        let renewed = certificate(&["x.test", "b.test"], 2042);
        resolver.install("b", &renewed).unwrap();
        let served = resolver.find(Some("x.test"), &ANY, || None).unwrap();
        assert_eq!((served.name.as_str(), served.serial.as_str()), ("b", renewed.serial()));
        assert!(served.not_after.duration_since(served.not_before).unwrap() > Duration::from_secs(86_400));
        resolver.remove("b");
        assert_eq!(found(&resolver, Some("x.test"), None).as_deref(), Some("a"));
    }
}
