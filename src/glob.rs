//! File name patterns as glob(7) has them: `*`, `?`, `[…]`, and a backslash before what stands for itself.

/// Whether a path is a pattern.
pub fn is_pattern(path: &str) -> bool {
    path.contains(['*', '?', '['])
}

/// Whether a name fits a pattern; hidden files fit only a pattern that begins with a dot.
pub fn fits(pattern: &str, name: &str) -> bool {
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
            ("x", "", false),
            ("*.toml", ".toml", false),
            (".*", ".a", true),
            ("?.toml", "é.toml", true),
            ("?.toml", "ab.toml", false),
            ("a*b*c", "aXbYb", false),
            ("**", "x", true),
        ] {
            assert_eq!(fits(pattern, name), is_so, "{pattern} {name}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_pattern_runs_for_ever(pattern in "[*?a\\[\\]!\\\\-]{0,24}", name in "[a-c.\\]]{0,24}") {
            fits(&pattern, &name);
        }

        #[test]
        fn a_name_fits_itself_and_a_star(name in "[a-z.]{0,12}", cut in 0usize..12) {
            proptest::prop_assert!(fits(&name, &name));
            let cut = cut.min(name.len());
            proptest::prop_assume!(cut > 0 || !name.starts_with('.'));
            let pattern = format!("{}*", &name[..cut]);
            proptest::prop_assert!(fits(&pattern, &name));
        }
    }
}
