// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Paths of the guest on which something is mounted.

/// `text` without doubled and trailing slashes and `.`. `None` unless it is absolute and below `/`, without `..`.
#[must_use]
pub(crate) fn normal(text: &str) -> Option<String> {
    let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    let is_below_root = text.starts_with('/') && !parts.is_empty() && !parts.contains(&"..");
    is_below_root.then(|| format!("/{}", parts.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_path_is_absolute_and_below_the_root() {
        for (text, normal_text) in [("/a", "/a"), ("/a/", "/a"), ("//a/./b//", "/a/b"), ("/.hidden", "/.hidden")] {
            assert_eq!(normal(text).as_deref(), Some(normal_text), "{text}");
        }
        for text in ["", "/", "//", "/./", "relative", "./a", "/a/..", "/../etc", "/a/../b"] {
            assert_eq!(normal(text), None, "{text}");
        }
    }
}
