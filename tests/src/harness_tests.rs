// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The harness finds the faults that it is there to find. A shell takes the place of the binary.

use crate::{Invocation, TestDir};
use rustix::process::Signal;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// A shell script in place of the binary.
fn script(dir: &TestDir, text: &str) -> Invocation {
    // sh -c TEXT NAME run --run-dir DIR --result FILE --console FILE: DIR is $3, the result $5, the console $7.
    dir.invocation::<&str>(&[]).program("stand-in".into()).wrapped(&["sh", "-c", text])
}

fn failure_of(body: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(body)).expect_err("the harness found no fault");
    panic.downcast_ref::<String>().cloned().unwrap_or_default()
}

#[test]
fn file_left_in_the_temporary_directory_is_found() {
    let message = failure_of(|| {
        let dir = TestDir::new();
        let _ = script(&dir, "echo x > $TMPDIR/forgotten").finish();
    });
    assert!(message.contains("left behind") && message.contains("forgotten"), "{message}");
}

#[test]
fn machine_left_in_the_run_directory_is_found_unless_kept() {
    let leave = "mkdir $3/entry";
    let message = failure_of(|| {
        let dir = TestDir::new();
        let _ = script(&dir, leave).finish();
    });
    assert!(message.contains("run/entry"), "{message}");
    let dir = TestDir::new().keeping_machines();
    let _ = script(&dir, leave).finish();
}

#[test]
fn process_left_behind_is_found() {
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
fn run_beyond_its_limit_is_killed_and_shown() {
    let dir = TestDir::new();
    let invocation = script(&dir, "echo some words; echo booting > $7; exec sleep 1000");
    let message = failure_of(|| {
        let mut run = invocation.limit(Duration::from_millis(500)).start();
        run.wait_for_stdout("some words");
        let _ = run.finish();
    });
    assert!(
        message.contains("did not end in time") && message.contains("some words") && message.contains("booting"),
        "{message}"
    );
}

#[test]
fn text_that_does_not_come_fails_at_the_end_of_the_stream() {
    let dir = TestDir::new();
    let message = failure_of(|| script(&dir, "echo other").start().wait_for_stdout("expected"));
    assert!(message.contains("`expected` did not come on stdout"), "{message}");
}

#[test]
fn result_that_contradicts_the_status_is_found() {
    let dir = TestDir::new();
    let run = script(&dir, r#"echo '{"end":{"status":3,"reason":"exited"}}' > $5; exit 4"#).finish();
    assert!(
        failure_of(|| {
            run.assert_status(3);
        })
        .contains("exit status")
    );
    assert!(
        failure_of(|| {
            run.assert_status(4);
        })
        .contains("status in the result")
    );
    assert!(
        failure_of(|| {
            run.assert_reason("signalled");
        })
        .contains("reason in the result")
    );
    run.assert_reason("exited");
}

#[test]
fn one_line_means_one_line_of_coracle_and_nothing_else() {
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
            !failure_of(|| {
                run.assert_one_line_naming(&["x"]);
            })
            .is_empty(),
            "{wrong}"
        );
    }
}
