// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A table in docker's style: columns as wide as their widest cell and three spaces between them. Pure.

const GAP: usize = 3;
/// Of a cell with the name of an image.
pub(super) const MAX_IMAGE_CHARACTERS: usize = 40;

/// Renders `rows` under `titles`.
pub(super) fn render<const N: usize>(titles: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = titles.map(|title| title.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let titles = titles.map(str::to_owned);
    let mut text = String::new();
    for row in std::iter::once(&titles).chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width + GAP - cell.chars().count()));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A cell without control characters, which a terminal would execute, of at most `limit` characters.
pub(super) fn cell(text: &str, limit: Option<usize>) -> String {
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    match limit {
        Some(limit) if text.chars().count() > limit => clean.take(limit - 1).chain(['…']).collect(),
        _ => clean.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["a".to_owned(), "long cell".to_owned()], ["longer".to_owned(), String::new()]];
        assert_eq!(render(["ONE", "TWO"], &rows), "ONE      TWO\na        long cell\nlonger\n");
    }

    #[test]
    fn cells_have_no_control_characters_and_a_limit() {
        assert_eq!(cell("a\x1b[2Jb\n", None), "a [2Jb ");
        assert_eq!(cell("abcdef", Some(4)), "abc…");
        assert_eq!(cell("abcd", Some(4)), "abcd");
    }
}
