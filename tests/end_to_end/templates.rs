// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `coracle run --template` and `coracle template`.

use coracle_tests::{Case, Finished, Invocation, TestDir, case, image};
use std::fs::{self, OpenOptions};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Full, machines_from_a_template_have_nothing_in_common),
        case!(Quick, template_require_names_what_it_cannot_have),
    ]
}

/// With a cache of its own: tests share the usual one.
fn coracle<S: AsRef<str>>(dir: &TestDir, arguments: &[S]) -> Invocation {
    dir.invocation(arguments).env("XDG_CACHE_HOME", dir.file("cache"))
}

/// With a network interface that needs nothing of the host.
fn words(metadata: &str, template: &'static str, command: &str) -> Vec<String> {
    let words = ["--metadata", metadata, "--template", template, &image("busybox"), "sh", "-c", command];
    words.map(str::to_owned).into()
}

/// Keys of the templates.
fn keys(dir: &TestDir) -> Vec<String> {
    let list = coracle(dir, &["ls", "-q"]).verb("template").finish();
    list.assert_status(0);
    list.stdout_text().lines().map(str::to_owned).collect()
}

fn wait_for_a_template(dir: &TestDir) -> PathBuf {
    let deadline = Instant::now() + Duration::from_secs(600);
    loop {
        if let [key] = &*keys(dir) {
            return dir.file("cache").join("coracle/templates").join(key);
        }
        assert!(Instant::now() < deadline, "no template is made");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn is_warm(run: &Finished) -> bool {
    !run.result_at("/boot/template_opened").is_null()
}

fn machines_from_a_template_have_nothing_in_common() {
    let dir = TestDir::new();
    let metadata = dir.file("metadata.json");
    fs::write(&metadata, r#"{"instance-id": "i-1"}"#).expect("the directory is new");
    let metadata = metadata.display().to_string();
    // The disks have their sizes, the interface carries frames, and a write reaches the layer.
    let script = "cat /proc/sys/kernel/random/uuid /proc/sys/kernel/random/boot_id /sys/class/net/eth0/address; hostname; \
                  head -c 16 /dev/urandom | md5sum; date +%s; cat /sys/block/vdb/size; echo written > /f && cat /f; \
                  printf 'PUT /latest/api/token HTTP/1.0\\r\\nX-aws-ec2-metadata-token-ttl-seconds: 60\\r\\n\\r\\n' | \
                  nc 169.254.169.254 80 | head -n 1";
    let run = |template| {
        let start = SystemTime::now();
        let run = coracle(&dir, &words(&metadata, template, script)).finish();
        run.assert_status(0);
        let lines: Vec<_> = run.stdout_text().lines().map(|line| line.trim().to_owned()).collect();
        assert_eq!(lines.len(), 9, "{lines:?}");
        let guest: u64 = lines[5].parse().expect("it is a number");
        let wall_clock = SystemTime::UNIX_EPOCH + Duration::from_secs(guest);
        let tolerance = Duration::from_secs(5);
        assert!((start - tolerance..SystemTime::now() + tolerance).contains(&wall_clock), "{lines:?} after {start:?}");
        assert_eq!((&*lines[6], &*lines[7]), ("16777216", "written"));
        assert!(lines[8].contains(" 200 "), "{lines:?}");
        (run, lines)
    };
    let (first, cold) = run("auto");
    assert!(!is_warm(&first));
    let template = wait_for_a_template(&dir);
    let (second, one) = run("auto");
    let (third, other) = run("require");
    assert!(is_warm(&second) && is_warm(&third));
    for index in 0..5 {
        let distinct = [&cold, &one, &other].map(|lines| &lines[index]);
        assert!(distinct[0] != distinct[1] && distinct[1] != distinct[2], "{distinct:?}");
    }

    let memory = OpenOptions::new().write(true).open(template.join("memory")).expect("the template has it");
    memory.set_len(4096).expect("the test may write");
    let refused = coracle(&dir, &words(&metadata, "require", "true")).finish();
    refused
        .assert_status(125)
        .assert_reason("snapshot-error")
        .assert_one_line_naming(&["--template require", "memory"]);
    let key = template.file_name().expect("it has a name").to_string_lossy().into_owned();
    coracle(&dir, &["rm", &key]).verb("template").finish().assert_status(0).assert_stdout(&format!("{key}\n"));
    coracle(&dir, &["rm", &key]).verb("template").finish().assert_status(125).assert_one_line_naming(&[&key]);
    assert!(keys(&dir).is_empty());
}

fn template_require_names_what_it_cannot_have() {
    let dir = TestDir::new();
    let directory = format!("{}:/d", dir.path().display());
    let vsock = dir.file("vsock").display().to_string();
    for (options, object) in [
        (&["-v", &*directory][..], "a directory of the host"),
        (&["--vsock", &vsock], "--vsock"),
        (&["--system"], "--system"),
    ] {
        let refused =
            coracle(&dir, &[options, &["--template", "require", &image("busybox"), "true"]].concat()).finish();
        refused.assert_status(125).assert_reason("config-error");
        refused.assert_one_line_naming(&["--template require", object]);
    }
    let unknown = dir.run(&["--template", "sometimes", &image("busybox"), "true"]);
    unknown.assert_status(125).assert_one_line_naming(&["--template", "sometimes"]);
    assert!(keys(&dir).is_empty());
    coracle(&dir, &["prune"]).verb("template").finish().assert_status(125).assert_one_line_naming(&["--force"]);
    coracle(&dir, &["prune", "-f"]).verb("template").finish().assert_status(0);
}
