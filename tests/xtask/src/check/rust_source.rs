// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Rust source split into the tokens that the steps need: identifiers and punctuation, without comments and literals; and the
//! comments by themselves. No macro is expanded.

/// An identifier, `::`, or one character of punctuation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) text: &'a str,
    pub(super) line: usize,
}

/// A line of a comment, with its slashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Comment<'a> {
    pub(super) text: &'a str,
    pub(super) line: usize,
}

#[derive(Debug, Default)]
pub(super) struct RustSource<'a> {
    pub(super) tokens: Vec<Token<'a>>,
    pub(super) comments: Vec<Comment<'a>>,
}

impl RustSource<'_> {
    pub(super) fn parse(text: &str) -> RustSource<'_> {
        let mut scanner = Scanner { rest: text, line: 1, source: RustSource::default() };
        while !scanner.rest.is_empty() {
            scanner.step();
        }
        scanner.source
    }
}

struct Scanner<'a> {
    rest: &'a str,
    line: usize,
    source: RustSource<'a>,
}

impl<'a> Scanner<'a> {
    fn step(&mut self) {
        let rest = self.rest;
        if rest.starts_with("//") {
            let text = rest.lines().next().unwrap_or(rest);
            self.source.comments.push(Comment { text, line: self.line });
            self.skip(text.len());
        } else if rest.starts_with("/*") {
            self.skip(block_comment(rest));
        } else if let Some(length) = literal(rest) {
            self.skip(length);
        } else {
            let first = rest.chars().next().unwrap_or_default();
            let length = if is_word(first) {
                rest.find(|next| !is_word(next)).unwrap_or(rest.len())
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            if !first.is_whitespace() {
                self.source.tokens.push(Token { text: &rest[..length], line: self.line });
            }
            self.skip(length);
        }
    }

    fn skip(&mut self, length: usize) {
        let (passed, rest) = self.rest.split_at(length);
        self.line += passed.matches('\n').count();
        self.rest = rest;
    }
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Length of a block comment; these nest.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    at
}

/// Length of the string or character at the start of `text`, or `None`. A lifetime is not a literal: its name counts as an
/// identifier.
fn literal(text: &str) -> Option<usize> {
    let prefix = ["br", "cr", "b", "c", "r"].into_iter().find(|prefix| {
        let rest = text.strip_prefix(prefix);
        rest.is_some_and(|rest| {
            rest.trim_start_matches('#').starts_with('"') || (*prefix == "b" && rest.starts_with('\''))
        })
    });
    let start = prefix.map_or(0, str::len);
    let rest = &text[start..];
    if prefix.is_some_and(|prefix| prefix.ends_with('r')) {
        let hashes = rest.len() - rest.trim_start_matches('#').len();
        let end = format!("\"{}", "#".repeat(hashes));
        let body = hashes + 1;
        return Some(rest[body..].find(&end).map_or(text.len(), |at| start + body + at + end.len()));
    }
    match rest.chars().next()? {
        '"' => Some(start + quoted(rest, '"')),
        '\'' => {
            let mut characters = rest.char_indices().skip(1);
            let (_, first) = characters.next()?;
            let (next, second) = characters.next()?;
            if first == '\\' { Some(start + quoted(rest, '\'')) } else { (second == '\'').then_some(start + next + 1) }
        }
        _ => None,
    }
}

/// Length of a quoted literal with escapes.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if character == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::RustSource;

    fn words(text: &str) -> Vec<&str> {
        RustSource::parse(text).tokens.into_iter().map(|token| token.text).collect()
    }

    #[test]
    fn comments_and_literals_are_not_code() {
        assert_eq!(words("a // b\n/* c /* d */ e */ f"), ["a", "f"]);
        assert_eq!(
            words(r##"a("b \" c", r#"d " e"#, b"f", 'g', '\'', b'h')"##),
            ["a", "(", ",", ",", ",", ",", ",", ")"]
        );
        assert_eq!(words("r\"a\\\" b"), ["b"]);
    }

    #[test]
    fn lifetimes_are_not_characters() {
        assert_eq!(words("&'a str, 'b'"), ["&", "'", "a", "str", ","]);
    }

    #[test]
    fn lines_are_counted_across_strings_and_comments() {
        let source = RustSource::parse("\"\n\n\" a // one\n/*\n*/ b // two\r\n");
        assert_eq!(
            source.tokens.iter().map(|token| (token.text, token.line)).collect::<Vec<_>>(),
            [("a", 3), ("b", 5)]
        );
        let comments: Vec<_> = source.comments.iter().map(|comment| (comment.text, comment.line)).collect();
        assert_eq!(comments, [("// one", 3), ("// two", 5)]);
    }
}
