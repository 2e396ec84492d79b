// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tests of [`super`]: documents in, documents out.

use super::*;

/// What an engine's document has at least.
fn document() -> Value {
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false, "cwd": "/srv", "args": ["sh", "-c", "x"], "env": ["PATH=/bin", "SECRET=s3cret"],
            "user": {"uid": 7, "gid": 8}, "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 64, "soft": 64}],
            "capabilities": {"bounding": ["CAP_KILL"]},
        },
        "root": {"path": "rootfs"},
        "hostname": "box",
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {
            "namespaces": [{"type": "pid"}, {"type": "network", "path": "/run/netns/x"}, {"type": "mount"}],
            "maskedPaths": ["/proc/kcore"],
            "seccomp": {"defaultAction": "SCMP_ACT_ALLOW"},
            "sysctl": {"net.ipv4.ip_forward": "1"},
            "resources": {
                "devices": [{"allow": false, "access": "rwm"}],
                "memory": {"limit": 128 << 20, "swap": 256 << 20},
                "cpu": {"quota": 150_000, "period": 100_000},
                "pids": {"limit": 20},
            },
        },
    })
}

/// The document with the value at `pointer` replaced, changed.
fn changed(pointer: &str, value: Value) -> Result<(Value, Request), DocumentError> {
    let mut document = document();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    document.pointer_mut(parent).unwrap().as_object_mut().unwrap().insert(key.to_owned(), value);
    let Value::Object(mut config) = document else { unreachable!("it is an object") };
    let files = [("coracle", "/usr/bin/coracle".into()), ("vmlinux", "/usr/share/coracle/vmlinux".into())];
    let request = change(&mut config, &Settings::default(), Path::new("/b/coracle"), &files)?;
    Ok((Value::Object(config), request))
}

fn rejection(pointer: &str, value: Value) -> String {
    changed(pointer, value).unwrap_err().to_string()
}

#[test]
fn workload_goes_into_the_request_and_not_into_arguments() {
    let (config, request) = changed("/annotations", json!({"org.example": "x"})).unwrap();
    assert_eq!(request.command, ["sh", "-c", "x"]);
    assert_eq!((request.workdir.as_deref(), request.user.as_deref()), (Some("/srv"), Some("7:8")));
    assert_eq!(request.env.iter().map(ToString::to_string).collect::<Vec<_>>(), ["PATH=/bin", "SECRET=s3cret"]);
    assert_eq!(request.sysctl[0].to_string(), "net.ipv4.ip_forward=1");
    assert!(request.interactive && request.keep_etc && !request.tty && !request.privileged && !request.read_only);
    assert!(!config.to_string().contains("s3cret"));
    let process = &config["process"];
    assert_eq!(process["args"], json!(["/dev/.coracle/bin/coracle", "oci-monitor", "/dev/.coracle/request.json"]));
    assert_eq!(process["user"], json!({"uid": 0, "gid": 0}));
    assert!(process.get("rlimits").is_none() && config["linux"].get("seccomp").is_none());
    assert_eq!(request.attributes().limits, ["nofile=64".parse::<crate::config::ulimit::Ulimit>().unwrap().0]);
    assert!(!request.seccomp.is_empty());
    // The request is read back as it is.
    let text = request.to_document().unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, text).unwrap();
    assert_eq!(Request::read(file.path()).unwrap(), Request { version: 1, ..request });
}

#[test]
fn container_gets_kvm_and_the_files_of_coracle_only() {
    let (config, _) = changed("/annotations", Value::Null).unwrap();
    let destinations: Vec<_> = config["mounts"].as_array().unwrap().iter().map(|mount| &mount["destination"]).collect();
    assert_eq!(destinations, ["/proc", "/dev/.coracle", "/dev/.coracle/bin/coracle", "/dev/.coracle/bin/vmlinux"]);
    assert_eq!(config["mounts"][2]["options"], json!(["bind", "ro", "nosuid", "nodev"]));
    assert_eq!(config["linux"]["devices"][0]["path"], "/dev/kvm");
    let rules = config["linux"]["resources"]["devices"].as_array().unwrap();
    assert_eq!((rules.len(), &rules[1]["minor"]), (2, &json!(232)));
    assert_eq!(config["root"], json!({"path": "rootfs"}));
}

#[test]
fn limits_become_the_machines_with_an_overhead() {
    let (config, request) = changed("/annotations", Value::Null).unwrap();
    assert_eq!(request.memory.unwrap().bytes(), 128 << 20);
    assert_eq!(request.cpus.unwrap().get(), 2);
    let resources = &config["linux"]["resources"];
    assert_eq!(resources["memory"], json!({"limit": 192 << 20, "swap": 320 << 20}));
    assert_eq!((&resources["pids"]["limit"], &resources["cpu"]["quota"]), (&json!(256), &json!(150_000)));
    let (config, small) = changed("/linux/resources/memory", json!({"limit": 6 << 20})).unwrap();
    assert_eq!(small.memory.unwrap().bytes(), 64 << 20);
    assert_eq!(config["linux"]["resources"]["memory"], json!({"limit": 128 << 20}));
    let (_, annotated) = changed("/annotations", json!({"io.coracle.memory": "1g", "io.coracle.cpus": "4"})).unwrap();
    assert_eq!((annotated.memory.unwrap().bytes(), annotated.cpus.unwrap().get()), (1 << 30, 4));
    let (_, unlimited) = changed("/linux/resources", json!({"cpu": {"quota": -1, "period": 100_000}})).unwrap();
    assert_eq!((unlimited.memory, unlimited.cpus), (None, None));
}

#[test]
fn restrictions_of_the_kernels_file_systems_are_the_engines() {
    let masked = json!(["/proc/kcore", "/srv/secret", "/proc/../srv", "/sys/firmware"]);
    let (config, request) = changed("/linux/maskedPaths", masked.clone()).unwrap();
    assert_eq!(config["linux"]["maskedPaths"], masked);
    let paths = request.restricted_paths.unwrap();
    assert_eq!((paths.masked, paths.read_only.len()), (vec!["/proc/kcore".to_owned(), "/sys/firmware".to_owned()], 0));
    assert!(!request.privileged);
    let (_, request) = changed("/linux/maskedPaths", json!([])).unwrap();
    assert!(request.privileged);
    // It has none of the host's devices, which an engine lists then.
    let mut config = config_without_masks();
    config["linux"]["devices"] = json!([{"path": "/dev/sda"}, {"path": "/dev/null"}]);
    change(&mut config, &Settings::default(), Path::new("/b/coracle"), &[]).unwrap();
    let devices: Vec<_> = config["linux"]["devices"].as_array().unwrap().iter().map(|device| &device["path"]).collect();
    assert_eq!(devices, ["/dev/null", "/dev/kvm"]);
    // All unmasked, and not privileged.
    let mut config = config_without_masks();
    config.insert("mounts".into(), json!([{"destination": "/sys", "type": "sysfs", "options": ["nosuid", "ro"]}]));
    assert!(!change(&mut config, &Settings::default(), Path::new("/b/coracle"), &[]).unwrap().privileged);
}

fn config_without_masks() -> Map<String, Value> {
    let mut config = config();
    config["linux"]["maskedPaths"] = json!([]);
    config
}

#[test]
fn what_a_machine_cannot_be_is_rejected_in_one_sentence() {
    for (pointer, value, object) in [
        ("/linux/namespaces", json!([{"type": "pid"}]), "--network host"),
        ("/linux/namespaces", json!([{"type": "network"}]), "--pid host"),
        // As Docker writes it.
        (
            "/linux/namespaces",
            json!([{"type": "pid"}, {"type": "network", "path": "/proc/self/ns/net"}]),
            "--network host",
        ),
        ("/linux/devices", json!([{"path": "/dev/null"}, {"path": "/dev/sda"}]), "/dev/sda"),
        ("/linux/devices", json!({}), "devices"),
        ("/linux/sysctl", json!({"kernel.core_pattern": "1"}), "kernel.core_pattern"),
        ("/annotations", json!({"io.coracle.color": "red"}), "io.coracle.color"),
        ("/annotations", json!({"io.coracle.memory": "1m"}), "io.coracle.memory"),
        ("/process", Value::Null, "process"),
        ("/process/args", json!([]), "process.args"),
        ("/mounts", json!("x"), "mounts"),
        ("/linux", json!([]), "linux"),
        ("/hostname", json!("-x"), "hostname"),
        ("/process/rlimits", json!([{"type": "RLIMIT_X", "soft": 1, "hard": 1}]), "RLIMIT_X"),
        ("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_NOTIFY"}), "SCMP_ACT_NOTIFY"),
    ] {
        let message = rejection(pointer, value.clone());
        assert!(message.contains(object), "{pointer} {value}: {message}");
    }
}

/// A bundle with the document in a new directory.
fn bundle() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("config.json");
    std::fs::write(&config, document().to_string()).unwrap();
    (directory, config)
}

fn config() -> Map<String, Value> {
    object(document(), Path::new("x")).unwrap()
}

#[test]
fn original_document_is_restored() {
    let (directory, file) = bundle();
    let bundle = Bundle::open(directory.path()).unwrap();
    let request = Request { command: vec!["x".into()], ..Request::default() };
    let mut other = config();
    other["process"]["args"] = json!([in_container("bin/coracle")]);
    let changed = bundle.write(&file, &other, &request).unwrap();
    assert!(is_changed(&object(json::read(&file).unwrap(), &file).unwrap()));
    // A call that was killed restores nothing; the next one begins with the original.
    std::mem::forget(changed);
    let next = Bundle::open(directory.path()).unwrap();
    assert_eq!(next.config, config());
    drop(next.write(&file, &other, &request).unwrap());
    assert_eq!(json::read(&file).unwrap(), document());
    assert!(directory.path().join("coracle/request.json").exists());
    next.remove_own();
    assert_eq!(json::read(&file).unwrap(), document());
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn malformed_bundles_are_rejected_by_path() {
    let directory = tempfile::tempdir().unwrap();
    let open = || Bundle::open(directory.path()).unwrap_err().to_string();
    assert!(open().contains("config.json"));
    let deep = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
    for text in ["", "{", "[]", &deep] {
        std::fs::write(directory.path().join("config.json"), text).unwrap();
        assert!(open().contains("config.json"), "{text}");
    }
    let large = std::fs::File::create(directory.path().join("config.json")).unwrap();
    large.set_len(json::MAX_BYTES + 1).unwrap();
    assert!(open().ends_with("has more than 16 MiB"));
    assert!(Bundle::open(Path::new("/nowhere/bundle")).unwrap_err().to_string().contains("/nowhere/bundle"));
}

#[test]
fn pause_container_of_a_pod_is_a_sandbox() {
    let mut config = config();
    let is_sandbox = |config: &Map<String, Value>| {
        Bundle { path: "/".into(), bytes: Vec::new(), config: config.clone() }.is_sandbox()
    };
    assert!(!is_sandbox(&config));
    for (kind, expected) in [("container", false), ("sandbox", true)] {
        config.insert("annotations".into(), json!({"io.kubernetes.cri.container-type": kind}));
        assert_eq!(is_sandbox(&config), expected);
    }
}
