// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the verbs `ls` of the groups share: a table, names, or JSON.

use super::machines::{json_text, print};
use super::table;
use clap::Args;
use serde_json::Value;

#[derive(Debug, Args)]
pub(super) struct ListArguments {
    /// Print names only
    #[arg(short, long)]
    quiet: bool,
    /// Print one JSON array
    #[arg(long, conflicts_with = "quiet")]
    json: bool,
}

/// An item of a list, with `N` columns.
pub(super) trait Listed<const N: usize> {
    const TITLES: [&'static str; N];

    fn name(&self) -> String;
    fn row(&self) -> [String; N];
    fn describe(&self) -> Value;
}

impl ListArguments {
    pub(super) fn print<const N: usize, T: Listed<N>>(&self, items: &[T]) {
        if self.json {
            print(&json_text(&items.iter().map(T::describe).collect::<Vec<_>>()));
        } else if self.quiet {
            items.iter().for_each(|item| print(&format!("{}\n", item.name())));
        } else {
            print(&table::render(T::TITLES, &items.iter().map(T::row).collect::<Vec<_>>()));
        }
    }
}
