// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `coracle run --template` and `coracle template`.

use coracle_tests::{Case, Finished, Invocation, TestDir, case, image, sha256};
use rustix::fs::FlockOperation;
use serde_json::Value;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Full, machines_from_a_template_have_nothing_in_common),
        case!(Full, template_of_an_image_holds_nothing_of_a_run),
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

/// What `template ls` prints of each, those that were used last first.
fn list(dir: &TestDir) -> Vec<Value> {
    let list = coracle(dir, &["ls", "--json"]).verb("template").finish();
    list.assert_status(0);
    serde_json::from_slice(&list.stdout).expect("it is one JSON array")
}

/// Levels and images of the templates, those that were used last first.
fn levels(dir: &TestDir) -> Vec<(String, String)> {
    let text = |template: &Value, member: &str| template[member].as_str().unwrap_or_default().to_owned();
    list(dir).iter().map(|template| (text(template, "level"), text(template, "image"))).collect()
}

fn key(dir: &TestDir, level: &str) -> Option<String> {
    let templates = list(dir);
    let found = templates.iter().find(|template| template["level"] == level)?;
    found["key"].as_str().map(str::to_owned)
}

/// The template that is made last.
fn wait_for_the_template_of_the_image(dir: &TestDir) -> PathBuf {
    let deadline = Instant::now() + Duration::from_secs(600);
    loop {
        if let Some(key) = key(dir, "image") {
            return dir.file("cache").join("coracle/templates").join(key);
        }
        assert!(Instant::now() < deadline, "no template is made");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A template that the test damages, and its files as they were.
struct WholeTemplate {
    directory: PathBuf,
    state: String,
    /// A directory with other names of the files.
    links: PathBuf,
}

/// Files of a template besides its state.
const FILES: [&str; 2] = ["memory", "scratch"];

impl WholeTemplate {
    fn of(directory: &Path, links: PathBuf) -> Self {
        fs::create_dir(&links).expect("the test may write");
        link_files(directory, &links);
        let state = fs::read_to_string(directory.join("state")).expect("the template has it");
        Self { directory: directory.to_owned(), state, links }
    }

    fn restore(&self) {
        let _ = fs::remove_dir_all(&self.directory);
        fs::create_dir(&self.directory).expect("the test may write");
        link_files(&self.links, &self.directory);
        self.write_state(&self.state);
    }

    fn write_state(&self, state: &str) {
        fs::write(self.directory.join("state"), state).expect("the test may write");
    }

    fn damage_memory(&self) {
        let memory = self.directory.join("memory");
        fs::remove_file(&memory).expect("the test may write");
        fs::write(&memory, [0; 4096]).expect("the test may write");
    }

    fn damage_state(&self) {
        self.write_state(&self.state.replacen("\"created\":\"2", "\"created\":\"3", 1));
    }

    /// Gives a vCPU a state that does not exist, under the right digest.
    fn make_impossible_for_kvm(&self) {
        const MEMBER: &str = "\"mp_state\":[";
        let (header, body) = self.state.split_once('\n').expect("the first line is the header");
        let (before, after) = body.split_once(MEMBER).expect("a vCPU has it");
        let (_, rest) = after.split_once(',').expect("it has four bytes");
        let body = format!("{before}{MEMBER}99,{rest}");
        let name: Vec<_> = header.split(' ').take(2).collect();
        let digest = sha256(body.as_bytes());
        self.write_state(&format!("{} {} sha256:{digest}\n{body}", name.join(" "), body.len()));
    }

    /// Until the returned lock is dropped, no process makes this template.
    fn keep_makers_away(&self) -> File {
        let partial = self.directory.with_extension("partial");
        fs::create_dir(&partial).expect("no maker is at work");
        let lock = File::open(&partial).expect("the test may read");
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).expect("no maker is at work");
        lock
    }
}

fn link_files(from: &Path, to: &Path) {
    for name in FILES {
        fs::hard_link(from.join(name), to.join(name)).expect("both are in the test's directory");
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
    let template = wait_for_the_template_of_the_image(&dir);
    let (second, one) = run("auto");
    let (third, other) = run("require");
    assert!(is_warm(&second) && is_warm(&third));
    assert_eq!(levels(&dir), [("image".to_owned(), image("busybox")), ("shape".to_owned(), String::new())]);
    for index in 0..5 {
        let distinct = [&cold, &one, &other].map(|lines| &lines[index]);
        assert!(distinct[0] != distinct[1] && distinct[1] != distinct[2], "{distinct:?}");
    }

    let whole = WholeTemplate::of(&template, dir.file("whole"));
    whole.damage_memory();
    let refused = coracle(&dir, &words(&metadata, "require", "true")).finish();
    refused
        .assert_status(125)
        .assert_reason("snapshot-error")
        .assert_one_line_naming(&["--template require", "memory"]);

    // With `auto` the kernel starts in its place, if the shape has no template either. The first two need no workload; no other
    // template is made.
    let shape = key(&dir, "shape").expect("it was made first");
    coracle(&dir, &["rm", &shape]).verb("template").finish().assert_status(0);
    let makers = whole.keep_makers_away();
    for object in ["memory was altered", "its digest differs", "KVM_SET_MP_STATE"] {
        whole.restore();
        match object {
            "memory was altered" => whole.damage_memory(),
            "its digest differs" => whole.damage_state(),
            _ => whole.make_impossible_for_kvm(),
        }
        let limit = if object.starts_with("KVM") { &[][..] } else { &["--timeout", "1"] };
        let options: Vec<_> = limit.iter().map(|&option| option.to_owned()).collect();
        let run = coracle(&dir, &[options, words(&metadata, "auto", "echo booted")].concat()).finish();
        let warned = run.stderr.lines().any(|line| line.contains("the template is removed") && line.contains(object));
        assert!(warned && !is_warm(&run) && !template.exists(), "{object}: {}", run.report());
        if object.starts_with("KVM") {
            run.assert_status(0).assert_stdout("booted\n");
        } else {
            run.assert_reason("timeout");
        }
    }
    drop(makers);
    whole.restore();
    let key = key(&dir, "image").expect("it is whole again");
    coracle(&dir, &["rm", &key]).verb("template").finish().assert_status(0).assert_stdout(&format!("{key}\n"));
    coracle(&dir, &["rm", &key]).verb("template").finish().assert_status(125).assert_one_line_naming(&[&key]);
    assert!(list(&dir).is_empty());
    maker_that_fails_is_not_started_again(&dir, &template, &words(&metadata, "auto", "true"));
}

/// The machine of `words` needs the missing template in the directory `template`, and does not get as far as its workload.
fn maker_that_fails_is_not_started_again(dir: &TestDir, template: &Path, words: &[String]) {
    let partial = template.with_extension("partial");
    fs::remove_dir(&partial).expect("it kept the makers away");
    fs::write(&partial, "not a directory").expect("the test may write");
    let options = ["--timeout", "1", "--log-level", "info"].map(str::to_owned);
    let run = || {
        let run = coracle(dir, &[&options[..], words].concat()).finish();
        run.assert_reason("timeout");
        run.stderr.lines().filter(|line| line.contains("no template is made")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(run(), [""; 0]);
    let deadline = Instant::now() + Duration::from_secs(60);
    while list(dir).is_empty() {
        assert!(Instant::now() < deadline, "no failure is listed");
        std::thread::sleep(Duration::from_millis(100));
    }
    let failed = list(dir).remove(0);
    let reason = failed["reason"].as_str().unwrap_or_default();
    assert!(failed["level"] == "image" && reason.contains("partial"), "{failed}");
    let known = run();
    assert!(known.len() == 1 && known[0].contains(reason), "{known:?}");
    fs::remove_file(&partial).expect("no maker has touched it");
    let key = failed["key"].as_str().expect("it has a key");
    coracle(dir, &["rm", key]).verb("template").finish().assert_status(0).assert_stdout(&format!("{key}\n"));
    assert!(list(dir).is_empty());
}

fn template_of_an_image_holds_nothing_of_a_run() {
    let dir = TestDir::new().keeping_machines();
    let (busybox, python) = (image("busybox"), image("python"));
    let run = |options: &[&str], image: &str, command: &[&str]| {
        let options = [&["--network", "none", "--template", "require"][..], options, &[image], command].concat();
        let run = coracle(&dir, &options).finish();
        run.assert_status(0);
        assert!(is_warm(&run), "{}", run.report());
        run
    };
    let script = "echo $A $(id -u) $(hostname) $(pwd) $(cat /sys/block/vdb/size) $0; [ ! -e /tmp/f ] && echo $A > /tmp/f && \
                  cat /tmp/f; ls /v; df -T / /v /proc | awk '{print $1}'";
    let first = ["-e", "A=1", "--user", "1000", "--hostname", "one", "--workdir", "/tmp", "-v", "/v"];
    run(&first, &busybox, &["sh", "-c", script, "x"])
        .assert_stdout("1 1000 one /tmp 16777216 x\n1\nFilesystem\noverlay\n/dev/vdb\nproc\n");
    let second = ["-e", "A=2", "--hostname", "two", "--workdir", "/etc", "--init", "--tmpfs", "/v"];
    run(&second, &busybox, &["sh", "-c", script, "y"])
        .assert_stdout("2 0 two /etc 16777216 y\n2\nFilesystem\noverlay\ntmpfs\nproc\n");
    let of_busybox = [("image".to_owned(), busybox.clone()), ("shape".to_owned(), String::new())];
    assert_eq!(levels(&dir), of_busybox);

    run(&[], &python, &["-c", "print(6 * 7)"]).assert_stdout("42\n");
    assert_eq!((levels(&dir).len(), &*levels(&dir)[0].1), (3, &*python));

    // A kept layer is no disk of a template.
    run(&["--name", "kept"], &busybox, &["true"]);
    assert_eq!((levels(&dir).len(), &*levels(&dir)[0].0), (3, "shape"));
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
    assert!(list(&dir).is_empty());
    coracle(&dir, &["prune"]).verb("template").finish().assert_status(125).assert_one_line_naming(&["--force"]);
    coracle(&dir, &["prune", "-f"]).verb("template").finish().assert_status(0);
}
