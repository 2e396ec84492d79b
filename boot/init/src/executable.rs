// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which file a command means, as `execvp` and the shells decide it, and which kind of failure it is if none runs.
//! The attempt itself is the caller's: usually `execve`, so that looking and executing are one system call.

use alloc::format;
use alloc::string::String;
use guest_protocol::protocol::FailureKind;

/// Where a command is looked for if the environment has no `PATH`; docker's default.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

// Linux error numbers, the same on every architecture.
const ENOENT: i32 = 2;
const EACCES: i32 = 13;
const ENOTDIR: i32 = 20;

/// No file of that name could be executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotExecuted {
    /// Whether it was missing or refused.
    pub kind: FailureKind,
    /// What was wrong, naming the command.
    pub detail: String,
    /// Linux error number of the attempt that decided.
    pub errno: i32,
}

/// Calls `attempt` with each file that `command` may mean, in order, until one succeeds: the command itself if it holds
/// a slash, else one candidate in each folder of `path`. A candidate that is not there or not permitted leads to the
/// next one; any other error ends the search.
///
/// # Errors
/// None of them succeeded; `attempt` fails with a Linux error number.
pub fn find<T>(command: &str, path: &str, mut attempt: impl FnMut(&str) -> Result<T, i32>) -> Result<T, NotExecuted> {
    if command.contains('/') {
        return attempt(command).map_err(|errno| refusal(command, errno));
    }
    let not_found = NotExecuted {
        kind: FailureKind::NotFound,
        detail: format!("{command}: executable file not found in PATH ({path})"),
        errno: ENOENT,
    };
    if command.is_empty() {
        return Err(not_found);
    }
    let mut denied = None;
    for folder in path.split(':') {
        // POSIX: an empty element is the working directory.
        let file = format!("{}/{command}", if folder.is_empty() { "." } else { folder });
        match attempt(&file) {
            Ok(success) => return Ok(success),
            Err(ENOENT | ENOTDIR) => {}
            Err(EACCES) => denied = denied.or(Some(refusal(&file, EACCES))),
            Err(errno) => return Err(refusal(&file, errno)),
        }
    }
    Err(denied.unwrap_or(not_found))
}

fn refusal(file: &str, errno: i32) -> NotExecuted {
    let (kind, reason) = match errno {
        ENOENT | ENOTDIR => (FailureKind::NotFound, "no such file, or the interpreter it names is missing"),
        EACCES => (FailureKind::NotExecutable, "not an executable file, or permission denied"),
        8 => (FailureKind::NotExecutable, "neither a program for this machine nor a script with an interpreter line"),
        7 => (FailureKind::NotExecutable, "arguments and environment are too long"),
        _ => (FailureKind::NotExecutable, "cannot be executed"),
    };
    NotExecuted { kind, detail: format!("{file}: {reason}"), errno }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use std::string::ToString;
    extern crate std;

    /// Attempts that find these files, each with the result of executing it; all others are missing.
    fn run(command: &str, files: &[(&str, Result<(), i32>)]) -> (Result<(), NotExecuted>, Vec<String>) {
        let mut asked = Vec::new();
        let outcome = find(command, "/a::/b", |file| {
            asked.push(file.to_string());
            files.iter().find(|(name, _)| *name == file).map_or(Err(ENOENT), |(_, result)| *result)
        });
        (outcome, asked)
    }

    #[test]
    fn folders_are_asked_in_order_and_an_empty_one_is_the_working_directory() {
        assert_eq!(run("x", &[("/b/x", Ok(()))]), (Ok(()), ["/a/x", "./x", "/b/x"].map(String::from).to_vec()));
    }

    #[test]
    fn a_command_with_a_slash_is_not_looked_up() {
        let (outcome, asked) = run("./x", &[]);
        assert_eq!((outcome.unwrap_err().kind, asked), (FailureKind::NotFound, [String::from("./x")].to_vec()));
    }

    #[test]
    fn a_file_that_may_not_be_executed_does_not_hide_a_later_one() {
        assert_eq!(run("x", &[("/a/x", Err(EACCES)), ("/b/x", Ok(()))]).0, Ok(()));
    }

    #[test]
    fn a_file_that_may_not_be_executed_decides_if_there_is_no_other() {
        let error = run("x", &[("/a/x", Err(EACCES))]).0.unwrap_err();
        assert_eq!((error.kind, error.errno), (FailureKind::NotExecutable, EACCES));
        assert!(error.detail.starts_with("/a/x: "), "{}", error.detail);
    }

    #[test]
    fn a_file_of_an_unknown_format_ends_the_search() {
        let (outcome, asked) = run("x", &[("/a/x", Err(8)), ("/b/x", Ok(()))]);
        assert_eq!((outcome.unwrap_err().kind, asked.len()), (FailureKind::NotExecutable, 1));
    }

    #[test]
    fn an_empty_command_is_not_found_and_never_attempted() {
        let (outcome, asked) = run("", &[("/a/", Ok(()))]);
        assert_eq!((outcome.unwrap_err().kind, asked.len()), (FailureKind::NotFound, 0));
    }

    #[test]
    fn what_is_nowhere_is_named_together_with_the_path() {
        assert!(
            run("nosuch", &[]).0.unwrap_err().detail.contains("nosuch: executable file not found in PATH (/a::/b)")
        );
    }
}
