// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Every source file says its licence in its first line (the second of a script).

use crate::repository::{files, root};
use anyhow::Result;
use std::fs;
use std::path::Path;

const LINE: &str = "SPDX-License-Identifier: Apache-2.0 OR MIT";

/// Source files without the line.
pub(crate) fn check() -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for file in files()?.iter().filter(|file| is_source(file)) {
        let text = String::from_utf8_lossy(&fs::read(root().join(file))?).into_owned();
        if !says_it(&text) {
            findings.push(format!("{} does not begin with `{LINE}`", file.display()));
        }
    }
    Ok(findings)
}

fn is_source(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    if name == "Makefile" || path == Path::new(".ci/run") {
        return true;
    }
    let sources = ["rs", "toml", "c", "h", "S", "sh", "py", "config"];
    path.extension().is_some_and(|extension| sources.iter().any(|known| extension == *known))
}

fn says_it(text: &str) -> bool {
    let first = text.lines().find(|line| !line.starts_with("#!/")).unwrap_or_default();
    ["// ", "# ", "/* "].iter().any(|comment| first.strip_prefix(comment).is_some_and(|rest| rest.starts_with(LINE)))
}

#[cfg(test)]
mod tests {
    use super::{LINE, says_it};

    #[test]
    fn the_first_line_counts_and_a_scripts_second() {
        assert!(says_it(&format!("// {LINE}\nfn main() {{}}")));
        assert!(says_it(&format!("#!/bin/sh\n# {LINE}\n")));
        assert!(!says_it(&format!("fn main() {{}}\n// {LINE}")));
        assert!(!says_it(""));
    }
}
