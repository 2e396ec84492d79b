// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Sizes: numbers of vCPUs, memory from the minimum to above 4 GiB, all images, several machines at once.

use crate::life_cycle::status;
use coracle_tests::{Case, Finished, Host, Kvm, Stdin, TestDir, case, image};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Full, each_vcpu_runs_its_own_task),
        case!(Smoke, default_memory_depends_on_the_kind_of_kvm),
        case!(Full, memory_size_is_as_requested_around_the_hole),
        case!(Full, memory_above_4_gib_keeps_what_is_written),
        case!(Full, python_and_redis_run_with_1_2_and_4_vcpus),
        case!(Full, six_machines_run_at_once),
    ]
}

fn each_vcpu_runs_its_own_task() {
    let dir = TestDir::new();
    // Each task spins until all of them run: the test would not end if a vCPU did not run or tasks were not migrated.
    let script = "mkdir /tmp/up; for i in 0 1 2 3; do (until [ -e /tmp/go ]; do :; done; touch /tmp/up/$i) & done; \
                  touch /tmp/go; wait; ls /tmp/up | wc -l; grep -c ^cpu[0-9] /proc/stat";
    let run = dir.run(&["--cpus", "4", "-m", "256m", &image("busybox"), "sh", "-c", script]);
    run.assert_status(0).assert_stdout("4\n4\n");
}

/// The size that the guest's kernel prints is what is left of `mebibytes`.
fn assert_memory(run: &Finished, mebibytes: u64) {
    let line = run.stdout_text().lines().find(|line| line.starts_with("MemTotal:")).map(str::to_owned);
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    let kib = kib.unwrap_or_else(|| panic!("no size\n{}", run.report()));
    // The kernel reserves its image, its page descriptors, and bounce buffers where there is memory above 4 GiB.
    let bounce_buffers = if mebibytes > 3072 { 64 << 10 } else { 0 };
    let least = (mebibytes << 10) - (20 << 10) - (mebibytes << 10) / 32 - bounce_buffers;
    assert!(kib > least && kib < mebibytes << 10, "{mebibytes} MiB: {kib} KiB\n{}", run.report());
}

fn default_memory_depends_on_the_kind_of_kvm() {
    let dir = TestDir::new().keeping_machines();
    let mebibytes = if Host::detect().kvm == Kvm::Native { 512 } else { 256 };
    let run = dir.invocation(&["--name", "usual", &image("busybox"), "grep", "MemTotal:", "/proc/meminfo"]);
    let run = run.default_memory().finish();
    assert_memory(run.assert_status(0), mebibytes);
    assert_eq!(status(&dir, "usual")["memory_bytes"], mebibytes << 20);
    let check = dir.verb("check", &[&image("busybox"), "true"]).default_memory().finish();
    let line = format!("{mebibytes}m of memory");
    assert!(check.assert_status(0).stdout_text().contains(&line), "{}", check.report());
}

fn memory_size_is_as_requested_around_the_hole() {
    let dir = TestDir::new();
    for (option, mebibytes) in [("64m", 64), ("512m", 512), ("3584m", 3584)] {
        let run = dir.run(&["-m", option, &image("busybox"), "grep", "MemTotal:", "/proc/meminfo"]);
        assert_memory(run.assert_status(0), mebibytes);
    }
}

fn memory_above_4_gib_keeps_what_is_written() {
    let dir = TestDir::new();
    // The kernel allocates memory above 4 GiB first.
    let script = "head -c 64m /dev/urandom > /dev/shm/a && cp /dev/shm/a /tmp/b && cmp /dev/shm/a /tmp/b && echo same; \
                  dmesg | grep -q 'mem 0x0000000100000000-.*usable' && echo above; grep MemTotal: /proc/meminfo";
    let run = dir.run(&["-m", "5g", "--cpus", "2", "--scratch", "tmpfs", &image("busybox"), "sh", "-c", script]);
    assert!(run.stdout_text().starts_with("same\nabove\nMemTotal:"), "{}", run.report());
    assert_memory(run.assert_status(0), 5120);
}

fn python_and_redis_run_with_1_2_and_4_vcpus() {
    let dir = TestDir::new();
    for cpus in ["1", "2", "4"] {
        let options = ["--cpus", cpus, "-m", "256m"];
        let program = "import os; print(6 * 7, os.cpu_count())";
        let python = dir.run(&[&options[..], &["--entrypoint", "python3", &image("python"), "-c", program]].concat());
        python.assert_status(0).assert_stdout(&format!("42 {cpus}\n")).assert_stderr("");
        let redis = dir.run(&[&options[..], &["--entrypoint", "redis-server", &image("redis"), "--version"]].concat());
        redis.assert_status(0);
        assert!(redis.stdout_text().starts_with("Redis server"), "{}", redis.report());
    }
}

fn six_machines_run_at_once() {
    let dir = TestDir::new();
    let script = |number: usize| format!("echo machine {number}; hostname; read line; echo $line {number}");
    let runs: Vec<_> = (0..6)
        .map(|number| {
            let name = format!("machine-{number}");
            let words = ["-i", "--rm", "--name", &name, &image("busybox"), "sh", "-c", &script(number)];
            let mut run = dir.invocation(&words).stdin(Stdin::Pipe).start();
            run.send("typed\n");
            run
        })
        .collect();
    for (number, run) in runs.into_iter().enumerate() {
        let run = run.finish();
        run.assert_status(0);
        run.assert_stdout(&format!("machine {number}\nmachine-{number}\ntyped {number}\n"));
    }
}
