// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Verbs for images are killed at random moments: the store stays sound, and the next command uses it.

use crate::registries::Registry;
use coracle_tests::{Case, TestDir, case, sha256};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::hash::{BuildHasher as _, RandomState};
use std::path::Path;
use std::time::{Duration, Instant};

/// Kills of each verb.
const KILLS: u32 = 9;

pub(crate) fn cases() -> Vec<Case> {
    vec![case!(Quick[Registry], killed_verbs_leave_a_sound_store)]
}

/// A layout of two images whose first layer is the same, of 3 MB each.
fn layout(directory: &Path) {
    let blobs = directory.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("the test's directory is writable");
    let blob = |bytes: Vec<u8>| {
        let digest = sha256(&bytes);
        fs::write(blobs.join(&digest), &bytes).expect("the test's directory is writable");
        json!({"digest": format!("sha256:{digest}"), "size": bytes.len()})
    };
    let noise = |seed: u32| -> Vec<u8> {
        (0..250_000_u32).flat_map(|n| (n ^ seed).wrapping_mul(2_654_435_761).to_le_bytes()).collect()
    };
    let mut index = Vec::new();
    for (name, seed) in [("one", 1), ("two", 2)] {
        let layers: Vec<Value> = [0, seed, seed + 10].into_iter().map(|seed| blob(noise(seed))).collect();
        let ids: Vec<&Value> = layers.iter().map(|layer| &layer["digest"]).collect();
        let config = json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": ids}});
        let config = blob(config.to_string().into_bytes());
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers});
        let mut entry = blob(manifest.to_string().into_bytes());
        entry["annotations"] = json!({"io.containerd.image.name": format!("docker.io/library/{name}:latest")});
        index.push(entry);
    }
    fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("writable");
    fs::write(directory.join("index.json"), json!({"schemaVersion": 2, "manifests": index}).to_string())
        .expect("writable");
}

fn killed_verbs_leave_a_sound_store() {
    let dir = TestDir::new();
    let data = dir.file("data");
    let cache = dir.file("cache");
    let verb = |verb, arguments: &[&str]| {
        dir.invocation(arguments).verb(verb).env("XDG_DATA_HOME", &data).env("XDG_CACHE_HOME", &cache)
    };
    layout(&dir.file("layout"));
    let archive = dir.file("two.tar").display().to_string();
    let mut tar = tar::Builder::new(File::create(&archive).expect("the test's directory is writable"));
    tar.append_dir_all(".", dir.file("layout")).and_then(|()| tar.finish()).expect("the layout can be archived");
    let registry = Registry::start(&dir);
    let name = registry.name("team/one:1");
    // The layers are no archives, which a registry does not look at.
    verb("load", &["-i", &archive]).finish().assert_status(0);
    let layout = format!("oci:{}:docker.io/library/one:latest", data.join("coracle/images").display());
    registry.push(&layout, "team/one:1");

    let load = ["-i", archive.as_str()];
    let remove = ["-f", "one", "two", name.as_str()];
    let campaign: [(&'static str, &[&str]); 4] =
        [("load", &load), ("rmi", &remove), ("pull", &[&name]), ("image", &["prune", "--all", "--force"])];
    // How long each takes when it is not killed.
    let times = campaign.map(|(words, arguments)| {
        let started = Instant::now();
        verb(words, arguments).finish().assert_status(0);
        started.elapsed()
    });
    let seed = RandomState::new().hash_one(0);
    let mut random = seed | 1;
    for kill in 0..KILLS * 4 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let which = kill as usize % campaign.len();
        let ((words, arguments), delay) = (campaign[which], times[which].mul_f64((random % 1000) as f64 / 1000.0));
        if words == "image" || words == "rmi" {
            // So that there is something to remove.
            verb("load", &load).finish().assert_status(0);
        }
        let killed = verb(words, arguments).start();
        // A moment, and not the wait for an event.
        std::thread::sleep(delay.min(Duration::from_secs(1)));
        killed.signal(Signal::KILL);
        let _ = killed.finish();
        let checked = verb("image", &["check", "--json"]).finish();
        assert!(checked.status.success(), "seed {seed}, kill {kill} of {words} after {delay:?}\n{}", checked.report());
    }
    verb("pull", &[&name]).finish().assert_status(0);
    verb("load", &load).finish().assert_status(0);
    verb("rmi", &remove).finish().assert_status(0);
    let checked = verb("image", &["check", "--json"]).finish();
    let checked: Value = serde_json::from_str(&checked.stdout_text()).expect("it prints JSON");
    assert_eq!((&checked["blobs"], &checked["unreferenced_blobs"]), (&json!(0), &json!(0)), "seed {seed}");
    let left = fs::read_dir(data.join("coracle/images/coracle.partial")).expect("the store exists").count();
    assert_eq!(left, 0, "nothing is left of killed downloads");
}
