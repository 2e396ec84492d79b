// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `-t`: the workload has a terminal with the size of the user's, which is restored at the end.

use coracle_tests::{Case, Pty, Running, Stdin, TestDir, case, image};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Smoke, terminal_has_its_size_and_follows_a_resize),
        case!(Full, interrupt_key_goes_to_the_guest),
        case!(Full, terminal_is_restored_after_a_failure),
        case!(Quick, terminal_option_without_a_terminal_is_rejected),
    ]
}

/// `coracle run` as the session leader of `pty`, so that a resize sends WINCH as it does to a shell's foreground job.
fn start_on(pty: &Pty, dir: &TestDir, arguments: &[&str]) -> Running {
    let invocation = dir.invocation(arguments).wrapped(&["setsid", "--ctty"]).stdin(Stdin::File(pty.terminal()));
    invocation.stdout(pty.terminal()).stderr(pty.terminal()).start()
}

fn terminal_has_its_size_and_follows_a_resize() {
    let dir = TestDir::new();
    let mut pty = Pty::open(30, 100);
    let before = pty.modes();
    let script = "tty >/dev/null && stty size; trap 'stty size' WINCH; echo ready; \
                  while :; do read -r word && break; done; echo \"read $word\"; exit 6";
    let run = start_on(&pty, &dir, &["-i", "-t", &image("busybox"), "sh", "-c", script]);
    pty.wait_for("30 100");
    pty.wait_for("ready");
    pty.resize(50, 132);
    pty.wait_for("50 132");
    pty.type_text("typed\r");
    pty.wait_for("read typed");
    run.finish().assert_status(6).assert_reason("exited");
    assert_eq!(pty.modes(), before, "the terminal's modes after the run");
}

fn interrupt_key_goes_to_the_guest() {
    let dir = TestDir::new();
    let mut pty = Pty::open(24, 80);
    let script = "trap 'echo interrupted; exit 5' INT; echo ready; while :; do read -r word; done";
    let run = start_on(&pty, &dir, &["-it", &image("busybox"), "sh", "-c", script]);
    pty.wait_for("ready");
    pty.type_text("\x03");
    pty.wait_for("interrupted");
    run.finish().assert_status(5).assert_reason("exited");
}

fn terminal_is_restored_after_a_failure() {
    let dir = TestDir::new();
    let pty = Pty::open(24, 80);
    let before = pty.modes();
    start_on(&pty, &dir, &["-it", &image("busybox"), "nosuch"]).finish().assert_status(127);
    assert_eq!(pty.modes(), before, "the terminal's modes after the run");
    pty.wait_for("coracle: ");
}

fn terminal_option_without_a_terminal_is_rejected() {
    let dir = TestDir::new();
    let run = dir.run(&["-i", "-t", &image("busybox"), "sh"]);
    run.assert_status(125).assert_one_line_naming(&["terminal"]);
}
