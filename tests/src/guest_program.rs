// SPDX-License-Identifier: Apache-2.0 OR MIT
//! C programs of the tests: those that run in the guest, file systems that carry them, and those that start the binary under
//! test.

use crate::{scratch_directory, workspace};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// Compiles `tests/guest/NAME.c` to a static binary, unless that is newer than the sources beside it.
#[must_use]
pub fn compile(name: &str) -> PathBuf {
    build("guest", name, &["-static", "-pthread"])
}

/// Compiles `tests/inject/failing_calls.c`, a wrapper: `failing_calls THREAD PROGRAM [ARG...]`.
#[must_use]
pub fn failing_calls() -> String {
    build("inject", "failing_calls", &["-static"]).display().to_string()
}

/// Compiles `tests/inject/failing_use.c`, a wrapper: `failing_use CALL USE ERRNO REPORT PROGRAM [ARG...]`.
#[must_use]
pub fn failing_use() -> String {
    build("inject", "failing_use", &["-static"]).display().to_string()
}

/// Compiles `tests/inject/hanging_thread.c`: `hanging_thread PID THREAD`.
#[must_use]
pub fn hanging_thread() -> PathBuf {
    build("inject", "hanging_thread", &["-static"])
}

/// Compiles `tests/inject/forbidden_call.c`: `forbidden_call PID THREAD NUMBER`.
#[must_use]
pub fn forbidden_call() -> PathBuf {
    build("inject", "forbidden_call", &["-static"])
}

/// Compiles `tests/inject/remote_calls.c`: `remote_calls PID THREAD`.
#[must_use]
pub fn remote_calls() -> PathBuf {
    build("inject", "remote_calls", &["-static"])
}

/// Compiles `tests/inject/without_call.c`, a wrapper: `without_call NUMBER PROGRAM [ARG...]`.
#[must_use]
pub fn without_call() -> String {
    build("inject", "without_call", &["-static"]).display().to_string()
}

fn build(directory: &str, name: &str, options: &[&str]) -> PathBuf {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().expect("the program can be compiled");
    let directory = workspace().join("tests").join(directory);
    let source = directory.join(name).with_extension("c");
    let binary = scratch_directory().join(name);
    let changed = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    // A header among them may be the source's.
    let sources = fs::read_dir(&directory).expect("the workspace has it").flatten();
    if changed(&binary) > sources.filter_map(|source| changed(&source.path())).max() {
        return binary;
    }
    let mut gcc = Command::new("gcc");
    gcc.args(["-std=gnu17", "-O2", "-Wall", "-Wextra", "-Werror"]).args(options);
    run(gcc.arg("-o").arg(&binary).arg(&source));
    binary
}

/// Makes an ext4 image of `mebibytes` with these files: pairs of a source and an absolute name in the guest.
pub fn file_system(image: &Path, mebibytes: u32, files: &[(&Path, &str)]) {
    let staging = tempfile::tempdir().expect("the temporary directory is writable");
    for (source, name) in files {
        let destination = staging.path().join(name.trim_start_matches('/'));
        let parent = destination.parent().expect("the name is absolute");
        fs::create_dir_all(parent).expect("a new directory is writable");
        fs::copy(source, &destination).unwrap_or_else(|error| panic!("cannot copy {}: {error}", source.display()));
    }
    let mut mke2fs = Command::new("mke2fs");
    mke2fs.args(["-q", "-F", "-t", "ext4", "-O", "^has_journal", "-E", "root_owner=0:0", "-d"]);
    run(mke2fs.arg(staging.path()).arg(image).arg(format!("{mebibytes}M")));
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{log}", output.status);
}
