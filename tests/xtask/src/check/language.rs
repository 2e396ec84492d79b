// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Words that the glossary replaces, where they have no other meaning, and doc comments of one to three words, which say no more
//! than the name below them.

use super::rust_source::RustSource;
use crate::repository::{files, root};
use anyhow::Result;
use std::fs;
use std::path::Path;

/// Each in lower case, as one part of a name in camel or snake case, and what to write in its place.
const REPLACED: [(&str, &str); 17] = [
    ("folder", "directory"),
    ("folders", "directories"),
    ("nobody", "no process, no thread"),
    ("whoever", "the process, the client"),
    ("somebody", "another process"),
    ("anybody", "any process"),
    ("herald", "ServiceNotifier"),
    ("bell", "LogNotifier"),
    ("hungry", "wants_input"),
    ("deaf", "set_read_enabled"),
    ("obey", "handle"),
    ("obeys", "handles"),
    ("surroundings", "RunContext"),
    ("conversation", "Supervisor, protocol"),
    ("undriven", "unclaimed"),
    ("unnamed_file", "tmpfile"),
    ("whole_file", "atomic_write"),
];

/// Findings that are permitted: the start of a path, and the word, or "" for every word. `nobody` is the name of a user, and old
/// entries of the changelog stay as they were released.
const ALLOWED: [(&str, &str); 8] = [
    ("CHANGELOG.md", ""),
    ("boot/init/src/user_tests.rs", "nobody"),
    ("tests/images/build.sh", "anybody"),
    // Part of the key of the test images.
    ("tests/images/debian_sources.sh", "folder"),
    ("tests/images/tidy.sh", "nobody"),
    ("tests/nested/build.sh", "nobody"),
    ("tests/xtask/src/check/language.rs", ""),
    ("vmm/src/network/passt.rs", "nobody"),
];

/// Longest doc comment that is a finding, in words.
const SHORT: usize = 3;
/// The same where `missing_docs` requires one.
const SHORT_WHERE_REQUIRED: usize = 1;
const REQUIRED: [&str; 2] = ["devices/src", "boot/protocol/src"];

pub(super) fn check() -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for file in files()? {
        let extension = file.extension().unwrap_or_default().to_string_lossy().into_owned();
        if !["rs", "md", "sh", "c"].contains(&&*extension) {
            continue;
        }
        let text = fs::read_to_string(root().join(&file))?;
        findings.extend(words(&file, &text));
        if extension == "rs" {
            let is_required = REQUIRED.iter().any(|directory| file.starts_with(directory));
            let short = if is_required { SHORT_WHERE_REQUIRED } else { SHORT };
            let docs = short_docs(&text, short);
            findings.extend(docs.iter().map(|(line, doc)| {
                format!("{}:{line}: `{doc}` is too short; delete it or write a full sentence", file.display())
            }));
        }
    }
    Ok(findings)
}

fn words(file: &Path, text: &str) -> Vec<String> {
    let allowed =
        |word: &str| ALLOWED.iter().any(|(path, other)| file.starts_with(path) && (other.is_empty() || *other == word));
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let parts = snake_case(line);
        for (word, instead) in REPLACED {
            if !allowed(word) && contains(&parts, word) {
                findings.push(format!("{}:{}: `{word}`; write: {instead}", file.display(), index + 1));
            }
        }
    }
    findings
}

/// In lower case, with `_` between the parts of names.
fn snake_case(line: &str) -> String {
    let mut text = String::new();
    let mut before_is_lower = false;
    for character in line.chars() {
        if character.is_uppercase() && before_is_lower {
            text.push('_');
        }
        before_is_lower = character.is_lowercase();
        text.extend(character.to_lowercase());
    }
    text
}

/// Whether `word` is in `text` between characters other than letters.
fn contains(text: &str, word: &str) -> bool {
    let is_letter = |character: Option<char>| character.is_some_and(char::is_alphabetic);
    text.match_indices(word)
        .any(|(at, _)| !is_letter(text[..at].chars().next_back()) && !is_letter(text[at + word.len()..].chars().next()))
}

/// Doc comments of one line with up to `short` words and a full stop, without code, numbers or names.
fn short_docs(text: &str, short: usize) -> Vec<(usize, &str)> {
    let comments = RustSource::parse(text).comments.into_iter();
    let docs = comments.filter_map(|comment| Some((comment.line, comment.text.strip_prefix("///")?.trim())));
    let docs: Vec<(usize, &str)> = docs.collect();
    let is_doc = |line: usize| docs.iter().any(|(other, _)| *other == line);
    let is_word = |word: &str| {
        let mut letters = word.chars().skip(1);
        word.starts_with(char::is_alphabetic) && letters.all(|letter| letter.is_lowercase() || letter == '\'')
    };
    let is_short = |doc: &str| {
        let sentence = doc.strip_suffix('.').unwrap_or_default();
        (1..=short).contains(&sentence.split(' ').count()) && sentence.split(' ').all(is_word)
    };
    let found = docs.iter().filter(|(line, doc)| !is_doc(line - 1) && !is_doc(line + 1) && is_short(doc));
    found.copied().collect()
}

#[cfg(test)]
mod tests {
    use super::{short_docs, words};
    use std::path::Path;

    #[test]
    fn replaced_word_is_found_in_text_and_names() {
        let found = |text| words(Path::new("a.rs"), text);
        assert_eq!(found("fine\n/// Makes the folder."), ["a.rs:2: `folder`; write: directory"]);
        for text in ["fn out_folder()", "struct RunSurroundings;", "LogBell::new()", "NOBODY"] {
            assert_eq!(found(text).len(), 1, "{text}");
        }
        for text in ["bellows", "a label", "umbrella", "scaffolders"] {
            assert_eq!(found(text).len(), 0, "{text}");
        }
    }

    #[test]
    fn short_doc_comment_is_found() {
        let text = "/// Why.\nfn a() {}\n/// The guest's memory.\nfn b() {}\n/// First.\n///\n/// Second.\nfn c() {}\n// Why.\n//! Why.";
        assert_eq!(short_docs(text, 3), [(1, "Why."), (3, "The guest's memory.")]);
        assert_eq!(short_docs(text, 1), [(1, "Why.")]);
    }

    #[test]
    fn short_doc_comment_with_a_name_or_number_is_none() {
        for doc in [
            "1 to 64.",
            "CR4.OSXSAVE.",
            "`RELOADING=1`.",
            "The `sd_notify` socket.",
            "Number of the port.",
            "IA32_XSS.",
        ] {
            let text = format!("/// {doc}\nfn a() {{}}");
            assert_eq!(short_docs(&text, 3), [], "{doc}");
        }
    }
}
