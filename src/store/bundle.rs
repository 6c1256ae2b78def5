//! The files of a version, as servers expect them.
//!
//! ```text
//! versions/0007/cert.pem chain.pem fullchain.pem privkey.pem combined.pem
//! ```
//! Of a pair the first certificate has these names, and there are besides, so that whoever wants one of the
//! two finds it whichever comes first:
//!
//! ```text
//! versions/0007/ecdsa/ rsa/                        the same five names in each
//! versions/0007/combined.pem.ecdsa combined.pem.rsa   as HAProxy names them
//! ```

use zeroize::Zeroizing;

use super::{MAX_FILE, StoreError};
use crate::certificate::{Algorithm, Bundle, Certificate};
use crate::folder::Folder;

const CHAIN: &str = "fullchain.pem";
const KEY: &str = "privkey.pem";

/// The name of the file that has chain and key of one of a pair in one.
fn combined_name(algorithm: Algorithm) -> String {
    format!("combined.pem.{}", algorithm.name())
}

/// Writes a version's files into a folder that nobody reads yet; all of it is synced.
pub(super) fn write(folder: &Folder, bundle: &Bundle) -> Result<(), StoreError> {
    if bundle.second().is_some() {
        for algorithm in Algorithm::ALL {
            let Some(certificate) = bundle.of(algorithm) else { continue };
            let subfolder = folder.subfolder(algorithm.name())?;
            write_one(&subfolder, certificate)?;
            subfolder.sync()?;
            folder.create_all(&[(&combined_name(algorithm), combined(certificate).as_bytes())])?;
        }
    }
    write_one(folder, bundle.first())?;
    Ok(folder.sync()?)
}

fn write_one(folder: &Folder, c: &Certificate) -> Result<(), StoreError> {
    Ok(folder.create_all(&[
        ("cert.pem", c.leaf_pem().as_bytes()),
        ("chain.pem", c.issuers_pem().as_bytes()),
        (CHAIN, c.fullchain_pem().as_bytes()),
        (KEY, c.key_pem().as_bytes()),
        ("combined.pem", combined(c).as_bytes()),
    ])?)
}

fn combined(c: &Certificate) -> Zeroizing<String> {
    Zeroizing::new(format!("{}{}", c.fullchain_pem(), c.key_pem()))
}

/// Reads a version. What is left of a pair of which anything is missing is no certificate but damage, or it
/// would be taken for one that was ordered alone.
///
/// # Errors
/// A sentence in `Ok(Err(…))` where it does not hold together; the outer error where the system hands
/// nothing out.
pub(super) fn read(folder: &Folder) -> Result<Result<Bundle, String>, StoreError> {
    let first = match read_one(folder, "")? {
        Ok(first) => first,
        Err(reason) => return Ok(Err(reason)),
    };
    let present = folder.names()?;
    let is_of_pair = |a: Algorithm| present.iter().any(|name| name == a.name() || *name == combined_name(a));
    if !Algorithm::ALL.into_iter().any(is_of_pair) {
        return Ok(Ok(first.into()));
    }
    let mut second = None;
    for algorithm in Algorithm::ALL {
        let within = algorithm.name();
        let Some(subfolder) = folder.existing(within)? else {
            return Ok(Err(format!("{within}/ is missing, and it is a pair")));
        };
        let certificate = match read_one(&subfolder, &format!("{within}/"))? {
            Ok(certificate) => certificate,
            Err(reason) => return Ok(Err(reason)),
        };
        if certificate.algorithm() != Some(algorithm) {
            return Ok(Err(format!("the certificate in {within}/ has no {algorithm} key")));
        }
        if first.algorithm() != Some(algorithm) {
            second = Some(certificate);
        } else if certificate.chain() != first.chain() {
            return Ok(Err(format!("{CHAIN} and {within}/{CHAIN} are of different certificates")));
        }
    }
    Ok(Bundle::new(first, second).map_err(|e| e.to_string()))
}

/// A certificate with its key from one folder, which is `within` its version.
fn read_one(folder: &Folder, within: &str) -> Result<Result<Certificate, String>, StoreError> {
    let missing = |file| Ok(Err(format!("{within}{file} is missing")));
    let Some(chain) = folder.read(CHAIN, MAX_FILE)? else { return missing(CHAIN) };
    let Some(key) = folder.read(KEY, MAX_FILE)?.map(Zeroizing::new) else { return missing(KEY) };
    Ok(Certificate::stored(&chain, &key)
        .map_err(|e| if within.is_empty() { e.to_string() } else { format!("in {within}: {e}") }))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use rcgen::{CertificateParams, KeyPair, RsaKeySize};

    use super::*;
    use crate::store::Store;

    fn pair(first: Algorithm) -> Bundle {
        let make = |algorithm| {
            let key = match algorithm {
                Algorithm::Ecdsa => KeyPair::generate(),
                Algorithm::Rsa => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048),
            }
            .unwrap();
            let leaf = CertificateParams::new(["a.example".to_owned()]).unwrap().self_signed(&key).unwrap();
            Certificate::stored(&leaf.pem(), &key.serialize_pem()).unwrap()
        };
        let second = if first == Algorithm::Rsa { Algorithm::Ecdsa } else { Algorithm::Rsa };
        Bundle::pair(make(first), make(second)).unwrap()
    }

    fn files(folder: &Path, within: &str, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{within}{}", entry.file_name().to_str().unwrap());
            let mode = entry.metadata().unwrap().permissions().mode() & 0o7777;
            if entry.path().is_dir() {
                assert_eq!(mode, 0o750, "{name}");
                files(&entry.path(), &format!("{name}/"), found);
            } else {
                assert_eq!(mode, 0o640, "{name}");
                found.insert(name);
            }
        }
    }

    #[test]
    fn a_pair_has_the_files_that_each_server_expects() {
        let holder = tempfile::tempdir().unwrap();
        let path = holder.path().join("state");
        Store::open(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
        let store = Store::open(&path).unwrap();
        for (version, first) in (1..).zip(Algorithm::ALL) {
            let pair = pair(first);
            assert_eq!(store.save("a", &pair).unwrap(), version);
            let live = path.join("live/a");
            let five = ["cert.pem", "chain.pem", "fullchain.pem", "privkey.pem", "combined.pem"];
            let mut expected: BTreeSet<String> =
                ["", "ecdsa/", "rsa/"].iter().flat_map(|w| five.map(|file| format!("{w}{file}"))).collect();
            expected.extend(["combined.pem.ecdsa", "combined.pem.rsa"].map(str::to_owned));
            let mut found = BTreeSet::new();
            files(&fs::canonicalize(&live).unwrap(), "", &mut found);
            assert_eq!(found, expected);

            let text = |file: &str| fs::read_to_string(live.join(file)).unwrap();
            for algorithm in Algorithm::ALL {
                let (within, c) = (algorithm.name(), pair.of(algorithm).unwrap());
                assert_eq!(text(&format!("{within}/cert.pem")), c.leaf_pem());
                assert_eq!(text(&format!("{within}/fullchain.pem")), c.fullchain_pem());
                assert_eq!(text(&format!("{within}/privkey.pem")), c.key_pem());
                let whole = c.fullchain_pem() + c.key_pem();
                assert_eq!(text(&format!("{within}/combined.pem")), whole);
                assert_eq!(text(&format!("combined.pem.{within}")), whole);
            }
            for file in five {
                assert_eq!(text(file), text(&format!("{}/{file}", first.name())), "the first has the names");
            }
            let (number, stored) = store.current("a").unwrap().unwrap();
            assert_eq!((number, stored.serials()), (version, pair.serials()));
        }
        // One alone leaves nothing of the pair before it.
        store.save("a", &pair(Algorithm::Rsa).first().clone().into()).unwrap();
        assert!(!path.join("live/a/rsa").exists() && path.join("live/a/cert.pem").exists());
        assert_eq!(store.current("a").unwrap().unwrap().1.serials().len(), 1);
        store.make_live("a", 1).unwrap();
        assert_eq!(store.current("a").unwrap().unwrap().0, 1, "rolled back");
        assert_eq!(store.version("a", 2).unwrap().serials().len(), 2);
        assert!(store.version("a", 9).unwrap_err().to_string().contains("it is missing"));
    }

    #[test]
    fn damage_in_either_half_damages_the_version() {
        for file in [
            "fullchain.pem",
            "privkey.pem",
            "rsa/fullchain.pem",
            "rsa/privkey.pem",
            "ecdsa/fullchain.pem",
            "ecdsa/privkey.pem",
        ] {
            for content in [None, Some(""), Some("nonsense")] {
                let holder = tempfile::tempdir().unwrap();
                let path = holder.path().join("state");
                let store = Store::open(&path).unwrap();
                let whole = pair(Algorithm::Ecdsa);
                store.save("a", &whole).unwrap();
                store.save("a", &pair(Algorithm::Ecdsa)).unwrap();
                let broken = path.join("live/a").join(file);
                match content {
                    Some(content) => fs::write(&broken, content).unwrap(),
                    None => fs::remove_file(&broken).unwrap(),
                }
                let told = store.current("a").unwrap_err().to_string();
                assert!(told.contains("is damaged"), "{file}: {told}");
                assert!(told.contains(file.split('/').next().unwrap()) || content.is_some(), "{told}");
                assert_eq!(store.fall_back("a").unwrap(), Some(1), "{file}");
                assert_eq!(store.current("a").unwrap().unwrap().1.serials(), whole.serials());
            }
        }
    }

    #[test]
    fn half_of_a_pair_is_never_taken_for_a_whole() {
        let holder = tempfile::tempdir().unwrap();
        let path = holder.path().join("state");
        let store = Store::open(&path).unwrap();
        let live = path.join("live/a");
        type Damage = fn(&Path);
        let damage: [(&str, Damage); 4] = [
            ("ecdsa/ is missing", |live| fs::remove_dir_all(live.join("ecdsa")).unwrap()),
            ("ecdsa/ is missing", |live| {
                fs::remove_dir_all(live.join("ecdsa")).unwrap();
                fs::remove_dir_all(live.join("rsa")).unwrap();
            }),
            ("has no ECDSA key", |live| {
                for file in ["fullchain.pem", "privkey.pem"] {
                    fs::copy(live.join("rsa").join(file), live.join("ecdsa").join(file)).unwrap();
                }
            }),
            ("are of different certificates", |live| {
                let other = live.join("../0001/rsa");
                for file in ["fullchain.pem", "privkey.pem"] {
                    fs::copy(other.join(file), live.join("rsa").join(file)).unwrap();
                }
            }),
        ];
        store.save("a", &pair(Algorithm::Rsa)).unwrap();
        for (says, damage) in damage {
            store.save("a", &pair(Algorithm::Rsa)).unwrap();
            damage(&fs::canonicalize(&live).unwrap());
            let told = store.current("a").unwrap_err().to_string();
            assert!(told.contains(says), "{told}");
        }
    }
}
