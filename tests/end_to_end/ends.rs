// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Ends of the guest's kernel and of the machine. Those of a workload are in `status.rs`, those by signals in `signals.rs`.

use coracle_tests::{Case, Elf, Finished, Invocation, Pty, Stdin, TestDir, case, compile, failing_calls, image};
use rustix::process::Signal;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Quick[EachKvm], kernel_reset_ends_with_guest_reset),
        case!(Quick[EachKvm], triple_fault_ends_with_triple_fault),
        case!(Quick[EachKvm], instruction_that_kvm_cannot_execute_ends_with_kvm_error),
        case!(Quick[EachKvm], kernel_that_hangs_is_ended_by_the_timeout),
        case!(Quick[Kvm], missing_tap_ends_with_network_error),
        case!(Quick[Kvm], panic_of_any_thread_ends_with_internal_error),
        case!(Quick[Kvm], panic_restores_the_terminal_and_leaves_a_failed_machine),
        case!(Quick[Kvm], crash_leaves_a_dead_machine),
        case!(Full, init_that_breaks_the_protocol_ends_with_guest_fault),
        case!(Full, guest_panic_prints_its_line_and_keeps_the_console),
        case!(Full, oom_kill_of_a_child_does_not_end_the_workload),
        case!(Full, reboot_and_poweroff_inside_are_end_reasons),
        case!(Full, console_log_has_the_kernels_last_line),
    ]
}

// hlt; jmp back.
const HALT: [u8; 3] = [0xf4, 0xeb, 0xfd];

/// A run with this 32-bit code as its kernel.
fn kernel(dir: &TestDir, code: &[u8], options: &[&str]) -> Invocation {
    let kernel = dir.write("kernel", Elf { code: code.to_vec(), ..Elf::default() }.to_bytes()).display().to_string();
    let image = image("busybox");
    let arguments = [&["--kernel", &kernel][..], options, &[&image, "true"]].concat();
    dir.invocation(&arguments).limit(Duration::from_secs(30))
}

fn boot(dir: &TestDir, code: &[u8], options: &[&str]) -> Finished {
    kernel(dir, code, options).finish()
}

fn kernel_reset_ends_with_guest_reset() {
    let dir = TestDir::new();
    // mov al, 0xfe; out 0x64, al; hlt
    let run = boot(&dir, &[0xb0, 0xfe, 0xe6, 0x64, 0xf4, 0xeb, 0xfd], &[]);
    run.assert_status(125).assert_reason("guest-reset").assert_one_line_naming(&["reset"]);
}

fn triple_fault_ends_with_triple_fault() {
    let dir = TestDir::new();
    // push 0; push 0; lidt [esp]; int3: with an empty interrupt table the fault cannot be handled.
    let run = boot(&dir, &[0xbc, 0, 0x80, 0, 0, 0x6a, 0, 0x6a, 0, 0x0f, 0x01, 0x1c, 0x24, 0xcc, 0xf4], &[]);
    run.assert_status(125).assert_reason("triple-fault").assert_one_line_naming(&["triple fault"]);
}

fn instruction_that_kvm_cannot_execute_ends_with_kvm_error() {
    let dir = TestDir::new();
    // mov eax, 0xd0008000; jmp eax: no memory at this address.
    let run = boot(&dir, &[0xb8, 0, 0x80, 0, 0xd0, 0xff, 0xe0], &["--timeout", "20"]);
    run.assert_status(125).assert_reason("kvm-error").assert_one_line_naming(&["KVM"]);
}

fn kernel_that_hangs_is_ended_by_the_timeout() {
    let dir = TestDir::new();
    let run = boot(&dir, &HALT, &["--timeout", "1"]);
    run.assert_status(137).assert_reason("timeout").assert_one_line_naming(&["1 s"]);
}

fn missing_tap_ends_with_network_error() {
    let dir = TestDir::new();
    let run = dir.run(&["--network", "tap=nowhere0", &image("busybox"), "true"]);
    run.assert_status(125).assert_reason("network-error").assert_one_line_naming(&["nowhere0"]);
}

fn panic_of_any_thread_ends_with_internal_error() {
    // mov dword [0xd0000070], 0xff; hlt: an invalid driver status, which coracle logs with the time.
    let nonsense = [0xc7, 0x05, 0x70, 0, 0, 0xd0, 0xff, 0, 0, 0, 0xf4, 0xeb, 0xfd];
    for thread in ["main", "prepare", "io", "disk-0", "vcpu-0"] {
        let dir = TestDir::new();
        let code = if thread == "vcpu-0" { &nonsense[..] } else { &HALT };
        let run = kernel(&dir, code, &["--timeout", "20"]).wrapped(&[&failing_calls(), thread]).finish();
        let message = format!("internal error: the thread {thread} panicked at ");
        run.assert_status(125).assert_reason("internal-error").assert_one_line_naming(&[&message]);
    }
}

fn panic_restores_the_terminal_and_leaves_a_failed_machine() {
    let dir = TestDir::new().keeping_machines();
    let pty = Pty::open(24, 80);
    let before = pty.modes();
    let run = kernel(&dir, &HALT, &["-it", "--name", "broken", "--timeout", "20"]);
    let run = run.wrapped(&["setsid", "--ctty", &failing_calls(), "main"]).stdin(Stdin::File(pty.terminal()));
    let run = run.stdout(pty.terminal()).stderr(pty.terminal()).finish();
    run.assert_status(125).assert_reason("internal-error");
    assert_eq!(pty.modes(), before, "the terminal's modes after the run");
    let shown = dir.verb("status", &["--json", "broken"]).finish().stdout_text();
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("it is JSON");
    assert_eq!((&shown["state"], &shown["end"]["reason"]), (&"failed".into(), &"internal-error".into()), "{shown}");
    dir.verb("wait", &["broken"]).finish().assert_status(0).assert_stdout("125\n");
}

fn crash_leaves_a_dead_machine() {
    let dir = TestDir::new().keeping_machines();
    let run = kernel(&dir, &HALT, &["--name", "crashed"]).start();
    let socket = dir.run_directory().join("crashed/control.sock");
    let deadline = Instant::now() + Duration::from_secs(20);
    while !socket.exists() {
        assert!(Instant::now() < deadline && !run.has_ended(), "no machine");
        std::thread::yield_now();
    }
    // Every other signal is the workload's.
    run.signal(Signal::KILL);
    let run = run.finish();
    assert_eq!(run.status.signal(), Some(Signal::KILL.as_raw()), "{}", run.report());
    let shown = dir.verb("ps", &["-a"]).finish().stdout_text();
    assert!(shown.contains("crashed") && shown.contains("Dead"), "{shown}");
    dir.verb("wait", &["crashed"]).finish().assert_status(125).assert_one_line_naming(&["crashed", "killed"]);
    dir.verb("rm", &["crashed"]).finish().assert_status(0).assert_stdout("crashed\n");
}

fn init_that_breaks_the_protocol_ends_with_guest_fault() {
    let dir = TestDir::new();
    let init = compile("invalid_init").display().to_string();
    let run = dir.run(&["--init-binary", &init, &image("busybox"), "true"]);
    run.assert_status(125).assert_reason("guest-fault").assert_one_line_naming(&["init"]);
}

fn guest_panic_prints_its_line_and_keeps_the_console() {
    let dir = TestDir::new();
    let script = "echo before; echo 1 > /proc/sys/vm/panic_on_oom; tail /dev/zero";
    let run = dir.run(&["-m", "128m", "--privileged", &image("busybox"), "sh", "-c", script]);
    run.assert_status(125).assert_reason("guest-panic").assert_stdout("before\n");
    assert!(run.stderr.starts_with("coracle: Kernel panic - not syncing: Out of memory"), "{}", run.report());
    assert_eq!(run.stderr.lines().count(), 1, "{}", run.report());
    let detail = run.result_at("/end/detail").as_str().unwrap_or_default().to_owned();
    assert!(detail.lines().count() > 3 && detail.contains("Call Trace"), "{}", run.report());
}

fn oom_kill_of_a_child_does_not_end_the_workload() {
    let dir = TestDir::new();
    let script = "tail /dev/zero; echo status $?";
    let run = dir.run(&["-m", "128m", &image("busybox"), "sh", "-c", script]);
    run.assert_status(0).assert_reason("exited");
    assert!(run.stdout_text().ends_with("status 137\n"), "{}", run.report());
}

fn reboot_and_poweroff_inside_are_end_reasons() {
    let dir = TestDir::new();
    for (command, reason) in [("reboot", "guest-reset"), ("poweroff", "guest-poweroff"), ("halt", "guest-poweroff")] {
        let script = format!("echo last words; {command} -f; sleep 1000");
        let run = dir.run(&[&image("busybox"), "sh", "-c", &script]);
        run.assert_status(0).assert_reason(reason).assert_stdout("last words\n").assert_stderr("");
    }
}

fn console_log_has_the_kernels_last_line() {
    let dir = TestDir::new();
    let script = "for i in $(seq 200); do echo line $i > /dev/kmsg; done; echo the very last > /dev/kmsg";
    let run = dir.run(&["--append", "loglevel=8", &image("busybox"), "sh", "-c", script]);
    run.assert_status(0);
    assert!(run.console.contains("the very last"), "{}", run.report());
}
