// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The harness notices what it is there to notice. A shell stands in for the binary.

use crate::{Invocation, TestDir};
use rustix::process::Signal;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// A shell script in the place of the binary; `$3` is where the result belongs.
fn script(dir: &TestDir, text: &str) -> Invocation {
    // sh -c TEXT NAME run --run-dir DIR --result FILE --console FILE: the result is the fifth argument of the script.
    dir.invocation::<&str>(&[]).program("stands-in".into()).wrapped(&["sh", "-c", text])
}

fn complaint(body: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(body)).expect_err("the harness has noticed nothing");
    panic.downcast_ref::<String>().cloned().unwrap_or_default()
}

#[test]
fn a_file_left_in_the_temporary_folder_is_noticed() {
    let said = complaint(|| {
        let dir = TestDir::new();
        let _ = script(&dir, "echo x > $TMPDIR/forgotten").finish();
    });
    assert!(said.contains("left behind") && said.contains("forgotten"), "{said}");
}

#[test]
fn an_entry_left_in_the_run_directory_is_noticed_unless_it_may_stay() {
    let leave = "mkdir $3/entry";
    let said = complaint(|| {
        let dir = TestDir::new();
        let _ = script(&dir, leave).finish();
    });
    assert!(said.contains("run/entry"), "{said}");
    let dir = TestDir::new().keeping_run_entries();
    let _ = script(&dir, leave).finish();
}

#[test]
fn a_process_left_behind_is_noticed() {
    let dir = TestDir::new();
    let _ = script(&dir, "setsid sleep 1000 >/dev/null 2>&1 & echo $! > $HOME/pid").finish();
    let left = dir.residue();
    let pid = std::fs::read_to_string(dir.path().join("home/pid")).unwrap();
    let pid = rustix::process::Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
    assert!(left.len() == 1 && left[0].contains("sleep 1000"), "{left:?}");
    while !dir.residue().is_empty() {
        std::thread::yield_now();
    }
}

#[test]
fn a_run_beyond_its_limit_is_killed_and_shown() {
    let dir = TestDir::new();
    let invocation = script(&dir, "echo some words; echo booting > $7; exec sleep 1000");
    let said = complaint(|| {
        let mut run = invocation.limit(Duration::from_millis(500)).start();
        run.wait_for_stdout("some words");
        let _ = run.finish();
    });
    assert!(said.contains("did not end in time") && said.contains("some words") && said.contains("booting"), "{said}");
}

#[test]
fn a_word_that_does_not_come_is_missed_at_the_end_of_the_stream() {
    let dir = TestDir::new();
    let said = complaint(|| script(&dir, "echo other").start().wait_for_stdout("expected"));
    assert!(said.contains("`expected` did not come on stdout"), "{said}");
}

#[test]
fn a_result_that_contradicts_the_status_is_noticed() {
    let dir = TestDir::new();
    let run = script(&dir, r#"echo '{"end":{"status":3,"reason":"exited"}}' > $5; exit 4"#).finish();
    assert!(
        complaint(|| {
            run.assert_status(3);
        })
        .contains("exit status")
    );
    assert!(
        complaint(|| {
            run.assert_status(4);
        })
        .contains("status in the result")
    );
    assert!(
        complaint(|| {
            run.assert_reason("signalled");
        })
        .contains("reason in the result")
    );
    run.assert_reason("exited");
}

#[test]
fn one_line_means_one_line_of_coracles_and_nothing_else() {
    let dir = TestDir::new();
    let stderr = |text| script(&dir, text).finish();
    stderr("echo 'coracle: no such thing: x' >&2").assert_one_line_naming(&["x"]);
    for wrong in [
        "echo 'coracle: a' >&2; echo 'coracle: x' >&2",
        "echo 'thread main panicked: x' >&2",
        "printf 'coracle: x' >&2",
        "echo 'coracle: no such thing' >&2",
        "echo 'coracle: x' >&2; echo x",
    ] {
        let run = stderr(wrong);
        assert!(
            !complaint(|| {
                run.assert_one_line_naming(&["x"]);
            })
            .is_empty(),
            "{wrong}"
        );
    }
}
