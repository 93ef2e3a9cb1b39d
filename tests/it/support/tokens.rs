//! A reader of nginx's syntax that shares nothing with the code that writes it, and another one from elsewhere to hold
//! it against.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// A token of a configuration; comments are none.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Token {
    /// A directive's name or argument, without its quotes, escapes as written.
    Word(String),
    /// `{`
    Open,
    /// `}`
    Close,
    /// `;`
    End,
}

/// Splits a text into tokens as nginx does (`ngx_conf_read_token`).
pub fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(&c) = chars.peek() {
        match c {
            ' ' | '\t' | '\r' | '\n' => drop(chars.next()),
            '#' => while chars.next().is_some_and(|c| c != '\n') {},
            '{' | '}' | ';' => {
                chars.next();
                tokens.push(match c {
                    '{' => Token::Open,
                    '}' => Token::Close,
                    _ => Token::End,
                });
            }
            '"' | '\'' => {
                chars.next();
                let mut word = String::new();
                loop {
                    match chars.next().ok_or("the text ends within quotes")? {
                        '\\' => word.extend(['\\', chars.next().ok_or("the text ends with a backslash")?]),
                        end if end == c => break,
                        c => word.push(c),
                    }
                }
                match chars.peek() {
                    None | Some(' ' | '\t' | '\r' | '\n' | ';' | '{' | ')') => tokens.push(Token::Word(word)),
                    Some(c) => return Err(format!("unexpected {c:?} after quotes")),
                }
            }
            _ => {
                let mut word = String::new();
                while let Some(c) = chars.next_if(|c| !matches!(c, ' ' | '\t' | '\r' | '\n' | ';' | '{')) {
                    word.push(c);
                    if c == '\\' {
                        word.push(chars.next().ok_or("the text ends with a backslash")?);
                    } else if c == '$' {
                        word.extend(chars.next_if_eq(&'{'));
                    }
                }
                tokens.push(Token::Word(word));
            }
        }
    }
    Ok(tokens)
}

/// A directive: the blocks it stands in, its words, and whether it opens a block itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Directive {
    pub within: Vec<String>,
    pub words: Vec<String>,
    pub opens: bool,
}

impl Directive {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.words[0]
    }

    /// What remains when all text of users is taken away.
    pub fn shape(&self) -> (Vec<String>, String, usize, bool) {
        // What stands in these blocks are entries and no directives.
        let is_entry = self.within.last().is_some_and(|block| block == "map" || block == "geo");
        let name = if is_entry { "(entry)" } else { self.name() };
        (self.within.clone(), name.to_owned(), self.words.len(), self.opens)
    }
}

/// Reads a whole configuration.
pub fn directives(text: &str) -> Result<Vec<Directive>, String> {
    let (mut within, mut words, mut all): (Vec<String>, Vec<String>, Vec<Directive>) = Default::default();
    for token in tokens(text)? {
        let opens = token == Token::Open;
        match token {
            Token::Word(word) => words.push(word),
            Token::End | Token::Open => {
                let words = std::mem::take(&mut words);
                let name = words.first().ok_or_else(|| format!("a directive without a name after {:?}", all.last()))?;
                let name = name.clone();
                all.push(Directive { within: within.clone(), words, opens });
                within.extend(opens.then_some(name));
            }
            Token::Close if words.is_empty() => drop(within.pop().ok_or("a `}` too many")?),
            Token::Close => return Err(format!("{words:?} has no end")),
        }
    }
    if within.is_empty() && words.is_empty() {
        Ok(all)
    } else {
        Err(format!("the text ends within {within:?} {words:?}"))
    }
}

/// The tokens that `crossplane` finds. Comments are taken out before, because it has them as words: they stand on lines
/// of their own.
pub fn of_crossplane(crossplane: &Path, text: &str) -> Vec<Token> {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("nginx.conf");
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    std::fs::write(&file, lines.collect::<Vec<_>>().join("\n")).expect("a file");
    let output = Command::new(crossplane).arg("lex").arg(&file).output().expect("crossplane starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let words: Vec<String> = serde_json::from_slice(&output.stdout).expect("JSON from crossplane");
    let token = |word: String| match word.as_str() {
        "{" => Token::Open,
        "}" => Token::Close,
        ";" => Token::End,
        _ => Token::Word(word),
    };
    words.into_iter().map(token).collect()
}

/// What shapes directives have in these texts.
pub fn shapes<'a>(texts: impl IntoIterator<Item = &'a str>) -> BTreeSet<(Vec<String>, String, usize, bool)> {
    let of = |text: &str| directives(text).expect("a configuration").into_iter().map(|directive| directive.shape());
    texts.into_iter().flat_map(|text| of(text).collect::<Vec<_>>()).collect()
}
