// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Machines that are kept: `create`, `run --name`, `start`, `rm`.

use crate::saved_layers::layer;
use coracle_tests::{Case, Finished, Stdin, TestDir, case, image, images};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::Read as _;
use std::process::Command;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Full, kept_machine_starts_again_on_its_layer),
        case!(Full, created_machine_starts_later),
        case!(Quick[Kvm], machine_that_never_ran_is_not_kept),
        case!(Quick, create_rejects_what_keeps_nothing),
    ]
}

/// Prints its number and which of three files are there. The first one changes the root and ends with 3, the second one waits.
const SCRIPT: &str = "n=$(cat /n 2>/dev/null || echo 0); echo run $n $(ls /etc/passwd /live /new 2>/dev/null); echo $((n + 1)) > /n; \
    case $n in 0) rm /etc/passwd; echo hi > /new; mkdir -p /a/b; mv /a /c; exit 3;; \
    1) ls -d /c/b; sync; echo synced; sleep 1000;; *) ls -d /c/b; cat /new;; esac";

fn verb(dir: &TestDir, verb: &'static str, words: &[&str]) -> Finished {
    dir.verb(verb, words).finish()
}

/// busybox in `dir`, which the test may remove.
fn own_image(dir: &TestDir) -> String {
    let layout = dir.file("layout");
    let copied = Command::new("cp").arg("-r").arg(images().join("busybox")).arg(&layout).status();
    assert!(copied.is_ok_and(|status| status.success()));
    format!("oci:{}", layout.display())
}

/// Fails unless the file system of the layer is sound and was unmounted.
fn assert_clean(dir: &TestDir, name: &str) {
    let file = dir.run_directory().join(".machines").join(name).join("layer.ext4");
    let check = Command::new("e2fsck").arg("-fn").arg(&file).output().expect("e2fsprogs is installed");
    let text = String::from_utf8_lossy(&check.stdout).into_owned() + &String::from_utf8_lossy(&check.stderr);
    assert!(check.status.success() && !text.contains("recover"), "{text}");
}

fn kept_machine_starts_again_on_its_layer() {
    let dir = TestDir::new().keeping_machines();
    let image = own_image(&dir);
    let words = ["--name", "w", &image, "sh", "-c", SCRIPT];
    dir.run(&words).assert_status(3).assert_stdout("run 0 /etc/passwd\n");
    assert_clean(&dir, "w");
    let changes = "A /c\nA /c/b\nC /etc\nD /etc/passwd\nA /n\nA /new\n";
    verb(&dir, "diff", &["w"]).assert_status(0).assert_stdout(changes);
    let command = r#"CMD ["sh", "-c", "cat /n /new; ls -d /c/b /etc/passwd 2> /dev/null"]"#;
    let committed = verb(&dir, "commit", &["-c", command, "-m", "changed", "w", "busybox:changed"]);
    assert!(committed.assert_status(0).stdout_text().starts_with("sha256:"), "{}", committed.report());
    files_are_copied_and_exported(&dir);
    layer(&dir, "save", &["w", "ended"]).finish().assert_status(0).assert_stdout("ended\n");
    // What the image's name means now does not matter.
    assert!(dir.run_directory().join("w/result.json").exists());
    fs::rename(dir.file("layout"), dir.file("away")).expect("the test's directory is writable");

    verb(&dir, "start", &["w"]).assert_status(0).assert_stdout("w\n");
    dir.verb("logs", &["-f", "w"]).start().wait_for_stdout("synced\n");
    verb(&dir, "logs", &["w"]).assert_stdout("run 1 /new\n/c/b\nsynced\n");
    for refused in [verb(&dir, "start", &["w"]), dir.run(&words)] {
        refused.assert_status(125).assert_one_line_naming(&["w", "in use by process"]);
    }
    verb(&dir, "rm", &["w"]).assert_status(125).assert_one_line_naming(&["w is running"]);
    layer(&dir, "restore", &["w", "ended"]).finish().assert_status(125).assert_one_line_naming(&["w is running"]);
    // The new image is made above the old one.
    fs::rename(dir.file("away"), dir.file("layout")).expect("the test's directory is writable");
    running_machine_is_read(&dir, changes);
    fs::remove_dir_all(dir.file("layout")).expect("the test's directory is writable");
    files_are_copied_into_the_machine(&dir);
    let lock = fs::read_to_string(dir.run_directory().join("w/lock")).expect("the machine runs");
    let pid = lock.trim().parse().ok().and_then(Pid::from_raw).expect("a process ID");
    kill_process(pid, Signal::KILL).expect("the machine runs");
    verb(&dir, "wait", &["w"]).assert_status(125).assert_one_line_naming(&["w", "killed"]);
    // Its journal was not replayed.
    verb(&dir, "diff", &["w"]).assert_status(0).assert_stdout(changes);
    layer(&dir, "restore", &["w", "1"]).finish().assert_status(0).assert_stdout("1\n");
    verb(&dir, "diff", &["w"]).assert_status(0).assert_stdout(&with_live(changes));

    // As after a reboot: nothing is left but what is kept.
    fs::remove_dir_all(dir.run_directory().join("w")).expect("the machine was killed");
    let listed = verb(&dir, "ps", &["-a"]).stdout_text();
    assert!(listed.contains("Dead") && listed.contains(" w\n"), "{listed}");
    let third = verb(&dir, "start", &["-a", "w"]);
    third.assert_status(0).assert_stdout("run 2 /live /new\n/c/b\nhi\n");
    assert_clean(&dir, "w");
    layer(&dir, "restore", &["w", "ended"]).finish().assert_status(0);
    verb(&dir, "diff", &["w"]).assert_status(0).assert_stdout(changes);
    verb(&dir, "wait", &["w"]).assert_status(0).assert_stdout("0\n");
    // The next run with the name takes its place, here of the image that was made after the first start.
    let committed = dir.run(&["--name", "w", "--pull", "never", "busybox:changed"]);
    committed.assert_status(1).assert_stdout("1\nhi\n/c/b\n");
    verb(&dir, "diff", &["w"]).assert_status(0).assert_stdout("");
    layer(&dir, "ls", &["-q", "w"]).finish().assert_status(0).assert_stdout("");
    verb(&dir, "rm", &["w"]).assert_status(0).assert_stdout("w\n");
    assert!(!dir.run_directory().join(".machines/w").exists() && !dir.run_directory().join("w").exists());
    verb(&dir, "start", &["w"]).assert_status(125).assert_one_line_naming(&["no machine", "w"]);
}

/// The changes with `/live`.
fn with_live(changes: &str) -> String {
    changes.replace("A /n\n", "A /live\nA /n\n")
}

/// The machine `w` runs, with `changes`.
fn running_machine_is_read(dir: &TestDir, changes: &str) {
    let exec = |script: &str| verb(dir, "exec", &["w", "sh", "-c", script]);
    // Nothing has written it to the disk.
    exec("echo live > /live").assert_status(0);
    verb(dir, "diff", &["w"]).assert_status(0).assert_stdout(&with_live(changes));
    layer(dir, "save", &["w"]).finish().assert_status(0).assert_stdout("1\n");
    let committed = verb(dir, "commit", &["w", "busybox:live"]);
    assert!(committed.assert_status(0).stdout_text().starts_with("sha256:"), "{}", committed.report());
    // It writes again, and is read while it is paused.
    exec("echo more >> /live").assert_status(0);
    verb(dir, "pause", &["w"]).assert_status(0);
    let path = dir.file("live").display().to_string();
    verb(dir, "cp", &["w:/live", &path]).assert_status(0).assert_stdout("");
    assert_eq!(fs::read_to_string(&path).expect("it was copied"), "live\nmore\n");
    layer(dir, "save", &["w"]).finish().assert_status(0).assert_stdout("2\n");
    let listed = verb(dir, "ps", &[]).stdout_text();
    assert!(listed.contains("Paused"), "{listed}");
    verb(dir, "resume", &["w"]).assert_status(0);
    let archived = verb(dir, "export", &["w"]);
    archived.assert_status(0);
    let mut archive = tar::Archive::new(&archived.stdout[..]);
    let mut entries = archive.entries().expect("it is an archive").map(|entry| entry.expect("it is whole"));
    assert!(entries.any(|entry| &*entry.path_bytes() == b"live"));
    exec("rm /live; sync").assert_status(0);
}

/// Into the machine `w`, which runs, by docker's rules.
fn files_are_copied_into_the_machine(dir: &TestDir) {
    let path = |name: &str| dir.file(name).display().to_string();
    fs::create_dir_all(dir.file("site/sub")).expect("the directory is new");
    fs::write(dir.file("site/index"), "text\n").expect("the test may write");
    fs::hard_link(dir.file("site/index"), dir.file("site/sub/hard")).expect("the test may write");
    std::os::unix::fs::symlink("/nowhere", dir.file("site/sub/link")).expect("the test may write");
    let large = fs::File::create(dir.file("site/large")).expect("the test may write");
    large.set_len(3 << 20).expect("the test may write");
    std::os::unix::fs::FileExt::write_at(&large, b"end", (3 << 20) - 3).expect("the test may write");
    let copied = |source: &str, destination: &str| {
        verb(dir, "cp", &[source, destination]).assert_status(0).assert_stdout("").assert_stderr("");
    };
    copied(&path("site"), "w:/made");
    copied(&path("site"), "w:/made");
    copied(&path("site/."), "w:made/sub");
    copied(&path("site/index"), "w:/made/renamed");
    let script = "cd /made && find . | sort && stat -c '%u:%g %h' index && readlink sub/link && wc -c < large && \
        tail -c 3 large && du -k large | cut -f1 && cat renamed && \
        mkdir /real && ln -s real /linked";
    let listed = verb(dir, "exec", &["w", "sh", "-c", script]);
    let names = "index large renamed site site/index site/large site/sub site/sub/hard site/sub/link \
                 sub sub/hard sub/index sub/large sub/link sub/sub sub/sub/hard sub/sub/link";
    let found: String = names.split(' ').map(|name| format!("./{name}\n")).collect();
    let stdout = listed.assert_status(0).stdout_text();
    let rest = stdout.strip_prefix(".\n").and_then(|rest| rest.strip_prefix(&*found));
    let rest = rest.unwrap_or_else(|| panic!("{}", listed.report()));
    let (head, tail) = rest.split_once("end").expect("the large file ends so");
    assert_eq!(head, "0:0 2\n/nowhere\n3145728\n");
    let (blocks, tail) = tail.split_once('\n').expect("it is a line");
    assert!(blocks.parse::<u32>().is_ok_and(|blocks| blocks < 100), "{blocks}");
    assert_eq!(tail, "text\n");

    // An archive, with a file below a symbolic link of the machine, owners and an attribute.
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_pax_extensions([("SCHILY.xattr.user.note", &b"kept"[..])]).expect("it is in memory");
    let mut header = tar::Header::new_gnu();
    header.set_size(3);
    header.set_mode(0o4750);
    header.set_uid(1234);
    header.set_gid(5678);
    header.set_mtime(1_000_000_000);
    archive.append_data(&mut header, "linked/new/file", &b"abc"[..]).expect("it is in memory");
    let archive = archive.into_inner().expect("it is in memory");
    let extract = |input: &[u8], destination: &str| {
        fs::write(dir.file("input"), input).expect("the test may write");
        let input = fs::File::open(dir.file("input")).expect("it was written");
        dir.verb("cp", &["-", destination]).stdin(Stdin::File(input)).finish()
    };
    let unpacked = extract(&archive, "w:/");
    unpacked.assert_status(0).assert_stderr("");
    let script = "stat -c '%a %u:%g %Y' /real/new/file; cat /linked/new/file";
    let listed = verb(dir, "exec", &["w", "sh", "-c", script]);
    listed.assert_status(0).assert_stdout("4750 1234:5678 1000000000\nabc");
    let back = verb(dir, "cp", &["w:/real/new/file", "-"]);
    let mut back = tar::Archive::new(&back.assert_status(0).stdout[..]);
    let mut entry = back.entries().expect("it is an archive").next().expect("it has an entry").expect("it is whole");
    let attributes = entry.pax_extensions().expect("it is whole").expect("it has attributes");
    assert!(
        attributes.flatten().any(|field| field.key() == Ok("SCHILY.xattr.user.note") && field.value() == Ok("kept"))
    );

    for (words, objects) in [
        ([&*path("site"), "w:/made/index"], &["w", "/made/index", "not a directory"][..]),
        ([&path("site/index"), "w:/missing/file"], &["w", "/missing/file", "No such file"]),
        ([&path("missing"), "w:/"], &["missing", "No such file"]),
    ] {
        verb(dir, "cp", &words).assert_status(125).assert_one_line_naming(objects);
    }
    for (input, objects) in [
        (&b"text"[..], &["standard input", "tar archive"][..]),
        (&archive[..archive.len() - 1536 - 100], &["standard input", "truncated"]),
    ] {
        extract(input, "w:/c").assert_status(125).assert_one_line_naming(objects);
    }
    verb(dir, "exec", &["w", "sh", "-c", "rm -r /made /real /linked; sync"]).assert_status(0);
}

/// Of the machine `w`, which has ended.
fn files_are_copied_and_exported(dir: &TestDir) {
    let path = |name: &str| dir.file(name).display().to_string();
    verb(dir, "export", &["-o", &path("w.tar"), "w"]).assert_status(0).assert_stdout("");
    let mut archive = tar::Archive::new(fs::File::open(dir.file("w.tar")).expect("it was written"));
    let names = archive.entries().expect("it is an archive").map(|entry| {
        let entry = entry.expect("it is an archive");
        String::from_utf8_lossy(&entry.path_bytes()).into_owned()
    });
    let names: Vec<String> = names.collect();
    let has = |name: &str| names.iter().any(|there| there == name);
    assert!(has("./") && has("c/b/") && has("new") && has("etc/hosts") && !has("etc/passwd"), "{names:?}");

    verb(dir, "cp", &["w:/c", &path("copy")]).assert_status(0).assert_stdout("");
    verb(dir, "cp", &["w:/new", &path("copy")]).assert_status(0);
    assert!(dir.file("copy/b").is_dir());
    assert_eq!(fs::read(dir.file("copy/new")).expect("it was copied"), b"hi\n");
    let archived = verb(dir, "cp", &["w:/etc/../new", "-"]);
    archived.assert_status(0);
    let mut archive = tar::Archive::new(&archived.stdout[..]);
    let mut entry = archive.entries().expect("it is an archive").next().expect("it has an entry").expect("it is whole");
    let mut text = String::new();
    entry.read_to_string(&mut text).expect("it is whole");
    assert_eq!((&*entry.path_bytes(), text.as_str()), (&b"new"[..], "hi\n"));
    for (words, objects) in [
        (["w:/nowhere", "."], &["w", "/nowhere: no such file"][..]),
        (["w:/c", &path("copy/new")], &["copy/new", "not a directory"]),
        (["README", "w:/"], &["w is exited", "coracle start w"]),
        (["w:/c", "w:/d"], &["one machine to another"]),
        (["a", "b"], &["MACHINE:PATH"]),
    ] {
        verb(dir, "cp", &words).assert_status(125).assert_one_line_naming(objects);
    }
}

fn created_machine_starts_later() {
    let dir = TestDir::new().keeping_machines();
    let image = image("busybox");
    let words = ["--memory", "128m", "--network", "none", "--name", "c", &image, "echo", "made"];
    verb(&dir, "create", &words).assert_status(0).assert_stdout("c\n");
    verb(&dir, "create", &words).assert_status(125).assert_one_line_naming(&["coracle start c"]);
    let refused = dir.run(&["--name", "c", &image, "true"]);
    refused.assert_status(125).assert_one_line_naming(&["never run", "coracle start c", "coracle rm c"]);
    let listed = verb(&dir, "ps", &["-a", "-q", "--filter", "status=created"]);
    listed.assert_status(0).assert_stdout("c\n");
    verb(&dir, "ps", &["-q"]).assert_status(0).assert_stdout("");
    verb(&dir, "diff", &["c"]).assert_status(0).assert_stdout("");
    verb(&dir, "wait", &["c"]).assert_status(125).assert_one_line_naming(&["c", "never run"]);
    verb(&dir, "start", &["-a", "c"]).assert_status(0).assert_stdout("made\n");
    verb(&dir, "rm", &["c"]).assert_status(0).assert_stdout("c\n");
}

fn machine_that_never_ran_is_not_kept() {
    let dir = TestDir::new().keeping_machines();
    let failed = dir.run(&["--name", "f", &image("busybox"), "no-such-command"]);
    failed.assert_status(127).assert_one_line_naming(&["no-such-command"]);
    assert!(!dir.run_directory().join(".machines/f").exists());
    verb(&dir, "start", &["f"]).assert_status(125).assert_one_line_naming(&["f", "kept"]);
}

fn create_rejects_what_keeps_nothing() {
    let dir = TestDir::new();
    let image = image("busybox");
    for (options, object) in [
        (&["--rm"][..], "--rm"),
        (&["--read-only"], "--read-only"),
        (&["--scratch", "tmpfs"], "--scratch"),
        (&["--rootfs", "/nowhere"], "--rootfs"),
    ] {
        let refused = verb(&dir, "create", &[options, &[&image, "true"]].concat());
        refused.assert_status(125).assert_one_line_naming(&[object, "writable layer"]);
    }
}
