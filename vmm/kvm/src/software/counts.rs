// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How often each instruction was completed: for `--timings` and the result document. One per vCPU, added up at the end.

use std::collections::BTreeMap;

use iced_x86::Mnemonic;

use super::complete::Completed;

/// Completions by mnemonic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompletionCounts(BTreeMap<Mnemonic, u64>);

impl CompletionCounts {
    /// Counts one.
    pub fn record(&mut self, completed: &Completed) {
        *self.0.entry(completed.mnemonic).or_default() += 1;
    }

    /// Adds another vCPU's.
    pub fn add(&mut self, other: &Self) {
        for (mnemonic, count) in &other.0 {
            *self.0.entry(*mnemonic).or_default() += count;
        }
    }

    /// Names in lower case, most frequent first.
    pub fn by_name(&self) -> Vec<(String, u64)> {
        let mut named: Vec<_> = self.0.iter().map(|(m, count)| (format!("{m:?}").to_lowercase(), *count)).collect();
        named.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        named
    }
}
