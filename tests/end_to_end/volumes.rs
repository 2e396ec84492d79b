// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Volumes: `--volume`, `--mount`, the `VOLUME`s of an image, and `coracle volume`.

use crate::root_formats::LIST;
use coracle_tests::campaign::{Moments, RecordVolume};
use coracle_tests::{Case, Finished, Invocation, TestDir, blob, case, document, image, images, sha256};
use serde_json::{Value, json};
use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::process::Command;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Full, volume_has_what_an_earlier_machine_wrote),
        case!(Full, empty_volume_gets_what_the_image_has_in_its_place),
        case!(Full, volume_of_an_image_is_a_file_system_of_its_own),
        case!(Full, one_machine_writes_or_several_read),
        case!(Full, killed_machine_leaves_what_it_had_synced),
        case!(Full, full_volume_loses_nothing),
        case!(Full, mounts_are_in_the_order_of_their_depth),
        case!(Quick, volume_verbs_make_list_and_remove),
        case!(Quick[Kvm], check_makes_no_volume),
        case!(Quick, volumes_that_contradict_are_rejected),
    ]
}

/// A verb with the volumes of `dir`.
fn verb(dir: &TestDir, verb: &'static str, words: &[&str]) -> Invocation {
    dir.invocation(words).verb(verb).env("XDG_DATA_HOME", dir.file("data"))
}

fn volume(dir: &TestDir, words: &[&str]) -> Finished {
    verb(dir, "volume", words).finish()
}

/// Runs `script` in busybox with `options`.
fn run(dir: &TestDir, options: &[&str], script: &str) -> Finished {
    let image = image("busybox");
    verb(dir, "run", &[options, &[&image, "sh", "-c", script]].concat()).finish()
}

/// Fails unless the file system of a volume is sound and was unmounted.
fn assert_clean(dir: &TestDir, name: &str) {
    let file = dir.file("data").join(format!("coracle/volumes/{name}.ext4"));
    let check = Command::new("e2fsck").arg("-fn").arg(&file).output().expect("e2fsprogs is installed");
    let text = String::from_utf8_lossy(&check.stdout).into_owned() + &String::from_utf8_lossy(&check.stderr);
    assert!(check.status.success() && !text.contains("recover"), "{text}");
}

fn volume_has_what_an_earlier_machine_wrote() {
    let dir = TestDir::new();
    let written =
        run(&dir, &["-v", "data:/data"], "echo 1 > /data/x; chown 7:8 /data/x; ls -A /data; mknod /data/n c 1 3");
    written.assert_status(0).assert_stdout("x\n");
    assert_clean(&dir, "data");
    let script = "ls -Aln /data | cut -c1-10; grep -c ' /data ext4 ro,' /proc/mounts; cat /data/x; echo 2 > /data/x";
    let read = run(&dir, &["--mount", "source=data,target=/data,readonly"], script);
    read.assert_status(1).assert_stdout("total 4\ncrw-r--r--\n-rw-r--r--\n1\n1\n");
    assert!(read.stderr.contains("Read-only file system"), "{}", read.report());
}

fn empty_volume_gets_what_the_image_has_in_its_place() {
    let dir = TestDir::new();
    let image = image("python");
    let list = |options: &[&str]| {
        let words = [options, &["-u", "root", &image, "-c", LIST, "/srv", "/usr/local"]].concat();
        let listed = verb(&dir, "run", &words).finish();
        listed.assert_status(0).assert_stderr("");
        listed.stdout_text()
    };
    let of_image = list(&[]);
    assert!(of_image.lines().count() > 10 && of_image.contains("security.capability"), "{of_image}");
    assert_eq!(list(&["-v", "srv:/srv", "-v", "local:/usr/local"]), of_image);
    assert_clean(&dir, "srv");
    // From now on it is the volume's; a volume that is not empty gets nothing.
    run(&dir, &["-v", "srv:/elsewhere"], "rm -r /elsewhere/app && echo mine > /elsewhere/mine").assert_status(0);
    let again = run(&dir, &["-v", "srv:/etc", "-v", "empty:/bin/new:nocopy"], "ls -A /etc /bin/new");
    again.assert_status(0).assert_stdout("/bin/new:\n\n/etc:\nmine\n");
}

/// busybox with `VOLUME`s, as a layout in `dir`.
fn with_volumes(dir: &TestDir, paths: &[&str]) -> String {
    let layout = dir.file("layout");
    let copied = Command::new("cp").arg("-r").arg(images().join("busybox")).arg(&layout).status();
    assert!(copied.is_ok_and(|status| status.success()));
    let write = |descriptor: &mut Value, changed: &Value| {
        let text = changed.to_string();
        descriptor["digest"] = format!("sha256:{}", sha256(text.as_bytes())).into();
        descriptor["size"] = text.len().into();
        fs::write(blob(&layout, descriptor), text).expect("the test's directory is writable");
    };
    let mut index = document(&layout.join("index.json"));
    let mut manifest = document(&blob(&layout, &index["manifests"][0]));
    let mut config = document(&blob(&layout, &manifest["config"]));
    config["config"]["Volumes"] = paths.iter().map(|path| ((*path).to_owned(), json!({}))).collect();
    write(&mut manifest["config"], &config);
    write(&mut index["manifests"][0], &manifest);
    fs::write(layout.join("index.json"), index.to_string()).expect("the test's directory is writable");
    format!("oci:{}", layout.display())
}

fn volume_of_an_image_is_a_file_system_of_its_own() {
    let dir = TestDir::new();
    let image = with_volumes(&dir, &["/data", "/etc/", "/sys/fs/cgroup", "/t", "/none"]);
    let script = "grep -E ' /(data|etc|t|none|sys/fs/cgroup) ' /proc/mounts | cut -d' ' -f2,3; head -c 4 /etc/passwd; echo; \
                  echo x > /data/x && cp /bin/busybox /data/true && /data/true";
    let options = ["--tmpfs", "/t", "-v", "named:/none"];
    let own = verb(&dir, "run", &[&options[..], &[&image, "sh", "-c", script]].concat()).finish();
    own.assert_status(0).assert_stdout("/sys/fs/cgroup cgroup2\n/none ext4\n/data ext4\n/etc ext4\n/t tmpfs\nroot\n");
    assert_eq!(volume(&dir, &["ls", "-q"]).stdout_text(), "named\n", "the others end with the machine");
    let read_only = verb(&dir, "run", &["--read-only", &image, "sh", "-c", "echo x > /data/x; echo x > /x"]).finish();
    read_only.assert_status(1);
    assert!(read_only.stderr.contains("can't create /x: Read-only"), "{}", read_only.report());
}

fn one_machine_writes_or_several_read() {
    let dir = TestDir::new().keeping_machines();
    let image = image("busybox");
    let start = |option: &str, name: &str| {
        let words = ["-d", "--name", name, "-v", option, &image, "sleep", "1000"];
        verb(&dir, "run", &words).finish()
    };
    start("data:/data", "writer").assert_status(0);
    for option in ["data:/data", "data:/data:ro"] {
        let refused = start(option, "second");
        refused.assert_status(125).assert_one_line_naming(&["volume data", "in use by another machine", ":ro"]);
    }
    volume(&dir, &["rm", "data"]).assert_status(125).assert_one_line_naming(&["volume data", "in use"]);
    volume(&dir, &["prune", "--all", "--force"]).assert_status(0).assert_stdout("Total reclaimed space: 0B\n");
    verb(&dir, "stop", &["-t", "0", "writer"]).finish().assert_status(0);
    for name in ["one", "other"] {
        start("data:/data:ro", name).assert_status(0);
    }
    start("data:/data", "third").assert_status(125).assert_one_line_naming(&["volume data"]);
    for name in ["one", "other"] {
        verb(&dir, "stop", &["-t", "0", name]).finish().assert_status(0);
    }
    // Ended machines may be started again.
    volume(&dir, &["rm", "data"]).assert_status(125).assert_one_line_naming(&["volume data", "which is kept"]);
    verb(&dir, "rm", &["writer", "one", "other"]).finish().assert_status(0);
    volume(&dir, &["rm", "data"]).assert_status(0).assert_stdout("data\n");
}

fn killed_machine_leaves_what_it_had_synced() {
    let (mut volume, mut moments) = (RecordVolume::new(), Moments::new(RandomState::new().hash_one(0)));
    volume.kill_writer(&mut moments);
    // A reader cannot write back what the journal holds.
    let list = ["-v", "data:/data:ro", &image("busybox"), "sh", "-c", "ls /data > /dev/null && echo listed"];
    volume.verb("run", &list).finish().assert_status(0).assert_stdout("listed\n");
    // The next machine checks what it finds.
    volume.kill_writer(&mut moments);
}

fn full_volume_loses_nothing() {
    let dir = TestDir::new();
    volume(&dir, &["create", "--size", "16m", "small"]).assert_status(0).assert_stdout("small\n");
    let script =
        "echo kept > /v/first && sync; dd if=/dev/zero of=/v/rest bs=64k 2>&1 | grep -o 'No space left'; cat /v/first";
    run(&dir, &["-v", "small:/v"], script).assert_status(0).assert_stdout("No space left\nkept\n");
    assert_clean(&dir, "small");
    // What the image has does not fit; the volume stays empty.
    volume(&dir, &["create", "--size", "16m", "tiny"]).assert_status(0);
    let python = image("python");
    let refused = verb(&dir, "run", &["-v", "tiny:/usr", "--entrypoint", "true", &python]).finish();
    refused.assert_status(125).assert_one_line_naming(&["copy to volume", "/usr/", "No space left"]);
    run(&dir, &["-v", "tiny:/v"], "ls -A /v; df -m /v | tail -1 | awk '{ print $3 }'")
        .assert_status(0)
        .assert_stdout("0\n");
}

fn mounts_are_in_the_order_of_their_depth() {
    let dir = TestDir::new();
    let options = [
        "-v",
        "inner:/top/a/inner",
        "--tmpfs",
        "/top/a:size=1m",
        "--mount",
        "type=volume,source=outer,target=/top",
        "--mount",
        "type=tmpfs,target=/t,tmpfs-size=2m,tmpfs-mode=700,readonly",
    ];
    let script = "ln -s /top/link /l; grep -E ' /(top|t)' /proc/mounts | cut -d' ' -f2,3; stat -c %a /t; touch /t/x 2>/dev/null || echo read-only";
    let run = run(&dir, &options, script);
    run.assert_status(0).assert_stdout("/top ext4\n/t tmpfs\n/top/a tmpfs\n/top/a/inner ext4\n700\nread-only\n");
}

fn volume_verbs_make_list_and_remove() {
    let dir = TestDir::new();
    volume(&dir, &["ls"]).assert_status(0).assert_stdout("VOLUME NAME   SIZE   USED\n");
    for _ in 0..2 {
        volume(&dir, &["create", "data", "--size", "32m"]).assert_status(0).assert_stdout("data\n");
    }
    volume(&dir, &["create", "data", "-s", "64m"])
        .assert_status(125)
        .assert_one_line_naming(&["volume data exists", "33554432"]);
    let random = volume(&dir, &["create"]).stdout_text();
    assert_eq!(random.trim().len(), 64, "{random}");
    let listed = volume(&dir, &["ls", "-q"]).stdout_text();
    assert!(listed.contains("data\n") && listed.contains(&random), "{listed}");
    let inspected = volume(&dir, &["inspect", "data", "none"]);
    inspected.assert_status(125).assert_stderr("coracle: no volume none\n");
    let inspected: serde_json::Value = serde_json::from_slice(&inspected.stdout).expect("it is JSON");
    assert_eq!((&inspected[0]["Name"], &inspected[0]["Size"]), (&"data".into(), &(32 << 20).into()));
    let file = inspected[0]["File"].as_str().expect("a path").to_owned();
    let pruned = volume(&dir, &["prune", "--force"]).stdout_text();
    assert!(pruned.starts_with(&random) && pruned.contains("Total reclaimed space: "), "{pruned}");
    volume(&dir, &["prune"]).assert_status(125).assert_one_line_naming(&["volume prune", "--force"]);
    volume(&dir, &["rm", "none"]).assert_status(125).assert_one_line_naming(&["no volume none"]);
    volume(&dir, &["rm", "--force", "none", "data"]).assert_status(0).assert_stdout("data\n");
    assert!(!std::path::Path::new(&file).exists());
    for (words, object) in [
        (&["create", "../x"][..], "../x"),
        (&["create", "x", "--size", "1m"], "16m to 16t"),
        (&["create", "x", "--size", "many"], "many"),
        (&["rm"], "NAME"),
    ] {
        volume(&dir, words).assert_status(125).assert_one_line_naming(&[object]);
    }
}

fn check_makes_no_volume() {
    let dir = TestDir::new();
    verb(&dir, "check", &["-v", "data:/data", &image("busybox")]).finish().assert_status(0);
    assert!(!dir.file("data").exists());
}

fn volumes_that_contradict_are_rejected() {
    let dir = TestDir::new();
    for (options, object) in [
        (&["-v", "a:/data", "-v", "b:/data/"][..], "/data"),
        (&["-v", "a:/data", "--tmpfs", "/data"], "/data"),
        (&["-v", "a:/data", "-v", "a:/other"], "volume a is given twice"),
        (&["-v", "/data", "--scratch", "none"], "scratch"),
        (&["-v", "~/srv:/data"], "volume name"),
        (&["-v", "a:/proc/x"], "/proc"),
        (&["-v", "a:b"], "absolute path"),
        (&["-v", "a:/b:exec"], "exec"),
        (&["-v", "a:/data", "--mount", "type=bind,source=/srv,target=/data"], "-v and --mount both name /data"),
        (&["--mount", "source=/srv,target=/b"], "path of the host"),
        (&["--mount", "type=bind,source=/nowhere,target=/b"], "/nowhere"),
        (&["--mount", "type=volume"], "target"),
    ] {
        let refused = run(&dir, options, "true");
        refused.assert_status(125).assert_one_line_naming(&[object]);
    }
    assert!(!dir.file("data").exists(), "nothing was made");
}
