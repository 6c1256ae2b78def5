//! nginx's grammar: directives in blocks, with the files that they include in their places. Pure.

use std::sync::Arc;

use super::super::picture::{Place, TroubleKind};
use super::super::reading::{Reading, absolute};

/// A directive, with what is in its block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Directive {
    pub(super) name: String,
    pub(super) args: Vec<String>,
    pub(super) place: Place,
    pub(super) block: Vec<Directive>,
}

impl Directive {
    pub(super) fn children<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Self> {
        self.block.iter().filter(move |directive| directive.name == name)
    }

    /// The same, without directives of that name in its block.
    pub(super) fn without(&self, name: &str) -> Self {
        let block = self.block.iter().filter(|directive| directive.name != name).cloned().collect();
        Self { name: self.name.clone(), args: self.args.clone(), place: self.place.clone(), block }
    }

    /// The first word of a directive in the block.
    pub(super) fn value<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.children(name).last()?.args.first().map(String::as_str)
    }

    /// Whether it has that word.
    pub(super) fn has(&self, word: &str) -> bool {
        self.args.iter().any(|arg| arg == word)
    }
}

/// How deep blocks may stand in each other.
const DEEPEST: usize = 50;

/// Everything, with its includes; `None` where the first file is not there or cannot be read, which is
/// a trouble then.
pub(super) fn read(main: &str, folder: &str, reading: &mut Reading<'_>) -> Option<Vec<Directive>> {
    let opened = reading.begin(main);
    let Some((file, text)) = opened else {
        return (!reading.troubles.is_empty()).then(Vec::new);
    };
    let tree = parse(&file, &text, folder, 0, reading);
    reading.leave();
    Some(tree)
}

/// A block that is being read.
struct Open {
    directive: Directive,
    outer: Vec<Directive>,
}

fn parse(
    file: &Arc<str>,
    text: &str,
    folder: &str,
    depth: usize,
    reading: &mut Reading<'_>,
) -> Vec<Directive> {
    let mut tokens = Tokens { rest: text.chars().peekable(), line: 1 };
    let mut open: Vec<Open> = Vec::new();
    let mut current: Vec<Directive> = Vec::new();
    let mut words: Vec<(String, usize)> = Vec::new();
    while let Some((token, line)) = tokens.next() {
        let here = Place::new(file, line);
        match token {
            Token::Word(word) => words.push((word, line)),
            Token::End => {
                let Some(directive) = take(&mut words, file) else { continue };
                if directive.name == "include" {
                    current.extend(include(&directive, folder, depth + open.len(), reading));
                } else {
                    current.push(directive);
                }
            }
            Token::Open => {
                let unnamed = || Directive {
                    name: String::new(),
                    args: Vec::new(),
                    place: here.clone(),
                    block: Vec::new(),
                };
                let directive = take(&mut words, file).unwrap_or_else(unnamed);
                if directive.name.ends_with("_by_lua_block") {
                    tokens.skip_block();
                    current.push(directive);
                    continue;
                }
                if depth + open.len() >= DEEPEST {
                    reading.trouble(&here, TroubleKind::Endless, format!("blocks stand {DEEPEST} deep"));
                    break;
                }
                open.push(Open { directive, outer: std::mem::take(&mut current) });
            }
            Token::Close => {
                if let Some(directive) = take(&mut words, file) {
                    let seen = format!("`{}` is not ended by `;`", super::shown(&directive));
                    reading.trouble(&directive.place, TroubleKind::Broken, seen);
                    current.push(directive);
                }
                match open.pop() {
                    Some(Open { mut directive, outer }) => {
                        directive.block = std::mem::replace(&mut current, outer);
                        current.push(directive);
                    }
                    None => {
                        let seen = "a `}` closes nothing".to_owned();
                        reading.trouble(&here, TroubleKind::Broken, seen);
                    }
                }
            }
            Token::Unclosed => {
                let seen = "a quote is opened here and never closed".to_owned();
                reading.trouble(&here, TroubleKind::Broken, seen);
            }
        }
    }
    if let Some(directive) = take(&mut words, file) {
        let seen = format!("`{}` is not ended by `;`", super::shown(&directive));
        reading.trouble(&directive.place, TroubleKind::Broken, seen);
        current.push(directive);
    }
    while let Some(Open { mut directive, outer }) = open.pop() {
        let seen = format!("the block of `{}` is not closed by `}}`", super::shown(&directive));
        reading.trouble(&directive.place, TroubleKind::Broken, seen);
        directive.block = std::mem::replace(&mut current, outer);
        current.push(directive);
    }
    current
}

fn take(words: &mut Vec<(String, usize)>, file: &Arc<str>) -> Option<Directive> {
    let mut words = words.drain(..);
    let (name, line) = words.next()?;
    let args = words.map(|(word, _)| word).collect();
    Some(Directive { name, args, place: Place::new(file, line), block: Vec::new() })
}

fn include(directive: &Directive, folder: &str, depth: usize, reading: &mut Reading<'_>) -> Vec<Directive> {
    let mut found = Vec::new();
    let Some(pattern) = directive.args.first() else { return found };
    let pattern = absolute(folder, pattern);
    let must = !crate::glob::is_pattern(&pattern);
    for path in reading.matches(&pattern, &directive.place, must) {
        if let Some((file, text)) = reading.enter(&path, &directive.place) {
            found.extend(parse(&file, &text, folder, depth, reading));
            reading.leave();
        }
    }
    found
}

enum Token {
    Word(String),
    End,
    Open,
    Close,
    /// A quote without its end.
    Unclosed,
}

struct Tokens<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    line: usize,
}

impl Tokens<'_> {
    fn step(&mut self) -> Option<char> {
        let c = self.rest.next()?;
        self.line += usize::from(c == '\n');
        Some(c)
    }

    /// The next token, with the line on which it begins.
    fn next(&mut self) -> Option<(Token, usize)> {
        loop {
            let c = *self.rest.peek()?;
            if c == '#' {
                while self.rest.peek().is_some_and(|c| *c != '\n') {
                    self.step();
                }
            } else if c.is_whitespace() {
                self.step();
            } else {
                break;
            }
        }
        let line = self.line;
        let token = match *self.rest.peek()? {
            ';' => Token::End,
            '{' => Token::Open,
            '}' => Token::Close,
            quote @ ('"' | '\'') => {
                self.step();
                return Some((self.quoted(quote), line));
            }
            _ => return Some((Token::Word(self.word()), line)),
        };
        self.step();
        Some((token, line))
    }

    fn quoted(&mut self, quote: char) -> Token {
        let mut word = String::new();
        while let Some(c) = self.step() {
            match c {
                '\\' => match self.step() {
                    Some(escaped) if escaped == quote || escaped == '\\' => word.push(escaped),
                    Some(other) => word.extend(['\\', other]),
                    None => break,
                },
                c if c == quote => return Token::Word(word),
                c => word.push(c),
            }
        }
        Token::Unclosed
    }

    fn word(&mut self) -> String {
        let mut word = String::new();
        while let Some(&c) = self.rest.peek() {
            match c {
                // `${name}` is of the word.
                '{' if word.ends_with('$') => {
                    while let Some(c) = self.step() {
                        word.push(c);
                        if c == '}' || c == '\n' {
                            break;
                        }
                    }
                }
                ';' | '{' => break,
                c if c.is_whitespace() => break,
                '\\' => {
                    self.step();
                    match self.step() {
                        Some(escaped @ ('"' | '\'' | ' ' | ';' | '{')) => word.push(escaped),
                        Some(other) => word.extend(['\\', other]),
                        None => word.push('\\'),
                    }
                }
                c => {
                    word.push(c);
                    self.step();
                }
            }
        }
        word
    }

    /// Passes over Lua, to the brace that ends it; those in its strings and comments do not count.
    fn skip_block(&mut self) {
        let mut depth = 1;
        while let Some(c) = self.step() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                '-' if self.rest.peek() == Some(&'-') => while self.step().is_some_and(|c| c != '\n') {},
                quote @ ('"' | '\'') => {
                    while let Some(c) = self.step() {
                        if c == '\\' {
                            self.step();
                        } else if c == quote || c == '\n' {
                            break;
                        }
                    }
                }
                _ => {}
            }
            if depth == 0 {
                return;
            }
        }
    }
}
