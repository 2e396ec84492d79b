// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Kernels of other origin: Debian's cloud kernel as it is installed (a bzImage, with drivers and file systems as modules), and
//! one with the options that Firecracker recommends (ACPI only, no EROFS). Both find their devices by ACPI.

use coracle_tests::{Case, FIRECRACKER_KERNEL, TestDir, case, foreign_kernel, image, kernel};
use std::os::unix::net::UnixListener;
use std::time::Duration;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Full[Kernels], debian_cloud_kernel_boots_with_its_modules),
        case!(Full[FirecrackerKernel], kernel_with_firecrackers_options_boots),
        case!(Full[Kernels], panic_and_power_off_go_through_acpi),
        case!(Full[Kernels], foreign_kernel_without_scratch_needs_no_ext4),
        case!(Quick[Kvm, Kernels], missing_modules_are_rejected),
        case!(Quick[Kvm, Kernels], check_prints_what_a_kernel_has),
        case!(Full[Kernels], invalid_module_is_named_with_its_error),
        case!(Full, kernel_without_a_driver_gets_a_hint),
    ]
}

fn debian() -> String {
    foreign_kernel("debian-cloud/vmlinuz")
}

/// Each kernel has some of these parameters and lacks others; those that it has hold docker's values. So do the limits.
const DEFAULTS: &str = "for file in net/ipv4/ip_unprivileged_port_start net/ipv4/ping_group_range kernel/pid_max fs/inotify/max_user_watches \
     fs/epoll/max_user_watches; do cat /proc/sys/$file 2>/dev/null || echo none; done; ulimit -u; ulimit -n; ulimit -Hn; \
     (echo x >/proc/sys/kernel/pid_max) 2>/dev/null || echo read-only; ip -o address show eth0 | grep -c 10.9.0.2/24";
const DEFAULT_VALUES: [&[&str]; 10] = [
    &["0"],
    &["0\t2147483647"],
    &["4194304"],
    &["1048576", "none"],
    &["4194304", "none"],
    &["unlimited"],
    &["1024"],
    &["524288"],
    &["read-only"],
    &["1"],
];

/// Boots `kernel` with each number of vCPUs, and checks the release, the number of processors and docker's defaults inside.
fn boots(kernel: &str, release: &str, numbers: &[&str]) {
    let dir = TestDir::new();
    let peer = dir.file("peer");
    let _listener = UnixListener::bind(&peer).expect("a socket");
    // A kernel without IPv6 has the interface's IPv4 address only.
    let network = format!("socket={},ip=10.9.0.2/24,gw=10.9.0.1,ip=fd00:9::2/64,gw=fd00:9::1", peer.display());
    for &cpus in numbers {
        let script = format!("uname -r; nproc; cat /proc/cmdline; {DEFAULTS}");
        let options = ["--kernel", kernel, "-m", "256m", "--cpus", cpus, "--network", &network];
        let run = dir.run(&[&options[..], &[&image("busybox"), "sh", "-c", &script]].concat());
        run.assert_status(0).assert_reason("exited").assert_stderr("");
        let output = run.stdout_text();
        let mut lines = output.lines();
        assert!(lines.next().is_some_and(|line| line.contains(release)), "{output}");
        assert_eq!(lines.next(), Some(cpus));
        assert!(lines.next().is_some_and(|line| !line.contains("virtio_mmio.device")), "{output}");
        for values in DEFAULT_VALUES {
            assert!(lines.next().is_some_and(|line| values.contains(&line)), "{values:?} expected in {output}");
        }
    }
}

fn debian_cloud_kernel_boots_with_its_modules() {
    boots(&debian(), "-cloud-amd64", &["1", "4"]);
}

fn kernel_with_firecrackers_options_boots() {
    let kernel = foreign_kernel(FIRECRACKER_KERNEL);
    boots(&kernel, "6.12", &["2"]);
    starts_without_scratch(&kernel);
    let found = check(&kernel);
    assert!(found.contains("vmlinux 6.12") && found.contains("devices by ACPI"), "{found}");
}

fn panic_and_power_off_go_through_acpi() {
    let dir = TestDir::new();
    let run = |script: &str| {
        let image = image("busybox");
        // The other kernel has no sysrq trigger.
        let options = ["--kernel", &debian(), "-m", "256m", "--timeout", "60", "--privileged"];
        dir.run(&[&options[..], &[&image, "sh", "-c", script]].concat())
    };
    // The kernel's own power-off, without PID 1, writes \_S5 to the sleep control register.
    run("echo o > /proc/sysrq-trigger; sleep 20").assert_status(0).assert_reason("guest-poweroff");
    // A restart, after a panic or by the kernel itself, writes the FADT's reset register.
    run("echo c > /proc/sysrq-trigger").assert_status(125).assert_reason("guest-panic");
    run("echo b > /proc/sysrq-trigger; sleep 20").assert_status(125).assert_reason("guest-reset");
}

fn foreign_kernel_without_scratch_needs_no_ext4() {
    starts_without_scratch(&debian());
}

fn starts_without_scratch(kernel: &str) {
    let options = ["--kernel", kernel, "-m", "256m", "--scratch", "none"];
    let run = TestDir::new().run(&[&options[..], &[&image("busybox"), "echo", "here"]].concat());
    run.assert_status(0).assert_stdout("here\n");
}

fn missing_modules_are_rejected() {
    let dir = TestDir::new();
    // Without its modules the same kernel cannot drive its devices.
    let alone = dir.file("vmlinuz");
    std::fs::copy(debian(), &alone).expect("the kernel is readable");
    let alone = alone.display().to_string();
    let refuse = |options: &[&str], objects: &[&str]| {
        let image = image("busybox");
        let arguments = [&["--kernel", &alone, "-m", "256m"][..], options, &[&image, "true"]].concat();
        let run = dir.run(&arguments);
        run.assert_status(125).assert_reason("kernel-error").assert_one_line_naming(objects);
    };
    refuse(&[], &[&alone, "CONFIG_VIRTIO_MMIO", "--modules"]);
    let empty = dir.path().display().to_string();
    refuse(&["--modules", &empty], &["--modules", &empty, "modules.dep"]);
    let table = dir.write("modules.dep", "kernel/virtio_mmio.ko:\n");
    let directory = table.parent().expect("it has a parent").display().to_string();
    refuse(&["--modules", &directory], &["virtio_console", &directory]);
}

fn check_prints_what_a_kernel_has() {
    let debian = check(&debian());
    assert!(
        debian.contains("bzImage 6.") && debian.contains("devices by ACPI") && debian.contains("modules in "),
        "{debian}"
    );
}

/// What `coracle check` says of a kernel.
fn check(kernel: &str) -> String {
    let run = TestDir::new().invocation(&["--kernel", kernel, "-m", "256m"]).verb("check").finish();
    run.assert_status(0);
    run.stdout_text()
}

fn invalid_module_is_named_with_its_error() {
    let dir = TestDir::new();
    // All other drivers count as built in. The one module is an ELF file with no more than its magic number.
    dir.write("modules.dep", "virtio_mmio.ko:\n");
    let names = ["virtio_console", "virtio_blk", "erofs", "squashfs", "overlay", "ext4"];
    dir.write("modules.builtin", names.map(|name| format!("kernel/{name}.ko\n")).concat());
    dir.write("virtio_mmio.ko", b"\x7fELF and nothing behind it");
    let directory = dir.path().join("files").display().to_string();
    let run = dir.run(&["--kernel", &debian(), "--modules", &directory, "-m", "256m", &image("busybox"), "true"]);
    run.assert_status(125).assert_one_line_naming(&["load module", "virtio_mmio", "errno 8"]);
}

fn kernel_without_a_driver_gets_a_hint() {
    let dir = TestDir::new();
    // The driver's name is gone from the image, and the driver never registers.
    let mut kernel = std::fs::read(kernel()).expect("the kernel is readable");
    let (name, other) = (b"\0virtio_console\0", b"\0virtio_c0ns0le\0");
    let mut at = 0;
    while let Some(found) = kernel[at..].windows(name.len()).position(|window| window == name) {
        at += found;
        kernel[at..at + name.len()].copy_from_slice(other);
    }
    let kernel = dir.write("vmlinux", kernel).display().to_string();
    let append = "initcall_blacklist=virtio_console_init";
    let arguments = ["--kernel", &kernel, "--append", append, "--timeout", "10", &image("busybox"), "true"];
    let run = dir.invocation(&arguments).limit(Duration::from_secs(60)).finish();
    run.assert_status(137).assert_reason("timeout");
    let named = |option| run.stderr.contains(option);
    assert!(named("CONFIG_VIRTIO_CONSOLE") && !named("CONFIG_VIRTIO_BLK"), "{}", run.report());
}
