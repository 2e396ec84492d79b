// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Images by name: pulled from Debian's docker-registry on loopback, which skopeo fills, into a store of the test's own.

use coracle_tests::{Case, Finished, TestDir, case, images};
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Smoke[Registry], image_is_pulled_listed_run_and_removed),
        case!(Quick[Registry], image_is_pushed_and_pulled_again),
        case!(Quick[Registry], registry_that_is_gone_is_one_line),
    ]
}

/// A registry of its own for a test; it ends with the value.
pub(crate) struct Registry {
    process: Child,
    port: u16,
}

/// More of a registry's configuration.
#[derive(Default)]
pub(crate) struct Options<'a> {
    /// After the address, in `http`.
    pub(crate) http: &'a str,
    pub(crate) more: &'a str,
}

impl Registry {
    pub(crate) fn start(dir: &TestDir) -> Registry {
        Registry::start_with(dir, &Options::default())
    }

    pub(crate) fn start_with(dir: &TestDir, options: &Options<'_>) -> Registry {
        // The port may be taken in between; then the registry does not start, and the test says so.
        let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port();
        let storage = dir.file("registry");
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '127.0.0.1:{port}'{}}}\n{}",
            storage.display(),
            options.http,
            options.more,
        );
        let config = dir.write("registry.yml", config);
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let registry = Registry { process: command.spawn().expect("docker-registry is installed"), port };
        let deadline = Instant::now() + Duration::from_secs(20);
        // It does not report when it listens.
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "docker-registry does not listen on port {port}");
            std::thread::sleep(Duration::from_millis(20));
        }
        registry
    }

    pub(crate) fn authority(&self) -> String {
        format!("localhost:{}", self.port)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    pub(crate) fn name(&self, repository: &str) -> String {
        format!("localhost:{}/{repository}", self.port)
    }

    /// Copies an image that skopeo names `source` into the registry.
    pub(crate) fn push(&self, source: &str, repository: &str) {
        let target = format!("docker://{}", self.name(repository));
        let pushed = Command::new("skopeo").args(["copy", "-q", "--dest-tls-verify=false", source, &target]).output();
        let pushed = pushed.expect("skopeo is installed");
        assert!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn image_is_pulled_listed_run_and_removed() {
    let dir = TestDir::new();
    let store = dir.file("data");
    let data = store.display().to_string();
    let verb = |verb, arguments: &[&str]| dir.invocation(arguments).verb(verb).env("XDG_DATA_HOME", &data).finish();
    let registry = Registry::start(&dir);
    registry.push(&format!("oci:{}", images().join("busybox").display()), "team/busybox:1");
    let name = registry.name("team/busybox:1");

    // What is missing is pulled by a start, and then the registry is not needed.
    let run = dir.invocation(&[&name, "echo", "pulled"]).env("XDG_DATA_HOME", &data).finish();
    run.assert_status(0).assert_stdout("pulled\n");
    let pulled = verb("pull", &[&name]);
    pulled.assert_status(0);
    assert!(pulled.stdout_text().contains("Image is up to date"), "{}", pulled.report());
    drop(registry);

    let listed = verb("images", &["--json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed.stdout_text()).expect("it prints JSON");
    assert_eq!((&listed[0]["name"], &listed[0]["tag"]), (&name.as_str().into(), &"1".into()));
    let reference = format!("oci:{}:{name}", store.join("coracle/images").display());
    let inspected =
        Command::new("skopeo").args(["inspect", "--raw", &reference]).output().expect("skopeo is installed");
    assert!(inspected.status.success(), "{}", String::from_utf8_lossy(&inspected.stderr));

    verb("tag", &[&name, "box"]).assert_status(0);
    verb("rmi", &[&name]).assert_status(0).assert_stdout(&format!("Untagged: {name}\n"));
    let blobs = || fs::read_dir(store.join("coracle/images/blobs/sha256")).expect("the store has blobs").count();
    assert!(blobs() >= 3, "the other name keeps the image");
    verb("rmi", &["box"]).assert_status(0);
    assert_eq!(blobs(), 0);
    verb("rmi", &["box"]).assert_status(125).assert_one_line_naming(&["box", "not in the local store"]);
}

fn image_is_pushed_and_pulled_again() {
    let dir = TestDir::new();
    let verb = |data, verb, arguments: &[&str]| {
        let invocation = dir.invocation(arguments).verb(verb).env("XDG_DATA_HOME", dir.file(data));
        invocation.env("XDG_CACHE_HOME", dir.file("cache")).finish()
    };
    let json = |finished: Finished| -> serde_json::Value {
        finished.assert_status(0);
        serde_json::from_str(&finished.stdout_text()).expect("it prints JSON")
    };
    let registry = Registry::start(&dir);
    let (one, two) = (registry.name("team/one:1"), registry.name("team/two:2"));
    let layout = images().join("busybox").display().to_string();
    let loaded = json(verb("data", "load", &["-i", &layout, "--json"]));
    let digest = loaded[0]["digest"].as_str().expect("it is a string").to_owned();
    verb("data", "tag", &[&digest, &one]).assert_status(0);

    let counts = |pushed: serde_json::Value| {
        assert_eq!(pushed["digest"], digest.as_str());
        ["blobs_sent", "blobs_mounted", "blobs_present"].map(|key| pushed[key].as_u64().expect("it is a number"))
    };
    assert_eq!(counts(json(verb("data", "push", &[&one, "--json"]))), [2, 0, 0]);
    assert_eq!(counts(json(verb("data", "push", &[&one, "--json"]))), [0, 0, 2]);
    assert_eq!(counts(json(verb("data", "image", &["push", &one, &two, "--json"]))), [0, 2, 0]);
    let plain = verb("data", "push", &[&one, &two]);
    plain.assert_status(0);
    assert!(plain.stdout_text().starts_with(&format!("{two}: digest: {digest} size: ")), "{}", plain.report());

    let reference = format!("docker://{two}");
    let inspected = Command::new("skopeo").args(["inspect", "--tls-verify=false", &reference]).output();
    let inspected: serde_json::Value =
        serde_json::from_slice(&inspected.expect("skopeo is installed").stdout).expect("skopeo prints JSON");
    assert_eq!(inspected["Digest"], digest.as_str());
    verb("other", "pull", &[&two]).assert_status(0);
    assert_eq!(json(verb("other", "images", &["--json"]))[0]["digest"], digest.as_str());
    // The layer is converted by the pull already, and goes with the image.
    let converted = || fs::read_dir(dir.file("cache/coracle/layers/v1")).expect("the pull has made it").count();
    assert_eq!(converted(), 1);
    json(verb("other", "image", &["prune", "--force", "--json"]));
    assert_eq!(converted(), 1);
    let pruned = json(verb("other", "image", &["prune", "--all", "--force", "--json"]));
    assert_eq!((&pruned["untagged"][0], &pruned["layers"]), (&two.as_str().into(), &1.into()));
    assert_eq!(converted(), 0);
    json(verb("other", "image", &["check", "--json"]));
    verb("other", "pull", &[&two]).assert_status(0);
    assert_eq!(converted(), 1);
    json(verb("other", "image", &["check", "--json"]));

    drop(registry);
    verb("data", "push", &[&one]).assert_status(125).assert_one_line_naming(&["cannot push", &one, "refused"]);
    verb("data", "push", &[&one, &digest]).assert_status(125);
}

fn registry_that_is_gone_is_one_line() {
    let dir = TestDir::new();
    let name = {
        let registry = Registry::start(&dir);
        let name = registry.name("no/such/image");
        let data = dir.file("data").display().to_string();
        let pulled = dir.invocation(&[&name]).verb("pull").env("XDG_DATA_HOME", data).finish();
        pulled.assert_status(125).assert_one_line_naming(&[&name, "not found in registry"]);
        name
    };
    let data = dir.file("data").display().to_string();
    let run = dir.invocation(&[&name, "true"]).env("XDG_DATA_HOME", data).finish();
    run.assert_status(125).assert_reason("image-error").assert_one_line_naming(&[&name, "refused"]);
}
