// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Arguments of `cargo xtask nested`.

use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use std::time::Duration;

/// The test binary in the outer Linux.
pub(super) const TEST_BINARY: &str = "/coracle/bin/end_to_end";

/// Kernels that are not Coracle's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ForeignKernels {
    None,
    /// Debian's cloud kernel, from its package.
    Packaged,
    /// Also those that take minutes to build.
    All,
}

/// This program in the outer Linux.
pub(crate) const XTASK: &str = "/coracle/bin/xtask";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Selection {
    All,
    /// Without those that boot no guest, which ran outside: an emulated processor adds nothing to them but time.
    Machines,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) memory_mib: u32,
    /// The command is ended after this time.
    pub(crate) timeout: Duration,
    /// Kernels that take minutes to build are brought along, too.
    pub(crate) all_kernels: bool,
    /// Files of this machine to bring along, each with the variable that names it in the outer Linux.
    pub(crate) files: Vec<(&'static str, PathBuf)>,
    /// Program and arguments; never empty.
    pub(crate) command: Vec<String>,
}

impl Options {
    /// A command with the defaults.
    pub(crate) fn new(command: Vec<String>) -> Options {
        let timeout = Duration::from_secs(1800);
        Options { memory_mib: 4096, timeout, all_kernels: false, files: Vec::new(), command }
    }

    /// The end-to-end tests, or those with `filter` in their names.
    pub(crate) fn tests(selection: Selection, filter: Option<String>) -> Options {
        let words: &[&str] = match selection {
            Selection::All => &[TEST_BINARY],
            Selection::Machines => &["env", "CORACLE_TESTS=machines", TEST_BINARY],
        };
        let command = words.iter().map(|word| (*word).to_owned()).chain(filter).collect();
        Options { timeout: Duration::from_secs(3600), ..Options::new(command) }
    }

    /// The foreign kernels that the command can use.
    pub(super) fn foreign_kernels(&self) -> ForeignKernels {
        match self.command.iter().any(|word| word.contains(TEST_BINARY) || word.contains("/kernels")) {
            _ if self.all_kernels => ForeignKernels::All,
            true => ForeignKernels::Packaged,
            false => ForeignKernels::None,
        }
    }

    /// All tests except these.
    pub(crate) fn tests_without(selection: Selection, names: &[String]) -> Options {
        let mut options = Options::tests(selection, None);
        options.command.push("--exact".to_owned());
        options.command.extend(names.iter().flat_map(|name| ["--skip".to_owned(), name.clone()]));
        options
    }

    /// These tests, one after the other, each in its own process.
    pub(crate) fn tests_one_by_one(names: &[String]) -> Options {
        let script = format!("status=0; for name; do {TEST_BINARY} --exact \"$name\" || status=1; done; exit $status");
        let words = ["sh", "-c", &script, "sh"].map(str::to_owned);
        Options::new(words.into_iter().chain(names.iter().cloned()).collect())
    }

    /// `[--filter NAME] [--all-kernels] [--memory MIB] [--timeout SECONDS] [-- COMMAND...]`
    pub(super) fn parse(words: &[String]) -> Result<Options> {
        let mut words = words.iter();
        let (mut filter, mut command, mut memory_mib, mut timeout) = (None, Vec::new(), None, None);
        let mut all_kernels = false;
        while let Some(word) = words.next() {
            let mut value = || words.next().with_context(|| format!("{word} needs a value"));
            match word.as_str() {
                "--filter" => filter = Some(value()?.clone()),
                "--all-kernels" => all_kernels = true,
                "--memory" => memory_mib = Some(number(word, value()?)?),
                "--timeout" => timeout = Some(Duration::from_secs(u64::from(number(word, value()?)?))),
                "--" => command.extend(words.by_ref().cloned()),
                _ => bail!("nested has no `{word}`; a command comes after `--`"),
            }
        }
        if !command.is_empty() && filter.is_some() {
            bail!("--filter selects tests; it cannot be used with a command");
        }
        let usual = if command.is_empty() { Options::tests(Selection::All, filter) } else { Options::new(command) };
        Ok(Options {
            memory_mib: memory_mib.unwrap_or(usual.memory_mib),
            timeout: timeout.unwrap_or(usual.timeout),
            all_kernels,
            ..usual
        })
    }
}

fn number(option: &str, value: &str) -> Result<u32> {
    match value.parse() {
        Ok(number @ 1..) => Ok(number),
        _ => bail!("{option} {value}: not a number above 0"),
    }
}

#[cfg(test)]
mod tests {
    use super::{ForeignKernels, Options, Selection, TEST_BINARY};
    use std::time::Duration;

    fn parse(line: &str) -> anyhow::Result<Options> {
        Options::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn default_command_is_the_tests() {
        assert_eq!(parse("").unwrap().command, [TEST_BINARY]);
        assert_eq!(parse("--filter redis").unwrap().command, [TEST_BINARY, "redis"]);
        let machines = Options::tests(Selection::Machines, None);
        assert_eq!(machines.command, ["env", "CORACLE_TESTS=machines", TEST_BINARY]);
        assert_eq!(machines.foreign_kernels(), ForeignKernels::Packaged);
    }

    #[test]
    fn words_after_two_dashes_are_the_command() {
        let options = parse("--memory 2048 --timeout 5 -- coracle run --timeout 300 -- x").unwrap();
        assert_eq!(options.command, ["coracle", "run", "--timeout", "300", "--", "x"]);
        assert_eq!((options.memory_mib, options.timeout), (2048, Duration::from_secs(5)));
    }

    #[test]
    fn foreign_kernels_are_for_tests_and_commands_that_name_them() {
        for (line, expected) in [
            ("", ForeignKernels::Packaged),
            ("--all-kernels", ForeignKernels::All),
            ("-- coracle run --kernel /kernels/debian-cloud/vmlinuz x", ForeignKernels::Packaged),
            ("-- coracle run oci:/images/python", ForeignKernels::None),
            ("--all-kernels -- sh", ForeignKernels::All),
        ] {
            assert_eq!(parse(line).unwrap().foreign_kernels(), expected, "{line}");
        }
    }

    #[test]
    fn invalid_arguments_are_rejected() {
        for line in ["--memory", "--memory 0", "--memory much", "ls", "--filter a -- ls", "--timeout -5"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
