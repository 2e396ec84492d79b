// SPDX-License-Identifier: Apache-2.0 OR MIT
use super::*;
use crate::machine::snapshot::testing::document;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;

const SIZE: u64 = 1 << 20;

/// A snapshot with a memory and a scratch disk.
fn snapshot() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let create = |name: &str| {
        let path = directory.path().join(name);
        OpenOptions::new().read(true).write(true).create_new(true).open(path).unwrap()
    };
    let (mut state, memory, scratch) = (create(STATE_FILE), create(MEMORY_FILE), create(SCRATCH_FILE));
    let part = || Part { bytes: SIZE, sha256: String::new() };
    for (file, text) in [(&memory, b"in memory"), (&scratch, b"on a disk")] {
        file.set_len(SIZE).unwrap();
        file.write_all_at(text, 200_000).unwrap();
    }
    let document = SnapshotDocument { memory: part(), scratch: Some(part()), ..document() };
    state.write_all(&document.to_bytes()).unwrap();
    assert!(finish(directory.path(), state, &memory, &scratch).unwrap());
    directory
}

fn error(directory: &tempfile::TempDir) -> String {
    crate::host::system_error::chain(&OpenSnapshot::open_directory(directory.path()).unwrap_err())
}

#[test]
fn finished_snapshot_opens() {
    let directory = snapshot();
    let opened = OpenSnapshot::open_directory(directory.path()).unwrap();
    assert!(opened.scratch.is_some());
    assert_eq!(opened.document.memory.sha256.len(), 64);
}

#[test]
fn altered_truncated_and_missing_files_are_named() {
    for name in [MEMORY_FILE, SCRATCH_FILE] {
        let change = |change: fn(&Path)| {
            let directory = snapshot();
            change(&directory.path().join(name));
            error(&directory)
        };
        let altered = change(|path| {
            OpenOptions::new().write(true).open(path).unwrap().write_all_at(b"x", 4096).unwrap();
        });
        assert!(altered.contains(name) && altered.ends_with("its digest differs"), "{altered}");
        let shorter = change(|path| OpenOptions::new().write(true).open(path).unwrap().set_len(SIZE - 1).unwrap());
        assert!(shorter.contains(name) && shorter.ends_with("has 1048575 bytes, not 1048576"), "{shorter}");
        let longer = change(|path| OpenOptions::new().write(true).open(path).unwrap().set_len(2 * SIZE).unwrap());
        assert!(longer.contains(name), "{longer}");
        let missing = change(|path| fs::remove_file(path).unwrap());
        assert!(missing.contains(name) && missing.contains("No such file"), "{missing}");
        let link = change(|path| {
            fs::rename(path, path.with_extension("moved")).unwrap();
            std::os::unix::fs::symlink(path.with_extension("moved"), path).unwrap();
        });
        assert!(link.contains(name), "{link}");
    }
    let directory = snapshot();
    fs::write(directory.path().join(STATE_FILE), "").unwrap();
    assert!(error(&directory).ends_with("not the state of a snapshot"), "{}", error(&directory));
}
