// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `coracle check` prints what `run` would print, and changes nothing.

use coracle_tests::{Case, Invocation, Layout, TestDir, case, image};
use rustix::fs::{FlockOperation, fcntl_lock, flock};
use serde_json::json;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixListener;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Quick[Kvm], check_rejects_images_with_the_line_of_run),
        case!(Quick[Kvm], check_rejects_options_with_the_line_of_run),
        case!(Quick[Kvm], check_rejects_names_and_files_with_the_line_of_run),
        case!(Quick[Kvm], check_of_a_valid_request_changes_nothing),
    ]
}

/// `run` and `check` refuse these arguments with the same line, which names `objects`.
fn refuse(dir: &TestDir, arguments: &[&str], objects: &[&str]) {
    refuse_both(|verb| dir.verb(verb, arguments), objects);
}

fn refuse_both(invocation: impl Fn(&'static str) -> Invocation, objects: &[&str]) {
    let run = invocation("run").finish();
    run.assert_status(125).assert_one_line_naming(objects);
    let check = invocation("check").finish();
    check.assert_status(125).assert_stderr(&run.stderr);
    let line = run.stderr.trim_end().trim_start_matches("coracle: ");
    // Until the options are parsed, there are no steps.
    let is_step = check.stdout_text().lines().any(|step| step.starts_with("FAIL") && step.ends_with(line));
    assert!(is_step || check.stdout.is_empty(), "{}", check.report());
}

fn layout(dir: &TestDir, name: &str, change: impl FnOnce(&mut Layout)) -> String {
    let mut layout = Layout::new(dir.file(name));
    change(&mut layout);
    layout.write()
}

fn check_rejects_images_with_the_line_of_run() {
    let dir = TestDir::new();
    let empty = format!("oci:{}", dir.path().join("home").display());
    let good = layout(&dir, "good", |_| {});
    let foreign = layout(&dir, "foreign", |layout| layout.architecture = "riscv64");
    let bare = layout(&dir, "bare", |layout| layout.config = json!({}));
    let user = layout(&dir, "user", |layout| layout.config = json!({ "Cmd": ["x"], "User": "4294967296" }));
    let nul = layout(&dir, "nul", |layout| layout.config = json!({ "Cmd": ["a\u{0}b"] }));
    let differing = layout(&dir, "differing", |layout| layout.diff_id = Some(format!("sha256:{}", "0".repeat(64))));
    let compressed = layout(&dir, "compressed", |layout| layout.layer = [&b"BZh91AY&SY"[..], &[0x5a; 2000]].concat());
    // Images that no other test has in the cache.
    let mut changed = Layout::new(dir.file("changed"));
    changed.config = json!({ "Cmd": ["/short"] });
    let short = changed.write();
    fs::write(changed.layer_path(), &changed.layer[..700]).expect("just written");
    let mut lost = Layout::new(dir.file("lost"));
    lost.config = json!({ "Cmd": ["/lost"] });
    let missing = lost.write();
    fs::remove_file(lost.layer_path()).expect("just written");
    let archived = Layout::new(dir.file("archived"));
    let _ = archived.write();
    let archive = archived.archive(&dir.file("complete.tar"));
    let bytes = fs::read(dir.file("complete.tar")).expect("just written");
    let cut = format!("oci-archive:{}", dir.write("cut.tar", &bytes[..bytes.len() / 2]).display());
    let table: &[(&[&str], &[&str])] = &[
        (&["oci:/nowhere/at/all"], &["/nowhere/at/all"]),
        (&["oci-archive:/nowhere/a.tar"], &["/nowhere/a.tar"]),
        (&["docker-archive:/nowhere/b.tar"], &["/nowhere/b.tar"]),
        (&["oci-archive:/dev/null"], &["/dev/null"]),
        (&["oci:"], &["oci:"]),
        (&[&empty], &[&empty[4..]]),
        (&[&format!("{good}:v2")], &["v2", "latest"]),
        (&[&format!("{archive}:v2")], &["v2"]),
        (&[&foreign], &["amd64"]),
        (&[&bare], &["command"]),
        (&["--entrypoint", "", &good], &["command"]),
        (&[&user], &["4294967296"]),
        (&[&nul], &["NUL"]),
        (&[&differing], &["0000"]),
        (&[&compressed], &["sha256:"]),
        (&[&short], &["sha256:"]),
        (&[&missing], &["blobs/sha256/"]),
        (&[&cut], &["cut.tar"]),
    ];
    for (arguments, objects) in table {
        refuse(&dir, arguments, objects);
    }
    let index = dir.file("good/index.json");
    for contents in ["", "{", "[]", "{\"schemaVersion\":2,\"manifests\":[]}"] {
        fs::write(&index, contents).expect("just written");
        refuse(&dir, &[&good], &[]);
    }
}

fn check_rejects_options_with_the_line_of_run() {
    let dir = TestDir::new();
    let disk = dir.write("disk.img", vec![0; 1 << 20]).display().to_string();
    let (one, other) = (format!("path={disk}"), format!("path={disk},serial=x"));
    let odd = dir.write("odd.img", vec![0; 1000]).display().to_string();
    let odd = format!("path={odd}");
    let text = dir.write("no-kernel", "text").display().to_string();
    let directory = dir.path().display().to_string();
    let image = layout(&dir, "good", |_| {});
    let table: &[(&[&str], &[&str])] = &[
        (&["-m", "63m"], &["--memory", "63m"]),
        (&["--no-such-option"], &["--no-such-option"]),
        (&["-e", "=value"], &["=value"]),
        (&["-w", "relative/path"], &["relative/path"]),
        (&["-u", "4294967296"], &["4294967296"]),
        (&["-u", "1:-1"], &["1:-1"]),
        (&["-i", "-t"], &["terminal"]),
        (&["--env-file", "/nowhere/environment"], &["/nowhere/environment"]),
        (&["--tmpfs", "/a", "--tmpfs", "/a/"], &["--tmpfs", "/a"]),
        (&["--append", "two\nlines"], &["--append"]),
        (&["--append", &"x".repeat(5000)], &[]),
        (&["--ready-port", "80", "--ready-notify"], &["--ready-port", "--ready-notify"]),
        (&["--no-healthcheck", "--health-cmd", "x"], &["--no-healthcheck"]),
        (&["--system", "--init"], &["--system", "--init"]),
        (&["--network", "fd=77"], &["77"]),
        (&["--network", "none", "--network", "tap=x"], &["none"]),
        (&["--disk", "path=/nowhere/disk"], &["/nowhere/disk"]),
        (&["--disk", &one, "--disk", &other], &["disk.img", "two disks"]),
        (&["--disk", &format!("path={directory}")], &[&directory]),
        (&["--disk", &odd], &["odd.img"]),
        (&["--kernel", "/nowhere/vmlinux"], &["/nowhere/vmlinux"]),
        (&["--kernel", &text], &["no-kernel"]),
        (&["--init-binary", "/nowhere/init"], &["/nowhere/init"]),
    ];
    for (options, objects) in table {
        refuse(&dir, &[*options, &[&*image]].concat(), objects);
    }
    refuse(&dir, &["--rootfs", "/nowhere/root", "true"], &["/nowhere/root"]);
    refuse(&dir, &["--config", "/nowhere/config.json"], &["/nowhere/config.json"]);
    refuse_both(|verb| dir.verb(verb, &[&image, "true"]).env("TMPDIR", "/nowhere/tmp"), &["/nowhere/tmp"]);
}

fn check_rejects_names_and_files_with_the_line_of_run() {
    let dir = TestDir::new().keeping_machines();
    let image = layout(&dir, "good", |_| {});
    let there = dir.write("there", "text").display().to_string();
    let inside = format!("{there}/new");
    let table: &[(&[&str], &[&str])] = &[
        (&["--result", "/nowhere/result.json"], &["--result", "/nowhere/result.json"]),
        (&["--result", "fd:77"], &["--result", "77"]),
        (&["--events", "/nowhere/events"], &["--events", "/nowhere/events"]),
        (&["--console", "/nowhere/console"], &["--console", "/nowhere/console"]),
        (&["--console", &inside], &["--console", &inside]),
        (&["--cidfile", &there], &["--cidfile", &there, "exists"]),
        (&["--cidfile", "/nowhere/id"], &["--cidfile", "/nowhere/id"]),
    ];
    for (options, objects) in table {
        refuse(&dir, &[*options, &[&*image]].concat(), objects);
    }
    // As a machine holds them.
    let machine = dir.run_directory().join("m");
    fs::create_dir(&machine).expect("the test's directory is writable");
    fs::write(machine.join("lock"), "4711\n").expect("the test's directory is writable");
    let lock = File::open(machine.join("lock")).expect("just written");
    flock(&lock, FlockOperation::NonBlockingLockExclusive).expect("no machine has it");
    refuse(&dir, &["--name", "m", &image], &["name m", "4711"]);
    let disk = dir.write("disk.img", vec![0; 1 << 20]);
    let holder = File::options().read(true).write(true).open(&disk).expect("just written");
    fcntl_lock(&holder, FlockOperation::NonBlockingLockExclusive).expect("no machine has it");
    refuse(&dir, &["--disk", &format!("path={}", disk.display()), &image], &["disk.img", "in use"]);
    refuse_both(|verb| dir.invocation(&["--run-dir", &inside, &image]).verb(verb), &[&inside]);
    refuse(&dir, &["--vsock", &disk.display().to_string(), &image], &["--vsock", "disk.img", "not a socket"]);
    let missing = dir.file("missing/v.sock").display().to_string();
    refuse(&dir, &["--vsock", &missing, &image], &["--vsock", "missing"]);
}

fn check_of_a_valid_request_changes_nothing() {
    let dir = TestDir::new();
    let made = dir.file("made").display().to_string();
    let files = ["--name", "m", "--cidfile", &made, "--console", &made, "--events", &made, "--result", &made];
    let check = dir.verb("check", &[&files[..], &[&image("busybox"), "true"]].concat()).finish();
    check.assert_status(0).assert_stderr("");
    assert!(check.stdout_text().lines().all(|line| line.starts_with("ok ")), "{}", check.report());
    assert!(!dir.file("made").exists(), "a file was made");
    let stale = dir.file("stale");
    drop(UnixListener::bind(&stale).expect("a socket"));
    let inode = || fs::symlink_metadata(&stale).map(|found| found.ino()).ok();
    let before = inode();
    for socket in [made, stale.display().to_string()] {
        dir.verb("check", &["--vsock", &socket, &image("busybox"), "true"]).finish().assert_status(0).assert_stderr("");
    }
    assert!(!dir.file("made").exists(), "a socket was made");
    assert_eq!(inode(), before, "a socket was replaced");
    // TestDir finds what else is left.
}
