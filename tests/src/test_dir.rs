// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The directory of one test: its home, its run directory, its temporary directory. When the test ends, these must be as empty
//! as when it began, and no process that was started with them may be alive.

use crate::invocation::Invocation;
use crate::{Finished, Running, scratch_directory};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A directory with `home`, `run` (the run directory), `tmp` (`TMPDIR`) and `files` (the test's own files).
pub struct TestDir {
    directory: TempDir,
    may_keep_machines: bool,
}

impl TestDir {
    /// A new directory. All tests share one image cache, so that each image is converted once.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "a default creates no directories")]
    pub fn new() -> TestDir {
        let directory =
            tempfile::Builder::new().prefix("coracle-test-").tempdir().expect("the temporary directory is writable");
        for name in ["home", "run", "tmp", "files"] {
            fs::create_dir(directory.path().join(name)).expect("a new directory is writable");
        }
        TestDir { directory, may_keep_machines: false }
    }

    /// For machines that stay in the run directory when they have ended (`--name`).
    #[must_use]
    pub fn keeping_machines(mut self) -> TestDir {
        self.may_keep_machines = true;
        self
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// `--run-dir` of every run here.
    #[must_use]
    pub fn run_directory(&self) -> PathBuf {
        self.path().join("run")
    }

    /// `TMPDIR` of every run here.
    #[must_use]
    pub fn temporary(&self) -> PathBuf {
        self.path().join("tmp")
    }

    /// The image cache that all tests share.
    #[must_use]
    pub fn cache(&self) -> PathBuf {
        scratch_directory().join("cache")
    }

    /// The path of one of the test's own files.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join("files").join(name)
    }

    /// Writes one of the test's own files.
    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.file(name);
        fs::write(&path, contents).expect("the test's directory is writable");
        path
    }

    /// Copies a program to `name` among the test's own files, in another process. If this process held the copy open for
    /// writing, a child that another test forks at that moment would inherit it, and the program could not be executed
    /// (ETXTBSY).
    pub fn copy_program(&self, program: &Path, name: &str) -> PathBuf {
        let copy = self.file(name);
        let status = Command::new("cp").arg(program).arg(&copy).status().expect("cp can be started");
        assert!(status.success(), "cannot copy {}: {status}", program.display());
        copy
    }

    /// `coracle run` with these arguments, not started yet.
    #[must_use]
    pub fn invocation<S: AsRef<str>>(&self, arguments: &[S]) -> Invocation {
        Invocation::new(self, arguments)
    }

    /// Runs `coracle run` with these arguments to its end, with an empty stdin.
    #[must_use]
    pub fn run<S: AsRef<str>>(&self, arguments: &[S]) -> Finished {
        self.invocation(arguments).finish()
    }

    /// Another verb with these arguments, on this test's machines.
    #[must_use]
    pub fn verb<S: AsRef<str>>(&self, verb: &'static str, arguments: &[S]) -> Invocation {
        let run_directory = self.run_directory().display().to_string();
        let options = ["--run-dir", &run_directory].into_iter();
        let words: Vec<&str> = options.chain(arguments.iter().map(AsRef::as_ref)).collect();
        Invocation::new(self, &words).verb(verb)
    }

    /// Starts `coracle run` with these arguments.
    #[must_use]
    pub fn start<S: AsRef<str>>(&self, arguments: &[S]) -> Running {
        self.invocation(arguments).start()
    }

    /// What should not be left: processes, temporary files, machines.
    #[must_use]
    pub fn residue(&self) -> Vec<String> {
        let mut left = processes_of(self.path());
        left.extend(entries(&self.temporary()));
        if !self.may_keep_machines {
            left.extend(entries(&self.run_directory()));
        }
        left
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        let left = self.residue();
        if !std::thread::panicking() {
            assert!(left.is_empty(), "left behind: {}", left.join(", "));
        }
    }
}

fn entries(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("the test's directory is readable");
    entries.map(|entry| entry.expect("the directory exists").path().display().to_string()).collect()
}

/// Every process of a test has the test's directory in its environment (`TMPDIR`).
fn processes_of(test: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc is mounted").flatten() {
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        let needle = test.as_os_str().as_bytes();
        if environment.windows(needle.len()).any(|window| window == needle) {
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            found.push(format!("process {} ({})", entry.file_name().display(), command.trim_end()));
        }
    }
    found
}
