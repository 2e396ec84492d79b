// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Archives of images: loaded as docker writes them, saved as skopeo reads them; what the local store says about its images, and
//! what it removes.

use coracle_tests::{Case, Finished, Invocation, Stdin, TestDir, blob, case, document, images, sha256};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Full, image_of_a_docker_archive_is_loaded_and_kept_while_it_runs),
        case!(Quick[Registry], saved_archive_is_read_by_skopeo_and_loaded_again),
        case!(Quick, image_verbs_describe_what_is_stored),
        case!(Quick, archive_that_is_no_image_is_one_line),
        case!(Full, imported_root_runs),
        case!(Quick, import_describes_what_it_was_told_and_rejects_the_rest),
    ]
}

/// The archive of two images, `a` and `b`, that docker writes since version 25: the layers are not compressed, both images have
/// the tag `latest` in the index, and the first layer is shared. The last layer has `/which`.
fn docker_archive(dir: &TestDir) -> PathBuf {
    let mut blobs: Vec<(String, Vec<u8>)> = Vec::new();
    let mut blob = |media_type: &str, bytes: Vec<u8>| {
        let digest = sha256(&bytes);
        let descriptor = json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len()});
        if blobs.iter().all(|(known, _)| *known != digest) {
            blobs.push((digest, bytes));
        }
        descriptor
    };
    let layer_type = "application/vnd.oci.image.layer.v1.tar";
    let (mut index, mut manifest) = (Vec::new(), Vec::new());
    let base = busybox_layer();
    for name in ["a", "b"] {
        let layers = [base.clone(), tar_of(&[("which", format!("{name}\n").as_bytes())])];
        let ids: Vec<String> = layers.iter().map(|layer| format!("sha256:{}", sha256(layer))).collect();
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "created": "2024-02-29T12:00:00Z",
            "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"], "Labels": {"name": name}},
            "rootfs": {"type": "layers", "diff_ids": ids},
            "history": [
                {"created": "2024-02-28T12:00:00Z", "created_by": "ADD busybox"},
                {"created": "2024-02-29T12:00:00Z", "created_by": "CMD [\"sh\"]", "empty_layer": true},
                {"created": "2024-02-29T12:00:00Z", "created_by": format!("RUN echo {name} > /which")},
            ],
        });
        let layers: Vec<Value> = layers.into_iter().map(|layer| blob(layer_type, layer)).collect();
        let config = blob("application/vnd.oci.image.config.v1+json", config.to_string().into_bytes());
        let place = |descriptor: &Value| {
            format!("blobs/{}", descriptor["digest"].as_str().expect("it is a string").replace(':', "/"))
        };
        manifest.push(json!({
            "Config": place(&config),
            "RepoTags": [format!("{name}:latest")],
            "Layers": layers.iter().map(place).collect::<Vec<_>>(),
        }));
        let document = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config,
            "layers": layers,
        });
        let mut entry = blob("application/vnd.oci.image.manifest.v1+json", document.to_string().into_bytes());
        entry["annotations"] = json!({
            "io.containerd.image.name": format!("docker.io/library/{name}:latest"),
            "org.opencontainers.image.ref.name": "latest",
        });
        index.push(entry);
    }
    let index = json!({"schemaVersion": 2, "manifests": index}).to_string();
    let manifest = Value::from(manifest).to_string();
    let places: Vec<(String, Vec<u8>)> =
        blobs.into_iter().map(|(digest, bytes)| (format!("blobs/sha256/{digest}"), bytes)).collect();
    let mut members: Vec<(&str, &[u8])> =
        places.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    members.push(("index.json", index.as_bytes()));
    members.push(("manifest.json", manifest.as_bytes()));
    members.push(("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#));
    dir.write("two.tar", tar_of(&members))
}

fn tar_of(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, *bytes).expect("a vector can be written to");
    }
    archive.into_inner().expect("a vector can be written to")
}

/// The layer of the test image, not compressed.
fn busybox_layer() -> Vec<u8> {
    let layout = images().join("busybox");
    let index = document(&layout.join("index.json"));
    let manifest = document(&blob(&layout, &index["manifests"][0]));
    let layer = blob(&layout, &manifest["layers"][0]);
    let unpacked = Command::new("gzip").arg("-dc").stdin(File::open(layer).expect("it exists")).output();
    unpacked.expect("gzip can be started").stdout
}

fn gzip(path: &Path) -> PathBuf {
    let status = Command::new("gzip").arg("-1").arg(path).status().expect("gzip can be started");
    assert!(status.success());
    let mut name = path.as_os_str().to_owned();
    name.push(".gz");
    name.into()
}

/// A verb of the store in the directory `data` of the test.
fn verb(dir: &TestDir, data: &str, verb: &'static str, arguments: &[&str]) -> Invocation {
    // A cache of its own, because a verb may remove what other tests use.
    dir.invocation(arguments).verb(verb).env("XDG_DATA_HOME", dir.file(data)).env("XDG_CACHE_HOME", dir.file("cache"))
}

fn json(finished: &Finished) -> Value {
    finished.assert_status(0);
    serde_json::from_str(&finished.stdout_text()).unwrap_or_else(|error| panic!("{error}\n{}", finished.report()))
}

fn skopeo(arguments: &[&str]) -> String {
    let output = Command::new("skopeo").args(arguments).stdin(Stdio::null()).output().expect("skopeo is installed");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("skopeo writes text")
}

fn image_of_a_docker_archive_is_loaded_and_kept_while_it_runs() {
    let dir = TestDir::new();
    let archive = gzip(&docker_archive(&dir));
    let path = archive.display().to_string();
    let loaded = verb(&dir, "data", "load", &["-i", &path]).finish();
    loaded.assert_status(0).assert_stdout("Loaded image: a:latest\nLoaded image: b:latest\n");

    let command = ["-i", "--pull", "never", "b:latest", "sh", "-c", "cat /which; read line"];
    let cache = dir.file("cache");
    let run = dir.invocation(&command).env("XDG_DATA_HOME", dir.file("data")).env("XDG_CACHE_HOME", &cache);
    let mut machine = run.stdin(Stdin::Pipe).start();
    machine.wait_for_stdout("b\n");
    verb(&dir, "data", "check", &["a"]).finish().assert_status(0);
    let entries = |kind: &str| -> Vec<PathBuf> {
        let entries = fs::read_dir(cache.join("coracle").join(kind)).expect("images were converted");
        entries.map(|entry| entry.expect("it can be read").path()).collect()
    };
    let disks: Vec<Value> = entries("images/v3").iter().map(|disk| document(&disk.join("disk.json"))).collect();
    assert_eq!((entries("layers/v1").len(), disks.len()), (3, 2), "the base is converted once");
    assert_eq!(disks[0]["data"][0], disks[1]["data"][0], "and both disks have its data");
    let refused = verb(&dir, "data", "rmi", &["b"]).finish();
    refused.assert_status(125).assert_one_line_naming(&["b", "a running machine uses"]);
    let pruned = json(&verb(&dir, "data", "image", &["prune", "--all", "--force", "--json"]).finish());
    assert_eq!(pruned["untagged"], json!(["docker.io/library/a:latest"]));
    assert_eq!(pruned["blobs"], 3, "the shared layer stays");
    assert_eq!((&pruned["root_disks"], &pruned["layers"]), (&json!(1), &json!(1)), "the machine has the others open");
    let listed = json(&verb(&dir, "data", "images", &["--json"]).finish());
    assert_eq!((listed.as_array().map(Vec::len), &listed[0]["in_use"]), (Some(1), &true.into()));
    // Without its name the image stays until its machine ends.
    verb(&dir, "data", "rmi", &["-f", "b"]).finish().assert_status(0);
    let blobs = || fs::read_dir(dir.file("data/coracle/images/blobs/sha256")).expect("the store exists").count();
    assert_eq!(blobs(), 4);
    machine.send("end\n");
    machine.finish().assert_status(0);
    let pruned = json(&verb(&dir, "data", "image", &["prune", "-f", "--json"]).finish());
    assert_eq!((blobs(), &pruned["root_disks"]), (0, &json!(0)), "what is converted was used lately");
    let pruned = json(&verb(&dir, "data", "image", &["prune", "--all", "-f", "--json"]).finish());
    assert_eq!((&pruned["root_disks"], &pruned["layers"]), (&json!(1), &json!(2)));
    assert!(pruned["bytes"].as_u64() > Some(1 << 20), "{pruned}");
}

fn saved_archive_is_read_by_skopeo_and_loaded_again() {
    let dir = TestDir::new();
    let archive = docker_archive(&dir);
    // Through a pipe.
    let mut load = verb(&dir, "data", "load", &["--json"]).stdin(Stdin::Pipe).start();
    load.send(fs::read(archive).expect("it was written"));
    load.close_stdin();
    let loaded = json(&load.finish());
    assert_eq!(loaded[1]["names"], json!(["docker.io/library/b:latest"]));
    verb(&dir, "data", "tag", &["b", "localhost:5000/team/b:2"]).finish().assert_status(0);

    let saved = dir.file("saved.tar");
    let path = saved.display().to_string();
    let names = ["a", "b", "localhost:5000/team/b:2"];
    verb(&dir, "data", "save", &[&["-o", &path], &names[..]].concat()).finish().assert_status(0).assert_stdout("");
    let output = dir.file("stdout.tar");
    let stdout = File::create(&output).expect("the test's directory is writable");
    verb(&dir, "data", "save", &names).stdout(stdout).finish().assert_status(0);
    assert_eq!(fs::read(&output).expect("it was written"), fs::read(&saved).expect("it was written"));

    for reference in [
        format!("docker-archive:{path}:b:latest"),
        format!("docker-archive:{path}:localhost:5000/team/b:2"),
        format!("oci-archive:{path}:docker.io/library/b:latest"),
        format!("oci-archive:{path}:localhost:5000/team/b:2"),
    ] {
        let inspected: Value = serde_json::from_str(&skopeo(&["inspect", &reference])).expect("skopeo prints JSON");
        assert_eq!(inspected["Labels"]["name"], "b", "{reference}");
    }
    // Checks every layer.
    let copy = format!("oci:{}:b", dir.file("copy").display());
    skopeo(&["copy", "-q", &format!("docker-archive:{path}:b:latest"), &copy]);

    verb(&dir, "other", "load", &["-i", &path]).finish().assert_status(0);
    let list = |data| {
        let mut listed = json(&verb(&dir, data, "image", &["ls", "--json"]).finish());
        listed.as_array_mut().expect("it is a list").sort_by_key(|image| image["name"].to_string());
        listed
    };
    assert_eq!(list("other"), list("data"));
    // What skopeo writes for old versions of docker: names, but no manifests.
    let old = format!("docker-archive:{}", dir.file("old.tar").display());
    skopeo(&["copy", "-q", &format!("oci-archive:{path}:docker.io/library/b:latest"), &format!("{old}:old:1")]);
    let loaded = verb(&dir, "other", "load", &["-i", &dir.file("old.tar").display().to_string()]).finish();
    loaded.assert_status(0).assert_stdout("Loaded image: old:1\n");
    let inspect = |name| json(&verb(&dir, "other", "image", &["inspect", name]).finish())[0].clone();
    assert_eq!(inspect("old:1")["RootFS"], inspect("b")["RootFS"]);
}

fn image_verbs_describe_what_is_stored() {
    let dir = TestDir::new();
    let archive = docker_archive(&dir).display().to_string();
    let verb = |verb_, arguments: &[&str]| verb(&dir, "data", verb_, arguments).finish();
    verb("image", &["load", "-i", &archive]).assert_status(0);
    let listed = json(&verb("images", &["--json"]));
    let sizes = |image: &Value| ["size", "shared_size", "own_size"].map(|key| image[key].as_u64().expect("a number"));
    let ([size, shared, own], base) = (sizes(&listed[0]), busybox_layer().len() as u64);
    assert_eq!((shared, size), (base, shared + own));
    assert!(own > 0 && own < 10_000, "{own}");

    let digest = listed[0]["digest"].as_str().expect("it is a string").to_owned();
    let inspected = json(&verb("image", &["inspect", "a", &digest[..19]]));
    assert_eq!(inspected[0], inspected[1]);
    assert_eq!(inspected[0]["RepoTags"], json!(["a:latest"]));
    assert_eq!(inspected[0]["RepoDigests"], json!([format!("a@{digest}")]));
    assert_eq!(inspected[0]["Config"]["Cmd"], json!(["sh"]));
    assert_eq!(inspected[0]["RootFS"]["Layers"][0], format!("sha256:{}", sha256(&busybox_layer())));

    let steps = json(&verb("history", &["a", "--json"]));
    let found: Vec<_> = (0..3).map(|step| steps[step]["size"].as_u64().expect("a number")).collect();
    assert_eq!((found[1], found[2]), (0, base));
    assert_eq!(steps[0]["created_by"], "RUN echo a > /which");
    let table = verb("image", &["history", "a"]).stdout_text();
    assert!(table.starts_with("CREATED") && table.contains("CMD [\"sh\"]"), "{table}");

    let unknown = verb("image", &["inspect", "none"]);
    unknown.assert_status(125).assert_stdout("[]\n").assert_stderr("coracle: none: not in the local store\n");
    let asked = verb("image", &["prune"]);
    asked.assert_status(125).assert_one_line_naming(&["--force"]);
    verb("image", &["rm", &digest]).assert_status(0).assert_stdout("Untagged: docker.io/library/a:latest\n");
}

fn archive_that_is_no_image_is_one_line() {
    let dir = TestDir::new();
    let empty = dir.write("empty.tar", [0; 1024]).display().to_string();
    let text = dir.write("text", "this is not an archive\n").display().to_string();
    let whole = fs::read(docker_archive(&dir)).expect("it was written");
    let cut = dir.write("cut.tar", &whole[..whole.len() / 2]).display().to_string();
    for path in [&empty, &text, &cut, "/no/such/file", "/dev/null"] {
        let loaded = verb(&dir, "data", "load", &["-i", path]).finish();
        loaded.assert_status(125).assert_one_line_naming(&["cannot load", path]);
    }
    let piped = verb(&dir, "data", "load", &[]).finish();
    piped.assert_status(125).assert_one_line_naming(&["cannot load standard input"]);
    assert_eq!(json(&verb(&dir, "data", "images", &["--json"]).finish()), json!([]));
    let left = fs::read_dir(dir.file("data/coracle/images/coracle.partial")).expect("the store exists").count();
    assert_eq!(left, 0, "nothing is left of a failed load");
    let saved = verb(&dir, "data", "save", &["-o", &text, "none"]).finish();
    saved.assert_status(125).assert_one_line_naming(&["none", "not in the local store"]);
    assert_eq!(fs::read(text).expect("it is still there"), b"this is not an archive\n");
}

fn imported_root_runs() {
    let dir = TestDir::new();
    let archive = gzip(&dir.write("root.tar", busybox_layer()));
    let (path, change) = (archive.display().to_string(), r#"CMD ["echo", "imported"]"#);
    verb(&dir, "data", "import", &["-c", change, &path, "base"]).finish().assert_status(0).assert_stderr("");
    verb(&dir, "data", "run", &["base"]).finish().assert_status(0).assert_stdout("imported\n");
}

fn import_describes_what_it_was_told_and_rejects_the_rest() {
    let dir = TestDir::new();
    let archive = dir.write("root.tar", tar_of(&[("etc/motd", b"hello\n")]));
    let path = archive.display().to_string();
    let change = ["-c", "ENV A=1 B='x y'", "-c", "EXPOSE 80", "--change", "LABEL one=two", "-m", "by hand"];
    let open = || File::open(&archive).expect("just written");
    let import = |words: &[&str]| verb(&dir, "data", "import", words).stdin(Stdin::File(open())).finish();
    let imported = import(&[&change[..], &["-", "one:1"]].concat());
    imported.assert_status(0);
    let inspected = json(&verb(&dir, "data", "image", &["inspect", "one:1"]).finish());
    assert_eq!(inspected[0]["Manifest"], imported.stdout_text().trim(), "{inspected}");
    let expected = json!({"Env": ["A=1", "B=x y"], "ExposedPorts": {"80/tcp": {}}, "Labels": {"one": "two"}});
    assert_eq!(inspected[0]["Config"], expected);
    let history = json(&verb(&dir, "data", "history", &["--json", "one:1"]).finish());
    assert_eq!(history[0]["comment"], "by hand", "{history}");
    // The layer is the archive.
    let digest = format!("sha256:{}", sha256(&fs::read(&archive).expect("just written")));
    assert_eq!(inspected[0]["RootFS"]["Layers"], json!([digest]));
    json(&verb(&dir, "data", "image", &["check", "--json"]).finish());
    // Without a name it is found by its digest.
    let unnamed = import(&[&path]).stdout_text();
    json(&verb(&dir, "data", "image", &["inspect", unnamed.trim()]).finish());

    let text = dir.write("text", b"no archive").display().to_string();
    let cut = dir.write("cut.tar", &tar_of(&[("x", &[1; 3000])])[..1000]).display().to_string();
    for (words, object) in [
        (&["/nowhere.tar"][..], "/nowhere.tar"),
        (&[&text], "text"),
        (&[&cut], "cut.tar"),
        (&["-c", "RUN make", &path], "RUN make"),
        (&[&path, "UPPER"], "UPPER"),
    ] {
        import(words).assert_status(125).assert_stdout("").assert_one_line_naming(&[object]);
    }
    assert_eq!(json(&verb(&dir, "data", "images", &["--json"]).finish()).as_array().map(Vec::len), Some(2));
}
