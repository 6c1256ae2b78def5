//! Which certificate a client gets. Readers never wait: the whole table is replaced at once.
//!
//! Each certificate carries its own `ServerConfig`, a copy of one base with the same tickets and
//! session keys. So a handshake needs one look-up, a session resumes across a swap, and what a page
//! says about its certificate is what the client has seen.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::{ArcSwap, Guard};
use rustls::ServerConfig;

use super::tls;
use crate::certificate::Certificate;
use crate::hostname::Identifier;

/// The certificates that are served, shared by all threads. Clones share them.
#[derive(Clone)]
pub struct CertificateResolver(Arc<Shared>);

struct Shared {
    base: ServerConfig,
    table: ArcSwap<Table>,
    /// Held while a new table is made, so that two writers don't lose each other's change.
    writing: Mutex<()>,
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

#[derive(Default, Clone)]
struct Table {
    lineages: BTreeMap<String, Arc<Served>>,
    default: Option<String>,
    exact: HashMap<Box<str>, Arc<Served>>,
    /// By the parent's name.
    wildcards: HashMap<Box<str>, Arc<Served>>,
    addresses: HashMap<IpAddr, Arc<Served>>,
    identifiers: Arc<BTreeSet<Identifier>>,
}

impl CertificateResolver {
    /// One that serves nothing yet: every handshake is refused.
    ///
    /// # Errors
    /// The random number generator failed.
    pub fn new() -> Result<Self, rustls::Error> {
        Ok(Self(Arc::new(Shared {
            base: tls::base_config()?,
            table: ArcSwap::default(),
            writing: Mutex::new(()),
        })))
    }

    /// Serves `certificate` from now on, in place of what `name` had before. Connections that are open
    /// notice nothing.
    ///
    /// # Errors
    /// [`InstallError`]; nothing has changed then.
    pub fn install(&self, name: &str, certificate: &Certificate) -> Result<(), InstallError> {
        if certificate.identifiers().is_empty() && certificate.wildcards().is_empty() {
            return Err(InstallError::Nameless(name.to_owned()));
        }
        let served = Arc::new(Served {
            name: name.to_owned(),
            identifiers: certificate.identifiers().to_vec(),
            wildcards: certificate.wildcards().iter().map(ToString::to_string).collect(),
            serial: certificate.serial().to_owned(),
            issuer: certificate.issuer().to_owned(),
            not_before: certificate.not_before(),
            not_after: certificate.not_after(),
            tls: Arc::new(tls::with_certificate(&self.0.base, certificate.certified())),
        });
        self.change(|table| {
            table.lineages.insert(name.to_owned(), served);
        });
        Ok(())
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

    /// What `name` serves now.
    pub fn lineage(&self, name: &str) -> Option<Arc<Served>> {
        self.0.table.load().lineages.get(name).cloned()
    }

    /// The certificate for a client that sent `server_name` (lower case, as the TLS library gives it)
    /// to the address `local`.
    ///
    /// An unknown name has none: a foreign certificate would only be a confusing error. Without a name
    /// it is the address's, else the default.
    pub fn find(
        &self,
        server_name: Option<&str>,
        local: impl FnOnce() -> Option<IpAddr>,
    ) -> Option<Arc<Served>> {
        let table: Guard<Arc<Table>> = self.0.table.load();
        match server_name {
            Some(name) => table.by_name(name).cloned(),
            None => local()
                .and_then(|ip| table.addresses.get(&ip.to_canonical()))
                .or_else(|| table.default.as_ref().and_then(|name| table.lineages.get(name)))
                .cloned(),
        }
    }

    fn change(&self, change: impl FnOnce(&mut Table)) {
        // What a panicking writer left behind is at worst no new table.
        let _writing = self.0.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut table = Table::clone(&self.0.table.load());
        change(&mut table);
        table.index();
        self.0.table.store(Arc::new(table));
    }
}

impl fmt::Debug for CertificateResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.table.load().lineages.values()).finish()
    }
}

impl Table {
    fn by_name(&self, name: &str) -> Option<&Arc<Served>> {
        let name = name.strip_suffix('.').unwrap_or(name);
        self.exact.get(name).or_else(|| self.wildcards.get(name.split_once('.')?.1))
    }

    /// Where several certificates cover a name, the one that is valid for longest serves it.
    fn index(&mut self) {
        let mut lineages: Vec<_> = self.lineages.values().cloned().collect();
        lineages.sort_by_key(|served| served.not_after);
        self.exact.clear();
        self.wildcards.clear();
        self.addresses.clear();
        for served in &lineages {
            for identifier in &served.identifiers {
                match identifier {
                    Identifier::Dns(name) => {
                        self.exact.insert(name.as_str().into(), served.clone());
                    }
                    Identifier::Ip(ip) => {
                        self.addresses.insert(ip.to_canonical(), served.clone());
                    }
                }
            }
            for parent in &served.wildcards {
                self.wildcards.insert(parent.as_str().into(), served.clone());
            }
        }
        self.identifiers =
            Arc::new(lineages.iter().flat_map(|served| served.identifiers.iter().cloned()).collect());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn certificate(names: &[&str], year: i32) -> Certificate {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let leaf = params.self_signed(&key).unwrap();
        Certificate::stored(&leaf.pem(), &key.serialize_pem()).unwrap()
    }

    fn found(resolver: &CertificateResolver, name: Option<&str>, local: Option<&str>) -> Option<String> {
        resolver.find(name, || local.map(|ip| ip.parse().unwrap())).map(|served| served.name.clone())
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
        assert!(resolver.lineage("one").is_none() && resolver.lineage("wild").is_some());
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
        let served = resolver.find(Some("x.test"), || None).unwrap();
        assert_eq!((served.name.as_str(), served.serial.as_str()), ("b", renewed.serial()));
        assert!(served.not_after.duration_since(served.not_before).unwrap() > Duration::from_secs(86_400));
        resolver.remove("b");
        assert_eq!(found(&resolver, Some("x.test"), None).as_deref(), Some("a"));
    }
}
