//! Which words of a command name what is run: besides its program, the scripts that interpreters (`sh`,
//! `python3` …) are given, also by way of launchers (`timeout`, `sudo` …). Pure: which of them are files, and
//! whose, is found out elsewhere.
//!
//! Only the programs themselves know their options, so more words are named than are run rather than fewer.

use std::path::Path;

/// Of a script's first line, what the kernel reads, bytes.
pub(super) const FIRST_LINE: u64 = 256;

/// A word that may name what is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Code<'a> {
    /// A file that is run if it may be executed.
    IfExecutable(&'a str),
    /// A file that is read as a script, whatever its permissions.
    Script(&'a str),
    /// A program by its bare name, looked up in the PATH.
    Program(&'a str),
}

/// How an interpreter is told what to run.
struct Interpreter {
    names: &'static [&'static str],
    /// Letters of the options that a program text follows.
    text: &'static str,
    /// Options that another value follows, which may be a file to run as well.
    valued: &'static [&'static str],
    /// Without such an option, the first argument is a program text and not a file.
    is_text_first: bool,
}

const INTERPRETERS: [Interpreter; 9] = [
    Interpreter {
        names: &["ash", "bash", "dash", "ksh", "sh", "zsh"],
        text: "c",
        valued: &["-o", "+o", "-O", "+O", "--rcfile", "--init-file"],
        is_text_first: false,
    },
    // Words of a shell's own.
    Interpreter { names: &[".", "source"], text: "", valued: &[], is_text_first: false },
    Interpreter { names: &["python", "pypy"], text: "c", valued: &["-W", "-X"], is_text_first: false },
    Interpreter { names: &["perl"], text: "eE", valued: &["-I", "-M", "-m"], is_text_first: false },
    Interpreter { names: &["ruby"], text: "e", valued: &["-I", "-r", "-C"], is_text_first: false },
    Interpreter {
        names: &["node", "nodejs"],
        text: "ep",
        valued: &["-r", "--require", "--import"],
        is_text_first: false,
    },
    Interpreter { names: &["php"], text: "rBRE", valued: &["-c", "-d", "-f", "-z"], is_text_first: false },
    Interpreter {
        names: &["lua", "luajit", "expect", "tclsh"],
        text: "ec",
        valued: &["-l", "-f"],
        is_text_first: false,
    },
    Interpreter {
        names: &["awk", "gawk", "mawk", "sed"],
        text: "e",
        valued: &["-f", "-i", "-v", "-F", "--file", "--include"],
        is_text_first: true,
    },
];

/// Programs that run the rest of their arguments.
const LAUNCHERS: [&str; 20] = [
    "busybox",
    "chpst",
    "chroot",
    "chrt",
    "doas",
    "env",
    "exec",
    "flock",
    "ionice",
    "nice",
    "nohup",
    "nsenter",
    "runuser",
    "setpriv",
    "setsid",
    "stdbuf",
    "sudo",
    "systemd-run",
    "time",
    "timeout",
];

/// Texts in texts are looked into so deep.
const DEPTH: usize = 5;

/// What a command may run besides its first word, in the order of the arguments.
pub(super) fn code(arguments: &[String]) -> Vec<Code<'_>> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut found = Vec::new();
    look(&words, 0, &mut found);
    let mut seen = std::collections::HashSet::new();
    found.retain(|code| seen.insert(*code));
    found
}

/// What a script's first line has the kernel run: the interpreter, and its argument where there is one, which
/// is everything behind it (execve(2)).
pub(super) fn first_line(beginning: &[u8]) -> Option<Vec<String>> {
    let line = beginning.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let line = String::from_utf8_lossy(line);
    let line = line.trim_matches([' ', '\t']);
    let (program, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    let rest = rest.trim_start_matches([' ', '\t']);
    let words = [program, rest].into_iter().filter(|word| !word.is_empty());
    Some(words.map(str::to_owned).collect()).filter(|words: &Vec<_>| !words.is_empty())
}

fn look<'a>(words: &[&'a str], depth: usize, found: &mut Vec<Code<'a>>) {
    let mut is_launched = false;
    for (place, word) in words.iter().enumerate() {
        if place > 0 {
            found.extend(values(word).map(Code::IfExecutable));
            if depth < DEPTH && word.contains(SEPARATORS) {
                let inner: Vec<_> = word.split(SEPARATORS).filter(|word| !word.is_empty()).collect();
                found.extend(inner.first().filter(|word| is_bare(word)).map(|word| Code::Program(word)));
                // Its first word is a command, too.
                look(&[&[""], inner.as_slice()].concat(), depth + 1, found);
            }
        }
        if let Some(interpreter) = interpreter(word) {
            if place > 0 && is_bare(word) && word.chars().any(char::is_alphanumeric) {
                found.push(Code::Program(word));
            }
            scripts(interpreter, &words[place + 1..], found);
            is_launched = false;
        } else if is_launched && is_bare(word) {
            found.push(Code::Program(word));
        }
        is_launched |= LAUNCHERS.contains(&name(word));
    }
}

/// Where a text in a shell's language falls apart.
const SEPARATORS: [char; 16] =
    [' ', '\t', '\n', ';', '&', '|', '(', ')', '{', '}', '<', '>', '`', '"', '\'', '$'];

fn name(word: &str) -> &str {
    Path::new(word).file_name().and_then(|name| name.to_str()).unwrap_or(word)
}

fn is_bare(word: &str) -> bool {
    !word.is_empty() && !word.contains(['/', '=']) && !word.starts_with(['-', '+'])
}

fn interpreter(word: &str) -> Option<&'static Interpreter> {
    let name = name(word);
    let name = if name == "." {
        name
    } else {
        name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '-')
    };
    INTERPRETERS.iter().find(|interpreter| interpreter.names.contains(&name))
}

/// The word, what stands behind its `=`, and what is attached to its letter (`-f/path`).
fn values(word: &str) -> impl Iterator<Item = &str> {
    let assigned = word.split_once('=').map(|(_, value)| value);
    let attached = word.starts_with('-').then(|| word.find('/').map(|at| &word[at..])).flatten();
    [Some(word), assigned, attached].into_iter().flatten().filter(|value| !value.is_empty())
}

/// The scripts among an interpreter's arguments.
fn scripts<'a>(interpreter: &Interpreter, arguments: &[&'a str], found: &mut Vec<Code<'a>>) {
    let mut has_text = false;
    let mut is_value = false;
    for word in arguments {
        if is_value {
            is_value = false;
            found.push(Code::Script(word));
        } else if word.starts_with(['-', '+']) && word.len() > 1 {
            found.extend(values(word).skip(1).map(Code::Script));
            is_value = interpreter.valued.contains(word);
            has_text |= is_value && interpreter.is_text_first && word.ends_with(['f', 'e']);
            let letters = word.strip_prefix('-').filter(|rest| !rest.starts_with('-')).unwrap_or_default();
            if !is_value && letters.contains(|letter| interpreter.text.contains(letter)) {
                // The text follows, or is the rest of the word; what comes behind it is for the text.
                return;
            }
        } else {
            if !interpreter.is_text_first || has_text {
                found.push(Code::Script(word));
            }
            // What follows is for the script.
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Code::{Program, Script};
    use super::*;
    use proptest::prelude::*;

    fn split(line: &str) -> Vec<String> {
        line.split('~').map(str::to_owned).collect()
    }

    /// Without what is run only if it may be executed.
    fn named(words: &[String]) -> Vec<Code<'_>> {
        code(words).into_iter().filter(|code| !matches!(code, Code::IfExecutable(_))).collect()
    }

    #[test]
    fn scripts_of_interpreters() {
        for (line, expected) in [
            ("sh~/x~/data", vec![Script("/x")]),
            ("/bin/bash~-e~/x~/data", vec![Script("/x")]),
            ("bash~-o~pipefail~/x", vec![Script("pipefail"), Script("/x")]),
            ("bash~--rcfile=/rc~-i~/x", vec![Script("/rc"), Script("/x")]),
            ("bash~--rcfile~/rc~/x", vec![Script("/rc"), Script("/x")]),
            ("python3~-W~ignore~/x.py", vec![Script("ignore"), Script("/x.py")]),
            ("/usr/bin/python3.11~-u~/x.py~/data", vec![Script("/x.py")]),
            ("perl~-w~-I~/lib~/x", vec![Script("/lib"), Script("/x")]),
            ("perl~-ne~print~/data", vec![]),
            ("awk~-f~/x~/data", vec![Script("/x"), Script("/data")]),
            ("awk~-f/x~/data", vec![Script("/x")]),
            ("awk~{print}~/data", vec![Program("print")]),
            ("sh~-c~exit 0~/data", vec![Program("exit")]),
            ("timeout~5~sh~/x", vec![Program("5"), Program("sh"), Script("/x")]),
            ("timeout~5~hook", vec![Program("5"), Program("hook")]),
            ("env~A=1~bash~/x", vec![Program("bash"), Script("/x")]),
            ("sudo~-u~www~python3~/x", vec![Program("www"), Program("python3"), Script("/x")]),
            ("sh~-c~. /rc && bash -e /x", vec![Program("."), Script("/rc"), Program("bash"), Script("/x")]),
            ("sh~-ec~exec python3 /x", vec![Program("exec"), Program("python3"), Script("/x")]),
            ("systemctl~reload~nginx", vec![]),
        ] {
            let words = split(line);
            let found = named(&words);
            for code in &expected {
                assert!(found.contains(code), "{line}: {code:?} is not in {found:?}");
            }
            let unexpected = found.iter().find(|code| matches!(code, Script(_)) && !expected.contains(code));
            assert_eq!(unexpected, None, "{line}: {found:?}");
        }
    }

    #[test]
    fn every_word_may_be_a_program() {
        for (line, word) in [
            ("timeout~5~/x", "/x"),
            ("env~HOOK=/x~y", "/x"),
            ("y~--hook=/x", "/x"),
            ("sh~-c~a; /x b", "/x"),
            ("sh~-c~sh -c '/x b'", "/x"),
            ("systemd-run~-p/x", "/x"),
        ] {
            assert!(code(&split(line)).contains(&Code::IfExecutable(word)), "{line}");
        }
    }

    #[test]
    fn first_lines() {
        for (beginning, expected) in [
            ("#!/bin/sh\nx", Some(vec!["/bin/sh"])),
            ("#! /usr/bin/env  bash -e \nx", Some(vec!["/usr/bin/env", "bash -e"])),
            ("#!/bin/sh", Some(vec!["/bin/sh"])),
            ("#!\n", None),
            ("#", None),
            ("", None),
            ("\u{7f}ELF", None),
        ] {
            let expected = expected.map(|words| words.into_iter().map(str::to_owned).collect());
            assert_eq!(first_line(beginning.as_bytes()), expected, "{beginning:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_stands_there(words in prop::collection::vec(".{0,40}", 0..8), line: Vec<u8>) {
            let found = code(&words);
            prop_assert!(found.len() < 2000);
            first_line(&line);
        }
    }
}
