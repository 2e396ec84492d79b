// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The environment of the workload: what the host sent, and the few variables that only the guest can know.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// The value of `name` in `NAME=value` strings; the last one counts, as a shell would see it.
#[must_use]
pub fn value<'a>(environment: &'a [String], name: &str) -> Option<&'a str> {
    environment.iter().rev().find_map(|variable| variable.strip_prefix(name)?.strip_prefix('='))
}

/// `environment` with the variables of `more` set on top.
#[must_use]
pub fn overlaid(environment: &[String], more: &[String]) -> Vec<String> {
    let name = |variable: &str| variable.split('=').next().unwrap_or("").to_owned();
    let replaced: Vec<String> = more.iter().map(|variable| name(variable)).collect();
    let kept = |variable: &&String| !replaced.contains(&name(variable));
    environment.iter().filter(kept).chain(more).cloned().collect()
}

/// `environment` with `PATH`, `HOME` and, at a terminal, `TERM`, where they are missing. An empty `HOME` counts as
/// missing, as for docker.
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
    fn what_is_missing_is_added() {
        let path = format!("PATH={}", crate::executable::DEFAULT_PATH);
        assert_eq!(complete(&[], "/root", false), strings(&[&path, "HOME=/root"]));
        assert_eq!(complete(&[], "/", true), strings(&[&path, "HOME=/", "TERM=xterm"]));
    }

    #[test]
    fn what_is_set_stays() {
        let given = strings(&["PATH=/x", "HOME=/y", "TERM=dumb", "EMPTY="]);
        assert_eq!(complete(&given, "/root", true), given);
    }

    #[test]
    fn an_empty_home_is_replaced() {
        assert_eq!(complete(&strings(&["HOME=", "PATH="]), "/root", false), strings(&["PATH=", "HOME=/root"]));
    }

    #[test]
    fn variables_on_top_replace_those_of_the_same_name_only() {
        let given = strings(&["A=1", "AB=2", "C=3"]);
        assert_eq!(overlaid(&given, &strings(&["A=x", "D="])), strings(&["AB=2", "C=3", "A=x", "D="]));
    }

    #[test]
    fn a_longer_name_is_not_mistaken_and_the_last_value_counts() {
        let given = strings(&["PATHS=/no", "PATH=/first", "PATH=/last"]);
        assert_eq!(value(&given, "PATH"), Some("/last"));
        assert_eq!(value(&given, "PAT"), None);
    }
}
