//! Damaged files are set aside, not deleted: a person may want to see what became of them.

use std::path::PathBuf;

use super::{Store, StoreError};
use crate::folder::Folder;

/// Damaged files of one name that are kept, the newest ones.
const KEPT: usize = 5;

impl Store {
    /// Moves a damaged `ledger.json` to `ledger.json.damaged-1`, or the next number that is free; says
    /// where it is now. `None` where there is no such file.
    ///
    /// # Errors
    /// It could not be moved.
    pub fn set_aside_ledger(&self) -> Result<Option<PathBuf>, StoreError> {
        Ok(set_aside(&self.root, "ledger.json")?.map(|name| self.path.join(name)))
    }

    /// The same for `outbox.json`.
    ///
    /// # Errors
    /// It could not be moved.
    pub fn set_aside_outbox(&self) -> Result<Option<PathBuf>, StoreError> {
        Ok(set_aside(&self.root, "outbox.json")?.map(|name| self.path.join(name)))
    }

    /// The same for a lineage's `state.json`.
    ///
    /// # Errors
    /// It could not be moved.
    pub fn set_aside_lineage_state(&self, name: &str) -> Result<Option<PathBuf>, StoreError> {
        let Some(folder) = self.existing_lineage(name)? else { return Ok(None) };
        let moved = set_aside(&folder, "state.json")?;
        Ok(moved.map(|file| self.path.join("lineages").join(name).join(file)))
    }
}

fn set_aside(folder: &Folder, name: &str) -> Result<Option<String>, StoreError> {
    let prefix = format!("{name}.damaged-");
    let names = folder.names()?;
    if !names.iter().any(|present| present == name) {
        return Ok(None);
    }
    let number = |present: &String| present.strip_prefix(&prefix)?.parse::<u32>().ok();
    let mut numbers: Vec<u32> = names.iter().filter_map(number).filter(|n| *n < u32::MAX).collect();
    numbers.sort_unstable();
    let free = format!("{prefix}{}", numbers.last().unwrap_or(&0) + 1);
    folder.rename(name, &free)?;
    let outdated = (numbers.len() + 1).saturating_sub(KEPT);
    for old in &numbers[..outdated] {
        let old = format!("{prefix}{old}");
        if let Err(e) = folder.unlink(&old) {
            tracing::warn!("{old} stays: {e}");
        }
    }
    folder.sync()?;
    Ok(Some(free))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_newest_five_stay() {
        let holder = tempfile::tempdir().unwrap();
        let path = holder.path().join("state");
        let store = Store::open(&path).unwrap();
        assert_eq!(store.set_aside_ledger().unwrap(), None);
        fs::write(path.join("ledger.json.damaged-x"), "").unwrap();
        for n in 1..=7 {
            fs::write(path.join("ledger.json"), format!("broken {n}")).unwrap();
            let aside = store.set_aside_ledger().unwrap().unwrap();
            assert_eq!(aside, path.join(format!("ledger.json.damaged-{n}")));
            assert_eq!(fs::read_to_string(aside).unwrap(), format!("broken {n}"));
            assert!(store.ledger().unwrap().is_none());
        }
        let mut left: Vec<_> =
            fs::read_dir(&path).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        let wanted = ["3", "4", "5", "6", "7", "x"].map(|n| format!("ledger.json.damaged-{n}"));
        assert_eq!(left, wanted);
    }

    #[test]
    fn a_lineages_state_goes_the_same_way() {
        let holder = tempfile::tempdir().unwrap();
        let path = holder.path().join("state");
        let store = Store::open(&path).unwrap();
        assert_eq!(store.set_aside_lineage_state("a.example").unwrap(), None);
        store.save_lineage_state("a.example", &Default::default()).unwrap();
        fs::write(path.join("lineages/a.example/state.json"), [0xff, 0xfe]).unwrap();
        assert!(matches!(store.lineage_state("a.example"), Err(StoreError::Damaged { .. })));
        let aside = store.set_aside_lineage_state("a.example").unwrap().unwrap();
        assert_eq!(aside, path.join("lineages/a.example/state.json.damaged-1"));
        assert_eq!(fs::read(aside).unwrap(), [0xff, 0xfe]);
        assert_eq!(store.lineage_state("a.example").unwrap(), Default::default());
    }
}
