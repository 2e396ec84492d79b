// SPDX-License-Identifier: Apache-2.0 OR MIT
//! No source file has more than 500 lines of code, tests not counted. Prints the ten largest.

use crate::repository::{files, root};
use anyhow::Result;
use std::fs;
use std::path::Path;

const LIMIT: usize = 500;

pub(crate) fn check() -> Result<Vec<String>> {
    let mut sizes = Vec::new();
    for file in files()? {
        let name = file.to_string_lossy();
        // Files of tests do not count.
        if is_source(&file) && !name.ends_with("_tests.rs") {
            let text = String::from_utf8_lossy(&fs::read(root().join(&file))?).into_owned();
            sizes.push((lines_of_code(&text), name.into_owned()));
        }
    }
    sizes.sort_unstable_by(|one, other| other.cmp(one));
    for (lines, name) in sizes.iter().take(10) {
        println!("   {lines:4} {name}");
    }
    let above = sizes
        .iter()
        .filter(|(lines, _)| *lines > LIMIT)
        .map(|(lines, name)| format!("{name} has {lines} lines; the limit is {LIMIT}"));
    Ok(above.collect())
}

fn is_source(path: &Path) -> bool {
    path.extension().is_some_and(|extension| ["rs", "c", "sh", "py"].iter().any(|known| extension == *known))
}

/// Lines before the inline test module, which is the last item of its file.
fn lines_of_code(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let tests = lines.windows(2).position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod tests {"));
    tests.unwrap_or(lines.len())
}

#[cfg(test)]
mod tests {
    use super::lines_of_code;

    #[test]
    fn inline_test_module_does_not_count() {
        assert_eq!(lines_of_code("fn a() {}\n\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\n"), 2);
    }

    #[test]
    fn test_module_in_its_own_file_is_two_lines() {
        assert_eq!(lines_of_code("fn a() {}\n#[cfg(test)]\nmod tests;\nfn b() {}\n"), 4);
    }
}
