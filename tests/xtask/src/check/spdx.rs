// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Every source file names its licence in its first line, a script in its second.

use crate::repository::{files, root};
use anyhow::Result;
use std::fs;
use std::path::Path;

const LINE: &str = "SPDX-License-Identifier: Apache-2.0 OR MIT";

pub(crate) fn check() -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for file in files()?.iter().filter(|file| is_source(file)) {
        let text = String::from_utf8_lossy(&fs::read(root().join(file))?).into_owned();
        if !has_line(&text) {
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

fn has_line(text: &str) -> bool {
    let first = text.lines().find(|line| !line.starts_with("#!/")).unwrap_or_default();
    ["// ", "# ", "/* "].iter().any(|comment| first.strip_prefix(comment).is_some_and(|rest| rest.starts_with(LINE)))
}

#[cfg(test)]
mod tests {
    use super::{LINE, has_line};

    #[test]
    fn first_line_counts_or_the_second_of_a_script() {
        assert!(has_line(&format!("// {LINE}\nfn main() {{}}")));
        assert!(has_line(&format!("#!/bin/sh\n# {LINE}\n")));
        assert!(!has_line(&format!("fn main() {{}}\n// {LINE}")));
        assert!(!has_line(""));
    }
}
