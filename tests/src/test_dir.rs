// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A test's own place on the host: home, run directory, temporary folder. At its end it must be as empty as at its start,
//! and no process that was started in it may live.

use crate::invocation::Invocation;
use crate::{Finished, Running, scratch_folder};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A folder with `home`, `run` (the run directory), `tmp` (`TMPDIR`) and `files` (what the test brings along).
pub struct TestDir {
    folder: TempDir,
    may_keep_run_entries: bool,
}

impl TestDir {
    /// A new place. The image cache is shared by all of them, so that an image is converted once.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it makes folders; a default should not")]
    pub fn new() -> TestDir {
        let folder =
            tempfile::Builder::new().prefix("coracle-test-").tempdir().expect("the temporary folder is writable");
        for name in ["home", "run", "tmp", "files"] {
            fs::create_dir(folder.path().join(name)).expect("a new folder is writable");
        }
        TestDir { folder, may_keep_run_entries: false }
    }

    /// For runs whose entry stays in the run directory by intent (`--name`).
    #[must_use]
    pub fn keeping_run_entries(mut self) -> TestDir {
        self.may_keep_run_entries = true;
        self
    }

    /// The whole of it.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
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

    /// The image cache that all places share.
    #[must_use]
    pub fn cache(&self) -> PathBuf {
        scratch_folder().join("cache")
    }

    /// Path of a file that the test brings along.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join("files").join(name)
    }

    /// Writes a file that the test brings along.
    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.file(name);
        fs::write(&path, contents).expect("the test's own folder is writable");
        path
    }

    /// Copies a program to `name` among the files that the test brings along. Another process does it: were the copy open
    /// for writing in this one, a child that another test's thread forks meanwhile would hold it open, too, and starting it
    /// would fail as "text file busy".
    pub fn copy_program(&self, program: &Path, name: &str) -> PathBuf {
        let copy = self.file(name);
        let status = Command::new("cp").arg(program).arg(&copy).status().expect("cp can be started");
        assert!(status.success(), "cannot copy {}: {status}", program.display());
        copy
    }

    /// `coracle run` with these arguments, to be refined or started.
    #[must_use]
    pub fn invocation<S: AsRef<str>>(&self, arguments: &[S]) -> Invocation {
        Invocation::new(self, arguments)
    }

    /// Runs `coracle run` with these arguments to its end, with nothing on stdin.
    #[must_use]
    pub fn run<S: AsRef<str>>(&self, arguments: &[S]) -> Finished {
        self.invocation(arguments).finish()
    }

    /// Another verb with these arguments, on this place's machines.
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

    /// What is left here that should not be.
    #[must_use]
    pub fn residue(&self) -> Vec<String> {
        let mut left = processes_started_in(self.path());
        left.extend(entries(&self.temporary()));
        if !self.may_keep_run_entries {
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

fn entries(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("the test's own folder is readable");
    entries.map(|entry| entry.expect("the folder does not vanish").path().display().to_string()).collect()
}

/// Every process of a run has the place in its environment (`TMPDIR`).
fn processes_started_in(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc is mounted").flatten() {
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        let needle = dir.as_os_str().as_bytes();
        if environment.windows(needle.len()).any(|window| window == needle) {
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            found.push(format!("process {} ({})", entry.file_name().display(), command.trim_end()));
        }
    }
    found
}
