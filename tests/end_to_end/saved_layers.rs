// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `coracle layer`, of a machine that was made and does not run. Of one that runs: `kept_machines`.

use coracle_tests::{Case, Invocation, TestDir, case, image};
use rustix::process::Signal;
use serde_json::Value;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::time::{Duration, Instant};

/// Kills of `save`, and as many of `restore`.
const KILLS: u32 = 12;
/// So that a copy takes some time. Where the file system has nothing, as it does not matter here.
const BYTES: usize = 24 << 20;
const OFFSET: u64 = 4 << 30;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Quick, layers_are_saved_restored_listed_and_removed),
        case!(Quick, killed_verbs_leave_the_old_layer_or_the_new_one),
    ]
}

/// `coracle layer` with the words after the verb's own.
pub(crate) fn layer(dir: &TestDir, verb: &str, words: &[&str]) -> Invocation {
    let run_directory = dir.run_directory().display().to_string();
    dir.invocation(&[&[verb, "--run-dir", &run_directory], words].concat()).verb("layer")
}

fn created(dir: &TestDir) -> File {
    let words = ["--memory", "128m", "--network", "none", "--name", "c", &image("busybox"), "true"];
    dir.verb("create", &words).finish().assert_status(0);
    opened(dir)
}

/// The layer as it is now.
fn opened(dir: &TestDir) -> File {
    let path = dir.run_directory().join(".machines/c/layer.ext4");
    File::options().read(true).write(true).open(path).expect("the machine is kept")
}

/// Names in the directory of the saved layers.
fn saved(dir: &TestDir) -> Vec<String> {
    let entries = fs::read_dir(dir.run_directory().join(".machines/c/layers")).expect("a layer was saved");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("it is readable").file_name().display().to_string()).collect();
    names.sort();
    names
}

/// Marks the layer at a place where the file system has nothing.
fn mark(layer: &File, mark: u8) {
    layer.write_all_at(&[mark; 16], 0).expect("the test may write");
}

fn marked(dir: &TestDir) -> u8 {
    let mut bytes = [0; 16];
    opened(dir).read_exact_at(&mut bytes, 0).expect("it is long");
    assert_eq!(bytes, [bytes[0]; 16]);
    bytes[0]
}

fn layers_are_saved_restored_listed_and_removed() {
    let dir = TestDir::new().keeping_machines();
    let original = created(&dir);
    let layer = |verb: &str, words: &[&str]| layer(&dir, verb, words).finish();
    layer("ls", &["c"]).assert_status(0).assert_stdout("LAYER NAME   SAVED   SIZE\n");
    layer("save", &["c"]).assert_status(0).assert_stdout("1\n");
    mark(&original, b'm');
    layer("save", &["c", "marked"]).assert_status(0).assert_stdout("marked\n");
    layer("restore", &["c", "1"]).assert_status(0).assert_stdout("1\n");
    assert_eq!(marked(&dir), 0);
    layer("restore", &["c", "marked"]).assert_status(0).assert_stdout("marked\n");
    assert_eq!(marked(&dir), b'm');
    let (size, layer_of_machine) = (original.metadata().expect("it is open").len(), opened(&dir));
    let restored = layer_of_machine.metadata().expect("it is open");
    assert_eq!(restored.len(), size);
    assert!(restored.blocks() * 512 < size / 8, "it is sparse");
    // What is restored is a copy.
    mark(&layer_of_machine, b'w');
    layer("restore", &["c", "marked"]).assert_status(0);
    assert_eq!(marked(&dir), b'm');

    layer("ls", &["-q", "c"]).assert_status(0).assert_stdout("marked\n1\n");
    let listed = layer("ls", &["--json", "c"]);
    let listed: Value = serde_json::from_str(&listed.assert_status(0).stdout_text()).expect("it is JSON");
    assert_eq!((&listed[0]["name"], &listed[1]["name"]), (&"marked".into(), &"1".into()));
    assert!(listed[0]["bytes"].as_u64().is_some_and(|bytes| bytes > 4096 && bytes < size / 8), "{listed}");
    assert!(listed[0]["saved"].as_str() > listed[1]["saved"].as_str(), "{listed}");

    // A machine of which nothing is kept.
    fs::create_dir(dir.run_directory().join("gone")).expect("the test may write");
    fs::write(dir.run_directory().join("gone/lock"), "").expect("the test may write");
    for (verb, words, objects) in [
        ("save", &["unknown"][..], &["no machine", "unknown"][..]),
        ("ls", &["unknown"], &["no machine", "unknown"]),
        ("save", &["gone"], &["gone", "kept"]),
        ("ls", &["gone"], &["gone", "kept"]),
        ("save", &["c", "marked"], &["marked", "coracle layer rm c marked"]),
        ("save", &["c", "a/b"], &["a/b"]),
        ("save", &["c", ".."], &["'..'"]),
        ("restore", &["c", "../layer.ext4"], &["../layer.ext4"]),
        ("restore", &["c", "unknown"], &["c", "no saved layer unknown"]),
        ("rm", &["c", "unknown"], &["c", "no saved layer unknown"]),
        ("rm", &["c", "../../c"], &["../../c"]),
    ] {
        layer(verb, words).assert_status(125).assert_one_line_naming(objects);
    }
    // As on a disk that is full.
    for (verb, words) in [("save", &["c", "full"][..]), ("restore", &["c", "1"])] {
        let limit = ["sh", "-c", "ulimit -f 2048; exec \"$@\"", "sh"];
        let failed = self::layer(&dir, verb, words).wrapped(&limit).finish();
        failed.assert_status(125).assert_one_line_naming(&["layer", "File too large"]);
    }
    assert_eq!((marked(&dir), saved(&dir)), (b'm', vec!["1".to_owned(), "marked".to_owned()]));

    layer("rm", &["c", "unknown", "1"]).assert_status(125).assert_stdout("1\n");
    layer("ls", &["-q", "c"]).assert_status(0).assert_stdout("marked\n");
    dir.verb("rm", &["c"]).finish().assert_status(0);
    assert!(!dir.run_directory().join(".machines/c").exists());
    dir.verb("rm", &["gone"]).finish().assert_status(0);
}

fn killed_verbs_leave_the_old_layer_or_the_new_one() {
    let dir = TestDir::new().keeping_machines();
    let original = created(&dir);
    let size = original.metadata().expect("it is open").len();
    let run = |verb: &str, words: &[&str]| {
        let started = Instant::now();
        layer(&dir, verb, words).finish().assert_status(0);
        started.elapsed()
    };
    let fill = |content: u8| original.write_all_at(&vec![content; BYTES], OFFSET).expect("the test may write");
    for name in ["a", "b"] {
        fill(name.as_bytes()[0]);
        run("save", &["c", name]);
    }
    let content = || {
        let (layer, mut bytes) = (opened(&dir), vec![0; BYTES]);
        assert_eq!(layer.metadata().expect("it is open").len(), size);
        layer.read_exact_at(&mut bytes, OFFSET).expect("it is that long");
        assert!(bytes.iter().all(|byte| *byte == bytes[0]), "it is half a layer");
        char::from(bytes[0]).to_string()
    };
    let whole = run("restore", &["c", "a"]);
    let mut restored = 0;
    for kill in 0..KILLS {
        let moment = whole.mul_f64(f64::from(kill + 1) / f64::from(KILLS));
        let before = content();
        let other = if before == "a" { "b" } else { "a" };
        for words in [&["c", other][..], &["c", "killed"]] {
            let verb = if words[1] == other { "restore" } else { "save" };
            let killed = layer(&dir, verb, words).start();
            // A moment, and not the wait for an event.
            std::thread::sleep(moment.min(Duration::from_secs(1)));
            killed.signal(Signal::KILL);
            let _ = killed.finish();
        }
        let after = content();
        assert!([before.as_str(), other].contains(&after.as_str()), "{after}");
        restored += u32::from(after == other);
        // It is whole, or not there.
        if saved(&dir).contains(&"killed".to_owned()) {
            run("restore", &["c", "killed"]);
            assert_eq!(content(), after);
            run("rm", &["c", "killed"]);
        }
    }
    assert!(restored < KILLS, "no restore was killed in time");
    run("save", &["c", "last"]);
    assert_eq!(saved(&dir), ["a", "b", "last"], "nothing is left of killed processes");
    dir.verb("rm", &["c"]).finish().assert_status(0);
}
