// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `coracle snapshot`, `coracle restore` and `coracle fork`.

use coracle_tests::{Case, Finished, NetworkNamespace, TestDir, case, image};
use serde_json::Value;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt as _, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Full, copy_has_the_data_and_an_identity_of_its_own),
        case!(Full[Root, Passt], networks_of_a_copy_are_those_of_its_options),
        case!(Quick, restore_rejects_what_is_no_snapshot),
        case!(Quick, verbs_of_snapshots_reject_bad_words),
    ]
}

fn verb(dir: &TestDir, verb: &'static str, words: &[&str]) -> Finished {
    dir.verb(verb, words).finish()
}

/// A new UUID, the host name, the file that names it, and the wall clock of a machine.
fn identity(dir: &TestDir, name: &str) -> Vec<String> {
    let script = "cat /proc/sys/kernel/random/uuid; hostname; cat /etc/hostname; date +%s";
    let shown = verb(dir, "exec", &[name, "sh", "-c", script]);
    shown.assert_status(0);
    let lines: Vec<_> = shown.stdout_text().lines().map(str::to_owned).collect();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is later than 1970");
    let guest: u64 = lines[3].parse().expect("it is a number");
    assert!(Duration::from_secs(guest).abs_diff(now) < Duration::from_secs(60), "{lines:?} at {now:?}");
    lines
}

/// The snapshot `warm` in the store.
fn run_from_a_named_snapshot(dir: &TestDir) {
    let from = |words: &[&str]| dir.invocation(&[&["--from", "warm"], words].concat()).default_memory().finish();
    from(&["-e", "A=b"]).assert_status(125).assert_one_line_naming(&["--env", "saved"]);
    from(&["alpine"]).assert_status(125).assert_one_line_naming(&["--from"]);
    from(&["-d", "--name", "w"]).assert_status(0).assert_stdout("w\n");
    verb(dir, "exec", &["w", "redis-cli", "ping"]).assert_status(0).assert_stdout("PONG\n");
    verb(dir, "stop", &["w"]).assert_status(0);
    let store = |words: &[&str]| dir.invocation(words).verb("snapshot").finish();
    store(&["ls", "-q"]).assert_status(0).assert_stdout("warm\n");
    store(&["inspect", "warm"]).assert_status(0);
    store(&["rm", "warm"]).assert_status(0).assert_stdout("warm\n");
    store(&["rm", "warm"]).assert_status(125).assert_one_line_naming(&["warm"]);
    store(&["ls", "-q"]).assert_status(0).assert_stdout("");
    from(&[]).assert_status(125).assert_one_line_naming(&["no snapshot", "warm"]);
}

fn inspect(dir: &TestDir, snapshot: &Path) -> Finished {
    dir.invocation(&["inspect", "--json", &snapshot.display().to_string()]).verb("snapshot").finish()
}

fn assert_refused(dir: &TestDir, snapshot: &Path, objects: &[&str]) {
    let refused = verb(dir, "restore", &[&snapshot.display().to_string()]);
    refused.assert_status(125).assert_one_line_naming(objects);
}

/// Changes a byte of a file that is not zero.
fn change(path: &Path, offset: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).expect("the snapshot has it");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("it is that long");
    file.write_all_at(&[byte[0] ^ 1], offset).expect("the test may write");
}

fn copy_has_the_data_and_an_identity_of_its_own() {
    let dir = TestDir::new().keeping_machines();
    let (layout, image) = (dir.file("redis"), image("redis"));
    symlink(image.trim_start_matches("oci:"), &layout).expect("the directory is new");
    let image = format!("oci:{}", layout.display());
    let run = dir.start(&["-d", "--name", "r", "--ready-port", "6379", &image]);
    while !dir.run_directory().join("r/control.sock").exists() {
        assert!(!run.has_ended(), "the machine does not start");
        std::thread::sleep(Duration::from_millis(10));
    }
    let stored = ["--when-ready", "--name", "warm", "r"];
    let warm = dir.verb("snapshot", &stored).start();
    run.finish().assert_status(0);
    warm.finish().assert_status(0).assert_stdout("warm\n");
    verb(&dir, "snapshot", &stored).assert_status(125).assert_one_line_naming(&["warm", "exists"]);
    verb(&dir, "exec", &["r", "redis-cli", "set", "k", "v"]).assert_status(0).assert_stdout("OK\n");
    verb(&dir, "exec", &["-u", "root", "r", "sh", "-c", "echo written > /file"]).assert_status(0);
    let snapshot = dir.file("snapshot");
    let path = snapshot.display().to_string();
    verb(&dir, "snapshot", &["r", &path]).assert_status(0).assert_stdout(&format!("{path}\n"));
    verb(&dir, "snapshot", &["r", &path]).assert_status(125).assert_one_line_naming(&[&path, "exists"]);
    // Before there are copies: a read of a hole through their mapping may fill it (tmpfs).
    let inspected = inspect(&dir, &snapshot);
    inspected.assert_status(0);
    let inspected: Value = serde_json::from_str(&inspected.stdout_text()).expect("it is JSON");
    assert_eq!(inspected["machine"], "r");
    assert_eq!(inspected["image"], *image);
    assert!(inspected["memory"]["stored_bytes"].as_u64() < inspected["memory"]["bytes"].as_u64(), "{inspected}");
    assert_eq!(inspected["vcpus"].as_array().map(Vec::len), Some(1), "{inspected}");
    // A copy needs the root disk, which is in the cache.
    fs::remove_file(&layout).expect("the test made it");
    // What the original does from here on is not the copy's.
    verb(&dir, "exec", &["r", "redis-cli", "set", "k", "later"]).assert_status(0).assert_stdout("OK\n");

    verb(&dir, "restore", &["-d", "--name", "c", &path]).assert_status(0).assert_stdout("c\n");
    verb(&dir, "exec", &["c", "redis-cli", "get", "k"]).assert_status(0).assert_stdout("v\n");
    verb(&dir, "exec", &["c", "cat", "/file"]).assert_status(0).assert_stdout("written\n");
    verb(&dir, "exec", &["r", "redis-cli", "get", "k"]).assert_status(0).assert_stdout("later\n");
    let (original, copy) = (identity(&dir, "r"), identity(&dir, "c"));
    assert_ne!(original[0], copy[0]);
    assert_eq!((&*original[1], &*original[2]), ("r", "r"));
    assert_eq!((&*copy[1], &*copy[2]), ("c", "c"));

    run_from_a_named_snapshot(&dir);

    verb(&dir, "pause", &["c"]).assert_status(0);
    forks_share_memory_and_nothing_else(&dir);
    verb(&dir, "stop", &["r"]).assert_status(0);

    let memory = OpenOptions::new().write(true).open(snapshot.join("memory")).expect("the snapshot has it");
    let length = memory.metadata().expect("it is open").len();
    memory.set_len(4096).expect("the test may write");
    verb(&dir, "resume", &["c"]).assert_status(0);
    verb(&dir, "wait", &["c"]).assert_status(0).assert_stdout("125\n");
    let status: Value =
        serde_json::from_str(&verb(&dir, "status", &["--json", "c"]).stdout_text()).expect("it is JSON");
    assert_eq!(status["end"]["reason"], "host-error", "{status}");
    inspect(&dir, &snapshot).assert_status(125).assert_one_line_naming(&["memory", "4096"]);
    memory.set_len(length).expect("the test may write");
    assert_refused(&dir, &snapshot, &["memory", "digest"]);
    fs::remove_file(snapshot.join("scratch")).expect("the snapshot has it");
    change(&snapshot.join("state"), 200);
    assert_refused(&dir, &snapshot, &["state", "digest"]);
    inspect(&dir, &snapshot).assert_status(125).assert_one_line_naming(&["state", "digest"]);
    let names =
        fs::read_dir(dir.file(".")).expect("it is there").map(|entry| entry.expect("it can be read").file_name());
    let left: Vec<_> = names.filter(|name| name.to_string_lossy().ends_with(".partial")).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// In a network namespace: without a default route the machine has no network.
fn networks_of_a_copy_are_those_of_its_options() {
    let dir = TestDir::new().keeping_machines();
    let network = NetworkNamespace::new(&dir, "nameserver 192.0.2.53\n");
    let path = dir.file("snapshot").display().to_string();
    let in_network = |verb: &'static str, words: &[&str]| dir.verb(verb, words).in_network(&network).finish();
    let words = ["-d", "--name", "r", "--network", "user", &image("busybox"), "sleep", "1000"];
    dir.invocation(&words).in_network(&network).finish().assert_status(0);
    in_network("snapshot", &["r", &path]).assert_status(0);
    for (network, objects) in [
        ("none", &["devices"][..]),
        ("tap=t,ip=dhcp", &["ip=dhcp"]),
        ("adopt=eth0,mac=02:00:00:00:00:07", &["adopt=eth0", "mac="]),
    ] {
        let refused = in_network("restore", &["--network", network, "--name", "c", &path]);
        refused.assert_status(125).assert_one_line_naming(objects);
    }
    let network = "user,mac=02:00:00:00:00:07,name=lan";
    in_network("restore", &["-d", "--name", "c", "--network", network, &path]).assert_status(0).assert_stdout("c\n");
    verb(&dir, "exec", &["c", "cat", "/sys/class/net/lan/address"]).assert_stdout("02:00:00:00:00:07\n");
    verb(&dir, "rm", &["-f", "r", "c"]).assert_status(0);
}

/// Of the paused machine `c`, which is a copy itself.
fn forks_share_memory_and_nothing_else(dir: &TestDir) {
    let published = verb(dir, "fork", &["-n", "2", "-p", "8080:80", "c"]);
    published.assert_status(125).assert_one_line_naming(&["--publish", "8080:80"]);
    verb(dir, "fork", &["-n", "2", "c"]).assert_status(0).assert_stdout("c-1\nc-2\n");
    verb(dir, "fork", &["c"]).assert_status(125).assert_one_line_naming(&["c-1", "in use"]);
    let names = ["c-1", "c-2"];
    let [one, other] = names.map(|name| identity(dir, name));
    assert_ne!(one[0], other[0]);
    for (name, shown) in names.iter().zip([one, other]) {
        assert_eq!((&*shown[1], &*shown[2]), (*name, *name));
        verb(dir, "exec", &[name, "redis-cli", "get", "k"]).assert_status(0).assert_stdout("v\n");
        verb(dir, "exec", &[name, "cat", "/file"]).assert_status(0).assert_stdout("written\n");
    }
    verb(dir, "exec", &["c-1", "redis-cli", "set", "k", "of one"]).assert_status(0);
    verb(dir, "exec", &["-u", "root", "c-1", "sh", "-c", "echo changed > /file"]).assert_status(0);
    verb(dir, "exec", &["c-2", "redis-cli", "get", "k"]).assert_status(0).assert_stdout("v\n");
    verb(dir, "exec", &["c-2", "cat", "/file"]).assert_status(0).assert_stdout("written\n");
    let [one, other] = names.map(|name| memory_file(dir, name));
    assert_eq!(one, other);
    verb(dir, "stop", &names).assert_status(0);
}

/// Device and inode of the file without a name that the machine's memory is mapped from.
fn memory_file(dir: &TestDir, name: &str) -> String {
    let status = verb(dir, "status", &["--json", name]);
    let status: Value = serde_json::from_str(&status.assert_status(0).stdout_text()).expect("it is JSON");
    let maps = fs::read_to_string(format!("/proc/{}/maps", status["pid"])).expect("the machine runs");
    let files = maps.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mapped = files.filter(|fields| fields.last() == Some(&"(deleted)") && fields[1] == "rw-p");
    let mut mapped: Vec<_> = mapped.map(|fields| fields[3..5].join(" ")).collect();
    mapped.dedup();
    assert_eq!(mapped.len(), 1, "{maps}");
    mapped.remove(0)
}

fn restore_rejects_what_is_no_snapshot() {
    let dir = TestDir::new();
    assert_refused(&dir, &dir.file("missing"), &["missing"]);
    // An empty name is none.
    let missing = dir.file("missing").display().to_string();
    verb(&dir, "restore", &["--name", "", &missing]).assert_status(125).assert_one_line_naming(&["open", "missing"]);
    inspect(&dir, &dir.file("missing")).assert_status(125).assert_one_line_naming(&["open", "missing"]);
    let empty = dir.file("empty");
    fs::create_dir(&empty).expect("the directory is new");
    assert_refused(&dir, &empty, &["empty/state"]);
    fs::write(empty.join("state"), "coracle-snapshot 7 0 sha256:0\n").expect("the directory is new");
    assert_refused(&dir, &empty, &["empty/state", "version 7"]);
    verb(&dir, "snapshot", &["unknown", &dir.file("s").display().to_string()])
        .assert_status(125)
        .assert_one_line_naming(&["unknown"]);
}

fn verbs_of_snapshots_reject_bad_words() {
    let dir = TestDir::new();
    let path = |name: &str| dir.file(name).display().to_string();
    for name in ["directory/state", "fifo", "link", "large", "text", "cut"] {
        fs::create_dir_all(dir.file(name)).expect("the directory is writable");
    }
    assert!(Command::new("mkfifo").arg(dir.file("fifo/state")).status().expect("a coreutil").success());
    symlink("/etc/passwd", dir.file("link/state")).expect("the directory is new");
    let large = fs::File::create(dir.file("large/state")).expect("the directory is new");
    large.set_len((16 << 20) + 1).expect("the directory is writable");
    fs::write(dir.file("text/state"), "hello\n").expect("the directory is new");
    fs::write(dir.file("cut/state"), "coracle-snapshot 2 100 sha256:00\n{").expect("the directory is new");
    dir.write("file", "");
    let document = |name: &str, text: &str| dir.write(name, text).display().to_string();
    let memory = document("memory.json", r#"{"version": 1, "memory": "1g"}"#);
    let text = document("text.json", "hello");
    let cut = path("cut");
    let rows: [(&'static str, &[&str], &[&str]); 28] = [
        ("restore", &[&path("directory")], &["directory/state"]),
        ("restore", &[&path("fifo")], &["fifo/state"]),
        ("restore", &[&path("link")], &["link/state"]),
        ("restore", &[&path("large")], &["large/state", "not the state of a snapshot"]),
        ("restore", &[&path("text")], &["text/state", "not the state of a snapshot"]),
        ("restore", &[&cut], &["cut/state", "digest"]),
        ("restore", &[&path("file")], &["file"]),
        ("restore", &["unknown"], &["no snapshot has the name unknown"]),
        ("restore", &["--name", "a/b", &cut], &["--name", "a/b"]),
        ("restore", &["--network", "user,mac=x", &cut], &["--network", "`x`"]),
        ("restore", &["--network", "user,mac=03:00:00:00:00:01", &cut], &["--network", "03:00:00:00:00:01"]),
        ("restore", &["--network", "user,disk=x", &cut], &["--network", "disk=x"]),
        ("restore", &["-p", "99999:80", &cut], &["99999"]),
        ("restore", &["--disk", "path=x", &cut], &["--disk"]),
        ("run", &["--from", &cut, "--config", &memory], &["--memory", "saved"]),
        ("run", &["--from", &cut, "--config", &text], &["text.json"]),
        ("run", &["--from", &cut, "--config", &path("missing")], &["missing"]),
        ("run", &["--from", &cut, "--disk", "path=x"], &["--disk", "saved"]),
        ("run", &["--from", &cut, "--mac-address", "x"], &["--mac-address", "'x'"]),
        ("create", &["--from", &cut], &["--from"]),
        ("snapshot", &["unknown", &path("new")], &["unknown"]),
        ("snapshot", &["unknown", &path("text")], &["text", "exists"]),
        ("snapshot", &["unknown", "/"], &["/"]),
        ("snapshot", &["--name", "a/b", "unknown"], &["--name", "a/b"]),
        ("snapshot", &["inspect", &path("text")], &["text/state"]),
        ("snapshot", &["rm", "../x"], &["../x"]),
        ("fork", &["-n", "0", "unknown"], &["'0'"]),
        ("fork", &["-n", "70000", "unknown"], &["'70000'"]),
    ];
    for (name, words, objects) in rows {
        let refused = dir.invocation(words).verb(name).default_memory().finish();
        refused.assert_status(125).assert_one_line_naming(objects);
    }
    assert!(!dir.file("new").exists());
}
