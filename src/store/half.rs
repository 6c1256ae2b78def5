//! The first certificate of a pair whose second could not be obtained: kept for the next attempt, which then
//! asks for the second alone. Without it, attempts that fail half-way would use up what the CA signs of a
//! set of names in a week.
//!
//! ```text
//! lineages/<name>/half/ cert.pem chain.pem fullchain.pem privkey.pem combined.pem
//! ```

use super::{Store, StoreError, bundle};
use crate::certificate::{Bundle, Certificate};

const HALF: &str = "half";
const DRAFT: &str = ".half.draft";

impl Store {
    /// Keeps the half of a pair, in the place of one that was kept before. No server reads it, so it is the
    /// owner's alone.
    ///
    /// # Errors
    /// It could not be written.
    pub fn save_half(&self, name: &str, certificate: &Certificate) -> Result<(), StoreError> {
        let lineage = self.lineage(name)?;
        lineage.remove_tree(DRAFT)?;
        let draft = lineage.private().subfolder(DRAFT)?;
        bundle::write(&draft, &Bundle::from(certificate.clone()))?;
        lineage.remove_tree(HALF)?;
        lineage.rename(DRAFT, HALF)?;
        Ok(lineage.sync()?)
    }

    /// The half of a pair that is kept; `None` where there is none, or where it is not whole: then both are
    /// ordered.
    pub fn half(&self, name: &str) -> Option<Certificate> {
        let folder = self.existing_lineage(name).ok()??.existing(HALF).ok()??;
        match bundle::read(&folder) {
            Ok(Ok(kept)) => Some(kept.first().clone()),
            Ok(Err(reason)) => {
                tracing::warn!(certificate = name, "the half of the pair that was kept is damaged: {reason}");
                None
            }
            Err(e) => {
                tracing::warn!(certificate = name, "the half of the pair that was kept cannot be read: {e}");
                None
            }
        }
    }

    /// Forgets the half of a pair: the pair is whole, or another one is wanted.
    ///
    /// # Errors
    /// It could not be removed.
    pub fn remove_half(&self, name: &str) -> Result<(), StoreError> {
        let Some(lineage) = self.existing_lineage(name)? else { return Ok(()) };
        lineage.remove_tree(DRAFT)?;
        Ok(lineage.remove_tree(HALF)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn certificate() -> Certificate {
        let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        Certificate::stored(&made.cert.pem(), &made.signing_key.serialize_pem()).unwrap()
    }

    #[test]
    fn a_half_is_kept_replaced_and_forgotten() {
        let holder = tempfile::tempdir().unwrap();
        let path = holder.path().join("state");
        Store::open(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
        let store = Store::open(&path).unwrap();
        assert!(store.half("a.example").is_none());
        store.remove_half("a.example").unwrap();
        for _ in 0..2 {
            let half = certificate();
            // A crash has left a draft.
            let draft = path.join("lineages/a.example/.half.draft");
            fs::create_dir_all(&draft).unwrap();
            fs::write(draft.join("cert.pem"), "half of a half").unwrap();
            store.save_half("a.example", &half).unwrap();
            assert!(!draft.exists());
            assert_eq!(store.half("a.example").unwrap().serial(), half.serial());
        }
        assert!(store.current("a.example").unwrap().is_none(), "it is not served");
        let key = path.join("lineages/a.example/half/privkey.pem");
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o7777, 0o600);
        let folder = key.parent().unwrap();
        assert_eq!(fs::metadata(folder).unwrap().permissions().mode() & 0o7777, 0o700);
        fs::write(&key, "nonsense").unwrap();
        assert!(store.half("a.example").is_none());
        store.remove_half("a.example").unwrap();
        assert!(!path.join("lineages/a.example/half").exists());
    }
}
