// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Every path that a README names in a code span is there.

use crate::repository::{files, root};
use anyhow::Result;
use std::fs;
use std::path::{Path, PathBuf};

/// Paths that READMEs name and nobody has.
pub(crate) fn check() -> Result<Vec<String>> {
    let files = files()?;
    let mut findings = Vec::new();
    for readme in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "md")) {
        let text = fs::read_to_string(root().join(readme))?;
        let folder = readme.parent().unwrap_or(Path::new(""));
        for (number, span) in code_spans(&text) {
            if is_path(span) && !exists(span, folder, &files) {
                findings.push(format!("{}:{number} names `{span}`, which is not there", readme.display()));
            }
        }
    }
    Ok(findings)
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

/// Whether a span looks like a file or folder of the repository: relative, made of plain characters, ending in `/` or in an
/// ending that our files have.
fn is_path(span: &str) -> bool {
    let plain = |character: char| character.is_ascii_alphanumeric() || "._-/".contains(character);
    let endings = [".rs", ".toml", ".md", ".sh", ".config", ".c", ".py"];
    let named = endings.iter().any(|ending| span.ends_with(ending) && span.len() > ending.len());
    !span.starts_with(['/', '.', '-']) && span.chars().all(plain) && (named || (span.ends_with('/') && span.len() > 1))
}

/// From the README's folder, its `src`, or the root; a bare file name may be anywhere below the README's folder.
fn exists(span: &str, folder: &Path, files: &[PathBuf]) -> bool {
    let at = |base: &Path| root().join(base).join(span).exists();
    at(folder) || at(&folder.join("src")) || at(Path::new("")) || {
        let span = Path::new(span);
        files.iter().any(|file| file.starts_with(folder) && file.ends_with(span))
    }
}

#[cfg(test)]
mod tests {
    use super::{code_spans, is_path};

    #[test]
    fn spans_in_fences_and_indented_blocks_do_not_count() {
        let text = "see `src/a.rs` and `b`\n```\n`c.rs`\n```\n    `d.rs`\n`e.rs`";
        assert_eq!(code_spans(text), [(1, "src/a.rs"), (1, "b"), (6, "e.rs")]);
    }

    #[test]
    fn options_system_paths_and_patterns_are_no_paths_of_ours() {
        assert!(is_path("src/main.rs") && is_path("Cargo.toml") && is_path("src/kvm/"));
        for other in ["/dev/kvm", "--kernel", "make test", "<name>.rs", ".rs", "a_word", "RunSpec", "~/.cache/"] {
            assert!(!is_path(other), "{other}");
        }
    }
}
