// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a caller leaves in a new process: ignored signals, a signal mask, limits, closed streams, no HOME. None of it changes a run.

use coracle_tests::{Case, Invocation, TestDir, case, image};
use std::fs;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Full, ignored_signals_do_not_change_a_run),
        case!(Full, a_blocked_mask_does_not_change_a_run),
        case!(Full, closed_standard_streams_do_not_change_a_run),
        case!(Quick[Kvm], file_size_limit_is_named),
        case!(Full[Root], without_home_root_has_its_cache_in_var_cache),
    ]
}

/// Runs it by a shell, after `script`.
fn after(invocation: Invocation, script: &str) -> Invocation {
    invocation.wrapped(&["sh", "-c", &format!("{script} exec \"$@\""), "sh"])
}

fn ignored_signals_do_not_change_a_run() {
    let dir = TestDir::new();
    // The cache has no template, so that mke2fs is executed.
    let run = dir.invocation(&["--scratch", "77m", &image("busybox"), "sh", "-c", "echo up; exit 3"]);
    let run = after(run, "trap '' CHLD PIPE USR1 USR2 ALRM XFSZ;").env("XDG_CACHE_HOME", own_cache(&dir)).finish();
    run.assert_status(3).assert_stdout("up\n").assert_stderr("");
}

/// The shared cache's images, and no scratch template.
fn own_cache(dir: &TestDir) -> std::path::PathBuf {
    let cache = dir.file("cache");
    let coracle = cache.join("coracle");
    fs::create_dir_all(&coracle).expect("the test's directory is writable");
    for name in ["images", "layers"] {
        let shared = dir.cache().join("coracle").join(name);
        fs::create_dir_all(&shared).expect("the shared cache is writable");
        std::os::unix::fs::symlink(shared, coracle.join(name)).expect("the test's directory is writable");
    }
    cache
}

fn a_blocked_mask_does_not_change_a_run() {
    let dir = TestDir::new();
    let run = dir.invocation(&[&image("busybox"), "true"]).wrapped(&["env", "--block-signal"]).finish();
    run.assert_status(0).assert_stderr("");
}

fn closed_standard_streams_do_not_change_a_run() {
    let dir = TestDir::new();
    let run = dir.invocation(&[&image("busybox"), "sh", "-c", "echo lost; cat; exit 3"]);
    let run = run.wrapped(&["sh", "-c", "exec \"$@\" <&- >&- 2>&-", "sh"]).finish();
    run.assert_status(3).assert_reason("exited").assert_stdout("").assert_stderr("");
}

fn file_size_limit_is_named() {
    let dir = TestDir::new();
    for verb in ["run", "check"] {
        let invocation = dir.invocation(&[&image("busybox"), "true"]);
        let invocation = if verb == "check" { dir.verb(verb, &[&image("busybox")]) } else { invocation };
        let run = after(invocation, "ulimit -f 10000;").finish();
        run.assert_status(125);
        let text = format!("{}{}", run.stdout_text(), run.stderr);
        assert!(text.contains("scratch disk") && text.contains("File too large"), "{verb}: {text}");
        let invocation = dir.verb(verb, &[&image("busybox"), "true"]);
        let run = after(invocation, "ulimit -f 1;").finish();
        run.assert_status(125);
        let text = format!("{}{}", run.stdout_text(), run.stderr);
        let is_named = text.contains("512 bytes") && text.contains("ulimit -Hf");
        assert!(is_named && run.stderr.lines().count() <= 1, "{verb}: {text}");
    }
}

fn without_home_root_has_its_cache_in_var_cache() {
    let dir = TestDir::new();
    let list = "mount -t tmpfs none /var/cache && env -u HOME -u XDG_CACHE_HOME \"$@\" && ls /var/cache/coracle";
    let run = dir.invocation(&[&image("busybox"), "true"]);
    let run = run.wrapped(&["unshare", "--mount", "sh", "-c", list, "sh"]).finish();
    run.assert_status(0);
    let made = run.stdout_text();
    assert!(["images", "scratch"].iter().all(|name| made.lines().any(|line| line == *name)), "{made}");
}
