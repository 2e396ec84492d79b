// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The file that a command resolves to, as in `execvp` and shells, and the kind of failure if none
//! can be executed. The caller makes each attempt, usually by `execve`, so that lookup and
//! execution are one system call.

use alloc::format;
use alloc::string::String;
use guest_protocol::protocol::FailureKind;

/// `PATH` if the environment has none: docker's default.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

// Linux error numbers, the same on every architecture.
const ENOENT: i32 = 2;
const EACCES: i32 = 13;
const ENOTDIR: i32 = 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecuteError {
    pub kind: FailureKind,
    /// The fault, naming the command.
    pub detail: String,
    /// Linux error number of the decisive attempt.
    pub errno: i32,
}

/// Calls `attempt` with each candidate for `command`, in order, until one succeeds: the command
/// itself if it contains a slash, else one file in each directory of `path`. A candidate that is
/// missing or not permitted leads to the next one; any other error ends the search. `attempt` fails
/// with a Linux error number.
pub fn find<T>(command: &str, path: &str, mut attempt: impl FnMut(&str) -> Result<T, i32>) -> Result<T, ExecuteError> {
    if command.contains('/') {
        return attempt(command).map_err(|errno| error_of(command, errno));
    }
    let not_found = ExecuteError {
        kind: FailureKind::NotFound,
        detail: format!("{command}: executable file not found in PATH ({path})"),
        errno: ENOENT,
    };
    if command.is_empty() {
        return Err(not_found);
    }
    let mut denied = None;
    for directory in path.split(':') {
        // POSIX: an empty element is the working directory.
        let file = format!("{}/{command}", if directory.is_empty() { "." } else { directory });
        match attempt(&file) {
            Ok(success) => return Ok(success),
            Err(ENOENT | ENOTDIR) => {}
            Err(EACCES) => denied = denied.or(Some(error_of(&file, EACCES))),
            Err(errno) => return Err(error_of(&file, errno)),
        }
    }
    Err(denied.unwrap_or(not_found))
}

fn error_of(file: &str, errno: i32) -> ExecuteError {
    let (kind, reason) = match errno {
        ENOENT | ENOTDIR => (FailureKind::NotFound, "no such file, or its interpreter is missing"),
        EACCES => (FailureKind::NotExecutable, "not an executable file, or permission denied"),
        8 => (FailureKind::NotExecutable, "neither a program for this machine nor a script with an interpreter line"),
        7 => (FailureKind::NotExecutable, "arguments and environment are too long"),
        _ => (FailureKind::NotExecutable, "cannot be executed"),
    };
    ExecuteError { kind, detail: format!("{file}: {reason}"), errno }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use std::string::ToString;
    extern crate std;

    /// Runs `find` where these files exist, each with the result of executing it.
    fn run(command: &str, files: &[(&str, Result<(), i32>)]) -> (Result<(), ExecuteError>, Vec<String>) {
        let mut attempts = Vec::new();
        let outcome = find(command, "/a::/b", |file| {
            attempts.push(file.to_string());
            files.iter().find(|(name, _)| *name == file).map_or(Err(ENOENT), |(_, result)| *result)
        });
        (outcome, attempts)
    }

    #[test]
    fn find_tries_directories_in_order_and_empty_as_working() {
        assert_eq!(run("x", &[("/b/x", Ok(()))]), (Ok(()), ["/a/x", "./x", "/b/x"].map(String::from).to_vec()));
    }

    #[test]
    fn command_with_a_slash_is_not_looked_up() {
        let (outcome, attempts) = run("./x", &[]);
        assert_eq!((outcome.unwrap_err().kind, attempts), (FailureKind::NotFound, [String::from("./x")].to_vec()));
    }

    #[test]
    fn non_executable_file_does_not_hide_a_later_one() {
        assert_eq!(run("x", &[("/a/x", Err(EACCES)), ("/b/x", Ok(()))]).0, Ok(()));
    }

    #[test]
    fn non_executable_file_alone_returns_eacces() {
        let error = run("x", &[("/a/x", Err(EACCES))]).0.unwrap_err();
        assert_eq!((error.kind, error.errno), (FailureKind::NotExecutable, EACCES));
        assert!(error.detail.starts_with("/a/x: "), "{}", error.detail);
    }

    #[test]
    fn file_of_unknown_format_ends_the_search() {
        let (outcome, attempts) = run("x", &[("/a/x", Err(8)), ("/b/x", Ok(()))]);
        assert_eq!((outcome.unwrap_err().kind, attempts.len()), (FailureKind::NotExecutable, 1));
    }

    #[test]
    fn empty_command_is_not_found_without_an_attempt() {
        let (outcome, attempts) = run("", &[("/a/", Ok(()))]);
        assert_eq!((outcome.unwrap_err().kind, attempts.len()), (FailureKind::NotFound, 0));
    }

    #[test]
    fn missing_command_is_named_together_with_the_path() {
        assert!(
            run("nosuch", &[]).0.unwrap_err().detail.contains("nosuch: executable file not found in PATH (/a::/b)")
        );
    }
}
