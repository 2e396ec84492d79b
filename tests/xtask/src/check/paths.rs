// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Every path that a README or a comment names in a code span exists.

use super::rust_source::RustSource;
use crate::repository::{files, root};
use anyhow::Result;
use std::fs;
use std::path::{Path, PathBuf};

pub(crate) fn readmes() -> Result<Vec<String>> {
    check("md", code_spans)
}

/// Paths in the comments of Rust sources.
pub(crate) fn sources() -> Result<Vec<String>> {
    check("rs", comment_spans)
}

fn check(extension: &str, spans: fn(&str) -> Vec<(usize, &str)>) -> Result<Vec<String>> {
    let files = files()?;
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.extension().is_some_and(|end| end == extension)) {
        let text = fs::read_to_string(root().join(file))?;
        findings.extend(missing(file, &spans(&text), &files));
    }
    Ok(findings)
}

/// Spans of `file` that look like a path and are not in the list of all files.
fn missing(file: &Path, spans: &[(usize, &str)], files: &[PathBuf]) -> Vec<String> {
    let wrong = spans.iter().filter(|(_, span)| is_path(span) && !exists(span, file, files));
    wrong.map(|(line, span)| format!("{}:{line} names `{span}`, which does not exist", file.display())).collect()
}

fn comment_spans(text: &str) -> Vec<(usize, &str)> {
    let comments = RustSource::parse(text).comments;
    comments
        .into_iter()
        .flat_map(|comment| comment.text.split('`').skip(1).step_by(2).map(move |span| (comment.line, span)))
        .collect()
}

/// Code spans with their line numbers; blocks between fences are examples of something else.
fn code_spans(text: &str) -> Vec<(usize, &str)> {
    let mut spans = Vec::new();
    let mut fenced = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced && !line.starts_with("    ") {
            spans.extend(line.split('`').skip(1).step_by(2).map(|span| (index + 1, span)));
        }
    }
    spans
}

/// Whether a span looks like a file or directory of the repository: relative, made of plain characters, ending in `/` or in
/// an ending that our files have. Not a pattern, such as `sha256-HEX.tmp/`, and not a path in another project: of C files
/// only those of the tests are ours.
fn is_path(span: &str) -> bool {
    let plain = |character: char| character.is_ascii_alphanumeric() || "._-/".contains(character);
    let endings = [".rs", ".toml", ".md", ".sh", ".config", ".py"];
    let named = endings.iter().any(|ending| span.ends_with(ending) && span.len() > ending.len())
        || span.starts_with("tests/") && span.ends_with(".c");
    let placeholder = |word: &str| word.len() > 1 && word.chars().all(|letter| letter.is_ascii_uppercase());
    let is_pattern = span.split(['/', '-', '.']).any(placeholder) && !span.ends_with(".md");
    !span.starts_with(['/', '.', '-'])
        && span.chars().all(plain)
        && (named || (span.ends_with('/') && span.len() > 1))
        && !is_pattern
}

/// Whether `span` is relative to a directory above `file`, or to the `src` of one; or names the last parts of the path of a
/// file below the directory of `file`.
fn exists(span: &str, file: &Path, files: &[PathBuf]) -> bool {
    let span = Path::new(span);
    let is_there = |path: PathBuf| files.iter().any(|file| file.starts_with(&path));
    let directory = file.parent().unwrap_or(Path::new(""));
    directory.ancestors().any(|above| is_there(above.join(span)) || is_there(above.join("src").join(span)))
        || files.iter().any(|file| file.starts_with(directory) && file.ends_with(span))
}

#[cfg(test)]
mod tests {
    use super::{code_spans, comment_spans, is_path, missing};
    use std::path::{Path, PathBuf};

    #[test]
    fn path_that_does_not_exist_is_found() {
        let files = ["vmm/src/api/mod.rs", "vmm/src/api/server/route.rs", "boot/src/layout.rs"].map(PathBuf::from);
        let text =
            "//! See `server/route.rs`, `route.rs`, `api/`, `boot/src/layout.rs`\n//! and `gone.rs`.\nf(\"`x.rs`\");";
        let findings = missing(Path::new("vmm/src/api/mod.rs"), &comment_spans(text), &files);
        assert_eq!(findings, ["vmm/src/api/mod.rs:2 names `gone.rs`, which does not exist"]);
        let text = "`server/` and\n\n`server/gone/`";
        let findings = missing(Path::new("vmm/src/api/README.md"), &code_spans(text), &files);
        assert_eq!(findings, ["vmm/src/api/README.md:3 names `server/gone/`, which does not exist"]);
    }

    #[test]
    fn spans_in_fences_and_indented_blocks_do_not_count() {
        let text = "see `src/a.rs` and `b`\n```\n`c.rs`\n```\n    `d.rs`\n`e.rs`";
        assert_eq!(code_spans(text), [(1, "src/a.rs"), (1, "b"), (6, "e.rs")]);
    }

    #[test]
    fn options_system_paths_and_patterns_are_no_paths_of_ours() {
        assert!(is_path("src/main.rs") && is_path("Cargo.toml") && is_path("src/kvm/"));
        for other in [
            "/dev/kvm",
            "--kernel",
            "make test",
            "<name>.rs",
            ".rs",
            "a_word",
            "RunSpec",
            "~/.cache/",
            "v1/HEX.tmp/",
            "lib/a.c",
        ] {
            assert!(!is_path(other), "{other}");
        }
    }
}
