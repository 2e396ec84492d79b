// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The command line of an OCI runtime, as far as it is looked at. Pure.

use std::ffi::{OsStr, OsString};

/// Options before the verb that have a value, of runc and crun.
const GLOBAL: [&str; 6] = ["--root", "--log", "--log-format", "--criu", "--rootless", "--cgroup-manager"];
/// Options of `create`, `run`, `start` and `exec` that have a value.
const OF_VERB: [&str; 20] = [
    "--bundle",
    "-b",
    "--pid-file",
    "--console-socket",
    "--preserve-fds",
    "--process",
    "-p",
    "--cwd",
    "--env",
    "-e",
    "--user",
    "-u",
    "--additional-gids",
    "-g",
    "--process-label",
    "--apparmor",
    "--cap",
    "-c",
    "--cgroup",
    "--config",
];

#[derive(Debug)]
pub(super) struct Call {
    pub(super) words: Vec<OsString>,
    /// Index of the verb.
    verb: Option<usize>,
}

impl Call {
    pub(super) fn parse(words: Vec<OsString>) -> Self {
        let verb = first_positional(&words, 0, &GLOBAL);
        Self { words, verb }
    }

    pub(super) fn verb(&self) -> Option<&str> {
        self.verb.and_then(|index| self.words[index].to_str())
    }

    /// The options before the verb.
    pub(super) fn global(&self) -> &[OsString] {
        &self.words[..self.verb.unwrap_or(self.words.len())]
    }

    /// The ID of the container.
    pub(super) fn positional(&self) -> Option<&OsStr> {
        let index = first_positional(&self.words, self.verb? + 1, &OF_VERB)?;
        Some(&self.words[index])
    }

    /// The value of a global option.
    pub(super) fn global_value(&self, name: &str) -> Option<&OsStr> {
        value(self.global(), &[name], &GLOBAL)
    }

    /// The value of an option of the verb.
    pub(super) fn value(&self, names: &[&str]) -> Option<&OsStr> {
        value(&self.words[self.verb? + 1..], names, &OF_VERB)
    }
}

/// The index of the first word from `start` that is neither an option nor its value.
fn first_positional(words: &[OsString], start: usize, with_value: &[&str]) -> Option<usize> {
    let mut index = start;
    loop {
        let word = words.get(index)?.to_string_lossy();
        if word == "--" {
            return (index + 1 < words.len()).then_some(index + 1);
        }
        if !word.starts_with('-') {
            return Some(index);
        }
        index += if with_value.contains(&&*word) { 2 } else { 1 };
    }
}

fn value<'a>(words: &'a [OsString], names: &[&str], with_value: &[&str]) -> Option<&'a OsStr> {
    let end = first_positional(words, 0, with_value).unwrap_or(words.len());
    // The last one counts, as for runc and crun.
    (0..end).rev().find_map(|index| {
        let word = words[index].to_str()?;
        if names.contains(&word) {
            return words.get(index + 1).map(OsString::as_os_str);
        }
        let (name, value) = word.split_once('=')?;
        names.contains(&name).then(|| OsStr::new(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(text: &str) -> Call {
        Call::parse(text.split_whitespace().map(OsString::from).collect())
    }

    #[test]
    fn options_before_and_after_the_verb_are_told_apart() {
        let text = "--root /run/x --log=/l --log-format json --systemd-cgroup exec --process /p --detach --pid-file=/q id word --process";
        let call = call(text);
        assert_eq!(call.verb(), Some("exec"));
        assert_eq!(call.global().len(), 6);
        assert_eq!(call.global_value("--log"), Some(OsStr::new("/l")));
        assert_eq!(call.global_value("--root"), Some(OsStr::new("/run/x")));
        assert_eq!(call.value(&["--process", "-p"]), Some(OsStr::new("/p")));
        assert_eq!(call.positional(), Some(OsStr::new("id")));
    }

    #[test]
    fn words_without_verb_or_id_have_none() {
        for text in ["", "--version", "--root", "--root x"] {
            assert_eq!(call(text).verb(), None, "{text:?}");
        }
        assert_eq!(call("create -b /bundle").positional(), None);
        assert_eq!(call("create -b").value(&["--bundle", "-b"]), None);
        assert_eq!(call("start -- -id").positional(), Some(OsStr::new("-id")));
    }
}
