//! Durations and foreign text, made fit for a sentence.

pub(crate) mod quote;

use std::time::Duration;

/// A duration with its largest unit only: `3 days`, `1 minute`.
pub fn rough(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..172_800 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

/// Text from elsewhere, on one line, without anything that a terminal would obey, of at most `limit`
/// characters.
pub fn printable(text: &str, limit: usize) -> String {
    let joined = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
    let mut kept: String = joined.chars().take(limit).collect();
    if kept.len() < joined.len() {
        kept.push('…');
    }
    kept.chars().map(|c| if c.is_control() || is_invisible(c) { ' ' } else { c }).collect()
}

/// Marks that turn the direction of writing, or take no room, can make a line read as another one.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (seconds, text) in
            [(1, "1 second"), (59, "59 seconds"), (60, "1 minute"), (7200, "2 hours"), (172_800, "2 days")]
        {
            assert_eq!(rough(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn foreign_text() {
        assert_eq!(printable("\u{1b}[2Jgone\r\n\n  next\tline\n", 100), " [2Jgone; next line");
        assert_eq!(printable("abcdef", 3), "abc…");
        assert_eq!(printable("a\u{202e}b", 9), "a b");
    }
}
