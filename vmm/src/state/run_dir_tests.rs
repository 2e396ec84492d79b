// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tests of [`super`].

use super::*;
use std::sync::Barrier;
use std::thread;

#[test]
fn drop_removes_the_directory_unless_it_is_kept() {
    let base = tempfile::tempdir().unwrap();
    for keep in [false, true] {
        let run = RunDirectory::claim(base.path(), "a", keep).unwrap();
        run.create("console.log").unwrap();
        let path = run.path().to_owned();
        drop(run);
        assert_eq!(path.join("console.log").exists(), keep);
        assert_eq!(path.exists(), keep);
    }
}

#[test]
fn claim_names_the_process_that_has_the_name() {
    let base = tempfile::tempdir().unwrap();
    let _run = RunDirectory::claim(base.path(), "a", false).unwrap();
    let error = RunDirectory::claim(base.path(), "a", false).unwrap_err();
    assert_eq!(error.to_string(), format!("the name a is in use by process {}", std::process::id()));
    assert!(RunDirectory::claim(base.path(), "b", false).is_ok());
}

#[test]
fn claim_empties_a_stale_directory() {
    let base = tempfile::tempdir().unwrap();
    let killed = RunDirectory::claim(base.path(), "a", true).unwrap();
    fs::write(killed.path().join("result.json"), "old").unwrap();
    fs::create_dir(killed.path().join("directory")).unwrap();
    drop(killed);
    let run = RunDirectory::claim(base.path(), "a", true).unwrap();
    let names: Vec<_> = fs::read_dir(run.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, [LOCK]);
}

#[test]
fn hold_keeps_starts_away_and_leaves_what_is_there() {
    let base = tempfile::tempdir().unwrap();
    let held = RunDirectory::hold(base.path(), "a").unwrap();
    assert!(matches!(RunDirectory::claim(base.path(), "a", true), Err(RunDirectoryError::InUse { .. })));
    drop(held);
    assert!(!base.path().join("a").exists());
    let ended = RunDirectory::claim(base.path(), "a", true).unwrap();
    assert!(matches!(RunDirectory::hold(base.path(), "a"), Err(RunDirectoryError::InUse { .. })));
    fs::write(ended.path().join("result.json"), "old").unwrap();
    drop(ended);
    drop(RunDirectory::hold(base.path(), "a").unwrap());
    assert_eq!(fs::read(base.path().join("a/result.json")).unwrap(), b"old");
}

#[test]
fn claim_gives_a_name_to_one_process_at_a_time() {
    let base = tempfile::tempdir().unwrap();
    let held = std::sync::atomic::AtomicU32::new(0);
    let wins = std::sync::atomic::AtomicU32::new(0);
    let barrier = Barrier::new(8);
    let order = std::sync::atomic::Ordering::SeqCst;
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                barrier.wait();
                for _ in 0..200 {
                    match RunDirectory::claim(base.path(), "a", false) {
                        Ok(run) => {
                            assert_eq!(held.fetch_add(1, order), 0, "two have the name");
                            assert!(run.path().join(LOCK).exists(), "the directory is the winner's");
                            wins.fetch_add(1, order);
                            held.fetch_sub(1, order);
                        }
                        Err(RunDirectoryError::InUse { .. }) => {}
                        Err(error) => panic!("{error:?}"),
                    }
                }
            });
        }
    });
    assert!(wins.into_inner() > 0);
    assert_eq!(fs::read_dir(base.path()).unwrap().count(), 0);
}

#[test]
fn claim_rejects_a_dangling_link() {
    let base = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("nowhere", base.path().join("a")).unwrap();
    let error = RunDirectory::claim(base.path(), "a", false).unwrap_err();
    assert!(matches!(error, RunDirectoryError::Host { action: "open", .. }), "{error:?}");
}

#[test]
fn run_directory_is_private() {
    let base = tempfile::tempdir().unwrap();
    let run = RunDirectory::claim(&base.path().join("made"), "a", false).unwrap();
    assert_eq!(fs::metadata(run.path()).unwrap().mode() & 0o777, 0o700);
    run.create("config.json").unwrap();
    assert_eq!(fs::metadata(run.path().join("config.json")).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn claim_names_a_base_that_is_not_a_directory() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = RunDirectory::claim(file.path(), "a", false).unwrap_err();
    assert!(error.to_string().contains(&file.path().display().to_string()), "{error}");
}

#[test]
fn claim_rejects_a_base_or_link_of_another_user() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can make files of another user");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (ours, link, foreign) = ["ours", "link", "foreign"].map(|name| directory.path().join(name)).into();
    fs::create_dir(&ours).unwrap();
    fs::create_dir(&foreign).unwrap();
    std::os::unix::fs::symlink(&ours, &link).unwrap();
    assert!(RunDirectory::claim(&link, "a", false).is_ok(), "a link of our own");
    for path in [&link, &foreign] {
        std::os::unix::fs::lchown(path, Some(12345), None).unwrap();
    }
    // The owner is neither this user nor root.
    for path in [&link, &foreign] {
        let error = RunDirectory::claim(path, "a", false).unwrap_err();
        assert!(matches!(error, RunDirectoryError::Foreign(_)), "{error}");
    }
}
