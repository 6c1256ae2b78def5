//! What a pattern names, which may stand in any part of a path. Pure.

use super::reading::{Absence, Files};
use crate::glob::{fits, is_pattern};

/// Most paths that a pattern may name.
const MOST: usize = 5000;

/// The paths that an absolute pattern names, sorted; folders are among them. A folder that may not be
/// looked into is an error; one that is not there has nothing to name.
pub(super) fn expand(pattern: &str, files: &dyn Files) -> Result<Vec<String>, (String, Absence)> {
    let mut found = vec![String::new()];
    let parts: Vec<_> = pattern.split('/').filter(|part| !part.is_empty()).collect();
    for (i, part) in parts.iter().enumerate() {
        let is_last = i + 1 == parts.len();
        let mut next = Vec::new();
        for folder in &found {
            if !is_pattern(part) {
                next.push(format!("{folder}/{part}"));
                continue;
            }
            let path = if folder.is_empty() { "/" } else { folder };
            match files.list(path) {
                Ok(entries) => next.extend(
                    entries
                        .into_iter()
                        .filter(|entry| (is_last || entry.is_folder) && fits(part, &entry.name))
                        .map(|entry| format!("{folder}/{}", entry.name)),
                ),
                Err(Absence::Denied) => return Err((path.to_owned(), Absence::Denied)),
                Err(_) => {}
            }
            next.truncate(MOST);
        }
        found = next;
    }
    // A part after the last pattern may name what is not there.
    if parts.last().is_some_and(|part| !is_pattern(part)) {
        found.retain(|path| !matches!(files.read(path), Err(Absence::Missing)));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::reading::memory::Memory;
    use super::*;

    #[test]
    fn patterns_in_any_part() {
        let files = Memory::new(&[
            ("/etc/x/a/one.conf", ""),
            ("/etc/x/b/one.conf", ""),
            ("/etc/x/b/two.conf", ""),
            ("/etc/x/c", ""),
        ]);
        let expand = |pattern| expand(pattern, &files).unwrap();
        assert_eq!(expand("/etc/x/*/one.conf"), ["/etc/x/a/one.conf", "/etc/x/b/one.conf"]);
        assert_eq!(expand("/etc/x/*/two.conf"), ["/etc/x/b/two.conf"]);
        assert_eq!(expand("/e*/x/[ab]"), ["/etc/x/a", "/etc/x/b"]);
        assert!(expand("/etc/y/*").is_empty());
    }
}
