// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A directory of the host as the root file system: `--rootfs DIR`.

use coracle_tests::{Case, TestDir, blob, case, document, image};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Full[Root], root_directory_is_written_and_file_systems_of_the_kernel_are_closed),
        case!(Full[Root], read_only_root_directory_stays_as_it_is),
        case!(Quick[Kvm], unusable_root_directories_are_rejected_as_check_does),
    ]
}

/// The files of the image `busybox` in a new directory.
pub(crate) fn unpacked(dir: &TestDir) -> PathBuf {
    let (root, image) = (dir.file("root"), image("busybox"));
    let image = Path::new(image.strip_prefix("oci:").expect("it is a layout"));
    fs::create_dir(&root).expect("the test's directory is writable");
    let manifest = document(&blob(image, &document(&image.join("index.json"))["manifests"][0]));
    for layer in manifest["layers"].as_array().expect("an image has layers") {
        let unpacked = Command::new("tar").arg("-xzf").arg(blob(image, layer)).arg("-C").arg(&root).status();
        assert!(unpacked.expect("tar is installed").success());
    }
    root
}

fn root_directory_is_written_and_file_systems_of_the_kernel_are_closed() {
    let dir = TestDir::new();
    let root = unpacked(&dir);
    fs::create_dir(root.join("kernel")).expect("it is writable");
    fs::write(root.join("etc/hosts"), "of the directory\n").expect("it is writable");
    let all = format!("{}:/all", dir.path().display());
    let own = dir.run_directory();
    let own = own.strip_prefix(dir.path()).expect("it is the test's");
    let script = format!(
        "grep ' / ' /proc/mounts | cut -d' ' -f1-3; hostname; grep -c inside /etc/hosts; echo new >/home-made; mkdir /again; \
         mount -t virtiofs root /again && cat /again/etc/hosts; ls -d /kernel; ls /kernel; cat /again/kernel/1/mem; \
         ls /all/{own}; rmdir /kernel; echo $HOME; exit 7",
        own = own.display()
    );
    // A mount that only this process and its children see.
    let mounted = format!("mount -t proc proc {}/kernel && exec \"$0\" \"$@\"", root.display());
    let root_text = root.display().to_string();
    let words = ["--rootfs", &root_text, "--privileged", "-h", "inside", "-v", &all, "sh", "-c", &script];
    let run = dir.invocation(&words).wrapped(&["unshare", "-m", "sh", "-c", &mounted]).finish();
    let expected = "root / virtiofs\ninside\n1\nof the directory\n/kernel\n/root\n";
    run.assert_status(7).assert_stdout(expected);
    assert_eq!(run.stderr.matches("Permission denied").count(), 3, "{}", run.report());
    assert_eq!(run.stderr.matches("Device or resource busy").count(), 1, "{}", run.report());
    assert_eq!(fs::read_to_string(root.join("home-made")).expect("the guest made it"), "new\n");
    assert_eq!(fs::read_to_string(root.join("etc/hosts")).expect("it is there"), "of the directory\n");
}

fn read_only_root_directory_stays_as_it_is() {
    let dir = TestDir::new();
    let root = unpacked(&dir);
    fs::write(root.join("etc/hosts"), "kept\n").expect("it is writable");
    let before = names(&root);
    let script = "pwd; echo x >/new; cat /etc/hosts; mkdir /tmp/again && mount -t virtiofs root /tmp/again && echo x >/tmp/again/new; id -u";
    let options = ["--read-only", "--keep-etc", "--privileged", "--tmpfs", "/tmp", "-w", "/made"];
    let root_text = root.display().to_string();
    let words = [&["--rootfs", &*root_text], &options[..], &["sh", "-c", script]].concat();
    let run = dir.run(&words);
    run.assert_status(0).assert_stdout("/made\nkept\n0\n");
    assert_eq!(run.stderr.matches("Read-only file system").count(), 2, "{}", run.report());
    assert_eq!(names(&root), before);
}

/// The names in a directory and in its `etc`.
fn names(root: &Path) -> Vec<PathBuf> {
    let list = |path: &Path| fs::read_dir(path).expect("it is a directory").flatten().map(|entry| entry.path());
    let mut names: Vec<_> = list(root).chain(list(&root.join("etc"))).collect();
    names.sort();
    names
}

fn unusable_root_directories_are_rejected_as_check_does() {
    let dir = TestDir::new();
    for (words, objects) in [
        (&["--rootfs", "/proc", "true"][..], &["--rootfs", "cannot be shared"][..]),
        (&["--rootfs", "/tmp"], &["command"]),
        (&["--rootfs", "/nowhere/root", "true"], &["/nowhere/root"]),
    ] {
        let run = dir.run(words);
        run.assert_status(125).assert_reason("config-error").assert_one_line_naming(objects);
        let check = dir.invocation(words).verb("check").finish();
        check.assert_status(125);
        assert_eq!(check.stderr, run.stderr, "{words:?}");
    }
}
