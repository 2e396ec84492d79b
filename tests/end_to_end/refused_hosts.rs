// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Hosts that lack something: the line says what is missing, and nothing is left.

use coracle_tests::{Case, Invocation, Place, case, coracle, image};
use std::fs;
use std::path::Path;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Quick[Kvm, Root], without_dev_kvm_the_line_says_so),
        case!(Quick[Kvm, Root], a_dev_kvm_that_is_something_else_is_refused),
        case!(Quick[Kvm, Root], without_permission_for_dev_kvm_the_line_says_how_to_get_it),
        case!(Quick[Kvm], a_guest_kernel_that_is_nowhere_is_refused_with_the_places),
        case!(Quick[Kvm], a_full_or_missing_temporary_folder_is_named),
        case!(Quick[Kvm], a_limit_on_open_files_is_named),
        case!(Quick[Kvm, Root], check_says_what_is_missing),
    ]
}

/// In a mount namespace of its own, where `script` has changed what is there.
fn in_namespace(invocation: Invocation, script: &str) -> Invocation {
    invocation.wrapped(&["unshare", "--mount", "sh", "-c", &format!("{script} && exec \"$@\""), "sh"])
}

const HIDE_KVM: &str = "mount -t tmpfs none /dev && mknod /dev/null c 1 3 && mknod /dev/urandom c 1 9";

fn without_dev_kvm_the_line_says_so() {
    let place = Place::new();
    let run = in_namespace(place.invocation(&[&image("busybox"), "true"]), HIDE_KVM).finish();
    run.assert_status(125).assert_one_line_naming(&["/dev/kvm"]);
    assert!(matches!(run.result_at("/end/reason").as_str(), Some("kvm-error" | "host-error")), "{}", run.report());
}

fn a_dev_kvm_that_is_something_else_is_refused() {
    let place = Place::new();
    let invocation = place.invocation(&[&image("busybox"), "true"]);
    let run = in_namespace(invocation, "mount --bind /dev/zero /dev/kvm").finish();
    run.assert_status(125).assert_one_line_naming(&["/dev/kvm"]);
}

fn without_permission_for_dev_kvm_the_line_says_how_to_get_it() {
    let place = Place::new();
    // Nobody may read root's folders: the binary and its surroundings come along.
    for name in ["coracle", "vmlinux", "coracle-init"] {
        place.copy_program(&coracle().with_file_name(name), name);
    }
    let open = format!("chmod -R a+rwX {} && exec \"$@\"", place.path().display());
    let nobody = ["sh", "-c", &open, "sh", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let invocation = place.invocation(&["oci:/nowhere", "true"]).program(place.file("coracle"));
    let run = invocation.env("XDG_CACHE_HOME", place.file("cache")).wrapped(&nobody).finish();
    let open_to_all = fs::metadata("/dev/kvm")
        .is_ok_and(|metadata| std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o006 == 0o006);
    run.assert_status(125);
    if !open_to_all {
        run.assert_one_line_naming(&["/dev/kvm", "group"]);
    }
}

fn a_guest_kernel_that_is_nowhere_is_refused_with_the_places() {
    let place = Place::new();
    let alone = place.copy_program(coracle(), "coracle");
    let run = place.invocation(&[&image("busybox"), "true"]).program(alone).finish();
    if Path::new("/usr/share/coracle/vmlinux").exists() || Path::new("/usr/local/share/coracle/vmlinux").exists() {
        return;
    }
    run.assert_status(125).assert_reason("kernel-error").assert_one_line_naming(&["vmlinux", "--kernel"]);
}

fn a_full_or_missing_temporary_folder_is_named() {
    let place = Place::new();
    let run = place.invocation(&[&image("busybox"), "true"]).env("TMPDIR", "/nowhere/tmp").finish();
    run.assert_status(125).assert_reason("host-error").assert_one_line_naming(&["/nowhere/tmp"]);
}

fn a_limit_on_open_files_is_named() {
    let place = Place::new();
    let limited = ["sh", "-c", "ulimit -n 8; exec \"$@\"", "sh"];
    let run = place.invocation(&[&image("busybox"), "true"]).wrapped(&limited).finish();
    run.assert_status(125).assert_one_line_naming(&["open files"]);
}

fn check_says_what_is_missing() {
    let place = Place::new();
    let whole = place.invocation(&[&image("busybox")]).verb("check").finish();
    whole.assert_status(0);
    let lacking = in_namespace(place.invocation(&[&image("busybox")]).verb("check"), HIDE_KVM).finish();
    lacking.assert_status(125);
    assert!(lacking.stdout_text().contains("/dev/kvm"), "{}", lacking.report());
}
