// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Ends that are not the workload's own: what the guest's kernel and the machine itself can come to. Those of a workload
//! are in `status.rs`, those of signals in `signals.rs`.

use coracle_tests::{Case, Elf, Finished, Place, case, image};
use std::time::Duration;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Quick[Kvm], a_kernel_that_resets_the_machine_ends_with_reason_guest_reset),
        case!(Quick[Kvm], a_triple_fault_ends_with_reason_triple_fault),
        case!(Quick[Kvm], an_instruction_that_kvm_cannot_execute_ends_with_reason_kvm_error),
        case!(Quick[Kvm], a_kernel_that_never_comes_up_is_ended_by_the_timeout),
        case!(Full, a_panic_shows_its_line_and_the_last_ones_of_the_console),
        case!(Full, a_child_killed_for_want_of_memory_does_not_end_the_workload),
        case!(Full, reboot_and_poweroff_asked_for_inside_are_reasons),
        case!(Full, what_the_kernel_says_last_is_in_the_console_log),
    ]
}

/// Runs a kernel that consists of this 32-bit code.
fn boot(place: &Place, code: &[u8], options: &[&str]) -> Finished {
    let kernel = place.write("kernel", Elf { code: code.to_vec(), ..Elf::default() }.to_bytes()).display().to_string();
    let image = image("busybox");
    let arguments = [&["--kernel", &kernel][..], options, &[&image, "true"]].concat();
    place.invocation(&arguments).limit(Duration::from_secs(30)).finish()
}

fn a_kernel_that_resets_the_machine_ends_with_reason_guest_reset() {
    let place = Place::new();
    // mov al, 0xfe; out 0x64, al; hlt
    let run = boot(&place, &[0xb0, 0xfe, 0xe6, 0x64, 0xf4, 0xeb, 0xfd], &[]);
    run.assert_status(125).assert_reason("guest-reset").assert_one_line_naming(&["reset"]);
}

fn a_triple_fault_ends_with_reason_triple_fault() {
    let place = Place::new();
    // push 0; push 0; lidt [esp]; int3: with a table of no entries there is nobody to report the fault to.
    let run = boot(&place, &[0xbc, 0, 0x80, 0, 0, 0x6a, 0, 0x6a, 0, 0x0f, 0x01, 0x1c, 0x24, 0xcc, 0xf4], &[]);
    run.assert_status(125).assert_reason("triple-fault").assert_one_line_naming(&["triple fault"]);
}

fn an_instruction_that_kvm_cannot_execute_ends_with_reason_kvm_error() {
    let place = Place::new();
    // mov eax, 0xd0008000; jmp eax: nothing is there.
    let run = boot(&place, &[0xb8, 0, 0x80, 0, 0xd0, 0xff, 0xe0], &["--timeout", "20"]);
    run.assert_status(125).assert_reason("kvm-error").assert_one_line_naming(&["KVM"]);
}

fn a_kernel_that_never_comes_up_is_ended_by_the_timeout() {
    let place = Place::new();
    let run = boot(&place, &[0xf4, 0xeb, 0xfd], &["--timeout", "1"]);
    run.assert_status(137).assert_reason("timeout").assert_one_line_naming(&["1 s"]);
}

fn a_panic_shows_its_line_and_the_last_ones_of_the_console() {
    let place = Place::new();
    let script = "echo before; echo 1 > /proc/sys/vm/panic_on_oom; tail /dev/zero";
    let run = place.run(&["-m", "128m", &image("busybox"), "sh", "-c", script]);
    run.assert_status(125).assert_reason("guest-panic").assert_stdout("before\n");
    assert!(run.stderr.starts_with("coracle: Kernel panic - not syncing: Out of memory"), "{}", run.report());
    assert_eq!(run.stderr.lines().count(), 1, "{}", run.report());
    let detail = run.result_at("/end/detail").as_str().unwrap_or_default().to_owned();
    assert!(detail.lines().count() > 3 && detail.contains("Call Trace"), "{}", run.report());
}

fn a_child_killed_for_want_of_memory_does_not_end_the_workload() {
    let place = Place::new();
    let script = "tail /dev/zero; echo status $?";
    let run = place.run(&["-m", "128m", &image("busybox"), "sh", "-c", script]);
    run.assert_status(0).assert_reason("exited");
    assert!(run.stdout_text().ends_with("status 137\n"), "{}", run.report());
}

fn reboot_and_poweroff_asked_for_inside_are_reasons() {
    let place = Place::new();
    for (command, reason) in [("reboot", "guest-reset"), ("poweroff", "guest-poweroff"), ("halt", "guest-poweroff")] {
        let script = format!("echo last words; {command} -f; sleep 1000");
        let run = place.run(&[&image("busybox"), "sh", "-c", &script]);
        run.assert_status(0).assert_reason(reason).assert_stdout("last words\n").assert_stderr("");
    }
}

fn what_the_kernel_says_last_is_in_the_console_log() {
    let place = Place::new();
    let script = "for i in $(seq 200); do echo line $i > /dev/kmsg; done; echo the very last > /dev/kmsg";
    let run = place.run(&["--append", "loglevel=8", &image("busybox"), "sh", "-c", script]);
    run.assert_status(0);
    assert!(run.console.contains("the very last"), "{}", run.report());
}
