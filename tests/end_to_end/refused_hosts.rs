// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Hosts that lack something: one line names what is missing, and nothing is left.

use coracle_tests::{Case, Invocation, TestDir, case, coracle, image};
use std::fs;
use std::path::Path;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Quick[Kvm, Root], missing_dev_kvm_is_named),
        case!(Quick[Kvm, Root], dev_kvm_of_another_kind_is_rejected),
        case!(Quick[Kvm, Root], dev_kvm_without_permission_names_the_group),
        case!(Quick[Kvm], missing_guest_kernel_is_named_with_the_places),
        case!(Quick[Kvm], missing_temporary_directory_is_named),
        case!(Quick[Kvm], limit_on_open_files_is_named),
        case!(Quick, small_stack_changes_nothing),
        case!(Full, few_open_files_are_enough_or_named),
        case!(Full, environment_with_a_path_alone_is_enough),
        case!(Quick[Kvm, Root], check_prints_what_is_missing),
    ]
}

/// Runs it in its own mount namespace, after `script`.
fn in_namespace(invocation: Invocation, script: &str) -> Invocation {
    invocation.wrapped(&["unshare", "--mount", "sh", "-c", &format!("{script} && exec \"$@\""), "sh"])
}

const HIDE_KVM: &str = "mount -t tmpfs none /dev && mknod /dev/null c 1 3 && mknod /dev/urandom c 1 9";

fn missing_dev_kvm_is_named() {
    let dir = TestDir::new();
    let run = in_namespace(dir.invocation(&[&image("busybox"), "true"]), HIDE_KVM).finish();
    run.assert_status(125).assert_one_line_naming(&["/dev/kvm"]);
    assert!(matches!(run.result_at("/end/reason").as_str(), Some("kvm-error" | "host-error")), "{}", run.report());
}

fn dev_kvm_of_another_kind_is_rejected() {
    let dir = TestDir::new();
    let invocation = dir.invocation(&[&image("busybox"), "true"]);
    let run = in_namespace(invocation, "mount --bind /dev/zero /dev/kvm").finish();
    run.assert_status(125).assert_one_line_naming(&["/dev/kvm"]);
}

fn dev_kvm_without_permission_names_the_group() {
    let dir = TestDir::new();
    // Another user may not read root's directories: copy the binary and the files beside it.
    for name in ["coracle", "vmlinux", "coracle-init"] {
        dir.copy_program(&coracle().with_file_name(name), name);
    }
    let open = format!("chmod -R a+rwX {} && exec \"$@\"", dir.path().display());
    let unprivileged = ["sh", "-c", &open, "sh", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let invocation = dir.invocation(&["oci:/nowhere", "true"]).program(dir.file("coracle"));
    let run = invocation.env("XDG_CACHE_HOME", dir.file("cache")).wrapped(&unprivileged).finish();
    let open_to_all = fs::metadata("/dev/kvm")
        .is_ok_and(|metadata| std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o006 == 0o006);
    run.assert_status(125);
    if !open_to_all {
        run.assert_one_line_naming(&["/dev/kvm", "group"]);
    }
}

fn missing_guest_kernel_is_named_with_the_places() {
    let dir = TestDir::new();
    let alone = dir.copy_program(coracle(), "coracle");
    let run = dir.invocation(&[&image("busybox"), "true"]).program(alone).finish();
    if Path::new("/usr/lib/coracle/vmlinux").exists() || Path::new("/usr/local/lib/coracle/vmlinux").exists() {
        return;
    }
    run.assert_status(125).assert_reason("kernel-error").assert_one_line_naming(&["vmlinux", "--kernel"]);
}

fn missing_temporary_directory_is_named() {
    let dir = TestDir::new();
    let run = dir.invocation(&[&image("busybox"), "true"]).env("TMPDIR", "/nowhere/tmp").finish();
    run.assert_status(125).assert_reason("host-error").assert_one_line_naming(&["/nowhere/tmp"]);
}

fn limit_on_open_files_is_named() {
    let dir = TestDir::new();
    for limit in ["ulimit -n 4", "ulimit -n 5", "ulimit -n 8"] {
        let limited = ["sh", "-c", &format!("{limit}; exec \"$@\""), "sh"];
        let run = dir.invocation(&[&image("busybox"), "true"]).wrapped(&limited).finish();
        run.assert_status(125).assert_one_line_naming(&["open files"]);
        let left = std::fs::read_dir(dir.run_directory()).map_or(0, Iterator::count);
        assert_eq!(left, 0, "{limit}: {}", run.report());
    }
}

/// A caller's limit may be far below what the main thread needs.
fn small_stack_changes_nothing() {
    let dir = TestDir::new();
    let limited = |limit: &str| {
        let limited = ["bash", "-c", &format!("{limit}; exec \"$@\""), "bash"];
        dir.invocation(&["oci:/nowhere", "true"]).wrapped(&limited).finish()
    };
    limited("ulimit -Ss 64").assert_status(125).assert_one_line_naming(&["/nowhere"]);
    // Whether the hard limit can be raised depends on capabilities.
    let hard = limited("ulimit -s 64");
    hard.assert_status(125).assert_one_line_naming(&[if hard.stderr.contains("/nowhere") {
        "/nowhere"
    } else {
        "64 KiB"
    }]);
}

/// Descriptors may run out at any point of a start, but never leave a machine that hangs. A run that lacks the last one, for a
/// file of its status, prints that as a warning.
fn few_open_files_are_enough_or_named() {
    let dir = TestDir::new();
    let limited = ["sh", "-c", "ulimit -n 54; exec \"$@\"", "sh"];
    let run = dir.invocation(&[&image("busybox"), "true"]).wrapped(&limited).finish();
    if !run.status.success() {
        run.assert_status(125);
    }
    if !run.status.success() || !run.stderr.is_empty() {
        run.assert_one_line_naming(&["open files"]);
    }
}

fn environment_with_a_path_alone_is_enough() {
    let dir = TestDir::new();
    let bare = ["sh", "-c", "exec env -i PATH=\"$PATH\" \"$@\"", "sh"];
    let run = dir.invocation(&[&image("busybox"), "env"]).wrapped(&bare).finish();
    run.assert_status(0);
    assert!(run.stdout_text().lines().any(|line| line == "HOME=/root"), "{}", run.report());
}

fn check_prints_what_is_missing() {
    let dir = TestDir::new();
    let complete = dir.invocation(&[&image("busybox")]).verb("check").finish();
    complete.assert_status(0);
    let lacking = in_namespace(dir.invocation(&[&image("busybox")]).verb("check"), HIDE_KVM).finish();
    lacking.assert_status(125);
    assert!(lacking.stdout_text().contains("/dev/kvm"), "{}", lacking.report());
}
