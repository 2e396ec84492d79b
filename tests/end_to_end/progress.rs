// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The progress of slow work, on a terminal, in a pipe, and with `--log-level error`.

use coracle_tests::{Case, Elf, Invocation, Pty, Stdin, TestDir, case, foreign_kernel, image};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Quick[Kvm], terminal_shows_a_progress_bar_and_erases_it),
        case!(Quick[Kvm, Kernels], terminal_shows_that_a_kernel_is_unpacked),
        case!(Quick[Kvm], pipe_gets_no_progress_bar),
        case!(Quick[Kvm], log_level_error_shows_no_progress_bar),
    ]
}

const ERASE: &str = "\r\x1b[K";
const RESET: &str = "coracle: the guest reset the machine unexpectedly";

/// A run that converts an image of many layers and ends: its kernel only resets the machine.
fn converting(dir: &TestDir, options: &[&str]) -> Invocation {
    // mov al, 0xfe; out 0x64, al; hlt
    let code = vec![0xb0, 0xfe, 0xe6, 0x64, 0xf4, 0xeb, 0xfd];
    let kernel = dir.write("kernel", Elf { code, ..Elf::default() }.to_bytes()).display().to_string();
    let image = image("fio");
    let arguments = [&["--kernel", &kernel], options, &[&image, "true"]].concat();
    dir.invocation(&arguments).env("XDG_CACHE_HOME", dir.file("cache"))
}

/// Runs it on a terminal and returns the screen.
fn on_terminal(run: Invocation, status: i32) -> String {
    let pty = Pty::open(24, 90);
    run.stdin(Stdin::File(pty.terminal())).stderr(pty.terminal()).finish().assert_status(status);
    // What the test writes comes after all that the binary wrote.
    std::io::Write::write_all(&mut pty.terminal(), b"the end").expect("a terminal takes output");
    pty.wait_for("the end");
    pty.screen().replace("the end", "")
}

fn terminal_shows_a_progress_bar_and_erases_it() {
    let dir = TestDir::new();
    let screen = on_terminal(converting(&dir, &[]), 125);
    let shown: Vec<&str> = screen.split(ERASE).collect();
    let is_bar = |line: &&str| line.starts_with("coracle: ") && line.contains("#-") && line.ends_with(" MiB");
    assert!(shown.iter().any(is_bar), "{shown:?}");
    assert!(shown.iter().all(|line| line.len() < 90), "{shown:?}");
    assert_eq!(shown.last(), Some(&&*format!("{RESET}\r\n")), "{shown:?}");
}

fn terminal_shows_that_a_kernel_is_unpacked() {
    let dir = TestDir::new();
    let check = dir.invocation(&["--kernel", &foreign_kernel("debian-cloud/vmlinuz"), &image("busybox")]).verb("check");
    let screen = on_terminal(check.env("XDG_CACHE_HOME", dir.file("cache")), 0);
    assert!(screen.contains("coracle: unpacking the kernel [") && screen.ends_with(ERASE), "{screen:?}");
}

fn pipe_gets_no_progress_bar() {
    let dir = TestDir::new();
    let run = converting(&dir, &[]).finish();
    run.assert_status(125);
    assert!(!run.stderr.contains(['\r', '\x1b']) && run.stderr.ends_with(&format!("{RESET}\n")), "{}", run.report());
    // One line a minute, the first one after a minute.
    let minutes = usize::try_from(run.elapsed.as_secs() / 60).expect("the harness ends it long before");
    assert!(run.stderr.lines().count() <= 1 + minutes, "{}", run.report());
}

fn log_level_error_shows_no_progress_bar() {
    let dir = TestDir::new();
    let screen = on_terminal(converting(&dir, &["--log-level", "error"]), 125);
    assert_eq!(screen, format!("{RESET}\r\n"));
}
