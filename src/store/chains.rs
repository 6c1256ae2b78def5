//! What servers are to show, read as they read it: by whoever may, without the lock and without the keys.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::{FALL_BACK, MAX_FILE, StoreError};

/// Folders of a pair's halves; one certificate alone has none.
const HALVES: [&str; 2] = ["ecdsa", "rsa"];

/// The chains of a lineage's live version, leaf first: one, or both of a pair; none where nothing is stored.
///
/// # Errors
/// It cannot be read by this user, or is damaged.
pub fn live_chains(state_dir: &Path, name: &str) -> Result<Vec<Vec<CertificateDer<'static>>>, StoreError> {
    let link = state_dir.join("live").join(name);
    // Followed once: what is read afterwards is of one version.
    let folder = match fs::canonicalize(&link) {
        Ok(folder) => folder,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(StoreError::Io { action: "read", path: link, source }),
    };
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
    let mut text = Vec::new();
    match File::open(path).and_then(|file| file.take(MAX_FILE).read_to_end(&mut text)) {
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(StoreError::Io { action: "read", path: path.to_owned(), source }),
    }
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
}
