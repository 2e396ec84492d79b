// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The environment of the workload: the host's variables, and the few that only the guest can
//! determine.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Returns the value of `name` in `NAME=value` strings. The last one counts, as in a shell.
#[must_use]
pub fn value<'a>(environment: &'a [String], name: &str) -> Option<&'a str> {
    environment.iter().rev().find_map(|variable| variable.strip_prefix(name)?.strip_prefix('='))
}

/// Returns `environment` with the variables of `overrides` replaced or added.
#[must_use]
pub fn overlaid(environment: &[String], overrides: &[String]) -> Vec<String> {
    let name = |variable: &str| variable.split('=').next().unwrap_or("").to_owned();
    let replaced: Vec<String> = overrides.iter().map(|variable| name(variable)).collect();
    let kept = |variable: &&String| !replaced.contains(&name(variable));
    environment.iter().filter(kept).chain(overrides).cloned().collect()
}

/// Returns `environment` with `PATH`, `HOME` and, on a terminal, `TERM` added where they are
/// missing. An empty `HOME` counts as missing, as in docker.
#[must_use]
pub fn complete(environment: &[String], home: &str, terminal: bool) -> Vec<String> {
    let mut complete = environment.to_owned();
    if value(environment, "PATH").is_none() {
        complete.push(format!("PATH={}", crate::executable::DEFAULT_PATH));
    }
    if value(environment, "HOME").is_none_or(str::is_empty) {
        complete.retain(|variable| !variable.starts_with("HOME="));
        complete.push(format!("HOME={home}"));
    }
    if terminal && value(environment, "TERM").is_none() {
        complete.push("TERM=xterm".to_owned());
    }
    complete
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(variables: &[&str]) -> Vec<String> {
        variables.iter().map(|variable| (*variable).to_owned()).collect()
    }

    #[test]
    fn complete_adds_missing_variables() {
        let path = format!("PATH={}", crate::executable::DEFAULT_PATH);
        assert_eq!(complete(&[], "/root", false), strings(&[&path, "HOME=/root"]));
        assert_eq!(complete(&[], "/", true), strings(&[&path, "HOME=/", "TERM=xterm"]));
    }

    #[test]
    fn complete_keeps_given_variables() {
        let given = strings(&["PATH=/x", "HOME=/y", "TERM=dumb", "EMPTY="]);
        assert_eq!(complete(&given, "/root", true), given);
    }

    #[test]
    fn complete_replaces_an_empty_home() {
        assert_eq!(complete(&strings(&["HOME=", "PATH="]), "/root", false), strings(&["PATH=", "HOME=/root"]));
    }

    #[test]
    fn overlaid_replaces_variables_of_the_same_name_only() {
        let given = strings(&["A=1", "AB=2", "C=3"]);
        assert_eq!(overlaid(&given, &strings(&["A=x", "D="])), strings(&["AB=2", "C=3", "A=x", "D="]));
    }

    #[test]
    fn value_matches_whole_names_and_takes_the_last() {
        let given = strings(&["PATHS=/no", "PATH=/first", "PATH=/last"]);
        assert_eq!(value(&given, "PATH"), Some("/last"));
        assert_eq!(value(&given, "PAT"), None);
    }
}
