// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Directories and files of the host in the guest: `-v`.

use coracle_tests::{Case, TestDir, case, image};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::PathBuf;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Smoke, share_has_what_both_sides_write),
        case!(Full, share_keeps_kinds_modes_owners_and_times_of_files),
        case!(Full, symbolic_link_of_a_share_stays_in_the_guest),
        case!(Full, read_only_share_refuses_writes_with_erofs),
        case!(Full, hundreds_of_files_are_listed_read_and_removed),
        case!(Full, single_file_is_shared_without_its_siblings),
        case!(Full, two_machines_share_a_directory),
        case!(Full, mount_points_are_made_and_none_hides_another),
        case!(Quick, missing_path_is_rejected),
        case!(Quick, path_that_is_no_file_or_directory_is_rejected),
        case!(Quick[Kvm], file_system_of_the_kernel_is_rejected),
    ]
}

/// A new directory among the test's files, and an option that mounts it.
fn shared(dir: &TestDir, more: &str) -> (PathBuf, String) {
    let path = dir.file("shared");
    fs::create_dir(&path).expect("the test's directory is writable");
    let option = format!("{}:/shared{more}", path.display());
    (path, option)
}

fn share_has_what_both_sides_write() {
    let dir = TestDir::new();
    let (path, option) = shared(&dir, "");
    fs::write(path.join("from-host"), "of the host\n").expect("it is writable");
    let script = "cd /shared && cat from-host && echo of the guest >new && mkdir d && mv new d/moved && cat d/moved && \
                  echo more >>from-host && rm -r d && echo left >d2 && ls && grep /shared /proc/mounts | cut -d' ' -f1-3";
    let run = dir.run(&["-v", &option, &image("busybox"), "sh", "-c", script]);
    let expected = "of the host\nof the guest\nd2\nfrom-host\nshare0 /shared virtiofs\n";
    run.assert_status(0).assert_stdout(expected);
    assert_eq!(fs::read_to_string(path.join("from-host")).expect("it is there"), "of the host\nmore\n");
    assert_eq!(fs::read_to_string(path.join("d2")).expect("the guest made it"), "left\n");
    assert!(!path.join("d").exists(), "the guest removed it");
}

fn share_keeps_kinds_modes_owners_and_times_of_files() {
    let dir = TestDir::new();
    let (path, option) = shared(&dir, "");
    let script = "cd /shared && umask 0 && touch -d '2001-02-03 04:05:06' f && chmod 4751 f && ln f hard && ln -s f soft && \
                  mkfifo p && (echo through >p &) && cat p && ! mknod dev c 1 3 2>/dev/null && chown 12:34 f && chmod 4751 f && \
                  truncate -s 1000000 f && stat -c '%a %u %g %s %h' f && readlink soft && \
                  dd if=/dev/urandom of=big bs=64k count=48 2>/dev/null && sync && md5sum <big >sum && \
                  echo 3 >/proc/sys/vm/drop_caches; md5sum <big | cmp - sum && exec 4<>big && rm big && head -c 3 <&4 | wc -c";
    let run = dir.run(&["-v", &option, "--privileged", &image("busybox"), "sh", "-c", script]);
    run.assert_status(0).assert_stdout("through\n4751 12 34 1000000 2\nf\n3\n");
    let status = fs::metadata(path.join("f")).expect("the guest made it");
    assert_eq!((status.mode() & 0o7777, status.size(), status.nlink()), (0o4751, 1_000_000, 2));
    if rustix::process::geteuid().is_root() {
        assert_eq!((status.uid(), status.gid()), (12, 34));
    }
    assert_eq!(fs::read_link(path.join("soft")).expect("it is a link").to_str(), Some("f"));
    assert!(!path.join("dev").exists() && !path.join("big").exists());
}

fn symbolic_link_of_a_share_stays_in_the_guest() {
    let dir = TestDir::new();
    let (path, option) = shared(&dir, "");
    dir.write("secret", "of the host\n");
    symlink("../secret", path.join("up")).expect("it is writable");
    symlink(dir.file("secret"), path.join("absolute")).expect("it is writable");
    symlink("/etc/hostname", path.join("guest")).expect("it is writable");
    let script = "cd /shared; for f in up absolute ../secret /shared/../secret; do cat $f 2>&1; done; cat guest; \
                  echo changed >up; cat /secret";
    let run = dir.run(&["--hostname", "inside", "-v", &option, &image("busybox"), "sh", "-c", script]);
    run.assert_status(0);
    let output = run.stdout_text();
    assert_eq!(output.matches("No such file or directory").count(), 4, "{}", run.report());
    assert!(output.ends_with("inside\nchanged\n"), "the guest resolves them in its own root\n{}", run.report());
    assert_eq!(fs::read_to_string(dir.file("secret")).expect("it is there"), "of the host\n");
}

fn read_only_share_refuses_writes_with_erofs() {
    let dir = TestDir::new();
    let (path, _) = shared(&dir, "");
    let option = format!("type=bind,source={},target=/shared,readonly", path.display());
    fs::write(path.join("f"), "kept\n").expect("it is writable");
    // The host refuses what a guest that mounts the device again tries.
    let script = "cat /shared/f; echo x >/shared/f; rm /shared/f; mkdir /shared/d; umount /shared; mkdir /mnt; \
                  mount -t virtiofs share0 /mnt && echo again && echo x >/mnt/f; mv /mnt/f /mnt/g; touch /mnt/h";
    let run = dir.run(&["--mount", &option, "--privileged", &image("busybox"), "sh", "-c", script]);
    run.assert_stdout("kept\nagain\n");
    assert_eq!(run.stderr.matches("Read-only file system").count(), 6, "{}", run.report());
    assert_eq!(fs::read_to_string(path.join("f")).expect("it is there"), "kept\n");
    assert_eq!(fs::read_dir(&path).expect("it is there").count(), 1);
}

fn hundreds_of_files_are_listed_read_and_removed() {
    let dir = TestDir::new();
    let (path, option) = shared(&dir, "");
    for number in 0..700 {
        fs::write(path.join(format!("host-{number}")), format!("{number}\n")).expect("it is writable");
    }
    let script = "cd /shared; ls | wc -l; cat host-* | sort -n | tail -1; ls -l | grep -c host; rm host-6*; \
                  for i in 1 2 3 4 5; do echo $i >guest-$i; done; ls | wc -l";
    let run = dir.run(&["-v", &option, &image("busybox"), "sh", "-c", script]);
    // 6, 60 to 69 and 600 to 699 are gone.
    run.assert_status(0).assert_stdout("700\n699\n700\n594\n");
    assert_eq!(fs::read_dir(&path).expect("it is there").count(), 594);
}

fn single_file_is_shared_without_its_siblings() {
    let dir = TestDir::new();
    let file = dir.write("settings", "shown\n");
    dir.write("sibling", "hidden\n");
    let option = format!("{}:/etc/new/settings", file.display());
    let read_only = format!("{}:/etc/passwd:ro", file.display());
    let script = "cat /etc/new/settings /etc/passwd; echo changed >/etc/new/settings; echo x >/etc/passwd; ls /etc/new; \
                  mkdir /mnt; mount -t virtiofs share0 /mnt; ls /mnt; cat /mnt/sibling; echo x >/mnt/other";
    let words = ["-v", &option, "-v", &read_only, "--privileged", "-u", "0", &image("busybox"), "sh", "-c", script];
    let run = dir.run(&words);
    run.assert_stdout("shown\nshown\nsettings\nsettings\n");
    assert!(run.stderr.contains("/etc/passwd: Read-only file system"), "{}", run.report());
    assert_eq!(fs::read_to_string(&file).expect("it is there"), "changed\n");
    assert_eq!(fs::read_to_string(dir.file("sibling")).expect("it is there"), "hidden\n");
    assert!(!dir.file("other").exists());
}

fn two_machines_share_a_directory() {
    let dir = TestDir::new();
    let (path, option) = shared(&dir, "");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).expect("it is ours");
    // Each waits for the other's file.
    let script = |own: &str, other: &str| {
        format!(
            "echo {own} >/shared/{own}; until grep -s {other} /shared/{other}; do sleep 0.1; done; echo {own} >>/shared/both"
        )
    };
    let image = image("busybox");
    let (one, two) = (script("one", "two"), script("two", "one"));
    let one = dir.start(&["-v", &option, &image, "sh", "-c", &one]);
    let two = dir.start(&["-v", &option, &image, "sh", "-c", &two]);
    one.finish().assert_status(0).assert_stdout("two\n");
    two.finish().assert_status(0).assert_stdout("one\n");
    let mut lines: Vec<String> =
        fs::read_to_string(path.join("both")).expect("both wrote it").lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["one", "two"]);
}

fn mount_points_are_made_and_none_hides_another() {
    let dir = TestDir::new();
    let (path, option) = shared(&dir, "/a");
    let inner = dir.file("inner");
    fs::create_dir(&inner).expect("it is writable");
    fs::write(inner.join("f"), "inner\n").expect("it is writable");
    let inner = format!("{}:/shared/a/t/in", inner.display());
    let words = ["-v", &inner, "--tmpfs", "/shared/a/t", "-v", &option, &image("busybox")];
    let script = ["sh", "-c", "cat /shared/a/t/in/f; touch /shared/a/t/x; touch /shared/a/y"];
    dir.run(&[&words[..], &script].concat()).assert_status(0).assert_stdout("inner\n");
    assert!(path.join("y").exists() && path.join("t").is_dir() && !path.join("t/x").exists());
}

fn missing_path_is_rejected() {
    let dir = TestDir::new();
    let run = dir.run(&["-v", "/nowhere/data:/data", &image("busybox"), "true"]);
    run.assert_status(125).assert_reason("config-error");
    run.assert_one_line_naming(&["-v", "/nowhere/data", "No such file"]);
}

fn path_that_is_no_file_or_directory_is_rejected() {
    let dir = TestDir::new();
    let run = dir.run(&["-v", "/dev/null:/data", &image("busybox"), "true"]);
    run.assert_status(125).assert_reason("config-error").assert_one_line_naming(&["/dev/null", "directory"]);
}

fn file_system_of_the_kernel_is_rejected() {
    let dir = TestDir::new();
    let run = dir.run(&["-v", "/proc:/host-proc", &image("busybox"), "true"]);
    run.assert_status(125).assert_reason("config-error").assert_one_line_naming(&["-v", "cannot be shared"]);
}
