//! What servers are to show, read as they read it: by whoever may, without the lock and without the keys.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::{FALL_BACK, MAX_FILE, StoreError, Version};
use crate::folder::read_file;

/// Folders of a pair's halves; one certificate alone has none.
const HALVES: [&str; 2] = ["ecdsa", "rsa"];

/// Chains of one version, leaf first: one, or both of a pair.
type Chains = Vec<Vec<CertificateDer<'static>>>;

/// The versions of a lineage that are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptChains {
    /// The one that servers are to show.
    pub live: Version,
    /// Those that can be read, the oldest first: the live one, and others for rolling back.
    pub versions: Vec<(Version, Vec<Vec<CertificateDer<'static>>>)>,
}

/// The chains of a lineage's live version, leaf first: one, or both of a pair; none where nothing is stored.
///
/// # Errors
/// It cannot be read by this user, or is damaged.
pub fn live_chains(state_dir: &Path, name: &str) -> Result<Vec<Vec<CertificateDer<'static>>>, StoreError> {
    live_folder(state_dir, name)?.map_or_else(|| Ok(Vec::new()), |folder| chains_in(&folder))
}

/// The chains of every version of a lineage that is kept; `None` where nothing is live.
///
/// # Errors
/// The live one cannot be read by this user, or is damaged; or its link leads elsewhere.
pub fn kept_chains(state_dir: &Path, name: &str) -> Result<Option<KeptChains>, StoreError> {
    let Some(folder) = live_folder(state_dir, name)? else { return Ok(None) };
    let (Some(live), Some(beside)) = (number(&folder), folder.parent()) else {
        let (path, reason) = (state_dir.join("live").join(name), format!("it leads to {}", folder.display()));
        return Err(StoreError::Damaged { path, reason, remedy: FALL_BACK });
    };
    let mut versions = vec![(live, chains_in(&folder)?)];
    // Who may read the live one only has nothing else to compare with.
    for other in fs::read_dir(beside).into_iter().flatten().flatten().map(|entry| entry.path()) {
        if let (Some(version), Ok(chains)) = (number(&other), chains_in(&other))
            && version != live
            && !chains.is_empty()
        {
            versions.push((version, chains));
        }
    }
    versions.sort_by_key(|(version, _)| *version);
    Ok(Some(KeptChains { live, versions }))
}

/// `0007`
fn number(folder: &Path) -> Option<Version> {
    folder.file_name()?.to_str()?.parse().ok()
}

/// The folder of the live version. The link is followed once: what is read afterwards is of one version.
fn live_folder(state_dir: &Path, name: &str) -> Result<Option<PathBuf>, StoreError> {
    let link = state_dir.join("live").join(name);
    match fs::canonicalize(&link) {
        Ok(folder) => Ok(Some(folder)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StoreError::Io { action: "read", path: link, source }),
    }
}

fn chains_in(folder: &Path) -> Result<Chains, StoreError> {
    let mut chains = Vec::new();
    for half in HALVES.map(|half| folder.join(half).join("fullchain.pem")) {
        chains.extend(chain(&half)?);
    }
    if chains.is_empty() {
        chains.extend(chain(&folder.join("fullchain.pem"))?);
    }
    Ok(chains)
}

fn chain(path: &Path) -> Result<Option<Vec<CertificateDer<'static>>>, StoreError> {
    let text = match read_file(path, MAX_FILE) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(StoreError::Io { action: "read", path: path.to_owned(), source }),
    };
    let damaged = |reason: String| StoreError::Damaged { path: path.to_owned(), reason, remedy: FALL_BACK };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match chain {
        Ok(chain) if chain.is_empty() => Err(damaged("there is no PEM certificate in it".to_owned())),
        Ok(chain) => Ok(Some(chain)),
        Err(e) => Err(damaged(e.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::Certificate;
    use crate::store::Store;

    #[test]
    fn what_is_live_is_read_without_its_key() {
        let holder = tempfile::tempdir().unwrap();
        let path = holder.path().join("state");
        let store = Store::open(&path).unwrap();
        assert_eq!(live_chains(&path, "a.example").unwrap(), Vec::<Vec<_>>::new());
        let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        let certificate = Certificate::stored(&made.cert.pem(), &made.signing_key.serialize_pem()).unwrap();
        store.save("a.example", &certificate.clone().into()).unwrap();
        let live = path.join("live/a.example");
        fs::remove_file(live.join("privkey.pem")).unwrap();
        assert_eq!(live_chains(&path, "a.example").unwrap(), [certificate.chain().to_vec()]);
        // Of a pair, both halves.
        for half in HALVES {
            fs::create_dir(live.join(half)).unwrap();
            fs::copy(live.join("fullchain.pem"), live.join(half).join("fullchain.pem")).unwrap();
        }
        assert_eq!(live_chains(&path, "a.example").unwrap().len(), 2);
        fs::write(live.join("rsa/fullchain.pem"), "").unwrap();
        let told = live_chains(&path, "a.example").unwrap_err().to_string();
        assert!(told.contains("rsa/fullchain.pem is damaged: there is no PEM certificate"), "{told}");
    }

    #[test]
    fn every_version_that_is_kept_is_read() {
        let holder = tempfile::tempdir().unwrap();
        let path = holder.path().join("state");
        let store = Store::open(&path).unwrap();
        assert_eq!(kept_chains(&path, "a.example").unwrap(), None);
        let mut stored = Vec::new();
        for version in 1..=3 {
            let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
            let certificate =
                Certificate::stored(&made.cert.pem(), &made.signing_key.serialize_pem()).unwrap();
            assert_eq!(store.save("a.example", &certificate.clone().into()).unwrap(), version);
            stored.push((version, vec![certificate.chain().to_vec()]));
        }
        let kept = |live, versions: &[_]| Some(KeptChains { live, versions: versions.to_vec() });
        assert_eq!(kept_chains(&path, "a.example").unwrap(), kept(3, &stored));
        store.make_live("a.example", 2).unwrap();
        assert_eq!(kept_chains(&path, "a.example").unwrap(), kept(2, &stored));
        // What is damaged beside the live one is nothing to compare with.
        let versions = path.join("lineages/a.example/versions");
        fs::write(versions.join("0001/fullchain.pem"), "").unwrap();
        fs::create_dir(versions.join(".0004.draft")).unwrap();
        assert_eq!(kept_chains(&path, "a.example").unwrap(), kept(2, &stored[1..]));
        let chain = versions.join("0002/fullchain.pem");
        fs::remove_file(&chain).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &chain, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
            .unwrap();
        let told = kept_chains(&path, "a.example").unwrap_err().to_string();
        assert!(told.contains("0002/fullchain.pem: it is not a regular file"), "{told}");
    }
}
