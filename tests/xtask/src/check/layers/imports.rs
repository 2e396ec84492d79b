// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The paths that a source file names within its own crate: `use` trees and paths in the code that begin with `crate`, `super`
//! or `self`.

use super::super::rust_source::{RustSource, Token};

/// A path from the root of the crate, without `crate`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Import {
    pub(super) line: usize,
    pub(super) path: Vec<String>,
    /// The name under which a `use` at the top of its file makes it visible to others; `*` for all names.
    pub(super) exported_as: Option<String>,
    /// Whether it is in an inline module `tests`.
    pub(super) in_tests: bool,
}

/// Paths of the file that is the module `module`.
pub(super) fn imports(text: &str, module: &[String]) -> Vec<Import> {
    let source = RustSource::parse(text);
    let mut parser = Parser { tokens: &source.tokens, module: module.to_vec(), open: Vec::new(), found: Vec::new() };
    parser.run();
    parser.found
}

struct Parser<'a> {
    tokens: &'a [Token<'a>],
    /// The current module, which may be an inline one.
    module: Vec<String>,
    /// For each open brace, whether it opened an inline module.
    open: Vec<bool>,
    found: Vec<Import>,
}

impl Parser<'_> {
    fn run(&mut self) {
        let mut previous = "";
        while let Some(Token { text, .. }) = self.tokens.first().copied() {
            match text {
                // `use<'a>` in a type names what is captured.
                "use" if self.peek(1) != "<" => {
                    self.next();
                    // `pub use` and `pub(crate) use`.
                    let exported = self.open.is_empty() && (previous == "pub" || previous == ")");
                    self.tree(&[], exported);
                }
                "mod" if self.peek(2) == "{" => {
                    let name = self.peek(1).to_owned();
                    self.tokens = &self.tokens[3..];
                    self.module.push(name);
                    self.open.push(true);
                }
                "{" => {
                    self.next();
                    self.open.push(false);
                }
                "}" => {
                    self.next();
                    if self.open.pop() == Some(true) {
                        self.module.pop();
                    }
                }
                "crate" | "super" | "self" if previous != "::" && self.peek(1) == "::" => self.path(),
                _ => drop(self.next()),
            }
            previous = text;
        }
    }

    fn next(&mut self) -> Option<String> {
        let (first, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        Some(first.text.to_owned())
    }

    fn peek(&self, ahead: usize) -> &str {
        self.tokens.get(ahead).map_or("", |token| token.text)
    }

    /// A path in code.
    fn path(&mut self) {
        let line = self.tokens[0].line;
        let mut words = Vec::new();
        while let Some(word) = self.next() {
            words.push(word);
            if self.peek(0) != "::" || !self.peek(1).starts_with(|first: char| first.is_alphabetic() || first == '_') {
                break;
            }
            self.next();
        }
        self.add(line, &words, None);
    }

    /// One tree of a `use`, after the words that lead to it.
    fn tree(&mut self, prefix: &[String], exported: bool) {
        let line = self.tokens.first().map_or(0, |token| token.line);
        let mut words = prefix.to_vec();
        loop {
            match self.peek(0) {
                "{" => {
                    self.next();
                    while !matches!(self.peek(0), "}" | "") {
                        self.tree(&words, exported);
                        // A comma, unless the group ends.
                        if self.peek(0) != "}" {
                            self.next();
                        }
                    }
                    self.next();
                    return;
                }
                "::" => drop(self.next()),
                "," | ";" | "}" | "" | "as" => break,
                _ => words.extend(self.next()),
            }
        }
        let mut name = words.last().cloned();
        if self.peek(0) == "as" {
            self.next();
            name = self.next();
        }
        self.add(line, &words, name.filter(|_| exported));
    }

    /// `words` as they stand in the current module.
    fn add(&mut self, line: usize, words: &[String], exported_as: Option<String>) {
        let mut path = self.module.clone();
        let mut words = words.iter().map(String::as_str).peekable();
        match words.peek() {
            Some(&"crate") => {
                words.next();
                path.clear();
            }
            Some(&"self") => drop(words.next()),
            _ => {
                while words.next_if_eq(&"super").is_some() {
                    path.pop();
                }
            }
        }
        // `{self}` and `*` stand for the module itself.
        path.extend(words.filter(|word| *word != "self" && *word != "*").map(str::to_owned));
        let in_tests = self.module.iter().any(|module| module == "tests");
        self.found.push(Import { line, path, exported_as, in_tests });
    }
}

#[cfg(test)]
mod tests {
    use super::imports;

    fn paths(text: &str, module: &[&str]) -> Vec<String> {
        let module: Vec<String> = module.iter().map(|word| (*word).to_owned()).collect();
        imports(text, &module).into_iter().map(|import| import.path.join("::")).collect()
    }

    #[test]
    fn use_trees_are_resolved_against_the_module() {
        let text = "use crate::a::{b, c::{self, D as E}};\npub(crate) use super::f::*;\nuse self::g;\nuse h::i;";
        assert_eq!(paths(text, &["x", "y"]), ["a::b", "a::c", "a::c::D", "x::f", "x::y::g", "x::y::h::i"]);
    }

    #[test]
    fn paths_in_code_count_and_those_in_strings_do_not() {
        let text = "fn f(a: &crate::a::B) -> u8 { super::c::d::<u8>(\"crate::e::f\") } // crate::g::h";
        assert_eq!(paths(text, &["x", "y"]), ["a::B", "x::c::d"]);
    }

    #[test]
    fn super_in_an_inline_module_is_the_file() {
        assert_eq!(paths("mod t { use super::a; fn f() {} }\nuse super::b;", &["x", "y"]), ["x::y::a", "x::b"]);
    }

    #[test]
    fn captured_lifetimes_are_not_imports() {
        assert_eq!(paths("fn f() -> impl T + use<'_> { g(); crate::a::h() }", &["x"]), ["a::h"]);
    }

    #[test]
    fn public_uses_are_exports() {
        let exports: Vec<_> = imports("pub use a::{B, C as D};\nuse e::F;\npub(crate) use g::*;", &[])
            .into_iter()
            .map(|import| import.exported_as)
            .collect();
        assert_eq!(exports, [Some("B".into()), Some("D".into()), None, Some("*".into())]);
    }
}
