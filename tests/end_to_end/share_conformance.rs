// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Files of the host in the guest answer system calls as they do on the host: `tests/guest/file_operations.c` makes the same calls
//! in both places, and prints the same lines.

use crate::root_directory::unpacked;
use coracle_tests::{Case, Finished, TestDir, case, compile, image};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Full[Root], calls_in_a_share_have_the_results_of_the_host),
        case!(Full[Root], calls_in_a_root_directory_have_the_results_of_the_host),
        case!(Full[Root], calls_in_a_share_of_a_user_have_the_results_of_the_host),
        case!(Full, file_of_a_share_holds_what_calls_and_mappings_write),
        case!(Full, directory_of_100000_entries_is_listed_once_each),
    ]
}

/// What a share answers in its own way: it makes no device nodes; the guest's driver passes on no whiteout, which is one; and
/// attributes other than `user.` would be the host's.
const DIFFERENCES: [(&str, &str); 3] =
    [("mknod", "= -1 EPERM"), ("renameat2", "= -1 EINVAL"), ("setxattr", "= -1 EOPNOTSUPP")];

/// The output of a program on the host.
fn on_the_host(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("lines of text")
}

/// A new directory among the test's files that everybody may change.
fn directory(dir: &TestDir, name: &str) -> PathBuf {
    let path = dir.file(name);
    fs::create_dir(&path).expect("the test's directory is writable");
    path
}

/// The program, and the sysctls of the host which decide about links, FIFOs and files in shared directories.
fn with_sysctls_of_the_host(call: &str) -> String {
    let mut script = String::new();
    for name in ["hardlinks", "symlinks", "regular", "fifos"] {
        let path = format!("/proc/sys/fs/protected_{name}");
        let value = fs::read_to_string(&path).expect("/proc is mounted");
        script += &format!("echo {} >{path} || exit 99; ", value.trim());
    }
    script + "exec " + call
}

/// Each line of the guest is that of the host, but for the known differences.
fn compare(run: &Finished, expected: &str) {
    run.assert_status(0);
    let found = run.stdout_text();
    let mut differences = DIFFERENCES.iter();
    for (host, guest) in expected.lines().zip(found.lines()) {
        if host.starts_with("differs ") {
            let (call, result) = differences.next().expect("a difference is known");
            assert!(host.contains(call) && guest.ends_with(result), "{guest}");
        } else {
            assert_eq!(guest, host);
        }
    }
    assert_eq!(found.lines().count(), expected.lines().count());
}

fn assert_same_trees(program: &Path, one: &Path, two: &Path) {
    let tree = |path: &Path| on_the_host(Command::new(program).arg("list").arg(path));
    assert_eq!(tree(one), tree(two));
}

fn calls_in_a_share_have_the_results_of_the_host() {
    let dir = TestDir::new();
    let program = compile("file_operations");
    let (host, shared) = (directory(&dir, "host"), directory(&dir, "shared"));
    let expected = on_the_host(Command::new(&program).arg("run").arg(&host).args(["1", "2000"]));
    assert!(expected.lines().count() > 2500, "{}", expected.lines().count());
    let (share, binary) = (format!("{}:/d", shared.display()), format!("{}:/program:ro", program.display()));
    let script = with_sysctls_of_the_host("/program run /d 1 2000");
    let run = dir.run(&["--privileged", "-v", &share, "-v", &binary, &image("busybox"), "sh", "-c", &script]);
    compare(&run, &expected);
    assert_same_trees(&program, &shared, &host);
}

fn calls_in_a_root_directory_have_the_results_of_the_host() {
    let dir = TestDir::new();
    let program = compile("file_operations");
    let (host, root) = (directory(&dir, "host"), unpacked(&dir));
    fs::create_dir(root.join("d")).expect("it is writable");
    fs::copy(&program, root.join("program")).expect("it is writable");
    let expected = on_the_host(Command::new(&program).arg("run").arg(&host).args(["2", "1000"]));
    let script = with_sysctls_of_the_host("/program run /d 2 1000");
    let run = dir.run(&["--privileged", "--rootfs", &root.display().to_string(), "sh", "-c", &script]);
    compare(&run, &expected);
    assert_same_trees(&program, &root.join("d"), &host);
}

/// In the guest root has the user's files. So many calls that none is a `chown` which changes neither owner nor group: its request does not
/// tell the host, which keeps set-id bits.
fn calls_in_a_share_of_a_user_have_the_results_of_the_host() {
    let dir = TestDir::new();
    dir.copy_product();
    dir.copy_program(&compile("file_operations"), "program");
    let (host, shared) = (directory(&dir, "host"), directory(&dir, "shared"));
    let program = dir.file("program");
    for path in [&host, &shared] {
        std::os::unix::fs::chown(path, Some(1000), Some(1000)).expect("the test is root");
    }
    let user = ["--reuid=1000", "--regid=1000", "--clear-groups"];
    let (share, binary) = (format!("{}:/d", shared.display()), format!("{}:/program:ro", program.display()));
    let script = with_sysctls_of_the_host("/program alone /d 3 900");
    let image = dir.copied_image();
    let words = ["--privileged", "--network", "none", "-v", &share, "-v", &binary, &image, "sh", "-c", &script];
    let as_user = dir.as_user();
    let wrapper: Vec<&str> = ["unshare", "-m"].into_iter().chain(as_user.iter().map(String::as_str)).collect();
    let run = dir.invocation(&words).of_copy(&dir).wrapped(&wrapper).finish();
    let mut on_host = Command::new("setpriv");
    let expected = on_the_host(on_host.args(user).arg(&program).arg("alone").arg(&host).args(["3", "900"]));
    compare(&run, &expected);
    assert_same_trees(&program, &shared, &host);
}

fn file_of_a_share_holds_what_calls_and_mappings_write() {
    let dir = TestDir::new();
    let (program, shared) = (compile("file_model"), directory(&dir, "shared"));
    let (share, binary) = (format!("{}:/d", shared.display()), format!("{}:/program:ro", program.display()));
    // The host changes the file afterwards, and the guest sees it within a second.
    let script = "/program /d/f 1 1000 && until grep -q changed /d/f; do sleep 0.2; done; echo seen";
    let mut running = dir.start(&["-v", &share, "-v", &binary, &image("busybox"), "sh", "-c", script]);
    running.wait_for_stdout("\n");
    let file = shared.join("f");
    let bytes = fs::read(&file).expect("the guest made it");
    let digest = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |digest, &byte| (digest ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    fs::write(&file, "changed\n").expect("it is ours");
    let expected = format!("{} {digest:016x}\nseen\n", bytes.len());
    running.finish().assert_status(0).assert_stdout(&expected);
}

fn directory_of_100000_entries_is_listed_once_each() {
    let dir = TestDir::new();
    let (program, shared) = (compile("file_operations"), directory(&dir, "shared"));
    for number in 0..100_000 {
        let name = if number % 500 == 0 { format!("removed-{number}") } else { format!("entry-{number}") };
        File::create(shared.join(name)).expect("it is writable");
    }
    let (share, binary) = (format!("{}:/d", shared.display()), format!("{}:/program:ro", program.display()));
    let run = dir.run(&["-v", &share, "-v", &binary, &image("busybox"), "/program", "count", "/d"]);
    run.assert_status(0);
    // With `.` and `..`.
    let after = on_the_host(Command::new(&program).arg("count").arg(&shared));
    assert!(after.starts_with("99802 "), "{after}");
    let (output, after) = (run.stdout_text(), after.lines().next().expect("a line"));
    let lines: Vec<&str> = output.lines().collect();
    assert!(lines[0].starts_with("100002 ") && lines[1] == after, "{}", run.report());
}
