// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a person sees of work that takes long: on a terminal, in a pipe, and where it is not wanted.

use coracle_tests::{Case, Elf, Invocation, Place, Pty, Stdin, case, foreign_kernel, image};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Quick[Kvm], a_terminal_shows_a_bar_and_has_nothing_of_it_afterwards),
        case!(Quick[Kvm, Kernels], a_terminal_shows_that_a_kernel_is_unpacked),
        case!(Quick[Kvm], a_pipe_gets_no_bar),
        case!(Quick[Kvm], a_person_who_wants_only_errors_sees_no_bar),
    ]
}

const ERASE: &str = "\r\x1b[K";
const RESET: &str = "coracle: the guest reset the machine unexpectedly";

/// Converts an image whose layers take a while, and comes to its end at once: the kernel only resets the machine.
fn converting(place: &Place, options: &[&str]) -> Invocation {
    // mov al, 0xfe; out 0x64, al; hlt
    let code = vec![0xb0, 0xfe, 0xe6, 0x64, 0xf4, 0xeb, 0xfd];
    let kernel = place.write("kernel", Elf { code, ..Elf::default() }.to_bytes()).display().to_string();
    let image = image("fio");
    let arguments = [&["--kernel", &kernel], options, &[&image, "true"]].concat();
    place.invocation(&arguments).env("XDG_CACHE_HOME", place.file("cache"))
}

/// On a terminal, whose screen is returned.
fn on_terminal(run: Invocation, status: i32) -> String {
    let pty = Pty::open(24, 90);
    run.stdin(Stdin::File(pty.terminal())).stderr(pty.terminal()).finish().assert_status(status);
    // What the binary wrote is there before its end; what the test writes comes behind it.
    std::io::Write::write_all(&mut pty.terminal(), b"the end").expect("a terminal takes output");
    pty.wait_for("the end");
    pty.screen().replace("the end", "")
}

fn a_terminal_shows_a_bar_and_has_nothing_of_it_afterwards() {
    let place = Place::new();
    let screen = on_terminal(converting(&place, &[]), 125);
    let shown: Vec<&str> = screen.split(ERASE).collect();
    let is_bar = |line: &&str| line.starts_with("coracle: ") && line.contains("#-") && line.ends_with(" MiB");
    assert!(shown.iter().any(is_bar), "{shown:?}");
    assert!(shown.iter().all(|line| line.len() < 90), "{shown:?}");
    assert_eq!(shown.last(), Some(&&*format!("{RESET}\r\n")), "{shown:?}");
}

fn a_terminal_shows_that_a_kernel_is_unpacked() {
    let place = Place::new();
    let check =
        place.invocation(&["--kernel", &foreign_kernel("debian-cloud/vmlinuz"), &image("busybox")]).verb("check");
    let screen = on_terminal(check.env("XDG_CACHE_HOME", place.file("cache")), 0);
    assert!(screen.contains("coracle: unpacking the kernel [") && screen.ends_with(ERASE), "{screen:?}");
}

fn a_pipe_gets_no_bar() {
    let place = Place::new();
    let run = converting(&place, &[]).finish();
    run.assert_status(125);
    assert!(!run.stderr.contains(['\r', '\x1b']) && run.stderr.ends_with(&format!("{RESET}\n")), "{}", run.report());
    // A line a minute, of which the first one comes after the first minute.
    let minutes = usize::try_from(run.elapsed.as_secs() / 60).expect("the harness ends it long before");
    assert!(run.stderr.lines().count() <= 1 + minutes, "{}", run.report());
}

fn a_person_who_wants_only_errors_sees_no_bar() {
    let place = Place::new();
    let screen = on_terminal(converting(&place, &["--log-level", "error"]), 125);
    assert_eq!(screen, format!("{RESET}\r\n"));
}
