// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Vector registers survive preemption, system calls, signals, forks and threads. Where the host emulates guest kernel mode,
//! coracle itself saves and restores them at each switch.

use coracle_tests::{Case, Host, Kvm, Selection, TestDir, case, compile, file_system};

pub(crate) fn cases() -> Vec<Case> {
    vec![case!(Smoke, tasks_on_one_vcpu_keep_their_registers), case!(Smoke, tasks_on_two_vcpus_keep_their_registers)]
}

fn tasks_on_one_vcpu_keep_their_registers() {
    keep_registers("1", 3);
}

fn tasks_on_two_vcpus_keep_their_registers() {
    keep_registers("2", 4);
}

fn keep_registers(cpus: &str, tasks: u64) {
    let threads = 2;
    // Sixteen rounds take seconds on a processor, real or emulated. Where only kernel mode is emulated eight take a minute on a
    // slow host.
    let rounds = match Host::detect() {
        Host { selection: Selection::All, .. } => 400,
        Host { kvm: Kvm::Software, .. } => 8,
        _ => 16,
    };
    let dir = TestDir::new();
    let disk = dir.file("root.ext4");
    file_system(&disk, 16, &[(&compile("vector_state"), "/vector_state")]);
    let run = dir.run(&[
        "--cpus",
        cpus,
        "--scratch",
        "tmpfs",
        "--rootfs",
        &disk.display().to_string(),
        "/vector_state",
        &tasks.to_string(),
        &threads.to_string(),
        &rounds.to_string(),
        "8000000",
    ]);
    run.assert_status(0).assert_stderr("");
    let all = tasks * threads * rounds;
    let line = run.stdout_text();
    // Where coracle saves them, the guest has all registers of the processor; elsewhere those that KVM offers.
    let flags = std::fs::read_to_string("/proc/cpuinfo").expect("/proc is mounted");
    if Host::detect().kvm == Kvm::Software {
        let widest = ["avx512f", "avx", "sse"].into_iter().find(|name| flags.contains(&format!(" {name} ")));
        let widest = widest.expect("every x86-64 processor has SSE").trim_end_matches('f');
        assert!(line.starts_with(&format!("registers={widest} ")), "{}", run.report());
    }
    assert!(line.contains(&format!(" rounds={all} ")), "rounds\n{}", run.report());
    assert!(line.contains(&format!(" forks={} ", all / 8)), "forks\n{}", run.report());
    assert!(!line.contains(" signals=0 "), "no signals arrived\n{}", run.report());
    assert!(line.ends_with(" failed=0 mismatches=0\n"), "{}", run.report());
}
