//! File name patterns as glob(7) has them: `*`, `?`, `[…]`, in any part of a path. Pure.

use super::reading::{Absence, Files};

/// Most paths that a pattern may name.
const MOST: usize = 5000;

/// Whether a path is a pattern.
pub(super) fn is_pattern(path: &str) -> bool {
    path.contains(['*', '?', '['])
}

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

/// Whether a name fits a pattern; hidden files fit only a pattern that begins with a dot.
pub(super) fn fits(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    let mut star = None;
    while n < name.len() {
        if pattern.get(p) == Some(&'*') {
            star = Some((p, n));
            p += 1;
            continue;
        }
        match one(&pattern[p..], name[n]) {
            Some(taken) => {
                p += taken;
                n += 1;
            }
            None => {
                let Some((at, from)) = star else { return false };
                star = Some((at, from + 1));
                p = at + 1;
                n = from + 1;
            }
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// How much of the pattern stands for this one character; `None` if it does not fit.
fn one(pattern: &[char], c: char) -> Option<usize> {
    match pattern.first()? {
        '?' => Some(1),
        '[' => {
            let negated = matches!(pattern.get(1), Some('!' | '^'));
            let first = if negated { 2 } else { 1 };
            // A bracket that comes first is one of the set.
            let Some(end) = (first + 1..pattern.len()).find(|i| pattern[*i] == ']') else {
                return (c == '[').then_some(1);
            };
            let set = &pattern[first..end];
            let mut i = 0;
            let mut is_in = false;
            while i < set.len() {
                if set.get(i + 1) == Some(&'-') && i + 2 < set.len() {
                    is_in |= (set[i]..=set[i + 2]).contains(&c);
                    i += 3;
                } else {
                    is_in |= set[i] == c;
                    i += 1;
                }
            }
            (is_in != negated).then_some(end + 1)
        }
        '\\' => (pattern.get(1) == Some(&c)).then_some(2),
        other => (*other == c).then_some(1),
    }
}

#[cfg(test)]
mod tests {
    use super::super::reading::memory::Memory;
    use super::*;

    #[test]
    fn names() {
        for (pattern, name, is_so) in [
            ("*.conf", "a.conf", true),
            ("*.conf", ".a.conf", false),
            ("*.conf", "a.conf.bak", false),
            ("[0-9]*-ssl", "10-ssl", true),
            ("[!0-9]*", "10", false),
            ("[c]onf.d", "conf.d", true),
            ("[", "[", true),
            ("[]a]", "]", true),
            ("a?c", "abc", true),
            ("a\\*", "a*", true),
            ("*a*b*", "xaxxb", true),
            ("", "", true),
        ] {
            assert_eq!(fits(pattern, name), is_so, "{pattern} {name}");
        }
    }

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

    proptest::proptest! {
        #[test]
        fn no_pattern_runs_for_ever(pattern in "[*?a\\[\\]!\\\\-]{0,24}", name in "[a-c.\\]]{0,24}") {
            fits(&pattern, &name);
        }
    }
}
